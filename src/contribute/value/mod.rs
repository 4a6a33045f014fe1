//! Value engines: what the contributions of one epoch are worth to their group, and why.
//!
//! | engine | formula | when |
//! |---|---|---|
//! | [`Coverage`] (B) | a cell's worth is concave in its mass; each contribution is paid the average price of the epoch | pay: it reads only the noisy histogram, splitting gains nothing |
//! | [`Product`] (A) | volume x novelty x freshness, each of its own | comparison: it shows what noise and splitting do to the plain reading |
//!
//! A value is compared only with values of its own group: no engine sees two groups at once.
//!
//! To add an engine: a file with its parameters and its [`Engine`], a variant of [`EngineConfig`] with its arms, an
//! example in [`EngineConfig::examples`], a golden test.

pub mod coverage;
pub mod novelty;
pub mod oracle;
pub mod product;
pub mod stock;

pub use coverage::Coverage;
pub use novelty::{Prior, Protected};
pub use product::Product;
pub use stock::Stock;

use super::channel::{Budget, UNITS};
use serde::{Deserialize, Serialize};

/// Ticks in a value of 1: `2^52`, so that a price of `2^-40` an item times units of `2^-12` is a whole number of ticks.
pub const TICKS: f64 = 4_503_599_627_370_496.0;
/// Millionths in 1: the unit of shares in receipts.
pub const PPM: i64 = 1_000_000;

/// What a contribution is worth, with its reasons; integers only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Value {
    /// The value in ticks of `2^-52`; negative where noise outweighs what was given.
    pub ticks: i64,
    /// What the same mass would be worth on empty ground, in ticks (engine A: in ticks of its own volume factor).
    pub volume: i64,
    /// Value over volume, in millionths.
    pub novelty_ppm: i64,
    /// What age leaves of it, in millionths.
    pub freshness_ppm: i64,
    /// False where the noise hides what is being valued.
    pub estimable: bool,
}

impl Value {
    /// The value as a number.
    pub fn worth(&self) -> f64 {
        self.ticks as f64 / TICKS
    }

    /// One sentence that explains it.
    pub fn sentence(&self) -> String {
        let share = |ppm: i64| ppm as f64 / PPM as f64;
        let novelty = share(self.novelty_ppm);
        let ground = match novelty {
            _ if !self.estimable => "the noise hides how new it is",
            n if n >= 0.8 => "hardly anything like it was there",
            n if n >= 0.4 => "part of its ground was covered",
            _ => "most of its ground was covered",
        };
        format!(
            "worth {:.6} = volume {:.6} x novelty {novelty:.2} ({ground}) x freshness {:.2}",
            self.worth(),
            self.volume as f64 / TICKS,
            share(self.freshness_ppm)
        )
    }
}

/// One contribution of an epoch, as an engine sees it.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// Units by cell, the last one "other"; signed, because of the noise.
    pub cells: &'a [i64],
    /// The noise under `cells`.
    pub budget: Budget,
    /// How many items its owner says there are.
    pub items: u32,
    /// Protected vectors that go with it; may be empty.
    pub release: &'a [Protected],
    /// Epochs since the content was first seen.
    pub age_epochs: u32,
}

/// A group before the epoch: what it already holds.
#[derive(Debug, Clone, Copy)]
pub struct Group<'a> {
    /// Units by cell, without "other".
    pub cells: &'a [i64],
    /// Demand weight of each cell; they sum to 1.
    pub weights: &'a [f64],
    /// Protected vectors that are kept for comparison.
    pub releases: &'a [Protected],
    /// What similarities look like in this group.
    pub prior: Prior,
}

/// Values all contributions of an epoch in one group at once.
pub trait Engine: std::fmt::Debug + Send + Sync {
    /// One value for each entry, in order.
    fn appraise(&self, group: &Group, epoch: &[Entry]) -> Vec<Value>;
}

/// The registry: every engine with its parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "engine", rename_all = "snake_case", deny_unknown_fields)]
pub enum EngineConfig {
    /// Cell coverage with Aumann-Shapley prices.
    Coverage(Coverage),
    /// Volume x novelty x freshness.
    Product(Product),
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self::Coverage(Coverage::default())
    }
}

impl EngineConfig {
    /// One valid configuration of each.
    pub fn examples() -> Vec<Self> {
        vec![
            Self::Coverage(Coverage::default()),
            Self::Product(Product::default()),
            Self::Product(Product { novelty: product::Novelty::Naive, ..Product::default() }),
        ]
    }

    /// Its name in every output.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Coverage(_) => "coverage",
            Self::Product(_) => "product",
        }
    }

    /// Every problem of its parameters.
    pub fn check(&self) -> Vec<String> {
        match self {
            Self::Coverage(coverage) => coverage.check(),
            Self::Product(product) => product.check(),
        }
    }

    /// The engine.
    pub fn build(&self) -> Box<dyn Engine> {
        match self {
            Self::Coverage(coverage) => Box::new(coverage.clone()),
            Self::Product(product) => Box::new(product.clone()),
        }
    }
}

/// The same weight for each of `k` cells.
pub fn even_weights(k: usize) -> Vec<f64> {
    vec![1.0 / k as f64; k]
}

/// Demand weights of cells from what was paid for served requests about them, in micro-credits.
///
/// # Formula
/// `w_c = (q_c + alpha) / (sum q + alpha K)`.
pub fn demand_weights(paid: &[u64], alpha: u64) -> Vec<f64> {
    let total: f64 = paid.iter().map(|&q| q as f64).sum::<f64>() + alpha as f64 * paid.len() as f64;
    paid.iter().map(|&q| (q as f64 + alpha as f64) / total).collect()
}

/// What an epoch leaves of a value: `round(2^32 2^(-1/h))` of `2^32`, for a half-life of `h` epochs.
pub fn leak_q32(half_life_epochs: f64) -> u64 {
    (libm::exp2(-1.0 / half_life_epochs) * 4_294_967_296.0).round() as u64
}

/// `amount` after one epoch, rounded down.
pub fn leaked(amount: i64, leak: u64) -> i64 {
    ((i128::from(amount) * i128::from(leak)) >> 32) as i64
}

/// What `epochs` of age leave of 1, in millionths.
pub fn freshness_ppm(leak: u64, epochs: u32) -> i64 {
    let left = (0..epochs.min(100_000)).try_fold(1_u64 << 32, |left, _| {
        let next = ((u128::from(left) * u128::from(leak)) >> 32) as u64;
        (next > 0).then_some(next)
    });
    ((u128::from(left.unwrap_or(0)) * PPM as u128) >> 32) as i64
}

/// Items as a number.
pub fn items(units: i64) -> f64 {
    units as f64 / UNITS as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed;
    use proptest::prelude::*;
    use rand::RngExt;

    fn entry(cells: &[i64], items: u32) -> Entry<'_> {
        Entry { cells, budget: Budget { epsilon_milli: 1000 }, items, release: &[], age_epochs: 0 }
    }

    #[test]
    fn every_engine_keeps_its_contract() {
        let weights = even_weights(4);
        let group = Group { cells: &[0, 4096, 8192, 409_600], weights: &weights, releases: &[], prior: Prior::TEXT };
        for config in EngineConfig::examples() {
            assert_eq!(config.check(), Vec::<String>::new());
            let text = toml::to_string(&config).expect("parameters are plain");
            assert_eq!(toml::from_str::<EngineConfig>(&text).expect("its own text"), config);
            let engine = config.build();
            let cells = [vec![40_960, 0, 0, 0, 0], vec![0, 0, 0, 40_960, 0]];
            let epoch: Vec<Entry> = cells.iter().map(|c| entry(c, 10)).collect();
            let values = engine.appraise(&group, &epoch);
            assert_eq!(values, engine.appraise(&group, &epoch));
            assert_eq!(values.len(), 2);
            assert!(values[0].ticks >= values[1].ticks, "{}: empty ground pays no less", config.name());
            assert!(values[0].sentence().starts_with("worth 0."), "{}", values[0].sentence());
            assert!(values.iter().all(|v| v.freshness_ppm == PPM));
        }
    }

    #[test]
    fn age_halves_what_is_left_after_its_half_life() {
        let leak = leak_q32(30.0);
        assert!((leak as f64 / 4_294_967_296.0 - 0.97716).abs() < 1e-5);
        assert!((freshness_ppm(leak, 30) - 500_000).abs() <= 1);
        assert_eq!((freshness_ppm(leak, 0), freshness_ppm(leak, 100_000)), (PPM, 0));
        assert_eq!((leaked(-1, leak), leaked(0, leak)), (-1, 0));
    }

    proptest! {
        #[test]
        fn freshness_never_rises_with_age(h in 0.5_f64..200.0, age in 0_u32..300) {
            let leak = leak_q32(h);
            prop_assert!(freshness_ppm(leak, age + 1) <= freshness_ppm(leak, age));
        }

        #[test]
        fn a_group_knows_nothing_of_another(root in 0_u64..500) {
            // Values of group g are a function of g alone; whatever happens to h between two runs changes no byte.
            let mut rng = seed::stream(root, "test", "groups");
            let weights = even_weights(3);
            let stock: Vec<i64> = (0..3).map(|_| rng.random_range(-9000..90_000)).collect();
            let own: Vec<Vec<i64>> = (0..4).map(|_| (0..4).map(|_| rng.random_range(-9000..90_000)).collect()).collect();
            let epoch: Vec<Entry> = own.iter().map(|c| entry(c, 10)).collect();
            let engine = EngineConfig::default().build();
            let group = Group { cells: &stock, weights: &weights, releases: &[], prior: Prior::TEXT };
            let before = engine.appraise(&group, &epoch);
            let other = vec![rng.random_range(0..90_000); 3];
            let elsewhere = Group { cells: &other, weights: &weights, releases: &[], prior: Prior::TEXT };
            engine.appraise(&elsewhere, &epoch[..2]);
            prop_assert_eq!(before, engine.appraise(&group, &epoch));
        }
    }
}
