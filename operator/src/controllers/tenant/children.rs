//! Follows the objects of groups' namespaces: by watches, which report a change at once, and by a sweep, which finds changes that a watch
//! missed.

use std::collections::HashSet;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, TryStreamExt};
use k8s_openapi::api::batch::v1::CronJob;
use k8s_openapi::api::core::v1::{LimitRange, Namespace, ResourceQuota, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::api::ListParams;
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use serde::de::DeserializeOwned;
use tsujiban_api::Tenant;
use tsujiban_api::names::{LABEL_TENANT, group_of_namespace};
use tsujiban_core::error::chain;

use super::sync_cache::{SyncCache, Watched, kind};
use crate::queue::Queue;

/// How often everything is compared. A change that a watch missed is corrected well within a minute.
const EVERY: Duration = Duration::from_secs(30);
const PAGE: u32 = 500;

/// Which objects of a kind are followed.
#[derive(Debug, Clone, Copy)]
pub enum WatchScope {
    /// Objects with a group's label.
    Generated,
    /// All objects: foreign objects in a group's namespace matter too.
    All,
}

impl WatchScope {
    const fn selector(self) -> &'static str {
        match self {
            Self::Generated => LABEL_TENANT,
            Self::All => "",
        }
    }
}

/// The Tenant whose namespace the object is, or is in.
pub fn tenant_of<K: Watched>(object: &K) -> Option<ObjectRef<Tenant>> {
    group_of(object).map(|group| ObjectRef::new(&group))
}

fn group_of<K: Watched>(object: &K) -> Option<String> {
    let namespace = object.namespace().unwrap_or_else(|| object.name_any());
    group_of_namespace(&namespace).map(String::from)
}

/// Watches a kind, and passes on the objects that differ from the sync cache.
pub fn follow<K>(
    scope: WatchScope,
    config: watcher::Config,
    client: &Client,
    sync_cache: &Arc<SyncCache>,
) -> impl Stream<Item = Result<K, watcher::Error>> + Send + use<K>
where
    K: Watched + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let (api, sync_cache) = (Api::<K>::all(client.clone()), Arc::clone(sync_cache));
    let events = watcher(api, config.labels(scope.selector())).default_backoff();
    events.try_filter_map(move |event| std::future::ready(Ok(changed(&sync_cache, event))))
}

/// The object of an event, if it was deleted or differs from the sync cache.
fn changed<K: Watched>(sync_cache: &SyncCache, event: watcher::Event<K>) -> Option<K> {
    match event {
        watcher::Event::Apply(object) | watcher::Event::InitApply(object) => {
            let group = group_of(&object)?;
            sync_cache.observe(&group, object.object_key(), object.observed_version()).then_some(object)
        }
        watcher::Event::Delete(object) => {
            sync_cache.invalidate(&group_of(&object)?);
            Some(object)
        }
        watcher::Event::Init | watcher::Event::InitDone => None,
    }
}

/// Compares the sync cache with the apiserver for ever.
pub async fn sweep(client: Client, sync_cache: Arc<SyncCache>, queue: Queue<Tenant>) {
    let sweep = Sweep { client, sync_cache, queue };
    loop {
        tokio::time::sleep(EVERY).await;
        sweep.compare::<PartialObjectMeta<Namespace>>(WatchScope::Generated).await;
        sweep.compare::<PartialObjectMeta<NetworkPolicy>>(WatchScope::All).await;
        sweep.compare::<ResourceQuota>(WatchScope::Generated).await;
        sweep.compare::<PartialObjectMeta<LimitRange>>(WatchScope::Generated).await;
        sweep.compare::<PartialObjectMeta<ServiceAccount>>(WatchScope::Generated).await;
        sweep.compare::<PartialObjectMeta<RoleBinding>>(WatchScope::All).await;
        sweep.compare::<PartialObjectMeta<CronJob>>(WatchScope::Generated).await;
    }
}

struct Sweep {
    client: Client,
    sync_cache: Arc<SyncCache>,
    queue: Queue<Tenant>,
}

impl Sweep {
    async fn compare<K>(&self, scope: WatchScope)
    where
        K: Watched + Clone + Debug + DeserializeOwned,
    {
        if let Err(error) = self.try_compare::<K>(scope).await {
            tracing::debug!(kind = kind::<K>(), error = chain(&error), "what is known of groups could not be compared with the apiserver");
        }
    }

    async fn try_compare<K>(&self, scope: WatchScope) -> Result<(), kube::Error>
    where
        K: Watched + Clone + Debug + DeserializeOwned,
    {
        let api: Api<K> = Api::all(self.client.clone());
        let mut page = ListParams::default().labels(scope.selector()).limit(PAGE);
        let (mut seen, mut changed) = (HashSet::new(), HashSet::new());
        loop {
            let list = api.list(&page).await?;
            for object in &list.items {
                let Some(group) = group_of(object) else { continue };
                if self.sync_cache.found(&group, object.object_key(), object.observed_version()) {
                    changed.insert(group.clone());
                }
                seen.insert((group, object.object_key()));
            }
            if let Some(token) = list.metadata.continue_.filter(|token| !token.is_empty()) {
                page.continue_token = Some(token);
                continue;
            }
            let at = list.metadata.resource_version.and_then(|version| version.parse().ok()).unwrap_or(0);
            changed.extend(self.sync_cache.missing(kind::<K>(), at, &seen));
            for group in &changed {
                self.queue.add_ref(ObjectRef::new(group));
            }
            return Ok(());
        }
    }
}
