//! The fused kernels as differentiable candle operations, for white-box attacks and references on autograd.
//!
//! candle's own fused layer normalisation and softmax have no backward and cut the graph without a word; these have exact
//! ones. Each operation keeps only its inputs and computes the rest again. All tensors are `f32`, contiguous, on the CPU;
//! an offset view is fine, anything else is an error. A backward that yields several gradients makes them in one pass.

use super::Error;
use super::attention::{Heads, Scratch};
use super::cross_entropy;
use super::rows::{self, Moments};
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape, Storage, Tensor, bail};
use rayon::prelude::*;

type Output = Result<(CpuStorage, Shape)>;

/// Rows that one worker takes at a time. Fixed: it groups sums, which must not depend on the number of threads.
const BLOCK: usize = 4096;

/// The sum of vectors, in their order.
pub(super) fn sum_in_order(parts: Vec<Vec<f32>>, len: usize) -> Vec<f32> {
    let mut total = vec![0.0; len];
    for part in parts {
        total.iter_mut().zip(part).for_each(|(t, p)| *t += p);
    }
    total
}

/// The elements of a contiguous `f32` tensor.
pub(super) fn floats<'a>(op: &str, storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let CpuStorage::F32(data) = storage else {
        bail!("{op} takes f32 tensors, got {:?}; convert with `to_dtype`", storage.dtype());
    };
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&data[start..end]),
        None => bail!("{op} takes contiguous tensors; call `contiguous()` first"),
    }
}

/// Runs `body` on the elements of contiguous tensors.
pub(super) fn with_floats<const N: usize, R>(
    op: &str,
    tensors: [&Tensor; N],
    body: impl FnOnce([&[f32]; N]) -> Result<R>,
) -> Result<R> {
    let guards = tensors.map(Tensor::storage_and_layout);
    let mut slices: [&[f32]; N] = [&[]; N];
    for (slice, (storage, layout)) in slices.iter_mut().zip(&guards) {
        let Storage::Cpu(storage) = &**storage else { bail!("{op} runs on the CPU only") };
        *slice = floats(op, storage, layout)?;
    }
    body(slices)
}

fn width(op: &str, x: &Shape, d: usize) -> Result<()> {
    if d == 0 || x.dims().last() != Some(&d) {
        bail!("{op}: rows of {:?} do not have the width {d} of the parameters", x.dims());
    }
    Ok(())
}

struct LayerNorm {
    eps: f32,
}

impl CustomOp3 for LayerNorm {
    fn name(&self) -> &'static str {
        "layer_norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        gain: &CpuStorage,
        gain_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Output {
        let (x, gain) = (floats(self.name(), x, x_layout)?, floats(self.name(), gain, gain_layout)?);
        let bias = floats(self.name(), bias, bias_layout)?;
        width(self.name(), x_layout.shape(), gain.len())?;
        width(self.name(), bias_layout.shape(), gain.len())?;
        let mut y = vec![0.0; x.len()];
        let block = BLOCK * gain.len();
        y.par_chunks_mut(block).zip(x.par_chunks(block)).for_each(|(y, x)| {
            rows::layer_norm(x, gain, bias, self.eps, y, &mut vec![Moments::default(); x.len() / gain.len()]);
        });
        Ok((CpuStorage::F32(y), x_layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        gain: &Tensor,
        bias: &Tensor,
        _y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (dx, dgain, dbias) =
            with_floats(self.name(), [x, gain, bias, &dy.contiguous()?], |[x, gain, bias, dy]| {
                let mut dx = vec![0.0; x.len()];
                let (d, block) = (gain.len(), BLOCK * gain.len());
                let blocks = dx.par_chunks_mut(block).zip(x.par_chunks(block)).zip(dy.par_chunks(block));
                let partial: Vec<Vec<f32>> = blocks
                    .map(|((dx, x), dy)| {
                        let mut moments = vec![Moments::default(); x.len() / d];
                        rows::layer_norm(x, gain, bias, self.eps, dx, &mut moments);
                        dx.fill(0.0);
                        let mut sums = vec![0.0; 2 * d];
                        let (dgain, dbias) = sums.split_at_mut(d);
                        rows::layer_norm_backward(x, gain, &moments, dy, dx, dgain, dbias);
                        sums
                    })
                    .collect();
                let mut dgain = sum_in_order(partial, 2 * d);
                let dbias = dgain.split_off(d);
                Ok((dx, dgain, dbias))
            })?;
        let tensor = |data: Vec<f32>, like: &Tensor| Tensor::from_vec(data, like.shape(), like.device());
        Ok((Some(tensor(dx, x)?), Some(tensor(dgain, gain)?), Some(tensor(dbias, bias)?)))
    }
}

/// Layer normalisation over the last dimension; see [`rows::layer_norm`].
///
/// # Shapes
/// `x` `(.., d)`, `gain` and `bias` `(d)` -> `(.., d)`.
pub fn layer_norm(x: &Tensor, gain: &Tensor, bias: &Tensor, eps: f32) -> std::result::Result<Tensor, Error> {
    Ok(x.apply_op3(gain, bias, LayerNorm { eps })?)
}

struct BiasGelu;

impl CustomOp2 for BiasGelu {
    fn name(&self) -> &'static str {
        "bias_gelu"
    }

    fn cpu_fwd(&self, x: &CpuStorage, x_layout: &Layout, bias: &CpuStorage, bias_layout: &Layout) -> Output {
        let (x, bias) = (floats(self.name(), x, x_layout)?, floats(self.name(), bias, bias_layout)?);
        width(self.name(), x_layout.shape(), bias.len())?;
        let mut y = vec![0.0; x.len()];
        let block = BLOCK * bias.len();
        y.par_chunks_mut(block).zip(x.par_chunks(block)).for_each(|(y, x)| rows::bias_gelu(x, bias, y));
        Ok((CpuStorage::F32(y), x_layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, bias: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (dx, dbias) = with_floats(self.name(), [x, bias, &dy.contiguous()?], |[x, bias, dy]| {
            let mut dx = vec![0.0; x.len()];
            let block = BLOCK * bias.len();
            let blocks = dx.par_chunks_mut(block).zip(x.par_chunks(block)).zip(dy.par_chunks(block));
            let partial: Vec<Vec<f32>> = blocks
                .map(|((dx, x), dy)| {
                    let mut derivative = x.to_vec();
                    rows::bias_gelu_keeping_derivative(&mut derivative, bias, dx);
                    dx.copy_from_slice(dy);
                    let mut dbias = vec![0.0; bias.len()];
                    rows::bias_gelu_backward(&derivative, dx, &mut dbias);
                    dbias
                })
                .collect();
            Ok((dx, sum_in_order(partial, bias.len())))
        })?;
        let dx = Tensor::from_vec(dx, x.shape(), x.device())?;
        Ok((Some(dx), Some(Tensor::from_vec(dbias, bias.shape(), bias.device())?)))
    }
}

/// `GELU(x + bias)` in the erf form; see [`super::kernel::gelu`].
///
/// # Shapes
/// `x` `(.., d)`, `bias` `(d)` -> `(.., d)`.
pub fn bias_gelu(x: &Tensor, bias: &Tensor) -> std::result::Result<Tensor, Error> {
    Ok(x.apply_op2(bias, BiasGelu)?)
}

struct Sigmoid;

impl CustomOp1 for Sigmoid {
    fn name(&self) -> &'static str {
        "sigmoid"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Output {
        let x = floats(self.name(), x, layout)?;
        let mut y = vec![0.0; x.len()];
        y.par_chunks_mut(BLOCK).zip(x.par_chunks(BLOCK)).for_each(|(y, x)| rows::sigmoid(x, y));
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let dx = with_floats(self.name(), [y, &dy.contiguous()?], |[y, dy]| {
            let mut dx = vec![0.0; y.len()];
            let blocks = dx.par_chunks_mut(BLOCK).zip(y.par_chunks(BLOCK)).zip(dy.par_chunks(BLOCK));
            blocks.for_each(|((dx, y), dy)| rows::sigmoid_backward(y, dy, dx));
            Ok(dx)
        })?;
        Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
    }
}

/// `1 / (1 + e^-x)`; candle's own has no gradient.
pub fn sigmoid(x: &Tensor) -> std::result::Result<Tensor, Error> {
    Ok(x.apply_op1(Sigmoid)?)
}

struct Softmax;

impl CustomOp1 for Softmax {
    fn name(&self) -> &'static str {
        "softmax"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Output {
        let mut p = floats(self.name(), x, layout)?.to_vec();
        let Some(&d) = layout.dims().last().filter(|&&d| d > 0) else { bail!("softmax needs a last dimension") };
        rows::softmax(&mut p, d);
        Ok((CpuStorage::F32(p), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, p: &Tensor, dp: &Tensor) -> Result<Option<Tensor>> {
        let dx = with_floats(self.name(), [p, &dp.contiguous()?], |[p, dp]| {
            let mut dx = vec![0.0; p.len()];
            rows::softmax_backward(p, dp, &mut dx, x.dims()[x.rank() - 1]);
            Ok(dx)
        })?;
        Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
    }
}

/// Softmax over the last dimension; see [`rows::softmax`].
pub fn softmax(x: &Tensor) -> std::result::Result<Tensor, Error> {
    Ok(x.apply_op1(Softmax)?)
}

struct Attention(Heads);

impl CustomOp1 for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(&self, qkv: &CpuStorage, layout: &Layout) -> Output {
        let (shape, qkv) = (self.0, floats(self.name(), qkv, layout)?);
        let d = shape.width();
        let &[b, t, wide] = layout.dims() else { bail!("attention takes (batch, positions, 3 d)") };
        if t == 0 || wide != 3 * d || d == 0 {
            bail!("attention: {:?} is not (batch, positions, {})", layout.dims(), 3 * d);
        }
        let mut y = vec![0.0; b * t * d];
        y.par_chunks_mut(t * d)
            .zip(qkv.par_chunks(3 * t * d))
            .for_each_init(Scratch::default, |scratch, (y, qkv)| shape.forward(qkv, y, scratch));
        Ok((CpuStorage::F32(y), Shape::from((b, t, d))))
    }

    fn bwd(&self, qkv: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let shape = self.0;
        let each = qkv.dims()[1] * shape.width();
        let d_qkv = with_floats(self.name(), [qkv, &dy.contiguous()?], |[qkv, dy]| {
            let mut d_qkv = vec![0.0; qkv.len()];
            d_qkv
                .par_chunks_mut(3 * each)
                .zip(qkv.par_chunks(3 * each))
                .zip(dy.par_chunks(each))
                .for_each_init(Scratch::default, |scratch, ((d_qkv, qkv), dy)| shape.backward(qkv, dy, d_qkv, scratch));
            Ok(d_qkv)
        })?;
        Ok(Some(Tensor::from_vec(d_qkv, qkv.shape(), qkv.device())?))
    }
}

/// Multi-head attention of every sequence of a batch; see [`Heads::forward`].
///
/// # Shapes
/// `qkv` `(batch, positions, 3 d)` -> `(batch, positions, d)`, `d = shape.width()`.
pub fn attention(qkv: &Tensor, shape: Heads) -> std::result::Result<Tensor, Error> {
    Ok(qkv.apply_op1(Attention(shape))?)
}

struct CrossEntropy {
    targets: Vec<u32>,
    weights: Vec<f32>,
    smoothing: f32,
}

impl CustomOp1 for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross_entropy"
    }

    fn cpu_fwd(&self, z: &CpuStorage, layout: &Layout) -> Output {
        let mut z = floats(self.name(), z, layout)?.to_vec();
        let &[n, vocab] = layout.dims() else { bail!("cross_entropy takes (rows, vocab)") };
        if n != self.targets.len() || n != self.weights.len() {
            bail!("cross_entropy: {n} rows, {} targets, {} weights", self.targets.len(), self.weights.len());
        }
        if let Some(target) = self.targets.iter().find(|&&target| target as usize >= vocab) {
            bail!("cross_entropy: target {target} is not below {vocab}");
        }
        let loss = cross_entropy::cross_entropy(&mut z, &self.targets, &self.weights, self.smoothing);
        Ok((CpuStorage::F32(vec![loss as f32]), Shape::from(())))
    }

    fn bwd(&self, z: &Tensor, _loss: &Tensor, upstream: &Tensor) -> Result<Option<Tensor>> {
        let upstream: f32 = upstream.to_scalar()?;
        let weights: Vec<f32> = self.weights.iter().map(|weight| weight * upstream).collect();
        let dz = with_floats(self.name(), [z], |[z]| {
            let mut dz = z.to_vec();
            cross_entropy::cross_entropy(&mut dz, &self.targets, &weights, self.smoothing);
            Ok(dz)
        })?;
        Ok(Some(Tensor::from_vec(dz, z.shape(), z.device())?))
    }
}

/// Weighted sum of the cross-entropies of rows of logits, a scalar; see [`cross_entropy::cross_entropy`].
///
/// The mean over unmasked rows has `weights[r] = mask[r] / sum(mask)`.
///
/// # Shapes
/// `z` `(n, vocab)`, `targets` and `weights` `(n)`.
pub fn cross_entropy(
    z: &Tensor,
    targets: &[u32],
    weights: &[f32],
    smoothing: f32,
) -> std::result::Result<Tensor, Error> {
    let op = CrossEntropy { targets: targets.to_vec(), weights: weights.to_vec(), smoothing };
    Ok(z.apply_op1(op)?)
}

/// Comparing an operation with a plain form of it, for the tests of every operation.
#[cfg(test)]
pub(super) mod check {
    use super::Error;
    use crate::seed;
    use candle_core::{Device, Result, Shape, Tensor, Var};
    use rand::RngExt;

    pub(in super::super) fn random(shape: impl Into<Shape>, name: &str) -> Tensor {
        let (shape, mut rng) = (shape.into(), seed::stream(3, "ops tests", name));
        let data = (0..shape.elem_count()).map(|_| rng.random_range(-1.5..1.5_f32)).collect();
        Tensor::from_vec(data, shape, &Device::Cpu).expect("a tensor")
    }

    fn worst(a: &Tensor, b: &Tensor) -> f32 {
        assert_eq!(a.shape(), b.shape());
        (a - b).and_then(|d| d.abs()?.flatten_all()?.max(0)?.to_scalar()).expect("tensors of one shape")
    }

    /// Checks value and gradients of `fused` against `plain`, and the gradients against central differences.
    ///
    /// Inputs are views with an offset; the upstream gradient is not 1 and, above rank 1, not contiguous.
    pub(in super::super) fn agree(
        what: &str,
        shapes: &[&[usize]],
        fused: impl Fn(&[Tensor]) -> Result<Tensor>,
        plain: impl Fn(&[Tensor]) -> Result<Tensor>,
    ) {
        let check = || -> Result<()> {
            let vars: Vec<Var> = shapes
                .iter()
                .enumerate()
                .map(|(i, shape)| Var::from_tensor(&random([&[2], *shape].concat(), &format!("{what} {i}"))))
                .collect::<Result<_>>()?;
            let views = || vars.iter().map(|var| var.get(1)).collect::<Result<Vec<_>>>();
            let upstream = |y: &Tensor| -> Result<Tensor> {
                let y = if y.rank() < 2 { y.clone() } else { y.t()? };
                (&y * random(y.shape().clone(), "upstream"))?.sum_all()
            };
            let (value, reference) = (fused(&views()?)?, plain(&views()?)?);
            assert!(worst(&value, &reference) < 1e-5, "{what}: value");
            let (grads, wanted) = (upstream(&value)?.backward()?, upstream(&reference)?.backward()?);
            for (i, var) in vars.iter().enumerate() {
                let grad = grads.get(var).unwrap_or_else(|| panic!("{what}: input {i} has a gradient"));
                let reference = wanted.get(var).expect("the plain form is differentiable");
                assert!(worst(grad, reference) < 2e-5, "{what}: gradient {i}, {}", worst(grad, reference));
                let size: f32 = grad.sqr()?.sum_all()?.sqrt()?.to_scalar()?;
                let (at, h) = (var.as_tensor().copy()?, 1e-2_f64);
                let mut ends = [0.0_f32; 2];
                for (end, h) in ends.iter_mut().zip([h, -h]) {
                    var.set(&(&at + (grad * (h / f64::from(size).max(1e-9)))?)?)?;
                    *end = upstream(&fused(&views()?)?)?.to_scalar()?;
                }
                var.set(&at)?;
                let numeric = f64::from(ends[0] - ends[1]) / (2.0 * h);
                let error = (numeric - f64::from(size)).abs();
                assert!(error < 5e-3 * f64::from(size) + 1e-3, "{what}: input {i}, {numeric} against {size}");
            }
            Ok(())
        };
        check().expect("tensors of fitting shapes");
    }

    pub(in super::super) fn op(result: std::result::Result<Tensor, Error>) -> Result<Tensor> {
        result.map_err(candle_core::Error::wrap)
    }
}

#[cfg(test)]
mod tests {
    use super::check::{agree, op, random};
    use super::*;
    use candle_core::{D, Device, Var};

    #[test]
    fn layer_norm_agrees_with_plain_operations() {
        for shape in [&[1, 7][..], &[5, 16], &[2, 3, 33]] {
            let d = &shape[shape.len() - 1..];
            agree(
                "layer_norm",
                &[shape, d, d],
                |x| op(layer_norm(&x[0], &x[1], &x[2], 1e-5)),
                |x| {
                    let c = x[0].broadcast_sub(&x[0].mean_keepdim(D::Minus1)?)?;
                    let h = c.broadcast_div(&(c.sqr()?.mean_keepdim(D::Minus1)? + 1e-5)?.sqrt()?)?;
                    h.broadcast_mul(&x[1])?.broadcast_add(&x[2])
                },
            );
        }
    }

    #[test]
    fn sigmoid_agrees_with_plain_operations() {
        let plain = |x: &[Tensor]| (((&x[0] * 0.5)?.tanh()? + 1.0)? * 0.5)?.contiguous();
        agree("sigmoid", &[&[3, 7]], |x| op(sigmoid(&x[0])), plain);
    }

    #[test]
    fn bias_gelu_agrees_with_plain_operations() {
        for shape in [&[1, 5][..], &[4, 16], &[2, 3, 19]] {
            let d = &shape[shape.len() - 1..];
            let fused = |x: &[Tensor]| op(bias_gelu(&x[0], &x[1]));
            agree("bias_gelu", &[shape, d], fused, |x| x[0].broadcast_add(&x[1])?.gelu_erf());
        }
    }

    #[test]
    fn softmax_agrees_with_plain_operations() {
        for shape in [&[1, 2][..], &[4, 16], &[2, 3, 19]] {
            agree("softmax", &[shape], |x| op(softmax(&x[0])), |x| candle_nn::ops::softmax(&x[0], D::Minus1));
        }
    }

    #[test]
    fn attention_agrees_with_plain_operations() {
        for causal in [true, false] {
            for (b, t, heads, head_dim) in [(1, 1, 1, 4), (3, 5, 2, 3), (2, 20, 2, 16)] {
                let shape = Heads { heads, head_dim, causal };
                let d = shape.width();
                let plain = |x: &[Tensor]| {
                    let part = |i: usize| {
                        x[0].narrow(2, i * d, d)?.reshape((b, t, heads, head_dim))?.transpose(1, 2)?.contiguous()
                    };
                    let scores = (part(0)?.matmul(&part(1)?.t()?.contiguous()?)? / (head_dim as f64).sqrt())?;
                    let hidden = (0..t * t).map(|at| if causal && at % t > at / t { f32::NEG_INFINITY } else { 0.0 });
                    let hidden = Tensor::from_iter(hidden, &Device::Cpu)?.reshape((1, 1, t, t))?;
                    let p = candle_nn::ops::softmax(&scores.broadcast_add(&hidden)?, D::Minus1)?;
                    p.matmul(&part(2)?)?.transpose(1, 2)?.reshape((b, t, d))
                };
                agree("attention", &[&[b, t, 3 * d]], |x| op(attention(&x[0], shape)), plain);
            }
        }
    }

    #[test]
    fn cross_entropy_agrees_with_plain_operations() {
        for (n, vocab) in [(1, 3), (4, 16), (5, 21)] {
            for smoothing in [0.0, 0.1] {
                let targets: Vec<u32> = (0..n as u32).map(|i| (i * 5 + 1) % vocab as u32).collect();
                let weights: Vec<f32> = (0..n).map(|i| if i == 1 { 0.0 } else { 0.3 + i as f32 }).collect();
                let plain = |x: &[Tensor]| {
                    let log_p = candle_nn::ops::log_softmax(&x[0], D::Minus1)?;
                    let y = Tensor::from_slice(&targets, (n, 1), &Device::Cpu)?;
                    let hit = (log_p.gather(&y, 1)?.squeeze(1)? * f64::from(1.0 - smoothing))?;
                    let each = (hit + (log_p.mean(1)? * f64::from(smoothing))?)?;
                    (each * Tensor::from_slice(&weights, n, &Device::Cpu)?)?.sum_all()?.neg()
                };
                let fused = |x: &[Tensor]| op(cross_entropy(&x[0], &targets, &weights, smoothing));
                agree("cross_entropy", &[&[n, vocab]], fused, plain);
            }
        }
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        let x = random((3, 4), "x");
        let cases = [
            (softmax(&x.t().expect("a matrix")), "contiguous"),
            (bias_gelu(&x, &random(3, "b")), "width 3"),
            (softmax(&x.to_dtype(candle_core::DType::F64).expect("a conversion")), "f32"),
            (cross_entropy(&x, &[0, 1, 4], &[1.0; 3], 0.0), "target 4"),
            (attention(&x.unsqueeze(0).expect("a matrix"), Heads { heads: 1, head_dim: 2, causal: true }), "(batch"),
        ];
        for (result, why) in cases {
            let error = result.expect_err(why).to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    /// When this fails after an upgrade of candle, its own operations have learned to differentiate: reconsider ours.
    #[test]
    fn the_stock_fused_operations_still_cut_the_graph() {
        let x = Var::from_tensor(&random((2, 4), "x")).expect("a variable");
        let ones = Tensor::ones(4, candle_core::DType::F32, &Device::Cpu).expect("a tensor");
        let norm = candle_nn::LayerNorm::new(ones.clone(), ones, 1e-5);
        let stock = [candle_nn::Module::forward(&norm, x.as_tensor()), candle_nn::ops::softmax_last_dim(x.as_tensor())];
        for y in stock {
            let grads = y.and_then(|y| y.sqr()?.sum_all()?.backward());
            assert!(grads.is_ok_and(|grads| grads.get(&x).is_none()));
        }
    }
}
