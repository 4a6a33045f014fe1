//! Membership: was this record released at all, told apart from records of the same topic.

use super::linkage::{Linker, RATES, found};
use super::{Field, Findings, Inference, Probe};
use crate::attack::{Error, Knowledge, Progress, View};
use crate::measure::infer;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Decides whether a record stands behind a released row.
///
/// # Formula
/// The matched filter of [`super::linkage`]: "`y` was made from `x`" against "`y` was made from another record", with `k`
/// members behind a row. Strangers are auxiliary records of the row's own topic: against strangers of other topics the
/// filter reads the topic, which differential privacy does not hide (group leakage, not record leakage).
///
/// # Range
/// True positive rate at 1 % and .1 % false alarms, and the share of (member, stranger) pairs in which the member scores
/// higher; 0 to 1, higher = worse privacy. The guarantee allows `Phi(Phi^-1(fpr) + mu)` and, between two records,
/// `Phi(mu / 2)`. Members of one prototype share its noise: the check against the guarantee counts prototypes, not members.
///
/// # Source
/// Dwork et al. 2015 (matched filter on noisy means); Dong, Roth and Su 2022 (Gaussian differential privacy).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Membership {}

impl Probe for Membership {
    fn needs(&self) -> Knowledge {
        Knowledge { auxiliary: true, pipeline: true, encoder: true, released: true, leaked_pairs: 0 }
    }

    fn run(&self, view: &View, field: &Field, _: &dyn Progress) -> Result<Findings, Error> {
        // 1. Fitted on the attacker's own records.
        let linker = Linker::fit(view)?;

        // 2. Answers: one score for each member and its row, one for each stranger of the same topic and that row.
        let n = field.records.len();
        let stored = linker.presence.table(field.clean, field.released);
        let strangers = linker.presence.table(&view.clean.select(&linker.decoys), field.released);
        let own: Vec<f32> = (0..n).map(|i| stored[i * n + i]).collect();
        let same_topic = |i: usize| {
            let of_topic = move |(_, decoy): &(usize, &usize)| view.strata[**decoy] == field.strata[i];
            let strangers = &strangers;
            linker.decoys.iter().enumerate().filter(of_topic).map(move |(at, _)| strangers[at * n + i])
        };

        // 3. Scores.
        let rows: BTreeSet<Vec<u32>> = field.released.rows().map(|r| r.iter().map(|v| v.to_bits()).collect()).collect();
        let mu = field.pipeline.claim().after(field.releases as u32).mu();
        let mut findings = Findings::default();
        let mut negatives: Vec<f32> = (0..n).flat_map(same_topic).collect();
        if negatives.is_empty() {
            return Ok(findings);
        }
        for (rate, name) in RATES {
            let hits = found(&own, &mut negatives, rate);
            let tpr = super::mean(&hits).unwrap_or(0.0);
            let question = format!(
                "Was this record released? Found at {} % false alarms, strangers of its topic",
                name.replace('_', ".")
            );
            let meaning = Inference {
                allowed: mu.map(|mu| infer::most_found(rate, mu)),
                exceeds_claim: mu.is_some_and(|mu| {
                    infer::exceeds_claim(tpr, rows.len() as f64, rate, linker.decoys.len() as f64, mu)
                }),
                ..Inference::share(question, rate)
            };
            findings.per_target(format!("membership_tpr_at_{name}_percent"), hits, meaning);
        }
        let wins = (0..n)
            .map(|i| {
                let (mut sum, mut count) = (0.0, 0);
                for stranger in same_topic(i) {
                    sum += if own[i] > stranger { 1.0 } else { 0.5 * f64::from(u8::from(own[i] == stranger)) };
                    count += 1;
                }
                (count > 0).then(|| sum / f64::from(count))
            })
            .collect();
        let meaning = Inference {
            allowed: mu.map(infer::most_told_apart),
            ..Inference::share("Which of two records of one topic was released?".to_owned(), 0.5)
        };
        findings.per_target("membership_two_way".to_owned(), wins, meaning);
        Ok(findings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::probe::bench;

    #[test]
    fn without_protection_every_member_is_found() {
        let bare = bench::run(&Membership {}, "clip(l2=1) | gaussian(sigma=0.001)");
        assert!(bench::value(&bare, "membership_tpr_at_1_percent") > 0.95);
        assert!(bench::value(&bare, "membership_two_way") > 0.99);
    }

    #[test]
    fn a_correct_mechanism_stays_below_its_curve() {
        for pipeline in [
            "clip(l2=1) | prototype(members=8) | gaussian(epsilon=1, delta=1e-5)",
            "clip(l2=1) | gaussian(epsilon=8, delta=1e-5)",
        ] {
            let noisy = bench::run(&Membership {}, pipeline);
            for (id, meaning) in &noisy.meaning {
                assert!(!meaning.exceeds_claim, "{pipeline}: {id}");
                let (value, allowed) = (bench::value(&noisy, id), meaning.allowed.expect("a guarantee"));
                assert!(value <= allowed + 0.08, "{pipeline}: {id} {value} above {allowed}");
            }
        }
    }

    /// Epsilon 8 at delta 1e-5 takes a sigma of 1.2; a release with a quarter of it is caught.
    #[test]
    fn a_quarter_of_the_claimed_noise_is_noticed() {
        let claimed = "clip(l2=1) | gaussian(epsilon=8, delta=1e-5)";
        let planted = bench::run_claiming(&Membership {}, "clip(l2=1) | gaussian(sigma=0.3)", claimed);
        assert!(planted.meaning["membership_tpr_at_1_percent"].exceeds_claim, "{:?}", planted.meaning);
    }
}
