//! A config as the messages of one PutSnapshot call.

use std::iter::once;
use std::sync::Arc;

use futures::{Stream, stream};
use ring::digest::{SHA256, digest};
use tsujiban_proto::backup::v1 as wire;
use tsujiban_proto::backup::v1::put_snapshot_request::Part;

use crate::driver::Config;

/// What the contract allows for one chunk.
const CHUNK: usize = 64 << 10;

/// Header, chunks, and the trailer that says that the config is whole. Each chunk is copied only when it is sent.
pub(super) fn stream(
    header: wire::PutSnapshotHeader,
    config: Arc<Config>,
) -> impl Stream<Item = wire::PutSnapshotRequest> + Send + 'static {
    let text = config.bytes();
    let trailer =
        wire::PutSnapshotTrailer { bytes: u64::try_from(text.len()).unwrap_or(u64::MAX), sha256: digest(&SHA256, text).as_ref().to_vec() };
    let starts = (0..text.len()).step_by(CHUNK);
    let chunks =
        starts.map(move |at| Part::Chunk(config.bytes().get(at..).and_then(|rest| rest.chunks(CHUNK).next()).unwrap_or_default().to_vec()));
    let parts = once(Part::Header(header)).chain(chunks).chain(once(Part::Trailer(trailer)));
    stream::iter(parts.map(|part| wire::PutSnapshotRequest { part: Some(part) }))
}
