//! The serving certificate: read from files, and read again when they change, without a restart and without a dropped connection.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use prometheus::{IntGauge, Registry};
use ring::digest;
use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use tokio::fs;
use tokio_util::sync::CancellationToken;
use tsujiban_core::error::chain;
use zeroize::Zeroizing;

/// How often the files are read. Contents are compared, since mounted Secrets are swapped by links.
const POLL: Duration = Duration::from_secs(10);
/// How often the files are looked for before the first certificate is there.
const FIRST_POLL: Duration = Duration::from_secs(1);

/// A certificate that cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{path} cannot be read")]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{path} is not PEM of the wanted kind")]
    Pem { path: PathBuf, source: pem::Error },
    #[error("{path} holds no certificate")]
    Empty { path: PathBuf },
    #[error("the certificate and the key in {dir} do not belong together, or are of an unknown kind")]
    Mismatch { dir: PathBuf, source: rustls::Error },
    #[error("TLS cannot be set up; this is a fault of the program")]
    Protocol(#[source] rustls::Error),
    #[error("the metrics of the certificate cannot be registered")]
    Metrics(#[from] prometheus::Error),
}

/// The certificate that is being served. Clones share it.
#[derive(Clone)]
pub struct Certificate(Arc<Shared>);

struct Shared {
    dir: PathBuf,
    serving: RwLock<Option<Serving>>,
    healthy: IntGauge,
}

/// A certificate with its key, and the digest of the files they came from.
struct Serving {
    files: [u8; digest::SHA256_OUTPUT_LEN],
    key: Arc<CertifiedKey>,
}

impl Certificate {
    /// A certificate from `tls.crt` and `tls.key` in `dir`, which may appear later.
    pub fn new(dir: &Path, registry: &Registry) -> Result<Self, TlsError> {
        let healthy = IntGauge::new(
            "tsujiban_tls_certificate_healthy",
            "1 when the serving certificate is the one in the files, 0 when those are broken.",
        )?;
        registry.register(Box::new(healthy.clone()))?;
        Ok(Self(Arc::new(Shared { dir: dir.to_owned(), serving: RwLock::new(None), healthy })))
    }

    /// Waits until there is a certificate. Gives up when `shutdown` is cancelled.
    pub async fn wait(&self, shutdown: &CancellationToken) {
        let mut complaint = Complaint::default();
        while let Err(error) = self.reload().await {
            complaint.log(&self.0.dir, &error, "waiting for tls.crt and tls.key; the operator makes them once it runs");
            tokio::select! {
                () = tokio::time::sleep(FIRST_POLL) => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    /// Reads the files every ten seconds until `shutdown` is cancelled. While they are broken, the old certificate is kept.
    pub async fn follow(&self, shutdown: CancellationToken) {
        let mut complaint = Complaint::default();
        loop {
            tokio::select! {
                () = tokio::time::sleep(POLL) => {}
                () = shutdown.cancelled() => return,
            }
            match self.reload().await {
                Ok(_) => complaint = Complaint::default(),
                Err(error) => complaint.log(&self.0.dir, &error, "the new certificate is broken, the old one is kept; look at the Secret"),
            }
        }
    }

    /// Reads the files once, and serves their certificate if it is new and valid. `Ok(true)`: it is new.
    pub async fn reload(&self) -> Result<bool, TlsError> {
        let outcome = self.look().await;
        self.0.healthy.set(i64::from(outcome.is_ok()));
        outcome
    }

    async fn look(&self) -> Result<bool, TlsError> {
        let read = async |name: &str| {
            let path = self.0.dir.join(name);
            fs::read(&path).await.map_err(|source| TlsError::Unreadable { path, source })
        };
        let (certificates, key) = (read("tls.crt").await?, Zeroizing::new(read("tls.key").await?));
        let files = digest_of(&certificates, &key);
        if self.serving().as_ref().is_some_and(|serving| serving.files == files) {
            return Ok(false);
        }
        let key = Arc::new(parse(&self.0.dir, &certificates, &key)?);
        *self.0.serving.write().unwrap_or_else(PoisonError::into_inner) = Some(Serving { files, key });
        tracing::info!(dir = %self.0.dir.display(), "serving the certificate in the files");
        Ok(true)
    }

    fn serving(&self) -> RwLockReadGuard<'_, Option<Serving>> {
        self.0.serving.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// TLS 1.3 and 1.2 for HTTP/2 with this certificate.
    pub fn server_config(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(TlsError::Protocol)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(self.clone()));
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Arc::new(config))
    }
}

/// The last complaint about the files. The same one is not logged again every few seconds.
#[derive(Default)]
struct Complaint(String);

impl Complaint {
    fn log(&mut self, dir: &Path, error: &TlsError, message: &'static str) {
        let text = chain(error);
        if self.0 != text {
            tracing::warn!(dir = %dir.display(), error = text, "{message}");
            self.0 = text;
        }
    }
}

fn digest_of(certificates: &[u8], key: &[u8]) -> [u8; digest::SHA256_OUTPUT_LEN] {
    let mut both = digest::Context::new(&digest::SHA256);
    both.update(digest::digest(&digest::SHA256, certificates).as_ref());
    both.update(digest::digest(&digest::SHA256, key).as_ref());
    both.finish().as_ref().try_into().unwrap_or_default()
}

fn parse(dir: &Path, certificates: &[u8], key: &[u8]) -> Result<CertifiedKey, TlsError> {
    let (crt, key_path) = (dir.join("tls.crt"), dir.join("tls.key"));
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(certificates)
        .collect::<Result<_, _>>()
        .map_err(|source| TlsError::Pem { path: crt.clone(), source })?;
    if chain.is_empty() {
        return Err(TlsError::Empty { path: crt });
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|source| TlsError::Pem { path: key_path, source })?;
    CertifiedKey::from_der(chain, key, &default_provider()).map_err(|source| TlsError::Mismatch { dir: dir.to_owned(), source })
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.serving().as_ref().map(|serving| Arc::clone(&serving.key))
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("dir", &self.0.dir).finish_non_exhaustive()
    }
}
