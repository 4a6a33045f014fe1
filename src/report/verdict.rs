//! The verdict in a sentence, and how numbers are worded everywhere in the report.

use crate::run::record::{GuaranteeRecord, Interval, ProtectionSummary, Ranked, Summary};

/// What stands where there is no value. Missing is never 0.
pub(super) const MISSING: &str = "–";
const NBSP: char = '\u{a0}';

/// The unprotected release: the element whose verdict or name says so, or whose pipeline does nothing.
pub(super) fn unprotected(summary: &Summary) -> Option<&ProtectionSummary> {
    let find = |test: fn(&ProtectionSummary) -> bool| summary.protections.iter().find(|p| test(p));
    find(|p| p.verdict.split(':').next() == Some("unprotected"))
        .or_else(|| find(|p| p.pipeline == "identity"))
        .or_else(|| find(|p| p.name == "unprotected"))
}

/// The protection that the claim names.
fn protected(summary: &Summary) -> Option<&ProtectionSummary> {
    summary.protections.iter().find(|p| Some(&p.name) == summary.claim.protection.as_ref())
}

/// The whole verdict in one sentence: what comes back unprotected, what remains protected, and whether that may be quoted.
pub(super) fn sentence(summary: &Summary) -> String {
    let claim = &summary.claim;
    let bare = unprotected(summary);
    let before = match &claim.unprotected_leak {
        Some(leak) => {
            let attack = bare.and_then(|p| p.best_attack.as_deref()).map(|a| format!(" ({a})")).unwrap_or_default();
            let n = bare.map(|p| format!(" (n = {})", p.similarity.n)).unwrap_or_default();
            let (value, ends) = (share(leak.value), bracket(leak.value, leak.low, leak.high));
            format!("Unprotected, the best attacker{attack} reads back {value} of the meaning above chance {ends}{n}")
        }
        None => "The leak of the unprotected release was not measured".to_owned(),
    };
    let after = match &claim.protected_leak {
        Some(leak) => {
            let name = claim.protection.as_deref().unwrap_or("the best protection");
            let (value, ends) = (share(leak.value), bracket(leak.value, leak.low, leak.high));
            let useful = protected(summary).and_then(|p| at_utility(p, bare)).unwrap_or_default();
            format!("; with “{name}”, {value} {ends} remains{useful}")
        }
        None if claim.unprotected_leak.is_none() => ", nor that of any protection".to_owned(),
        None => "; no protection was measured beside it".to_owned(),
    };
    let strength = &summary.strength;
    let reached = strength.reached.map_or_else(|| "not measured".to_owned(), cosine);
    let reached = format!("(victim cosine {reached}, bar {})", cosine(strength.bar));
    let so = match (claim.unprotected_leak, claim.protected_leak, summary.attacker_strong_enough) {
        (None, _, _) => "no protection can be called safe".to_owned(),
        (_, None, true) => format!("the attackers are strong enough to judge one {reached}"),
        (_, _, true) => format!("the attackers are strong enough for this to count {reached}"),
        (_, _, false) => format!("the attackers are not strong enough {reached}, so no protection can be called safe"),
    };
    format!("{before}{after}: {so}.")
}

/// Utility of a protection beside that of the unprotected release, as a clause.
fn at_utility(p: &ProtectionSummary, bare: Option<&ProtectionSummary>) -> Option<String> {
    type Read = fn(&ProtectionSummary) -> Option<f64>;
    let kinds: [(&str, Read); 3] = [
        ("a topic accuracy of", |p| p.utility.topic_accuracy.map(|i| i.value)),
        ("a recall at 10 of", |p| p.utility.recall_at_10.map(|i| i.value)),
        ("a value correlation of", |p| p.utility.spearman),
    ];
    kinds.iter().find_map(|(words, read)| {
        let value = read(p)?;
        let before = bare.and_then(read).map(|v| format!(" instead of {}", share(v))).unwrap_or_default();
        Some(format!(", at {words} {}{before}", share(value)))
    })
}

/// Whether the published claim holds, in words.
pub(super) fn claim(summary: &Summary) -> String {
    let what =
        "the published claim, over 80 % read back unprotected and about 20 % protected, taken as leak above chance,";
    let is = match summary.claim.holds {
        Some(true) => "holds in this run",
        Some(false) => "does not hold in this run",
        None => "is undecided by this run",
    };
    format!("{what} {is}").replace(" %", "\u{a0}%")
}

/// The trap beside a low leak: the released vector may still point at its own record.
pub(super) fn identification(summary: &Summary) -> Option<String> {
    let p = protected(summary)?;
    let (top1, chance) = (p.identified.top1?, p.identified.chance?);
    Some(format!(
        "with “{}”, the released vector picks its own record out of {} candidates {} of the time (chance {})",
        p.name,
        p.identified.of,
        share(top1),
        share(chance)
    ))
}

/// `61 %`; one decimal below ten, two below a twentieth of a percent.
pub(super) fn share(value: f64) -> String {
    format!("{}{NBSP}%", percentage(value, decimals(value)))
}

/// `[58, 64]` in percent, with as many decimals as the value in front of it.
pub(super) fn bracket(value: f64, low: f64, high: f64) -> String {
    let d = decimals(value);
    format!("[{},{NBSP}{}]", percentage(low, d), percentage(high, d))
}

/// Enough decimals to tell values apart, and no false precision.
fn decimals(value: f64) -> usize {
    match value.abs() {
        // 99.9 % is not 100 %.
        v if v < 1.0 && v > 0.995 => 1,
        0.0 | 0.0995.. => 0,
        0.0005.. => 1,
        _ => 2,
    }
}

fn percentage(value: f64, decimals: usize) -> String {
    minus(&format!("{:.decimals$}", value * 100.0))
}

/// A typographic minus, and no minus zero.
fn minus(text: &str) -> String {
    let zero = text.chars().all(|c| matches!(c, '-' | '0' | '.'));
    text.replace('-', if zero { "" } else { "\u{2212}" })
}

/// `0.78`.
pub(super) fn cosine(value: f64) -> String {
    minus(&format!("{value:.2}"))
}

/// A value in its own unit, `–` when missing.
pub(super) fn in_unit(value: Option<f64>, unit: &str) -> String {
    let Some(v) = value.filter(|v| v.is_finite()) else { return MISSING.to_owned() };
    match unit {
        "share" => share(v),
        "points" => minus(&format!("{v:.1}")),
        _ => minus(&format!("{v:.3}")),
    }
}

/// A share, `–` when missing.
pub(super) fn maybe_share(value: Option<f64>) -> String {
    in_unit(value, "share")
}

/// `61 % [58, 64]`, `–` when missing.
pub(super) fn maybe_interval(value: Option<f64>, ends: Option<(f64, f64)>) -> String {
    match (value, ends) {
        (Some(v), Some((a, b))) => format!("{} {}", share(v), bracket(v, a, b)),
        (v, _) => maybe_share(v),
    }
}

/// The same for a recorded interval.
pub(super) fn interval(value: Option<Interval>) -> String {
    maybe_interval(value.map(|i| i.value), value.map(|i| (i.low, i.high)))
}

/// `62 % (chance 0.1 %)`.
pub(super) fn ranked(r: &Ranked) -> String {
    match r.top1 {
        Some(top1) => {
            let chance = r.chance.map(|c| format!(" (chance {})", share(c))).unwrap_or_default();
            share(top1) + &chance
        }
        None => MISSING.to_owned(),
    }
}

/// A protection's claim in words.
pub(super) fn guarantee(g: &GuaranteeRecord) -> String {
    let mut parts = Vec::new();
    let releases = if g.releases == 1 { "one release".to_owned() } else { format!("{} releases together", g.releases) };
    match (g.epsilon, g.delta) {
        (Some(e), Some(d)) => {
            let weak = if e > 10.0 { ", an ε so large that it promises little" } else { "" };
            parts.push(format!("({}, {d:e})-differential privacy for {releases}{weak}", short(e)));
        }
        (Some(e), None) => parts.push(format!("ε = {} for {releases}", short(e))),
        _ => parts.push("no formal guarantee".to_owned()),
    }
    if let Some(mu) = g.mu {
        parts.push(format!("μ = {}", short(mu)));
    }
    if let Some(sigma) = g.sigma.filter(|s| *s > 0.0) {
        parts.push(format!("σ = {} per coordinate", short(sigma)));
    }
    if g.epsilon.is_some() && !g.adjacency.is_empty() {
        parts.push(format!("adjacency {}", g.adjacency));
    }
    if !g.unit_of_privacy.is_empty() {
        parts.push(format!("unit of privacy: {}", g.unit_of_privacy));
    }
    if !g.note.is_empty() {
        parts.push(g.note.clone());
    }
    parts.join("; ")
}

/// A parameter with three significant figures and no trailing zeros.
pub(super) fn short(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return format!("{value}");
    }
    let decimals = (2 - value.abs().log10().floor() as i32).clamp(0, 9) as usize;
    let text = format!("{value:.decimals$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    minus(text)
}

/// Replaces characters that a terminal or a browser would obey instead of show: controls, bidirectional overrides, zero widths.
pub(super) fn visible(text: &str, most: usize) -> String {
    let mut shown: String = text
        .chars()
        .take(most)
        .map(|c| match c {
            '\n' | '\t' | '\r' => ' ',
            '\u{0}'..='\u{1f}'
            | '\u{7f}'..='\u{9f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}' => '\u{fffd}',
            c => c,
        })
        .collect();
    if text.chars().nth(most).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;

    fn readable(summary: &Summary) -> String {
        sentence(summary).replace(NBSP, " ")
    }

    #[test]
    fn strong_attackers_make_the_numbers_count() {
        insta::assert_snapshot!(readable(&fixture::summary()), @"Unprotected, the best attacker (decoder) reads back 61 % of the meaning above chance [58, 65] (n = 500); with “gaussian-0.25”, 9.1 % [5.7, 12.5] remains, at a topic accuracy of 71 % instead of 92 %: the attackers are strong enough for this to count (victim cosine 0.81, bar 0.70).");
    }

    #[test]
    fn weak_attackers_make_every_protection_unsafe() {
        let mut summary = fixture::summary();
        summary.attacker_strong_enough = false;
        summary.strength.reached = Some(0.55);
        insta::assert_snapshot!(readable(&summary), @"Unprotected, the best attacker (decoder) reads back 61 % of the meaning above chance [58, 65] (n = 500); with “gaussian-0.25”, 9.1 % [5.7, 12.5] remains, at a topic accuracy of 71 % instead of 92 %: the attackers are not strong enough (victim cosine 0.55, bar 0.70), so no protection can be called safe.");
    }

    #[test]
    fn an_unmeasured_unprotected_release_gives_no_verdict() {
        let mut summary = fixture::summary();
        summary.claim.unprotected_leak = None;
        insta::assert_snapshot!(readable(&summary), @"The leak of the unprotected release was not measured; with “gaussian-0.25”, 9.1 % [5.7, 12.5] remains, at a topic accuracy of 71 % instead of 92 %: no protection can be called safe.");
    }

    #[test]
    fn an_unprotected_release_alone_says_what_is_missing() {
        let mut summary = fixture::summary();
        summary.protections.truncate(1);
        summary.claim.protected_leak = None;
        summary.claim.protection = None;
        insta::assert_snapshot!(readable(&summary), @"Unprotected, the best attacker (decoder) reads back 61 % of the meaning above chance [58, 65] (n = 500); no protection was measured beside it: the attackers are strong enough to judge one (victim cosine 0.81, bar 0.70).");
    }

    #[test]
    fn nothing_measured_is_said_without_a_number() {
        let mut summary = fixture::summary();
        summary.claim.unprotected_leak = None;
        summary.claim.protected_leak = None;
        summary.claim.protection = None;
        summary.protections.clear();
        insta::assert_snapshot!(readable(&summary), @"The leak of the unprotected release was not measured, nor that of any protection: no protection can be called safe.");
    }

    #[test]
    fn a_low_leak_does_not_hide_that_the_vector_identifies_its_text() {
        let text = identification(&fixture::summary()).expect("the fixture has the number");
        insta::assert_snapshot!(text.replace(NBSP, " "), @"with “gaussian-0.25”, the released vector picks its own record out of 1000 candidates 62 % of the time (chance 0.1 %)");
    }

    #[test]
    fn numbers_keep_their_sign_and_no_false_precision() {
        let all = [0.6149, 0.0512, 0.0012, 0.0001, 0.0, -0.031, -0.0].map(|v| share(v).replace(NBSP, " "));
        assert_eq!(all, ["61 %", "5.1 %", "0.1 %", "0.01 %", "0 %", "\u{2212}3.1 %", "0 %"]);
        assert_eq!(bracket(0.091, 0.057, 0.125).replace(NBSP, " "), "[5.7, 12.5]");
        assert_eq!([9.69, 0.25, 1234.0, 1e-5].map(short), ["9.69", "0.25", "1234", "0.00001"]);
        assert_eq!(in_unit(None, "share"), MISSING);
        assert_eq!(in_unit(Some(f64::NAN), "cosine"), MISSING);
    }

    #[test]
    fn a_promise_says_how_many_releases_it_covers() {
        let summary = fixture::summary();
        let one = summary.protections.iter().map(|p| &p.guarantee).find(|g| g.epsilon.is_some()).expect("a promise");
        assert!(guarantee(one).contains("differential privacy for one release"), "{}", guarantee(one));
        let four = GuaranteeRecord { releases: 4, ..one.clone() };
        assert!(guarantee(&four).contains("differential privacy for 4 releases together"), "{}", guarantee(&four));
    }

    #[test]
    fn hidden_characters_become_visible_and_long_texts_end() {
        assert_eq!(visible("a\u{1b}[31m\u{202e}b\nc", 100), "a\u{fffd}[31m\u{fffd}b c");
        assert_eq!(visible("abcdef", 3), "abc…");
    }
}
