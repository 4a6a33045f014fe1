//! Assets: manifests, verified fetching, the cache. (Filled in by its own commit.)

use crate::error::Exit;

/// Why an asset cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No manifest has this name.
    #[error("unknown asset `{name}`; known: {known}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// The near or all names.
        known: String,
    },
}

impl Error {
    /// An unknown name is a usage error, everything else is bad input.
    pub fn exit(&self) -> Exit {
        match self {
            Error::Unknown { .. } => Exit::Usage,
        }
    }
}
