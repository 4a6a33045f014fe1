//! An encoder behind an OpenAI-style embeddings endpoint: a black box that is asked over HTTP.
//!
//! The victim's name is `endpoint:MODEL`. The rest comes from the environment, so that no key enters a study, a manifest or
//! a log: `STITCHBACK_ENDPOINT_URL` (the whole address, as in `.../v1/embeddings`), `STITCHBACK_ENDPOINT_KEY` (sent as a
//! bearer token where it is set), `STITCHBACK_ENDPOINT_BUDGET` (most texts that one process may send).

use super::{Embeddings, Encoder, EncoderInfo, Error};
use crate::data::asset;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// What a name begins with that stands for an endpoint.
pub const PREFIX: &str = "endpoint:";
/// Texts of one request.
const BATCH: usize = 64;
/// Requests that are made for one batch before it is given up.
const ATTEMPTS: u32 = 5;
/// Most texts that a process sends, unless the environment says otherwise.
const BUDGET: usize = 100_000;
/// Most bytes of an answer; 64 vectors of 4096 coordinates take 6 MB.
const ANSWER_CAP: u64 = 64 << 20;
/// A request that takes longer is tried again.
const PATIENCE: Duration = Duration::from_mins(1);
/// What the endpoint is asked first: its answer is part of the fingerprint, so that a model that changes is another encoder.
const PROBE: &str = "The quick brown fox jumps over the lazy dog.";
/// Two answers to the probe are of one model up to this squared distance, as a share of their lengths' product: for unit vectors
/// a cosine of .999.
const SAME: f64 = 2e-3;

/// Where an endpoint is and how often it may be asked.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The whole address.
    pub url: String,
    /// Sent as a bearer token.
    pub key: Option<String>,
    /// Most texts.
    pub budget: usize,
    /// Wait before the second attempt; doubled for each further one.
    pub pause: Duration,
    /// Folder that keeps what endpoints answered to the probe; `None` forgets it.
    pub memory: Option<PathBuf>,
}

impl Settings {
    /// From the environment.
    ///
    /// # Errors
    /// When there is no address, or a budget that is no number; `STITCHBACK_OFFLINE` forbids all of it.
    pub fn from_env(name: &str) -> Result<Self, Error> {
        let refused = |why: &str| Error::Unsupported { name: name.to_owned(), why: why.to_owned() };
        let var = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
        if var("STITCHBACK_OFFLINE").is_some_and(|v| v != "0") {
            return Err(refused("STITCHBACK_OFFLINE forbids to ask an endpoint; unset it"));
        }
        let url = var("STITCHBACK_ENDPOINT_URL").ok_or_else(|| {
            refused("STITCHBACK_ENDPOINT_URL is not set; give the whole address of the embeddings endpoint")
        })?;
        let budget = match var("STITCHBACK_ENDPOINT_BUDGET") {
            None => BUDGET,
            Some(text) => text
                .parse()
                .map_err(|_| refused("STITCHBACK_ENDPOINT_BUDGET is a number of texts, for example 20000"))?,
        };
        let memory = asset::Cache::from_env().ok().map(|cache| cache.root().join("endpoints"));
        Ok(Self { url, key: var("STITCHBACK_ENDPOINT_KEY"), budget, pause: Duration::from_millis(500), memory })
    }
}

/// An encoder that is asked over HTTP.
pub struct Endpoint {
    info: EncoderInfo,
    model: String,
    settings: Settings,
    agent: ureq::Agent,
    sent: AtomicUsize,
    /// Every answer of this process: no text is paid for twice.
    answers: Mutex<HashMap<[u8; 32], Vec<f32>>>,
}

#[derive(Deserialize)]
struct Answer {
    data: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    index: usize,
    embedding: Vec<f32>,
}

/// The first answer to the probe, with the fingerprint that it gave.
#[derive(Serialize, Deserialize)]
struct Remembered {
    fingerprint: String,
    probe: Vec<f32>,
}

impl Remembered {
    fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(path).ok()?).ok()
    }

    fn write(&self, path: &Path) -> std::io::Result<()> {
        use std::io::Write as _;
        std::fs::create_dir_all(path.parent().expect("a file in a folder"))?;
        let mut file = atomic_write_file::AtomicWriteFile::open(path)?;
        file.write_all(&serde_json::to_vec(self).expect("text and numbers"))?;
        file.commit()
    }

    fn is_answered_by(&self, probe: &[f32]) -> bool {
        let sum = |of: &dyn Fn(f64, f64) -> f64| -> f64 {
            self.probe.iter().zip(probe).map(|(&a, &b)| of(f64::from(a), f64::from(b))).sum()
        };
        let lengths = sum(&|a, _| a * a) * sum(&|_, b| b * b);
        self.probe.len() == probe.len() && sum(&|a, b| (a - b) * (a - b)) <= SAME * lengths.sqrt()
    }
}

/// The pause that an endpoint asks for, at least ours and at most [`PATIENCE`].
fn pause_of(asked: Option<Duration>, ours: Duration) -> Duration {
    asked.unwrap_or_default().max(ours).min(PATIENCE)
}

/// What one attempt came to.
enum Attempt {
    Rows(Vec<Vec<f32>>),
    /// Worth another try, after so long where the endpoint says.
    Later(String, Option<Duration>),
    Never(String),
}

impl Endpoint {
    /// Asks the endpoint for one vector, and keeps its dimension.
    ///
    /// # Errors
    /// When it cannot be reached or gives no vector.
    pub fn open(name: &str, settings: Settings) -> Result<Self, Error> {
        let model = name.strip_prefix(PREFIX).unwrap_or(name).to_owned();
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(PATIENCE))
            .http_status_as_error(false)
            .max_redirects(0)
            .build();
        let info =
            EncoderInfo { name: name.to_owned(), dim: 0, max_len_tokens: 0, fingerprint: String::new(), toy: false };
        let answers = Mutex::new(HashMap::new());
        let mut new = Self { info, model, settings, agent: config.into(), sent: AtomicUsize::new(0), answers };
        let probe = new.ask(&[PROBE])?.remove(0);
        new.info.dim = probe.len();
        new.info.fingerprint = new.fingerprint(probe);
        Ok(new)
    }

    /// Model, address, dimension and the answer to the probe. Services round differently from day to day: an answer near the
    /// one that is remembered keeps its fingerprint, so that a rerun finds what it made.
    fn fingerprint(&self, probe: Vec<f32>) -> String {
        let mut hasher = blake3::Hasher::new_derive_key("stitchback endpoint v2");
        for part in [&self.model, &self.settings.url] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        hasher.update(&(probe.len() as u64).to_le_bytes());
        let file = |folder: &PathBuf| folder.join(format!("{}.json", hasher.finalize().to_hex()));
        let path = self.settings.memory.as_ref().map(file);
        let known = path.as_deref().and_then(Remembered::read).filter(|known| known.is_answered_by(&probe));
        if let Some(known) = known {
            return known.fingerprint;
        }
        for v in &probe {
            hasher.update(&((v * 1000.0).round() as i32).to_le_bytes());
        }
        let new = Remembered { fingerprint: hasher.finalize().to_hex().to_string(), probe };
        if let Some(path) = path {
            // A memory that cannot be written costs a later run its cache, nothing else.
            let _ = new.write(&path);
        }
        new.fingerprint
    }

    fn refused(&self, why: impl Into<String>) -> Error {
        Error::Unsupported { name: self.info.name.clone(), why: why.into() }
    }

    /// Rows for texts that are not known yet.
    fn ask(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, Error> {
        let before = self.sent.fetch_add(texts.len(), Ordering::Relaxed);
        if before + texts.len() > self.settings.budget {
            let why =
                format!("the budget of {} texts is spent; raise STITCHBACK_ENDPOINT_BUDGET", self.settings.budget);
            return Err(self.refused(why));
        }
        let mut pause = self.settings.pause;
        let mut last = String::new();
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                std::thread::sleep(pause);
                pause = pause_of(None, pause.saturating_mul(2));
            }
            match self.attempt(texts) {
                Attempt::Rows(rows) => return Ok(rows),
                Attempt::Later(why, wait) => {
                    last = why;
                    pause = pause_of(wait, pause);
                }
                Attempt::Never(why) => return Err(self.refused(why)),
            }
        }
        Err(self.refused(format!("gave up after {ATTEMPTS} attempts: {last}")))
    }

    fn attempt(&self, texts: &[&str]) -> Attempt {
        let mut request = self.agent.post(&self.settings.url);
        if let Some(key) = &self.settings.key {
            request = request.header("Authorization", format!("Bearer {key}"));
        }
        let body = json!({ "model": self.model, "input": texts, "encoding_format": "float" });
        let mut response = match request.send_json(&body) {
            Ok(response) => response,
            Err(error) => return Attempt::Later(format!("it cannot be reached: {error}"), None),
        };
        let status = response.status().as_u16();
        if status == 429 || status >= 500 {
            let wait = response.headers().get("retry-after").and_then(|v| v.to_str().ok()?.parse().ok());
            return Attempt::Later(format!("it answers {status}"), wait.map(Duration::from_secs));
        }
        if status != 200 {
            // The answer may repeat texts or keys: only its number is told.
            return Attempt::Never(format!("it answers {status}; see to the address, the model and the key"));
        }
        let answer: Result<Answer, _> = response.body_mut().with_config().limit(ANSWER_CAP).read_json();
        match answer {
            Ok(answer) => match ordered(answer, texts.len(), self.info.dim) {
                Ok(rows) => Attempt::Rows(rows),
                Err(why) => Attempt::Never(why),
            },
            Err(error) => Attempt::Never(format!("its answer is none: {error}")),
        }
    }
}

/// One row for each text, in order, all of one length.
fn ordered(answer: Answer, n: usize, dim: usize) -> Result<Vec<Vec<f32>>, String> {
    let mut rows: Vec<Option<Vec<f32>>> = vec![None; n];
    for item in answer.data {
        let slot = rows.get_mut(item.index).ok_or_else(|| format!("it gives a vector {} of {n}", item.index))?;
        *slot = Some(item.embedding);
    }
    let rows: Option<Vec<Vec<f32>>> = rows.into_iter().collect();
    let rows = rows.ok_or_else(|| format!("it gives fewer than {n} vectors"))?;
    let dim = if dim == 0 { rows.first().map_or(0, Vec::len) } else { dim };
    match rows.iter().find(|r| r.len() != dim || r.is_empty()) {
        Some(row) => Err(format!("it gives {} coordinates instead of {dim}", row.len())),
        None => Ok(rows),
    }
}

impl Encoder for Endpoint {
    fn info(&self) -> &EncoderInfo {
        &self.info
    }

    fn encode(&self, texts: &[&str]) -> Result<Embeddings, Error> {
        let keys: Vec<[u8; 32]> = texts.iter().map(|t| *blake3::hash(t.as_bytes()).as_bytes()).collect();
        let mut answers = self.answers.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut missing: Vec<(&str, [u8; 32])> = Vec::new();
        for (text, key) in texts.iter().zip(&keys) {
            if !answers.contains_key(key) && !missing.iter().any(|(_, k)| k == key) {
                missing.push((text, *key));
            }
        }
        for batch in missing.chunks(BATCH) {
            // Endpoints refuse an empty input; a space has a vector.
            let inputs: Vec<&str> = batch.iter().map(|(t, _)| if t.is_empty() { " " } else { *t }).collect();
            for ((_, key), row) in batch.iter().zip(self.ask(&inputs)?) {
                answers.insert(*key, row);
            }
        }
        let values = keys.iter().flat_map(|key| answers[key].iter().copied()).collect();
        Embeddings::new(values, self.info.dim)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_pause_is_longer_than_our_patience_and_none_panics() {
        let seconds = Duration::from_secs;
        assert_eq!(pause_of(None, seconds(2)), seconds(2));
        assert_eq!(pause_of(Some(seconds(1)), seconds(2)), seconds(2));
        assert_eq!(pause_of(Some(seconds(9)), seconds(2)), seconds(9));
        assert_eq!(pause_of(Some(seconds(900)), seconds(2)), PATIENCE);
        assert_eq!(pause_of(Some(seconds(5)), seconds(120)), PATIENCE, "ours alone is beyond it");
    }
}
