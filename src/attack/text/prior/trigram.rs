//! Counts of the attacker's own texts: the light prior.

use super::{Continuation, Prior, Score, best, clip, glues, words};
use crate::attack::Error;
use rayon::prelude::*;
use std::collections::{BTreeMap, HashMap};

/// Interpolated Kneser-Ney trigrams over words and marks.
///
/// # Formula
/// `p(w | u v) = max(c(u v w) - D3, 0) / c(u v) + D3 n(u v *) / c(u v) p(w | v)`, `p(w | v)` likewise with the number of
/// different words before `v w` in place of its count, `p(w)` likewise with `n(* w)`, and below it `1 / V`. `n` counts
/// different words, `V` words, marks, the end and one unknown word; each order has its own `D`.
///
/// Words are compared without case and proposed in their most frequent spelling inside a text. A score sums all words
/// and marks and the end of the text.
///
/// # Source
/// Chen and Goodman 1999, section 3.1, equation 27. Discounts `n1 / (n1 + 2 n2)`: Ney, Essen and Kneser 1994.
pub struct Trigram {
    ids: HashMap<String, u32>,
    spelling: Vec<String>,
    /// Sorted `(u, v, w)` with counts.
    triples: Table<3>,
    /// Sorted `(v, w)` with the number of different words before.
    pairs: Table<2>,
    /// For each `w`, the number of different words before it.
    singles: Vec<u32>,
    /// Discount, mass and rest of the lowest order.
    base: Base,
    /// Words by falling `singles`, for [`Prior::continuations`].
    frequent: Vec<u32>,
    fingerprint: String,
}

/// Stands before the first and behind the last word.
const EDGE: u32 = 0;
/// A word that the texts do not hold.
const UNKNOWN: u32 = 1;

/// Sorted n-grams, their counts and the order's discount.
struct Table<const N: usize> {
    grams: Vec<[u32; N]>,
    counts: Vec<u32>,
    discount: f64,
}

/// What is known of the words after one context.
struct After<'a, const N: usize> {
    grams: &'a [[u32; N]],
    counts: &'a [u32],
    total: f64,
    discount: f64,
}

impl<const N: usize> Table<N> {
    fn new(mut all: Vec<[u32; N]>) -> Self {
        all.par_sort_unstable();
        let (mut grams, mut counts): (Vec<[u32; N]>, Vec<u32>) = (Vec::new(), Vec::new());
        for gram in all {
            if grams.last() == Some(&gram) {
                *counts.last_mut().expect("a count for each n-gram") += 1;
            } else {
                grams.push(gram);
                counts.push(1);
            }
        }
        let discount = discount(&counts);
        Self { grams, counts, discount }
    }

    fn after(&self, context: &[u32]) -> After<'_, N> {
        let start = self.grams.partition_point(|gram| gram[..N - 1] < *context);
        let end = start + self.grams[start..].partition_point(|gram| gram[..N - 1] == *context);
        let counts = &self.counts[start..end];
        let total = counts.iter().map(|&c| f64::from(c)).sum();
        After { grams: &self.grams[start..end], counts, total, discount: self.discount }
    }
}

impl<const N: usize> After<'_, N> {
    /// One level of the formula: `lower` is the probability of `word` in the next shorter context.
    fn interpolate(&self, word: u32, lower: f64) -> f64 {
        if self.grams.is_empty() {
            return lower;
        }
        let count = self.grams.binary_search_by_key(&word, |gram| gram[N - 1]).map_or(0, |at| self.counts[at]);
        let rest = self.discount * self.grams.len() as f64;
        ((f64::from(count) - self.discount).max(0.0) + rest * lower) / self.total
    }
}

/// `n1 / (n1 + 2 n2)` from the n-grams seen once and twice; 1/2 where either is missing.
fn discount(counts: &[u32]) -> f64 {
    let seen = |times: u32| counts.iter().filter(|&&c| c == times).count() as f64;
    let (once, twice) = (seen(1), seen(2));
    if once * twice == 0.0 { 0.5 } else { once / (once + 2.0 * twice) }
}

struct Base {
    discount: f64,
    total: f64,
    /// The share that falls to each entry of the vocabulary alike.
    floor: f64,
}

impl Trigram {
    /// Counts the words of all texts.
    pub fn fit<'a>(texts: impl IntoIterator<Item = &'a str>) -> Self {
        let mut model = Vocabulary::default();
        let mut triples: Vec<[u32; 3]> = Vec::new();
        for text in texts {
            let (mut before, mut last) = (EDGE, EDGE);
            let elements = words::split(clip(text));
            for (at, word) in elements.into_iter().enumerate() {
                let id = model.learn(word, at == 0);
                triples.push([before, last, id]);
                (before, last) = (last, id);
            }
            triples.push([before, last, EDGE]);
        }
        let triples = Table::new(triples);
        let pairs = Table::new(triples.grams.iter().map(|gram| [gram[1], gram[2]]).collect());
        let spelling = model.spelling();
        let mut singles = vec![0_u32; spelling.len()];
        for gram in &pairs.grams {
            singles[gram[1] as usize] += 1;
        }
        let seen: Vec<u32> = singles.iter().copied().filter(|&n| n > 0).collect();
        let discount = discount(&seen);
        let total = f64::from(seen.iter().sum::<u32>().max(1));
        let rest = if seen.is_empty() { 1.0 } else { discount * seen.len() as f64 / total };
        let base = Base { discount, total, floor: rest / spelling.len() as f64 };
        let mut frequent: Vec<u32> = (UNKNOWN + 1..spelling.len() as u32).collect();
        frequent.sort_by_key(|&id| (std::cmp::Reverse(singles[id as usize]), id));
        let mut hash = blake3::Hasher::new();
        hash.update(b"trigram 1");
        for word in &spelling {
            hash.update(word.as_bytes()).update(&[0]);
        }
        for (gram, count) in triples.grams.iter().zip(&triples.counts) {
            for value in gram.iter().chain([count]) {
                hash.update(&value.to_le_bytes());
            }
        }
        let fingerprint = format!("trigram {}", hash.finalize().to_hex());
        Self { ids: model.ids, spelling, triples, pairs, singles, base, frequent, fingerprint }
    }

    fn id(&self, word: &str) -> u32 {
        self.ids.get(&words::key(word)).copied().unwrap_or(UNKNOWN)
    }

    fn single(&self, word: u32) -> f64 {
        let seen = f64::from(self.singles[word as usize]) - self.base.discount;
        seen.max(0.0) / self.base.total + self.base.floor
    }

    /// The law of the word after `u v`.
    fn law(&self, u: u32, v: u32) -> impl Fn(u32) -> f64 {
        let (long, short) = (self.triples.after(&[u, v]), self.pairs.after(&[v]));
        move |word| long.interpolate(word, short.interpolate(word, self.single(word)))
    }

    fn score(&self, text: &str) -> Score {
        let (mut before, mut last) = (EDGE, EDGE);
        let (mut log_prob, mut units) = (0.0, 0);
        for id in words::split(clip(text)).iter().map(|word| self.id(word)).chain([EDGE]) {
            log_prob += self.law(before, last)(id).ln();
            units += 1;
            (before, last) = (last, id);
        }
        Score { log_prob, units }
    }
}

/// Words as they are met.
#[derive(Default)]
struct Vocabulary {
    ids: HashMap<String, u32>,
    /// How often each spelling was seen, from id 2 on.
    forms: Vec<BTreeMap<String, u32>>,
}

impl Vocabulary {
    fn learn(&mut self, word: String, first: bool) -> u32 {
        let next = self.forms.len() as u32 + UNKNOWN + 1;
        let id = *self.ids.entry(words::key(&word)).or_insert(next);
        if id == next {
            self.forms.push(BTreeMap::new());
        }
        // A first word is capitalised for its place: it counts towards its form only if nothing else does.
        *self.forms[(id - UNKNOWN - 1) as usize].entry(word).or_default() += if first { 1 } else { 1000 };
        id
    }

    fn spelling(&self) -> Vec<String> {
        let most = |forms: &BTreeMap<String, u32>| {
            let best = forms.iter().rev().max_by_key(|(_, count)| **count);
            best.map(|(form, _)| form.clone()).unwrap_or_default()
        };
        let marks = [String::new(), String::new()];
        marks.into_iter().chain(self.forms.iter().map(most)).collect()
    }
}

impl Prior for Trigram {
    fn name(&self) -> &'static str {
        "trigram"
    }

    fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    fn scores(&self, texts: &[&str]) -> Result<Vec<Score>, Error> {
        Ok(texts.par_iter().map(|text| self.score(text)).collect())
    }

    fn continuations(&self, prefix: &str, k: usize) -> Result<Vec<Continuation>, Error> {
        let prefix = &prefix[prefix.ceil_char_boundary(prefix.len().saturating_sub(super::MAX_BYTES))..];
        let elements = words::split(prefix);
        let mut ids = elements.iter().rev().map(|word| self.id(word));
        let last = ids.next().unwrap_or(EDGE);
        let before = ids.next().unwrap_or(EDGE);
        let law = self.law(before, last);
        // A word that follows neither context is as likely as its own frequency makes it, so `k` of those are enough.
        let (long, short) = (self.triples.after(&[before, last]), self.pairs.after(&[last]));
        let mut words: Vec<u32> = long.grams.iter().map(|gram| gram[2]).collect();
        words.extend(short.grams.iter().map(|gram| gram[1]));
        let enough = k.saturating_add(words.len()).min(self.frequent.len());
        let (others, rest) = self.frequent.split_at(enough);
        // All equals of the last one too: which of them is best is a matter of the alphabet.
        let equals =
            |id: &&u32| others.last().is_some_and(|&last| self.singles[last as usize] == self.singles[**id as usize]);
        words.extend(others.iter().chain(rest.iter().take_while(equals)));
        words.sort_unstable();
        words.dedup();
        let capital = elements.is_empty() || (glues(prefix) && elements.len() == 1);
        let word = |id: u32| {
            let word = self.spelling[id as usize].clone();
            let word = if capital { capitalise(&word) } else { word };
            Continuation { word, log_prob: law(id).ln() }
        };
        Ok(best(words.into_iter().filter(|&id| id > UNKNOWN).map(word).collect(), k))
    }
}

/// The word with an upper-case first letter.
fn capitalise(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXTS: [&str; 6] = [
        "The cat sat on the mat.",
        "The dog sat on the log.",
        "The cat saw the dog.",
        "A dog saw Anna on the mat.",
        "Anna sat.",
        "The dog, said Anna, sat on the cat.",
    ];

    fn model() -> Trigram {
        Trigram::fit(TEXTS)
    }

    #[test]
    fn every_law_sums_to_one() {
        let model = model();
        let n = model.spelling.len() as u32;
        for u in 0..n {
            for v in 0..n {
                let law = model.law(u, v);
                let total: f64 = (0..n).map(law).sum();
                assert!((total - 1.0).abs() < 1e-12, "{u} {v}: {total}");
            }
        }
    }

    /// Worked out by hand: after `sat on` comes `the` three times of three, so the discount alone goes to the lower order.
    #[test]
    fn a_seen_triple_has_its_discounted_share() {
        let model = model();
        let (sat, on, the) = (model.id("sat"), model.id("on"), model.id("the"));
        let d = model.triples.discount;
        let lower = model.pairs.after(&[on]).interpolate(the, model.single(the));
        assert!((model.law(sat, on)(the) - (3.0 - d + d * lower) / 3.0).abs() < 1e-12);
        // `the` follows `on` only, behind two different words: again all of it but the discount.
        let d = model.pairs.discount;
        assert!((lower - (1.0 - d / 2.0 + d / 2.0 * model.single(the))).abs() < 1e-12);
    }

    #[test]
    fn discounts_follow_the_counts_of_counts() {
        assert!((discount(&[1, 1, 1, 2, 5]) - 0.6).abs() < 1e-12);
        assert_eq!(discount(&[1, 1]), 0.5);
        assert_eq!(discount(&[]), 0.5);
    }

    #[test]
    fn continuations_are_the_best_of_the_whole_vocabulary() {
        let model = model();
        for prefix in ["", "The", "The cat", "Anna saw the", "zebra", "sat on"] {
            let mut ids = words::split(prefix);
            ids.reverse();
            let at = |i: usize| ids.get(i).map_or(EDGE, |word| model.id(word));
            let law = model.law(at(1), at(0));
            let mut all: Vec<f64> = (2..model.spelling.len() as u32).map(|id| law(id).ln()).collect();
            all.sort_by(|a, b| b.total_cmp(a));
            let got = model.continuations(prefix, 5).expect("continues");
            let got: Vec<f64> = got.iter().map(|c| c.log_prob).collect();
            assert_eq!(got, all[..5], "{prefix:?}");
        }
        let first = |prefix: &str| model.continuations(prefix, 1).expect("continues")[0].word.clone();
        assert_eq!((first(""), first("A dog sat on")), ("The".into(), "the".into()));
        let words: Vec<String> =
            model.continuations("cat saw", 99).expect("continues").into_iter().map(|c| c.word).collect();
        assert!(words.contains(&"Anna".into()) && !words.contains(&"anna".into()) && !words.contains(&String::new()));
    }

    #[test]
    fn texts_without_words_and_models_without_texts_stay_finite() {
        for model in [model(), Trigram::fit([]), Trigram::fit([""])] {
            for score in model.scores(&["", "zebra", "The cat."]).expect("scores") {
                assert!(score.log_prob.is_finite() && score.log_prob <= 0.0 && score.units > 0, "{score:?}");
            }
            assert!(model.continuations("", 3).expect("continues").len() <= 3);
        }
    }

    #[test]
    fn the_fingerprint_follows_the_texts() {
        assert_eq!(model().fingerprint(), model().fingerprint());
        assert_ne!(model().fingerprint(), Trigram::fit(TEXTS[1..].iter().copied()).fingerprint());
    }
}
