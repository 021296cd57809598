//! Calls of our services without any client of ours: a forwarded port, a token, a method by its path.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result};
use tonic::Code;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic_prost::ProstCodec;
use tonic_prost::prost::Message;
use tsujiban_api::names::{self, SYSTEM_NAMESPACE};
use tsujiban_core::workload;

use crate::stage::Stage;

/// A service of ours: its name, and the audience of tokens for it.
pub type Service = (&'static str, &'static str);
pub const BACKUP: Service = (workload::Service::Backup.row().host, workload::Service::Backup.row().audience);
pub const AUDIT: Service = (workload::Service::Audit.row().host, workload::Service::Audit.row().audience);

/// A service of ours, called with one token. Clones share the connection.
#[derive(Clone)]
pub struct Caller {
    channel: Channel,
    token: String,
    _way: Arc<Way>,
}

/// The port-forward to a service, as long as a clone uses it.
struct Way {
    _forward: Forward,
    /// kubectl prints a line for each connection, and ends when this output is closed.
    _output: BufReader<ChildStdout>,
}

/// A port that is forwarded until this is dropped.
struct Forward(Child);

impl Drop for Forward {
    fn drop(&mut self) {
        let _gone = (self.0.kill(), self.0.wait()); // it may have ended by itself
    }
}

impl Caller {
    /// Reaches a service as a member of staff.
    pub async fn staff(stage: &Stage, (service, audience): Service, staff: &str) -> Result<Self> {
        let (account, audience) = (format!("staff-{staff}"), format!("--audience={audience}"));
        let token = stage.kubectl(&["create", "token", &account, "-n", SYSTEM_NAMESPACE, &audience]).await?.ok()?.out;
        let key = r"jsonpath={.data.ca\.crt}";
        let ca = stage.kubectl(&["get", "configmap", names::CA_CONFIGMAP, "-n", SYSTEM_NAMESPACE, "-o", key]).await?.ok()?.out;
        let forwarded = format!("service/{service}");
        let mut forward = Command::new("kubectl")
            .args(["port-forward", "-n", SYSTEM_NAMESPACE, &forwarded, ":8443"])
            .stdout(Stdio::piped())
            .spawn()
            .map(Forward)?;
        let mut said = String::new();
        let mut output = BufReader::new(forward.0.stdout.take().context("kubectl says something")?);
        output.read_line(&mut said)?;
        let port = said.strip_prefix("Forwarding from 127.0.0.1:").and_then(|rest| rest.split(' ').next());
        let port = port.with_context(|| format!("kubectl port-forward {forwarded} says {said:?}"))?;
        let name = format!("{service}.{SYSTEM_NAMESPACE}.svc");
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca)).domain_name(name);
        let channel = Endpoint::from_shared(format!("https://127.0.0.1:{port}"))?.tls_config(tls)?.connect().await?;
        let way = Arc::new(Way { _forward: forward, _output: output });
        Ok(Self { channel, token: token.trim().to_owned(), _way: way })
    }

    /// Calls a method (`/package.Service/Method`) with an empty message. Returns the status code.
    pub async fn call(&self, path: &str) -> Result<Code> {
        self.call_with(path, ()).await
    }

    /// Calls a method with a message. Returns the status code.
    pub async fn call_with<M: Message + 'static>(&self, path: &str, message: M) -> Result<Code> {
        let mut client = tonic::client::Grpc::new(self.channel.clone());
        client.ready().await?;
        let mut request = tonic::Request::new(tokio_stream::once(message));
        request.metadata_mut().insert("authorization", format!("Bearer {}", self.token).parse()?);
        let path: PathAndQuery = path.parse()?;
        let mut answers = match client.streaming(request, path, ProstCodec::<M, ()>::default()).await {
            Ok(answer) => answer.into_inner(),
            Err(status) => return Ok(status.code()),
        };
        loop {
            match answers.message().await {
                Ok(Some(())) => {}
                Ok(None) => return Ok(Code::Ok),
                Err(status) => return Ok(status.code()),
            }
        }
    }
}
