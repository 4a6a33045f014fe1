//! Depthwise convolution, channels last: each channel has a window of its own.
//!
//! The input carries its zero border with it, so no output is a special case. A tile is four neighbouring outputs; the
//! loop runs over the channels in vectors, and the inputs that the four windows share are loaded once.

#![expect(
    clippy::inline_always,
    reason = "a kernel is compiled for an instruction set by being inlined into its `with_simd`"
)]
#![expect(
    clippy::needless_range_loop,
    reason = "constant indices keep the accumulators in registers; through an iterator they were stored at every step"
)]

use super::pointwise::padded;
use crate::encode::lanes::Aligned;
use pulp::{Arch, Simd, WithSimd};

/// Outputs in a tile.
const TILE: usize = 4;

/// A depthwise layer.
#[derive(Debug)]
pub(super) struct Depthwise {
    /// `[tap][channel]`, taps row-major.
    taps: Aligned,
    bias: Aligned,
    side: usize,
    stride: usize,
    channels: usize,
}

/// A bordered input: rows of `row` floats. Output `(y, x)` reads the window whose corner is `(y, x) * stride`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Windows<'a> {
    pub(super) input: &'a [f32],
    pub(super) row: usize,
    /// Outputs.
    pub(super) height: usize,
    pub(super) width: usize,
}

impl Depthwise {
    /// Packs `weight`, shape `(bias.len(), side, side)` row-major.
    ///
    /// # Panics
    /// When `side` is neither 3 nor 5, or `stride` neither 1 nor 2: no supported network has such a layer.
    pub(super) fn new(weight: &[f32], bias: &[f32], side: usize, stride: usize) -> Self {
        assert!(
            matches!((side, stride), (3 | 5, 1 | 2)),
            "the architectures have 3x3 and 5x5 windows, strides 1 and 2"
        );
        let channels = padded(bias.len());
        let mut taps = Aligned::zeros(side * side * channels);
        for (channel, window) in weight.chunks_exact(side * side).enumerate() {
            for (tap, &value) in window.iter().enumerate() {
                taps[tap * channels + channel] = value;
            }
        }
        let mut padded_bias = Aligned::zeros(channels);
        padded_bias[..bias.len()].copy_from_slice(bias);
        Self { taps, bias: padded_bias, side, stride, channels }
    }

    /// The layer that takes gradients back: taps in reverse, stride 1, no bias. Its input is the gradient of the outputs,
    /// spread out by the stride and bordered.
    pub(super) fn transposed(&self) -> Self {
        let mut taps = Aligned::zeros(self.taps.len());
        for (to, from) in taps.chunks_exact_mut(self.channels).zip(self.taps.chunks_exact(self.channels).rev()) {
            to.copy_from_slice(from);
        }
        Self { taps, bias: Aligned::zeros(self.channels), side: self.side, stride: 1, channels: self.channels }
    }

    /// Side of the window.
    pub(super) fn side(&self) -> usize {
        self.side
    }

    /// Distance between windows.
    pub(super) fn stride(&self) -> usize {
        self.stride
    }

    /// Channels of a pixel, padding included.
    pub(super) fn channels(&self) -> usize {
        self.channels
    }

    /// One output pixel for each window, side by side in `out`; through ReLU6 when `bounded`.
    pub(super) fn apply(&self, windows: Windows<'_>, out: &mut [f32], bounded: bool) {
        Arch::new().dispatch(Apply { layer: self, windows, out, bounded });
    }
}

struct Apply<'a> {
    layer: &'a Depthwise,
    windows: Windows<'a>,
    out: &'a mut [f32],
    bounded: bool,
}

impl WithSimd for Apply<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match (self.layer.side, self.layer.stride) {
            (3, 1) => self.rows::<S, 3, 1, 3, 6>(simd),
            (3, _) => self.rows::<S, 3, 2, 3, 9>(simd),
            (_, 1) => self.rows::<S, 5, 1, 5, 8>(simd),
            (_, _) => self.rows::<S, 5, 2, 5, 11>(simd),
        }
    }
}

impl Apply<'_> {
    /// `K` is the window's side; `ONE` and `SPAN` are the columns that one window and [`TILE`] windows cover.
    #[inline(always)]
    fn rows<S: Simd, const K: usize, const STRIDE: usize, const ONE: usize, const SPAN: usize>(mut self, simd: S) {
        let Windows { height, width, .. } = self.windows;
        for y in 0..height {
            let mut x = 0;
            while x < width {
                if width < TILE {
                    self.tile::<S, K, STRIDE, 1, ONE>(simd, y, x);
                    x += 1;
                } else {
                    // The last tile overlaps the one before instead of leaving a tail.
                    x = x.min(width - TILE);
                    self.tile::<S, K, STRIDE, TILE, SPAN>(simd, y, x);
                    x += TILE;
                }
            }
        }
    }

    #[inline(always)]
    fn tile<S: Simd, const K: usize, const STRIDE: usize, const T: usize, const SPAN: usize>(
        &mut self,
        simd: S,
        y: usize,
        x: usize,
    ) {
        let c = self.layer.channels;
        let Windows { input, row, width, .. } = self.windows;
        let vectors = c / S::F32_LANES;
        let mut pixels = [[&[] as &[S::f32s]; SPAN]; K];
        let mut taps = [[&[] as &[S::f32s]; K]; K];
        for i in 0..K {
            let line = &input[(y * STRIDE + i) * row + x * STRIDE * c..][..SPAN * c];
            for j in 0..SPAN {
                pixels[i][j] = &S::as_simd_f32s(&line[j * c..(j + 1) * c]).0[..vectors];
            }
            for j in 0..K {
                taps[i][j] = &S::as_simd_f32s(&self.layer.taps[(i * K + j) * c..][..c]).0[..vectors];
            }
        }
        let bias = &S::as_simd_f32s(&self.layer.bias).0[..vectors];
        let outs = &mut self.out[(y * width + x) * c..][..T * c];
        let (outs, _) = S::as_mut_simd_f32s(outs);
        let low = simd.splat_f32s(if self.bounded { 0.0 } else { f32::NEG_INFINITY });
        let high = simd.splat_f32s(if self.bounded { 6.0 } else { f32::INFINITY });
        for v in 0..vectors {
            let mut sums = [bias[v]; T];
            for i in 0..K {
                for j in 0..K {
                    let tap = taps[i][j][v];
                    for t in 0..T {
                        sums[t] = simd.mul_add_e_f32s(pixels[i][t * STRIDE + j][v], tap, sums[t]);
                    }
                }
            }
            for t in 0..T {
                outs[t * vectors + v] = simd.min_f32s(simd.max_f32s(sums[t], low), high);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Tensor};

    fn wave(n: usize, step: f32) -> Vec<f32> {
        (0..n).map(|i| (i as f32 * step).sin()).collect()
    }

    /// Against candle's grouped convolution, on odd and even sides, narrow and wide.
    #[test]
    fn it_equals_a_grouped_convolution() {
        for (k, stride) in [(3, 1), (3, 2), (5, 1), (5, 2)] {
            for (side, channels) in [(1, 16), (4, 3), (7, 40), (8, 16), (13, 20)] {
                let (weight, bias) = (wave(channels * k * k, 0.9), vec![0.0; channels]);
                let c = padded(channels);
                let (pad, bordered) = (k / 2, side + 2 * (k / 2));
                let x = wave(side * side * channels, 0.37);
                let mut input = vec![0.0; bordered * bordered * c];
                for y in 0..side {
                    for column in 0..side {
                        let at = ((y + pad) * bordered + column + pad) * c;
                        input[at..at + channels].copy_from_slice(&x[(y * side + column) * channels..][..channels]);
                    }
                }
                let out = (bordered - k) / stride + 1;
                let mut y = vec![7.0; out * out * c];
                let windows = Windows { input: &input, row: bordered * c, height: out, width: out };
                Depthwise::new(&weight, &bias, k, stride).apply(windows, &mut y, false);

                let x =
                    Tensor::from_vec(x, (1, side, side, channels), &Device::Cpu).and_then(|x| x.permute((0, 3, 1, 2)));
                let weight = Tensor::from_vec(weight, (channels, 1, k, k), &Device::Cpu).expect("a weight");
                let stock =
                    x.and_then(|x| x.contiguous()?.conv2d(&weight, pad, stride, 1, channels)).expect("a convolution");
                let stock =
                    stock.permute((0, 2, 3, 1)).and_then(|y| y.flatten_all()?.to_vec1::<f32>()).expect("values");
                for (row, expected) in y.chunks(c).zip(stock.chunks(channels)) {
                    assert!(
                        row.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5),
                        "{k} {stride} {side} {channels}"
                    );
                    assert!(row[channels..].iter().all(|v| *v == 0.0), "padding stays zero");
                }
            }
        }
    }

    #[test]
    fn bounded_outputs_lie_between_0_and_6() {
        let layer = Depthwise::new(&[1.0; 18], &[0.5, -20.0], 3, 1);
        let input = vec![1.0; 3 * 3 * 16];
        let mut out = [0.0; 16];
        layer.apply(Windows { input: &input, row: 48, height: 1, width: 1 }, &mut out, true);
        assert_eq!(out[..3], [6.0, 0.0, 0.0]);
    }
}
