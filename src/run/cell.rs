//! One cell end to end: a protection, an attack, a seed. Read this file first: it is the flow.

use super::bench::{Bench, Side};
use super::record::{GuaranteeRecord, GuessRecord};
use super::sheet;
use super::store::Store;
use crate::Error;
use crate::attack::denoise::Denoising;
use crate::attack::ensemble::BestOf;
use crate::attack::image;
use crate::attack::probe::{Field, Inference, Probe};
use crate::attack::text::kept::{self, Role};
use crate::attack::{self, AttackConfig, Attacker, Guess, Knowledge, Progress, Surrogate, View, adapt};
use crate::contribute::appraisal;
use crate::data::Picture;
use crate::encode::Embeddings;
use crate::measure::statistics::{self, Design, Estimate};
use crate::measure::text::Bleu;
use crate::measure::{self, Context, MetricKind, PictureMetric, identify, similarity, utility};
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

/// Scores of one side of the split: one list for each metric, one entry for each target.
pub type Scores = BTreeMap<String, Vec<Option<f64>>>;

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
        outcome.test = release_scores(bench, protection, &test)?;
        if bench.study.utility.valuation {
            outcome.test.extend(values(bench, protection, &test)?);
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
    (outcome.test, outcome.floor) = scores(bench, &bench.test, guesses, &outcome.id)?;
    if protection.pipeline.has_groups() {
        group_scores(bench, seen, guesses, outcome)?;
    }
    outcome.validation = judged(bench, &bench.validation, rehearsed)?;
    if !bench.shows_pictures() {
        outcome.aggregates.extend(corpus_bleu(bench, guesses, &outcome.id).map(|e| ("corpus_bleu".to_owned(), e)));
    }
    outcome.curves.extend(budget_curve(guesses));
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

fn scores(bench: &Bench, side: &Side, guesses: &[Guess], task: &str) -> Result<(Scores, Scores), Error> {
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
fn group_scores(bench: &Bench, seen: &Embeddings, guesses: &[Guess], outcome: &mut Outcome) -> Result<(), Error> {
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
fn judged(bench: &Bench, side: &Side, guesses: &[Guess]) -> Result<Scores, Error> {
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
fn corpus_bleu(bench: &Bench, guesses: &[Guess], task: &str) -> Option<Estimate> {
    let truths = &bench.test.records[..guesses.len()];
    let counts: Vec<Bleu> = truths.iter().zip(guesses).map(|(t, g)| Bleu::count(&t.text, &g.text)).collect();
    let design = Design::clustered(&bench.test.clusters[..guesses.len()], 1);
    let pooled = |w: &statistics::Weights| Bleu::corpus(w.targets().iter().copied().zip(counts.iter().copied()));
    let mut rng = seed::stream(bench.study.data.split_seed, task, "corpus bleu");
    Some(statistics::bootstrap(&pooled, &design, &mut rng)?.estimate(Some((0.0, 100.0))))
}

/// What the release itself shows: closed-set identification, and what it is still good for.
fn release_scores(bench: &Bench, protection: &Protection, seen: &Embeddings) -> Result<Scores, Error> {
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
fn values(bench: &Bench, protection: &Protection, seen: &Embeddings) -> Result<Scores, Error> {
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
fn budget_curve(guesses: &[Guess]) -> Option<attack::Curve> {
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
