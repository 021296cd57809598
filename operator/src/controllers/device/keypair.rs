//! The key pair that is generated for a device without credentials of its own.

use russh::keys::PrivateKey;
use russh::keys::ssh_key::private::Ed25519Keypair;
use russh::keys::ssh_key::{self, LineEnding};
use tsujiban_sealing::{Random, SealingError};
use zeroize::Zeroizing;

/// Why no key pair could be made.
#[derive(Debug, thiserror::Error)]
pub enum KeyPairError {
    #[error("no randomness")]
    Random(#[from] SealingError),
    #[error("the key pair could not be written down")]
    Encode(#[from] ssh_key::Error),
}

/// An Ed25519 key pair in OpenSSH's formats.
pub struct KeyPair {
    pub private: Zeroizing<String>,
    /// One line, as in `authorized_keys`.
    pub public: String,
}

/// Makes a key pair; `comment` stands at the end of its public half.
pub fn generate(random: &dyn Random, comment: &str) -> Result<KeyPair, KeyPairError> {
    let mut seed = Zeroizing::new([0_u8; 32]);
    random.fill(seed.as_mut_slice())?;
    let private = PrivateKey::new(Ed25519Keypair::from_seed(&seed).into(), comment)?;
    Ok(KeyPair { private: private.to_openssh(LineEnding::LF)?, public: private.public_key().to_openssh()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed;

    impl Random for Fixed {
        fn fill(&self, buf: &mut [u8]) -> Result<(), SealingError> {
            buf.fill(7);
            Ok(())
        }
    }

    #[test]
    fn the_two_halves_belong_together() {
        let pair = generate(&Fixed, "tsujiban acme").unwrap();
        assert!(pair.public.starts_with("ssh-ed25519 AAAA") && pair.public.ends_with(" tsujiban acme"), "{}", pair.public);
        let read = PrivateKey::from_openssh(pair.private.as_bytes()).unwrap();
        assert_eq!(read.public_key().to_openssh().unwrap(), pair.public);
    }
}
