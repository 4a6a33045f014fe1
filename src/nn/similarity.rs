//! How alike and how far apart two batches of pictures are, as single operations with exact gradients.
//!
//! Written with tensor expressions the same loss takes some eighty passes over memory. Here every picture is done in one
//! go, inside the cache.

use super::Error;
use super::image_ops::Filter;
use super::kernel::vectorise;
use super::ops::{floats, with_floats};
use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

type Output = Result<(CpuStorage, Shape)>;

/// Numbers that one worker takes at a time. Fixed: it groups sums, which must not depend on the number of threads.
const BLOCK: usize = 1 << 14;

/// Pixels of a window, and those on each side of its centre.
const WINDOW: usize = 7;
const RADIUS: usize = WINDOW / 2;
const SIGMA: f32 = 1.5;
const C1: f32 = 1e-4;
const C2: f32 = 9e-4;

/// A blur by windows that are cut off and normalised at the border, or the transpose of one.
struct Blur {
    /// What pixel `i + t - RADIUS` of a column weighs in pixel `i`.
    rows: Vec<[f32; WINDOW]>,
    /// The same for the numbers of a row, channels side by side: tap by tap.
    columns: [Vec<f32>; WINDOW],
    channels: usize,
}

impl Blur {
    fn new(h: usize, w: usize, channels: usize, transposed: bool) -> Self {
        let taps = |side: usize| -> Vec<[f32; WINDOW]> {
            let filter = Filter::blur(side, SIGMA, RADIUS);
            let weight = |i: usize, t: usize| {
                let j = (i + t).checked_sub(RADIUS).filter(|&j| j < side);
                j.map_or(0.0, |j| if transposed { filter.weight(j, i) } else { filter.weight(i, j) })
            };
            (0..side).map(|i| std::array::from_fn(|t| weight(i, t))).collect()
        };
        let columns = taps(w);
        let tap = |t: usize| columns.iter().flat_map(|taps| std::iter::repeat_n(taps[t], channels)).collect();
        Self { rows: taps(h), columns: std::array::from_fn(tap), channels }
    }

    /// Numbers of a row.
    fn width(&self) -> usize {
        self.columns[0].len()
    }

    fn numbers(&self) -> usize {
        self.rows.len() * self.width()
    }

    /// Blurs one picture, in place. `scratch` is reused.
    fn apply(&self, x: &mut [f32], scratch: &mut Vec<f32>) {
        let (n, margin) = (self.width(), RADIUS * self.channels);
        scratch.clear();
        // A row with its margins, then all of the picture blurred along its rows.
        scratch.resize(n + 2 * margin + x.len(), 0.0);
        let (padded, along) = scratch.split_at_mut(n + 2 * margin);
        blur(x, along, padded, &self.rows, &self.columns, self.channels);
    }
}

vectorise! {
    fn blur(
        x: &mut [f32],
        along: &mut [f32],
        padded: &mut [f32],
        rows: &[[f32; WINDOW]],
        columns: &[Vec<f32>; WINDOW],
        channels: usize,
    ) {
        let n = columns[0].len();
        let margin = RADIUS * channels;
        for (x, y) in x.chunks_exact(n).zip(along.chunks_exact_mut(n)) {
            padded[margin..margin + n].copy_from_slice(x);
            for (t, weights) in columns.iter().enumerate() {
                for ((y, &x), &w) in y.iter_mut().zip(&padded[t * channels..]).zip(weights) {
                    *y = x.mul_add(w, *y);
                }
            }
        }
        for (i, (y, taps)) in x.chunks_exact_mut(n).zip(rows).enumerate() {
            y.fill(0.0);
            for (t, &w) in taps.iter().enumerate() {
                // Outside of the picture every weight is zero.
                if w != 0.0 {
                    let row = &along[(i + t - RADIUS) * n..][..n];
                    for (y, &x) in y.iter_mut().zip(row) {
                        *y = x.mul_add(w, *y);
                    }
                }
            }
        }
    }

    fn product(a: &[f32], b: &[f32], y: &mut [f32]) {
        for ((y, &a), &b) in y.iter_mut().zip(a).zip(b) {
            *y = a * b;
        }
    }

    /// From blurred `x`, `y`, `x x`, `y y`, `x y` to the similarity of every number.
    fn alike(mx: &[f32], my: &[f32], xx: &[f32], yy: &[f32], xy: &[f32], out: &mut [f32]) {
        for (((((out, &mx), &my), &xx), &yy), &xy) in out.iter_mut().zip(mx).zip(my).zip(xx).zip(yy).zip(xy) {
            let (squares, cross) = (mx * mx + my * my, mx * my);
            let above = (2.0 * cross + C1) * (2.0 * (xy - cross) + C2);
            let below = (squares + C1) * (xx + yy - squares + C2);
            *out = above / below;
        }
    }

    /// How [`alike`] changes with its first, third and fifth input, written over them.
    fn slopes(mx: &mut [f32], my: &[f32], xx: &mut [f32], yy: &[f32], xy: &mut [f32]) {
        for ((((mx, &my), xx), &yy), xy) in mx.iter_mut().zip(my).zip(xx.iter_mut()).zip(yy).zip(xy.iter_mut()) {
            let (squares, cross) = (*mx * *mx + my * my, *mx * my);
            let (a, b) = (2.0 * cross + C1, 2.0 * (*xy - cross) + C2);
            let (c, d) = (squares + C1, *xx + yy - squares + C2);
            let (by_xy, by_xx) = (2.0 * a / (c * d), -a * b / (c * d * d));
            let by_mx = 2.0 * my * b / (c * d) - 2.0 * *mx * a * b / (c * c * d);
            // The spreads `xx - mx mx` and `xy - mx my` move with the mean.
            *mx = by_mx - 2.0 * *mx * by_xx - my * by_xy;
            *xx = by_xx;
            *xy = by_xy;
        }
    }

    fn apart(x: &[f32], y: &[f32]) -> f32 {
        let mut lanes = [0.0_f32; 16];
        let ((xs, x_tail), (ys, y_tail)) = (x.as_chunks::<16>(), y.as_chunks::<16>());
        for (x, y) in xs.iter().zip(ys) {
            for ((lane, x), y) in lanes.iter_mut().zip(x).zip(y) {
                *lane += (x - y).abs();
            }
        }
        lanes.iter().sum::<f32>() + x_tail.iter().zip(y_tail).map(|(x, y)| (x - y).abs()).sum::<f32>()
    }

    /// `dx = scale sign(x - y)`, zero where they are equal.
    fn towards(dx: &mut [f32], x: &[f32], y: &[f32], scale: f32) {
        for ((dx, x), y) in dx.iter_mut().zip(x).zip(y) {
            *dx = scale * (f32::from(u8::from(x > y)) - f32::from(u8::from(x < y)));
        }
    }

    /// `dx = scale (p + 2 x q + y r)`.
    fn gather(dx: &mut [f32], p: &[f32], x: &[f32], q: &[f32], y: &[f32], r: &[f32], scale: f32) {
        for (((((dx, &p), &x), &q), &y), &r) in dx.iter_mut().zip(p).zip(x).zip(q).zip(y).zip(r) {
            *dx = scale * (p + 2.0 * x * q + y * r);
        }
    }
}

/// What one picture needs besides itself.
#[derive(Default)]
struct Scratch {
    /// `x`, `y`, `x x`, `y y`, `x y`, blurred.
    maps: [Vec<f32>; 5],
    blurring: Vec<f32>,
    out: Vec<f32>,
}

impl Scratch {
    fn fill(&mut self, x: &[f32], y: &[f32], blur: &Blur) {
        self.out.resize(x.len(), 0.0);
        for map in &mut self.maps {
            map.resize(x.len(), 0.0);
        }
        let [mx, my, xx, yy, xy] = &mut self.maps;
        mx.copy_from_slice(x);
        my.copy_from_slice(y);
        product(x, x, xx);
        product(y, y, yy);
        product(x, y, xy);
        for map in &mut self.maps {
            blur.apply(map, &mut self.blurring);
        }
    }
}

struct Similarity;

impl Similarity {
    /// The gradient of the mean similarity for `x`, times `upstream`; similarity is symmetric, so for `y` as well.
    fn gradient(x: &[f32], y: &[f32], shape: &[usize], upstream: f32) -> Vec<f32> {
        let (there, back) = (blur_of(shape, false), blur_of(shape, true));
        let (n, scale) = (there.numbers(), upstream / x.len() as f32);
        let mut dx = vec![0.0; x.len()];
        let pictures = dx.par_chunks_mut(n).zip(x.par_chunks(n)).zip(y.par_chunks(n));
        pictures.for_each_init(Scratch::default, |scratch, ((dx, x), y)| {
            scratch.fill(x, y, &there);
            let Scratch { maps: [mx, my, xx, yy, xy], blurring, .. } = scratch;
            slopes(mx, my, xx, yy, xy);
            for map in [&mut *mx, xx, xy] {
                back.apply(map, blurring);
            }
            gather(dx, mx, x, xx, y, xy, scale);
        });
        dx
    }
}

fn blur_of(shape: &[usize], transposed: bool) -> Blur {
    Blur::new(shape[1], shape[2], shape[3], transposed)
}

impl CustomOp2 for Similarity {
    fn name(&self) -> &'static str {
        "structural_similarity"
    }

    fn cpu_fwd(&self, x: &CpuStorage, x_layout: &Layout, y: &CpuStorage, y_layout: &Layout) -> Output {
        let shape = x_layout.dims();
        if shape.len() != 4 || y_layout.dims() != shape || shape.contains(&0) {
            bail!("structural_similarity takes pictures of one shape, got {shape:?} and {:?}", y_layout.dims());
        }
        let (x, y) = (floats(self.name(), x, x_layout)?, floats(self.name(), y, y_layout)?);
        let blur = blur_of(shape, false);
        let pictures = x.par_chunks(blur.numbers()).zip(y.par_chunks(blur.numbers()));
        let each: Vec<f64> = pictures
            .map_init(Scratch::default, |scratch, (x, y)| {
                scratch.fill(x, y, &blur);
                let Scratch { maps: [mx, my, xx, yy, xy], out, .. } = scratch;
                alike(mx, my, xx, yy, xy, out);
                out.iter().map(|&v| f64::from(v)).sum()
            })
            .collect();
        let mean = each.iter().sum::<f64>() / x.len() as f64;
        Ok((CpuStorage::F32(vec![mean as f32]), Shape::from(())))
    }

    fn bwd(
        &self,
        x: &Tensor,
        y: &Tensor,
        _value: &Tensor,
        upstream: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let upstream = upstream.to_scalar()?;
        let gradient = |of: &Tensor, other: &Tensor| -> Result<Option<Tensor>> {
            if !of.track_op() {
                return Ok(None);
            }
            let dx = with_floats(self.name(), [of, other], |[x, y]| Ok(Self::gradient(x, y, of.dims(), upstream)))?;
            Ok(Some(Tensor::from_vec(dx, of.shape(), of.device())?))
        };
        Ok((gradient(x, y)?, gradient(y, x)?))
    }
}

/// How alike two batches of pictures of `[0, 1]` are in brightness, contrast and structure, averaged over everything.
///
/// # Formula
/// `mean((2 m_x m_y + c1)(2 s_xy + c2) / ((m_x^2 + m_y^2 + c1)(s_xx + s_yy + c2)))` with Gaussian windows of 7 pixels,
/// `c1 = .01^2`, `c2 = .03^2`: differentiable, for losses. Scores use [`crate::measure`]'s own, which has the standard
/// window.
///
/// # Shapes
/// `x` and `y` `(b, h, w, c)` -> a scalar.
///
/// # Source
/// Wang et al., "Image quality assessment: from error visibility to structural similarity", 2004.
pub fn structural_similarity(x: &Tensor, y: &Tensor) -> std::result::Result<Tensor, Error> {
    Ok(x.apply_op2(y, Similarity)?)
}

struct Distance;

impl CustomOp2 for Distance {
    fn name(&self) -> &'static str {
        "distance"
    }

    fn cpu_fwd(&self, x: &CpuStorage, x_layout: &Layout, y: &CpuStorage, y_layout: &Layout) -> Output {
        if x_layout.dims() != y_layout.dims() || x_layout.shape().elem_count() == 0 {
            bail!("distance takes tensors of one shape, got {:?} and {:?}", x_layout.dims(), y_layout.dims());
        }
        let (x, y) = (floats(self.name(), x, x_layout)?, floats(self.name(), y, y_layout)?);
        let each: Vec<f64> =
            x.par_chunks(BLOCK).zip(y.par_chunks(BLOCK)).map(|(x, y)| f64::from(apart(x, y))).collect();
        Ok((CpuStorage::F32(vec![(each.iter().sum::<f64>() / x.len() as f64) as f32]), Shape::from(())))
    }

    fn bwd(&self, x: &Tensor, y: &Tensor, _: &Tensor, upstream: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let scale = upstream.to_scalar::<f32>()? / x.elem_count() as f32;
        let gradient = |of: &Tensor, other: &Tensor| -> Result<Option<Tensor>> {
            if !of.track_op() {
                return Ok(None);
            }
            let dx = with_floats(self.name(), [of, other], |[x, y]| {
                let mut dx = vec![0.0; x.len()];
                let blocks = dx.par_chunks_mut(BLOCK).zip(x.par_chunks(BLOCK)).zip(y.par_chunks(BLOCK));
                blocks.for_each(|((dx, x), y)| towards(dx, x, y, scale));
                Ok(dx)
            })?;
            Ok(Some(Tensor::from_vec(dx, of.shape(), of.device())?))
        };
        Ok((gradient(x, y)?, gradient(y, x)?))
    }
}

/// `mean |x - y|`.
///
/// # Shapes
/// `x` and `y` of one shape -> a scalar.
pub fn distance(x: &Tensor, y: &Tensor) -> std::result::Result<Tensor, Error> {
    Ok(x.apply_op2(y, Distance)?)
}

#[cfg(test)]
mod tests {
    use super::super::image_ops::resample;
    use super::super::ops::check::{agree, op, random};
    use super::*;

    /// The formula, word for word.
    fn plain(x: &Tensor, y: &Tensor) -> Result<Tensor> {
        let (c1, c2) = (f64::from(C1), f64::from(C2));
        let &[_, h, w, _] = x.dims() else { bail!("four dimensions") };
        let (rows, columns) = (Filter::blur(h, SIGMA, RADIUS), Filter::blur(w, SIGMA, RADIUS));
        let blur = |t: &Tensor| op(resample(&t.contiguous()?, &rows, &columns));
        let (mx, my) = (blur(x)?, blur(y)?);
        let (mxx, myy, mxy) = (mx.sqr()?, my.sqr()?, (&mx * &my)?);
        let (sxx, syy) = ((blur(&x.sqr()?)? - &mxx)?, (blur(&y.sqr()?)? - &myy)?);
        let sxy = (blur(&(x * y)?)? - &mxy)?;
        let above = (((mxy * 2.0)? + c1)? * ((sxy * 2.0)? + c2)?)?;
        let below = (((mxx + myy)? + c1)? * ((sxx + syy)? + c2)?)?;
        (above / below)?.mean_all()
    }

    #[test]
    fn the_similarity_agrees_with_plain_operations() {
        for shape in [[2, 8, 8, 3], [1, 5, 9, 1], [3, 2, 16, 3]] {
            agree(
                "structural_similarity",
                &[&shape, &shape],
                |x| op(structural_similarity(&x[0], &x[1])),
                |x| plain(&x[0], &x[1]),
            );
        }
    }

    #[test]
    fn the_distance_agrees_with_plain_operations() {
        for shape in [&[2, 3, 40, 3][..], &[7]] {
            let plain = |x: &[Tensor]| (&x[0] - &x[1])?.abs()?.mean_all();
            agree("distance", &[shape, shape], |x| op(distance(&x[0], &x[1])), plain);
        }
        let (x, y) = (random((2, 3), "x"), random((3, 2), "y"));
        assert!(distance(&x, &y).is_err_and(|e| e.to_string().contains("one shape")));
    }

    #[test]
    fn a_picture_is_like_itself() {
        let x = random((2, 8, 8, 3), "x");
        let one: f32 = structural_similarity(&x, &x).expect("equal shapes").to_scalar().expect("a scalar");
        assert!((one - 1.0).abs() < 1e-5, "{one}");
    }

    #[test]
    fn pictures_of_two_sizes_are_refused() {
        let error = structural_similarity(&random((1, 4, 4, 3), "x"), &random((1, 4, 8, 3), "y"));
        assert!(error.is_err_and(|e| e.to_string().contains("one shape")));
    }
}
