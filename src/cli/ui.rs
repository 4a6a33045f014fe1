//! What verbs share on the terminal: progress on stderr, data on stdout.

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use stitchback::attack::Progress;
use stitchback::data::asset::Report;
use stitchback::run::Watch;

/// Messages and progress on stderr; the bars only on a terminal. Also hears the request to stop.
#[derive(Debug)]
pub(crate) struct Terminal {
    bars: MultiProgress,
    /// Cells of a run.
    cells: ProgressBar,
    /// What the current cell does.
    work: ProgressBar,
    /// The current download.
    bytes: ProgressBar,
    quiet: bool,
    interrupted: Arc<AtomicBool>,
}

impl Terminal {
    /// With `quiet`, says nothing at all.
    pub(crate) fn new(quiet: bool) -> Self {
        let hidden = quiet || !io::stderr().is_terminal();
        let target = if hidden { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bars = MultiProgress::with_draw_target(target);
        let colour = if has_colour() { ".cyan" } else { "" };
        let bar = |template: &str| {
            let style =
                ProgressStyle::with_template(&template.replace("COLOUR", colour)).expect("the template is ours");
            bars.add(ProgressBar::new(0).with_style(style.progress_chars("=> ")))
        };
        let cells = bar("  cells [{bar:32COLOUR}] {pos}/{len} {elapsed} (left: {eta}) {msg}");
        let work = bar("        [{bar:32COLOUR}] {pos}/{len} {msg} (left: {eta})");
        let bytes = bar("  [{bar:32COLOUR}] {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}");
        Self { bars, cells, work, bytes, quiet, interrupted: Arc::new(AtomicBool::new(false)) }
    }

    /// From now on the first Ctrl-C asks the work to stop at the next safe point, and the second ends the process.
    pub(crate) fn listen(&self) -> Result<(), ctrlc::Error> {
        let flag = Arc::clone(&self.interrupted);
        ctrlc::set_handler(move || {
            if flag.swap(true, Ordering::Relaxed) {
                // Everything on disk is whole at any moment.
                std::process::exit(stitchback::Exit::Interrupted as i32);
            }
        })
    }

    /// Takes the bars away.
    pub(crate) fn finish(&self) {
        for bar in [&self.work, &self.bytes, &self.cells] {
            bar.finish_and_clear();
        }
    }

    /// A line that is shown even when quiet.
    pub(crate) fn warn(&self, text: &str) {
        self.bars.suspend(|| {
            // A message that cannot be shown must not stop the work it tells about.
            let _ = writeln!(io::stderr(), "{text}");
        });
    }
}

impl Report for Terminal {
    fn message(&self, text: &str) {
        if !self.quiet {
            self.warn(text);
        }
    }

    fn progress(&self, done: u64, total: u64) {
        if done >= total {
            // Cleared, but ready for the next download.
            self.bytes.finish_and_clear();
            self.bytes.reset();
            return;
        }
        self.bytes.set_length(total);
        self.bytes.set_position(done);
    }
}

impl Progress for Terminal {
    fn update(&self, done: usize, total: usize, what: &str) {
        if self.work.message() != what || self.work.is_finished() {
            self.work.reset();
            self.work.set_message(what.to_owned());
        }
        self.work.set_length(total as u64);
        self.work.set_position(done as u64);
    }

    fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }
}

impl Watch for Terminal {
    fn cell(&self, done: usize, total: usize, name: &str) {
        if self.cells.is_finished() {
            // The next corpus of a study: bars that were taken away come back.
            self.cells.reset();
        }
        self.cells.set_length(total as u64);
        self.cells.set_position(done as u64);
        self.cells.set_message(name.to_owned());
        if self.cells.is_hidden() {
            // In a log file the bars are silent: one line for each cell says how far the run is.
            self.message(&format!("[{done}/{total}] {name}"));
        }
    }
}

/// Colours are wanted on a terminal, unless `NO_COLOR` is set to anything.
pub(crate) fn has_colour() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) && io::stderr().is_terminal()
}

/// Writes a line to stderr, outside of any progress.
pub(crate) fn note(text: &str) {
    // Without a stderr there is nobody to tell.
    let _ = writeln!(io::stderr(), "{text}");
}

/// Writes `text` and a line end to stdout.
///
/// # Errors
/// When stdout is gone; `main` takes a broken pipe as success.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.write_all(b"\n")?;
    out.flush()
}

/// Bytes for people.
pub(crate) fn bytes(count: u64) -> String {
    indicatif::HumanBytes(count).to_string()
}
