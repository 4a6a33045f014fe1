//! The main job through the command line: whole, killed and resumed, on one thread and on two, and on bad input.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use stitchback::run::pretrain::Pretraining;
use stitchback::run::pretrain_pictures::PicturePretraining;
use stitchback::study::Study;

const TOY: &str = r#"
schema = 1
name = "toy"
seeds = [1, 2]
[data]
corpus = "toy"
targets = 24
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
pipeline = "clip(l2=1) | gaussian(sigma=1)"
releases = 2
[[protect]]
name = "prototype"
pipeline = "clip(l2=1) | prototype(members=5) | gaussian(epsilon=1, delta=1e-5)"
[[attack]]
kind = "blind"
steps = 10
adapt_steps = 2
batch = 16
[[attack]]
kind = "nearest"
[[attack]]
kind = "bag_of_words"
[[attack]]
kind = "decoder"
steps = 30
adapt_steps = 6
batch = 16
d_model = 32
layers = 1
vocabulary = 400
samples = 4
[[attack]]
kind = "corrector"
targets = 8
fold_steps = 6
steps = 10
batch = 16
slots = 3
rounds = 2
beam = 2
[[attack]]
kind = "corrector"
name = "corrector-without-feedback"
targets = 8
fold_steps = 6
steps = 10
batch = 16
slots = 3
rounds = 2
beam = 2
feedback = "withheld"
[[attack]]
kind = "best_of"
[[attack]]
kind = "align"
pairs = 40
dim = 16
[[attack]]
kind = "search"
targets = 8
queries = 400
[strength]
twins = ["nearest"]
[[attack]]
kind = "attribute"
[[attack]]
kind = "slots"
targets = 12
carriers = 1
known = 3
[[attack]]
kind = "linkage"
"#;

fn stitchback(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stitchback"));
    command.args(arguments).stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    stitchback(arguments).output().expect("the program starts")
}

fn code_and_stderr(output: &Output) -> (i32, String) {
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn write_study(folder: &Path, text: &str) -> PathBuf {
    let path = folder.join("study.toml");
    write(&path, text);
    path
}

fn write(path: &Path, text: &str) {
    let mut file = std::fs::File::create(path).expect("the test folder is writable");
    file.write_all(text.as_bytes()).expect("the test folder is writable");
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a test path is UTF-8")
}

/// The rows of the toy study: paired differences, twins, groups, draws and inferences.
fn every_row_that_was_asked_for_is_there(whole: &Path, summary: &serde_json::Value) {
    // Facts have rows of their own, beside chance, and never carry a verdict.
    let records = read(&whole.join("records.jsonl"));
    let rows = records.lines().map(|l| serde_json::from_str::<serde_json::Value>(l).expect("JSON"));
    let rows: Vec<_> = rows.collect();
    let row = |protection: &str, attack: &str, metric: &str| {
        let found = rows.iter().find(|r| {
            r["protection"] == protection && r["attack"] == attack && r["metric"] == metric && r["seed"] == 1
        });
        found.unwrap_or_else(|| panic!("{protection} x {attack} has no {metric}"))
    };
    // Every attack, and the utility, reads the same draw of a protection and a seed; no two of them share a draw.
    let manifest: serde_json::Value = serde_json::from_str(&read(&whole.join("manifest.json"))).expect("JSON");
    let mut draws: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for cell in manifest["attacks"].as_array().expect("an array") {
        // Without noise there is nothing to draw: all seeds release the same rows.
        let seed = if cell["protection"] == "unprotected" { 0 } else { cell["seed"].as_u64().expect("a seed") };
        let draw = format!("{} {seed}", cell["protection"]);
        draws.entry(draw).or_default().insert(cell["released"].to_string());
    }
    assert!(draws.values().all(|hashes| hashes.len() == 1), "{draws:?}");
    assert_eq!(
        draws.values().flatten().collect::<BTreeSet<_>>().len(),
        5,
        "two noisy protections, two seeds: {draws:?}"
    );
    // A twin shows what adaptivity is worth; it never carries a verdict.
    for p in summary["protections"].as_array().expect("an array") {
        assert!(!p["best_attack"].as_str().expect("a name").contains("non-adaptive"));
    }
    // Attackers are compared target by target, and with what they are without adapting.
    assert!(row("unprotected", "search", "judge_leak_minus_nearest")["low"].is_number());
    assert!(row("noisy", "nearest", "judge_leak_minus_twin")["value"].is_number());
    assert_eq!(row("noisy", "nearest, non-adaptive", "judge_leak")["adaptive"], false);
    // All attackers together read at least as much as retrieval alone, by the score that they can see.
    let best = |metric: &str| row("unprotected", "best_of", metric)["value"].as_f64().expect("a number");
    assert!(
        best("victim_cosine") >= row("unprotected", "nearest", "victim_cosine")["value"].as_f64().expect("a number")
    );
    assert!(row("unprotected", "decoder", "bits_leaked")["value"].is_number());
    assert!(row("unprotected", "corrector-without-feedback", "judge_leak")["value"].is_number());
    // A group is scored by its best-hit member and its topic as well.
    for metric in ["best_member_leak", "topic_named"] {
        assert!(row("prototype", "nearest", metric)["value"].is_number(), "{metric}");
    }
    // sigma 1 on unit vectors of 64 coordinates, averaged over two releases: r = sqrt(64 / 2).
    let r = row("noisy", "identification", "noise_to_signal")["value"].as_f64().expect("a number");
    assert!((r - 32.0_f64.sqrt()).abs() < 1e-3, "{r}");
    let facts: Vec<_> = rows.iter().filter(|r| !r["inference"].is_null()).collect();
    for (protection, metric) in [
        ("unprotected", "slot_first_name_known_carrier_top1"),
        ("noisy", "slot_city_top1"),
        ("noisy", "linkage_same_text_tpr_at_1_percent"),
        ("prototype", "linkage_presence_tpr_at_1_percent"),
    ] {
        let row = facts.iter().find(|r| r["protection"] == protection && r["metric"] == metric);
        let row = row.unwrap_or_else(|| panic!("{protection} {metric} is missing"));
        for field in ["value", "low", "high", "floor"] {
            assert!(row[field].is_number(), "{metric} has no {field}");
        }
    }
    // Six targets of each topic are too few to score: then there is no row, least of all one of a text metric.
    assert!(!records.contains("\"attack\":\"attribute\""), "nothing was said");
    assert!(facts.iter().all(|r| r["inference"]["exceeds_claim"] == false), "no release breaks its claim");
}

#[test]
fn a_study_runs_to_its_report_whatever_the_threads_and_the_kills() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let study = write_study(folder.path(), TOY);
    let (whole, killed) = (folder.path().join("whole"), folder.path().join("killed"));

    let output = run(&["run", text(&study), "--out", text(&whole), "--threads", "2"]);
    let (code, stderr) = code_and_stderr(&output);
    assert!(matches!(code, 0 | 4), "{code}: {stderr}");
    for file in ["plan.toml", "manifest.json", "records.jsonl", "curves.jsonl", "summary.json", "report.html"] {
        assert!(whole.join(file).is_file(), "{file} is missing");
    }
    let summary: serde_json::Value = serde_json::from_str(&read(&whole.join("summary.json"))).expect("JSON");
    let of = |name: &str| {
        let all = summary["protections"].as_array().expect("an array");
        all.iter().find(|p| p["name"] == name).expect("named in the study").clone()
    };
    let (open, noisy) = (of("unprotected"), of("noisy"));
    let leak = |p: &serde_json::Value| p["similarity"]["leak"].as_f64().expect("a number");
    assert!(leak(&open) > 0.3, "a linear encoder is easily read: {}", leak(&open));
    assert!(leak(&open) > leak(&noisy) + 0.1, "noise protects: {} against {}", leak(&open), leak(&noisy));
    assert_eq!(open["identified"]["top1"], 1.0);
    assert!(open["blind_leak"].as_f64().expect("a number").abs() < 0.2);
    assert!(noisy["guarantee"]["mu"].as_f64().expect("a number") > 0.0);
    every_row_that_was_asked_for_is_there(&whole, &summary);
    let page = read(&whole.join("report.html"));
    assert!(page.contains("What can be inferred"));
    for file in ["summary.json", "records.jsonl"] {
        let hash = blake3::hash(read(&whole.join(file)).as_bytes()).to_hex();
        assert!(page.contains(hash.as_str()), "the page names the bytes of {file} that it was printed from");
    }
    assert!(["attribute", "slots", "linkage"].iter().all(|probe| open["best_attack"] != *probe));
    assert!(summary["assumptions"][0].as_str().expect("text").starts_with("toy:"));
    // Exit 4 exactly when the attackers did not clear their bar.
    assert_eq!(code == 0, summary["attacker_strong_enough"].as_bool().expect("a flag"));

    // Killed twice on one thread, then resumed: the same bytes.
    for cells in [3, 14] {
        let mut child = stitchback(&["run", text(&study), "--out", text(&killed), "--threads", "1"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program starts");
        let start = Instant::now();
        let finished = || std::fs::read_dir(killed.join("cells")).map_or(0, Iterator::count);
        while finished() < cells && start.elapsed() < Duration::from_mins(4) {
            if child.try_wait().expect("a child can be asked").is_some() {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        child.kill().expect("a child can be killed");
        child.wait().expect("a killed child ends");
    }
    assert!(!killed.join("records.jsonl").exists(), "killed before its end");
    let (code, stderr) = code_and_stderr(&run(&["run", text(&study), "--out", text(&killed), "--threads", "1"]));
    assert!(matches!(code, 0 | 4), "{code}: {stderr}");
    for file in ["records.jsonl", "summary.json", "curves.jsonl"] {
        assert!(read(&whole.join(file)) == read(&killed.join(file)), "{file} differs after kills on one thread");
    }

    // A third time there is nothing left to do, and the report says the same.
    let before = read(&whole.join("report.html"));
    let (_, stderr) = code_and_stderr(&run(&["run", text(&study), "--out", text(&whole)]));
    assert!(stderr.contains("cells are finished"), "{stderr}");
    assert_eq!(
        read(&whole.join("report.html")).matches("<td").count(),
        before.matches("<td").count(),
        "the report is a function of the records"
    );

    // A protection under another name is the same work: nothing runs again, and every record has the new name.
    let renamed = write_study(folder.path(), &TOY.replace("\"noisy\"", "\"loud\""));
    let (_, stderr) = code_and_stderr(&run(&["run", text(&renamed), "--out", text(&whole)]));
    assert!(stderr.contains("cells are finished"), "{stderr}");
    let records = read(&whole.join("records.jsonl"));
    assert!(records.contains("\"protection\":\"loud\"") && !records.contains("\"noisy\""), "an old name is left");
}

const PICTURES: &str = r#"
schema = 1
name = "toy-pictures"
seeds = [1]
[data]
corpus = "toy-pictures"
side_px = 16
targets = 40
validation = 12
auxiliary = 300
[encode]
victim = "toy"
judges = ["toy-judge"]
[[protect]]
name = "unprotected"
pipeline = "identity"
[[protect]]
name = "noisy"
pipeline = "clip(l2=1) | gaussian(sigma=1)"
[[protect]]
name = "prototype"
pipeline = "clip(l2=1) | prototype(members=5) | gaussian(epsilon=1, delta=1e-5)"
[[protect]]
name = "nothing-but-noise"
pipeline = "clip(l2=1) | gaussian(sigma=100)"
[[attack]]
kind = "blind"
steps = 10
adapt_steps = 2
batch = 16
[[attack]]
kind = "constant"
[[attack]]
kind = "random"
[[attack]]
kind = "nearest"
[[attack]]
kind = "ridge"
[[attack]]
kind = "image_decoder"
steps = 60
adapt_steps = 10
batch = 16
channels = 16
[[attack]]
kind = "invert"
targets = 16
steps = 60
starts = 1
[[attack]]
kind = "generative"
targets = 16
latent = 16
channels = 16
prior_steps = 300
flow_steps = 200
directions = 16
samples = 4
steps = 40
[[attack]]
kind = "best_of"
[[attack]]
kind = "attribute"
[[attack]]
kind = "membership"
"#;

#[test]
fn pictures_are_drawn_again_judged_and_shown() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let study = write_study(folder.path(), PICTURES);
    let out = folder.path().join("run");
    let (code, stderr) = code_and_stderr(&run(&["run", text(&study), "--out", text(&out)]));
    assert!(matches!(code, 0 | 4), "{code}: {stderr}");
    let rows: Vec<serde_json::Value> =
        read(&out.join("records.jsonl")).lines().map(|l| serde_json::from_str(l).expect("JSON")).collect();
    let value = |protection: &str, attack: &str, metric: &str| {
        let found = rows
            .iter()
            .find(|r| r["protection"] == protection && r["attack"] == attack && r["metric"] == metric)
            .unwrap_or_else(|| panic!("{protection} x {attack} has no {metric}"));
        found["value"].as_f64().unwrap_or_else(|| panic!("{protection} x {attack} {metric}: {found}"))
    };
    // Descending through the encoder, and a linear encoder's linear inverse, are read; floors are not; noise protects.
    for attack in ["invert", "ridge", "image_decoder", "nearest", "generative"] {
        let (open, noisy) = (value("unprotected", attack, "judge_leak"), value("noisy", attack, "judge_leak"));
        assert!(open > 0.2, "{attack}: {open}");
        assert!(open > noisy, "{attack}: {open} against {noisy}");
    }
    // Where nothing of the picture is left, nobody finds anything.
    for attack in ["invert", "ridge", "image_decoder", "nearest", "generative"] {
        let metric = |m: &str| {
            rows.iter().find(|r| r["protection"] == "nothing-but-noise" && r["attack"] == attack && r["metric"] == m)
        };
        for (metric, chance) in [(metric("judge_leak"), 0.0), (metric("matched_two_way"), 0.5)] {
            let row = metric.expect("a row");
            let (low, high) = (row["low"].as_f64().expect("low"), row["high"].as_f64().expect("high"));
            assert!(low <= chance && chance <= high, "{row}");
        }
    }
    assert!(value("unprotected", "invert", "victim_cosine") > value("unprotected", "nearest", "victim_cosine"));
    for floor in ["blind", "constant", "random"] {
        assert!(value("unprotected", floor, "judge_leak").abs() < 0.2, "{floor}");
    }
    assert!(value("unprotected", "nearest", "matched_two_way") > 0.8);
    assert!(value("unprotected", "nearest", "recognised") >= 0.0);
    assert_eq!(value("unprotected", "constant", "victim_cosine"), value("prototype", "constant", "victim_cosine"));
    let summary: serde_json::Value = serde_json::from_str(&read(&out.join("summary.json"))).expect("JSON");
    assert!(summary["protections"][0]["recognised"].is_number(), "{summary}");
    // The pictures lie beside their scores, and the report shows them without a script.
    let page = read(&out.join("report.html"));
    assert!(page.matches("data:image/png;base64,").count() > 9 && !page.contains("<script"));
    let sheets = std::fs::read_dir(out.join("guesses")).expect("a folder");
    let png = |e: &std::fs::DirEntry| e.path().extension().is_some_and(|x| x == "png");
    assert!(sheets.filter_map(Result::ok).filter(png).count() > 10);
    let redacted = folder.path().join("redacted.html");
    let output = run(&["report", text(&out), "--redact", "--out", text(&redacted)]);
    assert!(output.status.success() && !read(&redacted).contains("data:image"));
}

#[test]
fn an_attack_on_texts_is_refused_for_pictures_with_those_that_work() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let study = write_study(folder.path(), &PICTURES.replace("\"ridge\"", "\"bag_of_words\""));
    let (code, stderr) = code_and_stderr(&run(&["run", text(&study), "--out", text(&folder.path().join("run"))]));
    assert_eq!(code, 2, "{stderr}");
    assert!(stderr.contains("holds pictures") && stderr.contains("image_decoder"), "{stderr}");
}

#[test]
fn an_attacker_trained_ahead_is_taken_up_and_a_damaged_one_is_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let plan = folder.path().join("plan.toml");
    write(
        &plan,
        r#"
schema = 1
name = "toy-ahead"
victim = "toy"
corpora = ["toy"]
seed = 1
[crops]
texts = 400
[decoder]
pretrained = "none"
steps = 6
adapt_steps = 0
batch = 8
d_model = 16
layers = 1
heads = 2
vocabulary = 300
"#,
    );
    let kept = folder.path().join("kept");
    let output = stitchback(&["pretrain", text(&plan), "--out", text(&kept)]).current_dir(folder.path()).output();
    let (code, stderr) = code_and_stderr(&output.expect("the program starts"));
    assert_eq!(code, 0, "{stderr}");
    let head = &TOY[..TOY.find("[[protect]]").expect("protections")];
    let study = format!(
        "{head}[[protect]]\nname = \"unprotected\"\npipeline = \"identity\"\n[[attack]]\nkind = \"blind\"\nsteps = 2\n\
         [[attack]]\nkind = \"decoder\"\nsteps = 4\nbatch = 8\nsamples = 2\npretrained = {:?}\n",
        text(&kept)
    );
    let study = write_study(folder.path(), &study);
    let first = folder.path().join("first");
    let (code, stderr) = code_and_stderr(&run(&["run", text(&study), "--out", text(&first)]));
    assert!(matches!(code, 0 | 4), "{code}: {stderr}");
    assert!(read(&first.join("manifest.json")).contains("toy-ahead ("), "the result says what it started from");
    let scratch = folder.path().join("scratch");
    let (code, stderr) = code_and_stderr(&run(&["run", text(&study), "--out", text(&scratch), "--from-scratch"]));
    assert!(matches!(code, 0 | 4), "{code}: {stderr}");
    assert!(!read(&scratch.join("manifest.json")).contains("toy-ahead ("));

    let weights = kept.join("decoder.safetensors");
    let mut bytes = std::fs::read(&weights).expect("weights");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::OpenOptions::new().write(true).open(&weights).expect("weights").write_all(&bytes).expect("damaged");
    let (code, stderr) = code_and_stderr(&run(&["run", text(&study), "--out", text(&folder.path().join("second"))]));
    assert_eq!(code, 70, "{stderr}");
    assert!(stderr.contains("is not the file that `attacker.json` describes"), "{stderr}");
}

#[test]
fn every_shipped_study_is_valid_and_runs_on_each_of_its_corpora() {
    let mut parts = Vec::new();
    for entry in std::fs::read_dir("studies").expect("the studies") {
        let path = entry.expect("an entry").path();
        let name = path.display().to_string();
        if name.contains("pretrain") {
            let text = read(&path);
            if PicturePretraining::is_meant(&text) {
                PicturePretraining::parse(&name, &text).expect("a valid plan");
            } else {
                Pretraining::parse(&name, &text).expect("a valid plan");
            }
        } else {
            parts.extend(Study::parse(&name, &read(&path)).expect("a valid study").parts());
        }
    }
    let corpora = |name: &str| -> Vec<&str> {
        let of = parts.iter().filter(|part| part.name.starts_with(name));
        let mut found: Vec<&str> = of.map(|part| part.data.corpus.as_str()).collect();
        found.sort_unstable();
        found
    };
    assert_eq!(corpora("text-attacks"), ["bbc-news", "spam-assassin", "wordnet-examples"]);
    assert_eq!(corpora("quick-images"), ["openclipart"]);
    assert_eq!(corpora("quick"), ["bbc-news", "openclipart"]);
    assert!(parts.iter().all(|part| part.data.also.is_empty() && part.unprotected().is_some()));
}

#[test]
fn a_malformed_study_lists_every_problem_and_exits_with_2() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let study = write_study(
        folder.path(),
        &TOY.replace("targets = 24", "targets = \"all\"").replace("kind = \"nearest\"", "kind = \"nearst\""),
    );
    let (code, stderr) = code_and_stderr(&run(&["run", text(&study)]));
    assert_eq!(code, 2, "{stderr}");
    assert!(stderr.contains("line 7: `data.targets`"), "{stderr}");
    assert!(stderr.contains("unknown attack kind `nearst`; did you mean `nearest`?"), "{stderr}");
}

#[test]
fn a_missing_study_exits_with_2_and_names_it() {
    let (code, stderr) = code_and_stderr(&run(&["run", "no-such-study.toml"]));
    assert_eq!(code, 2, "{stderr}");
    assert!(stderr.contains("no-such-study.toml"), "{stderr}");
}

#[test]
fn a_corpus_smaller_than_asked_exits_with_3_and_says_the_numbers() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let study = write_study(folder.path(), &TOY.replace("auxiliary = 200", "auxiliary = 100000"));
    let (code, stderr) = code_and_stderr(&run(&["run", text(&study), "--out", text(&folder.path().join("out"))]));
    assert_eq!(code, 3, "{stderr}");
    assert!(stderr.contains("100000") && stderr.contains("auxiliary"), "{stderr}");
}

#[test]
fn an_empty_corpus_exits_with_3() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let study = write_study(folder.path(), TOY);
    let empty = folder.path().join("empty.txt");
    write(&empty, "\n\n");
    let out = folder.path().join("out");
    let (code, stderr) = code_and_stderr(&run(&["run", text(&study), "--data", text(&empty), "--out", text(&out)]));
    assert_eq!(code, 3, "{stderr}");
    assert!(stderr.contains("empty.txt"), "{stderr}");
}

#[test]
fn an_unwritable_output_exits_with_3_and_names_the_remedy() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let study = write_study(folder.path(), TOY);
    let out = study.join("below-a-file");
    let (code, stderr) = code_and_stderr(&run(&["run", text(&study), "--out", text(&out)]));
    assert_eq!(code, 3, "{stderr}");
    assert!(stderr.contains("--out"), "{stderr}");
}

#[test]
fn a_missing_asset_offline_exits_with_3_and_says_what_to_fetch() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let study = write_study(folder.path(), &TOY.replace("victim = \"toy\"", "victim = \"all-minilm-l6-v2\""));
    let output = stitchback(&["run", text(&study), "--out", text(&folder.path().join("out"))])
        .env("STITCHBACK_CACHE", folder.path().join("cache"))
        .env("STITCHBACK_OFFLINE", "1")
        .output()
        .expect("the program starts");
    let (code, stderr) = code_and_stderr(&output);
    assert_eq!(code, 3, "{stderr}");
    assert!(stderr.contains("stitchback fetch all-minilm-l6-v2"), "{stderr}");
}

#[test]
fn every_attack_stage_and_exit_code_is_explained() {
    for topic in stitchback::attack::AttackConfig::KINDS {
        assert!(run(&["explain", topic]).status.success(), "no explanation of {topic}");
    }
    for stage in stitchback::protect::StageConfig::examples() {
        assert!(run(&["explain", stage.name()]).status.success(), "no explanation of {}", stage.name());
    }
}

/// Real encoder, real news, closed forms only: minutes are for studies, not for tests.
#[test]
fn real_news_vectors_are_identified_and_read_above_the_floor() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let study = write_study(
        folder.path(),
        r#"
schema = 1
name = "real"
[data]
corpus = "bbc-news"
targets = 60
validation = 20
auxiliary = 1500
max_chars = 120
[[protect]]
name = "unprotected"
pipeline = "identity"
[[attack]]
kind = "blind"
steps = 2
batch = 8
[[attack]]
kind = "constant"
[[attack]]
kind = "nearest"
[[attack]]
kind = "bag_of_words"
"#,
    );
    let out = folder.path().join("out");
    let (code, stderr) = code_and_stderr(&run(&["run", text(&study), "--out", text(&out)]));
    assert_eq!(code, 4, "no free-text attacker, so nothing may be called safe: {stderr}");
    let records = read(&out.join("records.jsonl"));
    let value = |attack: &str, metric: &str| {
        let row = records
            .lines()
            .map(|l| serde_json::from_str::<serde_json::Value>(l).expect("JSON"))
            .find(|r| r["attack"] == attack && r["metric"] == metric)
            .unwrap_or_else(|| panic!("{attack} {metric} is missing"));
        (
            row["low"].as_f64().expect("a bound"),
            row["value"].as_f64().expect("a value"),
            row["high"].as_f64().expect("a bound"),
        )
    };
    assert!(value("identification", "identified_top1").1 >= 0.98);
    assert!(value("nearest", "judge_leak").0 > 0.15, "retrieval reads news: {:?}", value("nearest", "judge_leak"));
    let blind = value("blind", "judge_leak");
    assert!(blind.0 <= 0.0 && 0.0 <= blind.2, "the blind attacker stands on the floor: {blind:?}");
    assert!(value("constant", "judge_leak").1.abs() < 1e-9, "one answer for all is the floor by definition");
}
