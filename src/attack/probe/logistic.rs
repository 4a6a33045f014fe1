//! Multinomial logistic regression with an L2 penalty, by L-BFGS on all rows at once.

use crate::attack::linear;
use crate::nn::kernel::{Layout, matmul};
use std::collections::VecDeque;

/// Rows that a linear model can be fitted to.
pub(super) trait Features: Sync {
    /// Rows.
    fn len(&self) -> usize;
    /// Coordinates.
    fn dim(&self) -> usize;
    /// `(n, k)` products with `k` weight rows of shape `(k, d)`.
    fn products(&self, weights: &[f32], k: usize) -> Vec<f32>;
    /// `(k, d)` sums of rows, weighted by `(n, k)` residuals.
    fn pull(&self, residuals: &[f32], k: usize) -> Vec<f64>;
}

/// Row-major vectors.
pub(super) struct Dense {
    /// `(n, d)`.
    pub(super) values: Vec<f32>,
    /// `d`.
    pub(super) dim: usize,
}

impl Features for Dense {
    fn len(&self) -> usize {
        self.values.len() / self.dim
    }

    fn dim(&self) -> usize {
        self.dim
    }

    fn products(&self, weights: &[f32], k: usize) -> Vec<f32> {
        let mut out = vec![0.0; self.len() * k];
        matmul(&mut out, &self.values, Layout::Plain, weights, Layout::Transposed, self.len(), self.dim, k, false);
        out
    }

    fn pull(&self, residuals: &[f32], k: usize) -> Vec<f64> {
        linear::cross(residuals, &self.values, self.len(), k, self.dim)
    }
}

/// Rows with few coordinates that are not 0, such as the words of a text.
pub(super) struct Sparse {
    /// `(coordinate, value)` of each row.
    pub(super) rows: Vec<Vec<(u32, f32)>>,
    /// Coordinates.
    pub(super) dim: usize,
}

impl Features for Sparse {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn dim(&self) -> usize {
        self.dim
    }

    fn products(&self, weights: &[f32], k: usize) -> Vec<f32> {
        let product = |row: &[(u32, f32)], c: usize| -> f32 {
            row.iter().map(|&(j, v)| v * weights[c * self.dim + j as usize]).sum()
        };
        self.rows.iter().flat_map(|row| (0..k).map(move |c| product(row, c))).collect()
    }

    fn pull(&self, residuals: &[f32], k: usize) -> Vec<f64> {
        let mut out = vec![0.0; k * self.dim];
        for (row, residual) in self.rows.iter().zip(residuals.chunks_exact(k)) {
            for &(j, v) in row {
                for (c, r) in residual.iter().enumerate() {
                    out[c * self.dim + j as usize] += f64::from(r * v);
                }
            }
        }
        out
    }
}

/// A fitted classifier.
///
/// # Formula
/// Minimises `mean_i -log softmax(W x_i + b)[c_i] + l2/2 |W|^2`; the intercepts are free.
///
/// # Source
/// Nocedal and Wright 2006, algorithm 7.5 (ten pairs), with backtracking to the Armijo condition.
#[derive(Debug, Clone)]
pub(super) struct Logistic {
    /// `(k, d)` weights, then `k` intercepts.
    parameters: Vec<f64>,
    classes: usize,
    dim: usize,
}

impl Logistic {
    /// Fits `labels`, one for each row, all below `classes`.
    pub(super) fn fit(x: &dyn Features, labels: &[u32], classes: usize, l2: f64) -> Self {
        /// Enough for every penalty that is tried here; a fit that is not done by then is regularised by stopping.
        const STEPS: usize = 100;
        const PAIRS: usize = 10;
        let mut at = Self { parameters: vec![0.0; classes * (x.dim() + 1)], classes, dim: x.dim() };
        let (mut loss, mut gradient) = at.loss(x, labels, l2);
        let mut memory: VecDeque<(Vec<f64>, Vec<f64>, f64)> = VecDeque::new();
        for _ in 0..STEPS {
            if gradient.iter().all(|g| g.abs() < 1e-6) {
                break;
            }
            let mut direction = two_loops(&gradient, &memory);
            let mut slope = product(&direction, &gradient);
            if slope >= 0.0 {
                memory.clear();
                direction = gradient.iter().map(|g| -g).collect();
                slope = -product(&gradient, &gradient);
            }
            let mut step = if memory.is_empty() { (1.0 / slope.abs().sqrt()).min(1.0) } else { 1.0 };
            let mut found = None;
            for _ in 0..30 {
                let parameters = at.parameters.iter().zip(&direction).map(|(p, d)| p + step * d).collect();
                let next = Self { parameters, ..at };
                let (l, g) = next.loss(x, labels, l2);
                if l <= loss + 1e-4 * step * slope {
                    found = Some((next, l, g));
                    break;
                }
                step *= 0.5;
            }
            let Some((next, next_loss, next_gradient)) = found else { break };
            let s: Vec<f64> = direction.iter().map(|d| step * d).collect();
            let y: Vec<f64> = next_gradient.iter().zip(&gradient).map(|(a, b)| a - b).collect();
            let curvature = product(&s, &y);
            if curvature > 1e-12 * product(&y, &y) {
                memory.push_back((s, y, 1.0 / curvature));
                if memory.len() > PAIRS {
                    memory.pop_front();
                }
            }
            let gain = loss - next_loss;
            (at, loss, gradient) = (next, next_loss, next_gradient);
            // Products are f32: a smaller gain is rounding.
            if gain < 1e-7 * loss.max(1e-3) {
                break;
            }
        }
        at
    }

    /// `(n, k)` scores, up to a constant for each row the log-probabilities.
    pub(super) fn logits(&self, x: &dyn Features) -> Vec<f64> {
        let (k, d) = (self.classes, self.dim);
        let weights: Vec<f32> = self.parameters[..k * d].iter().map(|&w| w as f32).collect();
        let bias = &self.parameters[k * d..];
        x.products(&weights, k).iter().enumerate().map(|(at, &v)| f64::from(v) + bias[at % k]).collect()
    }

    /// Mean negative log-likelihood of `labels`.
    pub(super) fn surprise(&self, x: &dyn Features, labels: &[u32]) -> f64 {
        let logits = self.logits(x);
        let rows = logits.chunks_exact(self.classes).zip(labels);
        rows.map(|(row, &c)| log_sum(row) - row[c as usize]).sum::<f64>() / labels.len().max(1) as f64
    }

    fn loss(&self, x: &dyn Features, labels: &[u32], l2: f64) -> (f64, Vec<f64>) {
        let (k, d, n) = (self.classes, self.dim, x.len() as f64);
        let logits = self.logits(x);
        let mut residuals = Vec::with_capacity(logits.len());
        let mut bias = vec![0.0; k];
        let mut loss = 0.0;
        for (row, &label) in logits.chunks_exact(k).zip(labels) {
            let total = log_sum(row);
            loss += total - row[label as usize];
            for (c, v) in row.iter().enumerate() {
                let residual = (v - total).exp() - f64::from(u8::from(c == label as usize));
                bias[c] += residual;
                residuals.push(residual as f32);
            }
        }
        let weights = &self.parameters[..k * d];
        let mut gradient: Vec<f64> = x.pull(&residuals, k).iter().zip(weights).map(|(g, w)| g / n + l2 * w).collect();
        gradient.extend(bias.iter().map(|b| b / n));
        (loss / n + 0.5 * l2 * product(weights, weights), gradient)
    }
}

/// `log sum exp` of a row.
pub(super) fn log_sum(row: &[f64]) -> f64 {
    let most = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    most + row.iter().map(|v| (v - most).exp()).sum::<f64>().ln()
}

fn two_loops(gradient: &[f64], memory: &VecDeque<(Vec<f64>, Vec<f64>, f64)>) -> Vec<f64> {
    let mut q = gradient.to_vec();
    let mut alphas = Vec::with_capacity(memory.len());
    for (s, y, rho) in memory.iter().rev() {
        let alpha = rho * product(s, &q);
        q.iter_mut().zip(y).for_each(|(q, y)| *q -= alpha * y);
        alphas.push(alpha);
    }
    if let Some((_, y, rho)) = memory.back() {
        let scale = 1.0 / (rho * product(y, y));
        for q in &mut q {
            *q *= scale;
        }
    }
    for ((s, y, rho), alpha) in memory.iter().zip(alphas.iter().rev()) {
        let beta = rho * product(y, &q);
        q.iter_mut().zip(s).for_each(|(q, s)| *q += (alpha - beta) * s);
    }
    q.into_iter().map(|q| -q).collect()
}

fn product(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> (Dense, Vec<u32>) {
        (Dense { values: vec![-2.0, -1.0, 0.5, 1.0, -0.5, 2.0], dim: 1 }, vec![0, 0, 1, 1, 1, 0])
    }

    #[test]
    fn the_fit_is_a_stationary_point_and_the_gradient_is_the_slope() {
        let (x, labels) = line();
        let fitted = Logistic::fit(&x, &labels, 2, 0.1);
        let (_, gradient) = fitted.loss(&x, &labels, 0.1);
        assert!(gradient.iter().all(|g| g.abs() < 1e-4), "{gradient:?}");
        let mut moved = fitted.clone();
        moved.parameters[0] += 0.3;
        let (_, gradient) = moved.loss(&x, &labels, 0.1);
        let at = |delta: f64| {
            let mut near = moved.clone();
            near.parameters[0] += delta;
            near.loss(&x, &labels, 0.1).0
        };
        assert!(((at(1e-2) - at(-1e-2)) / 2e-2 - gradient[0]).abs() < 1e-4);
    }

    #[test]
    fn without_a_signal_only_the_frequencies_are_learnt() {
        let x = Dense { values: vec![0.0; 8], dim: 1 };
        let fitted = Logistic::fit(&x, &[0, 0, 0, 1, 1, 1, 1, 2], 3, 0.1);
        let logits = fitted.logits(&Dense { values: vec![0.0], dim: 1 });
        let total = log_sum(&logits);
        for (logit, share) in logits.iter().zip([3.0 / 8.0, 0.5, 1.0 / 8.0]) {
            assert!(((logit - total).exp() - share).abs() < 1e-3, "{logits:?}");
        }
    }

    #[test]
    fn sparse_and_dense_rows_give_the_same_model() {
        let (dense, labels) = line();
        let sparse = Sparse { rows: dense.values.iter().map(|&v| vec![(0, v)]).collect(), dim: 1 };
        let (a, b) = (Logistic::fit(&dense, &labels, 2, 0.1), Logistic::fit(&sparse, &labels, 2, 0.1));
        assert!(a.parameters.iter().zip(&b.parameters).all(|(p, q)| (p - q).abs() < 1e-4));
    }
}
