//! Laws of the angle between a unit row and its release, tabulated: one sampler and one loss curve for all of them.

use super::loss::Loss;
use std::f64::consts::PI;

/// How the density of a direction falls with its angle to the row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Law {
    /// `e^{kappa cos t}`: von Mises-Fisher.
    Vmf {
        /// The concentration.
        kappa: f64,
    },
    /// `e^{-kappa t}`: Purkayastha.
    Purkayastha {
        /// The concentration.
        kappa: f64,
    },
}

impl Law {
    fn log_density(self, t: f64) -> f64 {
        match self {
            Self::Vmf { kappa } => kappa * t.cos(),
            Self::Purkayastha { kappa } => -kappa * t,
        }
    }
}

/// Cells of a table: where rounding of a cell no longer shows in any figure that is printed.
const CELLS: usize = 20_000;
/// Weights below `e^-REACH` of the largest are left out of a table.
const REACH: f64 = 60.0;

/// Midpoints of `cells` equal angles with the logarithm of `sin^{d-2}(t) e^{weight(t)}`, over the part of `(0, pi)` that
/// carries weight; `d >= 2`.
pub(super) fn angles(dim: usize, cells: usize, weight: impl Fn(f64) -> f64) -> Vec<(f64, f64)> {
    let log_weight = |t: f64| (dim as f64 - 2.0) * t.sin().max(1e-300).ln() + weight(t);
    let midpoints = |low: f64, high: f64, n: usize| {
        (0..n).map(move |i| low + (high - low) * (i as f64 + 0.5) / n as f64).collect::<Vec<f64>>()
    };
    let (mut low, mut high) = (0.0, PI);
    // A sharp law hides between the cells of a coarse table: look closer twice.
    for _ in 0..2 {
        let coarse: Vec<(f64, f64)> = midpoints(low, high, 4000).into_iter().map(|t| (t, log_weight(t))).collect();
        let top = coarse.iter().map(|c| c.1).fold(f64::NEG_INFINITY, f64::max);
        let step = (high - low) / 4000.0;
        let inside: Vec<f64> = coarse.iter().filter(|c| c.1 > top - REACH).map(|c| c.0).collect();
        if let (Some(first), Some(last)) = (inside.first(), inside.last()) {
            (low, high) = ((first - step).max(0.0), (last + step).min(PI));
        }
    }
    midpoints(low, high, cells).into_iter().map(|t| (t, log_weight(t))).collect()
}

/// A law in `d` dimensions, as a table of angles.
#[derive(Debug, Clone)]
pub struct Angles {
    dim: usize,
    law: Law,
    /// `(angle, p)` of each cell.
    cells: Vec<(f64, f64)>,
    /// Sum of `p` up to and including each cell.
    below: Vec<f64>,
    /// `ln` of the weight of all cells, in the table's own unit.
    log_total: f64,
}

impl Angles {
    /// Tabulates `law` in `dim >= 2` dimensions.
    ///
    /// # Formula
    /// Density of the angle `t`: `sin^{d-2} t e^{kappa cos t}` or `sin^{d-2} t e^{-kappa t}`.
    pub fn new(dim: usize, law: Law) -> Self {
        let table = angles(dim, CELLS, |t| law.log_density(t));
        let top = table.iter().map(|c| c.1).fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = table.iter().map(|c| (c.1 - top).exp()).sum();
        let cells: Vec<(f64, f64)> = table.into_iter().map(|(t, log_w)| (t, (log_w - top).exp() / total)).collect();
        let below = cells.iter().scan(0.0, |sum, cell| {
            *sum += cell.1;
            Some(*sum)
        });
        let below = below.collect();
        let width = cells[1].0 - cells[0].0;
        Self { dim, law, cells, below, log_total: top + (total * width).ln() }
    }

    /// The angle below which the share `u` of all releases lies; straight lines within a cell.
    pub fn quantile(&self, u: f64) -> f64 {
        let i = self.below.partition_point(|&sum| sum < u).min(self.cells.len() - 1);
        let width = self.cells[1].0 - self.cells[0].0;
        let (t, p) = self.cells[i];
        let before = if i == 0 { 0.0 } else { self.below[i - 1] };
        let within = if p > 0.0 { ((u - before) / p).clamp(0.0, 1.0) } else { 0.5 };
        t + (within - 0.5) * width
    }

    /// Mean cosine of a release to its row.
    pub fn mean_cosine(&self) -> f64 {
        self.cells.iter().map(|(t, p)| p * t.cos()).sum()
    }

    /// The loss between two opposite rows: `2 kappa cos t`, or `kappa (pi - 2 t)`.
    pub fn antipodal(&self) -> Loss {
        let loss = |t: f64| match self.law {
            Law::Vmf { kappa } => 2.0 * kappa * t.cos(),
            Law::Purkayastha { kappa } => kappa * (PI - 2.0 * t),
        };
        Loss::new(self.cells.iter().map(|&(t, p)| (loss(t), p.ln())).collect())
    }

    /// The loss against a release that knows nothing of the row: a random direction.
    ///
    /// # Formula
    /// `L = ln f(t) - ln E_uniform[f]`, `f` the density of a direction. By symmetry its mean is the most that one release
    /// can tell about a row.
    pub fn against_uniform(&self) -> Loss {
        // ln of the integral of sin^{d-2}: Beta((d-1)/2, 1/2).
        let d = self.dim as f64;
        let ln_gamma = statrs::function::gamma::ln_gamma;
        let sphere = ln_gamma(0.5 * (d - 1.0)) + ln_gamma(0.5) - ln_gamma(0.5 * d);
        let constant = self.log_total - sphere;
        Loss::new(self.cells.iter().map(|&(t, p)| (self.law.log_density(t) - constant, p.ln())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::super::special::bessel_ratio;
    use super::*;

    #[test]
    fn losses_between_opposite_rows_match_their_quadratures() {
        let vmf = Angles::new(384, Law::Vmf { kappa: 100.0 });
        assert!((vmf.antipodal().epsilon(1e-5) - 85.805).abs() < 1e-3, "{}", vmf.antipodal().epsilon(1e-5));
        assert!((vmf.mean_cosine() - 0.244_873_202_855).abs() < 1e-7);
        let purkayastha = Angles::new(384, Law::Purkayastha { kappa: 100.0 });
        let epsilon = purkayastha.antipodal().epsilon(1e-5);
        assert!((epsilon - 91.568).abs() < 1e-3, "{epsilon}");
        assert!((purkayastha.mean_cosine() - 0.252_32).abs() < 1e-5);
    }

    #[test]
    fn the_table_follows_the_bessel_ratio_wherever_it_is_used() {
        for dim in [2, 3, 32, 384, 1536] {
            for kappa in [0.1, 10.0, 1e3, 1e5] {
                let (table, exact) = (Angles::new(dim, Law::Vmf { kappa }).mean_cosine(), bessel_ratio(dim, kappa));
                assert!((table - exact).abs() < 2e-4 * exact.max(1e-3), "{dim} {kappa}: {table} {exact}");
            }
        }
    }

    #[test]
    fn a_direction_tells_at_most_what_its_law_says() {
        // On the circle: ln(1 / I_0(kappa)) + kappa A_2(kappa); I_0(1) = 1.2660658778.
        let told = Angles::new(2, Law::Vmf { kappa: 1.0 }).against_uniform().mean();
        assert!((told - (bessel_ratio(2, 1.0) - 1.266_065_877_8_f64.ln())).abs() < 1e-6, "{told}");
        let against = Angles::new(384, Law::Vmf { kappa: 100.0 }).against_uniform();
        let found = against.most_found(1e-3);
        // Nearly a Gaussian of the same noise-to-signal: mu = cosine sqrt(d) / sqrt(1 - cosine^2) = 4.95.
        assert!(found > 0.9 && found < 0.98, "{found}");
    }
}
