//! What was found, as the Device's status. Pure, save for the one write.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource, ResourceExt};
use russh::keys::ssh_key::{HashAlg, PublicKey};
use serde_json::json;
use tsujiban_api::device::condition::{BACKUP_FRESH, CREDENTIALS_READY, HOST_KEY_VERIFIED, READY};
use tsujiban_api::device::{LastAttempt, LastBackup, Lifecycle, reason};
use tsujiban_api::{Device, DeviceStatus, names};
use tsujiban_core::address::Forbidden;

use super::validate::{View, credentials, obstacle};
use crate::apply::{ApplyError, failed};
use crate::condition::{Conditions, State, Verdict, whole_second};
use crate::state::attempts::{Record, Stored};

/// How long after the end of its window a backup may still come before it counts as missed.
const GRACE: Duration = Duration::from_mins(15);

/// The status that follows from the one before and what was found.
pub fn status(view: &View<'_>, forbidden: &Forbidden) -> DeviceStatus {
    let previous = view.device.status.clone().unwrap_or_default();
    let generation = view.device.metadata.generation;
    let mut status = DeviceStatus { observed_generation: generation, public_key: view.generated.cloned(), ..previous.clone() };
    if let Some(record) = &view.found.record {
        status.model = record.model.clone().or(status.model);
        status.firmware = record.firmware.clone().or(status.firmware);
        status.observed_host_key = record.observed_host_key.clone().or(status.observed_host_key);
        status.last_backup = record.newest.as_ref().map(last_backup).or(status.last_backup);
        status.last_attempt = Some(last_attempt(record));
    }
    let mut conditions = Conditions::from_previous(&previous.conditions, generation, view.now);
    let credentials = credentials(view);
    let host_key = host_key(view, status.observed_host_key.as_deref());
    conditions.set(CREDENTIALS_READY, &credentials);
    if let Some(host_key) = &host_key {
        conditions.set(HOST_KEY_VERIFIED, host_key);
    } else if conditions.get(HOST_KEY_VERIFIED).is_none_or(|known| known.status == State::Unknown.as_str()) {
        conditions.set(HOST_KEY_VERIFIED, &Verdict::unknown("NotContacted", "the device has not been reached yet"));
    }
    conditions.set(BACKUP_FRESH, &fresh(view, &status));
    let refused = host_key.filter(|verdict| verdict.state == State::False);
    let ready = obstacle(view, forbidden).or_else(|| Some(credentials).filter(|verdict| !verdict.is_true())).or(refused);
    conditions.set(READY, &ready.unwrap_or_else(|| ready_because(view)));
    status.conditions = conditions.into_list();
    status
}

fn ready_because(view: &View<'_>) -> Verdict {
    match exemption(view) {
        Some((reason, message)) => Verdict::holds(reason, message),
        None => Verdict::holds("Ready", "the device is backed up in its group's window"),
    }
}

/// Why no backup is expected of the device.
fn exemption(view: &View<'_>) -> Option<(&'static str, &'static str)> {
    let spec = &view.device.spec;
    match spec.lifecycle {
        Lifecycle::Maintenance => Some(("Maintenance", "the device is in maintenance, so that no backup is expected")),
        Lifecycle::Retired => Some(("Retired", "the device is retired, so that no backup is expected")),
        Lifecycle::Active if !spec.backup.enabled => Some(("Disabled", "backup.enabled is false, so that no backup is expected")),
        Lifecycle::Active if view.found.is_duplicate => Some((reason::SERIAL_CONFLICT, "the device is not backed up; see condition Ready")),
        Lifecycle::Active if view.found.tenant.spec.suspended => {
            Some(("Suspended", "the group is suspended, so that no backup is expected"))
        }
        Lifecycle::Active => None,
    }
}

fn fresh(view: &View<'_>, status: &DeviceStatus) -> Verdict {
    if let Some((reason, message)) = exemption(view) {
        return Verdict::unknown(reason, message);
    }
    let Some((plan, since)) = &view.found.plan else {
        return Verdict::unknown("NotScheduled", "the group's backup is not scheduled; see the Tenant");
    };
    if let Some(newest) = view.found.record.as_ref().and_then(|record| record.newest.as_ref()).filter(|newest| newest.damaged) {
        let next = "the next backup stores the config anew; tsujiban backup now does it at once";
        return Verdict::fails(reason::DAMAGED, format!("the newest snapshot {} is damaged in the storage: {next}", newest.id));
    }
    // a window that closed before the device was declared, or before the plan was made, was never missed
    let expected_since = view.device.metadata.creation_timestamp.as_ref().map_or(*since, |created| created.0.max(*since));
    let last = status.last_backup.as_ref().map(|backup| backup.time.0);
    if plan.is_fresh(last, expected_since, view.now, GRACE) {
        return match last {
            Some(_) => Verdict::holds("Fresh", "the device was backed up in its last window"),
            None => Verdict::holds("FirstBackupDue", "the first window has not closed yet"),
        };
    }
    let why = status.last_attempt.as_ref().map_or("nothing was tried", |attempt| attempt.result.as_str());
    Verdict::fails("Late", format!("the last window passed without a backup ({why}); see status.lastAttempt"))
}

/// Whether the device shows the expected host key. `None` when nothing new is known.
fn host_key(view: &View<'_>, observed: Option<&str>) -> Option<Verdict> {
    let shown = |key: &str| fingerprint(key).unwrap_or_else(|| key.to_owned());
    if let Some(given) = &view.device.spec.connection.host_key {
        return Some(match observed {
            None => Verdict::unknown("NotContacted", "the device has not been reached yet"),
            Some(key) if key == given => Verdict::holds("Given", "the device shows the key of connection.hostKey"),
            Some(key) => mismatch(&shown(key), "connection.hostKey"),
        });
    }
    let record = view.found.record.as_ref()?;
    Some(match (&record.pinned_host_key, observed) {
        (_, None) => Verdict::unknown("NotContacted", "the device has not been reached yet"),
        (Some(pinned), Some(key)) if pinned == key => Verdict::holds("Pinned", "the device shows the key of the first contact"),
        (Some(_), Some(key)) => mismatch(&shown(key), "the pinned key"),
        (None, Some(key)) => {
            let shown = shown(key);
            Verdict::fails(
                "HostKeyUnconfirmed",
                format!("the device shows {shown}: compare it on the device itself, then set connection.hostKey to status.observedHostKey"),
            )
        }
    })
}

fn mismatch(shown: &str, expected: &str) -> Verdict {
    let advice = "if the device or its key was exchanged, have the new key confirmed; if not, somebody may be on the path";
    Verdict::fails("HostKeyMismatch", format!("the device shows {shown}, which is not {expected}: {advice}"))
}

fn fingerprint(key: &str) -> Option<String> {
    let key = PublicKey::from_openssh(key).ok()?;
    Some(key.fingerprint(HashAlg::Sha256).to_string())
}

fn last_backup(newest: &Stored) -> LastBackup {
    LastBackup {
        snapshot_id: newest.id.clone(),
        time: Time(whole_second(newest.seen_at)),
        bytes: newest.bytes,
        changed: newest.seen_at == newest.taken_at,
        complete: !newest.damaged, // incomplete configs are never stored
        shrunk: newest.shrunk,
    }
}

fn last_attempt(record: &Record) -> LastAttempt {
    let message = (!record.message.is_empty()).then(|| record.message.clone());
    LastAttempt { time: Time(whole_second(record.time)), result: record.outcome.as_str().to_owned(), message }
}

/// Writes the status when it differs from the cached one. The uid makes the write fail if the Device was recreated under its name.
pub async fn write(api: &Api<Device>, device: &Device, status: &DeviceStatus) -> Result<bool, ApplyError> {
    if device.status.as_ref() == Some(status) {
        return Ok(false);
    }
    let name = device.name_any();
    let patch = json!({ "apiVersion": Device::api_version(&()), "kind": Device::kind(&()), "metadata": { "name": name, "uid": device.uid() }, "status": status });
    let parameters = PatchParams::apply(names::FIELD_MANAGER).force();
    let patched = api.patch_status(&name, &parameters, &Patch::Apply(patch)).await;
    patched.map_err(failed::<Device>("write the status of", device.namespace().as_deref(), &name))?;
    Ok(true)
}
