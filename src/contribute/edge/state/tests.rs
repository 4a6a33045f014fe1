use super::*;
use crate::contribute::edge::tests::charter;
use crate::contribute::receipt::EdgeKey;
use crate::contribute::value::{Coverage, EngineConfig};

type Change = Box<dyn Fn(&mut State)>;

fn state_of(charter: Charter) -> State {
    State::new(charter, EdgeKey::new("edge.test", &[7; 32]).expect("a plain name").public())
}

fn contribution(items: u32, epsilon_milli: u32, cells: Vec<i64>) -> Contribution {
    Contribution {
        edge: String::new(),
        group: String::new(),
        catalogue: String::new(),
        epoch: 0,
        nonce: String::new(),
        items,
        mechanism: Mechanism::of(Budget { epsilon_milli }, None, 16).expect("no noise on vectors"),
        cells,
        release: Vec::new(),
        commitment: String::new(),
    }
}

#[test]
fn groups_are_weighed_with_the_engine_of_the_charter() {
    let worth = |value: EngineConfig| {
        let mut charter = charter();
        charter.policy.value = value;
        let mut state = state_of(charter);
        state.groups[0].cells = vec![400 * UNITS; 4];
        state.groups[1].cells = vec![4 * UNITS; 4];
        state.worth()
    };
    let steep = worth(EngineConfig::Coverage(Coverage { n0_items: 1, ..Coverage::default() }));
    // ln 401 and ln 5 for each cell, whose weights are 1.
    for (got, items) in steep.iter().zip([400.0_f64, 4.0]) {
        let want = 4.0 * items.ln_1p() * 1_048_576.0;
        assert!((*got as f64 - want).abs() <= 1.0, "{got} against {want}");
    }
    let usual = worth(EngineConfig::default());
    assert!(steep[0] * usual[1] < steep[1] * usual[0], "{steep:?} {usual:?}");
    assert_eq!(worth(EngineConfig::examples().pop().expect("the product")), usual);
}

#[test]
fn mass_needs_items_or_noise_behind_it_over_the_whole_epoch() {
    let check = |given: Given| given.check(1000).map_err(|refused| refused.why);
    let items = |n: i64| vec![n * UNITS, 0, 0, 0, -n * UNITS];
    // Four priced cells at epsilon 1: sd sqrt(4 8) = 5.7 items, six of them 33.9.
    let one = Given::default().and(&contribution(1, 1000, items(34)));
    assert_eq!((one.items, one.mass, one.variance), (1, 34 * i128::from(UNITS), 4 * 8 * (UNITS as u128).pow(2)));
    assert_eq!(check(one), Ok(()));
    assert!(check(Given::default().and(&contribution(1, 1000, items(36)))).expect_err("made up").contains("hold more"));
    assert!(check(Given::default().and(&contribution(1, 1000, items(-36)))).expect_err("made up").contains("or less"));
    // Noise adds up slower than what it would excuse: the second such contribution is one too many.
    assert!(check(one.and(&contribution(1, 1000, items(34)))).expect_err("twice").contains("hold more"));
    // Honest ones go on.
    let honest = (0..20).fold(Given::default(), |sum, _| sum.and(&contribution(50, 1000, items(52))));
    assert_eq!(check(honest), Ok(()));
    // A tiny epsilon would excuse 6 sqrt(4 2) 2 / .01 = 3394 items of a thousand.
    let flood = Given::default().and(&contribution(1, 10, items(1)));
    assert!(check(flood).expect_err("a flood").contains("larger than 1000 items; use a larger epsilon"));
    let many = (0..900).fold(Given::default(), |sum, _| sum.and(&contribution(1, 1000, items(0))));
    assert!(check(many).expect_err("too many").contains("or fewer contributions"));
}

#[test]
fn whatever_decides_about_a_later_message_is_in_the_hash() {
    let plain = state_of(charter()).hash();
    let hold = |about| Hold { key: Key { epoch: 0, id: 1 }, about };
    let given = |items, mass| Given { items, mass, variance: 0 };
    let changes: Vec<(&str, Change)> = vec![
        ("an account", Box::new(|s| s.keys.push([1; 32]))),
        ("a nonce", Box::new(|s| s.used.extend([((0, 0, [1; 16]), ([2; 32], [3; 16]))]))),
        ("its digest", Box::new(|s| s.used.extend([((0, 0, [1; 16]), ([9; 32], [3; 16]))]))),
        ("a content", Box::new(|s| s.contents.extend([([1; 32], [2; 16])]))),
        ("its receipt", Box::new(|s| s.contents.extend([([1; 32], [3; 16])]))),
        ("a redeemed mark", Box::new(|s| s.redeemed.extend([[1; 32]]))),
        ("a budget", Box::new(|s| s.groups[0].spent_milli.extend([(0, 1000)]))),
        ("another group's budget", Box::new(|s| s.groups[1].spent_milli.extend([(0, 1000)]))),
        ("what was given", Box::new(move |s| s.groups[0].given.extend([(0, given(1, 0))]))),
        ("its mass", Box::new(move |s| s.groups[0].given.extend([(0, given(1, 1))]))),
        ("a kept vector", Box::new(|s| s.groups[0].kept.push(Protected::new(&[0.5; 16], 0.1)))),
        ("a hold", Box::new(move |s| s.holds.extend([([1; 16], hold(None))]))),
        ("its topic", Box::new(move |s| s.holds.extend([([1; 16], hold(Some((0, [3; 32], 1))))]))),
    ];
    let mut hashes = vec![plain];
    for (what, change) in changes {
        let mut state = state_of(charter());
        change(&mut state);
        assert!(!hashes.contains(&state.hash()), "{what}");
        hashes.push(state.hash());
    }
    // The order in which sets were filled is of no matter.
    let filled = |order: [u8; 2]| {
        let mut state = state_of(charter());
        for i in order {
            state.redeemed.insert([i; 32]);
            state.contents.insert([i; 32], [i; 16]);
        }
        state.hash()
    };
    assert_eq!(filled([1, 2]), filled([2, 1]));
}
