//! Linear reconstruction: the best linear estimate of every pixel.

use super::Pixels;
use crate::attack::adapt::Adaptation;
use crate::attack::linear::{self, Cholesky};
use crate::attack::{Attack, Error, Guess, Inverter, Knowledge, Progress, View};
use crate::encode::Embeddings;
use crate::nn::kernel::{Layout, matmul};
use crate::seed;
use rand::seq::SliceRandom;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Ridge regression from the released vector to the pixels.
///
/// # Formula
/// `x^ = m + W'(y - s)`, `W = (S'S / n + (sigma^2 + lambda) I)^-1 S'X / n` on centred signals `S` (releases without their
/// noise) and centred pixels `X`: the noise enters in closed form, which equals training on infinitely many noisy copies.
/// `lambda` is chosen on held-out auxiliary pictures, with noise where there is noise.
///
/// # Source
/// Linear minimum-mean-square-error estimation.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ridge {}

/// Ridges tried, as shares of the mean eigenvalue of the signal's covariance.
const GRID: [f64; 5] = [1e-3, 1e-2, 0.1, 1.0, 10.0];
/// One auxiliary picture in so many is held out to choose the ridge.
const HELD_OUT: usize = 8;

/// The regression from releases to anything that the attacker knows of its own pictures: `x -> (x - from) W + to`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Map {
    weights: Vec<f32>,
    from: Vec<f32>,
    to: Vec<f32>,
}

impl Map {
    /// Fits to `truths`, one row for each auxiliary picture; the ridge is the one that serves held-out rows best.
    pub(super) fn choose(
        view: &View,
        adaptation: &Adaptation,
        truths: &Embeddings,
        task: &str,
        progress: &dyn Progress,
    ) -> Result<Self, Error> {
        let (signal, seen) = (adaptation.signal("ridge")?, adaptation.draw("ridge, held out")?);
        let noise = adaptation.sigma().powi(2);
        let mut order: Vec<usize> = (0..truths.len()).collect();
        order.shuffle(&mut seed::stream(view.seed, task, "ridge, held out"));
        let held_out = order.split_off(order.len() - (order.len() / HELD_OUT).max(1));
        let (_, cov) = linear::moments(&signal);
        let d = signal.dim();
        let scale = (0..d).map(|i| cov[i * d + i]).sum::<f64>() / d as f64;
        let mut best = (f64::INFINITY, GRID[0]);
        for (done, share) in GRID.into_iter().enumerate() {
            if progress.is_interrupted() {
                return Err(Error::Interrupted);
            }
            let map = Self::fit(&signal, truths, &order, noise + share * scale)?;
            let told = map.apply(&seen.select(&held_out));
            let truths = held_out.iter().flat_map(|&i| truths.row(i));
            let error: f64 = told.iter().zip(truths).map(|(a, b)| f64::from(a - b).powi(2)).sum();
            if error < best.0 {
                best = (error, share);
            }
            progress.update(done + 1, GRID.len() + 1, "ridges");
        }
        let all: Vec<usize> = (0..truths.len()).collect();
        Self::fit(&signal, truths, &all, noise + best.1 * scale)
    }

    /// Fits on the rows `keep`, for noise of variance `noise` on the left side.
    fn fit(signal: &Embeddings, truths: &Embeddings, keep: &[usize], noise: f64) -> Result<Self, Error> {
        let (n, d, q) = (keep.len(), signal.dim(), truths.dim());
        let signal = signal.select(keep);
        let (from, mut gram) = linear::moments(&signal);
        let mut to = vec![0.0_f64; q];
        for &i in keep {
            to.iter_mut().zip(truths.row(i)).for_each(|(t, &v)| *t += f64::from(v) / n as f64);
        }
        let x: Vec<f32> =
            signal.rows().flat_map(|r| r.iter().zip(&from).map(|(&v, m)| (f64::from(v) - m) as f32)).collect();
        let y: Vec<f32> =
            keep.iter().flat_map(|&i| truths.row(i).iter().zip(&to).map(|(&v, m)| (f64::from(v) - m) as f32)).collect();
        linear::add_to_diagonal(&mut gram, d, noise);
        let factor = Cholesky::new(&gram, d)
            .ok_or_else(|| Error::Pictures("the releases have no covariance to regress on".to_owned()))?;
        let cross = linear::cross(&x, &y, n, d, q);
        let columns: Vec<Vec<f64>> = (0..q)
            .into_par_iter()
            .map(|j| {
                let mut column: Vec<f64> = (0..d).map(|i| cross[i * q + j] / n as f64).collect();
                factor.solve(&mut column);
                column
            })
            .collect();
        let mut weights = vec![0.0_f32; d * q];
        for (j, column) in columns.iter().enumerate() {
            for (i, &w) in column.iter().enumerate() {
                weights[i * q + j] = w as f32;
            }
        }
        let single = |values: Vec<f64>| values.into_iter().map(|v| v as f32).collect();
        Ok(Self { weights, from: single(from), to: single(to) })
    }

    /// What it says of each row, row-major.
    pub(super) fn apply(&self, rows: &Embeddings) -> Vec<f32> {
        let (n, d, q) = (rows.len(), self.from.len(), self.to.len());
        let x: Vec<f32> = rows.rows().flat_map(|r| r.iter().zip(&self.from).map(|(v, m)| v - m)).collect();
        let mut out: Vec<f32> = (0..n).flat_map(|_| self.to.iter().copied()).collect();
        matmul(&mut out, &x, Layout::Plain, &self.weights, Layout::Plain, n, d, q, true);
        out
    }
}

struct Fitted {
    map: Map,
    side: usize,
}

impl Attack for Ridge {
    fn needs(&self) -> Knowledge {
        Knowledge { auxiliary: true, pipeline: true, encoder: true, released: true, leaked_pairs: 0 }
    }

    fn fit<'a>(
        &self,
        view: &'a View<'a>,
        task: &str,
        progress: &dyn Progress,
    ) -> Result<Box<dyn Inverter + 'a>, Error> {
        let pixels = view.pictures()?;
        let adaptation = Adaptation::fit(view)?;
        let map = Map::choose(view, &adaptation, &pixels.table()?, task, progress)?;
        Ok(Box::new(Fitted { map, side: pixels.side() }))
    }
}

impl Inverter for Fitted {
    fn invert(&self, released: &Embeddings, _: &str, _: &dyn Progress) -> Result<Vec<Guess>, Error> {
        let drawn = Pixels::new(self.side, self.map.apply(released));
        Ok((0..drawn.len()).map(|i| Guess::drawn(drawn.picture(i), 0.0)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_distr::{Distribution, StandardNormal};

    /// The closed form is what a regression on a thousand noisy copies converges to.
    #[test]
    fn the_noise_term_equals_training_on_noisy_copies() {
        let (n, d, copies, sigma) = (40, 5, 1000, 0.3_f64);
        let mut rng = seed::stream(2, "ridge", "copies");
        let mut normal = move || -> f64 { StandardNormal.sample(&mut rng) };
        let signal: Vec<f32> = (0..n * d).map(|_| normal() as f32).collect();
        let values: Vec<f32> = (0..n).flat_map(|i| [signal[i * d], -signal[i * d + 1], 0.5]).collect();
        let noisy: Vec<f32> = (0..copies).flat_map(|_| signal.clone()).map(|v| v + (sigma * normal()) as f32).collect();
        let rows = |values: Vec<f32>| Embeddings::new(values, d).expect("finite");
        let table = |values: Vec<f32>| Embeddings::new(values, 3).expect("finite");
        let closed = Map::fit(&rows(signal), &table(values.clone()), &(0..n).collect::<Vec<_>>(), sigma * sigma)
            .expect("a covariance");
        let many: Vec<f32> = (0..copies).flat_map(|_| values.clone()).collect();
        let all: Vec<usize> = (0..n * copies).collect();
        let trained = Map::fit(&rows(noisy), &table(many), &all, 0.0).expect("a covariance");
        for (a, b) in closed.weights.iter().zip(&trained.weights) {
            assert!((a - b).abs() < 0.02, "{a} against {b}");
        }
    }
}
