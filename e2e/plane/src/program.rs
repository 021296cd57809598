//! Programs that end with the test, however it ends.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, bail};

const LOOK: Duration = Duration::from_millis(20);

/// A running program.
pub(crate) struct Program {
    log: PathBuf,
    stop: mpsc::Sender<()>,
    thread: Option<JoinHandle<Option<ExitStatus>>>,
}

impl Program {
    /// Starts a program with its output in `log`.
    ///
    /// A thread of its own starts it and stays until it ends: the kernel kills it when that thread is gone, so that nothing is
    /// left behind by a test that was killed.
    pub fn start(program: &Path, arguments: &[String], log: &Path) -> Result<Self> {
        let output = File::options().create(true).append(true).open(log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(program).args(arguments);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", log.parent().unwrap_or(Path::new("/")));
        // these are Go programs, which would spend a fifth of their time on collecting memory that nothing else needs
        command.env("GOGC", "400").env("GOMEMLIMIT", "6GiB");
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let (stop, stopped) = mpsc::channel();
        let (started_in, started) = mpsc::channel();
        let thread = thread::spawn(move || {
            let mut child = match command.spawn() {
                Ok(child) => child,
                Err(error) => {
                    let _gone = started_in.send(Err(error));
                    return None;
                }
            };
            let _gone = started_in.send(Ok(()));
            loop {
                if let Ok(Some(status)) = child.try_wait() {
                    return Some(status);
                }
                if !matches!(stopped.recv_timeout(LOOK), Err(RecvTimeoutError::Timeout)) {
                    let _ended_already = child.kill();
                    return child.wait().ok();
                }
            }
        });
        started.recv().context("the thread of the program ended")?.with_context(|| format!("cannot start {}", program.display()))?;
        Ok(Self { log: log.to_owned(), stop, thread: Some(thread) })
    }

    /// Fails with the end of the log when the program has ended by itself.
    pub fn check(&self) -> Result<()> {
        if self.thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
            return Ok(());
        }
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let end = lines.get(lines.len().saturating_sub(15)..).unwrap_or_default().join("\n");
        bail!("a program ended by itself; the end of {}:\n{end}", self.log.display())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ended = self.stop.send(());
        if let Some(thread) = self.thread.take() {
            let _status = thread.join();
        }
    }
}
