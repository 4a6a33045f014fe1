//! `discrete_laplace`: Laplace noise on a grid, drawn with integers alone.

use super::Error;
use super::arguments::{Arguments, number};
use super::claim::{Guarantee, State};
use super::discrete_gaussian::step;
use super::gaussian::NOTHING_TO_SCALE_TO;
use super::grid::discrete_laplace;
use super::mechanism::Mechanism;
use super::noise::each_row;
use super::stage::{Parameters, Release, Stage, out_of_range};

/// Rounds every coordinate to a grid and adds an exact discrete Laplace number of steps.
///
/// # Formula
/// `g (round(x / g) + z)`, `z` an integer with probability proportional to `e^{-|z| / t}`. Rounding moves a row by `g d / 2` in
/// the L1 norm: `t = (D sqrt d + g d) / (g epsilon)`, rounded up, for an L2 sensitivity `D`.
///
/// # Guarantee
/// Pure: `epsilon`-DP for one record, replace-one. The low bits tell nothing more; the time of a draw may.
///
/// # Source
/// Ghosh, Roughgarden and Sundararajan 2009; the draw of Canonne, Kamath and Steinke 2020.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DiscreteLaplace {
    /// Of one release of one record.
    pub epsilon: f64,
}

impl DiscreteLaplace {
    pub(super) fn read(arguments: &mut Arguments<'_>) -> Self {
        Self { epsilon: arguments.number("epsilon", "8") }
    }
}

impl Parameters for DiscreteLaplace {
    fn arguments(&self) -> Vec<(&'static str, String)> {
        vec![("epsilon", number(self.epsilon))]
    }

    fn check(&self) -> Vec<(&'static str, String)> {
        out_of_range("epsilon", self.epsilon, 1e-3, 1e6).into_iter().collect()
    }

    fn build(&self, before: &State) -> Result<Box<dyn Stage>, String> {
        let sensitivity = before.sensitivity.as_ref().ok_or_else(|| {
            // There is no sigma to give instead.
            NOTHING_TO_SCALE_TO.trim_end_matches(", or give `sigma`").to_owned()
        })?;
        Ok(Box::new(OnGrid { epsilon: self.epsilon, sensitivity: sensitivity.l2 }))
    }
}

/// [`DiscreteLaplace`] with its sensitivity settled.
#[derive(Debug)]
struct OnGrid {
    epsilon: f64,
    /// In the L2 norm.
    sensitivity: f64,
}

impl OnGrid {
    /// The grid, and the scale in its steps.
    fn noise(&self, dim: usize) -> (f64, u64) {
        let d = dim as f64;
        let widest = self.sensitivity * d.sqrt() / self.epsilon;
        let g = step(self.sensitivity, widest);
        let scale = ((self.sensitivity * d.sqrt() + g * d) / (g * self.epsilon)).ceil();
        (g, (scale as u64).max(1))
    }
}

impl Stage for OnGrid {
    fn name(&self) -> &'static str {
        "discrete_laplace"
    }

    fn apply(&self, mut release: Release, rng: &mut dyn rand::Rng) -> Result<Release, Error> {
        let (g, scale) = self.noise(release.vectors.dim());
        each_row(&mut release, rng, |row, noise| {
            for v in row {
                let steps = (f64::from(*v) / g).round() as i128 + discrete_laplace(scale, noise);
                // The one rounding after the draw is a function of the integer alone.
                *v = (steps as f64 * g) as f32;
            }
        });
        Ok(release)
    }

    fn guarantee(&self, before: &State) -> State {
        let sigma = before.dim.map(|d| {
            let (g, scale) = self.noise(d);
            std::f64::consts::SQRT_2 * g * scale as f64
        });
        let (mut after, _) = before.clone().noised(sigma, false);
        let epsilon = self.epsilon;
        after.earn(Guarantee::Pure { epsilon }, Some(Mechanism::LaplaceL1 { epsilon }), false, before.members);
        after
    }
}

#[cfg(test)]
mod tests {
    use super::super::law::{CRITICAL, DIMS, copies, distance, minus, released};

    /// Kolmogorov-Smirnov at level 1e-6 for all coordinates of all rows.
    #[test]
    fn releases_follow_the_laplace_law() {
        for dim in DIMS {
            let clean = copies(8000 / dim, dim);
            let y = released("clip(l2=1) | discrete_laplace(epsilon=8)", &clean, 1);
            let clipped = released("clip(l2=1)", &clean, 1);
            let b = 2.0 * (dim as f64).sqrt() / 8.0;
            let draws = minus(y.values(), clipped.values()).into_iter().map(|v| f64::from(v) / b).collect();
            let d = distance(draws, |l| if l < 0.0 { 0.5 * l.exp() } else { 1.0 - 0.5 * (-l).exp() });
            assert!(d < CRITICAL, "{dim}: {d}");
        }
    }
}
