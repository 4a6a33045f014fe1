//! A developer's story: a policy in the repository, a commit that lowers the noise, a waiver, its end, a new encoder.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Strong attackers are not what a toy can show: the bars are low, and everything else is as in real life.
const STUDY: &str = r#"
schema = 1
name = "toy-gate"
seeds = [1, 2, 3]
[data]
corpus = "toy"
targets = 60
validation = 12
auxiliary = 200
[encode]
victim = "toy"
judges = ["toy-judge"]
[[protect]]
name = "unprotected"
pipeline = "identity"
[[protect]]
name = "noisy"
pipeline = "clip(l2=1) | gaussian(sigma=SIGMA)"
[[attack]]
kind = "blind"
steps = 10
adapt_steps = 2
batch = 16
[[attack]]
kind = "nearest"
[[attack]]
kind = "decoder"
steps = 30
adapt_steps = 6
batch = 16
d_model = 32
layers = 1
vocabulary = 400
samples = 4
[strength]
victim_cosine = 0.0
"#;

const POLICY: &str = r#"schema = "stitchback/gate/v1"

[defaults]
min_n = 50
min_seeds = 3

[strength]
min_gain = 0.05
max_late_gain = 1.0

[[check]]
id = "leak"
select = { protection = "noisy" }
# The toy's targets come from a dozen documents: bounds are wide.
max = 0.45

[[check]]
id = "no-worse"
level = "warn"
select = { protection = "noisy" }
max_regression = 0.05
"#;

const WAIVER: &str = r#"
[[waiver]]
id = "leak"
scope = "toy/noisy/*"
until = 2027-03-31
reason = "the new noise ships in March"
approved_by = "the team"
"#;

fn run(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stitchback"));
    command.current_dir(folder).args(arguments).stdin(Stdio::null());
    // What a workflow would see is asked for explicitly.
    command.env_remove("GITHUB_ACTIONS").env_remove("GITHUB_STEP_SUMMARY");
    command.output().expect("the program starts")
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or(-1)
}

fn shown(output: &Output) -> String {
    format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::io::Write::write_all(&mut std::fs::File::create(&path).expect("writable"), text.as_bytes()).expect("writable");
    path
}

fn read(folder: &Path, name: &str) -> String {
    std::fs::read_to_string(folder.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

#[test]
fn a_developers_story() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let here = folder.path();
    write(here, "gate.toml", POLICY);
    write(here, "quiet.toml", &STUDY.replace("SIGMA", "3"));
    write(here, "loud.toml", &STUDY.replace("SIGMA", "0.01"));

    // The repository as it stands: enough noise. Its scores become the baseline.
    let output = run(here, &["run", "quiet.toml", "--out", "quiet", "--quiet"]);
    assert!(matches!(code(&output), 0 | 4), "{}", shown(&output));
    let gate = |run_dir: &str, more: &[&str]| {
        run(here, &[&["gate", run_dir, "--policy", "gate.toml", "--today", "2027-03-01"], more].concat())
    };
    let output = gate("quiet", &["--save-baseline", "baseline.json"]);
    assert_eq!(code(&output), 0, "{}", shown(&output));

    // A commit lowers the noise: the gate fails and names the setting, everywhere at once.
    let output = run(here, &["run", "loud.toml", "--out", "loud", "--quiet"]);
    assert!(matches!(code(&output), 0 | 4), "{}", shown(&output));
    let files = ["-o", "v.json", "-o", "v.junit.xml", "-o", "v.sarif", "-o", "v.md"];
    let timed = |_| {
        let clock = std::time::Instant::now();
        let output = gate("loud", &[&["--baseline", "baseline.json"], &files[..]].concat());
        (clock.elapsed(), output)
    };
    // The best of three: other work on the machine is not the gate's.
    let (took, output) = (0..3).map(timed).min_by_key(|(took, _)| *took).expect("three runs");
    assert_eq!(code(&output), 1, "{}", shown(&output));
    assert!(took.as_secs_f64() < 1.0, "stored records are judged in under a second, not {took:?}");
    let text = shown(&output);
    assert!(text.contains("FAIL leak: judge_leak of "), "{text}");
    assert!(text.contains(" on noisy (clip(l2=1) | gaussian(sigma=0.01))"), "{text}");
    assert!(text.contains("warn: fail no-worse"), "{text}");
    for file in ["v.json", "v.junit.xml", "v.sarif", "v.md"] {
        assert!(read(here, file).contains("sigma"), "{file} names the setting");
    }
    assert!(read(here, "v.sarif").contains("\"startLine\": 11"), "the line of the check");

    // Nothing of a record stands in any of them.
    let guesses = std::fs::read_dir(here.join("loud/guesses")).expect("guesses").map_while(Result::ok);
    let lines: Vec<String> = guesses
        .filter_map(|f| std::fs::read_to_string(f.path()).ok())
        .flat_map(|t| t.lines().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    assert!(!lines.is_empty());
    for file in ["v.json", "v.junit.xml", "v.sarif", "v.md", "../baseline.json"] {
        let text = if file.starts_with("..") { read(here, "baseline.json") } else { read(here, file) };
        for line in &lines {
            let record: serde_json::Value = serde_json::from_str(line).expect("JSON");
            for key in ["target", "original", "guess"] {
                let private = record[key].as_str().expect("a text");
                assert!(private.len() < 4 || !text.contains(private), "{file} holds `{private}`");
            }
        }
    }

    // In a workflow the same verdict is annotated and summed up.
    let mut command = Command::new(env!("CARGO_BIN_EXE_stitchback"));
    command.current_dir(here).args(["gate", "loud", "--policy", "gate.toml", "--json"]);
    let summary = here.join("summary.md");
    let output = command.env("GITHUB_ACTIONS", "true").env("GITHUB_STEP_SUMMARY", &summary).output().expect("starts");
    assert_eq!(code(&output), 1);
    serde_json::from_slice::<serde_json::Value>(&output.stdout).expect("stdout is the verdict alone");
    assert!(String::from_utf8_lossy(&output.stderr).contains("::error file=gate.toml,line=11,title=SB1001 leak::"));
    assert!(read(here, "summary.md").contains("(exit 1)"));
    // A summary that cannot be written is no reason to say anything else.
    let mut command = Command::new(env!("CARGO_BIN_EXE_stitchback"));
    command.current_dir(here).args(["gate", "loud", "--policy", "gate.toml"]).env_remove("GITHUB_ACTIONS");
    let output = command.env("GITHUB_STEP_SUMMARY", here.join("gone/summary.md")).output().expect("starts");
    assert_eq!(code(&output), 1, "{}", shown(&output));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot write the step's summary"), "{}", shown(&output));

    // The team accepts it until the end of March.
    write(here, "gate.toml", &format!("{POLICY}{WAIVER}"));
    let output = gate("loud", &["--baseline", "baseline.json"]);
    assert_eq!(code(&output), 0, "{}", shown(&output));
    assert!(shown(&output).contains("waived until 2027-03-31: the new noise ships in March"), "{}", shown(&output));

    // April.
    let late = ["gate", "loud", "--policy", "gate.toml", "--today", "2027-04-01"];
    let output = run(here, &late);
    assert_eq!(code(&output), 4, "{}", shown(&output));
    assert!(shown(&output).contains("its waiver expired on 2027-03-31"), "{}", shown(&output));
    let output = run(here, &["gate", "--config-only", "--policy", "gate.toml", "--today", "2027-04-01"]);
    assert_eq!(code(&output), 4, "the hook says it before the run: {}", shown(&output));

    // Another encoder: the old baseline says nothing about it.
    let other = STUDY
        .replace("SIGMA", "3")
        .replace("victim = \"toy\"", "victim = \"toy-judge\"")
        .replace("judges = [\"toy-judge\"]", "judges = [\"toy\"]");
    write(here, "other.toml", &other);
    let output = run(here, &["run", "other.toml", "--out", "other", "--quiet"]);
    assert!(matches!(code(&output), 0 | 4), "{}", shown(&output));
    write(here, "gate.toml", &POLICY.replace("level = \"warn\"\n", ""));
    let output = gate("other", &["--baseline", "baseline.json"]);
    assert_eq!(code(&output), 4, "{}", shown(&output));
    assert!(shown(&output).contains("the encoder under attack changed; make a new one"), "{}", shown(&output));
}

#[test]
fn a_study_with_a_policy_is_gated_at_its_end() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let here = folder.path();
    write(here, "gate.toml", POLICY);
    let study = format!("{}[gate]\npolicy = \"gate.toml\"\n", STUDY.replace("SIGMA", "0.01"));
    write(here, "study.toml", &study);
    let output = run(here, &["run", "study.toml", "--out", "out", "--quiet"]);
    assert_eq!(code(&output), 1, "{}", shown(&output));
    assert!(shown(&output).contains("FAIL leak"), "{}", shown(&output));
    assert!(read(here, "out/verdict.json").contains("stitchback/verdict/v1"));
    // A policy with problems is told before the work.
    write(here, "gate.toml", "schema = 1\n");
    let output = run(here, &["run", "study.toml", "--out", "never", "--quiet"]);
    assert_eq!(code(&output), 2, "{}", shown(&output));
    assert!(!here.join("never").exists());
}

#[test]
fn wrong_use_has_its_exit_codes() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let here = folder.path();
    write(here, "gate.toml", POLICY);
    for (arguments, expected, why) in [
        (&["gate", "nowhere", "--policy", "gate.toml"][..], 3, "is no run folder"),
        (&["gate", ".", "--policy", "gate.toml"], 3, "holds no run"),
        (&["gate", ".", "--policy", "missing.toml"], 2, "cannot read the policy"),
        (&["gate", ".", "--policy", "gate.toml", "-o", "x.txt"], 2, "names no format"),
        (&["gate", "--policy", "gate.toml"], 2, "name at least one run folder"),
        (&["gate", "--config-only", "--policy", "gate.toml"], 0, "2 checks, 0 waivers"),
        (&["gate", "--schema"], 0, "stitchback gate policy"),
    ] {
        let output = run(here, arguments);
        assert_eq!(code(&output), expected, "{arguments:?}: {}", shown(&output));
        assert!(shown(&output).contains(why), "{arguments:?}: {}", shown(&output));
    }
}
