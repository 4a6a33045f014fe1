//! Hill climbing by re-embedding: rewrite a sentence word by word until its vector is the released one.

use super::bigrams::{Bigrams, EDGE};
use super::decoder::{Candidate, Decoder, Pairing, Writer};
use super::lexicon::{self, Lexicon, Reach};
use super::prior::{Prior, SmolLm};
use super::words;
use crate::attack::{Attack, Curve, Error, Guess, Inverter, Knowledge, Progress, View, adapt::Adaptation};
use crate::encode::Embeddings;
use crate::nn::kernel::dot;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Starts from retrieved and written sentences, proposes words and phrases, keeps what the released vector explains.
///
/// # Formula
/// Maximises `log p(y | e(h)) + w log p(h)` over sentences `h`: the noise-aware likelihood of
/// [`Adaptation::log_likelihood`], and the decoder's probability of `h` as plain text. The weight is small: at `w = 1` the
/// most probable sentence is a short one, and any reward for length is earned by filler.
///
/// Each round ranks thousands of moves (insert, replace, delete, swap a word; insert or replace a phrase of a retrieved
/// sentence) by a first-order estimate of their effect, embeds the best `batch`, and keeps a beam.
///
/// # Source
/// Word-level search with re-embedding as in Zhang et al. 2025 (`ZSInvert`). Differs: proposals come from a linear reader of
/// the vector and are ranked by their gradient before any query is spent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Search {
    /// Targets it attacks, as a declared subset; 0 for all.
    pub targets: usize,
    /// Encoder queries for each target.
    pub queries: usize,
    /// Sentences kept from round to round.
    pub beam: usize,
    /// Moves embedded in a round.
    pub batch: usize,
    /// Words that the lexicon proposes for a target.
    pub candidate_words: usize,
    /// Retrieved sentences that serve as starts and as a source of phrases.
    pub seeds: usize,
    /// Weight `w` of the language model.
    pub fluency: f64,
    /// Which language model has the last word: `own` is the decoder, read as plain text; the other is
    /// `smollm2-135m-instruct-q4_1`, which costs more than the encoder queries do and judges the best children of each
    /// round only.
    pub prior: String,
    /// The decoder that writes starts and judges fluency.
    pub decoder: Decoder,
}

impl Default for Search {
    fn default() -> Self {
        Self {
            targets: 0,
            queries: 2000,
            beam: 4,
            batch: 64,
            candidate_words: 120,
            seeds: 16,
            fluency: 0.03,
            prior: OWN.to_owned(),
            decoder: Decoder::default(),
        }
    }
}

/// The prior that needs no download.
const OWN: &str = "own";

impl Search {
    /// The language model that a study must open for it; `None` for the decoder's own.
    pub fn strong_prior(&self) -> Option<&str> {
        (self.prior != OWN).then_some(self.prior.as_str())
    }

    /// Every parameter that is out of range.
    pub fn check(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (ok, what) in [
            (self.queries >= 1, "`queries` must be at least 1"),
            (self.beam >= 1, "`beam` must be at least 1"),
            (self.batch >= 1, "`batch` must be at least 1"),
            (self.candidate_words >= 1, "`candidate_words` must be at least 1"),
            (self.seeds >= 1, "`seeds` must be at least 1"),
            (self.prior == OWN || self.prior == SmolLm::NAME, "`prior` must be `own` or `smollm2-135m-instruct-q4_1`"),
            (self.fluency >= 0.0 && self.fluency.is_finite(), "`fluency` must not be negative"),
        ] {
            if !ok {
                problems.push(what.to_owned());
            }
        }
        problems.extend(self.decoder.check().into_iter().map(|p| format!("decoder: {p}")));
        problems
    }
}

impl Attack for Search {
    fn needs(&self) -> Knowledge {
        Knowledge { auxiliary: true, pipeline: true, encoder: true, released: true, leaked_pairs: 0 }
    }

    fn fit<'a>(&self, view: &'a View<'a>, _: &str, progress: &dyn Progress) -> Result<Box<dyn Inverter + 'a>, Error> {
        let adaptation = Adaptation::fit(view)?;
        let writer = Writer::train(view, &adaptation, &self.decoder, Pairing::True, progress)?;
        let lexicon = Lexicon::fit(view, &adaptation, 12_000, Reach::Beyond)?;
        let bigrams = Bigrams::fit(view.auxiliary.iter().map(|r| r.text.as_str()));
        let prior = match self.strong_prior() {
            None => None,
            Some(name) => Some(view.prior.ok_or_else(|| Error::Needs {
                attack: "search",
                what: format!("the language model `{name}`, which this view does not hold"),
            })?),
        };
        let params = self.clone();
        Ok(Box::new(Fitted { view, adaptation, writer, lexicon, bigrams, prior, params }))
    }
}

struct Fitted<'a> {
    view: &'a View<'a>,
    adaptation: Adaptation<'a>,
    writer: Writer,
    lexicon: Lexicon,
    bigrams: Bigrams,
    prior: Option<&'a dyn Prior>,
    params: Search,
}

/// Rounds without a better sentence after which a search ends.
const PATIENCE: usize = 5;
/// Children of a round that a strong prior judges; the others are too far behind to catch up.
const JUDGED: usize = 12;
/// The most frequent words are always proposed: no vector speaks of them, and every sentence needs them.
const FUNCTION_WORDS: u32 = 60;
/// Starting sentences whose phrases are proposed; each adds some forty pieces to every round's ranking.
const PHRASE_SEEDS: usize = 8;

/// A sentence under way.
#[derive(Clone)]
struct Hypothesis {
    words: Vec<String>,
    text: String,
    vector: Vec<f32>,
    /// `log p(y | e(h))`.
    evidence: f64,
    /// With the decoder's language model: what moves are ranked by.
    quick: f64,
    /// With the prior that has the last word.
    score: f64,
}

/// How fast a piece's promise follows what it gave, and how much one try can say.
const LEARNING: f32 = 0.3;
const SURPRISE: f32 = 5.0;

/// A rewriting: `words[from..to]` gives way to a piece, or to nothing.
#[derive(Clone, Copy)]
struct Move {
    hypothesis: usize,
    from: usize,
    to: usize,
    piece: Option<usize>,
    gain: f32,
}

impl Inverter for Fitted<'_> {
    fn invert(&self, released: &Embeddings, task: &str, progress: &dyn Progress) -> Result<Vec<Guess>, Error> {
        let written = self.writer.candidates(&self.adaptation, released, self.view.seed, task, progress)?;
        let done = AtomicUsize::new(0);
        (0..released.len())
            .into_par_iter()
            .map(|i| {
                if progress.is_interrupted() {
                    return Err(Error::Interrupted);
                }
                let guess = self.climb(released.row(i), &written[i])?;
                progress.update(done.fetch_add(1, Ordering::Relaxed) + 1, released.len(), "targets searched");
                Ok(guess)
            })
            .collect()
    }

    fn origin(&self) -> Option<String> {
        self.writer.origin()
    }

    fn curves(&self) -> Vec<Curve> {
        self.writer.curves().to_vec()
    }
}

impl Fitted<'_> {
    fn climb(&self, y: &[f32], written: &[Candidate]) -> Result<Guess, Error> {
        let p = &self.params;
        let retrieved = lexicon::nearest(y, self.view.clean, p.seeds);
        let mut starts: Vec<Vec<String>> =
            retrieved.iter().map(|&(i, _)| self.normal(&self.view.auxiliary[i].text)).collect();
        starts.extend(written.iter().map(|c| self.normal(&c.text)));
        let mut pieces = self.pieces(y, &starts);

        let mut seen: BTreeSet<String> = BTreeSet::new();
        let mut queries = 0;
        let mut trace = Vec::new();
        let starts = starts.into_iter().map(|words| (words, None)).collect();
        let mut beam: Vec<Hypothesis> =
            self.evaluate(y, starts, &mut seen, &mut queries)?.into_iter().map(|(h, _)| h).collect();
        self.judge(&mut beam)?;
        self.keep(&mut beam);
        let mut stale = 0;
        while queries < p.queries && stale < PATIENCE && !beam.is_empty() {
            trace.push((queries, cosine(y, &beam[0].vector)));
            let best = beam[0].score;
            let moves = self.moves(y, &beam, &pieces);
            let budget = p.batch.min(p.queries - queries);
            let rewritten: Vec<(Vec<String>, Option<Move>)> = moves
                .into_iter()
                .map(|m| {
                    let words = &beam[m.hypothesis].words;
                    let with = m.piece.map_or(&[][..], |i| &pieces[i].text[..]);
                    ([&words[..m.from], with, &words[m.to..]].concat(), Some(m))
                })
                .filter(|(words, _)| !seen.contains(&render(words)))
                .take(budget)
                .collect();
            if rewritten.is_empty() {
                break;
            }
            let parents: Vec<f64> = beam.iter().map(|h| h.quick).collect();
            let mut children = Vec::new();
            for (child, origin) in self.evaluate(y, rewritten, &mut seen, &mut queries)? {
                if let Some(Move { hypothesis, piece: Some(piece), gain, .. }) = origin {
                    // A piece that promised more than it gave makes room for pieces that were not tried yet.
                    let surprise = (child.quick - parents[hypothesis]) as f32 - gain;
                    pieces[piece].bias += LEARNING * surprise.clamp(-SURPRISE, SURPRISE);
                }
                children.push(child);
            }
            self.judge(&mut children)?;
            beam.append(&mut children);
            self.keep(&mut beam);
            stale = if beam[0].score > best + 1e-9 { 0 } else { stale + 1 };
        }
        let Some(best) = beam.first() else { return Ok(Guess::new(String::new(), f64::NEG_INFINITY)) };
        trace.push((queries, cosine(y, &best.vector)));
        Ok(Guess { text: best.text.clone(), score: best.score, queries, trace })
    }

    /// A sentence as words in their usual form: the first word loses the capital that it owes to its place.
    fn normal(&self, text: &str) -> Vec<String> {
        let mut words = words::split(text);
        if let Some(first) = words.iter_mut().find(|w| words::is_word(w))
            && let Some(w) = self.lexicon.find(first)
        {
            self.lexicon.surface(w).clone_into(first);
        }
        words
    }

    /// What is worth trying: the words with the strongest evidence, those of the starting sentences, and their phrases.
    fn pieces(&self, y: &[f32], starts: &[Vec<String>]) -> Vec<Piece> {
        let evidence = self.lexicon.read(y);
        let mut chosen: BTreeSet<u32> =
            lexicon::top(&evidence, self.params.candidate_words).into_iter().map(|(w, _)| w as u32).collect();
        chosen.extend(0..FUNCTION_WORDS.min(self.lexicon.len() as u32));
        let mut votes: BTreeMap<u32, usize> = BTreeMap::new();
        for w in starts.iter().flatten().filter_map(|w| self.lexicon.find(w)) {
            *votes.entry(w).or_default() += 1;
        }
        let mut votes: Vec<(u32, usize)> = votes.into_iter().collect();
        votes.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
        chosen.extend(votes.into_iter().take(self.params.candidate_words).map(|(w, _)| w));
        let mut texts: BTreeSet<Vec<String>> =
            chosen.into_iter().map(|w| vec![self.lexicon.surface(w).to_owned()]).collect();
        for words in starts.iter().take(PHRASE_SEEDS) {
            for n in 2..=3 {
                texts.extend(words.windows(n).map(<[String]>::to_vec));
            }
        }
        texts.extend([",", "."].map(|mark| vec![mark.to_owned()]));
        texts
            .into_iter()
            .map(|text| {
                let words = text.iter().map(|w| (self.lexicon.find(w), self.bigrams.id(w))).collect();
                Piece { text, words, bias: 0.0 }
            })
            .collect()
    }

    fn evaluate(
        &self,
        y: &[f32],
        sentences: Vec<(Vec<String>, Option<Move>)>,
        seen: &mut BTreeSet<String>,
        queries: &mut usize,
    ) -> Result<Vec<(Hypothesis, Option<Move>)>, Error> {
        let fresh: Vec<(Vec<String>, String, Option<Move>)> = sentences
            .into_iter()
            .filter_map(|(words, origin)| {
                let text = render(&words);
                (!text.is_empty() && seen.insert(text.clone())).then_some((words, text, origin))
            })
            .collect();
        let texts: Vec<&str> = fresh.iter().map(|(_, text, _)| text.as_str()).collect();
        if texts.is_empty() {
            return Ok(Vec::new());
        }
        *queries += texts.len();
        let vectors = self.view.encoder.encode(&texts)?;
        let fluency = self.writer.log_probs(&self.adaptation, None, &texts)?;
        Ok(fresh
            .iter()
            .zip(vectors.rows())
            .zip(fluency)
            .map(|(((words, text, origin), vector), log_prob)| {
                let evidence = self.adaptation.log_likelihood(y, vector);
                let quick = evidence + self.params.fluency * log_prob;
                let (words, text, vector) = (words.clone(), text.clone(), vector.to_vec());
                (Hypothesis { words, text, vector, evidence, quick, score: quick }, *origin)
            })
            .collect())
    }

    /// Lets a strong prior judge the best of `hypotheses`; the rest is dropped.
    fn judge(&self, hypotheses: &mut Vec<Hypothesis>) -> Result<(), Error> {
        let Some(prior) = self.prior else { return Ok(()) };
        hypotheses.sort_by(|a, b| b.quick.total_cmp(&a.quick).then_with(|| a.text.cmp(&b.text)));
        hypotheses.truncate(JUDGED);
        let texts: Vec<&str> = hypotheses.iter().map(|h| h.text.as_str()).collect();
        let log_probs = prior.log_probs(&texts)?;
        for (h, log_prob) in hypotheses.iter_mut().zip(log_probs) {
            h.score = h.evidence + self.params.fluency * log_prob;
        }
        Ok(())
    }

    fn keep(&self, beam: &mut Vec<Hypothesis>) {
        beam.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| a.text.cmp(&b.text)));
        beam.truncate(self.params.beam);
    }

    /// The most promising rewritings of the beam, best first, by first-order effect on the score.
    fn moves(&self, y: &[f32], beam: &[Hypothesis], pieces: &[Piece]) -> Vec<Move> {
        let mut moves: Vec<Move> = Vec::new();
        for (hypothesis, h) in beam.iter().enumerate() {
            let scene = Scene::new(self, y, h);
            let pulls: Vec<f32> =
                pieces.iter().map(|p| p.words.iter().map(|&(w, _)| scene.pull(self, w)).sum()).collect();
            let n = h.words.len();
            let mut offer = |from: usize, to: usize, piece: Option<usize>| {
                let (ids, pull, bias) =
                    piece.map_or((&[][..], 0.0, 0.0), |i| (&pieces[i].words[..], pulls[i], pieces[i].bias));
                let gain = scene.gain(self, from, to, ids, pull) + bias;
                moves.push(Move { hypothesis, from, to, piece, gain });
            };
            for from in 0..=n {
                for (i, piece) in pieces.iter().enumerate() {
                    offer(from, from, Some(i));
                    if from < n {
                        offer(from, from + 1, Some(i));
                    }
                    if piece.words.len() > 1 && from + 2 <= n {
                        offer(from, from + 2, Some(i));
                    }
                }
                for to in from + 1..=(from + 3).min(n) {
                    offer(from, to, None);
                }
            }
        }
        // Sorting them all would cost more than the encoder: only the best few are ever used.
        let wanted = (4 * self.params.batch).min(moves.len());
        if wanted < moves.len() {
            moves.select_nth_unstable_by(wanted, |a, b| b.gain.total_cmp(&a.gain));
            moves.truncate(wanted);
        }
        moves.sort_by(|a, b| b.gain.total_cmp(&a.gain));
        moves
    }
}

/// What a move can put into a sentence: one word, or a phrase of a starting sentence.
struct Piece {
    text: Vec<String>,
    /// Lexicon number and bigram number of each word.
    words: Vec<(Option<u32>, u32)>,
    /// What it gave beyond its promise so far.
    bias: f32,
}

/// One hypothesis seen from the released vector: what each word contributes, to first order.
struct Scene {
    tangent: Vec<f32>,
    ids: Vec<u32>,
    pulls: Vec<f32>,
    length: f32,
    scale: f32,
}

impl Scene {
    fn new(search: &Fitted, y: &[f32], h: &Hypothesis) -> Self {
        let along: f32 = y.iter().zip(&h.vector).map(|(a, b)| a * b).sum();
        let tangent = y.iter().zip(&h.vector).map(|(a, b)| a - along * b).collect();
        let mut scene = Self {
            tangent,
            ids: h.words.iter().map(|w| search.bigrams.id(w)).collect(),
            pulls: Vec::new(),
            length: h.words.len() as f32 + 2.0,
            scale: 1.0 / search.adaptation.sigma().max(0.1).powi(2) as f32,
        };
        scene.pulls = h.words.iter().map(|w| scene.pull(search, search.lexicon.find(w))).collect();
        scene
    }

    /// How far the texts that hold a word lie in the direction that is still missing.
    fn pull(&self, search: &Fitted, word: Option<u32>) -> f32 {
        word.map_or(0.0, |w| dot(search.lexicon.centroid(w), &self.tangent))
    }

    /// First-order change of the score when `words[from..to]` gives way to `with`.
    fn gain(&self, search: &Fitted, from: usize, to: usize, with: &[(Option<u32>, u32)], pull: f32) -> f32 {
        let at = |i: usize| self.ids.get(i).copied().unwrap_or(EDGE);
        let left = from.checked_sub(1).map_or(EDGE, at);
        let chain = |middle: &mut dyn Iterator<Item = u32>| {
            let (mut total, mut last) = (0.0, left);
            for id in middle {
                total += search.bigrams.log_prob(last, id);
                last = id;
            }
            total + search.bigrams.log_prob(last, at(to))
        };
        let new = chain(&mut with.iter().map(|&(_, id)| id));
        let old = chain(&mut (from..to).map(at));
        let lost: f32 = self.pulls[from..to].iter().sum();
        self.scale * (pull - lost) / self.length + search.params.fluency as f32 * (new - old)
    }
}

/// Words as a text with a capital at its start.
fn render(words: &[String]) -> String {
    words::capitalised(&words::join(words))
}

pub(super) fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(p, q)| f64::from(*p) * f64::from(*q)).sum::<f64>();
    let norm = (dot(a, a) * dot(b, b)).sqrt();
    if norm > 0.0 { dot(a, b) / norm } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_is_rendered_with_a_capital_and_tight_marks() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(render(&words("the bank 's chief , said so .")), "The bank 's chief, said so.");
        assert_eq!(render(&[]), "");
        assert_eq!(render(&words("3 men left")), "3 men left");
    }

    #[test]
    fn a_vector_without_length_has_cosine_zero() {
        assert_eq!(cosine(&[0.0, 0.0], &[1.0, 0.0]), 0.0);
        assert!((cosine(&[2.0, 0.0], &[1.0, 1.0]) - 0.5_f64.sqrt()).abs() < 1e-9);
    }
}
