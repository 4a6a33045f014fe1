//! The same figures as Vega-Lite specifications, for whoever wants to draw them otherwise: numbers and names, never texts.
//!
//! Each specification carries its data. A figure's SVG is drawn by `chart.rs` from the same rows.

use super::chart::{Look, Panel, Plane, Series, Spot, StripRow};
use serde_json::{Value, json};

const SCHEMA: &str = "https://vega.github.io/schema/vega-lite/v6.json";
const SHARE: &str = ".0%";

/// A specification of `width` pixels: `values` under `layers`.
fn spec(title: &str, width: f64, values: &[Value], layers: &Value) -> Value {
    json!({
        "$schema": SCHEMA, "title": title, "width": width - 160.0, "height": 320.0,
        "data": { "values": values }, "layer": layers,
    })
}

/// The colours of the SVG for the same names.
fn colours(names: &[(Look, &str)]) -> Value {
    json!({
        "field": "series", "type": "nominal", "title": null,
        "scale": {
            "domain": names.iter().map(|(_, name)| *name).collect::<Vec<_>>(),
            "range": names.iter().map(|(look, _)| look.hex()).collect::<Vec<_>>(),
        },
    })
}

fn low_high(ends: Option<(f64, f64)>) -> (Option<f64>, Option<f64>) {
    (ends.map(|e| e.0), ends.map(|e| e.1))
}

/// See [`super::chart::strip`].
pub(super) fn strip(title: &str, rows: &[StripRow], legend: &[(Look, &str)], x_label: &str) -> Value {
    let name = |look: Look| legend.iter().find(|(known, _)| *known == look).map(|(_, name)| *name);
    let values: Vec<Value> = rows
        .iter()
        .flat_map(|row| row.marks.iter().map(move |mark| (row, mark)))
        .map(|(row, mark)| {
            let (low, high) = low_high(mark.ends);
            json!({ "row": row.label, "note": row.note, "series": name(mark.look), "value": mark.value, "low": low,
                    "high": high, "seeds": mark.seeds })
        })
        .collect();
    // Rows of one protection may differ by their note: attackers beside their twins.
    let y = json!({ "field": "row", "type": "nominal", "sort": null, "title": null });
    let offset = json!({ "field": "series", "type": "nominal" });
    let x = json!({ "field": "value", "type": "quantitative", "title": x_label, "axis": { "format": SHARE } });
    let layers = json!([
        { "mark": { "type": "rule", "strokeWidth": 3, "opacity": 0.4 },
          "encoding": { "y": y, "yOffset": offset, "x": { "field": "low", "type": "quantitative", "title": x_label },
                        "x2": { "field": "high" }, "color": colours(legend) } },
        { "mark": { "type": "point", "filled": true, "size": 60, "tooltip": { "content": "data" } },
          "encoding": { "y": y, "yOffset": offset, "x": x, "color": colours(legend) } },
    ]);
    spec(title, super::chart::WIDE, &values, &layers)
}

/// See [`super::chart::lines`]; `x` is the number of a step where the axis has named steps.
pub(super) fn lines(title: &str, series: &[Series], plane: &Plane<'_>) -> Value {
    let mut legend: Vec<(Look, &str)> = Vec::new();
    let mut values = Vec::new();
    for (line, its) in series.iter().enumerate() {
        if !legend.iter().any(|(_, name)| *name == its.name) {
            legend.push((its.look, &its.name));
        }
        for &(x, y, ends) in &its.points {
            let (low, high) = low_high(ends);
            let step = plane.steps.get(x as usize);
            values.push(
                json!({ "series": its.name, "line": line, "x": x, "step": step, "y": y, "low": low, "high": high }),
            );
        }
    }
    let x = if plane.steps.is_empty() {
        json!({ "field": "x", "type": "quantitative", "title": plane.x_label })
    } else {
        json!({ "field": "step", "type": "ordinal", "sort": plane.steps, "title": plane.x_label })
    };
    let axis = if plane.shares { json!({ "format": SHARE }) } else { json!({}) };
    let y = json!({ "field": "y", "type": "quantitative", "title": plane.y_label, "axis": axis, "scale": { "zero": plane.shares } });
    let low = json!({ "field": "low", "type": "quantitative", "title": plane.y_label });
    let layers = json!([
        { "mark": { "type": "line", "point": series.iter().any(|s| s.marked), "tooltip": { "content": "data" } },
          "encoding": { "x": x, "y": y, "color": colours(&legend), "detail": { "field": "line", "type": "nominal" } } },
        { "transform": [{ "filter": "isValid(datum.low)" }], "mark": { "type": "rule", "opacity": 0.5 },
          "encoding": { "x": x, "y": low, "y2": { "field": "high" }, "color": colours(&legend) } },
    ]);
    spec(title, plane.width, &values, &layers)
}

/// See [`super::chart::frontier`].
pub(super) fn frontier(title: &str, spots: &[Spot], x_label: &str, y_label: &str) -> Value {
    let values: Vec<Value> = spots
        .iter()
        .map(|s| {
            let ((left, right), (low, high)) = (low_high(s.x.1), low_high(s.y.1));
            json!({ "name": s.label, "utility": s.x.0, "left": left, "right": right, "leak": s.y.0, "low": low,
                    "high": high, "dominated": s.dominated })
        })
        .collect();
    let axis = |field: &str, title: &str| json!({ "field": field, "type": "quantitative", "title": title, "axis": { "format": SHARE } });
    let colour = json!({ "field": "dominated", "type": "nominal", "scale": { "domain": [false, true], "range": [Look::Series(0).hex(), Look::Control.hex()] } });
    let layers = json!([
        { "mark": { "type": "rect", "opacity": 0.15 },
          "encoding": { "x": axis("left", x_label), "x2": { "field": "right" }, "y": axis("low", y_label), "y2": { "field": "high" }, "color": colour } },
        { "mark": { "type": "point", "filled": true, "size": 70, "tooltip": { "content": "data" } },
          "encoding": { "x": axis("utility", x_label), "y": axis("leak", y_label), "color": colour } },
        { "mark": { "type": "text", "align": "left", "dx": 8 },
          "encoding": { "x": axis("utility", x_label), "y": axis("leak", y_label), "text": { "field": "name" } } },
    ]);
    spec(title, super::chart::WIDE, &values, &layers)
}

/// See [`super::chart::histograms`].
pub(super) fn histograms(title: &str, panels: &[Panel], x_label: &str) -> Value {
    let values: Vec<Value> =
        panels.iter().flat_map(|p| p.values.iter().map(|v| json!({ "panel": p.label, "value": v }))).collect();
    let lines: Vec<Value> =
        panels.iter().map(|p| json!({ "panel": p.label, "floor": p.floor, "mean": p.mean })).collect();
    let panel = json!({ "field": "panel", "type": "nominal", "sort": null, "title": null });
    json!({
        "$schema": SCHEMA, "title": title, "data": { "values": values }, "columns": 2,
        "usermeta": { "panels": lines },
        "facet": panel,
        "spec": {
            "width": super::chart::HALF - 80.0, "height": 110.0, "mark": { "type": "bar", "tooltip": true },
            "encoding": {
                "x": { "field": "value", "type": "quantitative", "bin": { "maxbins": 24 }, "title": x_label },
                "y": { "aggregate": "count", "type": "quantitative", "title": "targets" },
            },
        },
    })
}
