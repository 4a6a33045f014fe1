//! Two worlds that differ in one record, released many times: can they be told apart better than was claimed?

use super::interval::Counts;
use super::{Settings, Subject};
use crate::attack::linear::{Cholesky, add_to_diagonal};
use crate::encode::Embeddings;
use crate::protect::Error;
use crate::seed;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Values of one release call; more trials are split into several.
const CHUNK: usize = 1 << 21;
/// How far outside the bound raw records lie: a clip that does not clip shows.
const OUTSIDE: f64 = 3.0;

/// Two raw records, `2 sin(half_angle)` radii apart once they are bounded.
#[derive(Debug, Clone)]
pub(super) struct Pair {
    pub(super) half_angle: f64,
    records: [Vec<f32>; 2],
    /// What the other members of a prototype are.
    other: Vec<f32>,
}

impl Pair {
    /// `C (e cos a ± f sin a)`, three times as long; `e`, `f` orthogonal and dense, so that no coordinate is special.
    pub(super) fn new(dim: usize, radius: f64, half_angle: f64) -> Self {
        let sign = |i: usize| if i.wrapping_mul(2_654_435_761) >> 7 & 1 == 0 { 1.0 } else { -1.0 };
        let mut f: Vec<f64> = (0..dim).map(sign).collect();
        let mut e: Vec<f64> = (0..dim).map(|i| sign(i) * if i % 2 == 0 { 1.0 } else { -1.0 }).collect();
        let norm = |v: &[f64]| v.iter().map(|x| x * x).sum::<f64>().sqrt();
        let length = norm(&f);
        for v in &mut f {
            *v /= length;
        }
        let along: f64 = e.iter().zip(&f).map(|(a, b)| a * b).sum();
        e.iter_mut().zip(&f).for_each(|(v, f)| *v -= along * f);
        // On a line there is no second direction.
        let length = norm(&e).max(1e-9);
        for v in &mut e {
            *v /= length;
        }
        let (sin, cos) = half_angle.sin_cos();
        let cos = if half_angle >= std::f64::consts::FRAC_PI_2 { 0.0 } else { cos };
        let at = |side: f64| -> Vec<f32> {
            e.iter().zip(&f).map(|(e, f)| (OUTSIDE * radius * (cos * e + side * sin * f)) as f32).collect()
        };
        let other = e.iter().map(|e| (0.5 * radius * e) as f32).collect();
        Self { half_angle, records: [at(1.0), at(-1.0)], other }
    }

    /// Trials `n` of world `w`, as raw records with a stratum for each trial.
    fn raw(&self, world: usize, n: usize, members: usize) -> Result<(Embeddings, Vec<u32>), Error> {
        let dim = self.other.len();
        let mut values = Vec::with_capacity(n * members * dim);
        for _ in 0..n {
            values.extend_from_slice(&self.records[world]);
            (1..members).for_each(|_| values.extend_from_slice(&self.other));
        }
        let strata = (0..n as u32).flat_map(|trial| std::iter::repeat_n(trial, members)).collect();
        let table = Embeddings::new(values, dim).map_err(|e| Error::Input(e.to_string()))?;
        Ok((table, strata))
    }
}

/// Numbers that rank releases by how much they look like the first world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Score {
    /// `y . (a0 - a1)`, `a` the releases without noise.
    Product,
    /// `|y - a1| - |y - a0|`.
    Distance,
    /// `angle(y, a1) - angle(y, a0)`.
    Angle,
    /// `y . w`, `w` learned from rehearsals: the difference of means over the variance.
    Learned,
    /// The log odds of a [`Classifier`] trained on rehearsals: it also sees lengths.
    Classifier,
}

const SCORES: [Score; 5] = [Score::Product, Score::Distance, Score::Angle, Score::Learned, Score::Classifier];

/// What scores refer to.
struct Anchors {
    at: [Vec<f64>; 2],
    learned: Vec<f64>,
    classifier: Classifier,
}

impl Anchors {
    fn scores(&self, y: &[f32]) -> [f64; 5] {
        let [product, distance, angle, learned, length] = self.features(y);
        [product, distance, angle, learned, self.classifier.odds(&[product, distance, angle, learned, length])]
    }

    /// The scores that need no training of their own, and the length.
    fn features(&self, y: &[f32]) -> [f64; FEATURES] {
        let [a, b] = &self.at;
        let (mut to, mut product, mut learned, mut norm) = ([0.0; 2], [0.0; 2], 0.0, 0.0);
        let mut lengths = [0.0; 2];
        for (i, &v) in y.iter().enumerate() {
            let v = f64::from(v);
            for (w, anchor) in [a, b].into_iter().enumerate() {
                to[w] += (v - anchor[i]) * (v - anchor[i]);
                product[w] += v * anchor[i];
                lengths[w] += anchor[i] * anchor[i];
            }
            learned += v * self.learned[i];
            norm += v * v;
        }
        let cosine = |w: usize| product[w] / (norm * lengths[w]).sqrt().max(1e-300);
        let angle = |w: usize| cosine(w).clamp(-1.0, 1.0).acos();
        [product[0] - product[1], to[1].sqrt() - to[0].sqrt(), angle(1) - angle(0), learned, norm.sqrt()]
    }
}

/// Features of a release that a classifier reads.
const FEATURES: usize = 5;
/// A constant, the features, their squares.
const TERMS: usize = 1 + 2 * FEATURES;

/// Logistic regression on the features of a release and their squares: what the other scores have no word for, such as noise whose
/// strength depends on the record.
///
/// # Formula
/// `ln p / (1 - p) = w . (1, f, f^2)`, `f` standardised; Newton's method with a small ridge.
#[derive(Debug, Default)]
struct Classifier {
    mean: [f64; FEATURES],
    scale: [f64; FEATURES],
    weights: [f64; TERMS],
}

impl Classifier {
    fn fit(first: &[[f64; FEATURES]], second: &[[f64; FEATURES]]) -> Self {
        /// Newton's method from 0 is there by then; the ridge keeps weights finite where the worlds are told apart every time.
        const STEPS: usize = 12;
        const RIDGE: f64 = 1e-3;
        let n = (first.len() + second.len()) as f64;
        let all = || first.iter().chain(second);
        let mut out = Self::default();
        for f in 0..FEATURES {
            out.mean[f] = all().map(|x| x[f]).sum::<f64>() / n;
            let variance = all().map(|x| (x[f] - out.mean[f]).powi(2)).sum::<f64>() / n;
            out.scale[f] = variance.sqrt().max(1e-12);
        }
        let rows: Vec<([f64; TERMS], f64)> =
            first.iter().map(|x| (out.terms(x), 1.0)).chain(second.iter().map(|x| (out.terms(x), 0.0))).collect();
        for _ in 0..STEPS {
            let (mut slope, mut curve) = ([0.0; TERMS], vec![0.0; TERMS * TERMS]);
            for (terms, label) in &rows {
                let odds: f64 = terms.iter().zip(&out.weights).map(|(t, w)| t * w).sum();
                let p = 1.0 / (1.0 + (-odds).exp());
                for i in 0..TERMS {
                    slope[i] += (label - p) * terms[i];
                    (0..=i).for_each(|j| curve[i * TERMS + j] += p * (1.0 - p) * terms[i] * terms[j]);
                }
            }
            slope.iter_mut().zip(&out.weights).for_each(|(s, w)| *s -= RIDGE * n * w);
            add_to_diagonal(&mut curve, TERMS, RIDGE * n);
            let Some(factor) = Cholesky::new(&curve, TERMS) else { break };
            factor.solve(&mut slope);
            out.weights.iter_mut().zip(slope).for_each(|(w, s)| *w += s);
        }
        out
    }

    fn terms(&self, features: &[f64; FEATURES]) -> [f64; TERMS] {
        let mut out = [1.0; TERMS];
        for (f, &value) in features.iter().enumerate() {
            // Far tails would outweigh everything once they are squared.
            let z = ((value - self.mean[f]) / self.scale[f]).clamp(-8.0, 8.0);
            (out[1 + f], out[1 + FEATURES + f]) = (z, z * z);
        }
        out
    }

    fn odds(&self, features: &[f64; FEATURES]) -> f64 {
        self.terms(features).iter().zip(&self.weights).map(|(t, w)| t * w).sum()
    }
}

/// Sends `n` trials of one world through the subject and keeps something of every released row.
fn draw<T: Send>(
    subject: &dyn Subject,
    settings: &Settings,
    pair: &Pair,
    world: usize,
    n: usize,
    purpose: &str,
    keep: impl Fn(&[f32]) -> T + Sync,
) -> Result<Vec<T>, Error> {
    let members = subject.members().max(1);
    let chunk = (CHUNK / (members * settings.dim)).clamp(1, n);
    let mut out = Vec::with_capacity(n);
    for start in (0..n).step_by(chunk) {
        let (raw, strata) = pair.raw(world, chunk.min(n - start), members)?;
        let task = format!("{purpose}, world {world} at {}", pair.half_angle);
        let mut rng = seed::stream(settings.seed, &task, &format!("trials from {start}"));
        let released = subject.release(&raw, &strata, &mut rng)?;
        let d = released.vectors.dim();
        out.par_extend(released.vectors.values().par_chunks_exact(d).map(&keep));
    }
    Ok(out)
}

/// What one pair proved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PairAudit {
    /// Share of the largest distance at which the two records lie.
    pub distance: f64,
    /// The epsilon that is claimed for records this far apart.
    pub claimed: Option<f64>,
    /// Epsilon by Clopper-Pearson bounds at a threshold fixed on rehearsals.
    pub epsilon: f64,
    /// The most that this number of trials could prove.
    pub ceiling: f64,
    /// Which score proved it.
    pub score: Score,
    /// The counts behind it.
    pub counts: Counts,
    /// `mu` at the midpoint, where the claim is Gaussian, and the epsilon that it stands for.
    pub gaussian: Option<GaussianAudit>,
}

/// What one pair proved about a Gaussian trade-off.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct GaussianAudit {
    /// The `mu` that is claimed for records this far apart.
    pub claimed: f64,
    /// The `mu` that the counts prove.
    pub mu: f64,
    /// Its epsilon at delta.
    pub epsilon: f64,
    /// The most epsilon that this number of trials could prove this way.
    pub ceiling: f64,
    /// The counts behind it.
    pub counts: Counts,
}

/// The epsilon and, where the claim is Gaussian, the `mu` that are claimed for a pair.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claimed {
    pub(super) epsilon: Option<f64>,
    pub(super) mu: Option<f64>,
}

/// Tells the worlds of a pair apart: rehearsals choose the score and the threshold, fresh trials are counted.
pub(super) fn tell_apart(
    subject: &dyn Subject,
    settings: &Settings,
    pair: &Pair,
    claimed: Claimed,
) -> Result<PairAudit, Error> {
    let n = settings.trials;
    let mut anchors = anchors(subject, settings, pair)?;
    learn(subject, settings, pair, &mut anchors)?;
    let rehearsed: Vec<Vec<[f64; 5]>> = (0..2)
        .map(|w| draw(subject, settings, pair, w, n, "rehearsal", |y| anchors.scores(y)))
        .collect::<Result<_, _>>()?;
    let column = |world: usize, s: usize| rehearsed[world].iter().map(|scores| scores[s]).collect::<Vec<f64>>();
    let alpha = settings.alpha;
    let plans: Vec<(Plan, Plan)> =
        (0..SCORES.len()).into_par_iter().map(|s| plan(s, column(0, s), column(1, s), settings)).collect();
    let best = |of: &dyn Fn(&(Plan, Plan)) -> Plan| {
        plans.iter().map(of).max_by(|a, b| a.proves.total_cmp(&b.proves)).expect("five scores were planned")
    };
    let (tail, middle) = (best(&|p| p.0), best(&|p| p.1));

    let fresh: Vec<Vec<(f64, f64)>> = (0..2)
        .map(|w| {
            draw(subject, settings, pair, w, n, "trial", |y| {
                let scores = anchors.scores(y);
                (scores[tail.score], scores[middle.score])
            })
        })
        .collect::<Result<_, _>>()?;
    let count = |threshold: f64, of: &dyn Fn(&(f64, f64)) -> f64| {
        let above = |world: usize| fresh[world].iter().filter(|s| of(s) > threshold).count() as u64;
        Counts { hits: above(0), positives: n as u64, false_alarms: above(1), negatives: n as u64 }
    };
    let counts = count(tail.threshold, &|s| s.0);
    let at_middle = count(middle.threshold, &|s| s.1);
    let (ceiling, _, gaussian_ceiling) = super::interval::ceiling(n as u64, settings.delta, alpha);
    Ok(PairAudit {
        distance: pair.half_angle.sin(),
        claimed: claimed.epsilon,
        epsilon: counts.epsilon(settings.delta, alpha),
        ceiling,
        score: SCORES[tail.score],
        counts,
        gaussian: claimed.mu.map(|mu| GaussianAudit {
            claimed: mu,
            mu: at_middle.mu(alpha),
            epsilon: crate::protect::account::epsilon(at_middle.mu(alpha), settings.delta),
            ceiling: gaussian_ceiling,
            counts: at_middle,
        }),
    })
}

fn anchors(subject: &dyn Subject, settings: &Settings, pair: &Pair) -> Result<Anchors, Error> {
    let at = |world: usize| -> Result<Vec<f64>, Error> {
        let (raw, strata) = pair.raw(world, 1, subject.members().max(1))?;
        let mut rng = seed::stream(settings.seed, "audit", "anchors");
        let quiet = subject.quiet(&raw, &strata, &mut rng)?;
        Ok(quiet.vectors.row(0).iter().map(|&v| f64::from(v)).collect())
    };
    let at = [at(0)?, at(1)?];
    let learned = vec![0.0; at[0].len()];
    Ok(Anchors { at, learned, classifier: Classifier::default() })
}

/// The direction of the learned score, from a quarter as many trials.
fn learn(subject: &dyn Subject, settings: &Settings, pair: &Pair, anchors: &mut Anchors) -> Result<(), Error> {
    let n = (settings.trials / 4).clamp(2, 20_000);
    let d = anchors.learned.len();
    let mut means = [vec![0.0; d], vec![0.0; d]];
    let mut variance = vec![0.0; d];
    for (world, mean) in means.iter_mut().enumerate() {
        let rows = draw(subject, settings, pair, world, n, "lesson", <[f32]>::to_vec)?;
        for row in &rows {
            mean.iter_mut().zip(row).for_each(|(m, &v)| *m += f64::from(v) / n as f64);
        }
        for row in &rows {
            let off = |(s, (&v, m)): (&mut f64, (&f32, &f64))| *s += (f64::from(v) - m).powi(2);
            variance.iter_mut().zip(row.iter().zip(&*mean)).for_each(off);
        }
    }
    let [first, second] = &means;
    for (i, w) in anchors.learned.iter_mut().enumerate() {
        // Of a coordinate that never varies any difference decides.
        *w = (first[i] - second[i]) / (variance[i] / (2 * n) as f64).max(1e-20);
    }
    // Other trials than those that the direction was learned from.
    let seen: Vec<Vec<[f64; FEATURES]>> = (0..2)
        .map(|w| draw(subject, settings, pair, w, n, "second lesson", |y| anchors.features(y)))
        .collect::<Result<_, _>>()?;
    anchors.classifier = Classifier::fit(&seen[0], &seen[1]);
    Ok(())
}

/// A score with its threshold, and what the rehearsal promises of it.
#[derive(Debug, Clone, Copy)]
struct Plan {
    score: usize,
    threshold: f64,
    proves: f64,
}

/// The best tail threshold for counts, and the midpoint for a Gaussian trade-off.
fn plan(score: usize, mut first: Vec<f64>, mut second: Vec<f64>, settings: &Settings) -> (Plan, Plan) {
    first.sort_by(f64::total_cmp);
    second.sort_by(f64::total_cmp);
    let n = first.len();
    let above = |sorted: &[f64], t: f64| (sorted.len() - sorted.partition_point(|&s| s <= t)) as u64;
    let at = |t: f64| Counts {
        hits: above(&first, t),
        positives: n as u64,
        false_alarms: above(&second, t),
        negatives: second.len() as u64,
    };
    // Thresholds above which 0, 1, 2, 4, ... of a world's trials lie, from either end of either world; a cut between two
    // trials.
    let between = |sorted: &[f64], i: usize| {
        let (low, high) = (sorted[i.saturating_sub(1).min(n - 1)], sorted[i.min(n - 1)]);
        0.5 * (low + high)
    };
    let steps = std::iter::successors(Some(1.0_f64), |s| Some(s * 1.6)).take_while(|s| *s < n as f64);
    let places: Vec<usize> = std::iter::once(0).chain(steps.map(|s| s as usize)).collect();
    let thresholds = places
        .iter()
        .flat_map(|&k| [&first, &second].into_iter().flat_map(move |sorted| [(sorted, k), (sorted, n - k)]));
    let tail = thresholds
        .map(|(sorted, i)| between(sorted, i))
        .map(|threshold| Plan { score, threshold, proves: at(threshold).epsilon(settings.delta, settings.alpha) })
        .max_by(|a, b| a.proves.total_cmp(&b.proves))
        .unwrap_or(Plan { score, threshold: 0.0, proves: 0.0 });
    let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len().max(1) as f64;
    let threshold = 0.5 * (mean(&first) + mean(&second));
    (tail, Plan { score, threshold, proves: at(threshold).mu(settings.alpha) })
}
