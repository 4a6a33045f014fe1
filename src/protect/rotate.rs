//! `rotate`: a secret orthogonal matrix.

use super::Error;
use super::arguments::Arguments;
use super::claim::State;
use super::stage::{Parameters, Release, Stage};
use crate::encode::Embeddings;
use crate::nn::kernel::{Layout, matmul};
use crate::seed;
use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;

/// Multiplies every row by one secret orthogonal matrix, which the key names.
///
/// # Formula
/// `x Q`, `Q` drawn from the Haar measure: the orthonormal factor of a matrix of normal numbers, signs fixed so that the
/// triangular factor's diagonal is positive. A row that rounding made longer is shortened to the length it had.
///
/// # Shapes
/// `(n, d)` in and out; `Q` is `(d, d)`, the same for every release under one key.
///
/// # Guarantee
/// None: a secret transform. Norms, cosines and neighbours stay what they were, and whoever gets hold of a few pairs of
/// text and release undoes it: `d` pairs give the whole matrix, a quarter of them most of it. Noise before or after it
/// keeps its law, and a guarantee from elsewhere in the pipeline stays.
///
/// # Source
/// Stewart 1980 (the draw).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotate {
    /// The user's secret; everything else about the pipeline counts as known.
    pub key: u64,
}

const NO_GUARANTEE: &str =
    "`rotate`: a secret rotation promises nothing: a few leaked pairs of text and release undo it";

impl Rotate {
    pub(super) fn read(arguments: &mut Arguments<'_>) -> Self {
        Self { key: arguments.count("key", "7") as u64 }
    }

    /// The stage as somebody without the key imagines it: any other key; `place` keeps two stages apart.
    pub(super) fn as_known(self, place: usize) -> Self {
        let hash = blake3::hash(format!("stitchback key of somebody else, stage {place}").as_bytes());
        // A parameter of the text form stays a whole number that every platform reads.
        let other = hash.as_bytes().iter().take(4).fold(0_u64, |sum, &byte| sum << 8 | u64::from(byte));
        Self { key: if other == self.key { other + 1 } else { other } }
    }

    /// The secret matrix, row-major.
    fn matrix(self, d: usize) -> Vec<f32> {
        let mut rng = seed::stream(self.key, "rotate", &format!("orthogonal matrix of {d} coordinates"));
        let mut rows: Vec<f64> = (0..d * d).map(|_| StandardNormal.sample(&mut rng)).collect();
        orthonormalise(&mut rows, d);
        rows.into_iter().map(|v| v as f32).collect()
    }
}

impl Parameters for Rotate {
    fn arguments(&self) -> Vec<(&'static str, String)> {
        vec![("key", self.key.to_string())]
    }

    fn check(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    fn build(&self, _: &State) -> Result<Box<dyn Stage>, String> {
        Ok(Box::new(*self))
    }
}

impl Stage for Rotate {
    fn name(&self) -> &'static str {
        "rotate"
    }

    fn apply(&self, mut release: Release, _: &mut dyn rand::Rng) -> Result<Release, Error> {
        let d = release.vectors.dim();
        let before: Vec<f64> = release.vectors.rows().map(super::clip::norm).collect();
        multiply(&mut release.vectors, &self.matrix(d));
        release.vectors.values_mut().par_chunks_exact_mut(d).zip(&before).for_each(|(row, &length)| {
            let turned = row.to_vec();
            super::clip::shorten_to(&turned, length, row);
        });
        Ok(release)
    }

    fn guarantee(&self, before: &State) -> State {
        let mut after = before.clone();
        after.promises_nothing(NO_GUARANTEE);
        after
    }
}

/// Multiplies every row by a `(d, d)` row-major `matrix` from the right.
pub(super) fn multiply(vectors: &mut Embeddings, matrix: &[f32]) {
    /// Rows in one product. Fixed, so that no value depends on the number of threads.
    const BLOCK: usize = 256;
    let d = vectors.dim();
    vectors.values_mut().par_chunks_mut(BLOCK * d).for_each(|rows| {
        let n = rows.len() / d;
        let mut out = vec![0.0_f32; rows.len()];
        matmul(&mut out, rows, Layout::Plain, matrix, Layout::Plain, n, d, d, false);
        rows.copy_from_slice(&out);
    });
}

/// Makes the rows of `rows` (`(n, d)`, row-major, `n <= d`) orthonormal, each along what is new in it.
///
/// # Formula
/// Gram-Schmidt, twice: the orthonormal factor whose triangular counterpart has a positive diagonal. A row that adds
/// nothing to those before it becomes the unit vector of the first axis that does.
pub(crate) fn orthonormalise(rows: &mut [f64], d: usize) {
    let n = rows.len() / d;
    for i in 0..n {
        let (done, rest) = rows.split_at_mut(i * d);
        let row = &mut rest[..d];
        let mut axis = 0;
        loop {
            let before = length(row);
            for _ in 0..2 {
                for earlier in done.chunks_exact(d) {
                    let along: f64 = earlier.iter().zip(&*row).map(|(a, b)| a * b).sum();
                    row.iter_mut().zip(earlier).for_each(|(v, e)| *v -= along * e);
                }
            }
            let left = length(row);
            if left > 1e-10 * before && left > 0.0 {
                for v in row.iter_mut() {
                    *v /= left;
                }
                break;
            }
            row.fill(0.0);
            row[axis] = 1.0;
            axis += 1;
        }
    }
}

fn length(row: &[f64]) -> f64 {
    row.iter().map(|v| v * v).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::super::clip::norm;
    use super::*;
    use crate::protect::{Guarantee, Pipeline};

    const D: usize = 96;

    fn rows(n: usize) -> Embeddings {
        let mut rng = seed::stream(5, "rotate", "rows");
        Embeddings::new((0..n * D).map(|_| StandardNormal.sample(&mut rng)).collect(), D).expect("finite")
    }

    fn rotated(pipeline: &str, x: &Embeddings) -> Embeddings {
        let pipeline: Pipeline = pipeline.parse().expect("valid");
        pipeline.release(x, None, &mut seed::stream(1, "rotate", "noise")).expect("finite rows").vectors
    }

    #[test]
    fn rotation_keeps_norms_and_products_and_moves_everything_else() {
        let x = rows(40);
        let y = rotated("rotate(key=7)", &x);
        for i in 0..x.len() {
            assert!(norm(y.row(i)) <= norm(x.row(i)), "rounding lengthened row {i}");
            for j in 0..x.len() {
                let product = |e: &Embeddings| crate::nn::kernel::dot(e.row(i), e.row(j));
                assert!((product(&x) - product(&y)).abs() < 1e-3, "{i} {j}");
            }
            let own: f64 = x.row(i).iter().zip(y.row(i)).map(|(a, b)| f64::from(a * b)).sum();
            assert!(own.abs() < 0.5 * norm(x.row(i)).powi(2), "row {i} stayed where it was");
        }
        assert_eq!(y, rotated("rotate(key=7)", &x), "one key, one matrix");
        assert_ne!(y, rotated("rotate(key=8)", &x));
    }

    /// Trace and squared trace of a Haar matrix have mean 0 and 1; over 200 keys their means have standard errors of
    /// .071 and .1, so four of them are passed by chance once in ten thousand.
    #[test]
    fn the_matrix_is_drawn_evenly_from_all_rotations_and_reflections() {
        let (keys, d) = (200_u64, 12);
        let traces: Vec<f64> = (0..keys)
            .map(|key| {
                let q = Rotate { key }.matrix(d);
                (0..d).map(|i| f64::from(q[i * d + i])).sum()
            })
            .collect();
        let mean = traces.iter().sum::<f64>() / keys as f64;
        let square = traces.iter().map(|t| t * t).sum::<f64>() / keys as f64;
        assert!(mean.abs() < 0.28, "mean trace {mean}");
        assert!((square - 1.0).abs() < 0.4, "mean squared trace {square}");
    }

    #[test]
    fn rotation_promises_nothing_and_changes_no_promise() {
        let state = |text: &str| Pipeline::parse(text).expect("valid").state();
        let alone = Pipeline::parse("clip(l2=1) | rotate(key=7)").expect("valid").claim();
        assert_eq!((alone.kind(), alone.mu()), ("none", None));
        assert!(alone.note().contains("leaked pairs"), "{}", alone.note());
        assert_eq!(alone.warnings.len(), 1);
        for (with, without) in [
            ("clip(l2=1) | rotate(key=7)", "clip(l2=1)"),
            ("clip(l2=1) | rotate(key=7) | gaussian(sigma=2)", "clip(l2=1) | gaussian(sigma=2)"),
            ("clip(l2=1) | gaussian(sigma=2) | rotate(key=7)", "clip(l2=1) | gaussian(sigma=2)"),
            ("normalize | prototype(members=4) | rotate(key=7) | rotate(key=8)", "normalize | prototype(members=4)"),
        ] {
            let (with, without) = (state(with), state(without));
            assert_eq!((with.domain, &with.sensitivity), (without.domain, &without.sensitivity));
            assert_eq!((with.noise, with.members), (without.noise, without.members));
            assert_eq!(with.warnings.len(), 1);
            if let Guarantee::Gdp { .. } = without.guarantee {
                assert_eq!(with.guarantee, without.guarantee);
            }
        }
    }

    #[test]
    fn the_pipeline_that_an_attacker_knows_has_another_key_and_nothing_else_changed() {
        let real = Pipeline::parse("clip(l2=1) | rotate(key=7) | gaussian(sigma=0.1) | rotate(key=7)").expect("valid");
        let known = real.as_known();
        assert!(real.has_secret() && known.has_secret());
        assert_eq!(known, real.as_known());
        let keys: Vec<u64> = known
            .stages()
            .iter()
            .filter_map(|s| if let crate::protect::StageConfig::Rotate(r) = s { Some(r.key) } else { None })
            .collect();
        assert!(keys[0] != 7 && keys[1] != 7 && keys[0] != keys[1], "{keys:?}");
        assert_eq!(known.stages()[2], real.stages()[2]);
        let known_key = Rotate { key: keys[0] };
        assert_ne!(known_key.as_known(1), known_key, "even a user with that very key keeps it secret");
        let open = Pipeline::parse("clip(l2=1) | gaussian(sigma=0.1)").expect("valid");
        assert!(!open.has_secret());
        assert_eq!(open.as_known(), open);
    }

    #[test]
    fn rows_that_add_nothing_are_replaced_by_axes() {
        let mut rows = vec![2.0, 0.0, 0.0, -3.0, 0.0, 0.0, 1.0, 1.0, 0.0];
        orthonormalise(&mut rows, 3);
        assert_eq!(rows[..6], [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]);
        assert_eq!(rows[6..], [0.0, 0.0, 1.0]);
    }
}
