//! The study file: parsed, checked as a whole, resolved into cells.
//!
//! A study is data, encoders, protections x attacks, seeds. [`Study::parse`] reports every problem at once, each with its
//! line; what it returns is complete (defaults filled in) and valid.

mod own;
pub(crate) mod read;

pub use own::{Own, USUAL_ATTACKS};

use crate::attack::AttackConfig;
use crate::attack::denoise::Denoising;
use crate::error::Exit;
use crate::protect::Pipeline;
use serde::{Deserialize, Serialize};

/// A checked study.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Study {
    /// Version of this format.
    pub schema: u32,
    /// Names the run folder.
    pub name: String,
    /// Everything random is repeated for each seed: noise, attacker initialisation, batch order.
    pub seeds: Vec<u64>,
    /// Records and their split.
    pub data: Data,
    /// Victim and judges.
    pub encode: Encode,
    /// Protections on trial.
    pub protect: Vec<Protection>,
    /// Attackers.
    pub attack: Vec<Contender>,
    /// What the release is still good for.
    pub utility: Utility,
    /// When attackers count as strong.
    pub strength: Strength,
    /// Where the gate's policy lies.
    pub gate: Gate,
}

/// Which records, and how they are split.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Data {
    /// A corpus by name, or a path: `.txt`, `.jsonl`, a folder.
    pub corpus: String,
    /// Held-out records that the attackers try to read.
    pub targets: usize,
    /// Held-out records on which the worst attacker is chosen.
    pub validation: usize,
    /// The attackers' own records, from other documents.
    pub auxiliary: usize,
    /// Shortest record in characters.
    pub min_chars: usize,
    /// Longest record in characters.
    pub max_chars: usize,
    /// Fewest words of a record.
    pub min_words: usize,
    /// Width and height of every picture, in pixels.
    pub side_px: u32,
    /// Names the split; the study's seeds do not change it.
    pub split_seed: u64,
    /// Further corpora: the study runs on each of them as well, in a run folder of its own.
    pub also: Vec<Also>,
}

/// A further corpus of a study.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Also {
    /// A corpus by name, or a path.
    pub corpus: String,
    /// The attackers' own records: corpora differ most in how many they have.
    pub auxiliary: usize,
}

impl Default for Data {
    fn default() -> Self {
        Self {
            corpus: String::new(),
            targets: 500,
            validation: 100,
            auxiliary: 20_000,
            min_chars: 20,
            max_chars: 220,
            min_words: 5,
            side_px: 64,
            split_seed: 0,
            also: Vec::new(),
        }
    }
}

/// The victim, whose vectors are released, and the judges, which score guesses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Encode {
    /// An encoder by name, or a sentence-transformers folder. With `vectors` it may be empty: then nobody can re-embed.
    pub victim: String,
    /// A file with the victim's vectors of the corpus, one for each record in order or by id; empty to encode them here.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub vectors: String,
    /// At least one encoder that is not the victim; the first carries the verdict.
    pub judges: Vec<String>,
    /// A further encoder that attackers of pictures may use, and that judges nothing; empty for none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub surrogate: String,
}

impl Default for Encode {
    fn default() -> Self {
        Self {
            victim: "all-minilm-l6-v2".to_owned(),
            vectors: String::new(),
            judges: vec!["multilingual-e5-small".to_owned()],
            surrogate: String::new(),
        }
    }
}

/// One protection on trial.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Protection {
    /// Its name in every output.
    pub name: String,
    /// What is done to the vectors.
    pub pipeline: Pipeline,
    /// How many independent releases of each record an attacker sees.
    pub releases: usize,
    /// Targets that are attacked here, as a declared subset; 0 for all. Identification and utility take all of them.
    pub targets: usize,
}

/// One attacker of a study.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Contender {
    /// Its name in every output: its kind, unless the study gives another.
    pub name: String,
    /// What it is, with its parameters.
    #[serde(flatten)]
    pub config: AttackConfig,
}

/// What to measure of the release's usefulness.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Utility {
    /// Retrieval recall and neighbourhood overlap.
    pub retrieval: bool,
    /// Topic accuracy, where the corpus has topics.
    pub topics: bool,
    /// Rank correlation of contribution values from protected and from raw vectors, over the reliability of the raw ones.
    pub valuation: bool,
}

impl Default for Utility {
    fn default() -> Self {
        Self { retrieval: true, topics: true, valuation: false }
    }
}

/// The bar that an attacker must clear on the unprotected release before any protection may be called safe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Strength {
    /// Mean victim cosine of a free-text attacker's guesses.
    pub victim_cosine: f64,
    /// Attacks of the study that also run as non-adaptive twins: they take the release for a clean vector, and the
    /// difference is what adaptivity is worth.
    pub twins: Vec<String>,
    /// Whether attackers are told the noise's standard deviation. Otherwise they estimate it from the released targets.
    pub sigma: Sigma,
    /// How they take the noise off what they see.
    pub denoiser: Denoising,
}

/// How attackers come to know the standard deviation of the noise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sigma {
    /// It is part of the pipeline, which they know.
    #[default]
    Known,
    /// They estimate it from what they see; of the pipeline they know the rest.
    Estimated,
}

impl Default for Strength {
    fn default() -> Self {
        Self { victim_cosine: 0.70, twins: Vec::new(), sigma: Sigma::Known, denoiser: Denoising::Wiener }
    }
}

/// Where the gate finds its policy.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Gate {
    /// A policy file, relative to the working folder; empty for none.
    pub policy: String,
}

/// The unit of work, of caching and of scale-out: one (protection, attack, seed).
#[derive(Debug, Clone, PartialEq)]
pub struct Cell {
    /// Position in the study's protections.
    pub protection: usize,
    /// Position in the study's attacks; `None` is the release itself (utility, identification).
    pub attack: Option<usize>,
    /// The seed.
    pub seed: u64,
    /// False for a twin that takes the release for a clean vector.
    pub adaptive: bool,
}

impl Study {
    /// Parses and checks a study; `path` only names it in messages.
    pub fn parse(path: &str, text: &str) -> Result<Self, Error> {
        read::study(path, text)
    }

    /// What a cell's attack is called in records: its name, `release`, or a twin.
    pub fn attack_name(&self, cell: &Cell) -> String {
        let name = cell.attack.map_or("release", |a| &self.attack[a].name);
        if cell.adaptive { name.to_owned() } else { twin(name) }
    }

    /// The cells, in the order in which they are run: shared parts are trained before they are used.
    pub fn cells(&self) -> Vec<Cell> {
        let mut cells = Vec::new();
        for &seed in &self.seeds {
            for protection in 0..self.protect.len() {
                let cell = Cell { protection, attack: None, seed, adaptive: true };
                // `best_of` chooses among the guesses of the others: it comes last.
                let mut order: Vec<usize> = (0..self.attack.len()).collect();
                order.sort_by_key(|&a| matches!(self.attack[a].config, AttackConfig::BestOf(_)));
                cells.push(cell.clone());
                cells.extend(order.iter().map(|&a| Cell { attack: Some(a), ..cell.clone() }));
                if !self.protect[protection].pipeline.is_identity() {
                    let is_twin = |a: &usize| self.strength.twins.contains(&self.attack[*a].name);
                    let twins = order.into_iter().filter(is_twin);
                    cells.extend(twins.map(|a| Cell { attack: Some(a), adaptive: false, ..cell.clone() }));
                }
            }
        }
        cells
    }

    /// One study for each corpus, named after it; the study itself when there is only one.
    pub fn parts(&self) -> Vec<Study> {
        if self.data.also.is_empty() {
            return vec![self.clone()];
        }
        let first = Also { corpus: self.data.corpus.clone(), auxiliary: self.data.auxiliary };
        std::iter::once(&first)
            .chain(&self.data.also)
            .map(|Also { corpus, auxiliary }| {
                let data =
                    Data { corpus: corpus.clone(), auxiliary: *auxiliary, also: Vec::new(), ..self.data.clone() };
                let short: String =
                    corpus.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect();
                Study { name: format!("{}-{short}", self.name), data, ..self.clone() }
            })
            .collect()
    }

    /// Position of the protection that releases the vectors as they are.
    pub fn unprotected(&self) -> Option<usize> {
        self.protect.iter().position(|p| p.pipeline.is_identity())
    }

    /// The study with every default written out.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a study holds strings, numbers and tables only")
    }
}

/// What the non-adaptive twin of an attack is called.
pub fn twin(name: &str) -> String {
    format!("{name}, non-adaptive")
}

/// Everything that is wrong with a study file, at once.
#[derive(Debug, thiserror::Error)]
#[error("study `{path}` has {} problem{}:\n{}", problems.len(), if problems.len() == 1 { "" } else { "s" }, problems.join("\n"))]
pub struct Error {
    /// The file.
    pub path: String,
    /// One line each: where, what, remedy.
    pub problems: Vec<String>,
}

impl Error {
    /// A usage error.
    pub fn exit(&self) -> Exit {
        Exit::Usage
    }
}
