//! `stitchback embed`: records in, a file of vectors out.

use super::ui::{self, Terminal};
use anyhow::Context as _;
use serde_json::json;
use std::path::{Path, PathBuf};
use stitchback::Exit;
use stitchback::data::corpus::local;
use stitchback::data::{Picture, vectors};
use stitchback::encode::{Embeddings, Encoder};
use stitchback::run::setup;

/// Records that are encoded between two signs of progress.
const WAVE: usize = 512;

/// Embed every record of a file or folder: one row for each, in order (.npy, .safetensors or .parquet)
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// An encoder by name, or a sentence-transformers folder
    #[arg(long, value_name = "NAME")]
    encoder: String,
    /// Texts (.txt: a record a line; .jsonl and .parquet: `text`, perhaps `id`), or a folder of pictures
    #[arg(long, value_name = "FILE|DIR")]
    input: PathBuf,
    /// Where the vectors go; .parquet also holds the ids
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// Print nothing but errors
    #[arg(long)]
    quiet: bool,
}

/// Reads, encodes, writes; a summary goes to stderr.
pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    vectors::check_output(&args.output).map_err(stitchback::Error::from)?;
    let terminal = Terminal::new(args.quiet);
    let encoder = setup::encoder(&args.encoder, &mut Vec::new(), &terminal)?;
    let (ids, rows) = if args.input.is_dir() {
        pictures(&args.input, encoder.as_ref(), &terminal)?
    } else {
        texts(&args.input, encoder.as_ref(), &terminal)?
    };
    terminal.finish();
    let info = encoder.info();
    let metadata = json!({
        "schema": "stitchback/embeddings/v1",
        "tool": concat!("stitchback ", env!("CARGO_PKG_VERSION")),
        "encoder": info,
        "rows": rows.len(),
    });
    vectors::write_table(&args.output, &rows, Some(&ids), Some(&metadata)).map_err(stitchback::Error::from)?;
    if !args.quiet {
        ui::note(&format!("{} records, {} coordinates each: {}", rows.len(), rows.dim(), args.output.display()));
    }
    Ok(Exit::Pass)
}

fn texts(input: &Path, encoder: &dyn Encoder, terminal: &Terminal) -> anyhow::Result<(Vec<String>, Embeddings)> {
    let records = local::every_record(input).map_err(stitchback::Error::from)?;
    anyhow::ensure!(!records.is_empty(), empty(input));
    let texts: Vec<&str> = records.iter().map(|r| r.text.as_str()).collect();
    let rows = waves(&texts, encoder.info().dim, terminal, |wave| encoder.encode(wave))?;
    Ok((records.into_iter().map(|r| r.id).collect(), rows))
}

fn pictures(input: &Path, encoder: &dyn Encoder, terminal: &Terminal) -> anyhow::Result<(Vec<String>, Embeddings)> {
    let files = local::picture_files(input).map_err(stitchback::Error::from)?;
    anyhow::ensure!(!files.is_empty(), empty(input));
    let rows = waves(&files, encoder.info().dim, terminal, |wave| {
        let opened: Result<Vec<Picture>, _> = wave.iter().map(|(_, path)| Picture::open(path)).collect();
        let opened = opened.map_err(|e| stitchback::encode::Error::Unsupported {
            name: encoder.info().name.clone(),
            why: e.to_string(),
        })?;
        encoder.encode_pictures(&opened.iter().collect::<Vec<_>>())
    })?;
    Ok((files.into_iter().map(|(id, _)| id).collect(), rows))
}

fn empty(input: &Path) -> stitchback::Error {
    let why = "no text and no picture lies in it".to_owned();
    stitchback::data::Error::Empty { name: input.display().to_string(), why }.into()
}

fn waves<T>(
    items: &[T],
    dim: usize,
    terminal: &Terminal,
    encode: impl Fn(&[T]) -> Result<Embeddings, stitchback::encode::Error>,
) -> anyhow::Result<Embeddings> {
    use stitchback::attack::Progress as _;
    let mut out = Embeddings::empty(dim);
    for wave in items.chunks(WAVE) {
        let rows = encode(wave).map_err(stitchback::Error::from).context("while encoding")?;
        rows.rows().for_each(|row| out.push(row));
        terminal.update(out.len(), items.len(), "records encoded");
    }
    Ok(out)
}
