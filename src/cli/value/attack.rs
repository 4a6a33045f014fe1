//! `value attack`: is the loop itself safe? Manipulation gains, and membership through replies.

use super::edge::{encode, open_corpus};
use super::fault;
use crate::cli::ui;
use comfy_table::{CellAlignment, Table, presets};
use stitchback::Exit;
use stitchback::attack::gaming::{self, Trick};
use stitchback::data::Record;
use stitchback::run::setup;

/// Try to be paid for nothing, and to learn from replies who gave what
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Records of one group, by corpus name or path
    #[arg(long, default_value = "toy", value_name = "CORPUS")]
    corpus: String,
    /// Only records of this topic
    #[arg(long)]
    topic: Option<String>,
    /// The encoder of the records
    #[arg(long, default_value = "toy", value_name = "NAME")]
    encoder: String,
    /// Most records
    #[arg(long, default_value_t = 2000)]
    records: usize,
    /// Trials of each trick; membership takes forty times as many, averaging twenty times
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(3..=10_000))]
    trials: u32,
    /// Names the randomness
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Exit> {
    let watch = ui::Terminal::new(false);
    let encoder = setup::encoder(&args.encoder, &mut Vec::new(), &watch)?;
    let corpus = open_corpus(&args.corpus, &watch)?;
    let wanted = |r: &&Record| args.topic.is_none() || r.topic == args.topic;
    let records: Vec<&Record> = corpus.records.iter().filter(wanted).take(args.records).collect();
    let rows = encode(encoder.as_ref(), &records)?;
    let gains = gaming::gains(&rows, args.trials as usize, args.seed).map_err(fault)?;
    let averaging = gaming::averaging(&rows, 20 * args.trials as usize, args.seed).map_err(fault)?;
    let membership = gaming::membership(&rows, 40 * args.trials as usize, args.seed).map_err(fault)?;
    if args.json {
        super::say(&format!(
            "{:#}",
            serde_json::json!({"gains": gains, "membership": membership, "averaging": averaging})
        ))?;
        return Ok(Exit::Pass);
    }
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    let engines: Vec<&str> = gaming::engines().iter().map(|(name, _)| *name).collect();
    let mut head = vec!["trick: pay over honest pay"];
    head.extend(&engines);
    table.set_header(head);
    for trick in Trick::ALL {
        let cell = |engine: &&str| {
            let g = gains.iter().find(|g| g.trick == trick && *engine == g.engine).expect("every pair was played");
            format!("{:.2} ± {:.2}", g.gain, g.error)
        };
        let mut row = vec![trick.name().to_owned()];
        row.extend(engines.iter().map(cell));
        table.add_row(row);
    }
    table.column_iter_mut().skip(1).for_each(|c| c.set_cell_alignment(CellAlignment::Right));
    let mut text = format!("{table}\n");
    for m in &membership {
        let bound =
            m.bound.map_or_else(|| "nothing promised".to_owned(), |b| format!("at most {:.1} % promised", 100.0 * b));
        super::add(
            &mut text,
            &format!(
                "membership by {}: {:.1} % found at 1 % false alarms ({bound}; {} trials each way)\n",
                m.reply,
                100.0 * m.tpr_at_1_percent,
                m.trials
            ),
        );
    }
    for a in &averaging {
        super::add(
            &mut text,
            &format!(
                "membership by the mean of {} contributions of the same records: {:.1} % with fresh noise, {:.1} % with a kept \
                 release, at 1 % false alarms\n",
                a.contributions,
                100.0 * a.fresh,
                100.0 * a.memoized
            ),
        );
    }
    super::say(&text)?;
    Ok(Exit::Pass)
}
