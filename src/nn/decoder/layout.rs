//! Where each parameter lies in the flat arena.

use super::DecoderConfig;

/// A stretch of the arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::nn) struct Span {
    pub(in crate::nn) at: usize,
    pub(in crate::nn) len: usize,
}

impl Span {
    pub(in crate::nn) fn slice(self, arena: &[f32]) -> &[f32] {
        &arena[self.at..self.at + self.len]
    }

    pub(in crate::nn) fn of_mut(self, arena: &mut [f32]) -> &mut [f32] {
        &mut arena[self.at..self.at + self.len]
    }

    /// This span and the one right behind it, of the same length (a norm's gain and bias).
    pub(in crate::nn) fn pair_mut(self, arena: &mut [f32]) -> (&mut [f32], &mut [f32]) {
        arena[self.at..self.at + 2 * self.len].split_at_mut(self.len)
    }
}

/// How a parameter starts.
#[derive(Debug, Clone, Copy)]
pub(in crate::nn) enum Start {
    Normal(f32),
    Constant(f32),
}

/// One named parameter.
#[derive(Debug, Clone)]
pub(in crate::nn) struct Part {
    pub(in crate::nn) name: String,
    pub(in crate::nn) shape: Vec<usize>,
    pub(in crate::nn) span: Span,
    pub(in crate::nn) start: Start,
    /// Whether weight decay applies: matrices and token embeddings, not biases, gains, positions or the null prefix.
    pub(in crate::nn) decay: bool,
}

/// A normalisation: the bias lies right behind the gain.
#[derive(Debug, Clone, Copy)]
pub(in crate::nn) struct Norm {
    pub(in crate::nn) gain: Span,
    pub(in crate::nn) bias: Span,
}

/// A linear map, weight `(in, out)`.
#[derive(Debug, Clone, Copy)]
pub(in crate::nn) struct Linear {
    pub(in crate::nn) weight: Span,
    pub(in crate::nn) bias: Span,
}

/// One transformer layer.
#[derive(Debug, Clone, Copy)]
pub(in crate::nn) struct Layer {
    pub(in crate::nn) norm_attention: Norm,
    pub(in crate::nn) qkv: Linear,
    pub(in crate::nn) out: Linear,
    pub(in crate::nn) norm_feed: Norm,
    pub(in crate::nn) up: Linear,
    pub(in crate::nn) down: Linear,
}

/// The whole arena.
#[derive(Debug, Clone)]
pub(in crate::nn) struct Layout {
    pub(in crate::nn) parts: Vec<Part>,
    pub(in crate::nn) total: usize,
    /// `(vocab, d)`.
    pub(in crate::nn) embedding: Span,
    /// `(vocab, d)`; the embedding itself when tied.
    pub(in crate::nn) output: Span,
    /// `(positions, d)`.
    pub(in crate::nn) position: Span,
    /// `(cond_dim, hidden)`.
    pub(in crate::nn) prefix_in: Linear,
    /// `(hidden, slots * d)`.
    pub(in crate::nn) prefix_out: Linear,
    /// `(slots, d)`.
    pub(in crate::nn) null: Span,
    pub(in crate::nn) layers: Vec<Layer>,
    pub(in crate::nn) norm_final: Norm,
}

const EMBEDDING_DEVIATION: f32 = 0.02;

#[derive(Default)]
struct Builder {
    parts: Vec<Part>,
    total: usize,
}

impl Builder {
    fn part(&mut self, name: &str, shape: &[usize], start: Start, decay: bool) -> Span {
        let span = Span { at: self.total, len: shape.iter().product() };
        self.total += span.len;
        self.parts.push(Part { name: name.to_owned(), shape: shape.to_vec(), span, start, decay });
        span
    }

    fn linear(&mut self, name: &str, from: usize, to: usize, shrink: f32) -> Linear {
        let deviation = shrink / (3.0 * from as f32).sqrt();
        Linear {
            weight: self.part(&format!("{name}.weight"), &[from, to], Start::Normal(deviation), true),
            bias: self.part(&format!("{name}.bias"), &[to], Start::Constant(0.0), false),
        }
    }

    fn norm(&mut self, name: &str, d: usize) -> Norm {
        Norm {
            gain: self.part(&format!("{name}.gain"), &[d], Start::Constant(1.0), false),
            bias: self.part(&format!("{name}.bias"), &[d], Start::Constant(0.0), false),
        }
    }
}

impl Layout {
    pub(in crate::nn) fn new(config: &DecoderConfig) -> Layout {
        let mut b = Builder::default();
        let (d, hidden) = (config.d_model, config.hidden());
        let small = Start::Normal(EMBEDDING_DEVIATION);
        let shrink = 1.0 / (2.0 * config.layers as f32).sqrt();
        let embedding = b.part("embedding", &[config.vocab, d], small, true);
        let output = if config.tied { embedding } else { b.part("output", &[config.vocab, d], small, true) };
        let position = b.part("position", &[config.positions(), d], small, false);
        let prefix_in = b.linear("prefix.in", config.cond_dim, hidden, 1.0);
        let prefix_out = b.linear("prefix.out", hidden, config.slots * d, 1.0);
        let null = b.part("prefix.null", &[config.slots, d], small, false);
        let layers = (0..config.layers)
            .map(|l| Layer {
                norm_attention: b.norm(&format!("layer.{l}.norm_attention"), d),
                qkv: b.linear(&format!("layer.{l}.qkv"), d, 3 * d, 1.0),
                out: b.linear(&format!("layer.{l}.out"), d, d, shrink),
                norm_feed: b.norm(&format!("layer.{l}.norm_feed"), d),
                up: b.linear(&format!("layer.{l}.up"), d, config.ff_mult * d, 1.0),
                down: b.linear(&format!("layer.{l}.down"), config.ff_mult * d, d, shrink),
            })
            .collect();
        let norm_final = b.norm("norm_final", d);
        Layout {
            parts: b.parts,
            total: b.total,
            embedding,
            output,
            position,
            prefix_in,
            prefix_out,
            null,
            layers,
            norm_final,
        }
    }
}
