//! Retrieval: the auxiliary record that explains the released vector best.

use super::lexicon::Retrieval;
use crate::attack::{Attack, Error, Guess, Inverter, Knowledge, Progress, View};
use crate::encode::Embeddings;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Answers each released row with the auxiliary record of highest likelihood.
///
/// # Formula
/// `argmax_i y.x_i - |x_i|^2 / 2` over the attacker's own clean vectors `x_i`: for isotropic Gaussian noise this is maximum
/// likelihood, so the attack is adaptive as it stands. It is not denoised: shrinkage loses identification.
///
/// # Source
/// The retrieval baseline of embedding inversion (Morris et al. 2023, section 5).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Nearest {}

struct Fitted<'a> {
    view: &'a View<'a>,
    own: Retrieval<'a>,
}

impl Attack for Nearest {
    fn needs(&self) -> Knowledge {
        Knowledge { auxiliary: true, pipeline: true, encoder: true, released: true, leaked_pairs: 0 }
    }

    fn fit<'a>(&self, view: &'a View<'a>, _: &str, _: &dyn Progress) -> Result<Box<dyn Inverter + 'a>, Error> {
        Ok(Box::new(Fitted { view, own: Retrieval::new(view.clean) }))
    }
}

impl Inverter for Fitted<'_> {
    fn invert(&self, released: &Embeddings, _: &str, _: &dyn Progress) -> Result<Vec<Guess>, Error> {
        Ok((0..released.len())
            .into_par_iter()
            .map(|i| {
                let (best, score) = self.own.nearest(released.row(i), 1)[0];
                Guess::copied(&self.view.auxiliary[best], f64::from(score))
            })
            .collect())
    }
}
