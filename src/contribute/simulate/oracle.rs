//! Closed forms of queues.

/// Probability that a job must wait with `k` slots at load `rho` a slot (Erlang C).
pub fn erlang_c(k: u32, rho: f64) -> f64 {
    let a = f64::from(k) * rho;
    // Erlang B by its recursion, then C: no factorial overflows.
    let b = (1..=k).fold(1.0, |b, j| a * b / (f64::from(j) + a * b));
    b / (1.0 - rho * (1.0 - b))
}

/// Mean wait in M/M/k, in mean service times.
pub fn mmk_wait(k: u32, rho: f64) -> f64 {
    erlang_c(k, rho) / (f64::from(k) * (1.0 - rho))
}

/// Mean wait in M/G/1 with squared coefficient of variation `cv2` (Pollaczek and Khinchine).
pub fn mg1_wait(rho: f64, cv2: f64) -> f64 {
    rho * (1.0 + cv2) / (2.0 * (1.0 - rho))
}

/// Mean waits of two classes under non-preemptive priority in M/M/k (Cobham): first the share that goes first.
pub fn priority_waits(k: u32, rho: f64, first_share: f64) -> (f64, f64) {
    let base = erlang_c(k, rho) / f64::from(k);
    let first = 1.0 - rho * first_share;
    (base / first, base / (first * (1.0 - rho)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-6
    }

    #[test]
    fn golden_waits() {
        assert!(near(mmk_wait(1, 0.8), 4.0));
        assert!(near(erlang_c(4, 0.8), 0.596_432) && near(mmk_wait(4, 0.8), 0.745_541));
        assert!(near(erlang_c(4, 0.95), 0.891_419) && near(mmk_wait(4, 0.95), 4.457_095));
        assert!(near(erlang_c(8, 0.9), 0.701_533) && near(mmk_wait(8, 0.9), 0.876_916));
        assert!(near(mg1_wait(0.8, 0.0), 2.0) && near(mg1_wait(0.8, 4.0), 10.0));
        let golden = [(0.1, 0.246_248, 4.924_967), (0.3, 0.311_685, 6.233_699), (0.5, 0.424_485, 8.489_705)];
        for (share, payers, others) in golden {
            let (first, second) = priority_waits(4, 0.95, share);
            assert!(near(first, payers) && near(second, others), "{first} {second}");
            assert!(near(second / first, 20.0));
            assert!(near(share * first + (1.0 - share) * second, 4.457_095));
        }
    }
}
