//! The control plane does what the tests on it rely on.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a test that cannot go on must panic

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{DeleteParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use tsujiban_plane::{Plane, SYSTEM};

/// Rights and policies are those of the charts; writes are recorded with their author; etcd goes back to a copy.
#[tokio::test(flavor = "multi_thread")]
async fn a_control_plane_with_our_charts() {
    let mut plane = Plane::start().await.unwrap();
    let operator = plane.operator().await.unwrap().client().unwrap();
    let namespaces: Api<Namespace> = Api::all(operator.clone());
    let refused = namespaces.create(&PostParams::default(), &namespace("other")).await.unwrap_err();
    assert!(refused.to_string().contains("tn-*"), "{refused}");
    let mut labelled = namespace("tn-acme");
    labelled.metadata.labels = serde_json::from_value(json!({"tsujiban.dev/tenant": "acme"})).unwrap();
    let before = namespaces.create(&PostParams::default(), &labelled).await.unwrap();
    let secrets: Api<k8s_openapi::api::core::v1::Secret> = Api::namespaced(operator, "kube-system");
    assert!(matches!(secrets.list(&kube::api::ListParams::default()).await, Err(kube::Error::Api(status)) if status.is_forbidden()));

    let written = plane.audit.writes_of(&format!("system:serviceaccount:{SYSTEM}:tsujiban-operator")).unwrap();
    assert_eq!(written.iter().map(|write| (write.verb.as_str(), write.resource.as_str())).collect::<Vec<_>>(), [("create", "namespaces")]);

    plane.copy_etcd("an-hour-ago").await.unwrap();
    let admin = plane.admin.client().unwrap();
    Api::<Namespace>::all(admin.clone()).delete("tn-acme", &DeleteParams::default()).await.unwrap();
    plane.restore_etcd("an-hour-ago").await.unwrap();
    let after = Api::<Namespace>::all(plane.admin.client().unwrap()).get("tn-acme").await.unwrap();
    assert_eq!((after.uid(), after.metadata.deletion_timestamp), (before.uid(), None));
    let person = plane.person("nobody@example.co.jp", None).await.unwrap().client().unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(person, "tn-acme");
    assert!(matches!(maps.get("x").await, Err(kube::Error::Api(status)) if status.is_forbidden()));
}

fn namespace(name: &str) -> Namespace {
    serde_json::from_value(json!({"metadata": {"name": name}})).unwrap()
}
