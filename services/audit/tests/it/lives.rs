//! The life of a group in the history, and who may look at it.

use tonic::{Code, Status};
use tsujiban_audit::owner::Owner;
use tsujiban_audit::synchronised::Synchronisation;
use tsujiban_audit::tiles;
use tsujiban_history::merkle::leaf_hash;
use tsujiban_history::tile::parse_bundle;
use tsujiban_proto::audit::v1::declare_gap_request::Scope;
use tsujiban_proto::audit::v1::{
    AppendRequest, CoveredRequest, DeclareGapRequest, ExportEntriesRequest, ExportFormat, GetCheckpointRequest, GetProofRequest,
    ListEntriesRequest, LogEntries,
};
use tsujiban_proto::lifecycle::v1::import_request::Part;
use tsujiban_proto::lifecycle::v1::lifecycle_service_client::LifecycleServiceClient;
use tsujiban_proto::lifecycle::v1::{
    DetachRequest, EraseRequest, ExportRequest, GroupState, ImportHeader, ImportRequest, PrepareRequest, ReportRequest,
};
use tsujiban_proto::rules::Rules;
use tsujiban_service::testing::with_token;

use crate::retention::export;
use crate::stage::{OPERATOR, STAFF, Stage, World, entry, random};

crate::on_both!(
    an_erased_group_goes_day_by_day_and_its_id_is_free_after_the_last,
    a_group_may_speak_before_it_is_prepared,
    a_snapshot_brings_a_log_back_to_what_it_was,
    nobody_reaches_another_groups_history,
    tiles_show_the_tree_and_nothing_of_customers,
    an_export_opens_in_a_spreadsheet,
    a_lost_database_does_not_forget_who_was_erased,
    nothing_is_done_with_groups_that_were_exchanged,
);

impl Stage {
    pub fn lifecycle(&self) -> LifecycleServiceClient<tonic::transport::Channel> {
        LifecycleServiceClient::new(self.server.channel())
    }

    /// As the operator does that knows the group's log.
    pub async fn prepare_with_log(&self, group: &str, incarnation: &str, log: &str) -> Result<(String, String), Status> {
        let request = PrepareRequest { group: group.into(), expected_incarnation: incarnation.into(), expected_log: log.into() };
        let answer = self.lifecycle().prepare(with_token(OPERATOR, request)).await?.into_inner();
        Ok((answer.incarnation, answer.log))
    }

    pub async fn prepare(&self, group: &str, expected: &str) -> Result<(String, bool), Status> {
        let request = PrepareRequest { group: group.into(), expected_incarnation: expected.into(), ..Default::default() };
        let answer = self.lifecycle().prepare(with_token(OPERATOR, request)).await?.into_inner();
        Ok((answer.incarnation, answer.created))
    }

    pub async fn erase(&self, token: &str, group: &str, incarnation: &str) -> Result<Option<i64>, Status> {
        let request = EraseRequest { group: group.into(), incarnation: incarnation.into(), ..Default::default() };
        let answer = self.lifecycle().erase(with_token(token, request)).await?.into_inner();
        Ok(answer.last_object_until.map(|time| time.seconds))
    }

    pub async fn state(&self, group: &str) -> Vec<GroupState> {
        let request = ReportRequest { group: group.into() };
        let report = self.lifecycle().report(with_token(OPERATOR, request)).await.unwrap().into_inner();
        report.groups.iter().map(tsujiban_proto::lifecycle::v1::GroupReport::state).collect()
    }
}

/// C20: the operator makes a condition of it.
#[tokio::test(flavor = "multi_thread")]
async fn the_report_says_whether_the_clock_is_synchronised() {
    let world = World::sqlite();
    let stage = world.start().await;
    let report = stage.lifecycle().report(with_token(OPERATOR, ReportRequest::default())).await.unwrap().into_inner();
    assert_eq!(report.clock_synchronised, Some(Synchronisation::read().unwrap().synchronised));
}

/// C25, table 2: at most 365 days, and so long nobody gets the id.
async fn an_erased_group_goes_day_by_day_and_its_id_is_free_after_the_last(world: World) {
    let stage = world.start().await;
    let (incarnation, created) = stage.prepare("acme", "").await.unwrap();
    assert!(created);
    assert_eq!(stage.prepare("acme", &incarnation).await.unwrap(), (incarnation.clone(), false));
    assert_eq!(stage.prepare("acme", &"0".repeat(32)).await.unwrap_err().code(), Code::FailedPrecondition);
    stage.say(&world, "acme", "first").await;
    world.advance(jiff::SignedDuration::from_hours(48));
    stage.say(&world, "acme", "last").await;
    assert_eq!(stage.erase(STAFF, "acme", &incarnation).await.unwrap_err().code(), Code::FailedPrecondition, "its Tenant lives");
    let detach = DetachRequest { group: "acme".into(), incarnation: incarnation.clone() };
    stage.lifecycle().detach(with_token(OPERATOR, detach)).await.unwrap();
    assert_eq!(stage.state("acme").await, [GroupState::Retained]);
    let last = stage.erase(OPERATOR, "acme", &incarnation).await.unwrap().unwrap();
    // entries of 2024-02-22 JST go on 2025-02-22, 00:00 JST
    assert_eq!(last, "2025-02-21T15:00:00Z".parse::<jiff::Timestamp>().unwrap().as_second());
    assert_eq!(stage.state("acme").await, [GroupState::Erased]);
    stage.say(&world, "acme", "that it was erased").await;
    assert_eq!(stage.prepare("acme", "").await.unwrap_err().code(), Code::FailedPrecondition);
    assert_eq!(stage.targets("acme").await.len(), 3, "what was done stays as long as for anybody else");

    world.advance_to("2025-02-21T15:00:00Z");
    stage.audit.expire().await.unwrap();
    assert!(stage.targets("acme").await.is_empty());
    assert_eq!(stage.prepare("acme", &incarnation).await.unwrap_err().code(), Code::FailedPrecondition, "it was erased");
    let (next, created) = stage.prepare("acme", "").await.unwrap();
    assert!(created && next != incarnation);
    assert_eq!(stage.say(&world, "acme", "anew").await, 0, "a log of its own");
    assert_eq!(stage.targets("acme").await, ["anew"]);
}

async fn a_group_may_speak_before_it_is_prepared(world: World) {
    let stage = world.start().await;
    stage.say(&world, "acme", "denied").await;
    assert!(stage.state("acme").await.is_empty());
    let minted = "0123456789abcdef0123456789abcdef";
    assert_eq!(stage.prepare("acme", minted).await.unwrap(), (minted.to_owned(), true), "what another service has minted");
    assert_eq!(stage.prepare("acme", "").await.unwrap(), (minted.to_owned(), false));
    assert_eq!(stage.say(&world, "acme", "allowed").await, 1);
    assert_eq!(stage.prepare("other", minted).await.unwrap_err().code(), Code::Internal, "an incarnation is of one group");
}

pub async fn snapshot(stage: &Stage, group: &str, incarnation: &str) -> Vec<Vec<u8>> {
    let request = ExportRequest { group: group.into(), incarnation: incarnation.into() };
    let mut stream = stage.lifecycle().export(with_token(OPERATOR, request)).await.unwrap().into_inner();
    let mut chunks = Vec::new();
    while let Some(message) = stream.message().await.unwrap() {
        chunks.push(message.chunk);
    }
    chunks
}

pub async fn import(stage: &Stage, group: &str, incarnation: &str, chunks: Vec<Vec<u8>>) -> Result<u64, Status> {
    let header = ImportHeader { group: group.into(), incarnation: incarnation.into() };
    let parts = std::iter::once(Part::Header(header)).chain(chunks.into_iter().map(Part::Chunk));
    let messages: Vec<_> = parts.map(|part| ImportRequest { part: Some(part) }).collect();
    let answer = stage.lifecycle().import(with_token(OPERATOR, tokio_stream::iter(messages))).await?;
    Ok(answer.into_inner().records)
}

async fn a_snapshot_brings_a_log_back_to_what_it_was(world: World) {
    let stage = world.start().await;
    let (incarnation, _) = stage.prepare("acme", "").await.unwrap();
    for n in 0..5 {
        stage.say(&world, "acme", &format!("t{n}")).await;
    }
    let chunks = snapshot(&stage, "acme", &incarnation).await;
    assert!(!chunks.concat().windows(8).any(|window| window == b"snapshot"), "bodies are sealed");
    assert_eq!(import(&stage, "acme", &incarnation, chunks.clone()).await.unwrap(), 0, "all of it is there");
    let mut cut = chunks.clone();
    cut.pop();
    assert_eq!(import(&stage, "acme", &incarnation, cut).await.unwrap_err().code(), Code::InvalidArgument);
    assert!(import(&stage, "other", &incarnation, chunks.clone()).await.is_err());
    if world.folder().is_none() {
        return;
    }
    // the file from before comes back, and with the snapshot it is whole again
    stage.audit.follow_roots().await.unwrap();
    stage.stop().await;
    let copy = std::fs::read(world.file()).unwrap();
    let stage = world.start().await;
    stage.say(&world, "acme", "t5").await;
    stage.say(&world, "acme", "t6").await;
    stage.audit.follow_roots().await.unwrap();
    let chunks = snapshot(&stage, "acme", &incarnation).await;
    stage.stop().await;
    for file in ["history.db-wal", "history.db-shm", "history.mark"] {
        let _ = std::fs::remove_file(world.folder().unwrap().join(file));
    }
    std::fs::write(world.file(), copy).unwrap();
    let stage = world.start().await;
    stage.audit.compare_at_start().await.unwrap();
    assert_eq!(stage.append(vec![entry(&world, "acme", "x")]).await.unwrap_err().code(), Code::FailedPrecondition);
    assert_eq!(import(&stage, "acme", &incarnation, chunks).await.unwrap(), 2);
    stage.audit.follow_roots().await.unwrap();
    assert_eq!(stage.say(&world, "acme", "t7").await, 7);
    assert_eq!(stage.targets("acme").await, ["t0", "t1", "t2", "t3", "t4", "t5", "t6", "t7"]);
}

/// Calls a method for group `other` with a token. A method that is not here fails the test, so that none is forgotten.
async fn call(stage: &Stage, world: &World, path: &str, token: &str, incarnation: &str) -> Result<(), Status> {
    let group = || "other".to_owned();
    let incarnation = || incarnation.to_owned();
    let (mut audit, mut lifecycle) = (stage.client(), stage.lifecycle());
    match path.rsplit_once('.').unwrap().1 {
        "AuditService/Append" => {
            audit.append(with_token(token, AppendRequest { entries: vec![entry(world, "other", "x")] })).await.map(drop)
        }
        "AuditService/ListEntries" => {
            audit.list_entries(with_token(token, ListEntriesRequest { group: group(), ..Default::default() })).await.map(drop)
        }
        "AuditService/ExportEntries" => {
            let request = ExportEntriesRequest { group: group(), format: ExportFormat::Csv.into(), ..Default::default() };
            audit.export_entries(with_token(token, request)).await.map(drop)
        }
        "AuditService/GetProof" => {
            audit.get_proof(with_token(token, GetProofRequest { group: group(), sequence: 0, tree_size: 0 })).await.map(drop)
        }
        "AuditService/GetCheckpoint" => {
            audit.get_checkpoint(with_token(token, GetCheckpointRequest { group: group(), from_size: 0 })).await.map(drop)
        }
        "AuditService/DeclareGap" => {
            let request = DeclareGapRequest { scope: Some(Scope::Group(group())), reason: "why not".into() };
            audit.declare_gap(with_token(token, request)).await.map(drop)
        }
        "LifecycleService/Prepare" => {
            let request = PrepareRequest { group: group(), expected_incarnation: String::new(), ..Default::default() };
            lifecycle.prepare(with_token(token, request)).await.map(drop)
        }
        "AuditService/Covered" => {
            let logs = vec![LogEntries { group: group(), ids: vec![random().to_vec()] }];
            stage.client().covered(with_token(token, CoveredRequest { logs })).await.map(drop)
        }
        "LifecycleService/Detach" => {
            lifecycle.detach(with_token(token, DetachRequest { group: group(), incarnation: incarnation() })).await.map(drop)
        }
        "LifecycleService/Export" => {
            lifecycle.export(with_token(token, ExportRequest { group: group(), incarnation: incarnation() })).await.map(drop)
        }
        "LifecycleService/Import" => {
            let header = ImportHeader { group: group(), incarnation: incarnation() };
            let messages = tokio_stream::iter([ImportRequest { part: Some(Part::Header(header)) }]);
            lifecycle.import(with_token(token, messages)).await.map(drop)
        }
        "LifecycleService/Erase" => {
            let request = EraseRequest { group: group(), incarnation: incarnation(), ..Default::default() };
            lifecycle.erase(with_token(token, request)).await.map(drop)
        }
        "LifecycleService/Report" => lifecycle.report(with_token(token, ReportRequest { group: group() })).await.map(drop),
        _ => panic!("method {path} is new; add a call of it here"),
    }
}

/// C7: every method, called with the token of group A's collector for group B, is denied and changes nothing.
async fn nobody_reaches_another_groups_history(world: World) {
    let stage = world.start().await;
    let (incarnation, _) = stage.prepare("other", "").await.unwrap();
    stage.say(&world, "other", "theirs").await;
    let rules = Rules::load().unwrap();
    let ours: Vec<_> = rules.iter().map(|(path, _)| path).filter(|path| path.contains(".audit.") || path.contains(".lifecycle.")).collect();
    assert_eq!(ours.len(), 13);
    for path in ours {
        assert_eq!(call(&stage, &world, path, "acme", &incarnation).await.unwrap_err().code(), Code::PermissionDenied, "{path}");
        assert_eq!(call(&stage, &world, path, "nobody", &incarnation).await.unwrap_err().code(), Code::Unauthenticated, "{path}");
    }
    assert_eq!(stage.targets("other").await, ["theirs"]);
    assert_eq!(stage.state("other").await, [GroupState::Living]);
    assert_eq!(
        call(&stage, &world, "/x.AuditService/Append", STAFF, "").await.unwrap_err().code(),
        Code::PermissionDenied,
        "staff never write"
    );
    assert_eq!(call(&stage, &world, "/x.AuditService/ListEntries", OPERATOR, "").await.unwrap_err().code(), Code::PermissionDenied);
}

async fn get(stage: &Stage, path: &str) -> (u16, Vec<u8>) {
    use http_body_util::BodyExt;
    let response = tiles::answer(&stage.audit, &http::Method::GET, path).await;
    (response.status().as_u16(), response.into_body().collect().await.unwrap().to_bytes().to_vec())
}

async fn tiles_show_the_tree_and_nothing_of_customers(world: World) {
    let stage = world.start().await;
    for _ in 0..2 {
        stage.append((0..150).map(|n| entry(&world, "acme", &n.to_string())).collect()).await.unwrap();
    }
    stage.audit.follow_roots().await.unwrap();
    let log = stage.audit.some_log_of(&Owner::parse("acme").unwrap()).await.unwrap();
    let at = |path: &str| format!("/{}/{path}", log.id);
    let (status, checkpoint) = get(&stage, &at("checkpoint")).await;
    assert_eq!((status, String::from_utf8(checkpoint).unwrap().lines().nth(1).unwrap()), (200, "300"));
    let (status, bundle) = get(&stage, &at("tile/entries/000")).await;
    let leaves = parse_bundle(&bundle, 256).unwrap();
    let (_, tile) = get(&stage, &at("tile/0/000")).await;
    assert_eq!((status, tile.len()), (200, 8192));
    assert!(leaves.iter().zip(tile.chunks(32)).all(|(leaf, hash)| leaf.len() == 58 && leaf_hash(leaf).as_bytes() == hash));
    assert_eq!(get(&stage, &at("tile/0/001.p/44")).await.1.len(), 44 * 32);
    assert_eq!(get(&stage, &at("tile/1/000.p/1")).await.1.len(), 32);
    for missing in ["tile/0/001", "tile/0/001.p/45", "tile/1/000", "tile/2/000.p/1", "tile/entries/002.p/1", "", "..", "tile/0/../../meta"]
    {
        assert_eq!(get(&stage, &at(missing)).await.0, 404, "{missing}");
    }
    for missing in ["/", "/acme/checkpoint", &format!("/{}/checkpoint", "0".repeat(32))] {
        assert_eq!(get(&stage, missing).await.0, 404, "{missing}");
    }
    let refused = tiles::answer(&stage.audit, &http::Method::POST, &at("checkpoint")).await;
    assert_eq!(refused.status().as_u16(), 405);
}

async fn an_export_opens_in_a_spreadsheet(world: World) {
    let stage = world.start().await;
    stage.say(&world, "acme", "=cmd|' /C calc'!A0\n日本語").await;
    let csv = String::from_utf8(export(&stage, "acme", ExportFormat::Csv).await).unwrap();
    let rows: Vec<&str> = csv.lines().collect();
    assert_eq!(rows.len(), 2, "{csv}");
    assert!(csv.contains("+09:00") && csv.contains("日本語") && !csv.contains(",=cmd") && !csv.contains(",\"=cmd"), "{csv}");
}

/// What the bucket has under a prefix, one after the other.
async fn bytes_of(world: &World, prefix: &str) -> Vec<u8> {
    let mut all = Vec::new();
    for name in world.bucket.names(prefix).await {
        all.extend(name.as_bytes());
        all.extend(tsujiban_objects::Objects::get(&*world.bucket, &name, None).await.unwrap());
    }
    all
}

/// C25: who was erased is known after the loss of everything but the bucket, where nobody reads it.
async fn a_lost_database_does_not_forget_who_was_erased(mut world: World) {
    let stage = world.start().await;
    let (incarnation, log) = stage.prepare_with_log("acme-and-sons", "", "").await.unwrap();
    stage.say(&world, "acme-and-sons", "before").await;
    stage.say(&world, "other", "theirs").await;
    stage.audit.follow_roots().await.unwrap();
    stage.stop().await;
    let older = world.copy_database().await;
    let stage = world.start().await;
    world.bucket.refuse(Some("erasures/"));
    let free_at = stage.erase(OPERATOR, "acme-and-sons", &incarnation).await.unwrap();
    world.bucket.refuse(None);
    assert!(world.bucket.names("erasures/").await.is_empty());
    stage.say(&world, "acme-and-sons", "that it was erased").await;
    for _ in 0..2 {
        stage.audit.follow_roots().await.unwrap();
    }
    assert_eq!(world.bucket.names("erasures/").await.len(), 1, "what could not be put at once is put later, once");
    for prefix in ["erasures/", "archive/", "roots/", "day-keys/"] {
        let bytes = bytes_of(&world, prefix).await;
        assert!(!bytes.windows(13).any(|window| window == b"acme-and-sons"), "{prefix}");
    }
    let before = stage.targets("acme-and-sons").await;
    stage.stop().await;
    for lost in [true, false] {
        if lost {
            world.lose_database().await;
        } else {
            // a copy from before
            world.place = world.copy_of(&older).await;
        }
        let stage = crate::rebuild::started(&world).await;
        assert_eq!(stage.state("acme-and-sons").await, [GroupState::Erased], "{lost}");
        assert_eq!(stage.targets("acme-and-sons").await, before, "{lost}");
        let refused = stage.prepare("acme-and-sons", "").await.unwrap_err();
        assert_eq!(tsujiban_proto::error::ServiceError::from(&refused).reason, "ID_NOT_FREE", "{lost}: {refused}");
        let again = stage.prepare_with_log("acme-and-sons", &incarnation, &log).await.unwrap_err();
        assert_eq!(tsujiban_proto::error::ServiceError::from(&again).reason, "ERASED", "{lost}: {again}");
        assert_eq!(stage.erase(OPERATOR, "acme-and-sons", &incarnation).await.unwrap(), free_at, "{lost}");
        assert_eq!(world.bucket.names("erasures/").await.len(), 1, "{lost}");
        stage.stop().await;
    }
}

/// Two groups were exchanged in the table of logs: nobody's history is erased, kept, listed or gone on with under another's name.
async fn nothing_is_done_with_groups_that_were_exchanged(world: World) {
    let stage = world.start().await;
    let mut lives = Vec::new();
    for group in ["acme", "other", "third"] {
        lives.push(stage.prepare_with_log(group, "", "").await.unwrap());
        stage.say(&world, group, group).await;
    }
    for (from, to) in [("acme", "somebody"), ("other", "acme"), ("somebody", "other")] {
        crate::damage::forge(&world, &stage, &format!("UPDATE logs SET group_id = '{to}' WHERE group_id = '{from}'")).await;
    }
    let (theirs, _) = lives[1].clone();
    let refused = |status: Status| assert_eq!(status.code(), Code::DataLoss, "{status}");
    refused(stage.erase(OPERATOR, "acme", &theirs).await.unwrap_err());
    refused(stage.erase(STAFF, "acme", &theirs).await.unwrap_err());
    let detach = DetachRequest { group: "acme".into(), incarnation: theirs.clone() };
    refused(stage.lifecycle().detach(with_token(OPERATOR, detach)).await.unwrap_err());
    let request = ExportRequest { group: "acme".into(), incarnation: theirs.clone() };
    refused(stage.lifecycle().export(with_token(OPERATOR, request)).await.map(drop).unwrap_err());
    refused(stage.prepare("acme", "").await.unwrap_err());
    refused(stage.prepare("acme", &theirs).await.unwrap_err());
    refused(stage.prepare_with_log("third", &lives[0].0, &lives[0].1).await.unwrap_err());
    assert!(stage.state("acme").await.is_empty() && stage.state("other").await.is_empty());
    let report = stage.lifecycle().report(with_token(OPERATOR, ReportRequest::default())).await.unwrap().into_inner();
    assert_eq!(report.groups.iter().map(|group| group.group.as_str()).collect::<Vec<_>>(), ["third"]);
    // whoever keeps entries goes on keeping them, also when the row says that the group was erased
    crate::damage::forge(&world, &stage, "UPDATE logs SET state = 'erased' WHERE group_id = 'acme'").await;
    let logs = vec![LogEntries { group: "acme".into(), ids: vec![random().to_vec()] }];
    let covered = stage.client().covered(with_token(OPERATOR, CoveredRequest { logs })).await.unwrap().into_inner();
    assert!(!covered.logs[0].is_erased);
    assert_eq!(covered.logs[0].entries().collect::<Vec<_>>(), [tsujiban_proto::audit::v1::Coverage::Pending]);
    stage.audit.follow_roots().await.unwrap();
    assert!(world.bucket.names("erasures/").await.is_empty());
    assert_eq!(stage.targets("third").await, ["third"]);
}
