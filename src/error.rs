//! One error for the whole crate, and the exit code that each kind stands for.

/// What the process tells its caller. The numbers are frozen (`tests/` asserts them).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Everything asked for was done.
    Pass = 0,
    /// The gate found a leak or a loss of utility.
    Leak = 1,
    /// Usage or configuration: the command line, the study file, a pipeline.
    Usage = 2,
    /// Bad input or asset: a missing, truncated, tampered or unreadable file.
    Input = 3,
    /// No verdict: too few targets, an attacker below its strength bar.
    Inconclusive = 4,
    /// A fault of the program itself.
    Internal = 70,
    /// Interrupted; the same command resumes.
    Interrupted = 75,
}

impl Exit {
    /// What two results together tell the caller: a fault before a usage error, bad input, an interruption, a leak, and no
    /// verdict; a pass only if both are.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        const WORST_FIRST: [Exit; 7] =
            [Exit::Internal, Exit::Usage, Exit::Input, Exit::Interrupted, Exit::Leak, Exit::Inconclusive, Exit::Pass];
        WORST_FIRST.into_iter().find(|e| *e == self || *e == other).unwrap_or(self)
    }
}

/// Any failure of the library, by stage; `source()` chains are kept.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An asset could not be fetched, verified or read.
    #[error(transparent)]
    Asset(#[from] crate::data::asset::Error),
    /// A corpus could not be read or is too small.
    #[error(transparent)]
    Data(#[from] crate::data::Error),
    /// The training substrate met a wrong shape, a non-finite loss or a bad checkpoint.
    #[error(transparent)]
    Nn(#[from] crate::nn::Error),
    /// An encoder could not be loaded or fed.
    #[error(transparent)]
    Encode(#[from] crate::encode::Error),
    /// A pipeline is malformed or was given vectors that it cannot protect.
    #[error(transparent)]
    Protect(#[from] crate::protect::Error),
    /// An attacker lacks what it needs, or failed while training.
    #[error(transparent)]
    Attack(#[from] crate::attack::Error),
    /// A metric was given pairs that it cannot score.
    #[error(transparent)]
    Measure(#[from] crate::measure::Error),
    /// A contribution cannot be made, valued, recorded or checked.
    #[error(transparent)]
    Contribute(#[from] crate::contribute::Error),
    /// The study file has problems; all of them are listed.
    #[error(transparent)]
    Study(#[from] crate::study::Error),
    /// The run folder cannot be written, read or resumed.
    #[error(transparent)]
    Run(#[from] crate::run::Error),
    /// The gate cannot read its policy or its evidence.
    #[error(transparent)]
    Gate(#[from] crate::gate::Error),
    /// A report cannot be drawn from the given folder.
    #[error(transparent)]
    Report(#[from] crate::report::Error),
}

impl Error {
    /// The exit code that stands for this failure.
    pub fn exit(&self) -> Exit {
        match self {
            Error::Asset(e) => e.exit(),
            Error::Data(e) => e.exit(),
            Error::Nn(e) => e.exit(),
            Error::Encode(e) => e.exit(),
            Error::Protect(e) => e.exit(),
            Error::Attack(e) => e.exit(),
            Error::Measure(e) => e.exit(),
            Error::Contribute(e) => e.exit(),
            Error::Study(e) => e.exit(),
            Error::Run(e) => e.exit(),
            Error::Report(e) => e.exit(),
            Error::Gate(e) => e.exit(),
        }
    }
}
