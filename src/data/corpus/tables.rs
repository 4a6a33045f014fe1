//! Pictures in Parquet tables, as dataset hubs store them: a file, or a folder of parts.
//!
//! | column | what it gives |
//! |---|---|
//! | `image` or `img` | the encoded picture, alone or as a struct of `bytes` and `path` |
//! | `label`, `labels` or `topic` | the topic; a number is named by the table's own list of classes, where it has one |
//! | `text` or `caption` | the text |
//! | `id` | the id, else `PART#ROW`; it is the document too |

use super::local::{malformed, unreadable};
use super::pictures::{self, Draft, Source};
use super::{Corpus, photos};
use crate::data::clean::{Keep, collapse};
use crate::data::columns::{self, Encoded};
use crate::data::{Error, Fit, Record};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The pictures of `parts` in order; nothing where the first part has no column of pictures.
///
/// # Errors
/// When a part cannot be read, is no Parquet table, or has no pictures while the first has.
pub(super) fn read(name: String, parts: &[PathBuf], keep: &Keep) -> Result<Option<Corpus>, Error> {
    let mut rows: Vec<(String, Encoded)> = Vec::new();
    for (at, part) in parts.iter().enumerate() {
        let bytes = std::fs::read(part).map_err(|source| unreadable(part, source))?;
        let found = columns::read_pictures(bytes.into()).map_err(|why| malformed(part, None, why))?;
        let Some(found) = found else {
            if at == 0 {
                return Ok(None);
            }
            return Err(malformed(part, None, "it has no column `image`, which the parts before it have"));
        };
        let stem = part.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
        rows.extend(found.into_iter().enumerate().map(|(row, picture)| (format!("{stem}#{}", row + 1), picture)));
    }
    let found = rows.iter().map(|(place, picture)| {
        let id = picture.id.clone().unwrap_or_else(|| place.clone());
        let record = Record {
            document: id.clone(),
            id,
            owner: None,
            topic: picture.label.clone(),
            time: None,
            text: picture.text.as_deref().map(collapse).unwrap_or_default(),
            picture: None,
        };
        (record, Source::Bytes(&picture.bytes))
    });
    let draft = Draft {
        name,
        files: parts.len(),
        fit: Fit::Crop,
        min_side_px: photos::MIN_SIDE_PX,
        dropped: BTreeMap::new(),
        found: found.collect(),
    };
    pictures::build(draft, keep).map(Some)
}

/// The Parquet files of a folder itself, by name; parts of one table are named so that they come in order.
pub(super) fn parts(root: &Path) -> Result<Vec<PathBuf>, Error> {
    let fail = |source| unreadable(root, source);
    let mut parts = Vec::new();
    for entry in std::fs::read_dir(root).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        if path.is_file() && path.extension().is_some_and(|e| e.eq_ignore_ascii_case("parquet")) {
            parts.push(path);
        }
    }
    parts.sort();
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::super::local;
    use super::super::pictures::tests::png;
    use super::*;
    use parquet::data_type::{ByteArrayType, Int64Type};
    use parquet::file::metadata::KeyValue;
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;
    use std::sync::Arc;

    /// A table of (picture, label), with class names as the hub's library writes them.
    fn table(rows: &[(Vec<u8>, i64)]) -> Vec<u8> {
        let schema = "message m { required group image { required binary bytes; optional binary path (UTF8); } required int64 label; }";
        let schema = Arc::new(parse_message_type(schema).expect("a schema"));
        let names = r#"{"info": {"features": {"label": {"names": ["ball", "racket"], "_type": "ClassLabel"}}}}"#;
        let properties = WriterProperties::builder()
            .set_key_value_metadata(Some(vec![KeyValue::new("huggingface".to_owned(), names.to_owned())]))
            .build();
        let mut out = Vec::new();
        let mut writer = SerializedFileWriter::new(&mut out, schema, Arc::new(properties)).expect("a writer");
        let mut group = writer.next_row_group().expect("a group");
        let mut column = group.next_column().expect("a column").expect("bytes");
        let pictures: Vec<_> = rows.iter().map(|(bytes, _)| bytes.clone().into()).collect();
        column.typed::<ByteArrayType>().write_batch(&pictures, None, None).expect("written");
        column.close().expect("closed");
        let mut column = group.next_column().expect("a column").expect("paths");
        column.typed::<ByteArrayType>().write_batch(&[], Some(&vec![0; rows.len()]), None).expect("written");
        column.close().expect("closed");
        let mut column = group.next_column().expect("a column").expect("labels");
        let labels: Vec<i64> = rows.iter().map(|r| r.1).collect();
        column.typed::<Int64Type>().write_batch(&labels, None, None).expect("written");
        column.close().expect("closed");
        group.close().expect("closed");
        writer.close().expect("closed");
        out
    }

    #[test]
    fn a_folder_of_parts_is_one_corpus_and_its_classes_are_named() {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let colour = |r, g| png(20, 24, [r, g, 9]);
        let parts = [
            ("train-00001-of-00002.parquet", table(&[(colour(0, 200), 1), (colour(90, 90), 7)])),
            ("train-00000-of-00002.parquet", table(&[(colour(200, 0), 0), (b"no picture".to_vec(), 0)])),
        ];
        for (name, bytes) in &parts {
            std::io::Write::write_all(&mut std::fs::File::create(folder.path().join(name)).expect("a file"), bytes)
                .expect("written");
        }
        let keep = Keep { side_px: 16, ..Keep::default() };
        let corpus = local::read(folder.path(), &keep).expect("three pictures");
        let got: Vec<(&str, Option<&str>)> =
            corpus.records.iter().map(|r| (r.id.as_str(), r.topic.as_deref())).collect();
        assert_eq!(
            got,
            [
                ("train-00000-of-00002#1", Some("ball")),
                ("train-00001-of-00002#1", Some("racket")),
                ("train-00001-of-00002#2", Some("7")),
            ]
        );
        assert!(corpus.records.iter().all(|r| r.picture.as_ref().is_some_and(|p| p.width() == 16)));
        assert!(corpus.stats.unreadable[0].contains("train-00000-of-00002#2"), "{:?}", corpus.stats.unreadable);
        let one = local::read(&folder.path().join(parts[0].0), &keep).expect("a part alone");
        assert_eq!((one.records.len(), one.unit), (2, "picture"));
    }

    #[test]
    fn spoilt_tables_of_pictures_are_errors() {
        let bytes = table(&[(png(9, 9, [1, 2, 3]), 0)]);
        for cut in [0, 4, bytes.len() / 2, bytes.len() - 1] {
            assert!(columns::read_pictures(bytes[..cut].to_vec().into()).is_err(), "cut at {cut}");
        }
        for i in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[i] ^= 0x55;
            let _ = columns::read_pictures(bad.into());
        }
    }
}
