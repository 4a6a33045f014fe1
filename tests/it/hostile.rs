//! Every reader of files that strangers write, fed with spoilt ones: an error or a value, never a panic.
//!
//! `STITCHBACK_FUZZ_SECONDS=600 cargo test --release --test it hostile` goes on for ten minutes for each reader, and
//! `STITCHBACK_FUZZ_SEEDS=fuzz/seeds` writes the good files for the targets in `fuzz/`, which look for paths that no spoiling here
//! finds.

use rand::RngExt;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use stitchback::contribute::log::{Checkpoint, Proof, Tree, leaf};
use stitchback::contribute::message::{Body, Envelope};
use stitchback::contribute::receipt::{EdgeKey, Kind, Receipt};
use stitchback::data::asset::archive::{self, Limits};
use stitchback::data::{Picture, corpus::local, vectors};
use stitchback::encode::Embeddings;
use stitchback::encode::process::Frame;
use stitchback::gate::{Baseline, Policy};
use stitchback::protect::Pipeline;
use stitchback::run::{artifact, scale};
use stitchback::seed;
use stitchback::study::Study;

/// What a reader makes of a file: true for a value.
type Reader = fn(&Path) -> bool;

fn bytes(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_default()
}

fn text(path: &Path) -> String {
    String::from_utf8_lossy(&bytes(path)).into_owned()
}

fn entries(path: &Path) -> bool {
    archive::read_file(path, &Limits::default(), &|_| Some(1 << 20)).is_ok()
}

fn edge() -> EdgeKey {
    EdgeKey::new("edge.test", &[7; 32]).expect("a plain name")
}

/// Each with its target in `fuzz/`.
const READERS: [(&str, &str, Reader); 21] = [
    ("npy", "x.npy", |p| vectors::read(p, None).is_ok()),
    ("safetensors", "x.safetensors", |p| vectors::read(p, None).is_ok()),
    ("parquet", "x.parquet", |p| vectors::read(p, None).is_ok()),
    ("vectors_jsonl", "x.jsonl", |p| vectors::read(p, None).is_ok()),
    ("records_jsonl", "texts.jsonl", |p| local::every_record(p).is_ok()),
    ("records_parquet", "texts.parquet", |p| local::every_record(p).is_ok()),
    ("policy", "gate.toml", |p| Policy::parse("gate.toml", &text(p)).is_ok()),
    ("study", "study.toml", |p| Study::parse("study.toml", &text(p)).is_ok()),
    ("pipeline", "pipeline.txt", |p| Pipeline::parse(&text(p)).is_ok()),
    ("plan", "plan.jsonl", |p| scale::read_plan(p).is_ok()),
    ("baseline", "baseline.json", |p| Baseline::read(p).is_ok()),
    ("kit", "kit.tar", |p| artifact::check(p).is_ok()),
    ("frame", "frame.bin", |p| Frame::read(&mut &bytes(p)[..]).is_ok()),
    ("archive", "a.zip", entries),
    ("archive", "a.tar.gz", entries),
    ("picture", "x.png", |p| Picture::open(p).is_ok()),
    ("picture", "x.jpg", |p| Picture::open(p).is_ok()),
    ("picture", "x.gif", |p| Picture::open(p).is_ok()),
    ("receipt", "receipt.cwt", |p| edge().public().open(&bytes(p)).is_ok()),
    ("proof", "r.proof", |p| Proof::parse(&text(p)).and_then(|proof| proof.verify(&edge().public())).is_ok()),
    ("envelope", "message.json", |p| {
        serde_json::from_slice::<Envelope>(&bytes(p)).is_ok_and(|envelope| envelope.open().is_ok())
    }),
];

/// A picture of stripes in three formats.
fn pictures(put: &dyn Fn(&str, &[u8])) {
    use image::ImageFormat;
    let stripes = image::RgbImage::from_fn(24, 16, |x, y| image::Rgb([x as u8 * 10, y as u8 * 15, (x * y) as u8]));
    for (name, format) in [("x.png", ImageFormat::Png), ("x.jpg", ImageFormat::Jpeg), ("x.gif", ImageFormat::Gif)] {
        let mut out = std::io::Cursor::new(Vec::new());
        image::DynamicImage::from(stripes.clone()).write_to(&mut out, format).expect("memory");
        put(name, &out.into_inner());
    }
}

/// A zip and a gzipped tar of two files.
fn archives(put: &dyn Fn(&str, &[u8])) {
    let files = [("a/one.txt", &b"one two three"[..]), ("a/two.json", b"{}")];
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default()));
    for (name, content) in files {
        zip.start_file(name, zip::write::SimpleFileOptions::default()).expect("memory");
        zip.write_all(content).expect("memory");
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, name, content).expect("memory");
    }
    put("a.zip", &zip.finish().expect("memory").into_inner());
    put("a.tar.gz", &tar.into_inner().and_then(flate2::write::GzEncoder::finish).expect("memory"));
}

/// A receipt, its proof, and a message.
fn loop_papers(put: &dyn Fn(&str, &[u8])) {
    let (key, name) = (edge(), "edge.test".to_owned());
    let receipt = Receipt {
        issuer: name.clone(),
        subject: "p".to_owned(),
        audience: name.clone(),
        expires_s: 2_000_000_000,
        issued_s: 1_900_000_000,
        id: [3; 16],
        kind: Kind::Issue,
        group: "pets".to_owned(),
        epoch: 12,
        catalogue: [4; 32],
        policy: [5; 32],
        mechanism: [6; 32],
        commitment: [7; 32],
        value: -5,
        parts: [1, 2, 3, 4],
        budget_milli: 1000,
        previous: [0; 32],
        nonce: [9; 16],
    };
    let (token, salt, mut tree) = (key.seal(&receipt), [5; 16], Tree::default());
    tree.push(b"another");
    let index = tree.push(&leaf(&salt, &token));
    let checkpoint = Checkpoint { origin: name.clone(), size: tree.len(), root: tree.root(tree.len()) }.sign(&key);
    let path = tree.inclusion(index, tree.len()).expect("inside");
    put("receipt.cwt", &token);
    put("r.proof", Proof { token, salt, index, path, checkpoint }.to_string().as_bytes());
    let message = Envelope::seal(&Body::Register { edge: name }, key.operator());
    put("message.json", &serde_json::to_vec(&message).expect("text"));
}

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
    put("texts.parquet", &parquet_of(&ids));
    pictures(&put);
    archives(&put);
    loop_papers(&put);
    READERS
        .iter()
        .map(|(target, name, reader)| {
            let path = folder.join(name);
            let bytes = std::fs::read(&path).expect("just written");
            keep_seed(target, name, &bytes);
            (path, bytes, *reader)
        })
        .collect()
}

/// A Parquet file with the columns `id` and `text`.
fn parquet_of(ids: &[String]) -> Vec<u8> {
    use parquet::data_type::{ByteArray, ByteArrayType};
    let schema = "message records { required binary id (STRING); required binary text (STRING); }";
    let schema = std::sync::Arc::new(parquet::schema::parser::parse_message_type(schema).expect("a schema"));
    let mut file = parquet::file::writer::SerializedFileWriter::new(Vec::new(), schema, std::sync::Arc::default())
        .expect("memory");
    let mut group = file.next_row_group().expect("memory");
    for before in ["", "text of "] {
        let values: Vec<ByteArray> = ids.iter().map(|id| format!("{before}{id}").as_str().into()).collect();
        let mut writer = group.next_column().expect("memory").expect("two columns");
        writer.typed::<ByteArrayType>().write_batch(&values, None, None).expect("memory");
        writer.close().expect("memory");
    }
    group.close().expect("memory");
    file.into_inner().expect("memory")
}

/// Keeps a good file as a seed of `fuzz/`, where the environment names the folder.
fn keep_seed(target: &str, name: &str, bytes: &[u8]) {
    if let Some(folder) = std::env::var_os("STITCHBACK_FUZZ_SEEDS").map(|dir| Path::new(&dir).join(target)) {
        std::fs::create_dir_all(&folder).expect("a folder");
        std::fs::File::create(folder.join(name)).and_then(|mut file| file.write_all(bytes)).expect("writable");
    }
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
        while long.map_or(tried < 250, |limit| clock.elapsed() < limit) {
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

/// What each kind of hostile file is called: the error names the file or the thing, and the exit code is that of bad input.
#[test]
fn hostile_files_are_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let put = |name: &str, bytes: &[u8]| {
        std::fs::File::create(folder.path().join(name)).and_then(|mut f| f.write_all(bytes)).expect("writable");
    };
    let refused = |name: &str, arguments: &[&str], code: i32, why: &str| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_stitchback"));
        let output = command.current_dir(folder.path()).args(arguments).output().expect("the program starts");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{name}: {said}");
        assert!(said.contains(name) && said.contains(why), "{name}: {said}");
    };
    let vectors = |name: &str, bytes: &[u8], why: &str| {
        put(name, bytes);
        refused(name, &["protect", "--pipeline", "identity", "--input", name, "--output", "out.npy"], 3, why);
    };
    let npy = |header: &str, data: &[u8]| {
        let mut out = b"\x93NUMPY\x01\x00".to_vec();
        out.extend((header.len() as u16).to_le_bytes());
        [out, header.as_bytes().to_vec(), data.to_vec()].concat()
    };
    let plain =
        |descr: &str, shape: &str| format!("{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n");
    vectors("cut.npy", &npy(&plain("'<f4'", "(2, 2)"), &[0; 12]), "needs 16 bytes, the file holds 12");
    vectors("huge.npy", &npy(&plain("'<f4'", "(99999999, 99999999)"), &[0; 16]), "needs");
    vectors(
        "nan.npy",
        &npy(&plain("'<f4'", "(1, 2)"), &[0, 0, 0, 0, 0, 0, 0xc0, 0x7f]),
        "row 0, column 1 is not finite",
    );
    vectors("objects.npy", &npy(&plain("'|O'", "(1, 2)"), &[0; 16]), "Python objects, which can run code");
    vectors("deep.npy", &npy(&plain(&"[".repeat(500), "(1,)"), &[]), "nests deeper");
    vectors("x.pkl", b"cos\nsystem\n", "pickled files can run code");
    let lies = [&u64::MAX.to_le_bytes()[..], b"{}"].concat();
    vectors("lies.safetensors", &lies, "not a safetensors file");
    let deep = "{\"embedding\": [1], \"more\": ".to_owned() + &"[".repeat(200_000);
    vectors("deep.jsonl", deep.as_bytes(), "EOF while parsing a list");
    vectors("nan.jsonl", b"{\"embedding\": [1, NaN]}\n", "column 19");
    vectors("large.jsonl", b"{\"embedding\": [1e39]}\n", "number out of range");
    vectors("cut.parquet", b"PAR1\0\0\0\0PAR1", "not a Parquet file");
    for (name, text, why) in [
        ("deep.toml", "a = ".to_owned() + &"[".repeat(20_000), "deep.toml"),
        ("twice.toml", "schema = 1\nschema = 1\n".to_owned(), "duplicate"),
        ("unknown.toml", "schema = 1\nnmae = \"x\"\n".to_owned(), "nmae"),
    ] {
        put(name, text.as_bytes());
        refused(name, &["run", name], 2, why);
    }
    put("deep-policy.toml", ("check = ".to_owned() + &"{a = ".repeat(5000)).as_bytes());
    refused("deep-policy.toml", &["gate", "--config-only", "--policy", "deep-policy.toml"], 2, "deep-policy.toml");
    // A folder of pictures whose list leads out of it.
    std::fs::create_dir(folder.path().join("album")).expect("a folder");
    put("album/1.png", b"no picture");
    put("album/metadata.csv", b"file_name,topic\n../../etc/passwd,x\n");
    put(
        "pictures.toml",
        b"schema = 1\nname = \"p\"\n[data]\ncorpus = \"album\"\n[encode]\nvictim = \"toy\"\njudges = [\"toy-judge\"]\n\
        [[protect]]\nname = \"p\"\npipeline = \"identity\"\n[[attack]]\nkind = \"blind\"\n",
    );
    refused("metadata.csv", &["run", "pictures.toml", "--quiet"], 3, "../../etc/passwd");
}
