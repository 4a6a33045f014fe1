//! How a sentence may be rewritten, and which rewritings are worth a query.

use super::effect::{Belief, Outlook};
use crate::attack::text::bigrams::{Bigrams, EDGE};

/// Changes that are joined at most.
const JOINED: usize = 5;
/// One move in so many exchanges neighbouring spans of a sentence.
const EXCHANGES: usize = 4;
/// Words of the longest stretch within which two parts change places.
const EXCHANGED: usize = 24;
/// Moves that are held at once; of more, those that have a chance are kept.
const HELD: usize = 1 << 20;
/// Words of a sentence whose phrases are proposed.
const SPOKEN: usize = 48;

/// What a move can put into a sentence: one word, or a phrase of a starting sentence.
pub(super) struct Piece {
    pub(super) text: Vec<String>,
    /// Bigram number of each word.
    ids: Vec<u32>,
    /// Number of its effect.
    row: usize,
}

impl Piece {
    pub(super) fn new(text: Vec<String>, bigrams: &Bigrams, belief: &mut Belief) -> Self {
        let ids = text.iter().map(|w| bigrams.id(w)).collect();
        let row = belief.row(&text);
        Self { text, ids, row }
    }

    /// Number of its effect in the belief.
    pub(super) fn row(&self) -> usize {
        self.row
    }
}

/// A rewriting of one sentence of the beam.
#[derive(Debug, Clone, Copy)]
pub(super) struct Move {
    pub(super) hypothesis: usize,
    pub(super) change: Change,
    promise: f32,
}

/// What is done to `words[from..to]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// They give way to a piece, or to nothing.
    Replace { from: usize, to: usize, piece: Option<usize> },
    /// They change places with `words[to..end]`.
    Exchange { from: usize, to: usize, end: usize },
}

impl Change {
    pub(super) fn apply(self, words: &[String], pieces: &[Piece]) -> Vec<String> {
        match self {
            Self::Replace { from, to, piece } => {
                let with = piece.map_or(&[][..], |i| &pieces[i].text[..]);
                [&words[..from], with, &words[to..]].concat()
            }
            Self::Exchange { from, to, end } => {
                [&words[..from], &words[to..end], &words[from..to], &words[end..]].concat()
            }
        }
    }

    /// The words that it changes; none for an insertion.
    fn span(self) -> (usize, usize) {
        match self {
            Self::Replace { from, to, .. } => (from, to),
            Self::Exchange { from, end, .. } => (from, end),
        }
    }

    /// The piece that comes in.
    pub(super) fn piece(self) -> Option<usize> {
        match self {
            Self::Replace { piece, .. } => piece,
            Self::Exchange { .. } => None,
        }
    }

    /// Whether two changes of one sentence leave each other alone.
    fn is_apart_from(self, other: Self) -> bool {
        let ((from, to), (other_from, other_to)) = (self.span(), other.span());
        // An insertion at the edge of another change would depend on which comes first.
        let is_insertion = from == to || other_from == other_to;
        to < other_from || other_to < from || (!is_insertion && (to == other_from || other_to == from))
    }
}

/// A sentence of the beam as the ranking sees it.
pub(super) struct Parent<'a> {
    pub(super) words: &'a [String],
    pub(super) vector: &'a [f32],
}

/// What moves are ranked by: the expected change of the likelihood, and of the bigram model's opinion.
pub(super) struct Ranking<'a> {
    pub(super) bigrams: &'a Bigrams,
    /// Nats of one unit of the product with the released vector.
    pub(super) scale: f32,
    /// Weight of the language model.
    pub(super) fluency: f32,
}

impl Ranking<'_> {
    /// The `n` most promising rewritings of the parents, best first.
    pub(super) fn moves(
        &self,
        y: &[f32],
        parents: &[Parent],
        pieces: &[Piece],
        belief: &mut Belief,
        n: usize,
    ) -> Vec<Move> {
        let (mut moves, mut exchanges) = (Vec::new(), Vec::new());
        let ids: Vec<Vec<u32>> =
            parents.iter().map(|parent| parent.words.iter().map(|w| self.bigrams.id(w)).collect()).collect();
        for (hypothesis, parent) in parents.iter().enumerate() {
            let rows: Vec<usize> = parent.words.iter().map(|w| belief.row(std::slice::from_ref(w))).collect();
            let outlook = Outlook::new(belief, y, parent.vector, &rows);
            let length = rows.len();
            let mut offer = |from: usize, to: usize, piece: Option<usize>| {
                let promise = self.scale * outlook.change(from, to, piece.map(|i| pieces[i].row));
                moves.push(Move { hypothesis, change: Change::Replace { from, to, piece }, promise });
                if moves.len() >= HELD {
                    moves = best(std::mem::take(&mut moves), 16 * n);
                }
            };
            for from in 0..=length {
                for (i, piece) in pieces.iter().enumerate() {
                    offer(from, from, Some(i));
                    if from < length {
                        offer(from, from + 1, Some(i));
                    }
                    if piece.ids.len() > 1 && from + 2 <= length {
                        offer(from, from + 2, Some(i));
                    }
                }
                for to in from + 1..=(from + 3).min(length) {
                    offer(from, to, None);
                }
            }
            for from in 0..length {
                for to in from + 1..length {
                    for end in to + 1..=(from + EXCHANGED).min(length) {
                        let change = Change::Exchange { from, to, end };
                        exchanges.push(Move {
                            hypothesis,
                            change,
                            promise: self.order(&ids[hypothesis], change, pieces),
                        });
                    }
                }
            }
        }
        // Bigrams cost more than the expected change and say less: they are asked about moves that have a chance.
        let mut moves = best(moves, 16 * n);
        for m in &mut moves {
            m.promise += self.order(&ids[m.hypothesis], m.change, pieces);
        }
        // No word comes or goes in an exchange, so its promise cannot be compared with those of the others.
        // A piece that promises much does so at every place. Tried at the best one only, it leaves room for others.
        let mut tried = vec![false; pieces.len()];
        let mut moves = best(moves, 4 * n)
            .into_iter()
            .filter(|m| m.change.piece().is_none_or(|piece| !std::mem::replace(&mut tried[piece], true)));
        let mut exchanges = best(exchanges, n / EXCHANGES).into_iter();
        let mut out = Vec::with_capacity(n + n / EXCHANGES);
        loop {
            let before = out.len();
            out.extend(moves.by_ref().take(EXCHANGES - 1));
            out.extend(exchanges.next());
            if out.len() == before {
                return out;
            }
        }
    }

    /// What a change does to the bigram model's opinion of a sentence.
    fn order(&self, ids: &[u32], change: Change, pieces: &[Piece]) -> f32 {
        let (from, end) = change.span();
        let edge = |i: Option<usize>| i.and_then(|i| ids.get(i)).copied().unwrap_or(EDGE);
        let (left, right) = (edge(from.checked_sub(1)), edge(Some(end)));
        let chain = |middle: &mut dyn Iterator<Item = u32>| {
            let (mut total, mut last) = (0.0, left);
            for id in middle.chain([right]) {
                total += self.bigrams.log_prob(last, id);
                last = id;
            }
            total
        };
        let new = match change {
            Change::Replace { piece, .. } => chain(&mut piece.iter().flat_map(|&i| pieces[i].ids.iter().copied())),
            Change::Exchange { from, to, end } => chain(&mut ids[to..end].iter().chain(&ids[from..to]).copied()),
        };
        self.fluency * (new - chain(&mut ids[from..end].iter().copied()))
    }
}

/// Sentences with several of the changes that made one sentence better when each was tried alone: the best two, the best
/// three, and so on.
pub(super) fn joined(gains: &[(f64, Move)], parents: &[Parent], pieces: &[Piece]) -> Vec<Vec<String>> {
    let mut out = Vec::new();
    for (hypothesis, parent) in parents.iter().enumerate() {
        let mut good: Vec<&(f64, Move)> =
            gains.iter().filter(|(gain, m)| *gain > 0.0 && m.hypothesis == hypothesis).collect();
        good.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut chosen: Vec<Change> = Vec::new();
        for (_, m) in good {
            if chosen.len() == JOINED || !chosen.iter().all(|&other| m.change.is_apart_from(other)) {
                continue;
            }
            chosen.push(m.change);
            if chosen.len() > 1 {
                // From the end, so that the places of the others stay.
                chosen.sort_by_key(|c| std::cmp::Reverse(c.span()));
                out.push(chosen.iter().fold(parent.words.to_vec(), |words, change| change.apply(&words, pieces)));
            }
        }
    }
    out
}

/// Two or three words in a row.
pub(super) fn phrases<'a>(
    sentences: impl Iterator<Item = &'a Vec<String>> + 'a,
) -> impl Iterator<Item = Vec<String>> + 'a {
    let cut = |words: &'a Vec<String>| &words[..words.len().min(SPOKEN)];
    sentences.flat_map(move |words| [2, 3].into_iter().flat_map(move |n| cut(words).windows(n).map(<[String]>::to_vec)))
}

/// The `n` most promising moves, best first; sorting them all would cost more than the encoder.
fn best(mut moves: Vec<Move>, n: usize) -> Vec<Move> {
    if n < moves.len() {
        moves.select_nth_unstable_by(n, |a, b| b.promise.total_cmp(&a.promise));
        moves.truncate(n);
    }
    moves.sort_by(|a, b| b.promise.total_cmp(&a.promise));
    moves
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    fn piece(text: &str) -> Piece {
        Piece { text: words(text), ids: Vec::new(), row: 0 }
    }

    #[test]
    fn changes_do_what_they_say() {
        let (sentence, pieces) = (words("a b c d e"), [piece("x"), piece("y z")]);
        let apply = |change: Change| change.apply(&sentence, &pieces).join(" ");
        assert_eq!(apply(Change::Replace { from: 0, to: 0, piece: Some(1) }), "y z a b c d e");
        assert_eq!(apply(Change::Replace { from: 1, to: 3, piece: Some(0) }), "a x d e");
        assert_eq!(apply(Change::Replace { from: 3, to: 5, piece: None }), "a b c");
        assert_eq!(apply(Change::Exchange { from: 0, to: 1, end: 5 }), "b c d e a");
        assert_eq!(apply(Change::Exchange { from: 1, to: 3, end: 4 }), "a d b c e");
    }

    #[test]
    fn joined_changes_keep_to_their_places() {
        let sentence = words("a b c d e");
        let pieces = [piece("x"), piece("y z")];
        let change = |change: Change| Move { hypothesis: 0, change, promise: 0.0 };
        let gains = [
            (1.0, change(Change::Replace { from: 4, to: 5, piece: Some(0) })),
            (3.0, change(Change::Replace { from: 0, to: 1, piece: Some(1) })),
            (2.5, change(Change::Replace { from: 0, to: 2, piece: Some(0) })),
            (2.0, change(Change::Exchange { from: 1, to: 2, end: 3 })),
            (-1.0, change(Change::Replace { from: 3, to: 4, piece: None })),
        ];
        let parent = Parent { words: &sentence, vector: &[] };
        let found: Vec<String> = joined(&gains, &[parent], &pieces).into_iter().map(|w| w.join(" ")).collect();
        assert_eq!(found, ["y z c b d e", "y z c b d x"], "the third overlaps the best, the fifth made things worse");
    }

    #[test]
    fn insertions_beside_a_change_are_not_joined_with_it() {
        let insertion = Change::Replace { from: 2, to: 2, piece: Some(0) };
        let replacement = |from, to| Change::Replace { from, to, piece: Some(0) };
        assert!(!insertion.is_apart_from(insertion) && !insertion.is_apart_from(replacement(2, 3)));
        assert!(insertion.is_apart_from(replacement(3, 4)) && replacement(1, 2).is_apart_from(replacement(2, 3)));
    }

    #[test]
    fn bigrams_prefer_the_usual_order() {
        let bigrams = Bigrams::fit(["the old bank said so", "the bank said so today", "so the bank"].into_iter());
        let ranking = Ranking { bigrams: &bigrams, scale: 0.0, fluency: 1.0 };
        let ids: Vec<u32> = words("bank the said so").iter().map(|w| bigrams.id(w)).collect();
        let right = ranking.order(&ids, Change::Exchange { from: 0, to: 1, end: 2 }, &[]);
        let wrong = ranking.order(&ids, Change::Exchange { from: 1, to: 2, end: 4 }, &[]);
        assert!(right > 0.0 && right > wrong, "{right} against {wrong}");
        let shorter = ranking.order(&ids, Change::Replace { from: 0, to: 2, piece: None }, &[]);
        let by_hand = bigrams.log_prob(EDGE, ids[2])
            - bigrams.log_prob(EDGE, ids[0])
            - bigrams.log_prob(ids[0], ids[1])
            - bigrams.log_prob(ids[1], ids[2]);
        assert!((shorter - by_hand).abs() < 1e-5, "{shorter} against {by_hand}");
    }
}
