//! What happens when a Device is deleted. Its data is erased at once if the Device was deleted by itself, and kept if it is deleted along
//! with its Tenant, its namespace or its kind.

use k8s_openapi::api::core::v1::Namespace;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use tsujiban_api::tenant::DeletionPolicy;
use tsujiban_api::{Device, Tenant, names};
use tsujiban_core::id::IncarnationId;
use tsujiban_core::workload::Service;

use super::context::DeviceContext;
use super::credentials;
use super::identity::Identity;
use crate::apply::current::{confirm_exists, is_absent, is_current};
use crate::apply::{ApplyError, failed};
use crate::cache::Cache;
use crate::namespace::{incarnation, is_terminating, live_namespace};
use crate::services::client::CallError;
use crate::{crds, finalizer};

/// Why a Device could not be released yet.
#[derive(Debug, thiserror::Error)]
pub enum DeleteError {
    #[error(transparent)]
    Apply(#[from] ApplyError),
    #[error("the device's data could not be erased")]
    Erase(#[source] CallError),
    #[error("conflict: the device or its group changed since they were read; retrying")]
    Outdated,
}

/// The group's Tenant, read live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    Absent,
    /// It exists, and the namespace was made for it.
    Alive,
    /// It exists, but the namespace was made for an earlier one.
    NotOfNamespace,
    Leaving(DeletionPolicy),
}

/// The namespace of the device, read live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NamespaceState {
    Standing,
    /// Terminating, or already gone.
    Terminating,
}

/// All that decides about a Device that is being deleted, read live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Evidence {
    pub owner: Owner,
    pub namespace: NamespaceState,
    /// Whether another Device of the same group has the same serial number: the data then belongs to that one as well.
    pub is_shared: bool,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Erase the device's data, then release.
    Erase,
    /// Keep the data, which belongs to another Device as well. Remove the generated key pair, which belongs to this Device alone.
    RemoveKeyPair,
    /// Release; the data stays, or goes with the whole group.
    Release,
}

/// Decides. The data is erased only if the Device is deleted by itself; otherwise erasing it was not meant.
pub fn decide(evidence: Evidence) -> Decision {
    match evidence {
        Evidence { owner: Owner::Alive, namespace: NamespaceState::Standing, is_shared: false } => Decision::Erase,
        Evidence { owner: Owner::Alive, namespace: NamespaceState::Standing, is_shared: true } => Decision::RemoveKeyPair,
        _ => Decision::Release,
    }
}

/// Carries out the decision for a Device that is being deleted.
pub async fn clean_up(context: &DeviceContext, api: &Api<Device>, cached: &Device, id: &Identity) -> Result<(), DeleteError> {
    let name = id.name.as_str();
    let live = api.get_opt(name).await.map_err(failed::<Device>("read", Some(&id.namespace), name))?;
    let Some(device) = live.filter(|live| live.uid() == cached.uid()) else { return Ok(()) };
    if device.metadata.deletion_timestamp.is_none() || !is_current(api, &device).await? {
        return Err(DeleteError::Outdated);
    }
    if !crds::established(&context.shared.client).await? {
        // an object deleted along with its CRD was not meant to be erased, and objects of a removed kind cannot be read
        tracing::info!(namespace = id.namespace, device = name, "a device goes along with its kind; its data stays");
        return Ok(finalizer::release(api, &device).await?);
    }
    let (evidence, incarnation) = gather(context, api, &device, id).await?;
    let decision = decide(evidence);
    tracing::info!(namespace = id.namespace, device = name, ?evidence, ?decision, "a device is being deleted");
    if decision == Decision::Erase {
        // without an incarnation the group was never prepared, so that nothing of the device was ever stored
        if let Some(incarnation) = incarnation {
            // a collector may have listed the Device before: with the uid the service refuses whatever it still sends
            let uid = device.uid().unwrap_or_default();
            let backup = context.services.get(Service::Backup).map_err(DeleteError::Erase)?;
            backup.erase_device(&id.group, &incarnation, &id.serial, uid).await.map_err(DeleteError::Erase)?;
            context.attempts.forget(&incarnation, id.serial.as_str());
        }
    }
    if matches!(decision, Decision::Erase | Decision::RemoveKeyPair) {
        credentials::remove(&context.shared.client, id).await?;
    }
    finalizer::release(api, &device).await?;
    Ok(())
}

/// Reads the evidence live, and has the apiserver confirm it.
async fn gather(
    context: &DeviceContext,
    api: &Api<Device>,
    device: &Device,
    id: &Identity,
) -> Result<(Evidence, Option<IncarnationId>), DeleteError> {
    let tenants: Api<Tenant> = Api::all(context.shared.client.clone());
    let group = id.group.as_str();
    let tenant = tenants.get_opt(group).await.map_err(failed::<Tenant>("read", None, group))?;
    let namespace = live_namespace(&context.shared.client, &id.group).await?;
    let namespaces: Api<Namespace> = Api::all(context.shared.client.clone());
    let tenant_is_current = match &tenant {
        Some(tenant) => is_current(&tenants, tenant).await?,
        None => is_absent(&tenants, group).await?,
    };
    let namespace_is_current = match &namespace {
        Some(namespace) => is_current(&namespaces, namespace).await?,
        None => is_absent(&namespaces, &id.namespace).await?,
    };
    if !tenant_is_current || !namespace_is_current {
        return Err(DeleteError::Outdated);
    }
    let made_for = namespace.as_ref().and_then(|namespace| namespace.labels().get(names::LABEL_TENANT_UID).cloned());
    let owner = match &tenant {
        None => Owner::Absent,
        Some(tenant) if tenant.metadata.deletion_timestamp.is_some() => Owner::Leaving(tenant.spec.deletion_policy),
        Some(tenant) if tenant.uid() == made_for => Owner::Alive,
        Some(_) => Owner::NotOfNamespace,
    };
    let is_standing = namespace.as_ref().is_some_and(|namespace| !is_terminating(namespace));
    let evidence = Evidence {
        owner,
        namespace: if is_standing { NamespaceState::Standing } else { NamespaceState::Terminating },
        is_shared: is_shared(&context.devices, api, device, id).await?,
    };
    Ok((evidence, namespace.as_ref().and_then(incarnation)))
}

/// Whether another Device of the group has the serial number. Those in a live list and in the cache count, if they are confirmed to exist.
async fn is_shared(devices: &Cache<Device>, api: &Api<Device>, device: &Device, id: &Identity) -> Result<bool, ApplyError> {
    let selector = ListParams::default().fields(&format!("spec.serialNumber={}", id.serial));
    let listed = api.list(&selector).await.map_err(failed::<Device>("list", Some(&id.namespace), id.serial.as_str()))?;
    let cached = devices.list_in(&id.namespace);
    let known = listed.items.iter().chain(cached.iter().map(AsRef::as_ref));
    for other in known.filter(|other| other.spec.serial_number == id.serial.as_str() && other.uid() != device.uid()) {
        if confirm_exists(api, other).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// C24: a device's data goes with the Device, and with nothing less than its own deletion.
    #[test]
    fn every_combination() {
        let owners = [
            Owner::Absent,
            Owner::Alive,
            Owner::NotOfNamespace,
            Owner::Leaving(DeletionPolicy::Retain),
            Owner::Leaving(DeletionPolicy::Erase),
        ];
        let (mut erased, mut kept_data) = (Vec::new(), Vec::new());
        for owner in owners {
            for namespace in [NamespaceState::Standing, NamespaceState::Terminating] {
                for is_shared in [false, true] {
                    let evidence = Evidence { owner, namespace, is_shared };
                    match decide(evidence) {
                        Decision::Erase => erased.push(evidence),
                        Decision::RemoveKeyPair => kept_data.push(evidence),
                        Decision::Release => {}
                    }
                }
            }
        }
        let meant = Evidence { owner: Owner::Alive, namespace: NamespaceState::Standing, is_shared: false };
        assert_eq!(erased, [meant]);
        assert_eq!(kept_data, [Evidence { is_shared: true, ..meant }]);
    }
}
