//! Exact integer noise: discrete Laplace and discrete Gaussian, drawn with integers alone.
//!
//! Nothing is rounded and no logarithm is taken, so that the law of what is drawn is the law that is proved about. How long a
//! draw takes depends on what is drawn: whoever can time single draws is not covered.
//!
//! # Source
//! Canonne, Kamath and Steinke 2020, algorithms 1 to 3 (arXiv:2004.00010).

use rand::Rng;

/// The largest variance that is drawn exactly in 128 bits.
pub(super) const MOST_VARIANCE: u64 = 1 << 52;

/// An even integer in `0..n`, `n > 0`.
fn below(n: u128, rng: &mut impl Rng) -> u128 {
    let mask = u128::MAX >> n.leading_zeros();
    loop {
        let high = if mask > u128::from(u64::MAX) { u128::from(rng.next_u64()) << 64 } else { 0 };
        let draw = (high | u128::from(rng.next_u64())) & mask;
        if draw < n {
            return draw;
        }
    }
}

/// True with probability `e^{-a / b}`, `a <= b`.
fn bernoulli_small(a: u128, b: u128, rng: &mut impl Rng) -> bool {
    // The first k at which an event of probability a / (b k) fails is odd with probability e^{-a/b}.
    let mut k = 1;
    while below(b * k, rng) < a {
        k += 1;
    }
    k % 2 == 1
}

/// True with probability `e^{-a / b}`.
fn bernoulli(mut a: u128, b: u128, rng: &mut impl Rng) -> bool {
    while a > b {
        if !bernoulli_small(1, 1, rng) {
            return false;
        }
        a -= b;
    }
    bernoulli_small(a, b, rng)
}

/// An integer `x` with probability proportional to `e^{-|x| / t}`, `t > 0`.
pub(super) fn discrete_laplace(t: u64, rng: &mut impl Rng) -> i128 {
    let t = u128::from(t);
    loop {
        let within = below(t, rng);
        if !bernoulli_small(within, t, rng) {
            continue;
        }
        let mut whole = 0;
        while bernoulli_small(1, 1, rng) {
            whole += 1;
        }
        let magnitude = (within + t * whole) as i128;
        let negative = rng.next_u32() & 1 == 1;
        // Zero has one sign.
        if !(negative && magnitude == 0) {
            return if negative { -magnitude } else { magnitude };
        }
    }
}

/// An integer `x` with probability proportional to `e^{-x^2 / (2 variance)}`, `0 < variance <= MOST_VARIANCE`.
pub(super) fn discrete_gaussian(variance: u64, rng: &mut impl Rng) -> i128 {
    let t = variance.isqrt() + 1;
    let (s, t128) = (u128::from(variance), u128::from(t));
    loop {
        let x = discrete_laplace(t, rng);
        // e^{-(|x| - s/t)^2 / (2 s)} over the common denominator.
        let off = (x.unsigned_abs() * t128).abs_diff(s);
        let denominator = 2 * s * t128 * t128;
        // A draw so far out that its square overflows is refused with certainty in any case that can occur.
        if off.checked_mul(off).is_some_and(|square| bernoulli(square, denominator, rng)) {
            return x;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::law::{CRITICAL, distance};
    use super::super::special::log_ndtr;
    use super::*;
    use crate::seed;

    /// Pearson's statistic against `weight`, over the values that are expected at least ten times.
    fn misfit(draws: &[i128], weight: impl Fn(i128) -> f64) -> (f64, f64) {
        let total: f64 = (-400..=400).map(&weight).sum();
        let n = draws.len() as f64;
        let cells: Vec<i128> = (-400..=400).filter(|&x| n * weight(x) / total >= 10.0).collect();
        let statistic = cells.iter().map(|&x| {
            let (seen, expected) = (draws.iter().filter(|&&d| d == x).count() as f64, n * weight(x) / total);
            (seen - expected).powi(2) / expected
        });
        (statistic.sum(), cells.len() as f64)
    }

    /// A chi-square variable of `f` degrees of freedom exceeds `f + 7 sqrt(2 f) + 20` with probability below 1e-6.
    #[test]
    fn small_laws_match_their_probabilities() {
        let mut rng = seed::stream(1, "grid", "small");
        for t in [1_u64, 3, 10] {
            let draws: Vec<i128> = (0..40_000).map(|_| discrete_laplace(t, &mut rng)).collect();
            let (statistic, f) = misfit(&draws, |x| (-(x.unsigned_abs() as f64) / t as f64).exp());
            assert!(statistic < f + 7.0 * (2.0 * f).sqrt() + 20.0, "laplace {t}: {statistic} of {f}");
        }
        for variance in [1_u64, 4, 90] {
            let draws: Vec<i128> = (0..40_000).map(|_| discrete_gaussian(variance, &mut rng)).collect();
            let (statistic, f) = misfit(&draws, |x| (-((x * x) as f64) / (2.0 * variance as f64)).exp());
            assert!(statistic < f + 7.0 * (2.0 * f).sqrt() + 20.0, "gaussian {variance}: {statistic} of {f}");
            // The test can see a wrong law: a tenth more variance is far off.
            let (wrong, f) = misfit(&draws, |x| (-((x * x) as f64) / (2.2 * variance as f64)).exp());
            assert!(wrong > f + 7.0 * (2.0 * f).sqrt() + 20.0, "gaussian {variance}: {wrong} of {f}");
        }
    }

    /// Kolmogorov-Smirnov at level 1e-6 where the grid is so fine that the continuous law is the limit.
    #[test]
    fn fine_grids_approach_the_continuous_laws() {
        let mut rng = seed::stream(1, "grid", "fine");
        for variance in [1_u64 << 30, MOST_VARIANCE] {
            let sigma = (variance as f64).sqrt();
            let draws = (0..4000).map(|_| discrete_gaussian(variance, &mut rng) as f64 / sigma).collect();
            let d = distance(draws, |x| log_ndtr(x).exp());
            assert!(d < CRITICAL, "{variance}: {d}");
        }
    }

    #[test]
    fn even_integers_are_even() {
        let mut rng = seed::stream(1, "grid", "even");
        let wide = (1_u128 << 100) + 12_345;
        let upper = (0..4000).filter(|_| below(wide, &mut rng) > wide / 2).count();
        // Five standard deviations of a fair coin.
        assert!((1842..=2158).contains(&upper), "{upper}");
        assert!((0..100).all(|_| below(3, &mut rng) < 3 && below(1, &mut rng) == 0));
    }
}
