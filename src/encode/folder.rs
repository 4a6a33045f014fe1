//! Encoders from sentence-transformers folders, both layouts: `modules.json` names the modules, each has its folder.
//!
//! Supported: a BERT, pooling in any mode, dense layers, normalisation. Anything else is refused by name, never
//! skipped: a vector that misses one module is another encoder's vector.

use super::bert::{Bert, Config, Scratch};
use super::pooling::{Dense, Mode, Step};
use super::weights::{Weights, file};
use super::{Embeddings, Encoder, EncoderInfo, Error};
use rayon::prelude::*;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use tokenizers::{Tokenizer, TruncationParams};

/// Tokens in one worker's batch: enough to pay for streaming the weights through the cache once.
const BATCH_TOKENS: usize = 1024;

/// Texts that one job turns into tokens.
const TOKENIZE_TEXTS: usize = 64;

/// Opens the folder `dir` as the encoder `name`.
///
/// `prompt` is put before every text; `None` takes the folder's default prompt, `Some("")` takes none.
///
/// # Errors
/// When a file is missing, malformed or too large for what it says it is, a weight is not finite, or a module,
/// pooling mode, activation or architecture is not supported.
pub(super) fn open(dir: &Path, name: &str, prompt: Option<&str>) -> Result<TextEncoder, Error> {
    let refuse = |why: String| Error::Unsupported { name: name.into(), why };
    let modules = modules(dir, name)?;
    let [(Module::Transformer, transformer), (Module::Pooling, pooling), rest @ ..] = &modules[..] else {
        let listed: Vec<_> = modules.iter().map(|(m, _)| format!("{m:?}")).collect();
        return Err(refuse(format!(
            "modules are {}; supported: Transformer, Pooling, then any Dense or Normalize",
            listed.join(", ")
        )));
    };

    let config: Config = json(&transformer.join("config.json"))?;
    if let Some(why) = config.refusal() {
        return Err(refuse(why));
    }
    let limits = limits(transformer, config.max_position_embeddings)?;
    let (modes, include_prompt) = pooling_of(pooling, config.hidden_size, name)?;
    let mut dim = modes.len() * config.hidden_size;
    let mut steps = Vec::new();
    for (module, folder) in rest {
        match module {
            Module::Dense => {
                let dense = Dense::open(folder, dim)?;
                dim = dense.outputs();
                steps.push(Step::Dense(dense));
            }
            Module::Normalize => {
                let path = folder.join("config.json");
                let named: Value = if path.exists() { json(&path)? } else { Value::Null };
                for key in ["module_input_name", "module_output_name"] {
                    if named.get(key).and_then(Value::as_str).is_some_and(|n| n != "sentence_embedding") {
                        return Err(refuse(format!(
                            "Normalize on {} is not supported; supported: sentence_embedding",
                            named[key]
                        )));
                    }
                }
                steps.push(Step::Normalize);
            }
            Module::Transformer | Module::Pooling => {
                return Err(refuse(format!("{module:?} after pooling; supported there: Dense, Normalize")));
            }
        }
    }
    let prompt = match prompt {
        Some(prompt) => prompt.to_owned(),
        None => default_prompt(dir)?,
    };
    let (text, tokenizer_bytes) = Text::open(transformer, &limits, prompt)?;
    let largest = text.tokenizer.get_vocab(true).values().max().copied().unwrap_or(0) as usize;
    if largest >= config.vocab_size {
        let why = format!("tokenizer ids reach {largest}, but the vocabulary has {} rows", config.vocab_size);
        return Err(refuse(why));
    }
    let skip = if include_prompt { 0 } else { text.prompt_tokens()? };

    let weights = Weights::open(transformer)?;
    let identity = [
        weights.hash().as_bytes().as_slice(),
        &tokenizer_bytes,
        &std::fs::read(transformer.join("config.json")).map_err(|e| file(transformer, e))?,
        format!("{modes:?} {include_prompt} {steps:?} {limits:?}").as_bytes(),
        text.prompt.as_bytes(),
        format!("{:?}", text.codepoints).as_bytes(),
    ]
    .iter()
    .fold(blake3::Hasher::new_derive_key("stitchback encoder v1"), |mut hasher, part| {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
        hasher
    });
    let info = EncoderInfo {
        name: name.into(),
        dim,
        max_len_tokens: limits.max_len_tokens,
        fingerprint: identity.finalize().to_hex().to_string(),
        toy: false,
    };
    let bert = Bert::new(&config, weights)?;
    Ok(TextEncoder { info, text, bert, width: config.hidden_size, modes, skip, steps, scratch: Mutex::default() })
}

/// A module of `modules.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Module {
    Transformer,
    Pooling,
    Dense,
    Normalize,
}

fn modules(dir: &Path, name: &str) -> Result<Vec<(Module, PathBuf)>, Error> {
    #[derive(serde::Deserialize)]
    struct Entry {
        path: String,
        r#type: String,
    }
    let path = dir.join("modules.json");
    let entries: Vec<Entry> = json(&path)?;
    let mut modules = Vec::new();
    for Entry { path: folder, r#type: kind } in entries {
        let module = match kind.as_str() {
            "sentence_transformers.models.Transformer"
            | "sentence_transformers.base.modules.transformer.Transformer" => Module::Transformer,
            "sentence_transformers.models.Pooling"
            | "sentence_transformers.sentence_transformer.modules.pooling.Pooling" => Module::Pooling,
            "sentence_transformers.models.Dense" | "sentence_transformers.base.modules.dense.Dense" => Module::Dense,
            "sentence_transformers.models.Normalize" | "sentence_transformers.base.modules.normalize.Normalize" => {
                Module::Normalize
            }
            _ => {
                let why = format!(
                    "module `{kind}` is not supported; supported: Transformer, Pooling, Dense, Normalize of \
                     sentence-transformers"
                );
                return Err(Error::Unsupported { name: name.into(), why });
            }
        };
        let inside = Path::new(&folder).components().all(|c| matches!(c, std::path::Component::Normal(_)));
        if !inside {
            return Err(file(&path, format!("module path `{folder}` leaves the folder")));
        }
        modules.push((module, dir.join(folder)));
    }
    Ok(modules)
}

/// What limits and changes a text before it becomes tokens.
#[derive(Debug)]
struct Limits {
    max_len_tokens: usize,
    lower_case: bool,
}

fn limits(folder: &Path, positions: usize) -> Result<Limits, Error> {
    let old = ["bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet"]
        .map(|kind| folder.join(format!("sentence_{kind}_config.json")));
    let old: Value = match old.iter().find(|p| p.exists()) {
        Some(path) => json(path)?,
        None => Value::Null,
    };
    let tokenizer = folder.join("tokenizer_config.json");
    let tokenizer: Value = if tokenizer.exists() { json(&tokenizer)? } else { Value::Null };
    // Tokenizers without a limit of their own write 1e30.
    let asked = [&old["max_seq_length"], &tokenizer["model_max_length"]].into_iter().find_map(Value::as_f64);
    let max_len_tokens = asked.map_or(positions, |n| positions.min(n as usize));
    if max_len_tokens < 3 {
        return Err(file(folder, format!("the longest text is {max_len_tokens} tokens; at least 3 are needed")));
    }
    Ok(Limits { max_len_tokens, lower_case: old["do_lower_case"].as_bool().unwrap_or(false) })
}

/// Modes in order of concatenation, and whether prompt tokens are pooled.
fn pooling_of(folder: &Path, width: usize, name: &str) -> Result<(Vec<Mode>, bool), Error> {
    let path = folder.join("config.json");
    let config: Value = json(&path)?;
    let given =
        [&config["embedding_dimension"], &config["word_embedding_dimension"]].into_iter().find_map(Value::as_u64);
    if given.is_some_and(|given| given != width as u64) {
        return Err(file(&path, format!("pooling expects {} features, the model has {width}", given.unwrap_or(0))));
    }
    let named = |value: &Value| {
        value.as_str().and_then(Mode::named).ok_or_else(|| Error::Unsupported {
            name: name.into(),
            why: format!("pooling mode {value} is not supported; supported: {}", Mode::ALL.map(|m| m.0).join(", ")),
        })
    };
    let modes = match &config["pooling_mode"] {
        Value::Null => {
            let flagged = Mode::ALL.iter().filter(|(_, flag, _)| config[flag] == Value::Bool(true));
            let modes: Vec<_> = flagged.map(|(_, _, mode)| *mode).collect();
            if modes.is_empty() { vec![Mode::Mean] } else { modes }
        }
        Value::Array(list) => list.iter().map(named).collect::<Result<_, _>>()?,
        one => vec![named(one)?],
    };
    if modes.is_empty() {
        return Err(file(&path, "no pooling mode is given"));
    }
    Ok((modes, config["include_prompt"].as_bool().unwrap_or(true)))
}

fn default_prompt(dir: &Path) -> Result<String, Error> {
    let path = dir.join("config_sentence_transformers.json");
    if !path.exists() {
        return Ok(String::new());
    }
    let config: Value = json(&path)?;
    match config["default_prompt_name"].as_str() {
        None => Ok(String::new()),
        Some(name) => match config["prompts"][name].as_str() {
            Some(prompt) => Ok(prompt.to_owned()),
            None => Err(file(&path, format!("default_prompt_name `{name}` is not among the prompts"))),
        },
    }
}

/// Reads a JSON file of the folder.
pub(super) fn json<T: DeserializeOwned>(path: &Path) -> Result<T, Error> {
    let bytes = std::fs::read(path).map_err(|e| file(path, e))?;
    serde_json::from_slice(&bytes).map_err(|e| file(path, e))
}

/// From a text to token ids.
struct Text {
    tokenizer: Tokenizer,
    path: PathBuf,
    prompt: String,
    lower_case: bool,
    /// Sorted replacements, made before the tokenizer sees the text.
    codepoints: Vec<(char, Vec<char>)>,
}

impl Text {
    fn open(folder: &Path, limits: &Limits, prompt: String) -> Result<(Self, Vec<u8>), Error> {
        let path = folder.join("tokenizer.json");
        let bytes = std::fs::read(&path).map_err(|e| file(&path, e))?;
        let mut tokenizer = Tokenizer::from_bytes(&bytes).map_err(|e| file(&path, e))?;
        // The file's own padding and truncation are defaults of its author, not the model's limits.
        tokenizer.with_padding(None);
        let truncation = TruncationParams { max_length: limits.max_len_tokens, ..TruncationParams::default() };
        tokenizer.with_truncation(Some(truncation)).map_err(|e| file(&path, e))?;
        let codepoints = codepoints(&folder.join("codepoints.json"))?;
        Ok((Self { tokenizer, path, prompt, lower_case: limits.lower_case, codepoints }, bytes))
    }

    fn ids(&self, text: &str) -> Result<Vec<u32>, Error> {
        let mut input = format!("{}{text}", self.prompt);
        if self.lower_case {
            input = input.to_lowercase();
        }
        if !self.codepoints.is_empty() {
            let mut mapped = String::with_capacity(input.len());
            for c in input.chars() {
                match self.codepoints.binary_search_by_key(&c, |(from, _)| *from) {
                    Ok(at) => mapped.extend(&self.codepoints[at].1),
                    Err(_) => mapped.push(c),
                }
            }
            input = mapped;
        }
        let encoding = self.tokenizer.encode_fast(input, true).map_err(|e| file(&self.path, e))?;
        if encoding.is_empty() {
            return Err(file(&self.path, "the tokenizer adds no special token, so an empty text has no tokens"));
        }
        Ok(encoding.get_ids().to_vec())
    }

    /// Tokens of the prompt alone, without the special token that ends it.
    fn prompt_tokens(&self) -> Result<usize, Error> {
        if self.prompt.is_empty() {
            return Ok(0);
        }
        let ids = self.ids("")?;
        let ends = ids.last().and_then(|&id| self.tokenizer.id_to_token(id)).is_some_and(|token| {
            self.tokenizer.get_added_tokens_decoder().values().any(|added| added.special && added.content == token)
        });
        Ok(ids.len() - usize::from(ends))
    }
}

fn codepoints(path: &Path) -> Result<Vec<(char, Vec<char>)>, Error> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let entries: Vec<(u32, Vec<u32>)> = json(path)?;
    let mut table = Vec::with_capacity(entries.len());
    for (from, to) in entries {
        let scalar = |cp: u32| char::from_u32(cp).ok_or_else(|| file(path, format!("U+{cp:04X} is not a character")));
        let (from, to) = (scalar(from)?, to.into_iter().map(scalar).collect::<Result<Vec<_>, _>>()?);
        if table.last().is_some_and(|(before, _)| *before >= from) {
            return Err(file(path, format!("U+{:04X} is out of order; the list must be sorted", from as u32)));
        }
        table.push((from, to));
    }
    Ok(table)
}

/// A sentence-transformers folder, ready to encode.
pub(super) struct TextEncoder {
    info: EncoderInfo,
    text: Text,
    bert: Bert,
    width: usize,
    modes: Vec<Mode>,
    /// Prompt tokens that pooling leaves out.
    skip: usize,
    steps: Vec<Step>,
    /// Buffers of workers that are not working now.
    scratch: Mutex<Vec<Scratch>>,
}

impl TextEncoder {
    /// Encodes one batch of token ids into its rows of the result.
    fn batch(&self, sentences: &[&[u32]], rows: &mut [f32]) {
        // A pool, not a thread-local: a worker that waits for its own jobs may be handed another call's batch.
        let spare = || self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        let mut scratch = spare().pop().unwrap_or_default();
        self.bert.forward(sentences, &mut scratch, |i, hidden| {
            let mut vector = vec![0.0; self.modes.len() * self.width];
            for (mode, part) in self.modes.iter().zip(vector.chunks_exact_mut(self.width)) {
                mode.pool(hidden, self.skip, part);
            }
            let vector = self.steps.iter().fold(vector, |vector, step| step.apply(vector));
            rows[i * self.info.dim..(i + 1) * self.info.dim].copy_from_slice(&vector);
        });
        spare().push(scratch);
    }
}

impl Encoder for TextEncoder {
    fn info(&self) -> &EncoderInfo {
        &self.info
    }

    fn encode(&self, texts: &[&str]) -> Result<Embeddings, Error> {
        let tokenize = |texts: &[&str]| texts.iter().map(|t| self.text.ids(t)).collect::<Result<Vec<_>, _>>();
        let ids = if texts.len() <= TOKENIZE_TEXTS {
            tokenize(texts)?
        } else {
            texts.par_chunks(TOKENIZE_TEXTS).map(tokenize).collect::<Result<Vec<_>, _>>()?.concat()
        };
        let ids: Vec<&[u32]> = ids.iter().map(Vec::as_slice).collect();
        let mut values = vec![0.0; texts.len() * self.info.dim];
        let mut jobs = Vec::new();
        let mut rest = values.as_mut_slice();
        for range in batches(&ids) {
            let (rows, tail) = rest.split_at_mut(range.len() * self.info.dim);
            jobs.push((&ids[range], rows));
            rest = tail;
        }
        match &mut jobs[..] {
            [(sentences, rows)] => self.batch(sentences, rows),
            _ => jobs.into_par_iter().for_each(|(sentences, rows)| self.batch(sentences, rows)),
        }
        Embeddings::new(values, self.info.dim)
    }

    fn words(&self) -> Vec<String> {
        /// Shorter pieces are letters and abbreviations that any text of the language holds.
        const SHORTEST: usize = 3;
        let vocabulary = self.text.tokenizer.get_vocab(false);
        // WordPiece marks the pieces that continue a word, SentencePiece those that begin one.
        let begins = vocabulary.keys().any(|piece| piece.starts_with('\u{2581}'));
        let mut words: Vec<String> = vocabulary
            .into_keys()
            .filter_map(|piece| if begins { piece.strip_prefix('\u{2581}').map(str::to_owned) } else { Some(piece) })
            .filter(|word| word.len() >= SHORTEST && word.chars().all(char::is_alphabetic))
            .collect();
        words.sort_unstable();
        words.dedup();
        words
    }
}

/// Cuts consecutive sentences into batches of nearly equal numbers of tokens, about [`BATCH_TOKENS`] each.
fn batches(ids: &[&[u32]]) -> Vec<Range<usize>> {
    let total: usize = ids.iter().map(|s| s.len()).sum();
    let share = total.div_ceil(total.div_ceil(BATCH_TOKENS).max(1));
    let mut ranges = Vec::new();
    let (mut start, mut tokens) = (0, 0);
    for (i, sentence) in ids.iter().enumerate() {
        tokens += sentence.len();
        if tokens >= share || i + 1 == ids.len() {
            ranges.push(start..i + 1);
            (start, tokens) = (i + 1, 0);
        }
    }
    ranges
}
