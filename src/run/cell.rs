//! One cell end to end: a protection, an attack, a seed. Read this file first: it is the flow.

use super::bench::{Bench, Side};
use super::record::{GuaranteeRecord, GuessRecord};
use super::scores::{self, Scores};
use super::sheet;
use super::store::Store;
use crate::Error;
use crate::attack::denoise::Denoising;
use crate::attack::ensemble::BestOf;
use crate::attack::image;
use crate::attack::probe::{Field, Inference, Probe};
use crate::attack::text::kept::{self, Role};
use crate::attack::{self, AttackConfig, Attacker, Guess, Knowledge, Progress, Surrogate, View, adapt};
use crate::data::Picture;
use crate::encode::Embeddings;
use crate::measure::statistics::Estimate;
use crate::protect::Pipeline;
use crate::seed;
use crate::study::{Cell, Protection, Sigma};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;

/// Raised when a cell would give other scores for the same inputs: old cells are then computed again.
const VERSION: u32 = 2;

/// Raised when attackers read rows differently that were rescaled after their noise.
const RESCALED: u32 = 2;
/// Raised when the scores of the release itself change.
const RELEASE_SCORES: u32 = 2;
/// Raised when searches change that an attack runs without naming their parameters.
const INNER_SEARCH: u32 = 1;
/// Raised when descents on pictures count their queries differently.
const DESCENT_QUERIES: u32 = 1;
/// Raised when the values of contributions change.
const VALUES: u32 = 1;
/// Raised when the scores of whole groups change, or what a probe says of them.
const GROUP_SCORES: u32 = 2;

/// What a finished cell leaves behind. Texts are kept apart, in `guesses/`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The cell's id.
    pub id: String,
    /// Name of the protection.
    pub protection: String,
    /// Name of the attack; `release` for what the release itself shows.
    pub attack: String,
    /// The seed.
    pub seed: u64,
    /// False for a twin that takes the release for a clean vector: what adaptivity is worth is the difference.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub adaptive: bool,
    /// The pretrained attacker that this one started from, and what that was trained on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// Standard deviation of the noise that the attacker estimated, where it was not told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assumed_sigma: Option<f64>,
    /// BLAKE3 of the released rows: attacks and utility of one protection and seed read the same draw.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub released: String,
    /// Test targets scored: the first `n` of the study.
    pub n: usize,
    /// Scores on test targets.
    pub test: Scores,
    /// What the same guesses score against other originals.
    pub floor: Scores,
    /// Judge cosines of guesses on validation targets, and their floor.
    pub validation: Scores,
    /// Scores of all targets together, that are no mean over targets (corpus BLEU).
    pub aggregates: BTreeMap<String, Estimate>,
    /// What the figures of a probe mean, by metric id; empty for attackers that write texts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub inferred: BTreeMap<String, Inference>,
    /// What the attacker was granted.
    pub knowledge: Option<Knowledge>,
    /// What it spent.
    pub cost: Cost,
    /// Learning and budget curves.
    pub curves: Vec<attack::Curve>,
    /// The release's claim.
    pub guarantee: GuaranteeRecord,
    /// Why there are no scores.
    pub error: Option<String>,
}

fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_yes(adaptive: &bool) -> bool {
    *adaptive
}

/// What an attack cost. Seconds differ from run to run; everything else must not.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// Auxiliary pairs of text and release.
    pub pairs: usize,
    /// Encoder queries for each target, on average.
    pub queries_per_target: f64,
    /// Seconds to fit the attacker; near 0 when another cell had trained its parts.
    pub fit_s: f64,
    /// Seconds for each target.
    pub seconds_per_target: f64,
}

/// The cell's name by content: equal ids stand for equal results.
pub fn id(bench: &Bench, cell: &Cell) -> String {
    let study = bench.study;
    let protection = &study.protect[cell.protection];
    let attack = cell.attack.map(|a| &study.attack[a].config);
    let mut content = json!({
        "version": VERSION,
        "seed": cell.seed,
        "pipeline": protection.pipeline.to_string(),
        "releases": protection.releases,
        "attack": attack,
        "utility": attack.is_none().then(|| json!({"retrieval": study.utility.retrieval, "topics": study.utility.topics})),
        "inputs": bench.fingerprint,
    });
    // Named only where they apply, so that what they cannot change keeps its id.
    if !cell.adaptive {
        content["adaptive"] = false.into();
    }
    if let Some(kept) = attack.and_then(AttackConfig::decoder).and_then(|d| {
        // A folder that cannot be read fails the cell when it runs, with its reason.
        kept::identity(&d.pretrained, bench.victim.info(), Role::Decoder).unwrap_or_default()
    }) {
        content["pretrained"] = kept.into();
    }
    if let Some(choice) = attack.and_then(AttackConfig::kept_corrector)
        && let Ok(Some(kept)) = kept::identity(choice, bench.victim.info(), Role::Corrector)
    {
        content["pretrained_corrector"] = kept.into();
    }
    if let Some(kept) = attack
        .and_then(AttackConfig::picture_prior)
        .and_then(|choice| image::kept::identity(choice).unwrap_or_default())
    {
        content["pretrained"] = kept.into();
    }
    if let Some(AttackConfig::Align(align)) = attack
        && align.search_queries > 0
    {
        content["search"] = INNER_SEARCH.into();
    }
    if let Some(AttackConfig::Invert(_) | AttackConfig::Generative(_)) = attack {
        content["queries"] = DESCENT_QUERIES.into();
    }
    if let Some(AttackConfig::BestOf(_)) = attack {
        let rivals: Vec<String> = rivals(bench, cell).iter().map(|rival| id(bench, rival)).collect();
        content["rivals"] = rivals.into();
    }
    if study.strength.sigma == Sigma::Estimated
        && cell.adaptive
        && protection.pipeline.noise_at(bench.victim.info().dim).is_some()
    {
        content["sigma"] = "estimated".into();
    }
    if study.strength.denoiser != Denoising::Wiener && cell.adaptive && attack.is_some() {
        content["denoiser"] = json!(study.strength.denoiser);
    }
    let dim = bench.victim.info().dim;
    if protection.pipeline.noise_at(dim).is_some_and(|noise| noise.rescaled) {
        content["denoise"] = RESCALED.into();
    }
    if cell.attack.is_none() && study.utility.valuation {
        content["valuation"] = VALUES.into();
    }
    if cell.attack.is_none() {
        content["release"] = RELEASE_SCORES.into();
    }
    if protection.targets > 0 {
        content["targets"] = protection.targets.into();
    }
    if protection.pipeline.has_groups() {
        content["groups"] = GROUP_SCORES.into();
    }
    blake3::hash(content.to_string().as_bytes()).to_hex()[..20].to_owned()
}

/// Runs a cell: release, view, attack, guesses, scores.
pub fn run(bench: &Bench, cell: &Cell, store: &Store, progress: &dyn Progress) -> Result<Outcome, Error> {
    let protection = &bench.study.protect[cell.protection];
    let mut outcome = Outcome::new(bench, cell);

    // 1. What leaves the users: the targets' vectors through the real pipeline, the same draw for every attack.
    let test = release(bench, cell, &bench.test)?;
    outcome.released = digest(&test);
    let Some(attack) = cell.attack.map(|a| &bench.study.attack[a].config) else {
        outcome.test = scores::of_release(bench, protection, &test)?;
        if bench.study.utility.valuation {
            outcome.test.extend(scores::values(bench, protection, &test)?);
        }
        outcome.n = bench.test.records.len();
        return Ok(outcome);
    };
    let validation = release(bench, cell, &bench.validation)?;

    // 2. What the attacker sees, and 3. what it learns from that.
    let clock = std::time::Instant::now();
    let workshop = store.workshop();
    let attacker = attack.build();
    let releases = if cell.adaptive { protection.releases } else { 1 };
    let known = known(bench, cell, &test, &mut outcome)?;
    let leaked = adapt::read(&known, leaked(bench, cell, attacker.needs().leaked_pairs)?);
    let view = View {
        auxiliary: &bench.auxiliary.records,
        clean: &bench.auxiliary.clean,
        strata: &bench.auxiliary.strata,
        pipeline: &known,
        leaked: &leaked,
        releases,
        denoising: bench.study.strength.denoiser,
        encoder: bench.victim,
        prior: bench.prior,
        surrogate: bench.surrogate.as_ref().map(|(encoder, clean)| Surrogate { encoder: *encoder, clean }),
        seed: cell.seed,
        inputs: bench.fingerprint.clone(),
        // The real pipeline names the view: two keys are two protections, even if the attacker cannot tell them apart.
        fingerprint: if cell.adaptive {
            let estimated = outcome.assumed_sigma.map_or_else(String::new, |sigma| format!(" taken for {sigma}"));
            let denoiser = match bench.study.strength.denoiser {
                Denoising::Wiener => "",
                Denoising::Learned => " by a learned denoiser",
            };
            format!("{} {}{estimated} x{releases}{denoiser}", bench.fingerprint, protection.pipeline)
        } else {
            format!("{} {known} x{releases}", bench.fingerprint)
        },
        workshop: &workshop,
    };
    let (n, n_validation) =
        tried([attack.targets(), protection.targets], bench.test.records.len(), bench.validation.records.len());
    outcome.knowledge = Some(attacker.needs());
    let [seen, rehearsal] = [&test, &validation].map(|released| adapt::read(&known, released.clone()));
    let attacker = match attacker {
        Attacker::Reconstructs(attacker) => attacker,
        Attacker::Infers(probe) => {
            let field = Faced { side: &bench.test, seen: &test, n, pipeline: &protection.pipeline };
            return infer(probe.as_ref(), &view, &field, outcome, progress);
        }
        Attacker::Chooses(chooser) => {
            let rehearsed = choose(bench, cell, store, &chooser, &view, &rehearsal, Rehearsal::Validation)?;
            let guesses = choose(bench, cell, store, &chooser, &view, &seen, Rehearsal::Test)?;
            outcome.cost.seconds_per_target = clock.elapsed().as_secs_f64() / guesses.len().max(1) as f64;
            scored(bench, protection, &test, &guesses, &rehearsed, store, &mut outcome)?;
            return Ok(outcome);
        }
    };
    let inverter = attacker.fit(&view, &outcome.id, progress)?;
    outcome.cost.fit_s = clock.elapsed().as_secs_f64();

    // 4. Its guesses: on validation targets to choose the worst attacker, on test targets to score it.
    let clock = std::time::Instant::now();
    let guesses = invert(inverter.as_ref(), &seen, n, &format!("{} test", outcome.id), progress)?;
    outcome.cost.seconds_per_target = clock.elapsed().as_secs_f64() / n as f64;
    let rehearsed =
        invert(inverter.as_ref(), &rehearsal, n_validation, &format!("{} validation", outcome.id), progress)?;

    // 5. Scores, each beside what the same guesses score against other originals; 6. the texts, apart from the numbers.
    outcome.cost.pairs = match leaked.len() {
        0 => bench.auxiliary.records.len(),
        pairs => pairs,
    };
    outcome.origin = inverter.origin();
    scored(bench, protection, &test, &guesses, &rehearsed, store, &mut outcome)?;
    let truths: Vec<&str> = bench.test.records[..n].iter().map(|r| r.text.as_str()).collect();
    let first: Vec<usize> = (0..n).collect();
    if let Some(odds) = inverter.log_odds(&seen.select(&first), &truths)? {
        let bits = odds.into_iter().map(|nats| Some(nats / std::f64::consts::LN_2)).collect();
        outcome.test.insert("bits_leaked".to_owned(), bits);
    }
    outcome.curves.splice(0..0, inverter.curves());
    Ok(outcome)
}

/// Test and validation targets that an attacker takes on, of those there are; `limits` are the declared subsets, 0 for none.
///
/// A subset rehearses on a quarter as many validation targets, but not on so few that the choice of the worst attacker, which
/// they decide, is left to luck.
pub(super) fn tried(limits: [usize; 2], targets: usize, validation: usize) -> (usize, usize) {
    const ENOUGH: usize = 20;
    match limits.into_iter().filter(|&n| n > 0).min() {
        None => (targets, validation),
        Some(subset) => (subset.min(targets), (subset / 4).max(ENOUGH).min(subset).min(validation)),
    }
}

/// The pipeline as the attacker of a cell knows it.
fn known(bench: &Bench, cell: &Cell, seen: &Embeddings, outcome: &mut Outcome) -> Result<Pipeline, Error> {
    if !cell.adaptive {
        return Ok("identity".parse()?);
    }
    let protection = &bench.study.protect[cell.protection];
    let known = protection.pipeline.as_known();
    if bench.study.strength.sigma == Sigma::Known || known.noise_at(seen.dim()).is_none() {
        return Ok(known);
    }
    let side = &bench.auxiliary;
    let signal = adapt::release(&known.without_noise(), &side.clean, &side.strata, 1, |_| {
        seed::stream(cell.seed, &bench.fingerprint, "signal of an unknown noise")
    })?;
    let left = adapt::estimate_sigma(seen, &signal) * (protection.releases as f64).sqrt();
    let sigma = adapt::before_rescaling(&known, seen.dim(), left);
    // Three digits: what is estimated is not known better.
    let sigma: f64 = format!("{sigma:.2e}").parse().expect("a number as it was printed");
    outcome.assumed_sigma = Some(sigma);
    // Several stages of noise share what they left together.
    let stages = known.stages().iter().filter(|stage| stage.is_noise()).count().max(1);
    Ok(known.with_sigma(sigma / (stages as f64).sqrt()))
}

/// Scores guesses on test and validation targets, and keeps the texts.
fn scored(
    bench: &Bench,
    protection: &Protection,
    seen: &Embeddings,
    guesses: &[Guess],
    rehearsed: &[Guess],
    store: &Store,
    outcome: &mut Outcome,
) -> Result<(), Error> {
    let n = guesses.len();
    outcome.n = n;
    outcome.cost.queries_per_target = guesses.iter().map(|g| g.queries as f64).sum::<f64>() / n.max(1) as f64;
    (outcome.test, outcome.floor) = scores::of_guesses(bench, &bench.test, guesses, &outcome.id)?;
    if protection.pipeline.has_groups() {
        scores::of_groups(bench, seen, guesses, outcome)?;
    }
    outcome.validation = scores::judged(bench, &bench.validation, rehearsed)?;
    if !bench.shows_pictures() {
        outcome
            .aggregates
            .extend(scores::corpus_bleu(bench, guesses, &outcome.id).map(|e| ("corpus_bleu".to_owned(), e)));
    }
    outcome.curves.extend(scores::budget_curve(guesses));
    for (rehearsal, side, guesses) in
        [(Rehearsal::Test, &bench.test, guesses), (Rehearsal::Validation, &bench.validation, rehearsed)]
    {
        let drawn: Vec<&Picture> = guesses.iter().filter_map(|g| g.picture.as_ref()).collect();
        if !drawn.is_empty() {
            store.write(&rehearsal.sheet(&outcome.id), &sheet::write(&drawn)?)?;
            let originals: Vec<&Picture> = side.records.iter().filter_map(|r| r.picture.as_ref()).collect();
            store.write(&rehearsal.sheet(ORIGINALS), &sheet::write(&originals)?)?;
        }
        let pairs = side.records.iter().zip(guesses).enumerate().map(|(i, (record, guess))| GuessRecord {
            target: record.id.clone(),
            original: record.text.clone(),
            guess: guess.text.clone(),
            size: guess.picture.as_ref().map(|p| (p.width(), p.height())),
            scores: match rehearsal {
                Rehearsal::Test => outcome.test.iter().map(|(metric, values)| (metric.clone(), values[i])).collect(),
                Rehearsal::Validation => BTreeMap::new(),
            },
        });
        store.write_lines(&rehearsal.file(&outcome.id), pairs)?;
    }
    Ok(())
}

/// What the sheet of the targets' own pictures is called.
pub const ORIGINALS: &str = "originals";

/// On which targets guesses were made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rehearsal {
    Test,
    Validation,
}

impl Rehearsal {
    fn named(self, id: &str, extension: &str) -> String {
        match self {
            Self::Test => format!("guesses/{id}.{extension}"),
            Self::Validation => format!("guesses/{id}-validation.{extension}"),
        }
    }

    fn file(self, id: &str) -> String {
        self.named(id, "jsonl")
    }

    /// The pictures of the same guesses, in the same order.
    fn sheet(self, id: &str) -> String {
        self.named(id, "png")
    }
}

/// The guesses of all other attackers of the same protection and seed, the best one for each target.
fn choose(
    bench: &Bench,
    cell: &Cell,
    store: &Store,
    chooser: &BestOf,
    view: &View,
    seen: &Embeddings,
    rehearsal: Rehearsal,
) -> Result<Vec<Guess>, Error> {
    let size = bench.test.records.iter().find_map(|r| r.picture.as_ref()).map(|p| (p.width(), p.height()));
    let read = |id: &str| -> Option<Vec<Guess>> {
        let lines = store.lines::<GuessRecord>(&rehearsal.file(id))?;
        let Some((width, height)) = size else {
            return Some(lines.into_iter().map(|line| Guess::new(line.guess, 0.0)).collect());
        };
        let bytes = std::fs::read(store.root().join(rehearsal.sheet(id))).ok()?;
        let pictures = sheet::read(&bytes, lines.len(), width, height)?;
        Some(pictures.into_iter().map(|picture| Guess::drawn(picture, 0.0)).collect())
    };
    let planned = bench.study.cells();
    let mut made = Vec::new();
    for rival in rivals(bench, cell).iter().filter(|rival| planned.contains(rival)) {
        // Without one of them the choice would be kept under the name of the whole.
        let missing = || {
            Error::from(attack::Error::Needs {
                attack: "best_of",
                what: format!("the guesses of `{}`, which has failed", bench.study.attack_name(rival)),
            })
        };
        made.push(read(&id(bench, rival)).ok_or_else(missing)?);
    }
    Ok(chooser.choose(view, seen, &made)?)
}

/// The cells of the same protection and seed whose guesses `best_of` chooses among.
fn rivals(bench: &Bench, cell: &Cell) -> Vec<Cell> {
    let attacks = bench.study.attack.iter().enumerate();
    let rivals = attacks.filter(|(_, attack)| attack.config.is_rival());
    rivals.map(|(number, _)| Cell { attack: Some(number), ..cell.clone() }).collect()
}

/// The victim's side of a probe.
#[derive(Clone, Copy)]
struct Faced<'a> {
    side: &'a Side,
    seen: &'a Embeddings,
    n: usize,
    pipeline: &'a Pipeline,
}

/// A probe's cell: facts instead of guesses, no texts to keep.
fn infer(
    probe: &dyn Probe,
    view: &View,
    faced: &Faced,
    mut outcome: Outcome,
    progress: &dyn Progress,
) -> Result<Outcome, Error> {
    let Faced { side, seen, n, pipeline } = *faced;
    let first: Vec<usize> = (0..n).collect();
    let (clean, released) = (side.clean.select(&first), seen.select(&first));
    let field = Field {
        records: &side.records[..n],
        clean: &clean,
        strata: &side.strata[..n],
        clusters: &side.clusters[..n],
        released: &released,
        pipeline,
        releases: view.releases,
        seed: view.seed,
        task: &outcome.id,
    };
    let clock = std::time::Instant::now();
    let findings = probe.run(view, &field, progress)?;
    outcome.n = n;
    outcome.cost = Cost {
        pairs: view.auxiliary.len(),
        queries_per_target: findings.queries as f64 / n as f64,
        fit_s: 0.0,
        seconds_per_target: clock.elapsed().as_secs_f64() / n as f64,
    };
    outcome.test = findings.scores;
    outcome.aggregates = findings.aggregates;
    outcome.inferred = findings.meaning;
    outcome.curves = findings.curves;
    Ok(outcome)
}

/// A cell that failed: its error stands where its scores would.
pub fn failed(bench: &Bench, cell: &Cell, error: &Error) -> Outcome {
    let mut outcome = Outcome::new(bench, cell);
    outcome.error = Some(chain(error));
    outcome
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

/// What a finished cell left behind.
pub(super) fn recall(bench: &Bench, cell: &Cell, store: &Store) -> Option<Outcome> {
    Some(named(bench, cell, store.cell(&id(bench, cell))?))
}

/// What a cell that was tried left behind: its outcome, or why it failed the last time.
pub(super) fn tried_before(bench: &Bench, cell: &Cell, store: &Store) -> Option<Outcome> {
    recall(bench, cell, store).or_else(|| Some(named(bench, cell, store.failed(&id(bench, cell))?)))
}

/// The outcome under the names that the study gives it now: names are no part of a cell's id.
fn named(bench: &Bench, cell: &Cell, outcome: Outcome) -> Outcome {
    let protection = bench.study.protect[cell.protection].name.clone();
    Outcome { protection, attack: bench.study.attack_name(cell), ..outcome }
}

impl Outcome {
    fn new(bench: &Bench, cell: &Cell) -> Self {
        let protection = &bench.study.protect[cell.protection];
        Self {
            id: id(bench, cell),
            protection: protection.name.clone(),
            attack: bench.study.attack_name(cell),
            seed: cell.seed,
            n: 0,
            test: Scores::new(),
            floor: Scores::new(),
            adaptive: cell.adaptive,
            origin: None,
            assumed_sigma: None,
            released: String::new(),
            validation: Scores::new(),
            aggregates: BTreeMap::new(),
            inferred: BTreeMap::new(),
            knowledge: None,
            cost: Cost::default(),
            curves: Vec::new(),
            guarantee: super::guarantee(protection, bench.victim.info().dim),
            error: None,
        }
    }
}

fn digest(vectors: &Embeddings) -> String {
    let mut hasher = blake3::Hasher::new();
    vectors.values().iter().for_each(|v| {
        hasher.update(&v.to_le_bytes());
    });
    hasher.finalize().to_hex()[..20].to_owned()
}

/// Row `i` is what the attacker sees of target `i`, averaged over its releases; the same for every attack of a seed.
fn release(bench: &Bench, cell: &Cell, side: &Side) -> Result<Embeddings, Error> {
    let protection = &bench.study.protect[cell.protection];
    let name = format!("{} {} x{}", side.name, protection.pipeline, protection.releases);
    Ok(adapt::release(&protection.pipeline, &side.clean, &side.strata, protection.releases, |k| {
        seed::stream(cell.seed, &name, &format!("target release {k}"))
    })?)
}

/// The first `pairs` auxiliary records as the victim really released them, in a draw that no target shares.
fn leaked(bench: &Bench, cell: &Cell, pairs: usize) -> Result<Embeddings, Error> {
    let side = &bench.auxiliary;
    if pairs == 0 {
        return Ok(Embeddings::empty(side.clean.dim()));
    }
    let protection = &bench.study.protect[cell.protection];
    let name = format!("{} {} x{}", side.name, protection.pipeline, protection.releases);
    let all = adapt::release(&protection.pipeline, &side.clean, &side.strata, protection.releases, |k| {
        seed::stream(cell.seed, &name, &format!("leaked release {k}"))
    })?;
    Ok(all.select(&(0..pairs.min(all.len())).collect::<Vec<_>>()))
}

/// One guess for each of the first `n` targets. Targets behind one prototype share a row, which is attacked once.
fn invert(
    inverter: &dyn attack::Inverter,
    seen: &Embeddings,
    n: usize,
    task: &str,
    progress: &dyn Progress,
) -> Result<Vec<Guess>, Error> {
    let mut rows: Vec<usize> = Vec::new();
    let mut position: Vec<usize> = Vec::with_capacity(n);
    let mut first: BTreeMap<Vec<u32>, usize> = BTreeMap::new();
    for i in 0..n {
        let bits: Vec<u32> = seen.row(i).iter().map(|v| v.to_bits()).collect();
        let at = *first.entry(bits).or_insert_with(|| {
            rows.push(i);
            rows.len() - 1
        });
        position.push(at);
    }
    let guesses = inverter.invert(&seen.select(&rows), task, progress)?;
    Ok(position.into_iter().map(|at| guesses[at].clone()).collect())
}

#[cfg(test)]
mod tests {
    use super::tried;

    #[test]
    fn a_subset_rehearses_on_enough_targets_to_choose_by() {
        assert_eq!(tried([0, 0], 500, 60), (500, 60));
        assert_eq!(tried([40, 0], 500, 60), (40, 20));
        assert_eq!(tried([0, 200], 500, 60), (200, 50));
        assert_eq!(tried([200, 8], 500, 60), (8, 8), "no more than it is scored on");
        assert_eq!(tried([40, 0], 30, 12), (30, 12), "no more than there are");
    }
}
