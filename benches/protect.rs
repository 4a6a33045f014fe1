//! Protecting 100 000 vectors of 384 coordinates, seconds a round: `cargo bench --bench protect -- [rounds]`.
//!
//! `benches/protect.sh` runs it beside `NumPy`'s own normal numbers, interleaved.

#![allow(clippy::print_stdout)]

use std::time::Instant;
use stitchback::encode::Embeddings;
use stitchback::protect::Pipeline;
use stitchback::seed;

const PIPELINE: &str = "clip(l2=1) | gaussian(epsilon=8, delta=1e-5)";

fn main() {
    let rounds: usize = std::env::args().find_map(|a| a.parse().ok()).unwrap_or(1);
    let (n, d) = (100_000, 384);
    let values = (0..n * d).map(|i| (i as f32 * 0.37).sin() * 0.05).collect();
    let clean = Embeddings::new(values, d).expect("sines are finite");
    let pipeline: Pipeline = PIPELINE.parse().expect("a valid pipeline");
    for round in 0..rounds {
        let mut rng = seed::stream(round as u64, "bench", "protect");
        let clock = Instant::now();
        let release = pipeline.release(&clean, None, &mut rng).expect("finite rows");
        println!("{:.4} {:.3}", clock.elapsed().as_secs_f64(), release.vectors.row(0)[0]);
    }
}
