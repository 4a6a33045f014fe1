//! What may be promised about a release, folded stage by stage.
//!
//! [`State`] is what is known after the stages so far: where the vectors may lie, how far one record can move them, which
//! noise they carry, which guarantee holds. Every stage turns one state into the next; [`Claim`] is the last one, in the
//! words and numbers that outputs print.

use super::loss::Loss;
use super::mechanism::Mechanism;
use super::{account, bound, renyi};
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
    /// Zero-concentrated differential privacy: Rényi divergences of order `a` are at most `a rho`.
    Zcdp {
        /// The slope.
        rho: f64,
    },
    /// Pure differential privacy: no output is more than `e^epsilon` times as likely for a neighbour.
    Pure {
        /// Of one release.
        epsilon: f64,
    },
    /// Metric privacy: `epsilon` times the distance of two inputs. Without a bound on the distance it is no epsilon.
    Metric {
        /// For each unit of distance.
        epsilon: f64,
        /// Which distance.
        distance: String,
    },
    /// Central privacy of a pool of shuffled releases, each of them `epsilon`-DP by itself.
    Shuffled {
        /// Of one release, whoever looks.
        epsilon: f64,
        /// Users in the pool, at least.
        users: usize,
    },
}

impl Guarantee {
    /// Epsilon at `delta` of one release, to compare guarantees of different kinds; infinite without one.
    fn cost(&self, delta: f64) -> f64 {
        match *self {
            Self::None { .. } | Self::Metric { .. } => f64::INFINITY,
            Self::Gdp { mu } => account::epsilon(mu, delta),
            Self::Zcdp { rho } => renyi::zcdp(rho, delta),
            Self::Pure { epsilon } | Self::Shuffled { epsilon, .. } => epsilon,
        }
    }

    /// True when this one promises more than `other`.
    fn is_stronger(&self, other: &Self) -> bool {
        match (self, other) {
            (_, Self::None { .. }) => true,
            (Self::Gdp { mu }, Self::Gdp { mu: earlier }) => mu < earlier,
            _ => self.cost(super::DEFAULT_DELTA) < other.cost(super::DEFAULT_DELTA),
        }
    }
}

/// Isotropic noise on released rows, as an adaptive attacker who knows the pipeline models it: Gaussian, or the Gaussian of
/// the same variance (for directions: of the same expected cosine).
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
    /// Coordinates of a row, where known: some noise depends on them.
    pub dim: Option<usize>,
    /// Where each row lies.
    pub domain: Domain,
    /// How far one replaced record moves all rows together; `None` without a bound.
    pub sensitivity: Option<Sensitivity>,
    /// Records averaged into each row, at least.
    pub members: usize,
    /// Several records, all of one user's among them, may stand behind one row.
    pub shared: bool,
    /// The noise so far.
    pub noise: Noise,
    /// The strongest guarantee so far.
    pub guarantee: Guarantee,
    /// The noise that earned it.
    pub mechanism: Option<Mechanism>,
    /// A stage learned something from the very records that are released: then no guarantee holds, whatever the noise.
    pub tainted: Option<String>,
    /// `sigma` was spelled out instead of calibrated: the guarantee is implied, nobody asked for it.
    pub implied: bool,
    /// The delta that a calibrated stage was asked for.
    pub delta: Option<f64>,
    /// Members of a row when the guarantee was earned.
    pub unit_members: usize,
    /// Whether rows were shared then.
    pub unit_shared: bool,
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
            dim: None,
            domain: Domain::Unbounded,
            sensitivity: None,
            members: 1,
            shared: false,
            noise: Noise::Clean,
            guarantee: Guarantee::None { reason: "the pipeline adds no noise".to_owned() },
            mechanism: None,
            tainted: None,
            implied: false,
            delta: None,
            unit_members: 1,
            unit_shared: false,
            warnings: Vec::new(),
        }
    }

    /// Before the first stage, for rows of `dim` coordinates.
    pub fn raw_at(dim: usize) -> Self {
        Self { dim: Some(dim), ..Self::raw() }
    }

    /// Isotropic noise of standard deviation `sigma` was added; `None` where it depends on a dimension that is not known.
    /// With `gaussian` noise the second value is the sigma that a guarantee may count on.
    pub(super) fn noised(mut self, sigma: Option<f64>, gaussian: bool) -> (Self, f64) {
        let Some(sigma) = sigma else {
            self.domain = Domain::Unbounded;
            self.noise = Noise::Mixed;
            return (self, 0.0);
        };
        let (noise, running) = match self.noise {
            Noise::Clean => {
                let model = NoiseModel {
                    sigma_per_coordinate: sigma,
                    members: self.members,
                    averages: true,
                    rescaled: false,
                    signal_norm: self.domain.radius().unwrap_or(1.0),
                };
                (Noise::Gaussian { model, running: gaussian.then_some(sigma) }, sigma)
            }
            Noise::Gaussian { mut model, running } if !model.rescaled => {
                model.sigma_per_coordinate = model.sigma_per_coordinate.hypot(sigma);
                let sum = running.unwrap_or(0.0).hypot(if gaussian { sigma } else { 0.0 });
                (Noise::Gaussian { model, running: (sum > 0.0).then_some(sum) }, sum)
            }
            Noise::Gaussian { .. } | Noise::Mixed => (Noise::Mixed, sigma),
        };
        self.domain = Domain::Unbounded;
        self.noise = noise;
        (self, running)
    }

    /// Unit rows were replaced by random unit rows around them, at this expected cosine.
    #[must_use]
    pub(super) fn redirected(mut self, cosine: Option<f64>) -> Self {
        self.noise = match (self.noise, cosine, self.dim) {
            (Noise::Clean, Some(cosine), Some(dim)) => Noise::Gaussian {
                model: NoiseModel {
                    sigma_per_coordinate: ((cosine.powi(-2) - 1.0).max(0.0) / dim as f64).sqrt(),
                    members: self.members,
                    averages: true,
                    rescaled: true,
                    signal_norm: 1.0,
                },
                running: None,
            },
            _ => Noise::Mixed,
        };
        self.domain = Domain::Sphere;
        self.sensitivity = Some(Sensitivity { l2: 2.0, formula: "2".to_owned() });
        self
    }

    /// A guarantee was earned: it is reported where it is stronger than what held before.
    pub(super) fn earn(&mut self, guarantee: Guarantee, mechanism: Option<Mechanism>, implied: bool, members: usize) {
        if guarantee.is_stronger(&self.guarantee) {
            self.guarantee = guarantee;
            self.mechanism = mechanism;
            self.implied = implied;
            self.unit_members = members;
            self.unit_shared = self.shared;
        }
    }

    /// A stage without noise was passed: it says so, and why it promises nothing, until noise promises something.
    pub(super) fn promises_nothing(&mut self, reason: &str) {
        if let (Guarantee::None { reason: old }, Noise::Clean) = (&mut self.guarantee, self.noise) {
            reason.clone_into(old);
        }
        let warning = reason.to_owned();
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }

    /// A stage learned from the records that it protects.
    pub(super) fn taint(&mut self, stage: &str, what: &str) {
        let reason = format!(
            "`{stage}` learned its {what} from the records that it protects; give it `public=FILE`, vectors that are nobody's secret"
        );
        self.warnings.push(reason.clone());
        self.tainted.get_or_insert(reason);
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
/// `mu`-GDP, or the mechanism's own kind, under replace-one adjacency: two inputs are neighbours when one record's vector differs. The number of
/// records, which rows share a prototype, and the order of rows are public and the same for both.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Claim {
    /// What holds for one release.
    pub guarantee: Guarantee,
    /// The noise that earned it.
    pub mechanism: Option<Mechanism>,
    /// Records averaged into the unit of privacy, at least.
    pub members: usize,
    /// Several records may stand behind one row of it, so that those of one user add up.
    pub shared: bool,
    /// Coordinates of a row, where known.
    pub dim: Option<usize>,
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
    /// How many records of one user the claim covers.
    pub records: u32,
    /// What a reader must be told before trusting the release.
    pub warnings: Vec<String>,
}

impl Claim {
    /// Reads the claim off the state after the last stage.
    pub(super) fn of(state: &State) -> Self {
        // Without a guarantee the unit is what a row stands for; with one it is what the noise was scaled to.
        let (members, shared) = match state.guarantee {
            Guarantee::None { .. } => (state.members, state.shared),
            _ => (state.unit_members, state.unit_shared),
        };
        let (guarantee, mechanism) = match &state.tainted {
            Some(reason) => (Guarantee::None { reason: reason.clone() }, None),
            None => (state.guarantee.clone(), state.mechanism),
        };
        Self {
            guarantee,
            mechanism,
            members,
            shared,
            dim: state.dim,
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
            records: 1,
            warnings: state.warnings.clone(),
        }
    }

    /// The same claim about `k` fresh releases of the same records.
    #[must_use]
    pub fn after(self, k: u32) -> Self {
        Self { releases: k.max(1), ..self }
    }

    /// The same claim about all of a user's `records`, instead of one record.
    #[must_use]
    pub fn for_user(self, records: u32) -> Self {
        Self { records: records.max(1), ..self }
    }

    /// Releases to add up, and the factor by which several records in one row move it.
    ///
    /// Records in rows of their own cost what further releases cost; records in one row may all push one way.
    fn composed(&self) -> (u32, f64) {
        if self.shared {
            (self.releases, f64::from(self.records))
        } else {
            (self.releases.saturating_mul(self.records), 1.0)
        }
    }

    /// `mu` over all releases; `None` where the guarantee is of another kind.
    pub fn mu(&self) -> Option<f64> {
        let (k, group) = self.composed();
        match self.guarantee {
            Guarantee::Gdp { mu } => Some(account::compose(mu * group, k)),
            _ => None,
        }
    }

    /// Epsilon at `delta` over all releases; `None` without a guarantee.
    pub fn epsilon(&self, delta: f64) -> Option<f64> {
        let (k, group) = self.composed();
        let releases = f64::from(k);
        match self.guarantee {
            Guarantee::None { .. } | Guarantee::Metric { .. } => None,
            Guarantee::Gdp { .. } => self.mu().map(|mu| account::epsilon(mu, delta)),
            Guarantee::Zcdp { rho } => Some(renyi::zcdp(releases * rho * group * group, delta)),
            Guarantee::Pure { epsilon } if k == 1 => Some(epsilon * group),
            Guarantee::Pure { epsilon } => Some(
                Loss::randomised_response(epsilon * group, u64::from(k)).epsilon(delta).min(releases * epsilon * group),
            ),
            Guarantee::Shuffled { epsilon, users } => {
                let pools = f64::from(self.releases);
                // Whatever the pool hides, a user's own rows promise this much.
                let alone = epsilon * f64::from(self.records);
                let pooled = bound::shuffled_group(epsilon, users as f64, self.records, delta / pools);
                Some(pools * pooled.map_or(alone, |pooled| pooled.min(alone)))
            }
        }
    }

    /// True when something is promised.
    pub fn holds(&self) -> bool {
        !matches!(self.guarantee, Guarantee::None { .. } | Guarantee::Metric { .. })
    }

    /// Epsilon at `delta` of one record's worst pair over all releases, for rows of `dim` coordinates: what compares
    /// mechanisms of different kinds.
    pub fn worst_pair_epsilon(&self, delta: f64, dim: usize) -> Option<f64> {
        let pair = self.mechanism?.worst_pair(self.dim.unwrap_or(dim))?.epsilon(self.releases, delta);
        // Post-processing may have earned more than the mechanism alone; a pure epsilon caps the curve.
        match self.guarantee {
            Guarantee::Pure { epsilon } => Some(pair.min(f64::from(self.releases) * epsilon)),
            _ => Some(pair),
        }
    }

    /// The most that a record can be picked among `candidates` equally likely ones, over all releases.
    pub fn most_identified(&self, candidates: usize, dim: usize) -> Option<f64> {
        let nothing = self.mechanism?.against_nothing(self.dim.unwrap_or(dim))?;
        Some(nothing.most_found(self.releases, 1.0 / candidates as f64))
    }

    /// The most that all releases tell about a record, in nats.
    pub fn most_told(&self, dim: usize) -> Option<f64> {
        let dim = self.dim.unwrap_or(dim);
        let mechanism = self.mechanism?;
        let told = mechanism.against_nothing(dim)?.information(self.releases);
        Some(match mechanism {
            // The power of the noise bounds it as well: radius over sigma is mu / 2.
            Mechanism::Gaussian { mu } => told.min(bound::information_gaussian(0.5 * mu, 1.0, dim, self.releases)),
            _ => told,
        })
    }

    /// Noise standard deviation for each coordinate of one release.
    pub fn sigma(&self) -> Option<f64> {
        self.sigma
    }

    /// `none`, `gdp`, `zcdp`, `pure`, `metric` or `central`.
    pub fn kind(&self) -> &'static str {
        match self.guarantee {
            Guarantee::None { .. } => "none",
            Guarantee::Gdp { .. } => "gdp",
            Guarantee::Zcdp { .. } => "zcdp",
            Guarantee::Pure { .. } => "pure",
            Guarantee::Metric { .. } => "metric",
            Guarantee::Shuffled { .. } => "central",
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
        let number = |cost: f64| super::arguments::number(rounded_up(cost));
        match (&self.guarantee, self.implied) {
            (Guarantee::None { reason }, _) => reason.clone(),
            (Guarantee::Gdp { .. }, true) => "implied, sigma was given".to_owned(),
            (Guarantee::Gdp { .. }, false) => "exact for Gaussian noise (analytic mechanism)".to_owned(),
            (Guarantee::Zcdp { rho }, _) => {
                format!("{}-zCDP, discrete Gaussian noise on a grid", number(*rho))
            }
            (Guarantee::Pure { epsilon }, true) => {
                format!("pure epsilon {}, implied by the noise that was given", number(*epsilon))
            }
            (Guarantee::Pure { epsilon }, false) => format!("pure epsilon {}: delta is 0", number(*epsilon)),
            (Guarantee::Metric { epsilon, distance }, _) => format!(
                "{} for each unit of {distance}, on rows of any length: no epsilon; put `clip(l2=1)` before it",
                number(*epsilon)
            ),
            (Guarantee::Shuffled { epsilon, users }, _) => format!(
                "central, for a pool of at least {users} users and whoever trusts the shuffler; each release alone is epsilon {}",
                number(*epsilon)
            ),
        }
    }
}

/// A privacy cost to six significant digits, never less than it is; what a sum in floating point is off is no cost.
fn rounded_up(cost: f64) -> f64 {
    // Nothing, no bound, or too small for its scale to be a number.
    if !(1e-300..f64::INFINITY).contains(&cost) {
        return cost;
    }
    let scale = 10_f64.powi(5 - cost.log10().floor() as i32);
    let nearest = (cost * scale).round();
    let whole = if nearest >= cost * scale * (1.0 - 1e-12) { nearest } else { nearest + 1.0 };
    whole / scale
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

#[cfg(test)]
mod tests {
    use super::rounded_up;

    #[test]
    fn a_cost_is_written_short_and_never_too_small() {
        for (cost, wanted) in [
            (132.748_800_000_000_02, 132.749),
            (208.256_177_066, 208.257),
            (50.0, 50.0),
            (0.1 + 0.2, 0.3),
            (1.0 / 3.0, 0.333_334),
            (341.6, 341.6),
            (0.0, 0.0),
            (1e-310, 1e-310),
            (f64::INFINITY, f64::INFINITY),
        ] {
            assert_eq!(rounded_up(cost), wanted, "{cost}");
        }
    }
}
