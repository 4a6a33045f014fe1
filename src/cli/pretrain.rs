//! `stitchback pretrain`: attackers that start trained.

use super::Usage;
use super::ui::Terminal;
use anyhow::Context;
use std::path::PathBuf;
use stitchback::Exit;
use stitchback::attack::Curve;
use stitchback::run::pretrain::{self, Pretraining};
use stitchback::run::pretrain_pictures::{self, PicturePretraining};

/// Train an attacker ahead of all studies, on freely licensed corpora. Running it again resumes it.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The plan, for example `studies/pretrain-text.toml`.
    plan: PathBuf,
    /// The folder to keep it in [default: models/attackers/NAME].
    #[arg(long)]
    out: Option<PathBuf>,
    /// Print nothing but errors.
    #[arg(long)]
    quiet: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    let path = args.plan.display().to_string();
    let text = std::fs::read_to_string(&args.plan).map_err(|e| Usage(format!("cannot read the plan `{path}`: {e}")))?;
    let terminal = Terminal::new(args.quiet);
    terminal.listen().context("cannot listen for Ctrl-C")?;
    let folder = |name: &str| args.out.clone().unwrap_or_else(|| PathBuf::from("models/attackers").join(name));
    let command = format!("stitchback pretrain {path}");
    let last = |curves: &[Curve]| curves.last().and_then(|c| c.points.last()).map_or(f64::NAN, |p| p.1);
    let said = if PicturePretraining::is_meant(&text) {
        let plan = PicturePretraining::parse(&path, &text).map_err(stitchback::Error::from)?;
        let out = folder(&plan.name);
        let record = pretrain_pictures::execute(&plan, &command, &out, &terminal)?;
        let (name, loss) = (&record.name, last(&record.curves));
        format!(
            "{name}: {} parameters, {} pictures, held-out loss {loss:.3}, in {}",
            record.parameters,
            record.pictures,
            out.display()
        )
    } else {
        let plan = Pretraining::parse(&path, &text).map_err(stitchback::Error::from)?;
        let out = folder(&plan.name);
        let record = pretrain::execute(&plan, &command, &out, &terminal)?;
        let (name, loss) = (&record.name, last(&record.curves));
        format!(
            "{name}: {} parameters, {} texts, held-out loss {loss:.3} nats a piece, in {}",
            record.parameters,
            record.texts,
            out.display()
        )
    };
    terminal.finish();
    super::ui::print(&said)?;
    Ok(Exit::Pass)
}
