//! Random combinations of losses, made up from a seed, under load. Every input here leaves a copy somewhere, so that nothing may be lost afterwards
//! but the contents of objects that were damaged. When the history's volume goes, only those who added entries have what no root list covers yet; when
//! theirs goes in the same minutes, nobody has it, and that has to be said.

use std::time::{Duration, Instant};
use tsujiban_core::workload::{Service, Workload};

use anyhow::{Result, ensure};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tsujiban_core::clock::{Clock as _, SystemClock};
use tsujiban_e2e::stage::Stage;
use tsujiban_e2e::wait::until;

use crate::load::Load;
use crate::node::scale;
use crate::oracle::Lapse;
use crate::row::{Damage, Loses, Pick, Step, VolumeLoss};
use crate::scene::Scene;

const NET: u8 = 140;
/// How long everything has to come to rest afterwards.
const REST: Duration = Duration::from_mins(10);
/// How many seconds lie between two losses at most.
const BETWEEN_S: u64 = 40;
/// What was added so long before the history's volume went may be in no root list: they are put once a minute.
const UNCOVERED: SignedDuration = SignedDuration::from_secs(120);
/// How long it takes until what was kept is there again: those who keep it ask once a minute, and the service may be away meanwhile.
const AGAIN: SignedDuration = SignedDuration::from_secs(240);

/// What may happen; each is a whole of its own, after which the next may come.
const LOSSES: &[&[Step]] = &[
    &[Step::Kill(Workload::Service(Service::Backup))],
    &[Step::Kill(Workload::Service(Service::Audit))],
    &[Step::Kill(Workload::Operator)],
    &[Step::Kill(Workload::Service(Service::Audit)), Step::Volume(Service::Audit, VolumeLoss::Wal)],
    &[Step::Kill(Workload::Service(Service::Backup)), Step::Volume(Service::Backup, VolumeLoss::Wal)],
    &[Step::Volume(Service::Backup, VolumeLoss::Lost)],
    &[Step::Volume(Service::Audit, VolumeLoss::Lost)],
    &[Step::Object(Pick::Oldest, Damage::Flip)],
    &[Step::Object(Pick::Newest, Damage::Cut)],
    &[Step::Object(Pick::KeyTable, Damage::Remove)],
    &[Step::Object(Pick::KeyTable, Damage::Flip)],
    &[Step::Object(Pick::RootList, Damage::Flip)],
    &[Step::Stop(Service::Audit), Step::Wait(45), Step::Start(Service::Audit)],
    &[Step::Stop(Service::Backup), Step::Wait(20), Step::Start(Service::Backup)],
    &[Step::StopStorage, Step::Wait(40), Step::StartStorage],
    &[Step::Volume(Service::Audit, VolumeLoss::Unlinked), Step::Wait(60), Step::Kill(Workload::Service(Service::Audit))],
    &[Step::Declare(5), Step::BackUp],
    &[Step::Sites(4)],
];

/// Numbers that a seed gives, always the same ones (SplitMix64).
#[derive(Debug, Clone)]
pub struct Numbers(u64);

impl Numbers {
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Below `end`, which is above 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}

/// What happens by a seed, in order: after how many seconds, and which loss.
fn plan(seed: u64) -> impl Iterator<Item = (u64, &'static [Step])> {
    let (mut numbers, count) = (Numbers::new(seed), u64::try_from(LOSSES.len()).unwrap_or(1));
    std::iter::from_fn(move || {
        let (pause, which) = (5 + numbers.below(BETWEEN_S), numbers.below(count));
        Some((pause, LOSSES.get(usize::try_from(which).ok()?).copied()?))
    })
}

pub async fn run(stage: &'static Stage, seed: u64, time: Duration) -> Result<()> {
    // the id of a group that was erased is not free again for a long time
    let mut scene = Scene::begin(stage, &format!("random{}", std::process::id() % 10_000), NET).await?;
    let load = Load::start(stage, &scene.group.name, scene.oracle.clone());
    let begin = Instant::now();
    let (mut done, mut volumes) = (0, Vec::new());
    for (pause, loss) in plan(seed) {
        if begin.elapsed() >= time {
            break;
        }
        tokio::time::sleep(Duration::from_secs(pause)).await;
        println!("[{:4} s] {loss:?}", begin.elapsed().as_secs());
        for step in loss {
            if let Err(error) = scene.act(*step).await {
                // such as an object that is gone already: the combination goes on
                println!("         {step:?}: {error:#}");
            }
            if let Step::Volume(service, VolumeLoss::Lost | VolumeLoss::Wal | VolumeLoss::Unlinked) = step {
                volumes.push((*service, SystemClock.now()));
            }
        }
        done += 1;
    }
    stage.component("start", "s3").await?;
    for service in [Service::Backup, Service::Audit] {
        scale(stage, service, 1).await?;
    }
    let (mut oracle, answered) = load.stop().await?;
    oracle.lapsed(lapses(&volumes, &scene.entries("--platform").await?));
    ensure!(answered > 0, "no call was answered well: this is no test");
    println!("seed {seed}: {done} losses, {answered} calls answered well");
    let mut last = Vec::new();
    let rest = Instant::now();
    while rest.elapsed() < REST {
        last = match scene.found().await {
            Ok(found) => oracle.wrong(&found, Loses::Contents),
            Err(error) => vec![format!("it cannot be read: {error:#}")],
        };
        if last.is_empty() {
            until("both services are ready", REST, || async {
                for service in [Service::Backup, Service::Audit] {
                    stage.rolled_out(&format!("statefulset/{}", service.row().host)).await?;
                }
                Ok(Some(()))
            })
            .await?;
            return scene.end().await;
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    anyhow::bail!("seed {seed}, after {done} losses: {}", last.join("; "))
}

/// Of which times nobody may have what was added, and whether the platform's history says that spools began since.
fn lapses(lost: &[(Service, Timestamp)], platform: &[Value]) -> Vec<Lapse> {
    let begun: Vec<Timestamp> = platform
        .iter()
        .filter(|entry| entry["reason"].as_str().is_some_and(|reason| reason.starts_with("SPOOL_")))
        .filter_map(|entry| entry["appendedAt"].as_str()?.parse().ok())
        .collect();
    let of = |service| lost.iter().filter(move |(of, _)| *of == service).map(|(_, at)| *at);
    of(Service::Audit)
        .map(|at| {
            let other = of(Service::Backup).find(|other| at.duration_since(*other).abs() <= AGAIN);
            let since = other.map_or(at, |other| other.max(at));
            Lapse { from: at - UNCOVERED, to: at, of_all: other.is_some(), is_named: begun.iter().any(|begun| *begun >= since - UNCOVERED) }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_added_before_both_volumes_went_is_nobodys() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let platform = [json!({"reason": "SPOOL_LOST", "appendedAt": at(1130).to_string()})];
        let lapses =
            |lost: &[(Service, Timestamp)]| lapses(lost, &platform).into_iter().map(|it| (it.of_all, it.is_named)).collect::<Vec<_>>();
        assert_eq!(lapses(&[(Service::Audit, at(1000)), (Service::Backup, at(1120))]), [(true, true)]);
        assert_eq!(lapses(&[(Service::Backup, at(900)), (Service::Audit, at(1000))]), [(true, true)]);
        assert_eq!(lapses(&[(Service::Audit, at(1000)), (Service::Backup, at(2000))]), [(false, true)]);
        assert_eq!(lapses(&[(Service::Audit, at(2000)), (Service::Backup, at(2010))]), [(true, false)]);
    }

    #[test]
    fn a_seed_gives_the_same_losses_again_and_in_time_all_of_them() {
        let of = |seed| plan(seed).take(300).map(|(pause, loss)| format!("{pause} {loss:?}")).collect::<Vec<_>>();
        assert_eq!(of(7), of(7));
        assert_ne!(of(7), of(8));
        let kinds: std::collections::BTreeSet<_> = plan(7).take(300).map(|(_, loss)| format!("{loss:?}")).collect();
        assert_eq!(kinds.len(), LOSSES.len());
    }
}
