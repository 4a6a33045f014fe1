//! `stitchback protect`: a file of vectors in, a file of protected vectors with its claim out.

use super::ui;
use anyhow::Context as _;
use rand::{Rng as _, SeedableRng};
use std::path::{Path, PathBuf};
use stitchback::data::{croissant, vectors};
use stitchback::protect::{self, Pipeline, memoize};
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
    /// Keep every record's noise: FILE holds a secret of 32 bytes, made if it is not there; the same record under the same
    /// pipeline is then released with the same bytes, however often
    #[arg(long, value_name = "FILE", conflicts_with = "seed")]
    memoize: Option<PathBuf>,
    /// Refuse a pipeline that promises nothing
    #[arg(long)]
    strict: bool,
}

/// Reads, protects, writes; a summary goes to stderr.
pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    let mut pipeline = Pipeline::parse(&args.pipeline).map_err(stitchback::Error::from)?;
    if args.secure {
        pipeline = pipeline.on_grid().map_err(stitchback::Error::from)?;
    }
    if args.strict {
        super::account::promises(&pipeline)?;
    }
    let table = vectors::read_table(&args.input, args.tensor.as_deref()).map_err(stitchback::Error::from)?;
    let clean = table.vectors;
    let mut rng = match args.seed {
        Some(root) => seed::stream(root, "protect", "noise"),
        // A real release: the one place where randomness must not be repeatable.
        None => seed::Stream::try_from_rng(&mut rand::rngs::SysRng).context("the system's random generator failed")?,
    };
    let release = match &args.memoize {
        Some(file) => memoize::release(&pipeline, &clean, table.ids.as_deref(), &secret(file, &mut rng)?),
        None => pipeline.release(&clean, None, &mut rng),
    }
    .map_err(stitchback::Error::from)?;
    let claim = pipeline.claim_at(clean.dim());
    let mut metadata = protect::metadata(&pipeline, &claim, &release, args.seed.is_some());
    metadata["noise"] = if args.memoize.is_some() { "memoized" } else { "fresh" }.into();
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

/// The secret that memoized noise is drawn under; a new one where there is no file.
fn secret(file: &Path, rng: &mut seed::Stream) -> anyhow::Result<[u8; 32]> {
    match std::fs::read(file) {
        Ok(bytes) => <[u8; 32]>::try_from(bytes.as_slice()).map_err(|_| {
            let why = format!("`{}` holds {} bytes; a secret for `--memoize` has 32", file.display(), bytes.len());
            stitchback::Error::from(protect::Error::Input(why)).into()
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let mut secret = [0; 32];
            rng.fill_bytes(&mut secret);
            stitchback::contribute::agent::write_private(file, &secret)?;
            ui::note(&format!("a new secret for memoized noise: {}; keep it, and keep it to yourself", file.display()));
            Ok(secret)
        }
        Err(error) => Err(error).with_context(|| format!("cannot read `{}`", file.display())),
    }
}
