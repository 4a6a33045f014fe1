//! Throughput of the strong prior against the stock candle module: one run, one JSON line.
//!
//! `cargo bench --bench prior -- SENTENCES [SIBLINGS]` scores the lines of SENTENCES three ways on
//! `RAYON_NUM_THREADS` threads: the stock quantised Llama piece by piece (the only way in which it yields every
//! likelihood), the stock module on whole texts (its last piece alone gets logits: a lower bound of what scoring would
//! take), and ours, all at once. Then ours again on SIBLINGS variants of each line that differ in their last third, as
//! a search makes them. Every figure is the best of three.

#![expect(clippy::print_stdout, reason = "the result is the output")]

use candle_core::quantized::gguf_file::Content;
use candle_core::{Device, Tensor};
use candle_transformers::models::quantized_llama::ModelWeights;
use std::time::Instant;
use stitchback::attack::text::prior::{Prior, SmolLm};
use stitchback::data::asset;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Seconds of the fastest of three runs.
fn best(mut run: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut seconds = f64::INFINITY;
    for _ in 0..3 {
        let start = Instant::now();
        run()?;
        seconds = seconds.min(start.elapsed().as_secs_f64());
    }
    Ok(seconds)
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let Some(sentences) = arguments.first() else {
        println!("usage: cargo bench --bench prior -- SENTENCES [SIBLINGS]");
        return Ok(());
    };
    let siblings: usize = arguments.get(1).map_or(Ok(16), |n| n.parse())?;
    let text = std::fs::read_to_string(sentences)?;
    let texts: Vec<&str> = text.lines().collect();

    let files = asset::ensure(SmolLm::NAME, &())?;
    let start = Instant::now();
    let prior = SmolLm::open(&files)?;
    let load_s = start.elapsed().as_secs_f64();
    let ids = texts.iter().map(|text| prior.pieces(text)).collect::<std::result::Result<Vec<_>, _>>()?;
    let pieces: usize = ids.iter().map(Vec::len).sum();

    let path = files.path(files.digests.keys().next().ok_or("a file")?);
    let mut file = std::fs::File::open(path)?;
    let mut stock = ModelWeights::from_gguf(Content::read(&mut file)?, &mut file, &Device::Cpu)?;
    // The stock module is slow: a tenth of the texts is enough.
    let few = &ids[..ids.len().div_ceil(10)];
    let few_pieces: usize = few.iter().map(Vec::len).sum();
    let piecewise = best(|| {
        for text in few {
            let mut before = 0;
            for (at, &id) in text.iter().enumerate() {
                stock.forward(&Tensor::new(&[[before]], &Device::Cpu)?, at)?;
                before = id;
            }
        }
        Ok(())
    })?;
    let whole = best(|| {
        for text in few {
            stock.forward(&Tensor::new(&text[..], &Device::Cpu)?.unsqueeze(0)?, 0)?;
        }
        Ok(())
    })?;
    let together = best(|| Ok(prior.log_probs(&texts).map(drop)?))?;
    let alone = best(|| Ok(texts[..few.len()].iter().try_for_each(|text| prior.log_probs(&[text]).map(drop))?))?;

    let mut variants = Vec::new();
    for (i, line) in texts.iter().enumerate() {
        let words: Vec<&str> = line.split(' ').collect();
        let others: Vec<&str> = texts[(i + 1) % texts.len()].split(' ').collect();
        for j in 0..siblings {
            let mut words = words.clone();
            let at = words.len() - 1 - j % words.len().div_ceil(3);
            words[at] = others[j % others.len()];
            variants.push(words.join(" "));
        }
    }
    let variants: Vec<&str> = variants.iter().map(String::as_str).take(4 * texts.len()).collect();
    let varied_pieces: usize = variants.iter().map(|text| Ok(prior.pieces(text)?.len())).sum::<Result<_>>()?;
    let varied = best(|| Ok(prior.log_probs(&variants).map(drop)?))?;

    println!(
        "{}",
        serde_json::json!({
            "texts": texts.len(),
            "pieces": pieces,
            "threads": rayon::current_num_threads(),
            "load_s": load_s,
            "stock_piece_by_piece_pieces_per_s": few_pieces as f64 / piecewise,
            "stock_whole_texts_last_logits_only_pieces_per_s": few_pieces as f64 / whole,
            "ours_pieces_per_s": pieces as f64 / together,
            "ours_one_text_a_call_pieces_per_s": few_pieces as f64 / alone,
            "ours_variants_pieces_per_s": varied_pieces as f64 / varied,
            "ours_variants_texts_per_s": variants.len() as f64 / varied,
        })
    );
    Ok(())
}
