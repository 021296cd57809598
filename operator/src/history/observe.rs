//! What has happened to an object since it was recorded last. Pure.

use jiff::Timestamp;
use kube::{Resource, ResourceExt};
use serde::Serialize;
use tsujiban_api::Recorded;
use tsujiban_api::names::ANNOTATION_CHANGED_BY;
use tsujiban_core::id::GroupId;

use super::{Kind, digest};

/// An object as it is seen now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sight {
    pub kind: Kind,
    pub group: GroupId,
    pub name: String,
    pub uid: String,
    /// The generation of the spec, and its digest.
    pub spec: Recorded,
    /// Who changed the spec last, as the apiserver says. `None` where it does not say.
    pub changed_by: Option<String>,
    pub created: Option<Timestamp>,
    /// Whether it is being deleted.
    pub is_going: bool,
}

impl Sight {
    /// `None` for what no apiserver answers: an object without uid or generation. `are_stamped` is whether the apiserver says who changed what;
    /// else the annotation may be anybody's.
    pub fn of<K: Resource>(kind: Kind, group: &GroupId, object: &K, spec: &impl Serialize, are_stamped: bool) -> Option<Self> {
        let generation = object.meta().generation?;
        let is_going = object.meta().deletion_timestamp.is_some();
        let changed_by = object.annotations().get(ANNOTATION_CHANGED_BY).filter(|user| are_stamped && !user.is_empty());
        Some(Self {
            kind,
            group: group.clone(),
            name: object.name_any(),
            uid: object.uid()?,
            // a deletion that has to wait counts as a generation, too
            spec: Recorded { generation: generation - i64::from(is_going), digest: digest(spec).ok()? },
            changed_by: changed_by.cloned(),
            created: object.creation_timestamp().map(|time| time.0),
            is_going,
        })
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// It is there and was never recorded: created, and perhaps changed since, up to this generation.
    Created(Recorded),
    /// Its spec was changed, by one edit or several.
    Changed { before: Recorded, after: Recorded },
    /// It was deleted, or is being deleted.
    Deleted { before: Option<String> },
}

impl What {
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
    pub what: What,
    pub changed_by: Option<String>,
    pub created: Option<Timestamp>,
}

/// What has happened since `known`, in the order in which it did. Edits that were made one after the other before anybody looked are one
/// observation of several generations.
pub fn observe(known: Option<&Recorded>, sight: &Sight) -> Vec<Observation> {
    let spec = &sight.spec;
    let change = match known {
        None => Some(What::Created(spec.clone())),
        Some(known) if spec.generation > known.generation => Some(What::Changed { before: known.clone(), after: spec.clone() }),
        Some(_) => None,
    };
    let end = sight.is_going.then(|| What::Deleted { before: Some(spec.digest.clone()) });
    let observation = |what: What| Observation {
        kind: sight.kind,
        group: sight.group.clone(),
        name: sight.name.clone(),
        uid: sight.uid.clone(),
        // of a deletion nobody says who asked for it
        changed_by: sight.changed_by.clone().filter(|_| what.recorded().is_some()),
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

    fn sight(generation: i64, name: &str, metadata: &Value) -> Sight {
        let site = site(generation, name, metadata);
        Sight::of(Kind::Site, &"acme".parse().unwrap(), &site, &site.spec, true).unwrap()
    }

    fn whats(known: Option<&Recorded>, sight: &Sight) -> Vec<What> {
        observe(known, sight).into_iter().map(|observation| observation.what).collect()
    }

    #[test]
    fn what_was_never_recorded_is_a_creation() {
        let seen = sight(3, "a", &json!({"annotations": {"tsujiban.dev/changed-by": "hanako"}}));
        assert_eq!(whats(None, &seen), [What::Created(seen.spec.clone())]);
        assert_eq!(observe(None, &seen)[0].changed_by.as_deref(), Some("hanako"));
    }

    #[test]
    fn edits_that_nobody_saw_one_by_one_are_a_range() {
        let (before, after) = (sight(2, "a", &json!({})).spec, sight(5, "b", &json!({})));
        assert_eq!(whats(Some(&before), &after), [What::Changed { before: before.clone(), after: after.spec.clone() }]);
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
        assert_eq!(whats(Some(&known), &deleted), [What::Deleted { before: Some(known.digest.clone()) }]);
        assert_eq!(observe(Some(&known), &deleted)[0].changed_by, None);
        let changed = sight(4, "b", &going);
        let both = whats(Some(&known), &changed);
        assert!(matches!(&both[..], [What::Changed { after, .. }, What::Deleted { .. }] if after.generation == 3), "{both:?}");
        assert!(matches!(&whats(None, &changed)[..], [What::Created(_), What::Deleted { .. }]));
    }

    /// Where the apiserver does not stamp, the annotation is whatever somebody wrote there.
    #[test]
    fn nobody_is_believed_who_the_apiserver_did_not_name() {
        let forged = site(1, "a", &json!({"annotations": {"tsujiban.dev/changed-by": "somebody-else"}}));
        let by =
            |site: &Site, are_stamped| Sight::of(Kind::Site, &"acme".parse().unwrap(), site, &site.spec, are_stamped).unwrap().changed_by;
        assert_eq!(by(&forged, false), None);
        assert_eq!(by(&forged, true).as_deref(), Some("somebody-else"));
        assert_eq!(by(&site(1, "a", &json!({"annotations": {"tsujiban.dev/changed-by": ""}})), true), None);
    }
}
