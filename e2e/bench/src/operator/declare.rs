//! What is declared, and what became of it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::PartialObjectMeta;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tsujiban_api::{Device, Site, Tenant};

/// How many declare at the same time.
const AT_ONCE: usize = 12;
/// Every how-manieth object is changed by [`touch`].
const TOUCHED: u32 = 10;

/// How long nothing may come about.
const PATIENCE: Duration = Duration::from_mins(10);

/// How much is declared.
#[derive(Debug, Clone, Copy, Default)]
pub struct Size {
    pub tenants: u32,
    pub devices: u32,
}

impl Size {
    pub fn total(self) -> usize {
        usize::try_from(self.tenants + self.devices).unwrap_or(usize::MAX)
    }

    /// All tenants have the same number of devices.
    fn devices_each(self) -> u32 {
        self.devices.checked_div(self.tenants).unwrap_or_default()
    }
}

/// Declares what lies between two sizes: Tenants, and in each one Site and its Devices as soon as the namespace is there.
pub async fn declare(admin: &Client, from: Size, to: Size) -> Result<()> {
    let (there, namespaces) = mpsc::unbounded_channel();
    let following = tokio::spawn(follow(admin.clone(), from.tenants..to.tenants, there));
    let tenants = stream::iter(from.tenants..to.tenants).map(|number| tenant(admin, number)).buffer_unordered(AT_ONCE);
    let members = UnboundedReceiverStream::new(namespaces).map(|number| members(admin, number, to.devices_each()));
    let (tenants, members) = tokio::join!(tenants.try_collect::<Vec<()>>(), members.buffer_unordered(AT_ONCE).try_collect::<Vec<()>>());
    tenants.and(members)?;
    following.await?
}

/// Tells of each group's namespace once it is there. Ends when all are.
async fn follow(admin: Client, groups: Range<u32>, there: mpsc::UnboundedSender<u32>) -> Result<()> {
    let api: Api<PartialObjectMeta<Namespace>> = Api::all(admin);
    let mut namespaces = std::pin::pin!(watcher(api, watcher::Config::default()).default_backoff().applied_objects());
    let mut missing: BTreeMap<String, u32> = groups.map(|number| (format!("tn-{}", name(number)), number)).collect();
    while !missing.is_empty() {
        let namespace = timeout(PATIENCE, namespaces.next()).await.context("no namespace was made for ten minutes")?;
        if let Some(number) = missing.remove(&namespace.context("the watch on namespaces ended")??.name_any()) {
            there.send(number)?;
        }
    }
    Ok(())
}

fn name(number: u32) -> String {
    format!("g{number:04}")
}

/// A network of its own for each group, 10.64.0.0 to 10.127.255.0, without its last number.
fn net(number: u32) -> String {
    format!("10.{}.{}", 64 + number / 256, number % 256)
}

async fn tenant(admin: &Client, number: u32) -> Result<()> {
    let (name, net) = (name(number), net(number));
    let tenant: Tenant = serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {
            "displayName": format!("Group {number}"), "plan": "Prime", "contact": {"email": "a@example.co.jp"},
            "owners": [{"kind": "User", "name": format!("owner@{name}.example.co.jp")}],
            "network": {"deviceCIDRs": [format!("{net}.0/24")]},
        },
    }))?;
    Api::<Tenant>::all(admin.clone()).create(&PostParams::default(), &tenant).await?;
    Ok(())
}

async fn members(admin: &Client, number: u32, devices: u32) -> Result<()> {
    let (namespace, net) = (format!("tn-{}", name(number)), net(number));
    let site: Site = serde_json::from_value(json!({"metadata": {"name": "hq"}, "spec": {"displayName": "HQ"}}))?;
    Api::<Site>::namespaced(admin.clone(), &namespace).create(&PostParams::default(), &site).await?;
    let api: Api<Device> = Api::namespaced(admin.clone(), &namespace);
    for device in 0..devices {
        let declared: Device = serde_json::from_value(json!({
            "metadata": {"name": format!("router-{device:02}")},
            "spec": {
                "siteRef": {"name": "hq"}, "serialNumber": format!("SN-{number:04}-{device:02}"), "driver": "Frr",
                "connection": {"host": format!("{net}.{}", 10 + device)},
            },
        }))?;
        api.create(&PostParams::default(), &declared).await?;
    }
    Ok(())
}

/// Changes every tenth Tenant, and a Device in each group. Answers how many objects that were.
pub async fn touch(admin: &Client, size: Size) -> Result<usize> {
    let changes = stream::iter(0..size.tenants).map(|number| async move {
        let params = PatchParams::default();
        let api: Api<Device> = Api::namespaced(admin.clone(), &format!("tn-g{number:04}"));
        api.patch("router-00", &params, &Patch::Merge(json!({"spec": {"connection": {"port": 2222}}}))).await?;
        if number % TOUCHED != 0 {
            return Ok::<usize, anyhow::Error>(1);
        }
        let patch = Patch::Merge(json!({"spec": {"displayName": "Changed"}}));
        Api::<Tenant>::all(admin.clone()).patch(&format!("g{number:04}"), &params, &patch).await?;
        Ok(2)
    });
    Ok(changes.buffer_unordered(AT_ONCE).try_collect::<Vec<usize>>().await?.into_iter().sum())
}

/// What is known of one object.
#[derive(Debug, Clone, Copy)]
pub struct State {
    pub is_ready: bool,
    /// Whether the operator has seen the newest generation.
    pub is_observed: bool,
    /// Of a Tenant: whether its owners were asked about. That is said once, some minutes after many were declared.
    pub is_asked_about: bool,
}

/// What has become of every Tenant and every Device, as watches tell it: to list them again and again would keep the apiserver busy with that.
pub struct States {
    tenants: Arc<Mutex<BTreeMap<String, State>>>,
    devices: Arc<Mutex<BTreeMap<String, State>>>,
    _watches: JoinSet<Result<()>>,
}

impl States {
    pub fn follow(admin: &Client) -> Self {
        let (tenants, devices) = (Arc::default(), Arc::default());
        let mut watches = JoinSet::new();
        watches.spawn(follow_states::<Tenant>(admin.clone(), Arc::clone(&tenants)));
        watches.spawn(follow_states::<Device>(admin.clone(), Arc::clone(&devices)));
        Self { tenants, devices, _watches: watches }
    }

    pub fn tenants(&self) -> Vec<State> {
        lock(&self.tenants).values().copied().collect()
    }

    pub fn all(&self) -> Vec<State> {
        let mut all = self.tenants();
        all.extend(lock(&self.devices).values());
        all
    }
}

fn lock<T>(states: &Mutex<T>) -> MutexGuard<'_, T> {
    states.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn follow_states<K>(admin: Client, states: Arc<Mutex<BTreeMap<String, State>>>) -> Result<()>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + Serialize + serde::de::DeserializeOwned + Send + 'static,
{
    let mut objects = std::pin::pin!(watcher(Api::<K>::all(admin), watcher::Config::default()).default_backoff().applied_objects());
    while let Some(object) = objects.next().await {
        let Ok(object) = object else { continue }; // the watch starts again by itself
        let key = format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any());
        let state = state(&object)?;
        lock(&states).insert(key, state);
    }
    Ok(())
}

fn state<K: Resource + Serialize>(object: &K) -> Result<State> {
    let value = serde_json::to_value(object)?;
    let status = value.get("status").cloned().unwrap_or_default();
    let generation = object.meta().generation.ok_or_else(|| anyhow!("an object without a generation"))?;
    let conditions = status.get("conditions").and_then(serde_json::Value::as_array).cloned().unwrap_or_default();
    let find = |kind: &str| conditions.iter().find(|condition| condition.get("type").is_some_and(|found| found == kind));
    let is_ready = find("Ready").and_then(|ready| ready.get("status")).is_some_and(|status| status == "True");
    let observed = status.get("observedGeneration").and_then(serde_json::Value::as_i64);
    Ok(State { is_ready, is_observed: observed == Some(generation), is_asked_about: find("Conformant").is_some() })
}
