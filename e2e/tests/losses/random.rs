//! Random combinations of losses, made up from a seed, under load. Every input here leaves a copy somewhere, so that nothing may be named as
//! lost afterwards but the contents of objects that were damaged.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tsujiban_e2e::stage::Stage;
use tsujiban_e2e::wait::until;

use crate::load::Load;
use crate::node::scale;
use crate::row::{Damage, Loses, Pick, Service, Step, VolumeLoss, Workload};
use crate::scene::Scene;

const NET: u8 = 140;
/// How long everything has to come to rest afterwards.
const REST: Duration = Duration::from_mins(10);
/// How many seconds lie between two losses at most.
const BETWEEN_S: u64 = 40;

/// What may happen; each is a whole of its own, after which the next may come.
const LOSSES: &[&[Step]] = &[
    &[Step::Kill(Workload::Backup)],
    &[Step::Kill(Workload::Audit)],
    &[Step::Kill(Workload::Operator)],
    &[Step::Kill(Workload::Audit), Step::Volume(Service::Audit, VolumeLoss::Wal)],
    &[Step::Kill(Workload::Backup), Step::Volume(Service::Backup, VolumeLoss::Wal)],
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
    &[Step::Volume(Service::Audit, VolumeLoss::Unlinked), Step::Wait(60), Step::Kill(Workload::Audit)],
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
    let mut done = 0;
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
        }
        done += 1;
    }
    stage.component("start", "s3").await?;
    for service in [Service::Backup, Service::Audit] {
        scale(stage, service, 1).await?;
    }
    let (oracle, answered) = load.stop().await?;
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
                    stage.rolled_out(&format!("statefulset/{}", service.name())).await?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_losses_again_and_in_time_all_of_them() {
        let of = |seed| plan(seed).take(300).map(|(pause, loss)| format!("{pause} {loss:?}")).collect::<Vec<_>>();
        assert_eq!(of(7), of(7));
        assert_ne!(of(7), of(8));
        let kinds: std::collections::BTreeSet<_> = plan(7).take(300).map(|(_, loss)| format!("{loss:?}")).collect();
        assert_eq!(kinds.len(), LOSSES.len());
    }
}
