//! The exact one-dimensional privacy loss: how much more likely one input makes what was seen than its neighbour does.
//!
//! For two neighbours with densities `p` and `q` the loss is `L = ln p(y)/q(y)`, `y ~ p`. Everything that a pair of
//! inputs costs follows from the law of `L`: delta at epsilon, Rényi divergences, the best an attacker can do.

use super::renyi;
use super::special::{log_add, log1mexp};
use statrs::function::gamma::ln_gamma;

/// A law of the privacy loss: losses, each with the logarithm of its probability.
#[derive(Debug, Clone, PartialEq)]
pub struct Loss {
    /// `(loss, ln p)`, losses descending.
    points: Vec<(f64, f64)>,
}

impl Loss {
    /// From `(loss, weight)` pairs, weights as logarithms up to one constant.
    pub fn new(mut points: Vec<(f64, f64)>) -> Self {
        points.sort_by(|a, b| b.0.total_cmp(&a.0));
        let top = points.iter().map(|p| p.1).fold(f64::NEG_INFINITY, f64::max);
        let total = points.iter().map(|p| (p.1 - top).exp()).sum::<f64>().ln() + top;
        for point in &mut points {
            point.1 -= total;
        }
        Self { points }
    }

    /// `times` answers, each true with odds `e^epsilon`: the worst that `times` releases of any `epsilon`-DP mechanism can
    /// do.
    ///
    /// # Formula
    /// `L = epsilon (2 j - n)`, `j ~ Binomial(n, e^epsilon / (1 + e^epsilon))`.
    ///
    /// # Source
    /// Kairouz, Oh and Viswanath 2015, theorem 3.3.
    pub fn randomised_response(epsilon: f64, times: u64) -> Self {
        let n = times as f64;
        // ln(1 + e^-epsilon): of both probabilities.
        let rest = (-epsilon).exp().ln_1p();
        let choose = |j: f64| ln_gamma(n + 1.0) - ln_gamma(j + 1.0) - ln_gamma(n - j + 1.0);
        let point = |j: u64| {
            let j = j as f64;
            (epsilon * (2.0 * j - n), choose(j) - (n - j) * epsilon - n * rest)
        };
        Self { points: (0..=times).rev().map(point).collect() }
    }

    /// `ln delta(epsilon)`.
    ///
    /// # Formula
    /// `delta = E[(1 - e^{epsilon - L})_+]`.
    pub fn log_delta(&self, epsilon: f64) -> f64 {
        let above = self.points.iter().take_while(|(loss, _)| *loss > epsilon);
        let terms: Vec<f64> = above.map(|(loss, log_p)| log_p + log1mexp(loss - epsilon)).collect();
        log_sum(&terms)
    }

    /// The smallest epsilon at `delta`, from above; 0 where even that is more than enough.
    pub fn epsilon(&self, delta: f64) -> f64 {
        let target = delta.ln();
        if self.log_delta(0.0) <= target {
            return 0.0;
        }
        let (mut low, mut high) = (0.0, self.points.first().map_or(0.0, |p| p.0.max(0.0)));
        while high - low > 1e-13 * high {
            let middle = 0.5 * (low + high);
            if self.log_delta(middle) <= target {
                high = middle;
            } else {
                low = middle;
            }
        }
        high
    }

    /// The Rényi divergence of order `a`: `1/(a-1) ln E[e^{(a-1) L}]`.
    pub fn renyi(&self, order: f64) -> f64 {
        let terms: Vec<f64> = self.points.iter().map(|(loss, log_p)| log_p + (order - 1.0) * loss).collect();
        log_sum(&terms) / (order - 1.0)
    }

    /// The mean loss in nats: the Kullback-Leibler divergence of the pair.
    pub fn mean(&self) -> f64 {
        self.points.iter().map(|(loss, log_p)| loss * log_p.exp()).sum()
    }

    /// The largest probability under `p` of an event that has probability `chance` under `q`.
    ///
    /// # Formula
    /// The event of Neyman and Pearson: losses are taken in, highest first, until their mass `p e^-L` under `q` is spent.
    pub fn most_found(&self, chance: f64) -> f64 {
        let (mut left, mut found) = (chance, 0.0);
        for (loss, log_p) in &self.points {
            let cost = (log_p - loss).exp();
            if cost >= left {
                found += if cost > 0.0 { log_p.exp() * left / cost } else { log_p.exp() };
                break;
            }
            left -= cost;
            found += log_p.exp();
        }
        found.min(1.0)
    }

    /// Epsilon at `delta` after `k` releases: exact for one, by divergences for more.
    pub fn epsilon_after(&self, k: u32, delta: f64) -> f64 {
        if k <= 1 {
            return self.epsilon(delta);
        }
        let all = self.points.first().map_or(0.0, |p| p.0.max(0.0)) * f64::from(k);
        renyi::epsilon(|order| f64::from(k) * self.renyi(order), delta).min(all)
    }
}

/// `ln sum e^t`.
fn log_sum(terms: &[f64]) -> f64 {
    let top = terms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if top == f64::NEG_INFINITY { top } else { terms.iter().map(|t| (t - top).exp()).sum::<f64>().ln() + top }
}

/// Epsilon at `delta` of one number with Laplace noise of scale 1 whose centre moves by `shift`.
///
/// # Formula
/// `delta = 1 - e^{(epsilon - s) / 2}` for `epsilon <= s`, solved for epsilon.
pub fn laplace_epsilon(shift: f64, delta: f64) -> f64 {
    (shift + 2.0 * (-delta).ln_1p()).max(0.0)
}

/// The loss between the two ends of a diameter of length `diameter` under noise `e^{-rate |z|}` in `dim` dimensions.
///
/// # Formula
/// `L = rate (sqrt(r^2 + D^2 + 2 D r c) - r)`, `r ~ Gamma(d, rate)`, `c` the cosine of a random direction: a sum over a
/// grid of both, losses rounded up to 1/40000 of their range.
pub fn laplace_l2(rate: f64, diameter: f64, dim: usize) -> Loss {
    const RADII: usize = 800;
    const ANGLES: usize = 1200;
    const BINS: usize = 40_000;
    let d = dim as f64;
    // In units of 1 / rate.
    let reach = rate * diameter;
    let spread = 12.0 * d.sqrt() + 40.0;
    let (low, high) = ((d - spread).max(0.0), d + spread);
    let cosines: Vec<(f64, f64)> = if dim == 1 {
        vec![(-1.0, 0.0), (1.0, 0.0)]
    } else {
        super::directional::angles(dim, ANGLES, |_| 0.0).into_iter().map(|(t, log_p)| (t.cos(), log_p)).collect()
    };
    let mut bins = vec![f64::NEG_INFINITY; BINS + 1];
    for i in 0..RADII {
        let r = low + (high - low) * (i as f64 + 0.5) / RADII as f64;
        let log_r = (d - 1.0) * r.ln() - r;
        for &(c, log_c) in &cosines {
            let loss = (r * r + reach * reach + 2.0 * reach * r * c).max(0.0).sqrt() - r;
            let share = (loss / reach + 1.0) * 0.5 * BINS as f64;
            let bin = share.ceil().clamp(0.0, BINS as f64) as usize;
            bins[bin] = log_add(bins[bin], log_r + log_c);
        }
    }
    let loss_of = |bin: usize| reach * (2.0 * bin as f64 / BINS as f64 - 1.0);
    let filled = bins.into_iter().enumerate().filter(|(_, log_p)| *log_p > f64::NEG_INFINITY);
    Loss::new(filled.map(|(bin, log_p)| (loss_of(bin), log_p)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_answer_costs_its_epsilon_and_many_cost_less_than_their_sum() {
        let one = Loss::randomised_response(2.0, 1);
        assert!((one.log_delta(0.0).exp() - 1_f64.tanh()).abs() < 1e-14, "total variation tanh(epsilon / 2)");
        assert!((one.epsilon(1e-12) - 2.0).abs() < 1e-9);
        assert!((one.mean() - 2.0 * 1_f64.tanh()).abs() < 1e-14);
        let many = Loss::randomised_response(0.1, 400);
        let exact = many.epsilon(1e-5);
        // Nearly Gaussian with mu = .1 sqrt(400) = 2, whose epsilon is 9.997; its divergences give a little more.
        assert!(exact < 10.0 && exact > 9.5, "{exact}");
        let renyi = Loss::randomised_response(0.1, 1).epsilon_after(400, 1e-5);
        assert!(exact < renyi && renyi < 1.1 * exact, "{exact} {renyi}");
        assert!((Loss::randomised_response(1e3, 3).epsilon(1e-5) - 3e3).abs() < 2e-5);
    }

    #[test]
    fn laplace_noise_in_one_dimension_matches_its_closed_form() {
        assert!((laplace_epsilon(1.0, 1e-5) - 0.999_98).abs() < 1e-9);
        assert_eq!(laplace_epsilon(1e-6, 1e-2), 0.0);
        let table = laplace_l2(1.0, 1.0, 1);
        assert!((table.epsilon(1e-2) - laplace_epsilon(1.0, 1e-2)).abs() < 2e-3, "{}", table.epsilon(1e-2));
    }

    #[test]
    fn noise_of_exponential_length_matches_its_quadrature() {
        // rate 98 on the unit ball at d = 384: 83.35 by an independent two-dimensional quadrature.
        let epsilon = laplace_l2(98.0, 2.0, 384).epsilon(1e-5);
        assert!((epsilon - 83.35).abs() < 0.02, "{epsilon}");
    }

    #[test]
    fn the_best_event_never_gains_more_than_the_largest_ratio() {
        let loss = Loss::randomised_response(1.0, 1);
        for chance in [1e-6, 1e-3, 0.1] {
            assert!((loss.most_found(chance) - chance * 1_f64.exp()).abs() < 1e-15);
        }
        assert!((loss.most_found(1.0) - 1.0).abs() < 1e-12);
        let gaussian = |mu: f64| {
            let points = (-4000..4000).map(|i| {
                let x = f64::from(i) * 0.004;
                (mu * x + 0.5 * mu * mu, -0.5 * x * x)
            });
            Loss::new(points.collect())
        };
        assert!((gaussian(2.0).most_found(1e-3) - 0.137_805).abs() < 2e-4, "the Gaussian case has a closed form");
    }
}
