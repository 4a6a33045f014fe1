//! Attacks on the contribution loop: can an account be paid more than honest records of the same number would bring, and do
//! the replies tell whose records are in a group?

mod epochs;

pub use epochs::{Averaging, averaging};

use crate::contribute::Error;
use crate::contribute::catalogue::{self, Catalogue};
use crate::contribute::channel::{self, Budget};
use crate::contribute::value::product::Novelty;
use crate::contribute::value::{
    Coverage, EngineConfig, Entry, Group, Prior, Product, Protected, Value, even_weights, novelty,
};
use crate::encode::Embeddings;
use crate::seed::{self, Stream};
use rand::RngExt;
use rand_distr::{Distribution, StandardNormal};
use serde::Serialize;

/// Records of one account.
const OWN: usize = 40;
/// Honest accounts that gave before, and as many that give in the same epoch.
const OTHERS: usize = 10;
/// Accounts that an attacker splits into, or farms noise with.
const SYBILS: usize = 20;
/// Noise on vectors, for the engine that reads them.
const SIGMA: f64 = 0.02;

/// One way to game the loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Trick {
    /// Records that another account gave before.
    Copies,
    /// The same, with twice the usual noise, declared.
    NoisyCopies,
    /// Own records with half as much noise again, not declared.
    NoiseStuffing,
    /// Own records with the usual noise, half of it declared.
    FalseSigma,
    /// Copies with the usual noise, half of it declared.
    FalseSigmaCopies,
    /// No records at all: noise, from many accounts.
    NoiseFarming,
    /// Random vectors far from every topic.
    Junk,
    /// Own records over many accounts.
    AccountSplitting,
    /// Own records over many epochs instead of one.
    TimeSplitting,
    /// The same records in every epoch, under fresh noise, for as many new ones.
    Resubmission,
    /// Own records, declared for a group of another topic that nobody else gives to.
    TopicSquatting,
    /// A histogram that no records stand behind, on the cells that hold least. Nothing in the loop sees it: a residual.
    MadeUpCells,
}

impl Trick {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Copies,
        Self::NoisyCopies,
        Self::NoiseStuffing,
        Self::FalseSigma,
        Self::FalseSigmaCopies,
        Self::NoiseFarming,
        Self::Junk,
        Self::AccountSplitting,
        Self::TimeSplitting,
        Self::Resubmission,
        Self::TopicSquatting,
        Self::MadeUpCells,
    ];

    /// Its name in every output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Copies => "copies",
            Self::NoisyCopies => "noisy copies",
            Self::NoiseStuffing => "noise stuffing",
            Self::FalseSigma => "false sigma",
            Self::FalseSigmaCopies => "false sigma, copies",
            Self::NoiseFarming => "noise farming",
            Self::Junk => "junk",
            Self::AccountSplitting => "account splitting",
            Self::TimeSplitting => "time splitting",
            Self::Resubmission => "resubmission",
            Self::TopicSquatting => "topic squatting",
            Self::MadeUpCells => "made-up cells (residual)",
        }
    }
}

/// What a trick brings under one engine.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Gain {
    /// The trick.
    pub trick: Trick,
    /// The engine.
    pub engine: &'static str,
    /// Mean pay over the mean pay of as many honest records; above 1 the trick pays.
    pub gain: f64,
    /// Standard error of the gain: trick and honesty share their records and the other accounts.
    pub error: f64,
}

/// The engines on trial, by name.
pub fn engines() -> [(&'static str, EngineConfig); 3] {
    let product = |novelty| EngineConfig::Product(Product { novelty, ..Product::default() });
    [
        ("coverage", EngineConfig::Coverage(Coverage::default())),
        ("product, debiased", product(Novelty::Debiased)),
        ("product, naive", product(Novelty::Naive)),
    ]
}

/// One account's contribution as the edge sees it.
struct Given {
    cells: Vec<i64>,
    /// The same under the opposite noise, which is as likely: the mean of both worlds has little of the noise left, and the
    /// same expectation.
    mirrored: Vec<i64>,
    release: Vec<Protected>,
    items: u32,
}

struct Field<'a> {
    rows: &'a Embeddings,
    catalogue: Catalogue,
    budget: Budget,
    prior: Prior,
}

impl Field<'_> {
    /// What an account sends for `rows`: noise of `sigma`, of which `declared` is declared.
    fn give(&self, rows: &Embeddings, sigma: f64, declared: f64, extra_cells: f64, rng: &mut Stream) -> Given {
        self.give_to(&self.catalogue, rows, (sigma, declared), extra_cells, rng)
    }

    /// The same for a group of any catalogue.
    fn give_to(
        &self,
        catalogue: &Catalogue,
        rows: &Embeddings,
        (sigma, declared): (f64, f64),
        extra_cells: f64,
        rng: &mut Stream,
    ) -> Given {
        let clean = channel::histogram(catalogue, rows);
        let mut cells = clean.clone();
        channel::add_noise(&mut cells, self.budget, rng);
        for cell in &mut cells {
            let more: f64 = StandardNormal.sample(rng);
            *cell += (extra_cells * (self.budget.variance_units() as f64).sqrt() * more) as i64;
        }
        let release = rows
            .rows()
            .map(|row| {
                let noisy: Vec<f32> = row
                    .iter()
                    .map(|&v| (f64::from(v) + sigma * Distribution::<f64>::sample(&StandardNormal, rng)) as f32)
                    .collect();
                Protected::new(&noisy, declared)
            })
            .collect();
        let mirrored = clean.iter().zip(&cells).map(|(c, n)| 2 * c - n).collect();
        Given { cells, mirrored, release, items: rows.len() as u32 }
    }

    fn sample(&self, n: usize, rng: &mut Stream) -> Embeddings {
        let from = self.rows.len() / 3;
        let picked: Vec<usize> = (0..n).map(|_| rng.random_range(from..self.rows.len())).collect();
        self.rows.select(&picked)
    }

    /// A record, and those of an account that it is among or not.
    fn world(&self, inside: bool, rng: &mut Stream) -> (Embeddings, Embeddings) {
        let target = self.sample(1, rng);
        let mut own = self.sample(OWN, rng);
        if inside {
            own.row_mut(0).copy_from_slice(target.row(0));
        }
        (target, own)
    }

    fn play(&self, trick: Option<Trick>, before: &Embeddings, rng: &mut Stream) -> Vec<Given> {
        let own = self.sample(OWN, rng);
        let copies = before.select(&(0..OWN).map(|i| i % before.len()).collect::<Vec<_>>());
        match trick {
            None => vec![self.give(&own, SIGMA, SIGMA, 0.0, rng)],
            Some(Trick::Copies) => vec![self.give(&copies, SIGMA, SIGMA, 0.0, rng)],
            Some(Trick::NoisyCopies) => vec![self.give(&copies, 2.0 * SIGMA, 2.0 * SIGMA, 1.0, rng)],
            Some(Trick::NoiseStuffing) => vec![self.give(&own, 1.5 * SIGMA, SIGMA, 1.0, rng)],
            Some(Trick::FalseSigma) => vec![self.give(&own, SIGMA, SIGMA / 2.0, 0.0, rng)],
            Some(Trick::FalseSigmaCopies) => vec![self.give(&copies, SIGMA, SIGMA / 2.0, 0.0, rng)],
            Some(Trick::NoiseFarming) => {
                let nothing = Embeddings::empty(own.dim());
                (0..SYBILS).map(|_| self.give(&nothing, SIGMA, SIGMA, 0.0, rng)).collect()
            }
            Some(Trick::Junk) => {
                let mut junk = own;
                for i in 0..junk.len() {
                    let row = junk.row_mut(i);
                    for v in row.iter_mut() {
                        *v = Distribution::<f64>::sample(&StandardNormal, rng) as f32;
                    }
                    let norm = row.iter().map(|v| v * v).sum::<f32>().sqrt();
                    for v in row {
                        *v /= norm;
                    }
                }
                vec![self.give(&junk, SIGMA, SIGMA, 0.0, rng)]
            }
            Some(Trick::AccountSplitting) => {
                let whole = self.give(&own, SIGMA, SIGMA, 0.0, rng);
                let k = SYBILS as i64;
                // The one noisy histogram is cut in pieces: nobody can be made to draw noise for each account honestly.
                let each = OWN.div_ceil(SYBILS);
                let part = |cells: &[i64], s: usize| {
                    cells.iter().map(|n| n * (s as i64 + 1) / k - n * s as i64 / k).collect::<Vec<_>>()
                };
                (0..SYBILS)
                    .map(|s| Given {
                        cells: part(&whole.cells, s),
                        mirrored: part(&whole.mirrored, s),
                        release: whole.release.iter().skip(s * each).take(each).cloned().collect(),
                        items: each as u32,
                    })
                    .collect()
            }
            Some(Trick::TimeSplitting | Trick::Resubmission | Trick::TopicSquatting | Trick::MadeUpCells) => {
                unreachable!("played in `epochs`")
            }
        }
    }
}

/// Plays every trick against every engine on `rows`, records of one group; the first third is public.
///
/// # Errors
/// When there are too few rows for a catalogue.
pub fn gains(rows: &Embeddings, trials: usize, root: u64) -> Result<Vec<Gain>, Error> {
    let field = field(rows, root)?;
    let weights = even_weights(field.catalogue.cells());
    let mut out = Vec::new();
    for (name, config) in engines() {
        let engine = config.build();
        let pay = |trick: Option<Trick>| -> Vec<f64> {
            (0..trials)
                .map(|trial| {
                    let mut rng = seed::stream(root, "gaming", &format!("others {trial}"));
                    let before = field.sample(OTHERS * OWN, &mut rng);
                    let held = field.give(&before, SIGMA, SIGMA, 0.0, &mut rng);
                    let others = field.give(&field.sample(OTHERS * OWN, &mut rng), SIGMA, SIGMA, 0.0, &mut rng);
                    let mut rng = seed::stream(root, "gaming", &format!("own {trial}"));
                    let own = field.play(trick, &before, &mut rng);
                    both_worlds(reads_cells(&config), |world| {
                        let cells = &held.cells(world)[..weights.len()];
                        let group = Group { cells, weights: &weights, releases: &held.release, prior: field.prior };
                        let epoch: Vec<Entry> =
                            own.iter().chain([&others]).map(|g| g.entry(field.budget, world)).collect();
                        engine.appraise(&group, &epoch)[..own.len()].iter().map(Value::worth).sum()
                    })
                })
                .collect()
        };
        let honest = pay(None);
        for trick in Trick::ALL {
            let (paid, honest) = match epochs::play(&field, &config, trick, trials, root)? {
                Some(played) => played,
                None => (pay(Some(trick)), honest.clone()),
            };
            let (gain, error) = ratio(&paid, &honest);
            out.push(Gain { trick, engine: name, gain, error });
        }
    }
    Ok(out)
}

/// The mean of a figure over the two worlds of opposite noise; one of them where the engine reads no histogram.
fn both_worlds(reads_cells: bool, figure: impl Fn(bool) -> f64) -> f64 {
    if reads_cells { 0.5 * (figure(false) + figure(true)) } else { figure(false) }
}

fn reads_cells(config: &EngineConfig) -> bool {
    matches!(config, EngineConfig::Coverage(_))
}

impl Given {
    fn cells(&self, mirrored: bool) -> &[i64] {
        if mirrored { &self.mirrored } else { &self.cells }
    }

    fn entry(&self, budget: Budget, mirrored: bool) -> Entry<'_> {
        Entry { cells: self.cells(mirrored), budget, items: self.items, release: &self.release, age_epochs: 0 }
    }
}

/// The ratio of two means over the same trials, with its standard error (delta method).
fn ratio(paid: &[f64], honest: &[f64]) -> (f64, f64) {
    let base = mean(honest).0;
    let gain = mean(paid).0 / base;
    let off: Vec<f64> = paid.iter().zip(honest).map(|(p, h)| p - gain * h).collect();
    (gain, mean(&off).1 / base)
}

fn mean(list: &[f64]) -> (f64, f64) {
    let n = list.len() as f64;
    let mean = list.iter().sum::<f64>() / n;
    (mean, (list.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n / n).sqrt())
}

fn field(rows: &Embeddings, root: u64) -> Result<Field<'_>, Error> {
    let public = rows.select(&(0..rows.len() / 3).collect::<Vec<_>>());
    let plan = catalogue::Plan {
        group: "gaming".to_owned(),
        encoder: String::new(),
        cells: (public.len() / 20).clamp(2, 32),
        centred: false,
    };
    let catalogue = Catalogue::fit(&plan, &public, &mut seed::stream(root, "gaming", "catalogue"))?;
    // What public records look like to each other is what the edge takes for the group's prior.
    let kept: Vec<Protected> = public.rows().take(200).map(|row| Protected::new(row, 0.0)).collect();
    let pairs: Vec<f64> =
        (0..kept.len()).flat_map(|i| (0..i).map(move |j| (i, j))).map(|(i, j)| kept[i].product(&kept[j])).collect();
    let (m, error) = mean(&pairs);
    let prior = Prior { mean: m, variance: error * error * pairs.len() as f64, ..Prior::TEXT };
    Ok(Field { rows, catalogue, budget: Budget { epsilon_milli: 1000 }, prior })
}

/// What a reply tells about whether a record is in a group.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Membership {
    /// What the attacker sees.
    pub reply: &'static str,
    /// Hits at one false alarm in a hundred.
    pub tpr_at_1_percent: f64,
    /// What privacy of the channel allows at most; `None` where nothing is promised.
    pub bound: Option<f64>,
    /// Trials with the record, and as many without.
    pub trials: usize,
}

/// Asks for the value of a record that may be among those of one other account, many times over.
///
/// The attacker knows everything else of the group. Replies of engine B come from the noisy histogram; the contrast is the naive
/// novelty of engine A over vectors that carry noise of 0.02.
///
/// # Errors
/// When there are too few rows for a catalogue.
pub fn membership(rows: &Embeddings, trials: usize, root: u64) -> Result<Vec<Membership>, Error> {
    let field = field(rows, root)?;
    let weights = even_weights(field.catalogue.cells());
    let engine = Coverage::default();
    let mut scores = [[Vec::new(), Vec::new()], [Vec::new(), Vec::new()]];
    for trial in 0..trials {
        for inside in [0, 1] {
            let mut rng = seed::stream(root, "membership", &format!("{trial} {inside}"));
            let (target, victim) = field.world(inside == 1, &mut rng);
            let held = field.give(&victim, SIGMA, SIGMA, 0.0, &mut rng);
            let mut probe = channel::histogram(&field.catalogue, &target);
            let prices = engine.prices(&held.cells[..weights.len()], &vec![0; weights.len()], &weights);
            probe.truncate(weights.len());
            let value = crate::contribute::value::coverage::pay(&prices, &probe) as f64;
            // A covered cell pays less: low replies speak for membership. What is known of the others is taken off.
            let mut clean = channel::histogram(&field.catalogue, &victim.select(&(1..OWN).collect::<Vec<_>>()));
            clean.truncate(weights.len());
            let expected = engine.prices(&clean, &vec![0; weights.len()], &weights);
            scores[0][inside].push(crate::contribute::value::coverage::pay(&expected, &probe) as f64 - value);
            let asked = field.give(&target, SIGMA, SIGMA, 0.0, &mut rng);
            scores[1][inside].push(-novelty::naive(&asked.release[0], &held.release));
        }
    }
    let bound = (2.0 / field.budget.scale_items()).exp() * 0.01;
    let [mut coverage, mut product] = scores;
    Ok(vec![
        Membership {
            reply: "value, coverage",
            tpr_at_1_percent: hits_at_1_percent(&mut coverage),
            bound: Some(bound),
            trials,
        },
        Membership { reply: "novelty, naive", tpr_at_1_percent: hits_at_1_percent(&mut product), bound: None, trials },
    ])
}

/// How many of the inside scores lie above all but a hundredth of the outside ones.
fn hits_at_1_percent([outside, inside]: &mut [Vec<f64>; 2]) -> f64 {
    outside.sort_by(f64::total_cmp);
    let threshold = outside[outside.len() - 1 - outside.len() / 100];
    inside.iter().filter(|s| **s > threshold).count() as f64 / inside.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contribute::catalogue::tests::clouds;

    #[test]
    fn tricks_do_not_pay_under_coverage_and_some_do_under_the_product() {
        let rows = clouds(1500, 30, 128, 0.5, "gaming");
        let gains = gains(&rows, 16, 1).expect("enough rows");
        let of = |engine: &str, trick: Trick| {
            gains.iter().find(|g| g.engine == engine && g.trick == trick).expect("every pair was played")
        };
        let gain = |engine: &str, trick: Trick| of(engine, trick).gain;
        let next_to_nothing = |trick: Trick| gain("coverage", trick) < 0.1 + 3.0 * of("coverage", trick).error;
        let mut expected: Vec<(bool, String)> = Vec::new();
        for trick in Trick::ALL {
            let g = of("coverage", trick);
            // What nobody can see is a residual: its size is shown, not bounded.
            let seen = trick != Trick::MadeUpCells;
            expected.push((g.error < 0.05 && (!seen || g.gain <= 1.05 + g.error), format!("{g:?}")));
        }
        let product = |trick, least| {
            ["product, naive", "product, debiased"]
                .map(|engine| (gain(engine, trick) > least, format!("{:?}", of(engine, trick))))
        };
        // Splitting in time loses what others cover meanwhile, and pays under the concave volume of the product.
        let split = gain("coverage", Trick::TimeSplitting);
        expected.push(((0.5..1.0).contains(&split), "splitting in time costs some, not all".to_owned()));
        expected.extend(product(Trick::TimeSplitting, 1.3));
        // Records of another topic fall into no cell of the squatted group, where the product finds nothing like them.
        expected.push((next_to_nothing(Trick::TopicSquatting), "squatting".to_owned()));
        expected.push(product(Trick::TopicSquatting, 1.5)[0].clone());
        expected.push((next_to_nothing(Trick::Junk), "junk falls into no topic".to_owned()));
        expected.push((next_to_nothing(Trick::NoiseFarming), "noise farming".to_owned()));
        expected.push(product(Trick::AccountSplitting, 1.5)[0].clone());
        expected.push(product(Trick::Junk, 1.0)[0].clone());
        expected.push((gain("product, debiased", Trick::Copies) < 0.5, "copies".to_owned()));
        let wrong: Vec<&String> = expected.iter().filter(|(ok, _)| !ok).map(|(_, what)| what).collect();
        assert!(wrong.is_empty(), "{wrong:#?} of {gains:#?}");
    }

    /// 1000 trials: the standard error of a rate of 2 % is .45 %, of one of 20 % 1.3 %.
    #[test]
    fn repeating_a_contribution_gives_a_record_away_unless_the_release_is_kept() {
        let rows = clouds(1500, 30, 128, 0.5, "gaming");
        let found = averaging(&rows, 1000, 1).expect("enough rows");
        assert!(found.iter().all(|a| a.memoized == found[0].fresh), "{found:?}");
        assert!(found[0].fresh < 0.027 + 4.0 * 0.0045, "one release keeps its promise: {found:?}");
        assert!(found[2].fresh > found[0].fresh + 0.05, "averages of fresh noise do not: {found:?}");
    }

    #[test]
    fn replies_of_the_noisy_histogram_tell_next_to_nothing() {
        let rows = clouds(1500, 30, 128, 0.5, "gaming");
        let found = membership(&rows, 600, 1).expect("enough rows");
        // 600 trials: the standard error at 2 % is .6 %; the bound at epsilon 1 is 2.7 %.
        assert!(found[0].tpr_at_1_percent < 0.027 + 3.0 * 0.0066, "{found:?}");
        assert!((found[0].bound.expect("promised") - 0.0272).abs() < 1e-3);
        assert!(found[1].tpr_at_1_percent > 0.1, "the contrast is seen: {found:?}");
    }
}
