//! Pods that no group may run, each of them harmless but for one thing.

use serde_json::{Value, json};

use crate::access::PROBE;

/// The one thing that is wrong with a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PodTrait {
    AddsCapability,
    MayBeRoot,
    IsRoot,
    Privileged,
    EscalatesPrivileges,
    HostPath,
    HostNetwork,
    HostPort,
    HostPid,
    HostIpc,
    KeepsImages,
}

impl PodTrait {
    pub const ALL: [Self; 11] = [
        Self::AddsCapability,
        Self::MayBeRoot,
        Self::IsRoot,
        Self::Privileged,
        Self::EscalatesPrivileges,
        Self::HostPath,
        Self::HostNetwork,
        Self::HostPort,
        Self::HostPid,
        Self::HostIpc,
        Self::KeepsImages,
    ];

    /// What such a pod has or does.
    pub const fn describe(self) -> &'static str {
        match self {
            Self::AddsCapability => "adds a capability",
            Self::MayBeRoot => "does not forbid root",
            Self::IsRoot => "runs as root",
            Self::Privileged => "is privileged",
            Self::EscalatesPrivileges => "may gain privileges",
            Self::HostPath => "mounts a path of the host",
            Self::HostNetwork => "is in the host's network",
            Self::HostPort => "takes a port of the host",
            Self::HostPid => "sees the host's processes",
            Self::HostIpc => "shares the host's IPC",
            Self::KeepsImages => "uses an image that the node holds without asking the registry",
        }
    }

    /// Whether the restricted level of Pod Security refuses it. Pod Security does not check where images come from.
    pub const fn is_refused_by_restricted(self) -> bool {
        !matches!(self, Self::KeepsImages)
    }

    /// The pod. It is only created in a dry run and never runs, so its image is one that no registry has.
    pub fn manifest(self) -> Value {
        let amounts = json!({"cpu": "10m", "memory": "16Mi", "ephemeral-storage": "16Mi"});
        let mut container = json!({
            "name": "probe", "image": "tsujiban.invalid/probe:none", "imagePullPolicy": "Always",
            "resources": {"requests": amounts, "limits": amounts},
            "securityContext": {"allowPrivilegeEscalation": false, "runAsNonRoot": true, "capabilities": {"drop": ["ALL"]}},
        });
        let mut spec = json!({
            "automountServiceAccountToken": false, "restartPolicy": "Never",
            "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
        });
        let wrong = match self {
            Self::AddsCapability => (&mut container, json!({"securityContext": {"capabilities": {"add": ["NET_ADMIN"]}}})),
            Self::Privileged => (&mut container, json!({"securityContext": {"privileged": true, "allowPrivilegeEscalation": true}})),
            Self::EscalatesPrivileges => (&mut container, json!({"securityContext": {"allowPrivilegeEscalation": true}})),
            Self::MayBeRoot => {
                merge(&mut container, json!({"securityContext": {"runAsNonRoot": null}}));
                (&mut spec, json!({"securityContext": {"runAsNonRoot": null, "runAsUser": null}}))
            }
            Self::IsRoot => {
                merge(&mut container, json!({"securityContext": {"runAsNonRoot": false}}));
                (&mut spec, json!({"securityContext": {"runAsNonRoot": false, "runAsUser": 0}}))
            }
            Self::HostPort => (&mut container, json!({"ports": [{"containerPort": 8080, "hostPort": 8080}]})),
            Self::KeepsImages => (&mut container, json!({"imagePullPolicy": "IfNotPresent"})),
            Self::HostPath => {
                merge(&mut container, json!({"volumeMounts": [{"name": "host", "mountPath": "/host"}]}));
                (&mut spec, json!({"volumes": [{"name": "host", "hostPath": {"path": "/"}}]}))
            }
            Self::HostNetwork => (&mut spec, json!({"hostNetwork": true})),
            Self::HostPid => (&mut spec, json!({"hostPID": true})),
            Self::HostIpc => (&mut spec, json!({"hostIPC": true})),
        };
        merge(wrong.0, wrong.1);
        merge(&mut spec, json!({"containers": [container]}));
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": PROBE}, "spec": spec})
    }

    /// Whether a successful creation returned a pod without the wrong thing, since an admission plugin has corrected it.
    pub fn was_put_right(self, created: &Value) -> bool {
        self == Self::KeepsImages && created.pointer("/spec/containers/0/imagePullPolicy").is_some_and(|policy| policy == "Always")
    }
}

/// Objects are merged, null removes, everything else replaces.
fn merge(into: &mut Value, more: Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            for (key, value) in more {
                if value.is_null() {
                    into.remove(&key);
                } else {
                    merge(into.entry(key).or_insert(Value::Null), value);
                }
            }
        }
        (into, more) => *into = more,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pod_has_one_thing_wrong() {
        let mut seen: Vec<Value> = PodTrait::ALL.map(PodTrait::manifest).to_vec();
        seen.dedup();
        assert_eq!(seen.len(), PodTrait::ALL.len());
        let at = |wrong: PodTrait, path: &str| wrong.manifest().pointer(path).cloned().unwrap_or_default();
        assert_eq!(at(PodTrait::Privileged, "/spec/containers/0/securityContext/privileged"), true);
        assert_eq!(at(PodTrait::Privileged, "/spec/containers/0/securityContext/capabilities/drop/0"), "ALL");
        assert_eq!(at(PodTrait::MayBeRoot, "/spec/securityContext/runAsNonRoot"), Value::Null);
        assert_eq!(at(PodTrait::IsRoot, "/spec/securityContext/runAsUser"), 0);
        assert_eq!(at(PodTrait::HostPath, "/spec/volumes/0/hostPath/path"), "/");
        assert_eq!(at(PodTrait::KeepsImages, "/spec/containers/0/imagePullPolicy"), "IfNotPresent");
        assert!(!PodTrait::KeepsImages.was_put_right(&PodTrait::KeepsImages.manifest()));
    }
}
