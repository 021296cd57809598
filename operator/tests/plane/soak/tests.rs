//! Whether the generator can be trusted: it makes everything that the CRDs say, and the apiserver agrees with it about what is good.

use http::Request;
use kube::Client;
use serde_json::{Value, json};
use tsujiban_api::names::LABEL_TENANT;

use super::declared::{Group, SERIAL};
use super::generator::Generator;
use super::player::{Stage, refusal};
use super::rng::Rng;
use super::schema::{Broken, Schema};
use super::sources::{SITE, TENANT};

#[test]
fn every_field_and_every_rule_of_the_crds_is_known() {
    let generator = Generator::new(1);
    for schema in [&generator.tenants, &generator.sites, &generator.devices] {
        assert_eq!(schema.gaps(), Vec::<String>::new());
    }
}

#[test]
fn a_new_field_is_noticed_when_it_needs_more_than_its_schema_says() {
    let [_, (_, mut crd), _] = tsujiban_api::crds().unwrap();
    let fields = crd.pointer_mut("/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties").unwrap();
    fields["plain"] = json!({"type": "string", "maxLength": 3});
    assert_eq!(Schema::new("Site", &crd, SITE).gaps(), Vec::<String>::new());
    let fields = crd.pointer_mut("/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties").unwrap();
    fields["ruled"] = json!({"type": "string", "x-kubernetes-validations": [{"rule": "false"}]});
    fields["patterned"] = json!({"type": "string", "pattern": "x"});
    let gaps = Schema::new("Site", &crd, SITE).gaps();
    assert_eq!(gaps.len(), 2, "{gaps:?}");
    assert!(!Schema::new("Site", &crd, TENANT).gaps().is_empty(), "sources without a field");
}

#[test]
fn a_sequence_follows_from_its_seed_and_number() {
    let story = |seed, number| serde_saphyr::to_string(&Generator::new(seed).sequence(number)).unwrap();
    assert_eq!(story(7, 3), story(7, 3));
    assert_ne!(story(7, 3), story(7, 4));
    assert_ne!(story(7, 3), story(8, 3));
}

/// What must be taken is taken, what must be refused is refused, and each rule in CEL refuses something.
pub async fn the_apiserver_agrees_about_what_is_good(stage: &Stage, generator: &Generator) {
    let client = stage.admin();
    let group = Group { name: "agreed".to_owned(), serial: "A".to_owned() };
    let namespace = json!({
        "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": group.namespace(), "labels": {LABEL_TENANT: group.name}},
    });
    let request = Request::post("/api/v1/namespaces").header("content-type", "application/json");
    let _made: Value = stage.hand.request(request.body(serde_json::to_vec(&namespace).unwrap()).unwrap()).await.unwrap();
    let mut rng = Rng::new(generator.seed, "agreed", 0);
    let mut disagreed = Vec::new();
    for schema in [&generator.tenants, &generator.sites, &generator.devices] {
        let mut good = schema.value(&mut rng);
        for _ in 0..60 {
            good = schema.value(&mut rng);
            if let Err(error) = dry_run(client, &group, schema.kind, &good).await {
                disagreed.push(format!("{} was refused: {good}: {error:#}", schema.kind));
            }
        }
        let mut unheard = schema.messages();
        for broken in schema.broken() {
            match refusal(dry_run(client, &group, schema.kind, &schema.spoil(&good, &broken)).await) {
                Ok(refused) => unheard.retain(|message| !refused.message.contains(message.as_str())),
                Err(error) => disagreed.push(format!("{} {}: {:?}: {error:#}", schema.kind, broken.path, broken.value)),
            }
        }
        unheard.retain(|message| !message.starts_with("serialNumber cannot be changed")); // sequences do that
        disagreed.extend(unheard.iter().map(|message| format!("{}: nothing provokes {message:?}", schema.kind)));
        for source in TENANT.iter().filter(|_| schema.kind == "Tenant") {
            for value in (source.rejected)() {
                let broken = Broken { path: source.path.to_owned(), value: Some(value) };
                if let Err(error) = dry_run(client, &group, schema.kind, &schema.spoil(&good, &broken)).await {
                    disagreed.push(format!("{}: {:?} is the apiserver's to refuse: {error:#}", source.path, broken.value));
                }
            }
        }
    }
    assert!(disagreed.is_empty(), "{}", disagreed.join("\n"));
}

async fn dry_run(client: &Client, group: &Group, kind: &str, spec: &Value) -> anyhow::Result<Value> {
    let (path, object) = if kind == "Tenant" {
        (format!("/apis/tsujiban.dev/v1alpha1/tenants/{}", group.name), group.tenant(spec))
    } else {
        let path = format!("/apis/tsujiban.dev/v1alpha1/namespaces/{}/{}s/x", group.namespace(), kind.to_lowercase());
        (path, group.member(kind, "x", spec))
    };
    let uri = format!("{path}?fieldManager=people&force=true&dryRun=All");
    let request = Request::patch(uri).header("content-type", "application/apply-patch+yaml").body(serde_json::to_vec(&object)?)?;
    assert!(!object.to_string().contains(SERIAL));
    Ok(client.request(request).await?)
}
