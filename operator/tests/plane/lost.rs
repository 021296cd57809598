//! What the operator never heard of, or heard too late: once the world is well again, everything is as declared within a minute, and
//! nothing that lives was deleted on the way.
//!
//! `TSUJIBAN_FAULT_SEED` is the first seed of the mixed faults, by default 1; `TSUJIBAN_FAULT_SEEDS` is how many are run, by default 1.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use tsujiban_plane::fault::{Call, EventFault, Faults, Mode, Plan};
use tsujiban_plane::wait::until;
use tsujiban_proto::lifecycle::v1::GroupState;

use crate::crashes::every_delete_names_its_object;
use crate::operator::Operator;
use crate::snapshot::{Identities, Snapshot, snapshot};
use crate::world::{SOON, World};

/// How soon after the end of the faults everything is as declared.
const HEALED: Duration = Duration::from_mins(1);
/// How long the mixed faults of a seed last, and how long it is between two things that an administrator does.
const TROUBLE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(200);

/// Which events do not arrive: resource, and the group that they are about.
type Losses = Arc<Mutex<Vec<(&'static str, &'static str, EventFault)>>>;

fn script(losses: &Losses) -> Mode {
    let losses = Arc::clone(losses);
    Mode::Events(Arc::new(move |call: &Call, event: &Value| {
        let metadata = &event["object"]["metadata"];
        let named = |key: &str| metadata[key].as_str().unwrap_or_default().trim_start_matches("tn-").to_owned();
        let losses = losses.lock().unwrap();
        let fault = losses
            .iter()
            .find(|(resource, group, _)| call.resource == *resource && (named("name") == *group || named("namespace") == *group));
        fault.map_or(EventFault::None, |(.., fault)| *fault)
    }))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_watch_kept_back() {
    let world = World::new().await;
    let losses = Losses::default();
    let faults = Faults::new(script(&losses));
    let access = world.plane.operator().await.unwrap();
    let _operator = Operator::start(faults.client(&access).unwrap(), &world.endpoint);
    let groups = ["older", "child", "gone", "silent", "missed"];
    for group in groups {
        world.tenant(group, json!({})).await;
    }
    for group in groups {
        world.tenant_is(group, "True").await;
        world.site(group).await;
        world.device(group, "r1", &format!("SN-{group}"), 10).await;
        world.device_is(group, "r1", "True").await;
    }
    let place = async |group: &str| world.namespaces().get(&format!("tn-{group}")).await;
    let before = place("older").await.unwrap();
    let lives = world.backup.groups();

    // nothing more of these arrives
    let all = EventFault::Dropped;
    *losses.lock().unwrap() =
        vec![("networkpolicies", "child", all), ("namespaces", "gone", all), ("devices", "silent", EventFault::Silent)];
    // a Tenant of an older uid stays in the cache: it is let go, and of that nothing arrives, nor of the one that comes after it
    world.tenants().delete("older", &DeleteParams::default()).await.unwrap();
    let lost_older = Arc::clone(&losses);
    until("Tenant older is gone", SOON, || async {
        let found = world.tenants().get_opt("older").await?;
        if found.as_ref().is_some_and(|tenant| tenant.metadata.deletion_timestamp.is_some()) {
            let mut losses = lost_older.lock().unwrap();
            if !losses.iter().any(|(resource, group, _)| (*resource, *group) == ("tenants", "older")) {
                losses.push(("tenants", "older", all));
            }
        }
        Ok(found.is_none().then_some(()))
    })
    .await
    .unwrap();
    losses.lock().unwrap().push(("tenants", "older", all));
    losses.lock().unwrap().push(("tenants", "missed", all));
    world.tenant("older", json!({})).await;
    // a change of which nothing arrives
    world.tenant("missed", json!({"network": {"deviceCIDRs": ["172.20.9.0/24"]}})).await;
    // a change on a watch that says nothing any more
    world.device("silent", "r1", "SN-silent", 11).await;
    // a child that goes, and a namespace that goes, behind the operator's back
    let policies: Api<NetworkPolicy> = Api::namespaced(access.client().unwrap(), "tn-child");
    let names: Vec<String> = policies.list(&ListParams::default()).await.unwrap().iter().map(ResourceExt::name_any).collect();
    for name in &names {
        policies.delete(name, &DeleteParams::default()).await.unwrap();
    }
    let doomed = place("gone").await.unwrap().uid();
    world.namespaces().delete("tn-gone", &DeleteParams::default()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await; // what is lost is sent by now

    faults.heal();
    let healed = Instant::now();
    for group in groups {
        until(&format!("Tenant {group} is as declared"), HEALED, || async { is_ready(&world, group).await }).await.unwrap();
    }
    until("what went is there again, and what changed is seen", HEALED.saturating_sub(healed.elapsed()), || async {
        let there: BTreeSet<String> = policies.list(&ListParams::default()).await?.iter().map(ResourceExt::name_any).collect();
        anyhow::ensure!(names.iter().all(|name| there.contains(name)), "tn-child has {there:?} of {names:?}");
        let (missed, _) = snapshot(&world, "missed").await?;
        anyhow::ensure!(missed.objects["cronjobs/device-backup"].contains("172.20.9.0/24"), "the change of missed was not seen");
        let gone = place("gone").await?;
        anyhow::ensure!(gone.metadata.deletion_timestamp.is_none() && gone.uid() != doomed, "tn-gone is still going");
        let device = world.devices("silent").get("r1").await?;
        let seen = device.status.as_ref().and_then(|status| status.observed_generation);
        anyhow::ensure!(seen == device.metadata.generation, "the change of device silent/r1 was not seen");
        Ok(Some(()))
    })
    .await
    .unwrap();
    println!("healed {:.0} s after the last fault: {:?}", healed.elapsed().as_secs_f64(), faults.done());
    assert!(healed.elapsed() < HEALED, "healed only after {:?}", healed.elapsed());
    assert_eq!(place("older").await.unwrap().uid(), before.uid());
    assert_eq!(world.backup.groups(), lives, "every group goes on under its incarnation, and nothing was erased");
    every_delete_names_its_object(&faults.sent());
    let done = faults.done();
    assert!(done["event dropped"] > 5 && done["watch silent"] == 1, "{done:?}");
}

/// Whether a Tenant is ready in its newest generation, and its namespace is its own.
async fn is_ready(world: &World, group: &str) -> anyhow::Result<Option<()>> {
    let tenant = world.tenants().get(group).await?;
    let status = tenant.status.clone().unwrap_or_default();
    let ready = status.conditions.iter().any(|it| it.type_ == "Ready" && it.status == "True");
    anyhow::ensure!(ready && status.observed_generation == tenant.metadata.generation, "status {status:?}");
    let namespace = world.namespaces().get(&format!("tn-{group}")).await?;
    anyhow::ensure!(namespace.labels().get("tsujiban.dev/tenant-uid") == tenant.metadata.uid.as_ref(), "tn-{group} is another one's");
    Ok(Some(()))
}

/// An administrator who never rests, and what they meant.
struct Administrator<'a> {
    world: &'a World,
    dice: u64,
    /// Groups that were ever deleted with deletionPolicy Erase.
    erased: BTreeSet<String>,
    /// Devices that were ever deleted.
    removed: BTreeSet<String>,
    /// How a group went last.
    last: BTreeMap<String, GroupState>,
}

impl Administrator<'_> {
    fn roll(&mut self, sides: u64) -> u64 {
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.dice >> 33) % sides
    }

    /// Does something to one of the groups. The first two are never erased.
    async fn act(&mut self, groups: &[String]) {
        let pick = usize::try_from(self.roll(4)).unwrap();
        let group = &groups[pick];
        let what = self.roll(10);
        let tenants = self.world.tenants();
        let tenant = tenants.get_opt(group).await.unwrap();
        let Some(tenant) = tenant else {
            self.world.backup.free_id(group); // as if its time had passed
            self.last.remove(group);
            self.world.tenant(group, json!({})).await;
            return;
        };
        if tenant.metadata.deletion_timestamp.is_some() {
            return;
        }
        let devices = self.world.devices(group);
        let device = devices.get_opt("r1").await.unwrap();
        match what {
            0 | 1 if pick >= 2 => {
                self.erased.insert(group.clone());
                self.last.insert(group.clone(), GroupState::Erased);
                self.world.tenant(group, json!({"deletionPolicy": "Erase"})).await;
                tenants.delete(group, &DeleteParams::default()).await.unwrap();
            }
            2 => {
                self.last.insert(group.clone(), GroupState::Retained);
                self.world.tenant(group, json!({"deletionPolicy": "Retain"})).await;
                tenants.delete(group, &DeleteParams::default()).await.unwrap();
            }
            3 | 4 => drop(self.world.tenant(group, json!({"plan": if self.roll(2) == 0 { "Free" } else { "Prime" }})).await),
            5 if device.is_some() => {
                self.removed.extend(device.and_then(|device| device.uid()));
                devices.delete("r1", &DeleteParams::default()).await.unwrap();
            }
            _ => self.try_device(group).await,
        }
    }

    /// Declares Site and Device, if the namespace is there.
    async fn try_device(&self, group: &str) {
        let namespace = self.world.namespaces().get_opt(&format!("tn-{group}")).await.unwrap();
        let device = self.world.devices(group).get_opt("r1").await.unwrap();
        let going = device.is_some_and(|device| device.metadata.deletion_timestamp.is_some());
        if namespace.is_some_and(|namespace| namespace.metadata.deletion_timestamp.is_none()) && !going {
            self.world.site(group).await;
            self.world.device(group, "r1", &format!("SN-{group}"), 10).await;
        }
    }
}

fn number(variable: &str) -> u64 {
    std::env::var(variable).map_or(1, |text| text.parse().unwrap_or_else(|_| panic!("{variable} is not a number: {text}")))
}

#[tokio::test(flavor = "multi_thread")]
async fn mixed_faults_heal_within_a_minute() {
    let world = World::new().await;
    let access = world.plane.operator().await.unwrap();
    let wanted = reference(&world, access.client().unwrap()).await;
    let first = number("TSUJIBAN_FAULT_SEED");
    for seed in first..first + number("TSUJIBAN_FAULT_SEEDS") {
        println!("seed {seed} (TSUJIBAN_FAULT_SEED={seed} runs it alone)");
        let faults = Faults::new(Mode::Mixed(Plan::new(seed)));
        let operator = Operator::start(faults.client(&access).unwrap(), &world.endpoint);
        let groups: Vec<String> = (0..4).map(|number| format!("s{seed}g{number}")).collect();
        let mut staff =
            Administrator { world: &world, dice: seed, erased: BTreeSet::new(), removed: BTreeSet::new(), last: BTreeMap::new() };
        let mut known: BTreeMap<&String, Identities> = BTreeMap::new();
        let start = Instant::now();
        while start.elapsed() < TROUBLE {
            staff.act(&groups).await;
            for group in &groups[..2] {
                let (_, now) = snapshot(&world, group).await.unwrap();
                living(group, known.get(group), &now, staff.removed.is_empty());
                known.insert(group, now);
            }
            tokio::time::sleep(PAUSE).await;
        }
        for group in &groups {
            let tenant = world.tenants().get_opt(group).await.unwrap();
            if tenant.is_some_and(|tenant| tenant.metadata.deletion_timestamp.is_none()) {
                world.tenant(group, json!({})).await;
            }
        }
        let done = faults.done();
        faults.heal();
        let healed = Instant::now();
        for group in &groups {
            let left = HEALED.saturating_sub(healed.elapsed());
            until(&format!("group {group} is as declared"), left, || as_declared(&staff, group, &wanted)).await.unwrap();
        }
        println!("seed {seed}: healed after {:.0} s, faults {done:?}", healed.elapsed().as_secs_f64());
        assert!(done.len() >= 8, "too few kinds of faults: {done:?}");
        for group in &groups[..2] {
            let (_, now) = snapshot(&world, group).await.unwrap();
            living(group, known.get(group), &now, staff.removed.is_empty());
        }
        operator.end().await;
        every_delete_names_its_object(&faults.sent());
        for sent in faults.sent().iter().filter(|sent| sent.call.method == http::Method::DELETE && sent.is_done()) {
            let group = sent.call.group().unwrap_or_default();
            assert!(sent.call.resource != "namespaces" || staff.erased.contains(group), "deleted a living namespace: {}", sent.call);
        }
        for life in world.backup.groups().iter().filter(|life| groups.contains(&life.name)) {
            assert!(life.state != GroupState::Erased || staff.erased.contains(&life.name), "erased a living group: {life:?}");
            let strangers: Vec<_> = life.erased_devices.iter().filter(|(_, uid)| !staff.removed.contains(uid)).collect();
            assert!(strangers.is_empty(), "erased devices that nobody deleted: {strangers:?}");
        }
    }
}

/// The namespace of a group that is never erased stays the same; so does the key of a device, while no device was deleted.
fn living(group: &str, before: Option<&Identities>, now: &Identities, keeps_keys: bool) {
    let Some(before) = before else { return };
    let lost = before.0.keys().filter(|name| !now.0.contains_key(*name)).cloned();
    let lost: Vec<String> = before.replaced(now).into_iter().chain(lost).filter(|name| keeps_keys || name == "namespace").collect();
    assert!(lost.is_empty(), "{group} lost {lost:?}");
}

/// How a group looks for which nothing ever went wrong: without its device, and with it.
async fn reference(world: &World, client: kube::Client) -> [Snapshot; 2] {
    let operator = Operator::start(client, &world.endpoint);
    for group in ["bare", "full"] {
        world.tenant(group, json!({})).await;
        world.tenant_is(group, "True").await;
        world.site(group).await;
    }
    world.device("full", "r1", "SN-full", 10).await;
    world.device_is("full", "r1", "True").await;
    until("the Tenant counts its device", SOON, || async {
        let status = world.tenants().get("full").await?.status.unwrap_or_default();
        Ok((status.devices == Some(1)).then_some(()))
    })
    .await
    .unwrap();
    let mut found = Vec::new();
    for group in ["bare", "full"] {
        found.push(comparable(snapshot(world, group).await.unwrap().0));
    }
    operator.end().await;
    found.try_into().unwrap()
}

/// Sites and lives are not compared: a group may have no Site yet, and lives that ended.
fn comparable(mut snapshot: Snapshot) -> Snapshot {
    snapshot.objects.retain(|name, _| !name.starts_with("life/") && !name.starts_with("sites/"));
    snapshot
}

async fn as_declared(staff: &Administrator<'_>, group: &str, wanted: &[Snapshot; 2]) -> anyhow::Result<Option<()>> {
    let world = staff.world;
    let life = world.backup.group(group);
    let state = life.as_ref().map(|life| life.state);
    if world.tenants().get_opt(group).await?.is_none() {
        let namespace = world.namespaces().get_opt(&format!("tn-{group}")).await?;
        let is = (namespace.is_some(), state);
        // a group that nobody declared, or that went before it was prepared, left nothing
        let is_so = match staff.last.get(group) {
            Some(GroupState::Erased) => matches!(is, (false, None | Some(GroupState::Erased))),
            Some(GroupState::Retained) => matches!(is, (true, Some(GroupState::Retained)) | (_, None)),
            _ => is == (false, None),
        };
        anyhow::ensure!(is_so, "went as {:?}, and is {is:?}", staff.last.get(group));
        return Ok(Some(()));
    }
    let (found, _) = snapshot(world, group).await?;
    let has_device = found.objects.contains_key("devices/r1");
    let differences = wanted[usize::from(has_device)].differences(&comparable(found));
    anyhow::ensure!(differences.is_empty(), "{}", differences.join("\n"));
    anyhow::ensure!(state == Some(GroupState::Living), "its life is {life:?}");
    Ok(Some(()))
}
