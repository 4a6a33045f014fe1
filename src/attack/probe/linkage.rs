//! Whose vector is it: two releases of one text, a text and the store, two texts of one sender.

use super::gaussian::{all_products, centred, precision, squares, times};
use super::{Field, Findings, Inference, Probe};
use crate::attack::{Error, Knowledge, Progress, View, adapt, linear};
use crate::encode::Embeddings;
use crate::measure::{identify, infer};
use crate::seed;
use serde::{Deserialize, Serialize};

/// False positive rates at which true positives are counted, with their names in metrics.
pub(super) const RATES: [(f64, &str); 2] = [(0.01, "1"), (0.001, "0_1")];
/// The attacker's own records that rehearse as targets, and those that are texts which nobody stored.
const REHEARSED: usize = 500;
const DECOYS: usize = 4000;

/// Tells whether released vectors belong together.
///
/// # Formula
/// *Same text*, scored for every pair of rows of two releases: with records `x ~ N(m, S)` and noise `sigma`, both
/// known or estimated on auxiliary records, the log-likelihood ratio of "one text" against "two texts" is, up to a
/// constant and with `T = S + sigma^2 I`, `u = (y1 + y2) / sqrt 2 - sqrt 2 m`, `w = (y1 - y2) / sqrt 2`,
///
/// `-1/2 [ u' ((T + S)^-1 - T^-1) u + w' (sigma^-2 I - T^-1) w ]`.
///
/// For isotropic `S` this is `y1.y2` with a correction of both norms.
///
/// *Presence*, scored for a text `x` and every row `y` of a store: "`y` was made from `x`" against "`y` was made from
/// another record". With `k` members behind a row, `r = (y - m) - (x - m) / k`, `C = (k-1)/k^2 S + sigma^2 I` and
/// `T = S/k + sigma^2 I` it is `-1/2 r' C^-1 r + 1/2 (y - m)' T^-1 (y - m)`: for `k = 1` and unit vectors `x.y` less what
/// any record would score, for prototypes the matched filter of one member in a mean.
///
/// Each ratio is compared with the plain product on fresh releases of the attacker's own records, and the better of the
/// two is used. Without noise the score is the distance.
///
/// # Range
/// True positive rate at 1 % and 0.1 % false positives, over all cross pairs; 0 to 1, higher = worse privacy. The
/// threshold comes from the cross pairs themselves, its own uncertainty is not in the interval.
///
/// # Source
/// The two-covariance model of speaker verification (Brümmer and de Villiers 2010); likelihood-ratio membership tests
/// after Carlini et al. 2022.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Linkage {}

impl Probe for Linkage {
    fn needs(&self) -> Knowledge {
        Knowledge { auxiliary: true, pipeline: true, encoder: true, released: true, leaked_pairs: 0 }
    }

    fn run(&self, view: &View, field: &Field, _: &dyn Progress) -> Result<Findings, Error> {
        // 1. Fitted on the attacker's own records.
        let linker = Linker::fit(view)?;

        // 2. Answers: one score for each pair. Prototypes are released once, so that there is no second release to link.
        let n = field.records.len();
        let again = field.release(field.clean, field.strata, "second release")?;
        let pairs = (linker.members == 1).then(|| linker.pairs.table(field.released, &again));
        let decoys = view.clean.select(&linker.decoys);
        let stored = linker.presence.table(field.clean, field.released);
        let strangers = linker.presence.table(&decoys, field.released);

        // 3. Scores: whether the true pair lies above the threshold.
        let mut findings = Findings::default();
        let own: Vec<f32> = (0..n).map(|i| stored[i * n + i]).collect();
        // Against strangers of every topic a prototype also gives away its topic, about which no guarantee speaks.
        let mu = (linker.members == 1).then(|| field.pipeline.claim().after(field.releases as u32).mu()).flatten();
        let documents = field.documents() as f64;
        for (rate, name) in RATES {
            let percent = name.replace('_', ".");
            if let Some(pairs) = &pairs {
                let question = format!(
                    "Are two releases of the same text? Found at {percent} % false alarms, {} cross pairs",
                    n * n - n
                );
                let hits = found(&diagonal(pairs, n), &mut cross(pairs, n), rate);
                findings.per_target(
                    format!("linkage_same_text_tpr_at_{name}_percent"),
                    hits,
                    Inference::share(question, rate),
                );
            }
            let hits = found(&own, &mut strangers.clone(), rate);
            let tpr = super::mean(&hits).unwrap_or(0.0);
            let question =
                format!("Is this text in the store? Found at {percent} % false alarms, {} decoy texts", decoys.len());
            let meaning = Inference {
                allowed: mu.map(|mu| infer::most_found(rate, mu)),
                exceeds_claim: mu.is_some_and(|mu| infer::exceeds_claim(tpr, documents, rate, decoys.len() as f64, mu)),
                ..Inference::share(question, rate)
            };
            findings.per_target(format!("linkage_presence_tpr_at_{name}_percent"), hits, meaning);
        }
        if let Some(pairs) = &pairs {
            let ranks: Vec<usize> = (0..n).map(|i| identify::rank(&pairs[i * n..(i + 1) * n], i)).collect();
            let question = format!("Which of {n} rows of a second release is the same text?");
            findings.per_target(
                "linkage_same_text_top1".to_owned(),
                identify::top(&ranks, 1),
                Inference::share(question, 1.0 / n as f64),
            );
            same_owner(field, &mut findings);
        }
        Ok(findings)
    }
}

/// Two records of one sender in different documents: how many are told apart from records of different senders.
fn same_owner(field: &Field, findings: &mut Findings) {
    let rate = RATES[0].0;
    let n = field.records.len();
    let owner = |i: usize| field.records[i].owner.as_deref();
    if (0..n).all(|i| owner(i).is_none()) {
        return;
    }
    let scores = all_products(field.released, field.released);
    let known: Vec<usize> = (0..n).filter(|&i| owner(i).is_some()).collect();
    let others = |i: usize, same: bool| {
        let apart =
            move |j: &usize| *j != i && field.clusters[*j] != field.clusters[i] && (owner(*j) == owner(i)) == same;
        known.iter().copied().filter(apart)
    };
    let mut negatives: Vec<f32> =
        known.iter().flat_map(|&i| others(i, false).map(move |j| (i, j))).map(|(i, j)| scores[i * n + j]).collect();
    let bar = infer::threshold(&mut negatives, rate);
    let hits = (0..n)
        .map(|i| {
            owner(i)?;
            let partners: Vec<usize> = others(i, true).collect();
            let above = partners.iter().filter(|&&j| scores[i * n + j] > bar).count();
            (!partners.is_empty()).then(|| above as f64 / partners.len() as f64)
        })
        .collect();
    let question = "Are two vectors from one sender, in different documents? Found at 1 % false alarms".to_owned();
    findings.per_target("linkage_same_owner_tpr_at_1_percent".to_owned(), hits, Inference::share(question, rate));
}

/// What the attacker learned: how to score a pair of rows, and a text with a row.
pub(super) struct Linker {
    pairs: Score,
    pub(super) presence: Score,
    members: usize,
    /// Auxiliary records that took no part in the fit's covariances: texts that are in nobody's store.
    pub(super) decoys: Vec<usize>,
}

impl Linker {
    pub(super) fn fit(view: &View) -> Result<Self, Error> {
        let noise = view.pipeline.noise_at(view.clean.dim());
        let sigma = noise.as_ref().map_or(0.0, |n| n.sigma_per_coordinate) / (view.releases as f64).sqrt();
        let members = noise.as_ref().map_or(1, |n| n.members).max(1);
        // A third of the records each to learn the law of the vectors from, to rehearse on, and to be unknown texts.
        let n = view.auxiliary.len();
        let rehearsed: Vec<usize> = (0..n).step_by(3).take(REHEARSED.max(members)).collect();
        let decoys: Vec<usize> = (1..n).step_by(3).take(DECOYS).collect();
        let rest: Vec<usize> = (2..n).step_by(3).collect();
        let d = view.clean.dim();
        if sigma <= 0.0 {
            return Ok(Self { pairs: Score::Distance, presence: Score::Distance, members, decoys });
        }
        let (mean, cov) = linear::moments(&super::alone(view, view.clean.select(&rest), "linkage signal")?);
        let k = members as f64;
        let pairs = Score::pair(&mean, &cov, d, sigma);
        let presence = Score::presence(&mean, &cov, d, sigma, k);

        let clean = view.clean.select(&rehearsed);
        let strata: Vec<u32> = rehearsed.iter().map(|&i| view.strata[i]).collect();
        let draw = |purpose: &str| {
            adapt::release(view.pipeline, &clean, &strata, view.releases, |k| {
                seed::stream(view.seed, &view.fingerprint, &format!("linkage {purpose} {k}"))
            })
        };
        let (first, second) = (draw("first")?, draw("second")?);
        let m = rehearsed.len();
        let of_pairs = |score: &Score| {
            let table = score.table(&first, &second);
            super::mean(&found(&diagonal(&table, m), &mut cross(&table, m), RATES[0].0)).unwrap_or(0.0)
        };
        let unknown = view.clean.select(&decoys);
        let of_presence = |score: &Score| {
            let own = diagonal(&score.table(&clean, &first), m);
            super::mean(&found(&own, &mut score.table(&unknown, &first), RATES[0].0)).unwrap_or(0.0)
        };
        let better = |ratio: Score, of: &dyn Fn(&Score) -> f64| {
            if of(&ratio) >= of(&Score::Product) { ratio } else { Score::Product }
        };
        Ok(Self { pairs: better(pairs, &of_pairs), presence: better(presence, &of_presence), members, decoys })
    }
}

/// A score for every pair of a left and a right row; higher = rather together.
pub(super) enum Score {
    /// `l.r`.
    Product,
    /// `-|l - r|^2 / 2`: exact where there is no noise.
    Distance,
    /// `a_l + b_r + (s (l - m))' M (r - m)`, the quadratic terms with matrices of their own.
    Quadratic { mean: Vec<f64>, scale: f64, left: Vec<f32>, right: Vec<f32>, between: Vec<f32> },
}

impl Score {
    /// The ratio of "one text" against "two texts" for two releases.
    fn pair(mean: &[f64], cov: &[f64], d: usize, sigma: f64) -> Self {
        let v = sigma * sigma;
        let (total, sum) = (precision(cov, d, 1.0, v), precision(cov, d, 2.0, v));
        let of = |sign: f32| -> Vec<f32> {
            (0..d * d)
                .map(|at| {
                    let own = if at % (d + 1) == 0 { (1.0 / v) as f32 } else { 0.0 };
                    let (u, w) = (sum[at] - total[at], own - total[at]);
                    u + sign * w
                })
                .collect()
        };
        let own: Vec<f32> = of(1.0).iter().map(|q| -0.25 * q).collect();
        let between = of(-1.0).iter().map(|q| -0.5 * q).collect();
        Self::Quadratic { mean: mean.to_vec(), scale: 1.0, left: own.clone(), right: own, between }
    }

    /// The ratio of "this row was made from this text" against "from another".
    fn presence(mean: &[f64], cov: &[f64], d: usize, sigma: f64, members: f64) -> Self {
        let v = sigma * sigma;
        let others = precision(cov, d, (members - 1.0) / (members * members), v);
        let total = precision(cov, d, 1.0 / members, v);
        let right = others.iter().zip(&total).map(|(c, t)| 0.5 * (t - c)).collect();
        let left = others.iter().map(|c| -0.5 * c).collect();
        Self::Quadratic { mean: mean.to_vec(), scale: 1.0 / members, left, right, between: others }
    }

    /// `(n, m)` scores of `n` left and `m` right rows.
    pub(super) fn table(&self, left: &Embeddings, right: &Embeddings) -> Vec<f32> {
        let (products, own, other) = match self {
            Self::Product => return all_products(left, right),
            Self::Distance => {
                let half = |rows: &Embeddings| squares(rows, rows).iter().map(|s| -0.5 * s).collect::<Vec<f32>>();
                (all_products(left, right), half(left), half(right))
            }
            Self::Quadratic { mean, scale, left: of_left, right: of_right, between } => {
                let (l, r) = (centred(left, mean, *scale), centred(right, mean, 1.0));
                let products = all_products(&times(&l, between), &r);
                (products, squares(&l, &times(&l, of_left)), squares(&r, &times(&r, of_right)))
            }
        };
        let m = right.len().max(1);
        products.iter().enumerate().map(|(at, p)| p + own[at / m] + other[at % m]).collect()
    }
}

fn diagonal(table: &[f32], n: usize) -> Vec<f32> {
    (0..n).map(|i| table[i * n + i]).collect()
}

fn cross(table: &[f32], n: usize) -> Vec<f32> {
    table.iter().enumerate().filter(|(at, _)| at / n != at % n).map(|(_, &s)| s).collect()
}

/// Which positives lie above the score that a share `rate` of the negatives exceeds.
pub(super) fn found(positives: &[f32], negatives: &mut [f32], rate: f64) -> Vec<Option<f64>> {
    let bar = infer::threshold(negatives, rate);
    positives.iter().map(|&s| Some(f64::from(u8::from(s > bar)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::probe::bench;
    use rand_distr::{Distribution, StandardNormal};

    /// Unit vectors whose cosine to the first axis is exactly `c`, otherwise isotropic.
    fn cone(n: usize, d: usize, c: f64, task: &str) -> Embeddings {
        let mut rng = seed::stream(31, task, "vectors");
        let mut out = Embeddings::empty(d);
        for _ in 0..n {
            let rest: Vec<f64> = (1..d).map(|_| StandardNormal.sample(&mut rng)).collect();
            let norm = rest.iter().map(|v| v * v).sum::<f64>().sqrt();
            let row = std::iter::once(c).chain(rest.iter().map(|v| v / norm * (1.0 - c * c).sqrt()));
            out.push(&row.map(|v| v as f32).collect::<Vec<f32>>());
        }
        out
    }

    fn noisy(rows: &Embeddings, sigma: f64, task: &str) -> Embeddings {
        let mut rng = seed::stream(31, task, "noise");
        let mut out = rows.clone();
        for v in out.values_mut() {
            let noise: f64 = StandardNormal.sample(&mut rng);
            *v += (sigma * noise) as f32;
        }
        out
    }

    fn rate(own: &[f32], negatives: &mut [f32]) -> f64 {
        crate::attack::probe::mean(&found(own, negatives, 0.01)).expect("targets")
    }

    #[test]
    fn presence_is_found_as_often_as_the_closed_form_says() {
        // TPR at 1 % FPR = Phi(d' - 2.326) with d' = (1 - c) / sigma, decoys at cosine c = .13. With 4000 texts and 40 000
        // decoys the standard error is at most .010, most of it the threshold's; tolerance .025.
        let (n, decoys, d, c) = (4000, 40_000, 16, 0.13);
        for (sigma, golden) in [(0.25, 0.876), (0.5, 0.279), (1.0, 0.073)] {
            // The text is the first axis, stored n times; the decoys are stored in its place.
            let mut text = Embeddings::empty(d);
            text.push(&std::iter::once(1.0).chain(std::iter::repeat_n(0.0, d - 1)).collect::<Vec<f32>>());
            let stored = noisy(&text.select(&vec![0; n]), sigma, "stored");
            let others = noisy(&cone(decoys, d, c, "others"), sigma, "others");
            let own = Score::Product.table(&text, &stored);
            let tpr = rate(&own, &mut Score::Product.table(&text, &others));
            assert!((tpr - golden).abs() < 0.025, "sigma {sigma}: {tpr} against {golden}");
        }
    }

    #[test]
    fn the_ratio_links_releases_better_than_the_product_where_vectors_share_directions() {
        // A mean and a steep spectrum, as sentence vectors have them.
        let (n, d, sigma) = (800, 48, 0.2);
        let mut rng = seed::stream(31, "steep", "vectors");
        let mut draw = |n: usize| {
            let mut out = Embeddings::empty(d);
            for _ in 0..n {
                let row = (0..d).map(|i| {
                    let g: f64 = StandardNormal.sample(&mut rng);
                    (0.3 * f64::from(u8::from(i == 0)) + g * 0.5 / (1.0 + i as f64)) as f32
                });
                out.push(&row.collect::<Vec<f32>>());
            }
            out
        };
        let (own, targets) = (draw(4000), draw(n));
        let (first, second) = (noisy(&targets, sigma, "1"), noisy(&targets, sigma, "2"));
        let (mean, cov) = linear::moments(&own);
        let of = |score: &Score| {
            let table = score.table(&first, &second);
            rate(&diagonal(&table, n), &mut cross(&table, n))
        };
        let (ratio, product) = (of(&Score::pair(&mean, &cov, d, sigma)), of(&Score::Product));
        assert!(ratio > product + 0.05, "{ratio} against {product}");
    }

    #[test]
    fn the_pair_ratio_is_the_difference_of_two_log_densities() {
        // One dimension: S = 2, sigma^2 = 1, m = .5, against the bivariate normal densities.
        let score = Score::pair(&[0.5], &[2.0], 1, 1.0);
        let point = |v: f32| Embeddings::new(vec![v], 1).expect("finite");
        let ratio = |a: f64, b: f64| {
            let (x, y) = (a - 0.5, b - 0.5);
            // Together: variances 3, covariance 2, determinant 5; apart: covariance 0.
            -0.5 * ((3.0 * x * x - 4.0 * x * y + 3.0 * y * y) / 5.0 - (x * x + y * y) / 3.0)
        };
        for (a, b) in [(0.5, 0.5), (2.0, 1.5), (-1.0, 3.0)] {
            let got = f64::from(score.table(&point(a), &point(b))[0]);
            let want = ratio(f64::from(a), f64::from(b));
            assert!((got - want).abs() < 1e-5, "{a} {b}: {got} against {want}");
        }
    }

    #[test]
    fn the_presence_ratio_of_a_prototype_is_the_difference_of_two_log_densities() {
        // One dimension, two members, S = 2, sigma^2 = 1, m = .5: y | x has variance 1.5 and mean m + (x - m) / 2.
        let score = Score::presence(&[0.5], &[2.0], 1, 1.0, 2.0);
        let point = |v: f32| Embeddings::new(vec![v], 1).expect("finite");
        for (x, y) in [(0.5_f64, 0.5_f64), (3.0, 2.0), (-1.0, 1.0)] {
            let r = (y - 0.5) - (x - 0.5) / 2.0;
            let want = -0.5 * r * r / 1.5 + 0.5 * (y - 0.5) * (y - 0.5) / 2.0;
            let got = f64::from(score.table(&point(x as f32), &point(y as f32))[0]);
            assert!((got - want).abs() < 1e-5, "{x} {y}: {got} against {want}");
        }
    }

    #[test]
    fn without_noise_every_text_is_linked_and_behind_strong_noise_none() {
        let open = bench::run(&Linkage::default(), "identity");
        for id in ["linkage_same_text_tpr_at_1_percent", "linkage_same_text_top1", "linkage_presence_tpr_at_1_percent"]
        {
            assert!(bench::value(&open, id) > 0.98, "{id}: {}", bench::value(&open, id));
        }
        let closed = bench::run(&Linkage::default(), "clip(l2=1) | gaussian(sigma=50)");
        assert!(bench::value(&closed, "linkage_same_text_tpr_at_1_percent") < 0.06);
        let presence = &closed.meaning["linkage_presence_tpr_at_1_percent"];
        assert!(presence.allowed.is_some_and(|a| (a - infer::most_found(0.01, 2.0 / 50.0)).abs() < 1e-9));
        assert!(!presence.exceeds_claim, "the noise keeps its promise");
    }

    #[test]
    fn prototypes_have_presence_but_no_second_release() {
        let findings = bench::run(&Linkage::default(), "clip(l2=1) | prototype(members=5) | gaussian(sigma=0.05)");
        assert!(findings.meaning.keys().all(|id| id.contains("presence")), "{:?}", findings.meaning.keys());
        assert!(bench::value(&findings, "linkage_presence_tpr_at_1_percent") > 0.3);
    }
}
