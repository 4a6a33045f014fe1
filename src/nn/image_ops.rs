//! Differentiable operations on pictures, channels last: convolution and linear resampling.
//!
//! candle's own convolution is channels first and keeps a copy of every unfolded input for the backward pass; its nearest
//! upsampling overwrites gradients where a tensor has two uses. These have exact gradients and work on a few images at a
//! time, so that what is unfolded stays in the cache. All tensors are `f32` and contiguous, on the CPU: `(batch, height, width,
//! channels)`.

use super::Error;
use super::kernel::{Layout as Order, matmul};
use super::ops::{floats, sum_in_order, with_floats};
use super::patches::{Patches, SHARDS};
use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

type Output = Result<(CpuStorage, Shape)>;

/// A 3x3 convolution with zero padding of one pixel.
#[derive(Debug, Clone, Copy)]
struct Conv {
    stride: usize,
}

/// Sizes of one convolution.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    batch: usize,
    patches: Patches,
    out_channels: usize,
}

impl Sizes {
    fn of(x: &[usize], weight: &[usize], stride: usize) -> Result<Self> {
        let (&[batch, height, width, channels], &[taps, out_channels]) = (x, weight) else {
            bail!("conv3x3 takes (batch, height, width, channels) and (9 channels, out), got {x:?} and {weight:?}");
        };
        if taps != 9 * channels || height == 0 || width == 0 {
            bail!("conv3x3: a weight of {weight:?} does not fit {x:?}");
        }
        let (out_height, out_width) = (height.div_ceil(stride), width.div_ceil(stride));
        let patches = Patches { height, width, channels, out_height, out_width, stride, taps: 3, shift: [0, 0] };
        Ok(Self { batch, patches, out_channels })
    }

    /// Numbers that one picture becomes.
    fn output(&self) -> usize {
        self.patches.outputs() * self.out_channels
    }

    /// Numbers of the pictures that share a product, before and after.
    fn group(&self) -> (usize, usize) {
        (self.patches.group() * self.patches.input(), self.patches.group() * self.output())
    }

    fn forward(&self, x: &[f32], weight: &[f32]) -> Vec<f32> {
        let ((from, to), k) = (self.group(), self.patches.size());
        let mut y = vec![0.0; self.batch * self.output()];
        y.par_chunks_mut(to).zip(x.par_chunks(from)).for_each_init(Vec::new, |rows, (y, x)| {
            self.patches.unfold(x, rows);
            let m = y.len() / self.out_channels;
            matmul(y, rows, Order::Plain, weight, Order::Plain, m, k, self.out_channels, false);
        });
        y
    }

    fn input_gradient(&self, weight: &[f32], dy: &[f32]) -> Vec<f32> {
        let ((from, to), n) = (self.group(), self.patches.size());
        let mut dx = vec![0.0; self.batch * self.patches.input()];
        dx.par_chunks_mut(from).zip(dy.par_chunks(to)).for_each_init(Vec::new, |rows, (dx, dy)| {
            let m = dy.len() / self.out_channels;
            rows.resize(m * n, 0.0);
            matmul(rows, dy, Order::Plain, weight, Order::Transposed, m, self.out_channels, n, false);
            self.patches.fold(rows, dx);
        });
        dx
    }

    fn weight_gradient(&self, x: &[f32], dy: &[f32]) -> Vec<f32> {
        let ((from, to), m) = (self.group(), self.patches.size());
        let share = self.batch.div_ceil(SHARDS).max(1);
        let partial: Vec<Vec<f32>> = x
            .par_chunks(share * self.patches.input())
            .zip(dy.par_chunks(share * self.output()))
            .map(|(x, dy)| {
                let (mut sum, mut rows) = (vec![0.0; m * self.out_channels], Vec::new());
                for (x, dy) in x.chunks(from).zip(dy.chunks(to)) {
                    self.patches.unfold(x, &mut rows);
                    let k = dy.len() / self.out_channels;
                    matmul(&mut sum, &rows, Order::Transposed, dy, Order::Plain, m, k, self.out_channels, true);
                }
                sum
            })
            .collect();
        sum_in_order(partial, m * self.out_channels)
    }
}

impl CustomOp2 for Conv {
    fn name(&self) -> &'static str {
        "conv3x3"
    }

    fn cpu_fwd(&self, x: &CpuStorage, x_layout: &Layout, weight: &CpuStorage, weight_layout: &Layout) -> Output {
        let sizes = Sizes::of(x_layout.dims(), weight_layout.dims(), self.stride)?;
        let (x, weight) = (floats(self.name(), x, x_layout)?, floats(self.name(), weight, weight_layout)?);
        let shape = (sizes.batch, sizes.patches.out_height, sizes.patches.out_width, sizes.out_channels);
        Ok((CpuStorage::F32(sizes.forward(x, weight)), Shape::from(shape)))
    }

    fn bwd(&self, x: &Tensor, weight: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let sizes = Sizes::of(x.dims(), weight.dims(), self.stride)?;
        let (dx, dw) = with_floats(self.name(), [x, weight, &dy.contiguous()?], |[x, weight, dy]| {
            Ok((sizes.input_gradient(weight, dy), sizes.weight_gradient(x, dy)))
        })?;
        let dw = Tensor::from_vec(dw, weight.shape(), weight.device())?;
        Ok((Some(Tensor::from_vec(dx, x.shape(), x.device())?), Some(dw)))
    }
}

/// 3x3 convolution, zero padding of one pixel, `stride` 1 or 2.
///
/// # Formula
/// `y[p, q, o] = sum_{i, j, c} x[s p + i - 1, s q + j - 1, c] w[3 i + j, c, o]`
///
/// # Shapes
/// `x` `(b, h, w, c)`, `weight` `(9 c, o)` -> `(b, ceil(h / s), ceil(w / s), o)`.
pub fn conv3x3(x: &Tensor, weight: &Tensor, stride: usize) -> std::result::Result<Tensor, Error> {
    Ok(x.apply_op2(weight, Conv { stride })?)
}

/// A linear map of the rows or columns of a picture: shape `(to, from)`, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct Filter {
    to: usize,
    from: usize,
    weights: Vec<f32>,
}

impl Filter {
    /// Enlarges or reduces `from` pixels to `to` by area-aware linear interpolation: no aliasing, every row sums to 1.
    ///
    /// # Formula
    /// Row `i` weighs pixel `j` with `max(0, 1 - |j + 1/2 - (i + 1/2) r| / max(r, 1))`, `r = from / to`, normalised.
    pub fn resize(from: usize, to: usize) -> Self {
        let ratio = from as f32 / to as f32;
        let reach = ratio.max(1.0);
        Self::from_rows(from, to, |i, j| {
            let centre = (i as f32 + 0.5) * ratio;
            (1.0 - (j as f32 + 0.5 - centre).abs() / reach).max(0.0)
        })
    }

    /// A Gaussian window of `2 radius + 1` pixels, cut off and normalised at the border.
    pub fn blur(side: usize, sigma: f32, radius: usize) -> Self {
        Self::from_rows(side, side, |i, j| {
            let distance = i.abs_diff(j);
            if distance > radius { 0.0 } else { (-0.5 * (distance as f32 / sigma).powi(2)).exp() }
        })
    }

    /// The `to` pixels from `start` on, linearly interpolated, with the border repeated: a crop, a shift or a zoom.
    pub fn window(from: usize, to: usize, start: f32, length: f32) -> Self {
        Self::from_rows(from, to, |i, j| {
            let at = start + (i as f32 + 0.5) * length / to as f32 - 0.5;
            let at = at.clamp(0.0, from as f32 - 1.0);
            (1.0 - (j as f32 - at).abs()).max(0.0)
        })
    }

    /// The same, read from the other end.
    #[must_use]
    pub fn mirrored(&self) -> Self {
        let weights = self.weights.chunks_exact(self.from).rev().flatten().copied().collect();
        Self { weights, ..*self }
    }

    /// What pixel `j` of the input weighs in pixel `i` of the output.
    pub(super) fn weight(&self, i: usize, j: usize) -> f32 {
        self.weights[i * self.from + j]
    }

    fn from_rows(from: usize, to: usize, weight: impl Fn(usize, usize) -> f32) -> Self {
        let mut weights = vec![0.0; from * to];
        for (i, row) in weights.chunks_exact_mut(from).enumerate() {
            row.iter_mut().enumerate().for_each(|(j, w)| *w = weight(i, j));
            let sum: f32 = row.iter().sum();
            for w in row {
                *w /= sum;
            }
        }
        Self { to, from, weights }
    }
}

/// `y = R x C'` for every channel.
struct Resample {
    rows: Filter,
    columns: Filter,
}

impl Resample {
    /// One picture forward: rows first, then columns.
    fn forward(&self, x: &[f32], y: &mut [f32], c: usize, scratch: &mut Vec<f32>) {
        let (h, w, to_h, to_w) = (self.rows.from, self.columns.from, self.rows.to, self.columns.to);
        scratch.resize(to_h * w * c, 0.0);
        matmul(scratch, &self.rows.weights, Order::Plain, x, Order::Plain, to_h, h, w * c, false);
        for (y, x) in y.chunks_exact_mut(to_w * c).zip(scratch.chunks_exact(w * c)) {
            matmul(y, &self.columns.weights, Order::Plain, x, Order::Plain, to_w, w, c, false);
        }
    }

    /// The transpose of [`Resample::forward`].
    fn backward(&self, dy: &[f32], dx: &mut [f32], c: usize, scratch: &mut Vec<f32>) {
        let (h, w, to_h, to_w) = (self.rows.from, self.columns.from, self.rows.to, self.columns.to);
        scratch.resize(to_h * w * c, 0.0);
        for (dx, dy) in scratch.chunks_exact_mut(w * c).zip(dy.chunks_exact(to_w * c)) {
            matmul(dx, &self.columns.weights, Order::Transposed, dy, Order::Plain, w, to_w, c, false);
        }
        matmul(dx, &self.rows.weights, Order::Transposed, scratch, Order::Plain, h, to_h, w * c, false);
    }
}

impl CustomOp1 for Resample {
    fn name(&self) -> &'static str {
        "resample"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Output {
        let &[b, h, w, c] = layout.dims() else { bail!("resample takes (batch, height, width, channels)") };
        let (to_h, to_w) = (self.rows.to, self.columns.to);
        if (h, w) != (self.rows.from, self.columns.from) {
            bail!("resample: filters of {} and {} pixels do not fit ({h}, {w})", self.rows.from, self.columns.from);
        }
        let x = floats(self.name(), x, layout)?;
        let mut y = vec![0.0; b * to_h * to_w * c];
        y.par_chunks_mut(to_h * to_w * c)
            .zip(x.par_chunks(h * w * c))
            .for_each_init(Vec::new, |scratch, (y, x)| self.forward(x, y, c, scratch));
        Ok((CpuStorage::F32(y), Shape::from((b, to_h, to_w, c))))
    }

    fn bwd(&self, x: &Tensor, y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let (each, from, c) = (y.elem_count() / y.dims()[0], x.elem_count() / x.dims()[0], x.dims()[3]);
        let dx = with_floats(self.name(), [&dy.contiguous()?], |[dy]| {
            let mut dx = vec![0.0; x.elem_count()];
            dx.par_chunks_mut(from)
                .zip(dy.par_chunks(each))
                .for_each_init(Vec::new, |scratch, (dx, dy)| self.backward(dy, dx, c, scratch));
            Ok(dx)
        })?;
        Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
    }
}

/// A linear map of rows and one of columns: resizing, blurring, cropping, shifting.
///
/// # Formula
/// `y[p, q, c] = sum_{i, j} R[p, i] C[q, j] x[i, j, c]`
///
/// # Shapes
/// `(b, h, w, c)`, filters from `h` to `h'` and from `w` to `w'` -> `(b, h', w', c)`.
pub fn resample(x: &Tensor, rows: &Filter, columns: &Filter) -> std::result::Result<Tensor, Error> {
    Ok(x.apply_op1(Resample { rows: rows.clone(), columns: columns.clone() })?)
}

#[cfg(test)]
mod tests {
    use super::super::ops::check::{agree, op};
    use super::*;

    /// candle's own convolution, channels first, on the same weight.
    fn plain(x: &Tensor, weight: &Tensor, stride: usize) -> Result<Tensor> {
        let (c, o) = (x.dims()[3], weight.dims()[1]);
        let kernel = weight.reshape((3, 3, c, o))?.permute((3, 2, 0, 1))?.contiguous()?;
        let x = x.permute((0, 3, 1, 2))?.contiguous()?;
        x.conv2d(&kernel, 1, stride, 1, 1)?.permute((0, 2, 3, 1))?.contiguous()
    }

    #[test]
    fn conv3x3_agrees_with_plain_operations() {
        for (shape, out, stride) in
            [([1, 1, 1, 2], 3, 1), ([2, 5, 4, 3], 2, 1), ([9, 4, 4, 2], 5, 2), ([2, 5, 7, 1], 4, 2)]
        {
            agree(
                "conv3x3",
                &[&shape, &[9 * shape[3], out]],
                |x| op(conv3x3(&x[0], &x[1], stride)),
                |x| plain(&x[0], &x[1], stride),
            );
        }
    }

    #[test]
    fn resampling_agrees_with_plain_operations() {
        let (rows, columns) = (Filter::resize(5, 3), Filter::window(4, 6, -0.7, 3.3).mirrored());
        let matrix = |f: &Filter| Tensor::from_slice(&f.weights, (f.to, f.from), &candle_core::Device::Cpu);
        let plain = |x: &Tensor| {
            let x = x.permute((0, 3, 1, 2))?.contiguous()?;
            let y = matrix(&rows)?.broadcast_matmul(&x)?.broadcast_matmul(&matrix(&columns)?.t()?)?;
            y.permute((0, 2, 3, 1))?.contiguous()
        };
        agree("resample", &[&[2, 5, 4, 3]], |x| op(resample(&x[0], &rows, &columns)), |x| plain(&x[0]));
    }

    #[test]
    fn filters_keep_what_is_constant_and_a_filter_of_equal_size_keeps_everything() {
        for filter in
            [Filter::resize(32, 7), Filter::resize(5, 64), Filter::blur(9, 1.5, 3), Filter::window(8, 8, 2.0, 9.0)]
        {
            assert!(filter.weights.chunks(filter.from).all(|row| (row.iter().sum::<f32>() - 1.0).abs() < 1e-5));
        }
        let same: Vec<f32> = (0..16).map(|i| if i % 5 == 0 { 1.0 } else { 0.0 }).collect();
        assert_eq!(Filter::resize(4, 4).weights, same);
        assert_eq!(Filter::window(4, 4, 0.0, 4.0).weights, same);
    }

    #[test]
    fn a_weight_that_does_not_fit_is_refused() {
        let x = Tensor::zeros((1, 4, 4, 3), candle_core::DType::F32, &candle_core::Device::Cpu).expect("zeros");
        let w = Tensor::zeros((9, 2), candle_core::DType::F32, &candle_core::Device::Cpu).expect("zeros");
        let error = conv3x3(&x, &w, 1).expect_err("nine taps for three channels").to_string();
        assert!(error.contains("does not fit"), "{error}");
    }
}
