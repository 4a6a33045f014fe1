//! Learning curves as `TensorBoard` event files: a folder for each protection, attack and seed.

use super::{Error, Run, replace};
use crate::run::record::Curve;
use std::path::{Path, PathBuf};

/// Writes the curves of runs below `out`, one event file for each cell: `RUN/PROTECTION/ATTACK/seed-N/events...`.
///
/// # Formula
/// A record is `le64 length | masked crc of it | data | masked crc of it`; the CRC is Castagnoli's, the mask
/// `rotr(crc, 15) + 0xa282ead8`. The data are `Event` messages of protocol buffers: the version first, then one scalar for
/// each point. The clock is 0, so that the same records give the same bytes.
///
/// # Errors
/// A run folder that cannot be read, or a place that cannot be written.
pub fn write_tensorboard(run_dirs: &[PathBuf], out: &Path) -> Result<(), Error> {
    for dir in run_dirs {
        let run = Run::load(dir)?;
        let mut cells: Vec<(&str, Vec<&Curve>)> = Vec::new();
        for curve in &run.curves {
            match cells.iter_mut().find(|(cell, _)| *cell == curve.cell) {
                Some((_, its)) => its.push(curve),
                None => cells.push((&curve.cell, vec![curve])),
            }
        }
        for (_, curves) in cells {
            let first = curves[0];
            let seed = format!("seed-{}", first.seed);
            let folder = [&run.name, &first.protection, &first.attack, &seed]
                .iter()
                .fold(out.to_owned(), |folder, part| folder.join(plain(part)));
            std::fs::create_dir_all(&folder)
                .map_err(|source| Error::Write { path: folder.display().to_string(), source })?;
            replace(&folder.join("events.out.tfevents.0.stitchback"), &events(&curves))?;
        }
    }
    Ok(())
}

/// A name as one part of a path.
fn plain(name: &str) -> String {
    let keep = |c: char| if c.is_alphanumeric() || "-_.=()@ ".contains(c) { c } else { '_' };
    let name: String = name.chars().map(keep).collect();
    if name.trim_matches('.').is_empty() { "_".to_owned() } else { name }
}

fn events(curves: &[&Curve]) -> Vec<u8> {
    let mut out = Vec::new();
    record(&mut out, &[&[0x09][..], &[0; 8], &bytes(3, b"brain.Event:2")].concat());
    for curve in curves {
        let finite = curve.points.iter().filter(|(x, y)| x.is_finite() && y.is_finite());
        for &(x, y) in finite {
            let value = [bytes(1, curve.title.as_bytes()), vec![0x15], (y as f32).to_le_bytes().to_vec()].concat();
            let step = [vec![0x10], varint(x.round() as i64 as u64)].concat();
            record(&mut out, &[&[0x09][..], &[0; 8], &step, &bytes(5, &bytes(1, &value))].concat());
        }
    }
    out
}

/// A field of bytes.
fn bytes(field: u8, content: &[u8]) -> Vec<u8> {
    [vec![field << 3 | 2], varint(content.len() as u64), content.to_vec()].concat()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value > 0x7f {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

fn record(out: &mut Vec<u8>, data: &[u8]) {
    let length = (data.len() as u64).to_le_bytes();
    out.extend(length);
    out.extend(masked(&length).to_le_bytes());
    out.extend(data);
    out.extend(masked(data).to_le_bytes());
}

fn masked(data: &[u8]) -> u32 {
    crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// Castagnoli's cyclic redundancy check, bit by bit: the files are small.
fn crc32c(data: &[u8]) -> u32 {
    !data.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values and the file were computed with, and read back by, `TensorBoard` 2.21.0.
    #[test]
    fn an_event_file_has_its_golden_bytes() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(masked(b"123456789"), 0xc78a_b0e5);
        let curve = Curve {
            cell: "c".to_owned(),
            protection: "p".to_owned(),
            attack: "a".to_owned(),
            seed: 1,
            title: "leak".to_owned(),
            x_label: "steps".to_owned(),
            points: vec![(1.0, 0.25), (2.0, f64::NAN)],
        };
        assert_eq!(
            crate::contribute::catalogue::hex(&events(&[&curve])),
            "1800000000000000a37f4b220900000000000000001a0d627261696e2e4576656e743a32eedf28a3\
             1a00000000000000129bd82d09000000000000000010012a0d0a0b0a046c65616b150000803e72c329b3"
        );
    }

    #[test]
    fn every_cell_of_a_run_has_its_file_inside_the_folder() {
        let folder = super::super::fixture::folder();
        let out = tempfile::tempdir().expect("a temporary folder");
        write_tensorboard(&[folder.path().to_owned()], out.path()).expect("curves");
        let mut found = Vec::new();
        let mut open = vec![out.path().to_owned()];
        while let Some(next) = open.pop() {
            for entry in std::fs::read_dir(next).expect("a folder").map(|e| e.expect("an entry").path()) {
                if entry.is_dir() { open.push(entry) } else { found.push(entry) }
            }
        }
        let run = Run::load(folder.path()).expect("the fixture");
        let mut cells: Vec<&str> = run.curves.iter().map(|c| c.cell.as_str()).collect();
        cells.sort_unstable();
        cells.dedup();
        assert_eq!(found.len(), cells.len());
        assert_eq!(plain("../a/b"), ".._a_b");
        assert_eq!(plain(".."), "_");
    }
}
