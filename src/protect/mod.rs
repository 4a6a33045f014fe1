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
//! | [`Prototype`] | means of `m` records of one topic | the only way to an epsilon near 1 that keeps a signal: needs `m` times less noise |
//! | [`Rotate`] | a secret orthogonal matrix | to be put on trial: it promises nothing and falls to leaked pairs |
//! | [`Gaussian`] | normal noise | the promise |
//!
//! To add a stage: a file with its parameters (`Parameters`) and its behaviour ([`Stage`]), a variant of
//! [`StageConfig`] with its arms, an example in [`StageConfig::examples`], a row in the typing test of `pipeline.rs`,
//! a test of its law.

pub mod account;
mod arguments;
mod claim;
mod clip;
mod gaussian;
mod identity;
mod normalize;
mod pipeline;
mod prototype;
pub(crate) mod rotate;
pub mod special;
mod stage;

pub use claim::{Adjacency, Claim, Domain, Guarantee, LIMITS, Noise, NoiseModel, Sensitivity, State};
pub use clip::Clip;
pub use gaussian::{DEFAULT_DELTA, Gaussian};
pub use identity::Identity;
pub use normalize::Normalize;
pub use pipeline::Pipeline;
pub use prototype::{POOLED, Prototype};
pub use rotate::Rotate;
pub use stage::{Release, Stage, StageConfig};

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
    /// The vectors cannot be protected (not finite, too few for a prototype, wrong number of strata).
    #[error("cannot protect the input: {0}")]
    Input(String),
}

impl Error {
    fn pipeline(text: &str, problems: &[String]) -> Self {
        Error::Pipeline { pipeline: text.trim().to_owned(), why: problems.join("; ") }
    }

    /// A malformed pipeline is a usage error, unusable vectors are bad input.
    pub fn exit(&self) -> Exit {
        match self {
            Error::Pipeline { .. } => Exit::Usage,
            Error::Input(_) => Exit::Input,
        }
    }
}
