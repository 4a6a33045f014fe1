//! `stitchback attack`: bring your own embeddings.

use super::{Usage, run};
use std::path::PathBuf;
use stitchback::Exit;
use stitchback::study::Own;

/// Attack vectors that you made: how much of the records beside them can be read back?
///
/// The vectors lie in .npy, .safetensors, .parquet or .jsonl, one for each record in order, or by `id`. With --encoder
/// attackers may also ask the encoder that made them, which makes them stronger; without it nobody can re-embed a guess,
/// and no protection can be called safe. The vectors may already be protected: then leave --pipeline out.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The vectors.
    #[arg(long, value_name = "FILE", required_unless_present = "config")]
    vectors: Option<PathBuf>,
    /// Their records: texts (.txt, .jsonl, .parquet) or a folder of pictures.
    #[arg(long, value_name = "FILE|DIR", required_unless_present = "config")]
    records: Option<PathBuf>,
    /// The encoder that made the vectors, by name or folder; it is checked.
    #[arg(long, value_name = "NAME", default_value = "")]
    encoder: String,
    /// The encoder that judges guesses.
    #[arg(long, value_name = "NAME", default_value = "multilingual-e5-small")]
    judge: String,
    /// Protections to put on trial, beside the vectors as they are. May be repeated.
    #[arg(long, value_name = "PIPELINE")]
    pipeline: Vec<String>,
    /// Attackers beside `blind`. May be repeated [default: `nearest`, `bag_of_words`, `decoder`].
    #[arg(long, value_name = "KIND")]
    attack: Vec<String>,
    /// Records that the attackers try to read; every tenth one unless given, at most 500.
    #[arg(long, value_name = "N")]
    targets: Option<usize>,
    /// Seeds.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seeds: u64,
    /// A study file instead of all of the above, with `encode.vectors`.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["vectors", "records"])]
    config: Option<PathBuf>,
    /// The run folder [default: reports/NAME-HASH].
    #[arg(long)]
    out: Option<PathBuf>,
    /// Print nothing but errors.
    #[arg(long)]
    quiet: bool,
    /// Print `summary.json` on standard output.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    let study = match (&args.config, &args.vectors, &args.records) {
        (Some(path), ..) => run::read_study(path)?,
        (None, Some(vectors), Some(records)) => {
            let own = Own {
                vectors: vectors.clone(),
                records: records.clone(),
                encoder: args.encoder.clone(),
                judge: args.judge.clone(),
                pipelines: args.pipeline.clone(),
                attacks: args.attack.clone(),
                targets: args.targets,
                seeds: args.seeds,
            };
            own.study("the command line")?
        }
        _ => anyhow::bail!(Usage("--vectors and --records belong together".to_owned())),
    };
    run::conduct(study, &run::Conduct { out: args.out.clone(), quiet: args.quiet, json: args.json })
}
