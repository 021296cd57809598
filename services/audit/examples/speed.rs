use std::sync::Arc;
use std::time::Instant;
use tsujiban_audit::engine::*;

use tsujiban_audit::owner::Owner;
use tsujiban_core::clock::{Clock, SystemClock};
use tsujiban_database::{Database, Migrations};
use tsujiban_sealing::*;
#[global_allocator]
static ALLOC: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() {
    let args: Vec<usize> = std::env::args().skip(1).map(|a| a.parse().unwrap()).collect();
    let (flight, groups, total) = (args[0], args[1], args[2]);
    let dir = tempfile::tempdir_in("/work").unwrap();
    let db = Database::sqlite(&dir.path().join("h.db")).await.unwrap();
    db.migrate(&Migrations { sqlite: sqlx::migrate!("migrations/sqlite"), postgres: sqlx::migrate!("migrations/postgres") }).await.unwrap();
    let master = MasterKey::generate(&SystemRandom::new()).unwrap();
    let epoch = SealedEpochKey::generate(&master, &SystemRandom::new(), SystemClock.now()).unwrap();
    let engine = Engine::start(EngineParts {
        database: db.clone(), keyring: Arc::new(Keyring::new(master, &[epoch]).unwrap()), clock: Arc::new(SystemClock),
        random: Arc::new(SystemRandom::new()), folder: Some(dir.path().to_owned()),
    }).await.unwrap();
    let each = total / flight;
    let t = Instant::now();
    let mut set = tokio::task::JoinSet::new();
    for f in 0..flight {
        let engine = engine.clone();
        set.spawn(async move {
            let mut worst = 0u128;
            for n in 0..each {
                let k = f * each + n;
                let mut id = [0u8; 16];
                let h = (k as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                id[..8].copy_from_slice(&h.to_be_bytes()); id[8..].copy_from_slice(&(k as u64).to_be_bytes());
                let owner = Owner::Group(format!("group-{}", (h >> 20) as usize % groups).parse().unwrap());
                let a = Addition { owner, id, operation: id, phase: Phase::Outcome, time: SystemClock.now(), body: vec![b'x'; 300] };
                let t = Instant::now();
                let r = engine.append(vec![a]).await.unwrap();
                assert!(!r[0].is_duplicate);
                worst = worst.max(t.elapsed().as_micros());
            }
            worst
        });
    }
    let mut worst = 0;
    while let Some(w) = set.join_next().await { worst = worst.max(w.unwrap()); }
    let s = t.elapsed().as_secs_f64();
    println!("flight {flight} groups {groups}: {} entries in {s:.2} s = {:.0}/s worst {worst} us, db {} MiB", each * flight, (each * flight) as f64 / s, std::fs::metadata(dir.path().join("h.db")).unwrap().len() >> 20);
}
