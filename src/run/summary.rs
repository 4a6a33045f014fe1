//! From outcomes to `summary.json`: worst attackers, verdicts, the claim.

use super::bench::Bench;
use super::cell::Outcome;
use super::record::{Claim, Interval, ProtectionSummary, Ranked, Similarity, Strength, Summary, Utility};
use super::rows;
use super::scores::Scores;
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
    let failed: Vec<Vec<&str>> = study.protect.iter().map(|p| failed(study, outcomes, &p.name)).collect();
    for ((protection, failed), p) in study.protect.iter().zip(&failed).zip(&mut protections) {
        p.retention = p.similarity.leak.zip(baseline).filter(|(_, b)| *b > 0.0).map(|(l, b)| l / b);
        p.verdict = verdict(p, protection.pipeline.is_identity(), strong, failed);
    }
    let claim = claim(study, &protections, &failed, strong);
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

/// Attackers that could have been the worst, had no seed of theirs failed: without them nobody knows which one is.
fn failed<'a>(study: &'a Study, outcomes: &[Outcome], protection: &str) -> Vec<&'a str> {
    let whole = |name: &str| {
        let done = outcomes.iter().filter(|o| o.protection == protection && o.attack == name && o.error.is_none());
        done.count() == study.seeds.len()
    };
    let guess = study.attack.iter().filter(|a| !a.config.is_floor() && !a.config.is_probe());
    guess.map(|a| a.name.as_str()).filter(|name| !whole(name)).collect()
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
fn verdict(p: &ProtectionSummary, is_baseline: bool, strong: bool, failed: &[&str]) -> String {
    if !failed.is_empty() {
        return format!("inconclusive: {} failed", failed.join(", "));
    }
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
///
/// An attacker that failed might have read more, never less: then only a protected leak that is too large decides.
fn claim(study: &Study, protections: &[ProtectionSummary], failed: &[Vec<&str>], strong: bool) -> Claim {
    let interval = |p: &ProtectionSummary| {
        let s = &p.similarity;
        Some(Interval { value: s.leak?, low: s.low?, high: s.high? })
    };
    let figures = |i: usize| interval(&protections[i]).map(|figure| (figure, i));
    let unprotected = study.unprotected().and_then(figures);
    let protected = (0..protections.len())
        .filter(|&i| !study.protect[i].pipeline.is_identity())
        .filter_map(figures)
        .min_by(|a, b| a.0.value.total_cmp(&b.0.value));
    let holds = match (unprotected, protected) {
        (Some((u, bare)), Some((p, best))) if strong => {
            let whole = failed[bare].is_empty();
            if p.low > CLAIMED_PROTECTED || (whole && u.high < CLAIMED_UNPROTECTED) {
                Some(false)
            } else if whole && failed[best].is_empty() && u.low >= CLAIMED_UNPROTECTED && p.high <= CLAIMED_PROTECTED {
                Some(true)
            } else {
                None
            }
        }
        _ => None,
    };
    Claim {
        unprotected_leak: unprotected.map(|(leak, _)| leak),
        protected_leak: protected.map(|(leak, _)| leak),
        protection: protected.map(|(_, i)| protections[i].name.clone()),
        holds,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::record::GuaranteeRecord;

    const STUDY: &str = r#"
schema = 1
name = "tiny"
seeds = [1, 2]
[data]
corpus = "toy"
[encode]
victim = "toy"
judges = ["toy-judge"]
[[protect]]
name = "bare"
pipeline = "identity"
[[protect]]
name = "noisy"
pipeline = "clip(l2=1) | gaussian(sigma=0.1)"
[[attack]]
kind = "blind"
[[attack]]
kind = "nearest"
[[attack]]
kind = "decoder"
[[attack]]
kind = "linkage"
"#;

    fn summed(name: &str, leak: f64) -> ProtectionSummary {
        let (low, high) = (Some(leak - 0.01), Some(leak + 0.01));
        ProtectionSummary {
            name: name.to_owned(),
            pipeline: String::new(),
            guarantee: GuaranteeRecord::default(),
            best_attack: Some("nearest".to_owned()),
            similarity: Similarity { leak: Some(leak), low, high, n: 500, ..Similarity::default() },
            recognised: None,
            victim_cosine: None,
            identified: Ranked::default(),
            matched: Ranked::default(),
            blind_leak: None,
            retention: None,
            utility: Utility::default(),
            verdict: String::new(),
        }
    }

    #[test]
    fn a_failed_attacker_leaves_the_verdict_and_the_claim_open() {
        let study = Study::parse("tiny.toml", STUDY).expect("valid");
        let outcome = |attack: &str, seed: u64, error: Option<&str>| Outcome {
            id: String::new(),
            protection: "noisy".to_owned(),
            attack: attack.to_owned(),
            seed,
            adaptive: true,
            origin: None,
            assumed_sigma: None,
            released: String::new(),
            n: 0,
            test: Scores::new(),
            floor: Scores::new(),
            validation: Scores::new(),
            aggregates: std::collections::BTreeMap::new(),
            inferred: std::collections::BTreeMap::new(),
            knowledge: None,
            cost: super::super::cell::Cost::default(),
            curves: Vec::new(),
            guarantee: summed("noisy", 0.1).guarantee,
            error: error.map(str::to_owned),
        };
        // Floors and probes are no candidates: the blind attacker and the linkage are not there at all.
        let mut outcomes = Vec::new();
        for seed in [1, 2] {
            outcomes.push(outcome("nearest", seed, None));
            outcomes.push(outcome("decoder", seed, (seed == 2).then_some("out of memory")));
        }
        assert_eq!(failed(&study, &outcomes, "noisy"), ["decoder"]);
        outcomes.pop();
        assert_eq!(failed(&study, &outcomes, "noisy"), ["decoder"], "a seed is missing");
        outcomes.push(outcome("decoder", 2, None));
        assert_eq!(failed(&study, &outcomes, "noisy"), [""; 0]);

        let noisy = summed("noisy", 0.1);
        assert!(verdict(&noisy, false, true, &[]).starts_with("reduced: 10 %"));
        assert_eq!(verdict(&noisy, false, true, &["decoder"]), "inconclusive: decoder failed");
        let holds = |leaks: [f64; 2], failed: [&[&str]; 2]| {
            let protections = [summed("bare", leaks[0]), summed("noisy", leaks[1])];
            claim(&study, &protections, &failed.map(<[&str]>::to_vec), true).holds
        };
        assert_eq!(holds([0.9, 0.1], [&[], &[]]), Some(true));
        for failed in [[&["decoder"][..], &[]], [&[], &["decoder"]]] {
            assert_eq!(holds([0.9, 0.1], failed), None);
            assert_eq!(holds([0.9, 0.5], failed), Some(false), "it can only leak more");
        }
        assert_eq!(holds([0.5, 0.1], [&["decoder"], &[]]), None, "the failed one may have read more");
    }

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
