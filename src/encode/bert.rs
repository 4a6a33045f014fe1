//! The forward pass of BERT encoders, for inference only and as fast as one core allows.
//!
//! A batch is the ragged concatenation of its sentences: no padding, no mask. Each layer is four dense layers whose
//! bias, GELU and residual are applied while a tile is in the first-level cache, two layer-norms, and attention inside
//! each sentence. `lanes` says how the data lies. Parallelism is the caller's: one batch is one thread's work.

use super::Error;
use super::lanes::{Aligned, Attention, Finish, LANES, Linear, Norm, Place, stride};
use super::weights::{Table, Weights};
use serde::Deserialize;
use std::ops::Range;

/// The fields of `config.json` that decide what is computed.
#[derive(Debug, Deserialize)]
pub(super) struct Config {
    pub(super) model_type: String,
    pub(super) hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    pub(super) vocab_size: usize,
    pub(super) max_position_embeddings: usize,
    #[serde(default = "two")]
    type_vocab_size: usize,
    #[serde(default = "gelu")]
    hidden_act: String,
    #[serde(default = "absolute")]
    position_embedding_type: String,
    #[serde(default = "tiny")]
    layer_norm_eps: f32,
}

fn two() -> usize {
    2
}

fn gelu() -> String {
    "gelu".into()
}

fn absolute() -> String {
    "absolute".into()
}

fn tiny() -> f32 {
    1e-12
}

impl Config {
    /// Why this model cannot be run here, if it cannot.
    pub(super) fn refusal(&self) -> Option<String> {
        if self.model_type != "bert" {
            return Some(format!("model_type `{}` is not supported; supported: bert", self.model_type));
        }
        if self.hidden_act != "gelu" {
            return Some(format!("hidden_act `{}` is not supported; supported: gelu (the erf form)", self.hidden_act));
        }
        if self.position_embedding_type != "absolute" {
            let kind = &self.position_embedding_type;
            return Some(format!("position_embedding_type `{kind}` is not supported; supported: absolute"));
        }
        let sizes = [self.hidden_size, self.num_attention_heads, self.intermediate_size, self.vocab_size];
        if sizes.contains(&0) || self.max_position_embeddings < 2 || self.type_vocab_size == 0 {
            return Some("a size in config.json is zero".into());
        }
        if !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            let (d, heads) = (self.hidden_size, self.num_attention_heads);
            return Some(format!("hidden_size {d} is not a multiple of num_attention_heads {heads}"));
        }
        if !(self.layer_norm_eps.is_finite() && self.layer_norm_eps >= 0.0) {
            return Some(format!("layer_norm_eps {} is not a small positive number", self.layer_norm_eps));
        }
        None
    }
}

/// A loaded encoder.
#[derive(Debug)]
pub(super) struct Bert {
    words: Table,
    /// `[position][d]`, the vector of token type 0 added.
    positions: Vec<f32>,
    norm: Norm,
    layers: Vec<Layer>,
    d: usize,
    heads: usize,
}

#[derive(Debug)]
struct Layer {
    qkv: Linear,
    output: Linear,
    attention_norm: Norm,
    inner: Linear,
    outer: Linear,
    output_norm: Norm,
}

/// Buffers of one worker, grown once and used again for every batch.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    x: Aligned,
    qkv: Aligned,
    context: Aligned,
    inner: Aligned,
    scores: Aligned,
    row: Vec<f32>,
    sentences: Vec<(usize, usize)>,
}

impl Bert {
    /// Takes the tensors named by `config` out of `weights`, each with its shape.
    pub(super) fn new(config: &Config, weights: Weights) -> Result<Self, Error> {
        let (d, inner) = (config.hidden_size, config.intermediate_size);
        let norm = |name: &str| -> Result<Norm, Error> {
            Ok(Norm {
                gain: weights.tensor(&format!("{name}.weight"), &[d])?,
                shift: weights.tensor(&format!("{name}.bias"), &[d])?,
                eps: config.layer_norm_eps,
            })
        };
        let linear = |name: &str, inputs: usize, outputs: usize| -> Result<Linear, Error> {
            let weight = weights.tensor(&format!("{name}.weight"), &[outputs, inputs])?;
            Ok(Linear::new(&weight, weights.tensor(&format!("{name}.bias"), &[outputs])?, inputs))
        };
        let mut layers = Vec::new();
        for i in 0..config.num_hidden_layers {
            let at = format!("encoder.layer.{i}");
            let (mut weight, mut bias) = (Vec::new(), Vec::new());
            for part in ["query", "key", "value"] {
                weight.extend(weights.tensor(&format!("{at}.attention.self.{part}.weight"), &[d, d])?);
                bias.extend(weights.tensor(&format!("{at}.attention.self.{part}.bias"), &[d])?);
            }
            layers.push(Layer {
                qkv: Linear::new(&weight, bias, d),
                output: linear(&format!("{at}.attention.output.dense"), d, d)?,
                attention_norm: norm(&format!("{at}.attention.output.LayerNorm"))?,
                inner: linear(&format!("{at}.intermediate.dense"), d, inner)?,
                outer: linear(&format!("{at}.output.dense"), inner, d)?,
                output_norm: norm(&format!("{at}.output.LayerNorm"))?,
            });
        }
        let types = weights.tensor("embeddings.token_type_embeddings.weight", &[config.type_vocab_size, d])?;
        let mut positions =
            weights.tensor("embeddings.position_embeddings.weight", &[config.max_position_embeddings, d])?;
        for row in positions.chunks_exact_mut(d) {
            for (p, t) in row.iter_mut().zip(&types) {
                *p += t;
            }
        }
        let norm = norm("embeddings.LayerNorm")?;
        let words = weights.into_table("embeddings.word_embeddings.weight", config.vocab_size, d)?;
        Ok(Self { words, positions, norm, layers, d, heads: config.num_attention_heads })
    }

    /// Runs the non-empty `sentences` of token ids and hands the last layer's states of each to `pool`.
    ///
    /// The ids are below the vocabulary size and no sentence is longer than the position table: the folder checks both
    /// when it is loaded.
    pub(super) fn forward(&self, sentences: &[&[u32]], scratch: &mut Scratch, mut pool: impl FnMut(usize, Hidden<'_>)) {
        let d = self.d;
        let inner = self.layers.first().map_or(0, |l| l.inner.outputs());
        scratch.sentences.clear();
        let (mut tokens, mut longest) = (0, 0);
        for sentence in sentences {
            scratch.sentences.push((tokens, sentence.len()));
            tokens += sentence.len();
            longest = longest.max(sentence.len());
        }
        let blocks = tokens.div_ceil(LANES);
        let stride = stride(blocks);
        scratch.x.reserve(blocks * d * LANES);
        scratch.context.reserve(blocks * d * LANES);
        scratch.qkv.reserve(3 * d * stride);
        scratch.inner.reserve(blocks * inner * LANES);
        scratch.scores.reserve(longest * LANES);
        scratch.row.resize(d, 0.0);
        let Scratch { x, qkv, context, inner: hidden, scores, row, sentences: places } = scratch;
        let x = &mut x[..blocks * d * LANES];
        let context = &mut context[..blocks * d * LANES];

        self.embed(sentences, row, x);
        self.norm.apply(x);
        for layer in &self.layers {
            layer.qkv.apply(x, blocks, qkv, Place::strided(stride), Finish::Bias);
            Attention { qkv, stride, d, heads: self.heads, sentences: places, scores, context }.run();
            layer.output.apply(context, blocks, x, Place::blocked(d), Finish::Accumulate);
            layer.attention_norm.apply(x);
            layer.inner.apply(x, blocks, hidden, Place::blocked(inner), Finish::Gelu);
            layer.outer.apply(hidden, blocks, x, Place::blocked(d), Finish::Accumulate);
            layer.output_norm.apply(x);
        }
        for (i, &(first, len)) in places.iter().enumerate() {
            pool(i, Hidden { blocked: x, d, first, len });
        }
    }

    /// Word + position + token type 0; lanes after the last token stay zero, so that they remain finite numbers.
    fn embed(&self, sentences: &[&[u32]], row: &mut [f32], x: &mut [f32]) {
        let d = self.d;
        x.fill(0.0);
        let mut token = 0;
        for sentence in sentences {
            for (&id, position) in sentence.iter().zip(self.positions.chunks_exact(d)) {
                self.words.read(id as usize, row);
                let block = &mut x[token / LANES * d * LANES..];
                for ((out, w), p) in block.chunks_exact_mut(LANES).zip(row.iter()).zip(position) {
                    out[token % LANES] = w + p;
                }
                token += 1;
            }
        }
    }
}

/// The states of one sentence after the last layer: `len` tokens of `d` features.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hidden<'a> {
    blocked: &'a [f32],
    d: usize,
    first: usize,
    len: usize,
}

impl Hidden<'_> {
    /// How many tokens.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Folds the values of each feature over `tokens`, in order; `step` is given the token's place in the sentence.
    ///
    /// The order does not depend on where the sentence lies in its batch, hence neither does the result.
    pub(super) fn fold(&self, tokens: Range<usize>, out: &mut [f32], step: impl Fn(f32, usize, f32) -> f32) {
        let mut at = tokens.start;
        while at < tokens.end {
            let (block, lane) = ((self.first + at) / LANES, (self.first + at) % LANES);
            let here = (LANES - lane).min(tokens.end - at);
            let rows = self.blocked[block * self.d * LANES..].chunks_exact(LANES);
            for (acc, row) in out.iter_mut().zip(rows) {
                for (i, &v) in row[lane..lane + here].iter().enumerate() {
                    *acc = step(*acc, at + i, v);
                }
            }
            at += here;
        }
    }
}
