//! Where a service is, and the connection to it.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

use crate::error::ClientError;

/// How long a service is waited for.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Until the connection is made.
    pub connect: Duration,
    /// Until an answer begins. `None`: each call has a deadline of its own.
    pub answer: Option<Duration>,
    /// How often a connection is checked, so that a dead one is noticed before a call waits for it. `None`: not at all.
    pub keep_alive: Option<Duration>,
    /// Whether a connection is checked while no call is made on it.
    pub keep_alive_while_idle: bool,
}

/// Where a service is, and how long it is waited for.
#[derive(Debug, Clone)]
pub struct Address {
    url: String,
    limits: Limits,
    /// The name in the service's certificate. `None`: the host of the URL.
    name: Option<String>,
}

impl Address {
    pub fn new(url: String, limits: Limits) -> Self {
        Self { url, limits, name: None }
    }

    /// Expects this name in the service's certificate, whatever the host of the URL is.
    #[must_use]
    pub fn named(self, name: String) -> Self {
        Self { name: Some(name), ..self }
    }

    /// The host of the URL, when there is one.
    pub fn host(&self) -> Option<String> {
        self.url.parse::<http::Uri>().ok()?.host().map(str::to_owned)
    }

    /// Whether connections to it are encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.url.starts_with("https://")
    }

    /// Fails when the URL is not valid.
    pub fn check(&self) -> Result<(), ClientError> {
        self.plain().map(drop)
    }

    /// The endpoint, with TLS by these certificates of the CA, in PEM. `None`: without encryption.
    pub fn endpoint(&self, ca: Option<&[u8]>) -> Result<Endpoint, ClientError> {
        let endpoint = self.plain()?;
        let Some(ca) = ca else { return Ok(endpoint) };
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca));
        let tls = match &self.name {
            Some(name) => tls.domain_name(name),
            None => tls,
        };
        endpoint.tls_config(tls).map_err(|source| ClientError::Certificates { url: self.url.clone(), source })
    }

    fn plain(&self) -> Result<Endpoint, ClientError> {
        let endpoint = Endpoint::from_shared(self.url.clone()).map_err(|source| ClientError::Address { url: self.url.clone(), source })?;
        let Limits { connect, answer, keep_alive, keep_alive_while_idle } = self.limits;
        let endpoint = endpoint.connect_timeout(connect).keep_alive_while_idle(keep_alive_while_idle);
        let endpoint = match answer {
            Some(answer) => endpoint.timeout(answer),
            None => endpoint,
        };
        Ok(match keep_alive {
            Some(interval) => endpoint.http2_keep_alive_interval(interval),
            None => endpoint,
        })
    }
}

/// One connection to a service, which is made when it is first needed, and anew when the CA's certificates have changed.
#[derive(Debug)]
pub struct Connection {
    address: Address,
    made: Mutex<Option<Made>>,
}

/// A connection, and the certificates by which it was made.
#[derive(Debug)]
struct Made {
    ca: Option<Vec<u8>>,
    channel: Channel,
}

impl Connection {
    pub fn to(address: Address) -> Self {
        Self { address, made: Mutex::new(None) }
    }

    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The connection that was made with these certificates of the CA. `connect` makes one when there is none yet; it must not block.
    pub fn channel(&self, ca: Option<&[u8]>, connect: impl FnOnce(Endpoint) -> Channel) -> Result<Channel, ClientError> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = &*made
            && made.ca.as_deref() == ca
        {
            return Ok(made.channel.clone());
        }
        let channel = connect(self.address.endpoint(ca)?);
        *made = Some(Made { ca: ca.map(<[u8]>::to_vec), channel: channel.clone() });
        Ok(channel)
    }
}

/// The certificates of the CA, as they stand in their file now.
pub async fn read_ca(path: &Path) -> Result<Vec<u8>, ClientError> {
    tokio::fs::read(path).await.map_err(|source| ClientError::CaFile { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const LIMITS: Limits = Limits { connect: Duration::from_secs(1), answer: None, keep_alive: None, keep_alive_while_idle: false };

    #[tokio::test]
    async fn a_connection_is_made_anew_only_for_other_certificates() {
        let connection = Connection::to(Address::new("http://localhost:1".into(), LIMITS));
        let made = Cell::new(0);
        let connect = |endpoint: Endpoint| {
            made.set(made.get() + 1);
            endpoint.connect_lazy()
        };
        for (ca, expected) in [(None, 1), (None, 1), (Some(&b""[..]), 2), (Some(&b""[..]), 2), (None, 3)] {
            connection.channel(ca, connect).unwrap();
            assert_eq!(made.get(), expected, "{ca:?}");
        }
    }

    #[test]
    fn what_is_no_url_says_what_one_is() {
        let error = Address::new("tsujiban backup".into(), LIMITS).check().unwrap_err();
        assert!(error.to_string().contains("write a URL such as https://"), "{error}");
    }
}
