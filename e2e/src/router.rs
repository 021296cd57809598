//! Real routers: FRR behind OpenSSH, outside the pod network.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::stage::Stage;

/// A running router. It ends when this value is dropped.
pub struct Router {
    name: String,
    state: PathBuf,
    command: PathBuf,
    /// Its host key, in OpenSSH format without comment.
    pub host_key: String,
}

/// How people log in to a router.
pub enum Login<'a> {
    /// With the key whose public half is given.
    Key(&'a str),
    Password(&'a str),
}

impl Router {
    /// Starts a router with user `tsujiban`. Names are at most 13 characters.
    pub fn up(stage: &Stage, name: &str, address: &str, login: &Login<'_>) -> Result<Self> {
        let mut router = Self {
            name: name.to_owned(),
            state: stage.state.clone(),
            command: stage.checkout.join("e2e/cluster/router"),
            host_key: String::new(),
        };
        let key_file = tempfile::NamedTempFile::new()?;
        let key_path = key_file.path().to_string_lossy().into_owned();
        let login: [&str; 2] = match login {
            Login::Key(public) => {
                std::fs::write(&key_path, format!("{public}\n"))?;
                ["--authorized-key", &key_path]
            }
            Login::Password(password) => ["--password", password],
        };
        router.run(&["up", name, "--address", address, "--user", "tsujiban", login[0], login[1]])?;
        router.host_key = router.read_host_key()?;
        Ok(router)
    }

    /// Lets only this key log in from now on, as an administrator of the router does when a new key pair was made.
    pub fn authorize(&self, public_key: &str) -> Result<()> {
        let enter = self.command.with_file_name("enter");
        let write = format!("echo '{public_key}' >/run/routers/{}/authorized_keys", self.name);
        let output = Command::new(enter).arg("--state").arg(&self.state).args(["sh", "-c", &write]).output().context("enter")?;
        ensure!(output.status.success(), "authorize: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// Applies lines in configuration mode.
    pub fn configure(&self, lines: &[&str]) -> Result<()> {
        let mut arguments = vec!["config", &self.name];
        arguments.extend(lines);
        self.run(&arguments)
    }

    fn read_host_key(&self) -> Result<String> {
        let line = std::fs::read_to_string(self.state.join("routers").join(&self.name).join("hostkey.pub"))?;
        let words: Vec<&str> = line.split_whitespace().take(2).collect();
        ensure!(words.len() == 2, "router {} has no host key", self.name);
        Ok(words.join(" "))
    }

    fn run(&self, arguments: &[&str]) -> Result<()> {
        let output = Command::new(&self.command).arg("--state").arg(&self.state).args(arguments).output().context("router")?;
        ensure!(output.status.success(), "router {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        if let Err(error) = self.run(&["down", &self.name]) {
            eprintln!("router {} stays: {error:#}", self.name);
        }
    }
}
