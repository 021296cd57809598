//! What the end-to-end tests share. They know the kinds, the contracts and the outside, and no other code of ours.
//!
//! A test needs a cluster with Tsujiban in it: `make test-e2e` starts both and says where they are by environment.

pub mod calls;
pub mod inside;
pub mod manifests;
pub mod pod;
pub mod router;
pub mod stage;
pub mod strange;
pub mod wait;
