//! The gate: a policy against the stored records of a run.
//!
//! ```text
//! policy ─┐
//!         ├─► selection ──► one-sided bounds ──► validity ──► waivers ──► Holm ──► verdict ──► exit code, text, files
//! run   ──┘
//! ```
//!
//! Nothing is trained, encoded or attacked: a gate takes less than a second, and the same records give the same bytes. A
//! check *passes* when the bound on the bad side of its figure lies on the good side of the threshold, *fails* when the
//! other bound lies beyond it, and is *inconclusive* in between, or when the evidence is not worth a verdict: attackers
//! that were weak where nothing protects, that did not adapt, that were not trained out.
//!
//! | file | what it holds |
//! |---|---|
//! | `policy.rs` | the policy file, its presets and its schema |
//! | `run.rs` | a run folder as the gate sees it |
//! | `series.rs` | scores of single targets, and the figure that is read from them |
//! | `bounds.rs` | one-sided bounds of every kind |
//! | `check.rs` | checks on cells, with everything that can make them inconclusive |
//! | `compare.rs` | two runs, target by target |
//! | `baseline.rs` | what an earlier run scored, with its fingerprint |
//! | `verdict.rs` | the one object that everything else is made of |
//! | `output/` | text, JSON, JUnit, SARIF, Markdown, annotations |

mod baseline;
mod bounds;
mod check;
mod compare;
pub mod output;
pub mod policy;
mod run;
mod series;
pub mod verdict;

#[cfg(test)]
mod coverage;
#[cfg(test)]
mod fixture;
#[cfg(test)]
mod tests;

pub use baseline::Baseline;
pub use bounds::Method;
pub use compare::{Difference, compare};
pub use policy::Policy;
pub use verdict::{Answer, Finding, Level, Question, Reason, Verdict};

use crate::error::Exit;
use chrono::NaiveDate;
use run::Run;
use std::path::{Path, PathBuf};

/// Why the gate has no verdict.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The policy has problems; all of them are listed.
    #[error(transparent)]
    Policy(#[from] policy::Error),
    /// A file of the run folder, a baseline or an audit cannot be used.
    #[error("`{path}` {why}")]
    File {
        /// The file.
        path: String,
        /// What is wrong, and the remedy.
        why: String,
    },
    /// An output cannot be written.
    #[error("cannot write `{path}`")]
    Write {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The name of an output names no format.
    #[error("`{0}` names no format; end it in .json, .junit.xml, .sarif or .md")]
    Format(String),
    /// An output could not be put together.
    #[error("cannot put {format} together: {why}")]
    Serialize {
        /// The format.
        format: &'static str,
        /// Why.
        why: String,
    },
    /// Scores cannot be resampled.
    #[error(transparent)]
    Measure(#[from] crate::measure::Error),
}

impl Error {
    /// The exit code that stands for this failure.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Policy(_) | Self::Format(_) => Exit::Usage,
            Self::File { .. } | Self::Write { .. } => Exit::Input,
            Self::Serialize { .. } => Exit::Internal,
            Self::Measure(e) => e.exit(),
        }
    }
}

/// What a verdict needs beside policy and records.
#[derive(Debug, Clone)]
pub struct Options {
    /// The day on which waivers are judged.
    pub today: NaiveDate,
    /// What an earlier run scored.
    pub baseline: Option<Baseline>,
    /// Files with the output of `audit --json`.
    pub audits: Vec<PathBuf>,
}

impl Options {
    /// Today, without baseline or audits.
    pub fn today() -> Self {
        Self { today: chrono::Utc::now().date_naive(), baseline: None, audits: Vec::new() }
    }
}

/// Judges stored runs by a policy, and keeps what a later gate may compare with.
///
/// # Errors
/// A run folder, baseline or audit that cannot be read.
pub fn judge(dirs: &[PathBuf], policy: &Policy, options: &Options) -> Result<(Verdict, Baseline), Error> {
    let audits = options.audits.iter().map(|path| run::read_audits(path)).collect::<Result<Vec<_>, _>>()?.concat();
    let runs = folders(dirs)?.iter().map(|dir| Run::load(dir, &audits)).collect::<Result<Vec<_>, _>>()?;
    let mut warnings = policy.warnings.clone();
    for run in &runs {
        let labels = run.summary.assumptions.iter().filter(|a| a.starts_with("toy:") || a.starts_with("smoke:"));
        warnings.extend(labels.map(|label| format!("{}: {label}", run.name)));
    }
    let (findings, baseline) = check::findings(policy, &runs, options)?;
    let (findings, unused) = check::waive(findings, &policy.waivers, options.today);
    warnings.extend(unused);
    let family_wise = policy.checks.iter().map(|c| 1.0 - c.confidence).fold(f64::INFINITY, f64::min);
    let verdict = Verdict {
        schema: "stitchback/verdict/v1".to_owned(),
        tool: concat!("stitchback ", env!("CARGO_PKG_VERSION")).to_owned(),
        policy: policy.path.clone(),
        policy_hash: policy.hash.clone(),
        runs: runs.iter().map(|r| r.name.clone()).collect(),
        today: options.today.to_string(),
        verdict: Answer::Inconclusive,
        exit: Exit::Inconclusive as u8,
        family_wise_level: if family_wise.is_finite() { family_wise } else { 0.05 },
        findings,
        warnings,
    };
    Ok((verdict.conclude(), baseline))
}

/// A study of several corpora leaves a run folder for each of them inside its own.
fn folders(dirs: &[PathBuf]) -> Result<Vec<PathBuf>, Error> {
    let is_run = |dir: &Path| dir.join("records.jsonl").is_file();
    let mut out = Vec::new();
    for dir in dirs {
        if is_run(dir) {
            out.push(dir.clone());
            continue;
        }
        let entries = std::fs::read_dir(dir).map_err(|e| run::file(dir, &format!("is no run folder: {e}")))?;
        let mut inner: Vec<PathBuf> = entries.filter_map(Result::ok).map(|e| e.path()).filter(|p| is_run(p)).collect();
        if inner.is_empty() {
            return Err(run::file(dir, "holds no run; let `stitchback run` finish in it first"));
        }
        inner.sort();
        out.extend(inner);
    }
    Ok(out)
}
