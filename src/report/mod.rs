//! The report: a pure function of what a run left behind.
//!
//! [`Run::load`] reads a run folder, [`write()`] draws one HTML file from one or several of them, [`write_plots`] leaves the
//! figures as SVG files. The same records give the same bytes: no clock, no path, no host name enters the page. It needs no script
//! and no network, and says so in its content security policy.
//!
//! | file | what it holds |
//! |---|---|
//! | `verdict.rs` | the verdict in a sentence, and the other wording of numbers |
//! | `chart` | geometry: a façade over plotters' SVG backend |
//! | `figures.rs` | which figures a run has, with captions and data tables |
//! | `gallery.rs` | which reconstructions are shown, and the words they share with the original |
//! | `tables.rs` | CSV and LaTeX |
//! | `vega.rs`, `tensorboard.rs` | the figures and the learning curves for other programs |
//! | `evidence.rs` | the run as evidence for a control of a verification standard |
//! | `matrix.rs` | attackers and protections as tables |
//! | `provenance.rs` | the manifest as lines of a table |
//! | `page.rs` | the page as plain strings for the template `report.html` |

mod chart;
mod evidence;
mod figures;
#[cfg(test)]
mod fixture;
mod gallery;
mod matrix;
mod page;
mod provenance;
pub mod simulation;
mod tables;
mod tensorboard;
mod vega;
mod verdict;
mod wall;

pub use tables::{write_csv, write_differences, write_latex};
pub use tensorboard::write_tensorboard;

use crate::data::Picture;
use crate::error::Exit;
use crate::run::cell::ORIGINALS;
use crate::run::record::{Curve, GuessRecord, ProtectionSummary, Row, Summary};
use crate::run::sheet;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

/// Why a report cannot be drawn.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the run folder is missing or malformed.
    #[error("run folder file `{path}`: {why}")]
    File {
        /// The file.
        path: String,
        /// What is wrong, and the remedy.
        why: String,
    },
    /// The report cannot be written.
    #[error("cannot write `{path}`; choose a writable place with --out")]
    Write {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// No run folder was named.
    #[error("no run folder given; name at least one")]
    Nothing,
}

impl Error {
    /// Bad input; naming no run at all is a usage error.
    pub fn exit(&self) -> Exit {
        match self {
            Error::Nothing => Exit::Usage,
            Error::File { .. } | Error::Write { .. } => Exit::Input,
        }
    }
}

/// What may be shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// Leaves out every original, guess and error text, and replaces record ids by keyed hashes.
    pub redacted: bool,
}

/// A run folder in memory: its records, and the guesses of each protection's worst attacker.
#[derive(Debug, Clone)]
pub struct Run {
    name: String,
    summary: Summary,
    rows: Vec<Row>,
    curves: Vec<Curve>,
    manifest: Option<serde_json::Value>,
    plan: Option<String>,
    /// Policy verdict and hashes, for an auditor.
    files: evidence::Files,
    /// BLAKE3 of the files that every printed number comes from.
    sources: Vec<(&'static str, String)>,
    /// By cell id.
    guesses: BTreeMap<String, Vec<GuessRecord>>,
    /// The pictures of the same guesses, by cell id; none in a study of texts.
    pictures: BTreeMap<String, Vec<Picture>>,
    /// The targets' own pictures, in their order.
    originals: Vec<Picture>,
}

impl Run {
    /// Reads `summary.json` and `records.jsonl`, and where they exist `manifest.json`, `curves.jsonl`, `plan.toml` and the
    /// guesses that the report shows: those of each protection's worst attacker.
    ///
    /// # Errors
    /// A missing summary or records file, or a malformed one; the message names the file and the line.
    pub fn load(dir: &Path) -> Result<Run, Error> {
        let summary: Summary = match read(&dir.join("summary.json"))? {
            Some(text) => parse(&text, &dir.join("summary.json"), None)?,
            None => return Err(missing(&dir.join("summary.json"))),
        };
        let rows: Vec<Row> = lines(&dir.join("records.jsonl"))?.ok_or_else(|| missing(&dir.join("records.jsonl")))?;
        let manifest = match read(&dir.join("manifest.json"))? {
            Some(text) => Some(parse(&text, &dir.join("manifest.json"), None)?),
            None => None,
        };
        let mut guesses = BTreeMap::new();
        for row in &rows {
            let shown = summary
                .protections
                .iter()
                .any(|p| p.name == row.protection && p.best_attack.as_deref() == Some(row.attack.as_str()));
            // A cell id that is not a plain file name would lead out of the folder; such a run has no guesses to show.
            if shown
                && !guesses.contains_key(&row.cell)
                && !row.cell.contains(['/', '\\', '\0'])
                && let Some(records) = lines(&dir.join("guesses").join(format!("{}.jsonl", row.cell)))?
            {
                guesses.insert(row.cell.clone(), records);
            }
        }
        let sheet = |name: &str, n: usize, (width, height): (u32, u32)| -> Option<Vec<Picture>> {
            sheet::read(&std::fs::read(dir.join("guesses").join(format!("{name}.png"))).ok()?, n, width, height)
        };
        let (mut pictures, mut originals) = (BTreeMap::new(), Vec::new());
        for (cell, records) in &guesses {
            let records: &Vec<GuessRecord> = records;
            let Some(size) = records.first().and_then(|r| r.size) else { continue };
            pictures.extend(sheet(cell, records.len(), size).map(|found| (cell.clone(), found)));
            if originals.len() < records.len() {
                originals = sheet(ORIGINALS, records.len(), size).unwrap_or(originals);
            }
        }
        let mut sources = Vec::new();
        for file in ["summary.json", "records.jsonl"] {
            if let Some(text) = read(&dir.join(file))? {
                sources.push((file, blake3::hash(text.as_bytes()).to_hex().to_string()));
            }
        }
        let name = dir.file_name().map_or_else(|| summary.study.clone(), |n| n.to_string_lossy().into_owned());
        Ok(Run {
            name,
            curves: lines(&dir.join("curves.jsonl"))?.unwrap_or_default(),
            plan: read(&dir.join("plan.toml"))?,
            files: evidence::Files::read(dir)?,
            sources,
            summary,
            rows,
            manifest,
            guesses,
            pictures,
            originals,
        })
    }

    /// The attackers whose guesses were judged, in the order of the records; non-adaptive twins have a figure of their own.
    fn attacks(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for row in self.rows.iter().filter(|row| row.metric == "judge_leak") {
            let is_twin = !row.adaptive && row.attack != "blind";
            if !is_twin && !names.contains(&row.attack.as_str()) {
                names.push(&row.attack);
            }
        }
        names
    }

    /// Every seed of the records, in increasing order.
    fn seeds(&self) -> Vec<u64> {
        let mut seeds: Vec<u64> = self.rows.iter().map(|r| r.seed).collect();
        seeds.sort_unstable();
        seeds.dedup();
        seeds
    }

    /// The unprotected release, if the study has one.
    fn unprotected(&self) -> Option<&ProtectionSummary> {
        verdict::unprotected(&self.summary)
    }

    /// One metric of one attacker against one protection, over all seeds.
    fn pooled(&self, protection: &str, attack: &str, metric: &str) -> Pooled {
        Pooled::of(self.rows.iter().filter(|r| r.protection == protection && r.attack == attack && r.metric == metric))
    }

    /// The guesses of a protection's worst attacker, one group for each seed, in the order of the records.
    fn worst_guesses(&self, protection: &ProtectionSummary) -> Vec<&[GuessRecord]> {
        let mut cells: Vec<&str> = Vec::new();
        for row in &self.rows {
            let its = row.protection == protection.name && Some(&row.attack) == protection.best_attack.as_ref();
            if its && !cells.contains(&row.cell.as_str()) {
                cells.push(&row.cell);
            }
        }
        cells.iter().filter_map(|cell| self.guesses.get(*cell)).map(Vec::as_slice).collect()
    }

    /// The first seed's guesses of a protection's worst attacker, with their pictures.
    fn worst_pictures(&self, protection: &ProtectionSummary) -> Option<(&[GuessRecord], &[Picture])> {
        let its =
            |row: &&Row| row.protection == protection.name && Some(&row.attack) == protection.best_attack.as_ref();
        let cell = &self.rows.iter().find(its)?.cell;
        Some((self.guesses.get(cell)?, self.pictures.get(cell)?))
    }

    /// Warnings that a reader must see first: assumptions that begin with `toy:` or `smoke:`.
    fn labels(&self) -> Vec<&str> {
        let warns = |line: &&str| line.starts_with("toy:") || line.starts_with("smoke:");
        self.summary.assumptions.iter().map(String::as_str).filter(warns).collect()
    }
}

/// One metric over the seeds of a study.
///
/// The value is the mean over seeds. The interval is the hull of the seeds' own intervals: it does not shrink with the
/// number of seeds, so it errs on the wide side; `summary.json` has the interval that resamples targets and seeds together.
#[derive(Debug, Clone, Default, PartialEq)]
struct Pooled {
    value: Option<f64>,
    ends: Option<(f64, f64)>,
    seeds: Vec<f64>,
    n: usize,
    floor: Option<f64>,
    blind: Option<f64>,
    failed: usize,
}

impl Pooled {
    fn of<'a>(rows: impl Iterator<Item = &'a Row>) -> Pooled {
        let rows: Vec<&Row> = rows.collect();
        let mean = |values: Vec<f64>| {
            let finite: Vec<f64> = values.into_iter().filter(|v| v.is_finite()).collect();
            (!finite.is_empty()).then(|| finite.iter().sum::<f64>() / finite.len() as f64)
        };
        let seeds: Vec<f64> = rows.iter().filter_map(|r| r.value).filter(|v| v.is_finite()).collect();
        let low = rows.iter().filter_map(|r| r.low).filter(|v| v.is_finite()).reduce(f64::min);
        let high = rows.iter().filter_map(|r| r.high).filter(|v| v.is_finite()).reduce(f64::max);
        Pooled {
            value: mean(seeds.clone()),
            ends: low.zip(high),
            n: rows.iter().map(|r| r.n).max().unwrap_or(0),
            floor: mean(rows.iter().filter_map(|r| r.floor).collect()),
            blind: mean(rows.iter().filter_map(|r| r.blind).collect()),
            failed: rows.iter().filter(|r| r.error.is_some()).count(),
            seeds,
        }
    }
}

/// Draws one report from one or several run folders, atomically: a reader sees the old file or the new one.
///
/// # Errors
/// A run folder that cannot be read, or a place that cannot be written.
pub fn write(run_dirs: &[PathBuf], out: &Path, options: Options) -> Result<(), Error> {
    if run_dirs.is_empty() {
        return Err(Error::Nothing);
    }
    let runs = run_dirs.iter().map(|dir| Run::load(dir)).collect::<Result<Vec<_>, _>>()?;
    let paired = match run_dirs {
        [first, second] => page::Paired::of(first, second),
        _ => page::Paired::None,
    };
    replace(out, page::html(&runs, &paired, options).as_bytes())
}

/// Leaves every figure of a run as `plots/<figure>.svg` in its folder, beside its Vega-Lite specification `<figure>.vl.json`;
/// they hold numbers and names, never texts.
///
/// # Errors
/// A run folder that cannot be read or written.
pub fn write_plots(run_dir: &Path) -> Result<(), Error> {
    let run = Run::load(run_dir)?;
    let folder = run_dir.join("plots");
    std::fs::create_dir_all(&folder).map_err(|source| Error::Write { path: folder.display().to_string(), source })?;
    for figure in figures::all(&run) {
        replace(&folder.join(format!("{}.svg", figure.id)), figure.drawing.standalone(&figure.alt).as_bytes())?;
        replace(&folder.join(format!("{}.vl.json", figure.id)), format!("{:#}\n", figure.spec).as_bytes())?;
    }
    Ok(())
}

fn replace(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let put = || -> std::io::Result<()> {
        let mut file = atomic_write_file::AtomicWriteFile::open(path)?;
        file.write_all(bytes)?;
        file.commit()
    };
    put().map_err(|source| Error::Write { path: path.display().to_string(), source })
}

fn missing(path: &Path) -> Error {
    Error::File {
        path: path.display().to_string(),
        why: "is missing; let `stitchback run` finish in this folder first".to_owned(),
    }
}

/// The text of a file, `None` where there is no such file.
fn read(path: &Path) -> Result<Option<String>, Error> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::File { path: path.display().to_string(), why: format!("cannot be read: {e}") }),
    }
}

/// One value for each line of a file, `None` where there is no such file.
fn lines<T: DeserializeOwned>(path: &Path) -> Result<Option<Vec<T>>, Error> {
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::File { path: path.display().to_string(), why: format!("cannot be read: {e}") }),
    };
    let mut values = Vec::new();
    for (i, line) in BufReader::new(file).lines().enumerate() {
        let line = line.map_err(|e| Error::File {
            path: format!("{}:{}", path.display(), i + 1),
            why: format!("cannot be read: {e}"),
        })?;
        if !line.trim().is_empty() {
            values.push(parse(&line, path, Some(i + 1))?);
        }
    }
    Ok(Some(values))
}

/// Parses one JSON text. The message has the place and the kind of fault but never the text, which may be private.
fn parse<T: DeserializeOwned>(text: &str, path: &Path, line: Option<usize>) -> Result<T, Error> {
    serde_json::from_str(text).map_err(|e| {
        let line = line.unwrap_or(e.line());
        let fault = match e.classify() {
            serde_json::error::Category::Eof => "ends too early".to_owned(),
            serde_json::error::Category::Syntax => format!("is not JSON at column {}", e.column()),
            _ => format!("does not have the expected fields at column {}", e.column()),
        };
        Error::File {
            path: format!("{}:{line}", path.display()),
            why: format!("{fault}; run the study again to restore it"),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_malformed_line_names_its_file_and_number_but_not_its_text() {
        let folder = fixture::folder();
        let path = folder.path().join("guesses").join("unprotected-decoder-1.jsonl");
        let mut text = std::fs::read_to_string(&path).expect("the fixture has guesses");
        text.push_str("{\"target\": \"zanzibar-canary\", \"original\": 3}\n");
        replace(&path, text.as_bytes()).expect("a file can be written");
        let message = Run::load(folder.path()).expect_err("the line is malformed").to_string();
        assert!(message.contains("unprotected-decoder-1.jsonl:61"), "{message}");
        assert!(!message.contains("zanzibar"), "{message}");
    }

    #[test]
    fn a_folder_without_a_summary_says_what_to_do() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let error = Run::load(folder.path()).expect_err("the folder is empty");
        assert!(error.to_string().contains("summary.json") && error.to_string().contains("stitchback run"), "{error}");
        assert_eq!(error.exit(), Exit::Input);
    }

    #[test]
    fn a_run_without_optional_files_still_has_a_report() {
        let folder = fixture::folder();
        for name in ["manifest.json", "curves.jsonl", "plan.toml"] {
            std::fs::remove_file(folder.path().join(name)).expect("the fixture has the file");
        }
        std::fs::remove_dir_all(folder.path().join("guesses")).expect("the fixture has guesses");
        let out = folder.path().join("report.html");
        write(&[folder.path().to_owned()], &out, Options::default()).expect("a report");
        let page = std::fs::read_to_string(out).expect("it was written");
        assert!(page.contains("no guesses of the worst attackers") && !page.contains("Contains reconstructions"));
    }

    #[test]
    fn plots_are_files_of_their_own_and_hold_no_text_of_the_data() {
        let folder = fixture::folder();
        write_plots(folder.path()).expect("plots");
        let mut names: Vec<_> = std::fs::read_dir(folder.path().join("plots"))
            .expect("the folder was made")
            .map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        let ids =
            ["curve-1", "curve-2", "leak-by-noise", "leak-by-protection", "leak-by-utility", "similarity-by-target"];
        assert_eq!(names, ids.map(|id| [format!("{id}.svg"), format!("{id}.vl.json")]).concat());
        for name in names {
            let text = std::fs::read_to_string(folder.path().join("plots").join(&name)).expect("a plot");
            if name.ends_with(".vl.json") {
                let spec: serde_json::Value = serde_json::from_str(&text).expect("JSON");
                assert!(spec["data"]["values"].as_array().is_some_and(|rows| !rows.is_empty()), "{name} has no data");
            } else {
                assert!(text.starts_with("<svg ") && text.trim_end().ends_with("</svg>"));
            }
            assert!(fixture::CANARIES.iter().all(|canary| !text.contains(canary)), "{name}");
        }
    }

    #[test]
    fn seeds_are_pooled_without_counting_failures_as_zero() {
        let folder = fixture::folder();
        let run = Run::load(folder.path()).expect("the fixture is a run folder");
        let leak = run.pooled("unprotected", "decoder", "judge_leak");
        let (low, high) = leak.ends.expect("both seeds have an interval");
        assert!((leak.value.expect("two values") - 0.612).abs() < 1e-9);
        assert!((low - 0.571).abs() < 1e-9 && (high - 0.653).abs() < 1e-9, "{low} {high}");
        let failed = run.pooled("gaussian-0.25", "corrector", "judge_leak");
        assert_eq!((failed.value, failed.ends, failed.failed), (None, None, 2));
    }
}
