//! `identity`: nothing at all.

use super::Error;
use super::claim::State;
use super::stage::{Parameters, Release, Stage};

/// Releases the vectors as they are, byte for byte: the unprotected side of every comparison.
///
/// # Guarantee
/// None.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity;

impl Parameters for Identity {
    fn arguments(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    fn check(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    fn build(&self, _: &State) -> Result<Box<dyn Stage>, String> {
        Ok(Box::new(*self))
    }
}

impl Stage for Identity {
    fn name(&self) -> &'static str {
        "identity"
    }

    fn apply(&self, release: Release, _: &mut dyn rand::Rng) -> Result<Release, Error> {
        Ok(release)
    }

    fn guarantee(&self, before: &State) -> State {
        before.clone()
    }
}
