//! `toy-pictures`: painted shapes, for fast tests only. They prove nothing about real pictures, and every output that
//! uses them says so.
//!
//! Eight shapes are the topics; fifty documents of each, four pictures in a document. A document keeps its three colours,
//! as one photographer's pictures of one thing do; place, size, turn and the light of the ground differ in every picture.

use super::{Corpus, CorpusStats, count_documents, fingerprint};
use crate::data::clean::Keep;
use crate::data::{Error, Medium, Picture, Record};
use crate::seed::{self, Stream};
use rand::RngExt;
use rayon::prelude::*;
use std::collections::{BTreeMap, HashSet};
use std::f32::consts::{PI, TAU};

/// The corpus's name.
pub const NAME: &str = "toy-pictures";

/// Documents of a topic.
const DOCUMENTS: usize = 50;

/// Pictures of a document.
const PICTURES: usize = 4;

/// Samples of a pixel in each direction.
const SAMPLES: u32 = 2;

const SHAPES: [&str; 8] = ["disc", "ring", "square", "triangle", "cross", "star", "crescent", "bars"];

const COLOURS: [(&str, [f32; 3]); 10] = [
    ("red", [0.85, 0.12, 0.10]),
    ("orange", [0.96, 0.55, 0.08]),
    ("yellow", [0.97, 0.88, 0.20]),
    ("green", [0.12, 0.58, 0.20]),
    ("turquoise", [0.10, 0.72, 0.70]),
    ("blue", [0.10, 0.25, 0.80]),
    ("violet", [0.48, 0.15, 0.65]),
    ("pink", [0.97, 0.60, 0.75]),
    ("black", [0.08, 0.08, 0.10]),
    ("white", [0.95, 0.95, 0.93]),
];

/// One picture's geometry; lengths in sides of the picture.
struct Scene {
    shape: usize,
    paint: [f32; 3],
    ground: [[f32; 3]; 2],
    /// Where the light of the ground comes from.
    light: f32,
    centre: (f32, f32),
    radius: f32,
    turn: f32,
}

impl Scene {
    /// The colour at a point of the unit square.
    fn colour(&self, x: f32, y: f32) -> [f32; 3] {
        let (dx, dy) = ((x - self.centre.0) / self.radius, (y - self.centre.1) / self.radius);
        let (sin, cos) = self.turn.sin_cos();
        if covers(self.shape, dx * cos + dy * sin, dy * cos - dx * sin) {
            return self.paint;
        }
        let (sin, cos) = self.light.sin_cos();
        let share = (0.5 + 0.7 * ((x - 0.5) * cos + (y - 0.5) * sin)).clamp(0.0, 1.0);
        std::array::from_fn(|c| self.ground[0][c] + share * (self.ground[1][c] - self.ground[0][c]))
    }

    fn paint(&self, side: u32) -> Picture {
        let step = 1.0 / (side * SAMPLES) as f32;
        let mut values = Vec::with_capacity(3 * (side * side) as usize);
        for y in 0..side {
            for x in 0..side {
                let mut sum = [0.0; 3];
                for sample in 0..SAMPLES * SAMPLES {
                    let (u, v) = (x * SAMPLES + sample % SAMPLES, y * SAMPLES + sample / SAMPLES);
                    let colour = self.colour((u as f32 + 0.5) * step, (v as f32 + 0.5) * step);
                    sum.iter_mut().zip(colour).for_each(|(sum, c)| *sum += c);
                }
                values.extend(sum.map(|c| c / (SAMPLES * SAMPLES) as f32));
            }
        }
        Picture::from_unit(side, side, &values)
    }
}

/// Whether a shape of about radius 1 covers the point.
fn covers(shape: usize, x: f32, y: f32) -> bool {
    let r = x.hypot(y);
    match SHAPES[shape] {
        "disc" => r < 0.9,
        "ring" => (0.6..1.0).contains(&r),
        "square" => x.abs().max(y.abs()) < 0.8,
        "triangle" => y < 0.6 && y > 1.9 * x.abs() - 1.0,
        "cross" => x.abs().min(y.abs()) < 0.28 && x.abs().max(y.abs()) < 1.0,
        "star" => {
            // Between a point at radius 1 and a notch at .42, a tenth of a turn away, the edge is a line.
            let angle = (y.atan2(x) + TAU) % (TAU / 5.0);
            let angle = angle.min(TAU / 5.0 - angle);
            let (notch_x, notch_y) = (0.42 * (PI / 5.0).cos(), 0.42 * (PI / 5.0).sin());
            r * (notch_y * angle.cos() + (1.0 - notch_x) * angle.sin()) < notch_y
        }
        "crescent" => r < 1.0 && (x - 0.45).hypot(y) > 0.75,
        _ => x.abs() < 1.0 && y.abs() < 1.0 && ((y + 1.0) * 2.5).fract() < 0.5,
    }
}

/// Makes the toy pictures that belong to `seed`; [`super::open`] uses seed 0.
///
/// # Errors
/// Never: the signature is that of the other corpora.
pub fn generate(seed: u64, keep: &Keep) -> Result<Corpus, Error> {
    let documents: Vec<(usize, usize)> =
        (0..SHAPES.len()).flat_map(|shape| (0..DOCUMENTS).map(move |number| (shape, number))).collect();
    let painted: Vec<Record> = documents
        .par_iter()
        .flat_map_iter(|&(shape, number)| {
            let document = format!("toy-{}/{number:02}", SHAPES[shape]);
            let mut rng = seed::stream(seed, &document, "toy pictures");
            let palette = palette(&mut rng);
            (0..PICTURES)
                .map(|picture| Record {
                    id: format!("{document}#{picture}"),
                    document: document.clone(),
                    owner: None,
                    topic: Some(SHAPES[shape].to_owned()),
                    time: Some(format!("2024-{:02}-{:02}T12:00:00Z", 1 + number % 12, 1 + picture)),
                    text: format!("a {} {} on {}", COLOURS[palette[0]].0, SHAPES[shape], COLOURS[palette[1]].0),
                    picture: Some(scene(shape, palette, &mut rng).paint(keep.side_px)),
                })
                .collect::<Vec<_>>()
        })
        .collect();
    let mut stats = CorpusStats {
        medium: Medium::Picture,
        files: documents.len(),
        documents: count_documents(NAME, painted.iter())?,
        sentences: painted.len(),
        dropped: BTreeMap::new(),
        ..CorpusStats::default()
    };
    let mut seen = HashSet::new();
    let is_new = |record: &Record| record.picture.as_ref().is_some_and(|p| seen.insert(blake3::hash(p.rgb())));
    let records: Vec<Record> = painted.into_iter().filter(is_new).collect();
    stats.kept = records.len();
    stats.duplicates = stats.sentences - stats.kept;
    let fingerprint = fingerprint(&records);
    Ok(Corpus { name: NAME.to_owned(), unit: "picture", records, stats, fingerprint, toy: true })
}

/// Three different colours: the shape's, and the ground's two.
fn palette(rng: &mut Stream) -> [usize; 3] {
    let first = rng.random_range(0..COLOURS.len());
    let second = (first + rng.random_range(1..COLOURS.len())) % COLOURS.len();
    let third = (0..COLOURS.len()).filter(|c| ![first, second].contains(c)).nth(rng.random_range(0..COLOURS.len() - 2));
    [first, second, third.expect("eight colours are left")]
}

fn scene(shape: usize, palette: [usize; 3], rng: &mut Stream) -> Scene {
    let [paint, from, to] = palette.map(|colour| COLOURS[colour].1);
    Scene {
        shape,
        paint,
        ground: [from, to],
        light: rng.random_range(0.0..TAU),
        centre: (rng.random_range(0.3..0.7), rng.random_range(0.3..0.7)),
        radius: rng.random_range(0.18..0.38),
        turn: rng.random_range(0.0..TAU),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toy(seed: u64) -> Corpus {
        generate(seed, &Keep { side_px: 16, ..Keep::default() }).expect("pictures")
    }

    #[test]
    fn the_toy_is_its_seed() {
        assert_eq!(toy(0), toy(0));
        assert_ne!(toy(0).fingerprint, toy(1).fingerprint);
        assert!(toy(0).toy && toy(0).medium() == Medium::Picture);
    }

    #[test]
    fn it_has_eight_topics_of_two_hundred_distinct_pictures() {
        let corpus = toy(0);
        assert_eq!((corpus.stats.documents, corpus.records.len(), corpus.stats.duplicates), (400, 1600, 0));
        for shape in SHAPES {
            assert_eq!(corpus.records.iter().filter(|r| r.topic.as_deref() == Some(shape)).count(), 200, "{shape}");
        }
        assert!(corpus.records.iter().all(|r| r.id.starts_with("toy-")), "the name says toy");
        assert_eq!((corpus.pictures(&[7])[0].width(), corpus.pictures(&[7])[0].height()), (16, 16));
    }

    #[test]
    fn a_shape_covers_some_of_its_circle_and_no_two_cover_the_same() {
        let grid: Vec<(f32, f32)> =
            (0..400).map(|i| ((i % 20) as f32 / 10.0 - 0.95, (i / 20) as f32 / 10.0 - 0.95)).collect();
        let masks: HashSet<Vec<bool>> =
            (0..SHAPES.len()).map(|shape| grid.iter().map(|&(x, y)| covers(shape, x, y)).collect()).collect();
        assert_eq!(masks.len(), SHAPES.len());
        for mask in masks.iter().collect::<std::collections::BTreeSet<_>>() {
            let share = mask.iter().filter(|&&covered| covered).count() as f32 / 400.0;
            assert!((0.2..0.8).contains(&share), "{share}");
        }
    }
}
