//! The Merkle tree of RFC 6962.

use crate::contribute::receipt::Hash;
use sha2::{Digest, Sha256};

/// Hash of a leaf: `SHA-256(0x00 | data)`.
pub fn leaf_hash(data: &[u8]) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update([0]);
    hasher.update(data);
    hasher.finalize().into()
}

fn node_hash(left: &Hash, right: &Hash) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update([1]);
    hasher.update(left);
    hasher.update(right);
    hasher.finalize().into()
}

/// An append-only tree that keeps the hash of every complete subtree.
///
/// # Source
/// RFC 6962, section 2.1; verification as in RFC 9162, sections 2.1.3.2 and 2.1.4.2.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree {
    /// `levels[l][i]` covers leaves `i 2^l` to `(i + 1) 2^l`.
    levels: Vec<Vec<Hash>>,
}

impl Tree {
    /// Leaves so far.
    pub fn len(&self) -> u64 {
        self.levels.first().map_or(0, |l| l.len() as u64)
    }

    /// True without leaves.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends a leaf and returns its index.
    pub fn push(&mut self, data: &[u8]) -> u64 {
        let index = self.len();
        let mut hash = leaf_hash(data);
        for level in 0.. {
            if self.levels.len() == level {
                self.levels.push(Vec::new());
            }
            let row = &mut self.levels[level];
            row.push(hash);
            if row.len() % 2 == 1 {
                break;
            }
            hash = node_hash(&row[row.len() - 2], &row[row.len() - 1]);
        }
        index
    }

    /// Complete hashes of a level: the content of its tiles.
    pub fn level(&self, level: usize) -> &[Hash] {
        self.levels.get(level).map_or(&[], Vec::as_slice)
    }

    /// Root of the first `size` leaves.
    ///
    /// # Panics
    /// When there are fewer leaves.
    pub fn root(&self, size: u64) -> Hash {
        assert!(size <= self.len(), "the tree has {} leaves", self.len());
        if size == 0 { Sha256::digest([]).into() } else { self.range(0, size) }
    }

    fn range(&self, from: u64, to: u64) -> Hash {
        let size = to - from;
        if size.is_power_of_two() && from.is_multiple_of(size) {
            let level = size.trailing_zeros() as usize;
            return self.levels[level][(from >> level) as usize];
        }
        let k = split(size);
        node_hash(&self.range(from, from + k), &self.range(from + k, to))
    }

    /// Sibling hashes from leaf `index` up to the root of the first `size` leaves; `None` when it is not among them.
    pub fn inclusion(&self, index: u64, size: u64) -> Option<Vec<Hash>> {
        (index < size && size <= self.len()).then(|| {
            let mut path = Vec::new();
            let (mut from, mut to) = (0, size);
            while to - from > 1 {
                let middle = from + split(to - from);
                if index < middle {
                    path.push(self.range(middle, to));
                    to = middle;
                } else {
                    path.push(self.range(from, middle));
                    from = middle;
                }
            }
            path.reverse();
            path
        })
    }

    /// Proof that the first `old` leaves are a prefix of the first `new`; `None` when they cannot be.
    pub fn consistency(&self, old: u64, new: u64) -> Option<Vec<Hash>> {
        (old <= new && new <= self.len()).then(|| {
            let mut path = Vec::new();
            if old == 0 || old == new {
                return path;
            }
            let (mut from, mut to, mut whole) = (0, new, true);
            // `whole` says that the left end of the range is the old tree's own root, which the reader knows.
            loop {
                if old == to {
                    if !whole {
                        path.push(self.range(from, to));
                    }
                    break;
                }
                let middle = from + split(to - from);
                if old <= middle {
                    path.push(self.range(middle, to));
                    to = middle;
                } else {
                    path.push(self.range(from, middle));
                    from = middle;
                    whole = false;
                }
            }
            path.reverse();
            path
        })
    }
}

/// The largest power of two below `n`.
fn split(n: u64) -> u64 {
    1 << (n - 1).ilog2()
}

/// Whether `data` is leaf `index` of the tree of `size` leaves under `root`.
pub fn includes(root: &Hash, size: u64, index: u64, data: &[u8], path: &[Hash]) -> bool {
    if index >= size {
        return false;
    }
    let (mut at, mut last, mut hash) = (index, size - 1, leaf_hash(data));
    for sibling in path {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            hash = node_hash(sibling, &hash);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        at >>= 1;
        last >>= 1;
    }
    last == 0 && hash == *root
}

/// Whether the tree of `old` leaves under `old_root` is a prefix of the tree of `new` leaves under `new_root`.
pub fn extends(old_root: &Hash, old: u64, new_root: &Hash, new: u64, path: &[Hash]) -> bool {
    if old > new {
        return false;
    }
    if old == new {
        return path.is_empty() && old_root == new_root;
    }
    if old == 0 {
        // Everything extends nothing; the empty root is still checked.
        return path.is_empty() && *old_root == Tree::default().root(0);
    }
    let mut path = path.to_vec();
    if old.is_power_of_two() {
        path.insert(0, *old_root);
    }
    let Some((first, rest)) = path.split_first() else { return false };
    let (mut at, mut last) = (old - 1, new - 1);
    while at & 1 == 1 {
        at >>= 1;
        last >>= 1;
    }
    let (mut before, mut after) = (*first, *first);
    for hash in rest {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            before = node_hash(hash, &before);
            after = node_hash(hash, &after);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            after = node_hash(&after, hash);
        }
        at >>= 1;
        last >>= 1;
    }
    last == 0 && before == *old_root && after == *new_root
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contribute::catalogue::hex;
    use ct_merkle::mem_backed_tree::MemoryBackedTree;

    fn tree(n: u64) -> Tree {
        let mut tree = Tree::default();
        for i in 0..n {
            tree.push(&i.to_be_bytes());
        }
        tree
    }

    #[test]
    fn golden_roots() {
        let leaves: [&[u8]; 8] = [
            &[],
            &[0x00],
            &[0x10],
            &[0x20, 0x21],
            &[0x30, 0x31],
            &[0x40, 0x41, 0x42, 0x43],
            &[0x50, 0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x57],
            &[0x60, 0x61, 0x62, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x6b, 0x6c, 0x6d, 0x6e, 0x6f],
        ];
        let mut tree = Tree::default();
        assert_eq!(hex(&tree.root(0))[..8], *"e3b0c442");
        for leaf in leaves {
            tree.push(leaf);
        }
        let golden = [
            (1, "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"),
            (2, "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"),
            (8, "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"),
        ];
        for (size, root) in golden {
            assert_eq!(hex(&tree.root(size)), root, "{size} leaves");
        }
    }

    #[test]
    fn proofs_of_all_sizes_agree_with_an_independent_tree() {
        let ours = tree(600);
        let mut theirs = MemoryBackedTree::<Sha256, [u8; 8]>::new();
        for size in 1..=600_u64 {
            theirs.push((size - 1).to_be_bytes());
            let root = theirs.root();
            assert_eq!(ours.root(size)[..], root.as_bytes()[..], "root of {size}");
            for index in [0, size / 3, size / 2, size - 1] {
                let path = ours.inclusion(index, size).expect("inside");
                assert_eq!(path.concat(), theirs.prove_inclusion(index as usize).as_bytes(), "{index} of {size}");
                assert!(includes(&ours.root(size), size, index, &index.to_be_bytes(), &path));
                assert!(!includes(&ours.root(size), size, index, &(index + 1).to_be_bytes(), &path));
            }
            for old in [1, size / 2, size.saturating_sub(7)].into_iter().filter(|o| (1..size).contains(o)) {
                let path = ours.consistency(old, size).expect("smaller");
                assert_eq!(
                    path.concat(),
                    theirs.prove_consistency((size - old) as usize).as_bytes(),
                    "{old} to {size}"
                );
                assert!(extends(&ours.root(old), old, &ours.root(size), size, &path));
                assert!(!extends(&ours.root(size), old, &ours.root(size), size, &path));
            }
        }
    }

    #[test]
    fn every_pair_of_sizes_is_consistent_and_a_fork_is_not() {
        let ours = tree(64);
        let mut fork = tree(20);
        for i in 20..64_u64 {
            fork.push(&(i + 1000).to_be_bytes());
        }
        for new in 0..=64 {
            for old in 0..=new {
                let path = ours.consistency(old, new).expect("in order");
                assert!(extends(&ours.root(old), old, &ours.root(new), new, &path), "{old} to {new}");
                if old > 20 {
                    let path = fork.consistency(old, new).expect("in order");
                    assert!(!extends(&ours.root(old), old, &fork.root(new), new, &path), "fork {old} to {new}");
                }
            }
        }
        assert_eq!((ours.consistency(3, 65), ours.inclusion(64, 64)), (None, None));
        assert!(!extends(&ours.root(5), 5, &ours.root(4), 4, &[]));
    }

    #[test]
    fn a_changed_proof_is_refused() {
        let ours = tree(77);
        let path = ours.inclusion(33, 77).expect("inside");
        for i in 0..path.len() {
            for bit in 0..256 {
                let mut forged = path.clone();
                forged[i][bit / 8] ^= 1 << (bit % 8);
                assert!(!includes(&ours.root(77), 77, 33, &33_u64.to_be_bytes(), &forged));
            }
        }
        assert!(!includes(&ours.root(77), 77, 33, &33_u64.to_be_bytes(), &path[1..]));
    }
}
