//! `center`: the mean is taken off.

use super::Error;
use super::arguments::Arguments;
use super::claim::{Domain, State};
use super::public::{Moments, Public};
use super::stage::{Parameters, Release, Stage};

/// Subtracts the mean of public vectors, or of the rows themselves.
///
/// # Formula
/// `x - m`, `m` the mean row of `public`.
///
/// # Guarantee
/// None of its own. A public mean moves no two rows apart, so that a sensitivity from before survives it. Without `public`
/// the mean is the rows' own: it tells about all of them, and no guarantee holds for the release.
///
/// # Errors
/// Public vectors of another dimension than the rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Center {
    /// Whose mean; the rows' own without it.
    pub public: Option<Public>,
}

impl Center {
    pub(super) fn read(arguments: &mut Arguments<'_>) -> Self {
        Self { public: Public::read(arguments) }
    }
}

/// Public vectors must have the rows' dimension.
pub(super) fn same_dim(stage: &str, public: Option<&Public>, dim: usize) -> Result<(), Error> {
    match public.filter(|public| public.dim() != dim) {
        None => Ok(()),
        Some(public) => Err(Error::Input(format!(
            "`{stage}` has public vectors of {} coordinates, the rows have {dim}; encode them with one encoder",
            public.dim()
        ))),
    }
}

impl Parameters for Center {
    fn arguments(&self) -> Vec<(&'static str, String)> {
        self.public.iter().flat_map(Public::arguments).collect()
    }

    fn check(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    fn build(&self, _: &State) -> Result<Box<dyn Stage>, String> {
        Ok(Box::new(self.clone()))
    }
}

impl Stage for Center {
    fn name(&self) -> &'static str {
        "center"
    }

    fn apply(&self, mut release: Release, _: &mut dyn rand::Rng) -> Result<Release, Error> {
        let dim = release.vectors.dim();
        same_dim("center", self.public.as_ref(), dim)?;
        let own = self.public.is_none().then(|| Moments::of(&release.vectors));
        let mean = self.public.as_ref().map(Public::moments).or(own.as_ref()).map_or(&[][..], |m| &m.mean);
        for row in release.vectors.values_mut().chunks_exact_mut(dim) {
            row.iter_mut().zip(mean).for_each(|(v, m)| *v = (f64::from(*v) - m) as f32);
        }
        Ok(release)
    }

    fn guarantee(&self, before: &State) -> State {
        let mut after = before.clone();
        after.domain = Domain::Unbounded;
        if self.public.is_none() {
            after.sensitivity = None;
            after.taint("center", "mean");
        }
        after
    }
}

#[cfg(test)]
mod tests {
    use super::super::law::released;
    use crate::data::vectors;
    use crate::encode::Embeddings;
    use crate::protect::Pipeline;

    #[test]
    fn the_mean_is_gone_and_a_changed_file_is_refused() {
        let clean = Embeddings::new(vec![1.0, 2.0, 3.0, 6.0], 2).expect("finite");
        assert_eq!(released("center", &clean, 1).values(), [-1.0, -2.0, 1.0, 2.0]);

        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("public.npy");
        let public = Embeddings::new(vec![0.5, 1.0, 1.5, 1.0], 2).expect("finite");
        vectors::write(&path, &public, None).expect("writable");
        let text = format!("clip(l2=9) | center(public={})", path.display());
        let pipeline = Pipeline::parse(&text).expect("a readable file");
        assert_eq!(released(&text, &clean, 1).values(), [0.0, 1.0, 2.0, 5.0]);
        let printed = pipeline.to_string();
        assert!(printed.contains("hash="), "{printed}");
        assert_eq!(Pipeline::parse(&printed).expect("its own text"), pipeline);

        let other = Embeddings::new(vec![0.5, 1.0, 2.5, 1.0], 2).expect("finite");
        vectors::write(&path, &other, None).expect("writable");
        let why = Pipeline::parse(&printed).expect_err("another file").to_string();
        assert!(why.contains("written for other vectors"), "{why}");
        let gone = Pipeline::parse("center(public=nowhere.npy)").expect_err("no file");
        assert_eq!(gone.exit(), crate::Exit::Input);
        assert!(gone.to_string().contains("cannot use `public=nowhere.npy`"), "{gone}");
        let both = Pipeline::parse("center(public=nowhere.npy) | clip(l1=1)").expect_err("no file and no `l1`");
        assert_eq!(both.exit(), crate::Exit::Usage);
        let wide = Embeddings::new(vec![0.0; 3], 3).expect("finite");
        let error = Pipeline::parse(&text).expect("readable").release(&wide, None, &mut crate::seed::stream(1, "", ""));
        assert!(error.expect_err("three against two").to_string().contains("2 coordinates, the rows have 3"));
    }
}
