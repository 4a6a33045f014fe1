//! Training small networks that are written as tensor expressions: named parameters in one arena, `AdamW`, schedule.

use super::adamw::{AdamW, adamw};
use super::ops::with_floats;
use super::trainer::Training;
use super::{Error, kernel};
use crate::seed;
use candle_core::{Device, Tensor, Var};
use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Elements of the arena that are updated together.
const BLOCK: usize = 1 << 15;

/// The parameters of a network: tensors one after another in one list of numbers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Params {
    shapes: Vec<Vec<usize>>,
    values: Vec<f32>,
}

impl Params {
    /// Adds a weight of normal values of standard deviation `scale`, and returns its number.
    pub fn normal(&mut self, shape: &[usize], scale: f64, rng: &mut seed::Stream) -> usize {
        let n: usize = shape.iter().product();
        self.values.extend((0..n).map(|_| {
            let z: f64 = StandardNormal.sample(rng);
            (z * scale) as f32
        }));
        self.shapes.push(shape.to_vec());
        self.shapes.len() - 1
    }

    /// Adds a tensor of one value, and returns its number.
    pub fn constant(&mut self, shape: &[usize], value: f32) -> usize {
        self.values.resize(self.values.len() + shape.iter().product::<usize>(), value);
        self.shapes.push(shape.to_vec());
        self.shapes.len() - 1
    }

    /// How many numbers there are.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// True without parameters.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Shape and values of each tensor, in the order added.
    pub fn parts(&self) -> impl Iterator<Item = (&[usize], &[f32])> {
        let mut at = 0;
        self.shapes.iter().map(move |shape| {
            let n: usize = shape.iter().product();
            at += n;
            (shape.as_slice(), &self.values[at - n..at])
        })
    }

    /// Replaces all values, in the order of [`Params::parts`].
    ///
    /// # Errors
    /// [`Error::Shape`] when there are more or fewer, or one is not finite.
    pub fn set(&mut self, values: Vec<f32>) -> Result<(), Error> {
        if values.len() != self.values.len() || values.iter().any(|v| !v.is_finite()) {
            let (got, want) = (values.len(), self.values.len());
            return Err(Error::Shape(format!("{got} weights for a network of {want}, or one that is not finite")));
        }
        self.values = values;
        Ok(())
    }

    /// All values in order.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The tensors, in the order added.
    pub fn tensors(&self) -> Result<Vec<Tensor>, Error> {
        self.parts().map(|(shape, values)| Ok(Tensor::from_slice(values, shape, &Device::Cpu)?)).collect()
    }
}

/// A header and parameters as bytes that notice damage: length, JSON, little-endian `f32`, BLAKE3.
pub fn seal(header: &impl Serialize, params: &Params) -> Vec<u8> {
    let header = serde_json::to_vec(header).expect("numbers and strings");
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header);
    bytes.extend(params.values().iter().flat_map(|v| v.to_le_bytes()));
    let seal = blake3::hash(&bytes);
    bytes.extend(seal.as_bytes());
    bytes
}

/// `None` when the bytes are not what [`seal`] wrote.
pub fn unseal<H: DeserializeOwned>(bytes: &[u8]) -> Option<(H, Vec<f32>)> {
    let (body, seal) = bytes.split_at_checked(bytes.len().checked_sub(32)?)?;
    if blake3::hash(body).as_bytes() != seal {
        return None;
    }
    let (length, rest) = body.split_first_chunk::<8>()?;
    let (header, values) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
    let (values, _) = values.as_chunks::<4>();
    Some((serde_json::from_slice(header).ok()?, values.iter().map(|v| f32::from_le_bytes(*v)).collect()))
}

/// Parameters in training.
#[derive(Debug, Clone)]
pub struct Fitting {
    params: Params,
    training: Training,
    step: u64,
    m: Vec<f32>,
    v: Vec<f32>,
    ema: Vec<f32>,
}

impl Fitting {
    /// Starts training.
    ///
    /// # Errors
    /// [`Error::Config`] when `training` does not check.
    pub fn new(params: Params, training: Training) -> Result<Self, Error> {
        training.check()?;
        let n = params.len();
        Ok(Self { ema: params.values.clone(), m: vec![0.0; n], v: vec![0.0; n], step: 0, params, training })
    }

    /// One step down the gradient of `loss`, which is given the parameters; returns the loss before it.
    ///
    /// # Errors
    /// [`Error::NotFinite`] when the loss or the gradient leaves the real numbers; what `loss` returns.
    pub fn step(&mut self, loss: impl FnOnce(&[Tensor]) -> Result<Tensor, Error>) -> Result<f64, Error> {
        let vars: Vec<Var> =
            self.params.tensors()?.iter().map(Var::from_tensor).collect::<candle_core::Result<Vec<_>>>()?;
        let tensors: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
        let loss = loss(&tensors)?;
        let grads = loss.backward()?;
        let mut gradient = Vec::with_capacity(self.params.len());
        for var in &vars {
            match grads.get(var) {
                Some(grad) => with_floats("gradient", [&grad.contiguous()?], |[grad]| {
                    gradient.extend_from_slice(grad);
                    Ok(())
                })?,
                None => gradient.resize(gradient.len() + var.elem_count(), 0.0),
            }
        }
        let value = f64::from(loss.to_scalar::<f32>()?);
        let norm =
            gradient.chunks(BLOCK).map(|g| f64::from(kernel::vectorised(|| kernel::dot(g, g)))).sum::<f64>().sqrt();
        if !value.is_finite() || !norm.is_finite() {
            return Err(Error::NotFinite { step: self.step as usize });
        }
        let (lr, t) = (self.training.lr_at(self.step), self.step as f64);
        self.step += 1;
        let average = match self.training.ema_decay {
            0.0 => 0.0,
            decay => decay.min((1.0 + t) / (10.0 + t)),
        };
        let clip = (self.training.clip_norm / norm.max(1e-12)).min(1.0);
        let update = AdamW::update(&self.training.adamw, self.step, lr, true, clip, average);
        let blocks = self.params.values.par_chunks_mut(BLOCK).zip(self.m.par_chunks_mut(BLOCK));
        let blocks = blocks.zip(self.v.par_chunks_mut(BLOCK)).zip(self.ema.par_chunks_mut(BLOCK));
        blocks.zip(gradient.par_chunks(BLOCK)).for_each(|((((p, m), v), ema), g)| adamw(p, m, v, ema, g, update));
        Ok(value)
    }

    /// The averaged parameters.
    pub fn averaged(&self) -> Params {
        Params { shapes: self.params.shapes.clone(), values: self.ema.clone() }
    }

    /// The parameters as they are.
    pub fn params(&self) -> &Params {
        &self.params
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_fitted_and_a_parameter_without_a_use_stays() {
        let mut rng = seed::stream(1, "fitting", "line");
        let mut params = Params::default();
        let (slope, offset) = (params.normal(&[2, 1], 0.1, &mut rng), params.constant(&[1], 0.0));
        params.constant(&[3], 7.0);
        let x: Vec<f32> = (0..200).map(|i| (i as f32 * 0.37).sin()).collect();
        let y: Vec<f32> = x.chunks(2).map(|x| 3.0 * x[0] - 2.0 * x[1] + 0.5).collect();
        let (x, y) = (Tensor::from_vec(x, (100, 2), &Device::Cpu), Tensor::from_vec(y, (100, 1), &Device::Cpu));
        let (x, y) = (x.expect("a tensor"), y.expect("a tensor"));
        let adamw = AdamW { weight_decay: 0.0, ..AdamW::default() };
        let training =
            Training { lr: 0.05, warmup_steps: 5, total_steps: 800, ema_decay: 0.9, adamw, ..Training::default() };
        let mut fitting = Fitting::new(params, training).expect("a valid training");
        let mut last = f64::INFINITY;
        for _ in 0..800 {
            last = fitting
                .step(|p| Ok((x.matmul(&p[slope])?.broadcast_add(&p[offset])? - &y)?.sqr()?.mean_all()?))
                .expect("a finite loss");
        }
        assert!(last < 1e-4, "{last}");
        let found: Vec<f32> = fitting.averaged().values().to_vec();
        for (found, truth) in found.iter().zip([3.0, -2.0, 0.5, 7.0, 7.0, 7.0]) {
            assert!((found - truth).abs() < 0.02, "{found} against {truth}");
        }
    }

    #[test]
    fn a_loss_that_is_not_finite_ends_the_training() {
        let mut params = Params::default();
        params.constant(&[1], 0.0);
        let mut fitting = Fitting::new(params, Training::default()).expect("a valid training");
        let error = fitting.step(|p| Ok(p[0].log()?.sum_all()?)).expect_err("the logarithm of 0");
        assert!(matches!(error, Error::NotFinite { step: 0 }), "{error}");
    }

    #[test]
    fn weights_of_another_network_are_refused() {
        let mut params = Params::default();
        params.constant(&[2], 0.0);
        assert!(params.set(vec![1.0]).is_err() && params.set(vec![1.0, f32::NAN]).is_err());
        assert!(params.set(vec![1.0, 2.0]).is_ok());
    }
}
