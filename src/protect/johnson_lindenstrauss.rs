//! `johnson_lindenstrauss`: a public random projection.

use super::Error;
use super::arguments::Arguments;
use super::claim::{Domain, Noise, Sensitivity, State};
use super::rotate::{multiply, orthonormalise};
use super::stage::{Parameters, Release, Stage, out_of_range};
use crate::seed;
use rand_distr::{Distribution, StandardNormal};

/// Projects onto a public random subspace of `dim` dimensions, scaled so that lengths are kept on average.
///
/// # Formula
/// `sqrt(d / r) x Q' Q`, `Q` an orthonormal basis of a random subspace of `r` = `dim` dimensions, from `seed`.
///
/// # Shapes
/// `(n, d)` in and out: rows keep their `d` coordinates, so that they compare with raw ones; `r` numbers are in them.
///
/// # Guarantee
/// None: whoever knows the projection has `r` exact numbers about every row, and cosines survive it. Rows may grow by
/// `sqrt(d / r)`: put a `clip` behind it when noise follows.
///
/// # Errors
/// `dim` above the rows' own dimension.
///
/// # Source
/// Johnson and Lindenstrauss 1984.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct JohnsonLindenstrauss {
    /// Dimensions of the subspace.
    pub dim: usize,
    /// Names the subspace; public.
    pub seed: u64,
}

impl JohnsonLindenstrauss {
    pub(super) fn read(arguments: &mut Arguments<'_>) -> Self {
        let dim = arguments.count("dim", "64");
        Self { dim, seed: arguments.optional_count("seed").unwrap_or(1) }
    }
}

/// A subspace has no more dimensions than the space.
pub(super) fn fits(stage: &str, dim: usize, d: usize) -> Result<(), Error> {
    if dim <= d {
        return Ok(());
    }
    Err(Error::Input(format!("`{stage}(dim={dim})` got rows of {d} coordinates; ask for at most {d}")))
}

/// `scale Q' Q` for the first `r` rows of `basis`.
pub(super) fn projector(basis: &[f64], r: usize, d: usize, scale: f64) -> Vec<f32> {
    let mut matrix = vec![0.0_f64; d * d];
    for q in basis.chunks_exact(d).take(r) {
        for (row, &a) in matrix.chunks_exact_mut(d).zip(q) {
            row.iter_mut().zip(q).for_each(|(m, &b)| *m += scale * a * b);
        }
    }
    matrix.into_iter().map(|v| v as f32).collect()
}

impl Parameters for JohnsonLindenstrauss {
    fn arguments(&self) -> Vec<(&'static str, String)> {
        vec![("dim", self.dim.to_string()), ("seed", self.seed.to_string())]
    }

    fn check(&self) -> Vec<(&'static str, String)> {
        out_of_range("dim", self.dim as f64, 1.0, 1e6).into_iter().collect()
    }

    fn build(&self, _: &State) -> Result<Box<dyn Stage>, String> {
        Ok(Box::new(*self))
    }
}

impl Stage for JohnsonLindenstrauss {
    fn name(&self) -> &'static str {
        "johnson_lindenstrauss"
    }

    fn apply(&self, mut release: Release, _: &mut dyn rand::Rng) -> Result<Release, Error> {
        let d = release.vectors.dim();
        fits(self.name(), self.dim, d)?;
        let mut rng = seed::stream(self.seed, "johnson_lindenstrauss", &format!("subspace of {d} coordinates"));
        let mut basis: Vec<f64> = (0..self.dim * d).map(|_| StandardNormal.sample(&mut rng)).collect();
        orthonormalise(&mut basis, d);
        let scale = (d as f64 / self.dim as f64).sqrt();
        multiply(&mut release.vectors, &projector(&basis, self.dim, d, scale));
        Ok(release)
    }

    fn guarantee(&self, before: &State) -> State {
        let grow = before.dim.map(|d| (d as f64 / self.dim as f64).max(1.0).sqrt());
        let radius = before.domain.radius().zip(grow).map(|(radius, grow)| radius * grow);
        let mut after = before.clone();
        after.domain = radius.map_or(Domain::Unbounded, |radius| Domain::L2 { radius });
        after.noise = match (before.noise, grow) {
            (Noise::Clean, _) => Noise::Clean,
            // Signal and noise of the subspace grow alike.
            (Noise::Gaussian { mut model, .. }, Some(grow)) => {
                model.sigma_per_coordinate *= grow;
                model.signal_norm *= grow;
                Noise::Gaussian { model, running: None }
            }
            _ => Noise::Mixed,
        };
        after.sensitivity = before
            .sensitivity
            .as_ref()
            .zip(grow)
            .map(|(s, grow)| Sensitivity { l2: s.l2 * grow, formula: format!("{} sqrt(d/r)", s.formula) });
        after.promises_nothing(
            "`johnson_lindenstrauss`: a public projection promises nothing: whoever knows it has exact numbers of every row",
        );
        after
    }
}

#[cfg(test)]
mod tests {
    use super::super::clip::norm;
    use super::super::law::released;
    use crate::encode::Embeddings;
    use crate::protect::Pipeline;
    use crate::seed;
    use rand_distr::{Distribution, StandardNormal};

    /// `|Px|^2 d / r` has mean 1 and, over 400 rows in one of 96 dimensions, a spread of about .02: five of them.
    #[test]
    fn lengths_are_kept_on_average_and_rows_lie_in_the_subspace() {
        let mut rng = seed::stream(1, "jl", "rows");
        let x = Embeddings::new((0..400 * 96).map(|_| StandardNormal.sample(&mut rng)).collect(), 96).expect("finite");
        let y = released("johnson_lindenstrauss(dim=24, seed=3)", &x, 1);
        let ratio: f64 = (0..400).map(|i| (norm(y.row(i)) / norm(x.row(i))).powi(2)).sum::<f64>() / 400.0;
        assert!((ratio - 1.0).abs() < 0.1, "{ratio}");
        // Projecting again, without the scale of 2, changes nothing.
        let again = released("johnson_lindenstrauss(dim=24, seed=3)", &y, 1);
        assert!(y.values().iter().zip(again.values()).all(|(a, b)| (2.0 * a - b).abs() < 1e-4));
        let too_many = Pipeline::parse("johnson_lindenstrauss(dim=97)").expect("valid");
        let error = too_many.release(&x, None, &mut seed::stream(1, "", "")).expect_err("97 of 96");
        assert!(error.to_string().contains("ask for at most 96"), "{error}");
    }
}
