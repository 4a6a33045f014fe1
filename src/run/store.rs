//! The run folder: finished cells by content, written atomically, checked when read.

use super::Error;
use serde::{Serialize, de::DeserializeOwned};
use std::io::Write;
use std::path::{Path, PathBuf};

/// A run folder that can be written, killed and reopened.
pub struct Store {
    root: PathBuf,
}

/// An object beside the hash of its bytes: half a file, or a changed one, counts as missing.
#[derive(serde::Serialize, serde::Deserialize)]
struct Sealed {
    blake3: String,
    body: String,
}

impl Store {
    /// Opens or creates the folder.
    pub fn open(root: &Path) -> Result<Self, Error> {
        let store = Self { root: root.to_owned() };
        for folder in ["cells", "guesses", "plots", "workshop"] {
            let path = root.join(folder);
            std::fs::create_dir_all(&path).map_err(|source| Error::Io { path: path.display().to_string(), source })?;
        }
        Ok(store)
    }

    /// A folder that is only read: nothing is created.
    pub fn at(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where attackers keep trained parts.
    pub fn workshop(&self) -> PathBuf {
        self.root.join("workshop")
    }

    /// Writes a file atomically: after a kill there is the old file or the new one, never half of one.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let path = self.root.join(name);
        let write = || {
            let mut file = atomic_write_file::AtomicWriteFile::open(&path)?;
            file.write_all(bytes)?;
            file.commit()
        };
        write().map_err(|source| Error::Io { path: path.display().to_string(), source })
    }

    /// Writes one JSON document.
    pub fn write_json(&self, name: &str, value: &impl Serialize) -> Result<(), Error> {
        let mut bytes = serde_json::to_vec_pretty(value).map_err(|e| corrupt(name, &e))?;
        bytes.push(b'\n');
        self.write(name, &bytes)
    }

    /// Writes one JSON document for each line.
    pub fn write_lines<T: Serialize>(&self, name: &str, values: impl Iterator<Item = T>) -> Result<(), Error> {
        let mut bytes = Vec::new();
        for value in values {
            serde_json::to_writer(&mut bytes, &value).map_err(|e| corrupt(name, &e))?;
            bytes.push(b'\n');
        }
        self.write(name, &bytes)
    }

    /// The lines that [`Store::write_lines`] wrote, or `None` when the file is not there or not whole.
    pub fn lines<T: DeserializeOwned>(&self, name: &str) -> Option<Vec<T>> {
        let text = std::fs::read_to_string(self.root.join(name)).ok()?;
        text.lines().map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Keeps a finished cell under its id; that it failed before is forgotten.
    pub fn keep_cell(&self, id: &str, value: &impl Serialize) -> Result<(), Error> {
        self.seal(&format!("cells/{id}.json"), value)?;
        // Usually there is none, and one that stays is never read beside the cell.
        let _ = std::fs::remove_file(self.root.join(failed(id)));
        Ok(())
    }

    /// A finished cell, or `None` when it is not there or not whole.
    pub fn cell<T: DeserializeOwned>(&self, id: &str) -> Option<T> {
        self.sealed(&format!("cells/{id}.json"))
    }

    /// Keeps why a cell failed, beside the place of its result: whoever looks for that finds none, and tries again.
    pub fn keep_failed(&self, id: &str, value: &impl Serialize) -> Result<(), Error> {
        self.seal(&failed(id), value)
    }

    /// What [`Store::keep_failed`] kept of the last try.
    pub fn failed<T: DeserializeOwned>(&self, id: &str) -> Option<T> {
        self.sealed(&failed(id))
    }

    fn seal(&self, name: &str, value: &impl Serialize) -> Result<(), Error> {
        let body = serde_json::to_string(value).map_err(|e| corrupt(name, &e))?;
        let sealed = Sealed { blake3: blake3::hash(body.as_bytes()).to_hex().to_string(), body };
        self.write(name, &serde_json::to_vec(&sealed).map_err(|e| corrupt(name, &e))?)
    }

    fn sealed<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        let bytes = std::fs::read(self.root.join(name)).ok()?;
        let sealed: Sealed = serde_json::from_slice(&bytes).ok()?;
        if blake3::hash(sealed.body.as_bytes()).to_hex().as_str() != sealed.blake3 {
            return None;
        }
        serde_json::from_str(&sealed.body).ok()
    }
}

fn failed(id: &str) -> String {
    format!("cells/{id}.failed.json")
}

fn corrupt(name: &str, why: &serde_json::Error) -> Error {
    Error::Corrupt { path: name.to_owned(), why: why.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_cell_counts_as_missing() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = Store::open(folder.path()).expect("opens");
        store.keep_cell("a", &vec![1.5, 2.0]).expect("writes");
        assert_eq!(store.cell::<Vec<f64>>("a"), Some(vec![1.5, 2.0]));
        let path = folder.path().join("cells/a.json");
        let text = std::fs::read_to_string(&path).expect("reads").replace("1.5", "9.5");
        store.write("cells/a.json", text.as_bytes()).expect("writes");
        assert_eq!(store.cell::<Vec<f64>>("a"), None);
        assert_eq!(store.cell::<Vec<f64>>("b"), None);
    }

    #[test]
    fn a_failure_stands_apart_until_the_cell_succeeds() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = Store::open(folder.path()).expect("opens");
        store.keep_failed("a", &"out of memory").expect("writes");
        assert_eq!(store.cell::<String>("a"), None);
        assert_eq!(store.failed::<String>("a").as_deref(), Some("out of memory"));
        store.keep_failed("a", &"no such file").expect("writes");
        assert_eq!(store.failed::<String>("a").as_deref(), Some("no such file"));
        store.keep_cell("a", &"done").expect("writes");
        assert_eq!((store.cell::<String>("a").as_deref(), store.failed::<String>("a")), (Some("done"), None));
    }

    #[test]
    fn an_unwritable_folder_names_itself() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("file");
        let store = Store::open(folder.path()).expect("opens");
        store.write("file", b"x").expect("writes");
        let Err(Error::Io { path, .. }) = Store::open(&file) else { panic!("a file is no folder") };
        assert!(path.contains("file"));
    }
}
