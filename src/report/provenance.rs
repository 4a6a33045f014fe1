//! Where a run's numbers come from: the manifest and the digests of its files, as lines of a table.

use super::verdict::{MISSING, visible};
use super::{Options, Run};

/// Lines of the provenance table.
const MOST_PROVENANCE: usize = 160;

/// The manifest as key and value lines, whatever it holds.
pub(super) fn provenance(run: &Run, options: Options) -> Vec<(String, String)> {
    let mut lines: Vec<(String, String)> =
        run.sources.iter().map(|(file, hash)| (format!("blake3 of {file}"), hash.clone())).collect();
    if let Some(manifest) = &run.manifest {
        flatten(manifest, "", options, &mut lines);
    }
    if lines.len() > MOST_PROVENANCE {
        let rest = lines.len() - MOST_PROVENANCE;
        lines.truncate(MOST_PROVENANCE);
        lines.push(("…".to_owned(), format!("{rest} more in manifest.json")));
    }
    lines
}

fn flatten(value: &serde_json::Value, key: &str, options: Options, lines: &mut Vec<(String, String)>) {
    use serde_json::Value;
    let under = |name: &str| if key.is_empty() { name.to_owned() } else { format!("{key}.{name}") };
    match value {
        Value::Object(map) => map.iter().for_each(|(name, v)| flatten(v, &under(name), options, lines)),
        Value::Array(items) if items.iter().any(|v| v.is_object() || v.is_array()) => {
            items.iter().enumerate().for_each(|(i, v)| flatten(v, &under(&i.to_string()), options, lines));
        }
        Value::Array(items) => {
            let words: Vec<String> = items.iter().map(|v| scalar(v, options)).collect();
            lines.push((visible(key, 120), words.join(", ")));
        }
        scalar_value => lines.push((visible(key, 120), scalar(scalar_value, options))),
    }
}

fn scalar(value: &serde_json::Value, options: Options) -> String {
    use serde_json::Value;
    match value {
        Value::Null => MISSING.to_owned(),
        Value::String(s) if options.redacted && is_path(s) => "(path left out)".to_owned(),
        Value::String(s) => visible(s, 400),
        other => other.to_string(),
    }
}

/// A path tells who ran the study and where their data lies.
fn is_path(text: &str) -> bool {
    text.split(char::is_whitespace).any(|word| {
        let word = word.trim_start_matches(['"', '\'', '`', '(', '=']);
        word.starts_with(['/', '~']) || word.contains(":\\") || word.contains("=/")
    })
}
