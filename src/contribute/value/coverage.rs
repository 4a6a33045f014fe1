//! Engine B: cell coverage with Aumann-Shapley prices.

use super::{Engine, Entry, Group, PPM, TICKS, Value, freshness_ppm, items, leak_q32};
use crate::contribute::channel::UNITS;
use serde::{Deserialize, Serialize};

/// `2^40`: prices are whole multiples of its inverse, for each item.
const PRICE: f64 = 1_099_511_627_776.0;

/// Pays every item of a cell the same average price of the epoch.
///
/// # Formula
/// A group is worth `W = sum_c w_c phi(N_c)`, `phi(x) = ln(1 + x/n0)`, and `x/n0` below 0. With `M_c` the mass of the
/// epoch, `P_c = (phi(N_c + M_c) - phi(N_c)) / M_c`, `v_i = sum_c w_c P_c n_ic`. The cell "other" has no price. Volume is
/// `sum_c w_c n_ic / n0`, novelty `v / volume`.
///
/// # Range
/// Values sum to the change of `W`. Splitting an account within an epoch changes no total by a single tick; `v_i` never
/// falls when the own mass rises. Negative values are noise, and are carried.
///
/// # Source
/// Aumann and Shapley, 1974; Sprumont, 2005 (merging and splitting).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Coverage {
    /// Items at which a cell's first item has lost half of its price.
    pub n0_items: u32,
    /// Epochs after which half of a contribution is left.
    pub half_life_epochs: f64,
    /// Standard deviations of noise that a volume must exceed to count as estimable.
    pub gate: u32,
}

impl Default for Coverage {
    fn default() -> Self {
        Self { n0_items: 50, half_life_epochs: 30.0, gate: 3 }
    }
}

impl Coverage {
    pub(super) fn check(&self) -> Vec<String> {
        let mut out = Vec::new();
        if !(1..=1_000_000).contains(&self.n0_items) {
            out.push(format!("`n0_items` must be 1 to 1000000, got {}", self.n0_items));
        }
        if !(0.1..=100_000.0).contains(&self.half_life_epochs) {
            out.push(format!("`half_life_epochs` must be 0.1 to 100000, got {}", self.half_life_epochs));
        }
        if !(1..=10).contains(&self.gate) {
            out.push(format!("`gate` must be 1 to 10, got {}", self.gate));
        }
        out
    }

    /// The price of each cell in `2^-40` an item, its weight included, from the group's mass and the epoch's.
    ///
    /// # Panics
    /// When the lists differ in length.
    pub fn prices(&self, stock: &[i64], epoch: &[i64], weights: &[f64]) -> Vec<i64> {
        assert!(stock.len() == epoch.len() && stock.len() == weights.len(), "one entry for each cell");
        let n0 = f64::from(self.n0_items);
        let price = |((&n, &m), &w): ((&i64, &i64), &f64)| (w * average_slope(n, m, n0) * PRICE).round() as i64;
        stock.iter().zip(epoch).zip(weights).map(price).collect()
    }

    /// What the group is worth.
    pub fn worth(&self, stock: &[i64], weights: &[f64]) -> f64 {
        let n0 = f64::from(self.n0_items);
        stock.iter().zip(weights).map(|(&n, w)| w * phi(items(n), n0)).sum()
    }

    /// One contribution at given prices.
    pub fn value(&self, prices: &[i64], weights: &[f64], entry: &Entry) -> Value {
        let flat: Vec<i64> = weights.iter().map(|w| (w / f64::from(self.n0_items) * PRICE).round() as i64).collect();
        let (ticks, volume) = (pay(prices, entry.cells), pay(&flat, entry.cells));
        let variance: u128 =
            flat.iter().map(|&p| (p as u128).pow(2)).sum::<u128>().saturating_mul(entry.budget.variance_units());
        let clear = volume > 0 && exceeds(volume, self.gate, variance);
        let leak = leak_q32(self.half_life_epochs);
        Value {
            ticks,
            volume,
            novelty_ppm: if volume == 0 {
                0
            } else {
                (i128::from(ticks) * i128::from(PPM) / i128::from(volume)) as i64
            },
            freshness_ppm: freshness_ppm(leak, entry.age_epochs),
            estimable: clear,
        }
    }
}

/// Whether `amount` lies more than `z` standard deviations above 0.
pub(super) fn exceeds(amount: i64, z: u32, variance: u128) -> bool {
    amount > 0 && (amount as u128).pow(2) > u128::from(z * z).saturating_mul(variance)
}

/// Price times mass over all priced cells: ticks, exactly.
///
/// # Panics
/// When the sum leaves the range of ticks (a worth of 2048).
pub fn pay(prices: &[i64], cells: &[i64]) -> i64 {
    let sum: i128 = prices.iter().zip(cells).map(|(&p, &n)| i128::from(p) * i128::from(n)).sum();
    i64::try_from(sum).expect("a value stays far below 2048: masses are capped")
}

fn phi(x: f64, n0: f64) -> f64 {
    if x >= 0.0 { libm::log1p(x / n0) } else { x / n0 }
}

/// `(phi(N + M) - phi(N)) / M` for an item, and the slope where nothing was added.
fn average_slope(stock: i64, epoch: i64, n0: f64) -> f64 {
    let (n, m) = (items(stock), items(epoch));
    if epoch == 0 {
        1.0 / (n0 + n.max(0.0))
    } else if stock >= 0 && stock.saturating_add(epoch) >= 0 {
        libm::log1p(m / (n0 + n)) / m
    } else {
        (phi(items(stock.saturating_add(epoch)), n0) - phi(n, n0)) / m
    }
}

impl Engine for Coverage {
    fn appraise(&self, group: &Group, epoch: &[Entry]) -> Vec<Value> {
        let mut mass = vec![0_i64; group.cells.len()];
        for entry in epoch {
            mass.iter_mut().zip(entry.cells).for_each(|(m, n)| *m += n);
        }
        let prices = self.prices(group.cells, &mass, group.weights);
        epoch.iter().map(|entry| self.value(&prices, group.weights, entry)).collect()
    }
}

/// A value in ticks, rounded.
pub fn ticks(worth: f64) -> i64 {
    (worth * TICKS).round() as i64
}

/// Whole items as units.
pub fn units(items: i64) -> i64 {
    items * UNITS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contribute::channel::{Budget, add_noise};
    use crate::contribute::value::even_weights;
    use crate::seed;
    use proptest::prelude::*;

    fn entry(cells: &[i64]) -> Entry<'_> {
        Entry { cells, budget: Budget { epsilon_milli: 1000 }, items: 0, release: &[], age_epochs: 0 }
    }

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() < 2e-10
    }

    #[test]
    fn one_cell_golden_value_and_its_split() {
        let engine = Coverage::default();
        let prices = engine.prices(&[units(10)], &[units(100)], &[1.0]);
        let whole = pay(&prices, &[units(40)]);
        assert!(near(whole as f64 / TICKS, 0.392_331_701_2), "{}", whole as f64 / TICKS);
        assert_eq!(4 * pay(&prices, &[units(10)]), whole);
    }

    #[test]
    fn two_cells_golden_values() {
        let engine = Coverage::default();
        let weights = [0.75, 0.25];
        let accounts = [[units(40), units(5)], [units(60), 0], [0, units(-2)]];
        let stock = [units(10), 0];
        let epoch = [units(100), units(3)];
        let prices = engine.prices(&stock, &epoch, &weights);
        assert!(near(prices[0] as f64 / PRICE / 0.75, 0.009_808_292_5));
        assert!(near(prices[1] as f64 / PRICE / 0.25, 0.019_422_969_4));
        let values: Vec<Value> = accounts.iter().map(|a| engine.value(&prices, &weights, &entry(a))).collect();
        for (value, want) in values.iter().zip([0.318_527_487_6, 0.441_373_163_9, -0.009_711_484_7]) {
            assert!(near(value.worth(), want), "{} against {want}", value.worth());
        }
        let sum: f64 = values.iter().map(Value::worth).sum();
        let change = engine.worth(&[units(110), units(3)], &weights) - engine.worth(&stock, &weights);
        assert!(near(sum, 0.750_189_166_8) && near(sum, change));
        assert_eq!((values[0].novelty_ppm, values[1].novelty_ppm), (509_643, 490_414));
        let exact = super::super::oracle::shapley(&accounts.map(Vec::from), |n| {
            let total: Vec<i64> = stock.iter().zip(n).map(|(a, b)| a + b).collect();
            engine.worth(&total, &weights)
        });
        for (got, want) in exact.iter().zip([0.323_637_772_1, 0.436_181_553_7, -0.009_630_159_0]) {
            assert!(near(*got, want), "{got} against {want}");
        }
    }

    #[test]
    fn phi_goes_on_in_a_straight_line_below_zero() {
        let price = |n, m| average_slope(units(n), units(m), 50.0);
        assert!((price(-10, -5) - 0.02).abs() < 1e-15);
        assert!((price(-10, 30) - 0.017_882_4).abs() < 5e-8);
        assert_eq!(price(0, 0), 0.02);
    }

    #[test]
    fn supplying_the_same_mass_again_earns_no_more_than_the_leak_opens() {
        // r = .5 at n = n0 = 50: ln 2 at first, then down to .4054651, always under ln(1 / r) in the steady state.
        let engine = Coverage { half_life_epochs: 1.0, ..Coverage::default() };
        let leak = leak_q32(1.0);
        let (mut stock, mut pays) = (0, Vec::new());
        for _ in 0..40 {
            stock = super::super::leaked(stock, leak);
            pays.push(pay(&engine.prices(&[stock], &[units(50)], &[1.0]), &[units(50)]) as f64 / TICKS);
            stock += units(50);
        }
        assert!((pays[0] - std::f64::consts::LN_2).abs() < 1e-6, "{}", pays[0]);
        assert!((pays[39] - 0.405_465_1).abs() < 1e-6, "{}", pays[39]);
        assert!(pays[39] < 2.0_f64.ln());
    }

    /// Mean value of `n` items alone, spread evenly over 32 cells, under noise of scale `b` items.
    fn noisy_value(n: i64, b: f64, trials: usize) -> (f64, f64) {
        let engine = Coverage::default();
        let weights = even_weights(32);
        let budget = Budget::new(2.0 / b).expect("in range");
        let values: Vec<f64> = (0..trials)
            .map(|t| {
                let mut cells = vec![units(n) / 32; 33];
                add_noise(&mut cells, budget, &mut seed::stream(t as u64, "test", &format!("tax {n} {b}")));
                engine.appraise(
                    &Group { cells: &[0; 32], weights: &weights, releases: &[], prior: super::super::Prior::TEXT },
                    &[entry(&cells)],
                )[0]
                .worth()
            })
            .collect();
        let mean = values.iter().sum::<f64>() / trials as f64;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / trials as f64;
        (mean, (variance / trials as f64).sqrt())
    }

    #[test]
    fn pay_is_neutral_to_privacy_and_the_tax_has_its_known_size() {
        let clean = |n: i64| libm::log1p(n as f64 / 32.0 / 50.0);
        for (n, tax) in [(50, [0.989, 0.966, 0.884]), (200, [0.997, 0.987, 0.964]), (1000, [0.999, 0.998, 0.994])] {
            let mut last = f64::INFINITY;
            for (b, want) in [1.0, 2.0, 4.0].into_iter().zip(tax) {
                let (mean, se) = noisy_value(n, b, 3000);
                // The chapter's figures have three digits; four standard errors for ours.
                assert!((mean / clean(n) - want).abs() < 4.0 * se / clean(n) + 0.002, "{n} {b}: {}", mean / clean(n));
                assert!(mean < last + 4.0 * se, "more noise never pays more");
                last = mean;
            }
        }
    }

    #[test]
    fn an_empty_account_accrues_nothing_on_average() {
        for b in [1.0, 2.0, 4.0] {
            let (mean, se) = noisy_value(0, b, 4000);
            assert!(mean <= 3.0 * se, "{b}: {mean} with standard error {se}");
        }
    }

    fn cells() -> impl Strategy<Value = Vec<i64>> {
        prop::collection::vec(-20_000_i64..400_000, 5)
    }

    proptest! {
        #[test]
        fn splitting_an_account_gains_exactly_nothing(
            own in cells(), others in cells(), stock in cells(), k in 2_i64..100,
        ) {
            let engine = Coverage::default();
            let weights = even_weights(4);
            let group = Group { cells: &stock[..4], weights: &weights, releases: &[], prior: super::super::Prior::TEXT };
            let part: Vec<i64> = own.iter().map(|n| n / k).collect();
            let rest: Vec<i64> = own.iter().zip(&part).map(|(n, p)| n - p * (k - 1)).collect();
            let whole = engine.appraise(&group, &[entry(&own), entry(&others)]);
            let mut split = vec![entry(&part); k as usize - 1];
            split.extend([entry(&rest), entry(&others)]);
            let parts = engine.appraise(&group, &split);
            prop_assert_eq!(parts[..k as usize].iter().map(|v| v.ticks).sum::<i64>(), whole[0].ticks);
            prop_assert_eq!(parts[k as usize].ticks, whole[1].ticks);
            // Order is of no matter either.
            let turned = engine.appraise(&group, &[entry(&others), entry(&own)]);
            prop_assert_eq!(turned[1].ticks, whole[0].ticks);
        }

        #[test]
        fn values_sum_to_the_change_of_worth(own in cells(), others in cells(), stock in cells()) {
            let engine = Coverage::default();
            let weights = even_weights(4);
            let group = Group { cells: &stock[..4], weights: &weights, releases: &[], prior: super::super::Prior::TEXT };
            let sum: f64 = engine.appraise(&group, &[entry(&own), entry(&others)]).iter().map(Value::worth).sum();
            let after: Vec<i64> = (0..4).map(|c| stock[c] + own[c] + others[c]).collect();
            let change = engine.worth(&after, &weights) - engine.worth(&stock[..4], &weights);
            // A price is rounded to 2^-41 an item; at most 200 items here.
            prop_assert!((sum - change).abs() < 4.0 * 250.0 / PRICE, "{sum} against {change}");
        }

        #[test]
        fn more_of_ones_own_never_pays_less_and_more_of_others_never_more(
            own in prop::collection::vec(0_i64..400_000, 5), more in 1_i64..90_000, cell in 0_usize..4, stock in cells(),
        ) {
            let engine = Coverage::default();
            let weights = even_weights(4);
            let group = Group { cells: &stock[..4], weights: &weights, releases: &[], prior: super::super::Prior::TEXT };
            let alone = engine.appraise(&group, &[entry(&own)])[0].ticks;
            let mut larger = own.clone();
            larger[cell] += more;
            prop_assert!(engine.appraise(&group, &[entry(&larger)])[0].ticks >= alone - 400_000);
            let mut other = vec![0; 5];
            other[cell] = more;
            // One unit of price rounding on at most 400 000 units.
            prop_assert!(engine.appraise(&group, &[entry(&own), entry(&other)])[0].ticks <= alone + 400_000);
            let volume: f64 = own[..4].iter().map(|&n| items(n)).sum::<f64>() * 0.25 / 50.0;
            prop_assert!((alone as f64 / TICKS) <= volume + 1e-6);
        }
    }
}
