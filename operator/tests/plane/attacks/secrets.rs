//! Secrets: read by who may only hand them over, made into something else, or put where the operator would take them for its own.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use http::Method;
use k8s_openapi::ByteString;
use serde_json::{Value, json};
use tsujiban_plane::wait::until;

use super::stage::{ATTACKER, PASSWORD, Stage, VICTIM, devices, namespace, secret, secrets};
use crate::attempt::{APPLY, Answer, Attempt, JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH, Stop, granted, read, refused};
use crate::world::SOON;

const POLICY: Stop = Stop::Policy("tsujiban-secrets");
const GENERATED: Stop = Stop::Policy("tsujiban-generated");

/// Kubernetes fills a Secret of this type with a lasting token of the account it names; its maker reads it by other ways, or mounts it.
pub async fn token_secret_created_by_an_owner(stage: Arc<Stage>) -> Result<()> {
    let path = secrets(ATTACKER);
    let named = json!({"name": "token", "annotations": {"kubernetes.io/service-account.name": "collector"}});
    let with = |kind: &str, metadata: &Value, data: Value| json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": kind, "stringData": data});
    let plain = json!({"name": "token"});
    let login = json!({"username": "a", "password": "b"});
    let token = "kubernetes.io/service-account-token";
    let docker = json!({".dockerconfigjson": "{\"auths\":{}}"});
    let mut attempts = vec![
        Attempt::create(&path, with(token, &named, json!({})), POLICY),
        Attempt::create(&path, with(token, &named, login.clone()), POLICY),
        Attempt::create(&path, with("tsujiban.dev/device-credentials", &named, login.clone()), POLICY),
        Attempt::create(&path, with("Opaque", &plain, login.clone()), POLICY),
        Attempt::create(&path, with("kubernetes.io/dockerconfigjson", &plain, docker), POLICY),
        Attempt::create(&path, with("bootstrap.kubernetes.io/token", &plain, login.clone()), POLICY),
    ];
    let mut generated = with(token, &named, json!({}));
    generated["metadata"] = json!({"generateName": "token-", "annotations": named["annotations"]});
    attempts.push(Attempt::create(&path, generated, POLICY));
    // one that stands already
    let live = read(&stage.control, &format!("{path}/own-login")).await?;
    let mut annotated = live.clone();
    annotated["metadata"]["annotations"] = named["annotations"].clone();
    attempts.push(Attempt::new(Method::PUT, &format!("{path}/own-login"), annotated, POLICY));
    refused(&stage.owner, &stage.control, &attempts).await?;
    let mut retyped = live;
    retyped["type"] = json!(token);
    let immutable = Stop::Words("field is immutable");
    refused(&stage.owner, &stage.control, &[Attempt::new(Method::PUT, &format!("{path}/own-login"), retyped, immutable)]).await?;
    let victims = with(token, &named, json!({}));
    refused(&stage.owner, &stage.control, &[Attempt::create(&secrets(VICTIM), victims, Stop::Rights)]).await?;
    granted(&stage.owner, &Attempt::create(&path, secret("right", "x"), POLICY)).await.map(|_| ())
}

/// Who hands a credential over does not read one: not by asking, and not by what the apiserver answers to a write. The answer to a patch
/// shows the object, also to one that changes nothing; so does that to a deletion that has to wait for something.
pub async fn secret_read_through_an_answer(stage: Arc<Stage>) -> Result<()> {
    let (all, one) = (secrets(ATTACKER), format!("{}/own-login", secrets(ATTACKER)));
    let shown = serde_json::to_value(ByteString(PASSWORD.as_bytes().to_vec()))?;
    let shown = shown.as_str().context("no text")?;
    ensure!(granted(&stage.control, &Attempt::get(&one, POLICY)).await?.text.contains(shown), "the control reads it");
    let empty_apply = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "own-login"}});
    let rights = Stop::Rights;
    let mut attempts = vec![
        Attempt::get(&one, rights),
        Attempt::get(&all, rights),
        Attempt::get(&format!("{all}?fieldSelector=metadata.name%3Down-login"), rights),
        Attempt::get(&format!("{all}?watch=true&timeoutSeconds=1"), rights),
        Attempt::get(&format!("/api/v1/watch/namespaces/tn-{ATTACKER}/secrets/own-login?timeoutSeconds=1"), rights),
        Attempt::delete(&all, Value::Null, rights).called("all at once, which lists them"),
        Attempt::patch(JSON_PATCH, &one, json!([]), rights),
        Attempt::patch(JSON_PATCH, &one, json!([{"op": "copy", "from": "/data/password", "path": "/metadata/annotations"}]), rights)
            .without_effect(),
        Attempt::patch(MERGE_PATCH, &one, json!({}), rights),
        Attempt::patch(STRATEGIC_PATCH, &one, json!({}), rights),
        Attempt::patch(APPLY, &format!("{one}?fieldManager=owner"), empty_apply, rights),
    ];
    let waits = Stop::Policy("tsujiban-secret-deletions");
    for options in ["propagationPolicy=Foreground", "propagationPolicy=Orphan", "orphanDependents=true"] {
        attempts.push(Attempt::delete(&format!("{one}?{options}"), Value::Null, waits));
    }
    for options in [json!({"propagationPolicy": "Foreground"}), json!({"propagationPolicy": "Orphan"}), json!({"orphanDependents": true})] {
        attempts.push(Attempt::delete(&one, options.clone(), waits).called(&options.to_string()));
    }
    refused(&stage.owner, &stage.control, &attempts).await?;
    // one that something holds back already: its deletion would be answered with it, however it is asked for
    let mut held = secret("held", PASSWORD);
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    granted(&stage.control, &Attempt::create(&all, held, POLICY)).await?;
    let held = format!("{all}/held");
    refused(&stage.owner, &stage.control, &[Attempt::delete(&held, Value::Null, waits)]).await?;
    let free = Attempt::patch(MERGE_PATCH, &held, json!({"metadata": {"finalizers": null}}), POLICY);
    granted(&stage.control, &free).await?;
    // what is granted shows nothing that the owner did not just say
    let mut told = Vec::new();
    let replaced = Attempt::new(Method::PUT, &held, secret("held", "something else"), POLICY);
    for attempt in [replaced, Attempt::delete(&held, Value::Null, POLICY)] {
        told.push(granted(&stage.owner, &attempt).await?);
    }
    granted(&stage.owner, &Attempt::create(&all, secret("held", PASSWORD), POLICY)).await?;
    for attempt in [Attempt::delete(&held, json!({"propagationPolicy": "Background"}), POLICY)] {
        told.push(granted(&stage.owner, &attempt).await?);
    }
    ensure!(!told.iter().any(|answer| shows(answer, shown)), "an answer shows it: {told:?}");
    Ok(())
}

fn shows(answer: &Answer, text: &str) -> bool {
    answer.text.contains(text) || answer.text.contains(PASSWORD)
}

/// A key pair of the attacker's choice, put where the operator will look for the one that it generates.
pub async fn generated_name_squatted(stage: Arc<Stage>) -> Result<()> {
    let path = secrets(ATTACKER);
    let pair = |labels: Value| {
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "device-nara-ssh", "labels": labels},
            "type": "tsujiban.dev/device-credentials",
            "stringData": {"username": "tsujiban", "ssh-privatekey": "chosen", "ssh-publickey": "ssh-ed25519 chosen"}})
    };
    let attempts = [
        Attempt::create(&path, pair(json!({})), POLICY),
        Attempt::create(&path, pair(json!({"tsujiban.dev/device": "nara"})), POLICY),
        Attempt::create(&format!("{path}?fieldManager=tsujiban-operator"), pair(json!({"tsujiban.dev/tenant": ATTACKER})), POLICY),
    ];
    refused(&stage.owner, &stage.control, &attempts).await?;
    // were one there all the same, it would not be taken for the operator's, nor deleted with the Device
    granted(&stage.control, &Attempt::create(&path, pair(json!({"tsujiban.dev/device": "nara"})), POLICY)).await?;
    let squatted = read(&stage.control, &format!("{path}/device-nara-ssh")).await?;
    stage.device(ATTACKER, "nara", "SN-NARA", "172.20.1.11", None).await?;
    let device = format!("{}/nara", devices(ATTACKER));
    let refused_by = || async {
        let device = read(&stage.control, &device).await?;
        let conditions = device["status"]["conditions"].as_array().context("no conditions")?;
        let taken = conditions.iter().any(|it| it["type"] == "CredentialsReady" && it["reason"] == "SecretNameTaken");
        ensure!(taken && device["status"]["publicKey"].is_null(), "{device}");
        Ok(Some(()))
    };
    until("the squatted name is noticed", SOON, refused_by).await?;
    granted(&stage.owner, &Attempt::delete(&device, Value::Null, POLICY)).await?;
    until("the Device is gone", SOON, || async { Ok(stage.world.devices(ATTACKER).get_opt("nara").await?.is_none().then_some(())) })
        .await?;
    ensure!(read(&stage.control, &format!("{path}/device-nara-ssh")).await? == squatted, "the operator touched what it did not make");
    // the real one is changed, replaced and deleted by nobody
    let real = format!("{path}/device-osaka-ssh");
    let live = read(&stage.control, &real).await?;
    let mut attempts =
        vec![Attempt::delete(&real, Value::Null, GENERATED), Attempt::delete(&real, json!({"propagationPolicy": "Background"}), GENERATED)];
    let mut replaced = live.clone();
    replaced["data"]["ssh-privatekey"] = squatted["data"]["ssh-privatekey"].clone();
    let mut disowned = live.clone();
    disowned["metadata"]["labels"] = json!({});
    for body in [replaced, disowned] {
        attempts.push(Attempt::new(Method::PUT, &real, body, GENERATED));
    }
    refused(&stage.owner, &stage.control, &attempts).await?;
    // administrators neither, with one request for all of them
    let all = format!("{path}?labelSelector=tsujiban.dev/device%3Dosaka");
    refused(&stage.world.admin, &stage.control, &[Attempt::delete(&all, Value::Null, GENERATED)]).await?;
    ensure!(read(&stage.control, &real).await? == live, "the generated key pair changed");
    Ok(())
}

/// A Secret of the owner's that says it is the operator's: refused where that would mean something, left alone where it does not.
pub async fn secret_that_pretends_to_be_generated(stage: Arc<Stage>) -> Result<()> {
    let path = secrets(ATTACKER);
    let uid = read(&stage.control, &namespace(ATTACKER)).await?["metadata"]["labels"]["tsujiban.dev/tenant-uid"].clone();
    let labels = json!({"app.kubernetes.io/managed-by": "tsujiban-operator", "tsujiban.dev/tenant": ATTACKER, "tsujiban.dev/tenant-uid": uid,
        "tsujiban.dev/device": "kobe"});
    let with = |labels: &Value| {
        let mut body = secret("pretends", "x");
        body["metadata"]["labels"] = labels.clone();
        body
    };
    refused(&stage.owner, &stage.control, &[Attempt::create(&path, with(&labels), GENERATED)]).await?;
    let mut harmless = labels.clone();
    harmless["app.kubernetes.io/managed-by"] = json!("Tsujiban-Operator");
    granted(&stage.owner, &Attempt::create(&path, with(&harmless), POLICY)).await?;
    let one = format!("{path}/pretends");
    refused(&stage.owner, &stage.control, &[Attempt::new(Method::PUT, &one, with(&labels), GENERATED)]).await?;
    let before = read(&stage.control, &one).await?;
    // a Device of that name comes and goes
    stage.device(ATTACKER, "kobe", "SN-KOBE", "172.20.1.12", Some("pretends")).await?;
    stage.world.device_is(ATTACKER, "kobe", "True").await;
    granted(&stage.owner, &Attempt::delete(&format!("{}/kobe", devices(ATTACKER)), Value::Null, POLICY)).await?;
    until("the Device is gone", SOON, || async { Ok(stage.world.devices(ATTACKER).get_opt("kobe").await?.is_none().then_some(())) })
        .await?;
    ensure!(read(&stage.control, &one).await? == before, "the operator touched what it did not make");
    Ok(())
}
