//! All attackers together: for each target the guess that explains its release best.

use super::{Error, Guess, Knowledge, View, adapt::Adaptation};
use crate::encode::Embeddings;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Re-ranks the guesses of the study's other attackers by the noise-aware likelihood of their own embedding.
///
/// # Formula
/// `argmax_h log p(y | e(h))` over one guess `h` from each attacker that wrote one for the target.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BestOf {}

impl BestOf {
    /// What it must be granted.
    pub fn needs(&self) -> Knowledge {
        Knowledge { auxiliary: true, pipeline: true, encoder: true, released: true, leaked_pairs: 0 }
    }

    /// The best of the rivals' guesses for each row; rivals that attack a subset answer for its first rows only.
    ///
    /// # Errors
    /// When no rival wrote a guess, or a guess cannot be embedded.
    pub fn choose(&self, view: &View, released: &Embeddings, rivals: &[Vec<String>]) -> Result<Vec<Guess>, Error> {
        let n = rivals.iter().map(Vec::len).max().unwrap_or(0).min(released.len());
        if n == 0 {
            return Err(Error::Needs {
                attack: "best_of",
                what: "another attack of the study that writes texts, finished before it".to_owned(),
            });
        }
        let adaptation = Adaptation::fit(view)?;
        (0..n)
            .into_par_iter()
            .map(|i| {
                let texts: BTreeSet<&str> =
                    rivals.iter().filter_map(|guesses| guesses.get(i)).map(String::as_str).collect();
                let texts: Vec<&str> = texts.into_iter().filter(|text| !text.is_empty()).collect();
                let vectors = view.encoder.encode(&texts)?;
                let best = texts
                    .iter()
                    .zip(vectors.rows())
                    .map(|(text, e)| (adaptation.log_likelihood(released.row(i), e), *text))
                    .reduce(|a, b| if b.0 > a.0 { b } else { a });
                let (score, text) = best.unwrap_or((f64::NEG_INFINITY, ""));
                Ok(Guess { queries: texts.len(), ..Guess::new(text.to_owned(), score) })
            })
            .collect()
    }
}
