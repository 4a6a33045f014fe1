//! What makes an attacker adaptive: fresh draws of the real pipeline, denoising, averaging, noise-aware scores.

use super::denoise::{Denoising, Learned, Wiener};
use super::{Error, View, linear};
use crate::encode::Embeddings;
use crate::protect::{Domain, Pipeline};
use crate::seed;
use rayon::prelude::*;

/// What reads the signal out of a noisy row.
enum Denoiser {
    Wiener(Wiener),
    Learned(Learned),
}

/// The adaptive part that all attackers of one view share.
pub struct Adaptation<'a> {
    view: &'a View<'a>,
    denoiser: Option<Denoiser>,
    sigma: f64,
    /// Root mean square length of the encoder's vectors; exactly 1 where they have unit length.
    length: f64,
    members: usize,
}

impl<'a> Adaptation<'a> {
    /// Learns the signal's statistics from auxiliary records sent through the noise-free part of the pipeline.
    pub fn fit(view: &'a View<'a>) -> Result<Self, Error> {
        let dim = view.clean.dim();
        let noise = view.pipeline.noise_at(dim);
        let sigma = reading(view.pipeline, dim).1 / (view.releases as f64).sqrt();
        let members = noise.as_ref().map_or(1, |n| n.members).max(1);
        let denoiser = if sigma > 0.0 {
            // Named by the signal alone: protections that differ in their noise share it, and what is learnt from it.
            let quiet = view.pipeline.without_noise();
            let mut rng = seed::stream(view.seed, &format!("{} {quiet}", view.inputs), "signal statistics");
            let signal = quiet.release(view.clean, Some(view.strata), &mut rng)?.vectors;
            let learned = match view.denoising {
                Denoising::Wiener => None,
                Denoising::Learned => Learned::train(view, &signal)?.filter(|learned| learned.helps_at(sigma)),
            };
            Some(learned.map_or_else(|| Denoiser::Wiener(Wiener::fit(&signal, sigma)), Denoiser::Learned))
        } else {
            None
        };
        let square: f64 = view.clean.values().iter().map(|&v| f64::from(v).powi(2)).sum();
        let length = (square / view.clean.len().max(1) as f64).sqrt();
        let length = if (length - 1.0).abs() < 1e-3 || length <= 0.0 { 1.0 } else { length };
        Ok(Self { view, denoiser, sigma, length, members })
    }

    /// What the auxiliary records would release without the noise: row `i` is record `i`.
    pub fn signal(&self, purpose: &str) -> Result<Embeddings, Error> {
        let view = self.view;
        release(&view.pipeline.without_noise(), view.clean, view.strata, 1, |k| {
            seed::stream(view.seed, &view.fingerprint, &format!("signal, {purpose} {k}"))
        })
    }

    /// Noise per coordinate of what the attacker works on, after averaging its releases; 0 without noise.
    pub fn sigma(&self) -> f64 {
        self.sigma
    }

    /// The `s` of [`Adaptation::log_likelihood`]: no candidate is held to a likelihood sharper than that of noise of a tenth
    /// of a vector's length.
    pub fn spread(&self) -> f64 {
        self.sigma.max(0.1 * self.length)
    }

    /// Records behind one released row.
    pub fn members(&self) -> usize {
        self.members
    }

    /// The best estimate of the clean vectors that the view's denoiser has; the rows themselves without noise.
    pub fn denoise(&self, y: &Embeddings) -> Embeddings {
        match &self.denoiser {
            None => y.clone(),
            Some(Denoiser::Wiener(wiener)) => wiener.apply(y),
            Some(Denoiser::Learned(learned)) => learned.apply(y, self.sigma),
        }
    }

    /// A fresh draw of the real pipeline on the auxiliary records, as [`read`]: row `i` is what the attacker would see of
    /// record `i`.
    pub fn draw(&self, purpose: &str) -> Result<Embeddings, Error> {
        let seen = release(self.view.pipeline, self.view.clean, self.view.strata, self.view.releases, |k| {
            seed::stream(self.view.seed, &self.view.fingerprint, &format!("{purpose} {k}"))
        })?;
        Ok(read(self.view.pipeline, seen))
    }

    /// How well a candidate's clean vector explains a released row, as a log-likelihood up to a constant.
    ///
    /// # Formula
    /// `log p(y | x) = (y.x - |x|^2 / 2) / s^2`, `s = max(sigma, 0.1 C)`, `C` the vectors' length: without noise, one
    /// hundredth of a cosine is worth one nat of the language model.
    pub fn log_likelihood(&self, y: &[f32], candidate: &[f32]) -> f64 {
        let s = self.spread();
        let (mut product, mut norm) = (0.0_f64, 0.0_f64);
        for (&a, &b) in y.iter().zip(candidate) {
            product += f64::from(a) * f64::from(b);
            norm += f64::from(b) * f64::from(b);
        }
        (product - 0.5 * norm) / (s * s)
    }
}

/// Released rows as every attacker takes them: those that were shortened or lengthened after their noise have the length of
/// their signal again, so that `y = x + noise` holds for all that reads them.
pub fn read(pipeline: &Pipeline, mut released: Embeddings) -> Embeddings {
    let scale = reading(pipeline, released.dim()).0 as f32;
    released.values_mut().iter_mut().for_each(|v| *v *= scale);
    released
}

/// What a row of one release is multiplied by so that its mean is the signal, and the noise per coordinate that it then has.
///
/// # Formula
/// A signal of length `C` under noise `s` has length `L = sqrt(C^2 + d s^2)`, nearly the same for every row. `normalize` makes
/// that 1 and `clip` to `R` makes it `min(L, R)`, while the signal alone would have been left with `C' = 1` or `min(C, R)`:
/// `(C' L / (C min(L, R)), s C' / C)`. Rows that nothing came after are unbiased as they are.
pub(super) fn reading(pipeline: &Pipeline, dim: usize) -> (f64, f64) {
    let Some(noise) = pipeline.noise_at(dim) else { return (1.0, 0.0) };
    let (sigma, norm) = (noise.sigma_per_coordinate, noise.signal_norm);
    let length = norm.hypot(sigma * (dim as f64).sqrt());
    let (signal, row) = match pipeline.state_at(dim).domain {
        _ if !noise.rescaled => return (1.0, sigma),
        Domain::Sphere => (1.0, 1.0),
        Domain::L2 { radius } => (norm.min(radius), length.min(radius)),
        Domain::Unbounded => return (1.0, sigma),
    };
    (signal * length / (norm * row), sigma * signal / norm)
}

/// The noise before the rows were shortened or lengthened, from what is left of it on the rows: the inverse of what
/// `normalize` or `clip` to `R` did, `s = s' C / sqrt(R^2 - d s'^2)` for a signal of length `C`.
pub fn before_rescaling(pipeline: &Pipeline, dim: usize, left: f64) -> f64 {
    let Some(noise) = pipeline.noise_at(dim).filter(|noise| noise.rescaled) else { return left };
    let domain = pipeline.state_at(dim).domain;
    let (norm, noisy) = (noise.signal_norm, left * (dim as f64).sqrt());
    match domain.radius() {
        None => left,
        Some(radius) if domain != Domain::Sphere && norm.hypot(noisy) <= radius => left,
        // A release that is nearly all noise leaves its strength untold.
        Some(radius) => left * norm / (radius * radius - noisy * noisy).max(1e-3 * radius * radius).sqrt(),
    }
}

/// Standard deviation of isotropic noise, for an attacker that was not told it.
///
/// # Formula
/// The maximum-likelihood `s` for rows `y ~ N(m, S + s^2 I)`, with `m`, `S` the moments of the `signal`, which the attacker
/// knows from its own records: it minimises `log det(S + s^2 I) + tr((S + s^2 I)^-1 C)`, `C` the second moment of `y - m`.
/// Directions in which the signal hardly varies decide, so that a shift between corpora costs little. With few records of its
/// own (`n` not far above `d`) the attacker takes some of the signal for noise.
///
/// # Shapes
/// Both `(n, d)`; the numbers of rows may differ.
pub fn estimate_sigma(released: &Embeddings, signal: &Embeddings) -> f64 {
    /// Standard deviations that count as noise at all, relative to the rows' root mean square.
    const RANGE: (f64, f64) = (1e-3, 1.5);
    const STEPS: usize = 24;
    let d = signal.dim();
    let (mean, cov) = linear::moments(signal);
    let (shift, mut seen) = linear::moments(released);
    for i in 0..d {
        for j in 0..d {
            seen[i * d + j] += (shift[i] - mean[i]) * (shift[j] - mean[j]);
        }
    }
    let scale = ((0..d).map(|i| seen[i * d + i]).sum::<f64>() / d as f64).sqrt();
    let misfit = |log_sigma: f64| -> f64 {
        let mut model = cov.clone();
        linear::add_to_diagonal(&mut model, d, (2.0 * log_sigma).exp());
        let Some(factor) = linear::Cholesky::new(&model, d) else { return f64::INFINITY };
        let trace: f64 = (0..d)
            .into_par_iter()
            .map(|j| {
                let mut column = seen[j * d..(j + 1) * d].to_vec();
                factor.solve(&mut column);
                column[j]
            })
            .collect::<Vec<f64>>()
            .iter()
            .sum();
        factor.log_det() + trace
    };
    // Golden-section search: the misfit falls to its one valley and rises.
    let golden = 0.5 * (5.0_f64.sqrt() - 1.0);
    let (mut low, mut high) = ((scale * RANGE.0).ln(), (scale * RANGE.1).ln());
    let inner = |low: f64, high: f64| (high - golden * (high - low), low + golden * (high - low));
    let (mut a, mut b) = inner(low, high);
    let (mut at_a, mut at_b) = (misfit(a), misfit(b));
    for _ in 0..STEPS {
        if at_a < at_b {
            (high, b, at_b) = (b, a, at_a);
            a = inner(low, high).0;
            at_a = misfit(a);
        } else {
            (low, a, at_a) = (a, b, at_b);
            b = inner(low, high).1;
            at_b = misfit(b);
        }
    }
    (0.5 * (low + high)).exp()
}

/// Sends `clean` through `pipeline` `releases` times, averages, and gives each record the row that it stands behind.
pub fn release(
    pipeline: &Pipeline,
    clean: &Embeddings,
    strata: &[u32],
    releases: usize,
    mut stream: impl FnMut(usize) -> seed::Stream,
) -> Result<Embeddings, Error> {
    let mut seen = Embeddings::new(vec![0.0; clean.values().len()], clean.dim())?;
    for k in 0..releases.max(1) {
        let release = pipeline.release(clean, Some(strata), &mut stream(k))?;
        for (row, members) in release.members.iter().enumerate() {
            for &member in members {
                let sum = seen.row_mut(member as usize);
                sum.iter_mut().zip(release.vectors.row(row)).for_each(|(s, v)| *s += v);
            }
        }
    }
    let scale = 1.0 / releases.max(1) as f32;
    seen.values_mut().iter_mut().for_each(|v| *v *= scale);
    Ok(seen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::similarity;
    use rand_distr::{Distribution, StandardNormal};

    /// The model of every noise that is not normal serves the denoiser as well as a true one: after the filter the rows are as
    /// near to the signal as under normal noise of the same strength. (A cap tells nothing of one row in twenty: .03 of cosine.)
    #[test]
    fn every_kind_of_noise_is_denoised_like_normal_noise_of_its_strength() {
        let (n, d) = (1500, 96);
        let mut rng = seed::stream(11, "denoise", "signal");
        let mut values = Vec::with_capacity(n * d);
        for _ in 0..n {
            let row: Vec<f64> = (0..d)
                .map(|j| {
                    let g: f64 = StandardNormal.sample(&mut rng);
                    g / (j as f64 + 1.0)
                })
                .collect();
            let length = row.iter().map(|v| v * v).sum::<f64>().sqrt();
            values.extend(row.iter().map(|v| (v / length) as f32));
        }
        let clean = Embeddings::new(values, d).expect("finite");
        let mut denoised = |pipeline: &str| {
            let pipeline: Pipeline = pipeline.parse().expect("valid");
            let quiet = pipeline.without_noise();
            let mut draw = |p: &Pipeline| p.release(&clean, None, &mut rng).expect("finite rows").vectors;
            let (signal, y) = (draw(&quiet), read(&pipeline, draw(&pipeline)));
            let sigma = reading(&pipeline, d).1;
            let mean = |a: &Embeddings| mean_cosine(a, &signal);
            let guess = Wiener::fit(&signal, sigma).apply(&y);
            let off = guess
                .rows()
                .zip(signal.rows())
                .map(|(a, b)| a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>());
            (sigma, mean(&y), mean(&guess), off.sum::<f64>() / n as f64)
        };
        for pipeline in [
            "normalize | gaussian(sigma=0.2) | normalize",
            "clip(l2=1) | gaussian(sigma=0.2) | clip(l2=1)",
            "clip(l2=1) | gaussian(sigma=0.2) | clip(l2=0.5)",
            "clip(l2=1) | gaussian(sigma=0.2) | clip(l2=9)",
            "clip(l2=1) | laplace_l1(epsilon=120)",
            "clip(l2=1) | laplace_l2(rate=50)",
            "normalize | vmf(kappa=50)",
            "normalize | purkayastha(kappa=50)",
            "normalize | privunit(epsilon=12)",
            "normalize | privunit_g(epsilon=12)",
            "clip(l2=1) | discrete_gaussian(epsilon=80)",
            "scale_perturb(scale=1, beta=8)",
        ] {
            let (sigma, raw, cosine, off) = denoised(pipeline);
            let quiet = pipeline.parse::<Pipeline>().expect("valid").without_noise();
            let (_, raw_normal, cosine_normal, off_normal) = denoised(&format!("{quiet} | gaussian(sigma={sigma})"));
            assert!((raw - raw_normal).abs() < 0.02, "{pipeline}: raw {raw} {raw_normal}");
            assert!(
                cosine > raw + 0.05 && (cosine - cosine_normal).abs() < 0.05,
                "{pipeline}: {raw} {cosine} {cosine_normal}"
            );
            assert!((off / off_normal - 1.0).abs() < 0.1, "{pipeline}: {off} {off_normal}");
        }
    }

    #[test]
    fn an_attacker_that_was_not_told_sigma_finds_it() {
        let (n, d) = (6000, 128);
        let mut rng = seed::stream(5, "estimate", "signal");
        let mut draw = |n: usize, scale: &dyn Fn(usize) -> f64| {
            let values = (0..n * d).map(|at| {
                let g: f64 = StandardNormal.sample(&mut rng);
                (g * scale(at % d)) as f32
            });
            Embeddings::new(values.collect(), d).expect("finite")
        };
        let spectrum = |i: usize| (0.2 / (i as f64 + 1.0)).sqrt();
        let (own, targets) = (draw(n, &spectrum), draw(300, &spectrum));
        for sigma in [0.05, 0.1, 0.25] {
            let noise = draw(300, &|_| sigma);
            let mut y = targets.clone();
            y.values_mut().iter_mut().zip(noise.values()).for_each(|(v, e)| *v += e);
            let found = estimate_sigma(&y, &own);
            assert!((found / sigma - 1.0).abs() < 0.05, "{found} against {sigma}");
        }
    }

    #[test]
    fn noise_is_told_from_what_rescaling_left_of_it() {
        for (pipeline, left) in [
            ("normalize | gaussian(sigma=0.2) | normalize", 0.2 / (1.0 + 384.0 * 0.04_f64).sqrt()),
            ("clip(l2=1) | gaussian(sigma=0.2) | clip(l2=0.5)", 0.1 / (1.0 + 384.0 * 0.04_f64).sqrt()),
            ("clip(l2=1) | gaussian(sigma=0.2) | clip(l2=9)", 0.2),
            ("clip(l2=1) | gaussian(sigma=0.2)", 0.2),
        ] {
            let found = before_rescaling(&pipeline.parse().expect("valid"), 384, left);
            assert!((found - 0.2).abs() < 1e-9, "{pipeline}: {found}");
        }
    }

    /// Unit vectors, sigma .1: one release has cosine .455 to the truth, the mean of four .714, of sixteen .898.
    #[test]
    fn averaging_releases_does_what_one_over_root_k_says() {
        let mut rng = seed::stream(3, "averaging", "unit vectors");
        let mut values: Vec<f32> = (0..400 * 384).map(|_| StandardNormal.sample(&mut rng)).collect();
        for row in values.chunks_exact_mut(384) {
            let norm = row.iter().map(|v| v * v).sum::<f32>().sqrt();
            for v in row {
                *v /= norm;
            }
        }
        let clean = Embeddings::new(values, 384).expect("finite");
        let pipeline = "clip(l2=1) | gaussian(sigma=0.1)".parse().expect("a valid pipeline");
        for (k, expected) in [(1, 0.455), (4, 0.714), (16, 0.898)] {
            let seen = release(&pipeline, &clean, &[0; 400], k, |i| seed::stream(9, "averaging", &format!("{k} {i}")));
            let seen = seen.expect("releases");
            let mean = mean_cosine(&seen, &clean);
            assert!((mean - expected).abs() < 0.01, "{k} releases: {mean} against {expected}");
        }
    }

    fn mean_cosine(a: &Embeddings, b: &Embeddings) -> f64 {
        let each = similarity::cosines(a, b).expect("row by row");
        each.iter().map(|c| c.expect("a direction")).sum::<f64>() / each.len() as f64
    }
}
