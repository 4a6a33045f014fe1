//! How likely a text is as language, whatever the vector says.
//!
//! A search that only follows the victim's cosine ends in bags of telling words; a prior tells sentences from those.
//!
//! | prior | when | cost |
//! |---|---|---|
//! | [`Trigram`] | fast runs: counts of the attacker's own texts | microseconds a text |
//! | [`SmolLm`] | the strong one: a language model of 135 M weights | about ten milliseconds a sentence, 0.6 GB of memory |
//!
//! Search proposes moves with the bigrams of `super::bigrams`, which are cheaper still. To add a prior: a file, an
//! `impl Prior`, a case in the contract tests.

mod llama;
mod smol_lm;
mod trigram;

pub use smol_lm::SmolLm;
pub use trigram::Trigram;

use super::words;
use crate::attack::Error;
use rayon::prelude::*;

/// The bytes of a text that a prior reads; the rest is ignored, so a hostile text cannot cost more than this.
pub const MAX_BYTES: usize = 8192;

/// How likely a text is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Score {
    /// Nats, of the whole text; at most 0.
    pub log_prob: f64,
    /// How many events that is the sum of, in the prior's own units: divide by it to compare texts of unlike length.
    pub units: usize,
}

impl Score {
    /// `exp(-log_prob / units)`; 1 for a text without units. Comparable within one prior only.
    pub fn perplexity(self) -> f64 {
        (-self.log_prob / self.units.max(1) as f64).exp()
    }
}

/// A word or mark that may come next.
#[derive(Debug, Clone, PartialEq)]
pub struct Continuation {
    /// As a text would spell it; an element in the sense of [`words::split`].
    pub word: String,
    /// Nats, given the prefix.
    pub log_prob: f64,
}

/// A language model that search attacks lean on.
///
/// Results depend on the text alone: not on its neighbours in a call, nor on the number of threads, nor on other calls
/// that run at the same time. Calls work on the caller's rayon pool and start no thread of their own.
pub trait Prior: Send + Sync {
    /// What studies and reports call it.
    fn name(&self) -> &'static str;

    /// Names everything that its numbers depend on.
    fn fingerprint(&self) -> &str;

    /// The likelihood of each text, in order; of a text beyond [`MAX_BYTES`] or the prior's own limit, that of its start.
    fn scores(&self, texts: &[&str]) -> Result<Vec<Score>, Error>;

    /// The `k` likeliest words or marks after `prefix`, best first; equals in alphabetic order.
    fn continuations(&self, prefix: &str, k: usize) -> Result<Vec<Continuation>, Error>;

    /// Nats of each text, in order.
    fn log_probs(&self, texts: &[&str]) -> Result<Vec<f64>, Error> {
        Ok(self.scores(texts)?.into_iter().map(|score| score.log_prob).collect())
    }

    /// [`Prior::continuations`] of each prefix, in order.
    fn continuations_of(&self, prefixes: &[&str], k: usize) -> Result<Vec<Vec<Continuation>>, Error> {
        prefixes.par_iter().map(|prefix| self.continuations(prefix, k)).collect()
    }
}

/// The first [`MAX_BYTES`] of a text, cut between characters.
fn clip(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_BYTES)]
}

/// Sorts by likelihood, then by word, and keeps `k`.
fn best(mut all: Vec<Continuation>, k: usize) -> Vec<Continuation> {
    all.sort_by(|a, b| b.log_prob.total_cmp(&a.log_prob).then_with(|| a.word.cmp(&b.word)));
    all.truncate(k);
    all
}

/// True when a word after `prefix` follows without a space: at the start and behind an opening mark.
fn glues(prefix: &str) -> bool {
    let elements = words::split(prefix);
    let Some(last) = elements.last() else { return true };
    let quotes = elements.iter().filter(|element| *element == "\"").count();
    "([{$£€#“".contains(last.as_str()) || (last == "\"" && quotes % 2 == 1)
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

    #[test]
    fn words_glue_to_the_start_and_to_opening_marks() {
        for prefix in ["", " ", "It cost £", "He (", "She said: \""] {
            assert!(glues(prefix), "{prefix:?}");
        }
        for prefix in ["He", "He said.", "\"Yes,\"", "(so)"] {
            assert!(!glues(prefix), "{prefix:?}");
        }
    }

    #[test]
    fn perplexity_is_the_inverse_of_the_mean_probability() {
        let score = Score { log_prob: -3.0 * 10.0_f64.ln(), units: 3 };
        assert!((score.perplexity() - 10.0).abs() < 1e-9);
        assert_eq!(Score { log_prob: 0.0, units: 0 }.perplexity(), 1.0);
    }
}
