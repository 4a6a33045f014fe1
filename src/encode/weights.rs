//! Weight files: safetensors only, every shape checked before use, non-finite values refused.

use super::Error;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// The bytes of one safetensors file.
pub(super) struct Weights {
    path: PathBuf,
    bytes: Vec<u8>,
    /// `bert.` when the file keeps the encoder inside a larger model.
    prefix: &'static str,
}

impl Weights {
    /// Reads `folder/model.safetensors`.
    pub(super) fn open(folder: &Path) -> Result<Self, Error> {
        let path = folder.join("model.safetensors");
        let bytes = std::fs::read(&path).map_err(|e| {
            let pickled = ["pytorch_model.bin", "model.pt", "model.pth", "model.pkl"];
            match pickled.iter().find(|p| folder.join(p).exists()) {
                Some(name) => file(
                    &folder.join(name),
                    "is a pickle, which can run code, and is never read; convert it: load it where you trust it and \
                     write its state dict with `safetensors.torch.save_file(state, \"model.safetensors\")`",
                ),
                None => file(&path, e),
            }
        })?;
        let prefix = {
            let tensors = SafeTensors::deserialize(&bytes).map_err(|e| file(&path, e))?;
            if tensors.iter().any(|(name, _)| name.starts_with("bert.")) { "bert." } else { "" }
        };
        Ok(Self { path, bytes, prefix })
    }

    /// BLAKE3 of the whole file.
    pub(super) fn hash(&self) -> blake3::Hash {
        blake3::hash(&self.bytes)
    }

    /// One tensor, widened to f32.
    pub(super) fn tensor(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, Error> {
        let view = self.view(name, shape)?;
        let values = widen(view.data(), self.kind(name, view.dtype())?);
        match values.iter().position(|v| !v.is_finite()) {
            Some(at) => Err(file(&self.path, format!("tensor `{name}`: value {at} is not finite"))),
            None => Ok(values),
        }
    }

    /// Keeps the rows of one `(rows, dim)` tensor as stored, and lets the rest of the file go.
    pub(super) fn into_table(mut self, name: &str, rows: usize, dim: usize) -> Result<Table, Error> {
        let (range, kind) = {
            let view = self.view(name, &[rows, dim])?;
            let kind = self.kind(name, view.dtype())?;
            let start = view.data().as_ptr().addr() - self.bytes.as_ptr().addr();
            (Range { start, end: start + view.data().len() }, kind)
        };
        self.bytes.truncate(range.end);
        self.bytes.drain(..range.start);
        self.bytes.shrink_to_fit();
        let table = Table { bytes: self.bytes, kind, dim };
        let mut row = vec![0.0; dim];
        for id in 0..rows {
            table.read(id, &mut row);
            if row.iter().any(|v| !v.is_finite()) {
                return Err(file(&self.path, format!("tensor `{name}`: row {id} is not finite")));
            }
        }
        Ok(table)
    }

    fn view(&self, name: &str, shape: &[usize]) -> Result<TensorView<'_>, Error> {
        let tensors = SafeTensors::deserialize(&self.bytes).map_err(|e| file(&self.path, e))?;
        let view = tensors
            .tensor(&format!("{}{name}", self.prefix))
            .map_err(|_| file(&self.path, format!("tensor `{}{name}` is missing", self.prefix)))?;
        if view.shape() != shape {
            let why = format!("tensor `{name}` has shape {:?}, the configuration says {shape:?}", view.shape());
            return Err(file(&self.path, why));
        }
        Ok(view)
    }

    fn kind(&self, name: &str, dtype: Dtype) -> Result<Kind, Error> {
        match dtype {
            Dtype::F32 => Ok(Kind::F32),
            Dtype::F16 => Ok(Kind::F16),
            Dtype::BF16 => Ok(Kind::Bf16),
            other => Err(file(&self.path, format!("tensor `{name}` is {other:?}; supported: F32, F16, BF16"))),
        }
    }
}

/// Floating-point storage types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    F32,
    F16,
    Bf16,
}

impl Kind {
    fn bytes(self) -> usize {
        if self == Kind::F32 { 4 } else { 2 }
    }
}

/// A large table of rows that are widened one at a time, when they are read.
#[derive(Debug)]
pub(super) struct Table {
    bytes: Vec<u8>,
    kind: Kind,
    dim: usize,
}

impl Table {
    /// Copies row `id` to `row`.
    pub(super) fn read(&self, id: usize, row: &mut [f32]) {
        let size = self.dim * self.kind.bytes();
        widen_into(&self.bytes[id * size..(id + 1) * size], self.kind, row);
    }
}

fn widen(bytes: &[u8], kind: Kind) -> Vec<f32> {
    let mut values = vec![0.0; bytes.len() / kind.bytes()];
    widen_into(bytes, kind, &mut values);
    values
}

fn widen_into(bytes: &[u8], kind: Kind, values: &mut [f32]) {
    match kind {
        Kind::F32 => {
            for (v, b) in values.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *v = f32::from_le_bytes(*b);
            }
        }
        Kind::F16 => {
            for (v, b) in values.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *v = half(u16::from_le_bytes(*b));
            }
        }
        Kind::Bf16 => {
            for (v, b) in values.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *v = f32::from_bits(u32::from(u16::from_le_bytes(*b)) << 16);
            }
        }
    }
}

/// Widens an IEEE binary16.
fn half(bits: u16) -> f32 {
    // The exponent is moved by a multiplication, which handles subnormal numbers too: 2^112 = 2^(127 - 15).
    const REBIAS: f32 = f32::from_bits((127 + 112) << 23);
    let magnitude = f32::from_bits(u32::from(bits & 0x7fff) << 13) * REBIAS;
    let magnitude = match bits & 0x7fff {
        0x7c00 => f32::INFINITY,
        0x7c01.. => f32::NAN,
        _ => magnitude,
    };
    magnitude.copysign(if bits & 0x8000 == 0 { 1.0 } else { -1.0 })
}

/// An error about `path`.
pub(super) fn file(path: &Path, why: impl std::fmt::Display) -> Error {
    Error::File { path: path.display().to_string(), why: why.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_precision_widens_exactly() {
        for (bits, value) in [
            (0x0000, 0.0),
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x7bff, 65504.0),
            (0x0001, 5.960_464_5e-8),
            (0x0400, 6.103_515_6e-5),
            (0x3555, 0.333_251_95),
        ] {
            assert_eq!(half(bits), value, "{bits:#06x}");
        }
        assert_eq!(half(0x8000).to_bits(), (-0.0_f32).to_bits());
        assert_eq!(half(0xfc00), f32::NEG_INFINITY);
        assert!(half(0x7e00).is_nan());
        assert_eq!(widen(&[0x80, 0x3f, 0x20, 0xc1], Kind::Bf16), [1.0, -10.0]);
    }
}
