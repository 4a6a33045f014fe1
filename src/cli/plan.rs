//! `stitchback plan`, `task` and `merge`: a study on many machines that share a folder.

use super::ui::{self, Terminal};
use super::{Usage, gate, run};
use anyhow::Context as _;
use std::path::PathBuf;
use stitchback::gate::output;
use stitchback::run::scale::{self, Done};
use stitchback::{Exit, report};

/// Write the tasks of a study, one JSON object a line, for any scheduler; each is one cell
#[derive(Debug, clap::Args)]
pub(crate) struct PlanArgs {
    /// The study file; of one corpus
    study: PathBuf,
    /// The run folder that all workers share
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Where the plan goes [default: plan.jsonl in the run folder]
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,
    /// Print nothing but errors
    #[arg(long)]
    quiet: bool,
}

/// Run tasks of a plan: at once done where they are finished, else computed and kept (75: try again; 70: one failed)
#[derive(Debug, clap::Args)]
pub(crate) struct TaskArgs {
    /// The plan
    #[arg(long, value_name = "FILE")]
    plan: PathBuf,
    /// A task by its line from 0, or several as A-B
    #[arg(long, value_name = "N|A-B", required_unless_present = "id")]
    index: Option<String>,
    /// A task by its id
    #[arg(long, value_name = "ID", conflicts_with = "index")]
    id: Option<String>,
    /// Threads [default: all cores]
    #[arg(long)]
    threads: Option<usize>,
    /// Print nothing but errors
    #[arg(long)]
    quiet: bool,
}

/// Write the records, summary and report of a planned run from its finished tasks (75 while some are missing)
#[derive(Debug, clap::Args)]
pub(crate) struct MergeArgs {
    /// The run folder, or its plan
    #[arg(value_name = "RUN_DIR|PLAN")]
    run: PathBuf,
    /// Print nothing but errors
    #[arg(long)]
    quiet: bool,
}

pub(crate) fn plan(args: &PlanArgs) -> anyhow::Result<Exit> {
    let study = run::read_study(&args.study)?;
    anyhow::ensure!(
        study.parts().len() == 1,
        Usage("a plan has one corpus: split `data.also` into studies of their own".to_owned())
    );
    let file = args.plan.clone().unwrap_or_else(|| args.out.join("plan.jsonl"));
    let shown = file.to_str().context(Usage("the plan's path must be UTF-8".to_owned()))?;
    let terminal = Terminal::new(args.quiet);
    let tasks = scale::plan(&study, &args.out, shown, &terminal)?;
    terminal.finish();
    let lines = tasks.iter().map(serde_json::to_string).collect::<Result<Vec<_>, _>>()?;
    output::put(&file, &(lines.join("\n") + "\n")).map_err(stitchback::Error::from)?;
    ui::print(&format!("{shown}: {} tasks", tasks.len()))?;
    Ok(Exit::Pass)
}

pub(crate) fn task(args: &TaskArgs) -> anyhow::Result<Exit> {
    if let Some(threads) = args.threads {
        anyhow::ensure!(threads > 0, Usage("--threads must be at least 1".to_owned()));
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build_global()
            .context("cannot start the worker threads")?;
    }
    let tasks = scale::read_plan(&args.plan).map_err(stitchback::Error::from)?;
    let wanted: Vec<usize> = match (&args.id, &args.index) {
        (Some(id), _) => tasks.iter().position(|t| t.id == *id).into_iter().collect(),
        (None, Some(text)) => indices(text).into_iter().filter(|&i| i < tasks.len()).collect(),
        (None, None) => Vec::new(),
    };
    if wanted.is_empty() {
        anyhow::bail!(Usage(format!("the plan has {} tasks and none of these", tasks.len())));
    }
    let terminal = Terminal::new(args.quiet);
    terminal.listen().context("cannot listen for Ctrl-C")?;
    let done = scale::work(&tasks, &wanted, &terminal)?;
    terminal.finish();
    let mut exit = Exit::Pass;
    for (&i, done) in wanted.iter().zip(&done) {
        let how = match done {
            Done::Before => "finished before",
            Done::Now => "done",
            Done::Failed(why) => {
                terminal.warn(&format!("{}: {why}", tasks[i].what));
                exit = Exit::Internal;
                "failed"
            }
        };
        ui::print(&format!("{} {how}: {}", tasks[i].id, tasks[i].what))?;
    }
    Ok(exit)
}

/// `7`, or `3-9`.
fn indices(text: &str) -> Vec<usize> {
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    match (from.trim().parse::<usize>(), to.trim().parse::<usize>()) {
        (Ok(from), Ok(to)) if to.saturating_sub(from) < 1_000_000 => (from..=to).collect(),
        _ => Vec::new(),
    }
}

pub(crate) fn merge(args: &MergeArgs) -> anyhow::Result<Exit> {
    let folder = if args.run.is_file() {
        let tasks = scale::read_plan(&args.run).map_err(stitchback::Error::from)?;
        tasks.first().context(Usage("the plan has no task".to_owned()))?.folder.clone()
    } else {
        args.run.clone()
    };
    // As in a local run, a policy with problems is told before the work.
    let policy = gate::policy_of(&scale::planned(&folder)?)?;
    let terminal = Terminal::new(args.quiet);
    let finished = scale::merge(&folder, &terminal)?;
    terminal.finish();
    let html = folder.join("report.html");
    report::write(std::slice::from_ref(&folder), &html, report::Options::default()).map_err(stitchback::Error::from)?;
    report::write_plots(&folder).map_err(stitchback::Error::from)?;
    ui::print(&html.display().to_string())?;
    for failure in &finished.failed {
        terminal.warn(failure);
    }
    let exit = if !finished.failed.is_empty() {
        Exit::Internal
    } else if finished.summary.attacker_strong_enough {
        Exit::Pass
    } else {
        Exit::Inconclusive
    };
    Ok(match &policy {
        Some(policy) => exit.or(gate::conclude(std::slice::from_ref(&folder), policy, false)?),
        None => exit,
    })
}
