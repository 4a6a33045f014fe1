use super::*;
use crate::contribute::agent::{Agent, Sealed, Shield};
use crate::contribute::catalogue::Catalogue;
use crate::contribute::catalogue::tests::{clouds, plan};
use crate::contribute::channel::Budget;
use crate::contribute::cloud::Policy;
use crate::contribute::journal::tests::{Disk, Faulty};
use crate::contribute::message::{About, Body};
use crate::contribute::receipt::Kind;
use crate::encode::Embeddings;
use crate::protect::Pipeline;
use crate::seed;
use std::sync::{Arc, Mutex};

const NAME: &str = "edge.test";

fn key() -> EdgeKey {
    EdgeKey::new(NAME, &[7; 32]).expect("a plain name")
}

pub(super) fn charter() -> Charter {
    charter_with(4)
}

/// A folder that an edge can be opened in.
pub(super) fn serve_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("charter.json");
    crate::contribute::agent::write_private(&path, charter().to_json().as_bytes()).expect("writable");
    folder
}

pub(super) fn charter_with(cells: usize) -> Charter {
    let group = |name: &str, root| {
        let mut plan = plan(cells);
        name.clone_into(&mut plan.group);
        Catalogue::fit(&plan, &clouds(200, 4, 16, 0.3, name), &mut seed::stream(root, "test", "edge")).expect("enough")
    };
    let quota = quota::Policy { emission: 1_000_000, group_members: 1, ..quota::Policy::default() };
    Charter { policy: Policy { quota, ..Policy::default() }, groups: vec![group("pets", 1), group("traffic", 2)] }
}

type Shared = Arc<Mutex<Disk>>;

fn open(disk: &Shared) -> Result<Edge, Error> {
    failing(disk, usize::MAX, 0)
}

/// An edge on a new disk, with so many registered accounts.
fn opened(accounts: u8) -> (Shared, Edge, Vec<Agent>) {
    let disk = Shared::default();
    let mut edge = open(&disk).expect("an empty disk");
    let agents: Vec<Agent> = (1..=accounts).map(|i| Agent::new(&[i; 32])).collect();
    for agent in &agents {
        assert_eq!(one(&mut edge, agent.register(NAME)).map(|a| a.receipt), Ok(None));
    }
    (disk, edge, agents)
}

fn failing(disk: &Shared, fail_at: usize, eighths: usize) -> Result<Edge, Error> {
    Edge::with(charter(), key(), Box::new(Faulty { disk: Arc::clone(disk), fail_at, eighths }))
}

fn own(agent: u8, n: usize) -> Embeddings {
    clouds(n, 4, 16, 0.3, &format!("own {agent}"))
}

fn sealed(agent: u8, group: usize, n: usize) -> Sealed {
    let shield = Shield { budget: Budget::new(4.0).expect("in range"), pipeline: None };
    let rng = &mut seed::stream(u64::from(agent), "test", &format!("noise {group} {n}"));
    Agent::new(&[agent; 32]).protect(&charter().groups[group], &own(agent, n), &shield, rng).expect("enough")
}

fn rng() -> seed::Stream {
    seed::stream(1, "test", "edge")
}

fn one(edge: &mut Edge, envelope: Envelope) -> Result<Answer, Refused> {
    edge.submit(vec![envelope], 1000, &mut rng_for(edge)).expect("the journal works").remove(0)
}

/// Seeds must differ from event to event, as the system's do.
fn rng_for(edge: &Edge) -> seed::Stream {
    seed::stream(edge.tree.len(), "test", &format!("{:?}", edge.journal))
}

fn close(edge: &mut Edge) -> EpochRecord {
    let rng = &mut rng_for(edge);
    edge.close(2000, rng).expect("the journal works")
}

fn receipt(edge: &Edge, answer: &Answer) -> Receipt {
    open_token(&edge.public(), answer.token.as_deref().expect("a receipt")).expect("our own")
}

/// Issue receipts of an account, found by walking the log: id, receipt, token.
fn issued(edge: &mut Edge, agent: &Agent) -> Vec<(Receipt, Vec<u8>)> {
    let mut ids: Vec<[u8; 16]> = edge.filed.keys().copied().collect();
    ids.sort_by_key(|id| edge.filed[id].leaf);
    ids.into_iter()
        .filter_map(|id| {
            let token = edge.token(&id).expect("readable").expect("filed");
            let receipt = edge.public().open(&token).expect("our own");
            let subject = super::super::receipt::pseudonym(&agent.account(), &receipt.group);
            (receipt.kind == Kind::Issue && receipt.subject == subject).then_some((receipt, token))
        })
        .collect()
}

#[test]
fn the_whole_loop_from_contribution_to_settled_request() {
    let (_, mut edge, agents) = opened(3);
    // Agent 1 gives 120 records of one group, agent 2 only 40, agent 3 none.
    for (agent, n) in [(1_u8, 120), (2, 40)] {
        let sealed = sealed(agent, 0, n);
        let answer = one(&mut edge, agents[agent as usize - 1].contribute(NAME, 0, &sealed)).expect("in order");
        let receipt = receipt(&edge, &answer);
        assert_eq!((receipt.kind, receipt.value), (Kind::Contribution, 0));
        assert!(agents[agent as usize - 1].is_of(&receipt, &sealed));
    }
    let record = close(&mut edge);
    assert_eq!((record.epoch, record.contributions, record.baseline), (0, 2, 100_000));
    let (first, token) = issued(&mut edge, &agents[0]).remove(0);
    let second = issued(&mut edge, &agents[1]).remove(0).0;
    assert!(first.value > second.value && second.value > 0, "{} {}", first.value, second.value);
    assert!(first.worth().sentence().contains("volume"), "{}", first.worth().sentence());
    // Everybody can compute the value again from what is published and from the own cells.
    let cells: serde_json::Value = serde_json::to_value(sealed(1, 0, 120)).expect("plain");
    let cells: Vec<i64> = serde_json::from_value(cells["cells"].clone()).expect("numbers");
    assert_eq!(super::super::value::coverage::pay(&record.groups[0].prices, &cells), first.value);

    // Redeemed once, the value decides about the next epoch's bonus.
    one(&mut edge, agents[0].redeem(NAME, &token)).expect("one's own receipt");
    let again = one(&mut edge, agents[0].redeem(NAME, &token)).expect_err("once only");
    assert_eq!((again.status, again.why.as_str()), (409, "this receipt was redeemed before"));
    let stolen = one(&mut edge, agents[1].redeem(NAME, &token)).expect_err("somebody else's");
    assert_eq!(stolen.status, 422);
    close(&mut edge);
    let balance = |edge: &Edge, i: usize| edge.balance(&agents[i].account()).expect("registered").balance;
    assert!(balance(&edge, 0) > 4 * balance(&edge, 2), "{} {}", balance(&edge, 0), balance(&edge, 2));
    assert_eq!(balance(&edge, 1), balance(&edge, 2), "what is not redeemed does not count");

    // A request sets credits aside, the edge says what it did cost.
    let before = balance(&edge, 0);
    let asked = one(&mut edge, agents[0].request(NAME, 2, &[1; 16], 50_000, None)).expect("enough credits");
    assert_eq!(balance(&edge, 0), before - 50_000);
    let settle = |by: &ed25519_dalek::SigningKey| {
        let (nonce, request) = (hex(&[9; 16]), asked.receipt.clone().expect("a receipt"));
        Envelope::seal(&Body::Settle { edge: NAME.to_owned(), epoch: 2, nonce, request, cost: 20_000 }, by)
    };
    let forged = ed25519_dalek::SigningKey::from_bytes(&[1; 32]);
    assert_eq!(one(&mut edge, settle(&forged)).expect_err("not the edge").status, 422);
    let operator = key();
    let settled = one(&mut edge, settle(operator.operator())).expect("the edge's own word");
    assert_eq!((receipt(&edge, &settled).kind, balance(&edge, 0)), (Kind::Settle, before - 20_000));
    let poor = one(&mut edge, agents[2].request(NAME, 2, &[1; 16], 1 << 40, None)).expect_err("too much");
    assert_eq!(poor.status, 402);
    assert!(edge.is_sound());

    // Every receipt has a proof that stands alone.
    let id = first.id;
    let proof = edge.proof(&id).expect("readable").expect("filed");
    let (proved, checkpoint) = proof.verify(&edge.public()).expect("it holds");
    assert_eq!((proved, checkpoint.size), (first, edge.tree().len()));
}

/// Only what was paid for counts as demand, from the next epoch on, and an auditor gets the same weights.
#[test]
fn paid_requests_about_a_topic_raise_its_weight() {
    let (disk, mut edge, agents) = opened(2);
    close(&mut edge);
    let about = |cell| About { group: "pets".to_owned(), catalogue: hex(&charter().groups[0].hash()), cell };
    let operator = key();
    let ask = |edge: &mut Edge, agent: usize, nonce: u8, cell: u32, cost: u64| {
        let asked = agents[agent].request(NAME, 1, &[nonce; 16], 1000, Some(about(cell)));
        let request = one(edge, asked).expect("enough credits").receipt.expect("a receipt");
        let nonce = hex(&[nonce; 16]);
        let settle = Body::Settle { edge: NAME.to_owned(), epoch: 1, nonce, request, cost };
        one(edge, Envelope::seal(&settle, operator.operator())).expect("the edge's own word");
    };
    ask(&mut edge, 0, 1, 2, 900);
    ask(&mut edge, 1, 2, 2, 900);
    ask(&mut edge, 1, 3, 0, 0);
    let even = vec![0.25; 4];
    assert_eq!(close(&mut edge).groups[0].weights, even, "frozen within the epoch");
    let record = close(&mut edge);
    assert_eq!(record.groups[0].sums.paid, [0, 0, 1800, 0], "two were paid, one was given back");
    let alpha = charter().policy.demand_prior() as f64;
    let rest = alpha / (4.0 * alpha + 1800.0);
    assert_eq!(record.groups[0].weights, [rest, rest, (alpha + 1800.0) / (4.0 * alpha + 1800.0), rest]);
    assert_eq!(record.groups[1].weights, even, "another group's topic is not touched");
    let mut refused = |about| {
        let asked = agents[0].request(NAME, 3, &[9; 16], 1000, Some(about));
        one(&mut edge, asked).expect_err("refused").status
    };
    assert_eq!(refused(about(4)), 422);
    assert_eq!(refused(About { group: "cats".to_owned(), ..about(0) }), 404);
    assert_eq!(refused(About { catalogue: "00".repeat(32), ..about(0) }), 409);
    // A retry gets its receipt, whatever has become of the topic since.
    let asked = agents[0].request(NAME, 3, &[10; 16], 1000, Some(about(1)));
    let first = one(&mut edge, asked.clone()).expect("enough credits");
    let next = Box::new(next_catalogue(&edge, 0, 4));
    let announced = Body::Catalogue { edge: NAME.to_owned(), epoch: 3, next };
    one(&mut edge, Envelope::seal(&announced, operator.operator())).expect("the edge's own word");
    close(&mut edge);
    let again = one(&mut edge, asked).expect("answered before");
    assert_eq!((again.receipt, again.repeated), (first.receipt, true));
    let hash = edge.state_hash();
    drop(edge);
    assert_eq!(open(&disk).expect("its own journal").state_hash(), hash, "the journal gives the same demand");
}

#[test]
fn bad_contributions_are_refused_with_a_reason_and_change_nothing() {
    let disk = Shared::default();
    let mut edge = open(&disk).expect("an empty disk");
    let agent = Agent::new(&[1; 32]);
    let good = sealed(1, 0, 60);
    let unregistered = one(&mut edge, agent.contribute(NAME, 0, &good)).expect_err("unknown");
    assert_eq!((unregistered.status, unregistered.why.as_str()), (404, "this account is not registered"));
    one(&mut edge, agent.register(NAME)).expect("new");
    let hash = edge.state_hash();
    let signing = ed25519_dalek::SigningKey::from_bytes(&[1; 32]);
    let with = |change: &dyn Fn(&mut super::super::message::Contribution)| {
        let (_, body) = agent.contribute(NAME, 0, &good).open().expect("our own");
        let Body::Contribute(mut c) = body else { panic!("a contribution") };
        change(&mut c);
        Envelope::seal(&Body::Contribute(c), &signing)
    };
    let mut why = |change: &dyn Fn(&mut super::super::message::Contribution)| {
        let refused = one(&mut edge, with(change)).expect_err("refused");
        assert_eq!(edge.state_hash(), hash, "{refused}");
        (refused.status, refused.why)
    };
    assert_eq!(why(&|c| c.group = "cats".to_owned()).0, 404);
    assert_eq!(why(&|c| c.epoch = 1).0, 409);
    assert_eq!(why(&|c| c.catalogue = "00".repeat(32)).0, 409);
    assert!(why(&|c| c.cells.truncate(3)).1.contains("5 entries"));
    assert!(why(&|c| c.items = 100).1.contains("do not sum"));
    assert!(why(&|c| c.items = 1001).1.contains("1 to 1000"));
    assert!(why(&|c| c.cells[0] += 400_000).1.contains("do not sum"));
    assert!(why(&|c| c.mechanism.epsilon_milli = 0).1.contains("epsilon_milli"));
    assert!(why(&|c| c.nonce = "7".to_owned()).1.contains("nonce"));
    assert!(why(&|c| c.release = vec![vec![0; 3]]).1.contains("16 coordinates"));
    let long = |c: &mut super::super::message::Contribution| {
        c.release = vec![vec![8000; 16]];
        c.mechanism.pipeline = "clip(l2=1) | gaussian(sigma=0.1)".to_owned();
        c.mechanism.sigma_ppm = 100_000;
        c.mechanism.release_epsilon_milli =
            (Pipeline::parse(&c.mechanism.pipeline).expect("valid").claim().epsilon(1e-5).expect("noise") * 1000.0)
                .ceil() as u64;
    };
    assert!(why(&long).1.contains("longer than the declared noise"), "{:?}", why(&long));
    for reaching in ["center(public=/etc/hosts) | clip(l2=1)", "process(command=true)"] {
        let reach = |c: &mut super::super::message::Contribution| {
            long(c);
            c.mechanism.pipeline = reaching.to_owned();
        };
        assert!(why(&reach).1.contains("names a file or a program"), "{reaching}");
    }
    let lying = |c: &mut super::super::message::Contribution| {
        long(c);
        c.mechanism.sigma_ppm = 900_000;
    };
    assert!(why(&lying).1.contains("not what the pipeline gives"));
    assert_eq!(why(&|c| c.edge = "edge.other".to_owned()).0, 422);

    // The right one is taken, a second time answered as before, and its content not paid for twice.
    let first = one(&mut edge, agent.contribute(NAME, 0, &good)).expect("in order");
    let second = one(&mut edge, agent.contribute(NAME, 0, &good)).expect("the same message");
    assert_eq!((second.repeated, &second.token), (true, &first.token));
    let other_nonce = with(&|c| c.nonce = hex(&[3; 16]));
    assert!(one(&mut edge, other_nonce).expect_err("again").why.contains("contributed before"));
    let mut clash = with(&|c| c.items = 61);
    assert!(one(&mut edge, clash.clone()).expect_err("same nonce").why.contains("nonce was used"));
    clash.signature.replace_range(0..2, "00");
    assert_eq!(one(&mut edge, clash).expect_err("forged").status, 400);
    close(&mut edge);
    // Who lost the answer learns where the receipt is, and finds it there.
    let again = one(&mut edge, agent.contribute(NAME, 1, &good)).expect_err("old content");
    let id = first.receipt.expect("a receipt");
    assert_eq!(
        (again.status, again.why),
        (409, format!("the same protected content was contributed before, under receipt {id}"))
    );
    let proof = edge.proof(&unhex(&id).expect("an id")).expect("readable").expect("filed");
    assert!(agent.is_of(&edge.public().open(&proof.token).expect("our own"), &good));
}

#[test]
fn an_account_cannot_flood_a_group_behind_a_tiny_epsilon() {
    let (_, mut edge, agents) = opened(1);
    let signing = ed25519_dalek::SigningKey::from_bytes(&[1; 32]);
    let made_up = |edge: &mut Edge, epsilon_milli: u32, items: i64, nonce: u8| {
        let (_, body) = agents[0].contribute(NAME, 0, &sealed(1, 0, 20)).open().expect("our own");
        let Body::Contribute(mut c) = body else { panic!("a contribution") };
        // Whatever the priced cells hold, "other" takes it back: the sum is right.
        let mass = items * crate::contribute::channel::UNITS + i64::from(nonce);
        c.mechanism.epsilon_milli = epsilon_milli;
        c.cells = vec![mass, mass, 0, 0, 20 * crate::contribute::channel::UNITS - 2 * mass];
        c.nonce = hex(&[nonce; 16]);
        one(edge, Envelope::seal(&Body::Contribute(c), &signing)).map_err(|refused| (refused.status, refused.why))
    };
    let before = edge.state_hash();
    let flood = made_up(&mut edge, 10, 700, 1).expect_err("a flood");
    assert!(flood.0 == 422 && flood.1.contains("larger than 1000 items"), "{flood:?}");
    let rich = made_up(&mut edge, 1000, 55, 2).expect_err("110 items of 20");
    assert!(rich.0 == 422 && rich.1.contains("hold more"), "{rich:?}");
    assert_eq!(edge.state_hash(), before);
    // What noise may excuse once, it does not excuse again and again.
    let taken: Vec<bool> = (3..13).map(|nonce| made_up(&mut edge, 1000, 26, nonce).is_ok()).collect();
    assert!(taken[0] && !taken[1..].contains(&true), "{taken:?}");
}

#[test]
fn vectors_under_noise_of_every_kind_are_taken_and_noise_of_unknown_size_is_not() {
    let (_, mut edge, agents) = opened(5);
    let budget = Budget::new(1.0).expect("in range");
    let protect = |i: usize, pipeline: &str| {
        let shield = Shield { budget, pipeline: Some(Pipeline::parse(pipeline).expect("valid")) };
        agents[i].protect(&charter().groups[0], &own(1, 30), &shield, &mut rng())
    };
    let of = |i: usize, sealed: &Sealed| match agents[i].contribute(NAME, 0, sealed).open().expect("our own").1 {
        Body::Contribute(c) => c,
        other => panic!("{other:?}"),
    };
    // An account each: together they would be beyond the budget of one.
    let kinds = ["laplace_l2(rate=12)", "privunit(epsilon=8)", "djw(epsilon=8)", "vmf(kappa=12)"];
    for (i, noise) in kinds.into_iter().enumerate() {
        let sealed = protect(i, &format!("normalize | {noise}")).expect("noise of a known size");
        let c = of(i, &sealed);
        let sigma = f64::from(c.mechanism.sigma_ppm) * 1e-6;
        assert!(sigma > 0.05, "{noise}: {sigma}");
        // The declared noise is what the rows are longer by; those of the last kind stay on the sphere.
        let squares = c.release.iter().flatten().map(|&v| (f64::from(v) / 4096.0).powi(2)).sum::<f64>();
        let (length, want) = (squares / c.release.len() as f64, if i == 3 { 1.0 } else { 1.0 + 16.0 * sigma * sigma });
        // Lengths of the first kind spread by .5 of their noise: over 30 rows .09 of all.
        assert!((length / want - 1.0).abs() < 0.35, "{noise}: {length} against {want}");
        if let Err(refused) = one(&mut edge, agents[i].contribute(NAME, 0, &sealed)) {
            panic!("{noise}: {refused}");
        }
    }
    let plain = protect(4, "normalize").expect("no noise at all");
    assert_eq!(of(4, &plain).mechanism.sigma_ppm, 0);
    one(&mut edge, agents[4].contribute(NAME, 0, &plain)).expect("rounding makes no row too long");
    let mixed = "normalize | vmf(kappa=100) | gaussian(sigma=0.1)";
    let why = protect(4, mixed).expect_err("no closed form").to_string();
    assert!(why.contains("no known standard deviation"), "{why}");
    // One that declares it all the same is refused by the edge.
    let mut c = of(0, &plain);
    mixed.clone_into(&mut c.mechanism.pipeline);
    let signing = ed25519_dalek::SigningKey::from_bytes(&[1; 32]);
    let refused = one(&mut edge, Envelope::seal(&Body::Contribute(c.clone()), &signing)).expect_err("unknown noise");
    assert!(refused.status == 422 && refused.why.contains("no known standard deviation"), "{refused}");
    c.mechanism.pipeline = "identity | ".repeat(200) + "identity";
    let refused = one(&mut edge, Envelope::seal(&Body::Contribute(c), &signing)).expect_err("too long");
    assert!(refused.why.contains("longer than 1000 bytes"), "{refused}");
}

#[test]
fn registering_again_leaves_no_trace_in_the_journal() {
    let (disk, mut edge, agents) = opened(1);
    let size = disk.lock().expect("one thread").bytes.len();
    for _ in 0..3 {
        let answer = one(&mut edge, agents[0].register(NAME)).expect("known");
        assert_eq!((answer.receipt, answer.token), (None, None));
    }
    assert_eq!(disk.lock().expect("one thread").bytes.len(), size);
    one(&mut edge, Agent::new(&[9; 32]).register(NAME)).expect("new");
    assert!(disk.lock().expect("one thread").bytes.len() > size);
    let hash = edge.state_hash();
    drop(edge);
    assert_eq!(open(&disk).expect("readable").state_hash(), hash);
}

#[test]
fn a_budget_runs_out() {
    let (_, mut edge, agents) = opened(1);
    let agent = &agents[0];
    // 30 epsilon in all, 4 each time.
    let answers: Vec<bool> =
        (0..9).map(|i| one(&mut edge, agent.contribute(NAME, 0, &sealed(1, 0, 20 + i))).is_ok()).collect();
    assert_eq!(answers.iter().filter(|ok| **ok).count(), 7);
    assert!(one(&mut edge, agent.contribute(NAME, 0, &sealed(1, 1, 20))).is_ok(), "another group has its own");
}

/// A fixed script of messages and closes; each step is retried until it is answered, over crashes. Returns
/// the number of crashes and of writes.
fn script(disk: &Shared, fail_at: usize, eighths: usize) -> (usize, usize) {
    let agents: Vec<Agent> = (1..=2).map(|i| Agent::new(&[i; 32])).collect();
    let mut edge = failing(disk, fail_at, eighths).ok();
    let (mut crashes, mut tokens) = (0, Vec::new());
    let mut step = |work: &mut dyn FnMut(&mut Edge) -> Result<(), Error>| {
        for _ in 0..3 {
            if edge.as_mut().is_some_and(|e| work(e).is_ok()) {
                return;
            }
            crashes += 1;
            drop(edge.take());
            disk.lock().expect("one thread").writes = 0;
            edge = Some(open(disk).expect("what a crash leaves can be opened"));
        }
        panic!("a healthy disk answers");
    };
    let send = |edge: &mut Edge, envelope: Envelope| -> Result<Result<Answer, Refused>, Error> {
        let rng = &mut rng_for(edge);
        Ok(edge.submit(vec![envelope], 1000, rng)?.remove(0))
    };
    for (i, agent) in agents.iter().enumerate() {
        step(&mut |e| send(e, agent.register(NAME)).map(|_| ()));
        let sealed = sealed(i as u8 + 1, 0, 60 + 40 * i);
        step(&mut |e| send(e, agent.contribute(NAME, 0, &sealed)).map(|a| drop(a.expect("in order"))));
    }
    step(&mut |e| {
        // A close is retried only if it did not happen.
        if e.epoch() == 0 { e.close(2000, &mut rng()).map(|_| ()) } else { Ok(()) }
    });
    step(&mut |e| {
        tokens = issued(e, &agents[0]);
        Ok(())
    });
    let (_, token) = tokens.remove(0);
    step(&mut |e| {
        // Done, or done before the crash.
        match send(e, agents[0].redeem(NAME, &token))? {
            Ok(_) => Ok(()),
            Err(refused) if refused.why.contains("redeemed before") => Ok(()),
            Err(refused) => panic!("{refused}"),
        }
    });
    step(&mut |e| if e.epoch() == 1 { e.close(3000, &mut rng()).map(|_| ()) } else { Ok(()) });
    step(&mut |e| e.checkpoint().map(|_| ()));
    let edge = edge.expect("open");
    assert!(edge.is_sound());
    let hash = edge.state_hash();
    assert_eq!(edge.state.accounts(), 2);
    drop(edge);
    let writes = disk.lock().expect("one thread").writes;
    assert_eq!(open(disk).expect("readable").state_hash(), hash, "a replay leads to the same state");
    (crashes, writes)
}

#[test]
fn a_crash_at_any_write_loses_nothing_and_doubles_nothing() {
    let disk = Shared::default();
    let (crashes, writes) = script(&disk, usize::MAX, 0);
    assert_eq!(crashes, 0);
    assert!(writes > 12, "{writes}");
    for fail_at in 1..=writes {
        for eighths in [0, 3, 8] {
            let disk = Shared::default();
            let (crashes, _) = script(&disk, fail_at, eighths);
            assert!(crashes >= 1, "write {fail_at} failed");
            let audit = audit(&charter(), &key().public(), Box::new(Faulty { disk, fail_at: usize::MAX, eighths }));
            let audit = audit.expect("readable");
            assert_eq!(audit.faults, Vec::<String>::new(), "write {fail_at}, {eighths} eighths");
            assert_eq!((audit.values, audit.epochs, audit.conserved), (2, 2, true), "write {fail_at}");
        }
    }
}

#[test]
fn an_auditor_finds_one_altered_value_and_a_rolled_back_journal() {
    let disk = Shared::default();
    script(&disk, usize::MAX, 0);
    let public = key().public();
    let run = |disk: &Shared| {
        let storage = Faulty { disk: Arc::clone(disk), fail_at: usize::MAX, eighths: 0 };
        audit(&charter(), &public, Box::new(storage)).expect("readable")
    };
    let honest = run(&disk);
    assert_eq!((honest.faults.len(), honest.values, honest.receipts), (0, 2, 7));

    // A dishonest edge pays one contribution more, and signs that properly.
    let (_, found) = Journal::open(Box::new(Faulty { disk: Arc::clone(&disk), fail_at: usize::MAX, eighths: 0 }))
        .expect("a journal");
    let mut altered = 0;
    let records: Vec<Vec<u8>> = found
        .records
        .iter()
        .map(|(_, bytes)| {
            let mut entry: Entry = serde_json::from_slice(bytes).expect("an entry");
            for token in &mut entry.tokens {
                let mut receipt = open_token(&public, token).expect("our own");
                if receipt.kind == Kind::Issue && altered == 0 {
                    receipt.value += 1;
                    altered += 1;
                    *token = STANDARD.encode(key().seal(&receipt));
                }
            }
            serde_json::to_vec(&entry).expect("plain")
        })
        .collect();
    let forged = Shared::default();
    forged.lock().expect("one thread").files = disk.lock().expect("one thread").files.clone();
    let storage = Faulty { disk: Arc::clone(&forged), fail_at: usize::MAX, eighths: 0 };
    let (mut journal, _) = Journal::open(Box::new(storage)).expect("empty");
    journal.cut().expect("memory");
    journal.append(&records).expect("memory");
    let faults = run(&forged).faults;
    assert!(faults[0].contains("Issue of epoch 0") && faults[0].contains("says"), "{faults:?}");
    assert!(faults.iter().any(|f| f.contains("checkpoint")), "{faults:?}");
    assert!(open(&forged).expect_err("the edge itself will not go on").to_string().contains("value audit"));

    // Cutting receipts off that a checkpoint covers is a rollback.
    let keep = disk.lock().expect("one thread").bytes.len() - 40;
    disk.lock().expect("one thread").bytes.truncate(keep);
    assert!(open(&disk).expect_err("rolled back").to_string().contains("bring back the whole journal"));
    assert!(run(&disk).faults[0].contains("checkpoint"));
}

#[test]
fn no_byte_run_of_a_release_is_in_any_receipt() {
    let (_, mut edge, agents) = opened(1);
    let agent = &agents[0];
    let shield = Shield {
        budget: Budget::new(1.0).expect("in range"),
        pipeline: Some(Pipeline::parse("clip(l2=1) | gaussian(sigma=1)").expect("valid")),
    };
    let raw = own(1, 40);
    let rng = &mut rng();
    let sealed = agent.protect(&charter().groups[0], &raw, &shield, rng).expect("enough");
    one(&mut edge, agent.contribute(NAME, 0, &sealed)).expect("within the rules");
    close(&mut edge);
    let value = serde_json::to_value(&sealed).expect("plain");
    let release: Vec<Vec<i16>> = serde_json::from_value(value["release"].clone()).expect("numbers");
    assert_eq!(release.len(), 40);
    let tokens: Vec<u8> = issued(&mut edge, agent).into_iter().flat_map(|t| t.1).collect();
    for row in &release {
        let big: Vec<u8> = row.iter().flat_map(|v| v.to_be_bytes()).collect();
        let little: Vec<u8> = row.iter().flat_map(|v| v.to_le_bytes()).collect();
        for bytes in [big, little] {
            assert!(!bytes.windows(6).any(|run| tokens.windows(6).any(|w| w == run)));
        }
    }
    for row in raw.rows() {
        let bytes: Vec<u8> = row.iter().flat_map(|v| v.to_le_bytes()).collect();
        assert!(!bytes.windows(4).any(|run| tokens.windows(4).any(|w| w == run)));
    }
}

/// The next catalogue of a group: as it is now, from other public records.
fn next_catalogue(edge: &Edge, group: usize, cells: usize) -> Catalogue {
    let charter = Charter::from_json("charter", &edge.charter()).expect("our own");
    let now = &charter.groups[group];
    let mut plan = plan(cells);
    now.group.clone_into(&mut plan.group);
    let rng = &mut seed::stream(9, "test", "next catalogue");
    let mut next = Catalogue::fit(&plan, &clouds(200, 4, 16, 0.3, "next"), rng).expect("enough");
    next.version = now.version + 1;
    next
}

#[test]
fn a_catalogue_is_frozen_within_its_epoch_and_its_mass_goes_on_in_the_next() {
    let (disk, mut edge, agents) = opened(3);
    let operator = key();
    let announce = |epoch: u64, next: Catalogue, by: &ed25519_dalek::SigningKey| {
        Envelope::seal(&Body::Catalogue { edge: NAME.to_owned(), epoch, next: Box::new(next) }, by)
    };
    one(&mut edge, agents[0].contribute(NAME, 0, &sealed(1, 0, 80))).expect("in order");
    let (before, old) = (edge.state_hash(), edge.charter());

    // Only the edge, only the next version, only of the same encoder, once an epoch.
    let next = next_catalogue(&edge, 0, 6);
    let stranger = ed25519_dalek::SigningKey::from_bytes(&[1; 32]);
    assert_eq!(one(&mut edge, announce(0, next.clone(), &stranger)).expect_err("not the edge").status, 422);
    assert_eq!(one(&mut edge, announce(1, next.clone(), operator.operator())).expect_err("too early").status, 409);
    let (mut skipped, mut foreign) = (next.clone(), next.clone());
    skipped.version = 7;
    "another".clone_into(&mut foreign.encoder);
    assert!(one(&mut edge, announce(0, skipped, operator.operator())).expect_err("7").why.contains("must be 2"));
    assert_eq!(one(&mut edge, announce(0, foreign, operator.operator())).expect_err("foreign").status, 422);
    assert_eq!(edge.state_hash(), before);
    let announced = one(&mut edge, announce(0, next.clone(), operator.operator())).expect("the edge's own word");
    let announced = receipt(&edge, &announced);
    assert_eq!((announced.kind, announced.catalogue, announced.value), (Kind::Catalogue, next.hash(), 2));
    assert_eq!(one(&mut edge, announce(0, next.clone(), operator.operator())).expect_err("again").status, 409);

    // Within the epoch nothing has changed: the old cells are taken, and valued as such.
    assert_eq!(edge.charter(), old);
    one(&mut edge, agents[1].contribute(NAME, 0, &sealed(2, 0, 60))).expect("cells of the old catalogue");
    let record = close(&mut edge);
    assert_eq!((record.contributions, record.groups[0].prices.len()), (2, 4));
    for agent in &agents[..2] {
        assert_eq!(issued(&mut edge, agent)[0].0.catalogue, charter().groups[0].hash());
    }

    // From the next epoch on only the new one is taken; no unit of mass was lost on the way.
    let now = Charter::from_json("charter", &edge.charter()).expect("our own");
    assert_eq!((now.groups[0].hash(), &now.groups[1]), (next.hash(), &charter().groups[1]));
    let late = one(&mut edge, agents[2].contribute(NAME, 1, &sealed(3, 0, 60))).expect_err("old cells");
    assert!(late.status == 409 && late.why.contains("another catalogue"), "{late:?}");
    let given: i64 = record.groups[0].sums.arrived.iter().sum();
    assert_eq!(edge.state.groups[0].cells.len(), 6);
    assert_eq!(edge.state.groups[0].cells.iter().sum::<i64>(), given);
    let shield = Shield { budget: Budget::new(4.0).expect("in range"), pipeline: None };
    let fresh = agents[2].protect(&next, &own(3, 60), &shield, &mut rng()).expect("enough");
    one(&mut edge, agents[2].contribute(NAME, 1, &fresh)).expect("cells of the new catalogue");
    let record = close(&mut edge);
    assert_eq!(record.groups[0].prices.len(), 6);
    assert_eq!(issued(&mut edge, &agents[2])[0].0.catalogue, next.hash());

    // A replay, and an auditor who starts from the first charter, come to the same.
    edge.checkpoint().expect("kept");
    let (hash, json) = (edge.state_hash(), edge.charter());
    drop(edge);
    let again = open(&disk).expect("readable");
    assert_eq!((again.state_hash(), again.charter()), (hash, json));
    let storage = Faulty { disk: Arc::clone(&disk), fail_at: usize::MAX, eighths: 0 };
    let audit = audit(&charter(), &key().public(), Box::new(storage)).expect("readable");
    assert_eq!((audit.faults, audit.values), (Vec::new(), 3));
}

/// Forty accounts give to two groups, one visit each. Who holds receipts of both groups tries to tell which belong together: by
/// anything they share, by time, by place in the log. The standard error of a rank correlation of 40 pairs is .16.
#[test]
fn issue_receipts_of_two_groups_do_not_tell_whose_they_are() {
    const ACCOUNTS: u8 = 40;
    let mut edge = open(&Shared::default()).expect("an empty disk");
    let mut visits = Vec::new();
    for i in 1..=ACCOUNTS {
        let agent = Agent::new(&[i; 32]);
        one(&mut edge, agent.register(NAME)).expect("new");
        let both = [0, 1].map(|g| {
            let answer = one(&mut edge, agent.contribute(NAME, 0, &sealed(i, g, 60))).expect("in order");
            receipt(&edge, &answer)
        });
        visits.push((agent, both));
    }
    close(&mut edge);
    let mut found = Vec::new();
    for (agent, contributed) in &visits {
        let receipts = issued(&mut edge, agent);
        let of = |g: usize| {
            let group = &charter().groups[g].group;
            receipts.iter().map(|(r, _)| r).find(|r| r.group == *group).expect("one for each group").clone()
        };
        found.push((of(0), of(1), contributed));
    }
    for (a, b, _) in &found {
        // What two receipts of an account have in common, those of all accounts have.
        let shared = |a: &Receipt, b: &Receipt| {
            let common = [
                a.subject == b.subject,
                a.id == b.id,
                a.mechanism == b.mechanism,
                a.commitment == b.commitment,
                a.previous == b.previous,
                a.nonce == b.nonce,
                a.issued_s == b.issued_s,
                a.expires_s == b.expires_s,
                a.budget_milli == b.budget_milli,
            ];
            common.map(u8::from)
        };
        assert!(found.iter().all(|(_, other, _)| shared(a, b) == shared(a, other)));
    }
    let ranks = |places: Vec<u64>| -> Vec<f64> {
        places.iter().map(|p| places.iter().filter(|q| *q < p).count() as f64).collect()
    };
    let correlation = |a: Vec<u64>, b: Vec<u64>| -> f64 {
        let (a, b, n) = (ranks(a), ranks(b), f64::from(ACCOUNTS));
        let off: f64 = a.iter().zip(&b).map(|(x, y)| (x - y).powi(2)).sum();
        1.0 - 6.0 * off / (n * (n * n - 1.0))
    };
    let leaf = |edge: &Edge, r: &Receipt| edge.filed[&r.id].leaf;
    let issue = correlation(
        found.iter().map(|(a, _, _)| leaf(&edge, a)).collect(),
        found.iter().map(|(_, b, _)| leaf(&edge, b)).collect(),
    );
    assert!(issue.abs() < 4.0 * 0.16, "places in the log tell receipts of one visit: {issue}");
    // The receipts of the visits themselves stand in the log as they came: who shows two of them shows one account.
    let visit = correlation(
        found.iter().map(|(_, _, both)| leaf(&edge, &both[0])).collect(),
        found.iter().map(|(_, _, both)| leaf(&edge, &both[1])).collect(),
    );
    assert!(visit > 0.999, "{visit}");
}
