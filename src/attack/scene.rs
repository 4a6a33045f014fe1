//! A small attack on the toy encoder, for tests of attackers' parts.

use super::View;
use super::denoise::Denoising;
use crate::data::{Keep, Record, corpus};
use crate::encode::{Embeddings, Encoder, EncoderInfo, Error, Toy};
use crate::protect::Pipeline;

/// The toy encoder with words in its tokenizer, and with as many coordinates as a test asks for.
pub(crate) struct Worded {
    toy: Toy,
    words: Vec<String>,
    info: EncoderInfo,
}

impl Worded {
    fn new(words: &[&str], dim: usize) -> Self {
        let toy = Toy::new();
        let info = EncoderInfo { dim, ..toy.info().clone() };
        Self { toy, words: words.iter().map(|&w| w.to_owned()).collect(), info }
    }
}

impl Encoder for Worded {
    fn info(&self) -> &EncoderInfo {
        &self.info
    }

    fn encode(&self, texts: &[&str]) -> Result<Embeddings, Error> {
        let vectors = self.toy.encode(texts)?;
        let repeats = self.info.dim.div_ceil(vectors.dim());
        // A vector and its mirror images side by side, as long as it takes.
        let scale = (vectors.dim() as f32 / self.info.dim as f32).sqrt();
        let wide = vectors.rows().flat_map(|row| {
            (0..repeats)
                .flat_map(move |k| row.iter().map(move |v| if k % 2 == 0 { *v } else { -*v }))
                .take(self.info.dim)
        });
        Embeddings::new(wide.map(|v| v * scale).collect(), self.info.dim)
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
        Self::wide(n, pipeline, words, Toy::new().info().dim)
    }

    /// The same with vectors of `dim` coordinates.
    pub(crate) fn wide(n: usize, pipeline: &str, words: &[&str], dim: usize) -> Self {
        let keep = Keep { min_chars: 5, max_chars: 300, min_words: 2, ..Keep::default() };
        let corpus = corpus::open::<crate::Error>("toy", &keep, &mut |_, _| panic!("the toy corpus is made up"));
        let records: Vec<Record> = corpus.expect("a corpus").records.into_iter().take(n).collect();
        let encoder = Worded::new(words, dim);
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
            denoising: Denoising::Wiener,
            encoder: &self.encoder,
            prior: None,
            surrogate: None,
            seed: 5,
            inputs: "scene".to_owned(),
            fingerprint: format!("scene {}", self.pipeline),
            workshop: self.workshop.path(),
        }
    }
}
