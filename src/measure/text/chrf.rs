//! chrF from counts: one sentence, or a corpus.

use super::{overlap, tokens};

const ORDERS: usize = 6;
/// Recall weighs twice as much as precision; the formula uses the square.
const BETA_SQUARED: f64 = 4.0;

/// What chrF needs to know about one pair: character n-gram counts for orders 1 to 6.
///
/// # Formula
/// `100 (1 + b^2) P R / (b^2 P + R)`, `b = 2`; `P`, `R` average the precision and recall of the orders that both sides
/// have (`eff:yes`).
///
/// # Range
/// Points, 0 to 100, higher = closer = worse privacy.
///
/// # Source
/// Popović 2015; sacreBLEU 2.6.0, `metrics/chrf.py`, `case:mixed|eff:yes|nc:6|nw:0|space:no`.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Chrf {
    truth: [f64; ORDERS],
    guess: [f64; ORDERS],
    matched: [f64; ORDERS],
}

impl Chrf {
    /// Counts one pair.
    pub fn count(truth: &str, guess: &str) -> Self {
        let (truth, guess) = (tokens::characters(truth), tokens::characters(guess));
        let mut counts = Self::default();
        for n in 1..=ORDERS {
            let mut truth: Vec<&[char]> = truth.windows(n).collect();
            let mut guess: Vec<&[char]> = guess.windows(n).collect();
            counts.truth[n - 1] = truth.len() as f64;
            // An order that the original does not have is not held against the guess.
            counts.guess[n - 1] = if truth.is_empty() { 0.0 } else { guess.len() as f64 };
            counts.matched[n - 1] = overlap::matches(&mut truth, &mut guess) as f64;
        }
        counts
    }

    /// chrF of this pair alone; `None` when the original is blank.
    pub fn sentence(&self) -> Option<f64> {
        (self.truth[0] > 0.0).then(|| self.score())
    }

    /// chrF of many pairs, each counted `weight` times; `None` when every original is blank.
    pub fn corpus(weighted: impl IntoIterator<Item = (f64, Self)>) -> Option<f64> {
        let mut sum = Self::default();
        for (weight, pair) in weighted {
            for n in 0..ORDERS {
                sum.truth[n] += weight * pair.truth[n];
                sum.guess[n] += weight * pair.guess[n];
                sum.matched[n] += weight * pair.matched[n];
            }
        }
        (sum.truth[0] > 0.0).then(|| sum.score())
    }

    fn score(&self) -> f64 {
        let (mut precision, mut recall, mut orders) = (0.0, 0.0, 0.0);
        for n in 0..ORDERS {
            if self.guess[n] > 0.0 && self.truth[n] > 0.0 {
                precision += self.matched[n] / self.guess[n];
                recall += self.matched[n] / self.truth[n];
                orders += 1.0;
            }
        }
        if precision + recall == 0.0 {
            return 0.0;
        }
        let (p, r) = (precision / orders, recall / orders);
        100.0 * (1.0 + BETA_SQUARED) * p * r / (BETA_SQUARED * p + r)
    }
}
