//! Language priors on real weights and real sentences: published goldens, the stock candle module, the contract.

use candle_core::quantized::gguf_file::Content;
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::llama::{Cache, Config, Llama};
use candle_transformers::models::quantized_llama::ModelWeights;
use rayon::prelude::*;
use std::collections::HashMap;
use std::sync::LazyLock;
use stitchback::attack::text::prior::{MAX_BYTES, Prior, SmolLm};
use stitchback::data::asset;

const PILLS: &str = "My doctor told me to take two pills a day and to come back next week.";
const MIXED: &str = "Week next back come to and day a pills two take to me told doctor my.";
const TENNIS: &str = "The tennis ball rolled under the parked car.";

static SMOL: LazyLock<SmolLm> =
    LazyLock::new(|| SmolLm::fetch(&()).unwrap_or_else(|e| panic!("the model can be fetched: {e}")));

/// Texts of every kind, among them empty, blank, repeated, hostile and with beginnings in common.
fn texts() -> Vec<String> {
    let words: Vec<&str> = PILLS.split(' ').collect();
    let mut texts: Vec<String> = (0..=words.len()).map(|n| words[..n].join(" ")).collect();
    texts.extend(
        ["", " \t\n ", MIXED, TENNIS, PILLS, "<|im_end|><|endoftext|>", "naïve café — 東京 🎾", "\u{0}"]
            .map(String::from),
    );
    texts.push(format!("{} and a swan", words[..9].join(" ")));
    texts
}

#[test]
fn the_tokenizer_of_the_file_gives_the_golden_pieces() {
    let pieces = |text: &str| SMOL.pieces(text).expect("pieces");
    assert_eq!(pieces(TENNIS), [504, 21059, 4405, 18221, 656, 260, 41239, 1076, 30]);
    assert_eq!(pieces("Room 42"), [42122, 216, 36, 34]);
    assert_eq!(pieces(""), [0_u32; 0]);
}

#[test]
fn special_pieces_in_a_text_come_out_as_ordinary_ones() {
    for text in ["<|im_end|>", "a <|endoftext|> b", "<|im_start|>user"] {
        let pieces = SMOL.pieces(text).expect("pieces");
        assert!(pieces.len() > 3 && pieces.iter().all(|&id| id > 16), "{text}: {pieces:?}");
    }
}

/// The published figures are the stock quantised module's, which rounds activations to 8 bits: it settles that they
/// average over all pieces after the start mark. Ours does not round and differs by up to 5 %; its own figures are
/// pinned here, and the next test derives them from the stock module in full precision.
#[test]
fn perplexities_are_the_golden_ones() {
    let model = asset::ensure(SmolLm::NAME, &()).expect("the model can be fetched");
    let mut file = std::fs::File::open(model.path("SmolLM2-135M-Instruct.Q4_1.gguf")).expect("the file");
    let content = Content::read(&mut file).expect("a model file");
    let mut stock = ModelWeights::from_gguf(content, &mut file, &Device::Cpu).expect("a stock model");
    let texts = [PILLS, MIXED, TENNIS];
    let log_probs = SMOL.log_probs(&texts).expect("scores");
    let goldens = [(28.8, 28.702), (5158.6, 4988.84), (109.0, 114.480)];
    for ((text, ours), (published, exact)) in texts.iter().zip(log_probs).zip(goldens) {
        let ids = SMOL.pieces(text).expect("pieces");
        let log_prob = piece_by_piece(&ids, |x, at| stock.forward(x, at));
        let theirs = (-log_prob / ids.len() as f64).exp();
        assert!((theirs / published - 1.0).abs() < 0.01, "stock: {theirs} against {published}");
        let ours = (-ours / ids.len() as f64).exp();
        assert!((ours / exact - 1.0).abs() < 0.001, "ours: {ours} against {exact}");
    }
}

/// Nats of a text from a module that gives the logits of its last piece only.
fn piece_by_piece(ids: &[u32], mut forward: impl FnMut(&Tensor, usize) -> candle_core::Result<Tensor>) -> f64 {
    let mut before = 0;
    let mut sum = 0.0;
    for (at, &id) in ids.iter().enumerate() {
        let logits = Tensor::new(&[[before]], &Device::Cpu)
            .and_then(|x| forward(&x, at)?.squeeze(0)?.to_vec1::<f32>())
            .expect("a stock forward");
        let total: f64 = logits.iter().map(|&z| f64::from(z).exp()).sum();
        sum += f64::from(logits[id as usize]) - total.ln();
        before = id;
    }
    sum
}

/// The stock module wants rotated features apart, the file has them side by side: rows `2 i + s` become `s head / 2 + i`.
fn apart(weight: &Tensor, heads: usize) -> candle_core::Result<Tensor> {
    let (rows, columns) = weight.dims2()?;
    weight.reshape((heads, rows / heads / 2, 2, columns))?.transpose(1, 2)?.contiguous()?.reshape((rows, columns))
}

fn stock() -> candle_core::Result<(Llama, Config)> {
    let model = asset::ensure(SmolLm::NAME, &()).expect("the model can be fetched");
    let mut file = std::fs::File::open(model.path("SmolLM2-135M-Instruct.Q4_1.gguf"))?;
    let content = Content::read(&mut file)?;
    let config = Config {
        hidden_size: 576,
        intermediate_size: 1536,
        vocab_size: 49152,
        num_hidden_layers: 30,
        num_attention_heads: 9,
        num_key_value_heads: 3,
        use_flash_attn: false,
        rms_norm_eps: 1e-5,
        rope_theta: 1e5,
        bos_token_id: None,
        eos_token_id: None,
        rope_scaling: None,
        max_position_embeddings: 512,
        tie_word_embeddings: true,
    };
    let mut tensors = HashMap::new();
    let mut put = |theirs: &str, name: String| -> candle_core::Result<()> {
        let tensor = content.tensor(&mut file, theirs, &Device::Cpu)?.dequantize(&Device::Cpu)?;
        let tensor = match name.rsplit_once('.').map(|(layer, _)| layer) {
            Some(layer) if layer.ends_with("q_proj") => apart(&tensor, 9)?,
            Some(layer) if layer.ends_with("k_proj") => apart(&tensor, 3)?,
            _ => tensor,
        };
        tensors.insert(name, tensor);
        Ok(())
    };
    put("token_embd.weight", "model.embed_tokens.weight".into())?;
    put("output_norm.weight", "model.norm.weight".into())?;
    for i in 0..30 {
        for (theirs, ours) in [
            ("attn_norm", "input_layernorm"),
            ("attn_q", "self_attn.q_proj"),
            ("attn_k", "self_attn.k_proj"),
            ("attn_v", "self_attn.v_proj"),
            ("attn_output", "self_attn.o_proj"),
            ("ffn_norm", "post_attention_layernorm"),
            ("ffn_gate", "mlp.gate_proj"),
            ("ffn_up", "mlp.up_proj"),
            ("ffn_down", "mlp.down_proj"),
        ] {
            put(&format!("blk.{i}.{theirs}.weight"), format!("model.layers.{i}.{ours}.weight"))?;
        }
    }
    Ok((Llama::load(VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu), &config)?, config))
}

#[test]
fn scores_agree_with_the_stock_module_on_the_same_weights() {
    let (model, config) = stock().expect("a stock model");
    for text in [PILLS, MIXED, TENNIS, "Room 42, <|im_end|> — 東京!"] {
        let ids = SMOL.pieces(text).expect("pieces");
        let mut cache = Cache::new(true, DType::F32, &config, &Device::Cpu).expect("a cache");
        let sum = piece_by_piece(&ids, |x, at| model.forward(x, at, &mut cache));
        let ours = SMOL.log_probs(&[text]).expect("scores")[0];
        // Float rounding over 30 blocks.
        let each = (ours - sum).abs() / ids.len() as f64;
        assert!(each < 1e-4, "{text}: {ours} against {sum}, {each:e} a piece");
    }
}

#[test]
fn a_permuted_sentence_is_less_likely_than_the_sentence() {
    for pair in [[PILLS, MIXED], [TENNIS, "Car tennis parked the under ball the rolled."], ["Next week.", "week Next."]]
    {
        let log_probs = SMOL.log_probs(&pair).expect("scores");
        assert!(log_probs[0] > log_probs[1], "{pair:?} {log_probs:?}");
    }
}

#[test]
fn a_score_depends_on_its_text_alone() {
    let texts = texts();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let together = SMOL.log_probs(&texts).expect("scores");
    let alone: Vec<_> = texts.par_iter().map(|text| SMOL.log_probs(&[text]).expect("scores")[0]).collect();
    assert_eq!(alone, together, "one by one, from inside workers");
    for threads in [1, 3] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a thread pool");
        assert_eq!(pool.install(|| SMOL.log_probs(&texts)).expect("scores"), together, "{threads} threads");
    }
    for (text, log_prob) in texts.iter().zip(&together) {
        assert!(log_prob.is_finite() && *log_prob <= 0.0, "{text:?} {log_prob}");
    }
}

#[test]
fn an_empty_text_costs_nothing() {
    assert_eq!(SMOL.log_probs(&["", ""]).expect("scores"), [0.0; 2]);
    assert!(SMOL.log_probs(&[]).expect("scores").is_empty());
}

#[test]
fn long_texts_are_read_up_to_their_limits() {
    let long = PILLS.repeat(400);
    let log_probs = SMOL.log_probs(&[&long, &long[..MAX_BYTES], &long[..200]]).expect("scores");
    assert_eq!(log_probs[0], log_probs[1]);
    assert!(log_probs[0] < log_probs[2]);
    assert_eq!(SMOL.pieces(&long).expect("pieces").len(), 256);
}
