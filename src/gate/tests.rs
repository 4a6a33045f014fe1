//! Whole verdicts on chosen scores: every reason, and the agreement of all outputs.

use super::fixture::{CANARY, Plan, paths};
use super::output::{self, Format};
use super::{Answer, Options, Policy, Reason, Verdict, judge};
use crate::error::Exit;
use base64::Engine as _;

const POLICY: &str = r#"schema = "stitchback/gate/v1"
[[check]]
id = "leak"
max = 0.20
min_reduction = 0.75
[[check]]
id = "topics"
select = { metric = "topic_accuracy" }
min = 0.75
min_retention = 0.90
"#;

fn only(verdict: &Verdict, reason: Reason) {
    let found: Vec<_> = verdict.findings.iter().map(|f| (f.check.as_str(), f.question, f.verdict, f.reason)).collect();
    assert!(verdict.findings.iter().any(|f| f.reason == Some(reason)), "{reason:?} is missing from {found:#?}");
    assert_eq!(verdict.exit(), Exit::Inconclusive, "{found:#?}");
}

#[test]
fn a_good_protection_passes_every_question() {
    let verdict = Plan::default().judge(POLICY, "2027-01-01");
    assert_eq!(verdict.counts(), [4, 0, 0, 0], "{verdict:#?}");
    assert_eq!((verdict.verdict, verdict.exit), (Answer::Pass, 0));
    let reduction = verdict.findings.iter().find(|f| f.rule == "SB1002").expect("asked");
    // (.15 - .05) / .95 = .105, (.85 - .05) / .95 = .842, blind .0105: 1 - .0947 / .8316.
    assert!((reduction.reduction.expect("both arms") - 0.886).abs() < 0.01, "{reduction:?}");
    assert!(reduction.high.expect("a bound") <= 0.0);
}

#[test]
fn the_golden_reduction_is_eighty_percent() {
    // U = .80, P = .20, B = .05, rest .25: D = .20 - .05 - .25 (.80 - .05) = -.0375.
    let plan = Plan { unprotected: 0.81, protected: 0.24, blind: 0.0975, ..Plan::default() };
    let verdict = plan.judge(POLICY, "2027-01-01");
    let f = verdict.findings.iter().find(|f| f.rule == "SB1002").expect("asked");
    assert!((f.reduction.expect("arms") - 0.80).abs() < 0.01, "{f:?}");
    assert!((f.value.expect("arms") + 0.0375).abs() < 0.01, "{f:?}");
}

#[test]
fn a_leak_fails_and_names_the_setting() {
    let verdict = Plan { protected: 0.60, ..Plan::default() }.judge(POLICY, "2027-01-01");
    assert_eq!(verdict.exit(), Exit::Leak);
    let leak = &verdict.findings[0];
    assert_eq!((leak.verdict, leak.line), (Answer::Fail, 2));
    assert!(leak.message.contains("gaussian(sigma=0.1)") && leak.message.contains("limit 20.0 %"), "{}", leak.message);
}

#[test]
fn a_lost_utility_fails_as_well() {
    let verdict = Plan { topics: (0.9, 0.5), ..Plan::default() }.judge(POLICY, "2027-01-01");
    assert_eq!(verdict.exit(), Exit::Leak);
    assert!(verdict.findings.iter().filter(|f| f.verdict == Answer::Fail).all(|f| f.check == "topics"));
}

#[test]
fn an_interval_that_holds_the_limit_says_how_many_targets_would_settle_it() {
    // A leak of .2 within a tenth of its standard error.
    let verdict = Plan { protected: 0.239, ..Plan::default() }.judge(POLICY, "2027-01-01");
    only(&verdict, Reason::IntervalHoldsThreshold);
    let f = verdict.findings.iter().find(|f| f.reason.is_some()).expect("undecided");
    assert!(f.message.contains("undecided"), "{}", f.message);
}

#[test]
fn evidence_that_is_worth_nothing_passes_nothing() {
    let good = Plan::default;
    for (plan, reason) in [
        (Plan { strong: false, ..good() }, Reason::AttackTooWeak),
        (Plan { unprotected: 0.30, protected: 0.07, ..good() }, Reason::AttackTooWeak),
        (Plan { adaptive: false, ..good() }, Reason::NotAdaptive),
        (Plan { pairs: (1000, 500), ..good() }, Reason::BudgetMismatch),
        (Plan { losses: vec![9.0, 8.0, 7.0, 6.0, 5.0], ..good() }, Reason::Undertrained),
        (Plan { protected: 0.01, ..good() }, Reason::BelowFloor),
        (Plan { n: 150, ..good() }, Reason::TooFewTargets),
        (Plan { seeds: 3, ..good() }, Reason::TooFewSeeds),
        (Plan { failed: true, ..good() }, Reason::MissingCells),
        (Plan { blind: 0.35, ..good() }, Reason::ThresholdBelowFloor),
    ] {
        only(&plan.judge(POLICY, "2027-01-01"), reason);
    }
    let metric = POLICY.replace("topic_accuracy", "topic_acuracy");
    let verdict = good().judge(&metric, "2027-01-01");
    only(&verdict, Reason::NothingSelected);
    assert!(verdict.findings[0].message.contains("did you mean `topic_accuracy`"), "{}", verdict.findings[0].message);
}

#[test]
fn a_leak_that_weak_attackers_find_is_a_leak() {
    let verdict = Plan { strong: false, protected: 0.6, ..Plan::default() }.judge(POLICY, "2027-01-01");
    assert_eq!(verdict.exit(), Exit::Leak);
}

#[test]
fn a_strong_attacker_that_failed_is_not_replaced_by_a_weak_one() {
    let verdict = Plan { failed: true, ..Plan::default() }.judge(POLICY, "2027-01-01");
    let leak = |attack: &str| verdict.findings.iter().filter(|f| f.attack == attack).collect::<Vec<_>>();
    // The summary names the weak one, and that one passes.
    assert!(leak("nearest").iter().all(|f| f.verdict == Answer::Pass), "{verdict:#?}");
    let gaps = leak("decoder");
    assert_eq!(gaps.iter().map(|f| f.rule.as_str()).collect::<Vec<_>>(), ["SB1001", "SB1002"]);
    assert!(gaps.iter().all(|f| f.reason == Some(Reason::MissingCells)), "{gaps:#?}");
    assert_eq!(verdict.exit(), Exit::Inconclusive);
    // Its seed is gone altogether.
    let folder = Plan { failed: true, ..Plan::default() }.write();
    let records = folder.path().join("records.jsonl");
    let text = std::fs::read_to_string(&records).expect("it exists");
    let rest: Vec<&str> = text.lines().filter(|line| !line.contains(CANARY)).collect();
    output::put(&records, &(rest.join("\n") + "\n")).expect("writes");
    let policy = Policy::parse("gate.toml", POLICY).expect("valid");
    only(&judge(&paths(&[&folder]), &policy, &Options::today()).expect("reads").0, Reason::MissingCells);
}

#[test]
fn checks_of_other_confidence_judge_the_attackers_strength_by_their_own() {
    // The attackers gain .832 over a blind one, within a few thousandths: enough at one confidence, not at the other.
    let policy = |levels: &[f64]| {
        let check = |level: &f64| format!("[[check]]\nid = \"at-{level}\"\nconfidence = {level}\nmax = 0.2\n");
        let checks: String = levels.iter().map(check).collect();
        format!("schema = \"stitchback/gate/v1\"\n[strength]\nmin_gain = 0.829\n{checks}")
    };
    let found = |levels: &[f64]| -> Vec<(String, Option<Reason>)> {
        let verdict = Plan::default().judge(&policy(levels), "2027-01-01");
        let mut found: Vec<_> = verdict.findings.into_iter().map(|f| (f.check, f.reason)).collect();
        found.sort_by(|a, b| a.0.cmp(&b.0));
        found
    };
    let alone = [found(&[0.6]), found(&[0.999])].concat();
    assert_eq!(alone.iter().map(|f| f.1).collect::<Vec<_>>(), [None, Some(Reason::AttackTooWeak)]);
    assert_eq!((found(&[0.6, 0.999]), found(&[0.999, 0.6])), (alone.clone(), alone));
}

#[test]
fn warnings_never_block() {
    let policy = POLICY.replace("max =", "level = \"warn\"\nmax =");
    let policy = policy.replace("min_reduction = 0.75\n", "");
    let verdict = Plan { protected: 0.6, ..Plan::default() }.judge(&policy, "2027-01-01");
    assert_eq!(verdict.exit(), Exit::Pass, "{verdict:#?}");
    assert_eq!(verdict.counts()[1], 1, "shown all the same");
}

#[test]
fn waivers_cover_until_their_day() {
    let waiver = "[[waiver]]\nid = \"leak\"\nscope = \"toy/noisy/*\"\nuntil = 2027-03-31\nreason = \"known\"\napproved_by = \"me\"\n";
    let policy = format!("{POLICY}{waiver}");
    let leaking = Plan { protected: 0.6, ..Plan::default() };
    let held = leaking.judge(&policy, "2027-03-31");
    assert_eq!((held.exit(), held.counts()), (Exit::Pass, [2, 0, 0, 2]));
    let expired = leaking.judge(&policy, "2027-04-01");
    only(&expired, Reason::WaiverExpired);
    let idle = Plan::default().judge(&policy, "2027-01-01");
    assert!(idle.warnings.iter().any(|w| w.contains("covers nothing")), "{:?}", idle.warnings);
    assert_eq!(idle.exit(), Exit::Pass);
}

#[test]
fn claims_are_limited_and_audited() {
    let policy = "schema = \"stitchback/gate/v1\"\n[[check]]\nid = \"claim\"\nmax_epsilon = 9\naudit = true\n";
    let plan = Plan::default();
    only(&plan.judge(policy, "2027-01-01"), Reason::NoAudit);
    let folder = plan.write();
    let parsed = Policy::parse("gate.toml", policy).expect("valid");
    let audited = |text: &str| {
        output::put(&folder.path().join("audit.json"), text).expect("writes");
        judge(&paths(&[&folder]), &parsed, &Options::today()).expect("reads").0
    };
    let pipeline = plan.pipeline;
    let verdict = audited(&format!(r#"{{"pipeline": "{pipeline}", "epsilon_lower": 2.5, "ceiling": 4.0}}"#));
    assert_eq!(verdict.exit(), Exit::Pass);
    assert!(verdict.findings.iter().any(|f| f.message.contains("untestable")), "{verdict:#?}");
    let verdict = audited(&format!(r#"[{{"pipeline": "{pipeline}", "epsilon_lower": 8.5}}]"#));
    assert_eq!(verdict.exit(), Exit::Leak);
    // What `audit --json` prints: the verdict counts, whatever the bound between the farthest records.
    let report = |verdict: &str| {
        format!(
            r#"{{"schema": "stitchback/audit/v1", "pipeline": "{pipeline}", "claimed_epsilon": 8.0, "verdict": "{verdict}",
                "pairs": [{{"distance": 1.0, "epsilon": 2.0, "ceiling": 9.0, "gaussian": {{"epsilon": 2.5, "ceiling": 9.5}}}},
                          {{"distance": 0.1, "epsilon": 8.5, "ceiling": 9.0}}], "one_run": null}}"#
        )
    };
    assert_eq!(audited(&report("not_refuted")).exit(), Exit::Pass);
    assert_eq!(audited(&report("refuted")).exit(), Exit::Leak);
    let tight = Plan { epsilon: Some(20.0), ..plan };
    assert!(tight.judge(policy, "2027-01-01").findings.iter().any(|f| f.verdict == Answer::Fail));
}

#[test]
fn a_baseline_is_compared_only_with_its_like() {
    let policy = format!("{POLICY}[[check]]\nid = \"no-worse\"\nmax_regression = 0.02\n");
    let policy = Policy::parse("gate.toml", &policy).expect("valid");
    let old = Plan::default().write();
    let (_, baseline) = judge(&paths(&[&old]), &policy, &Options::today()).expect("reads");
    let text = baseline.to_json().expect("numbers");
    let file = old.path().join("baseline.json");
    output::put(&file, &text).expect("writes");
    let baseline = super::Baseline::read(&file).expect("its own file");
    let against = |plan: Plan| {
        let folder = plan.write();
        let options = Options { baseline: Some(baseline.clone()), ..Options::today() };
        let verdict = judge(&paths(&[&folder]), &policy, &options).expect("reads").0;
        verdict.findings.into_iter().find(|f| f.check == "no-worse").expect("asked")
    };
    assert_eq!(against(Plan::default()).verdict, Answer::Pass);
    // Within the limit of the other checks, and still worse than before.
    assert_eq!(against(Plan { protected: 0.2, ..Plan::default() }).verdict, Answer::Fail);
    let other = against(Plan { victim: "another", ..Plan::default() });
    assert_eq!(other.reason, Some(Reason::IncompatibleBaseline));
    assert!(other.message.contains("the encoder under attack changed"), "{}", other.message);
    let stronger = against(Plan { decoder: "with a learned denoiser", ..Plan::default() });
    assert_eq!(stronger.reason, Some(Reason::IncompatibleBaseline));
    assert!(stronger.message.contains("the attackers, or what they know, changed"), "{}", stronger.message);
    let without = Plan::default().write();
    let verdict = judge(&paths(&[&without]), &policy, &Options::today()).expect("reads").0;
    assert!(verdict.findings.iter().any(|f| f.reason == Some(Reason::NoBaseline)));
}

#[test]
fn gating_again_gives_the_same_bytes() {
    let folder = Plan::default().write();
    let policy = Policy::parse("gate.toml", POLICY).expect("valid");
    let once = || {
        let options = Options { today: "2027-01-01".parse().expect("a date"), ..Options::today() };
        output::json(&judge(&paths(&[&folder]), &policy, &options).expect("reads").0).expect("JSON")
    };
    assert_eq!(once(), once());
}

/// Every answer at every level, waived and not.
fn every_verdict() -> Vec<Verdict> {
    let waiver =
        "[[waiver]]\nid = \"leak\"\nuntil = 2027-03-31\nreason = \"a <b> & \\\"c\\\"\"\napproved_by = \"me\"\n";
    let waived = format!("{POLICY}{waiver}");
    let warned = POLICY.replace("id = \"leak\"", "id = \"leak\"\nlevel = \"warn\"");
    let leaking = Plan { protected: 0.6, ..Plan::default() };
    let undecided = Plan { seeds: 3, ..Plan::default() };
    vec![
        Plan::default().judge(POLICY, "2027-01-01"),
        leaking.judge(POLICY, "2027-01-01"),
        leaking.judge(&waived, "2027-01-01"),
        leaking.judge(&waived, "2027-05-01"),
        leaking.judge(&warned, "2027-01-01"),
        undecided.judge(POLICY, "2027-01-01"),
        undecided.judge(&waived, "2027-01-01"),
        Plan { failed: true, ..leaking }.judge(POLICY, "2027-01-01"),
    ]
}

#[test]
fn all_outputs_and_the_exit_code_say_the_same() {
    let exits: Vec<u8> = every_verdict().iter().map(|v| v.exit).collect();
    assert_eq!(exits, [0, 1, 0, 4, 0, 4, 4, 4]);
    for verdict in every_verdict() {
        let blocking = |f: &&super::Finding| f.level == super::Level::Error && !f.is_waived();
        let failing = |answer| verdict.findings.iter().filter(blocking).filter(|f| f.verdict == answer).count();
        let (fails, undecided) = (failing(Answer::Fail), failing(Answer::Inconclusive));
        assert_eq!(
            verdict.exit,
            if fails > 0 {
                1
            } else if undecided > 0 {
                4
            } else {
                0
            }
        );

        let back: Verdict = serde_json::from_str(&output::json(&verdict).expect("JSON")).expect("our own");
        assert_eq!(back, verdict);
        let text = output::text(&verdict);
        assert!(text.lines().last().expect("a line").ends_with(&format!("(exit {})", verdict.exit)), "{text}");
        assert!(output::markdown(&verdict).contains(&format!("(exit {})", verdict.exit)));

        let junit = output::junit(&verdict).expect("XML");
        let report = quick_junit::Report::deserialize_from_str(&junit).expect("JUnit");
        assert_eq!((report.tests, report.failures, report.errors), (verdict.findings.len(), fails, undecided));

        let sarif: serde_json::Value = serde_json::from_str(&output::sarif(&verdict).expect("SARIF")).expect("JSON");
        let results = sarif["runs"][0]["results"].as_array().expect("results");
        let blocking = |r: &&serde_json::Value| r["suppressions"].as_array().is_none_or(Vec::is_empty);
        let errors = results.iter().filter(blocking).filter(|r| r["level"] == "error").count();
        assert_eq!((results.len(), errors), (verdict.findings.len(), fails));
        assert_eq!(sarif["runs"][0]["invocations"][0]["exitCode"], verdict.exit);
        let lines = |r: &serde_json::Value| r["locations"][0]["physicalLocation"]["region"]["startLine"].clone();
        assert!(results.iter().zip(&verdict.findings).all(|(r, f)| lines(r) == f.line));

        let annotations = output::annotations(&verdict);
        assert_eq!(annotations.matches("::error ").count(), fails + undecided);
    }
}

#[test]
fn a_finding_keeps_its_name_when_its_value_moves() {
    let name = |protected: f64| {
        let verdict = Plan { protected, ..Plan::default() }.judge(POLICY, "2027-01-01");
        verdict.findings.iter().find(|f| f.rule == "SB1001").expect("asked").fingerprint()
    };
    assert_eq!(name(0.6), name(0.7));
}

#[test]
fn no_text_of_a_record_reaches_any_output() {
    let encoded = base64::engine::general_purpose::STANDARD.encode(CANARY);
    // The failed cell's error text carries the canary, as a real one may carry a text.
    let verdict = Plan { failed: true, ..Plan::default() }.judge(POLICY, "2027-01-01");
    let mut all = vec![output::text(&verdict), output::annotations(&verdict)];
    for name in ["x.json", "x.junit.xml", "x.sarif", "x.md"] {
        let format = Format::of(std::path::Path::new(name)).expect("a format");
        all.push(format.write(&verdict).expect("writes"));
    }
    for text in all {
        assert!(!text.contains(CANARY) && !text.contains("canary") && !text.contains(&encoded), "{text}");
    }
}

#[test]
fn hostile_folders_are_named_and_never_left() {
    let folder = Plan::default().write();
    let policy = Policy::parse("gate.toml", POLICY).expect("valid");
    let gate = || judge(&paths(&[&folder]), &policy, &Options::today());
    let records = folder.path().join("records.jsonl");
    let text = std::fs::read_to_string(&records).expect("it exists");
    let first = text.lines().next().expect("a row");
    let id = first.split('"').nth(3).expect("the cell");
    for (bad, why) in [
        (text.replace(id, "../../etc/passwd"), "is no cell id"),
        (format!("{text}{{\"cell\": 1"), "is malformed"),
        ("[".repeat(100_000), "is malformed"),
    ] {
        output::put(&records, &bad).expect("writes");
        let error = gate().expect_err(why);
        assert!(error.to_string().contains(why), "{error}");
        assert_eq!(error.exit(), Exit::Input);
    }
    output::put(&records, &text).expect("writes");
    std::fs::remove_file(folder.path().join("evidence.json")).expect("it exists");
    assert!(gate().expect_err("missing").to_string().contains("run the study again"));
    // A cell that was changed counts as missing.
    let folder = Plan::default().write();
    for cell in std::fs::read_dir(folder.path().join("cells")).expect("cells").map_while(Result::ok) {
        let text = std::fs::read_to_string(cell.path()).expect("it exists");
        output::put(&cell.path(), &text.replace("0.1", "0.0")).expect("writes");
    }
    let verdict = judge(&paths(&[&folder]), &policy, &Options::today()).expect("reads").0;
    only(&verdict, Reason::MissingCells);
}
