//! The control plane's certificates and keys.

use std::path::Path;

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose};

/// An authority that signs what the control plane needs.
pub(crate) struct Pki {
    issuer: Issuer<'static, KeyPair>,
    pub ca: String,
}

/// A certificate with its key.
pub(crate) struct Identity {
    pub certificate: String,
    pub key: String,
}

impl Pki {
    pub fn new() -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "plane");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?;
        Ok(Self { ca: certificate.pem(), issuer: Issuer::new(params, key) })
    }

    /// Signs for a user `name`, member of `group`, answering at `hosts`.
    pub fn identity(&self, name: &str, group: Option<&str>, hosts: &[&str]) -> Result<Identity> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(hosts.iter().map(|host| (*host).to_owned()).collect::<Vec<_>>())?;
        params.distinguished_name.push(DnType::CommonName, name);
        if let Some(group) = group {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Identity { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}

/// Writes the key pair that service account tokens are signed with.
pub(crate) fn service_account_keys(dir: &Path) -> Result<()> {
    let key = KeyPair::generate()?;
    std::fs::write(dir.join("sa.key"), key.serialize_pem())?;
    std::fs::write(dir.join("sa.pub"), key.public_key_pem())?;
    Ok(())
}
