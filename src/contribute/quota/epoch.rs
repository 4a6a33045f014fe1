//! What an epoch issues: a baseline for all, a bonus in proportion to value, and where the overflow goes.

use super::Micro;
use super::divide::{fill, largest_remainder};
use super::ledger::Ledger;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// An account's entitlement in one group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claimant {
    /// The account.
    pub account: u32,
    /// The group, by number.
    pub group: u32,
    /// Gated stock in ticks; 0 for none.
    pub entitlement: u64,
}

/// How credits are issued.
///
/// # Formula
/// Of `E` micro-credits, `b = floor(beta E / N)` go to each of the `N` active accounts, the rest to groups in proportion to
/// their worth and inside a group in proportion to entitlements (linear: any other rule can be played). A basket holds
/// `2b + kappa` mean issues; what does not fit is poured over the others by weighted max-min, then saved, then burned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// Micro-credits issued each epoch.
    pub emission: Micro,
    /// Share of the emission that is the baseline, in millionths.
    pub baseline_ppm: u64,
    /// Mean issues that a basket holds.
    pub basket_epochs: u64,
    /// Epochs without a sign of life after which an account gets nothing.
    pub active_epochs: u64,
    /// Entitled accounts that a group needs for a budget of its own; smaller ones share one.
    pub group_members: usize,
}

impl Default for Policy {
    fn default() -> Self {
        Self { emission: 1_000_000_000, baseline_ppm: 300_000, basket_epochs: 7, active_epochs: 4, group_members: 5 }
    }
}

/// What was issued to whom.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issue {
    /// Baseline of each active account.
    pub baseline: Micro,
    /// Bonus by account.
    pub bonus: BTreeMap<u32, Micro>,
    /// Overflow that others received, by account.
    pub spill: BTreeMap<u32, Micro>,
    /// Credits that went to the reserve.
    pub saved: Micro,
    /// Credits that were burned.
    pub burned: Micro,
}

impl Policy {
    /// Every problem of the policy.
    pub fn check(&self) -> Vec<String> {
        let mut out = Vec::new();
        if self.emission > 1 << 50 {
            out.push(format!("`emission` must be at most 2^50 micro-credits, got {}", self.emission));
        }
        if self.baseline_ppm > 1_000_000 {
            out.push(format!("`baseline_ppm` must be at most 1000000, got {}", self.baseline_ppm));
        }
        if !(1..=1000).contains(&self.basket_epochs) || self.active_epochs == 0 {
            out.push("`basket_epochs` must be 1 to 1000 and `active_epochs` at least 1".to_owned());
        }
        out
    }

    /// Closes the epoch of `ledger`: issues, pours, saves, burns, and starts the next one.
    ///
    /// `worth` weighs the groups; `seed` breaks ties, so that nobody can choose a lucky place.
    ///
    /// # Panics
    /// When a claimant names a group or an account that is not there.
    pub fn close(&self, ledger: &mut Ledger, claims: &[Claimant], worth: &[u64], seed: u64) -> Issue {
        let epoch = ledger.epoch;
        let tie = |account: u32| {
            let digest = Sha256::new().chain_update(seed.to_be_bytes()).chain_update(account.to_be_bytes()).finalize();
            u64::from_be_bytes(digest[..8].try_into().expect("8 of 32"))
        };
        let active: Vec<u32> = (0..ledger.len() as u32)
            .filter(|&a| ledger.basket(a).is_some_and(|b| b.active + self.active_epochs > epoch))
            .collect();
        let mut issue = Issue::default();
        ledger.advance();
        if active.is_empty() {
            return issue;
        }
        ledger.emitted += self.emission;
        issue.baseline =
            (u128::from(self.emission) * u128::from(self.baseline_ppm) / 1_000_000) as u64 / active.len() as u64;
        let pool = self.emission - issue.baseline * active.len() as u64;
        let claims: Vec<&Claimant> =
            claims.iter().filter(|c| c.entitlement > 0 && active.binary_search(&c.account).is_ok()).collect();
        let mut overflow = self.bonuses(pool, &claims, worth, &tie, &mut issue);
        let mut weight: BTreeMap<u32, u64> = BTreeMap::new();
        for claim in &claims {
            let sum = weight.entry(claim.account).or_default();
            *sum = sum.saturating_add(claim.entitlement);
        }
        for account in 0..ledger.len() as u32 {
            let due = active.binary_search(&account).map_or(0, |_| issue.baseline)
                + issue.bonus.get(&account).copied().unwrap_or(0);
            let basket = &mut ledger.baskets_mut()[account as usize];
            basket.mean_issue = u64::midpoint(basket.mean_issue, due);
            let cap = (2 * issue.baseline).saturating_add(self.basket_epochs.saturating_mul(basket.mean_issue));
            overflow += ledger.set_cap(account, cap);
            overflow += ledger.pour(account, due);
        }
        let room = |a: u32| ledger.basket(a).map_or(0, |b| b.cap - b.balance);
        let (names, weights): (Vec<u32>, Vec<u64>) = weight.into_iter().unzip();
        let rooms: Vec<Micro> = names.iter().map(|&a| room(a)).collect();
        let ties: Vec<u64> = names.iter().map(|&a| tie(a)).collect();
        for (&account, part) in names.iter().zip(fill(overflow, &weights, &rooms, &ties)).filter(|(_, p)| *p > 0) {
            overflow -= part;
            ledger.pour(account, part);
            issue.spill.insert(account, part);
        }
        issue.burned = ledger.save(overflow);
        issue.saved = overflow - issue.burned;
        assert!(ledger.is_conserved(), "every credit of epoch {epoch} is somewhere");
        issue
    }

    /// Divides the pool over groups and inside them; returns what nobody could be given.
    fn bonuses(
        &self,
        pool: Micro,
        claims: &[&Claimant],
        worth: &[u64],
        tie: &dyn Fn(u32) -> u64,
        issue: &mut Issue,
    ) -> Micro {
        let mut members = vec![0_usize; worth.len()];
        for claim in claims {
            members[claim.group as usize] += 1;
        }
        // Groups with too few entitled members share one budget: the last one.
        let home = |group: u32| {
            if members[group as usize] >= self.group_members { group as usize } else { worth.len() }
        };
        let mut weights = vec![0_u64; worth.len() + 1];
        for (group, &w) in worth.iter().enumerate().filter(|(g, _)| members[*g] > 0) {
            weights[home(group as u32)] = weights[home(group as u32)].saturating_add(w);
        }
        let budgets = largest_remainder(pool, &weights, &vec![0; weights.len()]);
        for (group, &budget) in budgets.iter().enumerate() {
            let inside: Vec<&&Claimant> = claims.iter().filter(|c| home(c.group) == group).collect();
            let stocks: Vec<u64> = inside.iter().map(|c| c.entitlement).collect();
            let ties: Vec<u64> = inside.iter().map(|c| tie(c.account)).collect();
            for (claim, part) in inside.iter().zip(largest_remainder(budget, &stocks, &ties)) {
                *issue.bonus.entry(claim.account).or_default() += part;
            }
        }
        pool - issue.bonus.values().sum::<Micro>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ledger(n: usize) -> Ledger {
        let mut ledger = Ledger::with_reserve(1_000_000);
        for _ in 0..n {
            ledger.open(0);
        }
        ledger
    }

    fn claims(entitlements: &[u64]) -> Vec<Claimant> {
        entitlements
            .iter()
            .enumerate()
            .map(|(i, &entitlement)| Claimant { account: i as u32, group: 0, entitlement })
            .collect()
    }

    #[test]
    fn everybody_gets_the_baseline_and_value_decides_about_the_rest() {
        let policy = Policy { emission: 1000, group_members: 1, ..Policy::default() };
        let mut ledger = ledger(3);
        let issue = policy.close(&mut ledger, &claims(&[0, 10, 30]), &[1], 7);
        assert_eq!(issue.baseline, 100);
        let balances: Vec<u64> = (0..3).map(|a| ledger.basket(a).expect("there").balance).collect();
        assert_eq!(balances, [100, 275, 625]);
        assert_eq!((issue.saved, issue.burned, ledger.is_sound()), (0, 0, true));
    }

    #[test]
    fn a_full_basket_overflows_to_others_by_value_then_to_the_reserve() {
        let policy = Policy { emission: 1000, group_members: 1, basket_epochs: 1, ..Policy::default() };
        let mut ledger = ledger(2);
        let mut spilled = 0;
        for epoch in 0..12 {
            (0..2).for_each(|a| ledger.touch(a));
            let issue = policy.close(&mut ledger, &claims(&[30, 10]), &[1], epoch);
            spilled += issue.spill.values().sum::<u64>();
        }
        // Nobody spends: baskets fill up, the reserve takes the rest.
        let full = |a| ledger.basket(a).is_some_and(|b| b.balance == b.cap);
        assert!(full(0) && full(1) && ledger.reserve > 0 && ledger.is_sound());
        assert!(spilled > 0);
    }

    #[test]
    fn a_group_of_few_shares_a_budget_with_other_small_ones() {
        let policy = Policy { emission: 1000, baseline_ppm: 0, group_members: 2, ..Policy::default() };
        let mut ledger = ledger(4);
        let claim = |account, group| Claimant { account, group, entitlement: 10 };
        // Groups 1 and 2 have one member each: one budget of weight 2 over both.
        let claims = [claim(0, 0), claim(1, 0), claim(2, 1), claim(3, 2)];
        let issue = policy.close(&mut ledger, &claims, &[2, 1, 1], 1);
        assert_eq!(issue.bonus.into_values().collect::<Vec<_>>(), [250; 4]);
    }

    #[test]
    fn who_sleeps_gets_nothing_and_without_anybody_nothing_is_issued() {
        let policy = Policy { emission: 1000, active_epochs: 2, ..Policy::default() };
        let mut ledger = ledger(2);
        for epoch in 0..4 {
            ledger.touch(0);
            policy.close(&mut ledger, &claims(&[5, 5]), &[1], epoch);
        }
        assert!(ledger.basket(0).expect("there").mean_issue > ledger.basket(1).expect("there").mean_issue);
        let before = ledger.emitted;
        for e in 0..8 {
            policy.close(&mut ledger, &[], &[1], e);
        }
        assert_eq!(ledger.emitted, before + 1000, "one last epoch of grace");
    }

    proptest! {
        #[test]
        fn allocation_keeps_its_invariants(
            entitlements in prop::collection::vec(prop_oneof![Just(0_u64), 1_u64..1 << 50], 1..20), seed in 0_u64..1000,
            more in 1_u64..1 << 40, at in 0_usize..20,
        ) {
            let policy = Policy { emission: 10_000_000, group_members: 1, ..Policy::default() };
            let run = |entitlements: &[u64]| {
                let mut ledger = ledger(entitlements.len());
                let issue = policy.close(&mut ledger, &claims(entitlements), &[3], seed);
                (ledger, issue)
            };
            let (before, issue) = run(&entitlements);
            prop_assert!(before.is_sound());
            // Everybody active has the baseline, or a full basket.
            for a in 0..entitlements.len() as u32 {
                let basket = before.basket(a).expect("there");
                prop_assert!(basket.balance >= issue.baseline.min(basket.cap));
            }
            // The reserve grows only when every entitled basket is full.
            if issue.saved + issue.burned > 0 {
                let full = |a: usize| before.basket(a as u32).is_some_and(|b| b.balance == b.cap);
                let all_full = (0..entitlements.len()).filter(|&a| entitlements[a] > 0).all(full);
                prop_assert!(all_full);
            }
            // More value never means less credit.
            let at = at % entitlements.len();
            let mut richer = entitlements.clone();
            richer[at] += more;
            let (after, _) = run(&richer);
            let balance = |l: &Ledger| l.basket(at as u32).expect("there").balance;
            prop_assert!(balance(&after) >= balance(&before));
        }
    }
}
