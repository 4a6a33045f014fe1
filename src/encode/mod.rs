//! Encoders: texts or pictures to vectors. The victim's vectors are released; the judges' vectors only score guesses.
//!
//! [`load`] opens a sentence-transformers folder of the BERT family, a convolutional picture encoder, or the [`Toy`].
//! [`Cached`] keeps the vectors of whole record lists on disk; [`WhiteBox`] gives an attacker exact gradients. To support
//! another architecture, write its forward pass beside `bert` or in `conv`, and choose it by `model_type`.

mod bert;
mod cache;
mod conv;
pub mod endpoint;
mod folder;
mod given;
pub(crate) mod lanes;
mod pooling;
pub mod process;
mod toy;
mod weights;

pub use cache::Cached;
pub use conv::class_names;
pub use given::Given;
pub use toy::Toy;

use crate::data::Picture;
use crate::error::Exit;
use std::path::Path;

/// Row-major vectors, one for each record: shape `(n, d)`, f32.
#[derive(Debug, Clone, PartialEq)]
pub struct Embeddings {
    values: Vec<f32>,
    dim: usize,
}

impl Embeddings {
    /// Wraps `values` as rows of `dim` coordinates.
    ///
    /// # Errors
    /// When `values` is not a whole number of rows, or holds a NaN or an infinity (the row is named).
    pub fn new(values: Vec<f32>, dim: usize) -> Result<Self, Error> {
        if dim == 0 || !values.len().is_multiple_of(dim) {
            return Err(Error::Shape { len: values.len(), dim });
        }
        if let Some(at) = values.iter().position(|v| !v.is_finite()) {
            return Err(Error::NotFinite { row: at / dim, column: at % dim });
        }
        Ok(Self { values, dim })
    }

    /// No rows yet, `dim` coordinates each.
    pub fn empty(dim: usize) -> Self {
        Self { values: Vec::new(), dim }
    }

    /// How many rows.
    pub fn len(&self) -> usize {
        self.values.len() / self.dim.max(1)
    }

    /// True without rows.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Coordinates in a row.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Row `i`.
    pub fn row(&self, i: usize) -> &[f32] {
        &self.values[i * self.dim..(i + 1) * self.dim]
    }

    /// Row `i`, to be changed in place.
    pub fn row_mut(&mut self, i: usize) -> &mut [f32] {
        &mut self.values[i * self.dim..(i + 1) * self.dim]
    }

    /// All rows in order.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        self.values.chunks_exact(self.dim)
    }

    /// The `(n, d)` values, row-major.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The `(n, d)` values, to be changed in place.
    pub fn values_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }

    /// Appends one row.
    pub fn push(&mut self, row: &[f32]) {
        assert_eq!(row.len(), self.dim, "a row has the dimension of its table");
        self.values.extend_from_slice(row);
    }

    /// The mean of the rows; zeros without rows.
    pub fn mean(&self) -> Vec<f64> {
        let mut mean = vec![0.0_f64; self.dim];
        for row in self.rows() {
            mean.iter_mut().zip(row).for_each(|(m, &v)| *m += f64::from(v));
        }
        let n = self.len().max(1) as f64;
        for m in &mut mean {
            *m /= n;
        }
        mean
    }

    /// The mean of the rows, as a row.
    pub fn centre(&self) -> Vec<f32> {
        self.mean().into_iter().map(|v| v as f32).collect()
    }

    /// The rows about `centre`.
    ///
    /// # Panics
    /// When `centre` has another dimension.
    #[must_use]
    pub fn about(&self, centre: &[f32]) -> Self {
        assert_eq!(centre.len(), self.dim, "a centre has the dimension of its table");
        let values = self.rows().flat_map(|row| row.iter().zip(centre).map(|(v, c)| v - c)).collect();
        Self { values, dim: self.dim }
    }

    /// The rows at `indices`, in that order.
    #[must_use]
    pub fn select(&self, indices: &[usize]) -> Self {
        let mut values = Vec::with_capacity(indices.len() * self.dim);
        for &i in indices {
            values.extend_from_slice(self.row(i));
        }
        Self { values, dim: self.dim }
    }
}

/// What a record of a study says about an encoder.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct EncoderInfo {
    /// Manifest name or folder.
    pub name: String,
    /// Coordinates of a vector.
    pub dim: usize,
    /// Longest input in tokens; longer texts are truncated. 0 for an encoder of pictures.
    pub max_len_tokens: usize,
    /// BLAKE3 of weights, tokenizer, configuration and prompt: two encoders with one fingerprint give the same vectors.
    pub fingerprint: String,
    /// A toy exists for fast tests only, and every output says so.
    pub toy: bool,
}

/// An encoder of pictures through which one can descend.
pub trait WhiteBox: Sync {
    /// The inner maps that a loss can see, from the first layer to the last.
    fn maps(&self) -> Vec<MapShape>;

    /// The gradient of a loss with respect to the pixels: `loss` is shown the unit vectors and the inner maps that were
    /// asked for, and answers with its derivatives with respect to them. A picture whose derivatives are all 0 costs no
    /// way back; all pictures are kept until `loss` answers.
    ///
    /// # Shapes
    /// `pixels` `(n, side, side, 3)` of `[0, 1]`, row-major, any side; `maps` are indices into [`WhiteBox::maps`]. `loss`
    /// sees a table `(n, d)`, then a table `(n, height width channels)`, channels last, for each of `maps`; it returns as
    /// many numbers for each table, in the same order. The gradient has the shape of `pixels`.
    ///
    /// # Errors
    /// When `pixels` is not a whole number of pictures, a map does not exist or a value is not finite.
    fn gradient_with_maps(
        &self,
        pixels: &[f32],
        side: usize,
        maps: &[usize],
        loss: &mut dyn FnMut(&[Embeddings]) -> Vec<Vec<f32>>,
    ) -> Result<Vec<f32>, Error>;

    /// [`WhiteBox::gradient_with_maps`] of a loss that sees the unit vectors alone.
    ///
    /// # Errors
    /// When `pixels` is not a whole number of pictures or a value is not finite.
    fn gradient(
        &self,
        pixels: &[f32],
        side: usize,
        loss: &mut dyn FnMut(&Embeddings) -> Vec<f32>,
    ) -> Result<Vec<f32>, Error> {
        self.gradient_with_maps(pixels, side, &[], &mut |tables| vec![loss(&tables[0])])
    }
}

/// The shape of an inner map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapShape {
    /// Rows.
    pub height: usize,
    /// Pixels in a row.
    pub width: usize,
    /// Values of a pixel.
    pub channels: usize,
}

/// Turns texts into unit or raw vectors; the same text always gives the same vector, whatever stands beside it.
pub trait Encoder: Send + Sync {
    /// Name, dimension, limits, identity.
    fn info(&self) -> &EncoderInfo;

    /// One row for each text, in order. Batching and threads are the encoder's own business and never change a value.
    ///
    /// # Errors
    /// When a text cannot be tokenised or a vector is not finite.
    fn encode(&self, texts: &[&str]) -> Result<Embeddings, Error>;

    /// One row for each picture, in order, by an encoder that reads pictures.
    ///
    /// # Errors
    /// When it reads texts only, or a vector is not finite.
    fn encode_pictures(&self, pictures: &[&Picture]) -> Result<Embeddings, Error> {
        let _ = pictures;
        Err(Error::Unsupported { name: self.info().name.clone(), why: "it reads texts, not pictures".to_owned() })
    }

    /// What its own classifier says of each picture: logits, shape `(n, classes)`, in the order of [`class_names`].
    ///
    /// # Errors
    /// When it has no classifier, or a logit is not finite.
    fn classify(&self, pictures: &[&Picture]) -> Result<Embeddings, Error> {
        let _ = pictures;
        Err(Error::Unsupported { name: self.info().name.clone(), why: "it has no classifier".to_owned() })
    }

    /// Gradients with respect to pixels, for attacks that know the weights.
    fn white_box(&self) -> Option<&dyn WhiteBox> {
        None
    }

    /// False for a text that it has no vector for, as a table of somebody else's vectors may not.
    fn knows(&self, text: &str) -> bool {
        let _ = text;
        true
    }

    /// The same for a picture.
    fn knows_picture(&self, picture: &Picture) -> bool {
        let _ = picture;
        true
    }

    /// True for a table: looking up is cheaper than any cache.
    fn is_table(&self) -> bool {
        false
    }

    /// Whole words of its tokenizer, sorted: public with the encoder, and a source of names that an attacker's own texts
    /// may lack. Empty where the tokenizer has none.
    fn words(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Whether a name stands for somebody else's service or program instead of a folder.
pub fn is_remote(name: &str) -> bool {
    name.starts_with(endpoint::PREFIX) || name.starts_with(process::PREFIX)
}

/// Opens the encoder called `name`: `toy` or `toy-judge`, or the folder `dir` of a sentence-transformers model or of a
/// picture encoder (`config.json` with `model_type` `efficientnet_lite` or `mobilenet_v2`).
///
/// `prompt` is put before every text; `None` takes the folder's default prompt, `Some("")` takes none. Weights must be
/// safetensors. A `codepoints.json` beside `tokenizer.json`, a sorted list of `[code point, [code points]]`, is applied
/// to the prompted text before the tokenizer. A picture encoder's name may end in the pixels a side that pictures are
/// resized to ([`split_side`]); its folder has a default.
///
/// # Errors
/// When a file is missing or malformed, a tensor has another shape or a value that is not finite, or a module, pooling
/// mode, activation or architecture is not supported: it is named, with what is.
pub fn load(name: &str, dir: &Path, prompt: Option<&str>) -> Result<Box<dyn Encoder>, Error> {
    if is_toy(name) {
        return Ok(Box::new(Toy::named(name)));
    }
    if name.starts_with(process::PREFIX) {
        return Ok(Box::new(process::Process::open(name)?));
    }
    if name.starts_with(endpoint::PREFIX) {
        return Ok(Box::new(endpoint::Endpoint::open(name, endpoint::Settings::from_env(name)?)?));
    }
    let (_, side) = split_side(name);
    if let Some(encoder) = conv::open(dir, name, side)? {
        return Ok(Box::new(encoder));
    }
    if let Some(side) = side {
        let why = format!("`@{side}` is the side of a picture, and it reads texts");
        return Err(Error::Unsupported { name: name.to_owned(), why });
    }
    Ok(Box::new(folder::open(dir, name, prompt)?))
}

/// A name without its `@side`, and the side in pixels.
///
/// # Example
/// ```
/// use stitchback::encode::split_side;
/// assert_eq!(split_side("efficientnet-lite0@128"), ("efficientnet-lite0", Some(128)));
/// assert_eq!(split_side("efficientnet-lite0"), ("efficientnet-lite0", None));
/// ```
pub fn split_side(name: &str) -> (&str, Option<usize>) {
    match name.rsplit_once('@').map(|(base, side)| (base, side.parse())) {
        Some((base, Ok(side))) => (base, Some(side)),
        _ => (name, None),
    }
}

/// True for the toy victim (`toy`) and the toy judge (`toy-judge`), which exist for fast tests.
pub fn is_toy(name: &str) -> bool {
    matches!(name, "toy" | "toy-judge")
}

/// Why records could not be encoded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The table is not rectangular.
    #[error("{len} values are not a whole number of rows of {dim}")]
    Shape {
        /// Values given.
        len: usize,
        /// Coordinates in a row.
        dim: usize,
    },
    /// A NaN or an infinity.
    #[error("embedding row {row}, column {column} is not finite; remove the record or repair the encoder's output")]
    NotFinite {
        /// The row.
        row: usize,
        /// The column.
        column: usize,
    },
    /// The folder is not an encoder that we can run.
    #[error("encoder `{name}`: {why}")]
    Unsupported {
        /// Folder or manifest name.
        name: String,
        /// The unknown module or field, and what is supported.
        why: String,
    },
    /// A file of the folder is missing or malformed.
    #[error("encoder file `{path}`: {why}")]
    File {
        /// The file.
        path: String,
        /// What is wrong.
        why: String,
    },
}

impl Error {
    /// Bad input, all of it.
    pub fn exit(&self) -> Exit {
        Exit::Input
    }
}
