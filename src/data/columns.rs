//! Vectors beside ids and texts: one record a line of JSON, or one row of a Parquet table.
//!
//! The vector stands under `embedding`, `embeddings`, `vector` or `vectors`, or under the name that is asked for; `id` and
//! `text` are taken along where they are there. Parquet is read by row and written as one list column of `float`.

use crate::encode::Embeddings;
use parquet::basic::{Compression, LogicalType};
use parquet::data_type::{ByteArray, ByteArrayType, FloatType};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::writer::SerializedFileWriter;
use parquet::record::{Field, ListAccessor, Row};
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::Type;
use std::io::Write;
use std::sync::Arc;

/// Names under which a vector is looked for.
const NAMES: [&str; 4] = ["embedding", "embeddings", "vector", "vectors"];
/// Names of a column of pictures, and of one that says what they show.
const PICTURES: [&str; 2] = ["image", "img"];
const LABELS: [&str; 3] = ["label", "labels", "topic"];
/// What is said of a file that is none.
const UNREADABLE: &str = "it is not a Parquet file that can be read";
/// Longest line of JSON that is read.
const MAX_LINE_BYTES: usize = 4 << 20;
/// Most bytes that a Parquet file may say it unpacks to.
const MAX_UNPACKED_BYTES: i64 = 8 << 30;

/// Vectors with what stands beside them.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// One row for each record.
    pub vectors: Embeddings,
    /// The records' ids, where every one has one.
    pub ids: Option<Vec<String>>,
    /// The records' texts, where every one has one.
    pub texts: Option<Vec<String>>,
}

/// Rows as they come in.
#[derive(Default)]
struct Rows {
    values: Vec<f32>,
    dim: usize,
    ids: Vec<Option<String>>,
    texts: Vec<Option<String>>,
}

impl Rows {
    fn push(&mut self, vector: &[f32], id: Option<String>, text: Option<String>) -> Result<(), String> {
        if vector.is_empty() {
            return Err("its vector is empty".to_owned());
        }
        if self.ids.is_empty() {
            self.dim = vector.len();
        } else if vector.len() != self.dim {
            return Err(format!("its vector has {} coordinates, the first one has {}", vector.len(), self.dim));
        }
        self.values.extend_from_slice(vector);
        self.ids.push(id);
        self.texts.push(text);
        Ok(())
    }

    fn finish(self) -> Result<Table, String> {
        if self.ids.is_empty() {
            return Err("it holds no vector".to_owned());
        }
        let vectors = Embeddings::new(self.values, self.dim).map_err(|e| e.to_string())?;
        // `collect` gives `None` as soon as one is missing.
        Ok(Table { vectors, ids: self.ids.into_iter().collect(), texts: self.texts.into_iter().collect() })
    }
}

/// A label that is a string, or a number taken as one.
#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Label {
    Text(String),
    Number(serde_json::Number),
}

#[derive(serde::Deserialize)]
struct Line {
    #[serde(alias = "embeddings", alias = "vector", alias = "vectors")]
    embedding: Vec<f32>,
    id: Option<Label>,
    text: Option<String>,
}

/// Reads one JSON object a line.
pub(super) fn read_json_lines(bytes: &[u8]) -> Result<Table, (Option<usize>, String)> {
    let mut rows = Rows::default();
    for (number, line) in bytes.split(|b| *b == b'\n').enumerate() {
        let at = |why: String| (Some(number + 1), why);
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        if line.len() > MAX_LINE_BYTES {
            return Err(at(format!("longer than {MAX_LINE_BYTES} bytes; one record a line is expected")));
        }
        let line: Line = serde_json::from_slice(line).map_err(|e| {
            let what = e.to_string();
            let what = what.split(" at line ").next().unwrap_or_default();
            at(format!("{what} (column {}); an object with a list of numbers `embedding` is expected", e.column()))
        })?;
        let id = line.id.map(|id| match id {
            Label::Text(text) => text,
            Label::Number(number) => number.to_string(),
        });
        rows.push(&line.embedding, id, line.text).map_err(at)?;
    }
    rows.finish().map_err(|why| (None, why))
}

/// Reads a Parquet file.
pub(super) fn read_parquet(bytes: Vec<u8>, column: Option<&str>) -> Result<Table, String> {
    guarded(|| parquet_rows(bytes, column))
}

/// The crate's thrift and page readers are written for trusted files: a panic there is a bad file, not a fault of ours.
fn guarded<T>(read: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(read)).unwrap_or_else(|_| Err(UNREADABLE.to_owned()))
}

fn broken(e: &parquet::errors::ParquetError) -> String {
    format!("{UNREADABLE}: {e}")
}

fn parquet_rows(bytes: Vec<u8>, column: Option<&str>) -> Result<Table, String> {
    let reader = open(bytes.into())?;
    let schema = reader.metadata().file_metadata().schema();
    let names: Vec<&str> = schema.get_fields().iter().map(|f| f.name()).collect();
    let name = match column {
        Some(name) => names.iter().find(|n| **n == name),
        None => names.iter().find(|n| NAMES.contains(n)),
    };
    let Some(name) = name.map(|n| (*n).to_owned()) else {
        let wanted = column.map_or_else(|| format!("none of `{}`", NAMES.join("`, `")), |c| format!("no `{c}`"));
        return Err(format!("it has {wanted}, only the columns `{}`; name one", names.join("`, `")));
    };
    let projection = project(&reader, &[&name, "id", "text"])?;
    let rows_of = reader.get_row_iter(Some(projection));
    let mut rows = Rows::default();
    let mut vector = Vec::new();
    for (number, row) in rows_of.map_err(|e| broken(&e))?.enumerate() {
        let row = row.map_err(|e| format!("row {number} cannot be read: {e}"))?;
        let (id, text) = labels(&row);
        vector.clear();
        let field = row.get_column_iter().find(|(column, _)| **column == name).map(|(_, field)| field);
        floats(field.unwrap_or(&Field::Null), &mut vector).map_err(|why| format!("row {number}: {why}"))?;
        rows.push(&vector, id, text).map_err(|why| format!("row {number}: {why}"))?;
    }
    rows.finish()
}

/// The `text` column of a Parquet file, each with its `id` where there is one.
pub(super) fn read_texts(bytes: bytes::Bytes) -> Result<Vec<(Option<String>, String)>, String> {
    guarded(|| {
        let reader = open(bytes)?;
        let projection = project(&reader, &["id", "text"])?;
        if !projection.get_fields().iter().any(|f| f.name() == "text") {
            return Err("it has no column `text`".to_owned());
        }
        let mut out = Vec::new();
        for (number, row) in reader.get_row_iter(Some(projection)).map_err(|e| broken(&e))?.enumerate() {
            let row = row.map_err(|e| format!("row {number} cannot be read: {e}"))?;
            let (id, text) = labels(&row);
            out.push((id, text.ok_or_else(|| format!("row {number} has no text"))?));
        }
        Ok(out)
    })
}

/// A picture of a table, still encoded.
pub(super) struct Encoded {
    pub(super) id: Option<String>,
    pub(super) text: Option<String>,
    pub(super) label: Option<String>,
    pub(super) bytes: Vec<u8>,
}

/// The pictures of a Parquet table; nothing where it has no column for them.
pub(super) fn read_pictures(bytes: bytes::Bytes) -> Result<Option<Vec<Encoded>>, String> {
    guarded(|| {
        let reader = open(bytes)?;
        let columns = [&PICTURES[..], &LABELS, &["id", "text", "caption"]].concat();
        let projection = project(&reader, &columns)?;
        if !projection.get_fields().iter().any(|f| PICTURES.contains(&f.name())) {
            return Ok(None);
        }
        let classes = classes(&reader);
        let rows = reader.get_row_iter(Some(projection)).map_err(|e| broken(&e))?;
        rows.enumerate()
            .map(|(number, row)| {
                let row = row.map_err(|e| format!("row {number} cannot be read: {e}"))?;
                encoded(&row, &classes).ok_or_else(|| {
                    format!("row {number} has no picture; `image` holds bytes, or a struct with a field `bytes`")
                })
            })
            .collect::<Result<Vec<_>, _>>()
            .map(Some)
    })
}

fn encoded(row: &Row, classes: &[String]) -> Option<Encoded> {
    let (id, mut text) = labels(row);
    let (mut label, mut bytes) = (None, None);
    for (column, field) in row.get_column_iter() {
        let column = column.as_str();
        match field {
            Field::Str(caption) if column == "caption" => text = text.or_else(|| Some(caption.clone())),
            Field::Str(name) if LABELS.contains(&column) => label = Some(name.clone()),
            Field::Int(class) if LABELS.contains(&column) => label = Some(class_name(i64::from(*class), classes)),
            Field::Long(class) if LABELS.contains(&column) => label = Some(class_name(*class, classes)),
            Field::Bytes(picture) if PICTURES.contains(&column) => bytes = Some(picture.data().to_vec()),
            Field::Group(parts) if PICTURES.contains(&column) => {
                let picture = parts.get_column_iter().find(|(name, _)| *name == "bytes");
                if let Some((_, Field::Bytes(picture))) = picture {
                    bytes = Some(picture.data().to_vec());
                }
            }
            _ => {}
        }
    }
    Some(Encoded { id, text, label, bytes: bytes? })
}

fn class_name(class: i64, classes: &[String]) -> String {
    let named = usize::try_from(class).ok().and_then(|class| classes.get(class));
    named.cloned().unwrap_or_else(|| class.to_string())
}

/// The names of a table's classes, as the hub's library notes them beside the schema.
fn classes(reader: &SerializedFileReader<bytes::Bytes>) -> Vec<String> {
    let notes = reader.metadata().file_metadata().key_value_metadata();
    let note =
        notes.into_iter().flatten().find(|note| note.key == "huggingface").and_then(|note| note.value.as_deref());
    let note: serde_json::Value = note.and_then(|note| serde_json::from_str(note).ok()).unwrap_or_default();
    let of = |label: &&str| note["info"]["features"][label]["names"].as_array();
    let names = LABELS.iter().find_map(of).into_iter().flatten();
    names.filter_map(|name| name.as_str().map(str::to_owned)).collect()
}

/// A file whose metadata promises no more than we read.
fn open(bytes: bytes::Bytes) -> Result<SerializedFileReader<bytes::Bytes>, String> {
    let reader = SerializedFileReader::new(bytes).map_err(|e| broken(&e))?;
    let unpacked: i64 = reader.metadata().row_groups().iter().map(|g| g.total_byte_size().max(0)).sum();
    if unpacked > MAX_UNPACKED_BYTES {
        return Err(format!("it unpacks to {unpacked} bytes, more than the {MAX_UNPACKED_BYTES} that are read"));
    }
    Ok(reader)
}

/// Only these columns, as far as there are such.
fn project(reader: &SerializedFileReader<bytes::Bytes>, names: &[&str]) -> Result<Type, String> {
    let schema = reader.metadata().file_metadata().schema();
    let fields = schema.get_fields().iter().filter(|f| names.contains(&f.name())).cloned().collect();
    Type::group_type_builder(schema.name()).with_fields(fields).build().map_err(|e| e.to_string())
}

/// A row's id and text.
fn labels(row: &Row) -> (Option<String>, Option<String>) {
    let (mut id, mut text) = (None, None);
    for (column, field) in row.get_column_iter() {
        match (column.as_str(), field) {
            ("text", Field::Str(value)) => text = Some(value.clone()),
            ("id", Field::Str(value)) => id = Some(value.clone()),
            ("id", Field::Int(value)) => id = Some(value.to_string()),
            ("id", Field::Long(value)) => id = Some(value.to_string()),
            _ => {}
        }
    }
    (id, text)
}

fn floats(field: &Field, out: &mut Vec<f32>) -> Result<(), String> {
    let Field::ListInternal(list) = field else {
        return Err("the vector is not a list of numbers; store it as list<float>".to_owned());
    };
    for i in 0..list.len() {
        let value = list
            .get_float(i)
            .or_else(|_| list.get_double(i).map(|v| v as f32))
            .or_else(|_| list.get_float16(i).map(f32::from))
            .map_err(|_| format!("coordinate {i} is missing or no float; store the vector as list<float>"))?;
        out.push(value);
    }
    Ok(())
}

/// Writes vectors, and ids where there are some, as Parquet.
pub(super) fn write_parquet(
    out: impl Write + Send,
    vectors: &Embeddings,
    ids: Option<&[String]>,
    metadata: Option<(&str, String)>,
) -> std::io::Result<()> {
    let id = if ids.is_some() { "required binary id (STRING);" } else { "" };
    let text = format!(
        "message stitchback {{ {id} required group embedding (LIST) {{ repeated group list {{ required float element; }} }} }}"
    );
    let failed = |e: parquet::errors::ParquetError| std::io::Error::other(e.to_string());
    let schema = Arc::new(parse_message_type(&text).map_err(failed)?);
    debug_assert!(
        schema.get_fields().iter().any(|f| f.get_basic_info().logical_type_ref() == Some(&LogicalType::List))
    );
    let pairs = metadata.map(|(key, value)| vec![KeyValue::new(key.to_owned(), value)]);
    let properties =
        WriterProperties::builder().set_compression(Compression::SNAPPY).set_key_value_metadata(pairs).build();
    let mut file = SerializedFileWriter::new(out, schema, Arc::new(properties)).map_err(failed)?;
    let mut group = file.next_row_group().map_err(failed)?;
    if let Some(ids) = ids {
        let values: Vec<ByteArray> = ids.iter().map(|id| ByteArray::from(id.as_str())).collect();
        let mut column = group.next_column().map_err(failed)?.expect("the schema has an id");
        column.typed::<ByteArrayType>().write_batch(&values, None, None).map_err(failed)?;
        column.close().map_err(failed)?;
    }
    let definition = vec![1; vectors.values().len()];
    let repetition: Vec<i16> = (0..vectors.values().len()).map(|i| i16::from(i % vectors.dim() != 0)).collect();
    let mut column = group.next_column().map_err(failed)?.expect("the schema has an embedding");
    column.typed::<FloatType>().write_batch(vectors.values(), Some(&definition), Some(&repetition)).map_err(failed)?;
    column.close().map_err(failed)?;
    group.close().map_err(failed)?;
    file.close().map_err(failed)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Embeddings {
        Embeddings::new((0..12).map(|i| i as f32 / 7.0).collect(), 3).expect("finite")
    }

    #[test]
    fn parquet_gives_back_what_was_written() {
        let ids: Vec<String> = (0..4).map(|i| format!("r{i}")).collect();
        for ids in [None, Some(&ids[..])] {
            let mut bytes = Vec::new();
            write_parquet(&mut bytes, &table(), ids, Some(("stitchback", "{}".to_owned()))).expect("writes");
            let back = read_parquet(bytes.clone(), None).expect("our own file");
            assert_eq!((back.vectors, back.ids.as_deref(), back.texts), (table(), ids, None));
            let error = read_parquet(bytes, Some("other")).expect_err("no such column");
            assert!(error.contains("no `other`") && error.contains("`embedding`"), "{error}");
        }
    }

    #[test]
    fn spoilt_parquet_is_an_error_and_no_crash() {
        let mut bytes = Vec::new();
        write_parquet(&mut bytes, &table(), None, None).expect("writes");
        for cut in [0, 3, 4, 11, bytes.len() / 2, bytes.len() - 1] {
            assert!(read_parquet(bytes[..cut].to_vec(), None).is_err(), "cut at {cut}");
        }
        // Every single byte changed: whatever comes out is a table or an error.
        for i in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[i] ^= 0x55;
            let _ = read_parquet(bad, None);
        }
    }

    #[test]
    fn json_lines_take_ids_and_texts_along() {
        let text = "{\"id\": 7, \"vector\": [1, 2.5], \"text\": \"a\", \"x\": {}}\n\n{\"id\": \"b\", \"embedding\": [0, -1], \"text\": \"c\"}\n";
        let read = read_json_lines(text.as_bytes()).expect("two rows");
        assert_eq!(read.vectors.values(), [1.0, 2.5, 0.0, -1.0]);
        assert_eq!(read.ids, Some(vec!["7".to_owned(), "b".to_owned()]));
        assert_eq!(read.texts, Some(vec!["a".to_owned(), "c".to_owned()]));
    }

    #[test]
    fn spoilt_lines_are_named() {
        let deep = format!("{{\"embedding\": {}", "[".repeat(100_000));
        for (text, line, why) in [
            ("{\"embedding\": [1]}\n{\"embedding\": [1, 2]}", Some(2), "has 2 coordinates"),
            ("{\"embedding\": [1e39]}", Some(1), "out of range"),
            ("{\"embedding\": [null]}", Some(1), "a list of numbers"),
            ("{\"embedding\": []}", Some(1), "is empty"),
            ("{\"text\": \"a\"}", Some(1), "missing field `embedding`"),
            ("", None, "no vector"),
            (&deep, Some(1), "a list of numbers"),
        ] {
            let (at, what) = read_json_lines(text.as_bytes()).expect_err(why);
            assert!(at == line && what.contains(why), "{at:?} {what} instead of {line:?} {why}");
        }
    }
}
