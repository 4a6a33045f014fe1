//! One study end to end: cells, the store, records, provenance.
//!
//! ```text
//! study ──► bench (records, split, vectors) ──► cells, one by one ──► store ──► records.jsonl, summary.json
//! ```
//!
//! A run can be killed at any moment: finished cells are kept by content, trainings by checkpoint, and the same command
//! goes on from there to the same bytes.

pub mod artifact;
pub mod bench;
pub mod cell;
pub mod estimate;
pub mod evidence;
pub mod oracle;
pub mod pretrain;
pub mod pretrain_pictures;
pub mod provenance;
pub mod record;
pub mod reproduce;
pub mod rows;
pub mod scale;
pub mod scores;
pub mod setup;
pub mod sheet;
pub mod store;
pub mod summary;

use crate::error::Exit;
use crate::study::{Protection, Study};
use crate::{attack, data::asset};
use cell::Outcome;
use record::{Curve, GuaranteeRecord, Row, Summary};
use serde_json::json;
use std::path::{Path, PathBuf};
use store::Store;

/// Who watches a run: fetches, trainings, searches, and the cells as a whole.
pub trait Watch: asset::Report + attack::Progress {
    /// `done` of `total` cells are finished; `name` is the next one.
    fn cell(&self, done: usize, total: usize, name: &str);
}

/// What a finished run tells its caller.
pub struct Finished {
    /// The run folder.
    pub folder: PathBuf,
    /// The verdicts.
    pub summary: Summary,
    /// Cells that ended in an error, with its text.
    pub failed: Vec<String>,
}

/// Runs every cell of a study that is not finished yet, then writes records, summary and manifest.
pub fn execute(study: &Study, out: Option<&Path>, watch: &dyn Watch) -> Result<Finished, crate::Error> {
    let meter = provenance::Meter::start();
    let plan = study.to_toml();
    let folder = out.map_or_else(
        || {
            let hash = blake3::hash(plan.as_bytes()).to_hex();
            Path::new("reports").join(format!("{}-{}", study.name, &hash[..8]))
        },
        Path::to_owned,
    );
    let store = Store::open(&folder)?;
    store.write("plan.toml", plan.as_bytes())?;

    let materials = setup::open(study, watch)?;
    let bench = materials.bench(study, watch)?;
    let cells = study.cells();
    let finished = |cell: &crate::study::Cell| cell::recall(&bench, cell, &store);
    let open = cells.iter().filter(|c| finished(c).is_none()).count();
    watch.message(&estimate::sentence(&bench, open, cells.len())?);

    let mut outcomes = Vec::with_capacity(cells.len());
    for (done, one) in cells.iter().enumerate() {
        let attack = study.attack_name(one);
        let name = format!("{} x {attack}, seed {}", study.protect[one.protection].name, one.seed);
        watch.cell(done, cells.len(), &name);
        if let Some(outcome) = finished(one) {
            outcomes.push(outcome);
            continue;
        }
        if watch.is_interrupted() {
            return Err(Error::Interrupted.into());
        }
        outcomes.push(attempt(&bench, one, &name, &store, watch)?);
    }
    watch.cell(cells.len(), cells.len(), "records");
    finish(&bench, &store, &materials, &outcomes, &meter)
}

/// Runs a cell and keeps what became of it: its outcome, or why it has none. Only an interruption is an error.
fn attempt(
    bench: &bench::Bench,
    one: &crate::study::Cell,
    name: &str,
    store: &Store,
    watch: &dyn Watch,
) -> Result<Outcome, crate::Error> {
    match cell::run(bench, one, store, watch) {
        Ok(outcome) => {
            store.keep_cell(&outcome.id, &outcome)?;
            Ok(outcome)
        }
        Err(error) if error.exit() == Exit::Interrupted => Err(error),
        Err(error) => {
            let outcome = cell::failed(bench, one, &error);
            watch.message(&format!("{name} failed: {}", outcome.error.as_deref().unwrap_or_default()));
            store.keep_failed(&outcome.id, &outcome)?;
            Ok(outcome)
        }
    }
}

/// Records, summary and manifest of all outcomes, if they can be true.
fn finish(
    bench: &bench::Bench,
    store: &Store,
    materials: &setup::Materials,
    outcomes: &[Outcome],
    meter: &provenance::Meter,
) -> Result<Finished, crate::Error> {
    let summary = write(bench, store, outcomes)?;
    manifest(bench, store, materials, outcomes, meter)?;
    oracle::check(bench, outcomes)?;
    let why = |o: &Outcome| {
        o.error.as_ref().map(|error| format!("{} x {}, seed {}: {error}", o.protection, o.attack, o.seed))
    };
    Ok(Finished { folder: store.root().to_owned(), summary, failed: outcomes.iter().filter_map(why).collect() })
}

/// Records, curves and summary: pure functions of the outcomes.
fn write(bench: &bench::Bench, store: &Store, outcomes: &[Outcome]) -> Result<Summary, crate::Error> {
    use rayon::prelude::*;
    let blind = |of: &Outcome| {
        outcomes
            .iter()
            .find(|o| o.attack == "blind" && o.protection == of.protection && o.seed == of.seed && o.error.is_none())
    };
    let rows: Vec<Vec<Row>> =
        outcomes.par_iter().map(|o| rows::rows(bench, o, blind(o))).collect::<Result<_, crate::Error>>()?;
    let paired: Vec<Row> = pairs(bench, outcomes)
        .into_par_iter()
        .map(|(a, b)| rows::paired(bench, a, b))
        .collect::<Result<_, crate::Error>>()?;
    store.write_lines("records.jsonl", rows.iter().flatten().chain(&paired))?;
    let curves = outcomes.iter().flat_map(|o| {
        o.curves.iter().map(|c| Curve {
            cell: o.id.clone(),
            protection: o.protection.clone(),
            attack: o.attack.clone(),
            seed: o.seed,
            title: c.title.clone(),
            x_label: c.x_label.clone(),
            points: c.points.clone(),
        })
    });
    store.write_lines("curves.jsonl", curves)?;
    let summary = summary::summary(bench, outcomes)?;
    store.write_json("summary.json", &summary)?;
    store.write_json("evidence.json", &evidence::evidence(bench))?;
    Ok(summary)
}

/// Which attackers are compared target by target: each one with retrieval, and with its own non-adaptive twin.
fn pairs<'a>(bench: &bench::Bench, outcomes: &'a [Outcome]) -> Vec<(&'a Outcome, &'a Outcome)> {
    let rivals: Vec<&str> =
        bench.study.attack.iter().filter(|a| a.config.is_rival()).map(|a| a.name.as_str()).collect();
    let scored = |o: &&Outcome| o.error.is_none() && o.test.contains_key("judge_cosine");
    outcomes
        .iter()
        .filter(|o| scored(o) && rivals.contains(&o.attack.as_str()))
        .flat_map(|o| {
            let others = ["nearest".to_owned(), crate::study::twin(&o.attack)];
            outcomes
                .iter()
                .filter(scored)
                .filter(|other| other.protection == o.protection && other.seed == o.seed && other.attack != o.attack)
                .filter(move |other| others.contains(&other.attack))
                .map(move |other| (o, other))
        })
        .collect()
}

fn manifest(
    bench: &bench::Bench,
    store: &Store,
    materials: &setup::Materials,
    outcomes: &[Outcome],
    meter: &provenance::Meter,
) -> Result<(), crate::Error> {
    let costs: Vec<_> = outcomes
        .iter()
        .filter(|o| o.error.is_none())
        .map(|o| {
            json!({"cell": o.id, "protection": o.protection, "attack": o.attack, "seed": o.seed, "targets": o.n,
                        "released": o.released, "adaptive": o.adaptive, "pretrained": o.origin, "assumed_sigma": o.assumed_sigma, "knowledge": o.knowledge, "cost": o.cost})
        })
        .collect();
    store.write_json(
        "manifest.json",
        &json!({
            "schema": "stitchback/manifest/v1",
            "environment": provenance::environment(rayon::current_num_threads()),
            "study": bench.study.name,
            "seeds": bench.study.seeds,
            "private": false,
            "seeded": true,
            "inputs": materials.provenance(),
            "split": materials.split_report(bench),
            "fingerprint": bench.fingerprint,
            "wall_s": meter.wall_s(),
            "cpu_s": meter.cpu_s(),
            "peak_memory_mib": provenance::peak_memory_mib(),
            "attacks": costs,
        }),
    )?;
    Ok(())
}

/// A protection's claim as records state it.
pub fn guarantee(protection: &Protection, dim: usize) -> GuaranteeRecord {
    let claim = protection.pipeline.claim_at(dim).after(protection.releases as u32);
    let delta = protection.pipeline.delta();
    let epsilon = claim.epsilon(delta);
    GuaranteeRecord {
        kind: claim.kind().to_owned(),
        epsilon,
        releases: protection.releases,
        delta: epsilon.map(|_| delta),
        sigma: claim.sigma(),
        mu: claim.mu(),
        adjacency: claim.adjacency.to_string(),
        unit_of_privacy: claim.unit_of_privacy.clone(),
        note: claim.note(),
    }
}

/// Why a run folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the run folder cannot be written or read.
    #[error("run folder: cannot use `{path}`; choose a writable folder with --out")]
    Io {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The run was interrupted; everything finished so far is kept.
    #[error("interrupted; run the same command again to resume")]
    Interrupted,
    /// Attackers were better than the noise allows: the noise, the split or the bound is wrong.
    #[error(
        "inconsistent: {what}; the noise, the split or the accounting is wrong, so that no figure of this run counts"
    )]
    Inconsistent {
        /// Every figure above its bound.
        what: String,
    },
    /// A task that waits for another one.
    #[error("task {task} waits for {missing}; run that one first")]
    Waiting {
        /// The task.
        task: String,
        /// What it waits for.
        missing: String,
    },
    /// A merge before all tasks are finished.
    #[error("{missing} of {of} tasks are not finished, the first is {first}; run them and merge again")]
    Unfinished {
        /// How many are missing.
        missing: usize,
        /// How many there are.
        of: usize,
        /// The first of them.
        first: String,
    },
    /// A stored object is not what its name promises.
    #[error("stored object `{path}`: {why}")]
    Corrupt {
        /// The file.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// An attack on texts in a study of pictures, or the other way round.
    #[error("attack `{attack}` does not work on `{corpus}`, which holds {holds}; attacks that do: {fitting}")]
    Medium {
        /// The attack's name in the study.
        attack: String,
        /// The corpus.
        corpus: String,
        /// `texts` or `pictures`.
        holds: &'static str,
        /// Kinds that work.
        fitting: String,
    },
}

impl Error {
    /// The exit code that stands for this failure.
    pub fn exit(&self) -> Exit {
        match self {
            Error::Inconsistent { .. } => Exit::Internal,
            Error::Interrupted | Error::Waiting { .. } | Error::Unfinished { .. } => Exit::Interrupted,
            Error::Medium { .. } => Exit::Usage,
            Error::Io { .. } | Error::Corrupt { .. } => Exit::Input,
        }
    }
}
