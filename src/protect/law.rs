//! What the law tests of the samplers share.

use super::Pipeline;
use crate::encode::Embeddings;
use crate::seed;
use rand_distr::{Distribution, StandardNormal};

/// Dimensions at which every sampler is tested.
pub(super) const DIMS: [usize; 4] = [2, 32, 384, 768];

/// The critical value of `sqrt(n) D` of Kolmogorov and Smirnov at level 1e-6: `sqrt(ln(2e6) / 2)`, asymptotic.
pub(super) const CRITICAL: f64 = 2.694;

/// `sqrt(n)` times the largest distance of the draws from their law.
pub(super) fn distance(mut draws: Vec<f64>, cdf: impl Fn(f64) -> f64) -> f64 {
    draws.sort_by(f64::total_cmp);
    let n = draws.len() as f64;
    let worst = draws.iter().enumerate().fold(0.0_f64, |worst, (i, &x)| {
        let law = cdf(x);
        worst.max((law - i as f64 / n).abs()).max(((i + 1) as f64 / n - law).abs())
    });
    worst * n.sqrt()
}

/// `n` copies of one random unit row.
pub(super) fn copies(n: usize, dim: usize) -> Embeddings {
    let mut rng = seed::stream(3, "law", &format!("row of {dim}"));
    let row: Vec<f64> = (0..dim).map(|_| StandardNormal.sample(&mut rng)).collect();
    let length = row.iter().map(|v| v * v).sum::<f64>().sqrt();
    let row: Vec<f32> = row.iter().map(|v| (v / length) as f32).collect();
    Embeddings::new(row.repeat(n), dim).expect("finite")
}

/// What a pipeline releases of these rows.
pub(super) fn released(pipeline: &str, clean: &Embeddings, root: u64) -> Embeddings {
    let pipeline = Pipeline::parse(pipeline).expect("a valid pipeline");
    pipeline.release(clean, None, &mut seed::stream(root, "law", "noise")).expect("rows that can be protected").vectors
}

/// Product of two rows in `f64`.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

/// `b - a`.
pub(super) fn minus(b: &[f32], a: &[f32]) -> Vec<f32> {
    b.iter().zip(a).map(|(b, a)| b - a).collect()
}

/// Mean and standard error of the mean.
pub(super) fn mean(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0);
    (mean, (variance / n).sqrt())
}
