//! One behaviour a file, on a real cluster. Run by `make test-e2e`.

mod bad_manifests;
mod bill;
mod collection;
mod conformance;
mod edge;
mod erasure;
mod faults;
mod history;
mod isolation;
mod kept_secret;
mod outages;
mod reconcile;
mod release;
mod replicas;
mod staff;
mod traces;
