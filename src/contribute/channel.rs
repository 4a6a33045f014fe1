//! The valuation channel: what a user says of the own records, and the noise under it.

use super::{Catalogue, Error};
use crate::encode::Embeddings;
use rand::{Rng, RngExt};

/// Mass of one item; cells hold whole units, so that sums are exact.
pub const UNITS: i64 = 4096;
/// Sharpness of the soft assignment to cells.
pub const BETA: f64 = 20.0;

/// How one row spreads over the cells and "other": units that sum to [`UNITS`] exactly.
///
/// # Formula
/// `softmax(beta' pull_c)`, rounded by largest remainder. `beta' = beta / sqrt(1 + pi/8 (beta sigma / scale)^2)` for a row
/// that carries noise of `sigma` a coordinate: the softmax averaged over what the noise may have done to the pulls.
///
/// # Source
/// `MacKay`, 1992 (moderated output).
pub fn spread(catalogue: &Catalogue, row: &[f32], sigma: f64) -> Vec<i64> {
    let blur = BETA * sigma / catalogue.scale();
    let beta = BETA / (1.0 + std::f64::consts::PI / 8.0 * blur * blur).sqrt();
    let pulls = catalogue.pulls(row);
    let top = pulls.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = pulls.iter().map(|p| libm::exp(beta * (p - top))).collect();
    let total: f64 = weights.iter().sum();
    let exact: Vec<f64> = weights.iter().map(|w| w / total * UNITS as f64).collect();
    let mut units: Vec<i64> = exact.iter().map(|e| e.floor() as i64).collect();
    let mut order: Vec<usize> = (0..units.len()).collect();
    order.sort_by(|&a, &b| (exact[b] - exact[b].floor()).total_cmp(&(exact[a] - exact[a].floor())).then(a.cmp(&b)));
    let missing = (UNITS - units.iter().sum::<i64>()).max(0) as usize;
    for &cell in order.iter().cycle().take(missing) {
        units[cell] += 1;
    }
    units
}

/// Units of all rows by cell; the last entry is "other".
pub fn histogram(catalogue: &Catalogue, rows: &Embeddings) -> Vec<i64> {
    let mut out = vec![0; catalogue.cells() + 1];
    for row in rows.rows() {
        out.iter_mut().zip(spread(catalogue, row, 0.0)).for_each(|(total, units)| *total += units);
    }
    out
}

/// Epsilon of the channel in thousandths, so that its noise is drawn without rounding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Budget {
    /// Thousandths of an epsilon, 10 to 100 000; 0 for no noise at all (studies only).
    pub epsilon_milli: u32,
}

impl Budget {
    /// Checks and keeps an epsilon.
    ///
    /// # Errors
    /// Outside 0.01 to 100.
    pub fn new(epsilon: f64) -> Result<Self, Error> {
        if (0.01..=100.0).contains(&epsilon) {
            Ok(Self { epsilon_milli: (epsilon * 1000.0).round() as u32 })
        } else {
            Err(Error::Config { key: "epsilon", why: format!("must be 0.01 to 100, got {epsilon}") })
        }
    }

    /// Scale `b` of the noise in items: replace-one moves at most two items.
    pub fn scale_items(self) -> f64 {
        if self.epsilon_milli == 0 { 0.0 } else { 2000.0 / f64::from(self.epsilon_milli) }
    }

    /// Variance of the noise of one cell, in squared units: `2 b^2`, `b = 2 U / epsilon`.
    pub fn variance_units(self) -> u128 {
        let Some(epsilon) = std::num::NonZeroU32::new(self.epsilon_milli) else { return 0 };
        let b = 2 * UNITS as u128 * 1000;
        2 * b * b / (u128::from(epsilon.get()) * u128::from(epsilon.get()))
    }
}

/// Adds independent discrete Laplace noise to every cell. Cells stay signed: clipping at 0 would invent items.
///
/// # Guarantee
/// `epsilon`-DP for replacing one item (the histograms of two such users differ by at most `2 U` units in L1).
pub fn add_noise(cells: &mut [i64], budget: Budget, rng: &mut dyn Rng) {
    if budget.epsilon_milli == 0 {
        return;
    }
    let t = 2 * UNITS as u64 * 1000;
    for cell in cells {
        *cell += discrete_laplace(t, u64::from(budget.epsilon_milli), rng);
    }
}

/// One draw of `P(x)` in proportion to `exp(-|x| s / t)`, on integers only.
///
/// # Source
/// Canonne, Kamath, Steinke, 2020 (arXiv:2004.00010), algorithm 2.
pub fn discrete_laplace(t: u64, s: u64, rng: &mut dyn Rng) -> i64 {
    loop {
        let u = rng.random_range(0..t);
        if !bernoulli_exp(u, t, rng) {
            continue;
        }
        let mut v = 0;
        while bernoulli_exp(1, 1, rng) {
            v += 1;
        }
        let y = (u + t * v) / s;
        let negative = rng.random_range(0..2) == 1;
        if negative && y == 0 {
            continue;
        }
        return if negative { -(y as i64) } else { y as i64 };
    }
}

/// True with probability `exp(-a / b)`, `a <= b`.
fn bernoulli_exp(a: u64, b: u64, rng: &mut dyn Rng) -> bool {
    let mut k = 1;
    while rng.random_range(0..b * k) < a {
        k += 1;
    }
    k % 2 == 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contribute::catalogue::tests::{clouds, plan};
    use crate::seed;
    use proptest::prelude::*;

    fn catalogue() -> Catalogue {
        Catalogue::fit(&plan(8), &clouds(400, 8, 32, 0.4, "public"), &mut seed::stream(1, "test", "catalogue"))
            .expect("enough rows")
    }

    #[test]
    fn the_noise_has_the_variance_of_its_law() {
        // 2 q / (1 - q)^2 at b = 2 whole items is 7.835 (t = 2, s = 1); the relative standard error of a variance over
        // 200 000 Laplace draws is sqrt(5 / n) = .005.
        let mut rng = seed::stream(3, "test", "laplace");
        let draws: Vec<f64> = (0..200_000).map(|_| discrete_laplace(2, 1, &mut rng) as f64).collect();
        let n = draws.len() as f64;
        let mean = draws.iter().sum::<f64>() / n;
        let variance = draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
        assert!((variance / 7.835 - 1.0).abs() < 0.025, "{variance}");
        assert!(mean.abs() < 5.0 * (7.835_f64 / n).sqrt(), "{mean}");
        let zeros = draws.iter().filter(|x| **x == 0.0).count() as f64 / n;
        let q = (-0.5_f64).exp();
        assert!((zeros - (1.0 - q) / (1.0 + q)).abs() < 0.006, "{zeros}");
    }

    #[test]
    fn a_budget_of_one_has_noise_of_two_items() {
        let budget = Budget::new(1.0).expect("in range");
        assert_eq!(budget.scale_items(), 2.0);
        assert_eq!(budget.variance_units(), 2 * (2 * 4096_u128).pow(2));
        let mut cells = vec![0; 20_000];
        add_noise(&mut cells, budget, &mut seed::stream(3, "test", "units"));
        let variance = cells.iter().map(|&c| (c as f64 / UNITS as f64).powi(2)).sum::<f64>() / cells.len() as f64;
        // Standard error sqrt(5 / 20 000) = .016.
        assert!((variance / 8.0 - 1.0).abs() < 0.08, "{variance}");
        assert!(Budget::new(0.0).is_err() && Budget::new(f64::NAN).is_err());
    }

    #[test]
    fn a_row_spreads_exactly_one_item_and_noise_blurs_it() {
        let catalogue = catalogue();
        let rows = clouds(40, 8, 32, 0.4, "fresh");
        for row in rows.rows() {
            let (sharp, blurred) = (spread(&catalogue, row, 0.0), spread(&catalogue, row, 0.5));
            assert_eq!(sharp.iter().sum::<i64>(), UNITS);
            assert_eq!(blurred.iter().sum::<i64>(), UNITS);
            assert!(blurred.iter().max() < sharp.iter().max());
        }
        assert_eq!(histogram(&catalogue, &rows).iter().sum::<i64>(), 40 * UNITS);
    }

    proptest! {
        #[test]
        fn the_spread_is_lipschitz_in_the_row(i in 0_usize..40, axis in 0_usize..32, size in 1e-4_f32..0.1) {
            let catalogue = catalogue();
            let rows = clouds(40, 8, 32, 0.4, "fresh");
            let mut moved = rows.row(i).to_vec();
            moved[axis] += size;
            let (a, b) = (spread(&catalogue, rows.row(i), 0.0), spread(&catalogue, &moved, 0.0));
            let gap: i64 = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).sum();
            let bound = BETA * f64::from(size) / catalogue.scale() * UNITS as f64 + (2 * a.len()) as f64;
            prop_assert!(gap as f64 <= bound, "{gap} against {bound}");
        }
    }
}
