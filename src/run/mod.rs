//! One study end to end: cells, the store, records, provenance.

pub mod record;

use crate::error::Exit;

/// Why a run folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the run folder cannot be written or read.
    #[error("run folder: cannot use `{path}`; choose a writable folder with --out")]
    Io {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The run was interrupted; everything finished so far is kept.
    #[error("interrupted; run the same command again to resume")]
    Interrupted,
    /// A stored object is not what its name promises.
    #[error("stored object `{path}`: {why}")]
    Corrupt {
        /// The file.
        path: String,
        /// What is wrong.
        why: String,
    },
}

impl Error {
    /// The exit code that stands for this failure.
    pub fn exit(&self) -> Exit {
        match self {
            Error::Interrupted => Exit::Interrupted,
            Error::Io { .. } | Error::Corrupt { .. } => Exit::Input,
        }
    }
}
