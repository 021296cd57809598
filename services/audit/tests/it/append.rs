//! What is appended is there, once, in order, and proven.

use std::collections::BTreeSet;

use tonic::Code;
use tsujiban_history::merkle::{Hash, TreeHead, leaf_hash, verify_consistency, verify_inclusion};
use tsujiban_history::{Checkpoint, Leaf};
use tsujiban_proto::audit::v1::{GetCheckpointRequest, GetProofRequest, ListEntriesRequest, NewEntry, Phase, Result as AuditResult};
use tsujiban_proto::error::ServiceError;
use tsujiban_service::testing::with_token;

use crate::stage::{STAFF, Stage, World, entry, operation, random};

crate::on_both!(
    entries_are_listed_newest_first_and_survive_a_restart,
    twenty_callers_with_one_id_add_one_entry,
    an_id_is_remembered_for_48_hours,
    texts_are_kept_as_they_are_up_to_64_kib,
    a_call_is_added_whole_or_not_at_all,
    every_entry_is_proven_in_every_size,
    an_intent_is_shown_until_its_outcome_is_there,
    filters_and_pages_miss_nothing,
    long_entries_are_listed_in_answers_that_callers_take,
    many_callers_and_many_groups_make_logs_without_a_gap,
);

async fn entries_are_listed_newest_first_and_survive_a_restart(world: World) {
    let stage = world.start().await;
    for n in 0..5 {
        assert_eq!(stage.say(&world, "acme", &format!("t{n}")).await, n);
    }
    assert_eq!(stage.say(&world, "other", "theirs").await, 0);
    assert_eq!(stage.say(&world, "", "ours").await, 0);
    assert_eq!(stage.targets("acme").await, ["t0", "t1", "t2", "t3", "t4"]);
    let verifier = stage.audit.verifier().to_string();
    stage.stop().await;

    let stage = world.start().await;
    assert_eq!(stage.audit.verifier().to_string(), verifier, "the signing key is made once");
    assert_eq!(stage.say(&world, "acme", "t5").await, 5);
    assert_eq!(stage.targets("acme").await, ["t0", "t1", "t2", "t3", "t4", "t5"]);
    assert_eq!((stage.targets("other").await, stage.targets("").await), (vec!["theirs".to_owned()], vec!["ours".to_owned()]));
    assert!(stage.targets("nobody").await.is_empty());
}

/// A page of as many entries as it may have would be longer than the 4 MiB that callers take.
async fn long_entries_are_listed_in_answers_that_callers_take(world: World) {
    let stage = world.start().await;
    for n in 0..3 {
        let long = |k| entry(&world, "acme", &format!("{n} {k} {}", "x".repeat(60_000)));
        stage.append((0..40).map(long).collect()).await.unwrap();
    }
    let listed = stage.list_by(ListEntriesRequest { group: "acme".into(), page_size: 120, ..Default::default() }).await;
    assert_eq!(listed.iter().map(|entry| entry.sequence).collect::<Vec<_>>(), (0..120).rev().collect::<Vec<_>>());
}

async fn twenty_callers_with_one_id_add_one_entry(world: World) {
    let stage = world.start().await;
    let same = entry(&world, "acme", "once");
    let calls = (0..20).map(|_| stage.append(vec![same.clone()]));
    let answers: Vec<_> = futures::future::join_all(calls).await.into_iter().map(|answer| answer.unwrap()[0]).collect();
    assert!(answers.iter().all(|answer| answer.sequence == 0));
    assert_eq!(answers.iter().filter(|answer| !answer.is_duplicate).count(), 1);
    // the same in one call, and the same id for another group
    let twice = stage.append(vec![same.clone(), same.clone(), NewEntry { group: "other".into(), ..same.clone() }]).await.unwrap();
    assert_eq!(twice.iter().map(|answer| answer.is_duplicate).collect::<Vec<_>>(), [true, true, false]);
    stage.stop().await;
    let stage = world.start().await;
    assert!(stage.append(vec![same]).await.unwrap()[0].is_duplicate, "also after a restart");
    assert_eq!(stage.targets("acme").await, ["once"]);
}

async fn an_id_is_remembered_for_48_hours(world: World) {
    let stage = world.start().await;
    let same = entry(&world, "acme", "again");
    stage.append(vec![same.clone()]).await.unwrap();
    world.advance(jiff::SignedDuration::from_hours(48));
    assert!(stage.append(vec![same.clone()]).await.unwrap()[0].is_duplicate);
    world.advance(jiff::SignedDuration::from_secs(1));
    assert!(!stage.append(vec![same.clone()]).await.unwrap()[0].is_duplicate);
}

async fn texts_are_kept_as_they_are_up_to_64_kib(world: World) {
    let stage = world.start().await;
    let odd = "a\nb\r\n\u{1b}[31mred\u{202e}abc\u{0}\"\\,;=cmd|' /C calc'!A0 日本語";
    stage.say(&world, "acme", odd).await;
    assert_eq!(stage.targets("acme").await, [odd]);

    let mut fitting = operation(&world, "");
    let body = rpc_body(fitting.clone());
    fitting.target = "x".repeat(64 * 1024 - body);
    assert_eq!(rpc_body(fitting.clone()), 64 * 1024);
    let mut long = fitting.clone();
    long.target.push('x');
    let new = |operation| NewEntry { group: "acme".into(), id: random().to_vec(), operation: Some(operation) };
    let refused = stage.append(vec![new(long)]).await.unwrap_err();
    assert_eq!((refused.code(), ServiceError::from(&refused).reason.as_str()), (Code::InvalidArgument, "TOO_LARGE"));
    assert!(refused.message().contains("65,536"), "{}", refused.message());
    stage.append(vec![new(fitting.clone())]).await.unwrap();
    assert_eq!(stage.targets("acme").await, [odd.to_owned(), fitting.target]);
}

fn rpc_body(operation: tsujiban_proto::audit::v1::Operation) -> usize {
    let operation = tsujiban_audit::rpc::from_wire(operation).unwrap();
    serde_json::to_vec(&operation).unwrap().len()
}

async fn a_call_is_added_whole_or_not_at_all(world: World) {
    let stage = world.start().await;
    let mut bad = entry(&world, "acme", "bad");
    bad.operation.as_mut().unwrap().phase = 0;
    for broken in
        [bad, NewEntry { id: vec![1; 15], ..entry(&world, "acme", "x") }, NewEntry { group: "A B".into(), ..entry(&world, "acme", "x") }]
    {
        let refused = stage.append(vec![entry(&world, "acme", "good"), broken]).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
    }
    assert_eq!(stage.append(vec![]).await.unwrap_err().code(), Code::InvalidArgument);
    let many = (0..257).map(|_| entry(&world, "acme", "many")).collect();
    assert_eq!(stage.append(many).await.unwrap_err().code(), Code::InvalidArgument);
    assert!(stage.targets("acme").await.is_empty());
}

async fn every_entry_is_proven_in_every_size(world: World) {
    let stage = world.start().await;
    let (mut heads, mut leaves) = (Vec::new(), Vec::new());
    for round in [1, 1, 5, 250, 43, 256, 44] {
        stage.append((0..round).map(|n| entry(&world, "acme", &n.to_string())).collect()).await.unwrap();
        heads.push(head(&stage, "acme", 0).await.0);
    }
    let size = heads.last().unwrap().size;
    assert_eq!(size, 600);
    for sequence in [0, 1, 6, 255, 256, 257, 511, 512, 599] {
        for tree in heads.iter().filter(|head| head.size > sequence) {
            let request = GetProofRequest { group: "acme".into(), sequence, tree_size: tree.size };
            let proof = stage.client().get_proof(with_token(STAFF, request)).await.unwrap().into_inner();
            assert_eq!(Leaf::parse(&proof.leaf).unwrap().sequence, sequence);
            let hashes: Vec<_> = proof.hashes.iter().map(|hash| Hash::from_bytes(hash.as_slice().try_into().unwrap())).collect();
            verify_inclusion(sequence, leaf_hash(&proof.leaf), &hashes, *tree).unwrap();
            leaves.push(proof.leaf);
        }
    }
    for old in &heads {
        let (new, consistency) = head(&stage, "acme", old.size).await;
        verify_consistency(*old, new, &consistency).unwrap();
    }
    for (sequence, tree_size) in [(600, 0), (600, 601), (0, 601), (5, 5)] {
        let request = GetProofRequest { group: "acme".into(), sequence, tree_size };
        assert_eq!(stage.client().get_proof(with_token(STAFF, request)).await.unwrap_err().code(), Code::InvalidArgument);
    }
}

/// The signed head of a log, and the proof of its growth.
pub async fn head(stage: &Stage, group: &str, from_size: u64) -> (TreeHead, Vec<Hash>) {
    let request = GetCheckpointRequest { group: group.into(), from_size };
    let answer = stage.client().get_checkpoint(with_token(STAFF, request)).await.unwrap().into_inner();
    let origin = answer.checkpoint.lines().next().unwrap().to_owned();
    let key = stage.audit.verifier().for_origin(&origin).unwrap();
    let checkpoint = Checkpoint::open(answer.checkpoint.as_bytes(), &key, &origin).unwrap();
    assert_eq!(checkpoint.head.size, answer.tree_size);
    let hashes = answer.consistency.iter().map(|hash| Hash::from_bytes(hash.as_slice().try_into().unwrap())).collect();
    (checkpoint.head, hashes)
}

async fn an_intent_is_shown_until_its_outcome_is_there(world: World) {
    let stage = world.start().await;
    let outcome = operation(&world, "strict");
    let mut intent = outcome.clone();
    (intent.phase, intent.result) = (Phase::Intent.into(), AuditResult::Pending.into());
    let new = |operation| NewEntry { group: "acme".into(), id: random().to_vec(), operation: Some(operation) };
    stage.append(vec![new(intent), entry(&world, "acme", "between")]).await.unwrap();
    let shown: Vec<_> = stage.list("acme").await.iter().map(|entry| entry.operation.as_ref().unwrap().result()).collect();
    assert_eq!(shown, [AuditResult::Allowed, AuditResult::Unknown]);
    stage.stop().await;
    let stage = world.start().await;
    stage.append(vec![new(outcome)]).await.unwrap();
    assert_eq!(stage.targets("acme").await, ["between", "strict"]);
    let all = ListEntriesRequest { group: "acme".into(), include_intents: true, ..Default::default() };
    let phases: Vec<_> = stage.list_by(all).await.iter().map(|entry| entry.operation.as_ref().unwrap().phase()).collect();
    assert_eq!(phases, [Phase::Outcome, Phase::Outcome, Phase::Intent]);
}

async fn filters_and_pages_miss_nothing(world: World) {
    let stage = world.start().await;
    let begin = world.now();
    for n in 0..30_u32 {
        let mut new = entry(&world, "acme", if n % 3 == 0 { "third" } else { "else" });
        let operation = new.operation.as_mut().unwrap();
        operation.actor.as_mut().unwrap().id = format!("person{}", n % 2);
        operation.function = if n % 5 == 0 { "devices".into() } else { "snapshots".into() };
        if n % 7 == 0 {
            operation.result = AuditResult::Denied.into();
        }
        stage.append(vec![new]).await.unwrap();
        world.advance(jiff::SignedDuration::from_secs(60));
    }
    let at = |minute: i64| Some(tsujiban_proto::time::to_wire(begin + jiff::SignedDuration::from_mins(minute)));
    let base = ListEntriesRequest { group: "acme".into(), page_size: 4, ..Default::default() };
    for (request, wanted) in [
        (base.clone(), (0..30).collect::<Vec<u64>>()),
        (ListEntriesRequest { from: at(10), to: at(20), ..base.clone() }, (10..20).collect()),
        (ListEntriesRequest { actor: "person1".into(), ..base.clone() }, (0..30).filter(|n| n % 2 == 1).collect()),
        (ListEntriesRequest { function: "devices".into(), ..base.clone() }, (0..30).filter(|n| n % 5 == 0).collect()),
        (ListEntriesRequest { target: "third".into(), result: AuditResult::Denied.into(), ..base.clone() }, vec![0, 21]),
        (ListEntriesRequest { target: "nothing".into(), ..base.clone() }, vec![]),
    ] {
        let found: Vec<u64> = stage.list_by(request.clone()).await.iter().rev().map(|entry| entry.sequence).collect();
        assert_eq!(found, wanted, "{request:?}");
    }
}

async fn many_callers_and_many_groups_make_logs_without_a_gap(world: World) {
    let stage = world.start().await;
    let calls = (0..40).map(|call| {
        let entries = (0..25).map(|n| entry(&world, &format!("group-{}", n % 5), &format!("{call}"))).collect();
        stage.append(entries)
    });
    let mut places = BTreeSet::new();
    for answer in futures::future::join_all(calls).await {
        for (n, added) in answer.unwrap().into_iter().enumerate() {
            assert!(places.insert((n % 5, added.sequence)), "a place was given twice");
        }
    }
    let wanted = (0..5).flat_map(|group| (0..200).map(move |sequence| (group, sequence))).collect();
    assert_eq!(places, wanted);
}

/// Whoever states what is no leaf is refused alone, whatever else is in the batch.
#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_is_no_leaf_spoils_nothing_for_others() {
    let world = World::sqlite();
    let stage = world.start().await;
    stage.say(&world, "acme", "first").await;
    let log = stage.audit.some_log_of(&tsujiban_audit::owner::Owner::parse("acme").unwrap()).await.unwrap().number;
    let none = || tsujiban_audit::engine::Statement {
        log,
        leaf: Box::new(|_| Err(tsujiban_history::leaf::InvalidLeaf::Record)),
        gone: None,
        lawful: false,
    };
    let stated = futures::future::join_all((0..50).map(|_| stage.audit.engine.state(none())));
    let appended = futures::future::join_all((0..50).map(|_| stage.append(vec![entry(&world, "acme", "other")])));
    let (stated, appended) = futures::future::join(stated, appended).await;
    assert!(stated.iter().all(Result::is_err));
    assert!(appended.iter().all(Result::is_ok));
    assert_eq!(stage.targets("acme").await.len(), 51);
}
