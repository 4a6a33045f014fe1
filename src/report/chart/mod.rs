//! Charts: a small façade over plotters' SVG backend.
//!
//! Everything here is geometry. It knows rows, marks, lines and boxes, never runs or records, and the same input gives the
//! same bytes. Series differ by colour (Okabe-Ito), by marker and by line style, so that they survive a grey printer.

mod canvas;

use canvas::{
    ALERT, Axis, BAND, Canvas, GRID, INK, LABEL, PALETTE, SOFT, Type, draw, legend_height, percent, plain, range, step,
};
pub(crate) use canvas::{Drawing, HALF, Look, WIDE};
use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

/// A value with its interval and the single seeds behind it.
#[derive(Debug, Clone)]
pub(crate) struct Mark {
    /// How it is drawn.
    pub(crate) look: Look,
    /// The estimate.
    pub(crate) value: f64,
    /// The interval.
    pub(crate) ends: Option<(f64, f64)>,
    /// One value for each seed; drawn when there are several.
    pub(crate) seeds: Vec<f64>,
}

/// One protection of a strip chart.
#[derive(Debug, Clone)]
pub(crate) struct StripRow {
    /// Its name.
    pub(crate) label: String,
    /// What stands under the name, for example `n = 500`.
    pub(crate) note: String,
    /// One mark for each attacker.
    pub(crate) marks: Vec<Mark>,
}

/// A strip chart: a row for each protection, a mark for each attacker, shares on the horizontal axis.
pub(crate) fn strip(
    rows: &[StripRow],
    legend: &[(Look, &str)],
    x_label: &str,
    blind: Option<(f64, f64)>,
    reference: Option<(f64, &str)>,
) -> Drawing {
    const LANE: f64 = 13.0;
    let longest = rows.iter().map(|r| LABEL.bold().width_of(&r.label)).fold(80.0, f64::max);
    let left = (longest + 22.0).min(WIDE * 0.36);
    let (right, top) = (WIDE - 24.0, 16.0 + legend_height(legend, WIDE - 20.0, false) + 22.0);
    let heights: Vec<f64> = rows.iter().map(|r| (r.marks.len() as f64 * LANE).max(30.0) + 16.0).collect();
    let bottom = top + heights.iter().sum::<f64>();
    let values = rows
        .iter()
        .flat_map(|r| &r.marks)
        .flat_map(|m| m.ends.map_or([m.value; 2], |(a, b)| [a, b]).into_iter().chain(m.seeds.iter().copied()));
    let (low, high) = range(values, -0.05, 1.0);
    let x = Axis { low, high, from: left, to: right };
    draw(WIDE, bottom + 52.0, |c| {
        c.legend(legend, (10.0, 14.0), WIDE - 10.0, false);
        if let Some((a, b)) = blind {
            c.rectangle((x.at(a) - 0.5, top), (x.at(b) + 0.5, bottom), BAND, true);
        }
        shares_below(c, &x, (top, bottom), x_label);
        let mut edge = top;
        for height in &heights {
            edge += height;
            c.line(&[(10.0, edge), (right, edge)], GRID, 1.0);
        }
        c.line(&[(x.at(0.0), top), (x.at(0.0), bottom)], INK, 1.5);
        if let Some((value, name)) = reference {
            c.dashed(&[(x.at(value), top), (x.at(value), bottom)], ALERT, 1.5, (6.0, 4.0));
            let at = x.at(value);
            let kind = Type { size: 11.5, colour: ALERT, bold: false, anchor: HPos::Left };
            let wide = kind.width_of(name) / 2.0;
            c.text(name, (at.clamp(left + wide, right - wide), top - 10.0), kind.centred());
        }
        let mut y = top;
        for (row, height) in rows.iter().zip(&heights) {
            c.text(&short(&row.label, left - 18.0), (10.0, y + height / 2.0 - 8.0), LABEL.ink().bold());
            c.text(&row.note, (10.0, y + height / 2.0 + 8.0), Type { size: 11.0, ..LABEL });
            let first = y + height / 2.0 - (row.marks.len().saturating_sub(1)) as f64 * LANE / 2.0;
            for (i, mark) in row.marks.iter().enumerate() {
                let lane = first + i as f64 * LANE;
                horizontal(c, mark, lane, &x);
            }
            y += height;
        }
    })
}

/// A tick label for each share under a plot, with grid lines and a title.
fn shares_below(c: &Canvas, x: &Axis, (top, bottom): (f64, f64), title: &str) {
    let ticks = x.ticks(11);
    let gap = step(&ticks);
    for &tick in &ticks {
        c.line(&[(x.at(tick), top), (x.at(tick), bottom)], GRID, 1.0);
        c.text(&percent(tick, gap), (x.at(tick), bottom + 14.0), LABEL.centred());
    }
    c.text(title, (f64::midpoint(x.from, x.to), bottom + 38.0), LABEL.ink().centred());
}

fn horizontal(c: &Canvas, mark: &Mark, y: f64, x: &Axis) {
    let colour = mark.look.colour();
    if let Some((a, b)) = mark.ends {
        c.rectangle((x.at(a), y - 3.5), (x.at(b), y + 3.5), colour.mix(0.28), true);
        for end in [a, b] {
            c.line(&[(x.at(end), y - 3.5), (x.at(end), y + 3.5)], colour, 1.0);
        }
    }
    if mark.seeds.len() > 1 {
        for &seed in &mark.seeds {
            c.disc((x.at(seed), y), 1.5, colour, true);
        }
    }
    c.marker(mark.look, (x.at(mark.value), y), 4.5);
}

/// Cuts a label that would run into the plot.
fn short(text: &str, width: f64) -> String {
    let fits = (width / (LABEL.size * 0.56)).max(4.0) as usize;
    if text.chars().count() <= fits {
        return text.to_owned();
    }
    text.chars().take(fits - 1).chain(['…']).collect()
}

/// `(x, y, interval of y)`.
pub(crate) type LinePoint = (f64, f64, Option<(f64, f64)>);

/// One line of a line chart.
#[derive(Debug, Clone)]
pub(crate) struct Series {
    /// Its name in the legend.
    pub(crate) name: String,
    /// How it is drawn.
    pub(crate) look: Look,
    /// In order of `x`.
    pub(crate) points: Vec<LinePoint>,
    /// Whether each point has a marker.
    pub(crate) marked: bool,
}

/// What a line chart stands on.
#[derive(Debug, Clone)]
pub(crate) struct Plane<'a> {
    /// Width of the figure.
    pub(crate) width: f64,
    /// Title of the horizontal axis.
    pub(crate) x_label: &'a str,
    /// Title of the vertical axis.
    pub(crate) y_label: &'a str,
    /// Names of the whole numbers on the horizontal axis; empty for a numeric axis.
    pub(crate) steps: &'a [String],
    /// Whether the vertical axis holds shares, from below 0 % to 100 %.
    pub(crate) shares: bool,
    /// Note in the upper right corner, for example `n = 500`.
    pub(crate) note: &'a str,
}

/// A line chart with interval bars.
pub(crate) fn lines(series: &[Series], plane: &Plane) -> Drawing {
    let mut legend: Vec<(Look, &str)> = Vec::new();
    for line in series {
        if !legend.iter().any(|(look, name)| *look == line.look && *name == line.name) {
            legend.push((line.look, &line.name));
        }
    }
    let (left, right) = (66.0, plane.width - 18.0);
    let legend_room = legend_height(&legend, plane.width - 20.0, true);
    let top = 14.0 + legend_room + 16.0;
    let bottom = top + if plane.width > 600.0 { 320.0 } else { 210.0 };
    let ys = series
        .iter()
        .flat_map(|s| &s.points)
        .flat_map(|(_, y, e)| e.map_or([*y; 2], |(a, b)| [a, b]).into_iter().chain([*y]));
    let (low, high) = if plane.shares { range(ys, -0.05, 1.0) } else { spread(ys) };
    let xs = || series.iter().flat_map(|s| s.points.iter().map(|p| p.0));
    let (x_low, x_high) =
        if plane.steps.is_empty() { spread_exact(xs()) } else { (-0.4, plane.steps.len() as f64 - 0.6) };
    let x = Axis { low: x_low, high: x_high, from: left, to: right };
    let y = Axis { low, high, from: bottom, to: top };
    draw(plane.width, bottom + 52.0, |c| {
        c.legend(&legend, (10.0, 14.0), plane.width - 10.0, true);
        side(c, &y, (left, right), plane.y_label, plane.shares, (top, bottom));
        let under = |at: f64, text: &str| c.text(text, (at, bottom + 14.0), LABEL.centred());
        if plane.steps.is_empty() {
            let ticks = x.ticks(if plane.width > 600.0 { 10 } else { 5 });
            let gap = step(&ticks);
            for &tick in &ticks {
                under(x.at(tick), &plain(tick, gap));
            }
        } else {
            for (i, name) in plane.steps.iter().enumerate() {
                under(x.at(i as f64), name);
            }
        }
        c.text(plane.x_label, (f64::midpoint(left, right), bottom + 38.0), LABEL.ink().centred());
        c.text(plane.note, (right, top - 9.0), Type { size: 11.0, ..LABEL }.right());
        // Later series are drawn over earlier ones: the headline comes last. Error bars stand side by side.
        let barred = series.iter().flat_map(|s| &s.points).any(|p| p.2.is_some());
        let offset = |i: usize| {
            if barred && !plane.steps.is_empty() { (i as f64 - series.len() as f64 / 2.0) * 3.0 } else { 0.0 }
        };
        for (i, line) in series.iter().enumerate() {
            for (px, _, ends) in &line.points {
                if let Some((a, b)) = ends {
                    let at = x.at(*px) + offset(i);
                    c.line(&[(at, y.at(*a)), (at, y.at(*b))], line.look.colour(), 1.0);
                    for end in [a, b] {
                        c.line(&[(at - 2.5, y.at(*end)), (at + 2.5, y.at(*end))], line.look.colour(), 1.0);
                    }
                }
            }
            let points: Vec<_> = line.points.iter().map(|p| (x.at(p.0) + offset(i), y.at(p.1))).collect();
            if points.len() > 1 {
                c.dashed(&points, line.look.colour(), line.look.width(), line.look.dash());
            }
            if line.marked || points.len() == 1 {
                for &at in &points {
                    c.marker(line.look, at, 4.0);
                }
            }
        }
    })
}

/// The range of some values with a margin; `0..1` where there are none.
fn spread(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (a, b) = spread_exact(values);
    let margin = (b - a) * 0.06;
    (a - margin, b + margin)
}

fn spread_exact(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (a, b) =
        values.filter(|v| v.is_finite()).fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)));
    if a > b {
        (0.0, 1.0)
    } else if a == b {
        (a - 0.5, b + 0.5)
    } else {
        (a, b)
    }
}

/// The vertical axis: grid lines, labels, a line at zero, a title.
fn side(c: &Canvas, y: &Axis, (left, right): (f64, f64), title: &str, shares: bool, (top, bottom): (f64, f64)) {
    let ticks = y.ticks(if bottom - top > 260.0 { 11 } else { 6 });
    let gap = step(&ticks);
    for &tick in &ticks {
        c.line(&[(left, y.at(tick)), (right, y.at(tick))], GRID, 1.0);
        let text = if shares { percent(tick, gap) } else { plain(tick, gap) };
        c.text(&text, (left - 8.0, y.at(tick)), LABEL.right());
    }
    if shares {
        c.line(&[(left, y.at(0.0)), (right, y.at(0.0))], INK, 1.5);
    }
    if LABEL.width_of(title) <= bottom - top {
        c.upright(title, (12.0, f64::midpoint(top, bottom)), LABEL.ink().centred());
    } else {
        // Upright it would run into the legend.
        c.text(title, (10.0, top - 9.0), LABEL.ink());
    }
}

/// One protection of a frontier.
#[derive(Debug, Clone)]
pub(crate) struct Spot {
    /// Its name.
    pub(crate) label: String,
    /// Utility and its interval.
    pub(crate) x: (f64, Option<(f64, f64)>),
    /// Leak and its interval.
    pub(crate) y: (f64, Option<(f64, f64)>),
    /// Whether another one is at least as useful and leaks no more.
    pub(crate) dominated: bool,
}

/// Spots above which names stand in a key below the chart, and numbers beside the spots.
const CROWD: usize = 10;
/// Columns of that key.
const KEY_COLUMNS: usize = 4;

/// Leak against utility: intervals both ways, dominated choices are grey. Many spots are numbered from left to right.
pub(crate) fn frontier(spots: &[Spot], x_label: &str, y_label: &str, note: &str) -> Drawing {
    let (left, right, top, bottom) = (66.0, WIDE - 18.0, 34.0, 400.0);
    let mut order: Vec<&Spot> = spots.iter().collect();
    order.sort_by(|a, b| a.x.0.total_cmp(&b.x.0));
    let crowded = order.len() > CROWD;
    let ys: Vec<f64> = order.iter().flat_map(|s| s.y.1.map_or([s.y.0; 2], |(a, b)| [a, b])).collect();
    let most = ys.iter().copied().fold(0.0, f64::max);
    let (low, high) = range(ys.into_iter(), -0.05, if crowded { (10.0 * most).ceil() / 10.0 } else { 1.0 });
    let xs = order.iter().flat_map(|s| s.x.1.map_or([s.x.0; 2], |(a, b)| [a, b]));
    let (x_low, x_high) = spread(xs);
    let x = Axis { low: x_low.max(-0.02), high: x_high.min(1.02), from: left, to: right };
    let y = Axis { low, high, from: bottom, to: top };
    let rows = if crowded { order.len().div_ceil(KEY_COLUMNS) } else { 0 };
    draw(WIDE, bottom + 52.0 + 17.0 * rows as f64, |c| {
        side(c, &y, (left, right), y_label, true, (top, bottom));
        shares_below(c, &x, (top, bottom), x_label);
        c.text(note, (right, top - 12.0), Type { size: 11.0, ..LABEL }.right());
        c.text("better: lower and further right ↘", (left + 4.0, top - 12.0), Type { size: 11.0, ..LABEL });
        let path: Vec<_> = order.iter().filter(|s| !s.dominated).map(|s| (x.at(s.x.0), y.at(s.y.0))).collect();
        if path.len() > 1 {
            c.dashed(&path, SOFT, 1.0, (4.0, 4.0));
        }
        let mut boxes = Vec::with_capacity(order.len());
        for spot in &order {
            let (at, look) = ((x.at(spot.x.0), y.at(spot.y.0)), spot.look());
            let (a, b) = (spot.x.1.unwrap_or((spot.x.0, spot.x.0)), spot.y.1.unwrap_or((spot.y.0, spot.y.0)));
            let b = [x.at(a.0), y.at(b.1), x.at(a.1), y.at(b.0)];
            if !crowded && b[0] < b[2] && b[1] < b[3] {
                c.rectangle((b[0], b[1]), (b[2], b[3]), look.colour().mix(0.16), true);
            }
            let colour = if crowded && spot.dominated { GRID } else { look.colour() };
            c.line(&[(b[0], at.1), (b[2], at.1)], colour, 1.0);
            c.line(&[(at.0, b[1]), (at.0, b[3])], colour, 1.0);
            boxes.push(if crowded { [at.0 - 5.0, at.1 - 5.0, at.0 + 5.0, at.1 + 5.0] } else { b });
        }
        let mut taken = boxes.clone();
        for (number, (spot, b)) in order.iter().zip(&boxes).enumerate() {
            c.marker(spot.look(), (x.at(spot.x.0), y.at(spot.y.0)), 5.0);
            let kind = if spot.dominated { LABEL } else { LABEL.ink().bold() };
            let name = short(&spot.label, 260.0);
            let text = if crowded { (number + 1).to_string() } else { name.clone() };
            let place = place(b, kind.width_of(&text), &taken, (left, right, top, bottom));
            taken.push(place);
            c.rectangle((place[0] - 2.0, place[1]), (place[2], place[3]), WHITE.mix(0.8), true);
            c.text(&text, (place[0], f64::midpoint(place[1], place[3])), kind);
            if crowded {
                let column = (right - left) / KEY_COLUMNS as f64;
                let at = (left + column * (number / rows) as f64, bottom + 58.0 + 17.0 * (number % rows) as f64);
                c.text(&text, (at.0 + 18.0, at.1), kind.right());
                c.text(&short(&name, column - 30.0), (at.0 + 24.0, at.1), kind);
            }
        }
    })
}

/// Where a label of the given width goes beside a box: the first place that covers nothing, else the first inside the frame.
///
/// Boxes and places are `[left, top, right, bottom]`.
fn place(
    spot: &[f64; 4],
    width: f64,
    taken: &[[f64; 4]],
    (left, right, top, bottom): (f64, f64, f64, f64),
) -> [f64; 4] {
    let (x, y) = (f64::midpoint(spot[0], spot[2]), f64::midpoint(spot[1], spot[3]));
    let boxed = |x0: f64, middle: f64| [x0, middle - 8.0, x0 + width, middle + 8.0];
    let mut places = Vec::new();
    for away in [0.0, 14.0, 28.0, 42.0] {
        places.push(boxed(spot[2] + 8.0, y - away));
        places.push(boxed(spot[0] - 8.0 - width, y - away));
        places.push(boxed(x - width / 2.0, spot[1] - 11.0 - away));
        places.push(boxed(x - width / 2.0, spot[3] + 11.0 + away));
        places.push(boxed(spot[2] + 8.0, y + away));
        places.push(boxed(spot[0] - 8.0 - width, y + away));
    }
    let inside = |b: &[f64; 4]| b[0] >= left && b[2] <= right && b[1] >= top && b[3] <= bottom;
    let free = |b: &[f64; 4]| taken.iter().all(|t| b[2] <= t[0] || t[2] <= b[0] || b[3] <= t[1] || t[3] <= b[1]);
    places
        .iter()
        .find(|b| inside(b) && free(b))
        .or_else(|| places.iter().find(|b| inside(b)))
        .copied()
        .unwrap_or(places[0])
}

impl Spot {
    fn look(&self) -> Look {
        if self.dominated { Look::Control } else { Look::Series(0) }
    }
}

/// One panel of a histogram sheet.
#[derive(Debug, Clone)]
pub(crate) struct Panel {
    /// Its name.
    pub(crate) label: String,
    /// What stands beside the name.
    pub(crate) note: String,
    /// The values, one for each target.
    pub(crate) values: Vec<f64>,
    /// Where the floor is.
    pub(crate) floor: Option<f64>,
    /// The mean.
    pub(crate) mean: Option<f64>,
}

/// Histograms on one common horizontal axis, two panels to a line, heights as shares of each panel's values.
pub(crate) fn histograms(panels: &[Panel], x_label: &str) -> Drawing {
    const BINS: usize = 24;
    let (cell_w, cell_h) = (WIDE / 2.0, 150.0);
    let all = || panels.iter().flat_map(|p| p.values.iter().copied().chain(p.floor));
    // Sentence encoders crowd their cosines near 1: begin at the tenth below the smallest value.
    let smallest = all().filter(|v| v.is_finite()).fold(0.9, f64::min);
    let (low, high) = range(all(), (smallest * 10.0).floor() / 10.0, 1.0);
    let lines = panels.len().div_ceil(2);
    let counted: Vec<Vec<f64>> = panels.iter().map(|p| shares_in_bins(&p.values, low, high, BINS)).collect();
    let tallest = counted.iter().flatten().copied().fold(0.01, f64::max);
    draw(WIDE, lines as f64 * cell_h + 40.0, |c| {
        for (i, (panel, bars)) in panels.iter().zip(&counted).enumerate() {
            let (x0, y0) = ((i % 2) as f64 * cell_w, (i / 2) as f64 * cell_h);
            let (left, right, top, bottom) = (x0 + 14.0, x0 + cell_w - 18.0, y0 + 34.0, y0 + cell_h - 22.0);
            let x = Axis { low, high, from: left, to: right };
            let y = Axis { low: 0.0, high: tallest, from: bottom, to: top };
            c.text(&short(&panel.label, 230.0), (left, y0 + 14.0), LABEL.ink().bold());
            c.text(&panel.note, (right, y0 + 14.0), Type { size: 11.0, ..LABEL }.right());
            let width = (high - low) / BINS as f64;
            for (k, &bar) in bars.iter().enumerate() {
                if bar > 0.0 {
                    let from = low + k as f64 * width;
                    c.rectangle(
                        (x.at(from) + 0.5, y.at(bar)),
                        (x.at(from + width) - 0.5, bottom),
                        PALETTE[0].mix(0.75),
                        true,
                    );
                }
            }
            c.line(&[(left, bottom), (right, bottom)], SOFT, 1.0);
            let ticks = x.ticks(6);
            let gap = step(&ticks);
            for &tick in &ticks {
                c.line(&[(x.at(tick), bottom), (x.at(tick), bottom + 3.0)], SOFT, 1.0);
                c.text(&plain(tick, gap), (x.at(tick), bottom + 12.0), Type { size: 11.0, ..LABEL }.centred());
            }
            if let Some(floor) = panel.floor {
                c.dashed(&[(x.at(floor), top - 6.0), (x.at(floor), bottom)], ALERT, 1.5, (4.0, 3.0));
            }
            if let Some(mean) = panel.mean {
                c.line(&[(x.at(mean), top - 6.0), (x.at(mean), bottom)], INK, 1.5);
            }
        }
        let y = lines as f64 * cell_h + 18.0;
        c.text(x_label, (14.0, y), LABEL.ink());
        c.line(&[(WIDE - 280.0, y), (WIDE - 258.0, y)], INK, 1.5);
        c.text("mean", (WIDE - 252.0, y), LABEL.ink());
        c.dashed(&[(WIDE - 200.0, y), (WIDE - 178.0, y)], ALERT, 1.5, (4.0, 3.0));
        c.text("floor (shuffled pairs)", (WIDE - 172.0, y), LABEL.ink());
    })
}

fn shares_in_bins(values: &[f64], low: f64, high: f64, bins: usize) -> Vec<f64> {
    let mut counts = vec![0.0; bins];
    for v in values.iter().filter(|v| v.is_finite()) {
        let k = ((v - low) / (high - low) * bins as f64).floor().clamp(0.0, bins as f64 - 1.0);
        counts[k as usize] += 1.0;
    }
    let total = values.len().max(1) as f64;
    counts.iter().map(|c| c / total).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(value: f64) -> Mark {
        Mark { look: Look::Series(0), value, ends: Some((value - 0.1, value + 0.1)), seeds: vec![value] }
    }

    #[test]
    fn the_same_rows_give_the_same_bytes() {
        let rows = [StripRow { label: "a".into(), note: "n = 3".into(), marks: vec![mark(0.5)] }];
        let once = || strip(&rows, &[(Look::Series(0), "x")], "leak", Some((-0.01, 0.02)), None).inline("alt");
        assert_eq!(once(), once());
    }

    #[test]
    fn labels_are_escaped_in_the_drawing_and_in_its_alternative_text() {
        let rows = [StripRow { label: "<script>".into(), note: String::new(), marks: vec![mark(0.5)] }];
        let svg = strip(&rows, &[], "a & b", None, None).inline("\"><script>");
        assert!(!svg.contains("<script"), "{svg}");
        assert!(svg.contains("a &amp; b") && svg.contains("aria-label=\"&quot;&gt;&lt;script&gt;\""));
    }

    #[test]
    fn every_value_lands_in_one_bin() {
        let shares = shares_in_bins(&[-0.3, 0.0, 0.5, 1.0, 1.4], 0.0, 1.0, 4);
        assert_eq!(shares, [0.4, 0.0, 0.2, 0.4]);
    }

    #[test]
    fn a_label_moves_out_of_the_way_of_another() {
        let frame = (0.0, 800.0, 0.0, 400.0);
        let boxes = [[90.0, 90.0, 110.0, 110.0], [92.0, 92.0, 112.0, 112.0]];
        let first = place(&boxes[0], 80.0, &boxes, frame);
        let second = place(&boxes[1], 80.0, &[boxes[0], boxes[1], first], frame);
        assert!(second[2] <= first[0] || second[1] >= first[3] || second[3] <= first[1], "{first:?} {second:?}");
    }

    #[test]
    fn many_spots_are_numbered_and_named_in_a_key() {
        let spot = |i: usize| Spot {
            label: format!("protection {i}"),
            x: (0.03 * i as f64, None),
            y: (0.01 * i as f64, None),
            dominated: i.is_multiple_of(2),
        };
        let spots: Vec<Spot> = (0..12).map(spot).collect();
        let few = frontier(&spots[..CROWD], "x", "y", "").standalone("few");
        let many = frontier(&spots, "x", "y", "").standalone("many");
        let stands_alone = |text: &str, drawing: &str| drawing.matches(&format!("\n{text}\n")).count();
        for i in 0..CROWD {
            let name = format!("protection {i}");
            assert_eq!((stands_alone(&name, &few), stands_alone(&name, &many)), (1, 1));
        }
        assert_eq!(stands_alone("12", &many), 2, "beside the spot and in the key");
    }

    #[test]
    fn empty_charts_are_still_drawings() {
        let plane = Plane { width: HALF, x_label: "x", y_label: "y", steps: &[], shares: false, note: "" };
        assert!(lines(&[], &plane).standalone("none").starts_with("<svg width=\"430\""));
        assert!(histograms(&[], "x").inline("none").contains("viewBox"));
        assert!(frontier(&[], "x", "y", "").inline("none").contains("</svg>"));
    }

    #[test]
    fn a_title_longer_than_its_axis_lies_above_it() {
        let drawn = |y_label: &str| {
            let plane = Plane { width: HALF, x_label: "x", y_label, steps: &[], shares: false, note: "" };
            lines(&[], &plane).standalone("none")
        };
        assert!(drawn("short").contains("rotate(270"));
        assert!(!drawn("squared error of the held-out pictures over that of their mean").contains("rotate(270"));
    }
}
