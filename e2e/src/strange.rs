//! Routers that misbehave: `strange-router` at an address of the cluster's node.

use std::process::Stdio;

use anyhow::{Result, ensure};

use crate::inside::Inside;
use crate::stage::Stage;

/// A running `strange-router`. It ends when this value is dropped.
pub struct Strange {
    _program: Inside,
}

impl Strange {
    pub fn up(stage: &Stage, address: &str, behaviour: &str) -> Result<Self> {
        let added = Inside::enter(stage).args(["ip", "address", "replace", &format!("{address}/32"), "dev", "lo"]).status()?;
        ensure!(added.success(), "the node does not take the address {address}: {added}");
        let program = Inside::start(stage, "strange-router", &[&format!("{address}:22"), behaviour], Stdio::null())?;
        Ok(Self { _program: program })
    }
}
