//! `value simulate`: who waits how long under which rule of access.

use super::edge::{encode, open_corpus};
use super::fault;
use crate::cli::{Usage, ui};
use comfy_table::{CellAlignment, Table, presets};
use std::path::PathBuf;
use stitchback::contribute::agent::write_private;
use stitchback::contribute::channel::Budget;
use stitchback::contribute::simulate::compare::FIGURES;
use stitchback::contribute::simulate::population::{self, Service};
use stitchback::contribute::simulate::{Comparison, Plan, compare};
use stitchback::data::{Medium, Record};
use stitchback::report::simulation;
use stitchback::run::setup;
use stitchback::{Exit, seed};

/// Compare rules of access on the same arrivals: first come, equal shares, by contribution, three ways of paying
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Users
    #[arg(long, default_value_t = 200)]
    users: usize,
    /// Jobs in each replication
    #[arg(long, default_value_t = 10_000)]
    jobs: usize,
    /// Replications behind every interval
    #[arg(long, default_value_t = 30)]
    replications: usize,
    /// Slots that serve jobs
    #[arg(long, default_value_t = 8)]
    slots: u32,
    /// Work offered, as a share of what the slots can do
    #[arg(long, default_value_t = 0.95)]
    load: f64,
    /// Squared coefficient of variation of the time that a job takes
    #[arg(long, default_value_t = 1.0)]
    cv2: f64,
    /// Mean patience in mean services; 0 for users who never give up
    #[arg(long, default_value_t = 50.0)]
    patience: f64,
    /// Correlations of wealth and contribution
    #[arg(long, value_delimiter = ',', default_values_t = [-1.0, -0.5, 0.0, 0.5, 1.0], allow_hyphen_values = true)]
    correlations: Vec<f64>,
    /// Records that the users contribute, by corpus name or path
    #[arg(long, default_value = "toy", value_name = "CORPUS")]
    corpus: String,
    /// The encoder of the records
    #[arg(long, default_value = "toy", value_name = "NAME")]
    encoder: String,
    /// Privacy budget of each contribution
    #[arg(long, default_value_t = 1.0)]
    epsilon: f64,
    /// Names the randomness
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where plots and the table as JSON go
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// JSON on stdout instead of the table
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Exit> {
    let wrong = |what: &str| Usage(format!("`{what}` is out of range; see `value simulate --help`"));
    if !(20..=100_000).contains(&args.users) || args.jobs < 100 || args.jobs > 20_000_000 {
        return Err(wrong("--users or --jobs").into());
    }
    if args.slots < 4 || !(0.05..=3.0).contains(&args.load) || !(2..=10_000).contains(&args.replications) {
        return Err(wrong("--slots, --load or --replications").into());
    }
    if !(0.0..=100.0).contains(&args.cv2) || args.correlations.iter().any(|c| !(-1.0..=1.0).contains(c)) {
        return Err(wrong("--cv2 or --correlations").into());
    }
    let budget = Budget::new(args.epsilon).map_err(fault)?;
    let watch = ui::Terminal::new(false);
    let encoder = setup::encoder(&args.encoder, &mut Vec::new(), &watch)?;
    let corpus = open_corpus(&args.corpus, &watch)?;
    let most = 40 * args.users;
    let records: Vec<&Record> = corpus.records.iter().take(most.max(1000)).collect();
    let rows = encode(encoder.as_ref(), &records)?;
    let centred = corpus.medium() == Medium::Picture;
    let mut rng = seed::stream(args.seed, "simulate", "contributions");
    let values = population::contributed(&rows, args.users, centred, budget, &mut rng).map_err(fault)?;
    let plan = Plan {
        values,
        jobs: args.jobs,
        slots: args.slots,
        rho: args.load,
        service: if args.cv2 == 0.0 { Service::Fixed } else { Service::LogNormal(args.cv2) },
        patience: if args.patience > 0.0 { args.patience } else { f64::INFINITY },
        epoch: 50.0,
        correlations: args.correlations.clone(),
        replications: args.replications,
        seed: args.seed,
    };
    let result = compare(&plan);
    let json = serde_json::to_string_pretty(&result)?;
    if let Some(folder) = &args.out {
        std::fs::create_dir_all(folder)?;
        write_private(&folder.join("simulation.json"), json.as_bytes()).map_err(fault)?;
        let mut files = simulation::drawings(&result);
        files.push(("privacy-tax.svg".to_owned(), simulation::privacy_tax(&population::privacy_tax(args.seed))));
        for (name, svg) in &files {
            write_private(&folder.join(name), svg.as_bytes()).map_err(fault)?;
        }
        ui::note(&format!("{} plots in {}", files.len(), folder.display()));
    }
    if encoder.info().toy || corpus.toy {
        ui::note("toy: contributions come from a toy encoder or corpus; waits are simulated all the same");
    }
    super::say(&if args.json { json } else { table(&result) })?;
    Ok(Exit::Pass)
}

fn table(result: &Comparison) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    let shown = [
        "mean_wait",
        "load_weighted_wait",
        "wait_p99",
        "starved",
        "starved_poorest_half",
        "wasted",
        "value_service_spearman",
    ];
    let mut head = vec!["correlation".to_owned(), "policy".to_owned()];
    head.extend(shown.iter().map(|s| s.replace('_', " ")));
    table.set_header(head);
    for row in &result.rows {
        let mut cells = vec![format!("{:.1}", row.correlation), row.policy.name().replace('_', " ")];
        for name in shown {
            let at = FIGURES.iter().position(|f| *f == name).expect("a figure of every row");
            let f = row.figures[at];
            // A star: the paired interval of the difference to `fifo` holds no 0.
            let star = if f.low > 0.0 || f.high < 0.0 { "*" } else { "" };
            cells.push(format!("{:.3}{star}", f.value));
        }
        table.add_row(cells);
    }
    table.column_iter_mut().skip(2).for_each(|c| c.set_cell_alignment(CellAlignment::Right));
    format!(
        "{table}\n* differs from fifo (paired 95 % interval over {} replications); waits in mean services\n",
        result.replications
    )
}
