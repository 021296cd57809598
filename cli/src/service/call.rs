//! Why a call failed.

use tonic::Status;
use tsujiban_client::broken;
use tsujiban_proto::error::{Kind, ServiceError};

use crate::exit::ExitCode;
use crate::failure::Failure;

/// An error from the service, or from the connection to it. The service's messages say what to do.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct CallError {
    pub kind: Kind,
    message: String,
}

impl ExitCode for CallError {}

impl From<Status> for CallError {
    fn from(status: Status) -> Self {
        let ServiceError { kind, message, .. } = ServiceError::from(&status);
        let message = match (kind, broken(&status)) {
            (_, Some(cause)) => format!("the connection to the service broke; run the command again ({message}: {cause})"),
            (Kind::Timeout, None) => format!("the service took too long; run the command again ({message})"),
            (_, None) if message.is_empty() => format!("the service answered {} without a reason; look at its log", status.code()),
            (_, None) => message,
        };
        Self { kind, message }
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        CallError::from(status).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_services_words_are_passed_on() {
        let error = ServiceError::new(Kind::Denied, "MISSING_RIGHT", "hanako has no right to reveal snapshots; ask for it");
        let error = CallError::from(Status::from(error));
        assert_eq!((error.kind, error.to_string().as_str()), (Kind::Denied, "hanako has no right to reveal snapshots; ask for it"));
    }

    #[test]
    fn a_broken_connection_is_no_answer_of_the_service() {
        let error = CallError::from(Status::from_error(Box::new(std::io::Error::other("reset by peer"))));
        assert!(error.to_string().contains("run the command again") && error.to_string().contains("reset by peer"), "{error}");
    }
}
