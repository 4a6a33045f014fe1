//! What a corrector learns to mend: guesses for texts that the decoder which wrote them was not tuned on.

use super::corrector::Corrector;
use super::decoder::{Decoder, Pairing, Writer};
use crate::attack::{Error, Progress, View, adapt::Adaptation};
use crate::encode::Cached;
use std::cell::{Ref, RefCell};
use std::collections::{BTreeMap, HashSet};

/// A text that a decoder wrote for a vector, and the text's own vector.
pub(super) struct Hypothesis {
    pub(super) text: String,
    pub(super) vector: Vec<f32>,
}

/// One hypothesis for each auxiliary text that a training reads, written when it is first asked for: a short training reads a
/// part of them, one that is found finished in the workshop none.
pub(super) struct Hypotheses<'a> {
    params: &'a Corrector,
    view: &'a View<'a>,
    adaptation: &'a Adaptation<'a>,
    progress: &'a dyn Progress,
    written: RefCell<BTreeMap<usize, Hypothesis>>,
}

/// The fold of a document: decided by its name, so that all texts of a document lie in one.
fn fold(document: &str, folds: usize) -> usize {
    blake3::hash(document.as_bytes()).as_bytes()[1] as usize % folds.max(1)
}

impl<'a> Hypotheses<'a> {
    pub(super) fn new(
        params: &'a Corrector,
        view: &'a View<'a>,
        adaptation: &'a Adaptation<'a>,
        progress: &'a dyn Progress,
    ) -> Self {
        Self { params, view, adaptation, progress, written: RefCell::default() }
    }

    /// The hypotheses of these texts, among others.
    ///
    /// # Errors
    /// When the auxiliary texts are of too few documents to be split, or a fold's decoder cannot be trained.
    pub(super) fn of(&self, texts: &[usize]) -> Result<Ref<'_, BTreeMap<usize, Hypothesis>>, Error> {
        let missing: Vec<usize> =
            texts.iter().copied().filter(|text| !self.written.borrow().contains_key(text)).collect();
        if !missing.is_empty() {
            self.write(&missing)?;
        }
        Ok(self.written.borrow())
    }

    /// Writes them, each by a decoder that was tuned on the documents of the other folds only.
    fn write(&self, texts: &[usize]) -> Result<(), Error> {
        let Self { params, view, progress, .. } = *self;
        // What a decoder of the fold sees at test time is a fresh release; so is what its hypotheses are written from.
        let released = self.adaptation.draw("corrector hypotheses")?;
        let texts: HashSet<usize> = texts.iter().copied().collect();
        for number in 0..params.folds {
            let (own, others): (Vec<usize>, Vec<usize>) =
                (0..view.auxiliary.len()).partition(|&i| fold(&view.auxiliary[i].document, params.folds) == number);
            if own.is_empty() || others.is_empty() {
                return Err(Error::Needs {
                    attack: "corrector",
                    what: format!("auxiliary texts of at least {} documents", 8 * params.folds),
                });
            }
            let asked: Vec<usize> = (0..own.len()).filter(|&at| texts.contains(&own[at])).collect();
            if asked.is_empty() {
                continue;
            }
            let records: Vec<_> = others.iter().map(|&i| view.auxiliary[i].clone()).collect();
            let clean = view.clean.select(&others);
            let strata: Vec<u32> = others.iter().map(|&i| view.strata[i]).collect();
            let part = View {
                auxiliary: &records,
                clean: &clean,
                strata: &strata,
                surrogate: None,
                inputs: format!("{} without fold {number} of {}", view.inputs, params.folds),
                fingerprint: format!("{} without fold {number} of {}", view.fingerprint, params.folds),
                ..*view
            };
            let decoder = Decoder {
                steps: params.fold_steps,
                adapt_steps: params.decoder.adapt_steps.min(params.fold_steps),
                samples: 1,
                temperature: 0.5,
                ..params.decoder.clone()
            };
            let fitted = Adaptation::fit(&part)?;
            let writer = Writer::train(&part, &fitted, &decoder, Pairing::True, progress)?;
            let task = format!("{} drafts of fold {number}", view.fingerprint);
            let drawn = writer.candidates_of(&fitted, &released.select(&own), &asked, view.seed, &task, progress)?;
            let guesses: Vec<String> =
                drawn.into_iter().map(|c| c.into_iter().next().map_or_else(String::new, |c| c.text)).collect();
            let strings: Vec<&str> = guesses.iter().map(String::as_str).collect();
            let vectors = Cached::new(view.encoder, view.workshop).encode_records(&strings)?;
            let vectors: Vec<Vec<f32>> = vectors.rows().map(<[f32]>::to_vec).collect();
            let made = guesses.into_iter().zip(vectors).map(|(text, vector)| Hypothesis { text, vector });
            self.written.borrow_mut().extend(asked.iter().map(|&at| own[at]).zip(made));
        }
        Ok(())
    }

    /// Stands in for decoders where only the reading is tested.
    #[cfg(test)]
    pub(super) fn given(self, written: BTreeMap<usize, Hypothesis>) -> Self {
        Self { written: RefCell::new(written), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::Quiet;
    use crate::attack::scene::Scene;
    use std::collections::BTreeSet;

    #[test]
    fn a_document_lies_in_one_fold_and_both_folds_are_used() {
        let folds: BTreeSet<usize> = (0..40).map(|i| fold(&format!("document {i}"), 2)).collect();
        assert_eq!(folds, BTreeSet::from([0, 1]));
        assert_eq!(fold("document 7", 5), fold("document 7", 5));
    }

    #[test]
    fn a_hypothesis_does_not_depend_on_what_else_was_asked_for() {
        let scene = Scene::new(120, "clip(l2=1) | gaussian(sigma=0.05)", &[]);
        let view = scene.view();
        let decoder =
            Decoder { steps: 4, batch: 8, d_model: 16, layers: 1, heads: 2, vocabulary: 300, ..Decoder::default() };
        let params = Corrector { decoder, fold_steps: 3, ..Corrector::default() };
        let adaptation = Adaptation::fit(&view).expect("fits");
        let hypotheses = || Hypotheses::new(&params, &view, &adaptation, &Quiet);
        let (few, all) = (hypotheses(), hypotheses());
        let asked = [90, 3, 41];
        few.of(&[41]).expect("written");
        let few = few.of(&asked).expect("written");
        assert_eq!(few.keys().copied().collect::<Vec<_>>(), [3, 41, 90], "no more than was asked for");
        let all = all.of(&(0..120).collect::<Vec<_>>()).expect("written");
        assert_eq!(all.len(), 120);
        for i in asked {
            assert_eq!((&few[&i].text, &few[&i].vector), (&all[&i].text, &all[&i].vector), "text {i}");
        }
        assert!(all.values().map(|h| &h.text).collect::<BTreeSet<_>>().len() > 1);
    }
}
