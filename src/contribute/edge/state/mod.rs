//! What an edge knows, and how each message changes it: a pure function of messages, times and seeds, so that a journal of
//! those gives the same values, receipts and balances anywhere.

mod closing;

use super::Refused;
use super::demand::Demand;
use crate::contribute::catalogue::{Catalogue, hex};
use crate::contribute::channel::{Budget, UNITS};
use crate::contribute::cloud::{Charter, Prices};
use crate::contribute::message::{About, Body, Contribution, Envelope, Mechanism, unhex};
use crate::contribute::quota::ledger::Key;
use crate::contribute::quota::{Ledger, Operation};
use crate::contribute::receipt::{EdgePublic, Hash, Kind, Receipt, nullifier, pseudonym};
use crate::contribute::value::{Protected, Stock};
use crate::protect::Pipeline;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Standard deviations that the sum of a histogram may be away from the declared number of items.
const SUM_LIMIT: f64 = 6.0;
/// Bytes of a declared pipeline: reading one takes time.
const PIPELINE: usize = 1000;

/// Something that happens to an edge; all that the journal needs to make it happen again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Input {
    /// A signed message.
    Message(Envelope),
    /// The end of the epoch.
    Close,
}

/// When it happened, and the randomness that was drawn for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Event {
    pub(crate) time_s: u64,
    /// 64 hexadecimal digits: salts, names and tie-breaks come from it.
    pub(crate) seed: String,
    pub(crate) input: Input,
}

/// A receipt to be sealed, with the salt of its leaf and the account that may fetch it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Draft {
    pub(crate) receipt: Receipt,
    pub(crate) salt: [u8; 16],
}

/// What an event did.
#[derive(Debug, Default)]
pub(crate) struct Step {
    pub(crate) drafts: Vec<Draft>,
    /// A repeated message: the receipt that the first one got.
    pub(crate) again: Option<[u8; 16]>,
    /// Set by the end of an epoch.
    pub(crate) closed: Option<EpochRecord>,
    /// Nothing has changed, and nothing needs to be remembered.
    pub(crate) idle: bool,
}

/// What is published of an epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// Its number.
    pub epoch: u64,
    /// Prices of each group, with the sums they were made from.
    pub groups: Vec<Prices>,
    /// Contributions valued.
    pub contributions: usize,
    /// Baseline of each active account, in micro-credits.
    pub baseline: u64,
    /// Accounts with a bonus.
    pub rewarded: usize,
    /// Micro-credits that overflowed to other baskets.
    pub spilled: u64,
    /// Micro-credits that went to the reserve.
    pub saved: u64,
    /// Micro-credits that were burned.
    pub burned: u64,
}

/// A contribution that waits for the end of its epoch.
#[derive(Debug, Clone)]
struct Pending {
    /// Its contribution receipt.
    id: [u8; 16],
    account: u32,
    items: u32,
    budget: Budget,
    cells: Vec<i64>,
    release: Vec<Protected>,
    mechanism: Hash,
    commitment: Hash,
    nonce: [u8; 16],
}

/// What an account gave to a group in this epoch.
#[derive(Debug, Clone, Copy, Default)]
struct Given {
    items: u32,
    /// Units in priced cells: all but "other".
    mass: i128,
    /// Variance of the noise under that mass.
    variance: u128,
}

impl Given {
    /// With one contribution more.
    fn and(self, c: &Contribution) -> Self {
        let priced = &c.cells[..c.cells.len().saturating_sub(1)];
        let noise = Budget { epsilon_milli: c.mechanism.epsilon_milli }.variance_units();
        Self {
            items: self.items.saturating_add(c.items),
            mass: self.mass + priced.iter().map(|&n| i128::from(n)).sum::<i128>(),
            variance: self.variance.saturating_add(noise.saturating_mul(priced.len() as u128)),
        }
    }

    /// Whether items and noise explain the mass. A tiny epsilon would explain any: there the noise itself is too large.
    fn check(&self, items_cap: u32) -> Result<(), Refused> {
        let noise = SUM_LIMIT * (self.variance as f64).sqrt();
        let units = |items: u32| f64::from(items) * UNITS as f64;
        if noise > units(items_cap) {
            return Err(Refused::rule(&format!(
                "the noise of this account's contributions in this epoch is larger than {items_cap} items; use a larger \
                 epsilon or fewer contributions"
            )));
        }
        if self.mass as f64 > units(self.items) + noise || (self.mass as f64) < -noise {
            return Err(Refused::rule(
                "`cells` of this account hold more in this epoch than its `items` and their noise explain, or less",
            ));
        }
        Ok(())
    }
}

/// An issued value that waits to be redeemed.
#[derive(Debug, Clone, Copy)]
struct Due {
    account: u32,
    group: usize,
    epoch: u64,
    expires_s: u64,
    stock: Stock,
}

/// A cell that a request names: its group, the catalogue, the cell.
type Topic = (usize, Hash, usize);

/// Credits set aside for a request.
#[derive(Debug, Clone, Copy)]
struct Hold {
    key: Key,
    about: Option<Topic>,
}

#[derive(Debug, Default)]
pub(super) struct GroupState {
    pub(super) cells: Vec<i64>,
    demand: Demand,
    kept: Vec<Protected>,
    pending: Vec<Pending>,
    /// By account.
    given: BTreeMap<u32, Given>,
    pub(super) stocks: BTreeMap<u32, Stock>,
    spent_milli: BTreeMap<u32, u64>,
    previous: BTreeMap<u32, Hash>,
    hash: Hash,
    /// Holds from the next epoch on.
    next: Option<Catalogue>,
    /// Accounts that ever gave to it.
    pub(super) members: usize,
    /// Contributions ever valued.
    pub(super) contributions: u64,
    /// Sum of their values in ticks.
    pub(super) paid: i64,
}

impl GroupState {
    /// Hands all that decides what happens next to a hasher.
    fn feed(&self, hasher: &mut Sha256) {
        feed(hasher, self.cells.iter().map(|n| n.to_be_bytes()));
        self.demand.feed(hasher);
        feed(hasher, self.kept.iter().map(row));
        hasher.update((self.pending.len() as u64).to_be_bytes());
        for p in &self.pending {
            hasher.update(p.id);
            hasher.update(
                [p.account.to_be_bytes(), p.items.to_be_bytes(), p.budget.epsilon_milli.to_be_bytes()].concat(),
            );
            hasher.update([p.mechanism, p.commitment].concat());
            hasher.update(p.nonce);
            feed(hasher, p.cells.iter().map(|n| n.to_be_bytes()));
            feed(hasher, p.release.iter().map(row));
        }
        let given = |(account, g): (&u32, &Given)| {
            let items = [account.to_be_bytes(), g.items.to_be_bytes()].concat();
            [&items[..], &g.mass.to_be_bytes(), &g.variance.to_be_bytes()].concat()
        };
        feed(hasher, self.given.iter().map(given));
        feed(hasher, self.stocks.iter().map(|(account, s)| [&account.to_be_bytes()[..], &bytes_of(s)].concat()));
        let spent = |(account, n): (&u32, &u64)| [&account.to_be_bytes()[..], &n.to_be_bytes()].concat();
        feed(hasher, self.spent_milli.iter().map(spent));
        feed(hasher, self.previous.iter().map(|(account, hash)| [&account.to_be_bytes()[..], hash].concat()));
        hasher.update(self.hash);
        feed(hasher, self.next.iter().map(Catalogue::hash));
    }
}

/// Hands a list to a hasher: its length, then its items in order.
fn feed<T: AsRef<[u8]>>(hasher: &mut Sha256, items: impl ExactSizeIterator<Item = T>) {
    hasher.update((items.len() as u64).to_be_bytes());
    items.for_each(|item| hasher.update(item));
}

fn bytes_of(stock: &Stock) -> Vec<u8> {
    [&stock.ticks.to_be_bytes()[..], &stock.variance.to_be_bytes()].concat()
}

fn row(row: &Protected) -> Vec<u8> {
    let steps = row.steps().iter().flat_map(|v| v.to_be_bytes());
    row.sigma_ppm.to_be_bytes().into_iter().chain(steps).collect()
}

/// Epoch, account, and the number that the account chose.
type Nonce = (u64, u32, [u8; 16]);

/// Everything an edge remembers.
#[derive(Debug)]
pub(crate) struct State {
    pub(super) charter: Charter,
    public: EdgePublic,
    policy: Hash,
    accounts: HashMap<[u8; 32], u32>,
    /// The key of each account, by number.
    keys: Vec<[u8; 32]>,
    pub(super) ledger: Ledger,
    pub(super) groups: Vec<GroupState>,
    /// Nonces of the current and the previous epoch: the message's digest and the receipt that it got.
    used: BTreeMap<Nonce, (Hash, [u8; 16])>,
    /// Protected contents that were given: the receipt of each.
    contents: BTreeMap<Hash, [u8; 16]>,
    dues: BTreeMap<[u8; 16], Due>,
    redeemed: BTreeSet<Hash>,
    holds: BTreeMap<[u8; 16], Hold>,
    /// From contribution receipts to the issue receipts that followed.
    pub(super) issued: HashMap<[u8; 16], [u8; 16]>,
}

impl State {
    pub(crate) fn new(charter: Charter, public: EdgePublic) -> Self {
        let groups = charter
            .groups
            .iter()
            .map(|catalogue| GroupState {
                cells: vec![0; catalogue.cells()],
                demand: Demand::new(catalogue.cells()),
                hash: catalogue.hash(),
                ..GroupState::default()
            })
            .collect();
        Self {
            policy: charter.policy_hash(),
            ledger: Ledger::with_reserve(charter.policy.reserve_cap),
            charter,
            public,
            accounts: HashMap::new(),
            keys: Vec::new(),
            groups,
            used: BTreeMap::new(),
            contents: BTreeMap::new(),
            dues: BTreeMap::new(),
            redeemed: BTreeSet::new(),
            holds: BTreeMap::new(),
            issued: HashMap::new(),
        }
    }

    pub(super) fn account(&self, key: &[u8; 32]) -> Option<u32> {
        self.accounts.get(key).copied()
    }

    pub(super) fn accounts(&self) -> usize {
        self.accounts.len()
    }

    pub(super) fn waiting(&self) -> usize {
        self.groups.iter().map(|g| g.pending.len()).sum()
    }

    /// SHA-256 of all that decides what happens next.
    pub(crate) fn hash(&self) -> Hash {
        let mut hasher = Sha256::new();
        hasher.update(self.ledger.hash());
        feed(&mut hasher, self.keys.iter());
        let used = |((epoch, account, nonce), (digest, id)): (&Nonce, &(Hash, [u8; 16]))| {
            [&epoch.to_be_bytes()[..], &account.to_be_bytes(), nonce, digest, id].concat()
        };
        feed(&mut hasher, self.used.iter().map(used));
        feed(&mut hasher, self.contents.iter().map(|(content, id)| [&content[..], id].concat()));
        feed(&mut hasher, self.redeemed.iter());
        for group in &self.groups {
            group.feed(&mut hasher);
        }
        let due = |(id, due): (&[u8; 16], &Due)| {
            let (account, group, stock) =
                (due.account.to_be_bytes(), (due.group as u64).to_be_bytes(), bytes_of(&due.stock));
            [&id[..], &account, &group, &due.epoch.to_be_bytes(), &due.expires_s.to_be_bytes(), &stock].concat()
        };
        feed(&mut hasher, self.dues.iter().map(due));
        let hold = |(id, hold): (&[u8; 16], &Hold)| {
            let mut out = [&id[..], &hold.key.epoch.to_be_bytes(), &hold.key.id.to_be_bytes()].concat();
            if let Some((group, catalogue, cell)) = &hold.about {
                out.extend([&(*group as u64).to_be_bytes()[..], catalogue, &(*cell as u64).to_be_bytes()].concat());
            }
            out
        };
        feed(&mut hasher, self.holds.iter().map(hold));
        hasher.finalize().into()
    }

    /// Lets an event happen. A refused one changes nothing.
    pub(crate) fn step(&mut self, event: &Event) -> Result<Step, Refused> {
        let seed: [u8; 32] = unhex(&event.seed).ok_or_else(|| Refused::form("the seed is not 32 bytes"))?;
        let mut issuer =
            Issuer { seed, issued: 0, time_s: event.time_s, expires_s: event.time_s + self.charter.policy.redeem_s };
        match &event.input {
            Input::Close => Ok(self.close(&mut issuer)),
            Input::Message(envelope) => {
                let (account, body) = envelope.open().map_err(|e| Refused::form(&e.to_string()))?;
                let digest = Sha256::digest(envelope.body.as_bytes()).into();
                self.message(account, digest, body, &mut issuer)
            }
        }
    }

    fn message(&mut self, key: [u8; 32], digest: Hash, body: Body, issuer: &mut Issuer) -> Result<Step, Refused> {
        let (Body::Register { edge }
        | Body::Contribute(Contribution { edge, .. })
        | Body::Redeem { edge, .. }
        | Body::Request { edge, .. }
        | Body::Catalogue { edge, .. }
        | Body::Settle { edge, .. }
        | Body::Close { edge, .. }) = &body;
        self.is_ours(edge)?;
        if let Body::Register { .. } = body {
            let idle = self.accounts.contains_key(&key);
            if !idle {
                self.accounts.insert(key, self.ledger.open(0));
                self.keys.push(key);
            }
            return Ok(Step { idle, ..Step::default() });
        }
        if let Body::Close { .. } = body {
            return Err(Refused::rule("an epoch is ended at /v1/epoch/close"));
        }
        if let Body::Settle { epoch, nonce, request, cost, .. } = &body {
            return self.settle(key, *epoch, nonce, request, *cost, issuer);
        }
        if let Body::Catalogue { epoch, next, .. } = body {
            return self.announce(key, epoch, &next, issuer);
        }
        let account = self.account(&key).ok_or_else(|| Refused::unknown("this account is not registered"))?;
        match body {
            Body::Contribute(contribution) => self.contribute(account, &key, digest, contribution, issuer),
            Body::Redeem { receipt, .. } => self.redeem(account, &key, &receipt, issuer),
            Body::Request { epoch, nonce, at_most, about, .. } => {
                self.request(account, &key, digest, epoch, &nonce, at_most, about.as_ref(), issuer)
            }
            Body::Register { .. } | Body::Settle { .. } | Body::Catalogue { .. } | Body::Close { .. } => {
                unreachable!("handled above")
            }
        }
    }

    fn is_ours(&self, edge: &str) -> Result<(), Refused> {
        let name = self.public.name();
        if edge == name {
            return Ok(());
        }
        Err(Refused::rule(&format!("this is edge `{name}`; the message is for another one")))
    }

    /// Whether a message of kind `close` ends the current epoch: one that was signed for an earlier epoch ends none.
    pub(super) fn may_close(&self, key: &[u8; 32], edge: &str, epoch: u64) -> Result<(), Refused> {
        if key != self.public.bytes() {
            return Err(Refused::new(403, "only the edge's own key can end an epoch"));
        }
        self.is_ours(edge)?;
        self.now(epoch)
    }

    fn nonce(text: &str) -> Result<[u8; 16], Refused> {
        unhex(text).ok_or_else(|| Refused::form("`nonce` is not 32 hexadecimal digits"))
    }

    /// A message that came before gets the receipt that it got then.
    fn repeated(&self, epoch: u64, account: u32, nonce: [u8; 16], digest: &Hash) -> Result<Option<Step>, Refused> {
        match self.used.get(&(epoch, account, nonce)) {
            None => Ok(None),
            Some((before, id)) if before == digest => Ok(Some(Step { again: Some(*id), ..Step::default() })),
            Some(_) => Err(Refused::conflict("this nonce was used for another message")),
        }
    }

    fn now(&self, epoch: u64) -> Result<(), Refused> {
        if epoch == self.ledger.epoch {
            return Ok(());
        }
        Err(Refused::conflict(&format!(
            "the epoch is {}, the message is for {epoch}; sign it again",
            self.ledger.epoch
        )))
    }

    fn contribute(
        &mut self,
        account: u32,
        key: &[u8; 32],
        digest: Hash,
        c: Contribution,
        issuer: &mut Issuer,
    ) -> Result<Step, Refused> {
        let nonce = Self::nonce(&c.nonce)?;
        if let Some(step) = self.repeated(c.epoch, account, nonce, &digest)? {
            return Ok(step);
        }
        self.now(c.epoch)?;
        let at = self.charter.groups.iter().position(|g| g.group == c.group);
        let at = at.ok_or_else(|| Refused::unknown("there is no such group; GET /v1/charter lists them"))?;
        let commitment: Hash =
            unhex(&c.commitment).ok_or_else(|| Refused::form("`commitment` is not 64 hexadecimal digits"))?;
        let content = Sha256::new()
            .chain_update(account.to_be_bytes())
            .chain_update(self.groups[at].hash)
            .chain_update(Sha256::digest(c.content()))
            .finalize()
            .into();
        // Before any rule: whoever lost the answer finds the receipt, even where nothing more may be given.
        if let Some(id) = self.contents.get(&content) {
            return Err(Refused::conflict(&format!(
                "the same protected content was contributed before, under receipt {}",
                hex(id)
            )));
        }
        let (release, given) = self.check(at, account, &c)?;
        let spent = self.budget(at, account, &c)?;

        // Nothing is refused from here on.
        self.ledger.touch(account);
        let mechanism = Sha256::digest(serde_json::to_vec(&c.mechanism).expect("numbers and text")).into();
        let policy = self.policy;
        let group = &mut self.groups[at];
        group.given.insert(account, given);
        group.members += usize::from(group.spent_milli.insert(account, spent).is_none());
        let draft = issuer.draft(Receipt {
            subject: pseudonym(key, &c.group),
            kind: Kind::Contribution,
            group: c.group,
            epoch: c.epoch,
            catalogue: group.hash,
            policy,
            mechanism,
            commitment,
            budget_milli: spent,
            previous: group.previous.get(&account).copied().unwrap_or_default(),
            nonce,
            ..blank(&self.public)
        });
        group.previous.insert(account, digest_of(&draft.receipt));
        group.pending.push(Pending {
            id: draft.receipt.id,
            account,
            items: c.items,
            budget: Budget { epsilon_milli: c.mechanism.epsilon_milli },
            cells: c.cells,
            release,
            mechanism,
            commitment,
            nonce,
        });
        self.contents.insert(content, draft.receipt.id);
        self.used.insert((c.epoch, account, nonce), (digest, draft.receipt.id));
        Ok(Step { drafts: vec![draft], ..Step::default() })
    }

    /// Whether a contribution is what its declaration says, as far as that can be seen; with it, what the account gave.
    fn check(&self, at: usize, account: u32, c: &Contribution) -> Result<(Vec<Protected>, Given), Refused> {
        let (catalogue, policy, group) = (&self.charter.groups[at], &self.charter.policy, &self.groups[at]);
        if c.catalogue != hex(&group.hash) {
            return Err(Refused::conflict("the cells are of another catalogue; GET /v1/charter has the current one"));
        }
        if c.cells.len() != catalogue.cells() + 1 {
            return Err(Refused::rule(&format!("`cells` must have {} entries", catalogue.cells() + 1)));
        }
        if !(10..=100_000).contains(&c.mechanism.epsilon_milli) {
            return Err(Refused::rule("`epsilon_milli` must be 10 to 100000"));
        }
        let before = group.given.get(&account).copied().unwrap_or_default();
        let left = policy.items_cap.saturating_sub(before.items);
        if c.items == 0 || c.items > left {
            return Err(Refused::rule(&format!(
                "`items` must be 1 to {left} (what is left of {} in this epoch)",
                policy.items_cap
            )));
        }
        let budget = Budget { epsilon_milli: c.mechanism.epsilon_milli };
        let sd = (budget.variance_units() as f64 * c.cells.len() as f64).sqrt();
        let sum: i128 = c.cells.iter().map(|&n| i128::from(n)).sum();
        let far = (sum - i128::from(c.items) * i128::from(UNITS)).unsigned_abs() as f64;
        let widest = (f64::from(c.items) + 40.0 * budget.scale_items()) * UNITS as f64;
        if far > SUM_LIMIT * sd || c.cells.iter().any(|n| n.unsigned_abs() as f64 > widest) {
            return Err(Refused::rule("`cells` do not sum to `items` within the declared noise"));
        }
        let given = before.and(c);
        given.check(policy.items_cap)?;
        if c.release.len() > policy.vectors_cap || c.release.len() > c.items as usize {
            return Err(Refused::rule(&format!("at most {} vectors, and no more than items", policy.vectors_cap)));
        }
        if c.release.iter().any(|row| row.len() != catalogue.dim) {
            return Err(Refused::rule(&format!("every vector must have {} coordinates", catalogue.dim)));
        }
        Ok((Self::check_release(c, catalogue.dim)?, given))
    }

    /// Whether the declared noise is that of the declared pipeline, and the vectors are no longer than it allows.
    fn check_release(c: &Contribution, dim: usize) -> Result<Vec<Protected>, Refused> {
        if c.release.is_empty() {
            return Ok(Vec::new());
        }
        let m = &c.mechanism;
        if m.pipeline.len() > PIPELINE {
            return Err(Refused::rule(&format!("`pipeline` is longer than {PIPELINE} bytes")));
        }
        // A stranger's text must not make the edge open files or start programs.
        if ["public", "process"].iter().any(|word| m.pipeline.contains(word)) {
            return Err(Refused::rule("`pipeline` names a file or a program, which only its user has"));
        }
        let pipeline = Pipeline::parse(&m.pipeline).map_err(|_| Refused::rule("`pipeline` is not a valid pipeline"))?;
        let budget = Budget { epsilon_milli: m.epsilon_milli };
        let given = Mechanism::of(budget, Some(&pipeline), dim).map_err(|e| Refused::rule(&e.to_string()))?;
        if *m != (Mechanism { pipeline: m.pipeline.clone(), ..given }) {
            return Err(Refused::rule(
                "`sigma_ppm`, `release_epsilon_milli` or `members` is not what the pipeline gives",
            ));
        }
        let rows: Vec<Protected> =
            c.release.iter().map(|row| Protected::from_steps(row.clone(), m.sigma_ppm)).collect();
        match rows.iter().position(Protected::is_too_long) {
            Some(row) => Err(Refused::rule(&format!("vector {row} is longer than the declared noise explains"))),
            None => Ok(rows),
        }
    }

    fn budget(&self, at: usize, account: u32, c: &Contribution) -> Result<u64, Refused> {
        let before = self.groups[at].spent_milli.get(&account).copied().unwrap_or(0);
        let cap = self.charter.policy.budget_cap_milli;
        let release = if c.release.is_empty() { 0 } else { c.mechanism.release_epsilon_milli };
        let spent = before.saturating_add(u64::from(c.mechanism.epsilon_milli)).saturating_add(release);
        if spent <= cap {
            return Ok(spent);
        }
        Err(Refused::rule(&format!(
            "the privacy budget of this account in this group is used up: {before} of {cap} thousandths of an epsilon are spent"
        )))
    }

    fn redeem(&mut self, account: u32, key: &[u8; 32], text: &str, issuer: &mut Issuer) -> Result<Step, Refused> {
        let token = STANDARD.decode(text).map_err(|_| Refused::form("`receipt` is not base64"))?;
        let receipt = self.public.open(&token).map_err(|e| Refused::rule(&format!("the receipt is refused: {e}")))?;
        receipt.check_time(issuer.time_s).map_err(|e| Refused::rule(&format!("the receipt is refused: {e}")))?;
        if receipt.kind != Kind::Issue || receipt.subject != pseudonym(key, &receipt.group) {
            return Err(Refused::rule("only an issue receipt of one's own can be redeemed"));
        }
        let mark = nullifier(&token);
        if self.redeemed.contains(&mark) {
            return Err(Refused::conflict("this receipt was redeemed before"));
        }
        let Some(due) = self.dues.get(&receipt.id).copied().filter(|d| d.account == account) else {
            return Err(Refused::conflict("this receipt has nothing left to redeem"));
        };

        self.redeemed.insert(mark);
        self.dues.remove(&receipt.id);
        self.ledger.touch(account);
        let leak = self.charter.policy.leak();
        let mut stock = due.stock;
        (due.epoch + 1..self.ledger.epoch).for_each(|_| stock.leak(leak));
        let group = &mut self.groups[due.group];
        let own = group.stocks.entry(account).or_default();
        own.ticks = own.ticks.saturating_add(stock.ticks);
        own.variance = own.variance.saturating_add(stock.variance);
        let draft = issuer.draft(Receipt {
            kind: Kind::Redeem,
            epoch: self.ledger.epoch,
            value: stock.ticks,
            commitment: mark,
            previous: group.previous.get(&account).copied().unwrap_or_default(),
            ..receipt
        });
        group.previous.insert(account, digest_of(&draft.receipt));
        Ok(Step { drafts: vec![draft], ..Step::default() })
    }

    /// The cell that a request says it is about.
    fn cell(&self, about: &About) -> Result<Topic, Refused> {
        let at = self.charter.groups.iter().position(|g| g.group == about.group);
        let at = at.ok_or_else(|| Refused::unknown("there is no such group; GET /v1/charter lists them"))?;
        let hash = self.groups[at].hash;
        if about.catalogue != hex(&hash) {
            return Err(Refused::conflict("the cell is of another catalogue; GET /v1/charter has the current one"));
        }
        let cells = self.charter.groups[at].cells();
        if about.cell as usize >= cells {
            return Err(Refused::rule(&format!("`cell` must be below {cells}")));
        }
        Ok((at, hash, about.cell as usize))
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one message")]
    fn request(
        &mut self,
        account: u32,
        key: &[u8; 32],
        digest: Hash,
        epoch: u64,
        nonce: &str,
        at_most: u64,
        about: Option<&About>,
        issuer: &mut Issuer,
    ) -> Result<Step, Refused> {
        let nonce = Self::nonce(nonce)?;
        if let Some(step) = self.repeated(epoch, account, nonce, &digest)? {
            return Ok(step);
        }
        self.now(epoch)?;
        let about = about.map(|about| self.cell(about)).transpose()?;
        let name = ledger_key(epoch, key, &nonce);
        let outcome = self.ledger.apply(name, Operation::Hold { account, amount: at_most }).map_err(Refused::ledger)?;
        let draft = issuer.draft(Receipt {
            subject: pseudonym(key, ""),
            kind: Kind::Hold,
            epoch,
            policy: self.policy,
            value: outcome.amount as i64,
            nonce,
            ..blank(&self.public)
        });
        self.used.insert((epoch, account, nonce), (digest, draft.receipt.id));
        self.holds.insert(draft.receipt.id, Hold { key: name, about });
        Ok(Step { drafts: vec![draft], ..Step::default() })
    }

    fn settle(
        &mut self,
        key: [u8; 32],
        epoch: u64,
        nonce: &str,
        request: &str,
        cost: u64,
        issuer: &mut Issuer,
    ) -> Result<Step, Refused> {
        if key != *self.public.bytes() {
            return Err(Refused::rule("only the edge itself says what a request did cost"));
        }
        let nonce = Self::nonce(nonce)?;
        self.now(epoch)?;
        let id: [u8; 16] = unhex(request).ok_or_else(|| Refused::form("`request` is not 32 hexadecimal digits"))?;
        let hold = *self.holds.get(&id).ok_or_else(|| Refused::unknown("there is no such request"))?;
        let operation = match cost {
            0 => Operation::Void { hold: hold.key },
            actual => Operation::Settle { hold: hold.key, actual },
        };
        self.ledger.apply(ledger_key(epoch, &key, &nonce), operation).map_err(Refused::ledger)?;
        self.holds.remove(&id);
        if let Some((group, catalogue, cell)) = hold.about.filter(|_| cost > 0) {
            // Cells of a catalogue that is no longer in force are not those of the present one.
            let group = &mut self.groups[group];
            if group.hash == catalogue {
                group.demand.count(cell, cost);
            }
        }
        let draft = issuer.draft(Receipt {
            subject: hex(&id),
            kind: if cost == 0 { Kind::Void } else { Kind::Settle },
            epoch,
            policy: self.policy,
            value: cost as i64,
            nonce,
            ..blank(&self.public)
        });
        Ok(Step { drafts: vec![draft], ..Step::default() })
    }

    /// A catalogue is frozen within an epoch: the next one waits for its end.
    fn announce(&mut self, key: [u8; 32], epoch: u64, next: &Catalogue, issuer: &mut Issuer) -> Result<Step, Refused> {
        if key != *self.public.bytes() {
            return Err(Refused::rule("only the edge itself announces a catalogue"));
        }
        self.now(epoch)?;
        // What came over the wire is read as strictly as a file.
        let next = Catalogue::from_json("the announced catalogue", &next.to_json())
            .map_err(|e| Refused::form(&e.to_string()))?;
        let at = self.charter.groups.iter().position(|g| g.group == next.group);
        let at = at.ok_or_else(|| Refused::unknown("there is no such group; GET /v1/charter lists them"))?;
        self.charter.groups[at].carry(&next).map_err(|e| Refused::rule(&e.to_string()))?;
        if self.groups[at].next.is_some() {
            return Err(Refused::conflict("a catalogue of this group was announced in this epoch already"));
        }
        let draft = issuer.draft(Receipt {
            subject: self.public.name().to_owned(),
            kind: Kind::Catalogue,
            group: next.group.clone(),
            epoch,
            catalogue: next.hash(),
            policy: self.policy,
            value: i64::from(next.version),
            ..blank(&self.public)
        });
        self.groups[at].next = Some(next);
        Ok(Step { drafts: vec![draft], ..Step::default() })
    }
}

/// Names, salts and times of the receipts of one event.
struct Issuer {
    seed: [u8; 32],
    issued: u64,
    time_s: u64,
    expires_s: u64,
}

impl Issuer {
    fn draft(&mut self, receipt: Receipt) -> Draft {
        let draw = |purpose: &[u8], n: u64| -> [u8; 16] {
            let hash =
                Sha256::new().chain_update(purpose).chain_update(self.seed).chain_update(n.to_be_bytes()).finalize();
            hash[..16].try_into().expect("16 of 32")
        };
        let (id, salt) = (draw(b"sb/id/v1", self.issued), draw(b"sb/salt/v1", self.issued));
        self.issued += 1;
        Draft { receipt: Receipt { id, issued_s: self.time_s, expires_s: self.expires_s, ..receipt }, salt }
    }
}

/// A receipt of this edge with nothing in it yet.
fn blank(public: &EdgePublic) -> Receipt {
    Receipt {
        issuer: public.name().to_owned(),
        subject: String::new(),
        audience: public.name().to_owned(),
        expires_s: 0,
        issued_s: 0,
        id: [0; 16],
        kind: Kind::Epoch,
        group: String::new(),
        epoch: 0,
        catalogue: [0; 32],
        policy: [0; 32],
        mechanism: [0; 32],
        commitment: [0; 32],
        value: 0,
        parts: [0; 4],
        budget_milli: 0,
        previous: [0; 32],
        nonce: [0; 16],
    }
}

/// What the account's next receipt points back to.
fn digest_of(receipt: &Receipt) -> Hash {
    Sha256::digest(receipt.payload()).into()
}

fn ledger_key(epoch: u64, account: &[u8; 32], nonce: &[u8; 16]) -> Key {
    let hash = Sha256::new().chain_update(b"sb/key/v1").chain_update(account).chain_update(nonce).finalize();
    Key { epoch, id: u128::from_be_bytes(hash[..16].try_into().expect("16 of 32")) }
}

#[cfg(test)]
mod tests;
