//! What an object's status says of the operation history.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// The newest spec that is in the operation history.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Recorded {
    /// Its generation.
    pub generation: i64,
    /// Its SHA-256, as the history names it: 64 hex digits.
    #[schemars(length(max = 64))]
    pub digest: String,
}
