//! `account` and `protect`.

use assert_cmd::Command;
use serde_json::Value;
use std::path::Path;
use stitchback::data::vectors;
use stitchback::encode::Embeddings;

const HEADLINE: &str = "clip(l2=1)|prototype(members=20)|gaussian(epsilon=1, delta=1e-5)";

fn stitchback(args: &[&str]) -> assert_cmd::assert::Assert {
    Command::cargo_bin("stitchback").expect("the binary of this package").args(args).assert()
}

fn account(args: &[&str]) -> Value {
    let out = stitchback(&[&["account", "--json"], args].concat()).success();
    serde_json::from_slice(&out.get_output().stdout).expect("one JSON object on stdout")
}

fn close(value: &Value, expected: f64) {
    let value = value.as_f64().expect("a number");
    assert!((value / expected - 1.0).abs() < 1e-6, "{value} against {expected}");
}

#[test]
fn account_json_carries_the_claim_and_what_it_rests_on() {
    let sheet = account(&[HEADLINE]);
    assert_eq!(sheet["pipeline"], "clip(l2=1) | prototype(members=20) | gaussian(epsilon=1, delta=1e-5)");
    assert_eq!(sheet["adjacency"], "replace-one");
    assert_eq!(sheet["unit_of_privacy"], "one record among the 20 averaged into a prototype");
    close(&sheet["sigma"], 7.461_263_269_63 / 20.0);
    close(&sheet["epsilon"], 1.0);
    close(&sheet["delta"], 1e-5);
    close(&sheet["mu"], 1.0 / 3.730_631_634_8);
    close(&sheet["noise_to_signal"], 7.461_263_269_63 / 20.0 * 384_f64.sqrt());
    assert_eq!(sheet["warnings"], Value::Array(Vec::new()));

    let four = account(&[HEADLINE, "--releases", "4", "--dim", "768"]);
    close(&four["epsilon"], 2.154_676_657_7);
    assert_eq!((&four["releases"], &four["dim"]), (&4.into(), &768.into()));
    close(&account(&["normalize | gaussian(sigma=0.25)"])["epsilon"], 65.319_22);
}

#[test]
fn account_of_a_pipeline_without_a_claim_prints_null_and_why() {
    let sheet = account(&["identity"]);
    assert_eq!(sheet["note"], "the pipeline adds no noise");
    for key in ["sigma", "mu", "epsilon", "noise_to_signal", "expected_cosine"] {
        assert_eq!(sheet[key], Value::Null, "{key}");
    }
    let unbounded = account(&["gaussian(sigma=0.1)"]);
    assert_eq!((&unbounded["epsilon"], &unbounded["guarantee"]), (&Value::Null, &"none".into()));
    assert_eq!(unbounded["warnings"].as_array().map(Vec::len), Some(1));
}

#[test]
fn account_prints_a_sheet_that_names_adjacency_unit_and_limits() {
    let out = stitchback(&["account", HEADLINE, "--releases", "4"]).success();
    insta::assert_snapshot!(String::from_utf8_lossy(&out.get_output().stdout), @r"
    pipeline           clip(l2=1) | prototype(members=20) | gaussian(epsilon=1, delta=1e-5)
    adjacency          replace-one: one record's vector is exchanged for any other; sensitivity 2C/m = 0.1 (L2)
    unit of privacy    one record among the 20 averaged into a prototype
    guarantee          Gaussian differential privacy; exact for Gaussian noise (analytic mechanism)
    mu                 0.268051
    epsilon            1 at delta 1e-5
    after 4 releases   mu 0.536102, epsilon 2.15468 at delta 1e-5
    sigma              0.373063 for each coordinate of what is released
    noise to signal    r = 7.31052 at d = 384, for a clean row of norm 1 (a shorter one keeps less)
    expected cosine    0.135527 to the clean row; 0.263882 after averaging 4 releases
    worst pair         epsilon 2.15468 at delta 1e-5, 4 releases
    identification     at most 0.00238491 of 1000 candidates (chance 0.001), 4 releases
    information        at most 0.051825 bits about a record, 4 releases; by Fano, identification at most 0.105544

    Limits:
      - only the content of a vector is covered: how many records there are, which rows share a prototype, and the order of rows count as public
      - several records of one person are several units: epsilon grows with their number
      - every further release of the same records costs again: mu grows with the square root of the releases
      - how much of a text comes back is a measurement, not a number on this sheet: run an attack study
      - the noise is research-grade floating point: its low bits are not hardened against attacks on f32 arithmetic
    ");
    let rescaled = stitchback(&["account", "gaussian(sigma=1) | normalize"]).success();
    let rescaled = String::from_utf8_lossy(&rescaled.get_output().stdout).into_owned();
    for part in [
        "guarantee          none: noise is added",
        "before the rows are rescaled",
        "\nWARNING: `gaussian(sigma=1)` promises",
    ] {
        assert!(rescaled.contains(part), "`{part}` is missing from:\n{rescaled}");
    }
}

#[test]
fn a_malformed_pipeline_is_a_usage_error() {
    let out = stitchback(&["account", "clip(l2=1) | gausian(sigma=1)"]).code(2);
    assert_eq!(
        String::from_utf8_lossy(&out.get_output().stderr),
        "error: pipeline `clip(l2=1) | gausian(sigma=1)`: no stage is called `gausian`; did you mean `gaussian`\n"
    );
    stitchback(&["account", "identity", "--delta", "2"]).code(2);
}

fn protect(folder: &Path, input: &str, output: &str, more: &[&str]) -> assert_cmd::assert::Assert {
    let [input, output] = [input, output].map(|name| folder.join(name).display().to_string());
    stitchback(&[&["protect", "--input", &input, "--output", &output], more].concat())
}

fn table() -> Embeddings {
    Embeddings::new((0..60 * 4).map(|i| (i as f32 * 0.7).sin()).collect(), 4).expect("sines are finite")
}

#[test]
fn protect_writes_vectors_and_their_claim_in_both_formats() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| folder.path().join(name);
    vectors::write(&at("in.npy"), &table(), None).expect("a writable folder");

    protect(folder.path(), "in.npy", "out.npy", &["--pipeline", HEADLINE]).success().stdout("");
    let beside = std::fs::read(at("out.npy.json")).expect("a sidecar");
    let beside: Value = serde_json::from_slice(&beside).expect("JSON");
    assert_eq!(beside["pipeline"], "clip(l2=1) | prototype(members=20) | gaussian(epsilon=1, delta=1e-5)");
    assert_eq!((&beside["private"], &beside["seeded"], &beside["members"]), (&true.into(), &false.into(), &20.into()));
    assert_eq!((&beside["adjacency"], &beside["rows"]), (&"replace-one".into(), &3.into()));
    close(&beside["claim"]["epsilon"], 1.0);
    let first = vectors::read(&at("out.npy"), None).expect("our own file");
    assert_eq!((first.len(), first.dim()), (3, 4));
    protect(folder.path(), "in.npy", "out.npy", &["--pipeline", HEADLINE]).success();
    assert_ne!(vectors::read(&at("out.npy"), None).expect("our own file"), first, "a real release draws fresh noise");

    let seeded = ["--pipeline", HEADLINE, "--seed", "7"];
    let out = protect(folder.path(), "in.npy", "a.safetensors", &seeded).success();
    assert!(String::from_utf8_lossy(&out.get_output().stderr).contains("not private"));
    protect(folder.path(), "in.npy", "b.safetensors", &seeded).success();
    let bytes = std::fs::read(at("a.safetensors")).expect("it exists");
    assert_eq!(bytes, std::fs::read(at("b.safetensors")).expect("it exists"), "same seed, same bytes");
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.contains(r#"\"private\":false"#) && text.contains(r#"\"seeded\":true"#), "{text}");
    // What we wrote, we read: and identity gives the same bytes back.
    protect(folder.path(), "a.safetensors", "c.npy", &["--pipeline", "identity"]).success();
    let [a, c] = ["a.safetensors", "c.npy"].map(|name| vectors::read(&at(name), None).expect("our own file"));
    assert_eq!(a, c);
}

#[test]
fn protect_refuses_bad_input_with_exit_three() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    vectors::write(&folder.path().join("in.npy"), &table(), None).expect("a writable folder");
    let identity = ["--pipeline", "identity"];
    protect(folder.path(), "none.npy", "out.npy", &identity).code(3);
    protect(folder.path(), "in.npy", "out.csv", &identity).code(3);
    protect(folder.path(), "in.npy", "no/such/out.npy", &identity).code(3);
    let few = protect(folder.path(), "in.npy", "out.npy", &["--pipeline", "prototype(members=61)"]).code(3);
    assert_eq!(
        String::from_utf8_lossy(&few.get_output().stderr),
        "error: cannot protect the input: `prototype(members=61)` got 60 rows; give it at least 61 or ask for fewer members\n"
    );
    assert!(!folder.path().join("out.npy").exists());
}

#[test]
fn a_nan_among_the_vectors_exits_with_3_and_names_its_row() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (input, output) = (folder.path().join("x.npy"), folder.path().join("y.npy"));
    let mut header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2), }".to_vec();
    header.resize(117, b' ');
    header.push(b'\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header);
    bytes.extend([1.0_f32, 0.0, 0.5, f32::NAN].iter().flat_map(|v| v.to_le_bytes()));
    std::io::Write::write_all(&mut std::fs::File::create(&input).expect("writable"), &bytes).expect("writable");
    let paths = [input.to_str().expect("UTF-8"), output.to_str().expect("UTF-8")];
    let out = stitchback(&["protect", "--pipeline", "identity", "--input", paths[0], "--output", paths[1]]).code(3);
    let stderr = String::from_utf8_lossy(&out.get_output().stderr);
    assert!(stderr.contains("row 1") && stderr.contains("not finite"), "{stderr}");
    assert!(!output.exists(), "nothing is written");
}

#[test]
fn a_secure_release_draws_on_a_grid_and_says_so() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    vectors::write(&folder.path().join("in.npy"), &table(), None).expect("a writable folder");
    let gaussian = "clip(l2=1) | gaussian(epsilon=8, delta=1e-5)";
    protect(folder.path(), "in.npy", "out.npy", &["--secure", "--pipeline", gaussian]).success();
    let beside = std::fs::read(folder.path().join("out.npy.json")).expect("a sidecar");
    let beside: Value = serde_json::from_slice(&beside).expect("JSON");
    assert_eq!(beside["pipeline"], "clip(l2=1) | discrete_gaussian(epsilon=8, delta=1e-5)");
    assert_eq!((&beside["claim"]["kind"], &beside["private"]), (&"zcdp".into(), &true.into()));
    assert_eq!(beside["sampling"], "exact integers on a grid; the time of a draw is not hidden");
    close(&beside["claim"]["epsilon"], 8.0);
    let out = vectors::read(&folder.path().join("out.npy"), None).expect("our own file");
    assert!(out.values().iter().all(|&v| (f64::from(v) * 2_f64.powi(19)).fract() == 0.0), "steps of the grid");
    let vmf = ["--secure", "--pipeline", "normalize | vmf(kappa=4)"];
    let refused = protect(folder.path(), "in.npy", "no.npy", &vmf).code(2);
    assert!(String::from_utf8_lossy(&refused.get_output().stderr).contains("drawn in floating point only"));
    protect(folder.path(), "in.npy", "no.npy", &["--secure", "--seed", "1", "--pipeline", gaussian]).code(2);
    protect(folder.path(), "in.npy", "plain.npy", &["--pipeline", gaussian]).success();
    let plain = std::fs::read(folder.path().join("plain.npy.json")).expect("a sidecar");
    assert!(String::from_utf8_lossy(&plain).contains("floating point, research-grade"));
}

#[test]
fn audit_exits_with_its_verdict_and_prints_the_ceiling() {
    let small = |pipeline: &str| [pipeline.to_owned(), "--trials=2000".to_owned(), "--dim=8".to_owned()];
    let run = |pipeline: &str, more: &[&str]| {
        let args = small(pipeline);
        let args: Vec<&str> =
            ["audit"].into_iter().chain(args.iter().map(String::as_str)).chain(more.iter().copied()).collect();
        stitchback(&args)
    };
    let kept = run("clip(l2=1) | gaussian(epsilon=1, delta=1e-5)", &[]).success();
    let text = String::from_utf8_lossy(&kept.get_output().stdout).into_owned();
    for part in
        ["claim              epsilon 1.0000 at delta 1e-5", "ceiling", "verdict            not refuted at n = 2000"]
    {
        assert!(text.contains(part), "`{part}` is missing from:\n{text}");
    }
    let nothing = run("clip(l2=1) | mask(keep=0.5)", &["--json"]).code(4);
    let report: Value = serde_json::from_slice(&nothing.get_output().stdout).expect("one JSON object");
    assert_eq!((&report["verdict"], &report["schema"]), (&"nothing_claimed".into(), &"stitchback/audit/v1".into()));
    run("normalize | privunit(epsilon=64)", &[]).code(4);
    run("clip(l2=", &[]).code(2);
    stitchback(&["audit", "identity", "--trials", "0"]).code(2);
}

#[test]
fn mechanisms_compare_in_one_currency() {
    let of = |pipeline: &str| account(&[pipeline, "--delta", "1e-5"]);
    let vmf = of("normalize | vmf(kappa=100)");
    close(&vmf["epsilon"], 200.0);
    assert!((vmf["worst_pair_epsilon"].as_f64().expect("a number") - 85.805).abs() < 0.01);
    let gaussian = of("clip(l2=1) | gaussian(sigma=0.2)");
    close(&gaussian["worst_pair_epsilon"], gaussian["epsilon"].as_f64().expect("a number"));
    let half = account(&["clip(l2=1) | gaussian(sigma=0.5)", "--releases", "4", "--candidates", "1000"]);
    assert!((half["identification_bound"].as_f64().expect("a number") - 0.818_527).abs() < 1e-5);
    let unit = account(&["clip(l2=1) | gaussian(sigma=1)"]);
    assert!((unit["fano_bound"].as_f64().expect("a number") - 0.1726).abs() < 1e-4);
    assert_eq!(of("clip(l2=1) | mask(keep=0.5)")["worst_pair_epsilon"], Value::Null);
}

/// What a pipeline that clips nothing added to each number: `y - x` over the noise's scale.
fn noise_of(folder: &Path, output: &str) -> Vec<f64> {
    let read = |name: &str| vectors::read(&folder.join(name), None).expect("our own file");
    let (x, y) = (read("in.npy"), read(output));
    y.values().iter().zip(x.values()).map(|(y, x)| f64::from(y - x)).collect()
}

fn correlation(a: &[f64], b: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// Seeds that are fixed, or that come from a record's number, show between two processes. Two independent draws of 9600
/// numbers have a correlation of .0102 by chance; five times that is passed once in two million.
#[test]
fn two_processes_share_no_noise_unless_they_are_told_to() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let x = Embeddings::new((0..600 * 16).map(|i| (i as f32 * 0.7).sin() * 0.2).collect(), 16).expect("finite");
    vectors::write(&folder.path().join("in.npy"), &x, None).expect("a writable folder");
    let secret = folder.path().join("secret").display().to_string();
    for stage in ["gaussian(sigma=3)", "laplace_l2(rate=2)", "gaussian(epsilon=8)"] {
        let pipeline = format!("clip(l2=1) | {stage}");
        let run = |output: &str, more: &[&str]| {
            protect(folder.path(), "in.npy", output, &[&["--pipeline", &pipeline], more].concat()).success();
            noise_of(folder.path(), output)
        };
        let (a, b) = (run("a.npy", &[]), run("b.npy", &[]));
        let by_chance = 5.0 / (a.len() as f64).sqrt();
        assert!(correlation(&a, &b).abs() < by_chance, "{pipeline}: {}", correlation(&a, &b));
        // Nor does a record inherit the noise of its number or of its neighbour.
        assert!(correlation(&a[16..], &b[..b.len() - 16]).abs() < by_chance);
        assert!(correlation(&a[16..], &a[..a.len() - 16]).abs() < by_chance);
        // The probe sees what it looks for.
        let seeded = ["--seed", "4"];
        assert!(correlation(&run("c.npy", &seeded), &run("d.npy", &seeded)) > 0.999);
        let kept = ["--memoize", &secret];
        let (first, again) = (run("e.npy", &kept), run("f.npy", &kept));
        assert_eq!(first, again, "memoized noise is the same in every process");
        assert!(correlation(&first, &a).abs() < by_chance);
    }
    let secure = ["--secure", "--pipeline", "clip(l2=1) | gaussian(epsilon=8)"];
    protect(folder.path(), "in.npy", "a.npy", &secure).success();
    protect(folder.path(), "in.npy", "b.npy", &secure).success();
    let (a, b) = (noise_of(folder.path(), "a.npy"), noise_of(folder.path(), "b.npy"));
    assert!(correlation(&a, &b).abs() < 5.0 / (a.len() as f64).sqrt());
}

#[test]
fn memoized_noise_needs_a_secret_and_says_so() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    vectors::write(&folder.path().join("in.npy"), &table(), None).expect("a writable folder");
    let secret = folder.path().join("secret").display().to_string();
    let kept = ["--pipeline", "clip(l2=1) | gaussian(sigma=1)", "--memoize", &secret];
    let out = protect(folder.path(), "in.npy", "out.npy", &kept).success();
    assert!(String::from_utf8_lossy(&out.get_output().stderr).contains("a new secret"));
    assert_eq!(std::fs::read(&secret).expect("it was made").len(), 32);
    let beside = std::fs::read(folder.path().join("out.npy.json")).expect("a sidecar");
    let beside: Value = serde_json::from_slice(&beside).expect("JSON");
    assert_eq!((&beside["noise"], &beside["private"]), (&"memoized".into(), &true.into()));
    protect(folder.path(), "in.npy", "out.npy", &["--pipeline", HEADLINE, "--memoize", &secret]).code(2);
    let short = folder.path().join("in.npy.short");
    std::io::Write::write_all(&mut std::fs::File::create(&short).expect("writable"), b"short").expect("writable");
    let short = short.display().to_string();
    let error = protect(folder.path(), "in.npy", "out.npy", &["--pipeline", "identity", "--memoize", &short]).code(3);
    assert!(String::from_utf8_lossy(&error.get_output().stderr).contains("has 32"));
}

#[test]
fn strict_refuses_what_promises_nothing_and_a_missing_public_file_is_bad_input() {
    for pipeline in ["gaussian(sigma=1)", "clip(l2=1)", "clip(l2=1) | rotate(key=7)"] {
        stitchback(&["account", pipeline]).success();
        let refused = stitchback(&["account", pipeline, "--strict"]).code(2);
        assert!(String::from_utf8_lossy(&refused.get_output().stderr).contains("promises nothing"));
    }
    stitchback(&["account", HEADLINE, "--strict"]).success();
    let missing = stitchback(&["account", "center(public=no/such.npy) | clip(l2=1) | gaussian(sigma=1)"]).code(3);
    assert!(String::from_utf8_lossy(&missing.get_output().stderr).contains("cannot use `public=no/such.npy`"));
    let folder = tempfile::tempdir().expect("a temporary folder");
    vectors::write(&folder.path().join("in.npy"), &table(), None).expect("a writable folder");
    protect(folder.path(), "in.npy", "out.npy", &["--pipeline", "gaussian(sigma=1)", "--strict"]).code(2);
    protect(folder.path(), "in.npy", "out.npy", &["--pipeline", "learned(dim=2, public=gone.npy)"]).code(3);
    assert!(!folder.path().join("out.npy").exists());
}
