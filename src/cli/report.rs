//! `report RUN_DIR...`: one HTML file, a pure function of the records.

use anyhow::Context as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use stitchback::report::{self, Options};
use stitchback::{Exit, gate};

/// Draw the HTML report of one run, or of several side by side.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Run folders, as `stitchback run` leaves them.
    #[arg(value_name = "RUN_DIR", required = true)]
    runs: Vec<PathBuf>,
    /// Where the report goes; without it `report.html` in the run folder. Needed for several runs.
    #[arg(long, value_name = "FILE.html")]
    out: Option<PathBuf>,
    /// Leave out every original, guess and error text, and replace record ids by keyed hashes.
    #[arg(long)]
    redact: bool,
    /// Write every figure as CSV.
    #[arg(long, value_name = "FILE.csv")]
    csv: Option<PathBuf>,
    /// Write the verdicts as a LaTeX table.
    #[arg(long, value_name = "FILE.tex")]
    latex: Option<PathBuf>,
    /// Compare two runs on the same records, target by target, and write the differences as CSV.
    #[arg(long, value_name = "FILE.csv")]
    differences: Option<PathBuf>,
    /// Write the learning curves as event files for `tensorboard`, a folder for each protection, attack and seed.
    #[arg(long, value_name = "DIR")]
    tensorboard: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    let (out, own) = match (&args.out, args.runs.as_slice()) {
        (Some(out), _) => (out.clone(), None),
        (None, [one]) => (one.join("report.html"), Some(one)),
        (None, _) => {
            writeln!(std::io::stderr(), "error: several runs make one report; name its file with --out FILE.html")?;
            return Ok(Exit::Usage);
        }
    };
    report::write(&args.runs, &out, Options { redacted: args.redact }).map_err(stitchback::Error::from)?;
    // The figures belong to the run folder; a report that goes elsewhere leaves the folder alone.
    if let Some(folder) = own {
        report::write_plots(folder).map_err(stitchback::Error::from)?;
    }
    if let Some(csv) = &args.csv {
        report::write_csv(&args.runs, csv).map_err(stitchback::Error::from)?;
    }
    if let Some(latex) = &args.latex {
        report::write_latex(&args.runs, latex).map_err(stitchback::Error::from)?;
    }
    if let Some(folder) = &args.tensorboard {
        report::write_tensorboard(&args.runs, folder).map_err(stitchback::Error::from)?;
    }
    if let [first, second] = args.runs.as_slice() {
        differ(first, second, args.differences.as_deref())?;
    } else if args.differences.is_some() {
        anyhow::bail!(super::Usage("--differences compares exactly two runs".to_owned()));
    }
    writeln!(std::io::stdout(), "{}", out.display()).context("cannot print the report's path")?;
    Ok(Exit::Pass)
}

/// Prints how the worst leaks of two runs differ, target by target, where both were run on the same records.
fn differ(first: &Path, second: &Path, out: Option<&Path>) -> anyhow::Result<()> {
    let metric = if out.is_some() { None } else { Some("judge_leak") };
    let found = match gate::compare(first, second, metric) {
        Ok(found) => found,
        // Runs on other records stand beside each other all the same; only who asked for differences is told.
        Err(_) if out.is_none() => return Ok(()),
        Err(error) => return Err(stitchback::Error::from(error).into()),
    };
    if let Some(out) = out {
        report::write_differences(&found, out).map_err(stitchback::Error::from)?;
    }
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::UTF8_HORIZONTAL_ONLY);
    table.set_header(["protection", "attack", "leak, first", "second", "difference", "n"]);
    for d in found.iter().filter(|d| d.metric == "judge_leak") {
        let points = |v: f64| format!("{:.1}", 100.0 * v);
        let difference = d.difference.map_or_else(
            || points(d.second - d.first),
            |i| format!("{} [{}, {}]", points(i.value), points(i.low), points(i.high)),
        );
        table.add_row([
            d.protection.clone(),
            d.attack.clone(),
            format!("{} %", points(d.first)),
            format!("{} %", points(d.second)),
            difference,
            d.n.to_string(),
        ]);
    }
    super::ui::print(&table.to_string())?;
    Ok(())
}
