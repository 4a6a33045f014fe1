//! `discrete_gaussian`: normal noise on a grid, drawn with integers alone.

use super::Error;
use super::arguments::{Arguments, number};
use super::claim::{Guarantee, State};
use super::gaussian::{DEFAULT_DELTA, NOTHING_TO_SCALE_TO};
use super::grid::{MOST_VARIANCE, discrete_gaussian};
use super::mechanism::Mechanism;
use super::noise::each_row;
use super::renyi;
use super::stage::{Parameters, Release, Stage, out_of_range};

/// Rounds every coordinate to a grid and adds an exact discrete Gaussian number of steps.
///
/// # Formula
/// `g (round(x / g) + z)`, `z` an integer with probability proportional to `e^{-z^2 / (2 s^2)}`. The grid `g` is a power of two,
/// about a millionth of the sensitivity `D`. Rounding moves a row by `g sqrt(d) / 2`: the noise is scaled to
/// `D + g sqrt d`, and its integer variance is rounded up.
///
/// # Guarantee
/// `rho`-zCDP with `rho = (D + g sqrt d)^2 / (2 sigma^2)`, replace-one; `(epsilon, delta)` by the minimised conversion, which
/// asks for a little more noise than the continuous curve. The low bits tell nothing more; the time of a draw may.
///
/// # Source
/// Canonne, Kamath and Steinke 2020, theorem 7.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DiscreteGaussian {
    /// The epsilon of one release.
    pub epsilon: f64,
    /// Its delta.
    pub delta: f64,
}

impl DiscreteGaussian {
    pub(super) fn read(arguments: &mut Arguments<'_>) -> Self {
        let epsilon = arguments.number("epsilon", "8");
        Self { epsilon, delta: arguments.optional_number("delta").unwrap_or(DEFAULT_DELTA) }
    }
}

impl Parameters for DiscreteGaussian {
    fn arguments(&self) -> Vec<(&'static str, String)> {
        vec![("epsilon", number(self.epsilon)), ("delta", number(self.delta))]
    }

    fn check(&self) -> Vec<(&'static str, String)> {
        let epsilon = out_of_range("epsilon", self.epsilon, 1e-3, 1e4);
        epsilon.into_iter().chain(out_of_range("delta", self.delta, 1e-15, 0.5)).collect()
    }

    fn build(&self, before: &State) -> Result<Box<dyn Stage>, String> {
        let sensitivity = before.sensitivity.as_ref().ok_or_else(|| {
            // There is no sigma to give instead.
            NOTHING_TO_SCALE_TO.trim_end_matches(", or give `sigma`").to_owned()
        })?;
        let rho = renyi::rho(self.epsilon, self.delta);
        Ok(Box::new(OnGrid { rho, delta: self.delta, sensitivity: sensitivity.l2 }))
    }
}

/// The grid for noise of about `sigma` on rows of this sensitivity: steps of about a millionth of the sensitivity, never so
/// fine that the noise has more than 2^24 of them.
pub(super) fn step(sensitivity: f64, sigma: f64) -> f64 {
    let finest = (sensitivity * 2_f64.powi(-20)).max(sigma * 2_f64.powi(-24));
    2_f64.powi(finest.log2().ceil() as i32)
}

/// [`DiscreteGaussian`] with its noise settled, up to the dimension.
#[derive(Debug)]
struct OnGrid {
    rho: f64,
    delta: f64,
    /// In the L2 norm.
    sensitivity: f64,
}

impl OnGrid {
    /// The grid, and the variance in its steps.
    fn noise(&self, dim: usize) -> (f64, u64) {
        let sigma = |sensitivity: f64| sensitivity / (2.0 * self.rho).sqrt();
        let g = step(self.sensitivity, sigma(self.sensitivity));
        let variance = (sigma(self.sensitivity + g * (dim as f64).sqrt()) / g).powi(2).ceil();
        (g, (variance as u64).clamp(1, MOST_VARIANCE))
    }
}

impl Stage for OnGrid {
    fn name(&self) -> &'static str {
        "discrete_gaussian"
    }

    fn apply(&self, mut release: Release, rng: &mut dyn rand::Rng) -> Result<Release, Error> {
        let dim = release.vectors.dim();
        let (g, variance) = self.noise(dim);
        let wanted = ((self.sensitivity + g * (dim as f64).sqrt()) / g).powi(2) / (2.0 * self.rho);
        if wanted > MOST_VARIANCE as f64 {
            return Err(Error::Input(format!(
                "`discrete_gaussian` would need noise of more than 2^26 steps for rows of {dim} coordinates; ask for a larger epsilon"
            )));
        }
        each_row(&mut release, rng, |row, noise| {
            for v in row {
                let steps = (f64::from(*v) / g).round() as i128 + discrete_gaussian(variance, noise);
                // The one rounding after the draw is a function of the integer alone.
                *v = (steps as f64 * g) as f32;
            }
        });
        Ok(release)
    }

    fn guarantee(&self, before: &State) -> State {
        let sigma = before.dim.map(|d| {
            let (g, variance) = self.noise(d);
            g * (variance as f64).sqrt()
        });
        let (mut after, _) = before.clone().noised(sigma, false);
        let rho = self.rho;
        after.earn(Guarantee::Zcdp { rho }, Some(Mechanism::DiscreteGaussian { rho }), false, before.members);
        after.delta = Some(self.delta);
        after
    }
}

#[cfg(test)]
mod tests {
    use super::super::law::{CRITICAL, DIMS, copies, distance, minus, released};
    use super::super::special::log_ndtr;
    use crate::protect::Pipeline;

    const STAGE: &str = "clip(l2=1) | discrete_gaussian(epsilon=8, delta=1e-5)";

    /// Kolmogorov-Smirnov at level 1e-6 for all coordinates of all rows.
    #[test]
    fn releases_lie_on_the_grid_and_follow_their_law() {
        for dim in DIMS {
            let clean = copies(8000 / dim, dim);
            let pipeline = Pipeline::parse(STAGE).expect("valid");
            let sigma = pipeline.noise_at(dim).expect("a dimension").sigma_per_coordinate;
            let y = released(STAGE, &clean, 1);
            // Sensitivity 2: steps of 2^-19, which single precision holds up to 32.
            assert!(y.values().iter().all(|&v| (f64::from(v) * 2_f64.powi(19)).fract() == 0.0));
            let clipped = released("clip(l2=1)", &clean, 1);
            let draws = minus(y.values(), clipped.values()).into_iter().map(|v| f64::from(v) / sigma).collect();
            let d = distance(draws, |x| log_ndtr(x).exp());
            assert!(d < CRITICAL, "{dim}: {d}");
        }
    }

    #[test]
    fn the_grid_costs_a_little_noise_and_no_promise() {
        let claim = Pipeline::parse(STAGE).expect("valid").claim_at(384);
        assert_eq!(claim.kind(), "zcdp");
        let epsilon = claim.epsilon(1e-5).expect("a claim");
        assert!((epsilon - 8.0).abs() < 1e-6, "{epsilon}");
        let sigma = claim.sigma().expect("a dimension");
        // The continuous mechanism needs 1.200458.
        assert!(sigma > 1.200_458 && sigma < 1.33, "{sigma}");
        assert!(claim.clone().after(4).epsilon(1e-5).expect("a claim") < 32.0);
    }
}
