//! The serving certificates of the services.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use tsujiban_api::names;
use tsujiban_core::workload::Service;

use super::authority::Authority;
use super::certificate::{self, CertificateError, Facts};

const LIFE: SignedDuration = SignedDuration::from_hours(90 * 24);

/// The names under which a service is reached, by its ready pods or by all of them; `localhost` is for port-forwards.
pub fn dns_names(service: Service, namespace: &str) -> Vec<String> {
    let host = service.row().host;
    let direct = names::direct(host);
    [
        host.to_owned(),
        format!("{host}.{namespace}"),
        format!("{host}.{namespace}.svc"),
        format!("{host}.{namespace}.svc.cluster.local"),
        direct.clone(),
        format!("{direct}.{namespace}.svc"),
        format!("{direct}.{namespace}.svc.cluster.local"),
        "localhost".to_owned(),
    ]
    .into()
}

/// The Secret's data as it should be at `now`: the existing certificate while it is good, else a new one. Returns also when the certificate
/// expires.
pub fn settle(
    there: Option<&BTreeMap<String, Vec<u8>>>,
    authority: &Authority,
    dns_names: &[String],
    now: Timestamp,
) -> Result<(BTreeMap<String, Vec<u8>>, Timestamp), CertificateError> {
    let signer = Facts::read(&authority.current.certificate)?;
    if let Some((data, facts)) = there.and_then(|data| Some((data, good(data, &signer, dns_names, now)?))) {
        let mut data = data.clone();
        data.insert("ca.crt".to_owned(), authority.bundle.clone().into_bytes());
        return Ok((data, facts.not_after));
    }
    let life = LIFE.min(signer.not_after.duration_since(now)); // never beyond the CA's own
    let made = certificate::server(&authority.current, dns_names, now, life)?;
    let not_after = Facts::read(&made.certificate)?.not_after;
    let data = [("tls.crt", made.certificate.as_str()), ("tls.key", made.key.as_str()), ("ca.crt", authority.bundle.as_str())];
    Ok((data.map(|(key, text)| (key.to_owned(), text.as_bytes().to_vec())).into(), not_after))
}

fn good(data: &BTreeMap<String, Vec<u8>>, signer: &Facts, dns_names: &[String], now: Timestamp) -> Option<Facts> {
    let certificate = Facts::read(std::str::from_utf8(data.get("tls.crt")?).ok()?).ok()?;
    let has_key = data.get("tls.key").is_some_and(|key| !key.is_empty());
    let is_good = has_key && certificate.issuer == signer.subject && certificate.dns_names == dns_names && now < certificate.renewal();
    is_good.then_some(certificate)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::day;

    #[test]
    fn a_good_certificate_stays_and_a_worn_one_is_renewed() {
        let authority = Authority::make(day(0)).unwrap();
        let names = dns_names(Service::Backup, "tsujiban-system");
        let (first, runs_out) = settle(None, &authority, &names, day(0)).unwrap();
        assert_eq!(runs_out, day(90));
        assert_eq!(settle(Some(&first), &authority, &names, day(59)).unwrap().0, first);
        assert_ne!(settle(Some(&first), &authority, &names, day(61)).unwrap().0, first);
        assert_ne!(settle(Some(&first), &authority, &dns_names(Service::Backup, "other"), day(1)).unwrap().0, first);
        assert_ne!(settle(Some(&first), &authority, &dns_names(Service::Audit, "tsujiban-system"), day(1)).unwrap().0, first);
        let other = Authority::make(day(1)).unwrap();
        assert_ne!(settle(Some(&first), &other, &names, day(1)).unwrap().0["tls.crt"], first["tls.crt"]);
    }

    #[test]
    fn a_new_bundle_needs_no_new_certificate() {
        let mut authority = Authority::make(day(0)).unwrap();
        let names = dns_names(Service::Backup, "tsujiban-system");
        let (first, _) = settle(None, &authority, &names, day(0)).unwrap();
        authority.bundle.push('\n');
        let (second, _) = settle(Some(&first), &authority, &names, day(1)).unwrap();
        assert_eq!(first["tls.crt"], second["tls.crt"]);
        assert_ne!(first["ca.crt"], second["ca.crt"]);
    }
}
