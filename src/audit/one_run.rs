//! One run with many coins: an audit of releases that stand for groups.

use super::interval::one_run_epsilon;
use super::{Settings, Subject};
use crate::encode::Embeddings;
use crate::protect::Error;
use crate::seed;
use rand::Rng;
use rand_distr::{Distribution, StandardNormal};
use serde::{Deserialize, Serialize};

/// Canaries of a run, and how many of the surest guesses count; both fixed ahead.
const CANARIES: usize = 1000;
const GUESSES: usize = 100;

/// What one run proved.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct OneRun {
    /// Records with a coin each.
    pub canaries: u64,
    /// Guesses made, the surest ones.
    pub guesses: u64,
    /// Guesses that were right.
    pub right: u64,
    /// Epsilon that they prove.
    pub epsilon: f64,
    /// Epsilon that right guesses alone would prove.
    pub ceiling: f64,
}

/// Releases one table in which every record is one of two opposite vectors by a coin of its own, and guesses the coins.
///
/// # Formula
/// Record `i` is `± C v_i`, `v_i` a random direction. The guess is the sign of `y . v_i`, `y` the released row that it stands
/// behind; the largest magnitudes are kept.
///
/// # Source
/// Steinke, Nasr and Jagielski 2023, with two values for a coin instead of inclusion: replace-one.
pub(super) fn audit(subject: &dyn Subject, settings: &Settings) -> Result<OneRun, Error> {
    let members = subject.members().max(1);
    let canaries = CANARIES.div_ceil(members) * members;
    let (d, radius) = (settings.dim, subject.radius(settings.dim).unwrap_or(1.0));
    let mut rng = seed::stream(settings.seed, "audit one run", "canaries");
    let mut directions = Vec::with_capacity(canaries * d);
    let mut coins = Vec::with_capacity(canaries);
    let mut values = Vec::with_capacity(canaries * d);
    for _ in 0..canaries {
        let v: Vec<f64> = (0..d).map(|_| StandardNormal.sample(&mut rng)).collect();
        let length = v.iter().map(|x| x * x).sum::<f64>().sqrt();
        let heads = rng.next_u32() & 1 == 1;
        let side = if heads { radius } else { -radius };
        values.extend(v.iter().map(|x| (side * x / length) as f32));
        directions.extend(v.iter().map(|x| x / length));
        coins.push(heads);
    }
    let clean = Embeddings::new(values, d).map_err(|e| Error::Input(e.to_string()))?;
    let strata = vec![0; canaries];
    let mut noise = seed::stream(settings.seed, "audit one run", "noise");
    let release = subject.release(&clean, &strata, &mut noise)?;
    let mut guesses: Vec<(f64, bool)> = Vec::with_capacity(canaries);
    for (row, behind) in release.vectors.rows().zip(&release.members) {
        for &i in behind {
            let i = i as usize;
            let score: f64 = row.iter().zip(&directions[i * d..(i + 1) * d]).map(|(&y, v)| f64::from(y) * v).sum();
            guesses.push((score.abs(), (score > 0.0) == coins[i]));
        }
    }
    guesses.sort_by(|a, b| b.0.total_cmp(&a.0));
    let right = guesses.iter().take(GUESSES).filter(|g| g.1).count() as u64;
    let (m, r) = (canaries as u64, GUESSES as u64);
    let proves = |right: u64| one_run_epsilon(m, r, right, settings.delta, settings.alpha);
    Ok(OneRun { canaries: m, guesses: r, right, epsilon: proves(right), ceiling: proves(r) })
}
