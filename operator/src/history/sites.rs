//! Sites. They have neither a status nor a finalizer of ours, so what of a group's Sites is recorded stands on the group's namespace, where
//! only the operator writes; what is there is compared with what stands there. So a Site that was deleted while nobody looked is missed,
//! and its deletion recorded. One that was created and deleted in between was never seen; and with its namespace goes what stands on it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{ListParams, Patch, PatchParams};
use kube::runtime::reflector::store::Writer;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tsujiban_api::names::{ANNOTATION_SITES, LABEL_MANAGED_BY, LABEL_TENANT, MANAGED_BY};
use tsujiban_api::{Recorded, Site, names};
use tsujiban_core::id::GroupId;

use super::{Kind, Observation, Sight, What, note_change, observe};
use crate::apply::{ApplyError, failed};
use crate::context::{Context, Listed};
use crate::device;
use crate::errors::chain;
use crate::tenant::belongs_to_group;

/// The field manager of the annotation: another one than that of the namespace, which would drop what it does not name.
const MANAGER: &str = "tsujiban-operator-history";
/// How long changes are waited for that come together.
const TOGETHER: Duration = Duration::from_millis(300);
/// How often every group is looked at, should a change not have been told.
const EVERY: Duration = Duration::from_mins(5);
const AFTER_ERROR: Duration = Duration::from_secs(5);
/// How long an acknowledgement is waited for, so that one write serves for all.
const SETTLE: Duration = Duration::from_secs(1);
/// How many Sites of a group are noted on its namespace, whose annotations may be 256 KiB together. Of those beyond it, changes are recorded as
/// of all others; their deletion is when it is seen.
const MOST: usize = 1000;

/// A Site that is recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    pub uid: String,
    #[serde(rename = "gen")]
    pub generation: i64,
    pub digest: String,
}

impl Seen {
    fn of(sight: &Sight) -> Self {
        let Recorded { generation, digest } = sight.spec.clone();
        Self { uid: sight.uid.clone(), generation, digest }
    }
}

/// The Sites of a group that are recorded, by name.
pub type Memory = BTreeMap<String, Seen>;

/// Groups whose Sites are to be looked at.
#[derive(Debug, Default)]
pub struct Sites {
    groups: Mutex<BTreeSet<GroupId>>,
    everywhere: AtomicBool,
    more: Notify,
}

impl Sites {
    /// Has the Sites of a group looked at soon.
    pub fn wake(&self, group: &GroupId) {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner).insert(group.clone());
        self.more.notify_one();
    }

    /// Has the Sites of all groups looked at soon.
    pub fn wake_all(&self) {
        self.everywhere.store(true, Ordering::SeqCst);
        self.more.notify_one();
    }

    fn take(&self) -> BTreeSet<GroupId> {
        std::mem::take(&mut *self.groups.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What is remembered of a group's Sites: what is noted on its namespace, and what this process knows besides where not all found a place
/// there. `None` is noted where the namespace has gone, and what stood on it.
fn memory(noted: Option<&Memory>, known: Option<&Memory>) -> Memory {
    match (noted, known) {
        (Some(noted), Some(known)) if bounded(known) == *noted => known.clone(),
        (Some(noted), _) => noted.clone(),
        (None, known) => known.cloned().unwrap_or_default(),
    }
}

/// As much as is noted.
fn bounded(memory: &Memory) -> Memory {
    memory.iter().take(MOST).map(|(name, seen)| (name.clone(), seen.clone())).collect()
}

/// What has happened to a group's Sites. Pure.
pub fn changes(group: &GroupId, memory: &Memory, live: &[Sight]) -> Vec<Observation> {
    let mut all = Vec::new();
    for (name, seen) in memory {
        if !live.iter().any(|sight| sight.uid == seen.uid) {
            all.push(Observation {
                kind: Kind::Site,
                group: group.clone(),
                name: name.clone(),
                uid: seen.uid.clone(),
                what: What::Deleted { before: Some(seen.digest.clone()) },
                changed_by: None,
                changed_at: None,
                created: None,
            });
        }
    }
    for sight in live {
        let known = memory.get(&sight.name).filter(|seen| seen.uid == sight.uid);
        let known = known.map(|seen| Recorded { generation: seen.generation, digest: seen.digest.clone() });
        // one that is being deleted, by somebody else's finalizer, is there until it has gone
        let standing = Sight { is_going: false, ..sight.clone() };
        all.extend(observe(known.as_ref(), &standing));
    }
    all
}

/// What is recorded of a group's Sites, once the journal has acknowledged what it has.
fn remembered(context: &Context, memory: &Memory, live: &[Sight]) -> Memory {
    let journal = &context.journal;
    let mut now = Memory::new();
    for (name, seen) in memory {
        let stands = live.iter().any(|sight| sight.uid == seen.uid);
        if stands || !journal.is_deletion_recorded(&seen.uid) {
            now.insert(name.clone(), seen.clone());
        }
    }
    for sight in live {
        // a name that is taken again waits until the deletion before it is recorded
        if now.get(&sight.name).is_some_and(|seen| seen.uid != sight.uid) {
            continue;
        }
        let said = now.get(&sight.name).map(|seen| Recorded { generation: seen.generation, digest: seen.digest.clone() });
        if let Some(Recorded { generation, digest }) = journal.recorded(&sight.uid, said.as_ref()) {
            now.insert(sight.name.clone(), Seen { uid: sight.uid.clone(), generation, digest });
        }
    }
    now
}

/// Follows the Sites into their cache, from the beginning whenever it is told `again`, and has the groups looked at whose Sites changed, and
/// the Devices that stand at them.
pub async fn follow(context: Arc<Context>, config: watcher::Config, writer: Writer<Site>, listed: watch::Sender<bool>, again: Arc<Notify>) {
    let api: Api<Site> = Api::all(context.client.clone());
    let begin = move || {
        let again = Arc::clone(&again);
        watcher(api.clone(), config.clone()).default_backoff().take_until(async move { again.notified().await })
    };
    let stream = futures::stream::repeat_with(begin).flatten().modify(note_change).reflect(writer);
    let mut stream = std::pin::pin!(stream);
    while let Some(event) = stream.next().await {
        match event {
            Ok(watcher::Event::Apply(site)) => {
                changed(&context, &site);
                device::site_is_there(&context, &site);
            }
            Ok(watcher::Event::Delete(site)) => {
                changed(&context, &site);
                device::site_has_gone(&context, &site);
            }
            Ok(watcher::Event::InitDone) => {
                listed.send_replace(true);
                context.site_history.wake_all(); // what has gone since the last list, no event tells
                device::sites_are_known(&context);
            }
            Ok(watcher::Event::Init | watcher::Event::InitApply(_)) => {}
            Err(error) => tracing::warn!(error = chain(&error), "the watch of sites was interrupted; it starts again by itself"),
        }
    }
}

fn changed(context: &Context, site: &Site) {
    if let Some(group) = site.namespace().as_deref().and_then(names::group_of_namespace) {
        context.site_history.wake(&group);
    }
}

/// Looks for ever at the groups whose Sites changed.
pub async fn keep(context: Arc<Context>, listed: watch::Receiver<bool>) {
    if !context.journal.is_kept() {
        return std::future::pending().await;
    }
    Listed::wait(&listed).await;
    // what was known of namespaces that may have gone
    let mut known: BTreeMap<GroupId, Memory> = BTreeMap::new();
    let mut again = BTreeSet::new();
    context.site_history.wake_all();
    loop {
        let pause = if again.is_empty() { EVERY } else { AFTER_ERROR };
        let is_told = timeout(pause, context.site_history.more.notified()).await.is_ok();
        if is_told {
            sleep(TOGETHER).await;
        }
        again.append(&mut context.site_history.take());
        if context.site_history.everywhere.swap(false, Ordering::SeqCst) || pause == EVERY && !is_told {
            match everywhere(&context, &known).await {
                Ok(mut groups) => again.append(&mut groups),
                Err(error) => {
                    tracing::warn!(error = chain(&error), "the namespaces of groups could not be listed; trying again in 5 s");
                    sleep(AFTER_ERROR).await;
                    context.site_history.wake_all();
                }
            }
        }
        for group in std::mem::take(&mut again) {
            if let Err(error) = settle(&context, &group, &mut known).await {
                tracing::warn!(group = %group, error = chain(&error), "the sites of a group could not be looked at; trying again in 5 s");
                again.insert(group);
            }
        }
    }
}

/// Every group that has Sites, or had.
async fn everywhere(context: &Context, known: &BTreeMap<GroupId, Memory>) -> Result<BTreeSet<GroupId>, ApplyError> {
    let api: Api<Namespace> = Api::all(context.client.clone());
    let ours = ListParams::default().labels(&format!("{LABEL_MANAGED_BY}={MANAGED_BY}"));
    let listed = api.list_metadata(&ours).await.map_err(failed::<Namespace>("list", None, ""))?;
    let marked = listed.items.iter().filter(|namespace| namespace.annotations().contains_key(ANNOTATION_SITES));
    let mut groups: BTreeSet<GroupId> = marked.filter_map(|namespace| namespace.labels().get(LABEL_TENANT)?.parse().ok()).collect();
    groups.extend(context.sites.state().iter().filter_map(|site| names::group_of_namespace(&site.namespace()?)));
    groups.extend(known.keys().cloned());
    Ok(groups)
}

/// Looks at the Sites of one group: notes what happened, and writes down what is acknowledged.
async fn settle(context: &Context, group: &GroupId, known: &mut BTreeMap<GroupId, Memory>) -> Result<(), ApplyError> {
    let name = names::namespace(group);
    let api: Api<Namespace> = Api::all(context.client.clone());
    let namespace = api.get_opt(&name).await.map_err(failed::<Namespace>("read", None, &name))?;
    let namespace = namespace.filter(|namespace| belongs_to_group(namespace, group));
    let noted: Option<Memory> = namespace.as_ref().map(noted);
    let memory = memory(noted.as_ref(), known.get(group));
    let live = sights(context, group);
    let happened = changes(group, &memory, &live);
    for observation in &happened {
        context.journal.attend(&observation.uid);
    }
    context.journal.note(&happened, context.clock.now());
    for observation in &happened {
        context.journal.settle(&observation.uid, SETTLE).await;
        context.journal.leave(&observation.uid);
    }
    let now = remembered(context, &memory, &live);
    if let (Some(namespace), Some(noted)) = (&namespace, noted)
        && bounded(&now) != noted
    {
        write(&api, namespace, &name, &bounded(&now)).await?;
    }
    for gone in memory.values().filter(|seen| !now.values().any(|it| it.uid == seen.uid)) {
        context.journal.forget(&gone.uid);
    }
    if now.is_empty() {
        known.remove(group);
    } else {
        known.insert(group.clone(), now);
    }
    Ok(())
}

/// Records the end of a group's Sites before its namespace is deleted, with which they go: afterwards nothing tells of them any more. Answers
/// whether all of it is recorded, so that the namespace may go.
pub async fn may_go_along(context: &Context, group: &GroupId, namespace: &Namespace) -> Result<bool, ApplyError> {
    if !context.journal.is_kept() {
        return Ok(true);
    }
    let name = namespace.name_any();
    let api: Api<Site> = Api::namespaced(context.client.clone(), &name);
    let listed = api.list(&ListParams::default()).await.map_err(failed::<Site>("list", Some(&name), ""))?;
    let live: Vec<Sight> = listed.items.iter().filter_map(|site| sight(context, group, site)).collect();
    let noted = noted(namespace);
    let mut happened = changes(group, &noted, &live);
    let going: Memory = live.iter().map(|sight| (sight.name.clone(), Seen::of(sight))).collect();
    happened.extend(changes(group, &going, &[]));
    context.journal.note(&happened, context.clock.now());
    for observation in &happened {
        context.journal.settle(&observation.uid, SETTLE).await;
    }
    let gone = happened.iter().filter(|observation| matches!(observation.what, What::Deleted { .. }));
    Ok(gone.into_iter().all(|observation| context.journal.is_deletion_recorded(&observation.uid)))
}

/// What is noted on a namespace.
fn noted(namespace: &Namespace) -> Memory {
    let text = namespace.annotations().get(ANNOTATION_SITES);
    text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

fn sight(context: &Context, group: &GroupId, site: &Site) -> Option<Sight> {
    Sight::of(Kind::Site, group, site, &site.spec, context.stamps.are_made())
}

fn sights(context: &Context, group: &GroupId) -> Vec<Sight> {
    let namespace = names::namespace(group);
    let all = context.sites.state();
    let ours = all.iter().filter(|site| site.metadata.namespace.as_ref() == Some(&namespace));
    let mut sights: Vec<Sight> = ours.filter_map(|site| sight(context, group, site)).collect();
    sights.sort_by(|one, other| one.name.cmp(&other.name));
    sights
}

async fn write(api: &Api<Namespace>, namespace: &Namespace, name: &str, memory: &Memory) -> Result<(), ApplyError> {
    let what = || format!("Namespace {name}");
    let text = serde_json::to_string(memory).map_err(|source| ApplyError::Encode { what: what(), source })?;
    let value = (!memory.is_empty()).then_some(text);
    let patch = json!({ "metadata": { "uid": namespace.uid(), "annotations": { ANNOTATION_SITES: value } } });
    let parameters = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    match api.patch_metadata(name, &parameters, &Patch::Merge(patch)).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()), // gone meanwhile
        other => other.map(|_| ()).map_err(failed::<Namespace>("note the recorded sites on", None, name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group() -> GroupId {
        "acme".parse().unwrap()
    }

    fn sight(name: &str, uid: &str, generation: i64) -> Sight {
        let spec = Recorded { generation, digest: format!("digest {generation}") };
        let (name, uid) = (name.to_owned(), uid.to_owned());
        Sight {
            kind: Kind::Site,
            group: group(),
            name,
            uid,
            spec,
            changed_by: Some("hanako".into()),
            changed_at: None,
            created: None,
            is_going: false,
        }
    }

    fn memory_of(all: &[(&str, &str, i64)]) -> Memory {
        let seen = |uid: &str, generation| Seen { uid: uid.to_owned(), generation, digest: format!("digest {generation}") };
        all.iter().map(|(name, uid, generation)| ((*name).to_owned(), seen(uid, *generation))).collect()
    }

    fn told(memory: &Memory, live: &[Sight]) -> Vec<String> {
        let word = |observation: &Observation| match &observation.what {
            What::Created(after) => format!("{} created {}", observation.name, after.generation),
            What::Changed { before, after } => format!("{} changed {} to {}", observation.name, before.generation, after.generation),
            What::Deleted { .. } => format!("{} deleted", observation.name),
        };
        changes(&group(), memory, live).iter().map(word).collect()
    }

    #[test]
    fn what_is_there_is_compared_with_what_is_recorded() {
        let recorded = memory_of(&[("hq", "u1", 1), ("lab", "u2", 4), ("old", "u3", 2)]);
        let live = [sight("hq", "u1", 1), sight("lab", "u2", 6), sight("new", "u9", 1)];
        assert_eq!(told(&recorded, &live), ["old deleted", "lab changed 4 to 6", "new created 1"]);
        assert!(told(&recorded, &[sight("hq", "u1", 1), sight("lab", "u2", 4), sight("old", "u3", 2)]).is_empty());
        assert_eq!(told(&Memory::new(), &[sight("hq", "u1", 3)]), ["hq created 3"]);
    }

    /// A deletion and a creation of the same name, both while nobody looked.
    #[test]
    fn a_name_that_was_taken_again_is_another_site() {
        assert_eq!(told(&memory_of(&[("hq", "u1", 1)]), &[sight("hq", "u2", 1)]), ["hq deleted", "hq created 1"]);
    }

    #[test]
    fn a_site_that_cannot_go_yet_has_not_gone() {
        let going = Sight { is_going: true, ..sight("hq", "u1", 1) };
        assert!(told(&memory_of(&[("hq", "u1", 1)]), &[going]).is_empty());
    }

    #[test]
    fn what_finds_no_place_is_remembered_by_the_process_alone() {
        let names: Vec<String> = (0..MOST + 5).map(|i| format!("site-{i:05}")).collect();
        let all = memory_of(&names.iter().map(|name| (name.as_str(), name.as_str(), 1)).collect::<Vec<_>>());
        let noted = bounded(&all);
        assert_eq!(noted.len(), MOST);
        assert!(serde_json::to_string(&noted).unwrap().len() < 200 << 10);
        assert_eq!(memory(Some(&noted), Some(&all)), all);
        assert_eq!(memory(Some(&noted), None), noted, "after a restart");
        assert_eq!(memory(Some(&Memory::new()), Some(&all)), Memory::new(), "what is noted counts, where it is another thing");
        assert_eq!(memory(None, Some(&all)), all, "the namespace has gone");
    }

    #[test]
    fn what_stands_on_a_namespace_is_short() {
        let seen = memory_of(&[("hq", "0b7c8f3e-9f5e-4a83-b5a5-3a1f0d5c2f10", 12)]);
        let text = serde_json::to_string(&seen).unwrap();
        assert_eq!(text, r#"{"hq":{"uid":"0b7c8f3e-9f5e-4a83-b5a5-3a1f0d5c2f10","gen":12,"digest":"digest 12"}}"#);
        assert_eq!(serde_json::from_str::<Memory>(&text).unwrap(), seen);
    }
}
