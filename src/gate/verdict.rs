//! The verdict: one object, from which the text, every file format and the exit code are made.

use super::bounds::Method;
use crate::error::Exit;
use serde::{Deserialize, Serialize};

/// How much a check weighs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Not evaluated.
    Off,
    /// Shown, never blocks.
    Warn,
    /// Decides the exit code.
    #[default]
    Error,
}

/// Which question a finding answers. The rule ids are stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// The leak is at most so much.
    Max,
    /// The leak is so much lower than that of the unprotected release, floors taken off.
    MinReduction,
    /// The utility, or a distance, is at least so much.
    Min,
    /// The utility is at least this share of that of the unprotected release.
    MinRetention,
    /// The claimed epsilon is at most so much.
    MaxEpsilon,
    /// The audited epsilon does not exceed the claimed one.
    Audit,
    /// The leak has not grown against the baseline.
    MaxRegression,
}

impl Question {
    /// Every question with its rule id and what the rule says.
    pub const ALL: [(Self, &'static str, &'static str); 7] = [
        (Self::Max, "SB1001", "The leak stays below the policy's limit."),
        (Self::MinReduction, "SB1002", "The protection takes away the required share of the unprotected leak."),
        (Self::Min, "SB1003", "The release stays as useful as the policy demands."),
        (Self::MinRetention, "SB1004", "The protection keeps the required share of the unprotected utility."),
        (Self::MaxEpsilon, "SB1005", "The claimed epsilon stays below the policy's limit."),
        (Self::Audit, "SB1006", "No audit contradicts the claimed epsilon."),
        (Self::MaxRegression, "SB1007", "The leak has not grown against the baseline."),
    ];

    /// Its stable rule id.
    pub fn rule(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

/// What the evidence says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// The bound lies on the good side.
    Pass,
    /// The opposite bound lies on the bad side.
    Fail,
    /// Neither, or the evidence cannot be used.
    Inconclusive,
}

/// Why evidence cannot carry a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The interval holds the threshold.
    IntervalHoldsThreshold,
    /// The attackers did not clear their bar on the unprotected release.
    AttackTooWeak,
    /// The attacker was not fitted on releases of this pipeline.
    NotAdaptive,
    /// The two arms had different budgets.
    BudgetMismatch,
    /// The held-out loss was still falling when training ended.
    Undertrained,
    /// The protected score lies below that of a blind attacker: a broken attack, not privacy.
    BelowFloor,
    /// A blind attacker alone exceeds the limit: no protection could pass.
    ThresholdBelowFloor,
    /// Fewer targets than the policy asks for.
    TooFewTargets,
    /// Fewer seeds than the policy asks for.
    TooFewSeeds,
    /// A cell failed, or a seed is missing.
    MissingCells,
    /// No record is selected by the check.
    NothingSelected,
    /// The records hold no bound for this metric at this confidence.
    NoBound,
    /// There is no unprotected arm to compare with.
    NoUnprotectedArm,
    /// The pipeline claims no epsilon.
    NoClaim,
    /// There is no audit of this pipeline.
    NoAudit,
    /// There is no baseline, or it has no entry for this cell.
    NoBaseline,
    /// The baseline was made from other data, encoders, attacks or metric versions.
    IncompatibleBaseline,
    /// A failure that no longer stands when all checks of the policy are taken together (Holm).
    OneOfMany,
    /// It fails, and its waiver has expired.
    WaiverExpired,
}

/// The waiver that covers a finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waived {
    /// Why it is accepted.
    pub reason: String,
    /// Who accepted it.
    pub approved_by: String,
    /// Last day on which it holds.
    pub until: String,
    /// True after that day.
    pub expired: bool,
    /// Its line in the policy.
    pub line: usize,
}

/// One check on one cell. Unknown numbers are `None`, never 0.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// The check's id in the policy.
    pub check: String,
    /// The check's line in the policy.
    pub line: usize,
    /// Stable rule id.
    pub rule: String,
    /// What was asked.
    pub question: Question,
    /// How much it weighs.
    pub level: Level,
    /// The corpus.
    pub corpus: String,
    /// The protection.
    pub protection: String,
    /// Its pipeline.
    pub pipeline: String,
    /// The attack; `utility` or `identification` for what the release itself shows.
    pub attack: String,
    /// The metric.
    pub metric: String,
    /// Version of the metric.
    pub version: u32,
    /// The answer.
    pub verdict: Answer,
    /// The figure that was judged. For a reduction, see `reduction`: the bounds below are those of `D`, which must not exceed 0.
    pub value: Option<f64>,
    /// One-sided lower bound at `confidence`.
    pub low: Option<f64>,
    /// One-sided upper bound at `confidence`.
    pub high: Option<f64>,
    /// Of each bound.
    pub confidence: f64,
    /// How the bounds were made.
    pub method: Method,
    /// Targets.
    pub n: usize,
    /// Documents, owners.
    pub clusters: usize,
    /// Seeds.
    pub seeds: usize,
    /// What the figure is compared with.
    pub threshold: f64,
    /// The same figure on the protected release, for people.
    pub protected: Option<f64>,
    /// The same figure on the unprotected release.
    pub unprotected: Option<f64>,
    /// What a blind attacker scores.
    pub blind: Option<f64>,
    /// `1 - (P - B) / (U - B)`, for people: unstable where `U - B` is small.
    pub reduction: Option<f64>,
    /// Why it is inconclusive.
    pub reason: Option<Reason>,
    /// The finding in a sentence, without any text of a record.
    pub message: String,
    /// Targets that would settle it, if the value stays.
    pub n_needed: Option<usize>,
    /// Level at which the failure is shown; Holm's correction reads it.
    pub p_fail: Option<f64>,
    /// The waiver that covers it.
    pub waiver: Option<Waived>,
    /// Cells that the figure was computed from.
    pub cells: Vec<String>,
}

impl Finding {
    /// True where a waiver takes the finding out of the exit code.
    pub fn is_waived(&self) -> bool {
        self.verdict != Answer::Pass && self.waiver.as_ref().is_some_and(|w| !w.expired)
    }

    /// Does it block?
    fn counts(&self) -> bool {
        self.level == Level::Error && !self.is_waived()
    }

    /// `corpus/protection/attack/metric`.
    pub fn place(&self) -> String {
        format!("{}/{}/{}/{}", self.corpus, self.protection, self.attack, self.metric)
    }

    /// Names the finding across runs: what it is about, never its value.
    pub fn fingerprint(&self) -> String {
        let mut hasher = blake3::Hasher::new_derive_key("stitchback finding v1");
        for part in [&self.rule, &self.check, &self.corpus, &self.protection, &self.attack, &self.metric] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        hasher.finalize().to_hex()[..32].to_owned()
    }
}

/// The whole verdict, `stitchback/verdict/v1`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// `stitchback/verdict/v1`.
    pub schema: String,
    /// Name and version of the program.
    pub tool: String,
    /// The policy file as it was named.
    pub policy: String,
    /// BLAKE3 of the policy.
    pub policy_hash: String,
    /// The run folders, by name.
    pub runs: Vec<String>,
    /// The day on which waivers were judged.
    pub today: String,
    /// The answer to everything.
    pub verdict: Answer,
    /// The exit code that follows.
    pub exit: u8,
    /// Probability that any failure is a false one, over all findings together.
    pub family_wise_level: f64,
    /// Worst first.
    pub findings: Vec<Finding>,
    /// What a reader must know: toy data, waivers without use, a policy that can never block.
    pub warnings: Vec<String>,
}

impl Verdict {
    /// Corrects failures for their number, orders the findings and draws the conclusion.
    pub(super) fn conclude(mut self) -> Self {
        self.holm();
        self.findings.sort_by_key(|f| {
            let rank = match (f.verdict, f.is_waived()) {
                (_, true) => 3,
                (Answer::Fail, _) => 0,
                (Answer::Inconclusive, _) => 1,
                (Answer::Pass, _) => 4,
            };
            (rank, f.level == Level::Warn, f.line, f.place(), f.question)
        });
        let any = |answer| self.findings.iter().any(|f| f.counts() && f.verdict == answer);
        (self.verdict, self.exit) = if any(Answer::Fail) {
            (Answer::Fail, Exit::Leak as u8)
        } else if any(Answer::Inconclusive) {
            (Answer::Inconclusive, Exit::Inconclusive as u8)
        } else {
            (Answer::Pass, Exit::Pass as u8)
        };
        self
    }

    /// Holm's step-down procedure: failures in order of their p; the first that does not stand takes the rest with it.
    ///
    /// # Source
    /// Holm 1979. Passes need no correction: that *all* pass is an intersection-union test.
    fn holm(&mut self) {
        let m = self.findings.iter().filter(|f| f.p_fail.is_some()).count();
        let mut order: Vec<usize> = (0..self.findings.len()).filter(|&i| self.findings[i].p_fail.is_some()).collect();
        let p = |f: &Finding| f.p_fail.unwrap_or(1.0);
        order.sort_by(|&a, &b| p(&self.findings[a]).total_cmp(&p(&self.findings[b])));
        let mut stands = true;
        for (rank, i) in order.into_iter().enumerate() {
            let finding = &mut self.findings[i];
            stands = stands && p(finding) * (m - rank) as f64 <= self.family_wise_level;
            if finding.verdict == Answer::Fail && !stands {
                finding.verdict = Answer::Inconclusive;
                finding.reason = Some(Reason::OneOfMany);
                finding.message = format!("{} (fails alone, but not among {m} checks: Holm)", finding.message);
            }
        }
    }

    /// The exit code.
    pub fn exit(&self) -> Exit {
        match self.verdict {
            Answer::Pass => Exit::Pass,
            Answer::Fail => Exit::Leak,
            Answer::Inconclusive => Exit::Inconclusive,
        }
    }

    /// How many findings pass, fail, are inconclusive, are waived.
    pub fn counts(&self) -> [usize; 4] {
        let of = |answer| self.findings.iter().filter(|f| f.verdict == answer && !f.is_waived()).count();
        let waived = self.findings.iter().filter(|f| f.is_waived()).count();
        [of(Answer::Pass), of(Answer::Fail), of(Answer::Inconclusive), waived]
    }
}
