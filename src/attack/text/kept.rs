//! Attackers that start trained: our own weights, kept beside the manifests and compiled in.
//!
//! `stitchback pretrain` writes such a folder; an attack that finds one for its victim goes on from there instead of from
//! nothing. The record in the folder says what it was trained on, so that a result can say so too.

use super::tokenizer::Bpe;
use crate::attack::{Curve, Error};
use crate::encode::EncoderInfo;
use crate::nn::Decoder;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// One folder under `models/attackers/`, as compiled in.
struct Folder {
    record: &'static [u8],
    weights: &'static [u8],
    tokenizer: &'static [u8],
}

macro_rules! folder {
    ($name:literal) => {
        Folder {
            record: include_bytes!(concat!("../../../models/attackers/", $name, "/attacker.json")),
            weights: include_bytes!(concat!("../../../models/attackers/", $name, "/decoder.safetensors")),
            tokenizer: include_bytes!(concat!("../../../models/attackers/", $name, "/tokenizer.json")),
        }
    };
}

/// Every attacker that the project keeps.
static FOLDERS: [Folder; 2] = [folder!("minilm-text"), folder!("minilm-corrector")];

/// What a kept model is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Writes texts for vectors.
    #[default]
    Decoder,
    /// Mends drafts.
    Corrector,
}

/// Largest folder that is kept: our own weights are committed, and a clone should stay light.
pub const MOST_BYTES: usize = 16 << 20;

/// What stands beside the weights: who trained what, on which texts, for which encoder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// `stitchback/attacker/v1`.
    pub schema: String,
    /// Its name, which is the folder's.
    pub name: String,
    /// What it is for.
    #[serde(default)]
    pub role: Role,
    /// Manifest name of the encoder whose vectors it reads.
    pub victim: String,
    /// That encoder's fingerprint: on any other encoder's vectors it is useless.
    pub victim_fingerprint: String,
    /// The corpora it was trained on.
    pub corpora: Vec<Source>,
    /// Training texts: sentences, and spans cut from them.
    pub texts: usize,
    /// Texts in which words were exchanged for others, so that rare words are seen.
    pub exchanged: usize,
    /// Steps of training.
    pub steps: usize,
    /// Texts in a step.
    pub batch: usize,
    /// Trained parameters.
    pub parameters: usize,
    /// Seconds of training and encoding, by the clock.
    pub wall_s: f64,
    /// The command that makes this folder again.
    pub command: String,
    /// Version of the program.
    pub version: String,
    /// Loss on held-out documents while training.
    pub curves: Vec<Curve>,
    /// BLAKE3 of the weight file.
    pub weights: String,
    /// BLAKE3 of the tokenizer file.
    pub tokenizer: String,
}

/// One corpus of a kept attacker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Manifest name.
    pub name: String,
    /// Its licence.
    pub licence: String,
    /// Fingerprint of the records it was cut from.
    pub fingerprint: String,
    /// Records of its auxiliary side: no study's targets are among them.
    pub records: usize,
}

/// A kept attacker, read and verified.
pub struct Kept {
    /// What it was trained on.
    pub record: Record,
    pub(super) model: Decoder,
    pub(super) tokenizer: Bpe,
}

impl Kept {
    /// What `choice` names: `auto` is the attacker kept for this encoder and role, if there is one; `none` is none;
    /// anything else is a folder that `stitchback pretrain` wrote.
    ///
    /// # Errors
    /// When a folder is missing, damaged, or was trained for another encoder or another role.
    pub fn find(choice: &str, victim: &EncoderInfo, role: Role) -> Result<Option<Self>, Error> {
        match choice {
            "none" => Ok(None),
            "auto" => {
                let Some((record, folder)) = builtin(victim, role)? else { return Ok(None) };
                let name = format!("models/attackers/{}", record.name);
                Self::assemble(&name, record, folder.weights.to_vec(), folder.tokenizer).map(Some)
            }
            folder => {
                let read = |file: &str| {
                    let path = Path::new(folder).join(file);
                    std::fs::read(&path).map_err(|e| bad(folder, &format!("cannot read `{file}`: {e}")))
                };
                let record = parse(folder, &read(RECORD)?)?;
                if record.victim_fingerprint != victim.fingerprint {
                    let why = format!("it was trained on vectors of {}, not of {}", record.victim, victim.name);
                    return Err(bad(folder, &why));
                }
                if record.role != role {
                    return Err(bad(
                        folder,
                        &format!("it is a {:?}, a {role:?} is needed", record.role).to_lowercase(),
                    ));
                }
                Self::assemble(folder, record, read(WEIGHTS)?, &read(TOKENIZER)?).map(Some)
            }
        }
    }

    fn assemble(name: &str, record: Record, weights: Vec<u8>, tokenizer: &[u8]) -> Result<Self, Error> {
        for (file, bytes, expected) in
            [(WEIGHTS, &weights[..], &record.weights), (TOKENIZER, tokenizer, &record.tokenizer)]
        {
            if blake3::hash(bytes).to_hex().as_str() != expected {
                return Err(bad(name, &format!("`{file}` is not the file that `{RECORD}` describes")));
            }
        }
        let tokenizer = Bpe::from_json(tokenizer)?;
        let model = Decoder::from_bytes(&format!("{name}/{WEIGHTS}"), weights)?;
        if model.config().vocab != tokenizer.vocabulary() {
            return Err(bad(name, "the tokenizer and the weights have different numbers of pieces"));
        }
        Ok(Self { record, model, tokenizer })
    }

    /// Its shape.
    pub fn shape(&self) -> &crate::nn::DecoderConfig {
        self.model.config()
    }

    /// One line for records and reports: which attacker, trained on what.
    pub fn origin(&self) -> String {
        let corpora: Vec<&str> = self.record.corpora.iter().map(|c| c.name.as_str()).collect();
        format!("{} ({} texts of {})", self.record.name, self.record.texts, corpora.join(", "))
    }
}

/// Names the weights that `choice` stands for; `None` where training starts from nothing.
///
/// # Errors
/// When a folder's record cannot be read.
pub fn identity(choice: &str, victim: &EncoderInfo, role: Role) -> Result<Option<String>, Error> {
    let record = match choice {
        "none" => return Ok(None),
        "auto" => match builtin(victim, role)? {
            Some((record, _)) => record,
            None => return Ok(None),
        },
        folder => {
            let bytes = std::fs::read(Path::new(folder).join(RECORD)).map_err(|e| bad(folder, &e.to_string()))?;
            parse(folder, &bytes)?
        }
    };
    Ok(Some(record.weights))
}

/// The attacker that the project keeps for an encoder and a role.
fn builtin(victim: &EncoderInfo, role: Role) -> Result<Option<(Record, &'static Folder)>, Error> {
    for folder in &FOLDERS {
        let record = parse("models/attackers", folder.record)?;
        if record.victim_fingerprint == victim.fingerprint && record.role == role {
            return Ok(Some((record, folder)));
        }
    }
    Ok(None)
}

/// Files of a folder.
pub const RECORD: &str = "attacker.json";
/// The decoder, f16.
pub const WEIGHTS: &str = "decoder.safetensors";
/// Its tokenizer.
pub const TOKENIZER: &str = "tokenizer.json";

fn parse(folder: &str, bytes: &[u8]) -> Result<Record, Error> {
    let record: Record =
        serde_json::from_slice(bytes).map_err(|e| bad(folder, &format!("`{RECORD}` cannot be read: {e}")))?;
    if record.schema != SCHEMA {
        return Err(bad(folder, &format!("`{RECORD}` has the schema `{}`, `{SCHEMA}` is needed", record.schema)));
    }
    Ok(record)
}

/// The version of [`Record`].
pub const SCHEMA: &str = "stitchback/attacker/v1";

fn bad(folder: &str, why: &str) -> Error {
    Error::Pretrained { folder: folder.to_owned(), why: why.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kept_attacker_is_whole_light_and_says_where_it_comes_from() {
        for folder in &FOLDERS {
            let record = parse("models/attackers", folder.record).expect("a record");
            assert!(folder.weights.len() + folder.tokenizer.len() <= MOST_BYTES, "{} is too large", record.name);
            assert!(record.curves.iter().all(|curve| !curve.points.is_empty()), "{} has no curve", record.name);
            assert!(record.corpora.iter().all(|c| !c.licence.is_empty() && c.records > 0));
            let name = record.name.clone();
            let weights = folder.weights.to_vec();
            let kept = Kept::assemble(&name, record, weights, folder.tokenizer).expect("weights that fit the record");
            assert_eq!(kept.model.parameters(), kept.record.parameters);
        }
        let kinds: std::collections::BTreeSet<(String, bool)> = FOLDERS
            .iter()
            .map(|folder| parse("models/attackers", folder.record).expect("a record"))
            .map(|record| (record.victim_fingerprint, record.role == Role::Corrector))
            .collect();
        assert_eq!(kinds.len(), FOLDERS.len(), "one attacker of a role for each victim");
    }

    #[test]
    fn damaged_weights_are_refused() {
        let [folder, ..] = &FOLDERS;
        let record = parse("models/attackers", folder.record).expect("a record");
        let mut weights = folder.weights.to_vec();
        *weights.last_mut().expect("weights") ^= 1;
        let refused = Kept::assemble("here", record, weights, folder.tokenizer).err().expect("refused");
        assert!(refused.to_string().contains("decoder.safetensors"), "{refused}");
    }
}
