//! Noise that a record keeps: released again, it is the same release.

use super::pipeline::all_finite;
use super::{Error, Pipeline, Release};
use crate::encode::Embeddings;
use crate::seed;
use rand::SeedableRng;
use rayon::prelude::*;

/// Releases every record with noise of its own that depends on nothing but the secret, the record and the pipeline.
///
/// # Formula
/// The noise of a record is drawn from a `ChaCha` stream under `HMAC(secret, id, pipeline, vector)`; the message authentication
/// code is keyed BLAKE3. A changed pipeline or an edited vector is another release, which adds up with the earlier one; a mere
/// repetition is the same bytes, and an attacker has nothing to average.
///
/// # Shapes
/// As [`Pipeline::release`]; `ids`, one for each row, keep apart what two records with one vector release.
///
/// # Errors
/// A pipeline that learns from the rows that it releases, or that releases groups: what one record becomes would then depend on
/// the others. Rows that are not finite.
pub fn release(
    pipeline: &Pipeline,
    clean: &Embeddings,
    ids: Option<&[String]>,
    secret: &[u8; 32],
) -> Result<Release, Error> {
    let refuse = |why: &str| Err(Error::pipeline(&pipeline.to_string(), &[why.to_owned()]));
    if pipeline.has_groups() {
        return refuse("releases groups; memoized noise belongs to single records");
    }
    if pipeline.state().tainted.is_some() {
        return refuse("learns from the rows that it releases; name a `public` file for memoized noise");
    }
    if let Some(ids) = ids.filter(|ids| ids.len() != clean.len()) {
        return Err(Error::Input(format!("{} ids for {} rows", ids.len(), clean.len())));
    }
    all_finite(clean, "input")?;
    let name = pipeline.to_string();
    let rows: Vec<Release> = (0..clean.len())
        .into_par_iter()
        .map(|i| {
            let row = clean.row(i);
            let mut mac = blake3::Hasher::new_keyed(secret);
            for part in [ids.map_or("", |ids| &ids[i]), &name] {
                mac.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
            }
            for v in row {
                mac.update(&v.to_le_bytes());
            }
            let mut rng = seed::Stream::from_seed(*mac.finalize().as_bytes());
            let one = Embeddings::new(row.to_vec(), clean.dim()).expect("a row has its table's dimension");
            pipeline.release(&one, None, &mut rng).map_err(|error| match error {
                // The row's number among all rows, not among the one that was released.
                Error::Input(why) => Error::Input(why.replace("released row 0", &format!("released row {i}"))),
                other => other,
            })
        })
        .collect::<Result<_, _>>()?;
    let mut vectors = Embeddings::empty(clean.dim());
    for one in &rows {
        vectors.push(one.vectors.row(0));
    }
    let members = (0..clean.len() as u32).map(|i| vec![i]).collect();
    Ok(Release { vectors, members, strata: None, noise: rows.first().and_then(|one| one.noise) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_distr::{Distribution, StandardNormal};

    const SECRET: [u8; 32] = [7; 32];

    fn rows(n: usize) -> Embeddings {
        let mut rng = seed::stream(2, "memoize", "rows");
        let mut values: Vec<f32> = (0..n * 64).map(|_| StandardNormal.sample(&mut rng)).collect();
        for row in values.chunks_exact_mut(64) {
            let length = super::super::clip::norm(row) as f32;
            for v in row {
                *v /= length;
            }
        }
        Embeddings::new(values, 64).expect("finite")
    }

    fn noise(x: &Embeddings, y: &Embeddings) -> Vec<f64> {
        y.values().iter().zip(x.values()).map(|(y, x)| f64::from(y - x)).collect()
    }

    fn correlation(a: &[f64], b: &[f64]) -> f64 {
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
        dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
    }

    /// Fresh noise averages away as `1 / sqrt k`; memoized noise is the same bytes, and sixteen releases show what one does.
    /// 12 800 numbers have a correlation of .009 by chance: five times that is passed once in two million.
    #[test]
    fn repeating_a_release_gives_nothing_to_average() {
        let x = rows(200);
        let pipeline: Pipeline = "clip(l2=1) | gaussian(sigma=0.5)".parse().expect("valid");
        let once = release(&pipeline, &x, None, &SECRET).expect("finite rows");
        for _ in 0..3 {
            assert_eq!(release(&pipeline, &x, None, &SECRET).expect("finite rows"), once);
        }
        // In another order and in other company a record keeps its noise.
        let turned: Vec<usize> = (0..100).rev().collect();
        let part = release(&pipeline, &x.select(&turned), None, &SECRET).expect("finite rows").vectors;
        assert!((0..100).all(|i| part.row(i) == once.vectors.row(99 - i)));

        let own = noise(&x, &once.vectors);
        let sigma = (own.iter().map(|v| v * v).sum::<f64>() / own.len() as f64).sqrt();
        assert!((sigma / 0.5 - 1.0).abs() < 0.03, "{sigma}");
        let apart = |other: Release| correlation(&own, &noise(&x, &other.vectors)).abs();
        let changed: Pipeline = "clip(l2=1) | gaussian(sigma=0.6)".parse().expect("valid");
        assert!(apart(release(&changed, &x, None, &SECRET).expect("finite")) < 0.045, "another pipeline");
        assert!(apart(release(&pipeline, &x, None, &[8; 32]).expect("finite")) < 0.045, "another secret");
        let ids: Vec<String> = (0..200).map(|i| format!("record {i}")).collect();
        assert!(apart(release(&pipeline, &x, Some(&ids), &SECRET).expect("finite")) < 0.045, "another id");
        // An edit so small that the difference of two releases with one noise would be the edit itself.
        let mut edited = x.clone();
        edited.values_mut().iter_mut().for_each(|v| *v *= 1.0 + 1e-6);
        let again = release(&pipeline, &edited, None, &SECRET).expect("finite");
        assert!(correlation(&own, &noise(&edited, &again.vectors)).abs() < 0.045, "an edited record");
    }

    #[test]
    fn what_depends_on_other_rows_is_refused_and_bad_rows_are_named() {
        let of = |text: &str, x: &Embeddings| release(&text.parse().expect("valid"), x, None, &SECRET);
        let groups = of("clip(l2=1) | prototype(members=4) | gaussian(sigma=1)", &rows(8)).expect_err("groups");
        assert!(groups.to_string().contains("single records"), "{groups}");
        let fitted = of("center | clip(l2=1) | gaussian(sigma=1)", &rows(8)).expect_err("a private fit");
        assert!(fitted.to_string().contains("`public`"), "{fitted}");
        let mut bad = rows(8);
        bad.row_mut(5)[2] = f32::INFINITY;
        let error = of("clip(l2=1) | gaussian(sigma=1)", &bad).expect_err("an infinite value");
        assert!(error.to_string().contains("input row 5") && error.exit() == crate::Exit::Input, "{error}");
        let error = release(&"identity".parse().expect("valid"), &rows(2), Some(&["a".to_owned()]), &SECRET);
        assert_eq!(error.expect_err("one id").to_string(), "cannot protect the input: 1 ids for 2 rows");
    }
}
