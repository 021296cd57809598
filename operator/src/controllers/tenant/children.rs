//! Follows the objects of groups' namespaces: by watches, which say at once when one does not look as it did, and by a sweep, which finds
//! what a watch did not tell.

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
use kube::{Api, ResourceExt};
use serde::de::DeserializeOwned;
use tsujiban_api::Tenant;
use tsujiban_api::names::{LABEL_TENANT, group_of_namespace};
use tsujiban_core::error::chain;

use super::sync_cache::{Watched, kind};
use crate::context::Context;

/// How often everything is compared. What a watch did not tell is put right well within a minute.
const EVERY: Duration = Duration::from_secs(30);
const PAGE: u32 = 500;

/// What is followed of a kind.
#[derive(Debug, Clone, Copy)]
pub enum WatchScope {
    /// What carries a group's label.
    Generated,
    /// All objects: what others add to a group's namespace matters too.
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

/// The Tenant to whose namespace an object belongs, or which it is.
pub fn tenant_of<K: Watched>(object: &K) -> Option<ObjectRef<Tenant>> {
    group_of(object).map(|group| ObjectRef::new(&group))
}

fn group_of<K: Watched>(object: &K) -> Option<String> {
    let namespace = object.namespace().unwrap_or_else(|| object.name_any());
    group_of_namespace(&namespace).map(String::from)
}

/// Watches a kind, and tells of what is news.
pub fn follow<K>(
    whose: WatchScope,
    config: watcher::Config,
    context: &Arc<Context>,
) -> impl Stream<Item = Result<K, watcher::Error>> + Send + use<K>
where
    K: Watched + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let (api, context) = (Api::<K>::all(context.client.clone()), Arc::clone(context));
    let events = watcher(api, config.labels(whose.selector())).default_backoff();
    events.try_filter_map(move |event| std::future::ready(Ok(news(&context, event))))
}

fn news<K: Watched>(context: &Context, event: watcher::Event<K>) -> Option<K> {
    match event {
        watcher::Event::Apply(object) | watcher::Event::InitApply(object) => {
            let group = group_of(&object)?;
            context.sync_cache.observe(&group, object.object_key(), object.observed_version()).then_some(object)
        }
        watcher::Event::Delete(object) => {
            context.sync_cache.invalidate(&group_of(&object)?);
            Some(object)
        }
        watcher::Event::Init | watcher::Event::InitDone => None,
    }
}

/// Compares for ever.
pub async fn sweep(context: Arc<Context>) {
    loop {
        tokio::time::sleep(EVERY).await;
        compare::<PartialObjectMeta<Namespace>>(&context, WatchScope::Generated).await;
        compare::<PartialObjectMeta<NetworkPolicy>>(&context, WatchScope::All).await;
        compare::<ResourceQuota>(&context, WatchScope::Generated).await;
        compare::<PartialObjectMeta<LimitRange>>(&context, WatchScope::Generated).await;
        compare::<PartialObjectMeta<ServiceAccount>>(&context, WatchScope::Generated).await;
        compare::<PartialObjectMeta<RoleBinding>>(&context, WatchScope::All).await;
        compare::<PartialObjectMeta<CronJob>>(&context, WatchScope::Generated).await;
    }
}

async fn compare<K>(context: &Context, whose: WatchScope)
where
    K: Watched + Clone + Debug + DeserializeOwned,
{
    if let Err(error) = try_compare::<K>(context, whose).await {
        tracing::debug!(kind = kind::<K>(), error = chain(&error), "what is known of groups could not be compared with the apiserver");
    }
}

async fn try_compare<K>(context: &Context, whose: WatchScope) -> Result<(), kube::Error>
where
    K: Watched + Clone + Debug + DeserializeOwned,
{
    let api: Api<K> = Api::all(context.client.clone());
    let mut page = ListParams::default().labels(whose.selector()).limit(PAGE);
    let (mut seen, mut changed) = (HashSet::new(), HashSet::new());
    loop {
        let list = api.list(&page).await?;
        for object in &list.items {
            let Some(group) = group_of(object) else { continue };
            if context.sync_cache.found(&group, object.object_key(), object.observed_version()) {
                changed.insert(group.clone());
            }
            seen.insert((group, object.object_key()));
        }
        if let Some(token) = list.metadata.continue_.filter(|token| !token.is_empty()) {
            page.continue_token = Some(token);
            continue;
        }
        let at = list.metadata.resource_version.and_then(|version| version.parse().ok()).unwrap_or(0);
        changed.extend(context.sync_cache.missing(kind::<K>(), at, &seen));
        for group in &changed {
            context.wake_tenant(group);
        }
        return Ok(());
    }
}
