//! The services, reached through the apiserver: a ten-minute token for the person's account, and a forwarded port.

mod call;
mod token;
mod tunnel;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use tonic::Request;
use tonic::transport::Channel;
use tower::service_fn;
use tsujiban_api::names;
use tsujiban_client::{Address, ClientError, Limits, Login};
use tsujiban_core::clock::Clock;
use tsujiban_core::workload::{GRPC_PORT, Service as Peer};
use tsujiban_proto::audit::v1::audit_service_client::AuditServiceClient;
use tsujiban_proto::backup::v1::backup_service_client::BackupServiceClient;
use tsujiban_proto::lifecycle::v1::lifecycle_service_client::LifecycleServiceClient;

pub use self::call::CallError;
use self::token::Tokens;
use self::tunnel::Tunnel;
use crate::cluster::{Cluster, ClusterError, Right, ask};
use crate::exit::ExitCode;

/// How long the connection may take, with its handshake, and an answer to begin. The service gives up earlier.
const LIMITS: Limits = Limits {
    connect: Duration::from_secs(20),
    answer: Some(Duration::from_secs(90)),
    keep_alive: Some(Duration::from_secs(20)),
    keep_alive_while_idle: false,
};
/// The largest answer. The diff of two large configs is one message.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// The name of a member of staff, which is their ServiceAccount's without `staff-`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaffName(String);

impl FromStr for StaffName {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if (1..=50).contains(&name.len()) && name.chars().all(allowed) {
            Ok(Self(name.to_owned()))
        } else {
            Err("use 1 to 50 characters a-z, 0-9 and '-', as in the chart value staff".to_owned())
        }
    }
}

impl fmt::Display for StaffName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl StaffName {
    fn account(&self) -> String {
        format!("{}{}", names::STAFF_PREFIX, self.0)
    }
}

/// The second possible reason why a service does not exist: Tsujiban is installed without it.
fn absence(service: Peer) -> String {
    service.row().absence.map(|absence| format!(", or without it (chart value {})", absence.value)).unwrap_or_default()
}

/// Why a service cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error(
        "no name of staff is given: use --staff NAME or TSUJIBAN_STAFF=NAME. List the names: kubectl -n {system_namespace} get serviceaccounts (without staff-); new ones come from the chart value staff"
    )]
    NoStaff { system_namespace: String },
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error("there is no member of staff {name}: ServiceAccount {namespace}/{account} does not exist. Add {{name: {name}, verbs: [...]}} to the chart value staff", account = name.account())]
    UnknownStaff { name: StaffName, namespace: String },
    #[error("you may not act as {name}: {right} for ServiceAccount {} is missing; ask for it with your name under subjects of {name} in the chart value staff", name.account())]
    NotYourAccount { name: StaffName, right: Right },
    #[error("the cluster gave no token for {0}; try again")]
    NoToken(StaffName),
    #[error(
        "ConfigMap {namespace}/{} with the key ca.crt is not there; the operator makes it: kubectl -n {namespace} get pods",
        names::CA_CONFIGMAP
    )]
    NoCa { namespace: String },
    #[error(
        "Service {namespace}/{} is not there; is Tsujiban installed in another namespace{}? Say it with --system-namespace",
        peer.row().host, absence(*peer)
    )]
    NoService { peer: Peer, namespace: String },
    #[error("no pod of the {peer} can be asked; look at it with: kubectl -n {namespace} describe pods -l {selector}")]
    NotReady { peer: Peer, namespace: String, selector: String },
    #[error("the port of pod {pod} cannot be forwarded; try again, and look at it with: kubectl -n {namespace} describe pod {pod}")]
    Forward { namespace: String, pod: String },
    #[error("the node cannot forward the port of the {peer} ({complaint}); look at its pods: kubectl -n {namespace} get pods")]
    Forwarding { peer: Peer, namespace: String, complaint: String },
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(
        "the {peer} does not answer through the forwarded port; look at its log: kubectl -n {namespace} logs statefulset/{}",
        peer.row().host
    )]
    Transport { peer: Peer, namespace: String, source: tonic::transport::Error },
}

impl ExitCode for ConnectError {}

/// A connection to one of the services.
struct Connection {
    channel: Channel,
    tokens: Tokens,
}

impl Connection {
    /// Gets a token for `staff`, forwards a port and speaks TLS over it.
    async fn open(peer: Peer, cluster: &Cluster, staff: Option<&StaffName>, clock: impl Clock) -> Result<Self, ConnectError> {
        let namespace = cluster.system_namespace.clone();
        let Some(staff) = staff else { return Err(ConnectError::NoStaff { system_namespace: namespace }) };
        let tokens = Tokens::new(cluster, staff.clone(), peer.row().audience, clock);
        tokens.current().await?;
        let ca = authority(cluster).await?;
        let tunnel = Tunnel::find(cluster, peer).await?;
        let name = format!("{}.{namespace}.svc", peer.row().host);
        let endpoint = Address::new(format!("https://{name}:{GRPC_PORT}"), LIMITS).endpoint(Some(ca.as_bytes()))?;
        let forwarding = tunnel.clone();
        let connector = service_fn(move |_| {
            let tunnel = forwarding.clone();
            async move { tunnel.open().await.map(TokioIo::new) }
        });
        let connected = endpoint.connect_with_connector(connector).await;
        let channel = connected.map_err(|source| match tunnel.complaint() {
            Some(complaint) => ConnectError::Forwarding { peer, namespace, complaint },
            None => ConnectError::Transport { peer, namespace, source },
        })?;
        Ok(Self { channel, tokens })
    }

    async fn request<T>(&self, message: T) -> Result<Request<T>, ConnectError> {
        Ok(Login::by(self.tokens.current().await?).request(message))
    }
}

/// The backup service, called as a member of staff.
pub struct Service(Connection);

impl Service {
    pub async fn connect(cluster: &Cluster, staff: Option<&StaffName>, clock: impl Clock) -> Result<Self, ConnectError> {
        Connection::open(Peer::Backup, cluster, staff, clock).await.map(Self)
    }

    pub fn backup(&self) -> BackupServiceClient<Channel> {
        BackupServiceClient::new(self.0.channel.clone()).max_decoding_message_size(MAX_ANSWER_BYTES)
    }

    pub fn lifecycle(&self) -> LifecycleServiceClient<Channel> {
        LifecycleServiceClient::new(self.0.channel.clone()).max_decoding_message_size(MAX_ANSWER_BYTES)
    }

    /// A request with a token that is good for a while.
    pub async fn request<T>(&self, message: T) -> Result<Request<T>, ConnectError> {
        self.0.request(message).await
    }
}

/// The audit service, called as a member of staff.
pub struct HistoryService(Connection);

impl HistoryService {
    pub async fn connect(cluster: &Cluster, staff: Option<&StaffName>, clock: impl Clock) -> Result<Self, ConnectError> {
        Connection::open(Peer::Audit, cluster, staff, clock).await.map(Self)
    }

    /// For tests: uses the given connection, as the owner of the token.
    #[cfg(test)]
    pub fn over(channel: Channel, token: &str) -> Self {
        Self(Connection { channel, tokens: Tokens::known(token) })
    }

    pub fn client(&self) -> AuditServiceClient<Channel> {
        AuditServiceClient::new(self.0.channel.clone()).max_decoding_message_size(MAX_ANSWER_BYTES)
    }

    /// A request with a token that is good for a while.
    pub async fn request<T>(&self, message: T) -> Result<Request<T>, ConnectError> {
        self.0.request(message).await
    }
}

/// The certificates of the internal CA.
async fn authority(cluster: &Cluster) -> Result<String, ConnectError> {
    let namespace = &cluster.system_namespace;
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), namespace);
    let map = ask(Right::new("get", "configmaps", namespace), maps.get_opt(names::CA_CONFIGMAP)).await?;
    map.and_then(|map| map.data.unwrap_or_default().remove("ca.crt")).ok_or_else(|| ConnectError::NoCa { namespace: namespace.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_staff_is_part_of_an_account() {
        assert_eq!("hanako".parse::<StaffName>().unwrap().account(), "staff-hanako");
        for bad in ["", "Hanako", "a/b", "a b", "花子"] {
            assert!(bad.parse::<StaffName>().is_err(), "{bad}");
        }
    }
}
