//! Two groups on one control plane, with a running operator, and the people who attack.

use anyhow::Result;
use kube::Client;
use serde_json::{Value, json};
use tsujiban_plane::wait::until;

use crate::attempt::{Attempt, Stop, granted, read};
use crate::operator::Operator;
use crate::world::{SOON, World};

pub const ATTACKER: &str = "attacker";
pub const VICTIM: &str = "victim";
/// The password in each group's Secret, and what no answer may show.
pub const PASSWORD: &str = "korewahimitsu";

pub struct Stage {
    pub world: World,
    pub operator: Operator,
    /// An owner of group attacker.
    pub owner: Client,
    /// An owner of group victim.
    pub rightful: Client,
    /// Somebody to whom the platform gave all rights on Namespaces.
    pub delegate: Client,
    /// A controller of the cluster with all rights, whom no policy judges: the control of every attempt.
    pub control: Client,
}

impl Stage {
    pub async fn new() -> Result<Self> {
        let world = World::new().await;
        let operator = Operator::start(world.plane.operator().await?.client()?, &world.endpoint);
        let person = |name: &'static str| world.plane.person(name, None);
        let stage = Self {
            owner: person("owner@attacker.example.co.jp").await?.client()?,
            rightful: person("owner@victim.example.co.jp").await?.client()?,
            delegate: person("delegate@example.co.jp").await?.client()?,
            control: control(&world)?,
            operator,
            world,
        };
        stage.delegate_namespaces().await?;
        for (group, network) in [(ATTACKER, "172.20.1.0/24"), (VICTIM, "172.20.2.0/24")] {
            stage.account(&format!("ci-{group}"), "deployer").await?;
            let owners = json!([
                {"kind": "User", "name": format!("owner@{group}.example.co.jp")},
                {"kind": "ServiceAccount", "name": "deployer", "namespace": format!("ci-{group}")},
            ]);
            stage.world.tenant(group, json!({"owners": owners, "network": {"deviceCIDRs": [network]}})).await;
        }
        for (group, owner) in [(ATTACKER, &stage.owner), (VICTIM, &stage.rightful)] {
            stage.world.tenant_is(group, "True").await;
            stage.world.site(group).await;
            until("the owner has rights", SOON, || async { Ok(Some(read(owner, &devices(group)).await?)) }).await?;
        }
        granted(&stage.rightful, &Attempt::create(&secrets(VICTIM), secret("router-login", PASSWORD), Stop::Rights)).await?;
        granted(&stage.owner, &Attempt::create(&secrets(ATTACKER), secret("own-login", PASSWORD), Stop::Rights)).await?;
        stage.device(VICTIM, "tokyo", "SN-VICTIM", "172.20.2.10", Some("router-login")).await?;
        stage.world.device_is(VICTIM, "tokyo", "True").await;
        stage.device(ATTACKER, "osaka", "SN-ATTACKER", "172.20.1.10", None).await?;
        stage.world.device_is(ATTACKER, "osaka", "True").await;
        Ok(stage)
    }

    /// Creates a Device as the owner of its group.
    pub async fn device(&self, group: &str, name: &str, serial: &str, host: &str, secret: Option<&str>) -> Result<()> {
        let owner = if group == VICTIM { &self.rightful } else { &self.owner };
        granted(owner, &Attempt::create(&devices(group), device(name, serial, host, secret), Stop::Rights)).await.map(|_| ())
    }

    /// Creates a namespace and a ServiceAccount in it.
    pub async fn account(&self, namespace: &str, name: &str) -> Result<()> {
        let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
        granted(&self.control, &Attempt::create("/api/v1/namespaces", body, Stop::Rights)).await?;
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts");
        let body = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}});
        granted(&self.control, &Attempt::create(&path, body, Stop::Rights)).await.map(|_| ())
    }

    async fn delegate_namespaces(&self) -> Result<()> {
        let rbac = "/apis/rbac.authorization.k8s.io/v1";
        let resources = ["namespaces", "namespaces/status", "namespaces/finalize"];
        let verbs = ["get", "list", "create", "update", "patch", "delete"];
        let role = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "delegate"},
            "rules": [{"apiGroups": [""], "resources": resources, "verbs": verbs}],
        });
        granted(&self.control, &Attempt::create(&format!("{rbac}/clusterroles"), role, Stop::Rights)).await?;
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "delegate"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "delegate"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "delegate@example.co.jp"}],
        });
        granted(&self.control, &Attempt::create(&format!("{rbac}/clusterrolebindings"), binding, Stop::Rights)).await?;
        let listed = || async { Ok(Some(read(&self.delegate, "/api/v1/namespaces").await?)) };
        until("the delegate has rights", SOON, listed).await.map(|_| ())
    }
}

/// Acts as a controller of Kubernetes, with the rights of an administrator.
pub fn control(world: &World) -> Result<Client> {
    let mut config = world.plane.admin.config.clone();
    config.auth_info.impersonate = Some("system:serviceaccount:kube-system:control".to_owned());
    config.auth_info.impersonate_groups = Some(vec!["system:masters".to_owned()]);
    Ok(Client::try_from(config)?)
}

pub fn namespace(group: &str) -> String {
    format!("/api/v1/namespaces/tn-{group}")
}

pub fn secrets(group: &str) -> String {
    format!("{}/secrets", namespace(group))
}

pub fn devices(group: &str) -> String {
    format!("/apis/tsujiban.dev/v1alpha1/namespaces/tn-{group}/devices")
}

pub fn sites(group: &str) -> String {
    format!("/apis/tsujiban.dev/v1alpha1/namespaces/tn-{group}/sites")
}

pub fn secret(name: &str, password: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": "tsujiban.dev/device-credentials",
        "stringData": {"username": "admin", "password": password},
    })
}

pub fn device(name: &str, serial: &str, host: &str, secret: Option<&str>) -> Value {
    let mut connection = json!({"host": host});
    if let Some(name) = secret {
        connection["credentialsSecretRef"] = json!({"name": name});
    }
    json!({
        "apiVersion": "tsujiban.dev/v1alpha1", "kind": "Device", "metadata": {"name": name},
        "spec": {"siteRef": {"name": "hq"}, "serialNumber": serial, "driver": "Frr", "connection": connection},
    })
}
