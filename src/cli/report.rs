//! `report RUN_DIR...`: one HTML file, a pure function of the records.

use anyhow::Context as _;
use std::io::Write as _;
use std::path::PathBuf;
use stitchback::Exit;
use stitchback::report::{self, Options};

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
    writeln!(std::io::stdout(), "{}", out.display()).context("cannot print the report's path")?;
    Ok(Exit::Pass)
}
