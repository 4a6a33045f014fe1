//! `AdamW` over flat arenas, with the moving average of the weights in the same pass.

use super::kernel::vectorise;
use serde::{Deserialize, Serialize};

/// Moments and decay of [`AdamW`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdamW {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay, in units of the learning rate.
    pub weight_decay: f64,
}

impl Default for AdamW {
    fn default() -> Self {
        AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01 }
    }
}

/// What one step does to every element.
#[derive(Debug, Clone, Copy)]
pub(super) struct Update {
    pub(super) shrink: f32,
    pub(super) step: f32,
    pub(super) beta1: f32,
    pub(super) rest1: f32,
    pub(super) beta2: f32,
    pub(super) rest2: f32,
    pub(super) unbias2: f32,
    pub(super) eps: f32,
    pub(super) clip: f32,
    pub(super) average: f32,
}

impl AdamW {
    /// The coefficients of step `t` (from 1); `clip` multiplies the gradient, `average` is the weight that the moving
    /// average keeps.
    pub(super) fn update(&self, t: u64, lr: f64, decay: bool, clip: f64, average: f64) -> Update {
        let t = i32::try_from(t).unwrap_or(i32::MAX);
        let decay = if decay { self.weight_decay } else { 0.0 };
        Update {
            shrink: (1.0 - lr * decay) as f32,
            step: (lr / (1.0 - self.beta1.powi(t))) as f32,
            beta1: self.beta1 as f32,
            rest1: (1.0 - self.beta1) as f32,
            beta2: self.beta2 as f32,
            rest2: (1.0 - self.beta2) as f32,
            unbias2: (1.0 / (1.0 - self.beta2.powi(t))) as f32,
            eps: self.eps as f32,
            clip: clip as f32,
            average: average as f32,
        }
    }
}

vectorise! {
    /// One pass: moments, weights, moving average.
    ///
    /// # Formula
    /// `m <- b1 m + (1 - b1) g`, `v <- b2 v + (1 - b2) g^2`,
    /// `p <- p (1 - lr wd) - lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)`, `e <- a e + (1 - a) p`.
    pub(super) fn adamw(p: &mut [f32], m: &mut [f32], v: &mut [f32], ema: &mut [f32], g: &[f32], u: Update) {
        for ((((p, m), v), ema), &g) in p.iter_mut().zip(m).zip(v).zip(ema).zip(g) {
            let g = g * u.clip;
            *m = u.beta1.mul_add(*m, u.rest1 * g);
            *v = u.beta2.mul_add(*v, u.rest2 * g * g);
            *p = p.mul_add(u.shrink, -u.step * *m / ((*v * u.unbias2).sqrt() + u.eps));
            *ema = u.average.mul_add(*ema - *p, *p);
        }
    }

    /// `a += b`; returns the sum of the squares.
    pub(super) fn add_and_square(a: &mut [f32], b: &[f32]) -> f64 {
        let mut total = 0.0;
        for (a, b) in a.chunks_mut(1024).zip(b.chunks(1024)) {
            for (a, &b) in a.iter_mut().zip(b) {
                *a += b;
            }
            total += f64::from(super::kernel::dot(a, a));
        }
        total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_steps_on_a_parabola_match_the_reference() {
        let (mut p, mut m, mut v, mut ema) = ([1.0_f32, -2.0], [0.0; 2], [0.0; 2], [1.0, -2.0]);
        let golden = [[0.899_000_0, -1.898_000_0], [0.798_519_0, -1.796_272_6], [0.698_911_2, -1.694_944_5]];
        for (t, golden) in (1..).zip(golden) {
            let g = p.map(|p| 2.0 * p);
            adamw(&mut p, &mut m, &mut v, &mut ema, &g, AdamW::default().update(t, 0.1, true, 1.0, 0.5));
            for (p, golden) in p.iter().zip(golden) {
                assert!((f64::from(*p) - golden).abs() < 3e-7, "step {t}: {p} against {golden}");
            }
        }
        assert!((ema[0] - (0.125 + 0.125 * 0.899 + 0.25 * 0.798_519 + 0.5 * 0.698_911_2)).abs() < 1e-6);
    }
}
