//! Multi-head attention of one sequence on plain slices, forward and backward.
//!
//! Sequences here are short (tens of positions), so one `(sequence, head)` fits the first-level cache and every product is
//! a small register tile: four rows times sixteen columns. The probabilities are computed again in the backward pass.

#![expect(
    clippy::inline_always,
    reason = "a kernel is compiled for an instruction set by being inlined into a `vectorise` function"
)]

use super::kernel::{exp, sum, vectorise};
use std::ops::Range;

const LANES: usize = 16;
const ROWS: usize = 4;
type Lane = [f32; LANES];

/// Buffers of one worker; they grow to the longest sequence seen.
#[derive(Debug, Default, Clone)]
pub struct Scratch {
    k_t: Vec<Lane>,
    v_t: Vec<Lane>,
    q: Vec<Lane>,
    k: Vec<Lane>,
    v: Vec<Lane>,
    g: Vec<Lane>,
    p: Vec<f32>,
    dp: Vec<f32>,
}

/// Shape of one attention call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heads {
    /// Number of heads.
    pub heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Whether position `i` sees only positions `0..=i`.
    pub causal: bool,
}

impl Heads {
    /// `heads * head_dim`.
    pub fn width(self) -> usize {
        self.heads * self.head_dim
    }

    /// Attention of one sequence.
    ///
    /// # Formula
    /// `P = softmax(Q K^T / sqrt(head_dim))` over the visible positions, `Y = P V`, head by head.
    ///
    /// # Shapes
    /// `qkv` `(t, 3 D)`: columns q, k, v, each head-major; `y` `(t, D)`, overwritten.
    pub fn forward(self, qkv: &[f32], y: &mut [f32], scratch: &mut Scratch) {
        forward(self, qkv, y, scratch);
    }

    /// The gradient of [`Heads::forward`]: overwrites `dqkv` `(t, 3 D)` from `dy` `(t, D)`.
    ///
    /// # Formula
    /// `dV = P^T dY`, `dP = dY V^T`, `dS = P (dP - rowsum(P dP)) / sqrt(head_dim)`, `dQ = dS K`, `dK = dS^T Q`.
    pub fn backward(self, qkv: &[f32], dy: &[f32], dqkv: &mut [f32], scratch: &mut Scratch) {
        backward(self, qkv, dy, dqkv, scratch);
    }

    /// End of what the rows up to `end` see.
    #[inline(always)]
    fn visible(self, end: usize, t: usize) -> usize {
        if self.causal { end } else { t }
    }

    fn positions(self, qkv: &[f32], y: &[f32]) -> usize {
        let t = y.len() / self.width();
        assert!(t > 0 && y.len() == t * self.width() && qkv.len() == 3 * y.len(), "attention shapes");
        t
    }

    /// `p[i]` = softmax of the visible scores of position `i`, zero up to the end of its last block of lanes.
    #[inline(always)]
    fn probabilities(self, q: &[f32], t: usize, k_t: &[Lane], p: &mut [f32]) {
        let hd = self.head_dim;
        let padded = t.next_multiple_of(LANES);
        let last = |rows: &Range<usize>| 0..self.visible(rows.end, t).div_ceil(LANES);
        let queries = Rows { data: q, stride: 3 * self.width() };
        product(
            t,
            padded / LANES,
            hd,
            k_t,
            |_| 0..hd,
            last,
            queries,
            |row, block, lane| {
                p[row * padded + block * LANES..][..LANES].copy_from_slice(lane);
            },
        );
        let inv_sqrt = 1.0 / (hd as f32).sqrt();
        for (i, row) in p.chunks_exact_mut(padded).enumerate() {
            let visible = self.visible(i + 1, t);
            let (lanes, _) = row[..visible.next_multiple_of(LANES)].as_chunks_mut::<LANES>();
            let mut top = [f32::NEG_INFINITY; LANES];
            for (lane, first) in lanes.iter_mut().zip((0_u32..).step_by(LANES)) {
                for ((v, top), j) in lane.iter_mut().zip(&mut top).zip(first..) {
                    *v = if j < visible as u32 { *v * inv_sqrt } else { f32::NEG_INFINITY };
                    *top = if *v > *top { *v } else { *top };
                }
            }
            let top = top.iter().fold(f32::NEG_INFINITY, |top, &v| if v > top { v } else { top });
            let mut total = [0.0_f32; LANES];
            for (lane, first) in lanes.iter_mut().zip((0_u32..).step_by(LANES)) {
                for ((v, total), j) in lane.iter_mut().zip(&mut total).zip(first..) {
                    // `exp` never returns 0, so a masked position must be set.
                    let e = exp(*v - top);
                    *v = if j < visible as u32 { e } else { 0.0 };
                    *total += *v;
                }
            }
            let k = 1.0 / sum(&total);
            for v in lanes.as_flattened_mut() {
                *v *= k;
            }
        }
    }
}

vectorise! {
    fn forward(shape: Heads, qkv: &[f32], y: &mut [f32], scratch: &mut Scratch) {
        let width = shape.width();
        let t = shape.positions(qkv, y);
        let padded = t.next_multiple_of(LANES);
        let hd = shape.head_dim;
        let Scratch { k_t, v, p, .. } = scratch;
        k_t.resize(padded * hd / LANES, [0.0; LANES]);
        v.resize(t * hd.div_ceil(LANES), [0.0; LANES]);
        p.resize(t * padded, 0.0);
        for head in 0..shape.heads {
            let at = head * hd;
            pack_transposed(&qkv[width + at..], 3 * width, t, hd, k_t);
            pack(&qkv[2 * width + at..], 3 * width, t, hd, v);
            shape.probabilities(&qkv[at..], t, k_t, p);
            let seen = |rows: &Range<usize>| 0..shape.visible(rows.end, t);
            let all_blocks = |_: &Range<usize>| 0..hd.div_ceil(LANES);
            let weights = Rows { data: p, stride: padded };
            product(t, hd.div_ceil(LANES), t, v, seen, all_blocks, weights, |row, block, lane| {
                let columns = block * LANES..hd.min((block + 1) * LANES);
                let out = &mut y[row * width + at..][..hd][columns];
                out.copy_from_slice(&lane[..out.len()]);
            });
        }
    }

    fn backward(shape: Heads, qkv: &[f32], dy: &[f32], dqkv: &mut [f32], scratch: &mut Scratch) {
        let width = shape.width();
        let t = shape.positions(qkv, dy);
        assert!(dqkv.len() == qkv.len(), "attention gradient has the shape of qkv");
        let padded = t.next_multiple_of(LANES);
        let hd = shape.head_dim;
        let blocks = hd.div_ceil(LANES);
        let inv_sqrt = 1.0 / (hd as f32).sqrt();
        let Scratch { k_t, v_t, q, k, g, p, dp, .. } = scratch;
        for lanes in [&mut *k_t, v_t] {
            lanes.resize(padded * hd / LANES, [0.0; LANES]);
        }
        for lanes in [&mut *q, k, g] {
            lanes.resize(t * blocks, [0.0; LANES]);
        }
        p.resize(t * padded, 0.0);
        dp.resize(t * padded, 0.0);
        let seen = |rows: &Range<usize>| 0..shape.visible(rows.end, t);
        let seeing = |rows: &Range<usize>| if shape.causal { rows.start } else { 0 }..t;
        let score_blocks = |rows: &Range<usize>| 0..seen(rows).end.div_ceil(LANES);
        let all_blocks = |_: &Range<usize>| 0..blocks;
        for head in 0..shape.heads {
            let at = head * hd;
            pack_transposed(&qkv[width + at..], 3 * width, t, hd, k_t);
            pack_transposed(&qkv[2 * width + at..], 3 * width, t, hd, v_t);
            pack(&qkv[at..], 3 * width, t, hd, q);
            pack(&qkv[width + at..], 3 * width, t, hd, k);
            pack(&dy[at..], width, t, hd, g);
            shape.probabilities(&qkv[at..], t, k_t, p);
            let dy_rows = Rows { data: &dy[at..], stride: width };
            product(t, padded / LANES, hd, v_t, |_| 0..hd, score_blocks, dy_rows, |row, block, lane| {
                dp[row * padded + block * LANES..][..LANES].copy_from_slice(lane);
            });
            for (i, (p, dp)) in p.chunks_exact(padded).zip(dp.chunks_exact_mut(padded)).enumerate() {
                let end = shape.visible(i + 1, t).next_multiple_of(LANES);
                let (p, dp) = (&p[..end], &mut dp[..end]);
                let along = super::kernel::dot(p, dp);
                for (dp, &p) in dp.iter_mut().zip(p) {
                    *dp = p * (*dp - along) * inv_sqrt;
                }
            }
            let mut store = |part: usize, row: usize, block: usize, lane: &Lane| {
                let columns = block * LANES..hd.min((block + 1) * LANES);
                let out = &mut dqkv[row * 3 * width + part * width + at..][..hd][columns];
                out.copy_from_slice(&lane[..out.len()]);
            };
            let scores = Rows { data: &dp[..], stride: padded };
            product(t, blocks, t, k, seen, all_blocks, scores, |row, block, lane| store(0, row, block, lane));
            let scores = Columns { data: &dp[..], stride: padded };
            product(t, blocks, t, q, seeing, all_blocks, scores, |row, block, lane| store(1, row, block, lane));
            let weights = Columns { data: &p[..], stride: padded };
            product(t, blocks, t, g, seeing, all_blocks, weights, |row, block, lane| store(2, row, block, lane));
        }
    }
}

/// `panels[block][c] = 16 rows' element c`: the transpose, ready to be multiplied from the left; absent rows are zero.
#[inline(always)]
fn pack_transposed(x: &[f32], stride: usize, t: usize, hd: usize, panels: &mut [Lane]) {
    for (block, panel) in panels.chunks_exact_mut(hd).enumerate() {
        for lane in 0..LANES {
            let row = block * LANES + lane;
            if row < t {
                for (out, &v) in panel.iter_mut().zip(&x[row * stride..][..hd]) {
                    out[lane] = v;
                }
            } else {
                for out in panel.iter_mut() {
                    out[lane] = 0.0;
                }
            }
        }
    }
}

/// `panels[block][row] = 16 columns of a row`; absent columns are zero.
#[inline(always)]
fn pack(x: &[f32], stride: usize, t: usize, hd: usize, panels: &mut [Lane]) {
    for (block, panel) in panels.chunks_exact_mut(t).enumerate() {
        let columns = block * LANES..hd.min((block + 1) * LANES);
        for (row, out) in panel.iter_mut().enumerate() {
            let from = &x[row * stride..][..hd][columns.clone()];
            if let Ok(full) = <&Lane>::try_from(from) {
                *out = *full;
            } else {
                *out = [0.0; LANES];
                out[..from.len()].copy_from_slice(from);
            }
        }
    }
}

/// Left operand of [`product`]: where the factor of `(row, k)` lies.
trait Left: Copy {
    fn tile<const R: usize>(self, row: usize, ks: Range<usize>, panel: &[Lane]) -> [Lane; R];
}

/// Factor `(row, k)` at `data[row stride + k]`.
#[derive(Clone, Copy)]
struct Rows<'a> {
    data: &'a [f32],
    stride: usize,
}

/// Factor `(row, k)` at `data[k stride + row]`.
#[derive(Clone, Copy)]
struct Columns<'a> {
    data: &'a [f32],
    stride: usize,
}

impl Left for Rows<'_> {
    #[inline(always)]
    fn tile<const R: usize>(self, row: usize, ks: Range<usize>, panel: &[Lane]) -> [Lane; R] {
        let mut acc = [[0.0_f32; LANES]; R];
        let panel = &panel[ks.clone()];
        let rows: [&[f32]; R] =
            std::array::from_fn(|r| &self.data[(row + r) * self.stride + ks.start..][..panel.len()]);
        for (c, lane) in panel.iter().enumerate() {
            for (acc, factors) in acc.iter_mut().zip(&rows) {
                let factor = factors[c];
                for (acc, &v) in acc.iter_mut().zip(lane) {
                    *acc = factor.mul_add(v, *acc);
                }
            }
        }
        acc
    }
}

impl Left for Columns<'_> {
    #[inline(always)]
    fn tile<const R: usize>(self, row: usize, ks: Range<usize>, panel: &[Lane]) -> [Lane; R] {
        let mut acc = [[0.0_f32; LANES]; R];
        let factors = self.data[ks.start * self.stride..].chunks_exact(self.stride);
        for (lane, factors) in panel[ks].iter().zip(factors) {
            let factors = &factors[row..row + R];
            for (acc, &factor) in acc.iter_mut().zip(factors) {
                for (acc, &v) in acc.iter_mut().zip(lane) {
                    *acc = factor.mul_add(v, *acc);
                }
            }
        }
        acc
    }
}

/// `(m, k)` times panels of `k` lanes; `terms` and `blocks` say what a group of rows needs, `write` takes each result.
#[expect(clippy::too_many_arguments, reason = "a product with its two sparsity patterns")]
#[inline(always)]
fn product<L: Left>(
    m: usize,
    panels: usize,
    k: usize,
    lanes: &[Lane],
    terms: impl Fn(&Range<usize>) -> Range<usize>,
    blocks: impl Fn(&Range<usize>) -> Range<usize>,
    left: L,
    mut write: impl FnMut(usize, usize, &Lane),
) {
    debug_assert_eq!(lanes.len(), panels * k);
    let mut row = 0;
    while row < m {
        let height = if row + ROWS <= m { ROWS } else { 1 };
        let rows = row..row + height;
        for block in blocks(&rows) {
            let panel = &lanes[block * k..(block + 1) * k];
            if height == ROWS {
                let tile = left.tile::<ROWS>(row, terms(&rows), panel);
                for (r, lane) in tile.iter().enumerate() {
                    write(row + r, block, lane);
                }
            } else {
                write(row, block, &left.tile::<1>(row, terms(&rows), panel)[0]);
            }
        }
        row += height;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed;
    use rand::RngExt;

    #[test]
    fn causal_attention_matches_the_golden_values() {
        let heads = Heads { heads: 1, head_dim: 2, causal: true };
        let qkv = [1.0, 0.0, 0.5, -0.5, 1.0, 2.0, 0.0, 1.0, 1.0, 1.0, -1.0, 0.0, 1.0, 1.0, -1.0, 0.5, 0.5, 0.5];
        let (mut y, mut d_qkv, mut scratch) = ([0.0; 6], [f32::NAN; 18], Scratch::default());
        heads.forward(&qkv, &mut y, &mut scratch);
        let golden = [1.0, 2.0, -0.485_633_4, 0.514_366_6, -0.474_969_5, 0.404_284_9];
        for (got, want) in y.iter().zip(golden) {
            assert!((f64::from(*got) - want).abs() < 5e-7, "{got} against {want}");
        }
        heads.backward(&qkv, &[1.0, -1.0, 0.5, 0.0, 0.0, 2.0], &mut d_qkv, &mut scratch);
        let golden = [
            0.0,
            0.0,
            0.388_050_1,
            0.523_135_9,
            1.128_591_7,
            -0.656_087_9,
            -0.067_542_9,
            -0.202_628_6,
            -0.404_394_5,
            -0.539_480_2,
            0.371_408_3,
            1.414_596_7,
            -0.226_713_7,
            -0.590_247_4,
            0.016_344_3,
            0.016_344_3,
            0.0,
            0.241_491_1,
        ];
        for (got, want) in d_qkv.iter().zip(golden) {
            assert!((f64::from(*got) - want).abs() < 5e-7, "{got} against {want}");
        }
    }

    /// The formula, element by element.
    fn plain(shape: Heads, qkv: &[f64], t: usize) -> Vec<f64> {
        let (d, hd) = (shape.width(), shape.head_dim);
        let mut y = vec![0.0; t * d];
        for head in 0..shape.heads {
            let at = |row: usize, part: usize, c: usize| qkv[row * 3 * d + part * d + head * hd + c];
            for i in 0..t {
                let seen = if shape.causal { i + 1 } else { t };
                let score = |j: usize| (0..hd).map(|c| at(i, 0, c) * at(j, 1, c)).sum::<f64>() / (hd as f64).sqrt();
                let e: Vec<f64> = (0..seen).map(|j| score(j).exp()).collect();
                for c in 0..hd {
                    y[i * d + head * hd + c] =
                        e.iter().enumerate().map(|(j, e)| e * at(j, 2, c)).sum::<f64>() / e.iter().sum::<f64>();
                }
            }
        }
        y
    }

    #[test]
    fn attention_matches_the_formula_and_its_finite_differences() {
        let mut scratch = Scratch::default();
        let mut rng = seed::stream(5, "attention tests", "data");
        for causal in [true, false] {
            for (t, heads, head_dim) in [(1, 1, 1), (1, 2, 16), (5, 2, 3), (18, 1, 20), (35, 3, 16), (16, 2, 32)] {
                let shape = Heads { heads, head_dim, causal };
                let d = shape.width();
                let qkv: Vec<f32> = (0..3 * t * d).map(|_| rng.random_range(-1.0..1.0)).collect();
                let dy: Vec<f32> = (0..t * d).map(|_| rng.random_range(-1.0..1.0)).collect();
                let (mut y, mut d_qkv) = (vec![f32::NAN; t * d], vec![f32::NAN; 3 * t * d]);
                shape.forward(&qkv, &mut y, &mut scratch);
                shape.backward(&qkv, &dy, &mut d_qkv, &mut scratch);
                let wide: Vec<f64> = qkv.iter().map(|&v| f64::from(v)).collect();
                for (got, want) in y.iter().zip(plain(shape, &wide, t)) {
                    assert!((f64::from(*got) - want).abs() < 1e-5, "t {t}: {got} against {want}");
                }
                let loss = |qkv: &[f64]| -> f64 {
                    plain(shape, qkv, t).iter().zip(&dy).map(|(y, &dy)| y * f64::from(dy)).sum()
                };
                for i in (0..wide.len()).step_by(1 + wide.len() / 40) {
                    let mut moved = wide.clone();
                    moved[i] += 1e-5;
                    let up = loss(&moved);
                    moved[i] -= 2e-5;
                    let numeric = (up - loss(&moved)) / 2e-5;
                    assert!((f64::from(d_qkv[i]) - numeric).abs() < 1e-5, "t {t}, {i}: {} {numeric}", d_qkv[i]);
                }
            }
        }
    }
}
