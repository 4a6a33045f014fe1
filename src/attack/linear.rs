//! Closed-form linear estimation: covariances, Cholesky, ridge regression.

use crate::encode::Embeddings;
use crate::nn::kernel::{Layout, matmul};
use rayon::prelude::*;

/// Rows in one partial sum. Fixed, so that sums do not depend on the number of threads.
const BLOCK: usize = 1024;

/// Mean and covariance of the rows.
///
/// # Formula
/// `mean = 1/n sum x_i`, `cov = 1/n sum (x_i - mean)(x_i - mean)'`
///
/// # Shapes
/// `(n, d)` in; `d` and `(d, d)` out, f64.
pub fn moments(x: &Embeddings) -> (Vec<f64>, Vec<f64>) {
    let (n, d, mean) = (x.len(), x.dim(), x.mean());
    let centred: Vec<f32> =
        x.rows().flat_map(|row| row.iter().zip(&mean).map(|(&v, &m)| (f64::from(v) - m) as f32)).collect();
    let mut cov = cross(&centred, &centred, n, d, d);
    for c in &mut cov {
        *c /= n.max(1) as f64;
    }
    (mean, cov)
}

/// `a' b` for row-major `a` of shape `(n, p)` and `b` of shape `(n, q)`, summed in f64 over fixed blocks.
pub fn cross(a: &[f32], b: &[f32], n: usize, p: usize, q: usize) -> Vec<f64> {
    let starts: Vec<usize> = (0..n).step_by(BLOCK).collect();
    let mut total = vec![0.0_f64; p * q];
    // A few blocks at a time: partial products of a wide `b` are large.
    for group in starts.chunks(4) {
        let partial: Vec<Vec<f32>> = group
            .par_iter()
            .map(|&start| {
                let rows = BLOCK.min(n - start);
                let mut c = vec![0.0_f32; p * q];
                matmul(
                    &mut c,
                    &a[start * p..(start + rows) * p],
                    Layout::Transposed,
                    &b[start * q..(start + rows) * q],
                    Layout::Plain,
                    p,
                    rows,
                    q,
                    false,
                );
                c
            })
            .collect();
        for block in partial {
            for (t, v) in total.iter_mut().zip(block) {
                *t += f64::from(v);
            }
        }
    }
    total
}

/// The lower Cholesky factor of a symmetric positive definite matrix.
pub struct Cholesky {
    n: usize,
    l: Vec<f64>,
}

impl Cholesky {
    /// Factors `a` (`(n, n)` row-major, only the lower half is read); `None` when it is not positive definite.
    pub fn new(a: &[f64], n: usize) -> Option<Self> {
        let mut l = vec![0.0; n * n];
        for i in 0..n {
            for j in 0..=i {
                let (row_i, row_j) = (&l[i * n..i * n + j], &l[j * n..j * n + j]);
                let s: f64 = a[i * n + j] - row_i.iter().zip(row_j).map(|(x, y)| x * y).sum::<f64>();
                if i == j {
                    if !(s.is_finite() && s > 0.0) {
                        return None;
                    }
                    l[i * n + i] = s.sqrt();
                } else {
                    l[i * n + j] = s / l[j * n + j];
                }
            }
        }
        Some(Self { n, l })
    }

    /// `ln det a`.
    pub fn log_det(&self) -> f64 {
        (0..self.n).map(|i| 2.0 * self.l[i * self.n + i].ln()).sum()
    }

    /// Solves `a x = b` for one right-hand side, in place.
    pub fn solve(&self, b: &mut [f64]) {
        let n = self.n;
        self.solve_lower(b);
        // Row by row of the factor, although the transpose is solved: its columns lie far apart.
        for i in (0..n).rev() {
            let row = &self.l[i * n..=i * n + i];
            b[i] /= row[i];
            let at = b[i];
            for (b, l) in b[..i].iter_mut().zip(row) {
                *b -= at * l;
            }
        }
    }

    /// Solves `l x = b` for one right-hand side, in place; `l` is the factor.
    pub fn solve_lower(&self, b: &mut [f64]) {
        let n = self.n;
        for i in 0..n {
            let s: f64 = self.l[i * n..i * n + i].iter().zip(&*b).map(|(l, x)| l * x).sum();
            b[i] = (b[i] - s) / self.l[i * n + i];
        }
    }
}

/// Adds `value` to the diagonal of a square matrix.
pub fn add_to_diagonal(a: &mut [f64], n: usize, value: f64) {
    for i in 0..n {
        a[i * n + i] += value;
    }
}

/// Makes the columns of `basis` (`(n, q)`) orthonormal: `B L^-T` with `L L' = B'B`.
///
/// A direction too short for the digits of `B'B` is lengthened pass by pass instead of dividing by rounding.
pub(super) fn orthonormalise(basis: &mut [f32], q: usize) {
    const PASSES: usize = 4;
    /// Above the rounding of a sum of `f32` products, relative to the largest of them.
    const ROUNDING: f64 = 1e-6;
    for _ in 0..PASSES {
        let mut gram = cross(basis, basis, basis.len() / q, q, q);
        let trace: f64 = (0..q).map(|i| gram[i * q + i]).sum();
        let factor = loop {
            add_to_diagonal(&mut gram, q, (ROUNDING * trace).max(f64::MIN_POSITIVE));
            if let Some(factor) = Cholesky::new(&gram, q) {
                break factor;
            }
        };
        basis.par_chunks_exact_mut(q).for_each(|row| {
            let mut z: Vec<f64> = row.iter().map(|&v| f64::from(v)).collect();
            factor.solve_lower(&mut z);
            row.iter_mut().zip(z).for_each(|(v, z)| *v = z as f32);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cholesky_solves_what_it_factored() {
        let a = [4.0, 2.0, 0.6, 2.0, 5.0, 1.0, 0.6, 1.0, 3.0];
        let mut b = [1.0, -2.0, 0.5];
        Cholesky::new(&a, 3).expect("positive definite").solve(&mut b);
        for (row, want) in a.chunks(3).zip([1.0, -2.0, 0.5]) {
            let got: f64 = row.iter().zip(&b).map(|(x, y)| x * y).sum();
            assert!((got - want).abs() < 1e-12);
        }
    }

    #[test]
    fn an_indefinite_matrix_has_no_factor() {
        assert!(Cholesky::new(&[1.0, 2.0, 2.0, 1.0], 2).is_none());
        assert!(Cholesky::new(&[f64::NAN], 1).is_none());
    }

    #[test]
    fn moments_of_two_rows() {
        let x = Embeddings::new(vec![1.0, 0.0, 3.0, 4.0], 2).expect("finite");
        let (mean, cov) = moments(&x);
        assert_eq!(mean, [2.0, 2.0]);
        assert_eq!(cov, [1.0, 2.0, 2.0, 4.0]);
    }
}
