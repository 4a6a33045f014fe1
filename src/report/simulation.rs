//! Drawings of a simulation of access rules.

use super::chart::{self, Look, Plane, Series};
use crate::contribute::simulate::compare::FIGURES;
use crate::contribute::simulate::{Comparison, Policy};

/// Files to write: name and SVG text. Who waits by contribution, and figures over the correlation of wealth and contribution.
pub fn drawings(result: &Comparison) -> Vec<(String, String)> {
    let mut correlations: Vec<f64> = result.rows.iter().map(|r| r.correlation).collect();
    correlations.dedup();
    let note = format!("{} replications, {} jobs each", result.replications, result.jobs);
    let mut out = Vec::new();
    for &correlation in &correlations {
        let rows = result.rows.iter().filter(|r| r.correlation == correlation);
        let lines: Vec<Series> = rows
            .map(|row| {
                let points = row.waits_by_decile.iter().enumerate().map(|(d, w)| (d as f64 + 1.0, *w, None)).collect();
                series(row.policy, points)
            })
            .collect();
        let plane = plane("contribution decile", "mean wait (mean services)", &note, false);
        let alt = format!("Mean wait by contribution decile, wealth and contribution correlated at {correlation}");
        let name = format!("waits-by-decile-{correlation}.svg").replace("--", "-minus-");
        out.push((name, chart::lines(&lines, &plane).standalone(&alt)));
    }
    for (figure, label) in [
        ("starved", "share of jobs starved"),
        ("starved_poorest_half", "share of the poorer half's jobs starved"),
        ("wait_p99", "99th percentile of waits (mean services)"),
        ("wasted", "share of capacity idle while somebody waits"),
        ("value_service_spearman", "rank correlation of contribution and short waits"),
    ] {
        let at = FIGURES.iter().position(|f| *f == figure).expect("a figure of every row");
        let lines: Vec<Series> = Policy::ALL
            .into_iter()
            .map(|policy| {
                let rows = result.rows.iter().filter(|r| r.policy == policy);
                series(policy, rows.map(|r| (r.correlation, r.figures[at].value, None)).collect())
            })
            .collect();
        let plane = plane("correlation of wealth and contribution", label, &note, false);
        out.push((format!("{}.svg", figure.replace('_', "-")), chart::lines(&lines, &plane).standalone(label)));
    }
    out
}

/// What noise costs: the share of its noiseless value that a contribution keeps, by size.
pub fn privacy_tax(lines: &[(String, Vec<(f64, f64)>)]) -> String {
    let series: Vec<Series> = lines
        .iter()
        .enumerate()
        .map(|(i, (name, points))| Series {
            name: name.clone(),
            look: Look::Series(i),
            points: points.iter().map(|&(x, y)| (x, y, None)).collect(),
            marked: true,
        })
        .collect();
    let plane = plane("scale of the noise (items)", "value kept", "engine B, 32 cells", true);
    chart::lines(&series, &plane)
        .standalone("Share of its noiseless value that a contribution keeps, by noise and size")
}

fn plane<'a>(x_label: &'a str, y_label: &'a str, note: &'a str, shares: bool) -> Plane<'a> {
    Plane { width: chart::WIDE, x_label, y_label, steps: &[], shares, note }
}

fn series(policy: Policy, points: Vec<chart::LinePoint>) -> Series {
    let look = match policy {
        Policy::Fifo => Look::Control,
        Policy::Contribution => Look::Headline,
        other => Look::Series(other as usize),
    };
    Series { name: policy.name().replace('_', " "), look, points, marked: true }
}
