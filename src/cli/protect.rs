//! `stitchback protect`: a file of vectors in, a file of protected vectors with its claim out.

use super::ui;
use anyhow::Context as _;
use rand::{Rng as _, SeedableRng};
use serde_json::json;
use std::path::{Path, PathBuf};
use stitchback::data::vectors;
use stitchback::protect::{self, Claim, Pipeline, Release, memoize};
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
    let mut metadata = metadata(&pipeline, &claim, &release, args.seed.is_some());
    metadata["noise"] = if args.memoize.is_some() { "memoized" } else { "fresh" }.into();
    vectors::write(&args.output, &release.vectors, Some(&metadata)).map_err(stitchback::Error::from)?;
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

/// What stands beside the vectors: the pipeline, its claim, and whether the noise can be drawn again.
fn metadata(pipeline: &Pipeline, claim: &Claim, release: &Release, seeded: bool) -> serde_json::Value {
    let delta = pipeline.delta();
    let private = !seeded && claim.holds();
    let status = match (seeded, private) {
        (true, _) => "not private: the noise was drawn from a seed".to_owned(),
        (false, true) => format!("private: {}", claim.note()),
        (false, false) => format!("not private: {}", claim.note()),
    };
    let members = release.members.iter().map(Vec::len).min().unwrap_or(1);
    json!({
        "schema": "stitchback/release/v1",
        "tool": concat!("stitchback ", env!("CARGO_PKG_VERSION")),
        "pipeline": pipeline,
        "claim": {
            "kind": claim.kind(),
            "mu": claim.mu(),
            "epsilon": claim.epsilon(delta),
            "delta": claim.epsilon(delta).map(|_| delta),
            "sigma": claim.sigma(),
            "sensitivity": claim.sensitivity,
            "implied": claim.implied,
            "note": claim.note(),
        },
        "adjacency": claim.adjacency,
        "unit_of_privacy": claim.unit_of_privacy,
        "releases": claim.releases,
        "seeded": seeded,
        "sampling": sampling(pipeline),
        "private": private,
        "status": status,
        "members": members,
        // Groups are public under the guarantee; single rows need no list.
        "groups": (members > 1).then_some(&release.members),
        "rows": release.vectors.len(),
        "dim": release.vectors.dim(),
        "warnings": claim.warnings,
    })
}

/// How the noise was drawn, in words.
fn sampling(pipeline: &Pipeline) -> &'static str {
    if !pipeline.has_noise() {
        "no noise"
    } else if pipeline.on_grid().is_ok_and(|exact| exact == *pipeline) {
        "exact integers on a grid; the time of a draw is not hidden"
    } else {
        "floating point, research-grade: low bits are not hardened; `--secure` draws on a grid"
    }
}
