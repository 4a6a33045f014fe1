//! Exact division of whole credits.

use super::Micro;

/// Divides `amount` in proportion to `weights`; the parts sum to it exactly, or to 0 where all weights are 0.
///
/// # Formula
/// Floors of `amount w_i / W`; what is left goes, one each, to the largest remainders, equals by `ties` and then by place.
///
/// # Panics
/// When `ties` has another length than `weights`.
pub fn largest_remainder(amount: Micro, weights: &[u64], ties: &[u64]) -> Vec<Micro> {
    assert_eq!(weights.len(), ties.len(), "a tie-break for each weight");
    let total: u128 = weights.iter().map(|&w| u128::from(w)).sum();
    if total == 0 {
        return vec![0; weights.len()];
    }
    // At most 2^64 shares of 2^64: the total is below 2^128 / amount for every ledger that fits into memory.
    let share = |w: u64| {
        let exact = u128::from(amount) * u128::from(w);
        ((exact / total) as u64, exact % total)
    };
    let mut out: Vec<Micro> = weights.iter().map(|&w| share(w).0).collect();
    let left = amount - out.iter().sum::<Micro>();
    let mut order: Vec<usize> = (0..weights.len()).filter(|&i| weights[i] > 0).collect();
    order.sort_by(|&a, &b| share(weights[b]).1.cmp(&share(weights[a]).1).then(ties[a].cmp(&ties[b])).then(a.cmp(&b)));
    for &i in order.iter().take(left as usize) {
        out[i] += 1;
    }
    out
}

/// Weighted max-min: pours `amount` into rooms at rates `weights` until it is used up or every room with a weight is full.
///
/// # Range
/// No part exceeds its room; nobody with room left has less for its weight than anybody else, up to one micro-credit.
///
/// # Panics
/// When the lists differ in length.
pub fn fill(amount: Micro, weights: &[u64], rooms: &[Micro], ties: &[u64]) -> Vec<Micro> {
    assert!(weights.len() == rooms.len() && weights.len() == ties.len(), "one entry for each claimant");
    let mut order: Vec<usize> = (0..weights.len()).filter(|&i| weights[i] > 0 && rooms[i] > 0).collect();
    let cross = |a: usize, b: usize| u128::from(rooms[a]) * u128::from(weights[b]);
    order.sort_by(|&a, &b| cross(a, b).cmp(&cross(b, a)).then(a.cmp(&b)));
    let mut out = vec![0; weights.len()];
    let (mut rest, mut first) = (amount, 0);
    let mut open: u128 = order.iter().map(|&i| u128::from(weights[i])).sum();
    while let Some(&i) = order.get(first) {
        // rest w_i / open >= room_i, without the division; saturating is enough, a room is below 2^64.
        if u128::from(rest).saturating_mul(u128::from(weights[i])) < u128::from(rooms[i]).saturating_mul(open) {
            break;
        }
        out[i] = rooms[i];
        rest -= rooms[i];
        open -= u128::from(weights[i]);
        first += 1;
    }
    let others = &order[first..];
    let pick = |list: &[u64]| others.iter().map(|&i| list[i]).collect::<Vec<u64>>();
    let parts = largest_remainder(rest, &pick(weights), &pick(ties));
    for (&i, part) in others.iter().zip(parts) {
        out[i] = part.min(rooms[i]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn golden_fillings() {
        let pour = |amount, rooms: [u64; 3]| fill(amount, &[1, 1, 2], &rooms, &[0; 3]);
        assert_eq!(pour(20, [2, 10, 20]), [2, 6, 12]);
        assert_eq!(pour(20, [5, 10, 20]), [5, 5, 10]);
        assert_eq!(pour(50, [2, 10, 20]), [2, 10, 20]);
        assert_eq!(fill(50, &[0, 0], &[9, 9], &[0; 2]), [0, 0]);
    }

    #[test]
    fn remainders_go_to_the_largest_and_nothing_is_lost() {
        assert_eq!(largest_remainder(10, &[1, 1, 1], &[2, 1, 3]), [3, 4, 3]);
        assert_eq!(largest_remainder(7, &[0, 0], &[0, 0]), [0, 0]);
        assert_eq!(largest_remainder(u64::MAX, &[u64::MAX, 1], &[0, 0]).iter().sum::<u64>(), u64::MAX);
    }

    fn weights() -> impl Strategy<Value = Vec<u64>> {
        prop::collection::vec(prop_oneof![Just(0_u64), 1_u64..1000, 1_u64..(1 << 57)], 1..12)
    }

    proptest! {
        #[test]
        fn parts_sum_to_the_whole_and_keep_the_order(amount in 0_u64..1_000_000_000, weights in weights()) {
            let parts = largest_remainder(amount, &weights, &vec![0; weights.len()]);
            let any = weights.iter().any(|&w| w > 0);
            prop_assert_eq!(parts.iter().sum::<u64>(), if any { amount } else { 0 });
            for (i, j) in (0..weights.len()).flat_map(|i| (0..weights.len()).map(move |j| (i, j))) {
                if weights[i] > weights[j] {
                    prop_assert!(parts[i] >= parts[j]);
                }
            }
        }

        #[test]
        fn a_larger_weight_never_gets_less(amount in 0_u64..1_000_000, weights in weights(), at in 0_usize..12, more in 1_u64..1000) {
            let ties = vec![0; weights.len()];
            let at = at % weights.len();
            let before = largest_remainder(amount, &weights, &ties)[at];
            let mut larger = weights.clone();
            larger[at] += more;
            prop_assert!(largest_remainder(amount, &larger, &ties)[at] >= before);
        }

        #[test]
        fn splitting_a_linear_share_gains_only_rounding(amount in 0_u64..1_000_000, weights in weights(), k in 2_u64..8) {
            let ties = |n: usize| vec![0; n];
            let whole = largest_remainder(amount, &weights, &ties(weights.len()))[0];
            let part = weights[0] / k;
            let mut split = vec![part; k as usize - 1];
            split.push(weights[0] - part * (k - 1));
            split.extend(&weights[1..]);
            let parts: u64 = largest_remainder(amount, &split, &ties(split.len()))[..k as usize].iter().sum();
            prop_assert!(parts < whole + k, "{parts} against {whole}");
        }

        #[test]
        fn filling_is_max_min_fair(
            amount in 0_u64..100_000, claims in prop::collection::vec((0_u64..50, 0_u64..5_000), 1..10),
        ) {
            let (weights, rooms): (Vec<u64>, Vec<u64>) = claims.into_iter().unzip();
            let parts = fill(amount, &weights, &rooms, &vec![0; weights.len()]);
            prop_assert!(parts.iter().zip(&rooms).all(|(p, r)| p <= r));
            let room: u64 = weights.iter().zip(&rooms).filter(|(w, _)| **w > 0).map(|(_, r)| r).sum();
            prop_assert_eq!(parts.iter().sum::<u64>(), amount.min(room));
            // Whoever has room left stands, for its weight, no lower than anybody else (up to one micro-credit each).
            for i in (0..weights.len()).filter(|&i| weights[i] > 0 && parts[i] < rooms[i]) {
                for j in (0..weights.len()).filter(|&j| weights[j] > 0) {
                    prop_assert!((parts[i] + 1) * weights[j] + weights[i] >= parts[j] * weights[i]);
                }
            }
        }
    }
}
