//! Structural similarity: means, contrasts and correlations inside a moving window.

/// Stabilisers of Wang et al., for values in `[0, 1]`.
const C1: f64 = 0.01 * 0.01;
const C2: f64 = 0.03 * 0.03;

/// The window that statistics are taken in.
#[derive(Debug, Clone, PartialEq)]
pub struct Window {
    /// Weights in one direction, symmetric, with sum 1.
    weights: Vec<f64>,
    /// Whether windows that reach beyond the picture (which is mirrored there) count.
    has_border: bool,
}

impl Window {
    /// The usual one: Gaussian, sigma 1.5, cut to 11x11; windows that reach beyond the picture are left out.
    pub fn gaussian() -> Self {
        let weights: Vec<f64> = (-5_i32..=5).map(|x| (-0.5 * (f64::from(x) / 1.5).powi(2)).exp()).collect();
        let sum: f64 = weights.iter().sum();
        Self { weights: weights.iter().map(|w| w / sum).collect(), has_border: false }
    }

    /// All of `side` x `side` alike, for small pictures.
    ///
    /// # Panics
    /// When `side` is even.
    pub fn uniform(side: usize) -> Self {
        assert!(side % 2 == 1, "a window has a middle");
        Self { weights: vec![1.0 / side as f64; side], has_border: false }
    }

    /// The same with the windows that reach beyond the picture.
    #[must_use]
    pub fn with_border(&self) -> Self {
        Self { has_border: true, ..self.clone() }
    }
}

/// Mean structural similarity of two channels; `None` where no window fits into the picture.
///
/// # Formula
/// Over windows: `(2 μa μb + C1)(2 σab + C2) / ((μa² + μb² + C1)(σa² + σb² + C2))` with weighted population moments,
/// `C1 = .01²`, `C2 = .03²`.
///
/// # Shapes
/// Two slices of `height * width` values in `[0, 1]`, row-major. Of colour pictures take the mean over channels.
///
/// # Range
/// `[-1, 1]`, 1 for equal channels; higher = closer = worse privacy.
///
/// # Source
/// Wang, Bovik, Sheikh, Simoncelli, "Image quality assessment: from error visibility to structural similarity", 2004.
/// The choices are those of scikit-image with `gaussian_weights=True, use_sample_covariance=False`.
///
/// # Panics
/// When the values are not `height * width` many.
pub fn ssim(a: &[f64], b: &[f64], width: usize, height: usize, window: &Window) -> Option<f64> {
    assert!(a.len() == width * height && b.len() == a.len(), "two channels of one size");
    let reach = window.weights.len() / 2;
    let border = if window.has_border { 0 } else { reach };
    if width.min(height) < window.weights.len() {
        return None;
    }
    let smooth = |values: &[f64]| smoothed(values, width, height, &window.weights);
    let product = |a: &[f64], b: &[f64]| -> Vec<f64> { a.iter().zip(b).map(|(a, b)| a * b).collect() };
    let (mean_a, mean_b) = (smooth(a), smooth(b));
    let (aa, bb, ab) = (smooth(&product(a, a)), smooth(&product(b, b)), smooth(&product(a, b)));
    let mut sum = 0.0;
    for y in border..height - border {
        for at in y * width + border..(y + 1) * width - border {
            let (ma, mb) = (mean_a[at], mean_b[at]);
            let (var_a, var_b, cov) = (aa[at] - ma * ma, bb[at] - mb * mb, ab[at] - ma * mb);
            sum += (2.0 * ma * mb + C1) * (2.0 * cov + C2) / ((ma * ma + mb * mb + C1) * (var_a + var_b + C2));
        }
    }
    Some(sum / ((width - 2 * border) * (height - 2 * border)) as f64)
}

/// Weighted means around each value; beyond its edge the picture is mirrored, the edge itself repeated.
fn smoothed(values: &[f64], width: usize, height: usize, weights: &[f64]) -> Vec<f64> {
    let down = along(values, height, width, weights, width, 1);
    along(&down, width, height, weights, 1, width)
}

/// One direction: `lines` lines of `length` values, `step` apart in a line, lines `stride` apart.
fn along(values: &[f64], length: usize, lines: usize, weights: &[f64], step: usize, stride: usize) -> Vec<f64> {
    let reach = weights.len() / 2;
    let mirrored = |at: usize| {
        // `at` counts from `reach` before the line.
        if at < reach {
            reach - 1 - at
        } else if at - reach < length {
            at - reach
        } else {
            2 * length - 1 - (at - reach)
        }
    };
    let mut out = vec![0.0; values.len()];
    for line in 0..lines {
        for at in 0..length {
            let taps = weights.iter().enumerate();
            out[line * stride + at * step] =
                taps.map(|(tap, weight)| weight * values[line * stride + mirrored(at + tap) * step]).sum();
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_is_like_itself_and_unlike_its_negative() {
        let wave: Vec<f64> = (0..20 * 15).map(|i| 0.5 + 0.4 * f64::from(i * 7 % 20).sin()).collect();
        let negative: Vec<f64> = wave.iter().map(|v| 1.0 - v).collect();
        let of = |a: &[f64], b: &[f64]| ssim(a, b, 20, 15, &Window::gaussian()).expect("large enough");
        assert!((of(&wave, &wave) - 1.0).abs() < 1e-12);
        assert!(of(&wave, &negative) < -0.5);
        assert_eq!(of(&wave, &negative), of(&negative, &wave));
    }

    #[test]
    fn a_picture_smaller_than_the_window_has_none() {
        assert_eq!(ssim(&[0.5; 100], &[0.5; 100], 10, 10, &Window::gaussian()), None);
        assert_eq!(ssim(&[0.5; 110], &[0.5; 110], 11, 10, &Window::gaussian()), None);
        assert_eq!(ssim(&[0.5; 121], &[0.5; 121], 11, 11, &Window::gaussian()), Some(1.0));
        assert!(ssim(&[0.5; 100], &[0.5; 100], 10, 10, &Window::uniform(7)).is_some());
    }
}
