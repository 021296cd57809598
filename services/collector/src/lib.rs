//! The collector: one Job a group that fetches the configs of the group's devices over SSH and hands them to the backup service.
//!
//! It holds no key that seals and no credential of the object storage. The modules that decide ([`plan`], [`hostkey`], [`screen`],
//! [`summary`]) are pure; those that do I/O ([`cluster`], [`network`], [`ssh`], [`backup`]) are thin.
//!
//! One device, in order: [`network`] resolves and checks its address, [`cluster`] reads its credentials, [`backup`] says which
//! host key to expect, [`ssh`] connects and logs in, [`driver`] fetches, [`backup`] stores or records why not. [`attempt`]
//! is that order; [`collection`] runs it for all devices of the group.

pub mod attempt;
pub mod backup;
pub mod cluster;
pub mod collection;
pub mod credentials;
pub mod driver;
pub mod hostkey;
pub mod network;
pub mod outcome;
pub mod plan;
pub mod random;
pub mod screen;
pub mod settings;
pub mod shell;
pub mod ssh;
pub mod summary;
pub mod target;
