//! A network that draws: from a vector to a picture, by upsampling and convolving.

use super::Pixels;
use super::decoder::ImageDecoder;
use crate::attack::adapt::Adaptation;
use crate::attack::text::decoder::Pairing;
use crate::attack::{Curve, Error, Progress, View, keep};
use crate::encode::Embeddings;
use crate::nn::image_ops::{conv3x3, structural_similarity, upsample};
use crate::nn::{self, AdamW, Fitting, Params, Training, ops};
use crate::seed;
use candle_core::{Device, Tensor};
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

/// Share of the auxiliary pictures on which progress is measured.
const HELD_OUT: usize = 16;
/// Most held-out pictures.
const MOST_HELD_OUT: usize = 256;
/// Points of a learning curve.
const POINTS: usize = 12;

/// The network: a linear layer to a small square of many channels, then stages that double the side and halve the channels.
///
/// # Shapes
/// `(n, d)` -> `(n, side, side, 3)` of `[0, 1]`; each stage is upsampling, a 3x3 convolution, layer normalisation over
/// channels and a GELU.
#[derive(Debug, Clone, PartialEq)]
pub struct Painter {
    plan: Plan,
    params: Params,
    mean: Vec<f32>,
    scale: f32,
    curves: Vec<Curve>,
}

/// Sizes of the network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Plan {
    dim: usize,
    side: usize,
    stages: usize,
    channels: usize,
}

impl Plan {
    fn new(dim: usize, side: usize, channels: usize) -> Result<Self, Error> {
        if side == 0 || !side.is_multiple_of(8) {
            return Err(Error::Pictures(format!(
                "pictures of {side} pixels cannot be doubled from a small start; take a multiple of 8 for `data.side_px`"
            )));
        }
        let mut stages = 0;
        while (side >> stages).is_multiple_of(2) && (side >> stages) >= 8 {
            stages += 1;
        }
        Ok(Self { dim, side, stages, channels })
    }

    fn base(&self) -> usize {
        self.side >> self.stages
    }

    /// Channels before stage `stage`; after the last one where `stage` is their number.
    fn width(&self, stage: usize) -> usize {
        ((2 * self.channels) >> stage).max(16)
    }

    fn init(&self, rng: &mut seed::Stream) -> Params {
        let mut params = Params::default();
        let norm = |params: &mut Params, c: usize| {
            params.constant(&[c], 1.0);
            params.constant(&[c], 0.0);
        };
        let base = self.base() * self.base() * self.width(0);
        params.normal(&[self.dim, base], (self.dim as f64).sqrt().recip(), rng);
        params.constant(&[base], 0.0);
        norm(&mut params, self.width(0));
        for stage in 0..self.stages {
            let (c, o) = (self.width(stage), self.width(stage + 1));
            params.normal(&[9 * c, o], (2.0 / (9 * c) as f64).sqrt(), rng);
            norm(&mut params, o);
            params.constant(&[o], 0.0);
        }
        let c = self.width(self.stages);
        params.normal(&[9 * c, 3], 0.3 * (9.0 * c as f64).sqrt().recip(), rng);
        params.constant(&[3], 0.0);
        params
    }

    fn forward(&self, p: &[Tensor], x: &Tensor) -> Result<Tensor, nn::Error> {
        const EPS: f32 = 1e-5;
        let (n, base, c) = (x.dims()[0], self.base(), self.width(0));
        let x = x.matmul(&p[0])?.broadcast_add(&p[1])?.reshape((n, base, base, c))?;
        let mut x = ops::layer_norm(&x, &p[2], &p[3], EPS)?;
        let mut at = 4;
        for _ in 0..self.stages {
            x = conv3x3(&upsample(&x)?, &p[at], 1)?;
            x = ops::bias_gelu(&ops::layer_norm(&x, &p[at + 1], &p[at + 2], EPS)?, &p[at + 3])?;
            at += 4;
        }
        let x = conv3x3(&x, &p[at], 1)?.broadcast_add(&p[at + 1])?;
        // tanh instead of the fused sigmoid: it has a gradient.
        Ok((((x * 0.5)?.tanh()? + 1.0)? * 0.5)?)
    }
}

/// Multiplications that one picture costs; 0 where no network can be laid out.
pub fn multiplications(dim: usize, side: usize, channels: usize) -> f64 {
    let Ok(plan) = Plan::new(dim, side, channels) else { return 0.0 };
    let base = plan.base() * plan.base();
    let stage = |s: usize| (9 * plan.width(s) * plan.width(s + 1) * base) << (2 * (s + 1));
    let last = 27 * plan.width(plan.stages) * side * side;
    (dim * base * plan.width(0) + (0..plan.stages).map(stage).sum::<usize>() + last) as f64
}

#[derive(Serialize, Deserialize)]
struct Header {
    plan: Plan,
    mean: Vec<f32>,
    scale: f32,
    curves: Vec<Curve>,
}

/// One training of the network: on clean vectors, or on releases.
struct Course<'a> {
    view: &'a View<'a>,
    adaptation: &'a Adaptation<'a>,
    params: &'a ImageDecoder,
    pixels: &'a Pixels,
    pairing: Pairing,
    released: bool,
    name: &'a str,
}

impl Painter {
    /// Trains on clean vectors, then on fresh releases of the view's pipeline, a new draw for each epoch.
    ///
    /// The first half depends on the records and the seed alone, so all protections share it; both are kept in the view's
    /// workshop.
    pub fn train(
        view: &View,
        adaptation: &Adaptation,
        params: &ImageDecoder,
        pairing: Pairing,
        progress: &dyn Progress,
    ) -> Result<Self, Error> {
        let pixels = view.pictures()?;
        let name = format!("{}\u{0}{}\u{0}{pairing:?}\u{0}{params:?}\u{0}v1", view.inputs, view.seed);
        let course = Course { view, adaptation, params, pixels: &pixels, pairing, released: false, name: &name };
        let base = course.run(None, progress)?;
        if view.pipeline.is_identity() || params.adapt_steps == 0 {
            return Ok(base);
        }
        let name = format!("{name}\u{0}{}", view.fingerprint);
        Course { released: true, name: &name, ..course }.run(Some(base), progress)
    }

    /// Draws a picture for each vector.
    pub fn paint(&self, vectors: &Embeddings) -> Result<Pixels, Error> {
        let tensors = self.params.tensors()?;
        let mut values = Vec::with_capacity(vectors.len() * 3 * self.plan.side * self.plan.side);
        for rows in self.condition(vectors).chunks(64 * self.plan.dim) {
            let x = Tensor::from_slice(rows, (rows.len() / self.plan.dim, self.plan.dim), &Device::Cpu);
            let y = self.plan.forward(&tensors, &x.map_err(nn::Error::from)?)?;
            values.extend(y.flatten_all().and_then(|y| y.to_vec1::<f32>()).map_err(nn::Error::from)?);
        }
        Ok(Pixels::new(self.plan.side, values))
    }

    /// Learning curves.
    pub fn curves(&self) -> &[Curve] {
        &self.curves
    }

    /// Rows about their mean, with coordinates of about one.
    fn condition(&self, vectors: &Embeddings) -> Vec<f32> {
        vectors.rows().flat_map(|row| row.iter().zip(&self.mean).map(|(v, m)| (v - m) * self.scale)).collect()
    }

    fn to_bytes(&self) -> Vec<u8> {
        let header =
            Header { plan: self.plan.clone(), mean: self.mean.clone(), scale: self.scale, curves: self.curves.clone() };
        let header = serde_json::to_vec(&header).expect("numbers and strings");
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header);
        bytes.extend(self.params.values().iter().flat_map(|v| v.to_le_bytes()));
        let seal = blake3::hash(&bytes);
        bytes.extend(seal.as_bytes());
        bytes
    }

    /// `None` when the bytes are not what [`Painter::to_bytes`] wrote.
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (body, seal) = bytes.split_at_checked(bytes.len().checked_sub(32)?)?;
        if blake3::hash(body).as_bytes() != seal {
            return None;
        }
        let (length, rest) = body.split_first_chunk::<8>()?;
        let (header, values) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
        let Header { plan, mean, scale, curves } = serde_json::from_slice(header).ok()?;
        let mut params = plan.init(&mut seed::stream(0, "painter", "shapes"));
        let (values, _) = values.as_chunks::<4>();
        params.set(values.iter().map(|v| f32::from_le_bytes(*v)).collect()).ok()?;
        Some(Self { plan, params, mean, scale, curves })
    }
}

impl Course<'_> {
    fn run(&self, start: Option<Painter>, progress: &dyn Progress) -> Result<Painter, Error> {
        let hash = blake3::hash(self.name.as_bytes()).to_hex();
        let path = self.view.workshop.join(format!("painter-{}.bin", &hash[..20]));
        if let Some(done) = std::fs::read(&path).ok().and_then(|bytes| Painter::from_bytes(&bytes)) {
            return Ok(done);
        }
        let painter = self.train(start, progress)?;
        keep(&path, &painter.to_bytes())?;
        Ok(painter)
    }

    fn stream(&self, purpose: &str) -> seed::Stream {
        seed::stream(self.view.seed, self.name, purpose)
    }

    /// What stands beside each auxiliary picture in one epoch.
    fn vectors(&self, purpose: &str) -> Result<Embeddings, Error> {
        let seen = if self.released {
            self.adaptation.denoise(&self.adaptation.draw(&format!("{} {purpose}", self.name))?)
        } else {
            self.view.clean.clone()
        };
        Ok(match self.pairing {
            Pairing::True => seen,
            Pairing::Permuted => {
                let mut order: Vec<usize> = (0..seen.len()).collect();
                order.shuffle(&mut self.stream(&format!("permutation {purpose}")));
                seen.select(&order)
            }
        })
    }

    fn start(&self, vectors: &Embeddings) -> Result<Painter, Error> {
        let (mean, cov) = crate::attack::linear::moments(vectors);
        let d = vectors.dim();
        let spread = ((0..d).map(|i| cov[i * d + i]).sum::<f64>() / d as f64).sqrt();
        let plan = Plan::new(d, self.pixels.side(), self.params.channels)?;
        Ok(Painter {
            params: plan.init(&mut self.stream("initial weights")),
            plan,
            mean: mean.into_iter().map(|v| v as f32).collect(),
            scale: if spread > 0.0 { spread.recip() as f32 } else { 0.0 },
            curves: Vec::new(),
        })
    }

    fn train(&self, start: Option<Painter>, progress: &dyn Progress) -> Result<Painter, Error> {
        let steps = if self.released { self.params.adapt_steps } else { self.params.steps };
        let lr = if self.released { 0.3 * self.params.lr } else { self.params.lr };
        let mut vectors = self.vectors("epoch 0")?;
        let mut painter = match start {
            Some(painter) => painter,
            None => self.start(&vectors)?,
        };
        let adamw = AdamW { weight_decay: 0.01, ..AdamW::default() };
        let training = Training {
            lr,
            warmup_steps: (steps as u64 / 20).max(1),
            total_steps: steps as u64,
            ema_decay: 0.995,
            adamw,
            ..Training::default()
        };
        let mut fitting = Fitting::new(painter.params.clone(), training)?;
        let mut order: Vec<usize> = (0..self.pixels.len()).collect();
        order.shuffle(&mut self.stream("held out"));
        let held_out = order.split_off(order.len() - (order.len() / HELD_OUT).min(MOST_HELD_OUT));
        let (mut epoch, mut at) = (0, order.len());
        let mut points = Vec::new();
        for step in 0..steps {
            if progress.is_interrupted() {
                return Err(Error::Interrupted);
            }
            if at + self.params.batch > order.len() {
                if step > 0 {
                    epoch += 1;
                    vectors = self.vectors(&format!("epoch {epoch}"))?;
                }
                order.shuffle(&mut self.stream(&format!("order {epoch}")));
                at = 0;
            }
            let end = (at + self.params.batch).min(order.len());
            let (x, y) = self.batch(&painter, &vectors, &order[at..end])?;
            at = end;
            fitting.step(|p| loss(&painter.plan.forward(p, &x)?, &y))?;
            if (step + 1) % steps.div_ceil(POINTS) == 0 || step + 1 == steps {
                painter.params = fitting.averaged();
                points.push(((step + 1) as f64, self.held_out(&painter, &vectors, &held_out)?));
            }
            progress.update(step + 1, steps, "painter steps");
        }
        painter.params = fitting.averaged();
        let what = if self.released { "releases" } else { "clean vectors" };
        painter.curves.push(Curve {
            title: format!("held-out loss on {what}: L1 and structure, halves"),
            x_label: "training steps".to_owned(),
            points,
        });
        Ok(painter)
    }

    fn batch(&self, painter: &Painter, vectors: &Embeddings, rows: &[usize]) -> Result<(Tensor, Tensor), nn::Error> {
        let (n, side) = (rows.len(), self.pixels.side());
        let x = painter.condition(&vectors.select(rows));
        let y: Vec<f32> = rows.iter().flat_map(|&i| self.pixels.row(i)).copied().collect();
        let x = Tensor::from_vec(x, (n, vectors.dim()), &Device::Cpu)?;
        Ok((x, Tensor::from_vec(y, (n, side, side, 3), &Device::Cpu)?))
    }

    fn held_out(&self, painter: &Painter, vectors: &Embeddings, rows: &[usize]) -> Result<f64, nn::Error> {
        let (mut sum, tensors) = (0.0, painter.params.tensors()?);
        for rows in rows.chunks(64) {
            let (x, y) = self.batch(painter, vectors, rows)?;
            let loss: f32 = loss(&painter.plan.forward(&tensors, &x)?, &y)?.to_scalar()?;
            sum += f64::from(loss) * rows.len() as f64;
        }
        Ok(sum / rows.len().max(1) as f64)
    }
}

/// `(|y - x| + 1 - SSIM) / 2`, averaged.
fn loss(drawn: &Tensor, truth: &Tensor) -> Result<Tensor, nn::Error> {
    let distance = (drawn - truth)?.abs()?.mean_all()?;
    let structure = (1.0 - structural_similarity(drawn, truth)?)?;
    Ok(((distance + structure)? * 0.5)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::Quiet;
    use crate::data::{Keep, Record, corpus};
    use crate::encode::{Encoder, Toy};

    #[test]
    fn a_trained_network_is_kept_and_a_damaged_file_is_trained_again() {
        let keep = Keep { side_px: 16, ..Keep::default() };
        let corpus = corpus::open::<crate::Error>("toy-pictures", &keep, &mut |_, _| panic!("made up"));
        let records: Vec<Record> = corpus.expect("a corpus").records.into_iter().take(200).collect();
        let toy = Toy::new();
        let pictures: Vec<_> = records.iter().filter_map(|r| r.picture.as_ref()).collect();
        let clean = toy.encode_pictures(&pictures).expect("the toy reads pictures");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let pipeline = "clip(l2=1) | gaussian(sigma=0.1)".parse().expect("valid");
        let view = View {
            auxiliary: &records,
            clean: &clean,
            strata: &[0; 200],
            pipeline: &pipeline,
            leaked: &Embeddings::empty(clean.dim()),
            releases: 1,
            encoder: &toy,
            prior: None,
            seed: 1,
            inputs: "painter test".to_owned(),
            fingerprint: "painter test".to_owned(),
            workshop: folder.path(),
        };
        let adaptation = Adaptation::fit(&view).expect("fits");
        let params = ImageDecoder { steps: 90, adapt_steps: 8, batch: 16, channels: 16, ..ImageDecoder::default() };
        let train = || Painter::train(&view, &adaptation, &params, Pairing::True, &Quiet).expect("trains");
        let first = train();
        let losses: Vec<f64> = first.curves()[0].points.iter().map(|p| p.1).collect();
        assert!(losses[losses.len() - 1] < 0.8 * losses[0], "{losses:?}");
        let files: Vec<_> = std::fs::read_dir(folder.path()).expect("a folder").filter_map(Result::ok).collect();
        assert_eq!(files.len(), 2, "one for clean vectors, one for releases");
        assert_eq!(train(), first, "read back");
        for file in &files {
            let mut bytes = std::fs::read(file.path()).expect("the file exists");
            let at = bytes.len() / 2;
            bytes[at] ^= 1;
            crate::attack::keep(&file.path(), &bytes).expect("overwrites");
        }
        assert_eq!(train(), first, "trained again, to the same bits");
        let drawn = first.paint(&clean).expect("draws");
        assert_eq!((drawn.len(), drawn.side()), (200, 16));
    }

    #[test]
    fn a_side_that_cannot_be_doubled_is_refused() {
        assert!(Plan::new(8, 50, 8).is_err_and(|e| e.to_string().contains("multiple of 8")));
        for (side, base) in [(8, 4), (16, 4), (24, 6), (32, 4), (40, 5), (64, 4)] {
            assert_eq!(Plan::new(8, side, 8).map(|p| p.base()).ok(), Some(base), "{side}");
        }
    }
}
