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
    #[error("key ssh-privatekey of secret {secret} {fault}")]
    Key { secret: String, fault: KeyFault },
}

/// Why a text is no private key that can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyFault {
    #[error("is encrypted with a passphrase; remove that with: ssh-keygen -p -f FILE")]
    Encrypted,
    #[error("is a public key; put the private one there, from the file without .pub")]
    Public,
    #[error(
        "has lost its line breaks; create the secret from the file, with kubectl create secret generic ... --from-file=ssh-privatekey=FILE"
    )]
    OneLine,
    #[error("is not a private key in OpenSSH or PEM format")]
    NotAKey,
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
    let username = username?.map(|name| without_newline(&name)).filter(|name| !name.is_empty());
    let username = username.ok_or_else(|| Unusable::NoUsername { secret: secret_name() })?;
    let proof = match (key?, password?) {
        (Some(key), _) => {
            let key = private_key(&key).map_err(|fault| Unusable::Key { secret: secret_name(), fault })?;
            Proof::Key(Arc::new(key))
        }
        (None, Some(password)) => match without_newline(&password) {
            empty if empty.is_empty() => return Err(Unusable::NoProof { secret: secret_name() }),
            password => Proof::Password(Arc::new(password)),
        },
        (None, None) => return Err(Unusable::NoProof { secret: secret_name() }),
    };
    Ok(Credentials { username: username.to_string(), proof })
}

/// A text without the one newline with which editors end a file. More than one may be meant.
fn without_newline(text: &str) -> Zeroizing<String> {
    let line = text.strip_suffix('\n').map_or(text, |line| line.strip_suffix('\r').unwrap_or(line));
    Zeroizing::new(line.to_owned())
}

/// Reads a private key as editors and copies through Windows leave it: with a byte order mark, indented, or with CRLF.
fn private_key(text: &str) -> Result<PrivateKey, KeyFault> {
    let mut plain = Zeroizing::new(String::with_capacity(text.len() + 1));
    let lines = text.trim_start_matches('\u{feff}').lines().map(str::trim).filter(|line| !line.is_empty());
    let mut count = 0_usize;
    for line in lines {
        plain.push_str(line);
        plain.push('\n');
        count = count.saturating_add(1);
    }
    match russh::keys::decode_secret_key(&plain, None) {
        Ok(key) => Ok(key),
        Err(russh::keys::Error::KeyIsEncrypted) => Err(KeyFault::Encrypted),
        Err(_) if plain.contains("ENCRYPTED") => Err(KeyFault::Encrypted),
        Err(_) if ["ssh-", "ecdsa-", "sk-", "-----BEGIN PUBLIC"].iter().any(|start| plain.starts_with(start)) => Err(KeyFault::Public),
        Err(_) if count == 1 && plain.starts_with("-----BEGIN") => Err(KeyFault::OneLine),
        Err(_) => Err(KeyFault::NotAKey),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;
    use russh::keys::ssh_key::private::Ed25519Keypair;

    use super::*;

    /// Made by `ssh-keygen -t ed25519 -N passphrase`, and used nowhere.
    const ENCRYPTED: &str = "\
-----BEGIN OPENSSH PRIVATE KEY-----\n\
b3BlbnNzaC1rZXktdjEAAAAACmFlczI1Ni1jdHIAAAAGYmNyeXB0AAAAGAAAABDOHvo3tA\n\
WsJr5uU6gv2eVzAAAAEAAAAAEAAAAzAAAAC3NzaC1lZDI1NTE5AAAAIB1c4Ajz+RbfNDXJ\n\
/xT+dU1xxGx4jsotKbTz7KKIgMYJAAAAkOJYjS3gUXUVFtjjdGDByQWTBxHfFylZd2kmsO\n\
baV1hwIi2AFW0qKY3sQVZJqRTk69ZoWRlgBg0qO+WB3j+fBmc9CCrDLxha2nbaIYSiwL0v\n\
qAlVzgyRzf8CmuKokk651AJepZwQqb7nXZBeqF1YvXfwbgbH8monYBBt0THHb4kH2Q6DES\n\
GCQFLF1d5OF1no4w==\n\
-----END OPENSSH PRIVATE KEY-----\n\n";

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
            (secret(CREDENTIALS_TYPE, &[("username", "\n"), ("password", "hunter2")]), "no key username"),
            (secret(CREDENTIALS_TYPE, &[("username", "backup"), ("password", "\n")]), "neither password nor ssh-privatekey"),
            (secret(CREDENTIALS_TYPE, &[("username", "backup"), ("ssh-privatekey", "ssh-ed25519 AAAAC3 hunter2\n")]), "is a public key"),
            (
                secret(
                    CREDENTIALS_TYPE,
                    &[
                        ("username", "backup"),
                        ("ssh-privatekey", "-----BEGIN OPENSSH PRIVATE KEY----- b3Bl -----END OPENSSH PRIVATE KEY-----"),
                    ],
                ),
                "lost its line breaks",
            ),
        ] {
            let error = read("login", secret).unwrap_err().to_string();
            assert!(error.contains(says) && !error.contains("hunter2"), "{error}");
        }
    }

    /// Any editor ends a file with a newline, and `kubectl create secret --from-file` takes it into the Secret.
    #[test]
    fn one_newline_at_the_end_belongs_to_the_file() {
        for (given, wanted) in [
            ("hunter2", "hunter2"),
            ("hunter2\n", "hunter2"),
            ("hunter2\r\n", "hunter2"),
            ("hunter2\n\n", "hunter2\n"),
            (" hunter2 ", " hunter2 "),
        ] {
            let login = read("login", secret(CREDENTIALS_TYPE, &[("username", "backup\n"), ("password", given)])).unwrap();
            let Proof::Password(password) = login.proof else { panic!("no password") };
            assert_eq!((login.username.as_str(), password.as_str()), ("backup", wanted), "{given:?}");
        }
    }

    #[test]
    fn a_key_is_read_as_copies_leave_it() {
        let key = PrivateKey::from(Ed25519Keypair::from_seed(&[1; 32]));
        let text = key.to_openssh(russh::keys::ssh_key::LineEnding::LF).unwrap().to_string();
        let indented = format!("  {}", text.replace('\n', "\n  "));
        for copy in [text.clone(), text.replace('\n', "\r\n"), format!("\u{feff}{text}"), indented, text.trim_end().to_owned()] {
            assert_eq!(private_key(&copy).unwrap().public_key(), key.public_key(), "{copy:?}");
        }
        assert_eq!(private_key(&text.replace('\n', " ")).unwrap_err(), KeyFault::OneLine);
        assert_eq!(private_key(&key.public_key().to_openssh().unwrap()).unwrap_err(), KeyFault::Public);
        assert_eq!(private_key(ENCRYPTED).unwrap_err(), KeyFault::Encrypted);
    }
}
