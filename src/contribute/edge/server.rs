//! The edge over HTTP: one thread owns the edge and takes messages in batches; everything around it has a limit.
//!
//! | limit | value |
//! |---|---|
//! | body | 1 MiB |
//! | headers | read within 5 s |
//! | answer | within 10 s |
//! | connections | [`Limits::connections`] at once, further ones wait at the door |
//! | requests of one address | [`Limits::rate_per_s`], then 429 |
//! | messages that wait | 1024, then 503 |

#![expect(clippy::result_large_err, reason = "the error is the response that is sent")]

use super::{Answer, Edge, Refused, status};
use crate::contribute::Error;
use crate::contribute::catalogue::hex;
use crate::contribute::log::tiles;
use crate::contribute::message::{Body as Message, Envelope, unhex};
use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Path, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rand::SeedableRng;
use serde::Deserialize;
use serde_json::json;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

const BODY: usize = 1024 * 1024;
const HEADERS: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(10);
const WAITING: usize = 1024;
/// Messages under one sync of the journal.
const BATCH: usize = 256;
/// An epoch that could not be ended is tried again after this time.
const AGAIN: Duration = Duration::from_secs(1);

/// What a server allows.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Seconds of an epoch, counted from the last close over all restarts; `None` when epochs end by hand only.
    pub epoch_s: Option<u64>,
    /// Connections at once.
    pub connections: usize,
    /// Requests a second of one address.
    pub rate_per_s: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { epoch_s: Some(86_400), connections: 512, rate_per_s: 1000 }
    }
}

type Work = Box<dyn FnOnce(&mut Edge) -> Result<(), Error> + Send>;

enum Task {
    Message(Envelope, oneshot::Sender<Result<Answer, Refused>>),
    Work(Work),
}

#[derive(Debug, Default)]
struct Metrics {
    requests: AtomicU64,
    refused: AtomicU64,
    shed: AtomicU64,
    limited: AtomicU64,
    messages: AtomicU64,
    batches: AtomicU64,
    journal_us: AtomicU64,
    open: AtomicU64,
}

#[derive(Clone)]
struct Desk {
    tasks: mpsc::Sender<Task>,
    metrics: Arc<Metrics>,
    rates: Arc<DefaultKeyedRateLimiter<IpAddr>>,
    failed: Arc<AtomicBool>,
}

/// A server that runs until it is stopped.
#[derive(Debug)]
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    stop: watch::Sender<bool>,
    door: tokio::task::JoinHandle<()>,
    writer: std::thread::JoinHandle<Result<(), Error>>,
}

impl Server {
    /// Starts to listen.
    ///
    /// # Errors
    /// When the address cannot be used, or the system has no randomness.
    pub async fn start(edge: Edge, address: SocketAddr, limits: Limits) -> Result<Self, Error> {
        let fault = |source| Error::Io { path: address.to_string(), source };
        let listener = TcpListener::bind(address).await.map_err(fault)?;
        let address = listener.local_addr().map_err(fault)?;
        let (tasks, inbox) = mpsc::channel(WAITING);
        let rate = NonZeroU32::new(limits.rate_per_s.max(1)).expect("at least 1");
        let desk = Desk {
            tasks,
            metrics: Arc::default(),
            rates: Arc::new(RateLimiter::keyed(Quota::per_second(rate))),
            failed: Arc::default(),
        };
        let rng = crate::seed::Stream::try_from_rng(&mut rand::rngs::SysRng)
            .map_err(|_| Error::Input("the system's random generator failed".to_owned()))?;
        let (metrics, failed) = (Arc::clone(&desk.metrics), Arc::clone(&desk.failed));
        let began_s = edge.began_s();
        let writer = std::thread::spawn(move || {
            let done = write(edge, inbox, rng, &metrics);
            failed.store(done.is_err(), Ordering::Relaxed);
            done
        });
        let (stop, stopped) = watch::channel(false);
        if let Some(epoch_s) = limits.epoch_s {
            let (every, now_s) = (epoch_s.max(1), now_s());
            let left_s = began_s.unwrap_or(now_s).saturating_add(every).saturating_sub(now_s).min(every);
            let (first, every) = (Duration::from_secs(left_s), Duration::from_secs(every));
            tokio::spawn(epochs(desk.clone(), first, every, stopped.clone()));
        }
        let door = tokio::spawn(accept(listener, desk, limits.connections, stopped));
        Ok(Self { address, stop, door, writer })
    }

    /// Stops taking connections, answers what is under way, and waits for the journal.
    ///
    /// # Errors
    /// When the journal failed while it ran.
    pub async fn stop(self) -> Result<(), Error> {
        // Nobody listens any more when the door is already closed.
        let _ = self.stop.send(true);
        let _ = self.door.await;
        tokio::task::spawn_blocking(|| self.writer.join())
            .await
            .ok()
            .and_then(Result::ok)
            .unwrap_or_else(|| Err(Error::Input("the writer of the journal ended by a fault".to_owned())))
    }
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// The one thread that changes the edge. Ends when all senders are gone, or when the journal fails.
fn write(
    mut edge: Edge,
    mut inbox: mpsc::Receiver<Task>,
    mut rng: crate::seed::Stream,
    metrics: &Metrics,
) -> Result<(), Error> {
    while let Some(first) = inbox.blocking_recv() {
        let (mut batch, mut waiting, mut last) = (Vec::new(), Vec::new(), None);
        let mut next = Some(first);
        while let Some(task) = next {
            match task {
                Task::Message(envelope, answer) => {
                    batch.push(envelope);
                    waiting.push(answer);
                }
                Task::Work(work) => {
                    last = Some(work);
                    break;
                }
            }
            next = if batch.len() < BATCH { inbox.try_recv().ok() } else { None };
        }
        if !batch.is_empty() {
            metrics.messages.fetch_add(batch.len() as u64, Ordering::Relaxed);
            metrics.batches.fetch_add(1, Ordering::Relaxed);
            let clock = Instant::now();
            let answers = edge.submit(batch, now_s(), &mut rng)?;
            metrics.journal_us.fetch_add(clock.elapsed().as_micros() as u64, Ordering::Relaxed);
            for (answer, sender) in answers.into_iter().zip(waiting) {
                // Who asked may have gone; the journal has it anyway.
                let _ = sender.send(answer);
            }
        }
        if let Some(work) = last {
            work(&mut edge)?;
        }
    }
    Ok(())
}

async fn epochs(desk: Desk, first: Duration, every: Duration, mut stopped: watch::Receiver<bool>) {
    let mut wait = first;
    loop {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            _ = stopped.changed() => return,
        }
        desk.rates.retain_recent();
        wait = match desk.close().await {
            Ok(_) => every,
            Err(_) if desk.tasks.is_closed() => return,
            Err(_) => AGAIN,
        };
    }
}

async fn accept(listener: TcpListener, desk: Desk, connections: usize, mut stopped: watch::Receiver<bool>) {
    let seats = Arc::new(Semaphore::new(connections.max(1)));
    let (metrics, router) = (Arc::clone(&desk.metrics), router(desk));
    loop {
        let seat = Arc::clone(&seats).acquire_owned().await.expect("the semaphore is never closed");
        let (stream, peer) = tokio::select! {
            // Out of file handles and the like: wait for a seat to be given back.
            accepted = listener.accept() => {
                let Ok(accepted) = accepted else {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                };
                accepted
            }
            _ = stopped.changed() => break,
        };
        // Small answers leave at once.
        let _ = stream.set_nodelay(true);
        let service = TowerToHyperService::new(router.clone().layer(axum::Extension(ConnectInfo(peer))));
        let (metrics, mut stopped) = (Arc::clone(&metrics), stopped.clone());
        tokio::spawn(async move {
            metrics.open.fetch_add(1, Ordering::Relaxed);
            let mut http = hyper::server::conn::http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(HEADERS);
            let mut connection = std::pin::pin!(http.serve_connection(TokioIo::new(stream), service));
            tokio::select! {
                // A peer that went away is no fault of ours.
                _ = connection.as_mut() => {}
                _ = stopped.changed() => {
                    connection.as_mut().graceful_shutdown();
                    let _ = tokio::time::timeout(ANSWER, connection).await;
                }
            }
            metrics.open.fetch_sub(1, Ordering::Relaxed);
            drop(seat);
        });
    }
}

fn router(desk: Desk) -> Router {
    let messages = || post(message);
    Router::new()
        .route("/", get(page))
        .route("/healthz", get(health))
        .route("/metrics", get(metrics))
        .route("/v1/openapi.json", get(openapi))
        .route("/v1/charter", get(charter))
        .route("/v1/key", get(key))
        .route("/v1/epoch", get(epoch))
        .route("/v1/epoch/close", post(close))
        .route("/v1/register", messages())
        .route("/v1/contributions", messages())
        .route("/v1/redemptions", messages())
        .route("/v1/requests", messages())
        .route("/v1/settlements", messages())
        .route("/v1/catalogues", messages())
        .route("/v1/balance", post(balance))
        .route("/v1/receipts/{id}", get(receipt))
        .route("/v1/issued/{id}", get(issued))
        .route("/v1/checkpoint", get(checkpoint))
        .route("/v1/consistency", get(consistency))
        .route("/tile/{*path}", get(tile))
        .layer(DefaultBodyLimit::max(BODY))
        .layer(middleware::from_fn_with_state(desk.clone(), guard))
        .with_state(desk)
}

/// Rate, time and count around every handler.
async fn guard(
    State(desk): State<Desk>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    desk.metrics.requests.fetch_add(1, Ordering::Relaxed);
    if desk.rates.check_key(&peer.ip()).is_err() {
        desk.metrics.limited.fetch_add(1, Ordering::Relaxed);
        return problem(StatusCode::TOO_MANY_REQUESTS, "too many requests from this address; wait a second");
    }
    let response = tokio::time::timeout(ANSWER, next.run(request)).await;
    let response =
        response.unwrap_or_else(|_| problem(StatusCode::GATEWAY_TIMEOUT, "no answer in time; ask again, it is safe"));
    if response.status().is_client_error() {
        desk.metrics.refused.fetch_add(1, Ordering::Relaxed);
    }
    response
}

fn problem(status: StatusCode, why: &str) -> Response {
    (status, axum::Json(json!({"error": why}))).into_response()
}

fn refusal(refused: &Refused) -> Response {
    problem(StatusCode::from_u16(refused.status).unwrap_or(StatusCode::BAD_REQUEST), &refused.why)
}

fn busy() -> Response {
    problem(StatusCode::SERVICE_UNAVAILABLE, "the edge is busy or its journal failed; ask again later, it is safe")
}

impl Desk {
    fn give(&self, task: Task) -> Result<(), Response> {
        self.tasks.try_send(task).map_err(|_| {
            self.metrics.shed.fetch_add(1, Ordering::Relaxed);
            busy()
        })
    }

    /// Runs `work` on the writer's thread and hands its result over.
    async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Edge) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Response> {
        let (sender, receiver) = oneshot::channel();
        self.give(Task::Work(Box::new(move |edge| {
            let _ = sender.send(work(edge)?);
            Ok(())
        })))?;
        receiver.await.map_err(|_| busy())
    }

    async fn close(&self) -> Result<super::EpochRecord, Response> {
        let mut rng = fresh()?;
        self.ask(move |edge| edge.close(now_s(), &mut rng)).await
    }
}

/// The system's randomness.
fn fresh() -> Result<crate::seed::Stream, Response> {
    crate::seed::Stream::try_from_rng(&mut rand::rngs::SysRng).map_err(|_| busy())
}

async fn message(
    State(desk): State<Desk>,
    body: Result<axum::Json<Envelope>, axum::extract::rejection::JsonRejection>,
) -> Response {
    let envelope = match body {
        Ok(axum::Json(envelope)) => envelope,
        Err(e) if e.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            return problem(StatusCode::PAYLOAD_TOO_LARGE, "a message has at most 1 MiB");
        }
        Err(e) => return problem(e.status(), "the body must be JSON: account, body, signature"),
    };
    let (sender, receiver) = oneshot::channel();
    if let Err(response) = desk.give(Task::Message(envelope, sender)) {
        return response;
    }
    match receiver.await {
        Ok(Ok(answer)) => axum::Json(answer).into_response(),
        Ok(Err(refused)) => refusal(&refused),
        Err(_) => busy(),
    }
}

/// A registered account's own balance, for a signed `register` message: who can sign it, owns it.
async fn balance(State(desk): State<Desk>, axum::Json(envelope): axum::Json<Envelope>) -> Response {
    let Ok((account, Message::Register { .. })) = envelope.open() else {
        return problem(StatusCode::BAD_REQUEST, "the balance is told for a signed message of kind `register`");
    };
    match desk.ask(move |edge| Ok(edge.balance(&account))).await {
        Ok(Some(balance)) => axum::Json(balance).into_response(),
        Ok(None) => problem(StatusCode::NOT_FOUND, "this account is not registered"),
        Err(response) => response,
    }
}

/// The operator ends an epoch by hand: a `close` message for this very epoch, signed by the edge's own key.
async fn close(State(desk): State<Desk>, axum::Json(envelope): axum::Json<Envelope>) -> Response {
    let Ok((account, Message::Close { edge: name, epoch })) = envelope.open() else {
        return problem(StatusCode::BAD_REQUEST, "an epoch is ended by a signed message of kind `close`");
    };
    let mut rng = match fresh() {
        Ok(rng) => rng,
        Err(response) => return response,
    };
    match desk.ask(move |edge| edge.close_for(&account, &name, epoch, now_s(), &mut rng)).await {
        Ok(Ok(record)) => axum::Json(record).into_response(),
        Ok(Err(refused)) => refusal(&refused),
        Err(response) => response,
    }
}

fn text(kind: &'static str, body: impl Into<Body>) -> Response {
    ([(header::CONTENT_TYPE, kind)], body.into()).into_response()
}

async fn page(State(desk): State<Desk>) -> Response {
    match desk.ask(|edge| Ok(status::page(edge))).await {
        Ok(html) => text("text/html; charset=utf-8", html),
        Err(response) => response,
    }
}

async fn charter(State(desk): State<Desk>) -> Response {
    match desk.ask(|edge| Ok(edge.charter())).await {
        Ok(json) => text("application/json", json),
        Err(response) => response,
    }
}

async fn key(State(desk): State<Desk>) -> Response {
    match desk.ask(|edge| Ok(format!("{}\n", edge.public()))).await {
        Ok(key) => text("text/plain; charset=utf-8", key),
        Err(response) => response,
    }
}

async fn epoch(State(desk): State<Desk>) -> Response {
    let view = |edge: &mut Edge| {
        Ok(json!({"edge": edge.public().name(), "epoch": edge.epoch(), "closed": edge.epochs().collect::<Vec<_>>()}))
    };
    match desk.ask(view).await {
        Ok(value) => axum::Json(value).into_response(),
        Err(response) => response,
    }
}

fn bad_id() -> Response {
    problem(StatusCode::BAD_REQUEST, "a receipt's id is 32 hexadecimal digits")
}

async fn receipt(State(desk): State<Desk>, Path(id): Path<String>) -> Response {
    let Some(id) = unhex::<16>(&id) else { return bad_id() };
    match desk.ask(move |edge| edge.proof(&id)).await {
        Ok(Some(proof)) => text("text/plain; charset=utf-8", proof.to_string()),
        Ok(None) => problem(StatusCode::NOT_FOUND, "there is no such receipt"),
        Err(response) => response,
    }
}

/// The issue receipt that followed a contribution receipt; 404 until the epoch is closed.
async fn issued(State(desk): State<Desk>, Path(id): Path<String>) -> Response {
    let Some(id) = unhex::<16>(&id) else { return bad_id() };
    match desk.ask(move |edge| edge.issued(&id).map(|i| edge.token(&i).map(|t| (i, t))).transpose()).await {
        Ok(Some((id, Some(token)))) => {
            let (receipt, token) = (Some(hex(&id)), Some(STANDARD.encode(token)));
            axum::Json(Answer { receipt, token, repeated: false }).into_response()
        }
        Ok(_) => problem(StatusCode::NOT_FOUND, "nothing was issued for this receipt yet; the epoch is still open"),
        Err(response) => response,
    }
}

async fn checkpoint(State(desk): State<Desk>) -> Response {
    match desk.ask(Edge::checkpoint).await {
        Ok(note) => text("text/plain; charset=utf-8", note),
        Err(response) => response,
    }
}

#[derive(Deserialize)]
struct Sizes {
    old: u64,
    new: u64,
}

async fn consistency(State(desk): State<Desk>, Query(Sizes { old, new }): Query<Sizes>) -> Response {
    match desk.ask(move |edge| Ok(edge.consistency(old, new))).await {
        Ok(Some(path)) => {
            let path: Vec<String> = path.iter().map(|h| STANDARD.encode(h)).collect();
            axum::Json(json!({"old": old, "new": new, "path": path})).into_response()
        }
        Ok(None) => problem(StatusCode::NOT_FOUND, "the log has no such sizes"),
        Err(response) => response,
    }
}

async fn tile(State(desk): State<Desk>, Path(path): Path<String>) -> Response {
    let wanted = format!("tile/{path}");
    let find = move |edge: &mut Edge| {
        let found = tiles::tiles(edge.tree().len()).into_iter().find(|t| t.path() == wanted);
        Ok(found.map(|t| t.content(edge.tree())))
    };
    match desk.ask(find).await {
        Ok(Some(bytes)) => text("application/octet-stream", bytes),
        Ok(None) => problem(StatusCode::NOT_FOUND, "the log has no such tile"),
        Err(response) => response,
    }
}

async fn health(State(desk): State<Desk>) -> Response {
    if desk.failed.load(Ordering::Relaxed) || desk.tasks.is_closed() {
        return busy();
    }
    match desk.ask(|edge| Ok(edge.is_sound())).await {
        Ok(true) => text("text/plain; charset=utf-8", "ok\n"),
        Ok(false) => problem(StatusCode::INTERNAL_SERVER_ERROR, "the ledger does not add up"),
        Err(response) => response,
    }
}

async fn metrics(State(desk): State<Desk>) -> Response {
    let m = &desk.metrics;
    let rows = [
        ("stitchback_requests_total", &m.requests),
        ("stitchback_refused_total", &m.refused),
        ("stitchback_rate_limited_total", &m.limited),
        ("stitchback_shed_total", &m.shed),
        ("stitchback_messages_total", &m.messages),
        ("stitchback_journal_batches_total", &m.batches),
        ("stitchback_journal_microseconds_total", &m.journal_us),
        ("stitchback_connections_open", &m.open),
    ];
    let lines: Vec<String> = rows.iter().map(|(name, n)| format!("{name} {}", n.load(Ordering::Relaxed))).collect();
    text("text/plain; version=0.0.4", lines.join("\n") + "\n")
}

async fn openapi() -> Response {
    text("application/json", include_str!("openapi.json"))
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
