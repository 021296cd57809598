//! What a Device depends on.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Client, ResourceExt};
use tsujiban_api::{Device, Site, Tenant, names};
use tsujiban_core::schedule::Plan;

use super::context::DeviceContext;
use super::identity::Identity;
use crate::apply::{ApplyError, failed};
use crate::cache::Cache;
use crate::condition::find;
use crate::state::attempts::Record;

/// What was found.
#[derive(Debug, Clone)]
pub struct Found {
    pub tenant: Arc<Tenant>,
    pub site_exists: bool,
    pub secret: SecretShape,
    /// Whether the data of this Device object (by UID) was erased: the object came back with a restored cluster.
    pub is_erased: bool,
    /// Whether an older Device has the same serial number.
    pub is_duplicate: bool,
    /// What the backup service knows of the device.
    pub record: Option<Arc<Record>>,
    /// The group's plan, and since when it is the plan.
    pub plan: Option<(Plan, Timestamp)>,
}

/// What a Secret with credentials looks like. Its contents never leave the function that reads them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SecretShape {
    pub name: String,
    pub exists: bool,
    pub type_is_right: bool,
    /// The keys that exist and are not empty.
    pub keys: Vec<String>,
    /// Of a generated one: the labels say that the operator made it.
    pub is_ours: bool,
    /// Of a generated one: the public half of the key pair.
    pub public_key: Option<String>,
    /// Of a generated one: the login name.
    pub username: Option<String>,
}

impl SecretShape {
    fn missing(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }
}

pub async fn dereference(context: &DeviceContext, device: &Device, id: &Identity, tenant: Arc<Tenant>) -> Result<Found, ApplyError> {
    let secret = match &device.spec.connection.credentials_secret_ref {
        Some(reference) => secret_shape(&context.shared.client, id, &reference.name).await?,
        // a Device without a status has no generated Secret yet; if it has one after all, creating it reports that
        None if device.status.is_none() => SecretShape::missing(&names::generated_credentials(id.name.as_str())),
        None => secret_shape(&context.shared.client, id, &names::generated_credentials(id.name.as_str())).await?,
    };
    let incarnation = tenant.status.as_ref().and_then(|status| status.incarnation.as_ref()?.parse().ok());
    Ok(Found {
        site_exists: site_exists(&context.shared.client, &context.sites, id, &device.spec.site_ref.name).await?,
        secret,
        is_erased: context.reports.borrow().is_erased(device),
        is_duplicate: (context.serials.may_be_shared(device) && is_duplicate(device, &context.devices.list()))
            || context.unreadable.claims(&device.spec.serial_number, claim(device)),
        record: incarnation.and_then(|group| context.attempts.get(&group, id.serial.as_str())),
        plan: plan(&tenant),
        tenant,
    })
}

/// Whether the Site exists. The cache may not have a new one yet, so a Site that it lacks is read live. When a Site is deleted, its Devices
/// are queued. A Site that is being deleted counts as gone: it only waits until its deletion is recorded.
async fn site_exists(client: &Client, sites: &Cache<Site>, id: &Identity, site: &str) -> Result<bool, ApplyError> {
    if let Some(site) = sites.get(&ObjectRef::new(site).within(&id.namespace)) {
        return Ok(site.metadata.deletion_timestamp.is_none());
    }
    let api: Api<Site> = Api::namespaced(client.clone(), &id.namespace);
    let found = api.get_metadata_opt(site).await.map_err(failed::<Site>("read", Some(&id.namespace), site))?;
    Ok(found.is_some_and(|site| site.metadata.deletion_timestamp.is_none()))
}

/// Reads the Secret of a name and describes its shape.
pub async fn secret_shape(client: &Client, id: &Identity, name: &str) -> Result<SecretShape, ApplyError> {
    let api: Api<Secret> = Api::namespaced(client.clone(), &id.namespace);
    let secret = api.get_opt(name).await.map_err(failed::<Secret>("read", Some(&id.namespace), name))?;
    Ok(secret.map_or_else(|| SecretShape::missing(name), |secret| shape(name, &secret)))
}

fn shape(name: &str, secret: &Secret) -> SecretShape {
    let data = secret.data.as_ref();
    let text = |key: &str| data.and_then(|data| data.get(key)).and_then(|bytes| String::from_utf8(bytes.0.clone()).ok());
    let label = |key: &str| secret.labels().get(key).map(String::as_str);
    let is_ours = label(names::LABEL_MANAGED_BY) == Some(names::MANAGED_BY) && label(names::LABEL_DEVICE).is_some();
    SecretShape {
        name: name.to_owned(),
        exists: true,
        type_is_right: secret.type_.as_deref() == Some(names::CREDENTIALS_TYPE),
        keys: data.iter().flat_map(|data| data.iter()).filter(|(_, value)| !value.0.is_empty()).map(|(key, _)| key.clone()).collect(),
        is_ours,
        public_key: is_ours.then(|| text("ssh-publickey")).flatten(),
        username: is_ours.then(|| text("username")).flatten(),
    }
}

/// Whether another Device has the same serial number and the older claim to it: created before, or in the same second with the
/// lesser uid.
pub fn is_duplicate(device: &Device, all: &[Arc<Device>]) -> bool {
    let serial = &device.spec.serial_number;
    let mut others = all.iter().filter(|other| other.spec.serial_number == *serial && other.uid() != device.uid());
    others.any(|other| claim(other) < claim(device))
}

fn claim(device: &Device) -> (Option<Timestamp>, Option<&String>) {
    (device.metadata.creation_timestamp.as_ref().map(|time| time.0), device.metadata.uid.as_ref())
}

fn plan(tenant: &Tenant) -> Option<(Plan, Timestamp)> {
    let conditions = &tenant.status.as_ref()?.conditions;
    let scheduled = find(conditions, tsujiban_api::tenant::condition::BACKUP_SCHEDULED).filter(|condition| condition.status == "True")?;
    let backup = &tenant.spec.backup;
    let plan = Plan::new(&backup.schedule, &backup.time_zone, backup.window_minutes).ok()?;
    Some((plan, scheduled.last_transition_time.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn device(uid: &str, serial: &str, created: &str) -> Arc<Device> {
        Arc::new(
            serde_json::from_value(json!({
                "apiVersion": "tsujiban.dev/v1alpha1", "kind": "Device", "metadata": {"name": uid, "uid": uid, "creationTimestamp": created},
                "spec": {"siteRef": {"name": "s"}, "serialNumber": serial, "driver": "Frr", "connection": {"host": "192.0.2.1"}},
            }))
            .unwrap(),
        )
    }

    #[test]
    fn the_older_device_keeps_the_serial_number() {
        let old = device("b", "S1", "2026-01-01T00:00:00Z");
        let young = device("a", "S1", "2026-01-02T00:00:00Z");
        let same_second = device("c", "S1", "2026-01-01T00:00:00Z");
        let other = device("d", "S2", "2025-01-01T00:00:00Z");
        let all = [old.clone(), young.clone(), same_second.clone(), other.clone()];
        let duplicates: Vec<bool> = all.iter().map(|device| is_duplicate(device, &all)).collect();
        assert_eq!(duplicates, [false, true, true, false]);
    }

    /// C22: of a Secret only its shape is kept.
    #[test]
    fn the_shape_of_a_secret_holds_nothing_of_it() {
        let secret: Secret = serde_json::from_value(json!({
            "metadata": {"name": "c"}, "type": names::CREDENTIALS_TYPE, "data": {"username": "dQ==", "password": "aHVudGVyMg==", "empty": ""},
        }))
        .unwrap();
        let shape = shape("c", &secret);
        assert_eq!(
            (shape.type_is_right, shape.is_ours, shape.keys.clone()),
            (true, false, vec!["password".to_owned(), "username".to_owned()])
        );
        assert!(!format!("{shape:?}").contains("hunter2"));
    }
}
