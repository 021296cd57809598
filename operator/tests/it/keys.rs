//! Keys and certificates in the system namespace.

use std::sync::Arc;

use serde_json::json;
use tokio::sync::watch;
use tsujiban_core::workload::Service;
use tsujiban_operator::pki::{Keeper, Keys, Layer};
use tsujiban_operator::state::reports::Facts;
use tsujiban_proto::lifecycle::v1::ReportResponse;
use tsujiban_sealing::SystemRandom;

use crate::world::{NOTHING, World};

const SECRETS: &str = "/api/v1/namespaces/tsujiban-system/secrets";

fn keeper(world: &World) -> (Keeper, watch::Receiver<Keys>) {
    let (keys_in, keys) = watch::channel(Keys::Pending);
    let keeper = Keeper {
        client: world.apiserver.client(),
        namespace: "tsujiban-system".into(),
        environment: "trial".parse().unwrap(),
        clock: world.clock.clone(),
        random: Arc::new(SystemRandom::new()),
        metrics: Arc::clone(&world.metrics),
        services: vec![Service::Backup, Service::Audit],
        reports: world.tenant.reports.clone(),
        ca_bundle: watch::channel(None).0,
        keys: keys_in,
    };
    (keeper, keys)
}

/// C22: one master key for ever, unchangeable, and a second round changes nothing.
#[tokio::test]
async fn the_master_key_is_made_once() {
    let world = World::new().await;
    let (keeper, keys) = keeper(&world);
    keeper.round().await.unwrap();
    let master = world.apiserver.get(&format!("{SECRETS}/tsujiban-master-key")).unwrap();
    assert_eq!(master["immutable"], json!(true));
    assert_eq!(*keys.borrow(), Keys::Ready);
    for name in ["tsujiban-ca", "tsujiban-backup-tls", "tsujiban-audit-tls", "tsujiban-epoch-keys"] {
        assert!(world.apiserver.get(&format!("{SECRETS}/{name}")).is_some(), "{name}");
    }
    world.apiserver.writes();
    keeper.round().await.unwrap();
    assert_eq!(world.apiserver.writes(), NOTHING);
}

/// C22: a lost master key is never replaced: whatever it sealed would be unreadable for ever, and nobody would notice.
#[tokio::test]
async fn a_lost_master_key_is_not_made_again() {
    let world = World::new().await;
    let (keeper, keys) = keeper(&world);
    keeper.round().await.unwrap();
    world.apiserver.remove(&format!("{SECRETS}/tsujiban-master-key"));
    assert!(keeper.round().await.is_err());
    assert!(matches!(&*keys.borrow(), Keys::Missing(loss) if loss.layer == Layer::Master && loss.advice.contains("escrow")));

    world.apiserver.remove(&format!("{SECRETS}/tsujiban-epoch-keys"));
    let labels = json!({"app.kubernetes.io/managed-by": "tsujiban-operator"});
    let prepared = json!({"metadata": {"labels": labels, "annotations": {"tsujiban.dev/incarnation": "00000000000000000000000000000001"}}});
    world.apiserver.put("/api/v1/namespaces/tn-acme", prepared);
    assert!(keeper.round().await.is_err());
    assert!(world.apiserver.get(&format!("{SECRETS}/tsujiban-master-key")).is_none());

    world.apiserver.remove("/api/v1/namespaces/tn-acme");
    keeper.round().await.unwrap();
    assert_eq!(*keys.borrow(), Keys::Ready);
}

#[tokio::test]
async fn a_new_epoch_key_each_week_and_the_old_one_stays_until_it_is_reported_unused() {
    let world = World::new().await;
    let (keeper, _keys) = keeper(&world);
    let epochs = || world.apiserver.get(&format!("{SECRETS}/tsujiban-epoch-keys")).unwrap()["data"].as_object().unwrap().len();
    keeper.round().await.unwrap();
    world.pass(7 * 24);
    keeper.round().await.unwrap();
    assert_eq!(epochs(), 2);
    world.pass(48);
    keeper.round().await.unwrap();
    assert_eq!(epochs(), 2);
}

/// C22: lost epoch keys are not made again either, while anything says that something is wrapped with them; and as they were, they are good.
#[tokio::test]
async fn lost_epoch_keys_are_not_made_again() {
    let path = format!("{SECRETS}/tsujiban-epoch-keys");
    let labels = json!({"app.kubernetes.io/managed-by": "tsujiban-operator"});
    let prepared = json!({"metadata": {"labels": labels, "annotations": {"tsujiban.dev/incarnation": "00000000000000000000000000000001"}}});
    for (is_prepared, has_said) in [(true, false), (false, true)] {
        let world = World::new().await;
        let (keeper, keys) = keeper(&world);
        keeper.round().await.unwrap();
        let secret = world.apiserver.get(&path).unwrap();
        if is_prepared {
            world.apiserver.put("/api/v1/namespaces/tn-acme", prepared.clone());
        }
        if has_said {
            let epochs_in_use = secret["data"].as_object().unwrap().keys().cloned().collect();
            let said = ReportResponse { epochs_in_use, ..ReportResponse::default() };
            let facts = Arc::new(Facts::from_wire(&said, world.pass(0)));
            world.reports.send_modify(|known| {
                known.take(Service::Backup, facts);
            });
        }
        world.apiserver.remove(&path);
        world.apiserver.writes();
        world.pass(24); // what a service said long ago counts, too
        assert!(keeper.round().await.is_err());
        let is_lost = |keys: &Keys| matches!(keys, Keys::Missing(loss) if loss.layer == Layer::Epochs && loss.advice.contains("is gone"));
        assert!(is_lost(&keys.borrow()), "{:?}", keys.borrow());
        assert_eq!(world.apiserver.writes(), NOTHING);
        assert!(world.apiserver.get(&path).is_none());

        world.apiserver.put(&path, secret);
        keeper.round().await.unwrap();
        assert_eq!(*keys.borrow(), Keys::Ready);
    }
}

/// C22: with neither of the two Secrets there, a service that has data is the last that tells of them.
#[tokio::test]
async fn no_master_key_is_made_while_a_service_has_data() {
    let world = World::new().await;
    let (keeper, keys) = keeper(&world);
    let said = ReportResponse { epochs_in_use: vec!["1".repeat(32)], ..ReportResponse::default() };
    world.reports.send_modify(|known| {
        known.take(Service::Backup, Arc::new(Facts::from_wire(&said, world.pass(0))));
    });
    assert!(keeper.round().await.is_err());
    assert!(matches!(&*keys.borrow(), Keys::Missing(loss) if loss.layer == Layer::Master));
    assert!(world.apiserver.get(&format!("{SECRETS}/tsujiban-master-key")).is_none());
}
