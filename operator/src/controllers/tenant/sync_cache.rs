//! A cache of each group's generated objects, as the last full reconcile left them. While no object differs from its entry, the Tenant is
//! not reconciled in full again: for a thousand groups that would cost the apiserver a dozen requests each, for nothing.
//!
//! A full reconcile that found or made every object correct writes an entry. The entry is valid until the Tenant has another generation or
//! UID, until something changes that all groups depend on, until it expires, or until an object is observed that differs from it. A sweep
//! ([`children`](super::children)) finds changes whose watch events were lost.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::CronJob;
use k8s_openapi::api::core::v1::{ConfigMap, LimitRange, Namespace, ResourceQuota, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::rbac::v1::RoleBinding;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::PartialObjectMeta;
use kube::{Resource, ResourceExt};

use super::status::Outcome;
use super::validate::Identity;
use crate::fingerprint::fingerprint;

/// How long an entry is valid at most.
const WHOLE_PASS: SignedDuration = SignedDuration::from_mins(10);
/// How old the last read of the objects that are not watched may be.
const UNWATCHED: SignedDuration = SignedDuration::from_secs(30);

/// A generated object within its group.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    pub kind: &'static str,
    pub name: Box<str>,
}

/// The state in which an object was last observed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObservedVersion {
    /// The resourceVersion; within a kind, the larger one is the later one. 0 when it is not known.
    version: u64,
    /// A fingerprint of everything about the object that must not change.
    look: u64,
}

impl ObservedVersion {
    /// `matters` is what must not change, besides the metadata.
    pub fn new(meta: &ObjectMeta, matters: impl Hash) -> Self {
        let version = meta.resource_version.as_ref().and_then(|version| version.parse().ok()).unwrap_or(0);
        let is_going = meta.deletion_timestamp.is_some();
        Self { version, look: fingerprint((&meta.uid, &meta.labels, &meta.annotations, is_going, matters)) }
    }

    /// Whether `seen` is nothing new to a reader of `self`: it is not later, or it does not differ.
    fn explains(self, seen: Self) -> bool {
        (seen.version != 0 && seen.version <= self.version) || seen.look == self.look
    }
}

/// A kind whose objects are in the cache.
pub trait Watched: Resource<DynamicType = ()> + Sized {
    /// Whether the metadata, without the resourceVersion, holds everything that must not change.
    const BY_METADATA: bool = false;

    /// Unless the metadata is enough, the generation counts, since the status changes by itself. A kind without generations is compared by
    /// its resourceVersion.
    fn observed_version(&self) -> ObservedVersion {
        let generation = self.meta().generation;
        let version = (generation.is_none() && !Self::BY_METADATA).then(|| self.resource_version());
        ObservedVersion::new(self.meta(), (generation, version))
    }

    fn object_key(&self) -> ObjectKey {
        ObjectKey { kind: kind::<Self>(), name: self.name_any().into() }
    }
}

/// The kind's name. `PartialObjectMeta` of a kind has the same one.
pub fn kind<K: Resource<DynamicType = ()>>() -> &'static str {
    match K::kind(&()) {
        Cow::Borrowed(kind) => kind,
        Cow::Owned(_) => "", // no kind of ours is made at run time
    }
}

impl<K: Watched> Watched for PartialObjectMeta<K> {
    const BY_METADATA: bool = K::BY_METADATA;
}
impl Watched for ConfigMap {}
impl Watched for CronJob {}
impl Watched for LimitRange {}
impl Watched for NetworkPolicy {}
impl Watched for RoleBinding {}
impl Watched for ServiceAccount {}

impl Watched for Namespace {
    const BY_METADATA: bool = true;
}

/// Only the spec of a quota counts: it has no generation, and the used amounts in its status change all the time.
impl Watched for ResourceQuota {
    fn observed_version(&self) -> ObservedVersion {
        ObservedVersion::new(&self.metadata, self.spec.as_ref().and_then(|spec| serde_json::to_string(spec).ok()))
    }
}

/// The objects of one group.
#[derive(Debug, Default)]
pub struct ObservedVersions(BTreeMap<ObjectKey, ObservedVersion>);

impl ObservedVersions {
    pub fn note<'a, K: Watched + 'a>(&mut self, objects: impl IntoIterator<Item = &'a K>) {
        self.0.extend(objects.into_iter().map(|object| (object.object_key(), object.observed_version())));
    }
}

/// The state of a Tenant for which an entry is valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    uid: String,
    generation: Option<i64>,
}

impl Key {
    pub fn of(id: &Identity, generation: Option<i64>) -> Self {
        Self { uid: id.uid.clone(), generation }
    }
}

/// An entry: the last full reconcile found or made everything correct.
#[derive(Debug)]
struct Entry {
    key: Key,
    /// `State::epoch` when the reconcile began. A different one now means that something changed on which all groups depend.
    epoch: u64,
    known: BTreeMap<ObjectKey, ObservedVersion>,
    outcome: Outcome,
    /// Whether the rights of the group's owners were checked.
    is_asked: bool,
    made: Timestamp,
    ends: Timestamp,
    unwatched: Timestamp,
}

/// The result of a full reconcile, and when it ended.
#[derive(Debug, Clone)]
pub struct Settled {
    pub outcome: Outcome,
    /// Whether the rights of the group's owners were checked. Only a full reconcile checks them, when it is the group's turn.
    pub is_asked: bool,
    pub at: Timestamp,
}

#[derive(Debug, Default)]
struct TenantEntry {
    entry: Option<Entry>,
    /// Objects that were observed since the last full reconcile began and that differ from the entry.
    news: Vec<(ObjectKey, ObservedVersion)>,
    /// Something changed that is not in `news`; the entry is invalid.
    is_invalid: bool,
}

impl TenantEntry {
    fn is_quiet(&self) -> bool {
        self.news.is_empty() && !self.is_invalid
    }
}

/// How many differing objects are kept. One more only sets `is_invalid`: either makes the entry invalid.
const NEWS: usize = 64;

#[derive(Debug, Default)]
struct State {
    epoch: u64,
    pages: BTreeMap<String, TenantEntry>,
}

/// The entries of all groups.
#[derive(Debug, Default)]
pub struct SyncCache(Mutex<State>);

/// A full reconcile that is running.
#[derive(Debug)]
pub struct SyncRun {
    epoch: u64,
}

impl SyncCache {
    /// The result of the last full reconcile, if it is still valid.
    pub fn settled(&self, group: &str, key: &Key, now: Timestamp) -> Option<Settled> {
        let state = self.state();
        let page = state.pages.get(group).filter(|page| page.is_quiet())?;
        let entry = page.entry.as_ref().filter(|entry| entry.key == *key && entry.epoch == state.epoch && now < entry.ends)?;
        Some(Settled { outcome: entry.outcome.clone(), is_asked: entry.is_asked, at: entry.made })
    }

    /// Notes that a full reconcile begins. Drops earlier observations: the reconcile reads the objects itself.
    pub fn begin(&self, group: &str) -> SyncRun {
        let mut state = self.state();
        state.pages.insert(group.to_owned(), TenantEntry::default());
        SyncRun { epoch: state.epoch }
    }

    /// Notes that a full reconcile found or made everything correct. Observations made meanwhile that differ from its result stay, and make
    /// the entry invalid.
    pub fn settle(&self, pass: &SyncRun, group: &str, key: Key, known: ObservedVersions, outcome: Outcome, now: Timestamp) {
        let ends = now.checked_add(spread(WHOLE_PASS, group)).unwrap_or(now);
        let is_asked = outcome.conformance.is_some();
        let outcome = Outcome { conformance: None, fresh: None, devices: 0, ..outcome };
        let ObservedVersions(known) = known;
        let page = &mut self.state().pages;
        let page = page.entry(group.to_owned()).or_default();
        page.news.retain(|(place, seen)| !known.get(place).is_some_and(|known| known.explains(*seen)));
        page.entry = Some(Entry { key, epoch: pass.epoch, known, outcome, is_asked, made: now, ends, unwatched: now });
    }

    /// Notes an observed object. Returns whether it differs from the entry.
    pub fn observe(&self, group: &str, place: ObjectKey, seen: ObservedVersion) -> bool {
        let mut state = self.state();
        let Some(page) = state.pages.get_mut(group) else { return true };
        let is_known = page.entry.as_ref().and_then(|entry| entry.known.get(&place)).is_some_and(|known| known.explains(seen));
        if is_known {
            return false;
        }
        if page.news.len() < NEWS {
            page.news.push((place, seen));
        } else {
            page.is_invalid = true;
        }
        true
    }

    /// The same for an object that a sweep found. Returns false for a group without an entry, which is reconciled in full anyway.
    pub fn found(&self, group: &str, place: ObjectKey, seen: ObservedVersion) -> bool {
        let has_entry = self.state().pages.get(group).is_some_and(|page| page.entry.is_some());
        has_entry && self.observe(group, place, seen)
    }

    /// Has a group reconciled in full again, for example because one of its objects was deleted.
    pub fn invalidate(&self, group: &str) {
        if let Some(page) = self.state().pages.get_mut(group) {
            page.is_invalid = true;
        }
    }

    /// Has all groups reconciled in full again, because something changed that all depend on.
    pub fn invalidate_all(&self) {
        let epoch = &mut self.state().epoch;
        *epoch = epoch.wrapping_add(1);
    }

    /// Whether it is time to read the objects that are not watched. If so, notes that as done.
    pub fn take_unwatched(&self, group: &str, now: Timestamp) -> bool {
        let mut state = self.state();
        let Some(entry) = state.pages.get_mut(group).and_then(|page| page.entry.as_mut()) else { return false };
        let is_time = now.duration_since(entry.unwatched) >= UNWATCHED;
        if is_time {
            entry.unwatched = now;
        }
        is_time
    }

    /// Invalidates and returns the groups whose entry has an object of this kind that is not in `seen`, the list of the kind at
    /// resourceVersion `at`.
    pub fn missing(&self, kind: &str, at: u64, seen: &HashSet<(String, ObjectKey)>) -> Vec<String> {
        let mut doubted = Vec::new();
        for (group, page) in &mut self.state().pages {
            let Some(entry) = &page.entry else { continue };
            let mut of_kind = entry.known.iter().filter(|(place, known)| place.kind == kind && known.version <= at);
            if of_kind.any(|(place, _)| !seen.contains(&(group.clone(), place.clone()))) {
                page.is_invalid = true;
                doubted.push(group.clone());
            }
        }
        doubted
    }

    /// Drops the entry of a group whose Tenant is gone.
    pub fn forget(&self, group: &str) {
        self.state().pages.remove(group);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn spread(base: SignedDuration, group: &str) -> SignedDuration {
    let base = std::time::Duration::try_from(base).unwrap_or_default();
    SignedDuration::try_from(crate::backoff::spread(base, group)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::condition::Verdict;
    use serde_json::json;

    fn policy(version: u64, generation: i64) -> NetworkPolicy {
        serde_json::from_value(json!({"metadata": {"name": "deny-all", "namespace": "tn-acme", "uid": "1",
            "resourceVersion": version.to_string(), "generation": generation}}))
        .unwrap()
    }

    fn quota(version: u64, pods: &str, used: &str) -> ResourceQuota {
        serde_json::from_value(json!({"metadata": {"name": "tenant", "namespace": "tn-acme", "resourceVersion": version.to_string()},
            "spec": {"hard": {"pods": pods}}, "status": {"used": {"pods": used}}}))
        .unwrap()
    }

    fn key(generation: i64) -> Key {
        Key { uid: "u1".to_owned(), generation: Some(generation) }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn outcome() -> Outcome {
        Outcome { conformance: Some(Verdict::holds("Conformant", "")), ..Outcome::default() }
    }

    fn settled() -> SyncCache {
        let cache = SyncCache::default();
        let pass = cache.begin("acme");
        let mut known = ObservedVersions::default();
        known.note(&[policy(10, 1)]);
        known.note(&[quota(12, "5", "0")]);
        cache.settle(&pass, "acme", key(1), known, outcome(), at(0));
        cache
    }

    fn holds(cache: &SyncCache) -> bool {
        cache.settled("acme", &key(1), at(1)).is_some()
    }

    #[test]
    fn an_entry_holds_until_something_is_heard() {
        let cache = settled();
        assert!(holds(&cache));
        let observe = |object: &NetworkPolicy| cache.observe("acme", object.object_key(), object.observed_version());
        assert!(!observe(&policy(10, 1)), "what the pass itself read or wrote");
        assert!(!observe(&policy(9, 7)), "older than what the pass read");
        assert!(!observe(&policy(20, 1)), "its status");
        assert!(holds(&cache));
        assert!(observe(&policy(21, 2)));
        assert!(!holds(&cache));
    }

    /// What is used of a quota changes with every pod.
    #[test]
    fn of_a_quota_only_what_it_allows_matters() {
        let cache = settled();
        let observe = |object: &ResourceQuota| cache.observe("acme", object.object_key(), object.observed_version());
        assert!(!observe(&quota(30, "5", "4")));
        assert!(holds(&cache));
        assert!(observe(&quota(31, "50", "4")));
        assert!(!holds(&cache));
    }

    #[test]
    fn another_generation_or_life_another_foundation_or_enough_time_end_it() {
        let cache = settled();
        assert!(cache.settled("acme", &key(2), at(1)).is_none());
        assert!(cache.settled("acme", &Key { uid: "u2".to_owned(), ..key(1) }, at(1)).is_none());
        assert!(cache.settled("acme", &key(1), at(700)).is_none() || cache.settled("acme", &key(1), at(721)).is_none());
        assert!(holds(&cache));
        cache.invalidate_all();
        assert!(!holds(&cache));
        let cache = settled();
        cache.invalidate("acme");
        assert!(!holds(&cache));
    }

    /// While a whole pass runs, its own writes are observed, and somebody else's change may be.
    #[test]
    fn what_is_heard_during_a_pass_is_judged_at_its_end() {
        for (version, generation, is_right) in [(10, 1, true), (11, 2, false)] {
            let cache = SyncCache::default();
            let pass = cache.begin("acme");
            let seen = policy(version, generation);
            assert!(cache.observe("acme", seen.object_key(), seen.observed_version()));
            let mut known = ObservedVersions::default();
            known.note(&[policy(10, 1)]);
            cache.settle(&pass, "acme", key(1), known, outcome(), at(0));
            assert_eq!(holds(&cache), is_right, "version {version}");
        }
    }

    #[test]
    fn a_foundation_that_changed_during_a_pass_ends_what_it_found() {
        let cache = SyncCache::default();
        let pass = cache.begin("acme");
        cache.invalidate_all();
        cache.settle(&pass, "acme", key(1), ObservedVersions::default(), outcome(), at(0));
        assert!(!holds(&cache));
    }

    /// A watch does not tell what went while it did not run; a list at a version that is new enough does.
    #[test]
    fn what_is_not_listed_any_more_is_missed() {
        let cache = settled();
        let there: HashSet<_> = [("acme".to_owned(), policy(10, 1).object_key())].into();
        assert!(cache.missing("NetworkPolicy", 15, &there).is_empty());
        assert!(cache.missing("NetworkPolicy", 9, &HashSet::new()).is_empty(), "listed before it was made");
        assert!(holds(&cache));
        assert_eq!(cache.missing("NetworkPolicy", 15, &HashSet::new()), ["acme"]);
        assert!(!holds(&cache));
    }

    #[test]
    fn a_sweep_says_nothing_new_about_who_is_gone_through_anyway() {
        let cache = SyncCache::default();
        let seen = policy(10, 1);
        assert!(!cache.found("acme", seen.object_key(), seen.observed_version()));
        assert!(
            cache.observe("acme", seen.object_key(), seen.observed_version()),
            "a watch does: the Tenant may not have been looked at yet"
        );
    }
}
