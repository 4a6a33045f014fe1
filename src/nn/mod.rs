//! The training substrate: kernels with exact gradients, seeded initialisation, optimiser, schedule, checkpoints.

mod adamw;
pub mod attention;
pub mod cross_entropy;
mod decoder;
pub mod enlarge;
mod fitting;
pub mod image_ops;
pub mod kernel;
pub mod ops;
mod patches;
pub mod rows;
pub mod similarity;
mod snapshot;
mod trainer;

pub use adamw::AdamW;
pub use decoder::{Batch, Decoder, DecoderConfig, Hypothesis, Prefix, Sampling, Session};
pub use fitting::{Fitting, Params, seal, unseal};
pub use trainer::{StepReport, Trainer, Training};

use crate::error::Exit;

/// Why a model cannot be built, trained or restored.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Dimensions that do not fit together.
    #[error("shape: {0}")]
    Shape(String),
    /// A setting that is out of range.
    #[error("{0}")]
    Config(String),
    /// A checkpoint or weight file that is not what the model expects.
    #[error("checkpoint `{path}`: {why}")]
    Checkpoint {
        /// The file.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// Training left the real numbers.
    #[error("the loss is not finite at step {step}; lower the learning rate (`lr`)")]
    NotFinite {
        /// The step at which it was seen.
        step: usize,
    },
    /// An operation of candle failed.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

impl Error {
    /// A bad checkpoint is bad input, a bad setting is usage, the rest is our fault.
    pub fn exit(&self) -> Exit {
        match self {
            Error::Checkpoint { .. } => Exit::Input,
            Error::Config(_) => Exit::Usage,
            _ => Exit::Internal,
        }
    }
}
