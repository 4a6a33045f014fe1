//! Running a study again, and saying of each number whether it came out the same.

use super::record::Row;
use super::{Error, Watch};
use crate::study::Study;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;

/// What became of one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Agreement {
    /// The same bits.
    SameBits,
    /// Another number, as close as was asked.
    WithinTolerance,
    /// Further away than was asked.
    Outside,
    /// Only one of the two runs has it.
    Missing,
}

/// One number of the records, before and again.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Number {
    /// Protection, attack, metric and seed.
    pub what: String,
    /// In the records that were given.
    pub expected: Option<f64>,
    /// In the new run.
    pub found: Option<f64>,
    /// Whether they agree.
    pub agreement: Agreement,
}

/// Runs the study of a run folder again in `out`, and compares every number of the records.
///
/// `tolerance` is absolute for shares and cosines, and relative to the larger of the two numbers for every other unit.
///
/// # Errors
/// A folder that holds no finished run; whatever the run itself can meet.
pub fn reproduce(folder: &Path, out: &Path, tolerance: f64, watch: &dyn Watch) -> Result<Vec<Number>, crate::Error> {
    let read = |name: &str| -> Result<String, Error> {
        let path = folder.join(name);
        std::fs::read_to_string(&path).map_err(|source| Error::Io { path: path.display().to_string(), source })
    };
    let study = Study::parse(&folder.join("plan.toml").display().to_string(), &read("plan.toml")?)?;
    let expected = rows(&folder.join("records.jsonl"), &read("records.jsonl")?)?;
    super::execute(&study, Some(out), watch)?;
    let path = out.join("records.jsonl");
    let text =
        std::fs::read_to_string(&path).map_err(|source| Error::Io { path: path.display().to_string(), source })?;
    Ok(compare(&expected, &rows(&path, &text)?, tolerance))
}

fn rows(path: &Path, text: &str) -> Result<Vec<Row>, Error> {
    let parse = |(i, line)| {
        let why = |e: serde_json::Error| format!("line {}: {e}", i + 1);
        serde_json::from_str(line).map_err(|e| Error::Corrupt { path: path.display().to_string(), why: why(e) })
    };
    text.lines().enumerate().map(parse).collect()
}

/// Every value, bound, floor and blind figure of both.
fn compare(expected: &[Row], found: &[Row], tolerance: f64) -> Vec<Number> {
    type Numbers<'r> = BTreeMap<String, (Option<f64>, &'r str)>;
    fn numbers(rows: &[Row]) -> Numbers<'_> {
        let of = |row: &Row| {
            let what = format!("{} x {}, {}, seed {}", row.protection, row.attack, row.metric, row.seed);
            let parts = [
                ("value", row.value),
                ("low", row.low),
                ("high", row.high),
                ("floor", row.floor),
                ("blind", row.blind),
            ];
            parts.map(|(name, value)| (format!("{what}: {name}"), value))
        };
        rows.iter().flat_map(|row| of(row).into_iter().map(|(what, v)| (what, (v, row.unit.as_str())))).collect()
    }
    let (before, again) = (numbers(expected), numbers(found));
    let mut names: Vec<&String> = before.keys().chain(again.keys()).collect();
    names.sort();
    names.dedup();
    let judge = |what: &String| {
        let (a, b) = (before.get(what), again.get(what));
        let (expected, found) = (a.and_then(|v| v.0), b.and_then(|v| v.0));
        let unit = a.or(b).map_or("", |v| v.1);
        let agreement = match (expected, found) {
            (Some(x), Some(y)) if x.to_bits() == y.to_bits() => Agreement::SameBits,
            (Some(x), Some(y)) => {
                let scale = if matches!(unit, "share" | "cosine") { 1.0 } else { x.abs().max(y.abs()) };
                if (x - y).abs() <= tolerance * scale { Agreement::WithinTolerance } else { Agreement::Outside }
            }
            (None, None) if a.is_some() && b.is_some() => Agreement::SameBits,
            _ => Agreement::Missing,
        };
        Number { what: what.clone(), expected, found, agreement }
    };
    names.into_iter().map(judge).collect()
}
