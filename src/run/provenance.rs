//! Where a result comes from: versions, machine, inputs, what it cost.

use serde_json::{Value, json};
use std::process::Command;
use std::time::Instant;

/// Measures what the run costs; opened at its start.
pub struct Meter {
    start: Instant,
    cpu_s: Option<f64>,
}

impl Meter {
    /// Starts the clocks.
    pub fn start() -> Self {
        Self { start: Instant::now(), cpu_s: cpu_seconds() }
    }

    /// Wall seconds since the start.
    pub fn wall_s(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    /// CPU seconds since the start, where the system tells.
    pub fn cpu_s(&self) -> Option<f64> {
        Some(cpu_seconds()? - self.cpu_s?)
    }
}

/// CPU seconds of this process so far (user and system).
fn cpu_seconds() -> Option<f64> {
    const TICKS_PER_S: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The command name may hold spaces; the fields behind its closing bracket do not.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: f64 = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
    Some(ticks / TICKS_PER_S)
}

/// Largest resident memory of this process so far, in MiB.
pub fn peak_memory_mib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<f64>().ok()? / 1024.0)
}

/// Program, source state and machine.
pub fn environment(threads: usize) -> Value {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        cpu.lines().find(|l| l.starts_with(name)).and_then(|l| l.split_once(':')).map(|(_, v)| v.trim().to_owned())
    };
    let flags = field("flags").unwrap_or_default();
    let vector_units: Vec<&str> =
        flags.split(' ').filter(|f| matches!(*f, "avx2" | "fma" | "avx512f" | "avx512_bf16" | "amx_tile")).collect();
    json!({
        "stitchback": env!("CARGO_PKG_VERSION"),
        "git_commit": git(&["rev-parse", "HEAD"]),
        "git_clean": git(&["status", "--porcelain"]).map(|s| s.is_empty()),
        "os": std::env::consts::OS,
        "arch": std::env::consts::ARCH,
        "cpu": field("model name"),
        "vector_units": vector_units,
        "cores": std::thread::available_parallelism().map(usize::from).ok(),
        "threads": threads,
        "determinism": "same bits on the same machine class, any number of threads",
    })
}

/// What git says of the source tree; `None` outside a checkout.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").arg("-C").arg(env!("CARGO_MANIFEST_DIR")).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cost_is_measured_where_the_system_tells() {
        let meter = Meter::start();
        assert!(meter.wall_s() >= 0.0);
        if cfg!(target_os = "linux") {
            assert!(meter.cpu_s().is_some_and(|s| s >= 0.0));
            assert!(peak_memory_mib().is_some_and(|m| m > 1.0));
        }
    }
}
