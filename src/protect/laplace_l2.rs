//! `laplace_l2`: noise of exponential length in an even direction; metric privacy.

use super::Error;
use super::arguments::{Arguments, number};
use super::claim::{Guarantee, State};
use super::mechanism::Mechanism;
use super::noise::{direction, each_row};
use super::stage::{Parameters, Release, Stage, out_of_range};
use rand_distr::{Distribution, Gamma};

/// Adds noise whose density falls exponentially with its length.
///
/// # Formula
/// `x + r u`, `u` even over the sphere, `r ~ Gamma(d)` of rate `rate`: density `e^{-rate |z|}`, mean length `d / rate`.
///
/// # Guarantee
/// Metric: `rate` times the L2 distance of two inputs. On rows of a bounded domain pure: `rate` times the sensitivity. On
/// rows of any length no epsilon.
///
/// # Source
/// Feyisetan, Balle, Drake and Diethe 2020; Chatzikokolakis et al. 2013.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LaplaceL2 {
    /// Epsilon for each unit of distance.
    pub rate: f64,
}

impl LaplaceL2 {
    pub(super) fn read(arguments: &mut Arguments<'_>) -> Self {
        Self { rate: arguments.number("rate", "98") }
    }
}

/// `r u` for a mechanism of this rate: a length, and a direction in `f64`.
pub(super) fn exponential_noise(dim: usize, rate: f64, noise: &mut rand_chacha::ChaCha20Rng) -> (f64, Vec<f64>) {
    let length = Gamma::new(dim as f64, 1.0).expect("a positive number of coordinates");
    let r: f64 = length.sample(noise) / rate;
    (r, direction(dim, noise))
}

/// Standard deviation of each coordinate: `E r^2 / d = (d + 1) / rate^2`.
pub(super) fn exponential_sigma(dim: usize, rate: f64) -> f64 {
    (dim as f64 + 1.0).sqrt() / rate
}

impl Parameters for LaplaceL2 {
    fn arguments(&self) -> Vec<(&'static str, String)> {
        vec![("rate", number(self.rate))]
    }

    fn check(&self) -> Vec<(&'static str, String)> {
        out_of_range("rate", self.rate, 1e-9, 1e9).into_iter().collect()
    }

    fn build(&self, _: &State) -> Result<Box<dyn Stage>, String> {
        Ok(Box::new(*self))
    }
}

impl Stage for LaplaceL2 {
    fn name(&self) -> &'static str {
        "laplace_l2"
    }

    fn apply(&self, mut release: Release, rng: &mut dyn rand::Rng) -> Result<Release, Error> {
        each_row(&mut release, rng, |row, noise| {
            let (r, u) = exponential_noise(row.len(), self.rate, noise);
            row.iter_mut().zip(u).for_each(|(v, u)| *v = (f64::from(*v) + r * u) as f32);
        });
        Ok(release)
    }

    fn guarantee(&self, before: &State) -> State {
        let rate = self.rate;
        let (mut after, _) = before.clone().noised(before.dim.map(|d| exponential_sigma(d, rate)), false);
        let (guarantee, mechanism) = match &before.sensitivity {
            Some(sensitivity) => (
                Guarantee::Pure { epsilon: rate * sensitivity.l2 },
                Some(Mechanism::LaplaceL2 { rate, radius: 0.5 * sensitivity.l2 }),
            ),
            None => (Guarantee::Metric { epsilon: rate, distance: "L2 distance".to_owned() }, None),
        };
        after.earn(guarantee, mechanism, true, before.members);
        after
    }
}

#[cfg(test)]
mod tests {
    use super::super::clip::norm;
    use super::super::law::{CRITICAL, DIMS, copies, distance, dot, minus, released};
    use super::super::special::log_cap_share;
    use crate::protect::Pipeline;
    use statrs::distribution::{ContinuousCDF, Gamma};

    /// Kolmogorov-Smirnov at level 1e-6 each: lengths are Gamma, the cosine to any direction that of an even one.
    #[test]
    fn lengths_are_gamma_and_directions_even() {
        for dim in DIMS {
            let clean = copies(3000, dim);
            let y = released("laplace_l2(rate=10)", &clean, 1);
            let noise: Vec<Vec<f32>> = y.rows().map(|row| minus(row, clean.row(0))).collect();
            let law = Gamma::new(dim as f64, 10.0).expect("a law");
            let d = distance(noise.iter().map(|z| norm(z)).collect(), |r| law.cdf(r));
            assert!(d < CRITICAL, "length, {dim}: {d}");
            let cosine = |z: &Vec<f32>| dot(z, clean.row(0)) / norm(z);
            let d = distance(noise.iter().map(cosine).collect(), |c| log_cap_share(dim, -c).exp());
            assert!(d < CRITICAL, "direction, {dim}: {d}");
        }
    }

    #[test]
    fn the_metric_becomes_an_epsilon_only_on_a_bounded_domain() {
        let claim = |text: &str| Pipeline::parse(text).expect("valid").claim_at(384);
        assert_eq!(claim("clip(l2=1) | laplace_l2(rate=98)").epsilon(1e-5), Some(196.0));
        let open = claim("laplace_l2(rate=98)");
        assert_eq!((open.kind(), open.epsilon(1e-5)), ("metric", None));
        assert!(open.note().contains("no epsilon"), "{}", open.note());
        let noise = Pipeline::parse("clip(l2=1) | laplace_l2(rate=98)").expect("valid").noise_at(384).expect("noise");
        assert!((noise.expected_cosine(384, 1) - 0.247_28).abs() < 5e-4, "{}", noise.expected_cosine(384, 1));
    }
}
