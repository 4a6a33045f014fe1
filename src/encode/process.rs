//! An encoder that is a program of yours: texts go in and vectors come out over its standard streams.
//!
//! The victim's name is `process:PROGRAM ARGUMENT ...` (split at spaces; no shell). A message in either direction is a
//! frame: `le32` length of a JSON header (at most 64 KiB), the header, `le64` length of a payload, the payload.
//!
//! ```text
//! program -> us   {"proto": 1, "name": "...", "kind": "encoder", "dim": 384}                       within 10 s of its start
//! us -> program   {"op": "encode", "n": 2}          payload: a JSON list of n texts
//! program -> us   {"ok": true, "rows": 2, "dim": 384}  payload: rows x dim little-endian f32        within 60 s
//! program -> us   {"ok": false, "error": "..."}        no payload
//! ```
//!
//! A protection speaks the same protocol: see [`crate::protect::Process`].
//!
//! It ends when its input does. `python/stitchback_plugin.py` does all of this for Python; `stitchback plugin check` tries
//! what an encoder must keep: order, finite rows of one length, the same vector for the same text whatever stands beside it.

use super::{Embeddings, Encoder, EncoderInfo, Error};
use serde::Deserialize;
use serde_json::json;
use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

/// What a name begins with that stands for a program.
pub const PREFIX: &str = "process:";
/// Largest header.
const HEADER_CAP: usize = 64 << 10;
/// Largest payload: a thousand rows of 16 384 coordinates.
const PAYLOAD_CAP: u64 = 64 << 20;
/// Texts of one request.
const BATCH: usize = 1024;
/// Time for the greeting, and for a batch.
const GREETING: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_mins(1);

/// A header with its payload.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    /// JSON.
    pub header: serde_json::Value,
    /// Bytes.
    pub payload: Vec<u8>,
}

impl Frame {
    /// Reads a frame; `None` at the end of the stream.
    ///
    /// # Errors
    /// A stream that ends inside a frame, a header or payload beyond its cap, a header that is no JSON object.
    pub fn read(from: &mut impl Read) -> Result<Option<Self>, String> {
        let mut first = [0; 4];
        match from.read(&mut first[..1]) {
            Ok(0) => return Ok(None),
            Ok(_) => {}
            Err(e) => return Err(format!("its output cannot be read: {e}")),
        }
        let cut = |e: std::io::Error| format!("its output ends inside a message: {e}");
        from.read_exact(&mut first[1..]).map_err(cut)?;
        let length = u32::from_le_bytes(first) as usize;
        if length > HEADER_CAP {
            return Err(format!(
                "it announces a header of {length} bytes, more than {HEADER_CAP}; does it print to its standard output?"
            ));
        }
        let mut header = vec![0; length];
        from.read_exact(&mut header).map_err(cut)?;
        let header: serde_json::Value =
            serde_json::from_slice(&header).map_err(|e| format!("its header is no JSON: {e}"))?;
        if !header.is_object() {
            return Err("its header is no JSON object".to_owned());
        }
        let mut length = [0; 8];
        from.read_exact(&mut length).map_err(cut)?;
        let length = u64::from_le_bytes(length);
        if length > PAYLOAD_CAP {
            return Err(format!("it announces a payload of {length} bytes, more than {PAYLOAD_CAP}"));
        }
        // Read as it comes: a length is believed only as far as bytes arrive.
        let mut payload = Vec::new();
        from.take(length).read_to_end(&mut payload).map_err(cut)?;
        if payload.len() as u64 != length {
            return Err("its output ends inside a payload".to_owned());
        }
        Ok(Some(Self { header, payload }))
    }

    /// Writes a frame.
    ///
    /// # Errors
    /// When the other side is gone.
    pub fn write(&self, to: &mut impl Write) -> std::io::Result<()> {
        let header = self.header.to_string();
        to.write_all(&(header.len() as u32).to_le_bytes())?;
        to.write_all(header.as_bytes())?;
        to.write_all(&(self.payload.len() as u64).to_le_bytes())?;
        to.write_all(&self.payload)?;
        to.flush()
    }
}

/// The greeting of a program.
#[derive(Debug, Deserialize)]
pub struct Greeting {
    proto: u32,
    name: String,
    /// `encoder` or `protection`.
    pub kind: String,
    /// Coordinates of an encoder's vectors.
    #[serde(default)]
    dim: usize,
}

/// A running program; it is ended when it is dropped.
#[derive(Debug)]
pub struct Program {
    child: Child,
    input: Option<ChildStdin>,
    frames: Receiver<Result<Frame, String>>,
}

impl Program {
    /// Starts a program, named with its arguments and split at spaces, and hears its greeting.
    ///
    /// # Errors
    /// In words: when it cannot be started, does not greet in time, or speaks another protocol.
    pub fn open(command: &str) -> Result<(Self, Greeting), String> {
        let program = Self::start(&command.split_whitespace().collect::<Vec<_>>())?;
        let frame = program.receive(GREETING)?;
        let greeting: Greeting = serde_json::from_value(frame.header)
            .map_err(|e| format!("its greeting is none: {e}; see `python/stitchback_plugin.py`"))?;
        match greeting.proto {
            1 => Ok((program, greeting)),
            other => Err(format!("it speaks protocol {other}; protocol 1 is expected")),
        }
    }

    fn start(argv: &[&str]) -> Result<Self, String> {
        let (program, arguments) = argv.split_first().ok_or("no program is named")?;
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| format!("`{program}` cannot be started: {e}"))?;
        let input = child.stdin.take();
        let mut output = child.stdout.take().ok_or("it has no output")?;
        let (send, frames) = mpsc::channel();
        std::thread::spawn(move || {
            loop {
                let frame = match Frame::read(&mut output) {
                    Ok(Some(frame)) => Ok(frame),
                    Ok(None) => Err("it ended".to_owned()),
                    Err(why) => Err(why),
                };
                let last = frame.is_err();
                if send.send(frame).is_err() || last {
                    return;
                }
            }
        });
        Ok(Self { child, input, frames })
    }

    fn receive(&self, patience: Duration) -> Result<Frame, String> {
        match self.frames.recv_timeout(patience) {
            Ok(frame) => frame,
            Err(_) => Err(format!("it said nothing for {} s", patience.as_secs())),
        }
    }

    /// Asks and waits for the answer. A program that does not answer is asked nothing more: what it says late would be taken for
    /// the answer to the next question. One that refuses goes on.
    ///
    /// # Errors
    /// In words: when it is gone, silent, says what is no frame, or refuses.
    pub(crate) fn call(&mut self, header: serde_json::Value, payload: Vec<u8>) -> Result<Frame, String> {
        self.call_within(PATIENCE, &Frame { header, payload })
    }

    fn call_within(&mut self, patience: Duration, question: &Frame) -> Result<Frame, String> {
        let input = self.input.as_mut().ok_or("it is gone: it did not answer before")?;
        let asked = question.write(input).map_err(|e| format!("it no longer reads: {e}"));
        let answer = asked.and_then(|()| self.receive(patience)).inspect_err(|_| self.input = None)?;
        if answer.header["ok"] == true {
            return Ok(answer);
        }
        let why = answer.header["error"].as_str().unwrap_or("it gives no reason").chars().take(200).collect::<String>();
        Err(format!("it refused: {}", why.escape_debug()))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Its input ends first: a program that listens ends by itself.
        drop(self.input.take());
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            std::thread::sleep(Duration::from_millis(50));
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

/// An encoder that is a program.
pub struct Process {
    info: EncoderInfo,
    program: Mutex<Program>,
}

impl Process {
    /// Starts the program named by `process:PROGRAM ARGUMENT ...` and hears its greeting.
    ///
    /// # Errors
    /// When it cannot be started, does not greet in time, or is no encoder of ours.
    pub fn open(name: &str) -> Result<Self, Error> {
        let refused = |why: String| Error::Unsupported { name: name.to_owned(), why };
        let (program, greeting) = Program::open(name.strip_prefix(PREFIX).unwrap_or(name)).map_err(refused)?;
        if greeting.kind != "encoder" || !(1..=16_384).contains(&greeting.dim) {
            let Greeting { kind, dim, .. } = greeting;
            return Err(refused(format!(
                "kind `{}`, {dim} coordinates; `encoder` and 1 to 16384 are expected",
                kind.escape_debug()
            )));
        }
        let mut hasher = blake3::Hasher::new_derive_key("stitchback process encoder v1");
        hasher.update(name.as_bytes());
        hasher.update(greeting.name.as_bytes());
        let mut new = Self {
            info: EncoderInfo {
                name: name.to_owned(),
                dim: greeting.dim,
                max_len_tokens: 0,
                fingerprint: String::new(),
                toy: false,
            },
            program: Mutex::new(program),
        };
        // What it says of a fixed text is part of its identity: another program behind the same name is another encoder.
        new.encode(&["The quick brown fox jumps over the lazy dog."])?.values().iter().for_each(|v| {
            hasher.update(&v.to_le_bytes());
        });
        new.info.fingerprint = hasher.finalize().to_hex().to_string();
        Ok(new)
    }

    fn batch(&self, program: &mut Program, texts: &[&str]) -> Result<Vec<f32>, Error> {
        let refused = |why: String| Error::Unsupported { name: self.info.name.clone(), why };
        let payload = json!(texts).to_string().into_bytes();
        let answer = program.call(json!({ "op": "encode", "n": texts.len() }), payload).map_err(refused)?;
        let (rows, dim) = (&answer.header["rows"], &answer.header["dim"]);
        if *rows != texts.len() || *dim != self.info.dim || answer.payload.len() != texts.len() * self.info.dim * 4 {
            return Err(refused(format!(
                "it answers {rows} rows of {dim} in {} bytes for {} texts of {}",
                answer.payload.len(),
                texts.len(),
                self.info.dim
            )));
        }
        Ok(answer.payload.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
    }
}

impl Encoder for Process {
    fn info(&self) -> &EncoderInfo {
        &self.info
    }

    fn encode(&self, texts: &[&str]) -> Result<Embeddings, Error> {
        let mut program = self.program.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut values = Vec::with_capacity(texts.len() * self.info.dim);
        for batch in texts.chunks(BATCH) {
            values.extend(self.batch(&mut program, batch)?);
        }
        Embeddings::new(values, self.info.dim)
    }
}

/// One thing that an encoder must keep, and whether this one does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conformance {
    /// What was tried.
    pub what: &'static str,
    /// Why it does not hold; `None` where it does.
    pub problem: Option<String>,
}

/// Tries what every encoder must keep.
///
/// # Errors
/// Never for a program that is wrong; that is what the list is for.
pub fn check(encoder: &dyn Encoder) -> Vec<Conformance> {
    let texts = ["", "a", "The ball rolled under the parked car.", "\u{1f3be} naïve \"quotes\"\n\ttabs", "a"];
    let long = "word ".repeat(5000);
    let result = |what, outcome: Result<bool, Error>, otherwise: &str| Conformance {
        what,
        problem: match outcome {
            Ok(true) => None,
            Ok(false) => Some(otherwise.to_owned()),
            Err(error) => Some(error.to_string()),
        },
    };
    let together = encoder.encode(&texts);
    let rows = |i: usize| together.as_ref().ok().map(|t| t.row(i).to_vec());
    vec![
        result(
            "texts of every kind get finite rows",
            encoder.encode(&texts).map(|t| t.len() == texts.len()),
            "rows are missing",
        ),
        result(
            "the same text gets the same row in one batch",
            Ok(rows(1).is_some() && rows(1) == rows(4)),
            "two rows of one text differ",
        ),
        result(
            "a row does not depend on what stands beside it",
            encoder.encode(&[texts[2]]).map(|t| Some(t.row(0).to_vec()) == rows(2)),
            "alone the text gets another row",
        ),
        result(
            "rows come in the order of the texts",
            encoder.encode(&[texts[3], texts[2]]).map(|t| Some(t.row(1).to_vec()) == rows(2)),
            "reversed texts do not give reversed rows",
        ),
        result(
            "different texts get different rows",
            Ok(rows(2).is_some() && rows(2) != rows(3)),
            "two texts have one row",
        ),
        result("no text gives no row", encoder.encode(&[]).map(|t| t.is_empty()), "there is a row for nothing"),
        result("a very long text gets a row", encoder.encode(&[&long]).map(|t| t.len() == 1), "no row"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_gives_back_what_was_written() {
        let frame = Frame { header: json!({ "op": "encode", "n": 1 }), payload: vec![1, 2, 3] };
        let mut bytes = Vec::new();
        frame.write(&mut bytes).expect("memory");
        assert_eq!(bytes[..4], (frame.header.to_string().len() as u32).to_le_bytes());
        let mut rest = &bytes[..];
        assert_eq!(Frame::read(&mut rest), Ok(Some(frame)));
        assert_eq!(Frame::read(&mut rest), Ok(None));
    }

    #[test]
    fn hostile_frames_are_named_before_anything_is_allocated() {
        let mut good = Vec::new();
        Frame { header: json!({ "ok": true }), payload: vec![7; 9] }.write(&mut good).expect("memory");
        for cut in 1..good.len() {
            assert!(Frame::read(&mut &good[..cut]).is_err(), "cut at {cut}");
        }
        let head = (good.len() - 9 - 8).min(good.len());
        let mut huge = good.clone();
        huge[head..head + 8].copy_from_slice(&u64::MAX.to_le_bytes());
        for (bytes, why) in [
            (b"Hello, I am a chatty program".to_vec(), "does it print to its standard output"),
            ([&4_u32.to_le_bytes()[..], b"[[[["].concat(), "no JSON"),
            ([&2_u32.to_le_bytes()[..], b"[]"].concat(), "no JSON object"),
            (huge, "more than"),
        ] {
            let error = Frame::read(&mut &bytes[..]).expect_err(why);
            assert!(error.contains(why), "{error}");
        }
    }

    /// A program that prints `frames`, each after so many seconds, and then waits for the end of its input.
    #[cfg(unix)]
    fn prints(frames: &[(&str, serde_json::Value)]) -> Program {
        use std::fmt::Write as _;
        let mut script = String::new();
        for (seconds, header) in frames {
            let mut bytes = Vec::new();
            Frame { header: header.clone(), payload: Vec::new() }.write(&mut bytes).expect("memory");
            let octal = bytes.iter().fold(String::new(), |mut text, byte| {
                write!(text, "\\{byte:03o}").expect("memory");
                text
            });
            write!(script, "sleep {seconds}; printf '{octal}'; ").expect("memory");
        }
        Program::start(&["sh", "-c", &(script + "cat > /dev/null")]).expect("there is a shell")
    }

    #[cfg(unix)]
    #[test]
    fn a_late_answer_is_not_taken_for_that_of_the_next_question() {
        let question = Frame { header: json!({ "op": "encode", "n": 1 }), payload: Vec::new() };
        let mut late = prints(&[("1", json!({ "ok": true, "rows": 1 }))]);
        let silent = late.call_within(Duration::from_millis(100), &question).expect_err("too early");
        assert!(silent.contains("said nothing"), "{silent}");
        let gone = late.call_within(Duration::from_secs(10), &question).expect_err("it is asked nothing more");
        assert!(gone.contains("it is gone"), "{gone}");

        let mut refuses = prints(&[("0", json!({ "ok": false, "error": "too long" })), ("0", json!({ "ok": true }))]);
        let refused = refuses.call_within(Duration::from_secs(10), &question).expect_err("a refusal");
        assert_eq!(refused, "it refused: too long");
        assert!(refuses.call_within(Duration::from_secs(10), &question).is_ok(), "a refusal ends nothing");
    }

    #[test]
    fn a_conforming_encoder_passes_and_one_that_counts_does_not() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        /// Its vectors depend on how often it was asked.
        struct Counts(EncoderInfo, AtomicUsize);
        impl Encoder for Counts {
            fn info(&self) -> &EncoderInfo {
                &self.0
            }
            fn encode(&self, texts: &[&str]) -> Result<Embeddings, Error> {
                let value = |_: &&str| self.1.fetch_add(1, Ordering::Relaxed) as f32;
                Embeddings::new(texts.iter().map(value).collect(), 1)
            }
        }
        let toy = crate::encode::Toy::named("toy");
        assert!(check(&toy).iter().all(|c| c.problem.is_none()), "{:?}", check(&toy));
        let counts = Counts(toy.info().clone(), AtomicUsize::new(0));
        assert!(check(&counts).iter().filter(|c| c.problem.is_some()).count() >= 3);
    }
}
