//! A real Kubernetes control plane without nodes, on loopback: etcd, the apiserver and the controller manager, with our CRDs, policies and
//! roles in it. And a stand-in for the backup service. For tests of what the operator does when its environment fails.
//!
//! The programs are those of the test cluster (`e2e/cluster/build`).

pub mod audit;
pub mod backup;
pub mod fault;
pub mod history;
mod kubeconfig;
mod pki;
mod plane;
mod program;
pub mod wait;

pub use plane::{Access, Parts, Plane, SYSTEM};
