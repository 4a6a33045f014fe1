//! Reconstructions side by side: which targets are shown, and which words a guess shares with its original.
//!
//! The targets are chosen by rule, never by hand: the best, the median and the worst by judge cosine under the unprotected
//! release's worst attacker, and the same ids under every protection.

use crate::run::record::GuessRecord;
use std::collections::BTreeSet;

/// A piece of text, and whether the other side has the word too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) text: String,
    pub(super) shared: bool,
}

/// A target that the gallery shows, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) target: String,
    pub(super) rank: &'static str,
}

pub(super) fn score(guess: &GuessRecord) -> Option<f64> {
    guess.scores.get("judge_cosine").copied().flatten().filter(|v| v.is_finite())
}

/// Best, median and worst of some guesses by judge cosine; ties fall to the smaller id. Fewer than three give fewer choices.
pub(super) fn choose(guesses: &[GuessRecord]) -> Vec<Choice> {
    let mut scored: Vec<(f64, &str)> = guesses.iter().filter_map(|g| Some((score(g)?, g.target.as_str()))).collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    let places = [("best", 0), ("median", scored.len() / 2), ("worst", scored.len().saturating_sub(1))];
    let mut choices: Vec<Choice> = Vec::new();
    for (rank, place) in places {
        if let Some((_, target)) = scored.get(place).filter(|(_, t)| choices.iter().all(|c| c.target != *t)) {
            choices.push(Choice { target: (*target).to_owned(), rank });
        }
    }
    choices
}

/// The guess that came closest to its original.
pub(super) fn closest(guesses: &[GuessRecord]) -> Option<&GuessRecord> {
    let best = choose(guesses).into_iter().next()?;
    guesses.iter().find(|g| g.target == best.target)
}

/// Splits a text into pieces and marks the content words that the other text has too, ignoring case.
///
/// Function words are never marked: any two English texts share them, so they say nothing about a leak.
pub(super) fn overlap(text: &str, other: &str) -> Vec<Piece> {
    let theirs: BTreeSet<String> = words(other).filter(|w| !is_function_word(w)).collect();
    let mut pieces: Vec<Piece> = Vec::new();
    let mut push = |text: &str, shared: bool| match pieces.last_mut() {
        Some(last) if last.shared == shared => last.text.push_str(text),
        _ => pieces.push(Piece { text: text.to_owned(), shared }),
    };
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let in_word = first.is_alphanumeric();
        let end = rest.find(|c: char| c.is_alphanumeric() != in_word).unwrap_or(rest.len());
        push(&rest[..end], in_word && theirs.contains(&rest[..end].to_lowercase()));
        rest = &rest[end..];
    }
    pieces
}

fn words(text: &str) -> impl Iterator<Item = String> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()).map(str::to_lowercase)
}

fn is_function_word(word: &str) -> bool {
    FUNCTION_WORDS.binary_search(&word).is_ok()
}

/// Sorted, for the binary search.
const FUNCTION_WORDS: [&str; 75] = [
    "a", "about", "after", "all", "also", "an", "and", "any", "are", "as", "at", "be", "been", "but", "by", "can",
    "could", "did", "do", "does", "for", "from", "had", "has", "have", "he", "her", "his", "how", "i", "if", "in",
    "into", "is", "it", "its", "may", "me", "more", "my", "no", "not", "of", "on", "or", "our", "out", "s", "she",
    "so", "some", "such", "t", "than", "that", "the", "their", "them", "then", "there", "they", "this", "to", "was",
    "we", "were", "what", "when", "which", "who", "will", "with", "would", "you", "your",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn guess(target: &str, judge: Option<f64>) -> GuessRecord {
        GuessRecord {
            target: target.into(),
            original: String::new(),
            guess: String::new(),
            size: None,
            scores: [("judge_cosine".to_owned(), judge)].into(),
        }
    }

    #[test]
    fn the_gallery_shows_best_median_and_worst_and_skips_the_unscored() {
        let all = [guess("a", Some(0.1)), guess("b", None), guess("c", Some(0.9)), guess("d", Some(0.5))];
        let ids: Vec<_> = choose(&all).into_iter().map(|c| (c.rank, c.target)).collect();
        assert_eq!(ids, [("best", "c".into()), ("median", "d".into()), ("worst", "a".into())]);
        assert_eq!(choose(&all[..1]).len(), 1);
        assert!(choose(&all[1..2]).is_empty());
        assert_eq!(closest(&all).map(|g| g.target.as_str()), Some("c"));
    }

    #[test]
    fn shared_content_words_are_marked_and_function_words_are_not() {
        let pieces = overlap("The doctor, the Clinic!", "the CLINIC has no nurse");
        let marked: Vec<_> = pieces.iter().filter(|p| p.shared).map(|p| p.text.as_str()).collect();
        assert_eq!(marked, ["Clinic"]);
        assert_eq!(pieces.iter().map(|p| p.text.as_str()).collect::<String>(), "The doctor, the Clinic!");
    }

    #[test]
    fn the_function_words_are_sorted_so_that_the_search_finds_each() {
        assert!(FUNCTION_WORDS.is_sorted());
        assert!(FUNCTION_WORDS.into_iter().all(is_function_word));
        assert!(!is_function_word("doctor"));
    }
}
