//! What a stage may learn from vectors: their mean and the directions in which they vary. From public ones, or at a price.

use super::arguments::Arguments;
use crate::data::vectors;
use crate::encode::Embeddings;
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// A file of vectors that are nobody's secret, named in a pipeline as `public=FILE`.
///
/// The printed form carries the file's hash, so that a pipeline means the same vectors wherever it is read again.
#[derive(Debug, Clone)]
pub struct Public {
    path: String,
    hash: String,
    dim: usize,
    vectors: Arc<Embeddings>,
    moments: Arc<OnceLock<Moments>>,
}

impl PartialEq for Public {
    fn eq(&self, other: &Self) -> bool {
        (&self.path, &self.hash) == (&other.path, &other.hash)
    }
}

impl Public {
    /// Reads `public` and `hash`; `None` where no file is named, a problem where it cannot be read or is another one.
    pub(super) fn read(arguments: &mut Arguments<'_>) -> Option<Self> {
        let (path, expected) = (arguments.optional_word("public"), arguments.optional_word("hash"));
        let Some(path) = path else {
            if expected.is_some() {
                arguments.problem("has a `hash` but no `public=FILE` that it could belong to");
            }
            return None;
        };
        let table = match vectors::read(Path::new(path), None) {
            Ok(table) if table.is_empty() => {
                arguments.unusable(format!("found no vectors in `{path}`"));
                return None;
            }
            Ok(table) => table,
            Err(error) => {
                arguments.unusable(format!("cannot use `public={path}`: {error}"));
                return None;
            }
        };
        let mut hasher = blake3::Hasher::new();
        hasher.update(&(table.dim() as u64).to_le_bytes());
        table.values().iter().for_each(|v| {
            hasher.update(&v.to_le_bytes());
        });
        let hash = hasher.finalize().to_hex()[..16].to_owned();
        if expected.is_some_and(|expected| expected != hash) {
            arguments.unusable(format!(
                "was written for other vectors than `{path}` holds now (hash {hash}); leave `hash` out to take these"
            ));
        }
        let dim = table.dim();
        Some(Self { path: path.to_owned(), hash, dim, vectors: Arc::new(table), moments: Arc::default() })
    }

    /// The arguments that name it.
    pub(super) fn arguments(&self) -> [(&'static str, String); 2] {
        [("public", self.path.clone()), ("hash", self.hash.clone())]
    }

    /// Coordinates of its vectors.
    pub(super) fn dim(&self) -> usize {
        self.dim
    }

    /// The vectors themselves.
    pub(super) fn vectors(&self) -> &Embeddings {
        &self.vectors
    }

    /// Its moments, computed once.
    pub(super) fn moments(&self) -> &Moments {
        self.moments.get_or_init(|| Moments::of(&self.vectors))
    }
}

/// Mean and principal directions of vectors.
#[derive(Debug)]
pub(crate) struct Moments {
    /// The mean row.
    pub(crate) mean: Vec<f64>,
    covariance: Vec<f64>,
    axes: OnceLock<Axes>,
}

/// Variances and directions, largest first.
#[derive(Debug)]
pub(crate) struct Axes {
    pub(crate) variances: Vec<f64>,
    /// `(d, d)`, one direction a row.
    pub(crate) directions: Vec<f64>,
}

impl Moments {
    /// `mean = 1/n sum x_i`, `cov = 1/n sum (x_i - mean)(x_i - mean)'`, in `f64`, sums over fixed blocks.
    pub(crate) fn of(x: &Embeddings) -> Self {
        use rayon::prelude::*;
        let (n, d) = (x.len().max(1) as f64, x.dim());
        let mut mean = vec![0.0; d];
        x.rows().for_each(|row| mean.iter_mut().zip(row).for_each(|(m, &v)| *m += f64::from(v) / n));
        let centred: Vec<f64> = x.rows().flat_map(|r| r.iter().zip(&mean).map(|(&v, m)| f64::from(v) - m)).collect();
        let covariance: Vec<f64> = (0..d)
            .into_par_iter()
            .flat_map_iter(|i| {
                let mut row = vec![0.0; d];
                for x in centred.chunks_exact(d) {
                    row.iter_mut().zip(x).for_each(|(sum, v)| *sum += x[i] * v / n);
                }
                row
            })
            .collect();
        Self { mean, covariance, axes: OnceLock::new() }
    }

    /// The eigenvectors of the covariance, computed once.
    pub(crate) fn axes(&self) -> &Axes {
        self.axes.get_or_init(|| eigen(self.covariance.clone(), self.mean.len()))
    }
}

/// Eigenvalues and eigenvectors of a symmetric matrix by cyclic rotations.
///
/// # Source
/// Jacobi 1846; the rotation of Golub and Van Loan, section 8.5.2.
pub(super) fn eigen(mut a: Vec<f64>, d: usize) -> Axes {
    let mut v = vec![0.0; d * d];
    (0..d).for_each(|i| v[i * d + i] = 1.0);
    let scale = a.iter().map(|x| x * x).sum::<f64>().sqrt();
    for _ in 0..30 {
        let mut off = 0.0;
        for p in 0..d {
            for q in p + 1..d {
                let apq = a[p * d + q];
                off += apq * apq;
                if apq.abs() <= 1e-300 {
                    continue;
                }
                let tau = (a[q * d + q] - a[p * d + p]) / (2.0 * apq);
                let t = tau.signum() / (tau.abs() + (1.0 + tau * tau).sqrt());
                let c = (1.0 + t * t).sqrt().recip();
                let s = t * c;
                // Rows of the symmetric matrix, then its columns; directions are kept as rows.
                for matrix in [&mut a, &mut v] {
                    for k in 0..d {
                        let (x, y) = (matrix[p * d + k], matrix[q * d + k]);
                        (matrix[p * d + k], matrix[q * d + k]) = (c * x - s * y, s * x + c * y);
                    }
                }
                for k in 0..d {
                    let (x, y) = (a[k * d + p], a[k * d + q]);
                    (a[k * d + p], a[k * d + q]) = (c * x - s * y, s * x + c * y);
                }
            }
        }
        if off.sqrt() <= 1e-13 * scale {
            break;
        }
    }
    let mut order: Vec<usize> = (0..d).collect();
    order.sort_by(|&i, &j| a[j * d + j].total_cmp(&a[i * d + i]));
    Axes {
        variances: order.iter().map(|&i| a[i * d + i].max(0.0)).collect(),
        directions: order.iter().flat_map(|&i| v[i * d..(i + 1) * d].iter().copied()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_rebuild_the_covariance_and_come_largest_first() {
        let d = 24;
        let values = (0..200 * d).map(|i| ((i * i) as f32 * 0.37).sin() / (1 + i % d) as f32).collect();
        let moments = Moments::of(&Embeddings::new(values, d).expect("finite"));
        let axes = moments.axes();
        assert!(axes.variances.windows(2).all(|w| w[0] >= w[1]));
        for i in 0..d {
            for j in 0..d {
                let of = |a: usize, b: usize| axes.directions[a * d + b];
                let product: f64 = (0..d).map(|k| of(i, k) * of(j, k)).sum();
                assert!((product - f64::from(u8::from(i == j))).abs() < 1e-11, "{i} {j}");
                let back: f64 = (0..d).map(|k| axes.variances[k] * of(k, i) * of(k, j)).sum();
                assert!((back - moments.covariance[i * d + j]).abs() < 1e-12, "{i} {j}");
            }
        }
    }
}
