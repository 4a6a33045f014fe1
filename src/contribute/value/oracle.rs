//! Exact answers for small games: what the engines are checked against, never what is paid.

/// Exact Shapley values of at most ten accounts whose masses add up.
///
/// # Formula
/// `s_i = sum over S without i of |S|! (n - |S| - 1)! / n! (W(S + i) - W(S))`.
///
/// # Panics
/// With more than ten accounts.
pub fn shapley(accounts: &[Vec<i64>], worth: impl Fn(&[i64]) -> f64) -> Vec<f64> {
    let n = accounts.len();
    assert!(n <= 10, "2^n coalitions: at most ten accounts");
    let width = accounts.first().map_or(0, Vec::len);
    let of: Vec<f64> = (0..1_usize << n)
        .map(|set| {
            let mut total = vec![0; width];
            for (_, mass) in accounts.iter().enumerate().filter(|(i, _)| set >> i & 1 == 1) {
                total.iter_mut().zip(mass).for_each(|(t, m)| *t += m);
            }
            worth(&total)
        })
        .collect();
    let factorial = |k: usize| (1..=k).map(|i| i as f64).product::<f64>();
    (0..n)
        .map(|i| {
            (0..1_usize << n)
                .filter(|set| set >> i & 1 == 0)
                .map(|set| {
                    let size = set.count_ones() as usize;
                    factorial(size) * factorial(n - size - 1) / factorial(n) * (of[set | 1 << i] - of[set])
                })
                .sum()
        })
        .collect()
}

/// Shapley values of items for a `k`-nearest-neighbour vote on one query.
///
/// # Formula
/// `matches` in order of distance: `s_N = y_N / N`, `s_j = s_(j+1) + (y_j - y_(j+1)) / k min(k, j) / j`.
///
/// # Source
/// Jia et al., 2019.
pub fn knn_shapley(matches: &[bool], k: usize) -> Vec<f64> {
    let n = matches.len();
    let y: Vec<f64> = matches.iter().map(|&m| f64::from(u8::from(m))).collect();
    let mut out = vec![0.0; n];
    for j in (1..=n).rev() {
        out[j - 1] = if j == n {
            y[n - 1] / n as f64
        } else {
            out[j] + (y[j - 1] - y[j]) / k as f64 * k.min(j) as f64 / j as f64
        };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knn_shapley_has_its_golden_value() {
        let got = knn_shapley(&[true, false, true], 1);
        for (got, want) in got.iter().zip([5.0 / 6.0, -1.0 / 6.0, 1.0 / 3.0]) {
            assert!((got - want).abs() < 1e-12, "{got} against {want}");
        }
    }

    #[test]
    fn shapley_of_an_additive_game_is_each_ones_own() {
        let got = shapley(&[vec![3], vec![-1], vec![0]], |n| n[0] as f64);
        assert!(got.iter().zip([3.0, -1.0, 0.0]).all(|(g, w)| (g - w).abs() < 1e-12), "{got:?}");
        assert!(shapley(&[], |_| 1.0).is_empty());
    }
}
