//! Named random streams: every random number of a study comes from here.
//!
//! A stream is named by the study's seed, a task (a cell id, a record id) and a purpose ("init", "noise", "batch order").
//! Two streams with different names are independent; the same name gives the same numbers on every machine and for
//! any number of threads. Nothing else in the crate may draw random numbers (`clippy.toml` says so).

use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;

/// The generator behind every stream.
pub type Stream = ChaCha20Rng;

/// Opens the stream named `(root, task, purpose)`.
///
/// # Formula
/// `seed = BLAKE3::derive_key("stitchback rng stream v1", le64(root) ‖ le64(|task|) ‖ task ‖ le64(|purpose|) ‖ purpose)`
///
/// # Example
/// ```
/// use rand::Rng;
/// let mut noise = stitchback::seed::stream(42, "task0", "noise");
/// let mut again = stitchback::seed::stream(42, "task0", "noise");
/// assert_eq!(noise.next_u64(), again.next_u64());
/// ```
pub fn stream(root: u64, task: &str, purpose: &str) -> Stream {
    let mut hasher = blake3::Hasher::new_derive_key("stitchback rng stream v1");
    hasher.update(&root.to_le_bytes());
    for part in [task, purpose] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    ChaCha20Rng::from_seed(*hasher.finalize().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::Rng;

    #[test]
    fn a_stream_is_its_name() {
        let mut a = stream(42, "task0", "init");
        assert_eq!(format!("{:016x}", a.next_u64()), "0c129465197416ea");
        assert_eq!(format!("{:016x}", a.next_u64()), "8ecb78df493c988e");
        let mut b = stream(42, "task0", "noise");
        assert_ne!(a.next_u64(), b.next_u64());
    }
}
