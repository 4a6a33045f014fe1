//! `privunit_g`: the cap mechanism with normal coordinates.

use super::Error;
use super::arguments::{Arguments, number};
use super::claim::State;
use super::noise::at_least;
use super::privunit::{Cap, earned};
use super::stage::{Parameters, Release, Stage, out_of_range};
use super::vmf::on_the_sphere;

/// The normal form of [`super::PrivUnit`]: the part along the row is normal and cut at a height, the rest is normal.
///
/// # Formula
/// `z = (a x + n) / m`: `a ~ N(0, 1/d)`, above `h` with probability `p` and below it else; `n ~ N(0, I/d)` orthogonal to `x`;
/// `m = E a`, `h = m` at the best `p`.
///
/// # Guarantee
/// Pure: `epsilon`. Unbiased.
///
/// # Errors
/// Rows of one coordinate.
///
/// # Source
/// Asi, Feldman and Talwar 2022.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PrivUnitG {
    /// Of one release.
    pub epsilon: f64,
}

impl PrivUnitG {
    pub(super) fn read(arguments: &mut Arguments<'_>) -> Self {
        Self { epsilon: arguments.number("epsilon", "16") }
    }
}

impl Parameters for PrivUnitG {
    fn arguments(&self) -> Vec<(&'static str, String)> {
        vec![("epsilon", number(self.epsilon))]
    }

    fn check(&self) -> Vec<(&'static str, String)> {
        out_of_range("epsilon", self.epsilon, 1e-4, 1e4).into_iter().collect()
    }

    fn build(&self, before: &State) -> Result<Box<dyn Stage>, String> {
        on_the_sphere(before)?;
        Ok(Box::new(*self))
    }
}

impl Stage for PrivUnitG {
    fn name(&self) -> &'static str {
        "privunit_g"
    }

    fn apply(&self, mut release: Release, rng: &mut dyn rand::Rng) -> Result<Release, Error> {
        at_least(self.name(), 2, release.vectors.dim())?;
        Cap::best(release.vectors.dim(), self.epsilon, true).apply(&mut release, rng);
        Ok(release)
    }

    fn guarantee(&self, before: &State) -> State {
        earned(self.epsilon, true, before)
    }
}

#[cfg(test)]
mod tests {
    use super::super::law::{CRITICAL, DIMS, copies, distance, dot, released};
    use super::super::special::log_ndtr;
    use super::*;

    /// Kolmogorov-Smirnov at level 1e-6: the part along the row is a normal law cut in two, the rest is normal.
    #[test]
    fn both_parts_follow_their_normal_laws() {
        for dim in DIMS {
            let clean = copies(2000, dim);
            let cap = Cap::best(dim, 8.0, true);
            let y = released("normalize | privunit_g(epsilon=8)", &clean, 1);
            let root = (dim as f64).sqrt();
            let along: Vec<f64> = y.rows().map(|row| cap.mean * root * dot(row, clean.row(0))).collect();
            let (h, p, q) = (cap.height * root, cap.p(), cap.q());
            let law = |a: f64| {
                let below = log_ndtr(a).exp();
                if a < h { (1.0 - p) * below / (1.0 - q) } else { 1.0 - p * log_ndtr(-a).exp() / q }
            };
            let d = distance(along, law);
            assert!(d < CRITICAL, "along, {dim}: {d}");
            let mut probe = vec![0.0_f32; dim];
            (probe[0], probe[1]) = (clean.row(0)[1], -clean.row(0)[0]);
            let length = super::super::clip::norm(&probe);
            let beside = y.rows().map(|row| cap.mean * root * dot(row, &probe) / length).collect();
            let d = distance(beside, |n| log_ndtr(n).exp());
            assert!(d < CRITICAL, "beside, {dim}: {d}");
        }
    }
}
