//! A low cosine is not privacy: the figures that must still raise the alarm.

use rand_distr::{Distribution, StandardNormal};
use stitchback::encode::Embeddings;
use stitchback::measure::{identify, similarity};
use stitchback::protect::Pipeline;
use stitchback::seed;

const DIM: usize = 512;
const TOPICS: usize = 200;
const MEMBERS: usize = 50;

/// Unit vectors of a narrow cone with a falling spectrum, like those of image encoders; `shared` is the part of the
/// variance that the members of a topic have in common.
fn cone(shared: f32) -> (Embeddings, Vec<u32>) {
    let mut rng = seed::stream(1, "false privacy", "cone");
    let total: f32 = (1..DIM).map(|k| 1.0 / k as f32).sum();
    let scales: Vec<f32> = (1..DIM).map(|k| (1.0 / (k as f32 * total)).sqrt()).collect();
    let mut draw = || -> Vec<f32> { StandardNormal.sample_iter(&mut rng).take(DIM - 1).collect() };
    let (mut rows, mut strata) = (Embeddings::empty(DIM), Vec::new());
    for topic in 0..TOPICS {
        let common = draw();
        for _ in 0..MEMBERS {
            let parts = common.iter().zip(draw()).zip(&scales);
            let mut row: Vec<f32> =
                parts.map(|((a, b), s)| s * (shared.sqrt() * a + (1.0 - shared).sqrt() * b)).collect();
            row.push(1.0);
            let norm = row.iter().map(|v| v * v).sum::<f32>().sqrt();
            for v in &mut row {
                *v /= norm;
            }
            rows.push(&row);
            strata.push(topic as u32);
        }
    }
    (rows, strata)
}

/// Prototypes of 50 at epsilon = 1 have a cosine of about .25 to what they protect, and yet name their topic.
#[test]
fn at_a_cosine_of_a_fifth_the_group_is_identified_and_the_cosine_alone_would_not_say_so() {
    let (clean, strata) = cone(0.6);
    let text = format!("clip(l2=1) | prototype(members={MEMBERS}) | gaussian(epsilon=1, delta=1e-5)");
    let pipeline: Pipeline = text.parse().expect("valid");
    let stream = || seed::stream(2, "false privacy", "release");
    let truth = pipeline.without_noise().release(&clean, Some(&strata), &mut stream()).expect("prototypes");
    let seen = pipeline.release(&clean, Some(&strata), &mut stream()).expect("prototypes");
    assert_eq!(seen.members, truth.members, "the groups are the same");
    let cosines = similarity::cosines(&seen.vectors, &truth.vectors).expect("one size");
    let cosine = cosines.iter().flatten().sum::<f64>() / TOPICS as f64;
    // Chapter and verse: |p| / sqrt(|p|^2 + d sigma^2) = .258 for a norm of .897.
    assert!((cosine - 0.258).abs() < 0.01, "{cosine}");

    // About the mean: what all prototypes share tells none from another.
    let mean: Vec<f32> = (0..DIM).map(|j| truth.vectors.rows().map(|r| r[j]).sum::<f32>() / TOPICS as f32).collect();
    let own: Vec<usize> = (0..TOPICS).collect();
    let ranks = identify::closed_set(&seen.vectors.about(&mean), &truth.vectors.about(&mean), &own).expect("ranks");
    let top1 = identify::top(&ranks, 1).into_iter().flatten().sum::<f64>() / TOPICS as f64;
    assert!(top1 > 0.3, "{top1} beside a chance of {}", 1.0 / TOPICS as f64);
}
