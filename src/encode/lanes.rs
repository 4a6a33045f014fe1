//! Dense layers, layer-norm and attention with tokens in the vector lanes.
//!
//! Activations live in blocks of [`LANES`] tokens, each block feature-major: `[block][feature][LANES]`. A dense layer
//! then multiplies its weights, packed once at load time, with a block that is already contiguous, and its result is
//! the next layer's input: nothing is packed, transposed or reduced across lanes at run time. Layer-norm, softmax and
//! GELU are vertical too, so a token's value never depends on its lane, its block or its neighbours: results are
//! bit-identical for every batch composition and every number of threads.

#![expect(
    clippy::inline_always,
    reason = "a kernel is compiled for an instruction set by being inlined into its `with_simd`"
)]

use crate::nn::kernel::{exp, gelu, vectorised};
use pulp::{Arch, Simd, WithSimd};
use std::ops::{Deref, DerefMut};

/// Tokens in a block: two vectors of the widest unit.
pub(crate) const LANES: usize = 32;

/// Output features in a panel of packed weights: 12 x 2 accumulators fill the 32 registers of AVX-512.
const PANEL: usize = 12;

/// Floats in a cache line.
const LINE: usize = 16;

/// A buffer that starts on a cache line: a 64-byte load that straddles two lines costs two.
#[derive(Debug, Default)]
pub(crate) struct Aligned {
    store: Vec<f32>,
    start: usize,
    len: usize,
}

impl Aligned {
    pub(crate) fn zeros(len: usize) -> Self {
        let store = vec![0.0; len + LINE];
        let start = store.as_ptr().align_offset(LINE * size_of::<f32>()).min(LINE);
        Self { store, start, len }
    }

    /// Makes room for `len` values. Old values may remain; a grown buffer is all zeros.
    pub(crate) fn reserve(&mut self, len: usize) {
        if self.len < len {
            *self = Self::zeros(len);
        }
    }
}

impl Deref for Aligned {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.store[self.start..self.start + self.len]
    }
}

impl DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.store[self.start..self.start + self.len]
    }
}

/// Where output row `r` of block `b` starts: `b * block + r * row`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) block: usize,
    pub(crate) row: usize,
}

impl Place {
    /// `[block][feature][LANES]`.
    pub(crate) fn blocked(features: usize) -> Self {
        Self { block: features * LANES, row: LANES }
    }

    /// `[feature][stride]`: all tokens of a feature stand side by side, as attention reads them.
    pub(crate) fn strided(stride: usize) -> Self {
        Self { block: LANES, row: stride }
    }
}

/// What becomes of a product while it is still in the first-level cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finish {
    /// `y = W x + bias`
    Bias,
    /// `y = GELU(W x + bias)`
    Gelu,
    /// `y += W x + bias`: the residual connection.
    Accumulate,
}

/// A dense layer with packed weights.
#[derive(Debug)]
pub(crate) struct Linear {
    /// `[panel][input][PANEL]`, outputs padded with zeros.
    panels: Aligned,
    bias: Vec<f32>,
    inputs: usize,
    outputs: usize,
}

impl Linear {
    /// Packs `weight`, shape `(outputs, inputs)` row-major, as the files store it.
    pub(crate) fn new(weight: &[f32], bias: Vec<f32>, inputs: usize) -> Self {
        let outputs = bias.len();
        assert_eq!(weight.len(), outputs * inputs, "the loader has checked the shape of every weight");
        let mut panels = Aligned::zeros(outputs.next_multiple_of(PANEL) * inputs);
        for (row, values) in weight.chunks_exact(inputs).enumerate() {
            let panel = &mut panels[row / PANEL * PANEL * inputs..];
            for (packed, &value) in panel.chunks_exact_mut(PANEL).zip(values) {
                packed[row % PANEL] = value;
            }
        }
        Self { panels, bias, inputs, outputs }
    }

    /// Copies the weights of output `row` to `out`: a tied embedding table is read where the output layer keeps it.
    pub(crate) fn read_row(&self, row: usize, out: &mut [f32]) {
        let panel = &self.panels[row / PANEL * PANEL * self.inputs..];
        for (value, packed) in out.iter_mut().zip(panel.chunks_exact(PANEL)).take(self.inputs) {
            *value = packed[row % PANEL];
        }
    }

    /// How many features come out.
    pub(crate) fn outputs(&self) -> usize {
        self.outputs
    }

    /// `y = finish(W x)` for `blocks` blocks.
    ///
    /// Every output is one chain of fused multiply-adds over the inputs in order.
    pub(crate) fn apply(&self, x: &[f32], blocks: usize, y: &mut [f32], place: Place, finish: Finish) {
        Arch::new().dispatch(Apply { layer: self, x, blocks, y, place, finish });
    }
}

struct Apply<'a> {
    layer: &'a Linear,
    x: &'a [f32],
    blocks: usize,
    y: &'a mut [f32],
    place: Place,
    finish: Finish,
}

impl WithSimd for Apply<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        if S::F32_LANES == LINE { self.tiles::<S, PANEL>(simd) } else { self.tiles::<S, { PANEL / 2 }>(simd) }
    }
}

impl Apply<'_> {
    /// A panel's weights stay in the first-level cache while the blocks stream past from the second level.
    #[inline(always)]
    fn tiles<S: Simd, const R: usize>(self, simd: S) {
        let Self { layer, x, blocks, y, place, finish } = self;
        let k = layer.inputs;
        let biases = layer.bias.chunks(PANEL);
        for (p, (panel, bias)) in layer.panels.chunks_exact(k * PANEL).zip(biases).enumerate() {
            for (b, block) in x.chunks_exact(k * LANES).take(blocks).enumerate() {
                for column in (0..LANES).step_by(2 * S::F32_LANES) {
                    for row in (0..bias.len()).step_by(R) {
                        let tile = multiply::<S, R, 2>(simd, k, (&panel[row..], PANEL), (&block[column..], LANES));
                        for (r, values) in tile.iter().enumerate().take(bias.len() - row) {
                            let at = b * place.block + (p * PANEL + row + r) * place.row + column;
                            let out = &mut y[at..];
                            if finish == Finish::Accumulate { add(simd, out, values) } else { store(simd, out, values) }
                        }
                    }
                }
                for (r, &bias) in bias.iter().enumerate() {
                    let at = b * place.block + (p * PANEL + r) * place.row;
                    let out = &mut y[at..at + LANES];
                    match finish {
                        Finish::Bias | Finish::Accumulate => {
                            for v in out {
                                *v += bias;
                            }
                        }
                        Finish::Gelu => {
                            for v in out {
                                *v = gelu(*v + bias);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// A register tile of a product: `R` columns of `a` against `V` vectors of `b`, over `k` rows of both.
///
/// An operand is its first element and the distance between its rows.
#[inline(always)]
fn multiply<S: Simd, const R: usize, const V: usize>(
    simd: S,
    k: usize,
    (a, a_stride): (&[f32], usize),
    (b, b_stride): (&[f32], usize),
) -> [[S::f32s; V]; R] {
    let mut tile = [[simd.splat_f32s(0.0); V]; R];
    let a = &a[..(k - 1) * a_stride + R];
    let b = &b[..(k - 1) * b_stride + V * S::F32_LANES];
    for (a, b) in a.chunks(a_stride).zip(b.chunks(b_stride)) {
        let (b, _) = S::as_simd_f32s(&b[..V * S::F32_LANES]);
        let a = &a[..R];
        for r in 0..R {
            let weight = simd.splat_f32s(a[r]);
            for v in 0..V {
                tile[r][v] = simd.mul_add_e_f32s(weight, b[v], tile[r][v]);
            }
        }
    }
    tile
}

#[inline(always)]
fn store<S: Simd, const V: usize>(_: S, out: &mut [f32], values: &[S::f32s; V]) {
    let (out, _) = S::as_mut_simd_f32s(&mut out[..V * S::F32_LANES]);
    out.copy_from_slice(values);
}

#[inline(always)]
fn add<S: Simd, const V: usize>(simd: S, out: &mut [f32], values: &[S::f32s; V]) {
    let (out, _) = S::as_mut_simd_f32s(&mut out[..V * S::F32_LANES]);
    for (o, v) in out.iter_mut().zip(values) {
        *o = simd.add_f32s(*o, *v);
    }
}

/// Gain and shift of a layer-norm.
#[derive(Debug)]
pub(super) struct Norm {
    pub(super) gain: Vec<f32>,
    pub(super) shift: Vec<f32>,
    pub(super) eps: f32,
}

impl Norm {
    /// `x = gain (x - mean) / sqrt(var + eps) + shift` for each token of each block; biased two-pass variance.
    pub(super) fn apply(&self, x: &mut [f32]) {
        // A loop, not `for_each`: its closure would be compiled outside `vectorised`.
        vectorised(
            #[inline(always)]
            || {
                for block in x.chunks_exact_mut(self.gain.len() * LANES) {
                    self.block(block);
                }
            },
        );
    }

    #[inline(always)]
    fn block(&self, x: &mut [f32]) {
        let x = x.as_chunks_mut::<LANES>().0;
        let scale = 1.0 / self.gain.len() as f32;
        let mut mean = [0.0_f32; LANES];
        for row in &*x {
            for (m, v) in mean.iter_mut().zip(row) {
                *m += v;
            }
        }
        for m in &mut mean {
            *m *= scale;
        }
        let mut inverse = [0.0_f32; LANES];
        for row in &*x {
            for ((s, v), m) in inverse.iter_mut().zip(row).zip(&mean) {
                *s = (v - m).mul_add(v - m, *s);
            }
        }
        for s in &mut inverse {
            *s = 1.0 / (*s * scale + self.eps).sqrt();
        }
        for (row, (&gain, &shift)) in x.iter_mut().zip(self.gain.iter().zip(&self.shift)) {
            for ((v, m), s) in row.iter_mut().zip(&mean).zip(&inverse) {
                *v = ((*v - m) * s).mul_add(gain, shift);
            }
        }
    }
}

/// Distance between the features of a strided buffer for `blocks` blocks.
///
/// The tail lets a tile read past the last token; an odd number of cache lines spreads the features over the cache.
pub(super) fn stride(blocks: usize) -> usize {
    blocks * LANES + 3 * LINE
}

/// Self-attention inside each sentence.
pub(super) struct Attention<'a> {
    /// `[3 d][stride]`: queries, keys, values, each head-major.
    pub(super) qkv: &'a [f32],
    /// From [`stride`].
    pub(super) stride: usize,
    /// Width of the model.
    pub(super) d: usize,
    /// Number of heads; divides `d`.
    pub(super) heads: usize,
    /// First token and length of each sentence.
    pub(super) sentences: &'a [(usize, usize)],
    /// Room for one tile of scores: the longest sentence times [`LANES`].
    pub(super) scores: &'a mut [f32],
    /// `[block][d][LANES]`, written for every token of every sentence.
    pub(super) context: &'a mut [f32],
}

impl Attention<'_> {
    /// `context = softmax(Q K^T / sqrt(d / heads)) V` for each head of each sentence.
    pub(super) fn run(self) {
        Arch::new().dispatch(self);
    }
}

impl WithSimd for Attention<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        for sentence in 0..self.sentences.len() {
            let (first, len) = self.sentences[sentence];
            for head in 0..self.heads {
                let mut query = 0;
                while query < len {
                    // One vector is enough for a short tail; elsewhere two vectors share each broadcast.
                    if S::F32_LANES == LINE && len - query <= LINE {
                        self.tile::<S, 1>(simd, head, first, len, query);
                        query += S::F32_LANES;
                    } else {
                        self.tile::<S, 2>(simd, head, first, len, query);
                        query += 2 * S::F32_LANES;
                    }
                }
            }
        }
    }
}

impl Attention<'_> {
    /// `V` vectors of queries from `query` on, against all keys of the sentence. Lanes past its end are computed and dropped.
    #[inline(always)]
    fn tile<S: Simd, const V: usize>(&mut self, simd: S, head: usize, first: usize, len: usize, query: usize) {
        const KEYS: usize = 6;
        const FEATURES: usize = 8;
        let width = V * S::F32_LANES;
        let (stride, d) = (self.stride, self.d);
        let size = d / self.heads;
        let queries = &self.qkv[head * size * stride + first + query..];
        let keys = &self.qkv[(d + head * size) * stride + first..];
        let values = &self.qkv[(2 * d + head * size) * stride + first..];
        let scores = &mut self.scores[..len * width];

        let mut highest = [simd.splat_f32s(f32::NEG_INFINITY); V];
        for key in (0..len).step_by(KEYS) {
            let tile = multiply::<S, KEYS, V>(simd, size, (&keys[key..], stride), (queries, stride));
            for (row, scores) in tile.iter().zip(scores[key * width..].chunks_exact_mut(width)) {
                store(simd, scores, row);
                for (h, s) in highest.iter_mut().zip(row) {
                    *h = simd.max_f32s(*h, *s);
                }
            }
        }

        let mut shift = [0.0; LANES];
        store(simd, &mut shift, &highest);
        let mut total = [0.0; LANES];
        let scale = 1.0 / (size as f32).sqrt();
        for row in scores.chunks_exact_mut(width) {
            for ((s, h), t) in row.iter_mut().zip(&shift).zip(&mut total) {
                *s = exp((*s - h) * scale);
                *t += *s;
            }
        }
        for t in &mut total {
            *t = 1.0 / *t;
        }

        for feature in (0..size).step_by(FEATURES) {
            // A head narrower than the tile repeats its last feature, and drops the copies.
            let rows: [&[f32]; FEATURES] =
                std::array::from_fn(|r| &values[(feature + r).min(size - 1) * stride..][..len]);
            let mut tile = [[simd.splat_f32s(0.0); V]; FEATURES];
            for (key, scores) in scores.chunks_exact(width).enumerate() {
                let (scores, _) = S::as_simd_f32s(scores);
                for r in 0..FEATURES {
                    let value = simd.splat_f32s(rows[r][key]);
                    for v in 0..V {
                        tile[r][v] = simd.mul_add_e_f32s(value, scores[v], tile[r][v]);
                    }
                }
            }
            for (r, sums) in tile.iter().enumerate().take(size - feature) {
                let mut out = [0.0; LANES];
                store(simd, &mut out, sums);
                for (o, t) in out.iter_mut().zip(&total) {
                    *o *= t;
                }
                let tokens = width.min(len - query);
                place(self.context, d, head * size + feature + r, first + query, &out[..tokens]);
            }
        }
    }
}

/// Writes one feature of consecutive tokens, at most [`LANES`] of them, into a blocked buffer.
#[inline(always)]
fn place(blocked: &mut [f32], features: usize, feature: usize, token: usize, values: &[f32]) {
    let (block, lane) = (token / LANES, token % LANES);
    let here = values.len().min(LANES - lane);
    let at = (block * features + feature) * LANES + lane;
    blocked[at..at + here].copy_from_slice(&values[..here]);
    if here < values.len() {
        let at = ((block + 1) * features + feature) * LANES;
        blocked[at..at + values.len() - here].copy_from_slice(&values[here..]);
    }
}
