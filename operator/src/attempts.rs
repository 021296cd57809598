//! What the backup service knows of each device: polled, kept in memory, and from there written into the Devices' status.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use kube::ResourceExt;
use tsujiban_api::names;
use tsujiban_core::id::{GroupId, IncarnationId};
use tsujiban_core::outcome::Reason;
use tsujiban_proto::backup::v1::Attempt;
use tsujiban_proto::time::from_wire;

use crate::context::Context;
use crate::errors::chain;
use crate::report::Reports;
use crate::service_client::CallError;
use tsujiban_core::workload::Service;

const EVERY: Duration = Duration::from_secs(10);
/// The longest message that a Device's status takes, in characters.
const MESSAGE: usize = 512;

/// How the last attempt of a device ended, and what is stored of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub time: Timestamp,
    pub outcome: Outcome,
    pub message: String,
    pub newest: Option<Stored>,
    pub observed_host_key: Option<String>,
    pub pinned_host_key: Option<String>,
    pub model: Option<String>,
    pub firmware: Option<String>,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Changed,
    Unchanged,
    Failed(Reason),
}

impl Outcome {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Changed => "Changed",
            Self::Unchanged => "Unchanged",
            Self::Failed(reason) => reason.as_str(),
        }
    }
}

/// The newest stored snapshot of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    pub id: String,
    pub taken_at: Timestamp,
    pub seen_at: Timestamp,
    pub bytes: i64,
    pub shrunk: bool,
    /// Whether the storage does not have any more what was stored.
    pub damaged: bool,
}

impl Record {
    /// From the wire; `None` when the service sent something that is not understood.
    pub fn from_wire(attempt: &Attempt) -> Option<Self> {
        let outcome = match attempt.reason().known() {
            Some(reason) => Outcome::Failed(reason),
            None if attempt.changed => Outcome::Changed,
            None => Outcome::Unchanged,
        };
        let newest = attempt.newest.as_ref().and_then(|snapshot| {
            Some(Stored {
                id: snapshot.id.clone(),
                taken_at: from_wire(snapshot.taken_at.as_ref()?)?,
                seen_at: from_wire(snapshot.seen_at.as_ref()?)?,
                bytes: i64::try_from(snapshot.bytes).ok()?,
                shrunk: snapshot.shrunk,
                damaged: snapshot.damaged,
            })
        });
        Some(Self {
            time: from_wire(attempt.time.as_ref()?)?,
            outcome,
            message: attempt.message.chars().take(MESSAGE).collect(),
            newest,
            observed_host_key: given(&attempt.observed_host_key),
            pinned_host_key: given(&attempt.pinned_host_key),
            model: given(&attempt.model),
            firmware: given(&attempt.firmware),
        })
    }
}

fn given(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// The records, by the group's incarnation and serial number: a group that was erased and made again under its name is another one.
#[derive(Debug, Default)]
pub struct Book(Mutex<HashMap<Key, Arc<Record>>>);

type Key = (IncarnationId, String);

impl Book {
    pub fn get(&self, group: &IncarnationId, serial: &str) -> Option<Arc<Record>> {
        self.entries().get(&(group.clone(), serial.to_owned())).cloned()
    }

    /// Keeps a record. Answers whether it says something new.
    pub fn put(&self, group: &IncarnationId, serial: &str, record: Record) -> bool {
        let mut entries = self.entries();
        let key = (group.clone(), serial.to_owned());
        if entries.get(&key).is_some_and(|known| **known == record) {
            return false;
        }
        entries.insert(key, Arc::new(record));
        true
    }

    /// Forgets a device, once its data is erased.
    pub fn forget(&self, group: &IncarnationId, serial: &str) {
        self.entries().remove(&(group.clone(), serial.to_owned()));
    }

    /// Forgets a group, once its data is erased.
    pub fn forget_group(&self, group: &IncarnationId) {
        self.entries().retain(|(life, _), _| life != group);
    }

    fn entries(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Arc<Record>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Polls the service for ever. A cursor that is lost, as after a restart, costs one reading of everything and no write.
pub async fn poll(context: Arc<Context>) {
    let mut cursor = 0;
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        loop {
            match page(&context, cursor).await {
                Ok(next) if next != cursor => cursor = next,
                Ok(_) => break,
                Err(error) => {
                    tracing::debug!(error = chain(&error), "the outcomes of attempts could not be read");
                    break;
                }
            }
        }
    }
}

/// Which group an attempt was made for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Life {
    Known(IncarnationId),
    /// Its group is erased.
    Gone,
    /// The service has not reported since.
    NotReported,
}

/// Decides by the service's report. An attempt names its group alone, and what is listed is never of an erased one.
fn life(reports: &Reports, group: &GroupId, made: Timestamp) -> Life {
    let Some(facts) = reports.of(Service::Backup) else { return Life::NotReported };
    match facts.standing(group) {
        Some(incarnation) => Life::Known(incarnation.clone()),
        None if facts.at > made => Life::Gone,
        None => Life::NotReported,
    }
}

async fn page(context: &Context, cursor: u64) -> Result<u64, CallError> {
    let answer = context.services.get(Service::Backup)?.attempts(cursor).await?;
    let mut reached = answer.cursor;
    let mut news: HashSet<Key> = HashSet::new();
    for attempt in &answer.attempts {
        let Some(device) = &attempt.device else { continue };
        let (Some(record), Ok(group)) = (Record::from_wire(attempt), device.group.parse()) else {
            tracing::warn!(group = device.group, "the backup service sent an attempt that is not understood");
            continue;
        };
        match life(&context.reports.borrow(), &group, record.time) {
            Life::Known(incarnation) => {
                if context.book.put(&incarnation, &device.serial, record) {
                    news.insert((incarnation, device.serial.clone()));
                }
            }
            Life::Gone => {}
            Life::NotReported => {
                reached = attempt.cursor.saturating_sub(1).max(cursor); // it is read again when the service has reported
                break;
            }
        }
    }
    if !news.is_empty() {
        for device in context.devices.state() {
            let group = device.namespace().as_deref().and_then(names::group_of_namespace);
            let incarnation = group.and_then(|group| context.reports.borrow().of(Service::Backup)?.standing(&group).cloned());
            if incarnation.is_some_and(|incarnation| news.contains(&(incarnation, device.spec.serial_number.clone()))) {
                context.wake_device(&device);
            }
        }
    }
    // a service that lost its catalogue counts from the beginning again
    Ok(if answer.cursor < cursor { 0 } else { reached })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Facts;
    use tsujiban_proto::backup::v1 as wire;
    use tsujiban_proto::lifecycle::v1::{GroupReport, GroupState, ReportResponse};

    fn attempt(reason: wire::Reason, changed: bool) -> Attempt {
        let time = Some(tsujiban_proto::time::to_wire(Timestamp::from_second(10).unwrap()));
        let newest = Some(wire::Snapshot { id: "1".into(), taken_at: time, seen_at: time, bytes: 5, ..wire::Snapshot::default() });
        Attempt { time, reason: reason.into(), changed, newest, message: "x".repeat(600), ..Attempt::default() }
    }

    #[test]
    fn the_wire_is_read() {
        let record = Record::from_wire(&attempt(wire::Reason::Unspecified, true)).unwrap();
        assert_eq!((record.outcome.as_str(), record.message.len(), record.observed_host_key), ("Changed", 512, None));
        assert_eq!(Record::from_wire(&attempt(wire::Reason::Timeout, false)).unwrap().outcome, Outcome::Failed(Reason::Timeout));
        assert_eq!(Record::from_wire(&Attempt::default()), None);
    }

    fn incarnation(digit: u8) -> IncarnationId {
        IncarnationId::from_bytes([digit; 16])
    }

    #[test]
    fn only_news_is_news() {
        let book = Book::default();
        let (acme, borealis) = (incarnation(1), incarnation(2));
        let record = Record::from_wire(&attempt(wire::Reason::Unspecified, false)).unwrap();
        assert!(book.put(&acme, "S1", record.clone()));
        assert!(!book.put(&acme, "S1", record.clone()));
        assert!(book.put(&borealis, "S1", record.clone()));
        book.forget(&acme, "S1");
        assert!(book.get(&acme, "S1").is_none() && book.get(&borealis, "S1").is_some());
        book.put(&borealis, "S2", record);
        book.forget_group(&borealis);
        assert!(book.get(&borealis, "S1").is_none() && book.get(&borealis, "S2").is_none());
    }

    /// A group that was erased and made again under its name shows nothing of the earlier one.
    #[test]
    fn an_attempt_is_of_the_groups_present_life() {
        let group: GroupId = "acme".parse().unwrap();
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let judged = |groups: &[(u8, GroupState)], made: i64| {
            let reported = groups.iter().map(|(digit, state)| GroupReport {
                group: "acme".into(),
                incarnation: incarnation(*digit).to_string(),
                state: (*state).into(),
                ..GroupReport::default()
            });
            let report = ReportResponse { groups: reported.collect(), ..ReportResponse::default() };
            let mut reports = Reports::default();
            reports.take(Service::Backup, Arc::new(Facts::from_wire(&report, at(100))));
            life(&reports, &group, at(made))
        };
        assert_eq!(life(&Reports::default(), &group, at(1)), Life::NotReported);
        assert_eq!(judged(&[(1, GroupState::Living)], 50), Life::Known(incarnation(1)));
        assert_eq!(judged(&[(1, GroupState::Retained)], 50), Life::Known(incarnation(1)));
        assert_eq!(judged(&[(1, GroupState::Erased), (2, GroupState::Living)], 50), Life::Known(incarnation(2)));
        assert_eq!(judged(&[(1, GroupState::Erased)], 50), Life::Gone);
        assert_eq!(judged(&[(1, GroupState::Erased)], 150), Life::NotReported, "it may have been made again since");
    }
}
