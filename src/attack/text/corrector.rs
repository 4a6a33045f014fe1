//! A decoder that reads its own last attempt: what the vector says, what the attempt's vector says, and the difference.

use super::damage::Damage;
use super::decoder::{Candidate, Course, Decoder, Learned, Pairing, Source, TUNING, Writer};
use super::hypotheses::Hypotheses;
use super::kept::{Kept, Role};
use crate::attack::{Attack, Curve, Error, Guess, Inverter, Knowledge, Progress, View, adapt::Adaptation};
use crate::encode::Embeddings;
use crate::nn::{Decoder as Model, DecoderConfig, Sampling};
use crate::seed;
use rand::RngExt;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap};

/// Corrects a guess step by step: each step reads the released vector, the vector of the present guess, their difference and
/// the guess itself, and writes better guesses, which are embedded again.
///
/// # Formula
/// `h_(t+1) = argmax_h log p(y | e(h))` over the beam of `p(h | y, e(h_t), y - e(h_t), h_t)`, the best so far kept.
///
/// # Source
/// Morris et al. 2023 (the corrector of vec2text). Differs: hypotheses for training come from decoders that were tuned without
/// the text (on the other documents), because a corrector that trains on guesses for known texts learns guesses that are too
/// good. A kept decoder that those start from has passed once or twice over the texts of its own corpora, which its record
/// names: `pretrained = "none"` rules that out there, for weaker hypotheses. Beside them stand the texts themselves, spoilt
/// anew in each epoch (see [`Damage`]); conditioned on the Wiener-denoised release, scored with the noise-aware likelihood.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Corrector {
    /// Targets it attacks, as a declared subset; 0 for all.
    pub targets: usize,
    /// Where its training starts, as in [`Decoder::pretrained`]. A kept corrector is used where the decoder started from the
    /// attacker that it belongs to: both write the same pieces.
    pub pretrained: String,
    /// Share of the training drafts that are the text itself, spoilt; the others are written by decoders.
    pub spoilt: f64,
    /// The decoder that writes the first guess; the corrector starts from its weights.
    pub decoder: Decoder,
    /// Parts of the auxiliary documents; each part's hypotheses come from a decoder trained on the others.
    pub folds: usize,
    /// Training steps of each of those decoders.
    pub fold_steps: usize,
    /// Training steps of the corrector.
    pub steps: usize,
    /// Texts in a step.
    pub batch: usize,
    /// Prefix positions, shared by the vectors.
    pub slots: usize,
    /// Correction steps for each target.
    pub rounds: usize,
    /// Guesses kept from step to step, and written for each of them by beam search.
    pub beam: usize,
    /// Further guesses drawn for each of them.
    pub samples: usize,
    /// Temperature of those.
    pub temperature: f64,
    /// Steps without a better guess after which it stops.
    pub patience: usize,
    /// What it sees of the vector of the present guess; anything but `read` is an ablation.
    pub feedback: Feedback,
}

/// What a corrector sees of the vector of its own guess.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Feedback {
    /// All of it.
    #[default]
    Read,
    /// It learned to read it, and finds zeros in its place when it attacks: what the trained model owes to it.
    Zeroed,
    /// It never saw it, not in training either: what is left is the decoder with a text to copy from. Its rewrites are still
    /// embedded, and ranked by their vectors.
    Withheld,
    /// As `Withheld`, and no guess is embedded at all, so that none is ranked either: the likeliest rewrite is taken as it is.
    Unembedded,
}

impl Default for Corrector {
    fn default() -> Self {
        Self {
            targets: 0,
            pretrained: "auto".to_owned(),
            spoilt: 0.5,
            decoder: Decoder::default(),
            folds: 2,
            fold_steps: 500,
            steps: 1500,
            batch: 64,
            slots: 12,
            rounds: 8,
            beam: 8,
            samples: 24,
            temperature: 0.8,
            patience: 8,
            feedback: Feedback::Read,
        }
    }
}

impl Corrector {
    /// Rewrites of one target at most, and how many of them are embedded.
    pub(crate) fn most_rewrites(&self) -> (usize, usize) {
        if self.feedback == Feedback::Unembedded {
            return (self.rounds * self.beam, 0);
        }
        let all = self.rounds * self.beam * (self.beam + self.samples);
        (all, all)
    }

    /// Every parameter that is out of range.
    pub fn check(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (ok, what) in [
            (
                self.folds >= 2,
                "`folds` must be at least 2: hypotheses must come from decoders that were not tuned on the text",
            ),
            ((0.0..=1.0).contains(&self.spoilt), "`spoilt` must be in [0, 1]"),
            (self.fold_steps >= 1, "`fold_steps` must be at least 1"),
            (self.steps >= 1, "`steps` must be at least 1"),
            (self.batch >= 2, "`batch` must be at least 2"),
            (self.slots >= 1, "`slots` must be at least 1"),
            (self.rounds >= 1, "`rounds` must be at least 1"),
            (self.beam >= 1, "`beam` must be at least 1"),
            (self.temperature > 0.0, "`temperature` must be greater than 0"),
            (self.patience >= 1, "`patience` must be at least 1"),
        ] {
            if !ok {
                problems.push(what.to_owned());
            }
        }
        problems.extend(self.decoder.check().into_iter().map(|p| format!("decoder: {p}")));
        problems
    }
}

impl Attack for Corrector {
    fn needs(&self) -> Knowledge {
        Knowledge { auxiliary: true, pipeline: true, encoder: true, released: true, leaked_pairs: 0 }
    }

    fn fit<'a>(&self, view: &'a View<'a>, _: &str, progress: &dyn Progress) -> Result<Box<dyn Inverter + 'a>, Error> {
        let adaptation = Adaptation::fit(view)?;
        let writer = Writer::train(view, &adaptation, &self.decoder, Pairing::True, progress)?;
        let hypotheses = Hypotheses::new(self, view, &adaptation, progress);
        let hypotheses = (self.spoilt < 1.0).then_some(&hypotheses);
        let trained = self.train(view, &adaptation, &writer, hypotheses, progress)?;
        let mut curves = writer.curves().to_vec();
        curves.push(trained.curve);
        let mender = Mender::new(trained.model, self, trained.origin);
        Ok(Box::new(Fitted { view, adaptation, writer, mender, params: self.clone(), curves }))
    }
}

/// A trained corrector.
struct Trained {
    model: Model,
    curve: Curve,
    origin: Option<String>,
}

/// Share of the decoder's learning rate that the corrector is trained with.
const LEARNING: f64 = 0.5;

impl Corrector {
    /// Trains a corrector ahead of all studies, on texts of the view that are spoilt anew in each epoch: a kept decoder has
    /// seen these texts, so its own guesses for them would be too good.
    ///
    /// # Errors
    /// When the decoder that it starts from cannot be had or the training fails.
    pub fn pretrain(&self, view: &View, progress: &dyn Progress) -> Result<Writer, Error> {
        let adaptation = Adaptation::fit(view)?;
        let writer = match Writer::kept(&self.decoder, view.encoder.info())? {
            Some(writer) => writer,
            None => Writer::train(view, &adaptation, &self.decoder, Pairing::True, progress)?,
        };
        let params = Self { pretrained: "none".to_owned(), spoilt: 1.0, ..self.clone() };
        let trained = params.train(view, &adaptation, &writer, None, progress)?;
        let tokenizer = writer.tokenizer()?;
        let learned = Learned { model: trained.model, tokenizer, curves: vec![trained.curve] };
        Ok(Writer::new(learned, &self.decoder, writer.origin()))
    }

    /// Trains the corrector from a kept one or from the writer's weights, or takes the finished one from the workshop.
    fn train(
        &self,
        view: &View,
        adaptation: &Adaptation,
        writer: &Writer,
        hypotheses: Option<&Hypotheses>,
        progress: &dyn Progress,
    ) -> Result<Trained, Error> {
        let params = Decoder { steps: self.steps, batch: self.batch, unconditional: 0.0, ..self.decoder.clone() };
        let source = if view.pipeline.is_identity() { Source::Clean } else { Source::Released(adaptation) };
        let tokenizer = writer.tokenizer()?;
        let kept = kept(&self.pretrained, view, writer)?;
        let (origin, weights) = kept.as_ref().map(|k| (k.origin(), k.record.weights.clone())).unzip();
        // The writer was tuned already, but the corrector learns to read inputs that no writer knows.
        let lr = LEARNING * self.decoder.lr * if kept.is_some() { TUNING } else { 1.0 };
        let course = Course { view, params: &params, pairing: Pairing::True, source, steps: self.steps, lr };
        let learned = Self {
            targets: 0,
            rounds: 0,
            beam: 0,
            samples: 0,
            temperature: 0.0,
            patience: 0,
            feedback: self.feedback.learned(),
            ..self.clone()
        };
        let basis = (writer.origin(), weights);
        let name = format!("corrector\u{0}{}\u{0}{learned:?}\u{0}{basis:?}\u{0}v3", view.fingerprint);
        let model = kept.map_or_else(|| self.start(view, writer), |kept| Ok(kept.model))?;
        let start = Learned { model, tokenizer, curves: Vec::new() };
        let draft = |purpose: &str, texts: &[usize]| self.reading(view, writer, hypotheses, purpose, texts);
        let mut learned = course.run(&name, Some(start), Some(&draft), progress)?;
        let title = "held-out loss of the corrector (nats a piece)".to_owned();
        let curve = Curve { title, ..learned.curves.pop().unwrap_or_default() };
        Ok(Trained { model: learned.model, curve, origin })
    }

    /// A draft for each of these auxiliary texts: the text spoilt, or what a decoder wrote for it.
    fn reading(
        &self,
        view: &View,
        writer: &Writer,
        hypotheses: Option<&Hypotheses>,
        purpose: &str,
        texts: &[usize],
    ) -> Result<Reading, Error> {
        let damage = Damage::new(view.auxiliary);
        let all = hypotheses.is_none();
        let spoilt: Vec<Option<String>> = texts
            .par_iter()
            .map(|&i| {
                let mut rng = seed::stream(view.seed, purpose, &format!("draft {i}"));
                let own = all || rng.random::<f64>() < self.spoilt;
                own.then(|| damage.spoil(&view.auxiliary[i].text, &mut rng))
            })
            .collect();
        let fresh: Vec<&str> = spoilt.iter().flatten().map(String::as_str).collect();
        let fresh = view.encoder.encode(&fresh)?;
        let mut fresh = fresh.rows();
        let others: Vec<usize> =
            texts.iter().zip(&spoilt).filter(|(_, spoilt)| spoilt.is_none()).map(|(&i, _)| i).collect();
        let written = hypotheses.map(|hypotheses| hypotheses.of(&others)).transpose()?;
        let mut vectors = Embeddings::empty(view.clean.dim());
        let mut drafts = Vec::with_capacity(texts.len());
        for (i, spoilt) in texts.iter().zip(&spoilt) {
            if let (None, Some(written)) = (spoilt, &written) {
                vectors.push(&written[i].vector);
                drafts.push(written[i].text.as_str());
            } else {
                vectors.push(fresh.next().expect("a row for each spoilt text"));
                drafts.push(spoilt.as_deref().unwrap_or_default());
            }
        }
        let drafts = drafts.par_iter().map(|text| writer.encode(text)).collect::<Result<_, Error>>()?;
        let rows = texts.iter().copied().zip(0..).collect();
        Ok(Reading { rows, drafts, vectors, feedback: self.feedback.learned() })
    }

    /// The writer's weights in a model that reads a guess and how far off it is.
    fn start(&self, view: &View, writer: &Writer) -> Result<Model, Error> {
        let like = writer.config();
        let config = DecoderConfig {
            cond_dim: 2 * like.cond_dim,
            slots: self.slots,
            max_len_tokens: 2 * like.max_len_tokens,
            ..like.clone()
        };
        let mut model = Model::new(config, &mut seed::stream(view.seed, &view.fingerprint, "corrector init"))?;
        model.adopt(writer.model());
        Ok(model)
    }
}

/// What stands before a text that is to be corrected, while training: its draft, and the draft's vector.
pub(super) struct Reading {
    /// The row of each text.
    rows: HashMap<usize, usize>,
    drafts: Vec<Vec<u32>>,
    vectors: Embeddings,
    feedback: Feedback,
}

impl Reading {
    /// The pieces that are read before text `i`: its draft with the end mark.
    pub(super) fn draft(&self, i: usize) -> &[u32] {
        &self.drafts[self.rows[&i]]
    }

    /// The vectors that are read with text `i`, given its denoised release.
    pub(super) fn inputs(&self, i: usize, target: &[f32]) -> Vec<f32> {
        pair(target, self.vectors.row(self.rows[&i]), self.feedback)
    }
}

impl Feedback {
    /// What it was trained on.
    const fn learned(self) -> Self {
        match self {
            Self::Read | Self::Zeroed => Self::Read,
            Self::Withheld | Self::Unembedded => Self::Withheld,
        }
    }
}

/// `[e, e - e_h]` with coordinates of about one; `e_h` is zero, or the difference is, where the feedback says so.
///
/// Vec2text reads `e_h` too. It is the difference of these two, so the first layer, which is linear, has it already.
fn pair(target: &[f32], guess: &[f32], feedback: Feedback) -> Vec<f32> {
    let d = target.len();
    let unit = |v: &[f32]| -> Vec<f32> {
        let norm = v.iter().map(|v| v * v).sum::<f32>().sqrt();
        v.iter().map(|v| if norm > 0.0 { v / norm } else { 0.0 }).collect()
    };
    let (e, h) = (unit(target), unit(guess));
    let scale = (d as f32).sqrt();
    let difference = e.iter().zip(&h).map(|(e, h)| match feedback {
        Feedback::Read => (e - h) * scale,
        Feedback::Zeroed => e * scale,
        Feedback::Withheld | Feedback::Unembedded => 0.0,
    });
    e.iter().map(|v| v * scale).chain(difference).collect()
}

/// The kept corrector, where there is one that writes the writer's pieces.
fn kept(choice: &str, view: &View, writer: &Writer) -> Result<Option<Kept>, Error> {
    let pieces = writer.tokenizer()?.to_json()?;
    let kept = Kept::find(choice, view.encoder.info(), Role::Corrector)?;
    Ok(kept.filter(|kept| kept.tokenizer.to_json().is_ok_and(|own| own == pieces)))
}

/// A trained corrector and how it is asked for rewrites.
pub(super) struct Mender {
    model: Model,
    feedback: Feedback,
    beam: usize,
    samples: usize,
    temperature: f64,
    /// Which pretrained corrector it started from.
    origin: Option<String>,
}

impl Mender {
    fn new(model: Model, params: &Corrector, origin: Option<String>) -> Self {
        let Corrector { feedback, beam, samples, temperature, .. } = *params;
        Self { model, feedback, beam, samples, temperature, origin }
    }

    /// Which pretrained attackers rewrite together: the writer's, and its own.
    pub(super) fn origin(&self, writer: &Writer) -> Option<String> {
        [writer.origin(), self.origin.clone()].into_iter().flatten().reduce(|a, b| format!("{a}; {b}"))
    }

    /// The corrector before any training.
    #[cfg(test)]
    pub(super) fn untrained(params: &Corrector, view: &View, writer: &Writer) -> Result<Self, Error> {
        Ok(Self::new(params.start(view, writer)?, params, None))
    }

    /// The kept corrector as it is, for attackers that have no training of their own to spend on it; `choice` is as in
    /// [`Corrector::pretrained`].
    pub(super) fn kept(choice: &str, view: &View, writer: &Writer) -> Result<Option<Self>, Error> {
        let params = Corrector::default();
        Ok(kept(choice, view, writer)?.map(|kept| {
            let origin = kept.origin();
            Self::new(kept.model, &params, Some(origin))
        }))
    }

    /// Rewrites of a text, given the denoised release and the text's own vector: the likeliest, then some drawn.
    pub(super) fn rewrite(
        &self,
        writer: &Writer,
        denoised: &[f32],
        (text, vector): (&str, &[f32]),
        rng: &mut seed::Stream,
    ) -> Result<Vec<String>, Error> {
        let cond = pair(denoised, vector, self.feedback);
        let given = writer.encode(text)?;
        let most = writer.config().max_len_tokens;
        let mut found = self.model.beam_after(&cond, &given, self.beam, most)?;
        let how = Sampling { temperature: self.temperature, top_p: 0.95, ..Sampling::default() };
        found.extend(self.model.sample_after(&cond, &given, self.samples, &how, most, rng)?);
        found.iter().map(|h| writer.decode(&h.tokens)).collect()
    }

    /// The likeliest rewrite of a text whose vector is not known.
    fn likeliest(&self, writer: &Writer, denoised: &[f32], text: &str) -> Result<Option<Candidate>, Error> {
        let cond = pair(denoised, &vec![0.0; denoised.len()], Feedback::Unembedded);
        let most = writer.config().max_len_tokens;
        let found = self.model.beam_after(&cond, &writer.encode(text)?, self.beam, most)?;
        let best = found.into_iter().next();
        best.map(|h| Ok(Candidate { text: writer.decode(&h.tokens)?, log_prob: h.log_prob })).transpose()
    }
}

struct Fitted<'a> {
    view: &'a View<'a>,
    adaptation: Adaptation<'a>,
    writer: Writer,
    mender: Mender,
    params: Corrector,
    curves: Vec<Curve>,
}

/// A guess under way.
#[derive(Clone)]
struct Attempt {
    text: String,
    vector: Vec<f32>,
    score: f64,
}

impl Inverter for Fitted<'_> {
    fn invert(&self, released: &Embeddings, task: &str, progress: &dyn Progress) -> Result<Vec<Guess>, Error> {
        let written = self.writer.candidates(&self.adaptation, released, self.view.seed, task, progress)?;
        let denoised = self.adaptation.denoise(released);
        let done = std::sync::atomic::AtomicUsize::new(0);
        (0..released.len())
            .into_par_iter()
            .map(|i| {
                if progress.is_interrupted() {
                    return Err(Error::Interrupted);
                }
                let guess = if self.params.feedback == Feedback::Unembedded {
                    self.rewrite_unseen(denoised.row(i), &written[i])?
                } else {
                    let starts = written[i].iter().map(|c| c.text.clone()).collect();
                    let mut rng = seed::stream(self.view.seed, task, &format!("corrections {i}"));
                    self.correct(released.row(i), denoised.row(i), starts, &mut rng)?
                };
                let n = done.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
                progress.update(n, released.len(), "targets corrected");
                Ok(guess)
            })
            .collect()
    }

    fn origin(&self) -> Option<String> {
        self.mender.origin(&self.writer)
    }

    fn curves(&self) -> Vec<Curve> {
        self.curves.clone()
    }
}

impl Fitted<'_> {
    fn correct(
        &self,
        y: &[f32],
        denoised: &[f32],
        starts: Vec<String>,
        rng: &mut seed::Stream,
    ) -> Result<Guess, Error> {
        let mut seen = BTreeSet::new();
        let mut queries = 0;
        let mut beam = self.embed(y, starts, &mut seen, &mut queries)?;
        let mut trace = Vec::new();
        let mut idle = 0;
        for _ in 0..self.params.rounds {
            rank(&mut beam, self.params.beam);
            let Some(best) = beam.first() else { break };
            let reached = super::search::cosine(y, &best.vector);
            trace.push((queries, reached));
            // Without noise, a guess with the very vector that was released is the text: nothing is left to correct.
            if self.adaptation.sigma() == 0.0 && reached > 1.0 - 1e-6 {
                break;
            }
            let before = best.score;
            let mut written = Vec::new();
            for attempt in &beam {
                let draft = (attempt.text.as_str(), attempt.vector.as_slice());
                written.extend(self.mender.rewrite(&self.writer, denoised, draft, rng)?);
            }
            beam.extend(self.embed(y, written, &mut seen, &mut queries)?);
            rank(&mut beam, self.params.beam);
            idle = if beam.first().is_some_and(|best| best.score > before + 1e-9) { 0 } else { idle + 1 };
            if idle == self.params.patience {
                break;
            }
        }
        let Some(best) = beam.into_iter().next() else { return Ok(Guess::new(String::new(), f64::NEG_INFINITY)) };
        trace.push((queries, super::search::cosine(y, &best.vector)));
        Ok(Guess { queries, trace, ..Guess::new(best.text, best.score) })
    }

    /// Rewrites the writer's likeliest guess without embedding anything, until a text comes back or the rounds are over.
    fn rewrite_unseen(&self, denoised: &[f32], starts: &[Candidate]) -> Result<Guess, Error> {
        let likeliest = starts.iter().max_by(|a, b| a.log_prob.total_cmp(&b.log_prob)).cloned();
        let Some(mut guess) = likeliest else { return Ok(Guess::new(String::new(), f64::NEG_INFINITY)) };
        let mut seen = BTreeSet::from([guess.text.clone()]);
        for _ in 0..self.params.rounds {
            let Some(next) = self.mender.likeliest(&self.writer, denoised, &guess.text)? else { break };
            if next.text.is_empty() || !seen.insert(next.text.clone()) {
                break;
            }
            guess = next;
        }
        Ok(Guess::new(guess.text, guess.log_prob))
    }

    fn embed(
        &self,
        y: &[f32],
        texts: Vec<String>,
        seen: &mut BTreeSet<String>,
        queries: &mut usize,
    ) -> Result<Vec<Attempt>, Error> {
        let fresh: Vec<String> = texts.into_iter().filter(|t| !t.is_empty() && seen.insert(t.clone())).collect();
        if fresh.is_empty() {
            return Ok(Vec::new());
        }
        *queries += fresh.len();
        let strings: Vec<&str> = fresh.iter().map(String::as_str).collect();
        let vectors = self.view.encoder.encode(&strings)?;
        Ok(fresh
            .into_iter()
            .zip(vectors.rows())
            .map(|(text, vector)| Attempt {
                text,
                score: self.adaptation.log_likelihood(y, vector),
                vector: vector.to_vec(),
            })
            .collect())
    }
}

fn rank(beam: &mut Vec<Attempt>, width: usize) {
    beam.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| a.text.cmp(&b.text)));
    beam.truncate(width);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::Quiet;
    use crate::attack::scene::Scene;
    use crate::attack::text::hypotheses::Hypothesis;
    use crate::encode::{Encoder, EncoderInfo};

    /// Vec2text's early stop never fired: the assignment was the wrong way round.
    #[test]
    fn the_truth_as_first_guess_ends_the_correction_at_once() {
        let scene = Scene::new(120, "identity", &[]);
        let view = scene.view();
        let decoder =
            Decoder { steps: 4, batch: 8, d_model: 16, layers: 1, heads: 2, vocabulary: 300, ..Decoder::default() };
        let adaptation = Adaptation::fit(&view).expect("fits");
        let writer = Writer::train(&view, &adaptation, &decoder, Pairing::True, &Quiet).expect("trains");
        let params = Corrector { decoder, slots: 2, beam: 2, rounds: 4, ..Corrector::default() };
        let mender = Mender::untrained(&params, &view, &writer).expect("a model");
        let fitted = Fitted { view: &view, adaptation, writer, mender, params, curves: Vec::new() };
        let text = |i: usize| scene.records[i].text.clone();
        let (y, truth) = (scene.clean.row(7), text(7));
        let mut rng = seed::stream(1, "corrector tests", "early stop");
        let guess = fitted.correct(y, y, vec![text(30), truth.clone()], &mut rng).expect("a guess");
        assert_eq!((guess.text, guess.queries), (truth, 2), "no query after the truth");
        let guess = fitted.correct(y, y, vec![text(30)], &mut rng).expect("a guess");
        assert!(guess.queries > 1, "without the truth it tries");
        assert!(guess.trace.windows(2).all(|w| w[0].0 <= w[1].0), "queries only grow");
    }

    #[test]
    fn drafts_are_spoilt_anew_in_each_epoch_or_come_from_the_other_fold() {
        let scene = Scene::new(60, "identity", &[]);
        let view = scene.view();
        // Room for whole texts: a draft that is cut has another vector.
        let (vocabulary, max_len_tokens) = (300, 256);
        let decoder = Decoder { steps: 2, batch: 8, d_model: 16, layers: 1, heads: 2, ..Decoder::default() };
        let decoder = Decoder { vocabulary, max_len_tokens, ..decoder };
        let adaptation = Adaptation::fit(&view).expect("fits");
        let writer = Writer::train(&view, &adaptation, &decoder, Pairing::True, &Quiet).expect("trains");
        let texts: Vec<String> = (0..60).map(|i| format!("a guess for record {i}")).collect();
        let strings: Vec<&str> = texts.iter().map(String::as_str).collect();
        let vectors = view.encoder.encode(&strings).expect("vectors");
        let read = |spoilt: f64, epoch: &str| {
            let params = Corrector { spoilt, ..Corrector::default() };
            let made = texts.iter().zip(vectors.rows());
            let made = made.map(|(text, vector)| Hypothesis { text: text.clone(), vector: vector.to_vec() });
            let hypotheses = Hypotheses::new(&params, &view, &adaptation, &Quiet).given((0..).zip(made).collect());
            params.reading(&view, &writer, Some(&hypotheses), epoch, &(0..60).collect::<Vec<_>>()).expect("drafts")
        };
        let own = read(0.0, "epoch 0");
        assert_eq!(own.vectors, vectors);
        assert_eq!(own.draft(7), writer.encode("a guess for record 7").expect("pieces"));
        let (first, second) = (read(1.0, "epoch 0"), read(1.0, "epoch 1"));
        assert!(first.draft(7) != own.draft(7));
        assert!((0..60).any(|i| first.draft(i) != second.draft(i)), "another epoch, other damage");
        assert_eq!(first.drafts, read(1.0, "epoch 0").drafts, "the same epoch, the same damage");
        let text = writer.decode(&first.draft(7)[..first.draft(7).len() - 1]).expect("a text");
        let vector = view.encoder.encode(&[&text]).expect("a vector");
        assert_eq!(first.vectors.row(7), vector.row(0), "a draft stands beside its own vector");
        let some = read(0.5, "epoch 0");
        let spoilt = (0..60).filter(|&i| some.draft(i) != own.draft(i)).count();
        assert!((15..45).contains(&spoilt), "{spoilt} of 60");
    }

    #[test]
    fn without_feedback_the_guess_cannot_be_seen() {
        let (target, guess) = ([0.6, 0.8], [1.0, 0.0]);
        let scale = 2.0_f32.sqrt();
        for (feedback, wanted) in [
            (Feedback::Read, [0.6, 0.8, -0.4, 0.8]),
            (Feedback::Zeroed, [0.6, 0.8, 0.6, 0.8]),
            (Feedback::Withheld, [0.6, 0.8, 0.0, 0.0]),
            (Feedback::Unembedded, [0.6, 0.8, 0.0, 0.0]),
        ] {
            for (got, want) in pair(&target, &guess, feedback).iter().zip(wanted) {
                assert!((got - want * scale).abs() < 1e-6, "{feedback:?}: {got} against {want}");
            }
        }
        assert_eq!(Feedback::Zeroed.learned(), Feedback::Read, "the trained model's own ablation");
        assert_eq!(Feedback::Unembedded.learned(), Feedback::Withheld, "it has nothing to read");
    }

    /// An encoder that cannot be asked.
    struct Silent(EncoderInfo);

    impl Encoder for Silent {
        fn info(&self) -> &EncoderInfo {
            &self.0
        }

        fn encode(&self, _: &[&str]) -> Result<Embeddings, crate::encode::Error> {
            panic!("a guess was embedded")
        }
    }

    #[test]
    fn the_ablation_without_embedding_asks_the_encoder_nothing() {
        let scene = Scene::new(60, "identity", &[]);
        let decoder =
            Decoder { steps: 4, batch: 8, d_model: 16, layers: 1, heads: 2, vocabulary: 300, ..Decoder::default() };
        let open = scene.view();
        let adaptation = Adaptation::fit(&open).expect("fits");
        let writer = Writer::train(&open, &adaptation, &decoder, Pairing::True, &Quiet).expect("trains");
        let feedback = Feedback::Unembedded;
        let params = Corrector { decoder, slots: 2, beam: 2, rounds: 3, feedback, ..Corrector::default() };
        assert_eq!(params.most_rewrites(), (6, 0));
        let mender = Mender::untrained(&params, &open, &writer).expect("a model");
        let silent = Silent(scene.encoder.info().clone());
        let view = View { encoder: &silent, ..scene.view() };
        let released = scene.clean.select(&[3, 8]);
        let starts = writer.candidates(&adaptation, &released, view.seed, "t", &Quiet).expect("guesses");
        let fitted = Fitted { view: &view, adaptation, writer, mender, params, curves: Vec::new() };
        let guesses = fitted.invert(&released, "t", &Quiet).expect("guesses");
        for (guess, starts) in guesses.iter().zip(&starts) {
            assert_eq!(guess.queries, 0);
            assert!(starts.iter().all(|start| start.text != guess.text), "it was rewritten");
        }
    }
}
