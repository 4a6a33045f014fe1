//! Identification: the rank of the true record among candidates.
//!
//! *Identified*: the query is a released vector, the gallery the clean vectors of N candidates. *Matched*: the query is the
//! judge's vector of a guess, the gallery the judge's vectors of all originals. Chance is `1 / N` for both.
//!
//! Compare raw releases, not denoised ones: with equally likely candidates and isotropic noise the raw cosine is already
//! the most probable choice, and shrinking towards the mean only hides it.

use super::Error;
use super::similarity::{against, check_dim};
use crate::encode::Embeddings;
use statrs::function::factorial::ln_binomial;

/// Rank of candidate `truth` by score, 1 = best; every tie, and every score that is not a number, counts against the attacker.
///
/// # Panics
/// When `truth` is not among the scores.
pub fn rank(scores: &[f32], truth: usize) -> usize {
    let own = scores[truth];
    let worse = scores.iter().filter(|&&score| score < own).count();
    scores.len() - worse
}

/// Rank of the true candidate for each query, by cosine, 1 = best.
///
/// # Shapes
/// `queries` `(q, d)`, `gallery` `(n, d)`, `truth` one gallery index for each query; rows need not be unit-norm.
///
/// # Range
/// 1 to `n`, lower = worse privacy. Ties count against the attacker: a query without information ranks last, and
/// duplicates of the truth in the gallery push it down, so keep them out.
///
/// # Errors
/// When the shapes differ or an index is outside the gallery.
pub fn closed_set(queries: &Embeddings, gallery: &Embeddings, truth: &[usize]) -> Result<Vec<usize>, Error> {
    check_dim(queries, gallery)?;
    if truth.len() != queries.len() {
        return Err(Error::Shape(format!("{} queries but {} true candidates", queries.len(), truth.len())));
    }
    if let Some(outside) = truth.iter().find(|&&index| index >= gallery.len()) {
        return Err(Error::Shape(format!("true candidate {outside} is outside a gallery of {}", gallery.len())));
    }
    against(queries, gallery, |query, cosines| rank(cosines, truth[query]))
}

/// Rank of each guess's own original among all originals, under the judge.
///
/// # Errors
/// When there is not one guess for each original.
pub fn matched(guesses: &Embeddings, originals: &Embeddings) -> Result<Vec<usize>, Error> {
    super::check_paired(originals.len(), guesses.len())?;
    closed_set(guesses, originals, &(0..originals.len()).collect::<Vec<_>>())
}

/// 1 where the truth is among the first `k`: top-1, top-10.
pub fn top(ranks: &[usize], k: usize) -> Vec<Option<f64>> {
    ranks.iter().map(|&rank| Some(f64::from(u8::from(rank <= k)))).collect()
}

/// `1 / rank`; the mean is the MRR.
pub fn reciprocal(ranks: &[usize]) -> Vec<Option<f64>> {
    ranks.iter().map(|&rank| Some(1.0 / rank as f64)).collect()
}

/// How often candidate `truth` wins against `ways - 1` others drawn at random; `None` where there are not as many.
///
/// Two ways is the share of others that score lower. Unlike [`rank`], a tie counts one half, and so does every comparison
/// with a score that is not a number: that is what tossing a coin would win, so it neither hides nor invents a leak.
///
/// # Formula
/// With `l` others that score lower, `t` that tie and `d = ways - 1` drawn of `N - 1`:
/// `Σ_k C(l, d - k) C(t, k) 2^-k / C(N - 1, d)`.
///
/// # Range
/// Share, 0 to 1, higher = worse privacy; chance is about `1 / ways`, and exactly so without ties.
///
/// # Panics
/// When `truth` is not among the scores, or `ways` is below 2.
pub fn wins(scores: &[f32], truth: usize, ways: usize) -> Option<f64> {
    assert!(ways >= 2, "a choice has two ways");
    let (own, others, drawn) = (scores[truth], (scores.len() - 1) as u64, (ways - 1) as u64);
    let lower = scores.iter().filter(|&&score| score < own).count() as u64;
    let higher = scores.iter().filter(|&&score| score > own).count() as u64;
    let ties = others - lower - higher;
    (drawn <= others).then(|| {
        let term = |k: u64| {
            let ways_of = ln_binomial(lower, drawn - k) + ln_binomial(ties, k) - ln_binomial(others, drawn);
            (ways_of - k as f64 * std::f64::consts::LN_2).exp()
        };
        (drawn.saturating_sub(lower)..=drawn.min(ties)).map(term).sum::<f64>().min(1.0)
    })
}

/// [`wins`] of each guess's own original among all originals, under the judge.
///
/// # Errors
/// When there is not one guess for each original.
pub fn matched_wins(guesses: &Embeddings, originals: &Embeddings, ways: usize) -> Result<Vec<Option<f64>>, Error> {
    super::check_paired(originals.len(), guesses.len())?;
    against(guesses, originals, |guess, cosines| wins(cosines, guess, ways))
}

/// What guessing gives among `candidates`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Chance {
    /// `1 / N`.
    pub top1: f64,
    /// `min(10, N) / N`.
    pub top10: f64,
    /// `H_N / N`.
    pub mrr: f64,
}

/// Chance levels of a closed set; `None` without candidates.
pub fn chance(candidates: usize) -> Option<Chance> {
    let n = candidates as f64;
    let harmonic: f64 = (1..=candidates).map(|rank| 1.0 / rank as f64).sum();
    (candidates > 0).then(|| Chance { top1: 1.0 / n, top10: (10.0 / n).min(1.0), mrr: harmonic / n })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed;
    use rand_distr::{Distribution, StandardNormal};

    fn isotropic(n: usize, dim: usize, task: &str) -> Embeddings {
        let mut rng = seed::stream(23, task, "vectors");
        let mut vectors = Embeddings::empty(dim);
        for _ in 0..n {
            let row: Vec<f32> = (0..dim).map(|_| StandardNormal.sample(&mut rng)).collect();
            let norm = row.iter().map(|v| v * v).sum::<f32>().sqrt();
            vectors.push(&row.iter().map(|v| v / norm).collect::<Vec<_>>());
        }
        vectors
    }

    fn noisy(vectors: &Embeddings, sigma: f32, task: &str) -> Embeddings {
        let mut rng = seed::stream(23, task, "noise");
        let mut released = vectors.clone();
        for value in released.values_mut() {
            let noise: f32 = StandardNormal.sample(&mut rng);
            *value += sigma * noise;
        }
        released
    }

    fn average(values: &[Option<f64>]) -> f64 {
        values.iter().flatten().sum::<f64>() / values.len() as f64
    }

    #[test]
    fn isotropic_vectors_are_identified_as_often_as_the_integral_says() {
        // P(top-1) = ∫ φ(z) Φ((1 + σz) / √(1/d + σ²))^(N-1) dz at d = 384. One set of N queries has a standard error of
        // at most .016 at N = 1000 and .05 at N = 100, so several sets are averaged; tolerance .02 plus the printed digit.
        for (n, sigma, sets, golden) in
            [(1000, 0.25, 3, 0.744), (1000, 0.15, 1, 0.999), (1000, 0.5, 2, 0.117), (100, 0.3, 20, 0.768)]
        {
            let hits: f64 = (0..sets)
                .map(|set| {
                    let candidates = isotropic(n, 384, &format!("{n}-{sigma}-{set}"));
                    let released = noisy(&candidates, sigma, &format!("{n}-{sigma}-{set}"));
                    let truth: Vec<usize> = (0..n).collect();
                    average(&top(&closed_set(&released, &candidates, &truth).expect("fits"), 1))
                })
                .sum();
            assert!((hits / f64::from(sets) - golden).abs() < 0.0205, "N = {n}, sigma = {sigma}: {hits} / {sets}");
        }
    }

    #[test]
    fn guessing_reaches_chance() {
        assert!((chance(100).expect("candidates").mrr - 0.0519).abs() < 5e-5);
        assert!((chance(1000).expect("candidates").mrr - 0.00749).abs() < 5e-6);
        assert_eq!(chance(2), Some(Chance { top1: 0.5, top10: 1.0, mrr: 0.75 }));
        assert_eq!(chance(0), None);
        // Vectors that have nothing to do with the candidates: 2000 queries, 50 candidates. The standard errors are .0031
        // for top-1 and .0035 for MRR; three of them fail once in 370 seeds.
        let candidates = isotropic(50, 16, "candidates");
        let truth: Vec<usize> = (0..2000).map(|i| i % 50).collect();
        let ranks = closed_set(&isotropic(2000, 16, "strangers"), &candidates, &truth).expect("fits");
        let expected = chance(50).expect("candidates");
        assert!((average(&top(&ranks, 1)) - expected.top1).abs() < 0.0094);
        assert!((average(&reciprocal(&ranks)) - expected.mrr).abs() < 0.0105);
        assert!((average(&top(&ranks, 10)) - expected.top10).abs() < 0.027);
    }

    #[test]
    fn ties_and_missing_numbers_count_against_the_attacker() {
        assert_eq!(rank(&[0.5, 0.9, 0.9, 0.1], 1), 2);
        assert_eq!(rank(&[0.0; 7], 3), 7);
        assert_eq!(rank(&[0.2, f32::NAN, 0.1], 0), 2);
        assert_eq!(rank(&[0.2, f32::NAN, 0.1], 1), 3);
        assert_eq!(rank(&[0.2], 0), 1);
        let zero = Embeddings::new(vec![0.0; 8], 8).expect("finite");
        assert_eq!(closed_set(&zero, &isotropic(5, 8, "c"), &[2]).expect("fits"), [5]);
    }

    #[test]
    fn a_guess_matches_its_own_original() {
        let originals = isotropic(130, 32, "originals");
        let guesses = noisy(&originals, 0.01, "guesses");
        assert_eq!(matched(&guesses, &originals).expect("paired"), vec![1; 130]);
        // Guess 0 and guess 1 swapped.
        let mut swapped: Vec<usize> = (0..130).collect();
        swapped.swap(0, 1);
        let ranks = matched(&guesses.select(&swapped), &originals).expect("paired");
        assert!(ranks[0] > 1 && ranks[1] > 1 && ranks[2..].iter().all(|&rank| rank == 1));
        assert!(matched(&guesses.select(&[0]), &originals).is_err());
    }

    #[test]
    fn a_true_candidate_outside_the_gallery_is_refused() {
        let gallery = isotropic(3, 8, "g");
        assert!(closed_set(&gallery, &gallery, &[0, 1, 3]).is_err());
        assert!(closed_set(&gallery, &gallery, &[0, 1]).is_err());
    }
    /// Six vectors of ten features and noisy copies, without their means: their cosine is Pearson's correlation.
    fn golden_pairs() -> (Embeddings, Embeddings) {
        let table = |value: &dyn Fn(f64, f64) -> f64| {
            let rows = (0..6).flat_map(|i| {
                let row: Vec<f64> = (0..10).map(|k| value(f64::from(i), f64::from(k))).collect();
                let mean = row.iter().sum::<f64>() / 10.0;
                row.into_iter().map(move |v| (v - mean) as f32)
            });
            Embeddings::new(rows.collect(), 10).expect("six rows")
        };
        let original = |i: f64, k: f64| (1.7 * i + 0.9 * k + 0.35 * i * k).sin();
        let guess = |i: f64, k: f64| original(i, k) + 1.2 * (2.3 * i + 1.1 * k + 0.5 * k * k).cos();
        (table(&guess), table(&original))
    }

    #[test]
    fn guesses_are_ranked_among_originals_and_not_the_other_way_round() {
        let golden: serde_json::Value = serde_json::from_str(include_str!("../../tests/golden/image_metrics.json"))
            .expect("the golden file parses");
        let golden = &golden["identification"];
        let is = |name: &str, got: f64| {
            let want = golden[name].as_f64().unwrap_or_else(|| panic!("no golden `{name}`"));
            assert!((got - want).abs() < 1e-12, "{name}: {got} {want}");
        };
        let (guesses, originals) = golden_pairs();
        let ranks = matched(&guesses, &originals).expect("paired");
        assert_eq!(serde_json::json!(ranks), golden["ranks"]);
        is("two_way", average(&matched_wins(&guesses, &originals, 2).expect("paired")));
        is("two_way_other_orientation", average(&matched_wins(&originals, &guesses, 2).expect("paired")));
        is("top1", average(&top(&ranks, 1)));
        is("mrr", average(&reciprocal(&ranks)));
        is("mean_log2_rank", ranks.iter().map(|&rank| (rank as f64).log2()).sum::<f64>() / 6.0);
        for n in [6, 100, 1000, 10_000] {
            let want = golden["chance_bits"][n.to_string()].as_f64().expect("a golden number");
            assert!((super::super::infer::chance_exposure_bits(n) - want).abs() < 1e-9, "{n}");
        }
    }

    #[test]
    fn a_tie_and_a_missing_number_win_half_of_the_time() {
        let of = |scores: &[f32], ways| wins(scores, 0, ways).expect("enough candidates");
        assert!((of(&[0.5, 0.5, 0.5], 2) - 0.5).abs() < 1e-12);
        assert!((of(&[f32::NAN, 0.1, 0.9], 2) - 0.5).abs() < 1e-12);
        assert!((of(&[0.5, f32::NAN, 0.1, 0.9], 2) - 0.5).abs() < 1e-12);
        assert!((of(&[0.5, 0.5, 0.1], 3) - 0.5).abs() < 1e-12);
        assert!((of(&[0.5, 0.5, 0.5, 0.1, 0.2], 5) - 0.25).abs() < 1e-12);
        assert_eq!(wins(&[0.5, 0.1], 0, 3), None);
    }

    #[test]
    fn all_ways_are_top_1_and_few_are_easier() {
        let scores = [0.6, 0.9, 0.1, 0.2, 0.3, 0.4];
        assert_eq!(wins(&scores, 0, 6), Some(0.0));
        let few: Vec<f64> = (2..6).map(|ways| wins(&scores, 0, ways).expect("enough")).collect();
        for (got, want) in few.iter().zip([4.0 / 5.0, 6.0 / 10.0, 4.0 / 10.0, 1.0 / 5.0]) {
            assert!((got - want).abs() < 1e-12, "{few:?}");
        }
        assert!((wins(&scores, 1, 6).expect("enough") - 1.0).abs() < 1e-12);
    }
}
