//! The Data Anchoring Token: a signed receipt that says what a contribution was worth and holds nothing of it.
//!
//! A receipt is a CBOR Web Token (tag 61) around `COSE_Sign1` (tag 18), Ed25519, deterministic CBOR. Whoever has the edge's
//! public key can check it offline.

use super::catalogue::hex;
use super::value::Value;
use ciborium::Value as Cbor;
use coset::{CborSerializable, CoseSign1, CoseSign1Builder, HeaderBuilder, TaggedCborSerializable, iana};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Bound into every signature, so that no other token of the same key can pass for a receipt.
const CONTEXT: &[u8] = b"sb/receipt/v1";
/// Tag 61 (CWT); the COSE tag follows.
const CWT: [u8; 2] = [0xd8, 0x3d];
/// Version of the private claims.
const VERSION: i64 = 1;
/// No receipt is longer; a longer one is refused unread.
const LONGEST: usize = 1024;

/// 32 bytes of SHA-256.
pub type Hash = [u8; 32];

/// What a receipt records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A contribution was accepted; its value follows at the end of the epoch.
    Contribution = 1,
    /// A contribution was valued; the receipt can be redeemed once.
    Issue = 2,
    /// Credits arrived that had overflowed elsewhere.
    Spill = 3,
    /// Credits were set aside for a request.
    Hold = 4,
    /// A request was served and paid.
    Settle = 5,
    /// A hold was given back.
    Void = 6,
    /// Credits were destroyed.
    Burn = 7,
    /// An issue receipt was redeemed.
    Redeem = 8,
    /// An epoch was closed.
    Epoch = 9,
    /// A new topic catalogue was announced; it holds from the next epoch on.
    Catalogue = 10,
}

impl Kind {
    const ALL: [Self; 10] = [
        Self::Contribution,
        Self::Issue,
        Self::Spill,
        Self::Hold,
        Self::Settle,
        Self::Void,
        Self::Burn,
        Self::Redeem,
        Self::Epoch,
        Self::Catalogue,
    ];
}

/// The claims of a receipt: integers, hashes and short names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The edge that issued it.
    pub issuer: String,
    /// Pseudonym of the account in this group: [`pseudonym`].
    pub subject: String,
    /// Who may redeem it: the edge's own name, receipts are not transferable.
    pub audience: String,
    /// Seconds since 1970 after which it cannot be redeemed.
    pub expires_s: u64,
    /// Seconds since 1970 at which it was issued.
    pub issued_s: u64,
    /// Its own name, unique.
    pub id: [u8; 16],
    /// What it records.
    pub kind: Kind,
    /// The group.
    pub group: String,
    /// The epoch.
    pub epoch: u64,
    /// Hash of the topic catalogue that was used.
    pub catalogue: Hash,
    /// Hash of the policy: engine, parameters, emission.
    pub policy: Hash,
    /// Digest of the protection that the account declared.
    pub mechanism: Hash,
    /// [`commitment`] to what was sent.
    pub commitment: Hash,
    /// Value in ticks (contribution, issue) or micro-credits (all others).
    pub value: i64,
    /// Volume in ticks, novelty and freshness in millionths, and 1 where they could be estimated.
    pub parts: [i64; 4],
    /// Privacy budget that the account has spent in this group, in thousandths of an epsilon.
    pub budget_milli: u64,
    /// Hash of the account's previous receipt in this group; zeros for the first.
    pub previous: Hash,
    /// Number that the account chose.
    pub nonce: [u8; 16],
}

/// Why a receipt is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not a receipt at all, or not in its one canonical form.
    #[error("it is not a receipt in canonical form: {0}")]
    Form(&'static str),
    /// Signed by a key that is not trusted.
    #[error("it is signed by key {0}, which is not trusted here")]
    Key(String),
    /// The signature does not belong to the text.
    #[error("its signature does not hold")]
    Signature,
    /// Meant for somebody else, or of another edge.
    #[error("it names {0}")]
    Party(String),
    /// Too late.
    #[error("it expired {0} s ago")]
    Expired(u64),
}

/// A name and a secret key that sign receipts and checkpoints.
pub struct EdgeKey {
    name: String,
    secret: SigningKey,
}

impl std::fmt::Debug for EdgeKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EdgeKey({})", self.name)
    }
}

impl EdgeKey {
    /// A key from its 32 secret bytes.
    ///
    /// # Errors
    /// When the name holds a space, a plus sign or a line break, or is empty or longer than 64 bytes.
    pub fn new(name: &str, secret: &[u8; 32]) -> Result<Self, super::Error> {
        check_name(name)?;
        Ok(Self { name: name.to_owned(), secret: SigningKey::from_bytes(secret) })
    }

    /// What others check it with.
    pub fn public(&self) -> EdgePublic {
        EdgePublic { name: self.name.clone(), key: self.secret.verifying_key() }
    }

    /// The edge's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The same key as one that signs messages: the edge speaks to itself as an operator.
    pub fn operator(&self) -> &SigningKey {
        &self.secret
    }

    /// A plain signature.
    pub fn sign(&self, bytes: &[u8]) -> [u8; 64] {
        self.secret.sign(bytes).to_bytes()
    }

    /// The signed token of a receipt. The same receipt gives the same bytes.
    pub fn seal(&self, receipt: &Receipt) -> Vec<u8> {
        let token = CoseSign1Builder::new()
            .protected(header(self.public().id()))
            .payload(receipt.payload())
            .create_signature(CONTEXT, |bytes| self.sign(bytes).to_vec())
            .build();
        let mut out = CWT.to_vec();
        out.extend(token.to_tagged_vec().expect("a token is maps, bytes and numbers"));
        out
    }
}

fn check_name(name: &str) -> Result<(), super::Error> {
    let good = (1..=64).contains(&name.len()) && name.chars().all(|c| c.is_ascii_graphic() && c != '+');
    if good {
        return Ok(());
    }
    let why = format!("must be 1 to 64 visible ASCII characters without `+`, got `{name}`");
    Err(super::Error::Config { key: "name", why })
}

fn header(key_id: [u8; 4]) -> coset::Header {
    HeaderBuilder::new().algorithm(iana::Algorithm::EdDSA).key_id(key_id.to_vec()).build()
}

/// The public side of an [`EdgeKey`], printed as `name+keyid+base64` (C2SP signed-note).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EdgePublic {
    name: String,
    key: VerifyingKey,
}

impl EdgePublic {
    /// The edge's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `SHA-256(name | 0x0a | 0x01 | key)[..4]`.
    pub fn id(&self) -> [u8; 4] {
        let mut hasher = Sha256::new();
        hasher.update(self.name.as_bytes());
        hasher.update([0x0a, 0x01]);
        hasher.update(self.key.as_bytes());
        let hash: Hash = hasher.finalize().into();
        hash[..4].try_into().expect("4 of 32")
    }

    /// The 32 bytes of the key.
    pub fn bytes(&self) -> &[u8; 32] {
        self.key.as_bytes()
    }

    /// Whether `signature` is this key's over `bytes`.
    pub fn holds(&self, bytes: &[u8], signature: &[u8]) -> bool {
        Signature::from_slice(signature).is_ok_and(|s| self.key.verify_strict(bytes, &s).is_ok())
    }

    /// Opens a sealed receipt.
    ///
    /// # Errors
    /// When it is not in its one canonical form, of another key, changed, or of another issuer or audience.
    pub fn open(&self, token: &[u8]) -> Result<Receipt, Refusal> {
        if token.len() > LONGEST {
            return Err(Refusal::Form("too long"));
        }
        let cose = token.strip_prefix(&CWT).ok_or(Refusal::Form("no CWT tag"))?;
        let sealed = CoseSign1::from_tagged_slice(cose).map_err(|_| Refusal::Form("no COSE_Sign1"))?;
        let again = sealed.clone().to_tagged_vec().map_err(|_| Refusal::Form("no COSE_Sign1"))?;
        if again != cose {
            return Err(Refusal::Form("not in deterministic encoding"));
        }
        let id = self.id();
        let expected = header(id);
        let written = sealed.protected.original_data.as_deref().unwrap_or_default();
        if sealed.protected.header.alg != expected.alg {
            return Err(Refusal::Form("the algorithm is not EdDSA"));
        }
        if sealed.protected.header.key_id != id {
            return Err(Refusal::Key(hex(&sealed.protected.header.key_id)));
        }
        if written != expected.to_vec().expect("a header is a map") || !sealed.unprotected.is_empty() {
            return Err(Refusal::Form("its headers hold more than algorithm and key"));
        }
        sealed
            .verify_signature(CONTEXT, |signature, bytes| if self.holds(bytes, signature) { Ok(()) } else { Err(()) })
            .map_err(|()| Refusal::Signature)?;
        let receipt = Receipt::from_payload(sealed.payload.as_deref().unwrap_or_default())?;
        if receipt.issuer != self.name || receipt.audience != self.name {
            return Err(Refusal::Party(format!("issuer {} and audience {}", receipt.issuer, receipt.audience)));
        }
        Ok(receipt)
    }
}

impl std::fmt::Display for EdgePublic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        use base64::Engine as _;
        let mut bytes = vec![0x01];
        bytes.extend(self.key.as_bytes());
        write!(f, "{}+{}+{}", self.name, hex(&self.id()), base64::engine::general_purpose::STANDARD.encode(bytes))
    }
}

impl std::str::FromStr for EdgePublic {
    type Err = super::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        use base64::Engine as _;
        let wrong = |why: &str| super::Error::Input(format!("`{}` is no public key of an edge: {why}", text.trim()));
        let mut parts = text.trim().splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(wrong("it must read name+keyid+base64"));
        };
        check_name(name)?;
        let bytes = base64::engine::general_purpose::STANDARD.decode(key).map_err(|_| wrong("its base64 is broken"))?;
        let [0x01, raw @ ..] = bytes.as_slice() else { return Err(wrong("it is not an Ed25519 key")) };
        let raw: &[u8; 32] = raw.try_into().map_err(|_| wrong("an Ed25519 key has 32 bytes"))?;
        let key = VerifyingKey::from_bytes(raw).map_err(|_| wrong("it is not a point of the curve"))?;
        if key.is_weak() {
            return Err(wrong("it is a weak key, under which anything verifies"));
        }
        let public = Self { name: name.to_owned(), key };
        if hex(&public.id()) == id { Ok(public) } else { Err(wrong("its key id does not belong to it")) }
    }
}

/// What binds a receipt to the bytes that were sent: `SHA-256("sb/emb/v1" | salt | bytes)`.
pub fn commitment(salt: &[u8; 32], bytes: &[u8]) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update(b"sb/emb/v1");
    hasher.update(salt);
    hasher.update(bytes);
    hasher.finalize().into()
}

/// The account's name in one group: receipts of two groups cannot be linked by it.
pub fn pseudonym(account: &[u8; 32], group: &str) -> String {
    let mut hasher = Sha256::new();
    hasher.update(b"sb/subject/v1");
    hasher.update(account);
    hasher.update(group.as_bytes());
    let hash: Hash = hasher.finalize().into();
    hex(&hash[..16])
}

/// What is remembered of a redeemed receipt: `SHA-256("redeem" | SHA-256(token))`.
pub fn nullifier(token: &[u8]) -> Hash {
    let inner: Hash = Sha256::digest(token).into();
    let mut hasher = Sha256::new();
    hasher.update(b"redeem");
    hasher.update(inner);
    hasher.finalize().into()
}

fn number(n: impl Into<ciborium::value::Integer>) -> Cbor {
    Cbor::Integer(n.into())
}

impl Receipt {
    /// Refuses a receipt whose time is over at `now_s`.
    ///
    /// # Errors
    /// [`Refusal::Expired`].
    pub fn check_time(&self, now_s: u64) -> Result<(), Refusal> {
        if now_s > self.expires_s { Err(Refusal::Expired(now_s - self.expires_s)) } else { Ok(()) }
    }

    /// The value of a contribution or issue receipt with its parts.
    pub fn worth(&self) -> Value {
        let [volume, novelty_ppm, freshness_ppm, estimable] = self.parts;
        Value { ticks: self.value, volume, novelty_ppm, freshness_ppm, estimable: estimable == 1 }
    }

    /// Deterministic CBOR: keys in bytewise order of their encoding, shortest integers.
    pub(super) fn payload(&self) -> Vec<u8> {
        let bytes = |b: &[u8]| Cbor::Bytes(b.to_vec());
        let entries = vec![
            (number(1), Cbor::Text(self.issuer.clone())),
            (number(2), Cbor::Text(self.subject.clone())),
            (number(3), Cbor::Text(self.audience.clone())),
            (number(4), number(self.expires_s)),
            (number(6), number(self.issued_s)),
            (number(7), bytes(&self.id)),
            (number(-70001), number(VERSION)),
            (number(-70002), number(self.kind as i64)),
            (number(-70003), Cbor::Text(self.group.clone())),
            (number(-70004), number(self.epoch)),
            (number(-70005), bytes(&self.catalogue)),
            (number(-70006), bytes(&self.policy)),
            (number(-70007), bytes(&self.mechanism)),
            (number(-70008), bytes(&self.commitment)),
            (number(-70009), number(self.value)),
            (number(-70010), Cbor::Array(self.parts.iter().map(|&p| number(p)).collect())),
            (number(-70011), number(self.budget_milli)),
            (number(-70012), bytes(&self.previous)),
            (number(-70013), bytes(&self.nonce)),
        ];
        let mut out = Vec::new();
        ciborium::into_writer(&Cbor::Map(entries), &mut out).expect("writing to memory does not fail");
        out
    }

    fn from_payload(payload: &[u8]) -> Result<Self, Refusal> {
        let value: Cbor = ciborium::from_reader(payload).map_err(|_| Refusal::Form("its claims are not CBOR"))?;
        let Cbor::Map(entries) = value else { return Err(Refusal::Form("its claims are not a map")) };
        let receipt = Self::from_entries(&entries).ok_or(Refusal::Form("a claim is missing or of the wrong kind"))?;
        // One more rule makes the form unique: what we would write is what was written.
        if receipt.payload() == payload { Ok(receipt) } else { Err(Refusal::Form("its claims are not canonical")) }
    }

    fn from_entries(entries: &[(Cbor, Cbor)]) -> Option<Self> {
        let find = |key: i64| entries.iter().find(|(k, _)| *k == number(key)).map(|(_, v)| v);
        let text = |key| Some(find(key)?.as_text()?.to_owned());
        let signed = |v: &Cbor| v.as_integer().and_then(|n| i64::try_from(n).ok());
        let unsigned = |key| u64::try_from(find(key)?.as_integer()?).ok();
        let hash = |key| find(key)?.as_bytes()?.as_slice().try_into().ok();
        let short = |key| find(key)?.as_bytes()?.as_slice().try_into().ok();
        if signed(find(-70001)?)? != VERSION {
            return None;
        }
        let kind = signed(find(-70002)?)?;
        Some(Self {
            issuer: text(1)?,
            subject: text(2)?,
            audience: text(3)?,
            expires_s: unsigned(4)?,
            issued_s: unsigned(6)?,
            id: short(7)?,
            kind: *Kind::ALL.iter().find(|k| **k as i64 == kind)?,
            group: text(-70003)?,
            epoch: unsigned(-70004)?,
            catalogue: hash(-70005)?,
            policy: hash(-70006)?,
            mechanism: hash(-70007)?,
            commitment: hash(-70008)?,
            value: signed(find(-70009)?)?,
            parts: find(-70010)?.as_array()?.iter().map(signed).collect::<Option<Vec<_>>>()?.try_into().ok()?,
            budget_milli: unsigned(-70011)?,
            previous: hash(-70012)?,
            nonce: short(-70013)?,
        })
    }
}

/// The claims behind a signature that holds, for `fuzz/`.
#[cfg(fuzzing)]
pub fn claims(payload: &[u8]) -> Result<Receipt, Refusal> {
    Receipt::from_payload(payload)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn key() -> EdgeKey {
        EdgeKey::new("edge.test", &[7; 32]).expect("a plain name")
    }

    pub(crate) fn receipt() -> Receipt {
        Receipt {
            issuer: "edge.test".to_owned(),
            subject: pseudonym(&[1; 32], "pets"),
            audience: "edge.test".to_owned(),
            expires_s: 2_000_000_000,
            issued_s: 1_900_000_000,
            id: [3; 16],
            kind: Kind::Issue,
            group: "pets".to_owned(),
            epoch: 12,
            catalogue: [4; 32],
            policy: [5; 32],
            mechanism: [6; 32],
            commitment: commitment(&[0; 32], &[0, 1]),
            value: -123_456_789_012,
            parts: [987_654_321, 509_643, 1_000_000, 1],
            budget_milli: 1000,
            previous: [0; 32],
            nonce: [9; 16],
        }
    }

    #[test]
    fn a_sealed_receipt_opens_to_itself_and_looks_as_specified() {
        let token = key().seal(&receipt());
        assert_eq!(token[..3], [0xd8, 0x3d, 0xd2]);
        // Key -70001 is 3a 00 01 11 70.
        assert!(token.windows(5).any(|w| w == [0x3a, 0x00, 0x01, 0x11, 0x70]));
        assert_eq!(key().public().open(&token), Ok(receipt()));
        assert_eq!(key().seal(&receipt()), token, "signatures are deterministic");
        assert!(token.len() < 512, "{} bytes", token.len());
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        let (token, public) = (key().seal(&receipt()), key().public());
        for at in 0..token.len() * 8 {
            let mut forged = token.clone();
            forged[at / 8] ^= 1 << (at % 8);
            assert!(public.open(&forged).is_err(), "bit {at}");
        }
        for end in 0..token.len() {
            assert!(public.open(&token[..end]).is_err(), "cut at {end}");
        }
        let mut longer = token;
        longer.push(0);
        assert!(public.open(&longer).is_err());
    }

    /// A token signed by the right key over a payload or header that we would never write.
    fn sealed(payload: Vec<u8>, protected: coset::Header) -> Vec<u8> {
        let token = CoseSign1Builder::new()
            .protected(protected)
            .payload(payload)
            .create_signature(CONTEXT, |bytes| key().sign(bytes).to_vec())
            .build();
        [CWT.to_vec(), token.to_tagged_vec().expect("plain")].concat()
    }

    #[test]
    fn odd_forms_are_refused_even_when_signed() {
        let public = key().public();
        let good = || header(public.id());
        let payload = receipt().payload();
        assert!(public.open(&sealed(payload.clone(), good())).is_ok());
        let form = |token: &[u8]| matches!(public.open(token), Err(Refusal::Form(_)));
        // Another algorithm, a header more, a key of somebody else.
        let es256 = HeaderBuilder::new().algorithm(iana::Algorithm::ES256).key_id(public.id().to_vec()).build();
        assert!(form(&sealed(payload.clone(), es256)));
        let more = HeaderBuilder::new()
            .algorithm(iana::Algorithm::EdDSA)
            .key_id(public.id().to_vec())
            .content_type("text/plain".to_owned())
            .build();
        assert!(form(&sealed(payload.clone(), more)));
        assert_eq!(public.open(&sealed(payload.clone(), header([0; 4]))), Err(Refusal::Key("00000000".to_owned())));
        // Keys out of order, a key twice, an integer in a longer form.
        let Cbor::Map(entries) = ciborium::from_reader(payload.as_slice()).expect("our own") else { panic!("a map") };
        let written = |entries: Vec<(Cbor, Cbor)>| {
            let mut out = Vec::new();
            ciborium::into_writer(&Cbor::Map(entries), &mut out).expect("memory");
            out
        };
        let mut turned = entries.clone();
        turned.reverse();
        assert!(form(&sealed(written(turned), good())));
        let mut twice = entries.clone();
        twice.push(entries[0].clone());
        assert!(form(&sealed(written(twice), good())));
        // 06 1a.. is a 4-byte number; the same as an 8-byte one.
        let at = payload.windows(2).position(|w| w == [0x06, 0x1a]).expect("key 6");
        let mut wide = payload[..=at].to_vec();
        wide.extend([0x1b, 0, 0, 0, 0]);
        wide.extend(&payload[at + 2..]);
        assert!(form(&sealed(wide, good())));
        let mut other = receipt();
        other.issuer = "edge.other".to_owned();
        assert!(matches!(public.open(&sealed(other.payload(), good())), Err(Refusal::Party(_))));
    }

    #[test]
    fn public_keys_print_and_parse_and_weak_ones_are_refused() {
        let public = key().public();
        assert_eq!(public.to_string().parse::<EdgePublic>().expect("its own text"), public);
        let wrong = |text: &str| text.parse::<EdgePublic>().expect_err("refused").to_string();
        assert!(wrong("edge+00000000").contains("name+keyid+base64"));
        assert!(wrong(&public.to_string().replace("edge.test", "edge.best")).contains("key id"));
        // The neutral element: verifies anything under lax rules.
        let mut neutral = vec![1_u8, 1];
        neutral.extend([0; 31]);
        let encoded = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, neutral);
        assert!(wrong(&format!("edge+00000000+{encoded}")).contains("weak"));
        assert!(EdgeKey::new("two words", &[1; 32]).is_err());
    }

    #[test]
    fn commitments_have_their_golden_value_and_open_to_one_text_only() {
        let c = commitment(&[0; 32], &[0, 1]);
        assert_eq!(hex(&c), "176315957ee730e787d7cee90a3368724295884e2c41e27a10271796ff4c18f5");
        assert_ne!(c, commitment(&[1; 32], &[0, 1]));
        assert_ne!(c, commitment(&[0; 32], &[0, 2]));
        assert_ne!(pseudonym(&[1; 32], "pets"), pseudonym(&[1; 32], "traffic"));
    }

    #[test]
    fn time_runs_out() {
        assert_eq!(receipt().check_time(2_000_000_000), Ok(()));
        assert_eq!(receipt().check_time(2_000_000_005), Err(Refusal::Expired(5)));
    }
}
