//! `stitchback list`: the assets that this build knows, and which of them are cached.

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::json;
use stitchback::data::asset::{self, Cache, Manifest, State};
use stitchback::{Error, Exit};

use super::ui;

/// List the models and corpora that studies can name.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// One JSON array instead of a table.
    #[arg(long)]
    json: bool,
}

/// Sizes decide whether a cached copy is whole; `doctor --deep` hashes it.
pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    let cache = Cache::from_env().map_err(Error::from)?;
    let rows: Vec<(&Manifest, State)> = asset::manifests().iter().map(|m| (m, cache.state(m, false))).collect();
    let text = if args.json { as_json(&rows)? } else { as_table(&rows) };
    ui::print(&text)?;
    Ok(Exit::Pass)
}

fn trust(manifest: &Manifest) -> &'static str {
    if manifest.is_pinned() { "pinned" } else { "unpinned" }
}

/// The source that gave the cached copy, else those that would be tried.
fn sources(manifest: &Manifest, state: &State) -> Vec<String> {
    match state {
        State::Ready(asset) => vec![asset.source.clone()],
        _ => manifest.sources.iter().map(ToString::to_string).collect(),
    }
}

fn cached(state: &State) -> &'static str {
    match state {
        State::Ready(_) => "yes",
        State::Absent => "no",
        State::Damaged(_) => "damaged",
    }
}

fn as_table(rows: &[(&Manifest, State)]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["NAME", "KIND", "VERSION", "SIZE", "CACHED", "DIGESTS", "SOURCE", "LICENCE"]);
    for (manifest, state) in rows {
        table.add_row([
            manifest.name.clone(),
            manifest.kind.to_string(),
            manifest.version.to_string(),
            ui::bytes(manifest.size()),
            cached(state).to_owned(),
            trust(manifest).to_owned(),
            sources(manifest, state).join("\n"),
            manifest.licence.clone(),
        ]);
    }
    table.trim_fmt()
}

fn as_json(rows: &[(&Manifest, State)]) -> serde_json::Result<String> {
    let row = |(manifest, state): &(&Manifest, State)| {
        let (digests, dir) = match state {
            State::Ready(asset) => (Some(&asset.digests), Some(&asset.dir)),
            _ => (None, None),
        };
        json!({
            "name": manifest.name, "kind": manifest.kind, "version": manifest.version, "about": manifest.about,
            "licence": manifest.licence, "size": manifest.size(), "cached": cached(state), "digests": trust(manifest),
            "sources": sources(manifest, state), "sha256": digests, "dir": dir,
        })
    };
    serde_json::to_string_pretty(&rows.iter().map(row).collect::<Vec<_>>())
}
