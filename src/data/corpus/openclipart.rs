//! `openclipart`: drawings on white, sorted into folders of subjects. Not photographs: every report says *drawings*.
//!
//! Three folders are filler and left out (icons, shapes, signs: thousands of variants of a few motifs), and one is
//! unsorted. File names serve as captions; many end in the name of their artist.

use super::pictures::{self, Draft, Source};
use super::{Corpus, Entry};
use crate::data::clean::Keep;
use crate::data::{Error, Fit, Record};
use std::collections::BTreeMap;

/// The corpus's and the asset's name.
pub const NAME: &str = "openclipart";

const FILLER: [&str; 4] = ["computer", "shapes", "signs_and_symbols", "unsorted"];

/// Smaller ones are icons that show little when they are enlarged.
const MIN_SIDE_PX: u32 = 48;

/// A folder with fewer drawings is no topic of its own.
const MIN_TOPIC: usize = 30;

/// Drawings outside the filler folders: `.../openclipart/png/FOLDER/.../NAME.png`.
pub fn wanted(path: &str) -> bool {
    drawing(path).is_some()
}

/// Folder, path without extension, and name of the drawing that lies at `path`.
fn drawing(path: &str) -> Option<(&str, &str, &str)> {
    let (_, inner) = path.split_once("openclipart/png/")?;
    let inner = inner.strip_suffix(".png")?;
    let (folder, rest) = inner.split_once('/')?;
    let name = rest.rsplit('/').next().unwrap_or(rest);
    (!FILLER.contains(&folder)).then_some((folder, inner, name))
}

/// One record for each drawing: `food/fruit/apple_01`, document `apple`, topic = first folder.
///
/// # Errors
/// When no entry is a drawing that can be read.
pub fn read(entries: &[Entry], keep: &Keep) -> Result<Corpus, Error> {
    let drawings: Vec<(&Entry, (&str, &str, &str))> =
        entries.iter().filter_map(|entry| drawing(&entry.path).map(|parts| (entry, parts))).collect();
    let mut sizes: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, (folder, ..)) in &drawings {
        *sizes.entry(folder).or_default() += 1;
    }
    let found: Vec<(Record, Source)> = drawings
        .iter()
        .map(|&(entry, (folder, id, name))| {
            let record = Record {
                id: id.to_owned(),
                document: pictures::series(name),
                owner: None,
                topic: (sizes[folder] >= MIN_TOPIC).then(|| folder.to_owned()),
                time: None,
                text: pictures::caption(name),
                picture: None,
            };
            (record, Source::Bytes(&entry.bytes))
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

    const ROOT: &str = "usr/share/openclipart/png";

    #[test]
    fn filler_and_what_lies_in_no_folder_is_not_wanted() {
        assert!(wanted("usr/share/openclipart/png/animals/birds/eagle_01.png"));
        for other in ["computer/icons/a.png", "shapes/stars/a.png", "unsorted/a.png", "a.png", "animals/a.svg"] {
            assert!(!wanted(&format!("{ROOT}/{other}")), "{other}");
        }
        assert!(!wanted("usr/share/doc/openclipart-png/copyright"));
    }

    #[test]
    fn folders_are_topics_once_they_are_large_and_names_are_captions() {
        let mut entries: Vec<Entry> = (0..30)
            .map(|i| entry(&format!("{ROOT}/food/fruit/apple_{i:02}.png"), png(60, 50, [8 * i as u8, 1, 2])))
            .collect();
        entries.push(entry(&format!("{ROOT}/logos/tux_logo.png"), png(50, 50, [1, 2, 3])));
        entries.push(entry(&format!("{ROOT}/logos/tiny.png"), png(47, 40, [1, 2, 3])));
        let corpus = read(&entries, &Keep::default()).expect("drawings");
        let first = &corpus.records[0];
        assert_eq!((first.id.as_str(), first.document.as_str()), ("food/fruit/apple_00", "apple"));
        assert_eq!((first.text.as_str(), first.topic.as_deref()), ("apple", Some("food")));
        assert_eq!(corpus.records[30].topic, None);
        assert_eq!((corpus.stats.kept, corpus.stats.dropped["small"], corpus.stats.documents), (31, 1, 3));
    }
}
