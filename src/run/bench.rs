//! What all cells of a study share: records, split, encoders, clean vectors.

use crate::attack::text::prior::Prior;
use crate::data::Record;
use crate::encode::{self, Embeddings, Encoder};
use crate::study::{Sigma, Study};
use std::collections::BTreeMap;

/// One side of the split with everything computed once.
pub struct Side {
    /// `test`, `validation` or `auxiliary`.
    pub name: &'static str,
    /// The records.
    pub records: Vec<Record>,
    /// Their clean vectors under the victim.
    pub clean: Embeddings,
    /// Their vectors under each judge; none for auxiliary texts, which are never scored.
    pub judged: Vec<Embeddings>,
    /// Number of each record's document.
    pub clusters: Vec<u32>,
    /// Number of each record's topic; all 0 without topics.
    pub strata: Vec<u32>,
    /// Whether the corpus has topics.
    pub has_topics: bool,
}

/// The workbench of one study.
pub struct Bench<'a> {
    /// The study.
    pub study: &'a Study,
    /// The encoder under attack.
    pub victim: &'a dyn Encoder,
    /// Encoders that score guesses; the first carries the verdict.
    pub judges: Vec<&'a dyn Encoder>,
    /// The language model that attackers may consult, where the study asks for one.
    pub prior: Option<&'a dyn Prior>,
    /// A network of the attackers' own, and its vectors of their records.
    pub surrogate: Option<(&'a dyn Encoder, Embeddings)>,
    /// Targets that are scored.
    pub test: Side,
    /// Targets on which the worst attacker is chosen.
    pub validation: Side,
    /// The attackers' own records.
    pub auxiliary: Side,
    /// Hash of all inputs: records and their split, encoders.
    pub fingerprint: String,
    /// Whether a toy encoder or corpus is involved.
    pub toy: bool,
    /// Cosine of a target to its nearest auxiliary record, in the median.
    pub nearest_cosine: f64,
}

impl Bench<'_> {
    /// True where records are pictures.
    pub fn shows_pictures(&self) -> bool {
        self.test.records.first().is_some_and(|r| r.picture.is_some())
    }

    /// What cosines are measured about: the auxiliary mean for encoders of pictures, whose coordinates are never negative,
    /// so that all vectors point into one corner; nothing for texts.
    pub fn centre(&self, auxiliary: &Embeddings) -> Option<Vec<f32>> {
        self.shows_pictures().then(|| auxiliary.centre())
    }
}

impl Side {
    /// Puts records beside their vectors; `topics` numbers the corpus's labels.
    pub fn new(
        name: &'static str,
        records: Vec<Record>,
        topics: &[String],
        clean: Embeddings,
        judged: Vec<Embeddings>,
    ) -> Self {
        let mut documents: BTreeMap<&str, u32> = BTreeMap::new();
        let clusters = records
            .iter()
            .map(|r| {
                let next = documents.len() as u32;
                *documents.entry(&r.document).or_insert(next)
            })
            .collect();
        let topic = |r: &Record| r.topic.as_ref().and_then(|t| topics.binary_search(t).ok()).unwrap_or(0) as u32;
        let strata = records.iter().map(topic).collect();
        Self { name, clean, judged, clusters, strata, has_topics: topics.len() > 1, records }
    }
}

impl Side {
    /// The topic of each record.
    pub fn topics(&self) -> Vec<Option<&str>> {
        self.records.iter().map(|r| r.topic.as_deref()).collect()
    }
}

impl Bench<'_> {
    /// What a reader must know before quoting a number.
    pub fn assumptions(&self) -> Vec<String> {
        /// Below this many targets, or with one seed, a run shows that things work, not how private they are.
        const FEW_TARGETS: usize = 500;
        /// Noise-to-signal ratio above which a release is noise for every practical purpose.
        const HOPELESS: f64 = 10.0;
        let study = self.study;
        let mut out = Vec::new();
        if self.toy {
            out.push(
                "toy: the encoder or the corpus is a toy; no figure here says anything about real data".to_owned(),
            );
        }
        if study.data.targets < FEW_TARGETS || study.seeds.len() < 2 {
            out.push(format!(
                "smoke: {} targets and {} seed(s); a verdict to quote needs {FEW_TARGETS} targets and several seeds",
                study.data.targets,
                study.seeds.len()
            ));
        }
        let judge = self.judges[0].info();
        let relation = if self.shows_pictures() {
            "cosines are taken about the mean of the auxiliary pictures, and an object counts as named when the judge's ten nearest auxiliary pictures vote for it"
        } else {
            "both are small BERT students, a second opinion and not an unrelated one"
        };
        out.push(format!(
            "victim {}, judged by {} with the floor of shuffled pairs taken off; {relation}",
            self.victim.info().name,
            judge.name
        ));
        let base = |name: &str| encode::split_side(name).0.to_owned();
        for judge in self.judges.iter().map(|judge| &judge.info().name) {
            let reason = if base(judge) == base(&study.encode.victim) {
                "shares the victim's weights"
            } else if base(judge) == base(&study.encode.surrogate) {
                "shares weights with the network that attackers descend through"
            } else {
                continue;
            };
            out.push(format!("circular: the judge {judge} {reason}; its similarity is no independent opinion"));
        }
        if let Some((surrogate, _)) = &self.surrogate {
            out.push(format!("attackers have {} as a public network of their own", surrogate.info().name));
        }
        out.push(format!(
            "corpus {}: {} targets from {} documents, {} auxiliary records from other documents (nearest one at cosine {:.2} in the median)",
            study.data.corpus,
            self.test.records.len(),
            self.test.clusters.iter().max().map_or(0, |m| m + 1),
            self.auxiliary.records.len(),
            self.nearest_cosine
        ));
        out.push(
            "attackers know the pipeline, query the encoder, own text of the same kind and are fitted on fresh draws of the real noise".to_owned(),
        );
        if study.strength.sigma == Sigma::Estimated {
            out.push(
                "attackers are not told the noise's standard deviation: they estimate it from the rows they see"
                    .to_owned(),
            );
        }
        for protection in &study.protect {
            let dim = self.victim.info().dim;
            let noise = protection.pipeline.noise_at(dim).filter(|noise| noise.members == 1);
            let ratio = noise.map_or(0.0, |noise| noise.noise_to_signal(dim));
            if ratio > HOPELESS {
                out.push(format!(
                    "`{}` adds noise of {ratio:.0} times the signal's length (sigma times the root of {dim} coordinates): a low leak says little where nothing else is left either",
                    protection.name
                ));
            }
        }
        for protection in study.protect.iter().filter(|p| p.pipeline.has_secret()) {
            out.push(format!(
                "`{}` keeps a secret: attackers know every parameter but that one, and those that declare leaked pairs learn it from them",
                protection.name
            ));
        }
        for attack in &study.attack {
            let knowledge = attack.config.build().needs();
            if knowledge.leaked_pairs > 0 {
                out.push(format!(
                    "`{}` was leaked {} pairs of its own texts and what the victim released of them{}",
                    attack.name,
                    knowledge.leaked_pairs,
                    if knowledge.encoder { "" } else { ", and never queries the encoder" }
                ));
            }
        }
        for attack in study.attack.iter().filter(|a| a.config.targets() > 0 && a.config.targets() < study.data.targets)
        {
            out.push(format!(
                "`{}` takes the first {} targets of the random order, a declared subset; its n and interval say so",
                attack.name,
                attack.config.targets()
            ));
        }
        for protection in study.protect.iter().filter(|p| p.targets > 0 && p.targets < study.data.targets) {
            let (name, n) = (&protection.name, protection.targets);
            out.push(format!("`{name}` is attacked on the first {n} targets of the random order, a declared subset"));
        }
        out.push("intervals are 95 %: BCa bootstrap over documents, seeds as a second level".to_owned());
        out
    }
}
