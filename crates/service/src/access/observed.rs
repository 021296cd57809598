//! A call from its arrival to the end of its answer: measured and logged once, however it ends.

use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tonic::body::Body;
use tonic::transport::server::{Connected, TcpConnectInfo, TlsConnectInfo};
use tonic::{Code, Status};

use super::methods::Method;
use super::metrics::{Metrics, label};
use crate::caller::Caller;

/// What stands for a method that does not exist: its real name is the caller's choice, and labels have to be few.
const UNKNOWN: &str = "unknown";

/// A call that is being worked on. Dropped before its end, it counts as cancelled by the caller.
pub(super) struct Call {
    metrics: Metrics,
    service: String,
    method: String,
    caller_kind: &'static str,
    caller_id: String,
    peer: Option<SocketAddr>,
    arrived: Instant,
    ended: bool,
}

impl Call {
    pub(super) fn of<B>(metrics: &Metrics, method: &Method, request: &Request<B>) -> Self {
        Self::new(metrics, &method.service, &method.name, request)
    }

    pub(super) fn unknown<B>(metrics: &Metrics, request: &Request<B>) -> Self {
        Self::new(metrics, UNKNOWN, UNKNOWN, request)
    }

    fn new<B>(metrics: &Metrics, service: &str, method: &str, request: &Request<B>) -> Self {
        Self {
            metrics: metrics.clone(),
            service: service.to_owned(),
            method: method.to_owned(),
            caller_kind: "",
            caller_id: String::new(),
            peer: peer(request),
            arrived: Instant::now(),
            ended: false,
        }
    }

    pub(super) fn made_by(&mut self, caller: &Caller) {
        self.caller_kind = caller.kind();
        caller.id().clone_into(&mut self.caller_id);
    }

    /// The span around the handler's work.
    pub(super) fn span(&self) -> tracing::Span {
        tracing::info_span!(
            "call",
            otel.name = format!("{}/{}", self.service, self.method),
            otel.kind = "server",
            rpc.system = "grpc",
            rpc.service = self.service,
            rpc.method = self.method,
            caller = self.caller_kind,
        )
    }

    /// Ends the call with a status and nothing else.
    pub(super) fn answer(mut self, status: &Status) -> Response<Body> {
        self.end(status.code());
        status.clone().into_http()
    }

    /// Hands the answer on and ends the call with it. The call keeps its place until then.
    pub(super) fn observe(mut self, response: Response<Body>, place: OwnedSemaphorePermit) -> Response<Body> {
        if let Some(code) = code_in(response.headers()) {
            self.end(code);
            return response;
        }
        response.map(|inner| Body::new(Observed { inner, call: self, _place: place }))
    }

    fn end(&mut self, code: Code) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let took = self.arrived.elapsed();
        self.metrics.record(&self.service, &self.method, code, took);
        tracing::info!(
            target: "tsujiban::access",
            service = self.service,
            method = self.method,
            code = label(code),
            seconds = took.as_secs_f64(),
            caller = self.caller_kind,
            caller_id = self.caller_id,
            peer = self.peer.map(tracing::field::display),
            "call"
        );
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.end(Code::Cancelled);
    }
}

/// An answer on its way out.
struct Observed {
    inner: Body,
    call: Call,
    _place: OwnedSemaphorePermit,
}

impl HttpBody for Observed {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(code) = frame.trailers_ref().and_then(code_in) {
                    self.call.end(code);
                }
            }
            Poll::Ready(Some(Err(status))) => self.call.end(status.code()),
            // a handler's answer always ends with trailers
            Poll::Ready(None) => self.call.end(Code::Unknown),
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

fn code_in(headers: &HeaderMap) -> Option<Code> {
    headers.get(Status::GRPC_STATUS).map(|value| Code::from_bytes(value.as_bytes()))
}

fn peer<B>(request: &Request<B>) -> Option<SocketAddr> {
    type OverTls = TlsConnectInfo<<TcpStream as Connected>::ConnectInfo>;
    let extensions = request.extensions();
    extensions
        .get::<OverTls>()
        .map(TlsConnectInfo::get_ref)
        .or_else(|| extensions.get::<TcpConnectInfo>())
        .and_then(TcpConnectInfo::remote_addr)
}
