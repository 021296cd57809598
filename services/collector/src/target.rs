//! A Device that is to be backed up.

use kube::ResourceExt;
use tsujiban_api::Device;
use tsujiban_api::device::{Algorithms, Lifecycle};
use tsujiban_api::names;
use tsujiban_core::driver::Driver;
use tsujiban_core::id::{DeviceName, InvalidId, SerialNumber};

/// What is needed to back up one device, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub name: DeviceName,
    pub serial: SerialNumber,
    pub driver: Driver,
    pub host: String,
    pub port: u16,
    pub algorithms: Algorithms,
    /// The host key of the spec, as it is written there.
    pub host_key: Option<String>,
    /// The Secret with the credentials.
    pub secret: String,
}

impl Target {
    /// The device's target; `None` when the device is not to be backed up now.
    pub fn of(device: &Device) -> Result<Option<Self>, InvalidId> {
        let spec = &device.spec;
        let wanted = spec.lifecycle == Lifecycle::Active && spec.backup.enabled && device.metadata.deletion_timestamp.is_none();
        if !wanted {
            return Ok(None);
        }
        let name = device.name_any();
        let connection = &spec.connection;
        let secret =
            connection.credentials_secret_ref.as_ref().map_or_else(|| names::generated_credentials(&name), |secret| secret.name.clone());
        Ok(Some(Self {
            serial: spec.serial_number.parse()?,
            name: name.parse()?,
            driver: spec.driver.into(),
            host: connection.host.clone(),
            port: connection.port,
            algorithms: connection.algorithms,
            host_key: connection.host_key.clone(),
            secret,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(change: &str) -> Device {
        let mut device = serde_json::json!({
            "apiVersion": "tsujiban.dev/v1alpha1", "kind": "Device", "metadata": { "name": "tokyo-1" },
            "spec": { "siteRef": { "name": "tokyo" }, "serialNumber": "JN1", "driver": "Frr", "connection": { "host": "192.0.2.1" } },
        });
        match change {
            "maintenance" => device["spec"]["lifecycle"] = "Maintenance".into(),
            "retired" => device["spec"]["lifecycle"] = "Retired".into(),
            "off" => device["spec"]["backup"] = serde_json::json!({ "enabled": false }),
            "deleted" => device["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into(),
            "own secret" => device["spec"]["connection"]["credentialsSecretRef"] = serde_json::json!({ "name": "login" }),
            _ => {}
        }
        serde_json::from_value(device).unwrap()
    }

    #[test]
    fn only_living_devices_with_backup_are_wanted() {
        for unwanted in ["maintenance", "retired", "off", "deleted"] {
            assert_eq!(Target::of(&device(unwanted)), Ok(None), "{unwanted}");
        }
        assert!(Target::of(&device("")).unwrap().is_some());
    }

    #[test]
    fn credentials_are_the_named_or_the_generated_ones() {
        let secret = |change| Target::of(&device(change)).unwrap().unwrap().secret;
        assert_eq!((secret("").as_str(), secret("own secret").as_str()), ("device-tokyo-1-ssh", "login"));
    }
}
