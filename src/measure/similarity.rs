//! Similarity: cosine of guess and original under an encoder, its floor, and the leak above the floor.

use super::statistics::{Design, Estimate, Table, Weights, bootstrap, mean};
use super::{Error, Metric, Spec, check_clusters, check_paired};
use crate::encode::{Embeddings, Encoder};
use crate::measure::Direction;
use crate::nn::kernel::{self, Layout};
use crate::seed::Stream;
use rayon::prelude::*;

/// Query rows that share one matrix product; fixed, so that no result depends on the number of threads.
const BLOCK: usize = 64;
/// Below this distance from 1 a floor leaves nothing to leak.
const NO_ROOM: f64 = 1e-9;

/// Rows scaled to unit length; a row without a direction stays zero.
pub(super) fn unit_rows(vectors: &Embeddings) -> Embeddings {
    let mut unit = vectors.clone();
    for i in 0..unit.len() {
        let row = unit.row_mut(i);
        let norm = row.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
        if norm > 0.0 {
            for value in row {
                *value = (f64::from(*value) / norm) as f32;
            }
        }
    }
    unit
}

/// Shows `read` the cosines of each query with the whole gallery: `read(query index, cosines)`, results in query order.
///
/// A row without a direction has cosine 0 with everything.
///
/// # Shapes
/// `queries` is `(q, d)`, `gallery` is `(n, d)`; `read` sees `n` cosines.
///
/// # Errors
/// [`Error::Shape`] when the dimensions differ.
pub fn against<T: Send>(
    queries: &Embeddings,
    gallery: &Embeddings,
    read: impl Fn(usize, &[f32]) -> T + Sync,
) -> Result<Vec<T>, Error> {
    check_dim(queries, gallery)?;
    let (dim, n) = (gallery.dim(), gallery.len());
    let (queries, gallery) = (unit_rows(queries), unit_rows(gallery));
    let blocks: Vec<Vec<T>> = queries
        .values()
        .par_chunks((BLOCK * dim).max(1))
        .enumerate()
        .map(|(block, rows)| {
            let m = rows.len() / dim;
            let mut cosines = vec![0.0; m * n];
            kernel::matmul(&mut cosines, rows, Layout::Plain, gallery.values(), Layout::Transposed, m, dim, n, false);
            (0..m).map(|i| read(block * BLOCK + i, &cosines[i * n..(i + 1) * n])).collect()
        })
        .collect();
    Ok(blocks.into_iter().flatten().collect())
}

/// Cosine of each row of `a` with the same row of `b`, accumulated in f64; `None` where either has no direction.
///
/// # Errors
/// When the shapes differ.
pub fn cosines(a: &Embeddings, b: &Embeddings) -> Result<Vec<Option<f64>>, Error> {
    check_paired(a.len(), b.len())?;
    check_dim(a, b)?;
    let cosine = |(a, b): (&[f32], &[f32])| {
        let (mut dot, mut aa, mut bb) = (0.0, 0.0, 0.0);
        for (&x, &y) in a.iter().zip(b) {
            let (x, y) = (f64::from(x), f64::from(y));
            dot += x * y;
            aa += x * x;
            bb += y * y;
        }
        (aa > 0.0 && bb > 0.0).then(|| (dot / (aa.sqrt() * bb.sqrt())).clamp(-1.0, 1.0))
    };
    Ok(a.rows().zip(b.rows()).map(cosine).collect())
}

/// Everything that a leak is computed from, one value for each target.
#[derive(Debug, Clone, PartialEq)]
pub struct PerTarget {
    /// Cosine of the guess with its own original; `None` where a vector has no direction.
    pub cosine: Vec<Option<f64>>,
    /// The target's part in the floor; `None` where it has no cosine or no other cluster to meet.
    pub floor: Vec<Option<f64>>,
}

/// Cosines of guesses with their originals, and the floor: the same guesses against all originals of other clusters.
///
/// The floor is the exact mean over all such pairings, not one shuffle of them. A target takes part in it twice, with
/// its guess and with its original, and its value has both parts. That leaves the mean as it is and makes resampling right:
/// for a guess that never changes, floor and cosine then move together, and the leak stays at 0 up to `1 / n` of their
/// spread.
///
/// # Formula
/// `floor_i = mean_j cos(g_i, o_j) + mean_j cos(g_j, o_i) - F`, `j` over targets of other clusters, `F` the mean of the
/// second term over all `i`; from vector sums in `O(n d)`.
///
/// # Shapes
/// `truth` and `guess` `(n, d)`, any row lengths; `clusters` one label for each target (documents, or all different).
///
/// # Range
/// Cosine, -1 to 1, higher = closer = worse privacy.
///
/// # Errors
/// When the shapes differ.
pub fn judge(truth: &Embeddings, guess: &Embeddings, clusters: &[u32]) -> Result<PerTarget, Error> {
    check_clusters(truth.len(), clusters)?;
    let cosine = cosines(truth, guess)?;
    let here: Vec<usize> = (0..cosine.len()).filter(|&i| cosine[i].is_some()).collect();
    let with_originals = mean_with_others(guess, truth, &here, clusters);
    let with_guesses = mean_with_others(truth, guess, &here, clusters);
    let met: Vec<f64> = with_guesses.iter().flatten().copied().collect();
    let centre = met.iter().sum::<f64>() / met.len() as f64;
    let mut floor = vec![None; cosine.len()];
    for ((&i, own), other) in here.iter().zip(with_originals).zip(with_guesses) {
        floor[i] = own.zip(other).map(|(own, other)| own + other - centre);
    }
    Ok(PerTarget { cosine, floor })
}

/// For each row of `a` in `here`: its mean cosine with the rows of `b` that are in `here` and in other clusters.
fn mean_with_others(a: &Embeddings, b: &Embeddings, here: &[usize], clusters: &[u32]) -> Vec<Option<f64>> {
    let dim = b.dim();
    let unit = |vectors: &Embeddings, i: usize| -> Vec<f64> {
        let row: Vec<f64> = vectors.row(i).iter().map(|&v| f64::from(v)).collect();
        let norm = row.iter().map(|v| v * v).sum::<f64>().sqrt();
        row.into_iter().map(|v| v / norm).collect()
    };
    let add = |sum: &mut [f64], row: &[f64]| sum.iter_mut().zip(row).for_each(|(s, v)| *s += v);

    let mut order = here.to_vec();
    order.sort_by_key(|&i| clusters[i]);
    let groups: Vec<&[usize]> = order.chunk_by(|&i, &j| clusters[i] == clusters[j]).collect();
    let mut total = vec![0.0; dim];
    let mut sums = Vec::with_capacity(groups.len());
    for group in &groups {
        let mut sum = vec![0.0; dim];
        group.iter().for_each(|&i| add(&mut sum, &unit(b, i)));
        add(&mut total, &sum);
        sums.push(sum);
    }
    let mut means = vec![None; clusters.len()];
    for (group, own) in groups.iter().zip(&sums) {
        let others = here.len() - group.len();
        if others > 0 {
            for &i in *group {
                let row = unit(a, i);
                let dot: f64 = row.iter().zip(total.iter().zip(own)).map(|(r, (all, own))| r * (all - own)).sum();
                means[i] = Some(dot / others as f64);
            }
        }
    }
    here.iter().map(|&i| means[i]).collect()
}

/// How far a mean similarity stands above its floor.
///
/// # Formula
/// `L = (s - f) / (1 - f)`
///
/// # Range
/// 0 = nothing, 1 = the original; negative when the guesses are worse than shuffled ones; `None` when `f` leaves no room.
///
/// # Example
/// ```
/// assert_eq!(stitchback::measure::similarity::leak_above(0.75, 0.5), Some(0.5));
/// ```
pub fn leak_above(similarity: f64, floor: f64) -> Option<f64> {
    (1.0 - floor > NO_ROOM).then(|| (similarity - floor) / (1.0 - floor))
}

/// The leak as a statistic: similarity and floor are both recomputed on every resample.
pub fn leak_statistic<'a>(cosine: &'a Table, floor: &'a Table) -> impl Fn(&Weights) -> Option<f64> + 'a {
    |weights| leak_above(cosine.mean(weights)?, floor.mean(weights)?)
}

/// The three numbers that always stand together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Leak {
    /// Mean cosine of guess and original.
    pub raw: Estimate,
    /// The same guesses against other originals; `None` with a single cluster.
    pub floor: Option<f64>,
    /// `(raw - floor) / (1 - floor)`; `None` without a floor.
    pub leak: Option<Estimate>,
    /// Targets behind it.
    pub n: usize,
}

/// Aggregates one attacker's [`PerTarget`] values, one element for each seed; `None` without a scored target.
///
/// # Errors
/// When the seeds scored different numbers of targets.
pub fn leak(seeds: &[PerTarget], design: &Design, rng: &mut Stream) -> Result<Option<Leak>, Error> {
    let cosine = Table::new(&seeds.iter().map(|seed| &seed.cosine).collect::<Vec<_>>())?;
    let floor = Table::new(&seeds.iter().map(|seed| &seed.floor).collect::<Vec<_>>())?;
    let Some(raw) = mean(&cosine, design, (-1.0, 1.0), rng) else { return Ok(None) };
    let leak = bootstrap(&leak_statistic(&cosine, &floor), design, rng).map(|b| b.estimate(Some((0.0, 1.0))));
    Ok(Some(Leak { raw, floor: floor.mean(&design.once()), leak, n: cosine.n() }))
}

/// Cosine of guess and original under one encoder.
pub(super) struct Cosine<'a> {
    id: &'static str,
    encoder: &'a dyn Encoder,
}

impl<'a> Cosine<'a> {
    pub(super) fn new(id: &'static str, encoder: &'a dyn Encoder) -> Self {
        Self { id, encoder }
    }
}

impl Metric for Cosine<'_> {
    fn spec(&self) -> Spec {
        let info = self.encoder.info();
        let fingerprint: String = info.fingerprint.chars().take(12).collect();
        Spec {
            id: self.id,
            version: 1,
            unit: "cosine",
            low: -1.0,
            high: 1.0,
            direction: Direction::HigherLeaksMore,
            signature: format!("encoder:{}|blake3:{fingerprint}", info.name),
        }
    }

    fn score(&self, truths: &[&str], guesses: &[&str]) -> Result<Vec<Option<f64>>, Error> {
        check_paired(truths.len(), guesses.len())?;
        cosines(&self.encoder.encode(truths)?, &self.encoder.encode(guesses)?)
    }
}

pub(super) fn check_dim(a: &Embeddings, b: &Embeddings) -> Result<(), Error> {
    if a.dim() == b.dim() {
        Ok(())
    } else {
        Err(Error::Shape(format!("vectors of dimension {} against vectors of dimension {}", a.dim(), b.dim())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::statistics::Method;
    use crate::seed;
    use rand_distr::{Distribution, StandardNormal};

    fn gaussian(n: usize, dim: usize, shift: f32, name: &str) -> Embeddings {
        let mut rng = seed::stream(11, name, "vectors");
        let values = (0..n * dim).map(|_| Distribution::<f32>::sample(&StandardNormal, &mut rng) + shift).collect();
        Embeddings::new(values, dim).expect("finite")
    }

    fn average(values: &[Option<f64>]) -> f64 {
        values.iter().flatten().sum::<f64>() / values.iter().flatten().count() as f64
    }

    #[test]
    fn the_floor_is_the_mean_over_all_other_pairings() {
        for dim in [384, 512, 768, 1536] {
            let (truth, guess) = (gaussian(23, dim, 0.1, "truth"), gaussian(23, dim, 0.1, "guess"));
            // Three documents of unequal size: 12, 6 and 5 targets.
            let documents: Vec<u32> = (0..23).map(|i| if i < 12 { 4 } else { i % 2 }).collect();
            for clusters in [(0..23).collect::<Vec<u32>>(), documents] {
                let per_target = judge(&truth, &guess, &clusters).expect("fits");
                let mut rows = Vec::new();
                for i in 0..23 {
                    let others: Vec<usize> = (0..23).filter(|&j| clusters[j] != clusters[i]).collect();
                    let pairs = cosines(&truth.select(&others), &guess.select(&vec![i; others.len()])).expect("fits");
                    rows.push(Some(average(&pairs)));
                }
                assert!((average(&per_target.floor) - average(&rows)).abs() < 1e-9, "dimension {dim}");
            }
        }
    }

    #[test]
    fn a_guess_that_never_changes_leaks_exactly_nothing() {
        let truth = gaussian(60, 16, 0.3, "truth");
        let guess = Embeddings::new([1.0, 0.5].repeat(8).repeat(60), 16).expect("finite");
        let per_target = judge(&truth, &guess, &(0..60).collect::<Vec<u32>>()).expect("fits");
        assert!(average(&per_target.cosine) > 0.2);
        let design = Design::independent(60, 1);
        let result = leak(&[per_target], &design, &mut seed::stream(1, "t", "b")).expect("one shape").expect("scored");
        let leak = result.leak.expect("a floor");
        assert!(leak.value.abs() < 1e-9);
        // A floor without the original's part would leave the cosine's own spread in the interval: .07 to either side.
        assert!(leak.low.is_some_and(|low| low > -0.005) && leak.high.is_some_and(|high| high < 0.005), "{leak:?}");
    }

    #[test]
    fn the_original_itself_leaks_everything() {
        let truth = gaussian(100, 32, 0.1, "truth");
        let per_target = judge(&truth, &truth, &(0..100).collect::<Vec<u32>>()).expect("fits");
        let design = Design::independent(100, 1);
        let result = leak(&[per_target], &design, &mut seed::stream(1, "t", "b")).expect("one shape").expect("scored");
        let leak = result.leak.expect("a floor");
        assert!((leak.value - 1.0).abs() < 1e-9 && (result.raw.value - 1.0).abs() < 1e-9);
        assert!(leak.high.is_some_and(|high| high < 1.0 + 1e-9), "{leak:?}");
        assert_eq!(result.n, 100);
    }

    #[test]
    fn the_leak_is_recomputed_with_its_floor_on_each_resample() {
        // Guess = half the original, half noise: the leak and its floor move together.
        let (truth, noise) = (gaussian(300, 64, 0.4, "truth"), gaussian(300, 64, 0.4, "noise"));
        let mixed = truth.values().iter().zip(noise.values()).map(|(t, n)| t + n).collect();
        let guess = Embeddings::new(mixed, 64).expect("finite");
        let per_target = judge(&truth, &guess, &(0..300).collect::<Vec<u32>>()).expect("fits");
        let (s, f) = (average(&per_target.cosine), average(&per_target.floor));
        let design = Design::independent(300, 1);
        let result = leak(&[per_target], &design, &mut seed::stream(1, "t", "b")).expect("one shape").expect("scored");
        let leak = result.leak.expect("a floor");
        assert!((leak.value - (s - f) / (1.0 - f)).abs() < 1e-12);
        assert_eq!(leak.method, Method::Bca);
        assert!(leak.low.is_some_and(|low| low < leak.value) && leak.high.is_some_and(|high| high > leak.value));
    }

    #[test]
    fn resampling_a_leak_gives_the_spread_of_fresh_data() {
        // Fifty fresh data sets against the intervals made from each: their widths must agree. The sd of 50 leaks is
        // known to 10 % (one standard error), so a factor of 1.5 is five of them.
        let mut leaks = Vec::new();
        let mut widths = Vec::new();
        for set in 0..50 {
            let (truth, noise) =
                (gaussian(120, 12, 0.5, &format!("t{set}")), gaussian(120, 12, 0.5, &format!("n{set}")));
            let mixed = truth.values().iter().zip(noise.values()).map(|(t, n)| 0.4 * t + n).collect();
            let guess = Embeddings::new(mixed, 12).expect("finite");
            let per_target = judge(&truth, &guess, &(0..120).collect::<Vec<u32>>()).expect("fits");
            let design = Design::independent(120, 1);
            let result = leak(&[per_target], &design, &mut seed::stream(1, "t", "b")).expect("ok").expect("scored");
            let leak = result.leak.expect("a floor");
            leaks.push(leak.value);
            widths.push(leak.high.expect("interval") - leak.low.expect("interval"));
        }
        let centre = leaks.iter().sum::<f64>() / 50.0;
        let spread = (leaks.iter().map(|l| (l - centre).powi(2)).sum::<f64>() / 49.0).sqrt();
        let claimed = widths.iter().sum::<f64>() / 50.0 / (2.0 * 1.96);
        assert!((claimed / spread).ln().abs() < 1.5_f64.ln(), "claimed sd {claimed}, real sd {spread}");
    }

    #[test]
    fn a_vector_without_direction_is_missing_not_zero() {
        let truth = gaussian(4, 8, 0.0, "truth");
        let mut guess = truth.clone();
        guess.row_mut(2).fill(0.0);
        let per_target = judge(&truth, &guess, &[0, 1, 2, 3]).expect("fits");
        assert!(per_target.cosine[2].is_none() && per_target.floor[2].is_none());
        assert_eq!(per_target.floor.iter().flatten().count(), 3);
    }

    #[test]
    fn one_target_has_a_similarity_but_no_leak() {
        let truth = gaussian(1, 8, 0.0, "truth");
        let per_target = judge(&truth, &truth, &[0]).expect("fits");
        let design = Design::independent(1, 1);
        let result = leak(&[per_target], &design, &mut seed::stream(1, "t", "b")).expect("ok").expect("scored");
        assert!((result.raw.value - 1.0).abs() < 1e-12);
        assert_eq!((result.floor, result.leak), (None, None));
        let nothing = judge(&Embeddings::empty(8), &Embeddings::empty(8), &[]).expect("fits");
        let design = Design::independent(0, 1);
        assert_eq!(leak(&[nothing], &design, &mut seed::stream(1, "t", "b")).expect("ok"), None);
    }

    #[test]
    fn blocks_of_queries_see_the_cosines_that_pairs_have() {
        let (queries, gallery) = (gaussian(150, 24, 0.2, "queries"), gaussian(37, 24, 0.2, "gallery"));
        let seen = against(&queries, &gallery, |i, cosines| (i, cosines.to_vec())).expect("one dimension");
        for (i, (query, row)) in seen.into_iter().enumerate() {
            assert_eq!(query, i);
            let pairs = cosines(&queries.select(&[i; 37]), &gallery).expect("fits");
            assert!(row.iter().zip(pairs).all(|(&c, p)| (f64::from(c) - p.expect("a direction")).abs() < 1e-6));
        }
        assert!(against(&queries, &gaussian(3, 8, 0.0, "other"), |_, _| ()).is_err());
    }
}
