//! Scores of inferences: balanced accuracy, area under the ROC curve, true positives at few false ones, exposure.
//!
//! Statistics take [`Weights`], so that the bootstrap over documents serves them as it serves means.

use super::statistics::{Weights, clopper_pearson_lower, clopper_pearson_upper};
use statrs::distribution::{ContinuousCDF, Normal};

/// Mean over classes of the share of their targets that were hit.
///
/// # Formula
/// `1/K sum_c (sum_{i in c} w_i hit_i / sum_{i in c} w_i)` over the classes that carry weight; chance is `1 / K`.
///
/// # Shapes
/// One `(class, hit)` for each target, `None` where the target has no class.
pub fn balanced_accuracy(answers: &[Option<(u32, bool)>], classes: usize, weights: &Weights) -> Option<f64> {
    let mut counts = vec![(0.0, 0.0); classes];
    for (answer, &weight) in answers.iter().zip(weights.targets()) {
        if let Some((class, hit)) = *answer {
            counts[class as usize].0 += weight * f64::from(u8::from(hit));
            counts[class as usize].1 += weight;
        }
    }
    let rates: Vec<f64> = counts.iter().filter(|(_, all)| *all > 0.0).map(|(hits, all)| hits / all).collect();
    (!rates.is_empty()).then(|| rates.iter().sum::<f64>() / rates.len() as f64)
}

/// Area under the ROC curve, sorted once for any number of weightings.
///
/// # Formula
/// `P(s+ > s-) + P(s+ = s-) / 2` over pairs of a positive and a negative target; .5 is chance.
#[derive(Debug, Clone)]
pub struct Auc {
    /// `(score, target, is positive)`, ascending.
    order: Vec<(f64, usize, bool)>,
}

impl Auc {
    /// One `(score, is positive)` for each target, `None` where it does not apply.
    pub fn new(scores: &[Option<(f64, bool)>]) -> Self {
        let mut order: Vec<(f64, usize, bool)> =
            scores.iter().enumerate().filter_map(|(i, s)| s.map(|(score, positive)| (score, i, positive))).collect();
        order.sort_by(|a, b| a.0.total_cmp(&b.0));
        Self { order }
    }

    /// The area under `weights`; `None` when one side carries no weight.
    pub fn area(&self, weights: &Weights) -> Option<f64> {
        let (mut below, mut positives, mut area) = (0.0, 0.0, 0.0);
        for tied in self.order.chunk_by(|a, b| a.0 == b.0) {
            let of = |positive: bool| -> f64 {
                tied.iter().filter(|t| t.2 == positive).map(|t| weights.targets()[t.1]).sum::<f64>()
            };
            let (plus, minus) = (of(true), of(false));
            area += plus * (below + 0.5 * minus);
            below += minus;
            positives += plus;
        }
        (below * positives > 0.0).then(|| area / (below * positives))
    }
}

/// The score that at most a share `rate` of `negatives` exceed; `negatives` are reordered.
///
/// # Range
/// A positive counts as found when it is strictly above. Infinite without negatives: nothing is then found.
pub fn threshold(negatives: &mut [f32], rate: f64) -> f32 {
    let allowed = (rate * negatives.len() as f64).floor() as usize;
    if allowed >= negatives.len() {
        return f32::INFINITY;
    }
    *negatives.select_nth_unstable_by(allowed, |a, b| b.total_cmp(a)).1
}

/// The largest true positive rate at a false positive rate that a `mu`-GDP release allows.
///
/// # Formula
/// `Phi(Phi^-1(fpr) + mu)`; concave in `fpr`, so that it also bounds rates averaged over records.
///
/// # Source
/// Dong, Roth and Su 2019, definition 2.1 and equation 6.
pub fn most_found(fpr: f64, mu: f64) -> f64 {
    let normal = Normal::standard();
    normal.cdf(normal.inverse_cdf(fpr) + mu)
}

/// The largest share of pairs of records of which the released one can be told from the other under `mu`-GDP.
///
/// # Formula
/// `Phi(mu / 2)`: two normal laws `mu` apart, told apart at the point between them.
pub fn most_told_apart(mu: f64) -> f64 {
    Normal::standard().cdf(0.5 * mu)
}

/// True when a measured rate contradicts a `mu`-GDP claim: its lower Clopper-Pearson bound (97.5 %) lies above the
/// curve, read at the upper bound of the false positive rate. Such a release does not do what it says.
pub fn exceeds_claim(found: f64, targets: f64, fpr: f64, decoys: f64, mu: f64) -> bool {
    let low = clopper_pearson_lower(found * targets, targets, 0.025);
    low > most_found(clopper_pearson_upper(fpr * decoys, decoys, 0.025), mu)
}

/// How much closer an attacker's ranking brings it to the secret, in bits.
///
/// # Formula
/// `log2 N - log2 rank` (Carlini et al. 2019): `log2 N` for a secret ranked first, 0 for one ranked last.
pub fn exposure_bits(rank: usize, candidates: usize) -> f64 {
    (candidates as f64 / rank as f64).log2()
}

/// Exposure of a guessed ranking: the mean over all ranks, `log2 N - log2(N!) / N`, close to `log2 e`.
pub fn chance_exposure_bits(candidates: usize) -> f64 {
    (1..=candidates).map(|rank| exposure_bits(rank, candidates)).sum::<f64>() / candidates.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::statistics::Design;

    #[test]
    fn a_rare_class_counts_as_much_as_a_common_one() {
        let answers = [Some((0, true)), Some((0, true)), Some((0, true)), Some((1, false)), None];
        let all = Design::independent(5, 1).once();
        assert_eq!(balanced_accuracy(&answers, 3, &all), Some(0.5));
        assert_eq!(balanced_accuracy(&[None; 5], 3, &all), None);
    }

    #[test]
    fn the_area_counts_ordered_pairs_and_halves_ties() {
        let scores = [Some((0.1, false)), Some((0.4, false)), Some((0.35, true)), Some((0.8, true)), None];
        let all = Design::independent(5, 1).once();
        assert_eq!(Auc::new(&scores).area(&all), Some(0.75));
        assert_eq!(
            Auc::new(&[Some((1.0, true)), Some((1.0, false))]).area(&Design::independent(2, 1).once()),
            Some(0.5)
        );
        assert_eq!(Auc::new(&[Some((1.0, true)); 2]).area(&Design::independent(2, 1).once()), None);
    }

    #[test]
    fn at_most_the_asked_share_of_negatives_lies_above_the_threshold() {
        let mut negatives: Vec<f32> = (0..1000).map(|i| ((i * 7919) % 1000) as f32).collect();
        assert_eq!(threshold(&mut negatives, 0.01), 989.0);
        assert_eq!(threshold(&mut negatives, 0.0001), 999.0);
        assert_eq!(threshold(&mut [], 0.01), f32::INFINITY);
        assert_eq!(threshold(&mut [2.0, 2.0, 2.0], 0.4), 2.0);
    }

    #[test]
    fn a_rate_above_the_claims_curve_is_noticed_and_one_below_is_not() {
        assert!((most_found(0.01, 1.0) - 0.0924).abs() < 5e-4);
        assert!((most_found(0.01, 0.0) - 0.01).abs() < 1e-9);
        assert!((most_told_apart(0.26805) - 0.5533).abs() < 5e-5);
        assert!(exceeds_claim(0.30, 500.0, 0.01, 4000.0, 1.0));
        assert!(!exceeds_claim(0.10, 500.0, 0.01, 4000.0, 1.0));
        assert!(!exceeds_claim(0.30, 10.0, 0.01, 4000.0, 1.0), "ten targets prove little");
    }

    #[test]
    fn exposure_is_the_bits_that_a_ranking_saves() {
        assert_eq!(exposure_bits(1, 1024), 10.0);
        assert_eq!(exposure_bits(1024, 1024), 0.0);
        assert!((chance_exposure_bits(1000) - std::f64::consts::LOG2_E).abs() < 0.01);
    }
}
