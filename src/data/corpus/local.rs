//! One's own records by path: `.txt`, `.jsonl` or a folder.
//!
//! | path | a record is | document | rules |
//! |---|---|---|---|
//! | `x.txt` | a line that is not blank | the line | length only |
//! | `x.jsonl` | a line's `text` | its `document`, else its `id` | length only |
//! | `x.parquet`, a folder of them | a picture of a row with `image` | its `id`, else the row | see `tables` |
//! | `x.parquet`, a folder of them | a row's `text` | its `id`, else the row | length only |
//! | a folder | a sentence of a `.txt` or `.md` file in it or below it | the file | all |
//! | a folder | a picture in it or below it | the picture, unless a table says otherwise | see `photos` |
//!
//! A folder is read for its pictures when it holds at least as many of them as of text files.
//! A line of JSONL may also have `id`, `topic`, `time` and `owner` (kept as a hash); other fields are ignored. The
//! first sub-folder is the topic. Hidden files and links are passed over.

use super::{Corpus, Draft, Positions, photos, pseudonym, tables};
use crate::data::clean::{Keep, Rule, collapse, paragraphs, sentences};
use crate::data::{Error, Record, columns};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// The longest line or file of a folder that is read; anything longer is not prose.
const MAX_LINE_BYTES: usize = 1 << 20;
const MAX_FILE_BYTES: usize = 64 << 20;

/// Reads the corpus at `path`.
///
/// # Errors
/// When nothing is there, it is none of these kinds, a line is too long, not UTF-8, holds a NUL byte or is not the
/// JSON expected (file and line are named), an id repeats, or nothing is left after the rules.
pub fn read(path: &Path, keep: &Keep) -> Result<Corpus, Error> {
    let metadata = std::fs::metadata(path).map_err(|source| unreadable(path, source))?;
    if metadata.is_dir() {
        return folder(path, keep);
    }
    let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase());
    let sentences = match extension.as_deref() {
        Some("txt") => lines(path, plain_record)?,
        Some("jsonl" | "ndjson") => lines(path, json_record)?,
        Some("parquet") => return table(path.display().to_string(), &[path.to_path_buf()], keep),
        _ => {
            return Err(malformed(
                path,
                None,
                "not a corpus; a .txt, a .jsonl or a .parquet file, or a folder, is expected",
            ));
        }
    };
    Corpus::build(by_line(path.display().to_string(), 1, sentences), keep)
}

/// Texts that the owner cut: they are dropped for their length alone.
fn by_line(name: String, files: usize, sentences: Vec<Record>) -> Draft {
    Draft { name, unit: "line", files, rules: &Rule::LENGTH, sentences }
}

/// The pictures or else the texts of the parts of a Parquet table.
fn table(name: String, parts: &[PathBuf], keep: &Keep) -> Result<Corpus, Error> {
    if let Some(pictures) = tables::read(name.clone(), parts, keep)? {
        return Ok(pictures);
    }
    let texts: Vec<Vec<Record>> = parts.iter().map(|part| parquet(part)).collect::<Result<_, _>>()?;
    Corpus::build(by_line(name, parts.len(), texts.concat()), keep)
}

/// Every record of a `.txt`, `.jsonl` or `.parquet` file in order, before any rule.
///
/// # Errors
/// As [`read`]; also for a folder, whose sentences are cut by rules.
pub fn every_record(path: &Path) -> Result<Vec<Record>, Error> {
    let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase());
    match extension.as_deref() {
        Some("txt") => lines(path, plain_record),
        Some("jsonl" | "ndjson") => lines(path, json_record),
        Some("parquet") => parquet(path),
        _ => Err(malformed(path, None, "a .txt, a .jsonl or a .parquet file with a record a line is expected")),
    }
}

/// The `text` column of a Parquet file, with its `id` where there is one.
fn parquet(path: &Path) -> Result<Vec<Record>, Error> {
    let bytes = std::fs::read(path).map_err(|source| unreadable(path, source))?;
    let rows = columns::read_texts(bytes.into()).map_err(|why| malformed(path, None, why))?;
    let stem = path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
    let named = |(number, (id, text)): (usize, (Option<String>, String))| {
        plain_record(id.unwrap_or_else(|| format!("{stem}#{}", number + 1)), &text)
            .map_err(|why| malformed(path, Some(number + 1), why))
    };
    rows.into_iter().enumerate().map(named).collect()
}

pub(super) fn unreadable(path: &Path, source: io::Error) -> Error {
    Error::Read { path: path.display().to_string(), source }
}

pub(super) fn malformed(path: &Path, line: Option<usize>, why: impl Into<String>) -> Error {
    Error::Malformed { path: path.display().to_string(), line, why: why.into() }
}

/// Text that the encoders can be given, or why not.
fn checked(bytes: Vec<u8>) -> Result<String, String> {
    let text = String::from_utf8(bytes)
        .map_err(|e| format!("not UTF-8 from byte {} on; convert the file", e.utf8_error().valid_up_to()))?;
    match text.find('\0') {
        Some(at) => Err(format!("a NUL at byte {at}; this is not a text file")),
        None => Ok(text),
    }
}

/// Every line that is not blank, given to `record` with the id `STEM#NUMBER` (from 1, as editors count).
fn lines(path: &Path, record: fn(String, &str) -> Result<Record, String>) -> Result<Vec<Record>, Error> {
    let mut reader = BufReader::new(File::open(path).map_err(|source| unreadable(path, source))?);
    let stem = path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
    let mut found = Vec::new();
    for number in 1.. {
        let mut line = Vec::new();
        let limit = MAX_LINE_BYTES as u64 + 2;
        let read =
            reader.by_ref().take(limit).read_until(b'\n', &mut line).map_err(|source| unreadable(path, source))?;
        if read == 0 {
            break;
        }
        while line.last().is_some_and(|b| matches!(b, b'\n' | b'\r')) {
            line.pop();
        }
        if line.len() > MAX_LINE_BYTES {
            let why = format!("longer than {MAX_LINE_BYTES} bytes; one record a line is expected");
            return Err(malformed(path, Some(number), why));
        }
        if number == 1 && line.starts_with(b"\xef\xbb\xbf") {
            line.drain(..3);
        }
        let line = checked(line).map_err(|why| malformed(path, Some(number), why))?;
        if !line.trim().is_empty() {
            let id = format!("{stem}#{number}");
            found.push(record(id, &line).map_err(|why| malformed(path, Some(number), why))?);
        }
    }
    Ok(found)
}

#[expect(clippy::unnecessary_wraps, reason = "the same shape as `json_record`")]
fn plain_record(id: String, line: &str) -> Result<Record, String> {
    Ok(Record { document: id.clone(), id, owner: None, topic: None, time: None, text: collapse(line), picture: None })
}

/// A string, or a number taken as one.
#[derive(serde::Deserialize)]
#[serde(untagged)]
pub(super) enum Label {
    Text(String),
    Number(serde_json::Number),
}

impl Label {
    pub(super) fn into_text(self) -> String {
        match self {
            Label::Text(text) => text,
            Label::Number(number) => number.to_string(),
        }
    }
}

#[derive(serde::Deserialize)]
struct Line {
    text: String,
    id: Option<Label>,
    document: Option<Label>,
    topic: Option<Label>,
    time: Option<Label>,
    owner: Option<Label>,
}

fn json_record(id: String, line: &str) -> Result<Record, String> {
    // The position inside the line is the column; serde's own "line 1" would point at the wrong line of the file.
    let line: Line = serde_json::from_str(line).map_err(|e| {
        let what = e.to_string();
        let what = what.split(" at line ").next().unwrap_or_default().to_owned();
        format!("{what} (column {}); an object with a string `text` is expected", e.column())
    })?;
    let id = line.id.map_or(id, Label::into_text);
    if id.trim().is_empty() {
        return Err("`id` is empty; leave it out or give each record its own".to_owned());
    }
    Ok(Record {
        document: line.document.map_or_else(|| id.clone(), Label::into_text),
        id,
        owner: line.owner.map(|owner| pseudonym(&owner.into_text())),
        topic: line.topic.map(Label::into_text),
        time: line.time.map(Label::into_text),
        text: collapse(&line.text),
        picture: None,
    })
}

/// The pictures or the sentences below `root`, whichever has more files.
fn folder(root: &Path, keep: &Keep) -> Result<Corpus, Error> {
    let mut files = Files::default();
    walk(root, &mut Vec::new(), &mut files)?;
    let name = root.display().to_string();
    if files.texts.is_empty() && files.pictures.is_empty() {
        let parts = tables::parts(root)?;
        if !parts.is_empty() {
            return table(name, &parts, keep);
        }
        return Err(Error::Empty { name, why: "no .txt or .md file and no picture lies in it or below it".to_owned() });
    }
    if files.pictures.len() >= files.texts.len() {
        return photos::read(root, &files.pictures, keep);
    }
    let draft = Draft {
        name,
        unit: "sentence",
        files: files.texts.len(),
        rules: &Rule::ALL,
        sentences: cut(root, &files.texts)?,
    };
    Corpus::build(draft, keep)
}

/// The pictures of the folder at `root`, each with its path below it; none where texts outnumber them.
///
/// # Errors
/// When a folder cannot be read, or a name is not UTF-8.
pub fn picture_files(root: &Path) -> Result<Vec<(String, PathBuf)>, Error> {
    let mut files = Files::default();
    walk(root, &mut Vec::new(), &mut files)?;
    if files.pictures.len() < files.texts.len() {
        return Ok(Vec::new());
    }
    Ok(files.pictures.iter().map(|names| (names.join("/"), below(root, names))).collect())
}

/// Where the file of these names lies.
pub(super) fn below(root: &Path, names: &[String]) -> PathBuf {
    names.iter().fold(root.to_path_buf(), |path: PathBuf, name| path.join(name))
}

/// The sentences of text files below `root`.
fn cut(root: &Path, files: &[Vec<String>]) -> Result<Vec<Record>, Error> {
    let mut positions = Positions::default();
    let mut found = Vec::new();
    for names in files {
        let path = below(root, names);
        let mut bytes = Vec::new();
        let file = File::open(&path).map_err(|source| unreadable(&path, source))?;
        file.take(MAX_FILE_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(|source| unreadable(&path, source))?;
        if bytes.len() > MAX_FILE_BYTES {
            return Err(malformed(&path, None, format!("larger than {MAX_FILE_BYTES} bytes; split it into documents")));
        }
        let text = checked(bytes).map_err(|why| malformed(&path, None, why))?;
        let document = names.join("/");
        for paragraph in paragraphs(text.trim_start_matches('\u{feff}')) {
            for sentence in sentences(&paragraph) {
                found.push(Record {
                    id: positions.next(&document),
                    document: document.clone(),
                    owner: None,
                    topic: (names.len() > 1).then(|| names[0].clone()),
                    time: None,
                    text: sentence.to_owned(),
                    picture: None,
                });
            }
        }
    }
    Ok(found)
}

/// Files as lists of names below the root, in name order.
#[derive(Default)]
struct Files {
    texts: Vec<Vec<String>>,
    pictures: Vec<Vec<String>>,
}

/// Collects the texts and pictures below `root/within`.
fn walk(root: &Path, within: &mut Vec<String>, files: &mut Files) -> Result<(), Error> {
    let here = below(root, within);
    let fail = |source| unreadable(&here, source);
    let mut entries = std::fs::read_dir(&here).map_err(fail)?.collect::<Result<Vec<_>, _>>().map_err(fail)?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let kind = entry.file_type().map_err(fail)?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else {
            return Err(malformed(
                &entry.path(),
                None,
                "its name is not UTF-8, but names become record ids; rename it",
            ));
        };
        if name.starts_with('.') {
            continue;
        }
        within.push(name.to_owned());
        let extension = Path::new(name).extension().map(|e| e.to_string_lossy().to_lowercase());
        match extension.as_deref() {
            _ if kind.is_dir() => walk(root, within, files)?,
            Some("txt" | "md") if kind.is_file() => files.texts.push(within.clone()),
            Some(other) if kind.is_file() && photos::EXTENSIONS.contains(&other) => files.pictures.push(within.clone()),
            _ => {}
        }
        within.pop();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// A scratch folder with one file of the given bytes.
    fn file(name: &str, bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let path = folder.path().join(name);
        put(&path, bytes);
        (folder, path)
    }

    fn put(path: &Path, bytes: &[u8]) {
        std::fs::create_dir_all(path.parent().expect("inside the scratch folder")).expect("scratch folders");
        File::create(path).and_then(|mut file| file.write_all(bytes)).expect("scratch file");
    }

    fn keep() -> Keep {
        Keep { min_chars: 1, max_chars: 100, min_words: 1, ..Keep::default() }
    }

    fn refusal(name: &str, bytes: &[u8]) -> String {
        let (_folder, path) = file(name, bytes);
        let error = read(&path, &keep()).expect_err("refused").to_string();
        error.replace(&*path.display().to_string(), name)
    }

    #[test]
    fn a_line_is_a_record_named_by_its_number() {
        let (_folder, path) = file("notes.txt", b"\xef\xbb\xbfOne  two\r\n\n  \t\nSee http://x.test or {this}\nlast");
        let corpus = read(&path, &keep()).expect("three lines");
        let got: Vec<(&str, &str)> = corpus.records.iter().map(|r| (r.id.as_str(), r.text.as_str())).collect();
        assert_eq!(got, [("notes#1", "One two"), ("notes#4", "See http://x.test or {this}"), ("notes#5", "last")]);
        assert_eq!(corpus.records[1].document, "notes#4");
        assert_eq!(corpus.unit, "line");
    }

    #[test]
    fn jsonl_keeps_labels_and_hashes_the_owner() {
        let (_folder, path) = file(
            "mine.jsonl",
            b"{\"text\":\"a b\",\"id\":7,\"document\":\"d\",\"topic\":\"t\",\"time\":\"2024-01-02\",\"owner\":\"Ann\",\"more\":1}\n{\"text\":\"c\\nd\"}\n",
        );
        let corpus = read(&path, &keep()).expect("two lines");
        assert_eq!(
            corpus.records[0],
            Record {
                id: "7".into(),
                document: "d".into(),
                owner: Some(pseudonym("Ann")),
                topic: Some("t".into()),
                time: Some("2024-01-02".into()),
                text: "a b".into(),
                picture: None,
            }
        );
        let second = &corpus.records[1];
        assert_eq!((second.id.as_str(), second.document.as_str(), second.text.as_str()), ("mine#2", "mine#2", "c d"));
    }

    #[test]
    fn a_folder_is_cut_into_sentences_by_file_and_topic() {
        let (folder, _) = file("b/tech/two.TXT", b"The ball rolled away. It came back.\n\nNobody saw it.");
        put(&folder.path().join("b/top.md"), b"A first sentence.");
        put(&folder.path().join("b/tech/deep/three.txt"), b"A deeper sentence.");
        put(&folder.path().join("b/.hidden/x.txt"), b"Not this one.");
        put(&folder.path().join("b/picture.png"), b"\0\0");
        let corpus = read(&folder.path().join("b"), &keep()).expect("five sentences");
        let got: Vec<(&str, Option<&str>)> =
            corpus.records.iter().map(|r| (r.id.as_str(), r.topic.as_deref())).collect();
        assert_eq!(
            got,
            [
                ("tech/deep/three.txt#0", Some("tech")),
                ("tech/two.TXT#0", Some("tech")),
                ("tech/two.TXT#1", Some("tech")),
                ("tech/two.TXT#2", Some("tech")),
                ("top.md#0", None),
            ]
        );
        assert_eq!(corpus.stats.files, 3);
    }

    #[test]
    fn a_bad_line_is_named_with_its_remedy() {
        assert_eq!(
            refusal("x.txt", b"ok\nbad \xff byte\n"),
            "`x.txt` line 2: not UTF-8 from byte 4 on; convert the file"
        );
        assert_eq!(refusal("x.txt", b"ok\n\na\0b\n"), "`x.txt` line 3: a NUL at byte 1; this is not a text file");
        assert_eq!(
            refusal("x.jsonl", b"{\"text\":\"a\"}\n{\"txt\":\"b\"}\n"),
            "`x.jsonl` line 2: missing field `text` (column 11); an object with a string `text` is expected"
        );
        assert_eq!(
            refusal("x.jsonl", b"{\"text\":\"a\"}{"),
            "`x.jsonl` line 1: trailing characters (column 13); an object with a string `text` is expected"
        );
        assert_eq!(
            refusal("x.jsonl", b"{\"text\":\"a\",\"id\":\" \"}"),
            "`x.jsonl` line 1: `id` is empty; leave it out or give each record its own"
        );
        assert_eq!(
            refusal("x.jsonl", b"{\"text\":\"a\",\"id\":1}\n{\"text\":\"b\",\"id\":\"1\"}"),
            "`x.jsonl`: two records have the id `1`; ids must be unique"
        );
        let long = [b"ok\n".to_vec(), vec![b'a'; MAX_LINE_BYTES + 1]].concat();
        assert_eq!(refusal("x.txt", &long), "`x.txt` line 2: longer than 1048576 bytes; one record a line is expected");
    }

    #[test]
    fn the_longest_line_that_is_allowed_is_read() {
        for end in ["", "\n", "\r\n"] {
            let (_folder, path) =
                file("x.txt", &[vec![b'a'; MAX_LINE_BYTES], end.as_bytes().to_vec(), b"b".to_vec()].concat());
            let wide = Keep { max_chars: usize::MAX, ..keep() };
            let corpus = read(&path, &wide);
            assert_eq!(corpus.is_ok(), !end.is_empty(), "{end:?}");
            assert!(corpus.is_err() || corpus.is_ok_and(|c| c.records.len() == 2));
        }
    }

    #[test]
    fn what_is_no_corpus_is_refused() {
        assert!(matches!(read(Path::new("/no/such/file.txt"), &keep()), Err(Error::Read { .. })));
        assert!(refusal("x.csv", b"a,b").contains("a .txt, a .jsonl or a .parquet file"));
        assert!(refusal("x.txt", b"\n \n").contains("it holds no text"));
        let empty = tempfile::tempdir().expect("a scratch folder");
        let error = read(empty.path(), &keep()).expect_err("no file");
        assert!(error.to_string().ends_with("no .txt or .md file and no picture lies in it or below it"), "{error}");
    }
}
