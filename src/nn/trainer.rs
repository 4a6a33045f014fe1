//! Training a [`Decoder`]: schedule, clipping, `AdamW`, moving average, checkpoints that resume bit for bit.

use super::adamw::{self, AdamW};
use super::decoder::pass::{Noise, Source, Workspace};
use super::{Batch, Decoder, DecoderConfig, Error, snapshot};
use crate::seed;
use rand::{Rng, SeedableRng};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Parts that a batch is split into. Fixed, because it groups sums: the result must not depend on the thread count.
const SHARDS: usize = 2;
/// Elements of the arenas that are updated together.
const BLOCK: usize = 1 << 15;

/// How a [`Trainer`] trains.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Training {
    /// Highest learning rate.
    pub lr: f64,
    /// Steps of linear warm-up.
    pub warmup_steps: u64,
    /// Steps after which the cosine has fallen to a tenth of `lr`, where it stays.
    pub total_steps: u64,
    /// Largest norm of the gradient over all parameters.
    pub clip_norm: f64,
    /// Decay of the weights' moving average; 0 keeps the last weights. It starts lower: `(1 + t) / (10 + t)` at step `t`.
    pub ema_decay: f64,
    /// Share of the target's probability that is spread over all tokens.
    pub label_smoothing: f32,
    /// The optimiser.
    pub adamw: AdamW,
}

impl Default for Training {
    fn default() -> Self {
        Training {
            lr: 2e-3,
            warmup_steps: 200,
            total_steps: 4000,
            clip_norm: 1.0,
            ema_decay: 0.999,
            label_smoothing: 0.0,
            adamw: AdamW::default(),
        }
    }
}

impl Training {
    /// Checks every number.
    ///
    /// # Errors
    /// [`Error::Config`] names the first field that is out of range.
    pub fn check(&self) -> Result<(), Error> {
        let positive = [("lr", self.lr), ("clip_norm", self.clip_norm), ("adamw.eps", self.adamw.eps)];
        let shares = [
            ("ema_decay", self.ema_decay),
            ("label_smoothing", f64::from(self.label_smoothing)),
            ("adamw.beta1", self.adamw.beta1),
            ("adamw.beta2", self.adamw.beta2),
        ];
        for (name, value) in positive {
            if !(value > 0.0 && value.is_finite()) {
                return Err(Error::Config(format!("training `{name}` must be greater than 0, got {value}")));
            }
        }
        for (name, value) in shares {
            if !(0.0..1.0).contains(&value) {
                return Err(Error::Config(format!("training `{name}` must be in [0, 1), got {value}")));
            }
        }
        if !(self.adamw.weight_decay >= 0.0 && self.adamw.weight_decay.is_finite()) {
            let got = self.adamw.weight_decay;
            return Err(Error::Config(format!("training `adamw.weight_decay` must be 0 or greater, got {got}")));
        }
        Ok(())
    }

    /// Learning rate of step `t`, counted from 0.
    ///
    /// # Formula
    /// `lr (t + 1) / warmup` while warming up, then `lr (0.1 + 0.45 (1 + cos(pi x)))`, `x` the share of the rest done.
    pub fn lr_at(&self, t: u64) -> f64 {
        if t < self.warmup_steps {
            return self.lr * (t + 1) as f64 / self.warmup_steps as f64;
        }
        let rest = self.total_steps.saturating_sub(self.warmup_steps).max(1);
        let done = ((t - self.warmup_steps) as f64 / rest as f64).min(1.0);
        self.lr * (0.1 + 0.45 * (1.0 + (std::f64::consts::PI * done).cos()))
    }
}

/// What one step did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepReport {
    /// Mean loss of the batch in nats for each token, before the update; with smoothing and dropout.
    pub loss: f64,
    /// Norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Learning rate used.
    pub lr: f64,
}

/// A decoder in training.
#[derive(Debug, Clone)]
pub struct Trainer {
    decoder: Decoder,
    training: Training,
    step: u64,
    rng: seed::Stream,
    m: Vec<f32>,
    v: Vec<f32>,
    ema: Vec<f32>,
    /// Runs of the arena with the same decay, in order.
    runs: Vec<(usize, bool)>,
    shards: [Shard; SHARDS],
    squares: Vec<f64>,
}

#[derive(Debug, Clone, Default)]
struct Shard {
    workspace: Workspace,
    grads: Vec<f32>,
    loss: f64,
}

#[derive(Serialize, Deserialize)]
struct Header {
    config: DecoderConfig,
    training: Training,
    step: u64,
    rng: RngState,
}

#[derive(Serialize, Deserialize)]
struct RngState {
    seed: [u8; 32],
    stream: u64,
    /// A 128-bit number, in decimal.
    word: String,
}

impl Trainer {
    /// Starts training; `rng` serves dropout and, through [`Trainer::rng`], the caller's batch order and noise.
    ///
    /// # Errors
    /// [`Error::Config`] when `training` does not check.
    pub fn new(decoder: Decoder, training: Training, rng: seed::Stream) -> Result<Trainer, Error> {
        training.check()?;
        let n = decoder.parameters();
        let ema = decoder.weights().to_vec();
        Ok(Trainer::assemble(decoder, training, 0, rng, vec![0.0; n], vec![0.0; n], ema))
    }

    fn assemble(
        decoder: Decoder,
        training: Training,
        step: u64,
        rng: seed::Stream,
        m: Vec<f32>,
        v: Vec<f32>,
        ema: Vec<f32>,
    ) -> Trainer {
        let mut runs: Vec<(usize, bool)> = Vec::new();
        for part in &decoder.layout().parts {
            let end = part.span.at + part.span.len;
            match runs.last_mut() {
                Some((last, decay)) if *decay == part.decay => *last = end,
                _ => runs.push((end, part.decay)),
            }
        }
        let shards = std::array::from_fn(|_| Shard { grads: vec![0.0; m.len()], ..Shard::default() });
        Trainer { decoder, training, step, rng, m, v, ema, runs, shards, squares: Vec::new() }
    }

    /// The model as trained so far (not the moving average).
    pub fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    /// The model with the averaged weights, as [`Trainer::finish`] would return it now.
    pub fn averaged(&self) -> Decoder {
        self.decoder.with_weights(self.ema.clone())
    }

    /// Steps done.
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// The stream that checkpoints keep: draw batch order, conditioning dropout and noise from it.
    pub fn rng(&mut self) -> &mut seed::Stream {
        &mut self.rng
    }

    /// Ends training and returns the model with the averaged weights.
    pub fn finish(self) -> Decoder {
        self.decoder.with_weights(self.ema)
    }

    /// One optimiser step on one batch.
    ///
    /// # Errors
    /// [`Error::Shape`] when the batch does not fit the model; [`Error::NotFinite`] when loss or gradient leave the real
    /// numbers (the weights are then those of the step before).
    pub fn step(&mut self, batch: &Batch) -> Result<StepReport, Error> {
        let source = self.decoder.checked(batch)?;
        let key = self.rng.next_u64();
        let loss = self.gradient(&source, batch, key);
        let [first, second] = &mut self.shards;
        first
            .grads
            .par_chunks_mut(BLOCK)
            .zip(second.grads.par_chunks(BLOCK))
            .map(|(a, b)| adamw::add_and_square(a, b))
            .collect_into_vec(&mut self.squares);
        let grad_norm = self.squares.iter().sum::<f64>().sqrt();
        if !(loss.is_finite() && grad_norm.is_finite()) {
            return Err(Error::NotFinite { step: self.step as usize });
        }
        let lr = self.training.lr_at(self.step);
        self.step += 1;
        self.update(lr, grad_norm);
        Ok(StepReport { loss, grad_norm, lr })
    }

    /// Leaves each shard's gradient in its arena and returns the loss.
    fn gradient(&mut self, source: &Source, batch: &Batch, key: u64) -> f64 {
        let lengths = batch.lengths;
        let config = self.decoder.config();
        let total: usize = (0..lengths.len()).map(|i| source.rows(config, i)).sum();
        let (mut cut, mut rows) = (0, 0);
        while cut < lengths.len() && 2 * rows < total {
            rows += source.rows(config, cut);
            cut += 1;
        }
        let weight = 1.0 / batch.predicted() as f32;
        let smoothing = self.training.label_smoothing;
        let noise = (config.dropout > 0.0).then_some(Noise { rate: config.dropout, key });
        let decoder = &self.decoder;
        let ranges = [0..cut, cut..lengths.len()];
        self.shards.par_iter_mut().zip(ranges).with_max_len(1).for_each(|(shard, samples)| {
            shard.grads.fill(0.0);
            let Shard { workspace, grads, loss } = shard;
            *loss = workspace.train(decoder, source, samples, weight, smoothing, noise, grads);
        });
        self.shards.iter().map(|shard| shard.loss).sum()
    }

    fn update(&mut self, lr: f64, grad_norm: f64) {
        let Training { clip_norm, ema_decay, adamw, .. } = &self.training;
        let t = self.step as f64;
        let average = ema_decay.min((1.0 + t) / (10.0 + t));
        let clip = (clip_norm / (grad_norm + 1e-6)).min(1.0);
        let updates = [false, true].map(|decay| adamw.update(self.step, lr, decay, clip, average));
        let runs = &self.runs;
        self.decoder
            .weights_mut()
            .par_chunks_mut(BLOCK)
            .zip(self.m.par_chunks_mut(BLOCK))
            .zip(self.v.par_chunks_mut(BLOCK))
            .zip(self.ema.par_chunks_mut(BLOCK))
            .zip(self.shards[0].grads.par_chunks(BLOCK))
            .enumerate()
            .for_each(|(block, ((((p, m), v), ema), g))| {
                let (start, end) = (block * BLOCK, block * BLOCK + p.len());
                let mut at = start;
                for &(run_end, decay) in &runs[runs.partition_point(|&(run_end, _)| run_end <= start)..] {
                    let part = at - start..run_end.min(end) - start;
                    let (p, m, v) = (&mut p[part.clone()], &mut m[part.clone()], &mut v[part.clone()]);
                    adamw::adamw(p, m, v, &mut ema[part.clone()], &g[part.clone()], updates[usize::from(decay)]);
                    at = start + part.end;
                    if at == end {
                        break;
                    }
                }
            });
    }

    /// Writes everything that the next step depends on.
    pub fn save_checkpoint(&self, path: &Path) -> Result<(), Error> {
        let rng = RngState {
            seed: self.rng.get_seed(),
            stream: self.rng.get_stream(),
            word: self.rng.get_word_pos().to_string(),
        };
        let config = self.decoder.config().clone();
        let header = Header { config, training: self.training.clone(), step: self.step, rng };
        let mut tensors = self.decoder.tensors();
        for (name, data) in [("adamw.m", &self.m), ("adamw.v", &self.v), ("ema", &self.ema)] {
            tensors.push(snapshot::Tensor { name: name.to_owned(), shape: vec![data.len()], data });
        }
        snapshot::write(path, "training checkpoint", &header, &tensors, snapshot::Precision::Single)
    }

    /// Continues from [`Trainer::save_checkpoint`]: the next steps are the same, bit for bit.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] when the file is missing, damaged or of another kind.
    pub fn resume(path: &Path) -> Result<Trainer, Error> {
        let file = snapshot::read(path, "training checkpoint")?;
        let header: Header = file.header()?;
        header.training.check()?;
        let decoder = Decoder::from_snapshot(header.config, &file)?;
        let n = decoder.parameters();
        let arena = |name| {
            let mut data = vec![0.0; n];
            file.copy(name, &[n], &mut data).map(|()| data)
        };
        let (m, v, ema) = (arena("adamw.m")?, arena("adamw.v")?, arena("ema")?);
        let mut rng = seed::Stream::from_seed(header.rng.seed);
        rng.set_stream(header.rng.stream);
        rng.set_word_pos(header.rng.word.parse::<u128>().map_err(|e| Error::Checkpoint {
            path: path.display().to_string(),
            why: format!("the stream's position is not a number: {e}"),
        })?);
        Ok(Trainer::assemble(decoder, header.training, header.step, rng, m, v, ema))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Prefix;
    use super::*;
    use candle_core::{D, DType, Device, Tensor, Var};
    use candle_nn::Optimizer;
    use rand::RngExt;
    use std::collections::BTreeMap;

    fn small() -> DecoderConfig {
        DecoderConfig {
            d_model: 24,
            layers: 2,
            heads: 2,
            ff_mult: 2,
            vocab: 37,
            cond_dim: 10,
            slots: 3,
            max_len_tokens: 9,
            dropout: 0.0,
            tied: true,
            eos: 1,
        }
    }

    struct Data {
        cond: Vec<f32>,
        null: Vec<bool>,
        tokens: Vec<u32>,
        lengths: Vec<usize>,
        given: Vec<usize>,
    }

    impl Data {
        fn new(config: &DecoderConfig, b: usize, seed: u64) -> Data {
            let mut rng = seed::stream(seed, "trainer tests", "data");
            let t = config.max_len_tokens;
            let lengths: Vec<usize> = (0..b).map(|_| rng.random_range(1..=t)).collect();
            let mut tokens: Vec<u32> = (0..b * t).map(|_| rng.random_range(2..config.vocab as u32)).collect();
            for (row, &len) in tokens.chunks_exact_mut(t).zip(&lengths) {
                row[len - 1] = config.eos;
            }
            let cond = (0..b * config.cond_dim).map(|_| rng.random_range(-1.5..1.5)).collect();
            Data { cond, null: (0..b).map(|i| i % 4 == 1).collect(), tokens, lengths, given: Vec::new() }
        }

        fn batch(&self) -> Batch<'_> {
            Batch {
                cond: &self.cond,
                null: &self.null,
                tokens: &self.tokens,
                lengths: &self.lengths,
                given: &self.given,
            }
        }
    }

    fn trainer(config: &DecoderConfig, training: Training) -> Trainer {
        let decoder = Decoder::new(config.clone(), &mut seed::stream(7, "trainer tests", "init")).expect("valid");
        Trainer::new(decoder, training, seed::stream(7, "trainer tests", "train")).expect("valid")
    }

    fn gradient(trainer: &mut Trainer, data: &Data, key: u64) -> (f64, Vec<f32>) {
        let batch = data.batch();
        let source = trainer.decoder.checked(&batch).expect("valid");
        let loss = trainer.gradient(&source, &batch, key);
        let [a, b] = &trainer.shards;
        (loss, a.grads.iter().zip(&b.grads).map(|(a, b)| a + b).collect())
    }

    #[test]
    fn every_parameter_group_matches_finite_differences() {
        for (tied, dropout, reads) in [(true, 0.0, false), (false, 0.25, false), (true, 0.0, true)] {
            let config = DecoderConfig { dropout, tied, ..small() };
            let mut data = Data::new(&config, 9, 3);
            if reads {
                data.given = data.lengths.iter().map(|len| len / 2).collect();
            }
            let mut t = trainer(&config, Training { label_smoothing: 0.05, ..Training::default() });
            // Small initial weights would hide mistakes behind small gradients.
            let mut rng = seed::stream(1, "trainer tests", "spread");
            for w in t.decoder.weights_mut() {
                *w += rng.random_range(-0.2..0.2);
            }
            let (_, grads) = gradient(&mut t, &data, 99);
            let start = t.decoder.weights().to_vec();
            for part in t.decoder.layout().parts.clone() {
                let g = part.span.slice(&grads);
                let noise: Vec<f32> = g.iter().map(|_| rng.random_range(-1.0..1.0)).collect();
                let size = (g.iter().map(|g| g * g).sum::<f32>() / noise.iter().map(|n| n * n).sum::<f32>()).sqrt();
                // Along the gradient the derivative is large; the noise makes the direction see every element.
                let direction: Vec<f32> = g.iter().zip(&noise).map(|(g, n)| g + 0.5 * size * n).collect();
                let norm = direction.iter().map(|v| v * v).sum::<f32>().sqrt();
                assert!(norm > 1e-4, "{} has a gradient", part.name);
                let h = 0.01;
                let [up, down] = [h, -h].map(|h| {
                    t.decoder.weights_mut().copy_from_slice(&start);
                    for (w, v) in part.span.of_mut(t.decoder.weights_mut()).iter_mut().zip(&direction) {
                        *w += h * v / norm;
                    }
                    gradient(&mut t, &data, 99).0
                });
                let numeric = (up - down) / f64::from(2.0 * h);
                let exact = g.iter().zip(&direction).map(|(&g, &v)| f64::from(g * v / norm)).sum::<f64>();
                let error = (numeric - exact).abs();
                assert!(error < 2e-3 * exact.abs() + 5e-5, "{}: {numeric} against {exact}", part.name);
            }
        }
    }

    /// The same model from candle's plain differentiable operations.
    struct Reference {
        vars: BTreeMap<String, Var>,
        config: DecoderConfig,
    }

    impl Reference {
        fn new(decoder: &Decoder) -> Reference {
            let vars = decoder.tensors().into_iter().map(|tensor| {
                let var = Var::from_slice(tensor.data, tensor.shape, &Device::Cpu).expect("a tensor");
                (tensor.name, var)
            });
            Reference { vars: vars.collect(), config: decoder.config().clone() }
        }

        fn linear(&self, x: &Tensor, name: &str) -> candle_core::Result<Tensor> {
            x.broadcast_matmul(&self.vars[&format!("{name}.weight")])?
                .broadcast_add(&self.vars[&format!("{name}.bias")])
        }

        fn norm(&self, x: &Tensor, name: &str) -> candle_core::Result<Tensor> {
            let x = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
            let x = x.broadcast_div(&(x.sqr()?.mean_keepdim(D::Minus1)? + 1e-5)?.sqrt()?)?;
            x.broadcast_mul(&self.vars[&format!("{name}.gain")])?.broadcast_add(&self.vars[&format!("{name}.bias")])
        }

        fn loss(&self, data: &Data, smoothing: f64) -> candle_core::Result<Tensor> {
            let cpu = &Device::Cpu;
            let (b, t) = (data.lengths.len(), self.config.max_len_tokens);
            let (d, slots, h) = (self.config.d_model, self.config.slots, self.config.heads);
            let cond = Tensor::from_slice(&data.cond, (b, self.config.cond_dim), cpu)?;
            let prefix = self.linear(&self.linear(&cond, "prefix.in")?.gelu_erf()?, "prefix.out")?;
            let null: Vec<f32> = data.null.iter().map(|&null| f32::from(u8::from(null))).collect();
            let null = Tensor::from_vec(null, (b, 1, 1), cpu)?;
            let prefix = (prefix.reshape((b, slots, d))?.broadcast_mul(&(1.0 - &null)?)?
                + null.broadcast_mul(&self.vars["prefix.null"].unsqueeze(0)?)?)?;
            let tokens = Tensor::from_slice(&data.tokens, (b, t), cpu)?;
            let read = tokens.narrow(1, 0, t - 1)?.contiguous()?.flatten_all()?;
            let embedded = self.vars["embedding"].index_select(&read, 0)?.reshape((b, t - 1, d))?;
            let n = slots + t - 1;
            let mut x = Tensor::cat(&[prefix, embedded], 1)?.broadcast_add(&self.vars["position"].unsqueeze(0)?)?;
            let hidden: Vec<f32> = (0..n * n).map(|at| if at % n > at / n { f32::NEG_INFINITY } else { 0.0 }).collect();
            let hidden = Tensor::from_vec(hidden, (1, 1, n, n), cpu)?;
            for l in 0..self.config.layers {
                let name = |part: &str| format!("layer.{l}.{part}");
                let qkv = self.linear(&self.norm(&x, &name("norm_attention"))?, &name("qkv"))?;
                let part = |i: usize| qkv.narrow(2, i * d, d)?.reshape((b, n, h, d / h))?.transpose(1, 2)?.contiguous();
                let (q, k, v) = (part(0)?, part(1)?, part(2)?);
                let scores = (q.matmul(&k.t()?.contiguous()?)? / ((d / h) as f64).sqrt())?.broadcast_add(&hidden)?;
                let y = candle_nn::ops::softmax(&scores, D::Minus1)?.matmul(&v)?;
                let y = y.transpose(1, 2)?.reshape((b, n, d))?;
                x = (x + self.linear(&y, &name("out"))?)?;
                let up = self.linear(&self.norm(&x, &name("norm_feed"))?, &name("up"))?.gelu_erf()?;
                x = (x + self.linear(&up, &name("down"))?)?;
            }
            let x = self.norm(&x, "norm_final")?.narrow(1, slots - 1, t)?;
            let output = self.vars.get("output").unwrap_or(&self.vars["embedding"]);
            let logits = x.broadcast_matmul(&output.t()?)?;
            let log_p = candle_nn::ops::log_softmax(&logits, D::Minus1)?;
            let target = log_p.gather(&tokens.unsqueeze(2)?, 2)?.squeeze(2)?;
            let each = ((target * (1.0 - smoothing))? + (log_p.mean(D::Minus1)? * smoothing)?)?;
            let mask: Vec<f32> = (0..b * t).map(|at| if at % t < data.lengths[at / t] { 1.0 } else { 0.0 }).collect();
            let total = data.lengths.iter().sum::<usize>() as f64;
            (each * Tensor::from_vec(mask, (b, t), cpu)?)?.sum_all()? / -total
        }
    }

    #[test]
    fn twelve_steps_lose_what_the_autograd_reference_loses() {
        for tied in [true, false] {
            let config = DecoderConfig { tied, ..small() };
            let training = Training {
                lr: 5e-3,
                warmup_steps: 3,
                total_steps: 12,
                clip_norm: 1e9,
                label_smoothing: 0.02,
                ..Training::default()
            };
            let mut t = trainer(&config, training.clone());
            let reference = Reference::new(t.decoder());
            let pick = |decay: bool| -> Vec<Var> {
                let parts = t.decoder().layout().parts.iter().filter(|part| part.decay == decay);
                parts.map(|part| reference.vars[&part.name].clone()).collect()
            };
            let optimiser = |decay: bool| {
                let weight_decay = if decay { 0.01 } else { 0.0 };
                let params = candle_nn::ParamsAdamW { weight_decay, ..Default::default() };
                candle_nn::AdamW::new(pick(decay), params).expect("variables")
            };
            let mut optimisers = [optimiser(true), optimiser(false)];
            let mut losses = Vec::new();
            for step in 0..12 {
                let data = Data::new(&config, 20, step % 2);
                let loss = reference.loss(&data, 0.02).expect("a loss");
                let grads = loss.backward().expect("gradients");
                for optimiser in &mut optimisers {
                    optimiser.set_learning_rate(training.lr_at(step));
                    optimiser.step(&grads).expect("a step");
                }
                let expected =
                    f64::from(loss.to_dtype(DType::F32).and_then(|l| l.to_scalar::<f32>()).expect("a number"));
                let report = t.step(&data.batch()).expect("a step");
                assert!((report.loss - expected).abs() < 2e-5, "step {step}: {} against {expected}", report.loss);
                losses.push(report.loss);
            }
            assert!(losses[10] < losses[0] - 0.3, "{losses:?}");
        }
    }

    #[test]
    fn any_number_of_threads_gives_the_same_bytes() {
        let config = DecoderConfig { dropout: 0.1, max_len_tokens: 20, ..small() };
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
            pool.install(|| {
                let mut t = trainer(&config, Training::default());
                for step in 0..4 {
                    t.step(&Data::new(&config, 120, step).batch()).expect("a step");
                }
                t.decoder.weights().to_vec()
            })
        };
        let one = run(1);
        assert!(one == run(2) && one == run(3));
    }

    #[test]
    fn a_checkpoint_resumes_bit_for_bit() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("training.safetensors");
        let config = DecoderConfig { dropout: 0.2, ..small() };
        let mut t = trainer(&config, Training { lr: 1.234_567_89e-3, ..Training::default() });
        let advance = |t: &mut Trainer| {
            let data = Data::new(&config, 8, t.rng().random());
            t.step(&data.batch()).expect("a step")
        };
        for _ in 0..3 {
            advance(&mut t);
        }
        t.save_checkpoint(&path).expect("saved");
        let mut resumed = Trainer::resume(&path).expect("resumed");
        for _ in 0..3 {
            assert_eq!(advance(&mut t), advance(&mut resumed));
        }
        assert!(t.decoder.weights() == resumed.decoder.weights() && t.ema == resumed.ema && t.v == resumed.v);
        let (a, b) = (folder.path().join("a"), folder.path().join("b"));
        t.save_checkpoint(&a).expect("saved");
        resumed.save_checkpoint(&b).expect("saved");
        assert!(std::fs::read(a).expect("a file") == std::fs::read(b).expect("a file"));
    }

    #[test]
    fn a_damaged_checkpoint_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("training.safetensors");
        let t = trainer(&small(), Training::default());
        t.save_checkpoint(&path).expect("saved");
        let mut bytes = std::fs::read(&path).expect("a file");
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        let damaged = folder.path().join("damaged.safetensors");
        let mut file = atomic_write_file::AtomicWriteFile::open(&damaged).expect("a file");
        std::io::Write::write_all(&mut file, &bytes).expect("written");
        file.commit().expect("written");
        let error = Trainer::resume(&damaged).expect_err("damaged").to_string();
        assert!(error.contains("checksum"), "{error}");
        let error = Decoder::load(&path).expect_err("another kind").to_string();
        assert!(error.contains("a decoder is needed"), "{error}");
    }

    #[test]
    fn a_loss_that_is_not_finite_stops_training() {
        let config = small();
        let mut t = trainer(&config, Training::default());
        let mut data = Data::new(&config, 4, 1);
        data.cond[0] = f32::NAN;
        assert!(matches!(t.step(&data.batch()), Err(Error::NotFinite { step: 0 })));
        assert!(t.decoder.weights().iter().all(|w| w.is_finite()));
    }

    #[test]
    fn the_schedule_warms_up_and_falls_to_a_tenth() {
        let training = Training { lr: 1.0, warmup_steps: 10, total_steps: 110, ..Training::default() };
        for (t, lr) in [(0, 0.1), (9, 1.0), (10, 1.0), (60, 0.55), (110, 0.1), (500, 0.1)] {
            assert!((training.lr_at(t) - lr).abs() < 1e-12, "step {t}");
        }
    }

    #[test]
    fn a_handful_of_texts_is_learned_by_heart() {
        let config = DecoderConfig { max_len_tokens: 7, ..small() };
        let training = Training { lr: 1e-2, warmup_steps: 20, total_steps: 250, ema_decay: 0.5, ..Training::default() };
        let mut data = Data::new(&config, 6, 5);
        data.null = vec![false; 6];
        let mut t = trainer(&config, training);
        for _ in 0..250 {
            t.step(&data.batch()).expect("a step");
        }
        let decoder = t.finish();
        assert!(decoder.loss(&data.batch()).expect("a loss") < 0.02);
        let greedy = crate::nn::Sampling { temperature: 0.0, ..Default::default() };
        let mut rng = seed::stream(1, "trainer tests", "sample");
        let samples = decoder.sample(&data.cond, 1, &greedy, 7, &mut rng).expect("texts");
        let beams = decoder.beam(&data.cond, 4, 7).expect("texts");
        for (i, &len) in data.lengths.iter().enumerate() {
            let text = &data.tokens[i * 7..][..len];
            let scored = decoder.log_probs(Prefix::Shared(&data.cond[i * 10..][..10]), &[text]).expect("a score")[0];
            for guess in [&samples[i][0], &beams[i][0]] {
                assert_eq!(guess.tokens, text[..len - 1]);
                assert!(guess.finished && (guess.log_prob - scored).abs() < 1e-4);
            }
        }
    }
}
