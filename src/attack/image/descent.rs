//! Descending through the victim encoder, and a surrogate, to pictures that explain a release.

use super::Pixels;
use super::gate;
use super::ridge::Map;
use crate::attack::adapt::Adaptation;
use crate::attack::{Error, Progress, Surrogate, View};
use crate::encode::{Embeddings, Encoder, WhiteBox};
use crate::nn::image_ops::{Filter, resample};
use crate::nn::{self, AdamW, Fitting, Params, Training, kernel};
use crate::seed;
use candle_core::{Device, Tensor};
use rand::RngExt;

/// The networks whose gradients an attacker follows, each checked against differences first.
pub(super) struct Descent<'a> {
    view: &'a View<'a>,
    adaptation: Adaptation<'a>,
    victim: &'a dyn WhiteBox,
    /// Mean of the auxiliary vectors, and of what is released of them without noise.
    centre: Vec<f32>,
    offset: Vec<f32>,
    witness: Option<Witness<'a>>,
    side: usize,
}

/// The surrogate as a second opinion on a picture.
struct Witness<'a> {
    network: &'a dyn WhiteBox,
    /// From a release to the vector that the surrogate would give its picture.
    map: Map,
    /// The mean of its vectors.
    centre: Vec<f32>,
    weight: f32,
}

/// One network's pull on a wave of pictures.
pub(super) struct Pull<'a> {
    network: &'a dyn WhiteBox,
    /// What it should say of each, about `centre`.
    targets: Embeddings,
    /// What its cosines are taken about.
    centre: Vec<f32>,
    weight: f32,
}

impl Pull<'_> {
    /// `1 - cos(E(x) - centre, y - centre)` for each picture; adds its gradient with respect to the pixels, times the weight.
    fn add(&self, pixels: &[f32], side: usize, gradient: &mut [f32]) -> Result<Vec<f32>, Error> {
        let mut misses = Vec::with_capacity(self.targets.len());
        let own = self.network.gradient(pixels, side, &mut |vectors| {
            let mut upstream = Vec::with_capacity(vectors.values().len());
            for (e, y) in vectors.about(&self.centre).rows().zip(self.targets.rows()) {
                let length = |v: &[f32]| kernel::dot(v, v).sqrt().max(1e-6);
                let (of_e, of_y) = (length(e), length(y));
                let cosine = kernel::dot(e, y) / (of_e * of_y);
                misses.push(1.0 - cosine);
                let slope = |(e, y): (&f32, &f32)| -self.weight * (y / of_y - cosine * e / of_e) / of_e;
                upstream.extend(e.iter().zip(y).map(slope));
            }
            upstream
        })?;
        gradient.iter_mut().zip(own).for_each(|(g, own)| *g += own);
        Ok(misses)
    }
}

/// How pictures are moved pixel by pixel.
#[derive(Debug, Clone, Copy)]
pub(super) struct Refinement {
    /// Steps.
    pub(super) steps: usize,
    /// Largest change of a value of `[0, 1]` in a step.
    pub(super) lr: f64,
    /// Weight of the total variation.
    pub(super) tv: f64,
}

impl Default for Refinement {
    fn default() -> Self {
        Self { steps: 100, lr: 0.003, tv: 2.0 }
    }
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

impl<'a> Descent<'a> {
    /// Checks the gradients, and learns what the surrogate would say of a release's picture; `surrogate` is its weight.
    ///
    /// # Errors
    /// When the victim or the surrogate has no exact gradient.
    pub(super) fn open(
        view: &'a View<'a>,
        pixels: &Pixels,
        surrogate: f64,
        task: &str,
        progress: &dyn Progress,
    ) -> Result<Self, Error> {
        let open = |encoder: &'a dyn Encoder| {
            gate::open(encoder, "descent", pixels, &mut seed::stream(view.seed, task, "gradient check"))
        };
        let victim = open(view.encoder)?;
        let adaptation = Adaptation::fit(view)?;
        let witness = match view.surrogate.filter(|_| surrogate > 0.0) {
            None => None,
            Some(Surrogate { encoder, clean }) => Some(Witness {
                network: open(encoder)?,
                map: Map::choose(view, &adaptation, clean, task, progress)?,
                centre: clean.centre(),
                weight: surrogate as f32,
            }),
        };
        let (centre, offset) = (view.clean.centre(), adaptation.signal("centre")?.centre());
        Ok(Self { view, adaptation, victim, centre, offset, witness, side: pixels.side() })
    }

    /// Steps of at most `lr` in each parameter, towards pictures of their own: nothing is shared that could be clipped or decay.
    pub(super) fn training(steps: usize, lr: f64) -> Training {
        Training {
            lr,
            warmup_steps: (steps as u64 / 20).max(1),
            total_steps: steps as u64,
            clip_norm: 1e9,
            ema_decay: 0.9,
            adamw: AdamW { weight_decay: 0.0, ..AdamW::default() },
            ..Training::default()
        }
    }

    /// What makes the attacker adaptive.
    pub(super) fn adaptation(&self) -> &Adaptation<'a> {
        &self.adaptation
    }

    /// How much of the release's pull its noise leaves.
    pub(super) fn trust(&self) -> f64 {
        let r = self.adaptation.sigma() * (self.view.clean.dim() as f64).sqrt();
        1.0 / (1.0 + r * r)
    }

    /// The pulls on a wave whose releases are `targets`; the victim's first.
    pub(super) fn pulls(&self, targets: &Embeddings) -> Result<Vec<Pull<'_>>, Error> {
        let victim = Pull {
            network: self.victim,
            targets: self.adaptation.denoise(targets).about(&self.offset),
            centre: self.centre.clone(),
            weight: self.trust() as f32,
        };
        let mut pulls = vec![victim];
        if let Some(Witness { network, map, centre, weight }) = &self.witness {
            let targets = Embeddings::new(map.apply(targets), centre.len())?.about(centre);
            pulls.push(Pull { network: *network, targets, centre: centre.clone(), weight: *weight });
        }
        Ok(pulls)
    }

    /// One step: `compose` makes the pictures of the parameters, all networks look at one random change of them, and
    /// `prior` of both is added; returns the victim's `1 - cos` for each picture.
    pub(super) fn step(
        &self,
        fitting: &mut Fitting,
        pulls: &[Pull],
        rng: &mut seed::Stream,
        compose: impl Fn(&[Tensor]) -> Result<Tensor, nn::Error>,
        prior: impl Fn(&[Tensor], &Tensor) -> Result<Tensor, nn::Error>,
    ) -> Result<Vec<f32>, Error> {
        let change = Change::draw(self.side, rng);
        let (mut failure, mut seen_by_victim) = (None, Vec::new());
        fitting.step(|p| {
            let x = compose(p)?;
            let seen = resample(&x, &change.rows, &change.columns)?;
            let values: Vec<f32> = seen.flatten_all()?.to_vec1()?;
            let mut gradient = vec![0.0; values.len()];
            for (number, pull) in pulls.iter().enumerate() {
                match pull.add(&values, self.side, &mut gradient) {
                    Ok(misses) if number == 0 => seen_by_victim = misses,
                    Ok(_) => {}
                    Err(error) => {
                        failure = Some(error);
                        return Ok(x.sum_all()?);
                    }
                }
            }
            // The product has the networks' gradient; its value means nothing.
            let pull = (&seen * Tensor::from_vec(gradient, seen.shape(), &Device::Cpu)?)?.sum_all()?;
            Ok((pull + prior(p, &x)?)?)
        })?;
        failure.map_or(Ok(seen_by_victim), Err)
    }

    /// Moves pictures towards their releases by corrections at three scales, coarse structure first; returns them with the
    /// victim's mean misfit on the way.
    pub(super) fn refine(
        &self,
        start: &Pixels,
        targets: &Embeddings,
        how: Refinement,
        rng: &mut seed::Stream,
        progress: &dyn Progress,
    ) -> Result<(Pixels, Vec<f64>), Error> {
        let (n, side) = (start.len(), self.side);
        let start = Tensor::from_slice(start.values(), (n, side, side, 3), &Device::Cpu).map_err(nn::Error::from)?;
        let mut params = Params::default();
        let scales: Vec<usize> = [4, 2, 1].into_iter().map(|by| (side / by).max(1)).collect();
        for &scale in &scales {
            params.constant(&[n, scale, scale, 3], 0.0);
        }
        let compose = |p: &[Tensor]| -> Result<Tensor, nn::Error> {
            let mut x = start.clone();
            for (level, &scale) in p.iter().zip(&scales) {
                let up = Filter::resize(scale, side);
                x = (x + resample(level, &up, &up)?)?;
            }
            Ok(x)
        };
        let mut fitting = Fitting::new(params, Self::training(how.steps, how.lr))?;
        let (pulls, smooth) = (self.pulls(targets)?, how.tv * self.trust().max(0.1));
        let mut misfits = Vec::new();
        for _ in 0..how.steps {
            if progress.is_interrupted() {
                return Err(Error::Interrupted);
            }
            let misses = self.step(&mut fitting, &pulls, rng, compose, |_, x| natural(x, smooth))?;
            misfits.push(misses.iter().map(|&m| f64::from(m)).sum::<f64>() / n as f64);
        }
        let tensors = fitting.averaged().tensors()?;
        let x = compose(&tensors)?.clamp(0.0_f32, 1.0).and_then(|x| x.flatten_all()?.to_vec1());
        Ok((Pixels::new(side, x.map_err(nn::Error::from)?), misfits))
    }

    /// Mean cosine of each picture's changed copies to its release.
    pub(super) fn agreement(&self, pixels: &Pixels, targets: &Embeddings, task: &str) -> Result<Vec<f64>, Error> {
        let side = self.side;
        let mut rng = seed::stream(self.view.seed, task, "further changes");
        let x = Tensor::from_slice(pixels.values(), (pixels.len(), side, side, 3), &Device::Cpu);
        let x = x.map_err(nn::Error::from)?;
        let mut total = vec![0.0; pixels.len()];
        for _ in 0..LOOKS {
            let change = Change::draw(side, &mut rng);
            let seen = resample(&x, &change.rows, &change.columns)?;
            let seen = seen.flatten_all().and_then(|x| x.to_vec1::<f32>()).map_err(nn::Error::from)?;
            let seen = Pixels::new(side, seen);
            let vectors = seen.encoded(self.view.encoder)?;
            for (total, (e, y)) in total.iter_mut().zip(vectors.rows().zip(targets.rows())) {
                let scale = (kernel::dot(y, y) * kernel::dot(e, e)).sqrt().max(1e-12);
                *total += f64::from(kernel::dot(e, y) / scale) / LOOKS as f64;
            }
        }
        Ok(total)
    }
}

/// Random changes under which a finished picture is compared with its release; each is a query.
pub(super) const LOOKS: usize = 4;

/// Total variation, and a wall at the ends of `[0, 1]`; summed over pictures, so that one does not weigh on another.
fn natural(x: &Tensor, tv: f64) -> Result<Tensor, nn::Error> {
    let &[_, h, w, c] = x.dims() else { return Err(nn::Error::Shape("pictures have four dimensions".to_owned())) };
    let down = (x.narrow(1, 1, h - 1)? - x.narrow(1, 0, h - 1)?)?.abs()?.sum_all()?;
    let right = (x.narrow(2, 1, w - 1)? - x.narrow(2, 0, w - 1)?)?.abs()?.sum_all()?;
    let wall = (x.affine(1.0, -1.0)?.relu()?.sqr()?.sum_all()? + x.neg()?.relu()?.sqr()?.sum_all()?)?;
    let each = (h * w * c) as f64;
    Ok((((down + right)? * (tv / each))? + (wall * (10.0 / each))?)?)
}
