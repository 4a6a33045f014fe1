//! Entry-wise reading of archives: wheels and zips, gzipped tarballs, Debian packages.
//!
//! Nothing is ever unpacked to disk. An archive with a name that points outside, a link, a device or a repeated name
//! is refused as a whole: none of the archives that a manifest may name has one. Only Debian packages may hold symbolic
//! links: they are passed over and never followed, so a reader sees each file once, under its own name.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use super::Error;

/// Decoder memory of an xz stream; the largest preset needs 65 MiB.
const XZ_MEMORY_BYTES: u64 = 128 << 20;
/// Small entries may be packed as well as they like.
const RATIO_FREE_BYTES: u64 = 1 << 20;

/// One file of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Path inside the archive, `/` between folders, no leading `./`.
    pub path: String,
    /// Its content.
    pub bytes: Vec<u8>,
}

/// How much of an archive is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Entries of any kind.
    pub entries: usize,
    /// Bytes of one entry.
    pub entry_bytes: u64,
    /// Unpacked bytes in total, wanted or not.
    pub total_bytes: u64,
    /// Unpacked bytes for each packed byte, of one zip entry or of a whole tarball.
    pub ratio: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { entries: 100_000, entry_bytes: 64 << 20, total_bytes: 1 << 30, ratio: 200 }
    }
}

/// Says of a path how many bytes its entry may have; `None` leaves it unread.
pub type Wanted<'a> = &'a dyn Fn(&str) -> Option<u64>;

/// Reads the wanted entries of the archive at `path`, sorted by path.
///
/// # Errors
/// [`Error::Archive`] for unreadable or hostile archives, [`Error::TooLarge`] beyond a cap, [`Error::Io`].
pub fn read_file(path: &Path, limits: &Limits, wanted: Wanted<'_>) -> Result<Vec<Entry>, Error> {
    let file = File::open(path).map_err(Error::io(path))?;
    let label = path.file_name().unwrap_or_default().to_string_lossy();
    read(BufReader::new(file), &label, limits, wanted)
}

/// As [`read_file`], from anything seekable; `label` names it in errors. The kind is told by the first bytes.
///
/// # Errors
/// As [`read_file`].
pub fn read<R: Read + Seek>(
    mut reader: R,
    label: &str,
    limits: &Limits,
    wanted: Wanted<'_>,
) -> Result<Vec<Entry>, Error> {
    let mut sink = Sink { label, limits, wanted, may_link: false, seen: HashSet::new(), total: 0, entries: Vec::new() };
    let bad = |e: io::Error| sink_error(label, &e);
    let mut magic = [0; 8];
    let got = read_up_to(&mut reader, &mut magic).map_err(bad)?;
    let packed = reader.seek(SeekFrom::End(0)).map_err(bad)?;
    reader.rewind().map_err(bad)?;
    match &magic[..got] {
        [b'P', b'K', ..] => sink.zip(reader)?,
        [0x1f, 0x8b, ..] => sink.tar(flate2::read::MultiGzDecoder::new(reader), packed)?,
        b"!<arch>\n" => sink.deb(reader, packed)?,
        _ => return Err(sink.refuse("neither a zip, a gzipped tar nor a Debian package")),
    }
    let mut entries = sink.entries;
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(entries)
}

/// `name` without a leading `./`, if it stays inside its archive on every system.
pub(super) fn plain_path(name: &str) -> Result<String, String> {
    let path = name.strip_prefix("./").unwrap_or(name);
    let inside = path.split('/').all(|part| !matches!(part, "" | "." | ".."));
    if inside && !path.contains(['\\', ':', '\0']) {
        Ok(path.to_owned())
    } else {
        Err(format!("entry `{}` points outside or is not a plain path", name.escape_debug()))
    }
}

/// What the three readers share: the checks on names, counts and bytes.
struct Sink<'a> {
    label: &'a str,
    limits: &'a Limits,
    wanted: Wanted<'a>,
    /// Whether symbolic links are passed over instead of refused.
    may_link: bool,
    seen: HashSet<String>,
    total: u64,
    entries: Vec<Entry>,
}

impl Sink<'_> {
    fn refuse(&self, why: impl Into<String>) -> Error {
        Error::Archive { archive: self.label.to_owned(), why: why.into() }
    }

    fn too_large(&self, entry: &str, limit: u64, unit: &'static str) -> Error {
        Error::TooLarge { file: format!("{}: {entry}", self.label), limit, unit }
    }

    fn broken(&self, error: &dyn std::fmt::Display) -> Error {
        self.refuse(error.to_string())
    }

    /// Checks a regular entry's name and returns its path and cap if it is wanted.
    fn admit(&mut self, name: &str) -> Result<Option<(String, u64)>, Error> {
        let path = plain_path(name).map_err(|why| self.refuse(why))?;
        if !self.seen.insert(path.clone()) {
            return Err(self.refuse(format!("entry `{path}` appears twice")));
        }
        Ok((self.wanted)(&path).map(|cap| (path, cap)))
    }

    /// Reads one wanted entry to its end, but never past its cap.
    fn take(&mut self, path: String, cap: u64, announced: u64, body: &mut dyn Read) -> Result<(), Error> {
        if announced > cap {
            return Err(self.too_large(&path, cap, "bytes"));
        }
        // The announced size only sizes the first allocation; what is read is what counts.
        let mut bytes = Vec::with_capacity(announced.min(1 << 20) as usize);
        body.take(cap.saturating_add(1)).read_to_end(&mut bytes).map_err(|e| sink_error(self.label, &e))?;
        if bytes.len() as u64 > cap {
            return Err(self.too_large(&path, cap, "bytes"));
        }
        self.entries.push(Entry { path, bytes });
        Ok(())
    }

    fn zip<R: Read + Seek>(&mut self, reader: R) -> Result<(), Error> {
        let mut zip = zip::ZipArchive::new(reader).map_err(|e| self.broken(&e))?;
        if zip.has_duplicate_names() {
            return Err(self.refuse("an entry appears twice"));
        }
        if zip.len() > self.limits.entries {
            return Err(self.too_large("directory", self.limits.entries as u64, "entries"));
        }
        for index in 0..zip.len() {
            let mut entry = zip.by_index(index).map_err(|e| self.broken(&e))?;
            let name = entry.name().map_err(|e| self.broken(&e))?.into_owned();
            if entry.is_symlink() {
                return Err(self.refuse(format!("entry `{}` is a link", name.escape_debug())));
            }
            if entry.is_dir() {
                plain_path(name.trim_end_matches('/')).map_err(|why| self.refuse(why))?;
                continue;
            }
            let Some((path, cap)) = self.admit(&name)? else { continue };
            let size = entry.size();
            if size > RATIO_FREE_BYTES && size / entry.compressed_size().max(1) > self.limits.ratio {
                return Err(self.too_large(&path, self.limits.ratio, "bytes for each packed byte"));
            }
            self.total = self.total.saturating_add(size);
            if self.total > self.limits.total_bytes {
                return Err(self.too_large(&path, self.limits.total_bytes, "bytes"));
            }
            self.take(path, cap, size, &mut entry)?;
        }
        Ok(())
    }

    /// `packed` is the archive's own size, for the ratio.
    fn tar<R: Read>(&mut self, unpacked: R, packed: u64) -> Result<(), Error> {
        let by_ratio = packed.saturating_mul(self.limits.ratio).max(RATIO_FREE_BYTES);
        let left = self.limits.total_bytes.min(by_ratio);
        let mut tar = tar::Archive::new(Capped { inner: unpacked, left });
        let label = self.label;
        let bad = |e: io::Error| sink_error(label, &e);
        for (count, entry) in tar.entries().map_err(bad)?.enumerate() {
            if count >= self.limits.entries {
                return Err(self.too_large("directory", self.limits.entries as u64, "entries"));
            }
            let mut entry = entry.map_err(bad)?;
            let name = String::from_utf8(entry.path_bytes().into_owned())
                .map_err(|_| self.refuse("an entry's name is not UTF-8"))?;
            let kind = entry.header().entry_type();
            if kind.is_dir() {
                let folder = name.trim_end_matches('/');
                if folder != "." {
                    plain_path(folder).map_err(|why| self.refuse(why))?;
                }
            } else if kind.is_file() {
                let size = entry.size();
                if let Some((path, cap)) = self.admit(&name)? {
                    self.take(path, cap, size, &mut entry)?;
                }
            } else if !(kind.is_pax_global_extensions() || kind.is_symlink() && self.may_link) {
                return Err(self.refuse(format!("entry `{}` is a link or a device", name.escape_debug())));
            }
        }
        Ok(())
    }

    fn deb<R: Read>(&mut self, reader: R, packed: u64) -> Result<(), Error> {
        self.may_link = true;
        let mut ar = ar::Archive::new(reader);
        while let Some(member) = ar.next_entry() {
            let member = member.map_err(|e| sink_error(self.label, &e))?;
            match member.header().identifier() {
                b"data.tar" => return self.tar(member, packed),
                b"data.tar.gz" => return self.tar(flate2::read::MultiGzDecoder::new(member), packed),
                b"data.tar.xz" => {
                    let stream =
                        liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY_BYTES, 0).map_err(|e| self.broken(&e))?;
                    return self.tar(liblzma::read::XzDecoder::new_stream(member, stream), packed);
                }
                other if other.starts_with(b"data.tar") => {
                    let name = String::from_utf8_lossy(other).into_owned();
                    return Err(self.refuse(format!("`{name}` is packed in a way that is not read here")));
                }
                _ => {}
            }
        }
        Err(self.refuse("a Debian package without `data.tar`"))
    }
}

/// Tells the cap of [`Capped`] from a broken stream.
#[derive(Debug)]
struct CapReached;

impl std::fmt::Display for CapReached {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("unpacks to more than it may")
    }
}

impl std::error::Error for CapReached {}

/// Fails, instead of ending, when more than `left` bytes are read.
struct Capped<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Capped<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(got as u64).ok_or_else(|| io::Error::other(CapReached))?;
        Ok(got)
    }
}

/// The whole chain of an error that came through a reader.
fn sink_error(label: &str, error: &io::Error) -> Error {
    Error::Archive { archive: label.to_owned(), why: super::chain(error) }
}

fn read_up_to(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while got < buffer.len() {
        match reader.read(&mut buffer[got..])? {
            0 => break,
            n => got += n,
        }
    }
    Ok(got)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::io::{Cursor, Write};

    /// A zip with these entries, as a source would serve it.
    pub(in crate::data::asset) fn zip_of(entries: &[(&str, &[u8])]) -> Vec<u8> {
        let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
        let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
        for (name, bytes) in entries {
            writer.start_file(*name, options).expect("a new entry");
            writer.write_all(bytes).expect("memory");
        }
        writer.finish().expect("memory").into_inner()
    }

    fn header(name: &str, size: usize, kind: tar::EntryType) -> tar::Header {
        let mut header = tar::Header::new_ustar();
        // `set_path` would refuse hostile names, which are the point here.
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(size as u64);
        header.set_mode(0o644);
        header.set_entry_type(kind);
        header.set_cksum();
        header
    }

    fn tar_of(entries: &[(&str, &[u8], tar::EntryType)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, bytes, kind) in entries {
            builder.append(&header(name, bytes.len(), *kind), *bytes).expect("memory");
        }
        builder.into_inner().expect("memory")
    }

    fn gz(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).expect("memory");
        encoder.finish().expect("memory")
    }

    fn deb_of(data: &str, bytes: &[u8]) -> Vec<u8> {
        let mut builder = ar::Builder::new(Vec::new());
        for (name, bytes) in [("debian-binary", &b"2.0\n"[..]), (data, bytes)] {
            builder.append(&ar::Header::new(name.into(), bytes.len() as u64), bytes).expect("memory");
        }
        builder.into_inner().expect("memory")
    }

    fn read_all(bytes: Vec<u8>) -> Result<Vec<Entry>, Error> {
        read(Cursor::new(bytes), "a", &Limits::default(), &|_| Some(1 << 30))
    }

    const FILE: tar::EntryType = tar::EntryType::Regular;

    #[test]
    fn the_three_kinds_give_the_same_sorted_entries() {
        let files: [(&str, &[u8]); 2] = [("b/two.txt", b"2"), ("a.txt", b"1")];
        let tar = tar_of(&[("./b/two.txt", b"2", FILE), ("./", b"", tar::EntryType::Directory), ("a.txt", b"1", FILE)]);
        let mut xz = Vec::new();
        liblzma::read::XzEncoder::new(&tar[..], 6).read_to_end(&mut xz).expect("memory");
        let expected = ["a.txt", "b/two.txt"];
        for bytes in [
            zip_of(&files),
            gz(&tar),
            deb_of("data.tar.xz", &xz),
            deb_of("data.tar.gz", &gz(&tar)),
            deb_of("data.tar", &tar),
        ] {
            let entries = read_all(bytes).expect("a good archive");
            assert_eq!(entries.iter().map(|e| e.path.as_str()).collect::<Vec<_>>(), expected);
            assert_eq!(entries[1].bytes, b"2");
        }
    }

    #[test]
    fn hostile_names_are_refused_wherever_they_stand() {
        for name in ["../up", "/etc/passwd", "a/../../b", "a//b", "c:\\x", "a\\..\\b", ".."] {
            for bytes in [zip_of(&[(name, b"x")]), gz(&tar_of(&[(name, b"x", FILE)]))] {
                let error = read_all(bytes).expect_err(name);
                assert!(matches!(error, Error::Archive { .. }), "{name}: {error}");
            }
        }
    }

    #[test]
    fn a_symbolic_link_in_a_debian_package_is_passed_over() {
        let tar = tar_of(&[("a.txt", b"1", FILE), ("../up", b"", tar::EntryType::Symlink), ("b.txt", b"2", FILE)]);
        let entries = read_all(deb_of("data.tar", &tar)).expect("a good package");
        assert_eq!(entries.iter().map(|e| e.path.as_str()).collect::<Vec<_>>(), ["a.txt", "b.txt"]);
    }

    #[test]
    fn links_and_devices_are_refused_even_when_not_wanted() {
        for kind in [tar::EntryType::Symlink, tar::EntryType::Link, tar::EntryType::Char, tar::EntryType::Fifo] {
            let bytes = gz(&tar_of(&[("link", b"", kind)]));
            assert!(read(Cursor::new(bytes), "a", &Limits::default(), &|_| None).is_err(), "{kind:?}");
        }
        let other = deb_of("data.tar", &tar_of(&[("link", b"", tar::EntryType::Link)]));
        assert!(read(Cursor::new(other), "a", &Limits::default(), &|_| None).is_err(), "a hard link in a package");
        let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
        writer.add_symlink("link", "/etc/passwd", zip::write::SimpleFileOptions::default()).expect("memory");
        let bytes = writer.finish().expect("memory").into_inner();
        assert!(read_all(bytes).expect_err("a link").to_string().contains("link"));
    }

    #[test]
    fn a_repeated_name_is_refused() {
        let bytes = gz(&tar_of(&[("a", b"1", FILE), ("./a", b"2", FILE)]));
        assert!(read_all(bytes).expect_err("twice").to_string().contains("twice"));
        // The writer refuses a repeated name, so the second one is renamed in both of its headers.
        let mut bytes = zip_of(&[("aa", b"1"), ("ab", b"2")]);
        for at in 0..bytes.len() - 1 {
            if &bytes[at..at + 2] == b"ab" {
                bytes[at + 1] = b'a';
            }
        }
        assert!(read_all(bytes).expect_err("twice").to_string().contains("twice"));
    }

    #[test]
    fn every_cap_is_enforced() {
        let zeros = vec![0; 4 << 20];
        let zip = zip_of(&[("a", &zeros), ("b", b"1")]);
        let tar = gz(&tar_of(&[("a", &zeros, FILE), ("b", b"1", FILE)]));
        let roomy = Limits { ratio: 1 << 20, ..Limits::default() };
        for bytes in [zip, tar] {
            let fails =
                |limits: Limits, cap: u64| read(Cursor::new(bytes.clone()), "a", &limits, &|_| Some(cap)).is_err();
            assert!(!fails(roomy, 4 << 20), "exactly at the cap");
            assert!(fails(roomy, (4 << 20) - 1), "entry size");
            assert!(fails(Limits { entries: 1, ..roomy }, 4 << 20), "entry count");
            assert!(fails(Limits { total_bytes: 1 << 20, ..roomy }, 4 << 20), "total");
            assert!(fails(Limits { ratio: 100, ..roomy }, 4 << 20), "ratio");
        }
    }

    #[test]
    fn what_is_no_archive_says_so() {
        for bytes in [b"".to_vec(), b"hello world".to_vec(), b"PK\x03\x04 but not really".to_vec(), vec![0x1f, 0x8b, 9]]
        {
            assert!(matches!(read_all(bytes), Err(Error::Archive { .. })));
        }
        let mut cut = gz(&tar_of(&[("a", &[7; 5000], FILE)]));
        cut.truncate(cut.len() / 2);
        assert!(read_all(cut).is_err());
        let zst = deb_of("data.tar.zst", b"?");
        assert!(read_all(zst).expect_err("zst").to_string().contains("data.tar.zst"));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_refused_or_read_without_a_panic(head in 0usize..4, tail in proptest::collection::vec(0u8..=255, 0..200)) {
            let mut bytes = [&b""[..], b"PK\x03\x04", b"\x1f\x8b\x08", b"!<arch>\n"][head].to_vec();
            bytes.extend(tail);
            let _ = read_all(bytes);
        }
    }
}
