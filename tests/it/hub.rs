//! Encoders and corpora straight from the hub, which is a mock on this machine: `HF_ENDPOINT` names it.

use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// Files of each repository.
type Hub = BTreeMap<&'static str, BTreeMap<String, Vec<u8>>>;

/// A hub of one thread for each connection.
fn serve(hub: Hub) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = format!("http://{}", listener.local_addr().expect("bound"));
    let hub = Arc::new(hub);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let hub = Arc::clone(&hub);
            std::thread::spawn(move || answer(stream, &hub));
        }
    });
    address
}

fn answer(mut stream: TcpStream, hub: &Hub) {
    let mut lines = BufReader::new(stream.try_clone().expect("a socket")).lines().map_while(Result::ok);
    let Some(first) = lines.next() else { return };
    let range = lines
        .take_while(|line| !line.is_empty())
        .find_map(|line| line.to_lowercase().strip_prefix("range: bytes=").map(str::to_owned));
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut reply = |status: &str, head: &str, body: &[u8]| {
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\nx-repo-commit: {COMMIT}\r\n{head}Connection: close\r\n\r\n",
            body.len()
        );
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
    };
    for (name, files) in hub {
        let kind = if name.starts_with("datasets/") { "" } else { "models/" };
        if path.starts_with(&format!("/api/{kind}{name}")) {
            let listed: Vec<_> = files.keys().map(|file| json!({ "rfilename": file })).collect();
            return reply("200 OK", "", json!({ "sha": COMMIT, "siblings": listed }).to_string().as_bytes());
        }
        if let Some(bytes) = path.strip_prefix(&format!("/{name}/resolve/{COMMIT}/")).and_then(|file| files.get(file)) {
            let (from, to) = range.as_deref().and_then(|r| r.split_once('-')).unwrap_or(("0", ""));
            let from: usize = from.parse().expect("a number");
            let to = to.parse::<usize>().map_or(bytes.len(), |to| (to + 1).min(bytes.len()));
            let head = format!(
                "ETag: \"{}\"\r\nContent-Range: bytes {from}-{}/{}\r\n",
                blake3::hash(bytes).to_hex(),
                to.saturating_sub(1),
                bytes.len()
            );
            return reply("206 Partial Content", &head, &bytes[from.min(to)..to]);
        }
    }
    reply("404 Not Found", "", b"no such thing");
}

/// Every file below a folder by its relative path.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let (mut found, mut open) = (BTreeMap::new(), vec![dir.to_owned()]);
    while let Some(next) = open.pop() {
        for path in std::fs::read_dir(next).expect("a folder").map(|e| e.expect("an entry").path()) {
            if path.is_dir() {
                open.push(path);
            } else {
                let name = path.strip_prefix(dir).expect("below").to_string_lossy().into_owned();
                found.insert(name, std::fs::read(&path).expect("reads"));
            }
        }
    }
    found
}

struct Desk {
    folder: tempfile::TempDir,
    hub: String,
}

impl Desk {
    fn run(&self, arguments: &[&str], offline: bool) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stitchback"));
        command.current_dir(self.folder.path()).stdin(Stdio::null());
        command.env("HF_ENDPOINT", &self.hub).env("STITCHBACK_CACHE", self.folder.path().join("cache"));
        command.env("HF_HOME", self.folder.path().join("hf")).env_remove("STITCHBACK_OFFLINE");
        if offline {
            command.env("STITCHBACK_OFFLINE", "1");
        }
        command.args(arguments).output().expect("the program starts")
    }

    fn embed(&self, encoder: &str, output: &str, offline: bool) -> Output {
        self.run(&["embed", "--encoder", encoder, "--input", "t.txt", "--output", output, "--quiet"], offline)
    }

    fn put(&self, name: &str, text: &str) {
        std::fs::File::create(self.folder.path().join(name))
            .and_then(|mut f| f.write_all(text.as_bytes()))
            .expect("writes");
    }

    fn vectors(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.folder.path().join(name)).expect("vectors")
    }
}

#[test]
fn an_encoder_of_the_hub_is_fetched_once_and_wrong_ones_are_named() {
    let tiny = super::encode_folder::tiny();
    let good = files(tiny.path());
    let without = |name: &str| -> BTreeMap<String, Vec<u8>> {
        good.iter().filter(|(file, _)| *file != name).map(|(f, b)| (f.clone(), b.clone())).collect()
    };
    let mut outside = good.clone();
    let module = br#"[{"idx": 0, "name": "0", "path": "../up", "type": "sentence_transformers.models.Transformer"}]"#;
    outside.insert("modules.json".to_owned(), module.to_vec());
    let hub = serve(BTreeMap::from([
        ("acme/tiny", good.clone()),
        ("acme/plain", without("modules.json")),
        ("acme/pickled", without("model.safetensors")),
        ("acme/outside", outside),
    ]));
    let desk = Desk { folder: tempfile::tempdir().expect("a temporary folder"), hub };
    desk.put("t.txt", "the ball rolled under a car\nthe car\n");
    let refused = |encoder: &str, offline: bool, code: i32, why: &str| {
        let output = desk.embed(encoder, "no.npy", offline);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{encoder}: {said}");
        assert!(said.contains(why), "{encoder}: {said}");
    };

    // Without network it is said what would help; no folder is left behind.
    refused("hub:acme/tiny", true, 3, "while online, run: stitchback fetch hub:acme/tiny");
    let output = desk.embed("hub:acme/tiny", "hub.npy", false);
    assert!(output.status.success(), "{output:?}");
    assert!(desk.embed(&tiny.path().display().to_string(), "folder.npy", true).status.success());
    assert_eq!(desk.vectors("hub.npy"), desk.vectors("folder.npy"));
    // The second time the cache has it.
    assert!(desk.embed("hub:acme/tiny", "again.npy", true).status.success());
    assert_eq!(desk.vectors("again.npy"), desk.vectors("hub.npy"));
    let record: PathBuf = desk.folder.path().join("cache/hub/acme--tiny@main/stitchback.json");
    let record: serde_json::Value = serde_json::from_slice(&std::fs::read(record).expect("a record")).expect("JSON");
    assert_eq!(record["commit"], COMMIT);
    assert_eq!(record["sha256"].as_object().map(serde_json::Map::len), Some(good.len()));

    refused("hub:acme/none", false, 3, "is the name right");
    refused("hub:acme/plain", false, 3, "no `modules.json`");
    refused("hub:acme/pickled", false, 3, "pickled weights are never opened");
    refused("hub:acme/outside", false, 3, "`../up` leaves the folder");
    refused("hub:../etc", false, 2, "`hub:owner/name`");
}

/// A Parquet part with a column of texts.
fn part(texts: impl Iterator<Item = String>) -> Vec<u8> {
    let schema = parse_message_type("message m { required binary text (UTF8); }").expect("a schema");
    let mut out = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut out, Arc::new(schema), Arc::default()).expect("a writer");
    let mut group = writer.next_row_group().expect("a group");
    let mut column = group.next_column().expect("a column").expect("texts");
    let texts: Vec<ByteArray> = texts.map(|text| text.into_bytes().into()).collect();
    column.typed::<ByteArrayType>().write_batch(&texts, None, None).expect("written");
    column.close().expect("closed");
    group.close().expect("closed");
    writer.close().expect("closed");
    out
}

#[test]
fn the_training_parts_of_a_data_set_are_a_corpus_and_its_commit_is_recorded() {
    // Eight words of six letters that no other line has: nothing is a near-duplicate.
    let line = |i: usize| {
        let letters: String =
            blake3::hash(&i.to_le_bytes()).as_bytes().iter().map(|b| char::from(b'a' + b % 26)).collect();
        (0..8).map(|w| format!("{}{}", &letters[4 * w..4 * w + 4], &letters[w..w + 2])).collect::<Vec<_>>().join(" ")
    };
    let rows = |from: usize| part((from..from + 150).map(line));
    let lines = BTreeMap::from([
        ("data/train-00000-of-00002.parquet".to_owned(), rows(0)),
        ("data/train-00001-of-00002.parquet".to_owned(), rows(150)),
        ("data/test-00000-of-00001.parquet".to_owned(), rows(300)),
        ("README.md".to_owned(), b"lines".to_vec()),
    ]);
    let bare = BTreeMap::from([("README.md".to_owned(), b"nothing".to_vec())]);
    let hub = serve(BTreeMap::from([("datasets/acme/lines", lines), ("datasets/acme/bare", bare)]));
    let desk = Desk { folder: tempfile::tempdir().expect("a temporary folder"), hub };
    let study = |corpus: &str| {
        format!(
            "schema = 1\nname = \"hub\"\n[data]\ncorpus = \"{corpus}\"\ntargets = 20\nvalidation = 10\nauxiliary = 60\n\
             [encode]\nvictim = \"toy\"\njudges = [\"toy-judge\"]\n[[protect]]\nname = \"unprotected\"\npipeline = \"identity\"\n\
             [[attack]]\nkind = \"blind\"\nsteps = 5\nbatch = 16\n[[attack]]\nkind = \"nearest\"\n"
        )
    };
    desk.put("lines.toml", &study("hub:datasets/acme/lines"));
    let output = desk.run(&["run", "lines.toml", "--out", "out", "--quiet"], false);
    assert!(output.status.code().is_some_and(|code| code == 0 || code == 4), "{output:?}");
    let read = |name: &str| std::fs::read_to_string(desk.folder.path().join(name)).expect("text");
    let manifest: serde_json::Value = serde_json::from_str(&read("out/manifest.json")).expect("JSON");
    let kept = manifest["inputs"]["assets"].as_array().expect("a list");
    let kept = kept.iter().find(|a| a["asset"] == "hub:datasets/acme/lines@main").expect("the corpus is an asset");
    assert_eq!((&kept["version"], &kept["pinned"]), (&json!(COMMIT), &json!(false)));
    let parts: Vec<&String> = kept["sha256"].as_object().expect("digests").keys().collect();
    assert_eq!(parts, ["data--train-00000-of-00002.parquet", "data--train-00001-of-00002.parquet"]);
    // The second time the cache has it.
    assert!(desk.run(&["fetch", "hub:datasets/acme/lines"], true).status.success());

    desk.put("bare.toml", &study("hub:datasets/acme/bare"));
    let output = desk.run(&["run", "bare.toml", "--out", "no", "--quiet"], false);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), said.contains("no Parquet file")), (Some(3), true), "{said}");
}
