//! Tricks that take several epochs or several groups, and what repeating a contribution gives away.

use super::{Field, Given, OTHERS, OWN, SIGMA, Trick, both_worlds, reads_cells};
use crate::contribute::Error;
use crate::contribute::catalogue::{self, Catalogue};
use crate::contribute::channel::{self, UNITS};
use crate::contribute::value::{Engine, EngineConfig, Entry, Group, Protected, even_weights, leak_q32, leaked};
use crate::encode::Embeddings;
use crate::seed::{self, Stream};
use serde::Serialize;

/// Epochs of a game.
const EPOCHS: usize = 8;
/// Epochs after which half of a contribution is left: the default of both engines.
const HALF_LIFE: f64 = 30.0;

/// What a trick paid in each trial, and what honesty would have.
type Gains = (Vec<f64>, Vec<f64>);

/// What a trick of several epochs or groups brings in each trial, beside honesty with the same records; `None` for the others.
pub(super) fn play(
    field: &Field,
    config: &EngineConfig,
    trick: Trick,
    trials: usize,
    root: u64,
) -> Result<Option<Gains>, Error> {
    let engine = &Paying { engine: config.build(), reads_cells: reads_cells(config) };
    let foreign = if trick == Trick::TopicSquatting { Some(foreign(field, root)?) } else { None };
    let both = |trial: usize| -> Option<(f64, f64)> {
        let stream = |what: &str| seed::stream(root, "gaming", &format!("{what} {trial}"));
        let table = Table::open(field, &mut stream("others"));
        let (mut rng, mut noise) = (stream("own"), stream("own noise"));
        match trick {
            Trick::TimeSplitting => {
                let own = field.sample(OWN, &mut rng);
                let rows = |from: usize, to: usize| own.select(&(from..to).collect::<Vec<_>>());
                let each = OWN / EPOCHS;
                let split: Vec<Given> =
                    (0..EPOCHS).map(|e| honest(field, &rows(e * each, (e + 1) * each), &mut noise)).collect();
                let whole = honest(field, &own, &mut noise);
                Some((table.total(engine, &|e| Some(&split[e])), table.total(engine, &|e| (e == 0).then_some(&whole))))
            }
            Trick::Resubmission => {
                let own = field.sample(OWN, &mut rng);
                let again: Vec<Given> = (0..EPOCHS).map(|_| honest(field, &own, &mut noise)).collect();
                let new: Vec<Given> =
                    (0..EPOCHS).map(|_| honest(field, &field.sample(OWN, &mut rng), &mut noise)).collect();
                Some((table.total(engine, &|e| Some(&again[e])), table.total(engine, &|e| Some(&new[e]))))
            }
            Trick::TopicSquatting => {
                let (own, there) = (field.sample(OWN, &mut rng), foreign.as_ref()?);
                let squat = field.give_to(there, &own, (SIGMA, SIGMA), 0.0, &mut noise);
                let weights = even_weights(there.cells());
                let empty = vec![0; there.cells()];
                let group = Group { cells: &empty, weights: &weights, releases: &[], prior: field.prior };
                let alone = |world| engine.engine.appraise(&group, &[squat.entry(field.budget, world)])[0].worth();
                Some((both_worlds(engine.reads_cells, alone), table.first(engine, &honest(field, &own, &mut noise))))
            }
            Trick::MadeUpCells => {
                let own = field.sample(OWN, &mut rng);
                let plain = honest(field, &own, &mut noise);
                Some((table.first(engine, &made_up(&plain, &table.held)), table.first(engine, &plain)))
            }
            _ => None,
        }
    };
    Ok((0..trials).map(both).collect::<Option<Vec<_>>>().map(|pairs| pairs.into_iter().unzip()))
}

/// An engine, and whether it pays from histograms.
struct Paying {
    engine: Box<dyn Engine>,
    reads_cells: bool,
}

fn honest(field: &Field, rows: &Embeddings, rng: &mut Stream) -> Given {
    field.give(rows, SIGMA, SIGMA, 0.0, rng)
}

/// The catalogue of a group of another topic: the public vectors with their coordinates in reverse.
fn foreign(field: &Field, root: u64) -> Result<Catalogue, Error> {
    let mut public = field.rows.select(&(0..field.rows.len() / 3).collect::<Vec<_>>());
    let dim = public.dim();
    public.values_mut().chunks_exact_mut(dim).for_each(<[f32]>::reverse);
    let plan = catalogue::Plan {
        group: "squatted".to_owned(),
        encoder: String::new(),
        cells: field.catalogue.cells(),
        centred: false,
    };
    Catalogue::fit(&plan, &public, &mut seed::stream(root, "gaming", "squatted catalogue"))
}

/// The mass of a contribution on the quarter of the cells that hold least, with the noise that it had.
fn made_up(plain: &Given, held: &Given) -> Given {
    let k = plain.cells.len() - 1;
    let mut order: Vec<usize> = (0..k).collect();
    order.sort_by_key(|&c| held.cells[c]);
    let chosen = &order[..k.div_ceil(4)];
    let mass = i64::from(plain.items) * UNITS / chosen.len() as i64;
    let clean = |c: usize| if chosen.contains(&c) { mass } else { 0 };
    let noise = |c: usize| (plain.cells[c] - plain.mirrored[c]) / 2;
    Given {
        cells: (0..=k).map(|c| clean(c) + noise(c)).collect(),
        mirrored: (0..=k).map(|c| clean(c) - noise(c)).collect(),
        release: plain.release.clone(),
        items: plain.items,
    }
}

/// A group with its other accounts, over several epochs: what leaks is given again, so that the group neither grows nor shrinks.
struct Table<'a> {
    field: &'a Field<'a>,
    held: Given,
    others: Vec<Given>,
}

impl<'a> Table<'a> {
    fn open(field: &'a Field<'a>, rng: &mut Stream) -> Self {
        let held = honest(field, &field.sample(OTHERS * OWN, rng), rng);
        let lost = (OTHERS * OWN) as f64 * (1.0 - (-1.0 / HALF_LIFE).exp2());
        let others = (0..EPOCHS).map(|_| honest(field, &field.sample(lost.round() as usize, rng), rng)).collect();
        Self { field, held, others }
    }

    /// The pay of one contribution in the first epoch.
    fn first(&self, engine: &Paying, own: &Given) -> f64 {
        self.total(engine, &|epoch| (epoch == 0).then_some(own))
    }

    /// The pay of all of an account's contributions; what is accrued counts for as long as it lasts, whenever it was given.
    fn total<'g>(&self, engine: &Paying, own: &dyn Fn(usize) -> Option<&'g Given>) -> f64 {
        let weights = even_weights(self.field.catalogue.cells());
        let leak = leak_q32(HALF_LIFE);
        both_worlds(engine.reads_cells, |world| {
            let mut cells = self.held.cells(world)[..weights.len()].to_vec();
            let mut kept: Vec<Protected> = self.held.release.clone();
            let mut paid = 0.0;
            for (epoch, others) in self.others.iter().enumerate() {
                if (epoch..EPOCHS).all(|e| own(e).is_none()) {
                    break;
                }
                for n in &mut cells {
                    *n = leaked(*n, leak);
                }
                let given: Vec<&Given> = own(epoch).into_iter().chain([others]).collect();
                let group = Group { cells: &cells, weights: &weights, releases: &kept, prior: self.field.prior };
                let entries: Vec<Entry> = given.iter().map(|g| g.entry(self.field.budget, world)).collect();
                // What the others are paid matters to nobody here; their mass does, where prices are made of it.
                let valued = if engine.reads_cells { entries.len() } else { entries.len() - 1 };
                let values = engine.engine.appraise(&group, &entries[..valued]);
                if given.len() == 2 {
                    paid += values[0].worth();
                }
                for g in given {
                    cells.iter_mut().zip(g.cells(world)).for_each(|(n, m)| *n += m);
                    kept.extend(g.release.iter().cloned());
                }
            }
            paid
        })
    }
}

/// What an edge that keeps every histogram learns about one record when its owner gives the same records again and again.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Averaging {
    /// Contributions of the same records.
    pub contributions: usize,
    /// Hits at one false alarm in a hundred, every contribution with noise of its own.
    pub fresh: f64,
    /// The same where the agent keeps its release, as it does by default.
    pub memoized: f64,
    /// Trials with the record, and as many without.
    pub trials: usize,
}

/// Averages 1, 4 and 16 histograms of one account and asks whether a record is among those behind them; everything else about the
/// account is known.
///
/// # Formula
/// The score is `sum_c h_c (mean_c - rest_c)`, `h` the record's own cells, `rest` those of the account's other records: the
/// projection that a normal noise would make the best test.
///
/// # Errors
/// When there are too few rows for a catalogue.
pub fn averaging(rows: &Embeddings, trials: usize, root: u64) -> Result<Vec<Averaging>, Error> {
    let field = super::field(rows, root)?;
    let most = 16;
    // [fresh, memoized][number of contributions][outside, inside]
    let sizes = [1, 4, most];
    let mut scores = vec![vec![[Vec::new(), Vec::new()]; sizes.len()]; 2];
    for trial in 0..trials {
        for inside in [0, 1] {
            let mut rng = seed::stream(root, "averaging", &format!("{trial} {inside}"));
            let (target, own) = field.world(inside == 1, &mut rng);
            let probe = channel::histogram(&field.catalogue, &target);
            let rest = channel::histogram(&field.catalogue, &own.select(&(1..OWN).collect::<Vec<_>>()));
            let clean = channel::histogram(&field.catalogue, &own);
            let mut sum = vec![0.0; clean.len()];
            let score = |sum: &[f64], k: usize| -> f64 {
                let parts = probe.iter().zip(&rest).zip(sum);
                parts.map(|((&h, &r), s)| h as f64 * (s / k as f64 - r as f64)).sum()
            };
            for k in 1..=most {
                let mut given = clean.clone();
                channel::add_noise(&mut given, field.budget, &mut rng);
                sum.iter_mut().zip(&given).for_each(|(s, &n)| *s += n as f64);
                if k == 1 {
                    // The same bytes every time: their mean is what one of them is.
                    let once = score(&sum, 1);
                    (0..sizes.len()).for_each(|i| scores[1][i][inside].push(once));
                }
                if let Some(i) = sizes.iter().position(|&size| size == k) {
                    scores[0][i][inside].push(score(&sum, k));
                }
            }
        }
    }
    Ok(sizes
        .iter()
        .enumerate()
        .map(|(i, &contributions)| Averaging {
            contributions,
            fresh: super::hits_at_1_percent(&mut scores[0][i].clone()),
            memoized: super::hits_at_1_percent(&mut scores[1][i].clone()),
            trials,
        })
        .collect())
}
