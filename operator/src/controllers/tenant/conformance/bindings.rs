//! Watches the ClusterRoleBindings, so that an owner who is bound to a powerful role is noticed within seconds, and not after ten minutes.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use tsujiban_api::Tenant;
use tsujiban_api::tenant::{Owner, OwnerKind};
use tsujiban_conformance::live::{key, owner_key};

use crate::controllers::tenant::context::TenantContext;
use crate::queue::Queue;

/// A watch on a dead connection is noticed after this long.
const WATCH_SECONDS: u32 = 60;
/// Groups that include everybody: too many Tenants to queue at once. Their owners are checked again when it is their turn.
const CROWDS: [&str; 3] = ["Group system:authenticated", "Group system:serviceaccounts", "Group system:unauthenticated"];

/// Watches them for ever. Only the subjects of each binding are kept.
pub async fn follow(context: Arc<TenantContext>, queue: Queue<Tenant>) {
    let api: Api<ClusterRoleBinding> = Api::all(context.shared.client.clone());
    let config = watcher::Config::default().timeout(WATCH_SECONDS).streaming_lists();
    let mut events = std::pin::pin!(watcher(api, config).default_backoff());
    let mut known: HashMap<String, BTreeSet<String>> = HashMap::new();
    while let Some(event) = events.next().await {
        let changed = match event {
            Ok(watcher::Event::Apply(binding) | watcher::Event::InitApply(binding)) => apply(&mut known, &binding),
            Ok(watcher::Event::Delete(binding)) => known.remove(&binding.name_any()).unwrap_or_default(),
            Ok(watcher::Event::Init | watcher::Event::InitDone) => continue,
            Err(error) => {
                tracing::debug!(
                    error = tsujiban_core::error::chain(&error),
                    "the watch on ClusterRoleBindings was interrupted; it starts again by itself"
                );
                continue;
            }
        };
        invalidate(&context, &queue, &changed);
    }
}

/// The subjects that a changed binding concerns: those that it names and those that it named before. None if they are the same.
fn apply(known: &mut HashMap<String, BTreeSet<String>>, binding: &ClusterRoleBinding) -> BTreeSet<String> {
    let subjects = binding.subjects.iter().flatten();
    let now: BTreeSet<String> = subjects.map(|subject| key(&subject.kind, subject.namespace.as_deref(), &subject.name)).collect();
    match known.insert(binding.name_any(), now.clone()) {
        Some(before) if before == now => BTreeSet::new(),
        Some(before) => before.union(&now).cloned().collect(),
        None => now,
    }
}

fn invalidate(context: &TenantContext, queue: &Queue<Tenant>, changed: &BTreeSet<String>) {
    if changed.is_empty() {
        return;
    }
    let is_crowd = changed.iter().any(|subject| CROWDS.contains(&subject.as_str()));
    for tenant in context.tenants.list() {
        if is_crowd || concerns(&tenant, changed) {
            context.access_reviews.invalidate(&tenant.name_any());
            context.sync_cache.invalidate(&tenant.name_any());
            if !is_crowd {
                queue.add(&tenant);
            }
        }
    }
}

fn concerns(tenant: &Tenant, changed: &BTreeSet<String>) -> bool {
    tenant.spec.owners.iter().any(|owner| changed.contains(&owner_key(owner)) || is_among_accounts(owner, changed))
}

/// Whether `changed` names a ServiceAccount by the group of its namespace, or by its user name.
fn is_among_accounts(owner: &Owner, changed: &BTreeSet<String>) -> bool {
    let (OwnerKind::ServiceAccount, Some(namespace)) = (owner.kind, &owner.namespace) else { return false };
    let name = &owner.name;
    changed.contains(&format!("Group system:serviceaccounts:{namespace}"))
        || changed.contains(&format!("User system:serviceaccount:{namespace}:{name}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn binding(name: &str, subjects: &serde_json::Value) -> ClusterRoleBinding {
        serde_json::from_value(json!({
            "metadata": {"name": name}, "subjects": subjects,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        }))
        .unwrap()
    }

    fn tenant(owners: &serde_json::Value) -> Tenant {
        serde_json::from_value(json!({
            "apiVersion": "tsujiban.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": "acme"},
            "spec": {"displayName": "A", "plan": "Free", "contact": {"email": "a@b.c"}, "network": {"deviceCIDRs": ["192.0.2.0/24"]}, "owners": owners},
        }))
        .unwrap()
    }

    #[test]
    fn only_a_change_concerns_anybody_and_so_does_who_was_taken_out() {
        let mut known = HashMap::new();
        let user = |name: &str| json!({"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": name});
        assert_eq!(apply(&mut known, &binding("x", &json!([user("a")]))), ["User a".to_owned()].into());
        assert!(apply(&mut known, &binding("x", &json!([user("a")]))).is_empty(), "a watch that starts again brings it again");
        let changed = apply(&mut known, &binding("x", &json!([user("b")])));
        assert_eq!(changed, ["User a".to_owned(), "User b".to_owned()].into());
    }

    #[test]
    fn an_owner_is_found_by_each_of_the_names_they_have() {
        let tenant = tenant(
            &json!([{"kind": "User", "name": "a"}, {"kind": "Group", "name": "g"}, {"kind": "ServiceAccount", "name": "s", "namespace": "ci"}]),
        );
        for name in ["User a", "Group g", "ServiceAccount ci/s", "Group system:serviceaccounts:ci", "User system:serviceaccount:ci:s"] {
            assert!(concerns(&tenant, &[name.to_owned()].into()), "{name}");
        }
        for name in ["User g", "Group a", "ServiceAccount other/s", "Group system:serviceaccounts:other", "User s"] {
            assert!(!concerns(&tenant, &[name.to_owned()].into()), "{name}");
        }
    }
}
