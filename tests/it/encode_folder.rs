//! Hand-made folders with odd sizes: both layouts, every pooling mode, dense layers, prompts, and what is refused.

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::bert::{BertModel, Config};
use rand::RngExt;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::Write;
use stitchback::encode::{Encoder, Error, load};
use stitchback::seed;
use tempfile::TempDir;

type Activation = fn(f32) -> f32;

/// No multiple of a vector, a panel or a register tile.
const D: usize = 20;
const HEADS: usize = 4;
const INNER: usize = 37;
const LAYERS: usize = 2;
const POSITIONS: usize = 48;
const WORDS: [&str; 9] = ["[CLS]", "[SEP]", "[UNK]", "the", "ball", "rolled", "under", "a", "car"];
const TEXTS: [&str; 4] =
    ["the ball rolled under a car", "", "car", "the the ball a a a car under rolled the car rolled"];

const OLD: [&str; 2] = ["sentence_transformers.models.Transformer", "sentence_transformers.models.Pooling"];
const NEW: [&str; 2] = [
    "sentence_transformers.base.modules.transformer.Transformer",
    "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
];

/// A tiny encoder with random weights, for tests of where encoders come from.
pub(crate) fn tiny() -> TempDir {
    Folder::new().dir
}

struct Folder {
    dir: TempDir,
    weights: HashMap<String, Tensor>,
}

impl Folder {
    /// Random weights, the old layout, mean pooling.
    fn new() -> Self {
        let folder = Self { dir: tempfile::tempdir().expect("a temporary folder"), weights: weights() };
        let sizes = json!({
            "model_type": "bert", "hidden_size": D, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
            "intermediate_size": INNER, "hidden_act": "gelu", "hidden_dropout_prob": 0.0, "vocab_size": WORDS.len(),
            "max_position_embeddings": POSITIONS, "type_vocab_size": 2, "initializer_range": 0.02,
            "layer_norm_eps": 1e-12, "pad_token_id": 0,
        });
        folder.json("config.json", &sizes);
        folder.modules(&OLD, &[]);
        folder
            .json("1_Pooling/config.json", &json!({ "word_embedding_dimension": D, "pooling_mode_mean_tokens": true }));
        folder.json("sentence_bert_config.json", &json!({ "max_seq_length": 16, "do_lower_case": true }));
        let vocabulary: HashMap<&str, usize> = WORDS.iter().enumerate().map(|(i, w)| (*w, i)).collect();
        let special = |i: usize| json!({ "id": i, "content": WORDS[i], "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true });
        folder.json(
            "tokenizer.json",
            &json!({
                "version": "1.0",
                "truncation": { "max_length": 4, "strategy": "LongestFirst", "stride": 0, "direction": "Right" },
                "padding": { "strategy": { "Fixed": 9 }, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 2, "pad_type_id": 0, "pad_token": "[UNK]" },
                "added_tokens": [special(0), special(1), special(2)],
                "normalizer": null,
                "pre_tokenizer": { "type": "Whitespace" },
                "post_processor": {
                    "type": "TemplateProcessing",
                    "single": [{ "SpecialToken": { "id": "[CLS]", "type_id": 0 } }, { "Sequence": { "id": "A", "type_id": 0 } }, { "SpecialToken": { "id": "[SEP]", "type_id": 0 } }],
                    "pair": [],
                    "special_tokens": {
                        "[CLS]": { "id": "[CLS]", "ids": [0], "tokens": ["[CLS]"] },
                        "[SEP]": { "id": "[SEP]", "ids": [1], "tokens": ["[SEP]"] },
                    },
                },
                "decoder": null,
                "model": { "type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]" },
            }),
        );
        folder.save("model.safetensors", &folder.weights);
        folder
    }

    fn json(&self, path: &str, value: &Value) {
        self.bytes(path, value.to_string().as_bytes());
    }

    fn bytes(&self, path: &str, bytes: &[u8]) {
        let path = self.dir.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("makes a folder");
        std::fs::File::create(path).and_then(|mut f| f.write_all(bytes)).expect("writes");
    }

    fn save(&self, path: &str, tensors: &HashMap<String, Tensor>) {
        let path = self.dir.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("makes a folder");
        candle_core::safetensors::save(tensors, path).expect("writes tensors");
    }

    fn modules(&self, first: &[&str; 2], rest: &[(&str, &str)]) {
        let all = [(first[0], ""), (first[1], "1_Pooling")].into_iter().chain(rest.iter().copied());
        let listed: Vec<_> = all
            .enumerate()
            .map(|(i, (kind, path))| json!({ "idx": i, "name": i.to_string(), "path": path, "type": kind }))
            .collect();
        self.json("modules.json", &Value::Array(listed));
    }

    fn open(&self, prompt: Option<&str>) -> Result<Box<dyn Encoder>, Error> {
        load("tiny", self.dir.path(), prompt)
    }

    fn refusal(&self) -> String {
        self.open(None).err().expect("the folder is refused").to_string()
    }

    /// Token states of the stock module for `[CLS] words [SEP]`, at most 16 tokens.
    fn states(&self, text: &str) -> Vec<Vec<f32>> {
        let config: Config =
            serde_json::from_slice(&std::fs::read(self.dir.path().join("config.json")).expect("reads"))
                .expect("parses");
        let model = BertModel::load(VarBuilder::from_tensors(self.weights.clone(), DType::F32, &Device::Cpu), &config)
            .expect("loads");
        let id = |word: &str| WORDS.iter().position(|w| *w == word).unwrap_or(2) as u32;
        let words = text.split_whitespace().map(id).take(14);
        let ids: Vec<u32> = std::iter::once(0).chain(words).chain([1]).collect();
        let ids = Tensor::new(&ids[..], &Device::Cpu).and_then(|t| t.unsqueeze(0)).expect("ids");
        let types = ids.zeros_like().expect("types");
        model.forward(&ids, &types, None).and_then(|s| s.squeeze(0)).and_then(|s| s.to_vec2()).expect("runs")
    }
}

fn weights() -> HashMap<String, Tensor> {
    let mut rng = seed::stream(7, "tiny folder", "weights");
    let mut all = HashMap::new();
    let mut add = |name: String, shape: &[usize], mean: f32| {
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| mean + rng.random_range(-0.5..0.5)).collect();
        all.insert(name, Tensor::from_vec(values, shape, &Device::Cpu).expect("a tensor"));
    };
    for (name, rows) in [("word", WORDS.len()), ("position", POSITIONS), ("token_type", 2)] {
        add(format!("embeddings.{name}_embeddings.weight"), &[rows, D], 0.0);
    }
    let mut norms = vec!["embeddings".to_owned()];
    for i in 0..LAYERS {
        let at = format!("encoder.layer.{i}");
        for (name, inputs, outputs) in [
            ("attention.self.query", D, D),
            ("attention.self.key", D, D),
            ("attention.self.value", D, D),
            ("attention.output.dense", D, D),
            ("intermediate.dense", D, INNER),
            ("output.dense", INNER, D),
        ] {
            add(format!("{at}.{name}.weight"), &[outputs, inputs], 0.0);
            add(format!("{at}.{name}.bias"), &[outputs], 0.0);
        }
        norms.extend([format!("{at}.attention.output"), format!("{at}.output")]);
    }
    for at in norms {
        add(format!("{at}.LayerNorm.weight"), &[D], 1.0);
        add(format!("{at}.LayerNorm.bias"), &[D], 0.0);
    }
    all
}

fn assert_near(a: &[f32], b: &[f32], what: &str) {
    assert_eq!(a.len(), b.len(), "{what}");
    for (x, y) in a.iter().zip(b) {
        assert!((x - y).abs() <= 1e-5 * y.abs().max(1.0), "{what}: {a:?} against {b:?}");
    }
}

/// Pools rows `skip..` of `states`, written from the definition.
fn pooled(states: &[Vec<f32>], skip: usize, mode: &str) -> Vec<f32> {
    let kept = &states[skip..];
    let n = kept.len() as f32;
    let total = |weight: &dyn Fn(usize) -> f32| -> Vec<f32> {
        (0..D).map(|k| kept.iter().enumerate().map(|(i, s)| s[k] * weight(i + skip + 1)).sum()).collect()
    };
    let over = |v: Vec<f32>, by: f32| v.into_iter().map(|x| x / by).collect();
    match mode {
        "cls" => kept[0].clone(),
        "lasttoken" => kept[kept.len() - 1].clone(),
        "max" => (0..D).map(|k| kept.iter().map(|s| s[k]).fold(f32::MIN, f32::max)).collect(),
        "mean" => over(total(&|_| 1.0), n),
        "mean_sqrt_len_tokens" => over(total(&|_| 1.0), n.sqrt()),
        "weightedmean" => over(total(&|place| place as f32), (skip + 1..=states.len()).sum::<usize>() as f32),
        other => panic!("{other}"),
    }
}

const MODES: [&str; 6] = ["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"];

#[test]
fn every_pooling_mode_agrees_with_the_stock_module_in_both_layouts() {
    let folder = Folder::new();
    let expected: Vec<Vec<f32>> =
        TEXTS.iter().map(|t| MODES.iter().flat_map(|m| pooled(&folder.states(t), 0, m)).collect()).collect();
    let flags = ["cls_token", "max_tokens", "mean_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken"];
    let mut old = json!({ "word_embedding_dimension": D });
    for flag in flags {
        old[format!("pooling_mode_{flag}")] = json!(true);
    }
    let new = json!({ "embedding_dimension": D, "pooling_mode": MODES, "include_prompt": true });
    let both = json!({ "pooling_mode": MODES, "pooling_mode_cls_token": true });
    for (kinds, pooling) in [(&OLD, &old), (&NEW, &new), (&NEW, &both)] {
        folder.modules(kinds, &[]);
        folder.json("1_Pooling/config.json", pooling);
        let rows = folder.open(None).expect("supported").encode(&TEXTS).expect("encodes");
        for (i, expected) in expected.iter().enumerate() {
            assert_near(rows.row(i), expected, TEXTS[i]);
        }
    }
    // One name instead of a list, and no mode at all, which is the mean.
    for (config, mode) in [(json!({ "pooling_mode": "max" }), "max"), (json!({}), "mean")] {
        folder.json("1_Pooling/config.json", &config);
        let rows = folder.open(None).expect("supported").encode(&TEXTS).expect("encodes");
        assert_near(rows.row(0), &pooled(&folder.states(TEXTS[0]), 0, mode), mode);
    }
}

#[test]
fn the_limit_of_the_folder_counts_and_lower_case_is_applied() {
    let folder = Folder::new();
    let encoder = folder.open(None).expect("supported");
    assert_eq!((encoder.info().max_len_tokens, encoder.info().dim), (16, D));
    let long = "ball car ".repeat(20);
    let rows = encoder.encode(&["The BALL", "the ball", &long]).expect("encodes");
    assert_eq!(rows.row(0), rows.row(1));
    assert_near(rows.row(2), &pooled(&folder.states(&long), 0, "mean"), "16 tokens are read");

    folder.modules(&NEW, &[]);
    folder.json("sentence_bert_config.json", &json!({ "do_lower_case": true }));
    assert_eq!(folder.open(None).expect("supported").info().max_len_tokens, POSITIONS);
    folder.json("tokenizer_config.json", &json!({ "model_max_length": 1e30 }));
    assert_eq!(folder.open(None).expect("supported").info().max_len_tokens, POSITIONS);
    folder.json("tokenizer_config.json", &json!({ "model_max_length": 12 }));
    assert_eq!(folder.open(None).expect("supported").info().max_len_tokens, 12);
}

#[test]
fn a_prompt_is_part_of_the_text_and_can_be_left_out_of_the_pool() {
    let folder = Folder::new();
    folder.json(
        "config_sentence_transformers.json",
        &json!({ "prompts": { "q": "under the " }, "default_prompt_name": "q" }),
    );
    let whole = folder.states("under the ball rolled");
    for (include, skip) in [(true, 0), (false, 3)] {
        folder.json("1_Pooling/config.json", &json!({ "pooling_mode": MODES, "include_prompt": include }));
        let rows = folder.open(None).expect("supported").encode(&["ball rolled"]).expect("encodes");
        let expected: Vec<f32> = MODES.iter().flat_map(|m| pooled(&whole, skip, m)).collect();
        assert_near(rows.row(0), &expected, "default prompt");
    }
    folder.json("1_Pooling/config.json", &json!({}));
    let given = folder.open(Some("a ")).expect("supported").encode(&["car"]).expect("encodes");
    assert_near(given.row(0), &pooled(&folder.states("a car"), 0, "mean"), "given prompt");
    let none = folder.open(Some("")).expect("supported").encode(&["car"]).expect("encodes");
    assert_near(none.row(0), &pooled(&folder.states("car"), 0, "mean"), "no prompt");
}

#[test]
fn code_points_are_replaced_before_the_tokenizer() {
    let folder = Folder::new();
    folder.json("codepoints.json", &json!([[1, []], [9733, [99, 97, 114]]]));
    let encoder = folder.open(None).expect("supported");
    let rows = encoder.encode(&["the \u{1}★", "the car"]).expect("encodes");
    assert_eq!(rows.row(0), rows.row(1));
    folder.json("codepoints.json", &json!([[9733, []], [1, []]]));
    assert!(folder.refusal().contains("U+0001 is out of order"));
    folder.json("codepoints.json", &json!([[0xd800, []]]));
    assert!(folder.refusal().contains("U+D800 is not a character"));
}

#[test]
fn dense_layers_follow_their_activation_and_residual() {
    let folder = Folder::new();
    let mut rng = seed::stream(8, "tiny folder", "dense");
    let tensor = |values: Vec<f32>, shape: &[usize]| Tensor::from_vec(values, shape, &Device::Cpu).expect("a tensor");
    let mut draw = |n: usize| -> Vec<f32> { (0..n).map(|_| rng.random_range(-1.0..1.0)).collect() };
    let (weight, bias, residual) = (draw(7 * D), draw(7), draw(7 * D));
    let kinds =
        [("sentence_transformers.models.Dense", "2_Dense"), ("sentence_transformers.models.Normalize", "3_Normalize")];
    folder.modules(&OLD, &kinds);
    let stored = [
        ("linear.weight", tensor(weight.clone(), &[7, D])),
        ("linear.bias", tensor(bias.clone(), &[7])),
        ("residual.weight", tensor(residual.clone(), &[7, D])),
    ];
    folder.save("2_Dense/model.safetensors", &stored.map(|(n, t)| (n.to_owned(), t)).into());
    let input = pooled(&folder.states(TEXTS[0]), 0, "mean");
    let times = |w: &[f32], i: usize| -> f32 { w[i * D..(i + 1) * D].iter().zip(&input).map(|(a, b)| a * b).sum() };
    let activations: [(Option<&str>, Activation); 5] = [
        (None, f32::tanh),
        (Some("torch.nn.modules.linear.Identity"), |x| x),
        (Some("torch.nn.modules.activation.Tanh"), f32::tanh),
        (Some("torch.nn.modules.activation.ReLU"), |x| x.max(0.0)),
        (Some("torch.nn.modules.activation.Sigmoid"), |x| 1.0 / (1.0 + (-x).exp())),
    ];
    for (name, activation) in activations {
        for projected in [false, true] {
            let mut config = json!({ "in_features": D, "out_features": 7, "bias": true, "use_residual": projected });
            if let Some(name) = name {
                config["activation_function"] = json!(name);
            }
            folder.json("2_Dense/config.json", &config);
            let mut expected: Vec<f32> = (0..7)
                .map(|i| activation(times(&weight, i) + bias[i]) + if projected { times(&residual, i) } else { 0.0 })
                .collect();
            let norm = expected.iter().map(|v| v * v).sum::<f32>().sqrt();
            for v in &mut expected {
                *v /= norm;
            }
            let rows = folder.open(None).expect("supported").encode(&TEXTS).expect("encodes");
            assert_eq!(rows.dim(), 7);
            assert_near(rows.row(0), &expected, &format!("{name:?}, residual {projected}"));
        }
    }
    folder.json(
        "2_Dense/config.json",
        &json!({ "in_features": D, "out_features": 7, "activation_function": "os.system" }),
    );
    assert!(folder.refusal().contains("activation `os.system` is not supported"));
    folder.json("2_Dense/config.json", &json!({ "in_features": 5, "out_features": 7 }));
    assert!(folder.refusal().contains("follows a module of 20"));
}

#[test]
fn a_prefix_in_the_weight_names_and_half_precision_change_nothing_else() {
    let folder = Folder::new();
    let plain = folder.open(None).expect("supported").encode(&TEXTS).expect("encodes");
    let prefixed: HashMap<_, _> = folder.weights.iter().map(|(n, t)| (format!("bert.{n}"), t.clone())).collect();
    folder.save("model.safetensors", &prefixed);
    assert_eq!(folder.open(None).expect("supported").encode(&TEXTS).expect("encodes"), plain);

    for dtype in [DType::F16, DType::BF16] {
        let narrow: HashMap<_, _> =
            folder.weights.iter().map(|(n, t)| (n.clone(), t.to_dtype(dtype).expect("narrows"))).collect();
        let widened: HashMap<_, _> =
            narrow.iter().map(|(n, t)| (n.clone(), t.to_dtype(DType::F32).expect("widens"))).collect();
        folder.save("model.safetensors", &narrow);
        let rows = folder.open(None).expect("supported").encode(&TEXTS).expect("encodes");
        folder.save("model.safetensors", &widened);
        assert_eq!(folder.open(None).expect("supported").encode(&TEXTS).expect("encodes"), rows, "{dtype:?}");
        assert_ne!(rows, plain);
    }
}

#[test]
fn the_fingerprint_follows_everything_that_changes_a_vector() {
    let folder = Folder::new();
    let print = |prompt| folder.open(prompt).expect("supported").info().fingerprint.clone();
    let first = print(None);
    assert_eq!(print(None), first);
    assert_eq!(print(Some("")), first);
    let mut seen = vec![first, print(Some("a "))];
    folder.json("1_Pooling/config.json", &json!({ "pooling_mode": "max" }));
    seen.push(print(None));
    folder.modules(&OLD, &[("sentence_transformers.models.Normalize", "2_Normalize")]);
    seen.push(print(None));
    folder.json("sentence_bert_config.json", &json!({ "max_seq_length": 15 }));
    seen.push(print(None));
    folder.json("codepoints.json", &json!([[1, []]]));
    seen.push(print(None));
    let mut other = folder.weights.clone();
    other.insert("embeddings.LayerNorm.bias".into(), Tensor::zeros(D, DType::F32, &Device::Cpu).expect("zeros"));
    folder.save("model.safetensors", &other);
    seen.push(print(None));
    let n = seen.len();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), n);
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    let folder = Folder::new();
    folder.modules(&OLD, &[("sentence_transformers.models.LSTM", "2_LSTM")]);
    assert!(
        folder
            .refusal()
            .contains("module `sentence_transformers.models.LSTM` is not supported; supported: Transformer")
    );
    folder.modules(&OLD, &[("sentence_transformers.models.Dense", "../2_Dense")]);
    assert!(folder.refusal().contains("leaves the folder"));
    folder.modules(&[OLD[1], OLD[0]], &[]);
    assert!(folder.refusal().contains("modules are Pooling, Transformer"));
    folder.modules(&OLD, &[]);
    folder.json("1_Pooling/config.json", &json!({ "pooling_mode": ["mean", "median"] }));
    assert!(folder.refusal().contains("pooling mode \"median\" is not supported; supported: cls, max"));
    folder.json("1_Pooling/config.json", &json!({ "embedding_dimension": 7 }));
    assert!(folder.refusal().contains("pooling expects 7 features, the model has 20"));
    folder.json("1_Pooling/config.json", &json!({}));
    let sizes: Value =
        serde_json::from_slice(&std::fs::read(folder.dir.path().join("config.json")).expect("reads")).expect("parses");
    for (key, value, why) in [
        ("model_type", json!("xlm-roberta"), "model_type `xlm-roberta` is not supported; supported: bert"),
        ("hidden_act", json!("gelu_new"), "hidden_act `gelu_new` is not supported"),
        ("position_embedding_type", json!("relative_key"), "position_embedding_type `relative_key`"),
        ("num_attention_heads", json!(3), "hidden_size 20 is not a multiple of num_attention_heads 3"),
        ("intermediate_size", json!(38), "has shape [37, 20], the configuration says [38, 20]"),
        ("num_hidden_layers", json!(3), "tensor `encoder.layer.2.attention.self.query.weight` is missing"),
        ("vocab_size", json!(8), "tokenizer ids reach 8, but the vocabulary has 8 rows"),
    ] {
        let mut changed = sizes.clone();
        changed[key] = value;
        folder.json("config.json", &changed);
        let refusal = folder.refusal();
        assert!(refusal.contains(why), "{refusal}");
    }
}

#[test]
fn bad_weights_are_refused() {
    let folder = Folder::new();
    for name in ["embeddings.word_embeddings.weight", "encoder.layer.1.output.dense.bias"] {
        let mut bad = folder.weights.clone();
        let nan = (&bad[name] * f64::NAN).expect("multiplies");
        bad.insert(name.into(), nan);
        folder.save("model.safetensors", &bad);
        let refusal = folder.refusal();
        assert!(refusal.contains(name) && refusal.contains("is not finite"), "{refusal}");
    }
    let whole: HashMap<_, _> =
        folder.weights.iter().map(|(n, t)| (n.clone(), t.to_dtype(DType::F64).expect("widens"))).collect();
    folder.save("model.safetensors", &whole);
    assert!(folder.refusal().contains("is F64; supported: F32, F16, BF16"));

    folder.save("model.safetensors", &folder.weights);
    let path = folder.dir.path().join("model.safetensors");
    let bytes = std::fs::read(&path).expect("reads");
    for cut in [0, 7, 100, bytes.len() - 1] {
        folder.bytes("model.safetensors", &bytes[..cut]);
        assert!(folder.refusal().contains("model.safetensors"), "cut at {cut}");
    }
    std::fs::remove_file(path).expect("removes");
    folder.bytes("pytorch_model.bin", b"\x80\x02");
    let refusal = folder.refusal();
    assert!(
        refusal.contains("pytorch_model.bin` is a pickle") || refusal.contains("pytorch_model.bin`: is a pickle"),
        "{refusal}"
    );
    assert!(refusal.contains("safetensors.torch.save_file"), "{refusal}");
}
