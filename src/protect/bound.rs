//! What no attacker can exceed: bounds on identification and on information, from the noise alone.
//!
//! They stand beside measurements, and a measurement above one of them is a fault of the program, not a success of the
//! attacker.

use super::special::{log_ndtr, normal_quantile};

/// The most that the right one of candidates can be picked, where guessing gets `chance`, from a `mu`-GDP pair of release
/// and nothing.
///
/// # Formula
/// `Phi(Phi^-1(chance) + mu)`, `mu = R sqrt(k) / sigma` with `R` the *radius* about a public centre: the attacker without a
/// release knows the centre, not an opposite record.
///
/// # Source
/// Hayes, Mahloujifar and Balle 2023, theorem 2 for the Gaussian trade-off.
pub fn most_found(chance: f64, mu: f64) -> f64 {
    log_ndtr(normal_quantile(chance) + mu).exp()
}

/// The most that the right one can be picked from an `epsilon`-DP release: `chance e^epsilon`, at most 1.
///
/// # Source
/// Balle, Cherubin and Hayes 2022.
pub fn most_found_pure(chance: f64, epsilon: f64) -> f64 {
    (chance.ln() + epsilon).min(0.0).exp()
}

/// Information about a row of norm at most `radius` in `k` releases with Gaussian noise, in nats.
///
/// # Formula
/// `min( d/2 ln(1 + C^2 / (d s^2)), C^2 / (2 s^2) )`, `s^2 = sigma^2 / k`.
pub fn information_gaussian(radius: f64, sigma: f64, dim: usize, k: u32) -> f64 {
    let d = dim as f64;
    let power = f64::from(k) * (radius / sigma).powi(2);
    (0.5 * d * (power / d).ln_1p()).min(0.5 * power)
}

/// The most that the right one of `n` equally likely candidates can be picked with `information` nats.
///
/// # Formula
/// Fano's inequality: `(I + ln 2) / ln N`, at most 1.
pub fn fano(information: f64, n: f64) -> f64 {
    ((information + std::f64::consts::LN_2) / n.ln()).min(1.0)
}

/// Epsilon of `n` users' shuffled releases, each `local`-DP, at `delta`; `None` outside the theorem's range.
///
/// # Formula
/// `ln(1 + (e^l - 1)/(e^l + 1) (8 sqrt(e^l ln(4/delta) / n) + 8 e^l / n))` for `l <= ln(n / (16 ln(2/delta)))`.
///
/// # Source
/// Feldman, McMillan and Talwar 2021, theorem 3.1.
pub fn shuffled(local: f64, n: f64, delta: f64) -> Option<f64> {
    let limit = (n / (16.0 * (2.0 / delta).ln())).ln();
    (local <= limit).then(|| {
        let e = local.exp();
        ((0.5 * local).tanh() * (8.0 * (e * (4.0 / delta).ln() / n).sqrt() + 8.0 * e / n)).ln_1p()
    })
}

/// Epsilon at `delta` of all of a user's `records` in one pool of `n` shuffled releases; `None` outside the theorem's range.
///
/// Records in one pool are no further releases: they are replaced one after the other, each in the same pool.
///
/// # Formula
/// `U e` with the least `e` at which one record is `(e, delta / (1 + e^e + ... + e^((U - 1) e)))`-DP, by iteration from below:
/// a smaller share of `delta` takes a larger `e`.
///
/// # Source
/// Group privacy (Vadhan 2017, lemma 2.2), its sum kept instead of the bound `U e^(U e)`.
pub fn shuffled_group(local: f64, n: f64, records: u32, delta: f64) -> Option<f64> {
    let u = f64::from(records);
    let sum = |e: f64| if e > 0.0 { (u * e).exp_m1() / e.exp_m1() } else { u };
    let mut epsilon = shuffled(local, n, delta / sum(0.0))?;
    for _ in 0..1000 {
        let next = shuffled(local, n, delta / sum(epsilon))?;
        if next <= epsilon {
            return Some(u * epsilon);
        }
        // A hair more than the equation asks for, so that it is met from above.
        epsilon = next * (1.0 + 1e-12);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_one_user_in_one_pool_cost_more_than_as_many_pools() {
        let (local, n, delta) = (1.0, 1e4, 1e-6);
        assert_eq!(shuffled_group(local, n, 1, delta), shuffled(local, n, delta));
        for records in [2, 5, 10] {
            let u = f64::from(records);
            let group = shuffled_group(local, n, records, delta).expect("in range");
            let e = group / u;
            let sum: f64 = (0..records).map(|i| (f64::from(i) * e).exp()).sum();
            let asked = shuffled(local, n, delta / sum).expect("in range");
            assert!(asked <= e && e < asked * (1.0 + 1e-9), "{records}: {e} for {asked}");
            let composed = u * shuffled(local, n, delta / u).expect("in range");
            assert!(group > composed, "{records}: {group} {composed}");
        }
        // The share of delta that is left falls out of the range that the theorem covers.
        assert_eq!(shuffled_group(local, n, 10_000, delta), None);
        assert_eq!(shuffled_group(9.0, 1e4, 2, delta), None);
    }

    #[test]
    fn bounds_match_their_golden_values() {
        for (mu, expected) in [(1.0, 0.018_298), (2.0, 0.137_805), (4.0, 0.818_527)] {
            assert!((most_found(1e-3, mu) - expected).abs() < 1e-6, "{mu}");
        }
        let told = information_gaussian(1.0, 1.0, 384, 1);
        assert!((fano(told, 1000.0) - 0.1726).abs() < 1e-4);
        assert!((shuffled(1.0, 1e4, 1e-6).expect("in range") - 0.214_025_7).abs() < 1e-7);
        assert!((shuffled(8.0, 1e6, 1e-6).expect("in range") - 1.002_722_6).abs() < 1e-7);
        assert!(shuffled(8.368, 1e6, 1e-6).is_some() && shuffled(8.369, 1e6, 1e-6).is_none());
    }

    #[test]
    fn bounds_end_at_certainty_and_at_chance() {
        assert!((most_found(1e-3, 0.0) - 1e-3).abs() < 1e-9);
        assert_eq!((most_found_pure(1e-3, 7.0), most_found_pure(0.5, 0.0)), (1.0, 0.5));
        assert!(most_found(1e-3, 50.0) > 1.0 - 1e-12);
        assert_eq!(fano(1e9, 10.0), 1.0);
        // Four releases tell what one of half the noise does.
        assert_eq!(information_gaussian(1.0, 0.5, 384, 4), information_gaussian(1.0, 0.25, 384, 1));
    }
}
