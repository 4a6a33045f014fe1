//! `scale_perturb`: a secret scale and bounded noise, as distance-preserving encryption does it.

use super::Error;
use super::arguments::{Arguments, number};
use super::claim::{Domain, State};
use super::noise::{direction, each_row, uniform};
use super::stage::{Parameters, Release, Stage, out_of_range};

/// Scales every row and adds noise that is even over a ball.
///
/// # Formula
/// `s x + n`, `s` = `scale`, `n` even over the ball of radius `s beta / 4`: the ciphertext of the scheme. Here the noise is
/// fresh for each release; the scheme derives it from a key and a nonce.
///
/// # Guarantee
/// None: bounded noise never hides that two rows lie further apart than its ball, and the secret scale is read off the
/// norms. Attackers are told it.
///
/// # Source
/// Fuchsbauer, Ghosal, Hauke and O'Neill 2022 (scale-and-perturb).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScalePerturb {
    /// The factor.
    pub scale: f64,
    /// Four times the radius of the noise, relative to the scale.
    pub beta: f64,
}

impl ScalePerturb {
    pub(super) fn read(arguments: &mut Arguments<'_>) -> Self {
        Self { scale: arguments.number("scale", "10"), beta: arguments.number("beta", "0.5") }
    }

    fn radius(self) -> f64 {
        0.25 * self.scale * self.beta
    }
}

impl Parameters for ScalePerturb {
    fn arguments(&self) -> Vec<(&'static str, String)> {
        vec![("scale", number(self.scale)), ("beta", number(self.beta))]
    }

    fn check(&self) -> Vec<(&'static str, String)> {
        let negative = (!(0.0..=1e6).contains(&self.beta))
            .then(|| ("beta", format!("must lie in 0 ..= 1e6, got {}", number(self.beta))));
        out_of_range("scale", self.scale, 1e-9, 1e9).into_iter().chain(negative).collect()
    }

    fn build(&self, _: &State) -> Result<Box<dyn Stage>, String> {
        Ok(Box::new(*self))
    }
}

impl Stage for ScalePerturb {
    fn name(&self) -> &'static str {
        "scale_perturb"
    }

    fn apply(&self, mut release: Release, rng: &mut dyn rand::Rng) -> Result<Release, Error> {
        let dim = release.vectors.dim();
        each_row(&mut release, rng, |row, noise| {
            let length = self.radius() * uniform(noise).powf(1.0 / dim as f64);
            let n = direction(dim, noise);
            row.iter_mut().zip(n).for_each(|(v, n)| *v = (f64::from(*v) * self.scale + length * n) as f32);
        });
        Ok(release)
    }

    fn guarantee(&self, before: &State) -> State {
        let mut scaled = before.clone();
        scaled.sensitivity = None;
        scaled.domain = before.domain.radius().map_or(Domain::Unbounded, |r| Domain::L2 { radius: r * self.scale });
        if let super::Noise::Gaussian { model, running } = &mut scaled.noise {
            model.sigma_per_coordinate *= self.scale;
            model.signal_norm *= self.scale;
            *running = None;
        }
        let mut after = scaled.clone();
        if self.beta > 0.0 {
            let sigma = before.dim.map(|d| self.radius() / (d as f64 + 2.0).sqrt());
            after = scaled.noised(sigma, false).0;
            after.domain = match before.domain.radius() {
                Some(r) => Domain::L2 { radius: r * self.scale + self.radius() },
                None => Domain::Unbounded,
            };
        }
        let reason = "`scale_perturb`: bounded noise promises nothing: rows further apart than its ball are told apart every \
                      time, and norms give the scale away";
        if let (super::Guarantee::None { reason: old }, super::Noise::Clean) = (&mut after.guarantee, before.noise) {
            reason.clone_into(old);
        }
        after.promises_nothing(reason);
        after
    }
}

#[cfg(test)]
mod tests {
    use super::super::clip::norm;
    use super::super::law::{CRITICAL, DIMS, copies, distance, minus, released};
    use crate::protect::Pipeline;

    /// Kolmogorov-Smirnov at level 1e-6: the radius of an even draw from a ball to the power `d` is even.
    #[test]
    fn noise_is_even_over_its_ball() {
        for dim in DIMS {
            let clean = copies(2000, dim);
            let y = released("scale_perturb(scale=4, beta=2)", &clean, 1);
            let scaled: Vec<f32> = clean.row(0).iter().map(|v| 4.0 * v).collect();
            let lengths: Vec<f64> = y.rows().map(|row| norm(&minus(row, &scaled))).collect();
            assert!(lengths.iter().all(|&l| l <= 2.0 + 1e-5));
            let d = distance(lengths, |l| (l / 2.0).clamp(0.0, 1.0).powi(dim as i32));
            assert!(d < CRITICAL, "{dim}: {d}");
        }
        let claim = Pipeline::parse("normalize | scale_perturb(scale=4, beta=2)").expect("valid").claim_at(384);
        assert_eq!(claim.kind(), "none");
        assert!(claim.note().contains("bounded noise promises nothing"), "{}", claim.note());
    }
}
