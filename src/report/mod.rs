//! The report: a pure function of what a run left behind.

use crate::error::Exit;

/// Why a report cannot be drawn.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the run folder is missing or malformed.
    #[error("run folder file `{path}`: {why}")]
    File {
        /// The file.
        path: String,
        /// What is wrong, and the remedy.
        why: String,
    },
}

impl Error {
    /// Bad input, all of it.
    pub fn exit(&self) -> Exit {
        Exit::Input
    }
}
