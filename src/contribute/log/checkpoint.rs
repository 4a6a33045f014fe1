//! Checkpoints: a signed statement of how long the log is and what its root is.

use crate::contribute::receipt::{EdgeKey, EdgePublic, Hash};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Size and root of the log at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Name of the log: the edge's own.
    pub origin: String,
    /// Leaves.
    pub size: u64,
    /// Root hash.
    pub root: Hash,
}

impl Checkpoint {
    fn body(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, STANDARD.encode(self.root))
    }

    /// The signed note: three lines, an empty one, a signature line.
    pub fn sign(&self, key: &EdgeKey) -> String {
        let body = self.body();
        let signature = [&key.public().id()[..], &key.sign(body.as_bytes())].concat();
        format!("{body}\n\u{2014} {} {}\n", key.name(), STANDARD.encode(signature))
    }

    /// Reads a signed note and checks its signature; signatures of other keys are ignored.
    ///
    /// # Errors
    /// In words: malformed, of another log, or not signed by `public`.
    pub fn open(note: &str, public: &EdgePublic) -> Result<Self, String> {
        let (text, signatures) =
            note.split_once("\n\n").ok_or("the checkpoint has no signature below an empty line")?;
        let lines: Vec<&str> = text.split('\n').collect();
        let [origin, size, root] = lines[..] else {
            return Err("a checkpoint has three lines: origin, size, root".to_owned());
        };
        let checkpoint = Self {
            origin: origin.to_owned(),
            size: size.parse().map_err(|_| format!("the checkpoint's size `{size}` is not a number"))?,
            root: STANDARD
                .decode(root)
                .ok()
                .and_then(|r| r.try_into().ok())
                .ok_or("the checkpoint's root is not 32 bytes of base64")?,
        };
        if checkpoint.origin != public.name() || checkpoint.body() != format!("{text}\n") {
            return Err(format!("the checkpoint is of log `{origin}`, expected `{}`", public.name()));
        }
        let body = checkpoint.body();
        let signed = signatures.strip_suffix('\n').unwrap_or_default().split('\n').any(|line| {
            let Some((name, encoded)) = line.strip_prefix("\u{2014} ").and_then(|l| l.split_once(' ')) else {
                return false;
            };
            name == public.name()
                && STANDARD.decode(encoded).is_ok_and(|bytes| {
                    bytes.len() == 68 && bytes[..4] == public.id() && public.holds(body.as_bytes(), &bytes[4..])
                })
        });
        if signed { Ok(checkpoint) } else { Err("the checkpoint is not signed by the trusted key".to_owned()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contribute::receipt::tests::key;

    #[test]
    fn a_checkpoint_opens_to_itself_and_a_flipped_bit_breaks_it() {
        let checkpoint = Checkpoint { origin: "edge.test".to_owned(), size: 70_000, root: [8; 32] };
        let (note, public) = (checkpoint.sign(&key()), key().public());
        assert_eq!(Checkpoint::open(&note, &public), Ok(checkpoint.clone()));
        for at in 0..note.len() * 8 {
            let mut bytes = note.clone().into_bytes();
            bytes[at / 8] ^= 1 << (at % 8);
            let Ok(forged) = String::from_utf8(bytes) else { continue };
            assert!(Checkpoint::open(&forged, &public).is_err(), "bit {at}: {forged}");
        }
        let other = EdgeKey::new("edge.test", &[8; 32]).expect("a name");
        assert!(Checkpoint::open(&checkpoint.sign(&other), &public).is_err());
    }
}
