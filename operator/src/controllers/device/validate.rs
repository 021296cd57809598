//! Derives verdicts from what was declared and found. Pure.

use std::net::IpAddr;

use jiff::Timestamp;
use tsujiban_api::device::reason;
use tsujiban_api::{Device, names};
use tsujiban_core::address::{DeviceNetworks, Forbidden, Refused, network};

use super::dereference::{Found, SecretShape};
use super::identity::Identity;
use crate::condition::Verdict;

/// The reason of a Device whose Site does not exist.
pub const SITE_MISSING: &str = "SiteMissing";

/// Everything that the status is derived from.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    pub device: &'a Device,
    pub id: &'a Identity,
    pub found: &'a Found,
    /// The public half of the generated key pair, when the device has one.
    pub generated: Option<&'a String>,
    pub now: Timestamp,
}

/// What keeps the device from being backed up at all, apart from credentials and host keys.
pub fn obstacle(view: &View<'_>, forbidden: &Forbidden) -> Option<Verdict> {
    if view.found.is_erased {
        let message = "this Device was deleted before and its data erased; a restored cluster has brought it back, and nothing is stored for it: delete it, then declare it anew";
        return Some(Verdict::fails("DataErased", message));
    }
    if view.found.is_duplicate {
        let message = "a Device with this serial number exists already, so this one is not backed up: check the number on the device; if it is right, contact the platform staff";
        return Some(Verdict::fails(reason::SERIAL_CONFLICT, message));
    }
    let site = &view.device.spec.site_ref.name;
    if !view.found.site_exists {
        return Some(Verdict::fails(SITE_MISSING, format!("Site {site} does not exist in namespace {}: create it", view.id.namespace)));
    }
    address(view, forbidden)
}

/// An IP address is checked here, before the collector connects; a host name is checked by the collector when it has resolved it.
fn address(view: &View<'_>, forbidden: &Forbidden) -> Option<Verdict> {
    let connection = &view.device.spec.connection;
    let declared = &view.found.tenant.spec.network;
    if !declared.device_ports.contains(&connection.port) {
        let message = format!("port {} is not one of the group's network.devicePorts: have it added to the Tenant", connection.port);
        return Some(Verdict::fails("PortNotAllowed", message));
    }
    let ip: IpAddr = connection.host.parse().ok()?;
    let networks = DeviceNetworks {
        forbidden: forbidden.clone(),
        declared: declared.device_cidrs.iter().filter_map(|text| network(text).ok()).collect(),
        ports: declared.device_ports.clone(),
    };
    let refused = networks.check(ip, connection.port).err()?;
    let advice = match &refused {
        Refused::Undeclared(_) => "; have its network added to the Tenant's network.deviceCIDRs",
        Refused::Forbidden(..) | Refused::Port(_) | Refused::NotANetwork(_) => "",
    };
    Some(Verdict::fails("AddressNotAllowed", format!("connection.host: {refused}{advice}")))
}

/// Whether there are credentials with which the collector can log in.
pub fn credentials(view: &View<'_>) -> Verdict {
    let SecretShape { name, exists, type_is_right, keys, .. } = &view.found.secret;
    if view.device.spec.connection.credentials_secret_ref.is_none() {
        return match view.generated {
            Some(_) => Verdict::holds("Generated", "a key pair is generated: install status.publicKey on the device"),
            None if *exists => Verdict::fails(
                "SecretNameTaken",
                format!("Secret {name} exists and the operator did not make it: name it in connection.credentialsSecretRef, or delete it"),
            ),
            None => Verdict::fails("NotGenerated", "no key pair is generated for this device"),
        };
    }
    let has = |key: &str| keys.iter().any(|found| found == key);
    if !exists {
        return Verdict::fails(
            "SecretMissing",
            format!("Secret {name} does not exist in namespace {}: create it with type {}", view.id.namespace, names::CREDENTIALS_TYPE),
        );
    }
    if !type_is_right {
        return Verdict::fails(
            "SecretTypeWrong",
            format!("Secret {name} must be of type {}: create it anew, since a type cannot be changed", names::CREDENTIALS_TYPE),
        );
    }
    if !has("username") || !(has("password") || has("ssh-privatekey")) {
        return Verdict::fails("SecretKeysMissing", format!("Secret {name} must hold username, and password or ssh-privatekey"));
    }
    Verdict::holds("Found", format!("Secret {name} holds the credentials"))
}

#[cfg(test)]
mod tests {
    use super::super::identity::{NotADevice, identity};
    use super::*;
    use serde_json::json;

    struct Case {
        device: Device,
        found: Found,
        id: Identity,
        generated: Option<String>,
    }

    fn case(host: &str, port: u16, reference: Option<&str>) -> Case {
        let device: Device = serde_json::from_value(json!({
            "apiVersion": "tsujiban.dev/v1alpha1", "kind": "Device", "metadata": {"name": "r1", "namespace": "tn-acme"},
            "spec": {"siteRef": {"name": "tokyo"}, "serialNumber": "S1", "driver": "Frr", "connection":
                {"host": host, "port": port, "credentialsSecretRef": reference.map(|name| json!({"name": name}))}},
        }))
        .unwrap();
        let tenant = serde_json::from_value(json!({
            "apiVersion": "tsujiban.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": "acme"},
            "spec": {"displayName": "A", "plan": "Free", "contact": {"email": "a@b.c"}, "network": {"deviceCIDRs": ["172.20.1.0/24"]}},
        }))
        .unwrap();
        let found = Found {
            tenant: std::sync::Arc::new(tenant),
            site_exists: true,
            secret: SecretShape { name: "c".into(), ..SecretShape::default() },
            is_erased: false,
            is_duplicate: false,
            record: None,
            plan: None,
        };
        Case { id: identity(&device).unwrap(), device, found, generated: None }
    }

    impl Case {
        fn view(&self) -> View<'_> {
            View { device: &self.device, id: &self.id, found: &self.found, generated: self.generated.as_ref(), now: Timestamp::UNIX_EPOCH }
        }

        fn obstacle(&self) -> Option<String> {
            obstacle(&self.view(), &Forbidden::new([])).map(|verdict| verdict.reason)
        }
    }

    #[test]
    fn obstacles() {
        assert_eq!(case("172.20.1.9", 22, None).obstacle(), None);
        assert_eq!(case("router.example.co.jp", 22, None).obstacle(), None);
        assert_eq!(case("172.20.2.9", 22, None).obstacle().as_deref(), Some("AddressNotAllowed"));
        assert_eq!(case("169.254.169.254", 22, None).obstacle().as_deref(), Some("AddressNotAllowed"));
        assert_eq!(case("172.20.1.9", 23, None).obstacle().as_deref(), Some("PortNotAllowed"));
        let mut missing = case("172.20.1.9", 22, None);
        missing.found.site_exists = false;
        assert_eq!(missing.obstacle().as_deref(), Some("SiteMissing"));
        missing.found.is_duplicate = true;
        assert_eq!(missing.obstacle().as_deref(), Some(reason::SERIAL_CONFLICT));
        missing.found.is_erased = true;
        assert_eq!(missing.obstacle().as_deref(), Some("DataErased"));
    }

    /// C7: a conflict names nobody.
    #[test]
    fn a_conflict_says_nothing_about_the_other_device() {
        let mut case = case("172.20.1.9", 22, None);
        case.found.is_duplicate = true;
        let message = obstacle(&case.view(), &Forbidden::new([])).unwrap().message;
        assert!(!message.contains("tn-") && message.contains("contact the platform staff"), "{message}");
    }

    #[test]
    fn credentials_that_are_referenced() {
        let reason = |change: &dyn Fn(&mut SecretShape)| {
            let mut case = case("172.20.1.9", 22, Some("c"));
            change(&mut case.found.secret);
            credentials(&case.view()).reason
        };
        let keys = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(reason(&|_| ()), "SecretMissing");
        assert_eq!(reason(&|s| s.exists = true), "SecretTypeWrong");
        assert_eq!(reason(&|s| (s.exists, s.type_is_right, s.keys) = (true, true, keys(&["username"]))), "SecretKeysMissing");
        assert_eq!(reason(&|s| (s.exists, s.type_is_right, s.keys) = (true, true, keys(&["username", "password"]))), "Found");
    }

    #[test]
    fn credentials_that_are_generated() {
        let mut case = case("172.20.1.9", 22, None);
        assert_eq!(credentials(&case.view()).reason, "NotGenerated");
        case.found.secret.exists = true;
        assert_eq!(credentials(&case.view()).reason, "SecretNameTaken");
        case.generated = Some("ssh-ed25519 AAAA".into());
        assert!(credentials(&case.view()).is_true());
    }

    #[test]
    fn a_device_outside_a_groups_namespace_is_none() {
        let mut device = case("172.20.1.9", 22, None).device;
        device.metadata.namespace = Some("default".into());
        assert!(matches!(identity(&device), Err(NotADevice::Namespace(_))));
    }
}
