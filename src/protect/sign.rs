//! `sign`: one bit for each coordinate, told truly or with odds.

use super::Error;
use super::arguments::{Arguments, number};
use super::claim::{Domain, Guarantee, Sensitivity, State};
use super::mechanism::Mechanism;
use super::noise::{each_row, uniform};
use super::stage::{Parameters, Release, Stage, out_of_range};

/// Keeps the sign of every coordinate, each flipped with a probability where `epsilon` is given.
///
/// # Formula
/// `sgn(x_i) / sqrt d`, 0 counts as positive; with `epsilon` the sign is kept with probability
/// `e^epsilon / (1 + e^epsilon)`: randomised response.
///
/// # Guarantee
/// Without `epsilon` none. With it, pure: `epsilon` for each bit, `d epsilon` for a record, whose bits are all released. The
/// claim needs the dimension: it is printed where that is known.
///
/// # Source
/// Warner 1965.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sign {
    /// Of one bit, where signs are flipped.
    pub epsilon: Option<f64>,
}

impl Sign {
    pub(super) fn read(arguments: &mut Arguments<'_>) -> Self {
        Self { epsilon: arguments.optional_number("epsilon") }
    }
}

impl Parameters for Sign {
    fn arguments(&self) -> Vec<(&'static str, String)> {
        self.epsilon.map(|epsilon| ("epsilon", number(epsilon))).into_iter().collect()
    }

    fn check(&self) -> Vec<(&'static str, String)> {
        self.epsilon.and_then(|epsilon| out_of_range("epsilon", epsilon, 1e-6, 1e3)).into_iter().collect()
    }

    fn build(&self, _: &State) -> Result<Box<dyn Stage>, String> {
        Ok(Box::new(*self))
    }
}

impl Stage for Sign {
    fn name(&self) -> &'static str {
        "sign"
    }

    fn apply(&self, mut release: Release, rng: &mut dyn rand::Rng) -> Result<Release, Error> {
        let one = (release.vectors.dim() as f64).sqrt().recip() as f32;
        let flipped = self.epsilon.map_or(0.0, |epsilon| 1.0 / (1.0 + epsilon.exp()));
        each_row(&mut release, rng, |row, noise| {
            for v in row {
                let sign = if *v < 0.0 { -one } else { one };
                *v = if flipped > 0.0 && uniform(noise) < flipped { -sign } else { sign };
            }
        });
        Ok(release)
    }

    fn guarantee(&self, before: &State) -> State {
        let members = before.members;
        let Some(epsilon) = self.epsilon else {
            let mut after = before.clone().redirected(None);
            if before.noise == super::Noise::Clean {
                after.noise = super::Noise::Clean;
            }
            after.promises_nothing(
                "`sign`: signs promise nothing: after a rotation their cosine to the row is still .8, every time the same",
            );
            return after;
        };
        let mut after = before.clone().redirected(Some((0.5 * epsilon).tanh()));
        after.domain = Domain::Sphere;
        after.sensitivity = Some(Sensitivity { l2: 2.0, formula: "2".to_owned() });
        match before.dim {
            Some(dim) => {
                let guarantee = Guarantee::Pure { epsilon: epsilon * dim as f64 };
                after.earn(guarantee, Some(Mechanism::Bits { epsilon }), false, members);
            }
            None => after.promises_nothing(
                "`sign`: epsilon is for one bit; a record costs as many times that as the rows have coordinates",
            ),
        }
        after
    }
}

#[cfg(test)]
mod tests {
    use super::super::law::{DIMS, copies, dot, released};
    use crate::protect::Pipeline;

    /// The kept share of 200 000 bits has a standard error of at most .0011: five of them, a false alarm in 1.7 million.
    #[test]
    fn signs_are_kept_with_their_odds() {
        for dim in DIMS {
            let clean = copies(200_000 / dim, dim);
            let truth = released("sign", &clean, 1);
            assert!(truth.row(0).iter().zip(clean.row(0)).all(|(s, x)| s.signum() == x.signum()));
            let told = released("sign(epsilon=1)", &clean, 1);
            let kept = truth.values().iter().zip(told.values()).filter(|(a, b)| a == b).count() as f64;
            let share = kept / told.values().len() as f64;
            assert!((share - 1_f64.exp() / (1.0 + 1_f64.exp())).abs() < 0.0056, "{dim}: {share}");
        }
    }

    #[test]
    fn signs_of_many_coordinates_keep_the_cosine_and_cost_every_bit() {
        let clean = copies(1, 768);
        assert!((dot(clean.row(0), released("sign", &clean, 1).row(0)) - 0.798).abs() < 0.03);
        let claim = Pipeline::parse("sign(epsilon=0.1)").expect("valid").claim_at(384);
        assert!((claim.epsilon(1e-5).expect("bits") - 38.4).abs() < 1e-9);
        assert_eq!(Pipeline::parse("sign(epsilon=0.1)").expect("valid").claim().epsilon(1e-5), None);
        assert_eq!(Pipeline::parse("sign").expect("valid").claim_at(384).kind(), "none");
    }
}
