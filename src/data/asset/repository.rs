//! Encoders and corpora straight from the hub, by name: `hub:owner/name` for a model, `hub:datasets/owner/name` for the
//! Parquet parts of a data set, either with an `@revision`.
//!
//! They have no manifest: nobody has vouched for their bytes or their licence. What was fetched once is kept with the commit
//! that it came from and the digests that it had, and is used from then on without the network.

use super::manifest::Hub;
use super::staging::Staging;
use super::stamp::stamp_of;
use super::{Cache, Error, Report, hub};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

/// What a name begins with that stands for a repository of the hub.
pub const PREFIX: &str = "hub:";
/// What stands before owner and name of a data set.
pub(super) const DATASETS: &str = "datasets/";
/// Largest configuration or tokenizer, and largest file of weights.
const CAPS: (u64, u64) = (64 << 20, 8 << 30);
/// No further part of a data set is fetched after so many bytes: no study reads as many records.
const ENOUGH: u64 = 1 << 30;
/// What was fetched, beside the files.
const RECORD: &str = "stitchback.json";
/// Files of a module's folder that an encoder may need.
const FILES: [&str; 11] = [
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "model.safetensors",
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
];

/// An encoder or a corpus of the hub, on this disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetched {
    /// Its name with the revision.
    pub name: String,
    /// The commit that the files come from.
    pub commit: String,
    /// Sha256 of each file.
    pub sha256: BTreeMap<String, String>,
    /// Where they lie.
    #[serde(skip)]
    pub dir: PathBuf,
}

/// The sentence-transformers folder, or the folder of Parquet parts, behind a name of the hub: from the cache or else from the hub.
///
/// Of a data set the parts of its `train` split are fetched, where it has one, until there are 1 GiB of them. `HF_ENDPOINT`
/// names a mirror.
///
/// # Errors
/// A name that is none, forbidden network, a hub that does not answer or has no such repository, a model that is no
/// sentence-transformers folder with safetensors weights, a data set without Parquet files.
pub fn repository(name: &str, report: &dyn Report) -> Result<Fetched, Error> {
    let (id, revision) = split(name)?;
    let cache = Cache::from_env()?;
    let folder = cache.root().join("hub").join(format!("{}@{revision}", id.replace('/', "--")));
    if let Some(found) = kept(&folder) {
        return Ok(found);
    }
    if cache.is_offline() {
        return Err(Error::Offline { name: name.to_owned() });
    }
    let parent = folder.parent().expect("below the cache");
    fs::create_dir_all(parent).map_err(Error::io(parent))?;
    let work = tempfile::Builder::new().prefix(".fetch").tempdir_in(parent).map_err(Error::io(parent))?;
    let staging = Staging::new(work.path())?;
    report.message(&format!("{name}: asking the hub"));
    let (commit, listed) = hub::files(&Hub { id: id.to_owned(), revision: revision.to_owned() })?;
    let source = Hub { id: id.to_owned(), revision: commit.clone() };
    let source = Source { name, hub: &source, listed: &listed, staging: &staging, report };
    let fetched = if id.starts_with(DATASETS) { source.parts()? } else { source.model()? };
    let mut sha256 = BTreeMap::new();
    for file in fetched {
        let stamp = stamp_of(&staging.asset.join(&file))?;
        sha256.insert(file, stamp.sha256);
    }
    let fetched = Fetched { name: format!("{PREFIX}{id}@{revision}"), commit, sha256, dir: folder.clone() };
    staging.put(RECORD, &serde_json::to_vec_pretty(&fetched).expect("names and digests"))?;
    // Another process may have been faster; what it published serves as well.
    match fs::rename(&staging.asset, &folder) {
        Err(_) if kept(&folder).is_some() => {}
        other => other.map_err(Error::io(&folder))?,
    }
    Ok(fetched)
}

/// A repository that is being fetched.
struct Source<'a> {
    name: &'a str,
    hub: &'a Hub,
    listed: &'a BTreeSet<String>,
    staging: &'a Staging,
    report: &'a dyn Report,
}

impl Source<'_> {
    fn get(&self, file: &str, cap: u64, place: &str) -> Result<(), Error> {
        let path = hub::download(self.hub, file, cap, &self.staging.download, self.report)?;
        self.staging.adopt(place, &path)
    }

    fn refused(&self, why: &str) -> Error {
        Error::Container { file: self.name.to_owned(), why: why.to_owned() }
    }

    /// Fetches what an encoder is read from; returns the files' names.
    fn model(&self) -> Result<Vec<String>, Error> {
        if !self.listed.contains("modules.json") {
            return Err(self.refused(
                "it has no `modules.json`: not a sentence-transformers model; a data set is named `hub:datasets/owner/name`",
            ));
        }
        self.get("modules.json", CAPS.0, "modules.json")?;
        let modules = modules(&self.staging.asset.join("modules.json")).map_err(|why| self.refused(&why))?;
        let candidates = std::iter::once("config_sentence_transformers.json".to_owned())
            .chain(modules.iter().flat_map(|folder| FILES.map(|file| format!("{folder}{file}"))));
        let mut wanted: Vec<String> = candidates.filter(|file| self.listed.contains(file)).collect();
        if !wanted.iter().any(|file| file.ends_with("model.safetensors")) {
            return Err(self.refused(
                "it has no `model.safetensors`, and pickled weights are never opened; convert it with `save_pretrained`",
            ));
        }
        for file in &wanted {
            let cap = if file.ends_with(".safetensors") { CAPS.1 } else { CAPS.0 };
            self.get(file, cap, file)?;
        }
        wanted.push("modules.json".to_owned());
        Ok(wanted)
    }

    /// Fetches Parquet parts, side by side in one folder; returns their names there.
    fn parts(&self) -> Result<Vec<String>, Error> {
        let parquet = |file: &&String| Path::new(file).extension().is_some_and(|e| e == "parquet");
        let mut parts: Vec<&String> = self.listed.iter().filter(parquet).collect();
        if parts.iter().any(|part| part.contains("train")) {
            parts.retain(|part| part.contains("train"));
        }
        if parts.is_empty() {
            return Err(self.refused("it has no Parquet file; name a folder with its files instead"));
        }
        let (mut names, mut bytes) = (Vec::new(), 0);
        for part in &parts {
            if bytes >= ENOUGH {
                let (have, all) = (names.len(), parts.len());
                self.report.message(&format!("{}: the first {have} of {all} parts are used", self.name));
                break;
            }
            let place = part.replace('/', "--");
            self.get(part, CAPS.1, &place)?;
            let path = self.staging.asset.join(&place);
            bytes += fs::metadata(&path).map_err(Error::io(&path))?.len();
            names.push(place);
        }
        Ok(names)
    }
}

/// Owner and name, after `datasets/` for a data set, and the revision (`main` unless given).
fn split(name: &str) -> Result<(&str, &str), Error> {
    let rest = name.strip_prefix(PREFIX).unwrap_or(name);
    let (id, revision) = rest.split_once('@').unwrap_or((rest, "main"));
    let plain = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    let own = id.strip_prefix(DATASETS).unwrap_or(id);
    let whole = own.split_once('/').is_some_and(|(owner, model)| plain(owner) && plain(model)) && plain(revision);
    if whole {
        Ok((id, revision))
    } else {
        Err(Error::Unknown {
            name: name.to_owned(),
            known: "`hub:owner/name` or `hub:owner/name@revision`, `hub:datasets/owner/name` for a data set".to_owned(),
        })
    }
}

/// What the cache has, if every file is there.
fn kept(folder: &Path) -> Option<Fetched> {
    let found: Fetched = serde_json::from_slice(&fs::read(folder.join(RECORD)).ok()?).ok()?;
    let whole = found.sha256.keys().all(|file| folder.join(file).is_file());
    whole.then(|| Fetched { dir: folder.to_owned(), ..found })
}

/// Folders of the modules, each with its `/`, the first one mostly empty.
fn modules(path: &Path) -> Result<BTreeSet<String>, String> {
    #[derive(Deserialize)]
    struct Module {
        path: String,
    }
    let bytes = fs::read(path).map_err(|e| e.to_string())?;
    let modules: Vec<Module> = serde_json::from_slice(&bytes).map_err(|e| format!("its `modules.json`: {e}"))?;
    modules
        .into_iter()
        .map(|module| match module.path.as_str() {
            "" => Ok(String::new()),
            inside if Path::new(inside).components().all(|c| matches!(c, Component::Normal(_))) => {
                Ok(format!("{inside}/"))
            }
            outside => Err(format!("its module path `{}` leaves the folder", outside.escape_debug())),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_owner_slash_model_and_nothing_else() {
        assert_eq!(split("hub:a/b-c.d").expect("a name"), ("a/b-c.d", "main"));
        assert_eq!(split("hub:a/b@0f1e").expect("a name"), ("a/b", "0f1e"));
        assert_eq!(split("hub:datasets/a/b").expect("a name"), ("datasets/a/b", "main"));
        for wrong in [
            "hub:",
            "hub:a",
            "hub:datasets/a/b/c",
            "hub:a/b/c",
            "hub:../b",
            "hub:a/..",
            "hub:a/b@",
            "hub:a/b@../x",
            "hub:a b/c",
        ] {
            let error = split(wrong).expect_err(wrong).to_string();
            assert!(error.contains("`hub:owner/name`"), "{error}");
        }
    }
}
