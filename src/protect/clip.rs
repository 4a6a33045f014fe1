//! `clip`: no row longer than a radius.

use super::Error;
use super::arguments::{Arguments, number};
use super::claim::{Domain, Sensitivity, State};
use super::stage::{Parameters, Release, Stage, out_of_range};
use rayon::prelude::*;

/// Shortens rows that are longer than `C` to length `C` and leaves the others alone.
///
/// # Formula
/// `x min(1, C / |x|)`, `C` = `l2`. A shortened row is rounded towards the inside, so that its `f32` norm stays within `C`.
///
/// # Guarantee
/// None of its own: it bounds what one record can do (sensitivity `2C`, replace-one) for the noise after it. It is the
/// projection onto the ball and moves no two points apart, so a smaller sensitivity from before survives it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Clip {
    /// The radius `C`.
    pub l2: f64,
}

impl Clip {
    pub(super) fn read(arguments: &mut Arguments<'_>) -> Self {
        Self { l2: arguments.number("l2", "1") }
    }
}

impl Parameters for Clip {
    fn arguments(&self) -> Vec<(&'static str, String)> {
        vec![("l2", number(self.l2))]
    }

    fn check(&self) -> Vec<(&'static str, String)> {
        out_of_range("l2", self.l2, 1e-20, 1e20).into_iter().collect()
    }

    fn build(&self, _: &State) -> Result<Box<dyn Stage>, String> {
        Ok(Box::new(*self))
    }
}

impl Stage for Clip {
    fn name(&self) -> &'static str {
        "clip"
    }

    fn apply(&self, mut release: Release, _: &mut dyn rand::Rng) -> Result<Release, Error> {
        let dim = release.vectors.dim();
        release.vectors.values_mut().par_chunks_exact_mut(dim).for_each(|row| {
            let length = norm(row);
            if length > self.l2 {
                let scale = self.l2 / length * INWARD;
                for v in row {
                    *v = (f64::from(*v) * scale) as f32;
                }
            }
        });
        Ok(release)
    }

    fn guarantee(&self, before: &State) -> State {
        let domain = match before.domain {
            inside if inside.radius().is_some_and(|radius| radius <= self.l2) => inside,
            _ => Domain::L2 { radius: self.l2 },
        };
        let mut after = before.clone().rescaled(domain);
        if before.sensitivity.as_ref().is_none_or(|s| s.l2 > 2.0 * self.l2) {
            after.sensitivity = Some(Sensitivity { l2: 2.0 * self.l2, formula: "2C".to_owned() });
        }
        after
    }
}

/// One `f32` rounding lengthens a row by at most 2^-24 of it; twice that much is taken off first.
const INWARD: f64 = 1.0 - 1.0 / 8_388_608.0;

/// Writes `row` to `out`, shortened where it is longer than `limit`.
pub(super) fn shorten_to(row: &[f32], limit: f64, out: &mut [f32]) {
    let length = norm(row);
    let scale = if length > limit { limit / length * INWARD } else { 1.0 };
    for (o, &v) in out.iter_mut().zip(row) {
        *o = (f64::from(v) * scale) as f32;
    }
}

/// Euclidean norm, summed in `f64` so that no `f32` row overflows or vanishes.
pub(super) fn norm(row: &[f32]) -> f64 {
    row.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::Embeddings;
    use crate::protect::Pipeline;
    use proptest::prelude::*;

    fn clipped(values: Vec<f32>, dim: usize, l2: f64) -> Embeddings {
        let vectors = Embeddings::new(values, dim).expect("a finite table");
        let pipeline = Pipeline::new(vec![Clip { l2 }.into()]).expect("a radius in range");
        pipeline.release(&vectors, None, &mut crate::seed::stream(1, "", "")).expect("finite rows").vectors
    }

    proptest! {
        #[test]
        fn clip_never_exceeds_its_norm_and_touches_nothing_inside(
            row in prop::collection::vec(-1e3_f32..1e3, 1..40), log_radius in -3.0..4.0_f64,
        ) {
            let l2 = 10_f64.powf(log_radius);
            let out = clipped(row.clone(), row.len(), l2);
            prop_assert!(norm(out.row(0)) <= l2);
            if norm(&row) <= l2 {
                prop_assert_eq!(out.row(0), &row[..]);
            } else {
                prop_assert!(norm(out.row(0)) >= l2 * (1.0 - 3e-7));
                // Same direction.
                let dot: f64 = row.iter().zip(out.row(0)).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
                prop_assert!(dot >= norm(&row) * norm(out.row(0)) * (1.0 - 1e-6));
            }
            prop_assert_eq!(clipped(out.values().to_vec(), row.len(), l2), out);
        }
    }

    #[test]
    fn clip_survives_the_largest_floats() {
        let out = clipped(vec![f32::MAX; 384], 384, 1.0);
        assert!((norm(out.row(0)) - 1.0).abs() < 3e-7);
    }
}
