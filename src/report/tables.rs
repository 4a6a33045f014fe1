//! The figures of runs as CSV for programs and as LaTeX for papers. Numbers and names only.

use super::{Error, Pooled, Run, replace};
use crate::gate::Difference;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Every figure of every run as CSV: one row for each protection, attack and metric.
///
/// # Errors
/// A run folder that cannot be read, or a place that cannot be written.
pub fn write_csv(run_dirs: &[PathBuf], out: &Path) -> Result<(), Error> {
    let mut table = csv::Writer::from_writer(Vec::new());
    let failed = |e: csv::Error| Error::File { path: out.display().to_string(), why: e.to_string() };
    table
        .write_record([
            "run",
            "protection",
            "pipeline",
            "attack",
            "metric",
            "unit",
            "value",
            "low",
            "high",
            "n",
            "seeds",
            "floor",
            "blind",
        ])
        .map_err(failed)?;
    for dir in run_dirs {
        let run = Run::load(dir)?;
        let mut seen: Vec<(&str, &str, &str)> = Vec::new();
        for row in &run.rows {
            let key = (row.protection.as_str(), row.attack.as_str(), row.metric.as_str());
            if seen.contains(&key) {
                continue;
            }
            seen.push(key);
            let Pooled { value, ends, seeds, n, floor, blind, .. } = run.pooled(key.0, key.1, key.2);
            // Missing is empty, never 0.
            let number = |v: Option<f64>| v.map_or(String::new(), |v| v.to_string());
            let (low, high) = (ends.map(|e| e.0), ends.map(|e| e.1));
            let text = [&run.name, &row.protection, &row.pipeline, &row.attack, &row.metric, &row.unit];
            let numbers = [number(value), number(low), number(high), n.to_string(), seeds.len().to_string()];
            let last = [number(floor), number(blind)];
            table.write_record(text.into_iter().chain(&numbers).chain(&last)).map_err(failed)?;
        }
    }
    let bytes = table.into_inner().map_err(|e| Error::File { path: out.display().to_string(), why: e.to_string() })?;
    replace(out, &bytes)
}

/// The verdicts of every run as a LaTeX table with `booktabs` rules: `value [low, high]` in percent.
///
/// # Errors
/// A run folder that cannot be read, or a place that cannot be written.
pub fn write_latex(run_dirs: &[PathBuf], out: &Path) -> Result<(), Error> {
    let mut text = String::from(
        "% needs \\usepackage{booktabs}; leak and topics in percent, 95 % intervals over documents and seeds\n\
         \\begin{tabular}{llrrrrr}\n\\toprule\nrun & protection & leak & $n$ & identified & topics & $\\varepsilon$ \\\\\n\\midrule\n",
    );
    let percent = |v: f64| format!("{:.1}", 100.0 * v);
    for dir in run_dirs {
        let run = Run::load(dir)?;
        for p in &run.summary.protections {
            let s = &p.similarity;
            let leak = match (s.leak, s.low, s.high) {
                (Some(v), Some(low), Some(high)) => format!("{} [{}, {}]", percent(v), percent(low), percent(high)),
                (Some(v), ..) => percent(v),
                _ => "--".to_owned(),
            };
            let topics = p.utility.topic_accuracy;
            let topics = topics
                .map_or("--".to_owned(), |t| format!("{} [{}, {}]", percent(t.value), percent(t.low), percent(t.high)));
            let identified = p.identified.top1.map_or("--".to_owned(), percent);
            let epsilon = p.guarantee.epsilon.map_or("--".to_owned(), |e| format!("{e:.2}"));
            let _ = writeln!(
                text,
                "{} & {} & {leak} & {} & {identified} & {topics} & {epsilon} \\\\",
                escaped(&run.summary.study),
                escaped(&p.name),
                s.n
            );
        }
    }
    text += "\\bottomrule\n\\end{tabular}\n";
    replace(out, text.as_bytes())
}

/// Paired differences as CSV.
///
/// # Errors
/// A place that cannot be written.
pub fn write_differences(differences: &[Difference], out: &Path) -> Result<(), Error> {
    let mut table = csv::Writer::from_writer(Vec::new());
    let failed = |e: csv::Error| Error::File { path: out.display().to_string(), why: e.to_string() };
    table
        .write_record([
            "protection",
            "attack",
            "metric",
            "unit",
            "first",
            "second",
            "difference",
            "low",
            "high",
            "n",
            "method",
        ])
        .map_err(failed)?;
    for d in differences {
        let number = |v: Option<f64>| v.map_or(String::new(), |v| v.to_string());
        let [value, low, high] =
            [d.difference.map(|i| i.value), d.difference.map(|i| i.low), d.difference.map(|i| i.high)].map(number);
        let method =
            serde_json::to_value(d.method).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default();
        let (first, second, n) = (d.first.to_string(), d.second.to_string(), d.n.to_string());
        let row = [&d.protection, &d.attack, &d.metric, &d.unit, &first, &second, &value, &low, &high, &n, &method];
        table.write_record(row).map_err(failed)?;
    }
    let bytes = table.into_inner().map_err(|e| Error::File { path: out.display().to_string(), why: e.to_string() })?;
    replace(out, &bytes)
}

/// Text that LaTeX prints as it is.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars().filter(|c| !c.is_control()) {
        match c {
            '\\' => out += "\\textbackslash{}",
            '~' => out += "\\textasciitilde{}",
            '^' => out += "\\textasciicircum{}",
            '_' | '%' | '&' | '#' | '$' | '{' | '}' => {
                out.push('\\');
                out.push(c);
            }
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latex_prints_what_it_is_given() {
        assert_eq!(
            escaped("a_b 50% {x} \\y ~^$&#"),
            "a\\_b 50\\% \\{x\\} \\textbackslash{}y \\textasciitilde{}\\textasciicircum{}\\$\\&\\#"
        );
    }
}
