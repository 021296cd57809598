//! A logged-in SSH session to one device. The host key is judged before any credential is sent.

mod algorithms;

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use russh::client::{AuthResult, Config, Handle, Handler, connect_stream};
use russh::keys::{HashAlg, PrivateKey, PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate};
use russh::{AlgorithmKind, Disconnect, SshId};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tsujiban_api::device::Algorithms;
use tsujiban_core::outcome::Reason;

use crate::credentials::{Credentials, Proof};
use crate::hostkey::{Expected, Verdict, fingerprint};
use crate::outcome::Step;

const WINDOW: u32 = 512 << 10;
const BUFFERED_PACKETS: usize = 8;

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum SshError {
    #[error("{address} took the connection, but did not finish the SSH handshake within {} s; check the device's load", .idle.as_secs_f32())]
    SilentHandshake { address: SocketAddr, idle: Duration },
    #[error(
        "the device showed host key {shown}, but {expected} is expected; if the device was exchanged or its key renewed, set spec.connection.hostKey to the new key, or have staff replace the pinned one; otherwise somebody is in between"
    )]
    Mismatch { shown: String, expected: String },
    #[error(
        "the device has no host key of type {expected}, which is expected; it offers {offered}; if the device was exchanged or its key renewed, set spec.connection.hostKey to the new key, or have staff replace the pinned one"
    )]
    OtherKeyType { expected: String, offered: String },
    #[error(
        "a password is only offered to a known device; compare host key {shown} with the device's, then copy it from status.observedHostKey to spec.connection.hostKey"
    )]
    Unconfirmed { shown: String },
    #[error(
        "the device speaks no {what} that is allowed; it offers {offered}; update it, or if it cannot be, set spec.connection.algorithms: Legacy"
    )]
    NoCommonAlgorithm { what: &'static str, offered: String },
    #[error("the SSH handshake failed; check that {address} is the device's SSH server")]
    Handshake { address: SocketAddr, source: russh::Error },
    #[error("the device did not answer the login of {user} within {} s", .idle.as_secs_f32())]
    SilentLogin { user: String, idle: Duration },
    #[error("the device refused the {what} of {user}; it accepts {accepts}; check the credentials secret and the account on the device")]
    Refused { user: String, what: &'static str, accepts: String },
    #[error("the device closed the connection during the login of {user}; check the account on the device")]
    ClosedAtLogin { user: String, source: russh::Error },
}

impl Step for SshError {
    fn reason(&self) -> Reason {
        match self {
            Self::SilentHandshake { .. } | Self::SilentLogin { .. } => Reason::Timeout,
            Self::Mismatch { .. } | Self::OtherKeyType { .. } => Reason::HostKeyMismatch,
            Self::Unconfirmed { .. } => Reason::HostKeyUnconfirmed,
            Self::NoCommonAlgorithm { .. } | Self::Handshake { .. } => Reason::Protocol,
            Self::Refused { .. } | Self::ClosedAtLogin { .. } => Reason::Auth,
        }
    }
}

/// The key that a device showed, kept also when the attempt fails or is given up.
pub type Shown = Arc<OnceLock<PublicKey>>;

/// How to connect to one device.
#[derive(Debug)]
pub struct Connect<'a> {
    pub address: SocketAddr,
    pub algorithms: Algorithms,
    pub expected: &'a Expected,
    pub credentials: &'a Credentials,
    pub idle: Duration,
    /// The inactivity after which the SSH library closes the connection by itself, so that an abandoned session ends.
    pub most: Duration,
}

/// A connection to a device whose host key was accepted. No credential has been sent yet.
pub struct Unauthenticated(Session);

/// A session that is logged in.
pub struct Session {
    handle: Handle<Judge>,
    /// The key of this device is not pinned yet.
    pub first_contact: bool,
}

/// Decides about the host key inside the handshake.
pub struct Judge {
    expected: Expected,
    proof: Proof,
    shown: Shown,
}

impl Handler for Judge {
    type Error = russh::Error;

    async fn check_server_key(&mut self, key: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        let PublicKeyOrCertificate::PublicKey { key, .. } = key else { return Ok(false) };
        let judged = self.expected.judge(self.shown.get_or_init(|| key.clone()), &self.proof);
        // a later key exchange of the same session must show the same key
        let same = self.shown.get().is_some_and(|shown| shown.key_data() == key.key_data());
        Ok(same && matches!(judged, Verdict::Trusted | Verdict::FirstContact))
    }
}

impl Unauthenticated {
    /// Performs the SSH handshake. The host key that the device presents is put into `shown` even when the handshake fails.
    pub async fn handshake(stream: TcpStream, connect: &Connect<'_>, shown: &Shown) -> Result<Self, SshError> {
        let Connect { address, expected, idle, .. } = *connect;
        let config = Config {
            client_id: SshId::Standard("SSH-2.0-tsujiban".into()),
            preferred: algorithms::preferred(connect.algorithms, expected.key()),
            inactivity_timeout: Some(connect.most),
            // bounds what is buffered before it is read, however many devices send at once
            window_size: WINDOW,
            channel_buffer_size: BUFFERED_PACKETS,
            ..Config::default()
        };
        let proof = &connect.credentials.proof;
        let judge = Judge { expected: expected.clone(), proof: proof.clone(), shown: Arc::clone(shown) };
        let opened = timeout(idle, connect_stream(Arc::new(config), stream, judge)).await;
        let verdict = shown.get().map(|key| (expected.judge(key, proof), fingerprint(key)));
        match (opened, verdict) {
            (Ok(Ok(handle)), verdict) => Ok(Self(Session { handle, first_contact: matches!(verdict, Some((Verdict::FirstContact, _))) })),
            (Ok(Err(russh::Error::UnknownKey)), Some((Verdict::Unconfirmed, shown))) => Err(SshError::Unconfirmed { shown }),
            (Ok(Err(russh::Error::UnknownKey)), Some((Verdict::Mismatch, shown))) => {
                Err(SshError::Mismatch { shown, expected: expected.key().map(fingerprint).unwrap_or_default() })
            }
            (Ok(Err(source)), _) => Err(refused_handshake(address, expected, source)),
            (Err(_), _) => Err(SshError::SilentHandshake { address, idle }),
        }
    }

    /// Logs in.
    pub async fn log_in(self, credentials: &Credentials, algorithms: Algorithms, idle: Duration) -> Result<Session, SshError> {
        let Self(mut session) = self;
        let user = || credentials.username.clone();
        let (what, answer) = match &credentials.proof {
            // the library takes a copy that it does not wipe
            Proof::Password(password) => ("password", timeout(idle, session.handle.authenticate_password(user(), password.as_str())).await),
            Proof::Key(key) => ("key", timeout(idle, session.prove(user(), Arc::clone(key), algorithms)).await),
        };
        match answer {
            Ok(Ok(AuthResult::Success)) => Ok(session),
            Ok(Ok(AuthResult::Failure { remaining_methods, .. })) => {
                let accepts: Vec<&str> = remaining_methods.iter().map(Into::into).collect();
                Err(SshError::Refused { user: user(), what, accepts: listed(&accepts) })
            }
            Ok(Err(source)) => Err(SshError::ClosedAtLogin { user: user(), source }),
            Err(_) => Err(SshError::SilentLogin { user: user(), idle }),
        }
    }
}

impl Session {
    async fn prove(&mut self, user: String, key: Arc<PrivateKey>, algorithms: Algorithms) -> Result<AuthResult, russh::Error> {
        let hash = match (key.algorithm().is_rsa(), algorithms) {
            (false, _) => None,
            (true, Algorithms::Modern) => Some(self.handle.best_supported_rsa_hash().await?.flatten().unwrap_or(HashAlg::Sha256)),
            (true, Algorithms::Legacy) => self.handle.best_supported_rsa_hash().await?.flatten(),
        };
        self.handle.authenticate_publickey(user, PrivateKeyWithHashAlg::new(key, hash)).await
    }

    pub fn handle(&self) -> &Handle<Judge> {
        &self.handle
    }

    /// Disconnects. Errors are ignored: the device may have closed the connection already.
    pub async fn close(self) {
        let _ = self.handle.disconnect(Disconnect::ByApplication, "done", "en").await;
    }
}

fn refused_handshake(address: SocketAddr, expected: &Expected, error: russh::Error) -> SshError {
    let russh::Error::NoCommonAlgo { kind, theirs, .. } = error else { return SshError::Handshake { address, source: error } };
    let theirs: Vec<&str> = theirs.iter().map(String::as_str).collect();
    let offered = listed(&theirs);
    match (kind, expected.key()) {
        (AlgorithmKind::Key, Some(key)) if !algorithms::only_too_old(key, &theirs) => {
            SshError::OtherKeyType { expected: key.algorithm().to_string(), offered }
        }
        (AlgorithmKind::Key, _) => SshError::NoCommonAlgorithm { what: "host key type", offered },
        (AlgorithmKind::Kex, _) => SshError::NoCommonAlgorithm { what: "key exchange", offered },
        (AlgorithmKind::Cipher, _) => SshError::NoCommonAlgorithm { what: "cipher", offered },
        (AlgorithmKind::Mac, _) => SshError::NoCommonAlgorithm { what: "message authentication", offered },
        (AlgorithmKind::Compression, _) => SshError::NoCommonAlgorithm { what: "compression", offered },
    }
}

fn listed(names: &[&str]) -> String {
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ").chars().take(160).collect() }
}
