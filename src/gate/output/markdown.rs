//! A job summary in Markdown.

use super::text::{conclusion, word};
use super::{Verdict, plain};
use crate::gate::verdict::Answer;
use std::fmt::Write as _;

/// A longer summary fails to upload without failing its step.
pub const SUMMARY_CAP: usize = 1 << 20;

/// The verdict as Markdown, cut below [`SUMMARY_CAP`].
pub fn markdown(verdict: &Verdict) -> String {
    let number = |v: Option<f64>| v.map_or("–".to_owned(), |v| format!("{v:.3}"));
    let mut out = format!("## stitchback gate\n\n**{}**\n\n", cell(&conclusion(verdict)));
    out += "| verdict | check | corpus | protection | attack | metric | value | bounds | limit | n | seeds |\n";
    out += "|---|---|---|---|---|---|---|---|---|---|---|\n";
    let mut cut = 0;
    for f in &verdict.findings {
        let line = format!(
            "| {} | {} {} | {} | {} | {} | {} | {} | [{}, {}] | {} | {} | {} |\n",
            word(f),
            cell(&f.check),
            crate::gate::policy::name_of(f.question),
            cell(&f.corpus),
            cell(&f.protection),
            cell(&f.attack),
            cell(&f.metric),
            number(f.value),
            number(f.low),
            number(f.high),
            f.threshold,
            f.n,
            f.seeds
        );
        if out.len() + line.len() > SUMMARY_CAP / 2 {
            cut += 1;
        } else {
            out += &line;
        }
    }
    if cut > 0 {
        let _ = writeln!(out, "\n{cut} further findings are left out here.");
    }
    let mut notes = String::new();
    for f in verdict.findings.iter().filter(|f| f.verdict != Answer::Pass) {
        let waiver = f.waiver.as_ref().filter(|w| !w.expired);
        let waiver = waiver.map_or(String::new(), |w| format!(" *(waived until {}: {})*", w.until, cell(&w.reason)));
        let _ = writeln!(notes, "- **{}** {}: {}{waiver}", word(f), cell(&f.check), cell(&f.message));
        if notes.len() > SUMMARY_CAP / 4 {
            notes += "- …\n";
            break;
        }
    }
    for warning in verdict.warnings.iter().take(100) {
        let _ = writeln!(notes, "- warning: {}", cell(warning));
    }
    if !notes.is_empty() {
        let _ = write!(out, "\n{notes}");
    }
    let _ = writeln!(out, "\nPolicy `{}`, waivers judged on {}.", cell(&verdict.policy), verdict.today);
    out
}

/// Text that stays inside its cell and starts nothing.
fn cell(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in plain(text).chars() {
        match c {
            '|' | '*' | '_' | '`' | '[' | ']' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '&' => out += "&amp;",
            c => out.push(c),
        }
    }
    out
}
