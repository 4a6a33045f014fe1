//! The guard against near-duplicate pictures: the same picture, resized, recompressed or a little brighter, must not
//! stand on both sides of a split.
//!
//! A perceptual hash proposes pairs, and a small copy of each picture decides: drawings of one line on white have nearly
//! one hash, but not one small copy. Mirrored, turned and cropped copies are other pictures here.

use super::Picture;
use super::duplicate::Forest;
use rayon::prelude::*;
use std::collections::HashMap;
use std::f64::consts::PI;

/// Bits of two hashes that may differ.
pub const RADIUS: u32 = 15;

/// Largest distance of two small copies, as a share of their own contrast.
///
/// Chosen by looking at pairs of 15,000 photographs of 32x32 pixels: between .40 and .45 most are one photograph twice,
/// above it most are two.
pub const TOO_CLOSE: f64 = 0.45;

/// How far the mean of a colour channel may be moved without counting, in steps of a byte: a little more light.
const LIGHT: f64 = 16.0;

/// Contrast below this counts as this, in steps of a byte: pictures of one colour have none of their own.
const LEAST_CONTRAST: f64 = 4.0;

/// Sides of the copy that is hashed, of the frequencies kept, of the copy that decides.
const HASHED: usize = 32;
const FREQUENCIES: usize = 8;
const COPY: usize = 16;

/// Coefficients below this count as 0: an eighth of a step of a byte, over all pixels.
const FAINT: f64 = (HASHED * HASHED) as f64 / 8.0;

/// Bands of a hash, a byte each; a pair within [`RADIUS`] agrees in one of them up to `RADIUS / BANDS` bits, that is one.
const BANDS: usize = 8;

/// What is compared of a picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Sketch {
    /// Signs of the low frequencies of the grey picture.
    pub hash: u64,
    /// Means of 16x16 fields, three channels, without the means below.
    copy: Vec<f32>,
    /// Mean of each channel, in `[0, 255]`.
    means: [f64; 3],
    /// Mean square of `copy`.
    variance: f64,
}

impl Sketch {
    /// Hashes a picture and makes its small copy.
    ///
    /// # Formula
    /// `y = .299 r + .587 g + .114 b` at 32x32; its cosine transform `D y Dᵀ`; bit `8i + j` is set where the coefficient
    /// `(i, j)`, `0 <= i, j < 8`, is above the median of the 63 that are not `(0, 0)`.
    ///
    /// # Source
    /// The hash is widely known as pHash (Zauner, "Implementation and benchmarking of perceptual image hash functions",
    /// 2010). Differs: no blur before the reduction (its filter is one), and the mean's bit is never set.
    pub fn of(picture: &Picture) -> Self {
        let side = HASHED as u32;
        let small = picture.resized(side, side);
        let grey: Vec<f64> = small
            .rgb()
            .chunks_exact(3)
            .map(|p| 0.299 * f64::from(p[0]) + 0.587 * f64::from(p[1]) + 0.114 * f64::from(p[2]))
            .collect();
        let mut copy = vec![0.0; 3 * COPY * COPY];
        let field = HASHED / COPY;
        for (at, &byte) in small.rgb().iter().enumerate() {
            let (y, x, c) = (at / (3 * HASHED), at / 3 % HASHED, at % 3);
            copy[3 * ((y / field) * COPY + x / field) + c] += f32::from(byte) / (field * field) as f32;
        }
        let mut means = [0.0; 3];
        for (at, &value) in copy.iter().enumerate() {
            means[at % 3] += f64::from(value) / (COPY * COPY) as f64;
        }
        for (at, value) in copy.iter_mut().enumerate() {
            *value -= means[at % 3] as f32;
        }
        let variance = copy.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / copy.len() as f64;
        Self { hash: hash(&grey), copy, means, variance }
    }

    /// Distance of two small copies, as a share of their contrast.
    ///
    /// # Formula
    /// `√((mean (a - b)² + mean m²) / ((var a + var b) / 2 + 4²))`: `a` and `b` are the copies without the means of
    /// their channels, `m` is what a channel's means differ by beyond 16. Two unrelated pictures are near `√2`.
    pub fn distance(&self, other: &Self) -> f64 {
        let squares = self.copy.iter().zip(&other.copy).map(|(a, b)| f64::from(a - b).powi(2));
        let shape = squares.sum::<f64>() / self.copy.len() as f64;
        let beyond = |(a, b): (&f64, &f64)| ((a - b).abs() - LIGHT).max(0.0).powi(2);
        let light = self.means.iter().zip(&other.means).map(beyond).sum::<f64>() / 3.0;
        let contrast = f64::midpoint(self.variance, other.variance) + LEAST_CONTRAST.powi(2);
        ((shape + light) / contrast).sqrt()
    }
}

/// Signs of the low frequencies against their median.
fn hash(grey: &[f64]) -> u64 {
    let basis: Vec<[f64; HASHED]> = (0..FREQUENCIES)
        .map(|i| std::array::from_fn(|x| (PI * i as f64 * (2 * x + 1) as f64 / (2 * HASHED) as f64).cos()))
        .collect();
    let mut coefficients = [0.0; FREQUENCIES * FREQUENCIES];
    for (j, across) in basis.iter().enumerate() {
        let rows: Vec<f64> =
            grey.chunks_exact(HASHED).map(|row| row.iter().zip(across).map(|(v, c)| v * c).sum()).collect();
        for (i, down) in basis.iter().enumerate() {
            coefficients[i * FREQUENCIES + j] = rows.iter().zip(down).map(|(v, c)| v * c).sum();
        }
    }
    // What is left of nothing by rounding has no sign.
    for value in coefficients.iter_mut().filter(|value| value.abs() < FAINT) {
        *value = 0.0;
    }
    let mut sorted = coefficients[1..].to_vec();
    sorted.sort_by(f64::total_cmp);
    let median = sorted[sorted.len() / 2];
    (1..coefficients.len()).filter(|&k| coefficients[k] > median).fold(0, |bits, k| bits | 1 << k)
}

/// For each picture the index of the first picture of its near-duplicate cluster; a picture without any is its own.
///
/// Two pictures are joined when their hashes differ in at most [`RADIUS`] bits and their small copies are at most
/// [`TOO_CLOSE`] apart (see [`Sketch::distance`]). A cluster is a connected component: its ends may be less alike.
///
/// All pairs within the radius are found: of eight bytes of two such hashes one differs in at most one bit, so each hash
/// is looked up under the nine values near each of its bytes.
pub fn clusters(pictures: &[&Picture]) -> Vec<usize> {
    let sketches: Vec<Sketch> = pictures.par_iter().map(|picture| Sketch::of(picture)).collect();
    let mut forest = Forest::new(pictures.len());
    for (a, b) in close_pairs(&sketches) {
        forest.join(a, b);
    }
    (0..pictures.len()).map(|index| forest.root(index)).collect()
}

/// Every pair that [`clusters`] joins, the later one first.
fn close_pairs(sketches: &[Sketch]) -> Vec<(usize, usize)> {
    let byte = |hash: u64, band: usize| (hash >> (8 * band)) as u8;
    let mut buckets: Vec<HashMap<u8, Vec<usize>>> = vec![HashMap::new(); BANDS];
    for (index, sketch) in sketches.iter().enumerate() {
        for (band, buckets) in buckets.iter_mut().enumerate() {
            buckets.entry(byte(sketch.hash, band)).or_default().push(index);
        }
    }
    (0..sketches.len())
        .into_par_iter()
        .flat_map_iter(|later| {
            let own = &sketches[later];
            let mut met: Vec<usize> = Vec::new();
            for (band, buckets) in buckets.iter().enumerate() {
                let key = byte(own.hash, band);
                for near in std::iter::once(key).chain((0..8).map(|bit| key ^ (1 << bit))) {
                    let members = buckets.get(&near).map_or(&[][..], Vec::as_slice);
                    let earlier = &members[..members.partition_point(|&index| index < later)];
                    met.extend(earlier.iter().filter(|&&e| (sketches[e].hash ^ own.hash).count_ones() <= RADIUS));
                }
            }
            met.sort_unstable();
            met.dedup();
            met.retain(|&earlier| sketches[earlier].distance(own) <= TOO_CLOSE);
            met.into_iter().map(move |earlier| (later, earlier))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::Keep;
    use super::super::corpus::toy_pictures;
    use super::*;

    fn toys(side_px: u32) -> Vec<Picture> {
        let corpus = toy_pictures::generate(0, &Keep { side_px, ..Keep::default() }).expect("pictures");
        corpus.records.into_iter().filter_map(|record| record.picture).collect()
    }

    fn changed(picture: &Picture, change: impl Fn(u8) -> u8) -> Picture {
        let rgb: Vec<u8> = picture.rgb().iter().map(|&v| change(v)).collect();
        Picture::new(picture.width(), picture.height(), rgb)
    }

    fn recompressed(picture: &Picture) -> Picture {
        let mut file = Vec::new();
        let encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut file, 60);
        let color = image::ExtendedColorType::Rgb8;
        image::ImageEncoder::write_image(encoder, picture.rgb(), picture.width(), picture.height(), color)
            .expect("memory");
        Picture::decode(&file).expect("a JPEG")
    }

    #[test]
    fn resized_recompressed_and_brighter_copies_are_found() {
        let originals: Vec<Picture> = toys(64).into_iter().step_by(31).collect();
        let found = |copy: &dyn Fn(&Picture) -> Picture| {
            let found = originals.iter().filter(|&original| clusters(&[original, &copy(original)]) == [0, 0]).count();
            found as f64 / originals.len() as f64
        };
        for (what, share) in [
            ("smaller", found(&|p| p.resized(40, 40))),
            ("larger", found(&|p| p.resized(96, 96))),
            ("recompressed", found(&recompressed)),
            ("brighter", found(&|p| changed(p, |v| v.saturating_add(12)))),
        ] {
            // A few toys are nearly symmetric, and half of their hash is the sign of almost nothing.
            assert!(share >= 0.95, "{what}: {share}");
        }
    }

    #[test]
    fn different_pictures_of_a_class_stay_apart() {
        let toys = toys(32);
        let pictures: Vec<&Picture> = toys.iter().collect();
        let clusters = clusters(&pictures);
        let joined = clusters.iter().enumerate().filter(|&(index, &root)| index != root).count();
        assert!(joined < 40, "{joined} of {}", pictures.len());
    }

    #[test]
    fn pictures_of_one_colour_are_told_apart_by_it() {
        let flat = |colour: [u8; 3]| Picture::new(16, 16, colour.repeat(256));
        let (red, green, reddish) = (flat([200, 0, 0]), flat([0, 200, 0]), flat([204, 3, 0]));
        assert_eq!(clusters(&[&red, &green, &reddish]), [0, 1, 0]);
        assert!(clusters(&[]).is_empty());
    }

    #[test]
    fn every_pair_within_the_radius_is_proposed() {
        let toys = toys(32);
        let sketches: Vec<Sketch> = toys.iter().step_by(3).map(Sketch::of).collect();
        let mut exact = Vec::new();
        for later in 0..sketches.len() {
            for earlier in 0..later {
                let (a, b) = (&sketches[earlier], &sketches[later]);
                if (a.hash ^ b.hash).count_ones() <= RADIUS && a.distance(b) <= TOO_CLOSE {
                    exact.push((later, earlier));
                }
            }
        }
        assert_eq!(close_pairs(&sketches), exact);
    }

    #[test]
    fn light_is_forgiven_up_to_a_point() {
        let grey = Picture::new(8, 8, vec![100; 192]);
        let distance = |step| Sketch::of(&grey).distance(&Sketch::of(&changed(&grey, |v| v + step)));
        assert!(distance(15) < 1e-3, "{}", distance(15));
        assert!((distance(40) - 24.0 / LEAST_CONTRAST).abs() < 1e-3, "{}", distance(40));
    }
}
