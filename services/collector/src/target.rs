//! A Device that is to be backed up.

use kube::ResourceExt;
use tsujiban_api::Device;
use tsujiban_api::device::{Algorithms, Lifecycle, condition, reason};
use tsujiban_api::names;
use tsujiban_core::driver::Driver;
use tsujiban_core::id::{DeviceName, InvalidId, SerialNumber};

use crate::shell::PromptPolicy;

/// What is needed to back up one device, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub name: DeviceName,
    pub serial: SerialNumber,
    /// The Device resource's UID, which identifies the life that was listed.
    pub uid: String,
    pub driver: Driver,
    pub host: String,
    pub port: u16,
    pub algorithms: Algorithms,
    /// The host key of the spec, as it is written there.
    pub host_key: Option<String>,
    /// The Secret with the credentials.
    pub secret: String,
    pub device: PromptPolicy,
}

impl Target {
    /// The device's target; `None` when the device is not to be backed up now.
    pub fn of(device: &Device) -> Result<Option<Self>, InvalidId> {
        let spec = &device.spec;
        let wanted = spec.lifecycle == Lifecycle::Active && spec.backup.enabled && device.metadata.deletion_timestamp.is_none();
        if !wanted || is_in_conflict(device) {
            return Ok(None);
        }
        let name = device.name_any();
        let connection = &spec.connection;
        let secret =
            connection.credentials_secret_ref.as_ref().map_or_else(|| names::generated_credentials(&name), |secret| secret.name.clone());
        Ok(Some(Self {
            serial: spec.serial_number.parse()?,
            uid: device.uid().unwrap_or_default(),
            name: name.parse()?,
            driver: spec.driver.into(),
            host: connection.host.clone(),
            port: connection.port,
            algorithms: connection.algorithms,
            host_key: connection.host_key.clone(),
            secret,
            device: prompt_policy(device),
        }))
    }
}

/// A device is known while its last attempt succeeded; after a failure it counts as new, so that its prompt is waited for.
fn prompt_policy(device: &Device) -> PromptPolicy {
    let last = device.status.as_ref().and_then(|status| status.last_attempt.as_ref()).map(|attempt| attempt.result.as_str());
    match last {
        Some("Changed" | "Unchanged") => PromptPolicy::Known,
        _ => PromptPolicy::New,
    }
}

/// Whether another Device has the serial number: its configs would be mixed with that one's.
fn is_in_conflict(device: &Device) -> bool {
    let conditions = device.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let mut ready = conditions.iter().filter(|found| found.type_ == condition::READY);
    ready.any(|ready| ready.status == "False" && ready.reason == reason::SERIAL_CONFLICT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(change: &str) -> Device {
        let mut device = serde_json::json!({
            "apiVersion": "tsujiban.dev/v1alpha1", "kind": "Device", "metadata": { "name": "tokyo-1", "uid": "u-1" },
            "spec": { "siteRef": { "name": "tokyo" }, "serialNumber": "JN1", "driver": "Frr", "connection": { "host": "192.0.2.1" } },
        });
        match change {
            "maintenance" => device["spec"]["lifecycle"] = "Maintenance".into(),
            "retired" => device["spec"]["lifecycle"] = "Retired".into(),
            "off" => device["spec"]["backup"] = serde_json::json!({ "enabled": false }),
            "conflict" => device["status"] = ready("False", "SerialNumberConflict"),
            "no conflict any more" => device["status"] = ready("True", "Ready"),
            "not ready" => device["status"] = ready("False", "SecretMissing"),
            "deleted" => device["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into(),
            "last changed" => device["status"] = last("Changed"),
            "last unchanged" => device["status"] = last("Unchanged"),
            "last failed" => device["status"] = last("Protocol"),
            "own secret" => device["spec"]["connection"]["credentialsSecretRef"] = serde_json::json!({ "name": "login" }),
            _ => {}
        }
        serde_json::from_value(device).unwrap()
    }

    fn ready(status: &str, reason: &str) -> serde_json::Value {
        serde_json::json!({ "conditions": [
            { "type": "BackupFresh", "status": "Unknown", "reason": "SerialNumberConflict", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z" },
            { "type": "Ready", "status": status, "reason": reason, "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z" },
        ] })
    }

    fn last(result: &str) -> serde_json::Value {
        serde_json::json!({ "lastAttempt": { "time": "2026-01-01T00:00:00Z", "result": result } })
    }

    #[test]
    fn a_device_is_known_while_its_last_attempt_ended_well() {
        let known = |change| Target::of(&device(change)).unwrap().unwrap().device;
        assert_eq!([known("last changed"), known("last unchanged")], [PromptPolicy::Known; 2]);
        assert_eq!([known(""), known("last failed")], [PromptPolicy::New; 2]);
    }

    #[test]
    fn only_living_devices_with_backup_are_wanted() {
        for unwanted in ["maintenance", "retired", "off", "deleted", "conflict"] {
            assert_eq!(Target::of(&device(unwanted)), Ok(None), "{unwanted}");
        }
        for wanted in ["", "no conflict any more", "not ready"] {
            assert!(Target::of(&device(wanted)).unwrap().is_some_and(|target| target.uid == "u-1"), "{wanted}");
        }
    }

    #[test]
    fn credentials_are_the_named_or_the_generated_ones() {
        let secret = |change| Target::of(&device(change)).unwrap().unwrap().secret;
        assert_eq!((secret("").as_str(), secret("own secret").as_str()), ("device-tokyo-1-ssh", "login"));
    }
}
