//! Receives a config from the service.

use tokio_stream::{Stream, StreamExt};
use tonic::Status;
use tsujiban_proto::backup::v1::GetSnapshotResponse;
use tsujiban_proto::backup::v1::get_snapshot_response::Part;

use crate::exit::ExitCode;
use crate::output::view::Snapshot;
use crate::service::CallError;

/// A larger config is refused rather than kept in memory.
const MAX_BYTES: usize = 256 * 1024 * 1024;

/// A config and what is known about it.
#[derive(Debug, PartialEq, Eq)]
pub struct Content {
    pub snapshot: Snapshot,
    pub config: Vec<u8>,
}

/// A stream that is not a config.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("the backup service sent no description of the snapshot; client and server may differ in version: tsujiban version")]
    NoSnapshot,
    #[error("the config is larger than {} MB", MAX_BYTES / 1_000_000)]
    TooLarge,
}

impl ExitCode for ContentError {}

/// Receives all parts: first the snapshot's description, then the config.
pub async fn collect(parts: impl Stream<Item = Result<GetSnapshotResponse, Status>>) -> Result<Content, ContentError> {
    let mut parts = std::pin::pin!(parts);
    let (mut snapshot, mut config) = (None, Vec::new());
    while let Some(part) = parts.next().await {
        match part.map_err(CallError::from)?.part {
            Some(Part::Snapshot(known)) => snapshot = Some(Snapshot::from(known)),
            Some(Part::Chunk(chunk)) if config.len() + chunk.len() > MAX_BYTES => return Err(ContentError::TooLarge),
            Some(Part::Chunk(chunk)) => config.extend_from_slice(&chunk),
            None => {}
        }
    }
    Ok(Content { snapshot: snapshot.ok_or(ContentError::NoSnapshot)?, config })
}

#[cfg(test)]
mod tests {
    use tsujiban_proto::backup::v1 as wire;

    use super::*;

    fn part(part: Part) -> GetSnapshotResponse {
        GetSnapshotResponse { part: Some(part) }
    }

    #[tokio::test]
    async fn a_config_is_put_together() {
        let known = wire::Snapshot { id: "1".into(), bytes: 5, ..wire::Snapshot::default() };
        let parts = [part(Part::Snapshot(known)), part(Part::Chunk(b"one\n".to_vec())), part(Part::Chunk(b"\xff".to_vec()))];
        let content = collect(tokio_stream::iter(parts.map(Ok))).await.unwrap();
        assert_eq!((content.snapshot.bytes, content.config.as_slice()), (5, &b"one\n\xff"[..]));
    }

    #[tokio::test]
    async fn a_stream_that_breaks_is_no_config() {
        let parts = [Ok(part(Part::Snapshot(wire::Snapshot::default()))), Err(Status::data_loss("the object is damaged"))];
        assert!(matches!(collect(tokio_stream::iter(parts)).await, Err(ContentError::Call(_))));
        assert!(matches!(collect(tokio_stream::iter([])).await, Err(ContentError::NoSnapshot)));
    }
}
