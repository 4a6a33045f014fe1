//! `vmf`: a random direction around every unit row.

use super::Error;
use super::arguments::{Arguments, number};
use super::claim::{Domain, Guarantee, State};
use super::directional::{Angles, Law};
use super::mechanism::Mechanism;
use super::noise::{at_least, each_row, turned, uniform};
use super::special::bessel_ratio;
use super::stage::{Parameters, Release, Stage, out_of_range};

/// Replaces every unit row by a von Mises-Fisher direction around it.
///
/// # Formula
/// Density `e^{kappa x.y}` on the sphere; mean cosine `I_{d/2}(kappa) / I_{d/2-1}(kappa)`. The angle comes from a table of
/// 20 000 cells, which is research-grade: its steps are not hidden.
///
/// # Guarantee
/// `kappa` times the L2 distance of two unit rows, so pure `2 kappa`; what the worst pair really costs at a delta is printed
/// beside it.
///
/// # Errors
/// Rows of one coordinate.
///
/// # Source
/// Weggenmann and Kerschbaum 2021.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Vmf {
    /// The concentration.
    pub kappa: f64,
}

impl Vmf {
    pub(super) fn read(arguments: &mut Arguments<'_>) -> Self {
        Self { kappa: arguments.number("kappa", "100") }
    }
}

impl Parameters for Vmf {
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

/// Directional noise is defined for unit rows only.
pub(super) fn on_the_sphere(before: &State) -> Result<(), String> {
    match before.domain {
        Domain::Sphere => Ok(()),
        _ => Err("is defined for rows of length 1; put `normalize` before it".to_owned()),
    }
}

impl Stage for Vmf {
    fn name(&self) -> &'static str {
        "vmf"
    }

    fn apply(&self, mut release: Release, rng: &mut dyn rand::Rng) -> Result<Release, Error> {
        let dim = release.vectors.dim();
        at_least(self.name(), 2, dim)?;
        let angles = Angles::new(dim, Law::Vmf { kappa: self.kappa });
        each_row(&mut release, rng, |row, noise| {
            let cosine = angles.quantile(uniform(noise)).cos();
            let y = turned(row, cosine, noise);
            row.iter_mut().zip(y).for_each(|(v, y)| *v = y as f32);
        });
        Ok(release)
    }

    fn guarantee(&self, before: &State) -> State {
        let kappa = self.kappa;
        let cosine = before.dim.filter(|&d| d >= 2).map(|d| bessel_ratio(d, kappa));
        let mut after = before.clone().redirected(cosine);
        after.earn(Guarantee::Pure { epsilon: 2.0 * kappa }, Some(Mechanism::Vmf { kappa }), true, before.members);
        after
    }
}

#[cfg(test)]
mod tests {
    use super::super::law::{CRITICAL, DIMS, copies, distance, dot, mean, released};
    use super::super::special::log_cap_share;
    use super::*;
    use crate::protect::Pipeline;

    /// Kolmogorov-Smirnov at level 1e-6 for what is orthogonal to the row; five standard errors for the mean cosine.
    #[test]
    fn cosines_follow_the_bessel_ratio_and_the_rest_is_even() {
        for dim in DIMS {
            let clean = copies(3000, dim);
            let y = released("normalize | vmf(kappa=50)", &clean, 1);
            let cosines: Vec<f64> = y.rows().map(|row| dot(row, clean.row(0))).collect();
            let (mean, error) = mean(&cosines);
            let expected = bessel_ratio(dim, 50.0);
            assert!((mean - expected).abs() < 5.0 * error, "{dim}: {mean} {error} {expected}");
            // One coordinate of a unit vector orthogonal to the row is a coordinate of a sphere of one dimension less.
            if dim > 2 {
                let mut probe = vec![0.0_f32; dim];
                (probe[0], probe[1]) = (clean.row(0)[1], -clean.row(0)[0]);
                let length = super::super::clip::norm(&probe);
                let side = |(row, c): (&[f32], &f64)| dot(row, &probe) / length / (1.0 - c * c).sqrt();
                let d = distance(y.rows().zip(&cosines).map(side).collect(), |s| log_cap_share(dim - 1, -s).exp());
                assert!(d < CRITICAL, "{dim}: {d}");
            }
        }
    }

    #[test]
    fn directions_are_defined_for_unit_rows_and_cost_twice_their_concentration() {
        let why = Pipeline::parse("clip(l2=1) | vmf(kappa=100)").expect_err("not on the sphere").to_string();
        assert!(why.contains("put `normalize` before it"), "{why}");
        let claim = Pipeline::parse("normalize | vmf(kappa=100)").expect("valid").claim_at(384);
        assert_eq!(claim.epsilon(1e-5), Some(200.0));
        assert!((claim.worst_pair_epsilon(1e-5, 384).expect("a curve") - 85.805).abs() < 1e-2);
        let noise = Pipeline::parse("normalize | vmf(kappa=100)").expect("valid").noise_at(384).expect("a model");
        assert!(noise.rescaled && (noise.expected_cosine(384, 1) - 0.244_873_2).abs() < 1e-6);
        let one = copies(1, 1);
        let pipeline = Pipeline::parse("normalize | vmf(kappa=1)").expect("valid");
        let error = pipeline.release(&one, None, &mut crate::seed::stream(1, "", "")).expect_err("a line");
        assert!(error.to_string().contains("at least 2 coordinates"), "{error}");
    }

    #[test]
    fn no_release_is_undefined_at_any_concentration() {
        for kappa in [1e-6, 1.0, 1e5] {
            let y = released(&format!("normalize | vmf(kappa={kappa})"), &copies(20, 1536), 1);
            assert!(y.values().iter().all(|v| v.is_finite()));
        }
    }
}
