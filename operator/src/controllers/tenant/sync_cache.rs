//! What each group's generated objects looked like when all was as it must be. As long as nothing else was observed of them, a Tenant need
//! not be gone through again: a thousand groups would have the apiserver answer a dozen questions each, for nothing.
//!
//! An entry is made by a whole pass that found or made everything right. It holds until another generation or life of the Tenant, until
//! something changes on which all groups depend, until its time is over, or until an object is observed that does not look as it did
//! then. Where events are lost, a sweep compares ([`children`](super::children)).

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

/// How long an entry holds at most.
const WHOLE_PASS: SignedDuration = SignedDuration::from_mins(10);
/// How old the last look at what is not watched may be.
const UNWATCHED: SignedDuration = SignedDuration::from_secs(30);

/// A generated object within its group.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    pub kind: &'static str,
    pub name: Box<str>,
}

/// How an object was last seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObservedVersion {
    /// Of one kind, the larger one is the later one; 0 when it is not known.
    version: u64,
    /// A digest of everything about it that matters.
    look: u64,
}

impl ObservedVersion {
    /// Of an object of which `matters` is to stay as it is.
    pub fn new(meta: &ObjectMeta, matters: impl Hash) -> Self {
        let version = meta.resource_version.as_ref().and_then(|version| version.parse().ok()).unwrap_or(0);
        let is_going = meta.deletion_timestamp.is_some();
        Self { version, look: fingerprint((&meta.uid, &meta.labels, &meta.annotations, is_going, matters)) }
    }

    /// Whether an object that was seen like this tells nothing new to those who know `self`.
    fn explains(self, seen: Self) -> bool {
        (seen.version != 0 && seen.version <= self.version) || seen.look == self.look
    }
}

/// A kind of which objects are remembered.
pub trait Watched: Resource<DynamicType = ()> + Sized {
    /// Whether an object's metadata, without its version, says all that matters.
    const BY_METADATA: bool = false;

    /// Else its generation does where the kind has one: of such kinds the status changes by itself. Else its version.
    fn observed_version(&self) -> ObservedVersion {
        let generation = self.meta().generation;
        let version = (generation.is_none() && !Self::BY_METADATA).then(|| self.resource_version());
        ObservedVersion::new(self.meta(), (generation, version))
    }

    fn object_key(&self) -> ObjectKey {
        ObjectKey { kind: kind::<Self>(), name: self.name_any().into() }
    }
}

/// The kind's name, which is the same for its metadata alone.
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

/// What is used of a quota changes all the time, and its generation does not exist.
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

/// For which state of a Tenant an entry holds.
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

/// An entry: all was right.
#[derive(Debug)]
struct Entry {
    key: Key,
    /// Which state of what all groups depend on.
    epoch: u64,
    known: BTreeMap<ObjectKey, ObservedVersion>,
    outcome: Outcome,
    /// Whether its owners were asked about.
    is_asked: bool,
    made: Timestamp,
    ends: Timestamp,
    unwatched: Timestamp,
}

/// What a whole pass found, and when that was.
#[derive(Debug, Clone)]
pub struct Settled {
    pub outcome: Outcome,
    /// Whether the group's owners were asked about. Only a whole pass asks, when it is their turn.
    pub is_asked: bool,
    pub at: Timestamp,
}

#[derive(Debug, Default)]
struct TenantEntry {
    entry: Option<Entry>,
    /// What was observed and is not explained yet, since the last whole pass began.
    news: Vec<(ObjectKey, ObservedVersion)>,
    /// Something changed, and it does not matter what.
    is_doubted: bool,
}

impl TenantEntry {
    fn is_quiet(&self) -> bool {
        self.news.is_empty() && !self.is_doubted
    }
}

/// More of it says no more.
const NEWS: usize = 64;

#[derive(Debug, Default)]
struct State {
    epoch: u64,
    pages: BTreeMap<String, TenantEntry>,
}

/// The entries of all groups.
#[derive(Debug, Default)]
pub struct SyncCache(Mutex<State>);

/// A whole pass that is under way.
#[derive(Debug)]
pub struct SyncRun {
    epoch: u64,
}

impl SyncCache {
    /// What a whole pass found, if that still holds.
    pub fn settled(&self, group: &str, key: &Key, now: Timestamp) -> Option<Settled> {
        let state = self.state();
        let page = state.pages.get(group).filter(|page| page.is_quiet())?;
        let entry = page.entry.as_ref().filter(|entry| entry.key == *key && entry.epoch == state.epoch && now < entry.ends)?;
        Some(Settled { outcome: entry.outcome.clone(), is_asked: entry.is_asked, at: entry.made })
    }

    /// Notes that a whole pass begins. What was observed until now it sees by itself.
    pub fn begin(&self, group: &str) -> SyncRun {
        let mut state = self.state();
        state.pages.insert(group.to_owned(), TenantEntry::default());
        SyncRun { epoch: state.epoch }
    }

    /// Notes that a whole pass has found or made everything right. What was observed meanwhile and is not explained by it stays in doubt.
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

    /// Notes how an object was seen. Answers whether that is news.
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
            page.is_doubted = true;
        }
        true
    }

    /// The same for what a sweep found, which is nothing new about groups without an entry.
    pub fn found(&self, group: &str, place: ObjectKey, seen: ObservedVersion) -> bool {
        let has_entry = self.state().pages.get(group).is_some_and(|page| page.entry.is_some());
        has_entry && self.observe(group, place, seen)
    }

    /// Has a group gone through again, as when one of its objects went.
    pub fn invalidate(&self, group: &str) {
        if let Some(page) = self.state().pages.get_mut(group) {
            page.is_doubted = true;
        }
    }

    /// Has all groups gone through again, since something changed on which all depend.
    pub fn invalidate_all(&self) {
        let epoch = &mut self.state().epoch;
        *epoch = epoch.wrapping_add(1);
    }

    /// Whether it is time to look at what is not watched, which counts as done.
    pub fn take_unwatched(&self, group: &str, now: Timestamp) -> bool {
        let mut state = self.state();
        let Some(entry) = state.pages.get_mut(group).and_then(|page| page.entry.as_mut()) else { return false };
        let is_time = now.duration_since(entry.unwatched) >= UNWATCHED;
        if is_time {
            entry.unwatched = now;
        }
        is_time
    }

    /// Doubts the groups that know an object of this kind which was not among `seen` when the kind was listed `at` a version.
    pub fn missing(&self, kind: &str, at: u64, seen: &HashSet<(String, ObjectKey)>) -> Vec<String> {
        let mut doubted = Vec::new();
        for (group, page) in &mut self.state().pages {
            let Some(entry) = &page.entry else { continue };
            let mut of_kind = entry.known.iter().filter(|(place, known)| place.kind == kind && known.version <= at);
            if of_kind.any(|(place, _)| !seen.contains(&(group.clone(), place.clone()))) {
                page.is_doubted = true;
                doubted.push(group.clone());
            }
        }
        doubted
    }

    /// The group is gone.
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
