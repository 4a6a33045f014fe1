//! What may be promised about a release, folded stage by stage.
//!
//! [`State`] is what is known after the stages so far: where the vectors may lie, how far one record can move them, which
//! noise they carry, which guarantee holds. Every stage turns one state into the next; [`Claim`] is the last one, in the
//! words and numbers that outputs print.

use super::account;
use serde::{Deserialize, Serialize};

/// Where each row is known to lie.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Domain {
    /// Anywhere.
    Unbounded,
    /// In the ball of this radius about the origin.
    L2 {
        /// The radius, `C` in formulas.
        radius: f64,
    },
    /// On the unit sphere.
    Sphere,
}

impl Domain {
    /// The largest norm a row can have; `None` without a bound.
    pub fn radius(self) -> Option<f64> {
        match self {
            Domain::Unbounded => None,
            Domain::L2 { radius } => Some(radius),
            Domain::Sphere => Some(1.0),
        }
    }
}

/// Who counts as a neighbour of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Adjacency {
    /// Two inputs are neighbours when one record has another vector; how many records there are is public.
    #[serde(rename = "replace-one")]
    ReplaceOne,
}

impl std::fmt::Display for Adjacency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Adjacency::ReplaceOne => "replace-one",
        })
    }
}

/// How far the released rows can move when one record is replaced: the L2 norm over all of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sensitivity {
    /// The number.
    pub l2: f64,
    /// Where it comes from: `2C` for a clipped record, `2C/m` for a prototype of `m` members.
    pub formula: String,
}

/// The kind of promise, with its native parameter for one release.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Guarantee {
    /// Nothing is promised.
    None {
        /// Why not.
        reason: String,
    },
    /// Gaussian differential privacy: telling two neighbours apart is as hard as telling `N(0, 1)` from `N(mu, 1)`.
    Gdp {
        /// The distance, sensitivity over noise.
        mu: f64,
    },
}

/// Isotropic Gaussian noise on released rows, as an adaptive attacker who knows the pipeline models it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct NoiseModel {
    /// Standard deviation of each coordinate. Where noisy rows were averaged this is the largest it can be.
    pub sigma_per_coordinate: f64,
    /// How many records stand behind a row, at least; 1 without prototypes.
    pub members: usize,
    /// A second release of the same records draws fresh noise, so that averaging `k` of them divides sigma by `sqrt k`.
    pub averages: bool,
    /// `clip` or `normalize` came after the noise: directions follow this model, lengths do not.
    pub rescaled: bool,
    /// Norm of the clean row that figures refer to: the largest the domain allows, 1 where it is unbounded.
    pub signal_norm: f64,
}

impl NoiseModel {
    /// Noise-to-signal norm ratio `r = sigma sqrt(d) / C`.
    pub fn noise_to_signal(&self, dim: usize) -> f64 {
        self.sigma_per_coordinate * (dim as f64).sqrt() / self.signal_norm
    }

    /// Expected cosine between a released row and its clean row, `1 / sqrt(1 + r^2 / k)` after averaging `k` releases.
    pub fn expected_cosine(&self, dim: usize, k: u32) -> f64 {
        let r = self.noise_to_signal(dim);
        (1.0 + r * r / f64::from(k.max(1))).sqrt().recip()
    }
}

/// What is known about the rows after some stages of a pipeline.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    /// Where each row lies.
    pub domain: Domain,
    /// How far one replaced record moves all rows together; `None` without a bound.
    pub sensitivity: Option<Sensitivity>,
    /// Records averaged into each row, at least.
    pub members: usize,
    /// The noise so far.
    pub noise: Noise,
    /// The strongest guarantee so far.
    pub guarantee: Guarantee,
    /// `sigma` was spelled out instead of calibrated: the guarantee is implied, nobody asked for it.
    pub implied: bool,
    /// The delta that a calibrated stage was asked for.
    pub delta: Option<f64>,
    /// Members of a row when the guarantee was earned.
    pub unit_members: usize,
    /// What a reader must be told before trusting the release.
    pub warnings: Vec<String>,
}

/// Noise on the rows so far.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Noise {
    /// None yet.
    Clean,
    /// Isotropic Gaussian.
    Gaussian {
        /// What an attacker knows about it.
        model: NoiseModel,
        /// The part that the guarantee may count on when more noise follows: its sigma, until a stage other than noise
        /// (or one that changes nothing) comes between.
        running: Option<f64>,
    },
    /// Something without a closed form.
    Mixed,
}

impl State {
    /// Before the first stage: raw vectors, nothing promised.
    pub fn raw() -> Self {
        Self {
            domain: Domain::Unbounded,
            sensitivity: None,
            members: 1,
            noise: Noise::Clean,
            guarantee: Guarantee::None { reason: "the pipeline adds no noise".to_owned() },
            implied: false,
            delta: None,
            unit_members: 1,
            warnings: Vec::new(),
        }
    }

    /// The rows were scaled, each by its own positive number, into `domain`.
    #[must_use]
    pub(super) fn rescaled(mut self, domain: Domain) -> Self {
        self.domain = domain;
        if let Noise::Gaussian { model, running } = &mut self.noise {
            model.rescaled = true;
            *running = None;
        }
        self
    }

    /// The noise model, where the rows carry noise that has one.
    pub fn noise_model(&self) -> Option<NoiseModel> {
        match self.noise {
            Noise::Gaussian { model, .. } => Some(model),
            Noise::Clean | Noise::Mixed => None,
        }
    }
}

/// What a pipeline promises about its releases, and to whom.
///
/// # Guarantee
/// `mu`-GDP under replace-one adjacency: two inputs are neighbours when one record's vector differs. The number of
/// records, which rows share a prototype, and the order of rows are public and the same for both.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Claim {
    /// What holds for one release.
    pub guarantee: Guarantee,
    /// Nobody asked for the guarantee: it follows from a sigma that was given.
    pub implied: bool,
    /// Who counts as a neighbour.
    pub adjacency: Adjacency,
    /// How far one replaced record can move the released rows, before noise.
    pub sensitivity: Option<Sensitivity>,
    /// Whose data the claim is about.
    pub unit_of_privacy: String,
    /// Noise standard deviation for each coordinate of what is released; `None` without noise or without a closed form.
    pub sigma: Option<f64>,
    /// How many fresh releases of the same records the claim covers.
    pub releases: u32,
    /// What a reader must be told before trusting the release.
    pub warnings: Vec<String>,
}

impl Claim {
    /// Reads the claim off the state after the last stage.
    pub(super) fn of(state: &State) -> Self {
        // Without a guarantee the unit is what a row stands for; with one it is what the noise was scaled to.
        let members = match state.guarantee {
            Guarantee::None { .. } => state.members,
            Guarantee::Gdp { .. } => state.unit_members,
        };
        Self {
            guarantee: state.guarantee.clone(),
            implied: state.implied,
            adjacency: Adjacency::ReplaceOne,
            sensitivity: state.sensitivity.clone(),
            unit_of_privacy: if members == 1 {
                "one record".to_owned()
            } else {
                format!("one record among the {members} averaged into a prototype")
            },
            sigma: state.noise_model().map(|noise| noise.sigma_per_coordinate),
            releases: 1,
            warnings: state.warnings.clone(),
        }
    }

    /// The same claim about `k` fresh releases of the same records.
    #[must_use]
    pub fn after(self, k: u32) -> Self {
        Self { releases: k.max(1), ..self }
    }

    /// `mu` over all releases; `None` without a guarantee.
    pub fn mu(&self) -> Option<f64> {
        match self.guarantee {
            Guarantee::None { .. } => None,
            Guarantee::Gdp { mu } => Some(account::compose(mu, self.releases)),
        }
    }

    /// Epsilon at `delta` over all releases; `None` without a guarantee.
    pub fn epsilon(&self, delta: f64) -> Option<f64> {
        self.mu().map(|mu| account::epsilon(mu, delta))
    }

    /// Noise standard deviation for each coordinate of one release.
    pub fn sigma(&self) -> Option<f64> {
        self.sigma
    }

    /// `none` or `gdp`.
    pub fn kind(&self) -> &'static str {
        match self.guarantee {
            Guarantee::None { .. } => "none",
            Guarantee::Gdp { .. } => "gdp",
        }
    }

    /// Adjacency with the sensitivity that it implies, in words.
    pub fn adjacency_in_words(&self) -> String {
        match &self.sensitivity {
            Some(Sensitivity { l2, formula }) => {
                let l2 = super::arguments::number(*l2);
                let sensitivity = if *formula == l2 { l2 } else { format!("{formula} = {l2}") };
                format!(
                    "{}: one record's vector is exchanged for any other; sensitivity {sensitivity} (L2)",
                    self.adjacency
                )
            }
            None => {
                format!("{}: one record's vector is exchanged for any other; sensitivity unbounded", self.adjacency)
            }
        }
    }

    /// Why there is no guarantee, or what it rests on; one line.
    pub fn note(&self) -> String {
        match (&self.guarantee, self.implied) {
            (Guarantee::None { reason }, _) => reason.clone(),
            (Guarantee::Gdp { .. }, true) => "implied, sigma was given".to_owned(),
            (Guarantee::Gdp { .. }, false) => "exact for Gaussian noise (analytic mechanism)".to_owned(),
        }
    }
}

/// What no guarantee of this family covers; printed under every sheet.
pub const LIMITS: [&str; 5] = [
    "only the content of a vector is covered: how many records there are, which rows share a prototype, and the order of \
     rows count as public",
    "several records of one person are several units: epsilon grows with their number",
    "every further release of the same records costs again: mu grows with the square root of the releases",
    "how much of a text comes back is a measurement, not a number on this sheet: run an attack study",
    "the noise is research-grade floating point: its low bits are not hardened against attacks on f32 arithmetic",
];
