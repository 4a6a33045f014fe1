//! The policy file: what a release may leak, and what it must stay good for.
//!
//! Parsed like a study: every problem at once, each with its line. [`Check`]s keep their line, because SARIF
//! and annotations point at it.

use super::verdict::{Level, Question};
use crate::study::read::{Reader, near};
use chrono::NaiveDate;
use globset::{Glob, GlobMatcher};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::collections::BTreeSet;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The schema's name, as it stands at the top of a policy.
pub const SCHEMA: &str = "stitchback/gate/v1";

/// The selection that stands for the worst adaptive attacker, chosen on validation targets.
pub const WORST: &str = "worst";

/// A checked policy.
#[derive(Debug, Clone)]
pub struct Policy {
    /// The file as it was named.
    pub path: String,
    /// BLAKE3 of its text.
    pub hash: String,
    /// When attackers count as strong.
    pub strength: Strength,
    /// The checks, presets first.
    pub checks: Vec<Check>,
    /// What is accepted for the time being.
    pub waivers: Vec<Waiver>,
    /// What is odd about the policy, without being wrong.
    pub warnings: Vec<String>,
}

/// One check with every default filled in.
#[derive(Debug, Clone)]
pub struct Check {
    /// Names it in every output.
    pub id: String,
    /// Its line in the policy.
    pub line: usize,
    /// How much it weighs.
    pub level: Level,
    /// Of its one-sided bounds.
    pub confidence: f64,
    /// Fewest targets.
    pub min_n: usize,
    /// Fewest seeds.
    pub min_seeds: usize,
    /// From which share of its range a score counts as an event.
    pub event: f64,
    /// Which cells it is about.
    pub select: Select,
    /// What is asked, with the threshold.
    pub questions: Vec<(Question, f64)>,
}

/// Globs that choose cells. `*` also matches `/`.
#[derive(Debug, Clone)]
pub struct Select {
    corpus: Pattern,
    protection: Pattern,
    /// `worst`, or a glob.
    pub attack: Pattern,
    /// The metric.
    pub metric: Pattern,
}

/// A glob that remembers its text.
#[derive(Debug, Clone)]
pub struct Pattern {
    /// As it was written.
    pub text: String,
    glob: GlobMatcher,
}

impl Pattern {
    fn new(text: &str) -> Result<Self, String> {
        let glob = Glob::new(text).map_err(|e| format!("`{text}` is not a pattern: {}", e.kind()))?;
        Ok(Self { text: text.to_owned(), glob: glob.compile_matcher() })
    }

    /// Whether a name is meant.
    pub fn matches(&self, name: &str) -> bool {
        self.glob.is_match(name)
    }

    /// True for a plain name.
    pub fn is_name(&self) -> bool {
        !self.text.contains(['*', '?', '[', '{'])
    }
}

impl Select {
    /// Whether a corpus is meant.
    pub fn corpus(&self, name: &str) -> bool {
        self.corpus.matches(name)
    }

    /// Whether a protection is meant. The unprotected release is the arm of comparison: only its plain name puts it on trial.
    pub fn protection(&self, name: &str, is_identity: bool) -> bool {
        self.protection.matches(name) && (!is_identity || self.protection.is_name())
    }

    /// All four patterns, for messages.
    pub fn text(&self) -> String {
        format!("{}/{}/{}/{}", self.corpus.text, self.protection.text, self.attack.text, self.metric.text)
    }
}

/// A leak that is accepted until a day.
#[derive(Debug, Clone)]
pub struct Waiver {
    /// The check.
    pub id: String,
    /// Which of its findings: a glob over `corpus/protection/attack/metric`.
    pub scope: Pattern,
    /// Last day on which it holds.
    pub until: NaiveDate,
    /// Why.
    pub reason: String,
    /// Who says so.
    pub approved_by: String,
    /// Its line.
    pub line: usize,
}

/// When attackers count as strong enough for a pass to mean anything.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Strength {
    /// What the leak of the unprotected release must exceed that of the blind attacker by: its lower bound.
    pub min_gain: f64,
    /// Pictures: how often the guess is nearer to its own original than to another, unprotected: its lower bound.
    pub image_two_way: f64,
    /// How much a held-out loss may still fall over the last fifth of a training, as a share of it.
    pub max_late_gain: f64,
}

impl Default for Strength {
    fn default() -> Self {
        Self { min_gain: 0.30, image_two_way: 0.95, max_late_gain: 0.02 }
    }
}

/// What holds for every check that does not say otherwise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Defaults {
    level: Level,
    confidence: f64,
    min_n: usize,
    min_seeds: usize,
    event: f64,
}

impl Default for Defaults {
    fn default() -> Self {
        Self { level: Level::Error, confidence: 0.95, min_n: 200, min_seeds: 5, event: 0.5 }
    }
}

/// `select` as it stands in the file.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct RawSelect {
    corpus: String,
    protection: String,
    attack: String,
    metric: String,
}

impl Default for RawSelect {
    fn default() -> Self {
        let any = || "*".to_owned();
        Self { corpus: any(), protection: any(), attack: WORST.to_owned(), metric: "judge_leak".to_owned() }
    }
}

/// `[[check]]` as it stands in the file.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct RawCheck {
    id: String,
    level: Option<Level>,
    confidence: Option<f64>,
    min_n: Option<usize>,
    min_seeds: Option<usize>,
    event: Option<f64>,
    select: RawSelect,
    max: Option<f64>,
    min_reduction: Option<f64>,
    min: Option<f64>,
    min_retention: Option<f64>,
    max_epsilon: Option<f64>,
    audit: bool,
    max_regression: Option<f64>,
}

/// `[[waiver]]` as it stands in the file.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct RawWaiver {
    id: String,
    scope: String,
    #[schemars(with = "String")]
    until: Option<toml::value::Datetime>,
    reason: String,
    approved_by: String,
}

/// A policy file, for its JSON Schema.
#[derive(JsonSchema)]
#[schemars(title = "stitchback gate policy", deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is read")]
struct File {
    schema: String,
    preset: Option<String>,
    #[schemars(default)]
    defaults: Defaults,
    #[schemars(default)]
    strength: Strength,
    #[schemars(default)]
    check: Vec<RawCheck>,
    #[schemars(default)]
    waiver: Vec<RawWaiver>,
}

/// The JSON Schema of a policy file.
pub fn json_schema() -> serde_json::Value {
    schemars::schema_for!(File).to_value()
}

const SECTIONS: [&str; 6] = ["schema", "preset", "defaults", "strength", "check", "waiver"];

/// Ready-made policies.
pub const PRESETS: [(&str, &str, &str); 2] = [
    (
        "claim-80-20",
        "the published claim: at most 20 % comes back, and at least three quarters of the unprotected leak is gone",
        r#"
[[check]]
id = "claim-leak"
max = 0.20
min_reduction = 0.75
[[check]]
id = "claim-identified"
level = "warn"
select = { attack = "identification", metric = "identified_top1" }
max = 0.20
"#,
    ),
    (
        "strict",
        "at most 5 % comes back from any attacker, hardly any record stands out, none is picked out of the crowd, four fifths of the topics stay",
        r#"
[[check]]
id = "strict-leak"
select = { attack = "*" }
max = 0.05
min_reduction = 0.90
[[check]]
id = "strict-tail"
select = { attack = "*", metric = "share_above_0_8" }
max = 0.01
[[check]]
id = "strict-identified"
select = { attack = "identification", metric = "identified_top1" }
max = 0.05
[[check]]
id = "strict-topics"
level = "warn"
select = { attack = "utility", metric = "topic_accuracy" }
min_retention = 0.80
"#,
    ),
];

/// Everything that is wrong with a policy, at once.
#[derive(Debug, thiserror::Error)]
#[error("policy `{path}` has {} problem{}:\n{}", problems.len(), if problems.len() == 1 { "" } else { "s" }, problems.join("\n"))]
pub struct Error {
    /// The file.
    pub path: String,
    /// One line each: where, what, remedy.
    pub problems: Vec<String>,
}

impl Policy {
    /// Parses and checks a policy; `path` only names it in messages.
    pub fn parse(path: &str, text: &str) -> Result<Self, Error> {
        let mut reader = Reader { text, problems: Vec::new() };
        let policy = policy(&mut reader, path);
        match policy {
            Some(policy) if reader.problems.is_empty() => Ok(policy),
            _ => Err(Error { path: path.to_owned(), problems: reader.problems }),
        }
    }
}

/// The keys of a table, from its schema.
fn keys<T: JsonSchema>() -> Vec<String> {
    let schema = schemars::schema_for!(T).to_value();
    schema["properties"].as_object().map(|p| p.keys().cloned().collect()).unwrap_or_default()
}

fn section<'t, T: Default + DeserializeOwned + JsonSchema>(
    reader: &mut Reader<'t>,
    value: Spanned<DeValue<'t>>,
    place: &str,
) -> T {
    let start = value.span().start;
    if let DeValue::Table(table) = value.into_inner() {
        return reader.keyed(table, place, &keys::<T>());
    }
    reader.problem(start, &format!("`{place}` must be a table: write `[{place}]`"));
    T::default()
}

fn policy(reader: &mut Reader<'_>, path: &str) -> Option<Policy> {
    let table = match DeTable::parse(reader.text) {
        Ok(table) => table.into_inner(),
        Err(error) => {
            reader.problem(error.span().map_or(0, |s| s.start), error.message());
            return None;
        }
    };
    let (mut defaults, mut strength) = (Defaults::default(), Strength::default());
    let (mut checks, mut waivers) = (Vec::new(), Vec::new());
    let (mut schema, mut preset, mut strength_at) = (None, None, 0);
    for (key, value) in table {
        let start = value.span().start;
        match key.get_ref().as_ref() {
            "schema" => schema = value.get_ref().as_str().map(str::to_owned),
            "preset" => preset = Some((start, value.get_ref().as_str().unwrap_or_default().to_owned())),
            "defaults" => {
                defaults = section(reader, value, "defaults");
                check_defaults(reader, start, &defaults);
            }
            "strength" => {
                strength = section(reader, value, "strength");
                strength_at = start;
            }
            "check" => checks = reader.entries(value, "check"),
            "waiver" => waivers = reader.entries(value, "waiver"),
            name => {
                let known = near(name, SECTIONS.into_iter());
                reader.problem(key.span().start, &format!("unknown section or key `{name}`; {known}"));
            }
        }
    }
    if schema.as_deref() != Some(SCHEMA) {
        reader.problem(0, &format!("`schema = \"{SCHEMA}\"` must stand at the top of the policy"));
    }
    for (name, value) in [
        ("min_gain", strength.min_gain),
        ("image_two_way", strength.image_two_way),
        ("max_late_gain", strength.max_late_gain),
    ] {
        if !(0.0..=1.0).contains(&value) {
            reader.problem(strength_at, &format!("`strength.{name}` must be in [0, 1], got {value}"));
        }
    }
    let mut out: Vec<Check> = checks.into_iter().filter_map(|entry| check(reader, entry, &defaults)).collect();
    if let Some((start, name)) = preset {
        let ready = preset_checks(reader, start, &name, &defaults);
        // A check of the file replaces the preset's of the same id.
        let own: BTreeSet<String> = out.iter().map(|c| c.id.clone()).collect();
        out.splice(0..0, ready.into_iter().filter(|c| !own.contains(&c.id)));
    }
    let mut seen = BTreeSet::new();
    for one in &out {
        if !seen.insert(one.id.as_str()) {
            let line = one.line;
            reader.problems.push(format!("  line {line}: `check.id` `{}` is given twice", one.id));
        }
    }
    if out.is_empty() {
        reader.problem(0, "no `[[check]]` and no `preset`: this policy checks nothing");
    }
    let waivers = waivers.into_iter().filter_map(|entry| waiver(reader, entry, &seen)).collect();
    let mut warnings = Vec::new();
    if !out.is_empty() && out.iter().all(|c| c.level != Level::Error) {
        warnings.push("every check is `warn` or `off`: this policy can never block".to_owned());
    }
    let hash = blake3::hash(reader.text.as_bytes()).to_hex().to_string();
    Some(Policy { path: path.to_owned(), hash, strength, checks: out, waivers, warnings })
}

fn check_defaults(reader: &mut Reader, start: usize, defaults: &Defaults) {
    for problem in bad_numbers(defaults.confidence, defaults.min_n, defaults.min_seeds, defaults.event) {
        reader.problem(start, &format!("`defaults.{problem}"));
    }
}

/// What is wrong with numbers that defaults and checks share.
fn bad_numbers(confidence: f64, min_n: usize, min_seeds: usize, event: f64) -> Vec<String> {
    let mut problems = Vec::new();
    if !(0.5..1.0).contains(&confidence) {
        problems.push(format!("confidence` must be at least 0.5 and below 1, got {confidence}"));
    }
    if min_n < 2 {
        problems.push(format!("min_n` must be at least 2, got {min_n}"));
    }
    if min_seeds < 1 {
        problems.push("min_seeds` must be at least 1".to_owned());
    }
    if !(event > 0.0 && event < 1.0) {
        problems.push(format!("event` must lie between 0 and 1, got {event}"));
    }
    problems
}

fn preset_checks(reader: &mut Reader, start: usize, name: &str, defaults: &Defaults) -> Vec<Check> {
    let Some((_, _, text)) = PRESETS.iter().find(|(known, ..)| *known == name) else {
        let known = near(name, PRESETS.iter().map(|(known, ..)| *known));
        reader.problem(start, &format!("unknown preset `{name}`; {known}"));
        return Vec::new();
    };
    let line = reader.line(start);
    let mut inner = Reader { text, problems: Vec::new() };
    let table = DeTable::parse(text).expect("presets are TOML").into_inner();
    let entries = table.into_iter().flat_map(|(_, value)| inner.entries(value, "check")).collect::<Vec<_>>();
    let checks = entries.into_iter().filter_map(|entry| check(&mut inner, entry, defaults));
    checks.map(|check| Check { line, ..check }).collect()
}

fn check<'t>(reader: &mut Reader<'t>, entry: Spanned<DeValue<'t>>, defaults: &Defaults) -> Option<Check> {
    let start = entry.span().start;
    let DeValue::Table(table) = entry.into_inner() else {
        reader.problem(start, "`check` must be a table: write `[[check]]`");
        return None;
    };
    // The selection is a table of its own: its problems have lines of their own.
    let (mut rest, mut select) = (DeTable::new(), RawSelect::default());
    for (key, value) in table {
        if key.get_ref() == "select" {
            select = section(reader, value, "check.select");
        } else {
            rest.insert(key, value);
        }
    }
    let raw: RawCheck = reader.keyed(rest, "check", &keys::<RawCheck>());
    if raw.id.is_empty() || !raw.id.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) {
        reader.problem(start, "`check.id` must be given: letters, digits, `-`, `_` and `.`");
    }
    let questions: Vec<(Question, f64)> = [
        (Question::Max, raw.max),
        (Question::MinReduction, raw.min_reduction),
        (Question::Min, raw.min),
        (Question::MinRetention, raw.min_retention),
        (Question::MaxEpsilon, raw.max_epsilon),
        (Question::Audit, raw.audit.then_some(0.0)),
        (Question::MaxRegression, raw.max_regression),
    ]
    .into_iter()
    .filter_map(|(question, threshold)| threshold.map(|t| (question, t)))
    .collect();
    if questions.is_empty() {
        reader.problem(
            start,
            "`check` asks nothing: give `max`, `min_reduction`, `min`, `min_retention`, `max_epsilon`, `audit` or `max_regression`",
        );
    }
    for (question, threshold) in &questions {
        let share = matches!(question, Question::MinReduction | Question::MinRetention);
        if share && !(0.0..=1.0).contains(threshold) || !threshold.is_finite() {
            reader.problem(start, &format!("`check.{}`: {threshold} is not in range", name_of(*question)));
        }
    }
    let (confidence, event) = (raw.confidence.unwrap_or(defaults.confidence), raw.event.unwrap_or(defaults.event));
    let (min_n, min_seeds) = (raw.min_n.unwrap_or(defaults.min_n), raw.min_seeds.unwrap_or(defaults.min_seeds));
    if raw.confidence.or(raw.event).is_some() || raw.min_n.or(raw.min_seeds).is_some() {
        for problem in bad_numbers(confidence, min_n, min_seeds, event) {
            reader.problem(start, &format!("`check.{problem}"));
        }
    }
    let mut pattern = |name: &str, text: &str| {
        Pattern::new(text).map_err(|why| reader.problem(start, &format!("`check.select.{name}`: {why}"))).ok()
    };
    let select = Select {
        corpus: pattern("corpus", &select.corpus)?,
        protection: pattern("protection", &select.protection)?,
        attack: pattern("attack", &select.attack)?,
        metric: pattern("metric", &select.metric)?,
    };
    let level = raw.level.unwrap_or(defaults.level);
    let line = reader.line(start);
    Some(Check { id: raw.id, line, level, confidence, min_n, min_seeds, event, select, questions })
}

/// How the policy spells a question.
pub fn name_of(question: Question) -> &'static str {
    match question {
        Question::Max => "max",
        Question::MinReduction => "min_reduction",
        Question::Min => "min",
        Question::MinRetention => "min_retention",
        Question::MaxEpsilon => "max_epsilon",
        Question::Audit => "audit",
        Question::MaxRegression => "max_regression",
    }
}

fn waiver<'t>(reader: &mut Reader<'t>, entry: Spanned<DeValue<'t>>, ids: &BTreeSet<&str>) -> Option<Waiver> {
    let start = entry.span().start;
    let raw: RawWaiver = section(reader, entry, "waiver");
    let before = reader.problems.len();
    if !ids.contains(raw.id.as_str()) {
        let known = near(&raw.id, ids.iter().copied());
        reader.problem(start, &format!("`waiver.id` `{}` names no check; {known}", raw.id));
    }
    let until = raw
        .until
        .as_ref()
        .and_then(|d| d.date)
        .and_then(|d| NaiveDate::from_ymd_opt(i32::from(d.year), u32::from(d.month), u32::from(d.day)));
    if until.is_none() {
        reader.problem(start, "`waiver.until` must be a date without quotes, for example 2027-03-31");
    }
    for (name, text) in [("reason", &raw.reason), ("approved_by", &raw.approved_by)] {
        if text.trim().is_empty() {
            reader.problem(start, &format!("`waiver.{name}` must be given"));
        }
    }
    let scope = if raw.scope.is_empty() { "*" } else { &raw.scope };
    let scope = Pattern::new(scope).map_err(|why| reader.problem(start, &format!("`waiver.scope`: {why}"))).ok()?;
    let line = reader.line(start);
    (reader.problems.len() == before).then_some(())?;
    Some(Waiver { id: raw.id, scope, until: until?, reason: raw.reason, approved_by: raw.approved_by, line })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"schema = "stitchback/gate/v1"
preset = "claim-80-20"
[defaults]
min_seeds = 3
[[check]]
id = "leak"
select = { corpus = "bbc*", attack = "*" }
max = 0.2
min_reduction = 0.75
[[check]]
id = "claim-identified"
max = 0.5
[[waiver]]
id = "leak"
scope = "*/noisy/*"
until = 2027-03-31
reason = "known"
approved_by = "me"
"#;

    #[test]
    fn a_policy_is_resolved_with_its_defaults() {
        let policy = Policy::parse("gate.toml", GOOD).expect("valid");
        let ids: Vec<&str> = policy.checks.iter().map(|c| c.id.as_str()).collect();
        assert_eq!(ids, ["claim-leak", "leak", "claim-identified"], "a check of one's own replaces the preset's");
        let leak = &policy.checks[1];
        assert_eq!((leak.line, leak.min_seeds, leak.min_n), (5, 3, 200));
        assert_eq!(leak.questions, [(Question::Max, 0.2), (Question::MinReduction, 0.75)]);
        assert_eq!(policy.checks[0].line, 2, "a preset stands at its name");
        assert!(leak.select.corpus("bbc-news") && !leak.select.corpus("brown"));
        assert!(leak.select.protection("noisy", false) && !leak.select.protection("unprotected", true));
        assert_eq!((policy.waivers[0].line, policy.waivers[0].until.to_string().as_str()), (13, "2027-03-31"));
    }

    #[test]
    fn every_problem_is_reported_with_its_line() {
        let bad = r#"schema = "stitchback/gate/v2"
presett = "strict"
[defaults]
confidence = 1.5
[[check]]
id = "a b"
selct = {}
max = "high"
[[check]]
id = "leak"
select = { dataset = "*", metric = "[" }
min_reduction = 75
[[waiver]]
id = "leek"
until = 2027-02-31
"#;
        let message = Policy::parse("gate.toml", bad).expect_err("invalid").to_string();
        assert!(message.contains("line 15") || message.contains("day"), "an impossible date is refused: {message}");
        let bad = bad.replace("2027-02-31", "\"soon\"");
        let message = Policy::parse("gate.toml", &bad).expect_err("invalid").to_string();
        for expected in [
            "line 1: `schema = ",
            "line 2: unknown section or key `presett`; did you mean `preset`",
            "line 3: `defaults.confidence` must be at least 0.5",
            "line 5: `check.id` must be given",
            "line 7: unknown key `check.selct`; did you mean `select`?",
            "line 8: `check.max`",
            "line 5: `check` asks nothing",
            "line 11: unknown key `check.select.dataset`",
            "line 9: `check.min_reduction`: 75",
            "line 9: `check.select.metric`: `[` is not a pattern",
            "line 13: `waiver.id` `leek` names no check",
            "line 15: `waiver.until`",
            "line 13: `waiver.reason` must be given",
        ] {
            assert!(message.contains(expected), "{expected} is missing from\n{message}");
        }
    }

    #[test]
    fn presets_are_policies() {
        for (name, ..) in PRESETS {
            let text = format!("schema = \"{SCHEMA}\"\npreset = \"{name}\"\n");
            let policy = Policy::parse("p.toml", &text).expect(name);
            assert!(policy.checks.iter().any(|c| c.level == Level::Error), "{name} can block");
        }
    }

    #[test]
    fn a_policy_of_warnings_says_that_it_never_blocks() {
        let text = format!("schema = \"{SCHEMA}\"\n[[check]]\nid = \"a\"\nlevel = \"warn\"\nmax = 0.2\n");
        let policy = Policy::parse("p.toml", &text).expect("valid");
        assert!(policy.warnings[0].contains("can never block"), "{:?}", policy.warnings);
    }

    #[test]
    fn the_schema_names_every_key() {
        let schema = json_schema();
        assert!(schema["properties"]["check"].is_object(), "{schema:#}");
        for key in ["id", "select", "max", "min_reduction", "max_regression", "audit"] {
            assert!(keys::<RawCheck>().contains(&key.to_owned()), "{key}");
        }
    }
}
