//! From token states to one vector: pooling, dense layers, normalisation.

use super::Error;
use super::bert::Hidden;
use super::weights::{Weights, file};
use crate::nn::kernel::{dot, gelu, vectorised};
use std::path::Path;

/// How token states become one vector.
///
/// # Source
/// sentence-transformers 6.2.0, `Pooling`. Differs: a sentence that is no longer than an excluded prompt is pooled
/// whole, where the original divides by zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// The first pooled token.
    Cls,
    /// The largest value of each feature.
    Max,
    /// The mean of each feature.
    Mean,
    /// The sum of each feature, over the root of the number of tokens.
    MeanSqrtLen,
    /// The mean weighted by the position, counted from 1 at the first token of the text, prompt included.
    WeightedMean,
    /// The last token.
    LastToken,
}

impl Mode {
    /// Name in new files, flag in old ones; in the order in which old files concatenate.
    pub(super) const ALL: [(&'static str, &'static str, Mode); 6] = [
        ("cls", "pooling_mode_cls_token", Mode::Cls),
        ("max", "pooling_mode_max_tokens", Mode::Max),
        ("mean", "pooling_mode_mean_tokens", Mode::Mean),
        ("mean_sqrt_len_tokens", "pooling_mode_mean_sqrt_len_tokens", Mode::MeanSqrtLen),
        ("weightedmean", "pooling_mode_weightedmean_tokens", Mode::WeightedMean),
        ("lasttoken", "pooling_mode_lasttoken", Mode::LastToken),
    ];

    /// The mode called `name`.
    pub(super) fn named(name: &str) -> Option<Mode> {
        Mode::ALL.iter().find(|(n, _, _)| *n == name).map(|(_, _, mode)| *mode)
    }

    /// Pools all tokens but the first `skip`.
    pub(super) fn pool(self, hidden: Hidden<'_>, skip: usize, out: &mut [f32]) {
        let len = hidden.len();
        let skip = if skip < len { skip } else { 0 };
        let n = (len - skip) as f32;
        let divide = |out: &mut [f32], by: f32| out.iter_mut().for_each(|v| *v /= by);
        out.fill(0.0);
        match self {
            Mode::Cls => hidden.fold(skip..skip + 1, out, |_, _, v| v),
            Mode::LastToken => hidden.fold(len - 1..len, out, |_, _, v| v),
            Mode::Max => {
                out.fill(f32::NEG_INFINITY);
                hidden.fold(skip..len, out, |acc, _, v| acc.max(v));
            }
            Mode::Mean => {
                hidden.fold(skip..len, out, |acc, _, v| acc + v);
                divide(out, n);
            }
            Mode::MeanSqrtLen => {
                hidden.fold(skip..len, out, |acc, _, v| acc + v);
                divide(out, n.sqrt());
            }
            Mode::WeightedMean => {
                hidden.fold(skip..len, out, |acc, place, v| acc + v * (place + 1) as f32);
                divide(out, (skip + 1..=len).map(|w| w as f32).sum());
            }
        }
    }
}

/// A module after pooling.
#[derive(Debug)]
pub(super) enum Step {
    /// A dense layer on the sentence vector.
    Dense(Dense),
    /// To unit length; a zero vector stays zero.
    Normalize,
}

impl Step {
    /// Applies the module to one vector.
    pub(super) fn apply(&self, mut vector: Vec<f32>) -> Vec<f32> {
        match self {
            Step::Dense(dense) => dense.apply(&vector),
            Step::Normalize => {
                normalize(&mut vector);
                vector
            }
        }
    }
}

/// Scales `vector` to unit length; shorter than `1e-12`, it is only divided by that.
pub(super) fn normalize(vector: &mut [f32]) {
    let norm = vectorised(
        #[inline(always)]
        || dot(vector, vector),
    )
    .sqrt()
    .max(1e-12);
    for v in vector {
        *v /= norm;
    }
}

/// `activation(W x + b)`, with or without the input added.
#[derive(Debug)]
pub(super) struct Dense {
    weight: Vec<f32>,
    bias: Option<Vec<f32>>,
    activation: Activation,
    residual: Residual,
    inputs: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Activation {
    Identity,
    Tanh,
    Relu,
    Gelu,
    Sigmoid,
}

#[derive(Debug)]
enum Residual {
    None,
    Input,
    Projected(Vec<f32>),
}

#[derive(serde::Deserialize)]
struct DenseConfig {
    in_features: usize,
    out_features: usize,
    #[serde(default = "yes")]
    bias: bool,
    activation_function: Option<String>,
    #[serde(default)]
    use_residual: bool,
    module_input_name: Option<String>,
    module_output_name: Option<String>,
}

fn yes() -> bool {
    true
}

impl Dense {
    /// Reads the module's folder; `inputs` is what the module before it gives.
    pub(super) fn open(folder: &Path, inputs: usize) -> Result<Self, Error> {
        let path = folder.join("config.json");
        let config: DenseConfig = super::folder::json(&path)?;
        for name in [&config.module_input_name, &config.module_output_name].into_iter().flatten() {
            if name != "sentence_embedding" {
                return Err(file(&path, format!("Dense on `{name}` is not supported; supported: sentence_embedding")));
            }
        }
        if config.in_features != inputs || config.out_features == 0 {
            let (i, o) = (config.in_features, config.out_features);
            return Err(file(&path, format!("Dense of {i} -> {o} features follows a module of {inputs}")));
        }
        let activation = match config.activation_function.as_deref() {
            None | Some("torch.nn.modules.activation.Tanh") => Activation::Tanh,
            Some("torch.nn.modules.linear.Identity") => Activation::Identity,
            Some("torch.nn.modules.activation.ReLU") => Activation::Relu,
            Some("torch.nn.modules.activation.GELU") => Activation::Gelu,
            Some("torch.nn.modules.activation.Sigmoid") => Activation::Sigmoid,
            Some(other) => {
                let known = "Identity, Tanh, ReLU, GELU, Sigmoid of torch.nn.modules";
                return Err(file(&path, format!("activation `{other}` is not supported; supported: {known}")));
            }
        };
        let weights = Weights::open(folder)?;
        let shape = [config.out_features, inputs];
        let residual = match (config.use_residual, inputs == config.out_features) {
            (false, _) => Residual::None,
            (true, true) => Residual::Input,
            (true, false) => Residual::Projected(weights.tensor("residual.weight", &shape)?),
        };
        let bias = if config.bias { Some(weights.tensor("linear.bias", &shape[..1])?) } else { None };
        Ok(Self { weight: weights.tensor("linear.weight", &shape)?, bias, activation, residual, inputs })
    }

    /// How many coordinates come out.
    pub(super) fn outputs(&self) -> usize {
        self.weight.len() / self.inputs
    }

    fn apply(&self, x: &[f32]) -> Vec<f32> {
        let mut y = product(&self.weight, x);
        if let Some(bias) = &self.bias {
            y.iter_mut().zip(bias).for_each(|(y, b)| *y += b);
        }
        for v in &mut y {
            *v = match self.activation {
                Activation::Identity => *v,
                Activation::Tanh => v.tanh(),
                Activation::Relu => v.max(0.0),
                Activation::Gelu => gelu(*v),
                Activation::Sigmoid => 1.0 / (1.0 + (-*v).exp()),
            };
        }
        let add = |y: &mut [f32], r: &[f32]| y.iter_mut().zip(r).for_each(|(y, r)| *y += r);
        match &self.residual {
            Residual::None => {}
            Residual::Input => add(&mut y, x),
            Residual::Projected(weight) => add(&mut y, &product(weight, x)),
        }
        y
    }
}

/// `W x` for a row-major `W`.
fn product(weight: &[f32], x: &[f32]) -> Vec<f32> {
    let mut y = vec![0.0; weight.len() / x.len()];
    vectorised(
        #[inline(always)]
        || {
            for (y, row) in y.iter_mut().zip(weight.chunks_exact(x.len())) {
                *y = dot(row, x);
            }
        },
    );
    y
}
