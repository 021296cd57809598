//! Takes over the Sites that an operator of 0.1.x recorded. Sites had no status then, so that operator listed them in an annotation of
//! their group's namespace. The annotation is read once, so that no Site is recorded as created a second time, and a Site that was deleted
//! while no operator ran is recorded as deleted. It is removed when the status of each Site says what is recorded.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use kube::api::{ListParams, Patch, PatchParams};
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Client, ResourceExt};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::sleep;
use tsujiban_api::names::{ANNOTATION_SITES, FIELD_MANAGER, LABEL_MANAGED_BY, LABEL_TENANT, MANAGED_BY};
use tsujiban_api::{Recorded, Site, names};
use tsujiban_core::clock::Clock;
use tsujiban_core::error::chain;
use tsujiban_core::id::GroupId;

use super::{Change, Declared as _, Journal, Kind, Observation};
use crate::apply::{ApplyError, failed};
use crate::cache::Cache;

/// How long after a failure the namespaces are listed again.
const AFTER_ERROR: Duration = Duration::from_secs(5);
/// How often the Sites of a namespace are checked for being taken over.
const LOOK: Duration = Duration::from_secs(2);

/// A Site that the annotation lists as recorded.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct AnnotatedSite {
    uid: String,
    #[serde(rename = "gen")]
    generation: i64,
    digest: String,
}

/// The annotation of a group's namespace: recorded Sites, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Notes {
    group: GroupId,
    /// The uid of the namespace.
    uid: Option<String>,
    sites: BTreeMap<String, AnnotatedSite>,
}

impl Notes {
    /// Parses the annotation of a group's namespace. `None` if it has none.
    fn of(namespace: &PartialObjectMeta<Namespace>) -> Option<Self> {
        let text = namespace.annotations().get(ANNOTATION_SITES)?;
        let group: GroupId = namespace.labels().get(LABEL_TENANT)?.parse().ok()?;
        if names::namespace(&group) != namespace.name_any() {
            return None;
        }
        let sites = serde_json::from_str(text).unwrap_or_else(|error| {
            tracing::error!(
                group = %group,
                error = chain(&error),
                "the sites that are noted as recorded cannot be read: they are recorded as created once more"
            );
            BTreeMap::new()
        });
        Some(Self { group, uid: namespace.uid(), sites })
    }
}

/// What became of a Site that the annotation lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Presence {
    /// It exists, and its status does not say yet what is recorded.
    Unreported,
    /// It exists, and its status says what is recorded.
    Reported,
    Gone,
}

/// `live` is the Site that has the name now.
fn presence(site: &AnnotatedSite, live: Option<&Site>) -> Presence {
    match live.filter(|live| live.metadata.uid.as_ref() == Some(&site.uid)) {
        None => Presence::Gone,
        Some(live) if live.recorded_in_status().is_some() => Presence::Reported,
        Some(_) => Presence::Unreported,
    }
}

/// Takes over the annotations.
pub struct Takeover {
    pub client: Client,
    pub journal: Arc<Journal>,
    pub clock: Arc<dyn Clock>,
    pub sites: Cache<Site>,
    /// Set to true when Sites may be reconciled.
    pub taken_over: watch::Sender<bool>,
}

impl Takeover {
    /// Takes over the annotations, waits until the status of each Site says what is recorded, and removes the annotations. Does not return.
    pub async fn run(self) {
        if !self.journal.is_kept() {
            return std::future::pending().await; // the annotations stay until there is a history
        }
        self.sites.wait_for_sync().await;
        let mut waiting = loop {
            match noted(&self.client).await {
                Ok(notes) => break notes,
                Err(error) => {
                    tracing::warn!(error = chain(&error), "the namespaces of groups could not be listed; trying again in 5 s");
                    sleep(AFTER_ERROR).await;
                }
            }
        };
        for notes in &waiting {
            self.adopt(notes);
        }
        self.taken_over.send_replace(true);
        while !waiting.is_empty() {
            let mut left = Vec::new();
            for notes in waiting {
                match self.settle(&notes).await {
                    Ok(true) => {
                        tracing::info!(group = %notes.group, sites = notes.sites.len(), "what was noted of a group's sites is taken over");
                    }
                    Ok(false) => left.push(notes),
                    Err(error) => {
                        tracing::warn!(group = %notes.group, error = chain(&error), "what was noted of a group's sites is not taken over yet");
                        left.push(notes);
                    }
                }
            }
            waiting = left;
            sleep(LOOK).await;
        }
        std::future::pending::<()>().await;
    }

    /// Counts listed Sites as recorded whose status does not say so yet.
    fn adopt(&self, notes: &Notes) {
        for (name, site) in &notes.sites {
            if presence(site, self.cached(notes, name).as_deref()) == Presence::Unreported {
                self.journal.adopt(&site.uid, Recorded { generation: site.generation, digest: site.digest.clone() });
            }
        }
    }

    /// Records the deletion of listed Sites that are gone. Once the status of every other one says what is recorded, removes the annotation
    /// and returns true.
    async fn settle(&self, notes: &Notes) -> Result<bool, ApplyError> {
        let (mut is_done, mut gone) = (true, Vec::new());
        for (name, site) in &notes.sites {
            match presence(site, self.cached(notes, name).as_deref()) {
                Presence::Reported => {}
                Presence::Unreported => is_done = false,
                // the cache lacks a Site that this version cannot parse
                Presence::Gone if exists(&self.client, notes, name, site).await? => is_done = false,
                Presence::Gone => {
                    gone.push(&site.uid);
                    if !self.journal.is_deletion_recorded(&site.uid) {
                        self.journal.note(&[deletion(notes, name, site)], self.clock.now());
                        is_done = false;
                    }
                }
            }
        }
        if is_done {
            remove(&self.client, notes).await?;
            for uid in gone {
                self.journal.forget(uid);
            }
        }
        Ok(is_done)
    }

    fn cached(&self, notes: &Notes, name: &str) -> Option<Arc<Site>> {
        self.sites.get(&ObjectRef::new(name).within(&names::namespace(&notes.group)))
    }
}

/// The annotations of all groups' namespaces.
async fn noted(client: &Client) -> Result<Vec<Notes>, ApplyError> {
    let api: Api<Namespace> = Api::all(client.clone());
    let ours = ListParams::default().labels(&format!("{LABEL_MANAGED_BY}={MANAGED_BY}"));
    let listed = api.list_metadata(&ours).await.map_err(failed::<Namespace>("list", None, ""))?;
    Ok(listed.items.iter().filter_map(Notes::of).collect())
}

async fn exists(client: &Client, notes: &Notes, name: &str, site: &AnnotatedSite) -> Result<bool, ApplyError> {
    let namespace = names::namespace(&notes.group);
    let api: Api<Site> = Api::namespaced(client.clone(), &namespace);
    let found = api.get_metadata_opt(name).await.map_err(failed::<Site>("read", Some(&namespace), name))?;
    Ok(found.is_some_and(|found| found.metadata.uid.as_ref() == Some(&site.uid)))
}

fn deletion(notes: &Notes, name: &str, site: &AnnotatedSite) -> Observation {
    Observation {
        kind: Kind::Site,
        group: notes.group.clone(),
        name: name.to_owned(),
        uid: site.uid.clone(),
        what: Change::Deleted { before: Some(site.digest.clone()) },
        changed_by: None,
        changed_at: None,
        created: None,
    }
}

/// Removes the annotation from the namespace that was read, never from a later one of the same name.
async fn remove(client: &Client, notes: &Notes) -> Result<(), ApplyError> {
    let api: Api<Namespace> = Api::all(client.clone());
    let name = names::namespace(&notes.group);
    let found = api.get_metadata_opt(&name).await.map_err(failed::<Namespace>("read", None, &name))?;
    if found.is_none_or(|namespace| namespace.uid() != notes.uid) {
        return Ok(());
    }
    let patch = json!({ "metadata": { "uid": notes.uid, "annotations": { ANNOTATION_SITES: null } } });
    let parameters = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    match api.patch_metadata(&name, &parameters, &Patch::Merge(patch)).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()), // gone meanwhile
        other => other.map(|_| ()).map_err(failed::<Namespace>("remove the noted sites from", None, &name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespace(name: &str, group: &str, noted: &str) -> PartialObjectMeta<Namespace> {
        let metadata = json!({"name": name, "uid": "n1", "labels": {LABEL_TENANT: group}, "annotations": {ANNOTATION_SITES: noted}});
        serde_json::from_value(json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": metadata})).unwrap()
    }

    fn site(uid: &str, recorded: Option<i64>) -> Site {
        let recorded = recorded.map(|generation| json!({"generation": generation, "digest": "d"}));
        let spec = json!({"displayName": "a"});
        serde_json::from_value(json!({"metadata": {"name": "hq", "uid": uid}, "spec": spec, "status": {"recorded": recorded}})).unwrap()
    }

    #[test]
    fn what_operators_before_noted_is_read() {
        let text = r#"{"hq":{"uid":"u1","gen":12,"digest":"digest 12"}}"#;
        let noted = AnnotatedSite { uid: "u1".into(), generation: 12, digest: "digest 12".into() };
        let sites = BTreeMap::from([("hq".to_owned(), noted)]);
        let wanted = Notes { group: "acme".parse().unwrap(), uid: Some("n1".into()), sites };
        assert_eq!(Notes::of(&namespace("tn-acme", "acme", text)), Some(wanted.clone()));
        assert_eq!(Notes::of(&namespace("shop", "acme", text)), None, "no namespace of a group");
        let unreadable = Notes { sites: BTreeMap::new(), ..wanted };
        assert_eq!(Notes::of(&namespace("tn-acme", "acme", "{")), Some(unreadable), "it is removed, and does not hold up anything");
    }

    #[test]
    fn what_becomes_of_a_site_that_is_noted() {
        let noted = AnnotatedSite { uid: "u1".into(), generation: 1, digest: "d".into() };
        assert_eq!(presence(&noted, None), Presence::Gone);
        assert_eq!(presence(&noted, Some(&site("u2", None))), Presence::Gone, "another one has its name");
        assert_eq!(presence(&noted, Some(&site("u1", None))), Presence::Unreported);
        assert_eq!(presence(&noted, Some(&site("u1", Some(1)))), Presence::Reported);
    }
}
