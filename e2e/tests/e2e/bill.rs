//! What an image says of what it is made of (C9, C11).

#![allow(clippy::indexing_slicing)] // a field that a JSON value lacks is null, not a panic

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tsujiban_api::names::SYSTEM_NAMESPACE;
use tsujiban_e2e::stage::Stage;
use tsujiban_e2e::wait::until;

const PROGRAMS: [&str; 4] = ["operator", "backup", "audit", "collector"];

/// Each program carries the list of its crates, its bill of materials lists exactly these, and the images that the cluster runs hold both.
#[tokio::test(flavor = "multi_thread")]
async fn an_image_lists_what_its_program_is_made_of() -> Result<()> {
    let stage = Stage::find().await?;
    let _together = Stage::together().await;
    let built = stage.checkout.join("target/images");
    for name in PROGRAMS {
        let program = built.join(format!("tsujiban-{name}"));
        let bill: Value = serde_json::from_slice(&std::fs::read(built.join(format!("tsujiban-{name}.cdx.json")))?)?;
        let carried = crates(&stage, &program)?;
        for control in ["tokio", "ring", "tsujiban-core"] {
            assert!(carried.iter().any(|(name, ..)| name == control), "{name} is made of {control}");
        }
        assert_eq!(listed(&bill)?, carried, "the bill of {name} lists what the program carries");
        let of_program = text(&bill, "/metadata/component/hashes/0/content")?;
        assert_eq!(of_program, sum(&program)?, "the bill of {name} is that of this program");
        let unlicensed = components(&bill)?.filter(|it| it["type"] == "library" && it["licenses"].is_null()).count();
        assert_eq!(unlicensed, 0, "the bill of {name} knows every licence");
    }

    // what the cluster runs is what was built
    let mut volumes = Vec::new();
    for (name, image) in PROGRAMS.into_iter().zip(running(&stage).await?) {
        volumes.push(json!({"name": name, "image": {"reference": image, "pullPolicy": "IfNotPresent"}}));
    }
    let mounts: Vec<Value> =
        PROGRAMS.iter().map(|name| json!({"name": name, "mountPath": format!("/images/{name}"), "readOnly": true})).collect();
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "bill", "namespace": "default"},
        "spec": {
            "automountServiceAccountToken": false,
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "probe", "image": "tsujiban.dev/probe:dev", "imagePullPolicy": "IfNotPresent", "volumeMounts": mounts}],
            "volumes": volumes,
        },
    });
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), pod.to_string())?;
    stage.kubectl(&["apply", "-f", &file.path().to_string_lossy()]).await?.ok()?;
    until("pod bill runs", Duration::from_mins(2), || async {
        let phase = stage.kubectl(&["get", "pod", "bill", "-n", "default", "-o", "jsonpath={.status.phase}"]).await?.ok()?;
        Ok((phase.out == "Running").then_some(()))
    })
    .await?;
    for name in PROGRAMS {
        let bill = format!("/usr/share/sbom/tsujiban-{name}.cdx.json");
        for (inside, outside) in [("/app", format!("tsujiban-{name}")), (bill.as_str(), format!("tsujiban-{name}.cdx.json"))] {
            let path = format!("/images/{name}{inside}");
            let answer = stage.kubectl(&["exec", "-n", "default", "bill", "--", "sha256sum", &path]).await?.ok()?;
            assert_eq!(answer.out.split_whitespace().next(), Some(sum(&built.join(&outside))?.as_str()), "{path} is {outside}");
        }
    }
    stage.kubectl(&["delete", "pod", "bill", "-n", "default"]).await?.ok()?;
    Ok(())
}

/// The images of the programs, as the cluster runs them.
async fn running(stage: &Stage) -> Result<[String; 4]> {
    let get = |what: &'static str, path: &'static str| async move {
        let path = format!("jsonpath={path}");
        anyhow::Ok(stage.kubectl(&["get", what, "-n", SYSTEM_NAMESPACE, "-o", &path]).await?.ok()?.out)
    };
    let container = "{.spec.template.spec.containers[0].image}";
    let arguments = get("deployment/tsujiban-operator", "{.spec.template.spec.containers[0].args}").await?;
    let arguments: Vec<String> = serde_json::from_str(&arguments)?;
    let collector = arguments.iter().find_map(|it| it.strip_prefix("--collector-image=")).context("no --collector-image")?;
    Ok([
        get("deployment/tsujiban-operator", container).await?,
        get("statefulset/tsujiban-backup", container).await?,
        get("statefulset/tsujiban-audit", container).await?,
        collector.to_owned(),
    ])
}

/// Name, version, and whether it is needed at run time, of each crate that a program carries in its list; not the program itself.
fn crates(stage: &Stage, program: &Path) -> Result<BTreeSet<(String, String, bool)>> {
    let tool = output(Command::new(stage.checkout.join("e2e/cluster/path")).arg("rust-audit-info"))?;
    let list: Value = serde_json::from_str(&output(Command::new(tool.trim()).arg(program))?)?;
    let packages = list["packages"].as_array().context("no packages")?;
    let others = packages.iter().filter(|package| package["root"] != true);
    others.map(|package| Ok((text(package, "/name")?, text(package, "/version")?, package["kind"] != "build"))).collect()
}

/// The same from a bill of materials.
fn listed(bill: &Value) -> Result<BTreeSet<(String, String, bool)>> {
    let libraries = components(bill)?.filter(|component| component["type"] == "library");
    libraries.map(|component| Ok((text(component, "/name")?, text(component, "/version")?, component["scope"] == "required"))).collect()
}

fn components(bill: &Value) -> Result<impl Iterator<Item = &Value>> {
    Ok(bill["components"].as_array().context("no components")?.iter())
}

fn text(value: &Value, pointer: &str) -> Result<String> {
    Ok(value.pointer(pointer).and_then(Value::as_str).with_context(|| format!("no {pointer}"))?.to_owned())
}

fn sum(path: &Path) -> Result<String> {
    let line = output(Command::new("sha256sum").arg(path))?;
    Ok(line.split_whitespace().next().context("no sum")?.to_owned())
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{}", command.get_program().display()))?;
    ensure!(output.status.success(), "{}: {}", command.get_program().display(), String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}
