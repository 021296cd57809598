//! Logs as JSON lines, and optional traces over OTLP. Nothing here depends on servers.

use std::time::Duration;

use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Subscriber;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{EnvFilter, Layer, fmt};

/// How long sending the last traces may take.
const FLUSH: Duration = Duration::from_secs(3);

/// What is logged and traced, and where to.
#[derive(Debug, Clone, clap::Args)]
pub struct TelemetryArgs {
    /// What is logged: a level, or directives such as "info,tsujiban_backup=debug".
    #[arg(long, env = "TSUJIBAN_LOG_LEVEL", default_value = "info")]
    pub log_level: String,
    /// Where traces go: the URL of an OTLP receiver over gRPC, such as http://otel-collector:4317. None: no traces.
    #[arg(long, env = "TSUJIBAN_OTLP_ENDPOINT")]
    pub otlp_endpoint: Option<String>,
}

/// Telemetry that cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("--log-level {level:?} is not understood; write a level such as info, or directives such as info,tsujiban_backup=debug")]
    LogLevel { level: String, source: ParseError },
    #[error("--otlp-endpoint {endpoint:?} cannot be used; write a URL such as http://otel-collector:4317")]
    Otlp { endpoint: String, source: ExporterBuildError },
    #[error("logging was started twice; this is a fault of the program")]
    Twice(#[from] TryInitError),
}

/// Keeps telemetry going. Dropping it sends the last traces.
#[must_use = "telemetry ends when this is dropped"]
#[derive(Debug)]
pub struct Telemetry(Option<SdkTracerProvider>);

/// Starts logging to standard error, and tracing if an endpoint is given. `service` is the program's name, such as
/// `tsujiban-backup`. Needs a running tokio runtime.
pub fn init(service: &'static str, args: &TelemetryArgs) -> Result<Telemetry, TelemetryError> {
    let filter =
        EnvFilter::try_new(&args.log_level).map_err(|source| TelemetryError::LogLevel { level: args.log_level.clone(), source })?;
    let provider =
        args.otlp_endpoint.as_deref().filter(|endpoint| !endpoint.is_empty()).map(|endpoint| exporter(service, endpoint)).transpose()?;
    let traces = provider.as_ref().map(|provider| tracing_opentelemetry::layer().with_tracer(provider.tracer(service)));
    let logs = fmt::layer().json().flatten_event(true).with_current_span(false).with_span_list(false).with_writer(std::io::stderr);
    tracing_subscriber::registry().with(filter).with(logs).with(traces).try_init()?;
    Ok(Telemetry(provider))
}

/// Gives spans the ids of a trace and exports nothing, for a program whose calls should have one trace id.
pub fn trace_ids<S>(service: &'static str) -> impl Layer<S>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    tracing_opentelemetry::layer().with_tracer(SdkTracerProvider::builder().build().tracer(service))
}

fn exporter(service: &'static str, endpoint: &str) -> Result<SdkTracerProvider, TelemetryError> {
    let exporter = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .build()
        .map_err(|source| TelemetryError::Otlp { endpoint: endpoint.to_owned(), source })?;
    let resource = Resource::builder().with_service_name(service).build();
    Ok(SdkTracerProvider::builder().with_resource(resource).with_batch_exporter(exporter).build())
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some(provider) = self.0.take()
            && let Err(error) = provider.shutdown_with_timeout(FLUSH)
        {
            tracing::warn!(%error, "the last traces were not sent");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_level_says_what_to_write() {
        let args = TelemetryArgs { log_level: "info=nonsense=x".into(), otlp_endpoint: None };
        assert!(matches!(init("test", &args), Err(TelemetryError::LogLevel { .. })));
    }
}
