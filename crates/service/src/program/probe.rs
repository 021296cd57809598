//! Whether a service answers, as a client inside the cluster sees it: what `helm test` runs.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use tonic::Code;
use tsujiban_client::{Address, ClientError, Limits, read_ca};
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
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("{endpoint} does not answer over TLS; look at the pods of the service and at the network policies")]
    NoAnswer { endpoint: String, source: tonic::transport::Error },
    #[error("a call without a token was answered with {0:?}, and must be refused as unauthenticated; do not use this service")]
    NotRefused(Code),
}

/// Calls the lifecycle contract, which all services have, over TLS without a token. A refusal shows that the service runs, has its
/// certificate, and checks tokens.
pub async fn probe(args: &ProbeArgs) -> Result<(), ProbeError> {
    let ca = read_ca(&args.ca_file).await?;
    let limits = Limits { connect: DEADLINE, answer: Some(DEADLINE), keep_alive: None, keep_alive_while_idle: false };
    let endpoint = Address::new(args.endpoint.clone(), limits).endpoint(Some(&ca))?;
    let channel = endpoint.connect().await.map_err(|source| ProbeError::NoAnswer { endpoint: args.endpoint.clone(), source })?;
    match LifecycleServiceClient::new(channel).report(ReportRequest::default()).await {
        Err(status) if status.code() == Code::Unauthenticated => Ok(()),
        Err(status) => Err(ProbeError::NotRefused(status.code())),
        Ok(_) => Err(ProbeError::NotRefused(Code::Ok)),
    }
}
