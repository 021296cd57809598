//! `tsujiban backup`.

mod job;
pub mod now;
mod outcome;

use serde::Serialize;
use tokio_stream::StreamExt;
use tsujiban_proto::backup::v1::{RebuildCatalogueRequest, RebuildCatalogueResponse};

use crate::exit::Verdict;
use crate::failure::Failure;
use crate::output::{Answer, Format, escape_line};
use crate::progress::Progress;
use crate::service::Service;

/// The result of a rebuild.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Rebuilt {
    objects: u64,
    snapshots: u64,
    unreadable: u64,
    damaged: u64,
    damaged_names: Vec<String>,
    done: bool,
}

/// Rebuilds the catalogue from the storage. Damage is an answer, not a failure.
pub async fn rebuild(service: &Service, format: Format) -> Result<Answer, Failure> {
    let mut states = service.backup().rebuild_catalogue(service.request(RebuildCatalogueRequest {}).await?).await?.into_inner();
    let mut progress = Progress::on_stderr();
    let mut last = RebuildCatalogueResponse::default();
    while let Some(state) = states.next().await {
        last = state?;
        progress.say(&format!("{} objects read, {} snapshots found", last.objects, last.snapshots));
    }
    drop(progress);
    let RebuildCatalogueResponse { objects, snapshots, unreadable, done, damaged, damaged_names } = last;
    let answer = Answer::new(format, &Rebuilt { objects, snapshots, unreadable, damaged, damaged_names, done }, text)?;
    Ok(answer.with(match (done, damaged) {
        (false, _) => Verdict::Failed,
        (true, 0) => Verdict::Good,
        (true, _) => Verdict::Damaged,
    }))
}

fn text(rebuilt: &Rebuilt) -> String {
    let Rebuilt { objects, snapshots, unreadable, damaged, damaged_names, done } = rebuilt;
    let end = if *done { "The catalogue is rebuilt" } else { "The rebuild ended early; run it again" };
    let found = format!("{objects} objects read, {snapshots} snapshots found, {unreadable} unreadable (such as those of erased devices)");
    if *damaged == 0 {
        return format!("{end}: {found}.\n");
    }
    let names: String = damaged_names.iter().flat_map(|name| ["  ".to_owned(), escape_line(name), "\n".to_owned()]).collect();
    format!("{end}: {found}.\n{damaged} DAMAGED. They are kept; the next backup of a device stores its config anew:\n{names}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_named() {
        let names = vec!["object v1/a/b/c".to_owned(), "object v1/a/b/d".to_owned()];
        let rebuilt = Rebuilt { objects: 5, snapshots: 3, unreadable: 2, damaged: 2, damaged_names: names, done: true };
        insta::assert_snapshot!(text(&rebuilt), @r"
        The catalogue is rebuilt: 5 objects read, 3 snapshots found, 2 unreadable (such as those of erased devices).
        2 DAMAGED. They are kept; the next backup of a device stores its config anew:
          object v1/a/b/c
          object v1/a/b/d
        ");
    }
}
