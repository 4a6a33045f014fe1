//! The study file: parsed, checked as a whole, resolved into cells.

use crate::error::Exit;

/// Everything that is wrong with a study file, at once.
#[derive(Debug, thiserror::Error)]
#[error("study `{path}` has {} problem{}:\n{}", problems.len(), if problems.len() == 1 { "" } else { "s" }, problems.join("\n"))]
pub struct Error {
    /// The file.
    pub path: String,
    /// One line each: where, what, remedy.
    pub problems: Vec<String>,
}

impl Error {
    /// A usage error.
    pub fn exit(&self) -> Exit {
        Exit::Usage
    }
}
