//! What is built, as YAML that people can review.

use serde_json::Value;
use tsujiban_api::TenantSpec;
use tsujiban_core::address::Forbidden;
use tsujiban_operator::controllers::tenant::Noted;
use tsujiban_operator::controllers::tenant::build::{ApiserverAddress, Blueprint, Objects, Platform, build, namespace};
use tsujiban_operator::controllers::tenant::validate::{Identity, validate};

fn blueprint(change: impl FnOnce(&mut Value)) -> Blueprint {
    let mut spec = serde_json::json!({
        "displayName": "Acme", "plan": "Prime", "contact": {"email": "a@example.co.jp"},
        "owners": [{"kind": "Group", "name": "acme-admins"}, {"kind": "ServiceAccount", "name": "deployer", "namespace": "ci"}],
        "network": {"deviceCIDRs": ["172.20.1.0/24", "2001:db8:1::/48"], "devicePorts": [22, 2222]},
        "quota": {"cpu": "1500m", "memory": "1024Mi"},
    });
    change(&mut spec);
    let spec: TenantSpec = serde_json::from_value(spec).unwrap();
    let forbidden = Forbidden::new(["10.244.0.0/16".parse().unwrap()]);
    let id = Identity { group: "acme".parse().unwrap(), uid: "u1".into() };
    Blueprint {
        tenant: validate(&id, &spec, &forbidden).unwrap(),
        platform: Platform {
            system_namespace: "tsujiban-system".into(),
            collector_image: "registry.example.com/tsujiban-collector:0.1.0".into(),
            backup_endpoint: "https://tsujiban-backup.tsujiban-system.svc:8443".into(),
        },
        apiserver: vec![
            ApiserverAddress { ip: "10.97.0.1".parse().unwrap(), port: 6443 },
            ApiserverAddress { ip: "10.97.0.2".parse().unwrap(), port: 6443 },
        ],
        ca_bundle: Some("-----BEGIN CERTIFICATE-----\n".into()),
    }
}

fn values<T: serde::Serialize>(objects: &[T]) -> Vec<Value> {
    objects.iter().map(|object| serde_json::to_value(object).unwrap()).collect()
}

#[test]
fn a_group() {
    let blueprint = blueprint(|_| ());
    let noted = Noted {
        incarnation: Some("00112233445566778899aabbccddeeff".parse().unwrap()),
        log: Some("ffeeddccbbaa99887766554433221100".parse().unwrap()),
    };
    let objects = build(&blueprint);
    insta::assert_yaml_snapshot!("namespace", serde_json::to_value(namespace(&blueprint.tenant.id, &noted)).unwrap());
    insta::assert_yaml_snapshot!("network_policies", values(&objects.network_policies));
    insta::assert_yaml_snapshot!("resource_quota", values(&objects.resource_quotas));
    insta::assert_yaml_snapshot!("limit_range", values(&objects.limit_ranges));
    insta::assert_yaml_snapshot!("service_account", values(&objects.service_accounts));
    insta::assert_yaml_snapshot!("role_bindings", values(&objects.role_bindings));
    insta::assert_yaml_snapshot!("ca_bundle", values(&objects.config_maps.unwrap()));
    insta::assert_yaml_snapshot!("cron_job", values(&objects.cron_jobs));
}

#[test]
fn a_suspended_group() {
    let Objects { network_policies, cron_jobs, .. } = build(&blueprint(|spec| spec["suspended"] = true.into()));
    insta::assert_yaml_snapshot!("suspended_network_policies", values(&network_policies));
    assert_eq!(cron_jobs[0].spec.suspend, Some(true));
}

/// C7: explicit empty lists count as a change at each apply, and an absent list can be filled by somebody else.
#[test]
fn every_direction_of_a_policy_is_owned_and_nothing_is_empty() {
    for suspended in [false, true] {
        for policy in build(&blueprint(|spec| spec["suspended"] = suspended.into())).network_policies {
            let spec = serde_json::to_value(policy.spec.unwrap()).unwrap();
            for direction in spec["policyTypes"].as_array().unwrap() {
                let rules = spec[direction.as_str().unwrap().to_lowercase()].as_array().cloned().unwrap_or_default();
                assert!(!rules.is_empty(), "{spec}");
            }
            assert!(!spec.to_string().contains("[]") && !spec["egress"].to_string().contains("{}"), "{spec}");
        }
    }
}

/// C13: no owners, no binding; a binding without subjects would be one to fill.
#[test]
fn a_group_without_owners_has_no_owner_binding() {
    let bindings = build(&blueprint(|spec| spec["owners"] = serde_json::json!([]))).role_bindings;
    let names: Vec<_> = bindings.iter().filter_map(|binding| binding.metadata.name.as_deref()).collect();
    assert_eq!(names, ["tsujiban-operator-tenant", "tsujiban-collector"]);
}

/// C23: the Job never outlives the window that the group was promised.
#[test]
fn the_job_ends_with_the_window() {
    for window in [1, 5, 30, 720] {
        let cron_job = build(&blueprint(|spec| spec["backup"] = serde_json::json!({"windowMinutes": window}))).cron_jobs.remove(0);
        let minute: i64 = cron_job.spec.schedule.split(' ').next().unwrap().parse().unwrap();
        let deadline = cron_job.spec.job_template.spec.unwrap().active_deadline_seconds.unwrap();
        assert_eq!(minute * 60 + deadline, window * 60, "window {window}");
        assert!(deadline >= 60);
    }
}
