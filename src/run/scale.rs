//! Scale-out: a plan of tasks, one for each cell; a worker that runs one; a merge that writes the records.
//!
//! Nothing talks to anybody: the run folder is the only truth. A task that is finished is finished, two workers on one task
//! write the same bytes, and the merged records are those of a local run to the last bit.

use super::cell::{self, Outcome};
use super::store::Store;
use super::{Error, Finished, Watch, estimate, provenance, setup};
use crate::attack::AttackConfig;
use crate::study::{Cell, Study};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Memory that a worker with a default victim, judge and decoder needs; a language model as prior adds to it.
const MEMORY_MIB: u64 = 3072;
const PRIOR_MIB: u64 = 1024;

/// One line of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Task {
    /// The cell's id: equal ids stand for equal results.
    pub id: String,
    /// The command that does it, in the folder where the plan was made.
    pub argv: Vec<String>,
    /// Tasks that must be finished before.
    pub deps: Vec<String>,
    /// Threads to give it.
    pub cpus: usize,
    /// Memory to give it, in MiB (estimate).
    pub mem_mb: u64,
    /// How long it takes here, in minutes (estimate: the study's mean).
    pub minutes: f64,
    /// The run folder; its `plan.toml` is the study.
    pub folder: PathBuf,
    /// For people: protection, attack, seed.
    pub what: String,
}

/// What became of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// It was finished already.
    Before,
    /// It is finished now.
    Now,
    /// It failed, for this reason; running it again tries again.
    Failed(String),
}

/// The tasks of a study; writes the resolved study into the run folder. `plan_file` stands in the tasks' commands.
pub fn plan(study: &Study, folder: &Path, plan_file: &str, watch: &dyn Watch) -> Result<Vec<Task>, crate::Error> {
    let store = Store::open(folder)?;
    store.write("plan.toml", study.to_toml().as_bytes())?;
    let materials = setup::open(study, watch)?;
    let bench = materials.bench(study, watch)?;
    let cells = study.cells();
    let minutes = estimate::minutes(&bench)? / cells.len() as f64;
    let prior = if bench.prior.is_some() { PRIOR_MIB } else { 0 };
    let ids: Vec<String> = cells.iter().map(|c| cell::id(&bench, c)).collect();
    let tasks = cells.iter().enumerate().map(|(index, one)| Task {
        id: ids[index].clone(),
        argv: ["stitchback", "task", "--plan", plan_file, "--index", &index.to_string()].map(str::to_owned).to_vec(),
        deps: depends(study, &cells, one).into_iter().map(|i| ids[i].clone()).collect(),
        cpus: rayon::current_num_threads(),
        mem_mb: MEMORY_MIB + prior,
        minutes: (minutes * 100.0).ceil() / 100.0,
        folder: folder.to_owned(),
        what: format!("{} x {}, seed {}", study.protect[one.protection].name, study.attack_name(one), one.seed),
    });
    Ok(tasks.collect())
}

/// `best_of` chooses among the guesses of its rivals.
fn depends(study: &Study, cells: &[Cell], of: &Cell) -> Vec<usize> {
    let chooses = of.attack.is_some_and(|a| matches!(study.attack[a].config, AttackConfig::BestOf(_)));
    let rival = |c: &Cell| {
        (c.protection, c.seed, c.adaptive) == (of.protection, of.seed, of.adaptive)
            && c.attack.is_some_and(|a| study.attack[a].config.is_rival())
    };
    (0..cells.len()).filter(|&i| chooses && rival(&cells[i])).collect()
}

/// The tasks of a plan file.
///
/// # Errors
/// A line that is no task.
pub fn read_plan(path: &Path) -> Result<Vec<Task>, Error> {
    let shown = || path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|source| Error::Io { path: shown(), source })?;
    let parse = |(i, line): (usize, &str)| {
        let why = |e: serde_json::Error| format!("line {} is no task: {e}; make the plan again", i + 1);
        serde_json::from_str(line).map_err(|e| Error::Corrupt { path: shown(), why: why(e) })
    };
    text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).map(parse).collect()
}

/// The study that a run folder was planned for.
///
/// # Errors
/// A folder without a plan.
pub fn planned(folder: &Path) -> Result<Study, crate::Error> {
    let path = folder.join("plan.toml");
    let shown = path.display().to_string();
    let text = std::fs::read_to_string(&path).map_err(|source| Error::Io { path: shown.clone(), source })?;
    Ok(Study::parse(&shown, &text)?)
}

/// Runs the given tasks of one run folder, those first that others wait for; finished ones are left alone, and a cell that
/// fails is recorded like any other.
///
/// # Errors
/// An unknown task, one whose dependencies were not tried yet, or an interruption.
pub fn work(tasks: &[Task], wanted: &[usize], watch: &dyn Watch) -> Result<Vec<Done>, crate::Error> {
    let Some(&first) = wanted.first() else { return Ok(Vec::new()) };
    let folder = &tasks[first].folder;
    let store = Store::open(folder)?;
    let finished = |id: &str| store.cell::<Outcome>(id).is_some();
    if wanted.iter().all(|&i| finished(&tasks[i].id)) {
        return Ok(vec![Done::Before; wanted.len()]);
    }
    let study = planned(folder)?;
    let materials = setup::open(&study, watch)?;
    let bench = materials.bench(&study, watch)?;
    let cells = study.cells();
    let mut done = Vec::with_capacity(wanted.len());
    for &i in wanted {
        let task = &tasks[i];
        if finished(&task.id) {
            done.push(Done::Before);
            continue;
        }
        let path = folder.display().to_string();
        let Some(one) = cells.iter().find(|c| cell::id(&bench, c) == task.id) else {
            let why =
                format!("task {} is none of its cells: data, encoders or the program changed; plan again", task.id);
            return Err(Error::Corrupt { path, why }.into());
        };
        let tried = |id: &String| finished(id) || store.failed::<Outcome>(id).is_some();
        if let Some(missing) = task.deps.iter().find(|id| !tried(id)) {
            return Err(Error::Waiting { task: task.id.clone(), missing: missing.clone() }.into());
        }
        watch.cell(done.len(), wanted.len(), &task.what);
        let outcome = super::attempt(&bench, one, &task.what, &store, watch)?;
        done.push(outcome.error.map_or(Done::Now, Done::Failed));
    }
    Ok(done)
}

/// Writes records, summary and manifest of a planned run from what its tasks left behind.
///
/// # Errors
/// [`Error::Unfinished`] where tasks were never tried, [`Error::Inconsistent`] as for a local run.
pub fn merge(folder: &Path, watch: &dyn Watch) -> Result<Finished, crate::Error> {
    let meter = provenance::Meter::start();
    let store = Store::open(folder)?;
    let study = planned(folder)?;
    let materials = setup::open(&study, watch)?;
    let bench = materials.bench(&study, watch)?;
    let cells = study.cells();
    let found: Vec<Option<Outcome>> = cells.iter().map(|c| cell::tried_before(&bench, c, &store)).collect();
    let missing = found.iter().filter(|o| o.is_none()).count();
    if let Some(first) = found.iter().position(Option::is_none) {
        let one = &cells[first];
        let first = format!("{} x {}, seed {}", study.protect[one.protection].name, study.attack_name(one), one.seed);
        return Err(Error::Unfinished { missing, of: cells.len(), first }.into());
    }
    let outcomes: Vec<Outcome> = found.into_iter().flatten().collect();
    super::finish(&bench, &store, &materials, &outcomes, &meter)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::Progress;
    use crate::data::asset::Report;

    /// Nobody watches.
    struct Alone;
    impl Progress for Alone {
        fn update(&self, _: usize, _: usize, _: &str) {}
        fn is_interrupted(&self) -> bool {
            false
        }
    }
    impl Report for Alone {
        fn message(&self, _: &str) {}
        fn progress(&self, _: u64, _: u64) {}
    }
    impl Watch for Alone {
        fn cell(&self, _: usize, _: usize, _: &str) {}
    }

    const STUDY: &str = r#"
schema = 1
name = "scale"
seeds = [1]
[data]
corpus = "toy"
targets = 20
validation = 8
auxiliary = 100
[encode]
victim = "toy"
judges = ["toy-judge"]
[[protect]]
name = "unprotected"
pipeline = "identity"
[[protect]]
name = "noisy"
pipeline = "clip(l2=1) | gaussian(sigma=5)"
[[attack]]
kind = "blind"
steps = 2
adapt_steps = 1
batch = 8
[[attack]]
kind = "nearest"
"#;

    /// A decoder whose weights are not there fails in every cell, and `best_of` behind it.
    const BROKEN: &str =
        "[[attack]]\nkind = \"decoder\"\npretrained = \"no/such/folder\"\n[[attack]]\nkind = \"best_of\"\n";

    fn planned_in(folder: &Path, study: &str) -> Vec<Task> {
        let study = Study::parse("scale.toml", study).expect("valid");
        plan(&study, folder, "plan.jsonl", &Alone).expect("a toy study")
    }

    #[test]
    fn a_task_that_fails_is_recorded_and_the_rest_goes_on() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let tasks = planned_in(folder.path(), &format!("{STUDY}{BROKEN}"));
        let all: Vec<usize> = (0..tasks.len()).collect();
        let chooser = tasks.iter().position(|t| t.what.contains("best_of")).expect("planned");
        let early = work(&tasks, &[chooser], &Alone).expect_err("nothing was tried");
        assert!(early.to_string().contains("waits for"), "{early}");
        let broken = |what: &str| what.contains("decoder") || what.contains("best_of");
        for first in [true, false] {
            let done = work(&tasks, &all, &Alone).expect("failures are recorded");
            for (task, done) in tasks.iter().zip(done) {
                match done {
                    Done::Failed(why) => assert!(broken(&task.what) && !why.is_empty(), "{}: {why}", task.what),
                    done => assert_eq!((done == Done::Now, broken(&task.what)), (first, false), "{}", task.what),
                }
            }
        }
        let finished = merge(folder.path(), &Alone).expect("every task was tried");
        assert_eq!(finished.failed.len(), 4, "{:?}", finished.failed);
        assert!(finished.failed[0].starts_with("unprotected x decoder, seed 1: "), "{:?}", finished.failed);
        let noisy = &finished.summary.protections[1];
        assert_eq!(noisy.best_attack.as_deref(), Some("nearest"));
        assert_eq!(noisy.verdict, "inconclusive: decoder, best_of failed");
        assert_ne!(finished.summary.claim.holds, Some(true));
        let records = std::fs::read_to_string(folder.path().join("records.jsonl")).expect("written");
        assert_eq!(records.lines().filter(|line| line.contains("no/such/folder")).count(), 2, "the decoder's errors");
    }

    #[test]
    fn a_merge_that_cannot_be_true_is_refused_like_a_local_run() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let tasks = planned_in(folder.path(), STUDY);
        work(&tasks, &(0..tasks.len()).collect::<Vec<_>>(), &Alone).expect("a toy study");
        merge(folder.path(), &Alone).expect("as measured");
        let store = Store::open(folder.path()).expect("opens");
        let release = tasks.iter().find(|t| t.what == "noisy x release, seed 1").expect("planned");
        let mut outcome: Outcome = store.cell(&release.id).expect("finished");
        let picked = outcome.test.get_mut("identified_top1").expect("scored");
        picked.fill(Some(1.0));
        store.keep_cell(&outcome.id, &outcome).expect("writes");
        let error = merge(folder.path(), &Alone).err().expect("twenty of twenty under such noise");
        assert!(error.to_string().contains("where the noise allows"), "{error}");
        assert_eq!(error.exit(), crate::Exit::Internal);
    }
}
