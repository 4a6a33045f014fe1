//! The edge's status page in a real browser: what a person sees, not what the server meant.

use super::value::{Edge, stdout, value};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A headless Chromium; `None` where the machine has none.
fn chromium() -> Option<PathBuf> {
    let names = ["chromium", "chromium-browser", "google-chrome"];
    std::env::split_paths(&std::env::var_os("PATH")?)
        .flat_map(|folder| names.map(|name| folder.join(name)))
        .find(|path| path.is_file())
}

/// Runs the browser on a page; its standard output and what it logged.
fn browse(browser: &Path, profile: &Path, more: &[&str], url: &str) -> (String, String) {
    let out = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .args(["--enable-logging=stderr", "--v=0", "--hide-scrollbars"])
        .arg(format!("--user-data-dir={}", profile.display()))
        .args(more)
        .arg(url)
        .output()
        .expect("the browser starts");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    (String::from_utf8_lossy(&out.stdout).into_owned(), String::from_utf8_lossy(&out.stderr).into_owned())
}

/// The text between two tags, without tags inside.
fn cells(dom: &str, row: &str) -> Vec<String> {
    let row = dom.lines().find(|line| line.contains(row)).expect("a row of the table");
    row.split("<td")
        .skip(1)
        .map(|cell| {
            let inside = cell.split_once('>').map_or("", |(_, rest)| rest);
            let mut text = String::new();
            let mut tag = false;
            for c in inside.chars() {
                match c {
                    '<' => tag = true,
                    '>' => tag = false,
                    c if !tag => text.push(c),
                    _ => {}
                }
            }
            text.trim().to_owned()
        })
        .collect()
}

/// A browser is not on every machine, and a test without one would pass for nothing.
#[test]
#[ignore = "needs Chromium: cargo test --release --test it -- --ignored status_page"]
fn the_status_page_shows_contributions_value_baskets_and_log_in_a_browser() {
    let browser = chromium().expect("a `chromium` on the PATH");
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    let edge = at("edge");
    let key = stdout(&mut value(&[
        "setup",
        &edge,
        "--corpus",
        "toy",
        "--encoder",
        "toy",
        "--cells",
        "4",
        "--group",
        "diaries",
    ]));
    let running = Edge::start(Path::new(&edge));
    // Five accounts: a group of fewer does not show its numbers.
    for account in 0..5 {
        let records: Vec<String> = (0..60)
            .map(|i| {
                format!("letter {i} of person {account} tells of a walk to the old harbour number {}", i * 7 + account)
            })
            .collect();
        let file = at(&format!("records-{account}.txt"));
        std::fs::File::create(&file)
            .and_then(|mut f| std::io::Write::write_all(&mut f, records.join("\n").as_bytes()))
            .expect("writable");
        let home = at(&format!("home-{account}"));
        stdout(value(&["contribute", "--from", &file, "--epsilon", "4"]).args([
            "--edge",
            &running.url,
            "--home",
            &home,
        ]));
        if account == 3 {
            let (dom, _) = browse(&browser, &folder.path().join("profile"), &["--dump-dom"], &running.url);
            assert_eq!(cells(&dom, "<td>diaries</td>")[4], "under 5 contributors", "four are too few to be shown");
        }
    }
    stdout(&mut value(&["close", &edge, "--edge", &running.url]));

    let picture = at("page.png");
    let shot = format!("--screenshot={picture}");
    let profile = folder.path().join("profile");
    let (dom, _) = browse(&browser, &profile, &["--dump-dom"], &running.url);
    let group = cells(&dom, "<td>diaries</td>");
    assert_eq!((group[1].as_str(), group[2].as_str()), ("5", "5"), "{group:?}");
    let paid: f64 = group[3].parse().expect("the value paid");
    assert!(paid > 0.1, "{group:?}");
    assert!(group[4].ends_with('%'), "{group:?}");
    let epoch = cells(&dom, "<td>0</td>");
    assert_eq!(epoch[1], "5", "{epoch:?}");
    for part in ["epoch 1", "Accounts: 5.", "<h2>Baskets</h2>", "every one is accounted for", key.trim()] {
        assert!(dom.contains(part), "`{part}` is missing from:\n{dom}");
    }
    // Five contributions, five values, the epoch, and what did not fit into baskets.
    let receipts: u64 = dom
        .split("<h2>Log</h2>")
        .nth(1)
        .and_then(|rest| rest.split("<p>").nth(1)?.split(' ').next()?.parse().ok())
        .expect("the size of the log");
    assert!((11..=13).contains(&receipts), "{receipts}");
    assert!(!dom.contains("<script") && !dom.contains("harbour"), "no script, and nothing of a record");

    let (_, log) = browse(&browser, &profile, &[&shot, "--window-size=900,1100"], &running.url);
    assert!(!log.contains("Refused to") && !log.contains("CONSOLE"), "the page obeys its own policy: {log}");
    let page = image::open(&picture).expect("a picture").to_rgb8();
    assert_eq!(page.dimensions(), (900, 1100));
    let near =
        |wanted: [u8; 3]| page.pixels().filter(|p| p.0.iter().zip(wanted).all(|(&a, b)| a.abs_diff(b) < 12)).count();
    // The bar of the covered ground is drawn, 10 rem wide at most and filled in part.
    let (filled, empty) = (near([0x2f, 0x6f, 0xb2]), near([0xe7, 0xeb, 0xf2]));
    assert!(filled > 20 && empty > 20 && filled + empty < 4000, "{filled} {empty}");
    assert!(near([0x1c, 0x23, 0x30]) > 500, "there is text");
}
