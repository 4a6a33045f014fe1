//! The user's agent: it alone sees records and raw vectors. What leaves it is a signed [`Envelope`], nothing else.

use super::catalogue::hex;
use super::channel::{self, Budget};
use super::message::{About, Body, Contribution, Envelope, Mechanism};
use super::receipt::{Receipt, commitment};
use super::value::Protected;
use super::{Catalogue, Error};
use crate::encode::Embeddings;
use crate::protect::Pipeline;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::SigningKey;
use rand::Rng;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::path::Path;

/// An account with its secret key.
pub struct Agent {
    key: SigningKey,
}

impl std::fmt::Debug for Agent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Agent({})", hex(&self.account()[..4]))
    }
}

/// How an agent protects what it gives.
#[derive(Debug, Clone, PartialEq)]
pub struct Shield {
    /// Noise of the topic cells.
    pub budget: Budget,
    /// Protection of vectors that are sent as well; `None` sends none.
    pub pipeline: Option<Pipeline>,
}

/// A protected release, made once: giving the same records again sends the same bytes, so that no averaging of fresh noise
/// is possible.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sealed {
    group: String,
    catalogue: String,
    items: u32,
    mechanism: Mechanism,
    cells: Vec<i64>,
    release: Vec<Vec<i16>>,
    /// Opens the commitment; stays with the user.
    salt: String,
}

impl Agent {
    /// An agent from its 32 secret bytes.
    pub fn new(secret: &[u8; 32]) -> Self {
        Self { key: SigningKey::from_bytes(secret) }
    }

    /// The public key: the account's name.
    pub fn account(&self) -> [u8; 32] {
        self.key.verifying_key().to_bytes()
    }

    /// Protects raw vectors of one group.
    ///
    /// # Errors
    /// When there are none, or the pipeline cannot protect them or has noise of an unknown standard deviation.
    pub fn protect(
        &self,
        catalogue: &Catalogue,
        raw: &Embeddings,
        shield: &Shield,
        rng: &mut dyn Rng,
    ) -> Result<Sealed, crate::Error> {
        if raw.is_empty() || raw.dim() != catalogue.dim {
            let (d, want) = (raw.dim(), catalogue.dim);
            let why = format!("{} vectors of {d} coordinates; group `{}` takes {want}", raw.len(), catalogue.group);
            return Err(Error::Input(why).into());
        }
        let mut cells = channel::histogram(catalogue, raw);
        channel::add_noise(&mut cells, shield.budget, rng);
        let mechanism = Mechanism::of(shield.budget, shield.pipeline.as_ref(), raw.dim())?;
        let mut release = Vec::new();
        if let Some(pipeline) = &shield.pipeline {
            let rows = pipeline.release(raw, None, rng)?.vectors;
            release = rows.rows().map(|row| Protected::new(row, mechanism.sigma()).steps().to_vec()).collect();
        }
        let mut salt = [0; 32];
        rng.fill_bytes(&mut salt);
        Ok(Sealed {
            group: catalogue.group.clone(),
            catalogue: hex(&catalogue.hash()),
            items: raw.len() as u32,
            mechanism,
            cells,
            release,
            salt: hex(&salt),
        })
    }

    /// [`Agent::protect`] with a memory: the same vectors, catalogue and protection give the release that was made before.
    ///
    /// # Errors
    /// Those of [`Agent::protect`], and when the memory cannot be read or written.
    pub fn protect_once(
        &self,
        memory: &Path,
        catalogue: &Catalogue,
        raw: &Embeddings,
        shield: &Shield,
        rng: &mut dyn Rng,
    ) -> Result<Sealed, crate::Error> {
        let mut hasher = Sha256::new();
        hasher.update(b"sb/memory/v1");
        hasher.update(catalogue.hash());
        hasher.update(self.key.as_bytes());
        hasher.update(format!("{shield:?}"));
        raw.values().iter().for_each(|v| hasher.update(v.to_le_bytes()));
        let path = memory.join(format!("release-{}.json", &hex(&hasher.finalize())[..32]));
        let fault = |source| Error::Io { path: path.display().to_string(), source };
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                return serde_json::from_str(&text).map_err(|e| {
                    Error::Malformed { path: path.display().to_string(), why: format!("no release: {e}") }.into()
                });
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(fault(e).into()),
        }
        let sealed = self.protect(catalogue, raw, shield, rng)?;
        std::fs::create_dir_all(memory).map_err(fault)?;
        // Kept before it is sent: a crash in between must not lead to a second draw.
        write_private(&path, &serde_json::to_vec(&sealed).expect("numbers and text"))?;
        Ok(sealed)
    }

    /// The message that gives a release in this epoch. The same release and epoch give the same bytes.
    pub fn contribute(&self, edge: &str, epoch: u64, sealed: &Sealed) -> Envelope {
        let mut contribution = Contribution {
            edge: edge.to_owned(),
            group: sealed.group.clone(),
            catalogue: sealed.catalogue.clone(),
            epoch,
            nonce: String::new(),
            items: sealed.items,
            mechanism: sealed.mechanism.clone(),
            cells: sealed.cells.clone(),
            release: sealed.release.clone(),
            commitment: String::new(),
        };
        let content = contribution.content();
        let salt = super::message::unhex(&sealed.salt).unwrap_or_default();
        contribution.commitment = hex(&commitment(&salt, &content));
        let nonce = Sha256::new()
            .chain_update(b"sb/nonce/v1")
            .chain_update(self.key.as_bytes())
            .chain_update(epoch.to_be_bytes())
            .chain_update(Sha256::digest(&content))
            .finalize();
        contribution.nonce = hex(&nonce[..16]);
        Envelope::seal(&Body::Contribute(contribution), &self.key)
    }

    /// Whether a receipt is bound to this release.
    pub fn is_of(&self, receipt: &Receipt, sealed: &Sealed) -> bool {
        let content = serde_json::to_vec(&(&sealed.cells, &sealed.release)).expect("numbers");
        super::message::unhex(&sealed.salt).is_some_and(|salt| commitment(&salt, &content) == receipt.commitment)
    }

    /// Opens a basket.
    pub fn register(&self, edge: &str) -> Envelope {
        Envelope::seal(&Body::Register { edge: edge.to_owned() }, &self.key)
    }

    /// Presents an issue receipt.
    pub fn redeem(&self, edge: &str, token: &[u8]) -> Envelope {
        Envelope::seal(&Body::Redeem { edge: edge.to_owned(), receipt: STANDARD.encode(token) }, &self.key)
    }

    /// Sets credits aside for a request; `about` tells the edge its topic cell, so that paying for it raises the cell's weight.
    pub fn request(&self, edge: &str, epoch: u64, nonce: &[u8; 16], at_most: u64, about: Option<About>) -> Envelope {
        let nonce = hex(nonce);
        Envelope::seal(&Body::Request { edge: edge.to_owned(), epoch, nonce, at_most, about }, &self.key)
    }
}

/// Writes a file that only its owner can read, atomically.
///
/// # Errors
/// When it cannot be written.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    use std::io::Write as _;
    let write = || {
        let mut file = atomic_write_file::AtomicWriteFile::open(path)?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
        }
        file.write_all(bytes)?;
        file.commit()
    };
    write().map_err(|source| Error::Io { path: path.display().to_string(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contribute::catalogue::tests::{clouds, plan};
    use crate::seed;

    #[test]
    fn the_same_records_are_released_once_and_the_receipt_opens_to_them() {
        let memory = tempfile::tempdir().expect("a folder");
        let catalogue =
            Catalogue::fit(&plan(4), &clouds(200, 4, 16, 0.3, "public"), &mut seed::stream(1, "", "")).expect("enough");
        let agent = Agent::new(&[1; 32]);
        let shield = Shield {
            budget: Budget::new(1.0).expect("in range"),
            pipeline: Some(Pipeline::parse("clip(l2=1) | prototype(members=10) | gaussian(epsilon=8)").expect("valid")),
        };
        let raw = clouds(40, 4, 16, 0.3, "own");
        let give = |root| {
            let rng = &mut seed::stream(root, "test", "agent");
            agent.protect_once(memory.path(), &catalogue, &raw, &shield, rng).expect("enough rows")
        };
        let (first, second) = (give(1), give(2));
        assert_eq!(first, second, "fresh randomness, the same release");
        assert_eq!((first.release.len(), first.items, first.mechanism.members), (4, 40, 10));
        assert_eq!(agent.contribute("e", 3, &first), agent.contribute("e", 3, &second));
        let fresh = agent.protect(&catalogue, &raw, &shield, &mut seed::stream(2, "test", "agent")).expect("enough");
        assert_ne!(first.cells, fresh.cells);
        let error = agent.protect(&catalogue, &clouds(4, 2, 8, 0.3, "flat"), &shield, &mut seed::stream(1, "", ""));
        assert!(error.expect_err("8 coordinates").to_string().contains("takes 16"));
    }
}
