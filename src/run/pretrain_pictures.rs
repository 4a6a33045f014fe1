//! A prior of what pictures look like, trained ahead of all studies.

use super::pretrain::{head, trainable};
use super::{Watch, provenance};
use crate::Error;
use crate::attack::image::kept::{self, Plan, Record};
use crate::attack::text::kept::RECORD;
use crate::data::{Keep, Picture, perceptual};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// What to train, as a file of `studies/` says it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PicturePretraining {
    /// Version of this format.
    pub schema: u32,
    /// Name of the prior, and of its folder.
    pub name: String,
    /// Freely licensed corpora; of each, the auxiliary side of the stable split.
    pub corpora: Vec<String>,
    /// Pixels a side.
    pub side_px: u32,
    /// Names every random stream.
    pub seed: u64,
    /// The network and its training.
    pub prior: Plan,
}

impl PicturePretraining {
    /// True where a plan is one of pictures: it has a table `prior`.
    pub fn is_meant(text: &str) -> bool {
        text.parse::<toml::Table>().is_ok_and(|table| table.contains_key("prior"))
    }

    /// Reads and checks a file; `path` only names it in messages.
    ///
    /// # Errors
    /// Every problem at once.
    pub fn parse(path: &str, text: &str) -> Result<Self, crate::study::Error> {
        let refuse = |problems: Vec<String>| crate::study::Error { path: path.to_owned(), problems };
        let plan: Self = toml::from_str(text).map_err(|e| refuse(vec![e.to_string()]))?;
        let mut problems = head(plan.schema, &plan.name, &plan.corpora);
        if plan.side_px == 0 || !plan.side_px.is_multiple_of(8) {
            problems.push(format!("`side_px` must be a multiple of 8, got {}", plan.side_px));
        }
        let Plan { latent, channels, steps, batch, lr } = plan.prior;
        if [latent, channels, steps, batch].contains(&0) || !(lr > 0.0 && lr <= 0.1) {
            problems.push("prior: all sizes must be at least 1, and `lr` in (0, 0.1]".to_owned());
        }
        if problems.is_empty() { Ok(plan) } else { Err(refuse(problems)) }
    }
}

/// Trains, and writes the folder `out`.
///
/// Pictures that look like one that may be a target of a study are left out, whichever corpus they come from.
///
/// # Errors
/// When a corpus cannot be had or the training fails.
pub fn execute(plan: &PicturePretraining, command: &str, out: &Path, watch: &dyn Watch) -> Result<Record, Error> {
    let meter = provenance::Meter::start();
    let keep = Keep { side_px: plan.side_px, ..Keep::default() };
    let (mut own, mut others, mut sources) = (Vec::<Picture>::new(), Vec::<Picture>::new(), Vec::new());
    for name in &plan.corpora {
        let (found, may, source) = trainable(name, &keep, "pictures", watch)?;
        sources.push(source);
        for (i, record) in found.records.into_iter().enumerate() {
            let side = if may.binary_search(&i).is_ok() { &mut own } else { &mut others };
            side.extend(record.picture);
        }
    }
    let all: Vec<&Picture> = others.iter().chain(&own).collect();
    // A cluster is named by its first member: those of pictures that may not be trained on come first.
    let clusters = perceptual::clusters(&all);
    let apart: Vec<&Picture> =
        (others.len()..all.len()).filter(|&i| clusters[i] >= others.len()).map(|i| all[i]).collect();
    watch.message(&format!("{} pictures, {} others look like a possible target", apart.len(), own.len() - apart.len()));
    std::fs::create_dir_all(out).map_err(|source| super::Error::Io { path: out.display().to_string(), source })?;
    let trained = kept::train(&apart, &plan.prior, plan.seed, out, watch)?;
    let record = Record {
        name: plan.name.clone(),
        corpora: sources,
        command: command.to_owned(),
        wall_s: meter.wall_s(),
        ..trained
    };
    let bytes = serde_json::to_vec_pretty(&record).expect("strings and numbers serialise");
    crate::attack::keep(&out.join(RECORD), &bytes)?;
    Ok(record)
}
