//! `tsujiban backup`.

mod job;
pub mod now;
mod outcome;

use serde::Serialize;
use tokio_stream::StreamExt;
use tsujiban_proto::backup::v1::{RebuildCatalogueRequest, RebuildCatalogueResponse};

use crate::failure::Failure;
use crate::output::{Answer, Format, Verdict};
use crate::progress::Progress;
use crate::service::Service;

/// Rebuilds the catalogue from the storage.
pub async fn rebuild(service: &Service, format: Format) -> Result<Answer, Failure> {
    #[derive(Serialize)]
    struct Rebuilt {
        objects: u64,
        snapshots: u64,
        unreadable: u64,
        done: bool,
    }
    let mut states = service.backup().rebuild_catalogue(service.request(RebuildCatalogueRequest {}).await?).await?.into_inner();
    let mut progress = Progress::on_stderr();
    let mut last = RebuildCatalogueResponse::default();
    while let Some(state) = states.next().await {
        last = state?;
        progress.say(&format!("{} objects read, {} snapshots found", last.objects, last.snapshots));
    }
    drop(progress);
    let RebuildCatalogueResponse { objects, snapshots, unreadable, done } = last;
    let answer = Answer::new(format, &Rebuilt { objects, snapshots, unreadable, done }, |rebuilt| {
        let end = if rebuilt.done { "The catalogue is rebuilt" } else { "The rebuild ended early; run it again" };
        format!(
            "{end}: {} objects read, {} snapshots found, {} unreadable (such as those of erased devices).\n",
            rebuilt.objects, rebuilt.snapshots, rebuilt.unreadable
        )
    })?;
    Ok(answer.with(if done { Verdict::Good } else { Verdict::Failed }))
}
