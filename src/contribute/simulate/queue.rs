//! The event loop: jobs arrive, wait, are served without interruption, or leave.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, VecDeque};

/// One request for capacity.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Job {
    /// Whose.
    pub user: u32,
    /// When it comes.
    pub arrives: u64,
    /// Slot-time that it takes.
    pub cost: u64,
    /// When it gives up, if it has not begun by then.
    pub leaves: u64,
    /// How much more or less than usual it is worth to its user.
    pub bid: f64,
}

/// One user.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct User {
    /// What the contributions are worth.
    pub value: f64,
    /// What the user can pay in an epoch.
    pub budget: f64,
    /// How often the user asks, relative to others.
    pub rate: f64,
}

/// A rule of access.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// First come, first served.
    Fifo,
    /// Who was served least goes next.
    Equal,
    /// Who was served least for baseline and entitlement goes next; who cannot pay a job from the basket runs on idle
    /// capacity only. A basket pays short jobs sooner than long ones, so that this rule does look at size.
    Contribution,
    /// Who can pay most goes first.
    PayFirst,
    /// Slots are reserved for wealth classes in proportion to what they pay; idle reserves stay idle.
    Reserved,
    /// The highest bid of each moment; bids are paid from a budget that is filled up each epoch.
    Auction,
}

impl Policy {
    /// All of them, the control first.
    pub const ALL: [Self; 6] =
        [Self::Fifo, Self::Equal, Self::Contribution, Self::PayFirst, Self::Reserved, Self::Auction];

    /// Its name in every output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fifo => "fifo",
            Self::Equal => "equal",
            Self::Contribution => "contribution",
            Self::PayFirst => "pay_first",
            Self::Reserved => "reserved",
            Self::Auction => "auction",
        }
    }
}

/// Wealth classes with slots of their own under [`Policy::Reserved`].
const CLASSES: usize = 4;
/// Baseline share of the emission.
const BASELINE: f64 = 0.3;
/// Mean issues that a basket holds.
const BASKET: f64 = 7.0;

/// What happened to the jobs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outcome {
    /// Wait of each job; how long it stayed where it gave up.
    pub waits: Vec<u64>,
    /// Whether it was served.
    pub served: Vec<bool>,
    /// Slot-time idle while somebody waited.
    pub wasted: u128,
    /// Slot-time used.
    pub used: u128,
    /// Waiting jobs, summed over time.
    pub queued: u128,
    /// Credits that no basket had room for, as a share of all issued.
    pub overflowed: f64,
    /// End of the last service.
    pub ended: u64,
}

/// The jobs that wait, in the order that a policy gives them.
enum Line {
    /// One queue.
    Fifo(VecDeque<usize>),
    /// Ordered by what one is ready to pay, then by arrival.
    Bids(BinaryHeap<(u64, Reverse<usize>)>),
    /// A queue and a number of free slots for each class.
    Classes { queues: Vec<VecDeque<usize>>, free: Vec<usize>, class: Vec<usize> },
    /// Virtual counters.
    Fair(Fair),
}

/// Weighted virtual counters, with baskets where there are credits.
///
/// # Source
/// Sheng et al., 2024 (virtual token counter); the counter of a user who comes back is lifted to the least active one.
struct Fair {
    queues: Vec<VecDeque<usize>>,
    counters: Vec<u64>,
    weights: Vec<f64>,
    /// Users with waiting jobs by counter: those who can pay, then the others.
    ready: [BTreeSet<(u64, u32)>; 2],
    place: Vec<Option<usize>>,
    /// Credits by user; `None` where they do not matter.
    baskets: Option<Baskets>,
}

struct Baskets {
    credits: Vec<f64>,
    issue: Vec<f64>,
    overflow: f64,
    issued: f64,
}

impl Fair {
    fn new(users: &[User], by_value: bool, epoch_work: f64) -> Self {
        let n = users.len();
        let total: f64 = users.iter().map(|u| u.value).sum();
        let share = |u: &User| {
            let bonus = if total > 0.0 { (1.0 - BASELINE) * u.value / total } else { 0.0 };
            BASELINE / n as f64 + bonus
        };
        let weights: Vec<f64> = if by_value { users.iter().map(share).collect() } else { vec![1.0 / n as f64; n] };
        let baskets = by_value.then(|| Baskets {
            credits: vec![0.0; n],
            issue: weights.iter().map(|w| w * epoch_work).collect(),
            overflow: 0.0,
            issued: 0.0,
        });
        Self {
            queues: vec![VecDeque::new(); n],
            counters: vec![0; n],
            weights,
            ready: [BTreeSet::new(), BTreeSet::new()],
            place: vec![None; n],
            baskets,
        }
    }

    fn list(&mut self, user: usize, jobs: &[Job]) {
        if let Some(old) = self.place[user].take() {
            self.ready[old].remove(&(self.counters[user], user as u32));
        }
        if let Some(&next) = self.queues[user].front() {
            let can_pay = self.baskets.as_ref().is_none_or(|b| b.credits[user] >= jobs[next].cost as f64);
            let place = usize::from(!can_pay);
            self.ready[place].insert((self.counters[user], user as u32));
            self.place[user] = Some(place);
        }
    }

    fn push(&mut self, job: usize, jobs: &[Job]) {
        let user = jobs[job].user as usize;
        if self.queues[user].is_empty() {
            let least = self.ready.iter().filter_map(|r| r.first()).map(|&(counter, _)| counter).min();
            self.counters[user] = self.counters[user].max(least.unwrap_or(0));
        }
        self.queues[user].push_back(job);
        if self.queues[user].len() == 1 {
            self.list(user, jobs);
        }
    }

    fn pop(&mut self) -> Option<usize> {
        let &(_, user) = self.ready[0].first().or_else(|| self.ready[1].first())?;
        let user = user as usize;
        let job = self.queues[user].pop_front().expect("a listed user waits");
        let place = self.place[user].take().expect("a listed user has a place");
        self.ready[place].remove(&(self.counters[user], user as u32));
        Some(job)
    }

    /// After a job was begun (or had left, at no charge).
    fn charge(&mut self, job: usize, jobs: &[Job], begun: bool) {
        let user = jobs[job].user as usize;
        if begun {
            let n = self.weights.len() as f64;
            self.counters[user] += (jobs[job].cost as f64 / (self.weights[user] * n)).round() as u64;
            if let Some(baskets) = &mut self.baskets {
                let paid = jobs[job].cost as f64;
                if baskets.credits[user] >= paid {
                    baskets.credits[user] -= paid;
                }
            }
        }
        self.list(user, jobs);
    }

    fn refill(&mut self, jobs: &[Job]) {
        let Some(baskets) = &mut self.baskets else { return };
        for (credits, issue) in baskets.credits.iter_mut().zip(&baskets.issue) {
            let room = (BASKET * issue - *credits).max(0.0);
            *credits += issue.min(room);
            baskets.overflow += (issue - room).max(0.0);
            baskets.issued += issue;
        }
        for user in 0..self.queues.len() {
            if self.place[user] == Some(1) {
                self.list(user, jobs);
            }
        }
    }
}

/// Serves `jobs`, sorted by arrival, on `slots` under a policy. `epoch` is the time between issues of credits.
///
/// # Panics
/// When a job names a user that is not there.
pub fn serve(policy: Policy, users: &[User], jobs: &[Job], slots: usize, epoch: u64) -> Outcome {
    let epoch_work = slots as f64 * epoch as f64;
    let mut line = match policy {
        Policy::Fifo => Line::Fifo(VecDeque::new()),
        Policy::Equal => Line::Fair(Fair::new(users, false, epoch_work)),
        Policy::Contribution => Line::Fair(Fair::new(users, true, epoch_work)),
        Policy::PayFirst | Policy::Auction => Line::Bids(BinaryHeap::new()),
        Policy::Reserved => reserved(users, slots),
    };
    let mut purses: Vec<f64> = users.iter().map(|u| u.budget).collect();
    let mut out = Outcome { waits: vec![0; jobs.len()], served: vec![false; jobs.len()], ..Outcome::default() };
    // Ends of services: time, then the class whose slot becomes free.
    let mut busy: BinaryHeap<Reverse<(u64, usize)>> = BinaryHeap::new();
    let (mut now, mut next, mut waiting, mut refill) = (0_u64, 0_usize, 0_u64, 0_u64);
    loop {
        // Total order at one moment: issues, ends of services, arrivals.
        let end = busy.peek().map_or(u64::MAX, |Reverse((t, _))| *t);
        let arrival = jobs.get(next).map_or(u64::MAX, |j| j.arrives);
        let at = end.min(arrival).min(if end.min(arrival) == u64::MAX { u64::MAX } else { refill });
        if at == u64::MAX {
            break;
        }
        let idle = slots - busy.len();
        if waiting > 0 {
            out.wasted += idle as u128 * u128::from(at - now);
            out.queued += u128::from(waiting) * u128::from(at - now);
        }
        now = at;
        if refill <= now {
            refill = refill.saturating_add(epoch);
            match &mut line {
                Line::Fair(fair) => fair.refill(jobs),
                Line::Bids(_) => purses.iter_mut().zip(users).for_each(|(p, u)| *p = u.budget),
                _ => {}
            }
        } else if end <= now {
            let Some(Reverse((_, class))) = busy.pop() else { break };
            if let Line::Classes { free, .. } = &mut line {
                free[class] += 1;
            }
        } else {
            let user = &users[jobs[next].user as usize];
            match &mut line {
                Line::Fifo(queue) => queue.push_back(next),
                Line::Bids(heap) => {
                    let bid = match policy {
                        Policy::PayFirst => user.budget,
                        // A share of what is left in the purse; an empty one bids nothing.
                        _ => 0.1 * purses[jobs[next].user as usize] * jobs[next].bid,
                    };
                    heap.push((bid.to_bits(), Reverse(next)));
                }
                Line::Classes { queues, class, .. } => queues[class[jobs[next].user as usize]].push_back(next),
                Line::Fair(fair) => fair.push(next, jobs),
            }
            next += 1;
            waiting += 1;
        }
        while busy.len() < slots {
            let Some((job, class)) = take(&mut line) else { break };
            waiting -= 1;
            let begun = jobs[job].leaves > now;
            let until = if begun { now } else { jobs[job].leaves };
            out.waits[job] = until - jobs[job].arrives;
            out.served[job] = begun;
            if !begun {
                // It left before: the queue was shorter since then.
                out.queued -= u128::from(now - until);
            }
            match &mut line {
                Line::Fair(fair) => fair.charge(job, jobs, begun),
                Line::Classes { free, .. } if !begun => free[class] += 1,
                Line::Bids(_) if begun && policy == Policy::Auction => {
                    let purse = &mut purses[jobs[job].user as usize];
                    *purse -= (0.1 * *purse * jobs[job].bid).min(*purse);
                }
                _ => {}
            }
            if begun {
                out.used += u128::from(jobs[job].cost);
                busy.push(Reverse((now.saturating_add(jobs[job].cost), class)));
                out.ended = out.ended.max(now.saturating_add(jobs[job].cost));
            }
        }
    }
    if let Line::Fair(Fair { baskets: Some(b), .. }) = &line {
        out.overflowed = if b.issued > 0.0 { b.overflow / b.issued } else { 0.0 };
    }
    out
}

fn reserved(users: &[User], slots: usize) -> Line {
    let mut order: Vec<usize> = (0..users.len()).collect();
    order.sort_by(|&a, &b| users[a].budget.total_cmp(&users[b].budget).then(a.cmp(&b)));
    let mut class = vec![0; users.len()];
    let mut paid = vec![0_u64; CLASSES];
    for (rank, &i) in order.iter().enumerate() {
        class[i] = rank * CLASSES / users.len();
        paid[class[i]] += (users[i].budget * 1e6) as u64;
    }
    // Everybody has one slot at least, or the poorest would wait for ever; the rest goes by payment.
    let spare = slots.saturating_sub(CLASSES) as u64;
    let free: Vec<usize> = crate::contribute::quota::divide::largest_remainder(spare, &paid, &[0; CLASSES])
        .into_iter()
        .map(|extra| extra as usize + 1)
        .collect();
    Line::Classes { queues: vec![VecDeque::new(); CLASSES], free, class }
}

/// The next job and the class whose slot it takes.
fn take(line: &mut Line) -> Option<(usize, usize)> {
    match line {
        Line::Fifo(queue) => queue.pop_front().map(|j| (j, 0)),
        Line::Bids(heap) => heap.pop().map(|(_, Reverse(j))| (j, 0)),
        Line::Classes { queues, free, .. } => {
            let class = (0..queues.len()).find(|&c| free[c] > 0 && !queues[c].is_empty())?;
            free[class] -= 1;
            queues[class].pop_front().map(|j| (j, class))
        }
        Line::Fair(fair) => fair.pop().map(|j| (j, 0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contribute::simulate::oracle;
    use crate::contribute::simulate::population::{MEAN_SERVICE, Service, jobs, users};
    use crate::seed;

    const EPOCH: u64 = 100_000_000;

    fn mean(waits: impl Iterator<Item = u64>) -> f64 {
        let (sum, n) = waits.fold((0.0, 0.0), |(s, n), w| (s + w as f64, n + 1.0));
        sum / n / MEAN_SERVICE
    }

    fn stream(count: usize, slots: u32, rho: f64, service: Service, task: &str) -> (Vec<User>, Vec<Job>) {
        let users = users(&[1.0; 40], 0.0, &mut seed::stream(1, task, "users"));
        let jobs = jobs(&users, count, slots, rho, service, f64::INFINITY, &mut seed::stream(1, task, "jobs"));
        (users, jobs)
    }

    #[test]
    fn waits_agree_with_erlang_and_pollaczek() {
        // 1.5e6 jobs at load .8: the standard error of a mean wait is near 1 %; .7 is calmer.
        let cases = [
            (4, 0.7, Service::Exponential, oracle::mmk_wait(4, 0.7)),
            (1, 0.7, Service::Fixed, oracle::mg1_wait(0.7, 0.0)),
            (1, 0.7, Service::LogNormal(1.0), oracle::mg1_wait(0.7, 1.0)),
        ];
        for (slots, rho, service, want) in cases {
            let (users, jobs) = stream(1_500_000, slots, rho, service, &format!("{service:?} {slots}"));
            let out = serve(Policy::Fifo, &users, &jobs, slots as usize, EPOCH);
            let got = mean(out.waits.iter().copied());
            assert!((got / want - 1.0).abs() < 0.02, "{service:?} on {slots}: {got} against {want}");
            // Little: what is summed over time is what is summed over jobs, exactly.
            assert_eq!(out.queued, out.waits.iter().map(|&w| u128::from(w)).sum::<u128>());
            assert!(out.served.iter().all(|s| *s) && out.wasted == 0);
            assert_eq!(out.used, jobs.iter().map(|j| u128::from(j.cost)).sum::<u128>());
        }
    }

    #[test]
    fn priorities_agree_with_cobham() {
        let (mut users, jobs) = stream(1_500_000, 4, 0.7, Service::Exponential, "cobham");
        // The first users in the list pay; their share of the jobs is what it is.
        users.iter_mut().enumerate().for_each(|(i, u)| u.budget = if i < 12 { 10.0 } else { 1.0 });
        let pays = |j: &Job| j.user < 12;
        let share = jobs.iter().filter(|j| pays(j)).count() as f64 / jobs.len() as f64;
        let out = serve(Policy::PayFirst, &users, &jobs, 4, EPOCH);
        let of = |first: bool| mean(jobs.iter().zip(&out.waits).filter(|(j, _)| pays(j) == first).map(|(_, w)| *w));
        let (first, second) = oracle::priority_waits(4, 0.7, share);
        assert!((of(true) / first - 1.0).abs() < 0.02, "{} against {first}", of(true));
        assert!((of(false) / second - 1.0).abs() < 0.02, "{} against {second}", of(false));
    }

    #[test]
    fn policies_that_keep_slots_busy_share_one_mean_wait() {
        let (users, jobs) = stream(200_000, 4, 0.8, Service::Exponential, "kleinrock");
        let waits: Vec<f64> = [Policy::Fifo, Policy::Equal, Policy::PayFirst]
            .into_iter()
            .map(|p| mean(serve(p, &users, &jobs, 4, EPOCH).waits.into_iter()))
            .collect();
        for wait in &waits {
            assert!((wait / waits[0] - 1.0).abs() < 0.03, "{waits:?}");
        }
        let reserved = serve(Policy::Reserved, &users, &jobs, 4, EPOCH);
        assert!(reserved.wasted > 0 && mean(reserved.waits.into_iter()) > waits[0]);
    }

    #[test]
    fn jobs_are_conserved_and_runs_repeat_to_the_byte() {
        let users = users(&(0..40).map(f64::from).collect::<Vec<_>>(), 0.5, &mut seed::stream(1, "t", "users"));
        let jobs = jobs(&users, 20_000, 8, 1.1, Service::LogNormal(1.0), 20.0, &mut seed::stream(1, "t", "jobs"));
        for policy in Policy::ALL {
            let out = serve(policy, &users, &jobs, 8, EPOCH);
            assert_eq!(out, serve(policy, &users, &jobs, 8, EPOCH), "{}", policy.name());
            let left = out.served.iter().filter(|s| !**s).count();
            assert!(left > 0 && left < jobs.len(), "{}", policy.name());
            for (job, (&wait, &served)) in jobs.iter().zip(out.waits.iter().zip(&out.served)) {
                assert!(if served { job.arrives + wait < job.leaves } else { job.arrives + wait == job.leaves });
            }
            let used: u128 = jobs.iter().zip(&out.served).filter(|(_, s)| **s).map(|(j, _)| u128::from(j.cost)).sum();
            assert_eq!(out.used, used);
        }
    }
}
