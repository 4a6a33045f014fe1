//! What a run writes down: rows of `records.jsonl`, curves, per-target scores, `summary.json`.
//!
//! Missing values are `None` (`null`), never 0.

pub use crate::attack::probe::Inference;
pub use crate::measure::{Direction, Interval};

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The claim of a protection, in words and numbers.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
pub struct GuaranteeRecord {
    /// `none`, `gdp`, `zcdp`, `pure`, `metric` or `central`.
    pub kind: String,
    /// Converted to `(epsilon, delta)` for all `releases` together; `None` without a claim.
    pub epsilon: Option<f64>,
    /// How often each record is released.
    #[serde(default = "once", skip_serializing_if = "is_once")]
    pub releases: usize,
    /// The delta that `epsilon` belongs to.
    pub delta: Option<f64>,
    /// Noise standard deviation for each coordinate of what is released.
    pub sigma: Option<f64>,
    /// The Gaussian-DP parameter.
    pub mu: Option<f64>,
    /// `replace-one` and the like.
    pub adjacency: String,
    /// Whose data the claim is about.
    pub unit_of_privacy: String,
    /// Why there is no claim, or what it rests on.
    pub note: String,
}

fn once() -> usize {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_once(releases: &usize) -> bool {
    *releases == 1
}

/// One line of `records.jsonl`: one metric of one cell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The cell's id.
    pub cell: String,
    /// Name of the protection.
    pub protection: String,
    /// Its canonical pipeline.
    pub pipeline: String,
    /// Name of the attack.
    pub attack: String,
    /// The seed.
    pub seed: u64,
    /// Whether the attacker was fitted on releases of this very pipeline.
    pub adaptive: bool,
    /// Metric id, for example `judge_leak`.
    pub metric: String,
    /// Raised when the same input can give another score.
    pub version: u32,
    /// Mean over targets.
    pub value: Option<f64>,
    /// Lower end of the 95 % interval.
    pub low: Option<f64>,
    /// Upper end of the 95 % interval.
    pub high: Option<f64>,
    /// Targets scored.
    pub n: usize,
    /// What the same guesses score against shuffled originals; for an inference, chance.
    pub floor: Option<f64>,
    /// What the blind attacker scores on the same targets.
    pub blind: Option<f64>,
    /// `cosine`, `share`, `points` ...
    pub unit: String,
    /// Which way it points.
    pub direction: Direction,
    /// Which side of a comparison carries the protection's noise: `one` (a clean query against protected rows) or `both`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub noisy_sides: Option<String>,
    /// The protection's claim.
    pub guarantee: GuaranteeRecord,
    /// The question behind it, where a fact was inferred instead of a text written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inference: Option<Inference>,
    /// Why there is no value.
    pub error: Option<String>,
}

/// One line of `curves.jsonl`: a learning curve or a budget curve of one cell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// The cell's id.
    pub cell: String,
    /// Name of the protection.
    pub protection: String,
    /// Name of the attack.
    pub attack: String,
    /// The seed.
    pub seed: u64,
    /// What it shows, for example `validation loss (nats a token)`.
    pub title: String,
    /// Label of the horizontal axis, for example `training step` or `encoder queries a target`.
    pub x_label: String,
    /// The points, in order.
    pub points: Vec<(f64, f64)>,
}

/// One line of `guesses/<cell>.jsonl`: private, never in CI outputs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GuessRecord {
    /// The target's record id.
    pub target: String,
    /// The original text; the caption of a picture.
    pub original: String,
    /// What the attacker wrote.
    pub guess: String,
    /// Width and height of the guess where it is a picture: it lies in the cell's contact sheet at the place of its line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<(u32, u32)>,
    /// Scores of this pair by metric id; `None` where a metric does not apply.
    pub scores: BTreeMap<String, Option<f64>>,
}

/// `summary.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// `stitchback/summary/v1`.
    pub schema: String,
    /// Name of the study.
    pub study: String,
    /// True when the attackers cleared the study's bar on the unprotected release.
    pub attacker_strong_enough: bool,
    /// The bar and what was reached.
    pub strength: Strength,
    /// The headline claim under test.
    pub claim: Claim,
    /// One element for each protection, in study order.
    pub protections: Vec<ProtectionSummary>,
    /// What a reader must know before quoting a number: data, encoder, judge, seeds, subsets, toy or smoke labels.
    pub assumptions: Vec<String>,
}

/// The attackers' strength on the unprotected release.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Strength {
    /// What is compared: the best free-text attacker's victim cosine on the unprotected release.
    pub metric: String,
    /// The study's bar.
    pub bar: f64,
    /// What was reached.
    pub reached: Option<f64>,
    /// By which attack.
    pub attack: Option<String>,
}

/// "Over 80 % unprotected, about 20 % protected", under our stricter definition of leak.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Claim {
    /// Leak of the unprotected release.
    pub unprotected_leak: Option<Interval>,
    /// The lowest leak among protections, with its name.
    pub protected_leak: Option<Interval>,
    /// Which protection that is.
    pub protection: Option<String>,
    /// Whether the unprotected leak reaches .80 and the protected one stays within .20; `None` when undecided.
    pub holds: Option<bool>,
}

/// The verdict on one protection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProtectionSummary {
    /// Name in the study.
    pub name: String,
    /// Canonical pipeline.
    pub pipeline: String,
    /// Its claim.
    pub guarantee: GuaranteeRecord,
    /// The worst adaptive attacker, chosen on validation targets.
    pub best_attack: Option<String>,
    /// Judge similarity and leak of that attacker.
    pub similarity: Similarity,
    /// Share of pictures whose object is still named; `None` for text.
    pub recognised: Option<f64>,
    /// Cosine under the victim encoder.
    pub victim_cosine: Option<f64>,
    /// Closed-set identification from the released vector.
    pub identified: Ranked,
    /// How often the guess is nearest to its own original, by the judge.
    pub matched: Ranked,
    /// Leak of the blind attacker.
    pub blind_leak: Option<f64>,
    /// Leak divided by the unprotected leak.
    pub retention: Option<f64>,
    /// What the protected vectors are still good for.
    pub utility: Utility,
    /// `unprotected`, `leaks`, `reduced`, `private` or `inconclusive`, with the reason after a colon.
    pub verdict: String,
}

/// Judge similarity with its floor.
#[derive(Debug, Default, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Similarity {
    /// Mean judge cosine of guess and original.
    pub judge_raw: Option<f64>,
    /// The same guesses against shuffled originals.
    pub judge_floor: Option<f64>,
    /// `(raw - floor) / (1 - floor)`.
    pub leak: Option<f64>,
    /// Lower end of its interval.
    pub low: Option<f64>,
    /// Upper end of its interval.
    pub high: Option<f64>,
    /// Targets behind it.
    pub n: usize,
}

/// A rank-one rate among candidates.
#[derive(Debug, Default, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Ranked {
    /// Share of targets ranked first.
    pub top1: Option<f64>,
    /// Number of candidates.
    pub of: usize,
    /// What guessing gives: `1 / of`.
    pub chance: Option<f64>,
}

/// Utility at the same noise draws.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
pub struct Utility {
    /// Rank correlation of contribution values, over their reliability; `None` until valuation is asked for.
    pub spearman: Option<f64>,
    /// Lower end of its interval.
    pub low: Option<f64>,
    /// Upper end of its interval.
    pub high: Option<f64>,
    /// Test-retest reliability of the raw values.
    pub reliability: Option<f64>,
    /// Share of the raw ten nearest neighbours still found.
    pub recall_at_10: Option<Interval>,
    /// Topic accuracy of a nearest-neighbour vote.
    pub topic_accuracy: Option<Interval>,
}
