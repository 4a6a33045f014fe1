//! Two runs beside each other: how much more of the same records one of them gives away.

use super::bounds::Sum;
use super::run::{Run, file};
use super::series::Series;
use super::{Error, Method};
use crate::run::record::Interval;
use serde::Serialize;
use std::path::Path;

/// A figure in two runs, and the difference on the records that both scored.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// The protection, by name in both runs.
    pub protection: String,
    /// Its pipelines.
    pub pipelines: (String, String),
    /// The attack, by name in both runs.
    pub attack: String,
    /// The metric.
    pub metric: String,
    /// Its unit.
    pub unit: String,
    /// In the first run.
    pub first: f64,
    /// In the second run.
    pub second: f64,
    /// Second less first, with its two-sided 95 % interval; `None` where there is none.
    pub difference: Option<Interval>,
    /// How the interval was made.
    pub method: Method,
    /// Records that both scored.
    pub n: usize,
}

/// Paired differences of everything that both runs scored target by target, or of one metric.
///
/// # Errors
/// A run folder that cannot be read, or runs on other records: their scores have no pairs.
pub fn compare(first: &Path, second: &Path, metric: Option<&str>) -> Result<Vec<Difference>, Error> {
    let (a, b) = (Run::load(first, &[])?, Run::load(second, &[])?);
    if a.evidence.data != b.evidence.data {
        return Err(file(
            second,
            &format!("was not run on the records of `{}`: nothing can be paired", first.display()),
        ));
    }
    let mut out: Vec<Difference> = Vec::new();
    for row in &a.rows {
        let seen = |d: &Difference| d.protection == row.protection && d.attack == row.attack && d.metric == row.metric;
        let asked = metric.is_none_or(|metric| metric == row.metric);
        if !asked || row.metric.contains("_minus_") || out.iter().any(seen) {
            continue;
        }
        let other = b.rows_of(&row.protection, &row.attack, &row.metric);
        let Some(other) = other.first().filter(|o| o.version == row.version) else { continue };
        let (one, two) = (a.arm(&row.protection, &row.attack), b.arm(&row.protection, &row.attack));
        let series =
            (Series::of(&one.outcomes, &row.metric, &row.unit), Series::of(&two.outcomes, &row.metric, &row.unit));
        let (Some(mut x), Some(mut y)) = series else { continue };
        if one.missing || two.missing || x.seeds() != y.seeds() {
            continue;
        }
        let n = x.n().min(y.n()).min(a.evidence.clusters.len());
        x.cut(n);
        y.cut(n);
        let key = format!("compare {} {} {}", row.cell, other.cell, row.metric);
        let sum = |terms| Sum { terms, labels: &a.evidence.clusters, event: f64::INFINITY, key: &key };
        let (Some(first), Some(second)) = (sum(vec![(1.0, &x)]).value()?, sum(vec![(1.0, &y)]).value()?) else {
            continue;
        };
        let bounds = sum(vec![(1.0, &y), (-1.0, &x)]).bounds()?;
        let ends = bounds.lower(0.025).zip(bounds.upper(0.025));
        out.push(Difference {
            protection: row.protection.clone(),
            pipelines: (row.pipeline.clone(), other.pipeline.clone()),
            attack: row.attack.clone(),
            metric: row.metric.clone(),
            unit: row.unit.clone(),
            first,
            second,
            difference: ends.map(|(low, high)| Interval { value: bounds.value, low, high }),
            method: bounds.method,
            n,
        });
    }
    Ok(out)
}
