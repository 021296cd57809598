//! The internal CA and its rotation. A new CA is in every bundle a day before anything is signed by it, and the old one stays in the
//! bundles until it expires, so that every client can verify every certificate that it gets.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use zeroize::Zeroizing;

use super::certificate::{self, CertificateError, Facts, Pair};

const LIFE: SignedDuration = SignedDuration::from_hours(365 * 24);
/// How long a new CA is in the bundles before it signs.
const NOTICE: SignedDuration = SignedDuration::from_hours(24);

const END: &str = "-----END CERTIFICATE-----";

/// The CA as stored in its Secret.
#[derive(Clone)]
pub struct Authority {
    /// The CA that signs.
    pub current: Pair,
    /// The CA that will sign, once every client has it in its bundle.
    pub next: Option<Pair>,
    /// Every CA certificate that clients must trust.
    pub bundle: String,
}

/// What to do about the CA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Keep,
    /// Make the next one and add it to the bundle.
    Announce,
    /// Let the next one sign.
    Promote,
}

/// Decides. `next` is since when the next CA is announced.
pub fn plan(current: &Facts, next: Option<Timestamp>, now: Timestamp) -> Step {
    let runs_out = now.checked_add(NOTICE).is_ok_and(|soon| soon >= current.not_after);
    match next {
        None if now >= current.renewal() => Step::Announce,
        Some(announced) if runs_out || now.duration_since(announced) >= NOTICE => Step::Promote,
        None | Some(_) => Step::Keep,
    }
}

impl Authority {
    pub fn make(now: Timestamp) -> Result<Self, CertificateError> {
        let current = certificate::authority(now, LIFE)?;
        Ok(Self { bundle: current.certificate.clone(), current, next: None })
    }

    /// The CA as it should be at `now`, and whether that differs.
    pub fn advance(self, now: Timestamp) -> Result<(Self, bool), CertificateError> {
        let next = self.next.as_ref().map(|next| Facts::read(&next.certificate)).transpose()?;
        let changed = match (plan(&Facts::read(&self.current.certificate)?, next.map(|facts| facts.not_before), now), self.next.clone()) {
            (Step::Announce, _) => Self { next: Some(certificate::authority(now, LIFE)?), ..self },
            (Step::Promote, Some(next)) => Self { current: next, next: None, bundle: self.bundle },
            (Step::Keep | Step::Promote, _) if split(&self.bundle_at(now)) == split(&self.bundle) => return Ok((self, false)),
            (Step::Keep | Step::Promote, _) => self, // a CA in the bundle has expired
        };
        let bundle = changed.bundle_at(now);
        Ok((Self { bundle, ..changed }, true))
    }

    /// The current CA first, then the next one, then older ones that have not expired.
    fn bundle_at(&self, now: Timestamp) -> String {
        let mut all = vec![self.current.certificate.clone()];
        all.extend(self.next.iter().map(|next| next.certificate.clone()));
        for old in split(&self.bundle) {
            let alive = Facts::read(&old).is_ok_and(|facts| facts.not_after > now);
            if alive && !all.iter().any(|known| known.trim() == old.trim()) {
                all.push(old);
            }
        }
        all.iter().flat_map(|pem| [pem.trim(), "\n"]).collect()
    }

    /// From the Secret's data; `None` when a part is missing.
    pub fn from_data(data: &BTreeMap<String, Vec<u8>>) -> Option<Self> {
        let text = |key: &str| data.get(key).and_then(|bytes| String::from_utf8(bytes.clone()).ok());
        let pair = |certificate: &str, key: &str| Some(Pair { certificate: text(certificate)?, key: Zeroizing::new(text(key)?) });
        Some(Self { current: pair("tls.crt", "tls.key")?, next: pair("next.crt", "next.key"), bundle: text("ca.crt")? })
    }

    pub fn to_data(&self) -> BTreeMap<String, Vec<u8>> {
        let mut data =
            vec![("tls.crt", self.current.certificate.as_str()), ("tls.key", self.current.key.as_str()), ("ca.crt", self.bundle.as_str())];
        if let Some(next) = &self.next {
            data.extend([("next.crt", next.certificate.as_str()), ("next.key", next.key.as_str())]);
        }
        data.into_iter().map(|(key, text)| (key.to_owned(), text.as_bytes().to_vec())).collect()
    }
}

fn split(bundle: &str) -> Vec<String> {
    bundle.split_inclusive(END).map(str::trim).filter(|pem| pem.ends_with(END)).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::day;

    /// C22: a change of the CA never leaves a connection without a certificate that it knows.
    #[test]
    fn a_change_of_the_ca_day_by_day() {
        let mut authority = Authority::make(day(0)).unwrap();
        let mut signers = vec![authority.current.certificate.clone()];
        let mut bundles = vec![authority.bundle.clone()];
        for today in 1..800 {
            authority = authority.advance(day(today)).unwrap().0;
            let signer = Facts::read(&authority.current.certificate).unwrap();
            assert!(signer.not_after > day(today), "day {today}: the signer has run out");
            // who has yesterday's bundle knows today's signer, and who has today's knows yesterday's
            assert!(bundles.last().unwrap().contains(authority.current.certificate.trim()), "day {today}");
            assert!(authority.bundle.contains(signers.last().unwrap().trim()), "day {today}");
            bundles.push(authority.bundle.clone());
            signers.push(authority.current.certificate.clone());
        }
        signers.dedup();
        assert_eq!(signers.len(), 4);
        assert!(split(&authority.bundle).len() <= 3);
    }

    /// Whoever believes certificates does not look at when the authority itself runs out.
    #[test]
    fn who_has_run_out_is_not_in_the_bundle() {
        let mut authority = Authority::make(day(0)).unwrap();
        let first = authority.current.certificate.trim().to_owned();
        for today in 1..=365 {
            assert!(authority.bundle.contains(&first), "day {today}");
            authority = authority.advance(day(today)).unwrap().0;
        }
        assert!(!authority.bundle.contains(&first));
        assert!(!authority.advance(day(366)).unwrap().1, "nothing is left to do");
    }

    #[test]
    fn there_and_back() {
        let authority = Authority::make(day(0)).unwrap().advance(day(300)).unwrap().0;
        let data = authority.to_data();
        assert_eq!(data.len(), 5);
        assert_eq!(Authority::from_data(&data).unwrap().to_data(), data);
        assert!(Authority::from_data(&BTreeMap::new()).is_none());
    }
}
