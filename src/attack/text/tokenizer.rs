//! The decoder's own tokenizer: byte-level BPE trained on the attacker's texts.

use crate::attack::Error;
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Tokenizer};

/// Ends every text.
pub const END: u32 = 0;

/// Byte-level BPE: every text round-trips, cased and punctuated, so the decoder writes what a reader sees.
pub struct Bpe {
    inner: Tokenizer,
}

impl Bpe {
    /// Trains on the attacker's texts; `vocabulary` counts the end mark and the 256 bytes.
    pub fn train<'a>(texts: impl Iterator<Item = &'a str> + Send, vocabulary: usize) -> Result<Self, Error> {
        let mut inner = Tokenizer::new(BPE::default());
        inner.with_pre_tokenizer(Some(ByteLevel::new(true, true, true)));
        inner.with_decoder(Some(ByteLevel::new(true, true, true)));
        let trainer = BpeTrainerBuilder::new()
            .vocab_size(vocabulary)
            .min_frequency(2)
            .show_progress(false)
            .special_tokens(vec![AddedToken::from("<end>", true)])
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .build();
        let mut trainer: tokenizers::models::TrainerWrapper = trainer.into();
        inner.train(&mut trainer, texts).map_err(|e| Error::Tokenizer(e.to_string()))?;
        Ok(Self::new(inner))
    }

    /// Reads a tokenizer back from its JSON.
    pub fn from_json(json: &[u8]) -> Result<Self, Error> {
        Ok(Self::new(Tokenizer::from_bytes(json).map_err(|e| Error::Tokenizer(e.to_string()))?))
    }

    fn new(mut inner: Tokenizer) -> Self {
        // Untrusted text that spells the end mark must come out as ordinary pieces.
        inner.set_encode_special_tokens(true);
        Self { inner }
    }

    /// The tokenizer as JSON.
    pub fn to_json(&self) -> Result<String, Error> {
        self.inner.to_string(false).map_err(|e| Error::Tokenizer(e.to_string()))
    }

    /// Pieces, the end mark included.
    pub fn vocabulary(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// A text as pieces without the end mark.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
        let encoding = self.inner.encode_fast(text, false).map_err(|e| Error::Tokenizer(e.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Pieces as a text; the end mark and everything behind it is dropped.
    pub fn decode(&self, ids: &[u32]) -> Result<String, Error> {
        let ids = ids.split(|&id| id == END).next().unwrap_or_default();
        let text = self.inner.decode(ids, true).map_err(|e| Error::Tokenizer(e.to_string()))?;
        Ok(text.trim().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXTS: [&str; 4] =
        ["The cat sat on the mat.", "The dog sat on the log.", "A cat and a dog sat.", "Café £5 — “naïve”"];

    #[test]
    fn texts_round_trip_and_training_is_repeatable() {
        let bpe = Bpe::train(TEXTS.into_iter(), 300).expect("trains");
        for text in TEXTS {
            let mut ids = bpe.encode(text).expect("encodes");
            ids.extend([END, 5, 6]);
            assert_eq!(bpe.decode(&ids).expect("decodes"), text);
        }
        let again = Bpe::train(TEXTS.into_iter(), 300).expect("trains");
        assert_eq!(again.to_json().expect("json"), bpe.to_json().expect("json"));
        let read = Bpe::from_json(bpe.to_json().expect("json").as_bytes()).expect("reads");
        assert_eq!(read.encode(TEXTS[1]).expect("encodes"), bpe.encode(TEXTS[1]).expect("encodes"));
    }

    #[test]
    fn end_marks_in_a_text_are_ordinary_pieces() {
        let bpe = Bpe::train(TEXTS.into_iter(), 300).expect("trains");
        assert!(!bpe.encode("a <end> b").expect("encodes").contains(&END));
    }
}
