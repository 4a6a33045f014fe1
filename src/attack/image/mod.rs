//! Image attackers, and what they share: pictures as tables of numbers.

mod autoencoder;
pub mod decoder;
mod descent;
mod flow;
pub mod gate;
pub mod generative;
pub mod invert;
pub mod kept;
pub mod network;
pub mod painter;
mod perceptual;
pub mod ridge;

use super::{Error, View};
use crate::data::Picture;
use crate::encode::{Embeddings, Encoder};

/// Pictures of one square size as numbers of `[0, 1]`: shape `(n, side, side, 3)`, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct Pixels {
    side: usize,
    values: Vec<f32>,
}

impl Pixels {
    /// The table of the given pictures.
    ///
    /// # Errors
    /// When one is not a square of the size of the first.
    pub fn of<'a>(pictures: impl IntoIterator<Item = &'a Picture>) -> Result<Self, Error> {
        let (mut side, mut values) = (0, Vec::new());
        for picture in pictures {
            if side == 0 {
                side = picture.width();
            }
            if (picture.width(), picture.height()) != (side, side) {
                let (w, h) = (picture.width(), picture.height());
                return Err(Error::Pictures(format!(
                    "pictures are squares of one size, got {w}x{h} beside {side}x{side}"
                )));
            }
            values.extend(picture.unit());
        }
        Ok(Self { side: side as usize, values })
    }

    /// Wraps the output of a network.
    pub(crate) fn new(side: usize, values: Vec<f32>) -> Self {
        assert_eq!(values.len() % (3 * side * side).max(1), 0, "whole pictures");
        Self { side, values }
    }

    /// Pixels in a row.
    pub fn side(&self) -> usize {
        self.side
    }

    /// Numbers in a picture.
    pub fn each(&self) -> usize {
        3 * self.side * self.side
    }

    /// How many pictures.
    pub fn len(&self) -> usize {
        self.values.len() / self.each().max(1)
    }

    /// True without pictures.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The numbers of picture `i`.
    pub fn row(&self, i: usize) -> &[f32] {
        &self.values[i * self.each()..(i + 1) * self.each()]
    }

    /// All numbers.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The pictures as rows of a table.
    pub(crate) fn table(&self) -> Result<Embeddings, Error> {
        Ok(Embeddings::new(self.values.clone(), self.each())?)
    }

    /// What an encoder says of the pictures.
    pub(crate) fn encoded(&self, encoder: &dyn Encoder) -> Result<Embeddings, Error> {
        let pictures: Vec<Picture> = (0..self.len()).map(|i| self.picture(i)).collect();
        Ok(encoder.encode_pictures(&pictures.iter().collect::<Vec<_>>())?)
    }

    /// Picture `i`; what lies outside of `[0, 1]` is cut off.
    pub fn picture(&self, i: usize) -> Picture {
        Picture::from_unit(self.side as u32, self.side as u32, self.row(i))
    }
}

/// The mean picture.
pub fn mean(pixels: &Pixels) -> Picture {
    let mut sum = vec![0.0_f64; pixels.each()];
    for row in pixels.values.chunks_exact(pixels.each().max(1)) {
        sum.iter_mut().zip(row).for_each(|(s, &v)| *s += f64::from(v));
    }
    let mean: Vec<f32> = sum.into_iter().map(|s| (s / pixels.len().max(1) as f64) as f32).collect();
    Picture::from_unit(pixels.side as u32, pixels.side as u32, &mean)
}

impl View<'_> {
    /// The attacker's own pictures.
    ///
    /// # Errors
    /// When its records are texts.
    pub fn pictures(&self) -> Result<Pixels, Error> {
        if !self.shows_pictures() {
            return Err(Error::Pictures("the records are texts; this attack draws pictures".to_owned()));
        }
        Pixels::of(self.auxiliary.iter().filter_map(|r| r.picture.as_ref()))
    }

    /// True where records are pictures.
    pub fn shows_pictures(&self) -> bool {
        self.auxiliary.first().is_some_and(|r| r.picture.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_of_two_sizes_are_refused() {
        let picture = |side: u32, byte| Picture::new(side, side, vec![byte; 3 * (side * side) as usize]);
        let pixels = Pixels::of(&[picture(2, 0), picture(2, 255)]).expect("two squares");
        assert_eq!((pixels.len(), pixels.side(), pixels.row(1)), (2, 2, &[1.0; 12][..]));
        assert_eq!(mean(&pixels), picture(2, 128));
        assert!(Pixels::of(&[picture(2, 0), picture(3, 0)]).is_err());
    }
}
