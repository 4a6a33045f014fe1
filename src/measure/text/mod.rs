//! Text metrics: how many of the original's words and characters the guess got right.
//!
//! | metric | reads | choose it when |
//! |---|---|---|
//! | token F1 = ROUGE-1 | a bag of words | the share of words matters, not their order |
//! | token-set F1 | a set of words | repeats should not count |
//! | content-word F1 | a bag without function words | `the` and `of` would flatter a blind guess |
//! | ROUGE-L | the longest common subsequence | order matters, gaps do not |
//! | sentence BLEU, corpus BLEU | word n-grams, 13a tokens | comparing with published inversions |
//! | chrF | character n-grams | names and numbers are almost right |
//! | exact match, word edit distance | the whole text | verbatim recovery is the harm |
//!
//! All of them read generated text only. They are defined when the original has at least one token of the metric's kind;
//! otherwise the target's score is missing. An empty guess is a guess, and scores 0.

mod bleu;
mod chrf;
mod overlap;
mod tokens;

pub use bleu::Bleu;
pub use chrf::Chrf;

use super::{Error, Metric, Spec, check_paired};
use crate::measure::Direction;
use rayon::prelude::*;

/// A metric that is a function of one pair of texts.
pub(super) struct Pairwise {
    spec: Spec,
    score: fn(&str, &str) -> Option<f64>,
}

impl Metric for Pairwise {
    fn spec(&self) -> Spec {
        self.spec.clone()
    }

    fn score(&self, truths: &[&str], guesses: &[&str]) -> Result<Vec<Option<f64>>, Error> {
        check_paired(truths.len(), guesses.len())?;
        Ok(truths.par_iter().zip(guesses).map(|(truth, guess)| (self.score)(truth, guess)).collect())
    }
}

fn share(id: &'static str, signature: &str, score: fn(&str, &str) -> Option<f64>) -> Pairwise {
    Pairwise {
        spec: Spec {
            id,
            version: 1,
            unit: "share",
            low: 0.0,
            high: 1.0,
            direction: Direction::HigherLeaksMore,
            signature: signature.to_owned(),
        },
        score,
    }
}

fn points(id: &'static str, signature: &str, score: fn(&str, &str) -> Option<f64>) -> Pairwise {
    let mut metric = share(id, signature, score);
    metric.spec.unit = "points";
    metric.spec.high = 100.0;
    metric
}

/// Harmonic mean of word precision and recall, repeats counted: `2 |A ∩ B| / (|A| + |B|)` on multisets.
///
/// # Range
/// Share, 0 to 1, higher = closer = worse privacy; mean over targets.
///
/// # Source
/// The same number as [`rouge_1`], under the name that the inversion literature uses.
pub(super) fn token_f1() -> Pairwise {
    share("token_f1", "tok:a-z0-9|case:lc|bag:multiset", |t, g| overlap::words(t, g).map(overlap::Overlap::f1))
}

/// [`token_f1`] on sets: repeats count once.
pub(super) fn token_set_f1() -> Pairwise {
    share("token_set_f1", "tok:a-z0-9|case:lc|bag:set", |t, g| overlap::distinct_words(t, g).map(overlap::Overlap::f1))
}

/// [`token_f1`] without function words; missing when the original has nothing else.
pub(super) fn content_word_f1() -> Pairwise {
    share("content_word_f1", "tok:a-z0-9|case:lc|bag:multiset|stop:en-1", |t, g| {
        overlap::content_words(t, g).map(overlap::Overlap::f1)
    })
}

/// ROUGE-1: F-measure of word overlap.
///
/// # Source
/// Lin 2004; rouge-score 0.1.2 without stemmer.
pub(super) fn rouge_1() -> Pairwise {
    share("rouge_1", "tok:rouge-score-0.1.2|stem:no", |t, g| overlap::words(t, g).map(overlap::Overlap::f1))
}

/// ROUGE-L: F-measure of the longest common subsequence of words.
///
/// # Source
/// Lin 2004; rouge-score 0.1.2 without stemmer, `rougeL` (not the summary-level `rougeLsum`).
pub(super) fn rouge_l() -> Pairwise {
    share("rouge_l", "tok:rouge-score-0.1.2|stem:no", |t, g| {
        overlap::longest_common_subsequence(t, g).map(overlap::Overlap::f1)
    })
}

/// [`Bleu::sentence`], averaged over targets: not corpus BLEU.
pub(super) fn sentence_bleu() -> Pairwise {
    points("sentence_bleu", SENTENCE_BLEU_SIGNATURE, |t, g| Bleu::count(t, g).sentence())
}

/// [`Chrf::sentence`], averaged over targets.
pub(super) fn chrf() -> Pairwise {
    points("chrf", CHRF_SIGNATURE, |t, g| Chrf::count(t, g).sentence())
}

/// 1 when guess and original agree up to case, punctuation and spacing.
pub(super) fn exact_match() -> Pairwise {
    share("exact_match", "norm:lc-alphanumeric", overlap::exact)
}

/// Fewest word insertions, deletions and substitutions between guess and original.
///
/// # Range
/// Words, 0 upwards, lower = closer = worse privacy.
pub(super) fn word_edit_distance() -> Pairwise {
    let mut metric = share("word_edit_distance", "tok:a-z0-9|case:lc|cost:1/1/1", overlap::edits);
    metric.spec.unit = "words";
    metric.spec.high = f64::INFINITY;
    metric.spec.direction = Direction::LowerLeaksMore;
    metric
}

/// How sentence BLEU is computed, in sacreBLEU's words.
pub(super) const SENTENCE_BLEU_SIGNATURE: &str = "nrefs:1|case:mixed|eff:yes|tok:13a|smooth:exp|agg:mean";
/// How corpus BLEU is computed, in sacreBLEU's words.
pub(super) const CORPUS_BLEU_SIGNATURE: &str = "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp";
/// How corpus chrF is computed, in sacreBLEU's words.
pub(super) const CORPUS_CHRF_SIGNATURE: &str = "nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no";
/// How chrF is computed, in sacreBLEU's words.
pub(super) const CHRF_SIGNATURE: &str = "nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|agg:mean";

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    struct Golden {
        first_five: Corpus,
        all: Corpus,
        short: Corpus,
        pairs: Vec<Pair>,
    }

    #[derive(serde::Deserialize)]
    struct Corpus {
        corpus_bleu: f64,
        corpus_chrf: f64,
    }

    #[derive(serde::Deserialize)]
    struct Pair {
        original: String,
        guess: String,
        sentence_bleu: f64,
        chrf: f64,
        rouge_1: f64,
        rouge_1_precision: f64,
        rouge_1_recall: f64,
        rouge_l: f64,
    }

    fn golden() -> Golden {
        serde_json::from_str(include_str!("../../../tests/golden/text_metrics.json")).expect("the golden file parses")
    }

    fn close(ours: f64, reference: f64, what: &str) {
        assert!((ours - reference).abs() < 1e-6, "{what}: {ours} against {reference}");
    }

    fn one(metric: &Pairwise, pair: &Pair) -> Option<f64> {
        metric.score(&[pair.original.as_str()], &[pair.guess.as_str()]).expect("one pair")[0]
    }

    #[test]
    fn every_pair_agrees_with_sacrebleu_and_rouge_score() {
        let golden = golden();
        assert!(golden.pairs.len() >= 60);
        let mut defined = 0;
        for pair in &golden.pairs {
            let cases = [
                (sentence_bleu(), pair.sentence_bleu, tokens::mteval_13a(&pair.original).is_empty()),
                (chrf(), pair.chrf, tokens::characters(&pair.original).is_empty()),
                (rouge_1(), pair.rouge_1, tokens::words(&pair.original).is_empty()),
                (token_f1(), pair.rouge_1, tokens::words(&pair.original).is_empty()),
                (rouge_l(), pair.rouge_l, tokens::words(&pair.original).is_empty()),
            ];
            for (metric, reference, undefined) in cases {
                let what = format!("{} of {:?} against {:?}", metric.spec.id, pair.guess, pair.original);
                match one(&metric, pair) {
                    Some(ours) => {
                        close(ours, reference, &what);
                        defined += 1;
                    }
                    // The references print 0 where there was nothing to find.
                    None => assert!(undefined && reference == 0.0, "{what} is missing"),
                }
            }
        }
        assert!(defined > 300, "{defined} scores compared");
    }

    #[test]
    fn precision_belongs_to_the_guess_and_recall_to_the_original() {
        let mut asymmetric = 0;
        for pair in &golden().pairs {
            if let Some(overlap) = overlap::words(&pair.original, &pair.guess) {
                close(overlap.precision(), pair.rouge_1_precision, &pair.guess);
                close(overlap.recall(), pair.rouge_1_recall, &pair.guess);
                asymmetric += usize::from((pair.rouge_1_precision - pair.rouge_1_recall).abs() > 0.1);
            }
        }
        assert!(asymmetric >= 5, "{asymmetric} pairs can tell the two apart");
    }

    #[test]
    fn corpus_and_sentence_scores_are_different_numbers() {
        let golden = golden();
        let corpus = |pairs: &[Pair]| {
            let bleu = Bleu::corpus(pairs.iter().map(|p| (1.0, Bleu::count(&p.original, &p.guess))));
            let chrf = Chrf::corpus(pairs.iter().map(|p| (1.0, Chrf::count(&p.original, &p.guess))));
            (bleu.expect("tokens"), chrf.expect("characters"))
        };
        for (pairs, reference) in [(&golden.pairs[..5], &golden.first_five), (&golden.pairs[..], &golden.all)] {
            let (bleu, chrf) = corpus(pairs);
            close(bleu, reference.corpus_bleu, "corpus BLEU");
            close(chrf, reference.corpus_chrf, "corpus chrF");
        }
        close(corpus(&golden.pairs[..5]).0, 45.279_916, "corpus BLEU of the table");
        let sentences: Vec<f64> = golden.pairs[..5].iter().filter_map(|p| one(&sentence_bleu(), p)).collect();
        assert!((sentences.iter().sum::<f64>() / 5.0 - 42.84).abs() < 0.01, "mean sentence BLEU of the table");
        // Two words make no 4-gram: perfect as sentences, 0 as a corpus.
        let short = Bleu::corpus(["good morning", "yes"].map(|t| (1.0, Bleu::count(t, t))));
        assert_eq!(short, Some(golden.short.corpus_bleu));
        assert_eq!(short, Some(0.0));
        close(100.0, golden.short.corpus_chrf, "corpus chrF of short pairs");
    }

    #[test]
    fn weights_of_a_corpus_count_as_copies() {
        let pairs = golden().pairs;
        let counts: Vec<Bleu> = pairs[..3].iter().map(|p| Bleu::count(&p.original, &p.guess)).collect();
        let weighted = Bleu::corpus([2.0, 0.0, 1.0].into_iter().zip(counts.iter().copied()));
        let copied = Bleu::corpus([0, 0, 2].map(|i| (1.0, counts[i])));
        assert_eq!(weighted, copied);
    }

    #[test]
    fn the_table_of_five_pairs_holds() {
        // set-F1, ROUGE-1, ROUGE-L, sentence BLEU, chrF, word edits, as printed: four digits, two for points.
        let table = [
            [1.0, 1.0, 1.0, 100.0, 100.0, 0.0],
            [1.0, 1.0, 0.5, 67.56, 85.67, 10.0],
            [0.4, 0.4, 0.4, 8.70, 33.49, 7.0],
            [0.6667, 0.6667, 0.6667, 33.03, 47.74, 3.0],
            [0.125, 0.125, 0.125, 4.94, 14.21, 9.0],
        ];
        for (pair, row) in golden().pairs.iter().zip(table) {
            let metrics = [token_set_f1(), rouge_1(), rouge_l(), sentence_bleu(), chrf(), word_edit_distance()];
            for (metric, value) in metrics.iter().zip(row) {
                let tolerance = if metric.spec.unit == "points" { 5.1e-3 } else { 5.1e-5 };
                let ours = one(metric, pair).expect("defined");
                assert!((ours - value).abs() < tolerance, "{}: {ours} against {value}", metric.spec.id);
            }
        }
    }

    #[test]
    fn function_words_do_not_flatter_a_blind_guess() {
        let (truth, guess) = ("the results of the blood test were positive", "the end of the war was in the news");
        let f1 = |metric: Pairwise| metric.score(&[truth], &[guess]).expect("one pair")[0];
        assert!(f1(token_f1()).expect("defined") > 0.3);
        assert_eq!(f1(content_word_f1()), Some(0.0));
        assert_eq!(content_word_f1().score(&["to be or not to be"], &["be"]).expect("one pair"), [None]);
    }

    #[test]
    fn an_empty_guess_scores_nothing_and_an_empty_original_has_no_score() {
        for metric in [token_f1(), token_set_f1(), content_word_f1(), rouge_l(), sentence_bleu(), chrf(), exact_match()]
        {
            let scores = metric.score(&["anna smith", ""], &["", "anna smith"]).expect("two pairs");
            assert_eq!(scores, [Some(0.0), None], "{}", metric.spec.id);
        }
        assert_eq!(word_edit_distance().score(&["anna smith", ""], &["", "x"]).expect("two pairs"), [Some(2.0), None]);
    }

    #[test]
    fn exact_match_forgets_case_and_punctuation_but_not_words() {
        let scores = exact_match().score(&["Anna Smith, 42!", "anna smith 42"], &["anna smith 42", "anna smith 24"]);
        assert_eq!(scores.expect("two pairs"), [Some(1.0), Some(0.0)]);
    }

    #[test]
    fn a_guess_too_few_is_an_error_not_a_zero() {
        let error = token_f1().score(&["a", "b"], &["a"]).expect_err("unpaired");
        assert!(error.to_string().starts_with("2 originals but 1 guesses"), "{error}");
    }
}
