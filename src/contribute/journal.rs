//! The edge's private journal: an append-only file of checksummed records, synced before anything is answered.

use super::Error;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// First bytes of a journal.
const MAGIC: &[u8; 8] = b"sbjrnl1\n";
/// Length and checksum before each record.
const HEAD: usize = 8;
/// No record is longer.
const LONGEST: usize = 64 << 20;

/// Where a journal lies. A trait, so that tests can fail every single write.
pub trait Storage: Send {
    /// All bytes so far.
    fn load(&mut self) -> io::Result<Vec<u8>>;
    /// Some bytes of what was written.
    fn read(&mut self, from: u64, len: usize) -> io::Result<Vec<u8>>;
    /// Adds bytes at the end; after a fault any part of them may be there.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Returns once everything appended would survive a loss of power.
    fn sync(&mut self) -> io::Result<()>;
    /// Cuts the end off.
    fn truncate(&mut self, len: u64) -> io::Result<()>;
    /// Writes a small file beside the journal: the old content or the new one, never half of it.
    fn keep(&mut self, name: &str, bytes: &[u8]) -> io::Result<()>;
    /// What [`Storage::keep`] wrote.
    fn kept(&mut self, name: &str) -> io::Result<Option<Vec<u8>>>;
}

/// A folder on disk, locked against a second process.
#[derive(Debug)]
pub struct Folder {
    root: PathBuf,
    file: File,
}

impl Folder {
    /// Opens or creates the folder.
    ///
    /// # Errors
    /// When it cannot be written, or another process has it open.
    pub fn open(root: &Path) -> Result<Self, Error> {
        let path = root.join("journal");
        let fault = |source| Error::Io { path: path.display().to_string(), source };
        std::fs::create_dir_all(root).map_err(fault)?;
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true);
        // It holds salts and receipts of all accounts.
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(&path).map_err(fault)?;
        file.try_lock().map_err(|_| {
            Error::Input(format!("`{}` is in use by another process; stop it, or give another folder", root.display()))
        })?;
        Ok(Self { root: root.to_owned(), file })
    }
}

impl Storage for Folder {
    fn load(&mut self) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        self.file.seek(SeekFrom::Start(0))?;
        self.file.read_to_end(&mut out)?;
        Ok(out)
    }

    fn read(&mut self, from: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut out = vec![0; len];
        self.file.seek(SeekFrom::Start(from))?;
        self.file.read_exact(&mut out)?;
        Ok(out)
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.file.set_len(len)?;
        self.file.sync_all()
    }

    fn keep(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut file = atomic_write_file::AtomicWriteFile::open(self.root.join(name))?;
        file.write_all(bytes)?;
        file.commit()
    }

    fn kept(&mut self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match std::fs::read(self.root.join(name)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }
}

/// Where a record lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    from: u64,
    len: u32,
}

impl Place {
    /// A part of the record.
    pub(super) fn part(self, offset: usize, len: usize) -> Self {
        Self { from: self.from + offset as u64, len: len as u32 }
    }
}

/// An open journal.
pub struct Journal {
    storage: Box<dyn Storage>,
    len: u64,
    /// A write failed: what is on disk is unknown until the journal is opened again.
    broken: bool,
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Journal({} bytes)", self.len)
    }
}

/// A journal as it was found.
#[derive(Debug)]
pub struct Found {
    /// Whole records, in order, and where they lie.
    pub records: Vec<(Place, Vec<u8>)>,
    /// Bytes behind the last whole record: a write that a crash cut short.
    pub torn: u64,
}

impl Journal {
    /// Reads every whole record. Nothing is cut off yet: [`Journal::cut`] does that once the caller has seen that no
    /// signed statement covers more.
    ///
    /// # Errors
    /// When the storage fails, or its first bytes are of something else.
    pub fn open(mut storage: Box<dyn Storage>) -> Result<(Self, Found), Error> {
        let bytes = storage.load().map_err(io_error)?;
        let mut found = Found { records: Vec::new(), torn: 0 };
        let mut at = MAGIC.len();
        if bytes.len() < MAGIC.len() {
            if !MAGIC.starts_with(&bytes) {
                return Err(malformed("it is not a journal"));
            }
            found.torn = bytes.len() as u64;
            return Ok((Self { storage, len: 0, broken: false }, found));
        }
        if bytes[..MAGIC.len()] != *MAGIC {
            return Err(malformed("it is not a journal"));
        }
        while let Some(record) = whole(&bytes[at..]) {
            let place = Place { from: (at + HEAD) as u64, len: record.len() as u32 };
            at += HEAD + record.len();
            found.records.push((place, record.to_vec()));
        }
        found.torn = (bytes.len() - at) as u64;
        Ok((Self { storage, len: at as u64, broken: false }, found))
    }

    /// Cuts a torn end off, and writes the first bytes of a new journal.
    ///
    /// # Errors
    /// When the storage fails.
    pub fn cut(&mut self) -> Result<(), Error> {
        self.guard(|storage, len| {
            storage.truncate(*len)?;
            if *len == 0 {
                storage.append(MAGIC)?;
                storage.sync()?;
                *len = MAGIC.len() as u64;
            }
            Ok(())
        })
    }

    /// Appends records and returns once they are safe.
    ///
    /// # Errors
    /// When the storage fails; the journal then refuses everything until it is opened again.
    pub fn append(&mut self, records: &[Vec<u8>]) -> Result<Vec<Place>, Error> {
        self.guard(|storage, len| {
            let mut bytes = Vec::with_capacity(records.iter().map(|r| r.len() + HEAD).sum());
            let mut places = Vec::with_capacity(records.len());
            for record in records {
                assert!(record.len() <= LONGEST, "requests are bounded far below");
                bytes.extend((record.len() as u32).to_le_bytes());
                bytes.extend(checksum(record).to_le_bytes());
                places.push(Place { from: *len + bytes.len() as u64, len: record.len() as u32 });
                bytes.extend(record);
            }
            storage.append(&bytes)?;
            storage.sync()?;
            *len += bytes.len() as u64;
            Ok(places)
        })
    }

    /// A record by its place.
    ///
    /// # Errors
    /// When the storage fails.
    pub fn read(&mut self, place: Place) -> Result<Vec<u8>, Error> {
        self.storage.read(place.from, place.len as usize).map_err(io_error)
    }

    /// Writes a small file beside the journal, atomically.
    ///
    /// # Errors
    /// When the storage fails.
    pub fn keep(&mut self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        self.guard(|storage, _| storage.keep(name, bytes))
    }

    /// A small file beside the journal.
    ///
    /// # Errors
    /// When the storage fails.
    pub fn kept(&mut self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        self.storage.kept(name).map_err(io_error)
    }

    fn guard<T>(&mut self, work: impl FnOnce(&mut dyn Storage, &mut u64) -> io::Result<T>) -> Result<T, Error> {
        if self.broken {
            return Err(Error::Input(
                "the journal failed before; restart the edge to find out what it holds".to_owned(),
            ));
        }
        work(self.storage.as_mut(), &mut self.len).map_err(|e| {
            self.broken = true;
            io_error(e)
        })
    }
}

fn checksum(record: &[u8]) -> u32 {
    crc32fast::hash(record)
}

fn whole(bytes: &[u8]) -> Option<&[u8]> {
    let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().expect("4 bytes")));
    let (len, sum) = (word(0)? as usize, word(4)?);
    let record = bytes.get(HEAD..HEAD.checked_add(len)?)?;
    (len <= LONGEST && checksum(record) == sum).then_some(record)
}

fn io_error(source: io::Error) -> Error {
    Error::Io { path: "journal".to_owned(), source }
}

fn malformed(why: &str) -> Error {
    Error::Malformed { path: "journal".to_owned(), why: why.to_owned() }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex};

    /// What survives a crash of [`Faulty`].
    #[derive(Debug, Default)]
    pub(crate) struct Disk {
        pub(crate) bytes: Vec<u8>,
        pub(crate) files: BTreeMap<String, Vec<u8>>,
        pub(crate) writes: usize,
    }

    /// A disk in memory whose write number `fail_at` does only a part of its work and then fails, as do all after it.
    pub(crate) struct Faulty {
        pub(crate) disk: Arc<Mutex<Disk>>,
        pub(crate) fail_at: usize,
        /// Share of the failing write that reaches the disk, in eighths.
        pub(crate) eighths: usize,
    }

    impl Faulty {
        fn write(&mut self, work: impl FnOnce(&mut Disk, Option<usize>)) -> io::Result<()> {
            let mut disk = self.disk.lock().expect("one thread");
            disk.writes += 1;
            let writes = disk.writes;
            match writes.cmp(&self.fail_at) {
                std::cmp::Ordering::Less => {
                    work(&mut disk, None);
                    Ok(())
                }
                std::cmp::Ordering::Equal => {
                    work(&mut disk, Some(self.eighths));
                    Err(io::Error::other("the disk failed"))
                }
                std::cmp::Ordering::Greater => Err(io::Error::other("the disk is gone")),
            }
        }
    }

    impl Storage for Faulty {
        fn load(&mut self) -> io::Result<Vec<u8>> {
            Ok(self.disk.lock().expect("one thread").bytes.clone())
        }

        fn read(&mut self, from: u64, len: usize) -> io::Result<Vec<u8>> {
            Ok(self.disk.lock().expect("one thread").bytes[from as usize..from as usize + len].to_vec())
        }

        fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
            self.write(|disk, part| {
                let len = part.map_or(bytes.len(), |eighths| bytes.len() * eighths / 8);
                disk.bytes.extend(&bytes[..len]);
            })
        }

        fn sync(&mut self) -> io::Result<()> {
            self.write(|_, _| ())
        }

        fn truncate(&mut self, len: u64) -> io::Result<()> {
            self.write(|disk, part| {
                if part.is_none_or(|eighths| eighths > 4) {
                    disk.bytes.truncate(len as usize);
                }
            })
        }

        fn keep(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
            self.write(|disk, part| {
                if part.is_none_or(|eighths| eighths > 4) {
                    disk.files.insert(name.to_owned(), bytes.to_vec());
                }
            })
        }

        fn kept(&mut self, name: &str) -> io::Result<Option<Vec<u8>>> {
            Ok(self.disk.lock().expect("one thread").files.get(name).cloned())
        }
    }

    fn open(disk: &Arc<Mutex<Disk>>) -> (Journal, Found) {
        let storage = Faulty { disk: Arc::clone(disk), fail_at: usize::MAX, eighths: 0 };
        Journal::open(Box::new(storage)).expect("a journal")
    }

    #[test]
    fn every_cut_leaves_whole_records_and_a_torn_end() {
        let disk = Arc::default();
        let (mut journal, _) = open(&disk);
        journal.cut().expect("memory");
        let records: Vec<Vec<u8>> = (0..4_u8).map(|i| vec![i; 5 * i as usize]).collect();
        let places = journal.append(&records).expect("memory");
        assert_eq!(journal.read(places[3]).expect("memory"), records[3]);
        let bytes = disk.lock().expect("one thread").bytes.clone();
        for end in 0..=bytes.len() {
            let cut = Arc::new(Mutex::new(Disk { bytes: bytes[..end].to_vec(), ..Disk::default() }));
            let (mut journal, found) = open(&cut);
            let kept: Vec<Vec<u8>> = found.records.into_iter().map(|r| r.1).collect();
            assert!(records.starts_with(&kept), "{end}");
            journal.cut().expect("memory");
            journal.append(&[b"next".to_vec()]).expect("memory");
            assert_eq!(open(&cut).1.records.last().map(|r| r.1.clone()), Some(b"next".to_vec()));
            assert_eq!(open(&cut).1.records.len(), kept.len() + 1);
        }
    }

    #[test]
    fn a_changed_byte_ends_what_can_be_read() {
        let disk = Arc::default();
        let (mut journal, _) = open(&disk);
        journal.cut().expect("memory");
        journal.append(&[vec![1; 40], vec![2; 40]]).expect("memory");
        disk.lock().expect("one thread").bytes[8 + 8 + 3] ^= 1;
        let (_, found) = open(&disk);
        assert_eq!((found.records.len(), found.torn), (0, 96));
        disk.lock().expect("one thread").bytes[0] ^= 1;
        let storage = Faulty { disk: Arc::clone(&disk), fail_at: usize::MAX, eighths: 0 };
        assert!(Journal::open(Box::new(storage)).is_err());
    }

    #[test]
    fn a_folder_is_opened_by_one_at_a_time() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut journal, _) = Journal::open(Box::new(Folder::open(folder.path()).expect("new"))).expect("empty");
        journal.cut().expect("writable");
        journal.append(&[b"one".to_vec()]).expect("writable");
        let second = Folder::open(folder.path()).expect_err("locked").to_string();
        assert!(second.contains("in use by another process"), "{second}");
        drop(journal);
        let (_, found) = Journal::open(Box::new(Folder::open(folder.path()).expect("free"))).expect("a journal");
        assert_eq!(found.records[0].1, b"one");
    }
}
