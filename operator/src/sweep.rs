//! Checks whether a cache still holds what the apiserver holds.
//!
//! A watch reports changes. A change that it missed, because an event was lost or its connection died silently, would never reach the
//! cache. So the names and versions of all objects are listed regularly and compared, and a watch that missed a change is restarted.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use kube::api::ListParams;
use kube::core::PartialObjectMeta;
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::Notify;
use tokio::time::sleep;
use tsujiban_core::error::chain;

use crate::cache::Cache;
use crate::state::unreadable::UnreadableObjects;

/// How often the cache is compared. A missed change is found within this and a little more, and is in the cache well within a minute.
const EVERY: Duration = Duration::from_secs(30);
/// How long an event may be delayed before it counts as lost.
const ON_ITS_WAY: Duration = Duration::from_secs(3);
const PAGE: u32 = 500;

/// Namespace and name.
type Key = (Option<String>, String);

/// Which object, and which state of it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Version {
    uid: String,
    /// The resourceVersion; within a kind, the larger one is the later one.
    number: u64,
}

/// Compares for ever, and notifies `again` to restart the watch when the cache has missed a change.
pub async fn run<K>(api: Api<PartialObjectMeta<K>>, cache: Cache<K>, again: Arc<Notify>, unreadable: UnreadableObjects)
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let kind = K::kind(&());
    loop {
        sleep(EVERY).await;
        if !cache.is_synced() {
            tracing::warn!(%kind, "a watch did not finish its first list; restarting it");
            again.notify_one();
            continue;
        }
        let (listed, at) = match list(&api).await {
            Ok(listed) => listed,
            Err(error) => {
                tracing::debug!(%kind, error = chain(&error), "the cache could not be compared with the apiserver");
                continue;
            }
        };
        // an unreadable object is in no cache, although the watch has reported it
        let is_unread = |(namespace, name): &Key| {
            let there = listed.get(&(namespace.clone(), name.clone()));
            there.is_some_and(|there| unreadable.knows(namespace.as_deref(), name, there.number))
        };
        let missed = missed(&listed, at, &cached(&cache));
        if missed.iter().all(|(key, _)| is_unread(key)) {
            continue;
        }
        sleep(ON_ITS_WAY).await;
        let now = cached(&cache);
        if missed.iter().any(|(key, known)| now.get(key) == known.as_ref() && !is_unread(key)) {
            tracing::warn!(%kind, "a watch missed a change; restarting it");
            again.notify_one();
        }
    }
}

/// The versions of all objects, and the resourceVersion of the list.
async fn list<K>(api: &Api<PartialObjectMeta<K>>) -> Result<(BTreeMap<Key, Version>, u64), kube::Error>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let mut found = BTreeMap::new();
    let mut page = ListParams::default().limit(PAGE);
    loop {
        let list = api.list(&page).await?;
        found.extend(list.items.iter().filter_map(|object| Some((key(object), version(object)?))));
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page.continue_token = Some(token),
            None => return Ok((found, number(list.metadata.resource_version.as_deref()).unwrap_or(0))),
        }
    }
}

fn cached<K>(cache: &Cache<K>) -> BTreeMap<Key, Version>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    cache.list().iter().filter_map(|object| Some((key(object.as_ref()), version(object.as_ref())?))).collect()
}

fn key<K: Resource>(object: &K) -> Key {
    (object.namespace(), object.name_any())
}

fn version<K: Resource>(object: &K) -> Option<Version> {
    Some(Version { uid: object.uid()?, number: number(object.meta().resource_version.as_deref())? })
}

fn number(version: Option<&str>) -> Option<u64> {
    version?.parse().ok()
}

/// The objects whose change the cache has missed, and their versions in the cache. `at` is the resourceVersion of the list.
fn missed(listed: &BTreeMap<Key, Version>, at: u64, known: &BTreeMap<Key, Version>) -> Vec<(Key, Option<Version>)> {
    let newer = listed.iter().filter(|(key, there)| known.get(*key).is_none_or(|known| known.number < there.number));
    let gone = known.iter().filter(|(key, known)| !listed.contains_key(*key) && known.number <= at);
    let keys = newer.map(|(key, _)| key).chain(gone.map(|(key, _)| key));
    keys.map(|key| (key.clone(), known.get(key).cloned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions(all: &[(&str, &str, u64)]) -> BTreeMap<Key, Version> {
        all.iter().map(|(name, uid, number)| ((None, (*name).to_owned()), Version { uid: (*uid).to_owned(), number: *number })).collect()
    }

    #[test]
    fn what_a_cache_can_miss() {
        let listed = versions(&[("a", "1", 5), ("b", "2", 7), ("c", "3", 9)]);
        let names = |known: &[(&str, &str, u64)]| {
            missed(&listed, 10, &versions(known)).into_iter().map(|((_, name), _)| name).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(names(&[("a", "1", 5), ("b", "2", 7), ("c", "3", 9)]), "");
        assert_eq!(names(&[("a", "1", 5), ("b", "2", 7)]), "c"); // a creation
        assert_eq!(names(&[("a", "1", 4), ("b", "2", 7), ("c", "3", 9)]), "a"); // a change
        assert_eq!(names(&[("a", "1", 5), ("b", "1", 3), ("c", "3", 9)]), "b"); // a deletion and a creation of the same name
        assert_eq!(names(&[("a", "1", 5), ("b", "2", 7), ("c", "3", 9), ("d", "4", 8)]), "d"); // a deletion
        // what happened after the list was made
        assert_eq!(names(&[("a", "1", 11), ("b", "5", 12), ("c", "3", 9), ("d", "4", 13)]), "");
    }
}
