//! Routers that misbehave: `strange-router` at an address of the cluster's node.

use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::stage::Stage;

/// A running `strange-router`. It goes when this value goes.
pub struct Strange {
    enter: Command,
    address: String,
    child: Child,
}

impl Strange {
    pub fn up(stage: &Stage, address: &str, behaviour: &str) -> Result<Self> {
        let enter = || {
            let mut command = Command::new(stage.checkout.join("e2e/cluster/enter"));
            command.arg("--state").arg(&stage.state);
            command
        };
        let program = stage.cli.with_file_name("strange-router");
        ensure!(program.exists(), "{} is missing; run `make test-e2e`", program.display());
        let script = "ip address replace \"$2/32\" dev lo; exec timeout 900 \"$1\" \"$2:22\" \"$3\"";
        let child = enter()
            .args(["sh", "-c", script, "sh"])
            .arg(&program)
            .args([address, behaviour])
            .stdout(Stdio::null())
            .spawn()
            .context("strange-router")?;
        let mut end = enter();
        end.args(["pkill", "-f", &format!("strange-router {address}:22")]);
        Ok(Self { enter: end, address: address.to_owned(), child })
    }
}

impl Drop for Strange {
    fn drop(&mut self) {
        let ended = self.enter.status().and_then(|_| self.child.wait());
        if let Err(error) = ended {
            eprintln!("strange router {} stays: {error}", self.address);
        }
    }
}
