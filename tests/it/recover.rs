//! A secret rotation of real vectors against the pairs that leak.

use stitchback::attack::recover;
use stitchback::data::{Keep, asset, corpus};
use stitchback::encode::{Embeddings, load};
use stitchback::protect::Pipeline;
use stitchback::{Error, seed};

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(p, q)| f64::from(*p) * f64::from(*q)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// Real sentences lie in few directions, so that fewer pairs than on isotropic vectors suffice, and identification falls
/// long before the matrix is known.
#[test]
fn a_secret_rotation_of_real_sentences_falls_to_a_hundred_pairs() {
    let keep = Keep { max_chars: 120, ..Keep::default() };
    let corpus =
        corpus::open::<Error>("bbc-news", &keep, &mut |name, wanted| Ok(asset::ensure(name, &())?.entries(wanted)?))
            .expect("the corpus can be fetched");
    let step = corpus.records.len() / 1400;
    let texts: Vec<&str> = corpus.records.iter().step_by(step).take(1400).map(|r| r.text.as_str()).collect();
    let dir = asset::ensure("all-minilm-l6-v2", &()).expect("MiniLM can be fetched").dir;
    let encoder = load("all-minilm-l6-v2", &dir, None).expect("the folder is supported");
    let mut clean = Embeddings::empty(encoder.info().dim);
    for wave in texts.chunks(200) {
        encoder.encode(wave).expect("encodes").rows().for_each(|row| clean.push(row));
    }
    let secret: Pipeline = "clip(l2=1) | rotate(key=7)".parse().expect("valid");
    let seen = secret.release(&clean, None, &mut seed::stream(1, "", "")).expect("finite rows").vectors;

    let held_out: Vec<usize> = (400..1400).collect();
    let (targets, truth) = (seen.select(&held_out), clean.select(&held_out));
    let read = |pairs: usize, lambda: f64| {
        let known: Vec<usize> = (0..pairs).collect();
        recover::ridge(&seen.select(&known), &clean.select(&known), lambda).apply(&targets)
    };
    let mut before = 0.0;
    for (pairs, least) in [(10, 0.0), (100, 0.65), (384, 0.98)] {
        let guess = read(pairs, 1e-3);
        let mean: f64 = guess.rows().zip(truth.rows()).map(|(a, b)| cosine(a, b)).sum::<f64>() / 1000.0;
        assert!(mean > before && mean >= least, "{pairs} pairs: cosine {mean}");
        before = mean;
    }
    let guess = read(100, 1e-9);
    let found = (0..1000).filter(|&i| {
        let own = cosine(guess.row(i), truth.row(i));
        (0..1000).all(|j| j == i || cosine(guess.row(i), truth.row(j)) < own)
    });
    let top1 = found.count() as f64 / 1000.0;
    assert!(top1 >= 0.9, "100 pairs identify {top1}");
}
