//! Secrets in known places: the wording is public, the name, date or code in it is not.

use super::dictionary::{CITIES, FIRST_NAMES, LAST_NAMES, values};
use super::gaussian::{all_products, precision, squares, times};
use super::{Field, Findings, Inference, Probe};
use crate::attack::text::lexicon;
use crate::attack::{Error, Knowledge, Progress, View, adapt, linear};
use crate::encode::{Cached, Embeddings};
use crate::measure::{identify, infer};
use crate::seed;
use rand::RngExt;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

/// Candidates of a slot whose values are made up rather than listed.
const CANDIDATES: usize = 1000;
/// Filled forms of the attacker's own, for each slot, from which it learns what carriers look like.
const REHEARSED: usize = 128;
/// Texts in one call of the encoder, between two looks at the clock.
const WAVE: usize = 2048;

/// Finds the value of a slot in a text of known wording.
///
/// The victim's record is a real sentence (the carrier) with a filled form put before or behind it. The attacker knows
/// the form and the list of values.
///
/// # Formula
/// *Hidden carrier*: the direction of value `v` is `D_v = e(form with v) - mean over all v`, averaged over a few of the
/// attacker's own carriers: the difference removes the carrier. With `m`, `S` the mean and covariance of own filled
/// forms after the pipeline without its noise, and `g` the share of one record in a row, values are ranked by the Gaussian
/// log-likelihood `g D_v' W (y - m) - g^2/2 D_v' W D_v`, `W = (S + sigma^2 I)^-1`.
///
/// *Known carrier*: the first values of that ranking are embedded in the carrier itself and ranked again by
/// `y.e - |e|^2 / 2`.
///
/// # Range
/// Share of targets whose value is ranked first, chance `1 / N`; exposure `log2 N - log2 rank` in bits, 0 to `log2 N`,
/// higher = worse privacy. Ties count against the attacker.
///
/// # Source
/// Exposure after Carlini et al. 2019; the linear discriminant is Fisher's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Slots {
    /// Targets that carry a secret, the first of the study's order; 0 means all.
    pub targets: usize,
    /// The attacker's own carriers over which directions are averaged.
    pub carriers: usize,
    /// Targets whose carrier is known; 0 leaves that variant out.
    pub known: usize,
    /// Values that are tried in a known carrier.
    pub shortlist: usize,
}

impl Default for Slots {
    fn default() -> Self {
        Self { targets: 200, carriers: 2, known: 50, shortlist: 50 }
    }
}

impl Slots {
    /// Every parameter that is out of range.
    pub fn check(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.carriers == 0 {
            problems.push("`carriers` must be at least 1".to_owned());
        }
        if self.known > 0 && self.shortlist < 2 {
            problems.push("`shortlist` must be at least 2, or `known` must be 0".to_owned());
        }
        problems
    }
}

/// Where a form stands in the record.
#[derive(Clone, Copy)]
enum Place {
    Before,
    Behind,
}

/// A kind of secret.
struct Slot {
    id: &'static str,
    name: &'static str,
    forms: [(Place, &'static str); 2],
    values: Vec<String>,
}

/// All kinds; lists that are made up depend on nothing, so that every study ranks the same candidates.
fn slots() -> Vec<Slot> {
    use Place::{Before, Behind};
    let slot = |id, name, forms, values: Vec<String>| Slot { id, name, forms, values };
    let owned = |list| values(list).into_iter().map(str::to_owned).collect::<Vec<String>>();
    vec![
        slot(
            "first_name",
            "first name",
            [(Behind, "My name is {}."), (Before, "{} told me this:")],
            owned(FIRST_NAMES),
        ),
        slot("full_name", "full name", [(Behind, "The patient is {}."), (Before, "Statement of {}:")], full_names()),
        slot("city", "city", [(Behind, "I live in {}."), (Before, "Sent from {}:")], owned(CITIES)),
        slot("date", "date", [(Behind, "My birthday is {}."), (Before, "Appointment on {}:")], dates()),
        slot("amount", "amount", [(Behind, "My salary is {}."), (Before, "Invoice of {}:")], amounts()),
        slot("code", "6-digit code", [(Behind, "The access code is {}."), (Before, "PIN {}:")], codes()),
    ]
}

/// Distinct values in the order in which they are drawn.
fn draw(name: &str, mut one: impl FnMut(&mut seed::Stream) -> String) -> Vec<String> {
    let mut rng = seed::stream(0, "slots", name);
    let mut met = std::collections::BTreeSet::new();
    let mut out = Vec::with_capacity(CANDIDATES);
    while out.len() < CANDIDATES {
        let value = one(&mut rng);
        if met.insert(value.clone()) {
            out.push(value);
        }
    }
    out
}

fn full_names() -> Vec<String> {
    let (first, last) = (values(FIRST_NAMES), values(LAST_NAMES));
    draw("full names", |rng| {
        format!("{} {}", first[rng.random_range(0..first.len())], last[rng.random_range(0..last.len())])
    })
}

fn dates() -> Vec<String> {
    let months = [
        ("January", 31),
        ("February", 28),
        ("March", 31),
        ("April", 30),
        ("May", 31),
        ("June", 30),
        ("July", 31),
        ("August", 31),
        ("September", 30),
        ("October", 31),
        ("November", 30),
        ("December", 31),
    ];
    months.iter().flat_map(|(month, days)| (1..=*days).map(move |day| format!("{day} {month}"))).collect()
}

fn amounts() -> Vec<String> {
    draw("amounts", |rng| {
        let amount: u32 = rng.random_range(1_000..100_000);
        format!("${},{:03}", amount / 1000, amount % 1000)
    })
}

fn codes() -> Vec<String> {
    draw("codes", |rng| format!("{:06}", rng.random_range(0..1_000_000_u32)))
}

impl Slot {
    fn filled(&self, form: usize, value: usize, carrier: &str) -> String {
        let (place, form) = self.forms[form];
        let text = form.replace("{}", &self.values[value]);
        match place {
            Place::Before => format!("{text} {carrier}"),
            Place::Behind => format!("{carrier} {text}"),
        }
    }
}

/// What the victim put into one target for one slot.
struct Secret {
    form: usize,
    value: usize,
}

impl Probe for Slots {
    fn needs(&self) -> Knowledge {
        Knowledge { auxiliary: true, pipeline: true, encoder: true, released: true, leaked_pairs: 0 }
    }

    fn run(&self, view: &View, field: &Field, progress: &dyn Progress) -> Result<Findings, Error> {
        let slots = slots();
        let encoder = Counted::new(view, progress);
        // The victim's side: every target carries one secret of each kind, embedded and released by the real pipeline.
        let secrets: Vec<Vec<Secret>> = slots.iter().map(|slot| plant(slot, field)).collect();
        let planted = slots
            .iter()
            .zip(&secrets)
            .map(|(slot, secrets)| {
                let carriers = field.records.iter().map(|r| r.text.as_str());
                let texts = carriers.zip(secrets).map(|(c, s)| slot.filled(s.form, s.value, c)).collect::<Vec<_>>();
                let clean = encoder.victims(&texts)?;
                let released = field.release(&clean, field.strata, &format!("secret {}", slot.id))?;
                Ok(adapt::read(view.pipeline, released))
            })
            .collect::<Result<Vec<_>, Error>>()?;

        // 1. Fitted on the attacker's own carriers.
        let reader = Reader::fit(self, view, &slots, &encoder)?;

        // 2. Answers: values ranked from the released vector and the form, then with the carrier known as well.
        let mut findings = Findings::default();
        for (s, slot) in slots.iter().enumerate() {
            let forms: Vec<usize> = secrets[s].iter().map(|secret| secret.form).collect();
            let hidden = reader.scores(s, &forms, &planted[s]);
            let known = (0..self.known.min(field.records.len()))
                .map(|i| self.known(slot, forms[i], &field.records[i].text, &hidden[i], planted[s].row(i), &encoder))
                .collect::<Result<Vec<_>, Error>>()?;

            // 3. Scores: where the truth stands in the ranking.
            let rank = |scores: &[f32], i: usize| identify::rank(scores, secrets[s][i].value);
            let ranks: Vec<usize> = hidden.iter().enumerate().map(|(i, scores)| rank(scores, i)).collect();
            score(slot, "", "form known, carrier hidden", &ranks, field, &mut findings);
            let ranks: Vec<usize> = known.iter().enumerate().map(|(i, scores)| rank(scores, i)).collect();
            score(slot, "_known_carrier", "form and carrier known", &ranks, field, &mut findings);
        }
        findings.queries = encoder.spent();
        Ok(findings)
    }
}

/// One secret for each target; the same for every protection, so that they are compared on the same texts.
fn plant(slot: &Slot, field: &Field) -> Vec<Secret> {
    let one = |i: usize| {
        let mut rng = seed::stream(field.seed, &field.records[i].id, &format!("secret {}", slot.id));
        Secret { form: rng.random_range(0..slot.forms.len()), value: rng.random_range(0..slot.values.len()) }
    };
    (0..field.records.len()).map(one).collect()
}

fn score(slot: &Slot, variant: &str, knows: &str, ranks: &[usize], field: &Field, findings: &mut Findings) {
    let n = slot.values.len();
    let all = |of: &dyn Fn(usize) -> f64| -> Vec<Option<f64>> {
        let scores = ranks.iter().map(|&rank| Some(of(rank)));
        scores.chain(std::iter::repeat(None)).take(field.records.len()).collect()
    };
    let question = format!("Which {} of {n}? Ranked first ({knows})", slot.name);
    findings.per_target(
        format!("slot_{}{variant}_top1", slot.id),
        all(&|rank| f64::from(u8::from(rank == 1))),
        Inference::share(question, 1.0 / n as f64),
    );
    let exposure = Inference {
        unit: "bits".to_owned(),
        headline: false,
        range: (0.0, (n as f64).log2()),
        ..Inference::share(format!("Which {} of {n}? Exposure ({knows})", slot.name), infer::chance_exposure_bits(n))
    };
    findings.per_target(
        format!("slot_{}{variant}_exposure_bits", slot.id),
        all(&|rank| infer::exposure_bits(rank, n)),
        exposure,
    );
}

impl Slots {
    /// Scores of all values for one target whose carrier the attacker knows: the shortlist by likelihood, then the rest
    /// in the order that it had.
    fn known(
        &self,
        slot: &Slot,
        form: usize,
        carrier: &str,
        hidden: &[f32],
        released: &[f32],
        encoder: &Counted,
    ) -> Result<Vec<f32>, Error> {
        let shortlist: Vec<usize> = lexicon::top(hidden, self.shortlist).into_iter().map(|(v, _)| v).collect();
        let texts: Vec<String> = shortlist.iter().map(|&v| slot.filled(form, v, carrier)).collect();
        let vectors = encoder.attackers(&texts)?;
        let mut likelihood: Vec<(usize, f32)> = shortlist
            .iter()
            .zip(vectors.rows())
            .map(|(&v, e)| {
                let product: f64 = e.iter().zip(released).map(|(e, y)| f64::from(*e) * f64::from(y - 0.5 * e)).sum();
                (v, product as f32)
            })
            .collect();
        likelihood.sort_by(|a, b| b.1.total_cmp(&a.1));
        // Above every hidden score, in the new order; ties stay ties.
        let top = hidden.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mut scores = hidden.to_vec();
        let mut level = likelihood.len() as f32;
        for (at, (v, product)) in likelihood.iter().enumerate() {
            if at > 0 && *product < likelihood[at - 1].1 {
                level -= 1.0;
            }
            scores[*v] = top + level;
        }
        Ok(scores)
    }
}

/// What the attacker learned: the directions of values, and how carriers and noise hide them.
struct Reader {
    /// For each slot and form: `g W D_v`.
    filters: Vec<[Embeddings; 2]>,
    /// For each slot and form: `m' g W D_v + g^2/2 D_v' W D_v`.
    offsets: Vec<[Vec<f32>; 2]>,
}

impl Reader {
    fn fit(parameters: &Slots, view: &View, slots: &[Slot], encoder: &Counted) -> Result<Self, Error> {
        let mut order: Vec<usize> = (0..view.auxiliary.len()).collect();
        order.shuffle(&mut seed::stream(view.seed, &view.inputs, "slots carriers"));
        let carrier = |at: usize| view.auxiliary[order[at % order.len()]].text.as_str();
        let dim = view.clean.dim();
        let sigma = adapt::reading(view.pipeline, dim).1 / (view.releases as f64).sqrt();
        let members = view.pipeline.state_at(dim).members.max(1);
        let g = 1.0 / members as f32;

        let mut directions = Vec::with_capacity(slots.len());
        for slot in slots {
            let of = |form: usize| direction(slot, form, (0..parameters.carriers).map(carrier), encoder);
            directions.push([of(0)?, of(1)?]);
        }

        // Own filled forms as the pipeline leaves them before averaging and noise: means of both forms, what carriers add.
        let mut means = Vec::with_capacity(slots.len());
        let mut residuals = Embeddings::empty(dim);
        for (s, slot) in slots.iter().enumerate() {
            let mut of_form = Vec::with_capacity(2);
            for (form, known) in directions[s].iter().enumerate() {
                let mut rng = seed::stream(view.seed, &view.inputs, &format!("slots rehearsal {} {form}", slot.id));
                let own: Vec<(usize, usize)> =
                    (0..REHEARSED).map(|i| (parameters.carriers + i, rng.random_range(0..slot.values.len()))).collect();
                let texts: Vec<String> = own.iter().map(|&(at, v)| slot.filled(form, v, carrier(at))).collect();
                let purpose = format!("slots signal {} {form}", slot.id);
                let signal = super::alone(view, encoder.attackers(&texts)?, &purpose)?;
                let mean = signal.mean();
                for (row, &(_, v)) in signal.rows().zip(&own) {
                    let left: Vec<f32> =
                        row.iter().zip(&mean).zip(known.row(v)).map(|((y, m), d)| y - *m as f32 - d).collect();
                    residuals.push(&left);
                }
                of_form.push(mean);
            }
            means.push(of_form);
        }
        if members > 1 {
            // The others of a group have forms of their own; what groups of carriers look like, all records together tell.
            for of_form in &mut means {
                let both: Vec<f64> = of_form[0].iter().zip(&of_form[1]).map(|(a, b)| 0.5 * (a + b)).collect();
                for mean in of_form {
                    mean.iter_mut().zip(&both).for_each(|(m, b)| *m = b + f64::from(g) * (*m - b));
                }
            }
            residuals = adapt::release(&view.pipeline.without_noise(), view.clean, view.strata, 1, |_| {
                seed::stream(view.seed, &view.fingerprint, "slots groups")
            })?;
        }
        let cov = shrunk(&residuals);
        let weight = precision(&cov, dim, 1.0, sigma * sigma);

        let (mut filters, mut offsets) = (Vec::new(), Vec::new());
        for (directions, means) in directions.iter().zip(&means) {
            let of = |form: usize| {
                let mut scaled = directions[form].clone();
                scaled.values_mut().iter_mut().for_each(|v| *v *= g);
                let filter = times(&scaled, &weight);
                let half = squares(&scaled, &filter);
                let offset = filter.rows().zip(half).map(|(f, half)| {
                    let at_mean: f64 = f.iter().zip(&means[form]).map(|(f, m)| f64::from(*f) * m).sum();
                    at_mean as f32 + 0.5 * half
                });
                let offset = offset.collect();
                (filter, offset)
            };
            let ((a, x), (b, y)) = (of(0), of(1));
            filters.push([a, b]);
            offsets.push([x, y]);
        }
        Ok(Self { filters, offsets })
    }

    /// For each released row, a score for each value.
    fn scores(&self, slot: usize, forms: &[usize], released: &Embeddings) -> Vec<Vec<f32>> {
        let products = [0, 1].map(|form| all_products(released, &self.filters[slot][form]));
        let n = self.filters[slot][0].len();
        forms
            .iter()
            .enumerate()
            .map(|(i, &form)| {
                let row = &products[form][i * n..(i + 1) * n];
                row.iter().zip(&self.offsets[slot][form]).map(|(p, o)| p - o).collect()
            })
            .collect()
    }
}

/// `D_v` of every value: what it adds to the vector of the form, whatever the carrier.
fn direction<'t>(
    slot: &Slot,
    form: usize,
    carriers: impl ExactSizeIterator<Item = &'t str>,
    encoder: &Counted,
) -> Result<Embeddings, Error> {
    let count = carriers.len() as f32;
    let mut sum: Option<Embeddings> = None;
    for carrier in carriers {
        let texts: Vec<String> = (0..slot.values.len()).map(|v| slot.filled(form, v, carrier)).collect();
        let vectors = encoder.attackers(&texts)?;
        let mean = mean_row(&vectors);
        let sum = sum.get_or_insert_with(|| {
            let zeros = vec![0.0; vectors.values().len()];
            Embeddings::new(zeros, vectors.dim()).expect("zeros are finite")
        });
        for (row, vector) in sum.values_mut().chunks_exact_mut(mean.len()).zip(vectors.rows()) {
            for ((s, v), m) in row.iter_mut().zip(vector).zip(&mean) {
                *s += (v - m) / count;
            }
        }
    }
    Ok(sum.expect("at least one carrier, as `check` demands"))
}

fn mean_row(rows: &Embeddings) -> Vec<f32> {
    let mut mean = vec![0.0_f64; rows.dim()];
    for row in rows.rows() {
        mean.iter_mut().zip(row).for_each(|(m, v)| *m += f64::from(*v));
    }
    let n = rows.len().max(1);
    mean.iter().map(|m| (m / n as f64) as f32).collect()
}

/// The covariance of the residuals, drawn a little towards a multiple of the identity, so that it can be inverted.
fn shrunk(residuals: &Embeddings) -> Vec<f64> {
    const SHARE: f64 = 0.1;
    let d = residuals.dim();
    let (_, mut cov) = linear::moments(residuals);
    let level = (0..d).map(|i| cov[i * d + i]).sum::<f64>() / d as f64;
    for c in &mut cov {
        *c *= 1.0 - SHARE;
    }
    linear::add_to_diagonal(&mut cov, d, SHARE * level + 1e-9);
    cov
}

/// The encoder, through its cache, with a count of what the attacker asked of it.
struct Counted<'a> {
    cached: Cached<'a>,
    progress: &'a dyn Progress,
    dim: usize,
    spent: std::cell::Cell<usize>,
}

impl<'a> Counted<'a> {
    fn new(view: &View<'a>, progress: &'a dyn Progress) -> Self {
        let cached = Cached::new(view.encoder, &view.workshop.join("embeddings"));
        Self { cached, progress, dim: view.encoder.info().dim, spent: std::cell::Cell::new(0) }
    }

    /// The victim embeds its own records.
    fn victims(&self, texts: &[String]) -> Result<Embeddings, Error> {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let mut out = Embeddings::empty(self.dim);
        for wave in texts.chunks(WAVE) {
            if self.progress.is_interrupted() {
                return Err(Error::Interrupted);
            }
            self.cached.encode_records(wave)?.rows().for_each(|row| out.push(row));
        }
        Ok(out)
    }

    /// The attacker queries the encoder.
    fn attackers(&self, texts: &[String]) -> Result<Embeddings, Error> {
        self.spent.set(self.spent.get() + texts.len());
        self.victims(texts)
    }

    fn spent(&self) -> usize {
        self.spent.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::probe::bench;
    use std::collections::BTreeSet;

    #[test]
    fn every_slot_has_distinct_values_and_forms_with_one_hole() {
        for slot in slots() {
            assert_eq!(slot.values.iter().collect::<BTreeSet<_>>().len(), slot.values.len(), "{}", slot.id);
            assert!(slot.values.len() >= 200, "{}", slot.id);
            for (_, form) in slot.forms {
                assert_eq!(form.matches("{}").count(), 1, "{form}");
            }
        }
        let code = &slots()[5];
        assert_eq!(code.filled(1, 0, "It rained."), format!("PIN {}: It rained.", code.values[0]));
        assert_eq!(code.filled(0, 0, "It rained."), format!("It rained. The access code is {}.", code.values[0]));
    }

    #[test]
    fn names_are_read_from_open_vectors_and_lost_behind_noise() {
        let probe = Slots { targets: 0, known: 20, ..Slots::default() };
        let open = bench::run(&probe, "identity");
        // Guessing finds one name in 483. A carrier that is known is subtracted whole; one that is not leaves its words.
        let (hidden, known) =
            (bench::value(&open, "slot_first_name_top1"), bench::value(&open, "slot_first_name_known_carrier_top1"));
        assert!(hidden > 0.3 && known > 0.8, "{hidden} {known}");
        let code = bench::value(&open, "slot_code_exposure_bits");
        assert!(code > 3.0, "{code}");
        assert!(open.queries > 1000);
        let closed = bench::run(&probe, "clip(l2=1) | gaussian(sigma=50)");
        assert!(bench::value(&closed, "slot_first_name_top1") < 0.05);
        // 160 targets with a standard deviation of log2 e bits: a standard error of .11.
        let exposure = bench::value(&closed, "slot_city_exposure_bits");
        assert!((exposure - std::f64::consts::LOG2_E).abs() < 0.4, "{exposure}");
    }

    #[test]
    fn a_name_is_read_from_the_mean_of_a_few_and_lost_in_that_of_many() {
        let probe = Slots { targets: 0, known: 0, ..Slots::default() };
        let read = |pipeline: &str| bench::value(&bench::run(&probe, pipeline), "slot_first_name_exposure_bits");
        let (two, many) = (read("prototype(members=2)"), read("prototype(members=140)"));
        // Guessing exposes log2 e bits.
        assert!(two > 3.0 && many < 2.5, "{two} {many}");
    }

    #[test]
    fn parameters_out_of_range_are_named() {
        let problems = Slots { carriers: 0, known: 3, shortlist: 1, ..Slots::default() }.check();
        assert!(problems[0].contains("`carriers`") && problems[1].contains("`shortlist`"));
    }
}
