//! The sheet that charts are drawn on: axes, type, lines, markers and legends over plotters' SVG backend.

use plotters::coord::Shift;
use plotters::coord::ranged1d::Ranged;
use plotters::coord::types::RangedCoordf64;
use plotters::element::DashedPathElement;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// No font is embedded, so the stack is pinned: metric-compatible faces on every system.
const FONT: &str = "Helvetica Neue, Helvetica, Arial, Liberation Sans, DejaVu Sans, sans-serif";
/// The backend has integer coordinates; drawing at twice the size keeps half-pixel positions.
const SCALE: f64 = 2.0;
/// Width of a figure that spans the page.
pub(crate) const WIDE: f64 = 880.0;
/// Width of a figure that shares a line with another.
pub(crate) const HALF: f64 = 430.0;

pub(super) const INK: RGBColor = RGBColor(28, 32, 38);
pub(super) const SOFT: RGBColor = RGBColor(95, 102, 112);
pub(super) const GRID: RGBColor = RGBColor(226, 229, 233);
pub(super) const BAND: RGBColor = RGBColor(240, 241, 243);
pub(super) const ALERT: RGBColor = RGBColor(176, 42, 28);

/// Okabe and Ito's palette without its yellow, which white paper swallows.
pub(super) const PALETTE: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(213, 94, 0),
    RGBColor(120, 94, 20),
];

/// How one series is drawn everywhere in a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// The series with this number.
    Series(usize),
    /// The headline: black and heavy.
    Headline,
    /// A control, such as the blind attacker.
    Control,
}

impl Look {
    pub(super) fn colour(self) -> RGBColor {
        match self {
            Look::Series(i) => PALETTE[i % PALETTE.len()],
            Look::Headline => INK,
            Look::Control => RGBColor(128, 133, 140),
        }
    }

    /// The same colour for other drawing programs.
    pub(crate) fn hex(self) -> String {
        let RGBColor(r, g, b) = self.colour();
        format!("#{r:02x}{g:02x}{b:02x}")
    }

    pub(super) fn width(self) -> f64 {
        if self == Look::Headline { 3.0 } else { 1.6 }
    }

    /// Ink and gap of the line style; a solid line has no gap.
    pub(super) fn dash(self) -> (f64, f64) {
        match self {
            Look::Headline => (1.0, 0.0),
            Look::Control => (2.0, 3.0),
            Look::Series(i) => [(1.0, 0.0), (8.0, 4.0), (3.0, 3.0), (12.0, 3.0)][turn(i) % 4],
        }
    }
}

/// Counts through shapes and dashes: one further each time the colours begin anew, so that no two series look alike.
fn turn(series: usize) -> usize {
    series + series / PALETTE.len()
}

/// A finished drawing.
#[derive(Debug, Clone)]
pub(crate) struct Drawing {
    width: f64,
    height: f64,
    body: String,
}

impl Drawing {
    /// For a page: it takes the width that it is given, and speaks its alternative text.
    pub(crate) fn inline(&self, alt: &str) -> String {
        let (w, h) = (self.width * SCALE, self.height * SCALE);
        format!("<svg viewBox=\"0 0 {w} {h}\" role=\"img\" aria-label=\"{}\">\n{}", escape(alt), self.body)
    }

    /// For a file of its own.
    pub(crate) fn standalone(&self, alt: &str) -> String {
        let (w, h) = (self.width * SCALE, self.height * SCALE);
        format!(
            "<svg width=\"{}\" height=\"{}\" viewBox=\"0 0 {w} {h}\" xmlns=\"http://www.w3.org/2000/svg\">\n<title>{}</title>\n{}",
            self.width,
            self.height,
            escape(alt),
            self.body
        )
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A linear map from values to drawing units.
#[derive(Clone, Copy)]
pub(super) struct Axis {
    pub(super) low: f64,
    pub(super) high: f64,
    pub(super) from: f64,
    pub(super) to: f64,
}

impl Axis {
    pub(super) fn at(&self, value: f64) -> f64 {
        let span = if self.high > self.low { self.high - self.low } else { 1.0 };
        self.from + (value.clamp(self.low, self.high) - self.low) / span * (self.to - self.from)
    }

    pub(super) fn ticks(&self, most: usize) -> Vec<f64> {
        RangedCoordf64::from(self.low..self.high).key_points(most)
    }
}

pub(super) struct Canvas<'a> {
    area: DrawingArea<SVGBackend<'a>, Shift>,
}

#[derive(Clone, Copy)]
pub(super) struct Type {
    pub(super) size: f64,
    pub(super) colour: RGBColor,
    pub(super) bold: bool,
    pub(super) anchor: HPos,
}

pub(super) const LABEL: Type = Type { size: 12.5, colour: SOFT, bold: false, anchor: HPos::Left };

impl Type {
    pub(super) fn right(self) -> Self {
        Self { anchor: HPos::Right, ..self }
    }

    pub(super) fn centred(self) -> Self {
        Self { anchor: HPos::Center, ..self }
    }

    pub(super) fn ink(self) -> Self {
        Self { colour: INK, ..self }
    }

    pub(super) fn bold(self) -> Self {
        Self { bold: true, ..self }
    }

    /// A generous estimate: Helvetica's letters are a little over half an em wide.
    pub(super) fn width_of(self, text: &str) -> f64 {
        text.chars().count() as f64 * self.size * if self.bold { 0.57 } else { 0.52 }
    }
}

fn px(value: f64) -> i32 {
    (value * SCALE).round() as i32
}

fn point((x, y): (f64, f64)) -> (i32, i32) {
    (px(x), px(y))
}

/// Draws on a white sheet of the given size.
pub(super) fn draw(width: f64, height: f64, paint: impl FnOnce(&Canvas)) -> Drawing {
    let mut text = String::new();
    {
        let size = (px(width) as u32, px(height) as u32);
        let canvas = Canvas { area: SVGBackend::with_string(&mut text, size).into_drawing_area() };
        canvas.rectangle((0.0, 0.0), (width, height), WHITE, true);
        paint(&canvas);
        canvas.area.present().expect("a drawing in memory cannot fail to be written");
    }
    // The backend's own opening tag has fixed sizes and a namespace; `Drawing` writes the tag that each use needs.
    let body = text.split_once('\n').map_or_else(String::new, |(_, rest)| rest.to_owned());
    Drawing { width, height, body }
}

impl Canvas<'_> {
    pub(super) fn line(&self, points: &[(f64, f64)], colour: RGBColor, width: f64) {
        let style = colour.stroke_width((width * SCALE).round().max(1.0) as u32);
        let path = PathElement::new(points.iter().copied().map(point).collect::<Vec<_>>(), style);
        self.area.draw(&path).expect("a drawing in memory cannot fail");
    }

    pub(super) fn dashed(&self, points: &[(f64, f64)], colour: RGBColor, width: f64, (ink, gap): (f64, f64)) {
        if gap <= 0.0 || points.len() < 2 {
            return self.line(points, colour, width);
        }
        let style = colour.stroke_width((width * SCALE).round().max(1.0) as u32);
        let points: Vec<_> = points.iter().copied().map(point).collect();
        let path = DashedPathElement::new(points, px(ink), px(gap), style);
        self.area.draw(&path).expect("a drawing in memory cannot fail");
    }

    pub(super) fn rectangle(&self, a: (f64, f64), b: (f64, f64), colour: impl Into<RGBAColor>, filled: bool) {
        let colour: RGBAColor = colour.into();
        let style = if filled { colour.filled() } else { colour.stroke_width(SCALE as u32) };
        self.area.draw(&Rectangle::new([point(a), point(b)], style)).expect("a drawing in memory cannot fail");
    }

    pub(super) fn polygon(&self, points: &[(f64, f64)], colour: RGBColor) {
        let points: Vec<_> = points.iter().copied().map(point).collect();
        self.area.draw(&Polygon::new(points, colour.filled())).expect("a drawing in memory cannot fail");
    }

    pub(super) fn disc(&self, at: (f64, f64), radius: f64, colour: impl Into<RGBAColor>, filled: bool) {
        let colour: RGBAColor = colour.into();
        let style = if filled { colour.filled() } else { colour.stroke_width((1.5 * SCALE) as u32) };
        self.area.draw(&Circle::new(point(at), px(radius), style)).expect("a drawing in memory cannot fail");
    }

    pub(super) fn text(&self, text: &str, at: (f64, f64), kind: Type) {
        self.write(text, at, kind, FontTransform::None);
    }

    pub(super) fn upright(&self, text: &str, at: (f64, f64), kind: Type) {
        self.write(text, at, kind, FontTransform::Rotate270);
    }

    fn write(&self, text: &str, at: (f64, f64), kind: Type, turn: FontTransform) {
        let weight = if kind.bold { FontStyle::Bold } else { FontStyle::Normal };
        // The backend divides by 1.24 to turn a line height into a font size; undo it, to whole units.
        let style = FontDesc::new(FontFamily::Name(FONT), kind.size * SCALE * 1.24, weight)
            .transform(turn)
            .color(&kind.colour)
            .pos(Pos::new(kind.anchor, VPos::Center));
        self.area.draw_text(text, &style, point(at)).expect("a drawing in memory cannot fail");
    }

    pub(super) fn marker(&self, look: Look, (x, y): (f64, f64), r: f64) {
        let c = look.colour();
        match look {
            Look::Headline => {
                self.polygon(&[(x, y - r * 1.4), (x + r * 1.4, y), (x, y + r * 1.4), (x - r * 1.4, y)], c);
            }
            Look::Control => self.disc((x, y), r, c, false),
            Look::Series(i) => match turn(i) % 7 {
                0 => self.disc((x, y), r, c, true),
                1 => self.rectangle((x - r * 0.9, y - r * 0.9), (x + r * 0.9, y + r * 0.9), c, true),
                2 => self.polygon(&[(x, y - r * 1.2), (x + r * 1.15, y + r * 0.9), (x - r * 1.15, y + r * 0.9)], c),
                3 => self.polygon(&[(x, y + r * 1.2), (x + r * 1.15, y - r * 0.9), (x - r * 1.15, y - r * 0.9)], c),
                4 => {
                    self.line(&[(x - r, y - r), (x + r, y + r)], c, 2.0);
                    self.line(&[(x - r, y + r), (x + r, y - r)], c, 2.0);
                }
                5 => {
                    self.line(&[(x - r * 1.2, y), (x + r * 1.2, y)], c, 2.0);
                    self.line(&[(x, y - r * 1.2), (x, y + r * 1.2)], c, 2.0);
                }
                _ => self.rectangle((x - r * 0.8, y - r * 0.8), (x + r * 0.8, y + r * 0.8), c, false),
            },
        }
    }

    /// Draws the legend from `(x, y)` rightwards, wrapping at `right`.
    pub(super) fn legend(&self, entries: &[(Look, &str)], (x, y): (f64, f64), right: f64, lines: bool) {
        for (i, (dx, dy)) in legend_places(entries, right - x, lines).into_iter().enumerate() {
            let (look, name) = entries[i];
            let (left, middle) = (x + dx, y + dy);
            let key = if lines { 26.0 } else { 12.0 };
            if lines {
                self.dashed(&[(left, middle), (left + key, middle)], look.colour(), look.width(), look.dash());
            }
            self.marker(look, (left + key / 2.0, middle), 4.0);
            self.text(name, (left + key + 6.0, middle), LABEL.ink());
        }
    }
}

/// Offsets of the legend's entries in a box of the given width.
fn legend_places(entries: &[(Look, &str)], width: f64, lines: bool) -> Vec<(f64, f64)> {
    let (mut x, mut y) = (0.0, 0.0);
    entries
        .iter()
        .map(|(_, name)| {
            let wide = LABEL.width_of(name) + if lines { 50.0 } else { 36.0 };
            if x > 0.0 && x + wide > width {
                (x, y) = (0.0, y + 20.0);
            }
            let place = (x, y);
            x += wide;
            place
        })
        .collect()
}

pub(super) fn legend_height(entries: &[(Look, &str)], width: f64, lines: bool) -> f64 {
    legend_places(entries, width, lines).last().map_or(0.0, |(_, y)| y + 20.0)
}

/// A whole percentage, without a decimal unless ticks are closer than one.
pub(super) fn percent(value: f64, step: f64) -> String {
    let text = if step < 0.0099 { format!("{:.1} %", value * 100.0) } else { format!("{:.0} %", value * 100.0) };
    text.replace('-', "\u{2212}").replace("\u{2212}0 %", "0 %")
}

/// A number with as many decimals as its distance to the next tick asks for.
pub(super) fn plain(value: f64, step: f64) -> String {
    let decimals = if step >= 1.0 { 0 } else { (-step.log10()).ceil().clamp(1.0, 6.0) as usize };
    format!("{value:.decimals$}").replace('-', "\u{2212}")
}

pub(super) fn step(ticks: &[f64]) -> f64 {
    ticks.windows(2).map(|w| (w[1] - w[0]).abs()).fold(f64::INFINITY, f64::min)
}

/// The range that holds every finite value and the wanted ends, with room for error bars to end.
pub(super) fn range(values: impl Iterator<Item = f64>, low: f64, high: f64) -> (f64, f64) {
    let (a, b) = values.filter(|v| v.is_finite()).fold((low, high), |(a, b), v| (a.min(v), b.max(v)));
    (if a < low { a - (b - a) * 0.02 } else { a }, if b > high { b + (b - a) * 0.02 } else { b })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_two_of_many_series_have_the_same_marker() {
        let marker = |i: usize| draw(20.0, 20.0, |canvas| canvas.marker(Look::Series(i), (10.0, 10.0), 4.0)).inline("");
        assert_eq!((0..30).map(marker).collect::<BTreeSet<_>>().len(), 30);
    }
}
