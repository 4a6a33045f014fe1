//! A baseline: what an earlier run scored, target by target, and what it was made from. Numbers and hashes only.

use super::Error;
use super::policy::WORST;
use super::run::{Run, file, json};
use super::series::Series;
use serde::{Deserialize, Serialize};
use std::path::Path;

const SCHEMA: &str = "stitchback/baseline/v1";

/// What later runs are compared with.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Baseline {
    schema: String,
    entries: Vec<Entry>,
}

/// One figure of one protection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    corpus: String,
    protection: String,
    /// `worst`, or the attack's name.
    asked: String,
    metric: String,
    fingerprint: Fingerprint,
    kind: String,
    a: Vec<Vec<Option<f64>>>,
    b: Vec<Vec<Option<f64>>>,
}

/// Scores may be compared only where all of this agrees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fingerprint {
    metric_version: u32,
    data: String,
    victim: String,
    judges: Vec<String>,
    attack: String,
}

impl Fingerprint {
    fn of(run: &Run, asked: &str, version: u32) -> Self {
        let evidence = &run.evidence;
        let attack = match evidence.attacks.get(asked) {
            Some(hash) => hash.clone(),
            // The worst of all attackers: any change to one of them may change which it is.
            None if asked == WORST => {
                let mut hasher = blake3::Hasher::new_derive_key("stitchback baseline attackers v1");
                for (name, hash) in &evidence.attacks {
                    hasher.update(name.as_bytes());
                    hasher.update(hash.as_bytes());
                }
                hasher.finalize().to_hex()[..32].to_owned()
            }
            None => String::new(),
        };
        Self {
            metric_version: version,
            data: evidence.data.clone(),
            victim: evidence.victim.clone(),
            judges: evidence.judges.clone(),
            attack,
        }
    }

    fn difference(&self, other: &Self) -> Option<&'static str> {
        [
            (self.victim != other.victim, "the encoder under attack"),
            (self.judges != other.judges, "the judges"),
            (self.data != other.data, "the data or its split"),
            (self.attack != other.attack, "the attackers, or what they know,"),
            (self.metric_version != other.metric_version, "the metric's version"),
        ]
        .into_iter()
        .find_map(|(differs, what)| differs.then_some(what))
    }
}

/// Why there is nothing to compare with.
pub(super) enum Absent {
    /// The baseline knows nothing of this.
    Entry,
    /// It was made from something else.
    Incompatible(&'static str),
}

impl Baseline {
    /// Reads a baseline that `gate --save-baseline` wrote.
    ///
    /// # Errors
    /// A file that is missing, malformed or of another schema.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let baseline: Self = json(path)?;
        if baseline.schema != SCHEMA {
            return Err(file(path, &format!("has schema `{}`, this program reads `{SCHEMA}`", baseline.schema)));
        }
        Ok(baseline)
    }

    /// The file's text.
    pub fn to_json(&self) -> Result<String, Error> {
        serde_json::to_string(self)
            .map(|text| text + "\n")
            .map_err(|e| Error::Serialize { format: "the baseline", why: e.to_string() })
    }

    pub(super) fn new(entries: Vec<Entry>) -> Self {
        let mut unique: Vec<Entry> = Vec::with_capacity(entries.len());
        for entry in entries {
            let same = |e: &Entry| {
                (&e.corpus, &e.protection, &e.asked, &e.metric)
                    == (&entry.corpus, &entry.protection, &entry.asked, &entry.metric)
            };
            if !unique.iter().any(same) {
                unique.push(entry);
            }
        }
        Self { schema: SCHEMA.to_owned(), entries: unique }
    }

    /// The earlier scores of a figure.
    pub(super) fn series(
        &self,
        run: &Run,
        protection: &str,
        asked: &str,
        metric: &str,
        version: u32,
        range: (f64, f64),
    ) -> Result<Series, Absent> {
        let entry = self.entries.iter().find(|e| {
            e.corpus == run.evidence.corpus && e.protection == protection && e.asked == asked && e.metric == metric
        });
        let entry = entry.ok_or(Absent::Entry)?;
        if let Some(what) = Fingerprint::of(run, asked, version).difference(&entry.fingerprint) {
            return Err(Absent::Incompatible(what));
        }
        Series::from_parts(&entry.kind, entry.a.clone(), entry.b.clone(), range)
            .ok_or(Absent::Incompatible("the shape of the scores"))
    }
}

impl Entry {
    pub(super) fn new(run: &Run, protection: &str, asked: &str, metric: &str, version: u32, series: &Series) -> Self {
        let (kind, a, b) = series.parts();
        Self {
            corpus: run.evidence.corpus.clone(),
            protection: protection.to_owned(),
            asked: asked.to_owned(),
            metric: metric.to_owned(),
            fingerprint: Fingerprint::of(run, asked, version),
            kind: kind.to_owned(),
            a: a.clone(),
            b: b.clone(),
        }
    }
}
