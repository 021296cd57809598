//! The operator's binary as a process, and what it says of itself.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tsujiban_plane::wait::until;
use tsujiban_plane::{Plane, SYSTEM};

use super::declare::Size;

const SOON: Duration = Duration::from_mins(5);

/// How often each kind was reconciled.
#[derive(Debug, Clone, Copy)]
pub struct Reconciles {
    pub tenants: f64,
    pub devices: f64,
}

impl Reconciles {
    pub fn total(self) -> f64 {
        self.tenants + self.devices
    }
}

/// A running operator that leads. It ends with this value.
pub struct Operator {
    child: Ends,
    pid: u32,
    metrics: SocketAddr,
}

impl Operator {
    /// Starts the binary that lies beside this one.
    pub async fn start(plane: &Plane, endpoint: &str) -> Result<Self> {
        let binary = std::env::current_exe()?.with_file_name("tsujiban-operator");
        let metrics = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let tokens = plane.dir().join("tokens");
        std::fs::create_dir_all(tokens.join("backup"))?;
        std::fs::write(tokens.join("backup/token"), "token")?;
        let log = std::fs::File::options().create(true).append(true).open(plane.dir().join("operator.log"))?;
        let mut command = Command::new(&binary);
        command
            .args(["--environment=trial", "--collector-image=tsujiban-collector:bench", "--log-level=warn"])
            .arg("--forbidden-cidrs=10.244.0.0/16,10.96.0.0/16,10.255.255.0/24")
            .arg(format!("--services=backup={endpoint}"))
            .arg(format!("--token-dir={}", tokens.display()))
            .arg(format!("--listen={metrics}"))
            .env("KUBECONFIG", plane.operator().await?.kubeconfig)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let child = command.spawn().with_context(|| format!("cannot start {}: run make bench", binary.display()))?;
        let pid = child.id();
        Ok(Self { child: Ends(child), pid, metrics })
    }

    /// Ends it as Kubernetes does.
    pub async fn stop(mut self) -> Result<()> {
        let asked = Command::new("kill").args(["-TERM", &self.pid.to_string()]).status()?;
        ensure!(asked.success(), "the operator had ended already");
        tokio::task::spawn_blocking(move || self.child.0.wait()).await??;
        Ok(())
    }

    /// Resident memory in MiB.
    pub fn rss(&self) -> Result<f64> {
        rss(self.pid)
    }

    pub async fn reconciles(&self) -> Result<Reconciles> {
        let text = self.text().await?;
        let of = |kind: &str| {
            let name = format!("tsujiban_operator_reconciles_total{{kind=\"{kind}\"}} ");
            text.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap_or(0.0)
        };
        Ok(Reconciles { tenants: of("Tenant"), devices: of("Device") })
    }

    /// Waits until as many reconciles have happened as there are objects.
    pub async fn has_reconciled(&self, size: Size) -> Result<()> {
        until("everything to be reconciled", SOON, || async {
            let done = self.reconciles().await?;
            Ok((done.tenants >= f64::from(size.tenants) && done.devices >= f64::from(size.devices)).then_some(()))
        })
        .await
    }

    /// How many writes the apiserver has recorded of it, its lease left out.
    #[allow(clippy::unused_self)] // there is one operator at a time
    pub fn writes(&self, plane: &Plane) -> Result<usize> {
        let writes = plane.audit.writes_of(&format!("system:serviceaccount:{SYSTEM}:tsujiban-operator"))?;
        Ok(writes.iter().filter(|write| write.resource != "leases").count())
    }

    async fn text(&self) -> Result<String> {
        let mut stream = TcpStream::connect(self.metrics).await?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: operator\r\nconnection: close\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }
}

/// A program that ends with this value.
pub struct Ends(pub Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ended_already = self.0.kill();
        let _status = self.0.wait();
    }
}

/// Resident memory of a process in MiB.
pub fn rss(pid: u32) -> Result<f64> {
    let file = Path::new("/proc").join(pid.to_string()).join("status");
    let status = std::fs::read_to_string(&file).with_context(|| format!("no process {pid}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or_else(|| anyhow!("{} says nothing", file.display()))?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib / 1024.0)
}
