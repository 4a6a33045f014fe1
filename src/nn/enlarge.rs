//! Nearest upsampling with a 3x3 convolution behind it, as one operation with exact gradients.
//!
//! Of the nine upsampled pixels under an output pixel only four differ. For each of the four places that an output pixel can
//! have inside its input pixel the weights of equal pixels are added up, which leaves a 2x2 convolution of the small
//! picture: 16 multiplications where there were 36, and nothing is ever upsampled. Tensors as in [`super::image_ops`].

use super::Error;
use super::kernel::{Layout as Order, matmul};
use super::ops::{floats, sum_in_order, with_floats};
use super::patches::{Patches, SHARDS};
use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

/// Places of an output pixel inside its input pixel.
const PLACES: usize = 4;

/// Which of the two pixels that a place reads along one axis stands under tap `tap` of three. The first of the two lies one
/// before the input pixel for the near half, and is the input pixel itself for the far half.
fn reads(half: usize, tap: usize) -> usize {
    (tap + 1 - half) / 2
}

/// Calls `each(place, tap of four, tap of nine)` for all that belong together.
fn pairs(mut each: impl FnMut(usize, usize, usize)) {
    for place in 0..PLACES {
        for tap in 0..9 {
            each(place, 2 * reads(place / 2, tap / 3) + reads(place % 2, tap % 3), tap);
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Sizes {
    batch: usize,
    height: usize,
    width: usize,
    channels: usize,
    out_channels: usize,
}

impl Sizes {
    fn of(x: &[usize], weight: &[usize]) -> Result<Self> {
        let (&[batch, height, width, channels], &[taps, out_channels]) = (x, weight) else {
            bail!(
                "upsampled_conv3x3 takes (batch, height, width, channels) and (9 channels, out), got {x:?}, {weight:?}"
            );
        };
        if taps != 9 * channels || height == 0 || width == 0 {
            bail!("upsampled_conv3x3: a weight of {weight:?} does not fit {x:?}");
        }
        Ok(Self { batch, height, width, channels, out_channels })
    }

    /// What the outputs of a place see.
    fn patches(&self, place: usize) -> Patches {
        let Self { height, width, channels, .. } = *self;
        let shift = [place / 2, place % 2];
        Patches { height, width, channels, out_height: height, out_width: width, stride: 1, taps: 2, shift }
    }

    /// Numbers that one picture becomes.
    fn output(&self) -> usize {
        PLACES * self.height * self.width * self.out_channels
    }

    /// Numbers of the pictures that share a product, before and after.
    fn group(&self) -> (usize, usize) {
        let patches = self.patches(0);
        (patches.group() * patches.input(), patches.group() * self.output())
    }

    /// Numbers of the weight of one place.
    fn part(&self) -> usize {
        self.patches(0).size() * self.out_channels
    }

    /// The weights of all places, one after another.
    fn merge(&self, weight: &[f32]) -> Vec<f32> {
        let (block, mut merged) = (self.channels * self.out_channels, vec![0.0; PLACES * self.part()]);
        pairs(|place, four, nine| {
            let to = &mut merged[(4 * place + four) * block..][..block];
            to.iter_mut().zip(&weight[nine * block..]).for_each(|(t, w)| *t += w);
        });
        merged
    }

    /// The transpose of [`Sizes::merge`].
    fn spread(&self, merged: &[f32]) -> Vec<f32> {
        let block = self.channels * self.out_channels;
        let mut weight = vec![0.0; 9 * block];
        pairs(|place, four, nine| {
            let from = &merged[(4 * place + four) * block..][..block];
            weight[nine * block..][..block].iter_mut().zip(from).for_each(|(w, f)| *w += f);
        });
        weight
    }

    fn forward(&self, x: &[f32], weight: &[f32]) -> Vec<f32> {
        let ((from, to), merged) = (self.group(), self.merge(weight));
        let mut y = vec![0.0; self.batch * self.output()];
        y.par_chunks_mut(to).zip(x.par_chunks(from)).for_each_init(
            Buffers::default,
            |Buffers { rows, out }, (y, x)| {
                let m = x.len() / self.channels;
                out.resize(m * self.out_channels, 0.0);
                for (place, weight) in merged.chunks_exact(self.part()).enumerate() {
                    let patches = self.patches(place);
                    patches.unfold(x, rows);
                    matmul(out, rows, Order::Plain, weight, Order::Plain, m, patches.size(), self.out_channels, false);
                    for (out, at) in out.chunks_exact(self.out_channels).zip(self.pixels(place)) {
                        y[at..at + self.out_channels].copy_from_slice(out);
                    }
                }
            },
        );
        y
    }

    fn input_gradient(&self, weight: &[f32], dy: &[f32]) -> Vec<f32> {
        let ((from, to), merged) = (self.group(), self.merge(weight));
        let mut dx = vec![0.0; self.batch * self.patches(0).input()];
        dx.par_chunks_mut(from).zip(dy.par_chunks(to)).for_each_init(
            Buffers::default,
            |Buffers { rows, out }, (dx, dy)| {
                let m = dx.len() / self.channels;
                for (place, weight) in merged.chunks_exact(self.part()).enumerate() {
                    let patches = self.patches(place);
                    rows.resize(m * patches.size(), 0.0);
                    self.pick(place, dy, out);
                    matmul(
                        rows,
                        out,
                        Order::Plain,
                        weight,
                        Order::Transposed,
                        m,
                        self.out_channels,
                        patches.size(),
                        false,
                    );
                    patches.fold(rows, dx);
                }
            },
        );
        dx
    }

    fn weight_gradient(&self, x: &[f32], dy: &[f32]) -> Vec<f32> {
        let ((from, to), share) = (self.group(), self.batch.div_ceil(SHARDS).max(1));
        let partial: Vec<Vec<f32>> = x
            .par_chunks(share * self.patches(0).input())
            .zip(dy.par_chunks(share * self.output()))
            .map(|(x, dy)| {
                let (mut sum, Buffers { mut rows, mut out }) = (vec![0.0; PLACES * self.part()], Buffers::default());
                for (x, dy) in x.chunks(from).zip(dy.chunks(to)) {
                    let k = x.len() / self.channels;
                    for (place, sum) in sum.chunks_exact_mut(self.part()).enumerate() {
                        let patches = self.patches(place);
                        patches.unfold(x, &mut rows);
                        self.pick(place, dy, &mut out);
                        let m = patches.size();
                        matmul(sum, &rows, Order::Transposed, &out, Order::Plain, m, k, self.out_channels, true);
                    }
                }
                sum
            })
            .collect();
        self.spread(&sum_in_order(partial, PLACES * self.part()))
    }

    /// Where the pixels of one place begin in whole output pictures.
    fn pixels(&self, place: usize) -> impl Iterator<Item = usize> {
        let Self { width, out_channels, .. } = *self;
        (0..).map(move |p| {
            let (row, column) = (2 * (p / width) + place / 2, 2 * (p % width) + place % 2);
            (row * 2 * width + column) * out_channels
        })
    }

    /// The pixels of one place out of whole output pictures.
    fn pick(&self, place: usize, dy: &[f32], out: &mut Vec<f32>) {
        out.clear();
        for at in self.pixels(place).take(dy.len() / (PLACES * self.out_channels)) {
            out.extend_from_slice(&dy[at..at + self.out_channels]);
        }
    }
}

/// What a worker uses again.
#[derive(Default)]
struct Buffers {
    rows: Vec<f32>,
    out: Vec<f32>,
}

struct UpsampledConv;

impl CustomOp2 for UpsampledConv {
    fn name(&self) -> &'static str {
        "upsampled_conv3x3"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let sizes = Sizes::of(x_layout.dims(), weight_layout.dims())?;
        let (x, weight) = (floats(self.name(), x, x_layout)?, floats(self.name(), weight, weight_layout)?);
        let shape = (sizes.batch, 2 * sizes.height, 2 * sizes.width, sizes.out_channels);
        Ok((CpuStorage::F32(sizes.forward(x, weight)), Shape::from(shape)))
    }

    fn bwd(&self, x: &Tensor, weight: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let sizes = Sizes::of(x.dims(), weight.dims())?;
        let (dx, dw) = with_floats(self.name(), [x, weight, &dy.contiguous()?], |[x, weight, dy]| {
            Ok((sizes.input_gradient(weight, dy), sizes.weight_gradient(x, dy)))
        })?;
        let dw = Tensor::from_vec(dw, weight.shape(), weight.device())?;
        Ok((Some(Tensor::from_vec(dx, x.shape(), x.device())?), Some(dw)))
    }
}

/// Every pixel twice in both directions, then [`conv3x3`](super::image_ops::conv3x3) of stride 1.
///
/// # Shapes
/// `x` `(b, h, w, c)`, `weight` `(9 c, o)` -> `(b, 2 h, 2 w, o)`.
///
/// # Source
/// The sub-pixel form of Shi et al. 2016, read backwards.
pub fn upsampled_conv3x3(x: &Tensor, weight: &Tensor) -> std::result::Result<Tensor, Error> {
    Ok(x.apply_op2(weight, UpsampledConv)?)
}

#[cfg(test)]
mod tests {
    use super::super::image_ops::conv3x3;
    use super::super::ops::check::{agree, op, random};
    use super::*;

    fn upsample(x: &Tensor) -> Result<Tensor> {
        let &[b, h, w, c] = x.dims() else { bail!("four dimensions") };
        x.reshape((b, h, 1, w, 1, c))?.broadcast_as((b, h, 2, w, 2, c))?.reshape((b, 2 * h, 2 * w, c))
    }

    #[test]
    fn it_agrees_with_upsampling_first() {
        for (shape, out) in [([1, 1, 1, 2], 3), ([2, 3, 4, 3], 2), ([19, 2, 2, 2], 5), ([2, 4, 1, 1], 4)] {
            agree(
                "upsampled_conv3x3",
                &[&shape, &[9 * shape[3], out]],
                |x| op(upsampled_conv3x3(&x[0], &x[1])),
                |x| op(conv3x3(&upsample(&x[0])?.contiguous()?, &x[1], 1)),
            );
        }
    }

    #[test]
    fn gradients_add_up_where_a_tensor_is_used_twice() {
        let weight = random((9, 2), "weight");
        let twice = |y: Tensor, x: &Tensor| y.sum_all()? + (x.sqr()?.sum_all()? * 10.0)?;
        agree(
            "twice",
            &[&[1, 2, 2, 1]],
            |x| twice(op(upsampled_conv3x3(&x[0], &weight))?, &x[0]),
            |x| twice(op(conv3x3(&upsample(&x[0])?.contiguous()?, &weight, 1))?, &x[0]),
        );
    }

    #[test]
    fn a_weight_that_does_not_fit_is_refused() {
        let error = upsampled_conv3x3(&random((1, 4, 4, 3), "x"), &random((9, 2), "w"));
        assert!(error.is_err_and(|e| e.to_string().contains("does not fit")));
    }
}
