//! The status page: what anybody may see, as HTML that needs no script.

use super::Edge;
use crate::contribute::catalogue::hex;
use crate::contribute::value::{TICKS, items};
use askama::Template;

#[derive(Template)]
#[template(path = "status.html")]
struct Page {
    name: String,
    epoch: u64,
    accounts: usize,
    waiting: usize,
    groups: Vec<Row>,
    shown: usize,
    epochs: Vec<super::EpochRecord>,
    baskets: [(&'static str, usize); 5],
    emitted: String,
    spent: String,
    reserve: String,
    burned: String,
    size: u64,
    root: String,
    key: String,
}

struct Row {
    name: String,
    members: String,
    contributions: String,
    paid: String,
    /// Share of the cells that hold at least one item, in percent; `None` where it is not shown.
    covered: Option<usize>,
}

/// Whole credits with three decimals.
fn credits(micro: u64) -> String {
    format!("{}.{:03}", micro / 1_000_000, micro % 1_000_000 / 1000)
}

/// Draws the page.
pub(super) fn page(edge: &Edge) -> String {
    let state = &edge.state;
    let shown = state.charter.policy.shown_members;
    let groups = state
        .groups
        .iter()
        .zip(&state.charter.groups)
        .map(|(g, c)| {
            let enough = g.members >= shown;
            let hidden = |text: String| if enough { text } else { format!("under {shown}") };
            Row {
                name: c.group.clone(),
                members: hidden(g.members.to_string()),
                contributions: hidden(g.contributions.to_string()),
                paid: hidden(format!("{:.4}", g.paid as f64 / TICKS)),
                covered: enough
                    .then(|| 100 * g.cells.iter().filter(|n| items(**n) >= 1.0).count() / g.cells.len().max(1)),
            }
        })
        .collect();
    let mut baskets = [("empty", 0), ("up to a third", 0), ("up to two thirds", 0), ("nearly full", 0), ("full", 0)];
    let ledger = &state.ledger;
    for basket in (0..ledger.len() as u32).filter_map(|a| ledger.basket(a)) {
        let (b, cap) = (u128::from(basket.balance), u128::from(basket.cap));
        let at = match () {
            () if b == 0 => 0,
            () if b >= cap => 4,
            () => 1 + (3 * b / cap) as usize,
        };
        baskets[at].1 += 1;
    }
    let size = edge.tree.len();
    let page = Page {
        name: edge.key.name().to_owned(),
        epoch: edge.epoch(),
        accounts: state.accounts(),
        waiting: state.waiting(),
        groups,
        shown,
        epochs: edge.epochs().rev().take(10).cloned().collect(),
        baskets,
        emitted: credits(ledger.emitted),
        spent: credits(ledger.spent),
        reserve: credits(ledger.reserve),
        burned: credits(ledger.burned),
        size,
        root: hex(&edge.tree.root(size)),
        key: edge.public().to_string(),
    };
    page.render().expect("a page of numbers can be drawn")
}
