//! `emoji-google`: emoji of 64x64 pixels with their names and categories.
//!
//! Only what the table of the package lists: variants of skin colour are not listed, and they would be one picture many
//! times.

use super::pictures::{self, Draft, Source};
use super::{Corpus, Entry};
use crate::data::clean::Keep;
use crate::data::{Error, Fit, Record};
use std::collections::{BTreeMap, HashMap};

/// The corpus's and the asset's name.
pub const NAME: &str = "emoji-google";

const TABLE: &str = "package/emoji.json";
const FOLDER: &str = "package/img/google/64/";

/// The table and the pictures.
pub fn wanted(path: &str) -> bool {
    path == TABLE || path.strip_prefix(FOLDER).is_some_and(|name| name.strip_suffix(".png").is_some())
}

/// A line of the table; the other fields are not needed.
#[derive(serde::Deserialize)]
struct Emoji {
    name: Option<String>,
    image: String,
    category: String,
    has_img_google: bool,
}

/// One record for each listed emoji: `1f3be`, text "tennis racquet and ball", topic = category.
///
/// # Errors
/// When the table is missing or malformed, or no picture can be read.
pub fn read(entries: &[Entry], keep: &Keep) -> Result<Corpus, Error> {
    let malformed = |why: String| Error::Malformed { path: TABLE.to_owned(), line: None, why };
    let table = entries
        .iter()
        .find(|entry| entry.path == TABLE)
        .ok_or_else(|| malformed("missing from the package; fetch it again".to_owned()))?;
    let table: Vec<Emoji> = serde_json::from_slice(&table.bytes)
        .map_err(|e| malformed(format!("not a list of emoji ({e}); fetch it again")))?;
    let files: HashMap<&str, &Entry> =
        entries.iter().filter_map(|entry| Some((entry.path.strip_prefix(FOLDER)?, entry))).collect();
    let mut found: Vec<(Record, Source)> = table
        .iter()
        .filter(|emoji| emoji.has_img_google)
        .filter_map(|emoji| {
            let file = files.get(emoji.image.as_str())?;
            let name = emoji.name.as_deref().unwrap_or_default().to_lowercase();
            let id = emoji.image.trim_end_matches(".png").to_owned();
            let record = Record {
                document: if name.is_empty() { id.clone() } else { pictures::series(&name) },
                id,
                owner: None,
                topic: Some(emoji.category.clone()),
                time: None,
                text: name,
                picture: None,
            };
            Some((record, Source::Bytes(&file.bytes[..])))
        })
        .collect();
    found.sort_by(|a, b| a.0.id.cmp(&b.0.id));
    let draft = Draft {
        name: NAME.to_owned(),
        files: found.len(),
        fit: Fit::Pad,
        min_side_px: 1,
        dropped: BTreeMap::new(),
        found,
    };
    pictures::build(draft, keep)
}

#[cfg(test)]
mod tests {
    use super::super::pictures::tests::png;
    use super::super::tests::entry;
    use super::*;

    #[test]
    fn what_the_table_lists_and_the_package_holds_is_read() {
        let table = r#"[
            {"name": "TENNIS RACQUET AND BALL", "image": "1f3be.png", "category": "Activities", "has_img_google": true, "more": [1]},
            {"name": null, "image": "00a9.png", "category": "Symbols", "has_img_google": true},
            {"name": "GONE", "image": "ffff.png", "category": "Symbols", "has_img_google": true},
            {"name": "NOT HERE", "image": "1f3bd.png", "category": "Symbols", "has_img_google": false}
        ]"#;
        let picture = |code: &str, colour| entry(&format!("{FOLDER}{code}.png"), png(64, 64, colour));
        let entries = [
            entry(TABLE, table),
            picture("1f3be", [0, 200, 0]),
            picture("00a9", [0, 0, 200]),
            picture("1f3bd", [1, 1, 1]),
            picture("1f468-1f3fb", [2, 2, 2]),
        ];
        assert!(entries.iter().all(|entry| wanted(&entry.path)));
        assert!(!wanted("package/img/google/sheets/64.png") && !wanted("package/package.json"));
        let corpus = read(&entries, &Keep::default()).expect("two emoji");
        let got: Vec<(&str, &str, &str)> =
            corpus.records.iter().map(|r| (r.id.as_str(), r.document.as_str(), r.text.as_str())).collect();
        assert_eq!(got, [("00a9", "00a9", ""), ("1f3be", "tennis_racquet_and_ball", "tennis racquet and ball")]);
        let error = read(&entries[1..], &Keep::default()).expect_err("no table");
        assert!(error.to_string().starts_with("`package/emoji.json`: missing"), "{error}");
    }
}
