//! Measures: how close a guess is to its original, what chance would give, and how sure we are.
//!
//! ```text
//! guesses, originals ──► scores, one for each target ──► value + 95 % interval
//!          │                        ▲                         ▲
//!          └──► floor: the same guesses against other originals, same resamples
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | [`text`] | overlap of words and characters |
//! | [`image`] | pixels: error, correlation, structure |
//! | [`similarity`] | cosine under an encoder, its floor, the leak |
//! | [`identify`] | ranks among candidates: identified, matched |
//! | [`utility`] | what protected vectors are still good for |
//! | [`statistics`] | clustered bootstrap, exact binomial bounds, tails |
//! | [`infer`] | balanced accuracy, ROC area, true positives at few false ones, exposure |
//! | [`pairs`] | every text metric on given pairs, as `stitchback score` prints them; [`image::pairs`] for pictures |
//!
//! Every score is one number for each target, missing where it is undefined and never 0 for that reason; aggregation and
//! intervals are [`statistics`]' business alone. To add a text metric: a function in [`text`], a variant of
//! [`MetricKind`], an arm in its `build`, a line in `examples`, golden values in `tests/golden/`. Metrics of pictures are
//! the same with [`image`] and [`PictureMetric`].

pub mod identify;
pub mod image;
pub mod infer;
pub mod pairs;
pub mod similarity;
pub mod statistics;
pub mod text;
pub mod utility;

use crate::data::Picture;
use crate::encode::Encoder;
use crate::error::Exit;
use crate::seed::Stream;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

/// Which way a metric points.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// A higher value means that more of the original came back.
    HigherLeaksMore,
    /// A lower value means that more of the original came back.
    LowerLeaksMore,
    /// A higher value means that the release is more useful.
    HigherIsMoreUseful,
}

/// A value with its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The point estimate.
    pub value: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// What a metric's number means.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Spec {
    /// Report column, and name of the variant in snake case.
    pub id: &'static str,
    /// Raised when the same input can give another score.
    pub version: u32,
    /// `share`, `points`, `words` or `cosine`; of pictures also `dB`, `correlation` and `squared_error`.
    pub unit: &'static str,
    /// Lowest possible value.
    pub low: f64,
    /// Highest possible value; infinite for distances.
    pub high: f64,
    /// Which way it points.
    pub direction: Direction,
    /// The choices that change the number: tokeniser, smoothing, encoder.
    pub signature: String,
}

/// A score of guesses against their originals: texts, or pictures as `Metric<Picture>`.
pub trait Metric<R: ?Sized = str>: Send + Sync {
    /// Unit, range, direction, signature.
    fn spec(&self) -> Spec;

    /// One score for each target; `None` where the metric is undefined for the original.
    ///
    /// # Errors
    /// [`Error::Unpaired`] when the counts differ, [`Error::Shape`] when the sizes of two pictures do; the encoder's error
    /// for metrics that encode.
    fn score(&self, truths: &[&R], guesses: &[&R]) -> Result<Vec<Option<f64>>, Error>;
}

/// Encoders that metrics may look through.
#[derive(Clone, Copy, Default)]
pub struct Context<'a> {
    /// The encoder under attack.
    pub victim: Option<&'a dyn Encoder>,
    /// An encoder that is not the victim.
    pub judge: Option<&'a dyn Encoder>,
}

/// The registry of text metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MetricKind {
    /// Cosine of guess and original under the judge.
    JudgeCosine,
    /// Cosine of guess and original under the victim encoder: saturates, stands beside the judge's.
    VictimCosine,
    /// F1 of words, repeats counted.
    TokenF1,
    /// F1 of distinct words.
    TokenSetF1,
    /// F1 of words that are not function words.
    ContentWordF1,
    /// ROUGE-1.
    #[serde(rename = "rouge_1")]
    Rouge1,
    /// ROUGE-L.
    RougeL,
    /// Sentence BLEU, averaged over targets.
    SentenceBleu,
    /// chrF, averaged over targets.
    Chrf,
    /// Equal up to case, punctuation and spacing.
    ExactMatch,
    /// Word insertions, deletions and substitutions.
    WordEditDistance,
}

impl MetricKind {
    /// One valid configuration of each member.
    pub fn examples() -> Vec<Self> {
        vec![
            Self::JudgeCosine,
            Self::VictimCosine,
            Self::TokenF1,
            Self::TokenSetF1,
            Self::ContentWordF1,
            Self::Rouge1,
            Self::RougeL,
            Self::SentenceBleu,
            Self::Chrf,
            Self::ExactMatch,
            Self::WordEditDistance,
        ]
    }

    /// The metrics that look through no encoder.
    pub fn text_only() -> impl Iterator<Item = Self> {
        Self::examples().into_iter().filter(|kind| !matches!(kind, Self::JudgeCosine | Self::VictimCosine))
    }

    /// The metric, ready to score.
    ///
    /// # Errors
    /// [`Error::NoEncoder`] when `context` lacks the encoder that the metric looks through.
    pub fn build<'a>(self, context: &Context<'a>) -> Result<Box<dyn Metric + 'a>, Error> {
        Ok(match self {
            Self::JudgeCosine => {
                let encoder = context.judge.ok_or(Error::NoEncoder { metric: "judge_cosine", role: "judge" })?;
                Box::new(similarity::Cosine::new("judge_cosine", encoder))
            }
            Self::VictimCosine => {
                let encoder = context.victim.ok_or(Error::NoEncoder { metric: "victim_cosine", role: "victim" })?;
                Box::new(similarity::Cosine::new("victim_cosine", encoder))
            }
            Self::TokenF1 => Box::new(text::token_f1()),
            Self::TokenSetF1 => Box::new(text::token_set_f1()),
            Self::ContentWordF1 => Box::new(text::content_word_f1()),
            Self::Rouge1 => Box::new(text::rouge_1()),
            Self::RougeL => Box::new(text::rouge_l()),
            Self::SentenceBleu => Box::new(text::sentence_bleu()),
            Self::Chrf => Box::new(text::chrf()),
            Self::ExactMatch => Box::new(text::exact_match()),
            Self::WordEditDistance => Box::new(text::word_edit_distance()),
        })
    }
}

/// The registry of metrics of pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PictureMetric {
    /// Cosine of guess and original under the judge.
    JudgeCosine,
    /// Cosine of guess and original under the victim encoder.
    VictimCosine,
    /// Mean squared error.
    Mse,
    /// Peak signal-to-noise ratio of each pair, averaged over targets.
    MeanPsnr,
    /// Pearson correlation of all values.
    PixelCorrelation,
    /// Structural similarity.
    Ssim,
}

impl PictureMetric {
    /// One valid configuration of each member.
    pub fn examples() -> Vec<Self> {
        vec![Self::JudgeCosine, Self::VictimCosine, Self::Mse, Self::MeanPsnr, Self::PixelCorrelation, Self::Ssim]
    }

    /// The metrics that look through no encoder.
    pub fn pixels() -> impl Iterator<Item = Self> {
        Self::examples().into_iter().filter(|kind| !matches!(kind, Self::JudgeCosine | Self::VictimCosine))
    }

    /// The metric, ready to score.
    ///
    /// # Errors
    /// [`Error::NoEncoder`] when `context` lacks the encoder that the metric looks through.
    pub fn build<'a>(self, context: &Context<'a>) -> Result<Box<dyn Metric<Picture> + 'a>, Error> {
        Ok(match self {
            Self::JudgeCosine => {
                let encoder = context.judge.ok_or(Error::NoEncoder { metric: "judge_cosine", role: "judge" })?;
                Box::new(image::Cosine::new("judge_cosine", encoder))
            }
            Self::VictimCosine => {
                let encoder = context.victim.ok_or(Error::NoEncoder { metric: "victim_cosine", role: "victim" })?;
                Box::new(image::Cosine::new("victim_cosine", encoder))
            }
            Self::Mse => Box::new(image::mean_squared_error()),
            Self::MeanPsnr => Box::new(image::mean_psnr()),
            Self::PixelCorrelation => Box::new(image::correlation()),
            Self::Ssim => Box::new(image::structural_similarity()),
        })
    }
}

/// How many other originals each guess meets in [`shuffled_floor`].
const FLOOR_PAIRINGS: usize = 10;

/// What the guesses score against originals that they were not made for, one value for each target.
///
/// Each guess meets up to ten originals of other clusters, and every original is met equally often: the targets are put
/// in a random circle, and guess `i` meets the originals 1, 2, ... steps ahead. Targets with no other cluster to meet
/// have no floor. For cosines use [`similarity::judge`], which takes the exact mean over all pairings.
pub fn shuffled_floor<R: ?Sized>(
    metric: &dyn Metric<R>,
    truths: &[&R],
    guesses: &[&R],
    clusters: &[u32],
    rng: &mut Stream,
) -> Result<Vec<Option<f64>>, Error> {
    check_paired(truths.len(), guesses.len())?;
    check_clusters(truths.len(), clusters)?;
    let met = other_pairings(clusters, rng);
    let shuffled_truths: Vec<&R> = met.iter().map(|&(_, truth)| truths[truth]).collect();
    let shuffled_guesses: Vec<&R> = met.iter().map(|&(guess, _)| guesses[guess]).collect();
    let scores = metric.score(&shuffled_truths, &shuffled_guesses)?;
    let mut sums = vec![(0.0, 0.0); truths.len()];
    for (&(guess, _), score) in met.iter().zip(scores) {
        if let Some(score) = score {
            sums[guess].0 += score;
            sums[guess].1 += 1.0;
        }
    }
    Ok(sums.into_iter().map(|(sum, count)| (count > 0.0).then(|| sum / count)).collect())
}

/// `(guess, original)` pairs of different clusters, as [`shuffled_floor`] describes them.
fn other_pairings(clusters: &[u32], rng: &mut Stream) -> Vec<(usize, usize)> {
    let n = clusters.len();
    let mut circle: Vec<usize> = (0..n).collect();
    circle.shuffle(rng);
    let mut met = Vec::with_capacity(n * FLOOR_PAIRINGS);
    for (at, &guess) in circle.iter().enumerate() {
        let ahead = (1..n).map(|step| circle[(at + step) % n]);
        let others = ahead.filter(|&truth| clusters[truth] != clusters[guess]).take(FLOOR_PAIRINGS);
        met.extend(others.map(|truth| (guess, truth)));
    }
    met
}

fn check_paired(truths: usize, guesses: usize) -> Result<(), Error> {
    if truths == guesses { Ok(()) } else { Err(Error::Unpaired { truths, guesses }) }
}

fn check_clusters(targets: usize, clusters: &[u32]) -> Result<(), Error> {
    if targets == clusters.len() {
        Ok(())
    } else {
        Err(Error::Shape(format!("{targets} targets but {} cluster labels", clusters.len())))
    }
}

/// Why pairs cannot be scored.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Truths and guesses differ in number.
    #[error("{truths} originals but {guesses} guesses; give one guess for each original, in the same order")]
    Unpaired {
        /// Originals given.
        truths: usize,
        /// Guesses given.
        guesses: usize,
    },
    /// Ids or file names that stand on one side only.
    #[error(
        "{truths} originals but {guesses} guesses, and `{name}` is only among the {side}; \
         give one guess for each original, under the same id or file name"
    )]
    Unmatched {
        /// Originals given.
        truths: usize,
        /// Guesses given.
        guesses: usize,
        /// The first id or file name without a partner, without control characters.
        name: String,
        /// `originals` or `guesses`.
        side: &'static str,
    },
    /// Tables that do not fit together.
    #[error("shape: {0}")]
    Shape(String),
    /// A score that is not a number; a missing score must be `None`.
    #[error("the score of target {target} (seed {seed}) is not a finite number; leave it out instead")]
    NotFinite {
        /// Index of the target.
        target: usize,
        /// Index of the seed.
        seed: usize,
    },
    /// A metric that looks through an encoder was built without it.
    #[error("metric `{metric}` needs a {role} encoder; name one under `encode` or with --judge")]
    NoEncoder {
        /// The metric.
        metric: &'static str,
        /// `judge` or `victim`.
        role: &'static str,
    },
    /// A file of originals or guesses cannot be used.
    #[error(transparent)]
    Data(#[from] crate::data::Error),
    /// A judge failed.
    #[error(transparent)]
    Encode(#[from] crate::encode::Error),
}

impl Error {
    /// A missing encoder is a usage error, a broken table is our fault, the rest is bad input.
    pub fn exit(&self) -> Exit {
        match self {
            Error::NoEncoder { .. } => Exit::Usage,
            Error::Shape(_) | Error::NotFinite { .. } => Exit::Internal,
            Error::Unpaired { .. } | Error::Unmatched { .. } => Exit::Input,
            Error::Data(e) => e.exit(),
            Error::Encode(e) => e.exit(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::{Embeddings, EncoderInfo};
    use crate::seed;

    /// Counts of each letter: a real, if crude, encoder for the contract tests.
    struct Letters(EncoderInfo);

    impl Letters {
        fn new() -> Self {
            Self(EncoderInfo {
                name: "letters".into(),
                dim: 26,
                max_len_tokens: 1000,
                fingerprint: "0123456789abcdef".into(),
                toy: true,
            })
        }
    }

    impl Encoder for Letters {
        fn info(&self) -> &EncoderInfo {
            &self.0
        }

        fn encode(&self, texts: &[&str]) -> Result<Embeddings, crate::encode::Error> {
            let mut values = vec![0.0; 26 * texts.len()];
            for (row, text) in values.chunks_exact_mut(26).zip(texts) {
                for b in text.bytes().filter(u8::is_ascii_lowercase) {
                    row[usize::from(b - b'a')] += 1.0;
                }
            }
            Embeddings::new(values, 26)
        }
    }

    const TRUTHS: [&str; 4] = [
        "anna smith lives in boston",
        "the invoice is due on friday",
        "a tennis ball rolled away",
        "blood test results",
    ];
    const GUESSES: [&str; 4] = ["anna lives in boston", "the bill is due on monday", "the ball rolled under a car", ""];

    fn every_metric(check: impl Fn(MetricKind, &dyn Metric)) {
        let letters = Letters::new();
        let context = Context { victim: Some(&letters), judge: Some(&letters) };
        for kind in MetricKind::examples() {
            check(kind, &*kind.build(&context).expect("both encoders are there"));
        }
    }

    #[test]
    fn the_name_in_a_study_is_the_id_in_a_record() {
        every_metric(|kind, metric| {
            let name = serde_json::to_value(kind).expect("serialises");
            assert_eq!(name, metric.spec().id);
            assert_eq!(serde_json::from_value::<MetricKind>(name).expect("reads back"), kind);
        });
    }

    #[test]
    fn scores_are_one_for_each_target_in_the_declared_range() {
        every_metric(|_, metric| {
            let spec = metric.spec();
            let scores = metric.score(&TRUTHS, &GUESSES).expect("paired");
            assert_eq!(scores.len(), 4);
            assert!(scores.iter().flatten().all(|s| (spec.low..=spec.high).contains(s)), "{} {scores:?}", spec.id);
            assert!(scores[..3].iter().all(Option::is_some), "{}", spec.id);
        });
    }

    #[test]
    fn an_original_against_itself_is_best() {
        every_metric(|_, metric| {
            let spec = metric.spec();
            let best = if spec.direction == Direction::HigherLeaksMore { spec.high } else { spec.low };
            for score in metric.score(&TRUTHS, &TRUTHS).expect("paired") {
                assert!((score.expect("defined") - best).abs() < 1e-9, "{}", spec.id);
            }
        });
    }

    #[test]
    fn a_metric_without_its_encoder_is_a_usage_error() {
        let error = MetricKind::JudgeCosine.build(&Context::default()).err().expect("no judge");
        assert_eq!(error.exit(), Exit::Usage);
        assert!(error.to_string().contains("judge_cosine"), "{error}");
    }

    #[test]
    fn the_floor_never_pairs_a_guess_with_its_own_document() {
        let truths: Vec<String> = (0..40).map(|i| format!("word{} tail{i}", i / 2)).collect();
        let truths: Vec<&str> = truths.iter().map(String::as_str).collect();
        let metric = text::token_f1();
        let floor = |clusters: &[u32]| {
            shuffled_floor(&metric, &truths, &truths, clusters, &mut seed::stream(1, "floor", "shuffle")).expect("fits")
        };
        // Neighbours share half of their words; only their own documents hide it.
        assert_eq!(floor(&(0..40).map(|i| i / 2).collect::<Vec<u32>>()), vec![Some(0.0); 40]);
        assert!(floor(&(0..40).collect::<Vec<u32>>()).iter().flatten().sum::<f64>() > 0.0);
        assert_eq!(floor(&[7; 40]), vec![None; 40]);
    }

    #[test]
    fn the_floor_of_a_constant_guess_is_its_score() {
        let clusters: Vec<u32> = (0..4).collect();
        let metric = text::token_f1();
        let constant = ["the ball is in boston"; 4];
        let mut rng = seed::stream(1, "floor", "shuffle");
        let floor = shuffled_floor(&metric, &TRUTHS, &constant, &clusters, &mut rng).expect("fits");
        let own = metric.score(&TRUTHS, &constant).expect("paired");
        let mean = |scores: &[Option<f64>]| scores.iter().flatten().sum::<f64>() / 4.0;
        assert!((mean(&floor) - mean(&own)).abs() < 1e-12);
    }
}
