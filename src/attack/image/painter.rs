//! A network that draws: from a vector to a picture, by upsampling and convolving.

use super::Pixels;
use super::decoder::ImageDecoder;
use super::kept::{self, Prior};
use super::network::{self, Upward};
use super::perceptual::Eye;
use crate::attack::adapt::Adaptation;
use crate::attack::text::decoder::Pairing;
use crate::attack::{Curve, Error, Progress, View, keep};
use crate::encode::Embeddings;
use crate::nn::{self, AdamW, Fitting, Params, Training};
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
    plan: Upward,
    params: Params,
    mean: Vec<f32>,
    scale: f32,
    curves: Vec<Curve>,
}

/// Multiplications that one picture costs; 0 where no network can be laid out.
pub fn multiplications(dim: usize, side: usize, channels: usize) -> f64 {
    Upward::new(dim, side, channels).map_or(0.0, |plan| plan.multiplications() as f64)
}

#[derive(Serialize, Deserialize)]
struct Header {
    plan: Upward,
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
        let kept = kept::identity(&params.pretrained)?.unwrap_or_default();
        let name = format!("{}\u{0}{}\u{0}{pairing:?}\u{0}{params:?}\u{0}{kept}\u{0}v3", view.inputs, view.seed);
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
        let mut values = Vec::with_capacity(vectors.len() * 3 * self.plan.side() * self.plan.side());
        for rows in self.condition(vectors).chunks(64 * self.mean.len()) {
            let x = Tensor::from_slice(rows, (rows.len() / self.mean.len(), self.mean.len()), &Device::Cpu);
            let y = self.plan.forward(&tensors, &x.map_err(nn::Error::from)?)?;
            values.extend(y.flatten_all().and_then(|y| y.to_vec1::<f32>()).map_err(nn::Error::from)?);
        }
        Ok(Pixels::new(self.plan.side(), values))
    }

    /// Pixels in a row of what it draws.
    pub fn side(&self) -> usize {
        self.plan.side()
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
        let Self { plan, mean, scale, curves, params } = self;
        let header = Header { plan: plan.clone(), mean: mean.clone(), scale: *scale, curves: curves.clone() };
        nn::seal(&header, params)
    }

    /// `None` when the bytes are not what [`Painter::to_bytes`] wrote.
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (Header { plan, mean, scale, curves }, values) = nn::unseal(bytes)?;
        let mut params = Params::default();
        plan.add(&mut params, &mut seed::stream(0, "painter", "shapes"));
        params.set(values).ok()?;
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
        let plan = Upward::new(d, self.pixels.side(), self.params.channels)?;
        let mut params = Params::default();
        plan.add(&mut params, &mut self.stream("initial weights"));
        if let Some(prior) = Prior::find(&self.params.pretrained, self.pixels.side(), self.params.channels)? {
            prior.lend_stages(&mut params)?;
        }
        Ok(Painter {
            params,
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
        let eye = Eye::open(self.view, self.pixels, self.params.perceptual)?;
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
            fitting.step(|p| {
                let drawn = painter.plan.forward(p, &x)?;
                let loss = network::loss(&drawn, &y)?;
                eye.as_ref().map_or(Ok(loss.clone()), |eye| Ok((loss + eye.pull(&drawn, &y)?)?))
            })?;
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
            let loss: f32 = network::loss(&painter.plan.forward(&tensors, &x)?, &y)?.to_scalar()?;
            sum += f64::from(loss) * rows.len() as f64;
        }
        Ok(sum / rows.len().max(1) as f64)
    }
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
            denoising: crate::attack::denoise::Denoising::Wiener,
            encoder: &toy,
            prior: None,
            surrogate: None,
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
        assert!(losses[losses.len() - 1] < 0.9 * losses[0], "{losses:?}");
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
}
