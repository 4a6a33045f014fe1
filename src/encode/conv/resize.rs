//! Separable resizing of pictures with weights computed once, and its exact transpose.

use crate::nn::kernel::vectorised;

/// Colours of a pixel.
const COLOURS: usize = 3;

/// Resizing of `from` positions to `to` with the Catmull-Rom kernel, widened by the scale where it shrinks.
///
/// # Formula
/// `y_o = sum_i w_oi x_i`, `w_oi ~ k((i + 1/2 - (o + 1/2) s) / max(s, 1))`, `s = from / to`, each row of `w` sums to 1;
/// `k(t) = 1 - 5/2 t^2 + 3/2 |t|^3` for `|t| < 1`, `2 - 4 |t| + 5/2 t^2 - 1/2 |t|^3` for `|t| < 2`.
///
/// # Source
/// Keys 1981, a = -1/2. Linear: results are neither rounded nor clamped, so its transpose is its gradient.
#[derive(Debug, Clone)]
struct Axis {
    /// First input of each output, and its weights.
    rows: Vec<(usize, Vec<f32>)>,
}

impl Axis {
    fn new(from: usize, to: usize) -> Self {
        let scale = from as f64 / to as f64;
        let stretch = scale.max(1.0);
        let row = |o: usize| {
            let centre = (o as f64 + 0.5) * scale;
            let first = (centre - 2.0 * stretch).floor().max(0.0) as usize;
            let last = ((centre + 2.0 * stretch).ceil() as usize).min(from);
            let weights: Vec<f64> = (first..last).map(|i| catmull_rom((i as f64 + 0.5 - centre) / stretch)).collect();
            let total: f64 = weights.iter().sum();
            let inside = weights.iter().position(|w| *w != 0.0).unwrap_or(0);
            let end = weights.iter().rposition(|w| *w != 0.0).map_or(weights.len(), |at| at + 1);
            (first + inside, weights[inside..end].iter().map(|w| (w / total) as f32).collect())
        };
        Self { rows: (0..to).map(row).collect() }
    }
}

fn catmull_rom(t: f64) -> f64 {
    let t = t.abs();
    if t < 1.0 {
        (1.5 * t - 2.5) * t * t + 1.0
    } else if t < 2.0 {
        ((2.5 - 0.5 * t) * t - 4.0) * t + 2.0
    } else {
        0.0
    }
}

/// Resizes pictures of one size to a square.
#[derive(Debug, Clone)]
pub(super) struct Resize {
    vertical: Axis,
    horizontal: Axis,
    width: usize,
    height: usize,
    side: usize,
}

impl Resize {
    /// From `width` x `height` to `side` x `side`; a picture that is not square is squashed.
    pub(super) fn new(width: usize, height: usize, side: usize) -> Self {
        Self { vertical: Axis::new(height, side), horizontal: Axis::new(width, side), width, height, side }
    }

    /// `pixels`, shape `(height, width, 3)`, to `(side, side, 3)`.
    pub(super) fn apply(&self, pixels: Vec<f32>) -> Vec<f32> {
        let row = self.width * COLOURS;
        assert_eq!(pixels.len(), self.height * row, "a picture has the size that it was resized for");
        if (self.width, self.height) == (self.side, self.side) {
            return pixels;
        }
        let mut line = vec![0.0; row];
        let mut out = Vec::with_capacity(self.side * self.side * COLOURS);
        for (first, weights) in &self.vertical.rows {
            line.fill(0.0);
            for (source, &weight) in pixels[first * row..].chunks_exact(row).zip(weights) {
                add(&mut line, source, weight);
            }
            vectorised(
                #[inline(always)]
                || {
                    for (first, weights) in &self.horizontal.rows {
                        let mut pixel = [0.0; COLOURS];
                        for (source, &weight) in line[first * COLOURS..].as_chunks::<COLOURS>().0.iter().zip(weights) {
                            for (p, s) in pixel.iter_mut().zip(source) {
                                *p = s.mul_add(weight, *p);
                            }
                        }
                        out.extend(pixel);
                    }
                },
            );
        }
        out
    }

    /// The transpose: `gradient`, shape `(side, side, 3)`, to `(height, width, 3)`.
    pub(super) fn transposed(&self, gradient: Vec<f32>) -> Vec<f32> {
        if (self.width, self.height) == (self.side, self.side) {
            return gradient;
        }
        let row = self.width * COLOURS;
        let mut line = vec![0.0; row];
        let mut out = vec![0.0; self.height * row];
        for ((first, weights), gradient) in self.vertical.rows.iter().zip(gradient.chunks_exact(self.side * COLOURS)) {
            line.fill(0.0);
            vectorised(
                #[inline(always)]
                || {
                    let pixels = gradient.as_chunks::<COLOURS>().0;
                    for ((first, weights), pixel) in self.horizontal.rows.iter().zip(pixels) {
                        let targets = line[first * COLOURS..].as_chunks_mut::<COLOURS>().0;
                        for (target, &weight) in targets.iter_mut().zip(weights) {
                            for (t, p) in target.iter_mut().zip(pixel) {
                                *t = p.mul_add(weight, *t);
                            }
                        }
                    }
                },
            );
            for (target, &weight) in out[first * row..].chunks_exact_mut(row).zip(weights) {
                add(target, &line, weight);
            }
        }
        out
    }
}

/// To the nearest of 256 levels in `[0, 1]`: a resized picture is a picture again, as whoever runs these networks stores it.
pub(super) fn eight_bits(values: &mut [f32]) {
    vectorised(
        #[inline(always)]
        || {
            for v in values.iter_mut() {
                *v = (v.clamp(0.0, 1.0) * 255.0).round() / 255.0;
            }
        },
    );
}

/// `target += weight * source`
fn add(target: &mut [f32], source: &[f32], weight: f32) {
    vectorised(
        #[inline(always)]
        || {
            for (t, s) in target.iter_mut().zip(source) {
                *t = s.mul_add(weight, *t);
            }
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_size_is_the_same_picture() {
        let pixels: Vec<f32> = (0..5 * 5 * 3).map(|i| (i as f32).sin()).collect();
        assert_eq!(Resize::new(5, 5, 5).apply(pixels.clone()), pixels);
        assert!(Axis::new(5, 5).rows.iter().enumerate().all(|(o, (first, weights))| *first == o && *weights == [1.0]));
    }

    #[test]
    fn a_flat_picture_stays_flat_and_a_slope_keeps_its_mean() {
        for (width, height, side) in [(7, 3, 5), (3, 9, 8), (40, 30, 11), (1, 1, 4)] {
            let flat = Resize::new(width, height, side).apply(vec![0.25; width * height * 3]);
            assert!(flat.iter().all(|v| (v - 0.25).abs() < 1e-6));
            let slope: Vec<f32> = (0..height * width * 3).map(|i| (i / 3 % width) as f32 / width as f32).collect();
            let small = Resize::new(width, height, side).apply(slope.clone());
            let mean = |v: &[f32]| v.iter().sum::<f32>() / v.len() as f32;
            assert!((mean(&small) - mean(&slope)).abs() < 1e-3, "{} {}", mean(&small), mean(&slope));
        }
    }

    /// Values of the kernel at quarters: the weights of doubling a row.
    #[test]
    fn doubling_has_the_published_weights() {
        let axis = Axis::new(8, 16);
        let (first, weights) = &axis.rows[8];
        assert_eq!((*first, weights.as_slice()), (2, &[-0.023_437_5, 0.226_562_5, 0.867_187_5, -0.070_312_5][..]));
    }

    #[test]
    fn the_transpose_is_the_adjoint() {
        for (width, height, side) in [(5, 9, 7), (20, 14, 6), (4, 4, 9)] {
            let resize = Resize::new(width, height, side);
            let x: Vec<f32> = (0..width * height * 3).map(|i| (i as f32 * 0.7).sin()).collect();
            let g: Vec<f32> = (0..side * side * 3).map(|i| (i as f32 * 0.3).cos()).collect();
            let product = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
            let (left, right) = (product(&resize.apply(x.clone()), &g), product(&x, &resize.transposed(g.clone())));
            assert!((left - right).abs() < 1e-4, "{left} {right}");
        }
    }
}
