//! How the collector logs in to a device. What is secret is wiped when it is dropped and never shown.

use std::fmt;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use russh::keys::PrivateKey;
use tsujiban_api::names::CREDENTIALS_TYPE;
use tsujiban_core::outcome::Reason;
use zeroize::{Zeroize, Zeroizing};

use crate::outcome::Step;

/// A login.
#[derive(Debug, Clone)]
pub struct Credentials {
    pub username: String,
    pub proof: Proof,
}

/// What proves that the collector may log in.
#[derive(Clone)]
pub enum Proof {
    Password(Arc<Zeroizing<String>>),
    Key(Arc<PrivateKey>),
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Password(_) => "Password(..)",
            Self::Key(_) => "Key(..)",
        })
    }
}

/// A Secret that holds no usable login.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    #[error("secret {secret} is of type {found:?}, not {CREDENTIALS_TYPE}; create it anew with that type")]
    Type { secret: String, found: String },
    #[error("secret {secret} has no key username; add it")]
    NoUsername { secret: String },
    #[error("secret {secret} has neither password nor ssh-privatekey; add one of them")]
    NoProof { secret: String },
    #[error("key {key} of secret {secret} is not text")]
    NotText { secret: String, key: &'static str },
    #[error("key ssh-privatekey of secret {secret} is not a private key in OpenSSH format without a passphrase")]
    NotAKey { secret: String },
}

impl Step for Unusable {
    fn reason(&self) -> Reason {
        Reason::Auth
    }
}

/// Reads a login from a Secret and wipes the Secret. A private key takes precedence over a password.
pub fn read(name: &str, secret: Secret) -> Result<Credentials, Unusable> {
    let secret_name = || name.to_owned();
    let found = secret.type_.unwrap_or_default();
    let mut data = secret.data.unwrap_or_default();
    let mut take = |key: &'static str| {
        let bytes = data.remove(key).map(|value| Zeroizing::new(value.0));
        bytes
            .map(|bytes| std::str::from_utf8(&bytes).map(|text| Zeroizing::new(text.to_owned())))
            .transpose()
            .map_err(|_| Unusable::NotText { secret: secret_name(), key })
    };
    let (username, password, key) = (take("username"), take("password"), take("ssh-privatekey"));
    for value in data.values_mut() {
        value.0.zeroize();
    }
    if found != CREDENTIALS_TYPE {
        return Err(Unusable::Type { secret: secret_name(), found });
    }
    let username = username?.filter(|name| !name.is_empty()).ok_or_else(|| Unusable::NoUsername { secret: secret_name() })?;
    let proof = match (key?, password?) {
        (Some(key), _) => {
            let key = russh::keys::decode_secret_key(&key, None).map_err(|_| Unusable::NotAKey { secret: secret_name() })?;
            Proof::Key(Arc::new(key))
        }
        (None, Some(password)) => Proof::Password(Arc::new(password)),
        (None, None) => return Err(Unusable::NoProof { secret: secret_name() }),
    };
    Ok(Credentials { username: username.to_string(), proof })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;

    fn secret(type_: &str, data: &[(&str, &str)]) -> Secret {
        let data = data.iter().map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec()))).collect();
        Secret { type_: Some(type_.to_owned()), data: Some(data), ..Secret::default() }
    }

    #[test]
    fn a_password_is_read_and_never_shown() {
        let login = read("login", secret(CREDENTIALS_TYPE, &[("username", "backup"), ("password", "hunter2")])).unwrap();
        assert_eq!(login.username, "backup");
        assert_eq!(format!("{login:?}"), r#"Credentials { username: "backup", proof: Password(..) }"#);
    }

    #[test]
    fn what_cannot_be_used_says_what_to_do() {
        for (secret, says) in [
            (secret("Opaque", &[("username", "backup"), ("password", "hunter2")]), "create it anew with that type"),
            (secret(CREDENTIALS_TYPE, &[("password", "hunter2")]), "no key username"),
            (secret(CREDENTIALS_TYPE, &[("username", "backup")]), "neither password nor ssh-privatekey"),
            (secret(CREDENTIALS_TYPE, &[("username", "backup"), ("ssh-privatekey", "hunter2")]), "not a private key"),
        ] {
            let error = read("login", secret).unwrap_err().to_string();
            assert!(error.contains(says) && !error.contains("hunter2"), "{error}");
        }
    }
}
