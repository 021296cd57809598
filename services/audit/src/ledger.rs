//! The audit service as its own ledger: operations on it are recorded in its own history.

use async_trait::async_trait;
use tsujiban_proto::audit::v1::{CoveredRequest, CoveredResponse, NewEntry};
use tsujiban_proto::error::ServiceError;
use tsujiban_service::history::Ledger;

use crate::engine::{EngineError, Phase, Standing};
use crate::error::{Error, Result};
use crate::rpc;
use crate::service::Audit;

/// The audit service records operations on itself in its own history.
#[async_trait]
impl Ledger for Audit {
    async fn append(&self, entries: Vec<NewEntry>) -> Result<(), ServiceError> {
        let are_all = |method| entries.iter().all(|entry| entry.operation.as_ref().is_some_and(|operation| operation.method == method));
        let way_back = are_all("DeclareGap");
        let additions = entries.into_iter().map(rpc::addition).collect::<Result<Vec<_>>>()?;
        let intents = additions.iter().all(|addition| addition.phase == Phase::Intent);
        if way_back && intents {
            // the intent cannot be added before the gap: it is held, and added right after it
            if self.engine.standing() != Standing::Sound {
                self.hold(additions);
                return Ok(());
            }
            match self.engine.append(additions.clone()).await {
                Err(EngineError::LogRefused { .. }) => self.hold(additions),
                done => drop(done.map_err(Error::from)?),
            }
            return Ok(());
        }
        self.append_all(additions).await?;
        Ok(())
    }

    async fn covered(&self, request: CoveredRequest) -> Result<CoveredResponse, ServiceError> {
        let groups = self.coverage(&rpc::asked(&request.logs)?).await?;
        Ok(CoveredResponse { logs: groups.iter().map(rpc::coverage).collect() })
    }
}
