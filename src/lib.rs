//! How much of a text can be read back from its embedding?
//!
//! `stitchback` puts embedding protections on trial. One study flows through the modules from left to right:
//!
//! ```text
//! data ──► encode ──► protect ──► attack ──► measure ──► run ──► report ──► gate
//!  │          │          │           │           │
//!  records    vectors    releases    guesses     scores with floors and intervals
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | [`seed`] | the only source of randomness: named, seeded streams |
//! | [`data`] | assets and their fetching, corpora, cleaning, splits, the near-duplicate guard |
//! | [`nn`] | the training substrate: fused kernels with exact gradients, optimiser, decoder |
//! | [`encode`] | victim and judge encoders, the embedding cache |
//! | [`protect`] | pipelines of protection stages, guarantees, accounting |
//! | [`attack`] | attackers: floors, retrieval, decoders, search; the adaptive parts they share |
//! | [`measure`] | similarity, text metrics, identification, intervals |
//! | [`audit`] | lower bounds of epsilon against the claim, probes of the noise |
//! | [`contribute`] | what a protected contribution is worth: values, receipts, quota |
//! | [`study`] | the study file, checked, and the cells it stands for |
//! | [`run`] | one cell end to end, the store, records, provenance |
//! | [`report`] | the HTML report and its figures, a pure function of the records |
//! | [`gate`] | a policy against the records: pass, fail or inconclusive |
//!
//! Read `run/cell.rs` first: it is the flow as ten calls.

pub mod error;
pub mod seed;

pub mod data;
pub mod nn;

pub mod encode;

pub mod protect;

pub mod attack;

pub mod measure;

pub mod audit;
pub mod contribute;

pub mod study;

pub mod run;

pub mod report;

pub mod gate;

pub use error::{Error, Exit};
