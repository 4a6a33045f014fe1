//! Language priors on real weights and real sentences: published goldens, the stock candle module, one contract.

use candle_core::quantized::gguf_file::Content;
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::llama::{Cache, Config, Llama};
use candle_transformers::models::quantized_llama::ModelWeights;
use rayon::prelude::*;
use std::collections::HashMap;
use std::sync::LazyLock;
use stitchback::attack::text::prior::{MAX_BYTES, Prior, SmolLm, Trigram};
use stitchback::data::asset;

const PILLS: &str = "My doctor told me to take two pills a day and to come back next week.";
const MIXED: &str = "Week next back come to and day a pills two take to me told doctor my.";
const TENNIS: &str = "The tennis ball rolled under the parked car.";

static SMOL: LazyLock<SmolLm> =
    LazyLock::new(|| SmolLm::fetch(&()).unwrap_or_else(|e| panic!("the model can be fetched: {e}")));

/// Counts of a few sentences, some of them about the contract's.
static TRIGRAM: LazyLock<Trigram> = LazyLock::new(|| {
    Trigram::fit([
        "My doctor told me to come back next week.",
        "She told me to take two tablets.",
        "He takes a walk two times a day and comes back late.",
        "The ball rolled under the car.",
        "A parked car stood in the street next to the court.",
        "Next week, the tennis club will open.",
    ])
});

fn priors() -> [&'static dyn Prior; 2] {
    [&*SMOL, &*TRIGRAM]
}

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
    let scores = SMOL.scores(&texts).expect("scores");
    let goldens = [(28.8, 28.702), (5158.6, 4988.84), (109.0, 114.480)];
    for ((text, score), (published, exact)) in texts.iter().zip(scores).zip(goldens) {
        let ids = SMOL.pieces(text).expect("pieces");
        let log_prob = piece_by_piece(&ids, |x, at| stock.forward(x, at));
        let theirs = (-log_prob / ids.len() as f64).exp();
        assert!((theirs / published - 1.0).abs() < 0.01, "stock: {theirs} against {published}");
        let ours = score.perplexity();
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
    for prior in priors() {
        for (text, mixed) in
            [(PILLS, MIXED), (TENNIS, "Car tennis parked the under ball the rolled."), ("Next week.", "week Next.")]
        {
            // The light prior reads words without case, so the shortest pair differs in order alone.
            let scores = prior.log_probs(&[text, mixed]).expect("scores");
            assert!(scores[0] > scores[1], "{}: {text} {scores:?}", prior.name());
        }
    }
}

#[test]
fn a_score_depends_on_its_text_alone() {
    let texts = texts();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    for prior in priors() {
        let together = prior.scores(&texts).expect("scores");
        let alone: Vec<_> = texts.par_iter().map(|text| prior.scores(&[text]).expect("scores")[0]).collect();
        assert_eq!(alone, together, "{}: one by one, from inside workers", prior.name());
        for threads in [1, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a thread pool");
            assert_eq!(pool.install(|| prior.scores(&texts)).expect("scores"), together, "{threads} threads");
        }
        for (text, score) in texts.iter().zip(&together) {
            assert!(score.log_prob.is_finite() && score.log_prob <= 0.0, "{}: {text:?} {score:?}", prior.name());
        }
    }
}

#[test]
fn an_empty_text_costs_the_end_or_nothing() {
    let [smol, trigram] = priors().map(|prior| prior.scores(&["", ""]).expect("scores"));
    assert_eq!((smol[0].log_prob, smol[0].units, smol[1]), (0.0, 0, smol[0]));
    assert!(trigram[0].log_prob < 0.0 && trigram[0].units == 1);
    for prior in priors() {
        assert!(prior.scores(&[]).expect("scores").is_empty());
    }
}

#[test]
fn long_texts_are_read_up_to_their_limits() {
    let long = PILLS.repeat(400);
    for prior in priors() {
        let cut = &long[..MAX_BYTES];
        let scores = prior.scores(&[&long, cut, &long[..200]]).expect("scores");
        assert_eq!(scores[0], scores[1], "{}", prior.name());
        assert!(scores[0].log_prob < scores[2].log_prob, "{}", prior.name());
    }
    assert_eq!(SMOL.pieces(&long).expect("pieces").len(), 256);
    assert_eq!(SMOL.scores(&[&long]).expect("scores")[0].units, 256);
    for prior in priors() {
        assert_eq!(prior.continuations(&long, 3).expect("continues").len(), 3);
    }
}

#[test]
fn continuations_are_sorted_words_that_make_likelier_texts() {
    for prior in priors() {
        for prefix in ["", "My doctor told me to", "She paid £", "The tennis ball rolled under the"] {
            let words = prior.continuations(prefix, 12).expect("continues");
            assert_eq!(words.len(), 12, "{} {prefix:?}", prior.name());
            assert!(words.windows(2).all(|pair| pair[0].log_prob >= pair[1].log_prob));
            let total: f64 = words.iter().map(|c| c.log_prob.exp()).sum();
            assert!(total <= 1.0 + 1e-6, "{}: {total}", prior.name());
            assert!(words.iter().all(|c| !c.word.is_empty() && !c.word.contains(char::is_whitespace)), "{words:?}");
            // The best is also the best of a shorter list.
            assert_eq!(prior.continuations(prefix, 3).expect("continues"), words[..3], "{} {prefix:?}", prior.name());
        }
        assert!(prior.continuations("My", 0).expect("continues").is_empty());
    }
    let next: Vec<String> =
        SMOL.continuations("The capital of France is", 3).expect("continues").into_iter().map(|c| c.word).collect();
    assert!(next.contains(&"Paris".into()), "{next:?}");
}

/// A word of one piece is as likely as the text with it, but for what may lengthen it.
#[test]
fn continuations_agree_with_scores() {
    let prefix = "She drove to the hospital in her old";
    let mut words = SMOL.continuations(prefix, 12).expect("continues");
    words.retain(|c| c.word.chars().all(char::is_alphabetic));
    assert!(words.len() > 5, "{words:?}");
    let texts: Vec<String> = words.iter().map(|c| format!("{prefix} {}", c.word)).collect();
    let base = SMOL.log_probs(&[prefix]).expect("scores")[0];
    let scores = SMOL.log_probs(&texts.iter().map(String::as_str).collect::<Vec<_>>()).expect("scores");
    for (continuation, score) in words.iter().zip(scores) {
        let lengthened = score - base - continuation.log_prob;
        assert!((-1e-4..0.7).contains(&lengthened), "{continuation:?}: {lengthened}");
    }
}

#[test]
fn priors_have_names_and_fingerprints_of_their_own() {
    let [smol, trigram] = priors();
    assert_eq!((smol.name(), trigram.name()), (SmolLm::NAME, "trigram"));
    assert!(smol.fingerprint().ends_with("b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"));
    assert!(trigram.fingerprint().starts_with("trigram "));
}
