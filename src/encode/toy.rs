//! A toy encoder: no weights, no download, microseconds a text. For fast tests of everything around an encoder.

use super::pooling::normalize;
use super::{Embeddings, Encoder, EncoderInfo, Error, MapShape, WhiteBox};
use crate::data::Picture;
use crate::nn::image_ops::{Filter, resample};
use candle_core::{Device, Tensor, Var};

/// Coordinates of a toy vector.
const DIM: usize = 64;

/// Pixels in a row of the thumbnail that a toy sees of a picture.
const THUMBNAIL: usize = 6;

/// Words after this many are ignored.
const MAX_WORDS: usize = 256;

/// The sum of a fixed pseudo-random vector for each word, scaled to unit length.
///
/// It is linear in the words up to that scale, so an attacker who knows the words can solve for them: attacks on it have
/// known answers, which attacks on a real encoder have not. Nothing that it says about privacy is of any worth.
///
/// # Formula
/// `v = sum over words w of (e(w) + sum over trigrams t of w of e(t) / sqrt(number of trigrams))`, `out = v / |v|`; `e`
/// maps a string to 64 coordinates in `[-1, 1)` read from its BLAKE3 hash. Words are lower-case runs of letters and digits, a trigram
/// includes the word's ends; a text without words is the vector of the empty word. A picture is reduced to `x` of
/// `(6, 6, 3)`, and `out = h / |h|`, `h = max(0, W (x - 1/2))` with rows of `W` read from hashes likewise.
///
/// # Shapes
/// `n` texts or pictures -> `(n, 64)` f32, rows unit-norm.
#[derive(Debug)]
pub struct Toy {
    info: EncoderInfo,
    /// Hashed before every string: what makes two toys see differently.
    salt: &'static str,
    /// `(6 6 3, 64)`: what a toy sees of a thumbnail.
    pixels: Vec<f32>,
}

impl Toy {
    /// The toy victim.
    pub fn new() -> Self {
        Self::named("toy")
    }

    /// A toy whose coordinates depend on its name, so that a toy victim and a toy judge do not see alike.
    pub fn named(name: &str) -> Self {
        let info = EncoderInfo {
            name: name.to_owned(),
            dim: DIM,
            max_len_tokens: MAX_WORDS,
            fingerprint: blake3::hash(format!("stitchback toy encoder v1 {name}").as_bytes()).to_hex().to_string(),
            toy: true,
        };
        let salt = if name == "toy" { "" } else { "judge" };
        let pixels = (0..THUMBNAIL * THUMBNAIL * 3)
            .flat_map(|pixel| {
                let mut row = [0.0; DIM];
                add_hashed(&mut row, salt, b"pixel", &pixel.to_string(), 1.0);
                row
            })
            .collect();
        Self { info, salt, pixels }
    }
}

impl Default for Toy {
    fn default() -> Self {
        Self::new()
    }
}

impl Encoder for Toy {
    fn info(&self) -> &EncoderInfo {
        &self.info
    }

    fn encode(&self, texts: &[&str]) -> Result<Embeddings, Error> {
        let mut rows = Embeddings::empty(DIM);
        for text in texts {
            let text = text.to_lowercase();
            let mut row = [0.0; DIM];
            let words = text.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty());
            for word in words.take(MAX_WORDS) {
                add_word(&mut row, self.salt, word);
            }
            if row.iter().all(|v| *v == 0.0) {
                add_word(&mut row, self.salt, "");
            }
            normalize(&mut row);
            rows.push(&row);
        }
        Ok(rows)
    }

    fn encode_pictures(&self, pictures: &[&Picture]) -> Result<Embeddings, Error> {
        let mut rows = Embeddings::empty(DIM);
        for picture in pictures {
            let shape = (1, picture.height() as usize, picture.width() as usize, 3);
            let row = Tensor::from_vec(picture.unit(), shape, &Device::Cpu).and_then(|x| self.look(&x));
            rows.push(&row.and_then(|y| y.flatten_all()?.to_vec1::<f32>()).map_err(|e| self.wrong(&e))?);
        }
        Ok(rows)
    }

    fn white_box(&self) -> Option<&dyn WhiteBox> {
        Some(self)
    }
}

impl Toy {
    /// Rows of unit length from pixels of `(n, side, side, 3)`, as an expression that has a gradient.
    fn look(&self, pixels: &Tensor) -> candle_core::Result<Tensor> {
        let &[n, h, w, c] = pixels.dims() else { candle_core::bail!("pictures have four dimensions") };
        let (rows, columns) = (Filter::resize(h, THUMBNAIL), Filter::resize(w, THUMBNAIL));
        let small = resample(pixels, &rows, &columns).map_err(candle_core::Error::wrap)?;
        let each = THUMBNAIL * THUMBNAIL * c;
        let weights = Tensor::from_slice(&self.pixels, (each, DIM), &Device::Cpu)?;
        let hidden = (small.reshape((n, each))? - 0.5)?.matmul(&weights)?.relu()?;
        hidden.broadcast_div(&(hidden.sqr()?.sum_keepdim(1)? + 1e-12)?.sqrt()?)
    }

    fn wrong(&self, error: &candle_core::Error) -> Error {
        Error::Unsupported { name: self.info.name.clone(), why: error.to_string() }
    }
}

impl WhiteBox for Toy {
    fn maps(&self) -> Vec<MapShape> {
        Vec::new()
    }

    fn gradient_with_maps(
        &self,
        pixels: &[f32],
        side: usize,
        maps: &[usize],
        loss: &mut dyn FnMut(&[Embeddings]) -> Vec<Vec<f32>>,
    ) -> Result<Vec<f32>, Error> {
        let mut descend = || {
            if !maps.is_empty() {
                candle_core::bail!("a toy has no inner maps");
            }
            let x = Var::from_slice(pixels, (pixels.len() / (3 * side * side), side, side, 3), &Device::Cpu)?;
            let y = self.look(x.as_tensor())?;
            let rows = Embeddings { values: y.flatten_all()?.to_vec1()?, dim: DIM };
            let upstream = Tensor::from_vec(loss(&[rows]).concat(), y.shape(), &Device::Cpu)?;
            let grads = (y * upstream)?.sum_all()?.backward()?;
            grads.get(&x).map_or_else(|| Ok(vec![0.0; pixels.len()]), |g| g.flatten_all()?.to_vec1())
        };
        descend().map_err(|e| self.wrong(&e))
    }
}

fn add_word(row: &mut [f32; DIM], salt: &str, word: &str) {
    add_hashed(row, salt, b"word", word, 1.0);
    let letters: Vec<char> = format!("<{word}>").chars().collect();
    let trigrams = letters.windows(3);
    let share = 1.0 / (trigrams.len().max(1) as f32).sqrt();
    for trigram in trigrams {
        add_hashed(row, salt, b"gram", &trigram.iter().collect::<String>(), share);
    }
}

fn add_hashed(row: &mut [f32; DIM], salt: &str, kind: &[u8], text: &str, weight: f32) {
    let mut bytes = [0; DIM];
    blake3::Hasher::new().update(salt.as_bytes()).update(kind).update(text.as_bytes()).finalize_xof().fill(&mut bytes);
    for (v, b) in row.iter_mut().zip(bytes) {
        *v += weight * (f32::from(b) - 128.0) / 128.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::kernel::dot;

    #[test]
    fn a_toy_vector_is_unit_norm_and_says_that_it_is_a_toy() {
        let toy = Toy::new();
        let rows = toy.encode(&["A tennis ball", "", " \t", "ball TENNIS, a"]).expect("the toy reads any text");
        assert!(rows.rows().all(|r| (dot(r, r) - 1.0).abs() < 1e-6));
        assert!(toy.info().toy);
        assert_eq!(rows.row(1), rows.row(2));
        assert!(rows.row(0).iter().zip(rows.row(3)).all(|(a, b)| (a - b).abs() < 1e-6), "word order is not encoded");
    }

    #[test]
    fn shared_words_and_shared_letters_bring_texts_closer() {
        let texts = ["the red tennis ball", "a red tennis racket", "tenniss", "tennis", "quarterly earnings fell"];
        let rows = Toy::new().encode(&texts).expect("the toy reads any text");
        let cos = |i: usize, j: usize| dot(rows.row(i), rows.row(j));
        assert!(cos(0, 1) > 0.3, "{}", cos(0, 1));
        assert!(cos(0, 4) < 0.3, "{}", cos(0, 4));
        assert!(cos(2, 3) > 0.25, "{}", cos(2, 3));
        assert!(cos(3, 4) < 0.2, "{}", cos(3, 4));
    }
}
