//! Pixel metrics: how close two pictures are, pixel by pixel or window by window.
//!
//! They say little about what a picture shows: a blurred mean of many pictures wins them all. They stand beside a
//! judge's similarity and never carry a verdict. [`total_variation`] measures one picture alone.
//!
//! Two pictures of different sizes have no distance: `score` resizes the guess to its original's size first and says so.

pub mod pairs;
mod pixel;
mod ssim;

pub use pixel::{mse, pixel_correlation, psnr_db, total_variation};
pub use ssim::{Window, ssim};

use super::{Direction, Error, Metric, Spec, check_paired, similarity};
use crate::data::Picture;
use crate::encode::Encoder;
use rayon::prelude::*;

/// Values of a picture, one channel after the other.
///
/// # Shapes
/// Three vectors of `height * width`, row-major, in `[0, 1]`.
pub fn planes(picture: &Picture) -> [Vec<f64>; 3] {
    std::array::from_fn(|channel| {
        picture.rgb().iter().skip(channel).step_by(3).map(|&byte| f64::from(byte) / 255.0).collect()
    })
}

/// A metric of one pair of pictures of one size.
pub(super) struct Pixels {
    pub(super) spec: Spec,
    pub(super) of_pair: fn(&Picture, &Picture) -> Option<f64>,
}

impl Metric<Picture> for Pixels {
    fn spec(&self) -> Spec {
        self.spec.clone()
    }

    fn score(&self, truths: &[&Picture], guesses: &[&Picture]) -> Result<Vec<Option<f64>>, Error> {
        check_paired(truths.len(), guesses.len())?;
        let sizes = |p: &Picture| (p.width(), p.height());
        if let Some(at) = (0..truths.len()).find(|&at| sizes(truths[at]) != sizes(guesses[at])) {
            let ((w, h), (v, g)) = (sizes(truths[at]), sizes(guesses[at]));
            return Err(Error::Shape(format!("picture {at} is {w}x{h}, its guess {v}x{g}; resize the guess")));
        }
        Ok(truths.par_iter().zip(guesses).map(|(truth, guess)| (self.of_pair)(truth, guess)).collect())
    }
}

const MSE: Spec = Spec {
    id: "mse",
    version: 1,
    unit: "squared_error",
    low: 0.0,
    high: 1.0,
    direction: Direction::LowerLeaksMore,
    signature: String::new(),
};

/// Mean squared error of values in `[0, 1]`.
pub(super) fn mean_squared_error() -> Pixels {
    Pixels { spec: Spec { signature: "values:0..1".to_owned(), ..MSE }, of_pair: |a, b| Some(squared_error(a, b)) }
}

/// Peak signal-to-noise ratio of each pair: its mean is not the ratio of the mean error.
pub(super) fn mean_psnr() -> Pixels {
    let spec = Spec {
        id: "mean_psnr",
        unit: "dB",
        high: pixel::MOST_PSNR_DB,
        direction: Direction::HigherLeaksMore,
        signature: format!("of:each_pair|at_most:{}", pixel::MOST_PSNR_DB),
        ..MSE
    };
    Pixels { spec, of_pair: |a, b| Some(psnr_db(squared_error(a, b))) }
}

/// Pearson correlation of all values of two pictures.
pub(super) fn correlation() -> Pixels {
    let spec = Spec {
        id: "pixel_correlation",
        unit: "correlation",
        low: -1.0,
        direction: Direction::HigherLeaksMore,
        signature: "pearson|channels:flattened".to_owned(),
        ..MSE
    };
    Pixels { spec, of_pair: |a, b| pixel_correlation(&planes(a).concat(), &planes(b).concat()) }
}

/// Structural similarity.
pub(super) fn structural_similarity() -> Pixels {
    let spec = Spec {
        id: "ssim",
        unit: "share",
        low: -1.0,
        direction: Direction::HigherLeaksMore,
        signature: "window:gauss11|sigma:1.5|k:.01,.03|cov:population|border:cut5|channels:mean".to_owned(),
        ..MSE
    };
    let of_pair = |a: &Picture, b: &Picture| {
        let (width, height) = (a.width() as usize, a.height() as usize);
        let channels = planes(a).into_iter().zip(planes(b));
        let scores: Option<Vec<f64>> =
            channels.map(|(a, b)| ssim(&a, &b, width, height, &Window::gaussian())).collect();
        scores.map(|scores| scores.iter().sum::<f64>() / 3.0)
    };
    Pixels { spec, of_pair }
}

/// Cosine of two pictures under an encoder that reads pictures.
pub(super) struct Cosine<'a> {
    spec: Spec,
    encoder: &'a dyn Encoder,
}

impl<'a> Cosine<'a> {
    pub(super) fn new(id: &'static str, encoder: &'a dyn Encoder) -> Self {
        Self { spec: similarity::Cosine::new(id, encoder).spec(), encoder }
    }
}

impl Metric<Picture> for Cosine<'_> {
    fn spec(&self) -> Spec {
        self.spec.clone()
    }

    fn score(&self, truths: &[&Picture], guesses: &[&Picture]) -> Result<Vec<Option<f64>>, Error> {
        check_paired(truths.len(), guesses.len())?;
        similarity::cosines(&self.encoder.encode_pictures(truths)?, &self.encoder.encode_pictures(guesses)?)
    }
}

/// [`mse`] of two pictures of one size.
fn squared_error(a: &Picture, b: &Picture) -> f64 {
    mse(&planes(a).concat(), &planes(b).concat())
}

#[cfg(test)]
mod tests {
    use super::super::{Context, PictureMetric};
    use super::*;
    use crate::data::Keep;
    use crate::data::corpus::toy_pictures;
    use crate::encode::{self, Embeddings, EncoderInfo};
    use serde_json::Value;

    /// A test pattern of `(3, 32, 32)`: channel, row, column.
    fn pattern(value: impl Fn(f64, f64, f64) -> f64) -> [Vec<f64>; 3] {
        std::array::from_fn(|c| (0..32 * 32).map(|at| value((at % 32) as f64, (at / 32) as f64, c as f64)).collect())
    }

    fn a() -> [Vec<f64>; 3] {
        pattern(|x, y, c| 0.5 + 0.5 * (0.3 * x + 0.2 * y + c).sin())
    }

    fn b() -> [Vec<f64>; 3] {
        pattern(|x, y, c| {
            let a = 0.5 + 0.5 * (0.3 * x + 0.2 * y + c).sin();
            (a + 0.1 * (0.5 * x - 0.4 * y + 2.0 * c).cos()).clamp(0.0, 1.0)
        })
    }

    fn grey(planes: &[Vec<f64>; 3]) -> Vec<f64> {
        (0..planes[0].len()).map(|i| 0.299 * planes[0][i] + 0.587 * planes[1][i] + 0.114 * planes[2][i]).collect()
    }

    fn mean_ssim(a: &[Vec<f64>; 3], b: &[Vec<f64>; 3], window: &Window) -> f64 {
        a.iter().zip(b).map(|(a, b)| ssim(a, b, 32, 32, window).expect("large enough")).sum::<f64>() / 3.0
    }

    #[test]
    fn values_agree_with_scikit_image() {
        let golden: Value = serde_json::from_str(include_str!("../../../tests/golden/image_metrics.json"))
            .expect("the golden file parses");
        let (a, b, flat) = (a(), b(), pattern(|_, _, _| 0.5));
        let gauss = Window::gaussian();
        let error = mse(&a.concat(), &b.concat());
        let flat_error = mse(&a.concat(), &flat.concat());
        for (name, got) in [
            ("mse", error),
            ("psnr", psnr_db(error)),
            ("ssim", mean_ssim(&a, &b, &gauss)),
            ("ssim_channel_0", ssim(&a[0], &b[0], 32, 32, &gauss).expect("large enough")),
            ("ssim_channel_0_with_border", ssim(&a[0], &b[0], 32, 32, &gauss.with_border()).expect("large enough")),
            ("ssim_7x7_population", mean_ssim(&a, &b, &Window::uniform(7))),
            ("pixel_correlation", pixel_correlation(&a.concat(), &b.concat()).expect("not flat")),
            ("pixel_correlation_grey", pixel_correlation(&grey(&a), &grey(&b)).expect("not flat")),
            ("flat_mse", flat_error),
            ("flat_psnr", psnr_db(flat_error)),
            ("flat_ssim", mean_ssim(&a, &flat, &gauss)),
            ("total_variation", a.iter().map(|a| total_variation(a, 32)).sum::<f64>() / 3.0),
        ] {
            let want = golden[name].as_f64().unwrap_or_else(|| panic!("no golden `{name}`"));
            // Both sides sum a few thousand f64: 1e-9 is far above the rounding and far below any difference of method.
            assert!((got - want).abs() < 1e-9, "{name}: {got} {want}");
        }
    }

    /// Encodes a picture as its own values.
    struct Eyes(EncoderInfo);

    impl Encoder for Eyes {
        fn info(&self) -> &EncoderInfo {
            &self.0
        }

        fn encode(&self, _texts: &[&str]) -> Result<Embeddings, encode::Error> {
            unreachable!("no text here")
        }

        fn encode_pictures(&self, pictures: &[&Picture]) -> Result<Embeddings, encode::Error> {
            Embeddings::new(pictures.iter().flat_map(|p| p.unit()).collect(), 3 * 16 * 16)
        }
    }

    fn every_metric(check: impl Fn(PictureMetric, &dyn Metric<Picture>)) {
        let info = EncoderInfo {
            name: "eyes".into(),
            dim: 768,
            max_len_tokens: 0,
            fingerprint: "0123456789abcdef".into(),
            toy: true,
        };
        let eyes = Eyes(info);
        let context = Context { victim: Some(&eyes), judge: Some(&eyes) };
        for kind in PictureMetric::examples() {
            check(kind, &*kind.build(&context).expect("both encoders are there"));
        }
    }

    fn toys() -> Vec<Picture> {
        let keep = Keep { side_px: 16, ..Keep::default() };
        let corpus = toy_pictures::generate(0, &keep).expect("pictures");
        corpus.records.into_iter().step_by(100).filter_map(|record| record.picture).collect()
    }

    #[test]
    fn every_metric_keeps_its_name_its_range_and_its_best() {
        let (toys, white) = (toys(), Picture::new(16, 16, vec![255; 768]));
        let truths: Vec<&Picture> = toys.iter().collect();
        let guesses: Vec<&Picture> = toys.iter().skip(1).chain([&white]).collect();
        every_metric(|kind, metric| {
            let spec = metric.spec();
            let name = serde_json::to_value(kind).expect("serialises");
            assert_eq!(name, spec.id);
            assert_eq!(serde_json::from_value::<PictureMetric>(name).expect("reads back"), kind);
            let scores = metric.score(&truths, &guesses).expect("paired");
            assert_eq!(scores.len(), truths.len());
            assert!(scores.iter().flatten().all(|s| (spec.low..=spec.high).contains(s)), "{} {scores:?}", spec.id);
            assert!(scores[..4].iter().all(Option::is_some), "{}", spec.id);
            let best = if spec.direction == Direction::HigherLeaksMore { spec.high } else { spec.low };
            for score in metric.score(&truths, &truths).expect("paired") {
                assert!((score.expect("defined") - best).abs() < 1e-9, "{}", spec.id);
            }
            assert!(metric.score(&truths, &guesses[1..]).is_err(), "{}", spec.id);
        });
        let correlation = correlation().score(&[&white], &[&white]).expect("paired");
        assert_eq!(correlation, [None], "a constant picture correlates with nothing");
    }

    #[test]
    fn pictures_of_two_sizes_have_no_distance() {
        let (small, large) = (Picture::new(8, 8, vec![0; 192]), Picture::new(8, 9, vec![0; 216]));
        let error = mean_squared_error().score(&[&small], &[&large]).expect_err("two sizes");
        assert_eq!(error.to_string(), "shape: picture 0 is 8x8, its guess 8x9; resize the guess");
    }

    #[test]
    fn the_mean_of_ratios_is_not_the_ratio_of_the_mean() {
        let mean_of_ratios = f64::midpoint(psnr_db(0.01), psnr_db(0.04));
        assert!((mean_of_ratios - 16.9897).abs() < 1e-4, "{mean_of_ratios}");
        assert!((psnr_db(0.025) - 16.0206).abs() < 1e-4);
    }
}
