//! `tuxpaint-stamps`: single things on transparent ground, many of them cut out of photographs, with captions.
//!
//! Letters, signs and coins (`symbols`) and cartoons are left out. A caption is the first line of the text file beside
//! the picture; translations follow it there and are not read.

use super::pictures::{self, Draft, Source};
use super::{Corpus, Entry};
use crate::data::clean::{Keep, collapse, decode};
use crate::data::{Error, Fit, Record};
use std::collections::BTreeMap;

/// The corpus's and the asset's name.
pub const NAME: &str = "tuxpaint-stamps";

const MIN_SIDE_PX: u32 = 48;

/// Pictures and their captions: `.../tuxpaint/stamps/FOLDER/.../NAME.{png,txt}`.
pub fn wanted(path: &str) -> bool {
    stamp(path, ".png").is_some() || stamp(path, ".txt").is_some()
}

/// The path of a stamp below the folder of stamps, without `extension`.
fn stamp<'p>(path: &'p str, extension: &str) -> Option<&'p str> {
    let (_, inner) = path.split_once("tuxpaint/stamps/")?;
    let inner = inner.strip_suffix(extension)?;
    let mut folders = inner.split('/').rev().skip(1);
    let left_out = folders.clone().any(|folder| matches!(folder, "symbols" | "cartoon"));
    (folders.next().is_some() && !left_out).then_some(inner)
}

/// One record for each picture: `animals/birds/blackbird`, text from the file beside it, topic = first folder.
///
/// # Errors
/// When no entry is a picture that can be read.
pub fn read(entries: &[Entry], keep: &Keep) -> Result<Corpus, Error> {
    let captions: BTreeMap<&str, String> = entries
        .iter()
        .filter_map(|entry| {
            let text = decode(&entry.bytes, None);
            stamp(&entry.path, ".txt").map(|id| (id, collapse(text.lines().next().unwrap_or_default())))
        })
        .collect();
    let found: Vec<(Record, Source)> = entries
        .iter()
        .filter_map(|entry| {
            let id = stamp(&entry.path, ".png")?;
            let name = id.rsplit('/').next().unwrap_or(id);
            let record = Record {
                id: id.to_owned(),
                document: pictures::series(name),
                owner: None,
                topic: id.split('/').next().map(str::to_owned),
                time: None,
                text: captions
                    .get(id)
                    .filter(|text| !text.is_empty())
                    .cloned()
                    .unwrap_or_else(|| pictures::caption(name)),
                picture: None,
            };
            Some((record, Source::Bytes(&entry.bytes[..])))
        })
        .collect();
    let draft = Draft {
        name: NAME.to_owned(),
        files: found.len(),
        fit: Fit::Pad,
        min_side_px: MIN_SIDE_PX,
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

    const ROOT: &str = "usr/share/tuxpaint/stamps";

    #[test]
    fn symbols_cartoons_and_sounds_are_not_wanted() {
        assert!(wanted("usr/share/tuxpaint/stamps/animals/birds/kea.png"));
        assert!(wanted("usr/share/tuxpaint/stamps/animals/birds/kea.txt"));
        for other in
            ["symbols/math/one.png", "town/cartoon/bus.png", "animals/birds/kea.ogg", "animals/frog.svg", "x.png"]
        {
            assert!(!wanted(&format!("{ROOT}/{other}")), "{other}");
        }
    }

    #[test]
    fn the_first_line_beside_a_picture_is_its_caption() {
        let entries = [
            entry(&format!("{ROOT}/animals/birds/kea.txt"), "A kea.\nde.utf8=Ein Kea.\n"),
            entry(&format!("{ROOT}/animals/birds/kea.png"), png(80, 60, [9, 90, 9])),
            entry(&format!("{ROOT}/vehicles/old_tractor_mirror.png"), png(80, 60, [90, 9, 9])),
        ];
        let corpus = read(&entries, &Keep::default()).expect("two stamps");
        let got: Vec<(&str, &str, Option<&str>)> =
            corpus.records.iter().map(|r| (r.document.as_str(), r.text.as_str(), r.topic.as_deref())).collect();
        assert_eq!(got, [("kea", "A kea.", Some("animals")), ("old_tractor", "old tractor mirror", Some("vehicles"))]);
        assert_eq!(corpus.stats.files, 2);
    }
}
