//! A call from its arrival to the end of its answer: measured, logged and recorded once, however it ends.

use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::request::Parts;
use http::{Extensions, HeaderMap, Response};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tonic::body::Body;
use tonic::transport::server::{Connected, TcpConnectInfo, TlsConnectInfo};
use tonic::{Code, Status};
use tsujiban_core::id::GroupId;
use tsujiban_proto::access::v1::{History as AuditLevel, Operation as Verb};
use tsujiban_proto::audit::v1::{Operation, Phase, Result as AuditResult};
use tsujiban_proto::error::ServiceError;
use tsujiban_proto::time::to_wire;

use super::methods::Method;
use super::metrics::label;
use super::subject::Subject;
use super::{Shared, decision, origin};
use crate::caller::Caller;
use crate::history::{Ticket, WriteFailed, Written, not_recorded, operation};
use crate::{plan, trace};

/// The label for a method that does not exist: the caller chooses the real name, and label values have to stay few.
const UNKNOWN: &str = "unknown";
/// The detail of an entry that says that the call revealed secrets, or would have.
const REVEALS: &str = "reveals";
/// How much of the path of an unknown method is recorded, in characters.
const PATH_CHARS: usize = 128;

/// A running call. One that is dropped before its end counts as cancelled by the caller.
pub(super) struct Call {
    shared: Arc<Shared>,
    service: String,
    method: String,
    class: AuditLevel,
    reveals: bool,
    caller_kind: &'static str,
    caller_id: String,
    /// The caller's own group, when it has exactly one.
    home: Option<GroupId>,
    /// The group whose data is touched; empty: none.
    group: String,
    from: Option<IpAddr>,
    arrived: Instant,
    span: tracing::Span,
    record: Operation,
    ticket: Option<Ticket>,
    ended: bool,
}

impl Call {
    pub(super) fn of(shared: &Arc<Shared>, method: &Method, head: &Parts) -> Self {
        let mut call = Self::new(shared, &method.service, &method.name, head);
        call.class = method.rule.history();
        call.record.service.clone_from(&method.service);
        call.record.method.clone_from(&method.name);
        call.record.function.clone_from(&method.rule.function);
        call.record.set_operation(method.rule.operation());
        call
    }

    pub(super) fn unknown(shared: &Arc<Shared>, head: &Parts) -> Self {
        let mut call = Self::new(shared, UNKNOWN, UNKNOWN, head);
        call.record.set_operation(Verb::View);
        call.record.target = head.uri.path().chars().take(PATH_CHARS).collect();
        call
    }

    fn new(shared: &Arc<Shared>, service: &str, method: &str, head: &Parts) -> Self {
        let span = tracing::info_span!(
            "call",
            otel.name = format!("{service}/{method}"),
            otel.kind = "server",
            rpc.system = "grpc",
            rpc.service = service,
            rpc.method = method,
            caller = tracing::field::Empty,
        );
        let from = origin::address(peer(&head.extensions), &head.headers, &shared.proxies);
        let mut record = Operation {
            actor: Some(operation::nobody()),
            from: from.map(|from| from.to_string()).unwrap_or_default(),
            trace_id: trace::join(&span, &head.headers),
            ..Operation::default()
        };
        record.set_phase(Phase::Outcome);
        if let Some(history) = &shared.history {
            record.time = Some(to_wire(history.now()));
            // without randomness there is no id; the call is refused when it needs one
            let id = history.id().unwrap_or_default();
            record.request_id = origin::request_id(&head.headers).map_or_else(|| hex::encode(id), str::to_owned);
            record.id = id.to_vec();
        }
        Self {
            shared: Arc::clone(shared),
            service: service.to_owned(),
            method: method.to_owned(),
            class: AuditLevel::None,
            reveals: false,
            caller_kind: "",
            caller_id: String::new(),
            home: None,
            group: String::new(),
            from,
            arrived: Instant::now(),
            span,
            record,
            ticket: None,
            ended: false,
        }
    }

    pub(super) fn made_by(&mut self, caller: &Caller) {
        self.caller_kind = caller.kind();
        caller.id().clone_into(&mut self.caller_id);
        self.span.record("caller", self.caller_kind);
        self.record.actor = Some(operation::actor(caller));
        self.home = caller.home().cloned();
    }

    /// Notes the request's target and whether it reveals secrets, which decides how the call is recorded.
    pub(super) fn asks_for(&mut self, method: &Method, subject: &Subject) {
        self.record.target.clone_from(&subject.target);
        self.class = decision::history(method, subject);
        self.reveals = subject.reveals;
        if subject.reveals {
            self.record.detail.insert(REVEALS.to_owned(), "true".to_owned());
        }
    }

    /// Whether the call reveals secrets.
    pub(super) fn reveals(&self) -> bool {
        self.reveals
    }

    /// Notes the group whose data the call touches. The caller is already authorized for it.
    pub(super) fn touches(&mut self, group: &GroupId) {
        group.as_str().clone_into(&mut self.group);
    }

    /// Reserves room to record the outcome of the call. For a strict call, also records its intent.
    pub(super) async fn begin(&mut self) -> Result<(), ServiceError> {
        let Some(history) = &self.shared.history else { return Ok(()) };
        if self.group.is_empty()
            && let Some(home) = &self.home
        {
            self.group = home.as_str().to_owned();
        }
        self.ticket = history.begin(self.class)?;
        match &mut self.ticket {
            Some(ticket) => ticket.intend(&self.group, &self.record).await,
            None => Ok(()),
        }
    }

    /// The span around the handler, and around the delivery of the intent to the history before it.
    pub(super) fn span(&self) -> tracing::Span {
        self.span.clone()
    }

    /// Ends a call that was refused before its handler saw it. `group` is the one in whose history the refusal is recorded.
    pub(super) fn refuse(mut self, status: &Status, group: Option<&GroupId>) -> Response<Body> {
        self.measure(status.code());
        if let Some(history) = &self.shared.history {
            let mut record = std::mem::take(&mut self.record);
            record.set_result(match status.code() {
                Code::PermissionDenied | Code::Unauthenticated | Code::Unimplemented => AuditResult::Denied,
                _ => AuditResult::Failed,
            });
            self.complete(&mut record, status.code(), ServiceError::from(status).reason);
            history.refused(group.map(GroupId::as_str).unwrap_or_default(), record);
        }
        status.clone().into_http()
    }

    /// Ends the call with a status and nothing else.
    pub(super) async fn answer(mut self, status: &Status) -> Response<Body> {
        if is_recorded(self.end(status.code(), Some(status))).await { status.clone() } else { not_recorded().into() }.into_http()
    }

    /// Passes the answer on and ends the call when the answer ends. Until then the call holds its permit.
    pub(super) async fn observe(mut self, response: Response<Body>, place: OwnedSemaphorePermit) -> Response<Body> {
        if let Some(status) = Status::from_header_map(response.headers()) {
            let written = self.end(status.code(), Some(&status));
            return if is_recorded(written).await { response } else { Status::from(not_recorded()).into_http() };
        }
        response.map(|inner| Body::new(Observed { inner, call: self, last: None, _place: place }))
    }

    /// Ends the call: measures, logs and records it. The answer has to wait until the returned [`Written`] is ready.
    fn end(&mut self, code: Code, status: Option<&Status>) -> Option<Written> {
        if self.ended {
            return None;
        }
        self.measure(code);
        let ticket = self.ticket.take()?;
        let mut record = std::mem::take(&mut self.record);
        record.set_result(operation::result(code, self.class == AuditLevel::Read));
        self.complete(&mut record, code, status.map(|status| ServiceError::from(status).reason).unwrap_or_default());
        Some(ticket.close(&self.group, record))
    }

    fn complete(&self, record: &mut Operation, code: Code, reason: String) {
        operation::code(code).clone_into(&mut record.code);
        record.reason = reason;
        record.duration_us = u64::try_from(self.took().as_micros()).unwrap_or(u64::MAX);
    }

    fn took(&self) -> Duration {
        self.arrived.elapsed()
    }

    fn measure(&mut self, code: Code) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let took = self.took();
        let plan = if self.group.is_empty() { None } else { self.shared.plans.plan(&self.group) };
        self.shared.metrics.record(&self.service, &self.method, code, plan::label(plan), took);
        tracing::info!(
            target: "tsujiban::access",
            service = self.service,
            method = self.method,
            code = label(code),
            seconds = took.as_secs_f64(),
            caller = self.caller_kind,
            caller_id = self.caller_id,
            peer = self.from.map(tracing::field::display),
            request_id = self.record.request_id,
            trace_id = self.record.trace_id,
            "call"
        );
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        // the caller has gone, so no answer has to wait for the record
        drop(self.end(Code::Cancelled, None));
    }
}

/// The body of an answer that is being sent.
struct Observed {
    inner: Body,
    call: Call,
    /// The end of the answer, held back until the outcome of the call is recorded.
    last: Option<Last>,
    _place: OwnedSemaphorePermit,
}

struct Last {
    written: Option<Written>,
    frame: Option<Result<Frame<Bytes>, Status>>,
}

impl Observed {
    /// Holds the end of the answer back until the outcome of the call is recorded.
    fn finish(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(last) = &mut self.last else { return Poll::Ready(None) };
        if let Some(written) = &mut last.written {
            let outcome = ready!(Pin::new(written).poll(cx));
            last.written = None;
            if !is_written(&outcome) && last.frame.is_some() {
                last.frame = Some(trailers(&Status::from(not_recorded())));
            }
        }
        Poll::Ready(last.frame.take())
    }
}

impl HttpBody for Observed {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.last.is_some() {
            return self.finish(cx);
        }
        let polled = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        let (code, status) = match &polled {
            Some(Ok(frame)) => match frame.trailers_ref().and_then(Status::from_header_map) {
                Some(status) => (status.code(), Some(status)),
                None => return Poll::Ready(polled),
            },
            Some(Err(status)) => (status.code(), Some(status.clone())),
            // a handler's answer always ends with trailers
            None => (Code::Unknown, None),
        };
        let written = self.call.end(code, status.as_ref());
        self.last = Some(Last { written, frame: polled });
        self.finish(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.last.as_ref().map_or_else(|| self.inner.is_end_stream(), |last| last.frame.is_none())
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

fn trailers(status: &Status) -> Result<Frame<Bytes>, Status> {
    let mut trailers = HeaderMap::new();
    status.add_header(&mut trailers)?;
    Ok(Frame::trailers(trailers))
}

/// Waits until the outcome of a call is as durable as it has to be. `None`, a call that is not recorded, does not wait.
async fn is_recorded(written: Option<Written>) -> bool {
    match written {
        Some(written) => is_written(&written.await),
        None => true,
    }
}

fn is_written<E>(outcome: &Result<Result<(), WriteFailed>, E>) -> bool {
    matches!(outcome, Ok(Ok(())))
}

fn peer(extensions: &Extensions) -> Option<SocketAddr> {
    type OverTls = TlsConnectInfo<<TcpStream as Connected>::ConnectInfo>;
    extensions
        .get::<OverTls>()
        .map(TlsConnectInfo::get_ref)
        .or_else(|| extensions.get::<TcpConnectInfo>())
        .and_then(TcpConnectInfo::remote_addr)
}
