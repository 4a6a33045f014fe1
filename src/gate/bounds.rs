//! One-sided bounds: what the gate decides by, never by points.
//!
//! | the figure | its bound |
//! |---|---|
//! | hits and misses of single records | Clopper-Pearson for each seed, the widest of them |
//! | a mean, a leak, a difference of arms | BCa bootstrap over documents crossed with seeds; with several seeds the wider of it and Student's t on both levels |
//! | with fewer than ten large scores, where one more would outweigh all others | the same without them, plus a Clopper-Pearson bound on how many there may be |
//! | all scores equal | what one unseen document in `n` could hide |
//! | a figure without scores of single records | its recorded interval |

use super::series::Series;
use crate::measure;
use crate::measure::statistics::{
    Bootstrap, Design, Table, Weights, bootstrap, clopper_pearson_lower, clopper_pearson_upper,
};
use crate::seed;
use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, Normal, StudentsT};

/// Fewer documents than this with a large score are never bootstrapped.
const RARE: usize = 10;
/// From this share of the standard error of all other scores on, one more large score would change the figure's law.
const UNSEEN: f64 = 0.75;
/// Below this level the resamples have no tail left to read.
const RESAMPLES: f64 = 2000.0;
/// z of 80 % power.
const POWER: f64 = 0.841_621_233_572_914_3;

/// How a bound was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// `BCa` bootstrap over documents; one seed.
    Bca,
    /// The wider of the crossed bootstrap and Student's t over documents and seeds.
    CrossedAndT,
    /// As above, without rare large scores, which are counted instead.
    RareEvents,
    /// Exact binomial bounds; the widest over seeds.
    ClopperPearson,
    /// All scores are equal.
    NoSpread,
    /// The recorded 95 % interval, read from one side.
    Recorded,
    /// Compared as they stand: two numbers without chance in them.
    Exact,
    /// No bound can be given.
    None,
}

/// A figure and its one-sided bounds at any level.
#[derive(Debug, Clone)]
pub(super) struct Bounds {
    pub(super) value: f64,
    pub(super) method: Method,
    /// Standard error over records and seeds, where the method has one.
    se: Option<f64>,
    n: usize,
    /// What the figure cannot leave, whatever its law says.
    limits: (f64, f64),
    shape: Shape,
}

#[derive(Debug, Clone)]
enum Shape {
    Resampled { crossed: Bootstrap, student: Option<Student>, events: Option<Events> },
    Counts(Vec<(f64, f64)>),
    NoSpread { base: f64, range: (f64, f64), clusters: f64, events: Option<Events> },
    Recorded { low: f64, high: f64 },
    Nothing,
}

/// Student's t with one degree of freedom less than seeds.
#[derive(Debug, Clone, Copy)]
struct Student {
    centre: f64,
    se: f64,
    df: f64,
}

/// Large scores that were counted instead of resampled.
#[derive(Debug, Clone)]
struct Events {
    /// Effective hits and trials of each seed.
    counts: Vec<(f64, f64)>,
    /// What an event adds at least, and at most.
    least: f64,
    most: f64,
}

/// A weighted sum of arms; the large scores of the first one may be rare.
pub(super) struct Sum<'a> {
    pub(super) terms: Vec<(f64, &'a Series)>,
    pub(super) labels: &'a [u32],
    /// From which share of its range a score is large; infinite where the arms are two runs of one attack, whose large
    /// scores are the same records.
    pub(super) event: f64,
    /// Names the resampling stream: gating again gives the same bytes.
    pub(super) key: &'a str,
}

impl Sum<'_> {
    /// The sum on all data; `None` where an arm has no score.
    pub(super) fn value(&self) -> Result<Option<f64>, measure::Error> {
        let first = self.terms[0].1;
        value_of(&self.terms, &Design::clustered(&self.labels[..first.n()], first.seeds()))
    }

    /// The bounds of the sum.
    pub(super) fn bounds(&self) -> Result<Bounds, measure::Error> {
        let first = self.terms[0].1;
        let (n, seeds) = (first.n(), first.seeds());
        let design = Design::clustered(&self.labels[..n], seeds);
        let limits = self.limits();
        let nothing = |value| Bounds { value, method: Method::None, se: None, n, limits, shape: Shape::Nothing };
        let Some(value) = value_of(&self.terms, &design)? else { return Ok(nothing(f64::NAN)) };
        if let ([(1.0, series)], Some(rows)) = (&self.terms[..], first.counts())
            && let Some(counts) = exact_counts(rows, series.range, &self.labels[..n])?
        {
            let shape = Shape::Counts(counts);
            return Ok(Bounds { value, method: Method::ClopperPearson, se: None, n, limits, shape });
        }

        let mut terms = self.terms.clone();
        let cut;
        let mut events = None;
        if let Some((series, marks)) = first.truncated(self.event).filter(|_| self.event.is_finite()) {
            let counts = effective(&marks, &self.labels[..n])?;
            // One unseen event outweighs what the other scores vary by: resampling them would show nothing of it.
            let outweighs = first.headroom() / design.clusters() as f64 > UNSEEN * series.standard_error();
            if outweighs && clusters_with(&marks, &self.labels[..n]) < RARE {
                cut = series;
                terms[0].1 = &cut;
                let most = first.headroom() * terms[0].0;
                events = Some(Events { counts, least: self.event * most, most });
            }
        }
        let mut rng = seed::stream(0, self.key, "gate bounds");
        let tables = terms.iter().map(|(c, s)| Ok((*c, s.tables()?))).collect::<Result<Vec<_>, measure::Error>>()?;
        let parts: Vec<_> = tables.iter().map(|(c, t)| (*c, t.statistic())).collect();
        let sum = |w: &Weights| parts.iter().map(|(c, f)| f(w).map(|v| c * v)).sum::<Option<f64>>();
        let Some(crossed) = bootstrap(&sum, &design, &mut rng) else { return Ok(nothing(value)) };
        if crossed.bound(0.5).is_none() {
            // Resamples agree or hang on a few targets.
            let (base, clusters) = (crossed.value(), design.clusters() as f64);
            let range = match self.terms.len() {
                1 => first.range,
                _ => (base - first.headroom(), base + first.headroom()),
            };
            if range.0.is_finite() && range.1.is_finite() && crossed.spread().is_some() {
                // Arms that agree on every record without an event: what is unseen is counted once.
                let nothing_seen = |e: &Events| e.counts.iter().all(|(hits, _)| *hits == 0.0);
                let events = events.filter(|e| self.terms.len() == 1 || !nothing_seen(e));
                let shape = Shape::NoSpread { base, range, clusters, events };
                return Ok(Bounds { value, method: Method::NoSpread, se: None, n, limits, shape });
            }
            return Ok(nothing(value));
        }
        let student = if seeds > 1 { student(&terms, &self.labels[..n], crossed.value(), &mut rng)? } else { None };
        let method = match (&events, seeds) {
            (Some(_), _) => Method::RareEvents,
            (None, 1) => Method::Bca,
            (None, _) => Method::CrossedAndT,
        };
        let se = student.map(|s| s.se).or_else(|| crossed.spread());
        Ok(Bounds { value, method, se, n, limits, shape: Shape::Resampled { crossed, student, events } })
    }

    /// The least and the most that the sum can be.
    fn limits(&self) -> (f64, f64) {
        self.terms.iter().fold((0.0, 0.0), |(low, high), (c, series)| {
            let (a, b) = series.limits();
            if *c < 0.0 { (low + c * b, high + c * a) } else { (low + c * a, high + c * b) }
        })
    }
}

/// The sum on all data.
fn value_of(terms: &[(f64, &Series)], design: &Design) -> Result<Option<f64>, measure::Error> {
    let mut sum = 0.0;
    for (coefficient, series) in terms {
        match series.tables()?.statistic()(&design.once()) {
            Some(value) => sum += coefficient * value,
            None => return Ok(None),
        }
    }
    Ok(Some(sum))
}

/// `√(se_records² + se_seeds²)` around the value.
fn student(
    terms: &[(f64, &Series)],
    labels: &[u32],
    centre: f64,
    rng: &mut seed::Stream,
) -> Result<Option<Student>, measure::Error> {
    let seeds = terms[0].1.seeds();
    let design = Design::clustered(labels, 1);
    let pooled: Vec<(f64, Series)> = terms.iter().map(|(c, s)| (*c, s.pooled())).collect();
    let tables = pooled.iter().map(|(c, s)| Ok((*c, s.tables()?))).collect::<Result<Vec<_>, measure::Error>>()?;
    let parts: Vec<_> = tables.iter().map(|(c, t)| (*c, t.statistic())).collect();
    let sum = |w: &Weights| parts.iter().map(|(c, f)| f(w).map(|v| c * v)).sum::<Option<f64>>();
    let Some(records) = bootstrap(&sum, &design, rng).and_then(|b| b.spread()) else { return Ok(None) };
    let mut values = Vec::with_capacity(seeds);
    for one in 0..seeds {
        let alone: Vec<(f64, Series)> = terms.iter().map(|(c, s)| (*c, s.seed(one))).collect();
        let alone: Vec<(f64, &Series)> = alone.iter().map(|(c, s)| (*c, s)).collect();
        values.extend(value_of(&alone, &design)?);
    }
    let k = values.len() as f64;
    if values.len() < 2 {
        return Ok(None);
    }
    let mean = values.iter().sum::<f64>() / k;
    let between = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (k - 1.0) / k;
    Ok(Some(Student { centre, se: (records.powi(2) + between).sqrt(), df: k - 1.0 }))
}

/// Hits and trials of each seed; `None` where clusters are larger than a record and enough of them have hits and misses.
fn exact_counts(
    rows: &[Vec<Option<f64>>],
    range: (f64, f64),
    labels: &[u32],
) -> Result<Option<Vec<(f64, f64)>>, measure::Error> {
    debug_assert_eq!(range, (0.0, 1.0), "counts are hits and misses");
    let singles = Design::clustered(labels, 1).clusters() == labels.len();
    let misses: Vec<Vec<Option<f64>>> = rows.iter().map(|r| r.iter().map(|v| v.map(|v| 1.0 - v)).collect()).collect();
    let common = clusters_with(rows, labels).min(clusters_with(&misses, labels)) >= RARE;
    if !singles && common {
        return Ok(None);
    }
    effective(rows, labels).map(Some)
}

/// How many clusters have a hit in any seed.
fn clusters_with(rows: &[Vec<Option<f64>>], labels: &[u32]) -> usize {
    let mut hit: Vec<u32> =
        labels.iter().enumerate().filter(|(i, _)| rows.iter().any(|r| r[*i] == Some(1.0))).map(|(_, l)| *l).collect();
    hit.sort_unstable();
    hit.dedup();
    hit.len()
}

/// One cluster counts as one trial.
fn effective(rows: &[Vec<Option<f64>>], labels: &[u32]) -> Result<Vec<(f64, f64)>, measure::Error> {
    let mut out = Vec::with_capacity(rows.len());
    for row in rows {
        let table = Table::one(row)?;
        let mut there: Vec<u32> = labels.iter().zip(row).filter(|(_, v)| v.is_some()).map(|(l, _)| *l).collect();
        there.sort_unstable();
        there.dedup();
        let scored = table.n() as f64;
        let hits = table.scores().sum::<f64>();
        out.push((if scored > 0.0 { there.len() as f64 * hits / scored } else { 0.0 }, there.len() as f64));
    }
    Ok(out)
}

/// What counted events add to the figure at least.
fn least(events: Option<&Events>, alpha: f64) -> f64 {
    let Some(events) = events else { return 0.0 };
    let share = events.counts.iter().map(|&(k, n)| clopper_pearson_lower(k, n, alpha)).reduce(f64::min);
    events.least * share.unwrap_or(0.0)
}

/// What they add at most.
fn most(events: Option<&Events>, alpha: f64) -> f64 {
    let Some(events) = events else { return 0.0 };
    let share = events.counts.iter().map(|&(k, n)| clopper_pearson_upper(k, n, alpha)).reduce(f64::max);
    events.most * share.unwrap_or(1.0)
}

impl Bounds {
    /// A recorded 95 % interval, read from one side: valid down to 2.5 %.
    pub(super) fn recorded(value: f64, low: f64, high: f64, n: usize) -> Self {
        let limits = (f64::NEG_INFINITY, f64::INFINITY);
        Self { value, method: Method::Recorded, se: None, n, limits, shape: Shape::Recorded { low, high } }
    }

    /// The truth lies above this with probability `1 - alpha`.
    pub(super) fn lower(&self, alpha: f64) -> Option<f64> {
        self.unlimited_lower(alpha).map(|bound| bound.max(self.limits.0))
    }

    /// The truth lies below this with probability `1 - alpha`.
    pub(super) fn upper(&self, alpha: f64) -> Option<f64> {
        self.unlimited_upper(alpha).map(|bound| bound.min(self.limits.1))
    }

    fn unlimited_lower(&self, alpha: f64) -> Option<f64> {
        match &self.shape {
            Shape::Counts(seeds) => seeds.iter().map(|&(k, n)| clopper_pearson_lower(k, n, alpha)).reduce(f64::min),
            Shape::NoSpread { base, range, clusters, events } => {
                let half = if events.is_some() { alpha / 2.0 } else { alpha };
                Some(
                    base - clopper_pearson_upper(0.0, *clusters, half) * (base - range.0)
                        + least(events.as_ref(), half),
                )
            }
            Shape::Recorded { low, .. } => (alpha >= 0.025).then_some(*low),
            Shape::Nothing => None,
            Shape::Resampled { crossed, student, events } => {
                let half = if events.is_some() { alpha / 2.0 } else { alpha };
                let base = Self::resampled(crossed, student.as_ref(), half, -1.0)?;
                Some(base + least(events.as_ref(), half))
            }
        }
    }

    fn unlimited_upper(&self, alpha: f64) -> Option<f64> {
        match &self.shape {
            Shape::Counts(seeds) => seeds.iter().map(|&(k, n)| clopper_pearson_upper(k, n, alpha)).reduce(f64::max),
            Shape::NoSpread { base, range, clusters, events } => {
                let half = if events.is_some() { alpha / 2.0 } else { alpha };
                Some(
                    base + clopper_pearson_upper(0.0, *clusters, half) * (range.1 - base) + most(events.as_ref(), half),
                )
            }
            Shape::Recorded { high, .. } => (alpha >= 0.025).then_some(*high),
            Shape::Nothing => None,
            Shape::Resampled { crossed, student, events } => {
                let half = if events.is_some() { alpha / 2.0 } else { alpha };
                let base = Self::resampled(crossed, student.as_ref(), half, 1.0)?;
                Some(base + most(events.as_ref(), half))
            }
        }
    }

    /// The wider of the two forms; beyond what the resamples can show, the normal tail as well.
    fn resampled(crossed: &Bootstrap, student: Option<&Student>, alpha: f64, side: f64) -> Option<f64> {
        let wider = |a: f64, b: f64| if side > 0.0 { a.max(b) } else { a.min(b) };
        let mut bound = crossed.bound(if side > 0.0 { 1.0 - alpha } else { alpha })?;
        if let Some(s) = student {
            let t = StudentsT::new(0.0, 1.0, s.df).ok()?.inverse_cdf(1.0 - alpha);
            bound = wider(bound, s.centre + side * t * s.se);
        }
        if alpha < 2.0 / RESAMPLES {
            let z = Normal::standard().inverse_cdf(1.0 - alpha);
            bound = wider(bound, crossed.value() + side * z * crossed.spread()?);
        }
        Some(bound)
    }

    /// The smallest level at which the figure is shown to lie above `threshold` (`above`) or below it.
    pub(super) fn p_beyond(&self, threshold: f64, above: bool) -> Option<f64> {
        let shown = |alpha: f64| {
            if above { self.lower(alpha).map(|l| l > threshold) } else { self.upper(alpha).map(|u| u < threshold) }
        };
        if !shown(0.5)? {
            return Some(1.0);
        }
        let (mut small, mut large) = (1e-9_f64.ln(), 0.5_f64.ln());
        for _ in 0..40 {
            let middle = f64::midpoint(small, large);
            if shown(middle.exp()).unwrap_or(false) { large = middle } else { small = middle }
        }
        Some(large.exp())
    }

    /// How many targets would settle it at 80 % power, if the value stays; `None` when it lies on the wrong side already.
    ///
    /// # Formula
    /// A mean: `((z + 0.842) sd / (t - m))²`. A rate: `((z √(t(1-t)) + 0.842 √(p(1-p))) / (t - p))²`.
    pub(super) fn n_needed(&self, threshold: f64, at_most: bool, alpha: f64) -> Option<usize> {
        let room = if at_most { threshold - self.value } else { self.value - threshold };
        if room <= 0.0 {
            return None;
        }
        let z = Normal::standard().inverse_cdf(1.0 - alpha);
        let n = match (&self.shape, self.se) {
            (Shape::Counts(_), _) => {
                let spread = |p: f64| (p * (1.0 - p)).max(0.0).sqrt();
                ((z * spread(threshold) + POWER * spread(self.value)) / room).powi(2)
            }
            (_, Some(se)) => self.n as f64 * ((z + POWER) * se / room).powi(2),
            _ => return None,
        };
        n.is_finite().then(|| (n.ceil() as usize).max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_seeds_bound_nothing_beyond_what_a_figure_can_be() {
        // Two seeds that disagree: Student's t has one degree of freedom and reaches far beyond 1.
        let rows = |level: f64| (0..40).map(|i| Some((level + 0.01 * f64::from(i % 5)).min(1.0))).collect::<Vec<_>>();
        let share = Series::plain(vec![rows(0.55), rows(0.9)], (0.0, 1.0));
        let labels: Vec<u32> = (0..40).collect();
        let bounds =
            |terms| Sum { terms, labels: &labels, event: f64::INFINITY, key: "limits" }.bounds().expect("scores");
        let alone = bounds(vec![(1.0, &share)]);
        assert!(alone.unlimited_upper(0.01).expect("a bound") > 1.5, "{alone:?}");
        assert_eq!((alone.lower(0.01), alone.upper(0.01)), (Some(0.0), Some(1.0)));
        let other = Series::plain(vec![rows(0.1), rows(0.1)], (0.0, 1.0));
        let apart = bounds(vec![(1.0, &share), (-1.0, &other)]);
        assert_eq!((apart.lower(0.001), apart.upper(0.001)), (Some(-1.0), Some(1.0)));
        // Inside its limits a bound is what it was.
        assert_eq!(alone.upper(0.4), alone.unlimited_upper(0.4));
        let points = Series::plain(vec![rows(0.55), rows(0.9)], (f64::NEG_INFINITY, f64::INFINITY));
        let free = bounds(vec![(1.0, &points)]);
        assert_eq!(free.upper(0.01), free.unlimited_upper(0.01));
    }
}
