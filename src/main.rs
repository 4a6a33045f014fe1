//! Parse, dispatch, print the error chain, exit code.

mod cli;

use clap::Parser;
use std::io::Write;
use std::process::ExitCode;
use stitchback::Exit;

/// How much of your data can be read back from its embedding?
#[derive(Debug, Parser)]
#[command(version, about)]
struct Command {
    #[command(subcommand)]
    verb: cli::Verb,
}

fn main() -> ExitCode {
    let exit = match Command::parse().verb.run() {
        Ok(exit) => exit,
        Err(error) => match cli::exit_code(&error) {
            // Whoever read our output has had enough of it.
            None => Exit::Pass,
            Some(exit) => {
                // Without a stderr there is nobody to tell; the exit code still says it.
                let _ = writeln!(std::io::stderr(), "error: {error:#}");
                exit
            }
        },
    };
    ExitCode::from(exit as u8)
}
