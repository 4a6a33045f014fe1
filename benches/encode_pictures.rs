//! Throughput of a picture encoder: one run, one JSON line.
//!
//! `cargo bench --bench encode_pictures -- FOLDER [PICTURES [OUT]]` encodes PICTURES (64) made-up pictures of the encoder's own
//! size with the encoder in FOLDER and prints pictures a second: encoded, and sent back to their pixels by a gradient, on
//! `RAYON_NUM_THREADS` threads. OUT takes the vectors, little-endian f32. `benches/encode_pictures.sh` sets it against
//! ONNX Runtime.

#![expect(clippy::print_stdout, reason = "the result is the output")]

use std::io::Write;
use std::path::Path;
use std::time::Instant;
use stitchback::data::Picture;
use stitchback::encode::{Embeddings, load};

/// Picture `n`: multiplicative hashing, the same in the peer's script.
fn made_up(n: u32, side: u32) -> Picture {
    let byte = |i: u32| (i.wrapping_mul(2_654_435_761) >> (7 + n % 16)) as u8;
    Picture::new(side, side, (0..side * side * 3).map(byte).collect::<Vec<_>>())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let [folder, rest @ ..] = &arguments[..] else {
        println!("usage: cargo bench --bench encode_pictures -- FOLDER [PICTURES [OUT]]");
        return Ok(());
    };
    let count = rest.first().map_or(Ok(64), |n| n.parse())?;
    let encoder = load("bench", Path::new(folder), None)?;
    let config: serde_json::Value = serde_json::from_slice(&std::fs::read(Path::new(folder).join("config.json"))?)?;
    let side = config["image_size"].as_u64().ok_or("config.json has no image_size")? as u32;
    let pictures: Vec<Picture> = (0..count).map(|n| made_up(n, side)).collect();
    let pictures: Vec<&Picture> = pictures.iter().collect();
    encoder.encode_pictures(&pictures[..pictures.len().min(8)])?;

    let start = Instant::now();
    let rows = encoder.encode_pictures(&pictures)?;
    let encoded = pictures.len() as f64 / start.elapsed().as_secs_f64();

    let few = &pictures[..pictures.len().min(16)];
    let pixels: Vec<f32> = few.iter().flat_map(|picture| picture.unit()).collect();
    let white_box = encoder.white_box().ok_or("it shows no gradients")?;
    let descend = || white_box.gradient(&pixels, side as usize, &mut |v: &Embeddings| vec![1.0; v.values().len()]);
    descend()?;
    let start = Instant::now();
    descend()?;
    let gradients = few.len() as f64 / start.elapsed().as_secs_f64();

    println!(
        "{}",
        serde_json::json!({
            "pictures": pictures.len(),
            "side": side,
            "threads": rayon::current_num_threads(),
            "pictures_per_s": encoded,
            "gradients_per_s": gradients,
        })
    );
    if let [_, out, ..] = rest {
        let mut file = std::io::BufWriter::new(std::fs::File::create(out)?);
        for value in rows.values() {
            file.write_all(&value.to_le_bytes())?;
        }
        file.flush()?;
    }
    Ok(())
}
