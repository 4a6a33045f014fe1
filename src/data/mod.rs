//! Records: where they come from, how they are cleaned, how they are split.
//!
//! ```text
//! manifest ──► asset (fetched, verified) ──► corpus reader ──► sentences ──► cleaning ──► Corpus ──► Split
//! ```

pub mod asset;

use crate::error::Exit;

/// One text with everything that decides on which side of a split it may stand.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Record {
    /// Stable across runs and machines: document id and the position inside the document.
    pub id: String,
    /// The article, mail thread or file that the text was cut from; splits never cut a document.
    pub document: String,
    /// Whose text it is, hashed; `None` where the corpus does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// The corpus's own label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// When it was written, as the corpus gives it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// The text itself.
    pub text: String,
}

/// Why a corpus cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder could not be read.
    #[error("cannot read `{path}`")]
    Read {
        /// What was being read.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Nothing was left after cleaning.
    #[error("corpus `{name}` has no usable record: {why}")]
    Empty {
        /// The corpus.
        name: String,
        /// What cleaning dropped, and the remedy.
        why: String,
    },
    /// The study asks for more than there is.
    #[error(
        "corpus `{name}` has {have} records for {what}, the study asks for {asked}; lower `data.{what}` or use a larger corpus"
    )]
    TooSmall {
        /// The corpus.
        name: String,
        /// `targets` or `auxiliary`.
        what: &'static str,
        /// How many there are.
        have: usize,
        /// How many were asked for.
        asked: usize,
    },
    /// A line or file that is not what its name promises.
    #[error("`{path}`{}: {why}", line.map(|l| format!(" line {l}")).unwrap_or_default())]
    Malformed {
        /// The file.
        path: String,
        /// The line, where there are lines.
        line: Option<usize>,
        /// What is wrong and what would be right.
        why: String,
    },
}

impl Error {
    /// Bad input, all of it.
    pub fn exit(&self) -> Exit {
        Exit::Input
    }
}
