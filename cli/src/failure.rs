//! Why a command did not come to its end, in words that say what to do.

use std::error::Error;

use tsujiban_core::error::chain;
use tsujiban_core::id::GroupId;

use crate::audit::span::EmptySpan;
use crate::cluster::ClusterError;
use crate::confirm::ConfirmError;
use crate::output::escape_line;
use crate::service::{CallError, ConnectError};
use crate::snapshots::content::ContentError;

/// Whatever a command fails of.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Call(#[from] CallError),
    #[error(transparent)]
    Content(#[from] ContentError),
    #[error(transparent)]
    Confirm(#[from] ConfirmError),
    #[error(transparent)]
    Span(#[from] EmptySpan),
    #[error(
        "group {group} has fewer than two snapshots of device {device}, so there is nothing to compare; look with: tsujiban snapshots list {group}"
    )]
    NothingToCompare { group: GroupId, device: String },
    /// What a command fails of in its own words. It says them here, for this file knows no command.
    #[error(transparent)]
    Command(Box<dyn Error + Send + Sync>),
    #[error(transparent)]
    Contract(#[from] tsujiban_proto::rules::InvalidContract),
    #[error("the answer cannot be written as JSON; this is a fault of tsujiban")]
    Json(#[from] serde_json::Error),
    #[error("the answer cannot be written")]
    Output(#[from] std::io::Error),
}

impl From<tonic::Status> for Failure {
    fn from(status: tonic::Status) -> Self {
        Self::Call(status.into())
    }
}

/// The failure with its causes, in one line that cannot drive a terminal.
pub fn explain(failure: &dyn Error) -> String {
    escape_line(&chain(failure))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Step(&'static str, #[source] Option<Box<Step>>);

    #[test]
    fn causes_follow_once_and_harmless() {
        let cause = Step("refused", Some(Box::new(Step("refused", Some(Box::new(Step("by \x1b[2J", None)))))));
        assert_eq!(explain(&Step("cannot connect", Some(Box::new(cause)))), "cannot connect: refused: by \\u{1b}[2J");
    }
}
