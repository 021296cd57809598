//! The spool with a history that is as good or bad as the test wants it, without a connection.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tsujiban_core::clock::{Clock, SystemClock};
use tsujiban_proto::audit::v1::{Coverage, CoveredRequest, CoveredResponse, LogCoverage, Operation, Phase};
use tsujiban_sealing::SystemRandom;

use super::*;
use crate::history::{ASK, LOG_REFUSED, Ledger, SPOOL_DAMAGED, operation};
use crate::testing::Epochs;

/// Takes entries, each once, or refuses them.
#[derive(Default)]
struct Taken {
    entries: Mutex<Vec<NewEntry>>,
    closed: AtomicBool,
    /// Groups of which nothing is taken.
    refused: Mutex<BTreeSet<String>>,
    largest: AtomicUsize,
}

impl Taken {
    fn targets(&self) -> Vec<String> {
        self.entries.lock().unwrap().iter().map(|entry| entry.operation.as_ref().unwrap().target.clone()).collect()
    }
}

#[async_trait]
impl Ledger for Taken {
    async fn append(&self, new: Vec<NewEntry>) -> Result<(), ServiceError> {
        if self.closed.load(Ordering::SeqCst) {
            return Err(ServiceError::new(ErrorKind::Unavailable, "CLOSED", "by the test"));
        }
        let refused = self.refused.lock().unwrap();
        if new.iter().any(|entry| refused.contains(&entry.group)) {
            return Err(ServiceError::new(ErrorKind::Precondition, LOG_REFUSED, "by the test"));
        }
        drop(refused);
        self.largest.fetch_max(new.len(), Ordering::SeqCst);
        let mut entries = self.entries.lock().unwrap();
        for entry in new {
            if !entries.iter().any(|known| known.id == entry.id) {
                entries.push(entry);
            }
        }
        Ok(())
    }

    async fn covered(&self, request: CoveredRequest) -> Result<CoveredResponse, ServiceError> {
        let log = |ids: usize| LogCoverage { is_erased: false, entries: vec![Coverage::Pending.into(); ids] };
        Ok(CoveredResponse { logs: request.logs.iter().map(|asked| log(asked.ids.len())).collect() })
    }
}

struct Bench {
    dir: TempDir,
    epochs: Epochs,
    taken: Arc<Taken>,
}

impl Bench {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), epochs: Epochs::new(), taken: Arc::default() }
    }

    fn open(&self, bytes: u64) -> Opened {
        self.try_open(bytes).unwrap()
    }

    fn try_open(&self, bytes: u64) -> Result<Opened, SpoolError> {
        let random = Arc::new(SystemRandom::new());
        Spool::open(&self.folder(), bytes, (&self.epochs.keyring, random), "tsujiban-backup", SystemClock.now(), &Registry::new())
    }

    fn folder(&self) -> PathBuf {
        self.dir.path().join("spool")
    }

    /// Opens the spool as the next process does, once the one before it has ended.
    async fn reopen(&self) -> Opened {
        loop {
            match self.try_open(DEFAULT_BYTES) {
                Err(SpoolError::InUse { .. }) => tokio::time::sleep(Duration::from_millis(5)).await,
                opened => return opened.unwrap(),
            }
        }
    }

    /// Runs the drain until the spool is empty.
    async fn drain(&self, spool: &Spool, drain: Drain) {
        let stop = CancellationToken::new();
        let running = tokio::spawn(drain.run(self.taken.clone(), Arc::new(SystemClock), ASK, stop.clone()));
        until(|| spool.depth() == 0).await;
        stop.cancel();
        running.await.unwrap();
    }

    fn segments(&self) -> Vec<PathBuf> {
        let mut paths: Vec<_> = fs::read_dir(self.folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "spool"));
        paths.sort();
        paths
    }
}

async fn until(mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(3), waiting).await.unwrap();
}

fn entry(number: u64, phase: Phase) -> NewEntry {
    let id = u128::from(number).to_be_bytes().to_vec();
    operation::entry("acme", Operation { id, phase: phase.into(), target: number.to_string(), ..Operation::default() })
}

async fn put(spool: &Spool, number: u64) {
    let mut place = spool.reserve(1).unwrap();
    place.end(&entry(number, Phase::Outcome), Durability::Synchronised).await.unwrap().unwrap();
}

fn numbers(range: std::ops::Range<u64>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

#[tokio::test]
async fn what_was_written_arrives_once_and_in_order_across_processes() {
    let bench = Bench::new();
    let Opened { spool, drain, .. } = bench.open(DEFAULT_BYTES);
    for number in 0..600 {
        put(&spool, number).await;
    }
    drop((spool, drain));
    let Opened { spool, drain, .. } = bench.reopen().await;
    assert_eq!(spool.depth(), 600);
    bench.drain(&spool, drain).await;
    put(&spool, 600).await;
    drop(spool);
    let Opened { spool, drain, .. } = bench.reopen().await;
    assert_eq!(spool.depth(), 1, "what has arrived is not counted again");
    bench.drain(&spool, drain).await;
    assert_eq!(bench.taken.targets(), numbers(0..601));
    assert!(bench.taken.largest.load(Ordering::SeqCst) <= 256);
}

/// C22: nothing that a customer typed lies in the spool in the clear.
#[tokio::test]
async fn records_are_sealed() {
    let bench = Bench::new();
    let Opened { spool, drain, .. } = bench.open(DEFAULT_BYTES);
    let mut entry = entry(1, Phase::Outcome);
    entry.operation.as_mut().unwrap().target = "a-serial-number".into();
    spool.reserve(1).unwrap().end(&entry, Durability::Synchronised).await.unwrap().unwrap();
    let bytes: Vec<u8> = bench.segments().iter().flat_map(|path| fs::read(path).unwrap()).collect();
    assert!(bytes.len() > 60);
    for clear in [&b"a-serial-number"[..], b"acme"] {
        assert!(!bytes.windows(clear.len()).any(|window| window == clear));
    }
    drop(drain);
}

#[tokio::test]
async fn a_full_spool_refuses_and_takes_again_when_it_is_drained() {
    let bench = Bench::new();
    let Opened { spool, drain, .. } = bench.open(0);
    let mut number = 0;
    let refused = loop {
        match spool.reserve(1) {
            Ok(mut place) => place.end(&entry(number, Phase::Outcome), Durability::Written).await.unwrap().unwrap(),
            Err(error) => break error,
        }
        number += 1;
    };
    assert_eq!((refused.kind, refused.reason.as_str()), (ErrorKind::Exhausted, "SPOOL_FULL"));
    assert!(refused.message.contains("--spool-bytes"), "{}", refused.message);
    let on_disk: u64 = bench.segments().iter().map(|path| fs::metadata(path).unwrap().len()).sum();
    assert!((LEAST_BYTES / 2..=LEAST_BYTES).contains(&on_disk), "{on_disk}");
    bench.drain(&spool, drain).await;
    until(|| spool.reserve(1).is_ok()).await;
    assert_eq!(bench.taken.targets(), numbers(0..number));
}

/// A place that is promised is there when it is needed, whatever others do meanwhile.
#[tokio::test]
async fn promised_room_is_kept_and_given_back() {
    let bench = Bench::new();
    let Opened { spool, .. } = bench.open(0);
    let mut places: Vec<_> = std::iter::from_fn(|| spool.reserve(2).ok()).collect();
    assert_eq!(u64::try_from(places.len()).unwrap(), LEAST_BYTES / RECORD_BYTES / 2);
    let written = places.pop().unwrap().end(&entry(1, Phase::Outcome), Durability::Synchronised);
    written.await.unwrap().unwrap();
    drop(places);
    assert_eq!(spool.shared.state().reserved, 0);
}

#[tokio::test]
async fn calls_that_were_cut_off_are_known_at_the_next_start_and_only_those() {
    let bench = Bench::new();
    let Opened { spool, drain, .. } = bench.open(DEFAULT_BYTES);
    let (mut cut, mut ended) = (spool.reserve(2).unwrap(), spool.reserve(2).unwrap());
    cut.begin(&entry(1, Phase::Intent)).await.unwrap().unwrap();
    ended.begin(&entry(2, Phase::Intent)).await.unwrap().unwrap();
    ended.end(&entry(2, Phase::Outcome), Durability::Synchronised).await.unwrap().unwrap();
    // the segment in which they began goes, and what is open is carried over
    let first = bench.segments();
    for number in 10..1000 {
        spool.reserve(1).unwrap().end(&entry(number, Phase::Outcome), Durability::Written).await.unwrap().unwrap();
    }
    let stop = CancellationToken::new();
    let running = tokio::spawn(drain.run(bench.taken.clone(), Arc::new(SystemClock), ASK, stop.clone()));
    until(|| bench.segments().iter().all(|path| !first.contains(path))).await;
    stop.cancel();
    running.await.unwrap();
    drop((cut, ended, spool));
    let Opened { spool, begun, drain, .. } = bench.reopen().await;
    drop(drain);
    assert_eq!(begun, [entry(1, Phase::Intent)]);
    let closed = operation::unknown(begun[0].operation.clone().unwrap());
    spool.force(&operation::entry("acme", closed)).await.unwrap().unwrap();
    drop(spool);
    assert_eq!(bench.reopen().await.begun, []);
}

#[tokio::test]
async fn a_segment_goes_when_all_in_it_has_arrived() {
    let bench = Bench::new();
    let Opened { spool, drain, .. } = bench.open(DEFAULT_BYTES);
    for number in 0..1500 {
        spool.reserve(1).unwrap().end(&entry(number, Phase::Outcome), Durability::Written).await.unwrap().unwrap();
    }
    let stop = CancellationToken::new();
    let running = tokio::spawn(drain.run(bench.taken.clone(), Arc::new(SystemClock), ASK, stop.clone()));
    until(|| spool.depth() == 0 && bench.segments().iter().all(|path| fs::metadata(path).unwrap().len() == 0)).await;
    assert_eq!(bench.segments().len(), 1);
    stop.cancel();
    running.await.unwrap();
}

/// Closes a spool of five records in one file, and answers the file and how long a record is.
async fn five(bench: &Bench) -> (PathBuf, Vec<u8>, usize) {
    let Opened { spool, drain, .. } = bench.open(DEFAULT_BYTES);
    for number in 0..5 {
        put(&spool, number).await;
    }
    drop((spool, drain));
    let path = bench.segments().pop().unwrap();
    let whole = fs::read(&path).unwrap();
    let record = whole.len() / 5;
    (path, whole, record)
}

#[tokio::test]
async fn a_record_that_was_never_finished_is_left_out() {
    let bench = Bench::new();
    let (path, whole, record) = five(&bench).await;
    for cut in [1, 7, 30, record - 1] {
        fs::write(&path, &whole[..whole.len() - cut]).unwrap();
        let found = segments::scan(&bench.folder()).unwrap();
        assert_eq!((found.entries, found.next, found.damaged, found.losses), (4, 4, 0, vec![]), "{cut}");
    }
}

/// One damaged record costs itself alone, its file is kept aside, and the history tells what was lost.
#[tokio::test]
async fn a_damaged_record_costs_itself_alone() {
    for (place, lost) in [(0, "0"), (2, "2"), (4, "4")] {
        let bench = Bench::new();
        let (path, mut bytes, record) = five(&bench).await;
        bytes[place * record + record / 2] ^= 1;
        fs::write(&path, &bytes).unwrap();
        // found again at each start until it is drained, and said once
        for _ in 0..2 {
            drop(bench.reopen().await);
        }
        let Opened { spool, drain, .. } = bench.reopen().await;
        assert!(spool.shared.metrics.lost.get() >= 1);
        put(&spool, 9).await;
        bench.drain(&spool, drain).await;
        let mut targets = bench.taken.targets();
        targets.retain(|target| target != "spool");
        let mut left = [numbers(0..5), vec!["9".to_owned()]].concat();
        left.remove(place);
        assert_eq!(targets, left);
        let entries = bench.taken.entries.lock().unwrap().clone();
        let said: Vec<_> = entries.iter().filter_map(|entry| entry.operation.as_ref()).filter(|said| said.target == "spool").collect();
        assert_eq!(said.len(), 1, "{said:?}");
        assert_eq!(
            (said[0].reason.as_str(), said[0].detail["records"].as_str(), said[0].detail["first"].as_str()),
            (SPOOL_DAMAGED, "1", lost)
        );
        let aside = path.with_added_extension("damaged");
        assert_eq!(fs::read(aside).unwrap(), bytes);
    }
}

/// A record that is damaged while the process runs is no other case.
#[tokio::test]
async fn damage_under_a_running_process_is_passed_and_said() {
    let bench = Bench::new();
    let Opened { spool, drain, .. } = bench.open(DEFAULT_BYTES);
    for number in 0..5 {
        put(&spool, number).await;
    }
    let path = bench.segments().pop().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, &bytes).unwrap();
    bench.drain(&spool, drain).await;
    assert_eq!(bench.taken.targets(), ["0", "1", "3", "4", "spool"]);
}

/// A file of the spool that somebody removed is noticed, too, and what has arrived is not missed.
#[tokio::test]
async fn a_file_that_is_missing_is_said() {
    let bench = Bench::new();
    let Opened { spool, drain, .. } = bench.open(0);
    for number in 0..700 {
        spool.reserve(1).unwrap().end(&entry(number, Phase::Outcome), Durability::Written).await.unwrap().unwrap();
    }
    drop((spool, drain));
    let segments = bench.segments();
    assert!(segments.len() > 2);
    fs::remove_file(&segments[1]).unwrap();
    let first = |path: &Path| segments::first(path, "spool").unwrap();
    let found = segments::scan(&bench.folder()).unwrap();
    assert_eq!(found.losses, [Loss { first: first(&segments[1]), records: first(&segments[2]) - first(&segments[1]) }]);
    segments::ARRIVED.note(&bench.folder(), first(&segments[2])).unwrap();
    assert_eq!(segments::scan(&bench.folder()).unwrap().losses, []);
    // all of them, with what was noted beside
    bench.segments().iter().for_each(|path| fs::remove_file(path).unwrap());
    assert_eq!(segments::scan(&bench.folder()).unwrap().losses, [Loss { first: first(&segments[2]) + 1, records: 0 }]);
}

/// A key that is gone takes everything with it that it sealed: that is said once, and the files are kept.
#[tokio::test]
async fn what_a_missing_key_has_sealed_is_said_to_be_lost() {
    let bench = Bench::new();
    let (path, bytes, _) = five(&bench).await;
    fs::remove_file(bench.folder().join("key.json")).unwrap();
    let Opened { spool, drain, .. } = bench.reopen().await;
    put(&spool, 9).await;
    bench.drain(&spool, drain).await;
    assert_eq!(bench.taken.targets(), ["9", "spool"]);
    let said = bench.taken.entries.lock().unwrap()[1].operation.clone().unwrap();
    assert_eq!((said.reason.as_str(), said.detail["records"].as_str()), (SPOOL_DAMAGED, "5"));
    assert_eq!(fs::read(path.with_added_extension("damaged")).unwrap(), bytes);
}

/// What waits in the spool of an older version arrives after the upgrade.
#[tokio::test]
async fn the_files_of_an_older_version_are_drained() {
    let bench = Bench::new();
    let (path, whole, record) = five(&bench).await;
    let older = whole.chunks(record).flat_map(|record| [&record[4..8], &record[12..]].concat()).collect::<Vec<u8>>();
    fs::write(&path, older).unwrap();
    let Opened { spool, drain, .. } = bench.reopen().await;
    assert_eq!(spool.depth(), 5);
    bench.drain(&spool, drain).await;
    assert_eq!(bench.taken.targets(), numbers(0..5));
}

#[tokio::test]
async fn many_calls_share_one_synchronisation() {
    let bench = Bench::new();
    let Opened { spool, .. } = bench.open(DEFAULT_BYTES);
    let calls = (0..5000).map(|number| {
        let mut place = spool.reserve(1).unwrap();
        place.end(&entry(number, Phase::Outcome), Durability::Synchronised)
    });
    let written = futures::future::join_all(calls).await;
    assert!(written.into_iter().all(|written| written == Ok(Ok(()))));
    assert_eq!(spool.depth(), 5000);
}

#[tokio::test]
async fn a_history_that_comes_back_gets_everything_and_no_two_processes_share_a_spool() {
    let bench = Bench::new();
    bench.taken.closed.store(true, Ordering::SeqCst);
    let Opened { spool, drain, .. } = bench.open(DEFAULT_BYTES);
    let stop = CancellationToken::new();
    let running = tokio::spawn(drain.run(bench.taken.clone(), Arc::new(SystemClock), ASK, stop.clone()));
    for number in 0..50 {
        put(&spool, number).await;
    }
    assert!(matches!(bench.try_open(DEFAULT_BYTES), Err(SpoolError::InUse { .. })));
    assert_eq!(spool.depth(), 50);
    bench.taken.closed.store(false, Ordering::SeqCst);
    until(|| spool.depth() == 0).await;
    stop.cancel();
    running.await.unwrap();
    let targets: BTreeSet<_> = bench.taken.targets().into_iter().collect();
    assert_eq!((targets.len(), bench.taken.targets().len()), (50, 50));
}

/// An entry of one of three groups.
async fn put_of(spool: &Spool, group: &str, number: u64) {
    let operation = entry(number, Phase::Outcome).operation.unwrap();
    spool.reserve(1).unwrap().end(&operation::entry(group, operation), Durability::Synchronised).await.unwrap().unwrap();
}

/// A log that takes nothing holds up nobody else's entries; its own wait on the disk, over restarts, and arrive in their order.
#[tokio::test]
async fn entries_of_a_log_that_takes_none_wait_apart() {
    let bench = Bench::new();
    bench.taken.refused.lock().unwrap().insert("acme".to_owned());
    let targets = |group: &str| -> Vec<String> {
        let entries = bench.taken.entries.lock().unwrap();
        entries.iter().filter(|entry| entry.group == group).map(|entry| entry.operation.as_ref().unwrap().target.clone()).collect()
    };
    for round in 0..2_u64 {
        let Opened { spool, drain, .. } = bench.reopen().await;
        assert_eq!(spool.depth(), round * 200, "what waits apart is counted");
        let stop = CancellationToken::new();
        let running = tokio::spawn(drain.run(bench.taken.clone(), Arc::new(SystemClock), ASK, stop.clone()));
        for number in round * 600..(round + 1) * 600 {
            put_of(&spool, ["acme", "other", ""][usize::try_from(number % 3).unwrap()], number).await;
        }
        until(|| spool.depth() == (round + 1) * 200).await;
        assert_eq!((targets("acme").len(), targets("other").len()), (0, usize::try_from((round + 1) * 200).unwrap()));
        assert_eq!(spool.shared.metrics.apart.get(), i64::try_from((round + 1) * 200).unwrap());
        stop.cancel();
        running.await.unwrap();
    }
    bench.taken.refused.lock().unwrap().clear();
    let Opened { spool, drain, .. } = bench.reopen().await;
    put_of(&spool, "acme", 1200).await;
    bench.drain(&spool, drain).await;
    let wanted: Vec<String> = (0..=1200).filter(|number| number % 3 == 0).map(|number| number.to_string()).collect();
    assert_eq!(targets("acme"), wanted, "in their order, once");
    let left: Vec<_> = fs::read_dir(bench.folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.iter().all(|path| path.extension().is_none_or(|extension| extension != "apart")), "{left:?}");
}

/// Nothing is lost where there is no more room apart: the spool waits then, as it does for a history that is away.
#[tokio::test]
async fn what_has_no_room_apart_waits_in_the_spool() {
    let bench = Bench::new();
    bench.taken.refused.lock().unwrap().insert("acme".to_owned());
    let Opened { spool, drain, .. } = bench.open(0);
    let mut count = 0;
    let stop = CancellationToken::new();
    let running = tokio::spawn(drain.run(bench.taken.clone(), Arc::new(SystemClock), ASK, stop.clone()));
    while let Ok(mut place) = spool.reserve(1) {
        place.end(&entry(count, Phase::Outcome), Durability::Written).await.unwrap().unwrap();
        count += 1;
        assert!(count < 100_000);
    }
    assert_eq!(spool.depth(), count);
    bench.taken.refused.lock().unwrap().clear();
    until(|| spool.depth() == 0).await;
    stop.cancel();
    running.await.unwrap();
    assert_eq!(bench.taken.targets().len(), usize::try_from(count).unwrap());
}
