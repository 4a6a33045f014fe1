//! The forward pass of a Llama decoder, made for scoring many texts that begin alike.
//!
//! A call is a [`Tree`]: one node for each distinct beginning, so what texts share is computed once, and a node attends
//! to the nodes on its way from the root. All nodes pass a block together, so there is no cache of keys to keep, and the
//! weights stream from memory once for each few hundred tokens. `lanes` says how the data lies; with it a node's value
//! is one fixed chain of operations, whatever stands beside it. Parallelism is the caller's, except in [`Llama::score`],
//! which cuts its texts into trees.

use crate::attack::Error;
use crate::encode::lanes::{Aligned, Finish, LANES, Linear, Place};
use crate::nn::kernel::{dot, exp, vectorised};
use rayon::prelude::*;

/// Pieces in a slice of the output layer: its logits stay in the second-level cache until they are summed up.
const SLICE: usize = 384;

/// Nodes in a tree of [`Llama::score`]: enough to hide the time in which weights arrive, few enough for the cache.
const NODES: usize = 256;

/// The numbers that decide what is computed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) d: usize,
    pub(super) layers: usize,
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) inner: usize,
    pub(super) vocabulary: usize,
    pub(super) eps: f32,
    pub(super) rope_base: f64,
}

impl Shape {
    fn head(&self) -> usize {
        self.d / self.heads
    }

    /// Width of all keys, or of all values.
    fn kv(&self) -> usize {
        self.kv_heads * self.head()
    }

    /// Why no such model can be run here, if it cannot.
    pub(super) fn refusal(&self) -> Option<String> {
        let Self { d, layers, heads, kv_heads, inner, vocabulary, .. } = *self;
        if [d, layers, heads, kv_heads, inner, vocabulary].contains(&0) {
            return Some("a size is zero".into());
        }
        if !d.is_multiple_of(2 * heads) || !heads.is_multiple_of(kv_heads) {
            return Some(format!("{d} features do not split into {heads} even heads over {kv_heads} key heads"));
        }
        None
    }
}

/// Gives a tensor by its name, if it has so many values.
pub(super) type Tensors<'a> = dyn Fn(&str, usize) -> Result<Vec<f32>, Error> + Sync + 'a;

struct Layer {
    attention_gain: Vec<f32>,
    qkv: Linear,
    output: Linear,
    inner_gain: Vec<f32>,
    gate: Linear,
    up: Linear,
    down: Linear,
}

/// A loaded decoder with a tied output layer.
pub(super) struct Llama {
    shape: Shape,
    layers: Vec<Layer>,
    gain: Vec<f32>,
    /// The word table, [`SLICE`] rows each.
    pieces: Vec<Linear>,
}

/// Distinct beginnings of texts; a parent stands before its children.
#[derive(Default)]
struct Tree {
    pieces: Vec<u32>,
    /// All ways from the root, one after another.
    ways: Vec<u32>,
    /// Where the way of node `i` ends.
    ends: Vec<usize>,
    /// The last walk: its nodes.
    walk: Vec<u32>,
}

impl Tree {
    /// Adds one text and returns its nodes. Texts that come in lexicographic order share all that they can.
    fn add(&mut self, text: impl IntoIterator<Item = u32>) -> &[u32] {
        let mut depth = 0;
        for piece in text {
            if self.walk.get(depth).is_none_or(|&node| self.pieces[node as usize] != piece) {
                self.walk.truncate(depth);
                self.walk.push(self.pieces.len() as u32);
                self.pieces.push(piece);
                self.ways.extend(&self.walk);
                self.ends.push(self.ways.len());
            }
            depth += 1;
        }
        &self.walk[..depth]
    }

    fn way(&self, node: usize) -> &[u32] {
        let start = if node == 0 { 0 } else { self.ends[node - 1] };
        &self.ways[start..self.ends[node]]
    }

    fn len(&self) -> usize {
        self.pieces.len()
    }
}

/// The last layer's states of all nodes of a tree, normalised, in lanes.
struct States(Aligned);

impl Llama {
    /// Takes the tensors that `tensor` gives by name; its second argument is how many values there must be.
    pub(super) fn new(shape: Shape, tensor: &Tensors<'_>) -> Result<Self, Error> {
        let Shape { d, inner, .. } = shape;
        let linear = |name: &str, outputs: usize, inputs: usize| -> Result<Linear, Error> {
            Ok(Linear::new(&tensor(name, outputs * inputs)?, vec![0.0; outputs], inputs))
        };
        let layer = |i: usize| -> Result<Layer, Error> {
            let name = |part: &str| format!("blk.{i}.{part}.weight");
            let mut qkv = tensor(&name("attn_q"), d * d)?;
            qkv.extend(tensor(&name("attn_k"), shape.kv() * d)?);
            qkv.extend(tensor(&name("attn_v"), shape.kv() * d)?);
            Ok(Layer {
                attention_gain: tensor(&name("attn_norm"), d)?,
                qkv: Linear::new(&qkv, vec![0.0; d + 2 * shape.kv()], d),
                output: linear(&name("attn_output"), d, d)?,
                inner_gain: tensor(&name("ffn_norm"), d)?,
                gate: linear(&name("ffn_gate"), inner, d)?,
                up: linear(&name("ffn_up"), inner, d)?,
                down: linear(&name("ffn_down"), d, inner)?,
            })
        };
        let layers = (0..shape.layers).into_par_iter().map(layer).collect::<Result<_, _>>()?;
        let table = tensor("token_embd.weight", shape.vocabulary * d)?;
        let pieces = table.par_chunks(SLICE * d).map(|rows| Linear::new(rows, vec![0.0; rows.len() / d], d)).collect();
        Ok(Self { shape, layers, gain: tensor("output_norm.weight", d)?, pieces })
    }

    /// Runs all nodes of a tree.
    fn run(&self, tree: &Tree) -> States {
        let Shape { d, heads, kv_heads, inner, eps, .. } = self.shape;
        let (kv, head) = (self.shape.kv(), self.shape.head());
        let (n, blocks) = (tree.len(), tree.len().div_ceil(LANES));
        let wide = d + 2 * kv;
        let (mut x, mut h) = (Aligned::zeros(blocks * d * LANES), Aligned::zeros(blocks * d * LANES));
        let mut qkv = Aligned::zeros(blocks * wide * LANES);
        let (mut gate, mut up) = (Aligned::zeros(blocks * inner * LANES), Aligned::zeros(blocks * inner * LANES));
        let mut rows = vec![0.0; blocks * LANES * 2 * kv];
        let mut queries = vec![0.0; blocks * LANES * d];
        let mut context = vec![0.0; LANES * d];
        let mut scores = vec![0.0; (0..n).map(|node| tree.way(node).len()).max().unwrap_or(0)];
        let turns = self.turns(tree, blocks);

        self.embed(tree, &mut x);
        for layer in &self.layers {
            rms_norm(&x, &layer.attention_gain, eps, &mut h);
            layer.qkv.apply(&h, blocks, &mut qkv, Place::blocked(wide), Finish::Bias);
            rotate(&mut qkv, wide, (heads + kv_heads) * head, &turns, head / 2);
            for (b, block) in qkv.chunks_exact(wide * LANES).enumerate() {
                let (own, others) = block.split_at(d * LANES);
                to_rows(own, &mut queries[b * LANES * d..], d);
                to_rows(others, &mut rows[b * LANES * 2 * kv..], 2 * kv);
            }
            for (b, block) in h.chunks_exact_mut(d * LANES).enumerate() {
                for (lane, out) in context.chunks_exact_mut(d).enumerate() {
                    let node = b * LANES + lane;
                    if node < n {
                        attend(&self.shape, &queries[node * d..][..d], &rows, tree.way(node), &mut scores, out);
                    } else {
                        out.fill(0.0);
                    }
                }
                to_lanes(&context, block, d);
            }
            layer.output.apply(&h, blocks, &mut x, Place::blocked(d), Finish::Accumulate);
            rms_norm(&x, &layer.inner_gain, eps, &mut h);
            layer.gate.apply(&h, blocks, &mut gate, Place::blocked(inner), Finish::Bias);
            layer.up.apply(&h, blocks, &mut up, Place::blocked(inner), Finish::Bias);
            gated(&mut gate, &up);
            layer.down.apply(&gate, blocks, &mut x, Place::blocked(d), Finish::Accumulate);
        }
        rms_norm(&x, &self.gain, eps, &mut h);
        States(h)
    }

    /// Lanes after the last node stay zero, so that they remain finite numbers.
    fn embed(&self, tree: &Tree, x: &mut [f32]) {
        let d = self.shape.d;
        let mut row = vec![0.0; d];
        for (node, &piece) in tree.pieces.iter().enumerate() {
            self.pieces[piece as usize / SLICE].read_row(piece as usize % SLICE, &mut row);
            let block = &mut x[node / LANES * d * LANES..];
            for (out, &value) in block.chunks_exact_mut(LANES).zip(&row) {
                out[node % LANES] = value;
            }
        }
    }

    /// Cosine and sine of each pair of features at each node's position: `[block][pair][2][LANES]`.
    fn turns(&self, tree: &Tree, blocks: usize) -> Vec<f32> {
        let head = self.shape.head();
        let speeds: Vec<f64> =
            (0..head / 2).map(|i| self.shape.rope_base.powf(-2.0 * i as f64 / head as f64)).collect();
        let mut turns = vec![0.0; blocks * head * LANES];
        for node in 0..tree.len() {
            let position = (tree.way(node).len() - 1) as f64;
            let block = &mut turns[node / LANES * head * LANES..];
            for (pair, speed) in block.chunks_exact_mut(2 * LANES).zip(&speeds) {
                let (sin, cos) = (position * speed).sin_cos();
                pair[node % LANES] = cos as f32;
                pair[LANES + node % LANES] = sin as f32;
            }
        }
        turns
    }

    /// Hands the logits of all nodes to `visit`, slice by slice in order: the first piece, then `[block][piece][LANES]`.
    fn output(&self, States(x): &States, mut visit: impl FnMut(usize, &[f32])) {
        let blocks = x.len() / (self.shape.d * LANES);
        let mut logits = Aligned::zeros(blocks * SLICE * LANES);
        for (i, slice) in self.pieces.iter().enumerate() {
            let outputs = slice.outputs();
            slice.apply(x, blocks, &mut logits, Place::blocked(outputs), Finish::Bias);
            visit(i * SLICE, &logits[..blocks * outputs * LANES]);
        }
    }

    /// `ln p` of each text given `start`, every piece counted; 0 for an empty one.
    pub(super) fn score(&self, start: u32, texts: &[&[u32]]) -> Vec<f64> {
        let mut order: Vec<usize> = (0..texts.len()).collect();
        order.sort_by_key(|&i| texts[i]);
        let common = |a: &[u32], b: &[u32]| a.iter().zip(b).take_while(|(a, b)| a == b).count();
        // The last piece of a text is only ever predicted: no node.
        let beginning = |i: usize| &texts[i][..texts[i].len().saturating_sub(1)];
        let fresh = |pair: &[usize]| beginning(pair[1]).len() - common(beginning(pair[0]), beginning(pair[1]));
        let all: usize = order.windows(2).map(fresh).sum::<usize>() + order.first().map_or(0, |&i| texts[i].len());
        // How texts are grouped changes no bit of any result, so it may follow the number of threads.
        let limit = (all / rayon::current_num_threads()).next_multiple_of(LANES).clamp(2 * LANES, NODES);
        let mut groups: Vec<Vec<usize>> = Vec::new();
        let mut nodes = 0;
        for (at, &i) in order.iter().enumerate() {
            let more = if at == 0 { usize::MAX } else { fresh(&order[at - 1..=at]) };
            match groups.last_mut() {
                Some(group) if nodes + more <= limit => {
                    group.push(i);
                    nodes += more;
                }
                _ => {
                    groups.push(vec![i]);
                    nodes = 1 + beginning(i).len();
                }
            }
        }
        let mut out = vec![0.0; texts.len()];
        let parts: Vec<Vec<f64>> = groups
            .par_iter()
            .map(|group| self.score_tree(start, &group.iter().map(|&i| texts[i]).collect::<Vec<_>>()))
            .collect();
        for (&i, value) in groups.iter().flatten().zip(parts.iter().flatten()) {
            out[i] = *value;
        }
        out
    }

    fn score_tree(&self, start: u32, texts: &[&[u32]]) -> Vec<f64> {
        struct Pick {
            piece: usize,
            node: usize,
            at: usize,
        }
        let mut tree = Tree::default();
        let mut picks = Vec::new();
        for text in texts {
            let Some((_, beginning)) = text.split_last() else { continue };
            let nodes = tree.add(std::iter::once(start).chain(beginning.iter().copied()));
            for (&piece, &node) in text.iter().zip(nodes) {
                picks.push(Pick { piece: piece as usize, node: node as usize, at: picks.len() });
            }
        }
        if tree.len() == 0 {
            return vec![0.0; texts.len()];
        }
        let states = self.run(&tree);
        picks.sort_by_key(|pick| pick.piece);
        let mut logits_of = vec![0.0; picks.len()];
        let mut next = picks.iter().peekable();
        let blocks = tree.len().div_ceil(LANES);
        let mut sums = vec![Sums::default(); blocks];
        self.output(&states, |first, logits| {
            let each = logits.len() / blocks;
            for (sums, block) in sums.iter_mut().zip(logits.chunks_exact(each)) {
                sums.add(block);
            }
            while let Some(pick) = next.next_if(|pick| pick.piece < first + each / LANES) {
                let (block, lane) = (pick.node / LANES, pick.node % LANES);
                logits_of[pick.at] = f64::from(logits[block * each + (pick.piece - first) * LANES + lane]);
            }
        });
        for pick in &picks {
            logits_of[pick.at] -= sums[pick.node / LANES].ln(pick.node % LANES);
        }
        let mut rest = &logits_of[..];
        texts
            .iter()
            .map(|text| {
                let (own, others) = rest.split_at(text.len());
                rest = others;
                own.iter().sum()
            })
            .collect()
    }
}

/// The running `ln sum exp` of the logits of a block of nodes.
#[derive(Clone)]
struct Sums {
    highest: [f32; LANES],
    total: [f64; LANES],
}

impl Default for Sums {
    fn default() -> Self {
        Self { highest: [f32::NEG_INFINITY; LANES], total: [0.0; LANES] }
    }
}

impl Sums {
    /// Takes `[piece][LANES]` in.
    fn add(&mut self, logits: &[f32]) {
        let (rows, _) = logits.as_chunks::<LANES>();
        let (mut highest, mut total) = (self.highest, [0.0_f32; LANES]);
        vectorised(
            #[inline(always)]
            || {
                for row in rows {
                    for (h, v) in highest.iter_mut().zip(row) {
                        *h = h.max(*v);
                    }
                }
                for row in rows {
                    for ((t, v), h) in total.iter_mut().zip(row).zip(&highest) {
                        *t += exp(v - h);
                    }
                }
            },
        );
        for lane in 0..LANES {
            let shrink = f64::from(self.highest[lane] - highest[lane]).exp();
            self.total[lane] = self.total[lane] * shrink + f64::from(total[lane]);
        }
        self.highest = highest;
    }

    fn ln(&self, lane: usize) -> f64 {
        f64::from(self.highest[lane]) + self.total[lane].ln()
    }
}

/// `out = gain x / sqrt(mean(x^2) + eps)` for each node.
fn rms_norm(x: &[f32], gain: &[f32], eps: f32, out: &mut [f32]) {
    let scale = 1.0 / gain.len() as f32;
    vectorised(
        #[inline(always)]
        || {
            for (x, out) in x.chunks_exact(gain.len() * LANES).zip(out.chunks_exact_mut(gain.len() * LANES)) {
                let (x, out) = (x.as_chunks::<LANES>().0, out.as_chunks_mut::<LANES>().0);
                let mut inverse = [0.0_f32; LANES];
                for row in x {
                    for (s, v) in inverse.iter_mut().zip(row) {
                        *s = v.mul_add(*v, *s);
                    }
                }
                for s in &mut inverse {
                    *s = 1.0 / (*s * scale + eps).sqrt();
                }
                for ((out, row), gain) in out.iter_mut().zip(x).zip(gain) {
                    for ((o, v), s) in out.iter_mut().zip(row).zip(&inverse) {
                        *o = v * s * gain;
                    }
                }
            }
        },
    );
}

/// Turns neighbouring features of the first `features` rows of each block by their node's angles.
fn rotate(qkv: &mut [f32], wide: usize, features: usize, turns: &[f32], pairs: usize) {
    vectorised(
        #[inline(always)]
        || {
            for (block, turns) in qkv.chunks_exact_mut(wide * LANES).zip(turns.chunks_exact(2 * pairs * LANES)) {
                let rows = block[..features * LANES].as_chunks_mut::<{ 2 * LANES }>().0;
                let turns = turns.as_chunks::<{ 2 * LANES }>().0;
                for head in rows.chunks_exact_mut(pairs) {
                    for (pair, turn) in head.iter_mut().zip(turns) {
                        let ((even, odd), (cos, sin)) = (pair.split_at_mut(LANES), turn.split_at(LANES));
                        for lane in 0..LANES {
                            let (a, b) = (even[lane], odd[lane]);
                            even[lane] = a * cos[lane] - b * sin[lane];
                            odd[lane] = a * sin[lane] + b * cos[lane];
                        }
                    }
                }
            }
        },
    );
}

/// `gate = SiLU(gate) up`
fn gated(gate: &mut [f32], up: &[f32]) {
    vectorised(
        #[inline(always)]
        || {
            for (g, u) in gate.iter_mut().zip(up) {
                *g = *g / (1.0 + exp(-*g)) * u;
            }
        },
    );
}

/// Features that are moved between lanes and rows at once: a cache line of a row.
const LINE: usize = 16;

/// One block from `[feature][LANES]` to `[lane][width]`.
fn to_rows(block: &[f32], rows: &mut [f32], width: usize) {
    let features = block.as_chunks::<LANES>().0;
    for (i, tile) in features.chunks(LINE).enumerate() {
        for lane in 0..LANES {
            for (out, feature) in rows[lane * width + i * LINE..].iter_mut().zip(tile) {
                *out = feature[lane];
            }
        }
    }
}

/// One block from `[lane][width]` to `[feature][LANES]`.
fn to_lanes(rows: &[f32], block: &mut [f32], width: usize) {
    let features = block.as_chunks_mut::<LANES>().0;
    for (i, tile) in features.chunks_mut(LINE).enumerate() {
        for lane in 0..LANES {
            for (feature, value) in tile.iter_mut().zip(&rows[lane * width + i * LINE..]) {
                feature[lane] = *value;
            }
        }
    }
}

/// `out = softmax(q K' / sqrt(head)) V` of one node over the `rows` on its way, for each head.
fn attend(shape: &Shape, query: &[f32], rows: &[f32], way: &[u32], scores: &mut [f32], out: &mut [f32]) {
    let (size, kv) = (shape.head(), shape.kv());
    let group = shape.heads / shape.kv_heads;
    let scale = 1.0 / (size as f32).sqrt();
    let scores = &mut scores[..way.len()];
    vectorised(
        #[inline(always)]
        || {
            for (head, (query, out)) in query.chunks_exact(size).zip(out.chunks_exact_mut(size)).enumerate() {
                let at = head / group * size;
                let mut highest = f32::NEG_INFINITY;
                for (score, &row) in scores.iter_mut().zip(way) {
                    *score = dot(query, &rows[row as usize * 2 * kv + at..][..size]) * scale;
                    highest = highest.max(*score);
                }
                let mut total = 0.0;
                for score in scores.iter_mut() {
                    *score = exp(*score - highest);
                    total += *score;
                }
                out.fill(0.0);
                for (score, &row) in scores.iter().zip(way) {
                    let weight = score / total;
                    for (o, v) in out.iter_mut().zip(&rows[row as usize * 2 * kv + kv + at..][..size]) {
                        *o = weight.mul_add(*v, *o);
                    }
                }
            }
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed;
    use rand::RngExt;

    const START: u32 = 0;

    fn small() -> Llama {
        let shape =
            Shape { d: 24, layers: 3, heads: 6, kv_heads: 2, inner: 40, vocabulary: 500, eps: 1e-5, rope_base: 1e4 };
        assert_eq!(shape.refusal(), None);
        Llama::new(shape, &|name, values| {
            let mut rng = seed::stream(5, "llama tests", name);
            Ok((0..values).map(|_| rng.random_range(-0.6..0.6_f32)).collect())
        })
        .expect("random weights")
    }

    /// Texts of many lengths that share beginnings, repeat, and are empty.
    fn texts() -> Vec<Vec<u32>> {
        let mut rng = seed::stream(6, "llama tests", "texts");
        let mut texts: Vec<Vec<u32>> = vec![vec![], vec![7], vec![499]];
        for i in 0..40 {
            let mut text: Vec<u32> = texts[rng.random_range(0..texts.len())].iter().copied().take(i % 9).collect();
            text.extend((0..rng.random_range(1..23)).map(|_| rng.random_range(0..500_u32)));
            texts.push(text);
        }
        texts.push(texts[10].clone());
        texts
    }

    #[test]
    fn a_score_depends_on_its_text_alone() {
        let (model, texts) = (small(), texts());
        let texts: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
        let together = model.score(START, &texts);
        assert_eq!(together[0], 0.0);
        for (text, score) in texts.iter().zip(&together) {
            assert_eq!(model.score(START, &[text]), [*score], "{text:?} alone");
        }
        for threads in [1, 2, 5] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a thread pool");
            assert_eq!(pool.install(|| model.score(START, &texts)), together, "{threads} threads");
        }
        let shifted: Vec<&[u32]> = texts.iter().rev().step_by(3).copied().collect();
        let expected: Vec<f64> = together.iter().rev().step_by(3).copied().collect();
        assert_eq!(model.score(START, &shifted), expected);
    }

    #[test]
    fn a_score_is_the_sum_of_what_each_piece_adds_and_a_law_sums_to_one() {
        let model = small();
        let text = [3, 141, 59, 265];
        let score = |text: &[u32]| model.score(START, &[text])[0];
        let mut sum = 0.0;
        for n in 0..text.len() {
            let longer: Vec<Vec<u32>> = (0..500).map(|next| [&text[..n], &[next]].concat()).collect();
            let all = model.score(START, &longer.iter().map(Vec::as_slice).collect::<Vec<_>>());
            let each: Vec<f64> = all.iter().map(|longer| longer - score(&text[..n])).collect();
            let total: f64 = each.iter().map(|p| p.exp()).sum();
            assert!((total - 1.0).abs() < 1e-5, "{total} after {n}");
            sum += each[text[n] as usize];
        }
        assert!((score(&text) - sum).abs() < 1e-5);
    }
}
