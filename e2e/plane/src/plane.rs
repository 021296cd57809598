//! The control plane itself.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::PostParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::Value;
use tempfile::TempDir;

use crate::audit::{self, Audit};
use crate::kubeconfig::{Credential, kubeconfig};
use crate::pki::{self, Pki};
use crate::program::Program;
use crate::wait::until;

/// The namespace that our charts are installed in.
pub const SYSTEM: &str = "tsujiban-system";

const START: Duration = Duration::from_secs(90);
/// The address in EndpointSlice default/kubernetes. Nothing listens there: the apiserver refuses to announce a loopback address.
const ANNOUNCED: &str = "10.255.255.1";
const VALUES: &str = "
network:
  forbiddenCIDRs: [10.244.0.0/16, 10.96.0.0/16, 10.255.255.0/24]
  apiserverCIDRs: [10.255.255.1/32]
s3:
  endpoint: https://10.255.255.1:7070
  egressCIDRs: [10.255.255.1/32]
staff:
- {name: tests, verbs: [list, get, verify, update, erase, reveal]}
images:
  operator: {tag: plane}
  backup: {tag: plane}
  collector: {tag: plane}
";

/// Which part of the control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parts {
    Apiserver,
    Everything,
}

/// Access to the apiserver: a configuration for clients, and a kubeconfig for programs.
#[derive(Clone)]
pub struct Access {
    pub config: Config,
    pub kubeconfig: PathBuf,
}

impl Access {
    pub fn client(&self) -> Result<Client> {
        Ok(Client::try_from(self.config.clone())?)
    }
}

/// A running control plane. It ends with this value, and at the latest with the process.
pub struct Plane {
    dir: TempDir,
    checkout: PathBuf,
    bin: PathBuf,
    pki: Pki,
    port: u16,
    etcd_ports: [u16; 2],
    controllers_port: u16,
    etcd: Option<Program>,
    apiserver: Option<Program>,
    controllers: Option<Program>,
    pub admin: Access,
    pub audit: Audit,
}

/// A Tenant that the apiserver accepts.
const NOBODY: &str = r#"{"apiVersion": "tsujiban.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": "nobody"}, "spec": {"displayName": "Nobody",
"plan": "Free", "contact": {"email": "nobody@example.co.jp"}, "network": {"deviceCIDRs": ["172.20.250.0/24"]}}}"#;

impl Plane {
    /// Starts a control plane with our CRDs, policies and roles as the charts of this checkout install them.
    pub async fn start() -> Result<Self> {
        let plane = Self::start_empty().await?;
        plane.install(&plane.checkout).await?;
        Ok(plane)
    }

    /// Starts a control plane with nothing of ours in it.
    pub async fn start_empty() -> Result<Self> {
        let mut plane = Self::prepare().await?;
        plane.resume().await?;
        Ok(plane)
    }

    /// Starts a control plane on what [`Plane::archive`] wrote.
    pub async fn start_from(archive: &Path) -> Result<Self> {
        let mut plane = Self::prepare().await?;
        run(Command::new("tar").arg("--extract").arg("--gzip").arg("--file").arg(archive).arg("--directory").arg(plane.dir.path()))?;
        plane.resume().await?;
        Ok(plane)
    }

    /// All but the start of the programs.
    async fn prepare() -> Result<Self> {
        let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).context("checkout")?.to_owned();
        let bin = PathBuf::from(run(Command::new(checkout.join("e2e/cluster/path")).arg("bin"))?.trim());
        for program in ["etcd", "kube-apiserver", "kube-controller-manager", "kubectl", "helm"] {
            let build = "e2e/cluster/build etcd kube-apiserver kube-controller-manager kubectl helm";
            ensure!(bin.join(program).exists(), "{} is missing: run {build}", bin.join(program).display());
        }
        let dir = tempfile::Builder::new().prefix("tsujiban-plane-").tempdir()?;
        let pki = Pki::new()?;
        let [port, etcd_client, etcd_peer, controllers_port] = free_ports()?;
        let admin_identity = pki.identity("admin", Some("system:masters"), &["admin"])?;
        let credential = Credential::Certificate { certificate: &admin_identity.certificate, key: &admin_identity.key };
        let admin = access(dir.path(), "admin", port, &pki.ca, &credential).await?;
        let audit = Audit::new(&dir.path().join("audit.log"));
        let plane = Self {
            checkout,
            bin,
            pki,
            port,
            etcd_ports: [etcd_client, etcd_peer],
            controllers_port,
            etcd: None,
            apiserver: None,
            controllers: None,
            admin,
            audit,
            dir,
        };
        plane.write_files()?;
        Ok(plane)
    }

    /// Where its files are: logs, kubeconfigs, etcd's data.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn checkout(&self) -> &Path {
        &self.checkout
    }

    /// Installs CRDs and charts of a checkout, this one's or an older one's, or upgrades them, and waits until groups can be declared.
    pub async fn install(&self, checkout: &Path) -> Result<()> {
        self.apply_charts(checkout).await?;
        // a mutating policy needs to know the kind of an object, and refuses the object until it does
        std::fs::write(self.file("nobody.json"), NOBODY)?;
        until("the policies know our kinds", START, || async {
            self.kubectl(&["create", "--dry-run=server", "-f", &self.file("nobody.json")]).map(Some)
        })
        .await
        .map(drop)
    }

    /// Installs or upgrades CRDs and charts. Kinds that are being deleted stay so, and nothing of them can be made.
    pub async fn apply_charts(&self, checkout: &Path) -> Result<()> {
        let values = self.dir.path().join("values.yaml");
        std::fs::write(&values, VALUES)?;
        if self.kubectl(&["get", "namespace", SYSTEM]).is_err() {
            self.kubectl(&["create", "namespace", SYSTEM])?;
        }
        let chart = |name: &str| checkout.join("charts").join(name).to_string_lossy().into_owned();
        self.helm(&["upgrade", "--install", "tsujiban-crds", &chart("tsujiban-crds"), "--namespace", SYSTEM])?;
        let trial = checkout.join("charts/tsujiban/values-trial.yaml").to_string_lossy().into_owned();
        let values = values.to_string_lossy().into_owned();
        self.helm(&[
            "upgrade",
            "--install",
            "tsujiban",
            &chart("tsujiban"),
            "--namespace",
            SYSTEM,
            "--values",
            &trial,
            "--values",
            &values,
        ])?;
        self.kubectl(&[
            "wait",
            "--for=condition=Established",
            "crd",
            "tenants.tsujiban.dev",
            "devices.tsujiban.dev",
            "sites.tsujiban.dev",
        ])?;
        // a policy takes effect some moments after it is stored: wait for one whose effect a dry run shows
        until("the policies act", START, || async {
            Ok(self.kubectl(&["create", "namespace", "tn-nobody", "--dry-run=server"]).is_err().then_some(()))
        })
        .await
    }

    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.run("kubectl", arguments)
    }

    pub fn helm(&self, arguments: &[&str]) -> Result<String> {
        self.run("helm", arguments)
    }

    /// Runs commands as an administrator types them, with kubectl and helm at hand.
    pub fn shell(&self, commands: &str) -> Result<String> {
        let path = format!("{}:{}", self.bin.display(), std::env::var("PATH").unwrap_or_default());
        self.run_as_admin(Command::new("bash").args(["-euo", "pipefail", "-c", commands]).env("PATH", path))
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        self.run_as_admin(Command::new(self.bin.join(program)).args(arguments))
    }

    fn run_as_admin(&self, command: &mut Command) -> Result<String> {
        let home = self.dir.path();
        command.env("KUBECONFIG", &self.admin.kubeconfig).env("KUBECACHEDIR", home.join("kubectl"));
        for part in ["CACHE", "CONFIG", "DATA"] {
            command.env(format!("HELM_{part}_HOME"), home.join("helm").join(part));
        }
        run(command)
    }

    /// Access as a ServiceAccount, by a token of its own.
    pub async fn service_account(&self, namespace: &str, name: &str) -> Result<Access> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.admin.client()?, namespace);
        let spec = TokenRequestSpec { expiration_seconds: Some(24 * 3600), ..TokenRequestSpec::default() };
        let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
        let answer = accounts.create_token_request(name, &PostParams::default(), &request).await;
        let answer = answer.with_context(|| format!("no token for ServiceAccount {namespace}/{name}"))?;
        let token = answer.status.and_then(|status| status.token).context("a token request was answered without a token")?;
        access(self.dir.path(), &format!("{namespace}-{name}"), self.port, &self.pki.ca, &Credential::Token(&token)).await
    }

    /// Access as the operator: its own ServiceAccount, with the rights that the chart gives it and no others.
    pub async fn operator(&self) -> Result<Access> {
        self.service_account(SYSTEM, tsujiban_api::names::OPERATOR).await
    }

    /// Access as a person, by a client certificate.
    pub async fn person(&self, name: &str, group: Option<&str>) -> Result<Access> {
        let identity = self.pki.identity(name, group, &["person"])?;
        let credential = Credential::Certificate { certificate: &identity.certificate, key: &identity.key };
        let file = format!("person-{}", hex::encode(name));
        access(self.dir.path(), &file, self.port, &self.pki.ca, &credential).await
    }

    /// Ends programs at once, as a power cut does.
    pub fn halt(&mut self, parts: Parts) {
        self.apiserver = None;
        if parts == Parts::Everything {
            self.controllers = None;
            self.etcd = None;
        }
    }

    /// Starts what does not run, and waits until it is ready.
    pub async fn resume(&mut self) -> Result<()> {
        if self.etcd.is_none() {
            self.etcd = Some(self.start_program("etcd", &self.etcd_arguments())?);
        }
        if self.apiserver.is_none() {
            self.apiserver = Some(self.start_program("kube-apiserver", &self.apiserver_arguments())?);
        }
        let client = self.admin.client()?;
        until("the apiserver is ready", START, || async {
            self.check()?;
            let request = http::Request::get("/readyz").body(Vec::new())?;
            Ok((client.request_text(request).await? == "ok").then_some(()))
        })
        .await
        .or_else(|error| self.check().and(Err(error)))?;
        if self.controllers.is_none() {
            self.controllers = Some(self.start_program("kube-controller-manager", &self.controllers_arguments())?);
        }
        let accounts: Api<ServiceAccount> = Api::namespaced(client, "kube-system");
        until("the controllers work", START, || async { Ok(accounts.get_opt("namespace-controller").await?) }).await?;
        Ok(())
    }

    /// Copies the data of etcd; [`Plane::restore_etcd`] restores it.
    pub async fn copy_etcd(&mut self, name: &str) -> Result<()> {
        self.etcd = None;
        copy(&self.dir.path().join("etcd"), &self.dir.path().join(name))?;
        self.resume().await
    }

    /// Ends the control plane and writes what etcd held into a file.
    pub fn archive(mut self, file: &Path) -> Result<()> {
        self.halt(Parts::Everything);
        let tar = &mut Command::new("tar");
        run(tar.args(["--create", "--gzip", "--sparse", "--file"]).arg(file).arg("--directory").arg(self.dir.path()).arg("etcd"))
            .map(|_| ())
    }

    /// Restores the cluster to a copy, as an administrator does after a disaster: everything stops, and starts with the old data.
    pub async fn restore_etcd(&mut self, name: &str) -> Result<()> {
        self.halt(Parts::Everything);
        let data = self.dir.path().join("etcd");
        std::fs::remove_dir_all(&data)?;
        copy(&self.dir.path().join(name), &data)?;
        self.resume().await
    }

    fn check(&self) -> Result<()> {
        [&self.etcd, &self.apiserver, &self.controllers].into_iter().flatten().try_for_each(Program::check)
    }

    fn start_program(&self, name: &str, arguments: &[String]) -> Result<Program> {
        Program::start(&self.bin.join(name), arguments, &self.dir.path().join(format!("{name}.log")))
    }

    fn file(&self, name: &str) -> String {
        self.dir.path().join(name).to_string_lossy().into_owned()
    }

    fn write_files(&self) -> Result<()> {
        let dir = self.dir.path();
        std::fs::write(dir.join("ca.crt"), &self.pki.ca)?;
        std::fs::write(dir.join("audit-policy.yaml"), audit::POLICY)?;
        let hosts = ["127.0.0.1", "localhost", "kubernetes", "kubernetes.default.svc"];
        for (file, name, hosts) in [("apiserver", "kube-apiserver", &hosts[..]), ("controllers", "system:kube-controller-manager", &["c"])]
        {
            let identity = self.pki.identity(name, None, hosts)?;
            std::fs::write(dir.join(format!("{file}.crt")), &identity.certificate)?;
            std::fs::write(dir.join(format!("{file}.key")), &identity.key)?;
            let credential = Credential::Certificate { certificate: &identity.certificate, key: &identity.key };
            let config = kubeconfig(&server(self.port), &self.pki.ca, &credential);
            std::fs::write(dir.join(format!("{file}.kubeconfig")), config.to_string())?;
        }
        pki::service_account_keys(dir)
    }

    fn etcd_arguments(&self) -> Vec<String> {
        let [client, peer] = self.etcd_ports.map(|port| format!("http://127.0.0.1:{port}"));
        // no fsync: this etcd need not outlive the machine
        let fixed = ["--unsafe-no-fsync", "--log-level=warn"].map(str::to_owned);
        let own = [
            format!("--data-dir={}", self.file("etcd")),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={peer}"),
        ];
        fixed.into_iter().chain(own).collect()
    }

    fn apiserver_arguments(&self) -> Vec<String> {
        let [etcd, _] = self.etcd_ports;
        let fixed = [
            "--bind-address=127.0.0.1",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--authorization-mode=Node,RBAC",
            "--profiling=false",
            "--audit-log-mode=blocking",
            "--disable-admission-plugins=ServiceAccount", // a pod need not wait for its account here: nothing runs
        ];
        let own = [
            format!("--advertise-address={ANNOUNCED}"),
            format!("--etcd-servers=http://127.0.0.1:{etcd}"),
            format!("--secure-port={}", self.port),
            format!("--tls-cert-file={}", self.file("apiserver.crt")),
            format!("--tls-private-key-file={}", self.file("apiserver.key")),
            format!("--client-ca-file={}", self.file("ca.crt")),
            format!("--service-account-key-file={}", self.file("sa.pub")),
            format!("--service-account-signing-key-file={}", self.file("sa.key")),
            format!("--audit-policy-file={}", self.file("audit-policy.yaml")),
            format!("--audit-log-path={}", self.file("audit.log")),
            format!("--cert-dir={}", self.file("apiserver")),
        ];
        fixed.map(str::to_owned).into_iter().chain(own).collect()
    }

    fn controllers_arguments(&self) -> Vec<String> {
        let fixed = [
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
            "--use-service-account-credentials=true",
            "--kube-api-qps=1000",
            "--kube-api-burst=2000",
            "--concurrent-namespace-syncs=20",
            // a quota counts creations that were cut off until it is recalculated, by default every 5 minutes
            "--resource-quota-sync-period=20s",
        ];
        let own = [
            format!("--secure-port={}", self.controllers_port),
            format!("--kubeconfig={}", self.file("controllers.kubeconfig")),
            format!("--service-account-private-key-file={}", self.file("sa.key")),
            format!("--root-ca-file={}", self.file("ca.crt")),
            format!("--cert-dir={}", self.file("controllers")),
        ];
        fixed.map(str::to_owned).into_iter().chain(own).collect()
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        // the apiserver first: without etcd it would wait for etcd
        self.apiserver = None;
        self.controllers = None;
        self.etcd = None;
        if std::thread::panicking() {
            eprintln!("the control plane's logs were in {} (set TSUJIBAN_KEEP_PLANE=1 to keep them)", self.dir.path().display());
        }
        if std::env::var_os("TSUJIBAN_KEEP_PLANE").is_some() {
            self.dir.disable_cleanup(true);
        }
    }
}

fn server(port: u16) -> String {
    format!("https://127.0.0.1:{port}")
}

async fn access(dir: &Path, name: &str, port: u16, ca: &str, credential: &Credential<'_>) -> Result<Access> {
    let config: Value = kubeconfig(&server(port), ca, credential);
    let file = dir.join(format!("{name}.kubeconfig"));
    std::fs::write(&file, config.to_string())?;
    let loaded = Kubeconfig::from_yaml(&config.to_string())?;
    let config = Config::from_custom_kubeconfig(loaded, &KubeConfigOptions::default()).await?;
    Ok(Access { config, kubeconfig: file })
}

/// Ports that are free now. All are held until all are chosen, so that none comes twice.
fn free_ports<const N: usize>() -> Result<[u16; N]> {
    let mut held = Vec::new();
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        *port = listener.local_addr()?.port();
        held.push(listener);
    }
    Ok(ports)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    run(Command::new("cp").arg("--archive").arg(from).arg(to)).map(|_| ())
}

fn run(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("cannot run {name}"))?;
    let arguments: Vec<_> = command.get_args().map(|argument| argument.to_string_lossy().into_owned()).collect();
    ensure!(output.status.success(), "{name} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
