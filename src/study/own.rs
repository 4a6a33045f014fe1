//! Bring your own embeddings: the study that a table of vectors with its records stands for.

use super::Study;
use crate::data::vectors;
use std::fmt::Write as _;
use std::path::PathBuf;

/// Attackers beside `blind` where none are named.
pub const USUAL_ATTACKS: [&str; 3] = ["nearest", "bag_of_words", "decoder"];

/// Vectors that somebody made, their records, and what is to be tried on them.
#[derive(Debug, Clone)]
pub struct Own {
    /// The vectors.
    pub vectors: PathBuf,
    /// Their records: texts, or a folder of pictures.
    pub records: PathBuf,
    /// The encoder that made the vectors; empty when nobody can ask it.
    pub encoder: String,
    /// The encoder that judges guesses.
    pub judge: String,
    /// Protections to put on trial, beside the vectors as they are.
    pub pipelines: Vec<String>,
    /// Attackers beside `blind`; [`USUAL_ATTACKS`] when empty.
    pub attacks: Vec<String>,
    /// Records that the attackers try to read; every tenth one unless given, at most 500.
    pub targets: Option<usize>,
    /// How many seeds, at least one.
    pub seeds: u64,
}

impl Own {
    /// The study, checked; `source` names it in messages.
    ///
    /// # Errors
    /// Vectors that cannot be read, or everything that is wrong with the study.
    pub fn study(&self, source: &str) -> Result<Study, crate::Error> {
        let rows = vectors::read(&self.vectors, None)?.len();
        Ok(Study::parse(source, &self.text(rows))?)
    }

    /// The study as a file would say it, for vectors of `n` rows.
    fn text(&self, n: usize) -> String {
        let targets = self.targets.unwrap_or((n / 10).clamp(2, 500));
        let validation = (targets / 5).clamp(2, 100);
        // The split gives the attackers about two thirds of the documents.
        let auxiliary = (3 * n / 5).max(16);
        let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
        let seeds: Vec<u64> = (1..=self.seeds.max(1)).collect();
        let mut out = format!(
            "schema = 1\nname = \"own-vectors\"\nseeds = {seeds:?}\n[data]\ncorpus = {}\ntargets = {targets}\n\
             validation = {validation}\nauxiliary = {auxiliary}\nmin_chars = 1\nmax_chars = 2000\nmin_words = 1\n\
             [encode]\nvictim = {}\nvectors = {}\njudges = [{}]\n\
             [[protect]]\nname = \"as-given\"\npipeline = \"identity\"\n[[attack]]\nkind = \"blind\"\n",
            quoted(&self.records.display().to_string()),
            quoted(&self.encoder),
            quoted(&self.vectors.display().to_string()),
            quoted(&self.judge)
        );
        for (number, pipeline) in self.pipelines.iter().enumerate() {
            let _ = write!(out, "[[protect]]\nname = \"pipeline-{}\"\npipeline = {}\n", number + 1, quoted(pipeline));
        }
        let usual = USUAL_ATTACKS.map(str::to_owned);
        for kind in if self.attacks.is_empty() { &usual[..] } else { &self.attacks[..] } {
            if kind != "blind" {
                let _ = write!(out, "[[attack]]\nkind = {}\n", quoted(kind));
            }
        }
        out
    }
}
