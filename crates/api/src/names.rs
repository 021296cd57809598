//! Names that the operator, the chart, the collector and the CLI agree on. Those of services follow from their rows: `tsujiban_core::workload`.

use tsujiban_core::id::GroupId;

/// The API group of all kinds.
pub const GROUP: &str = "tsujiban.dev";
/// The field manager of everything the operator applies.
pub const FIELD_MANAGER: &str = "tsujiban-operator";
/// The namespace into which the chart is installed unless told otherwise.
pub const SYSTEM_NAMESPACE: &str = "tsujiban-system";

/// Label of every generated object: the group id.
pub const LABEL_TENANT: &str = "tsujiban.dev/tenant";
/// Label of every generated object: the UID of the Tenant for which it was made.
pub const LABEL_TENANT_UID: &str = "tsujiban.dev/tenant-uid";
/// Label of generated credentials: the Device's name.
pub const LABEL_DEVICE: &str = "tsujiban.dev/device";
/// Label that says who keeps an object; policies refuse changes by others.
pub const LABEL_MANAGED_BY: &str = "app.kubernetes.io/managed-by";
pub const MANAGED_BY: &str = "tsujiban-operator";
/// Label of our pods, which the network policies select.
pub const LABEL_COMPONENT: &str = "app.kubernetes.io/component";
pub const COMPONENT_COLLECTOR: &str = "collector";

/// Annotation of a tenant namespace: the incarnation under which the services keep the group's data.
pub const ANNOTATION_INCARNATION: &str = "tsujiban.dev/incarnation";
/// Annotation of a tenant namespace: the id of the group's log of the operation history, so that the log goes on under it when the audit
/// service has lost its volume.
pub const ANNOTATION_HISTORY_LOG: &str = "tsujiban.dev/history-log";
/// Annotation of a tenant namespace, by operators before Sites had a status: the Sites that are in the operation history. It is read once, and
/// removed when the Sites say it themselves.
pub const ANNOTATION_SITES: &str = "tsujiban.dev/recorded-sites";
/// Annotation of Tenants, Sites and Devices: who changed the spec last. The apiserver writes it, where it can.
pub const ANNOTATION_CHANGED_BY: &str = "tsujiban.dev/changed-by";
/// Annotation of Secret `tsujiban-epoch-keys`, set by whoever puts missing entries back: `<user>: <reason>`. A policy checks the user; the operator
/// records it in the operation history, and then takes it away.
pub const ANNOTATION_RESTORE_KEYS: &str = "tsujiban.dev/restore-keys";
/// Annotation of a Job made by hand (`tsujiban backup now`): do not wait for a place in the window.
pub const ANNOTATION_IMMEDIATE: &str = "tsujiban.dev/immediate";

/// Finalizer of Tenants, Sites and Devices.
pub const FINALIZER: &str = "tsujiban.dev/operator";
/// The type of a Secret with a device's credentials: keys `username` and `password`, or `username` and `ssh-privatekey`.
pub const CREDENTIALS_TYPE: &str = "tsujiban.dev/device-credentials";

/// The one CronJob that backs up a group's devices.
pub const CRONJOB: &str = "device-backup";
/// The ServiceAccount of the collector's pods, in the group's namespace.
pub const COLLECTOR: &str = "collector";
/// The ConfigMap with the internal CA's certificates (key `ca.crt`) in the group's namespace.
pub const CA_CONFIGMAP: &str = "tsujiban-ca";
/// ResourceQuota and LimitRange of the group's namespace.
pub const QUOTA: &str = "tenant";
pub const LIMITS: &str = "tenant";

/// NetworkPolicies of the group's namespace.
pub const POLICY_DENY_ALL: &str = "deny-all";
pub const POLICY_DNS: &str = "dns";
pub const POLICY_COLLECTOR: &str = "collector";
/// A NetworkPolicy of one of these names in a group's namespace is the operator's, whatever its labels say.
pub const POLICIES: [&str; 3] = [POLICY_DENY_ALL, POLICY_DNS, POLICY_COLLECTOR];

/// ClusterRoles of the chart that the operator binds in a group's namespace, and the RoleBindings' names.
pub const ROLE_OWNER: &str = "tsujiban-tenant-owner";
pub const ROLE_COLLECTOR: &str = "tsujiban-collector";
pub const ROLE_OPERATOR: &str = "tsujiban-operator-tenant";
/// A RoleBinding of one of these names in a group's namespace is the operator's, whatever its labels say.
pub const ROLE_BINDINGS: [&str; 3] = [ROLE_OPERATOR, ROLE_COLLECTOR, ROLE_OWNER];

/// The operator's ServiceAccount in the system namespace.
pub const OPERATOR: &str = "tsujiban-operator";
/// The MutatingAdmissionPolicy, and its binding, by which the apiserver writes down who changed what people declare.
pub const POLICY_CHANGED_BY: &str = "tsujiban-changed-by";
/// The ConfigMap of the system namespace with the admission policies as the chart has them (key `policies.json`).
pub const CONFIGMAP_POLICIES: &str = "tsujiban-policies";
/// The ConfigMap of the system namespace in which the operator keeps what it must know after a restart.
pub const CONFIGMAP_OPERATOR: &str = "tsujiban-operator";
/// The prefix of the ServiceAccounts of staff in the system namespace: `staff-<name>`.
pub const STAFF_PREFIX: &str = "staff-";

/// Secrets in the system namespace that the operator makes.
pub const SECRET_MASTER_KEY: &str = "tsujiban-master-key";
pub const SECRET_EPOCH_KEYS: &str = "tsujiban-epoch-keys";
pub const SECRET_CA: &str = "tsujiban-ca";

/// The namespace of a group.
pub fn namespace(group: &GroupId) -> String {
    format!("tn-{group}")
}

/// The headless Service that leads to a service's pods whether they are ready or not.
pub fn direct(service: &str) -> String {
    format!("{service}-direct")
}

/// The group to which a namespace belongs by its name. The name alone proves nothing; the caller checks the labels.
pub fn group_of_namespace(namespace: &str) -> Option<GroupId> {
    namespace.strip_prefix("tn-")?.parse().ok()
}

/// The Secret with the key pair that is generated for a device without credentials of its own.
pub fn generated_credentials(device: &str) -> String {
    format!("device-{device}-ssh")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_leads_back_to_its_group() {
        let group: GroupId = "acme".parse().unwrap();
        assert_eq!(group_of_namespace(&namespace(&group)), Some(group));
        assert_eq!(group_of_namespace("kube-system"), None);
        assert_eq!(group_of_namespace("tn-X"), None);
    }
}
