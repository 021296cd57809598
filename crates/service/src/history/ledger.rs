//! Where entries go, and what a refusal of them is about.

use async_trait::async_trait;
use tsujiban_proto::audit::v1::{CoveredRequest, CoveredResponse, NewEntry};
use tsujiban_proto::error::ServiceError;

/// The reason of a refusal of entries of one log, while all others are taken.
pub const LOG_REFUSED: &str = "LOG_REFUSED";
/// The history came back from the bucket, and the operator has not said yet which log is the group's. It says so by this method.
pub(super) const UNCLAIMED: &str = "UNCLAIMED";
/// The reason of a refusal while a log's row names another group than its seal: Prepare says which log is the group's.
pub(super) const OTHER_OWNER: &str = "OTHER_OWNER";

/// Where entries go: the audit service, or within it its own engine.
#[async_trait]
pub trait Ledger: Send + Sync + 'static {
    /// Adds entries, all or none, and answers when they are durable. An entry whose id is there already is not added again.
    /// `Kind::Invalid`: it will never take one of them.
    async fn append(&self, entries: Vec<NewEntry>) -> Result<(), ServiceError>;

    /// Whether root lists cover entries, by their ids. `Kind::Precondition`: it does not know which history is the newest.
    async fn covered(&self, request: CoveredRequest) -> Result<CoveredResponse, ServiceError>;
}

/// Whether entries were refused for a reason of their log alone, so that those of others would be taken.
pub(super) fn concerns_one_log(error: &ServiceError) -> bool {
    matches!(error.reason.as_str(), LOG_REFUSED | "DAMAGED" | UNCLAIMED | OTHER_OWNER | "KEYS")
}
