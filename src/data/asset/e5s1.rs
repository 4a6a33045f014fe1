//! The E5S1 container: a 4-bit BERT with its tokenizer in one file, made into an ordinary encoder folder.
//!
//! Little-endian and packed; only tensor data is aligned. Header, piece offsets, scores, piece bytes, code-point map,
//! tensor directory, tensors. Every length is checked against the bytes that are left before anything is allocated.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;

use safetensors::tensor::{Dtype, View};

use super::Error;

const ALIGNMENT: u64 = 64;
/// Values of one `q4_0` block, and its bytes: an f16 scale and a nibble for each value.
const BLOCK: usize = 32;
const BLOCK_BYTES: usize = 18;
/// Six dense maps and two norms, a weight and a bias each; three embeddings and a norm.
const TENSORS_OF_A_LAYER: usize = 16;
const TENSORS_OUTSIDE: usize = 5;
/// `<s>`, `</s>`, `<pad>`, `<unk>`, as the tokenizer template below has them.
const SPECIALS: [u32; 4] = [0, 2, 1, 3];

/// Everything that the container holds, borrowed from its bytes.
struct Container<'a> {
    shape: Shape,
    pieces: Vec<(&'a str, f32)>,
    codepoints: Vec<(u32, Vec<u32>)>,
    tensors: BTreeMap<&'a str, Tensor<'a>>,
}

/// The sizes in the header.
#[derive(Debug, Clone, Copy)]
struct Shape {
    hidden: usize,
    layers: usize,
    feed_forward: usize,
    words: usize,
    positions: usize,
    types: usize,
}

/// One tensor's stored bytes.
#[derive(Debug, Clone, Copy)]
struct Tensor<'a> {
    quantised: bool,
    values: usize,
    bytes: &'a [u8],
}

/// Writes `model.safetensors`, `tokenizer.json` and `codepoints.json` into `into`; the same bytes in, the same out.
pub(super) fn convert(name: &str, bytes: &[u8], into: &Path) -> Result<(), Error> {
    let bad = |why: String| Error::Container { file: name.to_owned(), why };
    let container = Container::parse(bytes).map_err(bad)?;
    let weights = into.join("model.safetensors");
    let tensors = container.bert().map_err(bad)?;
    safetensors::serialize_to_file(tensors, None, &weights).map_err(|e| bad(e.to_string()))?;
    File::open(&weights).and_then(|file| file.sync_all()).map_err(Error::io(&weights))?;
    let codepoints = serde_json::to_string(&container.codepoints).expect("numbers are JSON");
    let tokenizer = container.tokenizer().map_err(bad)?;
    for (file, text) in [("tokenizer.json", tokenizer), ("codepoints.json", codepoints)] {
        let path = into.join(file);
        let write = || {
            let mut out = File::create(&path)?;
            out.write_all(text.as_bytes())?;
            out.sync_all()
        };
        write().map_err(Error::io(&path))?;
    }
    Ok(())
}

/// What is left of the container while it is read from front to back.
struct Cursor<'a> {
    left: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize, what: &str) -> Result<&'a [u8], String> {
        let (head, tail) = self
            .left
            .split_at_checked(count)
            .ok_or_else(|| format!("{what} needs {count} bytes, {} are left", self.left.len()))?;
        self.left = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], String> {
        Ok(self.take(N, what)?.try_into().expect("as many as taken"))
    }

    fn u32(&mut self, what: &str) -> Result<u32, String> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    fn u64(&mut self, what: &str) -> Result<u64, String> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// A non-negative i32 that counts something.
    fn count(&mut self, what: &str) -> Result<usize, String> {
        let value = i32::from_le_bytes(self.array(what)?);
        usize::try_from(value).map_err(|_| format!("{what} is negative: {value}"))
    }

    /// `count` words of four bytes.
    fn words(&mut self, count: usize, what: &str) -> Result<impl Iterator<Item = [u8; 4]> + use<'a>, String> {
        let bytes = count.checked_mul(4).ok_or_else(|| format!("{what}: {count} is too many"))?;
        Ok(self.take(bytes, what)?.chunks_exact(4).map(|four| four.try_into().expect("chunks of four")))
    }
}

impl<'a> Container<'a> {
    fn parse(file: &'a [u8]) -> Result<Self, String> {
        let mut at = Cursor { left: file };
        if at.take(4, "the magic")? != b"E5S1" {
            return Err("bad magic, expected `E5S1`".into());
        }
        let version = at.u32("the version")?;
        if version != 1 {
            return Err(format!("version {version} is not known, expected 1"));
        }
        let mut size = |what| match at.count(what)? {
            0 => Err(format!("{what} is 0")),
            n => Ok(n),
        };
        let (hidden, layers, heads) = (size("hidden size")?, size("layers")?, size("heads")?);
        let (feed_forward, words, positions, types) =
            (size("inner size")?, size("word rows")?, size("positions")?, size("token types")?);
        let shape = Shape { hidden, layers, feed_forward, words, positions, types };
        if !hidden.is_multiple_of(heads) {
            return Err(format!("{heads} heads do not divide {hidden}"));
        }
        at.take(4, "the layer-norm epsilon")?;
        let block = at.count("the block size")?;
        if block != BLOCK {
            return Err(format!("block size {block} is not known, expected {BLOCK}"));
        }
        let n = at.count("the pieces")?;
        let specials = [at.u32("bos")?, at.u32("eos")?, at.u32("pad")?, at.u32("unk")?];
        if specials != SPECIALS {
            return Err(format!("special ids {specials:?}, expected {SPECIALS:?}"));
        }
        if n <= SPECIALS.len() || n > words {
            return Err(format!("{n} pieces do not fit {words} word rows"));
        }
        let pieces = pieces(&mut at, n)?;
        let codepoints = codepoints(&mut at)?;
        let tensors = tensors(&mut at, file)?;
        Ok(Self { shape, pieces, codepoints, tensors })
    }

    /// The tensors under BERT's names, each to be widened when it is written.
    fn bert(&self) -> Result<Vec<(String, Widened<'a>)>, String> {
        let Shape { hidden, layers, feed_forward, words, positions, types } = self.shape;
        // Before any list is made: a spoiled header may announce millions of layers.
        let expected = layers.checked_mul(TENSORS_OF_A_LAYER).and_then(|n| n.checked_add(TENSORS_OUTSIDE));
        if expected != Some(self.tensors.len()) {
            return Err(format!("{} tensors do not make {layers} layers", self.tensors.len()));
        }
        let mut wanted: Vec<(String, String, Vec<usize>)> = Vec::new();
        let mut want = |from: String, to: String, shape: &[usize]| wanted.push((from, to, shape.to_vec()));
        want("emb.word".into(), "embeddings.word_embeddings.weight".into(), &[words, hidden]);
        want("emb.pos".into(), "embeddings.position_embeddings.weight".into(), &[positions, hidden]);
        want("emb.type".into(), "embeddings.token_type_embeddings.weight".into(), &[types, hidden]);
        for (short, long) in [("w", "weight"), ("b", "bias")] {
            want(format!("emb.ln.{short}"), format!("embeddings.LayerNorm.{long}"), &[hidden]);
        }
        for layer in 0..layers {
            let dense = [
                ("q", "attention.self.query", hidden, hidden),
                ("k", "attention.self.key", hidden, hidden),
                ("v", "attention.self.value", hidden, hidden),
                ("ao", "attention.output.dense", hidden, hidden),
                ("fi", "intermediate.dense", feed_forward, hidden),
                ("fo", "output.dense", hidden, feed_forward),
            ];
            for (short, long, rows, columns) in dense {
                let to = format!("encoder.layer.{layer}.{long}");
                want(format!("l{layer}.{short}.w"), format!("{to}.weight"), &[rows, columns]);
                want(format!("l{layer}.{short}.b"), format!("{to}.bias"), &[rows]);
            }
            for (short, long) in [("aln", "attention.output.LayerNorm"), ("oln", "output.LayerNorm")] {
                let to = format!("encoder.layer.{layer}.{long}");
                want(format!("l{layer}.{short}.w"), format!("{to}.weight"), &[hidden]);
                want(format!("l{layer}.{short}.b"), format!("{to}.bias"), &[hidden]);
            }
        }
        let find = |(from, to, shape): (String, String, Vec<usize>)| {
            let tensor = *self.tensors.get(from.as_str()).ok_or_else(|| format!("no tensor `{from}`"))?;
            let values = shape.iter().try_fold(1usize, |product, n| product.checked_mul(*n));
            if values != Some(tensor.values) {
                return Err(format!("tensor `{from}` has {} values, its shape is {shape:?}", tensor.values));
            }
            Ok((to, Widened { tensor, shape }))
        };
        wanted.into_iter().map(find).collect()
    }

    /// `tokenizer.json`: collapse spaces, prepend and replace them, Unigram, `<s> ... </s>`. Neither padding nor
    /// truncation: those belong to the encoder, and so does the code-point map, which runs before all of this.
    fn tokenizer(&self) -> Result<String, String> {
        let names: Vec<&str> = self.pieces.iter().take(SPECIALS.len()).map(|(piece, _)| *piece).collect();
        if names != ["<s>", "<pad>", "</s>", "<unk>"] {
            return Err(format!("the first pieces are {names:?}, expected <s> <pad> </s> <unk>"));
        }
        let added = |id: usize, piece: &str| {
            format!(
                r#"{{"id":{id},"content":"{piece}","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}}"#
            )
        };
        let mask = self.pieces.iter().rposition(|(piece, _)| *piece == "<mask>");
        let special: Vec<String> = names
            .iter()
            .enumerate()
            .map(|(id, name)| added(id, name))
            .chain(mask.map(|id| added(id, "<mask>")))
            .collect();
        // Scores are written as the f64 of their f32: the tokenizer computes in f64.
        let vocab: Vec<(&str, f64)> = self.pieces.iter().map(|(piece, score)| (*piece, f64::from(*score))).collect();
        let vocab = serde_json::to_string(&vocab).expect("strings and finite numbers are JSON");
        let metaspace = r#"{"type":"Metaspace","replacement":"▁","prepend_scheme":"always","split":true}"#;
        let bos = r#"{"SpecialToken":{"id":"<s>","type_id":0}}"#;
        let eos = r#"{"SpecialToken":{"id":"</s>","type_id":0}}"#;
        let text = |which: &str| format!(r#"{{"Sequence":{{"id":"{which}","type_id":0}}}}"#);
        let parts = [
            r#"{"version":"1.0","truncation":null,"padding":null,"added_tokens":["#.to_owned(),
            special.join(","),
            r#"],"normalizer":{"type":"Replace","pattern":{"Regex":" {2,}"},"content":" "},"pre_tokenizer":"#
                .to_owned(),
            metaspace.to_owned(),
            format!(r#","post_processor":{{"type":"TemplateProcessing","single":[{bos},{},{eos}],"#, text("A")),
            format!(r#""pair":[{bos},{},{eos},{eos},{},{eos}],"#, text("A"), text("B")),
            r#""special_tokens":{"<s>":{"id":"<s>","ids":[0],"tokens":["<s>"]},"#.to_owned(),
            r#""</s>":{"id":"</s>","ids":[2],"tokens":["</s>"]}}},"decoder":"#.to_owned(),
            metaspace.to_owned(),
            format!(r#","model":{{"type":"Unigram","unk_id":3,"vocab":{vocab},"byte_fallback":false}}}}"#),
        ];
        Ok(parts.concat())
    }
}

/// The pieces with their scores: blob size, n + 1 offsets, n scores, the blob.
fn pieces<'a>(at: &mut Cursor<'a>, n: usize) -> Result<Vec<(&'a str, f32)>, String> {
    let blob_bytes = at.u64("the pieces' size")?;
    let offsets: Vec<usize> = at.words(n + 1, "the piece offsets")?.map(|w| u32::from_le_bytes(w) as usize).collect();
    let scores: Vec<f32> = at.words(n, "the piece scores")?.map(f32::from_le_bytes).collect();
    let blob_bytes = usize::try_from(blob_bytes).map_err(|_| format!("pieces of {blob_bytes} bytes are too many"))?;
    let blob = at.take(blob_bytes, "the pieces")?;
    if let Some(i) = scores.iter().position(|score| !score.is_finite()) {
        return Err(format!("the score of piece {i} is not finite"));
    }
    let spans = offsets.windows(2).zip(scores).enumerate();
    spans
        .map(|(i, (span, score))| {
            if span[0] > span[1] {
                return Err(format!("the offsets descend at piece {i}"));
            }
            let bytes = blob.get(span[0]..span[1]).ok_or_else(|| format!("piece {i} lies past the end"))?;
            let piece = std::str::from_utf8(bytes).map_err(|_| format!("piece {i} is not UTF-8"))?;
            Ok((piece, score))
        })
        .collect()
}

/// The code-point map: entry count, bytes, then (code point, k, k code points), ascending.
fn codepoints(at: &mut Cursor<'_>) -> Result<Vec<(u32, Vec<u32>)>, String> {
    let count = at.count("the code points")?;
    let bytes = at.u32("the code points' size")? as usize;
    let mut map = Cursor { left: at.take(bytes, "the code points")? };
    // An entry has at least five bytes, which bounds the allocation.
    let mut entries: Vec<(u32, Vec<u32>)> = Vec::with_capacity(count.min(bytes / 5));
    for i in 0..count {
        let from = map.u32("a code point")?;
        let [k] = map.array("a code point's length")?;
        let to: Vec<u32> = map.words(usize::from(k), "a code point's image")?.map(u32::from_le_bytes).collect();
        if let Some(no_char) = to.iter().chain([&from]).find(|c| char::from_u32(**c).is_none()) {
            return Err(format!("code-point entry {i} holds {no_char:#x}, which is no character"));
        }
        if entries.last().is_some_and(|(before, _)| *before >= from) {
            return Err(format!("the code points do not ascend at entry {i}"));
        }
        entries.push((from, to));
    }
    if map.left.is_empty() { Ok(entries) } else { Err(format!("{} bytes behind the code points", map.left.len())) }
}

/// The directory and the tensors' bytes; `file` is the whole container, which offsets count from.
fn tensors<'a>(at: &mut Cursor<'a>, file: &'a [u8]) -> Result<BTreeMap<&'a str, Tensor<'a>>, String> {
    let count = at.count("the tensors")?;
    let mut tensors = BTreeMap::new();
    let mut last_end = 0;
    for i in 0..count {
        let length = u16::from_le_bytes(at.array("a tensor's name")?);
        let name = std::str::from_utf8(at.take(usize::from(length), "a tensor's name")?)
            .map_err(|_| format!("the name of tensor {i} is not UTF-8"))?;
        let [dtype] = at.array("a tensor's type")?;
        let values = at.u32("a tensor's values")? as usize;
        let (offset, size) = (at.u64("a tensor's offset")?, at.u64("a tensor's size")?);
        let expected = match dtype {
            0 => values.checked_mul(4),
            1 if values.is_multiple_of(BLOCK) => (values / BLOCK).checked_mul(BLOCK_BYTES),
            1 => return Err(format!("tensor `{name}` has {values} values, not whole blocks of {BLOCK}")),
            other => return Err(format!("tensor `{name}` has the unknown type {other}")),
        };
        if expected.map(|n| n as u64) != Some(size) {
            return Err(format!("tensor `{name}` has {size} bytes for {values} values"));
        }
        if !offset.is_multiple_of(ALIGNMENT) {
            return Err(format!("tensor `{name}` is unaligned: offset {offset}"));
        }
        if offset < last_end {
            return Err(format!("tensor `{name}` overlaps the one before"));
        }
        let end = offset.checked_add(size).filter(|end| *end <= file.len() as u64);
        let end = end.ok_or_else(|| format!("tensor `{name}` lies past the end"))?;
        last_end = end;
        let bytes = &file[offset as usize..end as usize];
        if tensors.insert(name, Tensor { quantised: dtype == 1, values, bytes }).is_some() {
            return Err(format!("tensor `{name}` appears twice"));
        }
    }
    let directory_end = (file.len() - at.left.len()) as u64;
    let first = tensors.values().map(|t| t.bytes.as_ptr() as usize - file.as_ptr() as usize).min();
    if first.is_some_and(|first| (first as u64) < directory_end) {
        return Err("a tensor overlaps the directory".into());
    }
    if last_end != file.len() as u64 {
        return Err(format!("the last tensor ends at {last_end}, the file at {}", file.len()));
    }
    Ok(tensors)
}

/// A tensor that becomes f32 at the moment it is written: the word table alone is 384 MB wide.
struct Widened<'a> {
    tensor: Tensor<'a>,
    shape: Vec<usize>,
}

impl View for Widened<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        if self.tensor.quantised { Cow::Owned(widen(self.tensor.bytes)) } else { Cow::Borrowed(self.tensor.bytes) }
    }

    fn data_len(&self) -> usize {
        self.tensor.values * 4
    }
}

/// `q4_0` blocks to little-endian f32.
///
/// # Formula
/// `value = (nibble - 8) * d`; byte `j` of a block holds value `j` low and value `j + 16` high.
fn widen(blocks: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(blocks.len() / BLOCK_BYTES * BLOCK * 4);
    for block in blocks.chunks_exact(BLOCK_BYTES) {
        let d = half(u16::from_le_bytes([block[0], block[1]]));
        let nibbles = block[2..].iter().map(|b| b & 15).chain(block[2..].iter().map(|b| b >> 4));
        for nibble in nibbles {
            out.extend(((f32::from(nibble) - 8.0) * d).to_le_bytes());
        }
    }
    out
}

/// IEEE half to single, exact for every finite value.
fn half(bits: u16) -> f32 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 31), f32::from(bits & 1023));
    sign * match exponent {
        0 => fraction * f32::powi(2.0, -24),
        31 if fraction == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        e => (1024.0 + fraction) * f32::powi(2.0, e - 25),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A whole container with one layer of width 32, made piece by piece so that a test can spoil one of them.
    struct Sketch {
        magic: [u8; 4],
        specials: [u32; 4],
        pieces: Vec<&'static str>,
        offsets: Option<Vec<u32>>,
        codepoints: Vec<(u32, Vec<u32>)>,
        skew: u64,
        tail: Vec<u8>,
    }

    impl Default for Sketch {
        fn default() -> Self {
            Self {
                magic: *b"E5S1",
                specials: SPECIALS,
                pieces: vec!["<s>", "<pad>", "</s>", "<unk>", "\u{2581}a", "b"],
                offsets: None,
                codepoints: vec![(9, vec![32]), (0xE9, vec![0x65, 0x301])],
                skew: 0,
                tail: Vec::new(),
            }
        }
    }

    const HIDDEN: usize = 32;
    const WORDS: usize = 7;

    impl Sketch {
        /// Names, quantised or not, values: what one layer of BERT needs.
        fn directory() -> Vec<(String, bool, usize)> {
            let mut all = vec![
                ("emb.word".to_owned(), true, WORDS * HIDDEN),
                ("emb.pos".into(), false, 4 * HIDDEN),
                ("emb.type".into(), false, 2 * HIDDEN),
                ("emb.ln.w".into(), false, HIDDEN),
                ("emb.ln.b".into(), false, HIDDEN),
            ];
            for (name, rows, columns) in
                [("q", 32, 32), ("k", 32, 32), ("v", 32, 32), ("ao", 32, 32), ("fi", 64, 32), ("fo", 32, 64)]
            {
                all.push((format!("l0.{name}.w"), true, rows * columns));
                all.push((format!("l0.{name}.b"), false, rows));
            }
            for name in ["aln", "oln"] {
                all.push((format!("l0.{name}.w"), false, HIDDEN));
                all.push((format!("l0.{name}.b"), false, HIDDEN));
            }
            all
        }

        fn bytes(&self) -> Vec<u8> {
            let mut out = self.magic.to_vec();
            let mut word = |value: u32| out.extend(value.to_le_bytes());
            for value in [1, HIDDEN as u32, 1, 4, 64, WORDS as u32, 4, 2] {
                word(value);
            }
            word(1e-12f32.to_bits());
            word(32);
            word(self.pieces.len() as u32);
            self.specials.into_iter().for_each(&mut word);
            let blob = self.pieces.concat();
            out.extend((blob.len() as u64).to_le_bytes());
            let ends = self.pieces.iter().scan(0, |end, piece| {
                *end += piece.len() as u32;
                Some(*end)
            });
            let offsets = self.offsets.clone().unwrap_or_else(|| std::iter::once(0).chain(ends).collect());
            out.extend(offsets.iter().flat_map(|offset| offset.to_le_bytes()));
            for i in 0..self.pieces.len() {
                out.extend((-(i as f32)).to_le_bytes());
            }
            out.extend(blob.as_bytes());
            let mut map = Vec::new();
            for (from, to) in &self.codepoints {
                map.extend(from.to_le_bytes());
                map.push(to.len() as u8);
                map.extend(to.iter().flat_map(|c| c.to_le_bytes()));
            }
            out.extend((self.codepoints.len() as u32).to_le_bytes());
            out.extend((map.len() as u32).to_le_bytes());
            out.extend(map);
            let directory = Self::directory();
            out.extend((directory.len() as u32).to_le_bytes());
            let listed: usize = directory.iter().map(|(name, ..)| 2 + name.len() + 21).sum();
            let mut at = (out.len() + listed).next_multiple_of(64);
            let mut places = Vec::new();
            for (name, quantised, values) in &directory {
                let size = if *quantised { values / 32 * 18 } else { values * 4 };
                out.extend((name.len() as u16).to_le_bytes());
                out.extend(name.as_bytes());
                out.push(u8::from(*quantised));
                out.extend((*values as u32).to_le_bytes());
                out.extend((at as u64 + self.skew).to_le_bytes());
                out.extend((size as u64).to_le_bytes());
                places.push((at, size));
                at = (at + size).next_multiple_of(64);
            }
            let (last, size) = places[places.len() - 1];
            out.resize(last + size, 0);
            // The first block of the word table is the golden one: scale 1, nibbles 8 and 9.
            let (word_table, _) = places[0];
            out[word_table..word_table + 2].copy_from_slice(&[0x00, 0x3C]);
            out[word_table + 2..word_table + 18].fill(0x98);
            out.extend(&self.tail);
            out
        }
    }

    fn why(bytes: &[u8]) -> String {
        Container::parse(bytes).err().unwrap_or_else(|| "it was read".into())
    }

    #[test]
    fn a_q4_block_holds_low_nibbles_first() {
        let mut block = vec![0x00, 0x3C];
        block.extend([0x98; 16]);
        let values: Vec<f32> =
            widen(&block).chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        assert_eq!(values, [[0.0; 16], [1.0; 16]].concat());
    }

    #[test]
    fn halves_widen_exactly() {
        for (bits, value) in
            [(0x3C00, 1.0), (0xC000, -2.0), (0x0001, 5.960_464_5e-8), (0x7BFF, 65504.0), (0x3555, 0.333_251_95)]
        {
            assert_eq!(half(bits), value, "{bits:#06x}");
        }
        assert!(half(0x7C00).is_infinite() && half(0x7E00).is_nan());
    }

    #[test]
    fn a_container_becomes_an_encoder_folder_with_the_same_bytes_each_time() {
        super::super::keep_seed("e5s1", &Sketch::default().bytes());
        let into = [tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder")];
        for dir in &into {
            convert("tiny", &Sketch::default().bytes(), dir.path()).expect("a good container");
        }
        let read = |i: usize, name: &str| std::fs::read(into[i].path().join(name)).expect("written");
        for name in ["model.safetensors", "tokenizer.json", "codepoints.json"] {
            assert_eq!(read(0, name), read(1, name), "{name}");
        }
        assert_eq!(read(0, "codepoints.json"), b"[[9,[32]],[233,[101,769]]]");
        let weights = read(0, "model.safetensors");
        let weights = safetensors::SafeTensors::deserialize(&weights).expect("our own file");
        let words = weights.tensor("embeddings.word_embeddings.weight").expect("named like BERT's");
        assert_eq!(words.shape(), [WORDS, HIDDEN]);
        assert_eq!(words.data()[64..68], 1f32.to_le_bytes());
        assert_eq!(weights.tensor("encoder.layer.0.intermediate.dense.weight").expect("the name").shape(), [64, 32]);
        let tokenizer = tokenizers::Tokenizer::from_bytes(read(0, "tokenizer.json")).expect("the crate's own format");
        let ids = tokenizer.encode("a  ab?", true).expect("any text").get_ids().to_vec();
        assert_eq!(ids, [0, 4, 4, 5, 3, 2]);
    }

    #[test]
    fn every_spoiled_container_is_refused_for_its_own_reason() {
        let good = Sketch::default().bytes();
        let spoil = |change: &dyn Fn(&mut Sketch)| {
            let mut sketch = Sketch::default();
            change(&mut sketch);
            sketch.bytes()
        };
        let patched = |at: usize, value: &[u8]| {
            let mut bytes = good.clone();
            bytes[at..at + value.len()].copy_from_slice(value);
            bytes
        };
        // Behind a directory entry's name stand its type and its number of values.
        let first_offset = good.windows(8).position(|w| w == b"emb.word").expect("in the directory") + 8 + 5;
        let cases: Vec<(&str, Vec<u8>)> = vec![
            ("bad magic", spoil(&|s| s.magic = *b"GGUF")),
            ("version 2", patched(4, &2u32.to_le_bytes())),
            ("hidden size is negative", patched(8, &(-1i32).to_le_bytes())),
            ("layers is 0", patched(12, &0u32.to_le_bytes())),
            ("heads do not divide", patched(16, &5u32.to_le_bytes())),
            ("block size", patched(40, &64u32.to_le_bytes())),
            ("do not fit", patched(44, &i32::MAX.to_le_bytes())),
            ("special ids", spoil(&|s| s.specials = [1, 2, 0, 3])),
            ("the pieces needs", patched(64, &u64::MAX.to_le_bytes()[..7])),
            ("past the end", spoil(&|s| s.offsets = Some(vec![0, 3, 8, 12, 17, 21, 99]))),
            ("offsets descend", spoil(&|s| s.offsets = Some(vec![0, 3, 8, 2, 17, 21, 22]))),
            ("not UTF-8", spoil(&|s| s.offsets = Some(vec![0, 3, 8, 12, 18, 21, 22]))),
            ("is no character", spoil(&|s| s.codepoints = vec![(0xD800, vec![])])),
            ("do not ascend", spoil(&|s| s.codepoints = vec![(9, vec![]), (9, vec![])])),
            ("unaligned", spoil(&|s| s.skew = 8)),
            ("lies past the end", spoil(&|s| s.skew = 1 << 20)),
            ("lies past the end", patched(first_offset, &(u64::MAX - 63).to_le_bytes())),
            ("the file at", spoil(&|s| s.tail = vec![0])),
            ("are left", good[..100].to_vec()),
            ("lies past the end", good[..good.len() - 1].to_vec()),
        ];
        for (expected, bytes) in cases {
            let said = why(&bytes);
            assert!(said.contains(expected), "{expected}: {said}");
        }
        assert!(Container::parse(&good).is_ok());
    }

    #[test]
    fn every_shortened_container_is_refused() {
        let good = Sketch::default().bytes();
        for length in 0..good.len() {
            assert!(Container::parse(&good[..length]).is_err(), "{length} bytes were read");
        }
    }

    /// Once, two thousand million layers were listed before anybody looked at the directory.
    #[test]
    fn announced_layers_are_not_believed() {
        let mut bytes = Sketch::default().bytes();
        bytes[12..16].copy_from_slice(&i32::MAX.to_le_bytes());
        let error = convert("tiny", &bytes, tempfile::tempdir().expect("a folder").path()).expect_err("a bomb");
        assert!(error.to_string().contains("do not make 2147483647 layers"), "{error}");
    }

    #[test]
    fn a_missing_tensor_is_named() {
        let mut bytes = Sketch::default().bytes();
        let at = bytes.windows(8).position(|w| w == b"emb.type").expect("in the directory");
        bytes[at..at + 8].copy_from_slice(b"emb.tipe");
        let error = convert("tiny", &bytes, tempfile::tempdir().expect("a folder").path()).expect_err("a gap");
        assert_eq!(error.to_string(), "container `tiny`: no tensor `emb.type`");
    }

    proptest::proptest! {
        #[test]
        fn any_spoiled_byte_is_refused_or_read_without_a_panic(at in 0usize..1200, value: u8) {
            let mut bytes = Sketch::default().bytes();
            bytes[at] = value;
            if let Ok(container) = Container::parse(&bytes) {
                let _ = (container.bert(), container.tokenizer());
            }
        }
    }
}
