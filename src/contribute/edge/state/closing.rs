//! The end of an epoch: what waited is valued, stocks turn into quota, receipts are written, announced catalogues take over.

use super::{Due, EpochRecord, GroupState, Issuer, Pending, State, Step, blank, digest_of};
use crate::contribute::cloud::{Prices, Sums};
use crate::contribute::quota::{self, Claimant};
use crate::contribute::receipt::{Kind, Receipt, pseudonym};
use crate::contribute::value::{self, Coverage, EngineConfig, Entry, Group, Prior, Stock, Value, leaked};
use sha2::{Digest, Sha256};

/// Standard deviations above which a stock is paid.
const GATE: u32 = 3;

impl State {
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

    /// What each group is worth, which divides the epoch's credits between them. An engine without a worth of groups lends the
    /// usual one.
    pub(super) fn worth(&self) -> Vec<u64> {
        let usual = Coverage::default();
        let engine = match &self.charter.policy.value {
            EngineConfig::Coverage(engine) => engine,
            EngineConfig::Product(_) => &usual,
        };
        let alpha = self.charter.policy.demand_prior() as f64;
        let worth = |g: &GroupState| {
            let weights: Vec<f64> = g.demand.paid().iter().map(|&q| 1.0 + q as f64 / alpha).collect();
            (engine.worth(&g.cells, &weights).max(0.0) * 1_048_576.0).round() as u64
        };
        self.groups.iter().map(worth).collect()
    }

    /// The end of an epoch: leak, prices, values, shares, spill, receipts.
    pub(super) fn close(&mut self, issuer: &mut Issuer) -> Step {
        let (epoch, leak) = (self.ledger.epoch, self.charter.policy.leak());
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
        let worth = self.worth();
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

fn quota_total(issue: &quota::epoch::Issue) -> u64 {
    issue.bonus.values().sum::<u64>() + issue.baseline
}
