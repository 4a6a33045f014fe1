//! `value`: the contribution loop on the command line, on the toy encoder and corpus.

use assert_cmd::Command;
use assert_cmd::cargo::CommandCargoExt as _;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};

pub(super) fn value(args: &[&str]) -> Command {
    let mut command = Command::cargo_bin("stitchback").expect("the binary of this package");
    command.arg("value").args(args);
    command
}

pub(super) fn stdout(command: &mut Command) -> String {
    let out = command.assert().success();
    String::from_utf8(out.get_output().stdout.clone()).expect("text")
}

/// A running edge; stopped, not asked, when it is dropped.
pub(super) struct Edge {
    process: Child,
    pub(super) url: String,
}

impl Edge {
    pub(super) fn start(folder: &Path) -> Self {
        let mut process = std::process::Command::cargo_bin("stitchback")
            .expect("the binary of this package")
            .args(["value", "serve", "--listen", "127.0.0.1:0", "--epoch-seconds", "0"])
            .arg(folder)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut line = String::new();
        BufReader::new(process.stderr.take().expect("piped")).read_line(&mut line).expect("it says where it listens");
        let url = line.split(" on ").nth(1).and_then(|l| l.split(',').next()).expect("an address").to_owned();
        Self { process, url }
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        // Killed in the middle of whatever it does: the next start must know everything that was answered.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn contribute_close_redeem_verify_audit_over_a_kill() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    let (edge, home) = (at("edge"), at("home"));
    let setup = ["setup", &edge, "--corpus", "toy", "--encoder", "toy", "--cells", "4", "--group", "diaries"];
    let key = stdout(&mut value(&setup)).trim().to_owned();
    assert!(key.starts_with("edge.local+"), "{key}");
    value(&setup).assert().code(2);

    let records: Vec<String> =
        (0..80).map(|i| format!("the {i}th letter tells of a walk to the old harbour number {i}")).collect();
    std::fs::File::create(at("records.txt"))
        .and_then(|mut f| std::io::Write::write_all(&mut f, records.join("\n").as_bytes()))
        .expect("writable");
    let running = Edge::start(Path::new(&edge));
    let side = ["--edge", &running.url, "--home", &home];
    let given = stdout(value(&["contribute", "--from", &at("records.txt"), "--epsilon", "4"]).args(side));
    assert!(given.starts_with("80 records of group diaries given at epsilon 4 (epoch 0)"), "{given}");
    // The same again is answered with the same receipt.
    assert_eq!(stdout(value(&["contribute", "--from", &at("records.txt"), "--epsilon", "4"]).args(side)), given);
    assert!(stdout(value(&["redeem"]).args(side)).contains("nothing to redeem"));
    drop(running);

    let running = Edge::start(Path::new(&edge));
    let side = ["--edge", &running.url, "--home", &home];
    let closed = stdout(&mut value(&["close", &edge, "--edge", &running.url]));
    assert!(closed.starts_with("epoch 0 closed: 1 contributions valued"), "{closed}");
    let redeemed = stdout(value(&["redeem"]).args(side));
    assert!(redeemed.contains("epoch 0, group diaries: worth 0.") && redeemed.contains("novelty"), "{redeemed}");
    let proof = redeemed.lines().find_map(|l| l.strip_prefix("  proof: ")).expect("a proof").to_owned();
    stdout(&mut value(&["close", &edge, "--edge", &running.url]));
    let balance = stdout(value(&["balance"]).args(side));
    assert!(balance.starts_with("epoch 2: ") && balance.contains("diaries: accrued 0."), "{balance}");
    let asked = stdout(value(&["request", "--at-most", "1000"]).args(side));
    let id = asked.trim().rsplit(' ').next().expect("an id").to_owned();
    stdout(&mut value(&["settle", &edge, "--request", &id, "--cost", "400", "--edge", &running.url]));
    value(&["request", "--at-most", "99999999999999"]).args(side).assert().code(3);
    value(&["audit", &edge, "--key", &key]).assert().code(3);

    // The next catalogue is announced now and holds from the next epoch on.
    let next = ["catalogue", &edge, "--group", "diaries", "--corpus", "toy", "--cells", "6", "--edge", &running.url];
    let announced = stdout(&mut value(&next));
    assert!(announced.starts_with("group diaries: version 2 of its catalogue (6 cells, "), "{announced}");
    value(&next).assert().code(3);
    value(&["catalogue", &edge, "--group", "cats", "--corpus", "toy", "--edge", &running.url]).assert().code(2);
    stdout(&mut value(&["close", &edge, "--edge", &running.url]));
    let again = stdout(value(&["contribute", "--from", &at("records.txt"), "--epsilon", "4"]).args(side));
    assert!(again.starts_with("80 records of group diaries given at epsilon 4 (epoch 3)"), "{again}");
    stdout(&mut value(&["close", &edge, "--edge", &running.url]));
    drop(running);

    let verified = stdout(&mut value(&["verify", &proof, "--key", &key]));
    assert!(verified.starts_with("genuine: receipt "), "{verified}");
    let text = std::fs::read_to_string(&proof).expect("readable").replacen("index ", "index 1", 1);
    std::fs::File::create(at("forged.proof"))
        .and_then(|mut f| std::io::Write::write_all(&mut f, text.as_bytes()))
        .expect("writable");
    value(&["verify", &at("forged.proof"), "--key", &key]).assert().code(3);
    value(&["verify", &proof, "--key", "nonsense"]).assert().code(3);
    let audit = stdout(&mut value(&["audit", &edge, "--key", &key]));
    assert!(audit.contains("2 values computed again over 4 epochs; credits all accounted for"), "{audit}");
    // Secrets are readable by their owner only, and in no output.
    let secret = std::fs::read_to_string(Path::new(&edge).join("key")).expect("readable");
    let digits = secret.trim().rsplit(' ').next().expect("digits");
    for shown in [&given, &closed, &redeemed, &balance, &verified, &audit] {
        assert!(!shown.contains(digits));
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(Path::new(&edge).join("key")).expect("there").permissions().mode();
        assert_eq!(mode & 0o077, 0);
    }
}

/// What a user loses on the way must not be lost for good: an answer that never came, and receipts that are no longer taken.
#[test]
fn a_lost_receipt_is_fetched_again_and_a_refused_one_blocks_no_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    let edge = at("edge");
    stdout(&mut value(&["setup", &edge, "--corpus", "toy", "--encoder", "toy", "--cells", "4", "--group", "diaries"]));
    let running = Edge::start(Path::new(&edge));
    let give = |home: &str, what: &str| {
        let records: Vec<String> = (0..60).map(|i| format!("{what} number {i} by the old harbour")).collect();
        std::fs::File::create(at(what))
            .and_then(|mut f| std::io::Write::write_all(&mut f, records.join("\n").as_bytes()))
            .expect("writable");
        let side = ["--edge", &running.url, "--home", home];
        value(&["contribute", "--from", &at(what), "--epsilon", "4"]).args(side).assert().success()
    };
    let receipts = |home: &str| -> Vec<std::path::PathBuf> {
        let entries = std::fs::read_dir(Path::new(home).join("receipts")).expect("a folder");
        entries
            .map(|e| e.expect("readable").path())
            .filter(|p| p.extension().is_some_and(|e| e == "contribution"))
            .collect()
    };
    let (home, other) = (at("home"), at("other"));
    give(&home, "walks.txt");
    give(&other, "boats.txt");
    stdout(&mut value(&["close", &edge, "--edge", &running.url]));

    // The answer was lost, and with it the receipt; the epoch is over.
    let lost = receipts(&home).remove(0);
    let before = std::fs::read(&lost).expect("readable");
    std::fs::remove_file(&lost).expect("there");
    let again = give(&home, "walks.txt");
    let said = String::from_utf8_lossy(&again.get_output().stderr).into_owned();
    assert!(said.contains("was given before"), "{said}");
    assert!(String::from_utf8_lossy(&again.get_output().stdout).contains("(epoch 0)"));
    assert_eq!(std::fs::read(&lost).expect("fetched again"), before);

    // A receipt of somebody else is refused for ever: it is laid aside, whatever its place among the others.
    let foreign = receipts(&other).remove(0);
    std::fs::copy(&foreign, Path::new(&home).join("receipts").join(foreign.file_name().expect("a name")))
        .expect("there");
    let redeem = || value(&["redeem", "--edge", &running.url, "--home", &home]).assert().success();
    let redeemed = redeem();
    let said = String::from_utf8_lossy(&redeemed.get_output().stderr).into_owned();
    assert!(said.contains("cannot be redeemed") && said.contains("one's own"), "{said}");
    assert!(lost.with_extension("redeemed").is_file());
    let aside = Path::new(&home).join("receipts").join(foreign.file_name().expect("a name"));
    assert!(aside.with_extension("expired").is_file() && !aside.with_extension("redeemed").is_file());
    assert!(String::from_utf8_lossy(&redeem().get_output().stdout).contains("nothing to redeem"));
}

#[test]
fn a_simulation_prints_a_table_and_draws_plots() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().to_str().expect("UTF-8");
    let small =
        ["simulate", "--users", "40", "--jobs", "1500", "--replications", "3", "--correlations=-1,1", "--out", out];
    let table = stdout(&mut value(&small));
    assert!(table.contains("pay first") && table.contains("paired 95 % interval over 3 replications"), "{table}");
    for name in ["simulation.json", "starved.svg", "privacy-tax.svg", "waits-by-decile-1.svg"] {
        assert!(folder.path().join(name).is_file(), "{name}");
    }
    value(&["simulate", "--load", "9"]).assert().code(2);
}
