//! What is not stored is not reported as stored, and what was missed is caught up.

use anyhow::Result;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, ListParams};
use serde_json::json;
use tsujiban_api::names;
use tsujiban_e2e::manifests::Group;
use tsujiban_e2e::router::{Login, Router};
use tsujiban_e2e::stage::{NOT_STORED, Stage};

/// C23: while the object storage is down or silent nothing is stored and nothing is said to be; afterwards it catches up.
#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_the_storage_or_of_ours_loses_nothing() -> Result<()> {
    let stage = Stage::find().await?;
    let _alone = Stage::alone().await;
    let group = Group::create(&stage, "outages", 81).await?;
    group.device("core-1", "OUT-1", json!({"host": "172.20.81.11"})).await?;
    let router = Router::up(&stage, "out-1", "172.20.81.11", &Login::Key(&group.public_key("core-1").await?))?;

    for (stop, start) in [("stop", "start"), ("pause", "resume")] {
        let before = stage.snapshots("outages").await?.len();
        router.configure(&["interface lo", &format!("description before {stop}")])?;
        stage.component(stop, "s3").await?;
        let run = group.back_up().await;
        let attempt = group.attempt("core-1", "Store").await;
        stage.component(start, "s3").await?;
        let run = run?;
        assert_eq!(run.code, NOT_STORED, "{stop}: {run:?}");
        attempt?;
        assert_eq!(stage.snapshots("outages").await?.len(), before, "nothing is listed that was not stored");
        group.back_up().await?.ok()?;
        group.attempt("core-1", "Changed").await?;
        assert_eq!(stage.snapshots("outages").await?.len(), before + 1);
    }

    // the operator and the backup service go while a collection runs
    router.configure(&["interface lo", "description before the kill"])?;
    let pods: Api<Pod> = Api::namespaced(stage.client.clone(), names::SYSTEM_NAMESPACE);
    let at_once = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    let started = stage.tsujiban(&["backup", "now", "outages", "--no-wait"]).await?.ok()?;
    pods.delete_collection(&at_once, &ListParams::default().labels("app.kubernetes.io/part-of=tsujiban")).await?;
    println!("{}", started.out);
    tsujiban_e2e::wait::until("backups work again", std::time::Duration::from_mins(2), || async {
        Ok((group.back_up().await?.code == 0).then_some(()))
    })
    .await?;
    let newest = stage.snapshots("outages").await?;
    assert_eq!(newest.len(), 3, "the last change is stored, once: {newest:?}");
    drop(router);
    group.erase().await
}
