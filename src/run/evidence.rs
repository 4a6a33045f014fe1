//! `evidence.json`: what the gate must know beside the records, and can ask of nobody else.

use super::bench::Bench;
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
    /// Hash of each attack's parameters, by its name.
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
    let parameters = |attack: &crate::study::Contender| {
        let text = serde_json::to_string(&attack.config).expect("parameters are strings, numbers and tables");
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
        attacks: study.attack.iter().map(parameters).collect(),
        protections: study.protect.iter().map(|p| (p.name.clone(), p.pipeline.to_string())).collect(),
    }
}
