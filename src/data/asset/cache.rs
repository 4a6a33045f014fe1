//! The cache: the order of sources, verification, and the rename that makes an asset visible.
//!
//! ```text
//! ROOT/assets/NAME-vN/        the files and asset.json, which is written last and says what was verified
//! ROOT/tmp/                   downloads and half-made folders; nothing here is ever believed
//! ROOT/locks/NAME.lock        so that two processes do not download the same thing twice
//! ```

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::manifest::{self, Kind, Manifest, Source};
use super::staging::{Staging, from_archive, from_folder, from_hub};
use super::stamp::{Stamp, check, stamp_of, stamp_of_bytes};
use super::{Asset, Error, Report, client};

/// What is written beside the files when all of them are verified.
const RECORD: &str = "asset.json";
/// Left-overs of killed processes are removed after this time.
const STALE: Duration = Duration::from_hours(24);

/// Where assets are kept, and where new ones may be had.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
    offline: bool,
    from: Option<PathBuf>,
    /// Replaces `PATH` for package clients.
    search: Option<OsString>,
}

/// What the cache holds of one asset.
#[derive(Debug)]
pub enum State {
    /// Nothing.
    Absent,
    /// All of it.
    Ready(Box<Asset>),
    /// Something that is not the asset; why.
    Damaged(Error),
}

/// `asset.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    name: String,
    version: u32,
    source: String,
    pinned: bool,
    files: BTreeMap<String, Stamp>,
}

impl Cache {
    /// The cache that the environment names.
    ///
    /// # Errors
    /// When there is neither `STITCHBACK_CACHE` nor a home folder.
    pub fn from_env() -> Result<Self, Error> {
        let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
        let root = set("STITCHBACK_CACHE")
            .map(PathBuf::from)
            .or_else(|| set("XDG_CACHE_HOME").map(|dir| Path::new(&dir).join("stitchback")))
            .or_else(|| env::home_dir().map(|dir| dir.join(".cache").join("stitchback")))
            .ok_or_else(|| Error::Io {
                path: "~/.cache/stitchback".into(),
                source: io::Error::new(io::ErrorKind::NotFound, "no home folder; set STITCHBACK_CACHE to a folder"),
            })?;
        let offline = set("STITCHBACK_OFFLINE").is_some_and(|value| is_yes(&value.to_string_lossy()));
        // Clients run elsewhere: a relative folder must keep its meaning.
        let root = std::path::absolute(&root).map_err(Error::io(&root))?;
        Ok(Self { root, offline, from: set("STITCHBACK_FROM").map(PathBuf::from), search: None })
    }

    /// The same cache, with a folder that is searched before any network.
    #[must_use]
    pub fn with_from(mut self, folder: Option<PathBuf>) -> Self {
        self.from = folder.or(self.from);
        self
    }

    /// Where it lies.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// True when the network is forbidden.
    pub fn is_offline(&self) -> bool {
        self.offline
    }

    /// The package clients found on this machine, with their versions.
    pub fn clients() -> Vec<(&'static str, Option<String>)> {
        client::versions()
    }

    /// The asset, from the cache or else from its sources.
    ///
    /// # Errors
    /// [`Error::Offline`], [`Error::NoSource`], [`Error::Io`]; [`Error::Digest`] when a file that was believed at first
    /// use has changed.
    pub fn ensure(&self, manifest: &Manifest, report: &dyn Report) -> Result<Asset, Error> {
        if let Some(asset) = self.ready(manifest, report)? {
            return Ok(asset);
        }
        if self.offline && self.from.is_none() {
            return Err(Error::Offline { name: manifest.name.clone() });
        }
        let _lock = self.lock(&manifest.name, report)?;
        // Another process may have finished while this one waited.
        if let Some(asset) = self.ready(manifest, &())? {
            return Ok(asset);
        }
        self.fetch(manifest, report)
    }

    /// What the cache holds; `deep` hashes every file, otherwise sizes decide.
    pub fn state(&self, manifest: &Manifest, deep: bool) -> State {
        match self.inspect(manifest, deep) {
            Ok(Some(asset)) => State::Ready(Box::new(asset)),
            Ok(None) => State::Absent,
            Err(why) => State::Damaged(why),
        }
    }

    fn ready(&self, manifest: &Manifest, report: &dyn Report) -> Result<Option<Asset>, Error> {
        match self.inspect(manifest, true) {
            Ok(found) => Ok(found),
            Err(why) if !manifest.is_pinned() => {
                report.message(&format!(
                    "`{}` was believed at its first fetch and has changed since; remove {} to believe it anew",
                    manifest.name,
                    self.dir(manifest).display()
                ));
                Err(why)
            }
            Err(why) if self.offline && self.from.is_none() => Err(why),
            Err(why) => {
                report.message(&format!("{}: the cached copy is damaged ({why}); fetching it again", manifest.name));
                Ok(None)
            }
        }
    }

    fn dir(&self, manifest: &Manifest) -> PathBuf {
        self.root.join("assets").join(format!("{}-v{}", manifest.name, manifest.version))
    }

    fn inspect(&self, manifest: &Manifest, deep: bool) -> Result<Option<Asset>, Error> {
        let dir = self.dir(manifest);
        let path = dir.join(RECORD);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io(&path)(e)),
        };
        let record: Record =
            serde_json::from_str(&text).map_err(|e| Error::io(&path)(io::Error::new(io::ErrorKind::InvalidData, e)))?;
        for (name, stamp) in expected(manifest, &record.files) {
            let Some(recorded) = record.files.get(&name) else {
                return Err(Error::MissingEntry { archive: dir.display().to_string(), entry: name });
            };
            let wanted = stamp.as_ref().unwrap_or(recorded);
            let file = dir.join(&name);
            let found = if deep {
                stamp_of(&file)?
            } else {
                let size = fs::metadata(&file).map_err(Error::io(&file))?.len();
                Stamp { size, sha256: recorded.sha256.clone() }
            };
            check(&file.display().to_string(), wanted, &found)?;
        }
        Ok(Some(self.asset(manifest, record)))
    }

    fn asset(&self, manifest: &Manifest, record: Record) -> Asset {
        Asset {
            name: manifest.name.clone(),
            version: manifest.version,
            licence: manifest.licence.clone(),
            dir: self.dir(manifest),
            digests: record.files.into_iter().map(|(name, stamp)| (name, stamp.sha256)).collect(),
            source: record.source,
            pinned: manifest.is_pinned(),
            manifest: manifest.clone(),
        }
    }

    /// Held while fetching; a file system without locks only costs a second download.
    fn lock(&self, name: &str, report: &dyn Report) -> Result<File, Error> {
        let folder = self.root.join("locks");
        fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
        let path = folder.join(format!("{name}.lock"));
        let file = File::create(&path).map_err(Error::io(&path))?;
        if let Err(fs::TryLockError::WouldBlock) = file.try_lock() {
            report.message(&format!("{name}: waiting for another process that is fetching it"));
            file.lock().map_err(Error::io(&path))?;
        }
        Ok(file)
    }

    fn fetch(&self, manifest: &Manifest, report: &dyn Report) -> Result<Asset, Error> {
        let name = &manifest.name;
        let tmp = self.root.join("tmp");
        fs::create_dir_all(&tmp).map_err(Error::io(&tmp))?;
        sweep(&tmp);
        let folder = self.from.as_ref().map(|dir| Origin::Folder(dir));
        let network = manifest.sources.iter().filter(|_| !self.offline).map(Origin::Source);
        let mut tried = Vec::new();
        for origin in folder.into_iter().chain(network) {
            report.message(&format!("{name}: trying {origin}"));
            let work = tempfile::Builder::new().prefix(name).tempdir_in(&tmp).map_err(Error::io(&tmp))?;
            let staging = Staging::new(work.path())?;
            match self
                .obtain(&origin, manifest, &staging, report)
                .and_then(|()| self.publish(manifest, &origin, &staging))
            {
                Ok(asset) => {
                    report.message(&format!("{name}: verified, from {origin}"));
                    return Ok(asset);
                }
                Err(why) => {
                    let why_chain = super::chain(&why);
                    report.message(&format!("{name}: {origin} failed: {why_chain}"));
                    tried.push((origin.to_string(), why));
                }
            }
        }
        Err(Error::NoSource { name: name.clone(), tried, remedy: remedy(manifest) })
    }

    /// Puts the asset's verified files into the staging folder.
    fn obtain(
        &self,
        origin: &Origin<'_>,
        manifest: &Manifest,
        staging: &Staging,
        report: &dyn Report,
    ) -> Result<(), Error> {
        match origin {
            Origin::Folder(dir) => from_folder(dir, manifest, staging)?,
            Origin::Source(Source::Hub(repository)) => from_hub(repository, manifest, staging, report)?,
            Origin::Source(source) => {
                let path = client::download(source, &staging.download, self.search.as_ref(), report)?;
                from_archive(source, &path, manifest, staging)?;
            }
        }
        for file in &manifest.files {
            if let Some(text) = &file.text {
                staging.put(&file.name, text.as_bytes())?;
            }
        }
        Ok(())
    }

    /// Checks what is staged once more as a whole, writes the record, and renames the folder into place.
    fn publish(&self, manifest: &Manifest, origin: &Origin<'_>, staging: &Staging) -> Result<Asset, Error> {
        let mut files = BTreeMap::new();
        for name in staging.files()? {
            files.insert(name.clone(), stamp_of(&staging.asset.join(&name))?);
        }
        for (name, stamp) in expected(manifest, &files) {
            match (files.get(&name), stamp) {
                (None, _) => return Err(Error::MissingEntry { archive: origin.to_string(), entry: name }),
                (Some(found), Some(wanted)) => check(&name, &wanted, found)?,
                (Some(_), None) => {}
            }
        }
        let record = Record {
            name: manifest.name.clone(),
            version: manifest.version,
            source: origin.to_string(),
            pinned: manifest.is_pinned(),
            files,
        };
        let text = serde_json::to_string_pretty(&record).expect("a record is plain data");
        staging.put(RECORD, text.as_bytes())?;

        let target = self.dir(manifest);
        let parent = target.parent().expect("the target lies below the root");
        fs::create_dir_all(parent).map_err(Error::io(parent))?;
        let aside = staging.download.join("replaced");
        if fs::rename(&staging.asset, &target).is_err() {
            // Either another process was faster, and its copy is as good, or what lies there is damaged.
            if let Ok(Some(asset)) = self.inspect(manifest, true) {
                return Ok(asset);
            }
            match fs::rename(&target, &aside) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(Error::io(&target)(e)),
                _ => fs::rename(&staging.asset, &target).map_err(Error::io(&target))?,
            }
        }
        sync_dir(parent);
        Ok(self.asset(manifest, record))
    }
}

/// A place to look: a given folder, or a source of the manifest.
enum Origin<'a> {
    Folder(&'a Path),
    Source(&'a Source),
}

impl std::fmt::Display for Origin<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            // The path would tell a record's readers about this machine, and nothing about the asset.
            Origin::Folder(_) => f.write_str("given folder"),
            Origin::Source(source) => source.fmt(f),
        }
    }
}

/// The files that the asset must have; `None` where only the record knows the digest.
fn expected(manifest: &Manifest, found: &BTreeMap<String, Stamp>) -> Vec<(String, Option<Stamp>)> {
    if manifest.kind == Kind::Corpus {
        // One archive of one of the sources; without any, the first source's is the one that is missing.
        let archive = |source: &Source| {
            let package = source.package()?;
            Some((source.archive_name(), Some(Stamp { size: package.size, sha256: package.sha256.clone() })))
        };
        let of_sources: Vec<_> = manifest.sources.iter().filter_map(archive).collect();
        let present = of_sources.iter().find(|(name, _)| found.contains_key(name));
        return present.or(of_sources.first()).cloned().into_iter().collect();
    }
    let stamp = |file: &manifest::File| match (&file.text, file.size, &file.sha256) {
        (Some(text), _, _) => Some(stamp_of_bytes(text.as_bytes())),
        (None, Some(size), Some(sha256)) => Some(Stamp { size, sha256: sha256.clone() }),
        _ => None,
    };
    manifest.files.iter().map(|file| (file.name.clone(), stamp(file))).collect()
}

fn remedy(manifest: &Manifest) -> String {
    let by_hand: Vec<String> = manifest
        .sources
        .iter()
        .map(|source| match source {
            Source::Hub(hub) => format!("the files of hub repository {}", hub.id),
            Source::Pip(p) => format!("the wheel of pip package {} {}", p.package, p.version),
            Source::Npm(p) => format!("the tarball of npm package {} {}", p.package, p.version),
            Source::Apt(p) => {
                format!("the file of Debian package {} {} (after `apt-get update`)", p.package, p.version)
            }
        })
        .collect();
    format!(
        "check the network, install the missing client, or put {} into a folder DIR and run: stitchback fetch --from DIR {}",
        by_hand.join(", or "),
        manifest.name
    )
}

fn is_yes(value: &str) -> bool {
    ["1", "true", "yes", "on"].iter().any(|yes| value.trim().eq_ignore_ascii_case(yes))
}

/// Removes what killed processes left; best effort, a later sweep comes by.
fn sweep(tmp: &Path) {
    for entry in fs::read_dir(tmp).into_iter().flatten().flatten() {
        let age = entry.metadata().and_then(|m| m.modified()).map(|t| SystemTime::now().duration_since(t));
        if matches!(age, Ok(Ok(age)) if age > STALE) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Makes a rename survive a power cut where the system allows it; elsewhere the next run fetches again.
fn sync_dir(dir: &Path) {
    let _ = File::open(dir).and_then(|d| d.sync_all());
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Mutex;

    use super::*;
    use crate::data::asset::archive::tests::zip_of;

    /// Keeps what was said.
    #[derive(Default)]
    struct Heard(Mutex<Vec<String>>);

    impl Report for Heard {
        fn message(&self, text: &str) {
            self.0.lock().expect("no panic while held").push(text.to_owned());
        }
        fn progress(&self, _done: u64, _total: u64) {}
    }

    impl Heard {
        fn all(&self) -> String {
            self.0.lock().expect("no panic while held").join("\n")
        }
    }

    /// A cache of its own, whose `PATH` holds only fake clients that serve what a test puts there.
    struct Bench {
        dir: tempfile::TempDir,
        cache: Cache,
    }

    const WEIGHTS: &[u8] = b"weights";

    impl Bench {
        fn new() -> Self {
            let dir = tempfile::tempdir().expect("a folder");
            fs::create_dir_all(dir.path().join("bin/served")).expect("a folder");
            let cache = Cache {
                root: dir.path().join("cache"),
                offline: false,
                from: None,
                search: Some(dir.path().join("bin").into()),
            };
            Self { dir, cache }
        }

        /// Puts a client called `name` on the path. A link, not a copy: a file just written cannot always be run.
        #[cfg(unix)]
        fn client(&self, name: &str) -> &Self {
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/pip");
            std::os::unix::fs::symlink(script, self.dir.path().join("bin").join(name)).expect("a link");
            self
        }

        fn serve(&self, name: &str, bytes: &[u8]) -> &Self {
            self.put(&format!("bin/served/{name}"), bytes)
        }

        fn put(&self, name: &str, bytes: &[u8]) -> &Self {
            let path = self.dir.path().join(name);
            fs::create_dir_all(path.parent().expect("below the folder")).expect("a folder");
            File::create(path).and_then(|mut f| f.write_all(bytes)).expect("written");
            self
        }

        fn offline(mut self) -> Self {
            self.cache.offline = true;
            self
        }

        fn ensure(&self, manifest: &Manifest) -> Result<Asset, Error> {
            self.cache.ensure(manifest, &())
        }

        /// The error of the only source that was tried.
        fn only_failure(&self, manifest: &Manifest) -> Error {
            let error = self.ensure(manifest).expect_err("it must fail");
            assert!(matches!(self.cache.state(manifest, true), State::Absent), "a failure left something visible");
            match error {
                Error::NoSource { mut tried, .. } => {
                    assert_eq!(tried.len(), 1);
                    tried.remove(0).1
                }
                other => panic!("{other}"),
            }
        }

        fn visible(&self) -> usize {
            fs::read_dir(self.cache.root.join("assets")).map_or(0, Iterator::count)
        }
    }

    fn wheel() -> Vec<u8> {
        zip_of(&[("pkg/model.bin", WEIGHTS), ("pkg/other.py", b"raise SystemExit")])
    }

    fn source(kind: &str, archive: &[u8]) -> String {
        let Stamp { size, sha256 } = stamp_of_bytes(archive);
        format!(
            "[[source]]\n[source.{kind}]\npackage = \"p\"\nversion = \"1.0\"\nsize = {size}\nsha256 = \"{sha256}\"\nprefix = \"pkg/\"\n"
        )
    }

    fn manifest(file: &str, sources: &str) -> Manifest {
        let text = format!(
            "name = \"tiny\"\nversion = 1\nkind = \"encoder\"\nlicence = \"x\"\nabout = \"x\"\n{file}\n{sources}"
        );
        Manifest::parse("tiny.toml", &text).expect("a good manifest")
    }

    fn file_of(name: &str, bytes: &[u8]) -> String {
        let Stamp { size, sha256 } = stamp_of_bytes(bytes);
        format!("[[file]]\nname = \"{name}\"\nsize = {size}\nsha256 = \"{sha256}\"")
    }

    fn tiny() -> Manifest {
        manifest(&file_of("model.bin", WEIGHTS), &source("pip", &wheel()))
    }

    #[test]
    #[cfg(unix)]
    fn a_package_becomes_a_verified_folder_and_is_not_fetched_twice() {
        let bench = Bench::new();
        bench.client("pip").serve("p-1.0-py3-none-any.whl", &wheel());
        let asset = bench.ensure(&tiny()).expect("fetched");
        assert_eq!(fs::read(asset.path("model.bin")).expect("there"), WEIGHTS);
        assert_eq!(asset.source, "pip p==1.0");
        assert_eq!(asset.digests["model.bin"], stamp_of_bytes(WEIGHTS).sha256);
        assert!(!asset.path("other.py").exists(), "only what the manifest names is unpacked");
        assert_eq!(fs::read_dir(bench.cache.root.join("tmp")).expect("there").count(), 0, "left-overs");
        fs::remove_dir_all(bench.dir.path().join("bin")).expect("removed");
        bench.ensure(&tiny()).expect("cached");
    }

    #[test]
    #[cfg(unix)]
    fn a_wrong_archive_is_refused_with_both_digests() {
        let bench = Bench::new();
        let mut other = wheel();
        let last = other.len() - 1;
        other[last] ^= 1;
        bench.client("pip").serve("p-1.0-py3-none-any.whl", &other);
        match bench.only_failure(&tiny()) {
            Error::Digest { file, expected, got } => {
                assert_eq!((file.as_str(), expected), ("p-1.0.whl", stamp_of_bytes(&wheel()).sha256));
                assert_eq!(got, stamp_of_bytes(&other).sha256);
            }
            error => panic!("{error}"),
        }
        assert_eq!(bench.visible(), 0);
    }

    #[test]
    #[cfg(unix)]
    fn a_cut_download_leaves_nothing_visible() {
        let bench = Bench::new();
        let cut = &wheel()[..wheel().len() / 2];
        bench.client("pip").serve("p-1.0-py3-none-any.whl", cut);
        assert!(matches!(bench.only_failure(&tiny()), Error::Size { .. }));
        assert_eq!(bench.visible(), 0);
    }

    #[test]
    #[cfg(unix)]
    fn a_missing_an_oversized_and_a_changed_entry_are_told_apart() {
        let bench = Bench::new();
        bench.client("pip").serve("p-1.0-py3-none-any.whl", &wheel());
        let with = |file: String| manifest(&file, &source("pip", &wheel()));
        let missing = with(file_of("absent.bin", WEIGHTS));
        assert_eq!(bench.only_failure(&missing).to_string(), "`p 1.0` has no entry `pkg/absent.bin`");
        let larger = with(file_of("model.bin", b"small"));
        assert!(matches!(bench.only_failure(&larger), Error::TooLarge { limit: 5, .. }));
        let changed = with(file_of("model.bin", b"Weights"));
        assert!(matches!(bench.only_failure(&changed), Error::Digest { .. }));
        let shorter = with(file_of("model.bin", b"weights and more"));
        assert!(matches!(bench.only_failure(&shorter), Error::Size { expected: 16, got: 7, .. }));
    }

    #[test]
    #[cfg(unix)]
    fn the_next_source_is_tried_and_each_failure_is_told() {
        let bench = Bench::new();
        bench.client("pip").serve("p-1.0-py3-none-any.whl", &wheel());
        let both = manifest(&file_of("model.bin", WEIGHTS), &(source("npm", b"x") + &source("pip", &wheel())));
        let heard = Heard::default();
        let asset = bench.cache.ensure(&both, &heard).expect("the second source works");
        assert_eq!(asset.source, "pip p==1.0");
        assert!(heard.all().contains("npm p@1.0 failed: npm: not found; install npm"), "{}", heard.all());
    }

    #[test]
    #[cfg(unix)]
    fn without_any_source_every_reason_and_a_remedy_are_listed() {
        let bench = Bench::new();
        bench.client("pip").serve("words", b"noise\nERROR: No matching distribution found for p==1.0\n");
        let both = manifest(&file_of("model.bin", WEIGHTS), &(source("pip", b"x") + &source("apt", b"x")));
        let message = bench.ensure(&both).expect_err("neither works").to_string();
        for part in [
            "no source of `tiny` worked",
            "No matching distribution found for p==1.0",
            "apt p=1.0: apt-get: not found",
            "stitchback fetch --from DIR tiny",
        ] {
            assert!(message.contains(part), "{part} missing in:\n{message}");
        }
    }

    #[test]
    #[cfg(unix)]
    fn python_without_pip_falls_back_to_the_other_call() {
        let bench = Bench::new();
        bench.client("pip").client("python3").serve("words", b"/usr/bin/python3: No module named pip\n");
        // Both calls of the fake say the same; that the second one was reached shows in the last error.
        assert!(bench.only_failure(&tiny()).to_string().starts_with("pip: not found"));
    }

    #[test]
    fn offline_refuses_and_names_the_command() {
        let bench = Bench::new().offline();
        let error = bench.ensure(&tiny()).expect_err("not cached");
        assert_eq!(
            error.to_string(),
            "`tiny` is not in the cache and STITCHBACK_OFFLINE is set; while online, run: stitchback fetch tiny"
        );
        assert_eq!(error.exit(), crate::Exit::Input);
        assert!(["1", "true", "YES", " on "].iter().all(|v| is_yes(v)) && !is_yes("0") && !is_yes("off"));
    }

    #[test]
    fn a_folder_serves_the_archive_or_the_files_even_offline() {
        for (name, bytes) in
            [("in/renamed.zip", wheel()), ("in/tiny/model.bin", WEIGHTS.into()), ("in/model.bin", WEIGHTS.into())]
        {
            let mut bench = Bench::new().offline();
            bench.put(name, &bytes);
            bench.cache.from = Some(bench.dir.path().join("in"));
            let asset = bench.ensure(&tiny()).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(asset.source, "given folder");
            assert!(bench.dir.path().join(name).exists(), "the given file stays");
        }
        let mut bench = Bench::new().offline();
        bench.put("in/unrelated", b"x");
        bench.cache.from = Some(bench.dir.path().join("in"));
        assert!(bench.only_failure(&tiny()).to_string().contains("holds neither a package (p 1.0"));
    }

    #[test]
    #[cfg(unix)]
    fn a_damaged_copy_is_told_and_fetched_again() {
        let bench = Bench::new();
        bench.client("pip").serve("p-1.0-py3-none-any.whl", &wheel());
        let asset = bench.ensure(&tiny()).expect("fetched");
        let spoiled = "cache/assets/tiny-v1/model.bin";
        bench.put(spoiled, b"Weights");
        assert!(matches!(bench.cache.state(&tiny(), false), State::Ready(_)), "sizes agree");
        assert!(matches!(bench.cache.state(&tiny(), true), State::Damaged(Error::Digest { .. })));
        let heard = Heard::default();
        bench.cache.ensure(&tiny(), &heard).expect("fetched again");
        assert!(heard.all().contains("damaged"), "{}", heard.all());
        assert_eq!(fs::read(asset.path("model.bin")).expect("there"), WEIGHTS);
        bench.put(spoiled, b"Weights");
        let bench = bench.offline();
        assert!(matches!(bench.ensure(&tiny()), Err(Error::Digest { .. })), "offline, a damaged copy is an error");
    }

    #[test]
    fn a_folder_without_its_record_is_not_an_asset() {
        let bench = Bench::new().offline();
        bench.put("cache/assets/tiny-v1/model.bin", WEIGHTS);
        assert!(matches!(bench.cache.state(&tiny(), true), State::Absent));
    }

    #[test]
    fn first_use_is_recorded_and_held_to() {
        let text = format!(
            "name = \"tiny\"\nversion = 1\nkind = \"encoder\"\nlicence = \"x\"\nabout = \"x\"\ntrust = \"first-use\"\n\
             [[file]]\nname = \"model.bin\"\nat_most = 10\n{}",
            source("pip", b"x")
        );
        let manifest = Manifest::parse("tiny.toml", &text).expect("a good manifest");
        let mut bench = Bench::new().offline();
        bench.put("in/model.bin", WEIGHTS);
        bench.cache.from = Some(bench.dir.path().join("in"));
        let asset = bench.ensure(&manifest).expect("believed");
        assert!(!asset.pinned);
        assert_eq!(asset.digests["model.bin"], stamp_of_bytes(WEIGHTS).sha256);
        bench.put("cache/assets/tiny-v1/model.bin", b"Weights");
        assert!(matches!(bench.ensure(&manifest), Err(Error::Digest { .. })), "never replaced silently");

        let mut bench = Bench::new().offline();
        bench.put("in/model.bin", b"more than ten bytes");
        bench.cache.from = Some(bench.dir.path().join("in"));
        assert!(matches!(bench.only_failure(&manifest), Error::TooLarge { limit: 10, .. }));
    }

    #[test]
    fn a_spare_zip_inside_the_package_is_read() {
        let inner = zip_of(&[("model.bin", WEIGHTS)]);
        let outer = zip_of(&[("pkg/model.zip", &inner)]);
        let Stamp { size, sha256 } = stamp_of_bytes(&inner);
        let source = source("pip", &outer).replace("prefix = \"pkg/\"", "");
        let nested = format!("{source}inner = {{ name = \"pkg/model.zip\", size = {size}, sha256 = \"{sha256}\" }}\n");
        let mut bench = Bench::new().offline();
        bench.put("in/any.whl", &outer);
        bench.cache.from = Some(bench.dir.path().join("in"));
        let asset = bench.ensure(&manifest(&file_of("model.bin", WEIGHTS), &nested)).expect("read");
        assert_eq!(fs::read(asset.path("model.bin")).expect("there"), WEIGHTS);
    }

    #[test]
    fn a_corpus_keeps_its_archive_and_gives_its_entries() {
        let archive = zip_of(&[("c/b.txt", b"two"), ("c/a.txt", b"one"), ("c/skip.py", b"no")]);
        let text = format!(
            "name = \"tiny\"\nversion = 1\nkind = \"corpus\"\nlicence = \"x\"\nabout = \"x\"\n{}",
            source("pip", &archive)
        );
        let manifest = Manifest::parse("tiny.toml", &text).expect("a good manifest");
        let mut bench = Bench::new().offline();
        bench.put("in/any.whl", &archive);
        bench.cache.from = Some(bench.dir.path().join("in"));
        let asset = bench.ensure(&manifest).expect("copied");
        let entries = asset.entries(&|path| path != "c/skip.py").expect("readable");
        let texts: Vec<(&str, &[u8])> = entries.iter().map(|e| (e.path.as_str(), e.bytes.as_slice())).collect();
        assert_eq!(texts, [("c/a.txt", &b"one"[..]), ("c/b.txt", b"two")]);
    }

    #[test]
    #[cfg(unix)]
    fn two_fetches_at_once_agree() {
        let bench = Bench::new();
        bench.client("pip").serve("p-1.0-py3-none-any.whl", &wheel());
        std::thread::scope(|scope| {
            let runs: Vec<_> = (0..4).map(|_| scope.spawn(|| bench.ensure(&tiny()))).collect();
            for run in runs {
                let asset = run.join().expect("no panic").expect("fetched");
                assert_eq!(fs::read(asset.path("model.bin")).expect("there"), WEIGHTS);
            }
        });
        assert_eq!(bench.visible(), 1);
    }
}
