//! A run folder made of chosen scores, for tests.

use super::{Options, Policy, Verdict, judge};
use crate::attack;
use crate::run::cell::{Cost, Outcome};
use crate::run::evidence::{Evidence, SCHEMA};
use crate::run::record::{
    Claim, Direction, GuaranteeRecord, ProtectionSummary, Ranked, Row, Similarity, Strength, Summary, Utility,
};
use crate::run::scores::Scores;
use crate::run::store::Store;
use crate::seed;
use rand::RngExt;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Unique strings that stand where texts of records stand; none may ever be printed.
pub(super) const CANARY: &str = "canary-original-7f3a";

/// What is measured, and how well it was done.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) n: usize,
    pub(super) seeds: u64,
    /// Mean judge cosine of the unprotected, the protected and the blind arm; every floor is .05.
    pub(super) unprotected: f64,
    pub(super) protected: f64,
    pub(super) blind: f64,
    /// Topic accuracy of both releases.
    pub(super) topics: (f64, f64),
    pub(super) strong: bool,
    pub(super) adaptive: bool,
    pub(super) pairs: (usize, usize),
    pub(super) losses: Vec<f64>,
    /// The first seed of the strongest attacker failed on the protected release: the summary then names a weaker one.
    pub(super) failed: bool,
    pub(super) pipeline: &'static str,
    pub(super) epsilon: Option<f64>,
    pub(super) victim: &'static str,
    /// What the decoder and what it knows hash to.
    pub(super) decoder: &'static str,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            n: 300,
            seeds: 5,
            unprotected: 0.85,
            protected: 0.15,
            blind: 0.06,
            topics: (0.9, 0.85),
            strong: true,
            adaptive: true,
            pairs: (1000, 1000),
            losses: vec![5.0, 4.0, 3.9, 3.895, 3.894],
            failed: false,
            pipeline: "clip(l2=1) | gaussian(sigma=0.1)",
            epsilon: Some(8.0),
            victim: "victim-hash",
            decoder: "d",
        }
    }
}

const FLOOR: f64 = 0.05;
/// Mean judge cosine of the weaker attacker, which is there where the stronger one failed.
const WEAKER: f64 = 0.1;

impl Plan {
    /// Writes the folder; its handle removes it.
    pub(super) fn write(&self) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = Store::open(folder.path()).expect("opens");
        let mut rows = Vec::new();
        for (protection, mean, topics) in
            [("unprotected", self.unprotected, self.topics.0), ("noisy", self.protected, self.topics.1)]
        {
            for s in 1..=self.seeds {
                rows.push(self.cell(&store, protection, "decoder", s, mean, &mut |_| {}));
                rows.push(self.cell(&store, protection, "blind", s, self.blind, &mut |_| {}));
                if self.failed {
                    rows.push(self.cell(&store, protection, "nearest", s, WEAKER, &mut |_| {}));
                }
                rows.push(self.cell(&store, protection, "utility", s, topics, &mut |outcome| {
                    let mut rng = seed::stream(s, protection, "topics");
                    let hits = (0..self.n).map(|_| Some(f64::from(u8::from(rng.random::<f64>() < topics))));
                    outcome.test = Scores::from([("topic_accuracy".to_owned(), hits.collect())]);
                    outcome.floor.clear();
                }));
            }
        }
        store.write_lines("records.jsonl", rows.iter()).expect("writes");
        store.write_json("summary.json", &self.summary()).expect("writes");
        store.write_json("evidence.json", &self.evidence()).expect("writes");
        folder
    }

    /// The verdict on the folder by the text of a policy.
    pub(super) fn judge(&self, policy: &str, today: &str) -> Verdict {
        let folder = self.write();
        let policy = Policy::parse("gate.toml", policy).expect("a valid policy");
        let options = Options { today: today.parse().expect("a date"), ..Options::today() };
        judge(&[folder.path().to_owned()], &policy, &options).expect("a whole folder").0
    }

    fn cell(
        &self,
        store: &Store,
        protection: &str,
        attack: &str,
        s: u64,
        mean: f64,
        change: &mut dyn FnMut(&mut Outcome),
    ) -> Row {
        let id = blake3::hash(format!("{protection} {attack} {s} {mean}").as_bytes()).to_hex()[..20].to_owned();
        let mut rng = seed::stream(s, protection, attack);
        let mut scores = |mean: f64| -> Vec<Option<f64>> {
            (0..self.n).map(|_| Some(mean + 0.1 * (rng.random::<f64>() - 0.5))).collect()
        };
        let is_noisy = protection == "noisy";
        let mut outcome = Outcome {
            id: id.clone(),
            protection: protection.to_owned(),
            attack: attack.to_owned(),
            seed: s,
            adaptive: self.adaptive || !is_noisy,
            origin: None,
            assumed_sigma: None,
            released: String::new(),
            n: self.n,
            test: Scores::from([("judge_cosine".to_owned(), scores(mean))]),
            floor: Scores::from([("judge_cosine".to_owned(), scores(FLOOR))]),
            validation: Scores::new(),
            aggregates: BTreeMap::new(),
            inferred: BTreeMap::new(),
            knowledge: None,
            cost: Cost { pairs: if is_noisy { self.pairs.1 } else { self.pairs.0 }, ..Cost::default() },
            curves: vec![attack::Curve {
                title: "held-out loss on releases (nats a piece)".to_owned(),
                x_label: "training step".to_owned(),
                points: self.losses.iter().enumerate().map(|(i, l)| (i as f64, *l)).collect(),
            }],
            guarantee: self.guarantee(is_noisy),
            error: None,
        };
        change(&mut outcome);
        let failed = self.failed && is_noisy && attack == "decoder" && s == 1;
        if !failed {
            store.keep_cell(&id, &outcome).expect("writes");
        }
        let is_utility = attack == "utility";
        Row {
            cell: id,
            protection: protection.to_owned(),
            pipeline: if is_noisy { self.pipeline } else { "identity" }.to_owned(),
            attack: attack.to_owned(),
            seed: s,
            adaptive: outcome.adaptive,
            metric: if is_utility { "topic_accuracy" } else { "judge_leak" }.to_owned(),
            version: 1,
            value: (!failed).then_some(mean),
            low: None,
            high: None,
            n: if failed { 0 } else { self.n },
            floor: None,
            blind: None,
            unit: "share".to_owned(),
            direction: if is_utility { Direction::HigherIsMoreUseful } else { Direction::HigherLeaksMore },
            noisy_sides: None,
            guarantee: outcome.guarantee,
            inference: None,
            error: failed.then(|| format!("could not write `{CANARY}`")),
        }
    }

    fn guarantee(&self, is_noisy: bool) -> GuaranteeRecord {
        GuaranteeRecord {
            kind: "gdp".to_owned(),
            epsilon: self.epsilon.filter(|_| is_noisy),
            releases: 1,
            delta: Some(1e-5),
            sigma: Some(0.1),
            mu: None,
            adjacency: "replace-one".to_owned(),
            unit_of_privacy: "one record".to_owned(),
            note: String::new(),
        }
    }

    fn evidence(&self) -> Evidence {
        Evidence {
            schema: SCHEMA.to_owned(),
            corpus: "toy".to_owned(),
            toy: true,
            seeds: (1..=self.seeds).collect(),
            clusters: (0..self.n as u32).collect(),
            data: "data-hash".to_owned(),
            victim: self.victim.to_owned(),
            judges: vec!["judge-hash".to_owned()],
            attacks: [("decoder", self.decoder), ("blind", "b")]
                .into_iter()
                .chain(self.failed.then_some(("nearest", "n")))
                .map(|(name, hash)| (name.to_owned(), hash.to_owned()))
                .collect(),
            protections: vec![
                ("unprotected".to_owned(), "identity".to_owned()),
                ("noisy".to_owned(), self.pipeline.to_owned()),
            ],
        }
    }

    fn summary(&self) -> Summary {
        let protection = |name: &str, pipeline: &str| ProtectionSummary {
            name: name.to_owned(),
            pipeline: pipeline.to_owned(),
            guarantee: self.guarantee(name == "noisy"),
            best_attack: Some(if self.failed && name == "noisy" { "nearest" } else { "decoder" }.to_owned()),
            similarity: Similarity { n: self.n, ..Similarity::default() },
            recognised: None,
            victim_cosine: None,
            identified: Ranked::default(),
            matched: Ranked::default(),
            blind_leak: None,
            retention: None,
            utility: Utility::default(),
            verdict: String::new(),
        };
        Summary {
            schema: "stitchback/summary/v1".to_owned(),
            study: "fixture".to_owned(),
            attacker_strong_enough: self.strong,
            strength: Strength { metric: String::new(), bar: 0.7, reached: Some(0.8), attack: None },
            claim: Claim { unprotected_leak: None, protected_leak: None, protection: None, holds: None },
            protections: vec![protection("unprotected", "identity"), protection("noisy", self.pipeline)],
            assumptions: vec!["toy: a toy encoder".to_owned()],
        }
    }
}

/// Several folders at once.
pub(super) fn paths(folders: &[&tempfile::TempDir]) -> Vec<PathBuf> {
    folders.iter().map(|f| f.path().to_owned()).collect()
}
