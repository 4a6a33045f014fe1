//! `stitchback protect`: a file of vectors in, a file of protected vectors with its claim out.

use super::ui;
use anyhow::Context as _;
use rand::SeedableRng;
use std::path::PathBuf;
use stitchback::data::{croissant, vectors};
use stitchback::protect::{self, Pipeline};
use stitchback::{Exit, seed};

/// Protect a file of vectors (.npy or .safetensors) and write down what may be promised about it
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The protection, for example 'clip(l2=1) | gaussian(epsilon=8, delta=1e-5)'
    #[arg(long)]
    pipeline: String,
    /// Vectors, one a row: .npy (f32 or f64) or .safetensors (one two-dimensional tensor)
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// Where the protected vectors go; an .npy file gets its metadata in FILE.json
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// The tensor to read from a .safetensors file that holds several
    #[arg(long, value_name = "NAME")]
    tensor: Option<String>,
    /// Draw the noise from this seed, for tests and reproducible studies; the release is then marked not private
    #[arg(long, value_name = "S", conflicts_with = "secure")]
    seed: Option<u64>,
    /// Draw the noise exactly, in whole steps of a grid: `gaussian` becomes `discrete_gaussian`, `laplace_l1` `discrete_laplace`
    #[arg(long)]
    secure: bool,
    /// Describe the protected set for data catalogues: Croissant metadata, best beside an output in .parquet
    #[arg(long, value_name = "FILE.json")]
    croissant: Option<PathBuf>,
    /// The set's licence, for its Croissant metadata
    #[arg(long, value_name = "TEXT", requires = "croissant")]
    licence: Option<String>,
    /// Who publishes the set, likewise
    #[arg(long, value_name = "NAME", requires = "croissant")]
    creator: Option<String>,
    /// Where it is published, likewise
    #[arg(long, value_name = "URL", requires = "croissant")]
    url: Option<String>,
}

/// Reads, protects, writes; a summary goes to stderr.
pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    let mut pipeline = Pipeline::parse(&args.pipeline).map_err(stitchback::Error::from)?;
    if args.secure {
        pipeline = pipeline.on_grid().map_err(stitchback::Error::from)?;
    }
    let clean = vectors::read(&args.input, args.tensor.as_deref()).map_err(stitchback::Error::from)?;
    let mut rng = match args.seed {
        Some(root) => seed::stream(root, "protect", "noise"),
        // A real release: the one place where randomness must not be repeatable.
        None => seed::Stream::try_from_rng(&mut rand::rngs::SysRng).context("the system's random generator failed")?,
    };
    let release = pipeline.release(&clean, None, &mut rng).map_err(stitchback::Error::from)?;
    let claim = pipeline.claim_at(clean.dim());
    let metadata = protect::metadata(&pipeline, &claim, &release, args.seed.is_some());
    vectors::write(&args.output, &release.vectors, Some(&metadata)).map_err(stitchback::Error::from)?;
    if let Some(path) = &args.croissant {
        let name = args.output.file_stem().unwrap_or_default().to_string_lossy();
        let (licence, creator, url) = (args.licence.as_deref(), args.creator.as_deref(), args.url.as_deref());
        let about = croissant::About { name: &name, licence, creator, url };
        croissant::write(path, &args.output, &release.vectors, &metadata, about).map_err(stitchback::Error::from)?;
    }
    for warning in &claim.warnings {
        ui::note(&format!("warning: {warning}"));
    }
    if args.seed.is_some() {
        ui::note(
            "warning: the noise came from a seed: the release is marked not private; leave `--seed` out to release data",
        );
    }
    ui::note(&format!(
        "{} rows in, {} rows out: {pipeline} ({})",
        clean.len(),
        release.vectors.len(),
        metadata["status"].as_str().unwrap_or_default()
    ));
    Ok(Exit::Pass)
}
