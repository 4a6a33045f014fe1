//! `stitchback audit`: is a pipeline as private as it claims?

use std::io::Write as _;
use stitchback::Exit;
use stitchback::audit::{self, Report, Settings};
use stitchback::protect::{Pipeline, StageConfig};

use super::ui;

/// Try to refute a pipeline's claim: release two worlds many times and tell them apart; exit code 1 when it is refuted
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The protection, for example 'clip(l2=1) | gaussian(epsilon=1, delta=1e-5)'
    pipeline: String,
    /// Trials counted in each world; rehearsals take as many again
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(100..))]
    trials: u32,
    /// Seed of every draw
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Coordinates of a record
    #[arg(long, value_name = "D", default_value_t = 384, value_parser = clap::value_parser!(u32).range(1..=65536))]
    dim: u32,
    /// One JSON object instead of the sheet
    #[arg(long)]
    json: bool,
}

/// Prints the report on stdout; the exit code is its verdict.
pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    let mut pipeline = Pipeline::parse(&args.pipeline).map_err(stitchback::Error::from)?;
    if pipeline.stages().iter().any(|stage| matches!(stage, StageConfig::Shuffle(_))) {
        ui::note("the shuffler is trusted, not audited: what follows is about each release before it");
        let alone: Vec<StageConfig> =
            pipeline.stages().iter().filter(|stage| !matches!(stage, StageConfig::Shuffle(_))).cloned().collect();
        let alone = if alone.is_empty() { vec![stitchback::protect::Identity.into()] } else { alone };
        pipeline = Pipeline::new(alone).map_err(stitchback::Error::from)?;
    }
    let settings = Settings {
        trials: args.trials as usize,
        seed: args.seed,
        dim: args.dim as usize,
        delta: pipeline.delta(),
        ..Settings::default()
    };
    let report = audit::audit(&pipeline, &settings).map_err(stitchback::Error::from)?;
    let text = if args.json { format!("{}\n", serde_json::to_string_pretty(&report)?) } else { sheet(&report) };
    std::io::stdout().lock().write_all(text.as_bytes())?;
    Ok(report.verdict.exit())
}

fn sheet(report: &Report) -> String {
    let mut lines = vec![
        ("pipeline", report.pipeline.clone()),
        (
            "claim",
            report.claimed_epsilon.map_or("none".to_owned(), |e| format!("epsilon {e:.4} at delta {:e}", report.delta)),
        ),
        ("trials", format!("{} in each world, at d = {}, after as many rehearsals", report.trials, report.dim)),
    ];
    for pair in &report.pairs {
        let (name, claimed) = match pair.distance {
            d if d >= 1.0 => ("opposite records", String::new()),
            d => (
                "nearer records",
                format!(", {d:.4} of the largest distance, claim {:.4}", pair.claimed.unwrap_or(0.0)),
            ),
        };
        let counts = pair.counts;
        lines.push((
            name,
            format!(
                "epsilon at least {:.4} by counts (ceiling {:.3}; {} of {} against {} of {}){claimed}",
                pair.epsilon, pair.ceiling, counts.hits, counts.positives, counts.false_alarms, counts.negatives
            ),
        ));
        if let Some(gaussian) = pair.gaussian {
            lines.push((
                "",
                format!(
                    "epsilon at least {:.4} by the Gaussian trade-off (mu {:.4} of {:.4}; ceiling {:.3})",
                    gaussian.epsilon, gaussian.mu, gaussian.claimed, gaussian.ceiling
                ),
            ));
        }
    }
    if let Some(run) = report.one_run {
        lines.push((
            "one run",
            format!(
                "epsilon at least {:.4} (ceiling {:.3}; {} of {} guesses right, {} canaries)",
                run.epsilon, run.ceiling, run.right, run.guesses, run.canaries
            ),
        ));
    }
    for probe in &report.probes {
        let outcome = if probe.passed { "yes" } else { "NO" };
        lines.push(("probe", format!("{}: {outcome} ({})", probe.name, probe.seen)));
    }
    lines.push(("verdict", report.sentence.clone()));
    let mut lines: Vec<String> = lines.into_iter().map(|(name, value)| format!("{name:<18} {value}")).collect();
    lines.push(String::new());
    lines.join("\n")
}
