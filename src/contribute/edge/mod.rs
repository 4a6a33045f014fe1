//! The edge: takes signed messages, journals them, values contributions, signs receipts, proves what it did.
//!
//! ```text
//! message ─► state.step ─► seal receipts ─► append journal, sync ─► leaves ─► answer
//! ```
//!
//! Everything an edge knows is rebuilt from its journal. An auditor does the same with the public key alone, and must get
//! every receipt bit for bit.

mod audit;
mod demand;
pub mod server;
mod state;
mod status;

pub use audit::{Audit, audit};
pub use state::EpochRecord;

use super::Error;
use super::catalogue::hex;
use super::cloud::Charter;
use super::journal::{Folder, Journal, Place, Storage};
use super::log::{Checkpoint, Proof, Tree, leaf};
use super::message::{Envelope, unhex};
use super::quota;
use super::receipt::{EdgeKey, EdgePublic, Hash, Receipt};
use super::value::TICKS;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rand::Rng;
use serde::{Deserialize, Serialize};
use state::{Event, Input, State};
use std::collections::{HashMap, VecDeque};
use std::path::Path;

/// Epoch records that are kept to be shown.
const SHOWN_EPOCHS: usize = 32;
/// The last signed checkpoint, beside the journal.
const CHECKPOINT: &str = "checkpoint";

/// Why a message is refused; nothing has changed then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Refused {
    /// An HTTP status: 400 malformed, 402 too few credits, 403 not by the edge, 404 unknown, 409 at the wrong time, 422 against a
    /// rule.
    pub status: u16,
    /// In words. Never repeats what was sent.
    pub why: String,
}

impl Refused {
    fn new(status: u16, why: &str) -> Self {
        Self { status, why: why.to_owned() }
    }

    fn form(why: &str) -> Self {
        Self::new(400, why)
    }

    fn unknown(why: &str) -> Self {
        Self::new(404, why)
    }

    fn conflict(why: &str) -> Self {
        Self::new(409, why)
    }

    fn rule(why: &str) -> Self {
        Self::new(422, why)
    }

    fn ledger(refusal: quota::Refusal) -> Self {
        let status = match refusal {
            quota::Refusal::Insufficient { .. } => 402,
            quota::Refusal::Unknown | quota::Refusal::NoHold => 404,
            _ => 409,
        };
        Self::new(status, &refusal.to_string())
    }
}

/// One journal record: an event and the receipts that it led to.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    event: Event,
    /// Sealed receipts in base64.
    tokens: Vec<String>,
}

/// Where a receipt lies: its base64 in the journal, its leaf.
#[derive(Debug, Clone, Copy)]
struct Filed {
    token: Place,
    leaf: u64,
    salt: [u8; 16],
}

/// What a message is answered with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The receipt's id, where there is one: 32 hexadecimal digits.
    pub receipt: Option<String>,
    /// The sealed receipt in base64.
    pub token: Option<String>,
    /// True when the same message had been answered before.
    pub repeated: bool,
}

/// What an account sees of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Balance {
    /// The current epoch.
    pub epoch: u64,
    /// Micro-credits to spend.
    pub balance: u64,
    /// Micro-credits under requests.
    pub held: u64,
    /// The most that the basket takes.
    pub cap: u64,
    /// Accrued value by group, and whether it stands clear of the noise.
    pub stocks: Vec<(String, f64, bool)>,
}

/// A running edge.
#[derive(Debug)]
pub struct Edge {
    key: EdgeKey,
    state: State,
    journal: Journal,
    tree: Tree,
    filed: HashMap<[u8; 16], Filed>,
    epochs: VecDeque<EpochRecord>,
    began_s: Option<u64>,
    /// Size of the last checkpoint that was signed and kept.
    signed: u64,
}

impl Edge {
    /// Opens the edge in a folder: its charter and its journal, replayed.
    ///
    /// # Errors
    /// When the folder is in use, the charter is missing, or the journal does not lead to what was signed.
    pub fn open(root: &Path, key: EdgeKey) -> Result<Self, Error> {
        let path = root.join("charter.json");
        let text =
            std::fs::read_to_string(&path).map_err(|source| Error::Io { path: path.display().to_string(), source })?;
        let charter = Charter::from_json(&path.display().to_string(), &text)?;
        Self::with(charter, key, Box::new(Folder::open(root)?))
    }

    /// Opens the edge over any storage.
    ///
    /// # Errors
    /// When the storage fails, or the journal does not lead to what was signed.
    pub fn with(charter: Charter, key: EdgeKey, storage: Box<dyn Storage>) -> Result<Self, Error> {
        let (journal, found) = Journal::open(storage)?;
        let mut edge = Self {
            state: State::new(charter, key.public()),
            key,
            journal,
            tree: Tree::default(),
            filed: HashMap::new(),
            epochs: VecDeque::new(),
            began_s: None,
            signed: 0,
        };
        for (number, (place, bytes)) in found.records.iter().enumerate() {
            let wrong =
                |why: &str| Error::Malformed { path: "journal".to_owned(), why: format!("record {number} {why}") };
            let entry: Entry = serde_json::from_slice(bytes).map_err(|_| wrong("is no entry"))?;
            let step = edge.state.step(&entry.event).map_err(|e| wrong(&format!("is refused: {e}")))?;
            let tokens: Vec<Vec<u8>> = step.drafts.iter().map(|d| edge.key.seal(&d.receipt)).collect();
            if tokens.iter().map(|t| STANDARD.encode(t)).ne(entry.tokens.iter().cloned()) {
                return Err(wrong("holds other receipts than it leads to; run `value audit` on the folder"));
            }
            if edge.began_s.is_none() || entry.event.input == Input::Close {
                edge.began_s = Some(entry.event.time_s);
            }
            edge.file(*place, bytes, &step, &tokens);
        }
        edge.check_signed(found.torn)?;
        edge.journal.cut()?;
        Ok(edge)
    }

    /// The journal must reach at least as far as the last checkpoint, and to the same root.
    fn check_signed(&mut self, torn: u64) -> Result<(), Error> {
        let Some(note) = self.journal.kept(CHECKPOINT)? else { return Ok(()) };
        let wrong = |why: String| Error::Malformed { path: "journal".to_owned(), why };
        let note = String::from_utf8(note).map_err(|_| wrong("the kept checkpoint is no text".to_owned()))?;
        let signed = Checkpoint::open(&note, &self.key.public()).map_err(wrong)?;
        if signed.size > self.tree.len() || self.tree.root(signed.size) != signed.root {
            return Err(wrong(format!(
                "a checkpoint over {} receipts was signed, but the journal leads to {} ({torn} bytes cannot be read); \
                 bring back the whole journal",
                signed.size,
                self.tree.len()
            )));
        }
        self.signed = signed.size;
        Ok(())
    }

    fn file(&mut self, record: Place, bytes: &[u8], step: &state::Step, tokens: &[Vec<u8>]) {
        // Quotes inside of texts are escaped, so that this is the list itself; each token stands in quotes before a comma.
        const LIST: &[u8] = b"\"tokens\":[";
        let list = bytes.windows(LIST.len()).rposition(|w| w == LIST).expect("every entry has its list");
        let mut at = list + LIST.len() + 1;
        for (draft, token) in step.drafts.iter().zip(tokens) {
            let len = token.len().div_ceil(3) * 4;
            let leaf = self.tree.push(&leaf(&draft.salt, token));
            let filed = Filed { token: record.part(at, len), leaf, salt: draft.salt };
            self.filed.insert(draft.receipt.id, filed);
            at += len + 3;
        }
        if let Some(record) = &step.closed {
            self.epochs.push_back(record.clone());
            if self.epochs.len() > SHOWN_EPOCHS {
                self.epochs.pop_front();
            }
        }
    }

    /// Takes a batch of messages: one sync for all of them, an answer for each.
    ///
    /// # Errors
    /// When the journal fails; nothing was answered then, and the edge must be opened again.
    pub fn submit(
        &mut self,
        batch: Vec<Envelope>,
        time_s: u64,
        rng: &mut dyn Rng,
    ) -> Result<Vec<Result<Answer, Refused>>, Error> {
        let (mut records, mut steps, mut answers) = (Vec::new(), Vec::new(), Vec::with_capacity(batch.len()));
        for envelope in batch {
            let event = Event { time_s, seed: draw(rng), input: Input::Message(envelope) };
            answers.push(self.state.step(&event).map(|step| {
                let tokens: Vec<Vec<u8>> = step.drafts.iter().map(|d| self.key.seal(&d.receipt)).collect();
                let answer = Answer {
                    receipt: step.drafts.first().map(|d| d.receipt.id).or(step.again).map(|id| hex(&id)),
                    token: tokens.first().map(|t| STANDARD.encode(t)),
                    repeated: step.again.is_some(),
                };
                if step.again.is_none() && !step.idle {
                    records.push(record(&event, &tokens));
                    steps.push((step, tokens));
                }
                answer
            }));
        }
        self.commit(&records, &steps)?;
        if !records.is_empty() {
            self.began_s.get_or_insert(time_s);
        }
        for answer in answers.iter_mut().flatten().filter(|a| a.repeated) {
            let id = answer.receipt.as_deref().and_then(unhex);
            answer.token = id.map(|id| self.token(&id)).transpose()?.flatten().map(|t| STANDARD.encode(t));
        }
        Ok(answers)
    }

    /// Ends the epoch: values, receipts, credits, a checkpoint.
    ///
    /// # Errors
    /// When the journal fails; the edge must be opened again then.
    pub fn close(&mut self, time_s: u64, rng: &mut dyn Rng) -> Result<EpochRecord, Error> {
        let event = Event { time_s, seed: draw(rng), input: Input::Close };
        let step = self.state.step(&event).expect("an epoch can always be closed");
        let tokens: Vec<Vec<u8>> = step.drafts.iter().map(|d| self.key.seal(&d.receipt)).collect();
        self.commit(&[record(&event, &tokens)], &[(step, tokens)])?;
        self.began_s = Some(time_s);
        self.checkpoint()?;
        Ok(self.epochs.back().expect("one was just closed").clone())
    }

    /// Ends the epoch at the word of the edge's own key: an outer error is one of [`Edge::close`], an inner one a refusal.
    ///
    /// # Errors
    /// Those of [`Edge::close`].
    pub fn close_for(
        &mut self,
        account: &[u8; 32],
        name: &str,
        epoch: u64,
        time_s: u64,
        rng: &mut dyn Rng,
    ) -> Result<Result<EpochRecord, Refused>, Error> {
        match self.state.may_close(account, name, epoch) {
            Ok(()) => self.close(time_s, rng).map(Ok),
            Err(refused) => Ok(Err(refused)),
        }
    }

    fn commit(&mut self, records: &[Vec<u8>], steps: &[(state::Step, Vec<Vec<u8>>)]) -> Result<(), Error> {
        if records.is_empty() {
            return Ok(());
        }
        let places = self.journal.append(records)?;
        for ((place, bytes), (step, tokens)) in places.into_iter().zip(records).zip(steps) {
            self.file(place, bytes, step, tokens);
        }
        Ok(())
    }

    /// A signed checkpoint over all receipts; kept before it is given out.
    ///
    /// # Errors
    /// When it cannot be kept.
    pub fn checkpoint(&mut self) -> Result<String, Error> {
        let size = self.tree.len();
        let note = Checkpoint { origin: self.key.name().to_owned(), size, root: self.tree.root(size) }.sign(&self.key);
        if size > self.signed || size == 0 {
            self.journal.keep(CHECKPOINT, note.as_bytes())?;
            self.signed = size;
        }
        Ok(note)
    }

    /// A receipt's sealed bytes; `None` without such a receipt.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn token(&mut self, id: &[u8; 16]) -> Result<Option<Vec<u8>>, Error> {
        let Some(filed) = self.filed.get(id).copied() else { return Ok(None) };
        let why = "a filed receipt cannot be read".to_owned();
        let broken = |_| Error::Malformed { path: "journal".to_owned(), why };
        STANDARD.decode(self.journal.read(filed.token)?).map(Some).map_err(broken)
    }

    /// The offline proof file of a receipt; `None` without such a receipt.
    ///
    /// # Errors
    /// When the journal cannot be read, or the checkpoint cannot be kept.
    pub fn proof(&mut self, id: &[u8; 16]) -> Result<Option<Proof>, Error> {
        let Some(token) = self.token(id)? else { return Ok(None) };
        let filed = self.filed[id];
        let checkpoint = self.checkpoint()?;
        let path = self.tree.inclusion(filed.leaf, self.tree.len()).expect("a filed leaf is in the tree");
        Ok(Some(Proof { token, salt: filed.salt, index: filed.leaf, path, checkpoint }))
    }

    /// The issue receipt that followed a contribution receipt, once its epoch is closed.
    pub fn issued(&self, contribution: &[u8; 16]) -> Option<[u8; 16]> {
        self.state.issued.get(contribution).copied()
    }

    /// Hashes that prove that the log of `old` receipts is a prefix of the log of `new`.
    pub fn consistency(&self, old: u64, new: u64) -> Option<Vec<Hash>> {
        self.tree.consistency(old, new)
    }

    /// The tree behind the checkpoints.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// What an account has.
    pub fn balance(&self, account: &[u8; 32]) -> Option<Balance> {
        let number = self.state.account(account)?;
        let basket = self.state.ledger.basket(number)?;
        let stocks = self.state.groups.iter().zip(&self.state.charter.groups);
        let own = stocks.filter_map(|(g, c)| {
            let stock = g.stocks.get(&number)?;
            Some((c.group.clone(), stock.ticks as f64 / TICKS, stock.entitlement(3) > 0))
        });
        Some(Balance {
            epoch: self.epoch(),
            balance: basket.balance,
            held: basket.held,
            cap: basket.cap,
            stocks: own.collect(),
        })
    }

    /// The current epoch.
    pub fn epoch(&self) -> u64 {
        self.state.ledger.epoch
    }

    /// When the current epoch began, in seconds since 1970: at the last close, else with the first message.
    pub fn began_s(&self) -> Option<u64> {
        self.began_s
    }

    /// The last epochs that were closed, oldest first.
    pub fn epochs(&self) -> impl DoubleEndedIterator<Item = &EpochRecord> {
        self.epochs.iter()
    }

    /// The public key.
    pub fn public(&self) -> EdgePublic {
        self.key.public()
    }

    /// The charter as JSON, with the catalogues of the current epoch.
    pub fn charter(&self) -> String {
        self.state.charter.to_json()
    }

    /// SHA-256 of all that decides what happens next.
    pub fn state_hash(&self) -> Hash {
        self.state.hash()
    }

    /// Whether every credit ever emitted is accounted for, counted again.
    pub fn is_sound(&self) -> bool {
        self.state.ledger.is_sound()
    }
}

fn draw(rng: &mut dyn Rng) -> String {
    let mut seed = [0; 32];
    rng.fill_bytes(&mut seed);
    hex(&seed)
}

fn record(event: &Event, tokens: &[Vec<u8>]) -> Vec<u8> {
    let entry = Entry { event: event.clone(), tokens: tokens.iter().map(|t| STANDARD.encode(t)).collect() };
    serde_json::to_vec(&entry).expect("numbers and text")
}

/// Opens a sealed receipt that came in base64.
///
/// # Errors
/// In words, when it is not a receipt of this edge.
pub fn open_token(public: &EdgePublic, token: &str) -> Result<Receipt, Error> {
    let bytes = STANDARD.decode(token).map_err(|_| Error::Input("the receipt is not base64".to_owned()))?;
    public.open(&bytes).map_err(|e| Error::Input(format!("the receipt is refused: {e}")))
}

#[cfg(test)]
mod tests;
