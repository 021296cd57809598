//! The operation history, as every server writes it (C5): the outcome of each call, in the history of the group that it touched.
//!
//! A strict call's intent is in the history before the call does anything. All other entries go through the [`spool`], and so does the
//! outcome of a strict call: the caller gets the answer once the outcome is on the local disk, and the history gets the outcome when it can
//! be reached.

mod client;
pub mod keeper;
mod kept;
mod ledger;
mod losses;
pub(crate) mod operation;
mod refusals;
pub mod spool;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use prometheus::Registry;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tsujiban_core::clock::Clock;
use tsujiban_core::id::KeyId;
use tsujiban_proto::access::v1::{History as AuditLevel, Operation as Verb};
use tsujiban_proto::audit::v1::{NewEntry, Operation, Phase, Result as AuditResult};
use tsujiban_proto::error::{Kind, ServiceError};
use tsujiban_proto::time::to_wire;
use tsujiban_sealing::{Keyring, Random};

pub use self::client::{ClientArgs, HistoryClient, InvalidClient};
use self::keeper::Keeper;
pub use self::ledger::{LOG_REFUSED, Ledger};
use self::ledger::{OTHER_OWNER, UNCLAIMED};
pub use self::losses::{SPOOL_BEGUN, SPOOL_DAMAGED, SPOOL_LOST};
pub use self::operation::{entry, entry_id};
use self::refusals::{Refusals, Verdict};
use self::spool::{Drain, Durability, Opened, Reservation, Spool, SpoolError, SpoolKeyError, Succession};

/// The reason of refusing a call that could not be recorded.
pub const HISTORY_UNAVAILABLE: &str = "HISTORY_UNAVAILABLE";
const PREPARE: &str = "Prepare";
/// How long the history has to acknowledge an intent.
const INTENT: Duration = Duration::from_secs(5);
/// How often the history is asked about the kept entries.
pub const ASK: Duration = Duration::from_mins(1);

/// What a history is made of.
pub struct Parts {
    /// The service that writes the history, such as `tsujiban-backup`.
    pub service: &'static str,
    /// The folder of the spool, on a volume.
    pub dir: PathBuf,
    /// How many bytes entries may take that have not arrived. Those that have arrived and are kept take at most a quarter of it on top.
    pub bytes: u64,
    /// Wraps the spool's key.
    pub keyring: Arc<Keyring>,
    pub ledger: Arc<dyn Ledger>,
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
}

/// The writing side of the operation history. Clones share it.
#[derive(Clone)]
pub struct History(Arc<Shared>);

struct Shared {
    spool: Spool,
    keeper: Keeper,
    keyring: Arc<Keyring>,
    ledger: Arc<dyn Ledger>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    refusals: Refusals,
}

/// Sends the entries of the spool to the history, while it runs.
#[must_use = "nothing reaches the history unless this runs"]
pub struct Delivery {
    drain: Drain,
    history: History,
    /// How often the history is asked about the kept entries.
    every: Duration,
    beginning: Option<(Succession, Written)>,
}

/// A call's handle to the history, from before the handler runs to the end of the call.
pub(crate) struct Ticket {
    place: Reservation,
    class: AuditLevel,
    history: History,
}

pub(crate) use self::spool::{WriteFailed, Written};

impl History {
    /// Opens the spool, and records an unknown outcome for each call that was cut off when the previous process stopped.
    pub fn open(parts: Parts, registry: &Registry) -> Result<(Self, Delivery), SpoolError> {
        let Parts { service, dir, bytes, keyring, ledger, clock, random } = parts;
        let opened = Spool::open(&dir, bytes, (&keyring, Arc::clone(&random)), service, clock.now(), registry)?;
        let Opened { spool, drain, keeper, beginning, begun } = opened;
        let beginning = beginning.map(|beginning| {
            let written = spool.report_beginning(&beginning, clock.now());
            (beginning, written)
        });
        let refusals = Refusals::register(registry)?;
        if !begun.is_empty() {
            tracing::warn!(calls = begun.len(), "calls were cut off when this service stopped; what came of them is unknown");
        }
        for NewEntry { group, operation, .. } in begun {
            let Some(operation) = operation else { continue };
            // without a reservation: these entries are few, and their calls reserved room when they began
            drop(spool.force(&operation::entry(&group, operation::unknown(operation))));
        }
        let history = Self(Arc::new(Shared { spool, keeper, keyring, ledger, clock, random, refusals }));
        Ok((history.clone(), Delivery { drain, history, every: ASK, beginning }))
    }

    /// Wraps the spool's key again. Call it whenever the mounted epoch keys have changed, before an old one is removed.
    pub fn follow_epochs(&self) -> Result<(), SpoolKeyError> {
        self.0.spool.rewrap(&self.0.keyring, self.now())
    }

    /// The epoch keys without which the spool cannot be opened. None of them may be destroyed.
    pub fn epochs_in_use(&self) -> Result<Vec<KeyId>, SpoolKeyError> {
        self.0.spool.epochs()
    }

    /// How many entries have not reached the history yet.
    pub fn depth(&self) -> u64 {
        self.0.spool.depth()
    }

    /// How many entries have arrived that no root list covers, as far as this process knows.
    pub fn kept(&self) -> usize {
        self.0.keeper.len()
    }

    /// Records an operation that was no call, such as a change by kubectl, in the history of a group or in the platform's own (`group` is
    /// empty). Returns when it is on the local disk. The caller chooses its id: the same id again within two days is the same entry.
    pub async fn observe(&self, group: &str, mut operation: Operation) -> Result<(), ServiceError> {
        operation.set_phase(Phase::Observed);
        let written = self.0.spool.reserve(1)?.end(&operation::entry(group, operation), Durability::Synchronised);
        match written.await {
            Ok(Ok(())) => Ok(()),
            _ => Err(not_recorded()),
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.0.clock.now()
    }

    /// 16 unpredictable bytes. Without randomness there is no id, and nothing can be sealed either.
    pub(crate) fn id(&self) -> Result<[u8; operation::ID_BYTES], ServiceError> {
        let mut id = [0; operation::ID_BYTES];
        let none = |_| ServiceError::new(Kind::Internal, "NO_RANDOMNESS", "the machine gives no random bytes; restart the service");
        self.0.random.fill(&mut id).map_err(none)?;
        Ok(id)
    }

    /// Reserves room for the entries of a call that begins. `None` for one that is not recorded.
    pub(crate) fn begin(&self, class: AuditLevel) -> Result<Option<Ticket>, ServiceError> {
        if class == AuditLevel::None {
            return Ok(None);
        }
        // the intent and the outcome, or the outcome alone
        let records = if class == AuditLevel::Strict { 2 } else { 1 };
        let place = self.0.spool.reserve(records)?;
        Ok(Some(Ticket { place, class, history: self.clone() }))
    }

    /// Records that a call was refused, unless there are too many. Does not wait for the disk.
    pub(crate) fn refused(&self, group: &str, operation: Operation) {
        let now = self.now();
        let actor = operation.actor.as_ref().map(|actor| actor.id.clone()).unwrap_or_default();
        if self.0.refusals.judge(&actor, now) == Verdict::Recorded {
            self.offer(group, operation);
        }
        self.report_left_out(now);
    }

    /// Records in the platform's own history how many refusals are not in the history.
    fn report_left_out(&self, now: Timestamp) {
        let Some(left_out) = self.0.refusals.to_tell(now) else { return };
        let Ok(id) = self.id() else { return };
        let mut operation = Operation { id: id.to_vec(), time: Some(to_wire(now)), ..Operation::default() };
        operation.set_phase(Phase::Observed);
        operation.set_operation(Verb::View);
        operation.set_result(AuditResult::Denied);
        operation.actor = Some(operation::nobody());
        "REFUSALS_LEFT_OUT".clone_into(&mut operation.reason);
        operation.detail.insert("count".to_owned(), left_out.to_string());
        self.offer("", operation);
    }

    fn offer(&self, group: &str, operation: Operation) {
        match self.0.spool.reserve(1) {
            Ok(mut place) => drop(place.end(&operation::entry(group, operation), Durability::Written)),
            Err(_) => self.0.refusals.leave_out(),
        }
    }
}

impl Ticket {
    /// For a strict call, passes when its intent is in the history. Any other call passes.
    pub(crate) async fn intend(&mut self, group: &str, operation: &Operation) -> Result<(), ServiceError> {
        if self.class != AuditLevel::Strict {
            return Ok(());
        }
        let intent = operation::entry(group, operation::intent(operation));
        // to the local disk first, so that the next start finds the intent whatever happens
        if !matches!(self.place.begin(&intent).await, Ok(Ok(()))) {
            return Err(unavailable("the volume of the history's spool cannot be written; look at the volume of the service"));
        }
        let history = &self.history.0;
        match timeout(INTENT, history.ledger.append(vec![intent.clone()])).await {
            Ok(Ok(())) => {
                history.keeper.keep(vec![intent], history.clock.now()).await;
                Ok(())
            }
            // this Prepare and the ones after it determine whose log it is, so the intent is sent later, from the spool
            Ok(Err(error)) if [UNCLAIMED, OTHER_OWNER].contains(&error.reason.as_str()) && operation.method == PREPARE => {
                let mut place = history.spool.reserve(1)?;
                match place.end(&intent, Durability::Synchronised).await {
                    Ok(Ok(())) => Ok(()),
                    _ => Err(unavailable("the volume of the history's spool cannot be written; look at the volume of the service")),
                }
            }
            Ok(Err(error)) => {
                tracing::warn!(reason = error.reason, error = error.message, "an intent did not reach the history");
                Err(unavailable("the operation history does not take it; look at tsujiban-audit and try again"))
            }
            Err(_) => Err(unavailable("the operation history does not answer in time; look at tsujiban-audit and try again")),
        }
    }

    /// Records the outcome of the call. The answer has to wait until it is written.
    pub(crate) fn close(mut self, group: &str, operation: Operation) -> Written {
        // the outcome of a read survives the end of this process, that of a write also a crash of the machine
        let durability = if self.class == AuditLevel::Read { Durability::Written } else { Durability::Synchronised };
        self.place.end(&operation::entry(group, operation), durability)
    }
}

/// The error for a call that was done and could not be recorded.
pub(crate) fn not_recorded() -> ServiceError {
    let message = "the call may have been done, and that could not be written down; look at the volume of the service, and repeat the call";
    ServiceError::new(Kind::Unavailable, HISTORY_UNAVAILABLE, message)
}

fn unavailable(why: &str) -> ServiceError {
    ServiceError::new(Kind::Unavailable, HISTORY_UNAVAILABLE, format!("nothing was done, since it could not be recorded: {why}"))
}

impl Delivery {
    /// Runs until `stop` is cancelled. Entries that have not arrived by then wait in the spool for the next start.
    pub async fn run(self, stop: CancellationToken) {
        let Self { drain, history, every, beginning } = self;
        let shared = &history.0;
        if let Some((beginning, written)) = beginning
            && let Ok(Ok(())) = written.await
            && let Err(error) = beginning.note()
        {
            tracing::warn!(%error, "which spool this is cannot be noted beside it; its beginning is recorded again at the next start");
        }
        drain.run(Arc::clone(&shared.ledger), Arc::clone(&shared.clock), every, stop).await;
    }

    /// Asks about the kept entries at this interval instead of once a minute.
    pub fn asking(self, every: Duration) -> Self {
        Self { every, ..self }
    }
}
