//! Audits: is an implementation as private as it claims? They refute claims; they never prove one.
//!
//! ```text
//! pipeline ──► claim ──────────────────────────────┐
//!     │                                            ▼
//!     ├──► two worlds, released many times ──► lower bound of epsilon ──► verdict
//!     ├──► one run with many coins (groups)  ──►       "
//!     └──► probes: reused noise, coarse noise ─►       "
//! ```
//!
//! A lower bound above the claim is a bug, with the stated probability of a false alarm. One below it is the power of
//! this many trials and no evidence of privacy; the ceiling says how much they could have shown at best.

mod interval;
mod one_run;
mod probe;
mod world;

pub use interval::{Counts, ceiling, one_run_epsilon};
pub use one_run::OneRun;
pub use probe::Probe;
pub use world::{GaussianAudit, PairAudit, Score};

use crate::encode::Embeddings;
use crate::error::Exit;
use crate::protect::{Claim, Error, Guarantee, Mechanism, Pipeline, Release, StageConfig};
use rand::Rng;
use serde::{Deserialize, Serialize};
use world::{Claimed, Pair};

/// What can be audited: a pipeline, or in tests a broken one.
pub trait Subject: Sync {
    /// Its printed form.
    fn name(&self) -> String;
    /// What it claims for rows of `dim` coordinates.
    fn claim(&self, dim: usize) -> Claim;
    /// Releases records, one stratum for each trial.
    fn release(&self, clean: &Embeddings, strata: &[u32], rng: &mut dyn Rng) -> Result<Release, Error>;
    /// The same without noise, as far as an attacker knows.
    fn quiet(&self, clean: &Embeddings, strata: &[u32], rng: &mut dyn Rng) -> Result<Release, Error>;
    /// Records behind a released row.
    fn members(&self) -> usize;
    /// The bound on a record that the claim rests on.
    fn radius(&self, dim: usize) -> Option<f64>;
    /// True when released values are continuous noise, neither bits nor a grid.
    fn is_continuous(&self) -> bool;
}

impl Subject for Pipeline {
    fn name(&self) -> String {
        self.to_string()
    }

    fn claim(&self, dim: usize) -> Claim {
        self.claim_at(dim)
    }

    fn release(&self, clean: &Embeddings, strata: &[u32], rng: &mut dyn Rng) -> Result<Release, Error> {
        Pipeline::release(self, clean, Some(strata), rng)
    }

    fn quiet(&self, clean: &Embeddings, strata: &[u32], rng: &mut dyn Rng) -> Result<Release, Error> {
        self.without_noise().release(clean, Some(strata), rng)
    }

    fn members(&self) -> usize {
        self.state().members
    }

    fn radius(&self, dim: usize) -> Option<f64> {
        self.first_radius(dim)
    }

    fn is_continuous(&self) -> bool {
        let last = self.stages().iter().rposition(StageConfig::is_noise);
        last.is_some_and(|last| {
            let gridded = |s: &StageConfig| {
                use StageConfig::{DiscreteGaussian, DiscreteLaplace, Quantize, Sign};
                matches!(s, Quantize(_) | Sign(_) | DiscreteGaussian(_) | DiscreteLaplace(_))
            };
            !self.stages()[last..].iter().any(gridded)
        })
    }
}

/// How an audit is run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// Trials counted in each world; rehearsals take as many again.
    pub trials: usize,
    /// Seed of every draw.
    pub seed: u64,
    /// Coordinates of a record.
    pub dim: usize,
    /// Where epsilons are quoted.
    pub delta: f64,
    /// Probability with which a lower bound may be wrong.
    pub alpha: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { trials: 100_000, seed: 1, dim: 384, delta: crate::protect::DEFAULT_DELTA, alpha: 0.05 }
    }
}

/// What an audit comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// More was told apart than the claim allows.
    Refuted,
    /// Nothing above the claim was found.
    NotRefuted,
    /// The claim lies above what this many trials can show.
    Untestable,
    /// There is no claim.
    NothingClaimed,
}

impl Verdict {
    /// A refuted claim is a leak; where nothing was tested there is no verdict.
    pub fn exit(self) -> Exit {
        match self {
            Self::Refuted => Exit::Leak,
            Self::NotRefuted => Exit::Pass,
            Self::Untestable | Self::NothingClaimed => Exit::Inconclusive,
        }
    }
}

/// The result of an audit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// `stitchback/audit/v1`.
    pub schema: String,
    /// What was audited.
    pub pipeline: String,
    /// What it claims, at `delta`.
    pub claimed_epsilon: Option<f64>,
    /// Where epsilons are quoted.
    pub delta: f64,
    /// Trials counted in each world.
    pub trials: usize,
    /// Coordinates of a record.
    pub dim: usize,
    /// Seed of every draw.
    pub seed: u64,
    /// Probability with which a lower bound may be wrong.
    pub alpha: f64,
    /// Opposite records first; a nearer pair where the claim lies above the ceiling.
    pub pairs: Vec<PairAudit>,
    /// One run with many coins, for groups.
    pub one_run: Option<OneRun>,
    /// Reused and coarse noise.
    pub probes: Vec<Probe>,
    /// The outcome.
    pub verdict: Verdict,
    /// In a sentence.
    pub sentence: String,
}

/// Audits `subject`.
///
/// # Errors
/// When the subject cannot release what it is given.
pub fn audit(subject: &dyn Subject, settings: &Settings) -> Result<Report, Error> {
    let claim = subject.claim(settings.dim);
    let radius = subject.radius(settings.dim).unwrap_or(1.0);
    let opposite = Pair::new(settings.dim, radius, std::f64::consts::FRAC_PI_2);
    let claimed = Claimed { epsilon: claim.epsilon(settings.delta), mu: claim.mu() };
    let mut pairs = vec![world::tell_apart(subject, settings, &opposite, claimed)?];
    if let Some((half_angle, claimed)) = nearer(&claim, &pairs[0], settings) {
        let pair = Pair::new(settings.dim, radius, half_angle);
        pairs.push(world::tell_apart(subject, settings, &pair, claimed)?);
    }
    let one_run = (subject.members() > 1).then(|| one_run::audit(subject, settings)).transpose()?;
    let mut probes = Vec::new();
    if claim.holds() {
        let record = probe_record(settings.dim, radius);
        probes = probe::reuse(subject, settings, &record)?;
        probes.extend(probe::granularity(subject, settings, &record)?);
    }
    let (verdict, sentence) = judge(&claim, &pairs, one_run.as_ref(), &probes, settings);
    Ok(Report {
        schema: "stitchback/audit/v1".to_owned(),
        pipeline: subject.name(),
        claimed_epsilon: claimed.epsilon,
        delta: settings.delta,
        trials: settings.trials,
        dim: settings.dim,
        seed: settings.seed,
        alpha: settings.alpha,
        pairs,
        one_run,
        probes,
        verdict,
        sentence,
    })
}

/// A short record: values near 0, where `f32` is finest, show coarse noise best.
fn probe_record(dim: usize, radius: f64) -> Vec<f32> {
    let each = (1e-3 * radius / (dim as f64).sqrt()) as f32;
    vec![each; dim]
}

/// A pair near enough to be tested, with what is claimed for it: where the claim for opposite records lies above the
/// ceiling and a distance scales it.
fn nearer(claim: &Claim, opposite: &PairAudit, settings: &Settings) -> Option<(f64, Claimed)> {
    /// The `mu`, or the epsilon, that trials show best.
    const TESTABLE: f64 = 2.0;
    if settings.dim < 2 || !is_above_ceiling(opposite) {
        return None;
    }
    let epsilon_only = |epsilon: f64| Claimed { epsilon: Some(epsilon), mu: None };
    match (&claim.guarantee, claim.mechanism?) {
        (Guarantee::Gdp { mu }, _) => {
            let half_angle = (TESTABLE / mu).min(1.0).asin();
            let mu = mu * half_angle.sin();
            let epsilon = crate::protect::account::epsilon(mu, settings.delta);
            Some((half_angle, Claimed { epsilon: Some(epsilon), mu: Some(mu) }))
        }
        (Guarantee::Pure { epsilon }, Mechanism::LaplaceL2 { .. } | Mechanism::Vmf { .. }) => {
            let half_angle = (TESTABLE / epsilon).min(1.0).asin();
            Some((half_angle, epsilon_only(epsilon * half_angle.sin())))
        }
        (Guarantee::Pure { epsilon }, Mechanism::Purkayastha { kappa }) => {
            let half_angle = (TESTABLE / epsilon).min(1.0) * std::f64::consts::FRAC_PI_2;
            Some((half_angle, epsilon_only(2.0 * kappa * half_angle)))
        }
        _ => None,
    }
}

fn is_above_ceiling(pair: &PairAudit) -> bool {
    let ceiling = pair.gaussian.map_or(pair.ceiling, |g| g.ceiling.max(pair.ceiling));
    pair.claimed.is_some_and(|claimed| claimed > ceiling)
}

fn judge(
    claim: &Claim,
    pairs: &[PairAudit],
    one_run: Option<&OneRun>,
    probes: &[Probe],
    settings: &Settings,
) -> (Verdict, String) {
    let n = settings.trials;
    let opposite = &pairs[0];
    let Some(claimed) = opposite.claimed else {
        let shown = opposite.epsilon;
        let sentence = format!(
            "nothing is claimed ({}); opposite records are told apart by epsilon {shown:.3} at least",
            claim.note()
        );
        return (Verdict::NothingClaimed, sentence);
    };
    for pair in pairs {
        let at = if pair.distance < 1.0 {
            format!(" for records at {:.3} of the largest distance", pair.distance)
        } else {
            String::new()
        };
        let allowed = pair.claimed.unwrap_or(f64::INFINITY);
        if pair.epsilon > allowed {
            let sentence = format!(
                "REFUTED: epsilon is at least {:.3} where {allowed:.3} is claimed{at} (n = {n}, Clopper-Pearson, wrong once in {:.0})",
                pair.epsilon,
                1.0 / settings.alpha
            );
            return (Verdict::Refuted, sentence);
        }
        if let Some(gaussian) = pair.gaussian.filter(|g| g.mu > g.claimed) {
            let sentence = format!(
                "REFUTED: mu is at least {:.4} (epsilon {:.3}) where {:.4} is claimed{at} (n = {n}, Gaussian trade-off, wrong once in {:.0})",
                gaussian.mu,
                gaussian.epsilon,
                gaussian.claimed,
                1.0 / settings.alpha
            );
            return (Verdict::Refuted, sentence);
        }
    }
    if let Some(run) = one_run.filter(|run| run.epsilon > claimed) {
        let sentence = format!(
            "REFUTED: {} of {} guesses in one run are right: epsilon is at least {:.3} where {claimed:.3} is claimed",
            run.right, run.guesses, run.epsilon
        );
        return (Verdict::Refuted, sentence);
    }
    if let Some(probe) = probes.iter().find(|probe| !probe.passed) {
        return (Verdict::Refuted, format!("REFUTED: not so that {}: {}", probe.name, probe.seen));
    }
    match pairs.iter().find(|pair| !is_above_ceiling(pair)) {
        None => {
            let sentence = format!(
                "untestable: {claimed:.3} is claimed, n = {n} trials show at most {:.3}; nothing follows from this audit",
                opposite.gaussian.map_or(opposite.ceiling, |g| g.ceiling.max(opposite.ceiling))
            );
            (Verdict::Untestable, sentence)
        }
        Some(tested) if tested.distance < 1.0 => {
            let sentence = format!(
                "not refuted at n = {n} for records at {:.4} of the largest distance; for opposite ones the claim of {claimed:.3} lies above what n trials can show",
                tested.distance
            );
            (Verdict::NotRefuted, sentence)
        }
        Some(_) => (
            Verdict::NotRefuted,
            format!("not refuted at n = {n}: a lower bound below the claim is no evidence of privacy"),
        ),
    }
}

#[cfg(test)]
mod mutants;
