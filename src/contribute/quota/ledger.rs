//! Baskets of credits, holds, and the reserve.

use super::Micro;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};

/// Names one operation: the epoch in which it was asked for, and a number that the account chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key {
    /// The epoch; keys are remembered for the current and the previous one, older requests are refused.
    pub epoch: u64,
    /// Unique within the epoch.
    pub id: u128,
}

/// What can be done to a basket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    /// Sets credits aside for a request.
    Hold {
        /// Whose.
        account: u32,
        /// The most that the request may cost.
        amount: Micro,
    },
    /// Pays a request from its hold and returns the rest.
    Settle {
        /// The hold.
        hold: Key,
        /// What the request did cost.
        actual: Micro,
    },
    /// Returns a whole hold.
    Void {
        /// The hold.
        hold: Key,
    },
}

/// What an operation did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The account.
    pub account: u32,
    /// Credits set aside, paid or returned.
    pub amount: Micro,
    /// Returned credits that the full basket could not take.
    pub overflow: Micro,
    /// The balance afterwards.
    pub balance: Micro,
}

/// Why an operation is refused; nothing has changed then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No such account.
    #[error("there is no such account")]
    Unknown,
    /// Too few credits.
    #[error("the basket holds {balance} micro-credits, {asked} were asked for")]
    Insufficient {
        /// What is there.
        balance: Micro,
        /// What was asked for.
        asked: Micro,
    },
    /// No such hold, or it is settled already.
    #[error("there is no such hold")]
    NoHold,
    /// More than the hold.
    #[error("the hold is of {held} micro-credits, the request cost {actual}")]
    OverHold {
        /// The hold.
        held: Micro,
        /// The cost.
        actual: Micro,
    },
    /// The key names another operation already.
    #[error("this key was used for another operation")]
    Conflict,
    /// The key is too old to tell whether it was used.
    #[error("the key is of epoch {asked}, now is {now}; ask again with a new key")]
    Stale {
        /// The key's epoch.
        asked: u64,
        /// The current one.
        now: u64,
    },
}

/// One account's credits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Basket {
    /// Credits to spend.
    pub balance: Micro,
    /// Credits under holds.
    pub held: Micro,
    /// The most that the balance may be.
    pub cap: Micro,
    /// Decayed mean of what was issued to it.
    pub mean_issue: Micro,
    /// The last epoch in which it did anything.
    pub active: u64,
}

/// All baskets with every credit ever emitted.
///
/// # Range
/// `emitted = balances + held + spent + reserve + burned` after every step, exactly; `balance <= cap`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger {
    baskets: Vec<Basket>,
    holds: BTreeMap<Key, (u32, Micro)>,
    done: HashMap<Key, (Operation, Outcome)>,
    balances: Micro,
    held: Micro,
    /// The current epoch.
    pub epoch: u64,
    /// Credits ever issued.
    pub emitted: Micro,
    /// Credits paid for requests.
    pub spent: Micro,
    /// Credits that no basket had room for.
    pub reserve: Micro,
    /// The most that the reserve may be.
    pub reserve_cap: Micro,
    /// Credits destroyed because the reserve was full.
    pub burned: Micro,
}

impl Ledger {
    /// Nobody and nothing yet; the reserve takes up to `cap`.
    pub fn with_reserve(cap: Micro) -> Self {
        Self { reserve_cap: cap, ..Self::default() }
    }

    /// A new basket; returns its number.
    pub fn open(&mut self, cap: Micro) -> u32 {
        self.baskets.push(Basket { cap, active: self.epoch, ..Basket::default() });
        self.baskets.len() as u32 - 1
    }

    /// Accounts.
    pub fn len(&self) -> usize {
        self.baskets.len()
    }

    /// True without accounts.
    pub fn is_empty(&self) -> bool {
        self.baskets.is_empty()
    }

    /// One account's basket.
    pub fn basket(&self, account: u32) -> Option<&Basket> {
        self.baskets.get(account as usize)
    }

    pub(super) fn baskets_mut(&mut self) -> &mut [Basket] {
        &mut self.baskets
    }

    /// Notes that an account did something in this epoch.
    pub fn touch(&mut self, account: u32) {
        let epoch = self.epoch;
        if let Some(basket) = self.baskets.get_mut(account as usize) {
            basket.active = epoch;
        }
    }

    /// Does an operation once: the same key and operation again give the same outcome and change nothing.
    ///
    /// # Errors
    /// [`Refusal`]; nothing has changed then.
    pub fn apply(&mut self, key: Key, operation: Operation) -> Result<Outcome, Refusal> {
        if let Some((before, outcome)) = self.done.get(&key) {
            return if *before == operation { Ok(*outcome) } else { Err(Refusal::Conflict) };
        }
        if key.epoch + 1 < self.epoch || key.epoch > self.epoch {
            return Err(Refusal::Stale { asked: key.epoch, now: self.epoch });
        }
        let outcome = match operation {
            Operation::Hold { account, amount } => self.hold(key, account, amount)?,
            Operation::Settle { hold, actual } => self.release(hold, actual)?,
            Operation::Void { hold } => self.release(hold, 0)?,
        };
        self.done.insert(key, (operation, outcome));
        Ok(outcome)
    }

    fn hold(&mut self, key: Key, account: u32, amount: Micro) -> Result<Outcome, Refusal> {
        let epoch = self.epoch;
        let basket = self.baskets.get_mut(account as usize).ok_or(Refusal::Unknown)?;
        if basket.balance < amount {
            return Err(Refusal::Insufficient { balance: basket.balance, asked: amount });
        }
        basket.balance -= amount;
        basket.held += amount;
        basket.active = epoch;
        let balance = basket.balance;
        self.balances -= amount;
        self.held += amount;
        self.holds.insert(key, (account, amount));
        Ok(Outcome { account, amount, overflow: 0, balance })
    }

    fn release(&mut self, hold: Key, actual: Micro) -> Result<Outcome, Refusal> {
        let &(account, held) = self.holds.get(&hold).ok_or(Refusal::NoHold)?;
        if actual > held {
            return Err(Refusal::OverHold { held, actual });
        }
        self.holds.remove(&hold);
        self.baskets[account as usize].held -= held;
        self.held -= held;
        self.spent += actual;
        let overflow = self.pour(account, held - actual);
        self.save(overflow);
        let balance = self.baskets[account as usize].balance;
        Ok(Outcome { account, amount: actual, overflow, balance })
    }

    /// Puts credits into a basket and returns what did not fit.
    pub(super) fn pour(&mut self, account: u32, amount: Micro) -> Micro {
        let basket = &mut self.baskets[account as usize];
        let taken = amount.min(basket.cap.saturating_sub(basket.balance));
        basket.balance += taken;
        self.balances += taken;
        amount - taken
    }

    /// Sets a basket's cap and returns what no longer fits.
    pub(super) fn set_cap(&mut self, account: u32, cap: Micro) -> Micro {
        let basket = &mut self.baskets[account as usize];
        basket.cap = cap;
        let excess = basket.balance.saturating_sub(cap);
        basket.balance -= excess;
        self.balances -= excess;
        excess
    }

    /// Puts credits into the reserve; what it cannot take is burned.
    pub(super) fn save(&mut self, amount: Micro) -> Micro {
        let kept = amount.min(self.reserve_cap.saturating_sub(self.reserve));
        self.reserve += kept;
        self.burned += amount - kept;
        amount - kept
    }

    /// Starts the next epoch: keys older than one epoch are forgotten, holds older than that are given back.
    pub(super) fn advance(&mut self) {
        self.epoch += 1;
        let oldest = self.epoch.saturating_sub(1);
        let expired: Vec<Key> = self.holds.keys().take_while(|k| k.epoch < oldest).copied().collect();
        for key in expired {
            self.release(key, 0).expect("an open hold can be given back");
        }
        self.done.retain(|key, _| key.epoch >= oldest);
    }

    /// Whether every credit is where the totals say; constant time.
    pub fn is_conserved(&self) -> bool {
        let places = [self.balances, self.held, self.spent, self.reserve, self.burned];
        places.iter().try_fold(0_u64, |sum, p| sum.checked_add(*p)) == Some(self.emitted)
    }

    /// [`Ledger::is_conserved`] with every basket and hold counted again, and every basket within its cap.
    pub fn is_sound(&self) -> bool {
        let sum = |of: fn(&Basket) -> Micro| self.baskets.iter().map(of).sum::<Micro>();
        self.is_conserved()
            && sum(|b| b.balance) == self.balances
            && sum(|b| b.held) == self.held
            && self.holds.values().map(|h| h.1).sum::<Micro>() == self.held
            && self.baskets.iter().all(|b| b.balance <= b.cap)
    }

    /// SHA-256 of everything that decides what happens next.
    pub fn hash(&self) -> [u8; 32] {
        let mut hasher = Sha256::new();
        let totals = [self.epoch, self.emitted, self.spent, self.reserve, self.reserve_cap, self.burned];
        for n in totals {
            hasher.update(n.to_be_bytes());
        }
        for b in &self.baskets {
            for n in [b.balance, b.held, b.cap, b.mean_issue, b.active] {
                hasher.update(n.to_be_bytes());
            }
        }
        for (key, (account, amount)) in &self.holds {
            hasher.update(key.epoch.to_be_bytes());
            hasher.update(key.id.to_be_bytes());
            hasher.update(account.to_be_bytes());
            hasher.update(amount.to_be_bytes());
        }
        let mut done: Vec<_> = self.done.iter().collect();
        done.sort_unstable_by_key(|(key, _)| **key);
        hasher.update(serde_json::to_vec(&done).expect("numbers and names"));
        hasher.finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contribute::quota::{Claimant, Policy};
    use crate::seed;
    use rand::RngExt;

    fn key(id: u128) -> Key {
        Key { epoch: 0, id }
    }

    fn funded() -> Ledger {
        let mut ledger = Ledger::with_reserve(15);
        let account = ledger.open(100);
        ledger.emitted = 80;
        assert_eq!(ledger.pour(account, 80), 0);
        ledger
    }

    #[test]
    fn a_hold_is_settled_once_and_the_rest_comes_back() {
        let mut ledger = funded();
        let hold = Operation::Hold { account: 0, amount: 50 };
        assert_eq!(ledger.apply(key(1), hold).map(|o| o.balance), Ok(30));
        assert_eq!(ledger.apply(key(1), hold).map(|o| o.balance), Ok(30), "again, the same");
        assert_eq!(ledger.apply(key(1), Operation::Hold { account: 0, amount: 51 }), Err(Refusal::Conflict));
        let settle = |actual| Operation::Settle { hold: key(1), actual };
        assert_eq!(ledger.apply(key(2), settle(51)), Err(Refusal::OverHold { held: 50, actual: 51 }));
        assert_eq!(ledger.apply(key(2), settle(20)).map(|o| o.balance), Ok(60));
        assert_eq!(ledger.apply(key(2), settle(20)).map(|o| o.balance), Ok(60));
        assert_eq!(ledger.apply(key(3), settle(20)), Err(Refusal::NoHold));
        assert_eq!((ledger.spent, ledger.is_sound()), (20, true));
        let too_much = Operation::Hold { account: 0, amount: 61 };
        assert_eq!(ledger.apply(key(4), too_much), Err(Refusal::Insufficient { balance: 60, asked: 61 }));
        assert_eq!(ledger.apply(key(5), Operation::Hold { account: 9, amount: 1 }), Err(Refusal::Unknown));
    }

    #[test]
    fn a_refund_above_a_fallen_cap_goes_to_the_reserve_and_then_burns() {
        let mut ledger = funded();
        ledger.apply(key(1), Operation::Hold { account: 0, amount: 50 }).expect("enough");
        assert_eq!(ledger.set_cap(0, 40), 0);
        let outcome = ledger.apply(key(2), Operation::Void { hold: key(1) }).expect("open");
        assert_eq!((outcome.balance, outcome.overflow), (40, 40));
        assert_eq!((ledger.reserve, ledger.burned, ledger.is_sound()), (15, 25, true));
    }

    #[test]
    fn old_keys_are_refused_and_old_holds_come_back() {
        let mut ledger = funded();
        ledger.apply(key(1), Operation::Hold { account: 0, amount: 50 }).expect("enough");
        ledger.advance();
        assert_eq!(ledger.apply(key(1), Operation::Hold { account: 0, amount: 50 }).map(|o| o.balance), Ok(30));
        ledger.advance();
        assert_eq!(ledger.basket(0).map(|b| (b.balance, b.held)), Some((80, 0)));
        let stale = ledger.apply(key(1), Operation::Hold { account: 0, amount: 50 });
        assert_eq!(stale, Err(Refusal::Stale { asked: 0, now: 2 }));
        assert!(ledger.is_sound());
    }

    /// A random walk over every operation, with keys used again, wrong amounts and epochs closed in between.
    fn walk(steps: usize, root: u64) -> Ledger {
        let mut rng = seed::stream(root, "test", "walk");
        let policy = Policy { emission: 1_000_000, ..Policy::default() };
        let mut ledger = Ledger::with_reserve(500_000);
        for _ in 0..64 {
            ledger.open(0);
        }
        let mut open: Vec<Key> = Vec::new();
        for step in 0..steps {
            let id = step as u128 / 3 * 2 + rng.random_range(0..3_u128);
            let key = Key { epoch: ledger.epoch.saturating_sub(rng.random_range(0..40) / 39), id };
            match rng.random_range(0..100_000) {
                0..10 => {
                    let mut claimant = |i: u32| Claimant {
                        account: i,
                        group: i % 3,
                        entitlement: rng.random_range(0..2) * rng.random_range(0..1_u64 << 50),
                    };
                    let claims: Vec<Claimant> = (0..64).map(&mut claimant).collect();
                    policy.close(&mut ledger, &claims, &[5, 1, 0], step as u64);
                    assert!(ledger.is_sound(), "after step {step}");
                }
                10..50_000 => {
                    let amount = rng.random_range(0..3000);
                    let account = rng.random_range(0..65);
                    if ledger.apply(key, Operation::Hold { account, amount }).is_ok() {
                        open.push(key);
                    }
                }
                _ => {
                    let at = rng.random_range(0..open.len().max(1));
                    let Some(&hold) = open.get(at) else { continue };
                    if rng.random_range(0..4) > 0 {
                        open.swap_remove(at);
                    }
                    let actual = rng.random_range(0..3000);
                    let operation = if rng.random_range(0..3) == 0 {
                        Operation::Void { hold }
                    } else {
                        Operation::Settle { hold, actual }
                    };
                    let _ = ledger.apply(key, operation);
                }
            }
            assert!(ledger.is_conserved(), "after step {step}");
        }
        assert!(ledger.is_sound());
        ledger
    }

    #[test]
    fn ten_million_random_steps_break_nothing() {
        let ledger = walk(10_000_000, 1);
        assert!(ledger.spent > 0 && ledger.burned > 0 && ledger.epoch > 500, "{} epochs", ledger.epoch);
    }

    #[test]
    fn the_same_steps_give_the_same_state() {
        assert_eq!(walk(50_000, 2).hash(), walk(50_000, 2).hash());
        assert_ne!(walk(50_000, 2).hash(), walk(50_000, 3).hash());
    }
}
