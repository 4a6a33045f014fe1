//! `normalize`: every row onto the unit sphere.

use super::Error;
use super::claim::{Domain, Sensitivity, State};
use super::clip::norm;
use super::stage::{Parameters, Release, Stage};
use rayon::prelude::*;

/// Scales every row to unit norm.
///
/// # Formula
/// `x / |x|`; the zero vector, which has no direction, becomes the public unit vector `e_1`.
///
/// # Guarantee
/// None of its own: it bounds what one record can do (sensitivity 2, replace-one) for the noise after it. After noise it
/// keeps the guarantee.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Normalize;

impl Parameters for Normalize {
    fn arguments(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    fn check(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    fn build(&self, _: &State) -> Result<Box<dyn Stage>, String> {
        Ok(Box::new(*self))
    }
}

impl Stage for Normalize {
    fn name(&self) -> &'static str {
        "normalize"
    }

    fn apply(&self, mut release: Release, _: &mut dyn rand::Rng) -> Result<Release, Error> {
        let dim = release.vectors.dim();
        release.vectors.values_mut().par_chunks_exact_mut(dim).for_each(|row| {
            let length = norm(row);
            if length == 0.0 {
                row.fill(0.0);
                row[0] = 1.0;
            } else {
                for v in row {
                    *v = (f64::from(*v) / length) as f32;
                }
            }
        });
        Ok(release)
    }

    fn guarantee(&self, before: &State) -> State {
        // The sphere is not reached by a contraction: a prototype's small sensitivity does not survive it.
        let mut after = before.clone().rescaled(Domain::Sphere);
        after.sensitivity = Some(Sensitivity { l2: 2.0, formula: "2".to_owned() });
        after
    }
}

#[cfg(test)]
mod tests {
    use crate::encode::Embeddings;

    #[test]
    fn the_zero_vector_becomes_a_public_one_and_tiny_rows_keep_their_direction() {
        let tiny = 1e-42_f32;
        let vectors = Embeddings::new(vec![0.0, 0.0, 3.0, 4.0, tiny, 0.0], 2).expect("a finite table");
        let release = super::super::Pipeline::parse("normalize")
            .and_then(|pipeline| pipeline.release(&vectors, None, &mut crate::seed::stream(1, "", "")))
            .expect("finite rows");
        assert_eq!(release.vectors.values(), [1.0, 0.0, 0.6, 0.8, 1.0, 0.0]);
    }
}
