//! Which device a Device declares.

use kube::ResourceExt;
use tsujiban_api::{Device, names};
use tsujiban_core::id::{DeviceName, GroupId, InvalidId, SerialNumber};

/// Why a Device declares no valid device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotADevice {
    #[error(transparent)]
    Id(#[from] InvalidId),
    #[error("namespace {0} belongs to no group: declare the Device in the namespace tn-<group> of its Tenant")]
    Namespace(String),
}

/// The identity of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub namespace: String,
    pub group: GroupId,
    pub name: DeviceName,
    pub serial: SerialNumber,
}

pub fn identity(device: &Device) -> Result<Identity, NotADevice> {
    let namespace = device.namespace().unwrap_or_default();
    let group = names::group_of_namespace(&namespace).ok_or_else(|| NotADevice::Namespace(namespace.clone()))?;
    Ok(Identity { namespace, group, name: device.name_any().parse()?, serial: device.spec.serial_number.parse()? })
}
