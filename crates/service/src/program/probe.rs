//! Whether a service answers, as a client inside the cluster sees it: what `helm test` runs.

use std::path::PathBuf;
use std::time::Duration;
use std::{fs, io};

use clap::Args;
use tonic::Code;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};
use tsujiban_proto::lifecycle::v1::ReportRequest;
use tsujiban_proto::lifecycle::v1::lifecycle_service_client::LifecycleServiceClient;

const DEADLINE: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Args)]
pub struct ProbeArgs {
    /// The service's URL, such as https://tsujiban-backup.tsujiban-system.svc:8443.
    #[arg(long, env = "TSUJIBAN_ENDPOINT")]
    pub endpoint: String,
    /// The certificates of the internal authority.
    #[arg(long, env = "TSUJIBAN_CA_FILE")]
    pub ca_file: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error("{path} cannot be read; the operator writes it into ConfigMap tsujiban-ca")]
    Ca { path: PathBuf, source: io::Error },
    #[error("{endpoint} does not answer over TLS; look at the pods of the service and at the network policies")]
    NoAnswer { endpoint: String, source: tonic::transport::Error },
    #[error("a call without a token was answered with {0:?}, and must be refused as unauthenticated; do not use this service")]
    NotRefused(Code),
}

/// Calls any service of ours, for all have a lifecycle, over TLS without a token, which it must refuse: so it is there, has its certificate, and guards its door.
pub async fn probe(args: &ProbeArgs) -> Result<(), ProbeError> {
    let no_answer = |source| ProbeError::NoAnswer { endpoint: args.endpoint.clone(), source };
    let ca = fs::read(&args.ca_file).map_err(|source| ProbeError::Ca { path: args.ca_file.clone(), source })?;
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca));
    let endpoint = Endpoint::from_shared(args.endpoint.clone()).map_err(no_answer)?;
    let channel =
        endpoint.timeout(DEADLINE).connect_timeout(DEADLINE).tls_config(tls).map_err(no_answer)?.connect().await.map_err(no_answer)?;
    match LifecycleServiceClient::new(channel).report(ReportRequest::default()).await {
        Err(status) if status.code() == Code::Unauthenticated => Ok(()),
        Err(status) => Err(ProbeError::NotRefused(status.code())),
        Ok(_) => Err(ProbeError::NotRefused(Code::Ok)),
    }
}
