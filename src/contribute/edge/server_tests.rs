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
    assert_eq!(post(at, "/v1/epoch/close", &agent.register(NAME)).0, 400);
    let operator = EdgeKey::new(NAME, &[7; 32]).expect("a plain name");
    let end = |epoch| Envelope::seal(&Message::Close { edge: NAME.to_owned(), epoch }, operator.operator());
    assert_eq!(post(at, "/v1/epoch/close", &end(0)).1["contributions"], 1);
    let issued: serde_json::Value =
        serde_json::from_str(&http(at, "GET", &format!("/v1/issued/{id}"), "").1).expect("an answer");
    let token = STANDARD.decode(issued["token"].as_str().expect("a token")).expect("base64");
    assert!(public.open(&token).expect("our own").value > 0);
    assert_eq!(post(at, "/v1/redemptions", &agent.redeem(NAME, &token)).0, 200);
    assert_eq!(post(at, "/v1/redemptions", &agent.redeem(NAME, &token)).0, 409);
    let proof = http(at, "GET", &format!("/v1/receipts/{id}"), "").1;
    let (_, first) = Proof::parse(&proof).and_then(|p| p.verify(&public)).expect("it holds");

    assert_eq!(post(at, "/v1/epoch/close", &end(1)).0, 200);
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
fn a_message_that_ended_an_epoch_ends_no_other() {
    let folder = serve_folder();
    let runtime = runtime();
    let server = start(&runtime, folder.path(), by_hand());
    let at = server.address;
    let end = |edge: &str, epoch, secret: u8| {
        let key = EdgeKey::new(NAME, &[secret; 32]).expect("a plain name");
        Envelope::seal(&Message::Close { edge: edge.to_owned(), epoch }, key.operator())
    };
    let first = end(NAME, 0, 7);
    assert_eq!(post(at, "/v1/epoch/close", &first).0, 200);
    let (status, again) = post(at, "/v1/epoch/close", &first);
    assert!(status == 409 && again["error"].as_str().is_some_and(|e| e.contains("the epoch is 1")), "{status} {again}");
    // Whatever else the operator signed ends nothing, nor does a stranger or a message for another edge.
    let next = end(NAME, 1, 7);
    let settle =
        Message::Settle { edge: NAME.to_owned(), epoch: 1, nonce: hex(&[1; 16]), request: hex(&[2; 16]), cost: 1 };
    let operator = EdgeKey::new(NAME, &[7; 32]).expect("a plain name");
    assert_eq!(post(at, "/v1/epoch/close", &Envelope::seal(&settle, operator.operator())).0, 400);
    assert_eq!(post(at, "/v1/epoch/close", &end(NAME, 1, 8)).0, 403);
    assert_eq!(post(at, "/v1/epoch/close", &end("edge.other", 1, 7)).0, 422);
    assert_eq!(post(at, "/v1/settlements", &next).0, 422, "only one place ends epochs");
    let now: serde_json::Value = serde_json::from_str(&http(at, "GET", "/v1/epoch", "").1).expect("JSON");
    assert_eq!(now["epoch"], 1);
    assert_eq!(post(at, "/v1/epoch/close", &next).0, 200);
    runtime.block_on(server.stop()).expect("a healthy journal");
}

#[test]
fn the_timer_of_epochs_outlives_a_full_inbox() {
    let runtime = runtime();
    runtime.block_on(async {
        let (tasks, mut inbox) = mpsc::channel(1);
        let rate = NonZeroU32::new(1).expect("1");
        let desk = Desk {
            tasks,
            metrics: Arc::default(),
            rates: Arc::new(RateLimiter::keyed(Quota::per_second(rate))),
            failed: Arc::default(),
        };
        desk.give(Task::Work(Box::new(|_| Ok(())))).expect("room for one");
        let (_stop, stopped) = watch::channel(false);
        let timer = tokio::spawn(epochs(desk.clone(), Duration::ZERO, Duration::from_hours(1), stopped));
        while desk.metrics.shed.load(Ordering::Relaxed) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        inbox.recv().await.expect("what filled it");
        let closing = tokio::time::timeout(Duration::from_secs(20), inbox.recv()).await.expect("it tries again");
        assert!(matches!(closing, Some(Task::Work(_))));
        // Without a writer there is nothing to wait for.
        drop((closing, inbox));
        tokio::time::timeout(Duration::from_secs(20), timer).await.expect("it ends").expect("no panic");
    });
}

#[test]
fn the_timer_of_epochs_goes_on_over_a_restart() {
    let folder = serve_folder();
    let runtime = runtime();
    let key = || EdgeKey::new(NAME, &[7; 32]).expect("a plain name");
    let mut edge = Edge::open(folder.path(), key()).expect("a folder with a charter");
    let rng = &mut seed::stream(1, "test", "restart");
    edge.close(now_s() - 10_000, rng).expect("writable");
    assert_eq!((edge.epoch(), edge.began_s().is_some_and(|s| s + 10_000 <= now_s())), (1, true));
    drop(edge);
    let epoch_after = |epoch_s: u64, wanted: u64| {
        let server = start(&runtime, folder.path(), Limits { epoch_s: Some(epoch_s), ..by_hand() });
        let epoch = || -> serde_json::Value {
            serde_json::from_str(&http(server.address, "GET", "/v1/epoch", "").1).expect("JSON")
        };
        let clock = Instant::now();
        while epoch()["epoch"] != wanted && clock.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(20));
        }
        let found = epoch()["epoch"].as_u64();
        runtime.block_on(server.stop()).expect("a healthy journal");
        found
    };
    assert_eq!(epoch_after(20_000, 1), Some(1), "half of it is left");
    assert_eq!(epoch_after(9_000, 2), Some(2), "it had ended while nobody served");
    assert_eq!(epoch_after(9_000, 2), Some(2), "and the next one has just begun");
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
