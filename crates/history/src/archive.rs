//! The signature on parts of the archive. Parts are in the bucket beside the root lists. They restore a lost database; auditors get none.

use crate::{EnvironmentOrigin, Hash, SigningKey, VerifierKey};

pub const SIGNATURE_LENGTH: usize = 64;

/// Signs the SHA-256 of a part.
pub fn sign(key: &SigningKey, environment: &EnvironmentOrigin, digest: &Hash) -> [u8; SIGNATURE_LENGTH] {
    key.sign(&message(environment, digest))
}

/// Whether the key of the environment has signed a part with this SHA-256.
pub fn is_signed(key: &VerifierKey, environment: &EnvironmentOrigin, digest: &Hash, signature: &[u8]) -> bool {
    key.verify(&message(environment, digest), signature)
}

/// The signed message. Domain separation: no signed note and no gap begins with its first line.
fn message(environment: &EnvironmentOrigin, digest: &Hash) -> Vec<u8> {
    format!("tsujiban.dev history archive\n{environment}\n{digest}\n").into_bytes()
}
