//! Which topics are asked for: paid requests raise the weight of the cell that they name, from the next epoch on.

use crate::contribute::value::leaked;
use sha2::{Digest, Sha256};

/// The demand of one group. Weights are frozen within an epoch: what is paid in it counts when it has ended.
#[derive(Debug, Default)]
pub(super) struct Demand {
    /// Micro-credits paid for served requests of earlier epochs, by cell; they decay like the stock does.
    paid: Vec<u64>,
    /// Those of this epoch.
    fresh: Vec<u64>,
}

impl Demand {
    pub(super) fn new(cells: usize) -> Self {
        Self { paid: vec![0; cells], fresh: vec![0; cells] }
    }

    /// What the weights of this epoch are made from.
    pub(super) fn paid(&self) -> &[u64] {
        &self.paid
    }

    /// A request about `cell` was served for `cost` micro-credits.
    pub(super) fn count(&mut self, cell: usize, cost: u64) {
        if let Some(fresh) = self.fresh.get_mut(cell) {
            *fresh = fresh.saturating_add(cost);
        }
    }

    /// The end of an epoch: what was counted decays, what was paid begins to count.
    pub(super) fn turn(&mut self, leak: u64) {
        for (paid, fresh) in self.paid.iter_mut().zip(&mut self.fresh) {
            let left = leaked(i64::try_from(*paid).unwrap_or(i64::MAX), leak) as u64;
            *paid = left.saturating_add(std::mem::take(fresh));
        }
    }

    /// Takes the cells of the next catalogue; `carried` says where each went.
    pub(super) fn carry(&mut self, carried: &[usize], cells: usize) {
        let mut next = Self::new(cells);
        for (&to, (paid, fresh)) in carried.iter().zip(self.paid.iter().zip(&self.fresh)) {
            next.paid[to] = next.paid[to].saturating_add(*paid);
            next.fresh[to] = next.fresh[to].saturating_add(*fresh);
        }
        *self = next;
    }

    pub(super) fn feed(&self, hasher: &mut Sha256) {
        for n in self.paid.iter().chain(&self.fresh) {
            hasher.update(n.to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contribute::value::leak_q32;

    #[test]
    fn what_is_paid_counts_from_the_next_epoch_on_and_fades() {
        let mut demand = Demand::new(4);
        (0..3).for_each(|_| demand.count(2, 1_000_000));
        demand.count(99, 1_000_000);
        assert_eq!(demand.paid(), [0; 4], "frozen within the epoch");
        demand.turn(leak_q32(2.0));
        assert_eq!(demand.paid(), [0, 0, 3_000_000, 0]);
        demand.turn(leak_q32(2.0));
        demand.turn(leak_q32(2.0));
        let left = demand.paid()[2];
        assert!((1_499_998..=1_500_000).contains(&left), "half after its half-life: {left}");
    }

    #[test]
    fn a_new_catalogue_loses_no_demand() {
        let mut demand = Demand::new(3);
        (0..3).for_each(|cell| demand.count(cell, 10));
        demand.turn(leak_q32(30.0));
        demand.count(1, 5);
        demand.carry(&[1, 0, 1], 2);
        assert_eq!(demand.paid(), [10, 20]);
        demand.turn(1 << 32);
        assert_eq!(demand.paid(), [15, 20]);
    }
}
