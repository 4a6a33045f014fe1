//! The words between the brackets of a stage: `name(key=value, ...)`.

use super::Error;
use std::fmt::Write as _;

/// What is wrong with the text of a stage or a pipeline.
#[derive(Debug, Default)]
pub(super) struct Problems {
    /// Every problem, with its remedy.
    pub(super) what: Vec<String>,
    /// How many of them are files that cannot be used, not words.
    pub(super) files: usize,
}

impl From<Vec<String>> for Problems {
    fn from(what: Vec<String>) -> Self {
        Self { what, files: 0 }
    }
}

impl Problems {
    pub(super) fn is_empty(&self) -> bool {
        self.what.is_empty()
    }

    pub(super) fn extend(&mut self, more: Self) {
        self.what.extend(more.what);
        self.files += more.files;
    }

    /// Bad input when nothing but files is wrong, else a mistake in the text.
    pub(super) fn error(&self, text: &str) -> Error {
        let (pipeline, why) = (text.trim().to_owned(), self.what.join("; "));
        if self.files > 0 && self.files == self.what.len() {
            Error::Public { pipeline, why }
        } else {
            Error::Pipeline { pipeline, why }
        }
    }
}

/// The arguments of one stage while it reads them; problems are collected, not thrown, so that all show at once.
#[derive(Debug)]
pub(super) struct Arguments<'a> {
    stage: &'a str,
    given: Vec<(&'a str, &'a str)>,
    known: Vec<&'static str>,
    problems: Vec<String>,
    files: usize,
}

impl<'a> Arguments<'a> {
    /// Splits `text`, one stage of a pipeline, into its name and its arguments.
    pub(super) fn split(text: &'a str) -> Result<Self, Vec<String>> {
        let text = text.trim();
        let (stage, inside) = match text.split_once('(') {
            None => (text, None),
            Some((stage, rest)) => match rest.strip_suffix(')') {
                Some(inside) => (stage.trim_end(), Some(inside)),
                None if rest.contains(')') => {
                    return Err(vec![format!("`{text}` goes on after its `)`; stages are separated by `|`")]);
                }
                None => return Err(vec![format!("`{text}` lacks its closing `)`")]),
            },
        };
        if stage.is_empty() {
            return Err(vec!["a stage has no name; write `name(key=value, ...)`, stages separated by `|`".to_owned()]);
        }
        let mut problems = Vec::new();
        let mut given: Vec<(&str, &str)> = Vec::new();
        for part in inside.filter(|inside| !inside.trim().is_empty()).into_iter().flat_map(|inside| inside.split(',')) {
            match part.split_once('=').map(|(key, value)| (key.trim(), value.trim())) {
                Some((key, value)) if !key.is_empty() && !value.is_empty() => {
                    if given.iter().any(|(seen, _)| *seen == key) {
                        problems.push(format!("`{stage}.{key}` is given twice"));
                    } else {
                        given.push((key, value));
                    }
                }
                _ => problems.push(format!("`{stage}` has `{}` where `key=value` belongs", part.trim())),
            }
        }
        if problems.is_empty() {
            Ok(Self { stage, given, known: Vec::new(), problems, files: 0 })
        } else {
            Err(problems)
        }
    }

    /// The stage's name.
    pub(super) fn stage(&self) -> &'a str {
        self.stage
    }

    /// Whether `key` is given.
    pub(super) fn has(&self, key: &str) -> bool {
        self.given.iter().any(|(given, _)| *given == key)
    }

    /// Notes a problem of the stage.
    pub(super) fn problem(&mut self, what: impl std::fmt::Display) {
        self.problems.push(format!("`{}` {what}", self.stage));
    }

    /// Notes a file of the stage that cannot be used.
    pub(super) fn unusable(&mut self, what: impl std::fmt::Display) {
        self.problem(what);
        self.files += 1;
    }

    fn value(&mut self, key: &'static str) -> Option<&'a str> {
        self.known.push(key);
        self.given.iter().find(|(given, _)| *given == key).map(|(_, value)| *value)
    }

    fn missing(&mut self, key: &str, example: &str) {
        self.problems.push(format!("`{}` needs `{key}`, for example `{}({key}={example})`", self.stage, self.stage));
    }

    /// A number that may be left out.
    pub(super) fn optional_number(&mut self, key: &'static str) -> Option<f64> {
        let value = self.value(key)?;
        value.parse().map_err(|_| self.problems.push(self.wrong(key, "a number", value))).ok()
    }

    /// A word that may be left out.
    pub(super) fn optional_word(&mut self, key: &'static str) -> Option<&'a str> {
        self.value(key)
    }

    /// A count that may be left out.
    pub(super) fn optional_count(&mut self, key: &'static str) -> Option<u64> {
        let value = self.value(key)?;
        value.parse().map_err(|_| self.problems.push(self.wrong(key, "a whole number", value))).ok()
    }

    /// A number that must be given; NaN stands in for it once a problem is noted.
    pub(super) fn number(&mut self, key: &'static str, example: &str) -> f64 {
        if !self.has(key) {
            self.missing(key, example);
        }
        self.optional_number(key).unwrap_or(f64::NAN)
    }

    /// A count that must be given; 0 stands in for it once a problem is noted.
    pub(super) fn count(&mut self, key: &'static str, example: &str) -> usize {
        if !self.has(key) {
            self.missing(key, example);
        }
        let Some(value) = self.value(key) else { return 0 };
        value.parse().map_err(|_| self.problems.push(self.wrong(key, "a whole number", value))).unwrap_or(0)
    }

    fn wrong(&self, key: &str, kind: &str, value: &str) -> String {
        format!("`{}.{key}` must be {kind}, got `{value}`", self.stage)
    }

    /// Hands `read` over when every argument was understood, else every problem.
    pub(super) fn finish<T>(mut self, read: T) -> Result<T, Problems> {
        let unknown: Vec<&str> =
            self.given.iter().map(|(key, _)| *key).filter(|key| !self.known.contains(key)).collect();
        for key in unknown {
            let remedy =
                if self.known.is_empty() { format!("`{}` takes none", self.stage) } else { near(key, &self.known) };
            self.problems.push(format!("`{}` has no `{key}`; {remedy}", self.stage));
        }
        if self.problems.is_empty() { Ok(read) } else { Err(Problems { what: self.problems, files: self.files }) }
    }
}

/// "did you mean", or the whole list when nothing is near.
pub(super) fn near(word: &str, known: &[&str]) -> String {
    let lower = word.to_lowercase();
    let mut close: Vec<(f64, &str)> = known
        .iter()
        .map(|name| {
            let begins = lower.len() >= 3 && name.starts_with(&lower) || name.len() >= 3 && lower.starts_with(name);
            (if begins { 1.0 } else { strsim::jaro_winkler(&lower, name) }, *name)
        })
        .filter(|(score, _)| *score >= 0.75)
        .collect();
    close.sort_by(|a, b| b.0.total_cmp(&a.0));
    let (lead, names): (_, Vec<&str>) = if close.is_empty() {
        ("known: ", known.to_vec())
    } else {
        ("did you mean ", close.into_iter().map(|(_, name)| name).collect())
    };
    let mut text = lead.to_owned();
    for (i, name) in names.iter().enumerate() {
        let comma = if i == 0 { "" } else { ", " };
        let _ = write!(text, "{comma}`{name}`");
    }
    text
}

/// A number as the canonical form writes it: the shortest digits that parse back to the same bits.
pub(super) fn number(value: f64) -> String {
    let size = value.abs();
    if size == 0.0 || (1e-3..1e7).contains(&size) { format!("{value}") } else { format!("{value:e}") }
}
