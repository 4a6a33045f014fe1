//! Pictures as users bring them: folders, broken files, pairs to be scored; and the real corpora.

use assert_cmd::Command;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use stitchback::data::corpus::{self, toy_pictures};
use stitchback::data::{Keep, Medium, Picture, asset};

fn stitchback() -> Command {
    Command::new(env!("CARGO_BIN_EXE_stitchback"))
}

fn toys(n: usize) -> Vec<Picture> {
    let keep = Keep { side_px: 24, ..Keep::default() };
    let corpus = toy_pictures::generate(0, &keep).expect("pictures");
    corpus.records.into_iter().step_by(1600 / n).take(n).filter_map(|record| record.picture).collect()
}

/// Two folders: toys, and the same ones darker; the last guess has another size.
fn pairs(root: &Path, n: usize) {
    for (number, picture) in toys(n).iter().enumerate() {
        let darker: Vec<u8> = picture.rgb().iter().map(|v| v / 2).collect();
        let mut guess = Picture::new(24, 24, darker);
        if number + 1 == n {
            guess = guess.resized(40, 30);
        }
        for (side, picture) in [("truth", picture), ("guess", &guess)] {
            std::fs::create_dir_all(root.join(side)).expect("scratch");
            picture.save_png(&root.join(side).join(format!("{number:02}.png"))).expect("scratch");
        }
    }
}

fn score(root: &Path, more: &[&str]) -> std::process::Output {
    let (truth, guess) = (root.join("truth"), root.join("guess"));
    stitchback().arg("score").arg("--truth").arg(truth).arg("--guess").arg(guess).args(more).output().expect("it runs")
}

#[test]
fn folders_of_pictures_are_scored_with_floors() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    pairs(folder.path(), 12);
    let output = score(folder.path(), &["--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((said["pairs"].as_u64(), said["resized"].as_u64()), (Some(12), Some(1)));
    let metric = |id: &str| {
        let metrics = said["metrics"].as_array().expect("a list");
        metrics.iter().find(|m| m["metric"] == id).unwrap_or_else(|| panic!("no {id}")).clone()
    };
    // Half as bright is the same picture to a correlation, and far from it to an error.
    assert!(metric("pixel_correlation")["value"].as_f64() > Some(0.95));
    assert!(metric("psnr")["value"].as_f64() < Some(15.0));
    for id in ["mse", "psnr", "mean_psnr", "pixel_correlation", "ssim"] {
        let row = metric(id);
        assert!(row["floor"].is_number() && row["low"].as_f64() <= row["high"].as_f64(), "{row}");
    }
    let table = score(folder.path(), &[]);
    assert!(String::from_utf8_lossy(&table.stdout).contains("Guesses resized to the size of their originals: 1"));
}

#[test]
fn a_judge_of_texts_cannot_judge_pictures() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    pairs(folder.path(), 4);
    let output = score(folder.path(), &["--judge", "all-minilm-l6-v2"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() != Some(0) && said.contains("texts, not pictures"), "{said}");
}

#[test]
fn hostile_pictures_are_bad_input_and_named() {
    let toy = toys(1).remove(0);
    let mut bomb = toy.png();
    bomb[16..24].copy_from_slice(&[0x7f, 0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff]);
    let whole = toy.png();
    let cases: [(&[u8], &str); 5] = [
        (b"", "an empty file"),
        (b"#!/bin/sh\necho no picture", "not a picture"),
        (&whole[..whole.len() / 2], "PNG file"),
        (&bomb, "02.png"),
        (b"GIF89a\xff\xff\xff\xff\x00\x00\x00", "02.png"),
    ];
    for (bytes, said) in cases {
        let folder = tempfile::tempdir().expect("a scratch folder");
        pairs(folder.path(), 4);
        let path = folder.path().join("guess/02.png");
        File::create(&path).and_then(|mut file| file.write_all(bytes)).expect("scratch");
        let output = score(folder.path(), &[]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{said}: {stderr}");
        assert!(stderr.contains(said) && stderr.contains("02.png"), "{said}: {stderr}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn a_guess_too_few_is_bad_input() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    pairs(folder.path(), 4);
    std::fs::remove_file(folder.path().join("guess/01.png")).expect("scratch");
    let output = score(folder.path(), &[]);
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).contains("`01` is only among the originals"));
}

/// Counts after cleaning, as the corpora's packages give them.
#[test]
fn every_corpus_of_pictures_is_read_with_its_topics() {
    let corpora =
        [("openclipart", 2324, 1708, 13), ("tuxpaint-stamps", 424, 388, 15), ("emoji-google", 1897, 1659, 10)];
    for (name, kept, documents, topics) in corpora {
        let corpus = corpus::open(name, &Keep::default(), &mut |name, wanted| -> Result<_, stitchback::Error> {
            Ok(asset::ensure(name, &())?.entries(wanted)?)
        })
        .unwrap_or_else(|e| panic!("{e}"));
        let distinct = |of: &dyn Fn(&stitchback::data::Record) -> Option<String>| {
            corpus.records.iter().filter_map(of).collect::<std::collections::BTreeSet<_>>().len()
        };
        assert_eq!(corpus.medium(), Medium::Picture);
        assert_eq!(corpus.records.len(), kept, "{name}: {}", corpus.stats);
        assert_eq!(distinct(&|record| Some(record.document.clone())), documents, "{name}");
        assert_eq!(distinct(&|record| record.topic.clone()), topics, "{name}");
        let all: Vec<usize> = (0..kept).collect();
        assert!(corpus.pictures(&all).iter().all(|p| (p.width(), p.height()) == (64, 64)));
    }
}
