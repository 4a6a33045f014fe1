//! `topic_mean`: the mean of every public topic, with noisy sums and noisy counts.

use super::arguments::{Arguments, number};
use super::claim::{Domain, Guarantee, State};
use super::gaussian::{DEFAULT_DELTA, NOTHING_TO_SCALE_TO};
use super::mechanism::Mechanism;
use super::stage::{Parameters, Release, Stage, out_of_range};
use super::{Error, account};
use crate::encode::Embeddings;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use rand_distr::{Distribution, StandardNormal};
use std::collections::BTreeMap;

/// Releases one row for each topic: the noisy sum of its rows over their noisy number.
///
/// # Formula
/// `(S + N(0, s^2 I)) / max(n + N(0, t^2), least)`, shortened to the radius `C` of the domain. With `mu` that of
/// `(epsilon, delta)`, the sums get the share `share` of `mu^2`: `s = D / (mu sqrt share)`, `t = sqrt 2 / (mu sqrt(1 - share))`.
/// `D` is how far one record moves the sums. Where it keeps its topic, that is the rows' sensitivity, `2 C` behind a clip;
/// where it changes it, one sum loses a row of length `C` at most and another gains one, `sqrt 2 C` together: `D` is the
/// larger of the two. Without `epsilon` there is no noise: what an attacker takes for the signal.
///
/// # Shapes
/// `(n, d)` in; one row for each stratum out, ascending; a single one without strata.
///
/// # Guarantee
/// `mu`-GDP, replace-one, the record that replaces may have another topic: `D` covers both sums, `sqrt 2` both counts. The
/// counts are not released, and not public. Which topics occur is.
///
/// # Errors
/// With `epsilon`, rows that lie in no ball about the origin: behind `center` or behind noise a sensitivity alone says nothing
/// about a record that changes its topic.
///
/// # Source
/// The Gaussian mechanism for sums and counts (Balle and Wang 2018 for the calibration). Sums are in `f64`, and the
/// sensitivity has a billionth of slack for their rounding.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TopicMean {
    /// Epsilon and delta of one release.
    pub budget: Option<(f64, f64)>,
    /// The share of the budget that sums get.
    pub share: f64,
    /// Divisors are at least this; topics should have this many rows.
    pub least: usize,
}

impl TopicMean {
    pub(super) fn read(arguments: &mut Arguments<'_>) -> Self {
        let epsilon = arguments.optional_number("epsilon");
        let delta = arguments.optional_number("delta").unwrap_or(DEFAULT_DELTA);
        Self {
            budget: epsilon.map(|epsilon| (epsilon, delta)),
            share: arguments.optional_number("share").unwrap_or(0.8),
            least: arguments.count("least", "20"),
        }
    }
}

impl Parameters for TopicMean {
    fn arguments(&self) -> Vec<(&'static str, String)> {
        let budget = self.budget.map(|(epsilon, delta)| [("epsilon", number(epsilon)), ("delta", number(delta))]);
        let rest = [("share", number(self.share)), ("least", self.least.to_string())];
        budget.into_iter().flatten().chain(rest).collect()
    }

    fn check(&self) -> Vec<(&'static str, String)> {
        let (epsilon, delta) = self.budget.unwrap_or((1.0, DEFAULT_DELTA));
        [
            out_of_range("epsilon", epsilon, 1e-5, 1e5),
            out_of_range("delta", delta, 1e-15, 0.5),
            out_of_range("share", self.share, 0.01, 0.99),
            out_of_range("least", self.least as f64, 1.0, 1e9),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn build(&self, before: &State) -> Result<Box<dyn Stage>, String> {
        let Some((epsilon, delta)) = self.budget else {
            return Ok(Box::new(Means { plan: *self, mu: 0.0, delta: None, sums: 0.0, counts: 0.0, radius: None }));
        };
        let (sensitivity, radius) = before.sensitivity.as_ref().zip(before.domain.radius()).ok_or_else(|| {
            // There is no sigma to give instead.
            NOTHING_TO_SCALE_TO.trim_end_matches(", or give `sigma`").to_owned()
        })?;
        let moved = sensitivity.l2.max(std::f64::consts::SQRT_2 * radius);
        let mu = account::sigma(epsilon, delta, 1.0).recip();
        Ok(Box::new(Means {
            plan: *self,
            mu,
            delta: Some(delta),
            sums: moved * (1.0 + 1e-9) / (mu * self.share.sqrt()),
            counts: std::f64::consts::SQRT_2 / (mu * (1.0 - self.share).sqrt()),
            radius: Some(radius),
        }))
    }
}

/// [`TopicMean`] with its noise settled.
#[derive(Debug)]
struct Means {
    plan: TopicMean,
    mu: f64,
    delta: Option<f64>,
    /// Standard deviation of a coordinate of a sum.
    sums: f64,
    /// Standard deviation of a count.
    counts: f64,
    /// What means are shortened to.
    radius: Option<f64>,
}

impl Stage for Means {
    fn name(&self) -> &'static str {
        "topic_mean"
    }

    fn apply(&self, release: Release, rng: &mut dyn Rng) -> Result<Release, Error> {
        let mut key = [0_u8; 32];
        rng.fill_bytes(&mut key);
        let (d, mut topics) = (release.vectors.dim(), BTreeMap::<u32, Vec<usize>>::new());
        for row in 0..release.vectors.len() {
            topics.entry(release.strata.as_ref().map_or(0, |strata| strata[row])).or_default().push(row);
        }
        let (mut values, mut members) = (Vec::with_capacity(topics.len() * d), Vec::with_capacity(topics.len()));
        for (&topic, rows) in &topics {
            let mut noise = ChaCha20Rng::from_seed(key);
            noise.set_stream(u64::from(topic));
            let mut normal = || -> f64 { StandardNormal.sample(&mut noise) };
            let mut sum = vec![0.0_f64; d];
            for &row in rows {
                sum.iter_mut().zip(release.vectors.row(row)).for_each(|(s, &v)| *s += f64::from(v));
            }
            let count = (rows.len() as f64 + self.counts * normal()).max(self.plan.least as f64);
            let mean: Vec<f32> = sum.into_iter().map(|s| ((s + self.sums * normal()) / count) as f32).collect();
            let mut row = mean.clone();
            if let Some(radius) = self.radius {
                super::clip::shorten_to(&mean, radius, &mut row);
            }
            values.extend(row);
            let mut behind: Vec<u32> = rows.iter().flat_map(|&row| release.members[row].iter().copied()).collect();
            behind.sort_unstable();
            members.push(behind);
        }
        let vectors = Embeddings::new(values, d).map_err(|e| Error::Input(format!("a topic's mean overflows: {e}")))?;
        let strata = release.strata.is_some().then(|| topics.into_keys().collect());
        Ok(Release { vectors, members, strata, ..release })
    }

    fn guarantee(&self, before: &State) -> State {
        let least = self.plan.least;
        let mut state = before.clone();
        state.members *= least;
        state.shared = true;
        if before.domain == Domain::Sphere {
            state.domain = Domain::L2 { radius: 1.0 };
        }
        let radius = self.radius.map_or(state.domain, |radius| Domain::L2 { radius });
        let Some(delta) = self.delta else {
            // Of topics that have so many rows.
            state.sensitivity = None;
            return state;
        };
        let (mut after, _) = state.noised(Some(self.sums / least as f64), false);
        after = after.rescaled(radius);
        after.sensitivity = None;
        let mu = self.mu;
        let members = before.members * least;
        after.earn(Guarantee::Gdp { mu }, Some(Mechanism::Gaussian { mu }), false, members);
        after.delta = Some(delta);
        after
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protect::Pipeline;
    use crate::seed;

    fn release(pipeline: &str, clean: &Embeddings, strata: &[u32], root: u64) -> Release {
        let pipeline = Pipeline::parse(pipeline).expect("valid");
        pipeline.release(clean, Some(strata), &mut seed::stream(root, "topic", "noise")).expect("finite rows")
    }

    #[test]
    fn without_noise_topics_are_their_means_and_small_ones_shrink() {
        let clean = Embeddings::new(vec![1.0, 0.0, 0.0, 1.0, 0.6, 0.8], 2).expect("finite");
        let out = release("topic_mean(least=2)", &clean, &[7, 7, 3], 1);
        assert_eq!(out.vectors.values(), [0.3, 0.4, 0.5, 0.5]);
        assert_eq!((out.strata.as_deref(), &out.members), (Some(&[3, 7][..]), &vec![vec![2], vec![0, 1]]));
    }

    /// The published noise on a mean of 1000 rows at d = 384, epsilon 1, is .146 for sums alone. Counts with a deviation of 53
    /// take two hundredths off, since only those above 1000 count; 40 draws of a length that varies by .004.
    #[test]
    fn the_noise_of_a_mean_is_that_of_its_sum_over_the_rows() {
        let (n, d) = (1000, 384);
        let clean = Embeddings::new(vec![0.0; n * d], d).expect("finite");
        let lengths: Vec<f64> = (0..40)
            .map(|root| {
                let pipeline = "clip(l2=1) | topic_mean(epsilon=1, share=0.99, least=1000)";
                super::super::clip::norm(release(pipeline, &clean, &[0; 1000], root).vectors.row(0))
            })
            .collect();
        let (mean, error) = super::super::law::mean(&lengths);
        assert!((mean - 0.98 * 0.146_95).abs() < 5.0 * error + 0.001, "{mean} {error}");
    }

    #[test]
    fn sums_and_counts_share_the_budget_that_is_claimed() {
        let claim = Pipeline::parse("clip(l2=1) | topic_mean(epsilon=1, delta=1e-5, least=20)").expect("valid").claim();
        assert!((claim.epsilon(1e-5).expect("a claim") - 1.0).abs() < 1e-9);
        let means = TopicMean { budget: Some((1.0, 1e-5)), share: 0.8, least: 20 };
        let before = Pipeline::parse("clip(l2=1)").expect("valid").state();
        let built = format!("{:?}", means.build(&before).expect("a bound"));
        let of = |key: &str| -> f64 {
            let rest = built.split(&format!("{key}: ")).nth(1).expect("the field");
            rest.split([',', ' ']).next().expect("a value").parse().expect("a number")
        };
        let spent = (2.0 / of("sums")).powi(2) + 2.0 / of("counts").powi(2);
        assert!((spent.sqrt() / claim.mu().expect("a claim") - 1.0).abs() < 1e-8);
        assert!(Pipeline::parse("topic_mean(epsilon=1, least=20)").is_err(), "rows of any length");
    }

    #[test]
    fn rows_that_may_lie_anywhere_are_refused_whatever_moves_them() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("public.npy");
        let public = Embeddings::new(vec![0.5, 1.0, 1.5, 1.0], 2).expect("finite");
        crate::data::vectors::write(&path, &public, None).expect("writable");
        let centred = format!("clip(l2=1) | center(public={})", path.display());
        for before in [centred.as_str(), "clip(l2=1) | gaussian(sigma=1)"] {
            let why = Pipeline::parse(&format!("{before} | topic_mean(epsilon=1, least=20)"))
                .expect_err("no ball")
                .to_string();
            assert!(why.contains("put `clip(l2=1)` or `normalize` before it"), "{why}");
            Pipeline::parse(&format!("{before} | clip(l2=1) | topic_mean(epsilon=1, least=20)")).expect("a ball");
        }
    }

    #[test]
    fn a_record_that_changes_its_topic_moves_two_sums_by_a_whole_row() {
        let built = |before: &str| {
            let before = Pipeline::parse(before).expect("valid").state();
            let means = TopicMean { budget: Some((1.0, 1e-5)), share: 0.8, least: 20 };
            format!("{:?}", means.build(&before).expect("a ball"))
        };
        let of = |built: &str, key: &str| -> f64 {
            let rest = built.split(&format!("{key}: ")).nth(1).expect("the field");
            let number = rest.trim_start_matches("Some(").split([',', ' ', ')']).next().expect("a value");
            number.parse().expect("a number")
        };
        // Rows of length 1 that one record moves by a tenth: in one topic by that, in two by sqrt 2.
        let (clip, means) = (built("clip(l2=1)"), built("clip(l2=1) | prototype(members=20)"));
        assert!((of(&means, "sums") / of(&clip, "sums") - 0.5 * std::f64::consts::SQRT_2).abs() < 1e-12);
        assert_eq!((of(&clip, "radius"), of(&means, "radius")), (1.0, 1.0));
    }
}
