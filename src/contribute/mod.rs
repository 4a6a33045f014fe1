//! Contribution: protected signals in, values, receipts and quota out.
//!
//! ```text
//!  agent (user)                 edge                               cloud
//!  records, encoder,            journal ─► group state             catalogues, policy,
//!  protection, keys  ──────►    value engine ─► receipts, log ◄──► emission
//!        │  Contribution        quota ledger ─► baskets
//!        └─ histogram over public topic cells, protected vectors, a salted commitment: never a record, never a raw vector
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | [`appraisal`] | what a study's release is still worth: values from protected rows beside those from raw ones |
//! | [`catalogue`] | topic cells of a group: spherical k-means on a public corpus, versioned, hashed |
//! | [`channel`] | what a user says of the own records: a histogram over cells with discrete noise |
//! | [`value`] | engines: what a contribution is worth, and why |
//! | [`receipt`] | the Data Anchoring Token: a signed receipt that holds nothing of what it stands for |
//! | [`log`] | a Merkle log of salted receipts, checkpoints, offline proofs |
//! | [`quota`] | credits: what an epoch issues, baskets, holds, overflow |
//!
//! Everything between a histogram and a receipt is integer arithmetic: the same journal gives the same values anywhere.

pub mod agent;
pub mod appraisal;
pub mod catalogue;
pub mod channel;
pub mod cloud;
pub mod edge;
pub mod journal;
pub mod log;
pub mod message;
pub mod quota;
pub mod receipt;
pub mod simulate;
pub mod value;

pub use catalogue::Catalogue;

use crate::error::Exit;

/// Why a contribution cannot be made, valued, recorded or checked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A parameter is out of range.
    #[error("`{key}` {why}")]
    Config {
        /// The parameter.
        key: &'static str,
        /// What is wrong, and what would be right.
        why: String,
    },
    /// Records, vectors or histograms do not fit together.
    #[error("{0}")]
    Input(String),
    /// A file could not be read or written.
    #[error("`{path}`")]
    Io {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file is not what its name promises.
    #[error("`{path}`: {why}")]
    Malformed {
        /// The file.
        path: String,
        /// What is wrong.
        why: String,
    },
}

impl Error {
    /// A parameter out of range is a usage error; the rest is bad input.
    pub fn exit(&self) -> Exit {
        match self {
            Error::Config { .. } => Exit::Usage,
            Error::Input(_) | Error::Io { .. } | Error::Malformed { .. } => Exit::Input,
        }
    }
}
