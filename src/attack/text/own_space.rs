//! A text encoder that an attacker fits on its own texts, without any query to the victim.

use super::words;
use crate::attack::Error;
use crate::attack::linear::{self, orthonormalise};
use crate::attack::recover::svd;
use crate::encode::{self, Embeddings, Encoder, EncoderInfo};
use crate::nn::kernel::{Layout, matmul};
use rand::Rng;
use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;
use std::collections::{BTreeMap, HashMap};

/// Rounds of the range finder: each squares how far wanted directions stand above the others.
const ROUNDS: usize = 3;
/// Directions carried beyond the wanted ones.
const OVERSAMPLING: usize = 24;

/// Words weighted by how rare they are, projected on their leading joint directions.
///
/// # Formula
/// `a_w = (1 + ln count_w) (ln((1 + n) / (1 + n_w)) + 1)` for each word `w` of a text, scaled to unit norm; the vector is
/// `a V`, scaled to unit norm, with `V` the leading right singular vectors of the attacker's own texts. A text without a
/// known word is the zero vector.
///
/// # Shapes
/// `n` texts -> `(n, dim)`.
///
/// # Source
/// Latent semantic analysis (Deerwester et al. 1990); the range finder with power iterations of Halko, Martinsson and Tropp
/// (2011, algorithm 4.4) and a Rayleigh-Ritz step.
pub struct OwnSpace {
    info: EncoderInfo,
    index: HashMap<String, u32>,
    weight: Vec<f32>,
    /// `(V, dim)`, row-major.
    axes: Vec<f32>,
}

/// Rows of a sparse matrix.
type Sparse = Vec<Vec<(u32, f32)>>;

impl OwnSpace {
    /// Fits the space on texts; it has `dim` coordinates, or as many as the texts have directions where those are fewer.
    ///
    /// # Errors
    /// When no word stands in two texts.
    pub fn fit(texts: &[&str], dim: usize, rng: &mut dyn Rng) -> Result<Self, Error> {
        let (index, weight) = vocabulary(texts);
        let v = index.len();
        if v == 0 {
            let what = "auxiliary texts that share words; none stands in two of them".to_owned();
            return Err(Error::Needs { attack: "align", what });
        }
        let rows: Sparse = texts.par_iter().map(|t| terms(t, &index, &weight)).collect();
        let columns = transpose(&rows, v);
        let dim = dim.min(v).min(rows.len());
        let wide = (dim + OVERSAMPLING).min(v).min(rows.len());
        let mut basis: Vec<f32> = (0..v * wide).map(|_| StandardNormal.sample(rng)).collect();
        for _ in 0..ROUNDS {
            basis = times(&columns, &times(&rows, &basis, wide), wide);
            orthonormalise(&mut basis, wide);
        }
        let seen = times(&rows, &basis, wide);
        let leading = svd(&linear::cross(&seen, &seen, rows.len(), wide, wide), wide);
        // Directions in which no text lies would be filled with rounding.
        let real = leading.values.iter().filter(|&&v| v > 1e-7 * leading.values[0]).count();
        let dim = dim.min(real);
        let turn: Vec<f32> = leading.left[..dim * wide].iter().map(|&x| x as f32).collect();
        let mut axes = vec![0.0_f32; v * dim];
        matmul(&mut axes, &basis, Layout::Plain, &turn, Layout::Transposed, v, wide, dim, false);

        let mut hasher = blake3::Hasher::new_derive_key("stitchback own space v1");
        let words: BTreeMap<u32, &str> = index.iter().map(|(word, &w)| (w, word.as_str())).collect();
        for word in words.values() {
            hasher.update(&(word.len() as u64).to_le_bytes()).update(word.as_bytes());
        }
        for value in axes.iter().chain(&weight) {
            hasher.update(&value.to_le_bytes());
        }
        let info = EncoderInfo {
            name: "own space".to_owned(),
            dim,
            max_len_tokens: usize::MAX,
            fingerprint: hasher.finalize().to_hex().to_string(),
            toy: false,
        };
        Ok(Self { info, index, weight, axes })
    }
}

impl Encoder for OwnSpace {
    fn info(&self) -> &EncoderInfo {
        &self.info
    }

    fn encode(&self, texts: &[&str]) -> Result<Embeddings, encode::Error> {
        let d = self.info.dim;
        let mut values = vec![0.0_f32; texts.len() * d];
        values.par_chunks_exact_mut(d).zip(texts).for_each(|(row, text)| {
            for (w, weight) in terms(text, &self.index, &self.weight) {
                let axis = &self.axes[w as usize * d..(w as usize + 1) * d];
                row.iter_mut().zip(axis).for_each(|(v, a)| *v += weight * a);
            }
            to_unit(row);
        });
        Embeddings::new(values, d)
    }
}

/// Words of at least two texts, numbered in alphabetical order, with their weights.
fn vocabulary(texts: &[&str]) -> (HashMap<String, u32>, Vec<f32>) {
    let mut holders: BTreeMap<String, u32> = BTreeMap::new();
    for text in texts {
        let mut keys = keys(text);
        keys.sort_unstable();
        keys.dedup();
        for key in keys {
            *holders.entry(key).or_default() += 1;
        }
    }
    holders.retain(|_, n| *n >= 2);
    let n = texts.len() as f32;
    let weight = holders.values().map(|&h| ((1.0 + n) / (1.0 + h as f32)).ln() + 1.0).collect();
    (holders.into_keys().zip(0..).collect(), weight)
}

fn keys(text: &str) -> Vec<String> {
    words::split(text).into_iter().filter(|w| words::is_word(w)).map(|w| words::key(&w)).collect()
}

/// The weighted words of a text, unit norm, by number.
fn terms(text: &str, index: &HashMap<String, u32>, weight: &[f32]) -> Vec<(u32, f32)> {
    let mut counts: BTreeMap<u32, f32> = BTreeMap::new();
    for key in keys(text) {
        if let Some(&w) = index.get(&key) {
            *counts.entry(w).or_default() += 1.0;
        }
    }
    let mut row: Vec<(u32, f32)> =
        counts.into_iter().map(|(w, count)| (w, (1.0 + count.ln()) * weight[w as usize])).collect();
    let norm = row.iter().map(|(_, v)| v * v).sum::<f32>().sqrt();
    for (_, v) in &mut row {
        *v /= norm;
    }
    row
}

fn transpose(rows: &Sparse, width: usize) -> Sparse {
    let mut columns: Sparse = vec![Vec::new(); width];
    for (i, row) in rows.iter().enumerate() {
        for &(w, v) in row {
            columns[w as usize].push((i as u32, v));
        }
    }
    columns
}

/// `rows b` for dense `b` with `q` columns.
fn times(rows: &Sparse, b: &[f32], q: usize) -> Vec<f32> {
    let mut out = vec![0.0_f32; rows.len() * q];
    out.par_chunks_exact_mut(q).zip(rows).for_each(|(out, row)| {
        for &(j, weight) in row {
            let right = &b[j as usize * q..(j as usize + 1) * q];
            out.iter_mut().zip(right).for_each(|(o, r)| *o += weight * r);
        }
    });
    out
}

fn to_unit(row: &mut [f32]) {
    let norm = row.iter().map(|v| v * v).sum::<f32>().sqrt();
    if norm > 0.0 {
        for v in row.iter_mut() {
            *v /= norm;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::kernel::dot;
    use crate::seed;

    const TEXTS: [&str; 8] = [
        "The bank raised interest rates again.",
        "Interest rates at the bank fell.",
        "The bank cut its rates.",
        "Rates of interest worry the bank.",
        "The striker scored a late goal.",
        "A late goal won the match.",
        "The striker won the match.",
        "A match with a late striker.",
    ];

    fn fit(dim: usize) -> OwnSpace {
        OwnSpace::fit(&TEXTS, dim, &mut seed::stream(1, "own space", "test")).expect("texts that share words")
    }

    #[test]
    fn texts_of_one_subject_lie_together_even_without_a_common_word() {
        let space = fit(2);
        let rows = space.encode(&["the bank", "interest", "a striker", ""]).expect("encodes");
        let cosine = |i: usize, j: usize| dot(rows.row(i), rows.row(j));
        assert!(cosine(0, 1) > 0.8, "{}", cosine(0, 1));
        assert!(cosine(1, 2) < 0.5, "{}", cosine(1, 2));
        assert!(rows.row(3).iter().all(|v| *v == 0.0), "no known word, no vector");
    }

    #[test]
    fn with_every_direction_the_space_keeps_all_products() {
        let space = fit(1000);
        let rows = space.encode(&TEXTS).expect("encodes");
        let exact: Vec<BTreeMap<u32, f32>> =
            TEXTS.iter().map(|t| terms(t, &space.index, &space.weight).into_iter().collect()).collect();
        for i in 0..TEXTS.len() {
            for j in 0..TEXTS.len() {
                let product: f32 = exact[i].iter().filter_map(|(w, v)| exact[j].get(w).map(|u| u * v)).sum();
                assert!((product - dot(rows.row(i), rows.row(j))).abs() < 1e-3, "{i} {j}");
            }
        }
    }

    /// A first direction that towers above the others once cost them all: every text looked the same.
    #[test]
    fn a_steep_spectrum_leaves_an_orthonormal_basis() {
        let (n, q) = (60, 27);
        let mut rng = seed::stream(1, "own space", "steep");
        let mut basis: Vec<f32> = (0..n * q).map(|_| StandardNormal.sample(&mut rng)).collect();
        for row in basis.chunks_exact_mut(q) {
            let first = row[0];
            row.iter_mut().enumerate().for_each(|(j, v)| *v += 1e3 * first * (j + 1) as f32);
        }
        orthonormalise(&mut basis, q);
        for (at, v) in linear::cross(&basis, &basis, n, q, q).into_iter().enumerate() {
            let want = f64::from(u8::from(at / q == at % q));
            assert!((v - want).abs() < 1e-3, "{at}: {v}");
        }
    }

    #[test]
    fn one_stream_gives_one_space_on_any_number_of_threads() {
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a small pool");
            pool.install(|| fit(4).info.fingerprint)
        };
        assert_eq!(on(1), on(3));
    }

    #[test]
    fn texts_without_a_common_word_are_refused() {
        let error = OwnSpace::fit(&["one", "two"], 4, &mut seed::stream(1, "", "")).err().expect("nothing shared");
        assert!(error.to_string().contains("none stands in two"), "{error}");
    }
}
