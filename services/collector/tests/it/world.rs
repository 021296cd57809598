//! A group with its routers, put together for one test.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use russh::Preferred;
use russh::keys::PrivateKey;
use russh::keys::ssh_key::LineEnding;
use russh::keys::ssh_key::private::Ed25519Keypair;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tsujiban_collector::attempt::Context;
use tsujiban_collector::backup::Backup;
use tsujiban_collector::cluster::Cluster;
use tsujiban_collector::collection;
use tsujiban_collector::hostkey::openssh;
use tsujiban_collector::network::Network;
use tsujiban_collector::outcome::{Finished, Outcome};
use tsujiban_collector::plan::Limits;
use tsujiban_collector::random::Random;
use tsujiban_collector::shell::LargeOutputPermits;
use tsujiban_core::address::{DeviceNetworks, Forbidden};
use tsujiban_core::outcome::Reason;

use crate::apiserver::Apiserver;
use crate::backup::Fake;
use crate::router::{Gauge, Login, Router};
use crate::script::Script;

pub const TOKEN: &str = "token-of-the-collector";
pub const PASSWORD: &str = "Login-4711";

pub fn private(seed: u8) -> PrivateKey {
    PrivateKey::from(Ed25519Keypair::from_seed(&[seed; 32]))
}

/// The key with which the collector logs in everywhere.
pub fn login_key() -> PrivateKey {
    private(200)
}

/// A network in which each address leads to a router of this process.
#[derive(Debug, Clone, Default)]
pub struct Wires {
    pub names: BTreeMap<String, Vec<IpAddr>>,
    /// `None`: nobody ever answers.
    pub routers: BTreeMap<SocketAddr, Option<SocketAddr>>,
    pub dialled: Arc<Mutex<Vec<SocketAddr>>>,
}

impl Network for Wires {
    async fn resolve(&self, host: &str, _: u16) -> io::Result<Vec<IpAddr>> {
        self.names.get(host).cloned().ok_or_else(|| io::Error::other("no such host"))
    }

    async fn dial(&self, address: SocketAddr) -> io::Result<TcpStream> {
        self.dialled.lock().unwrap().push(address);
        match self.routers.get(&address) {
            Some(Some(router)) => TcpStream::connect(router).await,
            Some(None) => std::future::pending().await,
            None => Err(io::Error::from(io::ErrorKind::ConnectionRefused)),
        }
    }
}

pub struct World {
    pub wires: Wires,
    pub apiserver: Apiserver,
    pub backup: Fake,
    pub limits: Limits,
    folder: TempDir,
}

impl World {
    pub fn new() -> Self {
        let world = Self {
            wires: Wires::default(),
            apiserver: Apiserver::default(),
            backup: Fake::default(),
            limits: Limits {
                window: Duration::from_mins(10),
                immediate: true,
                max_concurrent: 8,
                device: Duration::from_secs(20),
                idle: Duration::from_secs(3),
            },
            folder: TempDir::new().unwrap(),
        };
        TOKEN.clone_into(&mut world.backup.held().token);
        world
    }

    /// The next free address of the group's network.
    pub fn address(&self) -> IpAddr {
        let number = u32::try_from(self.apiserver.devices.len()).unwrap() + 1;
        IpAddr::V4(Ipv4Addr::from_bits(u32::from(Ipv4Addr::new(172, 20, 0, 0)) + number))
    }

    /// A router that lets the collector's key in and shows a whole config.
    pub fn router(name: &str) -> Router {
        Router {
            name: name.to_owned(),
            host_keys: vec![private(1)],
            login: Login::Key(login_key().public_key().clone()),
            script: Script::whole(name),
            preferred: Preferred::DEFAULT,
            logins: Arc::default(),
            typings: Arc::default(),
            connections: Gauge::default(),
            sessions: Gauge::default(),
        }
    }

    /// Starts a router and declares it as a Device.
    pub async fn add(&mut self, router: &Router) {
        let address = SocketAddr::new(self.address(), 22);
        self.wires.routers.insert(address, Some(router.listen().await));
        self.declare(&router.name, &address.ip().to_string());
    }

    /// The same, with a script of its own.
    pub async fn add_script(&mut self, name: &str, script: Script) {
        self.add(&Router { script, ..Self::router(name) }).await;
    }

    /// Declares a Device, with the collector's key as its generated credentials.
    pub fn declare(&mut self, name: &str, host: &str) {
        self.apiserver.devices.push(json!({
            "apiVersion": "tsujiban.dev/v1alpha1", "kind": "Device", "metadata": { "name": name, "namespace": "tn-acme", "uid": format!("uid-of-{name}") },
            "spec": { "siteRef": { "name": "tokyo" }, "serialNumber": format!("SN-{name}"), "driver": "Frr", "connection": { "host": host } },
        }));
        let pem = login_key().to_openssh(LineEnding::LF).unwrap();
        self.secret(&format!("device-{name}-ssh"), &json!({ "username": "tsujiban", "ssh-privatekey": pem.as_str() }));
    }

    pub fn secret(&mut self, name: &str, data: &Value) {
        // k8s carries Secret data in base64
        let data: BTreeMap<String, Value> = data
            .as_object()
            .unwrap()
            .iter()
            .map(|(key, value)| (key.clone(), serde_json::to_value(k8s_openapi::ByteString(value.as_str().unwrap().into())).unwrap()))
            .collect();
        let secret = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name }, "type": "tsujiban.dev/device-credentials", "data": data });
        self.apiserver.secrets.insert(name.to_owned(), secret);
    }

    /// Changes the connection of the newest Device.
    pub fn connection(&mut self, key: &str, value: Value) {
        self.apiserver.devices.last_mut().unwrap()["spec"]["connection"][key] = value;
    }

    /// Gives the newest Device a password as its credentials.
    pub fn password(&mut self, password: &str) {
        self.secret("login", &json!({ "username": "tsujiban", "password": password }));
        self.connection("credentialsSecretRef", json!({ "name": "login" }));
    }

    /// The newest Device's last attempt ended like this.
    pub fn last_attempt(&mut self, result: &str) {
        self.apiserver.devices.last_mut().unwrap()["status"] =
            json!({ "lastAttempt": { "time": "2026-01-01T00:00:00Z", "result": result } });
    }

    pub fn host_key(&mut self, seed: u8) {
        self.connection("hostKey", openssh(private(seed).public_key()).into());
    }

    pub async fn context(&self) -> Context<Wires> {
        let (endpoint, ca) = self.backup.listen().await;
        let (ca_file, token_file) = (self.folder.path().join("ca.crt"), self.folder.path().join("token"));
        std::fs::write(&ca_file, ca).unwrap();
        std::fs::write(&token_file, format!("{TOKEN}\n")).unwrap();
        let random = Arc::new(Random::from_seed([7; 32]));
        let networks = DeviceNetworks {
            forbidden: Forbidden::new(["10.244.0.0/16".parse().unwrap()]),
            declared: vec!["172.20.0.0/16".parse().unwrap(), "10.0.0.0/8".parse().unwrap()],
            ports: vec![22],
        };
        Context {
            network: self.wires.clone(),
            networks,
            cluster: Cluster::new(self.apiserver.clone().client(), "tn-acme"),
            backup: Backup::connect(&endpoint, &ca_file, &token_file, "acme".parse().unwrap(), random).await.unwrap(),
            limits: self.limits,
            places: LargeOutputPermits::default(),
        }
    }

    /// The collector's token is renewed, as the kubelet does.
    pub fn rotate(&self, token: &str) {
        std::fs::write(self.folder.path().join("token"), token).unwrap();
        token.clone_into(&mut self.backup.held().token);
    }

    pub async fn run(&self) -> BTreeMap<String, Finished> {
        self.run_until(&CancellationToken::new()).await
    }

    pub async fn run_until(&self, stop: &CancellationToken) -> BTreeMap<String, Finished> {
        let context = self.context().await;
        let targets = context.cluster.targets().await.unwrap();
        collection::check(&context, "https://localhost", &targets).await.unwrap();
        let finished = collection::run(&context, targets, &Random::from_seed([9; 32]), Instant::now(), stop).await;
        finished.into_iter().map(|device| (device.device.to_string(), device)).collect()
    }
}

/// The reason and the message of a device that failed.
pub fn failed<'a>(finished: &'a BTreeMap<String, Finished>, device: &str) -> (Reason, &'a str) {
    match &finished[device].outcome {
        Outcome::Failed(failure) => (failure.reason, &failure.message),
        other => panic!("{device}: {other:?}"),
    }
}

pub fn changed(finished: &BTreeMap<String, Finished>, device: &str) -> bool {
    matches!(finished[device].outcome, Outcome::Changed { .. })
}
