//! Finds rights in the namespace beyond those that the operator bound.

use std::collections::BTreeSet;

use k8s_openapi::api::rbac::v1::{RoleBinding, Subject};
use tsujiban_api::names;

use super::{Wanted, key, owner_key};

/// Subjects that include everybody, or nearly.
const EVERYBODY: [&str; 4] = ["system:authenticated", "system:unauthenticated", "system:serviceaccounts", "system:anonymous"];

pub fn judge(bindings: &[RoleBinding], wanted: &Wanted) -> Result<String, Vec<String>> {
    let owners: BTreeSet<String> = wanted.owners.iter().map(owner_key).collect();
    let wrong: Vec<String> = bindings.iter().flat_map(|binding| binding_faults(binding, &owners, wanted)).collect();
    if !wrong.is_empty() {
        return Err(wrong);
    }
    let foreign = bindings.iter().filter(|binding| !is_generated(binding)).count();
    Ok(match foreign {
        0 => "only the RoleBindings of the operator are there".to_owned(),
        more => format!("{more} RoleBindings besides the operator's name neither an owner, nor another group, nor everybody"),
    })
}

/// Ours by name and role: the role of a binding cannot be changed, and who is in it is checked.
fn is_generated(binding: &RoleBinding) -> bool {
    let name = binding.metadata.name.as_deref().unwrap_or_default();
    [names::ROLE_OWNER, names::ROLE_COLLECTOR, names::ROLE_OPERATOR].contains(&name)
        && binding.role_ref.kind == "ClusterRole"
        && binding.role_ref.name == name
}

fn binding_faults(binding: &RoleBinding, owners: &BTreeSet<String>, wanted: &Wanted) -> Vec<String> {
    let name = binding.metadata.name.as_deref().unwrap_or_default();
    let role = format!("{} {}", binding.role_ref.kind, binding.role_ref.name);
    let subjects = binding.subjects.iter().flatten();
    if is_generated(binding) {
        let strangers = subjects.filter(|subject| !is_expected(name, subject, owners, wanted));
        return strangers.map(|subject| format!("RoleBinding {name} names {}, who does not belong there", subject_key(subject))).collect();
    }
    let reached = subjects.filter_map(|subject| who(subject, owners, wanted).map(|who| (subject_key(subject), who)));
    reached.map(|(subject, who)| format!("RoleBinding {name} gives {role} to {subject}, {who}: delete it")).collect()
}

fn is_expected(binding: &str, subject: &Subject, owners: &BTreeSet<String>, wanted: &Wanted) -> bool {
    let account = |namespace: &str, name: &str| subject_key(subject) == key("ServiceAccount", Some(namespace), name);
    match binding {
        names::ROLE_COLLECTOR => account(&wanted.namespace, names::COLLECTOR),
        names::ROLE_OPERATOR => account(&wanted.system_namespace, names::OPERATOR),
        _ => owners.contains(&subject_key(subject)),
    }
}

/// Why a subject must not have rights here; `None` if it may.
fn who(subject: &Subject, owners: &BTreeSet<String>, wanted: &Wanted) -> Option<&'static str> {
    let key = subject_key(subject);
    let is_account = subject.kind == "ServiceAccount";
    let accounts_of_group = subject.name.strip_prefix("system:serviceaccounts:");
    if owners.contains(&key) {
        Some("an owner, who holds tsujiban-tenant-owner already")
    } else if wanted.others.contains(&key) {
        Some("an owner of another group")
    } else if EVERYBODY.contains(&subject.name.as_str()) || accounts_of_group.is_some() {
        Some("which is everybody of a kind")
    } else if is_account && subject.namespace.as_ref().is_some_and(|namespace| namespace.starts_with("tn-")) {
        Some("an account of a group")
    } else {
        None
    }
}

fn subject_key(subject: &Subject) -> String {
    key(&subject.kind, subject.namespace.as_deref(), &subject.name)
}
