//! Tables of vectors on disk: `.npy`, `.safetensors`, `.parquet` and `.jsonl`, read with suspicion and written atomically.
//!
//! The first two formats are plain: a short header, then numbers. Nothing that can hold code is opened (`.pt`, `.pkl`, an object
//! `.npy`); a header is believed only after its size was compared with the file's.

use super::Error;
use super::columns::{self, Table};
use crate::encode::Embeddings;
use npyz::{DType, NpyFile, Order, WriterBuilder};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use std::collections::HashMap;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// The one metadata key that we write into `.safetensors` files; its value is a JSON text.
pub const METADATA_KEY: &str = "stitchback";

/// Name of the tensor in `.safetensors` files that we write.
pub const TENSOR_NAME: &str = "embeddings";

/// Longest `.npy` header that is read; a table's takes 118 bytes.
const NPY_HEADER_CAP: usize = 4096;

/// A container that holds vectors, told by its file name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Npy,
    SafeTensors,
    Parquet,
    JsonLines,
}

impl Format {
    fn of(path: &Path) -> Result<Self, Error> {
        let suffix = path.extension().map(|s| s.to_string_lossy().to_lowercase()).unwrap_or_default();
        let remedy = match suffix.as_str() {
            "npy" => return Ok(Self::Npy),
            "safetensors" => return Ok(Self::SafeTensors),
            "npz" => "an `.npz` is an archive; save the one array with `numpy.save`",
            "pt" | "pth" | "bin" | "pkl" | "pickle" => {
                "pickled files can run code and are never opened; save the tensor with `safetensors.torch.save_file`"
            }
            "parquet" => return Ok(Self::Parquet),
            "jsonl" | "ndjson" => return Ok(Self::JsonLines),
            _ => "vectors are read from `.npy`, `.safetensors`, `.parquet` and `.jsonl`",
        };
        Err(malformed(path, format!("`.{suffix}` is not a vector file; {remedy}")))
    }
}

/// Reads the vectors in `path`, one a row.
///
/// # Shapes
/// `(n, d)`: `.npy` in C order, little-endian `f32` or `f64`; `.safetensors` `F32`, `F64`, `F16` or `BF16`, the tensor
/// called `tensor`, or else the only two-dimensional one. Everything is converted to `f32`.
///
/// # Errors
/// Another suffix, dtype, order or number of dimensions; a truncated or overlong file; a value that is not a finite `f32`
/// (the row is named). Each message says what would be right.
pub fn read(path: &Path, tensor: Option<&str>) -> Result<Embeddings, Error> {
    read_table(path, tensor).map(|table| table.vectors)
}

/// Reads vectors with the ids and texts that stand beside them in `.parquet` and `.jsonl` files; there `tensor` names the
/// column.
///
/// # Errors
/// As [`read`].
pub fn read_table(path: &Path, tensor: Option<&str>) -> Result<Table, Error> {
    // A wrong suffix is told before a large file is read.
    Format::of(path)?;
    let bytes = std::fs::read(path).map_err(|source| Error::Read { path: path.display().to_string(), source })?;
    parse_table(path, bytes, tensor)
}

/// As [`read_table`], from the bytes of a file; `path` tells the format and names it in messages.
///
/// # Errors
/// As [`read`].
pub fn parse_table(path: &Path, bytes: Vec<u8>, tensor: Option<&str>) -> Result<Table, Error> {
    let (values, dim) = match Format::of(path)? {
        Format::Npy if tensor.is_some() => {
            return Err(malformed(path, "an `.npy` file holds one array; leave the tensor name out"));
        }
        Format::Npy => read_npy(&bytes),
        Format::SafeTensors => read_safetensors(&bytes, tensor),
        Format::Parquet => return columns::read_parquet(bytes, tensor).map_err(|why| malformed(path, why)),
        Format::JsonLines if tensor.is_some() => {
            return Err(malformed(path, "a line's vector stands under `embedding`; leave the tensor name out"));
        }
        Format::JsonLines => {
            return columns::read_json_lines(&bytes).map_err(|(line, why)| Error::Malformed {
                path: path.display().to_string(),
                line,
                why,
            });
        }
    }
    .map_err(|why| malformed(path, why))?;
    let vectors = Embeddings::new(values, dim).map_err(|error| malformed(path, error))?;
    Ok(Table { vectors, ids: None, texts: None })
}

/// Writes `vectors` to `path` as `f32`, with `metadata` beside them: inside a `.safetensors` file under
/// [`METADATA_KEY`], next to an `.npy` file in `<file>.json`.
///
/// A kill leaves the old file or the new one, never half of one; the metadata is there before the vectors are.
///
/// # Errors
/// Another suffix, or a path that cannot be written.
pub fn write(path: &Path, vectors: &Embeddings, metadata: Option<&serde_json::Value>) -> Result<(), Error> {
    write_table(path, vectors, None, metadata)
}

/// Whether [`write()`] knows the format, before work is spent on what it would refuse.
///
/// # Errors
/// Another suffix.
pub fn check_output(path: &Path) -> Result<(), Error> {
    match Format::of(path)? {
        Format::JsonLines => Err(malformed(path, "vectors are written as `.npy`, `.safetensors` or `.parquet`")),
        _ => Ok(()),
    }
}

/// As [`write()`], with the records' ids where the format has a place for them (`.parquet`).
///
/// # Errors
/// As [`write()`].
pub fn write_table(
    path: &Path,
    vectors: &Embeddings,
    ids: Option<&[String]>,
    metadata: Option<&serde_json::Value>,
) -> Result<(), Error> {
    match Format::of(path)? {
        Format::JsonLines => check_output(path),
        Format::Parquet => {
            let metadata = metadata.map(|json| (METADATA_KEY, json.to_string()));
            atomically(path, |file| columns::write_parquet(file, vectors, ids, metadata))
        }
        Format::Npy => {
            if let Some(metadata) = metadata {
                let text = format!("{metadata:#}\n");
                atomically(&sidecar(path), |file| file.write_all(text.as_bytes()))?;
            }
            atomically(path, |file| {
                let shape = [vectors.len() as u64, vectors.dim() as u64];
                let options = npyz::WriteOptions::new().default_dtype().shape(&shape).writer(file);
                let mut array = options.begin_nd()?;
                array.extend(vectors.values().iter().copied())?;
                array.finish()
            })
        }
        Format::SafeTensors => {
            let bytes: Vec<u8> = vectors.values().iter().flat_map(|v| v.to_le_bytes()).collect();
            let view = TensorView::new(Dtype::F32, vec![vectors.len(), vectors.dim()], &bytes)
                .expect("four bytes for each value of the table");
            // One key only: with more, the order of a hash map would decide on the bytes of the file.
            let metadata = metadata.map(|json| HashMap::from([(METADATA_KEY.to_owned(), json.to_string())]));
            let file = safetensors::serialize([(TENSOR_NAME, view)], metadata)
                .map_err(|error| malformed(path, format!("the header cannot be written: {error}")))?;
            atomically(path, |out| out.write_all(&file))
        }
    }
}

/// What [`write()`] put beside the vectors; `None` where there is nothing of ours.
pub fn metadata(path: &Path) -> Option<serde_json::Value> {
    match Format::of(path).ok()? {
        Format::Npy => serde_json::from_slice(&std::fs::read(sidecar(path)).ok()?).ok(),
        Format::SafeTensors => {
            let bytes = std::fs::read(path).ok()?;
            let (_, header) = SafeTensors::read_metadata(&bytes).ok()?;
            serde_json::from_str(header.metadata().as_ref()?.get(METADATA_KEY)?).ok()
        }
        Format::Parquet | Format::JsonLines => None,
    }
}

/// The file beside an `.npy` file that holds its metadata.
pub fn sidecar(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".json");
    name.into()
}

fn atomically(
    path: &Path,
    fill: impl FnOnce(&mut BufWriter<&mut atomic_write_file::AtomicWriteFile>) -> std::io::Result<()>,
) -> Result<(), Error> {
    let all = || {
        let mut file = atomic_write_file::AtomicWriteFile::open(path)?;
        let mut buffer = BufWriter::new(&mut file);
        fill(&mut buffer)?;
        buffer.flush()?;
        drop(buffer);
        file.commit()
    };
    all().map_err(|source| Error::Write { path: path.display().to_string(), source })
}

fn malformed(path: &Path, why: impl std::fmt::Display) -> Error {
    Error::Malformed { path: path.display().to_string(), line: None, why: why.to_string() }
}

fn read_npy(bytes: &[u8]) -> Result<(Vec<f32>, usize), String> {
    guard_npy_header(bytes)?;
    let mut rest = bytes;
    let file = NpyFile::new(&mut rest).map_err(|error| format!("its header cannot be read: {error}"))?;
    if file.uses_pickled_array() {
        return Err("it holds Python objects, which can run code; save a numeric array, `.astype('<f4')`".to_owned());
    }
    if file.order() != Order::C {
        return Err("it is in Fortran order; save `numpy.ascontiguousarray(x)`".to_owned());
    }
    let (rows, dim) = two_dimensions(file.shape().iter().map(|&size| usize::try_from(size).ok()))?;
    let descr = match file.dtype() {
        DType::Plain(scalar) => scalar.to_string(),
        structured => structured.descr(),
    };
    let width = match descr.as_str() {
        "<f4" => 4,
        "<f8" => 8,
        _ => return Err(format!("its dtype is `{descr}`; save `.astype('<f4')` (little-endian f32) or `'<f8'`")),
    };
    drop(file);
    exact_size(rows, dim, width, rest.len())?;
    Ok((decode(rest, if width == 4 { Dtype::F32 } else { Dtype::F64 }), dim))
}

/// Rejects headers that would make the parser allocate or recurse without need.
fn guard_npy_header(bytes: &[u8]) -> Result<(), String> {
    if !bytes.starts_with(b"\x93NUMPY") || bytes.len() < 12 {
        return Err("it does not begin like an `.npy` file".to_owned());
    }
    let (begin, length) = match bytes[6] {
        1 => (10, usize::from(u16::from_le_bytes([bytes[8], bytes[9]]))),
        _ => (12, u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]) as usize),
    };
    if length > NPY_HEADER_CAP {
        return Err(format!("its header claims {length} bytes, more than the {NPY_HEADER_CAP} of any plain array"));
    }
    let header = bytes.get(begin..begin + length).ok_or("its header is cut off")?;
    if header.iter().filter(|byte| b"([{".contains(byte)).count() > 16 {
        return Err("its header nests deeper than that of any plain array".to_owned());
    }
    // The parser multiplies the dimensions unchecked; eighteen digits cannot overflow it.
    if header.iter().filter(|byte| byte.is_ascii_digit()).count() > 18 {
        return Err("its header claims more values than any file holds".to_owned());
    }
    Ok(())
}

fn read_safetensors(bytes: &[u8], name: Option<&str>) -> Result<(Vec<f32>, usize), String> {
    let file = SafeTensors::deserialize(bytes).map_err(|error| format!("it is not a safetensors file: {error}"))?;
    let mut names: Vec<&str> = file.names();
    names.sort_unstable();
    let listed = names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let name = if let Some(name) = name {
        name
    } else {
        let mut flat = names.iter().filter(|name| file.tensor(name).is_ok_and(|t| t.shape().len() == 2));
        match (flat.next(), flat.next()) {
            (Some(only), None) => only,
            (None, _) => return Err(format!("it has no two-dimensional tensor, only: {listed}")),
            _ => return Err(format!("it has several two-dimensional tensors; choose one by name: {listed}")),
        }
    };
    let tensor = file.tensor(name).map_err(|_| format!("it has no tensor `{name}`, only: {listed}"))?;
    let (rows, dim) = two_dimensions(tensor.shape().iter().map(|&size| Some(size)))?;
    if !matches!(tensor.dtype(), Dtype::F32 | Dtype::F64 | Dtype::F16 | Dtype::BF16) {
        return Err(format!("tensor `{name}` is {:?}; convert it to F32, F64, F16 or BF16", tensor.dtype()));
    }
    exact_size(rows, dim, tensor.dtype().bitsize() / 8, tensor.data().len())?;
    Ok((decode(tensor.data(), tensor.dtype()), dim))
}

fn two_dimensions(shape: impl Iterator<Item = Option<usize>>) -> Result<(usize, usize), String> {
    let shape: Vec<usize> =
        shape.collect::<Option<_>>().ok_or("a dimension is larger than this machine can address")?;
    match shape[..] {
        [_, 0] => Err("its rows have no coordinates".to_owned()),
        [rows, dim] => Ok((rows, dim)),
        _ => Err(format!("its shape is {shape:?}; vectors are a table of two dimensions, (rows, coordinates)")),
    }
}

/// The header must account for every byte, before anything is allocated by its word.
fn exact_size(rows: usize, dim: usize, width: usize, have: usize) -> Result<(), String> {
    match rows.checked_mul(dim).and_then(|cells| cells.checked_mul(width)) {
        Some(need) if need == have => Ok(()),
        need => Err(format!(
            "its shape ({rows}, {dim}) needs {} bytes, the file holds {have}",
            need.map_or("too many".to_owned(), |need| need.to_string())
        )),
    }
}

/// Little-endian numbers to `f32`; `dtype` is one of the four that callers let through.
fn decode(bytes: &[u8], dtype: Dtype) -> Vec<f32> {
    fn two(b: &[u8]) -> u16 {
        u16::from_le_bytes([b[0], b[1]])
    }
    match dtype {
        Dtype::F16 => bytes.chunks_exact(2).map(|b| half::f16::from_bits(two(b)).to_f32()).collect(),
        Dtype::BF16 => bytes.chunks_exact(2).map(|b| half::bf16::from_bits(two(b)).to_f32()).collect(),
        Dtype::F64 => bytes
            .chunks_exact(8)
            .map(|b| f64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]) as f32)
            .collect(),
        _ => bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A version 1 file as numpy writes it.
    fn npy(header: &str, data: &[u8]) -> Vec<u8> {
        let mut text = header.to_owned();
        while !(10 + text.len() + 1).is_multiple_of(64) {
            text.push(' ');
        }
        text.push('\n');
        let mut file = b"\x93NUMPY\x01\x00".to_vec();
        file.extend((text.len() as u16).to_le_bytes());
        file.extend(text.as_bytes());
        file.extend(data);
        file
    }

    fn header(descr: &str, fortran: &str, shape: &str) -> String {
        format!("{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}")
    }

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().expect("a temporary folder")
    }

    fn put(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
        let path = folder.join(name);
        atomically(&path, |file| file.write_all(bytes)).expect("a writable folder");
        path
    }

    fn le32(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|v| v.to_le_bytes()).collect()
    }

    #[test]
    fn both_formats_give_back_what_was_written() {
        let folder = folder();
        let table = Embeddings::new(vec![1.0, -2.5, 3.0e-8, 4.0, 5.0, f32::MAX], 3).expect("finite");
        let note = serde_json::json!({ "pipeline": "identity" });
        for name in ["table.npy", "table.safetensors"] {
            let path = folder.path().join(name);
            write(&path, &table, Some(&note)).expect("a writable folder");
            assert_eq!(read(&path, None).expect("our own file"), table, "{name}");
            let first = std::fs::read(&path).expect("it exists");
            write(&path, &table, Some(&note)).expect("a writable folder");
            assert_eq!(std::fs::read(&path).expect("it exists"), first, "{name}: same table, same bytes");
        }
        let beside = std::fs::read_to_string(sidecar(&folder.path().join("table.npy"))).expect("a sidecar");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&beside).expect("JSON"), note);
        let bytes = std::fs::read(folder.path().join("table.safetensors")).expect("it exists");
        let (_, inside) = SafeTensors::read_metadata(&bytes).expect("our own file");
        let inside = inside.metadata().as_ref().and_then(|m| m.get(METADATA_KEY)).expect("our key");
        assert_eq!(serde_json::from_str::<serde_json::Value>(inside).expect("JSON"), note);
    }

    #[test]
    fn an_npy_file_begins_as_numpy_writes_it() {
        let folder = folder();
        let path = folder.path().join("x.npy");
        write(&path, &Embeddings::new(vec![1.5; 6], 3).expect("finite"), None).expect("a writable folder");
        let bytes = std::fs::read(&path).expect("it exists");
        assert!(bytes.starts_with(b"\x93NUMPY\x01\x00"));
        assert_eq!((bytes.len() - 24) % 64, 0);
        let text = String::from_utf8_lossy(&bytes[10..bytes.len() - 24]).into_owned();
        assert!(
            text.contains("'descr': '<f4'") && text.contains("'fortran_order': False") && text.contains("(2, 3"),
            "{text}"
        );
        assert!(!sidecar(&path).exists());
    }

    #[test]
    fn doubles_and_halves_become_floats() {
        let folder = folder();
        let doubles: Vec<u8> = [0.5_f64, -2.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        let path = put(folder.path(), "d.npy", &npy(&header("'<f8'", "False", "(1, 2)"), &doubles));
        assert_eq!(read(&path, None).expect("f64").values(), [0.5, -2.0]);
        for (dtype, bits) in [(Dtype::F16, [0x3800_u16, 0xc000]), (Dtype::BF16, [0x3f00, 0xc000])] {
            let data: Vec<u8> = bits.iter().flat_map(|v| v.to_le_bytes()).collect();
            let view = TensorView::new(dtype, vec![1, 2], &data).expect("two values");
            let file = safetensors::serialize([("x", view)], None).expect("one tensor");
            let path = put(folder.path(), "h.safetensors", &file);
            assert_eq!(read(&path, None).expect("halves").values(), [0.5, -2.0], "{dtype:?}");
        }
    }

    #[test]
    fn what_cannot_be_read_says_what_would_be_right() {
        let folder = folder();
        let six = le32(&[1.0, 2.0, 3.0, 4.0, f32::NAN, 6.0]);
        let ok = header("'<f4'", "False", "(2, 3)");
        let mut bomb = b"\x93NUMPY\x02\x00".to_vec();
        bomb.extend(u32::MAX.to_le_bytes());
        let cases: Vec<(&str, Vec<u8>, &str)> = vec![
            ("nan.npy", npy(&ok, &six), "row 1, column 1 is not finite"),
            ("short.npy", npy(&ok, &six[..20]), "needs 24 bytes, the file holds 20"),
            ("long.npy", npy(&ok, &[six.clone(), six.clone()].concat()), "needs 24 bytes, the file holds 48"),
            ("object.npy", npy(&header("'|O'", "False", "(2, 3)"), &six), "Python objects"),
            ("fortran.npy", npy(&header("'<f4'", "True", "(2, 3)"), &six), "Fortran order"),
            ("cube.npy", npy(&header("'<f4'", "False", "(1, 2, 3)"), &six), "shape is [1, 2, 3]"),
            ("flat.npy", npy(&header("'<f4'", "False", "(6,)"), &six), "shape is [6]"),
            ("big.npy", npy(&header("'>f4'", "False", "(2, 3)"), &six), "dtype is `>f4`"),
            ("int.npy", npy(&header("'<i4'", "False", "(2, 3)"), &six), "dtype is `<i4`"),
            ("record.npy", npy(&header("[('a', '<f4')]", "False", "(2, 3)"), &six), "dtype is `[('a', '<f4'), ]`"),
            ("vast.npy", npy(&header("'<f4'", "False", "(4294967296, 4294967296)"), &six), "claims more values"),
            ("empty.npy", Vec::new(), "does not begin like"),
            ("bomb.npy", bomb, "header claims 4294967295 bytes"),
            ("deep.npy", npy(&"(".repeat(3000), &[]), "nests deeper"),
            ("garbage.npy", npy("not a header", &[]), "header cannot be read"),
            ("x.pt", six.clone(), "can run code and are never opened"),
            ("x.npz", six.clone(), "numpy.save"),
            ("x.csv", six.clone(), "`.csv` is not a vector file"),
            ("x.safetensors", six.clone(), "not a safetensors file"),
        ];
        for (name, bytes, expected) in cases {
            let error = read(&put(folder.path(), name, &bytes), None).expect_err(name);
            assert!(error.to_string().contains(expected), "{name}: {error}");
            assert_eq!(error.exit(), crate::Exit::Input);
        }
        let missing = read(&folder.path().join("none.npy"), None).expect_err("no such file");
        assert!(matches!(missing, Error::Read { .. }));
        let nowhere =
            write(&folder.path().join("no/such/x.npy"), &Embeddings::empty(2), None).expect_err("no such folder");
        assert!(matches!(nowhere, Error::Write { .. }), "{nowhere}");
    }

    #[test]
    fn several_tensors_are_chosen_by_name() {
        let folder = folder();
        let data = le32(&[1.0, 2.0]);
        let view = |shape| TensorView::new(Dtype::F32, shape, &data).expect("two values");
        let file =
            safetensors::serialize([("b", view(vec![1, 2])), ("a", view(vec![2, 1])), ("c", view(vec![2]))], None);
        let path = put(folder.path(), "many.safetensors", &file.expect("three tensors"));
        assert_eq!(read(&path, Some("a")).expect("by name").dim(), 1);
        for (name, expected) in [
            (None, "several two-dimensional tensors; choose one by name: `a`, `b`, `c`"),
            (Some("z"), "no tensor `z`, only: `a`, `b`, `c`"),
            (Some("c"), "shape is [2]"),
        ] {
            let error = read(&path, name).expect_err("an ambiguous or missing tensor").to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
