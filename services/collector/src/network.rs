//! From a device's host to the one address that may be dialled (C7, C13).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tsujiban_core::address::{DeviceNetworks, Refused};
use tsujiban_core::outcome::Reason;

use crate::outcome::Step;

/// Name resolution and TCP connections. Tests replace it.
pub trait Network: Send + Sync {
    fn resolve(&self, host: &str, port: u16) -> impl Future<Output = io::Result<Vec<IpAddr>>> + Send;
    fn dial(&self, address: SocketAddr) -> impl Future<Output = io::Result<TcpStream>> + Send;
}

/// The network of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemNetwork;

impl Network for SystemNetwork {
    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<IpAddr>> {
        Ok(lookup_host((host, port)).await?.map(|address| address.ip()).collect())
    }

    async fn dial(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum NoConnection {
    #[error("{host} cannot be resolved; check connection.host and the DNS")]
    Unresolved { host: String, source: io::Error },
    #[error("{host} has no address; check connection.host and the DNS")]
    NoAddress { host: String },
    #[error("the name of {host} was not resolved within {} s; check the DNS", .idle.as_secs_f32())]
    SilentDns { host: String, idle: Duration },
    #[error("{host} must not be reached; correct connection.host or connection.port, or the group's network")]
    NotAllowed { host: String, source: Refused },
    #[error("no answer from {address} within {} s; check power and network", .idle.as_secs_f32())]
    Silent { address: SocketAddr, idle: Duration },
    #[error("{address} cannot be reached; check power, network and that SSH is on")]
    Unreachable { address: SocketAddr, source: io::Error },
}

impl Step for NoConnection {
    fn reason(&self) -> Reason {
        match self {
            Self::NotAllowed { .. } => Reason::AddressNotAllowed,
            _ => Reason::Timeout,
        }
    }
}

/// An address that was checked. Only this is dialled, so that a name that later resolves to another address cannot redirect the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowed(SocketAddr);

impl Allowed {
    pub fn address(self) -> SocketAddr {
        self.0
    }
}

/// Resolves a host once. Every address that it has must be allowed; the first is the one to dial.
pub async fn admit(
    network: &impl Network,
    networks: &DeviceNetworks,
    host: &str,
    port: u16,
    idle: Duration,
) -> Result<Allowed, NoConnection> {
    let name = || host.to_owned();
    let addresses = match host.parse::<IpAddr>() {
        Ok(ip) => vec![ip],
        Err(_) => match timeout(idle, network.resolve(host, port)).await {
            Ok(Ok(addresses)) => addresses,
            Ok(Err(source)) => return Err(NoConnection::Unresolved { host: name(), source }),
            Err(_) => return Err(NoConnection::SilentDns { host: name(), idle }),
        },
    };
    let allowed: Vec<IpAddr> = addresses
        .into_iter()
        .map(|ip| networks.check(ip, port))
        .collect::<Result<_, _>>()
        .map_err(|source| NoConnection::NotAllowed { host: name(), source })?;
    let first = allowed.first().ok_or_else(|| NoConnection::NoAddress { host: name() })?;
    Ok(Allowed(SocketAddr::new(*first, port)))
}

pub async fn dial(network: &impl Network, allowed: Allowed, idle: Duration) -> Result<TcpStream, NoConnection> {
    let address = allowed.address();
    match timeout(idle, network.dial(address)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(source)) => Err(NoConnection::Unreachable { address, source }),
        Err(_) => Err(NoConnection::Silent { address, idle }),
    }
}
