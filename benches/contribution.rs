//! Speed of the contribution loop: one run, one JSON line. `cargo bench --bench contribution`
//!
//! Receipts are sealed and opened on one thread; the ledger holds and settles in memory; a million jobs go through each of
//! five rules of access. Every figure is the best of three.

#![expect(clippy::print_stdout, reason = "the result is the output")]

use std::time::Instant;
use stitchback::contribute::quota::ledger::Key;
use stitchback::contribute::quota::{Claimant, Ledger, Operation, Policy as Quota};
use stitchback::contribute::receipt::{EdgeKey, Kind, Receipt, pseudonym};
use stitchback::contribute::simulate::population::{Service, jobs, users};
use stitchback::contribute::simulate::queue::{Policy, serve};
use stitchback::seed;

fn best(mut run: impl FnMut()) -> f64 {
    (0..3)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed().as_secs_f64()
        })
        .fold(f64::INFINITY, f64::min)
}

fn receipt() -> Receipt {
    Receipt {
        issuer: "edge.bench".to_owned(),
        subject: pseudonym(&[1; 32], "pets"),
        audience: "edge.bench".to_owned(),
        expires_s: 2_000_000_000,
        issued_s: 1_900_000_000,
        id: [3; 16],
        kind: Kind::Issue,
        group: "pets".to_owned(),
        epoch: 12,
        catalogue: [4; 32],
        policy: [5; 32],
        mechanism: [6; 32],
        commitment: [7; 32],
        value: 123_456_789_012,
        parts: [987_654_321, 509_643, 1_000_000, 1],
        budget_milli: 1000,
        previous: [0; 32],
        nonce: [9; 16],
    }
}

fn main() {
    const RECEIPTS: usize = 5_000;
    const TRANSFERS: u64 = 400_000;
    const JOBS: usize = 1_000_000;
    let key = EdgeKey::new("edge.bench", &[7; 32]).expect("a plain name");
    let public = key.public();
    let receipt = receipt();
    let seal_s = best(|| (0..RECEIPTS).for_each(|_| drop(std::hint::black_box(key.seal(&receipt)))));
    let token = key.seal(&receipt);
    let open_s = best(|| (0..RECEIPTS).for_each(|_| drop(std::hint::black_box(public.open(&token)).expect("ours"))));

    let ledger_s = best(|| {
        let mut ledger = Ledger::with_reserve(1 << 40);
        (0..1000).for_each(|_| {
            ledger.open(0);
        });
        let claims: Vec<Claimant> =
            (0..1000).map(|account| Claimant { account, group: 0, entitlement: 1 + u64::from(account) }).collect();
        Quota { emission: 1 << 40, ..Quota::default() }.close(&mut ledger, &claims, &[1], 1);
        for i in 0..TRANSFERS / 2 {
            let hold = Key { epoch: 1, id: u128::from(2 * i) };
            let account = (i % 1000) as u32;
            ledger.apply(hold, Operation::Hold { account, amount: 100 }).expect("enough credits");
            let settle = Key { epoch: 1, id: u128::from(2 * i + 1) };
            ledger.apply(settle, Operation::Settle { hold, actual: 60 }).expect("an open hold");
        }
        assert!(ledger.is_sound());
    });

    let people = users(&(0..200).map(f64::from).collect::<Vec<_>>(), 0.0, &mut seed::stream(1, "bench", "users"));
    let rng = &mut seed::stream(1, "bench", "jobs");
    let arrivals = jobs(&people, JOBS, 8, 0.95, Service::LogNormal(1.0), 50.0, rng);
    let policies = [Policy::Fifo, Policy::Equal, Policy::Contribution, Policy::PayFirst, Policy::Reserved];
    let simulate_s = best(|| {
        for policy in policies {
            std::hint::black_box(serve(policy, &people, &arrivals, 8, 50_000_000));
        }
    });
    println!(
        "{{\"receipt_issue_per_s\": {:.0}, \"receipt_verify_us\": {:.1}, \"ledger_transfers_per_s\": {:.0}, \
         \"jobs\": {}, \"policies\": {}, \"simulation_s\": {:.2}}}",
        RECEIPTS as f64 / seal_s,
        open_s / RECEIPTS as f64 * 1e6,
        TRANSFERS as f64 / ledger_s,
        arrivals.len(),
        policies.len(),
        simulate_s
    );
}
