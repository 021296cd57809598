//! Which algorithms are offered to a device.

use russh::keys::{Algorithm, EcdsaCurve, HashAlg, PublicKey};
use russh::{Preferred, cipher, kex, mac};
use tsujiban_api::device::Algorithms;

/// Added to the modern algorithms: RFC 9142 allows the NIST curves, which many routers support and the library leaves out by default.
const NIST_KEX: [kex::Name; 3] = [kex::ECDH_SHA2_NISTP256, kex::ECDH_SHA2_NISTP384, kex::ECDH_SHA2_NISTP521];
const LEGACY_KEX: [kex::Name; 3] = [kex::DH_G14_SHA1, kex::DH_GEX_SHA1, kex::DH_G1_SHA1];
const LEGACY_CIPHERS: [cipher::Name; 3] = [cipher::AES_256_CBC, cipher::AES_192_CBC, cipher::AES_128_CBC];
const LEGACY_MACS: [mac::Name; 2] = [mac::HMAC_SHA1_ETM, mac::HMAC_SHA1];

const RSA: [Algorithm; 2] = [Algorithm::Rsa { hash: Some(HashAlg::Sha512) }, Algorithm::Rsa { hash: Some(HashAlg::Sha256) }];
/// RSA with SHA-1.
const OLD_RSA: Algorithm = Algorithm::Rsa { hash: None };

/// The algorithms to offer. When a host key is expected, only its type is offered, so that the device presents that one of its keys.
pub(super) fn preferred(algorithms: Algorithms, expected: Option<&PublicKey>) -> Preferred {
    let legacy = algorithms == Algorithms::Legacy;
    let with = |old: &[kex::Name]| {
        let old: &[kex::Name] = if legacy { old } else { &[] };
        Preferred::DEFAULT.kex.iter().chain(&NIST_KEX).chain(old).copied().collect::<Vec<_>>()
    };
    let old_ciphers: &[cipher::Name] = if legacy { &LEGACY_CIPHERS } else { &[] };
    let old_macs: &[mac::Name] = if legacy { &LEGACY_MACS } else { &[] };
    Preferred {
        kex: with(&LEGACY_KEX).into(),
        key: host_keys(legacy, expected).into(),
        cipher: Preferred::DEFAULT.cipher.iter().chain(old_ciphers).copied().collect(),
        mac: Preferred::DEFAULT.mac.iter().chain(old_macs).copied().collect(),
        ..Preferred::DEFAULT
    }
}

fn host_keys(legacy: bool, expected: Option<&PublicKey>) -> Vec<Algorithm> {
    let curves = [EcdsaCurve::NistP256, EcdsaCurve::NistP384, EcdsaCurve::NistP521];
    let all = [Algorithm::Ed25519].into_iter().chain(curves.map(|curve| Algorithm::Ecdsa { curve })).chain(RSA);
    all.chain(legacy.then_some(OLD_RSA)).filter(|algorithm| expected.is_none_or(|key| is_of(key, algorithm))).collect()
}

fn is_of(key: &PublicKey, algorithm: &Algorithm) -> bool {
    match algorithm {
        Algorithm::Rsa { .. } => key.algorithm().is_rsa(),
        other => key.algorithm() == *other,
    }
}

/// Whether the device has a key of the expected type, but offers it only with signatures that are too old (RSA with SHA-1).
pub(super) fn only_too_old(expected: &PublicKey, offered: &[&str]) -> bool {
    expected.algorithm().is_rsa() && offered.contains(&OLD_RSA.as_str())
}

#[cfg(test)]
mod tests {
    use russh::keys::PrivateKey;
    use russh::keys::ssh_key::private::Ed25519Keypair;

    use super::*;

    #[test]
    fn modern_has_nothing_with_sha1_or_cbc() {
        let modern = preferred(Algorithms::Modern, None);
        let names =
            modern.kex.iter().map(AsRef::as_ref).chain(modern.cipher.iter().map(AsRef::as_ref)).chain(modern.mac.iter().map(AsRef::as_ref));
        assert!(names.clone().count() > 15);
        for name in names {
            assert!(!name.ends_with("sha1") && !name.contains("sha1-") && !name.ends_with("cbc") && name != "none", "{name}");
        }
        assert!(!modern.key.contains(&OLD_RSA));
    }

    #[test]
    fn legacy_adds_and_prefers_the_modern_ones() {
        let (modern, legacy) = (preferred(Algorithms::Modern, None), preferred(Algorithms::Legacy, None));
        assert!(legacy.kex.starts_with(&modern.kex) && legacy.cipher.starts_with(&modern.cipher) && legacy.mac.starts_with(&modern.mac));
        assert!(legacy.key.contains(&OLD_RSA) && legacy.kex.contains(&kex::DH_G1_SHA1) && legacy.cipher.contains(&cipher::AES_128_CBC));
    }

    #[test]
    fn only_the_expected_type_is_offered() {
        let key = PrivateKey::from(Ed25519Keypair::from_seed(&[1; 32]));
        assert_eq!(*preferred(Algorithms::Legacy, Some(key.public_key())).key, [Algorithm::Ed25519]);
    }
}
