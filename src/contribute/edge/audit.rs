//! The auditor: replays a journal with the public key alone and must get every receipt bit for bit.

use super::state::State;
use super::{CHECKPOINT, Entry};
use crate::contribute::Error;
use crate::contribute::cloud::Charter;
use crate::contribute::journal::{Journal, Storage};
use crate::contribute::log::{Checkpoint, Tree, leaf};
use crate::contribute::receipt::{EdgePublic, Kind};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

/// What a replay found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Audit {
    /// Records of the journal.
    pub records: usize,
    /// Receipts whose signature and claims were checked.
    pub receipts: usize,
    /// Contribution values computed again.
    pub values: usize,
    /// Epochs closed.
    pub epochs: u64,
    /// Leaves under the signed checkpoint.
    pub checkpoint: Option<u64>,
    /// Bytes behind the last whole record.
    pub torn_bytes: u64,
    /// Whether every credit is accounted for.
    pub conserved: bool,
    /// SHA-256 of the state that the journal leads to.
    pub state: String,
    /// What does not hold, in order; empty for an honest edge.
    pub faults: Vec<String>,
}

/// Replays a journal. A fault does not stop it: what follows is still checked, against the state that is right.
///
/// # Errors
/// When the storage cannot be read or is not a journal.
pub fn audit(charter: &Charter, public: &EdgePublic, storage: Box<dyn Storage>) -> Result<Audit, Error> {
    let (mut journal, found) = Journal::open(storage)?;
    let mut state = State::new(charter.clone(), public.clone());
    let mut tree = Tree::default();
    let mut out = Audit { records: found.records.len(), torn_bytes: found.torn, ..Audit::default() };
    for (number, (_, bytes)) in found.records.iter().enumerate() {
        let Ok(entry) = serde_json::from_slice::<Entry>(bytes) else {
            out.faults.push(format!("record {number} is no entry"));
            continue;
        };
        let step = match state.step(&entry.event) {
            Ok(step) => step,
            Err(e) => {
                out.faults.push(format!("record {number} should have been refused: {e}"));
                continue;
            }
        };
        if step.drafts.len() != entry.tokens.len() {
            let (want, have) = (step.drafts.len(), entry.tokens.len());
            out.faults.push(format!("record {number} leads to {want} receipts, {have} were issued"));
        }
        for (draft, token) in step.drafts.iter().zip(&entry.tokens) {
            let token = STANDARD.decode(token).unwrap_or_default();
            tree.push(&leaf(&draft.salt, &token));
            out.receipts += 1;
            out.values += usize::from(draft.receipt.kind == Kind::Issue);
            match public.open(&token) {
                Err(e) => out.faults.push(format!("a receipt of record {number} is refused: {e}")),
                Ok(issued) if issued != draft.receipt => out.faults.push(format!(
                    "a receipt of record {number} ({:?} of epoch {}) says {} where the journal leads to {}",
                    issued.kind, issued.epoch, issued.value, draft.receipt.value
                )),
                Ok(_) => {}
            }
        }
    }
    if let Some(note) = journal.kept(CHECKPOINT)? {
        match Checkpoint::open(&String::from_utf8_lossy(&note), public) {
            Err(e) => out.faults.push(e),
            Ok(signed) => {
                out.checkpoint = Some(signed.size);
                if signed.size > tree.len() || tree.root(signed.size) != signed.root {
                    let (size, have) = (signed.size, tree.len());
                    out.faults
                        .push(format!("the signed checkpoint over {size} receipts is not of this journal ({have})"));
                }
            }
        }
    }
    out.epochs = state.ledger.epoch;
    out.conserved = state.ledger.is_sound();
    out.state = crate::contribute::catalogue::hex(&state.hash());
    Ok(out)
}
