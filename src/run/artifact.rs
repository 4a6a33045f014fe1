//! The reviewer's kit: one archive with everything that is needed to check a run, and nothing that is private.

use super::Error;
use super::record::Summary;
use crate::data::asset;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Read as _;
use std::path::Path;

/// Files of the run folder that go into the kit. No guesses, no originals, no vectors.
const FILES: [&str; 7] =
    ["plan.toml", "manifest.json", "records.jsonl", "summary.json", "evidence.json", "curves.jsonl", "verdict.json"];
/// Largest kit that is read, and largest file in it.
const KIT_CAP: u64 = 1 << 30;
/// Name of the list of hashes.
const SUMS: &str = "BLAKE3SUMS";
/// How far a number may lie away on another machine.
const TOLERANCE: f64 = 0.01;

/// The kit of a run folder as the bytes of a tar archive; the same folder gives the same bytes.
///
/// # Errors
/// A folder that holds no finished run.
pub fn pack(folder: &Path) -> Result<Vec<u8>, Error> {
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for name in FILES {
        let path = folder.join(name);
        match std::fs::read(&path) {
            Ok(bytes) => {
                files.insert(name.to_owned(), bytes);
            }
            // Only gated runs have a verdict.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && name == "verdict.json" => {}
            Err(source) => return Err(Error::Io { path: path.display().to_string(), source }),
        }
    }
    let parse = |name: &str| -> Result<Value, Error> {
        let corrupt = |e: serde_json::Error| Error::Corrupt { path: name.to_owned(), why: e.to_string() };
        serde_json::from_slice(&files[name]).map_err(corrupt)
    };
    let (manifest, summary) = (parse("manifest.json")?, parse("summary.json")?);
    let summary: Summary = serde_json::from_value(summary)
        .map_err(|e| Error::Corrupt { path: "summary.json".to_owned(), why: e.to_string() })?;
    let claims = claims(&summary, &manifest);
    files.insert("claims.json".to_owned(), pretty(&json!({ "schema": "stitchback/claims/v1", "claims": claims })));
    files.insert("REPRODUCE.md".to_owned(), instructions(&summary, &manifest, &claims).into_bytes());
    files.insert("CARDS.md".to_owned(), cards(&manifest).into_bytes());
    let sums: String = files.iter().fold(String::new(), |mut out, (name, bytes)| {
        let _ = writeln!(out, "{}  {name}", blake3::hash(bytes).to_hex());
        out
    });
    files.insert(SUMS.to_owned(), sums.into_bytes());
    tar(&files).map_err(|source| Error::Io { path: folder.display().to_string(), source })
}

/// Each verdict as a claim: command, expected value, tolerance, what it costs.
fn claims(summary: &Summary, manifest: &Value) -> Vec<Value> {
    let number = |name: &str| manifest[name].as_f64();
    let cost = json!({
        "minutes": number("wall_s").map(|s| (s / 60.0).ceil()),
        "memory_mib": number("peak_memory_mib").map(f64::ceil),
    });
    let protections = summary.protections.iter().filter_map(|p| {
        let expected = p.similarity.leak?;
        Some(json!({
            "claim": format!("with `{}`, the worst attacker reads back this share of the meaning", p.name),
            "pipeline": p.pipeline,
            "attack": p.best_attack,
            "command": "stitchback reproduce KIT",
            "where": format!("summary.json: protections[name={}].similarity.leak", p.name),
            "expected": expected,
            "interval": [p.similarity.low, p.similarity.high],
            "tolerance": TOLERANCE,
            "cost": cost,
        }))
    });
    protections.collect()
}

fn pretty(value: &Value) -> Vec<u8> {
    format!("{value:#}\n").into_bytes()
}

fn instructions(summary: &Summary, manifest: &Value, claims: &[Value]) -> String {
    let environment = &manifest["environment"];
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let mut out = format!(
        "# Reproducing `{}`\n\nUnpack this archive into a folder `KIT`, then\n\n\
         ```sh\nstitchback artifact check KIT.tar       # are these the files that were packed?\n\
         stitchback reproduce KIT                # run it again, and compare every number (exit 0: all agree)\n\
         stitchback gate KIT-again --policy gate.toml   # judge the new run by a policy of yours\n```\n\n",
        summary.study
    );
    let _ = writeln!(
        out,
        "Made with stitchback {} (commit {}) on {} with {} threads; same bits are promised on the same machine class, \
         {TOLERANCE} elsewhere.\nModels and corpora are fetched by the same command, each checked by sha256; `CARDS.md` \
         lists them with their licences.\n",
        text(&environment["stitchback"]),
        text(&environment["git_commit"]),
        text(&environment["cpu"]),
        text(&environment["threads"])
    );
    out += "| claim | expected | interval | tolerance | minutes | memory (MiB) |\n|---|---|---|---|---|---|\n";
    for claim in claims {
        let short = |value: &Value| value.as_f64().map_or("–".to_owned(), |v| format!("{v:.4}"));
        let whole = |value: &Value| value.as_f64().map_or("–".to_owned(), |v| format!("{v:.0}"));
        let _ = writeln!(
            out,
            "| {} | {} | {} to {} | {TOLERANCE} | {} | {} |",
            text(&claim["claim"]).replace('|', "\\|"),
            short(&claim["expected"]),
            short(&claim["interval"][0]),
            short(&claim["interval"][1]),
            whole(&claim["cost"]["minutes"]),
            whole(&claim["cost"]["memory_mib"])
        );
    }
    out += "\nAssumptions:\n\n";
    for line in &summary.assumptions {
        let _ = writeln!(out, "- {line}");
    }
    out
}

/// What the run was made of: models and data with source, licence and hashes.
fn cards(manifest: &Value) -> String {
    let mut out = String::from("# Models and data\n\n");
    for used in manifest["inputs"]["assets"].as_array().into_iter().flatten() {
        let name = used["asset"].as_str().unwrap_or_default();
        let about = asset::manifests().iter().find(|m| m.name == name).map(|m| m.about.clone());
        let _ = writeln!(out, "## {name}\n\n{}\n", about.unwrap_or_default());
        let _ = writeln!(
            out,
            "- licence: {}\n- source: {}",
            used["licence"].as_str().unwrap_or("unknown"),
            used["source"].as_str().unwrap_or("unknown")
        );
        for (file, sum) in used["sha256"].as_object().into_iter().flatten() {
            let _ = writeln!(out, "- `{file}`: sha256 {}", sum.as_str().unwrap_or_default());
        }
        out.push('\n');
    }
    let corpus = &manifest["inputs"]["corpus"];
    let _ =
        writeln!(out, "## The records\n\ncorpus fingerprint {}\n", corpus["fingerprint"].as_str().unwrap_or("unknown"));
    out += "## What this leaks\n\nThe kit holds scores, hashes and record counts. Originals, reconstructions and vectors stay in the run folder.\n";
    out
}

/// A tar archive without owners, times or order that could differ.
fn tar(files: &BTreeMap<String, Vec<u8>>) -> std::io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(0);
        archive.append_data(&mut header, format!("KIT/{name}"), bytes.as_slice())?;
    }
    archive.into_inner()
}

/// Whether a kit holds exactly the files that were packed; how many there are.
///
/// # Errors
/// A file that is missing, added or changed; an archive that is none, or larger than any kit.
pub fn check(archive: &Path) -> Result<usize, Error> {
    let corrupt = |why: String| Error::Corrupt { path: archive.display().to_string(), why };
    let failed = |source| Error::Io { path: archive.display().to_string(), source };
    let file = std::fs::File::open(archive).map_err(failed)?;
    let mut found: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut total = 0;
    for entry in tar::Archive::new(file.take(KIT_CAP)).entries().map_err(failed)? {
        let mut entry = entry.map_err(|e| corrupt(format!("it is no kit: {e}")))?;
        let path = entry.path().map_err(|e| corrupt(format!("a name cannot be read: {e}")))?.into_owned();
        let name = path.strip_prefix("KIT").ok().and_then(|p| p.to_str()).map(str::to_owned);
        let plain = name.filter(|n| !n.is_empty() && !n.contains(['/', '\\']) && entry.header().entry_type().is_file());
        let name = plain.ok_or_else(|| corrupt(format!("`{}` is no file of a kit", path.display())))?;
        total += entry.header().size().unwrap_or(u64::MAX).min(KIT_CAP);
        if total >= KIT_CAP {
            return Err(corrupt(format!("it holds more than {KIT_CAP} bytes")));
        }
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).map_err(|e| corrupt(format!("`{name}` is cut off: {e}")))?;
        if found.insert(name.clone(), bytes).is_some() {
            return Err(corrupt(format!("`{name}` is in it twice")));
        }
    }
    let sums = found.remove(SUMS).ok_or_else(|| corrupt(format!("it has no `{SUMS}`")))?;
    let sums = String::from_utf8(sums).map_err(|_| corrupt(format!("`{SUMS}` is no text")))?;
    for line in sums.lines() {
        let (sum, name) = line.split_once("  ").ok_or_else(|| corrupt(format!("`{SUMS}`: `{line}`")))?;
        let bytes = found.remove(name).ok_or_else(|| corrupt(format!("`{name}` is missing")))?;
        if blake3::hash(&bytes).to_hex().as_str() != sum {
            return Err(corrupt(format!("`{name}` was changed")));
        }
    }
    match found.keys().next() {
        Some(name) => Err(corrupt(format!("`{name}` was added"))),
        None => Ok(sums.lines().count()),
    }
}

/// The tolerance that a kit promises.
pub fn tolerance() -> f64 {
    TOLERANCE
}
