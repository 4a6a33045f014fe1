//! Utility: what protected vectors are still good for, at the very noise draws that the attackers saw.
//!
//! | measure | query | gallery | asks |
//! |---|---|---|---|
//! | [`recall`] | clean | protected | does a search over protected vectors find what a search over raw ones finds? |
//! | [`neighbour_overlap`] | protected | protected | do records keep their neighbours among themselves? |
//! | [`topic_hits`] | protected | clean, labelled | can a topic be read off a protected vector? |
//!
//! The first is the one-sided search that a server offers to a client who holds a clean query; the second is two-sided
//! and always lower. Protected vectors that many records share (prototypes) tie: among equals the expected value over
//! random order is taken, so that the order of the rows never helps.

use super::Error;
use super::similarity::{against, check_dim};
use crate::encode::Embeddings;
use std::collections::BTreeMap;

/// Neighbours that are looked at.
pub const NEIGHBOURS: usize = 10;

/// Share of the raw ten nearest rows that a clean query still finds among the ten nearest protected rows.
///
/// # Formula
/// `|top10(q, raw) ∩ top10(q, protected)| / min(10, n)` by cosine, one value for each query; chance is about `10 / n`.
///
/// # Shapes
/// `queries` `(q, d)` clean vectors of other records (validation targets); `raw` and `protected` `(n, d)`, the same
/// records in the same order.
///
/// # Range
/// Share, 0 to 1, higher = more useful.
///
/// # Errors
/// When the shapes differ.
pub fn recall(queries: &Embeddings, raw: &Embeddings, protected: &Embeddings) -> Result<Vec<Option<f64>>, Error> {
    check_same_rows(raw, protected)?;
    let truth = against(queries, raw, |_, cosines| nearest(cosines, None))?;
    against(queries, protected, |query, cosines| overlap(&truth[query], cosines, None))
}

/// [`recall`] where each record's own raw vector is the query and the record itself is left out of the gallery.
pub fn recall_leave_one_out(raw: &Embeddings, protected: &Embeddings) -> Result<Vec<Option<f64>>, Error> {
    kept_neighbours(raw, raw, protected)
}

/// Share of each record's raw ten nearest neighbours that are still its neighbours when query and gallery are protected.
///
/// # Formula
/// `|top10(x_i, raw) ∩ top10(y_i, protected)| / min(10, n - 1)`, record `i` left out on both sides.
pub fn neighbour_overlap(raw: &Embeddings, protected: &Embeddings) -> Result<Vec<Option<f64>>, Error> {
    kept_neighbours(protected, raw, protected)
}

fn kept_neighbours(queries: &Embeddings, raw: &Embeddings, protected: &Embeddings) -> Result<Vec<Option<f64>>, Error> {
    check_same_rows(raw, protected)?;
    let truth = against(raw, raw, |query, cosines| nearest(cosines, Some(query)))?;
    against(queries, protected, |query, cosines| overlap(&truth[query], cosines, Some(query)))
}

/// Topics read off vectors by a vote of their ten nearest labelled neighbours.
#[derive(Debug, Clone, PartialEq)]
pub struct TopicHits {
    /// 1 where the vote names the record's topic; `None` where the record has none, or no neighbour is labelled.
    pub hit: Vec<Option<f64>>,
    /// 1 where the commonest label is the record's topic: the floor of someone who sees no vector.
    pub majority: Vec<Option<f64>>,
}

/// Trains a nearest-neighbour vote on clean auxiliary labels and reads it from `vectors`.
///
/// Give it the raw vectors as well: topic accuracy is judged against what the clean vectors reach. Every neighbour
/// has one vote; equal votes go to the larger sum of cosines, then to the first name.
///
/// # Shapes
/// `auxiliary` `(m, d)` with `m` topics, `vectors` `(n, d)` with `n` topics.
///
/// # Range
/// Share, 0 to 1, higher = more useful.
///
/// # Errors
/// When the shapes differ.
pub fn topic_hits(
    auxiliary: &Embeddings,
    auxiliary_topics: &[Option<&str>],
    vectors: &Embeddings,
    topics: &[Option<&str>],
) -> Result<TopicHits, Error> {
    check_dim(auxiliary, vectors)?;
    if auxiliary.len() != auxiliary_topics.len() || vectors.len() != topics.len() {
        return Err(Error::Shape("topics are one for each vector".into()));
    }
    let labelled: Vec<(usize, &str)> =
        auxiliary_topics.iter().enumerate().filter_map(|(i, topic)| topic.map(|topic| (i, topic))).collect();
    let gallery = auxiliary.select(&labelled.iter().map(|&(i, _)| i).collect::<Vec<_>>());
    let majority = winner(labelled.iter().map(|&(_, topic)| (topic, 0.0)));
    let voted = against(vectors, &gallery, |_, cosines| {
        winner(nearest(cosines, None).into_iter().map(|i| (labelled[i].1, f64::from(cosines[i]))))
    })?;
    let is = |named: Option<&str>, topic: Option<&str>| Some(f64::from(u8::from(named? == topic?)));
    Ok(TopicHits {
        hit: voted.into_iter().zip(topics).map(|(named, &topic)| is(named, topic)).collect(),
        majority: topics.iter().map(|&topic| is(majority, topic)).collect(),
    })
}

/// The name with most votes; then the largest weight, then the first in the alphabet.
fn winner<'a>(votes: impl Iterator<Item = (&'a str, f64)>) -> Option<&'a str> {
    let mut tally: BTreeMap<&str, (usize, f64)> = BTreeMap::new();
    for (name, weight) in votes {
        let entry = tally.entry(name).or_default();
        entry.0 += 1;
        entry.1 += weight;
    }
    // `max_by` keeps the last of equals, so the alphabet is walked backwards.
    tally.into_iter().rev().max_by(|(_, a), (_, b)| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))).map(|(name, _)| name)
}

/// Indices of the ten largest cosines, without `skip`; equals in index order.
fn nearest(cosines: &[f32], skip: Option<usize>) -> Vec<usize> {
    let mut order: Vec<usize> = (0..cosines.len()).filter(|&i| Some(i) != skip).collect();
    let best_first = |&a: &usize, &b: &usize| cosines[b].total_cmp(&cosines[a]).then(a.cmp(&b));
    if order.len() > NEIGHBOURS {
        order.select_nth_unstable_by(NEIGHBOURS - 1, best_first);
        order.truncate(NEIGHBOURS);
    }
    order.sort_unstable_by(best_first);
    order
}

/// Expected share of `truth` among the ten largest cosines when equals stand in random order.
fn overlap(truth: &[usize], cosines: &[f32], skip: Option<usize>) -> Option<f64> {
    let edge = cosines[*nearest(cosines, skip).last()?];
    let candidates = || (0..cosines.len()).filter(|&i| Some(i) != skip);
    let above = candidates().filter(|&i| cosines[i] > edge).count();
    let tied = candidates().filter(|&i| cosines[i] == edge).count();
    let seats = truth.len() - above;
    let found = truth.iter().filter(|&&i| cosines[i] > edge).count() as f64;
    let contested = truth.iter().filter(|&&i| cosines[i] == edge).count() as f64;
    Some((found + contested * seats as f64 / tied as f64) / truth.len() as f64)
}

fn check_same_rows(raw: &Embeddings, protected: &Embeddings) -> Result<(), Error> {
    if raw.len() == protected.len() {
        check_dim(raw, protected)
    } else {
        let message = format!(
            "{} raw rows but {} protected rows; repeat a shared vector for each of its records",
            raw.len(),
            protected.len()
        );
        Err(Error::Shape(message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed;
    use rand_distr::{Distribution, StandardNormal};

    fn vectors(n: usize, task: &str) -> Embeddings {
        let mut rng = seed::stream(31, task, "vectors");
        let values = (0..n * 24).map(|_| Distribution::<f32>::sample(&StandardNormal, &mut rng)).collect();
        Embeddings::new(values, 24).expect("finite")
    }

    fn noisy(clean: &Embeddings, sigma: f32, task: &str) -> Embeddings {
        let noise = vectors(clean.len(), task);
        let values = clean.values().iter().zip(noise.values()).map(|(x, n)| x + sigma * n).collect();
        Embeddings::new(values, 24).expect("finite")
    }

    fn average(values: &[Option<f64>]) -> f64 {
        values.iter().flatten().sum::<f64>() / values.iter().flatten().count() as f64
    }

    #[test]
    fn an_unprotected_gallery_is_fully_useful() {
        let (raw, queries) = (vectors(200, "raw"), vectors(30, "queries"));
        assert_eq!(recall(&queries, &raw, &raw).expect("fits"), vec![Some(1.0); 30]);
        assert_eq!(recall_leave_one_out(&raw, &raw).expect("fits"), vec![Some(1.0); 200]);
        assert_eq!(neighbour_overlap(&raw, &raw).expect("fits"), vec![Some(1.0); 200]);
    }

    #[test]
    fn noise_costs_recall_and_two_sided_noise_costs_more() {
        let raw = vectors(300, "raw");
        let at = |sigma: f32| {
            let protected = noisy(&raw, sigma, "noise");
            let one = average(&recall_leave_one_out(&raw, &protected).expect("fits"));
            let two = average(&neighbour_overlap(&raw, &protected).expect("fits"));
            (one, two)
        };
        let (mild, strong, drowned) = (at(0.3), at(1.0), at(100.0));
        assert!(mild.0 > strong.0 && strong.0 > drowned.0, "{mild:?} {strong:?} {drowned:?}");
        assert!(mild.0 > mild.1 && strong.0 > strong.1, "{mild:?} {strong:?}");
        // Chance is 10 of 299; the standard error over 300 records is about .003.
        assert!((drowned.0 - 10.0 / 299.0).abs() < 0.01, "{drowned:?}");
    }

    #[test]
    fn one_vector_for_all_finds_what_chance_finds() {
        let (raw, queries) = (vectors(200, "raw"), vectors(5, "queries"));
        let prototype = raw.select(&[17; 200]);
        for share in recall(&queries, &raw, &prototype).expect("fits") {
            assert!((share.expect("a gallery") - 0.05).abs() < 1e-12);
        }
        for share in recall_leave_one_out(&raw, &prototype).expect("fits") {
            assert!((share.expect("a gallery") - 10.0 / 199.0).abs() < 1e-12);
        }
    }

    #[test]
    fn ties_share_the_last_seats() {
        // Truth: records 0 to 9. Two of them stand above the tie, four others with them; the tie holds 4 of the truth among 8.
        let mut cosines = vec![0.0; 30];
        for i in [0, 1, 20, 21, 22, 23] {
            cosines[i] = 0.9;
        }
        for i in [2, 3, 4, 5, 24, 25, 26, 27] {
            cosines[i] = 0.5;
        }
        let truth: Vec<usize> = (0..10).collect();
        assert_eq!(overlap(&truth, &cosines, None), Some((2.0 + 4.0 * 4.0 / 8.0) / 10.0));
    }

    #[test]
    fn a_gallery_smaller_than_ten_is_searched_whole() {
        let raw = vectors(6, "raw");
        assert_eq!(neighbour_overlap(&raw, &vectors(6, "other")).expect("fits"), vec![Some(1.0); 6]);
        assert_eq!(neighbour_overlap(&raw.select(&[0]), &raw.select(&[0])).expect("fits"), [None]);
        assert!(recall(&raw, &raw, &raw.select(&[0, 1])).is_err());
    }

    #[test]
    fn topics_are_read_from_clean_neighbours() {
        // Two clouds around opposite points, three quarters of the labels in one of them.
        let mut auxiliary = noisy(&vectors(1, "centre").select(&[0; 80]), 0.2, "aux");
        let mut targets = noisy(&vectors(1, "centre").select(&[0; 40]), 0.2, "targets");
        let names = |n: usize| -> Vec<Option<&str>> {
            (0..n).map(|i| if i % 4 == 0 { Some("tennis") } else { Some("tax") }).collect()
        };
        for table in [&mut auxiliary, &mut targets] {
            for i in (0..table.len()).step_by(4) {
                table.row_mut(i).iter_mut().for_each(|v| *v = -*v);
            }
        }
        let mut topics = names(40);
        topics[1] = None;
        let read = |vectors: &Embeddings| topic_hits(&auxiliary, &names(80), vectors, &topics).expect("fits");
        let clean = read(&targets);
        assert_eq!(average(&clean.hit), 1.0);
        assert_eq!(clean.hit[1], None);
        assert!((average(&clean.majority) - 29.0 / 39.0).abs() < 1e-12);
        let drowned = average(&read(&noisy(&targets, 50.0, "noise")).hit);
        assert!(drowned < 0.9, "{drowned}");
        let unlabelled = topic_hits(&auxiliary, &[None; 80], &targets, &topics).expect("fits");
        assert_eq!(unlabelled.hit, vec![None; 40]);
    }

    #[test]
    fn equal_votes_go_to_the_nearer_then_to_the_first_name() {
        assert_eq!(winner([("b", 0.5), ("a", 0.4)].into_iter()), Some("b"));
        assert_eq!(winner([("b", 0.5), ("a", 0.5)].into_iter()), Some("a"));
        assert_eq!(winner([("a", 0.1), ("b", 0.9), ("a", 0.1)].into_iter()), Some("a"));
        assert_eq!(winner(std::iter::empty()), None);
    }
}
