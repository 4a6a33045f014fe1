//! The command line: one file for each verb. Data goes to stdout, everything else to stderr.

pub(crate) mod account;
pub(crate) mod attack;
pub(crate) mod audit;
pub(crate) mod doctor;
pub(crate) mod embed;
pub(crate) mod explain;
pub(crate) mod fetch;
pub(crate) mod gate;
pub(crate) mod init;
pub(crate) mod inspect;
pub(crate) mod list;
pub(crate) mod plan;
pub(crate) mod plugin;
pub(crate) mod pretrain;
pub(crate) mod protect;
pub(crate) mod report;
pub(crate) mod reproduce;
pub(crate) mod run;
pub(crate) mod score;
pub(crate) mod shell;
pub(crate) mod ui;
pub(crate) mod value;

use std::io;
use stitchback::{Error, Exit};

/// What can be asked of `stitchback`.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    Run(run::Args),
    Pretrain(pretrain::Args),
    Report(report::Args),
    Gate(gate::Args),
    Account(account::Args),
    Audit(audit::Args),
    Embed(embed::Args),
    Protect(protect::Args),
    Attack(attack::Args),
    Inspect(inspect::Args),
    Plan(plan::PlanArgs),
    Task(plan::TaskArgs),
    Merge(plan::MergeArgs),
    Reproduce(reproduce::Args),
    Artifact(reproduce::ArtifactArgs),
    Plugin(plugin::Args),
    Init(init::Args),
    Completions(shell::CompletionsArgs),
    Man(shell::ManArgs),
    Score(score::Args),
    Value(value::Args),
    Fetch(fetch::Args),
    List(list::Args),
    Doctor(doctor::Args),
    Explain(explain::Args),
}

impl Verb {
    /// Does it.
    pub(crate) fn run(self) -> anyhow::Result<Exit> {
        match self {
            Self::Run(args) => run::run(&args),
            Self::Pretrain(args) => pretrain::run(&args),
            Self::Report(args) => report::run(&args),
            Self::Gate(args) => gate::run(&args),
            Self::Account(args) => account::run(&args),
            Self::Audit(args) => audit::run(&args),
            Self::Embed(args) => embed::run(&args),
            Self::Protect(args) => protect::run(&args),
            Self::Attack(args) => attack::run(&args),
            Self::Inspect(args) => inspect::run(&args),
            Self::Plan(args) => plan::plan(&args),
            Self::Task(args) => plan::task(&args),
            Self::Merge(args) => plan::merge(&args),
            Self::Reproduce(args) => reproduce::run(&args),
            Self::Artifact(args) => reproduce::artifact(&args),
            Self::Plugin(args) => plugin::run(&args),
            Self::Init(args) => init::run(&args),
            Self::Completions(args) => shell::completions(&args),
            Self::Man(args) => shell::man(&args),
            Self::Score(args) => score::run(&args),
            Self::Value(args) => value::run(&args),
            Self::Fetch(args) => fetch::run(args),
            Self::List(args) => list::run(&args),
            Self::Doctor(args) => doctor::run(&args),
            Self::Explain(args) => explain::run(&args),
        }
    }
}

/// A command line that parses but cannot be carried out.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

/// The exit code that stands for a failure of a verb; `None` when only the reader of our output went away.
pub(crate) fn exit_code(error: &anyhow::Error) -> Option<Exit> {
    for cause in error.chain() {
        if let Some(error) = cause.downcast_ref::<Error>() {
            return Some(error.exit());
        }
        if cause.downcast_ref::<Usage>().is_some() {
            return Some(Exit::Usage);
        }
        if let Some(error) = cause.downcast_ref::<io::Error>() {
            return (error.kind() != io::ErrorKind::BrokenPipe).then_some(Exit::Input);
        }
    }
    Some(Exit::Internal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use stitchback::data::asset;

    #[test]
    fn a_stage_error_keeps_its_exit_code_below_context() {
        let unknown = asset::find("nothing-like-it").expect_err("no such asset");
        let error = anyhow::Error::new(Error::from(unknown)).context("while fetching");
        assert_eq!(exit_code(&error), Some(Exit::Usage));
        assert_eq!(exit_code(&anyhow::Error::new(Usage("no".to_owned()))), Some(Exit::Usage));
        assert_eq!(exit_code(&anyhow::anyhow!("a fault")), Some(Exit::Internal));
    }

    #[test]
    fn a_file_that_cannot_be_used_is_bad_input() {
        let missing = std::fs::read("no/such/file").expect_err("there is none");
        assert_eq!(exit_code(&anyhow::Error::new(missing).context("while reading")), Some(Exit::Input));
    }

    #[test]
    fn a_broken_pipe_is_success() {
        let error = anyhow::Error::new(io::Error::from(io::ErrorKind::BrokenPipe)).context("while printing");
        assert_eq!(exit_code(&error), None);
    }
}
