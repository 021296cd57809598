use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};

use crate::merkle::sha256;

/// The signature type in key ids and encoded keys: Ed25519.
const TYPE: u8 = 1;

/// The key name in a signature line: not empty, without spaces, control characters and `+`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyName(String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    #[error("{0:?} is not a key's name: no spaces, no control characters, no '+'")]
    Name(String),
    #[error("this is not a verifier key: <name>+<key id, 8 hexadecimal digits>+<base64>")]
    Verifier,
    #[error("the key id does not belong to the name and the key")]
    Id,
    #[error("the key does not speak for {0:?}")]
    Elsewhere(String),
}

impl KeyName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for KeyName {
    type Err = InvalidKey;
    fn from_str(name: &str) -> Result<Self, InvalidKey> {
        if name.is_empty() || name.chars().any(|c| c == '+' || c.is_whitespace() || c.is_control()) {
            return Err(InvalidKey::Name(name.chars().take(120).collect()));
        }
        Ok(Self(name.to_owned()))
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The private key of an environment. A signature on a checkpoint or a root list has the origin of that log or list as its key name.
pub struct SigningKey(Ed25519KeyPair);

impl SigningKey {
    /// From the 32 secret bytes of RFC 8032.
    pub fn from_seed(seed: &[u8; 32]) -> Result<Self, InvalidKey> {
        Ed25519KeyPair::from_seed_unchecked(seed).map(Self).map_err(|_| InvalidKey::Verifier)
    }

    /// The public key, which auditors get.
    pub fn verifier(&self, name: KeyName) -> VerifierKey {
        let mut public = [0; 32];
        public.iter_mut().zip(self.0.public_key().as_ref()).for_each(|(to, from)| *to = *from);
        VerifierKey { name, public }
    }

    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        let mut signature = [0; 64];
        signature.iter_mut().zip(self.0.sign(message).as_ref()).for_each(|(to, from)| *to = *from);
        signature
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").finish_non_exhaustive()
    }
}

/// A public key and the name under which it signs. Its text is `<name>+<key id>+<base64>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: KeyName,
    public: [u8; 32],
}

impl VerifierKey {
    pub fn name(&self) -> &KeyName {
        &self.name
    }

    /// The first four bytes of SHA-256(name, newline, type, key).
    pub fn id(&self) -> [u8; 4] {
        let hash = sha256(&[self.name.0.as_bytes(), b"\n", &[TYPE], &self.public].concat());
        hash.as_bytes().first_chunk().copied().unwrap_or_default()
    }

    /// The same key under the name `origin`, which has to be the key's own name or a path below it: an environment's key signs for these.
    pub fn for_origin(&self, origin: &str) -> Result<Self, InvalidKey> {
        let below = origin.strip_prefix(self.name.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        if !below {
            return Err(InvalidKey::Elsewhere(origin.chars().take(120).collect()));
        }
        Ok(Self { name: origin.parse()?, public: self.public })
    }

    pub(crate) fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.public).verify(message, signature).is_ok()
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let typed = [&[TYPE], self.public.as_slice()].concat();
        write!(f, "{}+{}+{}", self.name, hex::encode(self.id()), STANDARD.encode(typed))
    }
}

impl FromStr for VerifierKey {
    type Err = InvalidKey;
    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        let (name, rest) = text.split_once('+').ok_or(InvalidKey::Verifier)?;
        let (id, key) = rest.split_once('+').ok_or(InvalidKey::Verifier)?;
        let typed = STANDARD.decode(key).map_err(|_| InvalidKey::Verifier)?;
        let public = typed.strip_prefix(&[TYPE]).and_then(|key| key.try_into().ok()).ok_or(InvalidKey::Verifier)?;
        let key = Self { name: name.parse()?, public };
        if hex::encode(key.id()) == id { Ok(key) } else { Err(InvalidKey::Id) }
    }
}
