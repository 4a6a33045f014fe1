//! Word overlap: F1s, ROUGE, exact match, edit distance.

use super::tokens;

/// Overlap of two bags, with the sides kept apart so that neither can be swapped for the other.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Overlap {
    pub(super) matched: usize,
    pub(super) truth: usize,
    pub(super) guess: usize,
}

impl Overlap {
    pub(super) fn precision(self) -> f64 {
        if self.guess == 0 { 0.0 } else { self.matched as f64 / self.guess as f64 }
    }

    pub(super) fn recall(self) -> f64 {
        if self.truth == 0 { 0.0 } else { self.matched as f64 / self.truth as f64 }
    }

    pub(super) fn f1(self) -> f64 {
        let (p, r) = (self.precision(), self.recall());
        if p + r > 0.0 { 2.0 * p * r / (p + r) } else { 0.0 }
    }
}

/// Size of the multiset intersection; sorts both sides.
pub(super) fn matches<T: Ord>(a: &mut [T], b: &mut [T]) -> usize {
    a.sort_unstable();
    b.sort_unstable();
    let (mut i, mut j, mut count) = (0, 0, 0);
    while i < a.len() && j < b.len() {
        match a[i].cmp(&b[j]) {
            std::cmp::Ordering::Less => i += 1,
            std::cmp::Ordering::Greater => j += 1,
            std::cmp::Ordering::Equal => {
                count += 1;
                i += 1;
                j += 1;
            }
        }
    }
    count
}

fn bags(mut truth: Vec<String>, mut guess: Vec<String>) -> Option<Overlap> {
    if truth.is_empty() {
        return None;
    }
    let matched = matches(&mut truth, &mut guess);
    Some(Overlap { matched, truth: truth.len(), guess: guess.len() })
}

/// Repeated words count as often as they stand on both sides: ROUGE-1.
pub(super) fn words(truth: &str, guess: &str) -> Option<Overlap> {
    bags(tokens::words(truth), tokens::words(guess))
}

/// Repeated words count once.
pub(super) fn distinct_words(truth: &str, guess: &str) -> Option<Overlap> {
    let distinct = |text: &str| {
        let mut tokens = tokens::words(text);
        tokens.sort_unstable();
        tokens.dedup();
        tokens
    };
    bags(distinct(truth), distinct(guess))
}

/// Function words do not count.
pub(super) fn content_words(truth: &str, guess: &str) -> Option<Overlap> {
    bags(tokens::content_words(truth), tokens::content_words(guess))
}

/// Longest common subsequence of words: ROUGE-L.
pub(super) fn longest_common_subsequence(truth: &str, guess: &str) -> Option<Overlap> {
    let (truth, guess) = (tokens::words(truth), tokens::words(guess));
    if truth.is_empty() {
        return None;
    }
    let mut row = vec![0_usize; guess.len() + 1];
    for t in &truth {
        let mut diagonal = 0;
        for (j, g) in guess.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = if t == g { diagonal + 1 } else { above.max(row[j]) };
            diagonal = above;
        }
    }
    Some(Overlap { matched: row[guess.len()], truth: truth.len(), guess: guess.len() })
}

/// 1 when the texts agree up to case, punctuation and spacing.
pub(super) fn exact(truth: &str, guess: &str) -> Option<f64> {
    let truth = tokens::normalised(truth);
    if truth.is_empty() {
        return None;
    }
    Some(f64::from(u8::from(truth == tokens::normalised(guess))))
}

/// Fewest word insertions, deletions and substitutions from one text to the other.
pub(super) fn edits(truth: &str, guess: &str) -> Option<f64> {
    let truth = tokens::words(truth);
    if truth.is_empty() {
        return None;
    }
    Some(strsim::generic_levenshtein(&truth, &tokens::words(guess)) as f64)
}
