//! The transparency log: a Merkle tree over salted receipts, signed checkpoints, proofs that stand alone.
//!
//! | file | what it holds |
//! |---|---|
//! | [`merkle`] | RFC 6962 tree, inclusion and consistency proofs |
//! | [`checkpoint`] | a signed statement of size and root (C2SP tlog-checkpoint) |
//! | [`proof`] | a receipt with its proof in one file, checked offline (C2SP tlog-proof) |
//! | [`tiles`] | the tree as static files (C2SP tlog-tiles) |

pub mod checkpoint;
pub mod merkle;
pub mod proof;
pub mod tiles;

pub use checkpoint::Checkpoint;
pub use merkle::Tree;
pub use proof::Proof;

use super::receipt::Hash;
use sha2::{Digest, Sha256};

/// What the log holds of a receipt: `SHA-256("sb/leaf/v1" | salt | token)`. Without the salt it links to nothing.
pub fn leaf(salt: &[u8; 16], token: &[u8]) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update(b"sb/leaf/v1");
    hasher.update(salt);
    hasher.update(token);
    hasher.finalize().into()
}
