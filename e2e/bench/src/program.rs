//! Runs programs that are measured, and ends them when they do not end by themselves.

use std::ffi::OsStr;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// What coreutils' `timeout` answers when it had to end the program.
const TIMED_OUT: i32 = 124;

/// A program that is ended after `patience`, with an empty environment and without input.
pub fn bounded(program: impl AsRef<OsStr>, patience: Duration) -> Command {
    let mut command = Command::new("timeout");
    command.arg("--kill-after=10").arg(patience.as_secs().to_string()).arg(program).env_clear().stdin(Stdio::null());
    command
}

/// Waits for its end, beside everything else that goes on.
pub async fn output(mut command: Command) -> Result<Output> {
    let output = tokio::task::spawn_blocking(move || command.output()).await?.context("timeout; install coreutils")?;
    ensure!(output.status.code() != Some(TIMED_OUT), "it did not end in time");
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_program_that_does_not_end_is_ended() {
        let mut endless = bounded("/bin/sleep", Duration::from_secs(1));
        endless.arg("600");
        assert!(output(endless).await.unwrap_err().to_string().contains("did not end"));
        let mut quick = bounded("/bin/echo", Duration::from_mins(1));
        quick.arg("hello");
        assert_eq!(output(quick).await.unwrap().stdout, b"hello\n");
    }
}
