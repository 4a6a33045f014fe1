//! What a study's release is still worth: contribution values from protected rows, beside those from raw ones.

use super::catalogue::{Catalogue, Plan};
use super::channel::{self, Budget};
use super::value::{Coverage, Engine, Entry, Group, Prior, even_weights};
use super::{Error, channel::UNITS};
use crate::encode::Embeddings;
use crate::measure::statistics::{Table, Weights};
use crate::seed;
use std::collections::BTreeMap;

/// Auxiliary records that a group needs for a catalogue of its own; smaller groups are judged together.
const GROUP: usize = 80;
/// Auxiliary records for each cell.
const FOR_A_CELL: usize = 20;
/// Cells of a large group.
const CELLS: usize = 16;
/// Public records that a catalogue is fitted on, for each cell.
const FITTED: usize = 100;

/// Score ids of [`ranks`]: raw and protected values against the first and the second half of what the groups hold.
pub const IDS: [&str; 4] = ["value_raw_first", "value_raw_second", "value_seen_first", "value_seen_second"];

/// What the edge knows before the contribution arrives: public records, and those that groups already hold.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// Their clean vectors.
    pub vectors: &'a Embeddings,
    /// Number of each one's topic.
    pub strata: &'a [u32],
    /// Number of each one's document.
    pub clusters: &'a [u32],
    /// Whether vectors are read about their mean.
    pub centred: bool,
}

/// Ranks of the targets by what they contribute, like for like: raw and protected, against two disjoint halves of what their
/// group already holds.
///
/// # Formula
/// Each target is a contribution of one item to the group of its topic. Its value is that of engine B ([`Coverage`]): cells
/// fitted on the auxiliary records of the group, mass of one half of them, all targets of the group contributing in the same
/// epoch. A protected row is spread over the cells with the noise that its owner declares. Ranks are taken inside the group,
/// ties share theirs, and run from -1/2 to 1/2.
///
/// # Shapes
/// `raw` and `seen` `(n, d)`, `strata` `n`; four lists of `n` in the order of [`IDS`].
///
/// # Errors
/// When the auxiliary records are too few for a catalogue.
pub fn ranks(
    known: &Known,
    raw: &Embeddings,
    seen: &Embeddings,
    strata: &[u32],
    sigma: f64,
    root: u64,
) -> Result<[Vec<Option<f64>>; 4], Error> {
    let mut out = [(); 4].map(|()| vec![None; raw.len()]);
    for (group, public) in groups(known) {
        let own: Vec<usize> = (0..raw.len()).filter(|&i| home(known, strata[i]) == group).collect();
        if own.len() < 2 {
            continue;
        }
        let cells = CELLS.min(public.len() / FOR_A_CELL).max(2);
        let every = public.len().div_ceil(cells * FITTED);
        let plan = Plan {
            group: group.map_or_else(|| "general".to_owned(), |g| g.to_string()),
            encoder: String::new(),
            cells,
            centred: known.centred,
        };
        let shown: Vec<usize> = public.iter().copied().step_by(every.max(1)).collect();
        let mut rng = seed::stream(root, "appraisal", &plan.group);
        let catalogue = Catalogue::fit(&plan, &known.vectors.select(&shown), &mut rng)?;
        for half in 0..2 {
            let side: Vec<usize> = public.iter().copied().filter(|&i| known.clusters[i] % 2 == half).collect();
            let mut stock = channel::histogram(&catalogue, &known.vectors.select(&side));
            stock.truncate(catalogue.cells());
            for (which, (rows, noise)) in [(raw, 0.0), (seen, sigma)].into_iter().enumerate() {
                let values = appraise(&catalogue, &stock, &rows.select(&own), noise);
                for (&i, rank) in own.iter().zip(midranks(&values)) {
                    out[2 * which + half as usize][i] = Some(rank);
                }
            }
        }
    }
    Ok(out)
}

/// Auxiliary records by group; `None` holds the groups that are too small to stand alone.
fn groups(known: &Known) -> BTreeMap<Option<u32>, Vec<usize>> {
    let mut out: BTreeMap<Option<u32>, Vec<usize>> = BTreeMap::new();
    for (i, &stratum) in known.strata.iter().enumerate() {
        out.entry(home(known, stratum)).or_default().push(i);
    }
    out
}

fn home(known: &Known, stratum: u32) -> Option<u32> {
    (known.strata.iter().filter(|&&s| s == stratum).count() >= GROUP).then_some(stratum)
}

fn appraise(catalogue: &Catalogue, stock: &[i64], rows: &Embeddings, sigma: f64) -> Vec<i64> {
    let weights = even_weights(catalogue.cells());
    let group = Group { cells: stock, weights: &weights, releases: &[], prior: Prior::TEXT };
    let cells: Vec<Vec<i64>> = rows.rows().map(|row| channel::spread(catalogue, row, sigma)).collect();
    debug_assert!(cells.iter().all(|c| c.iter().sum::<i64>() == UNITS));
    let budget = Budget { epsilon_milli: 0 };
    let epoch: Vec<Entry> =
        cells.iter().map(|c| Entry { cells: c, budget, items: 1, release: &[], age_epochs: 0 }).collect();
    Coverage::default().appraise(&group, &epoch).iter().map(|v| v.ticks).collect()
}

/// Ranks from -1/2 to 1/2; ties share the mean of theirs.
fn midranks(values: &[i64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let n = values.len() as f64;
    values
        .iter()
        .map(|v| {
            let (low, high) = (sorted.partition_point(|s| s < v), sorted.partition_point(|s| s <= v));
            (low + high) as f64 / 2.0 / n - 0.5
        })
        .collect()
}

/// How well protected values keep the order of raw ones, as a function of the weights of targets and seeds.
///
/// # Formula
/// `(rho(seen_1, raw_2) + rho(seen_2, raw_1)) / (2 rho(raw_1, raw_2))`, `rho` the correlation of the ranks inside groups:
/// the rank correlation over the raw values' own test-retest reliability. Exactly 1 for the unprotected release.
///
/// # Range
/// Correlation, higher = more useful; 0 where the protection leaves no order. Differs from a Spearman recomputed in each
/// resample: ranks are those of all targets.
#[derive(Debug)]
pub struct Agreement {
    /// `raw_1, raw_2, seen_1, seen_2`.
    means: [Table; 4],
    squares: [Table; 4],
    /// `raw_1 raw_2`, `seen_1 raw_2`, `seen_2 raw_1`.
    products: [Table; 3],
}

impl Agreement {
    /// From the ranks of each seed, in the order of [`IDS`].
    ///
    /// # Errors
    /// When the lists differ in length.
    pub fn new(seeds: &[[&[Option<f64>]; 4]]) -> Result<Self, crate::measure::Error> {
        type Read<'r> = dyn Fn(&[&[Option<f64>]; 4], usize) -> Option<f64> + 'r;
        let table = |of: &Read| {
            let rows: Vec<Vec<Option<f64>>> =
                seeds.iter().map(|s| (0..s[0].len()).map(|i| of(s, i)).collect()).collect();
            Table::new(&rows)
        };
        let product = |a: usize, b: usize| table(&|s, i| Some(s[a].get(i).copied()?? * s[b].get(i).copied()??));
        let mean = |a: usize| table(&|s, i| s[a].get(i).copied()?);
        Ok(Self {
            means: [mean(0)?, mean(1)?, mean(2)?, mean(3)?],
            squares: [product(0, 0)?, product(1, 1)?, product(2, 2)?, product(3, 3)?],
            products: [product(0, 1)?, product(2, 1)?, product(3, 0)?],
        })
    }

    fn correlation(&self, pair: usize, w: &Weights) -> Option<f64> {
        let (a, b) = [(0, 1), (2, 1), (3, 0)][pair];
        let spread = |i: usize| Some(self.squares[i].mean(w)? - self.means[i].mean(w)?.powi(2));
        let joint = self.products[pair].mean(w)? - self.means[a].mean(w)? * self.means[b].mean(w)?;
        let (a, b) = (spread(a)?, spread(b)?);
        // Without an order on one side nothing agrees with it.
        Some(if a * b > 1e-24 { joint / (a * b).sqrt() } else { 0.0 })
    }

    /// Test-retest reliability of the raw values.
    pub fn reliability(&self, w: &Weights) -> Option<f64> {
        self.correlation(0, w)
    }

    /// Rank correlation of protected and raw values over that reliability.
    pub fn value(&self, w: &Weights) -> Option<f64> {
        let reliability = self.reliability(w).filter(|r| *r > 0.0)?;
        Some((self.correlation(1, w)? + self.correlation(2, w)?) / (2.0 * reliability))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contribute::catalogue::tests::clouds;
    use crate::measure::statistics::Design;
    use crate::protect::Pipeline;

    fn agreement(pipeline: &str, sigma: f64) -> (f64, f64) {
        let (public, raw) = (clouds(1200, 24, 32, 0.45, "aux"), clouds(300, 24, 32, 0.45, "targets"));
        // Two groups of 12 topics; a third one is too small to stand alone.
        let stratum = |i: usize| if i < 6 { 2 } else { u32::from(i % 24 < 12) };
        let strata: Vec<u32> = (0..1200).map(stratum).collect();
        let clusters: Vec<u32> = (0..1200).map(|i| i / 5).collect();
        let known = Known { vectors: &public, strata: &strata, clusters: &clusters, centred: false };
        let pipeline = Pipeline::parse(pipeline).expect("valid");
        let own: Vec<u32> = (0..300).map(|i| u32::from(i % 24 < 12)).collect();
        let release = pipeline.release(&raw, Some(&own), &mut seed::stream(1, "test", "release")).expect("finite");
        let mut at = vec![0; raw.len()];
        release
            .members
            .iter()
            .enumerate()
            .for_each(|(row, members)| members.iter().for_each(|&m| at[m as usize] = row));
        let seen = release.vectors.select(&at);
        let ranks = ranks(&known, &raw, &seen, &own, sigma, 1).expect("enough records");
        let lists = [&ranks[0][..], &ranks[1][..], &ranks[2][..], &ranks[3][..]];
        let agreement = Agreement::new(&[lists]).expect("one length");
        let once = Design::independent(300, 1).once();
        (agreement.value(&once).expect("raw values differ"), agreement.reliability(&once).expect("they differ"))
    }

    #[test]
    fn unprotected_values_agree_perfectly_and_noise_costs_agreement() {
        let (open, reliability) = agreement("identity", 0.0);
        assert!((open - 1.0).abs() < 1e-12, "{open}");
        assert!((0.3..=1.0).contains(&reliability), "{reliability}");
        let mild = agreement("clip(l2=1) | gaussian(sigma=0.05)", 0.05).0;
        let strong = agreement("clip(l2=1) | gaussian(sigma=0.5)", 0.5).0;
        let drowned = agreement("clip(l2=1) | gaussian(sigma=50)", 50.0).0;
        assert!(mild > strong && strong > drowned, "{mild} {strong} {drowned}");
        assert!(mild > 0.8, "{mild}");
        // 300 targets: standard error .06 over a reliability of at least .3.
        assert!(drowned.abs() < 0.45, "{drowned}");
    }

    #[test]
    fn one_vector_for_all_has_no_order() {
        let flat = vec![Some(0.0); 4];
        let rising: Vec<Option<f64>> = (0..4).map(|i| Some(f64::from(i) / 4.0)).collect();
        let agreement = Agreement::new(&[[&rising, &rising, &flat, &flat]]).expect("one length");
        let once = Design::independent(4, 1).once();
        assert_eq!((agreement.value(&once), agreement.reliability(&once)), (Some(0.0), Some(1.0)));
        assert_eq!(midranks(&[5, 1, 5, 9]), [0.0, -0.375, 0.0, 0.375]);
    }
}
