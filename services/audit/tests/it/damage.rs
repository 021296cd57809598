//! What is damaged in the database is named, hides nothing else, and is told from what was altered in an export.

use std::collections::BTreeSet;

use jiff::SignedDuration;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tonic::Code;
use tsujiban_audit::owner::Owner;
use tsujiban_audit::reading::Log;
use tsujiban_audit::rpc;
use tsujiban_audit::scrub::{Scrub, Step};
use tsujiban_database::on;
use tsujiban_history::export::Loss;
use tsujiban_history::verify::{DamagedEntry, Report, Verdict, Verifier};
use tsujiban_proto::audit::v1::{
    ExportEntriesRequest, ExportFormat, GetProofRequest, ListEntriesRequest, NewEntry, Phase, Result as AuditResult,
};
use tsujiban_proto::time::to_wire;
use tsujiban_service::testing::with_token;

use crate::retention::{export, verify};
use crate::stage::{OPERATOR, Place, STAFF, Stage, World, entry, operation, random};

crate::on_both!(
    what_is_damaged_is_named_and_hides_nothing,
    lost_rows_are_stated_wherever_they_were,
    columns_that_nobody_signed_decide_nothing,
    spans_go_by_the_days_of_keys,
    an_intent_is_open_until_an_outcome_is_found,
    groups_that_were_exchanged_are_refused,
    a_log_goes_back_to_the_group_for_which_it_is_sealed,
    logs_from_before_there_were_seals_get_theirs_once,
    a_log_that_does_not_lead_to_its_head_is_left_out_alone,
    a_table_for_spreadsheets_has_what_is_left,
    an_entry_that_is_declared_old_hides_none_behind_it,
);

/// Changes rows behind the service's back, where triggers and rights forbid it.
pub async fn forge(world: &World, stage: &Stage, statement: &str) {
    match &world.place {
        Place::Sqlite(_) => {
            for trigger in ["entries_stay", "entries_never_change", "nodes_stay", "nodes_never_change", "day_keys_stay", "heads_only_grow"]
            {
                let remove = format!("DROP TRIGGER IF EXISTS {trigger}");
                on!(stage.database.writes(), p => sqlx::query(AssertSqlSafe(remove)).execute(p).await.map(drop)).unwrap();
            }
            on!(stage.database.writes(), p => sqlx::query(AssertSqlSafe(statement.to_owned())).execute(p).await.map(drop)).unwrap();
        }
        Place::Postgres(tables) => {
            let mut admin = PgConnection::connect(&tables.superuser.url).await.unwrap();
            sqlx::query("SET session_replication_role = replica").execute(&mut admin).await.unwrap();
            sqlx::query(AssertSqlSafe(statement.to_owned())).execute(&mut admin).await.unwrap();
        }
    }
}

/// A blob as the database's SQL has it.
fn blob(world: &World, bytes: &[u8]) -> String {
    let digits = hex::encode(bytes);
    match world.place {
        Place::Sqlite(_) => format!("X'{digits}'"),
        Place::Postgres(_) => format!("'\\x{digits}'::bytea"),
    }
}

/// Flips a bit of a column of an entry.
pub async fn flip(world: &World, stage: &Stage, log: i64, sequence: u64, column: &str, byte: usize) {
    let read = format!("SELECT {column} FROM entries WHERE log = {log} AND sequence = {sequence}");
    let mut bytes: Vec<u8> = on!(stage.database.reads(), p => sqlx::query_scalar(AssertSqlSafe(read)).fetch_one(p).await).unwrap();
    bytes[byte] ^= 1;
    let bytes = blob(world, &bytes);
    forge(world, stage, &format!("UPDATE entries SET {column} = {bytes} WHERE log = {log} AND sequence = {sequence}")).await;
}

/// A group with so many entries, whose targets are their numbers. A root list covers them, and they are archived.
pub async fn grown(world: &World, stage: &Stage, group: &str, count: u64) -> Log {
    let additions: Vec<_> = (0..count).map(|n| rpc::addition(entry(world, group, &n.to_string())).unwrap()).collect();
    for some in additions.chunks(200) {
        stage.audit.engine.append(some.to_vec()).await.unwrap();
    }
    stage.audit.follow_roots().await.unwrap();
    stage.audit.some_log_of(&Owner::parse(group).unwrap()).await.unwrap()
}

/// What a list of everything says: the targets from old to new, and what is damaged.
pub async fn listed(stage: &Stage, request: ListEntriesRequest) -> (Vec<String>, Vec<(u64, String)>) {
    let (mut targets, mut damaged, mut request) = (Vec::new(), BTreeSet::new(), request);
    loop {
        let page = stage.client().list_entries(with_token(STAFF, request.clone())).await.unwrap().into_inner();
        targets.extend(page.entries.into_iter().map(|entry| entry.operation.unwrap().target));
        damaged.extend(page.damaged.into_iter().map(|damaged| (damaged.sequence, damaged.wrong)));
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            targets.reverse();
            return (targets, damaged.into_iter().collect());
        }
    }
}

fn all(group: &str) -> ListEntriesRequest {
    ListEntriesRequest { group: group.into(), page_size: 100, ..Default::default() }
}

fn numbers(count: u64, without: &[u64]) -> Vec<String> {
    (0..count).filter(|n| !without.contains(n)).map(|n| n.to_string()).collect()
}

/// A case, what a list says of which entries, which it lacks, and which an auditor is told are lost.
type Case<'a> = (&'a str, &'a [(u64, &'a str)], &'a [u64], &'a [(u64, Loss)]);

async fn what_is_damaged_is_named_and_hides_nothing(world: World) {
    let stage = world.start().await;
    let cases: [Case; 12] = [
        ("leaf", &[(5, "its leaf")], &[], &[]),
        ("commitment", &[(5, "its leaf")], &[], &[]),
        ("leaf-at-the-end", &[(290, "its leaf")], &[], &[]),
        ("body", &[(5, "its body")], &[5], &[(5, Loss::Body)]),
        ("body-gone", &[(290, "its body")], &[290], &[(290, Loss::Body)]),
        ("leaf-and-body", &[(5, "its row cannot be read")], &[5], &[(5, Loss::Entry)]),
        ("commitment-and-body", &[(5, "its body")], &[5], &[(5, Loss::Entry)]),
        ("swapped", &[(5, "its row stands"), (7, "its row stands")], &[], &[]),
        ("node", &[], &[], &[]),
        ("node-gone", &[], &[], &[]),
        ("row", &[(5, "its row is missing")], &[5], &[(5, Loss::Entry)]),
        // the head has the hash, too
        ("row-and-node", &[(5, "its row is missing")], &[5], &[(5, Loss::Entry)]),
    ];
    for (case, wrong, missing, lost) in cases {
        let log = grown(&world, &stage, case, 300).await;
        let number = log.number;
        let sql = async |statement: String| forge(&world, &stage, &statement).await;
        match case {
            // the sequence in it, and the commitment
            "leaf" => flip(&world, &stage, number, 5, "leaf", 9).await,
            "commitment" => flip(&world, &stage, number, 5, "leaf", 40).await,
            "leaf-at-the-end" => flip(&world, &stage, number, 290, "leaf", 20).await,
            "body" => flip(&world, &stage, number, 5, "sealed", 40).await,
            "body-gone" => sql(format!("UPDATE entries SET sealed = NULL WHERE log = {number} AND sequence = 290")).await,
            "leaf-and-body" => {
                flip(&world, &stage, number, 5, "leaf", 0).await;
                flip(&world, &stage, number, 5, "sealed", 40).await;
            }
            "commitment-and-body" => {
                flip(&world, &stage, number, 5, "leaf", 40).await;
                flip(&world, &stage, number, 5, "sealed", 40).await;
            }
            "swapped" => {
                for (from, to) in [(5, 1005), (7, 5), (1005, 7)] {
                    sql(format!("UPDATE entries SET sequence = {to} WHERE log = {number} AND sequence = {from}")).await;
                }
            }
            "node" => sql(format!("UPDATE nodes SET hash = {} WHERE log = {number}", blob(&world, &[7; 32]))).await,
            "node-gone" => sql(format!("DELETE FROM nodes WHERE log = {number}")).await,
            "row-and-node" => {
                sql(format!("UPDATE nodes SET hash = {} WHERE log = {number}", blob(&world, &[7; 32]))).await;
                sql(format!("DELETE FROM entries WHERE log = {number} AND sequence = 5")).await;
            }
            _ => sql(format!("DELETE FROM entries WHERE log = {number} AND sequence = 5")).await,
        }
        let (targets, damaged) = listed(&stage, all(case)).await;
        assert_eq!(targets, numbers(300, missing), "{case}");
        assert_eq!(damaged.len(), wrong.len(), "{case}: {damaged:?}");
        for ((sequence, said), (wanted, words)) in damaged.iter().zip(wrong) {
            assert!(sequence == wanted && said.starts_with(words), "{case}: entry {sequence}, {said}");
        }
        let report = verify(&stage, &world, case).await;
        let named: Vec<_> = lost.iter().map(|(sequence, loss)| DamagedEntry { sequence: *sequence, loss: *loss }).collect();
        let verdict = if lost.is_empty() { Verdict::Intact } else { Verdict::Damaged(Vec::new()) };
        assert_eq!((&report.verdict, &report.damaged), (&verdict, &named), "{case}: {report}");
        // a proof of a sound entry does not suffer where its hashes are known
        let request = GetProofRequest { group: case.into(), sequence: 299, tree_size: 0 };
        stage.client().get_proof(with_token(STAFF, request)).await.unwrap();
    }
}

async fn lost_rows_are_stated_wherever_they_were(world: World) {
    let stage = world.start().await;
    let cases: [(&str, u64, std::ops::Range<u64>); 5] = [
        ("newest-ten", 300, 290..300),
        ("first", 300, 0..1),
        ("a-whole-bundle", 600, 256..512),
        ("over-an-edge", 600, 250..260),
        ("everything", 20, 0..20),
    ];
    for (case, size, gone) in cases {
        let log = grown(&world, &stage, case, size).await;
        let (number, first, end) = (log.number, gone.start, gone.end);
        forge(&world, &stage, &format!("DELETE FROM entries WHERE log = {number} AND sequence >= {first} AND sequence < {end}")).await;
        let (targets, damaged) = listed(&stage, all(case)).await;
        assert_eq!(targets, numbers(size, &gone.clone().collect::<Vec<_>>()), "{case}");
        assert_eq!(damaged.iter().map(|(sequence, _)| *sequence).collect::<Vec<_>>(), gone.clone().collect::<Vec<_>>(), "{case}");
        let report = verify(&stage, &world, case).await;
        assert_eq!((&report.verdict, report.damaged_count), (&Verdict::Damaged(Vec::new()), end - first), "{case}: {report}");
        assert_eq!(report.entries, size - (end - first));
        // what comes after is appended, listed, covered and proven
        stage.say(&world, case, "later").await;
        assert_eq!(listed(&stage, all(case)).await.0.last().map(String::as_str), Some("later"), "{case}");
        assert_eq!(verify(&stage, &world, case).await.verdict, Verdict::Damaged(Vec::new()), "{case}");
    }
}

async fn columns_that_nobody_signed_decide_nothing(world: World) {
    let stage = world.start().await;
    let now = world.now();
    for (case, change) in [
        ("time", "time_us = 0"),
        ("appended", "appended_us = appended_us + 100000000000000"),
        ("day", "day = 12"),
        ("day-of-nobody", "day = 9000000000000000000"),
        ("entry-id", "id = NULL"),
    ] {
        let log = grown(&world, &stage, case, 10).await;
        forge(&world, &stage, &format!("UPDATE entries SET {change} WHERE log = {} AND sequence = 4", log.number)).await;
        let span = |from, to| ListEntriesRequest { from: Some(to_wire(from)), to: Some(to_wire(to)), ..all(case) };
        let (second, day) = (jiff::SignedDuration::from_secs(1), jiff::SignedDuration::from_hours(48));
        for request in [all(case), span(now - second, now + second)] {
            let (targets, damaged) = listed(&stage, request).await;
            assert_eq!(targets, numbers(10, &[]), "{case}");
            assert_eq!(damaged.len(), 1, "{case}");
            assert!(damaged[0].0 == 4 && damaged[0].1.contains("were changed"), "{case}: {damaged:?}");
        }
        assert!(listed(&stage, span(now - day, now - second)).await.0.is_empty(), "{case}");
        assert_eq!(verify(&stage, &world, case).await.verdict, Verdict::Intact, "{case}");
    }
    let log = grown(&world, &stage, "keys", 10).await;
    forge(&world, &stage, &format!("DELETE FROM day_keys WHERE log = {}", log.number)).await;
    let (targets, damaged) = listed(&stage, all("keys")).await;
    assert_eq!((targets.len(), damaged.len()), (0, 10), "a day that has not expired is not gone");
    assert!(damaged[0].1.starts_with("the key of its day"), "{damaged:?}");
    let report = verify(&stage, &world, "keys").await;
    assert_eq!((&report.verdict, report.damaged_count), (&Verdict::Damaged(Vec::new()), 10), "{report}");
}

/// What an auditor says of a part of a group's history.
async fn verify_span(stage: &Stage, world: &World, group: &str, (from, to): (&str, &str)) -> Report {
    let log = stage.audit.some_log_of(&Owner::parse(group).unwrap()).await.unwrap();
    let time = |text: &str| Some(to_wire(text.parse().unwrap()));
    let request = ExportEntriesRequest { group: group.into(), from: time(from), to: time(to), format: ExportFormat::JsonLines.into() };
    let mut stream = stage.client().export_entries(with_token(STAFF, request)).await.unwrap().into_inner();
    let mut file = Vec::new();
    while let Some(message) = stream.message().await.unwrap() {
        file.extend(message.chunk);
    }
    let verifier = Verifier::new(stage.audit.verifier().clone(), stage.audit.origin(log.id), world.now()).unwrap();
    verifier.verify(file.as_slice()).unwrap()
}

async fn spans_go_by_the_days_of_keys(world: World) {
    let stage = world.start().await;
    for day in 0..5 {
        for hour in [0, 6] {
            stage.append((0..20).map(|n| entry(&world, "acme", &format!("{day}-{hour}-{n}"))).collect()).await.unwrap();
            world.advance(jiff::SignedDuration::from_hours(6));
            assert!(hour < 24);
        }
        world.advance(jiff::SignedDuration::from_hours(12));
    }
    // 09:00 and 15:00 in Japan of 2024-02-20 and the four days behind it, 40 entries a day
    let days = ("2024-02-21T15:00:00Z", "2024-02-22T15:00:00Z");
    let hours = ("2024-02-22T03:00:00Z", "2024-02-23T03:00:00Z");
    let span = async |stage: &Stage, span| {
        let report = verify_span(stage, &world, "acme", span).await;
        assert_eq!(report.verdict, Verdict::Intact, "{report}");
        (report.first, report.end)
    };
    assert_eq!((span(&stage, days).await, span(&stage, hours).await), ((80, 120), (100, 140)));
    for change in [
        "appended_us = appended_us + 31000000000000",
        "appended_us = 0",
        "appended_us = 9000000000000000000 WHERE sequence % 3 = 0",
        "day = 3, time_us = 5",
    ] {
        forge(&world, &stage, &format!("UPDATE entries SET {change}")).await;
        assert_eq!(span(&stage, days).await, (80, 120), "{change}");
        let (first, end) = span(&stage, hours).await;
        assert!(
            first <= 100 && end >= 140 && first >= 80 && end <= 160,
            "{change}: {first} to {end}: widened within the day, never narrowed"
        );
    }
}

async fn an_intent_is_open_until_an_outcome_is_found(world: World) {
    let stage = world.start().await;
    let with = |target: &str, phase: Phase, came: AuditResult, id: Vec<u8>| {
        let mut operation = operation(&world, target);
        (operation.phase, operation.result, operation.id) = (phase.into(), came.into(), id);
        NewEntry { group: "acme".into(), id: random().to_vec(), operation: Some(operation) }
    };
    let done = random().to_vec();
    stage.append(vec![with("open", Phase::Intent, AuditResult::Pending, random().to_vec())]).await.unwrap();
    stage.append(vec![with("done", Phase::Intent, AuditResult::Pending, done.clone())]).await.unwrap();
    stage.append(vec![with("done", Phase::Outcome, AuditResult::Allowed, done)]).await.unwrap();
    let shown = async |stage: &Stage| {
        let entries = stage.list("acme").await;
        let came =
            entries.iter().map(|entry| entry.operation.clone().unwrap()).map(|operation| (operation.target.clone(), operation.result()));
        came.collect::<Vec<_>>()
    };
    let wanted = [("done".to_owned(), AuditResult::Allowed), ("open".to_owned(), AuditResult::Unknown)];
    assert_eq!(shown(&stage).await, wanted);
    forge(&world, &stage, "DELETE FROM intents").await;
    assert_eq!(shown(&stage).await, wanted, "the table of intents is a hint");
    // also where a page ends between them
    let page = ListEntriesRequest { group: "acme".into(), page_size: 1, ..Default::default() };
    assert_eq!(stage.list_by(page).await.len(), 2);
    let csv = String::from_utf8(export(&stage, "acme", ExportFormat::Csv).await).unwrap();
    assert_eq!(csv.lines().filter(|row| row.contains("INTENT")).count(), 1, "{csv}");
}

async fn groups_that_were_exchanged_are_refused(world: World) {
    let stage = world.start().await;
    for group in ["acme", "other", "third"] {
        stage.say(&world, group, group).await;
    }
    stage.stop().await;
    let stage = world.start().await;
    for (from, to) in [("acme", "somebody"), ("other", "acme"), ("somebody", "other")] {
        forge(&world, &stage, &format!("UPDATE logs SET group_id = '{to}' WHERE group_id = '{from}'")).await;
    }
    for group in ["acme", "other"] {
        let refused = stage.client().list_entries(with_token(STAFF, all(group))).await.unwrap_err();
        assert_eq!(refused.code(), Code::DataLoss, "{refused}");
        assert!(refused.message().contains("not sealed as the history of group"), "{refused}");
        let request = ExportEntriesRequest { group: group.into(), format: ExportFormat::Csv.into(), ..Default::default() };
        assert_eq!(stage.client().export_entries(with_token(STAFF, request)).await.unwrap_err().code(), Code::DataLoss);
        let refused = stage.append(vec![entry(&world, group, "more")]).await.unwrap_err();
        assert!(refused.message().contains("not sealed"), "{refused}");
        assert!(stage.append(vec![entry(&world, group, "more")]).await.is_err(), "not the second time either");
    }
    // alone, and nobody else's entries in the same call suffer from it
    stage.say(&world, "third", "more").await;
    assert_eq!(listed(&stage, all("third")).await, (vec!["third".to_owned(), "more".to_owned()], Vec::new()));
    // a seal that is gone is no seal
    forge(&world, &stage, "DELETE FROM log_seals").await;
    stage.stop().await;
    let stage = world.start().await;
    assert!(stage.client().list_entries(with_token(STAFF, all("acme"))).await.is_err());
    assert!(
        stage
            .client()
            .append(with_token(OPERATOR, tsujiban_proto::audit::v1::AppendRequest { entries: vec![entry(&world, "third", "x")] }))
            .await
            .is_err()
    );
}

/// The operator names the log of each group with Prepare. With PostgreSQL only the tables' owner can change whose a log is.
async fn a_log_goes_back_to_the_group_for_which_it_is_sealed(world: World) {
    let mut stage = world.start().await;
    let mut lives = Vec::new();
    for group in ["acme", "other"] {
        lives.push((group, stage.prepare_with_log(group, "", "").await.unwrap()));
        stage.say(&world, group, group).await;
    }
    // one log is renamed; then two are exchanged. With how often each group's history tells of it after that
    let rounds = [(vec![("acme", "acme-other")], [1, 0]), (vec![("acme", "somebody"), ("other", "acme"), ("somebody", "other")], [2, 1])];
    for (changes, told) in rounds {
        for (from, to) in &changes {
            forge(&world, &stage, &format!("UPDATE logs SET group_id = '{to}' WHERE group_id = '{from}'")).await;
        }
        stage.stop().await;
        stage = world.start().await;
        assert!(stage.append(vec![entry(&world, "acme", "more")]).await.is_err(), "it gets no other log");
        for (group, (incarnation, log)) in &lives {
            let prepared = stage.prepare_with_log(group, incarnation, log).await;
            if let Place::Postgres(_) = &world.place {
                assert!(prepared.is_ok() || prepared.unwrap_err().code() == Code::DataLoss);
                return;
            }
            assert_eq!(prepared.unwrap(), (incarnation.clone(), log.clone()));
        }
        // C5: that somebody changed whose a log is stands in its history, also when no scrub saw it meanwhile
        let week = SignedDuration::from_hours(7 * 24);
        world.advance(week);
        let mut scrub = Scrub::new(week);
        while scrub.step(&stage.audit).await.unwrap() != Step::Idle {}
        for (group, times) in lives.iter().map(|(group, _)| *group).zip(told) {
            let words: Vec<_> =
                stage.list(group).await.into_iter().filter_map(|entry| entry.operation).map(|operation| operation.reason).collect();
            let count = |wanted: &str| words.iter().filter(|word| *word == wanted).count();
            assert_eq!((count("DAMAGED"), count("HEALED")), (times, times), "{group}: {words:?}");
        }
        for (group, _) in &lives {
            stage.say(&world, group, group).await;
            // "head" is what the scrub tells of
            assert!(stage.targets(group).await.iter().all(|target| target == group || target == "head"), "{group}");
        }
    }
}

async fn logs_from_before_there_were_seals_get_theirs_once(world: World) {
    let stage = world.start().await;
    stage.say(&world, "acme", "before").await;
    // as the version before left it
    forge(&world, &stage, "DELETE FROM log_seals").await;
    forge(&world, &stage, "DELETE FROM meta WHERE name = 'logs are sealed'").await;
    stage.stop().await;
    let stage = world.start().await;
    stage.say(&world, "acme", "after").await;
    assert_eq!(stage.targets("acme").await, ["before", "after"]);
    let seals: i64 = on!(stage.database.reads(), p => sqlx::query_scalar("SELECT COUNT(*) FROM log_seals").fetch_one(p).await).unwrap();
    assert_eq!(seals, 1);
}

/// An entry is lost before it was archived: the other groups' lists go on, and so do appends.
async fn a_log_that_does_not_lead_to_its_head_is_left_out_alone(world: World) {
    let stage = world.start().await;
    let log = grown(&world, &stage, "acme", 5).await;
    stage.say(&world, "acme", "lost").await;
    forge(&world, &stage, &format!("DELETE FROM entries WHERE log = {} AND sequence = 5", log.number)).await;
    let other = grown(&world, &stage, "other", 3).await;
    let listed = async |log: &Log| -> i64 {
        let text = "SELECT size FROM listed WHERE log = $1";
        on!(stage.database.reads(), p => sqlx::query_scalar(text).bind(log.number).fetch_one(p).await).unwrap()
    };
    assert_eq!((listed(&log).await, listed(&other).await), (5, 3));
    assert_eq!(stage.audit.engine.standing(), tsujiban_audit::engine::Standing::Sound);
    stage.say(&world, "acme", "later").await;
    stage.audit.follow_roots().await.unwrap();
    assert_eq!((listed(&log).await, stage.audit.some_log_of(&Owner::parse("acme").unwrap()).await.unwrap().size()), (5, 7));
}

async fn a_table_for_spreadsheets_has_what_is_left(world: World) {
    let stage = world.start().await;
    let log = grown(&world, &stage, "acme", 300).await;
    forge(&world, &stage, &format!("DELETE FROM entries WHERE log = {} AND sequence = 7", log.number)).await;
    flip(&world, &stage, log.number, 9, "sealed", 40).await;
    let csv = String::from_utf8(export(&stage, "acme", ExportFormat::Csv).await).unwrap();
    assert_eq!(csv.lines().count(), 301);
    let damaged: Vec<_> = csv.lines().filter(|row| row.contains("DAMAGED")).map(|row| row.split(',').next().unwrap()).collect();
    assert_eq!(damaged, ["7", "9"]);
}

/// A newer entry gets the leaf of a day that has expired, beside one that is lost, so that the tree does not say that it is another one.
async fn an_entry_that_is_declared_old_hides_none_behind_it(world: World) {
    world.advance_to("2024-03-10T03:00:00Z");
    let stage = world.start().await;
    grown(&world, &stage, "acme", 10).await;
    world.advance_to("2025-03-11T03:00:00Z");
    assert_eq!(stage.audit.expire().await.unwrap(), 1);
    let log = grown(&world, &stage, "acme", 20).await;
    let (number, old) = (log.number, stage.audit.entries(log.number, 2, 1).await.unwrap().remove(0).leaf);
    let before = listed(&stage, all("acme")).await;
    assert_eq!(before, (numbers(20, &[]), Vec::new()));
    // 10 entries, the retention, 20 entries: the last of them are 29 and 30
    let mut leaf = old;
    leaf[2..10].copy_from_slice(&29_u64.to_be_bytes());
    let leaf = blob(&world, &leaf);
    forge(&world, &stage, &format!("UPDATE entries SET leaf = {leaf}, sealed = NULL WHERE log = {number} AND sequence = 29")).await;
    forge(&world, &stage, &format!("DELETE FROM entries WHERE log = {number} AND sequence = 28")).await;
    let (targets, damaged) = listed(&stage, all("acme")).await;
    assert_eq!(targets, numbers(20, &[17, 18]));
    assert_eq!(damaged.iter().map(|(sequence, _)| *sequence).collect::<Vec<_>>(), [28, 29]);
    let report = verify(&stage, &world, "acme").await;
    assert!(matches!(report.verdict, Verdict::Damaged(_)), "{report}");
}
