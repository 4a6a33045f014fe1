//! Estimates of the clean vector from a noisy one: the best linear filter, and a network for what is not linear.

use super::{Error, View, keep, linear};
use crate::encode::Embeddings;
use crate::nn::kernel::{Layout, matmul};
use crate::nn::{self, AdamW, Fitting, Params, Training, ops};
use crate::protect::Moments;
use crate::seed;
use candle_core::{Device, Tensor};
use rand::RngExt;
use rand_distr::{Distribution, StandardNormal};
use serde::{Deserialize, Serialize};

/// How attackers take the noise off what they read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Denoising {
    /// The best linear filter ([`Wiener`]).
    #[default]
    Wiener,
    /// A network beside it, where that is nearer on records held out ([`Learned`]).
    Learned,
}

/// Linear minimum-mean-square-error denoiser for isotropic noise.
///
/// # Formula
/// `x^ = m + S (S + sigma^2 I)^-1 (y - m)`, with `m`, `S` the mean and covariance of the signal before the noise,
/// estimated on auxiliary records. For a prototype the signal is the group mean, and by exchangeability the same
/// matrix estimates each member.
///
/// # Shapes
/// `(n, d)` in and out.
///
/// # Source
/// Wiener 1949. It serves decoders: for identification among candidates the raw
/// product `y.e` is already maximum likelihood, and shrinkage only pulls every guess towards the mean.
#[derive(Debug, Clone)]
pub struct Wiener {
    mean: Vec<f32>,
    gain: Vec<f32>,
}

impl Wiener {
    /// Fits the filter on noise-free signal vectors for noise of standard deviation `sigma` per coordinate.
    pub fn fit(signal: &Embeddings, sigma: f64) -> Self {
        let d = signal.dim();
        let (mean, cov) = linear::moments(signal);
        let mut noisy = cov.clone();
        // The floor keeps the factor defined for sigma = 0, where the filter is the identity on the signal's span.
        linear::add_to_diagonal(&mut noisy, d, (sigma * sigma).max(1e-9));
        let mut gain = vec![0.0_f32; d * d];
        if let Some(factor) = linear::Cholesky::new(&noisy, d) {
            let mut column = vec![0.0; d];
            for j in 0..d {
                column.copy_from_slice(&cov[j * d..(j + 1) * d]);
                factor.solve(&mut column);
                for (i, &v) in column.iter().enumerate() {
                    gain[i * d + j] = v as f32;
                }
            }
        }
        Self { mean: mean.into_iter().map(|v| v as f32).collect(), gain }
    }

    /// Denoises every row.
    pub fn apply(&self, y: &Embeddings) -> Embeddings {
        let (n, d) = (y.len(), y.dim());
        let mut centred = y.clone();
        for row in centred.values_mut().chunks_exact_mut(d) {
            row.iter_mut().zip(&self.mean).for_each(|(v, m)| *v -= m);
        }
        let mut out = vec![0.0_f32; n * d];
        matmul(&mut out, centred.values(), Layout::Plain, &self.gain, Layout::Transposed, n, d, d, false);
        for row in out.chunks_exact_mut(d) {
            row.iter_mut().zip(&self.mean).for_each(|(v, m)| *v += m);
        }
        Embeddings::new(out, d).expect("a finite filter of finite rows is finite")
    }
}

/// Hidden units of the network.
const HIDDEN: usize = 512;
/// Rows of a training step, and steps.
const BATCH: usize = 256;
const STEPS: usize = 1500;
/// Noise that it is trained for, relative to the root mean square of a coordinate of the signal.
const LEVELS: (f64, f64) = (0.25, 16.0);
/// Records held out to tell whether it helps; with fewer than these the filter stays.
const HELD_OUT: usize = 64;

/// What a network adds to the [`Wiener`] estimate, for every strength of noise at once.
///
/// # Formula
/// In the principal directions `a_i` of the signal, with variances `l_i` and noise `s`: `u_i = a_i.(y - m)`,
/// `w_i = u_i l_i / (l_i + s^2)`, `p_i^2 = l_i s^2 / (l_i + s^2)`, and
/// `x^ = m + sum_i (w_i + p_i f_i(u / sqrt(l + s^2), ln s)) a_i`, `f` two hidden layers. Training minimises
/// `sum_i p_i^2 (f_i - (x_i - w_i) / p_i)^2 / sum_i p_i^2`, in which the filter alone scores 1 where the signal is normal,
/// over fresh noise of strengths drawn evenly in `ln s`.
///
/// # Shapes
/// `(n, d)` in and out.
///
/// # Source
/// Robbins 1956 (the posterior mean, which is not linear where the signal is not normal), learnt by regression on fresh noise
/// as in Vincent 2011. It is trained once for each signal and kept in the workshop; all protections of one signal share it.
#[derive(Debug, Clone)]
pub struct Learned {
    basis: Basis,
    network: Params,
    /// Squared error on held-out records over the filter's, at `LEVELS` and between, evenly in the logarithm.
    gains: Vec<f64>,
}

/// The signal's mean, directions and variances.
#[derive(Debug, Clone)]
struct Basis {
    mean: Vec<f32>,
    /// `(d, d)`, one direction a row.
    axes: Vec<f32>,
    variances: Vec<f64>,
    /// Root mean square of a coordinate.
    scale: f64,
}

impl Basis {
    fn of(signal: &Embeddings) -> Self {
        let moments = Moments::of(signal);
        let axes = moments.axes();
        let total: f64 = axes.variances.iter().sum();
        Self {
            mean: moments.mean.iter().map(|&v| v as f32).collect(),
            axes: axes.directions.iter().map(|&v| v as f32).collect(),
            variances: axes.variances.clone(),
            scale: (total / signal.dim() as f64).sqrt().max(1e-9),
        }
    }

    /// Coordinates along the directions.
    fn coordinates(&self, x: &Embeddings) -> Embeddings {
        let (n, d) = (x.len(), x.dim());
        let mut out = vec![0.0; n * d];
        let x = x.about(&self.mean);
        matmul(&mut out, x.values(), Layout::Plain, &self.axes, Layout::Transposed, n, d, d, false);
        Embeddings::new(out, d).expect("finite directions of finite rows")
    }

    /// Back from coordinates.
    fn rows(&self, u: &[f32]) -> Embeddings {
        let d = self.mean.len();
        let mut out: Vec<f32> = self.mean.iter().copied().cycle().take(u.len()).collect();
        matmul(&mut out, u, Layout::Plain, &self.axes, Layout::Plain, u.len() / d, d, d, true);
        Embeddings::new(out, d).expect("finite directions of finite coordinates")
    }

    /// `(l / (l + s^2), sqrt(l s^2 / (l + s^2)), 1 / sqrt(l + s^2))` of each direction.
    fn filter(&self, s: f64) -> impl Iterator<Item = (f32, f32, f32)> + '_ {
        self.variances.iter().map(move |&l| {
            let both = l + s * s;
            ((l / both) as f32, (l * s * s / both).sqrt() as f32, both.sqrt().recip() as f32)
        })
    }

    /// What the network reads of coordinates `u` under noise `s`.
    fn input(&self, u: &[f32], s: f64, out: &mut Vec<f32>) {
        out.extend(u.iter().zip(self.filter(s)).map(|(u, (_, _, whiten))| u * whiten));
        out.push((s / self.scale).ln() as f32);
    }
}

impl Learned {
    /// Trains the network on the `signal` under noise, or takes the finished one from the view's workshop; nothing where too
    /// few records could be held out.
    ///
    /// # Errors
    /// When the loss leaves the real numbers or the workshop cannot be written.
    pub fn train(view: &View, signal: &Embeddings) -> Result<Option<Self>, Error> {
        let quiet = view.pipeline.without_noise();
        let name = format!("denoiser v2\u{0}{}\u{0}{quiet}\u{0}{}", view.inputs, view.seed);
        let path = view.workshop.join(format!("denoiser-{}.bin", &blake3::hash(name.as_bytes()).to_hex()[..20]));
        let held = |i: usize| blake3::hash(view.auxiliary[i].document.as_bytes()).as_bytes()[2] < 26;
        // Where rows stand for groups, a row is nobody's: every tenth is held out.
        let held = |i: usize| if signal.len() == view.auxiliary.len() { held(i) } else { i.is_multiple_of(10) };
        let (own, held_out): (Vec<usize>, Vec<usize>) = (0..signal.len()).partition(|&i| !held(i));
        if held_out.len() < HELD_OUT || own.len() < BATCH {
            return Ok(None);
        }
        let basis = Basis::of(&signal.select(&own));
        let mut rng = seed::stream(view.seed, &name, "weights");
        let mut network = layout(signal.dim(), &mut rng);
        if let Some((gains, weights)) = std::fs::read(&path).ok().and_then(|bytes| nn::unseal::<Vec<f64>>(&bytes)) {
            network.set(weights)?;
            return Ok(Some(Self { basis, network, gains }));
        }
        let own = basis.coordinates(&signal.select(&own));
        let network = fit(&basis, &own, network, &mut seed::stream(view.seed, &name, "training"))?;
        let mut learned = Self { basis, network, gains: Vec::new() };
        learned.gains = learned.measured(&signal.select(&held_out), &mut seed::stream(view.seed, &name, "held out"));
        keep(&path, &nn::seal(&learned.gains, &learned.network))?;
        Ok(Some(learned))
    }

    /// Whether it is nearer than the filter under noise `sigma`, on records held out.
    pub fn helps_at(&self, sigma: f64) -> bool {
        self.gain_at(sigma).is_some_and(|gain| gain < 1.0)
    }

    /// Its squared error over the filter's on records held out; nothing for noise that it was not trained for.
    pub fn gain_at(&self, sigma: f64) -> Option<f64> {
        let (low, high) = (LEVELS.0.ln(), LEVELS.1.ln());
        let at = ((sigma / self.basis.scale).ln() - low) / (high - low) * (self.gains.len() - 1) as f64;
        let within = (0.0..=(self.gains.len() - 1) as f64).contains(&at);
        within.then(|| self.gains[at.floor() as usize].max(self.gains[at.ceil() as usize]))
    }

    /// Denoises every row of noise `sigma`.
    pub fn apply(&self, y: &Embeddings, sigma: f64) -> Embeddings {
        let u = self.basis.coordinates(y);
        self.basis.rows(&self.estimate(&u, sigma))
    }

    /// Estimated coordinates of noisy ones.
    fn estimate(&self, u: &Embeddings, sigma: f64) -> Vec<f32> {
        let (n, d) = (u.len(), u.dim());
        let mut input = Vec::with_capacity(n * (d + 1));
        u.rows().for_each(|u| self.basis.input(u, sigma, &mut input));
        let corrected = self.corrections(input, n).expect("rows of the width that the network was laid out for");
        let filter: Vec<_> = self.basis.filter(sigma).collect();
        let rows = u.values().chunks_exact(d).zip(corrected.chunks_exact(d));
        rows.flat_map(|(u, f)| u.iter().zip(f).zip(&filter).map(|((u, f), (gain, spread, _))| u * gain + spread * f))
            .collect()
    }

    fn corrections(&self, input: Vec<f32>, n: usize) -> Result<Vec<f32>, nn::Error> {
        let x = Tensor::from_vec(input, (n, self.basis.mean.len() + 1), &Device::Cpu)?;
        Ok(forward(&self.network.tensors()?, &x)?.flatten_all()?.to_vec1()?)
    }

    /// The ratio of squared errors at each level, on records that neither saw.
    fn measured(&self, held_out: &Embeddings, rng: &mut seed::Stream) -> Vec<f64> {
        const POINTS: usize = 7;
        let truth = self.basis.coordinates(held_out);
        (0..POINTS)
            .map(|k| {
                let share = k as f64 / (POINTS - 1) as f64;
                let s = self.basis.scale * LEVELS.0 * (LEVELS.1 / LEVELS.0).powf(share);
                let mut seen = truth.clone();
                seen.values_mut().iter_mut().for_each(|v| *v += noise(rng) * s as f32);
                let miss = |guess: &[f32]| -> f64 {
                    guess.iter().zip(truth.values()).map(|(a, b)| f64::from(a - b).powi(2)).sum()
                };
                let filter: Vec<_> = self.basis.filter(s).collect();
                let linear: Vec<f32> =
                    seen.rows().flat_map(|u| u.iter().zip(&filter).map(|(u, (gain, _, _))| u * gain)).collect();
                miss(&self.estimate(&seen, s)) / miss(&linear).max(1e-300)
            })
            .collect()
    }
}

fn noise(rng: &mut seed::Stream) -> f32 {
    StandardNormal.sample(rng)
}

fn layout(d: usize, rng: &mut seed::Stream) -> Params {
    let mut params = Params::default();
    for (from, to) in [(d + 1, HIDDEN), (HIDDEN, HIDDEN)] {
        params.normal(&[from, to], (from as f64).sqrt().recip(), rng);
        params.constant(&[to], 0.0);
    }
    // It starts as the filter.
    params.constant(&[HIDDEN, d], 0.0);
    params.constant(&[d], 0.0);
    params
}

fn forward(p: &[Tensor], x: &Tensor) -> Result<Tensor, nn::Error> {
    let x = ops::bias_gelu(&x.matmul(&p[0])?, &p[1])?;
    let x = (&x + ops::bias_gelu(&x.matmul(&p[2])?, &p[3])?)?;
    Ok(x.matmul(&p[4])?.broadcast_add(&p[5])?)
}

/// Trains `network` on coordinates of the signal.
fn fit(basis: &Basis, own: &Embeddings, network: Params, rng: &mut seed::Stream) -> Result<Params, Error> {
    let d = own.dim();
    let training = Training {
        lr: 1e-3,
        warmup_steps: 50,
        total_steps: STEPS as u64,
        ema_decay: 0.99,
        adamw: AdamW::default(),
        ..Training::default()
    };
    let mut fitting = Fitting::new(network, training)?;
    for _ in 0..STEPS {
        let (mut input, mut target, mut weight) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..BATCH {
            let x = own.row(rng.random_range(0..own.len()));
            let s = basis.scale * (rng.random_range(LEVELS.0.ln()..LEVELS.1.ln())).exp();
            let u: Vec<f32> = x.iter().map(|x| x + noise(rng) * s as f32).collect();
            basis.input(&u, s, &mut input);
            let total: f32 = basis.filter(s).map(|(_, spread, _)| spread * spread).sum();
            for ((u, x), (gain, spread, _)) in u.iter().zip(x).zip(basis.filter(s)) {
                target.push(x - u * gain);
                weight.push((spread, total.max(1e-30).sqrt().recip()));
            }
        }
        let column = |of: &dyn Fn(&(f32, f32)) -> f32| -> Result<Tensor, nn::Error> {
            Ok(Tensor::from_vec(weight.iter().map(of).collect::<Vec<f32>>(), (BATCH, d), &Device::Cpu)?)
        };
        let (spread, share) = (column(&|w| w.0)?, column(&|w| w.1)?);
        let x = Tensor::from_vec(input, (BATCH, d + 1), &Device::Cpu).map_err(nn::Error::from)?;
        let target = Tensor::from_vec(target, (BATCH, d), &Device::Cpu).map_err(nn::Error::from)?;
        fitting.step(|p| {
            let miss = ((forward(p, &x)?.mul(&spread)? - &target)? * &share)?;
            Ok((miss.sqr()?.sum_all()? * (1.0 / BATCH as f64))?)
        })?;
    }
    Ok(fitting.averaged())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::scene::Scene;
    use crate::measure::similarity;

    /// Spectrum `l_i ~ 1/i`, trace 1: the closed form predicts the cosine of the denoised vector to its truth.
    #[test]
    fn the_wiener_filter_reaches_its_closed_form_cosine() {
        let (n, d) = (4000, 384);
        let harmonic: f64 = (1..=d).map(|i| 1.0 / i as f64).sum();
        let spectrum: Vec<f64> = (1..=d).map(|i| 1.0 / (i as f64 * harmonic)).collect();
        let mut rng = seed::stream(7, "wiener", "signal");
        let mut draw = |scale: &dyn Fn(usize) -> f64| {
            let values = (0..n * d)
                .map(|at| {
                    let g: f64 = StandardNormal.sample(&mut rng);
                    (g * scale(at % d)) as f32
                })
                .collect();
            Embeddings::new(values, d).expect("finite")
        };
        let (signal, held_out) = (draw(&|i| spectrum[i].sqrt()), draw(&|i| spectrum[i].sqrt()));
        for (sigma, simulated) in [(0.05, 0.824), (0.1, 0.687), (0.25, 0.470)] {
            let noise = draw(&|_| sigma);
            let mut y = held_out.clone();
            y.values_mut().iter_mut().zip(noise.values()).for_each(|(v, e)| *v += e);
            let guess = Wiener::fit(&signal, sigma).apply(&y);
            let mean: f64 = similarity::cosines(&guess, &held_out)
                .expect("row by row")
                .into_iter()
                .map(|c| c.expect("a direction"))
                .sum::<f64>()
                / n as f64;
            assert!((mean - simulated).abs() < 0.02, "sigma {sigma}: {mean} against {simulated}");
        }
    }

    /// A signal of few points is far from normal: its posterior mean is known, the filter cannot reach it and the network nears it.
    #[test]
    fn the_network_nears_the_posterior_mean_where_the_filter_cannot() {
        let (n, d, points) = (1200, 24, 12);
        let mut rng = seed::stream(5, "denoise", "points");
        let centres: Vec<Vec<f32>> = (0..points).map(|_| (0..d).map(|_| noise(&mut rng) * 0.2).collect()).collect();
        let values = (0..n).flat_map(|i| centres[i % points].clone()).collect();
        let signal = Embeddings::new(values, d).expect("finite");
        let scene = Scene::new(n, "clip(l2=4) | gaussian(sigma=0.2)", &[]);
        let view = View { denoising: Denoising::Learned, ..scene.view() };
        let learned = Learned::train(&view, &signal).expect("trains").expect("enough records");
        let sigma = 0.2;
        assert!(learned.helps_at(sigma), "{:?}", learned.gains);
        assert_eq!(learned.gain_at(1e3), None, "noise that it never saw");
        let mut seen = signal.clone();
        seen.values_mut().iter_mut().for_each(|v| *v += noise(&mut rng) * sigma as f32);
        let posterior = |y: &[f32]| -> Vec<f32> {
            let weigh = |c: &Vec<f32>| {
                let off: f64 = c.iter().zip(y).map(|(c, y)| f64::from(c - y).powi(2)).sum();
                (-off / (2.0 * sigma * sigma)).exp()
            };
            let weights: Vec<f64> = centres.iter().map(weigh).collect();
            let total: f64 = weights.iter().sum();
            (0..d)
                .map(|j| (centres.iter().zip(&weights).map(|(c, w)| f64::from(c[j]) * w).sum::<f64>() / total) as f32)
                .collect()
        };
        let miss = |guess: &Embeddings| -> f64 {
            let off = guess.values().iter().zip(signal.values()).map(|(a, b)| f64::from(a - b).powi(2));
            off.sum::<f64>() / n as f64
        };
        let best = Embeddings::new(seen.rows().flat_map(posterior).collect(), d).expect("finite");
        let (best, network) = (miss(&best), miss(&learned.apply(&seen, sigma)));
        let filter = miss(&Wiener::fit(&signal, sigma).apply(&seen));
        assert!(best < network && network < best + 0.35 * (filter - best), "{best} {network} {filter}");
        let again = Learned::train(&view, &signal).expect("reads").expect("the kept one");
        assert_eq!(again.network, learned.network, "the workshop keeps it");
        assert_eq!(again.gains, learned.gains);
    }

    /// Where the signal is normal the filter is best, and the network does no harm: it stays beside it or is not used.
    #[test]
    fn a_network_that_does_not_help_is_not_used() {
        let learned =
            Learned { gains: vec![1.02, 0.9, 0.95, 1.0], basis: Basis::of(&toy()), network: Params::default() };
        let at = |level: f64| learned.helps_at(level * learned.basis.scale);
        assert!(!at(0.25) && !at(0.3) && !at(15.0) && !at(20.0));
        assert!(at(2.0), "the level between");
    }

    fn toy() -> Embeddings {
        let mut rng = seed::stream(6, "denoise", "toy");
        Embeddings::new((0..200).map(|_| noise(&mut rng)).collect(), 4).expect("finite")
    }
}
