//! Turns a declared Tenant into one that can be built. Pure.

use tsujiban_api::Tenant;
use tsujiban_api::tenant::{Owner, OwnerKind, TenantSpec};
use tsujiban_core::address::{DeviceNetworks, Forbidden, Refused, network};
use tsujiban_core::id::{GroupId, InvalidId};
use tsujiban_core::schedule::{InvalidSchedule, Plan};

use super::quantity::{InvalidQuantity, Quantity};

/// What one run of the collector needs.
pub const COLLECTOR_CPU: Quantity = Quantity::milli(50);
pub const COLLECTOR_MEMORY: Quantity = Quantity::mebi(256);
pub const COLLECTOR_STORAGE: Quantity = Quantity::mebi(64);

/// What is wrong with a Tenant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    #[error("the Tenant has no uid")]
    NoUid,
    #[error(transparent)]
    Name(#[from] InvalidId),
    #[error("network.deviceCIDRs: {0}")]
    Network(#[source] Refused),
    #[error("backup.{0}")]
    Schedule(#[from] InvalidSchedule),
    #[error("quota.{field}: {source}")]
    Quantity {
        field: &'static str,
        #[source]
        source: InvalidQuantity,
    },
    #[error("owners: {0:?} is not the name of a ServiceAccount, which has a-z, 0-9, '-' and '.' only")]
    Owner(String),
    #[error("quota.{field} is {given}, and one run of the collector needs {needed}: raise it")]
    TooSmall { field: &'static str, given: Quantity, needed: Quantity },
}

/// A Tenant that can be built.
#[derive(Debug, Clone)]
pub struct ValidTenant {
    pub id: Identity,
    pub owners: Vec<Owner>,
    pub suspended: bool,
    pub quota: ValidQuota,
    pub networks: DeviceNetworks,
    pub plan: Plan,
    pub max_concurrent: u32,
}

/// The identity of a Tenant: the group, and the UID of the Tenant object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub group: GroupId,
    pub uid: String,
}

/// Upper bounds whose amounts were parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidQuota {
    pub cpu: Quantity,
    pub memory: Quantity,
    pub ephemeral_storage: Quantity,
    pub pods: u32,
    pub secrets: u32,
    pub configmaps: u32,
}

/// The identity of a Tenant, which is valid even if its spec is not.
pub fn identity(tenant: &Tenant) -> Result<Identity, Invalid> {
    let group = tenant.metadata.name.clone().unwrap_or_default().parse()?;
    let uid = tenant.metadata.uid.clone().ok_or(Invalid::NoUid)?;
    Ok(Identity { group, uid })
}

/// Checks what the apiserver could not: device networks against the cluster's own, the schedule, the amounts. Returns all errors at once.
pub fn validate(id: &Identity, spec: &TenantSpec, forbidden: &Forbidden) -> Result<ValidTenant, Vec<Invalid>> {
    let mut wrong = Vec::new();
    let mut declared = Vec::new();
    for text in &spec.network.device_cidrs {
        match network(text).and_then(|net| forbidden.check_network(&net).map(|()| net)) {
            Ok(net) => declared.push(net),
            Err(refused) => wrong.push(Invalid::Network(refused)),
        }
    }
    let wrong_owners = spec.owners.iter().filter(|owner| owner.kind == OwnerKind::ServiceAccount && !is_account_name(&owner.name));
    wrong.extend(wrong_owners.map(|owner| Invalid::Owner(owner.name.clone())));
    let plan = keep(Plan::new(&spec.backup.schedule, &spec.backup.time_zone, spec.backup.window_minutes), &mut wrong);
    let cpu = keep(at_least("cpu", &spec.quota.cpu, COLLECTOR_CPU), &mut wrong);
    let memory = keep(at_least("memory", &spec.quota.memory, COLLECTOR_MEMORY), &mut wrong);
    let storage = keep(at_least("ephemeralStorage", &spec.quota.ephemeral_storage, COLLECTOR_STORAGE), &mut wrong);
    match (plan, cpu, memory, storage) {
        (Some(plan), Some(cpu), Some(memory), Some(ephemeral_storage)) if wrong.is_empty() => Ok(ValidTenant {
            id: id.clone(),
            owners: spec.owners.clone(),
            suspended: spec.suspended,
            quota: ValidQuota {
                cpu,
                memory,
                ephemeral_storage,
                pods: spec.quota.pods,
                secrets: spec.quota.secrets,
                configmaps: spec.quota.configmaps,
            },
            networks: DeviceNetworks { forbidden: forbidden.clone(), declared, ports: spec.network.device_ports.clone() },
            plan,
            max_concurrent: spec.backup.max_concurrent,
        }),
        _ => Err(wrong),
    }
}

/// All errors, as one message.
pub fn sentences(wrong: &[Invalid]) -> String {
    wrong.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// The apiserver's rule for a ServiceAccount in a RoleBinding: RFC 1123, labels with dots between them.
fn is_account_name(name: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    name.split('.').all(|label| {
        let ends = [label.bytes().next(), label.bytes().last()];
        ends.into_iter().all(|end| end.is_some_and(is_inner)) && label.bytes().all(|byte| is_inner(byte) || byte == b'-')
    })
}

fn keep<T, E: Into<Invalid>>(checked: Result<T, E>, wrong: &mut Vec<Invalid>) -> Option<T> {
    checked.map_err(|error| wrong.push(error.into())).ok()
}

fn at_least(field: &'static str, text: &str, needed: Quantity) -> Result<Quantity, Invalid> {
    let given = Quantity::parse(text).map_err(|source| Invalid::Quantity { field, source })?;
    if given < needed { Err(Invalid::TooSmall { field, given, needed }) } else { Ok(given) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(change: impl FnOnce(&mut serde_json::Value)) -> TenantSpec {
        let mut spec = serde_json::json!({
            "displayName": "Acme", "plan": "Prime", "contact": {"email": "a@example.co.jp"},
            "network": {"deviceCIDRs": ["172.20.1.0/24"]},
        });
        change(&mut spec);
        serde_json::from_value(spec).unwrap()
    }

    fn check(spec: &TenantSpec) -> Result<ValidTenant, String> {
        let id = Identity { group: "acme".parse().unwrap(), uid: "u".into() };
        let forbidden = Forbidden::new(["10.244.0.0/16".parse().unwrap()]);
        validate(&id, spec, &forbidden).map_err(|wrong| sentences(&wrong))
    }

    #[test]
    fn defaults_are_valid() {
        let valid = check(&spec(|_| ())).unwrap();
        assert_eq!((valid.networks.ports.as_slice(), valid.quota.memory.to_string().as_str()), (&[22][..], "1Gi"));
    }

    /// C7: no group's network may reach into the cluster.
    #[test]
    fn a_network_of_the_cluster_is_refused() {
        let wrong = check(&spec(|s| s["network"]["deviceCIDRs"] = serde_json::json!(["10.0.0.0/8"]))).unwrap_err();
        assert!(wrong.contains("10.0.0.0/8 touches 10.244.0.0/16"), "{wrong}");
    }

    /// A RoleBinding that the apiserver refuses would leave the bindings as they were, those of removed owners too.
    #[test]
    fn an_owner_that_cannot_be_bound_is_refused() {
        let owned_by =
            |name: &str| check(&spec(|s| s["owners"] = serde_json::json!([{"kind": "ServiceAccount", "name": name, "namespace": "ci"}])));
        for bad in ["Deployer", "de ployer", "-x", "x.", ".x", "a..b", "本"] {
            assert!(owned_by(bad).unwrap_err().contains("owners: "), "{bad}");
        }
        assert!(owned_by("deployer-2.ci").is_ok());
        assert!(check(&spec(|s| s["owners"] = serde_json::json!([{"kind": "User", "name": "Jane Doe"}]))).is_ok());
    }

    #[test]
    fn everything_wrong_is_said_at_once() {
        let wrong = check(&spec(|s| {
            s["network"]["deviceCIDRs"] = serde_json::json!(["10.244.1.0/24"]);
            s["backup"] = serde_json::json!({"timeZone": "Asia/Edo"});
            s["quota"] = serde_json::json!({"cpu": "10m", "ephemeralStorage": "lots"});
        }))
        .unwrap_err();
        for part in ["network.deviceCIDRs: ", "Asia/Edo", "quota.cpu is 10m", "quota.ephemeralStorage: \"lots\""] {
            assert!(wrong.contains(part), "{part} in {wrong}");
        }
    }
}
