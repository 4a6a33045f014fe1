//! What all corpora of pictures share: decoding, squares of one size, duplicates, and counting.

use super::{Corpus, CorpusStats, count_documents, fingerprint};
use crate::data::clean::Keep;
use crate::data::{Error, Fit, Medium, Picture, Record};
use rayon::prelude::*;
use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;

/// How many files that are no pictures are named; the others are counted.
const NAMED: usize = 5;

/// The rules on decoded pictures, as statistics name them.
const SMALL: &str = "small";
const UNREADABLE: &str = "unreadable";

/// What a reader found, before anything is decoded.
pub(super) struct Draft<'a> {
    pub(super) name: String,
    pub(super) files: usize,
    /// How a picture becomes a square.
    pub(super) fit: Fit,
    /// Pictures that would have to be enlarged from less are dropped: the shorter side of what is cropped, the longer
    /// side of what is padded (inside its margins).
    pub(super) min_side_px: u32,
    /// What the reader itself left out, by reason.
    pub(super) dropped: BTreeMap<String, usize>,
    /// Records without their pictures, and where these are.
    pub(super) found: Vec<(Record, Source<'a>)>,
}

/// Where the bytes of a picture are.
pub(super) enum Source<'a> {
    Bytes(&'a [u8]),
    File(PathBuf),
}

/// Why a picture is left out.
enum Drop {
    Small,
    Unreadable(String),
}

/// Decodes in parallel, drops what is small, unreadable or there already, and counts.
///
/// # Errors
/// When two records have one id, or nothing is left.
pub(super) fn build(draft: Draft<'_>, keep: &Keep) -> Result<Corpus, Error> {
    let mut stats = CorpusStats {
        medium: Medium::Picture,
        files: draft.files,
        documents: count_documents(&draft.name, draft.found.iter().map(|(record, _)| record))?,
        sentences: draft.found.len() + draft.dropped.values().sum::<usize>(),
        dropped: draft.dropped,
        ..CorpusStats::default()
    };
    for rule in [SMALL, UNREADABLE] {
        stats.dropped.insert(rule.to_owned(), 0);
    }
    let framed: Vec<Result<Picture, Drop>> = draft
        .found
        .par_iter()
        .map(|(record, source)| {
            let picture = decoded(record, source).map_err(Drop::Unreadable)?;
            let scaled_side = match draft.fit {
                Fit::Crop => picture.width().min(picture.height()),
                Fit::Pad => {
                    let drawing = picture.trimmed();
                    drawing.width().max(drawing.height())
                }
            };
            if scaled_side < draft.min_side_px {
                return Err(Drop::Small);
            }
            Ok(picture.framed(keep.side_px, draft.fit))
        })
        .collect();
    let mut seen = HashSet::new();
    let mut records = Vec::with_capacity(framed.len());
    for ((record, _), picture) in draft.found.into_iter().zip(framed) {
        match picture {
            Ok(picture) if seen.insert(blake3::hash(picture.rgb())) => {
                records.push(Record { picture: Some(picture), ..record });
            }
            Ok(_) => stats.duplicates += 1,
            Err(Drop::Small) => *stats.dropped.entry(SMALL.to_owned()).or_default() += 1,
            Err(Drop::Unreadable(why)) => {
                *stats.dropped.entry(UNREADABLE.to_owned()).or_default() += 1;
                if stats.unreadable.len() < NAMED {
                    stats.unreadable.push(why);
                }
            }
        }
    }
    stats.kept = records.len();
    if records.is_empty() {
        return Err(Error::Empty { name: draft.name, why: format!("{stats}; use another corpus") });
    }
    let fingerprint = fingerprint(&records);
    Ok(Corpus { name: draft.name, unit: "picture", records, stats, fingerprint, toy: false })
}

/// The picture, or a line that names it and the reason.
fn decoded(record: &Record, source: &Source<'_>) -> Result<Picture, String> {
    match source {
        Source::Bytes(bytes) => Picture::decode(bytes).map_err(|fault| format!("`{}`: {fault}", record.id)),
        Source::File(path) => Picture::open(path).map_err(|error| match error {
            Error::Read { path, source } => format!("`{path}`: {source}"),
            other => other.to_string(),
        }),
    }
}

/// Words that tell the members of a series apart, not what it shows: colours, sizes, numerals, sides.
const VARIANTS: [&str; 43] = [
    "red", "green", "blue", "yellow", "orange", "purple", "violet", "pink", "brown", "black", "white", "grey", "gray",
    "cyan", "gold", "silver", "dark", "light", "bw", "color", "colour", "colored", "i", "ii", "iii", "iv", "v", "vi",
    "sm", "md", "lg", "small", "medium", "large", "big", "left", "right", "mirror", "flip", "man", "woman", "person",
    "new",
];

/// What the names of all pictures of one motif share: `duck_yellow_ii_01`, `duck2` and `Duck-green` are all `duck`.
///
/// Numbers and words like colours are left out; a name of nothing else stays as it is.
pub(super) fn series(name: &str) -> String {
    let lower = name.to_lowercase();
    let kept: Vec<&str> = words(&lower)
        .map(|word| word.trim_end_matches(|c: char| c.is_ascii_digit()))
        .filter(|word| !word.is_empty() && !VARIANTS.contains(word))
        .collect();
    if kept.is_empty() { lower } else { kept.join("_") }
}

/// A file's name as words: `tennis_racket_01` gives `tennis racket`. A name of digits alone gives nothing.
pub(super) fn caption(name: &str) -> String {
    let kept: Vec<&str> = words(name).filter(|word| !word.bytes().all(|b| b.is_ascii_digit())).collect();
    kept.join(" ")
}

fn words(name: &str) -> impl Iterator<Item = &str> {
    name.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The bytes of a PNG of one colour.
    pub(in super::super) fn png(width: u32, height: u32, colour: [u8; 3]) -> Vec<u8> {
        Picture::new(width, height, colour.repeat((width * height) as usize)).png()
    }

    fn record(id: &str) -> Record {
        Record {
            id: id.to_owned(),
            document: series(id),
            owner: None,
            topic: None,
            time: None,
            text: caption(id),
            picture: None,
        }
    }

    fn draft<'a>(found: Vec<(&str, &'a [u8])>) -> Draft<'a> {
        Draft {
            name: "made-up".to_owned(),
            files: found.len(),
            fit: Fit::Pad,
            min_side_px: 8,
            dropped: BTreeMap::from([("unlisted".to_owned(), 2)]),
            found: found.into_iter().map(|(id, bytes)| (record(id), Source::Bytes(bytes))).collect(),
        }
    }

    #[test]
    fn every_picture_is_counted_once_and_all_have_one_size() {
        let (red, tall, tiny) = (png(40, 20, [200, 0, 0]), png(10, 30, [0, 200, 0]), png(7, 5, [0; 3]));
        let found = vec![
            ("ball_red_01", &red[..]),
            ("ball_red_02", &red[..]),
            ("tree", &tall[..]),
            ("line", &tiny[..]),
            ("cut", &red[..60]),
            ("text", b"hello"),
        ];
        let keep = Keep { side_px: 16, ..Keep::default() };
        let corpus = build(draft(found), &keep).expect("two pictures");
        let got: Vec<(&str, &str, &str)> =
            corpus.records.iter().map(|r| (r.id.as_str(), r.document.as_str(), r.text.as_str())).collect();
        assert_eq!(got, [("ball_red_01", "ball", "ball red"), ("tree", "tree", "tree")]);
        for picture in corpus.pictures(&[0, 1]) {
            assert_eq!((picture.width(), picture.height()), (16, 16));
        }
        assert_eq!((corpus.medium(), corpus.unit), (Medium::Picture, "picture"));
        assert_eq!(
            corpus.stats.to_string(),
            "5 documents, 8 pictures, 2 kept; dropped: small 1, unlisted 2, unreadable 2, duplicate 1\n  \
             unreadable: `cut`: a PNG file that ends before its picture does; copy it again\n  \
             unreadable: `text`: not a picture; PNG, JPEG, WebP, GIF, BMP and TIFF are read"
        );
    }

    #[test]
    fn nothing_but_unreadable_files_is_refused_with_their_reasons() {
        let error = build(draft(vec![("cut", b"GIF89a"), ("none", b"")]), &Keep::default()).expect_err("no picture");
        assert!(error.to_string().contains("`none`: an empty file; copy it again"), "{error}");
        assert_eq!(error.exit(), crate::Exit::Input);
    }

    #[test]
    fn the_fingerprint_moves_with_the_size() {
        let red = png(40, 20, [200, 0, 0]);
        let of = |side_px| {
            let keep = Keep { side_px, ..Keep::default() };
            build(draft(vec![("a", &red[..])]), &keep).expect("a picture").fingerprint
        };
        assert_eq!(of(16), of(16));
        assert_ne!(of(16), of(32));
    }

    #[test]
    fn a_series_is_what_its_names_share() {
        for (name, stem) in [
            ("duck_yellow_ii_kurt_cagl_", "duck_kurt_cagl"),
            ("crawfish1_bw_ganson", "crawfish_ganson"),
            ("eagle_01", "eagle"),
            ("Eagle-02", "eagle"),
            ("xing_school_mirror", "xing_school"),
            ("red_02", "red_02"),
            ("0338", "0338"),
        ] {
            assert_eq!(series(name), stem);
        }
        assert_eq!(caption("tennis_racket_01"), "tennis racket");
        assert_eq!(caption("0338"), "");
    }
}
