//! Accounting for Gaussian noise: from noise to `(epsilon, delta)`, back again, and over several releases.
//!
//! Everything is a function of one number. A release whose neighbouring inputs lie at most `Delta` apart and that adds
//! `N(0, sigma^2 I)` is exactly `mu`-GDP with `mu = Delta / sigma`, and `k` releases of one record are
//! `sqrt(mu_1^2 + ... + mu_k^2)`-GDP: the same as averaging them, which is what an attacker does.
//! The curve between epsilon and delta is exact, not a bound; rounding is upward (a returned sigma or epsilon always
//! satisfies the target that was asked for).

use super::special::{log_ndtr, log1mexp};

/// Halvings of a bracket; two hundred reach the last bit of an `f64` from any bracket that we open.
const BISECTIONS: usize = 200;

/// `ln delta(epsilon)` of a `mu`-GDP release.
///
/// # Formula
/// `delta = Phi(mu/2 - epsilon/mu) - e^epsilon Phi(-mu/2 - epsilon/mu)`, as `a + ln(1 - e^(b - a))` with
/// `a = ln Phi(mu/2 - epsilon/mu)` and `b = epsilon + ln Phi(-mu/2 - epsilon/mu)`.
///
/// # Source
/// Balle and Wang, 2018 (arXiv:1805.06530), theorem 8; Dong, Roth and Su, 2019, corollary 2.13.
pub fn log_delta(epsilon: f64, mu: f64) -> f64 {
    if mu <= 0.0 {
        return f64::NEG_INFINITY;
    }
    let t = epsilon / mu + 0.5 * mu;
    let a = log_ndtr(mu - t);
    let b = epsilon + log_ndtr(-t);
    if b >= a { f64::NEG_INFINITY } else { a + log1mexp(a - b) }
}

/// The delta at which a `mu`-GDP release is `(epsilon, delta)`-DP; see [`log_delta`].
pub fn delta(epsilon: f64, mu: f64) -> f64 {
    log_delta(epsilon, mu).exp()
}

/// The smallest epsilon at which a `mu`-GDP release is `(epsilon, delta)`-DP; 0 where even that is more than enough.
///
/// # Example
/// ```
/// // Unit vectors, replace-one (sensitivity 2), sigma .25: a cosine of .20 at d = 384, and hardly a promise.
/// let epsilon = stitchback::protect::account::epsilon(2.0 / 0.25, 1e-5);
/// assert!((epsilon - 65.319).abs() < 1e-3);
/// ```
pub fn epsilon(mu: f64, delta: f64) -> f64 {
    let target = delta.ln();
    if log_delta(0.0, mu) <= target {
        return 0.0;
    }
    upper_end(|epsilon| log_delta(epsilon, mu) <= target)
}

/// The smallest noise that makes a release of the given L2 `sensitivity` `(epsilon, delta)`-DP.
///
/// # Formula
/// `sigma = sensitivity * s`, `s` the root of `log_delta(epsilon, 1/s) = ln delta` by bisection, upper end.
///
/// # Source
/// Balle and Wang, 2018, algorithm 1. Differs: the equation is solved in log space, so that epsilon may be 1e5.
///
/// # Example
/// ```
/// let sigma = stitchback::protect::account::sigma(1.0, 1e-5, 1.0);
/// assert!((sigma - 3.730_631_634_815_94).abs() < 1e-9);
/// ```
pub fn sigma(epsilon: f64, delta: f64, sensitivity: f64) -> f64 {
    let target = delta.ln();
    sensitivity * upper_end(|s| log_delta(epsilon, s.recip()) <= target)
}

/// `mu` of `k` releases of the same record, each `mu`-GDP with fresh noise.
pub fn compose(mu: f64, k: u32) -> f64 {
    mu * f64::from(k).sqrt()
}

/// The least positive `x` at which `holds` turns true, from above; `holds` must stay true once it is.
fn upper_end(holds: impl Fn(f64) -> bool) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    while !holds(high) {
        low = high;
        high *= 2.0;
    }
    for _ in 0..BISECTIONS {
        let middle = 0.5 * (low + high);
        if middle <= low || middle >= high {
            break;
        }
        if holds(middle) {
            high = middle;
        } else {
            low = middle;
        }
    }
    high
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn close(got: f64, expected: f64, tolerance: f64) {
        assert!(((got - expected) / expected).abs() < tolerance, "got {got}, expected {expected}");
    }

    #[test]
    fn sigma_matches_the_published_analytic_values() {
        close(sigma(1.0, 1e-5, 1.0), 3.730_631_634_815_94, 1e-9);
        close(sigma(8.0, 1e-5, 1.0), 0.600_229_072_198_952, 1e-9);
        close(sigma(10.0, 1e-5, 1.0), 0.499_888_619_709_009, 1e-9);
        close(sigma(1.0, 1e-5, 2.0), 7.461_263_269_631_88, 1e-9);
        close(delta(1.0, 1.0), 0.126_936_737_506_644, 1e-12);
    }

    #[test]
    fn epsilon_of_noise_on_the_unit_ball_matches() {
        for (sigma, expected, digits) in [(0.01, 20_851.99, 1e-6), (0.2, 91.817, 1e-5), (0.25, 65.319, 1e-5)] {
            close(epsilon(2.0 / sigma, 1e-5), expected, digits);
        }
        close(epsilon(2.0 / 0.5, 1e-5), 24.382, 3e-5);
        close(epsilon(2.0, 1e-5), 9.997_26, 1e-6);
    }

    #[test]
    fn delta_of_the_classic_calibration_shows_where_it_breaks() {
        // sigma = sqrt(2 ln(1.25 / delta)) / epsilon, proved for epsilon < 1 only.
        let classic = |epsilon: f64| (2.0 * (1.25e5_f64).ln()).sqrt() / epsilon;
        for (epsilon, expected) in [(1.0, 4.11e-8), (8.0, 7.97e-6), (10.0, 2.265e-5), (20.0, 1.527e-3), (50.0, 0.5862)]
        {
            close(delta(epsilon, classic(epsilon).recip()), expected, 2e-3);
        }
    }

    #[test]
    fn releases_compose_as_their_average() {
        close(epsilon(compose(1.0, 1), 1e-5), 4.377_178_095_7, 1e-9);
        close(epsilon(compose(1.0 / 3.730_631_634_8, 4), 1e-5), 2.154_676_657_7, 1e-9);
        close(epsilon(compose(0.1, 100), 1e-5), 4.377_178_095_7, 1e-9);
    }

    /// `tests/golden/account.py` made the grid with dp-accounting, epsilon 1e-5 to 1e5, delta 1e-10 to 1e-1.
    #[test]
    fn sigma_epsilon_and_delta_equal_those_of_dp_accounting() {
        let golden: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/golden/account.json")).expect("JSON");
        let rows = golden["rows"].as_array().expect("rows");
        assert!(rows.len() > 90, "{}", rows.len());
        for row in rows {
            let of = |key: &str| row[key].as_f64().expect("a number");
            let (e, d, s) = (of("epsilon"), of("delta"), of("sigma"));
            close(sigma(e, d, 1.0), s, 1e-9);
            close(delta(e, s.recip()), of("delta_at_sigma"), 1e-9);
            // Epsilon is badly conditioned where it is far below delta.
            close(epsilon(s.recip(), d), e, 1e-9 * (1.0 + d / e));
        }
    }

    #[test]
    fn nothing_released_costs_nothing() {
        assert_eq!(epsilon(0.0, 1e-5), 0.0);
        assert_eq!(delta(0.5, 0.0), 0.0);
        assert_eq!(epsilon(1e-9, 1e-5), 0.0);
    }

    proptest! {
        #[test]
        fn sigma_and_epsilon_invert_each_other(log_epsilon in -5.0..5.0_f64, log_delta10 in -10.0..-1.0_f64) {
            let (e, d) = (10_f64.powf(log_epsilon), 10_f64.powf(log_delta10));
            let s = sigma(e, d, 1.0);
            prop_assert!(delta(e, s.recip()) <= d * (1.0 + 1e-9));
            // Epsilon is badly conditioned where it is far below delta: a last-bit change of sigma moves it.
            let back = epsilon(s.recip(), d);
            prop_assert!((back / e - 1.0).abs() < 1e-9 * (1.0 + d / e), "{e} -> {s} -> {back}");
        }

        #[test]
        fn sigma_scales_with_sensitivity(log_epsilon in -3.0..3.0_f64, sensitivity in 1e-3..1e3_f64) {
            let e = 10_f64.powf(log_epsilon);
            prop_assert!((sigma(e, 1e-5, sensitivity) / (sensitivity * sigma(e, 1e-5, 1.0)) - 1.0).abs() < 1e-12);
        }

        #[test]
        fn less_noise_never_promises_more(mu in 1e-3..1e3_f64, factor in 1.001..2.0_f64, log_delta10 in -10.0..-1.0_f64) {
            let d = 10_f64.powf(log_delta10);
            prop_assert!(epsilon(mu, d) <= epsilon(mu * factor, d));
            prop_assert!(epsilon(mu, d) >= epsilon(mu, d * factor));
            prop_assert!(sigma(mu, d, 1.0) >= sigma(mu * factor, d, 1.0));
        }

        #[test]
        fn releases_and_noise_trade_exactly(mu in 0.01..50.0_f64, c in 1_u32..50) {
            // (z, k) and (c z, c^2 k) are the same experiment.
            let (once, many) = (epsilon(mu, 1e-5), epsilon(compose(mu / f64::from(c), c * c), 1e-5));
            prop_assert!((once - many).abs() <= 1e-9 * once.max(1e-6));
        }
    }
}
