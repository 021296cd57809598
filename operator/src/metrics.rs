//! What the operator measures. Labels are bounded, save the one gauge that exists per tenant.

use std::time::Instant;

use jiff::Timestamp;
use prometheus::{
    Encoder, Gauge, GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};
use tsujiban_core::workload::Service;

use crate::history::{Acknowledged, Kind};
use crate::stall::{End, Watchdog};

/// How much memory acknowledged entries may take until a root list covers them: some 20,000 entries.
const KEPT_BYTES: u64 = 16 * 1024 * 1024;

/// All metrics, and the watchdog that detects stalled reconciles.
pub struct Metrics {
    registry: Registry,
    reconciles: IntCounterVec,
    errors: IntCounterVec,
    duration: HistogramVec,
    in_flight: IntGaugeVec,
    backup_age: GaugeVec,
    pub leader: IntGauge,
    pub serial_conflicts: IntGauge,
    pub not_conformant: IntGauge,
    pub canary_passed: IntGauge,
    pub keys_ready: IntGauge,
    pub policies_in_force: IntGauge,
    service_up: IntGaugeVec,
    service_installed: IntGaugeVec,
    certificate_expiry: GaugeVec,
    observed: IntCounterVec,
    history_waiting: IntGauge,
    history_age: Gauge,
    generation_lag: GaugeVec,
    watch_silence: GaugeVec,
    unreadable: IntGaugeVec,
    stalled: IntGauge,
    pub watchdog: Watchdog,
}

impl Metrics {
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str, labels: &[&str]| registered(&registry, IntCounterVec::new(Opts::new(name, help), labels)?);
        let gauge = |name: &str, help: &str| registered(&registry, IntGauge::new(name, help)?);
        let per_kind = |name: &str, help: &str| registered(&registry, GaugeVec::new(Opts::new(name, help), &["kind"])?);
        let duration = HistogramOpts::new("tsujiban_operator_reconcile_duration_seconds", "How long a reconcile took.")
            .buckets(vec![0.005, 0.02, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0]);
        Ok(Self {
            reconciles: counter("tsujiban_operator_reconciles_total", "Reconciles, by kind.", &["kind"])?,
            errors: counter("tsujiban_operator_reconcile_errors_total", "Reconciles that failed, by kind and step.", &["kind", "step"])?,
            duration: registered(&registry, HistogramVec::new(duration, &["kind"])?)?,
            in_flight: registered(
                &registry,
                IntGaugeVec::new(Opts::new("tsujiban_operator_reconciles_in_flight", "Reconciles that run now, by kind."), &["kind"])?,
            )?,
            backup_age: registered(
                &registry,
                GaugeVec::new(
                    Opts::new("tsujiban_backup_age_seconds", "Age of the oldest newest-backup of a tenant's active devices."),
                    &["tenant"],
                )?,
            )?,
            leader: gauge("tsujiban_operator_leader", "Whether this replica holds the lease.")?,
            serial_conflicts: gauge("tsujiban_serial_number_conflicts", "Devices whose serial number another Device has already.")?,
            not_conformant: gauge("tsujiban_tenants_not_conformant", "Tenants whose condition Conformant is False.")?,
            canary_passed: gauge("tsujiban_backup_canary_passed", "Whether the storage's newest canary passed, as last reported.")?,
            keys_ready: gauge("tsujiban_keys_ready", "Whether the master key and the epoch keys are there.")?,
            unreadable: registered(
                &registry,
                IntGaugeVec::new(
                    Opts::new("tsujiban_operator_unreadable_objects", "Objects that this version does not understand, by kind."),
                    &["kind"],
                )?,
            )?,
            policies_in_force: gauge(
                "tsujiban_operator_policies_in_force",
                "Whether all admission policies stand as the chart has them, as last looked at.",
            )?,
            service_installed: registered(
                &registry,
                IntGaugeVec::new(
                    Opts::new("tsujiban_operator_service_installed", "Whether the service's StatefulSet stands and is not scaled to 0."),
                    &["service"],
                )?,
            )?,
            service_up: registered(
                &registry,
                IntGaugeVec::new(
                    Opts::new("tsujiban_operator_service_up", "Whether the service answered the operator's last report call."),
                    &["service"],
                )?,
            )?,
            certificate_expiry: registered(
                &registry,
                GaugeVec::new(
                    Opts::new("tsujiban_serving_certificate_expiry_timestamp_seconds", "When the service's certificate expires."),
                    &["service"],
                )?,
            )?,
            observed: counter(
                "tsujiban_operator_history_recorded_total",
                "Creations, changes and deletions of declared objects that the history acknowledged, by kind.",
                &["kind"],
            )?,
            history_waiting: gauge(
                "tsujiban_operator_history_waiting",
                "Creations, changes and deletions of declared objects that the history has not acknowledged yet.",
            )?,
            history_age: registered(
                &registry,
                Gauge::new("tsujiban_operator_history_waiting_seconds", "For how long the oldest of them has waited; 0 when none does.")?,
            )?,
            generation_lag: per_kind(
                "tsujiban_operator_generation_lag_seconds",
                "For how long the oldest change of an object has not been observed by the leader, by kind.",
            )?,
            watch_silence: per_kind(
                "tsujiban_operator_watch_silence_seconds",
                "For how long the leader's watch was not answered, by kind. It begins anew every half minute.",
            )?,
            stalled: gauge("tsujiban_operator_stalled", "Whether reconciles are stalled; /readyz says why.")?,
            watchdog: Watchdog::default(),
            registry,
        })
    }

    /// Makes the store of acknowledged entries, which keeps them until a root list covers them. Its metrics are registered here.
    pub fn keeper(&self) -> Result<Acknowledged, prometheus::Error> {
        Acknowledged::in_memory(KEPT_BYTES, &self.registry)
    }

    /// Notes that a reconcile begins.
    pub fn started(&self, kind: &str, object: &str) {
        self.reconciles.with_label_values(&[kind]).inc();
        self.in_flight.with_label_values(&[kind]).inc();
        self.watchdog.begun(kind, object, Instant::now());
    }

    /// Notes that a reconcile ended, how, and at which step it failed if it did.
    pub fn finished(&self, kind: &str, object: &str, took: std::time::Duration, end: End, failed_at: Option<&str>) {
        self.in_flight.with_label_values(&[kind]).dec();
        self.duration.with_label_values(&[kind]).observe(took.as_secs_f64());
        if let Some(step) = failed_at {
            self.errors.with_label_values(&[kind, step]).inc();
        }
        self.watchdog.ended(kind, object, end, Instant::now());
    }

    pub fn unreadable_objects(&self, kind: &str, count: usize) {
        self.unreadable.with_label_values(&[kind]).set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Notes whether a service answered.
    pub fn service_up(&self, service: Service, is_up: bool) {
        self.service_up.with_label_values(&[service.row().name]).set(i64::from(is_up));
    }

    /// Notes whether a service's StatefulSet exists and is not scaled to 0.
    pub fn service_installed(&self, service: Service, is_installed: bool) {
        self.service_installed.with_label_values(&[service.row().name]).set(i64::from(is_installed));
    }

    /// Notes that the history acknowledged an observation.
    pub fn observed(&self, kind: Kind) {
        self.observed.with_label_values(&[kind.as_str()]).inc();
    }

    /// Notes how many observations the history has not acknowledged yet, and for how long the oldest has waited.
    pub fn history_backlog(&self, waiting: usize, seconds: f64) {
        self.history_waiting.set(i64::try_from(waiting).unwrap_or(i64::MAX));
        self.history_age.set(seconds);
    }

    /// Notes when a service's certificate expires.
    pub fn certificate_expires(&self, service: Service, at: Timestamp) {
        self.certificate_expiry.with_label_values(&[service.row().name]).set(at.duration_since(Timestamp::UNIX_EPOCH).as_secs_f64());
    }

    /// The age of a tenant's backups; `None` forgets the tenant.
    pub fn backup_age(&self, tenant: &str, seconds: Option<f64>) {
        match seconds {
            Some(seconds) => self.backup_age.with_label_values(&[tenant]).set(seconds),
            None => {
                let _unknown = self.backup_age.remove_label_values(&[tenant]); // fails when it was never set
            }
        }
    }

    /// Everything in the Prometheus text format.
    pub fn text(&self) -> Result<Vec<u8>, prometheus::Error> {
        let now = Instant::now(); // ages grow even while nothing else changes
        for (kind, lag, silence) in self.watchdog.ages(now) {
            self.generation_lag.with_label_values(&[kind]).set(lag.as_secs_f64());
            self.watch_silence.with_label_values(&[kind]).set(silence.as_secs_f64());
        }
        self.stalled.set(i64::from(!self.watchdog.reasons(now).is_empty()));
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

fn registered<C: prometheus::core::Collector + Clone + 'static>(registry: &Registry, collector: C) -> Result<C, prometheus::Error> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}
