//! An embedding-conditioned prefix language model: the free-text attackers' generator and language model.
//!
//! A pre-LN causal transformer reads `slots` vectors made from the conditioning vector `c` by a two-layer network, then
//! the text. The last slot predicts the first token, so there is no begin-of-text token; the text ends with `eos`. A
//! learned null prefix stands in for "no embedding": trained on a share of the samples, one model gives both
//! `p(text | c)` and `p(text)`.
//!
//! There is no autograd here: the forward and backward passes are written out over flat arenas (`pass.rs`), because that
//! is what makes training on two cores bearable. [`super::Trainer`] trains it, `generate.rs` reads from it.
//!
//! Scale of the conditioning: the first layer starts out for coordinates of about unit variance, so multiply a
//! unit-norm embedding of dimension `d` by `sqrt(d)`.

mod generate;
mod layout;
pub(super) mod pass;

pub use generate::{Hypothesis, Sampling, Session};
pub(super) use layout::Layout;

use super::{Error, snapshot};
use crate::seed;
use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Rows (positions of all sequences) that go through the layers together: enough for the matrix products, small enough
/// for the second-level cache. Part of the result, because it groups sums; never derived from the thread count.
pub(super) const CHUNK_ROWS: usize = 512;

/// Shape of a [`Decoder`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecoderConfig {
    /// Width of the residual stream.
    pub d_model: usize,
    /// Number of transformer layers.
    pub layers: usize,
    /// Attention heads; must divide `d_model`.
    pub heads: usize,
    /// Width of the feed-forward layer, in units of `d_model`.
    pub ff_mult: usize,
    /// Number of tokens.
    pub vocab: usize,
    /// Dimension of the conditioning vector.
    pub cond_dim: usize,
    /// Prefix vectors made from it.
    pub slots: usize,
    /// Longest text in tokens, the end-of-text token included.
    pub max_len_tokens: usize,
    /// Share of residual-stream updates dropped in training.
    pub dropout: f32,
    /// Whether the output projection is the token embedding.
    pub tied: bool,
    /// The end-of-text token.
    pub eos: u32,
}

impl Default for DecoderConfig {
    /// Three layers of width 128 over 4,096 tokens: the size that two cores train in minutes.
    fn default() -> Self {
        DecoderConfig {
            d_model: 128,
            layers: 3,
            heads: 4,
            ff_mult: 4,
            vocab: 4096,
            cond_dim: 384,
            slots: 8,
            max_len_tokens: 32,
            dropout: 0.0,
            tied: true,
            eos: 0,
        }
    }
}

impl DecoderConfig {
    /// Checks that the dimensions fit together.
    ///
    /// # Errors
    /// [`Error::Config`] names the first field that is wrong.
    pub fn check(&self) -> Result<(), Error> {
        let positive = [
            ("d_model", self.d_model),
            ("layers", self.layers),
            ("heads", self.heads),
            ("ff_mult", self.ff_mult),
            ("cond_dim", self.cond_dim),
            ("slots", self.slots),
            ("max_len_tokens", self.max_len_tokens),
        ];
        for (name, value) in positive {
            if value == 0 {
                return Err(Error::Config(format!("decoder `{name}` must be at least 1")));
            }
        }
        if !self.d_model.is_multiple_of(self.heads) {
            let (heads, d) = (self.heads, self.d_model);
            return Err(Error::Config(format!("decoder `heads` = {heads} must divide `d_model` = {d}")));
        }
        if self.vocab < 2 || self.eos as usize >= self.vocab {
            let (eos, vocab) = (self.eos, self.vocab);
            return Err(Error::Config(format!("decoder `vocab` = {vocab} must exceed 1 and `eos` = {eos}")));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(Error::Config(format!("decoder `dropout` must be in [0, 1), got {}", self.dropout)));
        }
        Ok(())
    }

    /// Width of the hidden layer between the conditioning vector and the prefix.
    fn hidden(&self) -> usize {
        self.cond_dim.max(self.d_model).next_multiple_of(16)
    }

    /// Positions of the longest sequence: the prefix, then every token but the last.
    fn positions(&self) -> usize {
        self.slots + self.max_len_tokens - 1
    }

    /// The position of row `row` of a sequence whose first `given` tokens are only read: the prefix and what is written count
    /// from the front, as without them, and what is read from the back.
    fn position(&self, row: usize, given: usize) -> usize {
        match row.checked_sub(self.slots) {
            Some(token) if token < given => self.positions() - 1 - token,
            Some(_) => row - given,
            None => row,
        }
    }
}

/// What a training or evaluation step reads.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    /// Conditioning vectors `(b, cond_dim)`.
    pub cond: &'a [f32],
    /// Samples that see the null prefix instead.
    pub null: &'a [bool],
    /// Tokens `(b, t)`, right-padded with anything; each text ends with the end-of-text token. Pads cost nothing.
    pub tokens: &'a [u32],
    /// Tokens of each text, the end-of-text token included.
    pub lengths: &'a [usize],
    /// Leading tokens of each text that are read and not predicted; empty means none.
    pub given: &'a [usize],
}

impl Batch<'_> {
    /// Tokens that are predicted, of all texts together.
    pub(super) fn predicted(&self) -> usize {
        self.lengths.iter().sum::<usize>() - self.given.iter().sum::<usize>()
    }
}

/// What the prefix is made of, for texts that are scored.
#[derive(Debug, Clone, Copy)]
pub enum Prefix<'a> {
    /// The null prefix: `p(text)`.
    Null,
    /// One conditioning vector `(cond_dim)` for all texts.
    Shared(&'a [f32]),
    /// One conditioning vector for each text, `(n, cond_dim)`.
    Rows(&'a [f32]),
}

/// The model: a configuration and one flat arena of weights.
#[derive(Debug, Clone)]
pub struct Decoder {
    config: DecoderConfig,
    layout: Layout,
    weights: Vec<f32>,
}

impl Decoder {
    /// A freshly initialised model.
    ///
    /// # Formula
    /// Embeddings, positions and null prefix `N(0, 0.02^2)`; matrices `N(0, 1 / (3 fan_in))`, those that write to the
    /// residual stream divided by `sqrt(2 layers)`; gains 1, biases 0. Drawn in the order of the arena.
    ///
    /// # Errors
    /// When the configuration does not check.
    pub fn new(config: DecoderConfig, rng: &mut seed::Stream) -> Result<Decoder, Error> {
        config.check()?;
        let layout = Layout::new(&config);
        let mut weights = vec![0.0; layout.total];
        for part in &layout.parts {
            let span = part.span.of_mut(&mut weights);
            match part.start {
                layout::Start::Normal(deviation) => {
                    for w in span {
                        let z: f32 = StandardNormal.sample(rng);
                        *w = z * deviation;
                    }
                }
                layout::Start::Constant(value) => span.fill(value),
            }
        }
        Ok(Decoder { config, layout, weights })
    }

    /// Takes over what `other` knows: every parameter of the same name and shape, and of a prefix that reads more or has more
    /// slots the part that `other` has. Of its new inputs the taken part sees nothing yet; texts that are only read start at
    /// the positions of texts that are written. The rest keeps its own start.
    pub fn adopt(&mut self, other: &Decoder) {
        for part in &self.layout.parts {
            if let Some(like) = other.layout.parts.iter().find(|p| p.name == part.name && p.shape == part.shape) {
                part.span.of_mut(&mut self.weights).copy_from_slice(like.span.slice(&other.weights));
            }
        }
        let (own, like, d) = (&self.config, &other.config, self.config.d_model);
        if d != like.d_model {
            return;
        }
        let fits = own.cond_dim >= like.cond_dim && own.hidden() >= like.hidden() && own.slots >= like.slots;
        let slots = if fits { like.slots } else { 0 };
        if fits {
            let widths = [(own.hidden(), like.hidden()), (own.slots * d, like.slots * d)];
            let maps =
                [(self.layout.prefix_in, other.layout.prefix_in), (self.layout.prefix_out, other.layout.prefix_out)];
            for ((map, from), (width, narrow)) in maps.into_iter().zip(widths) {
                let mut rows = from.weight.slice(&other.weights).chunks_exact(narrow);
                for row in map.weight.of_mut(&mut self.weights).chunks_exact_mut(width) {
                    match rows.next() {
                        Some(from) => row[..narrow].copy_from_slice(from),
                        None => row[..narrow].fill(0.0),
                    }
                }
                map.bias.of_mut(&mut self.weights)[..narrow].copy_from_slice(from.bias.slice(&other.weights));
            }
            let null = other.layout.null.slice(&other.weights);
            self.layout.null.of_mut(&mut self.weights)[..null.len()].copy_from_slice(null);
        }
        let from: Vec<&[f32]> = other.layout.position.slice(&other.weights).chunks_exact(d).collect();
        let written = &from[like.slots..];
        let mut to: Vec<&mut [f32]> = self.layout.position.of_mut(&mut self.weights).chunks_exact_mut(d).collect();
        for (to, from) in to.iter_mut().zip(&from[..slots]) {
            to.copy_from_slice(from);
        }
        let texts = &mut to[own.slots..];
        for (to, from) in texts.iter_mut().rev().zip(written) {
            to.copy_from_slice(from);
        }
        for (to, from) in texts.iter_mut().zip(written) {
            to.copy_from_slice(from);
        }
    }

    /// The shape.
    pub fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// Number of trained parameters.
    pub fn parameters(&self) -> usize {
        self.weights.len()
    }

    /// Writes the weights and the configuration as one safetensors file.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        snapshot::write(path, "decoder", &self.config, &self.tensors(), snapshot::Precision::Single)
    }

    /// Like [`Decoder::save`] at half the size: f16, three significant digits.
    pub fn save_half(&self, path: &Path) -> Result<(), Error> {
        snapshot::write(path, "decoder", &self.config, &self.tensors(), snapshot::Precision::Half)
    }

    /// Reads what [`Decoder::save`] or [`Decoder::save_half`] wrote.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] when the file is missing, damaged, of another kind, or does not fit its configuration.
    pub fn load(path: &Path) -> Result<Decoder, Error> {
        let file = snapshot::read(path, "decoder")?;
        Decoder::from_snapshot(file.header()?, &file)
    }

    /// Like [`Decoder::load`] from bytes that are in memory; `name` stands for them in messages.
    ///
    /// # Errors
    /// As for [`Decoder::load`].
    pub fn from_bytes(name: &str, bytes: Vec<u8>) -> Result<Decoder, Error> {
        let file = snapshot::parse(Path::new(name), bytes, "decoder")?;
        Decoder::from_snapshot(file.header()?, &file)
    }

    pub(super) fn from_snapshot(config: DecoderConfig, file: &snapshot::Snapshot) -> Result<Decoder, Error> {
        config.check()?;
        let layout = Layout::new(&config);
        let mut weights = vec![0.0; layout.total];
        for part in &layout.parts {
            file.copy(&part.name, &part.shape, part.span.of_mut(&mut weights))?;
        }
        Ok(Decoder { config, layout, weights })
    }

    pub(super) fn tensors(&self) -> Vec<snapshot::Tensor<'_>> {
        let tensor = |part: &layout::Part| snapshot::Tensor {
            name: part.name.clone(),
            shape: part.shape.clone(),
            data: part.span.slice(&self.weights),
        };
        self.layout.parts.iter().map(tensor).collect()
    }

    pub(super) fn with_weights(&self, weights: Vec<f32>) -> Decoder {
        Decoder { config: self.config.clone(), layout: self.layout.clone(), weights }
    }

    pub(super) fn layout(&self) -> &Layout {
        &self.layout
    }

    pub(super) fn weights(&self) -> &[f32] {
        &self.weights
    }

    pub(super) fn weights_mut(&mut self) -> &mut [f32] {
        &mut self.weights
    }

    /// Mean loss of a batch in nats for each token, without dropout or smoothing.
    ///
    /// # Errors
    /// [`Error::Shape`] when the batch does not fit the model.
    pub fn loss(&self, batch: &Batch) -> Result<f64, Error> {
        let source = self.checked(batch)?;
        let per_text = self.score(&source, batch.lengths.len());
        Ok(-per_text.iter().sum::<f64>() / batch.predicted() as f64)
    }

    /// Log-probability of each text in nats; a text counts as complete when it ends with the end-of-text token.
    ///
    /// Texts go through the model in fixed blocks, in parallel; the result does not depend on the thread count.
    ///
    /// # Errors
    /// [`Error::Shape`] for an empty or too long text, an unknown token, or a prefix of the wrong size.
    pub fn log_probs(&self, prefix: Prefix, texts: &[&[u32]]) -> Result<Vec<f64>, Error> {
        let expected = match prefix {
            Prefix::Null => None,
            Prefix::Shared(cond) => Some((cond.len(), self.config.cond_dim)),
            Prefix::Rows(cond) => Some((cond.len(), texts.len() * self.config.cond_dim)),
        };
        if let Some((got, want)) = expected
            && got != want
        {
            return Err(Error::Shape(format!("the prefix has {got} numbers, {want} are needed for `log_probs`")));
        }
        for text in texts {
            self.check_text(text)?;
        }
        Ok(self.score(&pass::Source { prefix, null: &[], given: &[], texts: pass::Texts::Slices(texts) }, texts.len()))
    }

    fn score(&self, source: &pass::Source, texts: usize) -> Vec<f64> {
        let chunks: Vec<_> = pass::Chunks::new(&self.config, source, 0..texts).collect();
        let parts: Vec<Vec<f64>> = chunks
            .into_par_iter()
            .map_init(pass::Workspace::default, |workspace, chunk| workspace.log_probs(self, source, &chunk))
            .collect();
        parts.concat()
    }

    /// Checks a batch once, so that the passes can index freely.
    pub(super) fn checked<'a>(&self, batch: &Batch<'a>) -> Result<pass::Source<'a>, Error> {
        let b = batch.lengths.len();
        if b == 0 || !batch.tokens.len().is_multiple_of(b) {
            return Err(Error::Shape(format!("{} tokens do not make {b} rows", batch.tokens.len())));
        }
        let t = batch.tokens.len() / b;
        if batch.null.len() != b || batch.cond.len() != b * self.config.cond_dim {
            let (null, cond) = (batch.null.len(), batch.cond.len());
            return Err(Error::Shape(format!(
                "a batch of {b} needs {b} `null` flags and {} `cond` numbers, got {null} and {cond}",
                b * self.config.cond_dim
            )));
        }
        if !batch.given.is_empty() && batch.given.len() != b {
            return Err(Error::Shape(format!("{} `given` lengths for a batch of {b}", batch.given.len())));
        }
        if let Some((&given, &len)) = batch.given.iter().zip(batch.lengths).find(|(given, len)| given >= len) {
            return Err(Error::Shape(format!("of a text of {len} tokens, {given} are given: none is left to predict")));
        }
        for (row, &len) in batch.tokens.chunks_exact(t.max(1)).zip(batch.lengths) {
            let text = row.get(..len).ok_or_else(|| Error::Shape(format!("a text of {len} tokens in rows of {t}")))?;
            self.check_text(text)?;
        }
        let texts = pass::Texts::Padded { tokens: batch.tokens, t, lengths: batch.lengths };
        Ok(pass::Source { prefix: Prefix::Rows(batch.cond), null: batch.null, given: batch.given, texts })
    }

    fn check_text(&self, text: &[u32]) -> Result<(), Error> {
        if text.is_empty() || text.len() > self.config.max_len_tokens {
            let (n, max) = (text.len(), self.config.max_len_tokens);
            return Err(Error::Shape(format!(
                "a text has {n} tokens; the decoder takes 1 to {max} (`max_len_tokens`)"
            )));
        }
        match text.iter().find(|&&token| token as usize >= self.config.vocab) {
            Some(token) => Err(Error::Shape(format!("token {token} is not below `vocab` = {}", self.config.vocab))),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::RngExt;
    use std::collections::BTreeSet;

    fn decoder() -> Decoder {
        let config = DecoderConfig {
            d_model: 24,
            layers: 2,
            heads: 3,
            ff_mult: 3,
            vocab: 41,
            cond_dim: 5,
            slots: 2,
            max_len_tokens: 12,
            ..DecoderConfig::default()
        };
        let mut decoder = Decoder::new(config, &mut seed::stream(1, "decoder tests", "init")).expect("valid");
        let mut rng = seed::stream(1, "decoder tests", "spread");
        for w in decoder.weights_mut() {
            *w += rng.random_range(-0.3..0.3);
        }
        decoder
    }

    fn texts(n: usize, rng: &mut seed::Stream) -> Vec<Vec<u32>> {
        (0..n).map(|_| (0..rng.random_range(1..=12)).map(|_| rng.random_range(0..41)).collect()).collect()
    }

    fn log_softmax(z: &[f32], token: u32) -> f64 {
        let total: f64 = z.iter().map(|&z| f64::from(z).exp()).sum();
        f64::from(z[token as usize]) - total.ln()
    }

    #[test]
    fn cached_steps_add_up_to_the_full_pass() {
        let decoder = decoder();
        let mut rng = seed::stream(2, "decoder tests", "texts");
        let cond: Vec<f32> = (0..5).map(|_| rng.random_range(-1.0..1.0)).collect();
        for prefix in [Prefix::Null, Prefix::Shared(&cond)] {
            let texts: Vec<Vec<u32>> = (0..7).map(|_| (0..12).map(|_| rng.random_range(0..41)).collect()).collect();
            let slices: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
            let whole = decoder.log_probs(prefix, &slices).expect("scores");
            let mut session = Session::start(&decoder, prefix, &[], 7).expect("a session");
            let mut sums = [0.0; 7];
            for at in 0..12 {
                for ((sum, z), text) in sums.iter_mut().zip(session.logits().chunks_exact(41)).zip(&texts) {
                    *sum += log_softmax(z, text[at]);
                }
                if at < 11 {
                    session.step(&texts.iter().map(|text| text[at]).collect::<Vec<_>>()).expect("room");
                }
            }
            for (sum, whole) in sums.iter().zip(&whole) {
                assert!((sum - whole).abs() < 1e-5 * whole.abs(), "{sum} against {whole}");
            }
            assert!(session.step(&[0; 7]).is_err(), "a full text takes no more tokens");
        }
    }

    #[test]
    fn given_tokens_are_read_and_not_predicted() {
        let decoder = decoder();
        let mut rng = seed::stream(5, "decoder tests", "given");
        let cond: Vec<f32> = (0..5).map(|_| rng.random_range(-1.0..1.0)).collect();
        let text: Vec<u32> = (0..9).map(|_| rng.random_range(0..41)).collect();
        let (given, rest) = text.split_at(4);
        let mut session = Session::start(&decoder, Prefix::Shared(&cond), given, 2).expect("a session");
        let mut sum = 0.0;
        for (at, &token) in rest.iter().enumerate() {
            sum += log_softmax(&session.logits()[41..], token);
            if at + 1 < rest.len() {
                session.step(&[token; 2]).expect("room");
            }
        }
        let batch = Batch { cond: &cond, null: &[false], tokens: &text, lengths: &[9], given: &[4] };
        let loss = decoder.loss(&batch).expect("a loss");
        assert!((loss + sum / 5.0).abs() < 1e-5, "{loss} against {}", -sum / 5.0);
        let best = &decoder.beam_after(&cond, given, 3, 5).expect("texts")[0];
        assert!(best.tokens.len() <= 5);
        assert!(decoder.loss(&Batch { given: &[9], ..batch }).is_err(), "nothing is left to predict");
        assert!(Session::start(&decoder, Prefix::Null, &[0; 12], 1).is_err(), "no room is left to write");
    }

    /// What a corrector starts from: a wider reader that writes what the narrower one writes, whatever its new inputs say.
    #[test]
    fn an_adopted_decoder_is_not_disturbed_by_new_inputs() {
        let decoder = decoder();
        let config = DecoderConfig { cond_dim: 15, max_len_tokens: 24, ..decoder.config().clone() };
        let mut wide = Decoder::new(config, &mut seed::stream(7, "decoder tests", "wide")).expect("valid");
        wide.adopt(&decoder);
        let mut rng = seed::stream(7, "decoder tests", "inputs");
        let cond: Vec<f32> = (0..15).map(|_| rng.random_range(-1.0..1.0)).collect();
        let texts = texts(5, &mut rng);
        let slices: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
        for (narrow, prefix) in [(Prefix::Shared(&cond[..5]), Prefix::Shared(&cond[..])), (Prefix::Null, Prefix::Null)]
        {
            let want = decoder.log_probs(narrow, &slices).expect("scores");
            let got = wide.log_probs(prefix, &slices).expect("scores");
            for (got, want) in got.iter().zip(&want) {
                assert!((got - want).abs() < 1e-4 * want.abs(), "{got} against {want}");
            }
        }
        let (mut how, mut rng) = (Sampling::default(), seed::stream(8, "decoder tests", "after"));
        how.temperature = 1e-4;
        let drawn = wide.sample_after(&cond, &[3, 4, 0], 3, &how, 6, &mut rng).expect("texts");
        assert!(drawn.iter().all(|h| h.tokens == drawn[0].tokens && h.tokens.len() <= 6), "the likeliest text, thrice");
    }

    #[test]
    fn reordered_hypotheses_keep_their_past() {
        let decoder = decoder();
        let mut session = Session::start(&decoder, Prefix::Null, &[], 3).expect("a session");
        session.step(&[4, 5, 6]).expect("room");
        let before = session.logits().to_vec();
        session.reorder(&[2, 0, 0, 1, 2]);
        assert_eq!(session.logits()[..41], before[82..]);
        session.step(&[9; 5]).expect("room");
        let mut straight = Session::start(&decoder, Prefix::Null, &[], 1).expect("a session");
        straight.step(&[6]).expect("room");
        straight.step(&[9]).expect("room");
        for (a, b) in session.logits()[4 * 41..].iter().zip(straight.logits()) {
            assert!((a - b).abs() < 1e-5);
        }
    }

    #[test]
    fn scores_do_not_depend_on_company_or_threads() {
        let decoder = decoder();
        let mut rng = seed::stream(3, "decoder tests", "texts");
        let texts = texts(300, &mut rng);
        let cond: Vec<f32> = (0..300 * 5).map(|_| rng.random_range(-1.0..1.0)).collect();
        let slices: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
            pool.install(|| decoder.log_probs(Prefix::Rows(&cond), &slices).expect("scores"))
        };
        let all = run(2);
        assert_eq!(all, run(1));
        for i in [0, 17, 299] {
            let alone = decoder.log_probs(Prefix::Shared(&cond[i * 5..][..5]), &slices[i..=i]).expect("a score")[0];
            assert!((alone - all[i]).abs() < 1e-5 * alone.abs());
        }
        let tokens: usize = texts.iter().map(Vec::len).sum();
        let mut padded = vec![0; 300 * 12];
        for (row, text) in padded.chunks_exact_mut(12).zip(&texts) {
            row[..text.len()].copy_from_slice(text);
        }
        let lengths: Vec<usize> = texts.iter().map(Vec::len).collect();
        let batch = Batch { cond: &cond, null: &[false; 300], tokens: &padded, lengths: &lengths, given: &[] };
        let loss = decoder.loss(&batch).expect("a loss");
        assert!((loss + all.iter().sum::<f64>() / tokens as f64).abs() < 1e-12);
    }

    #[test]
    fn samples_follow_the_model_and_repeat_with_their_seed() {
        let decoder = decoder();
        let cond = [0.3, -0.2, 1.0, 0.5, -0.7];
        let draw = |how: &Sampling| {
            decoder
                .sample(&cond, 4000, how, 1, &mut seed::stream(9, "decoder tests", "sample"))
                .expect("texts")
                .remove(0)
        };
        let plain = Sampling::default();
        let drawn = draw(&plain);
        assert_eq!(drawn, draw(&plain));
        let session = Session::start(&decoder, Prefix::Shared(&cond), &[], 1).expect("a session");
        let z = session.logits();
        // 41 binomial counts of 4,000 draws, each within 4.5 standard deviations: false alarm below 3e-4.
        for token in 0..41 {
            let p = log_softmax(z, token).exp();
            let seen = drawn.iter().filter(|h| if h.finished { token == 0 } else { h.tokens == [token] }).count();
            let deviation = (4000.0 * p * (1.0 - p)).sqrt();
            assert!((seen as f64 - 4000.0 * p).abs() < 4.5 * deviation + 1.0, "token {token}: {seen} of 4000, p = {p}");
        }
        let likeliest = (0..41).max_by(|&a, &b| z[a].total_cmp(&z[b])).expect("a vocabulary") as u32;
        let narrow = draw(&Sampling { top_p: 1e-6, ..plain.clone() });
        assert!(narrow.iter().all(|h| h.tokens == [likeliest] || (h.finished && likeliest == 0)));
        let without = draw(&Sampling { bonus: vec![(likeliest, f32::NEG_INFINITY)], ..plain });
        assert!(without.iter().all(|h| h.tokens != [likeliest]));
    }

    #[test]
    fn samples_behind_one_vector_are_those_that_are_drawn_apart() {
        let decoder = decoder();
        let conds = [[0.3, -0.2, 1.0, 0.5, -0.7], [0.1, 0.9, -0.4, 0.2, 0.6]];
        let how = Sampling { top_p: 0.9, ..Sampling::default() };
        let draw = |cond: &[f32], rng: &mut seed::Stream| decoder.sample(cond, 7, &how, 8, rng).expect("texts");
        let together = draw(&conds.concat(), &mut seed::stream(11, "decoder tests", "shared"));
        let mut rng = seed::stream(11, "decoder tests", "shared");
        let apart: Vec<_> = conds.iter().flat_map(|cond| draw(cond, &mut rng)).collect();
        let tokens =
            |all: &[Vec<Hypothesis>]| -> Vec<Vec<u32>> { all.iter().flatten().map(|h| h.tokens.clone()).collect() };
        assert_eq!(tokens(&together), tokens(&apart));
        assert!(tokens(&together).iter().any(|t| *t != together[0][0].tokens), "each has its own stream");
    }

    #[test]
    fn top_p_draws_from_the_smallest_set_that_holds_its_share() {
        let decoder = decoder();
        let cond = [0.3, -0.2, 1.0, 0.5, -0.7];
        let session = Session::start(&decoder, Prefix::Shared(&cond), &[], 1).expect("a session");
        let z = session.logits();
        let mut shares: Vec<(f64, u32)> = (0..41_u32).map(|t| (log_softmax(z, t).exp(), t)).collect();
        shares.sort_by(|a, b| b.0.total_cmp(&a.0));
        for top_p in [0.3, 0.7, 0.95] {
            let mut held = 0.0;
            let wanted: BTreeSet<u32> = shares
                .iter()
                .take_while(|(share, _)| {
                    let open = held < top_p;
                    held += share;
                    open
                })
                .map(|&(_, token)| token)
                .collect();
            let how = Sampling { top_p, ..Sampling::default() };
            let mut rng = seed::stream(12, "decoder tests", "top p");
            let drawn = decoder.sample(&cond, 4000, &how, 1, &mut rng).expect("texts").remove(0);
            let seen: BTreeSet<u32> = drawn.iter().map(|h| h.tokens.first().copied().unwrap_or(0)).collect();
            // 4,000 draws miss a token of 1 in 200 with a probability of e^-20.
            assert_eq!(seen, wanted, "top_p {top_p}");
        }
    }

    #[test]
    fn a_beam_as_wide_as_the_vocabulary_finds_the_best_pair() {
        let decoder = decoder();
        let cond = [0.1, 0.9, -0.4, 0.2, 0.6];
        let found = decoder.beam(&cond, 41, 2).expect("texts").remove(0);
        let mut pairs: Vec<Vec<u32>> = (1..41).map(|token| vec![token, 0]).collect();
        pairs.push(vec![0]);
        let slices: Vec<&[u32]> = pairs.iter().map(Vec::as_slice).collect();
        let scores = decoder.log_probs(Prefix::Shared(&cond), &slices).expect("scores");
        let finished: Vec<_> = found.iter().filter(|h| h.finished).collect();
        assert!(!finished.is_empty() && found.len() == 41);
        for h in finished {
            let at = pairs.iter().position(|pair| pair[..pair.len() - 1] == h.tokens).expect("a known text");
            assert!((scores[at] - h.log_prob).abs() < 1e-4);
        }
        assert!(found.windows(2).all(|pair| pair[0].mean_log_prob() >= pair[1].mean_log_prob()));
    }

    #[test]
    fn a_saved_decoder_scores_the_same() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("decoder.safetensors");
        let decoder = decoder();
        decoder.save(&path).expect("saved");
        let loaded = Decoder::load(&path).expect("loaded");
        assert_eq!(loaded.config(), decoder.config());
        assert!(loaded.weights() == decoder.weights());
    }

    #[test]
    fn bad_input_is_named() {
        let decoder = decoder();
        for (text, why) in [(vec![], "0 tokens"), (vec![41], "token 41"), (vec![1; 13], "13 tokens")] {
            let error = decoder.log_probs(Prefix::Null, &[&text]).expect_err("bad").to_string();
            assert!(error.contains(why), "{error}");
        }
        let error = decoder.log_probs(Prefix::Shared(&[0.0; 4]), &[&[1]]).expect_err("bad").to_string();
        assert!(error.contains("4 numbers, 5 are needed"), "{error}");
        let config = DecoderConfig { heads: 5, d_model: 24, ..decoder.config().clone() };
        assert!(config.check().expect_err("bad").to_string().contains("`heads` = 5"));
    }
}
