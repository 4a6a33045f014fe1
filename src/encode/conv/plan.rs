//! What the networks look like: stages, padding, colours and tensor names of each family, from `config.json`.

use super::super::Error;
use super::super::folder::json;
use super::super::weights::file;
use std::path::Path;

/// Everything about a network but its weights.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Plan {
    pub(super) family: Family,
    /// Pixels a side that the network was trained on.
    pub(super) side: usize,
    /// Channels behind the first convolution, which has windows of 3x3 and stride 2.
    pub(super) stem: usize,
    pub(super) stages: Vec<Stage>,
    /// Channels behind the last 1x1 convolution: the dimension of a vector.
    pub(super) head: usize,
    /// Classes that it names; 0 without a classifier.
    pub(super) labels: usize,
}

/// Blocks of one width.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stage {
    pub(super) repeats: usize,
    /// Side of the depthwise window.
    pub(super) window: usize,
    /// Of the first block; the others have 1.
    pub(super) stride: usize,
    /// Inner channels for each channel that goes in.
    pub(super) expansion: usize,
    pub(super) channels: usize,
}

/// What decides padding, normalisation and names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    EfficientNetLite,
    MobileNetV2,
}

/// The names of a convolution and of the batch-norm behind it.
pub(super) struct Names {
    pub(super) convolution: String,
    pub(super) norm: String,
}

impl Names {
    fn new(convolution: impl Into<String>, norm: impl Into<String>) -> Self {
        Self { convolution: convolution.into(), norm: norm.into() }
    }
}

impl Family {
    /// The variance's companion in batch-norm.
    pub(super) fn epsilon(self) -> f64 {
        match self {
            Family::EfficientNetLite => 1e-3,
            Family::MobileNetV2 => 1e-5,
        }
    }

    /// Mean and deviation of each colour on the scale of 0 to 255: inputs are `(x - mean) / deviation`.
    pub(super) fn colours(self) -> [(f32, f32); 3] {
        match self {
            Family::EfficientNetLite => [(127.0, 128.0); 3],
            Family::MobileNetV2 => [(123.675, 58.395), (116.28, 57.12), (103.53, 57.375)],
        }
    }

    /// Zeros before the first of `n` positions, and windows: TensorFlow's "same", or half a window on both sides.
    pub(super) fn padding(self, n: usize, window: usize, stride: usize) -> (usize, usize) {
        match self {
            Family::EfficientNetLite => {
                let outputs = n.div_ceil(stride);
                (((outputs - 1) * stride + window).saturating_sub(n) / 2, outputs)
            }
            Family::MobileNetV2 => (window / 2, (n + 2 * (window / 2) - window) / stride + 1),
        }
    }

    pub(super) fn stem(self) -> Names {
        match self {
            Family::EfficientNetLite => Names::new("_conv_stem", "_bn0"),
            Family::MobileNetV2 => Names::new("features.0.0", "features.0.1"),
        }
    }

    /// Expansion (absent where the expansion is 1), depthwise and projection of block `i`.
    pub(super) fn block(self, i: usize, expanded: bool) -> (Option<Names>, Names, Names) {
        match self {
            Family::EfficientNetLite => {
                let names = |part: &str, norm: &str| {
                    Names::new(format!("_blocks.{i}.{part}_conv"), format!("_blocks.{i}.{norm}"))
                };
                let expand = expanded.then(|| names("_expand", "_bn0"));
                (expand, names("_depthwise", "_bn1"), names("_project", "_bn2"))
            }
            Family::MobileNetV2 => {
                let names = |at: usize| {
                    let block = format!("features.{}.conv", i + 1);
                    Names::new(format!("{block}.{at}"), format!("{block}.{}", at + 1))
                };
                if expanded { (Some(names(0)), names(3), names(6)) } else { (None, names(0), names(3)) }
            }
        }
    }

    /// The last convolution, behind `blocks` blocks.
    pub(super) fn head(self, blocks: usize) -> Names {
        match self {
            Family::EfficientNetLite => Names::new("_conv_head", "_bn1"),
            Family::MobileNetV2 => {
                Names::new(format!("features.{}.0", blocks + 1), format!("features.{}.1", blocks + 1))
            }
        }
    }
}

#[derive(serde::Deserialize)]
struct Config {
    image_size: usize,
    #[serde(default = "one")]
    width_coefficient: f64,
    #[serde(default = "one")]
    depth_coefficient: f64,
    #[serde(default)]
    num_labels: usize,
}

fn one() -> f64 {
    1.0
}

/// The smallest and largest picture that a network is given, pixels a side.
const SIDES: std::ops::RangeInclusive<usize> = 16..=1024;

impl Plan {
    /// Reads `dir/config.json`; `side` replaces its `image_size`. `None` where the folder is of another kind.
    pub(super) fn open(dir: &Path, side: Option<usize>) -> Result<Option<Self>, Error> {
        let path = dir.join("config.json");
        if !path.exists() {
            return Ok(None);
        }
        let value: serde_json::Value = json(&path)?;
        let family = match value["model_type"].as_str() {
            Some("efficientnet_lite") => Family::EfficientNetLite,
            Some("mobilenet_v2") => Family::MobileNetV2,
            _ => return Ok(None),
        };
        let config: Config = serde_json::from_value(value).map_err(|e| file(&path, e))?;
        let side = side.unwrap_or(config.image_size);
        if !SIDES.contains(&side) {
            return Err(file(&path, format!("a side of {side} pixels is not between {SIDES:?}")));
        }
        let coefficients = [config.width_coefficient, config.depth_coefficient];
        if coefficients.iter().any(|c| !(0.1..=4.0).contains(c)) || config.num_labels > 1 << 16 {
            return Err(file(&path, format!("width and depth {coefficients:?} or {} labels", config.num_labels)));
        }
        Ok(Some(Self::new(family, side, coefficients, config.num_labels)))
    }

    /// # Source
    /// Tan and Le 2019 (EfficientNet-B0's stages without squeeze-and-excite; stem, head, first and last stage are not
    /// scaled in depth, stem and head not in width); Sandler et al. 2018, table 2 (`MobileNetV2`).
    fn new(family: Family, side: usize, [width, depth]: [f64; 2], labels: usize) -> Self {
        let table: &[[usize; 5]] = match family {
            Family::EfficientNetLite => &[
                [1, 3, 1, 1, 16],
                [2, 3, 2, 6, 24],
                [2, 5, 2, 6, 40],
                [3, 3, 2, 6, 80],
                [3, 5, 1, 6, 112],
                [4, 5, 2, 6, 192],
                [1, 3, 1, 6, 320],
            ],
            Family::MobileNetV2 => &[
                [1, 3, 1, 1, 16],
                [2, 3, 2, 6, 24],
                [3, 3, 2, 6, 32],
                [4, 3, 2, 6, 64],
                [3, 3, 1, 6, 96],
                [3, 3, 2, 6, 160],
                [1, 3, 1, 6, 320],
            ],
        };
        let last = table.len() - 1;
        let stage = |(i, &[repeats, window, stride, expansion, channels]): (usize, &[usize; 5])| {
            let deep = if i == 0 || i == last { repeats } else { (repeats as f64 * depth).ceil() as usize };
            Stage { repeats: deep, window, stride, expansion, channels: scaled(channels, width) }
        };
        Self { family, side, stem: 32, stages: table.iter().enumerate().map(stage).collect(), head: 1280, labels }
    }
}

/// `channels * width` to the nearest multiple of 8, never less than nine tenths of it.
fn scaled(channels: usize, width: f64) -> usize {
    let wanted = channels as f64 * width;
    let near = (((wanted + 4.0) / 8.0).floor() as usize * 8).max(8);
    if (near as f64) < 0.9 * wanted { near + 8 } else { near }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lite2_has_the_published_widths_and_depths() {
        let plan = Plan::new(Family::EfficientNetLite, 260, [1.1, 1.2], 1000);
        assert_eq!(plan.stages.iter().map(|s| s.channels).collect::<Vec<_>>(), [16, 24, 48, 88, 120, 208, 352]);
        assert_eq!(plan.stages.iter().map(|s| s.repeats).collect::<Vec<_>>(), [1, 3, 3, 4, 4, 5, 1]);
        let lite0 = Plan::new(Family::EfficientNetLite, 224, [1.0, 1.0], 1000);
        assert_eq!(lite0.stages.iter().map(|s| s.repeats).sum::<usize>(), 16);
    }

    #[test]
    fn same_padding_is_lopsided_and_symmetric_padding_is_not() {
        let same = |n, window, stride| Family::EfficientNetLite.padding(n, window, stride);
        assert_eq!(
            [same(224, 3, 2), same(7, 3, 2), same(56, 5, 2), same(7, 5, 1)],
            [(0, 112), (1, 4), (1, 28), (2, 7)]
        );
        let symmetric = |n, window, stride| Family::MobileNetV2.padding(n, window, stride);
        assert_eq!([symmetric(224, 3, 2), symmetric(7, 3, 2), symmetric(14, 3, 1)], [(1, 112), (1, 4), (1, 14)]);
    }
}
