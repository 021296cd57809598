//! The pod that collects a group's configs. `tsujiban backup now` runs exactly this spec.

use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapProjection, ConfigMapVolumeSource, Container, DownwardAPIProjection, DownwardAPIVolumeFile, EnvVar,
    EnvVarSource, KeyToPath, ObjectFieldSelector, PodSecurityContext, PodSpec, ProjectedVolumeSource, ResourceRequirements, SeccompProfile,
    SecurityContext, ServiceAccountTokenProjection, Volume, VolumeMount, VolumeProjection,
};
use tsujiban_api::names::{ANNOTATION_IMMEDIATE, CA_CONFIGMAP, COLLECTOR, namespace};
use tsujiban_core::workload::Service;

use super::Blueprint;
use super::limit_range::amounts;
use crate::controllers::tenant::quantity::Quantity;
use crate::controllers::tenant::validate::{COLLECTOR_CPU, COLLECTOR_MEMORY, COLLECTOR_STORAGE};

const USER: i64 = 65532;
const TOKEN_SECONDS: i64 = 3600;
const CA_DIR: &str = "/etc/tsujiban/ca";
const BACKUP_TOKEN_DIR: &str = "/var/run/secrets/tsujiban.dev/backup";
const APISERVER_DIR: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

pub fn pod(blueprint: &Blueprint, window_seconds: i64) -> PodSpec {
    PodSpec {
        service_account_name: Some(COLLECTOR.to_owned()),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        restart_policy: Some("Never".to_owned()),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            fs_group: Some(USER),
            seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
            ..PodSecurityContext::default()
        }),
        containers: vec![container(blueprint, window_seconds)],
        volumes: Some(volumes()),
        ..PodSpec::default()
    }
}

fn container(blueprint: &Blueprint, window_seconds: i64) -> Container {
    let cpu = blueprint.tenant.quota.cpu.min(Quantity::milli(1000));
    Container {
        name: COLLECTOR.to_owned(),
        image: Some(blueprint.platform.collector_image.clone()),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        env: Some(environment(blueprint, window_seconds)),
        resources: Some(ResourceRequirements {
            requests: Some(amounts(COLLECTOR_CPU, Quantity::mebi(64), Quantity::mebi(16))),
            limits: Some(amounts(cpu, COLLECTOR_MEMORY, COLLECTOR_STORAGE)),
            claims: None,
        }),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            run_as_non_root: Some(true),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
            ..SecurityContext::default()
        }),
        volume_mounts: Some(vec![mount("ca", CA_DIR), mount("backup-token", BACKUP_TOKEN_DIR), mount("apiserver-token", APISERVER_DIR)]),
        ..Container::default()
    }
}

fn environment(blueprint: &Blueprint, window_seconds: i64) -> Vec<EnvVar> {
    let tenant = &blueprint.tenant;
    let values = [
        ("TSUJIBAN_GROUP", tenant.id.group.to_string()),
        ("TSUJIBAN_NAMESPACE", namespace(&tenant.id.group)),
        ("TSUJIBAN_BACKUP_ENDPOINT", blueprint.platform.backup_endpoint.clone()),
        ("TSUJIBAN_CA_FILE", format!("{CA_DIR}/ca.crt")),
        ("TSUJIBAN_TOKEN_FILE", format!("{BACKUP_TOKEN_DIR}/token")),
        ("TSUJIBAN_MAX_CONCURRENT", tenant.max_concurrent.to_string()),
        ("TSUJIBAN_WINDOW_SECONDS", window_seconds.to_string()),
        ("TSUJIBAN_FORBIDDEN_CIDRS", list(tenant.networks.forbidden.ranges())),
        ("TSUJIBAN_DEVICE_CIDRS", list(&tenant.networks.declared)),
        ("TSUJIBAN_DEVICE_PORTS", list(&tenant.networks.ports)),
    ];
    let immediate = EnvVarSource {
        field_ref: Some(ObjectFieldSelector { field_path: format!("metadata.annotations['{ANNOTATION_IMMEDIATE}']"), api_version: None }),
        ..EnvVarSource::default()
    };
    let immediate = EnvVar { name: "TSUJIBAN_IMMEDIATE".to_owned(), value: None, value_from: Some(immediate) };
    values
        .into_iter()
        .map(|(name, value)| EnvVar { name: name.to_owned(), value: Some(value), value_from: None })
        .chain([immediate])
        .collect()
}

fn list<T: ToString>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

fn mount(name: &str, path: &str) -> VolumeMount {
    VolumeMount { name: name.to_owned(), mount_path: path.to_owned(), read_only: Some(true), ..VolumeMount::default() }
}

fn volumes() -> Vec<Volume> {
    let ca = ConfigMapVolumeSource { name: CA_CONFIGMAP.to_owned(), ..ConfigMapVolumeSource::default() };
    let root = ConfigMapProjection {
        name: "kube-root-ca.crt".to_owned(),
        items: Some(vec![KeyToPath { key: "ca.crt".to_owned(), path: "ca.crt".to_owned(), ..KeyToPath::default() }]),
        optional: None,
    };
    let own_namespace = DownwardAPIVolumeFile {
        path: "namespace".to_owned(),
        field_ref: Some(ObjectFieldSelector { field_path: "metadata.namespace".to_owned(), api_version: None }),
        ..DownwardAPIVolumeFile::default()
    };
    let apiserver = vec![
        VolumeProjection { service_account_token: Some(token(None)), ..VolumeProjection::default() },
        VolumeProjection { config_map: Some(root), ..VolumeProjection::default() },
        VolumeProjection { downward_api: Some(DownwardAPIProjection { items: Some(vec![own_namespace]) }), ..VolumeProjection::default() },
    ];
    let backup =
        VolumeProjection { service_account_token: Some(token(Some(Service::Backup.row().audience))), ..VolumeProjection::default() };
    vec![
        Volume { name: "ca".to_owned(), config_map: Some(ca), ..Volume::default() },
        projected("backup-token", vec![backup]),
        projected("apiserver-token", apiserver),
    ]
}

fn projected(name: &str, sources: Vec<VolumeProjection>) -> Volume {
    let projected = ProjectedVolumeSource { sources: Some(sources), ..ProjectedVolumeSource::default() };
    Volume { name: name.to_owned(), projected: Some(projected), ..Volume::default() }
}

fn token(audience: Option<&str>) -> ServiceAccountTokenProjection {
    ServiceAccountTokenProjection {
        audience: audience.map(str::to_owned),
        expiration_seconds: Some(TOKEN_SECONDS),
        path: "token".to_owned(),
        ..ServiceAccountTokenProjection::default()
    }
}
