//! Draws that several stages share: a stream for each row, random directions, angles around a row.

use super::Error;
use super::stage::Release;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;

/// Changes each row with a generator of its own: row `i` draws from `ChaCha20` stream `i` under a key drawn once, so that
/// neither the number of rows nor of threads changes what a row gets.
pub(super) fn each_row(release: &mut Release, rng: &mut dyn Rng, change: impl Fn(&mut [f32], &mut ChaCha20Rng) + Sync) {
    let mut key = [0_u8; 32];
    rng.fill_bytes(&mut key);
    let dim = release.vectors.dim();
    release.vectors.values_mut().par_chunks_exact_mut(dim).enumerate().for_each(|(i, row)| {
        let mut noise = ChaCha20Rng::from_seed(key);
        noise.set_stream(i as u64);
        change(row, &mut noise);
    });
}

/// A direction, even over the sphere in `dim` dimensions.
pub(super) fn direction(dim: usize, noise: &mut ChaCha20Rng) -> Vec<f64> {
    loop {
        let mut u: Vec<f64> = (0..dim).map(|_| StandardNormal.sample(noise)).collect();
        let length = u.iter().map(|v| v * v).sum::<f64>().sqrt();
        // Zero has no direction; it is drawn with probability 0.
        if length > 0.0 {
            for v in &mut u {
                *v /= length;
            }
            return u;
        }
    }
}

/// `row cos + u sin` with `u` even over the unit vectors orthogonal to the unit `row`, in `f64`.
pub(super) fn turned(row: &[f32], cosine: f64, noise: &mut ChaCha20Rng) -> Vec<f64> {
    let sine = ((1.0 - cosine) * (1.0 + cosine)).max(0.0).sqrt();
    // The row is a unit vector up to f32 rounding; here it must be one.
    let norm = super::clip::norm(row);
    let x: Vec<f64> = row.iter().map(|&v| f64::from(v) / norm).collect();
    let mut u = direction(row.len(), noise);
    let along: f64 = u.iter().zip(&x).map(|(a, b)| a * b).sum();
    u.iter_mut().zip(&x).for_each(|(v, x)| *v -= along * x);
    let length = u.iter().map(|v| v * v).sum::<f64>().sqrt().max(1e-300);
    x.iter().zip(&u).map(|(x, u)| cosine * x + sine * u / length).collect()
}

/// A uniform number in `(0, 1)` with 53 bits, never 0 or 1.
pub(super) fn uniform(noise: &mut ChaCha20Rng) -> f64 {
    ((noise.next_u64() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
}

/// Refuses rows with fewer coordinates than a mechanism needs.
pub(super) fn at_least(stage: &str, least: usize, dim: usize) -> Result<(), Error> {
    if dim >= least {
        return Ok(());
    }
    Err(Error::Input(format!("`{stage}` needs at least {least} coordinates, the rows have {dim}; use `gaussian`")))
}
