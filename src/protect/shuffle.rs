//! `shuffle`: releases of many users in random order.

use super::Error;
use super::arguments::Arguments;
use super::claim::{Guarantee, State};
use super::stage::{Parameters, Release, Stage, out_of_range};
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;

/// Puts the released rows of at least `users` users in random order, as a trusted shuffler would.
///
/// # Guarantee
/// Central, for the pool: behind a purely `epsilon`-DP stage, one row a user, what Feldman, McMillan and Talwar prove. It
/// holds for everybody who trusts the shuffler; whoever sees a row before it still faces the stage's own epsilon. Outside the
/// theorem's range, and behind other noise, nothing is gained. Shuffling the rows of one user is not this.
///
/// Studies hand each target its own row all the same: attackers are granted the order.
///
/// # Errors
/// Fewer rows than `users`.
///
/// # Source
/// Feldman, McMillan and Talwar 2021, theorem 3.1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shuffle {
    /// Users in the pool, at least, one row each.
    pub users: usize,
}

impl Shuffle {
    pub(super) fn read(arguments: &mut Arguments<'_>) -> Self {
        Self { users: arguments.count("users", "10000") }
    }
}

impl Parameters for Shuffle {
    fn arguments(&self) -> Vec<(&'static str, String)> {
        vec![("users", self.users.to_string())]
    }

    fn check(&self) -> Vec<(&'static str, String)> {
        out_of_range("users", self.users as f64, 1.0, 1e12).into_iter().collect()
    }

    fn build(&self, _: &State) -> Result<Box<dyn Stage>, String> {
        Ok(Box::new(*self))
    }
}

impl Stage for Shuffle {
    fn name(&self) -> &'static str {
        "shuffle"
    }

    fn apply(&self, release: Release, rng: &mut dyn rand::Rng) -> Result<Release, Error> {
        let mut key = [0_u8; 32];
        rng.fill_bytes(&mut key);
        let rows = release.vectors.len();
        if rows < self.users {
            return Err(Error::Input(format!(
                "`shuffle(users={})` got {rows} rows; its guarantee needs a pool of at least {} users",
                self.users, self.users
            )));
        }
        let mut order: Vec<usize> = (0..rows).collect();
        rand::seq::SliceRandom::shuffle(&mut order[..], &mut ChaCha20Rng::from_seed(key));
        Ok(Release {
            vectors: release.vectors.select(&order),
            members: order.iter().map(|&i| release.members[i].clone()).collect(),
            strata: release.strata.map(|strata| order.iter().map(|&i| strata[i]).collect()),
            ..release
        })
    }

    fn guarantee(&self, before: &State) -> State {
        let mut after = before.clone();
        if let (Guarantee::Pure { epsilon }, false) = (&before.guarantee, before.shared) {
            after.guarantee = Guarantee::Shuffled { epsilon: *epsilon, users: self.users };
        } else {
            after.promises_nothing(
                "`shuffle`: behind no purely epsilon-private stage, order promises nothing: a row tells by itself whose it is",
            );
        }
        after
    }
}

#[cfg(test)]
mod tests {
    use crate::encode::Embeddings;
    use crate::protect::Pipeline;
    use crate::seed;

    #[test]
    fn every_row_comes_out_once_with_its_record() {
        let clean = Embeddings::new((0..50).map(|i| i as f32).collect(), 1).expect("finite");
        let pipeline = Pipeline::parse("shuffle(users=50)").expect("valid");
        let out = pipeline.release(&clean, None, &mut seed::stream(1, "", "")).expect("enough users");
        assert!(out.members.iter().zip(out.vectors.values()).all(|(m, &v)| m == &[v as u32]));
        let mut seen = out.members.concat();
        assert_ne!(seen, (0..50).collect::<Vec<u32>>());
        seen.sort_unstable();
        assert_eq!(seen, (0..50).collect::<Vec<u32>>());
        let few =
            Pipeline::parse("shuffle(users=51)").expect("valid").release(&clean, None, &mut seed::stream(1, "", ""));
        assert!(few.expect_err("too few").to_string().contains("at least 51 users"));
    }

    #[test]
    fn a_crowd_earns_what_the_theorem_says_inside_its_range() {
        let claim = |text: &str| Pipeline::parse(text).expect("valid").claim_at(384);
        let pooled = claim("normalize | privunit(epsilon=1) | shuffle(users=10000)");
        assert_eq!(pooled.kind(), "central");
        assert!((pooled.epsilon(1e-6).expect("central") - 0.214_025_7).abs() < 1e-7);
        // Out of range the release's own epsilon stays.
        assert_eq!(claim("normalize | privunit(epsilon=16) | shuffle(users=10000)").epsilon(1e-6), Some(16.0));
        assert_eq!(claim("clip(l2=1) | gaussian(sigma=2) | shuffle(users=10000)").kind(), "gdp");
    }
}
