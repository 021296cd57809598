//! Faults between a client and the apiserver: a tower layer for `kube::client::ClientBuilder`, and the faults that it is set to make.
//!
//! Nothing here is random: a [`Plan`] decides by its seed and the request, and a [`Crash`] by the writes so far. [`Faults::heal`] ends the
//! faults for all later requests. A request that hangs already continues to hang, as on a dead connection: the client has to abandon it.

mod call;
mod crash;
mod events;
mod given;
mod layer;
mod plan;
mod service;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::StatusCode;
use kube::Client;
use kube::client::ClientBuilder;
use serde_json::Value;

use crate::Access;

pub use call::Call;
pub use crash::{Aim, Crash};
pub use layer::FaultLayer;
pub use plan::{EventFault, Fault, Plan};
pub use service::CrashableBackup;

/// How many answers to one read are remembered, to be returned again when they are old.
const REMEMBERED: usize = 8;

/// A write as it was sent, and the apiserver's answer. `None` when the request never reached the apiserver.
#[derive(Debug, Clone)]
pub struct Sent {
    pub call: Call,
    pub body: Value,
    pub code: Option<u16>,
}

impl Sent {
    pub fn is_done(&self) -> bool {
        self.code.is_some_and(|code| (200..300).contains(&code))
    }
}

/// Decides what becomes of one event of a watch.
pub type Script = Arc<dyn Fn(&Call, &Value) -> EventFault + Send + Sync>;

/// Which faults happen.
#[derive(Clone, Default)]
pub enum Mode {
    #[default]
    Nothing,
    /// A bit of everything, by a seed.
    Mixed(Plan),
    /// Faults of watch events, decided by a script.
    Events(Script),
    /// Power cuts.
    Crash(Crash),
}

/// An answer that was given once.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub status: StatusCode,
    pub media: Option<http::HeaderValue>,
    pub body: Bytes,
}

#[derive(Default)]
struct State {
    mode: Mode,
    asked: BTreeMap<String, u64>,
    answers: BTreeMap<String, VecDeque<Answer>>,
    sent: Vec<Sent>,
    done: BTreeMap<&'static str, u64>,
}

/// Makes clients whose connections to the apiserver can be disturbed. Clones share everything.
#[derive(Clone, Default)]
pub struct Faults(Arc<Mutex<State>>);

impl Faults {
    pub fn new(mode: Mode) -> Self {
        let faults = Self::default();
        faults.set(mode);
        faults
    }

    /// A client whose requests go through these faults.
    pub fn client(&self, access: &Access) -> anyhow::Result<Client> {
        Ok(ClientBuilder::try_from(access.config.clone())?.with_layer(&FaultLayer::new(self.clone())).build())
    }

    pub fn set(&self, mode: Mode) {
        self.state().mode = mode;
    }

    /// Ends all faults from now on.
    pub fn heal(&self) {
        self.set(Mode::Nothing);
    }

    /// The writes so far, in the order in which they were sent.
    pub fn sent(&self) -> Vec<Sent> {
        self.state().sent.clone()
    }

    /// How often each kind of fault was made so far.
    pub fn done(&self) -> BTreeMap<&'static str, u64> {
        self.state().done.clone()
    }

    pub(crate) fn crash(&self) -> Option<Crash> {
        match &self.state().mode {
            Mode::Crash(crash) => Some(crash.clone()),
            _ => None,
        }
    }

    pub(crate) fn on_request(&self, call: &Call) -> Fault {
        let mut state = self.state();
        let Mode::Mixed(plan) = state.mode.clone() else { return Fault::None };
        let nth = counted(&mut state.asked, format!("{} {}", call.method, call.path));
        let fault = plan.on_request(call, nth);
        if fault != Fault::None {
            counted(&mut state.done, fault.name());
        }
        fault
    }

    pub(crate) fn on_event(&self, call: &Call, event: &Value) -> EventFault {
        let mut state = self.state();
        let fault = match state.mode.clone() {
            Mode::Mixed(plan) => {
                let object = event.pointer("/object/metadata/name").and_then(Value::as_str).unwrap_or_default();
                let nth = counted(&mut state.asked, format!("event {} {object}", call.resource));
                plan.on_event(&call.resource, object, nth)
            }
            Mode::Events(script) => script(call, event),
            Mode::Nothing | Mode::Crash(_) => EventFault::None,
        };
        // a bookmark reports no change: it gets lost only with its watch
        let is_bookmark = event.pointer("/type").and_then(Value::as_str) == Some("BOOKMARK");
        let fault = if is_bookmark && fault.is_about_one_event() { EventFault::None } else { fault };
        if fault != EventFault::None {
            counted(&mut state.done, fault.name());
        }
        fault
    }

    pub(crate) fn remember(&self, key: &str, answer: Answer) {
        let mut state = self.state();
        let answers = state.answers.entry(key.to_owned()).or_default();
        if answers.back() != Some(&answer) {
            answers.push_back(answer);
        }
        if answers.len() > REMEMBERED {
            answers.pop_front();
        }
    }

    /// An answer older than the newest one; `pick` selects which.
    pub(crate) fn old_answer(&self, key: &str, pick: u64) -> Option<Answer> {
        let state = self.state();
        let answers = state.answers.get(key)?;
        let old = u64::try_from(answers.len().checked_sub(1)?).ok().filter(|old| *old > 0)?;
        answers.get(usize::try_from(pick % old).ok()?).cloned()
    }

    pub(crate) fn note(&self, sent: Sent) {
        self.state().sent.push(sent);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts one more, and answers how many there were before.
fn counted<K: Clone + Ord>(counts: &mut BTreeMap<K, u64>, key: impl Into<K>) -> u64 {
    let count = counts.entry(key.into()).or_default();
    let before = *count;
    *count = before.saturating_add(1);
    before
}
