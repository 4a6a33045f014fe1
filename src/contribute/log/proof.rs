//! A receipt with everything that proves it, in one text file.

use super::{Checkpoint, leaf, merkle};
use crate::contribute::receipt::{EdgePublic, Hash, Receipt};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

const HEAD: &str = "stitchback.receipt/v1";
const PROOF: &str = "c2sp.org/tlog-proof@v1";

/// A receipt, its leaf's salt, its place in the log and the checkpoint over it.
///
/// # Formula
/// The file: `stitchback.receipt/v1`, `receipt <base64>`, `salt <base64>`, an empty line, then a C2SP tlog-proof (index,
/// sibling hashes from leaf to root, an empty line, the checkpoint).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// The sealed receipt.
    pub token: Vec<u8>,
    /// Salt of its leaf.
    pub salt: [u8; 16],
    /// Index of its leaf.
    pub index: u64,
    /// Siblings from leaf to root.
    pub path: Vec<Hash>,
    /// The signed checkpoint.
    pub checkpoint: String,
}

impl Proof {
    /// Reads the file.
    ///
    /// # Errors
    /// In words: which line is missing or broken.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut lines = text.split('\n');
        let mut line = |what: &str| lines.next().ok_or_else(|| format!("{what} is missing"));
        let expect = |found: &str, want: &str| {
            if found == want { Ok(()) } else { Err(format!("`{found}` stands where `{want}` should")) }
        };
        let decode = |line: &str, key: &str| {
            let encoded = line.strip_prefix(key).ok_or_else(|| format!("the line `{key}...` is missing"))?;
            STANDARD.decode(encoded).map_err(|_| format!("`{key}...` is not base64"))
        };
        expect(line("the first line")?, HEAD)?;
        let token = decode(line("the receipt")?, "receipt ")?;
        let salt =
            decode(line("the salt")?, "salt ")?.try_into().map_err(|_| "the salt has not 16 bytes".to_owned())?;
        expect(line("an empty line")?, "")?;
        expect(line("the proof's first line")?, PROOF)?;
        let index = line("the index")?;
        let index = index
            .strip_prefix("index ")
            .and_then(|n| n.parse().ok().filter(|i: &u64| i.to_string() == n))
            .ok_or("the line `index N` is missing")?;
        let mut path = Vec::new();
        loop {
            let hash = line("the checkpoint")?;
            if hash.is_empty() {
                break;
            }
            if path.len() == 64 {
                return Err("the proof has more than 64 hashes".to_owned());
            }
            let hash = STANDARD.decode(hash).ok().and_then(|h| h.try_into().ok());
            path.push(hash.ok_or("a line of the proof is not 32 bytes of base64")?);
        }
        let checkpoint = lines.collect::<Vec<_>>().join("\n");
        Ok(Self { token, salt, index, path, checkpoint })
    }

    /// Checks everything: the receipt's form and signature, the checkpoint's signature, the receipt's place under it.
    ///
    /// # Errors
    /// In words: the first thing that does not hold.
    pub fn verify(&self, public: &EdgePublic) -> Result<(Receipt, Checkpoint), String> {
        let receipt = public.open(&self.token).map_err(|e| format!("the receipt is refused: {e}"))?;
        let checkpoint = Checkpoint::open(&self.checkpoint, public)?;
        let data = leaf(&self.salt, &self.token);
        if merkle::includes(&checkpoint.root, checkpoint.size, self.index, &data, &self.path) {
            Ok((receipt, checkpoint))
        } else {
            Err(format!("the receipt is not leaf {} of the log under this checkpoint", self.index))
        }
    }
}

impl std::fmt::Display for Proof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{HEAD}\nreceipt {}\nsalt {}\n", STANDARD.encode(&self.token), STANDARD.encode(self.salt))?;
        writeln!(f, "{PROOF}\nindex {}", self.index)?;
        for hash in &self.path {
            writeln!(f, "{}", STANDARD.encode(hash))?;
        }
        write!(f, "\n{}", self.checkpoint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contribute::log::Tree;
    use crate::contribute::receipt::tests::{key, receipt};

    pub(crate) fn proof() -> Proof {
        let mut tree = Tree::default();
        for i in 0..20_u8 {
            tree.push(&[i; 32]);
        }
        let (token, salt) = (key().seal(&receipt()), [5; 16]);
        let index = tree.push(&leaf(&salt, &token));
        for i in 0..9_u8 {
            tree.push(&[i; 32]);
        }
        let checkpoint = Checkpoint { origin: "edge.test".to_owned(), size: tree.len(), root: tree.root(tree.len()) };
        Proof {
            token,
            salt,
            index,
            path: tree.inclusion(index, tree.len()).expect("inside"),
            checkpoint: checkpoint.sign(&key()),
        }
    }

    #[test]
    fn a_proof_file_stands_alone_and_no_bit_of_it_can_change() {
        let (proof, public) = (proof(), key().public());
        let text = proof.to_string();
        assert_eq!(Proof::parse(&text).as_ref(), Ok(&proof));
        let (opened, checkpoint) = proof.verify(&public).expect("it holds");
        assert_eq!((opened, checkpoint.size), (receipt(), 30));
        for at in 0..text.len() * 8 {
            let mut bytes = text.clone().into_bytes();
            bytes[at / 8] ^= 1 << (at % 8);
            let Ok(forged) = String::from_utf8(bytes) else { continue };
            assert!(Proof::parse(&forged).and_then(|p| p.verify(&public)).is_err(), "bit {at}");
        }
    }

    #[test]
    fn a_proof_at_a_million_entries_is_640_bytes_of_hashes() {
        // 20 siblings of 32 bytes; the tree itself would take a minute, its shape does not.
        assert_eq!((1_000_000_u64 - 1).ilog2() + 1, 20);
        assert!(proof().to_string().len() < 1800);
    }
}
