//! Attackers: from what they are allowed to see to guesses about the targets.
//!
//! | attack | when it is the one to fear | what it costs |
//! |---|---|---|
//! | [`floor::Random`], [`floor::Constant`] | never: they show what no attack at all scores | nothing |
//! | [`floor::Blind`] | never: the same decoder, trained on permuted embeddings | a short training |
//! | [`text::nearest::Nearest`] | the attacker owns text like the target's, or the noise is strong | one product |
//! | [`text::bag_of_words::BagOfWords`] | facts matter more than wording | one ridge regression |
//! | [`text::decoder::Decoder`] | many targets, little time for each | a training for each protection |
//! | [`text::corrector::Corrector`] | the decoder comes close: it reads its own guess and mends it | a second training, then a dozen queries a step |
//! | [`text::align::Align`] | the encoder or a key is secret, but some pairs leaked | a ridge regression and a training |
//! | [`text::search::Search`] | little noise and encoder queries: the strongest | seconds for each target |
//! | [`image::ridge::Ridge`] | pictures: colours suffice, or the noise is strong | one regression |
//! | [`image::decoder::ImageDecoder`] | pictures: many targets, little time for each | a training for each protection |
//! | [`image::invert::Invert`] | pictures: the encoder's weights are public, little noise | a second for each target |
//! | [`image::generative::Generative`] | pictures: much noise, where only what pictures look like is left | minutes of training |
//! | [`probe`] | a fact suffices: topic, name, code, whose vector it is | minutes at most |
//!
//! Every attacker is *adaptive*: it is fitted on fresh draws of the very pipeline that protects the targets
//! ([`adapt`]), denoises with what it knows about the noise, and averages repeated releases.
//!
//! To add one: a file, a variant of [`AttackConfig`], an arm in [`AttackConfig::build`], an example, a known-answer test.

pub mod adapt;
pub mod denoise;
pub mod ensemble;
pub mod floor;
pub mod gaming;
pub mod image;
pub mod linear;
pub mod probe;
pub mod recover;
#[cfg(test)]
pub(crate) mod scene;
pub mod text;

use crate::data::{Medium, Picture, Record};
use crate::encode::{Embeddings, Encoder};
use crate::error::Exit;
use crate::protect::Pipeline;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Exactly what one attacker is allowed to see. Targets are not in it.
pub struct View<'a> {
    /// The attacker's own records: other documents than the targets'.
    pub auxiliary: &'a [Record],
    /// Their clean vectors, from queries to the victim encoder.
    pub clean: &'a Embeddings,
    /// Public topic of each auxiliary record, along which prototypes are formed.
    pub strata: &'a [u32],
    /// The protection as the attacker knows it: not its noise, and not its secret parameters
    /// ([`Pipeline::as_known`]).
    pub pipeline: &'a Pipeline,
    /// Leaked pairs, access level L1: row `i` is what the victim really released of auxiliary record `i`, secret
    /// parameters and a noise of its own included, averaged over its releases. There are as many rows as the attacker
    /// declared in [`Knowledge::leaked_pairs`], and none for attackers that declared none. As [`adapt::read`] gives them.
    pub leaked: &'a Embeddings,
    /// How many independent releases of each target the attacker sees.
    pub releases: usize,
    /// How it takes the noise off them.
    pub denoising: denoise::Denoising,
    /// Query access to the victim encoder.
    pub encoder: &'a dyn Encoder,
    /// A language model that the attacker may consult, where the study asks for one.
    pub prior: Option<&'a dyn text::prior::Prior>,
    /// A network of the attacker's own, where the study names one.
    pub surrogate: Option<Surrogate<'a>>,
    /// The study's seed.
    pub seed: u64,
    /// Names the records and encoders.
    pub inputs: String,
    /// Names everything above: two views with one fingerprint train the same attacker.
    pub fingerprint: String,
    /// Where trained parts are kept, so that attackers of one view share them and a killed run resumes.
    pub workshop: &'a Path,
}

/// A network that is neither the victim nor the judge, beside what it says of the auxiliary records.
#[derive(Clone, Copy)]
pub struct Surrogate<'a> {
    /// The network.
    pub encoder: &'a dyn Encoder,
    /// Its vectors of the auxiliary records.
    pub clean: &'a Embeddings,
}

/// What an attacker needs to be granted; printed beside its result.
#[expect(clippy::struct_excessive_bools, reason = "four independent grants, each a column of the report")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Knowledge {
    /// Uses its own texts.
    pub auxiliary: bool,
    /// Knows the pipeline and draws from it.
    pub pipeline: bool,
    /// Queries the victim encoder with texts of its own.
    pub encoder: bool,
    /// Reads the released vectors at all.
    pub released: bool,
    /// How many pairs of its own texts and what the victim really released of them it was leaked (access level L1).
    #[serde(default)]
    pub leaked_pairs: usize,
}

/// The attacker's reconstruction of one released row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Guess {
    /// The text; empty where the guess is a picture.
    pub text: String,
    /// The picture, where the targets are pictures.
    #[serde(skip)]
    pub picture: Option<Picture>,
    /// The attacker's own score; higher is more confident. Comparable within one attacker only.
    pub score: f64,
    /// Encoder queries spent on this row.
    pub queries: usize,
    /// For searches: the best candidate's cosine to the released vector after so many queries.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trace: Vec<(usize, f64)>,
}

impl Guess {
    /// A guess that took no queries.
    pub fn new(text: String, score: f64) -> Self {
        Self { text, picture: None, score, queries: 0, trace: Vec::new() }
    }

    /// A picture that took no queries.
    pub fn drawn(picture: Picture, score: f64) -> Self {
        Self { picture: Some(picture), ..Self::new(String::new(), score) }
    }

    /// One of the attacker's own records, given as the answer.
    pub fn copied(record: &Record, score: f64) -> Self {
        match &record.picture {
            Some(picture) => Self::drawn(picture.clone(), score),
            None => Self::new(record.text.clone(), score),
        }
    }
}

/// The vectors of guesses: of their pictures where they are pictures, otherwise of their texts.
pub fn embed(encoder: &dyn Encoder, guesses: &[&Guess]) -> Result<Embeddings, crate::encode::Error> {
    let pictures: Vec<&Picture> = guesses.iter().filter_map(|g| g.picture.as_ref()).collect();
    if !pictures.is_empty() && pictures.len() == guesses.len() {
        return encoder.encode_pictures(&pictures);
    }
    encoder.encode(&guesses.iter().map(|g| g.text.as_str()).collect::<Vec<_>>())
}

/// A learning curve or a budget curve, for the report.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// What it shows, with the unit.
    pub title: String,
    /// Label of the horizontal axis.
    pub x_label: String,
    /// The points, in order.
    pub points: Vec<(f64, f64)>,
}

/// Where long work reports how far it is, and learns that it should stop.
pub trait Progress: Sync {
    /// `done` of `total` units of `what`.
    fn update(&self, done: usize, total: usize, what: &str);
    /// True once the user asked to stop; long work then returns [`Error::Interrupted`].
    fn is_interrupted(&self) -> bool;
}

/// Progress that nobody watches.
pub struct Quiet;

impl Progress for Quiet {
    fn update(&self, _: usize, _: usize, _: &str) {}
    fn is_interrupted(&self) -> bool {
        false
    }
}

/// An attacker before it has seen anything.
pub trait Attack {
    /// What it must be granted.
    fn needs(&self) -> Knowledge;

    /// Learns from the view. Randomness comes from streams named after the view and `task`.
    fn fit<'a>(&self, view: &'a View<'a>, task: &str, progress: &dyn Progress)
    -> Result<Box<dyn Inverter + 'a>, Error>;
}

/// An attacker that has learned all it will.
pub trait Inverter: Sync {
    /// One guess for each released row as [`adapt::read`] gives it, in order. Rows are attacked independently of each other.
    fn invert(&self, released: &Embeddings, task: &str, progress: &dyn Progress) -> Result<Vec<Guess>, Error>;

    /// Which pretrained attacker it started from, and what that one was trained on.
    fn origin(&self) -> Option<String> {
        None
    }

    /// `ln p(text | release) - ln p(text)` in nats for each row and its true text, by an attacker that models text.
    ///
    /// The evaluator asks this after the guesses are made; the answer never reaches the attacker.
    fn log_odds(&self, _released: &Embeddings, _truths: &[&str]) -> Result<Option<Vec<f64>>, Error> {
        Ok(None)
    }

    /// Learning and budget curves, for the report.
    fn curves(&self) -> Vec<Curve> {
        Vec::new()
    }
}

/// The registry: every attack with its parameters, as a study names them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum AttackConfig {
    /// A decoder trained on permuted embeddings.
    Blind(floor::Blind),
    /// The one sentence that fits all targets best.
    Constant(floor::Constant),
    /// A random auxiliary sentence.
    Random(floor::Random),
    /// The auxiliary sentence whose vector is nearest.
    Nearest(text::nearest::Nearest),
    /// The most likely words.
    BagOfWords(text::bag_of_words::BagOfWords),
    /// An embedding-conditioned language model, sampled and re-ranked.
    Decoder(text::decoder::Decoder),
    /// A decoder that reads its own last guess.
    Corrector(text::corrector::Corrector),
    /// A linear map learnt from leaked pairs, into a space from which a decoder writes.
    Align(text::align::Align),
    /// Hill climbing by re-embedding.
    Search(text::search::Search),
    /// The best linear estimate of every pixel.
    Ridge(image::ridge::Ridge),
    /// A network trained to draw pictures from releases.
    ImageDecoder(image::decoder::ImageDecoder),
    /// Descending through the victim encoder.
    Invert(image::invert::Invert),
    /// See [`image::generative::Generative`].
    Generative(image::generative::Generative),
    /// Topics, senders and other attributes.
    Attribute(probe::attribute::Attribute),
    /// Names, dates and codes in texts of known wording.
    Slots(probe::slots::Slots),
    /// Which vectors and texts belong together.
    Linkage(probe::linkage::Linkage),
    /// Which records were released, among others of their topic.
    Membership(probe::membership::Membership),
    /// The best guess of all other attackers.
    BestOf(ensemble::BestOf),
}

/// An attacker as the registry builds it: one that writes texts, or one that infers facts.
pub enum Attacker {
    /// Its guesses are texts.
    Reconstructs(Box<dyn Attack>),
    /// Its findings are facts.
    Infers(Box<dyn probe::Probe>),
    /// It chooses among the guesses of the study's other attackers.
    Chooses(ensemble::BestOf),
}

impl Attacker {
    /// What it must be granted.
    pub fn needs(&self) -> Knowledge {
        match self {
            Self::Reconstructs(attack) => attack.needs(),
            Self::Infers(probe) => probe.needs(),
            Self::Chooses(best_of) => best_of.needs(),
        }
    }
}

impl AttackConfig {
    /// Every kind, as a study file names it.
    pub const KINDS: [&'static str; 18] = [
        "blind",
        "constant",
        "random",
        "nearest",
        "bag_of_words",
        "decoder",
        "corrector",
        "align",
        "search",
        "ridge",
        "image_decoder",
        "invert",
        "generative",
        "attribute",
        "slots",
        "linkage",
        "membership",
        "best_of",
    ];

    /// The kinds that exist to show the floor, never to carry a verdict.
    pub const FLOORS: [&'static str; 3] = ["blind", "constant", "random"];
    /// The kinds that infer facts instead of writing texts.
    pub const PROBES: [&'static str; 4] = ["attribute", "slots", "linkage", "membership"];

    /// One valid configuration of each kind.
    pub fn examples() -> Vec<Self> {
        vec![
            Self::Blind(floor::Blind::default()),
            Self::Constant(floor::Constant::default()),
            Self::Random(floor::Random::default()),
            Self::Nearest(text::nearest::Nearest::default()),
            Self::BagOfWords(text::bag_of_words::BagOfWords::default()),
            Self::Decoder(text::decoder::Decoder::default()),
            Self::Corrector(text::corrector::Corrector::default()),
            Self::Align(text::align::Align::default()),
            Self::Search(text::search::Search::default()),
            Self::Ridge(image::ridge::Ridge::default()),
            Self::ImageDecoder(image::decoder::ImageDecoder::default()),
            Self::Invert(image::invert::Invert::default()),
            Self::Generative(image::generative::Generative::default()),
            Self::Attribute(probe::attribute::Attribute::default()),
            Self::Slots(probe::slots::Slots::default()),
            Self::Linkage(probe::linkage::Linkage::default()),
            Self::Membership(probe::membership::Membership::default()),
            Self::BestOf(ensemble::BestOf::default()),
        ]
    }

    /// The name in studies, records and reports.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Blind(_) => "blind",
            Self::Constant(_) => "constant",
            Self::Random(_) => "random",
            Self::Nearest(_) => "nearest",
            Self::BagOfWords(_) => "bag_of_words",
            Self::Decoder(_) => "decoder",
            Self::Corrector(_) => "corrector",
            Self::Align(_) => "align",
            Self::Search(_) => "search",
            Self::Ridge(_) => "ridge",
            Self::ImageDecoder(_) => "image_decoder",
            Self::Invert(_) => "invert",
            Self::Generative(_) => "generative",
            Self::Attribute(_) => "attribute",
            Self::Slots(_) => "slots",
            Self::Linkage(_) => "linkage",
            Self::Membership(_) => "membership",
            Self::BestOf(_) => "best_of",
        }
    }

    /// Every parameter that is out of range, as `key: what it must be`.
    pub fn check(&self) -> Vec<String> {
        match self {
            Self::Blind(c) => c.check(),
            Self::Constant(_)
            | Self::Random(_)
            | Self::Nearest(_)
            | Self::Ridge(_)
            | Self::Linkage(_)
            | Self::Membership(_)
            | Self::BestOf(_) => Vec::new(),
            Self::BagOfWords(c) => c.check(),
            Self::Decoder(c) => c.check(),
            Self::Corrector(c) => c.check(),
            Self::Align(c) => c.check(),
            Self::Search(c) => c.check(),
            Self::ImageDecoder(c) => c.check(),
            Self::Invert(c) => c.check(),
            Self::Generative(c) => c.check(),
            Self::Attribute(c) => c.check(),
            Self::Slots(c) => c.check(),
        }
    }

    /// The attacker.
    pub fn build(&self) -> Attacker {
        let attack: Box<dyn Attack> = match self.clone() {
            Self::Blind(c) => Box::new(c),
            Self::Constant(c) => Box::new(c),
            Self::Random(c) => Box::new(c),
            Self::Nearest(c) => Box::new(c),
            Self::BagOfWords(c) => Box::new(c),
            Self::Decoder(c) => Box::new(c),
            Self::Corrector(c) => Box::new(c),
            Self::Align(c) => Box::new(c),
            Self::Search(c) => Box::new(c),
            Self::Ridge(c) => Box::new(c),
            Self::ImageDecoder(c) => Box::new(c),
            Self::Invert(c) => Box::new(c),
            Self::Generative(c) => Box::new(c),
            Self::Attribute(c) => return Attacker::Infers(Box::new(c)),
            Self::Slots(c) => return Attacker::Infers(Box::new(c)),
            Self::Linkage(c) => return Attacker::Infers(Box::new(c)),
            Self::Membership(c) => return Attacker::Infers(Box::new(c)),
            Self::BestOf(c) => return Attacker::Chooses(c),
        };
        Attacker::Reconstructs(attack)
    }

    /// How many targets it takes, where the study limits a costly attack to a declared subset; 0 means all.
    pub fn targets(&self) -> usize {
        match self {
            Self::Corrector(c) => c.targets,
            Self::Search(c) => c.targets,
            Self::Align(c) => c.targets,
            Self::Invert(c) => c.targets,
            Self::Generative(c) => c.targets,
            Self::Slots(c) => c.targets,
            _ => 0,
        }
    }

    /// True for attackers that exist to show the floor, never to carry a verdict.
    pub fn is_floor(&self) -> bool {
        Self::FLOORS.contains(&self.kind())
    }

    /// True for attackers whose guesses `best_of` chooses among.
    pub fn is_rival(&self) -> bool {
        !self.is_floor() && !self.is_probe() && !matches!(self, Self::BestOf(_))
    }

    /// The decoder that it trains, where it trains one; the blind attacker's is its own business.
    pub fn decoder(&self) -> Option<&text::decoder::Decoder> {
        match self {
            Self::Decoder(c) => Some(c),
            Self::Corrector(c) => Some(&c.decoder),
            Self::Align(c) => Some(&c.decoder),
            Self::Search(c) => Some(&c.decoder),
            _ => None,
        }
    }

    /// What it makes its guesses of; `None` for attacks on records of any kind.
    pub fn medium(&self) -> Option<Medium> {
        match self {
            Self::BagOfWords(_)
            | Self::Decoder(_)
            | Self::Corrector(_)
            | Self::Align(_)
            | Self::Search(_)
            | Self::Slots(_) => Some(Medium::Text),
            Self::Ridge(_) | Self::ImageDecoder(_) | Self::Invert(_) | Self::Generative(_) => Some(Medium::Picture),
            Self::Blind(_)
            | Self::Constant(_)
            | Self::Random(_)
            | Self::Nearest(_)
            | Self::Attribute(_)
            | Self::Linkage(_)
            | Self::Membership(_)
            | Self::BestOf(_) => None,
        }
    }

    /// Makes every part that would start from a pretrained attacker start from nothing.
    pub fn start_from_nothing(&mut self) {
        let pretrained = match self {
            Self::Decoder(c) => &mut c.pretrained,
            Self::Corrector(c) => {
                "none".clone_into(&mut c.pretrained);
                &mut c.decoder.pretrained
            }
            Self::Align(c) => &mut c.decoder.pretrained,
            Self::Search(c) => {
                "none".clone_into(&mut c.corrector);
                &mut c.decoder.pretrained
            }
            Self::ImageDecoder(c) => &mut c.pretrained,
            Self::Generative(c) => &mut c.pretrained,
            _ => return,
        };
        "none".clone_into(pretrained);
    }

    /// Which kept corrector it starts from or mends with; `None` for attackers that use none.
    pub fn kept_corrector(&self) -> Option<&str> {
        match self {
            Self::Corrector(c) => Some(&c.pretrained),
            Self::Search(c) => Some(&c.corrector),
            Self::Align(c) => (c.search_queries > 0).then_some("auto"),
            _ => None,
        }
    }

    /// Which kept prior of pictures it would start from; `None` for attackers that start from none.
    pub fn picture_prior(&self) -> Option<&str> {
        match self {
            Self::ImageDecoder(c) => Some(&c.pretrained),
            Self::Generative(c) => Some(&c.pretrained),
            _ => None,
        }
    }

    /// True for attackers that infer facts instead of writing texts.
    pub fn is_probe(&self) -> bool {
        Self::PROBES.contains(&self.kind())
    }

    /// True for attackers that make texts or pictures of their own; the strength bar is theirs to clear.
    pub fn is_free_text(&self) -> bool {
        matches!(
            self,
            Self::Decoder(_)
                | Self::Corrector(_)
                | Self::Align(_)
                | Self::Search(_)
                | Self::Ridge(_)
                | Self::ImageDecoder(_)
                | Self::Invert(_)
                | Self::Generative(_)
                | Self::BestOf(_)
        )
    }
}

/// Writes a file of a trained attacker; it appears whole or not at all.
pub(crate) fn keep(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    use std::io::Write;
    let write = || {
        let mut file = atomic_write_file::AtomicWriteFile::open(path)?;
        file.write_all(bytes)?;
        file.commit()
    };
    write().map_err(|source| Error::Workshop { path: path.display().to_string(), source })
}

/// Why an attack cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The view lacks something that the attacker declared.
    #[error("attack `{attack}` needs {what}")]
    Needs {
        /// Its name.
        attack: &'static str,
        /// What is missing, and how to grant it.
        what: String,
    },
    /// The run was interrupted; what was trained so far is kept.
    #[error("interrupted; run the same command again to resume")]
    Interrupted,
    /// A trained part could not be kept.
    #[error("cannot keep the trained attacker in `{path}`")]
    Workshop {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A folder with a pretrained attacker is not what it should be.
    #[error(
        "pretrained attacker `{folder}`: {why}; make it with `stitchback pretrain`, or write `pretrained = \"none\"`"
    )]
    Pretrained {
        /// The folder.
        folder: String,
        /// What is wrong.
        why: String,
    },
    /// The gradient through the encoder is not the real one.
    #[error("the encoder's gradient is wrong: {0}; nothing that descends it can be scored")]
    Gradient(String),
    /// Pictures that an attack cannot work with, or texts where it needs pictures.
    #[error("{0}")]
    Pictures(String),
    /// The attacker's own tokenizer could not be trained or used.
    #[error("the attacker's tokenizer failed: {0}")]
    Tokenizer(String),
    /// A language prior cannot be read or used.
    #[error("prior `{name}`: {why}")]
    Prior {
        /// Its name.
        name: &'static str,
        /// What is wrong, and the remedy.
        why: String,
    },
    /// A prior's files cannot be had.
    #[error(transparent)]
    Asset(#[from] crate::data::asset::Error),
    /// The substrate failed.
    #[error(transparent)]
    Nn(#[from] crate::nn::Error),
    /// The encoder failed.
    #[error(transparent)]
    Encode(#[from] crate::encode::Error),
    /// The pipeline failed on the attacker's own records.
    #[error(transparent)]
    Protect(#[from] crate::protect::Error),
}

impl Error {
    /// The exit code that stands for this failure.
    pub fn exit(&self) -> Exit {
        match self {
            Error::Needs { .. } | Error::Pictures(_) => Exit::Usage,
            Error::Interrupted => Exit::Interrupted,
            Error::Workshop { .. } | Error::Pretrained { .. } | Error::Prior { .. } => Exit::Input,
            Error::Asset(e) => e.exit(),
            Error::Tokenizer(_) | Error::Gradient(_) => Exit::Internal,
            Error::Nn(e) => e.exit(),
            Error::Encode(e) => e.exit(),
            Error::Protect(e) => e.exit(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_valid_example_that_survives_its_text_form() {
        let examples = AttackConfig::examples();
        assert_eq!(examples.iter().map(AttackConfig::kind).collect::<Vec<_>>(), AttackConfig::KINDS);
        for example in examples {
            assert_eq!(example.check(), Vec::<String>::new(), "{}", example.kind());
            let text = toml::to_string(&example).expect("parameters are plain values");
            assert_eq!(toml::from_str::<AttackConfig>(&text).expect("what was printed"), example);
        }
    }

    /// Some published attackers hold the dimension of one encoder.
    #[test]
    fn attackers_take_vectors_of_any_dimension() {
        for dim in [512, 768, 1536] {
            let scene = scene::Scene::wide(120, "clip(l2=1) | gaussian(sigma=0.02)", &["zanzibar"], dim);
            let view = scene.view();
            let decoder = text::decoder::Decoder {
                steps: 2,
                adapt_steps: 1,
                batch: 8,
                d_model: 16,
                layers: 1,
                heads: 2,
                slots: 2,
                vocabulary: 300,
                samples: 2,
                ..Default::default()
            };
            let seen = scene.clean.select(&[3, 5]);
            for config in [
                AttackConfig::Nearest(text::nearest::Nearest::default()),
                AttackConfig::BagOfWords(text::bag_of_words::BagOfWords::default()),
                AttackConfig::Decoder(decoder.clone()),
                AttackConfig::Search(text::search::Search { queries: 60, decoder, ..Default::default() }),
            ] {
                // The linear readers take a cube of the dimension.
                if dim > 1000 && matches!(config, AttackConfig::BagOfWords(_) | AttackConfig::Search(_)) {
                    continue;
                }
                let Attacker::Reconstructs(attack) = config.build() else { panic!("{} writes texts", config.kind()) };
                let inverter = attack.fit(&view, "dimensions", &Quiet).expect("fits");
                let guesses = inverter.invert(&seen, "dimensions", &Quiet).expect("guesses");
                assert!(
                    guesses.len() == 2 && guesses.iter().all(|g| g.score.is_finite()),
                    "{} at {dim}",
                    config.kind()
                );
            }
        }
    }

    #[test]
    fn parameters_out_of_range_are_named() {
        let decoder = text::decoder::Decoder { heads: 3, temperature: 0.0, ..Default::default() };
        let problems = AttackConfig::Search(text::search::Search { beam: 0, decoder, ..Default::default() }).check();
        for name in ["`beam`", "`heads`", "`temperature`"] {
            assert!(problems.iter().any(|p| p.contains(name)), "{name} is missing from {problems:?}");
        }
    }

    #[test]
    fn floors_never_carry_a_verdict() {
        let floors: Vec<&str> =
            AttackConfig::examples().iter().filter(|a| a.is_floor()).map(AttackConfig::kind).collect();
        assert_eq!(floors, ["blind", "constant", "random"]);
        for floor in [AttackConfig::Blind(floor::Blind::default()), AttackConfig::Random(floor::Random::default())] {
            assert!(!floor.build().needs().released, "{} must not look at the release", floor.kind());
        }
    }

    #[test]
    fn probes_are_those_that_infer() {
        for example in AttackConfig::examples() {
            assert_eq!(matches!(example.build(), Attacker::Infers(_)), example.is_probe(), "{}", example.kind());
        }
    }
}
