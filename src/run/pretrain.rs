//! Attackers trained ahead of all studies: corpora, training texts, one long training, a folder to keep.

use super::{Watch, provenance, setup};
use crate::Error;
use crate::attack::denoise::Denoising;
use crate::attack::text::corrector::Corrector;
use crate::attack::text::crops::Crops;
use crate::attack::text::decoder::{Decoder, Pairing, Writer};
use crate::attack::text::kept::{self, Record, Role, Source};
use crate::attack::{self, View, adapt::Adaptation};
use crate::data::corpus::{self, Corpus};
use crate::data::{Keep, asset, duplicate, split};
use crate::encode::{Embeddings, Encoder};
use crate::seed;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// What to train, as a file of `studies/` says it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pretraining {
    /// Version of this format.
    pub schema: u32,
    /// Name of the attacker, and of its folder.
    pub name: String,
    /// The encoder whose vectors it learns to read.
    pub victim: String,
    /// Freely licensed corpora; of each, the auxiliary side of the stable split.
    pub corpora: Vec<String>,
    /// Names every random stream.
    pub seed: u64,
    /// How training texts are cut.
    #[serde(default)]
    pub crops: Crops,
    /// The model and its training.
    #[serde(default)]
    pub decoder: Decoder,
    /// Where it is given, a corrector is trained instead; it starts from the decoder that is kept for the victim, and only
    /// `steps`, `batch`, `slots` and `feedback` of it matter here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub corrector: Option<Corrector>,
}

impl Pretraining {
    /// Reads and checks a file; `path` only names it in messages.
    ///
    /// # Errors
    /// Every problem at once.
    pub fn parse(path: &str, text: &str) -> Result<Self, crate::study::Error> {
        let refuse = |problems: Vec<String>| crate::study::Error { path: path.to_owned(), problems };
        let plan: Self = toml::from_str(text).map_err(|e| refuse(vec![e.to_string()]))?;
        let mut problems = head(plan.schema, &plan.name, &plan.corpora);
        problems.extend(plan.crops.check().into_iter().map(|p| format!("crops: {p}")));
        problems.extend(plan.decoder.check().into_iter().map(|p| format!("decoder: {p}")));
        problems.extend(plan.corrector.iter().flat_map(Corrector::check).map(|p| format!("corrector: {p}")));
        if problems.is_empty() { Ok(plan) } else { Err(refuse(problems)) }
    }
}

/// What is wrong with the lines that every plan begins with.
pub(super) fn head(schema: u32, name: &str, corpora: &[String]) -> Vec<String> {
    let mut problems = Vec::new();
    if schema != 1 {
        problems.push("`schema = 1` must stand at the top".to_owned());
    }
    if corpora.is_empty() {
        problems.push("`corpora` must name at least one corpus".to_owned());
    }
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_') {
        problems.push("`name` must be given: letters, digits, `-` and `_`".to_owned());
    }
    problems
}

/// A corpus, the records of it that may be trained on, ascending, and what a kept folder says of it; `unit` names a record.
pub(super) fn trainable(
    name: &str,
    keep: &Keep,
    unit: &str,
    watch: &dyn Watch,
) -> Result<(Corpus, Vec<usize>, Source), Error> {
    let mut licence = "one's own".to_owned();
    let found = corpus::open(name, keep, &mut |name, wanted| -> Result<_, Error> {
        let asset = asset::ensure(name, watch)?;
        licence.clone_from(&asset.licence);
        Ok(asset.entries(wanted)?)
    })?;
    let own = split::auxiliary(&found);
    watch.message(&format!("{name}: {} of {} {unit} may be trained on", own.len(), found.records.len()));
    let source = Source { name: name.to_owned(), licence, fingerprint: found.fingerprint.clone(), records: own.len() };
    Ok((found, own, source))
}

/// Trains, and writes the folder `out`. Killed, it goes on where it was.
///
/// # Errors
/// When a corpus or the encoder cannot be had, when the training fails, or when the folder would be too large to keep.
pub fn execute(plan: &Pretraining, command: &str, out: &Path, watch: &dyn Watch) -> Result<Record, Error> {
    let meter = provenance::Meter::start();
    let victim = setup::encoder(&plan.victim, &mut Vec::new(), watch)?;
    let Material { sentences, sources, targets } = material(plan, victim.as_ref(), watch)?;
    let mut rng = seed::stream(plan.seed, &plan.name, "training texts");
    let (texts, exchanged) = plan.crops.cut(&sentences, &victim.words(), &mut rng);
    watch.message(&format!("{} texts, in {exchanged} of which words were exchanged", texts.len()));
    let vectors = setup::vectors(victim.as_ref(), &texts.iter().collect::<Vec<_>>(), watch)?;
    // A span can come as close to a target as another sentence can.
    let close = duplicate::drop_close(&targets, &vectors, setup::NEAR_DUPLICATE);
    let apart: Vec<usize> = (0..texts.len()).filter(|i| close.binary_search(i).is_err()).collect();
    watch.message(&format!(
        "{} texts were dropped because they come close to a record that may be a target",
        close.len()
    ));
    let texts: Vec<_> = apart.iter().map(|&i| texts[i].clone()).collect();
    let vectors = vectors.select(&apart);

    let workshop = PathBuf::from("reports").join(format!("pretrain-{}", plan.name));
    let made = |path: &Path| {
        std::fs::create_dir_all(path).map_err(|source| super::Error::Io { path: path.display().to_string(), source })
    };
    made(&workshop)?;
    made(out)?;
    let pipeline: crate::protect::Pipeline = "identity".parse()?;
    let strata = vec![0; texts.len()];
    let leaked = Embeddings::empty(vectors.dim());
    let inputs = format!("pretraining {} {}", serde_json::json!(plan), victim.info().fingerprint);
    let view = View {
        auxiliary: &texts,
        clean: &vectors,
        strata: &strata,
        pipeline: &pipeline,
        releases: 1,
        denoising: Denoising::Wiener,
        leaked: &leaked,
        encoder: victim.as_ref(),
        prior: None,
        surrogate: None,
        seed: plan.seed,
        fingerprint: inputs.clone(),
        inputs,
        workshop: &workshop,
    };
    let (role, writer, steps, batch) = if let Some(corrector) = &plan.corrector {
        let corrector = Corrector { decoder: plan.decoder.clone(), ..corrector.clone() };
        (Role::Corrector, corrector.pretrain(&view, watch)?, corrector.steps, corrector.batch)
    } else {
        let adaptation = Adaptation::fit(&view)?;
        let writer = Writer::train(&view, &adaptation, &plan.decoder, Pairing::True, watch)?;
        (Role::Decoder, writer, plan.decoder.steps, plan.decoder.batch)
    };
    writer.keep(out)?;
    let hash = |file: &str| -> Result<(String, usize), Error> {
        let path = out.join(file);
        let bytes =
            std::fs::read(&path).map_err(|source| super::Error::Io { path: path.display().to_string(), source })?;
        Ok((blake3::hash(&bytes).to_hex().to_string(), bytes.len()))
    };
    let ((weights, size), (tokenizer, more)) = (hash(kept::WEIGHTS)?, hash(kept::TOKENIZER)?);
    if size + more > kept::MOST_BYTES {
        watch.message(&format!(
            "the folder holds {} MB; at most {} MB are kept in the project, lower `decoder.d_model` or `decoder.vocabulary`",
            (size + more) >> 20,
            kept::MOST_BYTES >> 20
        ));
    }
    let record = Record {
        schema: kept::SCHEMA.to_owned(),
        name: plan.name.clone(),
        role,
        victim: plan.victim.clone(),
        victim_fingerprint: victim.info().fingerprint.clone(),
        corpora: sources,
        texts: texts.len(),
        exchanged,
        steps,
        batch,
        parameters: writer.parameters(),
        wall_s: meter.wall_s(),
        command: command.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        curves: writer.curves().to_vec(),
        weights,
        tokenizer,
    };
    let bytes = serde_json::to_vec_pretty(&record).expect("strings and numbers serialise");
    attack::keep(&out.join(kept::RECORD), &bytes)?;
    Ok(record)
}

/// What may be trained on, and the vectors of what may not.
struct Material {
    sentences: Vec<crate::data::Record>,
    sources: Vec<Source>,
    targets: Embeddings,
}

/// Reads the plan's corpora and takes the side of each that holds no study's targets.
fn material(plan: &Pretraining, victim: &dyn Encoder, watch: &dyn Watch) -> Result<Material, Error> {
    // Whole sentences and long ones alike: spans are cut from both.
    let keep = Keep { min_chars: 12, max_chars: 1000, min_words: 3, ..Keep::default() };
    let mut material =
        Material { sentences: Vec::new(), sources: Vec::new(), targets: Embeddings::empty(victim.info().dim) };
    for name in &plan.corpora {
        let (found, own, source) = trainable(name, &keep, "sentences", watch)?;
        material.sources.push(source);
        let mut owned = own.iter().copied().peekable();
        let others = (0..found.records.len()).filter(|i| owned.next_if_eq(i).is_none());
        let others: Vec<&crate::data::Record> = others.map(|i| &found.records[i]).collect();
        for row in setup::vectors(victim, &others, watch)?.rows() {
            material.targets.push(row);
        }
        material.sentences.extend(own.into_iter().map(|i| found.records[i].clone()));
    }
    Ok(material)
}
