//! Embeddings on disk, found again by what they were made from.
//!
//! One file holds the vectors of one list of texts under one encoder; its name is the hash of both, so a changed
//! weight, prompt or text is another file. Only an encoder's own output is ever stored: noise is drawn later.

use super::weights::file;
use super::{Embeddings, Encoder, Error};
use crate::data::Picture;
use std::io::Write;
use std::path::{Path, PathBuf};

const MAGIC: &[u8; 8] = b"SBEMBED1";
const HEADER: usize = 24;
const CHECKSUM: usize = blake3::OUT_LEN;

/// An encoder whose vectors of whole record lists are kept in a folder.
pub struct Cached<'a> {
    encoder: &'a dyn Encoder,
    dir: PathBuf,
}

impl<'a> Cached<'a> {
    /// Keeps the vectors of `encoder` in `dir`, which is made when the first file is written.
    pub fn new(encoder: &'a dyn Encoder, dir: &Path) -> Self {
        Self { encoder, dir: dir.to_owned() }
    }

    /// The vectors of `texts` in order, read back when this very list was encoded before.
    ///
    /// A file that is truncated, altered or of another shape counts as missing and is written again.
    ///
    /// # Errors
    /// When the texts cannot be encoded or the file cannot be written.
    pub fn encode_records(&self, texts: &[&str]) -> Result<Embeddings, Error> {
        self.kept(&self.path(texts), texts.len(), || self.encoder.encode(texts))
    }

    /// The vectors of `pictures` in order, kept likewise.
    ///
    /// # Errors
    /// When the pictures cannot be encoded or the file cannot be written.
    pub fn encode_pictures(&self, pictures: &[&Picture]) -> Result<Embeddings, Error> {
        let mut hasher = blake3::Hasher::new_derive_key("stitchback picture cache v1");
        hasher.update(self.encoder.info().fingerprint.as_bytes());
        for picture in pictures {
            hasher.update(&picture.width().to_le_bytes());
            hasher.update(&picture.height().to_le_bytes());
            hasher.update(picture.rgb());
        }
        let path = self.dir.join(format!("{}.embeddings", hasher.finalize().to_hex()));
        self.kept(&path, pictures.len(), || self.encoder.encode_pictures(pictures))
    }

    fn kept(
        &self,
        path: &Path,
        n: usize,
        encode: impl FnOnce() -> Result<Embeddings, Error>,
    ) -> Result<Embeddings, Error> {
        let dim = self.encoder.info().dim;
        if let Some(found) = std::fs::read(path).ok().and_then(|bytes| unpack(&bytes, n, dim)) {
            return Ok(found);
        }
        let rows = encode()?;
        let write = || {
            std::fs::create_dir_all(&self.dir)?;
            let mut out = atomic_write_file::AtomicWriteFile::open(path)?;
            out.write_all(&pack(&rows))?;
            out.commit()
        };
        write().map_err(|e| file(path, e))?;
        Ok(rows)
    }

    fn path(&self, texts: &[&str]) -> PathBuf {
        let mut hasher = blake3::Hasher::new_derive_key("stitchback embedding cache v1");
        for part in std::iter::once(self.encoder.info().fingerprint.as_str()).chain(texts.iter().copied()) {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        self.dir.join(format!("{}.embeddings", hasher.finalize().to_hex()))
    }
}

/// Magic, rows, coordinates, little-endian values, BLAKE3 of all that.
fn pack(rows: &Embeddings) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + rows.values().len() * 4 + CHECKSUM);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&(rows.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&(rows.dim() as u64).to_le_bytes());
    bytes.extend(rows.values().iter().flat_map(|v| v.to_le_bytes()));
    let checksum = blake3::hash(&bytes);
    bytes.extend_from_slice(checksum.as_bytes());
    bytes
}

fn unpack(bytes: &[u8], n: usize, dim: usize) -> Option<Embeddings> {
    let (body, checksum) = bytes.split_at_checked(bytes.len().checked_sub(CHECKSUM)?)?;
    let (header, values) = body.split_at_checked(HEADER)?;
    let expected = [&MAGIC[..], &(n as u64).to_le_bytes(), &(dim as u64).to_le_bytes()].concat();
    let whole = header == expected && blake3::hash(body).as_bytes() == checksum;
    let values: Vec<f32> = values.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    if whole && values.len() == n * dim { Embeddings::new(values, dim).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::{EncoderInfo, Toy};
    use std::sync::atomic::{AtomicUsize, Ordering};

    struct Counting {
        toy: Toy,
        calls: AtomicUsize,
    }

    impl Encoder for Counting {
        fn info(&self) -> &EncoderInfo {
            self.toy.info()
        }

        fn encode(&self, texts: &[&str]) -> Result<Embeddings, Error> {
            self.calls.fetch_add(1, Ordering::Relaxed);
            self.toy.encode(texts)
        }
    }

    #[test]
    fn a_list_is_encoded_once_and_a_corrupted_file_counts_as_missing() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let encoder = Counting { toy: Toy::new(), calls: AtomicUsize::new(0) };
        let cached = Cached::new(&encoder, &dir.path().join("embeddings"));
        let texts = ["one", "two three"];
        let first = cached.encode_records(&texts).expect("encodes");
        assert_eq!(cached.encode_records(&texts).expect("reads"), first);
        assert_eq!(encoder.calls.load(Ordering::Relaxed), 1);

        // The border between two texts belongs to the key.
        cached.encode_records(&["one two", "three"]).expect("encodes");
        assert_eq!(encoder.calls.load(Ordering::Relaxed), 2);

        let path = cached.path(&texts);
        let whole = std::fs::read(&path).expect("the file exists");
        let mut flipped = whole.clone();
        flipped[HEADER + 3] ^= 1;
        for bad in [&whole[..whole.len() - 1], &whole[..10], &[], &flipped] {
            assert!(unpack(bad, 2, first.dim()).is_none());
        }
        std::fs::File::create(&path).and_then(|mut f| f.write_all(&flipped)).expect("overwrites");
        assert_eq!(cached.encode_records(&texts).expect("encodes again"), first);
        assert_eq!(encoder.calls.load(Ordering::Relaxed), 3);
        assert_eq!(std::fs::read(&path).expect("the file exists"), whole);
    }

    #[test]
    fn no_texts_are_no_rows() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let toy = Toy::new();
        let cached = Cached::new(&toy, dir.path());
        for _ in 0..2 {
            let rows = cached.encode_records(&[]).expect("nothing to encode");
            assert_eq!((rows.len(), rows.dim()), (0, 64));
        }
    }
}
