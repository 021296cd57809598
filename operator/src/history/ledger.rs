//! The audit service, for [`Acknowledged`](super::Acknowledged).

use async_trait::async_trait;
use tsujiban_core::error::chain;
use tsujiban_proto::audit::v1::{CoveredRequest, CoveredResponse, NewEntry};
use tsujiban_proto::error::{Kind, ServiceError};
use tsujiban_service::history::Ledger;

use crate::services::client::{CallError, ServiceClient};

#[async_trait]
impl Ledger for ServiceClient {
    async fn append(&self, entries: Vec<NewEntry>) -> Result<(), ServiceError> {
        Self::append(self, entries).await.map(drop).map_err(failure)
    }

    async fn covered(&self, request: CoveredRequest) -> Result<CoveredResponse, ServiceError> {
        Self::covered(self, request).await.map_err(failure)
    }
}

fn failure(error: CallError) -> ServiceError {
    match error {
        CallError::Service { error, .. } => error,
        other => ServiceError::new(Kind::Unavailable, "NOT_CALLED", chain(&other)),
    }
}
