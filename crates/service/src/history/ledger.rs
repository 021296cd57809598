//! The destination of entries, and the reasons for which it refuses them.

use async_trait::async_trait;
use tsujiban_proto::audit::v1::{CoveredRequest, CoveredResponse, NewEntry};
use tsujiban_proto::error::ServiceError;

/// The reason of a refusal of entries of one log, while those of all other logs are accepted.
pub const LOG_REFUSED: &str = "LOG_REFUSED";
/// The history was restored from the bucket, and the operator has not named the group's log yet. It does so by calling Prepare.
pub(super) const UNCLAIMED: &str = "UNCLAIMED";
/// The reason of a refusal while a log's row names another group than its seal: Prepare says which log is the group's.
pub(super) const OTHER_OWNER: &str = "OTHER_OWNER";

/// The destination of entries: the audit service, or inside the audit service its own engine.
#[async_trait]
pub trait Ledger: Send + Sync + 'static {
    /// Adds entries, all or none, and returns when they are durable. An entry whose id the ledger already has is not added again.
    /// `Kind::Invalid`: the ledger will never accept one of them.
    async fn append(&self, entries: Vec<NewEntry>) -> Result<(), ServiceError>;

    /// Whether root lists cover entries, by their ids. `Kind::Precondition`: the ledger does not know which history is the newest.
    async fn covered(&self, request: CoveredRequest) -> Result<CoveredResponse, ServiceError>;
}

/// Whether entries were refused for a reason of their log alone, so that those of other logs would be accepted.
pub(super) fn concerns_one_log(error: &ServiceError) -> bool {
    matches!(error.reason.as_str(), LOG_REFUSED | "DAMAGED" | UNCLAIMED | OTHER_OWNER | "KEYS")
}
