//! What the end-to-end tests share. They know the kinds, the contracts and the public interfaces, and no other code of ours.
//!
//! A test needs a cluster with Tsujiban in it: `make test-e2e` starts both and names them in environment variables.

pub mod calls;
pub mod inside;
pub mod manifests;
pub mod pod;
pub mod router;
pub mod stage;
pub mod strange;
pub mod wait;
