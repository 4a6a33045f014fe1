//! Every reader of files that strangers write, fed with spoilt ones: an error or a value, never a panic.
//!
//! `STITCHBACK_FUZZ_SECONDS=600 cargo test --release --test it hostile` goes on for ten minutes for each reader.

use rand::RngExt;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use stitchback::data::{corpus::local, vectors};
use stitchback::encode::Embeddings;
use stitchback::encode::process::Frame;
use stitchback::gate::{Baseline, Policy};
use stitchback::protect::Pipeline;
use stitchback::run::{artifact, scale};
use stitchback::seed;
use stitchback::study::Study;

/// What a reader makes of a file: true for a value.
type Reader = fn(&Path) -> bool;

fn text(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}

const READERS: [(&str, Reader); 12] = [
    ("x.npy", |p| vectors::read(p, None).is_ok()),
    ("x.safetensors", |p| vectors::read(p, None).is_ok()),
    ("x.parquet", |p| vectors::read(p, None).is_ok()),
    ("x.jsonl", |p| vectors::read(p, None).is_ok()),
    ("texts.jsonl", |p| local::every_record(p).is_ok()),
    ("gate.toml", |p| Policy::parse("gate.toml", &text(p)).is_ok()),
    ("study.toml", |p| Study::parse("study.toml", &text(p)).is_ok()),
    ("pipeline.txt", |p| Pipeline::parse(&text(p)).is_ok()),
    ("plan.jsonl", |p| scale::read_plan(p).is_ok()),
    ("baseline.json", |p| Baseline::read(p).is_ok()),
    ("kit.tar", |p| artifact::check(p).is_ok()),
    ("frame.bin", |p| Frame::read(&mut &std::fs::read(p).unwrap_or_default()[..]).is_ok()),
];

/// A good file of each kind.
fn samples(folder: &Path) -> Vec<(PathBuf, Vec<u8>, Reader)> {
    let table = Embeddings::new((0..60).map(|i| i as f32 / 7.0).collect(), 6).expect("finite");
    let ids: Vec<String> = (0..10).map(|i| format!("r{i}")).collect();
    let put = |name: &str, bytes: &[u8]| {
        std::fs::File::create(folder.join(name)).and_then(|mut f| f.write_all(bytes)).expect("writable");
    };
    for name in ["x.npy", "x.safetensors", "x.parquet"] {
        vectors::write_table(&folder.join(name), &table, Some(&ids), None).expect("writable");
    }
    put("x.jsonl", b"{\"id\": 1, \"embedding\": [1, 2.5], \"text\": \"a\"}\n{\"id\": \"b\", \"vector\": [0, -1e3]}\n");
    put("texts.jsonl", "{\"text\": \"a ball\", \"id\": 7, \"owner\": \"me\"}\n{\"text\": \"naïve\"}\n".as_bytes());
    put(
        "gate.toml",
        b"schema = \"stitchback/gate/v1\"\npreset = \"strict\"\n[[check]]\nid = \"a\"\nselect = { metric = \"judge_*\" }\nmax = 0.2\n\
          [[waiver]]\nid = \"a\"\nuntil = 2027-03-31\nreason = \"r\"\napproved_by = \"m\"\n",
    );
    put(
        "study.toml",
        b"schema = 1\nname = \"t\"\n[data]\ncorpus = \"toy\"\n[encode]\nvictim = \"toy\"\njudges = [\"toy-judge\"]\n\
          [[protect]]\nname = \"p\"\npipeline = \"identity\"\n[[attack]]\nkind = \"blind\"\n",
    );
    put("pipeline.txt", b"clip(l2=1) | prototype(members=20) | gaussian(epsilon=1, delta=1e-5)");
    put(
        "plan.jsonl",
        b"{\"id\":\"ab\",\"argv\":[\"stitchback\"],\"deps\":[],\"cpus\":2,\"mem_mb\":3,\"minutes\":0.5,\"folder\":\"f\",\"what\":\"w\"}\n",
    );
    put(
        "baseline.json",
        b"{\"schema\":\"stitchback/baseline/v1\",\"entries\":[{\"corpus\":\"c\",\"protection\":\"p\",\"asked\":\"worst\",\"metric\":\"m\",\
          \"fingerprint\":{\"metric_version\":1,\"data\":\"d\",\"victim\":\"v\",\"judges\":[],\"attack\":\"a\"},\"kind\":\"mean\",\"a\":[[0.5,null]],\"b\":[]}]}",
    );
    let mut archive = tar::Builder::new(Vec::new());
    let sum = format!("{}  a.json\n", blake3::hash(b"{}").to_hex());
    for (name, bytes) in [("KIT/a.json", &b"{}"[..]), ("KIT/BLAKE3SUMS", sum.as_bytes())] {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        archive.append_data(&mut header, name, bytes).expect("memory");
    }
    put("kit.tar", &archive.into_inner().expect("memory"));
    let mut frame = Vec::new();
    let header = serde_json::json!({ "op": "encode", "n": 2 });
    Frame { header, payload: vec![1; 40] }.write(&mut frame).expect("memory");
    put("frame.bin", &frame);
    READERS
        .iter()
        .map(|(name, reader)| {
            let path = folder.join(name);
            let bytes = std::fs::read(&path).expect("just written");
            (path, bytes, *reader)
        })
        .collect()
}

/// One to four spoilings of a file.
fn spoil(good: &[u8], rng: &mut seed::Stream) -> Vec<u8> {
    let mut bytes = good.to_vec();
    for _ in 0..rng.random_range(1..=4) {
        let n = bytes.len();
        if n == 0 {
            break;
        }
        let at = rng.random_range(0..n);
        match rng.random_range(0..7) {
            0 => bytes[at] ^= 1 << rng.random_range(0..8),
            1 => bytes.truncate(at),
            2 => bytes[at] = rng.random(),
            3 => {
                let end = (at + rng.random_range(1..64)).min(n);
                let part = bytes[at..end].to_vec();
                let place = rng.random_range(0..n);
                bytes.splice(place..place, part);
            }
            4 => {
                let extreme = [0_u64, 1, u64::MAX, i64::MAX as u64, i32::MAX as u64, u64::from(u32::MAX)];
                let value = extreme[rng.random_range(0..extreme.len())].to_le_bytes();
                let width = if rng.random() { 4 } else { 8 };
                for (place, byte) in bytes[at..].iter_mut().zip(&value[..width]) {
                    *place = *byte;
                }
            }
            5 => {
                let piece: &[u8] =
                    [&b"[["[..], b"{\"a\":", b"../", b"\0", b"1e999", b"-", b"\xff\xfe", b"\"\\u0000\"", b"9999999999"]
                        [rng.random_range(0..9)];
                bytes.splice(at..at, piece.repeat(rng.random_range(1..40)));
            }
            _ => {
                let end = (at + rng.random_range(1..32)).min(n);
                bytes.drain(at..end);
            }
        }
    }
    bytes
}

#[test]
fn spoilt_files_give_errors_and_never_panics() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let long = std::env::var("STITCHBACK_FUZZ_SECONDS").ok().and_then(|v| v.parse().ok()).map(Duration::from_secs);
    for (path, good, reader) in samples(folder.path()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        assert!(reader(&path), "{name} is good as it is");
        let mut rng = seed::stream(1, &name, "spoilt files");
        let clock = Instant::now();
        let (mut tried, mut read) = (0, 0);
        while long.map_or(tried < 400, |limit| clock.elapsed() < limit) {
            let bad = spoil(&good, &mut rng);
            std::fs::File::create(&path).and_then(|mut f| f.write_all(&bad)).expect("writable");
            read += usize::from(reader(&path));
            tried += 1;
        }
        // A reader that takes nothing, or everything, is not tried by this.
        assert!(read < tried, "{name}: {read} of {tried} spoilt files were taken");
        if long.is_some() {
            // The figure of a long run belongs to whoever asked for it.
            let _ = writeln!(std::io::stderr(), "{name}: {tried} spoilt files, {read} still readable, no panic");
        }
    }
}
