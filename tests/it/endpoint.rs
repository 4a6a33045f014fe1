//! A victim behind an embeddings endpoint, attacked as a black box: the endpoint is a mock on this machine.

use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use stitchback::encode::endpoint::{Endpoint, Settings};
use stitchback::encode::{Encoder, Toy};

/// What the mock does with the n-th request.
type Behaviour = fn(usize, &Value) -> (u16, String);

/// A server of one thread; counts its requests.
fn serve(behaviour: Behaviour) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = format!("http://{}/v1/embeddings", listener.local_addr().expect("bound"));
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            answer(stream, behaviour, &counter);
        }
    });
    (address, count)
}

fn answer(mut stream: TcpStream, behaviour: Behaviour, count: &AtomicUsize) {
    let mut reader = BufReader::new(stream.try_clone().expect("a socket"));
    let (mut length, mut key) = (0, String::new());
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let line = line.trim().to_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().expect("a number");
        }
        if let Some(value) = line.strip_prefix("authorization:") {
            value.trim().clone_into(&mut key);
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("a body");
    let body: Value = serde_json::from_slice(&body).expect("JSON");
    let number = count.fetch_add(1, Ordering::SeqCst);
    let (status, text) = if key == "bearer secret-key" { behaviour(number, &body) } else { (401, "no key".to_owned()) };
    let head = format!(
        "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n",
        text.len()
    );
    let _ = stream.write_all((head + &text).as_bytes());
}

/// Vectors of the toy encoder, last one first: only `index` says whose they are.
fn vectors(_: usize, body: &Value) -> (u16, String) {
    let texts: Vec<&str> = body["input"].as_array().expect("texts").iter().filter_map(Value::as_str).collect();
    let rows = Toy::named("toy").encode(&texts).expect("encodes");
    let mut data: Vec<Value> =
        rows.rows().enumerate().map(|(i, row)| json!({ "index": i, "embedding": row })).collect();
    data.reverse();
    (200, json!({ "object": "list", "data": data, "model": body["model"] }).to_string())
}

fn settings(url: &str) -> Settings {
    let key = Some("secret-key".to_owned());
    Settings { url: url.to_owned(), key, budget: 1000, pause: Duration::from_millis(1), memory: None }
}

/// Vectors that are rounded otherwise each time, and those of another model from the fourth request on.
fn jittered(number: usize, body: &Value) -> (u16, String) {
    let (status, text) = vectors(number, body);
    let mut answer: Value = serde_json::from_str(&text).expect("our own");
    for item in answer["data"].as_array_mut().expect("a list") {
        let row = item["embedding"].as_array_mut().expect("a vector");
        for v in row.iter_mut() {
            *v = json!(v.as_f64().expect("a number") + 6e-4 * number as f64);
        }
        if number > 2 {
            row.reverse();
        }
    }
    (status, answer.to_string())
}

#[test]
fn an_endpoint_that_rounds_otherwise_is_the_same_encoder_and_another_model_is_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let (url, _) = serve(jittered);
    let fingerprint = |url: &str, model: &str, memory: bool| {
        let memory = memory.then(|| folder.path().join("endpoints"));
        let opened = Endpoint::open(model, Settings { memory, ..settings(url) }).expect("answers");
        opened.info().fingerprint.clone()
    };
    let first = fingerprint(&url, "endpoint:mock", true);
    assert_eq!(fingerprint(&url, "endpoint:mock", true), first, "remembered over the rounding");
    assert_ne!(fingerprint(&url, "endpoint:mock", false), first, "without a memory the rounding shows");
    let other = fingerprint(&url, "endpoint:mock", true);
    assert_ne!(other, first, "another model behind the same name");
    let (elsewhere, _) = serve(jittered);
    assert_ne!(fingerprint(&elsewhere, "endpoint:mock", true), first, "another address");
    let (url, _) = serve(vectors);
    assert_ne!(fingerprint(&url, "endpoint:mock", true), fingerprint(&url, "endpoint:twin", true), "another name");
}

#[test]
fn an_endpoint_gives_vectors_in_order_and_is_asked_once_for_each_text() {
    let (url, count) = serve(vectors);
    let endpoint = Endpoint::open("endpoint:mock", settings(&url)).expect("answers");
    let texts = ["one sentence", "another one", "one sentence", ""];
    let rows = endpoint.encode(&texts).expect("answers");
    let own = Toy::named("toy").encode(&["one sentence", "another one", "one sentence", " "]).expect("encodes");
    assert_eq!(rows, own);
    let before = count.load(Ordering::SeqCst);
    assert_eq!(endpoint.encode(&texts).expect("kept"), own);
    assert_eq!(count.load(Ordering::SeqCst), before, "no text is paid for twice");
}

#[test]
fn a_busy_endpoint_is_asked_again_and_a_wrong_one_is_named() {
    let (url, count) =
        serve(|n, body| if n < 2 { (if n == 0 { 429 } else { 503 }, String::new()) } else { vectors(n, body) });
    assert!(Endpoint::open("endpoint:mock", settings(&url)).is_ok());
    assert_eq!(count.load(Ordering::SeqCst), 3);
    let cases: [(Behaviour, &str); 5] = [
        (|_, _| (500, String::new()), "gave up after 5 attempts: it answers 500"),
        (|_, _| (404, "original text".to_owned()), "it answers 404"),
        (|_, _| (200, "[".repeat(100_000)), "its answer is none"),
        (|_, _| (200, json!({ "data": [] }).to_string()), "fewer than 1 vectors"),
        (|_, _| (200, json!({ "data": [{ "index": 9, "embedding": [1.0] }] }).to_string()), "a vector 9 of 1"),
    ];
    for (behaviour, why) in cases {
        let (url, _) = serve(behaviour);
        let Err(error) = Endpoint::open("endpoint:mock", settings(&url)) else { panic!("{why}") };
        assert!(error.to_string().contains(why), "{error}");
        assert!(!error.to_string().contains("original text"), "answers are not repeated");
    }
    let (url, _) = serve(vectors);
    let Err(error) = Endpoint::open("endpoint:mock", Settings { key: None, ..settings(&url) }) else {
        panic!("no key")
    };
    assert!(error.to_string().contains("401"), "{error}");
    let endpoint = Endpoint::open("endpoint:mock", Settings { budget: 2, ..settings(&url) }).expect("one text");
    let Err(error) = endpoint.encode(&["a", "b"]) else { panic!("beyond the budget") };
    assert!(error.to_string().contains("STITCHBACK_ENDPOINT_BUDGET"), "{error}");
}

const STUDY: &str = r#"
schema = 1
name = "black-box"
[data]
corpus = "toy"
targets = 20
validation = 8
auxiliary = 100
[encode]
victim = "endpoint:mock"
judges = ["toy-judge"]
[[protect]]
name = "unprotected"
pipeline = "identity"
[[attack]]
kind = "blind"
steps = 10
adapt_steps = 2
batch = 16
[[attack]]
kind = "nearest"
"#;

#[test]
fn a_victim_behind_an_endpoint_is_attacked_as_a_black_box() {
    let (url, _) = serve(vectors);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let study = folder.path().join("study.toml");
    std::fs::File::create(&study).and_then(|mut f| f.write_all(STUDY.as_bytes())).expect("writable");
    let run = |key: Option<&str>| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stitchback"));
        command.current_dir(folder.path()).args(["run", "study.toml", "--out", "out", "--json"]).stdin(Stdio::null());
        command.env("STITCHBACK_ENDPOINT_URL", &url).env("STITCHBACK_CACHE", folder.path().join("cache"));
        command.env_remove("STITCHBACK_OFFLINE");
        if let Some(key) = key {
            command.env("STITCHBACK_ENDPOINT_KEY", key);
        }
        command.output().expect("the program starts")
    };
    let output = run(None);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let output = run(Some("secret-key"));
    let summary: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr)));
    assert!(summary["protections"][0]["similarity"]["leak"].is_number(), "{summary:#}");
    // The key stands in nothing that the run leaves behind.
    for name in ["manifest.json", "plan.toml", "records.jsonl", "evidence.json", "report.html"] {
        let text = std::fs::read_to_string(folder.path().join("out").join(name)).expect("a whole run");
        assert!(!text.contains("secret-key"), "{name}");
    }
}
