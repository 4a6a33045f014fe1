//! A run folder for tests: four protections, five attackers, two seeds, gaps, a failure, hostile and private texts.

use crate::run::record::{
    Claim, Curve, Direction, GuaranteeRecord, GuessRecord, Inference, Interval, ProtectionSummary, Ranked, Row,
    Similarity, Strength, Summary, Utility,
};
use rand::RngExt;
use std::fmt::Write;

/// Strings that a redacted report must not hold: an original's word, a guess's word, an id, an error, a path, the plan.
pub(super) const CANARIES: [&str; 6] = [
    "zanzibar-canary",
    "quixoticcanary",
    "doc-canary",
    "out of memory after 3 batches",
    "/home/canary",
    "corpus-canary",
];

const ATTACKS: [(&str, f64); 5] =
    [("blind", 0.0), ("nearest", 0.55), ("bag_of_words", 0.72), ("decoder", 1.0), ("corrector", 0.94)];

struct Level {
    name: &'static str,
    pipeline: &'static str,
    sigma: Option<f64>,
    epsilon: Option<f64>,
    leak: f64,
    identified: f64,
    topic: f64,
    recall: f64,
    verdict: &'static str,
}

const LEVELS: [Level; 4] = [
    Level {
        name: "unprotected",
        pipeline: "identity",
        sigma: None,
        epsilon: None,
        leak: 0.612,
        identified: 0.999,
        topic: 0.921,
        recall: 1.0,
        verdict: "unprotected",
    },
    Level {
        name: "gaussian-0.05",
        pipeline: "gaussian(sigma=0.05)",
        sigma: Some(0.05),
        epsilon: None,
        leak: 0.447,
        identified: 0.996,
        topic: 0.902,
        recall: 0.61,
        verdict: "leaks: the worst attacker keeps more than half of the unprotected leak",
    },
    Level {
        name: "gaussian-0.25",
        pipeline: "gaussian(sigma=0.25)",
        sigma: Some(0.25),
        epsilon: None,
        leak: 0.091,
        identified: 0.621,
        topic: 0.713,
        recall: 0.18,
        verdict: "reduced: a tenth of the meaning remains and the vector still identifies its text",
    },
    Level {
        name: "dp-prototype",
        pipeline: "clip(l2=1) | prototype(members=20) | gaussian(epsilon=1, delta=1e-5)",
        sigma: Some(0.485),
        epsilon: Some(1.0),
        leak: 0.012,
        identified: 0.004,
        topic: 0.402,
        recall: 0.03,
        verdict: "private: no attacker stands above the blind one",
    },
];

fn guarantee(level: &Level) -> GuaranteeRecord {
    let formal = level.epsilon.is_some();
    GuaranteeRecord {
        kind: if formal { "gdp" } else { "none" }.into(),
        epsilon: level.epsilon,
        releases: 1,
        delta: level.epsilon.map(|_| 1e-5),
        sigma: level.sigma,
        mu: level.epsilon.map(|_| 0.206),
        adjacency: if formal { "replace-one" } else { "" }.into(),
        unit_of_privacy: if formal { "one record" } else { "" }.into(),
        note: if formal { "" } else { "nothing bounds the sensitivity" }.into(),
    }
}

fn around(value: f64, half: f64) -> Interval {
    Interval { value, low: value - half, high: value + half }
}

/// The summary of the fixture: strong attackers, a claim that does not hold.
pub(super) fn summary() -> Summary {
    let protections = LEVELS
        .iter()
        .map(|level| ProtectionSummary {
            name: level.name.into(),
            pipeline: level.pipeline.into(),
            guarantee: guarantee(level),
            best_attack: Some("decoder".into()),
            similarity: Similarity {
                judge_raw: Some(0.72 + 0.28 * level.leak),
                judge_floor: Some(0.72),
                leak: Some(level.leak),
                low: Some(level.leak - 0.034),
                high: Some(level.leak + 0.034),
                n: 500,
            },
            recognised: None,
            victim_cosine: Some(0.2 + level.leak),
            identified: Ranked { top1: Some(level.identified), of: 1000, chance: Some(0.001) },
            matched: Ranked { top1: Some(level.leak), of: 1000, chance: Some(0.001) },
            blind_leak: Some(0.004),
            retention: Some(level.leak / LEVELS[0].leak),
            utility: Utility {
                spearman: None,
                low: None,
                high: None,
                reliability: None,
                recall_at_10: Some(around(level.recall, 0.02)),
                topic_accuracy: Some(around(level.topic, 0.025)),
            },
            verdict: level.verdict.into(),
        })
        .collect();
    Summary {
        schema: "stitchback/summary/v1".into(),
        study: "leakage-gap-text".into(),
        attacker_strong_enough: true,
        strength: Strength {
            metric: "victim cosine of the best free-text attacker".into(),
            bar: 0.7,
            reached: Some(0.812),
            attack: Some("decoder".into()),
        },
        claim: Claim {
            unprotected_leak: Some(around(LEVELS[0].leak, 0.034)),
            protected_leak: Some(around(LEVELS[2].leak, 0.034)),
            protection: Some("gaussian-0.25".into()),
            holds: Some(false),
        },
        protections,
        assumptions: vec![
            "toy: these numbers were made up for a test and are evidence of nothing".into(),
            "Targets are 500 held-out documents; auxiliary records share no document with them.".into(),
            "Victim encoder all-minilm-l6-v2, judge multilingual-e5-small; neither was trained here.".into(),
            "Near duplicates of a target were removed from the attackers' data.".into(),
        ],
    }
}

fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for level in &LEVELS {
        for seed in [1, 2] {
            for (attack, strength) in ATTACKS {
                let shift = if seed == 1 { -0.011 } else { 0.011 };
                let leak = level.leak * strength + shift * strength.max(0.2);
                let failed = attack == "corrector" && level.name == "gaussian-0.25";
                let row = |metric: &str, unit: &str, value: f64, half: f64, floor: Option<f64>| Row {
                    cell: format!("{}-{attack}-{seed}", level.name),
                    protection: level.name.into(),
                    pipeline: level.pipeline.into(),
                    attack: attack.into(),
                    seed,
                    adaptive: attack != "blind",
                    metric: metric.into(),
                    version: 1,
                    value: (!failed).then_some(value),
                    low: (!failed).then_some(value - half),
                    high: (!failed).then_some(value + half),
                    n: 500,
                    floor,
                    blind: Some(0.004),
                    unit: unit.into(),
                    direction: Direction::HigherLeaksMore,
                    noisy_sides: None,
                    guarantee: guarantee(level),
                    inference: None,
                    error: failed.then(|| "out of memory after 3 batches".into()),
                };
                rows.push(row("judge_leak", "share", leak, 0.03, Some(0.0)));
                rows.push(row("judge_cosine", "cosine", 0.72 + 0.28 * leak, 0.01, Some(0.72)));
                rows.push(row("victim_cosine", "cosine", 0.2 + leak, 0.02, Some(0.2)));
                rows.push(row("worst_5_percent", "share", (leak + 0.28).min(1.0), 0.05, None));
                rows.push(row("corpus_bleu", "points", leak * 30.0, 1.5, Some(0.4)));
                if attack == "decoder" {
                    let inference = Inference {
                        question: "Which city of 300? Ranked first (form known, carrier hidden)".into(),
                        unit: "share".into(),
                        headline: true,
                        range: (0.0, 1.0),
                        chance: Some(1.0 / 300.0),
                        ceiling: None,
                        allowed: level.epsilon.map(|_| 0.02),
                        exceeds_claim: level.epsilon.is_some(),
                        n: 500,
                    };
                    let value = (0.2 + leak).clamp(0.0, 1.0);
                    rows.push(Row {
                        attack: "slots".into(),
                        inference: Some(inference),
                        ..row("slot_city_top1", "share", value, 0.04, Some(1.0 / 300.0))
                    });
                }
                if attack == "nearest" {
                    rows.push(row("identified_top1", "share", level.identified, 0.01, None));
                }
            }
        }
    }
    rows
}

/// The scores and texts of one cell: hostile, private and ordinary ones.
fn guesses(level: &Level, seed: u64) -> Vec<GuessRecord> {
    let mut stream = crate::seed::stream(seed, level.name, "fixture");
    let bank = [
        (
            "The doctor said that the results of the blood test arrived on Friday.",
            "The doctor said the blood test results were late on Friday.",
        ),
        (
            "Shares in the airline fell after it warned of a loss this winter.",
            "The airline shares fell this winter after a warning.",
        ),
        (
            "She won the tennis final in straight sets and thanked her coach.",
            "He won the tennis title and thanked the crowd.",
        ),
        (
            "The minister will announce new rules for school meals next week.",
            "The government said it would review the plan for schools.",
        ),
    ];
    (0..60)
        .map(|i| {
            let (original, guess) = bank[i % bank.len()];
            let noise: f64 = (0..4).map(|_| stream.random::<f64>()).sum::<f64>() / 4.0 - 0.5;
            let judge = 0.72 + 0.28 * (level.leak + noise * 0.5).clamp(-0.1, 1.0);
            let mut record = GuessRecord {
                target: format!("doc-canary-{i:03}"),
                original: format!("{original} zanzibar-canary"),
                guess: format!("{guess} quixoticcanary"),
                size: None,
                scores: [
                    ("judge_cosine".to_owned(), Some(judge)),
                    ("victim_cosine".to_owned(), Some(0.2 + level.leak)),
                    ("token_f1".to_owned(), (i != 4).then_some(level.leak)),
                ]
                .into(),
            };
            if i == 7 {
                record.scores.insert("judge_cosine".into(), None);
            }
            if i == 9 {
                // The target that leaks most everywhere is the hostile one, so that it is certainly shown.
                record.guess = "<script>alert(1)</script> \u{1b}[31m<img src=x onerror=x> \u{202e}the doctor & \"coach\" quixoticcanary".into();
                record.scores.insert("judge_cosine".into(), Some(1.0));
            }
            record
        })
        .collect()
}

fn curves() -> Vec<Curve> {
    let mut curves = Vec::new();
    for level in &LEVELS {
        for seed in [1_u64, 2] {
            let mut curve = |attack: &str, title: &str, x_label: &str, points: Vec<(f64, f64)>| {
                curves.push(Curve {
                    cell: format!("{}-{attack}-{seed}", level.name),
                    protection: level.name.into(),
                    attack: attack.into(),
                    seed,
                    title: title.into(),
                    x_label: x_label.into(),
                    points,
                });
            };
            let end = 5.2 - 2.0 * level.leak + seed as f64 * 0.04;
            let loss = |i: usize| (i as f64 * 100.0, end + (9.0 - end) * (-(i as f64) / 8.0).exp());
            curve("decoder", "validation loss (nats a token)", "training step", (0..40).map(loss).collect());
            let budget = |i: usize| (f64::from(1 << i), level.leak * (0.4 + 0.1 * i as f64));
            curve("corrector", "judge leak", "encoder queries a target", (0..7).map(budget).collect());
        }
    }
    curves
}

fn jsonl<T: serde::Serialize>(values: &[T]) -> String {
    values.iter().fold(String::new(), |mut text, v| {
        writeln!(text, "{}", serde_json::to_string(v).expect("records are plain data"))
            .expect("a string takes any text");
        text
    })
}

/// Writes the folder. It is named alike every time, because the name stands in the report.
pub(super) fn folder() -> Folder {
    let root = tempfile::tempdir().expect("a temporary folder");
    let path = root.path().join("leakage-gap-text-0c1294");
    std::fs::create_dir_all(path.join("guesses")).expect("a folder can be made");
    let put =
        |name: &str, text: &str| super::replace(&path.join(name), text.as_bytes()).expect("a file can be written");
    put("summary.json", &serde_json::to_string_pretty(&summary()).expect("a summary is plain data"));
    put("records.jsonl", &jsonl(&rows()));
    put("curves.jsonl", &jsonl(&curves()));
    put("plan.toml", "schema = 1\nname = \"leakage-gap-text\"\n[data]\ncorpus = \"corpus-canary\"\n");
    let manifest = serde_json::json!({
        "stitchback": "0.1.0", "git": {"commit": "8b96532", "dirty": false}, "cpu": "Example CPU", "threads": 2, "seeds": [1, 2],
        "wall_s": 2213.4, "cpu_s": 4180.9, "peak_memory_mib": 1890, "data": "/home/canary/mail.jsonl", "gpu": null,
        "assets": [{"name": "all-minilm-l6-v2", "sha256": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"}],
    });
    put("manifest.json", &manifest.to_string());
    for level in &LEVELS {
        for seed in [1, 2] {
            put(&format!("guesses/{}-decoder-{seed}.jsonl", level.name), &jsonl(&guesses(level, seed)));
        }
    }
    Folder { path, _root: root }
}

/// A run folder that goes away with its value.
pub(super) struct Folder {
    path: std::path::PathBuf,
    _root: tempfile::TempDir,
}

impl Folder {
    pub(super) fn path(&self) -> &std::path::Path {
        &self.path
    }
}
