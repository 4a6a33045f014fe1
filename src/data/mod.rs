//! Records: where they come from, how they are cleaned, how they are split.
//!
//! ```text
//! manifest ──► asset (fetched, verified) ──► corpus reader ──► sentences, pictures ──► cleaning ──► Corpus ──► Split
//! ```
//!
//! | module | what it does |
//! |---|---|
//! | [`asset`] | manifests, verified fetching, archives read entry by entry |
//! | [`corpus`] | one reader for each corpus, and for one's own `.txt`, `.jsonl` or folder |
//! | [`clean`] | decoding, sentence splitting, the rules that keep or drop a sentence; the size of pictures |
//! | [`picture`] | what a picture is in memory; strict decoding, squares of one size |
//! | [`duplicate`] | near-duplicate clusters by text, near neighbours by embedding |
//! | [`perceptual`] | near-duplicate clusters of pictures |
//! | [`split`] | which records are targets, which validate, which the attacker may own |
//! | [`vectors`], [`columns`] | tables of vectors in `.npy`, `.safetensors`, `.parquet` and `.jsonl` files |

pub mod asset;
pub mod clean;
pub mod columns;
pub mod corpus;
pub mod croissant;
pub mod duplicate;
pub mod perceptual;
pub mod picture;
pub mod split;
pub mod vectors;

pub use clean::Keep;
pub use corpus::{Corpus, CorpusStats};
pub use picture::{Fit, Picture};
pub use split::{Split, SplitRequest};

use crate::error::Exit;

/// What the records of a corpus are made of; a corpus has one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Medium {
    /// Sentences, lines, examples.
    #[default]
    Text,
    /// Pictures of one size, perhaps with captions.
    Picture,
}

/// One text or picture with everything that decides on which side of a split it may stand.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Record {
    /// Stable across runs and machines: the file (or mail, or synset) and the position inside it, counted before any
    /// rule drops a sentence.
    pub id: String,
    /// The article, mail thread or file that the text was cut from, or the series that the picture belongs to; splits
    /// never cut a document.
    pub document: String,
    /// Whose it is, hashed; `None` where the corpus does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// The corpus's own label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// When it was written, as the corpus gives it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// The text itself; the caption of a picture, empty where it has none.
    pub text: String,
    /// The picture itself, in a corpus of pictures.
    #[serde(skip)]
    pub picture: Option<Picture>,
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
    /// A file could not be written.
    #[error("cannot write `{path}`")]
    Write {
        /// What was being written.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// No corpus and no path has this name.
    #[error(
        "unknown corpus `{name}`; known: {known}, or a path to a .txt file, a .jsonl file or a folder of texts or pictures"
    )]
    Unknown {
        /// What was asked for.
        name: String,
        /// The near names, or all of them.
        known: String,
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
        "corpus `{name}` has {have} records for {what} ({why}), the study asks for {asked}; lower `data.{what}` or use a larger corpus"
    )]
    TooSmall {
        /// The corpus.
        name: String,
        /// `targets`, `validation` or `auxiliary`.
        what: &'static str,
        /// How many there are.
        have: usize,
        /// How many were asked for.
        asked: usize,
        /// How the split came to that number.
        why: String,
    },
    /// A file that is no picture that can be read.
    #[error("`{path}`: {fault}")]
    Picture {
        /// The file.
        path: String,
        /// Why, and the remedy.
        fault: picture::Fault,
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
    /// An unknown name is a usage error, a study that asks for too much a configuration error; the rest is bad input.
    pub fn exit(&self) -> Exit {
        match self {
            Error::Unknown { .. } => Exit::Usage,
            Error::TooSmall { .. }
            | Error::Write { .. }
            | Error::Read { .. }
            | Error::Empty { .. }
            | Error::Picture { .. }
            | Error::Malformed { .. } => Exit::Input,
        }
    }
}
