//! Simulation: who waits how long when capacity is scarce, under several rules of access.
//!
//! | file | what it holds |
//! |---|---|
//! | [`queue`] | the event loop: jobs, slots, policies |
//! | [`population`] | users: what they contribute, what they can pay, when they ask |
//! | [`oracle`] | closed forms that the event loop must reproduce |
//! | [`mod@compare`] | policies on the same arrivals, paired intervals |
//!
//! What a rule can change is who waits, not how much is waited in all: rules that keep every slot busy and do not look at a
//! job's size have one load-weighted mean wait (Kleinrock). Claims are therefore about tails, starvation, waste and shares.

pub mod compare;
pub mod oracle;
pub mod population;
pub mod queue;

pub use compare::{Comparison, Plan, compare};
pub use queue::Policy;
