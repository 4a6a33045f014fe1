//! Attributes: what kind of text stands behind a vector.

use super::logistic::{Dense, Features, Logistic, Sparse, log_sum};
use super::{Field, Findings, Inference, Probe};
use crate::attack::text::words;
use crate::attack::{Curve, Error, Knowledge, Progress, View, adapt};
use crate::data::Record;
use crate::encode::Embeddings;
use crate::measure::infer::{self, Auc};
use crate::measure::statistics::{Design, Weights};
use crate::seed;
use rand::seq::SliceRandom;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Records of a class that the attacker needs to know it.
const FEWEST: usize = 20;
/// Targets of a class, in at least two classes, that it takes to score an attribute.
const FEWEST_TARGETS: usize = 10;
/// Labels of the learning curve, before all of them.
const LABELS: [usize; 3] = [10, 100, 1000];
/// Fresh releases of each labelled record, where there is noise: the attacker can draw as many as it likes.
const DRAWS: usize = 3;
/// Words of the yardstick that reads the text itself.
const VOCABULARY: usize = 5000;

/// Infers attributes of a text from its released vector, or what a picture shows.
///
/// # Formula
/// Multinomial logistic regression on fresh releases of the real pipeline of labelled auxiliary records. The penalty is
/// chosen on every fifth record by log-likelihood. Plain accuracy takes the most probable class; balanced accuracy
/// divides by the class frequencies first; the area under the ROC curve is averaged over classes, one against the rest.
///
/// # Range
/// Shares and areas, 0 to 1, higher = worse privacy. Chance: the share of the class that is most frequent among the
/// attacker's records, `1 / K`, and 1/2. Ceiling: the same regression on the words of the text itself (tf-idf); none for
/// pictures.
///
/// # Source
/// Song and Raghunathan 2020, section 4 (attribute inference).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Attribute {
    /// Most auxiliary records that carry a label; 0 means all.
    pub labels: usize,
}

impl Default for Attribute {
    fn default() -> Self {
        Self { labels: 10_000 }
    }
}

impl Attribute {
    /// Every parameter that is out of range.
    pub fn check(&self) -> Vec<String> {
        if (1..FEWEST).contains(&self.labels) {
            return vec![format!("`labels` must be 0 for all, or at least {FEWEST}")];
        }
        Vec::new()
    }
}

/// An attribute with the classes that the attacker knows.
struct Question {
    id: &'static str,
    text: String,
    classes: usize,
    own: Vec<Option<u32>>,
    truth: Vec<Option<u32>>,
}

type Label = dyn Fn(&Record) -> Option<String>;

impl Question {
    /// `None` where fewer than two classes have enough auxiliary records, or enough targets.
    fn new(id: &'static str, text: &str, view: &View, field: &Field, label: &Label) -> Option<Self> {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for value in view.auxiliary.iter().filter_map(label) {
            *counts.entry(value).or_default() += 1;
        }
        let classes: BTreeSet<String> = counts.into_iter().filter(|(_, n)| *n >= FEWEST).map(|(c, _)| c).collect();
        let number: BTreeMap<String, u32> = classes.into_iter().zip(0..).collect();
        let of = |records: &[Record]| records.iter().map(|r| number.get(&label(r)?).copied()).collect::<Vec<_>>();
        let (own, truth) = (of(view.auxiliary), of(field.records));
        let of_class = |c: u32| truth.iter().filter(|t| **t == Some(c)).count();
        let scored = (0..number.len() as u32).filter(|&c| of_class(c) >= FEWEST_TARGETS).count();
        let enough = scored >= 2;
        enough.then(|| Self {
            id,
            text: format!("{text} ({} classes)", number.len()),
            classes: number.len(),
            own,
            truth,
        })
    }

    /// Labels that the corpus carries, and labels that rules read off the text.
    fn all(view: &View, field: &Field) -> Vec<Self> {
        if view.shows_pictures() {
            let object = Self::new("object", "Which object?", view, field, &|r| r.topic.clone());
            let owner = Self::new("owner", "Whose picture?", view, field, &|r| r.owner.clone());
            return object.into_iter().chain(owner).collect();
        }
        let mut lengths: Vec<usize> = view.auxiliary.iter().map(|r| r.text.chars().count()).collect();
        lengths.sort_unstable();
        let median = lengths.get(lengths.len() / 2).copied().unwrap_or(0);
        let yes = |is: bool| Some(if is { "yes" } else { "no" }.to_owned());
        let long = move |r: &Record| yes(r.text.chars().count() > median);
        [
            Self::new("topic", "Which topic?", view, field, &|r| r.topic.clone()),
            Self::new("owner", "Which sender?", view, field, &|r| r.owner.clone()),
            Self::new("has_name", "Does it name somebody or something?", view, field, &move |r| yes(has_name(&r.text))),
            Self::new("has_number", "Does it hold a number?", view, field, &move |r| {
                yes(r.text.contains(|c: char| c.is_ascii_digit()))
            }),
            Self::new("is_long", "Is it longer than the median?", view, field, &long),
            Self::new("is_question", "Is it a question?", view, field, &move |r| yes(r.text.contains('?'))),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// A capitalised word that does not begin a sentence and is not all capitals.
fn has_name(text: &str) -> bool {
    let mut begins = true;
    for element in words::split(text) {
        if words::is_word(&element) {
            let capitalised = element.starts_with(char::is_uppercase) && element.contains(char::is_lowercase);
            if capitalised && !begins && !element.starts_with("I'") && !element.starts_with("I’") {
                return true;
            }
            begins = false;
        } else {
            begins |= matches!(element.as_str(), "." | "!" | "?" | ":" | "\"" | "“" | "‘" | "'");
        }
    }
    false
}

impl Probe for Attribute {
    fn needs(&self) -> Knowledge {
        Knowledge { auxiliary: true, pipeline: true, encoder: true, released: true, leaked_pairs: 0 }
    }

    fn run(&self, view: &View, field: &Field, progress: &dyn Progress) -> Result<Findings, Error> {
        let questions = Question::all(view, field);
        let own = Own::new(self, view)?;

        // 1. Fitted on fresh releases of the attacker's own labelled records.
        let fitted: Vec<Vec<(usize, Reader)>> = questions.par_iter().map(|q| own.learn(q)).collect();
        if progress.is_interrupted() {
            return Err(Error::Interrupted);
        }

        // 2. Answers from the released vectors.
        let released = own.scaled(field.released);
        let answers: Vec<Vec<(usize, Answers)>> =
            fitted.iter().map(|f| f.iter().map(|(n, reader)| (*n, reader.answer(&released))).collect()).collect();

        // 3. Scores, beside what the words of the text itself would tell.
        let yardsticks: Vec<Option<Answers>> = if view.shows_pictures() {
            // A caption names the object: it is no yardstick for what can be seen.
            questions.iter().map(|_| None).collect()
        } else {
            let (texts, targets) = own.words(field.records);
            questions.par_iter().map(|q| Some(own.yardstick(q, &texts).answer(&targets))).collect()
        };
        let mut findings = Findings::default();
        for ((question, answers), yardstick) in questions.iter().zip(&answers).zip(&yardsticks) {
            score(question, answers, yardstick.as_ref(), field, &mut findings);
        }
        Ok(findings)
    }
}

/// The attacker's labelled records.
struct Own<'a> {
    view: &'a View<'a>,
    /// Positions in the auxiliary records, in the order in which labels are bought.
    order: Vec<usize>,
    /// Fresh releases of all auxiliary records, scaled.
    draws: Vec<Embeddings>,
    /// Brings coordinates to unit size, so that one grid of penalties fits every protection.
    scale: f32,
}

/// A classifier with the class frequencies that it learned from.
struct Reader {
    model: Logistic,
    log_prior: Vec<f64>,
}

/// What a reader says of each target.
struct Answers {
    /// The most probable class.
    plain: Vec<u32>,
    /// The class whose probability is furthest above its frequency.
    balanced: Vec<u32>,
    /// `(n, k)` log-odds of each class against the rest.
    odds: Vec<f64>,
}

impl<'a> Own<'a> {
    fn new(parameters: &Attribute, view: &'a View) -> Result<Self, Error> {
        let mut order: Vec<usize> = (0..view.auxiliary.len()).collect();
        order.shuffle(&mut seed::stream(view.seed, &view.inputs, "attribute labels"));
        if parameters.labels > 0 {
            order.truncate(parameters.labels);
        }
        let draws = if view.pipeline.has_noise() { DRAWS } else { 1 };
        let draws = (0..draws)
            .map(|draw| {
                adapt::release(view.pipeline, view.clean, view.strata, view.releases, |k| {
                    seed::stream(view.seed, &view.fingerprint, &format!("attribute {draw} {k}"))
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        let values = draws[0].values();
        let square = values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / values.len().max(1) as f64;
        let scale = (1.0 / square.sqrt().max(1e-12)) as f32;
        Ok(Self { view, order, draws, scale })
    }

    fn scaled(&self, rows: &Embeddings) -> Dense {
        Dense { values: rows.values().iter().map(|v| v * self.scale).collect(), dim: rows.dim() }
    }

    /// The releases of chosen records, one draw after the other.
    fn features(&self, chosen: &[usize]) -> Dense {
        let values =
            self.draws.iter().flat_map(|draw| chosen.iter().flat_map(|&i| draw.row(i))).map(|v| v * self.scale);
        Dense { values: values.collect(), dim: self.view.clean.dim() }
    }

    /// A reader for each number of labels: the first of the order, after one of each class.
    fn learn(&self, question: &Question) -> Vec<(usize, Reader)> {
        let known = self.known(question);
        let mut counts: Vec<usize> = LABELS.into_iter().filter(|&n| n < known.len()).collect();
        counts.push(known.len());
        let of = |chosen: &[usize]| {
            let labels: Vec<u32> = labels(question, chosen);
            (self.features(chosen), labels.repeat(self.draws.len()))
        };
        let l2 = penalty(&known[..known.len().min(2000)], question.classes, &|chosen| {
            let (x, labels) = of(chosen);
            (Box::new(x), labels)
        });
        counts
            .into_iter()
            .map(|n| {
                let (x, labels) = of(&known[..n]);
                // The penalty was chosen for a number of labels; the prior that it stands for does not grow with them.
                (n, Reader::fit(&x, &labels, question.classes, l2.0 * l2.1 as f64 / n as f64))
            })
            .collect()
    }

    /// Labelled records in the order of purchase, one of each class first.
    fn known(&self, question: &Question) -> Vec<usize> {
        let labelled = || self.order.iter().copied().filter(|&i| question.own[i].is_some());
        let mut met = BTreeSet::new();
        let first: Vec<usize> = labelled().filter(|&i| met.insert(question.own[i])).collect();
        let rest = labelled().filter(|i| !first.contains(i));
        first.iter().copied().chain(rest).collect()
    }

    /// Auxiliary and target texts as tf-idf of words and marks.
    fn words(&self, targets: &[Record]) -> (Vec<Vec<(u32, f32)>>, Sparse) {
        let split = |r: &Record| words::split(&r.text).iter().map(|w| words::key(w)).collect::<Vec<String>>();
        let own: Vec<Vec<String>> = self.view.auxiliary.par_iter().map(split).collect();
        let mut frequency: BTreeMap<&str, usize> = BTreeMap::new();
        for text in &own {
            for word in text.iter().map(String::as_str).collect::<BTreeSet<&str>>() {
                *frequency.entry(word).or_default() += 1;
            }
        }
        let mut ranked: Vec<(&str, usize)> = frequency.into_iter().filter(|(_, n)| *n >= 2).collect();
        ranked.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        ranked.truncate(VOCABULARY);
        let n = own.len() as f64;
        let weight: BTreeMap<&str, (u32, f64)> = ranked
            .iter()
            .enumerate()
            .map(|(i, &(word, count))| (word, (i as u32, (n / count as f64).ln() + 1.0)))
            .collect();
        let row = |text: &[String]| {
            let mut counts: BTreeMap<u32, f64> = BTreeMap::new();
            for (index, idf) in text.iter().filter_map(|w| weight.get(w.as_str())) {
                *counts.entry(*index).or_default() += idf;
            }
            let norm = counts.values().map(|v| v * v).sum::<f64>().sqrt().max(1e-9);
            // The usual unit rows, brought to the scale of the grid of penalties.
            counts.into_iter().map(|(i, v)| (i, (10.0 * v / norm) as f32)).collect::<Vec<(u32, f32)>>()
        };
        let rows = own.iter().map(|t| row(t)).collect();
        let targets = targets.iter().map(|r| row(&split(r))).collect();
        (rows, Sparse { rows: targets, dim: ranked.len().max(1) })
    }

    /// The same regression on words, with all labels.
    fn yardstick(&self, question: &Question, texts: &[Vec<(u32, f32)>]) -> Reader {
        let known = self.known(question);
        let dim = texts.iter().flatten().map(|(i, _)| i + 1).max().unwrap_or(1) as usize;
        let of = |chosen: &[usize]| {
            let rows = chosen.iter().map(|&i| texts[i].clone()).collect();
            (Sparse { rows, dim }, labels(question, chosen))
        };
        let l2 = penalty(&known[..known.len().min(2000)], question.classes, &|chosen| {
            let (x, labels) = of(chosen);
            (Box::new(x), labels)
        });
        let (x, labels) = of(&known);
        Reader::fit(&x, &labels, question.classes, l2.0 * l2.1 as f64 / known.len() as f64)
    }
}

fn labels(question: &Question, chosen: &[usize]) -> Vec<u32> {
    chosen.iter().map(|&i| question.own[i].expect("only labelled records are chosen")).collect()
}

type Rows<'a> = dyn Fn(&[usize]) -> (Box<dyn Features>, Vec<u32>) + 'a;

/// The penalty that predicts every fifth record best, and the number of labels that it was tried with.
fn penalty(known: &[usize], classes: usize, of: &Rows) -> (f64, usize) {
    const GRID: [f64; 5] = [1e-3, 1e-2, 1e-1, 1.0, 10.0];
    let part = |held: bool| -> Vec<usize> {
        known.iter().enumerate().filter(|(at, _)| (at % 5 == 4) == held).map(|(_, &i)| i).collect()
    };
    let (train, held) = (part(false), part(true));
    if held.len() < 4 {
        return (GRID[2], train.len().max(1));
    }
    let ((x, labels), (check, truth)) = (of(&train), of(&held));
    let surprise = |l2: f64| Logistic::fit(x.as_ref(), &labels, classes, l2).surprise(check.as_ref(), &truth);
    let best = GRID.into_iter().map(|l2| (surprise(l2), l2)).min_by(|a, b| a.0.total_cmp(&b.0));
    (best.map_or(GRID[2], |(_, l2)| l2), train.len())
}

impl Reader {
    fn fit(x: &dyn Features, labels: &[u32], classes: usize, l2: f64) -> Self {
        let mut counts = vec![0.0; classes];
        for &c in labels {
            counts[c as usize] += 1.0;
        }
        let log_prior = counts.iter().map(|n: &f64| (n.max(0.5) / labels.len().max(1) as f64).ln()).collect();
        Self { model: Logistic::fit(x, labels, classes, l2), log_prior }
    }

    fn answer(&self, x: &dyn Features) -> Answers {
        let k = self.log_prior.len();
        let logits = self.model.logits(x);
        let best = |scores: &mut dyn Iterator<Item = f64>| {
            let first = scores.next().unwrap_or(0.0);
            scores.zip(1_u32..).fold((first, 0), |best, (s, c)| if s > best.0 { (s, c) } else { best }).1
        };
        let mut answers = Answers { plain: Vec::new(), balanced: Vec::new(), odds: Vec::with_capacity(logits.len()) };
        for row in logits.chunks_exact(k) {
            answers.plain.push(best(&mut row.iter().copied()));
            answers.balanced.push(best(&mut row.iter().zip(&self.log_prior).map(|(s, p)| s - p)));
            for (c, own) in row.iter().enumerate() {
                let rest: Vec<f64> = row.iter().enumerate().filter(|(o, _)| *o != c).map(|(_, v)| *v).collect();
                answers.odds.push(own - log_sum(&rest));
            }
        }
        answers
    }
}

impl Answers {
    fn hits(&self, truth: &[Option<u32>]) -> Vec<Option<f64>> {
        self.plain.iter().zip(truth).map(|(guess, t)| t.map(|t| f64::from(u8::from(*guess == t)))).collect()
    }

    fn balanced(&self, question: &Question) -> impl Fn(&Weights) -> Option<f64> {
        let pairs = self.balanced.iter().zip(&question.truth);
        let answers: Vec<Option<(u32, bool)>> = pairs.map(|(guess, t)| t.map(|t| (t, *guess == t))).collect();
        let classes = question.classes;
        move |w| infer::balanced_accuracy(&answers, classes, w)
    }

    fn area(&self, question: &Question) -> impl Fn(&Weights) -> Option<f64> {
        let k = question.classes;
        let of = |c: usize| -> Vec<Option<(f64, bool)>> {
            let rows = self.odds.chunks_exact(k).zip(&question.truth);
            rows.map(|(odds, t)| t.map(|t| (odds[c], t as usize == c))).collect()
        };
        // Two classes are one question.
        let curves: Vec<Auc> = (usize::from(k == 2)..k).map(|c| Auc::new(&of(c))).collect();
        move |w| {
            let areas: Vec<f64> = curves.iter().filter_map(|c| c.area(w)).collect();
            (!areas.is_empty()).then(|| areas.iter().sum::<f64>() / areas.len() as f64)
        }
    }
}

fn score(
    question: &Question,
    answers: &[(usize, Answers)],
    yardstick: Option<&Answers>,
    field: &Field,
    findings: &mut Findings,
) {
    let Some((labels, best)) = answers.last() else { return };
    let id = |what: &str| format!("attribute_{}_{what}", question.id);
    let truth = &question.truth;
    let n = truth.iter().flatten().count();
    let frequency = |class: u32| truth.iter().filter(|t| **t == Some(class)).count() as f64 / n as f64;
    let of_class = |c: u32| question.own.iter().filter(|o| **o == Some(c)).count();
    let majority = (0..question.classes as u32).max_by_key(|&c| of_class(c)).map_or(0.0, frequency);
    let all = Design::independent(truth.len(), 1).once();
    let chance = 1.0 / question.classes as f64;
    let meaning = |what: &str, chance: f64, ceiling: Option<f64>| Inference {
        n,
        ceiling,
        headline: what == "balanced accuracy",
        unit: if what == "area under the ROC curve" { "area" } else { "share" }.to_owned(),
        ..Inference::share(format!("{} {}, {labels} labels", question.text, sentence(what)), chance)
    };
    findings.per_target(
        id("accuracy"),
        best.hits(truth),
        meaning("accuracy", majority, yardstick.and_then(|y| super::mean(&y.hits(truth)))),
    );
    findings.together(
        id("balanced"),
        &best.balanced(question),
        field,
        meaning("balanced accuracy", chance, yardstick.and_then(|y| y.balanced(question)(&all))),
    );
    findings.together(
        id("auc"),
        &best.area(question),
        field,
        meaning("area under the ROC curve", 0.5, yardstick.and_then(|y| y.area(question)(&all))),
    );
    findings.curves.push(Curve {
        title: format!("balanced accuracy: {}", question.id.replace('_', " ")),
        x_label: "labelled records".to_owned(),
        points: answers.iter().filter_map(|(n, a)| Some((*n as f64, a.balanced(question)(&all)?))).collect(),
    });
}

fn sentence(what: &str) -> String {
    let mut chars = what.chars();
    chars.next().map(|c| c.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::probe::bench;

    #[test]
    fn a_name_is_a_capitalised_word_inside_a_sentence() {
        for (text, named) in [
            ("Yesterday we met Anna there.", true),
            ("Yesterday it rained. Nobody came.", false),
            ("He said: \"Never mind.\"", false),
            ("The BBC and NASA agree.", false),
            ("Well, I think I'm done.", false),
            ("", false),
        ] {
            assert_eq!(has_name(text), named, "{text}");
        }
    }

    #[test]
    fn topics_are_read_from_open_vectors_and_lost_behind_noise() {
        let open = bench::run(&Attribute::default(), "identity");
        let (balanced, area) =
            (bench::value(&open, "attribute_topic_balanced"), bench::value(&open, "attribute_topic_auc"));
        assert!(balanced > 0.75 && area > 0.9, "{balanced} {area}");
        let closed = bench::run(&Attribute::default(), "clip(l2=1) | gaussian(sigma=50)");
        let chance = &closed.meaning["attribute_topic_balanced"];
        assert_eq!(chance.chance, Some(0.25));
        assert!(chance.ceiling.is_some_and(|c| c > 0.9), "words tell the topic: {chance:?}");
        // 160 targets, four classes: a standard error of .034 at chance; three of them.
        assert!((bench::value(&closed, "attribute_topic_balanced") - 0.25).abs() < 0.11);
        assert!((bench::value(&closed, "attribute_topic_auc") - 0.5).abs() < 0.1);
    }

    #[test]
    fn more_labels_are_not_worse() {
        let open = bench::run(&Attribute::default(), "identity");
        let curve = open.curves.iter().find(|c| c.title.ends_with("topic")).expect("a curve");
        assert_eq!(curve.points[0].0, 10.0);
        assert!(curve.points.last().expect("all labels").1 > curve.points[0].1, "{:?}", curve.points);
    }

    #[test]
    fn too_few_labels_are_refused() {
        assert!(Attribute { labels: 5 }.check()[0].contains("`labels`"));
        assert!(Attribute { labels: 0 }.check().is_empty());
    }
}
