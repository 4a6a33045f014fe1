//! Attackers and protections as tables: the leak of each pair, and what probes infer without writing a text.

use super::Run;
use super::verdict::{self, cosine, maybe_share, share};
use crate::attack::AttackConfig;
use crate::run::record::{Inference, ProtectionSummary};

/// Columns of one table of attackers and protections; more make another table, so that paper can hold it.
const MOST_COLUMNS: usize = 6;
/// Where a table's cells become darker.
const HEAT: [f64; 5] = [0.05, 0.15, 0.3, 0.5, 0.7];

pub(super) struct Matrix {
    pub(super) columns: Vec<String>,
    pub(super) rows: Vec<MatrixRow>,
}

pub(super) struct MatrixRow {
    pub(super) attack: String,
    pub(super) cells: Vec<MatrixCell>,
}

pub(super) struct MatrixCell {
    pub(super) leak: String,
    pub(super) ends: String,
    pub(super) more: Vec<String>,
    pub(super) heat: usize,
    pub(super) worst: bool,
}

/// What probes found out, some protections side by side.
pub(super) struct InferenceTable {
    pub(super) columns: Vec<String>,
    pub(super) rows: Vec<InferenceRow>,
}

pub(super) struct InferenceRow {
    /// Its attacker, where it is the first row of that attacker.
    pub(super) attack: Option<String>,
    pub(super) question: String,
    pub(super) beside: String,
    pub(super) cells: Vec<InferenceCell>,
}

pub(super) struct InferenceCell {
    pub(super) value: String,
    pub(super) ends: String,
    pub(super) more: Option<String>,
    pub(super) heat: usize,
    pub(super) breach: bool,
}

/// What records call closed-set identification.
const IDENTIFICATION: &str = "identification";

/// A difference of shares with its sign.
fn signed_share(v: f64) -> String {
    if v < 0.0 { share(v) } else { format!("+{}", share(v)) }
}

pub(super) fn matrices(run: &Run) -> Vec<Matrix> {
    let mut attacks = run.attacks();
    // It writes no guess, but it is an attack.
    if run.rows.iter().any(|row| row.attack == IDENTIFICATION) {
        attacks.push(IDENTIFICATION);
    }
    run.summary
        .protections
        .chunks(MOST_COLUMNS)
        .map(|some| Matrix {
            columns: some.iter().map(|p| p.name.clone()).collect(),
            rows: attacks
                .iter()
                .map(|attack| MatrixRow {
                    attack: (*attack).to_owned(),
                    cells: some.iter().map(|p| matrix_cell(run, p, attack)).collect(),
                })
                .collect(),
        })
        .collect()
}

pub(super) fn matrix_cell(run: &Run, p: &ProtectionSummary, attack: &str) -> MatrixCell {
    let leak = run.pooled(&p.name, attack, "judge_leak");
    let victim = run.pooled(&p.name, attack, "victim_cosine").value;
    let identified = run.pooled(&p.name, attack, "identified_top1").value;
    let mut more = Vec::new();
    more.extend(victim.map(|v| format!("victim {}", cosine(v))));
    more.extend(identified.map(|v| format!("identifies {}", share(v))));
    let of = |metric: &str| run.pooled(&p.name, attack, metric).value;
    more.extend(of("judge_leak_minus_nearest").map(|v| format!("{} over nearest", signed_share(v))));
    more.extend(of("best_member_leak").map(|v| format!("best member {}", share(v))));
    more.extend(of("topic_named").map(|v| format!("topic {}", share(v))));
    more.extend(of("bits_leaked").map(|v| format!("{v:.0} bits")));
    if leak.failed > 0 {
        more.push(format!(
            "{} failed",
            if leak.failed == 1 { "1 seed".to_owned() } else { format!("{} seeds", leak.failed) }
        ));
    }
    let heat = leak.value.map_or(0, |v| HEAT.iter().filter(|step| v >= **step).count());
    MatrixCell {
        leak: maybe_share(leak.value),
        ends: leak.value.zip(leak.ends).map(|(v, (a, b))| verdict::bracket(v, a, b)).unwrap_or_default(),
        more,
        heat,
        worst: p.best_attack.as_deref() == Some(attack),
    }
}

pub(super) fn inferred(run: &Run) -> Vec<InferenceTable> {
    let mut questions: Vec<(&str, &str, &Inference)> = Vec::new();
    for row in &run.rows {
        if let Some(inference) = row.inference.as_ref().filter(|i| i.headline)
            && !questions.iter().any(|(attack, metric, _)| *attack == row.attack && *metric == row.metric)
        {
            questions.push((&row.attack, &row.metric, inference));
        }
    }
    // Records list cells in study order: all questions of one attacker stand together.
    questions.sort_by_key(|(attack, _, _)| AttackConfig::PROBES.iter().position(|probe| probe == attack));
    if questions.is_empty() {
        return Vec::new();
    }
    let row = |at: usize, some: &[ProtectionSummary]| {
        let (attack, metric, inference) = questions[at];
        let mut beside: Vec<String> = inference.chance.map(|c| format!("chance {}", share(c))).into_iter().collect();
        beside.extend(inference.ceiling.map(|c| format!("the text's own words {}", share(c))));
        beside.push(format!("n = {}", inference.n));
        InferenceRow {
            attack: (at == 0 || questions[at - 1].0 != attack).then(|| attack.to_owned()),
            question: inference.question.clone(),
            beside: beside.join(", "),
            cells: some.iter().map(|p| inference_cell(run, p, attack, metric)).collect(),
        }
    };
    run.summary
        .protections
        .chunks(MOST_COLUMNS)
        .map(|some| InferenceTable {
            columns: some.iter().map(|p| p.name.clone()).collect(),
            rows: (0..questions.len()).map(|at| row(at, some)).collect(),
        })
        .collect()
}

fn inference_cell(run: &Run, p: &ProtectionSummary, attack: &str, metric: &str) -> InferenceCell {
    let pooled = run.pooled(&p.name, attack, metric);
    let its = run.rows.iter().filter(|r| r.protection == p.name && r.attack == attack && r.metric == metric);
    let meanings: Vec<&Inference> = its.filter_map(|r| r.inference.as_ref()).collect();
    let allowed = meanings.first().and_then(|m| m.allowed).filter(|a| *a < 0.995);
    // Above chance, on the same steps as the leak.
    let above = pooled.value.map_or(0.0, |v| {
        let chance = pooled.floor.unwrap_or(0.0);
        (v - chance) / (1.0 - chance).max(1e-9)
    });
    InferenceCell {
        value: maybe_share(pooled.value),
        ends: pooled.value.zip(pooled.ends).map(|(v, (a, b))| verdict::bracket(v, a, b)).unwrap_or_default(),
        more: allowed.map(|a| format!("its guarantee allows {}", share(a))),
        heat: HEAT.iter().filter(|step| above >= **step).count(),
        breach: meanings.iter().any(|m| m.exceeds_claim),
    }
}
