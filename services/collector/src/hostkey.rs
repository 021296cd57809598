//! Whether the host key that a device shows may be trusted.

use russh::keys::{HashAlg, PublicKey};

use crate::credentials::Proof;

/// The host key that is expected of a device, by its source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// `spec.connection.hostKey`.
    Given(PublicKey),
    /// Pinned in the backup service at an earlier contact.
    Pinned(PublicKey),
    /// None: the device was never reached.
    Unknown,
}

/// A text that is no host key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a public key in OpenSSH format")]
pub struct NotAKey;

impl Expected {
    /// The key of the spec takes precedence over the pinned one. An empty `pinned` means that none is.
    pub fn new(given: Option<&str>, pinned: &str) -> Result<Self, NotAKey> {
        let read = |text: &str| PublicKey::from_openssh(text).map_err(|_| NotAKey);
        match (given, pinned) {
            (Some(given), _) => Ok(Self::Given(read(given)?)),
            (None, "") => Ok(Self::Unknown),
            (None, pinned) => Ok(Self::Pinned(read(pinned)?)),
        }
    }

    pub fn key(&self) -> Option<&PublicKey> {
        match self {
            Self::Given(key) | Self::Pinned(key) => Some(key),
            Self::Unknown => None,
        }
    }

    /// Judges the key that a device presents, before any credential is sent to it. A password is sent only to a known key; a signature
    /// reveals nothing to an impostor, so a private key may be used at a first contact.
    pub fn judge(&self, shown: &PublicKey, proof: &Proof) -> Verdict {
        match (self.key(), proof) {
            (Some(expected), _) if expected.key_data() == shown.key_data() => Verdict::Trusted,
            (Some(_), _) => Verdict::Mismatch,
            (None, Proof::Key(_)) => Verdict::FirstContact,
            (None, Proof::Password(_)) => Verdict::Unconfirmed,
        }
    }
}

/// What is done with a device, by the host key that it presents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Trusted,
    /// Log in, then pin the key before any output of the device is used.
    FirstContact,
    /// Stop: a password would be sent to a device whose key is not confirmed.
    Unconfirmed,
    /// Stop: the key is not the expected one.
    Mismatch,
}

/// The key as it is stored and compared: type and base64, no comment.
pub fn openssh(key: &PublicKey) -> String {
    PublicKey::from(key.key_data().clone()).to_openssh().unwrap_or_default()
}

/// The fingerprint by which people compare keys.
pub fn fingerprint(key: &PublicKey) -> String {
    format!("{} {}", key.algorithm(), key.fingerprint(HashAlg::Sha256))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use russh::keys::PrivateKey;
    use russh::keys::ssh_key::private::Ed25519Keypair;

    use super::*;

    fn private(seed: u8) -> PrivateKey {
        PrivateKey::from(Ed25519Keypair::from_seed(&[seed; 32]))
    }

    #[test]
    fn who_is_trusted() {
        let (one, other) = (private(1).public_key().clone(), private(2).public_key().clone());
        let key = Proof::Key(Arc::new(private(9)));
        let password = Proof::Password(Arc::new(String::from("x").into()));
        for expected in [Expected::Given(one.clone()), Expected::Pinned(one.clone())] {
            for proof in [&key, &password] {
                assert_eq!(expected.judge(&one, proof), Verdict::Trusted);
                assert_eq!(expected.judge(&other, proof), Verdict::Mismatch);
            }
        }
        assert_eq!(Expected::Unknown.judge(&one, &key), Verdict::FirstContact);
        assert_eq!(Expected::Unknown.judge(&one, &password), Verdict::Unconfirmed);
    }

    #[test]
    fn the_spec_goes_before_the_pin_and_comments_do_not_count() {
        let (one, other) = (openssh(private(1).public_key()), openssh(private(2).public_key()));
        assert_eq!(one.split(' ').count(), 2);
        let expected = Expected::new(Some(&format!("{one} r1")), &other).unwrap();
        assert!(matches!(&expected, Expected::Given(key) if openssh(key) == one));
        assert!(matches!(Expected::new(None, &other), Ok(Expected::Pinned(_))));
        assert_eq!(Expected::new(None, ""), Ok(Expected::Unknown));
        assert_eq!(Expected::new(Some("ssh-ed25519 AAAA"), ""), Err(NotAKey));
    }
}
