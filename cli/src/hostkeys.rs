//! `tsujiban hostkeys`.

use kube::Api;
use kube::api::ListParams;
use serde::Serialize;
use tsujiban_api::{Device, names};
use tsujiban_core::id::{DeviceName, GroupId, SerialNumber};
use tsujiban_proto::backup::v1::{DeviceRef, GetHostKeyRequest, ReplaceHostKeyRequest};

use crate::cluster::{Cluster, Right, ask};
use crate::exit::ExitCode;
use crate::failure::Failure;
use crate::output::{Answer, Format, escape_line};
use crate::service::Service;

/// Why a device is not found.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    #[error("group {group} has no device with the name or serial number {device:?}; its devices: kubectl get devices -n tn-{group}")]
    Unknown { group: GroupId, device: String },
}

impl ExitCode for DeviceError {}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct HostKeys {
    group: String,
    device: String,
    serial: String,
    pinned: Option<String>,
    observed: Option<String>,
}

/// Shows the keys of a device.
pub async fn show(cluster: &Cluster, service: &Service, group: &GroupId, device: &str, format: Format) -> Result<Answer, Failure> {
    let device = find(cluster, group, device).await?;
    let request = GetHostKeyRequest { device: Some(device.clone()) };
    let answer = service.backup().get_host_key(service.request(request).await?).await?.into_inner();
    let some = |key: String| (!key.is_empty()).then_some(key);
    let (pinned, observed) = (some(answer.pinned), some(answer.observed));
    let keys = HostKeys { group: device.group, device: device.name, serial: device.serial, pinned, observed };
    Ok(Answer::new(format, &keys, text)?)
}

/// Replaces the pinned key of a device.
pub async fn replace(
    cluster: &Cluster,
    service: &Service,
    group: &GroupId,
    device: &str,
    (expected, new): (String, String),
    format: Format,
) -> Result<Answer, Failure> {
    let device = find(cluster, group, device).await?;
    let key = (!new.is_empty()).then(|| new.clone());
    let request = ReplaceHostKeyRequest { device: Some(device.clone()), expected, host_key: new };
    service.backup().replace_host_key(service.request(request).await?).await?;
    let keys = HostKeys { group: device.group, device: device.name, serial: device.serial, pinned: key, observed: None };
    Ok(Answer::new(format, &keys, |keys| match &keys.pinned {
        Some(key) => {
            format!("Device {} now has to show {}. Back it up with: tsujiban backup now {}\n", keys.device, escape_line(key), keys.group)
        }
        None => format!("The next contact pins the key of device {}: tsujiban backup now {}\n", keys.device, keys.group),
    })?)
}

/// The device that people call by its name or serial number.
async fn find(cluster: &Cluster, group: &GroupId, device: &str) -> Result<DeviceRef, Failure> {
    let namespace = names::namespace(group);
    let devices: Api<Device> = Api::namespaced(cluster.client.clone(), &namespace);
    let mut found = None;
    if device.parse::<DeviceName>().is_ok() {
        found = ask(Right::new("get", "devices", &namespace), devices.get_opt(device)).await?;
    }
    if found.is_none() && device.parse::<SerialNumber>().is_ok() {
        let of_serial = ListParams::default().fields(&format!("spec.serialNumber={device}"));
        found = ask(Right::new("list", "devices", &namespace), devices.list(&of_serial)).await?.items.into_iter().next();
    }
    let unknown = || DeviceError::Unknown { group: group.clone(), device: device.to_owned() };
    let found = found.ok_or_else(unknown)?;
    let name = found.metadata.name.unwrap_or_default();
    let uid = found.metadata.uid.unwrap_or_default();
    Ok(DeviceRef { group: group.to_string(), serial: found.spec.serial_number, name, uid })
}

fn text(keys: &HostKeys) -> String {
    let HostKeys { group, device, serial, pinned, observed } = keys;
    let shown = |key: &Option<String>, none: &str| key.as_deref().map_or_else(|| none.to_owned(), escape_line);
    let advice = match (pinned, observed) {
        // the command is to be copied: a key that could end its quotes is not put into it
        (Some(pinned), Some(observed)) if pinned != observed && ![pinned, observed].iter().any(|key| key.contains('\'')) => format!(
            "The device shows another key than the pinned one. If it was exchanged or its key renewed, and you compared the new key with it:\n  tsujiban hostkeys replace {group} {device} --expected '{}' --new '{}'\n",
            escape_line(pinned),
            escape_line(observed)
        ),
        _ => String::new(),
    };
    format!(
        "Device:    {} ({})\nPinned:    {}\nLast seen: {}\n{advice}",
        escape_line(device),
        escape_line(serial),
        shown(pinned, "none: the first contact with key authentication pins it"),
        shown(observed, "none: the device was never reached")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(pinned: Option<&str>, observed: Option<&str>) -> HostKeys {
        let (pinned, observed) = (pinned.map(str::to_owned), observed.map(str::to_owned));
        HostKeys { group: "acme".into(), device: "core-1".into(), serial: "JN-1".into(), pinned, observed }
    }

    #[test]
    fn another_key_comes_with_what_to_do() {
        insta::assert_snapshot!(text(&keys(Some("ssh-ed25519 AAAA"), Some("ssh-ed25519 BBBB"))), @r"
        Device:    core-1 (JN-1)
        Pinned:    ssh-ed25519 AAAA
        Last seen: ssh-ed25519 BBBB
        The device shows another key than the pinned one. If it was exchanged or its key renewed, and you compared the new key with it:
          tsujiban hostkeys replace acme core-1 --expected 'ssh-ed25519 AAAA' --new 'ssh-ed25519 BBBB'
        ");
    }

    #[test]
    fn no_key_says_why() {
        insta::assert_snapshot!(text(&keys(None, None)), @r"
        Device:    core-1 (JN-1)
        Pinned:    none: the first contact with key authentication pins it
        Last seen: none: the device was never reached
        ");
        assert!(!text(&keys(Some("a"), Some("a"))).contains("replace"));
    }
}
