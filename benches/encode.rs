//! Throughput of a text encoder: one run, one JSON line.
//!
//! `cargo bench --bench encode -- FOLDER SENTENCES [OUT]` encodes the lines of SENTENCES with the encoder in FOLDER and
//! prints texts a second: all at once on `RAYON_NUM_THREADS` threads, and, on one thread, in calls of 48 texts as a
//! search attack makes them. OUT takes the vectors, little-endian f32. `benches/encode.sh` sets it against ONNX Runtime.

#![expect(clippy::print_stdout, reason = "the result is the output")]

use std::io::Write;
use std::path::Path;
use std::time::Instant;
use stitchback::encode::load;

/// Texts in a call of a search attack.
const CALL: usize = 48;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let [folder, sentences, out @ ..] = &arguments[..] else {
        println!("usage: cargo bench --bench encode -- FOLDER SENTENCES [OUT]");
        return Ok(());
    };
    let text = std::fs::read_to_string(sentences)?;
    let texts: Vec<&str> = text.lines().collect();
    let encoder = load("bench", Path::new(folder), None)?;
    encoder.encode(&texts[..texts.len().min(200)])?;

    let start = Instant::now();
    let rows = encoder.encode(&texts)?;
    let together = texts.len() as f64 / start.elapsed().as_secs_f64();

    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build()?;
    let start = Instant::now();
    one.install(|| texts.chunks(CALL).try_for_each(|call| encoder.encode(call).map(drop)))?;
    let calls = texts.len() as f64 / start.elapsed().as_secs_f64();

    println!(
        "{}",
        serde_json::json!({
            "texts": texts.len(),
            "threads": rayon::current_num_threads(),
            "texts_per_s": together,
            "texts_per_s_in_calls_of_48_on_one_thread": calls,
        })
    );
    if let [out, ..] = out {
        let mut file = std::io::BufWriter::new(std::fs::File::create(out)?);
        for value in rows.values() {
            file.write_all(&value.to_le_bytes())?;
        }
        file.flush()?;
    }
    Ok(())
}
