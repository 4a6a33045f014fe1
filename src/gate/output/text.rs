//! The verdict for people: a table, then what does not pass in sentences.

use super::plain;
use crate::gate::verdict::{Answer, Finding, Level, Verdict};
use comfy_table::{Table, presets};
use std::fmt::Write as _;

/// The verdict as text for a terminal or a log.
pub fn text(verdict: &Verdict) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    table.set_header(["verdict", "check", "where", "value", "bounds", "limit", "n", "seeds"]);
    let number = |v: Option<f64>| v.map_or("–".to_owned(), |v| format!("{v:.3}"));
    for f in &verdict.findings {
        table.add_row([
            word(f).to_owned(),
            format!("{} {}", f.check, crate::gate::policy::name_of(f.question)),
            plain(&f.place()),
            number(f.value),
            format!("[{}, {}]", number(f.low), number(f.high)),
            format!("{}", f.threshold),
            f.n.to_string(),
            f.seeds.to_string(),
        ]);
    }
    let mut out = format!("{table}\n");
    for f in verdict.findings.iter().filter(|f| f.verdict != Answer::Pass) {
        let waiver = f.waiver.as_ref().filter(|w| !w.expired);
        let waiver = waiver.map_or(String::new(), |w| format!(" (waived until {}: {})", w.until, plain(&w.reason)));
        let _ = writeln!(out, "{} {}: {}{waiver}", word(f), f.check, plain(&f.message));
    }
    for warning in &verdict.warnings {
        let _ = writeln!(out, "warning: {}", plain(warning));
    }
    let _ = write!(out, "{}", conclusion(verdict));
    out
}

/// The last line.
pub(super) fn conclusion(verdict: &Verdict) -> String {
    let [pass, fail, inconclusive, waived] = verdict.counts();
    let head = match verdict.verdict {
        Answer::Pass => "PASS",
        Answer::Fail => "FAIL",
        Answer::Inconclusive => "INCONCLUSIVE",
    };
    format!(
        "{head}: {pass} passed, {fail} failed, {inconclusive} inconclusive, {waived} waived (exit {})",
        verdict.exit
    )
}

/// A finding in a word.
pub(super) fn word(finding: &Finding) -> &'static str {
    match (finding.is_waived(), finding.verdict, finding.level) {
        (true, ..) => "waived",
        (_, Answer::Pass, _) => "pass",
        (_, Answer::Fail, Level::Warn) => "warn: fail",
        (_, Answer::Fail, _) => "FAIL",
        (_, Answer::Inconclusive, Level::Warn) => "warn: inconclusive",
        (_, Answer::Inconclusive, _) => "inconclusive",
    }
}
