use super::super::tests::{charter_with, serve_folder};
use super::*;
use crate::contribute::agent::{Agent, Shield};
use crate::contribute::catalogue::tests::clouds;
use crate::contribute::channel::Budget;
use crate::contribute::log::{Checkpoint, Proof, merkle};
use crate::contribute::receipt::{EdgeKey, EdgePublic};
use crate::seed;
use std::io::{Read, Write};
use std::net::TcpStream;

const NAME: &str = "edge.test";

/// One request over a socket of its own: status and body.
fn http(address: SocketAddr, method: &str, path: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).expect("it listens");
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: edge\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).expect("it reads");
    // A body that is too long is refused before it is read.
    let _ = stream.write_all(body.as_bytes());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
    (status, answer.split_once("\r\n\r\n").map(|(_, b)| b.to_owned()).unwrap_or_default())
}

fn post(address: SocketAddr, path: &str, envelope: &Envelope) -> (u16, serde_json::Value) {
    let (status, body) = http(address, "POST", path, &serde_json::to_string(envelope).expect("plain"));
    (status, serde_json::from_str(&body).unwrap_or_default())
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("threads")
}

fn start(runtime: &tokio::runtime::Runtime, folder: &std::path::Path, limits: Limits) -> Server {
    let key = EdgeKey::new(NAME, &[7; 32]).expect("a plain name");
    let edge = Edge::open(folder, key).expect("a folder with a charter");
    runtime.block_on(Server::start(edge, ([127, 0, 0, 1], 0).into(), limits)).expect("a free port")
}

fn by_hand() -> Limits {
    Limits { epoch_s: None, rate_per_s: 100_000, ..Limits::default() }
}

#[test]
fn the_loop_over_a_real_socket() {
    let folder = serve_folder();
    let runtime = runtime();
    let server = start(&runtime, folder.path(), by_hand());
    let at = server.address;
    let public: EdgePublic = http(at, "GET", "/v1/key", "").1.parse().expect("a key");
    let charter = crate::contribute::cloud::Charter::from_json("charter", &http(at, "GET", "/v1/charter", "").1);
    let charter = charter.expect("a charter");
    let agent = Agent::new(&[1; 32]);
    assert_eq!(post(at, "/v1/register", &agent.register(NAME)).0, 200);
    let shield = Shield { budget: Budget::new(4.0).expect("in range"), pipeline: None };
    let raw = clouds(120, 4, 16, 0.3, "socket");
    let sealed = agent.protect(&charter.groups[0], &raw, &shield, &mut seed::stream(1, "test", "socket"));
    let message = agent.contribute(NAME, 0, &sealed.expect("enough"));
    let (status, answer) = post(at, "/v1/contributions", &message);
    assert_eq!(status, 200, "{answer}");
    assert_eq!(post(at, "/v1/contributions", &message).1["repeated"], true);
    let id = answer["receipt"].as_str().expect("an id").to_owned();
    assert_eq!(http(at, "GET", &format!("/v1/issued/{id}"), "").0, 404);

    // Only the edge ends an epoch; then the value is there, redeemable once.
    assert_eq!(post(at, "/v1/epoch/close", &agent.register(NAME)).0, 403);
    let operator = EdgeKey::new(NAME, &[7; 32]).expect("a plain name");
    let end = Envelope::seal(&Message::Register { edge: NAME.to_owned() }, operator.operator());
    assert_eq!(post(at, "/v1/epoch/close", &end).1["contributions"], 1);
    let issued: serde_json::Value =
        serde_json::from_str(&http(at, "GET", &format!("/v1/issued/{id}"), "").1).expect("an answer");
    let token = STANDARD.decode(issued["token"].as_str().expect("a token")).expect("base64");
    assert!(public.open(&token).expect("our own").value > 0);
    assert_eq!(post(at, "/v1/redemptions", &agent.redeem(NAME, &token)).0, 200);
    assert_eq!(post(at, "/v1/redemptions", &agent.redeem(NAME, &token)).0, 409);
    let proof = http(at, "GET", &format!("/v1/receipts/{id}"), "").1;
    let (_, first) = Proof::parse(&proof).and_then(|p| p.verify(&public)).expect("it holds");

    post(at, "/v1/epoch/close", &end);
    let balance = post(at, "/v1/balance", &agent.register(NAME)).1;
    assert!(balance["balance"].as_u64().expect("a number") > 0, "{balance}");
    let asked = post(at, "/v1/requests", &agent.request(NAME, 2, &[5; 16], 1000, None));
    assert_eq!(asked.0, 200, "{}", asked.1);
    assert_eq!(post(at, "/v1/requests", &agent.request(NAME, 2, &[6; 16], u64::MAX >> 1, None)).0, 402);

    // The log only grew, and its tiles are there.
    let later = Checkpoint::open(&http(at, "GET", "/v1/checkpoint", "").1, &public).expect("signed");
    let query = format!("/v1/consistency?old={}&new={}", first.size, later.size);
    let answer: serde_json::Value = serde_json::from_str(&http(at, "GET", &query, "").1).expect("hashes");
    let path: Vec<[u8; 32]> = answer["path"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|h| STANDARD.decode(h.as_str().expect("text")).expect("base64").try_into().expect("32 bytes"))
        .collect();
    assert!(merkle::extends(&first.root, first.size, &later.root, later.size, &path));
    assert_eq!(http(at, "GET", &format!("/tile/0/000.p/{}", later.size), "").0, 200);

    let page = http(at, "GET", "/", "").1;
    for part in ["<h2>Contributions by topic group</h2>", "pets", "traffic", &hex(&later.root), "under 5", "Baskets"] {
        assert!(page.contains(part), "{part} in {page}");
    }
    assert!(!page.contains("<script"));
    assert_eq!(http(at, "GET", "/healthz", "").1, "ok\n");
    assert!(http(at, "GET", "/metrics", "").1.contains("stitchback_messages_total"));
    let api: serde_json::Value = serde_json::from_str(&http(at, "GET", "/v1/openapi.json", "").1).expect("JSON");
    assert!(api["paths"]["/v1/contributions"]["post"].is_object());

    // Stopped and started again, it knows everything.
    runtime.block_on(server.stop()).expect("a healthy journal");
    let server = start(&runtime, folder.path(), by_hand());
    let again = Checkpoint::open(&http(server.address, "GET", "/v1/checkpoint", "").1, &public).expect("signed");
    assert_eq!(again, later);
    runtime.block_on(server.stop()).expect("a healthy journal");
}

#[test]
fn limits_hold_and_errors_repeat_nothing_of_what_was_sent() {
    let folder = serve_folder();
    let runtime = runtime();
    let server = start(&runtime, folder.path(), Limits { epoch_s: None, rate_per_s: 20, connections: 4 });
    let at = server.address;
    let canary = "canary-4711";
    for (body, status) in [
        (format!("{{\"account\":\"{canary}\"}}"), 422),
        (canary.to_owned(), 400),
        (format!("{{\"account\":\"{canary}\",\"body\":\"{canary}\",\"signature\":\"{canary}\"}}"), 400),
        ("x".repeat(BODY + 1), 413),
    ] {
        let (got, text) = http(at, "POST", "/v1/contributions", &body);
        // A body that is cut off may lose the answer as well.
        assert!(got == status || (got == 0 && status == 413), "{got} for {status}: {text}");
        assert!(!text.contains(canary), "{text}");
    }
    assert_eq!(http(at, "GET", "/v1/receipts/zz", "").0, 400);
    assert_eq!(http(at, "GET", "/nowhere", "").0, 404);
    let statuses: Vec<u16> = (0..60).map(|_| http(at, "GET", "/v1/key", "").0).collect();
    assert!(statuses.contains(&429), "{statuses:?}");
    // Connections that send no headers do not keep others out for long.
    std::thread::sleep(Duration::from_secs(2));
    let idle: Vec<TcpStream> = (0..4).map(|_| TcpStream::connect(at).expect("it listens")).collect();
    let clock = Instant::now();
    assert_eq!(http(at, "GET", "/v1/key", "").0, 200);
    assert!(clock.elapsed() < HEADERS + Duration::from_secs(5), "{:?}", clock.elapsed());
    drop(idle);
    runtime.block_on(server.stop()).expect("a healthy journal");
}

#[test]
fn many_connections_at_once_lose_nothing() {
    let folder = serve_folder();
    let runtime = runtime();
    let server = start(&runtime, folder.path(), by_hand());
    let at = server.address;
    let charter = charter_with(4);
    let done: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..16_u8)
            .map(|i| {
                let charter = &charter;
                scope.spawn(move || {
                    let agent = Agent::new(&[i + 1; 32]);
                    post(at, "/v1/register", &agent.register(NAME));
                    let shield = Shield { budget: Budget::new(1.0).expect("in range"), pipeline: None };
                    let rng = &mut seed::stream(u64::from(i), "test", "load");
                    let give = |n: usize, rng: &mut seed::Stream| {
                        let raw = clouds(20 + n, 4, 16, 0.3, &format!("{i} {n}"));
                        let sealed = agent.protect(&charter.groups[0], &raw, &shield, rng).expect("enough");
                        post(at, "/v1/contributions", &agent.contribute(NAME, 0, &sealed)).0 == 200
                    };
                    (0..10).filter(|n| give(*n, rng)).count()
                })
            })
            .collect();
        threads.into_iter().map(|t| t.join().expect("no panic")).sum()
    });
    assert_eq!(done, 160);
    runtime.block_on(server.stop()).expect("a healthy journal");
    let edge = Edge::open(folder.path(), EdgeKey::new(NAME, &[7; 32]).expect("a plain name")).expect("readable");
    assert_eq!((edge.tree().len(), edge.state.waiting()), (160, 160));
}
