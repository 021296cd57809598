//! What has happened to an object since it was recorded last. Pure.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kube::{Resource, ResourceExt};
use serde::Serialize;
use tsujiban_api::Recorded;
use tsujiban_api::names::ANNOTATION_CHANGED_BY;
use tsujiban_core::id::GroupId;

use super::{Kind, digest};

/// Annotation of objects in a cache, and nowhere else: when the spec was changed last.
pub const CHANGED_AT: &str = "tsujiban.dev/changed-at";

/// An object as it is seen now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectSnapshot {
    pub kind: Kind,
    pub group: GroupId,
    pub name: String,
    pub uid: String,
    /// The generation of the spec, and its digest.
    pub spec: Recorded,
    /// Who changed the spec last, as the apiserver stamped it. `None` without a stamp.
    pub changed_by: Option<String>,
    /// When the spec was changed last, by the apiserver's clock.
    pub changed_at: Option<Timestamp>,
    pub created: Option<Timestamp>,
    /// Whether it is being deleted.
    pub is_going: bool,
}

impl ObjectSnapshot {
    /// `None` for an object without UID or generation, which no apiserver returns. `are_stamped` is whether the apiserver stamps who
    /// changed what; without that, the annotation is ignored, since any user can write it.
    pub fn of<K: Resource>(kind: Kind, group: &GroupId, object: &K, spec: &impl Serialize, are_stamped: bool) -> Option<Self> {
        let generation = object.meta().generation?;
        let is_going = object.meta().deletion_timestamp.is_some();
        let changed_by = object.annotations().get(ANNOTATION_CHANGED_BY).filter(|user| are_stamped && !user.is_empty());
        Some(Self {
            kind,
            group: group.clone(),
            name: object.name_any(),
            uid: object.uid()?,
            // the apiserver counts a deletion that waits for a finalizer as a generation, too
            spec: Recorded { generation: generation - i64::from(is_going), digest: digest(spec).ok()? },
            changed_by: changed_by.cloned(),
            changed_at: changed_at(object),
            created: object.creation_timestamp().map(|time| time.0),
            is_going,
        })
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It exists and was never recorded: it was created, and perhaps changed since, up to this generation.
    Created(Recorded),
    /// Its spec was changed, by one edit or several.
    Changed { before: Recorded, after: Recorded },
    /// It was deleted, or is being deleted.
    Deleted { before: Option<String> },
}

impl Change {
    /// The spec that is recorded with it.
    pub fn recorded(&self) -> Option<&Recorded> {
        match self {
            Self::Created(after) | Self::Changed { after, .. } => Some(after),
            Self::Deleted { .. } => None,
        }
    }
}

/// Something that happened to an object, to be recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    pub kind: Kind,
    pub group: GroupId,
    pub name: String,
    pub uid: String,
    pub what: Change,
    pub changed_by: Option<String>,
    /// When the spec was changed last, by the apiserver's clock.
    pub changed_at: Option<Timestamp>,
    pub created: Option<Timestamp>,
}

/// When the spec of an object was changed last: from its managed fields, or from the annotation that [`note_change`] has derived from them.
fn changed_at<K: Resource>(object: &K) -> Option<Timestamp> {
    // the annotation counts only where the managed fields were removed: on a live object any user could have written it
    if object.managed_fields().is_empty()
        && let Some(noted) = object.annotations().get(CHANGED_AT)
    {
        return noted.parse().ok();
    }
    let is_of_spec = |entry: &&ManagedFieldsEntry| {
        let fields = entry.fields_v1.as_ref().and_then(|fields| fields.0.as_object());
        entry.subresource.as_deref().unwrap_or_default().is_empty() && fields.is_some_and(|fields| fields.contains_key("f:spec"))
    };
    let times = object.managed_fields().iter().filter(is_of_spec).filter_map(|entry| Some(entry.time.as_ref()?.0));
    // every change of the spec makes its author a field manager; an object that was never changed has its creation time
    times.max().max(object.creation_timestamp().map(|time| time.0))
}

/// Removes the managed fields, which are large, from an object, and keeps when its spec was changed last.
pub fn note_change<K: Resource>(object: &mut K) {
    let changed_at = changed_at(object);
    object.managed_fields_mut().clear();
    object.annotations_mut().extend(changed_at.map(|at| (CHANGED_AT.to_owned(), at.to_string())));
}

/// What has happened since `known`, in order. Several edits between two reads are one observation of several generations.
pub fn observe(known: Option<&Recorded>, sight: &ObjectSnapshot) -> Vec<Observation> {
    let spec = &sight.spec;
    let change = match known {
        None => Some(Change::Created(spec.clone())),
        Some(known) if spec.generation > known.generation => Some(Change::Changed { before: known.clone(), after: spec.clone() }),
        Some(_) => None,
    };
    let end = sight.is_going.then(|| Change::Deleted { before: Some(spec.digest.clone()) });
    let observation = |what: Change| Observation {
        kind: sight.kind,
        group: sight.group.clone(),
        name: sight.name.clone(),
        uid: sight.uid.clone(),
        // the apiserver does not stamp who asked for a deletion
        changed_by: sight.changed_by.clone().filter(|_| what.recorded().is_some()),
        changed_at: sight.changed_at,
        created: sight.created,
        what,
    };
    change.into_iter().chain(end).map(observation).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use tsujiban_api::Site;

    fn site(generation: i64, name: &str, metadata: &Value) -> Site {
        let mut site = json!({"apiVersion": "tsujiban.dev/v1alpha1", "kind": "Site", "spec": {"displayName": name},
            "metadata": {"name": "hq", "uid": "u1", "generation": generation, "creationTimestamp": "2026-01-01T00:00:00Z"}});
        site["metadata"].as_object_mut().unwrap().extend(metadata.as_object().unwrap().clone());
        serde_json::from_value(site).unwrap()
    }

    fn sight(generation: i64, name: &str, metadata: &Value) -> ObjectSnapshot {
        let site = site(generation, name, metadata);
        ObjectSnapshot::of(Kind::Site, &"acme".parse().unwrap(), &site, &site.spec, true).unwrap()
    }

    fn whats(known: Option<&Recorded>, sight: &ObjectSnapshot) -> Vec<Change> {
        observe(known, sight).into_iter().map(|observation| observation.what).collect()
    }

    #[test]
    fn what_was_never_recorded_is_a_creation() {
        let seen = sight(3, "a", &json!({"annotations": {"tsujiban.dev/changed-by": "hanako"}}));
        assert_eq!(whats(None, &seen), [Change::Created(seen.spec.clone())]);
        assert_eq!(observe(None, &seen)[0].changed_by.as_deref(), Some("hanako"));
    }

    #[test]
    fn edits_that_nobody_saw_one_by_one_are_a_range() {
        let (before, after) = (sight(2, "a", &json!({})).spec, sight(5, "b", &json!({})));
        assert_eq!(whats(Some(&before), &after), [Change::Changed { before: before.clone(), after: after.spec.clone() }]);
        assert!(whats(Some(&after.spec), &after).is_empty(), "nothing happened");
        // there and back is two changes, though nothing differs
        let back = sight(4, "a", &json!({}));
        assert_eq!(whats(Some(&before), &back).len(), 1);
    }

    #[test]
    fn a_deletion_comes_after_the_change_before_it_and_names_nobody() {
        let going = json!({"deletionTimestamp": "2026-01-02T00:00:00Z", "annotations": {"tsujiban.dev/changed-by": "hanako"}});
        let known = sight(2, "a", &json!({})).spec;
        let deleted = sight(3, "a", &going); // the deletion is a generation
        assert_eq!(whats(Some(&known), &deleted), [Change::Deleted { before: Some(known.digest.clone()) }]);
        assert_eq!(observe(Some(&known), &deleted)[0].changed_by, None);
        let changed = sight(4, "b", &going);
        let both = whats(Some(&known), &changed);
        assert!(matches!(&both[..], [Change::Changed { after, .. }, Change::Deleted { .. }] if after.generation == 3), "{both:?}");
        assert!(matches!(&whats(None, &changed)[..], [Change::Created(_), Change::Deleted { .. }]));
    }

    /// Where the apiserver does not stamp, the annotation is whatever somebody wrote there.
    #[test]
    fn nobody_is_believed_who_the_apiserver_did_not_name() {
        let forged = site(1, "a", &json!({"annotations": {"tsujiban.dev/changed-by": "somebody-else"}}));
        let by = |site: &Site, are_stamped| {
            ObjectSnapshot::of(Kind::Site, &"acme".parse().unwrap(), site, &site.spec, are_stamped).unwrap().changed_by
        };
        assert_eq!(by(&forged, false), None);
        assert_eq!(by(&forged, true).as_deref(), Some("somebody-else"));
        assert_eq!(by(&site(1, "a", &json!({"annotations": {"tsujiban.dev/changed-by": ""}})), true), None);
    }

    /// Who sets a label, and who writes a status, has not changed the spec.
    #[test]
    fn a_spec_was_changed_when_its_newest_manager_wrote() {
        let field = |manager: &str, time: &str, subresource: &str, fields: Value| json!({"manager": manager, "operation": "Update", "time": time, "subresource": subresource, "fieldsType": "FieldsV1", "fieldsV1": fields});
        let spec = json!({"f:spec": {"f:displayName": {}}});
        let managed = json!({"managedFields": [
            field("hanako", "2026-01-03T00:00:00Z", "", spec.clone()),
            field("taro", "2026-01-02T00:00:00Z", "", spec.clone()),
            field("labels", "2026-01-04T00:00:00Z", "", json!({"f:metadata": {"f:labels": {}}})),
            field("operator", "2026-01-05T00:00:00Z", "status", json!({"f:status": {}, "f:spec": {}})),
        ]});
        let mut changed = site(2, "a", &managed);
        let third = "2026-01-03T00:00:00Z".parse().ok();
        assert_eq!(changed_at(&changed), third);
        note_change(&mut changed);
        assert!(changed.managed_fields().is_empty());
        assert_eq!(changed_at(&changed), third, "from the cache");
        assert_eq!(changed_at(&site(1, "a", &json!({}))), "2026-01-01T00:00:00Z".parse().ok(), "since it was made");
    }
}
