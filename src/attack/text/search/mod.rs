//! Hill climbing by re-embedding: rewrite a sentence word by word until its vector is the released one.

mod effect;
mod moves;

use super::bigrams::Bigrams;
use super::corrector::Mender;
use super::decoder::{Candidate, Decoder, Pairing, Writer};
use super::lexicon::{self, Lexicon, Reach, Retrieval};
use super::prior::{Prior, SmolLm};
use super::words;
use crate::attack::{Attack, Curve, Error, Guess, Inverter, Knowledge, Progress, View, adapt::Adaptation};
use crate::encode::Embeddings;
use crate::nn::kernel::dot;
use crate::seed;
use effect::{Belief, Effects};
use moves::{Change, Move, Parent, Piece, Ranking, joined, phrases};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Starts from retrieved and written sentences, proposes words and phrases, keeps what the released vector explains.
///
/// # Formula
/// Maximises `log p(y | e(h)) + w log p(h)` over sentences `h`: the noise-aware likelihood of
/// [`Adaptation::log_likelihood`], and the decoder's probability of `h` as plain text. `w = fluency + trust (sigma / s)^2`,
/// `s = max(sigma, 0.1)` as in the likelihood. Without noise the weight is small: the vector is right, and more of the prior
/// only makes sentences short. With noise, a search that follows the vector alone finds sentences that explain the noise:
/// `trust = 1` would be the most probable sentence, were the decoder's probabilities true.
///
/// Each round ranks thousands of moves (insert, replace, delete a word or a phrase, exchange neighbouring spans) by what
/// they are expected to do to the vector, embeds the best `batch` and combinations of those that helped, learns from what
/// it saw, and keeps a beam. It begins with a larger `w`, which cools while nothing gets better: sentences first, then the
/// words that the vector asks for. When nothing gets better at the smallest weight it looks for words in all of the lexicon;
/// when that does not help, the decoder tells the words found so far anew, the corrector mends what was found, and the search
/// goes on from there and from the best sentence.
///
/// # Source
/// Word-level search with re-embedding as in Zhang et al. 2025 (`ZSInvert`). Differs: proposals come from a linear reader of
/// the vector, and a model of what each word does to a sentence's vector, corrected by every query, picks the moves.
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
    /// When nothing gets better, the decoder writes new starts with the words found so far; their bonus, in nats.
    pub bonus: f64,
    /// Weight of the language model where there is no noise.
    pub fluency: f64,
    /// What noise adds to it.
    pub trust: f64,
    /// How many times heavier than `fluency` it weighs at first, where noise does not ask for more.
    pub heat: f64,
    /// Which language model has the last word: `own` is the decoder, read as plain text; the other is
    /// `smollm2-135m-instruct-q4_1`, which costs more than the encoder queries do and judges the best children of each
    /// round only.
    pub prior: String,
    /// The trained corrector that mends sentences, as in [`super::corrector::Corrector::pretrained`]; it is used as it is kept.
    pub corrector: String,
    /// The decoder that writes starts and judges fluency.
    pub decoder: Decoder,
}

impl Default for Search {
    fn default() -> Self {
        Self {
            targets: 0,
            queries: 2000,
            beam: 4,
            batch: 32,
            candidate_words: 120,
            seeds: 16,
            bonus: 3.0,
            fluency: 0.05,
            trust: 0.5,
            heat: 3.0,
            prior: OWN.to_owned(),
            corrector: "auto".to_owned(),
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
            (self.trust >= 0.0 && self.trust.is_finite(), "`trust` must not be negative"),
            (self.heat >= 1.0 && self.heat.is_finite(), "`heat` must be at least 1"),
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
        Ok(Box::new(self.open(view, progress)?))
    }
}

impl Search {
    fn open<'a>(&self, view: &'a View<'a>, progress: &dyn Progress) -> Result<Fitted<'a>, Error> {
        let adaptation = Adaptation::fit(view)?;
        let writer = Writer::train(view, &adaptation, &self.decoder, Pairing::True, progress)?;
        let lexicon = Lexicon::fit(view, &adaptation, 12_000, Reach::Beyond)?;
        let effects = Effects::fit(view, &lexicon)?;
        let bigrams = Bigrams::fit(view.auxiliary.iter().map(|r| r.text.as_str()));
        let prior = match self.strong_prior() {
            None => None,
            Some(name) => Some(view.prior.ok_or_else(|| Error::Needs {
                attack: "search",
                what: format!("the language model `{name}`, which this view does not hold"),
            })?),
        };
        let mender = Mender::kept(&self.corrector, view, &writer)?;
        let reads_case = reads_case(view)?;
        let params = self.clone();
        let own = Retrieval::new(view.clean);
        Ok(Fitted { view, own, adaptation, writer, mender, lexicon, effects, bigrams, prior, reads_case, params })
    }
}

struct Fitted<'a> {
    view: &'a View<'a>,
    own: Retrieval<'a>,
    adaptation: Adaptation<'a>,
    writer: Writer,
    mender: Option<Mender>,
    lexicon: Lexicon,
    effects: Effects,
    bigrams: Bigrams,
    prior: Option<&'a dyn Prior>,
    reads_case: bool,
    params: Search,
}

/// Rounds without a better sentence after which a lap ends.
const PATIENCE: usize = 4;
/// Rounds without a better sentence after which the language model loses weight.
const COOLS_AFTER: usize = 2;
/// What is left of its weight then.
const COOLING: f64 = 0.5;
/// Children of a round that the language model reads; the others are too far behind to catch up.
const JUDGED: usize = 12;
/// The most frequent words are always proposed: no vector speaks of them, and every sentence needs them.
const FUNCTION_WORDS: u32 = 60;
/// Moves that are ranked for each that is tried.
const RANKED: usize = 4;
/// Words that a sentence without better neighbours is given to choose from, of all the lexicon holds.
const WIDENED: usize = 40;
/// Sentences that the decoder writes for a new start.
const RETOLD: usize = 32;
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
    /// `log p(h)`, once the language model was asked.
    log_prob: f64,
    /// Both, by the weight of the lap.
    score: f64,
}

/// The search for one target.
struct Run<'a> {
    y: &'a [f32],
    progress: &'a dyn Progress,
    seen: BTreeSet<String>,
    queries: usize,
    trace: Vec<(usize, f64)>,
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
                let mut rng = seed::stream(self.view.seed, task, &format!("retellings {i}"));
                let guess = self.climb(released.row(i), &written[i], &mut rng, progress)?;
                progress.update(done.fetch_add(1, Ordering::Relaxed) + 1, released.len(), "targets searched");
                Ok(guess)
            })
            .collect()
    }

    fn origin(&self) -> Option<String> {
        self.mender.as_ref().map_or_else(|| self.writer.origin(), |mender| mender.origin(&self.writer))
    }

    fn curves(&self) -> Vec<Curve> {
        self.writer.curves().to_vec()
    }
}

impl Fitted<'_> {
    fn climb(
        &self,
        y: &[f32],
        written: &[Candidate],
        rng: &mut seed::Stream,
        progress: &dyn Progress,
    ) -> Result<Guess, Error> {
        let p = &self.params;
        let retrieved = self.own.nearest(y, p.seeds);
        let mut starts: Vec<Vec<String>> =
            retrieved.iter().map(|&(i, _)| self.normal(&self.view.auxiliary[i].text)).collect();
        starts.extend(written.iter().map(|c| self.normal(&c.text)));
        starts.truncate(p.queries);
        let mut belief = Belief::new(&self.effects, &self.lexicon);
        let mut pieces = self.pieces(&self.spoken(y, &starts), &mut belief);

        let mut run = Run { y, progress, seen: BTreeSet::new(), queries: 0, trace: Vec::new() };
        let mut found: Vec<Hypothesis> = Vec::new();
        loop {
            let before = run.queries;
            let first = starts.drain(..).map(|words| (words, None)).collect();
            let first = self.evaluate(&mut run, first)?.into_iter().map(|(h, _)| h).collect();
            let mut beam: Vec<Hypothesis> = found.first().cloned().into_iter().collect();
            self.weigh(&mut beam, self.hot());
            self.admit(&mut beam, first, self.hot())?;
            self.lap(&mut run, &mut beam, &mut pieces, &mut belief)?;
            found.append(&mut beam);
            self.weigh(&mut found, self.weight());
            found.dedup_by(|a, b| a.text == b.text);
            if run.queries >= p.queries
                || run.queries == before
                || found.first().is_none_or(|best| self.is_exact(y, best))
            {
                break;
            }
            starts = self.mend(y, &found[0], rng)?;
            starts.extend(self.retell(y, &found[0], rng)?.iter().map(|text| self.normal(text)));
            starts.truncate(p.queries - run.queries);
            pieces.extend(self.pieces(&self.voices(&starts, &found), &mut belief));
            pieces.sort_by(|a, b| a.text.cmp(&b.text));
            pieces.dedup_by(|a, b| a.text == b.text);
        }
        let Some(best) = found.first() else { return Ok(Guess::new(String::new(), f64::NEG_INFINITY)) };
        run.trace.push((run.queries, cosine(y, &best.vector)));
        Ok(Guess { queries: run.queries, trace: run.trace, ..Guess::new(self.cased(best)?, best.score) })
    }

    /// What the corrector makes of a sentence.
    fn mend(&self, y: &[f32], h: &Hypothesis, rng: &mut seed::Stream) -> Result<Vec<Vec<String>>, Error> {
        let Some(mender) = &self.mender else { return Ok(Vec::new()) };
        let denoised = self.adaptation.denoise(&Embeddings::new(y.to_vec(), y.len())?);
        let texts = mender.rewrite(&self.writer, denoised.row(0), (&h.text, &h.vector), rng)?;
        Ok(texts.iter().map(|text| self.normal(text)).collect())
    }

    /// Rewrites the beam until nothing gets better at the smallest weight or all queries are spent.
    fn lap(
        &self,
        run: &mut Run,
        beam: &mut Vec<Hypothesis>,
        pieces: &mut Vec<Piece>,
        belief: &mut Belief,
    ) -> Result<(), Error> {
        let scale = 1.0 / self.adaptation.spread().powi(2) as f32;
        let (mut weight, mut stale) = (self.hot(), 0);
        while run.queries < self.params.queries && stale < PATIENCE && !beam.is_empty() {
            if run.progress.is_interrupted() {
                return Err(Error::Interrupted);
            }
            if self.is_exact(run.y, &beam[0]) {
                break;
            }
            if stale >= COOLS_AFTER && weight > self.weight() {
                weight = (COOLING * weight).max(self.weight());
                self.weigh(beam, weight);
                stale = 0;
            }
            let ranking = Ranking { bigrams: &self.bigrams, scale, fluency: weight as f32 };
            if stale > 0 {
                self.widen(run.y, &beam[0], pieces, belief);
            }
            let reached = cosine(run.y, &beam[0].vector);
            let best_so_far = run.trace.last().map_or(f64::NEG_INFINITY, |t| t.1);
            run.trace.push((run.queries, reached.max(best_so_far)));
            let best = beam[0].score;
            let parents: Vec<Parent> = beam.iter().map(|h| Parent { words: &h.words, vector: &h.vector }).collect();
            let moves = ranking.moves(run.y, &parents, pieces, belief, RANKED * self.params.batch);
            let room = self.params.batch.min(self.params.queries - run.queries);
            let rewritten: Vec<(Vec<String>, Option<Move>)> = moves
                .into_iter()
                .map(|m| (m.change.apply(parents[m.hypothesis].words, pieces), Some(m)))
                .filter(|(words, _)| !run.seen.contains(&render(words)))
                .take(room)
                .collect();
            if rewritten.is_empty() {
                break;
            }
            let (mut children, mut gains) = (Vec::new(), Vec::new());
            for (child, origin) in self.evaluate(run, rewritten)? {
                if let Some(origin) = origin {
                    let parent = &beam[origin.hypothesis];
                    gains.push((child.evidence - parent.evidence, origin));
                    if let Change::Replace { from, to, piece } = origin.change {
                        let added = piece.map(|i| pieces[i].row());
                        let removed: Vec<usize> =
                            parent.words[from..to].iter().map(|w| belief.row(std::slice::from_ref(w))).collect();
                        belief.learn(&parent.vector, parent.words.len(), &child.vector, added, &removed);
                    }
                }
                children.push(child);
            }
            let room = self.params.queries - run.queries;
            let joined = joined(&gains, &parents, pieces).into_iter().map(|words| (words, None)).take(room).collect();
            children.extend(self.evaluate(run, joined)?.into_iter().map(|(child, _)| child));
            self.admit(beam, children, weight)?;
            stale = if beam[0].score > best + 1e-9 { 0 } else { stale + 1 };
        }
        Ok(())
    }

    /// Without noise, a sentence with the very vector that was released is the text: nothing is left to search.
    fn is_exact(&self, y: &[f32], h: &Hypothesis) -> bool {
        self.adaptation.sigma() == 0.0 && cosine(y, &h.vector) > 1.0 - 1e-6
    }

    /// Adds the words of the whole lexicon that lead furthest in the direction that is still missing.
    fn widen(&self, y: &[f32], h: &Hypothesis, pieces: &mut Vec<Piece>, belief: &mut Belief) {
        let along = dot(y, &h.vector) / dot(&h.vector, &h.vector).max(f32::MIN_POSITIVE);
        let tangent: Vec<f32> = y.iter().zip(&h.vector).map(|(a, b)| a - along * b).collect();
        let promise = self.effects.along(&tangent);
        for (w, _) in lexicon::top(&promise, WIDENED) {
            let text = vec![self.lexicon.surface(w as u32).to_owned()];
            if pieces.iter().all(|piece| piece.text != text) {
                pieces.push(Piece::new(text, &self.bigrams, belief));
            }
        }
    }

    /// Sentences of the decoder that favour the words of what was found.
    fn retell(&self, y: &[f32], h: &Hypothesis, rng: &mut seed::Stream) -> Result<Vec<String>, Error> {
        let words: BTreeSet<&str> = h.words.iter().map(String::as_str).filter(|w| words::is_word(w)).collect();
        let bonus = self.params.bonus as f32;
        let words: Vec<(&str, f32)> = words.into_iter().map(|w| (w, bonus)).collect();
        self.writer.retell(&self.adaptation, y, &words, RETOLD, rng)
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

    /// What is worth trying first: the words with the strongest evidence, those of the starting sentences, and their phrases.
    fn spoken(&self, y: &[f32], starts: &[Vec<String>]) -> BTreeSet<Vec<String>> {
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
        texts.extend(phrases(starts.iter().take(PHRASE_SEEDS)));
        texts.extend([",", "."].map(|mark| vec![mark.to_owned()]));
        texts
    }

    /// What new starts add to that.
    fn voices(&self, starts: &[Vec<String>], found: &[Hypothesis]) -> BTreeSet<Vec<String>> {
        let words = starts.iter().chain(found.iter().map(|h| &h.words)).flatten();
        let mut texts: BTreeSet<Vec<String>> =
            words.filter_map(|w| self.lexicon.find(w)).map(|w| vec![self.lexicon.surface(w).to_owned()]).collect();
        texts.extend(phrases(found.iter().map(|h| &h.words)));
        texts
    }

    fn pieces(&self, texts: &BTreeSet<Vec<String>>, belief: &mut Belief) -> Vec<Piece> {
        texts.iter().map(|text| Piece::new(text.clone(), &self.bigrams, belief)).collect()
    }

    fn evaluate(
        &self,
        run: &mut Run,
        sentences: Vec<(Vec<String>, Option<Move>)>,
    ) -> Result<Vec<(Hypothesis, Option<Move>)>, Error> {
        let fresh: Vec<(Vec<String>, String, Option<Move>)> = sentences
            .into_iter()
            .filter_map(|(words, origin)| {
                let text = render(&words);
                (!text.is_empty() && run.seen.insert(text.clone())).then_some((words, text, origin))
            })
            .collect();
        let texts: Vec<&str> = fresh.iter().map(|(_, text, _)| text.as_str()).collect();
        if texts.is_empty() {
            return Ok(Vec::new());
        }
        run.queries += texts.len();
        let vectors = self.view.encoder.encode(&texts)?;
        Ok(fresh
            .iter()
            .zip(vectors.rows())
            .map(|((words, text, origin), vector)| {
                let evidence = self.adaptation.log_likelihood(run.y, vector);
                let (words, text, vector) = (words.clone(), text.clone(), vector.to_vec());
                (Hypothesis { words, text, vector, evidence, log_prob: 0.0, score: evidence }, *origin)
            })
            .collect())
    }

    /// Scores `children` and takes the best into the beam.
    ///
    /// No text is likelier than certain, so a child whose evidence alone falls short of the beam's last is not read at all.
    fn admit(&self, beam: &mut Vec<Hypothesis>, mut children: Vec<Hypothesis>, weight: f64) -> Result<(), Error> {
        let bar = beam.last().filter(|_| beam.len() >= self.params.beam).map_or(f64::NEG_INFINITY, |last| last.score);
        children.retain(|child| child.evidence > bar);
        children.sort_by(|a, b| b.evidence.total_cmp(&a.evidence).then_with(|| a.text.cmp(&b.text)));
        children.truncate(JUDGED);
        if children.is_empty() {
            return Ok(());
        }
        let texts: Vec<&str> = children.iter().map(|h| h.text.as_str()).collect();
        let log_probs = match self.prior {
            Some(prior) => prior.log_probs(&texts)?,
            None => self.writer.log_probs(&self.adaptation, None, &texts)?,
        };
        for (child, log_prob) in children.iter_mut().zip(log_probs) {
            child.log_prob = log_prob;
        }
        beam.append(&mut children);
        self.weigh(beam, weight);
        Ok(())
    }

    /// Scores sentences that the language model has read by its weight, and keeps the best.
    fn weigh(&self, beam: &mut Vec<Hypothesis>, weight: f64) {
        for h in beam.iter_mut() {
            h.score = h.evidence + weight * h.log_prob;
        }
        beam.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| a.text.cmp(&b.text)));
        beam.truncate(self.params.beam);
    }

    /// The language model's weight.
    fn weight(&self) -> f64 {
        let noise = self.adaptation.sigma() / self.adaptation.spread();
        self.params.fluency + self.params.trust * noise.powi(2)
    }

    /// The weight that a lap begins with.
    fn hot(&self) -> f64 {
        self.weight().max(self.params.heat * self.params.fluency)
    }

    /// The text, with capitals where the decoder would write them: an encoder that does not read case says nothing of words
    /// that the attacker's own texts lack.
    fn cased(&self, found: &Hypothesis) -> Result<String, Error> {
        let unsure = |word: &String| self.lexicon.find(word).is_some_and(|w| self.lexicon.count(w) == 0);
        let places: Vec<usize> = (0..found.words.len()).filter(|&i| unsure(&found.words[i])).collect();
        if self.reads_case || places.is_empty() {
            return Ok(found.text.clone());
        }
        let with_capitals = |places: &[usize]| {
            let mut words = found.words.clone();
            for &i in places {
                words[i] = words::capitalised(&words[i]);
            }
            render(&words)
        };
        let variants: Vec<String> =
            std::iter::once(found.text.clone()).chain(places.iter().map(|&i| with_capitals(&[i]))).collect();
        let variants: Vec<&str> = variants.iter().map(String::as_str).collect();
        let log_probs = self.writer.log_probs(&self.adaptation, None, &variants)?;
        let names: Vec<usize> =
            places.iter().zip(&log_probs[1..]).filter(|(_, p)| **p > log_probs[0]).map(|(&i, _)| i).collect();
        Ok(with_capitals(&names))
    }
}

/// Whether the encoder tells capitals from small letters.
fn reads_case(view: &View) -> Result<bool, Error> {
    let Some(record) = view.auxiliary.iter().find(|r| r.text.chars().any(char::is_uppercase)) else { return Ok(false) };
    let both = view.encoder.encode(&[record.text.as_str(), &record.text.to_lowercase()])?;
    Ok(both.row(0) != both.row(1))
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
    use super::super::corrector::Corrector;
    use super::*;
    use crate::attack::Quiet;
    use crate::attack::scene::Scene;

    /// Its rewrites are counted, also those of a corrector that knows nothing.
    #[test]
    fn mended_sentences_count_as_queries_and_take_part() {
        let scene = Scene::new(120, "identity", &[]);
        let view = scene.view();
        let decoder = Decoder {
            steps: 4,
            batch: 8,
            d_model: 16,
            layers: 1,
            heads: 2,
            vocabulary: 300,
            samples: 2,
            ..Decoder::default()
        };
        let params = Search { queries: 60, beam: 2, seeds: 2, decoder, ..Search::default() };
        let mut fitted = params.open(&view, &Quiet).expect("fits");
        assert!(fitted.mender.is_none(), "nothing is kept for the toy encoder");
        let untrained = Corrector { slots: 2, beam: 2, samples: 3, ..Corrector::default() };
        fitted.mender = Some(Mender::untrained(&untrained, &view, &fitted.writer).expect("a model"));
        let (y, text) = (scene.clean.row(7), scene.records[7].text.as_str());
        let mut rng = seed::stream(1, "search tests", "mending");
        let start = Hypothesis {
            words: fitted.normal(text),
            text: text.to_owned(),
            vector: y.to_vec(),
            evidence: 0.0,
            log_prob: 0.0,
            score: 0.0,
        };
        let mended = fitted.mend(y, &start, &mut rng).expect("rewrites");
        assert_eq!(mended.len(), 5, "two likeliest, three drawn");
        let far = scene.clean.select(&[30]);
        let guesses = fitted.invert(&far, "mending", &Quiet).expect("a guess");
        assert!(guesses[0].queries <= 60 && guesses[0].score.is_finite(), "{guesses:?}");
        assert!(guesses[0].trace.windows(2).all(|w| w[0].0 <= w[1].0), "queries only grow");
    }

    fn sentence(text: &str, evidence: f64, log_prob: f64) -> Hypothesis {
        Hypothesis {
            words: words::split(text),
            text: text.to_owned(),
            vector: Vec::new(),
            evidence,
            log_prob,
            score: 0.0,
        }
    }

    #[test]
    fn a_hot_search_prefers_the_sentence_and_a_cold_one_the_words() {
        let scene = Scene::new(120, "identity", &["zanzibar"]);
        let view = scene.view();
        let decoder =
            Decoder { steps: 2, batch: 8, d_model: 16, layers: 1, heads: 2, vocabulary: 300, ..Decoder::default() };
        let params = Search { beam: 2, decoder, ..Search::default() };
        let mut fitted = params.open(&view, &Quiet).expect("fits");
        let mut beam =
            vec![sentence("a bag", 40.0, -90.0), sentence("a text", 36.0, -50.0), sentence("far", 1.0, -30.0)];
        fitted.weigh(&mut beam, fitted.hot());
        let texts: Vec<&str> = beam.iter().map(|h| h.text.as_str()).collect();
        assert_eq!(texts, ["a text", "a bag"], "{:?}", beam.iter().map(|h| h.score).collect::<Vec<_>>());
        fitted.weigh(&mut beam, fitted.weight());
        assert_eq!((beam[0].text.as_str(), beam[0].score), ("a bag", 40.0 - 90.0 * 0.05));

        for (pipeline, weight) in [("gaussian(sigma=0.05)", 0.05 + 0.125), ("gaussian(sigma=0.3)", 0.05 + 0.5)] {
            let scene = Scene::new(120, &format!("clip(l2=1) | {pipeline}"), &[]);
            let view = scene.view();
            let noisy = params.open(&view, &Quiet).expect("fits");
            assert!((noisy.weight() - weight).abs() < 1e-9 && noisy.hot() == noisy.weight(), "{}", noisy.weight());
        }

        assert!(!fitted.reads_case, "the toy encoder folds case");
        let found = sentence("Ships left zanzibar at dawn", 1.0, -9.0);
        let cased = fitted.cased(&found).expect("cased");
        assert!(
            cased == found.text || cased == "Ships left Zanzibar at dawn",
            "{cased}: only the word that no text holds may change"
        );
        fitted.reads_case = true;
        assert_eq!(fitted.cased(&found).expect("cased"), found.text, "the encoder has spoken");
    }

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
