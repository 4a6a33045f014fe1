//! The forward pass of one picture, and the way back to its pixels.
//!
//! Batch-norm is frozen, so it is folded into the convolutions. A block is expand (1x1), depthwise, project (1x1); it runs
//! over bands of rows that fit the second-level cache, so that the wide inner map is never written to memory. The way
//! back keeps the input of every block and computes the inner maps again: cheaper than reading them from memory.

use super::super::Error;
use super::depthwise::{Depthwise, Windows};
use super::plan::{Family, Names, Plan};
use super::pointwise::{Finish, Place, Pointwise, padded};
use crate::encode::lanes::Aligned;
use crate::nn::kernel::vectorised;
use std::ops::Range;
use std::sync::OnceLock;

/// Floats of a bordered inner map that are alive at once: three quarters of a megabyte-sized second-level cache hold
/// them, the depthwise result and the weights.
const BAND: usize = 96 * 1024;

/// Window and stride of the first convolution.
const STEM: (usize, usize) = (3, 2);

/// Colours of a pixel.
pub(super) const COLOURS: usize = 3;

/// Reads the tensor of a name and a shape.
pub(super) type Tensors<'a> = dyn FnMut(&str, &[usize]) -> Result<Vec<f32>, Error> + 'a;

/// Height, width and channels of a map; a pixel takes [`padded`] channels of room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) channels: usize,
}

impl Size {
    fn pixels(self) -> usize {
        self.height * self.width
    }

    fn room(self) -> usize {
        self.pixels() * padded(self.channels)
    }
}

/// A convolutional network with frozen statistics for pictures of one size.
pub(super) struct Network {
    /// The normalised picture.
    input: Size,
    /// Rows and columns of zeros above and to the left of it.
    border: usize,
    stem: Pointwise,
    stem_size: Size,
    blocks: Vec<Block>,
    /// Maps that a loss can see: the index into the block inputs, 0 for the stem's output, `i + 1` for that of block `i`.
    stages: Vec<usize>,
    head: Pointwise,
    labels: Option<Pointwise>,
    dim: usize,
    back: OnceLock<Back>,
}

/// What only the way back needs.
struct Back {
    stem: Pointwise,
    blocks: Vec<BlockBack>,
    head: Pointwise,
}

struct BlockBack {
    expand: Option<Pointwise>,
    depthwise: Depthwise,
    project: Pointwise,
}

/// One inverted residual block.
struct Block {
    from: Size,
    to: Size,
    /// Zeros above and to the left.
    border: (usize, usize),
    expand: Option<Pointwise>,
    depthwise: Depthwise,
    project: Pointwise,
    residual: bool,
}

/// Buffers of one worker.
#[derive(Default)]
pub(super) struct Scratch {
    image: Aligned,
    patches: Aligned,
    inner: Aligned,
    narrow: Aligned,
    spread: Aligned,
}

/// What a forward pass leaves for the way back.
#[derive(Default)]
pub(super) struct Tape {
    /// The stem's output, then that of every block.
    maps: Vec<Aligned>,
    head: Aligned,
}

impl Network {
    /// Builds the network of `plan` from its tensors, batch-norm folded.
    ///
    /// # Errors
    /// Those of `tensors`.
    pub(super) fn new(plan: &Plan, tensors: &mut Tensors<'_>) -> Result<Self, Error> {
        let Plan { family, side, stem, head, labels, .. } = *plan;
        let (border, out) = family.padding(side, STEM.0, STEM.1);
        let input = Size { height: side, width: side, channels: COLOURS };
        let stem_size = Size { height: out, width: out, channels: stem };
        let stem = {
            let (weight, bias) = folded(tensors, family, &family.stem(), &[stem, COLOURS, STEM.0, STEM.0])?;
            // Rows of windows are (row, column, colour), the file has (colour, row, column).
            let window = STEM.0 * STEM.0;
            let by_colour = weight.chunks_exact(window * COLOURS);
            let rows = by_colour.flat_map(|w| (0..window * COLOURS).map(|i| w[i % COLOURS * window + i / COLOURS]));
            Pointwise::new(&rows.collect::<Vec<_>>(), &bias, window * COLOURS)
        };
        let (mut blocks, mut stages) = (Vec::new(), vec![0]);
        let mut from = stem_size;
        for stage in &plan.stages {
            for repeat in 0..stage.repeats {
                let stride = if repeat == 0 { stage.stride } else { 1 };
                let block = Block::new(family, blocks.len(), from, (stage, stride), tensors)?;
                from = block.to;
                blocks.push(block);
            }
            stages.push(blocks.len());
        }
        let (weight, bias) = folded(tensors, family, &family.head(blocks.len()), &[head, from.channels, 1, 1])?;
        let classes = match labels {
            0 => None,
            n => Some(Pointwise::new(&tensors("_fc.weight", &[n, head])?, &tensors("_fc.bias", &[n])?, head)),
        };
        let head_layer = Pointwise::new(&weight, &bias, from.channels);
        Ok(Self {
            input,
            border,
            stem,
            stem_size,
            blocks,
            stages,
            head: head_layer,
            labels: classes,
            dim: head,
            back: OnceLock::new(),
        })
    }

    /// Coordinates of a feature.
    pub(super) fn dim(&self) -> usize {
        self.dim
    }

    /// Sizes of the maps that a loss can see: behind the stem and behind every stage.
    pub(super) fn maps(&self) -> Vec<Size> {
        self.stages.iter().map(|&at| self.size(at)).collect()
    }

    fn size(&self, at: usize) -> Size {
        if at == 0 { self.stem_size } else { self.blocks[at - 1].to }
    }

    /// The mean of the last map, before it is scaled to unit length.
    ///
    /// `image` is `(side, side, 3)`, normalised.
    pub(super) fn forward(&self, image: &[f32], tape: &mut Tape, scratch: &mut Scratch) -> Vec<f32> {
        tape.maps.resize_with(self.blocks.len() + 1, Aligned::default);
        tape.maps[0].reserve(self.stem_size.room());
        self.stem(image, &mut tape.maps[0], scratch);
        for (i, block) in self.blocks.iter().enumerate() {
            let (before, after) = tape.maps.split_at_mut(i + 1);
            after[0].reserve(block.to.room());
            block.forward(&before[i], &mut after[0], scratch);
        }
        let (last, outputs) = (self.size(self.blocks.len()), self.head.outputs());
        tape.head.reserve(last.pixels() * outputs);
        let x = &tape.maps[self.blocks.len()];
        self.head.dense(x, padded(last.channels), last.pixels(), &mut tape.head, Finish::Relu6);
        let mut mean = vec![0.0; outputs];
        for row in tape.head.chunks_exact(outputs).take(last.pixels()) {
            for (sum, v) in mean.iter_mut().zip(row) {
                *sum += v;
            }
        }
        mean.truncate(self.dim);
        for m in &mut mean {
            *m /= last.pixels() as f32;
        }
        mean
    }

    /// Logits of the classes for the mean of a last map, where there is a classifier.
    pub(super) fn classify(&self, mean: &[f32], classes: usize) -> Option<Vec<f32>> {
        let layer = self.labels.as_ref()?;
        let mut logits = vec![0.0; layer.outputs()];
        layer.dense(mean, mean.len(), 1, &mut logits, Finish::Linear);
        logits.truncate(classes);
        Some(logits)
    }

    /// Map number `map` of a forward pass without its padding: `(height, width, channels)`.
    pub(super) fn map(&self, map: usize, tape: &Tape) -> Vec<f32> {
        let size = self.size(self.stages[map]);
        let values = &tape.maps[self.stages[map]][..size.room()];
        values.chunks_exact(padded(size.channels)).flat_map(|pixel| &pixel[..size.channels]).copied().collect()
    }

    /// The gradient of a loss with respect to the normalised image of a forward pass, `(side, side, 3)`.
    ///
    /// `mean` is its gradient with respect to the mean of the last map, `maps` with respect to maps by number.
    pub(super) fn backward(
        &self,
        tape: &Tape,
        mean: &[f32],
        maps: &[(usize, &[f32])],
        scratch: &mut Scratch,
    ) -> Vec<f32> {
        let back = self.back.get_or_init(|| Back::new(self));
        let (last, outputs) = (self.size(self.blocks.len()), self.head.outputs());
        let mut head = Aligned::zeros(last.pixels() * outputs);
        let share = 1.0 / last.pixels() as f32;
        for row in head.chunks_exact_mut(outputs) {
            for (v, g) in row.iter_mut().zip(mean) {
                *v = g * share;
            }
        }
        mask(&mut head, &tape.head);
        let mut here = Aligned::zeros(last.room());
        back.head.dense(&head, outputs, last.pixels(), &mut here, Finish::Linear);
        for at in (0..=self.blocks.len()).rev() {
            let size = self.size(at);
            for (_, more) in maps.iter().filter(|(map, _)| self.stages[*map] == at) {
                let pixels = here.chunks_exact_mut(padded(size.channels));
                for (pixel, more) in pixels.zip(more.chunks_exact(size.channels)) {
                    for (g, m) in pixel.iter_mut().zip(more) {
                        *g += m;
                    }
                }
            }
            if at > 0 {
                let block = &self.blocks[at - 1];
                let mut next = Aligned::zeros(block.from.room());
                block.backward(&back.blocks[at - 1], &tape.maps[at - 1], &here, &mut next, scratch);
                here = next;
            }
        }
        mask(&mut here, &tape.maps[0]);
        self.stem_backward(&back.stem, &here, scratch)
    }

    /// Floats in a row of the bordered image: all windows and the whole picture.
    fn image_row(&self) -> usize {
        let span = (self.stem_size.width - 1) * STEM.1 + STEM.0;
        span.max(self.border + self.input.width) * COLOURS
    }

    fn image_rows(&self) -> usize {
        self.image_row() / COLOURS
    }

    /// Windows laid out as rows, band by band, times the weights.
    fn stem(&self, image: &[f32], out: &mut [f32], scratch: &mut Scratch) {
        let (row, taps) = (self.image_row(), STEM.0 * COLOURS);
        scratch.image.reserve(row * self.image_rows());
        scratch.image.fill(0.0);
        let inside = scratch.image.chunks_exact_mut(row).skip(self.border);
        for (line, source) in inside.zip(image.chunks_exact(self.input.width * COLOURS)) {
            line[self.border * COLOURS..][..source.len()].copy_from_slice(source);
        }
        let Size { height, width, .. } = self.stem_size;
        scratch.patches.reserve(width * STEM.0 * taps);
        for y in 0..height {
            for (x, patch) in scratch.patches.chunks_exact_mut(STEM.0 * taps).take(width).enumerate() {
                for (i, line) in patch.chunks_exact_mut(taps).enumerate() {
                    line.copy_from_slice(&scratch.image[(y * STEM.1 + i) * row + x * STEM.1 * COLOURS..][..taps]);
                }
            }
            let out = &mut out[y * width * self.stem.outputs()..];
            self.stem.dense(&scratch.patches, STEM.0 * taps, width, out, Finish::Relu6);
        }
    }

    fn stem_backward(&self, back: &Pointwise, gradient: &[f32], scratch: &mut Scratch) -> Vec<f32> {
        let (row, taps) = (self.image_row(), STEM.0 * COLOURS);
        scratch.image.reserve(row * self.image_rows());
        scratch.image.fill(0.0);
        let Size { height, width, .. } = self.stem_size;
        scratch.patches.reserve(width * back.outputs());
        for y in 0..height {
            let gradient = &gradient[y * width * self.stem.outputs()..];
            back.dense(gradient, self.stem.outputs(), width, &mut scratch.patches, Finish::Linear);
            for (x, patch) in scratch.patches.chunks_exact(back.outputs()).take(width).enumerate() {
                for (i, line) in patch.chunks_exact(taps).take(STEM.0).enumerate() {
                    let target = &mut scratch.image[(y * STEM.1 + i) * row + x * STEM.1 * COLOURS..][..taps];
                    for (t, g) in target.iter_mut().zip(line) {
                        *t += g;
                    }
                }
            }
        }
        let inside = scratch.image.chunks_exact(row).skip(self.border).take(self.input.height);
        inside.flat_map(|line| &line[self.border * COLOURS..][..self.input.width * COLOURS]).copied().collect()
    }
}

impl Back {
    fn new(network: &Network) -> Self {
        let block = |block: &Block| BlockBack {
            expand: block.expand.as_ref().map(Pointwise::transposed),
            depthwise: block.depthwise.transposed(),
            project: block.project.transposed(),
        };
        Self {
            stem: network.stem.transposed(),
            blocks: network.blocks.iter().map(block).collect(),
            head: network.head.transposed(),
        }
    }
}

impl Block {
    fn new(
        family: Family,
        index: usize,
        from: Size,
        (stage, stride): (&super::plan::Stage, usize),
        tensors: &mut Tensors<'_>,
    ) -> Result<Self, Error> {
        let inner = from.channels * stage.expansion;
        let (expand, depthwise, project) = family.block(index, stage.expansion != 1);
        let expand = match expand {
            None => None,
            Some(names) => {
                let (weight, bias) = folded(tensors, family, &names, &[inner, from.channels, 1, 1])?;
                Some(Pointwise::new(&weight, &bias, from.channels))
            }
        };
        let (weight, bias) = folded(tensors, family, &depthwise, &[inner, 1, stage.window, stage.window])?;
        let depthwise = Depthwise::new(&weight, &bias, stage.window, stride);
        let (weight, bias) = folded(tensors, family, &project, &[stage.channels, inner, 1, 1])?;
        let project = Pointwise::new(&weight, &bias, inner);
        let (above, height) = family.padding(from.height, stage.window, stride);
        let (left, width) = family.padding(from.width, stage.window, stride);
        let to = Size { height, width, channels: stage.channels };
        let residual = stride == 1 && from.channels == to.channels;
        Ok(Self { from, to, border: (above, left), expand, depthwise, project, residual })
    }

    /// Columns of the bordered inner map: all windows and the whole picture.
    fn columns(&self) -> usize {
        let span = (self.to.width - 1) * self.depthwise.stride() + self.depthwise.side();
        span.max(self.border.1 + self.from.width)
    }

    /// Floats in a row of the bordered inner map.
    fn row(&self) -> usize {
        self.columns() * self.depthwise.channels()
    }

    fn forward(&self, x: &[f32], y: &mut [f32], scratch: &mut Scratch) {
        let (stride, side, c) = (self.depthwise.stride(), self.depthwise.side(), self.depthwise.channels());
        let (row, outputs) = (self.row(), self.to.width * self.project.outputs());
        let fitting = (BAND / row).saturating_sub(side) / stride + 1;
        let bands = self.to.height.div_ceil(fitting);
        let band = self.to.height.div_ceil(bands);
        scratch.inner.reserve(((band - 1) * stride + side) * row);
        scratch.narrow.reserve(band * self.to.width * c);
        // Bordered rows in the buffer: those before `filled` are there, the first of them is `first`.
        let (mut first, mut filled) = (0, 0);
        for top in (0..self.to.height).step_by(band) {
            let rows = band.min(self.to.height - top);
            let wanted = top * stride..(top + rows - 1) * stride + side;
            let kept = wanted.start.min(filled)..filled;
            scratch.inner.copy_within((kept.start - first) * row..(kept.end - first) * row, 0);
            (first, filled) = (wanted.start, wanted.end);
            let fresh = kept.end.max(wanted.start)..wanted.end;
            let at = (fresh.start - first) * row;
            self.widen(x, fresh, &mut scratch.inner[at..]);
            let windows = Windows { input: &scratch.inner, row, height: rows, width: self.to.width };
            self.depthwise.apply(windows, &mut scratch.narrow, true);
            let at = top * outputs;
            let finish = if self.residual { Finish::Residual(&x[at..]) } else { Finish::Linear };
            self.project.dense(&scratch.narrow, c, rows * self.to.width, &mut y[at..], finish);
        }
    }

    /// Rows `rows` of the bordered inner map: expanded where they lie in the picture, zeros elsewhere.
    fn widen(&self, x: &[f32], rows: Range<usize>, inner: &mut [f32]) {
        let (c, row, stride) = (self.depthwise.channels(), self.row(), padded(self.from.channels));
        let (above, left) = self.border;
        let width = self.from.width;
        let inside = rows.start.max(above).min(rows.end)..rows.end.min(above + self.from.height).max(rows.start);
        for (line, y) in inner.chunks_exact_mut(row).zip(rows.clone()) {
            if inside.contains(&y) {
                line[..left * c].fill(0.0);
                line[(left + width) * c..].fill(0.0);
            } else {
                line.fill(0.0);
            }
        }
        if inside.is_empty() {
            return;
        }
        let start = (inside.start - rows.start) * row + left * c;
        let x = &x[(inside.start - above) * width * stride..];
        if let Some(expand) = &self.expand {
            expand.apply(x, stride, inside.len() * width, inner, Place { start, width, row }, Finish::Relu6);
        } else {
            let lines = inner[start..].chunks_mut(row).zip(x.chunks_exact(width * stride));
            for (line, source) in lines.take(inside.len()) {
                line[..source.len()].copy_from_slice(source);
            }
        }
    }

    /// `dx` from `dy`, both without a border; the inner maps are computed again from `x`.
    fn backward(&self, back: &BlockBack, x: &[f32], dy: &[f32], dx: &mut [f32], scratch: &mut Scratch) {
        let (stride, side, c) = (self.depthwise.stride(), self.depthwise.side(), self.depthwise.channels());
        let (row, (above, left)) = (self.row(), self.border);
        let rows = ((self.to.height - 1) * stride + side).max(above + self.from.height);
        scratch.inner.reserve(rows * row);
        self.widen(x, 0..rows, &mut scratch.inner);
        let pixels = self.to.pixels();
        scratch.narrow.reserve(self.from.pixels().max(pixels) * c);
        let windows = Windows { input: &scratch.inner, row, height: self.to.height, width: self.to.width };
        self.depthwise.apply(windows, &mut scratch.narrow, true);

        // Through the projection and ReLU6, then spread out by the stride with room for whole windows around.
        let (columns, around) = (self.from.width + side - 1, side - 1);
        scratch.spread.reserve((self.from.height + around) * columns * c + pixels * c);
        let (spread, wide) = scratch.spread.split_at_mut((self.from.height + around) * columns * c);
        back.project.dense(dy, self.project.outputs(), pixels, wide, Finish::Linear);
        mask(&mut wide[..pixels * c], &scratch.narrow);
        spread.fill(0.0);
        for (i, pixel) in wide.chunks_exact(c).take(pixels).enumerate() {
            let (y, x) = (i / self.to.width * stride + around - above, i % self.to.width * stride + around - left);
            spread[(y * columns + x) * c..][..c].copy_from_slice(pixel);
        }
        let windows = Windows { input: spread, row: columns * c, height: self.from.height, width: self.from.width };
        back.depthwise.apply(windows, &mut scratch.narrow, false);

        let Some(expand) = &back.expand else {
            dx[..self.from.room()].copy_from_slice(&scratch.narrow[..self.from.room()]);
            if self.residual {
                for (d, g) in dx.iter_mut().zip(&dy[..self.from.room()]) {
                    *d += g;
                }
            }
            return;
        };
        let lines = scratch.narrow.chunks_exact_mut(self.from.width * c).take(self.from.height);
        for (line, seen) in lines.zip(scratch.inner.chunks_exact(row).skip(above)) {
            mask(line, &seen[left * c..]);
        }
        let finish = if self.residual { Finish::Residual(dy) } else { Finish::Linear };
        expand.dense(&scratch.narrow, c, self.from.pixels(), dx, finish);
    }
}

/// The derivative of ReLU6, from its output: the gradient passes where `0 < seen < 6`.
fn mask(gradient: &mut [f32], seen: &[f32]) {
    vectorised(
        #[inline(always)]
        || {
            for (g, &s) in gradient.iter_mut().zip(seen) {
                *g = if s > 0.0 && s < 6.0 { *g } else { 0.0 };
            }
        },
    );
}

/// Weights and bias of a convolution with its batch-norm folded in.
///
/// # Formula
/// `gamma (W x - mean) / sqrt(var + eps) + beta = (s W) x + (beta - s mean)`, `s = gamma / sqrt(var + eps)`
fn folded(
    tensors: &mut Tensors<'_>,
    family: Family,
    names: &Names,
    shape: &[usize],
) -> Result<(Vec<f32>, Vec<f32>), Error> {
    let outputs = shape[0];
    let mut weight = tensors(&format!("{}.weight", names.convolution), shape)?;
    let mut of = |part: &str| tensors(&format!("{}.{part}", names.norm), &[outputs]);
    let (gamma, beta, mean, var) = (of("weight")?, of("bias")?, of("running_mean")?, of("running_var")?);
    let mut bias = Vec::with_capacity(outputs);
    for (i, row) in weight.chunks_exact_mut(shape[1..].iter().product()).enumerate() {
        let scale = f64::from(gamma[i]) / (f64::from(var[i]) + family.epsilon()).sqrt();
        for w in row {
            *w = (f64::from(*w) * scale) as f32;
        }
        bias.push((f64::from(beta[i]) - scale * f64::from(mean[i])) as f32);
    }
    Ok((weight, bias))
}
