//! The topic catalogue of a group: public cells over the vectors of one encoder.

use super::Error;
use crate::encode::Embeddings;
use rand::{Rng, RngExt};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;

/// Coordinates are kept in steps of `2^-14`.
const STEP: f64 = 1.0 / 16384.0;
/// Rounds of Lloyd's algorithm; it stops earlier when no vector changes its cell.
const ROUNDS: usize = 40;
/// Share of the public vectors that is kept back to place the cell "other".
const HELD_OUT: usize = 10;

/// Topic cells of a group, frozen within an epoch.
///
/// # Formula
/// Spherical k-means: `cell(x) = argmax_c y · mu_c`, `y = (x - centre) / scale`, `mu_c` the unit mean of its members, from a
/// k-means++ start. `scale` is the root mean square of `|x - centre|`. Centroids are rounded to steps of `2^-14` and
/// that rounded form is the catalogue. `theta`, the pull of the cell "other", is the first percentile of
/// `max_c y · mu_c` over held-out public vectors.
///
/// # Source
/// Dhillon and Modha, 2001; Arthur and Vassilvitskii, 2007 (start).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Catalogue {
    /// What the group is called; a label, never an input of a value.
    pub group: String,
    /// Raised with every change; a receipt names the hash.
    pub version: u32,
    /// Fingerprint of the encoder whose vectors are sorted.
    pub encoder: String,
    /// Coordinates of a vector.
    pub dim: usize,
    centre: Vec<i32>,
    scale: i32,
    theta: i32,
    centroids: Vec<i16>,
}

/// How a catalogue is made.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Name of the group.
    pub group: String,
    /// Fingerprint of the encoder.
    pub encoder: String,
    /// Number of cells, 2 to 256.
    pub cells: usize,
    /// Whether vectors are read about the public mean: for encoders whose vectors all point into one corner.
    pub centred: bool,
}

impl Catalogue {
    /// Sorts public vectors into cells.
    ///
    /// # Shapes
    /// `public` `(n, d)`, at least ten vectors for each cell.
    ///
    /// # Errors
    /// When there are too few vectors, or the number of cells is out of range.
    pub fn fit(plan: &Plan, public: &Embeddings, rng: &mut dyn Rng) -> Result<Self, Error> {
        let (k, dim) = (plan.cells, public.dim());
        if !(2..=256).contains(&k) {
            return Err(Error::Config { key: "cells", why: format!("must be 2 to 256, got {k}") });
        }
        if public.len() < 10 * k {
            let why = format!("{} public vectors are too few for {k} cells; give at least {}", public.len(), 10 * k);
            return Err(Error::Input(why));
        }
        let mean = if plan.centred { public.mean() } else { vec![0.0; dim] };
        let centre: Vec<i32> = mean.iter().map(|v| step(*v)).collect();
        let about = |row: &[f32]| -> Vec<f64> {
            row.iter().zip(&centre).map(|(&v, &c)| f64::from(v) - f64::from(c) * STEP).collect()
        };
        let square = |row: &[f32]| about(row).iter().map(|v| v * v).sum::<f64>();
        let scale = step((public.rows().map(square).sum::<f64>() / public.len() as f64).sqrt()).max(1);
        let rows: Vec<Vec<f64>> = public
            .rows()
            .map(|row| {
                let mut y = about(row);
                unit(&mut y);
                y
            })
            .collect();
        let (held_out, train) = rows.split_at(rows.len() / HELD_OUT);
        let centroids = lloyd(train, k, rng);
        let mut out = Self {
            group: plan.group.clone(),
            version: 1,
            encoder: plan.encoder.clone(),
            dim,
            centre,
            scale,
            theta: 0,
            centroids: centroids.iter().flatten().map(|v| step(*v).clamp(-32767, 32767) as i16).collect(),
        };
        let mut best: Vec<f64> = public
            .rows()
            .take(held_out.len())
            .map(|row| out.pulls(row).into_iter().take(k).fold(f64::NEG_INFINITY, f64::max))
            .collect();
        best.sort_by(f64::total_cmp);
        out.theta = step(best[best.len() / 100]);
        Ok(out)
    }

    /// Number of topic cells, without "other".
    pub fn cells(&self) -> usize {
        self.centroids.len() / self.dim
    }

    /// The distance from the centre that counts as 1.
    pub fn scale(&self) -> f64 {
        f64::from(self.scale) * STEP
    }

    /// How strongly each cell pulls `row`: the scaled products with the centroids, then `theta` for "other".
    ///
    /// # Panics
    /// When `row` has another dimension.
    pub fn pulls(&self, row: &[f32]) -> Vec<f64> {
        assert_eq!(row.len(), self.dim, "a row has the dimension of its catalogue");
        let scale = self.scale();
        let y: Vec<f64> =
            row.iter().zip(&self.centre).map(|(&v, &c)| (f64::from(v) - f64::from(c) * STEP) / scale).collect();
        let mut out: Vec<f64> = self
            .centroids
            .chunks_exact(self.dim)
            .map(|mu| y.iter().zip(mu).map(|(a, &b)| a * f64::from(b)).sum::<f64>() * STEP)
            .collect();
        out.push(f64::from(self.theta) * STEP);
        out
    }

    /// SHA-256 of everything that decides about a value: the encoder, the cells, the version.
    pub fn hash(&self) -> [u8; 32] {
        let mut hasher = Sha256::new();
        hasher.update(b"sb/catalogue/v1");
        for text in [&self.group, &self.encoder] {
            hasher.update((text.len() as u64).to_be_bytes());
            hasher.update(text.as_bytes());
        }
        for number in [u64::from(self.version), self.dim as u64, self.cells() as u64] {
            hasher.update(number.to_be_bytes());
        }
        for number in self.centre.iter().chain([&self.scale, &self.theta]) {
            hasher.update(number.to_be_bytes());
        }
        for number in &self.centroids {
            hasher.update(number.to_be_bytes());
        }
        hasher.finalize().into()
    }

    /// For each cell, the cell of `next` that its centroid falls into: where the mass of a group goes when its catalogue changes.
    ///
    /// # Formula
    /// `argmax_c mu . nu_c` over the rounded centroids, in integers; the lower number on a tie.
    ///
    /// # Errors
    /// When `next` is not the next version of this catalogue: another group, encoder or dimension, or a version that is not one
    /// higher.
    pub fn carry(&self, next: &Self) -> Result<Vec<usize>, Error> {
        let wrong = |what: &str| Err(Error::Input(format!("the catalogue of group `{}` {what}", self.group)));
        if (&next.group, &next.encoder, next.dim) != (&self.group, &self.encoder, self.dim) {
            return wrong("can only be followed by one of the same group, encoder and dimension");
        }
        if next.version != self.version.saturating_add(1) {
            let want = self.version.saturating_add(1);
            return wrong(&format!("has version {}; the next one must be {want}, got {}", self.version, next.version));
        }
        let product = |a: &[i16], b: &[i16]| a.iter().zip(b).map(|(&x, &y)| i64::from(x) * i64::from(y)).sum::<i64>();
        Ok(self
            .centroids
            .chunks_exact(self.dim)
            .map(|mu| {
                let pulls = next.centroids.chunks_exact(self.dim).map(|nu| product(mu, nu)).enumerate();
                pulls.fold((0, i64::MIN), |best, (c, pull)| if pull > best.1 { (c, pull) } else { best }).0
            })
            .collect())
    }

    /// Reads a catalogue from its JSON text.
    ///
    /// # Errors
    /// When it is malformed, or its parts do not fit together.
    pub fn from_json(path: &str, text: &str) -> Result<Self, Error> {
        let malformed = |why: String| Error::Malformed { path: path.to_owned(), why };
        let out: Self = serde_json::from_str(text).map_err(|e| malformed(format!("no catalogue: {e}")))?;
        let whole = out.dim > 0
            && out.centre.len() == out.dim
            && out.centroids.len().is_multiple_of(out.dim)
            && (2..=256).contains(&out.cells())
            && out.scale > 0;
        if whole { Ok(out) } else { Err(malformed("its centroids do not fit its dimension".to_owned())) }
    }

    /// Its JSON text.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a catalogue is numbers and text") + "\n"
    }
}

/// Hexadecimal digits of a hash.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut out, b| {
        let _ = write!(out, "{b:02x}");
        out
    })
}

fn step(v: f64) -> i32 {
    (v / STEP).round() as i32
}

fn unit(row: &mut [f64]) {
    let norm = dot(row, row).sqrt();
    if norm > 0.0 {
        for v in row {
            *v /= norm;
        }
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Unit centroids of unit rows. Assignment is parallel, sums are taken in row order: any thread count, the same bytes.
fn lloyd(rows: &[Vec<f64>], k: usize, rng: &mut dyn Rng) -> Vec<Vec<f64>> {
    let mut centroids = spread(rows, k, rng);
    let mut cells = vec![usize::MAX; rows.len()];
    for _ in 0..ROUNDS {
        let best: Vec<(usize, f64)> = rows.par_iter().map(|row| nearest(row, &centroids)).collect();
        let next: Vec<usize> = best.iter().map(|b| b.0).collect();
        if next == cells {
            break;
        }
        cells = next;
        let mut sums = vec![vec![0.0; rows[0].len()]; k];
        for (row, &cell) in rows.iter().zip(&cells) {
            sums[cell].iter_mut().zip(row).for_each(|(s, v)| *s += v);
        }
        let mut far: Vec<usize> = (0..rows.len()).collect();
        far.sort_by(|&a, &b| best[a].1.total_cmp(&best[b].1).then(a.cmp(&b)));
        let mut far = far.into_iter();
        for (centroid, mut sum) in centroids.iter_mut().zip(sums) {
            if dot(&sum, &sum) == 0.0 {
                // An empty cell starts again at the row that is worst served.
                sum.clone_from(&rows[far.next().expect("there are more rows than cells")]);
            }
            unit(&mut sum);
            *centroid = sum;
        }
    }
    centroids
}

fn nearest(row: &[f64], centroids: &[Vec<f64>]) -> (usize, f64) {
    centroids.iter().enumerate().fold((0, f64::NEG_INFINITY), |best, (i, mu)| {
        let cosine = dot(row, mu);
        if cosine > best.1 { (i, cosine) } else { best }
    })
}

/// k-means++: each further start is drawn with probability in proportion to its distance from the starts so far.
fn spread(rows: &[Vec<f64>], k: usize, rng: &mut dyn Rng) -> Vec<Vec<f64>> {
    let mut starts = vec![rows[rng.random_range(0..rows.len())].clone()];
    let mut gap: Vec<f64> = rows.iter().map(|row| (1.0 - dot(row, &starts[0])).max(0.0)).collect();
    while starts.len() < k {
        let mut at = rng.random_range(0.0..1.0) * gap.iter().sum::<f64>();
        let mut chosen = rows.len() - 1;
        for (i, g) in gap.iter().enumerate() {
            at -= g;
            if at < 0.0 {
                chosen = i;
                break;
            }
        }
        starts.push(rows[chosen].clone());
        let latest = starts.last().expect("one was pushed");
        gap.iter_mut().zip(rows).for_each(|(g, row)| *g = g.min((1.0 - dot(row, latest)).max(0.0)));
    }
    starts
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::seed;
    use rand_distr::{Distribution, StandardNormal};

    /// Unit rows around `topics` random directions; row `i` belongs to direction `i % topics`.
    pub(crate) fn clouds(n: usize, topics: usize, dim: usize, spread: f64, task: &str) -> Embeddings {
        let normal = |rng: &mut seed::Stream| -> Vec<f64> { (0..dim).map(|_| StandardNormal.sample(rng)).collect() };
        let mut rng = seed::stream(5, "clouds", "centres");
        let centres: Vec<Vec<f64>> = (0..topics)
            .map(|_| {
                let mut c = normal(&mut rng);
                unit(&mut c);
                c
            })
            .collect();
        let mut rng = seed::stream(5, task, "rows");
        let mut values = Vec::new();
        for i in 0..n {
            let mut noise = normal(&mut rng);
            unit(&mut noise);
            let mut row: Vec<f64> =
                centres[i % topics].iter().zip(&noise).map(|(c, e)| c * (1.0 - spread) + e * spread).collect();
            unit(&mut row);
            values.extend(row.into_iter().map(|v| v as f32));
        }
        Embeddings::new(values, dim).expect("finite")
    }

    pub(crate) fn plan(cells: usize) -> Plan {
        Plan { group: "pets".to_owned(), encoder: "toy".to_owned(), cells, centred: false }
    }

    #[test]
    fn separate_topics_get_separate_cells_and_the_hash_is_stable() {
        let public = clouds(400, 4, 32, 0.3, "public");
        let fit =
            |root| Catalogue::fit(&plan(4), &public, &mut seed::stream(root, "test", "catalogue")).expect("enough");
        let catalogue = fit(1);
        let cell = |row: &[f32]| {
            let pulls = catalogue.pulls(row);
            (0..pulls.len()).max_by(|&a, &b| pulls[a].total_cmp(&pulls[b])).expect("cells")
        };
        let fresh = clouds(80, 4, 32, 0.3, "fresh");
        let cells: Vec<usize> = fresh.rows().map(cell).collect();
        assert!((0..80).all(|i| cells[i] == cells[i % 4]), "{cells:?}");
        assert_eq!(cells[..4].iter().collect::<std::collections::BTreeSet<_>>().len(), 4);
        assert_eq!(catalogue.hash(), fit(1).hash());
        let again = Catalogue::from_json("c.json", &catalogue.to_json()).expect("its own text");
        assert_eq!((again.hash(), &again), (catalogue.hash(), &catalogue));
        let mut newer = catalogue.clone();
        newer.version = 2;
        assert_ne!(newer.hash(), catalogue.hash());
    }

    #[test]
    fn what_lies_outside_all_topics_is_drawn_to_other() {
        let public = clouds(600, 3, 64, 0.3, "public");
        let catalogue =
            Catalogue::fit(&plan(3), &public, &mut seed::stream(1, "test", "catalogue")).expect("enough rows");
        let junk = clouds(50, 50, 64, 1.0, "junk");
        for row in junk.rows() {
            let pulls = catalogue.pulls(row);
            assert!(pulls[3] > pulls[..3].iter().copied().fold(f64::MIN, f64::max), "{pulls:?}");
        }
    }

    #[test]
    fn too_few_public_vectors_are_refused() {
        let error = Catalogue::fit(&plan(4), &clouds(39, 4, 8, 0.3, "few"), &mut seed::stream(1, "", ""));
        assert_eq!(
            error.expect_err("39 rows").to_string(),
            "39 public vectors are too few for 4 cells; give at least 40"
        );
        let error = Catalogue::fit(&plan(1), &clouds(39, 4, 8, 0.3, "few"), &mut seed::stream(1, "", ""));
        assert_eq!(error.expect_err("one cell").exit(), crate::Exit::Usage);
    }
}
