//! Cross-entropy with label smoothing on plain slices, alone and fused with the output projection.

#![expect(
    clippy::inline_always,
    reason = "a kernel is compiled for an instruction set by being inlined into a `vectorise` function"
)]

use super::kernel::{Layout, matmul, sum, vectorise};
use super::rows::{exp_in_place, max};

/// Rows of logits that are alive at once in [`linear_cross_entropy`]: a block stays in the cache, the full matrix never exists.
const BLOCK: usize = 256;

/// Replaces the logits of one row by their gradient and returns the row's loss in nats, times `weight`.
///
/// # Formula
/// `loss = weight ((1 - e) (lse - z_y) + e (lse - mean z))`, `dz = weight (softmax(z) - (1 - e) onehot_y - e / V)`.
///
/// # Panics
/// When `target` is not below the number of logits.
#[inline(always)]
fn row(z: &mut [f32], target: usize, weight: f32, smoothing: f32) -> f64 {
    let n = z.len() as f32;
    let top = max(z);
    let mean = if smoothing > 0.0 { sum(z) / n } else { 0.0 };
    let z_target = z[target];
    let total = exp_in_place(z, top);
    let lse = f64::from(top) + f64::from(total).ln();
    let scale = weight / total;
    let shift = weight * smoothing / n;
    for z in z.iter_mut() {
        *z = z.mul_add(scale, -shift);
    }
    z[target] -= weight * (1.0 - smoothing);
    let (e, z_target, mean) = (f64::from(smoothing), f64::from(z_target), f64::from(mean));
    f64::from(weight) * (lse - (1.0 - e) * z_target - e * mean)
}

vectorise! {
    /// Cross-entropy of rows of logits; the logits become their own gradient. Returns the weighted sum of the losses.
    ///
    /// # Formula
    /// `loss = sum_r w_r ((1 - e) (lse_r - z_ry) + e (lse_r - mean z_r))`; a mean over unmasked rows is `w_r = m_r / sum m`,
    /// and an upstream gradient `G` multiplies the weights.
    ///
    /// # Shapes
    /// `z` `(n, vocab)`, `targets` and `weights` `(n)`.
    ///
    /// # Panics
    /// When a target of a row with a weight is not below `vocab`.
    pub fn cross_entropy(z: &mut [f32], targets: &[u32], weights: &[f32], smoothing: f32) -> f64 {
        let n = targets.len();
        assert!(n == weights.len() && (n == 0 || z.len().is_multiple_of(n)), "cross_entropy shapes");
        if n == 0 {
            return 0.0;
        }
        let vocab = z.len() / n;
        let mut loss = 0.0;
        for ((z, &target), &weight) in z.chunks_exact_mut(vocab).zip(targets).zip(weights) {
            if weight == 0.0 {
                z.fill(0.0);
            } else {
                loss += row(z, target as usize, weight, smoothing);
            }
        }
        loss
    }
}

vectorise! {
    /// Log-probability of each target under its row of logits; the logits are spent.
    ///
    /// # Shapes
    /// `z` `(n, vocab)`, `targets` and `out` `(n)`.
    pub fn log_probabilities(z: &mut [f32], targets: &[u32], out: &mut [f64]) {
        let n = targets.len();
        assert!(n == out.len() && (n == 0 || z.len().is_multiple_of(n)), "log_probabilities shapes");
        if n == 0 {
            return;
        }
        let vocab = z.len() / n;
        for ((z, &target), out) in z.chunks_exact_mut(vocab).zip(targets).zip(out) {
            let top = max(z);
            let z_target = f64::from(z[target as usize]);
            *out = z_target - f64::from(top) - f64::from(exp_in_place(z, top)).ln();
        }
    }
}

/// Output projection, cross-entropy and all three gradients in one pass over blocks of rows.
///
/// # Formula
/// `z = h W^T`; the loss as in [`cross_entropy`] with the same `weight` for every row; `dh = dz W`, `dW += dz^T h`.
///
/// # Shapes
/// `h` and `dh` `(n, d)`, `w` and `dw` `(vocab, d)`, `targets` `(n)`; `logits` is scratch that grows to `BLOCK * vocab`.
#[expect(clippy::too_many_arguments, reason = "two operands, their gradients, the loss's parameters")]
pub fn linear_cross_entropy(
    h: &[f32],
    w: &[f32],
    targets: &[u32],
    weight: f32,
    smoothing: f32,
    dh: &mut [f32],
    dw: &mut [f32],
    d: usize,
    logits: &mut Vec<f32>,
) -> f64 {
    let vocab = w.len() / d;
    assert!(h.len() == targets.len() * d && dh.len() == h.len() && dw.len() == w.len(), "linear_cross_entropy shapes");
    if logits.len() < BLOCK * vocab {
        logits.resize(BLOCK * vocab, 0.0);
    }
    let weights = [weight; BLOCK];
    let mut loss = 0.0;
    for ((h, dh), targets) in h.chunks(BLOCK * d).zip(dh.chunks_mut(BLOCK * d)).zip(targets.chunks(BLOCK)) {
        let n = targets.len();
        let z = &mut logits[..n * vocab];
        matmul(z, h, Layout::Plain, w, Layout::Transposed, n, d, vocab, false);
        loss += cross_entropy(z, targets, &weights[..n], smoothing);
        matmul(dh, z, Layout::Plain, w, Layout::Plain, n, vocab, d, false);
        matmul(dw, z, Layout::Transposed, h, Layout::Plain, vocab, n, d, true);
    }
    loss
}

/// Log-probability of each target when the logits are `h W^T`; shapes as in [`linear_cross_entropy`].
pub fn linear_log_probabilities(
    h: &[f32],
    w: &[f32],
    targets: &[u32],
    d: usize,
    logits: &mut Vec<f32>,
    out: &mut [f64],
) {
    let vocab = w.len() / d;
    assert!(h.len() == targets.len() * d && out.len() == targets.len(), "linear_log_probabilities shapes");
    if logits.len() < BLOCK * vocab {
        logits.resize(BLOCK * vocab, 0.0);
    }
    for ((h, targets), out) in h.chunks(BLOCK * d).zip(targets.chunks(BLOCK)).zip(out.chunks_mut(BLOCK)) {
        let n = targets.len();
        let z = &mut logits[..n * vocab];
        matmul(z, h, Layout::Plain, w, Layout::Transposed, n, d, vocab, false);
        log_probabilities(z, targets, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed;
    use rand::RngExt;

    fn assert_close(got: &[f32], want: &[f64]) {
        for (got, want) in got.iter().zip(want) {
            assert!((f64::from(*got) - want).abs() < 3e-7, "{got} against {want}");
        }
    }

    #[test]
    fn cross_entropy_matches_the_golden_values() {
        let logits = [2.0, 1.0, 0.0, 0.0, 0.0, 5.0];
        let mut z = logits;
        let loss = cross_entropy(&mut z, &[0, 1], &[0.5, 0.5], 0.0);
        assert!((loss - 2.710_495_9).abs() < 1e-6, "{loss}");
        assert_close(&z, &[-0.167_379_5, 0.122_364_2, 0.045_015_3, 0.003_324_2, -0.496_675_8, 0.493_351_6]);
        let mut z = logits;
        let loss = cross_entropy(&mut z, &[0, 1], &[0.5, 0.5], 0.02);
        assert!((loss - 2.703_829_3).abs() < 1e-6, "{loss}");
        assert_close(&z[..3], &[-0.160_712_9, 0.119_030_9, 0.041_682_0]);
        let mut z = logits;
        let loss = cross_entropy(&mut z, &[0, 1], &[1.0, 0.0], 0.0);
        assert!((loss - 0.407_606_0).abs() < 1e-6, "{loss}");
        assert_close(&z, &[-0.334_759_0, 0.244_728_5, 0.090_030_6, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn the_fused_projection_matches_the_plain_form() {
        let mut rng = seed::stream(5, "cross-entropy tests", "data");
        for (n, d, vocab) in [(1, 3, 2), (130, 7, 19), (300, 16, 33)] {
            let mut random = |n: usize| -> Vec<f32> { (0..n).map(|_| rng.random_range(-1.0..1.0)).collect() };
            let (h, w) = (random(n * d), random(vocab * d));
            let targets: Vec<u32> = (0..n as u32).map(|i| i * 7 % vocab as u32).collect();
            let weight = 3.0 / n as f32;
            let (mut dh, mut dw) = (vec![f32::NAN; n * d], vec![1.0; vocab * d]);
            let loss = linear_cross_entropy(&h, &w, &targets, weight, 0.1, &mut dh, &mut dw, d, &mut Vec::new());
            let mut want_loss = 0.0;
            let (mut want_dh, mut want_dw) = (vec![0.0; n * d], vec![1.0_f64; vocab * d]);
            for (r, &y) in targets.iter().enumerate() {
                let z: Vec<f64> = (0..vocab)
                    .map(|v| (0..d).map(|c| f64::from(h[r * d + c]) * f64::from(w[v * d + c])).sum())
                    .collect();
                let lse = z.iter().map(|z| z.exp()).sum::<f64>().ln();
                let mean = z.iter().sum::<f64>() / vocab as f64;
                want_loss += f64::from(weight) * (lse - 0.9 * z[y as usize] - 0.1 * mean);
                for (v, z) in z.iter().enumerate() {
                    let hit = if v == y as usize { 0.9 } else { 0.0 };
                    let dz = f64::from(weight) * ((z - lse).exp() - hit - 0.1 / vocab as f64);
                    for c in 0..d {
                        want_dh[r * d + c] += dz * f64::from(w[v * d + c]);
                        want_dw[v * d + c] += dz * f64::from(h[r * d + c]);
                    }
                }
            }
            assert!((loss - want_loss).abs() < 1e-5 * want_loss, "{loss} against {want_loss}");
            for (got, want) in dh.iter().zip(&want_dh).chain(dw.iter().zip(&want_dw)) {
                assert!((f64::from(*got) - want).abs() < 2e-5 * want.abs().max(0.1), "{got} against {want}");
            }
            let mut each = vec![0.0; n];
            linear_log_probabilities(&h, &w, &targets, d, &mut Vec::new(), &mut each);
            let mut z = vec![0.0; n * vocab];
            matmul(&mut z, &h, Layout::Plain, &w, Layout::Transposed, n, d, vocab, false);
            let plain = cross_entropy(&mut z, &targets, &vec![1.0; n], 0.0);
            assert!((plain + each.iter().sum::<f64>()).abs() < 1e-5 * plain);
        }
    }

    #[test]
    #[should_panic(expected = "index out of bounds")]
    fn a_target_outside_the_vocabulary_is_not_read() {
        cross_entropy(&mut [0.0; 3], &[3], &[1.0], 0.0);
    }
}
