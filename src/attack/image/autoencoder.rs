//! A variational autoencoder of the attacker's own pictures: what pictures of this kind look like, in a few numbers.

use super::network::{Downward, Upward};
use super::{Pixels, network::loss};
use crate::attack::{Curve, Error, Progress, View, keep};
use crate::encode::Embeddings;
use crate::nn::{self, AdamW, Fitting, Params, Training};
use crate::seed;
use candle_core::{Device, Tensor};
use rand::RngExt;
use rand::seq::SliceRandom;
use rand_distr::{Distribution, StandardNormal};
use serde::{Deserialize, Serialize};

/// Weight of a nat of the code beside the loss of a picture.
const NAT: f64 = 1e-4;
/// One picture in so many is held out.
const HELD_OUT: usize = 16;
/// Points of the learning curve.
const POINTS: usize = 8;

/// What a training depends on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Course {
    /// Numbers in a code.
    pub latent: usize,
    /// Channels of the widest picture layer; see [`Upward`].
    pub channels: usize,
    /// Training steps.
    pub steps: usize,
    /// Pictures in a step.
    pub batch: usize,
    /// Highest learning rate.
    pub lr: f64,
}

/// The trained pair.
///
/// # Formula
/// `E[(|x^ - x| + 1 - SSIM) / 2] + NAT KL(N(m, v) | N(0, 1))`, `x^` drawn from `z ~ N(m(x), v(x))`; pictures are mirrored at
/// random. Codes are handed out with unit variance in each coordinate.
///
/// # Source
/// Kingma and Welling 2014.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Autoencoder {
    up: Upward,
    down: Downward,
    params: Params,
    /// Mean and standard deviation of the codes of the pictures that it was trained on.
    centre: Vec<f32>,
    spread: Vec<f32>,
    curve: Curve,
}

#[derive(Serialize, Deserialize)]
struct Header {
    up: Upward,
    down: Downward,
    centre: Vec<f32>,
    spread: Vec<f32>,
    curve: Curve,
}

impl Autoencoder {
    /// Trains on the view's pictures alone, so that all protections and victims share it; from `start`, where the project
    /// keeps one of the same layout.
    pub(super) fn train(
        view: &View,
        pixels: &Pixels,
        course: &Course,
        start: Option<&Self>,
        progress: &dyn Progress,
    ) -> Result<Self, Error> {
        let from = start.map_or_else(String::new, |s| blake3::hash(&s.to_bytes()).to_hex().to_string());
        let name = format!("autoencoder v2\u{0}{}\u{0}{}\u{0}{course:?}\u{0}{from}", view.inputs, view.seed);
        let hash = blake3::hash(name.as_bytes()).to_hex();
        let path = view.workshop.join(format!("autoencoder-{}.bin", &hash[..20]));
        if let Some(done) = std::fs::read(&path).ok().and_then(|bytes| Self::from_bytes(&bytes)) {
            return Ok(done);
        }
        let stream = |purpose: &str| seed::stream(view.seed, &name, purpose);
        let own = Self::train_on(pixels, course, start, stream, progress)?;
        keep(&path, &own.to_bytes())?;
        Ok(own)
    }

    /// Trains on pictures.
    pub(super) fn train_on(
        pixels: &Pixels,
        course: &Course,
        start: Option<&Self>,
        stream: impl Fn(&str) -> seed::Stream,
        progress: &dyn Progress,
    ) -> Result<Self, Error> {
        let mut own = match start {
            Some(start) => start.clone(),
            None => Self::new(course.latent, pixels.side(), course.channels, &mut stream("initial weights"))?,
        };
        own.curve = own.fit(pixels, course, stream, progress)?;
        own.standardise(pixels)?;
        Ok(own)
    }

    /// Untrained.
    fn new(latent: usize, side: usize, channels: usize, rng: &mut seed::Stream) -> Result<Self, Error> {
        let up = Upward::new(latent, side, channels)?;
        let down = Downward::new(&up, 2 * latent);
        let mut params = Params::default();
        down.add(&mut params, rng);
        up.add(&mut params, rng);
        let (centre, spread) = (vec![0.0; latent], vec![1.0; latent]);
        Ok(Self { up, down, params, centre, spread, curve: Curve::default() })
    }

    /// Its tensors.
    pub(super) fn params(&self) -> &Params {
        &self.params
    }

    /// The decoder's tensors behind its first matrix, which depends on what is decoded.
    pub(super) fn stages(&self) -> impl Iterator<Item = (&[usize], &[f32])> {
        self.params.parts().skip(self.down.tensors() + 1)
    }

    /// One that was kept: its layout, its parameters in order, and its pictures' codes.
    pub(super) fn of(
        [latent, side, channels]: [usize; 3],
        values: Vec<f32>,
        (centre, spread): (Vec<f32>, Vec<f32>),
    ) -> Result<Self, Error> {
        let mut own = Self::new(latent, side, channels, &mut seed::stream(0, "autoencoder", "shapes"))?;
        own.params.set(values)?;
        if centre.len() != latent || spread.len() != latent {
            return Err(Error::Pictures(format!("a prior of {latent} numbers has moments of {}", centre.len())));
        }
        Ok(Self { centre, spread, ..own })
    }

    /// Mean and standard deviation of its pictures' codes.
    pub(super) fn moments(&self) -> (&[f32], &[f32]) {
        (&self.centre, &self.spread)
    }

    fn fit(
        &mut self,
        pixels: &Pixels,
        course: &Course,
        stream: impl Fn(&str) -> seed::Stream,
        progress: &dyn Progress,
    ) -> Result<Curve, Error> {
        let training = Training {
            lr: course.lr,
            warmup_steps: (course.steps as u64 / 20).max(1),
            total_steps: course.steps as u64,
            ema_decay: 0.995,
            adamw: AdamW { weight_decay: 0.01, ..AdamW::default() },
            ..Training::default()
        };
        let mut fitting = Fitting::new(self.params.clone(), training)?;
        let mut rng = stream("batches");
        let mut order: Vec<usize> = (0..pixels.len()).collect();
        order.shuffle(&mut rng);
        let held_out = order.split_off(order.len() - (order.len() / HELD_OUT).clamp(1, 256));
        let (mut at, mut points) = (order.len(), Vec::new());
        for step in 0..course.steps {
            if progress.is_interrupted() {
                return Err(Error::Interrupted);
            }
            if at + course.batch > order.len() {
                order.shuffle(&mut rng);
                at = 0;
            }
            let rows = &order[at..(at + course.batch).min(order.len())];
            at += course.batch;
            let x = pictures(pixels, rows, |_| rng.random())?;
            let noise: Vec<f32> = StandardNormal.sample_iter(&mut rng).take(rows.len() * course.latent).collect();
            let noise = Tensor::from_vec(noise, (rows.len(), course.latent), &Device::Cpu).map_err(nn::Error::from)?;
            fitting.step(|p| {
                let (mean, log_variance) = self.code(p, &x)?;
                let z = (&mean + (&log_variance * 0.5)?.exp()? * noise)?;
                let kl = ((log_variance.exp()? + mean.sqr()?)? - (log_variance + 1.0)?)?.sum_all()?;
                let drawn = self.up.forward(&p[self.down.tensors()..], &z)?;
                Ok((loss(&drawn, &x)? + (kl * (0.5 * NAT / rows.len() as f64))?)?)
            })?;
            if (step + 1) % course.steps.div_ceil(POINTS) == 0 || step + 1 == course.steps {
                self.params = fitting.averaged();
                points.push(((step + 1) as f64, self.held_out(pixels, &held_out)?));
            }
            progress.update(step + 1, course.steps, "autoencoder steps");
        }
        Ok(Curve {
            title: "autoencoder, held-out loss: L1 and structure, halves".to_owned(),
            x_label: "training steps".to_owned(),
            points,
        })
    }

    /// Mean and log-variance of each picture's code.
    fn code(&self, p: &[Tensor], x: &Tensor) -> Result<(Tensor, Tensor), nn::Error> {
        let both = self.down.forward(p, x)?;
        let latent = both.dims()[1] / 2;
        // Bounded, so that no step of a young network overflows, and small at first: codes drowned in noise are ignored.
        let log_variance = (((both.narrow(1, latent, latent)? - 3.0)? / 6.0)?.tanh()? * 6.0)?;
        Ok((both.narrow(1, 0, latent)?.contiguous()?, log_variance))
    }

    /// The loss on pictures drawn from the means of their codes.
    fn held_out(&self, pixels: &Pixels, rows: &[usize]) -> Result<f64, Error> {
        let (tensors, mut sum) = (self.params.tensors()?, 0.0);
        for rows in rows.chunks(64) {
            let x = pictures(pixels, rows, |_| false)?;
            let drawn = self.up.forward(&tensors[self.down.tensors()..], &self.code(&tensors, &x)?.0)?;
            let loss: f32 = loss(&drawn, &x)?.to_scalar().map_err(nn::Error::from)?;
            sum += f64::from(loss) * rows.len() as f64;
        }
        Ok(sum / rows.len().max(1) as f64)
    }

    fn standardise(&mut self, pixels: &Pixels) -> Result<(), Error> {
        let codes = self.encode(pixels)?;
        let n = codes.len().max(1) as f64;
        for j in 0..codes.dim() {
            let column = || codes.rows().map(|row| f64::from(row[j]));
            let mean = column().sum::<f64>() / n;
            let variance = column().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
            self.centre[j] = mean as f32;
            // A coordinate that says nothing keeps its size, so that it stays still.
            self.spread[j] = variance.sqrt().max(1e-3) as f32;
        }
        Ok(())
    }

    /// The standardised code of each picture.
    pub(super) fn encode(&self, pixels: &Pixels) -> Result<Embeddings, Error> {
        let tensors = self.params.tensors()?;
        let mut out = Embeddings::empty(self.centre.len());
        let all: Vec<usize> = (0..pixels.len()).collect();
        for rows in all.chunks(64) {
            let mean = self.code(&tensors, &pictures(pixels, rows, |_| false)?)?.0;
            for row in mean.to_vec2::<f32>().map_err(nn::Error::from)? {
                let unit = row.iter().zip(&self.centre).zip(&self.spread).map(|((v, c), s)| (v - c) / s);
                out.push(&unit.collect::<Vec<f32>>());
            }
        }
        Ok(out)
    }

    /// The pictures of standardised codes, shape `(n, latent)` -> `(n, side, side, 3)`; a gradient flows to the codes.
    pub(super) fn draw(&self, codes: &Tensor) -> Result<Tensor, nn::Error> {
        let row = |v: &[f32]| Tensor::from_slice(v, (1, v.len()), &Device::Cpu);
        let z = codes.broadcast_mul(&row(&self.spread)?)?.broadcast_add(&row(&self.centre)?)?;
        self.up.forward(&self.params.tensors()?[self.down.tensors()..], &z)
    }

    /// The same for a table.
    pub(super) fn decode(&self, codes: &Embeddings) -> Result<Pixels, Error> {
        let mut values = Vec::new();
        for rows in codes.values().chunks(64 * codes.dim()) {
            let rows = Tensor::from_slice(rows, (rows.len() / codes.dim(), codes.dim()), &Device::Cpu);
            let drawn = self.draw(&rows.map_err(nn::Error::from)?)?;
            values.extend(drawn.flatten_all().and_then(|x| x.to_vec1::<f32>()).map_err(nn::Error::from)?);
        }
        Ok(Pixels::new(self.up.side(), values))
    }

    pub(super) fn curve(&self) -> &Curve {
        &self.curve
    }

    fn to_bytes(&self) -> Vec<u8> {
        let Self { up, down, params, centre, spread, curve } = self.clone();
        nn::seal(&Header { up, down, centre, spread, curve }, &params)
    }

    /// `None` when the bytes are not what [`Autoencoder::to_bytes`] wrote.
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (Header { up, down, centre, spread, curve }, values) = nn::unseal(bytes)?;
        let (mut params, mut rng) = (Params::default(), seed::stream(0, "autoencoder", "shapes"));
        down.add(&mut params, &mut rng);
        up.add(&mut params, &mut rng);
        params.set(values).ok()?;
        Some(Self { up, down, params, centre, spread, curve })
    }
}

/// The pictures `rows` as a tensor; `mirrored` says which are to be mirrored.
fn pictures(pixels: &Pixels, rows: &[usize], mut mirrored: impl FnMut(usize) -> bool) -> Result<Tensor, Error> {
    let side = pixels.side();
    let mut values: Vec<f32> = Vec::with_capacity(rows.len() * pixels.each());
    for &i in rows {
        let picture = pixels.row(i);
        if mirrored(i) {
            let lines = picture.chunks_exact(3 * side);
            values.extend(lines.flat_map(|line| line.chunks_exact(3).rev().flatten()));
        } else {
            values.extend(picture);
        }
    }
    Ok(Tensor::from_vec(values, (rows.len(), side, side, 3), &Device::Cpu).map_err(nn::Error::from)?)
}
