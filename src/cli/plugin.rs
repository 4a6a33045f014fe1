//! `stitchback plugin check`: does a program keep what an encoder or a protection must keep?

use super::ui;
use stitchback::Exit;
use stitchback::encode::process::{self, PREFIX, Process, Program};
use stitchback::protect;

/// Try an encoder or a protection of yours before it is put on trial
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Start a program that speaks the protocol of `python/stitchback_plugin.py` and try what it must keep
    Check {
        /// The program with its arguments, for example `python3 my_encoder.py`
        command: String,
    },
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    let Verb::Check { command } = &args.verb;
    let refused = |why: String| stitchback::encode::Error::Unsupported { name: command.clone(), why };
    let (_, greeting) = Program::open(command).map_err(refused).map_err(stitchback::Error::from)?;
    let found = if greeting.kind == "protection" {
        protect::process::check(command).map_err(refused).map_err(stitchback::Error::from)?
    } else {
        process::check(&Process::open(&format!("{PREFIX}{command}")).map_err(stitchback::Error::from)?)
    };
    for one in &found {
        let word = if one.problem.is_none() { "ok   " } else { "FAIL " };
        let why = one.problem.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        ui::print(&format!("{word} {}{why}", one.what))?;
    }
    Ok(if found.iter().all(|c| c.problem.is_none()) { Exit::Pass } else { Exit::Input })
}
