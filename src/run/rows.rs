//! From outcomes to rows of `records.jsonl`: means, intervals, floors.

use super::bench::Bench;
use super::cell::Outcome;
use super::record::{Direction, Inference, Row};
use crate::Error;
use crate::attack::AttackConfig;
use crate::contribute::appraisal::{self, Agreement};
use crate::measure::similarity::leak_statistic;
use crate::measure::statistics::{self, Design, Estimate, Table, Tail};
use crate::measure::{Context, MetricKind, PictureMetric};
use crate::seed;

/// What a row says about its metric, apart from the value.
pub(super) struct Column {
    id: &'static str,
    version: u32,
    unit: &'static str,
    direction: Direction,
    range: (f64, f64),
}

/// All rows of one outcome. `blind` is the blind attacker's outcome for the same protection and seed.
pub fn rows(bench: &Bench, outcome: &Outcome, blind: Option<&Outcome>) -> Result<Vec<Row>, Error> {
    let pipeline = pipeline(bench, outcome);
    let row = |attack: &str, column: &Column| empty(outcome, &pipeline, attack, column);
    let infers = AttackConfig::PROBES.contains(&outcome.attack.as_str());
    if outcome.error.is_some() {
        let mut failed = row(&outcome.attack, &LEAK);
        if infers {
            failed.metric.clone_from(&outcome.attack);
        }
        return Ok(vec![failed]);
    }
    let design = Design::clustered(&bench.test.clusters[..outcome.n], 1);
    let mut rng = seed::stream(outcome.seed, &outcome.id, "intervals");
    let mut out = Vec::new();
    if outcome.attack == "release" {
        for column in &RELEASE {
            if let Some(values) = outcome.test.get(column.id) {
                // How much noise there is belongs to what can be told apart, not to what the release is good for.
                let seen = column.id.starts_with("identified") || column.id == "noise_to_signal";
                let attack = if seen { "identification" } else { "utility" };
                let estimate = statistics::mean(&Table::one(values)?, &design, column.range, &mut rng);
                out.push(fill(row(attack, column), estimate));
            }
        }
        if let Some(agreement) = agreement(&[outcome])? {
            for (column, estimate) in worth(&agreement, &design, &mut rng) {
                out.push(fill(row("utility", &column), estimate));
            }
        }
        return Ok(out);
    }

    if infers {
        for (id, meaning) in &outcome.inferred {
            let estimate = match outcome.test.get(id) {
                Some(values) => statistics::mean(&Table::one(values)?, &design, meaning.range, &mut rng),
                None => outcome.aggregates.get(id).copied(),
            };
            out.push(inferred(id, meaning, fill(row(&outcome.attack, &LEAK), estimate)));
        }
        return Ok(out);
    }

    let pair = |o: &Outcome| -> Result<(Table, Table), Error> {
        Ok((table(o.test.get("judge_cosine"), outcome.n)?, table(o.floor.get("judge_cosine"), outcome.n)?))
    };
    let (cosine, floor) = pair(outcome)?;
    let blind_pair = blind.map(pair).transpose()?;
    let blind_leak = blind_pair.as_ref().and_then(|(c, f)| leak_statistic(c, f)(&design.once()));
    let interval = statistics::bootstrap(&leak_statistic(&cosine, &floor), &design, &mut rng).map(|b| b.estimate(None));
    out.push(Row { floor: Some(0.0), blind: blind_leak, ..fill(row(&outcome.attack, &LEAK), interval) });

    if let (Some(best), Some(other)) = (outcome.test.get(BEST_MEMBER), outcome.floor.get(BEST_MEMBER)) {
        let (best, other) = (table(Some(best), outcome.n)?, table(Some(other), outcome.n)?);
        let estimate =
            statistics::bootstrap(&leak_statistic(&best, &other), &design, &mut rng).map(|b| b.estimate(None));
        let column = Column { id: "best_member_leak", ..LEAK };
        out.push(Row { floor: Some(0.0), ..fill(row(&outcome.attack, &column), estimate) });
    }

    if let (Some(drawn), Some(original)) = (outcome.test.get(OBJECT), outcome.test.get(OBJECT_IN_ORIGINAL)) {
        let (drawn, original) = (table(Some(drawn), outcome.n)?, table(Some(original), outcome.n)?);
        let estimate =
            statistics::bootstrap(&recognised(&drawn, &original), &design, &mut rng).map(|b| b.estimate(None));
        out.push(fill(row(&outcome.attack, &Column { id: "recognised", ..LEAK }), estimate));
    }

    // The tail: leaks of single targets, each against the mean floor.
    let mean_floor = floor.mean(&design.once()).unwrap_or(0.0);
    let single = cosine.map(|c| (c - mean_floor) / (1.0 - mean_floor));
    let tail = Tail::new(&single, 0.05, Direction::HigherLeaksMore);
    let worst = statistics::bootstrap(&|w| tail.mean(w), &design, &mut rng).map(|b| b.estimate(None));
    out.push(fill(row(&outcome.attack, &WORST), worst));
    let above = statistics::mean(&single.above(0.8), &design, (0.0, 1.0), &mut rng);
    out.push(fill(row(&outcome.attack, &ABOVE), above));

    for (id, values) in &outcome.test {
        let Some(column) = column(id)? else { continue };
        let estimate = statistics::mean(&Table::one(values)?, &design, column.range, &mut rng);
        let mean_of = |o: &Outcome, floor: bool| {
            let scores = if floor { &o.floor } else { &o.test };
            table(scores.get(id), outcome.n).ok()?.mean(&design.once())
        };
        let floor = if column.id == MATCHED.id { Some(1.0 / outcome.n as f64) } else { mean_of(outcome, true) };
        let blind = blind.and_then(|b| mean_of(b, false));
        out.push(Row { floor, blind, ..fill(row(&outcome.attack, &column), estimate) });
    }
    for (id, estimate) in &outcome.aggregates {
        let column = Column { id: "corpus_bleu", ..POINTS };
        debug_assert_eq!(id, column.id, "the only aggregate");
        out.push(fill(row(&outcome.attack, &column), Some(*estimate)));
    }
    Ok(out)
}

/// Agreement of protected with raw values over the seeds of a protection; `None` where they were not asked for.
pub(super) fn agreement(outcomes: &[&Outcome]) -> Result<Option<Agreement>, Error> {
    let seeds: Option<Vec<[&[Option<f64>]; 4]>> = outcomes
        .iter()
        .map(|o| {
            let [a, b, c, d] = appraisal::IDS.map(|id| o.test.get(id));
            Some([a?.as_slice(), b?, c?, d?])
        })
        .collect();
    Ok(seeds.map(|seeds| Agreement::new(&seeds)).transpose()?)
}

/// The agreement and the reliability under it, with intervals.
pub(super) fn worth(agreement: &Agreement, design: &Design, rng: &mut seed::Stream) -> [(Column, Option<Estimate>); 2] {
    let value = statistics::bootstrap(&|w| agreement.value(w), design, rng).map(|b| b.estimate(None));
    let reliability = statistics::bootstrap(&|w| agreement.reliability(w), design, rng).map(|b| b.estimate(None));
    [(VALUE, value), (RELIABILITY, reliability)]
}

/// How much more of the meaning one attacker brings back than another, on the targets that both attacked.
///
/// # Formula
/// `L_a - L_b` over the same bootstrap samples of documents.
pub fn paired(bench: &Bench, a: &Outcome, b: &Outcome) -> Result<Row, Error> {
    let n = a.n.min(b.n);
    let design = Design::clustered(&bench.test.clusters[..n], 1);
    let tables = |o: &Outcome| -> Result<(Table, Table), Error> {
        Ok((table(o.test.get("judge_cosine"), n)?, table(o.floor.get("judge_cosine"), n)?))
    };
    let ((cosine_a, floor_a), (cosine_b, floor_b)) = (tables(a)?, tables(b)?);
    let (leak_a, leak_b) = (leak_statistic(&cosine_a, &floor_a), leak_statistic(&cosine_b, &floor_b));
    let difference = |w: &statistics::Weights| Some(leak_a(w)? - leak_b(w)?);
    let mut rng = seed::stream(a.seed, &a.id, &format!("difference to {}", b.id));
    let estimate = statistics::bootstrap(&difference, &design, &mut rng).map(|b| b.estimate(None));
    let column = Column { range: (-2.0, 2.0), ..LEAK };
    let metric = match b.attack.strip_prefix(&a.attack) {
        Some(_) => "judge_leak_minus_twin".to_owned(),
        None => format!("judge_leak_minus_{}", b.attack),
    };
    Ok(Row { metric, n, ..fill(empty(a, &pipeline(bench, a), &a.attack, &column), estimate) })
}

fn pipeline(bench: &Bench, outcome: &Outcome) -> String {
    let protection = bench.study.protect.iter().find(|p| p.name == outcome.protection);
    protection.map(|p| p.pipeline.to_string()).unwrap_or_default()
}

fn empty(outcome: &Outcome, pipeline: &str, attack: &str, column: &Column) -> Row {
    Row {
        cell: outcome.id.clone(),
        protection: outcome.protection.clone(),
        pipeline: pipeline.to_owned(),
        attack: attack.to_owned(),
        seed: outcome.seed,
        adaptive: outcome.adaptive,
        metric: column.id.to_owned(),
        version: column.version,
        value: None,
        low: None,
        high: None,
        n: outcome.n,
        floor: None,
        blind: None,
        unit: column.unit.to_owned(),
        direction: column.direction,
        noisy_sides: noisy_sides(column.id).map(str::to_owned),
        guarantee: outcome.guarantee.clone(),
        inference: None,
        error: outcome.error.clone(),
    }
}

fn fill(row: Row, estimate: Option<Estimate>) -> Row {
    Row {
        value: estimate.map(|e| e.value),
        low: estimate.and_then(|e| e.low),
        high: estimate.and_then(|e| e.high),
        ..row
    }
}

/// A probe's figure: its own question, unit and chance.
fn inferred(id: &str, meaning: &Inference, row: Row) -> Row {
    Row {
        metric: id.to_owned(),
        unit: meaning.unit.clone(),
        n: meaning.n,
        floor: meaning.chance,
        inference: Some(meaning.clone()),
        ..row
    }
}

/// Noise on one side and noise on both give different figures for one release; a figure that does not say which is no figure.
fn noisy_sides(metric: &str) -> Option<&'static str> {
    match metric {
        "identified_top1" | "identified_top10" | "identified_mrr" | "recall_at_10" | "topic_accuracy"
        | "value_spearman" => Some("one"),
        "knn_overlap_at_10" => Some("both"),
        _ => None,
    }
}

/// The first `n` scores as a table of one seed; missing metrics give an empty one.
pub(super) fn table(values: Option<&Vec<Option<f64>>>, n: usize) -> Result<Table, Error> {
    let missing = vec![None; n];
    let values = values.map_or(&missing[..], |v| &v[..n.min(v.len())]);
    Ok(Table::one(values)?)
}

/// Whether the judge names the original's object from the guess.
pub(super) const OBJECT: &str = "object_named";
/// Whether it names it from the original itself.
pub(super) const OBJECT_IN_ORIGINAL: &str = "object_named_in_original";

/// How often the judge names the object from guesses, as a share of how often it names it from the originals.
pub(super) fn recognised<'a>(
    drawn: &'a Table,
    original: &'a Table,
) -> impl Fn(&statistics::Weights) -> Option<f64> + Sync + 'a {
    |w| {
        let (drawn, original) = (drawn.mean(w)?, original.mean(w)?);
        (original > 0.0).then(|| drawn / original)
    }
}

/// Judge cosine of a group's guess to the member that it comes closest to.
const BEST_MEMBER: &str = "best_member_cosine";
const LEAK: Column =
    Column { id: "judge_leak", version: 1, unit: "share", direction: Direction::HigherLeaksMore, range: (-1.0, 1.0) };
const WORST: Column = Column { id: "worst_5_percent", ..LEAK };
const ABOVE: Column = Column { id: "share_above_0_8", ..LEAK };
const MATCHED: Column = Column { id: "matched_top1", range: (0.0, 1.0), ..LEAK };
const POINTS: Column = Column { unit: "points", range: (0.0, 100.0), ..LEAK };
const VALUE: Column = Column {
    id: "value_spearman",
    unit: "correlation",
    direction: Direction::HigherIsMoreUseful,
    range: (-1.0, 1.0),
    ..LEAK
};
const RELIABILITY: Column = Column { id: "value_reliability", ..VALUE };
const RELEASE: [Column; 7] = [
    Column { id: "identified_top1", range: (0.0, 1.0), ..LEAK },
    Column { id: "identified_top10", range: (0.0, 1.0), ..LEAK },
    Column { id: "identified_mrr", range: (0.0, 1.0), ..LEAK },
    Column {
        id: "noise_to_signal",
        unit: "ratio",
        direction: Direction::LowerLeaksMore,
        range: (0.0, f64::MAX),
        ..LEAK
    },
    Column { id: "recall_at_10", direction: Direction::HigherIsMoreUseful, range: (0.0, 1.0), ..LEAK },
    Column { id: "knn_overlap_at_10", direction: Direction::HigherIsMoreUseful, range: (0.0, 1.0), ..LEAK },
    Column { id: "topic_accuracy", direction: Direction::HigherIsMoreUseful, range: (0.0, 1.0), ..LEAK },
];

/// The column of a per-target metric; further judges have none of their own.
fn column(id: &str) -> Result<Option<Column>, Error> {
    Ok(match id {
        "judge_cosine" => Some(Column { id: "judge_cosine", unit: "cosine", ..LEAK }),
        "judge_2_cosine" => Some(Column { id: "judge_2_cosine", unit: "cosine", ..LEAK }),
        "victim_cosine" => Some(Column { id: "victim_cosine", unit: "cosine", ..LEAK }),
        "matched_top1" => Some(MATCHED),
        "matched_two_way" => Some(Column { id: "matched_two_way", range: (0.0, 1.0), ..LEAK }),
        "object_named" => Some(Column { id: "object_named", range: (0.0, 1.0), ..LEAK }),
        "object_named_in_original" => Some(Column { id: "object_named_in_original", range: (0.0, 1.0), ..LEAK }),
        BEST_MEMBER => Some(Column { id: BEST_MEMBER, unit: "cosine", ..LEAK }),
        "topic_named" => Some(Column { id: "topic_named", range: (0.0, 1.0), ..LEAK }),
        "bits_leaked" => Some(Column { id: "bits_leaked", unit: "bits", range: (-1e6, 1e6), ..LEAK }),
        _ => {
            let mut specs = Vec::new();
            for kind in MetricKind::text_only() {
                specs.push(kind.build(&Context::default())?.spec());
            }
            for kind in PictureMetric::pixels() {
                specs.push(kind.build(&Context::default())?.spec());
            }
            specs.into_iter().find(|spec| spec.id == id).map(|spec| Column {
                id: spec.id,
                version: spec.version,
                unit: spec.unit,
                direction: spec.direction,
                range: (spec.low, spec.high),
            })
        }
    })
}
