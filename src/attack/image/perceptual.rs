//! What a public network finds different between a drawn picture and the true one.

use super::{Pixels, gate};
use crate::attack::{Error, View};
use crate::encode::WhiteBox;
use crate::nn;
use crate::seed;
use candle_core::{Device, Tensor};

/// Pictures of a batch that the network looks at: it costs more than the painter.
const LOOKED_AT: usize = 8;
/// Inner maps that are compared beside the vectors, evenly through the network's depth.
const MAPS: usize = 3;

/// The view's surrogate as a loss: it is neither the victim nor the judge, so that whoever pleases it pleases neither by design.
///
/// # Formula
/// `w mean_t |f_t(x^) - f_t(x)|^2 / |f_t(x)|^2` over the vectors and three inner maps `f_t` of the network.
///
/// # Source
/// Dosovitskiy and Brox 2016 (`DeePSiM`); Johnson et al. 2016. Differs: each map counts relative to its own length.
pub(super) struct Eye<'a> {
    network: &'a dyn WhiteBox,
    maps: Vec<usize>,
    weight: f64,
}

impl<'a> Eye<'a> {
    /// Nothing without a surrogate or a weight.
    ///
    /// # Errors
    /// When the surrogate has no exact gradient.
    pub(super) fn open(view: &View<'a>, pixels: &Pixels, weight: f64) -> Result<Option<Self>, Error> {
        let Some(surrogate) = view.surrogate.filter(|_| weight > 0.0) else { return Ok(None) };
        let mut rng = seed::stream(view.seed, &view.inputs, "gradient check of the surrogate");
        let network = gate::open(surrogate.encoder, "image_decoder", pixels, &mut rng)?;
        let depth = network.maps().len();
        let maps = (1..=MAPS.min(depth)).map(|k| (k * depth / (MAPS + 1)).min(depth - 1)).collect();
        Ok(Some(Self { network, maps, weight }))
    }

    /// A term whose gradient with respect to `drawn` is that of the loss; its value means nothing.
    ///
    /// # Shapes
    /// `drawn` and `truth` `(n, side, side, 3)`; the first few pictures are looked at.
    pub(super) fn pull(&self, drawn: &Tensor, truth: &Tensor) -> Result<Tensor, nn::Error> {
        let (n, side, _, _) = drawn.dims4()?;
        let k = n.min(LOOKED_AT);
        let (drawn, truth) = (drawn.narrow(0, 0, k)?, truth.narrow(0, 0, k)?);
        let both = Tensor::cat(&[&drawn.detach(), &truth], 0)?.flatten_all()?.to_vec1::<f32>()?;
        let gradient = self.gradient(&both, side, k).map_err(|e| candle_core::Error::Msg(e.to_string()))?;
        let gradient = Tensor::from_slice(&gradient, drawn.dims(), &Device::Cpu)?;
        Ok((drawn * gradient)?.sum_all()?)
    }

    /// The loss's gradient with respect to the first `k` of `2 k` pictures, which are beside the true ones.
    fn gradient(&self, both: &[f32], side: usize, k: usize) -> Result<Vec<f32>, crate::encode::Error> {
        let scale = self.weight / (k * (self.maps.len() + 1)) as f64;
        let mut gradient = self.network.gradient_with_maps(both, side, &self.maps, &mut |tables| {
            let slopes = |table: &crate::encode::Embeddings| {
                let mut out = vec![0.0_f32; table.values().len()];
                let rows = out.chunks_exact_mut(table.dim()).take(k).enumerate();
                for (i, row) in rows {
                    let (a, b) = (table.row(i), table.row(k + i));
                    let length = b.iter().map(|b| f64::from(b * b)).sum::<f64>().max(1e-12);
                    let factor = (2.0 * scale / length) as f32;
                    row.iter_mut().zip(a.iter().zip(b)).for_each(|(s, (a, b))| *s = factor * (a - b));
                }
                out
            };
            tables.iter().map(slopes).collect()
        })?;
        gradient.truncate(both.len() / 2);
        Ok(gradient)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::{Encoder, Toy};

    /// The pull is the slope of the loss that the formula states, and a picture drawn right feels none.
    #[test]
    fn the_pull_is_the_slope_of_the_stated_loss() {
        let toy = Toy::new();
        let network = toy.white_box().expect("the toy has gradients");
        let eye = Eye { network, maps: (0..network.maps().len().min(2)).collect(), weight: 0.5 };
        let side = 16;
        let picture = |phase: f32| -> Vec<f32> {
            (0..3 * side * side).map(|i| 0.5 + 0.4 * (i as f32 * 0.37 + phase).sin()).collect()
        };
        let (drawn, truth) = (picture(0.0), picture(1.3));
        let loss = |drawn: &[f32]| -> f64 {
            let both: Vec<f32> = drawn.iter().chain(&truth).copied().collect();
            let mut miss = 0.0;
            let mut see = |tables: &[crate::encode::Embeddings]| {
                for table in tables {
                    let off: f64 = table.row(0).iter().zip(table.row(1)).map(|(a, b)| f64::from(a - b).powi(2)).sum();
                    miss += off / table.row(1).iter().map(|b| f64::from(b * b)).sum::<f64>();
                }
                tables.iter().map(|t| vec![0.0; t.values().len()]).collect()
            };
            network.gradient_with_maps(&both, side, &eye.maps, &mut see).expect("finite");
            eye.weight * miss / (eye.maps.len() + 1) as f64
        };
        let both: Vec<f32> = drawn.iter().chain(&truth).copied().collect();
        let gradient = eye.gradient(&both, side, 1).expect("a gradient");
        let direction: Vec<f32> = (0..gradient.len()).map(|i| (i as f32 * 0.11).cos()).collect();
        let moved = |step: f32| -> Vec<f32> { drawn.iter().zip(&direction).map(|(x, d)| x + step * d).collect() };
        let slope = (loss(&moved(1e-3)) - loss(&moved(-1e-3))) / 2e-3;
        let stated: f64 = gradient.iter().zip(&direction).map(|(g, d)| f64::from(g * d)).sum();
        assert!((slope - stated).abs() < 0.02 * slope.abs().max(1e-4), "{slope} against {stated}");
        let same: Vec<f32> = truth.iter().chain(&truth).copied().collect();
        assert!(eye.gradient(&same, side, 1).expect("a gradient").iter().all(|g| g.abs() < 1e-9));
    }
}
