//! Figures about the spool.

use prometheus::{IntCounter, IntGauge, Registry};

#[derive(Debug, Clone)]
pub(super) struct Metrics {
    pub depth: IntGauge,
    pub bytes: IntGauge,
    pub age: IntGauge,
    pub apart: IntGauge,
    pub refused: IntCounter,
    pub damaged: IntCounter,
    pub lost: IntCounter,
    pub rejected: IntCounter,
    pub failed: IntCounter,
}

impl Metrics {
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        Ok(Self {
            depth: gauge("tsujiban_history_spool_entries", "Operations that have not reached the history yet.")?,
            bytes: gauge("tsujiban_history_spool_bytes", "Bytes of the spool's files.")?,
            age: gauge("tsujiban_history_spool_oldest_age_seconds", "Age of the oldest operation that has not reached the history yet.")?,
            apart: gauge(
                "tsujiban_history_spool_apart_entries",
                "Operations that wait apart, since their log takes no entries while all others do.",
            )?,
            refused: counter("tsujiban_history_spool_refused_total", "Calls that were refused since the spool was full or not writable.")?,
            damaged: counter("tsujiban_history_spool_damaged_total", "Files of the spool in which something is no record.")?,
            lost: counter(
                "tsujiban_history_spool_lost_total",
                "Operations that were lost with a damaged or missing file of the spool; at least so many.",
            )?,
            rejected: counter(
                "tsujiban_history_spool_rejected_total",
                "Operations that the history will never take; they lie beside the spool.",
            )?,
            failed: counter("tsujiban_history_append_failures_total", "Batches that did not reach the history and are sent again.")?,
        })
    }
}
