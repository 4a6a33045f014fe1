//! `stitchback reproduce` and `artifact`: the reviewer's side of a run.

use super::Usage;
use super::ui::{self, Terminal};
use anyhow::Context as _;
use serde_json::json;
use std::path::PathBuf;
use stitchback::Exit;
use stitchback::gate::output;
use stitchback::run::artifact;
use stitchback::run::reproduce::{self, Agreement};

/// Run a finished study again and say of each number: same bits, within tolerance, or outside (exit 1)
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A run folder, or an unpacked reviewer's kit
    #[arg(value_name = "RUN_DIR")]
    run: PathBuf,
    /// Where the new run goes [default: RUN_DIR-again]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// How far a share or cosine may lie away; other units relative to the number
    #[arg(long, value_name = "T", default_value_t = artifact::tolerance())]
    tolerance: f64,
    /// Print nothing but errors and the result
    #[arg(long)]
    quiet: bool,
    /// Print every number as JSON
    #[arg(long)]
    json: bool,
}

/// Pack what a reviewer needs, or check such a kit
#[derive(Debug, clap::Args)]
pub(crate) struct ArtifactArgs {
    #[command(subcommand)]
    verb: ArtifactVerb,
}

#[derive(Debug, clap::Subcommand)]
enum ArtifactVerb {
    /// Write an archive with study, records, hashes, claims and instructions; no text, picture or vector
    Pack {
        /// The run folder
        #[arg(value_name = "RUN_DIR")]
        run: PathBuf,
        /// Where the archive goes
        #[arg(long, value_name = "FILE.tar")]
        out: PathBuf,
    },
    /// Check that an archive holds exactly what was packed
    Check {
        /// The archive
        #[arg(value_name = "FILE.tar")]
        kit: PathBuf,
    },
}

pub(crate) fn artifact(args: &ArtifactArgs) -> anyhow::Result<Exit> {
    match &args.verb {
        ArtifactVerb::Pack { run, out } => {
            let bytes = artifact::pack(run).map_err(stitchback::Error::from)?;
            output::put_bytes(out, &bytes).map_err(stitchback::Error::from)?;
            ui::print(&format!("{} ({})", out.display(), ui::bytes(bytes.len() as u64)))?;
        }
        ArtifactVerb::Check { kit } => {
            let files = artifact::check(kit).map_err(stitchback::Error::from)?;
            ui::print(&format!("{}: {files} files, as they were packed", kit.display()))?;
        }
    }
    Ok(Exit::Pass)
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    anyhow::ensure!(args.tolerance >= 0.0, Usage("--tolerance must not be negative".to_owned()));
    let out = if let Some(out) = &args.out {
        out.clone()
    } else {
        let name = args.run.file_name().context(Usage("name the run folder, or give --out".to_owned()))?;
        args.run.with_file_name(format!("{}-again", name.to_string_lossy()))
    };
    let same = std::fs::canonicalize(&args.run).ok().zip(std::fs::canonicalize(&out).ok()).is_some_and(|(a, b)| a == b);
    // Finished cells are kept: in its own folder a run would be compared with itself.
    anyhow::ensure!(!same, Usage("--out must be another folder than the run's own".to_owned()));
    let terminal = Terminal::new(args.quiet);
    terminal.listen().context("cannot listen for Ctrl-C")?;
    let numbers = reproduce::reproduce(&args.run, &out, args.tolerance, &terminal)?;
    terminal.finish();
    let count = |agreement| numbers.iter().filter(|n| n.agreement == agreement).count();
    let [same, within, outside, missing] =
        [Agreement::SameBits, Agreement::WithinTolerance, Agreement::Outside, Agreement::Missing].map(count);
    if args.json {
        let all = json!({ "schema": "stitchback/reproduction/v1", "tolerance": args.tolerance, "same_bits": same,
            "within_tolerance": within, "outside": outside, "missing": missing, "numbers": numbers });
        ui::print(&format!("{all:#}"))?;
    } else {
        for number in numbers.iter().filter(|n| matches!(n.agreement, Agreement::Outside | Agreement::Missing)).take(50)
        {
            let show = |v: Option<f64>| v.map_or("nothing".to_owned(), |v| v.to_string());
            ui::print(&format!("{}: expected {}, found {}", number.what, show(number.expected), show(number.found)))?;
        }
        ui::print(&format!(
            "{} numbers: {same} same bits, {within} within {}, {outside} outside, {missing} missing",
            numbers.len(),
            args.tolerance
        ))?;
    }
    Ok(if outside + missing == 0 { Exit::Pass } else { Exit::Leak })
}
