//! `SmolLM2-135M-Instruct` as a prior: its file and its tokenizer.

use super::llama::{Llama, Shape};
use super::{Prior, clip};
use crate::attack::Error;
use crate::data::asset::{self, Asset, Report};
use candle_core::Device;
use candle_core::quantized::gguf_file::{Content, Value};
use std::io::Cursor;
use tokenizers::Tokenizer;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;

/// Pieces of a text that are scored.
const MAX_PIECES: usize = 256;

/// Stands before every text; the model learned it between documents.
const START: u32 = 0;

/// A small general language model: the strong prior.
///
/// The weights are widened from 4 bits to `f32` when they are read and take 0.54 GB. A score is the sum over the pieces
/// of the text after the start mark. The end of a text is not scored: the model knows ends of documents, and a sentence
/// is none. Texts are cut at 256 pieces.
pub struct SmolLm {
    llama: Llama,
    tokenizer: Tokenizer,
}

impl SmolLm {
    /// The asset, and what studies call this prior.
    pub const NAME: &'static str = "smollm2-135m-instruct-q4_1";

    /// Reads the model from the cache, or fetches it.
    pub fn fetch(report: &dyn Report) -> Result<Self, Error> {
        Self::open(&asset::ensure(Self::NAME, report)?)
    }

    /// Reads the model from a verified asset.
    pub fn open(asset: &Asset) -> Result<Self, Error> {
        let file = asset.digests.keys().next().ok_or_else(|| refused("the asset has no file"))?;
        let path = asset.path(file);
        let bytes = std::fs::read(&path).map_err(|e| refused(format!("cannot read `{}`: {e}", path.display())))?;
        let content = Content::read(&mut Cursor::new(&bytes)).map_err(|e| refused(e.to_string()))?;
        let metadata = Metadata(&content);
        let shape = Shape {
            d: metadata.size("llama.embedding_length")?,
            layers: metadata.size("llama.block_count")?,
            heads: metadata.size("llama.attention.head_count")?,
            kv_heads: metadata.size("llama.attention.head_count_kv")?,
            inner: metadata.size("llama.feed_forward_length")?,
            vocabulary: metadata.list("tokenizer.ggml.tokens")?.len(),
            eps: metadata
                .get("llama.attention.layer_norm_rms_epsilon")?
                .to_f32()
                .map_err(|e| refused(e.to_string()))?,
            rope_base: f64::from(metadata.get("llama.rope.freq_base")?.to_f32().map_err(|e| refused(e.to_string()))?),
        };
        if let Some(why) = shape.refusal() {
            return Err(refused(why));
        }
        let llama = Llama::new(shape, &|name, values| {
            let read = || {
                let tensor = content.tensor(&mut Cursor::new(&bytes), name, &Device::Cpu)?;
                tensor.dequantize(&Device::Cpu)?.flatten_all()?.to_vec1::<f32>()
            };
            let data = read().map_err(|e| refused(format!("tensor `{name}`: {e}")))?;
            if data.len() != values {
                return Err(refused(format!("tensor `{name}` has {} values, expected {values}", data.len())));
            }
            Ok(data)
        })?;
        let names = metadata.texts("tokenizer.ggml.tokens")?;
        let tokenizer = tokenizer(&names, &metadata.texts("tokenizer.ggml.merges")?)?;
        Ok(Self { llama, tokenizer })
    }

    /// The ids of a text's pieces, at most 256, without the start mark.
    ///
    /// What spells a special piece (`<|im_end|>`) comes out as ordinary pieces.
    pub fn pieces(&self, text: &str) -> Result<Vec<u32>, Error> {
        let encoding = self.tokenizer.encode_fast(text, false).map_err(|e| refused(e.to_string()))?;
        let ids = encoding.get_ids();
        Ok(ids[..ids.len().min(MAX_PIECES)].to_vec())
    }
}

impl Prior for SmolLm {
    fn log_probs(&self, texts: &[&str]) -> Result<Vec<f64>, Error> {
        let ids = texts.iter().map(|text| self.pieces(clip(text))).collect::<Result<Vec<_>, _>>()?;
        Ok(self.llama.score(START, &ids.iter().map(Vec::as_slice).collect::<Vec<_>>()))
    }
}

fn tokenizer(pieces: &[&str], merges: &[&str]) -> Result<Tokenizer, Error> {
    let ids = pieces.iter().zip(0..).map(|(piece, id)| ((*piece).to_owned(), id)).collect::<Vocab>();
    let pair = |merge: &&str| merge.split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned()));
    let merges: Option<Vec<(String, String)>> = merges.iter().map(pair).collect();
    let merges = merges.ok_or_else(|| refused("a merge is not a pair"))?;
    let model = BPE::builder().vocab_and_merges(ids, merges).build().map_err(|e| refused(e.to_string()))?;
    let mut tokenizer = Tokenizer::new(model);
    let steps: Vec<PreTokenizerWrapper> = vec![Digits::new(true).into(), ByteLevel::new(false, true, true).into()];
    tokenizer.with_pre_tokenizer(Some(Sequence::new(steps)));
    Ok(tokenizer)
}

struct Metadata<'a>(&'a Content);

impl<'a> Metadata<'a> {
    fn get(&self, key: &str) -> Result<&'a Value, Error> {
        self.0.metadata.get(key).ok_or_else(|| refused(format!("the file lacks `{key}`")))
    }

    fn size(&self, key: &str) -> Result<usize, Error> {
        Ok(self.get(key)?.to_u32().map_err(|e| refused(e.to_string()))? as usize)
    }

    fn list(&self, key: &str) -> Result<&'a [Value], Error> {
        Ok(self.get(key)?.to_vec().map_err(|e| refused(e.to_string()))?)
    }

    fn texts(&self, key: &str) -> Result<Vec<&'a str>, Error> {
        self.list(key)?
            .iter()
            .map(|value| Ok(value.to_string().map_err(|e| refused(e.to_string()))?.as_str()))
            .collect()
    }
}

fn refused(why: impl Into<String>) -> Error {
    Error::Prior { name: SmolLm::NAME, why: why.into() }
}
