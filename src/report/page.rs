//! The page as plain strings: everything that `report.html` prints, worded and ordered here.

use super::evidence::{self, Exhibit};
use super::figures::{self, Figure};
use super::gallery::{self, Piece};
use super::matrix::{InferenceTable, Matrix, inferred, matrices};
use super::provenance::provenance;
use super::verdict::{self, MISSING, cosine, in_unit, interval, maybe_interval, maybe_share, share, visible};
use super::wall::{self, Wall};
use super::{Options, Run};
use crate::gate::{self, Difference};
use crate::run::record::{Direction, GuessRecord, ProtectionSummary, Ranked, Row};
use askama::Template;
use base64::Engine as _;
use sha2::Digest as _;
use std::path::Path;

/// Characters of one text that are shown; a longer one ends in an ellipsis.
const MOST_TEXT: usize = 1_500;
const CSS: &str = include_str!("report.css");

#[derive(Template)]
#[template(path = "report.html")]
struct Page {
    title: String,
    css: &'static str,
    policy: String,
    private: bool,
    redacted: bool,
    comparison: Option<Comparison>,
    runs: Vec<Section>,
    version: &'static str,
}

struct Comparison {
    runs: Vec<String>,
    rows: Vec<ComparisonRow>,
    /// Protection, attacker, metric, both figures, their difference, n.
    paired: Vec<[String; 7]>,
    /// Why nothing is paired, or how the differences are made.
    pairing: &'static str,
}

/// Two runs target by target.
pub(super) enum Paired {
    /// Not two runs.
    None,
    /// Runs on other records, or without outcomes.
    Apart,
    /// What differs.
    Differences(Vec<Difference>),
}

impl Paired {
    /// The headline metrics of two run folders, paired where both were run on the same records.
    pub(super) fn of(first: &Path, second: &Path) -> Self {
        const METRICS: [&str; 3] = ["judge_leak", "identified_top1", "recognised"];
        let found: Result<Vec<_>, _> = METRICS.iter().map(|m| gate::compare(first, second, Some(m))).collect();
        found.map_or(Self::Apart, |found| Self::Differences(found.concat()))
    }
}

struct ComparisonRow {
    name: String,
    cells: Vec<Vec<String>>,
}

struct Section {
    id: String,
    study: String,
    labels: Vec<String>,
    sentence: String,
    strong: bool,
    notes: Vec<String>,
    facts: Vec<(&'static str, String)>,
    cards: Vec<Card>,
    figures: Vec<FigureView>,
    matrices: Vec<Matrix>,
    inferred: Vec<InferenceTable>,
    pooling: &'static str,
    failures: Vec<Vec<String>>,
    metrics: Vec<MetricRow>,
    exhibits: Vec<Exhibit>,
    gallery_rule: String,
    wall: Option<Wall>,
    targets: Vec<Target>,
    assumptions: Vec<String>,
    words: &'static [(&'static str, &'static str)],
    provenance: Vec<(String, String)>,
    commands: String,
    plan: Option<String>,
}

struct Card {
    name: String,
    pipeline: String,
    kind: String,
    why: String,
    leak: String,
    ends: String,
    bar: Option<Bar>,
    blind: Option<String>,
    facts: Vec<(String, String)>,
    promise: String,
}

struct Bar {
    low: String,
    width: String,
    value: String,
}

struct FigureView {
    id: String,
    title: String,
    svg: String,
    caption: String,
    head: Vec<String>,
    rows: Vec<Vec<String>>,
    opens_half: bool,
    closes_half: bool,
}

struct MetricRow {
    protection: String,
    attack: String,
    metric: String,
    value: String,
    ends: String,
    floor: String,
    blind: String,
    n: usize,
    seeds: usize,
    unit: String,
}

struct Target {
    title: String,
    id: String,
    original: Option<String>,
    guesses: Vec<Guess>,
}

struct Guess {
    protection: String,
    attack: String,
    scores: String,
    pieces: Option<Vec<Piece>>,
}

/// Draws the page. Askama escapes every string except the style sheet and the drawings, which escape their own labels.
pub(super) fn html(runs: &[Run], paired: &Paired, options: Options) -> String {
    let names: Vec<&str> = runs.iter().map(|r| r.summary.study.as_str()).collect();
    let labelled = runs.iter().any(|r| !r.labels().is_empty());
    let digest = base64::engine::general_purpose::STANDARD.encode(sha2::Sha256::digest(CSS.as_bytes()));
    let sections: Vec<Section> =
        runs.iter().enumerate().map(|(i, run)| section(run, &format!("r{}", i + 1), options)).collect();
    let page = Page {
        title: format!("{}{} · stitchback", if labelled { "[not evidence] " } else { "" }, names.join(" | ")),
        css: CSS,
        policy: format!(
            "default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
        ),
        private: !options.redacted && sections.iter().any(|s| !s.targets.is_empty() || s.wall.is_some()),
        redacted: options.redacted,
        comparison: (runs.len() > 1).then(|| compare(runs, paired)),
        runs: sections,
        version: env!("CARGO_PKG_VERSION"),
    };
    page.render().expect("rendering into memory cannot fail")
}

fn compare(runs: &[Run], paired: &Paired) -> Comparison {
    let mut names: Vec<&str> = Vec::new();
    for p in runs.iter().flat_map(|r| &r.summary.protections) {
        if !names.contains(&p.name.as_str()) {
            names.push(&p.name);
        }
    }
    let cell = |run: &Run, name: &str| match run.summary.protections.iter().find(|p| p.name == name) {
        Some(p) => {
            let mut lines = vec![leak_of(p)];
            lines.extend(p.best_attack.clone());
            lines.extend(p.utility.topic_accuracy.map(|u| format!("topic accuracy {}", share(u.value))));
            lines.extend(p.utility.recall_at_10.map(|u| format!("recall at 10 {}", share(u.value))));
            lines.push(format!("n = {}", p.similarity.n));
            lines
        }
        None => vec![MISSING.to_owned()],
    };
    let rows = names
        .iter()
        .map(|name| ComparisonRow { name: (*name).to_owned(), cells: runs.iter().map(|r| cell(r, name)).collect() })
        .collect();
    // A label must stand beside the numbers that it is about, not only in the run's own section.
    let head = |run: &Run| {
        let kinds = run.labels().into_iter().filter_map(|l| l.split(':').next());
        kinds.fold(run.name.clone(), |head, kind| format!("{head} ({kind}, not evidence)"))
    };
    let (differences, pairing) = match paired {
        Paired::None => (&[][..], ""),
        Paired::Apart => (
            &[][..],
            "The two runs were made on other records, or one of them kept no scores of single targets: nothing is paired.",
        ),
        Paired::Differences(all) => (
            &all[..],
            "Second less first on the records that both scored, target by target and seed by seed, with its 95 % interval; \
             an interval that does not hold 0 is a difference.",
        ),
    };
    Comparison {
        runs: runs.iter().map(head).collect(),
        rows,
        paired: differences.iter().map(difference).collect(),
        pairing,
    }
}

/// One line of the paired differences.
fn difference(d: &Difference) -> [String; 7] {
    let change = match d.difference {
        Some(i) => maybe_interval(Some(i.value), Some((i.low, i.high))),
        None => maybe_share(Some(d.second - d.first)),
    };
    let (first, second) = (maybe_share(Some(d.first)), maybe_share(Some(d.second)));
    [d.protection.clone(), d.attack.clone(), d.metric.clone(), first, second, change, d.n.to_string()]
}

fn leak_of(p: &ProtectionSummary) -> String {
    maybe_interval(p.similarity.leak, p.similarity.low.zip(p.similarity.high))
}

fn section(run: &Run, id: &str, options: Options) -> Section {
    let summary = &run.summary;
    let mut notes = vec![sentence_case(&verdict::claim(summary)) + "."];
    notes.extend(verdict::identification(summary).map(|t| sentence_case(&t) + "."));
    if summary.protections.iter().any(|p| !p.guarantee.note.is_empty() && p.guarantee.epsilon.is_none()) {
        notes.push(
            "Protections without a formal guarantee are judged by these attackers alone; a stronger one may read more."
                .into(),
        );
    }
    notes.extend(run.rows.iter().filter(|r| r.inference.as_ref().is_some_and(|i| i.exceeds_claim)).map(|r| {
        format!(
            "With “{}”, seed {}, `{}` measures {}, more than the protection's guarantee allows: the release does not do what it claims.",
            r.protection,
            r.seed,
            r.metric,
            maybe_share(r.value)
        )
    }));
    let prefix = if run.labels().is_empty() { "" } else { "Not evidence (see the label): " };
    Section {
        id: id.to_owned(),
        study: summary.study.clone(),
        labels: run.labels().into_iter().map(|l| visible(l, MOST_TEXT)).collect(),
        sentence: format!("{prefix}{}", verdict::sentence(summary)),
        strong: summary.attacker_strong_enough && summary.claim.unprotected_leak.is_some(),
        notes,
        facts: facts(run),
        cards: summary.protections.iter().map(|p| card(run, p)).collect(),
        figures: figure_views(figures::all(run)),
        matrices: matrices(run),
        inferred: inferred(run),
        pooling: if run.seeds().len() > 1 {
            "Values are means over seeds; intervals reach from the lowest to the highest end of the seeds' own 95 % intervals."
        } else {
            "Intervals are 95 %."
        },
        failures: failures(run, options),
        metrics: metrics(run),
        exhibits: evidence::exhibits(run),
        gallery_rule: gallery_rule(run, options),
        wall: wall::wall(run, options),
        targets: targets(run, options),
        assumptions: summary.assumptions.iter().map(|a| visible(a, MOST_TEXT)).collect(),
        words: WORDS,
        provenance: provenance(run, options),
        commands: format!(
            "stitchback run {0}/plan.toml --out again\nstitchback report {0}{1}",
            run.name,
            if options.redacted { " --redact" } else { "" }
        ),
        plan: if options.redacted { None } else { run.plan.clone() },
    }
}

fn sentence_case(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|c| c.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

/// What must stand beside the sentence: access, floor, retention, tail, utility, strength.
fn facts(run: &Run) -> Vec<(&'static str, String)> {
    let summary = &run.summary;
    let mut facts = Vec::new();
    if let Some(p) = run.unprotected() {
        facts.push(("Unprotected: raw judge cosine", raw_and_floor(p)));
    }
    if let Some(p) = summary.protections.iter().find(|p| Some(&p.name) == summary.claim.protection.as_ref()) {
        let attack = p.best_attack.clone().unwrap_or_else(|| MISSING.to_owned());
        let adaptive =
            run.rows.iter().any(|r| r.protection == p.name && Some(&r.attack) == p.best_attack.as_ref() && r.adaptive);
        facts.push(("Protected: raw judge cosine", raw_and_floor(p)));
        facts.push((
            "Its worst attacker",
            if adaptive { format!("{attack}, fitted to this very pipeline") } else { attack.clone() },
        ));
        facts.push(("Leak that is retained", maybe_share(p.retention)));
        facts.push((
            "Its most leaky 5 % of targets",
            maybe_share(run.pooled(&p.name, &attack, "worst_5_percent").value),
        ));
        facts.push(("Topic accuracy on the same vectors", interval(p.utility.topic_accuracy)));
    }
    let s = &summary.strength;
    facts.push((
        "Attackers' strength",
        format!(
            "{}: victim cosine {}, bar {} ({})",
            s.attack.as_deref().unwrap_or("no attacker"),
            s.reached.map_or(MISSING.to_owned(), cosine),
            cosine(s.bar),
            if summary.attacker_strong_enough { "cleared" } else { "not reached" }
        ),
    ));
    facts
}

fn raw_and_floor(p: &ProtectionSummary) -> String {
    let s = &p.similarity;
    format!("{}, floor {}", in_unit(s.judge_raw, "cosine"), in_unit(s.judge_floor, "cosine"))
}

fn card(run: &Run, p: &ProtectionSummary) -> Card {
    let (kind, why) = p.verdict.split_once(':').unwrap_or((&p.verdict, ""));
    let s = &p.similarity;
    let place = |v: f64| v.clamp(0.0, 1.0) * 300.0;
    let bar = s.leak.map(|leak| {
        let (low, high) = (place(s.low.unwrap_or(leak)), place(s.high.unwrap_or(leak)));
        let value = (place(leak) - 1.5).clamp(0.0, 297.0);
        Bar { low: format!("{low:.1}"), width: format!("{:.1}", high - low), value: format!("{value:.1}") }
    });
    let attack = p.best_attack.clone().unwrap_or_else(|| MISSING.to_owned());
    let tail = run.pooled(&p.name, &attack, "worst_5_percent").value;
    let of = |name: &str, ranked: &Ranked| format!("{name} among {}", ranked.of);
    let mut facts = vec![
        ("worst attacker".to_owned(), attack),
        ("most leaky 5 %".to_owned(), maybe_share(tail)),
        ("retained".to_owned(), maybe_share(p.retention)),
        ("blind attacker".to_owned(), maybe_share(p.blind_leak)),
        ("victim cosine".to_owned(), in_unit(p.victim_cosine, "cosine")),
        (of("identified", &p.identified), verdict::ranked(&p.identified)),
        (of("matched", &p.matched), verdict::ranked(&p.matched)),
        ("topic accuracy".to_owned(), interval(p.utility.topic_accuracy)),
        ("recall at 10 (clean query, protected rows)".to_owned(), interval(p.utility.recall_at_10)),
    ];
    if p.recognised.is_some() {
        facts.push(("recognised".to_owned(), maybe_share(p.recognised)));
    }
    if let Some(rho) = p.utility.spearman {
        let ends = p
            .utility
            .low
            .zip(p.utility.high)
            .map_or(String::new(), |(a, b)| format!(" [{}, {}]", cosine(a), cosine(b)));
        facts.push(("value correlation".to_owned(), cosine(rho) + &ends));
    }
    Card {
        name: p.name.clone(),
        pipeline: p.pipeline.clone(),
        kind: ["unprotected", "leaks", "reduced", "private", "inconclusive"]
            .into_iter()
            .find(|k| *k == kind.trim())
            .unwrap_or("inconclusive")
            .to_owned(),
        why: sentence_case(why.trim()),
        leak: maybe_share(s.leak),
        ends: match (s.leak, s.low, s.high) {
            (Some(v), Some(a), Some(b)) => verdict::bracket(v, a, b),
            _ => String::new(),
        },
        bar,
        blind: p.blind_leak.map(|b| format!("{:.1}", (place(b) - 1.0).max(0.0))),
        facts,
        promise: sentence_case(&verdict::guarantee(&p.guarantee)) + ".",
    }
}

fn figure_views(figures: Vec<Figure>) -> Vec<FigureView> {
    let halves: Vec<bool> = figures.iter().map(|f| f.half).collect();
    let half = |i: usize| halves.get(i).copied().unwrap_or(false);
    figures
        .into_iter()
        .enumerate()
        .map(|(i, f)| FigureView {
            svg: f.drawing.inline(&f.alt),
            opens_half: half(i) && (i == 0 || !half(i - 1)),
            closes_half: half(i) && !half(i + 1),
            id: f.id,
            title: f.title,
            caption: f.caption,
            head: f.head,
            rows: f.rows,
        })
        .collect()
}

/// One line for each cell and reason, with the metrics that it left without a value.
fn failures(run: &Run, options: Options) -> Vec<Vec<String>> {
    let mut groups: Vec<(&Row, Vec<&str>)> = Vec::new();
    for row in run.rows.iter().filter(|r| r.error.is_some()) {
        match groups.iter_mut().find(|(first, _)| first.cell == row.cell && first.error == row.error) {
            Some((_, metrics)) => metrics.push(&row.metric),
            None => groups.push((row, vec![&row.metric])),
        }
    }
    let why = |row: &Row| match &row.error {
        Some(error) if !options.redacted => visible(error, 300),
        _ => "see records.jsonl".to_owned(),
    };
    groups
        .iter()
        .map(|(row, metrics)| {
            let metrics = if metrics.len() > 3 { format!("{} metrics", metrics.len()) } else { metrics.join(", ") };
            vec![row.protection.clone(), row.attack.clone(), row.seed.to_string(), metrics, why(row)]
        })
        .collect()
}

fn metrics(run: &Run) -> Vec<MetricRow> {
    let mut seen: Vec<(&str, &str, &str)> = Vec::new();
    let mut first: Vec<&Row> = Vec::new();
    let mut known = std::collections::BTreeSet::new();
    for row in &run.rows {
        let key = (row.protection.as_str(), row.attack.as_str(), row.metric.as_str());
        if known.insert(key) {
            seen.push(key);
            first.push(row);
        }
    }
    seen.iter()
        .zip(first)
        .map(|((protection, attack, metric), row)| {
            let pooled = run.pooled(protection, attack, metric);
            let way = match row.direction {
                Direction::HigherLeaksMore => "higher leaks more",
                Direction::LowerLeaksMore => "lower leaks more",
                Direction::HigherIsMoreUseful => "higher is more useful",
            };
            let unit = row.unit.as_str();
            let end = |v: f64| in_unit(Some(v), unit);
            MetricRow {
                protection: (*protection).to_owned(),
                attack: (*attack).to_owned(),
                metric: (*metric).to_owned(),
                value: in_unit(pooled.value, unit),
                ends: pooled.ends.map_or(MISSING.to_owned(), |(a, b)| format!("{} to {}", end(a), end(b))),
                floor: in_unit(pooled.floor, unit),
                blind: in_unit(pooled.blind, unit),
                n: pooled.n,
                seeds: pooled.seeds.len(),
                unit: format!("{unit}, {way}"),
            }
        })
        .collect()
}

fn gallery_rule(run: &Run, options: Options) -> String {
    if !run.originals.is_empty() && options.redacted {
        return "Pictures are left out of this redacted report.".to_owned();
    }
    if run.guesses.is_empty() {
        return "This run folder has no guesses of the worst attackers, so there is nothing to show.".to_owned();
    }
    let by = run
        .unprotected()
        .and_then(|p| p.best_attack.as_deref())
        .map_or("the worst attacker of the first protection".to_owned(), |a| {
            format!("{a}, the unprotected release's worst attacker")
        });
    let marks = if options.redacted {
        "Texts are left out of this redacted report."
    } else {
        "Marked words are content words that the original has too; function words are never marked, any two texts share them."
    };
    format!(
        "Chosen by rule: the best, the median and the worst target by judge cosine under {by}, first seed; the same targets under every \
         protection, each read by its own worst attacker. Then the target that each protection leaks most. {marks}"
    )
}

/// Replaces record ids. The key is made from the originals, so without them a guessed id cannot be confirmed.
struct Names<'a> {
    key: Option<[u8; 32]>,
    run: &'a Run,
}

impl<'a> Names<'a> {
    fn new(run: &'a Run, options: Options) -> Self {
        let key = options.redacted.then(|| {
            let mut hasher = blake3::Hasher::new_derive_key("stitchback report redaction v1");
            for guess in run.guesses.values().flatten() {
                hasher.update(&(guess.original.len() as u64).to_le_bytes());
                hasher.update(guess.original.as_bytes());
            }
            *hasher.finalize().as_bytes()
        });
        Self { key, run }
    }

    fn of(&self, id: &str) -> String {
        match &self.key {
            Some(key) => blake3::keyed_hash(key, id.as_bytes()).to_hex().chars().take(12).collect(),
            None => visible(id, 80),
        }
    }

    fn shown(&self) -> bool {
        self.key.is_none()
    }

    fn guess(&self, p: &ProtectionSummary, record: &GuessRecord) -> Guess {
        let scores =
            [("judge", "judge_cosine"), ("victim", "victim_cosine"), ("token F1", "token_f1"), ("ROUGE-L", "rouge_l")];
        let scores: Vec<String> = scores
            .iter()
            .filter_map(|(name, id)| {
                Some(format!("{name} {}", record.scores.get(*id)?.map_or(MISSING.to_owned(), cosine)))
            })
            .collect();
        let pieces = self
            .shown()
            .then(|| gallery::overlap(&visible(&record.guess, MOST_TEXT), &visible(&record.original, MOST_TEXT)));
        Guess {
            protection: p.name.clone(),
            attack: p.best_attack.clone().unwrap_or_default(),
            scores: scores.join(" · "),
            pieces,
        }
    }

    fn target(&self, title: String, record: &GuessRecord, guesses: Vec<Guess>) -> Target {
        Target {
            title,
            id: self.of(&record.target),
            original: self.shown().then(|| visible(&record.original, MOST_TEXT)),
            guesses,
        }
    }

    /// The first seed's guesses under each protection, in study order.
    fn first_seed(&self) -> Vec<(&'a ProtectionSummary, &'a [GuessRecord])> {
        let run = self.run;
        run.summary.protections.iter().filter_map(|p| Some((p, *run.worst_guesses(p).first()?))).collect()
    }
}

fn targets(run: &Run, options: Options) -> Vec<Target> {
    if !run.originals.is_empty() {
        return Vec::new();
    }
    let names = Names::new(run, options);
    let groups = names.first_seed();
    let bare = run.unprotected().map(|p| p.name.as_str());
    let Some((_, rule)) = groups.iter().find(|(p, _)| Some(p.name.as_str()) == bare).or(groups.first()) else {
        return Vec::new();
    };
    let mut targets = Vec::new();
    for choice in gallery::choose(rule) {
        let same = |guesses: &'_ [GuessRecord]| guesses.iter().position(|g| g.target == choice.target);
        let guesses = groups.iter().filter_map(|(p, all)| same(all).map(|i| names.guess(p, &all[i]))).collect();
        if let Some(i) = same(rule) {
            let title = match choice.rank {
                "median" => "The median reconstruction".to_owned(),
                rank => format!("The {rank} reconstruction, for the attacker"),
            };
            targets.push(names.target(title, &rule[i], guesses));
        }
    }
    for (p, all) in groups.iter().filter(|(p, _)| Some(p.name.as_str()) != bare) {
        if let Some(record) = gallery::closest(all) {
            let title = format!("Leaked most under {}", p.name);
            targets.push(names.target(title, record, vec![names.guess(p, record)]));
        }
    }
    targets
}

const WORDS: &[(&str, &str)] = &[
    (
        "leak",
        "How far a guess stands above chance: (s − f) / (1 − f), with s the mean judge cosine of guess and original and f the floor. \
         0 % is nothing, 100 % is the original. It can be slightly negative.",
    ),
    (
        "floor",
        "The same guesses scored against shuffled originals: what the score gives when guess and target have nothing to do with each other.",
    ),
    (
        "blind",
        "A decoder trained on permuted embeddings: it knows what such texts look like and nothing about which is which. Leak near its level is no leak.",
    ),
    ("judge", "An encoder that is not the attacked one and decides how similar a guess is to the original."),
    (
        "victim cosine",
        "The same similarity under the attacked encoder itself. It is easier to satisfy, so it stands beside the leak and never replaces it.",
    ),
    (
        "worst adaptive attacker",
        "Every attacker is fitted to releases of the real pipeline with fresh noise. The one that leaks most on validation targets is scored on the test targets.",
    ),
    (
        "identified",
        "The attacker has the released vector and N candidate texts, one of them true: how often it picks the true one. Chance is 1/N.",
    ),
    (
        "matched",
        "How often a guess is nearer, by the judge, to its own original than to all of N − 1 decoys. Chance is 1/N.",
    ),
    (
        "inferred",
        "Facts that are read without writing a text: chance is what guessing gives, and a fact can be read long after no text can be written.",
    ),
    ("retained", "The leak under the protection divided by the leak of the unprotected release."),
    ("most leaky 5 %", "The mean leak of the 5 % of targets that leak most. An average hides them."),
    (
        "utility",
        "Topic accuracy and retrieval on the same released vectors. A low leak with no utility left is no achievement.",
    ),
    ("– ", "Not measured, or not applicable. It is never the same as 0."),
];

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::super::matrix::matrix_cell;
    use super::*;

    fn drawn(options: Options) -> String {
        let folder = fixture::folder();
        html(&[Run::load(folder.path()).expect("the fixture is a run folder")], &Paired::None, options)
    }

    fn full() -> String {
        drawn(Options::default())
    }

    #[test]
    fn what_can_be_inferred_stands_beside_chance_and_a_broken_claim_is_named() {
        let page = full().replace('\u{a0}', " ");
        assert!(page.contains("What can be inferred") && page.contains("Which city of 300?"));
        assert!(page.contains("chance 0.3 %"), "chance stands beside the question");
        assert!(page.contains("its guarantee allows 2.0 %") && page.contains("breach"));
        assert!(page.contains("more than the protection&#39;s guarantee allows"));
        let matrix = page.split("Attackers and protections").nth(1).and_then(|p| p.split("</table>").next());
        assert!(matrix.is_some_and(|m| !m.contains("slots")), "a probe has no leak");
    }

    #[test]
    fn hostile_guesses_stay_text() {
        let page = full();
        for tag in ["<script", "<img", "<iframe", "<link", "<object", "<base", " style="] {
            assert!(!page.contains(tag), "`{tag}` in the page");
        }
        assert!(page.contains("&#60;script&#62;"), "the hostile guess is shown as text");
        assert!(!page.contains('\u{1b}') && !page.contains('\u{202e}'), "control characters are replaced");
    }

    #[test]
    fn nothing_is_fetched_and_the_policy_forbids_it() {
        let page = full();
        assert!(!page.contains("http:") && !page.contains("https:"), "no address in the page");
        assert!(page.contains("default-src &#39;none&#39;"), "{}", &page[..600]);
        let digest = base64::engine::general_purpose::STANDARD.encode(sha2::Sha256::digest(CSS.as_bytes()));
        assert!(page.replace("&#43;", "+").contains(&format!("sha256-{digest}")));
        assert!(page.contains(&format!("<style>{CSS}</style>")), "the style sheet is the one that the policy allows");
    }

    #[test]
    fn the_verdict_and_the_numbers_are_on_the_page() {
        let page = full().replace('\u{a0}', " ");
        assert!(page.contains("Unprotected, the best attacker (decoder) reads back 61 %"));
        assert!(page.contains("topic accuracy"));
        assert!(page.contains("toy: "), "the label is visible");
        assert!(page.contains("Contains reconstructions of private data"));
        assert_eq!(page.matches("<figure ").count(), 6, "strip, noise, utility, tail, two curves");
    }

    #[test]
    fn a_missing_value_is_a_dash_and_a_failure_is_named() {
        let page = full();
        let run = Run::load(fixture::folder().path()).expect("the fixture is a run folder");
        let cell = matrix_cell(&run, &run.summary.protections[2], "corrector");
        assert_eq!((cell.leak.as_str(), cell.heat), (MISSING, 0));
        assert!(page.contains("out of memory after 3 batches"));
    }

    #[test]
    fn the_same_records_give_the_same_bytes_wherever_the_folder_lies() {
        assert_eq!(full(), full());
        assert!(full().len() < 5_000_000);
    }

    #[test]
    fn a_redacted_report_has_no_text_no_id_no_error_and_no_path() {
        let page = drawn(Options { redacted: true });
        for canary in fixture::CANARIES {
            assert!(full().contains(canary), "the canary `{canary}` would be seen");
            assert!(!page.contains(canary), "the canary `{canary}` got through");
        }
        assert!(page.contains("Redacted.") && !page.contains("Contains reconstructions"));
        assert!(page.contains("judge 0."), "scores remain");
    }

    #[test]
    fn several_runs_stand_side_by_side() {
        let folder = fixture::folder();
        let run = Run::load(folder.path()).expect("the fixture is a run folder");
        let page = html(&[run.clone(), run], &Paired::of(folder.path(), folder.path()), Options::default());
        assert!(page.contains("leakage-gap-text-0c1294 (toy, not evidence)"));
        assert!(page.contains("2 runs side by side") && page.contains("id=\"r2-figures\""));
    }
}
