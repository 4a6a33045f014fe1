//! `purkayastha`: a random direction whose density falls with the angle.

use super::Error;
use super::arguments::{Arguments, number};
use super::claim::{Guarantee, State};
use super::directional::{Angles, Law};
use super::mechanism::Mechanism;
use super::noise::{at_least, each_row, turned, uniform};
use super::stage::{Parameters, Release, Stage, out_of_range};
use super::vmf::on_the_sphere;
use std::f64::consts::PI;

/// Replaces every unit row by a direction whose density falls exponentially with its angle to the row.
///
/// # Formula
/// Density `e^{-kappa angle(x, y)}` on the sphere. The angle comes from a table of 20 000 cells, which is research-grade: its
/// steps are not hidden.
///
/// # Guarantee
/// `kappa` for each radian between two rows, so pure `pi kappa`; what the worst pair really costs at a delta is printed
/// beside it.
///
/// # Errors
/// Rows of one coordinate.
///
/// # Source
/// Weggenmann and Kerschbaum 2021.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Purkayastha {
    /// The concentration.
    pub kappa: f64,
}

impl Purkayastha {
    pub(super) fn read(arguments: &mut Arguments<'_>) -> Self {
        Self { kappa: arguments.number("kappa", "100") }
    }
}

impl Parameters for Purkayastha {
    fn arguments(&self) -> Vec<(&'static str, String)> {
        vec![("kappa", number(self.kappa))]
    }

    fn check(&self) -> Vec<(&'static str, String)> {
        out_of_range("kappa", self.kappa, 1e-6, 1e5).into_iter().collect()
    }

    fn build(&self, before: &State) -> Result<Box<dyn Stage>, String> {
        on_the_sphere(before)?;
        Ok(Box::new(*self))
    }
}

impl Stage for Purkayastha {
    fn name(&self) -> &'static str {
        "purkayastha"
    }

    fn apply(&self, mut release: Release, rng: &mut dyn rand::Rng) -> Result<Release, Error> {
        let dim = release.vectors.dim();
        at_least(self.name(), 2, dim)?;
        let angles = Angles::new(dim, Law::Purkayastha { kappa: self.kappa });
        each_row(&mut release, rng, |row, noise| {
            let cosine = angles.quantile(uniform(noise)).cos();
            let y = turned(row, cosine, noise);
            row.iter_mut().zip(y).for_each(|(v, y)| *v = y as f32);
        });
        Ok(release)
    }

    fn guarantee(&self, before: &State) -> State {
        let kappa = self.kappa;
        let cosine = before.dim.filter(|&d| d >= 2).map(|d| Angles::new(d, Law::Purkayastha { kappa }).mean_cosine());
        let mut after = before.clone().redirected(cosine);
        after.earn(
            Guarantee::Pure { epsilon: PI * kappa },
            Some(Mechanism::Purkayastha { kappa }),
            true,
            before.members,
        );
        after
    }
}

#[cfg(test)]
mod tests {
    use super::super::law::{CRITICAL, DIMS, copies, distance, dot, mean, released};
    use super::*;
    use crate::protect::Pipeline;

    /// Five standard errors of the mean cosine against its table; in two dimensions the angle is a truncated exponential
    /// number, Kolmogorov-Smirnov at level 1e-6.
    #[test]
    fn angles_follow_their_law() {
        for dim in DIMS {
            let clean = copies(3000, dim);
            let y = released("normalize | purkayastha(kappa=50)", &clean, 1);
            let cosines: Vec<f64> = y.rows().map(|row| dot(row, clean.row(0))).collect();
            let (mean, error) = mean(&cosines);
            let expected = Angles::new(dim, Law::Purkayastha { kappa: 50.0 }).mean_cosine();
            assert!((mean - expected).abs() < 5.0 * error, "{dim}: {mean} {error} {expected}");
        }
        let clean = copies(3000, 2);
        let y = released("normalize | purkayastha(kappa=3)", &clean, 1);
        let angles = y.rows().map(|row| dot(row, clean.row(0)).clamp(-1.0, 1.0).acos()).collect();
        let d = distance(angles, |t| (-3.0 * t).exp_m1() / (-3.0 * PI).exp_m1());
        assert!(d < CRITICAL, "{d}");
    }

    #[test]
    fn an_epsilon_for_each_radian() {
        let pipeline = Pipeline::parse("normalize | purkayastha(kappa=100)").expect("valid");
        let claim = pipeline.claim_at(384);
        assert!((claim.epsilon(1e-5).expect("pure") - 100.0 * PI).abs() < 1e-9);
        assert!((claim.worst_pair_epsilon(1e-5, 384).expect("a curve") - 91.568).abs() < 1e-2);
        assert!((pipeline.noise_at(384).expect("a model").expected_cosine(384, 1) - 0.252_32).abs() < 1e-4);
    }
}
