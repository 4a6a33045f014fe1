//! `stitchback inspect`: what is in a file or folder, before anything is done with it.

use super::ui;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use stitchback::Exit;
use stitchback::data::corpus::local;
use stitchback::data::vectors;
use stitchback::encode::Embeddings;

/// Pairs of rows whose cosine is looked at.
const PAIRS: usize = 2000;

/// Say what a file or folder holds: vectors, texts, pictures or a finished run
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// .npy, .safetensors, .parquet, .jsonl, .txt, a folder of pictures or texts, or a run folder
    #[arg(value_name = "FILE|DIR")]
    path: PathBuf,
    /// The tensor or column to read where there are several
    #[arg(long, value_name = "NAME")]
    tensor: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    let path = &args.path;
    let found = if path.is_dir() { folder(path)? } else { file(path, args.tensor.as_deref())? };
    if args.json {
        ui::print(&format!("{found:#}"))?;
        return Ok(Exit::Pass);
    }
    for (name, value) in found.as_object().into_iter().flatten() {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        ui::print(&format!("{name:<18} {value}"))?;
    }
    Ok(Exit::Pass)
}

fn file(path: &Path, tensor: Option<&str>) -> anyhow::Result<Value> {
    let suffix = path.extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default();
    let read = vectors::read_table(path, tensor);
    let texts = matches!(suffix.as_str(), "txt" | "jsonl" | "ndjson" | "parquet");
    match read {
        Ok(table) => {
            let mut out = describe(&table.vectors);
            out["ids"] = json!(table.ids.is_some());
            out["texts"] = json!(table.texts.is_some());
            out["released_by"] = vectors::metadata(path).unwrap_or(Value::Null);
            Ok(out)
        }
        // A file of texts has no vectors, and need not.
        Err(_) if texts && tensor.is_none() => {
            let records = local::every_record(path).map_err(stitchback::Error::from)?;
            Ok(lengths(records.iter().map(|r| r.text.chars().count()).collect(), "texts"))
        }
        Err(error) => Err(stitchback::Error::from(error).into()),
    }
}

fn folder(path: &Path) -> anyhow::Result<Value> {
    if path.join("summary.json").is_file() {
        let text = std::fs::read_to_string(path.join("summary.json"))?;
        let summary: stitchback::run::record::Summary = serde_json::from_str(&text).map_err(|e| {
            let why = format!("is malformed: {e}");
            stitchback::Error::from(stitchback::report::Error::File { path: path.display().to_string(), why })
        })?;
        let verdicts: Vec<String> = summary.protections.iter().map(|p| format!("{}: {}", p.name, p.verdict)).collect();
        return Ok(json!({
            "holds": "a finished run",
            "study": summary.study,
            "strong_attackers": summary.attacker_strong_enough,
            "protections": verdicts,
        }));
    }
    let pictures = local::picture_files(path).map_err(stitchback::Error::from)?;
    if !pictures.is_empty() {
        return Ok(json!({ "holds": "pictures", "pictures": pictures.len() }));
    }
    let corpus = local::read(path, &stitchback::data::Keep::default()).map_err(stitchback::Error::from)?;
    let mut out = lengths(corpus.records.iter().map(|r| r.text.chars().count()).collect(), "sentences");
    out["documents"] = json!(corpus.stats.documents);
    Ok(out)
}

fn lengths(mut characters: Vec<usize>, what: &str) -> Value {
    characters.sort_unstable();
    let at = |share: f64| characters.get(((characters.len() as f64 - 1.0) * share).max(0.0) as usize);
    json!({ "holds": what, "records": characters.len(), "shortest": at(0.0), "median_characters": at(0.5), "longest": at(1.0) })
}

/// Shape, norms, how much all rows point one way, how many repeat.
fn describe(vectors: &Embeddings) -> Value {
    let n = vectors.len();
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
    let norms: Vec<f64> = vectors.rows().map(|row| dot(row, row).sqrt()).collect();
    let least = norms.iter().copied().fold(f64::INFINITY, f64::min);
    let most = norms.iter().copied().fold(0.0, f64::max);
    // Pairs a fixed stride apart: the same file gives the same figure.
    let stride = (n / 2).max(1);
    let cosines = (0..n.min(PAIRS)).filter(|_| n > 1).map(|i| {
        let (a, b) = (i, (i + stride) % n);
        dot(vectors.row(a), vectors.row(b)) / (norms[a] * norms[b]).max(f64::MIN_POSITIVE)
    });
    let cosines: Vec<f64> = cosines.collect();
    let mut rows: Vec<Vec<u32>> = vectors.rows().map(|row| row.iter().map(|v| v.to_bits()).collect()).collect();
    rows.sort_unstable();
    rows.dedup();
    json!({
        "holds": "vectors",
        "rows": n,
        "dim": vectors.dim(),
        "norms": format!("{least:.4} to {most:.4}"),
        "unit_rows": (least - 1.0).abs() < 1e-3 && (most - 1.0).abs() < 1e-3,
        "zero_rows": norms.iter().filter(|n| **n == 0.0).count(),
        "mean_cosine": (!cosines.is_empty()).then(|| cosines.iter().sum::<f64>() / cosines.len() as f64),
        "repeated_rows": n - rows.len(),
    })
}
