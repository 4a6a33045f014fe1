//! Which word follows which: the cheap fluency score that picks the moves worth an encoder query.

use super::words;
use std::collections::HashMap;

/// Interpolated bigram model over words and marks of the auxiliary texts.
///
/// # Formula
/// `p(b | a) = 0.8 c(a b) / c(a) + 0.2 (c(b) + 1) / (N + V)`
pub struct Bigrams {
    ids: HashMap<String, u32>,
    unigram: Vec<u32>,
    pairs: HashMap<(u32, u32), u32>,
    total: f32,
}

/// Stands before the first and behind the last word.
pub const EDGE: u32 = 0;
/// A word that the texts do not hold.
pub const UNKNOWN: u32 = 1;

impl Bigrams {
    /// Counts the pairs of all texts.
    pub fn fit<'a>(texts: impl Iterator<Item = &'a str>) -> Self {
        let mut model = Self { ids: HashMap::new(), unigram: vec![0, 0], pairs: HashMap::new(), total: 0.0 };
        for text in texts {
            let mut before = EDGE;
            model.unigram[EDGE as usize] += 1;
            for word in words::split(text) {
                let next = model.unigram.len() as u32;
                let id = *model.ids.entry(words::key(&word)).or_insert(next);
                if id == next {
                    model.unigram.push(0);
                }
                model.unigram[id as usize] += 1;
                *model.pairs.entry((before, id)).or_default() += 1;
                before = id;
            }
            *model.pairs.entry((before, EDGE)).or_default() += 1;
        }
        model.total = model.unigram.iter().map(|&c| c as f32).sum();
        model
    }

    /// The number of a word or mark.
    pub fn id(&self, word: &str) -> u32 {
        self.ids.get(&words::key(word)).copied().unwrap_or(UNKNOWN)
    }

    /// `ln p(b | a)`.
    pub fn log_prob(&self, a: u32, b: u32) -> f32 {
        let prior = (self.unigram[b as usize] as f32 + 1.0) / (self.total + self.unigram.len() as f32);
        let pair = self.pairs.get(&(a, b)).copied().unwrap_or(0) as f32;
        let context = self.unigram[a as usize].max(1) as f32;
        (0.8 * pair / context + 0.2 * prior).ln()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seen_pair_is_likelier_than_an_unseen_one() {
        let model = Bigrams::fit(["the cat sat.", "the dog sat."].into_iter());
        let (the, cat, sat) = (model.id("The"), model.id("cat"), model.id("sat"));
        assert!(model.log_prob(the, cat) > model.log_prob(the, sat));
        assert!(model.log_prob(EDGE, the) > model.log_prob(EDGE, cat));
        assert_eq!(model.id("zebra"), UNKNOWN);
        let all: f32 = (0..model.unigram.len() as u32).map(|b| model.log_prob(the, b).exp()).sum();
        assert!((all - 1.0).abs() < 1e-4, "{all}");
    }
}
