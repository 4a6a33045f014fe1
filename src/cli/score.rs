//! `stitchback score`: every metric on given pairs of texts or of pictures.

use super::ui::{self, Terminal};
use anyhow::Context as _;
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use std::path::PathBuf;
use stitchback::Exit;
use stitchback::encode::{Encoder, EncoderInfo};
use stitchback::measure::image::pairs::{PicturePairs, is_album, score_pictures};
use stitchback::measure::pairs::{Pairs, Scored, score_pairs};
use stitchback::run::setup;

/// Scores guesses against their originals, with intervals and floors: overlap, BLEU and edit distance of texts; error,
/// correlation and structure of pictures.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Originals: a record a line (.txt), a JSONL file with `text` (and `id`, `document`), or a folder of .txt files or of
    /// pictures.
    #[arg(long, value_name = "FILE|DIR")]
    truth: PathBuf,
    /// Guesses, paired by `id` or file name where both sides have them, otherwise by order.
    #[arg(long, value_name = "FILE|DIR")]
    guess: PathBuf,
    /// Encoder (name or folder) that also judges the similarity: adds leak, cosine and matching.
    #[arg(long, value_name = "NAME")]
    judge: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(serde::Serialize)]
struct Output<'a> {
    schema: &'static str,
    pairs: usize,
    /// Guesses that were resized to the size of their originals; pictures only.
    #[serde(skip_serializing_if = "Option::is_none")]
    resized: Option<usize>,
    judge: Option<&'a EncoderInfo>,
    metrics: &'a [Scored],
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    let open = |name: &str| setup::encoder(name, &mut Vec::new(), &Terminal::new(false));
    let (pairs, resized, scored, judge);
    if is_album(&args.truth).map_err(stitchback::Error::from)? {
        let given = PicturePairs::read(&args.truth, &args.guess).map_err(stitchback::Error::from)?;
        judge = args.judge.as_deref().map(open).transpose()?;
        scored = score_pictures(&given, judge.as_deref()).map_err(stitchback::Error::from)?;
        (pairs, resized) = (given.truths.len(), Some(given.resized));
    } else {
        let given = Pairs::read(&args.truth, &args.guess).map_err(stitchback::Error::from)?;
        judge = args.judge.as_deref().map(open).transpose()?;
        scored = score_pairs(&given, judge.as_deref()).map_err(stitchback::Error::from)?;
        (pairs, resized) = (given.truths.len(), None);
    }
    let judge = judge.as_deref().map(Encoder::info);
    let text = if args.json {
        let output = Output { schema: "stitchback/score/v1", pairs, resized, judge, metrics: &scored };
        serde_json::to_string_pretty(&output).context("the scores cannot be written as JSON")?
    } else {
        table(&scored, judge, resized)
    };
    ui::print(&text)?;
    Ok(Exit::Pass)
}

fn table(scored: &[Scored], judge: Option<&EncoderInfo>, resized: Option<usize>) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["metric", "value", "95 % interval", "floor", "worst 5 %", "above .8", "n", "unit", "signature"]);
    for row in scored {
        let digits = if matches!(row.unit, "points" | "words" | "dB" | "bits") { 2 } else { 4 };
        let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |v| format!("{v:.digits$}"));
        let interval = match (row.low, row.high) {
            (Some(low), Some(high)) => format!("{low:.digits$} .. {high:.digits$}"),
            _ => "-".to_owned(),
        };
        table.add_row([
            row.metric.to_owned(),
            number(row.value),
            interval,
            number(row.floor),
            number(row.worst_5_percent),
            number(row.above_0_8),
            row.n.to_string(),
            row.unit.to_owned(),
            row.signature.clone(),
        ]);
    }
    for column in table.column_iter_mut().skip(1).take(6) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut notes = String::from(
        "floor: the same guesses against other originals (ranks: chance). Intervals: bootstrap over documents; counts: exact.",
    );
    if let Some(resized) = resized.filter(|&resized| resized > 0) {
        notes.push_str("\nGuesses resized to the size of their originals: ");
        notes.push_str(&resized.to_string());
    }
    if judge.is_some_and(|info| info.toy) {
        notes.push_str("\nThe judge is a toy for fast tests: its numbers say nothing about real similarity.");
    }
    format!("{table}\n{notes}")
}
