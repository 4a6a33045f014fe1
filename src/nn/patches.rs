//! Patches of pictures as rows of a matrix and back: what makes a matrix product of a convolution.

#![expect(
    clippy::inline_always,
    reason = "a kernel is compiled for an instruction set by being inlined into a `vectorise` function"
)]

use super::kernel::vectorise;

/// Partial sums of a weight's gradient. Fixed: the sum must not depend on the number of threads.
pub(super) const SHARDS: usize = 8;

/// Rows of a product that make up for packing its other side, and the most pictures that give them: beyond, cores would have
/// nothing to do.
const ENOUGH_ROWS: usize = 512;
const MOST_PICTURES: usize = 8;

/// The square patches of a picture that a convolution looks at, one for each of its outputs, with zeros outside the picture.
///
/// Output `(p, q)` sees the `taps` rows from `stride p + shift[0] - 1` on, and likewise its columns.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patches {
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) channels: usize,
    pub(super) out_height: usize,
    pub(super) out_width: usize,
    pub(super) stride: usize,
    pub(super) taps: usize,
    pub(super) shift: [usize; 2],
}

impl Patches {
    /// Numbers of a picture.
    pub(super) fn input(&self) -> usize {
        self.height * self.width * self.channels
    }

    /// Patches of a picture.
    pub(super) fn outputs(&self) -> usize {
        self.out_height * self.out_width
    }

    /// Numbers of a patch.
    pub(super) fn size(&self) -> usize {
        self.taps * self.taps * self.channels
    }

    /// Pictures that share one matrix product: small ones alone would spend their time on packing the weight.
    pub(super) fn group(&self) -> usize {
        (ENOUGH_ROWS / self.outputs()).clamp(1, MOST_PICTURES)
    }

    /// Writes the patches of whole pictures `x` into `rows`, one in each.
    pub(super) fn unfold(&self, x: &[f32], rows: &mut Vec<f32>) {
        rows.resize(x.len() / self.input() * self.outputs() * self.size(), 0.0);
        unfold(self, x, rows);
    }

    /// The transpose of [`Patches::unfold`]: adds every row back to the pixels that it came from.
    pub(super) fn fold(&self, rows: &[f32], x: &mut [f32]) {
        fold(self, rows, x);
    }

    /// The pixels under a row of taps that begins at `begin`, one further than it does: the first, how many, and how many taps
    /// lie before the picture.
    #[inline(always)]
    fn run(&self, begin: usize) -> (usize, usize, usize) {
        let start = begin.saturating_sub(1);
        (start, (begin + self.taps - 1).min(self.width) - start, usize::from(begin == 0))
    }
}

vectorise! {
    fn unfold(patches: &Patches, x: &[f32], rows: &mut [f32]) {
        let Patches { height, width, channels: c, out_width, stride, taps, shift, .. } = *patches;
        for (x, rows) in x.chunks_exact(patches.input()).zip(rows.chunks_exact_mut(patches.outputs() * patches.size())) {
            for (p, row) in rows.chunks_exact_mut(patches.size()).enumerate() {
                let (start, length, left) = patches.run(p % out_width * stride + shift[1]);
                for (i, row) in row.chunks_exact_mut(taps * c).enumerate() {
                    let below = p / out_width * stride + shift[0] + i;
                    if below == 0 || below > height {
                        row.fill(0.0);
                        continue;
                    }
                    let (before, row) = row.split_at_mut(left * c);
                    let (inside, behind) = row.split_at_mut(length * c);
                    before.fill(0.0);
                    inside.copy_from_slice(&x[((below - 1) * width + start) * c..][..length * c]);
                    behind.fill(0.0);
                }
            }
        }
    }

    fn fold(patches: &Patches, rows: &[f32], x: &mut [f32]) {
        let Patches { height, width, channels: c, out_width, stride, taps, shift, .. } = *patches;
        for (x, rows) in x.chunks_exact_mut(patches.input()).zip(rows.chunks_exact(patches.outputs() * patches.size())) {
            for (p, row) in rows.chunks_exact(patches.size()).enumerate() {
                let (start, length, left) = patches.run(p % out_width * stride + shift[1]);
                for (i, row) in row.chunks_exact(taps * c).enumerate() {
                    let below = p / out_width * stride + shift[0] + i;
                    if below != 0 && below <= height {
                        let pixels = &mut x[((below - 1) * width + start) * c..][..length * c];
                        for (x, r) in pixels.iter_mut().zip(&row[left * c..]) {
                            *x += r;
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_hold_their_pixels_and_zeros_outside() {
        let patches = Patches {
            height: 2,
            width: 2,
            channels: 1,
            out_height: 2,
            out_width: 2,
            stride: 1,
            taps: 2,
            shift: [0, 1],
        };
        let mut rows = vec![f32::NAN; 3];
        patches.unfold(&[1.0, 2.0, 3.0, 4.0], &mut rows);
        let expect = [0.0, 0.0, 1.0, 2.0, 0.0, 0.0, 2.0, 0.0, 1.0, 2.0, 3.0, 4.0, 2.0, 0.0, 4.0, 0.0];
        assert_eq!(rows, expect);
        let mut x = vec![0.0; 4];
        patches.fold(&rows, &mut x);
        assert_eq!(x, [2.0, 8.0, 3.0, 8.0], "every pixel as often as it was read");
    }
}
