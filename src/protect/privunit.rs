//! `privunit`: a direction from a cap around the row, more often than the cap's share.

use super::Error;
use super::arguments::{Arguments, number};
use super::claim::{Guarantee, State};
use super::loss::Loss;
use super::mechanism::Mechanism;
use super::noise::{at_least, each_row, turned, uniform};
use super::special::{LN_SQRT_2PI, cap_height, log_add, log_cap_share, normal_quantile_of_log};
use super::stage::{Parameters, Release, Stage, out_of_range};
use super::vmf::on_the_sphere;
use rand_chacha::ChaCha20Rng;
use rand_distr::{Distribution, StandardNormal};
use statrs::function::gamma::ln_gamma;

/// Releases a direction that lies in a cap around the row with probability `p`, scaled so that its mean is the row.
///
/// # Formula
/// `z = (W x + sqrt(1 - W^2) u) / m`: `W >= h` with probability `p`, else `W < h`, both as a coordinate of an even direction;
/// `q = P(W >= h)`, `e^epsilon = p (1 - q) / ((1 - p) q)`, `m = E W`. `p` is chosen for the largest `m`, where `h = m`. `W` is
/// drawn by the inverse of its law in log space: nothing is rejected, and nothing falls back.
///
/// # Guarantee
/// Pure: `epsilon`. Unbiased: the mean of a row's releases is the row. Caps end at height `1 - 1e-6`: an epsilon above minus the
/// logarithm of that cap's share (about 2500 at d = 384) is released with that smaller one, so that the printed promise is kept
/// with room to spare.
///
/// # Errors
/// Rows of one coordinate.
///
/// # Source
/// Bhowmick, Duchi, Freudiger, Kapoor and Rogers 2018.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PrivUnit {
    /// Of one release.
    pub epsilon: f64,
}

/// A cap of the sphere with its two probabilities; what both forms of the mechanism draw from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Cap {
    dim: usize,
    gaussian: bool,
    /// `ln p / (1 - p)`.
    odds: f64,
    /// `ln q / (1 - q)`.
    share: f64,
    /// `h`.
    pub(super) height: f64,
    /// `m`.
    pub(super) mean: f64,
}

/// The smallest cap that is drawn from.
const HIGHEST: f64 = 1.0 - 1e-6;

/// `ln 1 / (1 + e^-x)`: the logarithm of a probability of these odds.
fn log_sigmoid(x: f64) -> f64 {
    -log_add(0.0, -x)
}

impl Cap {
    /// The cap of the largest mean.
    ///
    /// # Formula
    /// The mean rises with the odds while the height lies above it, and falls after that: halving until `h = m`.
    pub(super) fn best(dim: usize, epsilon: f64, gaussian: bool) -> Self {
        // A cap so small that its height rounds to 1 cannot be drawn from. A larger one promises more than was asked for.
        let epsilon = if gaussian { epsilon } else { epsilon.min(-log_cap_share(dim, HIGHEST)) };
        let (mut low, mut high) = (-5.0, epsilon);
        for _ in 0..100 {
            let middle = 0.5 * (low + high);
            let cap = Self::new(dim, epsilon, gaussian, middle);
            if cap.height > cap.mean {
                low = middle;
            } else {
                high = middle;
            }
        }
        Self::new(dim, epsilon, gaussian, 0.5 * (low + high))
    }

    fn new(dim: usize, epsilon: f64, gaussian: bool, odds: f64) -> Self {
        let share = odds - epsilon;
        let (log_q, d) = (log_sigmoid(share), dim as f64);
        // `E[W; W >= h]`.
        let (height, log_above) = if gaussian {
            let standard = -normal_quantile_of_log(log_q);
            (standard / d.sqrt(), -0.5 * standard * standard - LN_SQRT_2PI - 0.5 * d.ln())
        } else {
            let height = cap_height(dim, log_q);
            let half = 0.5 * (d - 1.0);
            let front = ln_gamma(0.5 * d) - ln_gamma(0.5) - ln_gamma(half) - (d - 1.0).ln();
            (height, front + half * ((1.0 - height) * (1.0 + height)).ln())
        };
        let inside = (log_above + log_sigmoid(odds) - log_q).exp();
        let outside = (log_above + log_sigmoid(-odds) - log_sigmoid(-share)).exp();
        Self { dim, gaussian, odds, share, height, mean: inside - outside }
    }

    /// The probability of the cap.
    #[cfg(test)]
    pub(super) fn p(&self) -> f64 {
        log_sigmoid(self.odds).exp()
    }

    /// The cap's share of all directions.
    #[cfg(test)]
    pub(super) fn q(&self) -> f64 {
        log_sigmoid(self.share).exp()
    }

    /// The loss against an even direction.
    pub(super) fn against_uniform(&self) -> Loss {
        let (inside, outside) = (log_sigmoid(self.odds), log_sigmoid(-self.odds));
        Loss::new(vec![(inside - log_sigmoid(self.share), inside), (outside - log_sigmoid(-self.share), outside)])
    }

    /// `W`.
    fn draw(&self, noise: &mut ChaCha20Rng) -> f64 {
        let is_inside = uniform(noise).ln() < log_sigmoid(self.odds);
        let log_part = uniform(noise).ln();
        let at = |log_share: f64| {
            if self.gaussian {
                -normal_quantile_of_log(log_share) / (self.dim as f64).sqrt()
            } else {
                cap_height(self.dim, log_share)
            }
        };
        // Both sides by the tail that keeps its digits.
        if is_inside { at(log_sigmoid(self.share) + log_part) } else { -at(log_sigmoid(-self.share) + log_part) }
    }

    /// Standard deviation of a coordinate of the release around the row.
    pub(super) fn sigma(&self) -> f64 {
        let d = self.dim as f64;
        // E |V|^2: 1, or for the normal form 1 + (h m) since E a^2 = 1 + s phi(s) (p/q - (1-p)/(1-q)).
        let square = if self.gaussian { 1.0 + self.height * self.mean } else { 1.0 };
        ((square / (self.mean * self.mean) - 1.0).max(0.0) / d).sqrt()
    }

    /// Replaces every row.
    pub(super) fn apply(&self, release: &mut Release, rng: &mut dyn rand::Rng) {
        each_row(release, rng, |row, noise| {
            let w = self.draw(noise);
            let y = if self.gaussian { self.beside(row, w, noise) } else { turned(row, w, noise) };
            row.iter_mut().zip(y).for_each(|(v, y)| *v = (y / self.mean) as f32);
        });
    }

    /// `w x` and a normal vector orthogonal to `x`.
    fn beside(&self, row: &[f32], w: f64, noise: &mut ChaCha20Rng) -> Vec<f64> {
        let norm = super::clip::norm(row);
        let x: Vec<f64> = row.iter().map(|&v| f64::from(v) / norm).collect();
        let root = (self.dim as f64).sqrt();
        let mut n: Vec<f64> = x
            .iter()
            .map(|_| {
                let g: f64 = StandardNormal.sample(noise);
                g / root
            })
            .collect();
        let along: f64 = n.iter().zip(&x).map(|(a, b)| a * b).sum();
        n.iter_mut().zip(&x).for_each(|(v, x)| *v += (w - along) * x);
        n
    }
}

impl PrivUnit {
    pub(super) fn read(arguments: &mut Arguments<'_>) -> Self {
        Self { epsilon: arguments.number("epsilon", "16") }
    }
}

impl Parameters for PrivUnit {
    fn arguments(&self) -> Vec<(&'static str, String)> {
        vec![("epsilon", number(self.epsilon))]
    }

    fn check(&self) -> Vec<(&'static str, String)> {
        out_of_range("epsilon", self.epsilon, 1e-4, 1e4).into_iter().collect()
    }

    fn build(&self, before: &State) -> Result<Box<dyn Stage>, String> {
        on_the_sphere(before)?;
        Ok(Box::new(*self))
    }
}

impl Stage for PrivUnit {
    fn name(&self) -> &'static str {
        "privunit"
    }

    fn apply(&self, mut release: Release, rng: &mut dyn rand::Rng) -> Result<Release, Error> {
        at_least(self.name(), 2, release.vectors.dim())?;
        Cap::best(release.vectors.dim(), self.epsilon, false).apply(&mut release, rng);
        Ok(release)
    }

    fn guarantee(&self, before: &State) -> State {
        earned(self.epsilon, false, before)
    }
}

/// The state after either form.
pub(super) fn earned(epsilon: f64, gaussian: bool, before: &State) -> State {
    let sigma = before.dim.filter(|&d| d >= 2).map(|d| Cap::best(d, epsilon, gaussian).sigma());
    let (mut after, _) = before.clone().noised(sigma, false);
    // The noise depends on the row: neighbours do not stay as far apart as they were.
    after.sensitivity = None;
    after.earn(Guarantee::Pure { epsilon }, Some(Mechanism::Cap { epsilon, gaussian }), false, before.members);
    after
}

#[cfg(test)]
mod tests {
    use super::super::clip::norm;
    use super::super::law::{CRITICAL, DIMS, copies, distance, dot, mean, released};
    use super::*;

    fn close(got: f64, expected: f64, tolerance: f64) {
        assert!((got / expected - 1.0).abs() < tolerance, "got {got}, expected {expected}");
    }

    #[test]
    fn the_best_cap_matches_its_published_values() {
        let cap = Cap::best(32, 8.0, false);
        close(cap.p(), 0.912_48, 1e-5);
        close(cap.mean, 0.460_722, 2e-6);
        let cap = Cap::best(384, 8.0, false);
        close(cap.p(), 0.901_995, 2e-6);
        close(cap.mean, 0.139_382, 4e-6);
        close(cap.q(), 0.003_077_94, 2e-6);
        close(1.0 / cap.mean, 7.174_535, 1e-6);
        close(Cap::best(768, 8.0, false).mean, 0.098_767_5, 1e-6);
        let normal = Cap::best(384, 8.0, true);
        close(normal.p(), 0.901_023, 2e-6);
        close(normal.height * 384_f64.sqrt(), 2.742_945, 1e-6);
        close(normal.q(), 0.003_044_55, 3e-6);
    }

    #[test]
    fn at_the_best_cap_height_and_mean_agree_and_epsilon_comes_back() {
        for dim in [2, 3, 32, 384, 1536] {
            for epsilon in [1e-3, 0.5, 8.0, 64.0, 1e3] {
                for gaussian in [false, true] {
                    let cap = Cap::best(dim, epsilon, gaussian);
                    assert!((cap.height - cap.mean).abs() < 1e-8, "{dim} {epsilon} {gaussian}: {cap:?}");
                    let most = if gaussian { f64::INFINITY } else { -log_cap_share(dim, HIGHEST) };
                    close(cap.odds - cap.share, epsilon.min(most), 1e-9);
                }
            }
        }
    }

    /// Kolmogorov-Smirnov at level 1e-6 inside the cap; five standard errors for the cap's probability and the mean.
    #[test]
    fn the_cap_is_hit_with_its_probability_and_drawn_evenly() {
        for dim in DIMS {
            let clean = copies(2000, dim);
            let cap = Cap::best(dim, 8.0, false);
            let y = released("normalize | privunit(epsilon=8)", &clean, 1);
            let heights: Vec<f64> = y.rows().map(|row| cap.mean * dot(row, clean.row(0))).collect();
            assert!(y.rows().all(|row| (norm(row) * cap.mean - 1.0).abs() < 1e-5));
            let inside: Vec<f64> = heights.iter().copied().filter(|&w| w >= cap.height - 1e-7).collect();
            let (share, error) = (inside.len() as f64 / 2000.0, (cap.p() * (1.0 - cap.p()) / 2000.0).sqrt());
            assert!((share - cap.p()).abs() < 5.0 * error, "{dim}: {share} {}", cap.p());
            let d = distance(inside, |w| 1.0 - (log_cap_share(dim, w) - log_sigmoid(cap.share)).exp().min(1.0));
            assert!(d < CRITICAL, "{dim}: {d}");
            let (mean, error) = mean(&heights);
            assert!((mean - cap.mean).abs() < 5.0 * error, "{dim}: {mean} {}", cap.mean);
        }
    }

    #[test]
    fn the_mean_of_many_releases_is_the_row() {
        let clean = copies(200_000, 4);
        for stage in ["privunit(epsilon=2)", "privunit_g(epsilon=2)", "djw(epsilon=2)"] {
            let y = released(&format!("normalize | {stage}"), &clean, 1);
            for j in 0..4 {
                let (mean, error) = mean(&y.rows().map(|row| f64::from(row[j])).collect::<Vec<_>>());
                let expected = f64::from(clean.row(0)[j]);
                assert!((mean - expected).abs() < 5.0 * error, "{stage} {j}: {mean} {error} {expected}");
            }
        }
    }

    #[test]
    fn the_model_of_an_attacker_has_the_variance_of_the_releases() {
        for (stage, dim) in [("privunit(epsilon=8)", 64), ("privunit_g(epsilon=8)", 64), ("djw(epsilon=8)", 64)] {
            let pipeline: crate::protect::Pipeline = format!("normalize | {stage}").parse().expect("valid");
            let sigma = pipeline.noise_at(dim).expect("a model").sigma_per_coordinate;
            let clean = copies(4000, dim);
            let y = released(&pipeline.to_string(), &clean, 1);
            let off = |(a, b): (&[f32], &[f32])| a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
            let measured = (y.rows().zip(clean.rows()).map(off).sum::<f64>() / y.values().len() as f64).sqrt();
            assert!((measured / sigma - 1.0).abs() < 0.02, "{stage}: {measured} {sigma}");
        }
    }

    #[test]
    fn directions_of_very_many_dimensions_stay_finite() {
        for epsilon in [1e-4, 1.0, 1e4] {
            let y = released(&format!("normalize | privunit(epsilon={epsilon})"), &copies(20, 1536), 1);
            assert!(y.values().iter().all(|v| v.is_finite()));
        }
    }
}
