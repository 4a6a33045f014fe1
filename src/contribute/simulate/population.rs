//! Users: what they contribute, what they can pay, and when they ask.

use super::queue::{Job, User};
use crate::contribute::Error;
use crate::contribute::catalogue::{self, Catalogue};
use crate::contribute::channel::{self, Budget, UNITS};
use crate::contribute::value::{Coverage, Engine, Entry, Group, Prior, Value, even_weights};
use crate::encode::Embeddings;
use crate::seed::Stream;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Exp1, StandardNormal};

/// Time steps in a mean service.
pub const MEAN_SERVICE: f64 = 1e6;
/// Exponent of wealth: one in five owns four fifths.
const PARETO: f64 = 1.16;

/// How long jobs take.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Service {
    /// All the same.
    Fixed,
    /// Exponential.
    Exponential,
    /// Log-normal with this squared coefficient of variation.
    LogNormal(f64),
}

impl Service {
    fn draw(self, rng: &mut impl Rng) -> f64 {
        match self {
            Service::Fixed => 1.0,
            Service::Exponential => Exp1.sample(rng),
            Service::LogNormal(cv2) => {
                let variance = (1.0 + cv2).ln();
                let z: f64 = StandardNormal.sample(rng);
                (variance.sqrt() * z - variance / 2.0).exp()
            }
        }
    }
}

/// Users with given contribution values and wealth that goes with them at `correlation` (a Gaussian copula of ranks).
///
/// Rates of asking are equal on average and vary by a log-normal factor, independent of both.
pub fn users(values: &[f64], correlation: f64, rng: &mut Stream) -> Vec<User> {
    let n = values.len();
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]).then(a.cmp(&b)));
    let mut score = vec![0.0; n];
    for (rank, &i) in order.iter().enumerate() {
        score[i] = crate::protect::special::normal_quantile((rank as f64 + 0.5) / n as f64);
    }
    (0..n)
        .map(|i| {
            let own: f64 = StandardNormal.sample(rng);
            let z = correlation * score[i] + (1.0 - correlation * correlation).max(0.0).sqrt() * own;
            let below = crate::protect::special::log_ndtr(-z);
            let spread: f64 = StandardNormal.sample(rng);
            User { value: values[i].max(0.0), budget: (-below / PARETO).exp(), rate: (0.5 * spread - 0.125).exp() }
        })
        .collect()
}

/// Jobs of all users in order of arrival: Poisson streams, one generator a user, the same for every policy.
///
/// The load of `slots` is `rho`; `patience` is in mean services, infinite for none.
pub fn jobs(
    users: &[User],
    count: usize,
    slots: u32,
    rho: f64,
    service: Service,
    patience: f64,
    rng: &mut Stream,
) -> Vec<Job> {
    let mut key = [0; 32];
    rng.fill_bytes(&mut key);
    let total: f64 = users.iter().map(|u| u.rate).sum();
    let rate = f64::from(slots) * rho / MEAN_SERVICE;
    let horizon = count as f64 / rate;
    let mut out = Vec::with_capacity(count + count / 8);
    for (i, user) in users.iter().enumerate() {
        let mut own = ChaCha8Rng::from_seed(key);
        own.set_stream(i as u64);
        let mean_gap = total / (rate * user.rate);
        let mut at = 0.0;
        loop {
            at += mean_gap * Distribution::<f64>::sample(&Exp1, &mut own);
            if at > horizon {
                break;
            }
            let cost = (service.draw(&mut own) * MEAN_SERVICE).round().max(1.0) as u64;
            let waits: f64 = Exp1.sample(&mut own);
            let leaves = if patience.is_finite() { at + waits * patience * MEAN_SERVICE } else { f64::MAX };
            out.push(Job {
                user: i as u32,
                arrives: at as u64,
                cost,
                leaves: if leaves < 1e18 { leaves as u64 } else { u64::MAX },
                bid: own.random_range(0.5..2.0),
            });
        }
    }
    out.sort_by(|a, b| a.arrives.cmp(&b.arrives).then(a.user.cmp(&b.user)));
    out
}

/// What users would be paid who contribute `rows` between them, under the noise of the valuation channel.
///
/// The first fifth of the rows is public and makes the catalogue; the others are dealt out, a few users giving most.
///
/// # Errors
/// When there are too few rows.
pub fn contributed(
    rows: &Embeddings,
    users: usize,
    centred: bool,
    budget: Budget,
    rng: &mut Stream,
) -> Result<Vec<f64>, Error> {
    let public = rows.len() / 5;
    let cells = (public / 20).clamp(2, 32);
    let plan = catalogue::Plan { group: "simulated".to_owned(), encoder: String::new(), cells, centred };
    let catalogue = Catalogue::fit(&plan, &rows.select(&(0..public).collect::<Vec<_>>()), rng)?;
    let sizes: Vec<f64> = (0..users).map(|_| rng.random_range(f64::EPSILON..1.0_f64).powf(-1.0 / PARETO)).collect();
    let total: f64 = sizes.iter().sum();
    let mut of: Vec<Vec<i64>> = vec![vec![0; cells + 1]; users];
    for row in public..rows.len() {
        let mut at = rng.random_range(0.0..total);
        let owner = sizes.iter().position(|s| {
            at -= s;
            at < 0.0
        });
        let units = channel::spread(&catalogue, rows.row(row), 0.0);
        of[owner.unwrap_or(0)].iter_mut().zip(units).for_each(|(t, u)| *t += u);
    }
    for own in &mut of {
        channel::add_noise(own, budget, rng);
    }
    let weights = even_weights(cells);
    let group = Group { cells: &vec![0; cells], weights: &weights, releases: &[], prior: Prior::TEXT };
    let epoch: Vec<Entry> =
        of.iter().map(|c| Entry { cells: c, budget, items: 0, release: &[], age_epochs: 0 }).collect();
    Ok(Coverage::default().appraise(&group, &epoch).iter().map(Value::worth).collect())
}

/// Share of its noiseless value that a contribution alone keeps, by scale of the noise in items, for several sizes.
pub fn privacy_tax(root: u64) -> Vec<(String, Vec<(f64, f64)>)> {
    const CELLS: usize = 32;
    const TRIALS: usize = 400;
    let weights = even_weights(CELLS);
    let value = |items: i64, budget: Budget, rng: &mut Stream| {
        let mut cells = vec![items * UNITS / CELLS as i64; CELLS + 1];
        channel::add_noise(&mut cells, budget, rng);
        let entry = Entry { cells: &cells, budget, items: 0, release: &[], age_epochs: 0 };
        let group = Group { cells: &[0; CELLS], weights: &weights, releases: &[], prior: Prior::TEXT };
        Coverage::default().appraise(&group, &[entry])[0].worth()
    };
    [50, 200, 1000]
        .into_iter()
        .map(|items| {
            let clean = value(items, Budget { epsilon_milli: 0 }, &mut crate::seed::stream(root, "tax", "clean"));
            let kept = |epsilon_milli: u32| {
                let mut rng = crate::seed::stream(root, "tax", &format!("{items} {epsilon_milli}"));
                let budget = Budget { epsilon_milli };
                let mean = (0..TRIALS).map(|_| value(items, budget, &mut rng)).sum::<f64>() / TRIALS as f64;
                (budget.scale_items(), mean / clean)
            };
            (format!("{items} items"), [8000, 4000, 2000, 1000, 500, 250].into_iter().map(kept).collect())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed;

    #[test]
    fn wealth_follows_contribution_as_far_as_it_is_told_to() {
        let values: Vec<f64> = (0..2000).map(f64::from).collect();
        let share_of_rich_in_top = |correlation: f64| {
            let users = users(&values, correlation, &mut seed::stream(1, "test", "users"));
            let mut order: Vec<usize> = (0..2000).collect();
            order.sort_by(|&a, &b| users[b].budget.total_cmp(&users[a].budget));
            order[..200].iter().filter(|&&i| i >= 1800).count()
        };
        assert_eq!((share_of_rich_in_top(1.0), share_of_rich_in_top(-1.0)), (200, 0));
        // A tenth of a tenth by chance: standard deviation about 4.
        assert!((8..35).contains(&share_of_rich_in_top(0.0)));
        assert!(share_of_rich_in_top(0.5) > 45);
        let users = users(&values, 0.0, &mut seed::stream(1, "test", "users"));
        let mut wealth: Vec<f64> = users.iter().map(|u| u.budget).collect();
        wealth.sort_by(f64::total_cmp);
        let top: f64 = wealth[1600..].iter().sum();
        assert!(top / wealth.iter().sum::<f64>() > 0.6, "the richest fifth owns most");
    }

    #[test]
    fn arrivals_have_their_rate_and_work() {
        let users = users(&[1.0; 50], 0.0, &mut seed::stream(1, "test", "users"));
        let rng = &mut seed::stream(1, "test", "jobs");
        let jobs = jobs(&users, 100_000, 4, 0.8, Service::LogNormal(4.0), f64::INFINITY, rng);
        assert!((jobs.len() as f64 / 100_000.0 - 1.0).abs() < 0.02, "{}", jobs.len());
        let work: f64 = jobs.iter().map(|j| j.cost as f64 / MEAN_SERVICE).sum::<f64>() / jobs.len() as f64;
        // cv 2: standard error 2 / 316.
        assert!((work - 1.0).abs() < 0.03, "{work}");
        assert!(jobs.windows(2).all(|w| w[0].arrives <= w[1].arrives));
    }
}
