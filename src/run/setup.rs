//! From a study to its workbench: fetch, read, split, guard, encode.

use super::Watch;
use super::bench::{Bench, Side};
use crate::Error;
use crate::attack::AttackConfig;
use crate::attack::text::prior::{Prior, SmolLm};
use crate::data::Keep;
use crate::data::corpus::{self, Corpus};
use crate::data::split::{self, Split, SplitRequest};
use crate::data::{self, Medium, Picture, Record, asset, duplicate};
use crate::encode::{self, Cached, Embeddings, Encoder, Given};
use crate::study::{Contender, Study};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::Path;

/// Texts whose vectors are at least this close are near-duplicates, wherever they come from.
pub(super) const NEAR_DUPLICATE: f32 = 0.95;

/// Everything that a study names, opened.
pub struct Materials {
    corpus: Corpus,
    split: Split,
    victim: Box<dyn Encoder>,
    judges: Vec<Box<dyn Encoder>>,
    prior: Option<SmolLm>,
    surrogate: Option<Box<dyn Encoder>>,
    assets: Vec<Value>,
    nearest: Nearest,
}

/// How close the attackers' own records come to the targets.
#[derive(Debug, Clone, Copy, Default)]
struct Nearest {
    dropped: usize,
    median: f32,
    largest: f32,
}

/// Opens the study's corpus and encoders, fetching what is missing.
pub fn open(study: &Study, watch: &dyn Watch) -> Result<Materials, Error> {
    let mut assets = Vec::new();
    let mut victim = match study.encode.victim.as_str() {
        "" => None,
        name => Some(encoder(name, &mut assets, watch)?),
    };
    let judges =
        study.encode.judges.iter().map(|name| encoder(name, &mut assets, watch)).collect::<Result<Vec<_>, _>>()?;
    let surrogate = match study.encode.surrogate.as_str() {
        "" => None,
        name => Some(encoder(name, &mut assets, watch)?),
    };
    let wants_prior = |a: &AttackConfig| matches!(a, AttackConfig::Search(s) if s.strong_prior().is_some());
    let prior = if study.attack.iter().any(|a| wants_prior(&a.config)) {
        let asset = asset::ensure(SmolLm::NAME, watch)?;
        assets.push(describe(&asset));
        Some(SmolLm::open(&asset)?)
    } else {
        None
    };
    let keep = Keep {
        min_chars: study.data.min_chars,
        max_chars: study.data.max_chars,
        min_words: study.data.min_words,
        side_px: study.data.side_px,
    };
    let corpus = corpus(&study.data.corpus, &keep, &mut assets, watch)?;
    watch.message(&format!("{}: {}", corpus.name, corpus.stats));
    suits(study, &corpus)?;
    if !study.encode.vectors.is_empty() {
        victim = Some(given(study, &corpus, victim)?);
    }
    let victim = victim.expect("a study names a victim or its vectors");
    let request = SplitRequest {
        targets: study.data.targets,
        validation: study.data.validation,
        auxiliary: study.data.auxiliary,
        seed: study.data.split_seed,
        ..SplitRequest::default()
    };
    let mut split = split::split(&corpus, &request)?;
    let of = |indices: &[usize]| -> Vec<&Record> { indices.iter().map(|&i| &corpus.records[i]).collect() };
    let held_out: Vec<usize> = split.targets.iter().chain(&split.validation).copied().collect();
    watch.message(&format!("encoding {} records with {}", held_out.len() + split.auxiliary.len(), victim.info().name));
    let own = vectors(victim.as_ref(), &of(&split.auxiliary), watch)?;
    let theirs = vectors(victim.as_ref(), &of(&held_out), watch)?;
    let close = duplicate::drop_close(&theirs, &own, NEAR_DUPLICATE);
    let kept: Vec<usize> = (0..own.len()).filter(|i| close.binary_search(i).is_err()).collect();
    if kept.len() < 2 {
        let why = format!("{} of them lie within a cosine of {NEAR_DUPLICATE} of a target", close.len());
        let (name, asked) = (corpus.name.clone(), study.data.auxiliary);
        return Err(data::Error::TooSmall { name, what: "auxiliary", have: kept.len(), asked, why }.into());
    }
    split.auxiliary = kept.iter().map(|&i| split.auxiliary[i]).collect();
    let mut cosines = duplicate::nearest_cosines(&theirs, &own.select(&kept));
    cosines.sort_by(f32::total_cmp);
    let nearest = Nearest {
        dropped: close.len(),
        median: cosines.get(cosines.len() / 2).copied().unwrap_or(0.0),
        largest: cosines.last().copied().unwrap_or(0.0),
    };
    watch.message(&format!(
        "nearest auxiliary record of a target: cosine {:.3} in the median, {:.3} at most; {} auxiliary records at {NEAR_DUPLICATE} or closer were dropped",
        nearest.median, nearest.largest, nearest.dropped
    ));
    Ok(Materials { corpus, split, victim, judges, prior, surrogate, assets, nearest })
}

/// Whether every attack of the study can work with the corpus.
fn suits(study: &Study, corpus: &Corpus) -> Result<(), Error> {
    let of_another_kind = |a: &&Contender| a.config.medium().is_some_and(|medium| medium != corpus.medium());
    let Some(wrong) = study.attack.iter().find(of_another_kind) else { return Ok(()) };
    let suits = |c: &AttackConfig| c.medium().is_none_or(|medium| medium == corpus.medium());
    let fitting: Vec<&str> = AttackConfig::examples().iter().filter(|c| suits(c)).map(AttackConfig::kind).collect();
    Err(super::Error::Medium {
        attack: wrong.name.clone(),
        corpus: corpus.name.clone(),
        holds: match corpus.medium() {
            Medium::Text => "texts",
            Medium::Picture => "pictures",
        },
        fitting: fitting.join(", "),
    }
    .into())
}

/// A corpus by manifest name, by path, or from the hub (`hub:datasets/owner/name`), fetched where it is missing.
pub fn corpus(name: &str, keep: &Keep, assets: &mut Vec<Value>, watch: &dyn asset::Report) -> Result<Corpus, Error> {
    if name.starts_with(asset::HUB) {
        let found = asset::repository(name, watch)?;
        let corpus = corpus::local::read(&found.dir, keep)?;
        assets.push(of_hub(&found));
        return Ok(Corpus { name: found.name, ..corpus });
    }
    corpus::open(name, keep, &mut |name, wanted| -> Result<_, Error> {
        let asset = asset::ensure(name, watch)?;
        let entries = asset.entries(wanted)?;
        assets.push(describe(&asset));
        Ok(entries)
    })
}

/// An encoder by manifest name, by folder, from the hub (`hub:owner/name`), or a toy; the side of an encoder of pictures may follow as `@side`.
pub fn encoder(name: &str, assets: &mut Vec<Value>, watch: &dyn asset::Report) -> Result<Box<dyn Encoder>, Error> {
    let (base, _) = encode::split_side(name);
    let folder = Path::new(base);
    if folder.is_dir() || encode::is_toy(name) || encode::is_remote(name) {
        return Ok(encode::load(name, folder, None)?);
    }
    if base.starts_with(asset::HUB) {
        let found = asset::repository(base, watch)?;
        assets.push(of_hub(&found));
        return Ok(encode::load(name, &found.dir, None)?);
    }
    let asset = asset::ensure(base, watch)?;
    assets.push(describe(&asset));
    Ok(encode::load(name, &asset.dir, None)?)
}

fn of_hub(found: &asset::Fetched) -> Value {
    json!({"asset": found.name, "version": found.commit, "source": "hub", "pinned": false, "sha256": found.sha256})
}

/// The victim as a table of vectors that somebody else made, in the order of the corpus's lines or pictures.
fn given(study: &Study, corpus: &Corpus, behind: Option<Box<dyn Encoder>>) -> Result<Box<dyn Encoder>, Error> {
    let path = Path::new(&study.encode.vectors);
    let table = data::vectors::read_table(path, None)?;
    let records = Path::new(&study.data.corpus);
    let name = format!("vectors of {}", path.file_name().unwrap_or_default().to_string_lossy());
    let all: Vec<(String, String)> = if corpus.medium() == Medium::Picture {
        corpus::local::picture_files(records)?.into_iter().map(|(id, _)| (id, String::new())).collect()
    } else {
        corpus::local::every_record(records)?.into_iter().map(|r| (r.id, r.text)).collect()
    };
    // By id where the vectors have ids that the records know, by order otherwise.
    let known: HashMap<&str, usize> = all.iter().enumerate().map(|(i, (id, _))| (id.as_str(), i)).collect();
    let by_id = table.ids.as_ref().filter(|ids| ids.iter().all(|id| known.contains_key(id.as_str())));
    let place: Vec<usize> = match by_id {
        Some(ids) => ids.iter().map(|id| known[id.as_str()]).collect(),
        None if table.vectors.len() == all.len() => (0..all.len()).collect(),
        None => {
            let why = format!(
                "it has {} rows for {} records; one row for each record in order, or ids that the records have, are expected",
                table.vectors.len(),
                all.len()
            );
            return Err(data::Error::Malformed { path: path.display().to_string(), line: None, why }.into());
        }
    };
    if corpus.medium() == Medium::Text {
        let texts: Vec<&str> = place.iter().map(|&i| all[i].1.as_str()).collect();
        return Ok(Box::new(Given::texts(&name, &texts, table.vectors, behind)?));
    }
    let row: HashMap<&str, usize> = place.iter().enumerate().map(|(row, &i)| (all[i].0.as_str(), row)).collect();
    let found = |r: &Record| Some((r.picture.clone()?, *row.get(r.id.as_str())?));
    let (pictures, rows): (Vec<Picture>, Vec<usize>) = corpus.records.iter().filter_map(found).unzip();
    let pictures: Vec<&Picture> = pictures.iter().collect();
    Ok(Box::new(Given::pictures(&name, &pictures, table.vectors.select(&rows), behind)?))
}

/// Vectors of records, from the cache where they are there; a toy's are not worth keeping.
pub(super) fn vectors(encoder: &dyn Encoder, records: &[&Record], watch: &dyn Watch) -> Result<Embeddings, Error> {
    /// Texts and pictures between two signs of progress.
    const WAVES: (usize, usize) = (2048, 256);
    let pictures: Vec<&Picture> = records.iter().filter_map(|r| r.picture.as_ref()).collect();
    let texts: Vec<&str> = records.iter().map(|r| r.text.as_str()).collect();
    let shows = !pictures.is_empty();
    if encoder.info().toy || encoder.is_table() {
        return Ok(if shows { encoder.encode_pictures(&pictures)? } else { encoder.encode(&texts)? });
    }
    let cached = Cached::new(encoder, &asset::Cache::from_env()?.root().join("embeddings"));
    let mut out = Embeddings::empty(encoder.info().dim);
    let mut at = 0;
    while at < records.len() {
        if watch.is_interrupted() {
            return Err(super::Error::Interrupted.into());
        }
        let end = (at + if shows { WAVES.1 } else { WAVES.0 }).min(records.len());
        let wave =
            if shows { cached.encode_pictures(&pictures[at..end])? } else { cached.encode_records(&texts[at..end])? };
        for row in wave.rows() {
            out.push(row);
        }
        at = end;
        watch.update(out.len(), records.len(), "records encoded");
    }
    Ok(out)
}

/// Names the encoders; what only attackers may use is no judge.
fn encoders(hasher: &mut blake3::Hasher, victim: &str, judges: &[&str], surrogate: Option<&str>) {
    hasher.update(victim.as_bytes());
    for judge in judges {
        hasher.update(judge.as_bytes());
    }
    if let Some(surrogate) = surrogate {
        hasher.update(b"surrogate").update(surrogate.as_bytes());
    }
}

fn describe(asset: &asset::Asset) -> Value {
    json!({"asset": asset.name, "version": asset.version, "licence": asset.licence, "source": asset.source,
           "pinned": asset.pinned, "sha256": asset.digests})
}

impl Materials {
    /// Encodes every side once; the vectors come from the cache when they are there.
    pub fn bench<'a>(&'a self, study: &'a Study, watch: &dyn Watch) -> Result<Bench<'a>, Error> {
        let mut topics: Vec<String> = self.corpus.records.iter().filter_map(|r| r.topic.clone()).collect();
        topics.sort();
        topics.dedup();
        let records =
            |indices: &[usize]| -> Vec<Record> { indices.iter().map(|&i| self.corpus.records[i].clone()).collect() };
        let side = |name, indices: &[usize], judges: &[Box<dyn Encoder>]| -> Result<Side, Error> {
            let records = records(indices);
            let all: Vec<&Record> = records.iter().collect();
            let clean = vectors(self.victim.as_ref(), &all, watch)?;
            let judged: Vec<Embeddings> =
                judges.iter().map(|j| vectors(j.as_ref(), &all, watch)).collect::<Result<_, _>>()?;
            Ok(Side::new(name, records, &topics, clean, judged))
        };
        let shows_pictures = self.corpus.records.iter().any(|r| r.picture.is_some());
        let own: Vec<&Record> = self.split.auxiliary.iter().map(|&i| &self.corpus.records[i]).collect();
        let surrogate = match self.surrogate.as_deref() {
            Some(encoder) => Some((encoder, vectors(encoder, &own, watch)?)),
            None => None,
        };
        let bench = Bench {
            study,
            victim: self.victim.as_ref(),
            judges: self.judges.iter().map(AsRef::as_ref).collect(),
            prior: self.prior.as_ref().map(|prior| prior as &dyn Prior),
            surrogate,
            test: side("test", &self.split.targets, &self.judges)?,
            validation: side("validation", &self.split.validation, &self.judges)?,
            // A judge of pictures is read about its mean, and names objects by its neighbours: it needs vectors to compare with.
            auxiliary: side("auxiliary", &self.split.auxiliary, if shows_pictures { &self.judges } else { &[] })?,
            fingerprint: self.fingerprint(study),
            toy: self.corpus.toy || self.victim.info().toy,
            nearest_cosine: f64::from(self.nearest.median),
        };
        Ok(bench)
    }

    fn fingerprint(&self, study: &Study) -> String {
        let mut hasher = blake3::Hasher::new_derive_key("stitchback bench v1");
        hasher.update(self.corpus.fingerprint.as_bytes());
        for indices in [&self.split.targets, &self.split.validation, &self.split.auxiliary] {
            hasher.update(&(indices.len() as u64).to_le_bytes());
            for &i in indices {
                hasher.update(&(i as u64).to_le_bytes());
            }
        }
        let judges: Vec<&str> = self.judges.iter().map(|judge| judge.info().fingerprint.as_str()).collect();
        let surrogate = self.surrogate.as_ref().map(|encoder| encoder.info().fingerprint.as_str());
        encoders(&mut hasher, &self.victim.info().fingerprint, &judges, surrogate);
        hasher.update(&study.data.split_seed.to_le_bytes());
        hasher.finalize().to_hex()[..24].to_owned()
    }

    /// Hashes of everything that went in.
    pub fn provenance(&self) -> Value {
        json!({
            "corpus": {"name": self.corpus.name, "fingerprint": self.corpus.fingerprint, "stats": self.corpus.stats},
            "victim": self.victim.info(),
            "surrogate": self.surrogate.as_ref().map(|s| s.info()),
            "judges": self.judges.iter().map(|j| j.info()).collect::<Vec<_>>(),
            "assets": self.assets,
        })
    }

    /// What the split gave, and how close the attackers' records come to the targets.
    pub fn split_report(&self, bench: &Bench) -> Value {
        json!({
            "stats": self.split.stats,
            "targets": bench.test.records.len(),
            "target_documents": bench.test.clusters.iter().max().map_or(0, |m| m + 1),
            "validation": bench.validation.records.len(),
            "auxiliary": bench.auxiliary.records.len(),
            "dropped_by_cosine": self.nearest.dropped,
            "nearest_cosine_median": self.nearest.median,
            "nearest_cosine_largest": self.nearest.largest,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_judge_is_no_surrogate() {
        let hash = |judges: &[&str], surrogate: Option<&str>| {
            let mut hasher = blake3::Hasher::new();
            encoders(&mut hasher, "victim", judges, surrogate);
            hasher.finalize()
        };
        assert_ne!(hash(&["one", "two"], None), hash(&["one"], Some("two")));
        assert_eq!(hash(&["one", "two"], None), blake3::hash(b"victimonetwo"), "as it was without one");
    }
}
