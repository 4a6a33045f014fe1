//! One training step of the text decoder and of the picture decoder against PyTorch: same weights, same data, same losses,
//! tokens or pictures each second.
//!
//! ```text
//! cargo bench --bench train_step -- --python PYTHON [--rounds 5] [--steps 12] [--config d128,d128-slots8,d256,pictures]
//! ```
//!
//! `PYTHON` is an interpreter with `torch`, `numpy` and `safetensors`. Each row is one process; the two sides alternate, and
//! the order is reversed in odd rounds. A row during which other processes used more than 12 % of the machine is marked
//! `contended` and does not count. Without `--python` only our side runs.

#![expect(clippy::print_stdout, reason = "a bench prints its table")]

mod beside;

use beside::{Step, Work, training, words, write};
use candle_core::{Device, Tensor};
use rand::RngExt;
use std::error::Error;
use std::path::Path;
use stitchback::attack::image::network::{Upward, loss};
use stitchback::nn::{self, AdamW, Batch, Decoder, DecoderConfig, Fitting, Params, Trainer, Training};
use stitchback::seed;

/// The decoder that writes texts.
struct Texts {
    name: &'static str,
    batch: usize,
    tokens: usize,
    decoder: DecoderConfig,
}

impl Work for Texts {
    fn name(&self) -> &'static str {
        self.name
    }

    fn title(&self) -> String {
        let c = &self.decoder;
        format!(
            "d {} L {} H {} V {} slots {}, {} tokens x {}",
            c.d_model, c.layers, c.heads, c.vocab, c.slots, self.tokens, self.batch
        )
    }

    fn each(&self) -> (usize, &'static str) {
        (self.batch * self.tokens, "tokens")
    }

    fn peer(&self) -> (&'static str, Vec<usize>) {
        let c = &self.decoder;
        ("train_step_torch.py", vec![c.d_model, c.layers, c.heads, c.ff_mult, c.slots, self.batch, self.tokens])
    }

    fn export(&self, steps: usize, folder: &Path) -> Result<(), Box<dyn Error>> {
        let config = &self.decoder;
        Decoder::new(config.clone(), &mut seed::stream(1, self.name, "init"))?
            .save(&folder.join("weights.safetensors"))?;
        let mut rng = seed::stream(1, self.name, "data");
        let n = steps * self.batch;
        // Cubed, so that some tokens are frequent and the loss has something to learn.
        let token = |u: f64| (u.powi(3) * config.vocab as f64) as u32;
        write(&folder.join("tokens.u32"), (0..n * self.tokens).map(|_| token(rng.random()).to_le_bytes()))?;
        write(&folder.join("cond.f32"), (0..n * config.cond_dim).map(|_| rng.random_range(-1.7..1.7_f32).to_le_bytes()))
    }

    fn start(&self, folder: &Path) -> Result<Step, Box<dyn Error>> {
        let decoder = Decoder::load(&folder.join("weights.safetensors"))?;
        let tokens: Vec<u32> = words(&folder.join("tokens.u32"))?.into_iter().map(u32::from_le_bytes).collect();
        let cond = floats(&folder.join("cond.f32"))?;
        let (lengths, null) = (vec![self.tokens; self.batch], vec![false; self.batch]);
        let mut trainer = Trainer::new(decoder, training(), seed::stream(1, self.name, "train"))?;
        let (each, wide) = (self.batch * self.tokens, self.batch * self.decoder.cond_dim);
        Ok(Box::new(move |step| {
            let batch = Batch {
                cond: &cond[step * wide..][..wide],
                null: &null,
                tokens: &tokens[step * each..][..each],
                lengths: &lengths,
                given: &[],
            };
            Ok(trainer.step(&batch)?.loss)
        }))
    }
}

/// The decoder that draws pictures, as `image_decoder` trains it without a surrogate.
struct Pictures {
    dim: usize,
    side: usize,
    channels: usize,
    batch: usize,
}

impl Pictures {
    fn network(&self) -> Result<(Upward, Params), Box<dyn Error>> {
        let plan = Upward::new(self.dim, self.side, self.channels)?;
        let mut params = Params::default();
        plan.add(&mut params, &mut seed::stream(1, self.name(), "init"));
        Ok((plan, params))
    }
}

impl Work for Pictures {
    fn name(&self) -> &'static str {
        "pictures"
    }

    fn title(&self) -> String {
        format!("{} numbers to {} pixels, {} channels, {} pictures", self.dim, self.side, self.channels, self.batch)
    }

    fn each(&self) -> (usize, &'static str) {
        (self.batch, "pictures")
    }

    fn peer(&self) -> (&'static str, Vec<usize>) {
        ("draw_step_torch.py", vec![self.dim, self.side, self.channels, self.batch])
    }

    fn export(&self, steps: usize, folder: &Path) -> Result<(), Box<dyn Error>> {
        let (_, params) = self.network()?;
        write(&folder.join("weights.f32"), params.values().iter().map(|v| v.to_le_bytes()))?;
        let mut rng = seed::stream(1, self.name(), "data");
        let n = steps * self.batch;
        write(&folder.join("x.f32"), (0..n * self.dim).map(|_| rng.random_range(-1.7..1.7_f32).to_le_bytes()))?;
        let pixels = n * self.side * self.side * 3;
        write(&folder.join("y.f32"), (0..pixels).map(|_| rng.random::<f32>().to_le_bytes()))
    }

    fn start(&self, folder: &Path) -> Result<Step, Box<dyn Error>> {
        let (plan, mut params) = self.network()?;
        params.set(floats(&folder.join("weights.f32"))?)?;
        let (x, y) = (floats(&folder.join("x.f32"))?, floats(&folder.join("y.f32"))?);
        let adamw = AdamW { weight_decay: 0.01, ..AdamW::default() };
        let mut fitting = Fitting::new(params, Training { adamw, ..training() })?;
        let &Self { dim, side, batch, .. } = self;
        Ok(Box::new(move |step| {
            let of = |all: &[f32], each: usize| all[step * batch * each..][..batch * each].to_vec();
            let x = Tensor::from_vec(of(&x, dim), (batch, dim), &Device::Cpu)?;
            let y = Tensor::from_vec(of(&y, side * side * 3), (batch, side, side, 3), &Device::Cpu)?;
            Ok(fitting.step(|p| -> Result<Tensor, nn::Error> { loss(&plan.forward(p, &x)?, &y) })?)
        }))
    }
}

fn floats(path: &Path) -> Result<Vec<f32>, Box<dyn Error>> {
    Ok(words(path)?.into_iter().map(f32::from_le_bytes).collect())
}

fn main() -> Result<(), Box<dyn Error>> {
    let decoder = DecoderConfig { max_len_tokens: 24, slots: 1, ..DecoderConfig::default() };
    let wide = DecoderConfig { d_model: 256, layers: 4, vocab: 8192, max_len_tokens: 32, ..decoder.clone() };
    let small = Texts { name: "d128", batch: 128, tokens: 24, decoder: decoder.clone() };
    let slots = Texts { name: "d128-slots8", batch: 128, tokens: 24, decoder: DecoderConfig { slots: 8, ..decoder } };
    let large = Texts { name: "d256", batch: 64, tokens: 32, decoder: wide };
    let pictures = Pictures { dim: 1280, side: 32, channels: 64, batch: 64 };
    beside::main(&[&small, &slots, &large, &pictures])
}
