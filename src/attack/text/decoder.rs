//! An embedding-conditioned language model that writes candidates, re-ranked by re-embedding.

use super::corrector::Reading;
use super::kept::{self, Kept as Pretrained, Role};
use super::tokenizer::{Bpe, END};
use crate::attack::{Attack, Curve, Error, Guess, Inverter, Knowledge, Progress, View, adapt::Adaptation, keep};
use crate::encode::{Embeddings, EncoderInfo};
use crate::nn::{Batch, Decoder as Model, DecoderConfig, Prefix, Sampling, Trainer, Training};
use crate::seed;
use rand::seq::SliceRandom;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Trains a prefix language model on clean vectors and then on fresh releases of the pipeline, samples candidates and keeps the one that the
/// released vector explains best.
///
/// # Formula
/// `argmax_h log p(y | e(h)) + log p(h | y)` over the samples `h`, see [`Adaptation::log_likelihood`].
///
/// # Source
/// Morris et al. 2023 (the zero-step model of vec2text) and Li et al. 2023 (GEIA). Differs: trained from nothing on the
/// attacker's own texts, conditioned on the Wiener-denoised release, and re-ranked with the noise-aware score.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Decoder {
    /// Where training starts: `auto` takes the attacker that the project keeps for the victim, if there is one; `none`
    /// starts from nothing; else a folder of `stitchback pretrain`. A kept attacker brings its own shape and tokenizer.
    pub pretrained: String,
    /// Training steps on clean vectors, shared by all protections; a pretrained decoder takes three tenths of them.
    pub steps: usize,
    /// Further steps on fresh releases of each protection.
    pub adapt_steps: usize,
    /// Texts in a step.
    pub batch: usize,
    /// Peak learning rate.
    pub lr: f64,
    /// Width of the model.
    pub d_model: usize,
    /// Layers of the model.
    pub layers: usize,
    /// Attention heads.
    pub heads: usize,
    /// Prefix positions that the vector is spread over.
    pub slots: usize,
    /// Pieces of the tokenizer.
    pub vocabulary: usize,
    /// Longest text in pieces.
    pub max_len_tokens: usize,
    /// Share of training texts that see no vector, so that the model also knows plain text.
    pub unconditional: f64,
    /// Samples for each target.
    pub samples: usize,
    /// Temperature of the samples.
    pub temperature: f64,
}

impl Default for Decoder {
    fn default() -> Self {
        Self {
            pretrained: "auto".to_owned(),
            steps: 1000,
            adapt_steps: 200,
            batch: 128,
            lr: 3e-3,
            d_model: 128,
            layers: 3,
            heads: 4,
            slots: 4,
            vocabulary: 4096,
            max_len_tokens: 48,
            unconditional: 0.1,
            samples: 32,
            temperature: 0.8,
        }
    }
}

impl Decoder {
    /// Steps on clean vectors, with or without a pretrained start.
    pub fn steps_from(&self, pretrained: bool) -> usize {
        if pretrained { ((TUNING_STEPS * self.steps as f64).ceil() as usize).max(1) } else { self.steps }
    }

    /// Every parameter that is out of range.
    pub fn check(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut require = |ok: bool, what: &str| {
            if !ok {
                problems.push(what.to_owned());
            }
        };
        require(self.steps >= 1, "`steps` must be at least 1");
        require(self.batch >= 2, "`batch` must be at least 2");
        require(self.lr > 0.0 && self.lr.is_finite(), "`lr` must be greater than 0");
        require(self.heads >= 1 && self.d_model.is_multiple_of(self.heads.max(1)), "`heads` must divide `d_model`");
        require(self.layers >= 1, "`layers` must be at least 1");
        require(self.slots >= 1, "`slots` must be at least 1");
        require(self.vocabulary >= 300, "`vocabulary` must be at least 300 (the 256 bytes and some pieces)");
        require(self.max_len_tokens >= 4, "`max_len_tokens` must be at least 4");
        require((0.0..1.0).contains(&self.unconditional), "`unconditional` must be in [0, 1)");
        require(self.samples >= 1, "`samples` must be at least 1");
        require(self.temperature > 0.0, "`temperature` must be greater than 0");
        problems
    }
}

impl Attack for Decoder {
    fn needs(&self) -> Knowledge {
        Knowledge { auxiliary: true, pipeline: true, encoder: true, released: true, leaked_pairs: 0 }
    }

    fn fit<'a>(&self, view: &'a View<'a>, _: &str, progress: &dyn Progress) -> Result<Box<dyn Inverter + 'a>, Error> {
        let adaptation = Adaptation::fit(view)?;
        let writer = Writer::train(view, &adaptation, self, Pairing::True, progress)?;
        Ok(Box::new(Fitted { view, adaptation, writer }))
    }
}

struct Fitted<'a> {
    view: &'a View<'a>,
    adaptation: Adaptation<'a>,
    writer: Writer,
}

impl Inverter for Fitted<'_> {
    fn invert(&self, released: &Embeddings, task: &str, progress: &dyn Progress) -> Result<Vec<Guess>, Error> {
        let candidates = self.writer.candidates(&self.adaptation, released, self.view.seed, task, progress)?;
        candidates
            .into_par_iter()
            .enumerate()
            .map(|(i, candidates)| {
                let texts: Vec<&str> = candidates.iter().map(|c| c.text.as_str()).collect();
                let vectors = self.view.encoder.encode(&texts)?;
                let best = candidates
                    .iter()
                    .zip(vectors.rows())
                    .map(|(c, e)| (self.adaptation.log_likelihood(released.row(i), e) + c.log_prob, c))
                    .reduce(|a, b| if b.0 > a.0 { b } else { a });
                Ok(best.map_or_else(
                    || Guess::new(String::new(), f64::NEG_INFINITY),
                    |(score, c)| Guess { queries: texts.len(), ..Guess::new(c.text.clone(), score) },
                ))
            })
            .collect()
    }

    fn origin(&self) -> Option<String> {
        self.writer.origin()
    }

    fn log_odds(&self, released: &Embeddings, truths: &[&str]) -> Result<Option<Vec<f64>>, Error> {
        self.writer.log_odds(&self.adaptation, released, truths).map(Some)
    }

    fn curves(&self) -> Vec<Curve> {
        self.writer.curves.clone()
    }
}

/// Whether the training texts stand beside their own releases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pairing {
    /// Each text with its own release.
    True,
    /// Each text with another text's release: the blind attacker.
    Permuted,
}

/// A text that the model proposes.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// The text.
    pub text: String,
    /// Its log-probability under the model, in nats.
    pub log_prob: f64,
}

/// The trained language model with its tokenizer.
pub struct Writer {
    model: Model,
    tokenizer: Bpe,
    params: Decoder,
    curves: Vec<Curve>,
    origin: Option<String>,
}

/// Share of the learning rate that a pretrained model is tuned with.
pub(super) const TUNING: f64 = 0.25;
/// Share of the steps that it takes: it has to learn the texts' manner, not to read vectors.
const TUNING_STEPS: f64 = 0.3;

impl Writer {
    /// Trains on clean vectors, then on fresh releases of the view's pipeline.
    ///
    /// The first half depends on the records and the seed alone, so all protections share it. Finished halves are taken
    /// from the view's workshop, and a killed training resumes.
    pub fn train(
        view: &View,
        adaptation: &Adaptation,
        params: &Decoder,
        pairing: Pairing,
        progress: &dyn Progress,
    ) -> Result<Self, Error> {
        let kept = Pretrained::find(&params.pretrained, view.encoder.info(), Role::Decoder)?;
        let origin = kept.as_ref().map(Pretrained::origin);
        let pretrained = kept.as_ref().map_or_else(String::new, |k| k.record.weights.clone());
        let common = Decoder { pretrained, adapt_steps: 0, samples: 0, temperature: 0.0, ..params.clone() };
        let name = format!("{}\u{0}{pairing:?}\u{0}{common:?}\u{0}v3", view.inputs);
        let lr = if kept.is_some() { TUNING * params.lr } else { params.lr };
        let steps = params.steps_from(kept.is_some());
        let clean = Course { view, params, pairing, source: Source::Clean, steps, lr };
        let start = kept.map(|k| Learned { model: k.model, tokenizer: k.tokenizer, curves: Vec::new() });
        let base = clean.run(&name, start, None, progress)?;
        if view.pipeline.is_identity() || params.adapt_steps == 0 {
            return Ok(Self::new(base, params, origin));
        }
        let name = format!("{name}\u{0}{}\u{0}{}", view.fingerprint, params.adapt_steps);
        let source = Source::Released(adaptation);
        let adapting = Course { source, steps: params.adapt_steps, lr: 0.5 * lr, ..clean };
        Ok(Self::new(adapting.run(&name, Some(base), None, progress)?, params, origin))
    }

    /// The kept attacker as it is; `None` where there is none for this encoder.
    pub(super) fn kept(params: &Decoder, victim: &EncoderInfo) -> Result<Option<Self>, Error> {
        let kept = Pretrained::find(&params.pretrained, victim, Role::Decoder)?;
        Ok(kept.map(|kept| {
            let origin = Some(kept.origin());
            Self::new(Learned { model: kept.model, tokenizer: kept.tokenizer, curves: Vec::new() }, params, origin)
        }))
    }

    pub(super) fn new(learned: Learned, params: &Decoder, origin: Option<String>) -> Self {
        let Learned { model, tokenizer, curves } = learned;
        Self { model, tokenizer, params: params.clone(), curves, origin }
    }

    /// Which pretrained attacker it started from.
    pub fn origin(&self) -> Option<String> {
        self.origin.clone()
    }

    /// The weights as f16 and the tokenizer, as files of `folder`.
    pub fn keep(&self, folder: &Path) -> Result<(), Error> {
        self.model.save_half(&folder.join(kept::WEIGHTS))?;
        keep(&folder.join(kept::TOKENIZER), self.tokenizer.to_json()?.as_bytes())
    }

    pub(super) fn model(&self) -> &Model {
        &self.model
    }

    pub(super) fn config(&self) -> &DecoderConfig {
        self.model.config()
    }

    /// A second tokenizer of the same kind.
    pub(super) fn tokenizer(&self) -> Result<Bpe, Error> {
        Bpe::from_json(self.tokenizer.to_json()?.as_bytes())
    }

    /// A text as pieces with the end mark, cut to what the model takes.
    pub(super) fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
        ended(&self.tokenizer, text, self.max_len())
    }

    /// Pieces as a text.
    pub(super) fn decode(&self, pieces: &[u32]) -> Result<String, Error> {
        self.tokenizer.decode(pieces)
    }

    /// Trained parameters.
    pub fn parameters(&self) -> usize {
        self.model.parameters()
    }

    /// Longest text that the model takes.
    fn max_len(&self) -> usize {
        self.model.config().max_len_tokens
    }

    /// `ln p(text | row) - ln p(text)` for each row and text; see [`Inverter::log_odds`].
    pub fn log_odds(&self, adaptation: &Adaptation, released: &Embeddings, truths: &[&str]) -> Result<Vec<f64>, Error> {
        let sequences = self.sequences(truths)?;
        let slices: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
        let inputs = condition(adaptation.denoise(released));
        let given = self.model.log_probs(Prefix::Rows(inputs.values()), &slices)?;
        let plain = self.model.log_probs(Prefix::Null, &slices)?;
        Ok(given.into_iter().zip(plain).map(|(given, plain)| given - plain).collect())
    }

    fn sequences(&self, texts: &[&str]) -> Result<Vec<Vec<u32>>, Error> {
        texts.iter().map(|text| self.encode(text)).collect()
    }

    /// Samples candidates for each released row, without duplicates.
    pub fn candidates(
        &self,
        adaptation: &Adaptation,
        released: &Embeddings,
        seed: u64,
        task: &str,
        progress: &dyn Progress,
    ) -> Result<Vec<Vec<Candidate>>, Error> {
        let rows: Vec<usize> = (0..released.len()).collect();
        self.candidates_of(adaptation, released, &rows, seed, task, progress)
    }

    /// [`Writer::candidates`] of some rows, the same as among all.
    pub(super) fn candidates_of(
        &self,
        adaptation: &Adaptation,
        released: &Embeddings,
        rows: &[usize],
        seed: u64,
        task: &str,
        progress: &dyn Progress,
    ) -> Result<Vec<Vec<Candidate>>, Error> {
        let inputs = condition(adaptation.denoise(&released.select(rows)));
        let mut out = Vec::with_capacity(inputs.len());
        // A wave of rows at a time, so that progress shows and an interruption is heard.
        for wave in (0..rows.len()).collect::<Vec<_>>().chunks(64) {
            if progress.is_interrupted() {
                return Err(Error::Interrupted);
            }
            let drawn = wave
                .par_iter()
                .map(|&i| {
                    let mut rng = seed::stream(seed, task, &format!("samples {}", rows[i]));
                    let row = inputs.row(i);
                    let how = Sampling { temperature: self.params.temperature, top_p: 0.95, ..Sampling::default() };
                    let sampled = self.model.sample(row, self.params.samples, &how, self.max_len(), &mut rng)?;
                    let mut seen = BTreeSet::new();
                    let mut candidates = Vec::with_capacity(sampled.len());
                    for h in sampled.into_iter().flatten() {
                        let text = self.tokenizer.decode(&h.tokens)?;
                        if !text.is_empty() && seen.insert(text.clone()) {
                            candidates.push(Candidate { text, log_prob: h.log_prob });
                        }
                    }
                    Ok(candidates)
                })
                .collect::<Result<Vec<_>, Error>>()?;
            out.extend(drawn);
            progress.update(out.len(), inputs.len(), "rows sampled");
        }
        Ok(out)
    }

    /// Samples `n` texts for one released row in which the given words get a bonus, in nats, until they were said.
    pub(super) fn retell(
        &self,
        adaptation: &Adaptation,
        released: &[f32],
        words: &[(&str, f32)],
        n: usize,
        rng: &mut seed::Stream,
    ) -> Result<Vec<String>, Error> {
        let mut bonus: BTreeMap<u32, f32> = BTreeMap::new();
        for &(word, nats) in words {
            let pieces = self.tokenizer.encode(&format!(" {word}"))?;
            for piece in pieces {
                let most = bonus.entry(piece).or_default();
                *most = most.max(nats);
            }
        }
        let bonus = bonus.into_iter().collect();
        let how = Sampling { temperature: self.params.temperature, top_p: 0.95, bonus };
        let row = condition(adaptation.denoise(&Embeddings::new(released.to_vec(), released.len())?));
        let drawn = self.model.sample(row.values(), n, &how, self.max_len(), rng)?;
        drawn.iter().flatten().map(|h| self.tokenizer.decode(&h.tokens)).collect()
    }

    /// Log-probability of each text in nats, given a released row or, with `None`, as plain text.
    pub fn log_probs(
        &self,
        adaptation: &Adaptation,
        released: Option<&[f32]>,
        texts: &[&str],
    ) -> Result<Vec<f64>, Error> {
        let sequences = self.sequences(texts)?;
        let input = match released {
            Some(row) => Some(condition(adaptation.denoise(&Embeddings::new(row.to_vec(), row.len())?))),
            None => None,
        };
        let prefix = input.as_ref().map_or(Prefix::Null, |e| Prefix::Shared(e.row(0)));
        let slices: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
        Ok(self.model.log_probs(prefix, &slices)?)
    }

    /// The learning curves.
    pub fn curves(&self) -> &[Curve] {
        &self.curves
    }
}

/// A trained model with its tokenizer and what its training looked like.
pub(super) struct Learned {
    pub(super) model: Model,
    pub(super) tokenizer: Bpe,
    pub(super) curves: Vec<Curve>,
}

/// What stands before the texts while training.
#[derive(Clone, Copy)]
pub(super) enum Source<'a> {
    /// The clean vectors.
    Clean,
    /// Fresh releases, denoised.
    Released(&'a Adaptation<'a>),
}

/// One training from start to end.
#[derive(Clone, Copy)]
pub(super) struct Course<'a> {
    pub(super) view: &'a View<'a>,
    pub(super) params: &'a Decoder,
    pub(super) pairing: Pairing,
    pub(super) source: Source<'a>,
    pub(super) steps: usize,
    pub(super) lr: f64,
}

impl Course<'_> {
    /// Trains `from` on (or a new model), or takes the finished one from the workshop.
    /// With `drafts`, each text stands behind a draft of it; they are asked for anew for each epoch, by its name.
    pub(super) fn run(
        &self,
        name: &str,
        from: Option<Learned>,
        drafts: Option<&Drafting>,
        progress: &dyn Progress,
    ) -> Result<Learned, Error> {
        let key = blake3::hash(name.as_bytes()).to_hex()[..20].to_owned();
        let key = format!("{key}-{}", self.view.seed);
        let file = |suffix: &str| self.view.workshop.join(format!("decoder-{key}{suffix}"));
        let (weights, side) = (file(".safetensors"), file(".json"));
        if weights.exists()
            && let Ok(bytes) = std::fs::read(&side)
            && let Ok(kept) = serde_json::from_slice::<Kept>(&bytes)
        {
            let tokenizer = Bpe::from_json(kept.tokenizer.as_bytes())?;
            return Ok(Learned { model: Model::load(&weights)?, tokenizer, curves: kept.curves });
        }

        let (start, tokenizer, mut curves) = match from {
            Some(learned) => (Some(learned.model), learned.tokenizer, learned.curves),
            None => (None, Bpe::train(self.texts(), self.params.vocabulary)?, Vec::new()),
        };
        let max_len = start.as_ref().map_or(self.params.max_len_tokens, |model| model.config().max_len_tokens);
        // A draft and its correction share the room.
        let max_len = if drafts.is_some() { max_len / 2 } else { max_len };
        let pieces = self.pieces(&tokenizer, max_len)?;
        let checkpoint = file(".checkpoint");
        let mut trainer = match Trainer::resume(&checkpoint) {
            Ok(trainer) => trainer,
            Err(_) => self.trainer(start, tokenizer.vocabulary(), &key)?,
        };
        let kept_points = std::fs::read(file(".curve")).ok();
        let mut points: Vec<(f64, f64)> =
            kept_points.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        points.retain(|p| p.0 <= trainer.steps() as f64);

        let (held_out, texts) = self.hold_out(pieces.len());
        let feed = Feed { course: *self, pieces: &pieces, key: &key, drafts };
        let validation = feed.validation(&held_out)?;
        let per_epoch = (texts.len() / self.params.batch).max(1);
        let mark = mark(self.steps);
        let mut epoch: Option<(usize, Vec<Vec<usize>>, Material)> = None;
        while (trainer.steps() as usize) < self.steps {
            let at = trainer.steps() as usize;
            let number = at / per_epoch;
            if epoch.as_ref().is_none_or(|(n, _, _)| *n != number) {
                let batches = feed.order(&texts, number);
                let met = batches[at % per_epoch..].iter().take(self.steps - at).flatten().copied().collect::<Vec<_>>();
                let material = feed.draw(&format!("epoch {number}"), &met)?;
                epoch = Some((number, batches, material));
            }
            let (_, batches, material) = epoch.as_ref().expect("set above");
            trainer.step(&feed.batch(&batches[at % per_epoch], material, at).as_batch())?;
            let done = at + 1;
            progress.update(done, self.steps, "training steps");
            let marked = done.is_multiple_of(mark) || done == self.steps;
            if let Some(batch) = validation.as_ref().filter(|_| marked) {
                points.push((done as f64, trainer.averaged().loss(&batch.as_batch())?));
            }
            if progress.is_interrupted() || (marked && done < self.steps) {
                keep(&file(".curve"), &serde_json::to_vec(&points).expect("numbers serialise"))?;
                trainer.save_checkpoint(&checkpoint)?;
            }
            if progress.is_interrupted() && done < self.steps {
                return Err(Error::Interrupted);
            }
        }
        let model = trainer.finish();
        curves.push(Curve {
            title: match self.source {
                Source::Clean => "held-out loss on clean vectors (nats a piece)".to_owned(),
                Source::Released(_) => "held-out loss on releases (nats a piece)".to_owned(),
            },
            x_label: "training step".to_owned(),
            points,
        });
        let kept = Kept { tokenizer: tokenizer.to_json()?, curves };
        keep(&side, &serde_json::to_vec(&kept).expect("strings and numbers serialise"))?;
        model.save(&weights)?;
        for leftover in [checkpoint, file(".curve")] {
            // What is left behind costs disk, nothing else.
            let _ = std::fs::remove_file(leftover);
        }
        Ok(Learned { model, tokenizer, curves: kept.curves })
    }

    fn texts(&self) -> impl Iterator<Item = &str> + Send {
        self.view.auxiliary.iter().map(|r| r.text.as_str())
    }

    /// Every auxiliary text as pieces, cut to length, the end mark behind it.
    fn pieces(&self, tokenizer: &Bpe, max_len: usize) -> Result<Vec<Vec<u32>>, Error> {
        self.view.auxiliary.par_iter().map(|r| ended(tokenizer, &r.text, max_len)).collect()
    }

    fn trainer(&self, start: Option<Model>, vocab: usize, key: &str) -> Result<Trainer, Error> {
        let params = self.params;
        let config = DecoderConfig {
            d_model: params.d_model,
            layers: params.layers,
            heads: params.heads,
            vocab,
            cond_dim: self.view.clean.dim(),
            slots: params.slots,
            max_len_tokens: params.max_len_tokens,
            eos: END,
            ..DecoderConfig::default()
        };
        let fresh = || Model::new(config, &mut seed::stream(self.view.seed, key, "init"));
        let model = start.map_or_else(fresh, Ok)?;
        let training = Training {
            lr: self.lr,
            warmup_steps: (self.steps / 10).clamp(1, 200) as u64,
            total_steps: self.steps as u64,
            // A long training averages over more steps.
            ema_decay: if self.steps > 4000 { 0.999 } else { 0.99 },
            ..Training::default()
        };
        Ok(Trainer::new(model, training, seed::stream(self.view.seed, key, "train"))?)
    }

    /// Texts that only measure the loss (whole documents), and texts that are trained on.
    fn hold_out(&self, n: usize) -> (Vec<usize>, Vec<usize>) {
        let document = |i: usize| blake3::hash(self.view.auxiliary[i].document.as_bytes());
        let held_out: Vec<usize> = (0..n).filter(|&i| document(i).as_bytes()[0] < 8).take(512).collect();
        let rest: Vec<usize> = (0..n).filter(|i| held_out.binary_search(i).is_err()).collect();
        if rest.len() < self.params.batch { (held_out, (0..n).collect()) } else { (held_out, rest) }
    }
}

/// Steps from one point of the learning curve to the next, where a checkpoint is kept as well: twelve points, or fewer in a short
/// training, of which they would take most (a point takes as long as three steps, a checkpoint as one), but two at least.
fn mark(steps: usize) -> usize {
    (steps / 12).max(25.min(steps / 2)).max(1)
}

/// A text as pieces with the end mark, `max_len` at most.
fn ended(tokenizer: &Bpe, text: &str, max_len: usize) -> Result<Vec<u32>, Error> {
    let mut ids = tokenizer.encode(text)?;
    ids.truncate(max_len - 1);
    ids.push(END);
    Ok(ids)
}

/// What the model reads of vectors: directions with coordinates of about one.
fn condition(mut vectors: Embeddings) -> Embeddings {
    let d = vectors.dim();
    for row in vectors.values_mut().chunks_exact_mut(d) {
        let norm = row.iter().map(|v| v * v).sum::<f32>().sqrt();
        // A vector of norm zero has no direction; it stays zero.
        let scale = if norm > 0.0 { (d as f32).sqrt() / norm } else { 0.0 };
        for v in row {
            *v *= scale;
        }
    }
    vectors
}

#[derive(Serialize, Deserialize)]
struct Kept {
    tokenizer: String,
    curves: Vec<Curve>,
}

/// Training batches: which texts, beside which fresh releases.
struct Feed<'a> {
    course: Course<'a>,
    pieces: &'a [Vec<u32>],
    key: &'a str,
    drafts: Option<&'a Drafting<'a>>,
}

/// Drafts of some texts, made for the purpose that is named.
pub(super) type Drafting<'a> = dyn Fn(&str, &[usize]) -> Result<Reading, Error> + 'a;

/// What stands beside the texts in one epoch: a row for each, and with it what a corrector reads.
struct Material {
    vectors: Embeddings,
    reading: Option<Reading>,
}

struct OwnedBatch {
    cond: Vec<f32>,
    null: Vec<bool>,
    tokens: Vec<u32>,
    lengths: Vec<usize>,
    given: Vec<usize>,
}

impl OwnedBatch {
    fn as_batch(&self) -> Batch<'_> {
        Batch { cond: &self.cond, null: &self.null, tokens: &self.tokens, lengths: &self.lengths, given: &self.given }
    }
}

impl Feed<'_> {
    fn stream(&self, purpose: &str) -> seed::Stream {
        seed::stream(self.course.view.seed, self.key, purpose)
    }

    /// Releases of one epoch, one row for each auxiliary text, and drafts of the texts that it meets where they are read.
    fn draw(&self, purpose: &str, met: &[usize]) -> Result<Material, Error> {
        let reading = self.drafts.map(|drafts| drafts(&format!("{} {purpose}", self.key), met)).transpose()?;
        Ok(Material { vectors: self.releases(purpose)?, reading })
    }

    fn releases(&self, purpose: &str) -> Result<Embeddings, Error> {
        let drawn = condition(match self.course.source {
            Source::Clean => self.course.view.clean.clone(),
            Source::Released(adaptation) => adaptation.denoise(&adaptation.draw(&format!("{} {purpose}", self.key))?),
        });
        Ok(match self.course.pairing {
            Pairing::True => drawn,
            Pairing::Permuted => {
                let mut order: Vec<usize> = (0..drawn.len()).collect();
                order.shuffle(&mut self.stream(&format!("permutation {purpose}")));
                drawn.select(&order)
            }
        })
    }

    /// The batches of one epoch: shuffled texts, sorted by length inside groups of sixteen batches to save padding.
    fn order(&self, texts: &[usize], epoch: usize) -> Vec<Vec<usize>> {
        let mut rng = self.stream(&format!("order {epoch}"));
        let mut order = texts.to_vec();
        order.shuffle(&mut rng);
        let mut batches: Vec<Vec<usize>> = Vec::new();
        for group in order.chunks(16 * self.course.params.batch) {
            let mut group = group.to_vec();
            group.sort_by_key(|&i| self.pieces[i].len());
            batches.extend(group.chunks_exact(self.course.params.batch).map(<[usize]>::to_vec));
        }
        if batches.is_empty() {
            batches.push(order);
        }
        batches.shuffle(&mut rng);
        batches
    }

    fn batch(&self, texts: &[usize], material: &Material, step: usize) -> OwnedBatch {
        let mut rng = self.stream(&format!("unconditional {step}"));
        let null =
            texts.iter().map(|_| rand::RngExt::random::<f64>(&mut rng) < self.course.params.unconditional).collect();
        self.pack(texts, material, null)
    }

    fn pack(&self, texts: &[usize], material: &Material, null: Vec<bool>) -> OwnedBatch {
        let Material { vectors, reading } = material;
        let draft = |i: usize| reading.as_ref().map_or(&[][..], |reading| reading.draft(i));
        let length = |i: usize| draft(i).len() + self.pieces[i].len();
        let width = texts.iter().map(|&i| length(i)).max().unwrap_or(1);
        let mut tokens = vec![END; texts.len() * width];
        for (row, &i) in tokens.chunks_exact_mut(width).zip(texts) {
            let (read, rest) = row.split_at_mut(draft(i).len());
            read.copy_from_slice(draft(i));
            rest[..self.pieces[i].len()].copy_from_slice(&self.pieces[i]);
        }
        let cond = texts.iter().flat_map(|&i| match reading {
            Some(reading) => reading.inputs(i, vectors.row(i)),
            None => vectors.row(i).to_vec(),
        });
        OwnedBatch {
            cond: cond.collect(),
            null,
            tokens,
            lengths: texts.iter().map(|&i| length(i)).collect(),
            given: texts.iter().map(|&i| draft(i).len()).collect(),
        }
    }

    fn validation(&self, held_out: &[usize]) -> Result<Option<OwnedBatch>, Error> {
        if held_out.is_empty() {
            return Ok(None);
        }
        let material = self.draw("validation", held_out)?;
        Ok(Some(self.pack(held_out, &material, vec![false; held_out.len()])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_training_is_measured_less_often_but_twice_at_least() {
        assert_eq!([1, 2, 10, 20, 100, 150, 450, 6000].map(mark), [1, 1, 5, 10, 25, 25, 37, 500]);
    }
}
