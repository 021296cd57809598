//! The release as it is installed.

use anyhow::Result;
use tsujiban_api::names::SYSTEM_NAMESPACE;
use tsujiban_e2e::stage::Stage;

/// `helm test`: the backup service answers over TLS under its name, and refuses a call without a token.
#[tokio::test(flavor = "multi_thread")]
async fn helm_test_passes() -> Result<()> {
    let stage = Stage::find().await?;
    let _together = Stage::together().await;
    stage.helm(&["test", "tsujiban", "--namespace", SYSTEM_NAMESPACE, "--timeout", "2m"]).await?.ok()?;
    Ok(())
}

/// C13: the operator's own identity can neither read Secrets elsewhere nor give itself rights.
#[tokio::test(flavor = "multi_thread")]
async fn the_operator_cannot_reach_beyond_its_groups() -> Result<()> {
    let stage = Stage::find().await?;
    let _together = Stage::together().await;
    let operator = format!("system:serviceaccount:{SYSTEM_NAMESPACE}:tsujiban-operator");
    let may = |verb: &'static str, what: &'static str, namespace: &'static str| {
        let (stage, operator) = (&stage, operator.as_str());
        async move {
            let answer = stage.kubectl(&["auth", "can-i", verb, what, "-n", namespace, "--as", operator]).await?;
            anyhow::Ok(answer.code == 0)
        }
    };
    assert!(may("create", "namespaces", "default").await?, "the control: what it must be able to do");
    for (verb, what, namespace) in [
        ("get", "secrets", "kube-system"),
        ("list", "secrets", "default"),
        ("create", "pods", "kube-system"),
        ("create", "clusterrolebindings", "default"),
        ("update", "customresourcedefinitions", "default"),
        ("create", "serviceaccounts/token", "kube-system"),
        ("impersonate", "users", "default"),
        ("escalate", "clusterroles", "default"),
    ] {
        assert!(!may(verb, what, namespace).await?, "the operator may {verb} {what} in {namespace}");
    }
    // a role of its own, in a namespace that is no group's: RBAC lets it, the policy does not
    let binding = "--clusterrole=tsujiban-operator-tenant";
    let account = format!("--serviceaccount={SYSTEM_NAMESPACE}:tsujiban-operator");
    let answer = stage
        .kubectl(&["create", "rolebinding", "own-rights", binding, &account, "-n", "kube-system", "--dry-run=server", "--as", &operator])
        .await?;
    assert!(answer.code != 0 && answer.err.contains("tsujiban-operator"), "{answer:?}");
    Ok(())
}
