//! `gaussian`: isotropic noise, and the only stage of the first set that promises anything.

use super::arguments::{Arguments, number};
use super::claim::{Guarantee, State};
use super::mechanism::Mechanism;
use super::noise::each_row;
use super::stage::{Parameters, Release, Stage, out_of_range};
use super::{Error, account};
use rand::Rng;
use rand_distr::{Distribution, StandardNormal};

/// Adds independent normal noise of one standard deviation to every coordinate.
///
/// # Formula
/// `x + sigma g`, `g ~ N(0, I)`, drawn and added in `f64`, rounded to `f32` once. Row `i` draws from its own `ChaCha20`
/// stream `i` under a key drawn once, so that neither the number of rows nor of threads changes it.
///
/// # Guarantee
/// Exactly `mu`-GDP with `mu = sensitivity / sigma`, replace-one: `2C` after `clip(l2=C)`, `2C/m` after
/// `prototype(members=m)` behind a clip. Without a bounded domain before it: none. With two of them in a row the
/// variances add; with other stages between, the stronger guarantee is reported.
///
/// # Source
/// Balle and Wang, 2018 (analytic calibration). Differs: the noise is a ziggurat draw in floating point, not a draw on a
/// grid; it is not hardened against attacks on the low bits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Gaussian {
    /// The standard deviation is given; a guarantee is implied, not asked for.
    Given {
        /// Standard deviation for each coordinate.
        sigma: f64,
    },
    /// The textbook's noise for `(epsilon, delta)`: for comparison, and only where it is proved, `epsilon < 1`.
    Classic {
        /// The epsilon of one release.
        epsilon: f64,
        /// Its delta.
        delta: f64,
    },
    /// The smallest noise that meets `(epsilon, delta)`.
    Calibrated {
        /// The epsilon of one release.
        epsilon: f64,
        /// Its delta.
        delta: f64,
    },
}

/// The delta of a `gaussian(epsilon=...)` that names none, and of reports about pipelines without one.
pub const DEFAULT_DELTA: f64 = 1e-5;

impl Gaussian {
    pub(super) fn read(arguments: &mut Arguments<'_>) -> Self {
        let [sigma, epsilon, delta] = ["sigma", "epsilon", "delta"].map(|key| arguments.optional_number(key));
        let calibrated = arguments.has("epsilon") || arguments.has("delta");
        match (arguments.has("sigma"), calibrated) {
            (true, true) => arguments.problem("takes `sigma`, or `epsilon` and `delta`, not both"),
            (false, false) => {
                arguments
                    .problem("needs `sigma`, or `epsilon` and `delta`, for example `gaussian(epsilon=1, delta=1e-5)`");
            }
            (false, true) if !arguments.has("epsilon") => {
                arguments.problem("has `delta` but no `epsilon`, for example `gaussian(epsilon=1, delta=1e-5)`");
            }
            _ => {}
        }
        let calibration = arguments.optional_word("calibration").unwrap_or("analytic");
        if !["analytic", "classic"].contains(&calibration) {
            arguments.problem("knows the calibrations `analytic` and `classic`");
        }
        let (epsilon, delta) = (epsilon.unwrap_or(f64::NAN), delta.unwrap_or(DEFAULT_DELTA));
        match sigma {
            Some(sigma) => Self::Given { sigma },
            None if calibration == "classic" => Self::Classic { epsilon, delta },
            None => Self::Calibrated { epsilon, delta },
        }
    }
}

impl Parameters for Gaussian {
    fn arguments(&self) -> Vec<(&'static str, String)> {
        match *self {
            Self::Given { sigma } => vec![("sigma", number(sigma))],
            Self::Calibrated { epsilon, delta } => vec![("epsilon", number(epsilon)), ("delta", number(delta))],
            Self::Classic { epsilon, delta } => {
                vec![("epsilon", number(epsilon)), ("delta", number(delta)), ("calibration", "classic".to_owned())]
            }
        }
    }

    fn check(&self) -> Vec<(&'static str, String)> {
        match *self {
            Self::Given { sigma } => out_of_range("sigma", sigma, 1e-20, 1e20).into_iter().collect(),
            // The accountant is checked against high precision inside these bounds.
            Self::Calibrated { epsilon, delta } => {
                [out_of_range("epsilon", epsilon, 1e-5, 1e5), out_of_range("delta", delta, 1e-15, 0.5)]
                    .into_iter()
                    .flatten()
                    .collect()
            }
            Self::Classic { epsilon, delta } => {
                let unproved =
                    "must be below 1 for the classic calibration, whose delta is wrong above it; use the analytic one";
                let unproved = (epsilon >= 1.0).then(|| ("epsilon", unproved.to_owned()));
                [unproved, out_of_range("epsilon", epsilon, 1e-5, 1e5), out_of_range("delta", delta, 1e-15, 0.5)]
                    .into_iter()
                    .flatten()
                    .collect()
            }
        }
    }

    fn build(&self, before: &State) -> Result<Box<dyn Stage>, String> {
        let (epsilon, delta) = match *self {
            Self::Given { sigma } => return Ok(Box::new(GaussianNoise { sigma, delta: None })),
            Self::Calibrated { epsilon, delta } | Self::Classic { epsilon, delta } => (epsilon, delta),
        };
        let sensitivity = before.sensitivity.as_ref().ok_or_else(|| NOTHING_TO_SCALE_TO.to_owned())?;
        let sigma = match self {
            Self::Classic { .. } => sensitivity.l2 * (2.0 * (1.25 / delta).ln()).sqrt() / epsilon,
            _ => account::sigma(epsilon, delta, sensitivity.l2),
        };
        Ok(Box::new(GaussianNoise { sigma, delta: Some(delta) }))
    }
}

/// Why noise cannot be calibrated here.
pub(super) const NOTHING_TO_SCALE_TO: &str = "has nothing to scale its noise to: vectors of any length reach it; put \
     `clip(l2=1)` or `normalize` before it, or give `sigma`";

/// [`Gaussian`] with its sigma settled.
#[derive(Debug)]
struct GaussianNoise {
    sigma: f64,
    delta: Option<f64>,
}

impl Stage for GaussianNoise {
    fn name(&self) -> &'static str {
        "gaussian"
    }

    fn apply(&self, mut release: Release, rng: &mut dyn Rng) -> Result<Release, Error> {
        each_row(&mut release, rng, |row, noise| {
            for v in row {
                let g: f64 = StandardNormal.sample(noise);
                *v = (f64::from(*v) + self.sigma * g) as f32;
            }
        });
        Ok(release)
    }

    fn guarantee(&self, before: &State) -> State {
        let (mut after, running) = before.clone().noised(Some(self.sigma), true);
        // The sensitivity outlives the noise: with the same noise added on both sides, two neighbours stay as far apart
        // as they were, so a later stage may still rely on it.
        let Some(sensitivity) = &before.sensitivity else {
            after.warnings.push(format!(
                "`gaussian(sigma={})` promises nothing: vectors of any length reach it, so that no epsilon holds, however \
                 large; put `clip(l2=1)` or `normalize` before it",
                number(self.sigma)
            ));
            if matches!(after.guarantee, Guarantee::None { .. }) {
                after.guarantee = Guarantee::None {
                    reason: "noise is added to vectors of any length: one record can move a row without limit"
                        .to_owned(),
                };
            }
            return after;
        };
        let mu = sensitivity.l2 / running;
        let mechanism = Mechanism::Gaussian { mu };
        after.earn(Guarantee::Gdp { mu }, Some(mechanism), self.delta.is_none(), before.members);
        after.delta = self.delta.or(before.delta);
        after
    }
}

#[cfg(test)]
mod tests {
    use super::super::law::{CRITICAL, DIMS, distance};
    use crate::encode::Embeddings;
    use crate::protect::Pipeline;
    use crate::seed;

    fn noisy(sigma: f64, clean: &Embeddings, root: u64) -> Embeddings {
        let pipeline = Pipeline::parse(&format!("gaussian(sigma={sigma})")).expect("a sigma in range");
        pipeline.release(clean, None, &mut seed::stream(root, "test", "noise")).expect("finite rows").vectors
    }

    fn zeros(n: usize, dim: usize) -> Embeddings {
        Embeddings::new(vec![0.0; n * dim], dim).expect("zeros are finite")
    }

    #[test]
    fn gaussian_noise_matches_its_sigma() {
        // n = 384 000 draws: the sample deviation has standard error sigma / sqrt(2 n) = .00114 sigma, so 1 % is 8.8
        // standard errors, a false alarm in 1e18; an error of 2 % in sigma is still 8.8 the other way.
        for sigma in [0.1, 5.0] {
            let out = noisy(sigma, &zeros(1000, 384), 7);
            let n = out.values().len() as f64;
            let mean = out.values().iter().map(|&v| f64::from(v)).sum::<f64>() / n;
            let variance = out.values().iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / (n - 1.0);
            assert!((variance.sqrt() / sigma - 1.0).abs() < 0.01, "{}", variance.sqrt());
            // Five standard errors: 6e-7.
            assert!(mean.abs() < 5.0 * sigma / n.sqrt(), "{mean}");
        }
    }

    #[test]
    fn gaussian_noise_follows_the_normal_law() {
        // Kolmogorov-Smirnov at level 1e-6 for all coordinates of all rows.
        let normal = |x: f64| crate::protect::special::log_ndtr(x).exp();
        for dim in DIMS {
            let draws = noisy(1.0, &zeros(100_000 / dim, dim), 11).values().iter().map(|&v| f64::from(v)).collect();
            let d = distance(draws, normal);
            assert!(d < CRITICAL, "{dim}: {d}");
        }
        // The test can see a wrong law: a uniform grid of the same variance is far off.
        let uniform: Vec<f64> = (0..100_000).map(|i| (f64::from(i) / 5e4 - 1.0) * 3.0_f64.sqrt()).collect();
        assert!(distance(uniform, normal) > 15.0);
    }

    #[test]
    fn cosine_and_averaging_follow_the_predictor() {
        // Rows are unit vectors; the mean cosine over 400 rows has a standard error below .05 / 20 = .0025 at d = 384.
        let (n, dim) = (400, 384);
        let clean = noisy(1.0, &zeros(n, dim), 3);
        let unit = Pipeline::parse("normalize").expect("no parameters");
        let clean = unit.release(&clean, None, &mut seed::stream(1, "", "")).expect("finite rows").vectors;
        for sigma in [0.05, 0.2] {
            let releases: Vec<Embeddings> = (0..4).map(|k| noisy(sigma, &clean, 100 + k)).collect();
            let model = Pipeline::parse(&format!("clip(l2=1) | gaussian(sigma={sigma})")).expect("valid").noise();
            let model = model.expect("Gaussian noise has a model");
            for k in [1_usize, 4] {
                let mut total = 0.0;
                for i in 0..n {
                    let average: Vec<f64> =
                        (0..dim).map(|j| releases[..k].iter().map(|r| f64::from(r.row(i)[j])).sum::<f64>()).collect();
                    let dot: f64 = average.iter().zip(clean.row(i)).map(|(a, &b)| a * f64::from(b)).sum();
                    total += dot / average.iter().map(|a| a * a).sum::<f64>().sqrt();
                }
                let (cosine, expected) = (total / n as f64, model.expected_cosine(dim, k as u32));
                assert!((cosine - expected).abs() < 0.01, "sigma {sigma}, k {k}: {cosine} against {expected}");
            }
        }
    }

    #[test]
    fn the_noise_of_a_row_does_not_depend_on_the_number_of_rows_or_threads() {
        let few = noisy(0.3, &zeros(3, 16), 5);
        let many = noisy(0.3, &zeros(300, 16), 5);
        assert_eq!(few.values(), &many.values()[..48]);
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a small pool");
            pool.install(|| noisy(0.3, &zeros(300, 16), 5))
        };
        assert_eq!(on(1), on(2));
        assert_eq!(on(1), many);
        assert_ne!(noisy(0.3, &zeros(300, 16), 6), many);
        // No two rows share their noise.
        assert_ne!(many.row(0), many.row(1));
    }
}
