//! What a cell's guesses and its release score, one value for each target.

use super::bench::{Bench, Side};
use super::cell::Outcome;
use crate::Error;
use crate::attack::{self, Guess};
use crate::contribute::appraisal;
use crate::data::Picture;
use crate::encode::Embeddings;
use crate::measure::statistics::{self, Design, Estimate};
use crate::measure::text::Bleu;
use crate::measure::{self, Context, MetricKind, PictureMetric, identify, similarity, utility};
use crate::seed;
use crate::study::Protection;
use std::collections::BTreeMap;

/// Scores of one side of the split: one list for each metric, one entry for each target.
pub type Scores = BTreeMap<String, Vec<Option<f64>>>;

/// Every metric of guesses beside their originals, and the same guesses beside other originals: the floor.
pub(super) fn of_guesses(bench: &Bench, side: &Side, guesses: &[Guess], task: &str) -> Result<(Scores, Scores), Error> {
    let n = guesses.len();
    let truths: Vec<&str> = side.records[..n].iter().map(|r| r.text.as_str()).collect();
    let texts: Vec<&str> = guesses.iter().map(|g| g.text.as_str()).collect();
    let clusters = &side.clusters[..n];
    let (mut test, mut floor) = (judged(bench, side, guesses)?, Scores::new());
    for name in test.keys().filter(|k| k.ends_with("_floor")).cloned().collect::<Vec<_>>() {
        let values = test.remove(&name).unwrap_or_default();
        floor.insert(name.replace("_floor", "_cosine"), values);
    }
    if bench.shows_pictures() {
        objects(bench, side, guesses, &mut test)?;
        let truths: Vec<&Picture> = side.records[..n].iter().filter_map(|r| r.picture.as_ref()).collect();
        let drawn: Vec<&Picture> = guesses.iter().filter_map(|g| g.picture.as_ref()).collect();
        for kind in PictureMetric::pixels() {
            let metric = kind.build(&Context::default())?;
            let id = metric.spec().id;
            let mut rng = seed::stream(bench.study.data.split_seed, task, id);
            let other = measure::shuffled_floor(metric.as_ref(), &truths, &drawn, clusters, &mut rng)?;
            floor.insert(id.to_owned(), other);
            test.insert(id.to_owned(), metric.score(&truths, &drawn)?);
        }
        return Ok((test, floor));
    }
    for kind in MetricKind::text_only() {
        let metric = kind.build(&Context::default())?;
        let mut rng = seed::stream(bench.study.data.split_seed, task, metric.spec().id);
        floor.insert(
            metric.spec().id.to_owned(),
            measure::shuffled_floor(metric.as_ref(), &truths, &texts, clusters, &mut rng)?,
        );
        test.insert(metric.spec().id.to_owned(), metric.score(&truths, &texts)?);
    }
    Ok((test, floor))
}

/// Whether the judge names the original's object from the guess, and from the original itself.
///
/// # Formula
/// The judge names an object by the vote of the ten auxiliary pictures that it finds most similar.
fn objects(bench: &Bench, side: &Side, guesses: &[Guess], test: &mut Scores) -> Result<(), Error> {
    if !side.has_topics {
        return Ok(());
    }
    let known = &bench.auxiliary;
    let vectors = attack::embed(bench.judges[0], &guesses.iter().collect::<Vec<_>>())?;
    let first: Vec<usize> = (0..guesses.len()).collect();
    let topics = &side.topics()[..guesses.len()];
    for (id, vectors) in [("object_named", vectors), ("object_named_in_original", side.judged[0].select(&first))] {
        let centre = bench.centre(&known.judged[0]);
        let about = |e: &Embeddings| centre.as_ref().map_or_else(|| e.clone(), |c| e.about(c));
        let hits = utility::topic_hits(&about(&known.judged[0]), &known.topics(), &about(&vectors), topics)?;
        test.insert(id.to_owned(), hits.hit);
    }
    Ok(())
}

/// What the guess for a group says of its best-hit member, and of the group's topic.
///
/// # Formula
/// `best_member_i = max_j cos(g_i, o_j)` over the members `j` of target `i`'s group among the targets; its floor is the
/// same maximum over as many members of the groups that follow, so that the number of tries is taken off as well.
pub(super) fn of_groups(
    bench: &Bench,
    seen: &Embeddings,
    guesses: &[Guess],
    outcome: &mut Outcome,
) -> Result<(), Error> {
    let n = guesses.len();
    let side = &bench.test;
    let mut groups: BTreeMap<Vec<u32>, Vec<usize>> = BTreeMap::new();
    for i in 0..n {
        groups.entry(seen.row(i).iter().map(|v| v.to_bits()).collect()).or_default().push(i);
    }
    let groups: Vec<Vec<usize>> = groups.into_values().collect();
    let all: Vec<&Guess> = guesses.iter().collect();
    let vectors = attack::embed(bench.judges[0], &all)?;
    let best = |guess: usize, members: &[usize]| -> Result<Option<f64>, Error> {
        let truth = side.judged[0].select(members);
        let guess = vectors.select(&vec![guess; members.len()]);
        Ok(similarity::cosines(&truth, &guess)?.into_iter().flatten().reduce(f64::max))
    };
    let (mut own, mut other) = (vec![None; n], vec![None; n]);
    for (g, members) in groups.iter().enumerate() {
        let following = groups.iter().cycle().skip(g + 1).take(groups.len() - 1).flatten();
        let others: Vec<usize> = following.copied().take(members.len()).collect();
        for &i in members {
            own[i] = best(i, members)?;
            other[i] = if others.len() == members.len() { best(i, &others)? } else { None };
        }
    }
    outcome.test.insert("best_member_cosine".to_owned(), own);
    outcome.floor.insert("best_member_cosine".to_owned(), other);
    if side.has_topics {
        let known = &bench.auxiliary;
        let named = attack::embed(bench.victim, &all)?;
        let hits = utility::topic_hits(&known.clean, &known.topics(), &named, &side.topics()[..n])?;
        outcome.test.insert("topic_named".to_owned(), hits.hit);
    }
    Ok(())
}

/// Cosines under the judges and the victim, their floors, and whether a guess is nearest to its own original.
pub(super) fn judged(bench: &Bench, side: &Side, guesses: &[Guess]) -> Result<Scores, Error> {
    let n = guesses.len();
    let all: Vec<&Guess> = guesses.iter().collect();
    let first: Vec<usize> = (0..n).collect();
    let mut out = Scores::new();
    let known = &bench.auxiliary;
    let eyes = bench.judges.iter().enumerate().map(|(j, judge)| {
        let prefix = if j == 0 { "judge".to_owned() } else { format!("judge_{}", j + 1) };
        (prefix, *judge, &side.judged[j], known.judged.get(j).unwrap_or(&known.clean))
    });
    let victim = ("victim".to_owned(), bench.victim, &side.clean, &known.clean);
    for (prefix, encoder, truth, auxiliary) in eyes.chain(std::iter::once(victim)) {
        let (mut truth, mut guess) = (truth.select(&first), attack::embed(encoder, &all)?);
        if let Some(centre) = bench.centre(auxiliary) {
            (truth, guess) = (truth.about(&centre), guess.about(&centre));
        }
        let mut seen = similarity::judge(&truth, &guess, &side.clusters[..n])?;
        // A table of somebody else's vectors has none for a text that an attacker made up: no score, not a score of 0.
        let knows = |g: &Guess| g.picture.as_ref().map_or_else(|| encoder.knows(&g.text), |p| encoder.knows_picture(p));
        for (i, _) in guesses.iter().enumerate().filter(|(_, guess)| encoder.is_table() && !knows(guess)) {
            (seen.cosine[i], seen.floor[i]) = (None, None);
        }
        if prefix == "judge" {
            let ranks = identify::matched(&guess, &truth)?;
            out.insert("matched_top1".to_owned(), identify::top(&ranks, 1));
            if bench.shows_pictures() {
                out.insert("matched_two_way".to_owned(), identify::matched_wins(&guess, &truth, 2)?);
            }
        }
        out.insert(format!("{prefix}_cosine"), seen.cosine);
        out.insert(format!("{prefix}_floor"), seen.floor);
    }
    Ok(out)
}

/// Corpus BLEU with its interval: the counts of all targets are pooled, then compared.
pub(super) fn corpus_bleu(bench: &Bench, guesses: &[Guess], task: &str) -> Option<Estimate> {
    let truths = &bench.test.records[..guesses.len()];
    let counts: Vec<Bleu> = truths.iter().zip(guesses).map(|(t, g)| Bleu::count(&t.text, &g.text)).collect();
    let design = Design::clustered(&bench.test.clusters[..guesses.len()], 1);
    let pooled = |w: &statistics::Weights| Bleu::corpus(w.targets().iter().copied().zip(counts.iter().copied()));
    let mut rng = seed::stream(bench.study.data.split_seed, task, "corpus bleu");
    Some(statistics::bootstrap(&pooled, &design, &mut rng)?.estimate(Some((0.0, 100.0))))
}

/// What the release itself shows: closed-set identification, and what it is still good for.
pub(super) fn of_release(bench: &Bench, protection: &Protection, seen: &Embeddings) -> Result<Scores, Error> {
    let side = &bench.test;
    let own: Vec<usize> = (0..seen.len()).collect();
    let mut out = Scores::new();
    // One record behind a row: only then is the record the signal. From the vectors themselves, because a sigma says
    // nothing until it is known what norm and dimension it meets.
    if let Some(noise) = protection.pipeline.noise_at(side.clean.dim()).filter(|n| n.members == 1) {
        let sigma = noise.sigma_per_coordinate / (protection.releases as f64).sqrt();
        let ratios = side.clean.rows().map(|row| {
            let norm = row.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>().sqrt();
            (norm > 0.0).then(|| sigma * (row.len() as f64).sqrt() / norm)
        });
        out.insert("noise_to_signal".to_owned(), ratios.collect());
    }
    let ranks = identify::closed_set(seen, &side.clean, &own)?;
    out.insert("identified_top1".to_owned(), identify::top(&ranks, 1));
    out.insert("identified_top10".to_owned(), identify::top(&ranks, 10));
    out.insert("identified_mrr".to_owned(), identify::reciprocal(&ranks));
    if bench.study.utility.retrieval {
        out.insert("recall_at_10".to_owned(), utility::recall_leave_one_out(&side.clean, seen)?);
        out.insert("knn_overlap_at_10".to_owned(), utility::neighbour_overlap(&side.clean, seen)?);
    }
    if bench.study.utility.topics && side.has_topics {
        let known = &bench.auxiliary;
        let hits = utility::topic_hits(&known.clean, &known.topics(), seen, &side.topics())?;
        out.insert("topic_accuracy".to_owned(), hits.hit);
    }
    Ok(out)
}

/// What each target is worth as a contribution, by its raw and by its released vector: ranks, from which agreement is read.
pub(super) fn values(bench: &Bench, protection: &Protection, seen: &Embeddings) -> Result<Scores, Error> {
    let public = &bench.auxiliary;
    let known = appraisal::Known {
        vectors: &public.clean,
        strata: &public.strata,
        clusters: &public.clusters,
        centred: bench.shows_pictures(),
    };
    let sigma = protection.pipeline.noise().map_or(0.0, |n| n.sigma_per_coordinate);
    let sigma = sigma / (protection.releases as f64).sqrt();
    let root = bench.study.data.split_seed;
    let ranks = appraisal::ranks(&known, &bench.test.clean, seen, &bench.test.strata, sigma, root)?;
    Ok(appraisal::IDS.iter().map(|id| (*id).to_owned()).zip(ranks).collect())
}

/// Best cosine against queries spent, averaged over the targets of a search.
pub(super) fn budget_curve(guesses: &[Guess]) -> Option<attack::Curve> {
    let end = guesses.iter().filter_map(|g| g.trace.last()).map(|(q, _)| *q).max()?;
    let points = (1..=24)
        .map(|i| {
            let queries = end * i / 24;
            let reached = guesses.iter().filter_map(|g| {
                let at = g.trace.partition_point(|(q, _)| *q <= queries);
                g.trace.get(at.saturating_sub(1)).map(|(_, cosine)| *cosine)
            });
            let (sum, count) = reached.fold((0.0, 0), |(s, n), c| (s + c, n + 1));
            (queries as f64, sum / f64::from(count.max(1)))
        })
        .collect();
    Some(attack::Curve {
        title: "cosine to the released vector".to_owned(),
        x_label: "encoder queries a target".to_owned(),
        points,
    })
}
