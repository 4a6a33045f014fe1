//! The normal tail, spherical caps and Bessel ratios, in log space and to the last digits.
//!
//! Epsilons of 1e-5 and of 1e5 stand in one table, so nothing here may underflow: a probability is carried as its
//! logarithm from the first line to the last.

use statrs::function::erf::{erf_inv, erfc_inv};
use statrs::function::gamma::ln_gamma;
use std::f64::consts::{LN_2, SQRT_2};

/// `ln Phi(x)`, the logarithm of the standard normal distribution function.
///
/// # Formula
/// With `z = -x`: for `z > 1` the continued fraction `Phi(-z) = phi(z) / (z + 1/(z + 2/(z + 3/(z + ...))))`, run
/// backwards; in the middle the series `Phi(x) = 1/2 + phi(x) (x + x^3/3 + x^5/15 + ...)`; above, `ln(1 - Phi(-x))`.
/// (The `erfc` of statrs is off by 5e-11 in the middle, which would show in the accountant's digits.)
///
/// # Range
/// Relative error below 5e-14 over `[-1e5, 12]` (asserted against 60-digit arithmetic); a NaN stays a NaN.
pub fn log_ndtr(x: f64) -> f64 {
    /// Terms of the continued fraction: past `z = 1` the 300th no longer moves the last bit, past 3 the 60th.
    fn log_tail(z: f64) -> f64 {
        let terms = if z > 3.0 { 60 } else { 300 };
        let fraction = (1..=terms).rev().fold(z, |f, j| z + f64::from(j) / f);
        -0.5 * z * z - LN_SQRT_2PI - fraction.ln()
    }
    if x < -1.0 {
        log_tail(-x)
    } else if x < 1.0 {
        let (mut term, mut series) = (x, x);
        for odd in (3..=45).step_by(2) {
            term *= x * x / f64::from(odd);
            series += term;
        }
        (0.5 + series * (-0.5 * x * x - LN_SQRT_2PI).exp()).ln()
    } else {
        (-log_tail(x).exp()).ln_1p()
    }
}

/// `ln sqrt(2 pi)`.
pub(crate) const LN_SQRT_2PI: f64 = 0.918_938_533_204_672_8;

/// `ln(1 - e^-x)` for `x > 0`, without losing the digits of either end.
///
/// # Source
/// Mächler, "Accurately computing log(1 - exp(-|a|))", 2012.
pub fn log1mexp(x: f64) -> f64 {
    if x <= LN_2 { (-(-x).exp_m1()).ln() } else { (-(-x).exp()).ln_1p() }
}

/// `Phi^-1(p)`, the standard normal quantile; infinite at 0 and 1.
pub fn normal_quantile(p: f64) -> f64 {
    // Each branch of the inverse keeps the digits of its own end.
    if p < 0.25 { -SQRT_2 * erfc_inv(2.0 * p) } else { SQRT_2 * erf_inv(2.0 * p - 1.0) }
}

/// `Phi^-1(e^log_p)` for probabilities that may be too small for an `f64`.
///
/// # Formula
/// Newton's method on [`log_ndtr`], which is concave: from `-sqrt(-2 ln p)`, left of the root, it climbs without overshooting.
pub fn normal_quantile_of_log(log_p: f64) -> f64 {
    if log_p >= 0.0 {
        return f64::INFINITY;
    }
    if log_p > -LN_2 {
        return -normal_quantile_of_log(log1mexp(-log_p));
    }
    let mut x = -(-2.0 * log_p).sqrt();
    for _ in 0..60 {
        let value = log_ndtr(x);
        let step = (log_p - value) / (-0.5 * x * x - LN_SQRT_2PI - value).exp();
        x += step;
        if step.abs() <= 1e-16 * x.abs() {
            break;
        }
    }
    x
}

/// `ln(e^a + e^b)`.
pub fn log_add(a: f64, b: f64) -> f64 {
    let (low, high) = if a < b { (a, b) } else { (b, a) };
    if high == f64::NEG_INFINITY { high } else { high + (low - high).exp().ln_1p() }
}

/// `A_d(kappa) = I_{d/2}(kappa) / I_{d/2-1}(kappa)`: the mean cosine of a von Mises-Fisher direction to its centre.
///
/// # Formula
/// `r <- 1 / (2 (nu + j) / kappa + r)`, `nu = d/2 - 1`, backwards from `j = 2 max(kappa, 50) + 200` to 1. Two Bessel
/// values are never divided: both vanish where `d` is large and `kappa` small.
///
/// # Source
/// Gautschi and Slavik 1978.
pub fn bessel_ratio(dim: usize, kappa: f64) -> f64 {
    let nu = 0.5 * dim as f64 - 1.0;
    let terms = (2.0 * kappa.max(50.0) + 200.0) as u64;
    (1..=terms).rev().fold(0.0, |r, j| 1.0 / (2.0 * (nu + j as f64) / kappa + r))
}

/// `ln P(W >= height)`, the share of the unit sphere in `d >= 2` dimensions that lies in a cap, `W` one coordinate of a
/// random direction: `(1 + W) / 2 ~ Beta((d-1)/2, (d-1)/2)`.
///
/// # Formula
/// `1/2 I_x((d-1)/2, 1/2)` with `x = 1 - height^2` for a height above 0, its complement below.
pub fn log_cap_share(dim: usize, height: f64) -> f64 {
    if height <= -1.0 {
        0.0
    } else if height >= 1.0 {
        f64::NEG_INFINITY
    } else if height < 0.0 {
        log1mexp(-log_cap_share(dim, -height))
    } else {
        let x = (1.0 - height) * (1.0 + height);
        log_beta_share(0.5 * (dim as f64 - 1.0), 0.5, x, height * height) - LN_2
    }
}

/// The height whose cap holds the share `e^log_share` of the sphere: the inverse of [`log_cap_share`].
pub fn cap_height(dim: usize, log_share: f64) -> f64 {
    if log_share >= 0.0 {
        return -1.0;
    }
    if log_share > -LN_2 {
        return -cap_height(dim, log1mexp(-log_share));
    }
    // Newton's method where it stays in its bracket, halving where it does not. The slope is -density / share.
    let half = 0.5 * (dim as f64 - 1.0);
    let log_peak = ln_gamma(half + 0.5) - ln_gamma(half) - ln_gamma(0.5);
    let (mut low, mut high) = (0.0, 1.0);
    // A sphere of many dimensions is normal around its equator.
    let mut at = (-normal_quantile_of_log(log_share) / (dim as f64).sqrt()).clamp(0.0, 0.999);
    for _ in 0..100 {
        let value = log_cap_share(dim, at);
        if value > log_share {
            low = at;
        } else {
            high = at;
        }
        let log_density = log_peak + (half - 1.0) * ((1.0 - at) * (1.0 + at)).ln();
        let newton = at + (value - log_share) * (value - log_density).exp();
        let next = if newton > low && newton < high { newton } else { 0.5 * (low + high) };
        if (next - at).abs() <= 2e-16 * next {
            return next;
        }
        at = next;
    }
    at
}

/// `ln I_x(a, b)`, the regularised incomplete beta function, given `x` and `y = 1 - x` so that neither end loses digits.
///
/// # Source
/// The continued fraction of DLMF 8.17.22 by the method of Lentz.
fn log_beta_share(a: f64, b: f64, x: f64, y: f64) -> f64 {
    if x <= 0.0 {
        return f64::NEG_INFINITY;
    }
    if y <= 0.0 {
        return 0.0;
    }
    if x > (a + 1.0) / (a + b + 2.0) {
        return log1mexp(-log_beta_share(b, a, y, x));
    }
    let front = a * x.ln() + b * y.ln() + ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b) - a.ln();
    let tiny = 1e-300;
    let away = |v: f64| if v.abs() < tiny { tiny } else { v };
    let (mut c, mut d) = (1.0, away(1.0 - (a + b) * x / (a + 1.0)).recip());
    let mut fraction = d;
    for m in 1..1000 {
        let m = f64::from(m);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let mut factor = 1.0;
        for term in [even, odd] {
            d = away(1.0 + term * d).recip();
            c = away(1.0 + term / c);
            factor = c * d;
            fraction *= factor;
        }
        if (factor - 1.0).abs() < 1e-16 {
            break;
        }
    }
    front + fraction.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_ndtr_matches_sixty_digit_arithmetic() {
        // mpmath 1.3.0, mp.dps = 60: log(ncdf(x)) below 5, log1p(-ncdf(-x)) above.
        #[expect(clippy::excessive_precision, reason = "digits as printed by the reference")]
        let golden = [
            (-100_000.0, -5_000_000_012.431_864),
            (-1000.0, -500_007.826_694_812_18),
            (-40.0, -804.608_442_013_753_79),
            (-10.0, -53.231_285_150_512_471),
            (-5.0, -15.064_998_393_988_726),
            (-2.999, -6.604_443_587_570_580_2),
            (-2.0, -3.783_184_333_682_031_9),
            (-1.5, -2.705_944_400_823_889_8),
            (-1.0, -1.841_021_645_009_263_5),
            (-0.7, -1.418_967_761_531_531_6),
            (-0.3, -0.962_102_818_168_850_66),
            (0.0, -LN_2),
            (0.4, -0.422_476_370_227_776_05),
            (1.0, -0.172_753_779_023_449_89),
            (2.0, -0.023_012_909_328_963_488),
            (3.5, -0.000_232_656_141_376_804_55),
            (5.0, -2.866_516_129_637_635_9e-7),
            (8.0, -6.220_960_574_271_786_1e-16),
            (12.0, -1.776_482_112_077_679e-33),
        ];
        for (x, expected) in golden {
            let relative = ((log_ndtr(x) - expected) / expected).abs();
            assert!(relative < 5e-14, "log_ndtr({x}) = {}, off by {relative:e}", log_ndtr(x));
        }
        assert!(log_ndtr(f64::NAN).is_nan());
    }

    #[test]
    fn log1mexp_keeps_both_ends() {
        assert!((log1mexp(1e-20) - 1e-20_f64.ln()).abs() < 1e-12);
        assert!((log1mexp(50.0) + (-50.0_f64).exp()).abs() < 1e-36);
        assert!((log1mexp(LN_2) + LN_2).abs() < 1e-15);
    }

    #[test]
    fn the_quantile_inverts_the_distribution() {
        for p in [1e-12, 1e-5, 0.02, 0.3, 0.5, 0.77, 0.999] {
            assert!((log_ndtr(normal_quantile(p)).exp() / p - 1.0).abs() < 1e-9, "{p}");
        }
        assert_eq!(normal_quantile(0.0), f64::NEG_INFINITY);
        assert_eq!(normal_quantile(1.0), f64::INFINITY);
    }

    #[test]
    fn the_quantile_of_a_logarithm_reaches_where_probabilities_vanish() {
        for x in [-300.0, -40.0, -8.0, -1.0, -0.1, 0.0, 0.3, 2.0, 7.0] {
            assert!((normal_quantile_of_log(log_ndtr(x)) - x).abs() < 1e-7_f64.max(1e-13 * x.abs()), "{x}");
        }
    }

    #[test]
    fn bessel_ratios_match_high_precision_values() {
        assert!((bessel_ratio(384, 100.0) / 0.244_873_202_855_204 - 1.0).abs() < 1e-13);
        assert!((bessel_ratio(768, 10.0) / 0.013_018_632_230_299_9 - 1.0).abs() < 1e-13);
        // On the sphere in three dimensions: coth(kappa) - 1 / kappa.
        for kappa in [0.01, 1.0, 30.0] {
            assert!((bessel_ratio(3, kappa) / (1.0 / f64::tanh(kappa) - 1.0 / kappa) - 1.0).abs() < 1e-8, "{kappa}");
        }
    }

    #[test]
    fn caps_match_their_closed_forms_and_invert() {
        // In three dimensions a coordinate is uniform; in two it is the cosine of a uniform angle.
        for height in [-0.999, -0.5, 0.0, 0.2, 0.9, 0.999_999] {
            let close = |got: f64, share: f64| assert!((got - share.ln()).abs() < 1e-11, "{height}: {got}");
            close(log_cap_share(3, height), 0.5 * (1.0 - height));
            close(log_cap_share(2, height), height.acos() / std::f64::consts::PI);
        }
        for dim in [2, 3, 32, 384, 768, 1536] {
            for log_share in [-600.0, -50.0, -5.78, -1.0, -0.5, -1e-3, -1e-9] {
                let height = cap_height(dim, log_share);
                // At a height of 1 or -1 in few dimensions the height has run out of digits, not the share.
                if height.abs() < 1.0 - 1e-6 {
                    let back = log_cap_share(dim, height);
                    assert!((back / log_share - 1.0).abs() < 1e-9, "{dim} {log_share}: {height} {back}");
                }
            }
        }
    }
}
