//! Quadratic forms of Gaussian likelihood ratios.

use crate::attack::linear::{Cholesky, add_to_diagonal};
use crate::encode::Embeddings;
use crate::nn::kernel::{Layout, dot, matmul};
use rayon::prelude::*;

/// The inverse of `scale * cov + variance * I`, `(d, d)` row-major f32.
///
/// # Panics
/// Never for a covariance and a positive variance; a variance of 0 is lifted to `1e-9`.
pub(super) fn precision(cov: &[f64], d: usize, scale: f64, variance: f64) -> Vec<f32> {
    let mut a: Vec<f64> = cov.iter().map(|c| scale * c).collect();
    add_to_diagonal(&mut a, d, variance.max(1e-9));
    // Rounding can leave a covariance of few rows slightly indefinite.
    let factor = Cholesky::new(&a, d).or_else(|| {
        let trace: f64 = (0..d).map(|i| a[i * d + i]).sum();
        add_to_diagonal(&mut a, d, 1e-6 * trace / d as f64);
        Cholesky::new(&a, d)
    });
    let factor = factor.expect("a covariance with a lifted diagonal is positive definite");
    let columns: Vec<Vec<f64>> = (0..d)
        .into_par_iter()
        .map(|j| {
            let mut column = vec![0.0; d];
            column[j] = 1.0;
            factor.solve(&mut column);
            column
        })
        .collect();
    columns.into_iter().flatten().map(|v| v as f32).collect()
}

/// Rows times a symmetric matrix.
pub(super) fn times(rows: &Embeddings, matrix: &[f32]) -> Embeddings {
    let (n, d) = (rows.len(), rows.dim());
    let mut out = vec![0.0; n * d];
    matmul(&mut out, rows.values(), Layout::Plain, matrix, Layout::Plain, n, d, d, false);
    Embeddings::new(out, d).expect("a finite matrix of finite rows is finite")
}

/// `x' M x` of each row, given the rows and their products with `M`.
pub(super) fn squares(rows: &Embeddings, products: &Embeddings) -> Vec<f32> {
    rows.rows().zip(products.rows()).map(|(x, mx)| dot(x, mx)).collect()
}

/// Rows minus `mean`, times `scale`.
pub(super) fn centred(rows: &Embeddings, mean: &[f64], scale: f64) -> Embeddings {
    let mut out = rows.clone();
    for row in out.values_mut().chunks_exact_mut(rows.dim().max(1)) {
        row.iter_mut().zip(mean).for_each(|(v, m)| *v = ((f64::from(*v) - m) * scale) as f32);
    }
    out
}

/// `(n, m)` products of every left row with every right row.
pub(super) fn all_products(left: &Embeddings, right: &Embeddings) -> Vec<f32> {
    /// Left rows in one product.
    const BLOCK: usize = 256;
    let (d, m) = (left.dim(), right.len());
    let mut out = vec![0.0; left.len() * m];
    out.par_chunks_mut(BLOCK * m.max(1)).zip(left.values().par_chunks(BLOCK * d)).for_each(|(out, rows)| {
        matmul(out, rows, Layout::Plain, right.values(), Layout::Transposed, rows.len() / d, d, m, false);
    });
    out
}
