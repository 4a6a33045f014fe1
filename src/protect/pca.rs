//! `pca`: only the directions in which vectors vary most.

use super::Error;
use super::arguments::Arguments;
use super::center::same_dim;
use super::claim::{Domain, State};
use super::johnson_lindenstrauss::{fits, projector};
use super::public::{Moments, Public};
use super::rotate::multiply;
use super::stage::{Parameters, Release, Stage, out_of_range};

/// Projects onto the first `dim` principal directions of public vectors, or of the rows themselves.
///
/// # Formula
/// `x V' V`, the rows of `V` the leading eigenvectors of the covariance of `public`.
///
/// # Shapes
/// `(n, d)` in and out: rows keep their `d` coordinates, so that they compare with raw ones.
///
/// # Guarantee
/// None: it keeps what tells texts apart. Before or after noise it helps the attacker, who would project anyway. Without
/// `public` the directions are the rows' own, and no guarantee holds for the release.
///
/// # Errors
/// `dim` above the rows' own dimension, public vectors of another dimension.
#[derive(Debug, Clone, PartialEq)]
pub struct Pca {
    /// Directions that are kept.
    pub dim: usize,
    /// Whose directions; the rows' own without it.
    pub public: Option<Public>,
}

impl Pca {
    pub(super) fn read(arguments: &mut Arguments<'_>) -> Self {
        Self { dim: arguments.count("dim", "64"), public: Public::read(arguments) }
    }
}

impl Parameters for Pca {
    fn arguments(&self) -> Vec<(&'static str, String)> {
        std::iter::once(("dim", self.dim.to_string())).chain(self.public.iter().flat_map(Public::arguments)).collect()
    }

    fn check(&self) -> Vec<(&'static str, String)> {
        out_of_range("dim", self.dim as f64, 1.0, 1e6).into_iter().collect()
    }

    fn build(&self, _: &State) -> Result<Box<dyn Stage>, String> {
        Ok(Box::new(self.clone()))
    }
}

impl Stage for Pca {
    fn name(&self) -> &'static str {
        "pca"
    }

    fn apply(&self, mut release: Release, _: &mut dyn rand::Rng) -> Result<Release, Error> {
        let d = release.vectors.dim();
        fits(self.name(), self.dim, d)?;
        same_dim(self.name(), self.public.as_ref(), d)?;
        let own = self.public.is_none().then(|| Moments::of(&release.vectors));
        if let Some(moments) = self.public.as_ref().map(Public::moments).or(own.as_ref()) {
            multiply(&mut release.vectors, &projector(&moments.axes().directions, self.dim, d, 1.0));
        }
        Ok(release)
    }

    fn guarantee(&self, before: &State) -> State {
        projected(
            before,
            self.name(),
            self.public.as_ref(),
            "`pca`: dropping the directions that vary least promises nothing: they are what an attacker would drop",
        )
    }
}

/// What is left of a state behind a projection on directions that `stage` learned: no promise, for the reason `why`, and rows that hang
/// together where it learned from those it releases.
pub(super) fn projected(before: &State, stage: &'static str, public: Option<&Public>, why: &str) -> State {
    let mut after = before.clone();
    if before.domain == Domain::Sphere {
        after.domain = Domain::L2 { radius: 1.0 };
    }
    after.promises_nothing(why);
    if public.is_none() {
        after.sensitivity = None;
        after.taint(stage, "directions");
    }
    after
}

#[cfg(test)]
mod tests {
    use super::super::clip::norm;
    use super::super::law::{minus, released};
    use crate::encode::Embeddings;
    use crate::seed;
    use rand_distr::{Distribution, StandardNormal};

    #[test]
    fn what_varies_stays_and_the_rest_is_gone() {
        // Three strong coordinates among twenty weak ones.
        let mut rng = seed::stream(1, "pca", "rows");
        let strength = |j: usize| if [4, 9, 17].contains(&j) { 1.0 } else { 0.01 };
        let draw = |i: usize| {
            let g: f64 = StandardNormal.sample(&mut rng);
            (g * strength(i % 20)) as f32
        };
        let x = Embeddings::new((0..300 * 20).map(draw).collect(), 20).expect("finite");
        let y = released("pca(dim=3)", &x, 1);
        for (x, y) in x.rows().zip(y.rows()) {
            assert!(norm(&minus(x, y)) < 0.2 && norm(y) <= norm(x), "{} {}", norm(&minus(x, y)), norm(x));
            assert!(y.iter().enumerate().all(|(j, v)| strength(j) == 1.0 || v.abs() < 0.02));
        }
        let all = released("pca(dim=20)", &x, 1);
        assert!(all.values().iter().zip(x.values()).all(|(a, b)| (a - b).abs() < 1e-5));
    }
}
