//! Configs come in: stored when they changed, seen again when not, refused when not whole.

use jiff::SignedDuration;
use tonic::Code;
use tsujiban_core::retention::retain_until;
use tsujiban_objects::{Objects, list_all};
use tsujiban_proto::backup::v1::put_snapshot_request::Part;
use tsujiban_proto::backup::v1::{AcknowledgeSnapshotRequest, PutSnapshotRequest, Reason, RecordAttemptRequest};
use tsujiban_proto::time::from_wire;
use tsujiban_service::testing::with_token;

use crate::stage::{HOST_KEY, STAFF, Stage, config, device, header, put_messages, shown};

/// C23: stored means locked in the storage for 35 days.
#[tokio::test]
async fn a_config_is_stored_locked_and_listed() {
    let stage = Stage::prepared().await;
    let stored = stage.put("acme", "SN1", &config("r1")).await.unwrap();
    assert!(stored.changed);
    let snapshot = stored.snapshot.unwrap();
    assert_eq!(snapshot.device, Some(shown("acme", "SN1")));
    assert_eq!((snapshot.bytes, snapshot.sightings, snapshot.shrunk), (config("r1").len() as u64, 1, false));
    assert_eq!(from_wire(&snapshot.locked_until.unwrap()), Some(retain_until(stage.now())));

    let objects = list_all(&*stage.world.memory, "v1/").await.unwrap();
    assert_eq!(objects.len(), 1);
    let lock = stage.world.memory.head(&objects[0].key, None).await.unwrap().lock.unwrap();
    assert!(lock.compliance && lock.until == retain_until(stage.now()));
    for called in ["SN1", "router-sn1", ""] {
        assert_eq!(stage.list("acme", called).await.unwrap(), std::slice::from_ref(&snapshot), "{called}");
    }
    assert_eq!(stage.get(STAFF, "acme", &snapshot.id, true).await.unwrap(), config("r1"));
}

/// C23: an unchanged config prolongs the life of the stored object; lines that change by themselves are no change.
#[tokio::test]
async fn an_unchanged_config_is_a_new_sighting() {
    let stage = Stage::prepared().await;
    let first = stage.put("acme", "SN1", &config("r1")).await.unwrap().snapshot.unwrap();
    stage.advance(SignedDuration::from_hours(24));
    let volatile = [b"! Last configuration change at noon\n", &config("r1")[..]].concat();
    let seen = stage.put("acme", "SN1", &volatile).await.unwrap();
    let snapshot = seen.snapshot.unwrap();
    assert!(!seen.changed);
    assert_eq!((&snapshot.id, snapshot.sightings, snapshot.taken_at), (&first.id, 2, first.taken_at));
    assert_eq!(from_wire(&snapshot.seen_at.unwrap()), Some(stage.now()));
    let objects = list_all(&*stage.world.memory, "v1/").await.unwrap();
    assert_eq!(stage.world.memory.head(&objects[0].key, None).await.unwrap().lock.unwrap().until, retain_until(stage.now()));
    assert_eq!(objects.len(), 1);

    stage.put("acme", "SN1", &config("r2")).await.unwrap();
    let back = stage.put("acme", "SN1", &config("r1")).await.unwrap();
    assert!(back.changed, "a config that comes back is a change again");
    let order: Vec<_> = stage.list("acme", "SN1").await.unwrap().into_iter().map(|s| s.id).collect();
    assert_eq!((order.len(), &order[0], &order[2]), (3, &back.snapshot.unwrap().id, &first.id));
}

#[tokio::test]
async fn a_repeated_call_is_answered_as_the_first_one() {
    let stage = Stage::prepared().await;
    let messages = put_messages(header("acme", "SN1"), &config("r1"));
    let first = stage.send("acme", messages.clone()).await.unwrap();
    let (again, at_once) = tokio::join!(stage.send("acme", messages.clone()), stage.send("acme", messages));
    assert_eq!((again.unwrap(), at_once.unwrap()), (first.clone(), first.clone()));
    assert_eq!(stage.list("acme", "").await.unwrap()[0].sightings, 1);

    let mut other = header("acme", "SN2");
    let used = header("acme", "SN2");
    stage.send("acme", put_messages(used.clone(), &config("r2"))).await.unwrap();
    other.device = Some(device("acme", "SN3"));
    other.idempotency_key = used.idempotency_key;
    assert_eq!(stage.send("acme", put_messages(other, &config("r3"))).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn the_same_config_at_the_same_time_is_stored_once() {
    let stage = Stage::prepared().await;
    let config = config("r1");
    let puts = futures::future::join_all((0..8).map(|_| stage.put("acme", "SN1", &config))).await;
    assert_eq!(puts.into_iter().filter(|put| put.as_ref().unwrap().changed).count(), 1);
    assert_eq!(stage.list("acme", "").await.unwrap()[0].sightings, 8);
}

#[tokio::test]
async fn what_is_not_whole_is_never_a_snapshot() {
    let stage = Stage::prepared().await;
    let whole = config("r1");
    let cut = &whole[..whole.len() - 4];
    assert_eq!(stage.put("acme", "SN1", cut).await.unwrap_err().code(), Code::InvalidArgument);
    let good = put_messages(header("acme", "SN1"), &whole);
    let without_trailer = good[..good.len() - 1].to_vec();
    let without_header = good[1..].to_vec();
    let twice = [good.clone(), good.clone()].concat();
    let mut changed_on_the_way = good.clone();
    changed_on_the_way[1] = PutSnapshotRequest { part: Some(Part::Chunk(config("r2"))) };
    for (messages, what) in [(without_trailer, "trailer"), (without_header, "header"), (twice, "twice"), (changed_on_the_way, "changed")] {
        assert_eq!(stage.send("acme", messages).await.unwrap_err().code(), Code::InvalidArgument, "{what}");
    }
    assert!(stage.list("acme", "").await.unwrap().is_empty());
    assert!(list_all(&*stage.world.memory, "v1/").await.unwrap().is_empty());
}

#[tokio::test]
async fn sizes_up_to_the_limit() {
    let stage = Stage::prepared().await;
    let sized = |bytes: usize| {
        let (mut text, end) = (b"frr version 8.4.4\nhostname big\n".to_vec(), b"\nend\n");
        text.extend(std::iter::repeat_n(b"! filler line\n", bytes / 14).flatten());
        text.resize(bytes - end.len(), b'!');
        text.extend(end);
        text
    };
    let limit = 16 * 1024 * 1024;
    let five = stage.put("acme", "SN5", &sized(5_000_000)).await.unwrap().snapshot.unwrap();
    assert_eq!(stage.get(STAFF, "acme", &five.id, true).await.unwrap(), sized(5_000_000));
    assert_eq!(stage.put("acme", "SN1", &sized(limit)).await.unwrap().snapshot.unwrap().bytes, limit as u64);
    assert_eq!(stage.put("acme", "SN1", &sized(limit + 1)).await.unwrap_err().code(), Code::ResourceExhausted);
}

#[tokio::test]
async fn a_shrunk_config_is_flagged_until_it_is_seen_twice_or_acknowledged() {
    let stage = Stage::prepared().await;
    let long = |of: &str| [b"frr version 8.4.4\n".to_vec(), b"! a long line that is there\n".repeat(20), config(of)].concat();
    stage.put("acme", "SN1", &long("r1")).await.unwrap();
    let short = stage.put("acme", "SN1", &config("r1")).await.unwrap().snapshot.unwrap();
    assert!(short.shrunk);
    // the measure stays what is trusted: another short one is as suspicious as the first
    assert!(stage.put("acme", "SN1", &config("r2")).await.unwrap().snapshot.unwrap().shrunk);
    assert!(!stage.put("acme", "SN1", &config("r2")).await.unwrap().snapshot.unwrap().shrunk, "seen twice");
    assert!(!stage.put("acme", "SN1", &config("r3")).await.unwrap().snapshot.unwrap().shrunk, "the short one is trusted now");

    stage.put("acme", "SN2", &long("s1")).await.unwrap();
    let short = stage.put("acme", "SN2", &config("s1")).await.unwrap().snapshot.unwrap();
    let request = AcknowledgeSnapshotRequest { group: "acme".into(), id: short.id.clone() };
    let acknowledged = stage.backup().acknowledge_snapshot(with_token(STAFF, request)).await.unwrap().into_inner().snapshot.unwrap();
    assert!(short.shrunk && !acknowledged.shrunk && !stage.list("acme", "SN2").await.unwrap()[0].shrunk);
}

#[tokio::test]
async fn attempts_are_read_once_in_their_order() {
    let stage = Stage::prepared().await;
    let failed = |serial: &str, reason: Reason| RecordAttemptRequest {
        device: Some(device("acme", serial)),
        idempotency_key: header("acme", serial).idempotency_key,
        reason: reason.into(),
        message: "no answer within 10 s".into(),
        host_key: HOST_KEY.into(),
    };
    let request = failed("SN1", Reason::Timeout);
    stage.backup().record_attempt(with_token("acme", request.clone())).await.unwrap();
    stage.put("acme", "SN2", &config("r2")).await.unwrap();
    let attempts = stage.attempts(0).await;
    assert_eq!(attempts.iter().map(|a| a.device.clone().unwrap()).collect::<Vec<_>>(), [shown("acme", "SN1"), shown("acme", "SN2")]);
    assert_eq!((attempts[0].reason(), attempts[0].message.as_str()), (Reason::Timeout, "no answer within 10 s"));
    assert_eq!((attempts[0].observed_host_key.as_str(), attempts[0].newest.as_ref()), (HOST_KEY, None));
    assert_eq!((attempts[1].reason(), attempts[1].changed, attempts[1].model.as_str()), (Reason::Unspecified, true, "FRR"));
    assert_eq!(attempts[1].newest.as_ref().unwrap().bytes, config("r2").len() as u64);
    let cursor = attempts[1].cursor;
    assert!(stage.attempts(cursor).await.is_empty());

    stage.backup().record_attempt(with_token("acme", request)).await.unwrap();
    assert!(stage.attempts(cursor).await.is_empty(), "a repeated call notes nothing again");
    stage.backup().record_attempt(with_token("acme", failed("SN2", Reason::Auth))).await.unwrap();
    let newer = stage.attempts(cursor).await;
    assert_eq!((newer.len(), newer[0].reason()), (1, Reason::Auth));
    assert!(newer[0].newest.is_some(), "what was stored before is still there");
    let stage = stage.restart().await;
    assert_eq!(stage.attempts(0).await.len(), 2);
}
