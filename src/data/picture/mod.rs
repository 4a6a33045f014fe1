//! Pictures: RGB, eight bits a channel, upright, opaque.
//!
//! ```text
//! file ──► decode (strict, capped) ──► upright, over white, 8 bits ──► frame (a square of side_px) ──► Picture
//! ```
//!
//! | file | what it does |
//! |---|---|
//! | `decode` | bytes of any supported format to a picture, or the reason why not |
//! | `frame` | squares and other sizes, by one resampling filter |

mod decode;
mod frame;

pub use decode::{Fault, MAX_FILE_BYTES, MAX_PIXELS, MAX_SIDE_PX};
pub use frame::Fit;

use super::Error;
use std::fmt;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

/// A picture in memory: RGB, eight bits a channel, row-major from the top left, three bytes a pixel.
///
/// Cloning shares the pixels.
#[derive(Clone, PartialEq, Eq)]
pub struct Picture {
    width: u32,
    height: u32,
    rgb: Arc<[u8]>,
}

impl Picture {
    /// Wraps `rgb`, which holds `3 * width * height` bytes.
    ///
    /// # Panics
    /// When the number of bytes is another one, or a side is 0.
    pub fn new(width: u32, height: u32, rgb: impl Into<Arc<[u8]>>) -> Self {
        let rgb = rgb.into();
        assert!(width > 0 && height > 0, "a picture has pixels");
        assert_eq!(rgb.len(), 3 * width as usize * height as usize, "three bytes for each pixel");
        Self { width, height, rgb }
    }

    /// From values of `[0, 1]` in the same order; what lies outside is clamped, a NaN becomes 0.
    pub fn from_unit(width: u32, height: u32, values: &[f32]) -> Self {
        let rgb: Vec<u8> = values.iter().map(|v| (v.clamp(0.0, 1.0) * 255.0).round() as u8).collect();
        Self::new(width, height, rgb)
    }

    /// Pixels in a row.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// The bytes: row-major, three a pixel.
    pub fn rgb(&self) -> &[u8] {
        &self.rgb
    }

    /// The same as values of `[0, 1]`: shape `(height, width, 3)`, row-major.
    pub fn unit(&self) -> Vec<f32> {
        self.rgb.iter().map(|&byte| f32::from(byte) / 255.0).collect()
    }

    /// The bytes of a PNG file of this picture.
    pub fn png(&self) -> Vec<u8> {
        let mut file = io::Cursor::new(Vec::new());
        let encoder = image::codecs::png::PngEncoder::new(&mut file);
        let color = image::ExtendedColorType::Rgb8;
        image::ImageEncoder::write_image(encoder, &self.rgb, self.width, self.height, color)
            .expect("memory takes every byte, and the sides belong to the pixels");
        file.into_inner()
    }

    /// Writes a PNG file: whole, or not at all.
    ///
    /// # Errors
    /// [`Error::Write`] when the folder does not take it.
    pub fn save_png(&self, path: &Path) -> Result<(), Error> {
        let written = || {
            let mut file = atomic_write_file::AtomicWriteFile::open(path)?;
            file.write_all(&self.png())?;
            file.commit()
        };
        written().map_err(|source| Error::Write { path: path.display().to_string(), source })
    }
}

/// Size and hash instead of a page of bytes.
impl fmt::Debug for Picture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hash = blake3::hash(&self.rgb).to_hex();
        write!(f, "Picture({}x{}, {})", self.width, self.height, &hash[..8])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_survive_the_way_to_unit_values_and_back() {
        let rgb: Vec<u8> = (0..=254).collect();
        let picture = Picture::new(17, 5, rgb);
        assert_eq!(Picture::from_unit(17, 5, &picture.unit()), picture);
        assert_eq!(Picture::from_unit(1, 1, &[-3.0, f32::NAN, 7.0]).rgb(), [0, 0, 255]);
    }

    #[test]
    fn a_written_png_is_read_back_to_the_byte() {
        let picture = Picture::new(17, 5, (0..=254).collect::<Vec<u8>>());
        let folder = tempfile::tempdir().expect("a scratch folder");
        let path = folder.path().join("a.png");
        picture.save_png(&path).expect("written");
        assert_eq!(Picture::open(&path).expect("a picture"), picture);
        let missing = folder.path().join("no/such/a.png");
        assert!(matches!(picture.save_png(&missing), Err(Error::Write { .. })));
    }
}
