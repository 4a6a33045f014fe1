//! A small attack on the toy encoder, for tests of attackers' parts.

use super::View;
use crate::data::{Keep, Record, corpus};
use crate::encode::{Embeddings, Encoder, EncoderInfo, Error, Toy};
use crate::protect::Pipeline;

/// The toy encoder with words in its tokenizer.
pub(crate) struct Worded {
    toy: Toy,
    words: Vec<String>,
}

impl Encoder for Worded {
    fn info(&self) -> &EncoderInfo {
        self.toy.info()
    }

    fn encode(&self, texts: &[&str]) -> Result<Embeddings, Error> {
        self.toy.encode(texts)
    }

    fn words(&self) -> Vec<String> {
        self.words.clone()
    }
}

/// What a view borrows.
pub(crate) struct Scene {
    pub(crate) records: Vec<Record>,
    pub(crate) encoder: Worded,
    pub(crate) clean: Embeddings,
    strata: Vec<u32>,
    leaked: Embeddings,
    pipeline: Pipeline,
    workshop: tempfile::TempDir,
}

impl Scene {
    /// The first `n` toy records behind `pipeline`; the encoder's tokenizer holds `words`.
    pub(crate) fn new(n: usize, pipeline: &str, words: &[&str]) -> Self {
        let keep = Keep { min_chars: 5, max_chars: 300, min_words: 2 };
        let corpus = corpus::open::<crate::Error>("toy", &keep, &mut |_, _| panic!("the toy corpus is made up"));
        let records: Vec<Record> = corpus.expect("a corpus").records.into_iter().take(n).collect();
        let encoder = Worded { toy: Toy::new(), words: words.iter().map(|&w| w.to_owned()).collect() };
        let texts: Vec<&str> = records.iter().map(|r| r.text.as_str()).collect();
        let clean = encoder.encode(&texts).expect("the toy reads any text");
        Self {
            strata: vec![0; records.len()],
            leaked: Embeddings::empty(clean.dim()),
            pipeline: pipeline.parse().expect("valid"),
            workshop: tempfile::tempdir().expect("a temporary folder"),
            records,
            encoder,
            clean,
        }
    }

    /// What the attacker sees: all records are its own.
    pub(crate) fn view(&self) -> View<'_> {
        View {
            auxiliary: &self.records,
            clean: &self.clean,
            strata: &self.strata,
            pipeline: &self.pipeline,
            leaked: &self.leaked,
            releases: 1,
            encoder: &self.encoder,
            prior: None,
            seed: 5,
            inputs: "scene".to_owned(),
            fingerprint: format!("scene {}", self.pipeline),
            workshop: self.workshop.path(),
        }
    }
}
