//! Weight files and checkpoints: safetensors with one metadata key, a checksum over everything, atomic writes.
//!
//! One metadata key only, because the format keeps metadata in a hash map and two keys would not be byte-reproducible.

use super::Error;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::collections::HashMap;
use std::io::Write;
use std::path::Path;

const KEY: &str = "stitchback";

/// A tensor to be written.
pub(super) struct Tensor<'a> {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    pub(super) data: &'a [f32],
}

#[derive(Serialize, Deserialize)]
struct Envelope {
    kind: String,
    header: String,
    checksum: String,
}

/// A file that was read and verified.
pub(super) struct Snapshot {
    path: String,
    header: String,
    bytes: Vec<u8>,
}

fn bad(path: &Path, why: impl std::fmt::Display) -> Error {
    Error::Checkpoint { path: path.display().to_string(), why: why.to_string() }
}

fn checksum<'a>(kind: &str, header: &str, tensors: impl Iterator<Item = (&'a str, &'a [usize], &'a [u8])>) -> String {
    let mut tensors: Vec<_> = tensors.collect();
    tensors.sort_unstable();
    let mut hasher = blake3::Hasher::new();
    let mut field = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    field(kind.as_bytes());
    field(header.as_bytes());
    for (name, shape, data) in tensors {
        field(name.as_bytes());
        field(format!("{shape:?}").as_bytes());
        field(data);
    }
    hasher.finalize().to_hex().to_string()
}

/// How numbers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Precision {
    /// Bit for bit.
    Single,
    /// Half the size, three digits: for finished models, never for checkpoints.
    Half,
}

/// Writes a snapshot of `kind`; the file appears whole or not at all.
pub(super) fn write(
    path: &Path,
    kind: &str,
    header: &impl Serialize,
    tensors: &[Tensor],
    precision: Precision,
) -> Result<(), Error> {
    let header = serde_json::to_string(header).map_err(|e| bad(path, e))?;
    let pack = |data: &[f32]| -> Vec<u8> {
        match precision {
            Precision::Single => data.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Precision::Half => data.iter().flat_map(|&v| half::f16::from_f32(v).to_le_bytes()).collect(),
        }
    };
    let dtype = match precision {
        Precision::Single => Dtype::F32,
        Precision::Half => Dtype::F16,
    };
    let bytes: Vec<Vec<u8>> = tensors.iter().map(|tensor| pack(tensor.data)).collect();
    let views = || tensors.iter().zip(&bytes);
    let checksum = checksum(kind, &header, views().map(|(t, b)| (t.name.as_str(), t.shape.as_slice(), b.as_slice())));
    let envelope = Envelope { kind: kind.to_owned(), header, checksum };
    let metadata = HashMap::from([(KEY.to_owned(), serde_json::to_string(&envelope).map_err(|e| bad(path, e))?)]);
    let views: Vec<(&str, TensorView)> = views()
        .map(|(t, b)| Ok((t.name.as_str(), TensorView::new(dtype, t.shape.clone(), b)?)))
        .collect::<Result<_, safetensors::SafeTensorError>>()
        .map_err(|e| bad(path, e))?;
    let file = safetensors::serialize(views, Some(metadata)).map_err(|e| bad(path, e))?;
    let commit = || {
        let mut out = atomic_write_file::AtomicWriteFile::open(path)?;
        out.write_all(&file)?;
        out.commit()
    };
    commit().map_err(|e: std::io::Error| bad(path, e))
}

/// Reads and verifies a snapshot of `kind`.
pub(super) fn read(path: &Path, kind: &str) -> Result<Snapshot, Error> {
    parse(path, std::fs::read(path).map_err(|e| bad(path, e))?, kind)
}

/// Verifies the bytes of a snapshot of `kind`; `path` only names them in messages.
pub(super) fn parse(path: &Path, bytes: Vec<u8>, kind: &str) -> Result<Snapshot, Error> {
    let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(|e| bad(path, e))?;
    let envelope = metadata.metadata().as_ref().and_then(|map| map.get(KEY));
    let envelope = envelope.ok_or_else(|| bad(path, "it was not written by stitchback"))?;
    let envelope: Envelope = serde_json::from_str(envelope).map_err(|e| bad(path, e))?;
    if envelope.kind != kind {
        return Err(bad(path, format!("it holds a {}, a {kind} is needed", envelope.kind)));
    }
    let tensors = SafeTensors::deserialize(&bytes).map_err(|e| bad(path, e))?;
    let views = tensors.iter().map(|(name, view)| (name, view.shape().to_vec(), view.data())).collect::<Vec<_>>();
    let seen =
        checksum(kind, &envelope.header, views.iter().map(|(name, shape, data)| (*name, shape.as_slice(), *data)));
    if seen != envelope.checksum {
        return Err(bad(path, "its checksum does not match; the file is damaged, delete it"));
    }
    Ok(Snapshot { path: path.display().to_string(), header: envelope.header, bytes })
}

impl Snapshot {
    /// The header that was given to [`write`].
    pub(super) fn header<H: DeserializeOwned>(&self) -> Result<H, Error> {
        serde_json::from_str(&self.header).map_err(|e| self.bad(&e))
    }

    /// Copies one tensor out.
    pub(super) fn copy(&self, name: &str, shape: &[usize], out: &mut [f32]) -> Result<(), Error> {
        let tensors = SafeTensors::deserialize(&self.bytes).map_err(|e| self.bad(&e))?;
        let view = tensors.tensor(name).map_err(|e| self.bad(&e))?;
        match view.dtype() {
            Dtype::F32 if view.shape() == shape => {
                for (out, bytes) in out.iter_mut().zip(view.data().as_chunks::<4>().0) {
                    *out = f32::from_le_bytes(*bytes);
                }
            }
            Dtype::F16 if view.shape() == shape => {
                for (out, bytes) in out.iter_mut().zip(view.data().as_chunks::<2>().0) {
                    *out = half::f16::from_le_bytes(*bytes).to_f32();
                }
            }
            dtype => {
                return Err(self.bad(&format!("`{name}` is {dtype:?} {:?}, not F32 {shape:?}", view.shape())));
            }
        }
        Ok(())
    }

    fn bad(&self, why: &impl std::fmt::Display) -> Error {
        bad(Path::new(&self.path), why)
    }
}
