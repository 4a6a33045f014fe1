//! Quota: credits that are issued each epoch, kept in baskets, spent on requests. Integers only, nothing is ever lost.
//!
//! | file | what it holds |
//! |---|---|
//! | [`divide`] | exact division: largest remainder, weighted max-min filling |
//! | [`ledger`] | baskets, holds, reserve; every operation once |
//! | [`epoch`] | what an epoch issues, to whom, and where the overflow goes |

pub mod divide;
pub mod epoch;
pub mod ledger;

pub use epoch::{Claimant, Policy};
pub use ledger::{Ledger, Operation, Outcome, Refusal};

/// Millionths of a credit.
pub type Micro = u64;
