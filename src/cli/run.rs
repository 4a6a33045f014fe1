//! `stitchback run`: the main job.

use super::Usage;
use super::ui::Terminal;
use anyhow::Context;
use std::path::{Path, PathBuf};
use stitchback::run::{self, record::Summary};
use stitchback::study::Study;
use stitchback::{Exit, report};

/// Run a study: fetch, encode, protect, attack, measure, report. Running it again resumes it.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The study file.
    study: PathBuf,
    /// Use these records instead of the study's corpus: a corpus name, a `.txt`, a `.jsonl`, a folder, or
    /// `hub:datasets/OWNER/NAME`.
    #[arg(long)]
    data: Option<String>,
    /// The run folder [default: reports/NAME-HASH].
    #[arg(long)]
    out: Option<PathBuf>,
    /// Start every attacker from nothing, also where the project keeps a pretrained one.
    #[arg(long)]
    from_scratch: bool,
    /// Threads [default: all cores]. Results do not depend on it.
    #[arg(long)]
    threads: Option<usize>,
    /// Print nothing but errors.
    #[arg(long)]
    quiet: bool,
    /// Print `summary.json` on standard output; a list of them for a study of several corpora.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    if let Some(threads) = args.threads {
        anyhow::ensure!(threads > 0, Usage("--threads must be at least 1".to_owned()));
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build_global()
            .context("cannot start the worker threads")?;
    }
    let mut study = read_study(&args.study)?;
    if let Some(data) = &args.data {
        study.data.corpus.clone_from(data);
        study.data.also.clear();
    }
    if args.from_scratch {
        study.attack.iter_mut().for_each(|attack| attack.config.start_from_nothing());
    }
    conduct(study, &Conduct { out: args.out.clone(), quiet: args.quiet, json: args.json })
}

/// How a study is run, wherever it comes from.
pub(crate) struct Conduct {
    /// The run folder.
    pub(crate) out: Option<PathBuf>,
    /// Say nothing but errors.
    pub(crate) quiet: bool,
    /// Print `summary.json`.
    pub(crate) json: bool,
}

/// The study in a file, or every problem that it has.
pub(crate) fn read_study(path: &Path) -> anyhow::Result<Study> {
    let shown = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|e| Usage(format!("cannot read the study `{shown}`: {e}")))?;
    Ok(Study::parse(&shown, &text).map_err(stitchback::Error::from)?)
}

/// Runs a study, reports it, and gates it where it names a policy.
#[expect(clippy::needless_pass_by_value, reason = "a study is run once")]
pub(crate) fn conduct(study: Study, args: &Conduct) -> anyhow::Result<Exit> {
    // A policy with problems is told before the work, not after it.
    let policy = super::gate::policy_of(&study)?;
    let terminal = Terminal::new(args.quiet);
    terminal.listen().context("cannot listen for Ctrl-C")?;
    let parts = study.parts();
    let (mut exit, mut summaries, mut folders) = (Exit::Pass, Vec::new(), Vec::new());
    for part in &parts {
        // Each corpus has a folder of its own.
        let out = args.out.as_ref().map(|out| if parts.len() > 1 { out.join(&part.name) } else { out.clone() });
        let finished = run::execute(part, out.as_deref(), &terminal)?;
        terminal.finish();
        let html = finished.folder.join("report.html");
        report::write(std::slice::from_ref(&finished.folder), &html, report::Options::default())
            .map_err(stitchback::Error::from)?;
        report::write_plots(&finished.folder).map_err(stitchback::Error::from)?;
        if !args.json {
            super::ui::print(&overview(&finished.summary))?;
            super::ui::print(&html.display().to_string())?;
        }
        for failure in &finished.failed {
            terminal.warn(failure);
        }
        exit = match exit {
            Exit::Internal => Exit::Internal,
            _ if !finished.failed.is_empty() => Exit::Internal,
            _ if !finished.summary.attacker_strong_enough => Exit::Inconclusive,
            before => before,
        };
        summaries.push(finished.summary);
        folders.push(finished.folder);
    }
    if let Some(policy) = &policy {
        exit = exit.or(super::gate::conclude(&folders, policy, args.json)?);
    }
    if args.json {
        let text = match &summaries[..] {
            [one] => serde_json::to_string_pretty(one)?,
            several => serde_json::to_string_pretty(several)?,
        };
        super::ui::print(&text)?;
    }
    Ok(exit)
}

/// The verdicts as a table.
fn overview(summary: &Summary) -> String {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::UTF8_HORIZONTAL_ONLY);
    table.set_header([
        "protection",
        "worst attacker",
        "leak",
        "n",
        "victim cosine",
        "identified",
        "topics kept",
        "verdict",
    ]);
    let percent = |v: Option<f64>| v.map_or("–".to_owned(), |v| format!("{:.0} %", 100.0 * v));
    for p in &summary.protections {
        let s = &p.similarity;
        table.add_row([
            p.name.clone(),
            p.best_attack.clone().unwrap_or_else(|| "–".to_owned()),
            format!("{} [{}, {}]", percent(s.leak), percent(s.low), percent(s.high)),
            s.n.to_string(),
            p.victim_cosine.map_or("–".to_owned(), |v| format!("{v:.3}")),
            percent(p.identified.top1),
            percent(p.utility.topic_accuracy.map(|i| i.value)),
            p.verdict.split(':').next().unwrap_or_default().to_owned(),
        ]);
    }
    table.to_string()
}
