//! Contact sheets: the pictures of one cell in one PNG, in the order of its guesses.

use super::Error;
use crate::data::Picture;
use image::{ExtendedColorType, ImageEncoder, ImageReader, codecs::png::PngEncoder};
use std::io::Cursor;

/// Pictures in a row of a sheet.
const COLUMNS: usize = 25;
/// Most bytes that a sheet may take when it is unpacked.
const MOST_BYTES: u64 = 1 << 30;

/// Lays pictures of one size out in rows of 25, from the left and from the top.
///
/// # Errors
/// When there are none, or the sizes differ.
pub fn write(pictures: &[&Picture]) -> Result<Vec<u8>, Error> {
    let wrong = |why: &str| Error::Corrupt { path: "contact sheet".to_owned(), why: why.to_owned() };
    let first = pictures.first().ok_or_else(|| wrong("no picture to lay out"))?;
    let (w, h) = (first.width() as usize, first.height() as usize);
    if pictures.iter().any(|p| (p.width(), p.height()) != (first.width(), first.height())) {
        return Err(wrong("pictures of several sizes"));
    }
    let (columns, rows) = (pictures.len().min(COLUMNS), pictures.len().div_ceil(COLUMNS));
    let mut canvas = vec![255_u8; 3 * columns * w * rows * h];
    for (at, picture) in pictures.iter().enumerate() {
        let (left, top) = (at % COLUMNS * w, at / COLUMNS * h);
        for (y, line) in picture.rgb().chunks_exact(3 * w).enumerate() {
            let start = 3 * ((top + y) * columns * w + left);
            canvas[start..start + 3 * w].copy_from_slice(line);
        }
    }
    png(&canvas, columns * w, rows * h).map_err(|e| wrong(&e.to_string()))
}

/// The first `n` pictures of `width` x `height` pixels from a sheet; `None` when the bytes hold fewer, or are no sheet.
pub fn read(bytes: &[u8], n: usize, width: u32, height: u32) -> Option<Vec<Picture>> {
    let mut reader = ImageReader::with_format(Cursor::new(bytes), image::ImageFormat::Png);
    let mut limits = image::Limits::default();
    limits.max_alloc = Some(MOST_BYTES);
    reader.limits(limits);
    let sheet = reader.decode().ok()?.into_rgb8();
    let (w, h) = (width as usize, height as usize);
    // A sheet of fewer than 25 pictures is one row of them.
    let columns = sheet.width() as usize / w.max(1);
    let whole = (1..=COLUMNS).contains(&columns)
        && sheet.width() as usize == columns * w
        && sheet.height() as usize >= n.div_ceil(columns) * h;
    whole.then(|| {
        let cut = |at: usize| {
            let (left, top) = (at % columns * w, at / columns * h);
            let line = |y| {
                let start = 3 * ((top + y) * columns * w + left);
                &sheet.as_raw()[start..start + 3 * w]
            };
            Picture::new(width, height, (0..h).flat_map(line).copied().collect::<Vec<u8>>())
        };
        (0..n).map(cut).collect()
    })
}

/// A PNG of RGB bytes.
pub fn png(rgb: &[u8], width: usize, height: usize) -> Result<Vec<u8>, image::ImageError> {
    let mut bytes = Vec::new();
    PngEncoder::new(&mut bytes).write_image(rgb, width as u32, height as u32, ExtendedColorType::Rgb8)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sheet_gives_its_pictures_back_and_no_others() {
        let picture = |i: usize| Picture::new(3, 2, (0..18).map(|b| (7 * i + b) as u8).collect::<Vec<_>>());
        for n in [1, 24, 25, 61] {
            let pictures: Vec<Picture> = (0..n).map(picture).collect();
            let bytes = write(&pictures.iter().collect::<Vec<_>>()).expect("one size");
            assert_eq!(read(&bytes, n, 3, 2).as_deref(), Some(&pictures[..]));
            assert_eq!(read(&bytes, n + 25, 3, 2), None);
            assert_eq!(read(&bytes[..bytes.len() / 2], n, 3, 2), None);
        }
        let other = Picture::new(2, 2, vec![0; 12]);
        assert!(write(&[]).is_err() && write(&[&picture(0), &other]).is_err());
    }
}
