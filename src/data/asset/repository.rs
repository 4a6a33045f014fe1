//! Encoders straight from the model hub, by name: `hub:owner/name` or `hub:owner/name@revision`.
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
/// Largest configuration or tokenizer, and largest file of weights.
const CAPS: (u64, u64) = (64 << 20, 8 << 30);
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

/// An encoder of the hub, on this disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetched {
    /// `hub:owner/name@revision`.
    pub name: String,
    /// The commit that the files come from.
    pub commit: String,
    /// Sha256 of each file.
    pub sha256: BTreeMap<String, String>,
    /// Where they lie.
    #[serde(skip)]
    pub dir: PathBuf,
}

/// The sentence-transformers folder behind `hub:owner/name[@revision]`, from the cache or else from the hub.
///
/// `HF_ENDPOINT` names a mirror.
///
/// # Errors
/// A name that is none, forbidden network, a hub that does not answer or has no such model, a model that is no
/// sentence-transformers folder with safetensors weights.
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
    report.message(&format!("{name}: asking the model hub"));
    let (commit, listed) = hub::files(&Hub { id: id.to_owned(), revision: revision.to_owned() })?;
    let source = Hub { id: id.to_owned(), revision: commit.clone() };
    let get = |file: &str| -> Result<(), Error> {
        let cap = if Path::new(file).extension().is_some_and(|e| e == "safetensors") { CAPS.1 } else { CAPS.0 };
        let path = hub::download(&source, file, cap, &staging.download, report)?;
        staging.adopt(file, &path)
    };
    let refused = |why: String| Error::Container { file: name.to_owned(), why };
    if !listed.contains("modules.json") {
        return Err(refused("it has no `modules.json`: not a sentence-transformers model".to_owned()));
    }
    get("modules.json")?;
    let modules = modules(&staging.asset.join("modules.json")).map_err(refused)?;
    let candidates = std::iter::once("config_sentence_transformers.json".to_owned())
        .chain(modules.iter().flat_map(|folder| FILES.map(|file| format!("{folder}{file}"))));
    let wanted: Vec<String> = candidates.filter(|file| listed.contains(file)).collect();
    if !wanted.iter().any(|file| file.ends_with("model.safetensors")) {
        return Err(refused(
            "it has no `model.safetensors`, and pickled weights are never opened; convert it with `save_pretrained`"
                .to_owned(),
        ));
    }
    for file in &wanted {
        get(file)?;
    }
    let mut sha256 = BTreeMap::new();
    for file in wanted.into_iter().chain(["modules.json".to_owned()]) {
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

/// Owner and name, and the revision (`main` unless given).
fn split(name: &str) -> Result<(&str, &str), Error> {
    let rest = name.strip_prefix(PREFIX).unwrap_or(name);
    let (id, revision) = rest.split_once('@').unwrap_or((rest, "main"));
    let plain = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    let whole = id.split_once('/').is_some_and(|(owner, model)| plain(owner) && plain(model)) && plain(revision);
    if whole {
        Ok((id, revision))
    } else {
        Err(Error::Unknown { name: name.to_owned(), known: "`hub:owner/name` or `hub:owner/name@revision`".to_owned() })
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
        for wrong in ["hub:", "hub:a", "hub:a/b/c", "hub:../b", "hub:a/..", "hub:a/b@", "hub:a/b@../x", "hub:a b/c"] {
            let error = split(wrong).expect_err(wrong).to_string();
            assert!(error.contains("`hub:owner/name`"), "{error}");
        }
    }
}
