//! How likely a text is as language, whatever the vector says.
//!
//! A search that only follows the victim's cosine ends in bags of telling words; a prior tells sentences from those. The
//! light one is the attacker's own decoder without a vector, which costs nothing more than is trained anyway. [`SmolLm`]
//! is the strong one: 135 M weights, about ten milliseconds a sentence, 0.6 GB of memory.
//!
//! To add a prior: a file, an `impl Prior`, a case in the contract tests.

mod llama;
mod smol_lm;

pub use smol_lm::SmolLm;

use crate::attack::Error;

/// The bytes of a text that a prior reads; the rest is ignored, so a hostile text cannot cost more than this.
pub const MAX_BYTES: usize = 8192;

/// A language model that search attacks lean on.
///
/// Results depend on the text alone: not on its neighbours in a call, nor on the number of threads, nor on other calls
/// that run at the same time. Calls work on the caller's rayon pool and start no thread of their own.
pub trait Prior: Send + Sync {
    /// Nats of each text, in order, at most 0; of a text beyond [`MAX_BYTES`] or the prior's own limit, those of its start.
    fn log_probs(&self, texts: &[&str]) -> Result<Vec<f64>, Error>;
}

/// The first [`MAX_BYTES`] of a text, cut between characters.
fn clip(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_BYTES)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_between_characters() {
        let text = "é".repeat(MAX_BYTES);
        assert_eq!(clip(&text).len(), MAX_BYTES);
        let odd = format!("a{text}");
        assert_eq!(clip(&odd).len(), MAX_BYTES - 1);
        assert_eq!(clip("short"), "short");
    }
}
