//! What a word does to the vector of the sentence that it stands in: the cheap model that picks the moves worth a query.

use crate::attack::text::lexicon::Lexicon;
use crate::attack::text::words;
use crate::attack::{Error, View, recover};
use crate::encode::{Cached, Embeddings};
use crate::nn::kernel::{Layout, dot, matmul};
use crate::seed;
use rand::RngExt;
use std::collections::BTreeMap;

/// The expected effect of each word of a lexicon.
///
/// # Formula
/// Words are taken out of auxiliary texts, and the difference `D = (e(text) - e(text without w)) (n + 2)`, `n` words in the
/// text, is regressed on where the texts that hold `w` lie: `D^_w = W'(c_w - m) + b`.
pub(super) struct Effects {
    table: Vec<f32>,
    /// Mean squared length of what an effect is off by.
    doubt: f32,
    dim: usize,
}

impl Effects {
    /// Embeds some thousand shortened texts, all attackers of a run the same ones.
    pub(super) fn fit(view: &View, lexicon: &Lexicon) -> Result<Self, Error> {
        /// Texts that lose a word. More do not change the map.
        const LESSONS: usize = 5000;
        /// Times that one text may lose a word.
        const ROUNDS: usize = 4;
        /// Of the mean variance of a coordinate.
        const RIDGE: f64 = 0.1;
        let d = view.clean.dim();
        let mut rng = seed::stream(view.seed, &view.inputs, "effects of words");
        let (mut shortened, mut full, mut taken, mut lengths) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let texts = view.auxiliary.len();
        for i in (0..texts).cycle().take((2 * LESSONS).min(ROUNDS * texts)) {
            let mut text = words::split(&view.auxiliary[i].text);
            let known: Vec<(usize, u32)> =
                text.iter().enumerate().filter_map(|(at, w)| lexicon.find(w).map(|w| (at, w))).collect();
            if text.len() < 4 || known.is_empty() {
                continue;
            }
            let (at, w) = known[rng.random_range(0..known.len())];
            lengths.push(text.len() as f32 + 2.0);
            text.remove(at);
            shortened.push(words::capitalised(&words::join(&text)));
            full.push(i);
            taken.push(w);
            if taken.len() == LESSONS {
                break;
            }
        }
        if taken.is_empty() {
            return Ok(Self { table: vec![0.0; lexicon.len() * d], doubt: 1.0, dim: d });
        }
        let texts: Vec<&str> = shortened.iter().map(String::as_str).collect();
        let without = Cached::new(view.encoder, view.workshop).encode_records(&texts)?;
        let mut effect = Vec::with_capacity(taken.len() * d);
        for ((&i, row), length) in full.iter().zip(without.rows()).zip(&lengths) {
            effect.extend(view.clean.row(i).iter().zip(row).map(|(with, without)| (with - without) * length));
        }
        let places = |words: &mut dyn Iterator<Item = u32>| -> Result<Embeddings, Error> {
            Ok(Embeddings::new(words.flat_map(|w| lexicon.offset(w)).collect(), d)?)
        };
        let (x, y) = (places(&mut taken.iter().copied())?, Embeddings::new(effect, d)?);
        let power = x.values().iter().map(|&v| f64::from(v * v)).sum::<f64>() / d as f64;
        let map = recover::ridge(&x, &y, RIDGE * power + 1e-9);
        let missed = map.apply(&x);
        let missed: f32 = missed.values().iter().zip(y.values()).map(|(a, b)| (a - b).powi(2)).sum();
        let doubt = missed / taken.len() as f32;
        let table = map.apply(&places(&mut (0..lexicon.len() as u32))?).values().to_vec();
        Ok(Self { table, doubt, dim: d })
    }

    /// How far every word leads in a direction.
    pub(super) fn along(&self, direction: &[f32]) -> Vec<f32> {
        let count = self.table.len() / self.dim;
        let mut out = vec![0.0_f32; count];
        matmul(&mut out, &self.table, Layout::Plain, direction, Layout::Plain, count, self.dim, 1, false);
        out
    }

    /// The effect of word `w` in a text of length one; divide by the number of words plus two.
    pub(super) fn of(&self, w: u32) -> &[f32] {
        &self.table[w as usize * self.dim..][..self.dim]
    }
}

/// What is believed about the effects while one sentence is searched: the expected ones, corrected by every query.
///
/// # Formula
/// A rewriting of `h` (`n` words) that adds pieces `A` and removes words `R` is expected at `(e + D) / |e + D|`,
/// `D = (sum_A u - sum_R u) / (n + 2)`. The effects `u` are Gaussian beliefs with one variance each; what a query shows is
/// shared among those that took part in proportion to their variances (Kalman).
pub(super) struct Belief<'a> {
    effects: &'a Effects,
    lexicon: &'a Lexicon,
    rows: Vec<f32>,
    doubt: Vec<f32>,
    index: BTreeMap<String, usize>,
}

impl<'a> Belief<'a> {
    pub(super) fn new(effects: &'a Effects, lexicon: &'a Lexicon) -> Self {
        Self { effects, lexicon, rows: Vec::new(), doubt: Vec::new(), index: BTreeMap::new() }
    }

    /// How many effects are held.
    pub(super) fn len(&self) -> usize {
        self.doubt.len()
    }

    /// The number of a piece's effect; of several words, the sum of theirs until queries say otherwise.
    pub(super) fn row(&mut self, piece: &[String]) -> usize {
        let key = words::key(&words::join(piece));
        if let Some(&row) = self.index.get(&key) {
            return row;
        }
        let row = self.len();
        let mut effect = vec![0.0_f32; self.effects.dim];
        for w in piece.iter().filter_map(|word| self.lexicon.find(word)) {
            effect.iter_mut().zip(self.effects.of(w)).for_each(|(e, u)| *e += u);
        }
        self.rows.extend(effect);
        self.doubt.push(self.effects.doubt * piece.len() as f32);
        self.index.insert(key, row);
        row
    }

    pub(super) fn effect(&self, row: usize) -> &[f32] {
        &self.rows[row * self.effects.dim..][..self.effects.dim]
    }

    /// Learns from the vector `child` that a rewriting of `parent` (`n` words) really has.
    pub(super) fn learn(&mut self, parent: &[f32], n: usize, child: &[f32], added: Option<usize>, removed: &[usize]) {
        let d = self.effects.dim;
        let share = 1.0 / (n as f32 + 2.0);
        let mut expected = vec![0.0_f32; d];
        if let Some(row) = added {
            expected.iter_mut().zip(self.effect(row)).for_each(|(e, u)| *e += share * u);
        }
        for &row in removed {
            expected.iter_mut().zip(self.effect(row)).for_each(|(e, u)| *e -= share * u);
        }
        let norm = parent.iter().zip(&expected).map(|(p, e)| (p + e).powi(2)).sum::<f32>().sqrt();
        let surprise: Vec<f32> = (0..d).map(|i| (norm * child[i] - parent[i] - expected[i]) / share).collect();
        let parts: Vec<(usize, f32)> =
            added.iter().map(|&row| (row, 1.0)).chain(removed.iter().map(|&row| (row, -1.0))).collect();
        let total: f32 = parts.iter().map(|&(row, _)| self.doubt[row]).sum::<f32>() + CONTEXT * self.effects.doubt;
        for (row, sign) in parts {
            let gain = self.doubt[row] / total;
            let effect = &mut self.rows[row * d..(row + 1) * d];
            effect.iter_mut().zip(&surprise).for_each(|(e, s)| *e += sign * gain * s);
            self.doubt[row] *= 1.0 - gain;
        }
    }
}

/// Variance of what a query shows about an effect, relative to what is doubted before any: the place in the sentence counts.
const CONTEXT: f32 = 0.3;

/// A sentence of the beam, and what rewriting it is expected to give.
///
/// What an effect is doubted by is left out of the squared length on purpose: with it the expectation would be truer and the
/// search worse, because whatever was not tried yet would look bad.
pub(super) struct Outlook {
    share: f32,
    product: f32,
    /// `|e|^2`.
    square: f32,
    /// Of each piece: products with the released vector and with the sentence's own, and its squared length.
    pieces: Vec<[f32; 3]>,
    words: Vec<[f32; 3]>,
    /// Products of the sentence's words with each other, and with the pieces.
    gram: Vec<f32>,
    cross: Vec<f32>,
}

impl Outlook {
    /// `words` are rows of the belief; `y` is the released vector and `e` the sentence's.
    pub(super) fn new(belief: &Belief, y: &[f32], e: &[f32], words: &[usize]) -> Self {
        let (d, n, pieces) = (y.len(), words.len(), belief.len());
        let own: Vec<f32> = words.iter().flat_map(|&row| belief.effect(row)).copied().collect();
        let views = [y, e].concat();
        let scalars = |rows: &[f32], count: usize| -> Vec<[f32; 3]> {
            let mut seen = vec![0.0_f32; 2 * count];
            matmul(&mut seen, rows, Layout::Plain, &views, Layout::Transposed, count, d, 2, false);
            seen.chunks_exact(2)
                .zip(rows.chunks_exact(d))
                .map(|(seen, row)| [seen[0], seen[1], dot(row, row)])
                .collect()
        };
        let table = &belief.rows[..];
        let mut gram = vec![0.0_f32; n * n];
        matmul(&mut gram, &own, Layout::Plain, &own, Layout::Transposed, n, d, n, false);
        let mut cross = vec![0.0_f32; n * pieces];
        matmul(&mut cross, &own, Layout::Plain, table, Layout::Transposed, n, d, pieces, false);
        Self {
            share: 1.0 / (n as f32 + 2.0),
            product: dot(y, e),
            square: dot(e, e).max(f32::MIN_POSITIVE),
            pieces: scalars(table, pieces),
            words: scalars(&own, n),
            gram,
            cross,
        }
    }

    /// Expected change of `y.e` when `words[from..to]` gives way to a piece, or to nothing.
    pub(super) fn change(&self, from: usize, to: usize, piece: Option<usize>) -> f32 {
        let n = self.words.len();
        let mut sum = piece.map_or([0.0; 3], |i| self.pieces[i]);
        for i in from..to {
            sum[0] -= self.words[i][0];
            sum[1] -= self.words[i][1];
            sum[2] += self.words[i][2] + 2.0 * (i + 1..to).map(|j| self.gram[i * n + j]).sum::<f32>();
            if let Some(p) = piece {
                sum[2] -= 2.0 * self.cross[i * self.pieces.len() + p];
            }
        }
        // The new vector is as long as the old one, whatever the encoder's length is.
        let norm = 1.0 + (2.0 * self.share * sum[1] + self.share.powi(2) * sum[2]) / self.square;
        (self.product + self.share * sum[0]) / norm.max(0.05).sqrt() - self.product
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::adapt::Adaptation;
    use crate::attack::scene::Scene;
    use crate::attack::text::lexicon::{self, Reach};
    use crate::encode::Encoder as _;

    fn words(text: &str) -> Vec<String> {
        words::split(text)
    }

    #[test]
    fn an_expected_change_is_that_of_the_sums() {
        let scene = Scene::new(200, "identity", &[]);
        let view = scene.view();
        let adaptation = Adaptation::fit(&view).expect("fits");
        let lexicon = Lexicon::fit(&view, &adaptation, 500, Reach::Seen).expect("fits");
        let effects = Effects::fit(&view, &lexicon).expect("fits");
        let mut belief = Belief::new(&effects, &lexicon);
        let sentence = words(&scene.records[3].text);
        let (y, e) = (scene.clean.row(9), scene.clean.row(3));
        let piece = belief.row(&words(&scene.records[9].text)[..2]);
        let rows: Vec<usize> = sentence.iter().map(|w| belief.row(std::slice::from_ref(w))).collect();
        let outlook = Outlook::new(&belief, y, e, &rows);
        for (from, to, with) in [(0, 0, Some(piece)), (1, 3, Some(piece)), (0, 2, None), (2, 2, None)] {
            let share = 1.0 / (sentence.len() as f32 + 2.0);
            let mut moved = e.to_vec();
            for (row, sign) in with.iter().map(|&row| (row, 1.0)).chain(rows[from..to].iter().map(|&row| (row, -1.0))) {
                moved.iter_mut().zip(belief.effect(row)).for_each(|(m, u)| *m += sign * share * u);
            }
            let want = dot(y, &moved) / dot(&moved, &moved).sqrt() - dot(y, e);
            let got = outlook.change(from, to, with);
            assert!((got - want).abs() < 1e-5, "{from}..{to}: {got} against {want}");
        }
    }

    #[test]
    fn a_query_teaches_what_it_showed() {
        let scene = Scene::new(200, "identity", &[]);
        let view = scene.view();
        let adaptation = Adaptation::fit(&view).expect("fits");
        let lexicon = Lexicon::fit(&view, &adaptation, 500, Reach::Seen).expect("fits");
        // Nothing is known at first.
        let effects =
            Effects { table: vec![0.0; lexicon.len() * scene.clean.dim()], doubt: 1.0, dim: scene.clean.dim() };
        let mut belief = Belief::new(&effects, &lexicon);
        let text = &scene.records[5].text;
        let sentence = words(text);
        let longer = format!("{text} {}", words(&scene.records[6].text)[0]);
        let both = scene.encoder.encode(&[text, &longer]).expect("encodes");
        let (parent, child) = (both.row(0), both.row(1));
        let added = belief.row(&words(&longer)[sentence.len()..]);
        let rows: Vec<usize> = sentence.iter().map(|w| belief.row(std::slice::from_ref(w))).collect();
        let actual = dot(child, child) - dot(child, parent);
        let expected = |belief: &Belief| {
            Outlook::new(belief, child, parent, &rows).change(sentence.len(), sentence.len(), Some(added))
        };
        let before = expected(&belief);
        for _ in 0..4 {
            belief.learn(parent, sentence.len(), child, Some(added), &[]);
        }
        let after = expected(&belief);
        assert!((after - actual).abs() < 0.4 * (before - actual).abs(), "{before}, then {after}; it is {actual}");
        assert!(belief.doubt[added] < 0.1, "what was seen is doubted less: {}", belief.doubt[added]);
    }

    #[test]
    fn the_effect_of_a_word_points_where_its_texts_lie() {
        let scene = Scene::new(300, "identity", &[]);
        let view = scene.view();
        let adaptation = Adaptation::fit(&view).expect("fits");
        let lexicon = Lexicon::fit(&view, &adaptation, 500, Reach::Seen).expect("fits");
        let effects = Effects::fit(&view, &lexicon).expect("fits");
        let (mut right, mut n) = (0, 0);
        for w in (0..lexicon.len() as u32).filter(|&w| lexicon.count(w) < 100) {
            let offset: Vec<f32> = lexicon.offset(w).collect();
            right += usize::from(dot(effects.of(w), &offset) > 0.0);
            n += 1;
        }
        assert!(n > 5 && right * 10 >= n * 9, "{right} of {n}");
        let towards = effects.along(effects.of(7));
        assert!(towards[7] > 0.0 && lexicon::top(&towards, 3).iter().any(|&(w, _)| w == 7), "a word leads its own way");
    }
}
