//! `quantize`: few bits for each coordinate.

use super::Error;
use super::arguments::{Arguments, number};
use super::claim::{Domain, Noise, Sensitivity, State};
use super::stage::{Parameters, Release, Stage, out_of_range};
use rayon::prelude::*;

/// Rounds every coordinate to one of `2^bits` even steps between `-range` and `range`.
///
/// # Formula
/// `g round((x + R) / g) - R` after clamping to `-R..R`, `g = 2 R / (2^bits - 1)`, `R` = `range`.
///
/// # Guarantee
/// None: a row is still told from any other that lies more than a step away. It moves a row by at most `g sqrt(d) / 2`,
/// which a bound from before is widened by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quantize {
    /// Bits for each coordinate.
    pub bits: u32,
    /// The largest magnitude of a coordinate.
    pub range: f64,
}

impl Quantize {
    pub(super) fn read(arguments: &mut Arguments<'_>) -> Self {
        let bits = arguments.count("bits", "8") as u32;
        Self { bits, range: arguments.optional_number("range").unwrap_or(1.0) }
    }

    fn step(self) -> f64 {
        2.0 * self.range / (2_f64.powi(self.bits as i32) - 1.0)
    }
}

impl Parameters for Quantize {
    fn arguments(&self) -> Vec<(&'static str, String)> {
        vec![("bits", self.bits.to_string()), ("range", number(self.range))]
    }

    fn check(&self) -> Vec<(&'static str, String)> {
        let bits = out_of_range("bits", f64::from(self.bits), 1.0, 16.0);
        bits.into_iter().chain(out_of_range("range", self.range, 1e-20, 1e20)).collect()
    }

    fn build(&self, _: &State) -> Result<Box<dyn Stage>, String> {
        Ok(Box::new(*self))
    }
}

impl Stage for Quantize {
    fn name(&self) -> &'static str {
        "quantize"
    }

    fn apply(&self, mut release: Release, _: &mut dyn rand::Rng) -> Result<Release, Error> {
        let (step, range) = (self.step(), self.range);
        release.vectors.values_mut().par_iter_mut().for_each(|v| {
            let inside = f64::from(*v).clamp(-range, range);
            *v = (((inside + range) / step).round() * step - range) as f32;
        });
        Ok(release)
    }

    fn guarantee(&self, before: &State) -> State {
        let mut after = before.clone();
        let moved = before.dim.map(|d| 0.5 * self.step() * (d as f64).sqrt());
        let radius = before.domain.radius().zip(moved).map(|(radius, moved)| radius + moved);
        after.domain = radius.map_or(Domain::Unbounded, |radius| Domain::L2 { radius });
        after.sensitivity = before
            .sensitivity
            .as_ref()
            .zip(moved)
            .map(|(s, moved)| Sensitivity { l2: s.l2 + 2.0 * moved, formula: format!("{} + g sqrt(d)", s.formula) });
        if let Noise::Gaussian { model, running } = &mut after.noise {
            // Rounding errors are spread evenly over a step once there is noise.
            model.sigma_per_coordinate = model.sigma_per_coordinate.hypot(self.step() / 12_f64.sqrt());
            *running = None;
        }
        after.promises_nothing(
            "`quantize`: rounding promises nothing: rows further apart than a step are told apart every time",
        );
        after
    }
}

#[cfg(test)]
mod tests {
    use super::super::law::{copies, released};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_coordinate_moves_by_more_than_half_a_step(bits in 1_u32..12, range in 0.3..2.0_f64) {
            let clean = copies(2, 32);
            let out = released(&format!("quantize(bits={bits}, range={range})"), &clean, 1);
            let step = 2.0 * range / (2_f64.powi(bits as i32) - 1.0);
            for (&a, &b) in clean.values().iter().zip(out.values()) {
                let inside = f64::from(a).clamp(-range, range);
                prop_assert!((inside - f64::from(b)).abs() <= 0.5 * step + 1e-6);
            }
            let mut levels: Vec<u32> = out.values().iter().map(|v| v.to_bits()).collect();
            levels.sort_unstable();
            levels.dedup();
            prop_assert!(levels.len() <= 1 << bits);
        }
    }
}
