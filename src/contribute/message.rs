//! What agents, edge and cloud say to each other: JSON texts, signed where they come from an account.

use super::Error;
use super::catalogue::hex;
use super::channel::Budget;
use crate::protect::Pipeline;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

/// Bound into every signature of an account.
const CONTEXT: &[u8] = b"sb/message/v1\n";

/// A signed message: whose, the exact text, and the signature over it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    /// The account: an Ed25519 public key in 64 hexadecimal digits.
    pub account: String,
    /// A [`Body`] as JSON.
    pub body: String,
    /// Signature over `sb/message/v1`, a line break and the body, in 128 hexadecimal digits.
    pub signature: String,
}

/// What an account can ask for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Body {
    /// Opens a basket.
    Register {
        /// Name of the edge.
        edge: String,
    },
    /// Gives protected signals.
    Contribute(Contribution),
    /// Presents an issue receipt once, so that its value counts.
    Redeem {
        /// Name of the edge.
        edge: String,
        /// The receipt in base64.
        receipt: String,
    },
    /// Sets credits aside for a request for AI capacity.
    Request {
        /// Name of the edge.
        edge: String,
        /// The current epoch.
        epoch: u64,
        /// A number of one's own, 32 hexadecimal digits.
        nonce: String,
        /// The most that it may cost, in micro-credits.
        at_most: u64,
        /// What it is about, for accounts that say so: once paid, it counts as demand for that cell.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        about: Option<About>,
    },
    /// Announces the next catalogue of a group, which holds from the next epoch on; signed by the edge's own key.
    Catalogue {
        /// Name of the edge.
        edge: String,
        /// The current epoch.
        epoch: u64,
        /// The catalogue.
        next: Box<super::Catalogue>,
    },
    /// Says what a request did cost; signed by the edge's own key.
    Settle {
        /// Name of the edge.
        edge: String,
        /// The current epoch.
        epoch: u64,
        /// A number of one's own, 32 hexadecimal digits.
        nonce: String,
        /// The request's receipt id.
        request: String,
        /// What it cost in micro-credits; 0 gives everything back.
        cost: u64,
    },
    /// Ends the epoch; signed by the edge's own key.
    Close {
        /// Name of the edge.
        edge: String,
        /// The current epoch: the message ends this one and no other.
        epoch: u64,
    },
}

/// A topic cell of a catalogue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    /// The group.
    pub group: String,
    /// Hash of the catalogue that the cell belongs to.
    pub catalogue: String,
    /// The cell, from 0.
    pub cell: u32,
}

/// What leaves a user with a contribution: nothing else ever does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contribution {
    /// Name of the edge.
    pub edge: String,
    /// The group.
    pub group: String,
    /// Hash of the catalogue that the cells belong to.
    pub catalogue: String,
    /// The current epoch.
    pub epoch: u64,
    /// A number of one's own, 32 hexadecimal digits.
    pub nonce: String,
    /// How many records stand behind it.
    pub items: u32,
    /// How it was protected.
    pub mechanism: Mechanism,
    /// Units by topic cell under discrete noise, the last one "other"; signed.
    pub cells: Vec<i64>,
    /// Protected vectors in steps of `2^-12`; may be empty.
    pub release: Vec<Vec<i16>>,
    /// Salted hash of the cells and vectors, to which the receipt is bound.
    pub commitment: String,
}

/// How a contribution was protected, as its account declares it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mechanism {
    /// Epsilon of the cells, in thousandths.
    pub epsilon_milli: u32,
    /// The pipeline behind the vectors, in its canonical text.
    pub pipeline: String,
    /// Noise on each coordinate of a vector, in millionths.
    pub sigma_ppm: u32,
    /// Records behind each vector.
    pub members: u32,
    /// Epsilon of the vectors, in thousandths; 0 without vectors or without a guarantee.
    pub release_epsilon_milli: u64,
}

impl Mechanism {
    /// What is declared for cells under `budget` and vectors of `dim` coordinates behind `pipeline`; `None` sends none.
    ///
    /// # Errors
    /// For noise whose standard deviation is not known: a row under it has no known length, and no similarity.
    pub fn of(budget: Budget, pipeline: Option<&Pipeline>, dim: usize) -> Result<Self, Error> {
        let mut out = Self {
            epsilon_milli: budget.epsilon_milli,
            pipeline: "none".to_owned(),
            sigma_ppm: 0,
            members: 1,
            release_epsilon_milli: 0,
        };
        let Some(pipeline) = pipeline else { return Ok(out) };
        let claim = pipeline.claim_at(dim);
        if pipeline.has_noise() && claim.sigma().is_none() {
            let why = "the noise of this pipeline has no known standard deviation, so that its vectors cannot be valued; \
                       take noise that has one, or send no vectors";
            return Err(Error::Input(why.to_owned()));
        }
        out.pipeline = pipeline.to_string();
        out.sigma_ppm = (claim.sigma().unwrap_or(0.0) * 1e6).round() as u32;
        out.members = pipeline.noise_at(dim).map_or(1, |n| n.members as u32);
        out.release_epsilon_milli = claim.epsilon(pipeline.delta()).map_or(0, |e| (e * 1000.0).ceil() as u64);
        Ok(out)
    }

    /// Declared noise on each coordinate of a vector.
    pub fn sigma(&self) -> f64 {
        f64::from(self.sigma_ppm) * 1e-6
    }
}

impl Contribution {
    /// The bytes that a commitment and a replay check are about: cells and vectors.
    pub fn content(&self) -> Vec<u8> {
        serde_json::to_vec(&(&self.cells, &self.release)).expect("numbers")
    }
}

impl Envelope {
    /// Signs a body.
    pub fn seal(body: &Body, key: &SigningKey) -> Self {
        let body = serde_json::to_string(body).expect("numbers and text");
        let signature = key.sign(&[CONTEXT, body.as_bytes()].concat());
        Self { account: hex(key.verifying_key().as_bytes()), body, signature: hex(&signature.to_bytes()) }
    }

    /// The account and what it asks for, once the signature holds.
    ///
    /// # Errors
    /// When a part is malformed or the signature does not hold.
    pub fn open(&self) -> Result<([u8; 32], Body), Error> {
        let wrong = |why: &str| Error::Input(format!("the message is refused: {why}"));
        let account: [u8; 32] = unhex(&self.account).ok_or_else(|| wrong("`account` is not 64 hexadecimal digits"))?;
        let signature: [u8; 64] =
            unhex(&self.signature).ok_or_else(|| wrong("`signature` is not 128 hexadecimal digits"))?;
        let key = VerifyingKey::from_bytes(&account).ok().filter(|k| !k.is_weak());
        let key = key.ok_or_else(|| wrong("`account` is not an Ed25519 key"))?;
        key.verify_strict(&[CONTEXT, self.body.as_bytes()].concat(), &Signature::from_bytes(&signature))
            .map_err(|_| wrong("its signature does not hold"))?;
        // What was sent is never repeated in an error: only where it went wrong.
        let body = serde_json::from_str(&self.body)
            .map_err(|e| wrong(&format!("`body` is malformed at column {}", e.column())))?;
        Ok((account, body))
    }
}

/// Bytes from exactly twice as many lower-case hexadecimal digits.
pub fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let digit = |d: u8| match d {
        b'0'..=b'9' => Some(d - b'0'),
        b'a'..=b'f' => Some(d - b'a' + 10),
        _ => None,
    };
    let mut out = [0; N];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_opens_to_what_was_signed_and_any_change_is_refused() {
        let key = SigningKey::from_bytes(&[3; 32]);
        let body = Body::Register { edge: "edge.test".to_owned() };
        let envelope = Envelope::seal(&body, &key);
        assert_eq!(envelope.open().expect("our own"), (key.verifying_key().to_bytes(), body));
        let mut other = envelope.clone();
        other.body = other.body.replace("edge.test", "edge.best");
        assert!(other.open().expect_err("changed").to_string().contains("signature does not hold"));
        let mut broken = envelope;
        broken.account.make_ascii_uppercase();
        broken.account.replace_range(0..1, "G");
        assert!(broken.open().is_err());
        assert_eq!(unhex::<2>("0aff"), Some([10, 255]));
        assert_eq!((unhex::<2>("0aFF"), unhex::<2>("0a"), unhex::<1>("+1")), (None, None, None));
    }
}
