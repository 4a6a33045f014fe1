//! One training step of the decoder against PyTorch: same weights, same data, same losses, tokens each second.
//!
//! ```text
//! cargo bench --bench train_step -- --python PYTHON [--rounds 5] [--steps 12] [--config d128,d128-slots8,d256]
//! ```
//!
//! `PYTHON` is an interpreter with `torch`, `numpy` and `safetensors`. Each row is one process; the two sides alternate, and
//! the order is reversed in odd rounds. A row during which other processes used more than 12 % of the machine is marked
//! `contended` and does not count. Without `--python` only our side runs.

#![expect(clippy::print_stdout, reason = "a bench prints its table")]

use rand::RngExt;
use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Instant;
use stitchback::nn::{Batch, Decoder, DecoderConfig, Trainer, Training};
use stitchback::seed;

const WARM_UP: usize = 3;
const CONTENDED: f64 = 0.12;

struct Shape {
    name: &'static str,
    batch: usize,
    tokens: usize,
    decoder: DecoderConfig,
}

fn shapes() -> Vec<Shape> {
    let decoder = DecoderConfig { max_len_tokens: 24, slots: 1, ..DecoderConfig::default() };
    let wide = DecoderConfig { d_model: 256, layers: 4, vocab: 8192, max_len_tokens: 32, ..decoder.clone() };
    vec![
        Shape { name: "d128", batch: 128, tokens: 24, decoder: decoder.clone() },
        Shape { name: "d128-slots8", batch: 128, tokens: 24, decoder: DecoderConfig { slots: 8, ..decoder } },
        Shape { name: "d256", batch: 64, tokens: 32, decoder: wide },
    ]
}

fn training() -> Training {
    Training { lr: 1e-3, warmup_steps: 4, total_steps: 1_000_000, ema_decay: 0.0, ..Training::default() }
}

fn write(path: &Path, bytes: impl Iterator<Item = [u8; 4]>) -> Result<(), Box<dyn Error>> {
    let mut out = std::io::BufWriter::new(std::fs::File::create(path)?);
    for word in bytes {
        out.write_all(&word)?;
    }
    Ok(out.flush()?)
}

/// Initial weights and data of one shape, for both sides.
fn export(shape: &Shape, steps: usize, folder: &Path) -> Result<(), Box<dyn Error>> {
    let config = &shape.decoder;
    Decoder::new(config.clone(), &mut seed::stream(1, shape.name, "init"))?
        .save(&folder.join("weights.safetensors"))?;
    let mut rng = seed::stream(1, shape.name, "data");
    let n = steps * shape.batch;
    // Cubed, so that some tokens are frequent and the loss has something to learn.
    let token = |u: f64| (u.powi(3) * config.vocab as f64) as u32;
    write(&folder.join("tokens.u32"), (0..n * shape.tokens).map(|_| token(rng.random()).to_le_bytes()))?;
    write(&folder.join("cond.f32"), (0..n * config.cond_dim).map(|_| rng.random_range(-1.7..1.7_f32).to_le_bytes()))
}

fn words(path: &Path) -> Result<Vec<[u8; 4]>, Box<dyn Error>> {
    Ok(std::fs::read(path)?.as_chunks::<4>().0.to_vec())
}

/// What one process reports, as one line: tokens each second, CPU seconds, then the losses.
fn ours(shape: &Shape, steps: usize, folder: &Path) -> Result<String, Box<dyn Error>> {
    let decoder = Decoder::load(&folder.join("weights.safetensors"))?;
    let tokens: Vec<u32> = words(&folder.join("tokens.u32"))?.into_iter().map(u32::from_le_bytes).collect();
    let cond: Vec<f32> = words(&folder.join("cond.f32"))?.into_iter().map(f32::from_le_bytes).collect();
    let (lengths, null) = (vec![shape.tokens; shape.batch], vec![false; shape.batch]);
    let mut trainer = Trainer::new(decoder, training(), seed::stream(1, shape.name, "train"))?;
    let mut losses = Vec::new();
    let mut start = Instant::now();
    let per_step = (shape.batch * shape.tokens, shape.batch * shape.decoder.cond_dim);
    for step in 0..steps {
        if step == WARM_UP {
            start = Instant::now();
        }
        let batch = Batch {
            cond: &cond[step * per_step.1..][..per_step.1],
            null: &null,
            tokens: &tokens[step * per_step.0..][..per_step.0],
            lengths: &lengths,
            given: &[],
        };
        losses.push(trainer.step(&batch)?.loss);
    }
    let rate = ((steps - WARM_UP) * per_step.0) as f64 / start.elapsed().as_secs_f64();
    let losses: Vec<String> = losses.iter().map(|loss| format!("{loss:.6}")).collect();
    Ok(format!("{rate} {} {}", own_cpu_s()?, losses.join(" ")))
}

/// User and system seconds of this process, at 100 ticks a second.
fn own_cpu_s() -> Result<f64, Box<dyn Error>> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let after = stat.rsplit(") ").next().ok_or("no process state")?;
    let ticks: Vec<f64> = after.split(' ').skip(11).take(2).map(str::parse).collect::<Result<_, _>>()?;
    Ok(ticks.iter().sum::<f64>() / 100.0)
}

/// Busy seconds of the whole machine.
fn machine_cpu_s() -> Result<f64, Box<dyn Error>> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().ok_or("no machine state")?;
    let ticks: Vec<f64> = line.split_whitespace().skip(1).map(str::parse).collect::<Result<_, _>>()?;
    // user nice system idle iowait irq softirq steal
    Ok((ticks.iter().take(8).sum::<f64>() - ticks[3] - ticks[4]) / 100.0)
}

struct Row {
    rate: f64,
    losses: Vec<f64>,
    others: f64,
}

fn run(command: &mut Command) -> Result<Row, Box<dyn Error>> {
    let (busy, start) = (machine_cpu_s()?, Instant::now());
    let output = command.env("RAYON_NUM_THREADS", "2").output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    let text = String::from_utf8(output.stdout)?;
    let numbers: Vec<f64> = text.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    let [rate, own, losses @ ..] = numbers.as_slice() else { return Err("a row without numbers".into()) };
    let cores = std::thread::available_parallelism()?.get() as f64;
    let others = (machine_cpu_s()? - busy - own).max(0.0) / (start.elapsed().as_secs_f64() * cores);
    Ok(Row { rate: *rate, losses: losses.to_vec(), others })
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let n = values.len();
    f64::midpoint(values[(n - 1) / 2], values[n / 2])
}

struct Options {
    python: Option<String>,
    rounds: usize,
    steps: usize,
    configs: Vec<String>,
}

fn compare(shape: &Shape, options: &Options) -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    export(shape, options.steps, folder.path())?;
    let c = &shape.decoder;
    println!(
        "\n{}: d {} L {} H {} V {} slots {}, {} tokens x {}",
        shape.name, c.d_model, c.layers, c.heads, c.vocab, c.slots, shape.tokens, shape.batch
    );
    let us = || {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--side", shape.name, &options.steps.to_string()]).arg(folder.path());
        run(&mut command)
    };
    let peer = |python: &str| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers/train_step_torch.py");
        let mut command = Command::new(python);
        let sizes =
            [c.d_model, c.layers, c.heads, c.ff_mult, c.slots, shape.batch, shape.tokens, options.steps, WARM_UP];
        command.arg(script).arg(folder.path()).args(sizes.map(|size| size.to_string()));
        run(&mut command)
    };
    let (mut rates, mut peers, mut ratios, mut all, mut worst) = (vec![], vec![], vec![], vec![], 0.0_f64);
    for round in 0..options.rounds {
        let Some(python) = &options.python else {
            let row = us()?;
            println!("  round {round}: {:.0} tokens/s, others {:.2}", row.rate, row.others);
            continue;
        };
        let (a, b) = if round % 2 == 0 {
            let a = us()?;
            (a, peer(python)?)
        } else {
            let b = peer(python)?;
            (us()?, b)
        };
        let difference = a.losses.iter().zip(&b.losses).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        worst = worst.max(difference);
        let ratio = a.rate / b.rate;
        all.push(ratio);
        let quiet = a.others <= CONTENDED && b.others <= CONTENDED;
        println!(
            "  round {round}: ours {:.0} tokens/s (others {:.2}), torch {:.0} (others {:.2}), ratio {ratio:.2}, loss {:.5} \
             -> {:.5}, difference {difference:.1e}{}",
            a.rate,
            a.others,
            b.rate,
            b.others,
            a.losses[0],
            a.losses[a.losses.len() - 1],
            if quiet { "" } else { "  contended" }
        );
        if quiet {
            rates.push(a.rate);
            peers.push(b.rate);
            ratios.push(ratio);
        }
    }
    if all.is_empty() {
        return Ok(());
    }
    if 3 * ratios.len() < 2 * all.len() {
        println!(
            "  no result: {} of {} rounds were contended (direction only: {:.2})",
            all.len() - ratios.len(),
            all.len(),
            median(&mut all)
        );
        return Ok(());
    }
    let (low, high) = ratios.iter().fold((f64::MAX, 0.0_f64), |(low, high), &r| (low.min(r), high.max(r)));
    println!(
        "  median: ours {:.0} tokens/s, torch {:.0}, ratio {:.2} [{low:.2}-{high:.2}], largest loss difference {worst:.1e}",
        median(&mut rates),
        median(&mut peers),
        median(&mut ratios)
    );
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let shapes = shapes();
    let named = |name: &str| shapes.iter().find(|shape| shape.name == name).ok_or(format!("no config `{name}`"));
    if let [side, name, steps, folder] = args.as_slice()
        && side == "--side"
    {
        println!("{}", ours(named(name)?, steps.parse()?, Path::new(folder))?);
        return Ok(());
    }
    let mut options = Options {
        python: None,
        rounds: 5,
        steps: 12,
        configs: shapes.iter().map(|shape| shape.name.to_owned()).collect(),
    };
    for pair in args.chunks(2) {
        let [key, value] = pair else { return Err(format!("`{}` needs a value", pair[0]).into()) };
        match key.as_str() {
            "--python" => options.python = Some(value.clone()),
            "--rounds" => options.rounds = value.parse()?,
            "--steps" => options.steps = value.parse::<usize>()?.max(WARM_UP + 1),
            "--config" => options.configs = value.split(',').map(str::to_owned).collect(),
            _ => return Err(format!("unknown option `{key}`").into()),
        }
    }
    let cpu = std::fs::read_to_string("/proc/cpuinfo")?;
    let model = cpu.lines().find(|line| line.starts_with("model name")).unwrap_or("model name: unknown");
    println!(
        "cpu {}, 2 threads, {}",
        model.split(':').next_back().unwrap_or("").trim(),
        if cfg!(debug_assertions) { "development build" } else { "release build" }
    );
    for name in &options.configs {
        compare(named(name)?, &options)?;
    }
    Ok(())
}
