//! Pictures: RGB, eight bits a channel, upright, opaque.

use std::fmt;
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
}
