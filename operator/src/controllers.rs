//! The controllers, one a kind that people declare.

pub mod device;
pub mod site;
pub mod tenant;
