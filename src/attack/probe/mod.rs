//! Attackers that infer a fact instead of writing a text.
//!
//! | probe | what it asks | what it costs |
//! |---|---|---|
//! | [`attribute::Attribute`] | which topic, which sender, does it name somebody? | a logistic regression for each question |
//! | [`slots::Slots`] | which of N names, dates, codes stands in a form whose wording is known? | encoder queries for the dictionary |
//! | [`linkage::Linkage`] | are two releases of one text? is this text in the store? | products |
//! | [`membership::Membership`] | was this record released, and not another one of its topic? | products |
//!
//! A fact can be read long after no text can be written: a low leak alone calls nothing safe. Every probe works in three
//! phases that its `run` shows one after the other: it is *fitted* on the [`View`], it *answers* from released vectors,
//! and only then the truth in the [`Field`] *scores* the answers.
//!
//! To add one: a file, a variant of [`AttackConfig`](super::AttackConfig) with its arms, an example, a known-answer test.

pub mod attribute;
mod dictionary;
mod gaussian;
pub mod linkage;
mod logistic;
pub mod membership;
pub mod slots;

use super::{Curve, Error, Knowledge, Progress, View, adapt};
use crate::data::Record;
use crate::encode::Embeddings;
use crate::measure::statistics::{self, Design, Estimate, Table, Weights};
use crate::protect::{Pipeline, StageConfig};
use crate::seed;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// An attacker that infers facts.
pub trait Probe {
    /// What it must be granted.
    fn needs(&self) -> Knowledge;

    /// Fits on the view, answers from released vectors, scores against the truth.
    fn run(&self, view: &View, field: &Field, progress: &dyn Progress) -> Result<Findings, Error>;
}

/// The victim's side: the releases that a probe faces, and the truth that scores its answers.
pub struct Field<'a> {
    /// The target records; truth, for the last phase.
    pub records: &'a [Record],
    /// Their clean vectors: the truth behind [`Field::released`], and what further releases are made of.
    pub clean: &'a Embeddings,
    /// Their strata.
    pub strata: &'a [u32],
    /// Number of each target's document.
    pub clusters: &'a [u32],
    /// What the attacker sees of each target, averaged over its releases.
    pub released: &'a Embeddings,
    /// The protection.
    pub pipeline: &'a Pipeline,
    /// Independent releases of each record.
    pub releases: usize,
    /// The seed.
    pub seed: u64,
    /// Names the cell.
    pub task: &'a str,
}

/// Rows as the pipeline leaves them before they are averaged and noised.
fn alone(view: &View, clean: Embeddings, purpose: &str) -> Result<Embeddings, Error> {
    let quiet = view.pipeline.without_noise();
    let stages: Vec<StageConfig> = quiet.stages().iter().filter(|s| !s.groups()).cloned().collect();
    if stages.is_empty() {
        return Ok(clean);
    }
    let mut rng = seed::stream(view.seed, &view.fingerprint, purpose);
    Ok(Pipeline::new(stages)?.release(&clean, None, &mut rng)?.vectors)
}

impl Field<'_> {
    /// Sends records of the victim's through the real pipeline with noise of their own, named by `purpose`.
    pub fn release(&self, clean: &Embeddings, strata: &[u32], purpose: &str) -> Result<Embeddings, Error> {
        adapt::release(self.pipeline, clean, strata, self.releases, |k| {
            seed::stream(self.seed, self.task, &format!("{purpose} {k}"))
        })
    }

    /// Documents behind the targets.
    fn documents(&self) -> usize {
        let mut clusters = self.clusters.to_vec();
        clusters.sort_unstable();
        clusters.dedup();
        clusters.len()
    }
}

/// What one figure of a probe means: its question, and what to hold it against.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Inference {
    /// The question in words, with the number of possible answers and what the attacker knows.
    pub question: String,
    /// `share`, `bits` or `area`.
    pub unit: String,
    /// Whether it stands in the report's table, or only among all metrics.
    pub headline: bool,
    /// Lowest and highest possible value.
    pub range: (f64, f64),
    /// What guessing scores.
    pub chance: Option<f64>,
    /// What a reader of the original text scores with the same method.
    pub ceiling: Option<f64>,
    /// The most that the pipeline's guarantee allows; `None` without one.
    pub allowed: Option<f64>,
    /// The measured value lies above what the guarantee allows, beyond its interval.
    pub exceeds_claim: bool,
    /// Targets scored.
    pub n: usize,
}

impl Inference {
    fn share(question: String, chance: f64) -> Self {
        Self {
            question,
            unit: "share".to_owned(),
            headline: true,
            range: (0.0, 1.0),
            chance: Some(chance),
            ceiling: None,
            allowed: None,
            exceeds_claim: false,
            n: 0,
        }
    }
}

/// What a probe found out.
#[derive(Debug, Clone, Default)]
pub struct Findings {
    /// One list for each metric, one entry for each target; `None` where the question does not apply to it.
    pub scores: BTreeMap<String, Vec<Option<f64>>>,
    /// Figures of all targets together that are no mean over targets.
    pub aggregates: BTreeMap<String, Estimate>,
    /// What each of them means, by metric id.
    pub meaning: BTreeMap<String, Inference>,
    /// Learning curves.
    pub curves: Vec<Curve>,
    /// Encoder queries that the attacker spent.
    pub queries: usize,
}

impl Findings {
    /// A figure that is the mean over the targets it applies to; left out where it applies to none.
    fn per_target(&mut self, id: String, scores: Vec<Option<f64>>, meaning: Inference) {
        let n = scores.iter().flatten().count();
        if n > 0 {
            self.scores.insert(id.clone(), scores);
            self.meaning.insert(id, Inference { n, ..meaning });
        }
    }

    /// A figure of all targets together, with its interval over documents.
    fn together(&mut self, id: String, statistic: &dyn Fn(&Weights) -> Option<f64>, field: &Field, meaning: Inference) {
        let design = Design::clustered(field.clusters, 1);
        let mut rng = seed::stream(field.seed, field.task, &format!("interval {id}"));
        if let Some(bootstrap) = statistics::bootstrap(statistic, &design, &mut rng) {
            self.aggregates.insert(id.clone(), bootstrap.estimate(Some(meaning.range)));
            self.meaning.insert(id, meaning);
        }
    }
}

/// The mean of the scores that are there.
fn mean(scores: &[Option<f64>]) -> Option<f64> {
    let table = Table::one(scores).ok()?;
    table.mean(&Design::independent(scores.len(), 1).once())
}

/// What tests of all probes share: a view and a field over the toy corpus and encoder.
#[cfg(test)]
mod bench {
    use super::*;
    use crate::attack::Quiet;
    use crate::data::Keep;
    use crate::data::corpus;
    use crate::encode::{Encoder, Toy};

    /// Runs a probe on toy records behind `pipeline`.
    pub(super) fn run(probe: &dyn Probe, pipeline: &str) -> Findings {
        run_claiming(probe, pipeline, pipeline)
    }

    /// Runs a probe on toy records that went through `real`, which is said to be `pipeline`.
    pub(super) fn run_claiming(probe: &dyn Probe, real: &str, pipeline: &str) -> Findings {
        let keep = Keep { min_chars: 5, max_chars: 300, min_words: 2, ..Keep::default() };
        let corpus = corpus::open::<crate::Error>("toy", &keep, &mut |_, _| panic!("the toy corpus is made up"));
        let corpus = corpus.expect("a corpus");
        let (targets, auxiliary): (Vec<Record>, Vec<Record>) =
            corpus.records.into_iter().enumerate().map(|(i, r)| (i / 8 % 4 == 0, r)).fold(
                (Vec::new(), Vec::new()),
                |mut sides, (is_target, r)| {
                    if is_target {
                        sides.0.push(r);
                    } else {
                        sides.1.push(r);
                    }
                    sides
                },
            );
        let encoder = Toy::new();
        let encode = |records: &[Record]| {
            encoder.encode(&records.iter().map(|r| r.text.as_str()).collect::<Vec<_>>()).expect("words")
        };
        let (clean, own) = (encode(&targets), encode(&auxiliary));
        let pipeline: Pipeline = pipeline.parse().expect("valid");
        let strata = |records: &[Record]| vec![0; records.len()];
        let workshop = tempfile::tempdir().expect("a temporary folder");
        let own_strata = strata(&auxiliary);
        let leaked = Embeddings::empty(own.dim());
        let view = View {
            auxiliary: &auxiliary,
            clean: &own,
            strata: &own_strata,
            pipeline: &pipeline,
            leaked: &leaked,
            releases: 1,
            denoising: crate::attack::denoise::Denoising::Wiener,
            encoder: &encoder,
            prior: None,
            surrogate: None,
            seed: 5,
            inputs: "toy".to_owned(),
            fingerprint: "toy".to_owned(),
            workshop: workshop.path(),
        };
        let strata = strata(&targets);
        let real: Pipeline = real.parse().expect("valid");
        let released =
            adapt::release(&real, &clean, &strata, 1, |_| seed::stream(5, "t", "targets")).expect("released");
        let clusters: Vec<u32> = (0..targets.len() as u32).map(|i| i / 8).collect();
        let field = Field {
            records: &targets,
            clean: &clean,
            strata: &strata,
            clusters: &clusters,
            released: &released,
            pipeline: &pipeline,
            releases: 1,
            seed: 5,
            task: "t",
        };
        probe.run(&view, &field, &Quiet).expect("runs")
    }

    /// The value of a metric.
    pub(super) fn value(findings: &Findings, id: &str) -> f64 {
        let aggregate = findings.aggregates.get(id).map(|e| e.value);
        aggregate.or_else(|| mean(findings.scores.get(id)?)).unwrap_or_else(|| panic!("{id} is missing"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::{AttackConfig, Attacker};

    #[test]
    fn every_probe_scores_each_target_once_in_the_declared_range_and_twice_alike() {
        for config in AttackConfig::examples() {
            let Attacker::Infers(probe) = config.build() else { continue };
            let findings = bench::run(probe.as_ref(), "clip(l2=1) | gaussian(sigma=0.3)");
            assert!(!findings.meaning.is_empty(), "{}", config.kind());
            for (id, meaning) in &findings.meaning {
                let in_range = |v: f64| (meaning.range.0..=meaning.range.1).contains(&v);
                assert!(meaning.chance.is_some_and(in_range), "{id}: {:?}", meaning.chance);
                if let Some(scores) = findings.scores.get(id) {
                    assert_eq!(scores.len(), 160, "{id}");
                    assert!(scores.iter().flatten().all(|&s| in_range(s)), "{id}");
                    assert_eq!(meaning.n, scores.iter().flatten().count(), "{id}");
                } else {
                    assert!(in_range(findings.aggregates[id].value), "{id}");
                }
            }
            let again = bench::run(probe.as_ref(), "clip(l2=1) | gaussian(sigma=0.3)");
            assert_eq!(findings.scores, again.scores, "{}", config.kind());
            assert_eq!(findings.aggregates, again.aggregates, "{}", config.kind());
        }
    }
}
