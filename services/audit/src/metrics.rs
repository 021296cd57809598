//! The service's metrics. No label names a group.

use prometheus::{Gauge, IntCounter, IntGauge, Registry};

/// The service's own metrics.
#[derive(Debug, Clone)]
pub struct Metrics {
    pub forked: IntGauge,
    pub appended: IntCounter,
    pub root_list_number: IntGauge,
    pub root_list_timestamp: Gauge,
    pub expired_days: IntCounter,
    pub expiry_overdue_days: IntGauge,
    pub keys_unopened: IntGauge,
    pub clock_synchronised: IntGauge,
    pub clock_offset: Gauge,
    pub clock_error: Gauge,
    pub covered_over: IntGauge,
    pub unlisted_logs: IntGauge,
    pub refused_logs: IntGauge,
    pub scrub_checked: IntCounter,
    pub scrub_damaged: IntGauge,
    pub scrub_oldest_check: Gauge,
}

impl Metrics {
    /// Fails when the registry has metrics of these names already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            forked: IntGauge::new(
                "tsujiban_audit_history_forked",
                "1 while the history is read-only, since it is older than, or another one than, the newest root list says.",
            )?,
            appended: IntCounter::new("tsujiban_audit_entries_total", "Entries that were appended; repeated ones are not counted.")?,
            root_list_number: IntGauge::new("tsujiban_audit_root_list_number", "The number of the newest root list in the bucket.")?,
            root_list_timestamp: Gauge::new(
                "tsujiban_audit_root_list_timestamp_seconds",
                "When the root lists in the bucket were last found to say all.",
            )?,
            expired_days: IntCounter::new("tsujiban_audit_expired_days_total", "Days of logs whose keys and bodies were destroyed.")?,
            expiry_overdue_days: IntGauge::new(
                "tsujiban_audit_expiry_overdue",
                "How many days of logs have expired and are not destroyed yet.",
            )?,
            keys_unopened: IntGauge::new(
                "tsujiban_audit_keys_unopened",
                "How many day keys none of the mounted epoch keys opens; what they seal is unreadable until one does.",
            )?,
            clock_synchronised: IntGauge::new("tsujiban_clock_synchronised", "1 when the kernel says that the clock is synchronised.")?,
            clock_offset: Gauge::new("tsujiban_clock_offset_seconds", "How far the clock is from its source, by the kernel.")?,
            clock_error: Gauge::new("tsujiban_clock_max_error_seconds", "How far the clock may be off at most, by the kernel.")?,
            covered_over: IntGauge::new(
                "tsujiban_audit_root_lists_covered_over",
                "How many of the newest root lists have another version or a delete marker over them, which somebody else put.",
            )?,
            unlisted_logs: IntGauge::new(
                "tsujiban_audit_unlisted_logs",
                "How many logs are left out of root lists, since their entries do not lead to their heads.",
            )?,
            refused_logs: IntGauge::new(
                "tsujiban_audit_refused_logs",
                "How many logs take no entries, since what is stored of them does not hold together; all others go on.",
            )?,
            scrub_checked: IntCounter::new(
                "tsujiban_audit_scrub_checked_total",
                "Entries, wrapped keys and root lists that the scrub has read again.",
            )?,
            scrub_damaged: IntGauge::new(
                "tsujiban_audit_scrub_damaged",
                "What is damaged of the history where it is stored, as the scrub found.",
            )?,
            scrub_oldest_check: Gauge::new(
                "tsujiban_audit_scrub_oldest_check_timestamp_seconds",
                "Every log was read again by the scrub at this time or later.",
            )?,
        };
        registry.register(Box::new(metrics.covered_over.clone()))?;
        registry.register(Box::new(metrics.unlisted_logs.clone()))?;
        registry.register(Box::new(metrics.refused_logs.clone()))?;
        let gauges =
            [&metrics.forked, &metrics.root_list_number, &metrics.expiry_overdue_days, &metrics.keys_unopened, &metrics.clock_synchronised];
        for gauge in gauges {
            registry.register(Box::new(gauge.clone()))?;
        }
        for gauge in [&metrics.root_list_timestamp, &metrics.clock_offset, &metrics.clock_error] {
            registry.register(Box::new(gauge.clone()))?;
        }
        for counter in [&metrics.appended, &metrics.expired_days] {
            registry.register(Box::new(counter.clone()))?;
        }
        registry.register(Box::new(metrics.scrub_checked.clone()))?;
        registry.register(Box::new(metrics.scrub_damaged.clone()))?;
        registry.register(Box::new(metrics.scrub_oldest_check.clone()))?;
        Ok(metrics)
    }
}
