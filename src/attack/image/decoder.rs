//! A network trained to draw pictures from releases.

use super::kept::Prior;
use super::painter::Painter;
use crate::attack::adapt::Adaptation;
use crate::attack::text::decoder::Pairing;
use crate::attack::{Attack, Curve, Error, Guess, Inverter, Knowledge, Progress, View};
use crate::encode::Embeddings;
use serde::{Deserialize, Serialize};

/// Draws the picture that a network makes of the denoised vector.
///
/// # Formula
/// The network minimises `(|x^ - x| + 1 - SSIM(x^, x)) / 2` over auxiliary pictures beside fresh releases: roughly the
/// mean picture given the vector, so colours and coarse shapes come back first. Where the study names a surrogate, what that
/// network finds different is added.
///
/// # Source
/// Dosovitskiy and Brox 2016 (inverting features with up-convolutional networks). Differs: layer normalisation over
/// channels, and the structural term.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImageDecoder {
    /// Whose layers it starts from: `auto` for the prior that the project keeps, where it fits; `none`; or a folder.
    pub pretrained: String,
    /// Training steps on clean vectors, shared by all protections.
    pub steps: usize,
    /// Further steps on each protection's releases.
    pub adapt_steps: usize,
    /// Pictures in a step.
    pub batch: usize,
    /// Highest learning rate.
    pub lr: f64,
    /// Channels after the first doubling; every doubling halves them.
    pub channels: usize,
    /// Weight of what the study's surrogate network, if it names one, finds different.
    pub perceptual: f64,
}

impl Default for ImageDecoder {
    fn default() -> Self {
        Self {
            pretrained: "auto".to_owned(),
            steps: 1200,
            adapt_steps: 200,
            batch: 64,
            lr: 2e-3,
            channels: 64,
            perceptual: 0.1,
        }
    }
}

impl ImageDecoder {
    /// Every parameter that is out of range.
    pub fn check(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (name, value) in [("steps", self.steps), ("batch", self.batch), ("channels", self.channels)] {
            if value == 0 {
                problems.push(format!("`{name}` must be at least 1"));
            }
        }
        if !(self.lr > 0.0 && self.lr <= 0.1) {
            problems.push(format!("`lr` must be in (0, 0.1], got {}", self.lr));
        }
        if !(self.perceptual >= 0.0 && self.perceptual.is_finite()) {
            problems.push(format!("`perceptual` must be at least 0, got {}", self.perceptual));
        }
        problems
    }
}

impl Attack for ImageDecoder {
    fn needs(&self) -> Knowledge {
        Knowledge { auxiliary: true, pipeline: true, encoder: true, released: true, leaked_pairs: 0 }
    }

    fn fit<'a>(&self, view: &'a View<'a>, _: &str, progress: &dyn Progress) -> Result<Box<dyn Inverter + 'a>, Error> {
        let adaptation = Adaptation::fit(view)?;
        let painter = Painter::train(view, &adaptation, self, Pairing::True, progress)?;
        let kept = Prior::find(&self.pretrained, painter.side(), self.channels)?;
        Ok(Box::new(Fitted { origin: kept.as_ref().map(Prior::origin), ..Fitted::new(adaptation, painter) }))
    }
}

/// A trained painter behind its denoiser.
pub(crate) struct Fitted<'a> {
    adaptation: Adaptation<'a>,
    painter: Painter,
    origin: Option<String>,
}

impl<'a> Fitted<'a> {
    pub(crate) fn new(adaptation: Adaptation<'a>, painter: Painter) -> Self {
        Self { adaptation, painter, origin: None }
    }
}

impl Inverter for Fitted<'_> {
    fn invert(&self, released: &Embeddings, _: &str, _: &dyn Progress) -> Result<Vec<Guess>, Error> {
        let drawn = self.painter.paint(&self.adaptation.denoise(released))?;
        Ok((0..drawn.len()).map(|i| Guess::drawn(drawn.picture(i), 0.0)).collect())
    }

    fn origin(&self) -> Option<String> {
        self.origin.clone()
    }

    fn curves(&self) -> Vec<Curve> {
        self.painter.curves().to_vec()
    }
}
