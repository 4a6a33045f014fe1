//! An encoder that is a table: vectors that somebody else made, looked up by their text or picture.
//!
//! A text that is not in the table is encoded by the encoder behind it, where there is one. Without one it has no vector:
//! it gets a row of zeros, which is similar to nothing, and [`Encoder::knows`] says so, so that no score is made of it.

use super::{Embeddings, Encoder, EncoderInfo, Error};
use crate::data::Picture;
use std::collections::HashMap;

/// Records that are compared with the encoder behind the table.
const PROBES: usize = 16;
/// Below this cosine to the encoder's own vector, the table was made by another one.
const SAME: f64 = 0.98;

/// Vectors by text or by picture.
pub struct Given {
    info: EncoderInfo,
    vectors: Embeddings,
    rows: HashMap<[u8; 32], usize>,
    behind: Option<Box<dyn Encoder>>,
}

/// What a picture is looked up by.
fn picture_key(picture: &Picture) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("stitchback given picture v1");
    hasher.update(&picture.width().to_le_bytes());
    hasher.update(picture.rgb());
    *hasher.finalize().as_bytes()
}

fn text_key(text: &str) -> [u8; 32] {
    *blake3::hash(text.as_bytes()).as_bytes()
}

impl Given {
    /// A table of texts, row `i` for `texts[i]`; of a text that stands there twice the first row is taken.
    ///
    /// # Errors
    /// When the numbers differ, or the encoder behind the table gives other vectors.
    pub fn texts(
        name: &str,
        texts: &[&str],
        vectors: Embeddings,
        behind: Option<Box<dyn Encoder>>,
    ) -> Result<Self, Error> {
        let rows = texts.iter().enumerate().map(|(i, text)| (text_key(text), i));
        let probes: Vec<&str> = texts.iter().step_by((texts.len() / PROBES).max(1)).copied().collect();
        let own = behind.as_ref().map(|encoder| encoder.encode(&probes)).transpose()?;
        Self::new(name, texts.len(), rows.rev().collect(), vectors, behind, own.as_ref())
    }

    /// A table of pictures, row `i` for `pictures[i]`.
    ///
    /// # Errors
    /// As [`Given::texts`].
    pub fn pictures(
        name: &str,
        pictures: &[&Picture],
        vectors: Embeddings,
        behind: Option<Box<dyn Encoder>>,
    ) -> Result<Self, Error> {
        let rows = pictures.iter().enumerate().map(|(i, picture)| (picture_key(picture), i));
        let probes: Vec<&Picture> = pictures.iter().step_by((pictures.len() / PROBES).max(1)).copied().collect();
        let own = behind.as_ref().map(|encoder| encoder.encode_pictures(&probes)).transpose()?;
        Self::new(name, pictures.len(), rows.rev().collect(), vectors, behind, own.as_ref())
    }

    fn new(
        name: &str,
        records: usize,
        rows: HashMap<[u8; 32], usize>,
        vectors: Embeddings,
        behind: Option<Box<dyn Encoder>>,
        own: Option<&Embeddings>,
    ) -> Result<Self, Error> {
        let refused = |why: String| Error::Unsupported { name: name.to_owned(), why };
        if records != vectors.len() {
            let why = format!(
                "there are {} vectors for {records} records; one row for each, in order, is expected",
                vectors.len()
            );
            return Err(refused(why));
        }
        if let Some(own) = own {
            let step = (records / PROBES).max(1);
            let given = vectors.select(&(0..records).step_by(step).collect::<Vec<_>>());
            let cosine = if given.dim() == own.dim() { mean_cosine(&given, own) } else { 0.0 };
            if cosine < SAME {
                let encoder = behind.as_ref().map_or("", |e| e.info().name.as_str());
                let why = format!(
                    "these vectors are not those of `{encoder}`: their mean cosine is {cosine:.3}; name the encoder that made them, or none"
                );
                return Err(refused(why));
            }
        }
        let mut hasher = blake3::Hasher::new_derive_key("stitchback given vectors v1");
        vectors.values().iter().for_each(|v| {
            hasher.update(&v.to_le_bytes());
        });
        if let Some(encoder) = &behind {
            hasher.update(encoder.info().fingerprint.as_bytes());
        }
        let info = EncoderInfo {
            name: name.to_owned(),
            dim: vectors.dim(),
            max_len_tokens: behind.as_ref().map_or(0, |e| e.info().max_len_tokens),
            fingerprint: hasher.finalize().to_hex().to_string(),
            toy: behind.as_ref().is_some_and(|e| e.info().toy),
        };
        Ok(Self { info, vectors, rows, behind })
    }

    /// Rows from the table, the others from the encoder behind it or zero.
    fn look_up<T: Copy>(
        &self,
        items: &[T],
        key: impl Fn(T) -> [u8; 32],
        encode: impl Fn(&dyn Encoder, &[T]) -> Result<Embeddings, Error>,
    ) -> Result<Embeddings, Error> {
        let found: Vec<Option<usize>> = items.iter().map(|item| self.rows.get(&key(*item)).copied()).collect();
        let missing: Vec<T> = items.iter().zip(&found).filter(|(_, f)| f.is_none()).map(|(item, _)| *item).collect();
        let fresh = match &self.behind {
            Some(encoder) if !missing.is_empty() => encode(encoder.as_ref(), &missing)?,
            _ => Embeddings::new(vec![0.0; missing.len() * self.info.dim], self.info.dim)?,
        };
        let mut fresh = fresh.rows();
        let mut out = Embeddings::empty(self.info.dim);
        for row in found {
            match row {
                Some(row) => out.push(self.vectors.row(row)),
                None => out.push(fresh.next().expect("one fresh row for each missing item")),
            }
        }
        Ok(out)
    }
}

fn mean_cosine(a: &Embeddings, b: &Embeddings) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
    let cosine = |(a, b): (&[f32], &[f32])| dot(a, b) / (dot(a, a) * dot(b, b)).sqrt().max(f64::MIN_POSITIVE);
    a.rows().zip(b.rows()).map(cosine).sum::<f64>() / a.len().max(1) as f64
}

impl Encoder for Given {
    fn info(&self) -> &EncoderInfo {
        &self.info
    }

    fn encode(&self, texts: &[&str]) -> Result<Embeddings, Error> {
        self.look_up(texts, text_key, |encoder, missing| encoder.encode(missing))
    }

    fn encode_pictures(&self, pictures: &[&Picture]) -> Result<Embeddings, Error> {
        self.look_up(pictures, picture_key, |encoder, missing| encoder.encode_pictures(missing))
    }

    fn knows(&self, text: &str) -> bool {
        self.behind.is_some() || self.rows.contains_key(&text_key(text))
    }

    fn knows_picture(&self, picture: &Picture) -> bool {
        self.behind.is_some() || self.rows.contains_key(&picture_key(picture))
    }

    fn is_table(&self) -> bool {
        true
    }

    fn words(&self) -> Vec<String> {
        self.behind.as_ref().map(|encoder| encoder.words()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::toy::Toy;

    fn table(behind: Option<Box<dyn Encoder>>) -> Result<Given, Error> {
        let texts = ["the ball rolled under the car", "she wrote a letter to her friend"];
        let vectors = Toy::named("toy").encode(&texts)?;
        Given::texts("mine", &texts, vectors, behind)
    }

    #[test]
    fn known_texts_are_looked_up_and_others_have_no_vector() {
        let given = table(None).expect("two texts, two rows");
        let known = "she wrote a letter to her friend";
        let rows = given.encode(&[known, "something else"]).expect("looked up");
        assert_eq!(rows.row(0), Toy::named("toy").encode(&[known]).expect("encodes").row(0));
        assert!(rows.row(1).iter().all(|v| *v == 0.0));
        assert!(given.knows(known) && !given.knows("something else"));
    }

    #[test]
    fn an_encoder_behind_the_table_must_be_the_one_that_made_it() {
        let given = table(Some(Box::new(Toy::named("toy")))).expect("the same encoder");
        let other = given.encode(&["something else"]).expect("encodes");
        assert_eq!(other, Toy::named("toy").encode(&["something else"]).expect("encodes"));
        let Err(error) = table(Some(Box::new(Toy::named("toy-judge")))) else { panic!("another encoder") };
        assert!(error.to_string().contains("are not those of `toy-judge`"), "{error}");
    }

    #[test]
    fn a_table_has_a_row_for_each_record() {
        let vectors = Embeddings::new(vec![1.0; 6], 2).expect("finite");
        let Err(error) = Given::texts("mine", &["a", "b"], vectors, None) else { panic!("three rows, two texts") };
        assert!(error.to_string().contains("3 vectors for 2 records"), "{error}");
    }
}
