//! The family of stages: its registry, its trait, and what passes between stages.

use super::arguments::{Arguments, near};
use super::claim::{NoiseModel, State};
use super::{Clip, Error, Gaussian, Identity, Normalize, Prototype, Rotate};
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
    /// See [`Prototype`].
    Prototype(Prototype),
    /// See [`Rotate`].
    Rotate(Rotate),
    /// See [`Gaussian`].
    Gaussian(Gaussian),
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
            Self::Prototype(Prototype { members: 20 }),
            Self::Rotate(Rotate { key: 7 }),
            Self::Gaussian(Gaussian::Calibrated { epsilon: 1.0, delta: 1e-5 }),
        ]
    }

    /// The name in pipelines.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Identity(_) => "identity",
            Self::Normalize(_) => "normalize",
            Self::Clip(_) => "clip",
            Self::Prototype(_) => "prototype",
            Self::Rotate(_) => "rotate",
            Self::Gaussian(_) => "gaussian",
        }
    }

    fn parameters(&self) -> &dyn Parameters {
        match self {
            Self::Identity(stage) => stage,
            Self::Normalize(stage) => stage,
            Self::Clip(stage) => stage,
            Self::Prototype(stage) => stage,
            Self::Rotate(stage) => stage,
            Self::Gaussian(stage) => stage,
        }
    }

    /// Reads one stage; every problem of it at once.
    pub(super) fn parse(text: &str) -> Result<Self, Vec<String>> {
        let mut arguments = Arguments::split(text)?;
        let config = match arguments.stage() {
            "identity" => Self::Identity(Identity),
            "normalize" => Self::Normalize(Normalize),
            "clip" => Self::Clip(Clip::read(&mut arguments)),
            "prototype" => Self::Prototype(Prototype::read(&mut arguments)),
            "rotate" => Self::Rotate(Rotate::read(&mut arguments)),
            "gaussian" => Self::Gaussian(Gaussian::read(&mut arguments)),
            unknown => {
                let known: Vec<&str> = Self::examples().iter().map(Self::name).collect();
                return Err(vec![format!("no stage is called `{unknown}`; {}", near(unknown, &known))]);
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
                if problems.is_empty() { Ok(config) } else { Err(problems) }
            })
            .map_err(|problems| Error::pipeline(text, &problems))
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
