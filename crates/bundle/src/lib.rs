//! Rules as they get to terminals: rule sets in one message, with a signature. Whoever has the public key can tell whether they are the operator's, by whatever
//! way they came, so neither gateways nor networks need be trusted with them.
//!
//! ```text
//! rule sets ─▶ compressed ─▶ with the time of issue ─▶ signed ─▶ file ─▶ gateway ─▶ terminal ─▶ key? ─▶ signature? ─▶ newer? ─▶ rules
//! ```
//!
//! A bundle has all sets, those that came with the program that packed it included: the verdict of a terminal does not depend on which version of its library it has.

mod key;
#[cfg(test)]
mod tests;

use std::io::{Read, Write};

use bytes::Bytes;
use faultline_proto::terminal::v1::{RuleBundle, RuleBundleContents, RuleFile, RuleFiles};
use faultline_verdict::{Rules, RulesError};
use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use prost::Message;
use prost_types::Timestamp;

pub use crate::key::{KeyError, PublicKey, SigningKey};

/// Most bytes of an encoded bundle, of what is signed of it, and of its rule sets when they are decompressed.
pub const MAX_BYTES: usize = 132 * 1024;
const MAX_CONTENTS_BYTES: usize = 128 * 1024;
const MAX_FILES_BYTES: usize = 1024 * 1024;
/// Most files of each kind, and most bytes of what one is called.
const MAX_BASE: usize = 64;
const MAX_OWN: usize = 256;
const MAX_NAME_BYTES: usize = 256;
/// The last second of the year 9999.
const MAX_ISSUE_S: i64 = 253_402_300_799;
/// What stands before the contents where they are signed, so that the signature is none of anything else.
const SIGNED_AS: &[u8] = b"faultline.terminal.v1.RuleBundle\0";

/// Why something is no bundle, or not one to be believed.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// Its bytes are none.
    #[error("it is no bundle of rules: {0}")]
    Malformed(String),
    /// Something in it is larger than it may be.
    #[error("{what} has {bytes} bytes, at most {limit} are taken")]
    TooLarge {
        /// What.
        what: &'static str,
        /// Its bytes; one more than the limit where nobody counted on.
        bytes: usize,
        /// How many it may have.
        limit: usize,
    },
    /// It was signed with a key that is none of those that are known.
    #[error("it is signed with key {key_id}, which is not known here")]
    UnknownKey {
        /// The key.
        key_id: String,
    },
    /// The signature is not that of these contents.
    #[error("its signature is wrong: it is not what was signed with key {key_id}")]
    Signature {
        /// The key.
        key_id: String,
    },
    /// It is older than another, or as old and not the same.
    #[error("it was issued {issued}, and what is in force {in_force}: it has to be newer")]
    NotNewer {
        /// When it was issued.
        issued: Timestamp,
        /// When the other was.
        in_force: Timestamp,
    },
    /// What is in it is no rules for this program.
    #[error("its rules cannot be used: {0}")]
    Rules(#[from] RulesError),
}

/// A bundle with a right signature.
#[derive(Clone, Debug, PartialEq)]
pub struct Bundle {
    message: RuleBundle,
    issue_s: i64,
    files: Bytes,
}

impl Bundle {
    /// Packs the rules that come with the program, and those of files, each as what to call it and its text.
    ///
    /// # Errors
    /// When they are no rules, or too large.
    pub fn pack<T: AsRef<str>>(own: &[(T, T)], issue_s: i64, key: &SigningKey) -> Result<Bundle, BundleError> {
        let file = |name: &str, text: &str| RuleFile { name: name.into(), text: text.into() };
        let files = RuleFiles {
            base: Rules::built_in_files().map(|(name, text)| file(name, text)).collect(),
            own: own.iter().map(|(name, text)| file(name.as_ref(), text.as_ref())).collect(),
        };
        let bundle = Bundle::sign(&contents(&files.encode_to_vec(), issue_s)?, key)?;
        bundle.rules()?;
        Ok(bundle)
    }

    fn sign(contents: &RuleBundleContents, key: &SigningKey) -> Result<Bundle, BundleError> {
        let contents = Bytes::from(contents.encode_to_vec());
        let signature = Bytes::copy_from_slice(&key.sign(&signed(&contents)));
        let public = key.public();
        Bundle::open(RuleBundle { contents, key_id: public.id(), signature }, &[public])
    }

    /// Reads an encoded bundle, and checks that one of these keys has signed it.
    ///
    /// # Errors
    /// When it is none, or its signature is not one of theirs.
    pub fn decode(bytes: &[u8], keys: &[PublicKey]) -> Result<Bundle, BundleError> {
        within("the bundle", bytes.len(), MAX_BYTES)?;
        Bundle::open(RuleBundle::decode(bytes).map_err(malformed)?, keys)
    }

    /// Checks that one of these keys has signed a bundle.
    ///
    /// # Errors
    /// When none has, or it is not one.
    pub fn open(message: RuleBundle, keys: &[PublicKey]) -> Result<Bundle, BundleError> {
        within("what is signed", message.contents.len(), MAX_CONTENTS_BYTES)?;
        if message.key_id.len() != 16 || !message.key_id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(BundleError::Malformed("it does not name its key".into()));
        }
        let key_id = || message.key_id.clone();
        let key = keys.iter().find(|key| key.id() == message.key_id).ok_or_else(|| BundleError::UnknownKey { key_id: key_id() })?;
        if !key.has_signed(&signed(&message.contents), &message.signature) {
            return Err(BundleError::Signature { key_id: key_id() });
        }
        let contents = RuleBundleContents::decode(message.contents.clone()).map_err(malformed)?;
        let issue_s = match contents.issue_time {
            Some(Timestamp { seconds, nanos: 0 }) if (0..=MAX_ISSUE_S).contains(&seconds) => seconds,
            _ => return Err(BundleError::Malformed("it does not say when it was issued".into())),
        };
        Ok(Bundle { message, issue_s, files: contents.files })
    }

    /// The rules in it.
    ///
    /// # Errors
    /// When this program cannot read them, or they are too large.
    pub fn rules(&self) -> Result<Rules, BundleError> {
        let mut files = Vec::new();
        let most = u64::try_from(MAX_FILES_BYTES).unwrap_or(u64::MAX);
        ZlibDecoder::new(&*self.files)
            .take(most + 1)
            .read_to_end(&mut files)
            .map_err(|error| BundleError::Malformed(format!("what is compressed in it cannot be read: {error}")))?;
        within("what is compressed in it", files.len(), MAX_FILES_BYTES)?;
        let RuleFiles { base, own } = RuleFiles::decode(files.as_slice()).map_err(malformed)?;
        if base.is_empty() || base.len() > MAX_BASE || own.len() > MAX_OWN {
            let reason = format!("it has {} and {} files, and is to have 1 to {MAX_BASE} and at most {MAX_OWN}", base.len(), own.len());
            return Err(BundleError::Malformed(reason));
        }
        if let Some(file) = base.iter().chain(&own).find(|file| !(1..=MAX_NAME_BYTES).contains(&file.name.len())) {
            return Err(BundleError::Malformed(format!("a name of a file in it has {} bytes", file.name.len())));
        }
        let texts = |files: Vec<RuleFile>| files.into_iter().map(|file| (file.name, file.text)).collect::<Vec<_>>();
        Ok(Rules::over(&texts(base), &texts(own))?)
    }

    /// Whether it is to take the place of another: false where it is the same.
    ///
    /// # Errors
    /// When it is older, or as old and not the same.
    pub fn succeeds(&self, other: &Bundle) -> Result<bool, BundleError> {
        if self.message.contents == other.message.contents {
            return Ok(false);
        }
        if self.issue_s > other.issue_s {
            return Ok(true);
        }
        Err(BundleError::NotNewer { issued: self.issue_time(), in_force: other.issue_time() })
    }

    /// When it was packed, UTC.
    #[must_use]
    pub fn issue_time(&self) -> Timestamp {
        Timestamp { seconds: self.issue_s, nanos: 0 }
    }

    /// What terminals are sent.
    #[must_use]
    pub fn message(&self) -> &RuleBundle {
        &self.message
    }
}

fn contents(files: &[u8], issue_s: i64) -> Result<RuleBundleContents, BundleError> {
    within("what is to be packed", files.len(), MAX_FILES_BYTES)?;
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    let compressed = encoder.write_all(files).and_then(|()| encoder.finish()).map_err(|error| BundleError::Malformed(error.to_string()))?;
    Ok(RuleBundleContents { issue_time: Some(Timestamp { seconds: issue_s, nanos: 0 }), files: compressed.into() })
}

fn signed(contents: &[u8]) -> Vec<u8> {
    [SIGNED_AS, contents].concat()
}

fn within(what: &'static str, bytes: usize, limit: usize) -> Result<(), BundleError> {
    if bytes <= limit { Ok(()) } else { Err(BundleError::TooLarge { what, bytes, limit }) }
}

fn malformed(error: prost::DecodeError) -> BundleError {
    BundleError::Malformed(error.to_string())
}
