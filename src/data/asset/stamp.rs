//! A file's identity: its size and its digest.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Error;

/// A file's identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Stamp {
    pub(super) size: u64,
    pub(super) sha256: String,
}

/// Refuses a file that is not the one wanted.
pub(super) fn check(file: &str, wanted: &Stamp, found: &Stamp) -> Result<(), Error> {
    if wanted.size != found.size {
        return Err(Error::Size { file: file.to_owned(), expected: wanted.size, got: found.size });
    }
    if wanted.sha256 != found.sha256 {
        let (expected, got) = (wanted.sha256.clone(), found.sha256.clone());
        return Err(Error::Digest { file: file.to_owned(), expected, got });
    }
    Ok(())
}

pub(super) fn stamp_of(path: &Path) -> Result<Stamp, Error> {
    let read = || -> io::Result<Stamp> {
        let mut file = File::open(path)?;
        let (mut hasher, mut buffer, mut size) = (Sha256::new(), vec![0; 1 << 20], 0);
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(Stamp { size, sha256: hex(&hasher.finalize()) }),
                n => {
                    hasher.update(&buffer[..n]);
                    size += n as u64;
                }
            }
        }
    };
    read().map_err(Error::io(path))
}

pub(super) fn stamp_of_bytes(bytes: &[u8]) -> Stamp {
    Stamp { size: bytes.len() as u64, sha256: hex(&Sha256::digest(bytes)) }
}

fn hex(digest: &[u8]) -> String {
    digest.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string");
        text
    })
}
