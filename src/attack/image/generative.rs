//! Pictures drawn from a learnt prior of what pictures look like, given the release.

use super::Pixels;
use super::autoencoder::{self, Autoencoder};
use super::descent::{Descent, LOOKS, Refinement};
use super::flow::{self, Condition, Flow};
use super::kept::Prior;
use crate::attack::text::lexicon::Retrieval;
use crate::attack::{Attack, Curve, Error, Guess, Inverter, Knowledge, Progress, View};
use crate::encode::Embeddings;
use crate::nn::{self, Fitting, Params};
use crate::seed;
use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

/// Pictures that are sampled or optimised together.
const WAVE: usize = 32;

/// Samples pictures that may stand behind a release, keeps the one that the victim encoder finds likeliest, and moves its
/// code until the encoder gives the release.
///
/// # Formula
/// Codes `z` of an autoencoder of the attacker's own pictures are sampled from a rectified flow given the leading
/// directions of the denoised release, trained on fresh releases; of `samples` pictures and the nearest auxiliary one, as the
/// decoder draws it, that of highest noise-aware likelihood is kept. Then `steps` of descent on `z` lower
/// `1 - cos(E(a(D(z))) - m, y' - m)` over random changes `a`, like [`Invert`](super::invert::Invert), but inside what the
/// decoder `D` can draw; `prior |z|^2 / 2` is added. `polish` steps on the pixels end it, towards what no code draws.
///
/// # Errors
/// With `steps`, when the victim has no exact gradient.
///
/// # Source
/// Li et al. 2024 (RCG: a generator of codes conditioned on a representation); Zhang et al. 2020 (GMI: descent on the code).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Generative {
    /// The autoencoder it starts from: `auto` for the one that the project keeps, where it fits; `none`; or a folder.
    pub pretrained: String,
    /// Targets attacked, as a declared subset; 0 for all.
    pub targets: usize,
    /// Numbers in a code.
    pub latent: usize,
    /// Channels of the widest picture layer.
    pub channels: usize,
    /// Training steps of the autoencoder, shared by all protections.
    pub prior_steps: usize,
    /// The same, where it starts from one that was kept.
    pub prior_adapt_steps: usize,
    /// Training steps of the flow, on each protection's releases.
    pub flow_steps: usize,
    /// Leading directions of the release that the flow sees.
    pub directions: usize,
    /// Samples for each target.
    pub samples: usize,
    /// Steps of descent on the code; 0 for none.
    pub steps: usize,
    /// Largest change of a coordinate of the code in a step.
    pub lr: f64,
    /// Weight of the code's own probability.
    pub prior: f64,
    /// Steps of descent on the pixels after that on the code, as in [`Invert`](super::invert::Invert); 0 for none.
    pub polish: usize,
    /// Weight of the surrogate's misfit beside the victim's, where the study names a surrogate.
    pub surrogate: f64,
}

impl Default for Generative {
    fn default() -> Self {
        Self {
            pretrained: "auto".to_owned(),
            targets: 100,
            latent: 128,
            channels: 64,
            prior_steps: 1000,
            prior_adapt_steps: 400,
            flow_steps: 2000,
            directions: 128,
            samples: 48,
            steps: 100,
            lr: 0.1,
            prior: 1e-4,
            polish: 150,
            surrogate: 0.3,
        }
    }
}

impl Generative {
    /// Every parameter that is out of range.
    pub fn check(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (name, value) in [
            ("latent", self.latent),
            ("channels", self.channels),
            ("prior_steps", self.prior_steps),
            ("flow_steps", self.flow_steps),
            ("directions", self.directions),
            ("samples", self.samples),
        ] {
            if value == 0 {
                problems.push(format!("`{name}` must be at least 1"));
            }
        }
        if !(self.lr > 0.0 && self.lr <= 1.0) {
            problems.push(format!("`lr` must be in (0, 1], got {}", self.lr));
        }
        for (name, value) in [("prior", self.prior), ("surrogate", self.surrogate)] {
            if !(value >= 0.0 && value.is_finite()) {
                problems.push(format!("`{name}` must not be negative, got {value}"));
            }
        }
        problems
    }
}

impl Attack for Generative {
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
        let descent = Descent::open(view, &pixels, self.surrogate, task, progress)?;
        let kept = Prior::find(&self.pretrained, pixels.side(), self.channels)?;
        let kept = kept.filter(|k| k.fits(self.latent));
        let origin = kept.as_ref().map(Prior::origin);
        let kept = kept.map(Prior::into_autoencoder);
        let (steps, lr) = if kept.is_some() { (self.prior_adapt_steps, 1e-3) } else { (self.prior_steps, 2e-3) };
        let course = autoencoder::Course { latent: self.latent, channels: self.channels, steps, batch: 64, lr };
        let prior = Autoencoder::train(view, &pixels, &course, kept.as_ref(), progress)?;
        let codes = prior.encode(&pixels)?;
        let stream = |purpose: &str| seed::stream(view.seed, task, purpose);
        let seen = |purpose: &str| -> Result<Embeddings, Error> {
            let adaptation = descent.adaptation();
            Ok(adaptation.denoise(&adaptation.draw(&format!("{task} {purpose}"))?))
        };
        let condition = Condition::fit(&seen("directions")?, self.directions, &mut stream("directions"));
        let conditions = |epoch: usize| Ok(condition.of(&seen(&format!("epoch {epoch}"))?));
        let course = flow::Course {
            steps: self.flow_steps,
            batch: 256,
            codes: &codes,
            conditions: &conditions,
            stream: &stream,
        };
        let flow = Flow::train(&course, progress)?;
        let own = Retrieval::new(view.clean);
        Ok(Box::new(Fitted { params: self.clone(), view, own, descent, prior, codes, condition, flow, origin }))
    }
}

struct Fitted<'a> {
    params: Generative,
    view: &'a View<'a>,
    own: Retrieval<'a>,
    descent: Descent<'a>,
    prior: Autoencoder,
    /// Codes of the auxiliary pictures.
    codes: Embeddings,
    condition: Condition,
    flow: Flow,
    origin: Option<String>,
}

impl Fitted<'_> {
    /// For each release the code of the likeliest picture: of the samples, and of the nearest auxiliary picture.
    fn sampled(&self, released: &Embeddings, rng: &mut seed::Stream) -> Result<Embeddings, Error> {
        let adaptation = self.descent.adaptation();
        let seen = self.condition.of(&adaptation.denoise(released));
        let mut best: Vec<Option<(f64, Vec<f32>)>> = vec![None; released.len()];
        for round in 0..=self.params.samples {
            let codes = if round == 0 {
                let nearest = |row| self.own.nearest(row, 1).first().map_or(0, |&(i, _)| i);
                self.codes.select(&released.rows().map(nearest).collect::<Vec<_>>())
            } else {
                self.flow.sample(&seen, rng)?
            };
            let drawn = self.prior.decode(&codes)?;
            let vectors = drawn.encoded(self.view.encoder)?;
            for (i, best) in best.iter_mut().enumerate() {
                let score = adaptation.log_likelihood(released.row(i), vectors.row(i));
                if best.as_ref().is_none_or(|b| score > b.0) {
                    *best = Some((score, codes.row(i).to_vec()));
                }
            }
        }
        let codes = best.into_iter().flatten().flat_map(|(_, code)| code).collect();
        Ok(Embeddings::new(codes, self.params.latent)?)
    }

    /// Moves the codes towards the releases.
    fn moved(
        &self,
        codes: &Embeddings,
        released: &Embeddings,
        rng: &mut seed::Stream,
        progress: &dyn Progress,
    ) -> Result<Embeddings, Error> {
        let shape = (codes.len(), codes.dim());
        let start = Tensor::from_slice(codes.values(), shape, &Device::Cpu).map_err(nn::Error::from)?;
        let mut params = Params::default();
        params.constant(&[shape.0, shape.1], 0.0);
        let mut fitting = Fitting::new(params, Descent::training(self.params.steps, self.params.lr))?;
        let pulls = self.descent.pulls(released)?;
        let trust = self.descent.trust().max(0.1);
        let code = |p: &[Tensor]| -> Result<Tensor, nn::Error> { Ok((&start + &p[0])?) };
        for _ in 0..self.params.steps {
            if progress.is_interrupted() {
                return Err(Error::Interrupted);
            }
            let likely = |p: &[Tensor]| -> Result<Tensor, nn::Error> {
                Ok((code(p)?.sqr()?.sum_all()? * (0.5 * self.params.prior * trust))?)
            };
            self.descent.step(&mut fitting, &pulls, rng, |p| self.prior.draw(&code(p)?), |p, _| likely(p))?;
        }
        let ends = code(&fitting.averaged().tensors()?)?;
        let ends = ends.flatten_all().and_then(|z| z.to_vec1()).map_err(nn::Error::from)?;
        Ok(Embeddings::new(ends, codes.dim())?)
    }

    fn draw(&self, released: &Embeddings, name: &str, progress: &dyn Progress) -> Result<(Pixels, Vec<f64>), Error> {
        let mut rng = seed::stream(self.view.seed, name, "samples");
        let codes = self.sampled(released, &mut rng)?;
        let mut drawn = self.prior.decode(&codes)?;
        let mut scores = self.descent.agreement(&drawn, released, name)?;
        let mut prefer = |drawn: &mut Pixels, ends: &Pixels| -> Result<(), Error> {
            let each = ends.each();
            let mut values = drawn.values().to_vec();
            for (i, score) in self.descent.agreement(ends, released, name)?.into_iter().enumerate() {
                if score > scores[i] {
                    scores[i] = score;
                    values[i * each..(i + 1) * each].copy_from_slice(ends.row(i));
                }
            }
            *drawn = Pixels::new(ends.side(), values);
            Ok(())
        };
        let Generative { steps, polish, .. } = self.params;
        if steps > 0 {
            let ends = self.prior.decode(&self.moved(&codes, released, &mut rng, progress)?)?;
            prefer(&mut drawn, &ends)?;
        }
        if polish > 0 {
            let how = Refinement { steps: polish, ..Refinement::default() };
            let (ends, _) = self.descent.refine(&drawn, released, how, &mut rng, progress)?;
            prefer(&mut drawn, &ends)?;
        }
        Ok((drawn, scores))
    }
}

impl Inverter for Fitted<'_> {
    fn invert(&self, released: &Embeddings, task: &str, progress: &dyn Progress) -> Result<Vec<Guess>, Error> {
        let mut guesses = Vec::with_capacity(released.len());
        let Generative { samples, steps, polish, .. } = self.params;
        // Beside the samples the nearest auxiliary picture; every candidate of the end is looked at again.
        let ends = 1 + usize::from(steps > 0) + usize::from(polish > 0);
        let queries = samples + 1 + steps + polish + LOOKS * ends;
        let rows: Vec<usize> = (0..released.len()).collect();
        for wave in rows.chunks(WAVE) {
            progress.update(wave[0], rows.len(), "pictures sampled");
            let name = format!("{task} wave {}", wave[0]);
            let (drawn, scores) = self.draw(&released.select(wave), &name, progress)?;
            guesses.extend(
                scores
                    .into_iter()
                    .enumerate()
                    .map(|(i, score)| Guess { queries, ..Guess::drawn(drawn.picture(i), score) }),
            );
        }
        progress.update(rows.len(), rows.len(), "pictures sampled");
        Ok(guesses)
    }

    fn origin(&self) -> Option<String> {
        self.origin.clone()
    }

    fn curves(&self) -> Vec<Curve> {
        vec![self.prior.curve().clone(), self.flow.curve().clone()]
    }
}
