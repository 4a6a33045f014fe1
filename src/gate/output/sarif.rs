//! SARIF 2.1.0: one run, a result for each finding, at the line of its check in the policy.

use super::{Error, Verdict, plain};
use crate::gate::verdict::{Answer, Finding, Level, Question};
use serde_sarif::sarif::{self, ResultKind, ResultLevel};
use std::collections::BTreeMap;

/// Code scanning keeps this many results of a run; ours come worst first.
const MOST_RESULTS: usize = 5000;

/// The verdict as SARIF.
///
/// # Errors
/// When the writer refuses.
pub fn sarif(verdict: &Verdict) -> Result<String, Error> {
    let rules = Question::ALL.map(|(_, id, text)| {
        sarif::ReportingDescriptor::builder()
            .id(id)
            .short_description(sarif::MultiformatMessageString::builder().text(text).build())
            .build()
    });
    let driver = sarif::ToolComponent::builder()
        .name("stitchback")
        .version(env!("CARGO_PKG_VERSION"))
        .rules(rules.to_vec())
        .build();
    let results: Vec<sarif::Result> = verdict.findings.iter().take(MOST_RESULTS).map(|f| result(verdict, f)).collect();
    let invocation = sarif::Invocation::builder().execution_successful(true).exit_code(i64::from(verdict.exit)).build();
    let run = sarif::Run::builder()
        .tool(sarif::Tool::builder().driver(driver).build())
        .results(results)
        .invocations(vec![invocation])
        .column_kind(serde_json::json!("utf16CodeUnits"))
        .build();
    let log = sarif::Sarif::builder()
        .schema("https://json.schemastore.org/sarif-2.1.0.json")
        .version(serde_json::json!("2.1.0"))
        .runs(vec![run])
        .build();
    let text = serde_json::to_string_pretty(&log);
    text.map(|t| t + "\n").map_err(|e| Error::Serialize { format: "SARIF", why: e.to_string() })
}

fn result(verdict: &Verdict, finding: &Finding) -> sarif::Result {
    // By the standard a level belongs to failures only; what is undecided is `open`.
    let (kind, level) = match (finding.verdict, finding.level) {
        (Answer::Pass, _) => (ResultKind::Pass, ResultLevel::None),
        (Answer::Fail, Level::Error) => (ResultKind::Fail, ResultLevel::Error),
        (Answer::Fail, _) => (ResultKind::Fail, ResultLevel::Warning),
        (Answer::Inconclusive, _) => (ResultKind::Open, ResultLevel::None),
    };
    let region = sarif::Region::builder().start_line(finding.line as i64).build();
    let place = sarif::PhysicalLocation::builder()
        .artifact_location(sarif::ArtifactLocation::builder().uri(uri(&verdict.policy)).build())
        .region(region)
        .build();
    let rule = Question::ALL.iter().position(|(q, ..)| *q == finding.question).unwrap_or_default();
    let waiver = finding.waiver.as_ref().filter(|w| !w.expired && finding.verdict != Answer::Pass);
    let suppressions: Vec<sarif::Suppression> = waiver
        .map(|w| {
            let why = format!("{} (approved by {}, until {})", w.reason, w.approved_by, w.until);
            sarif::Suppression::builder()
                .kind(serde_json::json!("external"))
                .status(serde_json::json!("accepted"))
                .justification(plain(&why))
                .build()
        })
        .into_iter()
        .collect();
    sarif::Result::builder()
        .rule_id(finding.rule.clone())
        .rule_index(rule as i64)
        .kind(kind)
        .level(level)
        .message(sarif::Message::builder().text(plain(&finding.message)).build())
        .locations(vec![sarif::Location::builder().physical_location(place).build()])
        .partial_fingerprints(BTreeMap::from([("stitchbackFinding/v1".to_owned(), finding.fingerprint())]))
        .suppressions(suppressions)
        .build()
}

/// A path as a relative reference: everything that is no plain path character is escaped.
fn uri(path: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~/".contains(&b);
    path.trim_start_matches("./")
        .bytes()
        .map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}
