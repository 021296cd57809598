//! The master key: made once, never a second time.

use std::collections::BTreeMap;

use tsujiban_core::id::EnvironmentName;
use tsujiban_sealing::{MasterKey, SealingError};
use zeroize::Zeroizing;

/// What is wrong with the Secret of the master key.
#[derive(Debug, thiserror::Error)]
pub enum MasterError {
    #[error("Secret tsujiban-master-key holds no key; restore it from its escrow copy")]
    NoKey,
    #[error("Secret tsujiban-master-key names another key than it holds; restore it from its escrow copy")]
    OtherId,
    #[error(
        "Secret tsujiban-master-key belongs to environment {theirs}, and this one is {ours}: environments share nothing; restore the Secret of this one, or correct --environment"
    )]
    OtherEnvironment { theirs: String, ours: EnvironmentName },
    #[error("the key in Secret tsujiban-master-key cannot be used; restore it from its escrow copy")]
    Unusable(#[from] SealingError),
}

/// What to do about a master key that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absence {
    /// Nothing was ever sealed here: make one.
    Make,
    /// Something was sealed: another key would make it unreadable for ever.
    Refuse,
}

/// Decides. `epochs` is whether epoch keys exist, by their Secret or by a service's last report; `prepared` is whether the namespace of a
/// prepared group exists.
pub fn when_absent(epochs: bool, prepared: bool) -> Absence {
    if epochs || prepared { Absence::Refuse } else { Absence::Make }
}

/// The message when the key is gone.
pub const GONE: &str = "Secret tsujiban-master-key is gone, while epoch keys or prepared groups exist; nothing new is made in its place: restore it from its escrow copy";

/// Annotation of the Secret: the environment for which the key was made.
pub const ENVIRONMENT: &str = "tsujiban.dev/environment";

/// Refuses the key of another environment (C12). A key without the annotation, such as an imported one, is accepted.
pub fn check_environment(annotated: Option<&str>, ours: &EnvironmentName) -> Result<(), MasterError> {
    match annotated {
        Some(theirs) if theirs != ours.as_str() => Err(MasterError::OtherEnvironment { theirs: theirs.to_owned(), ours: ours.clone() }),
        Some(_) | None => Ok(()),
    }
}

pub fn read(data: &BTreeMap<String, Vec<u8>>) -> Result<MasterKey, MasterError> {
    let key = MasterKey::from_bytes(data.get("key").ok_or(MasterError::NoKey)?)?;
    match data.get("id") {
        Some(id) if id.as_slice() == key.id().as_str().as_bytes() => Ok(key),
        _ => Err(MasterError::OtherId),
    }
}

pub fn write(key: &MasterKey) -> BTreeMap<String, Vec<u8>> {
    let exposed = Zeroizing::new(key.expose().to_vec());
    [("key".to_owned(), exposed.to_vec()), ("id".to_owned(), key.id().as_str().as_bytes().to_vec())].into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tsujiban_sealing::SystemRandom;

    #[test]
    fn there_and_back() {
        let key = MasterKey::generate(&SystemRandom::new()).unwrap();
        let mut data = write(&key);
        assert_eq!(read(&data).unwrap().id(), key.id());
        data.insert("id".into(), b"another".to_vec());
        assert!(matches!(read(&data), Err(MasterError::OtherId)));
        data.insert("key".into(), vec![1, 2, 3]);
        assert!(matches!(read(&data), Err(MasterError::Unusable(_))));
        assert!(matches!(read(&BTreeMap::new()), Err(MasterError::NoKey)));
    }

    /// C12: the key of another environment is refused.
    #[test]
    fn environments_share_no_key() {
        let ours: EnvironmentName = "staging".parse().unwrap();
        assert!(check_environment(Some("staging"), &ours).is_ok() && check_environment(None, &ours).is_ok());
        assert!(check_environment(Some("production"), &ours).unwrap_err().to_string().contains("production"));
    }

    /// C22: there is never a second master key where a first one has sealed something.
    #[test]
    fn a_lost_key_is_not_replaced() {
        assert_eq!(when_absent(false, false), Absence::Make);
        for (epochs, prepared) in [(true, false), (false, true), (true, true)] {
            assert_eq!(when_absent(epochs, prepared), Absence::Refuse);
        }
    }
}
