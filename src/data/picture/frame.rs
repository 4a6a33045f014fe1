//! Squares of one size for encoders and attackers, and other sizes, by one resampling filter.

use super::Picture;
use image::imageops::{self, FilterType};
use image::{ImageBuffer, Rgb};
use serde::{Deserialize, Serialize};

/// How a picture of any shape becomes a square.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fit {
    /// The square in the middle, as long as the shorter side. For photographs: their subject stands in the middle.
    #[default]
    Crop,
    /// What is left inside white margins, the longer side as long as the square's, in the middle of white. For drawings
    /// on white.
    Pad,
}

/// A channel at or above this value counts as white in margins.
const WHITE: u8 = 250;

impl Picture {
    /// The picture as a square of `side_px` pixels.
    ///
    /// # Panics
    /// When `side_px` is 0.
    #[must_use]
    pub fn framed(&self, side_px: u32, fit: Fit) -> Self {
        assert!(side_px > 0, "a square has pixels");
        match fit {
            Fit::Crop => {
                let side = self.width.min(self.height);
                self.cut((self.width - side) / 2, (self.height - side) / 2, side, side).resized(side_px, side_px)
            }
            Fit::Pad => {
                let drawing = self.trimmed();
                let scale = f64::from(side_px) / f64::from(drawing.width.max(drawing.height));
                let scaled = |side: u32| ((f64::from(side) * scale).round() as u32).clamp(1, side_px);
                drawing.resized(scaled(drawing.width), scaled(drawing.height)).on_white(side_px)
            }
        }
    }

    /// The picture without its white margins; a white picture stays as it is.
    #[must_use]
    pub fn trimmed(&self) -> Self {
        let row_bytes = 3 * self.width as usize;
        let is_white = |pixel: &[u8]| pixel.iter().all(|&v| v >= WHITE);
        let rows: Vec<&[u8]> = self.rgb.chunks_exact(row_bytes).collect();
        let is_inked = |row: &&[u8]| !is_white(row);
        let (Some(top), Some(bottom)) = (rows.iter().position(is_inked), rows.iter().rposition(is_inked)) else {
            return self.clone();
        };
        let inked = &rows[top..=bottom];
        let first = |row: &&[u8]| row.chunks_exact(3).position(|pixel| !is_white(pixel));
        let last = |row: &&[u8]| row.chunks_exact(3).rposition(|pixel| !is_white(pixel));
        let left = inked.iter().filter_map(first).min().expect("the first row has ink") as u32;
        let right = inked.iter().filter_map(last).max().expect("the first row has ink") as u32;
        self.cut(left, top as u32, right + 1 - left, inked.len() as u32)
    }

    /// The picture at another size; the shape may change.
    ///
    /// # Formula
    /// Catmull-Rom's cubic in both directions, stretched by the factor of reduction: every source pixel counts. In the
    /// values of the file (no gamma), rounded and clamped to bytes.
    ///
    /// # Panics
    /// When a side is 0.
    #[must_use]
    pub fn resized(&self, width: u32, height: u32) -> Self {
        assert!(width > 0 && height > 0, "a picture has pixels");
        if (width, height) == (self.width, self.height) {
            return self.clone();
        }
        let view: ImageBuffer<Rgb<u8>, &[u8]> =
            ImageBuffer::from_raw(self.width, self.height, &*self.rgb).expect("three bytes for each pixel");
        Self::new(width, height, imageops::resize(&view, width, height, FilterType::CatmullRom).into_raw())
    }

    /// The part of this size whose upper left corner is at `(left, top)`.
    fn cut(&self, left: u32, top: u32, width: u32, height: u32) -> Self {
        if (self.width, self.height) == (width, height) {
            return self.clone();
        }
        let (from, to) = (3 * left as usize, 3 * (left + width) as usize);
        let rows = self.rgb.chunks_exact(3 * self.width as usize).skip(top as usize).take(height as usize);
        let rgb: Vec<u8> = rows.flat_map(|row| &row[from..to]).copied().collect();
        Self::new(width, height, rgb)
    }

    /// In the middle of a white square that is not smaller.
    fn on_white(&self, side: u32) -> Self {
        let mut rgb = vec![255_u8; 3 * side as usize * side as usize];
        let (left, top) = ((side - self.width) / 2, (side - self.height) / 2);
        for (y, row) in self.rgb.chunks_exact(3 * self.width as usize).enumerate() {
            let at = 3 * ((top as usize + y) * side as usize + left as usize);
            rgb[at..at + row.len()].copy_from_slice(row);
        }
        Self::new(side, side, rgb)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pixel(picture: &Picture, x: u32, y: u32) -> [u8; 3] {
        let at = 3 * (y * picture.width() + x) as usize;
        picture.rgb()[at..at + 3].try_into().expect("three bytes")
    }

    /// Red, green and blue thirds from left to right.
    fn thirds(width: u32, height: u32) -> Picture {
        let colours = [[255, 0, 0], [0, 255, 0], [0, 0, 255]];
        let row: Vec<u8> = (0..width).flat_map(|x| colours[(3 * x / width) as usize]).collect();
        Picture::new(width, height, row.repeat(height as usize))
    }

    #[test]
    fn a_crop_keeps_the_middle_and_a_pad_keeps_everything() {
        let wide = thirds(90, 30);
        let crop = wide.framed(10, Fit::Crop);
        assert_eq!((crop.width(), crop.height()), (10, 10));
        assert!(crop.rgb().chunks_exact(3).all(|p| p == [0, 255, 0]));
        let pad = wide.framed(30, Fit::Pad);
        assert_eq!((pad.width(), pad.height()), (30, 30));
        assert_eq!(
            (pixel(&pad, 4, 15), pixel(&pad, 15, 15), pixel(&pad, 25, 15)),
            ([255, 0, 0], [0, 255, 0], [0, 0, 255])
        );
        assert_eq!((pixel(&pad, 4, 2), pixel(&pad, 4, 28)), ([255; 3], [255; 3]));
    }

    #[test]
    fn white_margins_are_cut_off_before_padding() {
        let mut rgb = vec![255_u8; 3 * 40 * 30];
        for (x, y) in [(5, 7), (12, 9), (8, 20)] {
            rgb[3 * (y * 40 + x)] = 10;
        }
        let trimmed = Picture::new(40, 30, rgb).trimmed();
        assert_eq!((trimmed.width(), trimmed.height()), (8, 14));
        assert_eq!((pixel(&trimmed, 0, 0), pixel(&trimmed, 3, 13)), ([10, 255, 255], [10, 255, 255]));
        let white = Picture::new(4, 3, vec![252; 36]);
        assert_eq!(white.trimmed(), white);
    }

    #[test]
    fn a_frame_of_the_right_size_changes_nothing() {
        let square = thirds(9, 9);
        assert_eq!(square.framed(9, Fit::Crop), square);
        assert_eq!(square.framed(9, Fit::Pad), square);
    }

    #[test]
    fn one_pixel_and_thin_lines_can_be_framed() {
        for (width, height) in [(1, 1), (1, 500), (500, 1)] {
            let thin = Picture::new(width, height, vec![7; 3 * (width * height) as usize]);
            for fit in [Fit::Crop, Fit::Pad] {
                let square = thin.framed(16, fit);
                assert_eq!((square.width(), square.height()), (16, 16));
                assert!(square.rgb().contains(&7), "{width}x{height} {fit:?}");
            }
        }
    }

    #[test]
    fn a_reduction_averages_instead_of_skipping() {
        // Columns of black and white: any filter that skips pixels gives stripes.
        let columns: Vec<u8> = (0..64).flat_map(|x| [255 * (x % 2) as u8; 3]).collect();
        let small = Picture::new(64, 64, columns.repeat(64)).resized(8, 8);
        assert!(small.rgb()[24 + 3..48 - 3].iter().all(|&v| v.abs_diff(127) <= 3), "{:?}", &small.rgb()[24..48]);
    }
}
