//! Traces that continue from one program to the next: the W3C header `traceparent`, read from calls and written into them.

use http::HeaderMap;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::{SpanContext, TraceContextExt};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tonic::metadata::{MetadataKey, MetadataMap};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// Makes a span the child of the one that the caller's headers name, if they name one. Answers the id of the trace, 32 hex digits; empty
/// when there is no trace.
pub(crate) fn join(span: &Span, headers: &HeaderMap) -> String {
    let theirs = TraceContextPropagator::new().extract(&Headers(headers));
    let remote = theirs.span().span_context().clone();
    if remote.is_valid() {
        // fails when nothing is traced here; then the trace continues without this program
        let _ = span.set_parent(theirs);
    }
    let ours = span.context().span().span_context().clone();
    [ours, remote].into_iter().find(SpanContext::is_valid).map(|context| context.trace_id().to_string()).unwrap_or_default()
}

/// Writes into a request's metadata which span it is part of.
pub fn inject(metadata: &mut MetadataMap) {
    TraceContextPropagator::new().inject_context(&Span::current().context(), &mut Metadata(metadata));
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}

struct Metadata<'a>(&'a mut MetadataMap);

impl Injector for Metadata<'_> {
    fn set(&mut self, key: &str, value: String) {
        if let (Ok(key), Ok(value)) = (MetadataKey::from_bytes(key.as_bytes()), value.parse()) {
            self.0.insert(key, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::TracerProvider;
    use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    #[test]
    fn a_trace_goes_on_from_a_client_to_a_server() {
        let exporter = InMemorySpanExporter::default();
        let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let client = tracing::info_span!("client");
            let mut metadata = MetadataMap::new();
            client.in_scope(|| inject(&mut metadata));
            let headers = metadata.into_headers();
            let trace = client.context().span().span_context().trace_id().to_string();
            let server = tracing::info_span!("server");
            assert_eq!(join(&server, &headers), trace);
            drop((server, client));
        });
        let spans = exporter.get_finished_spans().unwrap();
        let find = |name: &str| spans.iter().find(|span| span.name == name).unwrap();
        assert_eq!(find("server").parent_span_id, find("client").span_context.span_id());
    }

    #[test]
    fn where_nothing_is_traced_the_id_is_still_the_callers() {
        let mut headers = HeaderMap::new();
        headers.insert("traceparent", format!("00-{TRACE}-00f067aa0ba902b7-01").parse().unwrap());
        assert_eq!(join(&Span::none(), &headers), TRACE);
        assert_eq!(join(&Span::none(), &HeaderMap::new()), "");
        headers.insert("traceparent", "nonsense".parse().unwrap());
        assert_eq!(join(&Span::none(), &headers), "");
    }
}
