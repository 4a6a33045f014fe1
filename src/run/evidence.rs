//! `evidence.json`: what the gate must know beside the records, and can ask of nobody else.

use super::bench::Bench;
use crate::attack::text::kept::{self, Role};
use crate::attack::{AttackConfig, denoise::Denoising, image};
use crate::encode::EncoderInfo;
use crate::study::{Sigma, Strength};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Which targets belong together, and what the scores were made from. Numbers and hashes only.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// `stitchback/evidence/v1`.
    pub schema: String,
    /// The corpus as the study names it.
    pub corpus: String,
    /// Whether a toy encoder or corpus is involved.
    pub toy: bool,
    /// Seeds that the study asks for.
    pub seeds: Vec<u64>,
    /// Number of each test target's document.
    pub clusters: Vec<u32>,
    /// Hash of the targets, the attackers' records and how they were split.
    pub data: String,
    /// Hash of the encoder under attack.
    pub victim: String,
    /// Hashes of the judges.
    pub judges: Vec<String>,
    /// Hash of each attack's parameters and of what it knows and starts from, by its name.
    pub attacks: BTreeMap<String, String>,
    /// Of each protection: its name and pipeline, in the order of the study.
    pub protections: Vec<(String, String)>,
}

/// The schema's name.
pub const SCHEMA: &str = "stitchback/evidence/v1";

/// Collects it from the workbench.
pub(super) fn evidence(bench: &Bench) -> Evidence {
    let short = |hash: blake3::Hash| hash.to_hex()[..32].to_owned();
    let mut data = blake3::Hasher::new_derive_key("stitchback evidence data v1");
    for side in [&bench.test, &bench.validation, &bench.auxiliary] {
        data.update(&(side.records.len() as u64).to_le_bytes());
        for record in &side.records {
            for part in [&record.id, &record.text] {
                data.update(&(part.len() as u64).to_le_bytes());
                data.update(part.as_bytes());
            }
            if let Some(picture) = &record.picture {
                data.update(picture.rgb());
            }
        }
    }
    let study = bench.study;
    let surrogate = bench.surrogate.as_ref().map(|(encoder, _)| encoder.info());
    let attacker = |attack: &crate::study::Contender| {
        let text = attacker(&attack.config, &study.strength, bench.victim.info(), surrogate);
        (attack.name.clone(), short(blake3::hash(text.as_bytes())))
    };
    Evidence {
        schema: SCHEMA.to_owned(),
        // The name of a private folder is enough; where it lies is nobody's business.
        corpus: study.data.corpus.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned(),
        toy: bench.toy,
        seeds: study.seeds.clone(),
        clusters: bench.test.clusters.clone(),
        data: short(data.finalize()),
        victim: bench.victim.info().fingerprint.clone(),
        judges: bench.judges.iter().map(|j| j.info().fingerprint.clone()).collect(),
        attacks: study.attack.iter().map(attacker).collect(),
        protections: study.protect.iter().map(|p| (p.name.clone(), p.pipeline.to_string())).collect(),
    }
}

/// Everything that makes two attackers of one name differ, in words.
///
/// What is as usual, or does not apply, is left out: a study without it keeps the baseline that it has.
fn attacker(
    attack: &AttackConfig,
    strength: &Strength,
    victim: &EncoderInfo,
    surrogate: Option<&EncoderInfo>,
) -> String {
    let mut text = serde_json::to_string(attack).expect("parameters are strings, numbers and tables");
    let mut say = |what: &str, value: Option<String>| text.extend(value.map(|value| format!("\n{what} {value}")));
    say("sigma", (strength.sigma == Sigma::Estimated).then(|| "estimated".to_owned()));
    say("denoiser", (strength.denoiser == Denoising::Learned).then(|| "learned".to_owned()));
    say("surrogate", surrogate.map(|encoder| encoder.fingerprint.clone()));
    // A folder that cannot be read fails the cells that need it.
    let kept = |choice: &str, role| kept::identity(choice, victim, role).unwrap_or_default();
    say("decoder", attack.decoder().and_then(|d| kept(&d.pretrained, Role::Decoder)));
    say("corrector", attack.kept_corrector().and_then(|choice| kept(choice, Role::Corrector)));
    say("prior", attack.picture_prior().and_then(|choice| image::kept::identity(choice).unwrap_or_default()));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attackers_differ_by_all_that_makes_them_stronger_and_by_nothing_else() {
        let encoder = |name: &str| EncoderInfo {
            name: name.to_owned(),
            dim: 8,
            max_len_tokens: 0,
            fingerprint: format!("hash of {name}"),
            toy: true,
        };
        let victim = encoder("victim");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut record: serde_json::Value =
            serde_json::from_slice(include_bytes!("../../models/attackers/minilm-text/attacker.json")).expect("JSON");
        let mut decoder = crate::attack::text::decoder::Decoder::default();
        let usual = Strength::default();
        let plain = serde_json::to_string(&AttackConfig::Decoder(decoder.clone())).expect("parameters");
        let of = |strength: &Strength, surrogate: Option<&EncoderInfo>| {
            attacker(&AttackConfig::Decoder(decoder.clone()), strength, &victim, surrogate)
        };
        assert_eq!(of(&usual, None), plain, "nothing is kept for this encoder");
        let mut told = vec![
            of(&usual, None),
            of(&Strength { sigma: Sigma::Estimated, ..usual.clone() }, None),
            of(&Strength { denoiser: Denoising::Learned, ..usual.clone() }, None),
            of(&usual, Some(&encoder("one"))),
            of(&usual, Some(&encoder("another"))),
        ];
        decoder.pretrained = folder.path().display().to_string();
        for weights in ["old weights", "new weights"] {
            record["weights"] = weights.into();
            let path = folder.path().join(kept::RECORD);
            crate::attack::keep(&path, record.to_string().as_bytes()).expect("writable");
            told.push(attacker(&AttackConfig::Decoder(decoder.clone()), &usual, &victim, None));
        }
        let all = told.len();
        told.sort();
        told.dedup();
        assert_eq!(told.len(), all, "{told:#?}");
    }
}
