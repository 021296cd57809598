//! Programs of ours that run in the cluster's namespaces.

use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::stage::Stage;

/// A program that runs in the cluster's namespaces, for a quarter of an hour at most. It ends when this value is dropped.
pub struct Inside {
    line: String,
    end: Command,
    child: Child,
}

impl Inside {
    /// A command in the cluster's namespaces.
    pub fn enter(stage: &Stage) -> Command {
        let mut command = Command::new(stage.checkout.join("e2e/cluster/enter"));
        command.arg("--state").arg(&stage.state);
        command
    }

    /// Starts one of our own binaries. What it prints goes to `stdout`.
    pub fn start(stage: &Stage, program: &str, arguments: &[&str], stdout: Stdio) -> Result<Self> {
        let path = stage.cli.with_file_name(program);
        ensure!(path.exists(), "{} is missing; run `make test-e2e`", path.display());
        let mut start = Self::enter(stage);
        start.args(["timeout", "900"]).arg(&path).args(arguments).stdout(stdout);
        let child = start.spawn().with_context(|| program.to_owned())?;
        let line = format!("{program} {}", arguments.join(" "));
        let mut end = Self::enter(stage);
        end.args(["pkill", "-f", &line]);
        Ok(Self { line, end, child })
    }

    /// The program's output, where that is piped; only once.
    pub fn output(&mut self) -> Result<ChildStdout> {
        self.child.stdout.take().with_context(|| format!("nobody can read the output of {}", self.line))
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        if let Err(error) = self.end.status().and_then(|_| self.child.wait()) {
            eprintln!("{} stays: {error}", self.line);
        }
    }
}
