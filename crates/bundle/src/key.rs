//! Keys: the private one signs bundles and stays with whoever is answerable for the rules; the public one is in terminals' applications, and no secret.

use std::fmt;
use std::str::FromStr;

use pem::{EncodeConfig, LineEnding, Pem};
use ring::rand::SystemRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use sha2::{Digest, Sha256};

/// What stands around a private key in PEM (RFC 7468, section 10).
const PRIVATE_KEY: &str = "PRIVATE KEY";
/// Bytes of the hash that name a key.
const ID_BYTES: usize = 8;

/// Why something is no key. What was given is not shown.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It is no public key.
    #[error("a public key is 64 hexadecimal digits, as `faultline rules keygen` prints it")]
    Public,
    /// It is no private key.
    #[error("a private key is one of Ed25519 in PKCS#8 and PEM, as `faultline rules keygen` writes it")]
    Private,
    /// The system has no random numbers.
    #[error("the system gives no random numbers")]
    Random,
}

/// Tells whether a bundle is the operator's.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// Names it in bundles.
    #[must_use]
    pub fn id(&self) -> String {
        let mut id = hex::encode(Sha256::digest(self.0));
        id.truncate(2 * ID_BYTES);
        id
    }

    pub(crate) fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0).verify(message, signature).is_ok()
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(digits: &str) -> Result<PublicKey, KeyError> {
        let mut key = [0; 32];
        hex::decode_to_slice(digits.trim(), &mut key).map_err(|_| KeyError::Public)?;
        Ok(PublicKey(key))
    }
}

/// As it is read: 64 hexadecimal digits.
impl fmt::Display for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "PublicKey({self})")
    }
}

/// Signs bundles. **Secret.**
pub struct SigningKey(Ed25519KeyPair);

impl SigningKey {
    /// A new key, as PEM.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub fn generate() -> Result<String, KeyError> {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| KeyError::Random)?;
        Ok(pem::encode_config(&Pem::new(PRIVATE_KEY, document.as_ref()), EncodeConfig::new().set_line_ending(LineEnding::LF)))
    }

    /// Reads a key: of [`SigningKey::generate`], or of other tools (`openssl genpkey -algorithm ed25519`).
    ///
    /// # Errors
    /// When it is none.
    pub fn from_pem(text: &str) -> Result<SigningKey, KeyError> {
        let pem = pem::parse(text).map_err(|_| KeyError::Private)?;
        if pem.tag() != PRIVATE_KEY {
            return Err(KeyError::Private);
        }
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(pem.contents()).map(SigningKey).map_err(|_| KeyError::Private)
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        let mut key = [0; 32];
        key.copy_from_slice(self.0.public_key().as_ref());
        PublicKey(key)
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.0.sign(message).as_ref().to_vec()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SigningKey({})", self.public().id())
    }
}
