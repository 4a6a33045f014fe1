//! The user's side: contribute, redeem, look, ask for capacity.

use super::{Client, edge, fault, reason};
use crate::cli::{Usage, ui};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rand::SeedableRng as _;
use std::path::{Path, PathBuf};
use stitchback::contribute::agent::{Agent, Shield, write_private};
use stitchback::contribute::catalogue::hex;
use stitchback::contribute::channel::Budget;
use stitchback::contribute::cloud::Charter;
use stitchback::contribute::edge::{Answer, open_token};
use stitchback::contribute::log::Proof;
use stitchback::contribute::message::{About, unhex};
use stitchback::contribute::receipt::{EdgePublic, Receipt};
use stitchback::contribute::{Catalogue, Error};
use stitchback::data::Record;
use stitchback::encode::Encoder;
use stitchback::protect::Pipeline;
use stitchback::run::setup;
use stitchback::{Exit, seed};

/// What all verbs of an agent take.
#[derive(Debug, clap::Args)]
pub(super) struct Side {
    /// The edge
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8470")]
    edge: String,
    /// Where the account's key, its releases and its receipts lie
    #[arg(long, value_name = "DIR", default_value = "stitchback-agent")]
    home: PathBuf,
}

/// Give protected signals of your records to an edge; the records and their vectors stay here
#[derive(Debug, clap::Args)]
pub(super) struct Contribute {
    /// Records: a text a line (.txt), JSONL, a folder of texts or of pictures
    #[arg(long, value_name = "FILE|DIR")]
    from: PathBuf,
    /// The topic group; needed where the edge has several
    #[arg(long, value_name = "NAME")]
    group: Option<String>,
    /// Privacy budget of the topic histogram: replacing one record changes no output's probability by more than e^E
    #[arg(long, value_name = "E", default_value_t = 1.0)]
    epsilon: f64,
    /// Send vectors as well, protected like this; without it only the histogram leaves
    #[arg(long)]
    pipeline: Option<Pipeline>,
    #[command(flatten)]
    side: Side,
}

/// Fetch the values of closed epochs and redeem their receipts
#[derive(Debug, clap::Args)]
pub(super) struct Redeem {
    #[command(flatten)]
    side: Side,
}

/// Show the basket and what has been accrued
#[derive(Debug, clap::Args)]
pub(super) struct Balance {
    /// One JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    side: Side,
}

/// Set credits aside for a request for AI capacity
#[derive(Debug, clap::Args)]
pub(super) struct Request {
    /// The most that it may cost, in micro-credits
    #[arg(long, value_name = "MICRO")]
    at_most: u64,
    /// Tell the edge which topic this text is about (the text itself stays here): once paid, it counts as demand for that topic
    #[arg(long, value_name = "TEXT")]
    about: Option<String>,
    /// The group whose topics are meant, where the edge has several
    #[arg(long, requires = "about")]
    group: Option<String>,
    #[command(flatten)]
    side: Side,
}

struct Session {
    client: Client,
    agent: Agent,
    public: EdgePublic,
    epoch: u64,
}

/// Opens the account and meets the edge. The edge's key is remembered from the first meeting.
fn meet(side: &Side) -> anyhow::Result<Session> {
    let client = Client::new(&side.edge);
    let agent = Agent::new(&edge::account(&side.home)?);
    let (_, key) = client.get("/v1/key")?;
    let public: EdgePublic = key.parse().map_err(fault)?;
    let known = side.home.join("edge.pub");
    if known.exists() {
        let before = super::read(&known)?;
        if before.trim() != public.to_string() {
            let why = format!(
                "the edge at {} shows another key than before; if it is meant to, remove `{}`",
                side.edge,
                known.display()
            );
            return Err(fault(Error::Input(why)).into());
        }
    } else {
        write_private(&known, format!("{public}\n").as_bytes()).map_err(fault)?;
    }
    let epoch = client.epoch()?;
    let _: Answer = client.json(client.post("/v1/register", &agent.register(public.name()))?)?;
    Ok(Session { client, agent, public, epoch })
}

fn choose<'a>(charter: &'a Charter, wanted: Option<&str>) -> anyhow::Result<&'a Catalogue> {
    let names: Vec<&str> = charter.groups.iter().map(|g| g.group.as_str()).collect();
    match (wanted, charter.groups.as_slice()) {
        (None, [only]) => Ok(only),
        (None, _) => {
            Err(Usage(format!("the edge has several groups, give one with `--group`: {}", names.join(", "))).into())
        }
        (Some(name), groups) => groups
            .iter()
            .find(|g| g.group == name)
            .ok_or_else(|| Usage(format!("the edge has no group `{name}`; it has: {}", names.join(", "))).into()),
    }
}

/// The encoder whose vectors a catalogue's cells are made of.
fn encoder_of(catalogue: &Catalogue, watch: &ui::Terminal) -> anyhow::Result<Box<dyn Encoder>> {
    let (name, fingerprint) = catalogue.encoder.rsplit_once(' ').unwrap_or((&catalogue.encoder, ""));
    let encoder = setup::encoder(name, &mut Vec::new(), watch)?;
    if encoder.info().fingerprint != fingerprint {
        let why = format!("this `{name}` is not the one that the group's catalogue was made with; fetch it again");
        return Err(fault(Error::Input(why)).into());
    }
    Ok(encoder)
}

/// The cell that a text falls into; `None` when it is about none of the group's topics.
fn topic(client: &Client, group: Option<&str>, text: &str) -> anyhow::Result<Option<About>> {
    let (_, charter) = client.get("/v1/charter")?;
    let charter = Charter::from_json("the edge's charter", &charter).map_err(fault)?;
    let catalogue = choose(&charter, group)?;
    let vectors = encoder_of(catalogue, &ui::Terminal::new(false))?.encode(&[text])?;
    let pulls = catalogue.pulls(vectors.row(0));
    let cell = (0..pulls.len()).max_by(|&a, &b| pulls[a].total_cmp(&pulls[b])).unwrap_or_default();
    let about = || About { group: catalogue.group.clone(), catalogue: hex(&catalogue.hash()), cell: cell as u32 };
    Ok((cell < catalogue.cells()).then(about))
}

pub(super) fn contribute(args: &Contribute) -> anyhow::Result<Exit> {
    let budget = Budget::new(args.epsilon).map_err(fault)?;
    let session = meet(&args.side)?;
    let (client, public) = (&session.client, &session.public);
    let (_, charter) = client.get("/v1/charter")?;
    let charter = Charter::from_json("the edge's charter", &charter).map_err(fault)?;
    let catalogue = choose(&charter, args.group.as_deref())?;
    let watch = ui::Terminal::new(false);
    let encoder = encoder_of(catalogue, &watch)?;
    let corpus = edge::open_corpus(&args.from.display().to_string(), &watch)?;
    let cap = charter.policy.items_cap as usize;
    let records: Vec<&Record> = corpus.records.iter().take(cap).collect();
    if corpus.records.len() > cap {
        ui::note(&format!("only the first {cap} of {} records: an epoch takes no more", corpus.records.len()));
    }
    let raw = edge::encode(encoder.as_ref(), &records)?;
    let shield = Shield { budget, pipeline: args.pipeline.clone() };
    let mut rng = seed::Stream::try_from_rng(&mut rand::rngs::SysRng)?;
    let sealed = session.agent.protect_once(&args.side.home.join("releases"), catalogue, &raw, &shield, &mut rng)?;
    let message = session.agent.contribute(public.name(), session.epoch, &sealed);
    let (status, answer) = client.post("/v1/contributions", &message)?;
    let (receipt, token) = if let Some(id) = given_before(status, &answer) {
        ui::note("the same release was given before; its receipt is fetched again");
        fetch(client, public, &id)?
    } else {
        let answer: Answer = client.json((status, answer))?;
        let token = answer.token.unwrap_or_default();
        (open_token(public, &token).map_err(fault)?, token)
    };
    if !session.agent.is_of(&receipt, &sealed) {
        return Err(fault(Error::Input("the receipt is not for what was sent".to_owned())).into());
    }
    let id = hex(&receipt.id);
    keep(&args.side.home, &format!("{id}.contribution"), &token)?;
    super::say(&format!(
        "{} records of group {} given at epsilon {} (epoch {}): receipt {id}\n",
        records.len(),
        receipt.group,
        args.epsilon,
        receipt.epoch
    ))?;
    ui::note("the value follows at the end of the epoch: `stitchback value redeem`");
    Ok(Exit::Pass)
}

/// The receipt that a release got when it was given before, from the refusal to take it twice.
fn given_before(status: u16, answer: &str) -> Option<[u8; 16]> {
    let why = (status == 409).then(|| reason(answer))?;
    unhex(why.split_once("under receipt ")?.1)
}

/// A receipt that the edge has filed, with its base64.
fn fetch(client: &Client, public: &EdgePublic, id: &[u8; 16]) -> anyhow::Result<(Receipt, String)> {
    let text = client.text(client.get(&format!("/v1/receipts/{}", hex(id)))?)?;
    let proof = Proof::parse(&text).map_err(|why| fault(Error::Input(why)))?;
    let (receipt, _) = proof.verify(public).map_err(|why| fault(Error::Input(why)))?;
    Ok((receipt, STANDARD.encode(&proof.token)))
}

fn keep(home: &Path, name: &str, token: &str) -> anyhow::Result<()> {
    let folder = home.join("receipts");
    std::fs::create_dir_all(&folder)?;
    Ok(write_private(&folder.join(name), format!("{token}\n").as_bytes()).map_err(fault)?)
}

/// Names of the kept files with this ending, in order.
fn kept(home: &Path, ending: &str) -> Vec<String> {
    let entries = std::fs::read_dir(home.join("receipts")).into_iter().flatten().flatten();
    let names = entries.filter_map(|e| e.file_name().into_string().ok());
    let mut out: Vec<String> = names.filter_map(|n| n.strip_suffix(ending).map(str::to_owned)).collect();
    out.sort();
    out
}

/// Presents an issue receipt; says why where the edge will never take it.
fn present(session: &Session, token: &str) -> anyhow::Result<Option<String>> {
    let bytes = STANDARD.decode(token).unwrap_or_default();
    let message = session.agent.redeem(session.public.name(), &bytes);
    let (status, answer) = session.client.post("/v1/redemptions", &message)?;
    let why = reason(&answer);
    match status {
        // Redeemed before a crash: that is what was wanted.
        409 if why.contains("redeemed before") => Ok(None),
        409 | 422 => Ok(Some(why)),
        _ => {
            let _: Answer = session.client.json((status, answer))?;
            Ok(None)
        }
    }
}

pub(super) fn redeem(args: &Redeem) -> anyhow::Result<Exit> {
    let session = meet(&args.side)?;
    let (client, public, home) = (&session.client, &session.public, &args.side.home);
    let done = [kept(home, ".redeemed"), kept(home, ".expired")].concat();
    let (mut waiting, mut text) = (0, String::new());
    for id in kept(home, ".contribution").into_iter().filter(|id| !done.contains(id)) {
        let (status, answer) = client.get(&format!("/v1/issued/{id}"))?;
        if status == 404 {
            waiting += 1;
            continue;
        }
        let answer: Answer = client.json((status, answer))?;
        let token = answer.token.unwrap_or_default();
        let receipt = open_token(public, &token).map_err(fault)?;
        let issued = hex(&receipt.id);
        let proof = client.text(client.get(&format!("/v1/receipts/{issued}"))?)?;
        let path = home.join("receipts").join(format!("{issued}.proof"));
        write_private(&path, proof.as_bytes()).map_err(fault)?;
        super::add(
            &mut text,
            &format!("epoch {}, group {}: {}\n", receipt.epoch, receipt.group, receipt.worth().sentence()),
        );
        let refused = if receipt.value > 0 { present(&session, &token)? } else { None };
        if let Some(why) = &refused {
            // Refused for good: it must not stand in the way of the others.
            ui::note(&format!("receipt {issued} cannot be redeemed and is laid aside: {why}"));
        }
        keep(home, &format!("{id}.{}", if refused.is_some() { "expired" } else { "redeemed" }), &token)?;
        super::add(&mut text, &format!("  proof: {}\n", path.display()));
    }
    if text.is_empty() {
        text.push_str("nothing to redeem\n");
    }
    super::say(&text)?;
    if waiting > 0 {
        ui::note(&format!("{waiting} contributions wait for the end of their epoch"));
    }
    Ok(Exit::Pass)
}

pub(super) fn balance(args: &Balance) -> anyhow::Result<Exit> {
    let session = meet(&args.side)?;
    let message = session.agent.register(session.public.name());
    let balance: stitchback::contribute::edge::Balance =
        session.client.json(session.client.post("/v1/balance", &message)?)?;
    if args.json {
        super::say(&format!("{}\n", serde_json::to_string_pretty(&balance)?))?;
        return Ok(Exit::Pass);
    }
    let mut text = format!(
        "epoch {}: {} micro-credits in the basket, {} set aside, room for {}\n",
        balance.epoch, balance.balance, balance.held, balance.cap
    );
    for (group, worth, clear) in &balance.stocks {
        let note = if *clear { "" } else { " (not yet clear of the noise: counts when more has come together)" };
        super::add(&mut text, &format!("  {group}: accrued {worth:.6}{note}\n"));
    }
    super::say(&text)?;
    Ok(Exit::Pass)
}

pub(super) fn request(args: &Request) -> anyhow::Result<Exit> {
    let session = meet(&args.side)?;
    let nonce: [u8; 16] = super::secret()?[..16].try_into().expect("16 of 32");
    let about = match &args.about {
        Some(text) => topic(&session.client, args.group.as_deref(), text)?,
        None => None,
    };
    if args.about.is_some() && about.is_none() {
        ui::note("this is about none of the group's topics: requested without one");
    }
    let message = session.agent.request(session.public.name(), session.epoch, &nonce, args.at_most, about);
    let answer: Answer = session.client.json(session.client.post("/v1/requests", &message)?)?;
    let id = answer.receipt.unwrap_or_default();
    super::say(&format!("{} micro-credits set aside: request {id}\n", args.at_most))?;
    Ok(Exit::Pass)
}
