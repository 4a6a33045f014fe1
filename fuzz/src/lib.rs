//! One function for each parser: bytes of a stranger in; a value or an error, never a panic, never memory without bound.

use std::io::{Cursor, Write as _};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use stitchback::contribute::log::Proof;
use stitchback::contribute::message::Envelope;
use stitchback::contribute::receipt::{EdgeKey, EdgePublic};
use stitchback::data::asset::archive::{self, Limits};
use stitchback::data::{Picture, corpus::local, vectors};
use stitchback::encode::process::Frame;
use stitchback::gate::{Baseline, Policy};
use stitchback::protect::Pipeline;
use stitchback::run::{artifact, scale};
use stitchback::study::Study;

/// The parquet crate may panic on a bad file and is caught: only what comes through counts.
pub fn caught_panics_are_no_crash() {
    std::panic::set_hook(Box::new(|_| {}));
}

/// A folder of this process.
fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| tempfile::tempdir().expect("a temporary folder").keep())
}

/// For readers that open a file themselves.
fn on_disk<T>(name: &str, bytes: &[u8], read: impl Fn(&Path) -> T) {
    let path = folder().join(name);
    std::fs::File::create(&path).and_then(|mut file| file.write_all(bytes)).expect("a temporary file");
    read(&path);
}

fn text(bytes: &[u8], read: impl Fn(&str)) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        read(text);
    }
}

fn table(name: &str, bytes: &[u8]) {
    let _ = vectors::parse_table(Path::new(name), bytes.to_vec(), None);
}

pub fn npy(bytes: &[u8]) {
    table("x.npy", bytes);
}

pub fn safetensors(bytes: &[u8]) {
    table("x.safetensors", bytes);
}

pub fn parquet(bytes: &[u8]) {
    table("x.parquet", bytes);
}

pub fn vectors_jsonl(bytes: &[u8]) {
    table("x.jsonl", bytes);
}

pub fn records_jsonl(bytes: &[u8]) {
    on_disk("texts.jsonl", bytes, local::every_record);
}

pub fn records_parquet(bytes: &[u8]) {
    on_disk("texts.parquet", bytes, local::every_record);
}

pub fn study(bytes: &[u8]) {
    text(bytes, |text| {
        if let Ok(study) = Study::parse("study.toml", text) {
            // What is printed is read again as the same study.
            assert_eq!(Study::parse("plan.toml", &study.to_toml()).expect("its own text"), study);
        }
    });
}

pub fn policy(bytes: &[u8]) {
    text(bytes, |text| drop(Policy::parse("gate.toml", text)));
}

pub fn pipeline(bytes: &[u8]) {
    text(bytes, |text| {
        if let Ok(pipeline) = Pipeline::parse(text) {
            assert_eq!(Pipeline::parse(&pipeline.to_string()).expect("its own text"), pipeline);
        }
    });
}

pub fn plan(bytes: &[u8]) {
    on_disk("plan.jsonl", bytes, scale::read_plan);
}

pub fn baseline(bytes: &[u8]) {
    on_disk("baseline.json", bytes, Baseline::read);
}

pub fn kit(bytes: &[u8]) {
    on_disk("kit.tar", bytes, artifact::check);
}

pub fn archive(bytes: &[u8]) {
    let limits = Limits { entries: 1000, entry_bytes: 1 << 20, total_bytes: 16 << 20, ratio: 200 };
    let _ = archive::read(Cursor::new(bytes), "archive", &limits, &|_| Some(1 << 20));
}

pub fn frame(bytes: &[u8]) {
    let mut rest = bytes;
    while let Ok(Some(_)) = Frame::read(&mut rest) {}
}

pub fn picture(bytes: &[u8]) {
    let _ = Picture::decode(bytes);
}

fn edge() -> &'static EdgePublic {
    static EDGE: OnceLock<EdgePublic> = OnceLock::new();
    EDGE.get_or_init(|| EdgeKey::new("edge.test", &[7; 32]).expect("a key").public())
}

pub fn receipt(bytes: &[u8]) {
    let _ = edge().open(bytes);
}

/// The claims inside a receipt, which are read behind its signature.
pub fn claims(bytes: &[u8]) {
    let _ = stitchback::contribute::receipt::claims(bytes);
}

pub fn proof(bytes: &[u8]) {
    text(bytes, |text| {
        if let Ok(proof) = Proof::parse(text) {
            let _ = proof.verify(edge());
        }
    });
}

pub fn envelope(bytes: &[u8]) {
    if let Ok(envelope) = serde_json::from_slice::<Envelope>(bytes) {
        let _ = envelope.open();
    }
}

pub fn torch(bytes: &[u8]) {
    let _ = stitchback::data::asset::doors::torch(bytes, folder());
}

pub fn e5s1(bytes: &[u8]) {
    let _ = stitchback::data::asset::doors::e5s1(bytes, folder());
}
