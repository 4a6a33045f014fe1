//! Training steps beside PyTorch's: rounds of two processes with the same weights, the same data and the same losses.

use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Instant;
use stitchback::nn::Training;

const WARM_UP: usize = 3;
const CONTENDED: f64 = 0.12;

/// One training step: given its number, it returns the loss before it.
pub(crate) type Step = Box<dyn FnMut(usize) -> Result<f64, Box<dyn Error>>>;

/// A network in training that both sides know.
pub(crate) trait Work {
    /// Under which it is asked for.
    fn name(&self) -> &'static str;

    /// Its sizes, in words.
    fn title(&self) -> String;

    /// How many of what one step reads.
    fn each(&self) -> (usize, &'static str);

    /// The script of `benches/peers`, and what it is told behind the folder and before the numbers of steps.
    fn peer(&self) -> (&'static str, Vec<usize>);

    /// Writes initial weights and data of `steps` steps.
    fn export(&self, steps: usize, folder: &Path) -> Result<(), Box<dyn Error>>;

    /// Our side, ready to start.
    fn start(&self, folder: &Path) -> Result<Step, Box<dyn Error>>;
}

/// The schedule of both sides; the peers' scripts repeat it.
pub(crate) fn training() -> Training {
    Training { lr: 1e-3, warmup_steps: 4, total_steps: 1_000_000, ema_decay: 0.0, ..Training::default() }
}

/// Writes words of four bytes.
pub(crate) fn write(path: &Path, bytes: impl Iterator<Item = [u8; 4]>) -> Result<(), Box<dyn Error>> {
    let mut out = std::io::BufWriter::new(std::fs::File::create(path)?);
    for word in bytes {
        out.write_all(&word)?;
    }
    Ok(out.flush()?)
}

/// Reads words of four bytes.
pub(crate) fn words(path: &Path) -> Result<Vec<[u8; 4]>, Box<dyn Error>> {
    Ok(std::fs::read(path)?.as_chunks::<4>().0.to_vec())
}

/// What one process reports, as one line: units each second, CPU seconds, then the losses.
fn ours(work: &dyn Work, steps: usize, folder: &Path) -> Result<String, Box<dyn Error>> {
    let mut step = work.start(folder)?;
    let mut losses = Vec::new();
    let mut start = Instant::now();
    for i in 0..steps {
        if i == WARM_UP {
            start = Instant::now();
        }
        losses.push(step(i)?);
    }
    let rate = ((steps - WARM_UP) * work.each().0) as f64 / start.elapsed().as_secs_f64();
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

fn compare(work: &dyn Work, options: &Options) -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    work.export(options.steps, folder.path())?;
    let unit = work.each().1;
    println!("\n{}: {}", work.name(), work.title());
    let us = || {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--side", work.name(), &options.steps.to_string()]).arg(folder.path());
        run(&mut command)
    };
    let peer = |python: &str| {
        let (script, sizes) = work.peer();
        let mut command = Command::new(python);
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers").join(script)).arg(folder.path());
        command.args(sizes.into_iter().chain([options.steps, WARM_UP]).map(|size| size.to_string()));
        run(&mut command)
    };
    let (mut rates, mut peers, mut ratios, mut all, mut worst) = (vec![], vec![], vec![], vec![], 0.0_f64);
    for round in 0..options.rounds {
        let Some(python) = &options.python else {
            let row = us()?;
            println!("  round {round}: {:.0} {unit}/s, others {:.2}", row.rate, row.others);
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
            "  round {round}: ours {:.0} {unit}/s (others {:.2}), torch {:.0} (others {:.2}), ratio {ratio:.2}, loss {:.5} \
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
        "  median: ours {:.0} {unit}/s, torch {:.0}, ratio {:.2} [{low:.2}-{high:.2}], largest loss difference {worst:.1e}",
        median(&mut rates),
        median(&mut peers),
        median(&mut ratios)
    );
    Ok(())
}

/// Reads the command line, and compares what it asks for.
pub(crate) fn main(works: &[&dyn Work]) -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let named = |name: &str| works.iter().find(|work| work.name() == name).ok_or(format!("no config `{name}`"));
    if let [side, name, steps, folder] = args.as_slice()
        && side == "--side"
    {
        println!("{}", ours(*named(name)?, steps.parse()?, Path::new(folder))?);
        return Ok(());
    }
    let mut options = Options {
        python: None,
        rounds: 5,
        steps: 12,
        configs: works.iter().map(|work| work.name().to_owned()).collect(),
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
        compare(*named(name)?, &options)?;
    }
    Ok(())
}
