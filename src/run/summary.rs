//! From outcomes to `summary.json`: worst attackers, verdicts, the claim.

use super::bench::Bench;
use super::cell::{Outcome, Scores};
use super::record::{Claim, Interval, ProtectionSummary, Ranked, Similarity, Strength, Summary, Utility};
use super::rows;
use crate::Error;
use crate::measure::similarity::{leak_above, leak_statistic};
use crate::measure::statistics::{self, Design, Estimate, Table};
use crate::seed;
use crate::study::Study;

/// What the article calls recognisable, and what it calls protected.
const CLAIMED_UNPROTECTED: f64 = 0.80;
const CLAIMED_PROTECTED: f64 = 0.20;

/// Sums up all finished cells.
pub fn summary(bench: &Bench, outcomes: &[Outcome]) -> Result<Summary, Error> {
    let study = bench.study;
    let strength = strength(bench, outcomes)?;
    let strong = strength.reached.is_some_and(|reached| reached >= strength.bar);
    let mut protections = Vec::new();
    for protection in &study.protect {
        protections.push(one(bench, outcomes, &protection.name)?);
    }
    let baseline = study.unprotected().and_then(|i| protections[i].similarity.leak);
    for (protection, p) in study.protect.iter().zip(&mut protections) {
        p.retention = p.similarity.leak.zip(baseline).filter(|(_, b)| *b > 0.0).map(|(l, b)| l / b);
        p.verdict = verdict(p, protection.pipeline.is_identity(), strong);
    }
    let claim = claim(study, &protections, strong);
    Ok(Summary {
        schema: "stitchback/summary/v1".to_owned(),
        study: study.name.clone(),
        attacker_strong_enough: strong,
        strength,
        claim,
        protections,
        assumptions: bench.assumptions(),
    })
}

/// Scores of one attack on one protection, a row for each seed; empty when a seed is missing or failed.
struct Arm<'a> {
    outcomes: Vec<&'a Outcome>,
    design: Design,
}

impl<'a> Arm<'a> {
    fn find(bench: &Bench, all: &'a [Outcome], protection: &str, attack: &str) -> Option<Self> {
        let outcomes: Vec<&Outcome> =
            all.iter().filter(|o| o.protection == protection && o.attack == attack && o.error.is_none()).collect();
        let n = outcomes.first()?.n;
        (outcomes.len() == bench.study.seeds.len())
            .then(|| Self { design: Design::clustered(&bench.test.clusters[..n], outcomes.len()), outcomes })
    }

    fn table(&self, of: impl Fn(&Outcome) -> &Scores, metric: &str) -> Result<Option<Table>, Error> {
        let rows: Option<Vec<&Vec<Option<f64>>>> = self.outcomes.iter().map(|o| of(o).get(metric)).collect();
        Ok(rows.map(|rows| Table::new(&rows)).transpose()?)
    }

    fn n(&self) -> usize {
        self.outcomes[0].n
    }

    fn mean(&self, metric: &str) -> Result<Option<f64>, Error> {
        Ok(self.table(|o| &o.test, metric)?.and_then(|t| t.mean(&self.design.once())))
    }

    fn interval(&self, metric: &str) -> Result<Option<Interval>, Error> {
        let Some(table) = self.table(|o| &o.test, metric)? else { return Ok(None) };
        let mut rng = seed::stream(0, &self.outcomes[0].id, &format!("summary {metric}"));
        Ok(statistics::mean(&table, &self.design, (0.0, 1.0), &mut rng).and_then(|e| e.interval()))
    }

    /// The leak on test targets with its interval over documents and seeds.
    fn leak(&self) -> Result<Option<Estimate>, Error> {
        let tables = (self.table(|o| &o.test, "judge_cosine")?, self.table(|o| &o.floor, "judge_cosine")?);
        let (Some(cosine), Some(floor)) = tables else { return Ok(None) };
        let mut rng = seed::stream(0, &self.outcomes[0].id, "summary leak");
        Ok(statistics::bootstrap(&leak_statistic(&cosine, &floor), &self.design, &mut rng).map(|b| b.estimate(None)))
    }

    /// How it did on validation targets.
    fn rehearsal(&self) -> Rehearsal<'_> {
        Rehearsal(self.outcomes.iter().map(|o| &o.validation).collect())
    }
}

/// Scores of one attack on validation targets, for each seed.
struct Rehearsal<'a>(Vec<&'a Scores>);

impl Rehearsal<'_> {
    /// Targets of each seed; 0 for attackers that make no guesses.
    fn targets(&self) -> usize {
        self.0.iter().map(|scores| scores.get("judge_cosine").map_or(0, Vec::len)).min().unwrap_or_default()
    }

    /// The leak on the first `most` targets.
    fn leak(&self, most: usize) -> Option<f64> {
        let (mut s, mut f, mut n) = (0.0, 0.0, 0.0);
        for scores in &self.0 {
            let both = scores.get("judge_cosine").zip(scores.get("judge_floor"));
            for (cosine, floor) in both.into_iter().flat_map(|(c, f)| c.iter().zip(f).take(most)) {
                if let (Some(cosine), Some(floor)) = (cosine, floor) {
                    s += cosine;
                    f += floor;
                    n += 1.0;
                }
            }
        }
        if n > 0.0 { leak_above(s / n, f / n) } else { None }
    }

    /// Which of two attackers is the worse is decided on the targets that both were tried on: an attacker of a few targets must
    /// not lose because those are hard ones.
    fn reads_more_than(&self, other: &Self) -> bool {
        let common = self.targets().min(other.targets());
        self.leak(common) > other.leak(common)
    }
}

/// The best free-text attacker's victim cosine on the unprotected release.
fn strength(bench: &Bench, outcomes: &[Outcome]) -> Result<Strength, Error> {
    let study = bench.study;
    let mut best: Option<(f64, &str)> = None;
    if let Some(unprotected) = study.unprotected() {
        for attack in study.attack.iter().filter(|a| a.config.is_free_text()) {
            if let Some(arm) = Arm::find(bench, outcomes, &study.protect[unprotected].name, &attack.name)
                && let Some(cosine) = arm.mean("victim_cosine")?
                && best.is_none_or(|(b, _)| cosine > b)
            {
                best = Some((cosine, &attack.name));
            }
        }
    }
    Ok(Strength {
        metric: "victim cosine of the best free-text attacker on the unprotected release".to_owned(),
        bar: study.strength.victim_cosine,
        reached: best.map(|(cosine, _)| cosine),
        attack: best.map(|(_, kind)| kind.to_owned()),
    })
}

fn one(bench: &Bench, outcomes: &[Outcome], name: &str) -> Result<ProtectionSummary, Error> {
    let study = bench.study;
    let pipeline = study.protect.iter().find(|p| p.name == name).expect("the name comes from the study");
    let mut worst: Option<(&str, Arm)> = None;
    for attack in study.attack.iter().filter(|a| !a.config.is_floor()) {
        if let Some(arm) = Arm::find(bench, outcomes, name, &attack.name)
            && arm.rehearsal().targets() > 0
            && worst.as_ref().is_none_or(|(_, worst)| arm.rehearsal().reads_more_than(&worst.rehearsal()))
        {
            worst = Some((&attack.name, arm));
        }
    }
    let arm = worst.as_ref().map(|(_, arm)| arm);
    let leak = arm.map(Arm::leak).transpose()?.flatten();
    let floor = match arm {
        Some(arm) => arm.table(|o| &o.floor, "judge_cosine")?.and_then(|t| t.mean(&arm.design.once())),
        None => None,
    };
    let mean = |metric: &str| arm.map_or(Ok(None), |arm| arm.mean(metric));
    let release = Arm::find(bench, outcomes, name, "release");
    let of_release = |metric: &str| release.as_ref().map_or(Ok(None), |arm| arm.interval(metric));
    let agreement = release.as_ref().map_or(Ok(None), |arm| rows::agreement(&arm.outcomes))?;
    let [value, reliability] = match (&agreement, &release) {
        (Some(agreement), Some(arm)) => {
            let mut rng = seed::stream(study.data.split_seed, name, "summary value agreement");
            rows::worth(agreement, &arm.design, &mut rng).map(|(_, estimate)| estimate)
        }
        _ => [None, None],
    };
    let ranked = |top1: Option<f64>, of: usize| Ranked { top1, of, chance: (of > 0).then(|| 1.0 / of as f64) };
    let blind = Arm::find(bench, outcomes, name, "blind").map(|arm| arm.leak()).transpose()?.flatten();
    Ok(ProtectionSummary {
        name: name.to_owned(),
        pipeline: pipeline.pipeline.to_string(),
        guarantee: super::guarantee(pipeline, bench.victim.info().dim),
        best_attack: worst.as_ref().map(|(kind, _)| (*kind).to_owned()),
        similarity: Similarity {
            judge_raw: mean("judge_cosine")?,
            judge_floor: floor,
            leak: leak.map(|e| e.value),
            low: leak.and_then(|e| e.low),
            high: leak.and_then(|e| e.high),
            n: arm.map_or(0, Arm::n),
        },
        recognised: arm.map(recognised).transpose()?.flatten(),
        victim_cosine: mean("victim_cosine")?,
        identified: ranked(
            release.as_ref().map_or(Ok(None), |arm| arm.mean("identified_top1"))?,
            release.as_ref().map_or(0, Arm::n),
        ),
        matched: ranked(mean("matched_top1")?, arm.map_or(0, Arm::n)),
        blind_leak: blind.map(|e| e.value),
        retention: None,
        utility: Utility {
            spearman: value.map(|e| e.value),
            low: value.and_then(|e| e.low),
            high: value.and_then(|e| e.high),
            reliability: reliability.map(|e| e.value),
            recall_at_10: of_release("recall_at_10")?,
            topic_accuracy: of_release("topic_accuracy")?,
        },
        verdict: String::new(),
    })
}

/// How often the judge still names the object.
fn recognised(arm: &Arm) -> Result<Option<f64>, Error> {
    let tables = (arm.table(|o| &o.test, rows::OBJECT)?, arm.table(|o| &o.test, rows::OBJECT_IN_ORIGINAL)?);
    let (Some(drawn), Some(original)) = tables else { return Ok(None) };
    Ok(rows::recognised(&drawn, &original)(&arm.design.once()))
}

/// The verdict in a word and a reason.
fn verdict(p: &ProtectionSummary, is_baseline: bool, strong: bool) -> String {
    let (Some(leak), Some(low), Some(high)) = (p.similarity.leak, p.similarity.low, p.similarity.high) else {
        return "inconclusive: no attacker was scored for every seed".to_owned();
    };
    let percent = |v: f64| format!("{:.0} %", 100.0 * v);
    let interval = format!("{} [{}, {}] of the meaning comes back", percent(leak), percent(low), percent(high));
    if is_baseline {
        return format!("unprotected: {interval}");
    }
    if !strong {
        return format!(
            "inconclusive: {interval}, but the attackers did not clear their bar on the unprotected release"
        );
    }
    let chance = p.identified.chance.unwrap_or(0.0);
    let linked = p.identified.top1.filter(|top1| *top1 > 3.0 * chance);
    let linked = linked.map_or(String::new(), |top1| {
        format!("; the record is still picked out of {} in {} of cases", p.identified.of, percent(top1))
    });
    if low > CLAIMED_PROTECTED {
        format!("leaks: {interval}{linked}")
    } else if high <= CLAIMED_PROTECTED {
        format!("reduced: {interval}{linked}")
    } else {
        format!("inconclusive: {interval}, an interval that holds {}{linked}", percent(CLAIMED_PROTECTED))
    }
}

/// "Over 80 % unprotected, about 20 % protected": the strongest protection stands for the claim's second half.
fn claim(study: &Study, protections: &[ProtectionSummary], strong: bool) -> Claim {
    let interval = |p: &ProtectionSummary| {
        let s = &p.similarity;
        Some(Interval { value: s.leak?, low: s.low?, high: s.high? })
    };
    let unprotected = study.unprotected().and_then(|i| interval(&protections[i]));
    let protected = study
        .protect
        .iter()
        .zip(protections)
        .filter(|(study, _)| !study.pipeline.is_identity())
        .filter_map(|(_, p)| interval(p).map(|i| (i, p.name.clone())))
        .min_by(|a, b| a.0.value.total_cmp(&b.0.value));
    let holds = match (unprotected, &protected) {
        (Some(u), Some((p, _))) if strong => {
            if u.high < CLAIMED_UNPROTECTED || p.low > CLAIMED_PROTECTED {
                Some(false)
            } else if u.low >= CLAIMED_UNPROTECTED && p.high <= CLAIMED_PROTECTED {
                Some(true)
            } else {
                None
            }
        }
        _ => None,
    };
    let (protected_leak, protection) = protected.map_or((None, None), |(i, name)| (Some(i), Some(name)));
    Claim { unprotected_leak: unprotected, protected_leak, protection, holds }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attacker_of_a_few_hard_targets_is_compared_on_those() {
        let scores = |cosines: &[f64]| {
            let some = |values: &[f64]| values.iter().copied().map(Some).collect::<Vec<_>>();
            Scores::from([
                ("judge_cosine".to_owned(), some(cosines)),
                ("judge_floor".to_owned(), some(&vec![0.0; cosines.len()])),
            ])
        };
        let (all, few) = (scores(&[0.2, 0.2, 0.9, 0.9]), scores(&[0.3, 0.3]));
        let (all, few, none) = (Rehearsal(vec![&all]), Rehearsal(vec![&few]), Rehearsal(Vec::new()));
        assert_eq!((all.targets(), few.targets(), none.targets()), (4, 2, 0));
        assert_eq!((all.leak(4), few.leak(4)), (Some(0.55), Some(0.3)));
        assert!(few.reads_more_than(&all) && !all.reads_more_than(&few));
        assert_eq!(none.leak(4), None);
    }
}
