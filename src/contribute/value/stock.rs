//! What an account has accrued, and whether enough of it stands above the noise to be paid out.

use super::{coverage, leaked};
use serde::{Deserialize, Serialize};

/// Accrued value of one account in one group, with the variance that the channel's noise gave it.
///
/// # Formula
/// Each epoch `S <- r S + v`, `Var <- r^2 Var + sum_c (w_c P_c)^2 Var(noise)`; the entitlement is `S` where
/// `S > z sqrt(Var)`, else 0. A negative stock is carried, not forgiven.
///
/// # Range
/// An account without data is entitled to 0.0052 standard deviations on average at `z = 3` (Laplace tails).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stock {
    /// Accrued value in ticks.
    pub ticks: i64,
    /// Variance in squared ticks.
    pub variance: u128,
}

impl Stock {
    /// Lets an epoch pass.
    pub fn leak(&mut self, leak: u64) {
        self.ticks = leaked(self.ticks, leak);
        // The variance is above 2^90 where it matters: 64 low bits are given up so that nothing overflows.
        self.variance = (((self.variance >> 32) * u128::from(leak)) >> 32) * u128::from(leak);
    }

    /// Adds a value that was paid at `prices` under noise of `variance_units` a cell.
    pub fn accrue(&mut self, ticks: i64, prices: &[i64], variance_units: u128) {
        self.ticks = self.ticks.saturating_add(ticks);
        let squares: u128 = prices.iter().map(|&p| (p.unsigned_abs() as u128).pow(2)).sum();
        self.variance = self.variance.saturating_add(squares.saturating_mul(variance_units));
    }

    /// What it is entitled to at `z` standard deviations.
    pub fn entitlement(&self, z: u32) -> u64 {
        if coverage::exceeds(self.ticks, z, self.variance) { self.ticks as u64 } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contribute::channel::{Budget, add_noise};
    use crate::contribute::value::coverage::{Coverage, pay, units};
    use crate::contribute::value::{even_weights, leak_q32};
    use crate::seed;

    #[test]
    fn thin_contributions_pass_the_gate_in_time() {
        // 34 items pass in one epoch at K = 16, epsilon 1, z = 3 (the chapter's table); ten items need several epochs.
        let weights = even_weights(16);
        let prices = Coverage::default().prices(&[0; 16], &[0; 16], &weights);
        let variance = Budget { epsilon_milli: 1000 }.variance_units();
        let passes = |items: i64, epochs: usize| {
            let mut stock = Stock::default();
            for _ in 0..epochs {
                stock.leak(leak_q32(30.0));
                stock.accrue(pay(&prices, &[units(items) / 16; 16]), &prices, variance);
            }
            stock.entitlement(3) > 0
        };
        assert!(passes(35, 1) && !passes(33, 1));
        assert!(!passes(10, 4) && passes(10, 16));
    }

    #[test]
    fn an_empty_account_is_entitled_to_next_to_nothing() {
        let weights = even_weights(32);
        let prices = Coverage::default().prices(&[units(100); 32], &[0; 32], &weights);
        let budget = Budget { epsilon_milli: 1000 };
        let (n, mut total, mut sd) = (40_000_u64, 0.0, 0.0);
        for trial in 0..n {
            let mut cells = vec![0; 33];
            add_noise(&mut cells, budget, &mut seed::stream(trial, "test", "farm"));
            let mut stock = Stock::default();
            stock.accrue(pay(&prices, &cells), &prices, budget.variance_units());
            sd = (stock.variance as f64).sqrt();
            total += stock.entitlement(3) as f64;
        }
        let mean = total / n as f64 / sd;
        // .0052; a payout is about 3.3 sd with probability .0016, so the standard error is .00066.
        assert!(mean < 0.0052 + 4.0 * 0.00066, "{mean}");
        assert!(mean > 0.002, "Laplace tails are heavier than normal ones: {mean}");
    }
}
