//! Checks that need nobody's word: a receipt with its proof, an edge's whole journal.

use super::fault;
use std::path::PathBuf;
use stitchback::Exit;
use stitchback::contribute::cloud::Charter;
use stitchback::contribute::edge;
use stitchback::contribute::journal::Folder;
use stitchback::contribute::log::Proof;
use stitchback::contribute::receipt::{EdgePublic, Kind};
use stitchback::contribute::{Error, catalogue::hex};

/// Check a receipt and its proof offline, with the edge's public key alone
#[derive(Debug, clap::Args)]
pub(super) struct Verify {
    /// The proof file
    proof: PathBuf,
    /// The edge's public key (name+keyid+base64), or a file that holds it
    #[arg(long)]
    key: String,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// Replay an edge's journal: every value, receipt and balance must come out the same
#[derive(Debug, clap::Args)]
pub(super) struct Audit {
    /// The edge's folder, or a copy of it; the edge must not be running on it
    folder: PathBuf,
    /// The edge's public key (name+keyid+base64), or a file that holds it
    #[arg(long)]
    key: String,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

fn key(text: &str) -> Result<EdgePublic, stitchback::Error> {
    let path = std::path::Path::new(text);
    let text = if path.is_file() { super::read(path)? } else { text.to_owned() };
    text.parse().map_err(fault)
}

pub(super) fn verify(args: &Verify) -> anyhow::Result<Exit> {
    let public = key(&args.key)?;
    let text = super::read(&args.proof)?;
    let wrong = |why: String| fault(Error::Malformed { path: args.proof.display().to_string(), why });
    let proof = Proof::parse(&text).map_err(wrong)?;
    let (receipt, checkpoint) = proof.verify(&public).map_err(wrong)?;
    if args.json {
        let value = serde_json::json!({
            "issuer": receipt.issuer, "subject": receipt.subject, "kind": receipt.kind, "group": receipt.group,
            "epoch": receipt.epoch, "value": receipt.value, "parts": receipt.parts, "id": hex(&receipt.id),
            "catalogue": hex(&receipt.catalogue), "policy": hex(&receipt.policy),
            "commitment": hex(&receipt.commitment), "budget_milli": receipt.budget_milli,
            "leaf": proof.index, "log_size": checkpoint.size, "log_root": hex(&checkpoint.root),
        });
        super::say(&format!("{value:#}\n"))?;
        return Ok(Exit::Pass);
    }
    let mut text = format!(
        "genuine: receipt {} of {} ({:?}, group {}, epoch {}), leaf {} of {} in its log\n",
        hex(&receipt.id),
        receipt.issuer,
        receipt.kind,
        receipt.group,
        receipt.epoch,
        proof.index,
        checkpoint.size
    );
    if receipt.kind == Kind::Issue {
        super::add(&mut text, &format!("{}\n", receipt.worth().sentence()));
    }
    super::say(&text)?;
    Ok(Exit::Pass)
}

pub(super) fn audit(args: &Audit) -> anyhow::Result<Exit> {
    let public = key(&args.key)?;
    let path = args.folder.join("charter.json");
    let charter = Charter::from_json(&path.display().to_string(), &super::read(&path)?).map_err(fault)?;
    let storage = Folder::open(&args.folder).map_err(fault)?;
    let audit = edge::audit(&charter, &public, Box::new(storage)).map_err(fault)?;
    if args.json {
        super::say(&format!("{}\n", serde_json::to_string_pretty(&audit)?))?;
    } else {
        let mut text = format!(
            "{} records, {} receipts, {} values computed again over {} epochs; credits {}; state {}\n",
            audit.records,
            audit.receipts,
            audit.values,
            audit.epochs,
            if audit.conserved { "all accounted for" } else { "DO NOT ADD UP" },
            &audit.state[..16]
        );
        for fault in &audit.faults {
            super::add(&mut text, &format!("fault: {fault}\n"));
        }
        super::say(&text)?;
    }
    if audit.faults.is_empty() && audit.conserved {
        return Ok(Exit::Pass);
    }
    let why = format!("{} faults found: this edge did not do what its rules say", audit.faults.len());
    Err(fault(Error::Malformed { path: args.folder.display().to_string(), why }).into())
}
