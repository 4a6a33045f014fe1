//! The gradient gate: no white-box attack is scored unless its gradient is the real one.

use super::Pixels;
use crate::attack::Error;
use crate::encode::{Encoder, WhiteBox};
use crate::nn::kernel::dot;
use crate::seed;
use rand::RngExt;
use rand_distr::{Distribution, StandardNormal};

/// Single pixels and whole directions that are compared.
const PIXELS: usize = 32;
const DIRECTIONS: usize = 4;
/// Largest relative error of a direction's derivative.
const TOLERANCE: f64 = 1e-2;
/// Lengths of a step: kinks spoil long ones, rounding spoils short ones, and a wrong gradient agrees with none.
const STEPS: [f32; 6] = [0.03, 0.01, 3e-3, 1e-3, 3e-4, 1e-4];
/// Likewise for a single value, whose slope is small beside the corners of a deep network.
const VALUE_STEPS: [f32; 5] = [0.02, 0.001, 4e-4, 2e-4, 1e-4];
/// Pictures that are tried.
const TRIES: usize = 4;
/// Pixels in the side of a block that must have a gradient.
const BLOCK: usize = 8;

/// The gradients of an encoder, checked.
///
/// # Errors
/// When it offers none, or they are not the real ones; `attack` is who needs them.
pub fn open<'a>(
    encoder: &'a dyn Encoder,
    attack: &'static str,
    pixels: &Pixels,
    rng: &mut seed::Stream,
) -> Result<&'a dyn WhiteBox, Error> {
    let white_box = encoder.white_box().ok_or_else(|| Error::Needs {
        attack,
        what: format!("gradients through `{}`, which it does not offer", encoder.info().name),
    })?;
    check(white_box, pixels, rng)?;
    Ok(white_box)
}

/// Compares the gradient through the whole encoder with central differences.
///
/// # Formula
/// For the loss `E(x).u`, `u` random: the derivatives along four random directions agree within 1 %, those of 32 single
/// values correlate with `r > .99` (both at the best of a few steps), and every block of 8 x 8 pixels has a gradient that
/// is not zero. A gradient that is cut somewhere looks like perfect privacy; one that is partly right is worse.
///
/// A deep network of corners can spoil the differences of one picture, not those of every picture; a wrong gradient agrees
/// with none. So up to four pictures are tried, with a little noise: on a flat background whole layers sit on a corner.
///
/// # Errors
/// [`Error::Gradient`] says what disagrees.
pub fn check(encoder: &dyn WhiteBox, pixels: &Pixels, rng: &mut seed::Stream) -> Result<(), Error> {
    let mut verdict = Ok(());
    for _ in 0..TRIES {
        let row = pixels.row(rng.random_range(0..pixels.len()));
        // In the middle of the range, so that no step leaves it.
        let x: Vec<f32> = row
            .iter()
            .map(|v| {
                let noise: f32 = StandardNormal.sample(rng);
                0.1 + 0.8 * v + 0.02 * noise
            })
            .collect();
        verdict = compare(encoder, &x, pixels.side(), rng);
        if !matches!(verdict, Err(Error::Gradient(_))) {
            break;
        }
    }
    verdict
}

/// The comparison for one picture.
fn compare(encoder: &dyn WhiteBox, x: &[f32], side: usize, rng: &mut seed::Stream) -> Result<(), Error> {
    let mut direction: Vec<f32> = Vec::new();
    let gradient = encoder.gradient(x, side, &mut |vectors| {
        direction = vectors.row(0).iter().map(|_| StandardNormal.sample(rng)).collect();
        direction.clone()
    })?;
    let loss = |x: &[f32]| -> Result<f64, Error> {
        let mut value = 0.0;
        encoder.gradient(x, side, &mut |vectors| {
            value = f64::from(dot(vectors.row(0), &direction));
            vec![0.0; direction.len()]
        })?;
        Ok(value)
    };
    let slope = |d: &[f32], h: f32| -> Result<f64, Error> {
        let moved = |h: f32| -> Vec<f32> { x.iter().zip(d).map(|(x, d)| x + h * d).collect() };
        Ok((loss(&moved(h))? - loss(&moved(-h))?) / (2.0 * f64::from(h)))
    };
    let refuse = |why: String| Err(Error::Gradient(why));
    let mut worst = 0.0_f64;
    for _ in 0..DIRECTIONS {
        // Half along the gradient: a random direction alone has next to no slope to compare.
        let norm = dot(&gradient, &gradient).sqrt().max(1e-12);
        let spread = (x.len() as f32).sqrt();
        let noise = rng.sample_iter(StandardNormal).take(x.len());
        let d: Vec<f32> = gradient.iter().zip(noise).map(|(g, z): (&f32, f32)| g / norm + 0.5 * z / spread).collect();
        let expected = f64::from(dot(&gradient, &d));
        let mut error = f64::INFINITY;
        for h in STEPS {
            error = error.min((slope(&d, h)? - expected).abs() / expected.abs().max(1e-9));
        }
        worst = worst.max(error);
    }
    if worst > TOLERANCE {
        return refuse(format!("along a direction it differs from the slope by {:.1} %", 100.0 * worst));
    }
    let values: Vec<usize> = (0..PIXELS).map(|_| rng.random_range(0..x.len())).collect();
    let mut together = -1.0_f64;
    for h in VALUE_STEPS {
        let mut pairs = Vec::with_capacity(PIXELS);
        for &at in &values {
            let mut d = vec![0.0; x.len()];
            d[at] = 1.0;
            pairs.push((f64::from(gradient[at]), slope(&d, h)?));
        }
        let inner = |f: fn(&(f64, f64)) -> f64| pairs.iter().map(f).sum::<f64>();
        together = together.max(inner(|p| p.0 * p.1) / (inner(|p| p.0 * p.0) * inner(|p| p.1 * p.1)).sqrt().max(1e-30));
    }
    if together < 0.99 {
        return refuse(format!("for single pixels it correlates with the slopes by {together:.3} only"));
    }
    for top in (0..side).step_by(BLOCK) {
        for left in (0..side).step_by(BLOCK) {
            let rows = top..(top + BLOCK).min(side);
            let dead = rows.clone().all(|y| {
                let from = 3 * (y * side + left);
                let to = 3 * (y * side + (left + BLOCK).min(side));
                gradient[from..to].iter().all(|g| *g == 0.0)
            });
            if dead {
                return refuse(format!("the block at ({left}, {top}) has none"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::{Embeddings, Encoder, Error as EncodeError, MapShape, Toy};

    /// A toy whose gradient is spoiled before it is handed out.
    struct Spoiled(Toy, Spoil);

    type Spoil = fn(&mut [f32]);

    impl WhiteBox for Spoiled {
        fn maps(&self) -> Vec<MapShape> {
            self.0.maps()
        }

        fn gradient_with_maps(
            &self,
            pixels: &[f32],
            side: usize,
            maps: &[usize],
            loss: &mut dyn FnMut(&[Embeddings]) -> Vec<Vec<f32>>,
        ) -> Result<Vec<f32>, EncodeError> {
            let mut gradient = self.0.gradient_with_maps(pixels, side, maps, loss)?;
            self.1(&mut gradient);
            Ok(gradient)
        }
    }

    #[test]
    fn the_real_gradient_passes_and_every_spoiled_one_is_refused() {
        let values: Vec<f32> = (0..3 * 16 * 16).map(|i| 0.5 + 0.4 * (i as f32 * 0.37).sin()).collect();
        let pixels = Pixels::new(16, values);
        let verdict = |encoder: &dyn WhiteBox| check(encoder, &pixels, &mut seed::stream(3, "gate", "draws"));
        assert!(Toy::new().white_box().is_some_and(|toy| verdict(toy).is_ok()));
        let spoils: [(Spoil, &str); 4] = [
            (|g| g.fill(0.0), "differs"),
            (|g| g.iter_mut().for_each(|g| *g *= 1.2), "differs"),
            // What is cut off hardly changes the slope along the rest, but the slopes of single values.
            (|g| g.iter_mut().step_by(3).for_each(|g| *g = 0.0), "single pixels"),
            (|g| (0..8).for_each(|y| g[48 * y..48 * y + 24].fill(0.0)), "single pixels"),
        ];
        for (spoil, why) in spoils {
            let error = verdict(&Spoiled(Toy::new(), spoil)).expect_err(why).to_string();
            assert!(error.contains("gradient is wrong") && error.contains(why), "{error}");
        }
    }
}
