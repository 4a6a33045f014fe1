//! The forward and backward passes of the decoder, written out over preallocated buffers.
//!
//! Sequences are packed one behind another without padding: a text of `len` tokens takes `slots + len - 1` rows. A shard
//! of a batch goes through in chunks of about [`CHUNK_ROWS`] rows, forward and backward at once, so that activations stay
//! in the cache and nothing grows with the batch. Weight gradients accumulate straight into a flat arena.

use super::layout::{Linear, Norm};
use super::{CHUNK_ROWS, Decoder, DecoderConfig, Prefix};
use crate::nn::attention::{Heads, Scratch};
use crate::nn::cross_entropy::{linear_cross_entropy, linear_log_probabilities};
use crate::nn::kernel::{Layout::Plain, Layout::Transposed, matmul};
use crate::nn::rows::{self, Dropout, Moments};
use std::ops::Range;

/// `eps` of every layer normalisation.
pub(super) const NORM_EPS: f32 = 1e-5;

/// Checked input of a pass.
#[derive(Debug, Clone, Copy)]
pub(in crate::nn) struct Source<'a> {
    pub(in crate::nn) prefix: Prefix<'a>,
    /// Samples whose prefix is the null one; empty means none.
    pub(in crate::nn) null: &'a [bool],
    /// Leading tokens of each text that are read and not predicted; empty means none.
    pub(in crate::nn) given: &'a [usize],
    pub(in crate::nn) texts: Texts<'a>,
}

/// Texts, end-of-text tokens included.
#[derive(Debug, Clone, Copy)]
pub(in crate::nn) enum Texts<'a> {
    Padded { tokens: &'a [u32], t: usize, lengths: &'a [usize] },
    Slices(&'a [&'a [u32]]),
}

impl<'a> Source<'a> {
    pub(in crate::nn) fn text(&self, sample: usize) -> &'a [u32] {
        match self.texts {
            Texts::Padded { tokens, t, lengths } => &tokens[sample * t..][..lengths[sample]],
            Texts::Slices(texts) => texts[sample],
        }
    }

    pub(in crate::nn) fn rows(&self, config: &DecoderConfig, sample: usize) -> usize {
        config.slots + self.text(sample).len() - 1
    }

    fn given(&self, sample: usize) -> usize {
        self.given.get(sample).copied().unwrap_or(0)
    }

    /// Tokens of a text that are predicted.
    fn predicted(&self, sample: usize) -> usize {
        self.text(sample).len() - self.given(sample)
    }

    fn is_null(&self, sample: usize) -> bool {
        matches!(self.prefix, Prefix::Null) || self.null.get(sample).copied().unwrap_or(false)
    }
}

/// Samples that go through the layers together.
#[derive(Debug, Clone)]
pub(in crate::nn) struct Chunk {
    samples: Range<usize>,
    rows: usize,
    targets: usize,
    /// Rows of the batch before this chunk: it numbers the dropout masks, so that they do not depend on the sharding.
    first_row: usize,
}

/// Cuts samples into chunks, in order, as a function of their lengths alone.
pub(in crate::nn) struct Chunks<'a> {
    config: &'a DecoderConfig,
    source: &'a Source<'a>,
    samples: Range<usize>,
    first_row: usize,
}

impl<'a> Chunks<'a> {
    pub(in crate::nn) fn new(config: &'a DecoderConfig, source: &'a Source<'a>, samples: Range<usize>) -> Chunks<'a> {
        let first_row = (0..samples.start).map(|i| source.rows(config, i)).sum();
        Chunks { config, source, samples, first_row }
    }
}

impl Iterator for Chunks<'_> {
    type Item = Chunk;

    fn next(&mut self) -> Option<Chunk> {
        let start = self.samples.start;
        let mut chunk = Chunk { samples: start..start, rows: 0, targets: 0, first_row: self.first_row };
        while chunk.rows < CHUNK_ROWS
            && let Some(sample) = self.samples.next()
        {
            chunk.samples.end += 1;
            chunk.rows += self.source.rows(self.config, sample);
            chunk.targets += self.source.predicted(sample);
        }
        self.first_row += chunk.rows;
        (!chunk.samples.is_empty()).then_some(chunk)
    }
}

/// Dropout of one training step.
#[derive(Debug, Clone, Copy)]
pub(in crate::nn) struct Noise {
    pub(in crate::nn) rate: f32,
    pub(in crate::nn) key: u64,
}

/// What one layer keeps for the backward pass.
#[derive(Debug, Default, Clone)]
struct Kept {
    x: Vec<f32>,
    moments_attention: Vec<Moments>,
    normed: Vec<f32>,
    qkv: Vec<f32>,
    attended: Vec<f32>,
    middle: Vec<f32>,
    moments_feed: Vec<Moments>,
    normed_feed: Vec<f32>,
    /// The feed-forward layer before the activation, then the activation's derivative.
    up: Vec<f32>,
    active: Vec<f32>,
}

/// Buffers of one worker; they grow to the largest chunk seen and are never given back.
#[derive(Debug, Default, Clone)]
pub(in crate::nn) struct Workspace {
    layers: Vec<Kept>,
    last: Vec<f32>,
    moments_final: Vec<Moments>,
    final_normed: Vec<f32>,
    d_final: Vec<f32>,
    logits: Vec<f32>,
    targets: Vec<u32>,
    dx: Vec<f32>,
    d_normed: Vec<f32>,
    d_qkv: Vec<f32>,
    d_up: Vec<f32>,
    spare: Vec<f32>,
    cond: Vec<f32>,
    hidden_derivative: Vec<f32>,
    hidden: Vec<f32>,
    prefix: Vec<f32>,
    d_prefix: Vec<f32>,
    d_hidden: Vec<f32>,
    attention: Scratch,
}

fn grow<T: Clone + Default>(buffer: &mut Vec<T>, len: usize) -> &mut [T] {
    if buffer.len() < len {
        buffer.resize(len, T::default());
    }
    &mut buffer[..len]
}

/// `y = x W + b`.
fn linear(y: &mut [f32], x: &[f32], map: Linear, w: &[f32], from: usize, to: usize) {
    rows::fill_rows(map.bias.slice(w), y);
    matmul(y, x, Plain, map.weight.slice(w), Plain, y.len() / to, from, to, true);
}

/// Adds the gradients of a linear map's weight and bias.
fn linear_gradient(grads: &mut [f32], map: Linear, x: &[f32], dy: &[f32], from: usize, to: usize) {
    rows::add_column_sums(dy, map.bias.of_mut(grads));
    matmul(map.weight.of_mut(grads), x, Transposed, dy, Plain, from, dy.len() / to, to, true);
}

/// `dx = dy W^T`.
fn linear_back(dx: &mut [f32], dy: &[f32], map: Linear, w: &[f32], from: usize, to: usize) {
    matmul(dx, dy, Plain, map.weight.slice(w), Transposed, dy.len() / to, to, from, false);
}

fn norm_forward(x: &[f32], norm: Norm, w: &[f32], y: &mut [f32], moments: &mut [Moments]) {
    rows::layer_norm(x, norm.gain.slice(w), norm.bias.slice(w), NORM_EPS, y, moments);
}

fn norm_backward(x: &[f32], norm: Norm, w: &[f32], moments: &[Moments], dy: &[f32], dx: &mut [f32], grads: &mut [f32]) {
    let (dgain, dbias) = norm.gain.pair_mut(grads);
    rows::layer_norm_backward(x, norm.gain.slice(w), moments, dy, dx, dgain, dbias);
}

/// Dropout sites: the embedding, then two for each layer.
const SITE_EMBEDDING: u64 = 0;
fn site_attention(layer: usize) -> u64 {
    1 + 2 * layer as u64
}
fn site_feed(layer: usize) -> u64 {
    2 + 2 * layer as u64
}

fn mask(noise: Option<Noise>, site: u64) -> Option<Dropout> {
    noise.and_then(|noise| Dropout::new(noise.rate, noise.key, site))
}

impl Workspace {
    /// Forward pass up to the final normalisation of the rows that predict a token.
    pub(super) fn forward(&mut self, decoder: &Decoder, source: &Source, chunk: &Chunk, noise: Option<Noise>) {
        let Decoder { config, layout, weights: w } = decoder;
        let (d, n, f) = (config.d_model, chunk.rows, config.ff_mult * config.d_model);
        let first = (chunk.first_row * d) as u32;
        let heads = Heads { heads: config.heads, head_dim: d / config.heads, causal: true };
        self.layers.resize_with(config.layers, Kept::default);
        self.embed(decoder, source, chunk, mask(noise, SITE_EMBEDDING).map(|dropout| (dropout, first)));
        for (l, spans) in layout.layers.iter().enumerate() {
            let (done, todo) = self.layers.split_at_mut(l + 1);
            let kept = &mut done[l];
            let next = grow(todo.first_mut().map_or(&mut self.last, |layer| &mut layer.x), n * d);
            let x = &kept.x[..n * d];

            let normed = grow(&mut kept.normed, n * d);
            norm_forward(x, spans.norm_attention, w, normed, grow(&mut kept.moments_attention, n));
            let qkv = grow(&mut kept.qkv, 3 * n * d);
            linear(qkv, normed, spans.qkv, w, d, 3 * d);
            let attended = grow(&mut kept.attended, n * d);
            let mut row = 0;
            for sample in chunk.samples.clone() {
                let t = source.rows(config, sample);
                let y = &mut attended[row * d..(row + t) * d];
                heads.forward(&qkv[3 * row * d..3 * (row + t) * d], y, &mut self.attention);
                row += t;
            }
            let middle = grow(&mut kept.middle, n * d);
            let spare = &mut self.spare;
            residual(middle, x, attended, spans.out, w, d, mask(noise, site_attention(l)), first, spare);

            let normed = grow(&mut kept.normed_feed, n * d);
            norm_forward(middle, spans.norm_feed, w, normed, grow(&mut kept.moments_feed, n));
            let (up, active) = (grow(&mut kept.up, n * f), grow(&mut kept.active, n * f));
            matmul(up, normed, Plain, spans.up.weight.slice(w), Plain, n, d, f, false);
            rows::bias_gelu_keeping_derivative(up, spans.up.bias.slice(w), active);
            residual(next, middle, active, spans.down, w, f, mask(noise, site_feed(l)), first, spare);
        }
        let normed = grow(&mut self.final_normed, chunk.targets * d);
        let moments = grow(&mut self.moments_final, chunk.targets);
        let (mut row, mut out) = (0, 0);
        for sample in chunk.samples.clone() {
            let (t, len) = (source.rows(config, sample), source.predicted(sample));
            let x = &self.last[(row + t - len) * d..(row + t) * d];
            let (y, moments) = (&mut normed[out * d..(out + len) * d], &mut moments[out..out + len]);
            norm_forward(x, layout.norm_final, w, y, moments);
            row += t;
            out += len;
        }
    }

    /// Fills the first layer's input and the list of targets.
    fn embed(&mut self, decoder: &Decoder, source: &Source, chunk: &Chunk, dropout: Option<(Dropout, u32)>) {
        let Decoder { config, layout, weights: w } = decoder;
        let (d, slots) = (config.d_model, config.slots);
        self.condition(decoder, source, chunk);
        let x = grow(&mut self.layers[0].x, chunk.rows * d);
        let (embedding, position) = (layout.embedding.slice(w), layout.position.slice(w));
        self.targets.clear();
        let (mut rows, mut conditioned) = (x.chunks_exact_mut(d), self.prefix.chunks_exact(slots * d));
        let shared = conditioned.clone().next();
        for sample in chunk.samples.clone() {
            let prefix = match source.prefix {
                _ if source.is_null(sample) => Some(layout.null.slice(w)),
                Prefix::Shared(_) => shared,
                _ => conditioned.next(),
            };
            let text = source.text(sample);
            let prefix = prefix.expect("`condition` made a prefix for every conditioned sample").chunks_exact(d);
            let read = text[..text.len() - 1].iter().map(|&token| &embedding[token as usize * d..][..d]);
            let given = source.given(sample);
            for ((at, value), row) in prefix.chain(read).enumerate().zip(&mut rows) {
                let position = &position[config.position(at, given) * d..][..d];
                for ((row, &a), &b) in row.iter_mut().zip(value).zip(position) {
                    *row = a + b;
                }
            }
            self.targets.extend_from_slice(&text[given..]);
        }
        if let Some((dropout, first)) = dropout {
            dropout.apply_in_place(first, x);
        }
    }

    /// The prefix of every conditioned sample of the chunk, in order.
    fn condition(&mut self, decoder: &Decoder, source: &Source, chunk: &Chunk) {
        let Decoder { config, layout, weights: w } = decoder;
        let (dim, hidden, out) = (config.cond_dim, config.hidden(), config.slots * config.d_model);
        self.cond.clear();
        match source.prefix {
            Prefix::Null => {}
            Prefix::Shared(cond) => self.cond.extend_from_slice(cond),
            Prefix::Rows(cond) => {
                for sample in chunk.samples.clone().filter(|&sample| !source.is_null(sample)) {
                    self.cond.extend_from_slice(&cond[sample * dim..][..dim]);
                }
            }
        }
        let n = self.cond.len() / dim;
        let derivative = grow(&mut self.hidden_derivative, n * hidden);
        let active = grow(&mut self.hidden, n * hidden);
        matmul(derivative, &self.cond, Plain, layout.prefix_in.weight.slice(w), Plain, n, dim, hidden, false);
        rows::bias_gelu_keeping_derivative(derivative, layout.prefix_in.bias.slice(w), active);
        linear(grow(&mut self.prefix, n * out), active, layout.prefix_out, w, hidden, out);
    }

    /// Log-probability of each text of the chunk.
    pub(super) fn log_probs(&mut self, decoder: &Decoder, source: &Source, chunk: &Chunk) -> Vec<f64> {
        self.forward(decoder, source, chunk, None);
        let d = decoder.config.d_model;
        let mut each = vec![0.0; chunk.targets];
        let h = &self.final_normed[..chunk.targets * d];
        let output = decoder.layout.output.slice(&decoder.weights);
        linear_log_probabilities(h, output, &self.targets, d, &mut self.logits, &mut each);
        let mut at = 0;
        chunk
            .samples
            .clone()
            .map(|sample| {
                let len = source.predicted(sample);
                at += len;
                each[at - len..at].iter().sum()
            })
            .collect()
    }

    /// Logits after the prefix of every sample, and after its given tokens, of which all samples have as many; and what
    /// the layers hold for them: `take(layer, qkv)`.
    pub(super) fn start(
        &mut self,
        decoder: &Decoder,
        source: &Source,
        samples: usize,
        logits: &mut [f32],
        mut take: impl FnMut(usize, &[f32]),
    ) {
        let (d, vocab) = (decoder.config.d_model, decoder.config.vocab);
        let rows = if samples == 0 { 0 } else { samples * source.rows(&decoder.config, 0) };
        let chunk = Chunk { samples: 0..samples, rows, targets: samples, first_row: 0 };
        self.forward(decoder, source, &chunk, None);
        let output = decoder.layout.output.slice(&decoder.weights);
        matmul(logits, &self.final_normed, Plain, output, Transposed, samples, d, vocab, false);
        for (l, kept) in self.layers.iter().enumerate() {
            take(l, &kept.qkv[..3 * d * chunk.rows]);
        }
    }

    /// Forward and backward pass of a shard: adds its gradients to `grads`, returns its share of the loss.
    ///
    /// `weight` is the weight of one token, 1 over the tokens of the whole batch.
    #[expect(clippy::too_many_arguments, reason = "one call for each shard of a step")]
    pub(in crate::nn) fn train(
        &mut self,
        decoder: &Decoder,
        source: &Source,
        samples: Range<usize>,
        weight: f32,
        smoothing: f32,
        noise: Option<Noise>,
        grads: &mut [f32],
    ) -> f64 {
        let d = decoder.config.d_model;
        let mut loss = 0.0;
        for chunk in Chunks::new(&decoder.config, source, samples) {
            self.forward(decoder, source, &chunk, noise);
            let d_final = grow(&mut self.d_final, chunk.targets * d);
            loss += linear_cross_entropy(
                &self.final_normed[..chunk.targets * d],
                decoder.layout.output.slice(&decoder.weights),
                &self.targets,
                weight,
                smoothing,
                d_final,
                decoder.layout.output.of_mut(grads),
                d,
                &mut self.logits,
            );
            self.backward(decoder, source, &chunk, noise, grads);
        }
        loss
    }

    fn backward(&mut self, decoder: &Decoder, source: &Source, chunk: &Chunk, noise: Option<Noise>, grads: &mut [f32]) {
        let Decoder { config, layout, weights: w } = decoder;
        let (d, n, f) = (config.d_model, chunk.rows, config.ff_mult * config.d_model);
        let first = (chunk.first_row * d) as u32;
        let heads = Heads { heads: config.heads, head_dim: d / config.heads, causal: true };
        let dx = grow(&mut self.dx, n * d);
        dx.fill(0.0);
        let (mut row, mut out) = (0, 0);
        for sample in chunk.samples.clone() {
            let (t, len) = (source.rows(config, sample), source.predicted(sample));
            let at = (row + t - len) * d..(row + t) * d;
            let (moments, dy) = (&self.moments_final[out..out + len], &self.d_final[out * d..(out + len) * d]);
            norm_backward(&self.last[at.clone()], layout.norm_final, w, moments, dy, &mut dx[at], grads);
            row += t;
            out += len;
        }
        let d_normed = grow(&mut self.d_normed, n * d);
        let d_qkv = grow(&mut self.d_qkv, 3 * n * d);
        let d_up = grow(&mut self.d_up, n * f);
        for (l, (spans, kept)) in layout.layers.iter().zip(&self.layers).enumerate().rev() {
            let dy = masked(dx, mask(noise, site_feed(l)), first, &mut self.spare);
            linear_gradient(grads, spans.down, &kept.active[..n * f], dy, f, d);
            linear_back(d_up, dy, spans.down, w, f, d);
            rows::bias_gelu_backward(&kept.up[..n * f], d_up, spans.up.bias.of_mut(grads));
            let normed = &kept.normed_feed[..n * d];
            matmul(spans.up.weight.of_mut(grads), normed, Transposed, d_up, Plain, d, n, f, true);
            linear_back(d_normed, d_up, spans.up, w, d, f);
            let moments = &kept.moments_feed[..n];
            norm_backward(&kept.middle[..n * d], spans.norm_feed, w, moments, d_normed, dx, grads);

            let dy = masked(dx, mask(noise, site_attention(l)), first, &mut self.spare);
            linear_gradient(grads, spans.out, &kept.attended[..n * d], dy, d, d);
            linear_back(d_normed, dy, spans.out, w, d, d);
            let mut row = 0;
            for sample in chunk.samples.clone() {
                let t = source.rows(config, sample);
                let wide = 3 * row * d..3 * (row + t) * d;
                let dy = &d_normed[row * d..(row + t) * d];
                heads.backward(&kept.qkv[wide.clone()], dy, &mut d_qkv[wide], &mut self.attention);
                row += t;
            }
            linear_gradient(grads, spans.qkv, &kept.normed[..n * d], d_qkv, d, 3 * d);
            linear_back(d_normed, d_qkv, spans.qkv, w, d, 3 * d);
            let moments = &kept.moments_attention[..n];
            norm_backward(&kept.x[..n * d], spans.norm_attention, w, moments, d_normed, dx, grads);
        }
        if let Some(dropout) = mask(noise, SITE_EMBEDDING) {
            dropout.apply_in_place(first, dx);
        }
        self.embed_backward(decoder, source, chunk, grads);
    }

    fn embed_backward(&mut self, decoder: &Decoder, source: &Source, chunk: &Chunk, grads: &mut [f32]) {
        let Decoder { config, layout, weights: w } = decoder;
        let (d, slots) = (config.d_model, config.slots);
        let (dim, hidden, out) = (config.cond_dim, config.hidden(), slots * d);
        let n = self.cond.len() / dim;
        let d_prefix = grow(&mut self.d_prefix, n * out);
        let mut conditioned = d_prefix.chunks_exact_mut(out);
        let mut at = 0;
        for sample in chunk.samples.clone() {
            let text = source.text(sample);
            let rows = &self.dx[at..at + source.rows(config, sample) * d];
            at += rows.len();
            let (prefix, read) = rows.split_at(out);
            if source.is_null(sample) {
                rows::add(prefix, layout.null.of_mut(grads));
            } else if let Some(d_prefix) = conditioned.next() {
                d_prefix.copy_from_slice(prefix);
            }
            let position = layout.position.of_mut(grads);
            for (at, row) in rows.chunks_exact(d).enumerate() {
                rows::add(row, &mut position[config.position(at, source.given(sample)) * d..][..d]);
            }
            let embedding = layout.embedding.of_mut(grads);
            for (&token, row) in text.iter().zip(read.chunks_exact(d)) {
                rows::add(row, &mut embedding[token as usize * d..][..d]);
            }
        }
        let d_hidden = grow(&mut self.d_hidden, n * hidden);
        linear_gradient(grads, layout.prefix_out, &self.hidden[..n * hidden], d_prefix, hidden, out);
        linear_back(d_hidden, d_prefix, layout.prefix_out, w, hidden, out);
        let derivative = &self.hidden_derivative[..n * hidden];
        rows::bias_gelu_backward(derivative, d_hidden, layout.prefix_in.bias.of_mut(grads));
        matmul(layout.prefix_in.weight.of_mut(grads), &self.cond, Transposed, d_hidden, Plain, dim, n, hidden, true);
    }
}

/// `y = x + dropout(inner W + b)`; `inner` has `width` columns.
#[expect(clippy::too_many_arguments, reason = "one residual branch")]
fn residual(
    y: &mut [f32],
    x: &[f32],
    inner: &[f32],
    map: Linear,
    w: &[f32],
    width: usize,
    dropout: Option<Dropout>,
    first: u32,
    spare: &mut Vec<f32>,
) {
    let d = map.bias.len;
    if let Some(dropout) = dropout {
        let update = grow(spare, y.len());
        linear(update, inner, map, w, width, d);
        y.copy_from_slice(x);
        dropout.apply(first, update, y, true);
    } else {
        rows::add_bias(x, map.bias.slice(w), y);
        matmul(y, inner, Plain, map.weight.slice(w), Plain, y.len() / d, width, d, true);
    }
}

/// The gradient that reaches a dropped-out branch.
fn masked<'a>(dx: &'a [f32], dropout: Option<Dropout>, first: u32, spare: &'a mut Vec<f32>) -> &'a [f32] {
    match dropout {
        None => dx,
        Some(dropout) => {
            let out = grow(spare, dx.len());
            dropout.apply(first, dx, out, false);
            out
        }
    }
}
