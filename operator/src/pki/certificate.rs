//! Certificates: making them, and reading what one says.

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, date_time_ymd,
};
use x509_parser::extensions::GeneralName;
use x509_parser::pem::parse_x509_pem;
use zeroize::Zeroizing;

/// Clocks may differ by this much.
const SKEW: SignedDuration = SignedDuration::from_mins(5);

/// What went wrong with a certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("a certificate could not be made")]
    Make(#[from] rcgen::Error),
    #[error("a certificate cannot be read: it is not PEM with one X.509 certificate")]
    Read,
    #[error("the time {0} cannot stand in a certificate")]
    Time(Timestamp),
}

/// A certificate with its private key, both PEM.
#[derive(Clone)]
pub struct Pair {
    pub certificate: String,
    pub key: Zeroizing<String>,
}

/// What a certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    pub subject: String,
    pub issuer: String,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    pub dns_names: Vec<String>,
}

impl Facts {
    pub fn read(pem: &str) -> Result<Self, CertificateError> {
        let (_, block) = parse_x509_pem(pem.as_bytes()).map_err(|_| CertificateError::Read)?;
        let certificate = block.parse_x509().map_err(|_| CertificateError::Read)?;
        let time = |second| Timestamp::from_second(second).map_err(|_| CertificateError::Read);
        let names = certificate.subject_alternative_name().map_err(|_| CertificateError::Read)?;
        let names = names.iter().flat_map(|extension| &extension.value.general_names);
        let dns_names = names.filter_map(|name| if let GeneralName::DNSName(name) = name { Some((*name).to_owned()) } else { None });
        Ok(Self {
            subject: certificate.subject().to_string(),
            issuer: certificate.issuer().to_string(),
            not_before: time(certificate.validity().not_before.timestamp())?,
            not_after: time(certificate.validity().not_after.timestamp())?,
            dns_names: dns_names.collect(),
        })
    }

    /// When two thirds of its life are over.
    pub fn renewal(&self) -> Timestamp {
        let life = self.not_after.duration_since(self.not_before);
        self.not_before.saturating_add(life / 3 * 2).unwrap_or(self.not_after)
    }
}

/// Makes a CA. Its name is unique, so that two CAs can be in one bundle.
pub fn authority(now: Timestamp, life: SignedDuration) -> Result<Pair, CertificateError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = params(&format!("tsujiban internal CA {}", now.strftime("%Y-%m-%dT%H:%M:%SZ")), now, life)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key)?;
    Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem().into() })
}

/// Makes a server's certificate.
pub fn server(ca: &Pair, dns_names: &[String], now: Timestamp, life: SignedDuration) -> Result<Pair, CertificateError> {
    let issuer = Issuer::from_ca_cert_pem(&ca.certificate, KeyPair::from_pem(&ca.key)?)?;
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = params(dns_names.first().map(String::as_str).unwrap_or_default(), now, life)?;
    params.subject_alt_names = CertificateParams::new(dns_names.to_vec())?.subject_alt_names;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&key, &issuer)?;
    Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem().into() })
}

fn params(name: &str, now: Timestamp, life: SignedDuration) -> Result<CertificateParams, CertificateError> {
    let time = |time: Option<Timestamp>| {
        let seconds = time.and_then(|time| u64::try_from(time.as_second()).ok()).ok_or(CertificateError::Time(now))?;
        Ok::<_, CertificateError>(date_time_ymd(1970, 1, 1) + std::time::Duration::from_secs(seconds))
    };
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = time(now.checked_sub(SKEW).ok())?;
    params.not_after = time(now.checked_add(life).ok())?;
    Ok(params)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_can_be_read() {
        let now: Timestamp = "2026-11-23T00:00:00Z".parse().unwrap();
        let ca = authority(now, SignedDuration::from_hours(24 * 365)).unwrap();
        let names = ["tsujiban-backup".to_owned(), "localhost".to_owned()];
        let leaf = Facts::read(&server(&ca, &names, now, SignedDuration::from_hours(24 * 90)).unwrap().certificate).unwrap();
        let root = Facts::read(&ca.certificate).unwrap();
        assert_eq!((leaf.issuer.clone(), leaf.dns_names.clone()), (root.subject.clone(), names.to_vec()));
        assert_eq!(root.subject, "CN=tsujiban internal CA 2026-11-23T00:00:00Z");
        assert_eq!(leaf.not_after, "2027-02-21T00:00:00Z".parse().unwrap());
        assert!(leaf.renewal() > "2027-01-21T23:00:00Z".parse().unwrap() && leaf.renewal() < "2027-01-22T01:00:00Z".parse().unwrap());
        assert!(Facts::read("nonsense").is_err());
    }
}
