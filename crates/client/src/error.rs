//! Why a service cannot be called, and why a call failed.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use tonic::Status;
use tonic::metadata::errors::InvalidMetadataValue;
use tsujiban_api::names::CA_CONFIGMAP;
use tsujiban_core::error::chain;
use tsujiban_proto::error::ServiceError;

/// Why a service cannot be called: what a call needs is not there, or is not what it has to be.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("{url:?} is no address of a service; write a URL such as https://tsujiban-backup.tsujiban-system.svc:8443")]
    Address { url: String, source: tonic::transport::Error },
    #[error("the CA's certificates in {path} cannot be read; check the ConfigMap {CA_CONFIGMAP}, which is mounted there")]
    CaFile { path: PathBuf, source: io::Error },
    #[error("the CA's certificates for {url} cannot be used; check the ConfigMap {CA_CONFIGMAP}")]
    Certificates { url: String, source: tonic::transport::Error },
    #[error("the token in {path} cannot be read; check the volume that is mounted there")]
    TokenFile { path: PathBuf, source: io::Error },
    #[error("{path} holds no token; check the volume that is mounted there")]
    NoToken { path: PathBuf, source: InvalidMetadataValue },
}

/// Why the connection of a call broke, when the status does not come from the service. The status of a broken connection itself says next
/// to nothing.
pub fn broken(status: &Status) -> Option<String> {
    status.source().map(chain)
}

/// The error that the service answered, or that of the connection to it.
pub fn service_error(status: &Status) -> ServiceError {
    let mut error = ServiceError::from(status);
    if let Some(cause) = broken(status) {
        error.message = cause;
    }
    error
}

#[cfg(test)]
mod tests {
    use tsujiban_proto::error::Kind;

    use super::*;

    #[test]
    fn a_service_is_quoted_and_a_broken_connection_is_explained() {
        let said = ServiceError::new(Kind::Denied, "MISSING_RIGHT", "ask for the right");
        assert_eq!(service_error(&Status::from(said.clone())), said);
        let broke = Status::from_error(Box::new(io::Error::other("reset by peer")));
        assert_eq!(service_error(&broke).message, "reset by peer");
        assert_eq!((broken(&broke).as_deref(), broken(&Status::internal("x"))), (Some("reset by peer"), None));
    }
}
