//! `mahalanobis`: exponential noise that follows the shape of public vectors.

use super::Error;
use super::arguments::{Arguments, number};
use super::center::same_dim;
use super::claim::{Guarantee, State};
use super::laplace_l2::{exponential_noise, exponential_sigma};
use super::mechanism::Mechanism;
use super::noise::each_row;
use super::public::{Moments, Public};
use super::stage::{Parameters, Release, Stage, out_of_range};

/// Adds noise of exponential length, longer in the directions in which public vectors vary more.
///
/// # Formula
/// `x + r A^{1/2} u`, `A = lambda S + (1 - lambda) I`, `S` the covariance of `public` scaled to a mean eigenvalue of 1,
/// `r ~ Gamma(d)` of rate `rate`, `u` even over the sphere.
///
/// # Guarantee
/// Metric: `rate` times the distance in the norm of `A^-1`, which is at most the L2 distance over `sqrt(1 - lambda)`. On
/// rows of a bounded domain pure: `rate` times the sensitivity over `sqrt(1 - lambda)`. Without `public` the covariance is
/// the rows' own, and no guarantee holds.
///
/// # Source
/// Xu, Aggarwal, Feyisetan and Teissier 2020.
#[derive(Debug, Clone, PartialEq)]
pub struct Mahalanobis {
    /// Epsilon for each unit of distance in the norm of `A^-1`.
    pub rate: f64,
    /// How much of the shape is taken over, below 1.
    pub lambda: f64,
    /// Whose shape; the rows' own without it.
    pub public: Option<Public>,
}

impl Mahalanobis {
    pub(super) fn read(arguments: &mut Arguments<'_>) -> Self {
        let rate = arguments.number("rate", "98");
        let lambda = arguments.optional_number("lambda").unwrap_or(0.5);
        Self { rate, lambda, public: Public::read(arguments) }
    }
}

impl Parameters for Mahalanobis {
    fn arguments(&self) -> Vec<(&'static str, String)> {
        let own = [("rate", number(self.rate)), ("lambda", number(self.lambda))];
        own.into_iter().chain(self.public.iter().flat_map(Public::arguments)).collect()
    }

    fn check(&self) -> Vec<(&'static str, String)> {
        let lambda = (!(0.0..=0.999).contains(&self.lambda))
            .then(|| ("lambda", format!("must lie in 0 ..= 0.999, got {}", number(self.lambda))));
        out_of_range("rate", self.rate, 1e-9, 1e9).into_iter().chain(lambda).collect()
    }

    fn build(&self, _: &State) -> Result<Box<dyn Stage>, String> {
        Ok(Box::new(self.clone()))
    }
}

impl Stage for Mahalanobis {
    fn name(&self) -> &'static str {
        "mahalanobis"
    }

    fn apply(&self, mut release: Release, rng: &mut dyn rand::Rng) -> Result<Release, Error> {
        let d = release.vectors.dim();
        same_dim(self.name(), self.public.as_ref(), d)?;
        let own = self.public.is_none().then(|| Moments::of(&release.vectors));
        let Some(moments) = self.public.as_ref().map(Public::moments).or(own.as_ref()) else { return Ok(release) };
        let axes = moments.axes();
        let unit = axes.variances.iter().sum::<f64>() / d as f64;
        let shape = |variance: f64| if unit > 0.0 { variance / unit } else { 1.0 };
        let roots: Vec<f64> =
            axes.variances.iter().map(|&v| (self.lambda * shape(v) + 1.0 - self.lambda).sqrt()).collect();
        each_row(&mut release, rng, |row, noise| {
            // An even direction is even in any basis: drawn in that of the axes, it is turned once.
            let (r, u) = exponential_noise(d, self.rate, noise);
            let mut z = vec![0.0; d];
            for ((u, root), axis) in u.iter().zip(&roots).zip(axes.directions.chunks_exact(d)) {
                z.iter_mut().zip(axis).for_each(|(z, a)| *z += r * u * root * a);
            }
            row.iter_mut().zip(z).for_each(|(v, z)| *v = (f64::from(*v) + z) as f32);
        });
        Ok(release)
    }

    fn guarantee(&self, before: &State) -> State {
        let (mut after, _) = before.clone().noised(before.dim.map(|d| exponential_sigma(d, self.rate)), false);
        let stretched = self.rate / (1.0 - self.lambda).sqrt();
        let (guarantee, mechanism) = match &before.sensitivity {
            Some(sensitivity) => {
                let epsilon = stretched * sensitivity.l2;
                (Guarantee::Pure { epsilon }, Some(Mechanism::Any { epsilon }))
            }
            None => (Guarantee::Metric { epsilon: stretched, distance: "L2 distance, at most".to_owned() }, None),
        };
        after.earn(guarantee, mechanism, true, before.members);
        if self.public.is_none() {
            after.taint("mahalanobis", "covariance");
        }
        after
    }
}

#[cfg(test)]
mod tests {
    use super::super::law::{CRITICAL, DIMS, copies, distance, minus, released};
    use super::*;
    use crate::data::vectors;
    use crate::encode::Embeddings;
    use crate::protect::Pipeline;
    use statrs::distribution::ContinuousCDF;

    /// Kolmogorov-Smirnov at level 1e-6: the noise's length in the norm of `A^-1` is Gamma.
    #[test]
    fn lengths_are_gamma_in_the_public_norm() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for dim in DIMS {
            // Independent coordinates, variance 4 on every second one and 1 on the others: S = 1.6 and 0.4.
            let n = 4 * dim;
            let row = |i: usize, j: usize| {
                if i / 4 == j {
                    (if j.is_multiple_of(2) { 2.0 } else { 1.0 }) * if i.is_multiple_of(2) { 1.0 } else { -1.0 }
                } else {
                    0.0
                }
            };
            let values = (0..n * dim).map(|at| row(at / dim, at % dim)).collect();
            let path = folder.path().join(format!("{dim}.npy"));
            vectors::write(&path, &Embeddings::new(values, dim).expect("finite"), None).expect("writable");
            let clean = copies(1000, dim);
            let y = released(&format!("mahalanobis(rate=10, lambda=0.5, public={})", path.display()), &clean, 1);
            let inverse = |j: usize| if j.is_multiple_of(2) { 1.0 / 1.3 } else { 1.0 / 0.7 };
            let length = |row: &[f32]| {
                let z = minus(row, clean.row(0));
                z.iter().enumerate().map(|(j, &v)| f64::from(v).powi(2) * inverse(j)).sum::<f64>().sqrt()
            };
            let law = statrs::distribution::Gamma::new(dim as f64, 10.0).expect("a law");
            let d = distance(y.rows().map(length).collect(), |r| law.cdf(r));
            assert!(d < CRITICAL, "{dim}: {d}");
        }
    }

    #[test]
    fn the_rows_own_shape_costs_the_guarantee() {
        let claim = Pipeline::parse("clip(l2=1) | mahalanobis(rate=10, lambda=0.75)").expect("valid").claim_at(384);
        assert_eq!(claim.kind(), "none");
        assert!(claim.note().contains("learned its covariance"), "{}", claim.note());
        let state = Mahalanobis { rate: 10.0, lambda: 0.75, public: None };
        let before = Pipeline::parse("clip(l2=1)").expect("valid").state();
        assert_eq!(state.guarantee(&before).guarantee, Guarantee::Pure { epsilon: 40.0 });
    }
}
