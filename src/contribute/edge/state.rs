//! What an edge knows, and how each message changes it: a pure function of messages, times and seeds, so that a journal of
//! those gives the same values, receipts and balances anywhere.

use super::Refused;
use super::demand::Demand;
use crate::contribute::catalogue::{Catalogue, hex};
use crate::contribute::channel::{Budget, UNITS};
use crate::contribute::cloud::{Charter, Prices, Sums};
use crate::contribute::message::{About, Body, Contribution, Envelope, unhex};
use crate::contribute::quota::ledger::Key;
use crate::contribute::quota::{self, Claimant, Ledger, Operation};
use crate::contribute::receipt::{EdgePublic, Hash, Kind, Receipt, nullifier, pseudonym};
use crate::contribute::value::{self, Coverage, EngineConfig, Entry, Group, Prior, Protected, Stock, Value, leaked};
use crate::protect::Pipeline;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Standard deviations that the sum of a histogram may be away from the declared number of items.
const SUM_LIMIT: f64 = 6.0;

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
    /// Items of each account in this epoch.
    given: BTreeMap<u32, u32>,
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
    contents: HashSet<Hash>,
    dues: BTreeMap<[u8; 16], Due>,
    redeemed: HashSet<Hash>,
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
            contents: HashSet::new(),
            dues: BTreeMap::new(),
            redeemed: HashSet::new(),
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
        for group in &self.groups {
            for n in &group.cells {
                hasher.update(n.to_be_bytes());
            }
            for (account, stock) in &group.stocks {
                hasher.update(account.to_be_bytes());
                hasher.update(stock.ticks.to_be_bytes());
                hasher.update(stock.variance.to_be_bytes());
            }
            for pending in &group.pending {
                hasher.update(pending.commitment);
            }
            group.demand.feed(&mut hasher);
            hasher.update(group.hash);
            if let Some(next) = &group.next {
                hasher.update(next.hash());
            }
            for hash in group.previous.values() {
                hasher.update(hash);
            }
        }
        for (id, due) in &self.dues {
            hasher.update(id);
            hasher.update(due.stock.ticks.to_be_bytes());
        }
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
        | Body::Settle { edge, .. }) = &body;
        if edge != self.public.name() {
            return Err(Refused::rule(&format!(
                "this is edge `{}`; the message is for another one",
                self.public.name()
            )));
        }
        if let Body::Register { .. } = body {
            if !self.accounts.contains_key(&key) {
                self.accounts.insert(key, self.ledger.open(0));
                self.keys.push(key);
            }
            return Ok(Step::default());
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
            Body::Register { .. } | Body::Settle { .. } | Body::Catalogue { .. } => unreachable!("handled above"),
        }
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
        let release = self.check(at, account, &c)?;
        let spent = self.budget(at, account, &c)?;
        let content = Sha256::new()
            .chain_update(account.to_be_bytes())
            .chain_update(self.groups[at].hash)
            .chain_update(Sha256::digest(c.content()))
            .finalize()
            .into();
        if self.contents.contains(&content) {
            return Err(Refused::conflict("the same protected content was contributed before"));
        }

        // Nothing is refused from here on.
        self.contents.insert(content);
        self.ledger.touch(account);
        let mechanism = Sha256::digest(serde_json::to_vec(&c.mechanism).expect("numbers and text")).into();
        let policy = self.policy;
        let group = &mut self.groups[at];
        *group.given.entry(account).or_default() += c.items;
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
        self.used.insert((c.epoch, account, nonce), (digest, draft.receipt.id));
        Ok(Step { drafts: vec![draft], ..Step::default() })
    }

    /// Whether a contribution is what its declaration says, as far as that can be seen.
    fn check(&self, at: usize, account: u32, c: &Contribution) -> Result<Vec<Protected>, Refused> {
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
        let before = group.given.get(&account).copied().unwrap_or(0);
        if c.items == 0 || c.items > policy.items_cap.saturating_sub(before) {
            return Err(Refused::rule(&format!(
                "`items` must be 1 to {} (what is left of {} in this epoch)",
                policy.items_cap.saturating_sub(before),
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
        if c.release.len() > policy.vectors_cap || c.release.len() > c.items as usize {
            return Err(Refused::rule(&format!("at most {} vectors, and no more than items", policy.vectors_cap)));
        }
        if c.release.iter().any(|row| row.len() != catalogue.dim) {
            return Err(Refused::rule(&format!("every vector must have {} coordinates", catalogue.dim)));
        }
        Self::check_release(c)
    }

    /// Whether the declared noise is that of the declared pipeline, and the vectors are no longer than it allows.
    fn check_release(c: &Contribution) -> Result<Vec<Protected>, Refused> {
        if c.release.is_empty() {
            return Ok(Vec::new());
        }
        let m = &c.mechanism;
        let pipeline = Pipeline::parse(&m.pipeline).map_err(|_| Refused::rule("`pipeline` is not a valid pipeline"))?;
        let claim = pipeline.claim();
        let sigma = claim.sigma().unwrap_or(0.0);
        let epsilon = claim.epsilon(pipeline.delta()).map_or(0, |e| (e * 1000.0).ceil() as u64);
        let members = pipeline.noise().map_or(1, |n| n.members as u32);
        if (m.sigma_ppm, m.release_epsilon_milli, m.members) != ((sigma * 1e6).round() as u32, epsilon, members) {
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

    /// Announced catalogues take over; the mass of each cell goes where its centroid falls, so that no unit is lost.
    fn change_catalogues(&mut self) {
        for (group, catalogue) in self.groups.iter_mut().zip(&mut self.charter.groups) {
            let Some(next) = group.next.take() else { continue };
            let carried = catalogue.carry(&next).expect("it was checked when it was announced");
            let mut cells = vec![0_i64; next.cells()];
            for (&to, &mass) in carried.iter().zip(&group.cells) {
                cells[to] += mass;
            }
            group.demand.carry(&carried, next.cells());
            (group.cells, group.hash) = (cells, next.hash());
            *catalogue = next;
        }
    }

    /// The end of an epoch: leak, prices, values, shares, spill, receipts.
    fn close(&mut self, issuer: &mut Issuer) -> Step {
        let (epoch, leak, alpha) =
            (self.ledger.epoch, self.charter.policy.leak(), self.charter.policy.demand_prior() as f64);
        let mut step = Step::default();
        let mut published = Vec::new();
        self.dues.retain(|_, due| due.expires_s >= issuer.time_s);
        for at in 0..self.groups.len() {
            let group = &mut self.groups[at];
            group.cells.iter_mut().for_each(|n| *n = leaked(*n, leak));
            group.stocks.values_mut().for_each(|s| s.leak(leak));
            let mut arrived = vec![0_i64; group.cells.len()];
            for p in &group.pending {
                arrived.iter_mut().zip(&p.cells).for_each(|(m, n)| *m += n);
            }
            let sums = Sums {
                group: self.charter.groups[at].group.clone(),
                epoch,
                stock: group.cells.clone(),
                arrived,
                paid: group.demand.paid().to_vec(),
            };
            // The cloud sees sums only, and everybody sees its answer.
            let prices = self.charter.prices(sums).expect("the sums are of this charter's own group");
            self.value(at, &prices, issuer, &mut step);
            published.push(prices);
        }
        let claims: Vec<Claimant> = self
            .groups
            .iter()
            .enumerate()
            .flat_map(|(g, group)| {
                group.stocks.iter().map(move |(&account, stock)| Claimant {
                    account,
                    group: g as u32,
                    entitlement: stock.entitlement(GATE),
                })
            })
            .collect();
        let worth: Vec<u64> = self
            .groups
            .iter()
            .map(|g| {
                let weights: Vec<f64> = g.demand.paid().iter().map(|&q| 1.0 + q as f64 / alpha).collect();
                (Coverage::default().worth(&g.cells, &weights).max(0.0) * 1_048_576.0).round() as u64
            })
            .collect();
        let seed = u64::from_be_bytes(issuer.seed[..8].try_into().expect("8 of 32"));
        let issue = self.charter.policy.quota.close(&mut self.ledger, &claims, &worth, seed);
        let oldest = self.ledger.epoch.saturating_sub(1);
        self.used = self.used.split_off(&(oldest, 0, [0; 16]));
        self.holds.retain(|_, hold| hold.key.epoch >= oldest);
        let record = EpochRecord {
            epoch,
            groups: published,
            contributions: step.drafts.len(),
            baseline: issue.baseline,
            rewarded: issue.bonus.values().filter(|b| **b > 0).count(),
            spilled: issue.spill.values().sum(),
            saved: issue.saved,
            burned: issue.burned,
        };
        let own = |kind, value: u64| Receipt {
            subject: self.public.name().to_owned(),
            kind,
            epoch,
            policy: self.policy,
            commitment: Sha256::digest(serde_json::to_vec(&record).expect("numbers and text")).into(),
            value: value as i64,
            ..blank(&self.public)
        };
        for (kind, value) in [(Kind::Spill, record.spilled), (Kind::Burn, record.burned)] {
            if value > 0 {
                step.drafts.push(issuer.draft(own(kind, value)));
            }
        }
        step.drafts.push(issuer.draft(own(Kind::Epoch, quota_total(&issue))));
        step.closed = Some(record);
        self.groups.iter_mut().for_each(|group| group.demand.turn(leak));
        self.change_catalogues();
        step
    }

    /// Values the contributions that waited in one group, and writes a receipt for each.
    ///
    /// They leave in an order drawn from the epoch's seed: neither time nor place in the log says which receipts of two groups
    /// came from one visit.
    fn value(&mut self, at: usize, prices: &Prices, issuer: &mut Issuer, step: &mut Step) {
        let epoch = prices.sums.epoch;
        let mut pending = std::mem::take(&mut self.groups[at].pending);
        let lot = |p: &Pending| Sha256::new().chain_update(b"sb/order/v1").chain_update(issuer.seed).chain_update(p.id);
        pending.sort_by_cached_key(|p| lot(p).finalize());
        self.groups[at].given.clear();
        let values = self.appraise(at, &pending, prices);
        let group = &mut self.groups[at];
        for (p, value) in pending.into_iter().zip(values) {
            let receipt = Receipt {
                subject: pseudonym(&self.keys[p.account as usize], &prices.sums.group),
                kind: Kind::Issue,
                group: prices.sums.group.clone(),
                epoch,
                catalogue: group.hash,
                policy: self.policy,
                mechanism: p.mechanism,
                commitment: p.commitment,
                value: value.ticks,
                parts: [value.volume, value.novelty_ppm, value.freshness_ppm, i64::from(value.estimable)],
                budget_milli: group.spent_milli.get(&p.account).copied().unwrap_or(0),
                previous: group.previous.get(&p.account).copied().unwrap_or_default(),
                nonce: p.nonce,
                ..blank(&self.public)
            };
            let draft = issuer.draft(receipt);
            group.previous.insert(p.account, digest_of(&draft.receipt));
            let mut stock = Stock::default();
            stock.accrue(value.ticks, &prices.prices, p.budget.variance_units());
            if value.ticks > 0 {
                let expires_s = draft.receipt.expires_s;
                self.dues.insert(draft.receipt.id, Due { account: p.account, group: at, epoch, expires_s, stock });
            } else {
                // What nobody would present counts at once: noise that went against an account is carried, not forgiven.
                let own = group.stocks.entry(p.account).or_default();
                own.ticks = own.ticks.saturating_add(stock.ticks);
                own.variance = own.variance.saturating_add(stock.variance);
            }
            self.issued.insert(p.id, draft.receipt.id);
            group.contributions += 1;
            group.paid = group.paid.saturating_add(value.ticks);
            group.cells.iter_mut().zip(&p.cells).for_each(|(n, m)| *n += m);
            group.kept.extend(p.release);
            step.drafts.push(draft);
        }
        let surplus = group.kept.len().saturating_sub(self.charter.policy.kept_vectors);
        group.kept.drain(..surplus);
    }

    fn appraise(&self, at: usize, pending: &[Pending], prices: &Prices) -> Vec<Value> {
        let group = &self.groups[at];
        let entries: Vec<Entry> = pending
            .iter()
            .map(|p| Entry { cells: &p.cells, budget: p.budget, items: p.items, release: &p.release, age_epochs: 0 })
            .collect();
        match &self.charter.policy.value {
            EngineConfig::Coverage(engine) => {
                entries.iter().map(|e| engine.value(&prices.prices, &prices.weights, e)).collect()
            }
            EngineConfig::Product(engine) => {
                let group =
                    Group { cells: &group.cells, weights: &prices.weights, releases: &group.kept, prior: Prior::TEXT };
                value::Engine::appraise(engine, &group, &entries)
            }
        }
    }
}

/// Standard deviations above which a stock is paid.
const GATE: u32 = 3;

fn quota_total(issue: &quota::epoch::Issue) -> u64 {
    issue.bonus.values().sum::<u64>() + issue.baseline
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
