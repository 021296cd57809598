//! A group with two routers, to which the losses happen, and what was acknowledged to it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use tsujiban_core::workload::Service;

use anyhow::{Context, Result, ensure};
use kube::api::DeleteParams;
use serde_json::{Value, json};
use tempfile::TempDir;
use tsujiban_api::names::ANNOTATION_RESTORE_KEYS;
use tsujiban_e2e::manifests::Group;
use tsujiban_e2e::router::{Login, Router};
use tsujiban_e2e::stage::Stage;
use tsujiban_e2e::wait::{SOON, until};

use crate::node::{kill, scale, shell};
use crate::oracle::{Found, LISTED, Oracle};
use crate::row::Step;
use crate::volume::Volumes;
use crate::{bucket, load, volume};

pub struct Scene {
    pub stage: &'static Stage,
    pub group: Group<'static>,
    pub oracle: Oracle,
    routers: Vec<Router>,
    volumes: Volumes,
    /// What was taken away from Kubernetes, in the order in which it went.
    taken: Vec<Value>,
    /// The exports and checkpoints of the auditor, and how many there are.
    folder: TempDir,
    exports: u32,
    /// The environment's public key, as the auditor wrote it down in good times.
    key: String,
    /// How often something was changed.
    turn: u32,
    /// The names of the Sites that were made and deleted.
    pub sites: Vec<String>,
}

impl Scene {
    /// A group with two devices, each with two snapshots. `net` is the third number of its 172.20.<net>.0/24.
    pub async fn begin(stage: &'static Stage, name: &str, net: u8) -> Result<Self> {
        let key = stage.history_key().await?;
        let group = Group::create(stage, name, net).await?;
        let mut routers = Vec::new();
        // a group that an earlier run left behind may have the serial numbers of the same row
        let run = name.split('-').next().unwrap_or_default();
        for number in [1, 2] {
            let (device, host) = (format!("core-{number}"), format!("172.20.{net}.1{number}"));
            group.device(&device, &format!("{run}-{net}-{number}"), json!({"host": host})).await?;
            routers.push(Router::up(stage, &format!("l{net}-{number}"), &host, &Login::Key(&group.public_key(&device).await?))?);
        }
        let volumes = Volumes::default();
        let (taken, folder, sites, oracle) = (Vec::new(), tempfile::tempdir()?, Vec::new(), Oracle::default());
        let mut scene = Self { stage, group, oracle, routers, volumes, taken, folder, exports: 0, key, turn: 0, sites };
        scene.act(Step::BackUpWell).await?;
        scene.act(Step::BackUpWell).await?;
        Ok(scene)
    }

    pub async fn act(&mut self, step: Step) -> Result<()> {
        match step {
            Step::BackUp => drop(self.back_up(true).await?),
            Step::BackUpAgain => drop(self.back_up(false).await?),
            Step::BackUpWell => drop(self.back_up(true).await?.ok()?),
            Step::Declare(times) => self.declare(times).await?,
            Step::Sites(times) => self.sites(times).await?,
            Step::Calls(times) => self.calls(times).await?,
            Step::EraseDevice => self.erase_device().await?,
            Step::Object(pick, damage) => {
                // not asked for by all, and the service may be away
                let snapshots = self.stage.snapshots(&self.group.name).await.unwrap_or_default();
                bucket::damage(self.stage, pick, damage, &snapshots)?;
            }
            Step::Rows(service, sql) => volume::rows(self.stage, service, sql).await?,
            Step::Volume(service, loss) => self.volumes.lose(self.stage, service, loss).await?,
            Step::Stop(service) => scale(self.stage, service, 0).await?,
            Step::Start(service) => scale(self.stage, service, 1).await?,
            Step::Kill(workload) => kill(self.stage, workload).await?,
            Step::StopStorage => self.stage.component("stop", "s3").await?,
            Step::StartStorage => self.stage.component("start", "s3").await?,
            Step::FillStorage => self.volumes.fill_storage(self.stage).await?,
            Step::EmptyStorage => Volumes::empty_storage(self.stage)?,
            Step::TakeAway(kind, namespace, name) => self.take_away(kind, namespace, name).await?,
            Step::PutBack => self.put_back().await?,
            Step::Deploy => self.deploy()?,
            Step::Run(arguments) => drop(self.tsujiban(arguments).await?.ok()?),
            Step::Export => drop(self.export().await?),
            Step::Wait(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
        }
        Ok(())
    }

    /// Runs `tsujiban` with the group's name in the place of `GROUP`.
    pub async fn tsujiban(&self, arguments: &[&str]) -> Result<tsujiban_e2e::stage::Answer> {
        let arguments: Vec<String> = arguments.iter().map(|argument| argument.replace("GROUP", &self.group.name)).collect();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        self.stage.tsujiban(&arguments).await
    }

    /// Backs the group up, with other configs than before or with the same. What is listed afterwards was acknowledged.
    async fn back_up(&mut self, changed: bool) -> Result<tsujiban_e2e::stage::Answer> {
        if changed {
            self.turn += 1;
            for router in &self.routers {
                router.configure(&["interface lo", &format!("description turn {}", self.turn)])?;
            }
        }
        let answer = self.group.back_up().await?;
        self.remember().await;
        Ok(answer)
    }

    /// Takes down what can be read. What cannot be asked now acknowledges nothing.
    async fn remember(&mut self) {
        let snapshots = self.stage.snapshots(&self.group.name).await.unwrap_or_default();
        let entries = self.entries(&self.group.name.clone()).await.unwrap_or_default();
        self.oracle.remember(&snapshots, &entries);
    }

    async fn declare(&mut self, times: u32) -> Result<()> {
        for _ in 0..times {
            self.turn += 1;
            self.group.apply(json!({"displayName": format!("Turn {}", self.turn)})).await?;
        }
        self.remember().await;
        Ok(())
    }

    async fn sites(&mut self, times: u32) -> Result<()> {
        for _ in 0..times {
            self.turn += 1;
            let name = format!("site-{}", self.turn);
            let site = json!({"apiVersion": "tsujiban.dev/v1alpha1", "kind": "Site", "metadata": {"name": name, "namespace": self.group.namespace},
                "spec": {"displayName": name}});
            self.create(&site).await?;
            let delete = ["delete", "site", &name, "-n", &self.group.namespace, "--wait=false"];
            self.stage.kubectl(&delete).await?.ok()?;
            self.sites.push(name);
        }
        Ok(())
    }

    async fn erase_device(&mut self) -> Result<()> {
        // the service may be starting
        let snapshots = until("the snapshots are listed", SOON, || async { Ok(self.stage.snapshots(&self.group.name).await.ok()) }).await?;
        let of_device = snapshots.iter().filter(|snapshot| snapshot["device"] == "core-2");
        let ids: Vec<String> = of_device.filter_map(|snapshot| snapshot["id"].as_str()).map(str::to_owned).collect();
        ensure!(!ids.is_empty(), "the device has no snapshots to erase");
        self.group.devices().delete("core-2", &DeleteParams::default()).await?;
        let devices = self.group.devices();
        until("the device is gone", SOON, || async { Ok(devices.get_opt("core-2").await?.is_none().then_some(())) }).await?;
        self.oracle.erased(ids);
        Ok(())
    }

    async fn take_away(&mut self, kind: &str, namespace: &str, name: &str) -> Result<()> {
        let place: Vec<&str> = if namespace.is_empty() { vec![] } else { vec!["-n", namespace] };
        let mut object = self.stage.kubectl(&[&["get", kind, name, "-o", "json"], &place[..]].concat()).await?.ok()?.json()?;
        if let Some(object) = object.as_object_mut() {
            object.remove("status");
        }
        if let Some(metadata) = object["metadata"].as_object_mut() {
            metadata.retain(|key, _| ["name", "namespace", "labels", "annotations"].contains(&key.as_str()));
        }
        self.stage.kubectl(&[&["delete", kind, name], &place[..]].concat()).await?.ok()?;
        self.taken.push(object);
        Ok(())
    }

    async fn put_back(&mut self) -> Result<()> {
        for mut object in std::mem::take(&mut self.taken) {
            if object["kind"] == "Secret" {
                object["metadata"]["annotations"][ANNOTATION_RESTORE_KEYS] = json!(format!("{}: a test", self.user().await?));
            }
            self.create(&object).await?;
        }
        Ok(())
    }

    /// As the apiserver knows who asks: policy tsujiban-keys wants it beside the keys that are put back.
    async fn user(&self) -> Result<String> {
        let review = self.stage.kubectl(&["auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"]).await?.ok()?;
        Ok(review.out.trim().to_owned())
    }

    async fn create(&self, object: &Value) -> Result<()> {
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), object.to_string())?;
        self.stage.kubectl(&["create", "-f", &file.path().to_string_lossy()]).await?.ok()?;
        Ok(())
    }

    /// The chart once more: what a person does who is told that something of it is gone.
    fn deploy(&mut self) -> Result<()> {
        self.taken.clear();
        let command = self.stage.checkout.join("e2e/deploy");
        let output = Command::new(command).env("TSUJIBAN_CLUSTER_STATE", &self.stage.state).output().context("e2e/deploy")?;
        ensure!(output.status.success(), "e2e/deploy: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// An export with a checkpoint of its own. Answers how often that was done.
    async fn export(&mut self) -> Result<u32> {
        let (file, checkpoint) = (self.file(self.exports, "jsonl"), self.file(self.exports, "checkpoint"));
        let (file, checkpoint) = (file.to_string_lossy(), checkpoint.to_string_lossy());
        // over what an export left that failed: it is no export that the auditor has
        let command = ["audit", "export", &self.group.name, "--force", "--output", &file, "--save-checkpoint", &checkpoint];
        let answer = self.stage.tsujiban(&command).await?;
        // an export that names what is damaged is one, too
        ensure!([0, 3].contains(&answer.code), "exit code {}: {}", answer.code, answer.err);
        self.exports += 1;
        Ok(self.exports)
    }

    fn file(&self, number: u32, ending: &str) -> PathBuf {
        self.folder.path().join(format!("{number}.{ending}"))
    }

    /// What is said of a fresh export, held to every checkpoint that the auditor has.
    pub async fn verdict(&mut self) -> Result<Value> {
        let count = self.export().await?;
        let export = self.file(count - 1, "jsonl").to_string_lossy().into_owned();
        let mut command = vec!["audit".to_owned(), "verify".to_owned(), export, "--key".to_owned(), self.key.clone()];
        for number in 0..count {
            command.extend(["--checkpoint".to_owned(), self.file(number, "checkpoint").to_string_lossy().into_owned()]);
        }
        let command: Vec<&str> = command.iter().map(String::as_str).collect();
        self.stage.tsujiban(&command).await?.json()
    }

    /// The newest entries of a group's history, or of the platform's own. A list that names damaged entries ends with another code than 0, and is
    /// a list all the same.
    pub async fn entries(&self, whose: &str) -> Result<Vec<Value>> {
        let limit = LISTED.to_string();
        let listed = self.stage.tsujiban(&["audit", "list", whose, "--limit", &limit, "--intents"]).await?.json()?;
        Ok(listed["entries"].as_array().context("no entries")?.clone())
    }

    /// Reads of the group's list of snapshots, each an entry of its history. Those that are answered are acknowledged.
    async fn calls(&mut self, times: u32) -> Result<()> {
        let answered = load::reads(self.stage, &self.group.name, times).await?;
        self.oracle.called(answered);
        ensure!(answered > 0, "none of {times} reads was answered");
        Ok(())
    }

    /// Everything that the oracle asks for.
    pub async fn found(&mut self) -> Result<Found> {
        let verdict = self.verdict().await?;
        let export = std::fs::read_to_string(self.file(self.exports - 1, "jsonl"))?;
        let (mut entries, mut damaged) = (Vec::new(), BTreeSet::new());
        for line in export.lines() {
            let mut line: Value = serde_json::from_str(line)?;
            let Some(sequence) = line["sequence"].as_u64() else { continue };
            match line["body"].take() {
                Value::Object(mut body) => {
                    body.insert("sequence".to_owned(), json!(sequence));
                    entries.push(Value::Object(body));
                }
                // a leaf without a body: a gap, or an entry that is named as damaged
                _ => drop(damaged.insert(sequence)),
            }
        }
        let listed = self.entries(&self.group.name.clone()).await?;
        Ok(Found { snapshots: self.stage.snapshots(&self.group.name).await?, entries, listed, damaged, verdict })
    }

    /// Brings everything back that steps stopped or took, and erases the group.
    pub async fn end(mut self) -> Result<()> {
        self.stage.component("start", "s3").await?;
        self.put_back().await?;
        self.volumes.release(self.stage).await?;
        for service in [Service::Backup, Service::Audit] {
            scale(self.stage, service, 1).await?;
            self.stage.rolled_out(&format!("statefulset/{}", service.row().host)).await?;
        }
        self.routers.clear();
        self.group.erase().await
    }
}

/// The time by the node's clock, as `kubectl logs` takes it.
pub fn now(stage: &Stage) -> Result<String> {
    Ok(shell(stage, "date -u +%Y-%m-%dT%H:%M:%SZ")?.trim().to_owned())
}
