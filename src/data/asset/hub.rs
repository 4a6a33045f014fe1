//! The hub of models and data sets, through its own client library.
//!
//! The library has no timeouts, so each file is fetched on a thread of its own and abandoned when it stays silent: a
//! machine without network must fall through to the next source in seconds, not hang.

use std::collections::BTreeSet;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use hf_hub::api::Progress;
use hf_hub::api::sync::ApiBuilder;
use hf_hub::{Cache, Repo, RepoType};

use super::manifest::Hub;
use super::repository::DATASETS;
use super::{Error, Report};

/// The first answer must come within this time.
const ANSWER: Duration = Duration::from_secs(10);
/// A download may be silent for this long.
const STALL: Duration = Duration::from_mins(1);
/// Moves the hub for users who have a mirror; read by the library's other tools under the same name.
const ENDPOINT: &str = "HF_ENDPOINT";

enum Event {
    Size(u64),
    Bytes(u64),
    End(Result<PathBuf, String>),
}

/// Sends each step to the waiting thread.
struct Steps {
    events: Sender<Event>,
    abandoned: Arc<AtomicBool>,
}

impl Progress for Steps {
    fn init(&mut self, size: usize, _filename: &str) {
        self.tell(Event::Size(size as u64));
    }

    fn update(&mut self, size: usize) {
        self.tell(Event::Bytes(size as u64));
    }

    fn finish(&mut self) {}
}

impl Steps {
    fn tell(&self, event: Event) {
        if self.abandoned.load(Ordering::Relaxed) || self.events.send(event).is_err() {
            // Nobody waits any more. The library offers no way to stop a download, so the thread unwinds quietly.
            resume_unwind(Box::new("the download was abandoned"));
        }
    }
}

fn repo(hub: &Hub) -> Repo {
    let (id, kind) = match hub.id.strip_prefix(DATASETS) {
        Some(id) => (id, RepoType::Dataset),
        None => (hub.id.as_str(), RepoType::Model),
    };
    Repo::with_revision(id.to_owned(), kind, hub.revision.clone())
}

/// The commit behind the revision, and the files of it.
pub(super) fn files(hub: &Hub) -> Result<(String, BTreeSet<String>), Error> {
    let (send, heard) = mpsc::channel();
    let repo = repo(hub);
    thread::spawn(move || {
        let mut builder = ApiBuilder::new().with_progress(false);
        if let Ok(endpoint) = std::env::var(ENDPOINT) {
            builder = builder.with_endpoint(endpoint);
        }
        let info = builder.build().and_then(|api| api.repo(repo).info());
        let _ = send.send(info.map_err(|e| e.to_string()));
    });
    let remedy = "is the name right, is there a network? a folder that was copied here works without: name its path";
    match heard.recv_timeout(ANSWER) {
        Ok(Ok(info)) => Ok((info.sha, info.siblings.into_iter().map(|file| file.rfilename).collect())),
        Ok(Err(why)) => Err(Error::Hub { why: format!("{why} (`{}`); {remedy}", hub.id) }),
        Err(_) => Err(Error::Hub { why: format!("no answer for {} s (`{}`); {remedy}", ANSWER.as_secs(), hub.id) }),
    }
}

/// Fetches `file` of the repository below `work` and returns where it lies, unchecked but no larger than `limit` bytes.
pub(super) fn download(hub: &Hub, file: &str, limit: u64, work: &Path, report: &dyn Report) -> Result<PathBuf, Error> {
    let (events, heard) = mpsc::channel();
    let abandoned = Arc::new(AtomicBool::new(false));
    let steps = Steps { events: events.clone(), abandoned: Arc::clone(&abandoned) };
    let (repo, name, folder) = (repo(hub), file.to_owned(), work.join("hub"));
    thread::spawn(move || {
        let mut builder = ApiBuilder::from_cache(Cache::new(folder)).with_progress(false);
        if let Ok(endpoint) = std::env::var(ENDPOINT) {
            builder = builder.with_endpoint(endpoint);
        }
        let result = builder.build().and_then(|api| api.repo(repo).download_with_progress(&name, steps));
        // A receiver that is gone has given up on this download.
        let _ = events.send(Event::End(result.map_err(|e| e.to_string())));
    });

    let give_up = |why: Error| {
        abandoned.store(true, Ordering::Relaxed);
        why
    };
    let silent = |what: &str, time: Duration| Error::Hub { why: format!("{what} for {} s ({file})", time.as_secs()) };
    let (mut total, mut done, mut patience) = (0, 0, ANSWER);
    loop {
        match heard.recv_timeout(patience) {
            Ok(Event::Size(size)) if size > limit => {
                return Err(give_up(Error::TooLarge { file: file.to_owned(), limit, unit: "bytes" }));
            }
            Ok(Event::Size(size)) => (total, done, patience) = (size, 0, STALL),
            Ok(Event::Bytes(more)) => {
                done += more;
                if done > limit {
                    return Err(give_up(Error::TooLarge { file: file.to_owned(), limit, unit: "bytes" }));
                }
                report.progress(done, total);
            }
            Ok(Event::End(Ok(path))) => {
                report.progress(total, total);
                // The library hands out a link into its own store.
                return path.canonicalize().map_err(Error::io(&path));
            }
            Ok(Event::End(Err(why))) => return Err(Error::Hub { why: format!("{why} ({file})") }),
            Err(RecvTimeoutError::Timeout) if patience == ANSWER => return Err(give_up(silent("no answer", ANSWER))),
            Err(RecvTimeoutError::Timeout) => return Err(give_up(silent("no byte arrived", STALL))),
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Error::Hub { why: format!("its answer could not be understood ({file})") });
            }
        }
    }
}
