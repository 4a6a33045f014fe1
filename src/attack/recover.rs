//! Recovery of secret linear transforms from leaked pairs, in closed form.
//!
//! | map | when | pairs that it takes |
//! |---|---|---|
//! | [`ridge`], [`ridge_loo`] | any linear transform, noise, spaces of different dimension; always below full rank | about `d` |
//! | [`procrustes`] | a rotation, once there are as many pairs as coordinates: it keeps lengths | `d` |
//! | [`permutation`] | shuffled coordinates | 3 |
//! | [`scalar`] | one secret factor | 1 |
//!
//! Rows are pairs: row `i` of `x` belongs to row `i` of `y`. Everything is computed in `f64`.

use super::linear::{Cholesky, add_to_diagonal};
use crate::encode::Embeddings;
use crate::protect::rotate::orthonormalise;
use rayon::prelude::*;

/// Strengths of the ridge that [`ridge_loo`] tries, as shares of the mean squared norm of the rows it maps.
const GRID: [f64; 10] = [1e-6, 1e-4, 1e-2, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0];

/// A linear map between two spaces: `x -> (x - from) W + to`.
#[derive(Debug, Clone, PartialEq)]
pub struct LinearMap {
    /// `(p, q)`, row-major.
    weights: Vec<f64>,
    from: Vec<f64>,
    to: Vec<f64>,
}

impl LinearMap {
    fn new(weights: Vec<f64>, p: usize, q: usize) -> Self {
        Self { weights, from: vec![0.0; p], to: vec![0.0; q] }
    }

    /// The map of a square matrix about a point that stays where it is.
    pub(super) fn about(weights: Vec<f64>, point: Vec<f64>) -> Self {
        Self { weights, from: point.clone(), to: point }
    }

    /// Maps every row.
    ///
    /// # Shapes
    /// `(n, p)` in, `(n, q)` out.
    pub fn apply(&self, x: &Embeddings) -> Embeddings {
        let (p, q) = (self.from.len(), self.to.len());
        let mut out = product(&centred(x, &self.from), &self.weights, x.len(), p, q);
        add_rows(&mut out, &self.to);
        Embeddings::new(out.into_iter().map(|v| v as f32).collect(), q).expect("a finite map of finite rows is finite")
    }
}

/// A map beside what it would have said about each of its own pairs, had that pair not been leaked.
#[derive(Debug, Clone, PartialEq)]
pub struct Fit {
    /// The map from all pairs.
    pub map: LinearMap,
    /// Row `i`: the image of pair `i` under the map from all other pairs; the mean of `y` for a single pair.
    pub left_out: Embeddings,
    /// The ridge, as a share of the mean squared norm.
    pub lambda: f64,
}

/// Ridge regression from `x` to `y`, without an intercept.
///
/// # Formula
/// `W = (X'X + lambda I)^-1 X'Y`; with fewer pairs than coordinates the same matrix as `X' (X X' + lambda I)^-1 Y`. A
/// small `lambda` gives the map of minimum norm. On isotropic vectors behind a secret rotation, `k < d` pairs recover the
/// others up to a cosine of `sqrt(k / d)`.
///
/// # Shapes
/// `(k, p)` and `(k, q)` in, a map from `p` to `q` out.
pub fn ridge(x: &Embeddings, y: &Embeddings, lambda: f64) -> LinearMap {
    let (p, q) = (x.dim(), y.dim());
    LinearMap::new(solve(&wide(x), &wide(y), x.len(), p, q, lambda).weights, p, q)
}

/// Ridge regression with an intercept, its strength chosen by leaving out one pair at a time.
///
/// # Formula
/// Both sides are centred on their means; `lambda` minimises `sum_i |y_i - y^_i|^2` over a logarithmic grid, `y^_i` being
/// the image of `x_i` under the map from all other pairs: `y_i - (y_i - W'x_i) / (1 - h_i - 1/k)`, with
/// `h_i = x_i' (X'X + lambda I)^-1 x_i`.
///
/// # Source
/// Allen 1974 (PRESS); the aligner of ALGEN (Chen et al. 2025), which takes `lambda` = 0.
pub fn ridge_loo(x: &Embeddings, y: &Embeddings) -> Fit {
    let (k, p, q) = (x.len(), x.dim(), y.dim());
    let (from, to) = (mean(x), mean(y));
    let (xc, yc) = (centred(x, &from), centred(y, &to));
    let scale = xc.iter().map(|v| v * v).sum::<f64>() / k.max(1) as f64;
    let with_means = |weights| LinearMap { weights, from: from.clone(), to: to.clone() };
    let told = |mut rows: Vec<f64>| {
        add_rows(&mut rows, &to);
        Embeddings::new(rows.into_iter().map(|v| v as f32).collect(), q).expect("finite pairs give finite images")
    };
    if k < 3 || scale <= 0.0 {
        // Nothing to learn a direction from: the mean answers everything.
        return Fit { map: with_means(vec![0.0; p * q]), left_out: told(vec![0.0; k * q]), lambda: f64::INFINITY };
    }
    let mut best: Option<(f64, f64, Vec<f64>, Vec<f64>)> = None;
    for share in GRID {
        let solved = solve(&xc, &yc, k, p, q, share * scale);
        let mut images = yc.clone();
        let mut error = 0.0;
        for i in 0..k {
            let keep = (1.0 - solved.leverage[i] - 1.0 / k as f64).max(1e-9);
            for (y, fitted) in images[i * q..(i + 1) * q].iter_mut().zip(&solved.fitted[i * q..(i + 1) * q]) {
                let left_out = (*y - fitted) / keep;
                error += left_out * left_out;
                *y -= left_out;
            }
        }
        if best.as_ref().is_none_or(|b| error < b.0) {
            best = Some((error, share, solved.weights, images));
        }
    }
    let (_, lambda, weights, images) = best.expect("the grid is not empty");
    Fit { map: with_means(weights), left_out: told(images), lambda }
}

struct Solved {
    weights: Vec<f64>,
    fitted: Vec<f64>,
    leverage: Vec<f64>,
}

fn solve(x: &[f64], y: &[f64], k: usize, p: usize, q: usize, lambda: f64) -> Solved {
    let xt = transposed(x, k, p);
    let invert = |mut gram: Vec<f64>, n: usize| {
        let trace: f64 = (0..n).map(|i| gram[i * n + i]).sum();
        // Rounding must not cost the factor: the floor is below the last digits of the Gram matrix.
        let mut ridge = lambda.max(1e-13 * trace).max(f64::MIN_POSITIVE);
        add_to_diagonal(&mut gram, n, ridge);
        loop {
            if let Some(factor) = Cholesky::new(&gram, n) {
                return inverse(&factor, n);
            }
            add_to_diagonal(&mut gram, n, 9.0 * ridge);
            ridge *= 10.0;
        }
    };
    if k < p {
        let inverse = invert(product(x, &xt, k, p, k), k);
        let dual = product(&inverse, y, k, k, q);
        let weights = product(&xt, &dual, p, k, q);
        let fitted = product(x, &weights, k, p, q);
        // I - H = lambda (X X' + lambda I)^-1; the product form stays exact when lambda vanishes.
        let gram_inverse = product(&product(x, &xt, k, p, k), &inverse, k, k, k);
        let leverage = (0..k).map(|i| gram_inverse[i * k + i]).collect();
        Solved { weights, fitted, leverage }
    } else {
        let inverse = invert(product(&xt, x, p, k, p), p);
        let weights = product(&inverse, &product(&xt, y, p, k, q), p, p, q);
        let fitted = product(x, &weights, k, p, q);
        let half = product(x, &inverse, k, p, p);
        let leverage = half.chunks_exact(p).zip(x.chunks_exact(p)).map(|(a, b)| inner(a, b)).collect();
        Solved { weights, fitted, leverage }
    }
}

/// The orthogonal map that brings `x` closest to `y`.
///
/// # Formula
/// `W = U V'` with `X'Y = U S V'`, the minimum of `|X W - Y|` over orthogonal `W`. With fewer pairs than coordinates the
/// rest of the space is completed arbitrarily, which costs more than it brings: on isotropic vectors the cosine is `k / d`,
/// where [`ridge`] reaches `sqrt(k / d)`.
///
/// # Shapes
/// `(k, d)` and `(k, d)` in, a map from `d` to `d` out.
///
/// # Source
/// Schönemann 1966.
pub fn procrustes(x: &Embeddings, y: &Embeddings) -> LinearMap {
    let (k, d) = (x.len(), x.dim());
    assert_eq!(y.dim(), d, "a rotation keeps the dimension");
    let cross = product(&transposed(&wide(x), k, d), &wide(y), d, k, d);
    let Svd { left, right, .. } = svd(&cross, d);
    LinearMap::new(product(&transposed(&left, d, d), &right, d, d, d), d, d)
}

/// The shuffling of coordinates that brings `x` closest to `y`: coordinate `j` of `y` is coordinate `out[j]` of `x`.
///
/// # Formula
/// `argmin over permutations s of sum_j |x_(.,s(j)) - y_(.,j)|^2`, a linear assignment. For isotropic noise this is maximum
/// likelihood.
///
/// # Source
/// The assignment by shortest augmenting paths: Jonker and Volgenant 1987.
pub fn permutation(x: &Embeddings, y: &Embeddings) -> Vec<usize> {
    let (k, d) = (x.len(), x.dim());
    assert_eq!(y.dim(), d, "a permutation keeps the dimension");
    let (xt, yt) = (transposed(&wide(x), k, d), transposed(&wide(y), k, d));
    let cost: Vec<f64> = (0..d * d)
        .map(|at| {
            let (a, b) = (&yt[at / d * k..(at / d + 1) * k], &xt[at % d * k..(at % d + 1) * k]);
            a.iter().zip(b).map(|(p, q)| (p - q) * (p - q)).sum()
        })
        .collect();
    assign(&cost, d)
}

/// The factor that brings `x` closest to `y`: `<x, y> / <x, x>`; 0 for rows of zeros.
pub fn scalar(x: &Embeddings, y: &Embeddings) -> f64 {
    let (x, y) = (wide(x), wide(y));
    let square = inner(&x, &x);
    if square > 0.0 { inner(&x, &y) / square } else { 0.0 }
}

/// The column for each row that makes the sum of `cost` (`(n, n)`) least.
fn assign(cost: &[f64], n: usize) -> Vec<usize> {
    // Rows and columns count from 1; column 0 holds the row that is being placed.
    let (mut row_price, mut column_price) = (vec![0.0; n + 1], vec![0.0; n + 1]);
    let mut row_of = vec![0_usize; n + 1];
    for row in 1..=n {
        row_of[0] = row;
        let (mut least, mut from) = (vec![f64::INFINITY; n + 1], vec![0_usize; n + 1]);
        let mut used = vec![false; n + 1];
        let mut column = 0;
        while row_of[column] != 0 {
            used[column] = true;
            let (i, mut delta, mut next) = (row_of[column], f64::INFINITY, 0);
            for j in (1..=n).filter(|&j| !used[j]) {
                let reduced = cost[(i - 1) * n + j - 1] - row_price[i] - column_price[j];
                if reduced < least[j] {
                    (least[j], from[j]) = (reduced, column);
                }
                if least[j] < delta {
                    (delta, next) = (least[j], j);
                }
            }
            for j in 0..=n {
                if used[j] {
                    row_price[row_of[j]] += delta;
                    column_price[j] -= delta;
                } else {
                    least[j] -= delta;
                }
            }
            column = next;
        }
        while column != 0 {
            let before = from[column];
            row_of[column] = row_of[before];
            column = before;
        }
    }
    let mut column_of = vec![0; n];
    for column in 1..=n {
        column_of[row_of[column] - 1] = column - 1;
    }
    column_of
}

/// `m = sum_i values[i] left_i right_i'`: singular vectors as rows, values descending.
pub(super) struct Svd {
    /// `(n, n)`: row `i` is the `i`-th left singular vector.
    pub left: Vec<f64>,
    /// The singular values.
    pub values: Vec<f64>,
    /// `(n, n)`: row `i` is the `i`-th right singular vector.
    pub right: Vec<f64>,
}

/// Singular value decomposition of a square matrix by one-sided Jacobi rotations.
///
/// # Formula
/// Columns of `M` are rotated in pairs until all are orthogonal; their lengths are the values, their directions the left
/// vectors, the accumulated rotations the right vectors. Left vectors of value zero are completed by Gram-Schmidt. For a
/// symmetric positive matrix both sides are its eigenvectors.
///
/// # Source
/// Hestenes 1958.
pub(super) fn svd(m: &[f64], n: usize) -> Svd {
    const SWEEPS: usize = 40;
    /// Cosine between two columns below which they count as orthogonal.
    const ORTHOGONAL: f64 = 1e-12;
    // Columns as rows, longest first: rotations then sort themselves into place and fewer sweeps are needed.
    let columns = transposed(m, n, n);
    let lengths: Vec<f64> = columns.chunks_exact(n).map(|c| inner(c, c)).collect();
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&a, &b| lengths[b].total_cmp(&lengths[a]));
    let mut a: Vec<f64> = order.iter().flat_map(|&i| columns[i * n..(i + 1) * n].to_vec()).collect();
    let mut v = vec![0.0; n * n];
    for (row, &column) in order.iter().enumerate() {
        v[row * n + column] = 1.0;
    }
    let negligible = 1e-28 * lengths.iter().sum::<f64>();
    for _ in 0..SWEEPS {
        let mut turned = false;
        for p in 0..n {
            for q in p + 1..n {
                let (ap, aq) = two_rows(&mut a, p, q, n);
                let (pp, qq, pq) = (inner(ap, ap), inner(aq, aq), inner(ap, aq));
                let size = (pp * qq).sqrt();
                if pq.abs() <= ORTHOGONAL * size || size <= negligible {
                    continue;
                }
                turned = true;
                let zeta = (qq - pp) / (2.0 * pq);
                let t = zeta.signum() / (zeta.abs() + (1.0 + zeta * zeta).sqrt());
                let c = (1.0 + t * t).sqrt().recip();
                turn(ap, aq, c, c * t);
                let (vp, vq) = two_rows(&mut v, p, q, n);
                turn(vp, vq, c, c * t);
            }
        }
        if !turned {
            break;
        }
    }
    let lengths: Vec<f64> = a.chunks_exact(n).map(|c| inner(c, c).sqrt()).collect();
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&x, &y| lengths[y].total_cmp(&lengths[x]).then(x.cmp(&y)));
    let pick = |from: &[f64]| -> Vec<f64> { order.iter().flat_map(|&i| from[i * n..(i + 1) * n].to_vec()).collect() };
    let (mut left, right) = (pick(&a), pick(&v));
    let values: Vec<f64> = order.iter().map(|&i| lengths[i]).collect();
    let floor = 1e-12 * values.first().copied().unwrap_or(0.0);
    for (row, &value) in left.chunks_exact_mut(n).zip(&values) {
        // What is left of a column of value zero is rounding, and has no direction.
        if value <= floor {
            row.fill(0.0);
        }
    }
    orthonormalise(&mut left, n);
    Svd { left, values, right }
}

fn two_rows(a: &mut [f64], p: usize, q: usize, n: usize) -> (&mut [f64], &mut [f64]) {
    let (head, tail) = a.split_at_mut(q * n);
    (&mut head[p * n..(p + 1) * n], &mut tail[..n])
}

fn turn(a: &mut [f64], b: &mut [f64], c: f64, s: f64) {
    for (x, y) in a.iter_mut().zip(b) {
        (*x, *y) = (c * *x - s * *y, s * *x + c * *y);
    }
}

fn inner(a: &[f64], b: &[f64]) -> f64 {
    // Eight running sums: a fixed order that the compiler can vectorise.
    let mut lanes = [0.0; 8];
    let (mut pa, mut pb) = (a.chunks_exact(8), b.chunks_exact(8));
    for (ca, cb) in (&mut pa).zip(&mut pb) {
        for ((lane, x), y) in lanes.iter_mut().zip(ca).zip(cb) {
            *lane += x * y;
        }
    }
    lanes.iter().sum::<f64>() + pa.remainder().iter().zip(pb.remainder()).map(|(x, y)| x * y).sum::<f64>()
}

/// `a b` for row-major `a` of shape `(n, p)` and `b` of shape `(p, q)`; each row is one thread's work.
pub(super) fn product(a: &[f64], b: &[f64], n: usize, p: usize, q: usize) -> Vec<f64> {
    let mut out = vec![0.0; n * q];
    if p == 0 || q == 0 {
        return out;
    }
    out.par_chunks_mut(q).zip(a.par_chunks(p)).for_each(|(row, left)| {
        for (&weight, right) in left.iter().zip(b.chunks_exact(q)) {
            row.iter_mut().zip(right).for_each(|(o, r)| *o += weight * r);
        }
    });
    out
}

/// The inverse of a factored matrix.
pub(super) fn inverse(factor: &Cholesky, n: usize) -> Vec<f64> {
    let mut out = vec![0.0; n * n];
    // Symmetric: column `j` may be written as row `j`.
    out.par_chunks_mut(n).enumerate().for_each(|(j, column)| {
        column[j] = 1.0;
        factor.solve(column);
    });
    out
}

fn transposed(a: &[f64], n: usize, p: usize) -> Vec<f64> {
    (0..n * p).map(|at| a[at % n * p + at / n]).collect()
}

fn wide(x: &Embeddings) -> Vec<f64> {
    x.values().iter().map(|&v| f64::from(v)).collect()
}

fn mean(x: &Embeddings) -> Vec<f64> {
    let mut mean = vec![0.0; x.dim()];
    for row in x.rows() {
        mean.iter_mut().zip(row).for_each(|(m, &v)| *m += f64::from(v) / x.len() as f64);
    }
    mean
}

fn centred(x: &Embeddings, mean: &[f64]) -> Vec<f64> {
    x.rows().flat_map(|row| row.iter().zip(mean).map(|(&v, m)| f64::from(v) - m)).collect()
}

fn add_rows(rows: &mut [f64], row: &[f64]) {
    for r in rows.chunks_exact_mut(row.len()) {
        r.iter_mut().zip(row).for_each(|(v, m)| *v += m);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::kernel::dot;
    use crate::protect::Pipeline;
    use crate::seed;
    use rand::seq::SliceRandom;
    use rand_distr::{Distribution, StandardNormal};

    const D: usize = 128;

    /// Unit vectors in all directions alike.
    fn isotropic(n: usize, d: usize, name: &str) -> Embeddings {
        let mut rng = seed::stream(11, "recover", name);
        let mut values: Vec<f32> = (0..n * d).map(|_| StandardNormal.sample(&mut rng)).collect();
        for row in values.chunks_exact_mut(d) {
            let norm = dot(row, row).sqrt();
            for v in row.iter_mut() {
                *v /= norm;
            }
        }
        Embeddings::new(values, d).expect("finite")
    }

    fn released(pipeline: &str, x: &Embeddings) -> Embeddings {
        let pipeline: Pipeline = pipeline.parse().expect("valid");
        pipeline.release(x, None, &mut seed::stream(2, "recover", "noise")).expect("finite").vectors
    }

    fn mean_cosine(a: &Embeddings, b: &Embeddings) -> f64 {
        let cosine = |(a, b): (&[f32], &[f32])| f64::from(dot(a, b) / (dot(a, a) * dot(b, b)).sqrt());
        a.rows().zip(b.rows()).map(cosine).sum::<f64>() / a.len() as f64
    }

    fn first(x: &Embeddings, k: usize) -> Embeddings {
        x.select(&(0..k).collect::<Vec<_>>())
    }

    /// The golden shares of 100, 200 and 300 pairs at 384 coordinates, at 128 coordinates. An arbitrary completion moves
    /// the Procrustes cosine by about `1 / d`; over 1 500 held-out rows the rest of the error is below .003.
    #[test]
    fn a_secret_rotation_falls_to_as_many_pairs_as_it_has_coordinates() {
        let (known, held_out) = (isotropic(D, D, "leaked"), isotropic(1500, D, "targets"));
        let (seen, targets) = (released("rotate(key=7)", &known), released("rotate(key=7)", &held_out));
        let wrong = released("rotate(key=8)", &held_out);
        for k in [33, 67, 100, D] {
            let share = k as f64 / D as f64;
            let (y, x) = (first(&seen, k), first(&known, k));
            let orthogonal = procrustes(&y, &x);
            let got = mean_cosine(&orthogonal.apply(&targets), &held_out);
            assert!((got - share).abs() < 0.02, "Procrustes from {k} pairs: {got} against {share}");
            let least = ridge(&y, &x, 1e-9);
            let got = mean_cosine(&least.apply(&targets), &held_out);
            assert!((got - share.sqrt()).abs() < 0.02, "minimum norm from {k} pairs: {got} against {}", share.sqrt());
            for map in [orthogonal, least] {
                let other = mean_cosine(&map.apply(&wrong), &held_out);
                assert!(other.abs() < 0.02, "another key's releases must say nothing: {other}");
            }
        }
    }

    #[test]
    fn a_permutation_falls_to_three_pairs_and_a_factor_to_one() {
        let d = 384;
        let x = isotropic(3, d, "permutation");
        let mut secret: Vec<usize> = (0..d).collect();
        secret.shuffle(&mut seed::stream(3, "recover", "permutation"));
        let values = x.rows().flat_map(|row| secret.iter().map(|&j| row[j]).collect::<Vec<_>>()).collect();
        let y = Embeddings::new(values, d).expect("finite");
        assert_eq!(permutation(&x, &y), secret);

        let one = first(&x, 1);
        let scaled = Embeddings::new(one.values().iter().map(|v| -2.6 * v).collect(), d).expect("finite");
        assert!((scalar(&one, &scaled) + 2.6).abs() < 1e-6);
        assert_eq!(scalar(&Embeddings::new(vec![0.0; 4], 4).expect("finite"), &first(&x, 0)), 0.0);
    }

    #[test]
    fn the_assignment_is_the_cheapest_even_where_greed_is_not() {
        // Greed takes the 0 first and pays 9; the optimum avoids it.
        assert_eq!(assign(&[0.0, 1.0, 1.0, 9.0], 2), [1, 0]);
        assert_eq!(assign(&[4.0, 1.0, 3.0, 2.0, 0.0, 5.0, 3.0, 2.0, 2.0], 3), [1, 0, 2]);
        assert_eq!(assign(&[], 0), Vec::<usize>::new());
    }

    #[test]
    fn few_pairs_and_many_give_the_same_ridge() {
        let (x, y) = (isotropic(40, 12, "x"), isotropic(40, 5, "y"));
        for (k, lambda) in [(8, 0.3), (40, 0.3)] {
            let (x, y) = (first(&x, k), first(&y, k));
            let (xs, ys) = (wide(&x), wide(&y));
            let xt = transposed(&xs, k, 12);
            let w = ridge(&x, &y, lambda).weights;
            // The normal equations (X'X + lambda) W = X'Y hold whichever form was solved.
            let mut gram = product(&xt, &xs, 12, k, 12);
            add_to_diagonal(&mut gram, 12, lambda);
            let (left, right) = (product(&gram, &w, 12, 12, 5), product(&xt, &ys, 12, k, 5));
            for (l, r) in left.iter().zip(&right) {
                assert!((l - r).abs() < 1e-9, "{k} pairs: {l} against {r}");
            }
        }
    }

    /// The shortcut against the definition: fit again without each pair.
    #[test]
    fn left_out_images_are_what_the_other_pairs_say() {
        for (k, p) in [(9, 14), (30, 6)] {
            let (x, y) = (isotropic(k, p, "loo x"), isotropic(k, 4, "loo y"));
            let fit = ridge_loo(&x, &y);
            let (from, to) = (mean(&x), mean(&y));
            let scale = centred(&x, &from).iter().map(|v| v * v).sum::<f64>() / k as f64;
            for i in [0, 4, k - 1] {
                let others: Vec<usize> = (0..k).filter(|&j| j != i).collect();
                let (xs, ys) = (x.select(&others), y.select(&others));
                let (mx, my) = (mean(&xs), mean(&ys));
                let solved = solve(&centred(&xs, &mx), &centred(&ys, &my), k - 1, p, 4, fit.lambda * scale).weights;
                let map = LinearMap { weights: solved, from: mx, to: my };
                let expected = map.apply(&x.select(&[i]));
                for (got, want) in fit.left_out.row(i).iter().zip(expected.row(0)) {
                    assert!((got - want).abs() < 1e-4, "{k} pairs, {i} left out: {got} against {want}");
                }
            }
            assert!(to.iter().all(|m| m.is_finite()));
        }
    }

    #[test]
    fn noise_asks_for_a_stronger_ridge() {
        let x = isotropic(200, 32, "noisy");
        let clean = ridge_loo(&released("rotate(key=7)", &x), &x).lambda;
        let noisy = ridge_loo(&released("rotate(key=7) | gaussian(sigma=0.3)", &x), &x).lambda;
        assert!(clean <= 1e-2 && noisy >= 10.0 * clean, "{clean} {noisy}");
    }

    #[test]
    fn one_pair_says_no_more_than_its_text() {
        let (x, y) = (isotropic(1, 8, "one x"), isotropic(1, 4, "one y"));
        let fit = ridge_loo(&x, &y);
        assert_eq!(fit.map.apply(&isotropic(1, 8, "another")).row(0), y.row(0));
    }

    #[test]
    fn singular_vectors_rebuild_a_matrix_of_low_rank() {
        let n = 20;
        let (x, y) = (isotropic(6, n, "left"), isotropic(6, n, "right"));
        let m = product(&transposed(&wide(&x), 6, n), &wide(&y), n, 6, n);
        let Svd { left, values, right } = svd(&m, n);
        assert!(values.windows(2).all(|w| w[0] >= w[1]) && values[5] > 0.05 && values[6] < 1e-12, "{values:?}");
        for vectors in [&left, &right] {
            let square = product(vectors, &transposed(vectors, n, n), n, n, n);
            for (at, v) in square.iter().enumerate() {
                let want = f64::from(u8::from(at / n == at % n));
                assert!((v - want).abs() < 1e-10, "{at}: {v}");
            }
        }
        for i in 0..n {
            for j in 0..n {
                let got: f64 = (0..n).map(|s| values[s] * left[s * n + i] * right[s * n + j]).sum();
                assert!((got - m[i * n + j]).abs() < 1e-12);
            }
        }
    }
}
