//! One verdict in every form. Nothing here decides anything, and nothing here knows a text of a record.

mod annotations;
mod junit;
mod markdown;
mod sarif;
mod text;

pub use annotations::annotations;
pub use junit::junit;
pub use markdown::{SUMMARY_CAP, markdown};
pub use sarif::sarif;
pub use text::text;

use super::{Error, Verdict};
use std::io::Write as _;
use std::path::Path;

/// A file format, told by the end of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `.json`: the verdict itself.
    Json,
    /// `.junit.xml` or `.xml`.
    Junit,
    /// `.sarif` or `.sarif.json`.
    Sarif,
    /// `.md`.
    Markdown,
}

impl Format {
    /// The format of a file.
    ///
    /// # Errors
    /// A name that ends in none of them.
    pub fn of(path: &Path) -> Result<Self, Error> {
        let name = path.file_name().map(|n| n.to_string_lossy().to_lowercase()).unwrap_or_default();
        let ends = |suffix: &str| name.ends_with(suffix);
        Ok(match () {
            () if ends(".sarif") || ends(".sarif.json") => Self::Sarif,
            () if ends(".json") => Self::Json,
            () if ends(".xml") => Self::Junit,
            () if ends(".md") => Self::Markdown,
            () => return Err(Error::Format(path.display().to_string())),
        })
    }

    /// The verdict in this format.
    ///
    /// # Errors
    /// When the format's own writer refuses.
    pub fn write(self, verdict: &Verdict) -> Result<String, Error> {
        match self {
            Self::Json => json(verdict),
            Self::Junit => junit(verdict),
            Self::Sarif => sarif(verdict),
            Self::Markdown => Ok(markdown(verdict)),
        }
    }
}

/// The verdict as JSON, `stitchback/verdict/v1`.
///
/// # Errors
/// Never for a verdict of ours.
pub fn json(verdict: &Verdict) -> Result<String, Error> {
    let text = serde_json::to_string_pretty(verdict);
    text.map(|t| t + "\n").map_err(|e| Error::Serialize { format: "JSON", why: e.to_string() })
}

/// Puts a file in place: a reader sees the old one or the new one.
///
/// # Errors
/// A place that cannot be written.
pub fn put(path: &Path, text: &str) -> Result<(), Error> {
    put_bytes(path, text.as_bytes())
}

/// The same for bytes.
///
/// # Errors
/// A place that cannot be written.
pub fn put_bytes(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let write = || {
        let mut file = atomic_write_file::AtomicWriteFile::open(path)?;
        file.write_all(bytes)?;
        file.commit()
    };
    write().map_err(|source| Error::Write { path: path.display().to_string(), source })
}

/// Takes out what no XML file may hold and no terminal should obey.
fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() && !matches!(c, '\u{fffe}' | '\u{ffff}')).collect()
}
