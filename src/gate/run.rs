//! A run folder as the gate sees it: records, evidence, and cells that are read when a check asks for them.

use super::Error;
use crate::attack::AttackConfig;
use crate::run::cell::Outcome;
use crate::run::evidence::{self, Evidence};
use crate::run::record::{ProtectionSummary, Row, Summary};
use crate::run::store::Store;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;

/// What release cells are called in the records.
pub(super) const RELEASE: [&str; 2] = ["identification", "utility"];

/// A run folder.
pub(super) struct Run {
    pub(super) name: String,
    pub(super) evidence: Evidence,
    pub(super) summary: Summary,
    pub(super) rows: Vec<Row>,
    pub(super) audits: Vec<Audit>,
    store: Store,
    cells: BTreeMap<String, OnceLock<Option<Outcome>>>,
}

/// What an audit of a pipeline found.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Audit {
    pub(super) pipeline: String,
    /// The empirical lower bound on epsilon, between the records that the claim is about.
    pub(super) epsilon_lower: f64,
    /// The largest bound that so many trials can reach.
    pub(super) ceiling: Option<f64>,
    /// The audit's own verdict, which also looks at nearer records and at how the noise is drawn.
    pub(super) refuted: bool,
}

/// The fields of `audit --json` that the gate reads, or the three that matter by themselves.
#[derive(Deserialize)]
struct RawAudit {
    pipeline: String,
    epsilon_lower: Option<f64>,
    ceiling: Option<f64>,
    verdict: Option<String>,
    #[serde(default)]
    pairs: Vec<RawPair>,
    one_run: Option<RawPair>,
}

#[derive(Deserialize)]
struct RawPair {
    distance: Option<f64>,
    epsilon: f64,
    ceiling: f64,
    gaussian: Option<Box<RawPair>>,
}

impl TryFrom<RawAudit> for Audit {
    type Error = &'static str;

    fn try_from(raw: RawAudit) -> Result<Self, Self::Error> {
        // Records nearer than the largest distance have a smaller claim of their own; the verdict speaks for them.
        let whole = raw.pairs.iter().chain(&raw.one_run).filter(|p| p.distance.is_none_or(|d| d >= 1.0));
        let (mut lower, mut ceiling) = (raw.epsilon_lower, raw.ceiling);
        for pair in whole.flat_map(|p| std::iter::once(p).chain(p.gaussian.as_deref())) {
            lower = Some(lower.map_or(pair.epsilon, |l| l.max(pair.epsilon)));
            ceiling = Some(ceiling.map_or(pair.ceiling, |c| c.max(pair.ceiling)));
        }
        let refuted = raw.verdict.as_deref() == Some("refuted");
        let epsilon_lower = lower.ok_or("it gives no lower bound on epsilon")?;
        Ok(Self { pipeline: raw.pipeline, epsilon_lower, ceiling, refuted })
    }
}

/// The cells of one protection and attack, in order of their seeds.
pub(super) struct Arm<'r> {
    pub(super) outcomes: Vec<&'r Outcome>,
    /// Some seed is missing or failed.
    pub(super) missing: bool,
}

impl Run {
    /// Reads a run folder; cells stay on disk until they are asked for.
    pub(super) fn load(dir: &Path, more_audits: &[Audit]) -> Result<Self, Error> {
        let summary: Summary = json(&dir.join("summary.json"))?;
        let evidence: Evidence = json(&dir.join("evidence.json"))?;
        if evidence.schema != evidence::SCHEMA {
            let why = format!("its schema is `{}`, this program reads `{}`", evidence.schema, evidence::SCHEMA);
            return Err(file(&dir.join("evidence.json"), &why));
        }
        let path = dir.join("records.jsonl");
        let text = std::fs::read_to_string(&path).map_err(|e| unreadable(&path, &e))?;
        let parse = |(i, line)| {
            serde_json::from_str::<Row>(line).map_err(|e| file(&path, &format!("line {} is malformed: {e}", i + 1)))
        };
        let rows = text.lines().enumerate().map(parse).collect::<Result<Vec<_>, _>>()?;
        for row in &rows {
            // A name that is no plain file name would lead out of the folder.
            if row.cell.is_empty() || !row.cell.chars().all(|c| c.is_ascii_alphanumeric()) {
                return Err(file(&path, &format!("`{}` is no cell id", row.cell.escape_debug())));
            }
        }
        let mut audits = more_audits.to_vec();
        let recorded = dir.join("audit.json");
        if recorded.exists() {
            audits.extend(read_audits(&recorded)?);
        }
        let cells = rows.iter().map(|r| (r.cell.clone(), OnceLock::new())).collect();
        let name = dir.file_name().map_or_else(|| summary.study.clone(), |n| n.to_string_lossy().into_owned());
        Ok(Self { name, evidence, summary, rows, audits, store: Store::at(dir), cells })
    }

    /// The outcome of a cell; `None` where the file is missing or was changed.
    fn cell(&self, id: &str) -> Option<&Outcome> {
        self.cells.get(id)?.get_or_init(|| self.store.cell(id)).as_ref()
    }

    /// The rows of one metric, in order of their seeds.
    pub(super) fn rows_of(&self, protection: &str, attack: &str, metric: &str) -> Vec<&Row> {
        let mut rows: Vec<&Row> = self
            .rows
            .iter()
            .filter(|r| r.protection == protection && r.attack == attack && r.metric == metric)
            .collect();
        rows.sort_by_key(|r| r.seed);
        rows
    }

    /// The arm behind these rows.
    pub(super) fn arm(&self, protection: &str, attack: &str) -> Arm<'_> {
        let mut seeds: BTreeMap<u64, &str> = BTreeMap::new();
        let mut failed = false;
        for row in self.rows.iter().filter(|r| r.protection == protection && r.attack == attack) {
            failed |= row.error.is_some();
            seeds.insert(row.seed, &row.cell);
        }
        let outcomes: Vec<&Outcome> = seeds.values().filter_map(|id| self.cell(id)).collect();
        let missing = failed || outcomes.len() < self.evidence.seeds.len();
        Arm { outcomes, missing }
    }

    /// The protection that releases the vectors as they are.
    pub(super) fn unprotected(&self) -> Option<&str> {
        self.evidence.protections.iter().find(|(_, pipeline)| pipeline == "identity").map(|(name, _)| name.as_str())
    }

    /// What the summary says of a protection.
    pub(super) fn summed(&self, protection: &str) -> Option<&ProtectionSummary> {
        self.summary.protections.iter().find(|p| p.name == protection)
    }

    /// Attackers that write guesses and lack a seed or failed in one: any of them may have been the worst.
    pub(super) fn failed(&self, protection: &str) -> Vec<&str> {
        let whole = |attack: &str| {
            let rows = self.rows_of(protection, attack, "judge_leak");
            rows.len() >= self.evidence.seeds.len() && rows.iter().all(|r| r.error.is_none())
        };
        let attacks = self.evidence.attacks.keys().map(String::as_str);
        let guess = attacks.filter(|name| !AttackConfig::FLOORS.contains(name) && !AttackConfig::PROBES.contains(name));
        guess.filter(|name| !whole(name)).collect()
    }

    /// The worst adaptive attacker, chosen on validation targets.
    pub(super) fn worst(&self, protection: &str) -> Option<&str> {
        self.summed(protection)?.best_attack.as_deref()
    }
}

/// Audits from a file: one object, or a list of them.
pub(super) fn read_audits(path: &Path) -> Result<Vec<Audit>, Error> {
    let value: serde_json::Value = json(path)?;
    let list = match value {
        serde_json::Value::Array(list) => list,
        one => vec![one],
    };
    let parse = |value| {
        let raw: RawAudit = serde_json::from_value(value).map_err(|e| file(path, &format!("is no audit: {e}")))?;
        Audit::try_from(raw).map_err(|why| file(path, &format!("is no audit: {why}")))
    };
    list.into_iter().map(parse).collect()
}

/// A JSON file.
pub(super) fn json<T: DeserializeOwned>(path: &Path) -> Result<T, Error> {
    let bytes = std::fs::read(path).map_err(|e| unreadable(path, &e))?;
    serde_json::from_slice(&bytes).map_err(|e| file(path, &format!("is malformed: {e}")))
}

fn unreadable(path: &Path, error: &std::io::Error) -> Error {
    if error.kind() == std::io::ErrorKind::NotFound {
        return file(path, "is missing; run the study again in this folder: finished cells are kept");
    }
    file(path, &format!("cannot be read: {error}"))
}

pub(super) fn file(path: &Path, why: &str) -> Error {
    Error::File { path: path.display().to_string(), why: why.to_owned() }
}
