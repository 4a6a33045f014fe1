//! `stitchback plugin check`: does a program keep what an encoder must keep?

use super::ui;
use stitchback::Exit;
use stitchback::encode::process::{self, PREFIX, Process};

/// Try an encoder of yours before it is attacked
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Start a program that speaks the protocol of `python/stitchback_plugin.py` and try what an encoder must keep
    Check {
        /// The program with its arguments, for example `python3 my_encoder.py`
        command: String,
    },
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    let Verb::Check { command } = &args.verb;
    let encoder = Process::open(&format!("{PREFIX}{command}")).map_err(stitchback::Error::from)?;
    let found = process::check(&encoder);
    for one in &found {
        let word = if one.problem.is_none() { "ok   " } else { "FAIL " };
        let why = one.problem.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        ui::print(&format!("{word} {}{why}", one.what))?;
    }
    Ok(if found.iter().all(|c| c.problem.is_none()) { Exit::Pass } else { Exit::Input })
}
