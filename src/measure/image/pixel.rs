//! Metrics of values at the same place: no window, no order of pixels.

/// Identical pictures have no noise at all; their ratio is cut here, far above what bytes can tell apart.
pub(super) const MOST_PSNR_DB: f64 = 100.0;

/// Mean squared error.
///
/// # Formula
/// `Σ (a - b)² / n`
///
/// # Shapes
/// Two slices of `n > 0` values in `[0, 1]`.
///
/// # Range
/// `[0, 1]`; lower = closer = worse privacy.
///
/// # Panics
/// When the lengths differ or there are no values.
pub fn mse(a: &[f64], b: &[f64]) -> f64 {
    assert!(!a.is_empty() && a.len() == b.len(), "two pictures of one size");
    a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>() / a.len() as f64
}

/// Peak signal-to-noise ratio of a mean squared error, for a peak of 1.
///
/// # Formula
/// `-10 log10 mse`, at most 100.
///
/// # Range
/// dB, `[0, 100]` for values in `[0, 1]`; higher = closer = worse privacy. Of many pictures take it from the mean of
/// their errors; the mean of their ratios is another number, and is named differently wherever it is printed.
pub fn psnr_db(mse: f64) -> f64 {
    (-10.0 * mse.log10()).min(MOST_PSNR_DB)
}

/// Pearson correlation of all values; `None` where one side is constant.
///
/// # Formula
/// `Σ (a - ā)(b - b̄) / √(Σ (a - ā)² Σ (b - b̄)²)`
///
/// # Range
/// `[-1, 1]`; higher = closer = worse privacy. Blind to brightness and contrast.
///
/// # Panics
/// As [`mse`].
pub fn pixel_correlation(a: &[f64], b: &[f64]) -> Option<f64> {
    assert!(!a.is_empty() && a.len() == b.len(), "two pictures of one size");
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let (mean_a, mean_b) = (mean(a), mean(b));
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (a, b) in a.iter().zip(b) {
        let (a, b) = (a - mean_a, b - mean_b);
        ab += a * b;
        aa += a * a;
        bb += b * b;
    }
    // A constant picture leaves rounding errors, not zeros.
    let is_flat = |sum: f64, mean: f64| sum <= a.len() as f64 * (1e-12 * mean.abs().max(1e-3)).powi(2);
    (!is_flat(aa, mean_a) && !is_flat(bb, mean_b)).then(|| (ab / (aa.sqrt() * bb.sqrt())).clamp(-1.0, 1.0))
}

/// Anisotropic total variation of one channel: how much neighbours differ, per value.
///
/// # Formula
/// `(Σ |v(y, x+1) - v(y, x)| + Σ |v(y+1, x) - v(y, x)|) / n`
///
/// # Shapes
/// `n` values, rows of `width`.
///
/// # Panics
/// When the values are not whole rows.
pub fn total_variation(values: &[f64], width: usize) -> f64 {
    assert!(!values.is_empty() && width > 0 && values.len().is_multiple_of(width), "whole rows");
    let across: f64 = values.chunks_exact(width).flat_map(|row| row.windows(2)).map(|w| (w[1] - w[0]).abs()).sum();
    let down: f64 = values.iter().zip(&values[width..]).map(|(above, below)| (below - above).abs()).sum();
    (across + down) / values.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identical_pictures_have_a_finite_ratio() {
        let values = [0.25, 0.5, 0.125];
        assert_eq!((mse(&values, &values), psnr_db(0.0)), (0.0, MOST_PSNR_DB));
        assert_eq!(psnr_db(1.0), 0.0);
    }

    #[test]
    fn a_constant_picture_correlates_with_nothing() {
        let ramp: Vec<f64> = (0..300).map(|i| f64::from(i) / 300.0).collect();
        for level in [0.0, 0.1, 0.7, 1.0] {
            assert_eq!(pixel_correlation(&vec![level; 300], &ramp), None);
        }
        let darker: Vec<f64> = ramp.iter().map(|v| 0.2 + 0.3 * v).collect();
        assert!((pixel_correlation(&ramp, &darker).expect("not flat") - 1.0).abs() < 1e-12);
        let negative: Vec<f64> = ramp.iter().map(|v| 1.0 - v).collect();
        assert!((pixel_correlation(&ramp, &negative).expect("not flat") + 1.0).abs() < 1e-12);
    }

    #[test]
    fn variation_counts_both_directions() {
        assert_eq!(total_variation(&[0.0, 1.0, 0.0, 0.0], 2), (1.0 + 1.0) / 4.0);
        assert_eq!(total_variation(&[0.5; 12], 3), 0.0);
        assert_eq!(total_variation(&[0.25], 1), 0.0);
    }
}
