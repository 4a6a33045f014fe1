//! Which records are targets, which choose the worst attacker, and which the attacker may own.
//!
//! Two steps. First every record gets a [`Side`] that depends on the corpus alone, never on a seed or on how many
//! records a study asks for: what is a target in one study is auxiliary in none, so a model trained on one study's
//! auxiliary records has not seen another study's targets. Then each side is drawn from.
//!
//! A side is decided by a hash of the record's unit: its owner where the corpus knows owners, else its document. Because
//! threads join owners, and because sentences repeat, three guards follow. Targets win, then validation:
//!
//! 1. a document lies on one side: a record is dropped when its document has a record on a stronger side;
//! 2. so does a near-duplicate cluster ([`duplicate::clusters`] of texts, [`perceptual::clusters`] of pictures);
//! 3. of a cluster only the first record can be a target, or a validation record.

use super::duplicate::{self, NEAR_DUPLICATE};
use super::{Corpus, Error, Medium, Record, perceptual};
use crate::seed;
use rand::seq::SliceRandom;
use std::collections::{BTreeMap, HashMap};
use std::fmt;

/// How many records a study wants of each kind.
#[derive(Debug, Clone, PartialEq)]
pub struct SplitRequest {
    /// Records that the attacker tries to read.
    pub targets: usize,
    /// Records on which the worst attacker is chosen.
    pub validation: usize,
    /// Records that the attacker owns.
    pub auxiliary: usize,
    /// What must lie on one side as a whole, besides documents.
    pub by: Boundary,
    /// How much of the corpus each side gets.
    pub shares: Shares,
    /// Which records are drawn from a side. Not the study's seed: all seeds of a study attack the same targets.
    pub seed: u64,
}

impl Default for SplitRequest {
    fn default() -> Self {
        Self {
            targets: 500,
            validation: 200,
            auxiliary: 20_000,
            by: Boundary::Owner,
            shares: Shares::default(),
            seed: 0,
        }
    }
}

/// What a split never cuts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Boundary {
    /// Owners and documents; documents alone where the corpus has no owners.
    #[default]
    Owner,
    /// Documents. For a corpus of one owner, or of very few.
    Document,
}

/// Shares of the units (owners or documents); the auxiliary side gets the rest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shares {
    /// Target side.
    pub targets: f64,
    /// Validation side.
    pub validation: f64,
}

impl Default for Shares {
    fn default() -> Self {
        Self { targets: 0.2, validation: 0.1 }
    }
}

/// Where a record may be used; the stronger side comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// May be attacked.
    Target,
    /// May choose between attackers.
    Validation,
    /// May be owned by the attacker.
    Auxiliary,
}

/// Indices into `corpus.records`, in the order drawn: the first `k` targets of a study with more are the targets of a
/// study with `k`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// Records that the attacker tries to read; as many documents as possible, topics by turns.
    pub targets: Vec<usize>,
    /// Records on which the worst attacker is chosen, drawn like targets.
    pub validation: Vec<usize>,
    /// Records that the attacker owns, drawn evenly.
    pub auxiliary: Vec<usize>,
    /// What the sides had to give, and what the guards dropped.
    pub stats: SplitStats,
}

/// What the sides had to give, and what the guards dropped.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SplitStats {
    /// Records that could have been targets.
    pub target_pool: usize,
    /// Records that could have been validation records.
    pub validation_pool: usize,
    /// Records that could have been auxiliary.
    pub auxiliary_pool: usize,
    /// Dropped because their document has records on a stronger side.
    pub shared_documents: usize,
    /// Dropped because a near-duplicate lies on a stronger side, or is a target or validation record already.
    pub near_duplicates: usize,
}

impl fmt::Display for SplitStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} possible targets, {} validation, {} auxiliary; dropped: {} in shared documents, {} near-duplicates",
            self.target_pool, self.validation_pool, self.auxiliary_pool, self.shared_documents, self.near_duplicates
        )
    }
}

/// The records of each side that passed the guards, in corpus order.
struct Pools {
    targets: Vec<usize>,
    validation: Vec<usize>,
    auxiliary: Vec<usize>,
    stats: SplitStats,
}

/// Splits a corpus.
///
/// # Errors
/// When a side has fewer records than asked for; the numbers are named.
pub fn split(corpus: &Corpus, request: &SplitRequest) -> Result<Split, Error> {
    let pools = pools(corpus, request);
    for (what, pool, asked) in [
        ("targets", &pools.targets, request.targets),
        ("validation", &pools.validation, request.validation),
        ("auxiliary", &pools.auxiliary, request.auxiliary),
    ] {
        if pool.len() < asked {
            let by = match request.by {
                Boundary::Owner if corpus.records.iter().any(|r| r.owner.is_some()) => "owner and document",
                _ => "document",
            };
            return Err(Error::TooSmall {
                name: corpus.name.clone(),
                what,
                have: pool.len(),
                asked,
                why: format!("split by {by}: of {} records, {}", corpus.records.len(), pools.stats),
            });
        }
    }
    let mut auxiliary = pools.auxiliary;
    auxiliary.shuffle(&mut seed::stream(request.seed, "split", "auxiliary"));
    auxiliary.truncate(request.auxiliary);
    Ok(Split {
        targets: spread(corpus, pools.targets, request.targets, &mut seed::stream(request.seed, "split", "targets")),
        validation: spread(
            corpus,
            pools.validation,
            request.validation,
            &mut seed::stream(request.seed, "split", "validation"),
        ),
        auxiliary,
        stats: pools.stats,
    })
}

/// Every record that an attacker may own in any study of this corpus: what attackers are trained on ahead of all studies.
pub fn auxiliary(corpus: &Corpus) -> Vec<usize> {
    pools(corpus, &SplitRequest::default()).auxiliary
}

/// The side that the hash of the record's unit decides on.
///
/// # Formula
/// `u = le64(BLAKE3::derive_key("stitchback split v1", unit)[..8]) / 2^64`; target below `shares.targets`, validation
/// below `shares.targets + shares.validation`.
pub fn side(record: &Record, by: Boundary, shares: Shares) -> Side {
    let unit = match by {
        Boundary::Owner => record.owner.as_deref().unwrap_or(&record.document),
        Boundary::Document => &record.document,
    };
    let mut hasher = blake3::Hasher::new_derive_key("stitchback split v1");
    hasher.update(unit.as_bytes());
    let mut head = [0; 8];
    head.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    let u = u64::from_le_bytes(head) as f64 / 2.0_f64.powi(64);
    if u < shares.targets {
        Side::Target
    } else if u < shares.targets + shares.validation {
        Side::Validation
    } else {
        Side::Auxiliary
    }
}

fn pools(corpus: &Corpus, request: &SplitRequest) -> Pools {
    let records = &corpus.records;
    let sides: Vec<Side> = records.iter().map(|record| side(record, request.by, request.shares)).collect();
    let mut strongest: HashMap<&str, Side> = HashMap::new();
    for (record, &side) in records.iter().zip(&sides) {
        let entry = strongest.entry(&record.document).or_insert(side);
        *entry = side.min(*entry);
    }
    let mut stats = SplitStats::default();
    let undivided: Vec<usize> =
        (0..records.len()).filter(|&i| strongest[records[i].document.as_str()] == sides[i]).collect();
    stats.shared_documents = records.len() - undivided.len();

    let clusters = match corpus.medium() {
        Medium::Text => duplicate::clusters(&corpus.texts(&undivided), NEAR_DUPLICATE),
        Medium::Picture => perceptual::clusters(&corpus.pictures(&undivided)),
    };
    let mut claimed: HashMap<usize, Side> = HashMap::new();
    for (&index, &cluster) in undivided.iter().zip(&clusters) {
        let entry = claimed.entry(cluster).or_insert(sides[index]);
        *entry = sides[index].min(*entry);
    }
    let mut pools = Pools { targets: Vec::new(), validation: Vec::new(), auxiliary: Vec::new(), stats };
    let mut represented = vec![false; undivided.len()];
    for (&index, &cluster) in undivided.iter().zip(&clusters) {
        let side = sides[index];
        let strongest_here = claimed[&cluster] == side;
        let repeats = strongest_here && side != Side::Auxiliary && std::mem::replace(&mut represented[cluster], true);
        if !strongest_here || repeats {
            pools.stats.near_duplicates += 1;
            continue;
        }
        match side {
            Side::Target => pools.targets.push(index),
            Side::Validation => pools.validation.push(index),
            Side::Auxiliary => pools.auxiliary.push(index),
        }
    }
    pools.stats.target_pool = pools.targets.len();
    pools.stats.validation_pool = pools.validation.len();
    pools.stats.auxiliary_pool = pools.auxiliary.len();
    pools
}

/// Draws `n` of `pool`: topics by turns, and within a topic first one record of every document, then a second of each,
/// and so on. Intervals are clustered by document, so many documents with few records each make them narrow.
fn spread(corpus: &Corpus, mut pool: Vec<usize>, n: usize, rng: &mut seed::Stream) -> Vec<usize> {
    pool.shuffle(rng);
    let mut drawn_of: HashMap<&str, usize> = HashMap::new();
    let mut topics: BTreeMap<Option<&str>, Vec<(usize, usize)>> = BTreeMap::new();
    for &index in &pool {
        let record = &corpus.records[index];
        let rank = drawn_of.entry(&record.document).or_default();
        topics.entry(record.topic.as_deref()).or_default().push((*rank, index));
        *rank += 1;
    }
    let mut queues: Vec<std::vec::IntoIter<(usize, usize)>> = topics
        .into_values()
        .map(|mut queue| {
            queue.sort_by_key(|&(rank, _)| rank);
            queue.into_iter()
        })
        .collect();
    let mut drawn = Vec::with_capacity(n);
    while drawn.len() < n && queues.iter().any(|queue| queue.len() > 0) {
        let turn = queues.iter_mut().filter_map(Iterator::next).map(|(_, index)| index);
        drawn.extend(turn);
    }
    drawn.truncate(n);
    drawn
}

#[cfg(test)]
mod tests {
    use super::super::corpus::{toy, toy_pictures};
    use super::super::{CorpusStats, Keep, Picture};
    use super::*;
    use std::collections::{BTreeSet, HashSet};

    fn record(number: usize, document: &str, text: &str) -> Record {
        Record {
            id: format!("{document}#{number}"),
            document: document.to_owned(),
            owner: None,
            topic: None,
            time: None,
            text: text.to_owned(),
            picture: None,
        }
    }

    fn corpus(records: Vec<Record>) -> Corpus {
        Corpus {
            name: "made-up".to_owned(),
            unit: "sentence",
            records,
            stats: CorpusStats::default(),
            fingerprint: String::new(),
            toy: false,
        }
    }

    fn request(targets: usize, validation: usize, auxiliary: usize) -> SplitRequest {
        SplitRequest { targets, validation, auxiliary, ..SplitRequest::default() }
    }

    fn toy() -> Corpus {
        toy::generate(0, &Keep::default()).expect("sentences")
    }

    /// A document name whose hash falls on `side`.
    fn document_on(wanted: Side) -> String {
        (0..1000)
            .map(|i| format!("document {i}"))
            .find(|name| side(&record(0, name, ""), Boundary::Document, Shares::default()) == wanted)
            .expect("a thousand names reach every side")
    }

    /// Twenty words that occur in no other sentence of a test.
    fn text(number: usize) -> String {
        blake3::hash(&number.to_le_bytes())
            .to_hex()
            .as_bytes()
            .chunks(4)
            .map(String::from_utf8_lossy)
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn what_attackers_are_trained_on_ahead_of_all_studies_is_no_target_of_any() {
        let corpus = toy();
        let owned: BTreeSet<usize> = auxiliary(&corpus).into_iter().collect();
        for seed in 0..5 {
            let split =
                split(&corpus, &SplitRequest { seed, ..request(80, 30, 100) }).expect("the toy is large enough");
            assert!(split.targets.iter().chain(&split.validation).all(|i| !owned.contains(i)));
            assert!(split.auxiliary.iter().all(|i| owned.contains(i)));
        }
    }

    #[test]
    fn no_document_and_no_record_straddles() {
        let corpus = toy();
        let split = split(&corpus, &request(80, 30, 300)).expect("the toy is large enough");
        assert_eq!((split.targets.len(), split.validation.len(), split.auxiliary.len()), (80, 30, 300));
        let documents =
            |side: &[usize]| -> HashSet<&str> { side.iter().map(|&i| corpus.records[i].document.as_str()).collect() };
        let (targets, validation, auxiliary) =
            (documents(&split.targets), documents(&split.validation), documents(&split.auxiliary));
        assert!(
            targets.is_disjoint(&validation) && targets.is_disjoint(&auxiliary) && validation.is_disjoint(&auxiliary)
        );
        let distinct: HashSet<usize> =
            split.targets.iter().chain(&split.validation).chain(&split.auxiliary).copied().collect();
        assert_eq!(distinct.len(), 410);
    }

    #[test]
    fn a_planted_near_duplicate_lands_on_one_side() {
        let planted = "The tennis ball rolled under the parked car on Friday morning.";
        let changed = "The tennis ball rolled under the parked car on Friday evening.";
        let (t, v, a) = (document_on(Side::Target), document_on(Side::Validation), document_on(Side::Auxiliary));
        let mut records: Vec<Record> = [&t, &v, &a]
            .iter()
            .enumerate()
            .flat_map(|(d, document)| (0..4).map(move |i| record(i, document, &text(10 * d + i))))
            .collect();
        for (place, document) in [(0, &a), (1, &v), (2, &t), (3, &t)] {
            records.push(record(10 + place, document, if place % 2 == 0 { planted } else { changed }));
        }
        let corpus = corpus(records);
        let split = split(&corpus, &request(5, 4, 4)).expect("enough for all sides");
        let holds =
            |side: &[usize]| side.iter().filter(|&&i| corpus.records[i].text.starts_with("The tennis ball")).count();
        assert_eq!((holds(&split.targets), holds(&split.validation), holds(&split.auxiliary)), (1, 0, 0));
        assert_eq!(split.stats.near_duplicates, 3);
        assert_eq!((split.stats.target_pool, split.stats.validation_pool, split.stats.auxiliary_pool), (5, 4, 4));
    }

    #[test]
    fn an_owner_lies_on_one_side_and_so_does_a_thread_of_two_owners() {
        let owner_on = |wanted| {
            (0..1000)
                .map(|i| format!("owner {i}"))
                .find(|name| {
                    let mine = Record { owner: Some(name.clone()), ..record(0, "d", "") };
                    side(&mine, Boundary::Owner, Shares::default()) == wanted
                })
                .expect("a thousand names reach every side")
        };
        let (ann, bob) = (owner_on(Side::Target), owner_on(Side::Auxiliary));
        let by = |number, document: &str, owner: &str| Record {
            owner: Some(owner.to_owned()),
            ..record(number, document, &text(number))
        };
        let corpus = corpus(vec![
            by(0, "thread 1", &ann),
            by(1, "thread 1", &bob),
            by(2, "thread 2", &ann),
            by(3, "thread 3", &bob),
        ]);
        let mut split = split(&corpus, &request(2, 0, 1)).expect("enough");
        split.targets.sort_unstable();
        assert_eq!((split.targets, split.auxiliary), (vec![0, 2], vec![3]));
        assert_eq!(split.stats.shared_documents, 1);
    }

    #[test]
    fn sides_depend_on_the_corpus_alone_and_fewer_targets_are_a_prefix() {
        let corpus = toy();
        let large = split(&corpus, &request(60, 20, 200)).expect("enough");
        assert_eq!(large, split(&corpus, &request(60, 20, 200)).expect("enough"));
        let small = split(&corpus, &request(10, 5, 50)).expect("enough");
        assert_eq!(small.targets, large.targets[..10]);
        assert_eq!(small.validation, large.validation[..5]);
        assert_eq!(small.auxiliary, large.auxiliary[..50]);
        let other = split(&corpus, &SplitRequest { seed: 1, ..request(60, 20, 200) }).expect("enough");
        assert_ne!(other.targets, large.targets);
        let attacked: HashSet<usize> = large.targets.iter().copied().collect();
        assert!(other.auxiliary.iter().all(|i| !attacked.contains(i)), "a target of one seed is auxiliary in none");
    }

    #[test]
    fn targets_take_topics_by_turns_and_as_many_documents_as_there_are() {
        let corpus = toy();
        let all = split(&corpus, &request(0, 0, 0)).expect("nothing asked").stats.target_pool;
        let pool = split(&corpus, &request(all, 0, 0)).expect("the whole pool").targets;
        let on_target_side: BTreeSet<&str> = pool.iter().map(|&i| corpus.records[i].document.as_str()).collect();
        let few = split(&corpus, &request(8, 0, 0)).expect("enough").targets;
        let topics: Vec<_> = few.iter().map(|&i| corpus.records[i].topic.as_deref().unwrap_or_default()).collect();
        assert_eq!(topics, ["clinic", "kitchen", "sport", "travel", "clinic", "kitchen", "sport", "travel"]);
        let documents: BTreeSet<&str> = few.iter().map(|&i| corpus.records[i].document.as_str()).collect();
        assert_eq!(documents.len(), 8, "of {}", on_target_side.len());
    }

    #[test]
    fn asking_for_too_much_names_what_there_is() {
        let corpus = corpus((0..50).map(|i| record(i, &format!("d{i}"), &text(i))).collect());
        let have = split(&corpus, &request(0, 0, 0)).expect("nothing asked").stats.target_pool;
        let error = split(&corpus, &request(50, 0, 0)).expect_err("50 records do not make 50 targets");
        let message = error.to_string();
        assert!(
            message.starts_with(&format!(
                "corpus `made-up` has {have} records for targets (split by document: of 50 records,"
            )),
            "{message}"
        );
        assert!(message.ends_with("the study asks for 50; lower `data.targets` or use a larger corpus"), "{message}");
    }

    #[test]
    fn shares_are_kept_over_many_documents() {
        // 10,000 fair draws: a share of .2 has a standard error of .004; five of them make a false alarm of 6e-7.
        let mut counts = [0_usize; 3];
        for i in 0..10_000 {
            counts[side(&record(0, &format!("d{i}"), ""), Boundary::Owner, Shares::default()) as usize] += 1;
        }
        let share = |side: Side| counts[side as usize] as f64 / 10_000.0;
        assert!(
            (share(Side::Target) - 0.2).abs() < 0.02 && (share(Side::Validation) - 0.1).abs() < 0.015,
            "{counts:?}"
        );
    }

    #[test]
    fn the_side_of_a_document_is_frozen() {
        // Trained models rely on it: a change of the hash would hand them targets that they have seen.
        let sides: String = (0..16)
            .map(|i| match side(&record(0, &format!("tech/{i:03}"), ""), Boundary::Document, Shares::default()) {
                Side::Target => 't',
                Side::Validation => 'v',
                Side::Auxiliary => 'a',
            })
            .collect();
        assert_eq!(sides, "aaaataaaaataavtv");
    }
    #[test]
    fn a_brighter_copy_of_a_target_is_dropped_from_the_other_side() {
        let mut corpus = toy_pictures::generate(0, &Keep { side_px: 32, ..Keep::default() }).expect("pictures");
        let original = corpus.records[5].clone();
        let picture = original.picture.as_ref().expect("a picture");
        let brighter: Vec<u8> = picture.rgb().iter().map(|v| v.saturating_add(9)).collect();
        let (target, other) = (document_on(Side::Target), document_on(Side::Auxiliary));
        corpus.records = vec![
            Record {
                id: "copy".into(),
                document: other.clone(),
                picture: Some(Picture::new(32, 32, brighter)),
                ..original.clone()
            },
            Record { id: "original".into(), document: target, ..original },
            Record { document: other, ..corpus.records[40].clone() },
        ];
        let pools = pools(&corpus, &request(1, 0, 1));
        assert_eq!((pools.targets, pools.auxiliary, pools.stats.near_duplicates), (vec![1], vec![2], 1));
    }

    #[test]
    fn the_toy_pictures_are_split_and_few_are_taken_for_copies() {
        let corpus = toy_pictures::generate(0, &Keep { side_px: 32, ..Keep::default() }).expect("pictures");
        let split = split(&corpus, &request(150, 60, 800)).expect("large enough");
        assert!(split.stats.near_duplicates < 40, "{}", split.stats);
    }
}
