//! `stitchback completions` and `man`: what a shell and a reader of manuals want.

use super::Usage;
use super::ui;
use clap::CommandFactory as _;
use clap_complete::Shell;
use std::path::PathBuf;
use stitchback::Exit;
use stitchback::gate::output;

/// Print completions for a shell
#[derive(Debug, clap::Args)]
pub(crate) struct CompletionsArgs {
    /// bash, elvish, fish, powershell or zsh
    shell: Shell,
}

/// Print the manual page, or write one for each verb into a folder
#[derive(Debug, clap::Args)]
pub(crate) struct ManArgs {
    /// The folder
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

const EXIT_STATUS: &str = ".SH EXIT STATUS\n\
    0 done, or the gate passed; 1 the gate found a leak or a loss of utility; 2 usage or configuration; 3 bad input or asset; \
    4 inconclusive; 70 internal fault; 75 interrupted, the same command resumes.\n\
    .SH ENVIRONMENT\n\
    STITCHBACK_CACHE: where fetched assets lie. STITCHBACK_OFFLINE=1: never fetch. NO_COLOR: no colours.\n";

pub(crate) fn completions(args: &CompletionsArgs) -> anyhow::Result<Exit> {
    let mut bytes = Vec::new();
    clap_complete::generate(args.shell, &mut crate::Command::command(), "stitchback", &mut bytes);
    ui::print(String::from_utf8(bytes)?.trim_end())?;
    Ok(Exit::Pass)
}

pub(crate) fn man(args: &ManArgs) -> anyhow::Result<Exit> {
    let mut command = crate::Command::command().name("stitchback");
    command.build();
    let page = |command: clap::Command| -> anyhow::Result<String> {
        let mut bytes = Vec::new();
        clap_mangen::Man::new(command).render(&mut bytes)?;
        bytes.extend_from_slice(EXIT_STATUS.as_bytes());
        Ok(String::from_utf8(bytes)?)
    };
    let Some(folder) = &args.out else {
        ui::print(page(command)?.trim_end())?;
        return Ok(Exit::Pass);
    };
    let shown = folder.display();
    std::fs::create_dir_all(folder).map_err(|e| Usage(format!("cannot make `{shown}`: {e}")))?;
    for verb in command.get_subcommands() {
        // clap keeps names for ever; a process writes its manual once.
        let name: &'static str = Box::leak(format!("stitchback-{}", verb.get_name()).into_boxed_str());
        let text = page(verb.clone().name(name))?;
        output::put(&folder.join(format!("{name}.1")), &text).map_err(stitchback::Error::from)?;
    }
    output::put(&folder.join("stitchback.1"), &page(command)?).map_err(stitchback::Error::from)?;
    ui::print(&shown.to_string())?;
    Ok(Exit::Pass)
}
