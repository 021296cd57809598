//! What the operator measures. Labels are bounded, save the one gauge that exists per tenant.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

use prometheus::{
    Encoder, Gauge, GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

/// No reconcile may take or stay away longer than this while there is something to reconcile.
const WEDGED_AFTER_SECONDS: u64 = 600;

/// All metrics, and the pulse by which a wedged process is recognised.
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
    pub backup_service_up: IntGauge,
    pub certificate_expiry: Gauge,
    pulse: Pulse,
}

struct Pulse {
    running: AtomicI64,
    last_finished: Mutex<Instant>,
}

impl Metrics {
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str, labels: &[&str]| registered(&registry, IntCounterVec::new(Opts::new(name, help), labels)?);
        let gauge = |name: &str, help: &str| registered(&registry, IntGauge::new(name, help)?);
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
            backup_service_up: gauge(
                "tsujiban_operator_backup_service_up",
                "Whether the backup service answered the operator's last report call.",
            )?,
            certificate_expiry: registered(
                &registry,
                Gauge::new("tsujiban_serving_certificate_expiry_timestamp_seconds", "When the backup service's certificate expires.")?,
            )?,
            pulse: Pulse { running: AtomicI64::new(0), last_finished: Mutex::new(Instant::now()) },
            registry,
        })
    }

    /// Notes that a reconcile begins.
    pub fn started(&self, kind: &str) {
        self.reconciles.with_label_values(&[kind]).inc();
        self.in_flight.with_label_values(&[kind]).inc();
        if self.pulse.running.fetch_add(1, Ordering::Relaxed) == 0 {
            self.beat(); // nothing ran until now, which is no sign of anything
        }
    }

    /// Notes that a reconcile ended, and at which step it failed if it did.
    pub fn finished(&self, kind: &str, took: std::time::Duration, failed_at: Option<&str>) {
        self.in_flight.with_label_values(&[kind]).dec();
        self.duration.with_label_values(&[kind]).observe(took.as_secs_f64());
        if let Some(step) = failed_at {
            self.errors.with_label_values(&[kind, step]).inc();
        }
        self.pulse.running.fetch_sub(1, Ordering::Relaxed);
        self.beat();
    }

    fn beat(&self) {
        *self.pulse.last_finished.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
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

    /// Whether reconciles began and none has ended for a long time.
    pub fn is_wedged(&self) -> bool {
        let last = *self.pulse.last_finished.lock().unwrap_or_else(PoisonError::into_inner);
        self.pulse.running.load(Ordering::Relaxed) > 0 && last.elapsed().as_secs() > WEDGED_AFTER_SECONDS
    }

    /// Everything in the Prometheus text format.
    pub fn text(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

fn registered<C: prometheus::core::Collector + Clone + 'static>(registry: &Registry, collector: C) -> Result<C, prometheus::Error> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}
