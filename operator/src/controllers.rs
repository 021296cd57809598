//! The controllers, one for each kind that people declare.

pub mod device;
pub mod site;
pub mod tenant;
