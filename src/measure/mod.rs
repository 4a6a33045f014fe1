//! Measures: how close a guess is to its original, what chance would give, and how sure we are.

use crate::error::Exit;

/// Why pairs cannot be scored.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Truths and guesses differ in number.
    #[error("{truths} originals but {guesses} guesses; give one guess for each original, in the same order")]
    Unpaired {
        /// Originals given.
        truths: usize,
        /// Guesses given.
        guesses: usize,
    },
    /// A judge failed.
    #[error(transparent)]
    Encode(#[from] crate::encode::Error),
}

impl Error {
    /// Bad input, all of it.
    pub fn exit(&self) -> Exit {
        Exit::Input
    }
}
