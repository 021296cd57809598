//! Does what a sequence says.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use http::Request;
use kube::Client;
use kube::core::Status;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use super::declared::{Declared, Group};
use super::drift::{Change, Drift};
use super::generator::{Sequence, Step};
use super::oracle::{get, ready};
use crate::operator::Operator;
use crate::world::World;

/// How long anything may take, on a machine that does other things besides.
pub const LIMIT: Duration = Duration::from_mins(3);

/// How often is looked. Many sequences share the machine.
const LOOK: Duration = Duration::from_millis(300);

/// Looks until `look` answers something. What keeps it from that is told at the end.
async fn until<T, F>(what: &str, look: impl Fn() -> F) -> Result<T>
where
    F: Future<Output = Result<Option<T>>>,
{
    let start = Instant::now();
    loop {
        let error = match look().await {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => None,
            Err(error) => Some(error),
        };
        if start.elapsed() > LIMIT {
            let what = format!("waited {LIMIT:?} for: {what}");
            return Err(error.map_or_else(|| anyhow!(what.clone()), |error| error.context(what.clone())));
        }
        sleep(LOOK).await;
    }
}

/// The world that all sequences share.
pub struct Stage {
    pub world: World,
    /// Passes the policies, as the controllers of Kubernetes do.
    pub hand: Client,
    /// What the operator talks to the apiserver with.
    pub client: Client,
    operator: Mutex<Option<Operator>>,
}

impl Stage {
    pub async fn new() -> Result<Arc<Self>> {
        let world = World::new().await;
        let hand = world.plane.person("system:kube-controller-manager", Some("system:masters")).await?.client()?;
        let client = world.plane.operator().await?.client()?;
        let stage = Self { world, hand, client, operator: Mutex::new(None) };
        stage.restart().await;
        Ok(Arc::new(stage))
    }

    pub async fn restart(&self) {
        let mut operator = self.operator.lock().await;
        *operator = None;
        *operator = Some(Operator::start(self.client.clone(), &self.world.endpoint));
    }

    pub fn admin(&self) -> &Client {
        &self.world.admin
    }
}

/// One group on the stage.
pub struct Player<'a> {
    pub stage: &'a Stage,
    pub group: &'a Group,
    /// The incarnation that the group must keep.
    incarnation: Option<String>,
}

impl<'a> Player<'a> {
    pub fn new(stage: &'a Stage, group: &'a Group) -> Self {
        Self { stage, group, incarnation: None }
    }

    pub async fn play(&mut self, sequence: &Sequence) -> Result<()> {
        for (at, step) in sequence.steps.iter().enumerate() {
            self.step(step).await.with_context(|| format!("step {} of {}", at + 1, sequence.steps.len()))?;
        }
        Ok(())
    }

    /// Declares everything at once, as for a new group.
    pub async fn declare(&mut self, declared: &Declared) -> Result<()> {
        self.tenant(&declared.tenant).await?;
        for (name, spec) in &declared.sites {
            self.member("Site", name, spec).await?;
        }
        for (name, key) in &declared.secrets {
            self.secret(name, key).await?;
        }
        for (name, spec) in &declared.devices {
            self.member("Device", name, spec).await?;
        }
        Ok(())
    }

    async fn step(&mut self, step: &Step) -> Result<()> {
        match step {
            Step::Tenant(spec) => self.tenant(spec).await,
            Step::Rejected(spec) => {
                if get(self.stage.admin(), &self.path("Tenant", "")).await.is_ok() {
                    // the operator may never see what is replaced at once, and what follows needs the namespace
                    self.has_namespace().await?;
                }
                self.tenant(spec).await?;
                self.tenant_says("False", "InvalidSpec").await
            }
            Step::Refused { kind, name, spec, because } => self.refused(kind, name, spec).await.context(because.clone()),
            Step::Site(name, spec) => self.member("Site", name, spec).await,
            Step::DeleteSite(name) => self.gone(&self.path("Site", name)).await,
            Step::Secret(name, key) => self.secret(name, key).await,
            Step::DeleteSecret(name) => self.delete(&self.path("Secret", name)).await,
            Step::Device(name, spec, reason) => {
                if reason.as_deref() == Some(tsujiban_api::device::reason::SERIAL_CONFLICT) {
                    // who came first is known by the second; of the same one, by the uid
                    tokio::time::sleep(Duration::from_millis(1100)).await;
                }
                self.member("Device", name, spec).await?;
                match reason {
                    Some(reason) => self.says(&self.path("Device", name), "False", reason).await,
                    None => Ok(()),
                }
            }
            Step::DeleteDevice(name) => self.gone(&self.path("Device", name)).await,
            Step::Drift(drift) => self.drift(drift).await,
            Step::Restart => {
                self.stage.restart().await;
                Ok(())
            }
            Step::Relink(spec) => {
                self.tenant(spec).await?;
                self.settle().await?;
                self.gone(&self.path("Tenant", "")).await?;
                ensure!(self.namespace().await.is_ok(), "the namespace of a retained group is gone");
                self.tenant(spec).await?;
                self.settle().await
            }
            Step::Erase(spec) => {
                self.tenant(spec).await?;
                self.settle().await?;
                self.gone(&self.path("Tenant", "")).await?;
                ensure!(self.namespace().await.is_err(), "the namespace of an erased group is there");
                self.stage.world.backup.free_id(&self.group.name);
                self.incarnation = None;
                self.tenant(spec).await?;
                self.settle().await
            }
            Step::DeleteNamespace => {
                self.settle().await?;
                let before = self.namespace().await?;
                self.delete(&format!("/api/v1/namespaces/{}", self.group.namespace())).await?;
                until("the namespace is made again", || async {
                    Ok((self.namespace().await?["metadata"]["uid"] != before["metadata"]["uid"]).then_some(()))
                })
                .await?;
                self.settle().await
            }
            Step::Settle => self.settle().await,
        }
    }

    fn path(&self, kind: &str, name: &str) -> String {
        let namespace = self.group.namespace();
        match kind {
            "Tenant" => format!("/apis/tsujiban.dev/v1alpha1/tenants/{}", self.group.name),
            "Secret" => format!("/api/v1/namespaces/{namespace}/secrets/{name}"),
            _ => format!("/apis/tsujiban.dev/v1alpha1/namespaces/{namespace}/{}s/{name}", kind.to_lowercase()),
        }
    }

    async fn apply(&self, path: &str, object: &Value) -> Result<Value> {
        let uri = format!("{path}?fieldManager=people&force=true");
        let request = Request::patch(uri).header("content-type", "application/apply-patch+yaml").body(serde_json::to_vec(object)?)?;
        Ok(self.stage.admin().request(request).await?)
    }

    async fn tenant(&self, spec: &Value) -> Result<()> {
        self.apply(&self.path("Tenant", ""), &self.group.tenant(spec)).await.context("the Tenant was refused")?;
        Ok(())
    }

    async fn member(&self, kind: &str, name: &str, spec: &Value) -> Result<()> {
        self.has_namespace().await?;
        self.apply(&self.path(kind, name), &self.group.member(kind, name, spec))
            .await
            .with_context(|| format!("{kind} {name} was refused"))?;
        Ok(())
    }

    async fn secret(&self, name: &str, key: &str) -> Result<()> {
        self.has_namespace().await?;
        let (path, secret) = (self.path("Secret", name), self.group.secret(name, key));
        // a quota that the Tenant has widened is wider some moments later
        let answer = until("there is room for the Secret", || async {
            match self.apply(&path, &secret).await {
                Err(error) if error.downcast_ref().is_some_and(is_beyond_quota) => Err(error),
                answer => Ok(Some(answer)),
            }
        })
        .await?;
        answer.map(drop).context("the Secret was refused")
    }

    async fn namespace(&self) -> Result<Value> {
        get(self.stage.admin(), &format!("/api/v1/namespaces/{}", self.group.namespace())).await
    }

    async fn has_namespace(&self) -> Result<()> {
        until("the group has its namespace", || async { Ok((self.namespace().await?["status"]["phase"] == "Active").then_some(())) }).await
    }

    async fn refused(&self, kind: &str, name: &str, spec: &Value) -> Result<()> {
        let path = self.path(kind, name);
        if kind != "Tenant" {
            self.has_namespace().await?;
        }
        let object = if kind == "Tenant" { self.group.tenant(spec) } else { self.group.member(kind, name, spec) };
        let before = get(self.stage.admin(), &path).await.ok().map(|object| object["spec"].clone());
        let refusal = refusal(self.apply(&path, &object).await)?;
        // a value of another type than the schema's is a server error to server-side apply
        let is_typed = refusal.message.contains("failed to create typed patch object");
        ensure!(refusal.is_invalid() || refusal.is_forbidden() || is_typed, "refused in another way: {refusal:?}");
        let after = get(self.stage.admin(), &path).await.ok().map(|object| object["spec"].clone());
        ensure!(before == after, "refused, and yet the spec became {after:?}");
        Ok(())
    }

    async fn delete(&self, path: &str) -> Result<()> {
        match self.stage.admin().request::<Value>(Request::delete(path).body(Vec::new())?).await {
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            other => other.map(|_| ()).with_context(|| format!("{path} cannot be deleted")),
        }
    }

    /// Deletes, and waits until it is gone.
    async fn gone(&self, path: &str) -> Result<()> {
        self.delete(path).await?;
        until(&format!("{path} is gone"), || async {
            match get(self.stage.admin(), path).await {
                Ok(object) => bail!("it is there: {}", object["status"]),
                Err(_) => Ok(Some(())),
            }
        })
        .await
    }

    async fn says(&self, path: &str, status: &str, reason: &str) -> Result<()> {
        until(&format!("{path} has Ready={status}, {reason}"), || async {
            let object = get(self.stage.admin(), path).await?;
            let ready = ready(&object);
            let is = ready["status"] == status && (reason.is_empty() || ready["reason"] == reason);
            ensure!(is && ready["observedGeneration"] == object["metadata"]["generation"], "it has {ready}");
            Ok(Some(()))
        })
        .await
    }

    async fn tenant_says(&self, status: &str, reason: &str) -> Result<()> {
        self.says(&self.path("Tenant", ""), status, reason).await
    }

    /// Waits until the Tenant is ready, and looks whether the group is still the same to the services.
    async fn settle(&mut self) -> Result<()> {
        self.tenant_says("True", "").await?;
        let tenant = get(self.stage.admin(), &self.path("Tenant", "")).await?;
        let now = tenant["status"]["incarnation"].as_str().context("a ready Tenant without an incarnation")?.to_owned();
        if let Some(before) = &self.incarnation {
            ensure!(*before == now, "the group was {before}, and is {now}: its backups are lost to it");
        }
        self.incarnation = Some(now);
        Ok(())
    }

    async fn drift(&self, drift: &Drift) -> Result<()> {
        let (path, body) = (drift.path(self.group), serde_json::to_vec(&drift.body(self.group))?);
        let (here, merge) =
            (if drift.name.is_empty() { path.clone() } else { format!("{path}/{}", drift.name) }, "application/merge-patch+json");
        let hand = &self.stage.hand;
        let done = match drift.change {
            Change::Delete => hand.request::<Value>(Request::delete(here).body(Vec::new())?).await,
            Change::Merge(_) => hand.request(Request::patch(here).header("content-type", merge).body(body)?).await,
            Change::Make(_) => {
                let _was_not_there = hand.request::<Value>(Request::delete(here).body(Vec::new())?).await;
                hand.request(Request::post(path).header("content-type", "application/json").body(body)?).await
            }
        };
        match done {
            // the Tenant was declared a moment ago, or the operator was faster
            Err(kube::Error::Api(status)) if status.is_not_found() || status.is_already_exists() => Ok(()),
            Err(error) if is_beyond_quota(&error) => Ok(()),
            other => other.map(|_| ()).with_context(|| format!("{drift:?} was refused")),
        }
    }

    /// Leaves the stage, without waiting.
    pub async fn leave(&self) -> Result<()> {
        self.delete(&self.path("Tenant", "")).await
    }
}

/// Whether it is one more than the group's quota takes.
fn is_beyond_quota(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.message.contains("exceeded quota"))
}

/// The refusal that must have come.
pub fn refusal(answer: Result<Value>) -> Result<Status> {
    match answer {
        Ok(object) => bail!("it was taken: {}", object["spec"]),
        Err(error) => match error.downcast::<kube::Error>()? {
            kube::Error::Api(status) => Ok(*status),
            other => Err(other.into()),
        },
    }
}
