//! Notes for every put whether the storage accepted it.

use async_trait::async_trait;
use tsujiban_core::error::chain;
use tsujiban_objects::{AfterPut, LockUntil, StoreError, Version};
use tsujiban_service::writing::{Resource, WriteState};

/// Notes whether the storage accepts objects. It is called for `put`, not for `put_new`.
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
