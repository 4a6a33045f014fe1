//! `stitchback gate`: a policy against stored records.

use super::Usage;
use super::ui;
use anyhow::Context as _;
use chrono::NaiveDate;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use stitchback::gate::output::{self, Format};
use stitchback::gate::{self, Baseline, Options, Policy, Verdict};
use stitchback::study::Study;
use stitchback::{Exit, report};

/// Judge a finished run by a policy: pass (0), leak or loss of utility (1), inconclusive (4). Trains nothing.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Run folders, as `stitchback run` leaves them.
    #[arg(value_name = "RUN_DIR")]
    runs: Vec<PathBuf>,
    /// The policy.
    #[arg(long, value_name = "FILE", required_unless_present = "schema")]
    policy: Option<PathBuf>,
    /// Write the verdict to a file, its format by its end: .json, .junit.xml, .sarif, .md. May be repeated.
    #[arg(short, long = "output", value_name = "FILE")]
    outputs: Vec<PathBuf>,
    /// Compare `max_regression` checks with this baseline.
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// Keep what this run scored as a baseline: numbers and hashes, no texts.
    #[arg(long, value_name = "FILE")]
    save_baseline: Option<PathBuf>,
    /// What `stitchback audit --json` printed; an `audit.json` in the run folder is read anyway.
    #[arg(long, value_name = "FILE")]
    audit: Vec<PathBuf>,
    /// Judge waivers as of this day [default: today, UTC].
    #[arg(long, value_name = "YYYY-MM-DD")]
    today: Option<NaiveDate>,
    /// Only check the policy file and the dates of its waivers; further files are policies as well.
    #[arg(long)]
    config_only: bool,
    /// Print the JSON Schema of policy files.
    #[arg(long)]
    schema: bool,
    /// Print the verdict as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    if args.schema {
        ui::print(&format!("{:#}", gate::policy::json_schema()))?;
        return Ok(Exit::Pass);
    }
    let path = args.policy.as_deref().context(Usage("--policy is missing".to_owned()))?;
    let policy = read_policy(path)?;
    let mut options = Options { audits: args.audit.clone(), ..Options::today() };
    options.today = args.today.unwrap_or(options.today);
    if args.config_only {
        // A hook hands over all the policies of a commit.
        let mut exit = config_only(&policy, options.today)?;
        for path in &args.runs {
            exit = exit.or(config_only(&read_policy(path)?, options.today)?);
        }
        return Ok(exit);
    }
    anyhow::ensure!(!args.runs.is_empty(), Usage("name at least one run folder".to_owned()));
    for path in &args.outputs {
        Format::of(path).map_err(stitchback::Error::from)?;
    }
    if let Some(path) = &args.baseline {
        options.baseline = Some(Baseline::read(path).map_err(stitchback::Error::from)?);
    }
    let (verdict, baseline) = gate::judge(&args.runs, &policy, &options).map_err(stitchback::Error::from)?;
    for path in &args.outputs {
        let format = Format::of(path).map_err(stitchback::Error::from)?;
        let text = format.write(&verdict).map_err(stitchback::Error::from)?;
        output::put(path, &text).map_err(stitchback::Error::from)?;
    }
    if let Some(path) = &args.save_baseline {
        output::put(path, &baseline.to_json().map_err(stitchback::Error::from)?).map_err(stitchback::Error::from)?;
    }
    show(&verdict, args.json)?;
    Ok(verdict.exit())
}

/// The policy, or every problem that it has.
fn read_policy(path: &Path) -> anyhow::Result<Policy> {
    let shown = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|e| Usage(format!("cannot read the policy `{shown}`: {e}")))?;
    Ok(Policy::parse(&shown, &text).map_err(gate::Error::from).map_err(stitchback::Error::from)?)
}

/// The policy that a study names, if it names one.
pub(crate) fn policy_of(study: &Study) -> anyhow::Result<Option<Policy>> {
    match study.gate.policy.as_str() {
        "" => Ok(None),
        policy => read_policy(Path::new(policy)).map(Some),
    }
}

/// Judges run folders at the end of their study: the verdict stands beside the records, in the report and on stdout.
pub(crate) fn conclude(folders: &[PathBuf], policy: &Policy, json: bool) -> anyhow::Result<Exit> {
    let (verdict, _) = gate::judge(folders, policy, &Options::today()).map_err(stitchback::Error::from)?;
    for folder in folders {
        let text = output::json(&verdict).map_err(stitchback::Error::from)?;
        output::put(&folder.join("verdict.json"), &text).map_err(stitchback::Error::from)?;
        // The verdict is part of what an auditor reads.
        report::write(std::slice::from_ref(folder), &folder.join("report.html"), report::Options::default())
            .map_err(stitchback::Error::from)?;
    }
    if json {
        ui::note(&output::text(&verdict));
    } else {
        show(&verdict, false)?;
    }
    Ok(verdict.exit())
}

/// Prints a verdict; in a GitHub workflow also as annotations and as the step's summary.
fn show(verdict: &Verdict, json: bool) -> anyhow::Result<()> {
    let text = if json {
        output::json(verdict).map_err(stitchback::Error::from)?.trim_end().to_owned()
    } else {
        output::text(verdict)
    };
    ui::print(&text)?;
    if std::env::var_os("GITHUB_ACTIONS").is_some_and(|v| v == "true") {
        // The runner reads commands from either stream; stdout may be JSON.
        ui::note(output::annotations(verdict).trim_end());
    }
    if let Some(summary) = std::env::var_os("GITHUB_STEP_SUMMARY").filter(|path| !path.is_empty()) {
        let path = PathBuf::from(summary);
        let file = std::fs::OpenOptions::new().append(true).create(true).open(&path);
        // A courtesy to the runner: the verdict stands without it.
        if let Err(error) = file.and_then(|mut file| file.write_all(output::markdown(verdict).as_bytes())) {
            ui::note(&format!("cannot write the step's summary `{}`: {error}", path.display()));
        }
    }
    Ok(())
}

/// What a hook asks before a commit: is the policy well formed, and do its waivers still hold?
fn config_only(policy: &Policy, today: NaiveDate) -> anyhow::Result<Exit> {
    for warning in &policy.warnings {
        ui::print(&format!("warning: {warning}"))?;
    }
    let expired: Vec<_> = policy.waivers.iter().filter(|w| today > w.until).collect();
    for waiver in &expired {
        ui::print(&format!("line {}: the waiver of `{}` expired on {}", waiver.line, waiver.id, waiver.until))?;
    }
    ui::print(&format!("{}: {} checks, {} waivers", policy.path, policy.checks.len(), policy.waivers.len()))?;
    Ok(if expired.is_empty() { Exit::Pass } else { Exit::Inconclusive })
}
