//! Reconstructed pictures side by side: a row for each target, a column for the original and for each protection.
//!
//! Targets are chosen by rule, never by hand: evenly spaced ranks from the best to the worst by judge cosine under the
//! unprotected release's worst attacker, then every target whose caption names a tennis ball or a racket, the objects of the
//! claim under test.

use super::gallery;
use super::{Options, Run};
use crate::data::Picture;
use crate::run::record::GuessRecord;
use crate::run::sheet;
use base64::Engine as _;

/// Targets by rank.
const RANKS: usize = 9;
/// Most targets by caption.
const MOST_NAMED: usize = 4;
/// Words of a caption that are always shown.
const NAMED: [&str; 2] = ["tennis", "racket"];

/// The pictures of a run, as the report shows them.
pub(super) struct Wall {
    pub(super) rule: String,
    pub(super) columns: Vec<Column>,
    pub(super) rows: Vec<Row>,
}

pub(super) struct Column {
    pub(super) name: String,
    pub(super) attack: String,
}

pub(super) struct Row {
    pub(super) title: String,
    pub(super) caption: String,
    pub(super) tiles: Vec<Option<Tile>>,
}

/// A picture as a data URI, and what it scored.
pub(super) struct Tile {
    pub(super) source: String,
    pub(super) alt: String,
    pub(super) note: String,
}

/// `None` where the run has no pictures, or must not show them.
pub(super) fn wall(run: &Run, options: Options) -> Option<Wall> {
    if options.redacted || run.originals.is_empty() {
        return None;
    }
    let groups: Vec<_> = run.summary.protections.iter().filter_map(|p| Some((p, run.worst_pictures(p)?))).collect();
    let bare = run.unprotected().map(|p| p.name.as_str());
    let (p, (rule, _)) = groups.iter().find(|(p, _)| Some(p.name.as_str()) == bare).or(groups.first())?;
    let mut columns = vec![Column { name: "original".to_owned(), attack: String::new() }];
    columns.extend(
        groups.iter().map(|(p, _)| Column { name: p.name.clone(), attack: p.best_attack.clone().unwrap_or_default() }),
    );
    let rows = choose(rule)
        .into_iter()
        .filter_map(|(at, title)| {
            let original = run.originals.get(at)?;
            let mut tiles = vec![Some(tile(original, "original", String::new()))];
            tiles.extend(groups.iter().map(|(p, (records, pictures))| {
                let (record, picture) = (records.get(at)?, pictures.get(at)?);
                let score = gallery::score(record).map_or(String::new(), |s| format!("judge {s:.2}"));
                Some(tile(picture, &format!("reconstruction under {}", p.name), score))
            }));
            Some(Row { title, caption: rule[at].original.clone(), tiles })
        })
        .collect();
    Some(Wall {
        rule: format!(
            "Chosen by rule: evenly spaced ranks from the best to the worst by judge cosine under {}, the worst attacker of {}, first \
             seed, and targets whose caption names tennis or a racket; the same targets under every protection, each \
             read by its own worst attacker. An empty place: that attacker took fewer targets.",
            p.best_attack.as_deref().unwrap_or("nobody"),
            p.name
        ),
        columns,
        rows,
    })
}

/// Positions of the targets that are shown, with the reason.
fn choose(records: &[GuessRecord]) -> Vec<(usize, String)> {
    let mut scored: Vec<(f64, usize)> =
        records.iter().enumerate().filter_map(|(i, r)| Some((gallery::score(r)?, i))).collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let n = scored.len();
    let mut chosen: Vec<(usize, String)> = Vec::new();
    for k in 0..RANKS.min(n) {
        let rank = if n > 1 { k * (n - 1) / (RANKS.min(n) - 1).max(1) } else { 0 };
        let title = match k {
            0 => "best".to_owned(),
            k if k + 1 == RANKS.min(n) => "worst".to_owned(),
            k if 2 * k + 1 == RANKS => "median".to_owned(),
            _ => format!("rank {} of {n}", rank + 1),
        };
        chosen.push((scored[rank].1, title));
    }
    let names = |r: &GuessRecord| NAMED.iter().any(|word| r.original.to_lowercase().contains(word));
    let named = records.iter().enumerate().filter(|(i, r)| names(r) && chosen.iter().all(|(c, _)| c != i));
    let named: Vec<(usize, String)> = named.map(|(i, _)| (i, "by caption".to_owned())).take(MOST_NAMED).collect();
    chosen.extend(named);
    chosen
}

fn tile(picture: &Picture, alt: &str, note: String) -> Tile {
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    // A PNG into memory cannot fail; a picture that cannot be shown is an empty tile.
    let bytes = sheet::png(picture.rgb(), width, height).unwrap_or_default();
    let source = format!("data:image/png;base64,{}", base64::engine::general_purpose::STANDARD.encode(bytes));
    Tile { source, alt: alt.to_owned(), note }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_evenly_spaced_and_tennis_is_always_shown() {
        let record = |i: usize| GuessRecord {
            target: format!("t{i}"),
            original: if i == 3 { "a Tennis ball" } else { "a cat" }.to_owned(),
            guess: String::new(),
            size: Some((8, 8)),
            scores: [("judge_cosine".to_owned(), Some(1.0 - i as f64 / 100.0))].into(),
        };
        let records: Vec<GuessRecord> = (0..81).map(record).collect();
        let chosen = choose(&records);
        let places: Vec<usize> = chosen.iter().map(|(i, _)| *i).collect();
        assert_eq!(places, [0, 10, 20, 30, 40, 50, 60, 70, 80, 3]);
        assert_eq!((chosen[0].1.as_str(), chosen[4].1.as_str(), chosen[8].1.as_str()), ("best", "median", "worst"));
        assert_eq!(choose(&records[..1]).len(), 1);
        assert!(choose(&[]).is_empty());
    }
}
