//! Attackers: from what they are allowed to see to guesses about the targets.

use crate::error::Exit;

/// Why an attack cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The view lacks something that the attacker declared.
    #[error("attack `{attack}` needs {what}")]
    Needs {
        /// Its name.
        attack: String,
        /// What is missing, and how to grant it.
        what: String,
    },
    /// A parameter out of range.
    #[error("`attack.{attack}.{key}` {why}")]
    Parameter {
        /// Its name.
        attack: String,
        /// The key.
        key: &'static str,
        /// What it must be, and what was given.
        why: String,
    },
    /// The run was interrupted; what was trained so far is kept.
    #[error("interrupted; run the same command again to resume")]
    Interrupted,
    /// The substrate failed.
    #[error(transparent)]
    Nn(#[from] crate::nn::Error),
    /// The encoder failed.
    #[error(transparent)]
    Encode(#[from] crate::encode::Error),
    /// The pipeline failed on the attacker's own records.
    #[error(transparent)]
    Protect(#[from] crate::protect::Error),
}

impl Error {
    /// The exit code that stands for this failure.
    pub fn exit(&self) -> Exit {
        match self {
            Error::Needs { .. } | Error::Parameter { .. } => Exit::Usage,
            Error::Interrupted => Exit::Interrupted,
            Error::Nn(e) => e.exit(),
            Error::Encode(e) => e.exit(),
            Error::Protect(e) => e.exit(),
        }
    }
}
