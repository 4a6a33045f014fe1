//! Reading texts from the decoder: incremental steps over a key-value cache, sampling and beam search.

use super::pass::{NORM_EPS, Source, Texts, Workspace};
use super::{Decoder, Error, Prefix};
use crate::nn::kernel::{Layout::Plain, Layout::Transposed, dot, exp, matmul, vectorise};
use crate::nn::rows::{self, Moments, exp_in_place, max};
use crate::seed;
use rand::{Rng, RngExt, SeedableRng};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Hypotheses that share one session: enough rows for the matrix products, enough sessions for the cores.
const GROUP: usize = 64;

/// A generated text.
#[derive(Debug, Clone, PartialEq)]
pub struct Hypothesis {
    /// Its tokens, without the end-of-text token.
    pub tokens: Vec<u32>,
    /// Log-probability under the model in nats, at temperature 1; includes the end-of-text token when `finished`.
    pub log_prob: f64,
    /// Whether the model ended the text itself.
    pub finished: bool,
}

impl Hypothesis {
    /// Log-probability for each token, the end-of-text token included: what beams are ranked by.
    pub fn mean_log_prob(&self) -> f64 {
        self.log_prob / (self.tokens.len() + usize::from(self.finished)).max(1) as f64
    }
}

/// How [`Decoder::sample`] draws.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sampling {
    /// Logits are divided by it; 0 takes the most likely token.
    pub temperature: f64,
    /// Draws from the smallest set of tokens that holds this share of the probability.
    pub top_p: f64,
    /// Added to the logit of a token for as long as a text does not hold it; minus infinity forbids the token.
    pub bonus: Vec<(u32, f32)>,
}

impl Default for Sampling {
    fn default() -> Self {
        Sampling { temperature: 1.0, top_p: 1.0, bonus: Vec::new() }
    }
}

/// Parallel hypotheses that grow by one token a step.
///
/// The caches hold `(layer, hypothesis, position, d)`. A session runs on one thread; several may run side by side.
#[derive(Debug)]
pub struct Session<'a> {
    decoder: &'a Decoder,
    live: usize,
    /// Rows that every hypothesis has.
    filled: usize,
    /// Tokens among them that are only read.
    given: usize,
    keys: Vec<Vec<f32>>,
    values: Vec<Vec<f32>>,
    spare: Vec<f32>,
    logits: Vec<f32>,
    buffers: Buffers,
}

#[derive(Debug, Default)]
struct Buffers {
    x: Vec<f32>,
    normed: Vec<f32>,
    moments: Vec<Moments>,
    qkv: Vec<f32>,
    attended: Vec<f32>,
    up: Vec<f32>,
    active: Vec<f32>,
    scores: Vec<f32>,
}

impl<'a> Session<'a> {
    /// Reads the prefixes, and behind each of them the tokens `given`: `n` hypotheses, none of which has a token of its own
    /// yet.
    ///
    /// # Errors
    /// [`Error::Shape`] when `prefix` does not hold `n` conditioning vectors, or when `given` is too long or holds an
    /// unknown token.
    pub fn start(decoder: &'a Decoder, prefix: Prefix, given: &[u32], n: usize) -> Result<Session<'a>, Error> {
        let config = &decoder.config;
        let (got, want) = match prefix {
            Prefix::Null => (0, 0),
            Prefix::Shared(cond) => (cond.len(), config.cond_dim),
            Prefix::Rows(cond) => (cond.len(), n * config.cond_dim),
        };
        if got != want {
            return Err(Error::Shape(format!("the prefix has {got} numbers, {want} are needed for {n} hypotheses")));
        }
        // The target behind what is read is never looked at; any token will do.
        let read: Vec<u32> = given.iter().copied().chain([config.eos]).collect();
        decoder.check_text(&read)?;
        let (d, filled) = (config.d_model, config.slots + given.len());
        let size = config.positions() * d;
        let mut session = Session {
            decoder,
            live: n,
            filled,
            given: given.len(),
            keys: vec![vec![0.0; n * size]; config.layers],
            values: vec![vec![0.0; n * size]; config.layers],
            spare: Vec::new(),
            logits: vec![0.0; n * config.vocab],
            buffers: Buffers::default(),
        };
        let (texts, lengths) = (vec![&read[..]; n], vec![given.len(); n]);
        let source = Source { prefix, null: &[], given: &lengths, texts: Texts::Slices(&texts) };
        let Session { keys, values, logits, .. } = &mut session;
        Workspace::default().start(decoder, &source, n, logits, |layer, qkv| {
            let caches = keys[layer].chunks_exact_mut(size).zip(values[layer].chunks_exact_mut(size));
            for ((keys, values), qkv) in caches.zip(qkv.chunks_exact(3 * filled * d)) {
                let positions = keys.chunks_exact_mut(d).zip(values.chunks_exact_mut(d));
                for ((key, value), qkv) in positions.zip(qkv.chunks_exact(3 * d)) {
                    key.copy_from_slice(&qkv[d..2 * d]);
                    value.copy_from_slice(&qkv[2 * d..]);
                }
            }
        });
        Ok(session)
    }

    /// Hypotheses alive.
    pub fn len(&self) -> usize {
        self.live
    }

    /// Whether no hypothesis is left.
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Logits of the next token, `(len, vocab)`.
    pub fn logits(&self) -> &[f32] {
        &self.logits[..self.live * self.decoder.config.vocab]
    }

    /// Appends one token to every hypothesis; returns the logits of the next one, `(len, vocab)`.
    ///
    /// # Errors
    /// [`Error::Shape`] for a wrong number of tokens, an unknown token, or a text that is full.
    pub fn step(&mut self, tokens: &[u32]) -> Result<&[f32], Error> {
        let Decoder { config, layout, weights: w } = self.decoder;
        let (d, n, f, at) = (config.d_model, self.live, config.ff_mult * config.d_model, self.filled);
        if tokens.len() != n || at >= config.positions() || tokens.iter().any(|&t| t as usize >= config.vocab) {
            let (got, max) = (tokens.len(), config.max_len_tokens);
            return Err(Error::Shape(format!(
                "{got} tokens for {n} hypotheses at position {at} (at most {max} tokens)"
            )));
        }
        let size = config.positions() * d;
        let Buffers { x, normed, moments, qkv, attended, up, active, scores } = &mut self.buffers;
        for (buffer, width) in
            [(&mut *x, d), (&mut *normed, d), (&mut *qkv, 3 * d), (&mut *attended, d), (&mut *up, f), (&mut *active, f)]
        {
            buffer.resize(n * width, 0.0);
        }
        moments.resize(n, Moments::default());
        scores.resize(config.positions().next_multiple_of(16), 0.0);
        let (embedding, position) =
            (layout.embedding.slice(w), &layout.position.slice(w)[config.position(at, self.given) * d..][..d]);
        for (row, &token) in x.chunks_exact_mut(d).zip(tokens) {
            for ((row, &a), &b) in row.iter_mut().zip(&embedding[token as usize * d..]).zip(position) {
                *row = a + b;
            }
        }
        for (l, spans) in layout.layers.iter().enumerate() {
            let norm = spans.norm_attention;
            rows::layer_norm(x, norm.gain.slice(w), norm.bias.slice(w), NORM_EPS, normed, moments);
            rows::fill_rows(spans.qkv.bias.slice(w), qkv);
            matmul(qkv, normed, Plain, spans.qkv.weight.slice(w), Plain, n, d, 3 * d, true);
            let caches = self.keys[l].chunks_exact_mut(size).zip(self.values[l].chunks_exact_mut(size));
            for (((keys, values), qkv), y) in caches.zip(qkv.chunks_exact(3 * d)).zip(attended.chunks_exact_mut(d)) {
                keys[at * d..][..d].copy_from_slice(&qkv[d..2 * d]);
                values[at * d..][..d].copy_from_slice(&qkv[2 * d..]);
                let seen = (at + 1) * d;
                attend(&qkv[..d], &keys[..seen], &values[..seen], config.heads, y, scores);
            }
            add_product(x, attended, spans.out.bias.slice(w), spans.out.weight.slice(w), d);
            let norm = spans.norm_feed;
            rows::layer_norm(x, norm.gain.slice(w), norm.bias.slice(w), NORM_EPS, normed, moments);
            matmul(up, normed, Plain, spans.up.weight.slice(w), Plain, n, d, f, false);
            rows::bias_gelu(up, spans.up.bias.slice(w), active);
            add_product(x, active, spans.down.bias.slice(w), spans.down.weight.slice(w), f);
        }
        let norm = layout.norm_final;
        rows::layer_norm(x, norm.gain.slice(w), norm.bias.slice(w), NORM_EPS, normed, moments);
        let logits = &mut self.logits[..n * config.vocab];
        matmul(logits, normed, Plain, layout.output.slice(w), Transposed, n, d, config.vocab, false);
        self.filled += 1;
        Ok(logits)
    }

    /// Makes hypothesis `i` a copy of the present hypothesis `from[i]`; `from` may be shorter or longer than before.
    ///
    /// The logits move along.
    ///
    /// # Panics
    /// When an index is not below [`Session::len`].
    pub fn reorder(&mut self, from: &[usize]) {
        assert!(from.iter().all(|&i| i < self.live), "reorder names live hypotheses");
        let config = &self.decoder.config;
        let size = config.positions() * config.d_model;
        let filled = self.filled * config.d_model;
        let in_place = from.len() == self.live && from.iter().enumerate().all(|(i, &j)| i == j);
        if in_place {
            return;
        }
        for cache in self.keys.iter_mut().chain(&mut self.values) {
            move_rows(cache, &mut self.spare, from, size, filled);
        }
        move_rows(&mut self.logits, &mut self.spare, from, config.vocab, config.vocab);
        self.live = from.len();
    }
}

/// `rows[i] <- rows[from[i]]`, of which only the first `filled` elements matter.
fn move_rows(rows: &mut Vec<f32>, spare: &mut Vec<f32>, from: &[usize], size: usize, filled: usize) {
    spare.resize(from.len() * size, 0.0);
    for (to, &i) in spare.chunks_exact_mut(size).zip(from) {
        to[..filled].copy_from_slice(&rows[i * size..][..filled]);
    }
    std::mem::swap(rows, spare);
}

/// `x += inner W + b`.
fn add_product(x: &mut [f32], inner: &[f32], bias: &[f32], weight: &[f32], width: usize) {
    let d = bias.len();
    for row in x.chunks_exact_mut(d) {
        for (row, &b) in row.iter_mut().zip(bias) {
            *row += b;
        }
    }
    matmul(x, inner, Plain, weight, Plain, x.len() / d, width, d, true);
}

vectorise! {
    /// One query against all cached positions, head by head.
    fn attend(q: &[f32], keys: &[f32], values: &[f32], heads: usize, y: &mut [f32], scores: &mut [f32]) {
        let d = q.len();
        let hd = d / heads;
        let inv_sqrt = 1.0 / (hd as f32).sqrt();
        let scores = &mut scores[..keys.len() / d];
        for ((head, q), y) in q.chunks_exact(hd).enumerate().zip(y.chunks_exact_mut(hd)) {
            let columns = head * hd..(head + 1) * hd;
            for (score, key) in scores.iter_mut().zip(keys.chunks_exact(d)) {
                *score = dot(q, &key[columns.clone()]) * inv_sqrt;
            }
            let top = max(scores);
            let total = exp_in_place(scores, top);
            y.fill(0.0);
            for (&score, value) in scores.iter().zip(values.chunks_exact(d)) {
                let weight = score / total;
                for (y, &v) in y.iter_mut().zip(&value[columns.clone()]) {
                    *y = weight.mul_add(v, *y);
                }
            }
        }
    }

    /// Turns logits into weights; returns their sum.
    fn weigh(order: &mut [(f32, u32)]) -> f64 {
        let mut total = 0.0;
        for (weight, _) in order {
            *weight = exp(*weight);
            total += f64::from(*weight);
        }
        total
    }

    /// `ln sum exp(z)`.
    fn log_sum_exp(z: &[f32]) -> f64 {
        let top = max(z);
        let (chunks, tail) = z.as_chunks::<16>();
        let mut lanes = [0.0_f32; 16];
        for chunk in chunks {
            for (lane, &v) in lanes.iter_mut().zip(chunk) {
                *lane += exp(v - top);
            }
        }
        let total: f32 = lanes.iter().sum::<f32>() + tail.iter().map(|&v| exp(v - top)).sum::<f32>();
        f64::from(top) + f64::from(total).ln()
    }
}

/// Indices of the `k` largest logits, best first; the lower index wins ties.
fn best(z: &[f32], k: usize, out: &mut Vec<(f32, u32)>) {
    out.clear();
    for (token, &v) in (0_u32..).zip(z) {
        if out.len() == k && out.last().is_none_or(|&(least, _)| v <= least) {
            continue;
        }
        let at = out.partition_point(|&(other, _)| other >= v);
        out.insert(at, (v, token));
        out.truncate(k);
    }
}

/// Draws one token; `order` is scratch.
fn draw(z: &[f32], how: &Sampling, order: &mut Vec<(f32, u32)>, rng: &mut dyn Rng) -> u32 {
    if how.temperature <= 0.0 {
        best(z, 1, order);
        return order[0].1;
    }
    let inverse = (1.0 / how.temperature) as f32;
    let top = max(z);
    order.clear();
    // A token whose weight is below e^-20 of the best is never drawn in practice; leaving it out keeps the sort short.
    order.extend(
        (0_u32..).zip(z).filter(|&(_, &v)| (v - top) * inverse > -20.0).map(|(i, &v)| ((v - top) * inverse, i)),
    );
    let mut total = weigh(order);
    if how.top_p < 1.0 {
        let wanted = how.top_p.max(0.0) * total;
        // All weights below this one add up to half of what may be left out: none of them is kept, so none need be sorted.
        let least = 0.5 * (total - wanted) / order.len() as f64;
        order.retain(|&(weight, _)| f64::from(weight) >= least);
        order.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let mut held = 0.0;
        let kept = order.iter().position(|&(weight, _)| {
            held += f64::from(weight);
            held >= wanted
        });
        order.truncate(kept.map_or(order.len(), |last| last + 1));
        total = held;
    }
    let mut left = rng.random::<f64>() * total;
    for &(weight, token) in order.iter() {
        left -= f64::from(weight);
        if left < 0.0 {
            return token;
        }
    }
    order[order.len() - 1].1
}

/// Keeps the best texts, best first.
fn rank(texts: &mut Vec<Hypothesis>, width: usize) {
    texts.sort_by(|a, b| b.mean_log_prob().total_cmp(&a.mean_log_prob()));
    texts.truncate(width);
}

impl Decoder {
    fn conditions<'c>(&self, cond: &'c [f32]) -> Result<std::slice::ChunksExact<'c, f32>, Error> {
        let dim = self.config.cond_dim;
        if !cond.len().is_multiple_of(dim) {
            return Err(Error::Shape(format!("{} conditioning numbers are not rows of {dim}", cond.len())));
        }
        Ok(cond.chunks_exact(dim))
    }

    /// Draws `n` texts for every row of `cond` `(rows, cond_dim)`.
    ///
    /// Every text has its own stream, opened by a number from `rng`, so that the result depends neither on how texts are
    /// grouped nor on the thread count.
    ///
    /// # Errors
    /// [`Error::Shape`] when `cond` is not whole rows.
    pub fn sample(
        &self,
        cond: &[f32],
        n: usize,
        how: &Sampling,
        max_len_tokens: usize,
        rng: &mut dyn Rng,
    ) -> Result<Vec<Vec<Hypothesis>>, Error> {
        let jobs: Vec<(&[f32], u64)> = self
            .conditions(cond)?
            .flat_map(|row| std::iter::repeat_n(row, n))
            .map(|row| (row, rng.next_u64()))
            .collect();
        let groups: Vec<Vec<Hypothesis>> = jobs
            .par_chunks(GROUP)
            .map(|jobs| self.sample_group(jobs, &[], how, max_len_tokens))
            .collect::<Result<_, Error>>()?;
        let mut all = groups.into_iter().flatten();
        let rows = cond.len() / self.config.cond_dim;
        Ok((0..rows).map(|_| all.by_ref().take(n).collect()).collect())
    }

    /// Samples `n` texts for one conditioning vector `cond` `(cond_dim)` behind the tokens `given`, which are read and not
    /// repeated. Every sample draws from its own stream, seeded from `rng` in order.
    ///
    /// # Errors
    /// [`Error::Shape`] when `cond` is not one vector, or when `given` is too long or holds an unknown token.
    pub fn sample_after(
        &self,
        cond: &[f32],
        given: &[u32],
        n: usize,
        how: &Sampling,
        max_len_tokens: usize,
        rng: &mut dyn Rng,
    ) -> Result<Vec<Hypothesis>, Error> {
        let jobs: Vec<(&[f32], u64)> = (0..n).map(|_| (cond, rng.next_u64())).collect();
        self.sample_group(&jobs, given, how, max_len_tokens)
    }

    fn sample_group(
        &self,
        jobs: &[(&[f32], u64)],
        given: &[u32],
        how: &Sampling,
        max_len: usize,
    ) -> Result<Vec<Hypothesis>, Error> {
        // Texts behind the same vector stand next to each other: what they share is read once.
        let (mut rows, mut of): (Vec<&[f32]>, Vec<usize>) = (Vec::new(), Vec::with_capacity(jobs.len()));
        for &(row, _) in jobs {
            if rows.last() != Some(&row) {
                rows.push(row);
            }
            of.push(rows.len() - 1);
        }
        let mut session = Session::start(self, Prefix::Rows(&rows.concat()), given, rows.len())?;
        session.reorder(&of);
        let mut rngs: Vec<_> = jobs.iter().map(|&(_, key)| seed::Stream::seed_from_u64(key)).collect();
        let mut texts = vec![Hypothesis { tokens: Vec::new(), log_prob: 0.0, finished: false }; jobs.len()];
        let mut live: Vec<usize> = (0..jobs.len()).collect();
        let (vocab, max_len) = (self.config.vocab, max_len.min(self.config.max_len_tokens - given.len()));
        let (mut order, mut row) = (Vec::new(), Vec::new());
        for step in 1..=max_len {
            let (mut kept, mut next, mut still) = (Vec::new(), Vec::new(), Vec::new());
            for (at, (z, &text)) in session.logits().chunks_exact(vocab).zip(&live).enumerate() {
                row.clear();
                row.extend_from_slice(z);
                for &(token, bonus) in &how.bonus {
                    if let Some(z) = row.get_mut(token as usize).filter(|_| !texts[text].tokens.contains(&token)) {
                        *z += bonus;
                    }
                }
                let token = draw(&row, how, &mut order, &mut rngs[text]);
                texts[text].log_prob += f64::from(z[token as usize]) - log_sum_exp(z);
                if token == self.config.eos {
                    texts[text].finished = true;
                } else {
                    texts[text].tokens.push(token);
                    kept.push(at);
                    next.push(token);
                    still.push(text);
                }
            }
            if step == max_len || kept.is_empty() {
                break;
            }
            session.reorder(&kept);
            session.step(&next)?;
            live = still;
        }
        Ok(texts)
    }

    /// The likeliest texts for every row of `cond` `(rows, cond_dim)`, best first, by beam search of the given width.
    ///
    /// Ranked by [`Hypothesis::mean_log_prob`]; a search stops when `width` finished texts rank above every open one. Open
    /// texts fill the list only when fewer were finished.
    ///
    /// # Errors
    /// [`Error::Shape`] when `cond` is not whole rows.
    pub fn beam(&self, cond: &[f32], width: usize, max_len_tokens: usize) -> Result<Vec<Vec<Hypothesis>>, Error> {
        let rows: Vec<&[f32]> = self.conditions(cond)?.collect();
        let width = width.max(1);
        let groups: Vec<Vec<Vec<Hypothesis>>> = rows
            .par_chunks((GROUP / width).max(1))
            .map(|rows| self.beam_group(rows, &[], width, max_len_tokens))
            .collect::<Result<_, Error>>()?;
        Ok(groups.into_iter().flatten().collect())
    }

    /// The likeliest continuations of the tokens `given` behind one conditioning vector, best first; see
    /// [`Decoder::beam`].
    ///
    /// # Errors
    /// [`Error::Shape`] when `cond` is not one row, or `given` is too long or holds an unknown token.
    pub fn beam_after(
        &self,
        cond: &[f32],
        given: &[u32],
        width: usize,
        max_len_tokens: usize,
    ) -> Result<Vec<Hypothesis>, Error> {
        let mut found = self.beam_group(&[cond], given, width.max(1), max_len_tokens)?;
        Ok(found.pop().unwrap_or_default())
    }

    fn beam_group(
        &self,
        rows: &[&[f32]],
        given: &[u32],
        width: usize,
        max_len: usize,
    ) -> Result<Vec<Vec<Hypothesis>>, Error> {
        let mut session = Session::start(self, Prefix::Rows(&rows.concat()), given, rows.len())?;
        let empty = Hypothesis { tokens: Vec::new(), log_prob: 0.0, finished: false };
        let mut live: Vec<(usize, Hypothesis)> = (0..rows.len()).map(|row| (row, empty.clone())).collect();
        let mut done: Vec<Vec<Hypothesis>> = vec![Vec::new(); rows.len()];
        let (vocab, max_len) = (self.config.vocab, max_len.min(self.config.max_len_tokens - given.len()).max(1));
        let mut order = Vec::new();
        for step in 1..=max_len {
            let mut wider: Vec<Vec<(f64, usize, u32)>> = vec![Vec::new(); rows.len()];
            for (at, (z, (row, text))) in session.logits().chunks_exact(vocab).zip(&live).enumerate() {
                let base = text.log_prob - log_sum_exp(z);
                // One more than the width, because one of them may be the end of the text.
                best(z, width + 1, &mut order);
                wider[*row].extend(order.iter().map(|&(z, token)| (base + f64::from(z), at, token)));
            }
            let (mut from, mut next, mut still) = (Vec::new(), Vec::new(), Vec::<(usize, Hypothesis)>::new());
            for (row, mut candidates) in wider.into_iter().enumerate() {
                candidates.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)).then(a.2.cmp(&b.2)));
                let mut alive = 0;
                for (rank, (log_prob, at, token)) in candidates.into_iter().enumerate() {
                    if alive == width {
                        break;
                    }
                    let mut tokens = live[at].1.tokens.clone();
                    if token == self.config.eos {
                        if rank < width {
                            done[row].push(Hypothesis { tokens, log_prob, finished: true });
                        }
                        continue;
                    }
                    tokens.push(token);
                    still.push((row, Hypothesis { tokens, log_prob, finished: false }));
                    from.push(at);
                    next.push(token);
                    alive += 1;
                }
            }
            let mut hope = vec![f64::NEG_INFINITY; rows.len()];
            for (row, text) in &still {
                hope[*row] = hope[*row].max(text.mean_log_prob());
            }
            for texts in &mut done {
                rank(texts, width);
            }
            let is_open = |row: usize| {
                done[row].get(width - 1).is_none_or(|worst: &Hypothesis| worst.mean_log_prob() < hope[row])
            };
            let open: Vec<usize> = (0..still.len()).filter(|&i| is_open(still[i].0)).collect();
            live = open.iter().map(|&i| still[i].clone()).collect();
            if step == max_len || live.is_empty() {
                break;
            }
            session.reorder(&open.iter().map(|&i| from[i]).collect::<Vec<_>>());
            session.step(&open.iter().map(|&i| next[i]).collect::<Vec<_>>())?;
        }
        for (row, text) in live {
            if done[row].len() < width {
                done[row].push(text);
            }
        }
        for texts in &mut done {
            rank(texts, width);
        }
        Ok(done)
    }
}
