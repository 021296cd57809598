//! Who may do what in the namespace. The roles are fixed ClusterRoles; only who holds them differs.

use k8s_openapi::api::rbac::v1::{RoleBinding, RoleRef, Subject};
use tsujiban_api::names::{COLLECTOR, OPERATOR, ROLE_COLLECTOR, ROLE_OPERATOR, ROLE_OWNER, namespace};
use tsujiban_api::tenant::{Owner, OwnerKind};

use super::{Platform, labels};
use crate::controllers::tenant::validate::{Identity, ValidTenant};

const RBAC: &str = "rbac.authorization.k8s.io";

/// The operator's binding comes first: all the others, and everything else in the namespace, are written with its rights.
pub fn all(tenant: &ValidTenant, platform: &Platform) -> Vec<RoleBinding> {
    let id = &tenant.id;
    let collector = account(COLLECTOR, &namespace(&id.group));
    let mut bindings = vec![operator(id, &platform.system_namespace), binding(id, ROLE_COLLECTOR, vec![collector])];
    if !tenant.owners.is_empty() {
        bindings.push(binding(id, ROLE_OWNER, tenant.owners.iter().map(owner).collect()));
    }
    bindings
}

/// The operator's own rights inside the namespace.
pub fn operator(id: &Identity, system_namespace: &str) -> RoleBinding {
    binding(id, ROLE_OPERATOR, vec![account(OPERATOR, system_namespace)])
}

fn binding(id: &Identity, role: &str, subjects: Vec<Subject>) -> RoleBinding {
    RoleBinding {
        metadata: labels::object(id, role),
        role_ref: RoleRef { api_group: Some(RBAC.to_owned()), kind: "ClusterRole".to_owned(), name: role.to_owned() },
        subjects: Some(subjects),
    }
}

fn account(name: &str, namespace: &str) -> Subject {
    Subject { kind: "ServiceAccount".to_owned(), name: name.to_owned(), namespace: Some(namespace.to_owned()), api_group: None }
}

fn owner(owner: &Owner) -> Subject {
    let kind = match owner.kind {
        OwnerKind::User => "User",
        OwnerKind::Group => "Group",
        OwnerKind::ServiceAccount => return account(&owner.name, owner.namespace.as_deref().unwrap_or_default()),
    };
    Subject { kind: kind.to_owned(), name: owner.name.clone(), namespace: None, api_group: Some(RBAC.to_owned()) }
}
