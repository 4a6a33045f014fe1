//! Bounds as oracles: a measured success above what the noise allows is a fault of the program, not of the protection.

use super::Error;
use super::bench::Bench;
use super::cell::Outcome;
use crate::measure::statistics::clopper_pearson_lower;
use crate::protect::Claim;

/// Probability with which a success within its bound is called a fault, for each figure that is checked.
const ALPHA: f64 = 1e-4;
/// Shares of targets picked among all targets by a function of one released row.
const PICKED: [&str; 2] = ["identified_top1", "matched_top1"];

/// Every share of picked targets whose lower limit lies above the bound of its protection.
///
/// Groups are left out: their topic may be public and tells much, about which the bound does not speak.
///
/// # Errors
/// [`Error::Inconsistent`] with all of them; records and summary are written before.
pub fn check(bench: &Bench, outcomes: &[Outcome]) -> Result<(), Error> {
    let dim = bench.victim.info().dim;
    let mut faults = Vec::new();
    for outcome in outcomes {
        let Some(protection) = bench.study.protect.iter().find(|p| p.name == outcome.protection) else { continue };
        if protection.pipeline.has_groups() {
            continue;
        }
        let claim = protection.pipeline.claim_at(dim).after(protection.releases as u32);
        for metric in PICKED {
            let Some(scores) = outcome.test.get(metric) else { continue };
            if let Some(fault) = fault(&claim, dim, scores) {
                faults.push(format!(
                    "{} x {}, seed {}: {metric} {fault}",
                    outcome.protection, outcome.attack, outcome.seed
                ));
            }
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(Error::Inconsistent { what: faults.join("; ") }) }
}

/// What is wrong with a list of hits among as many candidates, if its lower limit lies above the bound.
///
/// # Formula
/// The candidates' decision regions are disjoint, so that their mean probability under a release that knows nothing is
/// `1/N`; the mean success is then at most the trade-off there, which is concave.
fn fault(claim: &Claim, dim: usize, scores: &[Option<f64>]) -> Option<String> {
    let n = scores.len();
    let hits: f64 = scores.iter().flatten().sum();
    if n < 2 {
        return None;
    }
    let bound = claim.most_identified(n, dim)?;
    let low = clopper_pearson_lower(hits, n as f64, ALPHA);
    (low > bound)
        .then(|| format!("is {:.4} of {n} (at least {low:.4}), where the noise allows {bound:.4}", hits / n as f64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::adapt;
    use crate::encode::Embeddings;
    use crate::measure::identify;
    use crate::protect::Pipeline;
    use crate::seed;
    use rand_distr::{Distribution, StandardNormal};

    /// A thousand unit rows with coordinates of variance `1/j` and a common offset.
    fn cloud() -> Embeddings {
        let d = 384;
        let mut rng = seed::stream(1, "oracle", "cloud");
        let mut normal = || -> f64 { StandardNormal.sample(&mut rng) };
        let offset: Vec<f64> = (0..d).map(|_| 0.015 * normal()).collect();
        let mut values = Vec::with_capacity(1000 * d);
        for _ in 0..1000 {
            let row: Vec<f64> = (0..d).map(|j| normal() / ((j + 1) as f64).sqrt() + offset[j]).collect();
            let length = row.iter().map(|v| v * v).sum::<f64>().sqrt();
            values.extend(row.iter().map(|v| (v / length) as f32));
        }
        Embeddings::new(values, d).expect("finite")
    }

    const NOISE: &str = "clip(l2=1) | gaussian(sigma=0.5)";

    fn identified(pipeline: &str, clean: &Embeddings, releases: usize) -> Vec<Option<f64>> {
        let pipeline: Pipeline = pipeline.parse().expect("valid");
        let strata = vec![0; clean.len()];
        let seen = adapt::release(&pipeline, clean, &strata, releases, |k| seed::stream(2, "oracle", &format!("{k}")));
        let own: Vec<usize> = (0..clean.len()).collect();
        identify::top(&identify::closed_set(&seen.expect("finite"), clean, &own).expect("one dimension"), 1)
    }

    fn share(scores: &[Option<f64>]) -> f64 {
        scores.iter().flatten().sum::<f64>() / scores.len() as f64
    }

    #[test]
    fn measured_identification_stays_below_the_bound_and_comes_near_it() {
        let clean = cloud();
        let claim = |text: &str, k| text.parse::<Pipeline>().expect("valid").claim_at(384).after(k);
        for (k, simulated, bound) in [(1, 0.108, 0.138), (4, 0.667, 0.819)] {
            let scores = identified(NOISE, &clean, k as usize);
            assert!((share(&scores) - simulated).abs() < 0.05, "{k}: {}", share(&scores));
            let most = claim(NOISE, k).most_identified(1000, 384).expect("a bound");
            assert!((most - bound).abs() < 1e-3, "{most}");
            assert_eq!(fault(&claim(NOISE, k), 384, &scores), None);
        }
        // Four releases under a claim for one are a fault.
        let wrong = fault(&claim(NOISE, 1), 384, &identified(NOISE, &clean, 4)).expect("above its bound");
        assert!(wrong.contains("where the noise allows 0.1378"), "{wrong}");
    }

    #[test]
    fn every_kind_of_noise_keeps_to_its_own_bound() {
        let clean = cloud();
        for pipeline in [
            "normalize | vmf(kappa=40)",
            "normalize | purkayastha(kappa=40)",
            "clip(l2=1) | laplace_l1(epsilon=40)",
            "clip(l2=1) | laplace_l2(rate=40)",
            "normalize | privunit(epsilon=6)",
            "normalize | privunit_g(epsilon=6)",
            "clip(l2=1) | djw(epsilon=2)",
            "sign(epsilon=0.3)",
            "clip(l2=1) | discrete_gaussian(epsilon=20)",
        ] {
            let scores = identified(pipeline, &clean, 1);
            let claim = pipeline.parse::<Pipeline>().expect("valid").claim_at(384);
            let bound = claim.most_identified(1000, 384).expect("a bound");
            assert!(bound < 0.9, "{pipeline}: a bound of {bound} tests nothing");
            assert_eq!(fault(&claim, 384, &scores), None, "{pipeline}: {} of {bound}", share(&scores));
        }
    }
}
