//! Which figures a run has: each with a caption, an alternative text and the numbers behind it as a table.

use super::chart::{self, Drawing, Look, Mark, Panel, Plane, Series, Spot, StripRow};
use super::verdict::{self, MISSING, maybe_interval, maybe_share, share};
use super::{Pooled, Run, vega};
use crate::run::record::{Curve, Interval, ProtectionSummary};

/// A curve with more points than a plot has pixels is thinned.
const MOST_POINTS: usize = 400;
/// Learning curves need no more lines of data table than a reader will look at.
const MOST_TABLE_ROWS: usize = 60;

/// One figure of a run.
#[derive(Debug, Clone)]
pub(super) struct Figure {
    /// File name under `plots/`, and anchor in the page.
    pub(super) id: String,
    /// What it shows.
    pub(super) title: String,
    /// How to read it: intervals, floors, n.
    pub(super) caption: String,
    /// What it shows, for somebody who cannot see it.
    pub(super) alt: String,
    /// The drawing.
    pub(super) drawing: Drawing,
    /// The same as a Vega-Lite specification.
    pub(super) spec: serde_json::Value,
    /// Heads of the data table.
    pub(super) head: Vec<String>,
    /// The data table.
    pub(super) rows: Vec<Vec<String>>,
    /// Whether it shares a line with another figure.
    pub(super) half: bool,
}

/// Every figure for which the run has numbers, in reading order.
pub(super) fn all(run: &Run) -> Vec<Figure> {
    let mut figures = Vec::new();
    figures.extend(by_protection(run));
    figures.extend(by_noise(run));
    figures.extend(adaptive_or_not(run));
    figures.extend(against_utility(run));
    figures.extend(by_target(run));
    figures.extend(curves(run));
    figures
}

fn heads(names: &[&str]) -> Vec<String> {
    names.iter().map(|n| (*n).to_owned()).collect()
}

/// The blind attacker is a control; the others keep one look through all figures.
fn look(run: &Run, attack: &str) -> Look {
    if attack == "blind" {
        return Look::Control;
    }
    Look::Series(run.attacks().iter().filter(|a| **a != "blind").position(|a| *a == attack).unwrap_or(0))
}

fn seeds_note(run: &Run) -> String {
    match run.seeds().len() {
        1 => "1 seed".to_owned(),
        k => format!("{k} seeds"),
    }
}

/// What the bars of a mark are; the same words under every figure.
const BARS: &str = "Boxes are 95 % intervals; with several seeds, from the lowest to the highest end of the seeds' intervals, \
                    the small dots are the single seeds and the mark is their mean. The black diamond is the worst adaptive attacker, \
                    chosen on validation targets, with the interval over targets and seeds.";

fn by_protection(run: &Run) -> Option<Figure> {
    let attacks = run.attacks();
    let mut rows = Vec::new();
    let mut table = Vec::new();
    for p in &run.summary.protections {
        let mut marks = Vec::new();
        if let Some(value) = p.similarity.leak {
            marks.push(Mark {
                look: Look::Headline,
                value,
                ends: p.similarity.low.zip(p.similarity.high),
                seeds: vec![],
            });
        }
        for &attack in &attacks {
            let leak = run.pooled(&p.name, attack, "judge_leak");
            table.push(vec![
                p.name.clone(),
                attack.to_owned(),
                maybe_interval(leak.value, leak.ends),
                leak.n.to_string(),
                leak.seeds.iter().map(|v| share(*v)).collect::<Vec<_>>().join(", "),
            ]);
            if let Some(value) = leak.value {
                marks.push(Mark { look: look(run, attack), value, ends: leak.ends, seeds: leak.seeds });
            }
        }
        let note = format!("n = {}, {}", p.similarity.n, seeds_note(run));
        rows.push(StripRow { label: p.name.clone(), note, marks });
    }
    if rows.iter().all(|r| r.marks.is_empty()) {
        return None;
    }
    let mut legend = vec![(Look::Headline, "worst adaptive attacker")];
    legend.extend(attacks.iter().map(|a| (look(run, a), *a)));
    let reference = run.unprotected().and_then(|p| p.similarity.leak);
    let reference_text = reference.map(|v| format!("unprotected, worst: {}", share(v))).unwrap_or_default();
    let title = "How much each attacker reads back, by protection";
    let x_label = "leak: share of the meaning read back above chance";
    let drawing =
        chart::strip(&rows, &legend, x_label, blind_band(run), reference.map(|v| (v, reference_text.as_str())));
    Some(Figure {
        id: "leak-by-protection".to_owned(),
        title: title.to_owned(),
        caption: format!(
            "Leak above the floor, for every protection and attacker. The solid line at 0 % is the floor (the same guesses against \
             shuffled originals), the grey band is what the blind attacker reaches, the dashed red line is the unprotected release. {BARS}"
        ),
        alt: format!(
            "Strip chart of leak for {} protections and {} attackers. {}",
            rows.len(),
            attacks.len(),
            worst_in_words(run)
        ),
        drawing,
        spec: vega::strip(title, &rows, &legend, x_label),
        head: heads(&["protection", "attacker", "leak [95 %]", "n", "single seeds"]),
        rows: table,
        half: false,
    })
}

fn worst_in_words(run: &Run) -> String {
    let worst = |p: &ProtectionSummary| {
        format!("{}: {}", p.name, maybe_interval(p.similarity.leak, p.similarity.low.zip(p.similarity.high)))
    };
    format!("Worst adaptive attacker: {}.", run.summary.protections.iter().map(worst).collect::<Vec<_>>().join("; "))
}

/// From the lowest to the highest end of what the blind attacker leaks anywhere.
fn blind_band(run: &Run) -> Option<(f64, f64)> {
    let mut ends: Vec<f64> = run.summary.protections.iter().filter_map(|p| p.blind_leak).collect();
    for p in &run.summary.protections {
        let blind = run.pooled(&p.name, "blind", "judge_leak");
        ends.extend(blind.ends.map(|(a, b)| [a, b]).into_iter().flatten());
    }
    let low = ends.iter().copied().reduce(f64::min)?;
    let high = ends.iter().copied().reduce(f64::max)?;
    Some((low, high))
}

/// A pipeline without its noise parameters: protections that differ only in noise form one family.
fn family(pipeline: &str) -> String {
    let stage = |stage: &str| {
        let Some((name, rest)) = stage.trim().split_once('(') else { return stage.trim().to_owned() };
        let kept: Vec<&str> = rest
            .trim_end_matches(')')
            .split(',')
            .map(str::trim)
            .filter(|part| {
                let key = part.split('=').next().unwrap_or(part).trim();
                !["sigma", "epsilon", "delta", "mu", "rho", "scale", "rate", "kappa"].contains(&key)
            })
            .collect();
        if kept.is_empty() { name.trim().to_owned() } else { format!("{}({})", name.trim(), kept.join(", ")) }
    };
    pipeline.split('|').map(stage).collect::<Vec<_>>().join(" | ")
}

/// One figure for each family with at least two noise levels.
fn by_noise(run: &Run) -> Vec<Figure> {
    let bare = run.unprotected();
    let noisy: Vec<&ProtectionSummary> = run
        .summary
        .protections
        .iter()
        .filter(|p| p.guarantee.sigma.is_some_and(|s| s > 0.0) && bare.is_none_or(|b| b.name != p.name))
        .collect();
    let mut families: Vec<String> = Vec::new();
    for p in &noisy {
        let its = family(&p.pipeline);
        if !families.contains(&its) {
            families.push(its);
        }
    }
    let mut figures = Vec::new();
    for its in &families {
        let mut members: Vec<&ProtectionSummary> =
            noisy.iter().copied().filter(|p| family(&p.pipeline) == *its).collect();
        members.sort_by(|a, b| a.guarantee.sigma.unwrap_or(0.0).total_cmp(&b.guarantee.sigma.unwrap_or(0.0)));
        members.dedup_by(|a, b| a.guarantee.sigma == b.guarantee.sigma);
        if members.len() > 1 {
            let id = if figures.is_empty() {
                "leak-by-noise".to_owned()
            } else {
                format!("leak-by-noise-{}", figures.len() + 1)
            };
            figures.push(noise_figure(run, id, its, &bare.into_iter().chain(members).collect::<Vec<_>>()));
        }
    }
    figures
}

fn noise_figure(run: &Run, id: String, family: &str, members: &[&ProtectionSummary]) -> Figure {
    let sigma =
        |p: &ProtectionSummary| p.guarantee.sigma.filter(|s| *s > 0.0).map_or("none".to_owned(), verdict::short);
    let steps: Vec<String> = members.iter().map(|p| sigma(p)).collect();
    let mut series = Vec::new();
    let mut table: Vec<Vec<String>> = members.iter().map(|p| vec![p.name.clone(), sigma(p)]).collect();
    let mut head = heads(&["protection", "σ"]);
    let attacks = run.attacks();
    for attack in &attacks {
        let leaks: Vec<Pooled> = members.iter().map(|p| run.pooled(&p.name, attack, "judge_leak")).collect();
        head.push((*attack).to_owned());
        for (row, leak) in table.iter_mut().zip(&leaks) {
            row.push(maybe_interval(leak.value, leak.ends));
        }
        let points = leaks.iter().enumerate().filter_map(|(i, l)| Some((i as f64, l.value?, l.ends))).collect();
        series.push(Series { name: (*attack).to_owned(), look: look(run, attack), points, marked: true });
    }
    head.push("worst adaptive attacker".to_owned());
    let mut worst = Vec::new();
    for (i, (row, p)) in table.iter_mut().zip(members).enumerate() {
        let ends = p.similarity.low.zip(p.similarity.high);
        row.push(maybe_interval(p.similarity.leak, ends));
        worst.extend(p.similarity.leak.map(|v| (i as f64, v, ends)));
    }
    series.push(Series {
        name: "worst adaptive attacker".to_owned(),
        look: Look::Headline,
        points: worst,
        marked: true,
    });
    series.retain(|s| !s.points.is_empty());
    let n = members.iter().map(|p| p.similarity.n).max().unwrap_or(0);
    let note = format!("n = {n} targets, {}; error bars: 95 % intervals", seeds_note(run));
    let plane = Plane {
        width: chart::WIDE,
        x_label: "noise: σ for each coordinate of what is released (equally spaced steps, not to scale)",
        y_label: "leak above chance",
        steps: &steps,
        shares: true,
        note: &note,
    };
    let title = format!("Leak against noise: {family}");
    Figure {
        id,
        spec: vega::lines(&title, &series, &plane),
        title,
        caption: format!(
            "How leak falls with the noise of “{family}”; every attacker was fitted to each noise level. The steps are in order of σ \
             but not to scale. Bars are 95 % intervals, moved apart sideways to stay readable. The black line is the worst adaptive \
             attacker, chosen on validation targets; 0 % is the floor."
        ),
        alt: format!("Line chart of leak against noise for {}. {}", family, {
            let words: Vec<String> =
                members.iter().map(|p| format!("σ {}: {}", sigma(p), maybe_share(p.similarity.leak))).collect();
            format!("Worst adaptive attacker at {}.", words.join("; "))
        }),
        drawing: chart::lines(&series, &plane),
        head,
        rows: table,
        half: false,
    }
}

/// Attackers beside their non-adaptive twins: what wording and what meaning they keep of the unprotected release.
fn adaptive_or_not(run: &Run) -> Option<Figure> {
    const SERIES: [(&str, bool, &str); 4] = [
        ("meaning, adaptive", true, "judge_leak"),
        ("meaning, not adaptive", false, "judge_leak"),
        ("wording, adaptive", true, "sentence_bleu"),
        ("wording, not adaptive", false, "sentence_bleu"),
    ];
    let bare = run.unprotected()?;
    let (mut rows, mut table) = (Vec::new(), Vec::new());
    for p in &run.summary.protections {
        for attack in run.attacks() {
            let twin = crate::study::twin(attack);
            if !run.rows.iter().any(|r| r.protection == p.name && r.attack == twin) {
                continue;
            }
            let gain = run.pooled(&p.name, attack, "judge_leak_minus_twin");
            let mut marks = Vec::new();
            let mut line = vec![p.name.clone(), attack.to_owned()];
            for (i, (_, adaptive, metric)) in SERIES.into_iter().enumerate() {
                // Of a score, only what stands above its floor can be kept or lost.
                let floor = |protection: &str, name: &str| {
                    if metric == "judge_leak" { 0.0 } else { run.pooled(protection, name, metric).floor.unwrap_or(0.0) }
                };
                let whole = run.pooled(&bare.name, attack, metric).value.map(|v| v - floor(&bare.name, attack));
                let name = if adaptive { attack } else { &twin };
                let kept = run.pooled(&p.name, name, metric);
                let own = floor(&p.name, name);
                let scale = |v: f64| whole.filter(|w| *w > 0.0).map(|w| (v - own) / w);
                let value = kept.value.and_then(scale);
                let ends = kept.ends.and_then(|(low, high)| scale(low).zip(scale(high)));
                line.push(maybe_interval(value, ends));
                if let Some(value) = value {
                    marks.push(Mark { look: Look::Series(i), value, ends, seeds: vec![] });
                }
            }
            line.push(maybe_interval(gain.value, gain.ends));
            table.push(line);
            rows.push(StripRow { label: p.name.clone(), note: attack.to_owned(), marks });
        }
    }
    if rows.is_empty() {
        return None;
    }
    let legend: Vec<(Look, &str)> =
        SERIES.into_iter().enumerate().map(|(i, (name, ..))| (Look::Series(i), name)).collect();
    let mut head = heads(&["protection", "attacker"]);
    head.extend(SERIES.map(|(name, ..)| name.to_owned()));
    head.push("leak, adaptive minus not [95 %]".to_owned());
    let title = "The same attacker with and without knowing of the noise";
    let x_label = "share of the unprotected release that is kept, above the floor";
    let pairs: Vec<StripRow> =
        rows.iter().map(|r| StripRow { label: format!("{}, {}", r.label, r.note), ..r.clone() }).collect();
    Some(Figure {
        id: "adaptive-or-not".to_owned(),
        title: title.to_owned(),
        spec: vega::strip(title, &pairs, &legend, x_label),
        caption: "What is kept of the unprotected release, above the floors: meaning (judge leak) and wording (sentence BLEU). The \
                  non-adaptive twin takes the noisy vector for a clean one, as most published tests do. Where its wording collapses \
                  while the adaptive attacker keeps the meaning, the noise only looked like a protection."
            .to_owned(),
        alt: format!("Strip chart of what {} pairs of attackers keep of the unprotected release.", rows.len()),
        drawing: chart::strip(&rows, &legend, x_label, None, None),
        head,
        rows: table,
        half: false,
    })
}

fn against_utility(run: &Run) -> Option<Figure> {
    type Read = fn(&ProtectionSummary) -> Option<Interval>;
    let value: Read = |p| {
        let u = &p.utility;
        Some(Interval { value: u.spearman?, low: u.low.or(u.spearman)?, high: u.high.or(u.spearman)? })
    };
    let kinds: [(&str, &str, Read); 3] = [
        ("value correlation", "rank correlation of contribution values with raw ones, over their reliability", value),
        ("topic accuracy", "topic accuracy of a nearest-neighbour vote", |p| p.utility.topic_accuracy),
        ("recall at 10", "share of the ten true nearest neighbours still found", |p| p.utility.recall_at_10),
    ];
    let of = |read: Read| {
        run.summary.protections.iter().filter_map(|p| Some((p, read(p)?, p.similarity.leak?))).collect::<Vec<(
            &ProtectionSummary,
            Interval,
            f64,
        )>>()
    };
    let (name, label, found) = kinds.iter().map(|(n, l, read)| (*n, *l, of(*read))).find(|(_, _, f)| !f.is_empty())?;
    let beats = |a: &(&ProtectionSummary, Interval, f64), b: &(&ProtectionSummary, Interval, f64)| {
        a.1.value >= b.1.value && a.2 <= b.2 && (a.1.value > b.1.value || a.2 < b.2)
    };
    let spots: Vec<Spot> = found
        .iter()
        .map(|one| Spot {
            label: one.0.name.clone(),
            x: (one.1.value, Some((one.1.low, one.1.high))),
            y: (one.2, one.0.similarity.low.zip(one.0.similarity.high)),
            dominated: found.iter().any(|other| beats(other, one)),
        })
        .collect();
    let rows = found
        .iter()
        .zip(&spots)
        .map(|((p, utility, leak), spot)| {
            vec![
                p.name.clone(),
                maybe_interval(Some(utility.value), Some((utility.low, utility.high))),
                maybe_interval(Some(*leak), p.similarity.low.zip(p.similarity.high)),
                if spot.dominated { "yes" } else { "no" }.to_owned(),
            ]
        })
        .collect();
    let n = found.iter().map(|(p, ..)| p.similarity.n).max().unwrap_or(0);
    let words: Vec<String> = found
        .iter()
        .map(|(p, u, leak)| format!("{}: {name} {}, leak {}", p.name, share(u.value), share(*leak)))
        .collect();
    let title = "What privacy costs: leak against utility";
    let y_label = "leak, worst adaptive attacker";
    Some(Figure {
        id: "leak-by-utility".to_owned(),
        title: title.to_owned(),
        spec: vega::frontier(title, &spots, label, y_label),
        caption: format!(
            "Leak of the worst adaptive attacker against {name}, measured on the same released vectors. Boxes and crosses are 95 % intervals both ways. \
             Grey rings are dominated: another protection is at least as useful and leaks no more. The dashed line joins the others."
        ),
        alt: format!("Scatter chart of leak against {name}. {}.", words.join("; ")),
        drawing: chart::frontier(
            &spots,
            label,
            y_label,
            &format!("n = {n} targets, {}; 95 % intervals", seeds_note(run)),
        ),
        head: heads(&["protection", name, "leak [95 %]", "dominated"]),
        rows,
        half: false,
    })
}

fn by_target(run: &Run) -> Option<Figure> {
    let mut panels = Vec::new();
    let mut rows = Vec::new();
    for p in &run.summary.protections {
        let values: Vec<f64> = run
            .worst_guesses(p)
            .into_iter()
            .flatten()
            .filter_map(|g| g.scores.get("judge_cosine").copied().flatten())
            .filter(|v| v.is_finite())
            .collect();
        if values.is_empty() {
            continue;
        }
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let mut sorted = values.clone();
        sorted.sort_by(f64::total_cmp);
        // Nearest-rank quantiles: always a value that was measured.
        let rank = |q: f64| sorted[((q * sorted.len() as f64).ceil() as usize).clamp(1, sorted.len()) - 1];
        let attack = p.best_attack.clone().unwrap_or_else(|| MISSING.to_owned());
        rows.push(vec![
            p.name.clone(),
            attack.clone(),
            values.len().to_string(),
            verdict::cosine(mean),
            verdict::cosine(rank(0.5)),
            verdict::cosine(rank(0.95)),
            share(values.iter().filter(|v| **v > 0.8).count() as f64 / values.len() as f64),
            p.similarity.judge_floor.map_or(MISSING.to_owned(), verdict::cosine),
        ]);
        panels.push(Panel {
            label: p.name.clone(),
            note: format!("{attack}, {} guesses", values.len()),
            values,
            floor: p.similarity.judge_floor,
            mean: Some(mean),
        });
    }
    if panels.is_empty() {
        return None;
    }
    let words: Vec<String> =
        rows.iter().map(|r| format!("{}: median {}, 95th percentile {}", r[0], r[4], r[5])).collect();
    let title = "The tail: judge similarity of every target";
    let x_label = "judge cosine of guess and original";
    Some(Figure {
        id: "similarity-by-target".to_owned(),
        title: title.to_owned(),
        spec: vega::histograms(title, &panels, x_label),
        caption: "A mean hides the targets that come back almost whole. Each panel counts the targets (of all seeds) by the judge's cosine \
                  between guess and original, for the protection's worst adaptive attacker; heights are shares on one common scale. \
                  Right of the dashed red floor is more than chance."
            .to_owned(),
        alt: format!("Histograms of judge cosine for each protection. {}.", words.join("; ")),
        drawing: chart::histograms(&panels, x_label),
        head: heads(&["protection", "attacker", "guesses", "mean", "median", "95th percentile", "above 0.8", "floor"]),
        rows,
        half: false,
    })
}

/// One figure for each (attack, title): a line for each protection and seed.
fn curves(run: &Run) -> Vec<Figure> {
    let mut keys: Vec<(&str, &str)> = Vec::new();
    for curve in &run.curves {
        let key = (curve.attack.as_str(), curve.title.as_str());
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys.iter().enumerate().filter_map(|(i, (attack, title))| curve_figure(run, i + 1, attack, title)).collect()
}

fn curve_figure(run: &Run, number: usize, attack: &str, title: &str) -> Option<Figure> {
    let its: Vec<&Curve> = run.curves.iter().filter(|c| c.attack == attack && c.title == title).collect();
    let first = its.first()?;
    let mut series = Vec::new();
    let mut rows = Vec::new();
    for curve in &its {
        let known = run.summary.protections.iter().position(|p| p.name == curve.protection);
        let look = if run.unprotected().is_some_and(|p| p.name == curve.protection) {
            Look::Headline
        } else {
            Look::Series(known.unwrap_or(0))
        };
        let points: Vec<_> = curve.points.iter().copied().filter(|(x, y)| x.is_finite() && y.is_finite()).collect();
        let every = points.len().div_ceil(MOST_POINTS).max(1);
        let last = points.len().saturating_sub(1);
        let kept =
            points.iter().enumerate().filter(|(i, _)| i % every == 0 || *i == last).map(|(_, p)| (p.0, p.1, None));
        series.push(Series {
            name: curve.protection.clone(),
            look,
            points: kept.collect(),
            marked: points.len() <= 12,
        });
        if let (Some(a), Some(b)) = (points.first(), points.last()) {
            let low = points.iter().map(|p| p.1).fold(f64::INFINITY, f64::min);
            let high = points.iter().map(|p| p.1).fold(f64::NEG_INFINITY, f64::max);
            let at = |p: &(f64, f64)| format!("{} at {}", verdict::short(p.1), verdict::short(p.0));
            rows.push(vec![
                curve.protection.clone(),
                curve.seed.to_string(),
                points.len().to_string(),
                at(a),
                at(b),
                verdict::short(low),
                verdict::short(high),
            ]);
        }
    }
    let lines = rows.len();
    rows.truncate(MOST_TABLE_ROWS);
    let budgets = budgets(&series);
    let steps: Vec<String> = budgets.iter().map(|x| verdict::short(*x)).collect();
    for point in series.iter_mut().flat_map(|s| &mut s.points) {
        if let Some(i) = budgets.iter().position(|x| *x == point.0) {
            point.0 = i as f64;
        }
    }
    let x_label = if steps.is_empty() { first.x_label.clone() } else { format!("{} (not to scale)", first.x_label) };
    let plane = Plane { width: chart::HALF, x_label: &x_label, y_label: title, steps: &steps, shares: false, note: "" };
    let heading = format!("{attack}: {title}");
    Some(Figure {
        id: format!("curve-{number}"),
        spec: vega::lines(&heading, &series, &plane),
        title: heading,
        caption: format!("One line for each protection and seed ({}).", seeds_note(run)),
        alt: format!("Line chart of {title} against {} for the attacker {attack}, {lines} lines.", first.x_label),
        drawing: chart::lines(&series, &plane),
        head: heads(&["protection", "seed", "points", "first", "last", "lowest", "highest"]),
        rows,
        half: true,
    })
}

/// The horizontal values of a budget curve: few, and each at least half as large again as the one before. They are drawn at
/// equal steps. Any other curve has none, and a numeric axis.
fn budgets(series: &[Series]) -> Vec<f64> {
    let mut xs: Vec<f64> = series.iter().flat_map(|s| s.points.iter().map(|p| p.0)).collect();
    xs.sort_by(f64::total_cmp);
    xs.dedup();
    let grows = xs.windows(2).all(|w| w[0] >= 0.0 && w[1] >= 1.5 * w[0]);
    if (3..=9).contains(&xs.len()) && grows { xs } else { Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pipelines_that_differ_only_in_noise_are_one_family() {
        let a = family("clip(l2=1) | gaussian(sigma=0.1)");
        assert_eq!(a, "clip(l2=1) | gaussian");
        assert_eq!(a, family("clip(l2=1)|gaussian(epsilon=1, delta=1e-5)"));
        assert_ne!(a, family("clip(l2=2) | gaussian(sigma=0.1)"));
        assert_eq!(family("identity"), "identity");
    }
}
