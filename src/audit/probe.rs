//! What no count of single releases shows: noise that is used twice, or that is too coarse.

use super::{Settings, Subject};
use crate::encode::Embeddings;
use crate::protect::Error;
use crate::seed;
use serde::{Deserialize, Serialize};

/// Rows, and runs, that are compared. With 255 degrees of freedom a ratio of two equal variances falls below a half once in
/// 50 million.
const TIMES: usize = 256;

/// One probe and what it found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// What was asked.
    pub name: String,
    /// False when the noise failed it.
    pub passed: bool,
    /// What was seen.
    pub seen: String,
}

/// Whether rows of one release, and releases of one row, carry noise of their own.
///
/// # Formula
/// The variance of `TIMES` equal rows in one release against that of one row in `TIMES` releases, summed over coordinates:
/// noise that rows share makes the first small, noise that runs share the second.
pub(super) fn reuse(subject: &dyn Subject, settings: &Settings, record: &[f32]) -> Result<Vec<Probe>, Error> {
    let members = subject.members().max(1);
    let run = |trials: usize, number: usize| -> Result<Embeddings, Error> {
        let values = record.repeat(trials * members);
        let clean = Embeddings::new(values, record.len()).map_err(|e| Error::Input(e.to_string()))?;
        let strata: Vec<u32> = (0..trials as u32).flat_map(|t| std::iter::repeat_n(t, members)).collect();
        let mut rng = seed::stream(settings.seed, "audit probe", &format!("run {number}"));
        Ok(subject.release(&clean, &strata, &mut rng)?.vectors)
    };
    let rows = run(TIMES, 0)?;
    let mut runs = Embeddings::empty(rows.dim());
    for number in 1..=TIMES {
        runs.push(run(1, number)?.row(0));
    }
    let (among_rows, among_runs) = (spread(&rows), spread(&runs));
    let larger = among_rows.max(among_runs);
    let told = |least: f64| {
        format!(
            "variance {among_rows:.3e} among equal rows of one release, {among_runs:.3e} among releases, ratio {least:.3}"
        )
    };
    Ok(vec![
        Probe {
            name: "every row has noise of its own".to_owned(),
            passed: among_rows > 0.5 * larger,
            seen: told(among_rows / larger),
        },
        Probe {
            name: "every release has noise of its own".to_owned(),
            passed: among_runs > 0.5 * larger,
            seen: told(among_runs / larger),
        },
    ])
}

fn spread(rows: &Embeddings) -> f64 {
    let n = rows.len() as f64;
    (0..rows.dim())
        .map(|j| {
            let mean = rows.rows().map(|row| f64::from(row[j])).sum::<f64>() / n;
            rows.rows().map(|row| (f64::from(row[j]) - mean).powi(2)).sum::<f64>() / (n - 1.0)
        })
        .sum()
}

/// Whether continuous noise takes as many values as `f32` has to offer.
///
/// # Formula
/// Pairs of equal bits among the first coordinates of `n` releases of one row, against `n^2 / 2 E[f(y) ulp(y)]`, which rounding
/// to `f32` alone gives; `f` from the distances of the 200 nearest draws. Six Poisson standard deviations and ten pairs more are
/// too many.
pub(super) fn granularity(subject: &dyn Subject, settings: &Settings, record: &[f32]) -> Result<Option<Probe>, Error> {
    const NEAR: usize = 100;
    if !subject.is_continuous() || subject.members() > 1 || settings.trials < 10 * NEAR {
        return Ok(None);
    }
    // Few coordinates do: the draws of one are looked at.
    let n = settings.trials;
    let chunk = ((1 << 21) / record.len()).clamp(1, n);
    let mut draws: Vec<f32> = Vec::with_capacity(n);
    for start in (0..n).step_by(chunk) {
        let rows = chunk.min(n - start);
        let clean = Embeddings::new(record.repeat(rows), record.len()).map_err(|e| Error::Input(e.to_string()))?;
        let strata: Vec<u32> = (0..rows as u32).collect();
        let mut rng = seed::stream(settings.seed, "audit granularity", &format!("draws from {start}"));
        draws.extend(subject.release(&clean, &strata, &mut rng)?.vectors.rows().map(|row| row[0]));
    }
    draws.sort_by(f32::total_cmp);
    let equal: f64 = draws.chunk_by(|a, b| a == b).map(|same| 0.5 * (same.len() * (same.len() - 1)) as f64).sum();
    let count = draws.len() as f64;
    let expected: f64 = (0..draws.len())
        .map(|i| {
            let (low, high) = (i.saturating_sub(NEAR), (i + NEAR).min(draws.len() - 1));
            let width = f64::from(draws[high]) - f64::from(draws[low]);
            let ulp = f64::from(draws[i].abs().next_up()) - f64::from(draws[i].abs());
            let density = (high - low) as f64 / count / width.max(ulp);
            0.5 * count * density * ulp
        })
        .sum();
    let most = expected + 6.0 * expected.sqrt() + 10.0;
    Ok(Some(Probe {
        name: "noise takes as many values as f32 offers".to_owned(),
        passed: equal <= most,
        seen: format!("{equal} equal pairs among {n} draws, {expected:.0} expected from rounding, {most:.0} too many"),
    }))
}
