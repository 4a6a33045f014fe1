//! Attackers that see nothing of the target: what they score is the floor under every other figure.

use super::image::{self, painter::Painter};
use super::text::decoder::{self, Pairing, Writer};
use super::{Attack, Curve, Error, Guess, Inverter, Knowledge, Progress, View, adapt::Adaptation};
use crate::encode::Embeddings;
use crate::nn::kernel::{Layout, matmul};
use crate::seed;
use rand::RngExt;
use serde::{Deserialize, Serialize};

/// The decoder, trained on permuted embeddings: it learns what texts look like and nothing about which is which.
///
/// # Source
/// The control of vec2text's evaluation: same network, same data, no signal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Blind {
    /// Training steps; fewer than the decoder's suffice, because there is nothing to learn but the language.
    pub steps: usize,
    /// Further steps on each protection's releases, permuted as well.
    pub adapt_steps: usize,
    /// Texts in a step.
    pub batch: usize,
}

impl Default for Blind {
    fn default() -> Self {
        Self { steps: 200, adapt_steps: 20, batch: 64 }
    }
}

impl Blind {
    /// Every parameter that is out of range.
    pub fn check(&self) -> Vec<String> {
        self.decoder().check()
    }

    /// The decoder that it trains, without a pairing to learn.
    pub fn decoder(&self) -> decoder::Decoder {
        let Self { steps, adapt_steps, batch } = *self;
        // A pretrained decoder reads vectors before it has seen a single one of ours: it would not be blind.
        let pretrained = "none".to_owned();
        decoder::Decoder { pretrained, steps, adapt_steps, batch, samples: 1, ..decoder::Decoder::default() }
    }
}

/// One answer to everything: the auxiliary sentence with the highest mean cosine to all auxiliary sentences, or the mean
/// of all auxiliary pictures.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Constant {}

/// A random auxiliary record for each row.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Random {}

impl Blind {
    /// The image decoder that it trains on pictures.
    pub fn image_decoder(&self) -> image::decoder::ImageDecoder {
        let Self { steps, adapt_steps, batch } = *self;
        let pretrained = "none".to_owned();
        image::decoder::ImageDecoder {
            pretrained,
            steps,
            adapt_steps,
            batch,
            ..image::decoder::ImageDecoder::default()
        }
    }
}

impl Attack for Blind {
    fn needs(&self) -> Knowledge {
        Knowledge { auxiliary: true, pipeline: true, encoder: false, released: false, leaked_pairs: 0 }
    }

    fn fit<'a>(&self, view: &'a View<'a>, _: &str, progress: &dyn Progress) -> Result<Box<dyn Inverter + 'a>, Error> {
        let adaptation = Adaptation::fit(view)?;
        if view.shows_pictures() {
            let params = self.image_decoder();
            let painter = Painter::train(view, &adaptation, &params, Pairing::Permuted, progress)?;
            return Ok(Box::new(image::decoder::Fitted::new(adaptation, painter)));
        }
        let params = self.decoder();
        let writer = Writer::train(view, &adaptation, &params, Pairing::Permuted, progress)?;
        Ok(Box::new(FittedBlind { view, adaptation, writer }))
    }
}

struct FittedBlind<'a> {
    view: &'a View<'a>,
    adaptation: Adaptation<'a>,
    writer: Writer,
}

impl Inverter for FittedBlind<'_> {
    fn invert(&self, released: &Embeddings, task: &str, progress: &dyn Progress) -> Result<Vec<Guess>, Error> {
        // No re-ranking: comparing a sample with the release would not be blind.
        let candidates = self.writer.candidates(&self.adaptation, released, self.view.seed, task, progress)?;
        Ok(candidates
            .into_iter()
            .map(|mut c| {
                let (text, score) = c.pop().map_or((String::new(), f64::NEG_INFINITY), |c| (c.text, c.log_prob));
                Guess::new(text, score)
            })
            .collect())
    }

    fn curves(&self) -> Vec<Curve> {
        self.writer.curves().to_vec()
    }
}

impl Attack for Constant {
    fn needs(&self) -> Knowledge {
        Knowledge { auxiliary: true, pipeline: false, encoder: true, released: false, leaked_pairs: 0 }
    }

    fn fit<'a>(&self, view: &'a View<'a>, _: &str, _: &dyn Progress) -> Result<Box<dyn Inverter + 'a>, Error> {
        if view.shows_pictures() {
            return Ok(Box::new(FittedConstant { guess: Guess::drawn(image::mean(&view.pictures()?), 0.0) }));
        }
        let mean = view.clean.centre();
        let mut scores = vec![0.0_f32; view.clean.len()];
        let (n, d) = (view.clean.len(), view.clean.dim());
        matmul(&mut scores, view.clean.values(), Layout::Plain, &mean, Layout::Plain, n, d, 1, false);
        let best = super::text::lexicon::top(&scores, 1)[0].0;
        Ok(Box::new(FittedConstant { guess: Guess::copied(&view.auxiliary[best], 0.0) }))
    }
}

struct FittedConstant {
    guess: Guess,
}

impl Inverter for FittedConstant {
    fn invert(&self, released: &Embeddings, _: &str, _: &dyn Progress) -> Result<Vec<Guess>, Error> {
        Ok(vec![self.guess.clone(); released.len()])
    }
}

impl Attack for Random {
    fn needs(&self) -> Knowledge {
        Knowledge { auxiliary: true, pipeline: false, encoder: false, released: false, leaked_pairs: 0 }
    }

    fn fit<'a>(&self, view: &'a View<'a>, _: &str, _: &dyn Progress) -> Result<Box<dyn Inverter + 'a>, Error> {
        Ok(Box::new(FittedRandom { view }))
    }
}

struct FittedRandom<'a> {
    view: &'a View<'a>,
}

impl Inverter for FittedRandom<'_> {
    fn invert(&self, released: &Embeddings, task: &str, _: &dyn Progress) -> Result<Vec<Guess>, Error> {
        let mut rng = seed::stream(self.view.seed, task, "random guesses");
        let own = self.view.auxiliary;
        Ok((0..released.len()).map(|_| Guess::copied(&own[rng.random_range(0..own.len())], 0.0)).collect())
    }
}
