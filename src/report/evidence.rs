//! Evidence for a control of a verification standard: OWASP AISVS 1.0, C8.4.1.

use super::verdict::{MISSING, interval, maybe_interval, visible};
use super::{Run, parse, read};
use crate::gate::{Answer, Verdict};
use crate::run::evidence::Evidence;
use std::path::Path;

/// One requirement of the control and what this run has to show for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Exhibit {
    /// What the control asks for.
    pub(super) asked: &'static str,
    /// What there is, a line each.
    pub(super) found: Vec<String>,
    /// Whether anything is there.
    pub(super) shown: bool,
}

/// What stands beside the records for an auditor.
#[derive(Debug, Clone, Default)]
pub(super) struct Files {
    verdict: Option<Verdict>,
    evidence: Option<Evidence>,
}

impl Files {
    /// Reads `verdict.json` and `evidence.json` where they are.
    pub(super) fn read(dir: &Path) -> Result<Self, super::Error> {
        fn of<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>, super::Error> {
            read(path)?.map(|text| parse(&text, path, None)).transpose()
        }
        Ok(Self { verdict: of(&dir.join("verdict.json"))?, evidence: of(&dir.join("evidence.json"))? })
    }
}

/// The control in parts: targets defined, targets measured, changes gated by regression tests.
pub(super) fn exhibits(run: &Run) -> Vec<Exhibit> {
    let verdict = run.files.verdict.as_ref();
    vec![defined(verdict), measured(run), gated(verdict), pinned(run)]
}

fn defined(verdict: Option<&Verdict>) -> Exhibit {
    let mut found = Vec::new();
    if let Some(v) = verdict {
        found.push(format!("policy {}, BLAKE3 {}", visible(&v.policy, 200), &v.policy_hash));
        let mut seen: Vec<(&str, f64)> = Vec::new();
        for f in &v.findings {
            if !seen.contains(&(f.check.as_str(), f.threshold)) {
                seen.push((&f.check, f.threshold));
                let rule = crate::gate::Question::ALL.iter().find(|(q, ..)| *q == f.question).map_or("", |(_, _, r)| r);
                found.push(format!("{} ({}, limit {}): {rule}", visible(&f.check, 80), f.rule, f.threshold));
            }
        }
    }
    let shown = !found.is_empty();
    if !shown {
        found.push(
            "no policy was judged: run `stitchback gate RUN_DIR --policy FILE -o RUN_DIR/verdict.json`".to_owned(),
        );
    }
    Exhibit { asked: "Privacy and utility targets for resistance to leakage are defined", found, shown }
}

fn measured(run: &Run) -> Exhibit {
    let of = |p: &crate::run::record::ProtectionSummary| {
        format!(
            "{}: leak {} under {} (n = {}), topic accuracy {}",
            p.name,
            maybe_interval(p.similarity.leak, p.similarity.low.zip(p.similarity.high)),
            p.best_attack.as_deref().unwrap_or(MISSING),
            p.similarity.n,
            interval(p.utility.topic_accuracy)
        )
    };
    let found: Vec<String> = run.summary.protections.iter().map(of).collect();
    Exhibit {
        asked: "They are measured",
        shown: run.summary.protections.iter().any(|p| p.similarity.leak.is_some()),
        found,
    }
}

fn gated(verdict: Option<&Verdict>) -> Exhibit {
    let asked = "Changes are gated by regression tests against them";
    let Some(v) = verdict else {
        return Exhibit { asked, found: vec!["no verdict lies in the run folder".to_owned()], shown: false };
    };
    let word = |a: Answer| match a {
        Answer::Pass => "pass",
        Answer::Fail => "fail",
        Answer::Inconclusive => "inconclusive",
    };
    let count = |a: Answer| v.findings.iter().filter(|f| f.verdict == a).count();
    let mut found = vec![format!(
        "verdict of {}: {}, exit code {} ({} passed, {} failed, {} inconclusive)",
        v.today,
        word(v.verdict),
        v.exit,
        count(Answer::Pass),
        count(Answer::Fail),
        count(Answer::Inconclusive)
    )];
    let baseline = v.findings.iter().any(|f| f.question == crate::gate::Question::MaxRegression);
    found.push(if baseline {
        "compared with a baseline, target by target".to_owned()
    } else {
        "no check compares with a baseline (`max_regression`): limits are absolute".to_owned()
    });
    for f in v.findings.iter().filter(|f| f.verdict != Answer::Pass) {
        let waived = f.waiver.as_ref().map_or(String::new(), |w| {
            format!(" (waived until {}{})", w.until, if w.expired { ", expired" } else { "" })
        });
        found.push(format!("{}: {}{waived}", word(f.verdict), visible(&f.message, 400)));
    }
    found.extend(v.warnings.iter().map(|w| format!("warning: {}", visible(w, 400))));
    Exhibit { asked, found, shown: true }
}

fn pinned(run: &Run) -> Exhibit {
    let asked = "A change of embedding model, tokenizer, retrieval setting or privacy transform is seen";
    let Some(e) = &run.files.evidence else {
        return Exhibit { asked, found: vec!["the run folder has no `evidence.json`".to_owned()], shown: false };
    };
    let mut found = vec![
        format!("embedding model with its tokenizer: {}", e.victim),
        format!("records and split: {}", e.data),
        format!("judges: {}", e.judges.join(", ")),
    ];
    found.extend(e.protections.iter().map(|(name, pipeline)| format!("privacy transform {name}: {pipeline}")));
    found.push("a baseline made under other hashes is refused, and the verdict is then inconclusive".to_owned());
    Exhibit { asked, found, shown: true }
}
