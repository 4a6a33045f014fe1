//! The family of stages: its registry, its trait, and what passes between stages.

use super::arguments::{Arguments, Problems, near};
use super::claim::{NoiseModel, State};
use super::{
    Center, Clip, DiscreteGaussian, DiscreteLaplace, Djw, Error, Gaussian, Identity, JohnsonLindenstrauss, LaplaceL1,
    LaplaceL2, Learned, Mahalanobis, Mask, Normalize, Pca, PrivUnit, PrivUnitG, Process, Prototype, Purkayastha,
    Quantize, Rotate, ScalePerturb, Shuffle, Sign, TopicMean, Vmf,
};
use crate::encode::Embeddings;
use serde::{Deserialize, Serialize};

/// One step of a pipeline, ready to run: what it does to vectors and what it does to the claim, side by side.
pub trait Stage: std::fmt::Debug + Send + Sync {
    /// The name it has in pipelines.
    fn name(&self) -> &'static str;

    /// Changes the rows.
    ///
    /// A stage draws a fixed number of bytes from `rng` whatever the input, so that its neighbours' draws do not depend
    /// on how many rows there are.
    ///
    /// # Errors
    /// When the rows cannot be protected: a value that is not finite, fewer rows than a prototype needs.
    fn apply(&self, release: Release, rng: &mut dyn rand::Rng) -> Result<Release, Error>;

    /// What is known after the stage, from what was known before it.
    fn guarantee(&self, before: &State) -> State;
}

/// What leaves the user.
#[derive(Debug, Clone, PartialEq)]
pub struct Release {
    /// The released rows.
    pub vectors: Embeddings,
    /// For each released row, the input rows behind it, ascending.
    pub members: Vec<Vec<u32>>,
    /// For each released row its public stratum (a topic), where strata were given.
    pub strata: Option<Vec<u32>>,
    /// The noise on the rows, as anybody who knows the pipeline models it; `None` without noise or a closed form.
    pub noise: Option<NoiseModel>,
}

/// The registry of stages: one variant for each, holding its parameters.
///
/// Its text form (`clip(l2=1)`) is also its serde form.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum StageConfig {
    /// See [`Identity`].
    Identity(Identity),
    /// See [`Normalize`].
    Normalize(Normalize),
    /// See [`Clip`].
    Clip(Clip),
    /// See [`Center`].
    Center(Center),
    /// See [`Mask`].
    Mask(Mask),
    /// See [`JohnsonLindenstrauss`].
    JohnsonLindenstrauss(JohnsonLindenstrauss),
    /// See [`Pca`].
    Pca(Pca),
    /// See [`Learned`].
    Learned(Learned),
    /// See [`Quantize`].
    Quantize(Quantize),
    /// See [`Sign`].
    Sign(Sign),
    /// See [`Rotate`].
    Rotate(Rotate),
    /// See [`ScalePerturb`].
    ScalePerturb(ScalePerturb),
    /// See [`Prototype`].
    Prototype(Prototype),
    /// See [`TopicMean`].
    TopicMean(TopicMean),
    /// See [`Gaussian`].
    Gaussian(Gaussian),
    /// See [`LaplaceL1`].
    LaplaceL1(LaplaceL1),
    /// See [`LaplaceL2`].
    LaplaceL2(LaplaceL2),
    /// See [`Mahalanobis`].
    Mahalanobis(Mahalanobis),
    /// See [`Vmf`].
    Vmf(Vmf),
    /// See [`Purkayastha`].
    Purkayastha(Purkayastha),
    /// See [`PrivUnit`].
    PrivUnit(PrivUnit),
    /// See [`PrivUnitG`].
    PrivUnitG(PrivUnitG),
    /// See [`Djw`].
    Djw(Djw),
    /// See [`DiscreteGaussian`].
    DiscreteGaussian(DiscreteGaussian),
    /// See [`DiscreteLaplace`].
    DiscreteLaplace(DiscreteLaplace),
    /// See [`Shuffle`].
    Shuffle(Shuffle),
    /// See [`Process`].
    Process(Process),
}

/// What every stage's parameters can do; [`StageConfig`] reaches them through one match.
pub(super) trait Parameters {
    /// The parameters in their declared order, as the canonical form writes them.
    fn arguments(&self) -> Vec<(&'static str, String)>;

    /// Every parameter that is out of range: its key, then what is wrong.
    fn check(&self) -> Vec<(&'static str, String)>;

    /// The stage, ready for rows in the state that the stages before it leave.
    ///
    /// # Errors
    /// When the stage cannot stand here: the remedy, as it follows the stage's printed form.
    fn build(&self, before: &State) -> Result<Box<dyn Stage>, String>;
}

impl StageConfig {
    /// One valid configuration of each stage, for contract tests and listings.
    pub fn examples() -> Vec<Self> {
        vec![
            Self::Identity(Identity),
            Self::Normalize(Normalize),
            Self::Clip(Clip { l2: 1.0 }),
            Self::Center(Center { public: None }),
            Self::Mask(Mask { keep: 0.5, seed: 1 }),
            Self::JohnsonLindenstrauss(JohnsonLindenstrauss { dim: 4, seed: 1 }),
            Self::Pca(Pca { dim: 4, public: None }),
            Self::Learned(Learned::new(4, 1.0, None)),
            Self::Quantize(Quantize { bits: 8, range: 1.0 }),
            Self::Sign(Sign { epsilon: Some(1.0) }),
            Self::Rotate(Rotate { key: 7 }),
            Self::ScalePerturb(ScalePerturb { scale: 10.0, beta: 0.5 }),
            Self::Prototype(Prototype { members: 20 }),
            Self::TopicMean(TopicMean { budget: Some((1.0, 1e-5)), share: 0.8, least: 20 }),
            Self::Gaussian(Gaussian::Calibrated { epsilon: 1.0, delta: 1e-5 }),
            Self::LaplaceL1(LaplaceL1 { epsilon: 8.0 }),
            Self::LaplaceL2(LaplaceL2 { rate: 98.0 }),
            Self::Mahalanobis(Mahalanobis { rate: 98.0, lambda: 0.5, public: None }),
            Self::Vmf(Vmf { kappa: 100.0 }),
            Self::Purkayastha(Purkayastha { kappa: 100.0 }),
            Self::PrivUnit(PrivUnit { epsilon: 16.0 }),
            Self::PrivUnitG(PrivUnitG { epsilon: 16.0 }),
            Self::Djw(Djw { epsilon: 8.0 }),
            Self::DiscreteGaussian(DiscreteGaussian { epsilon: 8.0, delta: 1e-5 }),
            Self::DiscreteLaplace(DiscreteLaplace { epsilon: 8.0 }),
            Self::Shuffle(Shuffle { users: 10 }),
            Self::Process(Process::new("python3 python/stitchback_plugin.py protection")),
        ]
    }

    /// The name in pipelines.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Identity(_) => "identity",
            Self::Normalize(_) => "normalize",
            Self::Clip(_) => "clip",
            Self::Center(_) => "center",
            Self::Mask(_) => "mask",
            Self::JohnsonLindenstrauss(_) => "johnson_lindenstrauss",
            Self::Pca(_) => "pca",
            Self::Learned(_) => "learned",
            Self::Quantize(_) => "quantize",
            Self::Sign(_) => "sign",
            Self::Rotate(_) => "rotate",
            Self::ScalePerturb(_) => "scale_perturb",
            Self::Prototype(_) => "prototype",
            Self::TopicMean(_) => "topic_mean",
            Self::Gaussian(_) => "gaussian",
            Self::LaplaceL1(_) => "laplace_l1",
            Self::LaplaceL2(_) => "laplace_l2",
            Self::Mahalanobis(_) => "mahalanobis",
            Self::Vmf(_) => "vmf",
            Self::Purkayastha(_) => "purkayastha",
            Self::PrivUnit(_) => "privunit",
            Self::PrivUnitG(_) => "privunit_g",
            Self::Djw(_) => "djw",
            Self::DiscreteGaussian(_) => "discrete_gaussian",
            Self::DiscreteLaplace(_) => "discrete_laplace",
            Self::Shuffle(_) => "shuffle",
            Self::Process(_) => "process",
        }
    }

    fn parameters(&self) -> &dyn Parameters {
        match self {
            Self::Identity(stage) => stage,
            Self::Normalize(stage) => stage,
            Self::Clip(stage) => stage,
            Self::Center(stage) => stage,
            Self::Mask(stage) => stage,
            Self::JohnsonLindenstrauss(stage) => stage,
            Self::Pca(stage) => stage,
            Self::Learned(stage) => stage,
            Self::Quantize(stage) => stage,
            Self::Sign(stage) => stage,
            Self::Rotate(stage) => stage,
            Self::ScalePerturb(stage) => stage,
            Self::Prototype(stage) => stage,
            Self::TopicMean(stage) => stage,
            Self::Gaussian(stage) => stage,
            Self::LaplaceL1(stage) => stage,
            Self::LaplaceL2(stage) => stage,
            Self::Mahalanobis(stage) => stage,
            Self::Vmf(stage) => stage,
            Self::Purkayastha(stage) => stage,
            Self::PrivUnit(stage) => stage,
            Self::PrivUnitG(stage) => stage,
            Self::Djw(stage) => stage,
            Self::DiscreteGaussian(stage) => stage,
            Self::DiscreteLaplace(stage) => stage,
            Self::Shuffle(stage) => stage,
            Self::Process(stage) => stage,
        }
    }

    /// The stage without its noise; `None` when noise is all that it is.
    pub(super) fn without_noise(&self) -> Option<Self> {
        match self {
            Self::Gaussian(_)
            | Self::LaplaceL1(_)
            | Self::LaplaceL2(_)
            | Self::Mahalanobis(_)
            | Self::Vmf(_)
            | Self::Purkayastha(_)
            | Self::PrivUnit(_)
            | Self::PrivUnitG(_)
            | Self::DiscreteGaussian(_)
            | Self::DiscreteLaplace(_)
            | Self::Djw(_) => None,
            Self::TopicMean(stage) => Some(Self::TopicMean(TopicMean { budget: None, ..*stage })),
            Self::Sign(_) => Some(Self::Sign(Sign { epsilon: None })),
            Self::ScalePerturb(stage) => Some(Self::ScalePerturb(ScalePerturb { beta: 0.0, ..*stage })),
            Self::Process(stage) => Some(Self::Process(stage.quiet())),
            quiet => Some(quiet.clone()),
        }
    }

    /// True when a row behind the stage stands for a group of records.
    pub(crate) fn groups(&self) -> bool {
        matches!(self, Self::Prototype(_) | Self::TopicMean(_))
    }

    /// True when two runs of the stage on the same rows differ by its noise.
    pub(crate) fn is_noise(&self) -> bool {
        self.without_noise().as_ref() != Some(self)
    }

    /// The stage with noise that is drawn exactly, on a grid; itself where it has none.
    ///
    /// # Errors
    /// For noise without an exact sampler, with the remedy.
    pub(super) fn on_grid(&self) -> Result<Self, String> {
        match *self {
            Self::Gaussian(Gaussian::Calibrated { epsilon, delta } | Gaussian::Classic { epsilon, delta }) => {
                Ok(Self::DiscreteGaussian(DiscreteGaussian { epsilon, delta }))
            }
            Self::Gaussian(Gaussian::Given { .. }) => {
                Err(format!("`{self}` has no epsilon that a grid could keep; give `epsilon` and `delta`"))
            }
            Self::LaplaceL1(LaplaceL1 { epsilon }) => Ok(Self::DiscreteLaplace(DiscreteLaplace { epsilon })),
            Self::DiscreteGaussian(_) | Self::DiscreteLaplace(_) => Ok(self.clone()),
            _ if self.is_noise() => Err(format!(
                "`{self}` is drawn in floating point only; use `gaussian(epsilon=.., delta=..)` or `laplace_l1(epsilon=..)`"
            )),
            _ => Ok(self.clone()),
        }
    }

    /// True when the noise of the stage leaves unit rows.
    pub(super) fn redirects(&self) -> bool {
        matches!(self, Self::Vmf(_) | Self::Purkayastha(_) | Self::Sign(Sign { epsilon: Some(_) }))
    }

    /// Reads one stage; every problem of it at once.
    pub(super) fn parse(text: &str) -> Result<Self, Problems> {
        let mut arguments = Arguments::split(text)?;
        let config = match arguments.stage() {
            "identity" => Self::Identity(Identity),
            "normalize" => Self::Normalize(Normalize),
            "clip" => Self::Clip(Clip::read(&mut arguments)),
            "center" => Self::Center(Center::read(&mut arguments)),
            "mask" => Self::Mask(Mask::read(&mut arguments)),
            "johnson_lindenstrauss" => Self::JohnsonLindenstrauss(JohnsonLindenstrauss::read(&mut arguments)),
            "pca" => Self::Pca(Pca::read(&mut arguments)),
            "learned" => Self::Learned(Learned::read(&mut arguments)),
            "quantize" => Self::Quantize(Quantize::read(&mut arguments)),
            "sign" => Self::Sign(Sign::read(&mut arguments)),
            "rotate" => Self::Rotate(Rotate::read(&mut arguments)),
            "scale_perturb" => Self::ScalePerturb(ScalePerturb::read(&mut arguments)),
            "prototype" => Self::Prototype(Prototype::read(&mut arguments)),
            "topic_mean" => Self::TopicMean(TopicMean::read(&mut arguments)),
            "gaussian" => Self::Gaussian(Gaussian::read(&mut arguments)),
            "laplace_l1" => Self::LaplaceL1(LaplaceL1::read(&mut arguments)),
            "laplace_l2" => Self::LaplaceL2(LaplaceL2::read(&mut arguments)),
            "mahalanobis" => Self::Mahalanobis(Mahalanobis::read(&mut arguments)),
            "vmf" => Self::Vmf(Vmf::read(&mut arguments)),
            "purkayastha" => Self::Purkayastha(Purkayastha::read(&mut arguments)),
            "privunit" => Self::PrivUnit(PrivUnit::read(&mut arguments)),
            "privunit_g" => Self::PrivUnitG(PrivUnitG::read(&mut arguments)),
            "djw" => Self::Djw(Djw::read(&mut arguments)),
            "discrete_gaussian" => Self::DiscreteGaussian(DiscreteGaussian::read(&mut arguments)),
            "discrete_laplace" => Self::DiscreteLaplace(DiscreteLaplace::read(&mut arguments)),
            "shuffle" => Self::Shuffle(Shuffle::read(&mut arguments)),
            "process" => Self::Process(Process::read(&mut arguments)),
            unknown => {
                let known: Vec<&str> = Self::examples().iter().map(Self::name).collect();
                return Err(vec![format!("no stage is called `{unknown}`; {}", near(unknown, &known))].into());
            }
        };
        arguments.finish(config)
    }

    /// Every parameter that is out of range, as "`stage.key` must be ...".
    pub fn check(&self) -> Vec<String> {
        let name = self.name();
        self.parameters().check().into_iter().map(|(key, problem)| format!("`{name}.{key}` {problem}")).collect()
    }

    /// The stage, ready for rows in the state that the stages before it leave.
    ///
    /// # Errors
    /// When the stage cannot stand here, with the remedy.
    pub(super) fn build(&self, before: &State) -> Result<Box<dyn Stage>, String> {
        self.parameters().build(before).map_err(|why| format!("`{self}` {why}"))
    }
}

impl std::fmt::Display for StageConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())?;
        let arguments = self.parameters().arguments();
        for (i, (key, value)) in arguments.iter().enumerate() {
            write!(f, "{}{key}={value}", if i == 0 { "(" } else { ", " })?;
        }
        if arguments.is_empty() { Ok(()) } else { f.write_str(")") }
    }
}

impl std::str::FromStr for StageConfig {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::parse(text)
            .and_then(|config| {
                let problems = config.check();
                if problems.is_empty() { Ok(config) } else { Err(problems.into()) }
            })
            .map_err(|problems| problems.error(text))
    }
}

impl TryFrom<String> for StageConfig {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<StageConfig> for String {
    fn from(config: StageConfig) -> Self {
        config.to_string()
    }
}

/// A range check in the house's words; `None` inside the range.
pub(super) fn out_of_range(key: &'static str, value: f64, low: f64, high: f64) -> Option<(&'static str, String)> {
    let print = super::arguments::number;
    // A NaN is in no range.
    let inside = value >= low && value <= high;
    (!inside).then(|| {
        let problem = if value <= 0.0 {
            format!("must be greater than 0, got {}", print(value))
        } else {
            format!("must lie in {} ..= {}, got {}", print(low), print(high), print(value))
        };
        (key, problem)
    })
}
