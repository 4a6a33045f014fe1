//! White-box inversion: descending through the victim encoder to a picture whose vector is the release.

use super::Pixels;
use super::descent::{Descent, LOOKS, Refinement};
use crate::attack::text::lexicon::Retrieval;
use crate::attack::{Attack, Curve, Error, Guess, Inverter, Knowledge, Progress, View};
use crate::encode::Embeddings;
use crate::seed;
use serde::{Deserialize, Serialize};

/// Pictures that are optimised together.
const WAVE: usize = 32;
/// Points of the curve of agreement.
const POINTS: usize = 10;

/// Changes a picture until the victim encoder gives the released vector, whatever the picture is shifted, zoomed or mirrored
/// by.
///
/// # Formula
/// `min_x mean_a (1 - cos(E(a(x)) - m, y' - m)) + tv TV(x) + range(x)` over random small shifts, zooms and mirror images `a`,
/// `y'` the denoised release and `m` the mean of the auxiliary vectors, from the `starts` auxiliary pictures of highest
/// likelihood. `x` is the start plus corrections at `side / 4`, `side / 2` and
/// `side` pixels, so that coarse structure moves first. Of all ends, the one whose vector agrees best with the release over
/// further changes `a` is the guess. With noise of `r = sigma sqrt(d)` the pull of the release is divided by `1 + r^2`,
/// what the noise leaves of its cosine, so that the start and the smoothness weigh more.
///
/// # Errors
/// When the victim has no exact gradient: it is compared with differences before anything is scored.
///
/// # Source
/// Mahendran and Vedaldi 2015 (total variation, jitter); Yin et al. 2020 (augmentations as a natural prior). Differs: starts
/// from retrieved pictures, and corrections at three scales.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Invert {
    /// Targets attacked, as a declared subset; 0 for all.
    pub targets: usize,
    /// Steps from each start.
    pub steps: usize,
    /// Retrieved pictures to start from.
    pub starts: usize,
    /// Largest change of a value of `[0, 1]` in a step.
    pub lr: f64,
    /// Weight of the total variation.
    pub tv: f64,
    /// Weight of the surrogate's misfit beside the victim's, where the study names a surrogate.
    pub surrogate: f64,
}

impl Default for Invert {
    fn default() -> Self {
        let Refinement { steps, lr, tv } = Refinement::default();
        Self { targets: 100, steps, starts: 2, lr, tv, surrogate: 0.5 }
    }
}

impl Invert {
    /// Every parameter that is out of range.
    pub fn check(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.steps == 0 || self.starts == 0 {
            problems.push("`steps` and `starts` must be at least 1".to_owned());
        }
        if !(self.lr > 0.0 && self.lr <= 1.0) {
            problems.push(format!("`lr` must be in (0, 1], got {}", self.lr));
        }
        if !(self.tv >= 0.0 && self.tv.is_finite()) {
            problems.push(format!("`tv` must not be negative, got {}", self.tv));
        }
        if !(self.surrogate >= 0.0 && self.surrogate.is_finite()) {
            problems.push(format!("`surrogate` must not be negative, got {}", self.surrogate));
        }
        problems
    }
}

impl Attack for Invert {
    fn needs(&self) -> Knowledge {
        Knowledge { auxiliary: true, pipeline: true, encoder: true, released: true, leaked_pairs: 0 }
    }

    fn fit<'a>(
        &self,
        view: &'a View<'a>,
        task: &str,
        progress: &dyn Progress,
    ) -> Result<Box<dyn Inverter + 'a>, Error> {
        let pixels = view.pictures()?;
        let descent = Descent::open(view, &pixels, self.surrogate, task, progress)?;
        Ok(Box::new(Fitted { params: self.clone(), view, descent, pixels }))
    }
}

struct Fitted<'a> {
    params: Invert,
    view: &'a View<'a>,
    descent: Descent<'a>,
    pixels: Pixels,
}

/// A picture on its way: which row it is to explain, and where it starts.
struct Runner {
    row: usize,
    start: usize,
}

impl Fitted<'_> {
    /// Optimises one wave of runners; returns their pictures and the mean misfit on the way.
    fn run(
        &self,
        wave: &[Runner],
        released: &Embeddings,
        task: &str,
        progress: &dyn Progress,
    ) -> Result<(Pixels, Vec<f64>), Error> {
        let mut rng = seed::stream(self.view.seed, task, &format!("changes {} {}", wave[0].row, wave[0].start));
        let targets = released.select(&wave.iter().map(|r| r.row).collect::<Vec<_>>());
        let start = wave.iter().flat_map(|r| self.pixels.row(r.start)).copied().collect();
        let start = Pixels::new(self.pixels.side(), start);
        let Invert { steps, lr, tv, .. } = self.params;
        self.descent.refine(&start, &targets, Refinement { steps, lr, tv }, &mut rng, progress)
    }
}

impl Inverter for Fitted<'_> {
    fn invert(&self, released: &Embeddings, task: &str, progress: &dyn Progress) -> Result<Vec<Guess>, Error> {
        let own = Retrieval::new(self.view.clean);
        let runners: Vec<Runner> = (0..released.len())
            .flat_map(|row| {
                let best = own.nearest(released.row(row), self.params.starts);
                best.into_iter().map(move |(start, _)| Runner { row, start })
            })
            .collect();
        let mut best: Vec<Option<Guess>> = vec![None; released.len()];
        let steps = self.params.steps;
        for (done, wave) in runners.chunks(WAVE).enumerate() {
            progress.update(done * WAVE, runners.len(), "pictures inverted");
            let (ends, misfits) = self.run(wave, released, task, progress)?;
            let targets = released.select(&wave.iter().map(|r| r.row).collect::<Vec<_>>());
            let agreement = self.descent.agreement(&ends, &targets, task)?;
            let every = steps.div_ceil(POINTS);
            for (i, (runner, score)) in wave.iter().zip(agreement).enumerate() {
                let guess = &mut best[runner.row];
                if guess.as_ref().is_none_or(|g| score > g.score) {
                    let trace = misfits.iter().enumerate().filter(|(s, _)| (s + 1) % every == 0);
                    *guess = Some(Guess {
                        queries: (steps + LOOKS) * self.params.starts,
                        trace: trace.map(|(s, m)| (s + 1, 1.0 - m)).collect(),
                        ..Guess::drawn(ends.picture(i), score)
                    });
                }
            }
        }
        progress.update(runners.len(), runners.len(), "pictures inverted");
        Ok(best.into_iter().flatten().collect())
    }

    fn curves(&self) -> Vec<Curve> {
        Vec::new()
    }
}
