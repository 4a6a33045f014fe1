//! All attackers together: for each target the guess that explains its release best.

use super::{Error, Guess, Knowledge, View, adapt::Adaptation, embed};
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
    pub fn choose(&self, view: &View, released: &Embeddings, rivals: &[Vec<Guess>]) -> Result<Vec<Guess>, Error> {
        let n = rivals.iter().map(Vec::len).max().unwrap_or(0).min(released.len());
        if n == 0 {
            return Err(Error::Needs {
                attack: "best_of",
                what: "another attack of the study that makes guesses, finished before it".to_owned(),
            });
        }
        let adaptation = Adaptation::fit(view)?;
        (0..n)
            .into_par_iter()
            .map(|i| {
                let mut seen = BTreeSet::new();
                let guesses: Vec<&Guess> = rivals
                    .iter()
                    .filter_map(|guesses| guesses.get(i))
                    .filter(|g| match &g.picture {
                        Some(picture) => seen.insert(picture.rgb()),
                        None => !g.text.is_empty() && seen.insert(g.text.as_bytes()),
                    })
                    .collect();
                let vectors = embed(view.encoder, &guesses)?;
                let best = guesses
                    .iter()
                    .zip(vectors.rows())
                    .map(|(guess, e)| (adaptation.log_likelihood(released.row(i), e), *guess))
                    .reduce(|a, b| if b.0 > a.0 { b } else { a });
                let chosen = best.map_or_else(
                    || Guess::new(String::new(), f64::NEG_INFINITY),
                    |(score, guess)| Guess { score, trace: Vec::new(), ..guess.clone() },
                );
                Ok(Guess { queries: guesses.len(), ..chosen })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::scene::Scene;

    #[test]
    fn the_truth_wins_wherever_a_rival_wrote_it() {
        let scene = Scene::new(40, "identity", &[]);
        let text = |i: usize| Guess::copied(&scene.records[i], 0.0);
        // One rival is right about the first two rows and attacks no more; the other is right about the third.
        let rivals = [vec![text(0), text(1)], vec![text(9), text(8), text(2), Guess::new(String::new(), 0.0)]];
        let guesses = BestOf {}.choose(&scene.view(), &scene.clean, &rivals).expect("guesses");
        let texts: Vec<&str> = guesses.iter().map(|g| g.text.as_str()).collect();
        assert_eq!(texts, [&text(0).text, &text(1).text, &text(2).text, ""]);
        assert_eq!(guesses[0].queries, 2);
        let error = BestOf {}.choose(&scene.view(), &scene.clean, &[]).expect_err("nobody wrote a guess");
        assert!(error.to_string().contains("another attack"), "{error}");
    }
}
