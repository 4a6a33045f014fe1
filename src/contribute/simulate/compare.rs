//! Policies on the same arrivals: waits, starvation, fairness, waste, with paired intervals.

use super::population::{MEAN_SERVICE, Service, jobs, users};
use super::queue::{Job, Outcome, Policy, User, serve};
use crate::seed;
use serde::Serialize;
use statrs::distribution::{ContinuousCDF, StudentsT};

/// Share of the jobs at the start that are not counted.
const WARM_UP: f64 = 0.1;
/// A job that waits longer than this many mean services, or gives up, was starved.
const STARVED: f64 = 20.0;

/// What to simulate.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Values of the users' contributions; one for each.
    pub values: Vec<f64>,
    /// Jobs in each replication.
    pub jobs: usize,
    /// Slots.
    pub slots: u32,
    /// Work offered, as a share of what the slots can do.
    pub rho: f64,
    /// How long jobs take.
    pub service: Service,
    /// Mean patience in mean services; infinite for none.
    pub patience: f64,
    /// Mean services between issues of credits.
    pub epoch: f64,
    /// Correlations of wealth and contribution.
    pub correlations: Vec<f64>,
    /// Replications.
    pub replications: usize,
    /// Names the randomness.
    pub seed: u64,
}

/// One figure under one policy.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Figure {
    /// Mean over replications.
    pub value: f64,
    /// Mean difference to `fifo` on the same arrivals.
    pub difference: f64,
    /// Lower end of its 95 % interval (paired, Student).
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// All figures of one policy at one correlation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// The policy.
    pub policy: Policy,
    /// Correlation of wealth and contribution.
    pub correlation: f64,
    /// Figures in the order of [`FIGURES`].
    pub figures: Vec<Figure>,
    /// Mean wait by contribution decile, lowest first, in mean services.
    pub waits_by_decile: Vec<f64>,
}

/// Names of the figures of a row.
pub const FIGURES: [&str; 13] = [
    "mean_wait",
    "load_weighted_wait",
    "wait_p50",
    "wait_p95",
    "wait_p99",
    "starved",
    "starved_poorest_half",
    "wasted",
    "goodput",
    "jain",
    "gini",
    "top_1_percent",
    "value_service_spearman",
];

/// The result of a simulation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// `stitchback/simulation/v1`.
    pub schema: &'static str,
    /// Names of the figures.
    pub figures: [&'static str; 13],
    /// Replications behind every figure.
    pub replications: usize,
    /// Jobs in each.
    pub jobs: usize,
    /// All policies at all correlations.
    pub rows: Vec<Row>,
}

/// Runs every policy on the same arrivals, over again and again.
pub fn compare(plan: &Plan) -> Comparison {
    let mut rows = Vec::new();
    for &correlation in &plan.correlations {
        let mut runs: Vec<Vec<([f64; 13], Vec<f64>)>> = vec![Vec::new(); Policy::ALL.len()];
        for replication in 0..plan.replications {
            let task = format!("{correlation} {replication}");
            let people = users(&plan.values, correlation, &mut seed::stream(plan.seed, &task, "users"));
            let mut rng = seed::stream(plan.seed, &task, "jobs");
            let jobs = jobs(&people, plan.jobs, plan.slots, plan.rho, plan.service, plan.patience, &mut rng);
            for (i, policy) in Policy::ALL.into_iter().enumerate() {
                let epoch = (plan.epoch * MEAN_SERVICE) as u64;
                let out = serve(policy, &people, &jobs, plan.slots as usize, epoch.max(1));
                runs[i].push(figures(&people, &jobs, &out, plan.slots));
            }
        }
        for (i, policy) in Policy::ALL.into_iter().enumerate() {
            let list = |run: usize, f: usize| -> Vec<f64> { runs[run].iter().map(|r| r.0[f]).collect() };
            let deciles = (0..10).map(|d| average(&runs[i].iter().map(|r| r.1[d]).collect::<Vec<_>>())).collect();
            rows.push(Row {
                policy,
                correlation,
                figures: (0..FIGURES.len()).map(|f| paired(&list(i, f), &list(0, f))).collect(),
                waits_by_decile: deciles,
            });
        }
    }
    Comparison {
        schema: "stitchback/simulation/v1",
        figures: FIGURES,
        replications: plan.replications,
        jobs: plan.jobs,
        rows,
    }
}

fn average(list: &[f64]) -> f64 {
    list.iter().sum::<f64>() / list.len().max(1) as f64
}

/// Mean, and the mean difference to the control with its Student interval.
fn paired(values: &[f64], control: &[f64]) -> Figure {
    let gaps: Vec<f64> = values.iter().zip(control).map(|(v, c)| v - c).collect();
    let (n, mean) = (gaps.len() as f64, average(&gaps));
    let spread = (gaps.iter().map(|g| (g - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0)).sqrt();
    let t = StudentsT::new(0.0, 1.0, (n - 1.0).max(1.0)).map_or(f64::NAN, |t| t.inverse_cdf(0.975));
    let half = t * spread / n.sqrt();
    Figure { value: average(values), difference: mean, low: mean - half, high: mean + half }
}

fn figures(users: &[User], jobs: &[Job], out: &Outcome, slots: u32) -> ([f64; 13], Vec<f64>) {
    let from = (jobs.len() as f64 * WARM_UP) as usize;
    let counted = || (from..jobs.len()).map(|i| (&jobs[i], out.waits[i] as f64 / MEAN_SERVICE, out.served[i]));
    let mut waits: Vec<f64> = counted().map(|c| c.1).collect();
    let mean = average(&waits);
    let load: f64 = counted().map(|c| c.0.cost as f64).sum();
    let weighted = counted().map(|c| c.1 * c.0.cost as f64).sum::<f64>() / load.max(1.0);
    waits.sort_by(f64::total_cmp);
    let quantile = |p: f64| crate::measure::statistics::quantile(&waits, p);
    let starved = |c: &(&Job, f64, bool)| !c.2 || c.1 > STARVED;
    let mut wealth: Vec<f64> = users.iter().map(|u| u.budget).collect();
    wealth.sort_by(f64::total_cmp);
    let middle = wealth[wealth.len() / 2];
    let share = |list: &mut dyn Iterator<Item = (&Job, f64, bool)>| {
        let (hits, n) = list.fold((0.0, 0.0), |(h, n), c| (h + f64::from(u8::from(starved(&c))), n + 1.0));
        if n > 0.0 { hits / n } else { 0.0 }
    };
    let (mut asked, mut got) = (vec![0.0; users.len()], vec![0.0; users.len()]);
    let mut wait_of = vec![(0.0, 0.0); users.len()];
    for (job, wait, served) in counted() {
        let user = job.user as usize;
        asked[user] += job.cost as f64;
        got[user] += if served { job.cost as f64 } else { 0.0 };
        wait_of[user].0 += wait;
        wait_of[user].1 += 1.0;
    }
    // Service as a share of what was asked for: users ask at different rates.
    let ratio: Vec<f64> = asked.iter().zip(&got).filter(|(a, _)| **a > 0.0).map(|(a, g)| g / a).collect();
    let square: f64 = ratio.iter().map(|r| r * r).sum();
    let jain = ratio.iter().sum::<f64>().powi(2) / (ratio.len() as f64 * square).max(f64::MIN_POSITIVE);
    let capacity = f64::from(slots) * out.ended.max(1) as f64;
    let pleasure: Vec<(f64, f64)> =
        users.iter().zip(&wait_of).filter(|(_, w)| w.1 > 0.0).map(|(u, w)| (u.value, -w.0 / w.1)).collect();
    let figures = [
        mean,
        weighted,
        quantile(0.5),
        quantile(0.95),
        quantile(0.99),
        share(&mut counted()),
        share(&mut counted().filter(|c| users[c.0.user as usize].budget <= middle)),
        out.wasted as f64 / capacity,
        out.used as f64 / capacity,
        jain,
        gini(&got),
        top(&got),
        spearman(&pleasure),
    ];
    (figures, deciles(users, &wait_of))
}

/// Gini coefficient: 0 all alike, 1 one has everything.
fn gini(list: &[f64]) -> f64 {
    let mut sorted = list.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len() as f64;
    let total: f64 = sorted.iter().sum();
    if total <= 0.0 {
        return 0.0;
    }
    let weighted: f64 = sorted.iter().enumerate().map(|(i, v)| (i as f64 + 1.0) * v).sum();
    2.0 * weighted / (n * total) - (n + 1.0) / n
}

/// Share of the most served hundredth of the users.
fn top(list: &[f64]) -> f64 {
    let mut sorted = list.to_vec();
    sorted.sort_by(|a, b| b.total_cmp(a));
    let k = sorted.len().div_ceil(100);
    sorted[..k].iter().sum::<f64>() / sorted.iter().sum::<f64>().max(f64::MIN_POSITIVE)
}

fn spearman(pairs: &[(f64, f64)]) -> f64 {
    let ranks = |of: &dyn Fn(&(f64, f64)) -> f64| -> Vec<f64> {
        let mut sorted: Vec<f64> = pairs.iter().map(of).collect();
        sorted.sort_by(f64::total_cmp);
        let rank = |v: f64| (sorted.partition_point(|s| *s < v) + sorted.partition_point(|s| *s <= v)) as f64;
        pairs.iter().map(|p| rank(of(p))).collect()
    };
    let (a, b) = (ranks(&|p| p.0), ranks(&|p| p.1));
    let (ma, mb) = (average(&a), average(&b));
    let sum = |x: &[f64], mx: f64, y: &[f64], my: f64| x.iter().zip(y).map(|(p, q)| (p - mx) * (q - my)).sum::<f64>();
    let spread = sum(&a, ma, &a, ma) * sum(&b, mb, &b, mb);
    if spread > 0.0 { sum(&a, ma, &b, mb) / spread.sqrt() } else { 0.0 }
}

/// Mean wait by contribution decile; users without a job count for nothing.
fn deciles(users: &[User], waits: &[(f64, f64)]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..users.len()).collect();
    order.sort_by(|&a, &b| users[a].value.total_cmp(&users[b].value).then(a.cmp(&b)));
    (0..10)
        .map(|d| {
            let part = &order[d * order.len() / 10..(d + 1) * order.len() / 10];
            let (sum, n) = part.iter().fold((0.0, 0.0), |(s, n), &i| (s + waits[i].0, n + waits[i].1));
            if n > 0.0 { sum / n } else { 0.0 }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_measures_have_their_known_values() {
        assert!((gini(&[1.0, 1.0, 1.0])).abs() < 1e-12);
        assert!((gini(&[0.0, 0.0, 0.0, 1.0]) - 0.75).abs() < 1e-12);
        assert_eq!(top(&[3.0, 1.0]), 0.75);
        assert!((spearman(&[(1.0, 5.0), (2.0, 6.0), (3.0, 9.0)]) - 1.0).abs() < 1e-12);
        let figure = paired(&[2.0, 3.0, 4.0], &[1.0, 2.0, 3.0]);
        assert_eq!((figure.value, figure.difference, figure.low, figure.high), (3.0, 1.0, 1.0, 1.0));
        let ratio = [1.0_f64, 2.0, 3.0];
        let jain = ratio.iter().sum::<f64>().powi(2) / (3.0 * ratio.iter().map(|r| r * r).sum::<f64>());
        assert!((jain - 0.857_143).abs() < 1e-6);
    }

    #[test]
    fn contribution_first_serves_contributors_and_pay_first_the_rich() {
        let plan = Plan {
            values: (0..100).map(|i| f64::from(i * i)).collect(),
            jobs: 6000,
            slots: 8,
            rho: 1.05,
            service: Service::LogNormal(1.0),
            patience: 50.0,
            epoch: 50.0,
            correlations: vec![0.0],
            replications: 6,
            seed: 1,
        };
        let result = compare(&plan);
        let of = |policy: Policy, name: &str| {
            let at = FIGURES.iter().position(|f| *f == name).expect("a figure");
            result.rows.iter().find(|r| r.policy == policy).expect("all policies").figures[at]
        };
        assert!(of(Policy::Contribution, "value_service_spearman").low > 0.2);
        assert!(of(Policy::PayFirst, "starved_poorest_half").low > 0.0);
        assert!(of(Policy::Reserved, "wasted").low > 0.0);
        assert_eq!(of(Policy::Fifo, "wasted").value, 0.0);
        assert_eq!(of(Policy::Contribution, "wasted").value, 0.0, "the scavenger class keeps slots busy");
        let waits = &result.rows.iter().find(|r| r.policy == Policy::Contribution).expect("there").waits_by_decile;
        assert!(waits[9] < waits[0], "{waits:?}");
    }
}
