//! A server whose handlers answer every method as a test tells them, in front of a history.

use std::convert::Infallible;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use futures::future::BoxFuture;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use prometheus::Registry;
use prost_reflect::prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, Kind, MessageDescriptor, MethodDescriptor, Value};
use tempfile::TempDir;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::service::Routes;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tower::Service;
use tsujiban_core::clock::SystemClock;
use tsujiban_core::workload;
use tsujiban_proto::DESCRIPTORS;
use tsujiban_proto::access::v1::Operation as Verb;
use tsujiban_proto::audit::v1::{Operation, Phase};
use tsujiban_sealing::SystemRandom;
use tsujiban_service::access::Guard;
use tsujiban_service::history::{ClientArgs, History, HistoryClient, Parts, SPOOL_BEGUN};
use tsujiban_service::identity::WithPersons;
use tsujiban_service::testing::{Epochs, FakeAudit, InProcess, KnownCallers, KnownPersons, serve_guarded};

/// How long anything may take. Only a test that fails waits for so long, also on a machine that has much else to do.
const PATIENCE: Duration = Duration::from_mins(3);

/// What a handler does with a call: its path is what it gets.
pub type Answer = Arc<dyn Fn(String) -> BoxFuture<'static, Result<(), Status>> + Send + Sync>;

pub struct Stage {
    /// `None` when it is another process's.
    audit: Option<FakeAudit>,
    pub server: InProcess,
    channel: Channel,
    pub history: History,
    /// The paths of the calls that a handler saw.
    pub seen: Arc<Mutex<Vec<String>>>,
    /// `None` when it outlives the process.
    pub spool: Option<TempDir>,
    pub epochs: Epochs,
    _stop: DropGuard,
}

pub struct Options {
    pub answer: Answer,
    pub bytes: u64,
    pub guard: fn(&mut Guard),
}

impl Default for Options {
    fn default() -> Self {
        let answer: Answer = Arc::new(|_| Box::pin(async { Ok(()) }));
        Self { answer, bytes: 0, guard: |_| {} }
    }
}

impl Stage {
    pub async fn new() -> Self {
        Self::with(Options::default()).await
    }

    pub async fn with(options: Options) -> Self {
        let (audit, spool) = (FakeAudit::start().await, tempfile::tempdir().unwrap());
        let stage = Self::build(&audit.args(), &spool.path().join("spool"), Epochs::new(), options).await;
        // that the spool began is recorded
        until(|| stage.history.depth() == 0).await;
        Self { audit: Some(audit), spool: Some(spool), ..stage }
    }

    /// In front of an audit service of another process, with keys and spool in a folder that is there already.
    pub async fn calling(args: &ClientArgs, folder: &Path) -> Self {
        Self::build(args, &folder.join("spool"), Epochs::in_folder(folder), Options::default()).await
    }

    async fn build(args: &ClientArgs, spool: &Path, epochs: Epochs, Options { answer, bytes, guard: change }: Options) -> Self {
        let registry = Registry::new();
        let (history, stop) = history(spool, &epochs, args, bytes, &registry).await;
        let seen = Arc::new(Mutex::new(Vec::new()));
        let handler = Handler { answer, seen: Arc::clone(&seen) };
        // whatever the contracts are
        let routes = Routes::default().into_axum_router().fallback_service(handler).into();
        let persons = KnownPersons::new().person("a1", &["acme"], &[("snapshots", Verb::View)]);
        let mut guard = Guard::new(Arc::new(WithPersons::new(Arc::new(callers()), persons)), registry);
        guard.history = Some(history.clone());
        change(&mut guard);
        let server = serve_guarded(routes, guard).await;
        Self { audit: None, channel: server.channel(), server, history, seen, spool: None, epochs, _stop: stop }
    }

    pub fn audit(&self) -> &FakeAudit {
        self.audit.as_ref().unwrap()
    }

    /// The process ends, and leaves audit service, spool and keys.
    pub fn end(self) -> (FakeAudit, TempDir, Epochs) {
        (self.audit.unwrap(), self.spool.unwrap(), self.epochs)
    }

    /// The process ends, and the next one starts.
    pub async fn restart(self) -> Self {
        let (audit, spool, epochs) = self.end();
        let stage = Self::build(&audit.args(), &spool.path().join("spool"), epochs, Options::default()).await;
        Self { audit: Some(audit), spool: Some(spool), ..stage }
    }

    /// Calls a method with a message that names a group wherever it can.
    pub async fn call(&self, path: &str, token: &str, group: &str) -> Result<(), Status> {
        self.send(path, message(path, group), &[("authorization", &format!("Bearer {token}"))]).await
    }

    /// Calls a method with bytes and metadata. Answers when the answer has ended.
    pub async fn send(&self, path: &str, message: Vec<u8>, metadata: &[(&'static str, &str)]) -> Result<(), Status> {
        let mut client = tonic::client::Grpc::new(self.channel.clone());
        client.ready().await.unwrap();
        let mut request = tonic::Request::new(tokio_stream::once(message));
        for (key, value) in metadata {
            request.metadata_mut().append(*key, value.parse().unwrap());
        }
        let mut answers = client.streaming(request, path.parse().unwrap(), Plain).await?.into_inner();
        while answers.message().await?.is_some() {}
        Ok(())
    }

    /// What the history holds, as soon as nothing is on its way any more.
    pub async fn recorded(&self) -> Vec<(String, Operation)> {
        until(|| self.history.depth() == 0).await;
        self.taken()
    }

    /// What the history holds, but that the spool began.
    pub fn taken(&self) -> Vec<(String, Operation)> {
        let entries = self.audit().entries().into_iter().map(|entry| (entry.group, entry.operation.unwrap()));
        entries.filter(|(_, operation)| operation.reason != SPOOL_BEGUN).collect()
    }

    /// Where the spool lies.
    pub fn folder(&self) -> PathBuf {
        self.spool.as_ref().unwrap().path().join("spool")
    }

    /// The outcomes in the history, in order.
    pub async fn outcomes(&self) -> Vec<(String, Operation)> {
        self.recorded().await.into_iter().filter(|(_, operation)| operation.phase() == Phase::Outcome).collect()
    }

    pub fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }

    #[allow(clippy::cast_possible_truncation, clippy::as_conversions)] // they count
    pub fn metric(&self, name: &str) -> i64 {
        let families = self.server.registry.gather();
        let metric = &families.iter().find(|family| family.name() == name).unwrap().get_metric()[0];
        (metric.get_gauge().get_value() + metric.get_counter().get_value()) as i64
    }
}

/// A history on a spool, once the process before has let go of it.
pub async fn history(dir: &Path, epochs: &Epochs, args: &ClientArgs, bytes: u64, registry: &Registry) -> (History, DropGuard) {
    let waiting = async {
        loop {
            let parts = Parts {
                service: "tsujiban-backup",
                dir: dir.to_owned(),
                bytes,
                keyring: Arc::clone(&epochs.keyring),
                ledger: Arc::new(HistoryClient::new(args).unwrap()),
                clock: Arc::new(SystemClock),
                random: Arc::new(SystemRandom::new()),
            };
            match History::open(parts, registry) {
                Ok(opened) => break opened,
                Err(error) if error.to_string().contains("another process") => tokio::time::sleep(Duration::from_millis(10)).await,
                Err(error) => panic!("{error}"),
            }
        }
    };
    let (history, delivery) = tokio::time::timeout(PATIENCE, waiting).await.unwrap();
    let stop = CancellationToken::new();
    tokio::spawn(delivery.asking(Duration::from_millis(50)).run(stop.clone()));
    (history, stop.drop_guard())
}

pub async fn until(mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap();
}

fn callers() -> KnownCallers {
    let functions = workload::Service::ALL.iter().flat_map(|service| service.row().functions).map(|function| function.name);
    let rights: Vec<_> = functions
        .flat_map(|function| ["list", "get", "verify", "update", "erase"].map(|verb| (function, verb)))
        .chain([("snapshots", "reveal")])
        .collect();
    let services = workload::Service::ALL.iter().copied();
    services
        .fold(KnownCallers::new(), |callers, service| callers.service(service.row().name, service))
        .operator("operator")
        .collector("collector", &"acme".parse().unwrap())
        .staff("hanako", "hanako", &rights)
        .staff("taro", "taro", &[])
}

/// All methods of all contracts.
pub fn methods() -> Vec<MethodDescriptor> {
    let pool = DescriptorPool::decode(DESCRIPTORS).unwrap();
    pool.services().flat_map(|service| service.methods().collect::<Vec<_>>()).collect()
}

pub fn path(method: &MethodDescriptor) -> String {
    format!("/{}/{}", method.parent_service().full_name(), method.name())
}

/// A request of the method at a path in which every field called `group` names one.
pub fn message(at: &str, group: &str) -> Vec<u8> {
    let method = methods().into_iter().find(|method| path(method) == at);
    method.map(|method| filled(&method.input(), group).encode_to_vec()).unwrap_or_default()
}

fn filled(descriptor: &MessageDescriptor, group: &str) -> DynamicMessage {
    let mut message = DynamicMessage::new(descriptor.clone());
    for field in descriptor.fields() {
        let is_taken = field.containing_oneof().is_some_and(|oneof| oneof.fields().any(|field| message.has_field(&field)));
        match field.kind() {
            _ if is_taken || field.is_list() || field.is_map() => {}
            Kind::String if field.name() == "group" => message.set_field(&field, Value::String(group.to_owned())),
            Kind::String if field.name() == "serial" => message.set_field(&field, Value::String("SN9".to_owned())),
            Kind::Message(inner) if !inner.full_name().starts_with("google.") => {
                message.set_field(&field, Value::Message(filled(&inner, group)));
            }
            _ => {}
        }
    }
    message
}

#[derive(Clone)]
struct Handler {
    answer: Answer,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Handler {
    fn answer(&self, request: Request<Body>) -> BoxFuture<'static, Result<Response<Body>, Infallible>> {
        let (path, this) = (request.uri().path().to_owned(), self.clone());
        Box::pin(async move {
            this.seen.lock().unwrap().push(path.clone());
            // a handler reads its request before it answers
            let read = request.into_body().collect().await;
            let outcome = match read {
                Ok(_) => (this.answer)(path).await,
                Err(status) => Err(status),
            };
            let status = match outcome {
                Ok(()) => Status::new(Code::Ok, ""),
                Err(status) => return Ok(status.into_http()),
            };
            let trailers = async move {
                let mut trailers = HeaderMap::new();
                status.add_header(&mut trailers).unwrap();
                Some(Ok::<_, Infallible>(trailers))
            };
            let body = Full::new(Bytes::from_static(&[0; 5])).with_trailers(trailers).map_err(|never| match never {});
            Ok(Response::builder().header("content-type", "application/grpc").body(Body::new(body)).unwrap())
        })
    }
}

impl<B> Service<Request<B>> for Handler
where
    B: hyper::body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        self.answer(request.map(Body::new))
    }
}

/// Messages as they are.
#[derive(Debug, Clone, Copy)]
struct Plain;

impl Codec for Plain {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Plain {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, message: Vec<u8>, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put_slice(&message);
        Ok(())
    }
}

impl Decoder for Plain {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining()).to_vec()))
    }
}
