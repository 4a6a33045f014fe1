//! Layouts of small picture networks, and how trained ones are kept.

use crate::attack::Error;
use crate::nn::enlarge::upsampled_conv3x3;
use crate::nn::image_ops::conv3x3;
use crate::nn::similarity::{distance, structural_similarity};
use crate::nn::{self, Params, ops};
use crate::seed;
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

const EPS: f32 = 1e-5;

/// From a vector to a picture: a linear layer to a small square of many channels, then stages that double the side and halve
/// the channels.
///
/// # Shapes
/// `(n, dim)` -> `(n, side, side, 3)` of `[0, 1]`; each stage is upsampling, a 3x3 convolution, layer normalisation over
/// channels and a GELU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upward {
    dim: usize,
    side: usize,
    stages: usize,
    channels: usize,
}

impl Upward {
    /// The network for vectors of `dim` numbers; `channels` are those after the first stage.
    ///
    /// # Errors
    /// When `side` cannot be doubled from a small square.
    pub fn new(dim: usize, side: usize, channels: usize) -> Result<Self, Error> {
        if side == 0 || !side.is_multiple_of(8) {
            return Err(Error::Pictures(format!(
                "pictures of {side} pixels cannot be doubled from a small start; take a multiple of 8 for `data.side_px`"
            )));
        }
        let mut stages = 0;
        while (side >> stages).is_multiple_of(2) && (side >> stages) >= 8 {
            stages += 1;
        }
        Ok(Self { dim, side, stages, channels })
    }

    /// Pixels in a row of what it draws.
    pub fn side(&self) -> usize {
        self.side
    }

    pub(super) fn base(&self) -> usize {
        self.side >> self.stages
    }

    /// Channels before stage `stage`; after the last one where `stage` is their number.
    fn width(&self, stage: usize) -> usize {
        ((2 * self.channels) >> stage).max(16)
    }

    /// Multiplications that one picture costs.
    pub(super) fn multiplications(&self) -> usize {
        let base = self.base() * self.base();
        let stage = |s: usize| (9 * self.width(s) * self.width(s + 1) * base) << (2 * (s + 1));
        let last = 27 * self.width(self.stages) * self.side * self.side;
        self.dim * base * self.width(0) + (0..self.stages).map(stage).sum::<usize>() + last
    }

    /// Adds its parameters, as many as [`Upward::forward`] takes.
    pub fn add(&self, params: &mut Params, rng: &mut seed::Stream) {
        let base = self.base() * self.base() * self.width(0);
        params.normal(&[self.dim, base], (self.dim as f64).sqrt().recip(), rng);
        params.constant(&[base], 0.0);
        normalisation(params, self.width(0));
        for stage in 0..self.stages {
            let (c, o) = (self.width(stage), self.width(stage + 1));
            params.normal(&[9 * c, o], (2.0 / (9 * c) as f64).sqrt(), rng);
            normalisation(params, o);
            params.constant(&[o], 0.0);
        }
        let c = self.width(self.stages);
        params.normal(&[9 * c, 3], 0.3 * (9.0 * c as f64).sqrt().recip(), rng);
        params.constant(&[3], 0.0);
    }

    /// Pictures for the vectors `x`; `p` are the parameters in the order of [`Upward::add`].
    pub fn forward(&self, p: &[Tensor], x: &Tensor) -> Result<Tensor, nn::Error> {
        let (n, base, c) = (x.dims()[0], self.base(), self.width(0));
        let x = x.matmul(&p[0])?.broadcast_add(&p[1])?.reshape((n, base, base, c))?;
        let mut x = ops::layer_norm(&x, &p[2], &p[3], EPS)?;
        let mut at = 4;
        for _ in 0..self.stages {
            x = upsampled_conv3x3(&x, &p[at])?;
            x = ops::bias_gelu(&ops::layer_norm(&x, &p[at + 1], &p[at + 2], EPS)?, &p[at + 3])?;
            at += 4;
        }
        let x = conv3x3(&x, &p[at], 1)?.broadcast_add(&p[at + 1])?;
        ops::sigmoid(&x)
    }
}

/// From a picture to a vector: the mirror image of [`Upward`], by convolutions of stride 2.
///
/// # Shapes
/// `(n, side, side, 3)` -> `(n, out)`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Downward {
    mirror: Upward,
    out: usize,
}

impl Downward {
    pub(super) fn new(mirror: &Upward, out: usize) -> Self {
        Self { mirror: mirror.clone(), out }
    }

    /// Channels after each stage.
    fn widths(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.mirror.stages).rev().map(|stage| self.mirror.width(stage))
    }

    /// How many tensors it takes.
    pub(super) fn tensors(&self) -> usize {
        4 * self.mirror.stages + 2
    }

    pub(super) fn add(&self, params: &mut Params, rng: &mut seed::Stream) {
        let mut c = 3;
        for o in self.widths() {
            params.normal(&[9 * c, o], (2.0 / (9 * c) as f64).sqrt(), rng);
            normalisation(params, o);
            params.constant(&[o], 0.0);
            c = o;
        }
        let flat = self.mirror.base() * self.mirror.base() * c;
        params.normal(&[flat, self.out], (flat as f64).sqrt().recip(), rng);
        params.constant(&[self.out], 0.0);
    }

    pub(super) fn forward(&self, p: &[Tensor], x: &Tensor) -> Result<Tensor, nn::Error> {
        let (n, mut x, mut at) = (x.dims()[0], x.clone(), 0);
        for _ in 0..self.mirror.stages {
            x = conv3x3(&x, &p[at], 2)?;
            x = ops::bias_gelu(&ops::layer_norm(&x, &p[at + 1], &p[at + 2], EPS)?, &p[at + 3])?;
            at += 4;
        }
        let flat = x.elem_count() / n.max(1);
        Ok(x.reshape((n, flat))?.matmul(&p[at])?.broadcast_add(&p[at + 1])?)
    }
}

/// Gain and offset of a layer normalisation.
fn normalisation(params: &mut Params, c: usize) {
    params.constant(&[c], 1.0);
    params.constant(&[c], 0.0);
}

/// `(|y - x| + 1 - SSIM) / 2`, averaged.
pub fn loss(drawn: &Tensor, truth: &Tensor) -> Result<Tensor, nn::Error> {
    let distance = distance(drawn, truth)?;
    let structure = (1.0 - structural_similarity(drawn, truth)?)?;
    Ok(((distance + structure)? * 0.5)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_side_that_cannot_be_doubled_is_refused() {
        assert!(Upward::new(8, 50, 8).is_err_and(|e| e.to_string().contains("multiple of 8")));
        for (side, base) in [(8, 4), (16, 4), (24, 6), (32, 4), (40, 5), (64, 4)] {
            assert_eq!(Upward::new(8, side, 8).map(|p| p.base()).ok(), Some(base), "{side}");
        }
    }
}
