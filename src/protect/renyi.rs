//! Rényi and zero-concentrated accounting: sums over any mixture of releases, at real orders.
//!
//! A release is described by its Rényi divergence between neighbours as a function of the order; divergences of further
//! releases add up, and one conversion turns the sum into `(epsilon, delta)`. It is an upper bound: where the exact curve of
//! [`super::account`] or [`super::loss`] applies, that one is smaller.

use super::special::log_add;

/// The divergence of order `a` of Gaussian noise at distance `mu`: `a mu^2 / 2`.
pub fn gaussian(order: f64, mu: f64) -> f64 {
    0.5 * order * mu * mu
}

/// The divergence of order `a` of Laplace noise of scale 1 whose centre moves by `shift`.
///
/// # Formula
/// `1/(a-1) ln[ a/(2a-1) e^{(a-1) s} + (a-1)/(2a-1) e^{-a s} ]`, `s` = `shift`.
///
/// # Source
/// Mironov 2017, table II.
pub fn laplace(order: f64, shift: f64) -> f64 {
    let twice = 2.0 * order - 1.0;
    let up = (order / twice).ln() + (order - 1.0) * shift;
    let down = ((order - 1.0) / twice).ln() - order * shift;
    log_add(up, down) / (order - 1.0)
}

/// The divergence of order `a` of any release that is `epsilon`-DP: `min(epsilon, a epsilon^2 / 2)`.
///
/// # Source
/// Bun and Steinke 2016, proposition 3.3.
pub fn pure(order: f64, epsilon: f64) -> f64 {
    epsilon.min(0.5 * order * epsilon * epsilon)
}

/// The smallest epsilon at `delta` of a release with the given divergences.
///
/// # Formula
/// `min over a > 1 of D(a) + (ln(1/delta) + (a-1) ln(1 - 1/a) - ln a) / (a-1)`, minimised over `ln(a - 1)`; at least 0.
///
/// # Source
/// Canonne, Kamath and Steinke 2020, proposition 12.
pub fn epsilon(divergence: impl Fn(f64) -> f64, delta: f64) -> f64 {
    least(|order| {
        let above = order - 1.0;
        // (a-1) ln(1 - 1/a) from a - 1, which alone keeps its digits near order 1.
        let shrink = above * (above.ln() - order.ln()) - order.ln();
        divergence(order) + (shrink - delta.ln()) / above
    })
    .max(0.0)
}

/// Epsilon at `delta` of a `rho`-zCDP release.
pub fn zcdp(rho: f64, delta: f64) -> f64 {
    epsilon(|order| order * rho, delta)
}

/// The textbook form `rho + 2 sqrt(rho ln(1/delta))`, always larger; for comparison with tools that print it.
///
/// # Source
/// Bun and Steinke 2016, proposition 1.3.
pub fn zcdp_loose(rho: f64, delta: f64) -> f64 {
    rho + 2.0 * (rho * -delta.ln()).sqrt()
}

/// The largest `rho` whose release is `(epsilon, delta)`-DP by [`zcdp`], from below.
pub fn rho(epsilon: f64, delta: f64) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    while zcdp(high, delta) <= epsilon {
        low = high;
        high *= 2.0;
    }
    while high - low > 1e-14 * high {
        let middle = 0.5 * (low + high);
        if zcdp(middle, delta) <= epsilon {
            low = middle;
        } else {
            high = middle;
        }
    }
    low
}

/// The largest success of an event that has probability `chance` under one of two laws with the given divergences.
///
/// # Formula
/// `min over a > 1 of (chance e^{D(a)})^{(a-1)/a}`, at most 1.
///
/// # Source
/// Balle, Cherubin and Hayes 2022, theorem 3.
pub fn most_found(divergence: impl Fn(f64) -> f64, chance: f64) -> f64 {
    least(|order| (chance.ln() + divergence(order)) * (order - 1.0) / order).min(0.0).exp()
}

/// The least value over orders above 1: a grid of `ln(a - 1)`, then golden sections between its best neighbours.
fn least(value: impl Fn(f64) -> f64) -> f64 {
    const GRID: (f64, f64, usize) = (-16.0, 26.0, 169);
    let at = |log_above: f64| {
        let v = value(1.0 + log_above.exp());
        if v.is_nan() { f64::INFINITY } else { v }
    };
    let step = (GRID.1 - GRID.0) / (GRID.2 - 1) as f64;
    let best = (0..GRID.2).map(|i| GRID.0 + step * i as f64).map(|t| (at(t), t)).min_by(|a, b| a.0.total_cmp(&b.0));
    let Some((mut least, centre)) = best else { return f64::INFINITY };
    let golden = 0.5 * (5.0_f64.sqrt() - 1.0);
    let (mut low, mut high) = (centre - step, centre + step);
    for _ in 0..60 {
        let (a, b) = (high - golden * (high - low), low + golden * (high - low));
        let (at_a, at_b) = (at(a), at(b));
        least = least.min(at_a).min(at_b);
        if at_a < at_b {
            high = b;
        } else {
            low = a;
        }
    }
    least
}

#[cfg(test)]
mod tests {
    use super::super::account;
    use super::*;
    use proptest::prelude::*;

    fn close(got: f64, expected: f64, tolerance: f64) {
        assert!((got / expected - 1.0).abs() < tolerance, "got {got}, expected {expected}");
    }

    #[test]
    fn concentrated_conversions_match_their_published_values() {
        close(zcdp(0.5, 1e-5), 4.728_386_98, 1e-8);
        close(zcdp_loose(0.5, 1e-5), 5.298_525_91, 1e-8);
        let z = 3.730_631_634_8_f64;
        close(zcdp(4.0 * 0.5 / (z * z), 1e-5), 2.339_959_45, 1e-8);
        close(zcdp_loose(4.0 * 0.5 / (z * z), 1e-5), 2.716_203_33, 1e-8);
        // 1.0028243 with orders up to a thousand; over all real orders nearly the exact .99998.
        let laplace_noise = epsilon(|a| laplace(a, 1.0), 1e-5);
        assert!((0.999_979_999..1.002_824_3).contains(&laplace_noise), "{laplace_noise}");
    }

    #[test]
    fn rho_inverts_the_conversion() {
        for e in [1e-2, 1.0, 8.0, 1e3] {
            close(zcdp(rho(e, 1e-5), 1e-5), e, 1e-8);
            assert!(zcdp(rho(e, 1e-5), 1e-5) <= e);
        }
    }

    proptest! {
        #[test]
        fn the_exact_curve_lies_below_zcdp_and_that_below_its_loose_form(mu in 1e-2..300.0_f64, log_delta in -10.0..-1.0_f64) {
            let d = 10_f64.powf(log_delta);
            let exact = account::epsilon(mu, d);
            let (tight, loose) = (zcdp(0.5 * mu * mu, d), zcdp_loose(0.5 * mu * mu, d));
            prop_assert!(exact <= tight * (1.0 + 1e-12) && tight <= loose, "{exact} {tight} {loose}");
            // Divergences of equal releases add up to that of their average.
            // Beside the loose form, which is the size of the terms that cancel: both are 0 where little is spent at a large delta.
            let (four, added) = (epsilon(|a| 4.0 * gaussian(a, mu), d), zcdp(2.0 * mu * mu, d));
            prop_assert!((four - added).abs() <= 1e-12 * zcdp_loose(2.0 * mu * mu, d), "{four} {added}");
        }

        #[test]
        fn divergences_grow_with_the_order_and_never_pass_the_pure_bound(e in 1e-3..50.0_f64, a in 1.001..500.0_f64) {
            prop_assert!(laplace(a, e) <= pure(a, e) * (1.0 + 1e-9) + 1e-12);
            prop_assert!(laplace(a, e) <= laplace(2.0 * a, e) + 1e-12);
            prop_assert!(epsilon(|o| pure(o, e), 1e-9) <= e + 1e-6);
        }
    }
}
