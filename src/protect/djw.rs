//! `djw`: a point of a sphere on the row's side, more often than not.

use super::Error;
use super::arguments::{Arguments, number};
use super::claim::{Guarantee, State};
use super::mechanism::Mechanism;
use super::noise::{direction, each_row, uniform};
use super::stage::{Parameters, Release, Stage, out_of_range};
use statrs::function::gamma::ln_gamma;

/// Releases a point of a sphere of radius `B` that lies on the row's side with odds `e^epsilon`.
///
/// # Formula
/// `v = r x/|x|` with probability `1/2 + |x|/(2 r)`, else its opposite, `r` the bound of the domain; the released point is
/// even over the half of the sphere on the side of `v` with probability `e^epsilon / (1 + e^epsilon)`, else over the other.
/// `B = r coth(epsilon / 2) sqrt(pi) Gamma((d+1)/2) / Gamma(d/2)` makes it unbiased.
///
/// # Guarantee
/// Pure: `epsilon`. One bit about the row: nothing is gained from an epsilon much above 1.
///
/// # Source
/// Duchi, Jordan and Wainwright 2018.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Djw {
    /// Of one release.
    pub epsilon: f64,
}

/// Radius of the sphere for rows of norm at most 1.
fn radius(dim: usize, epsilon: f64) -> f64 {
    let d = dim as f64;
    let ratio = ln_gamma(0.5 * (d + 1.0)) - ln_gamma(0.5 * d) + ln_gamma(0.5);
    ratio.exp() / (0.5 * epsilon).tanh()
}

impl Djw {
    pub(super) fn read(arguments: &mut Arguments<'_>) -> Self {
        Self { epsilon: arguments.number("epsilon", "8") }
    }
}

impl Parameters for Djw {
    fn arguments(&self) -> Vec<(&'static str, String)> {
        vec![("epsilon", number(self.epsilon))]
    }

    fn check(&self) -> Vec<(&'static str, String)> {
        out_of_range("epsilon", self.epsilon, 1e-6, 1e3).into_iter().collect()
    }

    fn build(&self, before: &State) -> Result<Box<dyn Stage>, String> {
        let bound = before.domain.radius();
        let bound = bound.ok_or("needs rows of bounded length; put `clip(l2=1)` or `normalize` before it")?;
        Ok(Box::new(HalfSphere { epsilon: self.epsilon, bound }))
    }
}

/// [`Djw`] with its bound settled.
#[derive(Debug)]
struct HalfSphere {
    epsilon: f64,
    bound: f64,
}

impl Stage for HalfSphere {
    fn name(&self) -> &'static str {
        "djw"
    }

    fn apply(&self, mut release: Release, rng: &mut dyn rand::Rng) -> Result<Release, Error> {
        let b = self.bound * radius(release.vectors.dim(), self.epsilon);
        let truth = 1.0 / (1.0 + (-self.epsilon).exp());
        each_row(&mut release, rng, |row, noise| {
            let length = super::clip::norm(row);
            let forward = uniform(noise) < 0.5 + 0.5 * length / self.bound;
            let told = uniform(noise) < truth;
            let z = direction(row.len(), noise);
            // A row without a direction gets an even one: any side is as good.
            let along: f64 = z.iter().zip(&*row).map(|(z, &v)| z * f64::from(v)).sum();
            let sign = if (along >= 0.0) == (forward == told) { b } else { -b };
            row.iter_mut().zip(z).for_each(|(v, z)| *v = (sign * z) as f32);
        });
        Ok(release)
    }

    fn guarantee(&self, before: &State) -> State {
        let epsilon = self.epsilon;
        let sigma = before.dim.map(|d| {
            let b = self.bound * radius(d, epsilon);
            ((b * b - self.bound * self.bound).max(0.0) / d as f64).sqrt()
        });
        let (mut after, _) = before.clone().noised(sigma, false);
        // The noise depends on the row: neighbours do not stay as far apart as they were.
        after.sensitivity = None;
        after.earn(Guarantee::Pure { epsilon }, Some(Mechanism::HalfSphere { epsilon }), false, before.members);
        after
    }
}

#[cfg(test)]
mod tests {
    use super::super::law::{CRITICAL, DIMS, copies, distance, dot, released};
    use super::super::special::log_cap_share;
    use super::*;

    #[test]
    fn the_radius_matches_its_published_values() {
        for (dim, epsilon, expected) in [
            (2, 1.0, 3.399_130),
            (2, 4.0, 1.629_410),
            (2, 8.0, 1.571_851),
            (384, 1.0, 53.111_763),
            (384, 4.0, 25.459_704),
            (384, 8.0, 24.560_329),
        ] {
            let got = radius(dim, epsilon);
            assert!((got / expected - 1.0).abs() < 5e-7, "{dim} {epsilon}: {got}");
        }
    }

    /// Five standard errors for the share on the row's side; Kolmogorov-Smirnov at level 1e-6 for the height.
    #[test]
    fn the_rows_side_is_chosen_with_its_odds() {
        for dim in DIMS {
            let clean = copies(3000, dim);
            let y = released("normalize | djw(epsilon=1)", &clean, 1);
            let b = radius(dim, 1.0);
            let heights: Vec<f64> = y.rows().map(|row| dot(row, clean.row(0)) / b).collect();
            let share = heights.iter().filter(|&&h| h > 0.0).count() as f64 / 3000.0;
            let truth = 1_f64.exp() / (1.0 + 1_f64.exp());
            assert!((share - truth).abs() < 5.0 * (truth * (1.0 - truth) / 3000.0).sqrt(), "{dim}: {share}");
            let magnitudes = heights.into_iter().map(f64::abs).collect();
            let d = distance(magnitudes, |h| 1.0 - 2.0 * log_cap_share(dim, h).exp());
            assert!(d < CRITICAL, "{dim}: {d}");
        }
    }
}
