//! From counted successes to a lower bound of epsilon, wrong with a stated probability.

use crate::measure::statistics::{clopper_pearson_lower, clopper_pearson_upper};
use crate::protect::account;
use crate::protect::special::normal_quantile;
use serde::{Deserialize, Serialize};

/// What an event did in two worlds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Trials of the first world in which it happened.
    pub hits: u64,
    /// Trials of the first world.
    pub positives: u64,
    /// Trials of the second world in which it happened.
    pub false_alarms: u64,
    /// Trials of the second world.
    pub negatives: u64,
}

impl Counts {
    /// Bounds of the true positive rate from below and of the false positive rate from above, together wrong with
    /// probability `alpha`.
    fn rates(&self, alpha: f64) -> (f64, f64) {
        let low = clopper_pearson_lower(self.hits as f64, self.positives as f64, 0.5 * alpha);
        let high = clopper_pearson_upper(self.false_alarms as f64, self.negatives as f64, 0.5 * alpha);
        (low, high)
    }

    /// Epsilon that the counts prove, wrong with probability `alpha`; 0 where they prove none.
    ///
    /// # Formula
    /// `max(0, ln((TPR - delta) / FPR), ln((TNR - delta) / FNR))` at the Clopper-Pearson bounds; both directions use the same
    /// two events.
    pub fn epsilon(&self, delta: f64, alpha: f64) -> f64 {
        let (tpr, fpr) = self.rates(alpha);
        let ratio = |found: f64, alarm: f64| if found > delta { ((found - delta) / alarm).ln() } else { 0.0 };
        ratio(tpr, fpr).max(ratio(1.0 - fpr, 1.0 - tpr)).max(0.0)
    }

    /// `mu` that the counts prove of a release whose trade-off is Gaussian, wrong with probability `alpha`.
    ///
    /// # Formula
    /// `Phi^-1(1 - FPR) - Phi^-1(FNR)` at the Clopper-Pearson bounds.
    ///
    /// # Source
    /// Nasr et al. 2023.
    pub fn mu(&self, alpha: f64) -> f64 {
        let (tpr, fpr) = self.rates(alpha);
        (normal_quantile(1.0 - fpr) - normal_quantile(1.0 - tpr)).max(0.0)
    }

    /// What a perfect attacker would count.
    pub fn perfect(trials: u64) -> Self {
        Self { hits: trials, positives: trials, false_alarms: 0, negatives: trials }
    }
}

/// Epsilon that one run proves in which `right` of `guesses` guesses about `canaries` coins were right.
///
/// # Formula
/// The root, at `p = alpha`, of `P[Bin(r, s) >= v] + 2 m delta max_i P[v > Bin(r, s) >= v - i] / i`, `s = 1 / (1 + e^-epsilon)`.
///
/// # Source
/// Steinke, Nasr and Jagielski 2023, theorem 5.2.
pub fn one_run_epsilon(canaries: u64, guesses: u64, right: u64, delta: f64, alpha: f64) -> f64 {
    let chance = |epsilon: f64| one_run_chance(canaries, guesses, right, delta, epsilon);
    if chance(0.0) > alpha {
        return 0.0;
    }
    let (mut low, mut high) = (0.0, 1.0);
    while chance(high) <= alpha && high < 1e4 {
        low = high;
        high *= 2.0;
    }
    while high - low > 1e-10 * high {
        let middle = 0.5 * (low + high);
        if chance(middle) <= alpha {
            low = middle;
        } else {
            high = middle;
        }
    }
    low
}

fn one_run_chance(canaries: u64, guesses: u64, right: u64, delta: f64, epsilon: f64) -> f64 {
    use statrs::function::factorial::ln_binomial;
    let (log_s, log_rest) = (-(-epsilon).exp().ln_1p(), -epsilon - (-epsilon).exp().ln_1p());
    let of = |j: u64| (ln_binomial(guesses, j) + j as f64 * log_s + (guesses - j) as f64 * log_rest).exp();
    let above: f64 = (right..=guesses).map(of).sum();
    let (mut below, mut worst) = (0.0, 0.0_f64);
    for i in 1..=right {
        below += of(right - i);
        worst = worst.max(below / i as f64);
    }
    (above + 2.0 * canaries as f64 * delta * worst).min(1.0)
}

/// The most that `trials` trials a world can prove: `(epsilon by Clopper-Pearson, mu, epsilon of that mu)`.
pub fn ceiling(trials: u64, delta: f64, alpha: f64) -> (f64, f64, f64) {
    let perfect = Counts::perfect(trials);
    let mu = perfect.mu(alpha);
    (perfect.epsilon(delta, alpha), mu, account::epsilon(mu, delta))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(got: f64, expected: f64, tolerance: f64) {
        assert!((got - expected).abs() < tolerance, "got {got}, expected {expected}");
    }

    #[test]
    fn bounds_from_counts_match_their_published_values() {
        close(clopper_pearson_upper(0.0, 500.0, 0.005), 0.010_540_688_188_675_816, 1e-12);
        close(Counts::perfect(500).epsilon(0.0, 0.01), 4.541_915_810, 1e-8);
        let counts = Counts { hits: 900, positives: 1000, false_alarms: 100, negatives: 1000 };
        close(counts.epsilon(1e-5, 0.05), 1.989_694_946, 1e-8);
        close(counts.mu(0.05), 2.347_097, 1e-6);
        // The mirror image proves the same.
        let mirrored = Counts { hits: 999, positives: 1000, false_alarms: 100, negatives: 1000 };
        let turned = Counts { hits: 900, positives: 1000, false_alarms: 1, negatives: 1000 };
        close(mirrored.epsilon(0.0, 0.05), turned.epsilon(0.0, 0.05), 1e-9);
        let nothing = Counts { hits: 500, positives: 1000, false_alarms: 500, negatives: 1000 };
        assert_eq!((nothing.epsilon(1e-5, 0.05), nothing.mu(0.05)), (0.0, 0.0));
    }

    #[test]
    fn ceilings_match_their_published_values() {
        for (trials, epsilon) in [(1000, 5.601), (10_000, 7.905), (100_000, 10.208)] {
            close(ceiling(trials, 1e-5, 0.05).0, epsilon, 1e-3);
        }
        let (_, mu, epsilon) = ceiling(10_000, 1e-5, 0.05);
        close(mu, 6.750, 1e-3);
        close(epsilon, 50.8, 0.05);
        let (_, mu, epsilon) = ceiling(100_000, 1e-5, 0.05);
        close(mu, 7.928, 1e-3);
        close(epsilon, 64.4, 0.05);
    }

    #[test]
    fn one_run_matches_its_published_values() {
        for (canaries, guesses, right, delta, expected) in [
            (1000, 100, 100, 1e-5, 3.465_376_3),
            (1000, 100, 90, 1e-5, 1.626_143_4),
            (1000, 1000, 600, 0.0, 0.297_467_9),
            (1000, 1000, 1000, 0.0, 5.809_068_3),
            (1000, 1000, 523, 0.0, 0.0),
        ] {
            close(one_run_epsilon(canaries, guesses, right, delta, 0.05), expected, 1e-6);
        }
    }

    /// Expected counts of a correct mechanism: what the midpoint and the best tail threshold prove of a true epsilon of 1.
    #[test]
    fn the_midpoint_proves_more_through_mu_than_through_counts() {
        let mu = 2.0 / 7.461_263_269_63;
        let n = 100_000_u64;
        let at = |threshold: f64| {
            let rate = |shift: f64| crate::protect::special::log_ndtr(shift - threshold).exp();
            Counts {
                hits: (rate(mu) * n as f64).round() as u64,
                positives: n,
                false_alarms: (rate(0.0) * n as f64).round() as u64,
                negatives: n,
            }
        };
        let middle = at(0.5 * mu);
        close(account::epsilon(middle.mu(0.05), 1e-5), 0.936, 2e-3);
        close(middle.epsilon(1e-5, 0.05), 0.20, 5e-3);
        let best = (0..400).map(|i| at(f64::from(i) * 0.01).epsilon(1e-5, 0.05)).fold(0.0, f64::max);
        close(best, 0.60, 1e-2);
    }
}
