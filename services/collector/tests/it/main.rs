//! The collector against simulated routers, a simulated backup service over TLS, and a simulated apiserver.

// a test fails by panicking; clippy.toml allows this in functions marked as tests, and most of what stands here helps them
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod apiserver;
mod backup;
mod dead;
mod erased;
mod faults;
mod good;
mod hostkeys;
mod many;
mod router;
mod script;
mod stop;
mod typing;
mod world;
