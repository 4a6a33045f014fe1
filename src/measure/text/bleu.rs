//! BLEU from counts: one sentence, or a corpus.

use super::{overlap, tokens};

const ORDERS: usize = 4;

/// What BLEU needs to know about one pair: lengths, clipped matches and n-gram totals for orders 1 to 4.
///
/// Sentence and corpus BLEU are different numbers from the same counts: [`Bleu::sentence`] stops at the longest n-gram
/// the guess has (`eff:yes`), [`Bleu::corpus`] sums the counts of all pairs first and never stops early (`eff:no`). Both are
/// word-level; neither is the mean of the other.
///
/// # Formula
/// `100 min(1, exp(1 - |truth| / |guess|)) exp(mean_n ln p_n)`, `p_n = matched_n / total_n`; the `j`-th order without a
/// match gets `p_n = 1 / (2^j total_n)` (`smooth:exp`); no match of any order gives 0.
///
/// # Range
/// Points, 0 to 100, higher = closer = worse privacy.
///
/// # Source
/// Papineni et al. 2002; sacreBLEU 2.6.0, `metrics/bleu.py`, one reference, 13a tokens, case kept.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Bleu {
    truth: f64,
    guess: f64,
    matched: [f64; ORDERS],
    total: [f64; ORDERS],
}

impl Bleu {
    /// Counts one pair.
    pub fn count(truth: &str, guess: &str) -> Self {
        let (truth, guess) = (tokens::mteval_13a(truth), tokens::mteval_13a(guess));
        let mut counts = Self { truth: truth.len() as f64, guess: guess.len() as f64, ..Self::default() };
        for n in 1..=ORDERS {
            let mut grams: Vec<&[String]> = guess.windows(n).collect();
            counts.total[n - 1] = grams.len() as f64;
            counts.matched[n - 1] = overlap::matches(&mut truth.windows(n).collect::<Vec<_>>(), &mut grams) as f64;
        }
        counts
    }

    /// BLEU of this pair alone, `eff:yes|tok:13a|smooth:exp`; `None` when the original has no token.
    pub fn sentence(&self) -> Option<f64> {
        (self.truth > 0.0).then(|| self.score(true))
    }

    /// BLEU of many pairs, `eff:no|tok:13a|smooth:exp`, each counted `weight` times; `None` when no original has a token.
    pub fn corpus(weighted: impl IntoIterator<Item = (f64, Self)>) -> Option<f64> {
        let mut sum = Self::default();
        for (weight, pair) in weighted {
            sum.truth += weight * pair.truth;
            sum.guess += weight * pair.guess;
            for n in 0..ORDERS {
                sum.matched[n] += weight * pair.matched[n];
                sum.total[n] += weight * pair.total[n];
            }
        }
        (sum.truth > 0.0).then(|| sum.score(false))
    }

    fn score(&self, effective_order: bool) -> f64 {
        if self.matched.iter().all(|&m| m == 0.0) {
            return 0.0;
        }
        let (mut log_sum, mut orders, mut smoothing) = (0.0, 0, 1.0);
        for (&matched, &total) in self.matched.iter().zip(&self.total) {
            if total == 0.0 {
                break;
            }
            orders += 1;
            let precision = if matched > 0.0 {
                matched / total
            } else {
                smoothing *= 2.0;
                1.0 / (smoothing * total)
            };
            log_sum += precision.ln();
        }
        if orders < ORDERS && !effective_order {
            return 0.0;
        }
        let brevity = if self.guess < self.truth { (1.0 - self.truth / self.guess).exp() } else { 1.0 };
        100.0 * brevity * (log_sum / orders as f64).exp()
    }
}
