//! Protection: what happens to vectors before they are released, and what may be promised about it.
//!
//! ```text
//! "clip(l2=1) | prototype(members=20) | gaussian(epsilon=1, delta=1e-5)"
//!      │ parse, check
//!      ▼
//!  Pipeline ──► State ─► State ─► State ──► Claim      what may be promised (claim.rs, account.rs)
//!      │
//!      └──────► Stage ─► Stage ─► Stage ──► Release    what leaves the user
//! ```
//!
//! | stage | what it does | what it is for |
//! |---|---|---|
//! | [`Identity`] | nothing | the unprotected side of a comparison |
//! | [`Normalize`] | unit norm | bounds a record whose length means nothing |
//! | [`Clip`] | norm at most `C` | bounds a record whose length means something |
//! | [`TopicMean`] | means of whole topics, sums and counts noisy | the same where groups are given and their sizes are private |
//! | [`Center`] | the mean of public vectors taken off | makes room inside a clip |
//! | [`Mask`], [`Pca`], [`JohnsonLindenstrauss`] | fewer numbers in a row | to be put on trial: they promise nothing |
//! | [`Learned`] | directions trained against an adversary | likewise: an empirical defence |
//! | [`Quantize`], [`Sign`] | few bits a number | likewise; `sign(epsilon=..)` flips bits and pays for each |
//! | [`ScalePerturb`] | a scale and bounded noise, as distance-preserving encryption | likewise |
//! | [`Prototype`] | means of `m` records of one topic | the only way to an epsilon near 1 that keeps a signal: needs `m` times less noise |
//! | [`Rotate`] | a secret orthogonal matrix | to be put on trial: it promises nothing and falls to leaked pairs |
//! | [`Gaussian`] | normal noise | the promise; exact at every delta, adds up best |
//! | [`LaplaceL1`] | Laplace noise on each coordinate | a pure epsilon; needs `sqrt d` more than normal noise |
//! | [`LaplaceL2`], [`Mahalanobis`] | noise of exponential length | metric privacy: near rows look alike, far ones do not |
//! | [`Vmf`], [`Purkayastha`] | a random direction around a unit row | rows that must stay unit vectors |
//! | [`PrivUnit`], [`PrivUnitG`] | a direction from a cap around the row | the best pure epsilon for unit rows |
//! | [`Djw`] | a point on the row's side of a sphere | a pure epsilon up to about 1 |
//! | [`DiscreteGaussian`], [`DiscreteLaplace`] | the same on a grid, with integers alone | real releases (`protect --secure`) |
//! | [`Process`] | a program of one's own | to be put on trial |
//! | [`Shuffle`] | many users' rows in random order | central privacy from small local epsilons |
//!
//! What a promise is worth: [`account`] is exact for normal noise, [`loss`] and [`directional`] for one release of other noise,
//! [`renyi`] bounds sums of any, [`bound`] says what no attacker can exceed; [`Mechanism`] knows which applies.
//!
//! To add a stage: a file with its parameters (`Parameters`) and its behaviour ([`Stage`]), a variant of
//! [`StageConfig`] with its arms, an example in [`StageConfig::examples`], a row in the typing test of `pipeline.rs`,
//! a test of its law.

pub mod account;
mod arguments;
pub mod bound;
mod center;
mod claim;
mod clip;
pub mod directional;
mod discrete_gaussian;
mod discrete_laplace;
mod djw;
mod gaussian;
mod grid;
mod identity;
mod johnson_lindenstrauss;
mod laplace_l1;
mod laplace_l2;
#[cfg(test)]
mod law;
mod learned;
pub mod loss;
mod mahalanobis;
mod mask;
pub mod mechanism;
pub mod memoize;
mod metadata;
mod noise;
mod normalize;
mod pca;
mod pipeline;
mod privunit;
mod privunit_g;
pub mod process;
mod prototype;
mod public;
mod purkayastha;
mod quantize;
pub mod renyi;
pub(crate) mod rotate;
mod scale_perturb;
mod shuffle;
mod sign;
pub mod special;
mod stage;
mod topic_mean;
mod vmf;

pub use center::Center;
pub use claim::{Adjacency, Claim, Domain, Guarantee, LIMITS, Noise, NoiseModel, Sensitivity, State};
pub use clip::Clip;
pub use discrete_gaussian::DiscreteGaussian;
pub use discrete_laplace::DiscreteLaplace;
pub use djw::Djw;
pub use gaussian::{DEFAULT_DELTA, Gaussian};
pub use identity::Identity;
pub use johnson_lindenstrauss::JohnsonLindenstrauss;
pub use laplace_l1::LaplaceL1;
pub use laplace_l2::LaplaceL2;
pub use learned::Learned;
pub use mahalanobis::Mahalanobis;
pub use mask::Mask;
pub use mechanism::{Curve, Mechanism};
pub use metadata::metadata;
pub use normalize::Normalize;
pub use pca::Pca;
pub use pipeline::Pipeline;
pub use privunit::PrivUnit;
pub use privunit_g::PrivUnitG;
pub use process::Process;
pub use prototype::{POOLED, Prototype};
pub(crate) use public::Moments;
pub use public::Public;
pub use purkayastha::Purkayastha;
pub use quantize::Quantize;
pub use rotate::Rotate;
pub use scale_perturb::ScalePerturb;
pub use shuffle::Shuffle;
pub use sign::Sign;
pub use stage::{Release, Stage, StageConfig};
pub use topic_mean::TopicMean;
pub use vmf::Vmf;

use crate::error::Exit;

/// Why a pipeline cannot be parsed, built or applied.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The pipeline text is malformed or a parameter is out of range.
    #[error("pipeline `{pipeline}`: {why}")]
    Pipeline {
        /// The text as given.
        pipeline: String,
        /// The stage and parameter, what is wrong, what would be right; every problem, separated by semicolons.
        why: String,
    },
    /// A file that a stage names cannot be used; nothing else is wrong.
    #[error("pipeline `{pipeline}`: {why}")]
    Public {
        /// The text as given.
        pipeline: String,
        /// The stage, the file, what is wrong with it; every problem, separated by semicolons.
        why: String,
    },
    /// The vectors cannot be protected (not finite, too few for a prototype, wrong number of strata).
    #[error("cannot protect the input: {0}")]
    Input(String),
}

impl Error {
    fn pipeline(text: &str, problems: &[String]) -> Self {
        Error::Pipeline { pipeline: text.trim().to_owned(), why: problems.join("; ") }
    }

    /// A malformed pipeline is a usage error, unusable vectors and files are bad input.
    pub fn exit(&self) -> Exit {
        match self {
            Error::Pipeline { .. } => Exit::Usage,
            Error::Public { .. } | Error::Input(_) => Exit::Input,
        }
    }
}
