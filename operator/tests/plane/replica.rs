//! An operator in a process of its own, as the Deployment starts it, that can be stopped and killed.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use tsujiban_plane::wait::until;

/// A running replica. It ends with this value.
pub struct Replica {
    /// The name of its pod, by which the lease and the audit log know it.
    pub name: String,
    log: PathBuf,
    child: Child,
}

impl Replica {
    /// Starts a replica that talks to the apiserver by `kubeconfig`, with its log in `dir`.
    pub fn start(name: &str, kubeconfig: &Path, backup: &str, dir: &Path) -> Self {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let log = dir.join(format!("{name}.log"));
        let output = File::create(&log).unwrap();
        let child = Command::new("setpriv") // the kernel ends it when the test is killed
            .args(["--pdeathsig", "KILL", env!("CARGO_BIN_EXE_tsujiban-operator")])
            .args(["--environment=trial", "--collector-image=tsujiban-collector:plane", "--namespace=tsujiban-system"])
            .arg("--forbidden-cidrs=10.244.0.0/16,10.96.0.0/16,10.255.255.0/24")
            .arg(format!("--services=backup={backup}"))
            .arg(concat!("--token-dir=", env!("CARGO_MANIFEST_DIR"), "/tests/plane/tokens"))
            .arg(format!("--listen={listen}"))
            .env_clear()
            .envs([("KUBECONFIG", kubeconfig.as_os_str()), ("HOSTNAME", name.as_ref())])
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap();
        Self { name: name.to_owned(), log, child }
    }

    /// Sends a signal, such as `TERM` or `STOP`.
    pub fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args(["-s", signal, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success(), "{signal} to {}", self.name);
    }

    /// Waits until it has ended by itself.
    pub async fn ended(&mut self, limit: Duration) -> ExitStatus {
        let (name, child) = (&self.name, std::cell::RefCell::new(&mut self.child));
        until(&format!("{name} ends"), limit, || async { Ok(child.borrow_mut().try_wait()?) }).await.unwrap()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _status = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the end of {}'s log:", self.name);
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            lines[lines.len().saturating_sub(12)..].iter().for_each(|line| eprintln!("{line}"));
        }
    }
}
