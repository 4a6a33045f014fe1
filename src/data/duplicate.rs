//! The guard against near-duplicates: the same sentence, slightly changed, must not stand on both sides of a split.
//!
//! Two looks at it. [`clusters`] compares texts and needs no encoder; [`super::split`] uses it (pictures have
//! [`super::perceptual`]). [`nearest_cosines`] and
//! [`drop_close`] compare embeddings once there are any, and their numbers are printed with every study: an attacker
//! whose nearest neighbour is already the target proves nothing.

use crate::encode::Embeddings;
use crate::nn::kernel::{Layout, dot, matmul};
use crate::seed;
use rand::Rng;
use rayon::prelude::*;

/// Jaccard similarity from which two texts count as near-duplicates.
///
/// One changed word in a sentence of ten leaves about .7; two unrelated sentences stay below .1.
pub const NEAR_DUPLICATE: f64 = 0.6;

/// Cosine above which an auxiliary record is too close to a target.
pub const TOO_CLOSE: f32 = 0.95;

/// Characters in a shingle.
const SHINGLE: usize = 5;
/// Bands of the signature, and hashes in a band.
const BANDS: usize = 32;
const ROWS: usize = 4;
/// Members of a bucket that a new member is compared with, counted back from it.
const LOOK_BACK: usize = 256;

/// For each text the index of the first text of its near-duplicate cluster; a text without any is its own.
///
/// A cluster is a connected component: its ends may be less alike than `threshold`.
///
/// # Formula
/// Texts are compared as sets of character 5-shingles over lower-case letters and digits with single spaces between
/// words. Min-hashing with 32 bands of 4 proposes pairs, and only pairs whose exact Jaccard similarity
/// `|A ∩ B| / |A ∪ B|` reaches `threshold` are joined. A pair of similarity `s` is proposed with probability
/// `1 - (1 - s^4)^32`: .988 at .6, .9998 at .7. Shingles are kept as 32-bit hashes.
///
/// # Source
/// Broder, "On the resemblance and containment of documents", 1997. Differs: in a bucket a text is compared with the
/// 256 texts before it, so that a corpus of one template does not cost quadratic time.
pub fn clusters(texts: &[&str], threshold: f64) -> Vec<usize> {
    let multipliers = multipliers();
    let sketches: Vec<(Vec<u32>, [u32; BANDS * ROWS])> = texts
        .par_iter()
        .map(|text| {
            let shingles = shingles(text);
            let signature = signature(&shingles, &multipliers);
            (shingles, signature)
        })
        .collect();
    let mut forest = Forest::new(texts.len());
    let mut keys: Vec<([u32; ROWS], usize)> = Vec::with_capacity(texts.len());
    for band in 0..BANDS {
        keys.clear();
        for (index, (shingles, signature)) in sketches.iter().enumerate() {
            if !shingles.is_empty() {
                let key = std::array::from_fn(|row| signature[band * ROWS + row]);
                keys.push((key, index));
            }
        }
        keys.par_sort_unstable();
        for bucket in keys.chunk_by(|a, b| a.0 == b.0) {
            for (at, &(_, later)) in bucket.iter().enumerate() {
                for &(_, earlier) in &bucket[at.saturating_sub(LOOK_BACK)..at] {
                    if forest.root(earlier) != forest.root(later)
                        && jaccard(&sketches[earlier].0, &sketches[later].0) >= threshold
                    {
                        forest.join(earlier, later);
                    }
                }
            }
        }
    }
    (0..texts.len()).map(|index| forest.root(index)).collect()
}

/// Trees in which every root is the smallest index of its tree.
pub(super) struct Forest(Vec<usize>);

impl Forest {
    /// `n` trees of one node.
    pub(super) fn new(n: usize) -> Self {
        Self((0..n).collect())
    }

    pub(super) fn root(&mut self, mut index: usize) -> usize {
        while self.0[index] != index {
            self.0[index] = self.0[self.0[index]];
            index = self.0[index];
        }
        index
    }

    pub(super) fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.root(a), self.root(b));
        self.0[a.max(b)] = a.min(b);
    }
}

/// The distinct shingles of `text`, hashed and sorted; none for a text without letters and digits.
fn shingles(text: &str) -> Vec<u32> {
    let mut letters: Vec<char> = Vec::with_capacity(text.len());
    for c in text.chars() {
        if c.is_alphanumeric() {
            letters.extend(c.to_lowercase());
        } else if !matches!(c, '\'' | '\u{2019}') && letters.last().is_some_and(|&last| last != ' ') {
            letters.push(' ');
        }
    }
    if letters.last() == Some(&' ') {
        letters.pop();
    }
    if letters.is_empty() {
        return Vec::new();
    }
    let mut found: Vec<u32> =
        if letters.len() <= SHINGLE { vec![hash(&letters)] } else { letters.windows(SHINGLE).map(hash).collect() };
    found.sort_unstable();
    found.dedup();
    found
}

/// FNV-1a over code points, then the finaliser of `SplitMix64`; the upper half.
fn hash(letters: &[char]) -> u32 {
    let mut h: u64 = 0xcbf2_9ce4_8422_2325;
    for &c in letters {
        h = (h ^ u64::from(u32::from(c))).wrapping_mul(0x0100_0000_01b3);
    }
    h = (h ^ (h >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    h = (h ^ (h >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((h ^ (h >> 31)) >> 32) as u32
}

/// An odd multiplier and an offset for each hash of a signature; always the same ones.
fn multipliers() -> [(u32, u32); BANDS * ROWS] {
    let mut rng = seed::stream(0, "near-duplicates", "minhash");
    std::array::from_fn(|_| (rng.next_u32() | 1, rng.next_u32()))
}

/// For each hash function the smallest hash over the shingles.
fn signature(shingles: &[u32], multipliers: &[(u32, u32); BANDS * ROWS]) -> [u32; BANDS * ROWS] {
    let mut smallest = [u32::MAX; BANDS * ROWS];
    for &shingle in shingles {
        for (smallest, &(a, b)) in smallest.iter_mut().zip(multipliers) {
            *smallest = (*smallest).min(shingle.wrapping_mul(a).wrapping_add(b));
        }
    }
    smallest
}

/// `|A ∩ B| / |A ∪ B|` of two sorted sets that are not both empty.
fn jaccard(a: &[u32], b: &[u32]) -> f64 {
    let (mut i, mut j, mut common) = (0, 0, 0_usize);
    while i < a.len() && j < b.len() {
        match a[i].cmp(&b[j]) {
            std::cmp::Ordering::Less => i += 1,
            std::cmp::Ordering::Greater => j += 1,
            std::cmp::Ordering::Equal => {
                common += 1;
                i += 1;
                j += 1;
            }
        }
    }
    common as f64 / (a.len() + b.len() - common) as f64
}

/// For each target the cosine of its nearest auxiliary record; -1 without auxiliary records.
///
/// # Shapes
/// `targets` is `(n, d)`, `auxiliary` is `(m, d)`; rows need not be unit-norm, a zero row has cosine 0 to everything.
///
/// # Panics
/// When the two have different dimensions.
pub fn nearest_cosines(targets: &Embeddings, auxiliary: &Embeddings) -> Vec<f32> {
    largest_cosines(targets, auxiliary)
}

/// The auxiliary rows whose cosine to some target is above `threshold`, ascending: the attacker must not own them.
///
/// # Shapes
/// As for [`nearest_cosines`].
///
/// # Panics
/// When the two have different dimensions.
pub fn drop_close(targets: &Embeddings, auxiliary: &Embeddings, threshold: f32) -> Vec<usize> {
    let nearest = largest_cosines(auxiliary, targets);
    (0..auxiliary.len()).filter(|&row| nearest[row] > threshold).collect()
}

/// For each row of `of` its largest cosine to a row of `among`.
///
/// Blocks of fixed size in fixed order: the same bits for any number of threads.
fn largest_cosines(of: &Embeddings, among: &Embeddings) -> Vec<f32> {
    const OF: usize = 128;
    const AMONG: usize = 512;
    let d = of.dim();
    assert_eq!(d, among.dim(), "cosines need vectors of one dimension");
    let (of_unit, among_unit) = (unit_rows(of), unit_rows(among));
    of_unit
        .par_chunks(OF * d)
        .flat_map_iter(|block| {
            let m = block.len() / d;
            let mut largest = vec![-1.0_f32; m];
            let mut cosines = vec![0.0_f32; OF * AMONG];
            for others in among_unit.chunks(AMONG * d) {
                let n = others.len() / d;
                matmul(&mut cosines, block, Layout::Plain, others, Layout::Transposed, m, d, n, false);
                for (largest, row) in largest.iter_mut().zip(cosines.chunks_exact(n)) {
                    *largest = row.iter().fold(*largest, |a, &b| a.max(b));
                }
            }
            largest
        })
        .collect()
}

fn unit_rows(rows: &Embeddings) -> Vec<f32> {
    let mut values = rows.values().to_vec();
    values.par_chunks_mut(rows.dim()).for_each(|row| {
        let norm = dot(row, row).sqrt();
        if norm > 0.0 {
            for v in row {
                *v /= norm;
            }
        }
    });
    values
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_distr::{Distribution, StandardNormal};

    const SENTENCES: [&str; 5] = [
        "The tennis ball rolled under the parked car on Friday morning.",
        "My doctor's name is Anna Smith and I live in Boston.",
        "the tennis ball rolled under the parked car, on Friday evening",
        "Three witnesses saw the minister leave by the back door.",
        "My doctors name is Anna Smith and I live in Boston",
    ];

    #[test]
    fn a_changed_word_and_changed_punctuation_are_found() {
        assert_eq!(clusters(&SENTENCES, NEAR_DUPLICATE), [0, 1, 0, 3, 1]);
    }

    #[test]
    fn the_threshold_is_the_exact_jaccard_similarity() {
        let similarity = jaccard(&shingles(SENTENCES[0]), &shingles(SENTENCES[2]));
        assert!((0.6..0.9).contains(&similarity), "{similarity}");
        assert_eq!(clusters(&SENTENCES, similarity)[2], 0);
        assert_eq!(clusters(&SENTENCES, similarity + 1e-9)[2], 2);
        assert_eq!(jaccard(&[1, 2, 3], &[2, 3, 4]), 0.5);
        assert_eq!(jaccard(&[1], &[]), 0.0);
    }

    #[test]
    fn texts_without_letters_are_duplicates_of_nothing() {
        assert_eq!(clusters(&["...", "...", "", "a", "A!"], 0.6), [0, 1, 2, 3, 3]);
        assert!(clusters(&[], 0.6).is_empty());
    }

    #[test]
    fn a_chain_is_one_cluster_named_by_its_first_member() {
        let words = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen";
        let words: Vec<&str> = words.split(' ').collect();
        let texts: Vec<String> = (0..6).map(|drop| words[drop..drop + 9].join(" ")).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        assert!(jaccard(&shingles(texts[0]), &shingles(texts[5])) < NEAR_DUPLICATE);
        assert_eq!(clusters(&texts, NEAR_DUPLICATE), [0; 6]);
    }

    #[test]
    fn the_sketch_finds_what_all_pairs_find() {
        // 300 sentences over a small vocabulary: every pair by brute force against MinHash. At .7 a pair is missed with
        // probability 2e-4; the seed is fixed, so this passes always or never.
        let mut rng = seed::stream(7, "sketch", "test");
        let vocabulary = ["amber", "basket", "copper", "dragon", "ember", "feather", "garden", "harbor"];
        let texts: Vec<String> = (0..300)
            .map(|_| (0..6).map(|_| vocabulary[(rng.next_u32() % 8) as usize]).collect::<Vec<_>>().join(" "))
            .collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let sets: Vec<Vec<u32>> = texts.iter().map(|text| shingles(text)).collect();
        let mut exact = Forest::new(texts.len());
        for a in 0..texts.len() {
            for b in a + 1..texts.len() {
                if jaccard(&sets[a], &sets[b]) >= 0.7 {
                    exact.join(a, b);
                }
            }
        }
        let exact: Vec<usize> = (0..texts.len()).map(|index| exact.root(index)).collect();
        assert!(exact.iter().enumerate().any(|(index, &root)| index != root), "some pairs are close");
        assert_eq!(clusters(&texts, 0.7), exact);
    }

    #[test]
    fn any_number_of_threads_gives_the_same_clusters_and_cosines() {
        let texts: Vec<String> =
            (0..500).map(|i| format!("line {} of a long template, entry {}", i % 50, i / 50)).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let (a, b) = (gaussian(300, 1), gaussian(1100, 2));
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a thread pool");
            pool.install(|| (clusters(&texts, NEAR_DUPLICATE), nearest_cosines(&a, &b)))
        };
        assert_eq!(with(1), with(4));
    }

    fn gaussian(rows: usize, seed: u64) -> Embeddings {
        let mut rng = seed::stream(seed, "rows", "test");
        Embeddings::new((0..rows * 24).map(|_| StandardNormal.sample(&mut rng)).collect(), 24).expect("whole rows")
    }

    #[test]
    fn blocked_cosines_equal_pairwise_cosines() {
        let (targets, auxiliary) = (gaussian(130, 1), gaussian(520, 2));
        let cosine = |a: &[f32], b: &[f32]| {
            let (mut ab, mut aa, mut bb) = (0.0_f64, 0.0_f64, 0.0_f64);
            for (&x, &y) in a.iter().zip(b) {
                ab += f64::from(x) * f64::from(y);
                aa += f64::from(x).powi(2);
                bb += f64::from(y).powi(2);
            }
            ab / (aa * bb).sqrt()
        };
        for (row, got) in targets.rows().zip(nearest_cosines(&targets, &auxiliary)) {
            let expect = auxiliary.rows().map(|other| cosine(row, other)).fold(-1.0, f64::max);
            assert!((f64::from(got) - expect).abs() < 1e-5, "{got} {expect}");
        }
    }

    #[test]
    fn only_auxiliary_rows_above_the_threshold_are_named() {
        let targets = Embeddings::new(vec![1.0, 0.0, 0.0, 2.0], 2).expect("two rows");
        let auxiliary = Embeddings::new(vec![3.0, 0.1, 1.0, 1.0, 0.0, 0.0, -1.0, 0.0, 0.2, 9.0], 2).expect("five rows");
        assert_eq!(drop_close(&targets, &auxiliary, TOO_CLOSE), [0, 4]);
        assert!(drop_close(&Embeddings::empty(2), &auxiliary, TOO_CLOSE).is_empty());
        assert_eq!(nearest_cosines(&targets, &Embeddings::empty(2)), [-1.0, -1.0]);
    }
}
