//! Engine A: volume x novelty x freshness, as the article tells it.

use super::{Engine, Entry, Group, PPM, Value, coverage, freshness_ppm, leak_q32, novelty};
use serde::{Deserialize, Serialize};

/// A product of three factors, each contribution on its own.
///
/// # Formula
/// `v = V Nov F`, `V = min(1, ln(1 + n/n0) / ln(1 + n_ref/n0))`, `Nov` the mean over the released rows of `1 - max cosine`
/// (`naive`) or of the probability that a row is new (`debiased`), `F = 2^(-age/h)`.
///
/// # Range
/// 0 to 1. Concave in `n` for each account, so that splitting an account pays: 1000 items in a hundred accounts are worth
/// four times as much as in one. Kept as the contrast that engine B is judged against.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Product {
    /// Items at which further ones begin to count less.
    pub n0_items: u32,
    /// Items that count as full volume.
    pub full_items: u32,
    /// Epochs after which half of the freshness is left.
    pub half_life_epochs: f64,
    /// How novelty is read.
    pub novelty: Novelty,
}

/// How engine A reads novelty.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Novelty {
    /// `1 - max cosine`, blind to the noise.
    Naive,
    /// Probability of being new, with the detectability gate.
    #[default]
    Debiased,
}

impl Default for Product {
    fn default() -> Self {
        Self { n0_items: 20, full_items: 1000, half_life_epochs: 30.0, novelty: Novelty::Debiased }
    }
}

impl Product {
    pub(super) fn check(&self) -> Vec<String> {
        let mut out = Vec::new();
        if self.n0_items == 0 || self.full_items < self.n0_items {
            let (n0, full) = (self.n0_items, self.full_items);
            out.push(format!("`full_items` must be at least `n0_items`, which is at least 1; got {full} and {n0}"));
        }
        if !(0.1..=100_000.0).contains(&self.half_life_epochs) {
            out.push(format!("`half_life_epochs` must be 0.1 to 100000, got {}", self.half_life_epochs));
        }
        out
    }

    /// The volume factor of `n` items.
    pub fn volume(&self, n: u32) -> f64 {
        let (n0, full) = (f64::from(self.n0_items), f64::from(self.full_items));
        (libm::log1p(f64::from(n) / n0) / libm::log1p(full / n0)).min(1.0)
    }

    fn novelty(&self, group: &Group, entry: &Entry) -> (f64, bool) {
        if entry.release.is_empty() {
            return (1.0 - group.prior.copies, false);
        }
        let found: Vec<(f64, bool)> = entry
            .release
            .iter()
            .map(|row| match self.novelty {
                Novelty::Naive => (novelty::naive(row, group.releases), true),
                Novelty::Debiased => {
                    let n = novelty::novelty(row, group.releases, &group.prior);
                    (n.probability, n.estimable)
                }
            })
            .collect();
        let mean = found.iter().map(|f| f.0).sum::<f64>() / found.len() as f64;
        (mean, found.iter().any(|f| f.1))
    }
}

impl Engine for Product {
    fn appraise(&self, group: &Group, epoch: &[Entry]) -> Vec<Value> {
        let leak = leak_q32(self.half_life_epochs);
        epoch
            .iter()
            .map(|entry| {
                let (novelty, estimable) = self.novelty(group, entry);
                let (volume, fresh) = (self.volume(entry.items), freshness_ppm(leak, entry.age_epochs));
                Value {
                    ticks: coverage::ticks(volume * novelty * fresh as f64 / PPM as f64),
                    volume: coverage::ticks(volume),
                    novelty_ppm: (novelty * PPM as f64).round() as i64,
                    freshness_ppm: fresh,
                    estimable,
                }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contribute::channel::Budget;
    use crate::contribute::value::{Prior, Protected};

    fn entry(items: u32, release: &[Protected], age_epochs: u32) -> Entry<'_> {
        Entry { cells: &[], budget: Budget { epsilon_milli: 0 }, items, release, age_epochs }
    }

    #[test]
    fn the_golden_product() {
        // n = 10, n0 = 20, n_ref = 100, age 10 of h = 30, a row at cosine .5 to what is there.
        let engine = Product { full_items: 100, novelty: Novelty::Naive, ..Product::default() };
        let kept = [Protected::new(&[1.0, 0.0], 0.0)];
        let own = [Protected::new(&[0.5, 0.75_f32.sqrt()], 0.0)];
        let group = Group { cells: &[], weights: &[], releases: &kept, prior: Prior::TEXT };
        let value = engine.appraise(&group, &[entry(10, &own, 10)])[0];
        assert!((engine.volume(10) - 0.226_294_4).abs() < 1e-7);
        assert!((value.freshness_ppm - 793_700).abs() <= 1);
        // Coordinates are rounded to 2^-12, so the cosine is .5 within 2e-4.
        assert!((value.worth() - 0.089_805_0).abs() < 5e-5, "{}", value.worth());
    }

    #[test]
    fn splitting_pays_here() {
        let engine = Product { n0_items: 100, ..Product::default() };
        let gain = 100.0 * engine.volume(10) / engine.volume(1000);
        assert!((gain - 9531.0 / 2398.0).abs() < 1e-3, "{gain}");
    }

    #[test]
    fn without_a_vector_the_prior_is_paid_and_flagged() {
        let engine = Product::default();
        let group = Group { cells: &[], weights: &[], releases: &[], prior: Prior::TEXT };
        let value = engine.appraise(&group, &[entry(1000, &[], 0)])[0];
        assert_eq!((value.novelty_ppm, value.estimable), (700_000, false));
        assert!(value.sentence().contains("the noise hides how new it is"));
    }
}
