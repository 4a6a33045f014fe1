//! `stitchback` for Python: bytes and paths in, bytes and JSON out; `stitchback/__init__.py` makes arrays and dicts of them.
//!
//! Python's lock is let go while anything is computed. Messages are those of the program: what was given wrongly is a
//! `ValueError`, Ctrl-C a `KeyboardInterrupt`, the rest a `RuntimeError`.

use pyo3::exceptions::{PyKeyboardInterrupt, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use rand::SeedableRng;
use std::path::PathBuf;
use stitchback::attack::Progress;
use stitchback::data::Picture;
use stitchback::data::asset::Report;
use stitchback::encode::Embeddings;
use stitchback::measure::image::pairs::{PicturePairs, score_pictures};
use stitchback::measure::pairs::{Pairs, Scored, score_pairs};
use stitchback::protect::{self as protection, Pipeline};
use stitchback::run::{self, Watch, setup};
use stitchback::study::Own;
use stitchback::{Error, Exit, seed};

/// Says nothing, and stops when Python was interrupted.
struct Quiet;

impl Report for Quiet {
    fn message(&self, _: &str) {}
    fn progress(&self, _: u64, _: u64) {}
}

impl Progress for Quiet {
    fn update(&self, _: usize, _: usize, _: &str) {}

    fn is_interrupted(&self) -> bool {
        Python::attach(|py| py.check_signals().is_err())
    }
}

impl Watch for Quiet {
    fn cell(&self, _: usize, _: usize, _: &str) {}
}

/// The error with the whole chain of its causes, as the program prints it.
fn raised(error: impl Into<Error>) -> PyErr {
    let error = error.into();
    let mut text = error.to_string();
    let mut next = std::error::Error::source(&error);
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    match error.exit() {
        Exit::Usage | Exit::Input => PyValueError::new_err(text),
        Exit::Interrupted => PyKeyboardInterrupt::new_err(text),
        _ => PyRuntimeError::new_err(text),
    }
}

fn as_json(value: &impl serde::Serialize) -> PyResult<String> {
    serde_json::to_string(value).map_err(|e| PyRuntimeError::new_err(e.to_string()))
}

/// Rows of `dim` little-endian `f32` in `values`; the released rows, their coordinates, and what is claimed for them.
#[pyfunction]
fn protect<'py>(
    py: Python<'py>,
    pipeline: &str,
    values: &[u8],
    dim: usize,
    strata: Option<Vec<u32>>,
    seed: Option<u64>,
    secure: bool,
) -> PyResult<(Bound<'py, PyBytes>, usize, String)> {
    let mut rng = match seed {
        Some(root) => self::seed::stream(root, "protect", "noise"),
        None => seed::Stream::try_from_rng(&mut rand::rngs::SysRng)
            .map_err(|e| PyRuntimeError::new_err(format!("the system's random generator failed: {e}")))?,
    };
    let values = values.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    let (release, about) = py
        .detach(|| -> Result<_, Error> {
            let mut pipeline = Pipeline::parse(pipeline)?;
            if secure {
                pipeline = pipeline.on_grid()?;
            }
            let clean = Embeddings::new(values, dim)?;
            let release = pipeline.release(&clean, strata.as_deref(), &mut rng)?;
            let about = protection::metadata(&pipeline, &pipeline.claim_at(dim), &release, seed.is_some());
            Ok((release, about))
        })
        .map_err(raised)?;
    let bytes: Vec<u8> = release.vectors.values().iter().flat_map(|v| v.to_le_bytes()).collect();
    Ok((PyBytes::new(py, &bytes), release.vectors.dim(), about.to_string()))
}

/// Scores pairs with the judge called `judge`, if any.
fn scored(
    py: Python<'_>,
    judge: Option<&str>,
    score: impl FnOnce(Option<&dyn stitchback::encode::Encoder>) -> Result<Vec<Scored>, Error> + Send,
) -> PyResult<String> {
    let scores = py.detach(|| {
        let judge = judge.map(|name| setup::encoder(name, &mut Vec::new(), &Quiet)).transpose()?;
        score(judge.as_deref())
    });
    as_json(&scores.map_err(raised)?)
}

/// Every metric of texts on pairs; originals with one label are one document.
#[pyfunction]
fn score_texts(
    py: Python<'_>,
    truths: Vec<String>,
    guesses: Vec<String>,
    documents: Vec<u32>,
    judge: Option<&str>,
) -> PyResult<String> {
    let pairs = Pairs { truths, guesses, documents };
    scored(py, judge, |judge| Ok(score_pairs(&pairs, judge)?))
}

/// Every metric of pictures on pairs of `(height, width, 3)` bytes.
#[pyfunction]
fn score_images(
    py: Python<'_>,
    truths: Vec<(u32, u32, Vec<u8>)>,
    guesses: Vec<(u32, u32, Vec<u8>)>,
    judge: Option<&str>,
) -> PyResult<String> {
    let pictures = |given: Vec<(u32, u32, Vec<u8>)>| -> Vec<Picture> {
        given.into_iter().map(|(height, width, rgb)| Picture::new(width, height, rgb)).collect()
    };
    let pairs = PicturePairs::new(pictures(truths), pictures(guesses));
    scored(py, judge, |judge| Ok(score_pictures(&pairs, judge)?))
}

/// `summary.json` of a study on vectors and records that lie in files.
#[pyfunction]
#[expect(clippy::too_many_arguments, reason = "the named arguments of a Python function")]
fn attack(
    py: Python<'_>,
    vectors: PathBuf,
    records: PathBuf,
    encoder: String,
    judge: String,
    pipelines: Vec<String>,
    attacks: Vec<String>,
    targets: Option<usize>,
    seeds: u64,
    out: PathBuf,
) -> PyResult<String> {
    let own = Own { vectors, records, encoder, judge, pipelines, attacks, targets, seeds };
    let finished = py.detach(|| run::execute(&own.study("attack")?, Some(&out), &Quiet)).map_err(raised)?;
    match finished.failed.first() {
        Some(failed) => Err(PyRuntimeError::new_err(failed.clone())),
        None => as_json(&finished.summary),
    }
}

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(protect, module)?)?;
    module.add_function(wrap_pyfunction!(score_texts, module)?)?;
    module.add_function(wrap_pyfunction!(score_images, module)?)?;
    module.add_function(wrap_pyfunction!(attack, module)?)
}
