//! A prior of what pictures look like that the project keeps: our own weights, trained ahead of all studies.
//!
//! It knows no victim: `generative` starts its autoencoder from it, `image_decoder` its upsampling layers.

use super::Pixels;
use super::autoencoder::{Autoencoder, Course};
use crate::attack::text::kept::{MOST_BYTES, RECORD, Source};
use crate::attack::{Curve, Error, Progress, keep};
use crate::data::Picture;
use crate::nn::Params;
use crate::seed;
use half::f16;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The weights of a folder, f16.
pub const WEIGHTS: &str = "prior.safetensors";
/// The version of [`Record`].
pub const SCHEMA: &str = "stitchback/picture-prior/v1";

/// What stands beside the weights: what was trained on which pictures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// [`SCHEMA`].
    pub schema: String,
    /// Its name, which is the folder's.
    pub name: String,
    /// Pixels a side.
    pub side_px: usize,
    /// Numbers in a code.
    pub latent: usize,
    /// Channels of the widest picture layer.
    pub channels: usize,
    /// The corpora it was trained on.
    pub corpora: Vec<Source>,
    /// Pictures it was trained on.
    pub pictures: usize,
    /// Steps of training.
    pub steps: usize,
    /// Pictures in a step.
    pub batch: usize,
    /// Trained parameters.
    pub parameters: usize,
    /// Seconds of training, by the clock.
    pub wall_s: f64,
    /// The command that makes this folder again.
    pub command: String,
    /// Version of the program.
    pub version: String,
    /// Loss on held-out pictures while training.
    pub curves: Vec<Curve>,
    /// Means of the codes of its pictures.
    pub centre: Vec<f32>,
    /// Their standard deviations.
    pub spread: Vec<f32>,
    /// BLAKE3 of the weight file.
    pub weights: String,
}

/// What [`train`] is to make.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Plan {
    /// Numbers in a code.
    pub latent: usize,
    /// Channels of the widest picture layer.
    pub channels: usize,
    /// Training steps.
    pub steps: usize,
    /// Pictures in a step.
    pub batch: usize,
    /// Highest learning rate.
    pub lr: f64,
}

impl Default for Plan {
    fn default() -> Self {
        Self { latent: 128, channels: 64, steps: 3000, batch: 64, lr: 2e-3 }
    }
}

/// A kept prior, read and verified.
pub struct Prior {
    record: Record,
    autoencoder: Autoencoder,
}

/// The folders that the project keeps, as compiled in: record and weights.
static FOLDERS: [(&[u8], &[u8]); 1] = [(
    include_bytes!("../../../models/attackers/picture-prior/attacker.json"),
    include_bytes!("../../../models/attackers/picture-prior/prior.safetensors"),
)];

impl Prior {
    /// What `choice` names: `auto` is the prior kept for pictures of this side, if there is one with as many channels;
    /// `none` is none; anything else is a folder that `stitchback pretrain` wrote.
    ///
    /// # Errors
    /// When a folder is missing or damaged.
    pub fn find(choice: &str, side: usize, channels: usize) -> Result<Option<Self>, Error> {
        let fits = |record: &Record| (record.side_px, record.channels) == (side, channels);
        match choice {
            "none" => Ok(None),
            "auto" => {
                for (record, weights) in &FOLDERS {
                    let record = parse("models/attackers", record)?;
                    if fits(&record) {
                        return Self::assemble("models/attackers", record, weights).map(Some);
                    }
                }
                Ok(None)
            }
            folder => {
                let record = parse(folder, &read(folder, RECORD)?)?;
                if !fits(&record) {
                    let (side_px, own) = (record.side_px, record.channels);
                    let why = format!("it draws {side_px} pixels with {own} channels, not {side} with {channels}");
                    return Err(bad(folder, &why));
                }
                Self::assemble(folder, record, &read(folder, WEIGHTS)?).map(Some)
            }
        }
    }

    fn assemble(folder: &str, record: Record, weights: &[u8]) -> Result<Self, Error> {
        if blake3::hash(weights).to_hex().as_str() != record.weights {
            return Err(bad(folder, &format!("`{WEIGHTS}` is not the file that `{RECORD}` describes")));
        }
        let file = SafeTensors::deserialize(weights).map_err(|e| bad(folder, &format!("`{WEIGHTS}`: {e}")))?;
        let mut values = Vec::with_capacity(record.parameters);
        for number in 0..file.len() {
            let tensor = file.tensor(&name(number)).map_err(|e| bad(folder, &format!("`{WEIGHTS}`: {e}")))?;
            if tensor.dtype() != Dtype::F16 {
                return Err(bad(folder, &format!("`{WEIGHTS}` holds {:?}, f16 is needed", tensor.dtype())));
            }
            let (halves, _) = tensor.data().as_chunks::<2>();
            values.extend(halves.iter().map(|v| f16::from_le_bytes(*v).to_f32()));
        }
        let layout = [record.latent, record.side_px, record.channels];
        let autoencoder = Autoencoder::of(layout, values, (record.centre.clone(), record.spread.clone()))?;
        Ok(Self { record, autoencoder })
    }

    /// One line for records and reports: which prior, trained on what.
    pub fn origin(&self) -> String {
        let corpora: Vec<&str> = self.record.corpora.iter().map(|c| c.name.as_str()).collect();
        format!("{} ({} pictures of {})", self.record.name, self.record.pictures, corpora.join(", "))
    }

    /// Whether its codes have `latent` numbers.
    pub(super) fn fits(&self, latent: usize) -> bool {
        self.record.latent == latent
    }

    pub(super) fn into_autoencoder(self) -> Autoencoder {
        self.autoencoder
    }

    /// Puts its upsampling layers into a network of the same layout behind another first matrix.
    pub(super) fn lend_stages(&self, params: &mut Params) -> Result<(), Error> {
        let mut values = Vec::with_capacity(params.len());
        let mut own = params.parts();
        values.extend(own.next().into_iter().flat_map(|(_, first)| first));
        for ((shape, values_of_prior), (wanted, _)) in self.autoencoder.stages().zip(own) {
            if shape != wanted {
                return Err(bad(&self.record.name, &format!("a layer is {shape:?}, {wanted:?} is needed")));
            }
            values.extend(values_of_prior);
        }
        Ok(params.set(values)?)
    }
}

/// Names the weights that `choice` stands for; `None` where training starts from nothing.
///
/// # Errors
/// When a folder's record cannot be read.
pub fn identity(choice: &str) -> Result<Option<String>, Error> {
    match choice {
        "none" => Ok(None),
        "auto" => {
            let hashes: Result<Vec<String>, Error> =
                FOLDERS.iter().map(|(record, _)| Ok(parse("models/attackers", record)?.weights)).collect();
            let hashes = hashes?;
            Ok((!hashes.is_empty()).then(|| hashes.join(" ")))
        }
        folder => Ok(Some(parse(folder, &read(folder, RECORD)?)?.weights)),
    }
}

/// Trains a prior on pictures of one size and writes its weights; what only the caller knows stays empty in the record.
///
/// # Errors
/// When a picture has another size, the training diverges or the folder cannot be written.
pub fn train(
    pictures: &[&Picture],
    plan: &Plan,
    seed: u64,
    folder: &Path,
    progress: &dyn Progress,
) -> Result<Record, Error> {
    let pixels = Pixels::of(pictures.iter().copied())?;
    let Plan { latent, channels, steps, batch, lr } = *plan;
    let course = Course { latent, channels, steps, batch, lr };
    let stream = |purpose: &str| seed::stream(seed, "picture prior", purpose);
    let trained = Autoencoder::train_on(&pixels, &course, None, stream, progress)?;
    let halves: Vec<(Vec<usize>, Vec<u8>)> = trained
        .params()
        .parts()
        .map(|(shape, v)| (shape.to_vec(), v.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect()))
        .collect();
    let views = halves.iter().enumerate().map(|(number, (shape, bytes))| {
        let view = TensorView::new(Dtype::F16, shape.clone(), bytes).expect("as many bytes as the shape says");
        (name(number), view)
    });
    let bytes = safetensors::serialize(views, None).map_err(|e| bad(&folder.display().to_string(), &e.to_string()))?;
    if bytes.len() > MOST_BYTES {
        let why = format!("{} MB of weights; at most {} MB are kept", bytes.len() >> 20, MOST_BYTES >> 20);
        return Err(bad(&folder.display().to_string(), &why));
    }
    keep(&folder.join(WEIGHTS), &bytes)?;
    let (centre, spread) = trained.moments();
    Ok(Record {
        schema: SCHEMA.to_owned(),
        name: String::new(),
        side_px: pixels.side(),
        latent,
        channels,
        corpora: Vec::new(),
        pictures: pixels.len(),
        steps,
        batch,
        parameters: trained.params().len(),
        wall_s: 0.0,
        command: String::new(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        curves: vec![trained.curve().clone()],
        centre: centre.to_vec(),
        spread: spread.to_vec(),
        weights: blake3::hash(&bytes).to_hex().to_string(),
    })
}

/// The name of a tensor; numbers in the order of the parameters.
fn name(number: usize) -> String {
    format!("{number:03}")
}

fn parse(folder: &str, bytes: &[u8]) -> Result<Record, Error> {
    let record: Record =
        serde_json::from_slice(bytes).map_err(|e| bad(folder, &format!("`{RECORD}` cannot be read: {e}")))?;
    if record.schema != SCHEMA {
        return Err(bad(folder, &format!("`{RECORD}` has the schema `{}`, `{SCHEMA}` is needed", record.schema)));
    }
    Ok(record)
}

fn read(folder: &str, file: &str) -> Result<Vec<u8>, Error> {
    std::fs::read(Path::new(folder).join(file)).map_err(|e| bad(folder, &format!("cannot read `{file}`: {e}")))
}

fn bad(folder: &str, why: &str) -> Error {
    Error::Pretrained { folder: folder.to_owned(), why: why.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::Quiet;
    use crate::data::{Keep, corpus};

    #[test]
    fn every_kept_prior_is_whole_light_and_says_where_it_comes_from() {
        for (record, weights) in &FOLDERS {
            let record = parse("models/attackers", record).expect("a record");
            assert!(weights.len() <= MOST_BYTES && record.curves.iter().all(|c| !c.points.is_empty()));
            assert!(record.corpora.iter().all(|c| !c.licence.is_empty() && c.records > 0));
            let prior = Prior::assemble("here", record, weights).expect("weights that fit the record");
            assert_eq!(prior.autoencoder.params().len(), prior.record.parameters);
        }
    }

    #[test]
    fn a_prior_is_read_back_lends_its_layers_and_a_damaged_one_is_refused() {
        let keep = Keep { side_px: 16, ..Keep::default() };
        let corpus = corpus::open::<crate::Error>("toy-pictures", &keep, &mut |_, _| panic!("made up"));
        let records = corpus.expect("a corpus").records;
        let pictures: Vec<&Picture> = records.iter().filter_map(|r| r.picture.as_ref()).take(64).collect();
        let folder = tempfile::tempdir().expect("a temporary folder");
        let plan = Plan { latent: 8, channels: 16, steps: 4, batch: 16, ..Plan::default() };
        let record = train(&pictures, &plan, 1, folder.path(), &Quiet).expect("trains");
        crate::attack::keep(&folder.path().join(RECORD), &serde_json::to_vec(&record).expect("JSON")).expect("written");
        let choice = folder.path().to_str().expect("a path");
        let prior = Prior::find(choice, 16, 16).expect("reads").expect("a prior");
        assert!(prior.fits(8) && !prior.fits(9));
        assert_eq!(identity(choice).expect("reads"), Some(record.weights.clone()));
        assert!(Prior::find(choice, 24, 16).is_err_and(|e| e.to_string().contains("draws 16 pixels")));

        let mut params = Params::default();
        let upward = super::super::network::Upward::new(5, 16, 16).expect("a layout");
        upward.add(&mut params, &mut seed::stream(1, "kept", "shapes"));
        let first = params.parts().next().expect("a matrix").1.to_vec();
        prior.lend_stages(&mut params).expect("one layout");
        assert_eq!(params.parts().next().expect("a matrix").1, first);
        assert!(params.parts().skip(1).zip(prior.autoencoder.stages()).all(|(a, b)| a == b));

        let path = folder.path().join(WEIGHTS);
        let mut bytes = std::fs::read(&path).expect("weights");
        *bytes.last_mut().expect("bytes") ^= 1;
        crate::attack::keep(&path, &bytes).expect("written");
        assert!(Prior::find(choice, 16, 16).is_err_and(|e| e.to_string().contains(WEIGHTS)));
    }
}
