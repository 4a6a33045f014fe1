//! Picture encoders: convolutional networks of inverted residual blocks with frozen statistics.
//!
//! ```text
//! picture ─► resize ─► colours ─► stem ─► blocks ─► 1x1 ─► mean ─► unit length
//!                                                            └────► classes (where the network has them)
//! ```
//!
//! | file | what it holds |
//! |---|---|
//! | `plan` | the families: EfficientNet-Lite and MobileNetV2, their stages, padding, colours, tensor names |
//! | `network` | forward pass of one picture, and back to its pixels |
//! | `pointwise`, `depthwise` | the two kernels, channels last |
//! | `resize` | any size to the network's, and its transpose |
//!
//! Workers take whole pictures, so a vector depends on its picture alone, whatever the number of threads. To add a family,
//! give it a stage table and names in `plan`.

mod depthwise;
mod network;
mod plan;
mod pointwise;
mod resize;

use super::pooling::normalize;
use super::weights::{Weights, file};
use super::{Embeddings, Encoder, EncoderInfo, Error, MapShape, WhiteBox};
use crate::data::Picture;
use network::{COLOURS, Network, Scratch, Tape};
use plan::Plan;
use rayon::prelude::*;
use resize::{Resize, eight_bits};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// A network, ready to encode.
pub(super) struct PictureEncoder {
    info: EncoderInfo,
    plan: Plan,
    network: Network,
    /// Buffers of workers that are not working now.
    scratch: Mutex<Vec<(Scratch, Tape)>>,
}

/// Opens the folder `dir` as the encoder `name`; `None` where it holds no picture encoder.
///
/// # Errors
/// When a file is missing or malformed, or a weight has another shape or is not finite.
pub(super) fn open(dir: &Path, name: &str, side: Option<usize>) -> Result<Option<PictureEncoder>, Error> {
    let Some(plan) = Plan::open(dir, side)? else { return Ok(None) };
    let weights = Weights::open(dir)?;
    let identity = blake3::Hasher::new_derive_key("stitchback picture encoder v1")
        .update(weights.hash().as_bytes())
        .update(format!("{plan:?}").as_bytes())
        .finalize();
    let network = Network::new(&plan, &mut |name, shape| weights.tensor(name, shape))?;
    let info = EncoderInfo {
        name: name.into(),
        dim: network.dim(),
        max_len_tokens: 0,
        fingerprint: identity.to_hex().to_string(),
        toy: false,
    };
    Ok(Some(PictureEncoder { info, plan, network, scratch: Mutex::default() }))
}

/// The names of ImageNet's classes from the folder of the asset `imagenet-classes`, in the order of logits.
///
/// # Errors
/// When the file is missing or is not a list of texts.
pub fn class_names(dir: &Path) -> Result<Vec<String>, Error> {
    let path = dir.join("imagenet1k_clean_names.json");
    let names: Vec<String> = super::folder::json(&path)?;
    if names.len() == 1000 { Ok(names) } else { Err(file(&path, format!("{} names, expected 1000", names.len()))) }
}

impl PictureEncoder {
    /// The network's input from a resized picture of `[0, 1]`.
    fn coloured(&self, mut image: Vec<f32>) -> Vec<f32> {
        let colours = self.plan.family.colours();
        for pixel in image.as_chunks_mut::<COLOURS>().0 {
            for (v, (mean, deviation)) in pixel.iter_mut().zip(colours) {
                *v = (*v * 255.0 - mean) / deviation;
            }
        }
        image
    }

    /// Runs `work` with a worker's buffers.
    fn with_scratch<T>(&self, work: impl FnOnce(&mut Scratch, &mut Tape) -> T) -> T {
        // A pool, not a thread-local: a worker that waits for its own jobs may be handed another call's picture.
        let spare = || self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut scratch, mut tape) = spare().pop().unwrap_or_default();
        let result = work(&mut scratch, &mut tape);
        spare().push((scratch, tape));
        result
    }

    /// `finish` of each picture's mean feature, in order.
    fn each(&self, pictures: &[&Picture], finish: impl Fn(Vec<f32>) -> Vec<f32> + Sync) -> Vec<f32> {
        let one = |picture: &&Picture| {
            let resize = Resize::new(picture.width() as usize, picture.height() as usize, self.plan.side);
            let mut image = resize.apply(picture.unit());
            eight_bits(&mut image);
            let image = self.coloured(image);
            finish(self.with_scratch(|scratch, tape| self.network.forward(&image, tape, scratch)))
        };
        pictures.par_iter().map(one).collect::<Vec<_>>().concat()
    }

    fn refuse(&self, why: &str) -> Error {
        Error::Unsupported { name: self.info.name.clone(), why: why.to_owned() }
    }
}

impl Encoder for PictureEncoder {
    fn info(&self) -> &EncoderInfo {
        &self.info
    }

    fn encode(&self, _texts: &[&str]) -> Result<Embeddings, Error> {
        Err(self.refuse("it reads pictures, not texts"))
    }

    fn encode_pictures(&self, pictures: &[&Picture]) -> Result<Embeddings, Error> {
        Embeddings::new(self.each(pictures, unit), self.info.dim)
    }

    fn classify(&self, pictures: &[&Picture]) -> Result<Embeddings, Error> {
        let classes = self.plan.labels;
        if classes == 0 {
            return Err(self.refuse("it has no classifier"));
        }
        let logits = |mean: Vec<f32>| self.network.classify(&mean, classes).expect("its plan has labels");
        Embeddings::new(self.each(pictures, logits), classes)
    }

    fn white_box(&self) -> Option<&dyn WhiteBox> {
        Some(self)
    }
}

impl WhiteBox for PictureEncoder {
    fn maps(&self) -> Vec<MapShape> {
        let shape = |size: network::Size| MapShape { height: size.height, width: size.width, channels: size.channels };
        self.network.maps().into_iter().map(shape).collect()
    }

    fn gradient_with_maps(
        &self,
        pixels: &[f32],
        side: usize,
        maps: &[usize],
        loss: &mut dyn FnMut(&[Embeddings]) -> Vec<Vec<f32>>,
    ) -> Result<Vec<f32>, Error> {
        let picture = side * side * COLOURS;
        if picture == 0 || !pixels.len().is_multiple_of(picture) {
            return Err(Error::Shape { len: pixels.len(), dim: picture });
        }
        let known = self.network.maps();
        if let Some(map) = maps.iter().find(|map| **map >= known.len()) {
            return Err(self.refuse(&format!("map {map} does not exist; it has {}", known.len())));
        }
        let resize = Resize::new(side, side, self.plan.side);
        let forward = |pixels: &[f32]| {
            let (mut tape, image) = (Tape::default(), self.coloured(resize.apply(pixels.to_vec())));
            let mean = self.with_scratch(|scratch, _| self.network.forward(&image, &mut tape, scratch));
            (tape, mean)
        };
        let seen: Vec<(Tape, Vec<f32>)> = pixels.par_chunks(picture).map(forward).collect();
        let mut tables =
            vec![Embeddings::new(seen.iter().flat_map(|(_, mean)| unit(mean.clone())).collect(), self.info.dim)?];
        for &map in maps {
            let values = seen.iter().flat_map(|(tape, _)| self.network.map(map, tape)).collect();
            tables.push(Embeddings::new(values, known[map].height * known[map].width * known[map].channels)?);
        }
        let upstream = loss(&tables);
        for (table, gradient) in tables.iter().zip(&upstream) {
            assert_eq!(gradient.len(), table.values().len(), "a loss answers with a derivative for each value");
        }
        let backward = |(i, (tape, mean)): (usize, &(Tape, Vec<f32>))| {
            let of = |table: usize| &upstream[table][i * tables[table].dim()..][..tables[table].dim()];
            let pulls: Vec<(usize, &[f32])> = maps.iter().enumerate().map(|(n, &map)| (map, of(n + 1))).collect();
            if of(0).iter().chain(pulls.iter().flat_map(|(_, pull)| *pull)).all(|g| *g == 0.0) {
                return vec![0.0; picture];
            }
            let back = through_unit(mean, tables[0].row(i), of(0));
            let mut gradient = self.with_scratch(|scratch, _| self.network.backward(tape, &back, &pulls, scratch));
            for pixel in gradient.as_chunks_mut::<COLOURS>().0 {
                for (g, (_, deviation)) in pixel.iter_mut().zip(self.plan.family.colours()) {
                    *g *= 255.0 / deviation;
                }
            }
            resize.transposed(gradient)
        };
        Ok(seen.par_iter().enumerate().map(backward).collect::<Vec<_>>().concat())
    }
}

fn unit(mut mean: Vec<f32>) -> Vec<f32> {
    normalize(&mut mean);
    mean
}

/// The gradient of `u = m / |m|`: `(g - (g . u) u) / |m|`.
fn through_unit(mean: &[f32], unit: &[f32], gradient: &[f32]) -> Vec<f32> {
    let product = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let (along, length) = (product(gradient, unit), product(mean, mean).sqrt().max(1e-12));
    gradient.iter().zip(unit).map(|(g, u)| ((f64::from(*g) - along * f64::from(*u)) / length) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::plan::{Family, Stage};
    use super::*;
    use candle_core::{Device, Tensor};
    use rand::RngExt;
    use std::collections::BTreeMap;

    const FAMILIES: [Family; 2] = [Family::EfficientNetLite, Family::MobileNetV2];

    type Named = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

    /// A small network with random weights of a size that lets ReLU6 cut at both ends, and those weights by name.
    fn tiny(family: Family, side: usize) -> (PictureEncoder, Named) {
        network(family, side, 1.0, (-0.3, 0.5))
    }

    /// Weights of about `scale / sqrt(inputs)`, shifts from `shifts`.
    fn network(family: Family, side: usize, scale: f32, shifts: (f32, f32)) -> (PictureEncoder, Named) {
        let stage =
            |repeats, window, stride, expansion, channels| Stage { repeats, window, stride, expansion, channels };
        let stages = vec![stage(1, 3, 1, 1, 8), stage(2, 3, 2, 6, 16), stage(2, 5, 2, 4, 20), stage(2, 5, 1, 3, 24)];
        let plan = Plan { family, side, stem: 12, stages, head: 40, labels: 10 };
        let mut stream = crate::seed::stream(7, "tiny", "init");
        let mut named = Named::new();
        let network = Network::new(&plan, &mut |name, shape| {
            let inputs: usize = shape[1..].iter().product();
            let (low, high) = match name.rsplit('.').next() {
                Some("running_var") => (0.5, 2.0),
                Some("weight") if shape.len() > 1 => {
                    let size = scale / (inputs as f32).sqrt();
                    (-2.0 * size, 2.5 * size)
                }
                Some("weight") => (0.5, 1.5),
                Some("bias") => shifts,
                _ => (-0.3, 0.3),
            };
            let values: Vec<f32> =
                (0..shape.iter().product()).map(|_| low + (high - low) * stream.random::<f32>()).collect();
            named.insert(name.to_owned(), (shape.to_vec(), values.clone()));
            Ok(values)
        });
        let network = network.expect("random weights have the right shape");
        let info = EncoderInfo {
            name: "tiny".into(),
            dim: network.dim(),
            max_len_tokens: 0,
            fingerprint: String::new(),
            toy: true,
        };
        (PictureEncoder { info, plan, network, scratch: Mutex::default() }, named)
    }

    fn noise(n: usize, purpose: &str) -> Vec<f32> {
        let mut stream = crate::seed::stream(3, "picture", purpose);
        (0..n).map(|_| stream.random()).collect()
    }

    fn picture(side: u32, purpose: &str) -> Picture {
        Picture::from_unit(side, side, &noise((side * side * 3) as usize, purpose))
    }

    /// The same network written with candle's own operations, batch-norm unfolded: the maps, and the mean.
    fn stock(encoder: &PictureEncoder, named: &Named, image: &Tensor) -> candle_core::Result<(Vec<Tensor>, Tensor)> {
        let plan = &encoder.plan;
        let tensor = |name: String| {
            let (shape, values) = &named[&name];
            Tensor::from_vec(values.clone(), shape.as_slice(), &Device::Cpu)
        };
        let layer = |x: &Tensor, names: &plan::Names, stride: usize, depthwise: bool| -> candle_core::Result<Tensor> {
            let weight = tensor(format!("{}.weight", names.convolution))?;
            let (n, window) = (x.dim(2)?, weight.dim(2)?);
            let x = if window == 1 {
                x.clone()
            } else {
                let (before, outputs) = plan.family.padding(n, window, stride);
                let after = ((outputs - 1) * stride + window).saturating_sub(before + n);
                x.pad_with_zeros(2, before, after)?.pad_with_zeros(3, before, after)?
            };
            let groups = if depthwise { x.dim(1)? } else { 1 };
            let of = |part: &str| tensor(format!("{}.{part}", names.norm))?.reshape((1, (), 1, 1));
            let scale = of("weight")?.div(&(of("running_var")? + plan.family.epsilon())?.sqrt()?)?;
            let y = x.conv2d(&weight, 0, stride, 1, groups)?.broadcast_sub(&of("running_mean")?)?;
            y.broadcast_mul(&scale)?.broadcast_add(&of("bias")?)
        };
        let relu6 = |x: Tensor| x.clamp(0f32, 6f32);
        let mut x = relu6(layer(&image.permute((0, 3, 1, 2))?.contiguous()?, &plan.family.stem(), 2, false)?)?;
        let (mut maps, mut index) = (vec![x.clone()], 0);
        for stage in &plan.stages {
            for repeat in 0..stage.repeats {
                let stride = if repeat == 0 { stage.stride } else { 1 };
                let (expand, depthwise, project) = plan.family.block(index, stage.expansion != 1);
                let inner = match expand {
                    Some(names) => relu6(layer(&x, &names, 1, false)?)?,
                    None => x.clone(),
                };
                let inner = relu6(layer(&inner, &depthwise, stride, true)?)?;
                let y = layer(&inner, &project, 1, false)?;
                x = if stride == 1 && y.dim(1)? == x.dim(1)? { (y + x)? } else { y };
                index += 1;
            }
            maps.push(x.clone());
        }
        let mean = relu6(layer(&x, &plan.family.head(index), 1, false)?)?.mean((2, 3))?.flatten_all()?;
        let last = |map: &Tensor| map.permute((0, 2, 3, 1))?.contiguous();
        Ok((maps.iter().map(last).collect::<candle_core::Result<_>>()?, mean))
    }

    /// Even and odd sides; 96 has several bands.
    #[test]
    fn the_lean_forward_agrees_with_candle_on_every_map() {
        for (family, side) in FAMILIES.into_iter().flat_map(|family| [96, 33, 20].map(|side| (family, side))) {
            let (encoder, named) = tiny(family, side);
            let image: Vec<f32> = noise(side * side * 3, "image").iter().map(|v| 2.0 * v - 1.0).collect();
            let mut tape = Tape::default();
            let ours = encoder.network.forward(&image, &mut tape, &mut Scratch::default());
            let image = Tensor::from_vec(image, (1, side, side, 3), &Device::Cpu).expect("a picture");
            let (maps, mean) = stock(&encoder, &named, &image).expect("a stock forward");
            let mean: Vec<f32> = mean.to_vec1().expect("values");
            let near = |a: &[f32], b: &[f32]| {
                assert_eq!(a.len(), b.len());
                let worst = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(worst < 1e-4, "{family:?} {side}: {worst:e}");
            };
            near(&ours, &mean);
            assert!(mean.iter().any(|v| *v > 0.1), "the network is alive");
            for (i, map) in maps.iter().enumerate() {
                near(&encoder.network.map(i, &tape), &map.flatten_all().and_then(|m| m.to_vec1()).expect("values"));
                assert_eq!(
                    map.dims(),
                    [1, encoder.maps()[i].height, encoder.maps()[i].width, encoder.maps()[i].channels]
                );
            }
        }
    }

    #[test]
    fn a_vector_depends_on_its_picture_alone_whatever_the_threads() {
        let (encoder, _) = tiny(Family::EfficientNetLite, 40);
        let pictures: Vec<Picture> = (0..9).map(|i| picture(20 + 7 * i, &format!("{i}"))).collect();
        let pictures: Vec<&Picture> = pictures.iter().collect();
        let together = encoder.encode_pictures(&pictures).expect("encodes");
        for threads in [1, 2, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a thread pool");
            assert_eq!(pool.install(|| encoder.encode_pictures(&pictures)).expect("encodes"), together);
        }
        for (i, picture) in pictures.iter().enumerate() {
            assert_eq!(encoder.encode_pictures(&[picture]).expect("encodes").row(0), together.row(i));
        }
        assert!(together.rows().all(|r| (r.iter().map(|v| v * v).sum::<f32>() - 1.0).abs() < 1e-5));
    }

    #[test]
    fn texts_and_missing_classes_are_refused_by_name() {
        let (mut encoder, _) = tiny(Family::MobileNetV2, 32);
        assert_eq!(encoder.classify(&[&picture(32, "a")]).expect("it has classes").dim(), 10);
        encoder.plan.labels = 0;
        let said = encoder.classify(&[&picture(32, "a")]).expect_err("no classifier").to_string();
        assert_eq!(said, "encoder `tiny`: it has no classifier");
        assert_eq!(
            encoder.encode(&["a"]).expect_err("no texts").to_string(),
            "encoder `tiny`: it reads pictures, not texts"
        );
    }

    #[test]
    fn the_gradient_sees_the_vector_that_is_released() {
        let (encoder, _) = tiny(Family::EfficientNetLite, 32);
        let picture = picture(32, "a");
        let row = encoder.encode_pictures(&[&picture]).expect("encodes");
        let mut still = |seen: &Embeddings| {
            assert_eq!(*seen, row);
            vec![0.0; seen.dim()]
        };
        let gradient = encoder.gradient(&picture.unit(), 32, &mut still).expect("a gradient");
        assert!(gradient.len() == 32 * 32 * 3 && gradient.iter().all(|g| *g == 0.0));
        assert!(encoder.gradient(&[0.0; 7], 32, &mut still).is_err());
        let said = encoder.gradient_with_maps(&picture.unit(), 32, &[5], &mut |_| Vec::new()).expect_err("no such map");
        assert_eq!(said.to_string(), "encoder `tiny`: map 5 does not exist; it has 5");
    }

    /// A smooth function of the vectors and of maps, a value for each picture; and its derivatives.
    fn loss(tables: &[Embeddings]) -> (Vec<f64>, Vec<Vec<f32>>) {
        let mut totals = vec![0.0; tables[0].len()];
        let mut upstream = Vec::new();
        for (n, table) in tables.iter().enumerate() {
            let mut gradient = Vec::with_capacity(table.values().len());
            for (total, row) in totals.iter_mut().zip(table.rows()) {
                for (k, &v) in row.iter().enumerate() {
                    let (weight, target) = if n == 0 {
                        ((k as f32 * 1.7).sin(), -1.0)
                    } else {
                        (0.3 / row.len() as f32, (k as f32 * 0.9).cos())
                    };
                    *total += f64::from(0.5 * weight * (v - target) * (v - target));
                    gradient.push(weight * (v - target));
                }
            }
            upstream.push(gradient);
        }
        (totals, upstream)
    }

    /// Losses of pictures, and the gradient.
    fn descend(encoder: &dyn WhiteBox, pixels: &[f32], side: usize, maps: &[usize]) -> (Vec<f64>, Vec<f32>) {
        let mut totals = Vec::new();
        let mut seen = |tables: &[Embeddings]| {
            let upstream;
            (totals, upstream) = loss(tables);
            upstream
        };
        let gradient = encoder.gradient_with_maps(pixels, side, maps, &mut seen).expect("a gradient");
        (totals, gradient)
    }

    /// The error of `ours` as a share of the length of `theirs`.
    fn relative(ours: &[f64], theirs: &[f64]) -> f64 {
        let square = |v: f64| v * v;
        let error: f64 = ours.iter().zip(theirs).map(|(a, b)| square(a - b)).sum();
        (error / theirs.iter().copied().map(square).sum::<f64>()).sqrt()
    }

    /// Everywhere, on a network whose activations are cut at both ends.
    #[test]
    fn the_gradient_agrees_with_candle() -> candle_core::Result<()> {
        for (family, side) in FAMILIES.into_iter().flat_map(|family| [64, 33, 20].map(|side| (family, side))) {
            let (encoder, named) = tiny(family, side);
            let pixels = noise(side * side * 3, "start");
            let maps = [0, 1, 4];
            let (losses, ours) = descend(&encoder, &pixels, side, &maps);

            let colours = family.colours();
            let of = |part: fn(&(f32, f32)) -> f32| {
                Tensor::from_iter(colours.iter().map(part), &Device::Cpu)?.reshape((1, 1, 1, 3))
            };
            let start = candle_core::Var::from_vec(pixels, (1, side, side, 3), &Device::Cpu)?;
            let image = (start.as_tensor() * 255.0)?.broadcast_sub(&of(|c| c.0)?)?.broadcast_div(&of(|c| c.1)?)?;
            let (seen, mean) = stock(&encoder, &named, &image)?;
            let feature = mean.broadcast_div(&mean.sqr()?.sum_all()?.sqrt()?)?;
            let values = |t: &Tensor| t.flatten_all()?.to_vec1::<f32>();
            let table = |t: &Tensor| Ok(Embeddings::new(values(t)?, t.elem_count()).expect("finite"));
            let inner = maps.iter().map(|&map| seen[map].clone());
            let tensors: Vec<Tensor> = std::iter::once(feature).chain(inner).collect();
            let tables = tensors.iter().map(table).collect::<candle_core::Result<Vec<_>>>()?;
            let (stock_losses, upstream) = loss(&tables);
            assert!((stock_losses[0] - losses[0]).abs() < 1e-5, "{stock_losses:?} {losses:?}");
            // The loss's own derivatives as constants make a linear loss with the same gradient.
            let mut linear = Tensor::new(0f32, &Device::Cpu)?;
            for (tensor, gradient) in tensors.iter().zip(upstream) {
                let pull = (tensor * Tensor::from_vec(gradient, tensor.shape(), &Device::Cpu)?)?.sum_all()?;
                linear = (linear + pull)?;
            }
            let theirs = values(linear.backward()?.get(&start).expect("the pixels have a gradient"))?;
            let wide = |v: &[f32]| v.iter().copied().map(f64::from).collect::<Vec<_>>();
            let error = relative(&wide(&ours), &wide(&theirs));
            assert!(error < 1e-4, "{family:?} {side}: {error:e}");
        }
        Ok(())
    }

    /// Through the resizing too, and picture by picture. The network is calm: few activations are cut, so that a step
    /// hardly ever crosses a corner.
    #[test]
    fn the_gradient_is_exact_by_central_differences() {
        for (family, side) in FAMILIES.into_iter().flat_map(|family| [32, 27, 50].map(|side| (family, side))) {
            let (encoder, _) = network(family, 32, 0.25, (2.5, 3.5));
            let error = difference_error(&encoder, &noise(2 * side * side * 3, "start"), side, &[0, 3], 0.3);
            assert!(error < 1e-2, "{family:?} {side}: {error:e}");
        }
    }

    /// The larger relative error of 32 pixels of the last picture and of 4 random directions.
    fn difference_error(encoder: &dyn WhiteBox, pixels: &[f32], side: usize, maps: &[usize], step: f32) -> f64 {
        let one = side * side * 3;
        let (_, found) = descend(encoder, pixels, side, maps);
        let (before, last) = pixels.split_at(pixels.len() - one);
        let slope = |direction: &[f32]| {
            let at = |sign: f32| {
                let moved = last.iter().zip(direction).map(|(p, d)| p + sign * step * d);
                let moved: Vec<f32> = before.iter().copied().chain(moved).collect();
                *descend(encoder, &moved, side, maps).0.last().expect("a picture")
            };
            (at(1.0) - at(-1.0)) / f64::from(2.0 * step)
        };
        let exact = |direction: &[f32]| -> f64 {
            found[before.len()..].iter().zip(direction).map(|(g, d)| f64::from(g * d)).sum()
        };
        let mut stream = crate::seed::stream(5, "difference", "pixels");
        let pixel = |at: usize| (0..one).map(|i| f32::from(i == at)).collect::<Vec<f32>>();
        let pixels: Vec<Vec<f32>> = (0..32).map(|_| pixel(stream.random_range(0..one))).collect();
        let length = (one as f32 / 12.0).sqrt();
        let mut anywhere = || (0..one).map(|_| (stream.random::<f32>() - 0.5) / length).collect::<Vec<f32>>();
        let directions: Vec<Vec<f32>> = (0..4).map(|_| anywhere()).collect();
        let errors = [pixels, directions].map(|directions| {
            let of = |f: &dyn Fn(&[f32]) -> f64| directions.iter().map(|d| f(d)).collect::<Vec<f64>>();
            relative(&of(&exact), &of(&slope))
        });
        errors[0].max(errors[1])
    }
}
