//! One's own pictures: a folder, with or without a table of what they show.
//!
//! | in the folder | topic | document, owner, text |
//! |---|---|---|
//! | pictures | | each its own document |
//! | folders of pictures | first folder | each its own document |
//! | `metadata.csv` or `metadata.jsonl` beside them | its `label` or `topic`, else first folder | its `document`, `owner` (kept as a hash), `text` |
//!
//! A table has a row with `file_name` (the path below the folder, with `/`) for each picture, and any of the other
//! columns, `time` too; pictures without a row are left out. Files that are no pictures are counted, the first of them
//! named.

use super::local::{Label, below, malformed, unreadable};
use super::pictures::{self, Draft, Source};
use super::{Corpus, pseudonym};
use crate::data::clean::{Keep, collapse};
use crate::data::{Error, Fit, Record};
use std::collections::BTreeMap;
use std::path::Path;

/// Files with these extensions are taken for pictures; what they are is told by their content.
pub(super) const EXTENSIONS: [&str; 8] = ["png", "jpg", "jpeg", "webp", "gif", "bmp", "tif", "tiff"];

/// Less is no picture that anyone could recognise.
pub(super) const MIN_SIDE_PX: u32 = 8;

/// What a table says of one picture.
#[derive(Default)]
struct Row {
    text: Option<String>,
    topic: Option<String>,
    document: Option<String>,
    owner: Option<String>,
    time: Option<String>,
}

/// Rows by file name.
type Rows = BTreeMap<String, Row>;

/// The pictures below `root`, whose paths are `files`.
pub(super) fn read(root: &Path, files: &[Vec<String>], keep: &Keep) -> Result<Corpus, Error> {
    let mut rows = table(root)?;
    let mut unlisted = 0;
    let mut found = Vec::with_capacity(files.len());
    for names in files {
        let id = names.join("/");
        let row = match &mut rows {
            None => Some(Row::default()),
            Some((_, rows)) => rows.remove(&id),
        };
        let Some(row) = row else {
            unlisted += 1;
            continue;
        };
        let record = Record {
            document: row.document.unwrap_or_else(|| id.clone()),
            id,
            owner: row.owner.map(|owner| pseudonym(&owner)),
            topic: row.topic.or_else(|| (names.len() > 1).then(|| names[0].clone())),
            time: row.time,
            text: row.text.map(|text| collapse(&text)).unwrap_or_default(),
            picture: None,
        };
        found.push((record, Source::File(below(root, names))));
    }
    if let Some((path, rows)) = &rows
        && let Some(missing) = rows.keys().next()
    {
        let why = format!("names `{}`, and no such picture lies in the folder; remove the row", missing.escape_debug());
        return Err(malformed(path, None, why));
    }
    let dropped = if rows.is_some() { BTreeMap::from([("unlisted".to_owned(), unlisted)]) } else { BTreeMap::new() };
    let draft = Draft {
        name: root.display().to_string(),
        files: files.len(),
        fit: Fit::Crop,
        min_side_px: MIN_SIDE_PX,
        dropped,
        found,
    };
    pictures::build(draft, keep)
}

/// The table of a folder, if it has one.
fn table(root: &Path) -> Result<Option<(std::path::PathBuf, Rows)>, Error> {
    for (name, read) in
        [("metadata.csv", csv_rows as fn(&Path, &str) -> Result<Rows, Error>), ("metadata.jsonl", json_rows)]
    {
        let path = root.join(name);
        if path.is_file() {
            let text = std::fs::read_to_string(&path).map_err(|source| unreadable(&path, source))?;
            let rows = read(&path, text.trim_start_matches('\u{feff}'))?;
            return Ok(Some((path, rows)));
        }
    }
    Ok(None)
}

fn insert(rows: &mut Rows, path: &Path, line: usize, file: String, row: Row) -> Result<(), Error> {
    if rows.contains_key(&file) {
        return Err(malformed(path, Some(line), format!("`{}` stands twice", file.escape_debug())));
    }
    rows.insert(file, row);
    Ok(())
}

fn csv_rows(path: &Path, text: &str) -> Result<Rows, Error> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(text.as_bytes());
    let broken = |e: &csv::Error| {
        let line = e.position().map(|position| position.line() as usize);
        malformed(path, line, format!("not CSV with one header ({e}); export it again"))
    };
    let header = reader.headers().map_err(|e| broken(&e))?.clone();
    let column = |names: &[&str]| header.iter().position(|name| names.contains(&name));
    let Some(file) = column(&["file_name"]) else {
        return Err(malformed(path, Some(1), "no column `file_name`; name the columns in the first line"));
    };
    let columns =
        [column(&["text"]), column(&["label", "topic"]), column(&["document"]), column(&["owner"]), column(&["time"])];
    let mut rows = Rows::new();
    for record in reader.records() {
        let record = record.map_err(|e| broken(&e))?;
        let line = record.position().map_or(0, |position| position.line() as usize);
        let cell =
            |at: Option<usize>| at.and_then(|at| record.get(at)).filter(|cell| !cell.is_empty()).map(str::to_owned);
        let [text, topic, document, owner, time] = columns.map(cell);
        let file = record.get(file).unwrap_or_default().to_owned();
        insert(&mut rows, path, line, file, Row { text, topic, document, owner, time })?;
    }
    Ok(rows)
}

#[derive(serde::Deserialize)]
struct JsonRow {
    file_name: String,
    text: Option<String>,
    label: Option<Label>,
    topic: Option<Label>,
    document: Option<Label>,
    owner: Option<Label>,
    time: Option<Label>,
}

fn json_rows(path: &Path, text: &str) -> Result<Rows, Error> {
    let mut rows = Rows::new();
    for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let number = at + 1;
        let row: JsonRow = serde_json::from_str(line).map_err(|e| {
            malformed(path, Some(number), format!("not an object with a string `file_name` (column {})", e.column()))
        })?;
        let text_of = |label: Option<Label>| label.map(Label::into_text);
        let (document, owner, time) = (text_of(row.document), text_of(row.owner), text_of(row.time));
        let topic = text_of(row.label.or(row.topic));
        insert(&mut rows, path, number, row.file_name, Row { text: row.text, topic, document, owner, time })?;
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::super::local;
    use super::super::pictures::tests::png;
    use super::*;
    use std::fs::File;
    use std::io::Write;

    fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a scratch folder");
        for (name, bytes) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().expect("inside the scratch folder")).expect("scratch folders");
            File::create(path).and_then(|mut file| file.write_all(bytes)).expect("scratch file");
        }
        folder
    }

    fn keep() -> Keep {
        Keep { side_px: 16, ..Keep::default() }
    }

    #[test]
    fn folders_of_pictures_are_topics_and_unreadable_files_are_named() {
        let (a, b, c) = (png(20, 30, [200, 0, 0]), png(20, 30, [0, 200, 0]), png(64, 9, [0, 0, 200]));
        let folder = folder(&[
            ("ball/1.png", &a),
            ("ball/deep/2.JPG", &b),
            ("racket/3.png", &c),
            ("racket/again.png", &a),
            ("racket/cut.png", &a[..40]),
            ("notes.txt", b"A note."),
            (".thumbs/4.png", &c),
        ]);
        let corpus = local::read(folder.path(), &keep()).expect("three pictures");
        let got: Vec<(&str, Option<&str>)> =
            corpus.records.iter().map(|r| (r.id.as_str(), r.topic.as_deref())).collect();
        assert_eq!(
            got,
            [("ball/1.png", Some("ball")), ("ball/deep/2.JPG", Some("ball")), ("racket/3.png", Some("racket"))]
        );
        assert_eq!(corpus.records[0].document, "ball/1.png");
        assert_eq!((corpus.stats.files, corpus.stats.duplicates, corpus.stats.dropped["unreadable"]), (5, 1, 1));
        assert!(
            corpus.stats.unreadable[0]
                .ends_with("cut.png`: a PNG file that ends before its picture does; copy it again")
        );
        let nothing = self::folder(&[("a.png", b"hello"), ("b.jpg", b"")]);
        let error = local::read(nothing.path(), &keep()).expect_err("no picture");
        assert!(error.to_string().contains("not a picture"), "{error}");
    }

    #[test]
    fn a_table_names_what_pictures_show() {
        let (a, b) = (png(20, 30, [200, 0, 0]), png(20, 30, [0, 200, 0]));
        let csv =
            "\u{feff}file_name,label,owner,text,document\nx/1.png,ball,Ann,\"a ball,  red\",holiday\n2.png,007,,,\n";
        let json = "{\"file_name\":\"x/1.png\",\"label\":\"ball\",\"owner\":\"Ann\",\"text\":\"a ball, red\",\"document\":\"holiday\"}\n\n\
                    {\"file_name\":\"2.png\",\"topic\":\"007\",\"more\":1}\n";
        for (name, table) in [("metadata.csv", csv), ("metadata.jsonl", json)] {
            let folder = folder(&[("x/1.png", &a), ("2.png", &b), ("3.png", &b), (name, table.as_bytes())]);
            let corpus = local::read(folder.path(), &keep()).expect("two pictures");
            let by_id = |id: &str| corpus.records.iter().find(|r| r.id == id).expect("listed");
            let first = by_id("x/1.png");
            assert_eq!((first.topic.as_deref(), first.text.as_str()), (Some("ball"), "a ball, red"), "{name}");
            assert_eq!((first.document.as_str(), &first.owner), ("holiday", &Some(pseudonym("Ann"))));
            let second = by_id("2.png");
            assert_eq!(
                (second.topic.as_deref(), second.document.as_str(), second.owner.as_ref()),
                (Some("007"), "2.png", None)
            );
            assert_eq!((corpus.records.len(), corpus.stats.dropped["unlisted"]), (2, 1));
        }
    }

    #[test]
    fn a_bad_table_is_named_with_its_remedy() {
        let a = png(20, 30, [200, 0, 0]);
        for (name, table, said) in [
            ("metadata.csv", "name\n1.png\n", "line 1: no column `file_name`"),
            ("metadata.csv", "file_name\n1.png\n1.png\n", "line 3: `1.png` stands twice"),
            ("metadata.csv", "file_name,text\n1.png\n", "line 2: not CSV with one header"),
            ("metadata.csv", "file_name\n1.png\n../up.png\n", "names `../up.png`, and no such picture"),
            (
                "metadata.jsonl",
                "{\"file_name\":\"1.png\"}\n{\"file\":1}\n",
                "line 2: not an object with a string `file_name`",
            ),
        ] {
            let folder = folder(&[("1.png", &a), (name, table.as_bytes())]);
            let error = local::read(folder.path(), &keep()).expect_err(table).to_string();
            assert!(error.contains(name) && error.contains(said), "{error}");
        }
    }
}
