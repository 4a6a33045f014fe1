//! Which noise earned a guarantee, and the curves that follow from it: the common currency of all mechanisms.
//!
//! Epsilons of different mechanisms do not compare: one is exact at a delta, another pure, a third is quoted for each unit
//! of distance. What a pair of opposite rows costs, what the best identification is and how much can be told at all do.

use super::bound;
use super::directional::{Angles, Law};
use super::loss::{self, Loss};
use super::privunit::Cap;
use super::{account, renyi};
use serde::{Deserialize, Serialize};

/// The noise behind a guarantee, with all that its curves need.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Mechanism {
    /// Normal noise: neighbours are `mu` apart, a record and none `mu / 2`.
    Gaussian {
        /// Sensitivity over noise.
        mu: f64,
    },
    /// Integer noise that is `rho`-zCDP.
    DiscreteGaussian {
        /// The concentration.
        rho: f64,
    },
    /// Independent Laplace noise that is `epsilon`-DP over an L2 ball.
    LaplaceL1 {
        /// Of the whole row.
        epsilon: f64,
    },
    /// Noise of density `e^{-rate |z|}` on a ball.
    LaplaceL2 {
        /// Epsilon for each unit of distance.
        rate: f64,
        /// Radius of the ball, as far as one record moves a row.
        radius: f64,
    },
    /// Von Mises-Fisher directions.
    Vmf {
        /// The concentration.
        kappa: f64,
    },
    /// Purkayastha directions.
    Purkayastha {
        /// The concentration.
        kappa: f64,
    },
    /// A cap of the sphere, drawn more often than its share.
    Cap {
        /// Of the release.
        epsilon: f64,
        /// The normal form of the cap.
        gaussian: bool,
    },
    /// One half of a sphere, drawn more often than the other.
    HalfSphere {
        /// Of the release.
        epsilon: f64,
    },
    /// One bit for each coordinate, each `epsilon`-DP.
    Bits {
        /// Of one bit.
        epsilon: f64,
    },
    /// Anything of which only its pure epsilon is known.
    Any {
        /// Of the release.
        epsilon: f64,
    },
}

/// What two laws cost when one must be told from the other.
#[derive(Debug, Clone, PartialEq)]
pub enum Curve {
    /// `N(0, 1)` against `N(mu, 1)`.
    Gaussian {
        /// The distance.
        mu: f64,
    },
    /// Divergences `a rho`.
    Concentrated {
        /// The slope.
        rho: f64,
    },
    /// `times` Laplace laws of scale 1, each moved by `shift`.
    Laplaces {
        /// Distance of each.
        shift: f64,
        /// How many.
        times: usize,
    },
    /// `times` answers of randomised response.
    Answers {
        /// Of one answer.
        epsilon: f64,
        /// How many.
        times: usize,
    },
    /// A law of the privacy loss.
    Tabled(Loss),
}

impl Mechanism {
    /// Two opposite rows of `dim` coordinates, the worst neighbours. `None` in fewer dimensions than the noise needs.
    ///
    /// That they are the worst is proved for normal noise and for randomised response; for the others it is the
    /// assumption under which the figure is printed, and the pure epsilon caps it.
    pub fn worst_pair(&self, dim: usize) -> Option<Curve> {
        if dim < self.least_dim() {
            return None;
        }
        Some(match *self {
            Self::Gaussian { mu } => Curve::Gaussian { mu },
            Self::DiscreteGaussian { rho } => Curve::Concentrated { rho },
            Self::LaplaceL1 { epsilon } => Curve::Laplaces { shift: epsilon / dim as f64, times: dim },
            Self::LaplaceL2 { rate, radius } => Curve::Tabled(loss::laplace_l2(rate, 2.0 * radius, dim)),
            Self::Vmf { kappa } => Curve::Tabled(Angles::new(dim, Law::Vmf { kappa }).antipodal()),
            Self::Purkayastha { kappa } => Curve::Tabled(Angles::new(dim, Law::Purkayastha { kappa }).antipodal()),
            Self::Bits { epsilon } => Curve::Answers { epsilon, times: dim },
            Self::Cap { epsilon, .. } | Self::HalfSphere { epsilon } | Self::Any { epsilon } => {
                Curve::Answers { epsilon, times: 1 }
            }
        })
    }

    /// A row against a release that knows nothing of it (the public centre, a random direction): what bounds
    /// identification and information.
    pub fn against_nothing(&self, dim: usize) -> Option<Curve> {
        if dim < self.least_dim() {
            return None;
        }
        Some(match *self {
            Self::Gaussian { mu } => Curve::Gaussian { mu: 0.5 * mu },
            Self::DiscreteGaussian { rho } => Curve::Concentrated { rho: 0.25 * rho },
            Self::LaplaceL1 { epsilon } => Curve::Laplaces { shift: 0.5 * epsilon / dim as f64, times: dim },
            Self::LaplaceL2 { rate, radius } => Curve::Tabled(loss::laplace_l2(rate, radius, dim)),
            Self::Vmf { kappa } => Curve::Tabled(Angles::new(dim, Law::Vmf { kappa }).against_uniform()),
            Self::Purkayastha { kappa } => {
                Curve::Tabled(Angles::new(dim, Law::Purkayastha { kappa }).against_uniform())
            }
            Self::Cap { epsilon, gaussian } => Curve::Tabled(Cap::best(dim, epsilon, gaussian).against_uniform()),
            Self::HalfSphere { epsilon } => {
                let (right, wrong) = (-(-epsilon).exp().ln_1p(), -epsilon - (-epsilon).exp().ln_1p());
                let twice = std::f64::consts::LN_2;
                Curve::Tabled(Loss::new(vec![(right + twice, right), (wrong + twice, wrong)]))
            }
            // A fair coin for each bit.
            Self::Bits { epsilon } => Curve::Answers { epsilon: bit_against_coin(epsilon), times: dim },
            Self::Any { epsilon } => Curve::Answers { epsilon, times: 1 },
        })
    }

    fn least_dim(&self) -> usize {
        match self {
            Self::Vmf { .. } | Self::Purkayastha { .. } | Self::Cap { .. } => 2,
            _ => 1,
        }
    }
}

/// A bit with odds `e^epsilon` against a fair coin is no more than randomised response of this epsilon.
fn bit_against_coin(epsilon: f64) -> f64 {
    // The larger of both ratios, ln 2p and -ln 2(1 - p).
    let p = 1.0 / (1.0 + (-epsilon).exp());
    (2.0 * p).ln().max(std::f64::consts::LN_2.mul_add(-1.0, epsilon + (-epsilon).exp().ln_1p()))
}

impl Curve {
    /// Epsilon at `delta` after `k` releases: exact where the law composes in closed form or `k` is 1, else by divergences.
    pub fn epsilon(&self, k: u32, delta: f64) -> f64 {
        let releases = f64::from(k);
        match self {
            Self::Gaussian { mu } => account::epsilon(account::compose(*mu, k), delta),
            Self::Concentrated { rho } => renyi::zcdp(releases * rho, delta),
            Self::Laplaces { shift, times: 1 } if k == 1 => loss::laplace_epsilon(*shift, delta),
            Self::Laplaces { shift, times } => {
                let n = *times as f64 * releases;
                renyi::epsilon(|order| n * renyi::laplace(order, *shift), delta).min(n * shift)
            }
            Self::Answers { epsilon, times } => {
                Loss::randomised_response(*epsilon, *times as u64 * u64::from(k)).epsilon(delta)
            }
            Self::Tabled(loss) => loss.epsilon_after(k, delta),
        }
    }

    /// The most that the right one of candidates can be picked after `k` releases, where guessing gets `chance`.
    pub fn most_found(&self, k: u32, chance: f64) -> f64 {
        let releases = f64::from(k);
        match self {
            Self::Gaussian { mu } => bound::most_found(chance, account::compose(*mu, k)),
            Self::Concentrated { rho } => renyi::most_found(|order| order * releases * rho, chance),
            Self::Laplaces { shift, times } => {
                let n = *times as f64 * releases;
                let pure = bound::most_found_pure(chance, n * shift);
                renyi::most_found(|order| n * renyi::laplace(order, *shift), chance).min(pure)
            }
            Self::Answers { epsilon, times } => {
                Loss::randomised_response(*epsilon, *times as u64 * u64::from(k)).most_found(chance)
            }
            Self::Tabled(loss) if k == 1 => loss.most_found(chance),
            Self::Tabled(loss) => renyi::most_found(|order| releases * loss.renyi(order), chance),
        }
    }

    /// The most that `k` releases tell about a row, in nats.
    pub fn information(&self, k: u32) -> f64 {
        let one = match self {
            Self::Gaussian { mu } => 0.5 * mu * mu,
            Self::Concentrated { rho } => *rho,
            Self::Laplaces { shift, times } => *times as f64 * (shift + (-shift).exp_m1()),
            Self::Answers { epsilon, times } => *times as f64 * epsilon * (0.5 * epsilon).tanh(),
            Self::Tabled(loss) => loss.mean(),
        };
        f64::from(k) * one.max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn isotropic_mechanisms_of_one_cosine_cost_about_the_same() {
        // Mean cosines .245 to .252 at d = 384: four headlines from 92 to 314, one cost.
        let cost = |mechanism: Mechanism| mechanism.worst_pair(384).expect("enough dimensions").epsilon(1, 1e-5);
        for (mechanism, expected) in [
            (Mechanism::Gaussian { mu: 10.0 }, 91.817),
            (Mechanism::Vmf { kappa: 100.0 }, 85.805),
            (Mechanism::Purkayastha { kappa: 100.0 }, 91.568),
            (Mechanism::LaplaceL2 { rate: 98.0, radius: 1.0 }, 83.35),
        ] {
            assert!((cost(mechanism) / expected - 1.0).abs() < 3e-4, "{mechanism:?}: {}", cost(mechanism));
        }
    }

    #[test]
    fn further_releases_cost_more_and_tell_more_for_every_mechanism() {
        for mechanism in [
            Mechanism::Gaussian { mu: 1.0 },
            Mechanism::DiscreteGaussian { rho: 0.5 },
            Mechanism::LaplaceL1 { epsilon: 4.0 },
            Mechanism::LaplaceL2 { rate: 4.0, radius: 1.0 },
            Mechanism::Vmf { kappa: 20.0 },
            Mechanism::Purkayastha { kappa: 20.0 },
            Mechanism::Cap { epsilon: 4.0, gaussian: false },
            Mechanism::Cap { epsilon: 4.0, gaussian: true },
            Mechanism::HalfSphere { epsilon: 4.0 },
            Mechanism::Bits { epsilon: 0.1 },
            Mechanism::Any { epsilon: 1.0 },
        ] {
            let (pair, nothing) = (mechanism.worst_pair(64), mechanism.against_nothing(64));
            let (pair, nothing) = (pair.expect("64 dimensions"), nothing.expect("64 dimensions"));
            for k in [1, 4] {
                assert!(pair.epsilon(k, 1e-5) < pair.epsilon(4 * k, 1e-5), "{mechanism:?}");
                assert!(pair.epsilon(k, 1e-5) <= pair.epsilon(k, 1e-7), "{mechanism:?}");
                assert!(nothing.information(k) < nothing.information(4 * k), "{mechanism:?}");
                let (one, four) = (nothing.most_found(k, 1e-3), nothing.most_found(4 * k, 1e-3));
                assert!(one >= 1e-3 && one <= four && four <= 1.0, "{mechanism:?}: {one} {four}");
                // A row against nothing is nearer than against its opposite.
                assert!(one <= pair.most_found(k, 1e-3) * (1.0 + 1e-9), "{mechanism:?}");
            }
        }
        assert_eq!(Mechanism::Vmf { kappa: 1.0 }.worst_pair(1), None);
    }
}
