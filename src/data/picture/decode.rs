//! Strict decoding: bytes that we did not write become a picture, or the reason why not.
//!
//! Nothing of the file is believed before it is checked: the format is told by the first bytes and never by the name,
//! sizes are capped before memory is taken, and a picture that ends early is refused instead of being filled up.

use super::{Error, Picture};
use image::error::{ImageFormatHint, LimitErrorKind};
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};
use std::fs::File;
use std::io::{Cursor, ErrorKind, Read};
use std::path::Path;

/// Largest width and height.
pub const MAX_SIDE_PX: u32 = 16_384;
/// Most pixels.
pub const MAX_PIXELS: u64 = 64 << 20;
/// Most bytes of a file.
pub const MAX_FILE_BYTES: u64 = 128 << 20;
/// What a decoder may allocate: [`MAX_PIXELS`] of four 16-bit channels.
const MAX_DECODED_BYTES: u64 = 8 * MAX_PIXELS;

/// Why bytes are not a picture; says nothing of where they came from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// No byte at all.
    #[error("an empty file; copy it again")]
    Empty,
    /// More bytes than [`MAX_FILE_BYTES`].
    #[error("larger than {MAX_FILE_BYTES} bytes; scale the picture down")]
    LargeFile,
    /// The first bytes belong to no format of pictures.
    #[error("not a picture; PNG, JPEG, WebP, GIF, BMP and TIFF are read")]
    NotAPicture,
    /// A format, or a variant of one, that is not read.
    #[error("{0} is not read; convert it to PNG")]
    Unsupported(String),
    /// A side above [`MAX_SIDE_PX`].
    #[error("more than {MAX_SIDE_PX} pixels wide or high; scale the picture down")]
    LongSide,
    /// More pixels than [`MAX_PIXELS`], or more memory than they need.
    #[error("announces {width}x{height} pixels, more than {MAX_PIXELS} in all; scale the picture down")]
    ManyPixels {
        /// Announced width.
        width: u32,
        /// Announced height.
        height: u32,
    },
    /// A picture without pixels.
    #[error("announces {width}x{height} pixels; export it again")]
    NoPixels {
        /// Announced width.
        width: u32,
        /// Announced height.
        height: u32,
    },
    /// The bytes end before the picture does.
    #[error("a {0} file that ends before its picture does; copy it again")]
    Truncated(&'static str),
    /// The decoder's own words.
    #[error("a broken {format} file ({why}); export it again")]
    Broken {
        /// The format that its first bytes announce.
        format: &'static str,
        /// What the decoder said.
        why: String,
    },
}

impl Picture {
    /// Decodes the bytes of a PNG, JPEG, WebP, GIF, BMP or TIFF file.
    ///
    /// Grey, paletted, CMYK and 16-bit pictures become RGB of eight bits; the orientation that a camera wrote into the
    /// file is applied; transparent pixels are laid over white. Of an animation or a file of several pages the first
    /// picture is taken. Colour profiles are ignored.
    ///
    /// # Formula
    /// Over white: `c' = (c·a + 255·(255 - a)) / 255`, rounded, in the values of the file (no gamma).
    ///
    /// # Errors
    /// The [`Fault`]; caps are checked before memory is taken.
    pub fn decode(bytes: &[u8]) -> Result<Self, Fault> {
        if bytes.is_empty() {
            return Err(Fault::Empty);
        }
        if bytes.len() as u64 > MAX_FILE_BYTES {
            return Err(Fault::LargeFile);
        }
        let format = image::guess_format(bytes).map_err(|_| Fault::NotAPicture)?;
        let name = name_of(format)?;
        if format == ImageFormat::Jpeg && !jpeg_is_whole(bytes) {
            return Err(Fault::Truncated(name));
        }
        upright(bytes, format).map(|image| over_white(&image)).map_err(|failure| match failure {
            Failure::Fault(fault) => fault,
            Failure::Decoder(error) => fault_of(&error, name),
        })
    }

    /// Reads and decodes the file at `path`.
    ///
    /// # Errors
    /// [`Error::Read`] when it cannot be read, [`Error::Picture`] when it is no picture: see [`Picture::decode`].
    pub fn open(path: &Path) -> Result<Self, Error> {
        let unreadable = |source| Error::Read { path: path.display().to_string(), source };
        let mut bytes = Vec::new();
        let file = File::open(path).map_err(unreadable)?;
        file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        Self::decode(&bytes).map_err(|fault| Error::Picture { path: path.display().to_string(), fault })
    }
}

enum Failure {
    Fault(Fault),
    Decoder(ImageError),
}

impl From<ImageError> for Failure {
    fn from(error: ImageError) -> Self {
        Failure::Decoder(error)
    }
}

/// The formats whose decoders are compiled in.
fn name_of(format: ImageFormat) -> Result<&'static str, Fault> {
    Ok(match format {
        ImageFormat::Png => "PNG",
        ImageFormat::Jpeg => "JPEG",
        ImageFormat::WebP => "WebP",
        ImageFormat::Gif => "GIF",
        ImageFormat::Bmp => "BMP",
        ImageFormat::Tiff => "TIFF",
        other => return Err(Fault::Unsupported(format!("{other:?}"))),
    })
}

/// Decodes within the caps and turns the picture the right way up.
fn upright(bytes: &[u8], format: ImageFormat) -> Result<DynamicImage, Failure> {
    let mut limits = Limits::no_limits();
    limits.max_image_width = Some(MAX_SIDE_PX);
    limits.max_image_height = Some(MAX_SIDE_PX);
    limits.max_alloc = Some(MAX_DECODED_BYTES);
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(limits);
    let mut decoder = reader.into_decoder()?;
    let (width, height) = decoder.dimensions();
    if width == 0 || height == 0 {
        return Err(Failure::Fault(Fault::NoPixels { width, height }));
    }
    if u64::from(width) * u64::from(height) > MAX_PIXELS || decoder.total_bytes() > MAX_DECODED_BYTES {
        return Err(Failure::Fault(Fault::ManyPixels { width, height }));
    }
    let orientation = decoder.orientation()?;
    let mut image = DynamicImage::from_decoder(decoder)?;
    image.apply_orientation(orientation);
    Ok(image)
}

fn over_white(image: &DynamicImage) -> Picture {
    let rgb: Vec<u8> = if image.color().has_alpha() {
        let white = |c: u8, a: u8| ((u32::from(c) * u32::from(a) + 255 * (255 - u32::from(a)) + 127) / 255) as u8;
        image
            .to_rgba8()
            .pixels()
            .flat_map(|&image::Rgba([r, g, b, a])| [white(r, a), white(g, a), white(b, a)])
            .collect()
    } else {
        image.to_rgb8().into_raw()
    };
    Picture::new(image.width(), image.height(), rgb)
}

fn fault_of(error: &ImageError, format: &'static str) -> Fault {
    match error {
        ImageError::IoError(e) if e.kind() == ErrorKind::UnexpectedEof => Fault::Truncated(format),
        ImageError::Limits(e) if e.kind() == LimitErrorKind::DimensionError => Fault::LongSide,
        ImageError::Limits(_) => Fault::Broken { format, why: "it needs more memory than a picture may".to_owned() },
        ImageError::Unsupported(e) => Fault::Unsupported(match e.format_hint() {
            ImageFormatHint::Exact(_) => format!("this kind of {format} ({})", one_line(&e.to_string())),
            _ => format!("this kind of {format}"),
        }),
        other => {
            let why = one_line(&other.to_string());
            // The decoders of PNG, GIF and TIFF have words, not a kind, for an early end.
            let early =
                ["unexpected end of file", "unexpected eof", "failed to fill whole buffer", "missing image data"];
            let lower = why.to_lowercase();
            if early.iter().any(|words| lower.contains(words)) {
                return Fault::Truncated(format);
            }
            Fault::Broken { format, why }
        }
    }
}

/// A decoder's words may quote the file: no control characters, and an end.
fn one_line(words: &str) -> String {
    words.chars().map(|c| if c.is_control() { ' ' } else { c }).take(160).collect()
}

/// Whether the segments of a JPEG lead to its end marker; decoders fill up what is missing with grey.
fn jpeg_is_whole(bytes: &[u8]) -> bool {
    let mut at = 2;
    while at + 1 < bytes.len() {
        match (bytes[at], bytes[at + 1]) {
            (0xff, 0xd9) => return true,
            // Padding; inside a scan also a stuffed byte or a restart.
            (0xff, 0xff) => at += 1,
            (0xff, 0x00 | 0x01 | 0xd0..=0xd8) => at += 2,
            // A segment says how long it is.
            (0xff, _) => match bytes.get(at + 2..at + 4) {
                Some(length) => at += 2 + usize::from(u16::from_be_bytes([length[0], length[1]])).max(2),
                None => return false,
            },
            // Behind the header of a scan: compressed pixels.
            _ => at += 1,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{ImageBuffer, Rgb, RgbImage, Rgba, RgbaImage};

    #[rustfmt::skip]
    const CMYK: [u8; 178] = [
        0xff, 0xd8, 0xff, 0xee, 0x00, 0x0e, 0x41, 0x64, 0x6f, 0x62, 0x65, 0x00, 0x64, 0x00, 0x00, 0x00, 0x00,
        0x00, 0xff, 0xdb, 0x00, 0x43, 0x00, 0x0d, 0x09, 0x0a, 0x0b, 0x0a, 0x08, 0x0d, 0x0b, 0x0a, 0x0b, 0x0e,
        0x0e, 0x0d, 0x0f, 0x13, 0x20, 0x15, 0x13, 0x12, 0x12, 0x13, 0x27, 0x1c, 0x1e, 0x17, 0x20, 0x2e, 0x29,
        0x31, 0x30, 0x2e, 0x29, 0x2d, 0x2c, 0x33, 0x3a, 0x4a, 0x3e, 0x33, 0x36, 0x46, 0x37, 0x2c, 0x2d, 0x40,
        0x57, 0x41, 0x46, 0x4c, 0x4e, 0x52, 0x53, 0x52, 0x32, 0x3e, 0x5a, 0x61, 0x5a, 0x50, 0x60, 0x4a, 0x51,
        0x52, 0x4f, 0xff, 0xc0, 0x00, 0x14, 0x08, 0x00, 0x08, 0x00, 0x08, 0x04, 0x43, 0x11, 0x00, 0x4d, 0x11,
        0x00, 0x59, 0x11, 0x00, 0x4b, 0x11, 0x00, 0xff, 0xc4, 0x00, 0x16, 0x00, 0x01, 0x01, 0x01, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x06, 0x05, 0x07, 0xff, 0xc4, 0x00,
        0x14, 0x10, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x00, 0xff, 0xda, 0x00, 0x0e, 0x04, 0x43, 0x00, 0x4d, 0x00, 0x59, 0x00, 0x4b, 0x00, 0x00, 0x3f,
        0x00, 0x7c, 0x20, 0x80, 0xd3, 0x9f, 0xff, 0xd9,
    ];

    fn encoded(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
        let mut file = Cursor::new(Vec::new());
        image.write_to(&mut file, format).expect("memory");
        file.into_inner()
    }

    /// Red left half, blue right half; wider than high.
    fn halves(width: u32, height: u32) -> DynamicImage {
        RgbImage::from_fn(width, height, |x, _| if x < width / 2 { Rgb([250, 10, 10]) } else { Rgb([10, 10, 250]) })
            .into()
    }

    fn pixel(picture: &Picture, x: u32, y: u32) -> [u8; 3] {
        let at = 3 * (y * picture.width() + x) as usize;
        picture.rgb()[at..at + 3].try_into().expect("three bytes")
    }

    fn is_near(got: [u8; 3], want: [u8; 3], tolerance: u8) -> bool {
        got.iter().zip(want).all(|(&g, w)| g.abs_diff(w) <= tolerance)
    }

    #[test]
    fn every_format_gives_the_picture_that_was_written() {
        for (format, tolerance) in [
            (ImageFormat::Png, 0),
            (ImageFormat::Bmp, 0),
            (ImageFormat::Tiff, 0),
            (ImageFormat::WebP, 0),
            (ImageFormat::Gif, 8),
            (ImageFormat::Jpeg, 12),
        ] {
            let picture =
                Picture::decode(&encoded(&halves(32, 16), format)).unwrap_or_else(|e| panic!("{format:?}: {e}"));
            assert_eq!((picture.width(), picture.height()), (32, 16));
            assert!(is_near(pixel(&picture, 2, 8), [250, 10, 10], tolerance), "{format:?}");
            assert!(is_near(pixel(&picture, 29, 8), [10, 10, 250], tolerance), "{format:?}");
        }
    }

    #[test]
    fn grey_and_sixteen_bits_become_eight_bits_of_rgb() {
        let deep: ImageBuffer<Rgb<u16>, _> = ImageBuffer::from_pixel(3, 2, Rgb([65_535, 32_896, 0]));
        let picture = Picture::decode(&encoded(&deep.into(), ImageFormat::Png)).expect("a picture");
        assert_eq!(pixel(&picture, 2, 1), [255, 128, 0]);
        let grey = image::GrayImage::from_pixel(3, 2, image::Luma([77]));
        let picture = Picture::decode(&encoded(&grey.into(), ImageFormat::Png)).expect("a picture");
        assert_eq!(pixel(&picture, 0, 0), [77, 77, 77]);
    }

    #[test]
    fn transparent_pixels_are_laid_over_white() {
        let image = RgbaImage::from_fn(3, 1, |x, _| Rgba([200, 0, 100, [0, 128, 255][x as usize]]));
        let picture = Picture::decode(&encoded(&image.into(), ImageFormat::Png)).expect("a picture");
        assert_eq!(pixel(&picture, 0, 0), [255, 255, 255]);
        assert_eq!(pixel(&picture, 1, 0), [227, 127, 177]);
        assert_eq!(pixel(&picture, 2, 0), [200, 0, 100]);
    }

    #[test]
    fn a_cmyk_jpeg_becomes_rgb() {
        // 8x8 of one colour, cyan 10 %, magenta 80 %, yellow 70 %, no key: a light red. Written by Pillow 13.0.0 (quality 60).
        let picture = Picture::decode(&CMYK).expect("a picture");
        assert_eq!((picture.width(), picture.height()), (8, 8));
        assert!(is_near(pixel(&picture, 4, 4), [229, 51, 76], 6), "{:?}", pixel(&picture, 4, 4));
    }

    #[test]
    fn the_orientation_of_a_camera_is_applied() {
        let jpeg = encoded(&halves(32, 16), ImageFormat::Jpeg);
        // TIFF header, one entry: tag 0x0112 (orientation), SHORT, one value: 6, to be turned clockwise by a quarter.
        let exif = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
        let mut turned = jpeg[..2].to_vec();
        turned.extend([0xff, 0xe1]);
        turned.extend((exif.len() as u16 + 2).to_be_bytes());
        turned.extend(exif);
        turned.extend(&jpeg[2..]);
        let picture = Picture::decode(&turned).expect("a picture");
        assert_eq!((picture.width(), picture.height()), (16, 32));
        assert!(is_near(pixel(&picture, 8, 2), [250, 10, 10], 12), "left is up now");
        assert!(is_near(pixel(&picture, 8, 29), [10, 10, 250], 12));
    }

    #[test]
    fn an_animation_gives_its_first_picture() {
        let mut file = Vec::new();
        let mut encoder = image::codecs::gif::GifEncoder::new(&mut file);
        for colour in [[255, 0, 0, 255], [0, 255, 0, 255]] {
            encoder.encode_frame(image::Frame::new(RgbaImage::from_pixel(4, 4, Rgba(colour)))).expect("memory");
        }
        drop(encoder);
        let picture = Picture::decode(&file).expect("a picture");
        assert!(is_near(pixel(&picture, 1, 1), [255, 0, 0], 4), "{:?}", pixel(&picture, 1, 1));
    }

    #[test]
    fn every_cut_is_refused_and_most_are_called_truncated() {
        let whole = RgbImage::from_fn(40, 30, |x, y| Rgb([(x * 6) as u8, (y * 8) as u8, ((x * y) % 251) as u8])).into();
        for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP, ImageFormat::Gif, ImageFormat::Bmp] {
            let bytes = encoded(&whole, format);
            Picture::decode(&bytes).expect("whole");
            for tenths in 3..=9 {
                let cut = &bytes[..bytes.len() * tenths / 10];
                let fault = Picture::decode(cut).expect_err("cut");
                assert!(matches!(fault, Fault::Truncated(_) | Fault::Broken { .. }), "{format:?} {tenths}: {fault}");
            }
        }
        for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::Bmp] {
            let bytes = encoded(&whole, format);
            let fault = Picture::decode(&bytes[..bytes.len() - 20]).expect_err("cut");
            assert!(matches!(fault, Fault::Truncated(_)), "{format:?}: {fault}");
        }
    }

    /// A PNG of a few bytes that announces any size.
    fn announcing(width: u32, height: u32) -> Vec<u8> {
        let mut bytes = encoded(&halves(4, 4), ImageFormat::Png);
        bytes[16..20].copy_from_slice(&width.to_be_bytes());
        bytes[20..24].copy_from_slice(&height.to_be_bytes());
        let mut crc = flate2::Crc::new();
        crc.update(&bytes[12..29]);
        bytes[29..33].copy_from_slice(&crc.sum().to_be_bytes());
        bytes
    }

    #[test]
    fn sizes_are_capped_before_memory_is_taken() {
        for (width, height, fault) in [
            (2_000_000_000, 2_000_000_000, Fault::LongSide),
            (MAX_SIDE_PX + 1, 1, Fault::LongSide),
            (1, MAX_SIDE_PX + 1, Fault::LongSide),
            (MAX_SIDE_PX, MAX_SIDE_PX, Fault::ManyPixels { width: MAX_SIDE_PX, height: MAX_SIDE_PX }),
            (8192, 8193, Fault::ManyPixels { width: 8192, height: 8193 }),
        ] {
            assert_eq!(Picture::decode(&announcing(width, height)), Err(fault), "{width}x{height}");
        }
        // Within the caps, but there are only 4x4 pixels of data.
        let fault = Picture::decode(&announcing(4000, 4000)).expect_err("a bomb");
        assert!(matches!(fault, Fault::Truncated(_) | Fault::Broken { .. }), "{fault}");
        assert!(Picture::decode(&announcing(0, 4)).is_err());
        // The same trick in a header without checksum.
        let mut bmp = encoded(&halves(4, 4), ImageFormat::Bmp);
        bmp[18..22].copy_from_slice(&16_000_u32.to_le_bytes());
        bmp[22..26].copy_from_slice(&16_000_u32.to_le_bytes());
        assert_eq!(Picture::decode(&bmp), Err(Fault::ManyPixels { width: 16_000, height: 16_000 }));
        let mut gif = encoded(&halves(4, 4), ImageFormat::Gif);
        gif[6..10].copy_from_slice(&[0xff; 4]);
        assert_eq!(Picture::decode(&gif), Err(Fault::LongSide));
    }

    #[test]
    fn what_is_no_picture_is_named_for_what_it_is() {
        assert_eq!(Picture::decode(b""), Err(Fault::Empty));
        assert_eq!(Picture::decode(b"GIF87"), Err(Fault::NotAPicture));
        assert_eq!(Picture::decode(b"<svg xmlns='x'/>"), Err(Fault::NotAPicture));
        assert_eq!(Picture::decode(b"P6 1 1 255\nabc"), Err(Fault::Unsupported("Pnm".to_owned())));
        assert_eq!(Picture::decode(b"\x89PNG\r\n\x1a\n").map_err(|f| matches!(f, Fault::Truncated("PNG"))), Err(true));
    }

    #[test]
    fn the_name_of_a_file_decides_nothing() {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let put = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            std::io::Write::write_all(&mut File::create(&path).expect("scratch"), bytes).expect("scratch");
            path
        };
        let path = put("picture.jpg", &encoded(&halves(4, 4), ImageFormat::Png));
        assert_eq!(pixel(&Picture::open(&path).expect("a PNG"), 0, 0), [250, 10, 10]);
        let path = put("picture.png", b"PK\x03\x04 not a picture");
        let error = Picture::open(&path).expect_err("a zip");
        let said = error.to_string().replace(&*path.display().to_string(), "picture.png");
        assert_eq!(said, "`picture.png`: not a picture; PNG, JPEG, WebP, GIF, BMP and TIFF are read");
        assert_eq!(error.exit(), crate::Exit::Input);
        assert!(matches!(Picture::open(&folder.path().join("none.png")), Err(Error::Read { .. })));
    }

    #[test]
    fn any_damaged_byte_is_a_fault_or_a_picture_but_never_a_panic() {
        for format in [
            ImageFormat::Png,
            ImageFormat::Jpeg,
            ImageFormat::WebP,
            ImageFormat::Gif,
            ImageFormat::Bmp,
            ImageFormat::Tiff,
        ] {
            let bytes = encoded(&halves(12, 9), format);
            for at in 0..bytes.len().min(400) {
                for flip in [0x01, 0x80, 0xff] {
                    let mut damaged = bytes.clone();
                    damaged[at] ^= flip;
                    let _ = Picture::decode(&damaged);
                }
            }
        }
    }
}
