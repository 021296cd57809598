//! Notes of every put whether the storage took it.

use async_trait::async_trait;
use tsujiban_core::error::chain;
use tsujiban_objects::{AfterPut, LockUntil, StoreError, Version};
use tsujiban_service::writing::{Resource, WriteState};

/// Notes whether the storage takes objects. That one is there already (`put_new`) is an answer, too.
pub(crate) struct Noting(pub WriteState);

#[async_trait]
impl AfterPut for Noting {
    async fn after_put(&self, _: &str, _: Option<LockUntil>, put: Result<Version, StoreError>) -> Result<Version, StoreError> {
        match &put {
            Ok(_) => self.0.works(Resource::Storage),
            Err(error) => self.0.fails(Resource::Storage, format!("the storage took no object ({}); it is tried again", chain(error))),
        }
        put
    }
}
