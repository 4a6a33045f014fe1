//! Per-target scores of one arm (one protection, one attack, every seed), and the statistic that is read from them.

use crate::measure::similarity::leak_statistic;
use crate::measure::statistics::{Table, Tail, Weights};
use crate::measure::{self, Direction};
use crate::run::cell::Outcome;
use crate::run::scores::Scores;

/// A statistic over resampled targets and seeds.
pub(super) type Statistic<'a> = Box<dyn Fn(&Weights) -> Option<f64> + Sync + 'a>;
type Rows = Vec<Vec<Option<f64>>>;

/// How a figure is made of the scores.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    /// The mean of `a`.
    Mean,
    /// `(mean a - mean b) / (1 - mean b)`.
    Leak,
    /// `mean a / mean b`.
    Ratio,
    /// The mean of the worst 5 % of `a`.
    Tail,
}

/// Scores of one arm, a row for each seed.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Series {
    kind: Kind,
    a: Rows,
    b: Rows,
    /// What one score can reach; infinite where nothing is promised.
    pub(super) range: (f64, f64),
}

/// Tables of a series, from which its statistic reads.
pub(super) struct Tables {
    kind: Kind,
    a: Table,
    b: Option<Table>,
    tail: Option<Tail>,
}

impl Series {
    /// The series behind `metric`; `None` where the outcomes hold no scores of single targets for it.
    pub(super) fn of(outcomes: &[&Outcome], metric: &str, unit: &str) -> Option<Self> {
        let of = |scores: fn(&Outcome) -> &Scores, id: &str| -> Option<Rows> {
            outcomes.iter().map(|o| scores(o).get(id).cloned()).collect()
        };
        let test: fn(&Outcome) -> &Scores = |o| &o.test;
        let floor: fn(&Outcome) -> &Scores = |o| &o.floor;
        let two = |kind, a: Option<Rows>, b: Option<Rows>| Some(Self { kind, a: a?, b: b?, range: (-1.0, 1.0) });
        match metric {
            "judge_leak" => two(Kind::Leak, of(test, "judge_cosine"), of(floor, "judge_cosine")),
            "best_member_leak" => two(Kind::Leak, of(test, "best_member_cosine"), of(floor, "best_member_cosine")),
            "recognised" => two(Kind::Ratio, of(test, "object_named"), of(test, "object_named_in_original")),
            "worst_5_percent" | "share_above_0_8" => {
                let singles = single_leaks(&of(test, "judge_cosine")?, &of(floor, "judge_cosine")?)?;
                if metric == "worst_5_percent" {
                    return Some(Self { kind: Kind::Tail, a: singles, b: Vec::new(), range: (-1.0, 1.0) });
                }
                let above = |v: &Option<f64>| v.map(|v| f64::from(u8::from(v > 0.8)));
                let above = singles.iter().map(|row| row.iter().map(above).collect()).collect();
                Some(Self { kind: Kind::Mean, a: above, b: Vec::new(), range: (0.0, 1.0) })
            }
            _ => {
                let a = of(test, metric)?;
                let within = a.iter().flatten().flatten().all(|v| (0.0..=1.0).contains(v));
                let range = match unit {
                    "share" if within => (0.0, 1.0),
                    "share" | "cosine" => (-1.0, 1.0),
                    "points" => (0.0, 100.0),
                    _ => (f64::NEG_INFINITY, f64::INFINITY),
                };
                Some(Self { kind: Kind::Mean, a, b: Vec::new(), range })
            }
        }
    }

    /// A series of plain scores.
    #[cfg(test)]
    pub(super) fn plain(rows: Rows, range: (f64, f64)) -> Self {
        Self { kind: Kind::Mean, a: rows, b: Vec::new(), range }
    }

    /// What a baseline keeps: numbers only.
    pub(super) fn parts(&self) -> (&'static str, &Rows, &Rows) {
        let kind = match self.kind {
            Kind::Mean => "mean",
            Kind::Leak => "leak",
            Kind::Ratio => "ratio",
            Kind::Tail => "tail",
        };
        (kind, &self.a, &self.b)
    }

    /// The series that [`Series::parts`] described.
    pub(super) fn from_parts(kind: &str, a: Rows, b: Rows, range: (f64, f64)) -> Option<Self> {
        let kind = match kind {
            "mean" => Kind::Mean,
            "leak" => Kind::Leak,
            "ratio" => Kind::Ratio,
            "tail" => Kind::Tail,
            _ => return None,
        };
        let shape = |rows: &Rows| rows.iter().map(Vec::len).collect::<Vec<_>>();
        let whole = a.first().is_some_and(|row| a.iter().all(|r| r.len() == row.len()));
        (whole && (b.is_empty() || shape(&a) == shape(&b))).then_some(Self { kind, a, b, range })
    }

    /// The least and the most that the figure can be; infinite where nothing holds it.
    pub(super) fn limits(&self) -> (f64, f64) {
        match self.kind {
            Kind::Mean => self.range,
            // A guess may be further from its original than chance by any factor; nothing is closer than the original.
            Kind::Leak | Kind::Tail => (f64::NEG_INFINITY, 1.0),
            Kind::Ratio => (0.0, f64::INFINITY),
        }
    }

    /// Targets.
    pub(super) fn n(&self) -> usize {
        self.a.first().map_or(0, Vec::len)
    }

    /// Seeds.
    pub(super) fn seeds(&self) -> usize {
        self.a.len()
    }

    /// The first `n` targets: what two arms share.
    pub(super) fn cut(&mut self, n: usize) {
        for row in self.a.iter_mut().chain(&mut self.b) {
            row.truncate(n);
        }
    }

    /// True for hits and misses, whose bounds are exact.
    pub(super) fn counts(&self) -> Option<&Rows> {
        let all = |v: &f64| *v == 0.0 || *v == 1.0;
        (self.kind == Kind::Mean && self.range == (0.0, 1.0) && self.a.iter().flatten().flatten().all(all))
            .then_some(&self.a)
    }

    /// Splits rare large scores off: the series with every score above `event` taken down to the floor, and which those were.
    /// `None` where a score above `event` has no largest value.
    pub(super) fn truncated(&self, event: f64) -> Option<(Self, Rows)> {
        let bounded = self.range.0.is_finite() && self.range.1.is_finite();
        if !(bounded && matches!(self.kind, Kind::Mean | Kind::Leak)) {
            return None;
        }
        let floor = if self.kind == Kind::Leak { mean(&self.b)? } else { 0.0 };
        let room = if self.kind == Kind::Leak { 1.0 - floor } else { self.range.1 };
        let above = |v: f64| v > floor + event * room;
        let marks = |v: &Option<f64>| v.map(|v| f64::from(u8::from(above(v))));
        let events = self.a.iter().map(|row| row.iter().map(marks).collect()).collect();
        let without = |v: &Option<f64>| v.map(|v| if above(v) { floor } else { v });
        let a = self.a.iter().map(|row| row.iter().map(without).collect()).collect();
        Some((Self { a, ..self.clone() }, events))
    }

    /// Standard error of the mean of single scores, each averaged over the seeds.
    pub(super) fn standard_error(&self) -> f64 {
        let pooled = self.pooled();
        let there: Vec<f64> = pooled.a.iter().flatten().copied().flatten().collect();
        let n = there.len() as f64;
        let mean = there.iter().sum::<f64>() / n;
        (there.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n * (n - 1.0)).max(1.0)).sqrt()
    }

    /// What one event can add to the figure at most.
    pub(super) fn headroom(&self) -> f64 {
        if self.kind == Kind::Leak { 1.0 } else { self.range.1 }
    }

    /// Every target's mean over the seeds, as a series of one seed.
    pub(super) fn pooled(&self) -> Self {
        let pool = |rows: &Rows| -> Rows {
            let Some(first) = rows.first() else { return Vec::new() };
            let of = |i: usize| {
                let there: Vec<f64> = rows.iter().filter_map(|row| row[i]).collect();
                (!there.is_empty()).then(|| there.iter().sum::<f64>() / there.len() as f64)
            };
            vec![(0..first.len()).map(of).collect()]
        };
        Self { a: pool(&self.a), b: pool(&self.b), ..self.clone() }
    }

    /// One seed alone.
    pub(super) fn seed(&self, seed: usize) -> Self {
        let one = |rows: &Rows| rows.get(seed).map(|row| vec![row.clone()]).unwrap_or_default();
        Self { a: one(&self.a), b: one(&self.b), ..self.clone() }
    }

    /// The tables that the statistic reads.
    pub(super) fn tables(&self) -> Result<Tables, measure::Error> {
        let a = Table::new(&self.a)?;
        let tail = (self.kind == Kind::Tail).then(|| Tail::new(&a, 0.05, Direction::HigherLeaksMore));
        let b = (!self.b.is_empty()).then(|| Table::new(&self.b)).transpose()?;
        Ok(Tables { kind: self.kind, a, b, tail })
    }
}

impl Tables {
    /// The figure under given weights.
    pub(super) fn statistic(&self) -> Statistic<'_> {
        match (self.kind, &self.b, &self.tail) {
            (Kind::Leak, Some(b), _) => Box::new(leak_statistic(&self.a, b)),
            (Kind::Ratio, Some(b), _) => Box::new(|w| {
                let (a, b) = (self.a.mean(w)?, b.mean(w)?);
                (b > 0.0).then(|| a / b)
            }),
            (Kind::Tail, _, Some(tail)) => Box::new(|w| tail.mean(w)),
            _ => Box::new(|w| self.a.mean(w)),
        }
    }
}

/// Leaks of single targets, each against the mean floor.
fn single_leaks(cosine: &Rows, floor: &Rows) -> Option<Rows> {
    let floor = mean(floor).filter(|f| *f < 1.0)?;
    let single = |c: &Option<f64>| c.map(|c| (c - floor) / (1.0 - floor));
    Some(cosine.iter().map(|row| row.iter().map(single).collect()).collect())
}

fn mean(rows: &Rows) -> Option<f64> {
    let there: Vec<f64> = rows.iter().flatten().copied().flatten().collect();
    (!there.is_empty()).then(|| there.iter().sum::<f64>() / there.len() as f64)
}
