//! Which words stand in the text: one ridge regression, no order.

use super::lexicon::{self, Lexicon, Reach};
use crate::attack::{Attack, Error, Guess, Inverter, Knowledge, Progress, View, adapt::Adaptation};
use crate::encode::Embeddings;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Writes the words that the released vector speaks of, strongest first.
///
/// # Formula
/// The evidence of [`Lexicon`]; the number of words is the auxiliary mean.
///
/// # Source
/// Song and Raghunathan 2020 (multi-label inversion). Differs: a closed-form ridge reader instead of a trained network,
/// because its noise term is exact for every sigma and it needs no training for each protection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BagOfWords {
    /// Words in the lexicon, most frequent first.
    pub vocabulary: usize,
    /// Words in a guess.
    pub words: usize,
}

impl Default for BagOfWords {
    fn default() -> Self {
        Self { vocabulary: 12_000, words: 8 }
    }
}

impl BagOfWords {
    /// Every parameter that is out of range.
    pub fn check(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.vocabulary == 0 {
            problems.push("`vocabulary` must be at least 1".to_owned());
        }
        if self.words == 0 {
            problems.push("`words` must be at least 1".to_owned());
        }
        problems
    }
}

struct Fitted {
    lexicon: Lexicon,
    words: usize,
}

impl Attack for BagOfWords {
    fn needs(&self) -> Knowledge {
        Knowledge { auxiliary: true, pipeline: true, encoder: true, released: true, leaked_pairs: 0 }
    }

    fn fit<'a>(&self, view: &'a View<'a>, _: &str, _: &dyn Progress) -> Result<Box<dyn Inverter + 'a>, Error> {
        let adaptation = Adaptation::fit(view)?;
        Ok(Box::new(Fitted {
            lexicon: Lexicon::fit(view, &adaptation, self.vocabulary, Reach::Seen)?,
            words: self.words,
        }))
    }
}

impl Inverter for Fitted {
    fn invert(&self, released: &Embeddings, _: &str, _: &dyn Progress) -> Result<Vec<Guess>, Error> {
        Ok((0..released.len())
            .into_par_iter()
            .map(|i| {
                let best = lexicon::top(&self.lexicon.read(released.row(i)), self.words);
                let words: Vec<&str> = best.iter().map(|&(w, _)| self.lexicon.surface(w as u32)).collect();
                let score = best.iter().map(|&(_, s)| f64::from(s)).sum();
                Guess::new(words.join(" "), score)
            })
            .collect())
    }
}
