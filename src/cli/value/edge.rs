//! The operator's side: set an edge up, run it, end epochs, settle requests.

use super::{Client, fault, key_file, secret};
use crate::cli::{Usage, ui};
use anyhow::Context as _;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use stitchback::contribute::agent::write_private;
use stitchback::contribute::catalogue::{Catalogue, Plan, hex};
use stitchback::contribute::cloud::{Charter, Policy};
use stitchback::contribute::edge::server::{Limits, Server};
use stitchback::contribute::edge::{Edge, EpochRecord};
use stitchback::contribute::message::{Body, Envelope};
use stitchback::contribute::receipt::EdgeKey;
use stitchback::data::{Keep, Medium, Record, corpus};
use stitchback::encode::{Embeddings, Encoder};
use stitchback::run::setup;
use stitchback::{Exit, seed};

/// Make an edge folder: a key, and a charter with a topic catalogue for each group of a public corpus
#[derive(Debug, clap::Args)]
pub(super) struct Setup {
    /// The edge's folder
    folder: PathBuf,
    /// The edge's name; it stands in every receipt
    #[arg(long, default_value = "edge.local")]
    name: String,
    /// A public corpus by name or path; each of its larger topics becomes a group
    #[arg(long, value_name = "CORPUS")]
    corpus: String,
    /// The encoder of contributors
    #[arg(long, value_name = "NAME")]
    encoder: String,
    /// Topic cells of each group
    #[arg(long, default_value_t = 32)]
    cells: usize,
    /// Most public records that are used for each group
    #[arg(long, default_value_t = 4000)]
    records: usize,
    /// One group over the whole corpus, under this name
    #[arg(long, value_name = "NAME")]
    group: Option<String>,
}

/// Run an edge until it is interrupted
#[derive(Debug, clap::Args)]
pub(super) struct Serve {
    /// The edge's folder, from `value setup`
    folder: PathBuf,
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:8470", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Length of an epoch in seconds; 0 ends epochs with `value close` only
    #[arg(long, default_value_t = 86_400, value_name = "S")]
    epoch_seconds: u64,
    /// Requests a second that one address may make
    #[arg(long, default_value_t = 1000, value_name = "N")]
    rate: u32,
    /// Connections at once
    #[arg(long, default_value_t = 512, value_name = "N")]
    connections: usize,
}

/// End the current epoch of a running edge: contributions are valued, credits issued
#[derive(Debug, clap::Args)]
pub(super) struct Close {
    /// The edge's folder, for its key
    folder: PathBuf,
    /// The running edge
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8470")]
    edge: String,
}

/// Say what a request did cost; the rest of what was set aside goes back
#[derive(Debug, clap::Args)]
pub(super) struct Settle {
    /// The edge's folder, for its key
    folder: PathBuf,
    /// The request's receipt id
    #[arg(long, value_name = "ID")]
    request: String,
    /// What it cost, in micro-credits; 0 gives everything back
    #[arg(long, value_name = "MICRO")]
    cost: u64,
    /// The running edge
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8470")]
    edge: String,
}

/// Announce the next topic catalogue of a group to a running edge; it holds from the next epoch on
#[derive(Debug, clap::Args)]
pub(super) struct NextCatalogue {
    /// The edge's folder, for its key
    folder: PathBuf,
    /// The group
    #[arg(long, value_name = "NAME")]
    group: String,
    /// A public corpus by name or path: its records of that topic, or all of them where none has it
    #[arg(long, value_name = "CORPUS")]
    corpus: String,
    /// Topic cells [default: as many as now]
    #[arg(long)]
    cells: Option<usize>,
    /// Most public records that are used
    #[arg(long, default_value_t = 4000)]
    records: usize,
    /// The running edge
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8470")]
    edge: String,
}

/// Vectors of records, texts or pictures.
pub(super) fn encode(encoder: &dyn Encoder, records: &[&Record]) -> Result<Embeddings, stitchback::Error> {
    let pictures: Vec<_> = records.iter().filter_map(|r| r.picture.as_ref()).collect();
    let texts: Vec<&str> = records.iter().map(|r| r.text.as_str()).collect();
    Ok(if pictures.is_empty() { encoder.encode(&texts)? } else { encoder.encode_pictures(&pictures)? })
}

/// Opens a corpus by name or path, fetching what is missing.
pub(super) fn open_corpus(name: &str, watch: &ui::Terminal) -> Result<corpus::Corpus, stitchback::Error> {
    setup::corpus(name, &Keep::default(), &mut Vec::new(), watch)
}

pub(super) fn setup(args: &Setup) -> anyhow::Result<Exit> {
    let charter_path = args.folder.join("charter.json");
    if charter_path.exists() {
        return Err(Usage(format!("`{}` is there already; an edge is set up once", charter_path.display())).into());
    }
    let watch = ui::Terminal::new(false);
    let encoder = setup::encoder(&args.encoder, &mut Vec::new(), &watch)?;
    let corpus = open_corpus(&args.corpus, &watch)?;
    let mut groups: BTreeMap<String, Vec<&Record>> = BTreeMap::new();
    for record in &corpus.records {
        let topic = record.topic.clone().unwrap_or_else(|| corpus.name.clone());
        groups.entry(args.group.clone().unwrap_or(topic)).or_default().push(record);
    }
    let mut charter = Charter { policy: Policy::default(), groups: Vec::new() };
    for (group, records) in groups.into_iter().filter(|(_, r)| r.len() >= 10 * args.cells) {
        let every = records.len().div_ceil(args.records.max(10 * args.cells)).max(1);
        let shown: Vec<&Record> = records.into_iter().step_by(every).collect();
        ui::note(&format!("{group}: {} public records", shown.len()));
        let vectors = encode(encoder.as_ref(), &shown)?;
        let plan = Plan {
            group,
            encoder: format!("{} {}", args.encoder, encoder.info().fingerprint),
            cells: args.cells,
            centred: corpus.medium() == Medium::Picture,
        };
        let mut rng = seed::stream(0, "value setup", &plan.group);
        charter.groups.push(Catalogue::fit(&plan, &vectors, &mut rng).map_err(fault)?);
    }
    if charter.groups.is_empty() {
        let why = format!(
            "no topic of `{}` has {} records; give fewer `--cells`, or one `--group`",
            args.corpus,
            10 * args.cells
        );
        return Err(Usage(why).into());
    }
    let key = EdgeKey::new(&args.name, &secret()?).map_err(fault)?;
    std::fs::create_dir_all(&args.folder).with_context(|| format!("cannot make `{}`", args.folder.display()))?;
    let secret_key = format!("{} {}\n", args.name, hex(key.operator().as_bytes()));
    write_private(&args.folder.join("key"), secret_key.as_bytes()).map_err(fault)?;
    write_private(&charter_path, charter.to_json().as_bytes()).map_err(fault)?;
    let names: Vec<&str> = charter.groups.iter().map(|g| g.group.as_str()).collect();
    ui::note(&format!("{} groups: {}", names.len(), names.join(", ")));
    super::say(&format!("{}\n", key.public()))?;
    Ok(Exit::Pass)
}

pub(super) fn catalogue(args: &NextCatalogue) -> anyhow::Result<Exit> {
    let key = edge_key(&args.folder)?;
    let client = Client::new(&args.edge);
    let (_, charter) = client.get("/v1/charter")?;
    let charter = Charter::from_json("the edge's charter", &charter).map_err(fault)?;
    let now = charter.groups.iter().find(|g| g.group == args.group).ok_or_else(|| {
        let names: Vec<&str> = charter.groups.iter().map(|g| g.group.as_str()).collect();
        Usage(format!("the edge has no group `{}`; it has: {}", args.group, names.join(", ")))
    })?;
    let watch = ui::Terminal::new(false);
    let (name, _) = now.encoder.rsplit_once(' ').unwrap_or((&now.encoder, ""));
    let encoder = setup::encoder(name, &mut Vec::new(), &watch)?;
    let corpus = open_corpus(&args.corpus, &watch)?;
    let of_topic = |r: &&Record| r.topic.as_deref() == Some(&args.group);
    let any = corpus.records.iter().any(|r| of_topic(&r));
    let records: Vec<&Record> = corpus.records.iter().filter(|r| !any || of_topic(r)).collect();
    let cells = args.cells.unwrap_or(now.cells());
    let every = records.len().div_ceil(args.records.max(10 * cells)).max(1);
    let vectors = encode(encoder.as_ref(), &records.into_iter().step_by(every).collect::<Vec<_>>())?;
    let plan = Plan {
        group: args.group.clone(),
        encoder: format!("{name} {}", encoder.info().fingerprint),
        cells,
        centred: corpus.medium() == Medium::Picture,
    };
    let version = now.version + 1;
    let mut rng = seed::stream(u64::from(version), "value setup", &plan.group);
    let mut next = Catalogue::fit(&plan, &vectors, &mut rng).map_err(fault)?;
    next.version = version;
    let epoch = client.epoch()?;
    let hash = hex(&next.hash());
    let body = Body::Catalogue { edge: key.name().to_owned(), epoch, next: Box::new(next) };
    let _: stitchback::contribute::edge::Answer =
        client.json(client.post("/v1/catalogues", &Envelope::seal(&body, key.operator()))?)?;
    super::say(&format!(
        "group {}: version {version} of its catalogue ({cells} cells, {}) holds from epoch {} on\n",
        args.group,
        &hash[..16],
        epoch + 1
    ))?;
    Ok(Exit::Pass)
}

fn edge_key(folder: &Path) -> anyhow::Result<EdgeKey> {
    let path = folder.join("key");
    let text = super::read(&path)?;
    let (name, digits) = text.trim().split_once(' ').unwrap_or_default();
    let secret = stitchback::contribute::message::unhex(digits).ok_or_else(|| {
        let why = "it is no key of an edge; `value setup` makes one".to_owned();
        fault(stitchback::contribute::Error::Malformed { path: path.display().to_string(), why })
    })?;
    Ok(EdgeKey::new(name, &secret).map_err(fault)?)
}

pub(super) fn serve(args: &Serve) -> anyhow::Result<Exit> {
    let edge = Edge::open(&args.folder, edge_key(&args.folder)?).map_err(fault)?;
    let limits = Limits {
        epoch_s: (args.epoch_seconds > 0).then_some(args.epoch_seconds),
        connections: args.connections,
        rate_per_s: args.rate,
    };
    let (key, epoch) = (edge.public(), edge.epoch());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let server = Server::start(edge, args.listen, limits).await.map_err(fault)?;
        ui::note(&format!("edge {} listens on http://{}, epoch {epoch}; Ctrl-C stops it", key.name(), server.address));
        super::say(&format!("{key}\n"))?;
        #[cfg(unix)]
        {
            let mut ended = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
            tokio::select! {
                signal = tokio::signal::ctrl_c() => signal?,
                _ = ended.recv() => {}
            }
        }
        #[cfg(not(unix))]
        tokio::signal::ctrl_c().await?;
        ui::note("stopping");
        server.stop().await.map_err(fault)?;
        Ok(Exit::Pass)
    })
}

pub(super) fn close(args: &Close) -> anyhow::Result<Exit> {
    let key = edge_key(&args.folder)?;
    let client = Client::new(&args.edge);
    let body = Body::Close { edge: key.name().to_owned(), epoch: client.epoch()? };
    let message = Envelope::seal(&body, key.operator());
    let record: EpochRecord = client.json(client.post("/v1/epoch/close", &message)?)?;
    super::say(&format!(
        "epoch {} closed: {} contributions valued, baseline {} micro-credits, {} accounts rewarded\n",
        record.epoch, record.contributions, record.baseline, record.rewarded
    ))?;
    Ok(Exit::Pass)
}

pub(super) fn settle(args: &Settle) -> anyhow::Result<Exit> {
    let key = edge_key(&args.folder)?;
    let client = Client::new(&args.edge);
    let body = Body::Settle {
        edge: key.name().to_owned(),
        epoch: client.epoch()?,
        nonce: hex(&secret()?[..16]),
        request: args.request.clone(),
        cost: args.cost,
    };
    let answer: stitchback::contribute::edge::Answer =
        client.json(client.post("/v1/settlements", &Envelope::seal(&body, key.operator()))?)?;
    super::say(&format!("settled for {} micro-credits: receipt {}\n", args.cost, answer.receipt.unwrap_or_default()))?;
    Ok(Exit::Pass)
}

/// The account's own key file.
pub(super) fn account(home: &Path) -> anyhow::Result<[u8; 32]> {
    key_file(&home.join("account.key"), true)
}
