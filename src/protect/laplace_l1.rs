//! `laplace_l1`: independent Laplace noise on every coordinate.

use super::Error;
use super::arguments::{Arguments, number};
use super::claim::{Guarantee, State};
use super::gaussian::NOTHING_TO_SCALE_TO;
use super::mechanism::Mechanism;
use super::noise::each_row;
use super::stage::{Parameters, Release, Stage, out_of_range};
use rand_distr::{Distribution, Exp1};

/// Adds independent Laplace noise to every coordinate.
///
/// # Formula
/// `x + b l`, `l` of density `e^{-|l|} / 2`, drawn as the difference of two exponential numbers. On a ball of the L2
/// sensitivity `D` the L1 sensitivity is `D sqrt d`: `b = D sqrt(d) / epsilon`.
///
/// # Guarantee
/// Pure: `epsilon`-DP for one record (not for one coordinate), replace-one.
///
/// # Source
/// Dwork, McSherry, Nissim and Smith 2006. Differs: floating point, not hardened against attacks on the low bits
/// (Mironov 2012); `protect --secure` draws on a grid.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LaplaceL1 {
    /// Of one release of one record.
    pub epsilon: f64,
}

impl LaplaceL1 {
    pub(super) fn read(arguments: &mut Arguments<'_>) -> Self {
        Self { epsilon: arguments.number("epsilon", "8") }
    }
}

impl Parameters for LaplaceL1 {
    fn arguments(&self) -> Vec<(&'static str, String)> {
        vec![("epsilon", number(self.epsilon))]
    }

    fn check(&self) -> Vec<(&'static str, String)> {
        out_of_range("epsilon", self.epsilon, 1e-5, 1e6).into_iter().collect()
    }

    fn build(&self, before: &State) -> Result<Box<dyn Stage>, String> {
        let sensitivity = before.sensitivity.as_ref().ok_or_else(|| {
            // There is no sigma to give instead.
            NOTHING_TO_SCALE_TO.trim_end_matches(", or give `sigma`").to_owned()
        })?;
        Ok(Box::new(LaplaceNoise { epsilon: self.epsilon, sensitivity: sensitivity.l2 }))
    }
}

/// [`LaplaceL1`] with its sensitivity settled.
#[derive(Debug)]
struct LaplaceNoise {
    epsilon: f64,
    /// In the L2 norm.
    sensitivity: f64,
}

impl LaplaceNoise {
    fn scale(&self, dim: usize) -> f64 {
        self.sensitivity * (dim as f64).sqrt() / self.epsilon
    }
}

impl Stage for LaplaceNoise {
    fn name(&self) -> &'static str {
        "laplace_l1"
    }

    fn apply(&self, mut release: Release, rng: &mut dyn rand::Rng) -> Result<Release, Error> {
        let b = self.scale(release.vectors.dim());
        each_row(&mut release, rng, |row, noise| {
            for v in row {
                let (up, down): (f64, f64) = (Exp1.sample(noise), Exp1.sample(noise));
                *v = (f64::from(*v) + b * (up - down)) as f32;
            }
        });
        Ok(release)
    }

    fn guarantee(&self, before: &State) -> State {
        let sigma = before.dim.map(|d| std::f64::consts::SQRT_2 * self.scale(d));
        let (mut after, _) = before.clone().noised(sigma, false);
        let epsilon = self.epsilon;
        after.earn(Guarantee::Pure { epsilon }, Some(Mechanism::LaplaceL1 { epsilon }), false, before.members);
        after
    }
}

#[cfg(test)]
mod tests {
    use super::super::law::{CRITICAL, DIMS, copies, distance, minus, released};
    use crate::protect::Pipeline;

    /// Kolmogorov-Smirnov at level 1e-6 for all coordinates of all rows; b = 2 sqrt(d) / 8.
    #[test]
    fn coordinates_follow_the_laplace_law_of_their_sensitivity() {
        for dim in DIMS {
            let clean = copies(60_000 / dim, dim);
            let y = released("clip(l2=1) | laplace_l1(epsilon=8)", &clean, 1);
            let clipped = released("clip(l2=1)", &clean, 1);
            let b = 2.0 * (dim as f64).sqrt() / 8.0;
            let draws = minus(y.values(), clipped.values()).into_iter().map(|v| f64::from(v) / b).collect();
            let d = distance(draws, |l| if l < 0.0 { 0.5 * l.exp() } else { 1.0 - 0.5 * (-l).exp() });
            assert!(d < CRITICAL, "{dim}: {d}");
        }
        let noise = Pipeline::parse("clip(l2=1) | laplace_l1(epsilon=8)").expect("valid").noise_at(384);
        let sigma = noise.expect("a dimension").sigma_per_coordinate;
        assert!((sigma - 2_f64.sqrt() * 2.0 * 384_f64.sqrt() / 8.0).abs() < 1e-12);
    }
}
