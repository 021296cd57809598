//! Errors on the wire: a small set of kinds, each with a stable reason and a message that says what to do.

use std::collections::HashMap;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// The domain of the reasons in `google.rpc.ErrorInfo`.
const DOMAIN: &str = "tsujiban.dev";

/// The reason of a refusal to store anything for a Device that was erased.
pub const DEVICE_ERASED: &str = "DEVICE_ERASED";
/// The reason of a refusal while a service can write nothing, and of a report that cannot be made since its database cannot be read.
pub const CANNOT_WRITE: &str = "CANNOT_WRITE";

/// What went wrong, as far as a caller has to know to act. Each kind is one gRPC code, and no other code is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The request is wrong and will be wrong again.
    Invalid,
    /// The caller did not prove its identity.
    Unauthenticated,
    /// The caller may not do this.
    Denied,
    NotFound,
    /// Something has to change before this can be done.
    Precondition,
    /// A concurrent change came first; read again, then decide.
    Aborted,
    /// Too much at once, or too large.
    Exhausted,
    /// Try again later.
    Unavailable,
    Timeout,
    /// Stored data is damaged.
    DataLoss,
    /// A fault of ours.
    Internal,
}

impl Kind {
    pub const ALL: [Self; 11] = [
        Self::Invalid,
        Self::Unauthenticated,
        Self::Denied,
        Self::NotFound,
        Self::Precondition,
        Self::Aborted,
        Self::Exhausted,
        Self::Unavailable,
        Self::Timeout,
        Self::DataLoss,
        Self::Internal,
    ];

    pub const fn code(self) -> Code {
        match self {
            Self::Invalid => Code::InvalidArgument,
            Self::Unauthenticated => Code::Unauthenticated,
            Self::Denied => Code::PermissionDenied,
            Self::NotFound => Code::NotFound,
            Self::Precondition => Code::FailedPrecondition,
            Self::Aborted => Code::Aborted,
            Self::Exhausted => Code::ResourceExhausted,
            Self::Unavailable => Code::Unavailable,
            Self::Timeout => Code::DeadlineExceeded,
            Self::DataLoss => Code::DataLoss,
            Self::Internal => Code::Internal,
        }
    }
}

/// An error of a service. The message is for people: what happened, to what, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ServiceError {
    pub kind: Kind,
    /// A stable word for programs, in UPPER_SNAKE_CASE.
    pub reason: String,
    pub message: String,
}

impl ServiceError {
    pub fn new(kind: Kind, reason: &str, message: impl Into<String>) -> Self {
        Self { kind, reason: reason.to_owned(), message: message.into() }
    }
}

impl From<ServiceError> for Status {
    fn from(error: ServiceError) -> Self {
        let details = ErrorDetails::with_error_info(error.reason, DOMAIN, HashMap::<String, String>::new());
        Self::with_error_details(error.kind.code(), error.message, details)
    }
}

/// Reads an error back. A code that no service of ours sends, such as one made by the transport, counts as unavailable when
/// the transport failed and as internal otherwise.
impl From<&Status> for ServiceError {
    fn from(status: &Status) -> Self {
        let kind = Kind::ALL.into_iter().find(|kind| kind.code() == status.code()).unwrap_or(match status.code() {
            Code::Unknown | Code::Cancelled => Kind::Unavailable,
            _ => Kind::Internal,
        });
        let reason = status.get_details_error_info().map(|info| info.reason).unwrap_or_default();
        Self { kind, reason, message: status.message().to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        for kind in Kind::ALL {
            let error = ServiceError::new(kind, "SOME_REASON", "group \"acme\" is suspended; resume it first");
            assert_eq!(ServiceError::from(&Status::from(error.clone())), error);
        }
    }

    #[test]
    fn codes_of_the_transport_are_mapped() {
        assert_eq!(ServiceError::from(&Status::unknown("transport error")).kind, Kind::Unavailable);
        assert_eq!(ServiceError::from(&Status::unimplemented("")).kind, Kind::Internal);
    }
}
