//! What is measured. No label names a group or a device.

use prometheus::{Gauge, IntCounter, IntCounterVec, IntGauge, Opts, Registry};
use tsujiban_objects::StoreMetrics;

/// The service's own metrics.
#[derive(Debug, Clone)]
pub struct Metrics {
    pub stored: IntCounter,
    pub unchanged: IntCounter,
    pub store: StoreMetrics,
    pub expired: IntCounter,
    pub canary_ok: IntGauge,
    pub canary_checked: Gauge,
    pub expiry_overdue_seconds: Gauge,
    pub key_copy_behind: IntGauge,
    pub key_copy_timestamp: Gauge,
    pub keys_unopened: IntGauge,
    pub key_copy_replaced: IntCounterVec,
    pub key_table_lost: IntGauge,
    pub scrub_checked: IntCounter,
    pub scrub_damaged: IntGauge,
    pub scrub_oldest_check: Gauge,
}

impl Metrics {
    /// Fails when the registry has metrics of these names already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let results = IntCounterVec::new(
            Opts::new("tsujiban_backup_snapshots_total", "Configs taken in: stored as a new snapshot, or unchanged."),
            &["result"],
        )?;
        let metrics = Self {
            stored: results.get_metric_with_label_values(&["stored"])?,
            unchanged: results.get_metric_with_label_values(&["unchanged"])?,
            store: StoreMetrics::new(registry, "tsujiban_backup")?,
            expired: IntCounter::new("tsujiban_backup_expired_objects_total", "Objects deleted for good after their time.")?,
            canary_ok: IntGauge::new(
                "tsujiban_backup_canary_ok",
                "1 when the storage was last found to keep locked objects and to delete unlocked ones.",
            )?,
            canary_checked: Gauge::new("tsujiban_backup_canary_timestamp_seconds", "When that was last tried.")?,
            expiry_overdue_seconds: Gauge::new(
                "tsujiban_backup_expiry_overdue_seconds",
                "For how long the oldest object that should have left the storage is overdue.",
            )?,
            key_copy_behind: IntGauge::new(
                "tsujiban_backup_key_table_copy_behind",
                "How many changes of the key table its copy in the bucket lacks.",
            )?,
            key_copy_timestamp: Gauge::new(
                "tsujiban_backup_key_table_copy_timestamp_seconds",
                "When the key table was last copied to the bucket.",
            )?,
            keys_unopened: IntGauge::new(
                "tsujiban_backup_keys_unopened",
                "How many data keys none of the mounted epoch keys opens; what they seal is unreadable until one does.",
            )?,
            key_copy_replaced: IntCounterVec::new(
                Opts::new(
                    "tsujiban_backup_key_table_copy_replaced_total",
                    "Copies of the key table in the bucket that were not what they should be, and were made anew.",
                ),
                &["reason"],
            )?,
            key_table_lost: IntGauge::new(
                "tsujiban_backup_key_table_lost",
                "1 while objects are in the bucket of which nobody knows whose they are, since database and key table were lost together.",
            )?,
            scrub_checked: IntCounter::new("tsujiban_backup_scrub_checked_total", "Sealed objects that were read again and checked.")?,
            scrub_damaged: IntGauge::new("tsujiban_backup_scrub_damaged", "How much of what is stored is damaged.")?,
            scrub_oldest_check: Gauge::new(
                "tsujiban_backup_scrub_oldest_check_timestamp_seconds",
                "Since when everything that is stored was read again; 0 before the first whole scrub.",
            )?,
        };
        registry.register(Box::new(results))?;
        registry.register(Box::new(metrics.expired.clone()))?;
        registry.register(Box::new(metrics.canary_ok.clone()))?;
        registry.register(Box::new(metrics.canary_checked.clone()))?;
        registry.register(Box::new(metrics.expiry_overdue_seconds.clone()))?;
        registry.register(Box::new(metrics.key_copy_behind.clone()))?;
        registry.register(Box::new(metrics.key_copy_timestamp.clone()))?;
        registry.register(Box::new(metrics.keys_unopened.clone()))?;
        registry.register(Box::new(metrics.key_copy_replaced.clone()))?;
        registry.register(Box::new(metrics.key_table_lost.clone()))?;
        registry.register(Box::new(metrics.scrub_checked.clone()))?;
        registry.register(Box::new(metrics.scrub_damaged.clone()))?;
        registry.register(Box::new(metrics.scrub_oldest_check.clone()))?;
        Ok(metrics)
    }
}

/// A time in seconds since 1970, as Prometheus expects it.
pub fn seconds(time: jiff::Timestamp) -> f64 {
    time.as_duration().as_secs_f64()
}
