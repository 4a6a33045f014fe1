//! `stitchback init`: a study and a policy for the data at hand.

use super::Usage;
use super::ui;
use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use stitchback::Exit;
use stitchback::data::corpus::local;
use stitchback::gate::{Policy, output};
use stitchback::study::Study;

/// Write a study and a gate policy to begin with; asks what data you have where there is a terminal
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Your records: .txt, .jsonl, .parquet or a folder [default: ask, else bbc-news]
    #[arg(long, value_name = "PATH|CORPUS")]
    data: Option<String>,
    /// The folder to write study.toml and gate.toml into
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
    /// Replace files that are there
    #[arg(long)]
    force: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    let data = match &args.data {
        Some(data) => data.clone(),
        None => ask()?,
    };
    let path = Path::new(&data);
    let pictures = path.is_dir() && !local::picture_files(path).map_err(stitchback::Error::from)?.is_empty();
    let records = if path.is_file() { local::every_record(path).map_err(stitchback::Error::from)?.len() } else { 4000 };
    anyhow::ensure!(records >= 60, Usage(format!("`{data}` has {records} records; a study needs at least 60")));
    let (study, policy) = (study_text(&data, pictures, records), policy_text());
    // What we write must be what we read.
    Study::parse("study.toml", &study).map_err(stitchback::Error::from)?;
    Policy::parse("gate.toml", &policy).map_err(stitchback::gate::Error::from).map_err(stitchback::Error::from)?;
    for (name, text) in [("study.toml", &study), ("gate.toml", &policy)] {
        let file = args.out.join(name);
        if file.exists() && !args.force {
            anyhow::bail!(Usage(format!("`{}` is there already; use --force to replace it", file.display())));
        }
        output::put(&file, text).map_err(stitchback::Error::from)?;
        ui::print(&file.display().to_string())?;
    }
    ui::note("next: stitchback run study.toml");
    Ok(Exit::Pass)
}

/// Asks on a terminal only; elsewhere the public corpus is taken.
fn ask() -> anyhow::Result<String> {
    let usual = "bbc-news".to_owned();
    if !std::io::stdin().is_terminal() {
        return Ok(usual);
    }
    write!(std::io::stderr(), "Where are your records (.txt, .jsonl, .parquet or a folder)? [bbc-news] ")?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    let line = line.trim();
    Ok(if line.is_empty() { usual } else { line.to_owned() })
}

fn study_text(data: &str, pictures: bool, records: usize) -> String {
    let targets = (records / 10).clamp(20, 300);
    let validation = (targets / 5).clamp(10, 60);
    // The split gives the attackers about two thirds of the documents.
    let auxiliary = (3 * records / 5).clamp(20, 8000);
    let corpus = toml::Value::String(data.to_owned());
    let (encode, attacks) = if pictures {
        (
            "victim = \"mobilenet-v2\"\njudges = [\"efficientnet-lite0\"]",
            "[[attack]]\nkind = \"nearest\"\n[[attack]]\nkind = \"ridge\"\n[[attack]]\nkind = \"image_decoder\"\n",
        )
    } else {
        (
            "victim = \"all-minilm-l6-v2\"\njudges = [\"multilingual-e5-small\"]   # scores guesses; never the victim",
            "[[attack]]\nkind = \"nearest\"\n[[attack]]\nkind = \"decoder\"\n",
        )
    };
    format!(
        r#"# How much of these records can be read back from their embeddings? `stitchback run study.toml`
schema = 1
name = "mine"
seeds = [1]                 # five for a verdict that a gate accepts

[data]
corpus = {corpus}
targets = {targets}              # held-out records that the attackers try to read
validation = {validation}
auxiliary = {auxiliary}            # the attackers' own records

[encode]
{encode}

[[protect]]
name = "unprotected"        # nothing is safe without its baseline
pipeline = "identity"
[[protect]]
name = "noisy"              # your own: `stitchback account PIPELINE` says what it guarantees
pipeline = "clip(l2=1) | gaussian(sigma=0.1)"

[[attack]]
kind = "blind"              # never looks at the vector: the floor
{attacks}"#
    )
}

fn policy_text() -> String {
    r#"# What a release may leak: `stitchback gate reports/mine-... --policy gate.toml`
schema = "stitchback/gate/v1"

[defaults]
min_n = 200                 # a verdict needs this many targets
min_seeds = 5               # and this many seeds

[[check]]
id = "leak"
max = 0.20                  # upper 95 % bound of what the worst attacker reads back
min_reduction = 0.75        # of what it reads back unprotected

[[check]]
id = "topics"
level = "warn"
select = { metric = "topic_accuracy" }
min_retention = 0.80
"#
    .to_owned()
}
