//! White-box inversion: descending through the victim encoder to a picture whose vector is the release.

use super::Pixels;
use super::gate;
use crate::attack::adapt::Adaptation;
use crate::attack::text::lexicon;
use crate::attack::{Attack, Curve, Error, Guess, Inverter, Knowledge, Progress, View};
use crate::encode::{Embeddings, WhiteBox};
use crate::nn::image_ops::{Filter, resample};
use crate::nn::{self, AdamW, Fitting, Params, Training, kernel};
use crate::seed;
use candle_core::{Device, Tensor};
use rand::RngExt;
use serde::{Deserialize, Serialize};

/// Pictures that are optimised together.
const WAVE: usize = 32;
/// Points of the curve of agreement.
const POINTS: usize = 10;

/// Changes a picture until the victim encoder gives the released vector, whatever the picture is shifted, zoomed or mirrored
/// by.
///
/// # Formula
/// `min_x mean_a (1 - cos(E(a(x)), y)) + tv TV(x) + range(x)` over random small shifts, zooms and mirror images `a`, from
/// the `starts` auxiliary pictures of highest likelihood. `x` is the start plus corrections at `side / 4`, `side / 2` and
/// `side` pixels, so that coarse structure moves first. Of all ends, the one whose vector agrees best with the release over
/// further changes `a` is the guess. With noise of `r = sigma sqrt(d)` the pull of the release is divided by `1 + r^2`,
/// what the noise leaves of its cosine, so that the start and the smoothness weigh more.
///
/// # Errors
/// When the victim has no exact gradient: it is compared with differences before anything is scored.
///
/// # Source
/// Mahendran and Vedaldi 2015 (total variation, jitter); Yin et al. 2020 (augmentations as a natural prior). Differs: starts
/// from retrieved pictures, and corrections at three scales.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Invert {
    /// Targets attacked, as a declared subset; 0 for all.
    pub targets: usize,
    /// Steps from each start.
    pub steps: usize,
    /// Retrieved pictures to start from.
    pub starts: usize,
    /// Largest change of a value of `[0, 1]` in a step.
    pub lr: f64,
    /// Weight of the total variation.
    pub tv: f64,
}

impl Default for Invert {
    fn default() -> Self {
        Self { targets: 100, steps: 100, starts: 2, lr: 0.003, tv: 2.0 }
    }
}

impl Invert {
    /// Every parameter that is out of range.
    pub fn check(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.steps == 0 || self.starts == 0 {
            problems.push("`steps` and `starts` must be at least 1".to_owned());
        }
        if !(self.lr > 0.0 && self.lr <= 1.0) {
            problems.push(format!("`lr` must be in (0, 1], got {}", self.lr));
        }
        if !(self.tv >= 0.0 && self.tv.is_finite()) {
            problems.push(format!("`tv` must not be negative, got {}", self.tv));
        }
        problems
    }
}

impl Attack for Invert {
    fn needs(&self) -> Knowledge {
        Knowledge { auxiliary: true, pipeline: true, encoder: true, released: true, leaked_pairs: 0 }
    }

    fn fit<'a>(&self, view: &'a View<'a>, task: &str, _: &dyn Progress) -> Result<Box<dyn Inverter + 'a>, Error> {
        let pixels = view.pictures()?;
        let white_box = view.encoder.white_box().ok_or_else(|| Error::Needs {
            attack: "invert",
            what: format!("gradients through `{}`, which it does not offer", view.encoder.info().name),
        })?;
        gate::check(white_box, &pixels, &mut seed::stream(view.seed, task, "gradient check"))?;
        let adaptation = Adaptation::fit(view)?;
        Ok(Box::new(Fitted { params: self.clone(), view, adaptation, white_box, pixels }))
    }
}

struct Fitted<'a> {
    params: Invert,
    view: &'a View<'a>,
    adaptation: Adaptation<'a>,
    white_box: &'a dyn WhiteBox,
    pixels: Pixels,
}

/// A picture on its way: which row it is to explain, and where it starts.
struct Runner {
    row: usize,
    start: usize,
}

/// What the encoder looks at in one step: a shifted, zoomed, perhaps mirrored copy.
struct Change {
    rows: Filter,
    columns: Filter,
}

impl Change {
    /// At most an eighth of the side is shifted or zoomed away.
    fn draw(side: usize, rng: &mut seed::Stream) -> Self {
        let from = side as f32;
        let mut window = || {
            let length = from * rng.random_range(0.85..1.1_f32);
            let start = (from - length) * 0.5 + from * rng.random_range(-0.06..0.06_f32);
            Filter::window(side, side, start, length)
        };
        let (rows, columns) = (window(), window());
        let columns = if rng.random() { columns.mirrored() } else { columns };
        Self { rows, columns }
    }
}

impl Fitted<'_> {
    fn side(&self) -> usize {
        self.pixels.side()
    }

    /// How much of the release's pull its noise leaves.
    fn trust(&self) -> f64 {
        let r = self.adaptation.sigma() * (self.view.clean.dim() as f64).sqrt();
        1.0 / (1.0 + r * r)
    }

    /// `1 - cos(E(x), y)` for each picture, and its gradient with respect to the pixels times `weight`.
    fn pull(&self, x: &Tensor, targets: &Embeddings, weight: f32) -> Result<(Vec<f32>, Tensor), Error> {
        let n = x.dims()[0];
        let pixels: Vec<f32> = x.flatten_all().and_then(|x| x.to_vec1()).map_err(nn::Error::from)?;
        let mut misses = vec![0.0; n];
        let gradient = self.white_box.gradient(&pixels, self.side(), &mut |vectors| {
            let mut upstream = vec![0.0; vectors.values().len()];
            for (i, (e, y)) in vectors.rows().zip(targets.rows()).enumerate() {
                let scale = kernel::dot(y, y).sqrt().max(1e-12).recip();
                misses[i] = 1.0 - scale * kernel::dot(e, y);
                let at = &mut upstream[i * e.len()..(i + 1) * e.len()];
                at.iter_mut().zip(y).for_each(|(u, y)| *u = -weight * scale * y);
            }
            upstream
        })?;
        Ok((misses, Tensor::from_vec(gradient, x.shape(), &Device::Cpu).map_err(nn::Error::from)?))
    }

    /// Optimises one wave of runners; returns their pictures and the mean misfit on the way.
    fn run(
        &self,
        wave: &[Runner],
        released: &Embeddings,
        task: &str,
        progress: &dyn Progress,
    ) -> Result<(Pixels, Vec<f64>), Error> {
        let (n, side) = (wave.len(), self.side());
        let mut rng = seed::stream(self.view.seed, task, &format!("changes {} {}", wave[0].row, wave[0].start));
        let targets = released.select(&wave.iter().map(|r| r.row).collect::<Vec<_>>());
        let start: Vec<f32> = wave.iter().flat_map(|r| self.pixels.row(r.start)).copied().collect();
        let start = Tensor::from_vec(start, (n, side, side, 3), &Device::Cpu).map_err(nn::Error::from)?;
        let mut params = Params::default();
        let scales: Vec<usize> = [4, 2, 1].into_iter().map(|by| (side / by).max(1)).collect();
        for &scale in &scales {
            params.constant(&[n, scale, scale, 3], 0.0);
        }
        let training = Training {
            lr: self.params.lr,
            warmup_steps: (self.params.steps as u64 / 20).max(1),
            total_steps: self.params.steps as u64,
            clip_norm: 1e9,
            ema_decay: 0.9,
            adamw: AdamW { weight_decay: 0.0, ..AdamW::default() },
            ..Training::default()
        };
        let compose = |p: &[Tensor]| -> Result<Tensor, nn::Error> {
            let mut x = start.clone();
            for (level, &scale) in p.iter().zip(&scales) {
                let up = Filter::resize(scale, side);
                x = (x + resample(level, &up, &up)?)?;
            }
            Ok(x)
        };
        let mut fitting = Fitting::new(params, training)?;
        let trust = self.trust() as f32;
        let mut misfits = Vec::new();
        for _ in 0..self.params.steps {
            if progress.is_interrupted() {
                return Err(Error::Interrupted);
            }
            let change = Change::draw(side, &mut rng);
            let mut failure = None;
            fitting.step(|p| {
                let x = compose(p)?;
                let seen = resample(&x, &change.rows, &change.columns)?;
                let (misses, gradient) = match self.pull(&seen, &targets, trust) {
                    Ok(pulled) => pulled,
                    Err(error) => {
                        failure = Some(error);
                        return Ok(x.sum_all()?);
                    }
                };
                misfits.push(misses.iter().map(|&m| f64::from(m)).sum::<f64>() / n as f64);
                // The product has the encoder's gradient; its value means nothing.
                let pull = (seen * gradient)?.sum_all()?;
                Ok((pull + prior(&x, self.params.tv * f64::from(trust.max(0.1)))?)?)
            })?;
            if let Some(error) = failure {
                return Err(error);
            }
        }
        let tensors = fitting.averaged().tensors()?;
        let x = compose(&tensors)?.clamp(0.0_f32, 1.0).and_then(|x| x.flatten_all()?.to_vec1());
        Ok((Pixels::new(side, x.map_err(nn::Error::from)?), misfits))
    }

    /// Mean cosine of each picture's changed copies to its release.
    fn agreement(&self, pixels: &Pixels, targets: &Embeddings, task: &str) -> Result<Vec<f64>, Error> {
        const LOOKS: usize = 4;
        let side = self.side();
        let mut rng = seed::stream(self.view.seed, task, "further changes");
        let x = Tensor::from_slice(pixels.values(), (pixels.len(), side, side, 3), &Device::Cpu);
        let x = x.map_err(nn::Error::from)?;
        let mut total = vec![0.0; pixels.len()];
        for _ in 0..LOOKS {
            let change = Change::draw(side, &mut rng);
            let seen = resample(&x, &change.rows, &change.columns)?;
            let seen = seen.flatten_all().and_then(|x| x.to_vec1::<f32>()).map_err(nn::Error::from)?;
            let seen = Pixels::new(side, seen);
            let pictures: Vec<_> = (0..seen.len()).map(|i| seen.picture(i)).collect();
            let vectors = self.view.encoder.encode_pictures(&pictures.iter().collect::<Vec<_>>())?;
            for (total, (e, y)) in total.iter_mut().zip(vectors.rows().zip(targets.rows())) {
                let scale = (kernel::dot(y, y) * kernel::dot(e, e)).sqrt().max(1e-12);
                *total += f64::from(kernel::dot(e, y) / scale) / LOOKS as f64;
            }
        }
        Ok(total)
    }
}

/// Total variation, and a wall at the ends of `[0, 1]`; summed over pictures, so that one does not weigh on another.
fn prior(x: &Tensor, tv: f64) -> Result<Tensor, nn::Error> {
    let &[_, h, w, c] = x.dims() else { return Err(nn::Error::Shape("pictures have four dimensions".to_owned())) };
    let down = (x.narrow(1, 1, h - 1)? - x.narrow(1, 0, h - 1)?)?.abs()?.sum_all()?;
    let right = (x.narrow(2, 1, w - 1)? - x.narrow(2, 0, w - 1)?)?.abs()?.sum_all()?;
    let wall = (x.affine(1.0, -1.0)?.relu()?.sqr()?.sum_all()? + x.neg()?.relu()?.sqr()?.sum_all()?)?;
    let each = (h * w * c) as f64;
    Ok((((down + right)? * (tv / each))? + (wall * (10.0 / each))?)?)
}

impl Inverter for Fitted<'_> {
    fn invert(&self, released: &Embeddings, task: &str, progress: &dyn Progress) -> Result<Vec<Guess>, Error> {
        let runners: Vec<Runner> = (0..released.len())
            .flat_map(|row| {
                let best = lexicon::nearest(released.row(row), self.view.clean, self.params.starts);
                best.into_iter().map(move |(start, _)| Runner { row, start })
            })
            .collect();
        let mut best: Vec<Option<Guess>> = vec![None; released.len()];
        let steps = self.params.steps;
        for (done, wave) in runners.chunks(WAVE).enumerate() {
            progress.update(done * WAVE, runners.len(), "pictures inverted");
            let (ends, misfits) = self.run(wave, released, task, progress)?;
            let targets = released.select(&wave.iter().map(|r| r.row).collect::<Vec<_>>());
            let agreement = self.agreement(&ends, &targets, task)?;
            let every = steps.div_ceil(POINTS);
            for (i, (runner, score)) in wave.iter().zip(agreement).enumerate() {
                let guess = &mut best[runner.row];
                if guess.as_ref().is_none_or(|g| score > g.score) {
                    let trace = misfits.iter().enumerate().filter(|(s, _)| (s + 1) % every == 0);
                    *guess = Some(Guess {
                        queries: steps * self.params.starts,
                        trace: trace.map(|(s, m)| (s + 1, 1.0 - m)).collect(),
                        ..Guess::drawn(ends.picture(i), score)
                    });
                }
            }
        }
        progress.update(runners.len(), runners.len(), "pictures inverted");
        Ok(best.into_iter().flatten().collect())
    }

    fn curves(&self) -> Vec<Curve> {
        Vec::new()
    }
}
