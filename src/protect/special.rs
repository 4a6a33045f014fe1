//! The normal tail in log space, and the small functions that keep it exact.
//!
//! Epsilons of 1e-5 and of 1e5 stand in one table, so nothing here may underflow: a probability is carried as its
//! logarithm from the first line to the last.

use statrs::function::erf::{erf_inv, erfc_inv};
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
const LN_SQRT_2PI: f64 = 0.918_938_533_204_672_8;

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
}
