//! The attacker's words, and which of them a vector speaks of.

use super::words;
use crate::attack::{Error, View, adapt::Adaptation, linear};
use crate::encode::{Cached, Embeddings};
use crate::nn::kernel::{Layout, dot, matmul};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Words of the auxiliary texts with a linear reader from vectors to words.
///
/// # Formula
/// For word `w` with indicator `b_w` (1 in texts that hold it) the ridge regression on protected vectors is
/// `r_w(y) = (y - m)' (S + (s^2 + l) I)^-1 cov(x, b_w)`, and the evidence is the z-score `r_w / sd(r_w)` weighted by how
/// well the reader predicts the word at all.
///
/// Words that no auxiliary text holds ([`Reach::Beyond`]) are read too: a second ridge regression, over the words that
/// are known, predicts from a word's own vector `e(w)` where the texts that hold it lie.
pub struct Lexicon {
    surface: Vec<String>,
    index: HashMap<String, u32>,
    count: Vec<u32>,
    mean: Vec<f32>,
    /// `(V, d)`: the regression coefficients of each word, scaled to unit standard deviation of the reading.
    reader: Vec<f32>,
    /// `(V, d)`: where the texts that hold a word lie, shrunk towards the mean of all texts for rare words.
    centroid: Vec<f32>,
    dim: usize,
}

/// Which words a [`Lexicon`] holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Those of the auxiliary texts.
    Seen,
    /// Also the whole words of the encoder's own vocabulary: names that the auxiliary texts happen to lack.
    Beyond,
}

/// Texts without a word that its centroid is mixed with: what a word seen once says of its place is mostly noise.
const SHRINKAGE: f32 = 4.0;

impl Lexicon {
    /// Counts the words of the view's texts and fits the reader; the `limit` most frequent words are kept.
    pub fn fit(view: &View, adaptation: &Adaptation, limit: usize, reach: Reach) -> Result<Self, Error> {
        let mut forms: BTreeMap<String, BTreeMap<String, u32>> = BTreeMap::new();
        for record in view.auxiliary {
            for (at, word) in words::split(&record.text).into_iter().enumerate() {
                if words::is_word(&word) {
                    // A first word is capitalised for its place: it counts towards its form only if nothing else does.
                    let weight = if at == 0 { 1 } else { 1000 };
                    *forms.entry(words::key(&word)).or_default().entry(word).or_default() += weight;
                }
            }
        }
        let mut ranked: Vec<(String, String, u32)> = forms
            .into_iter()
            .map(|(key, forms)| {
                let total: u32 = forms.values().map(|&n| if n >= 1000 { n / 1000 } else { n }).sum();
                let best = forms.into_iter().max_by_key(|(_, n)| *n).map_or_else(|| key.clone(), |(form, _)| form);
                (key, best, total)
            })
            .filter(|(_, _, total)| *total >= 2)
            .collect();
        ranked.sort_by(|a, b| b.2.cmp(&a.2).then_with(|| a.0.cmp(&b.0)));
        ranked.truncate(limit);
        let known = ranked.len();
        if reach == Reach::Beyond {
            let keys: BTreeSet<&str> = ranked.iter().map(|(key, _, _)| key.as_str()).collect();
            let unseen: Vec<String> =
                view.encoder.words().into_iter().filter(|word| !keys.contains(words::key(word).as_str())).collect();
            ranked.extend(unseen.into_iter().map(|word| (words::key(&word), word, 0)));
        }
        let index: HashMap<String, u32> =
            ranked.iter().enumerate().map(|(i, (key, _, _))| (key.clone(), i as u32)).collect();

        let d = view.clean.dim();
        let v = ranked.len();
        let (mean, mut cov) = linear::moments(view.clean);
        let mut sums = vec![0.0_f32; v * d];
        let mut count = vec![0_u32; v];
        for (record, row) in view.auxiliary.iter().zip(view.clean.rows()) {
            let mut present: Vec<u32> =
                words::split(&record.text).iter().filter_map(|w| index.get(&words::key(w)).copied()).collect();
            present.sort_unstable();
            present.dedup();
            for w in present {
                count[w as usize] += 1;
                let sum = &mut sums[w as usize * d..(w as usize + 1) * d];
                for ((s, &x), &m) in sum.iter_mut().zip(row).zip(&mean) {
                    *s += x - m as f32;
                }
            }
        }
        let surface: Vec<String> = ranked.into_iter().map(|(_, form, _)| form).collect();
        let mut offset: Vec<f32> = sums
            .chunks_exact(d)
            .zip(&count)
            .flat_map(|(sum, &n)| sum.iter().map(move |s| s / (n as f32 + SHRINKAGE)))
            .collect();
        if known < v {
            place(view, &surface, &count, known, &mut offset)?;
            sums[known * d..].copy_from_slice(&offset[known * d..]);
        }
        let trace: f64 = (0..d).map(|i| cov[i * d + i]).sum();
        linear::add_to_diagonal(&mut cov, d, adaptation.sigma().powi(2) + 0.02 * trace / d as f64 + 1e-9);
        let factor = linear::Cholesky::new(&cov, d).ok_or_else(|| Error::Needs {
            attack: "bag_of_words",
            what: "auxiliary vectors with a finite covariance".to_owned(),
        })?;
        let mut inverse = vec![0.0_f32; d * d];
        let mut column = vec![0.0; d];
        for j in 0..d {
            column.fill(0.0);
            column[j] = 1.0;
            factor.solve(&mut column);
            for (i, &value) in column.iter().enumerate() {
                inverse[i * d + j] = value as f32;
            }
        }
        let mut reader = vec![0.0_f32; v * d];
        matmul(&mut reader, &sums, Layout::Plain, &inverse, Layout::Plain, v, d, d, false);
        for (row, sum) in reader.chunks_exact_mut(d).zip(sums.chunks_exact(d)) {
            // Var r = s' A s / n^2 up to the ridge, so dividing by its root leaves a z-score.
            let sd = dot(row, sum).max(1e-12).sqrt();
            for value in row {
                *value /= sd;
            }
        }
        let mean: Vec<f32> = mean.into_iter().map(|m| m as f32).collect();
        for row in offset.chunks_exact_mut(d) {
            row.iter_mut().zip(&mean).for_each(|(o, m)| *o += m);
        }
        Ok(Self { surface, index, count, mean, reader, centroid: offset, dim: d })
    }

    /// Where the texts that hold word `w` lie.
    pub fn centroid(&self, w: u32) -> &[f32] {
        &self.centroid[w as usize * self.dim..][..self.dim]
    }

    /// [`Lexicon::centroid`] relative to where all texts lie.
    pub fn offset(&self, w: u32) -> impl Iterator<Item = f32> + '_ {
        self.centroid(w).iter().zip(&self.mean).map(|(c, m)| c - m)
    }

    /// How many words there are.
    pub fn len(&self) -> usize {
        self.surface.len()
    }

    /// True without words.
    pub fn is_empty(&self) -> bool {
        self.surface.is_empty()
    }

    /// The usual written form of word `w`.
    pub fn surface(&self, w: u32) -> &str {
        &self.surface[w as usize]
    }

    /// The number under which a word is filed.
    pub fn find(&self, word: &str) -> Option<u32> {
        self.index.get(&words::key(word)).copied()
    }

    /// In how many auxiliary texts word `w` stands.
    pub fn count(&self, w: u32) -> u32 {
        self.count[w as usize]
    }

    /// The evidence for every word in a vector.
    pub fn read(&self, y: &[f32]) -> Vec<f32> {
        let centred: Vec<f32> = y.iter().zip(&self.mean).map(|(a, m)| a - m).collect();
        self.project(&centred)
    }

    /// The change of evidence along a direction (a difference of two vectors).
    pub fn project(&self, direction: &[f32]) -> Vec<f32> {
        let mut out = vec![0.0_f32; self.len()];
        matmul(&mut out, &self.reader, Layout::Plain, direction, Layout::Plain, self.len(), self.dim, 1, false);
        out
    }
}

/// Predicts the offsets of the words from `known` on, which no text holds, from the vectors of the words themselves.
fn place(view: &View, surface: &[String], count: &[u32], known: usize, offset: &mut [f32]) -> Result<(), Error> {
    /// Words with fewer texts say little about how a word's own vector and its texts' vectors belong together.
    const SEEN: u32 = 3;
    /// More words than this do not change the map.
    const TEACHERS: usize = 6000;
    /// Of the mean variance of a coordinate; the map has as many inputs as outputs and few thousand examples.
    const RIDGE: f64 = 0.3;
    let d = view.clean.dim();
    let teachers: Vec<usize> = (0..known).filter(|&w| count[w] >= SEEN).take(TEACHERS).collect();
    if teachers.is_empty() {
        return Ok(());
    }
    let asked: Vec<&str> = teachers.iter().copied().chain(known..surface.len()).map(|w| surface[w].as_str()).collect();
    // All attackers of a run ask for the same words.
    let own = Cached::new(view.encoder, view.workshop).encode_records(&asked)?;
    let (taught, new) = own.values().split_at(teachers.len() * d);
    let (mean, mut cov) = linear::moments(&Embeddings::new(taught.to_vec(), d)?);
    let centre = |rows: &[f32]| -> Vec<f32> {
        rows.chunks_exact(d).flat_map(|row| row.iter().zip(&mean).map(|(v, m)| v - *m as f32)).collect()
    };
    let places: Vec<f32> = teachers.iter().flat_map(|&w| offset[w * d..(w + 1) * d].iter().copied()).collect();
    let mut map = linear::cross(&centre(taught), &places, teachers.len(), d, d);
    let trace: f64 = (0..d).map(|i| cov[i * d + i]).sum();
    linear::add_to_diagonal(&mut cov, d, RIDGE * trace / d as f64 + 1e-9);
    let factor = linear::Cholesky::new(&cov, d)
        .ok_or_else(|| Error::Needs { attack: "search", what: "word vectors with a finite covariance".to_owned() })?;
    let mut column = vec![0.0; d];
    for j in 0..d {
        (0..d).for_each(|i| column[i] = map[i * d + j] / teachers.len() as f64);
        factor.solve(&mut column);
        (0..d).for_each(|i| map[i * d + j] = column[i]);
    }
    let map: Vec<f32> = map.into_iter().map(|v| v as f32).collect();
    let n = surface.len() - known;
    matmul(&mut offset[known * d..], &centre(new), Layout::Plain, &map, Layout::Plain, n, d, d, false);
    Ok(())
}

/// The `k` largest scores with their positions, best first; the lower position wins ties.
pub fn top(scores: &[f32], k: usize) -> Vec<(usize, f32)> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    let rank = |&a: &usize, &b: &usize| scores[b].total_cmp(&scores[a]).then(a.cmp(&b));
    if k < order.len() {
        order.select_nth_unstable_by(k, rank);
        order.truncate(k);
    }
    order.sort_unstable_by(rank);
    order.into_iter().map(|i| (i, scores[i])).collect()
}

/// Own rows, of which those are sought that explain a released one best.
pub struct Retrieval<'a> {
    rows: &'a Embeddings,
    /// `|x|^2 / 2` of each.
    half: Vec<f32>,
}

impl<'a> Retrieval<'a> {
    /// Measures the rows once.
    pub fn new(rows: &'a Embeddings) -> Self {
        Self { rows, half: rows.rows().map(|row| 0.5 * dot(row, row)).collect() }
    }

    /// The rows `x` that explain `y` best under isotropic noise, by `y.x - |x|^2 / 2`, best first: rows of one length by their
    /// product, others by their distance.
    pub fn nearest(&self, y: &[f32], k: usize) -> Vec<(usize, f32)> {
        let (n, d) = (self.rows.len(), self.rows.dim());
        let mut scores = vec![0.0_f32; n];
        matmul(&mut scores, self.rows.values(), Layout::Plain, y, Layout::Plain, n, d, 1, false);
        scores.iter_mut().zip(&self.half).for_each(|(score, half)| *score -= half);
        top(&scores, k)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::scene::Scene;
    use crate::encode::Encoder;

    #[test]
    fn words_that_no_text_holds_are_read_from_their_own_vectors() {
        let scene = Scene::new(300, "identity", &["zanzibar", "quixote"]);
        let view = scene.view();
        let adaptation = Adaptation::fit(&view).expect("fits");
        let seen = Lexicon::fit(&view, &adaptation, 5000, Reach::Seen).expect("fits");
        let beyond = Lexicon::fit(&view, &adaptation, 5000, Reach::Beyond).expect("fits");
        assert_eq!((seen.find("zanzibar"), beyond.len()), (None, seen.len() + 2));
        let (zanzibar, quixote) = (beyond.find("Zanzibar").expect("known"), beyond.find("quixote").expect("known"));
        assert_eq!((beyond.surface(zanzibar), beyond.count(zanzibar)), ("zanzibar", 0));
        let text = scene.records[3].text.replace(' ', " zanzibar ");
        let evidence = beyond.read(scene.encoder.encode(&[&text]).expect("encodes").row(0));
        assert!(top(&evidence, 12).iter().any(|&(w, _)| w as u32 == zanzibar), "{}", evidence[zanzibar as usize]);
        assert!(evidence[zanzibar as usize] > evidence[quixote as usize] + 1.0);
    }

    #[test]
    fn the_best_scores_come_first_and_the_lower_position_wins_ties() {
        let scores = [0.5, 2.0, -1.0, 2.0, 0.5];
        assert_eq!(top(&scores, 3), [(1, 2.0), (3, 2.0), (0, 0.5)]);
        assert_eq!(top(&scores, 9).len(), 5);
        assert!(top(&[], 2).is_empty());
    }

    #[test]
    fn the_nearest_row_is_the_one_with_the_largest_product() {
        let table = Embeddings::new(vec![1.0, 0.0, 0.6, 0.8, 0.0, 1.0], 2).expect("finite");
        assert_eq!(Retrieval::new(&table).nearest(&[0.6, 0.8], 1)[0].0, 1);
        let long = Embeddings::new(vec![9.0, 9.0, 0.5, 0.9], 2).expect("finite");
        assert_eq!(Retrieval::new(&long).nearest(&[0.6, 0.8], 1)[0].0, 1, "a long row is not near everything");
    }
}
