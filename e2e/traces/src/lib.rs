//! A receiver of traces (OTLP over gRPC) that keeps of each span what tells whether services are joined.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::ResourceSpans;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

/// What one program did, as part of a trace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// The program.
    pub service: String,
    pub name: String,
    /// The trace, 32 hex digits.
    pub trace: String,
    /// This span, 16 hex digits.
    pub id: String,
    /// The span that it is part of; empty if it is the first.
    pub parent: String,
}

/// Takes spans at an address for as long as it is polled.
pub async fn receive(address: SocketAddr, take: impl Fn(Span) + Send + Sync + 'static) -> Result<()> {
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen at {address}"))?;
    receive_from(listener, take).await
}

/// The same, where a listener is there already.
pub async fn receive_from(listener: TcpListener, take: impl Fn(Span) + Send + Sync + 'static) -> Result<()> {
    let service = TraceServiceServer::new(Receiver(take));
    Server::builder().add_service(service).serve_with_incoming(TcpListenerStream::new(listener)).await.context("the receiver ended")
}

struct Receiver<F>(F);

#[tonic::async_trait]
impl<F: Fn(Span) + Send + Sync + 'static> TraceService for Receiver<F> {
    async fn export(&self, request: Request<ExportTraceServiceRequest>) -> Result<Response<ExportTraceServiceResponse>, Status> {
        request.into_inner().resource_spans.into_iter().flat_map(spans).for_each(&self.0);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn spans(of: ResourceSpans) -> impl Iterator<Item = Span> {
    let attributes = of.resource.into_iter().flat_map(|resource| resource.attributes);
    let service = attributes.filter(|attribute| attribute.key == "service.name").find_map(|attribute| match attribute.value?.value? {
        Value::StringValue(name) => Some(name),
        _ => None,
    });
    let service = service.unwrap_or_default();
    of.scope_spans.into_iter().flat_map(|scope| scope.spans).map(move |span| Span {
        service: service.clone(),
        name: span.name,
        trace: hex::encode(span.trace_id),
        id: hex::encode(span.span_id),
        parent: hex::encode(span.parent_span_id),
    })
}
