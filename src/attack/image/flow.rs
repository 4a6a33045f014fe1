//! A rectified flow: from noise and a release to codes of pictures that may stand behind it.

use crate::attack::linear::{self, orthonormalise};
use crate::attack::recover::svd;
use crate::attack::{Curve, Error, Progress};
use crate::encode::Embeddings;
use crate::nn::kernel::{Layout, matmul};
use crate::nn::{self, AdamW, Fitting, Params, Training, ops};
use crate::seed;
use candle_core::{Device, Tensor};
use rand::RngExt;
use rand::seq::SliceRandom;
use rand_distr::{Distribution, StandardNormal};

/// Width of the three hidden layers.
const WIDTH: usize = 512;
/// Frequencies in which time is written.
const FREQUENCIES: usize = 8;
/// Euler steps of a sample.
const EULER: usize = 20;
/// One picture in so many is held out.
const HELD_OUT: usize = 16;
/// Points of the learning curve.
const POINTS: usize = 16;
/// Points without an improvement after which the training ends.
const PATIENCE: usize = 4;

/// The leading directions of what the attacker sees, each with unit variance.
pub(super) struct Condition {
    mean: Vec<f32>,
    /// `(dim, k)`.
    axes: Vec<f32>,
    k: usize,
}

impl Condition {
    /// Fits on rows `(n, d)`; at most `k` directions, by subspace iteration on their covariance.
    pub(super) fn fit(rows: &Embeddings, k: usize, rng: &mut seed::Stream) -> Self {
        let d = rows.dim();
        let (mean, cov) = linear::moments(rows);
        let cov: Vec<f32> = cov.into_iter().map(|v| v as f32).collect();
        let k = k.min(d).min(rows.len());
        let wide = (k + 8).min(d);
        let mut basis: Vec<f32> = StandardNormal.sample_iter(&mut *rng).take(d * wide).collect();
        let turned = |basis: &[f32]| {
            let mut out = vec![0.0; d * wide];
            matmul(&mut out, &cov, Layout::Plain, basis, Layout::Plain, d, d, wide, false);
            out
        };
        orthonormalise(&mut basis, wide);
        for _ in 0..6 {
            basis = turned(&basis);
            orthonormalise(&mut basis, wide);
        }
        let leading = svd(&linear::cross(&basis, &turned(&basis), d, wide, wide), wide);
        let scale = |j: usize| leading.values[j].max(1e-12).sqrt().recip();
        let turn: Vec<f32> = (0..k)
            .flat_map(|j| leading.left[j * wide..(j + 1) * wide].iter().map(move |v| (v * scale(j)) as f32))
            .collect();
        let mut axes = vec![0.0; d * k];
        matmul(&mut axes, &basis, Layout::Plain, &turn, Layout::Transposed, d, wide, k, false);
        Self { mean: mean.into_iter().map(|v| v as f32).collect(), axes, k }
    }

    /// Coordinates of rows along the directions, `(n, k)`.
    pub(super) fn of(&self, rows: &Embeddings) -> Embeddings {
        let centred = rows.about(&self.mean);
        let mut out = vec![0.0; rows.len() * self.k];
        matmul(
            &mut out,
            centred.values(),
            Layout::Plain,
            &self.axes,
            Layout::Plain,
            rows.len(),
            rows.dim(),
            self.k,
            false,
        );
        Embeddings::new(out, self.k).expect("a finite map of finite rows is finite")
    }
}

/// A velocity field between normal noise and codes.
///
/// # Formula
/// `v(z_t, t, c)` minimises `E|v - (z_1 - z_0)|^2` on `z_t = (1 - t) z_0 + t z_1`, `z_0` normal, `z_1` a code, `c` what was
/// released of its picture; a sample follows `v` from `z_0` by twenty Euler steps. Few pictures are soon learnt by heart, so
/// the weights of the least held-out error are kept.
///
/// # Source
/// Liu, Gong and Liu 2023 (rectified flow).
pub(super) struct Flow {
    params: Params,
    latent: usize,
    curve: Curve,
}

/// What a training takes.
pub(super) struct Course<'a> {
    pub steps: usize,
    pub batch: usize,
    /// The codes, one for each auxiliary picture.
    pub codes: &'a Embeddings,
    /// What is released beside them, drawn anew for each epoch.
    pub conditions: &'a dyn Fn(usize) -> Result<Embeddings, Error>,
    pub stream: &'a dyn Fn(&str) -> seed::Stream,
}

impl Flow {
    pub(super) fn train(course: &Course, progress: &dyn Progress) -> Result<Self, Error> {
        let Course { steps, batch, codes, conditions, stream } = *course;
        let mut seen = conditions(0)?;
        let (latent, mut params, mut rng) = (codes.dim(), Params::default(), stream("flow"));
        let inputs = latent + 2 * FREQUENCIES + seen.dim();
        for (from, to) in [(inputs, WIDTH), (WIDTH, WIDTH), (WIDTH, WIDTH), (WIDTH, latent)] {
            params.normal(&[from, to], (from as f64).sqrt().recip(), &mut rng);
            params.constant(&[to], 0.0);
        }
        let training = Training {
            lr: 1e-3,
            warmup_steps: (steps as u64 / 20).max(1),
            total_steps: steps as u64,
            ema_decay: 0.998,
            adamw: AdamW { weight_decay: 0.05, ..AdamW::default() },
            ..Training::default()
        };
        let mut fitting = Fitting::new(params, training)?;
        let mut order: Vec<usize> = (0..codes.len()).collect();
        order.shuffle(&mut rng);
        let held_out = order.split_off(order.len() - (order.len() / HELD_OUT).clamp(1, 256));
        let (mut epoch, mut at, mut points) = (0, 0, Vec::<(f64, f64)>::new());
        let mut best: Option<(usize, f64, Params)> = None;
        for step in 0..steps {
            if progress.is_interrupted() {
                return Err(Error::Interrupted);
            }
            if at + batch > order.len() && at > 0 {
                epoch += 1;
                seen = conditions(epoch)?;
                order.shuffle(&mut rng);
                at = 0;
            }
            let rows = &order[at..(at + batch).min(order.len())];
            at += batch;
            let pair = Pair::draw(codes, &seen, rows, &mut rng)?;
            fitting.step(|p| pair.loss(p))?;
            if (step + 1) % steps.div_ceil(POINTS) == 0 || step + 1 == steps {
                let pair = Pair::draw(codes, &seen, &held_out, &mut stream("held out"))?;
                let params = fitting.averaged();
                let loss = f64::from(pair.loss(&params.tensors()?)?.to_scalar::<f32>().map_err(nn::Error::from)?);
                points.push(((step + 1) as f64, loss));
                match &best {
                    Some((_, least, _)) if loss >= *least => {}
                    _ => best = Some((points.len(), loss, params)),
                }
                if best.as_ref().is_some_and(|(at, ..)| at + PATIENCE <= points.len()) {
                    break;
                }
            }
            progress.update(step + 1, steps, "flow steps");
        }
        let curve = Curve {
            title: "flow, held-out squared error of the velocity".to_owned(),
            x_label: "training steps".to_owned(),
            points,
        };
        let params = best.map_or_else(|| fitting.averaged(), |(_, _, params)| params);
        Ok(Self { params, latent, curve })
    }

    /// One code for each row of `seen`.
    pub(super) fn sample(&self, seen: &Embeddings, rng: &mut seed::Stream) -> Result<Embeddings, Error> {
        let n = seen.len();
        let start: Vec<f32> = StandardNormal.sample_iter(rng).take(n * self.latent).collect();
        let ends = || -> Result<Vec<f32>, nn::Error> {
            let p = self.params.tensors()?;
            let c = Tensor::from_slice(seen.values(), (n, seen.dim()), &Device::Cpu)?;
            let mut z = Tensor::from_vec(start, (n, self.latent), &Device::Cpu)?;
            for step in 0..EULER {
                let t = vec![(step as f32 + 0.5) / EULER as f32; n];
                z = (&z + (velocity(&p, &z, &t, &c)? / EULER as f64)?)?;
            }
            Ok(z.flatten_all()?.to_vec1()?)
        };
        Ok(Embeddings::new(ends()?, self.latent)?)
    }

    pub(super) fn curve(&self) -> &Curve {
        &self.curve
    }
}

/// A batch on the way from noise to codes.
struct Pair {
    between: Tensor,
    velocity: Tensor,
    t: Vec<f32>,
    condition: Tensor,
}

impl Pair {
    fn draw(codes: &Embeddings, seen: &Embeddings, rows: &[usize], rng: &mut seed::Stream) -> Result<Self, Error> {
        let (n, latent) = (rows.len(), codes.dim());
        let (mut between, mut velocity, mut t) = (Vec::new(), Vec::new(), Vec::with_capacity(n));
        for &i in rows {
            let time: f32 = rng.random();
            t.push(time);
            for &end in codes.row(i) {
                let start: f32 = StandardNormal.sample(rng);
                between.push((1.0 - time) * start + time * end);
                velocity.push(end - start);
            }
        }
        let tensor = |v: Vec<f32>, d: usize| Tensor::from_vec(v, (n, d), &Device::Cpu).map_err(nn::Error::from);
        let condition = tensor(seen.select(rows).values().to_vec(), seen.dim())?;
        Ok(Self { between: tensor(between, latent)?, velocity: tensor(velocity, latent)?, t, condition })
    }

    fn loss(&self, p: &[Tensor]) -> Result<Tensor, nn::Error> {
        Ok((velocity(p, &self.between, &self.t, &self.condition)? - &self.velocity)?.sqr()?.mean_all()?)
    }
}

fn velocity(p: &[Tensor], z: &Tensor, t: &[f32], condition: &Tensor) -> Result<Tensor, nn::Error> {
    let waves = t.iter().flat_map(|&t| {
        (0..FREQUENCIES).flat_map(move |k| {
            let angle = std::f32::consts::FRAC_PI_2 * t * (1 << k) as f32;
            [angle.sin(), angle.cos()]
        })
    });
    let time = Tensor::from_vec(waves.collect::<Vec<f32>>(), (t.len(), 2 * FREQUENCIES), &Device::Cpu)?;
    let mut x = Tensor::cat(&[z, &time, condition], 1)?;
    for layer in 0..3 {
        x = ops::bias_gelu(&x.matmul(&p[2 * layer])?, &p[2 * layer + 1])?;
    }
    Ok(x.matmul(&p[6])?.broadcast_add(&p[7])?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::Quiet;

    /// A code that is its condition, turned and shifted: samples must follow the condition, and without one the spread.
    #[test]
    fn samples_follow_what_was_released() {
        let mut rng = seed::stream(4, "flow", "codes");
        let n = 400;
        let seen: Vec<f32> = StandardNormal.sample_iter(&mut rng).take(2 * n).collect();
        let codes: Vec<f32> = seen.chunks(2).flat_map(|c| [0.9 * c[1] + 0.1, -0.9 * c[0]]).collect();
        let table = |v: Vec<f32>| Embeddings::new(v, 2).expect("finite");
        let (seen, codes) = (table(seen), table(codes));
        let train = |conditions: &dyn Fn(usize) -> Result<Embeddings, Error>| {
            let stream = |purpose: &str| seed::stream(4, "flow", purpose);
            let course = Course { steps: 400, batch: 64, codes: &codes, conditions, stream: &stream };
            Flow::train(&course, &Quiet).expect("trains")
        };
        let errors = |flow: &Flow| -> f64 {
            let drawn = flow.sample(&seen, &mut seed::stream(4, "flow", "samples")).expect("samples");
            let square = |(a, b): (&f32, &f32)| f64::from(a - b).powi(2);
            drawn.values().iter().zip(codes.values()).map(square).sum::<f64>() / (2 * n) as f64
        };
        let flow = train(&|_| Ok(seen.clone()));
        assert!(errors(&flow) < 0.1, "{}", errors(&flow));
        assert!(flow.curve().points.last().expect("a point").1 < flow.curve().points[0].1);
        // Two independent draws of variance .81 are 1.62 apart.
        let blind = train(&|_| Ok(table(vec![0.0; 2 * n])));
        assert!((1.2..2.1).contains(&errors(&blind)), "{}", errors(&blind));
    }

    #[test]
    fn a_condition_has_unit_variance_along_the_directions_that_vary() {
        let mut rng = seed::stream(4, "condition", "rows");
        let values: Vec<f32> = (0..500)
            .flat_map(|_| {
                let z: [f32; 3] = std::array::from_fn(|_| StandardNormal.sample(&mut rng));
                [5.0 + 3.0 * z[0], 2.0 * z[1] - 1.0, 0.01 * z[2]]
            })
            .collect();
        let rows = Embeddings::new(values, 3).expect("finite");
        let condition = Condition::fit(&rows, 2, &mut rng);
        let (mean, cov) = linear::moments(&condition.of(&rows));
        assert!(mean.iter().all(|m| m.abs() < 1e-3), "{mean:?}");
        for (i, v) in cov.iter().enumerate() {
            assert!((v - f64::from(u8::from(i % 3 == 0))).abs() < 1e-2, "{cov:?}");
        }
    }
}
