//! Kernels on plain `f32` slices: one matrix product and the row passes that training and encoding spend their time in.
//!
//! Every loop is written once, in safe code that the compiler can vectorise, and compiled for several instruction
//! sets; [`vectorised`] picks the best one at run time, so the distributed binary needs no special build. Nothing here
//! starts a thread: callers shard, and results never depend on how.

#![expect(
    clippy::inline_always,
    reason = "a kernel is compiled for an instruction set by being inlined into `vectorised`"
)]
#![allow(clippy::excessive_precision, reason = "coefficients as published")]

use gemm::Parallelism;

/// Runs `body` compiled for the widest vector unit of this machine.
///
/// `body` and everything it calls must be inlinable; a bounds check in its inner loop stops vectorisation.
#[inline(always)]
pub fn vectorised<R>(body: impl FnOnce() -> R) -> R {
    struct Body<F>(F);
    impl<R, F: FnOnce() -> R> pulp::NullaryFnOnce for Body<F> {
        type Output = R;
        #[inline(always)]
        fn call(self) -> R {
            (self.0)()
        }
    }
    pulp::Arch::new().dispatch(Body(body))
}

/// Defines functions whose bodies are compiled for several instruction sets and chosen at run time.
///
/// A closure given to [`vectorised`] is inlined at the compiler's discretion, and a large one is not; the method that
/// this macro writes always is.
macro_rules! vectorise {
    (@output) => { () };
    (@output $out:ty) => { $out };
    ($($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $out:ty)? $body:block)*) => {$(
        $(#[$meta])*
        $vis fn $name($($arg: $ty),*) $(-> $out)? {
            struct Call<A>(A);
            impl pulp::NullaryFnOnce for Call<($($ty,)*)> {
                type Output = vectorise!(@output $($out)?);
                #[inline(always)]
                fn call(self) -> Self::Output {
                    let Call(($($arg,)*)) = self;
                    $body
                }
            }
            pulp::Arch::new().dispatch(Call(($($arg,)*)))
        }
    )*};
}
pub(super) use vectorise;

/// How an operand of [`matmul`] lies in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// As the formula reads it, row-major.
    Plain,
    /// Stored as its transpose, row-major; costs nothing.
    Transposed,
}

/// Matrix product on one thread: `c = a b`, or `c += a b` when `accumulate`.
///
/// # Shapes
/// `a` is `(m, k)`, `b` is `(k, n)`, `c` is `(m, n)` row-major; a [`Layout::Transposed`] operand is stored as
/// `(k, m)` or `(n, k)`.
///
/// # Panics
/// When a slice is shorter than its shape.
#[expect(clippy::too_many_arguments, reason = "the arguments of a matrix product")]
pub fn matmul(
    c: &mut [f32],
    a: &[f32],
    a_layout: Layout,
    b: &[f32],
    b_layout: Layout,
    m: usize,
    k: usize,
    n: usize,
    accumulate: bool,
) {
    assert!(a.len() >= m * k && b.len() >= k * n && c.len() >= m * n, "matmul operands match ({m}, {k}) x ({k}, {n})");
    if m == 0 || n == 0 {
        return;
    }
    let (a_row, a_col) = match a_layout {
        Layout::Plain => (k as isize, 1),
        Layout::Transposed => (1, m as isize),
    };
    let (b_row, b_col) = match b_layout {
        Layout::Plain => (n as isize, 1),
        Layout::Transposed => (1, k as isize),
    };
    let keep = if accumulate { 1.0 } else { 0.0 };
    #[expect(unsafe_code, reason = "gemm takes raw pointers; it is the one product that reaches the machine's peak")]
    // SAFETY: the assertion above bounds every element that the strides address, and `c` is borrowed mutably, so it
    // overlaps neither operand.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.as_mut_ptr(),
            1,
            n as isize,
            accumulate,
            a.as_ptr(),
            a_col,
            a_row,
            b.as_ptr(),
            b_col,
            b_row,
            keep,
            1.0,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

/// `e^x` with relative error below `1e-7` on `[-87, 87]`; below that range the result is the smallest normal number.
///
/// # Source
/// Cephes `expf`: range reduction by `ln 2`, degree-5 polynomial. The exponent is read from the bits of
/// `x log2(e) + 1.5 * 2^23` because a float-to-integer cast saturates, which stops vectorisation.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-87.3, 88.0);
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-0.693_359_375, x);
    let r = n.mul_add(2.121_944_4e-4, r);
    let mut p = 1.987_569_15e-4_f32;
    p = p.mul_add(r, 1.398_199_95e-3);
    p = p.mul_add(r, 8.333_452e-3);
    p = p.mul_add(r, 4.166_579_6e-2);
    p = p.mul_add(r, 1.666_666_5e-1);
    p = p.mul_add(r, 5.000_000_1e-1);
    let y = p.mul_add(r * r, r) + 1.0;
    // The low bits of `shifted` hold n; moving them into the exponent field multiplies by 2^n.
    let scale = f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000));
    y * scale
}

/// The error function with absolute error below `6e-7`.
///
/// # Source
/// Abramowitz and Stegun, 7.1.26.
#[inline(always)]
pub fn erf(x: f32) -> f32 {
    erf_with(x, exp(-x * x))
}

/// [`erf`] given `exp(-x^2)`.
#[inline(always)]
fn erf_with(x: f32, bell: f32) -> f32 {
    let a = x.abs();
    let t = 1.0 / a.mul_add(0.327_591_1, 1.0);
    let mut p = 1.061_405_4_f32;
    p = p.mul_add(t, -1.453_152);
    p = p.mul_add(t, 1.421_413_8);
    p = p.mul_add(t, -0.284_496_74);
    p = p.mul_add(t, 0.254_829_6);
    let y = (-p * t).mul_add(bell, 1.0);
    y.copysign(x)
}

/// `GELU(x) = x Phi(x)`, the erf form that BERT encoders use.
#[inline(always)]
pub fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))
}

/// The derivative of [`gelu`]: `Phi(x) + x phi(x)`.
#[inline(always)]
pub fn gelu_derivative(x: f32) -> f32 {
    const INV_SQRT_2PI: f32 = 0.398_942_3;
    let phi = 0.5 * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2));
    (x * INV_SQRT_2PI).mul_add(exp(-0.5 * x * x), phi)
}

/// [`gelu`] and [`gelu_derivative`] for the price of one: both need `exp(-x^2 / 2)`.
#[inline(always)]
pub fn gelu_and_derivative(x: f32) -> (f32, f32) {
    const INV_SQRT_2PI: f32 = 0.398_942_3;
    let bell = exp(-0.5 * x * x);
    let phi = 0.5 * (1.0 + erf_with(x * std::f32::consts::FRAC_1_SQRT_2, bell));
    (x * phi, (x * INV_SQRT_2PI).mul_add(bell, phi))
}

/// Sum with sixteen accumulators in a fixed order: vectorises, and gives the same bits wherever it runs.
#[inline(always)]
pub fn sum(x: &[f32]) -> f32 {
    fold(x, |acc, v| acc + v)
}

/// Dot product with the accumulators of [`sum`].
#[inline(always)]
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; 16];
    let (mut pa, mut pb) = (a.chunks_exact(16), b.chunks_exact(16));
    for (ca, cb) in (&mut pa).zip(&mut pb) {
        for ((lane, &x), &y) in lanes.iter_mut().zip(ca).zip(cb) {
            *lane = x.mul_add(y, *lane);
        }
    }
    let tail: f32 = pa.remainder().iter().zip(pb.remainder()).map(|(x, y)| x * y).sum();
    reduce(lanes) + tail
}

#[inline(always)]
fn fold(x: &[f32], step: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0_f32; 16];
    let mut chunks = x.chunks_exact(16);
    for chunk in &mut chunks {
        for (lane, &v) in lanes.iter_mut().zip(chunk) {
            *lane = step(*lane, v);
        }
    }
    chunks.remainder().iter().fold(reduce(lanes), |acc, &v| step(acc, v))
}

#[inline(always)]
fn reduce(lanes: [f32; 16]) -> f32 {
    let mut total = 0.0;
    for half in 0..8 {
        total += lanes[half] + lanes[half + 8];
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gelu_and_its_derivative_match_f64() {
        let golden = [
            (-3.0, -0.004_049_69, -0.011_945_65),
            (-1.0, -0.158_655_25, -0.083_315_47),
            (-0.5, -0.154_268_77, 0.132_504_88),
            (0.0, 0.0, 0.5),
            (0.5, 0.345_731_23, 0.867_495_12),
            (1.0, 0.841_344_75, 1.083_315_47),
            (3.0, 2.995_950_31, 1.011_945_65),
        ];
        for (x, y, dy) in golden {
            assert!((f64::from(gelu(x)) - y).abs() < 5e-7, "gelu({x})");
            assert!((f64::from(gelu_derivative(x)) - dy).abs() < 5e-7, "gelu'({x})");
        }
    }

    #[test]
    fn exp_is_within_a_ten_millionth() {
        let mut worst: f64 = 0.0;
        let mut x = -87.0_f32;
        while x < 87.0 {
            let exact = f64::from(x).exp();
            worst = worst.max(((f64::from(exp(x)) - exact) / exact).abs());
            x += 0.001_7;
        }
        assert!(worst < 1.2e-7, "{worst}");
    }

    #[test]
    fn matmul_reads_every_layout_and_accumulates() {
        let a = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        let at = [1.0, 4.0, 2.0, 5.0, 3.0, 6.0];
        let b = [1.0, 0.0, 2.0, 1.0, 0.0, 3.0];
        let bt = [1.0, 2.0, 0.0, 0.0, 1.0, 3.0];
        let expect = [5.0, 11.0, 14.0, 23.0];
        for (x, lx) in [(&a, Layout::Plain), (&at, Layout::Transposed)] {
            for (y, ly) in [(&b, Layout::Plain), (&bt, Layout::Transposed)] {
                let mut c = [f32::NAN; 4];
                matmul(&mut c, x, lx, y, ly, 2, 3, 2, false);
                assert_eq!(c, expect);
                matmul(&mut c, x, lx, y, ly, 2, 3, 2, true);
                assert_eq!(c, expect.map(|v| 2.0 * v));
            }
        }
    }
}
