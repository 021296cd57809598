//! Who leads, while groups and devices are changed all the time: replicas of the operator's own binary that are ended, killed, stopped
//! and woken.
//!
//! Everything is judged by the apiserver's audit log. A process leads once in its life, so that in the order of the writes each
//! process has one stretch, and no two stretches touch.

use std::path::PathBuf;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::task::JoinHandle;
use tsujiban_api::{Device, Tenant};
use tsujiban_plane::SYSTEM;
use tsujiban_plane::audit::Write;
use tsujiban_plane::wait::until;

use crate::replica::Replica;
use crate::world::World;

const GROUPS: [&str; 4] = ["acme", "borealis", "cumulus", "dorado"];
/// Between two changes of the load. What is changed again within the controllers' debounce waits for a pause.
const PACE: Duration = Duration::from_millis(200);
/// What a replica may take from SIGTERM, or from SIGKILL, until another one writes.
const AFTER_TERM: SignedDuration = SignedDuration::from_secs(2);
const AFTER_KILL: SignedDuration = SignedDuration::from_secs(20);
const SOON: Duration = Duration::from_secs(60);

/// Three replicas, and somebody who changes things all the time.
struct Stage {
    replicas: Vec<Replica>,
    world: World,
    kubeconfig: PathBuf,
    started: usize,
    load: JoinHandle<()>,
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.load.abort();
    }
}

impl Stage {
    async fn new() -> Self {
        let world = World::new().await;
        let kubeconfig = world.plane.operator().await.unwrap().kubeconfig;
        let mut stage = Self { kubeconfig, replicas: Vec::new(), started: 0, load: tokio::spawn(async {}), world };
        for _ in 0..3 {
            stage.start_one();
        }
        for group in GROUPS {
            stage.world.tenant(group, json!({})).await;
        }
        for group in GROUPS {
            stage.world.tenant_is(group, "True").await;
            stage.world.site(group).await;
            stage.world.device(group, "r1", &format!("SN-{group}"), 10).await;
        }
        stage.load = tokio::spawn(change_things(stage.world.admin.clone()));
        stage
    }

    fn start_one(&mut self) {
        let name = format!("operator-{}", self.started);
        self.started += 1;
        self.replicas.push(Replica::start(&name, &self.kubeconfig, &self.world.endpoint, self.world.plane.dir()));
    }

    /// Takes the replica that leads out of the others.
    async fn leader(&mut self) -> Replica {
        let leases: Api<Lease> = Api::namespaced(self.world.admin.clone(), SYSTEM);
        let index = until("somebody leads and writes", SOON, || async {
            let holder = leases.get("tsujiban-operator").await?.spec.and_then(|spec| spec.holder_identity).unwrap_or_default();
            let last = self.writes().last().map(|write| write.agent.clone()).unwrap_or_default();
            Ok(self.replicas.iter().position(|replica| is_of(&holder, &replica.name) && is_of(&last, &replica.name)))
        });
        let index = index.await.unwrap();
        self.replicas.remove(index)
    }

    /// What operators wrote that came to something. The lease is what they quarrel about, and is left out.
    fn writes(&self) -> Vec<Write> {
        let writes = self.world.plane.audit.writes_of("system:serviceaccount:tsujiban-system:tsujiban-operator").unwrap();
        writes.into_iter().filter(|write| write.resource != "leases").collect()
    }

    /// Waits for the first write of another replica, and answers how long after `start` it was answered.
    async fn taken_over(&self, from: &Replica, start: Timestamp) -> SignedDuration {
        let another = |write: &Write| write.at > start && !is_of(&write.agent, &from.name);
        let first = until("another replica writes", SOON, || async { Ok(self.writes().into_iter().find(another)) }).await.unwrap();
        first.at.duration_since(start)
    }

    /// No two replicas ever wrote at once.
    fn check(&self) {
        let writes = self.writes();
        let mut stretches: Vec<&str> = writes.iter().map(|write| write.agent.as_str()).collect();
        stretches.dedup();
        let mut agents = stretches.clone();
        agents.sort_unstable();
        agents.dedup();
        assert_eq!(stretches.len(), agents.len(), "a replica wrote after another one had begun: {stretches:#?}");
        assert!(agents.iter().all(|agent| agent.starts_with("tsujiban-operator/") && agent.contains("operator-")), "{agents:?}");
    }
}

/// Whether an identity or a user agent is that of a pod.
fn is_of(text: &str, pod: &str) -> bool {
    text.contains(&format!("{pod}_"))
}

async fn change_things(client: Client) {
    let tenants: Api<Tenant> = Api::all(client.clone());
    for round in 0_usize.. {
        let group = GROUPS[round % GROUPS.len()];
        let patch = json!({"spec": {"displayName": format!("Group {group} {round}")}});
        tenants.patch(group, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
        let devices: Api<Device> = Api::namespaced(client.clone(), &format!("tn-{group}"));
        let patch = json!({"spec": {"connection": {"host": format!("172.20.1.{}", 10 + round % 200)}}});
        devices.patch("r1", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
        tokio::time::sleep(PACE).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_leads_at_any_time_and_another_takes_over_soon() {
    let mut stage = Stage::new().await;
    for _ in 0..5 {
        let mut old = stage.leader().await;
        let start = Timestamp::now();
        old.signal("TERM");
        let took = stage.taken_over(&old, start).await;
        eprintln!("after SIGTERM: {} ms", took.as_millis());
        assert!(took <= AFTER_TERM, "{took:?}");
        assert!(old.ended(SOON).await.success());
        stage.start_one();
    }
    for _ in 0..2 {
        let old = stage.leader().await;
        let start = Timestamp::now();
        old.signal("KILL");
        let took = stage.taken_over(&old, start).await;
        eprintln!("after SIGKILL: {} ms", took.as_millis());
        assert!(took <= AFTER_KILL, "{took:?}");
        stage.start_one();
    }
    // stopped as by a debugger, a hypervisor or a disk that hangs, and woken when another one leads already
    for _ in 0..3 {
        let mut old = stage.leader().await;
        let start = Timestamp::now();
        old.signal("STOP");
        let took = stage.taken_over(&old, start).await;
        eprintln!("after SIGSTOP: {} ms", took.as_millis());
        old.signal("CONT");
        assert!(!old.ended(SOON).await.success(), "it must notice and end");
        assert!(old.log().contains("the lease is lost"));
        stage.start_one();
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    stage.check();
    assert!(!stage.load.is_finished(), "the load itself never failed");
}
