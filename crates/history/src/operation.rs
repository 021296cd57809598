//! A recorded operation (C5). Its JSON is the body of an entry. The order of the fields is fixed. Line breaks and control characters are
//! escaped, whatever a customer typed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tsujiban_core::escape::escape_json;
use tsujiban_core::history::JstTime;

use crate::EntryId;

/// The longest body, in bytes.
pub const MAX_BODY: usize = 64 << 10;
/// The length of the text of a time, in bytes.
const TIME: usize = 32;
const FORM: &[u8; TIME] = b"0000-00-00T00:00:00.000000+00:00";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operation {
    /// Shared by the intent and the outcome of one call.
    pub id: EntryId,
    pub phase: Phase,
    /// When the call began, as seen by the service that was called.
    pub time: JstTime,
    pub actor: Actor,
    /// The peer's address. Empty where there is none.
    pub from: String,
    pub service: String,
    pub method: String,
    /// The function that custom roles refer to, such as `snapshots`.
    pub function: String,
    pub operation: Access,
    /// The object of the operation: free text, which callers escape when they show it.
    pub target: String,
    pub result: Outcome,
    /// The gRPC code's name, such as `PERMISSION_DENIED`.
    pub code: String,
    pub reason: String,
    pub duration_us: u64,
    pub request_id: String,
    pub trace_id: String,
    pub detail: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Phase {
    /// Written before a strict operation runs. Shown only if no outcome with the same id exists.
    Intent,
    /// Written after the operation. Contains all fields of the intent.
    Outcome,
    /// A change that a service observed afterwards, such as one made with kubectl.
    Observed,
}

/// Who performed the operation: an id, never a name. Readers of the history resolve names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Actor {
    pub kind: ActorKind,
    pub id: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActorKind {
    Workload,
    Staff,
    Person,
    /// A user that the apiserver knows.
    Kubernetes,
    Unknown,
}

/// The kind of access that custom roles grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Access {
    View,
    Create,
    Operate,
    Delete,
    Administer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Outcome {
    Allowed,
    Denied,
    Failed,
    /// The service stopped between intent and outcome.
    Unknown,
    /// The result of an intent whose outcome is not written yet.
    Pending,
}

macro_rules! text {
    ($($name:ident { $($variant:ident => $text:literal),* })*) => {$(
        impl $name {
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidOperation;
            fn from_str(text: &str) -> Result<Self, InvalidOperation> {
                Self::ALL.iter().copied().find(|known| known.as_str() == text).ok_or(InvalidOperation::Malformed)
            }
        }
    )*};
}
text! {
    Phase { Intent => "INTENT", Outcome => "OUTCOME", Observed => "OBSERVED" }
    ActorKind { Workload => "workload", Staff => "staff", Person => "person", Kubernetes => "kubernetes", Unknown => "unknown" }
    Access { View => "VIEW", Create => "CREATE", Operate => "OPERATE", Delete => "DELETE", Administer => "ADMINISTER" }
    Outcome { Allowed => "ALLOWED", Denied => "DENIED", Failed => "FAILED", Unknown => "UNKNOWN", Pending => "PENDING" }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidOperation {
    #[error("the operation has {0} bytes as JSON, and at most 65,536 are kept; shorten target, reason or detail")]
    TooLong(usize),
    #[error("this is not an operation as it is stored")]
    Malformed,
}

impl Operation {
    /// The body that is stored, and that the leaf commits to.
    pub fn encode(&self) -> Result<Vec<u8>, InvalidOperation> {
        let json = serde_json::to_string(self).map_err(|_| InvalidOperation::Malformed)?;
        // escapes terminal control characters and characters that change the writing direction: readers get bodies unchanged
        let body = escape_json(&json).into_bytes();
        if body.len() > MAX_BODY { Err(InvalidOperation::TooLong(body.len())) } else { Ok(body) }
    }

    /// The text of the time in a stored body, at its fixed position. The order of these texts is the order of the times.
    /// Fast: parses nothing else.
    pub fn time_in(body: &[u8]) -> Option<[u8; TIME]> {
        let rest = body.strip_prefix(br#"{"id":""#)?.split_at_checked(32)?.1.strip_prefix(br#"","phase":""#)?;
        let mut phases = Phase::ALL.iter().map(|phase| phase.as_str().as_bytes());
        let rest = phases.find_map(|phase| rest.strip_prefix(phase))?.strip_prefix(br#"","time":""#)?;
        let time = rest.first_chunk::<TIME>()?;
        let is_form = time.iter().zip(FORM).all(|(found, form)| if *form == b'0' { found.is_ascii_digit() } else { found == form });
        (is_form && time.ends_with(b"+09:00")).then_some(*time)
    }

    /// Accepts only what [`Operation::encode`] writes.
    pub fn parse(body: &[u8]) -> Result<Self, InvalidOperation> {
        if body.len() > MAX_BODY {
            return Err(InvalidOperation::TooLong(body.len()));
        }
        let operation: Self = serde_json::from_slice(body).map_err(|_| InvalidOperation::Malformed)?;
        if operation.encode()? == body { Ok(operation) } else { Err(InvalidOperation::Malformed) }
    }
}

#[cfg(test)]
mod tests;
