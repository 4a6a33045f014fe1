//! `process`: a protection that is a program of yours.

use super::Error;
use super::arguments::Arguments;
use super::claim::{Domain, Noise, State};
use super::stage::{Parameters, Release, Stage, out_of_range};
use crate::encode::Embeddings;
use crate::encode::process::{Conformance, Program};
use crate::seed;
use rand::Rng;
use serde_json::json;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// Rows of one request.
const BATCH: usize = 1024;
/// Draws whose mean stands for what a program does without its noise.
const QUIET: usize = 8;
/// Largest file of a command that is hashed.
const HASHED_BYTES: u64 = 16 << 20;

/// Sends the rows through a program: raw numbers in, raw numbers out, over its standard streams.
///
/// The frames are those of [`crate::encode::process`]; `command` is split at spaces and started without a shell, when rows
/// first arrive and not before.
///
/// ```text
/// program -> us   {"proto": 1, "name": "...", "kind": "protection"}
/// us -> program   {"op": "protect", "rows": 2, "dim": 384, "seed": 17}    payload: rows x dim little-endian f32
/// program -> us   {"ok": true, "rows": 2, "dim": 384}                     payload likewise
/// ```
///
/// `seed` is a fresh number of 53 bits for each request: all noise is to come from it. What the program does without its
/// noise, as a denoiser needs to know it, is the mean of `average` draws. Files that the command names are hashed, so that
/// the printed form means the same program wherever it is read again.
///
/// # Guarantee
/// None, whatever stands before or behind it: nobody knows what the program does with the records.
///
/// # Errors
/// A program that cannot be started, stays silent, refuses, or answers another shape or values that are not finite.
#[derive(Debug, Clone)]
pub struct Process {
    /// The program and its arguments.
    pub command: String,
    /// Draws of which the mean is released; 1 for a release.
    pub average: usize,
    hash: Option<String>,
    program: Arc<Mutex<Option<Program>>>,
}

impl PartialEq for Process {
    fn eq(&self, other: &Self) -> bool {
        (&self.command, self.average, &self.hash) == (&other.command, other.average, &other.hash)
    }
}

impl Process {
    /// The program `command`.
    pub fn new(command: &str) -> Self {
        let words: Vec<&str> = command.split_whitespace().collect();
        Self { hash: hash(&words), command: words.join(" "), average: 1, program: Arc::default() }
    }

    pub(super) fn read(arguments: &mut Arguments<'_>) -> Self {
        let command = arguments.optional_word("command");
        if command.is_none() {
            arguments.problem("needs `command`, for example `process(command=python3 my_protection.py)`");
        }
        let expected = arguments.optional_word("hash");
        let average = arguments.optional_count("average").map_or(1, |n| n as usize);
        let new = Self { average, ..Self::new(command.unwrap_or_default()) };
        if let (Some(expected), false) = (expected, expected.map(str::to_owned) == new.hash) {
            arguments.problem(format!(
                "was written for other files than `{}` names now ({expected} against {}); leave `hash` out to take these",
                new.command,
                new.hash.as_deref().unwrap_or("none")
            ));
        }
        new
    }

    /// What it does without its noise.
    pub(super) fn quiet(&self) -> Self {
        Self { average: self.average.max(QUIET), ..self.clone() }
    }

    /// One draw.
    fn draw(&self, rows: &Embeddings, rng: &mut dyn Rng) -> Result<Embeddings, Error> {
        let mut slot = self.program.lock().unwrap_or_else(PoisonError::into_inner);
        let refused = |why: String| Error::Input(format!("`process(command={})`: {why}", self.command));
        if slot.is_none() {
            *slot = Some(start(&self.command).map_err(refused)?);
        }
        let program = slot.as_mut().expect("just started");
        let mut out = Vec::with_capacity(rows.values().len());
        for batch in rows.values().chunks(BATCH * rows.dim()) {
            match ask(program, batch, rows.dim(), rng.next_u64() >> 11) {
                Ok(values) => out.extend(values),
                Err(why) => {
                    // What it may still say belongs to nobody's question.
                    *slot = None;
                    return Err(refused(why));
                }
            }
        }
        Embeddings::new(out, rows.dim()).map_err(|error| refused(format!("it answers what is no table: {error}")))
    }
}

/// BLAKE3 of the files among the words of a command; `None` without any.
fn hash(words: &[&str]) -> Option<String> {
    let mut hasher = blake3::Hasher::new_derive_key("stitchback process protection v1");
    let mut any = false;
    for path in words.iter().map(Path::new) {
        let small = path.metadata().is_ok_and(|m| m.is_file() && m.len() <= HASHED_BYTES);
        if let Some(bytes) = small.then(|| std::fs::read(path).ok()).flatten() {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(&bytes);
            any = true;
        }
    }
    any.then(|| hasher.finalize().to_hex()[..16].to_owned())
}

fn start(command: &str) -> Result<Program, String> {
    let (program, greeting) = Program::open(command)?;
    if greeting.kind != "protection" {
        let kind = greeting.kind.escape_debug();
        return Err(format!("it is of kind `{kind}`; `protection` is expected, see `python/stitchback_plugin.py`"));
    }
    Ok(program)
}

/// One request: as many rows back as were sent, of the same length.
fn ask(program: &mut Program, values: &[f32], dim: usize, seed: u64) -> Result<Vec<f32>, String> {
    let rows = values.len() / dim;
    let payload = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let answer = program.call(json!({ "op": "protect", "rows": rows, "dim": dim, "seed": seed }), payload)?;
    let (got, wide) = (&answer.header["rows"], &answer.header["dim"]);
    if *got != rows || *wide != dim || answer.payload.len() != values.len() * 4 {
        let bytes = answer.payload.len();
        return Err(format!("it answers {got} rows of {wide} in {bytes} bytes for {rows} rows of {dim}"));
    }
    Ok(answer.payload.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
}

impl Parameters for Process {
    fn arguments(&self) -> Vec<(&'static str, String)> {
        let average = (self.average != 1).then(|| ("average", self.average.to_string()));
        let hash = self.hash.clone().map(|hash| ("hash", hash));
        [("command", self.command.clone())].into_iter().chain(average).chain(hash).collect()
    }

    fn check(&self) -> Vec<(&'static str, String)> {
        let odd = self.command.contains([',', '|', ')']) || self.command.is_empty();
        let command = odd.then(|| {
            (
                "command",
                "must be a program with its arguments, without `,`, `|` and `)`: put them into a script".to_owned(),
            )
        });
        command.into_iter().chain(out_of_range("average", self.average as f64, 1.0, 1000.0)).collect()
    }

    fn build(&self, _: &State) -> Result<Box<dyn Stage>, String> {
        Ok(Box::new(self.clone()))
    }
}

impl Stage for Process {
    fn name(&self) -> &'static str {
        "process"
    }

    fn apply(&self, release: Release, rng: &mut dyn Rng) -> Result<Release, Error> {
        let mut key = [0_u8; 8];
        rng.fill_bytes(&mut key);
        let mut seeds = seed::stream(u64::from_le_bytes(key), "process", "seeds of requests");
        let mut vectors = self.draw(&release.vectors, &mut seeds)?;
        for k in 1..self.average {
            let next = self.draw(&release.vectors, &mut seeds)?;
            for (mean, v) in vectors.values_mut().iter_mut().zip(next.values()) {
                *mean += (v - *mean) / (k + 1) as f32;
            }
        }
        Ok(Release { vectors, ..release })
    }

    fn guarantee(&self, before: &State) -> State {
        let mut after = before.clone();
        let reason = "`process`: nobody knows what a program of one's own does with the records: no guarantee is counted, \
                      before it or behind it";
        after.promises_nothing(reason);
        after.tainted.get_or_insert_with(|| reason.to_owned());
        after.sensitivity = None;
        after.domain = Domain::Unbounded;
        after.noise = Noise::Mixed;
        after
    }
}

/// Tries what every protection must keep.
///
/// Three of the tries compare means of draws; each errs, for a program that keeps everything, less than once in 100 000
/// checks: the largest of 24 differences may be 6 standard errors.
///
/// # Errors
/// In words, when the program cannot be started or is no protection.
pub fn check(command: &str) -> Result<Vec<Conformance>, String> {
    const DIM: usize = 24;
    let mut program = start(command)?;
    let mut next = 0;
    let mut draw = |rows: &[f32]| {
        next += 1;
        ask(&mut program, rows, DIM, next)
    };
    let row = |k: usize| (0..DIM).map(move |j| ((k * 7 + j * 3) as f32 * 0.37).sin() * 0.2);
    let table: Vec<f32> = (0..40).flat_map(row).collect();
    let copies = |n: usize| -> Vec<f32> { (0..n).flat_map(|_| row(1)).collect() };

    let mut found = Vec::new();
    let mut tried = |what, outcome: Result<bool, String>, otherwise: &str| {
        let problem = match outcome {
            Ok(true) => None,
            Ok(false) => Some(otherwise.to_owned()),
            Err(why) => Some(why),
        };
        found.push(Conformance { what, problem });
    };
    let finite = |rows: &[f32]| rows.iter().all(|v| v.is_finite());
    tried("every row gets a finite row of its length", draw(&table).map(|r| finite(&r)), "a value is not finite");
    tried("rows of zeros get finite rows", draw(&[0.0; 2 * DIM]).map(|r| finite(&r)), "a value is not finite");
    tried("no row gives no row", draw(&[]).map(|r| r.is_empty()), "there is a row for nothing");

    let (one, other) = (draw(&copies(512)), draw(&copies(512)));
    let is_noisy = one.is_ok() && one != other;
    let apart = one.clone().map(|rows| !is_noisy || rows[..DIM] != rows[DIM..2 * DIM]);
    tried("no noise is shared between rows", apart, "two equal rows of one request get the same noise");
    let split: Result<Vec<f32>, String> =
        (0..32).map(|_| draw(&copies(16))).collect::<Result<Vec<_>, _>>().map(|parts| parts.concat());
    let same_law = one.and_then(|one| Ok(alike(&one, &split?, DIM)));
    tried("a request of few rows follows the law of one of many", same_law, "means or spreads differ");
    let mut beside = |scale: f32| -> Result<Vec<f32>, String> {
        let neighbours = row(2).map(|v| v * scale).collect::<Vec<f32>>().repeat(7);
        let request: Vec<f32> = row(1).chain(neighbours).collect();
        let draws = (0..96).map(|_| draw(&request).map(|r| r[..DIM].to_vec())).collect::<Result<Vec<_>, _>>()?;
        Ok(draws.concat())
    };
    let alone = beside(30.0).and_then(|a| Ok(alike(&a, &beside(-30.0)?, DIM)));
    tried("a row does not depend on what stands beside it", alone, "its mean or spread follows its neighbours");
    let again = ask(&mut program, &table, DIM, 5).and_then(|a| Ok(a == ask(&mut program, &table, DIM, 5)?));
    tried(
        "the same seed gives the same bytes",
        again,
        "two answers to one request differ; draw all noise from the seed",
    );
    let refuses = program.call(json!({ "op": "no such thing" }), Vec::new()).is_err();
    let goes_on = ask(&mut program, &table, DIM, 1).map(|_| refuses);
    tried("what it does not know is refused, and it goes on", goes_on, "an unknown `op` was answered");
    Ok(found)
}

/// Whether two samples of rows have one mean and one spread, as far as their sizes can tell.
fn alike(a: &[f32], b: &[f32], dim: usize) -> bool {
    let moments = |rows: &[f32], j: usize| {
        let n = (rows.len() / dim) as f64;
        let column = || rows.iter().skip(j).step_by(dim).map(|&v| f64::from(v));
        let mean = column().sum::<f64>() / n;
        (n, mean, column().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0))
    };
    let (mut spread_a, mut spread_b) = (0.0, 0.0);
    for j in 0..dim {
        let ((n, mean, variance), (m, other, wide)) = (moments(a, j), moments(b, j));
        spread_a += variance;
        spread_b += wide;
        // Rounding of a mean of equal numbers is no difference.
        if (mean - other).abs() > 6.0 * (variance / n + wide / m).sqrt() + 1e-6 * mean.abs().max(1e-3) {
            return false;
        }
    }
    // Rows whose length is random as a whole spread widely: a factor of 1.5 in variance is beyond all of them.
    let (least, most) = (spread_a.min(spread_b), spread_a.max(spread_b));
    most < 1e-9 || most <= 1.5 * least
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protect::Pipeline;

    const DEMO: &str = "python3 python/stitchback_plugin.py protection";

    #[test]
    fn a_program_adds_its_noise_and_promises_nothing() {
        let pipeline = Pipeline::parse(&format!("clip(l2=1) | process(command={DEMO}) | gaussian(sigma=0.01)"));
        let pipeline = pipeline.expect("a pipeline; nothing is started");
        let claim = pipeline.claim_at(64);
        assert_eq!((claim.kind(), claim.epsilon(1e-5), claim.sigma()), ("none", None, None));
        assert!(claim.note().contains("nobody knows what a program"), "{}", claim.note());
        let clean = Embeddings::new(vec![0.0; 3000 * 64], 64).expect("finite");
        let draw =
            |p: &Pipeline, root| p.release(&clean, None, &mut seed::stream(root, "", "")).expect("it runs").vectors;
        let spread = |x: &Embeddings| (x.values().iter().map(|v| f64::from(v * v)).sum::<f64>() / 192_000.0).sqrt();
        let noisy = draw(&pipeline, 1);
        // Its noise has sigma .1; the standard error of 192 000 numbers' spread is sigma / 620, five of them.
        assert!((spread(&noisy) / 0.1_f64.hypot(0.01) - 1.0).abs() < 5.0 / 620.0, "{}", spread(&noisy));
        assert_eq!(draw(&pipeline, 1), noisy);
        assert_ne!(draw(&pipeline, 2), noisy);
        // A denoiser's idea of the signal has the noise of eight draws.
        let quiet = pipeline.without_noise();
        assert!((spread(&draw(&quiet, 1)) / (0.1 / 8_f64.sqrt()) - 1.0).abs() < 5.0 / 620.0);
        assert_eq!(quiet.without_noise(), quiet);
    }

    #[test]
    fn a_changed_program_is_another_protection() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("mine.py");
        let put = |text: &str| {
            use std::io::Write;
            std::fs::File::create(&path).and_then(|mut f| f.write_all(text.as_bytes())).expect("writable");
        };
        put("print('one')\n");
        let printed = Process::new(&format!("python3 {}", path.display()));
        let printed = Pipeline::new(vec![printed.into()]).expect("valid").to_string();
        assert!(printed.contains("hash="), "{printed}");
        assert_eq!(Pipeline::parse(&printed).expect("its own text").to_string(), printed);
        put("print('two')\n");
        let why = Pipeline::parse(&printed).expect_err("another program").to_string();
        assert!(why.contains("was written for other files"), "{why}");
        for (text, why) in [
            ("process", "needs `command`"),
            ("process(command=python3 x.py, average=0)", "`process.average` must be greater than 0"),
            ("process(comand=x)", "did you mean `command`"),
        ] {
            let error = Pipeline::parse(text).expect_err(why).to_string();
            assert!(error.contains(why), "{error}");
        }
        let clean = Embeddings::new(vec![0.0; 4], 2).expect("finite");
        let broken = Pipeline::parse("process(command=no-such-program)").expect("nothing is started");
        let error = broken.release(&clean, None, &mut seed::stream(1, "", "")).expect_err("no program");
        assert!(error.to_string().contains("cannot be started"), "{error}");
    }

    #[test]
    fn means_and_spreads_are_compared_as_far_as_a_sample_can_tell() {
        use rand_distr::{Distribution, Normal};
        let mut rng = seed::stream(1, "alike", "samples");
        let mut sample = |mean: f64, sigma: f64| -> Vec<f32> {
            let normal = Normal::new(mean, sigma).expect("positive");
            (0..512 * 24).map(|_| normal.sample(&mut rng) as f32).collect()
        };
        let one = sample(0.0, 1.0);
        assert!(alike(&one, &sample(0.0, 1.0), 24));
        assert!(!alike(&one, &sample(0.5, 1.0), 24));
        assert!(!alike(&one, &sample(0.0, 1.4), 24));
        assert!(alike(&[0.3; 48], &[0.3; 96], 24) && !alike(&[0.3; 48], &[0.31; 96], 24));
    }
}
