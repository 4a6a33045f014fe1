//! Given pairs of pictures: originals and guesses from two folders, and every metric of pictures on them.

use crate::data::corpus::local::picture_files;
use crate::data::{self, Picture};
use crate::encode::{Embeddings, Encoder};
use crate::measure::pairs::{Scored, judged, malformed, printable, resampling, shuffling};
use crate::measure::statistics::{Design, Table, Weights, bootstrap, mean};
use crate::measure::{
    Context, Direction, Error, Metric, PictureMetric, Spec, check_paired, identify, infer, other_pairings,
};
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Originals with one guess each, of one size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PicturePairs {
    /// The originals.
    pub truths: Vec<Picture>,
    /// The guesses, in the originals' order, each as large as its original.
    pub guesses: Vec<Picture>,
    /// Guesses that had another size and were resized.
    pub resized: usize,
}

/// Whether `path` is a folder with at least as many pictures as texts in it.
///
/// # Errors
/// When the folder cannot be read.
pub fn is_album(path: &Path) -> Result<bool, Error> {
    Ok(path.is_dir() && !picture_files(path)?.is_empty())
}

impl PicturePairs {
    /// Reads two folders of pictures.
    ///
    /// They are paired by path without extension (`a/1.jpg` with `a/1.png`); where the two folders have no name in
    /// common, by order. A guess of another size is resized to its original's.
    ///
    /// # Errors
    /// When a file is no picture, a name stands twice, or a picture is left without a partner.
    pub fn read(truth: &Path, guess: &Path) -> Result<Self, Error> {
        let (truths, guesses) = (side(truth)?, side(guess)?);
        let paired: Vec<PathBuf> = if truths.keys().any(|name| guesses.contains_key(name)) {
            let unmatched = |name: &str, side| Error::Unmatched {
                truths: truths.len(),
                guesses: guesses.len(),
                name: printable(name),
                side,
            };
            if let Some(name) = guesses.keys().find(|name| !truths.contains_key(*name)) {
                return Err(unmatched(name, "guesses"));
            }
            let partner = |name: &String| guesses.get(name).cloned().ok_or_else(|| unmatched(name, "originals"));
            truths.keys().map(partner).collect::<Result<_, _>>()?
        } else {
            check_paired(truths.len(), guesses.len())?;
            guesses.into_values().collect()
        };
        let decoded = |paths: Vec<PathBuf>| -> Result<Vec<Picture>, data::Error> {
            paths.par_iter().map(|path| Picture::open(path)).collect()
        };
        Ok(Self::new(decoded(truths.into_values().collect())?, decoded(paired)?))
    }

    /// Pairs pictures that are in memory already.
    ///
    /// # Panics
    /// When the counts differ.
    pub fn new(truths: Vec<Picture>, guesses: Vec<Picture>) -> Self {
        assert_eq!(truths.len(), guesses.len(), "one guess for each original");
        let sizes = |p: &Picture| (p.width(), p.height());
        let resized = truths.iter().zip(&guesses).filter(|(truth, guess)| sizes(truth) != sizes(guess)).count();
        let guesses = truths.iter().zip(guesses).map(|(truth, guess)| guess.resized(truth.width(), truth.height()));
        Self { guesses: guesses.collect(), truths, resized }
    }
}

/// The pictures of a folder by path without extension.
fn side(root: &Path) -> Result<BTreeMap<String, PathBuf>, Error> {
    let mut named = BTreeMap::new();
    for (name, path) in picture_files(root)? {
        let stem = name.rsplit_once('.').map_or(name.as_str(), |(stem, _)| stem).to_owned();
        if named.insert(stem.clone(), path).is_some() {
            let why = format!("two pictures are called `{}`; keep one of them", printable(&stem));
            return Err(malformed(root, None, &why).into());
        }
    }
    if named.is_empty() {
        let why = "holds no picture; give a folder of PNG, JPEG, WebP, GIF, BMP or TIFF files, like the other side";
        return Err(malformed(root, None, why).into());
    }
    Ok(named)
}

/// Scores pairs with every metric of pictures; a judge adds its cosine, the leak, ranks and choices.
///
/// All metrics share one stream of resamples and one of shuffles, as for texts.
///
/// # Errors
/// When the judge fails, or reads no pictures.
pub fn score_pictures(pairs: &PicturePairs, judge: Option<&dyn Encoder>) -> Result<Vec<Scored>, Error> {
    let truths: Vec<&Picture> = pairs.truths.iter().collect();
    let guesses: Vec<&Picture> = pairs.guesses.iter().collect();
    let documents: Vec<u32> = (0..truths.len() as u32).collect();
    let design = Design::clustered(&documents, 1);
    let met = other_pairings(&documents, &mut shuffling());
    let mut scored = Vec::new();
    if let Some(judge) = judge {
        let spec = super::Cosine::new("judge_cosine", judge).spec();
        let (truths, guesses) = (judge.encode_pictures(&truths)?, judge.encode_pictures(&guesses)?);
        judged(&truths, &guesses, &documents, &design, &spec, &mut scored)?;
        choices(&truths, &guesses, &design, &spec, &mut scored)?;
    }
    for kind in PictureMetric::pixels() {
        let metric = kind.build(&Context::default())?;
        let scores = metric.score(&truths, &guesses)?;
        let floor = floor(&*metric, pairs, &met)?;
        scored.push(Scored::of_targets(metric.spec(), &scores, &floor, &design)?);
        if kind == PictureMetric::Mse {
            scored.push(psnr(&scores, &floor, &design)?);
        }
    }
    Ok(scored)
}

/// What the guesses score against other originals, at the sizes of these: the mean over the pairings of each guess.
fn floor(
    metric: &dyn Metric<Picture>,
    pairs: &PicturePairs,
    met: &[(usize, usize)],
) -> Result<Vec<Option<f64>>, Error> {
    /// Pairings that are in memory at a time, for originals of several sizes.
    const WAVE: usize = 256;
    let mut sums = vec![(0.0, 0.0); pairs.truths.len()];
    for wave in met.chunks(WAVE) {
        let truths: Vec<&Picture> = wave.iter().map(|&(_, truth)| &pairs.truths[truth]).collect();
        let guesses: Vec<Picture> = wave
            .iter()
            .zip(&truths)
            .map(|(&(guess, _), truth)| pairs.guesses[guess].resized(truth.width(), truth.height()))
            .collect();
        let scores = metric.score(&truths, &guesses.iter().collect::<Vec<_>>())?;
        for (&(guess, _), score) in wave.iter().zip(scores) {
            if let Some(score) = score {
                sums[guess].0 += score;
                sums[guess].1 += 1.0;
            }
        }
    }
    Ok(sums.into_iter().map(|(sum, count)| (count > 0.0).then(|| sum / count)).collect())
}

/// The ratio of the mean error; resamples weigh the error of each pair.
fn psnr(errors: &[Option<f64>], floor: &[Option<f64>], design: &Design) -> Result<Scored, Error> {
    let (errors, floor) = (Table::one(errors)?, Table::one(floor)?);
    let spec = Spec {
        id: "psnr",
        version: 1,
        unit: "dB",
        low: 0.0,
        high: super::pixel::MOST_PSNR_DB,
        direction: Direction::HigherLeaksMore,
        signature: "of:mean_mse|peak:1".to_owned(),
    };
    let statistic = |weights: &Weights| errors.mean(weights).map(super::psnr_db);
    let estimate = bootstrap(&statistic, design, &mut resampling()).map(|b| b.estimate(Some((spec.low, spec.high))));
    let floor = floor.mean(&design.once()).map(super::psnr_db);
    Ok(Scored::new(spec, estimate, errors.n(), floor))
}

/// How often a guess is nearer to its own original than to one other, and the bits that its rank is worth above chance.
fn choices(
    truths: &Embeddings,
    guesses: &Embeddings,
    design: &Design,
    spec: &Spec,
    scored: &mut Vec<Scored>,
) -> Result<(), Error> {
    let candidates = truths.len();
    if candidates < 2 {
        return Ok(());
    }
    let two_way = identify::matched_wins(guesses, truths, 2)?;
    let bits: Vec<Option<f64>> = identify::matched(guesses, truths)?
        .into_iter()
        .map(|rank| Some(infer::exposure_bits(rank, candidates) - infer::chance_exposure_bits(candidates)))
        .collect();
    let chance = infer::chance_exposure_bits(candidates);
    for (id, unit, ties, scores, range, floor) in [
        ("matched_two_way", "share", "half", two_way, (0.0, 1.0), 0.5),
        ("matched_bits", "bits", "worst", bits, (-chance, (candidates as f64).log2() - chance), 0.0),
    ] {
        let signature = format!("{}|of:{candidates}|ties:{ties}", spec.signature);
        let spec = Spec { id, unit, low: range.0, high: range.1, signature, ..spec.clone() };
        let table = Table::one(&scores)?;
        let estimate = mean(&table, design, range, &mut resampling());
        scored.push(Scored::new(spec, estimate, table.n(), Some(floor)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Keep;
    use crate::data::corpus::toy_pictures;
    use crate::encode::{self, EncoderInfo};
    use crate::error::Exit;

    fn toys(n: usize) -> Vec<Picture> {
        let keep = Keep { side_px: 16, ..Keep::default() };
        let corpus = toy_pictures::generate(0, &keep).expect("pictures");
        corpus.records.into_iter().step_by(1600 / n).take(n).filter_map(|record| record.picture).collect()
    }

    fn mixed(a: &Picture, b: &Picture) -> Picture {
        let rgb: Vec<u8> = a.rgb().iter().zip(b.rgb()).map(|(&a, &b)| a / 2 + b / 2).collect();
        Picture::new(a.width(), a.height(), rgb)
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
            Embeddings::new(pictures.iter().flat_map(|p| p.unit()).map(|v| v - 0.5).collect(), 3 * 16 * 16)
        }
    }

    #[test]
    fn every_metric_stands_with_interval_and_floor() {
        let truths = toys(40);
        let guesses = truths.iter().zip(truths.iter().skip(1).chain(&truths)).map(|(a, b)| mixed(a, b)).collect();
        let pairs = PicturePairs::new(truths, guesses);
        let judge =
            Eyes(EncoderInfo { name: "eyes".into(), dim: 768, max_len_tokens: 0, fingerprint: "00".into(), toy: true });
        let scored = score_pictures(&pairs, Some(&judge)).expect("paired");
        let ids: Vec<&str> = scored.iter().map(|s| s.metric).collect();
        assert_eq!(
            ids.join(" "),
            "judge_leak judge_cosine matched_top1 matched_top10 matched_mrr matched_two_way matched_bits mse psnr mean_psnr \
             pixel_correlation ssim"
        );
        for s in &scored {
            let (value, low, high) = (s.value.expect(s.metric), s.low.expect(s.metric), s.high.expect(s.metric));
            assert!(low <= value && value <= high, "{} {low} {value} {high}", s.metric);
            let floor = s.floor.expect("other originals");
            let better = if s.direction == Direction::LowerLeaksMore { value < floor } else { value > floor };
            assert!(better, "{} {value} against its floor {floor}", s.metric);
            assert_eq!(s.n, 40);
        }
        let by = |id: &str| scored.iter().find(|s| s.metric == id).and_then(|s| s.value).expect("scored");
        assert!((by("psnr") + 10.0 * by("mse").log10()).abs() < 1e-9);
        assert!(by("mean_psnr") > by("psnr"), "Jensen");
        assert_eq!(scored, score_pictures(&pairs, Some(&judge)).expect("paired"));
    }

    #[test]
    fn a_guess_of_another_size_is_resized_and_counted() {
        let truths = toys(6);
        let mut guesses = truths.clone();
        guesses[2] = guesses[2].resized(40, 40);
        let mut truths_of_two_sizes = truths.clone();
        truths_of_two_sizes[5] = truths[5].resized(24, 20);
        for (truths, resized) in [(truths, 1), (truths_of_two_sizes, 2)] {
            let pairs = PicturePairs::new(truths, guesses.clone());
            assert_eq!(pairs.resized, resized);
            for s in score_pictures(&pairs, None).expect("one size each") {
                assert!(s.value.is_some() && s.floor.is_some(), "{}", s.metric);
            }
        }
    }

    #[test]
    fn one_pair_has_values_but_no_floor() {
        let two = toys(2);
        let pairs = PicturePairs::new(vec![two[0].clone()], vec![mixed(&two[0], &two[1])]);
        for s in score_pictures(&pairs, None).expect("paired") {
            assert!(s.value.is_some() && s.floor.is_none() && s.low.is_none(), "{}", s.metric);
        }
    }

    fn folder(pictures: &[(&str, &Picture)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for (name, picture) in pictures {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().expect("inside the folder")).expect("writable");
            picture.save_png(&path).expect("writable");
        }
        folder
    }

    #[test]
    fn folders_are_paired_by_name_and_else_by_order() {
        let toys = toys(3);
        let truth = folder(&[("b.png", &toys[1]), ("a/1.png", &toys[0])]);
        let named = folder(&[("a/1.jpg", &toys[0]), ("b.gif", &toys[2])]);
        let pairs = PicturePairs::read(truth.path(), named.path()).expect("two each");
        assert_eq!(pairs.truths, [toys[0].clone(), toys[1].clone()]);
        assert_eq!(pairs.guesses, [toys[0].clone(), toys[2].clone()]);
        let ordered = folder(&[("x.png", &toys[2]), ("y.png", &toys[0])]);
        let pairs = PicturePairs::read(truth.path(), ordered.path()).expect("two each");
        assert_eq!(pairs.guesses, [toys[2].clone(), toys[0].clone()]);
    }

    #[test]
    fn what_has_no_partner_is_named() {
        let toys = toys(3);
        let truth = folder(&[("a.png", &toys[0]), ("b.png", &toys[1])]);
        for (guesses, said) in [
            (folder(&[("a.png", &toys[0])]), "2 originals but 1 guesses, and `b` is only among the originals"),
            (folder(&[("a.png", &toys[0]), ("c.png", &toys[0])]), "`c` is only among the guesses"),
            (folder(&[("x.png", &toys[0])]), "2 originals but 1 guesses; give one guess"),
            (folder(&[("a.png", &toys[0]), ("a.jpg", &toys[0])]), "two pictures are called `a`"),
            (folder(&[]), "holds no picture"),
        ] {
            let error = PicturePairs::read(truth.path(), guesses.path()).expect_err(said);
            assert!(error.to_string().contains(said), "{error}");
            assert_eq!(error.exit(), Exit::Input);
        }
        assert!(is_album(truth.path()).expect("readable"));
        assert!(!is_album(Path::new("Cargo.toml")).expect("readable"));
    }
}
