//! `prototype`: the mean of several records instead of each of them.

use super::Error;
use super::arguments::Arguments;
use super::claim::{Domain, Noise, Sensitivity, State};
use super::stage::{Parameters, Release, Stage, out_of_range};
use crate::encode::Embeddings;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use rayon::prelude::*;
use std::collections::BTreeMap;

/// Replaces rows by the means of groups of at least `m` rows of one public stratum (a topic).
///
/// # Formula
/// Row numbers of a stratum are shuffled, which looks at no vector, and cut into groups of `m` = `members`; what is left
/// over joins the last group. Strata with fewer than `m` rows are pooled; a pool that is still too small joins the last
/// group of all. Row `j` of the release is `1/m_j` times the sum over its group, in `f64`.
///
/// # Shapes
/// `(n, d)` in, about `(n / m, d)` out, ordered by stratum, the pool last.
///
/// # Guarantee
/// None of its own: it divides what one record can do by `m` (sensitivity `2C/m`, replace-one, behind a clip to `C`)
/// for the noise after it. Larger groups are covered by the same number. Strata and groups are taken as public: replacing
/// a record keeps its stratum.
///
/// # Errors
/// Fewer than `m` rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prototype {
    /// The least number of rows behind a released row.
    pub members: usize,
}

impl Prototype {
    pub(super) fn read(arguments: &mut Arguments<'_>) -> Self {
        Self { members: arguments.count("members", "20") }
    }
}

impl Parameters for Prototype {
    fn arguments(&self) -> Vec<(&'static str, String)> {
        vec![("members", self.members.to_string())]
    }

    fn check(&self) -> Vec<(&'static str, String)> {
        out_of_range("members", self.members as f64, 1.0, 1e9).into_iter().collect()
    }

    fn build(&self, _: &State) -> Result<Box<dyn Stage>, String> {
        Ok(Box::new(*self))
    }
}

impl Stage for Prototype {
    fn name(&self) -> &'static str {
        "prototype"
    }

    fn apply(&self, release: Release, rng: &mut dyn Rng) -> Result<Release, Error> {
        let mut key = [0_u8; 32];
        rng.fill_bytes(&mut key);
        let rows = release.vectors.len();
        if rows < self.members {
            return Err(Error::Input(format!(
                "`prototype(members={})` got {rows} rows; give it at least {} or ask for fewer members",
                self.members, self.members
            )));
        }
        let groups = self.groups(rows, release.strata.as_deref(), key);
        let means: Vec<f32> = groups.par_iter().flat_map_iter(|group| mean(&release.vectors, &group.rows)).collect();
        let vectors = Embeddings::new(means, release.vectors.dim())
            .map_err(|e| Error::Input(format!("a prototype overflows: {e}")))?;
        let members = groups
            .iter()
            .map(|group| {
                let mut behind: Vec<u32> =
                    group.rows.iter().flat_map(|&row| release.members[row as usize].iter().copied()).collect();
                behind.sort_unstable();
                behind
            })
            .collect();
        let strata = release.strata.is_some().then(|| groups.iter().map(|group| group.stratum).collect());
        Ok(Release { vectors, members, strata, ..release })
    }

    fn guarantee(&self, before: &State) -> State {
        let mut after = before.clone();
        let m = self.members as f64;
        after.members = before.members * self.members;
        after.shared |= self.members > 1;
        if before.domain == Domain::Sphere {
            after.domain = Domain::L2 { radius: 1.0 };
        }
        after.sensitivity =
            before.sensitivity.as_ref().map(|s| Sensitivity { l2: s.l2 / m, formula: format!("{}/m", s.formula) });
        after.noise = match before.noise {
            // The mean of m noisy rows carries less noise; of more than m, less still: a guarantee may not count on it.
            Noise::Gaussian { mut model, .. } if !model.rescaled => {
                model.sigma_per_coordinate /= m.sqrt();
                model.members = after.members;
                Noise::Gaussian { model, running: None }
            }
            Noise::Clean => Noise::Clean,
            Noise::Gaussian { .. } | Noise::Mixed => Noise::Mixed,
        };
        after
    }
}

/// Rows that become one.
#[derive(Debug)]
struct Group {
    stratum: u32,
    rows: Vec<u32>,
}

/// The stratum of a group that was pooled from several.
pub const POOLED: u32 = u32::MAX;

impl Prototype {
    /// Every row in exactly one group of at least `members`; a function of the strata and the key, of no vector.
    fn groups(self, rows: usize, strata: Option<&[u32]>, key: [u8; 32]) -> Vec<Group> {
        let mut by_stratum: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for row in 0..rows as u32 {
            by_stratum.entry(strata.map_or(0, |strata| strata[row as usize])).or_default().push(row);
        }
        let mut pool = Vec::new();
        by_stratum.retain(|_, rows| {
            let stays = rows.len() >= self.members;
            if !stays {
                pool.append(rows);
            }
            stays
        });
        let mut groups: Vec<Group> = Vec::new();
        let pooled = (pool.len() >= self.members).then(|| (POOLED, std::mem::take(&mut pool)));
        for (stratum, mut rows) in by_stratum.into_iter().chain(pooled) {
            let mut order = ChaCha20Rng::from_seed(key);
            order.set_stream(u64::from(stratum));
            rand::seq::SliceRandom::shuffle(&mut rows[..], &mut order);
            let count = rows.len() / self.members;
            for i in 0..count {
                let end = if i + 1 == count { rows.len() } else { (i + 1) * self.members };
                groups.push(Group { stratum, rows: rows[i * self.members..end].to_vec() });
            }
        }
        // What is left of the pool is smaller than a group; there is a group to take it, since there are enough rows.
        if let Some(last) = groups.last_mut().filter(|_| !pool.is_empty()) {
            last.rows.append(&mut pool);
            last.stratum = POOLED;
        }
        groups
    }
}

fn mean(vectors: &Embeddings, rows: &[u32]) -> Vec<f32> {
    let mut sum = vec![0.0_f64; vectors.dim()];
    for &row in rows {
        for (total, &v) in sum.iter_mut().zip(vectors.row(row as usize)) {
            *total += f64::from(v);
        }
    }
    sum.into_iter().map(|total| (total / rows.len() as f64) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protect::Pipeline;
    use proptest::prelude::*;

    fn release(vectors: &Embeddings, strata: Option<&[u32]>, members: usize, root: u64) -> Result<Release, Error> {
        let pipeline = Pipeline::new(vec![Prototype { members }.into()]).expect("members in range");
        pipeline.release(vectors, strata, &mut crate::seed::stream(root, "test", "prototype"))
    }

    fn table(n: usize, shift: f32) -> Embeddings {
        let values = (0..n * 3).map(|i| (i as f32 * 0.37 + shift).sin()).collect();
        Embeddings::new(values, 3).expect("sines are finite")
    }

    proptest! {
        #[test]
        fn every_row_stands_in_exactly_one_group_of_at_least_m(
            strata in prop::collection::vec(0_u32..6, 1..120), members in 1_usize..12, root in 0_u64..50,
        ) {
            let vectors = table(strata.len(), 0.0);
            let Ok(out) = release(&vectors, Some(&strata), members, root) else {
                prop_assert!(strata.len() < members);
                return Ok(());
            };
            let mut seen: Vec<u32> = out.members.concat();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..strata.len() as u32).collect::<Vec<_>>());
            let groups_of = out.strata.as_deref().expect("strata were given");
            for ((group, stratum), row) in out.members.iter().zip(groups_of).zip(out.vectors.rows()) {
                prop_assert!(group.len() >= members);
                prop_assert!(*stratum == POOLED || group.iter().all(|&i| strata[i as usize] == *stratum));
                for (j, &value) in row.iter().enumerate() {
                    let exact: f64 = group.iter().map(|&i| f64::from(vectors.row(i as usize)[j])).sum::<f64>();
                    prop_assert!((f64::from(value) - exact / group.len() as f64).abs() < 1e-7);
                }
            }
        }
    }

    #[test]
    fn grouping_looks_at_no_vector() {
        let strata: Vec<u32> = (0..90).map(|i| i % 4).collect();
        let one = release(&table(90, 0.0), Some(&strata), 7, 1).expect("enough rows");
        let other = release(&table(90, 1.5), Some(&strata), 7, 1).expect("enough rows");
        assert_eq!(one.members, other.members);
        assert_ne!(one.vectors, other.vectors);
        let reseeded = release(&table(90, 0.0), Some(&strata), 7, 2).expect("enough rows");
        assert_ne!(one.members, reseeded.members);
    }

    #[test]
    fn replacing_one_record_moves_the_release_by_at_most_two_radii_over_m() {
        let mut vectors = Embeddings::new([1.0, 0.0].repeat(23), 2).expect("finite");
        let before = release(&vectors, None, 5, 1).expect("enough rows").vectors;
        let mut worst: f64 = 0.0;
        for i in 0..23 {
            vectors.row_mut(i)[0] = -1.0;
            let after = release(&vectors, None, 5, 1).expect("enough rows").vectors;
            vectors.row_mut(i)[0] = 1.0;
            let moved: f64 = before.values().iter().zip(after.values()).map(|(a, b)| f64::from(a - b).powi(2)).sum();
            worst = worst.max(moved.sqrt());
        }
        assert!((worst - 2.0 / 5.0).abs() < 1e-6, "{worst}");
    }

    #[test]
    fn too_few_rows_are_refused_with_both_numbers() {
        let error = release(&table(4, 0.0), None, 5, 1).expect_err("four rows are not five");
        assert_eq!(
            error.to_string(),
            "cannot protect the input: `prototype(members=5)` got 4 rows; give it at least 5 or ask for fewer members"
        );
    }
}
