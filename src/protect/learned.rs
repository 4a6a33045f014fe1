//! `learned`: a projection trained against an adversary.

use super::Error;
use super::arguments::{Arguments, number};
use super::center::same_dim;
use super::claim::State;
use super::johnson_lindenstrauss::{fits, projector};
use super::pca::projected;
use super::public::{Moments, Public, eigen};
use super::rotate::{multiply, orthonormalise};
use super::stage::{Parameters, Release, Stage, out_of_range};
use crate::encode::Embeddings;
use crate::nn::kernel::{Layout, matmul};
use crate::seed;
use rand::seq::SliceRandom;
use std::sync::{Arc, OnceLock};

/// Projects onto the `dim` directions that keep cosines and starve an adversary, trained on public vectors.
///
/// # Formula
/// `x V' V`, the rows of `V` orthonormal, minimise `U + strength A`. With `z = V x`: `U` is the squared error of the cosines of
/// pairs of `z` against those of `x`, relative to the latter; `A` is the share of the fine part of `x` (what is left without the
/// mean of its nearest public neighbours: what tells one record from others of its kind) that the best ridge reader finds in
/// `z`. They take turns: the reader is fitted to the end, then `V` takes five steps down the gradient along the orthonormal
/// matrices. It starts from the principal directions.
///
/// # Shapes
/// `(n, d)` in and out: rows keep their `d` coordinates, so that they compare with raw ones.
///
/// # Guarantee
/// None: heuristic. It is only as good as the adversary that it was trained against, and every attacker that comes later is
/// another one. Without `public` it is trained on the rows themselves, and no guarantee holds for the release.
///
/// # Errors
/// `dim` above the rows' own dimension, public vectors of another dimension.
///
/// # Source
/// Adversarial representation learning (Edwards and Storkey 2016; for embeddings Coavoux et al. 2018). Differs: a linear
/// reader with a closed form, so that the adversary of a step is the best of its kind, and no labels.
#[derive(Debug, Clone)]
pub struct Learned {
    /// Directions that are kept.
    pub dim: usize,
    /// What one share of the adversary's success weighs against one share of lost cosines.
    pub strength: f64,
    /// What it is trained on; the rows themselves without it.
    pub public: Option<Public>,
    /// The directions learned from public vectors: trained once, shared by clones.
    trained: Arc<OnceLock<Vec<f64>>>,
}

/// Rows that training reads at most, spread over all.
const ROWS: usize = 2048;
/// Rows of a step.
const BATCH: usize = 256;
/// Steps on the projection.
const STEPS: usize = 150;
/// Steps between two adversaries.
const TURN: usize = 5;
/// Length of the first step, for each kept direction; it falls linearly to 0.
const STEP: f64 = 0.05;
/// Public neighbours whose mean is the coarse part of a row, at most an eighth of all.
const NEIGHBOURS: usize = 32;

impl PartialEq for Learned {
    fn eq(&self, other: &Self) -> bool {
        (self.dim, self.strength, &self.public) == (other.dim, other.strength, &other.public)
    }
}

impl Learned {
    /// The stage, not trained yet.
    pub fn new(dim: usize, strength: f64, public: Option<Public>) -> Self {
        Self { dim, strength, public, trained: Arc::default() }
    }

    pub(super) fn read(arguments: &mut Arguments<'_>) -> Self {
        let dim = arguments.count("dim", "64");
        let strength = arguments.optional_number("strength").unwrap_or(1.0);
        Self::new(dim, strength, Public::read(arguments))
    }

    /// The directions, one a row, for rows like `own` where no public vectors are named.
    fn directions(&self, own: &Embeddings) -> std::borrow::Cow<'_, [f64]> {
        match &self.public {
            Some(public) => self.trained.get_or_init(|| train(public.vectors(), self.dim, self.strength)).into(),
            None => train(own, self.dim, self.strength).into(),
        }
    }
}

impl Parameters for Learned {
    fn arguments(&self) -> Vec<(&'static str, String)> {
        [("dim", self.dim.to_string()), ("strength", number(self.strength))]
            .into_iter()
            .chain(self.public.iter().flat_map(Public::arguments))
            .collect()
    }

    fn check(&self) -> Vec<(&'static str, String)> {
        // A strength of 0 asks for no adversary.
        let strength = if self.strength == 0.0 { None } else { out_of_range("strength", self.strength, 1e-3, 1e3) };
        out_of_range("dim", self.dim as f64, 1.0, 1e6).into_iter().chain(strength).collect()
    }

    fn build(&self, _: &State) -> Result<Box<dyn Stage>, String> {
        Ok(Box::new(self.clone()))
    }
}

impl Stage for Learned {
    fn name(&self) -> &'static str {
        "learned"
    }

    fn apply(&self, mut release: Release, _: &mut dyn rand::Rng) -> Result<Release, Error> {
        let d = release.vectors.dim();
        fits(self.name(), self.dim, d)?;
        same_dim(self.name(), self.public.as_ref(), d)?;
        let matrix = projector(&self.directions(&release.vectors), self.dim, d, 1.0);
        multiply(&mut release.vectors, &matrix);
        Ok(release)
    }

    fn guarantee(&self, before: &State) -> State {
        projected(
            before,
            self.name(),
            self.public.as_ref(),
            "`learned`: an adversarially trained projection promises nothing: the attacker that comes is not the one it was trained against",
        )
    }
}

/// Rows of unit length, and what tells each from its neighbours.
struct Lesson {
    n: usize,
    d: usize,
    /// `(n, d)`.
    x: Vec<f32>,
    /// `(n, d)`.
    fine: Vec<f32>,
}

impl Lesson {
    fn of(vectors: &Embeddings) -> Self {
        let d = vectors.dim();
        let every = vectors.len().div_ceil(ROWS).max(1);
        let mut x = Vec::with_capacity(vectors.len().min(ROWS) * d);
        for row in vectors.rows().step_by(every) {
            let length = super::clip::norm(row).max(f64::MIN_POSITIVE);
            x.extend(row.iter().map(|&v| (f64::from(v) / length) as f32));
        }
        let n = x.len() / d;
        let near = product(&x, Layout::Plain, &x, Layout::Transposed, [n, d, n]);
        let m = (n / 8).clamp(1, NEIGHBOURS);
        let mut fine = x.clone();
        for (i, row) in fine.chunks_exact_mut(d).enumerate() {
            let mut others: Vec<usize> = (0..n).filter(|&j| j != i).collect();
            others.sort_by(|&a, &b| near[i * n + b].total_cmp(&near[i * n + a]));
            for &j in others.iter().take(m) {
                row.iter_mut().zip(&x[j * d..(j + 1) * d]).for_each(|(v, other)| *v -= other / m as f32);
            }
        }
        Self { n, d, x, fine }
    }

    fn rows(&self, of: &[f32], which: &[usize]) -> Vec<f32> {
        which.iter().flat_map(|&i| of[i * self.d..(i + 1) * self.d].iter().copied()).collect()
    }
}

/// `a b` with `[m, k, n]` as in [`matmul`].
fn product(a: &[f32], a_layout: Layout, b: &[f32], b_layout: Layout, [m, k, n]: [usize; 3]) -> Vec<f32> {
    let mut out = vec![0.0; m * n];
    matmul(&mut out, a, a_layout, b, b_layout, m, k, n, false);
    out
}

/// The directions, `(dim, d)` with orthonormal rows.
fn train(vectors: &Embeddings, dim: usize, strength: f64) -> Vec<f64> {
    let mut directions = Moments::of(vectors).axes().directions[..dim * vectors.dim()].to_vec();
    let lesson = Lesson::of(vectors);
    if lesson.n < 4 {
        return directions;
    }
    let mut order: Vec<usize> = (0..lesson.n).collect();
    order.shuffle(&mut seed::stream(0, "learned", "order of the rows"));
    let mut rows = order.iter().copied().cycle();
    let mut reader = Vec::new();
    for step in 0..STEPS {
        let kept: Vec<f32> = directions.iter().map(|&v| v as f32).collect();
        if step % TURN == 0 && strength > 0.0 {
            reader = best_reader(&lesson, &kept, dim);
        }
        let batch: Vec<usize> = rows.by_ref().take(BATCH.min(lesson.n)).collect();
        let slope = gradient(&lesson, &batch, &kept, dim, &reader, strength);
        descend(&mut directions, &slope, lesson.d, STEP * (1.0 - step as f64 / STEPS as f64));
    }
    directions
}

/// The adversary: `B` of `fine = z B` by ridge regression, `(dim, d)`.
fn best_reader(lesson: &Lesson, kept: &[f32], dim: usize) -> Vec<f32> {
    let &Lesson { n, d, .. } = lesson;
    let z = product(&lesson.x, Layout::Plain, kept, Layout::Transposed, [n, d, dim]);
    let seen = product(&z, Layout::Transposed, &z, Layout::Plain, [dim, n, dim]);
    let told = product(&z, Layout::Transposed, &lesson.fine, Layout::Plain, [dim, n, d]);
    let axes = eigen(seen.iter().map(|&v| f64::from(v)).collect(), dim);
    let ridge = 1e-3 * axes.variances.iter().sum::<f64>() / dim as f64;
    // (Q' L Q + ridge)^-1 told, Q the axes.
    let basis: Vec<f32> = axes.directions.iter().map(|&v| v as f32).collect();
    let mut turned = product(&basis, Layout::Plain, &told, Layout::Plain, [dim, dim, d]);
    for (row, variance) in turned.chunks_exact_mut(d).zip(&axes.variances) {
        for v in row {
            *v /= (variance + ridge).max(f64::MIN_POSITIVE) as f32;
        }
    }
    product(&basis, Layout::Transposed, &turned, Layout::Plain, [dim, dim, d])
}

/// The derivative of `U + strength A` on a batch with respect to the directions, `(dim, d)`.
fn gradient(lesson: &Lesson, batch: &[usize], kept: &[f32], dim: usize, reader: &[f32], strength: f64) -> Vec<f32> {
    let (b, d) = (batch.len(), lesson.d);
    let x = lesson.rows(&lesson.x, batch);
    let z = product(&x, Layout::Plain, kept, Layout::Transposed, [b, d, dim]);
    // U: with u = z / |z|, sum (u_i u_j - x_i x_j)^2 / sum (x_i x_j)^2 over pairs.
    let lengths: Vec<f32> = z.chunks_exact(dim).map(|row| (super::clip::norm(row) as f32).max(1e-6)).collect();
    let u: Vec<f32> = z.chunks_exact(dim).zip(&lengths).flat_map(|(row, l)| row.iter().map(move |v| v / l)).collect();
    let truth = product(&x, Layout::Plain, &x, Layout::Transposed, [b, d, b]);
    let mut miss = product(&u, Layout::Plain, &u, Layout::Transposed, [b, dim, b]);
    miss.iter_mut().zip(&truth).for_each(|(m, t)| *m -= t);
    (0..b).for_each(|i| miss[i * b + i] = 0.0);
    let total: f64 = truth.iter().map(|&t| f64::from(t).powi(2)).sum::<f64>() - b as f64;
    let mut slope = product(&miss, Layout::Plain, &u, Layout::Plain, [b, b, dim]);
    let scale = (4.0 / total.max(f64::MIN_POSITIVE)) as f32;
    for ((row, u), length) in slope.chunks_exact_mut(dim).zip(u.chunks_exact(dim)).zip(&lengths) {
        let along: f32 = row.iter().zip(u).map(|(a, b)| a * b).sum();
        row.iter_mut().zip(u).for_each(|(v, u)| *v = scale * (*v - along * u) / length);
    }
    if strength > 0.0 {
        // A: 1 - |fine - z B|^2 / |fine|^2.
        let fine = lesson.rows(&lesson.fine, batch);
        let mut left = product(&z, Layout::Plain, reader, Layout::Plain, [b, dim, d]);
        left.iter_mut().zip(&fine).for_each(|(v, f)| *v = f - *v);
        let size: f64 = fine.iter().map(|&f| f64::from(f).powi(2)).sum();
        let scale = (2.0 * strength / size.max(f64::MIN_POSITIVE)) as f32;
        let told = product(&left, Layout::Plain, reader, Layout::Transposed, [b, d, dim]);
        slope.iter_mut().zip(&told).for_each(|(v, t)| *v += scale * t);
    }
    product(&slope, Layout::Transposed, &x, Layout::Plain, [dim, b, d])
}

/// A step of `length` for each direction down `slope`, along the orthonormal matrices.
fn descend(directions: &mut [f64], slope: &[f32], d: usize, length: f64) {
    let dim = directions.len() / d;
    let kept: Vec<f32> = directions.iter().map(|&v| v as f32).collect();
    let inside = product(slope, Layout::Plain, &kept, Layout::Transposed, [dim, d, dim]);
    let inside = product(&inside, Layout::Plain, &kept, Layout::Plain, [dim, dim, d]);
    let tangent: Vec<f64> = slope.iter().zip(&inside).map(|(s, i)| f64::from(s - i)).collect();
    let size = tangent.iter().map(|t| t * t).sum::<f64>().sqrt();
    // All directions are kept, or nothing is left to gain: there is nowhere to go.
    if size > 1e-12 {
        let scale = length * (dim as f64).sqrt() / size;
        directions.iter_mut().zip(&tangent).for_each(|(v, t)| *v -= scale * t);
        orthonormalise(directions, d);
    }
}

#[cfg(test)]
mod tests {
    use super::super::law::released;
    use super::*;
    use crate::protect::Pipeline;
    use rand_distr::{Distribution, StandardNormal};

    const D: usize = 32;
    const TOPICS: usize = 6;

    /// Six topics in five coordinates, and twelve coordinates of more variance that tell records of a topic apart.
    fn records(n: usize, which: &str) -> (Embeddings, Vec<usize>) {
        let (mut topics, mut rng) = (seed::stream(1, "learned", "topics"), seed::stream(1, "learned", which));
        let normal = |rng: &mut seed::Stream| -> f64 { StandardNormal.sample(rng) };
        let centres: Vec<f64> = (0..TOPICS * 5).map(|_| 1.5 * normal(&mut topics)).collect();
        let mut values = Vec::new();
        for i in 0..n {
            let centre = &centres[i % TOPICS * 5..];
            let topic = centre.iter().take(5).map(|c| (*c, 0.2));
            for (mean, spread) in topic.chain([(0.0, 1.5); 12]).chain([(0.0, 0.05); D - 17]) {
                values.push((mean + spread * normal(&mut rng)) as f32);
            }
        }
        (Embeddings::new(values, D).expect("finite"), (0..n).map(|i| i % TOPICS).collect())
    }

    /// The share of the records' fine part that a reader fitted on one half of them finds in the other, and how often the
    /// nearest released row is of the same topic.
    fn reads_and_keeps(pipeline: &str) -> (f64, f64) {
        let (x, topic) = records(1200, "held out");
        let y = released(pipeline, &x, 1);
        let lesson = Lesson::of(&x);
        // Every topic in either half.
        let half = |which: usize| (0..x.len()).filter(|i| i / TOPICS % 2 == which).collect::<Vec<_>>();
        let (own, others) = (half(0), half(1));
        let part = |which: &[usize]| Lesson {
            n: which.len(),
            d: D,
            x: which.iter().flat_map(|&i| y.row(i).iter().copied()).collect(),
            fine: lesson.rows(&lesson.fine, which),
        };
        let identity: Vec<f32> = (0..D * D).map(|at| f32::from(u8::from(at / D == at % D))).collect();
        let reader = best_reader(&part(&own), &identity, D);
        let test = part(&others);
        let read = product(&test.x, Layout::Plain, &reader, Layout::Plain, [test.n, D, D]);
        let left: f64 = read.iter().zip(&test.fine).map(|(a, b)| f64::from(a - b).powi(2)).sum();
        let size: f64 = test.fine.iter().map(|&f| f64::from(f).powi(2)).sum();
        let same = (0..y.len()).filter(|&i| {
            let cosine =
                |j: usize| f64::from(crate::nn::kernel::dot(y.row(i), y.row(j))) / super::super::clip::norm(y.row(j));
            let best = (0..y.len()).filter(|&j| j != i).max_by(|&a, &b| cosine(a).total_cmp(&cosine(b)));
            best.is_some_and(|best| topic[best] == topic[i])
        });
        (1.0 - left / size, same.count() as f64 / y.len() as f64)
    }

    #[test]
    fn the_adversary_reads_less_and_topics_stay_where_principal_directions_give_records_away() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("public.npy");
        crate::data::vectors::write(&path, &records(1536, "public").0, None).expect("writable");
        let public = format!("public={}", path.display());
        let pca = reads_and_keeps(&format!("pca(dim=6, {public})"));
        let idle = reads_and_keeps(&format!("learned(dim=6, strength=0, {public})"));
        let trained = reads_and_keeps(&format!("learned(dim=6, strength=4, {public})"));
        assert!(trained.0 < 0.6 * pca.0 && trained.0 < 0.6 * idle.0, "reads {trained:?} {idle:?} {pca:?}");
        assert!(trained.1 > pca.1 && trained.1 > 0.9, "keeps {trained:?} {idle:?} {pca:?}");
        // It is a defence that was measured, not a promise.
        let claim = Pipeline::parse(&format!("clip(l2=1) | learned(dim=6, {public})")).expect("valid").claim();
        assert_eq!((claim.kind(), claim.epsilon(1e-5)), ("none", None));
        assert!(claim.warnings.iter().any(|w| w.contains("adversarially trained")), "{:?}", claim.warnings);
    }

    #[test]
    fn the_gradient_is_that_of_the_objective() {
        let (x, _) = records(24, "gradient");
        let lesson = Lesson::of(&x);
        let (dim, strength) = (4, 0.7);
        let kept: Vec<f32> = Moments::of(&x).axes().directions[..dim * D].iter().map(|&v| v as f32).collect();
        let reader = best_reader(&lesson, &kept, dim);
        let batch: Vec<usize> = (0..24).collect();
        let objective = |kept: &[f32]| -> f64 {
            let z: Vec<Vec<f64>> = (0..24)
                .map(|i| {
                    let x = &lesson.x[i * D..(i + 1) * D];
                    kept.chunks_exact(D).map(|v| x.iter().zip(v).map(|(a, b)| f64::from(a * b)).sum()).collect()
                })
                .collect();
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            let (mut off, mut all, mut left, mut size) = (0.0, 0.0, 0.0, 0.0);
            for i in 0..24 {
                for j in (0..24).filter(|&j| j != i) {
                    let row = |i: usize| lesson.x[i * D..(i + 1) * D].iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
                    let truth = dot(&row(i), &row(j));
                    let cosine = dot(&z[i], &z[j]) / (dot(&z[i], &z[i]) * dot(&z[j], &z[j])).sqrt();
                    off += (cosine - truth).powi(2);
                    all += truth * truth;
                }
                for c in 0..D {
                    let read: f64 = (0..dim).map(|k| z[i][k] * f64::from(reader[k * D + c])).sum();
                    let fine = f64::from(lesson.fine[i * D + c]);
                    left += (fine - read).powi(2);
                    size += fine * fine;
                }
            }
            off / all + strength * (1.0 - left / size)
        };
        let slope = gradient(&lesson, &batch, &kept, dim, &reader, strength);
        for at in [0, 3, D + 7, 2 * D + 1, 3 * D + 16] {
            let step = 1e-2_f32;
            let moved = |by: f32| {
                let mut kept = kept.clone();
                kept[at] += by;
                objective(&kept)
            };
            let numeric = (moved(step) - moved(-step)) / (2.0 * f64::from(step));
            let exact = f64::from(slope[at]);
            assert!((numeric - exact).abs() < 1e-3 + 0.02 * exact.abs(), "{at}: {numeric} against {exact}");
        }
    }
}
