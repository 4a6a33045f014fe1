//! `mask`: some coordinates are released, the others are zero.

use super::Error;
use super::arguments::{Arguments, number};
use super::claim::{Domain, State};
use super::stage::{Parameters, Release, Stage, out_of_range};
use crate::seed;

/// Sets all but a public random subset of the coordinates to zero.
///
/// # Formula
/// `floor(keep d)` coordinates, at least one, stay; which ones follows from `seed` alone.
///
/// # Guarantee
/// None: coordinates of an embedding are correlated, and a regression on those that stay gives most of the others back.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mask {
    /// The share of coordinates that stay.
    pub keep: f64,
    /// Names the subset; public.
    pub seed: u64,
}

impl Mask {
    pub(super) fn read(arguments: &mut Arguments<'_>) -> Self {
        let keep = arguments.number("keep", "0.5");
        Self { keep, seed: arguments.optional_count("seed").unwrap_or(1) }
    }
}

impl Parameters for Mask {
    fn arguments(&self) -> Vec<(&'static str, String)> {
        vec![("keep", number(self.keep)), ("seed", self.seed.to_string())]
    }

    fn check(&self) -> Vec<(&'static str, String)> {
        out_of_range("keep", self.keep, 1e-6, 1.0).into_iter().collect()
    }

    fn build(&self, _: &State) -> Result<Box<dyn Stage>, String> {
        Ok(Box::new(*self))
    }
}

impl Stage for Mask {
    fn name(&self) -> &'static str {
        "mask"
    }

    fn apply(&self, mut release: Release, _: &mut dyn rand::Rng) -> Result<Release, Error> {
        let dim = release.vectors.dim();
        let mut order: Vec<usize> = (0..dim).collect();
        let mut rng = seed::stream(self.seed, "mask", &format!("order of {dim} coordinates"));
        rand::seq::SliceRandom::shuffle(&mut order[..], &mut rng);
        let stay = ((self.keep * dim as f64).floor() as usize).clamp(1, dim);
        for row in release.vectors.values_mut().chunks_exact_mut(dim) {
            order[stay..].iter().for_each(|&i| row[i] = 0.0);
        }
        Ok(release)
    }

    fn guarantee(&self, before: &State) -> State {
        // A projection: no two rows come apart, and none grows.
        let mut after = before.clone();
        if before.domain == Domain::Sphere {
            after.domain = Domain::L2 { radius: 1.0 };
        }
        after.promises_nothing(
            "`mask`: dropping coordinates promises nothing: those that stay tell most of the others, which are correlated",
        );
        after
    }
}

#[cfg(test)]
mod tests {
    use super::super::law::{copies, released};

    #[test]
    fn the_same_coordinates_stay_in_every_row() {
        let clean = copies(5, 40);
        let masked = released("mask(keep=0.25, seed=7)", &clean, 1);
        let stays: Vec<usize> = (0..40).filter(|&i| masked.row(0)[i] != 0.0).collect();
        assert_eq!(stays.len(), 10);
        for row in masked.rows() {
            assert!((0..40).all(|i| row[i] == if stays.contains(&i) { clean.row(0)[i] } else { 0.0 }));
        }
        assert_ne!(masked, released("mask(keep=0.25, seed=8)", &clean, 1));
        assert_eq!(released("mask(keep=1)", &clean, 1), clean);
    }
}
