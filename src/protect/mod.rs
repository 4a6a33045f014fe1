//! Protection: what happens to vectors before they are released, and what may be promised about it.

use crate::error::Exit;

/// Why a pipeline cannot be parsed, built or applied.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The pipeline text is malformed or a parameter is out of range.
    #[error("pipeline `{pipeline}`: {why}")]
    Pipeline {
        /// The text as given.
        pipeline: String,
        /// The stage and parameter, what is wrong, what would be right.
        why: String,
    },
    /// The vectors cannot be protected (zero vector, wrong dimension).
    #[error("cannot protect the input: {0}")]
    Input(String),
}

impl Error {
    /// A malformed pipeline is a usage error, unusable vectors are bad input.
    pub fn exit(&self) -> Exit {
        match self {
            Error::Pipeline { .. } => Exit::Usage,
            Error::Input(_) => Exit::Input,
        }
    }
}
