//! The cloud: which groups there are, how they are valued, what may be issued. It sees sums over all accounts, never one.

use super::value::{EngineConfig, demand_weights, leak_q32};
use super::{Catalogue, Error, quota};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The rules of all edges: public, hashed into every receipt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// How contributions are valued. Only engine B is paid from histograms; engine A needs vectors.
    pub value: EngineConfig,
    /// How credits are issued.
    pub quota: quota::Policy,
    /// Most items of one account in one group and epoch.
    pub items_cap: u32,
    /// Most epsilon, in thousandths, that an account may spend in a group over its life.
    pub budget_cap_milli: u64,
    /// Seconds in which an issue receipt can be redeemed.
    pub redeem_s: u64,
    /// Vectors that a group keeps for comparison.
    pub kept_vectors: usize,
    /// Vectors in one contribution.
    pub vectors_cap: usize,
    /// Most credits that wait in the reserve.
    pub reserve_cap: u64,
    /// Accounts behind a cell before it is shown.
    pub shown_members: usize,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            value: EngineConfig::default(),
            quota: quota::Policy::default(),
            items_cap: 1000,
            budget_cap_milli: 30_000,
            redeem_s: 7 * 86_400,
            kept_vectors: 2000,
            vectors_cap: 64,
            reserve_cap: 10_000_000_000,
            shown_members: 5,
        }
    }
}

impl Policy {
    /// Micro-credits that every cell counts as demanded before anybody asked: so many that paying for demand never pays.
    ///
    /// # Formula
    /// `alpha = E / (2 (1 - r))`, `E` the emission and `r` what an epoch leaves of demand. Paying `x` for a cell moves an
    /// account's share of its group by at most `x / (4 alpha)`, and the group's share of the emission by as much again; the
    /// effect fades with `r`, so that all that it ever brings is at most `E x / (2 alpha (1 - r)) = x`.
    ///
    /// # Source
    /// Own: the derivative of a share by the logarithm of a weight is `f (1 - f) <= 1/4`.
    pub fn demand_prior(&self) -> u64 {
        let fades = (1_u64 << 32).saturating_sub(self.leak()).max(1);
        let alpha = (u128::from(self.quota.emission) << 31) / u128::from(fades);
        u64::try_from(alpha).unwrap_or(u64::MAX).max(1)
    }

    /// What an epoch leaves of stock and demand, as [`leak_q32`] gives it.
    pub fn leak(&self) -> u64 {
        leak_q32(match &self.value {
            EngineConfig::Coverage(c) => c.half_life_epochs,
            EngineConfig::Product(p) => p.half_life_epochs,
        })
    }
}

/// Groups and rules, as the cloud publishes them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Charter {
    /// The rules.
    pub policy: Policy,
    /// The groups, one catalogue each.
    pub groups: Vec<Catalogue>,
}

/// What an edge tells of one group at the end of an epoch: sums over all its accounts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sums {
    /// The group.
    pub group: String,
    /// The epoch.
    pub epoch: u64,
    /// Units that the group holds, after the leak.
    pub stock: Vec<i64>,
    /// Units that arrived.
    pub arrived: Vec<i64>,
    /// Micro-credits paid for served requests of earlier epochs about each cell, decayed.
    pub paid: Vec<u64>,
}

/// What the cloud answers, and publishes: everybody can compute the own value again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prices {
    /// What was reported.
    pub sums: Sums,
    /// Demand weight of each cell.
    pub weights: Vec<f64>,
    /// Price of each cell in `2^-40` an item; empty where the engine has none.
    pub prices: Vec<i64>,
}

impl Charter {
    /// Reads a charter from its JSON text and checks it.
    ///
    /// # Errors
    /// When it is malformed, or a rule is out of range.
    pub fn from_json(path: &str, text: &str) -> Result<Self, Error> {
        let malformed = |why: String| Error::Malformed { path: path.to_owned(), why };
        let mut charter: Self = serde_json::from_str(text).map_err(|e| malformed(format!("no charter: {e}")))?;
        for group in &mut charter.groups {
            *group = Catalogue::from_json(path, &group.to_json())?;
        }
        let problems = charter.check();
        if problems.is_empty() { Ok(charter) } else { Err(malformed(problems.join("; "))) }
    }

    /// Its JSON text.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("numbers and text") + "\n"
    }

    /// Every problem of the charter.
    pub fn check(&self) -> Vec<String> {
        let mut out = self.policy.value.check();
        out.extend(self.policy.quota.check());
        let mut names: Vec<&str> = self.groups.iter().map(|g| g.group.as_str()).collect();
        names.sort_unstable();
        if names.is_empty() || names.windows(2).any(|w| w[0] == w[1]) {
            out.push("there must be a group, and no two of one name".to_owned());
        }
        if names.iter().any(|n| n.is_empty() || n.len() > 64) {
            out.push("a group's name has 1 to 64 bytes".to_owned());
        }
        out
    }

    /// SHA-256 of the rules.
    pub fn policy_hash(&self) -> [u8; 32] {
        let text = serde_json::to_vec(&self.policy).expect("numbers and text");
        Sha256::new().chain_update(b"sb/policy/v1").chain_update(text).finalize().into()
    }

    /// Prices of a group's cells for an epoch.
    ///
    /// # Errors
    /// When the sums do not fit the group's catalogue.
    pub fn prices(&self, sums: Sums) -> Result<Prices, Error> {
        let known = self.groups.iter().find(|g| g.group == sums.group).map(Catalogue::cells);
        let lengths = [sums.stock.len(), sums.arrived.len(), sums.paid.len()];
        if lengths.iter().any(|&l| Some(l) != known) {
            return Err(Error::Input(format!("sums of group `{}` do not fit its catalogue", sums.group)));
        }
        let weights = demand_weights(&sums.paid, self.policy.demand_prior());
        let prices = match &self.policy.value {
            EngineConfig::Coverage(engine) => engine.prices(&sums.stock, &sums.arrived, &weights),
            EngineConfig::Product(_) => Vec::new(),
        };
        Ok(Prices { sums, weights, prices })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contribute::value::Coverage;
    use proptest::prelude::*;

    proptest! {
        /// An account pays for requests that nobody needs, so that the cells in which it is strong weigh more.
        #[test]
        fn paying_for_demand_never_pays(
            cells in prop::collection::vec((0.0..1.0_f64, 0.0..1.0_f64, 0.01..1.0_f64, 0_u64..1 << 36), 2..8),
            (at, rival) in (0_usize..8, 0.0..10.0_f64),
            paid in 1_000_u64..1 << 34,
            half_life_epochs in 0.5..60.0_f64,
        ) {
            let value = EngineConfig::Coverage(Coverage { half_life_epochs, ..Coverage::default() });
            let policy = Policy { value, ..Policy::default() };
            let (alpha, emission) = (policy.demand_prior(), policy.quota.emission as f64);
            let fades = policy.leak() as f64 / 2.0_f64.powi(32);
            // What the account is paid in an epoch in which `extra` counts as demand: its share of its group, which has a share.
            let pay = |extra: f64| {
                let mut asked: Vec<u64> = cells.iter().map(|c| c.3).collect();
                asked[at % cells.len()] += extra as u64;
                let weights = demand_weights(&asked, alpha);
                let (mut own, mut all, mut worth) = (0.0, 0.0, 0.0);
                for (((mine, others, mass, _), w), &q) in cells.iter().zip(&weights).zip(&asked) {
                    own += w * mine;
                    all += w * (mine + others + 1e-9);
                    worth += (1.0 + q as f64 / alpha as f64) * mass;
                }
                emission * own / all * worth / (worth + rival)
            };
            let (before, mut gain, mut left) = (pay(0.0), 0.0, paid as f64);
            while left > 1.0 {
                gain += pay(left) - before;
                left *= fades;
            }
            prop_assert!(gain <= paid as f64 + 1.0, "{gain} for {paid}");
        }
    }
}
