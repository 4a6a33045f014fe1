//! `stitchback doctor`: can this machine run a study, and if not, what would help?

use std::io;
use std::path::Path;
use std::thread;

use stitchback::data::asset::{self, Cache, Manifest, State};
use stitchback::{Error, Exit};
use sysinfo::{Disks, System};

use super::ui;

/// All pinned assets, their archives and the converted judge, with room for one at work.
const NEEDED_DISK_BYTES: u64 = 2 << 30;
/// A study with the default victim and judge.
const NEEDED_MEMORY_BYTES: u64 = 3 << 30;

/// Check this machine: cache, disk, package clients, processor, memory, cached assets.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Hash every cached file instead of looking at sizes.
    #[arg(long)]
    deep: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Grade {
    Good,
    Poor,
    Fatal,
}

/// One line of the examination.
struct Finding {
    grade: Grade,
    what: String,
    found: String,
    remedy: Option<String>,
}

fn finding(grade: Grade, what: &str, found: impl Into<String>, remedy: &str) -> Finding {
    let remedy = (grade != Grade::Good).then(|| remedy.to_owned());
    Finding { grade, what: what.to_owned(), found: found.into(), remedy }
}

/// Prints every finding; exit 3 when one of them makes studies impossible.
pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    let cache = Cache::from_env().map_err(Error::from)?;
    let mut findings = vec![writable(cache.root()), disk(cache.root()), network(&cache)];
    findings.extend(clients(&cache));
    findings.extend([processor(), memory()]);
    findings.extend(assets(&cache, args.deep));
    for one in &findings {
        let grade = match one.grade {
            Grade::Good => "ok   ",
            Grade::Poor => "warn ",
            Grade::Fatal => "FATAL",
        };
        let remedy = one.remedy.as_ref().map(|r| format!("\n      remedy: {r}")).unwrap_or_default();
        ui::print(&format!("{grade} {}: {}{remedy}", one.what, one.found))?;
    }
    Ok(if findings.iter().any(|f| f.grade == Grade::Fatal) { Exit::Input } else { Exit::Pass })
}

fn writable(root: &Path) -> Finding {
    let probe = || -> io::Result<()> {
        std::fs::create_dir_all(root)?;
        tempfile::tempfile_in(root).map(|_| ())
    };
    let shown = root.display();
    match probe() {
        Ok(()) => finding(Grade::Good, "cache", shown.to_string(), ""),
        Err(e) => finding(Grade::Fatal, "cache", format!("{shown}: {e}"), "set STITCHBACK_CACHE to a writable folder"),
    }
}

fn disk(root: &Path) -> Finding {
    let disks = Disks::new_with_refreshed_list().ok();
    // The deepest mount point above the cache is the disk that it lies on.
    let above = disks.iter().flat_map(|disks| disks.iter()).filter(|d| root.starts_with(d.mount_point()));
    match above.max_by_key(|d| d.mount_point().components().count()) {
        None => finding(Grade::Poor, "disk", "unknown", "make sure that the cache's disk has 2 GiB left"),
        Some(disk) => {
            let free = disk.available_space();
            let grade = if free < NEEDED_DISK_BYTES { Grade::Poor } else { Grade::Good };
            finding(
                grade,
                "disk",
                format!("{} free", ui::bytes(free)),
                "all pinned assets need about 2 GiB while fetching",
            )
        }
    }
}

fn network(cache: &Cache) -> Finding {
    if cache.is_offline() {
        let remedy = "unset STITCHBACK_OFFLINE to fetch, or use: stitchback fetch --from DIR";
        return finding(Grade::Poor, "network", "forbidden by STITCHBACK_OFFLINE", remedy);
    }
    finding(Grade::Good, "network", "allowed", "")
}

fn clients(cache: &Cache) -> Vec<Finding> {
    let client = |(name, version): (&'static str, Option<String>)| {
        if let Some(version) = version {
            return finding(Grade::Good, name, version, "");
        }
        // Only assets that nothing but this client can bring are worth a warning.
        let needs_it = |manifest: &&Manifest| {
            manifest.sources.iter().all(|source| source.client() == Some(name))
                && !matches!(cache.state(manifest, false), State::Ready(_))
        };
        let missing: Vec<&str> = asset::manifests().iter().filter(needs_it).map(|m| m.name.as_str()).collect();
        if missing.is_empty() {
            return finding(Grade::Good, name, "not found, and not needed", "");
        }
        finding(Grade::Poor, name, "not found", &format!("install {name}, or fetch --from DIR: {}", missing.join(", ")))
    };
    Cache::clients().into_iter().map(client).collect()
}

fn processor() -> Finding {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let units = vector_units();
    let found =
        format!("{threads} threads, {}", if units.is_empty() { "no wide vectors".into() } else { units.join(" ") });
    let grade = if units.is_empty() { Grade::Poor } else { Grade::Good };
    finding(grade, "processor", found, "studies will run, slowly; prefer a machine with AVX2 or NEON")
}

#[cfg(target_arch = "x86_64")]
fn vector_units() -> Vec<&'static str> {
    let all = [
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
    ];
    all.into_iter().filter(|(_, has)| *has).map(|(name, _)| name).collect()
}

#[cfg(not(target_arch = "x86_64"))]
fn vector_units() -> Vec<&'static str> {
    if cfg!(target_arch = "aarch64") { vec!["neon"] } else { Vec::new() }
}

fn memory() -> Finding {
    let remedy = "close other programs, or lower `--threads`; the default judge alone takes 0.5 GiB";
    let Ok(mut system) = System::new() else { return finding(Grade::Poor, "memory", "unknown", remedy) };
    system.refresh_memory();
    let (total, free) = (system.total_memory(), system.available_memory());
    let grade = if free < NEEDED_MEMORY_BYTES { Grade::Poor } else { Grade::Good };
    let found = format!("{} free of {}", ui::bytes(free), ui::bytes(total));
    finding(grade, "memory", found, remedy)
}

fn assets(cache: &Cache, deep: bool) -> Vec<Finding> {
    let verified = if deep { "digests agree" } else { "sizes agree" };
    let asset = |manifest: &Manifest| {
        let name = manifest.name.as_str();
        match cache.state(manifest, deep) {
            State::Ready(asset) => {
                let trust = if asset.pinned { "" } else { ", unpinned" };
                finding(Grade::Good, name, format!("cached, {verified}{trust}, from {}", asset.source), "")
            }
            State::Absent => finding(Grade::Good, name, format!("not cached; stitchback fetch {name}"), ""),
            State::Damaged(why) => {
                let remedy = format!("stitchback fetch {name}");
                let why = anyhow::Error::new(why);
                finding(Grade::Fatal, name, format!("damaged: {why:#}"), &remedy)
            }
        }
    };
    asset::manifests().iter().map(asset).collect()
}
