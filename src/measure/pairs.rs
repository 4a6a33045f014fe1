//! Given pairs: originals and guesses from files, and every text metric on them.

use super::similarity::{self, PerTarget};
use super::statistics::{Design, Estimate, Method, Table, Tail, bootstrap, mean};
use super::text::{self, Bleu, Chrf};
use super::{Context, Error, Metric, MetricKind, Spec, identify, other_pairings, shuffled_floor};
use crate::data;
use crate::encode::{Embeddings, Encoder};
use crate::measure::Direction;
use crate::seed::{self, Stream};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Originals with one guess each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pairs {
    /// The originals.
    pub truths: Vec<String>,
    /// The guesses, in the originals' order.
    pub guesses: Vec<String>,
    /// One label for each pair; originals of one document share it.
    pub documents: Vec<u32>,
}

impl Pairs {
    /// Reads originals and guesses.
    ///
    /// A `.jsonl` file has one object a line with `text`, and optionally `id` and `document`; any other file has one
    /// record a line, blank lines included, because a blank guess is a guess; a folder has one record in each `.txt`
    /// file, with the file's name as its id. Where both sides have ids they are paired by id, otherwise by order.
    ///
    /// # Errors
    /// When a file cannot be read, is not UTF-8, is malformed or empty; when a record is left without a partner.
    pub fn read(truth: &Path, guess: &Path) -> Result<Self, Error> {
        let (truths, guesses) = (Side::read(truth)?, Side::read(guess)?);
        Self::pair(truths, guesses)
    }

    fn pair(truths: Side, guesses: Side) -> Result<Self, Error> {
        let paired = match (&truths.ids, &guesses.ids) {
            (Some(truth_ids), Some(guess_ids)) => {
                let by_id: BTreeMap<&String, &String> = guess_ids.iter().zip(&guesses.texts).collect();
                let known: BTreeSet<&String> = truth_ids.iter().collect();
                let unmatched = |name: &str, side| Error::Unmatched {
                    truths: truth_ids.len(),
                    guesses: guess_ids.len(),
                    name: printable(name),
                    side,
                };
                if let Some(id) = guess_ids.iter().find(|id| !known.contains(id)) {
                    return Err(unmatched(id, "guesses"));
                }
                let in_order = truth_ids
                    .iter()
                    .map(|id| by_id.get(id).map(|text| (*text).clone()).ok_or_else(|| unmatched(id, "originals")));
                in_order.collect::<Result<Vec<String>, Error>>()?
            }
            _ => guesses.texts,
        };
        super::check_paired(truths.texts.len(), paired.len())?;
        let mut labels: BTreeMap<String, u32> = BTreeMap::new();
        let mut next = 0;
        let documents = truths.documents.into_iter().map(|document| {
            let label = match document {
                Some(name) => *labels.entry(name).or_insert(next),
                None => next,
            };
            next += 1;
            label
        });
        Ok(Self { documents: documents.collect(), truths: truths.texts, guesses: paired })
    }
}

struct Side {
    texts: Vec<String>,
    ids: Option<Vec<String>>,
    documents: Vec<Option<String>>,
}

#[derive(serde::Deserialize)]
struct Line {
    text: String,
    id: Option<Id>,
    document: Option<Id>,
}

#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Id {
    Text(String),
    Number(serde_json::Number),
}

impl Id {
    fn into_string(self) -> String {
        match self {
            Id::Text(text) => text,
            Id::Number(number) => number.to_string(),
        }
    }
}

impl Side {
    fn read(path: &Path) -> Result<Self, data::Error> {
        let side = if path.is_dir() {
            Self::folder(path)?
        } else if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("jsonl") || e.eq_ignore_ascii_case("ndjson"))
        {
            Self::json_lines(path, &text_of(path)?)?
        } else {
            Self::unnamed(text_of(path)?.lines().map(str::to_owned).collect())
        };
        if side.texts.is_empty() {
            let why = "holds no text; give a .txt file (a record a line), a .jsonl file or a folder of .txt files";
            return Err(malformed(path, None, why));
        }
        Ok(side)
    }

    fn unnamed(texts: Vec<String>) -> Self {
        Self { documents: vec![None; texts.len()], ids: None, texts }
    }

    fn folder(path: &Path) -> Result<Self, data::Error> {
        let failed = |source| data::Error::Read { path: path.display().to_string(), source };
        let mut files = Vec::new();
        for entry in std::fs::read_dir(path).map_err(failed)? {
            let file = entry.map_err(failed)?.path();
            if file.extension().is_some_and(|e| e.eq_ignore_ascii_case("txt")) {
                files.push(file);
            }
        }
        files.sort();
        let texts = files.iter().map(|file| Ok(text_of(file)?.trim_end_matches(['\r', '\n']).to_owned()));
        let mut side = Self::unnamed(texts.collect::<Result<Vec<String>, data::Error>>()?);
        let name = |file: &std::path::PathBuf| file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        side.ids = Some(files.iter().map(name).collect());
        Ok(side)
    }

    fn json_lines(path: &Path, content: &str) -> Result<Self, data::Error> {
        let mut side = Self::unnamed(Vec::new());
        let mut ids = Vec::new();
        let mut seen = BTreeSet::new();
        for (at, line) in content.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let number = Some(at + 1);
            let record: Line = serde_json::from_str(line)
                .map_err(|e| malformed(path, number, &format!("not an object with a `text` string ({e})")))?;
            if let Some(id) = record.id.map(Id::into_string) {
                if !seen.insert(id.clone()) {
                    return Err(malformed(path, number, &format!("the id `{}` stands twice", printable(&id))));
                }
                ids.push(id);
            }
            side.texts.push(record.text);
            side.documents.push(record.document.map(Id::into_string));
            if !ids.is_empty() && ids.len() != side.texts.len() {
                return Err(malformed(path, number, "some records have an `id`, some have none; give all or none"));
            }
        }
        side.ids = (!ids.is_empty()).then_some(ids);
        Ok(side)
    }
}

fn text_of(path: &Path) -> Result<String, data::Error> {
    let bytes = std::fs::read(path).map_err(|source| data::Error::Read { path: path.display().to_string(), source })?;
    let text = String::from_utf8(bytes).map_err(|e| {
        let line = e.as_bytes()[..e.utf8_error().valid_up_to()].split(|&b| b == b'\n').count();
        malformed(path, Some(line), "is not UTF-8 text; convert the file")
    })?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

pub(super) fn malformed(path: &Path, line: Option<usize>, why: &str) -> data::Error {
    data::Error::Malformed { path: path.display().to_string(), line, why: why.to_owned() }
}

/// Names come from files that we did not write: they must not steer a terminal.
pub(super) fn printable(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(80).collect()
}

/// One metric on all pairs.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Scored {
    /// Metric id.
    pub metric: &'static str,
    /// Raised when the same input can give another score.
    pub version: u32,
    /// See [`Spec::unit`].
    pub unit: &'static str,
    /// Which way it points.
    pub direction: Direction,
    /// The choices that change the number.
    pub signature: String,
    /// Mean over the pairs that have a score, or the corpus score.
    pub value: Option<f64>,
    /// Lower end of the 95 % interval.
    pub low: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
    /// How the interval was made.
    pub method: Method,
    /// Pairs that have a score.
    pub n: usize,
    /// What the same guesses score against other originals; for ranks, chance.
    pub floor: Option<f64>,
    /// Mean of the 5 % of pairs that leak most.
    pub worst_5_percent: Option<f64>,
    /// Share of pairs above .8, for scores that end at 1.
    pub above_0_8: Option<f64>,
}

impl Scored {
    pub(super) fn new(spec: Spec, estimate: Option<Estimate>, n: usize, floor: Option<f64>) -> Self {
        let Spec { id, version, unit, direction, signature, .. } = spec;
        Self {
            metric: id,
            version,
            unit,
            direction,
            signature,
            value: estimate.map(|e| e.value),
            low: estimate.and_then(|e| e.low),
            high: estimate.and_then(|e| e.high),
            method: estimate.map_or(Method::None, |e| e.method),
            n,
            floor,
            worst_5_percent: None,
            above_0_8: None,
        }
    }

    /// Aggregates per-target scores.
    pub(super) fn of_targets(
        spec: Spec,
        scores: &[Option<f64>],
        floor: &[Option<f64>],
        design: &Design,
    ) -> Result<Self, Error> {
        let (table, floor) = (Table::one(scores)?, Table::one(floor)?);
        let once = design.once();
        let estimate = mean(&table, design, (spec.low, spec.high), &mut resampling());
        let worst = Tail::new(&table, 0.05, spec.direction).mean(&once);
        let above = if spec.high == 1.0 && spec.direction == Direction::HigherLeaksMore {
            table.above(0.8).mean(&once)
        } else {
            None
        };
        let mut scored = Self::new(spec, estimate, table.n(), floor.mean(&once));
        scored.worst_5_percent = worst;
        scored.above_0_8 = above;
        Ok(scored)
    }
}

/// Scores pairs with every text metric; a judge adds its cosine, the leak and the matching ranks.
///
/// All metrics share one stream of resamples and one of shuffles: the same pairs give the same intervals, and two
/// metrics that agree on every pair agree on everything.
///
/// # Errors
/// When the judge fails.
pub fn score_pairs(pairs: &Pairs, judge: Option<&dyn Encoder>) -> Result<Vec<Scored>, Error> {
    let truths: Vec<&str> = pairs.truths.iter().map(String::as_str).collect();
    let guesses: Vec<&str> = pairs.guesses.iter().map(String::as_str).collect();
    let design = Design::clustered(&pairs.documents, 1);
    let mut scored = Vec::new();
    if let Some(judge) = judge {
        let spec = similarity::Cosine::new("judge_cosine", judge).spec();
        let (truths, guesses) = (judge.encode(&truths)?, judge.encode(&guesses)?);
        judged(&truths, &guesses, &pairs.documents, &design, &spec, &mut scored)?;
    }
    for kind in MetricKind::examples() {
        if matches!(kind, MetricKind::JudgeCosine | MetricKind::VictimCosine) {
            continue;
        }
        let metric = kind.build(&Context::default())?;
        let spec = metric.spec();
        let scores = metric.score(&truths, &guesses)?;
        let mut shuffle = shuffling();
        let floor = shuffled_floor(&*metric, &truths, &guesses, &pairs.documents, &mut shuffle)?;
        scored.push(Scored::of_targets(spec, &scores, &floor, &design)?);
        if kind == MetricKind::SentenceBleu {
            let spec = corpus_spec("corpus_bleu", text::CORPUS_BLEU_SIGNATURE);
            scored.push(corpus(spec, &truths, &guesses, pairs, &design, Bleu::count, |counts| Bleu::corpus(counts)));
        }
        if kind == MetricKind::Chrf {
            let spec = corpus_spec("corpus_chrf", text::CORPUS_CHRF_SIGNATURE);
            scored.push(corpus(spec, &truths, &guesses, pairs, &design, Chrf::count, |counts| Chrf::corpus(counts)));
        }
    }
    Ok(scored)
}

pub(super) fn resampling() -> Stream {
    seed::stream(0, "score", "bootstrap")
}

pub(super) fn shuffling() -> Stream {
    seed::stream(0, "score", "floor")
}

fn corpus_spec(id: &'static str, signature: &str) -> Spec {
    Spec {
        id,
        version: 1,
        unit: "points",
        low: 0.0,
        high: 100.0,
        direction: Direction::HigherLeaksMore,
        signature: signature.to_owned(),
    }
}

/// A score of summed counts; resamples weigh the counts of each pair.
fn corpus<C: Copy>(
    spec: Spec,
    truths: &[&str],
    guesses: &[&str],
    pairs: &Pairs,
    design: &Design,
    count: fn(&str, &str) -> C,
    score: fn(&mut dyn Iterator<Item = (f64, C)>) -> Option<f64>,
) -> Scored {
    let counts: Vec<C> = truths.iter().zip(guesses).map(|(truth, guess)| count(truth, guess)).collect();
    let statistic = |weights: &super::statistics::Weights| {
        score(&mut weights.targets().iter().copied().zip(counts.iter().copied()))
    };
    let mut rng = resampling();
    let estimate = bootstrap(&statistic, design, &mut rng).map(|b| b.estimate(Some((spec.low, spec.high))));
    let met = other_pairings(&pairs.documents, &mut shuffling());
    let floor = score(&mut met.into_iter().map(|(guess, truth)| (1.0, count(truths[truth], guesses[guess]))));
    Scored::new(spec, estimate, counts.len(), floor)
}

/// Leak, cosine and ranks from a judge's vectors; `spec` is that of the cosine.
pub(super) fn judged(
    truths: &Embeddings,
    guesses: &Embeddings,
    documents: &[u32],
    design: &Design,
    spec: &Spec,
    scored: &mut Vec<Scored>,
) -> Result<(), Error> {
    let per_target = similarity::judge(truths, guesses, documents)?;

    let leak_spec = Spec { id: "judge_leak", unit: "share", low: 0.0, high: 1.0, ..spec.clone() };
    let mut rng = resampling();
    let PerTarget { cosine, floor } = &per_target;
    let n = cosine.iter().flatten().count();
    let leak = similarity::leak(std::slice::from_ref(&per_target), design, &mut rng)?.and_then(|result| result.leak);
    scored.push(Scored::new(leak_spec, leak, n, Some(0.0)));
    scored.push(Scored::of_targets(spec.clone(), cosine, floor, design)?);

    let ranks = identify::matched(guesses, truths)?;
    if let Some(chance) = identify::chance(ranks.len()) {
        let columns = [
            ("matched_top1", identify::top(&ranks, 1), chance.top1),
            ("matched_top10", identify::top(&ranks, 10), chance.top10),
            ("matched_mrr", identify::reciprocal(&ranks), chance.mrr),
        ];
        for (id, scores, chance) in columns {
            let signature = format!("{}|of:{}|ties:worst", spec.signature, ranks.len());
            let spec = Spec { id, unit: "share", low: 0.0, signature, ..spec.clone() };
            let table = Table::one(&scores)?;
            let estimate = mean(&table, design, (0.0, 1.0), &mut resampling());
            scored.push(Scored::new(spec, estimate, table.n(), Some(chance)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::{self, EncoderInfo};
    use crate::error::Exit;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for (name, content) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().expect("inside the folder")).expect("writable");
            #[expect(clippy::disallowed_methods, reason = "a fixture in a temporary folder")]
            std::fs::write(path, content).expect("writable");
        }
        folder
    }

    fn read(files: &[(&str, &str)], truth: &str, guess: &str) -> Result<Pairs, Error> {
        let folder = folder(files);
        Pairs::read(&folder.path().join(truth), &folder.path().join(guess))
    }

    #[test]
    fn lines_are_paired_by_order_and_blank_guesses_are_kept() {
        let pairs = read(&[("t.txt", "\u{feff}one\r\ntwo\nthree\n"), ("g.txt", "eins\n\ndrei")], "t.txt", "g.txt");
        let pairs = pairs.expect("three each");
        assert_eq!(pairs.truths, ["one", "two", "three"]);
        assert_eq!(pairs.guesses, ["eins", "", "drei"]);
        assert_eq!(pairs.documents, [0, 1, 2]);
    }

    #[test]
    fn ids_pair_where_both_sides_have_them() {
        let truth = "{\"id\": 1, \"text\": \"one\", \"document\": \"d\"}\n{\"id\": \"2\", \"text\": \"two\"}\n\n\
                     {\"id\": \"c\", \"text\": \"three\", \"document\": \"d\"}\n";
        let guess = "{\"id\": \"c\", \"text\": \"drei\"}\n{\"id\": 2, \"text\": \"zwei\"}\n{\"id\": \"1\", \"text\": \"eins\"}\n";
        let pairs = read(&[("t.jsonl", truth), ("g.jsonl", guess)], "t.jsonl", "g.jsonl").expect("three each");
        assert_eq!(pairs.guesses, ["eins", "zwei", "drei"]);
        assert_eq!(pairs.documents, [0, 1, 0]);
        let pairs = read(&[("t.jsonl", truth), ("g.txt", "a\nb\nc\n")], "t.jsonl", "g.txt").expect("three each");
        assert_eq!(pairs.guesses, ["a", "b", "c"]);
    }

    #[test]
    fn folders_pair_files_by_name() {
        let files = [("t/a.txt", "one\n"), ("t/b.txt", "two\nlines\n"), ("g/b.txt", "zwei"), ("g/a.txt", "eins")];
        let pairs = read(&files, "t", "g").expect("two each");
        assert_eq!(pairs.truths, ["one", "two\nlines"]);
        assert_eq!(pairs.guesses, ["eins", "zwei"]);
        let error = read(&files[..3], "t", "g").expect_err("a.txt has no guess");
        assert!(
            error.to_string().contains("2 originals but 1 guesses, and `a.txt` is only among the originals"),
            "{error}"
        );
    }

    #[test]
    fn what_cannot_be_paired_is_bad_input_and_says_why() {
        let cases = [
            (vec![("t.txt", "a\nb\n"), ("g.txt", "a\n")], "2 originals but 1 guesses"),
            (vec![("t.txt", "a\n"), ("g.txt", "")], "holds no text"),
            (vec![("t.txt", "a\n")], "cannot read"),
        ];
        for (files, message) in cases {
            let error = read(&files, "t.txt", "g.txt").expect_err(message);
            assert!(error.to_string().contains(message), "{error}");
            assert_eq!(error.exit(), Exit::Input);
        }
        let good = ("t.jsonl", "{\"id\": \"a\", \"text\": \"x\"}\n{\"id\": \"b\", \"text\": \"y\"}\n");
        for (guess, message) in [
            ("{\"id\": \"a\", \"text\": \"x\"}\n{\"id\": \"a\", \"text\": \"y\"}\n", "line 2: the id `a` stands twice"),
            (
                "{\"id\": \"a\", \"text\": \"x\"}\n{\"id\": \"\\u001b[31mz\", \"text\": \"y\"}\n",
                "`[31mz` is only among",
            ),
            ("{\"id\": \"a\", \"text\": \"x\"}\n{\"text\": \"y\"}\n", "line 2: some records have an `id`"),
            ("{\"id\": \"a\"}\n", "line 1: not an object with a `text` string"),
        ] {
            let error = read(&[good, ("g.jsonl", guess)], "t.jsonl", "g.jsonl").expect_err(message);
            assert!(error.to_string().contains(message), "{error}");
        }
    }

    /// Encodes a text by the bytes it holds.
    struct Bytes(EncoderInfo);

    impl Encoder for Bytes {
        fn info(&self) -> &EncoderInfo {
            &self.0
        }

        fn encode(&self, texts: &[&str]) -> Result<Embeddings, encode::Error> {
            let mut values = vec![0.0; 128 * texts.len()];
            for (row, text) in values.chunks_exact_mut(128).zip(texts) {
                text.bytes().for_each(|b| row[usize::from(b % 128)] += 1.0);
            }
            Embeddings::new(values, 128)
        }
    }

    fn pairs(guess: impl Fn(usize) -> String) -> Pairs {
        Pairs {
            truths: (0..40).map(|i| format!("case {i} of {} files", i * i)).collect(),
            guesses: (0..40).map(guess).collect(),
            documents: (0..40).collect(),
        }
    }

    #[test]
    fn every_metric_stands_with_interval_and_floor() {
        let judge = Bytes(EncoderInfo {
            name: "bytes".into(),
            dim: 128,
            max_len_tokens: 1000,
            fingerprint: "00".into(),
            toy: true,
        });
        let pairs = pairs(|i| format!("case {} of {} files", i - i % 2, i * i));
        let scored = score_pairs(&pairs, Some(&judge)).expect("paired");
        let ids: Vec<&str> = scored.iter().map(|s| s.metric).collect();
        assert_eq!(
            ids.join(" "),
            "judge_leak judge_cosine matched_top1 matched_top10 matched_mrr token_f1 token_set_f1 content_word_f1 rouge_1 \
             rouge_l sentence_bleu corpus_bleu chrf corpus_chrf exact_match word_edit_distance"
        );
        for s in &scored {
            let (value, low, high) = (s.value.expect(s.metric), s.low.expect(s.metric), s.high.expect(s.metric));
            assert!(low <= value && value <= high && low < high, "{} {low} {value} {high}", s.metric);
            let floor = s.floor.expect("other originals");
            let better = if s.direction == Direction::LowerLeaksMore { value < floor } else { value > floor };
            assert!(better, "{} {value} against its floor {floor}", s.metric);
            assert_eq!(s.n, 40);
        }
        assert_eq!(scored, score_pairs(&pairs, Some(&judge)).expect("paired"));
        assert_ne!(scored[10].signature, scored[11].signature);
        // ROUGE-1 and token F1 are one number under two names, interval and floor included.
        let same = |row: &Scored| (row.value, row.low, row.high, row.floor);
        assert_eq!(same(&scored[5]), same(&scored[8]));
    }

    #[test]
    fn a_blind_guess_stands_on_its_floor() {
        for s in score_pairs(&pairs(|_| "case 5 of 25 files".into()), None).expect("paired") {
            let (value, floor) = (s.value.expect(s.metric), s.floor.expect("other originals"));
            // Every original is met ten times, so the floor is the score itself.
            assert!((value - floor).abs() < 1e-9, "{} {value} {floor}", s.metric);
        }
    }

    #[test]
    fn one_pair_has_values_but_no_interval_and_no_floor() {
        let pairs = Pairs { truths: vec!["one word".into()], guesses: vec!["one".into()], documents: vec![0] };
        for s in score_pairs(&pairs, None).expect("paired") {
            assert_eq!((s.n, s.floor), (1, None), "{}", s.metric);
            assert!(s.value.is_some() || s.metric == "content_word_f1", "{}", s.metric);
            assert!(s.low.is_none() || s.method == Method::ClopperPearson, "{}", s.metric);
        }
    }
}
