//! `SmolLM2-135M-Instruct` as a prior: its file, its tokenizer, and words out of pieces.

use super::llama::{Llama, Shape, Tree};
use super::{Continuation, Prior, Score, best, clip, glues, words};
use crate::attack::Error;
use crate::data::asset::{self, Asset, Report};
use candle_core::Device;
use candle_core::quantized::gguf_file::{Content, Value};
use std::collections::{BTreeMap, BinaryHeap};
use std::io::Cursor;
use tokenizers::Tokenizer;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;

/// Pieces of a text that are scored; of a longer prefix, the last ones are read.
const MAX_PIECES: usize = 256;

/// Pieces of a word that [`Prior::continuations`] proposes.
const MAX_WORD_PIECES: usize = 8;

/// Unfinished words that are looked into at once.
const OPEN_WORDS: usize = 48;

/// Stands before every text; the model learned it between documents.
const START: u32 = 0;

/// A small general language model: the strong prior.
///
/// The weights are widened from 4 bits to `f32` when they are read and take 0.54 GB. A score is the sum over the pieces
/// of the text after the start mark. The end of a text is not scored: the model knows ends of documents, and a sentence
/// is none. Texts are cut at 256 pieces.
///
/// A continuation's likelihood sums the first piece, the pieces that complete the word, and that nothing lengthens it:
/// the next piece begins with a space or a mark. A mark's likelihood is that of all pieces that begin with it. A
/// full stop inside a word (`3.5`) counts as its end.
pub struct SmolLm {
    llama: Llama,
    tokenizer: Tokenizer,
    vocabulary: Vec<Piece>,
    fingerprint: String,
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
        let (file, digest) = asset.digests.first_key_value().ok_or_else(|| refused("the asset has no file"))?;
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
        let kinds = metadata.list("tokenizer.ggml.token_type")?;
        if kinds.len() != names.len() {
            return Err(refused(format!("{} pieces have {} types", names.len(), kinds.len())));
        }
        let bytes_of = bytes_of();
        let vocabulary = names
            .iter()
            .zip(kinds)
            .map(|(name, kind)| {
                let plain = kind.to_i32().is_ok_and(|kind| kind == PLAIN_PIECE);
                let bytes: Option<Vec<u8>> = name.chars().map(|c| bytes_of.get(&c).copied()).collect();
                bytes.filter(|_| plain).map_or_else(Piece::special, Piece::new)
            })
            .collect();
        let tokenizer = tokenizer(&names, &metadata.texts("tokenizer.ggml.merges")?)?;
        Ok(Self { llama, tokenizer, vocabulary, fingerprint: format!("{} {digest}", Self::NAME) })
    }

    /// The ids of a text's pieces, at most 256, without the start mark.
    ///
    /// What spells a special piece (`<|im_end|>`) comes out as ordinary pieces.
    pub fn pieces(&self, text: &str) -> Result<Vec<u32>, Error> {
        let mut ids = self.all_pieces(text)?;
        ids.truncate(MAX_PIECES);
        Ok(ids)
    }

    fn all_pieces(&self, text: &str) -> Result<Vec<u32>, Error> {
        let encoding = self.tokenizer.encode_fast(text, false).map_err(|e| refused(e.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    }
}

impl Prior for SmolLm {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    fn scores(&self, texts: &[&str]) -> Result<Vec<Score>, Error> {
        let ids = texts.iter().map(|text| self.pieces(clip(text))).collect::<Result<Vec<_>, _>>()?;
        let log_probs = self.llama.score(START, &ids.iter().map(Vec::as_slice).collect::<Vec<_>>());
        Ok(log_probs.into_iter().zip(&ids).map(|(log_prob, ids)| Score { log_prob, units: ids.len() }).collect())
    }

    /// Best first over words: an unfinished word is at least as likely as every word that it may become, so the search
    /// ends when no unfinished word can beat the `k`-th finished one.
    fn continuations(&self, prefix: &str, k: usize) -> Result<Vec<Continuation>, Error> {
        if k == 0 {
            return Ok(Vec::new());
        }
        // Of a long text the end counts, and a trailing space would be taken for a piece of its own.
        let prefix = prefix.trim();
        let prefix = &prefix[prefix.ceil_char_boundary(prefix.len().saturating_sub(super::MAX_BYTES))..];
        let ids = self.all_pieces(prefix)?;
        let ids = &ids[ids.len().saturating_sub(MAX_PIECES)..];
        let mut tree = Tree::default();
        let last = tree.add(std::iter::once(START).chain(ids.iter().copied())).len() - 1;
        let (states, past) = self.llama.run(&tree, None, true);
        let past = past.expect("keys and values were asked for");
        let after = self.llama.log_probs(&states, &[last]).remove(0);

        let mut found = Found { words: BTreeMap::new(), k, bar: f64::NEG_INFINITY };
        let mut open = BinaryHeap::new();
        let glued = glues(prefix);
        for (id, (piece, &p)) in self.vocabulary.iter().zip(&after).enumerate() {
            let p = f64::from(p);
            match piece.kind {
                Kind::Mark(mark) => found.add(mark.to_string(), p),
                Kind::Word if piece.spaced != glued => {
                    open.push(Open { log_prob: p, ids: vec![id as u32], spelled: piece.word().to_vec() });
                }
                Kind::Space if !glued => open.push(Open { log_prob: p, ids: vec![id as u32], spelled: Vec::new() }),
                _ => {}
            }
        }
        found.raise();
        loop {
            let mut batch: Vec<Open> = Vec::new();
            while batch.len() < OPEN_WORDS && open.peek().is_some_and(|word| word.log_prob > found.bar) {
                batch.extend(open.pop());
            }
            if batch.is_empty() {
                break;
            }
            self.look_into(&batch, &past, &mut found, &mut open);
        }
        Ok(best(found.words.into_iter().map(|(word, log_prob)| Continuation { word, log_prob }).collect(), k))
    }
}

impl SmolLm {
    /// Asks the model how each word of `batch` goes on: it ends and is found, or it stays open, longer.
    fn look_into(&self, batch: &[Open], past: &super::llama::Past, found: &mut Found, open: &mut BinaryHeap<Open>) {
        let mut order: Vec<&Open> = batch.iter().collect();
        order.sort_by(|a, b| a.ids.cmp(&b.ids));
        let mut tree = Tree::after(past);
        let nodes: Vec<usize> = order
            .iter()
            .map(|word| *tree.add(word.ids.iter().copied()).last().expect("an open word has a piece") as usize)
            .collect();
        let (states, _) = self.llama.run(&tree, Some(past), false);
        let after = self.llama.log_probs(&states, &nodes);
        for (word, after) in order.iter().zip(&after) {
            let spelled = std::str::from_utf8(&word.spelled).ok().filter(|s| words::split(s).len() == 1);
            let Some(spelled) = spelled else { continue };
            let ends = self.vocabulary.iter().zip(after).filter(|(piece, _)| !piece.lengthens());
            let end: f64 = ends.map(|(_, &p)| f64::from(p).exp()).sum();
            found.add(spelled.to_owned(), word.log_prob + end.ln());
        }
        found.raise();
        for (word, after) in order.iter().zip(&after).filter(|(word, _)| word.ids.len() < MAX_WORD_PIECES) {
            for (id, (piece, &p)) in self.vocabulary.iter().zip(after).enumerate() {
                let log_prob = word.log_prob + f64::from(p);
                if piece.lengthens() && log_prob > found.bar {
                    let ids = word.ids.iter().copied().chain([id as u32]).collect();
                    open.push(Open { log_prob, ids, spelled: [&word.spelled[..], piece.word()].concat() });
                }
            }
        }
    }
}

/// Finished words.
struct Found {
    words: BTreeMap<String, f64>,
    k: usize,
    /// The `k`-th best likelihood so far; nothing below it can be among the results.
    bar: f64,
}

impl Found {
    /// Adds one spelling; likelihoods of one word add up.
    fn add(&mut self, word: String, log_prob: f64) {
        let sum = self.words.entry(word).or_insert(f64::NEG_INFINITY);
        let high = sum.max(log_prob);
        if high > f64::NEG_INFINITY {
            *sum = high + ((*sum - high).exp() + (log_prob - high).exp()).ln();
        }
    }

    fn raise(&mut self) {
        let mut values: Vec<f64> = self.words.values().copied().collect();
        if values.len() >= self.k {
            self.bar = *values.select_nth_unstable_by(self.k - 1, |a, b| b.total_cmp(a)).1;
        }
    }
}

/// A word that may go on.
struct Open {
    log_prob: f64,
    ids: Vec<u32>,
    spelled: Vec<u8>,
}

impl Ord for Open {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.log_prob.total_cmp(&other.log_prob).then_with(|| other.ids.cmp(&self.ids))
    }
}

impl PartialOrd for Open {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Open {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Open {}

/// What a piece does to a text that ends in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A part of a word, or the whole.
    Word,
    /// Begins with a mark that no letter follows.
    Mark(char),
    /// Begins with a mark inside a word: `'s`, `-in`.
    Joint,
    /// A lone space, which a digit may follow.
    Space,
    /// More space, line ends, special pieces.
    Blank,
}

/// One entry of the vocabulary.
struct Piece {
    /// Bytes without the leading space.
    bytes: Vec<u8>,
    spaced: bool,
    kind: Kind,
}

impl Piece {
    fn special() -> Self {
        Self { bytes: Vec::new(), spaced: false, kind: Kind::Blank }
    }

    fn new(mut bytes: Vec<u8>) -> Self {
        let spaced = bytes.first() == Some(&b' ');
        if spaced {
            bytes.remove(0);
        }
        let text = String::from_utf8_lossy(&bytes);
        let mut chars = text.chars();
        let kind = match (chars.next(), chars.next()) {
            (None, _) => {
                if spaced {
                    Kind::Space
                } else {
                    Kind::Blank
                }
            }
            (Some(c), _) if c.is_whitespace() || c.is_control() => Kind::Blank,
            (Some('\'' | '’' | '-'), Some(c)) if !spaced && c.is_alphanumeric() => Kind::Joint,
            (Some(c), _) if words::is_mark(c) => Kind::Mark(c),
            _ => Kind::Word,
        };
        Self { bytes, spaced, kind }
    }

    fn word(&self) -> &[u8] {
        &self.bytes
    }

    /// True when a word before this piece goes on in it.
    fn lengthens(&self) -> bool {
        !self.spaced && matches!(self.kind, Kind::Word | Kind::Joint)
    }
}

/// The type of ordinary pieces in the file.
const PLAIN_PIECE: i32 = 1;

/// The byte behind each character of a byte-level vocabulary.
///
/// # Source
/// Radford et al. 2019 (GPT-2): printable bytes stand for themselves, the others follow from code point 256 on.
fn bytes_of() -> BTreeMap<char, u8> {
    let plain = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..);
    let others = (0..=u8::MAX).filter(|byte| !plain(byte));
    let shifted = others.zip(256_u32..).map(|(byte, code)| (char::from_u32(code).expect("below 512"), byte));
    (0..=u8::MAX).filter(plain).map(|byte| (char::from(byte), byte)).chain(shifted).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_one_character() {
        let map = bytes_of();
        assert_eq!(map.len(), 256);
        assert_eq!((map[&'A'], map[&'Ġ'], map[&'Ċ'], map[&'é']), (b'A', b' ', b'\n', 0xe9));
    }

    #[test]
    fn pieces_know_whether_a_word_goes_on_in_them() {
        let of = |text: &str| {
            let piece = Piece::new(text.as_bytes().to_vec());
            (piece.kind, piece.lengthens())
        };
        assert_eq!(of(" tennis"), (Kind::Word, false));
        assert_eq!(of("ing"), (Kind::Word, true));
        assert_eq!(of("'s"), (Kind::Joint, true));
        assert_eq!(of("."), (Kind::Mark('.'), false));
        assert_eq!(of(".\""), (Kind::Mark('.'), false));
        assert_eq!(of(" ("), (Kind::Mark('('), false));
        assert_eq!(of(" "), (Kind::Space, false));
        assert_eq!(of("\n\n"), (Kind::Blank, false));
        assert_eq!(Piece::new(vec![0xc3]).kind, Kind::Word);
        assert!(!Piece::special().lengthens());
    }

    #[test]
    fn spelled_words_add_up_and_raise_the_bar() {
        let mut found = Found { words: BTreeMap::new(), k: 2, bar: f64::NEG_INFINITY };
        found.add("a".into(), 0.25_f64.ln());
        found.add("b".into(), 0.1_f64.ln());
        found.add("a".into(), 0.25_f64.ln());
        found.add("c".into(), f64::NEG_INFINITY);
        found.raise();
        assert!((found.words["a"] - 0.5_f64.ln()).abs() < 1e-12);
        assert!((found.bar - 0.1_f64.ln()).abs() < 1e-12);
    }
}
