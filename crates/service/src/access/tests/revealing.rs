//! C5, C22: what reveals secrets is recorded before a byte leaves, and does not happen where it cannot be.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::BytesMut;
use prost::Message;
use tempfile::TempDir;
use tokio_util::sync::{CancellationToken, DropGuard};
use tsujiban_core::clock::SystemClock;
use tsujiban_proto::audit::v1::{CoveredRequest, CoveredResponse, NewEntry, Operation as Recorded, Phase, Result as AuditResult};
use tsujiban_proto::backup::v1::{DiffSnapshotsRequest, GetSnapshotRequest};
use tsujiban_sealing::SystemRandom;

use super::*;
use crate::history::{HISTORY_UNAVAILABLE, Ledger, Parts, SPOOL_BEGUN};
use crate::testing::Epochs;

/// How long an entry may be on its way. Only a test that fails waits for so long.
const PATIENCE: Duration = Duration::from_mins(3);
const DIFF: &str = "/tsujiban.backup.v1.BackupService/DiffSnapshots";

/// A history in memory that can be away.
#[derive(Default)]
struct Book {
    entries: Mutex<Vec<NewEntry>>,
    is_away: AtomicBool,
}

#[async_trait]
impl Ledger for Book {
    async fn append(&self, entries: Vec<NewEntry>) -> Result<(), ServiceError> {
        if self.is_away.load(Ordering::SeqCst) {
            return Err(ServiceError::new(Kind::Unavailable, "AWAY", "the history is away"));
        }
        // that the spool is a new one is no call
        let is_call = |entry: &NewEntry| entry.operation.as_ref().is_some_and(|operation| operation.reason != SPOOL_BEGUN);
        self.entries.lock().unwrap().extend(entries.into_iter().filter(is_call));
        Ok(())
    }

    async fn covered(&self, _: CoveredRequest) -> Result<CoveredResponse, ServiceError> {
        Err(ServiceError::new(Kind::Unavailable, "AWAY", "nothing is covered here"))
    }
}

/// What a handler saw of a call.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    may_reveal: bool,
    /// How many entries the history held by then.
    entries: usize,
}

struct Place {
    access: Access,
    book: Arc<Book>,
    seen: Arc<Mutex<Vec<Seen>>>,
    _spool: TempDir,
    _epochs: Epochs,
    _stop: DropGuard,
}

impl Place {
    fn new() -> Self {
        let (book, spool, epochs, registry) = (Arc::new(Book::default()), tempfile::tempdir().unwrap(), Epochs::new(), Registry::new());
        let parts = Parts {
            service: "tsujiban-backup",
            dir: spool.path().join("spool"),
            bytes: 0,
            keyring: Arc::clone(&epochs.keyring),
            ledger: book.clone(),
            clock: Arc::new(SystemClock),
            random: Arc::new(SystemRandom::new()),
        };
        let (history, delivery) = History::open(parts, &registry).unwrap();
        let stop = CancellationToken::new();
        tokio::spawn(delivery.run(stop.clone()));
        let rights = [("snapshots", "get"), ("snapshots", "reveal")];
        let known = KnownCallers::new()
            .operator("operator")
            .collector("acme", &"acme".parse().unwrap())
            .staff("hanako", "hanako", &rights)
            .staff("taro", "taro", &rights[..1]);
        let persons = KnownPersons::new().person("a1", &["acme"], &[("snapshots", Operation::View)]);
        let guard = Guard::new(Arc::new(WithPersons::new(Arc::new(known), persons)), registry);
        let access = Access::new(Guard { history: Some(history), ..guard }).unwrap();
        Self { access, book, seen: Arc::default(), _spool: spool, _epochs: epochs, _stop: stop.drop_guard() }
    }

    /// Calls a method with messages, and answers its code, its reason and how many bytes came back.
    async fn call(&self, path: &str, token: &str, messages: &[Vec<u8>]) -> (Code, String, usize) {
        let mut body = BytesMut::new();
        for message in messages {
            body.extend_from_slice(&[0]);
            body.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
            body.extend_from_slice(message);
        }
        let body = Body::new(Full::new(body.freeze()).map_err(|never| match never {}));
        let request = Request::builder().uri(path).header("authorization", format!("Bearer {token}")).body(body).unwrap();
        let (seen, book) = (Arc::clone(&self.seen), Arc::clone(&self.book));
        let handler = service_fn(move |request: Request<Body>| {
            let may_reveal = request.extensions().get::<Revealing>().is_some();
            let entries = book.entries.lock().unwrap().len();
            seen.lock().unwrap().push(Seen { may_reveal, entries });
            async { Ok::<_, Infallible>(ok()) }
        });
        let response = self.access.layer(handler).oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap();
        let headers = body.trailers().filter(|trailers| trailers.contains_key("grpc-status")).unwrap_or(&head.headers).clone();
        let status = Status::from_header_map(&headers).unwrap();
        (status.code(), ServiceError::from(&status).reason, body.to_bytes().len())
    }

    fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }

    /// Takes what the history holds, once that is as many entries as are wanted.
    async fn recorded(&self, wanted: usize) -> Vec<Recorded> {
        let there = async {
            while self.book.entries.lock().unwrap().len() < wanted {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(PATIENCE, there).await.unwrap();
        self.book.entries.lock().unwrap().drain(..).filter_map(|entry| entry.operation).collect()
    }
}

fn get(reveal: bool) -> Vec<u8> {
    GetSnapshotRequest { group: "acme".into(), id: "5f".into(), reveal }.encode_to_vec()
}

fn diff(reveal: bool) -> Vec<u8> {
    DiffSnapshotsRequest { group: "acme".into(), old_id: "5e".into(), new_id: "5f".into(), reveal }.encode_to_vec()
}

fn reveals(operation: &Recorded) -> bool {
    operation.detail.get("reveals").is_some_and(|reveals| reveals == "true")
}

#[tokio::test]
async fn nothing_is_revealed_while_it_cannot_be_recorded() {
    let place = Place::new();
    place.book.is_away.store(true, Ordering::SeqCst);
    for (path, revealing, hiding) in [(GET, get(true), get(false)), (DIFF, diff(true), diff(false))] {
        let refused = (Code::Unavailable, HISTORY_UNAVAILABLE.to_owned(), 0);
        assert_eq!(place.call(path, "hanako", &[revealing]).await, refused, "{path}");
        assert_eq!(place.seen(), [], "no handler saw it");
        assert_eq!(place.call(path, "hanako", &[hiding]).await.0, Code::Ok, "{path}");
        assert_eq!(place.seen(), [Seen { may_reveal: false, entries: 0 }], "what hides secrets goes on");
    }
}

#[tokio::test]
async fn the_wish_is_in_the_history_before_the_handler_runs() {
    let place = Place::new();
    for (path, revealing, target) in [(GET, get(true), "5f"), (DIFF, diff(true), "5e/5f")] {
        assert_eq!(place.call(path, "hanako", &[revealing]).await.0, Code::Ok);
        assert_eq!(place.seen(), [Seen { may_reveal: true, entries: 1 }]);
        let recorded = place.recorded(2).await;
        let phases: Vec<_> = recorded.iter().map(|operation| (operation.phase(), operation.result())).collect();
        assert_eq!(phases, [(Phase::Intent, AuditResult::Pending), (Phase::Outcome, AuditResult::Allowed)], "{path}");
        assert!(recorded.iter().all(|operation| reveals(operation) && operation.target == target), "{recorded:?}");
    }
    assert_eq!(place.call(GET, "hanako", &[get(false)]).await.0, Code::Ok);
    let recorded = place.recorded(1).await;
    assert_eq!(recorded.iter().map(|operation| (operation.phase(), reveals(operation))).collect::<Vec<_>>(), [(Phase::Outcome, false)]);
}

/// Only the first message counts, for the layer as for the handler; in it every value does.
#[tokio::test]
async fn no_way_of_writing_a_request_reveals_without_a_record() {
    let (hides, again) = (vec![0x18, 0], vec![0x18, 1]);
    for (messages, wanted) in [
        (vec![get(false), get(true)], false),
        (vec![Vec::new(), get(true)], false),
        (vec![[get(true), hides.clone()].concat()], true),
        (vec![[get(false), hides, again].concat()], true),
        (vec![get(true), get(false)], true),
    ] {
        let place = Place::new();
        assert_eq!(place.call(GET, "hanako", &messages).await.0, Code::Ok, "{messages:?}");
        assert_eq!(place.seen(), [Seen { may_reveal: wanted, entries: usize::from(wanted) }], "{messages:?}");
        assert_eq!(place.recorded(1).await.iter().any(reveals), wanted, "{messages:?}");
    }
    let place = Place::new();
    // a decoder takes no bool that is written as a text
    assert_eq!(place.call(GET, "hanako", &[[get(false), vec![0x1a, 1, 1]].concat()]).await.0, Code::InvalidArgument);
    assert_eq!(place.seen(), []);
}

/// The right to reveal is one of its own, and only staff can have it.
#[tokio::test]
async fn whoever_may_not_reveal_is_refused_and_recorded() {
    let place = Place::new();
    for (token, reason) in [("taro", "MISSING_RIGHT"), ("session-a1", "STAFF_ONLY"), ("operator", "NOT_ALLOWED"), ("acme", "NOT_ALLOWED")] {
        let (code, why, bytes) = place.call(GET, token, &[get(true)]).await;
        assert_eq!((code, why.as_str(), bytes), (Code::PermissionDenied, reason, 0), "{token}");
    }
    assert_eq!(place.seen(), []);
    let recorded = place.recorded(4).await;
    assert!(recorded.iter().all(|operation| operation.result() == AuditResult::Denied), "{recorded:?}");
    assert_eq!(recorded.iter().filter(|operation| reveals(operation)).count(), 2, "of those who may read at all: {recorded:?}");
    for token in ["taro", "session-a1"] {
        assert_eq!(place.call(GET, token, &[get(false)]).await.0, Code::Ok, "{token}");
    }
}

/// A caller who goes away may have got it all: what came of it is unknown, never nothing.
#[tokio::test]
async fn an_answer_that_is_cut_off_was_recorded_before() {
    let place = Place::new();
    let handler = service_fn(|_: Request<Body>| async { Ok::<_, Infallible>(ok()) });
    let message = get(true);
    let frame = [&[0, 0, 0, 0, u8::try_from(message.len()).unwrap()], &message[..]].concat();
    let body = Body::new(Full::new(Bytes::from(frame)).map_err(|never| match never {}));
    let request = Request::builder().uri(GET).header("authorization", "Bearer hanako").body(body).unwrap();
    drop(place.access.layer(handler).oneshot(request).await.unwrap());
    let recorded = place.recorded(2).await;
    assert_eq!(recorded.iter().map(Recorded::result).collect::<Vec<_>>(), [AuditResult::Pending, AuditResult::Unknown]);
    assert!(recorded.iter().all(reveals));
}
