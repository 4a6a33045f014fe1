//! `stitchback fetch`: models and corpora into the cache.

use std::path::PathBuf;

use stitchback::data::asset::{self, Cache, Manifest};
use stitchback::{Error, Exit};

use super::ui;

/// Fetch models and corpora into the cache and verify them.
///
/// Without names, every asset whose bytes are pinned. Cached assets are verified, not fetched again.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Names as `stitchback list` shows them, or `hub:owner/name` for a sentence-transformers model of the hub,
    /// `hub:datasets/owner/name` for the Parquet parts of a data set.
    #[arg(value_name = "ASSET")]
    names: Vec<String>,
    /// Look into this folder before any network: package archives, or files below the asset's name.
    #[arg(long, value_name = "DIR")]
    from: Option<PathBuf>,
    /// Print nothing but errors and the result.
    #[arg(long, short)]
    quiet: bool,
}

/// Fetches in order and stops at the first asset that no source can give.
pub(crate) fn run(args: Args) -> anyhow::Result<Exit> {
    let cache = Cache::from_env().map_err(Error::from)?.with_from(args.from);
    let (hub, names): (Vec<String>, Vec<String>) = args.names.iter().cloned().partition(|n| n.starts_with(asset::HUB));
    let wanted: Vec<&Manifest> = if args.names.is_empty() {
        asset::manifests().iter().filter(|m| m.is_pinned()).collect()
    } else {
        names.iter().map(|name| asset::find(name)).collect::<Result<_, _>>().map_err(Error::from)?
    };
    let terminal = ui::Terminal::new(args.quiet);
    for name in hub {
        let found = asset::repository(&name, &terminal).map_err(Error::from)?;
        ui::print(&format!("{}\tunpinned\thub {}\t{}", found.name, found.commit, found.dir.display()))?;
    }
    for manifest in wanted {
        let asset = cache.ensure(manifest, &terminal).map_err(Error::from)?;
        let trust = if asset.pinned { "verified" } else { "unpinned" };
        ui::print(&format!("{}\t{trust}\t{}\t{}", asset.name, asset.source, asset.dir.display()))?;
    }
    Ok(Exit::Pass)
}
