//! Row passes on plain slices, forward and backward: layer normalisation, bias and GELU, softmax, dropout, sums.
//!
//! A matrix `(n, d)` is a slice of `n d` floats, row-major; the row length is that of the vector argument (`gain`,
//! `bias`) or is given as `d`. A backward kernel *adds* to every gradient that it writes, so that several sources of
//! one gradient need no buffer of their own.

#![expect(
    clippy::inline_always,
    reason = "a kernel is compiled for an instruction set by being inlined into a `vectorise` function"
)]

use super::kernel::{dot, exp, gelu, gelu_and_derivative, sum, vectorise};

/// What layer normalisation computed for one row: its mean and `1 / sqrt(variance + eps)`.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Moments {
    /// Mean of the row.
    pub mean: f32,
    /// Reciprocal of the row's standard deviation.
    pub scale: f32,
}

vectorise! {
    /// Layer normalisation of every row.
    ///
    /// # Formula
    /// `y = gain (x - mean) / sqrt(variance + eps) + bias`, biased variance, two passes over the row.
    ///
    /// # Shapes
    /// `x` and `y` `(n, d)`, `gain` and `bias` `(d)`, `moments` `(n)`.
    pub fn layer_norm(x: &[f32], gain: &[f32], bias: &[f32], eps: f32, y: &mut [f32], moments: &mut [Moments]) {
        let d = gain.len();
        assert!(d > 0 && bias.len() == d && x.len() == y.len() && x.len() == moments.len() * d, "layer_norm shapes");
        for ((x, y), moment) in x.chunks_exact(d).zip(y.chunks_exact_mut(d)).zip(moments) {
            let mean = sum(x) / d as f32;
            for (y, &x) in y.iter_mut().zip(x) {
                *y = x - mean;
            }
            let scale = 1.0 / (dot(y, y) / d as f32 + eps).sqrt();
            for ((y, &g), &b) in y.iter_mut().zip(gain).zip(bias) {
                *y = (*y * scale).mul_add(g, b);
            }
            *moment = Moments { mean, scale };
        }
    }
}

vectorise! {
    /// The gradients of [`layer_norm`], added to `dx`, `dgain` and `dbias`.
    ///
    /// # Formula
    /// With `h = (x - mean) scale` and `u = gain dy`: `dx += scale (u - mean(u) - h mean(u h))`, `dgain += sum dy h`,
    /// `dbias += sum dy`.
    pub fn layer_norm_backward(
        x: &[f32],
        gain: &[f32],
        moments: &[Moments],
        dy: &[f32],
        dx: &mut [f32],
        dgain: &mut [f32],
        dbias: &mut [f32],
    ) {
        let d = gain.len();
        assert!(d > 0 && dgain.len() == d && dbias.len() == d, "layer_norm_backward shapes");
        assert!(x.len() == dy.len() && x.len() == dx.len() && x.len() == moments.len() * d, "layer_norm_backward shapes");
        for (((x, dy), dx), moment) in
            x.chunks_exact(d).zip(dy.chunks_exact(d)).zip(dx.chunks_exact_mut(d)).zip(moments)
        {
            let Moments { mean, scale } = *moment;
            for (((dgain, dbias), &x), &dy) in dgain.iter_mut().zip(dbias.iter_mut()).zip(x).zip(dy) {
                *dgain = dy.mul_add((x - mean) * scale, *dgain);
                *dbias += dy;
            }
            let (mut along, mut plain) = ([0.0_f32; 16], [0.0_f32; 16]);
            let (xs, x_tail) = x.as_chunks::<16>();
            let (gs, g_tail) = gain.as_chunks::<16>();
            let (dys, dy_tail) = dy.as_chunks::<16>();
            for ((x, g), dy) in xs.iter().zip(gs).zip(dys) {
                for lane in 0..16 {
                    let u = g[lane] * dy[lane];
                    plain[lane] += u;
                    along[lane] = u.mul_add((x[lane] - mean) * scale, along[lane]);
                }
            }
            let (mut plain, mut along) = (sum(&plain), sum(&along));
            for ((&x, &g), &dy) in x_tail.iter().zip(g_tail).zip(dy_tail) {
                plain += g * dy;
                along += g * dy * (x - mean) * scale;
            }
            let (plain, along) = (plain / d as f32, along / d as f32);
            for (((dx, &x), &g), &dy) in dx.iter_mut().zip(x).zip(gain).zip(dy) {
                *dx = scale.mul_add(g.mul_add(dy, -plain) - (x - mean) * scale * along, *dx);
            }
        }
    }
}

vectorise! {
    /// `y = GELU(x + bias)`.
    ///
    /// # Shapes
    /// `x` and `y` `(n, d)`, `bias` `(d)`.
    pub fn bias_gelu(x: &[f32], bias: &[f32], y: &mut [f32]) {
        let d = bias.len();
        assert!(d > 0 && x.len() == y.len() && x.len().is_multiple_of(d), "bias_gelu shapes");
        for (x, y) in x.chunks_exact(d).zip(y.chunks_exact_mut(d)) {
            for ((y, &x), &b) in y.iter_mut().zip(x).zip(bias) {
                *y = gelu(x + b);
            }
        }
    }
}

vectorise! {
    /// [`bias_gelu`] that leaves `GELU'(x + bias)` in `x`: with it the backward pass is one multiplication.
    pub fn bias_gelu_keeping_derivative(x: &mut [f32], bias: &[f32], y: &mut [f32]) {
        let d = bias.len();
        assert!(d > 0 && x.len() == y.len() && x.len().is_multiple_of(d), "bias_gelu shapes");
        for (x, y) in x.chunks_exact_mut(d).zip(y.chunks_exact_mut(d)) {
            for ((y, x), &b) in y.iter_mut().zip(x).zip(bias) {
                (*y, *x) = gelu_and_derivative(*x + b);
            }
        }
    }
}

vectorise! {
    /// Turns `dy` into the gradient before the activation and adds its column sums to `dbias`.
    ///
    /// # Formula
    /// `dy <- dy derivative`, `dbias += sum dy`.
    pub fn bias_gelu_backward(derivative: &[f32], dy: &mut [f32], dbias: &mut [f32]) {
        let d = dbias.len();
        assert!(d > 0 && derivative.len() == dy.len() && dy.len().is_multiple_of(d), "bias_gelu_backward shapes");
        for (derivative, dy) in derivative.chunks_exact(d).zip(dy.chunks_exact_mut(d)) {
            for ((dy, &k), dbias) in dy.iter_mut().zip(derivative).zip(dbias.iter_mut()) {
                *dy *= k;
                *dbias += *dy;
            }
        }
    }
}

/// `out[r] = bias` for every row: the start of an accumulating product.
pub fn fill_rows(bias: &[f32], out: &mut [f32]) {
    for row in out.chunks_exact_mut(bias.len()) {
        row.copy_from_slice(bias);
    }
}

vectorise! {
    /// `out[r] = x[r] + bias`: the start of an accumulating product on top of a residual.
    pub fn add_bias(x: &[f32], bias: &[f32], out: &mut [f32]) {
        let d = bias.len();
        for (x, out) in x.chunks_exact(d).zip(out.chunks_exact_mut(d)) {
            for ((out, &x), &b) in out.iter_mut().zip(x).zip(bias) {
                *out = x + b;
            }
        }
    }
}

vectorise! {
    /// `total += sum of the rows of x`: the gradient of a bias.
    pub fn add_column_sums(x: &[f32], total: &mut [f32]) {
        let d = total.len();
        for x in x.chunks_exact(d) {
            for (total, &x) in total.iter_mut().zip(x) {
                *total += x;
            }
        }
    }
}

vectorise! {
    /// `y += x`.
    pub fn add(x: &[f32], y: &mut [f32]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y += x;
        }
    }
}

vectorise! {
    /// `y = 1 / (1 + e^-x)`.
    pub fn sigmoid(x: &[f32], y: &mut [f32]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = 1.0 / (1.0 + exp(-x));
        }
    }

    /// The gradient of [`sigmoid`] from its result: `dx += dy y (1 - y)`.
    pub fn sigmoid_backward(y: &[f32], dy: &[f32], dx: &mut [f32]) {
        for ((dx, &y), &dy) in dx.iter_mut().zip(y).zip(dy) {
            *dx += dy * y * (1.0 - y);
        }
    }
}

vectorise! {
    /// Softmax of every row, in place.
    ///
    /// # Formula
    /// `p = exp(x - max) / sum exp(x - max)`
    pub fn softmax(x: &mut [f32], d: usize) {
        assert!(d > 0 && x.len().is_multiple_of(d), "softmax shapes");
        for row in x.chunks_exact_mut(d) {
            let top = max(row);
            let total = exp_in_place(row, top);
            let k = 1.0 / total;
            for v in row {
                *v *= k;
            }
        }
    }
}

vectorise! {
    /// The gradient of [`softmax`] from its result: `dx += p (dy - sum p dy)`.
    pub fn softmax_backward(p: &[f32], dy: &[f32], dx: &mut [f32], d: usize) {
        assert!(d > 0 && p.len() == dy.len() && p.len() == dx.len() && p.len().is_multiple_of(d), "softmax shapes");
        for ((p, dy), dx) in p.chunks_exact(d).zip(dy.chunks_exact(d)).zip(dx.chunks_exact_mut(d)) {
            let along = dot(p, dy);
            for ((dx, &p), &dy) in dx.iter_mut().zip(p).zip(dy) {
                *dx = p.mul_add(dy - along, *dx);
            }
        }
    }
}

/// Largest element; negative infinity for an empty slice.
#[inline(always)]
pub(super) fn max(x: &[f32]) -> f32 {
    let (chunks, tail) = x.as_chunks::<16>();
    let mut lanes = [f32::NEG_INFINITY; 16];
    for chunk in chunks {
        for (lane, &v) in lanes.iter_mut().zip(chunk) {
            *lane = if v > *lane { v } else { *lane };
        }
    }
    lanes.iter().chain(tail).fold(f32::NEG_INFINITY, |top, &v| if v > top { v } else { top })
}

/// `x <- exp(x - top)`; returns the sum.
#[inline(always)]
pub(super) fn exp_in_place(x: &mut [f32], top: f32) -> f32 {
    let (chunks, tail) = x.as_chunks_mut::<16>();
    let mut lanes = [0.0_f32; 16];
    for chunk in chunks {
        for (lane, v) in lanes.iter_mut().zip(chunk) {
            *v = exp(*v - top);
            *lane += *v;
        }
    }
    let mut total = sum(&lanes);
    for v in tail {
        *v = exp(*v - top);
        total += *v;
    }
    total
}

/// Which elements of one dropout site survive, as a function of their index alone.
///
/// # Formula
/// Element `i` survives when `mix(i, key) < (1 - rate) 2^32`; survivors are divided by `1 - rate` (inverted dropout).
/// `mix` is a 32-bit finaliser with two keyed rounds, so a mask costs no memory and the backward pass computes it again.
#[derive(Debug, Clone, Copy)]
pub struct Dropout {
    key: [u32; 2],
    keep_below: u32,
    scale: f32,
}

impl Dropout {
    /// The mask of `site` under `key`; `None` when nothing is dropped.
    pub fn new(rate: f32, key: u64, site: u64) -> Option<Dropout> {
        (rate > 0.0).then(|| {
            let mut z = key ^ site.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^= z >> 31;
            let keep = f64::from(1.0 - rate);
            Dropout {
                key: [z as u32, (z >> 32) as u32],
                keep_below: (keep * 4_294_967_296.0) as u32,
                scale: (1.0 / keep) as f32,
            }
        })
    }

    #[inline(always)]
    fn factor(self, index: u32) -> f32 {
        let mut x = index.wrapping_mul(0x9e37_79b9) ^ self.key[0];
        x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
        x = (x ^ (x >> 15)).wrapping_add(self.key[1]).wrapping_mul(0x846c_a68b);
        x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
        x ^= x >> 15;
        if x < self.keep_below { self.scale } else { 0.0 }
    }

    /// `y = x mask`, or `y += x mask` when `accumulate`; the elements are numbered from `first`.
    pub fn apply(self, first: u32, x: &[f32], y: &mut [f32], accumulate: bool) {
        if accumulate { add_masked(self, first, x, y) } else { copy_masked(self, first, x, y) }
    }

    /// `x <- x mask`.
    pub fn apply_in_place(self, first: u32, x: &mut [f32]) {
        mask(self, first, x);
    }
}

vectorise! {
    fn add_masked(dropout: Dropout, first: u32, x: &[f32], y: &mut [f32]) {
        for ((y, &x), i) in y.iter_mut().zip(x).zip(0_u32..) {
            *y = x.mul_add(dropout.factor(first.wrapping_add(i)), *y);
        }
    }

    fn copy_masked(dropout: Dropout, first: u32, x: &[f32], y: &mut [f32]) {
        for ((y, &x), i) in y.iter_mut().zip(x).zip(0_u32..) {
            *y = x * dropout.factor(first.wrapping_add(i));
        }
    }

    fn mask(dropout: Dropout, first: u32, x: &mut [f32]) {
        for (x, i) in x.iter_mut().zip(0_u32..) {
            *x *= dropout.factor(first.wrapping_add(i));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed;
    use rand::RngExt;

    fn random(n: usize, name: &str) -> Vec<f32> {
        let mut rng = seed::stream(5, "rows tests", name);
        (0..n).map(|_| rng.random_range(-2.0..2.0)).collect()
    }

    fn assert_close(got: &[f32], want: &[f64], tolerance: f64, what: &str) {
        assert_eq!(got.len(), want.len(), "{what}");
        for (i, (&got, &want)) in got.iter().zip(want).enumerate() {
            let error = (f64::from(got) - want).abs();
            assert!(error <= tolerance * want.abs().max(1.0), "{what}[{i}]: {got} against {want}");
        }
    }

    #[test]
    fn layer_norm_matches_the_golden_values() {
        let x = [1.0, 2.0, 3.0, 4.0, 0.0, 0.0, 1.0, -1.0];
        let (gain, bias) = ([1.0, 2.0, 0.5, -1.0], [0.0, 0.1, 0.0, -0.2]);
        let dy = [1.0, 0.0, -1.0, 0.5, 0.2, -0.4, 0.6, 1.0];
        let (mut y, mut moments) = ([0.0; 8], [Moments::default(); 2]);
        layer_norm(&x, &gain, &bias, 1e-5, &mut y, &mut moments);
        let golden = [-1.341_635_4, -0.794_423_6, 0.223_605_9, -1.541_635_4, 0.0, 0.1, 0.707_099_7, 1.214_199_4];
        assert_close(&y, &golden, 1e-6, "y");
        let (mut dx, mut dgain, mut dbias) = ([0.0; 8], [0.0; 4], [0.0; 4]);
        layer_norm_backward(&x, &gain, &moments, &dy, &mut dx, &mut dgain, &mut dbias);
        let golden = [
            0.223_611_3,
            -0.223_604_1,
            -0.223_607_7,
            0.223_600_5,
            0.742_454_7,
            -0.671_744_7,
            -0.035_336_6,
            -0.035_373_4,
        ];
        assert_close(&dx, &golden, 2e-6, "dx");
        assert_close(&dgain, &[-1.341_635_4, 0.0, 0.401_307_8, -0.743_381_7], 1e-6, "dgain");
        assert_close(&dbias, &[1.2, -0.4, -0.4, 1.5], 1e-6, "dbias");
    }

    #[test]
    fn layer_norm_matches_f64_for_awkward_widths() {
        for (n, d) in [(1, 1), (1, 7), (3, 16), (5, 50)] {
            let (x, gain, bias, dy) = (random(n * d, "x"), random(d, "gain"), random(d, "bias"), random(n * d, "dy"));
            let (mut y, mut moments) = (vec![0.0; n * d], vec![Moments::default(); n]);
            layer_norm(&x, &gain, &bias, 1e-5, &mut y, &mut moments);
            let (mut dx, mut dgain, mut dbias) = (vec![1.0; n * d], vec![0.0; d], vec![0.0; d]);
            layer_norm_backward(&x, &gain, &moments, &dy, &mut dx, &mut dgain, &mut dbias);
            let (mut want_y, mut want_dx) = (Vec::new(), Vec::new());
            let (mut want_dgain, mut want_dbias) = (vec![0.0; d], vec![0.0; d]);
            for (x, dy) in x.chunks(d).zip(dy.chunks(d)) {
                let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / d as f64;
                let var = x.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / d as f64;
                let scale = 1.0 / (var + 1e-5).sqrt();
                let h: Vec<f64> = x.iter().map(|&x| (f64::from(x) - mean) * scale).collect();
                let u: Vec<f64> = dy.iter().zip(&gain).map(|(&dy, &g)| f64::from(dy * g)).collect();
                let plain = u.iter().sum::<f64>() / d as f64;
                let along = u.iter().zip(&h).map(|(u, h)| u * h).sum::<f64>() / d as f64;
                for j in 0..d {
                    want_y.push(h[j] * f64::from(gain[j]) + f64::from(bias[j]));
                    want_dx.push(1.0 + scale * (u[j] - plain - h[j] * along));
                    want_dgain[j] += f64::from(dy[j]) * h[j];
                    want_dbias[j] += f64::from(dy[j]);
                }
            }
            assert_close(&y, &want_y, 1e-5, "y");
            // A row of one element has no spread: `scale` is 316 and multiplies rounding noise.
            assert_close(&dx, &want_dx, if d == 1 { 1e-4 } else { 1e-5 }, "dx");
            assert_close(&dgain, &want_dgain, 1e-5, "dgain");
            assert_close(&dbias, &want_dbias, 1e-5, "dbias");
        }
    }

    #[test]
    fn bias_gelu_keeps_the_derivative_that_its_backward_needs() {
        for (n, d) in [(1, 3), (4, 16), (3, 21)] {
            let (x, bias, dy) = (random(n * d, "x"), random(d, "bias"), random(n * d, "dy"));
            let (mut plain, mut kept, mut y) = (vec![0.0; n * d], x.clone(), vec![0.0; n * d]);
            bias_gelu(&x, &bias, &mut plain);
            bias_gelu_keeping_derivative(&mut kept, &bias, &mut y);
            let f = |x: f32, b: f32| f64::from(gelu(x + b));
            let want: Vec<f64> = x.iter().zip(bias.iter().cycle()).map(|(&x, &b)| f(x, b)).collect();
            assert_close(&plain, &want, 1e-6, "y");
            assert_close(&y, &want, 1e-6, "y with its derivative");
            let (mut dx, mut dbias) = (dy.clone(), vec![0.5; d]);
            bias_gelu_backward(&kept, &mut dx, &mut dbias);
            let h = 1e-2;
            let slope = |x: f32, b: f32| (f(x + h, b) - f(x - h, b)) / f64::from(2.0 * h);
            let want: Vec<f64> =
                x.iter().zip(bias.iter().cycle()).zip(&dy).map(|((&x, &b), &dy)| slope(x, b) * f64::from(dy)).collect();
            assert_close(&dx, &want, 2e-4, "dx");
            let mut want_bias = vec![0.5; d];
            for row in dx.chunks(d) {
                for (want, &dx) in want_bias.iter_mut().zip(row) {
                    *want += f64::from(dx);
                }
            }
            assert_close(&dbias, &want_bias, 1e-5, "dbias");
        }
    }

    #[test]
    fn softmax_and_its_gradient_match_f64() {
        for (n, d) in [(1, 1), (2, 5), (3, 33)] {
            let (x, dy) = (random(n * d, "x"), random(n * d, "dy"));
            let mut p = x.clone();
            softmax(&mut p, d);
            let mut dx = vec![0.0; n * d];
            softmax_backward(&p, &dy, &mut dx, d);
            let (mut want_p, mut want_dx) = (Vec::new(), Vec::new());
            for (x, dy) in x.chunks(d).zip(dy.chunks(d)) {
                let e: Vec<f64> = x.iter().map(|&x| f64::from(x).exp()).collect();
                let total: f64 = e.iter().sum();
                let along: f64 = e.iter().zip(dy).map(|(e, &dy)| e / total * f64::from(dy)).sum();
                want_p.extend(e.iter().map(|e| e / total));
                want_dx.extend(e.iter().zip(dy).map(|(e, &dy)| e / total * (f64::from(dy) - along)));
            }
            assert_close(&p, &want_p, 1e-6, "p");
            assert_close(&dx, &want_dx, 2e-6, "dx");
        }
    }

    #[test]
    fn dropout_keeps_its_share_and_its_mean() {
        let n = 200_000;
        let ones = vec![1.0; n];
        let mut masks = Vec::new();
        for (key, site) in [(1, 0), (1, 1), (2, 0)] {
            let mut y = vec![f32::NAN; n];
            Dropout::new(0.1, key, site).expect("a mask").apply(7, &ones, &mut y, false);
            let kept = y.iter().filter(|&&v| v != 0.0).count() as f64;
            // Binomial, five standard deviations: false alarm below 1e-6.
            assert!((kept - 0.9 * n as f64).abs() < 5.0 * (0.09 * n as f64).sqrt(), "{kept} kept");
            assert!(y.iter().all(|&v| v == 0.0 || (v - 1.0 / 0.9).abs() < 1e-6));
            masks.push(y);
        }
        for (a, b) in [(0, 1), (0, 2), (1, 2)] {
            let both = masks[a].iter().zip(&masks[b]).filter(|(x, y)| **x == 0.0 && **y == 0.0).count() as f64;
            assert!((both - 0.01 * n as f64).abs() < 5.0 * (0.0099 * n as f64).sqrt(), "{both} dropped in both");
        }
        let next = masks[0].windows(2).filter(|pair| pair[0] == 0.0 && pair[1] == 0.0).count() as f64;
        assert!((next - 0.01 * n as f64).abs() < 6.0 * (0.0099 * n as f64).sqrt(), "{next} neighbours dropped");
        let mut rest = vec![1.0; n - 100];
        Dropout::new(0.1, 1, 0).expect("a mask").apply_in_place(107, &mut rest);
        assert!(rest == masks[0][100..], "a mask depends on the element's number alone");
        assert!(Dropout::new(0.0, 1, 0).is_none());
    }
}
