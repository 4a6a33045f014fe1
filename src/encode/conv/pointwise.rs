//! Matrix products over pixels: 1x1 convolutions, and any convolution whose windows have been laid out as rows.
//!
//! A map is channels-last with its channels padded to whole vectors ([`padded`]), so rows of pixels are rows of a matrix
//! and no loop has a tail. Outputs stand in the vector lanes, pixels are broadcast; bias, residual and ReLU6 are applied
//! while the tile is in registers. Every output is one chain of fused multiply-adds over the inputs in order, so a
//! pixel's value depends neither on its tile nor on its neighbours.

#![expect(
    clippy::inline_always,
    reason = "a kernel is compiled for an instruction set by being inlined into its `with_simd`"
)]
#![expect(
    clippy::needless_range_loop,
    reason = "constant indices keep the accumulators in registers; through an iterator they were stored at every step"
)]

use crate::encode::lanes::Aligned;
use pulp::{Arch, Simd, WithSimd};

/// Floats in a vector of the widest unit.
pub(super) const VECTOR: usize = 16;

/// Vectors of outputs in a panel of packed weights: 3 x 8 accumulators leave room for operands in 32 registers.
const WIDEST: usize = 3;

/// Pixels in a register tile of the widest unit.
const PIXELS: usize = 8;

/// The stride of a pixel with `channels` channels.
pub(super) fn padded(channels: usize) -> usize {
    channels.next_multiple_of(VECTOR)
}

/// What becomes of a product before it is stored.
#[derive(Debug, Clone, Copy)]
pub(super) enum Finish<'a> {
    /// `y = W x + b`
    Linear,
    /// `y = min(max(W x + b, 0), 6)`
    Relu6,
    /// `y = W x + b + r`, with `r` of the layout of `y`.
    Residual(&'a [f32]),
}

/// Where pixel `p` of the output stands: `start + (p / width) * row + (p % width) * outputs`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) start: usize,
    pub(super) width: usize,
    pub(super) row: usize,
}

/// A dense layer over pixels with packed weights.
#[derive(Debug)]
pub(super) struct Pointwise {
    /// For each panel `[input][outputs of the panel]`, one after the other.
    panels: Aligned,
    /// First output and width of each panel.
    spans: Vec<(usize, usize)>,
    bias: Aligned,
    inputs: usize,
    outputs: usize,
}

impl Pointwise {
    /// Packs `weight`, shape `(bias.len(), inputs)` row-major, as the files store it.
    pub(super) fn new(weight: &[f32], bias: &[f32], inputs: usize) -> Self {
        assert_eq!(weight.len(), bias.len() * inputs, "the loader has checked the shape of every weight");
        let outputs = padded(bias.len());
        let spans = spans(outputs / VECTOR);
        let mut panels = Aligned::zeros(outputs * inputs);
        for &(first, width) in &spans {
            let panel = &mut panels[first * inputs..(first + width) * inputs];
            for (output, row) in weight.chunks_exact(inputs).enumerate().skip(first).take(width) {
                for (packed, &value) in panel.chunks_exact_mut(width).zip(row) {
                    packed[output - first] = value;
                }
            }
        }
        let mut padded_bias = Aligned::zeros(outputs);
        padded_bias[..bias.len()].copy_from_slice(bias);
        Self { panels, spans, bias: padded_bias, inputs, outputs }
    }

    /// The layer that takes gradients back: `W` transposed, without bias. It reads pixels of `self.outputs()` channels.
    pub(super) fn transposed(&self) -> Self {
        let mut weight = vec![0.0; self.inputs * self.outputs];
        for &(first, width) in &self.spans {
            let panel = &self.panels[first * self.inputs..(first + width) * self.inputs];
            for (row, packed) in weight.chunks_exact_mut(self.outputs).zip(panel.chunks_exact(width)) {
                row[first..first + width].copy_from_slice(packed);
            }
        }
        Self::new(&weight, &vec![0.0; self.inputs], self.outputs)
    }

    /// Channels of an output pixel, padding included.
    pub(super) fn outputs(&self) -> usize {
        self.outputs
    }

    /// `y = finish(W x + b)` for `pixels` pixels, which stand `stride` floats apart in `x`.
    pub(super) fn apply(
        &self,
        x: &[f32],
        stride: usize,
        pixels: usize,
        y: &mut [f32],
        place: Place,
        finish: Finish<'_>,
    ) {
        Arch::new().dispatch(Apply { layer: self, x, stride, pixels, y, place, finish });
    }

    /// The same into pixels that stand side by side.
    pub(super) fn dense(&self, x: &[f32], stride: usize, pixels: usize, y: &mut [f32], finish: Finish<'_>) {
        let place = Place { start: 0, width: pixels.max(1), row: 0 };
        self.apply(x, stride, pixels, y, place, finish);
    }
}

/// Cuts `vectors` into panels of nearly equal width, at most [`WIDEST`] vectors; first output and outputs of each.
fn spans(vectors: usize) -> Vec<(usize, usize)> {
    let panels = vectors.div_ceil(WIDEST);
    let edge = |panel: usize| panel * vectors / panels * VECTOR;
    (0..panels).map(|panel| (edge(panel), edge(panel + 1) - edge(panel))).collect()
}

struct Apply<'a> {
    layer: &'a Pointwise,
    x: &'a [f32],
    stride: usize,
    pixels: usize,
    y: &'a mut [f32],
    place: Place,
    finish: Finish<'a>,
}

impl WithSimd for Apply<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        for panel in 0..self.layer.spans.len() {
            let (first, width) = self.layer.spans[panel];
            if S::F32_LANES == VECTOR {
                match width / VECTOR {
                    3 => self.panel::<S, PIXELS, 3>(simd, first, width, first),
                    2 => self.panel::<S, PIXELS, 2>(simd, first, width, first),
                    _ => self.panel::<S, PIXELS, 1>(simd, first, width, first),
                }
                continue;
            }
            for column in (first..first + width).step_by(VECTOR) {
                match S::F32_LANES {
                    8 => self.panel::<S, 4, 2>(simd, first, width, column),
                    4 => self.panel::<S, 4, 4>(simd, first, width, column),
                    2 => self.panel::<S, 1, 8>(simd, first, width, column),
                    _ => self.panel::<S, 1, 16>(simd, first, width, column),
                }
            }
        }
    }
}

impl Apply<'_> {
    /// `V` vectors of outputs from `column` on, which lie in the panel of `width` outputs from `first` on.
    #[inline(always)]
    fn panel<S: Simd, const R: usize, const V: usize>(&mut self, simd: S, first: usize, width: usize, column: usize) {
        let k = self.layer.inputs;
        let weights = (&self.layer.panels[first * k + column - first..(first + width) * k], width);
        if self.pixels < R {
            for pixel in 0..self.pixels {
                self.tile::<S, 1, V>(simd, weights, pixel, column);
            }
            return;
        }
        for pixel in (0..self.pixels).step_by(R) {
            // The last tile overlaps the one before instead of leaving a tail.
            self.tile::<S, R, V>(simd, weights, pixel.min(self.pixels - R), column);
        }
    }

    /// Pixels from `pixel` on. Everything about the accumulators has a constant index: they never leave their registers.
    #[inline(always)]
    fn tile<S: Simd, const R: usize, const V: usize>(
        &mut self,
        simd: S,
        weights: (&[f32], usize),
        pixel: usize,
        column: usize,
    ) {
        let width = V * S::F32_LANES;
        let (bias, _) = S::as_simd_f32s(&self.layer.bias[column..column + width]);
        let mut tile =
            multiply::<S, R, V>(simd, self.layer.inputs, (&self.x[pixel * self.stride..], self.stride), weights, bias);
        let mut places = [0; R];
        let (mut row, mut x) = (pixel / self.place.width, pixel % self.place.width);
        for at in &mut places {
            *at = self.place.start + row * self.place.row + x * self.layer.outputs + column;
            x += 1;
            if x == self.place.width {
                (row, x) = (row + 1, 0);
            }
        }
        match self.finish {
            Finish::Linear => {}
            Finish::Relu6 => {
                for r in 0..R {
                    for v in 0..V {
                        tile[r][v] = relu6(simd, tile[r][v]);
                    }
                }
            }
            Finish::Residual(residual) => {
                for r in 0..R {
                    let (residual, _) = S::as_simd_f32s(&residual[places[r]..places[r] + width]);
                    for v in 0..V {
                        tile[r][v] = simd.add_f32s(tile[r][v], residual[v]);
                    }
                }
            }
        }
        for r in 0..R {
            let (out, _) = S::as_mut_simd_f32s(&mut self.y[places[r]..places[r] + width]);
            out[..V].copy_from_slice(&tile[r]);
        }
    }
}

/// A register tile: `R` pixels against `V` vectors of outputs; both operands with the distance between their rows.
#[inline(always)]
fn multiply<S: Simd, const R: usize, const V: usize>(
    simd: S,
    k: usize,
    (x, x_stride): (&[f32], usize),
    (weights, stride): (&[f32], usize),
    bias: &[S::f32s],
) -> [[S::f32s; V]; R] {
    let mut tile = [[simd.splat_f32s(0.0); V]; R];
    for row in &mut tile {
        row.copy_from_slice(&bias[..V]);
    }
    let mut rows = [x; R];
    for r in 0..R {
        rows[r] = &x[r * x_stride..r * x_stride + k];
    }
    let weights = &weights[..(k - 1) * stride + V * S::F32_LANES];
    for (i, weights) in weights.chunks(stride).take(k).enumerate() {
        let (weights, _) = S::as_simd_f32s(&weights[..V * S::F32_LANES]);
        for r in 0..R {
            let x = simd.splat_f32s(rows[r][i]);
            for v in 0..V {
                tile[r][v] = simd.mul_add_e_f32s(x, weights[v], tile[r][v]);
            }
        }
    }
    tile
}

/// `min(max(v, 0), 6)`
#[inline(always)]
pub(super) fn relu6<S: Simd>(simd: S, v: S::f32s) -> S::f32s {
    simd.min_f32s(simd.max_f32s(v, simd.splat_f32s(0.0)), simd.splat_f32s(6.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::kernel::{Layout, matmul};

    fn wave(n: usize, step: f32) -> Vec<f32> {
        (0..n).map(|i| (i as f32 * step).sin()).collect()
    }

    /// `(pixels, inputs)` into pixels of `stride` floats; what lies behind the inputs must not count.
    fn spread(x: &[f32], inputs: usize, stride: usize) -> Vec<f32> {
        x.chunks(inputs).flat_map(|row| row.iter().copied().chain(std::iter::repeat_n(9.0, stride - inputs))).collect()
    }

    #[test]
    fn a_layer_is_a_matrix_product_with_bias_for_any_size() {
        for (pixels, inputs, outputs) in [(1, 3, 5), (7, 27, 32), (8, 16, 48), (13, 24, 144), (50, 40, 80), (9, 5, 17)]
        {
            let (x, w, b) = (wave(pixels * inputs, 0.7), wave(outputs * inputs, 0.3), wave(outputs, 1.1));
            let mut expected: Vec<f32> = std::iter::repeat_n(&b, pixels).flatten().copied().collect();
            matmul(&mut expected, &x, Layout::Plain, &w, Layout::Transposed, pixels, inputs, outputs, true);
            let layer = Pointwise::new(&w, &b, inputs);
            let stride = padded(inputs);
            let rows = spread(&x, inputs, stride);
            let mut y = vec![7.0; pixels * layer.outputs()];
            layer.dense(&rows, stride, pixels, &mut y, Finish::Linear);
            let residual = y.clone();
            for (row, expected) in y.chunks(layer.outputs()).zip(expected.chunks(outputs)) {
                assert!(row.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5), "{pixels} {inputs} {outputs}");
                assert!(row[outputs..].iter().all(|v| *v == 0.0), "padding stays zero");
            }
            layer.dense(&rows, stride, pixels, &mut y, Finish::Relu6);
            assert!(y.iter().zip(&residual).all(|(y, r)| *y == r.clamp(0.0, 6.0)));
            layer.dense(&rows, stride, pixels, &mut y, Finish::Residual(&residual));
            assert!(y.iter().zip(&residual).all(|(y, r)| *y == r + r));
        }
    }

    #[test]
    fn the_transposed_layer_is_the_adjoint() {
        let (inputs, outputs, pixels) = (24, 40, 11);
        let layer = Pointwise::new(&wave(outputs * inputs, 0.3), &vec![0.0; outputs], inputs);
        let back = layer.transposed();
        let x = wave(pixels * padded(inputs), 0.7);
        let g = wave(pixels * layer.outputs(), 0.2);
        let (mut y, mut dx) = (vec![0.0; pixels * layer.outputs()], vec![0.0; pixels * back.outputs()]);
        layer.dense(&x, padded(inputs), pixels, &mut y, Finish::Linear);
        back.dense(&g, layer.outputs(), pixels, &mut dx, Finish::Linear);
        let product = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
        assert!((product(&y, &g) - product(&x, &dx)).abs() < 1e-4);
    }
}
