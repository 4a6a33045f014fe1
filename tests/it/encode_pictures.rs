//! Real picture encoders on real photographs: labels, golden cosines, and the gradient of a whole network.

use candle_core::{D, DType, Device, Tensor};
use std::collections::HashMap;
use stitchback::data::{Picture, asset};
use stitchback::encode::{Embeddings, Encoder, class_names, load, split_side};

fn open(name: &str) -> Box<dyn Encoder> {
    let asset = asset::ensure(split_side(name).0, &()).unwrap_or_else(|e| panic!("{e}"));
    load(name, &asset.dir, None).unwrap_or_else(|e| panic!("{e}"))
}

/// The 20 photographs, cut to the centre as classifiers are shown them, and their classes.
fn photographs() -> Vec<(Picture, usize)> {
    let asset = asset::ensure("imagenet-samples", &()).unwrap_or_else(|e| panic!("{e}"));
    let wanted = |path: &str| path.starts_with("foolbox/data/imagenet_");
    let entries = asset.entries(&wanted).unwrap_or_else(|e| panic!("{e}"));
    let photograph = |entry: asset::archive::Entry| {
        let class = entry.path.trim_end_matches(".jpg").rsplit('_').next().and_then(|class| class.parse().ok());
        let whole = image::load_from_memory(&entry.bytes).expect("a JPEG").to_rgb8();
        let (width, height) = whole.dimensions();
        let side = width.min(height) * 7 / 8;
        let centre = image::imageops::crop_imm(&whole, (width - side) / 2, (height - side) / 2, side, side).to_image();
        (Picture::new(side, side, centre.into_raw()), class.expect("the class ends the name"))
    };
    let photographs: Vec<_> = entries.into_iter().map(photograph).collect();
    assert_eq!(photographs.len(), 20);
    photographs
}

fn cosine(rows: &Embeddings, i: usize, j: usize) -> f32 {
    rows.row(i).iter().zip(rows.row(j)).map(|(a, b)| a * b).sum()
}

/// Made beside this crate from the same weights, with another decoder and another resize: hence 0.01 of room.
#[test]
fn photographs_have_the_golden_cosines() {
    let photographs = photographs();
    let pictures: Vec<&Picture> = photographs.iter().map(|(picture, _)| picture).collect();
    let golden = [
        ("efficientnet-lite0", [0.549, 0.189, 0.339, 0.1476], [(881, 0.1658), (1172, 0.1541), (907, 0.1498)]),
        ("efficientnet-lite2", [0.568, 0.222, 0.389, 0.1834], [(1225, 0.1893), (319, 0.1501), (1177, 0.1315)]),
        ("mobilenet-v2", [0.769, 0.486, 0.655, 0.4417], [(1040, 0.1011), (926, 0.1006), (403, 0.0973)]),
    ];
    for (name, expected, largest) in golden {
        let rows = open(name).encode_pictures(&pictures).expect("encodes");
        assert_eq!((rows.len(), rows.dim()), (20, 1280));
        let pairs = (0..20).flat_map(|i| (0..i).map(move |j| (i, j))).filter(|pair| *pair != (7, 6));
        let others: Vec<f32> = pairs.map(|(i, j)| cosine(&rows, i, j)).collect();
        let mean = others.iter().sum::<f32>() / others.len() as f32;
        let found = [cosine(&rows, 6, 7), mean, others.iter().copied().fold(0.0, f32::max), cosine(&rows, 0, 1)];
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 0.01, "{name}: {found} against {expected}");
        }
        for (at, value) in largest {
            assert!((rows.row(0)[at] - value).abs() < 0.002, "{name}: coordinate {at} is {}", rows.row(0)[at]);
        }
        assert!(rows.values().iter().all(|v| *v >= 0.0), "{name}: ReLU6 has no negative outputs");
    }
}

#[test]
fn photographs_are_named_as_they_are_labelled() {
    let photographs = photographs();
    let pictures: Vec<&Picture> = photographs.iter().map(|(picture, _)| picture).collect();
    for (name, first, among_five, misses) in
        [("efficientnet-lite0", 18, 19, vec![6, 7]), ("efficientnet-lite2", 18, 20, vec![7, 14])]
    {
        let logits = open(name).classify(&pictures).expect("classifies");
        assert_eq!((logits.len(), logits.dim()), (20, 1000));
        let rank = |(row, (_, class)): (&[f32], &(Picture, usize))| row.iter().filter(|v| **v > row[*class]).count();
        let ranks: Vec<usize> = logits.rows().zip(&photographs).map(rank).collect();
        assert_eq!(ranks.iter().filter(|rank| **rank == 0).count(), first, "{name}: {ranks:?}");
        assert_eq!(ranks.iter().filter(|rank| **rank < 5).count(), among_five, "{name}: {ranks:?}");
        assert_eq!((0..20).filter(|i| ranks[*i] > 0).collect::<Vec<_>>(), misses, "{name}: {ranks:?}");
    }
    assert!(open("mobilenet-v2").classify(&pictures).is_err(), "it has no classifier");
}

#[test]
fn classes_have_names() {
    let asset = asset::ensure("imagenet-classes", &()).unwrap_or_else(|e| panic!("{e}"));
    let names = class_names(&asset.dir).expect("the file is pinned");
    assert_eq!([&names[0], &names[852], &names[752]], ["tench", "tennis ball", "racket"]);
}

#[test]
fn a_side_belongs_to_the_encoder_and_to_its_identity() {
    let (usual, small) = (open("efficientnet-lite0"), open("efficientnet-lite0@128"));
    assert_eq!(small.info().name, "efficientnet-lite0@128");
    assert_ne!(usual.info().fingerprint, small.info().fingerprint);
    assert_eq!(usual.info().fingerprint, open("efficientnet-lite0@224").info().fingerprint);
    let heights = |encoder: &dyn Encoder| -> Vec<usize> {
        encoder.white_box().expect("pictures have gradients").maps().iter().map(|map| map.height).collect()
    };
    assert_eq!(heights(usual.as_ref()), [112, 112, 56, 28, 14, 14, 7, 7]);
    assert_eq!(heights(small.as_ref()), [64, 64, 32, 16, 8, 8, 4, 4]);
    let asset = asset::ensure("efficientnet-lite0", &()).expect("cached by now");
    let refused = load("efficientnet-lite0@9000", &asset.dir, None).err().expect("too large").to_string();
    assert!(refused.contains("9000"), "{refused}");
    let text = asset::ensure("all-minilm-l6-v2", &()).unwrap_or_else(|e| panic!("{e}"));
    let refused = load("all-minilm-l6-v2@128", &text.dir, None).err().expect("texts have no side").to_string();
    assert_eq!(refused, "encoder `all-minilm-l6-v2@128`: `@128` is the side of a picture, and it reads texts");
}

/// EfficientNet-Lite0 in double precision, made of candle's own operations: central differences of the single-precision
/// network would measure its rounding and its corners.
struct Reference {
    weights: HashMap<String, Tensor>,
}

impl Reference {
    fn open() -> candle_core::Result<Self> {
        let asset = asset::ensure("efficientnet-lite0", &()).unwrap_or_else(|e| panic!("{e}"));
        let weights = candle_core::safetensors::load(asset.path("model.safetensors"), &Device::Cpu)?;
        let widen = |(name, tensor): (String, Tensor)| Ok((name, tensor.to_dtype(DType::F64)?));
        Ok(Self { weights: weights.into_iter().map(widen).collect::<candle_core::Result<_>>()? })
    }

    fn norm(&self, x: &Tensor, name: &str) -> candle_core::Result<Tensor> {
        let of = |part: &str| self.weights[&format!("{name}.{part}")].reshape((1, (), 1, 1));
        let x = x.broadcast_sub(&of("running_mean")?)?.broadcast_div(&(of("running_var")? + 1e-3)?.sqrt()?)?;
        x.broadcast_mul(&of("weight")?)?.broadcast_add(&of("bias")?)
    }

    /// "Same" padding as TensorFlow has it.
    fn padded(x: &Tensor, k: usize, stride: usize) -> candle_core::Result<Tensor> {
        let n = x.dim(2)?;
        let total = ((n.div_ceil(stride) - 1) * stride + k).saturating_sub(n);
        x.pad_with_zeros(2, total / 2, total - total / 2)?.pad_with_zeros(3, total / 2, total - total / 2)
    }

    /// Shifted pictures times one weight a channel, summed.
    fn depthwise(&self, x: &Tensor, name: &str, stride: usize) -> candle_core::Result<Tensor> {
        let weight = &self.weights[&format!("{name}.weight")];
        let (k, outputs) = (weight.dim(2)?, x.dim(2)?.div_ceil(stride));
        let x = Self::padded(x, k, stride)?;
        let mut sum: Option<Tensor> = None;
        for (i, j) in (0..k).flat_map(|i| (0..k).map(move |j| (i, j))) {
            let at = |from: usize| Tensor::from_iter((0..outputs).map(|o| (from + o * stride) as u32), &Device::Cpu);
            let window = x.index_select(&at(i)?, 2)?.index_select(&at(j)?, 3)?;
            let tap = weight.narrow(2, i, 1)?.narrow(3, j, 1)?.reshape((1, (), 1, 1))?;
            let part = window.broadcast_mul(&tap)?;
            sum = Some(match sum {
                None => part,
                Some(sum) => (sum + part)?,
            });
        }
        Ok(sum.expect("a window has taps"))
    }

    /// `(1, side, side, 3)` of `[0, 1]` to the unit vector.
    fn feature(&self, pixels: &Tensor) -> candle_core::Result<Vec<f64>> {
        let conv = |x: &Tensor, name: &str, stride| x.conv2d(&self.weights[&format!("{name}.weight")], 0, stride, 1, 1);
        let relu6 = |x: Tensor| x.clamp(0f64, 6f64);
        let x = (((pixels * 255.0)? - 127.0)? / 128.0)?.permute((0, 3, 1, 2))?.contiguous()?;
        let mut x = relu6(self.norm(&conv(&Self::padded(&x, 3, 2)?, "_conv_stem", 2)?, "_bn0")?)?;
        let stages = [(1, 1), (2, 2), (2, 2), (3, 2), (3, 1), (4, 2), (1, 1)];
        let strides =
            stages.into_iter().flat_map(|(repeats, stride)| (0..repeats).map(move |r| if r == 0 { stride } else { 1 }));
        for (i, stride) in strides.enumerate() {
            let name = |part: &str| format!("_blocks.{i}.{part}");
            let inner = if i == 0 {
                x.clone()
            } else {
                relu6(self.norm(&conv(&x, &name("_expand_conv"), 1)?, &name("_bn0"))?)?
            };
            let inner = relu6(self.norm(&self.depthwise(&inner, &name("_depthwise_conv"), stride)?, &name("_bn1"))?)?;
            let y = self.norm(&conv(&inner, &name("_project_conv"), 1)?, &name("_bn2"))?;
            x = if stride == 1 && y.dims() == x.dims() { (x + y)? } else { y };
        }
        let x = relu6(self.norm(&conv(&x, "_conv_head", 1)?, "_bn1")?)?.mean((2, 3))?;
        let length = x.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?;
        x.broadcast_div(&length)?.flatten_all()?.to_vec1()
    }
}

/// Pseudo-random numbers of `[-1/2, 1/2)` by number and position.
fn wave(n: usize, i: usize) -> f64 {
    let x = ((i * 31 + n * 977 + 1) as f64 * 12.989_8).sin() * 43_758.545;
    x - x.floor() - 0.5
}

/// The gate that stands before every white-box attack: 32 pixels, 4 directions, every block of pixels.
#[test]
fn the_gradient_of_the_real_network_is_exact() -> candle_core::Result<()> {
    const SIDE: usize = 64;
    const STEP: f64 = 1e-6;
    let photograph = image::RgbImage::from_raw(448, 448, photographs()[0].0.rgb().to_vec()).expect("a square");
    let filter = image::imageops::FilterType::CatmullRom;
    let small = image::imageops::resize(&photograph, SIDE as u32, SIDE as u32, filter);
    let picture = Picture::new(SIDE as u32, SIDE as u32, small.into_raw());
    let pixels = picture.unit();
    let (reference, encoder) = (Reference::open()?, open("efficientnet-lite0@64"));
    let target: Vec<f64> = (0..1280).map(|i| wave(9, i)).collect();
    let mut seen = 0.0;
    let loss = &mut |vectors: &Embeddings| {
        seen = vectors.row(0).iter().zip(&target).map(|(f, t)| f64::from(*f) * t).sum();
        target.iter().map(|t| *t as f32).collect()
    };
    let found = encoder.white_box().expect("an encoder of pictures").gradient(&pixels, SIDE, loss);
    let found = found.unwrap_or_else(|e| panic!("{e}"));
    let at = |direction: &dyn Fn(usize) -> f64, step: f64| -> candle_core::Result<f64> {
        let moved = pixels.iter().enumerate().map(|(i, p)| f64::from(*p) + step * direction(i));
        let feature = reference.feature(&Tensor::from_iter(moved, &Device::Cpu)?.reshape((1, SIDE, SIDE, 3))?)?;
        Ok(feature.iter().zip(&target).map(|(f, t)| f * t).sum())
    };
    let here = at(&|_| 0.0, 0.0)?;
    assert!((here - seen).abs() < 1e-4, "{here} {seen}");

    let pixel = |n: usize| ((wave(n, 3) + 0.5) * pixels.len() as f64) as usize;
    for (what, n, is_pixel) in [("pixels", 32, true), ("directions", 4, false)] {
        let (mut error, mut size) = (0.0, 0.0);
        for n in 0..n {
            let direction = |i: usize| if is_pixel { f64::from(u8::from(i == pixel(n))) } else { wave(n, i) };
            let slope = (at(&direction, STEP)? - at(&direction, -STEP)?) / (2.0 * STEP);
            let exact: f64 = found.iter().enumerate().map(|(i, g)| f64::from(*g) * direction(i)).sum();
            error += (slope - exact).powi(2);
            size += exact.powi(2);
        }
        assert!((error / size).sqrt() < 1e-2, "{what}: relative error {:e}", (error / size).sqrt());
    }
    for block in 0..(SIDE / 8) * (SIDE / 8) {
        let (top, left) = (block / (SIDE / 8) * 8, block % (SIDE / 8) * 8);
        let inside = (0..8).flat_map(|y| &found[((top + y) * SIDE + left) * 3..][..24]);
        assert!(inside.into_iter().any(|g| *g != 0.0), "no gradient in the block at ({top}, {left})");
    }
    Ok(())
}
