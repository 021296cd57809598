//! What the benchmark does not look at: update and patch beside delete, list and watch, Secrets, sub-resources, other ways to a pod,
//! the services' own functions, the network, and whether an owner may do what an owner should.

use tsujiban_api::names;

use super::{Basis, Check, LiveRule, Text};
use crate::access::{APPS, Access, Api, BATCH, CORE, NETWORKING, Name, OURS, RBAC, STAFF, Scope};
use crate::probes::Probe;

const CERTIFICATES: Api = ("certificates.k8s.io", "v1");

const fn own(verb: &'static str, api: Api, resource: &'static str) -> Access {
    Access::new(Scope::Own, verb, api, resource)
}

const fn cluster(verb: &'static str, api: Api, resource: &'static str) -> Access {
    Access::new(Scope::Cluster, verb, api, resource)
}

const GRANTED: &[Access] = &[
    own("list", OURS, "devices"),
    own("watch", OURS, "devices").full(),
    own("list", OURS, "sites").full(),
    own("create", OURS, "sites").full(),
    own("create", CORE, "secrets"),
    own("list", BATCH, "jobs").full(),
];

const CHANGES: &[Access] = &[
    own("update", NETWORKING, "networkpolicies").named(names::POLICY_DENY_ALL),
    own("patch", NETWORKING, "networkpolicies").named(names::POLICY_COLLECTOR),
    own("create", NETWORKING, "networkpolicies").full(),
    own("deletecollection", NETWORKING, "networkpolicies").full(),
    own("update", RBAC, "rolebindings").named(names::ROLE_OWNER).full(),
    own("patch", RBAC, "rolebindings").named(names::ROLE_OWNER),
    own("update", CORE, "limitranges").named(names::LIMITS).full(),
    own("patch", CORE, "limitranges").named(names::LIMITS),
    own("create", CORE, "limitranges").full(),
    own("update", CORE, "serviceaccounts").named(names::COLLECTOR).full(),
    own("patch", CORE, "serviceaccounts").named(names::COLLECTOR).full(),
    own("create", CORE, "serviceaccounts").full(),
    own("update", CORE, "configmaps").named(names::CA_CONFIGMAP).full(),
    own("patch", CORE, "configmaps").named(names::CA_CONFIGMAP).full(),
    own("update", BATCH, "cronjobs").named(names::CRONJOB).full(),
    own("patch", BATCH, "cronjobs").named(names::CRONJOB),
    own("deletecollection", BATCH, "cronjobs").full(),
];

const ACROSS: &[Access] = &[
    cluster("list", OURS, "devices"),
    cluster("watch", OURS, "devices"),
    cluster("list", OURS, "sites").full(),
    cluster("list", CORE, "secrets"),
    cluster("watch", CORE, "secrets").full(),
    cluster("list", CORE, "pods").full(),
    cluster("list", CORE, "configmaps").full(),
    cluster("list", CORE, "events").full(),
    cluster("watch", BATCH, "jobs").full(),
];

const SECRETS: &[Access] = &[
    own("get", CORE, "secrets"),
    own("list", CORE, "secrets"),
    own("watch", CORE, "secrets"),
    own("patch", CORE, "secrets"),
    own("deletecollection", CORE, "secrets").full(),
    Access::new(Scope::System, "get", CORE, "secrets").named(names::SECRET_MASTER_KEY),
    Access::new(Scope::System, "get", CORE, "secrets").named(names::SECRET_EPOCH_KEYS).full(),
    Access::new(Scope::System, "list", CORE, "secrets").full(),
];

const PODS: &[Access] = &[
    own("create", CORE, "pods").sub("exec"),
    own("get", CORE, "pods").sub("exec").full(),
    own("create", CORE, "pods").sub("attach").full(),
    own("create", CORE, "pods").sub("portforward"),
    own("get", CORE, "pods").sub("log"),
    own("get", CORE, "pods").sub("proxy").full(),
    own("patch", CORE, "pods").sub("ephemeralcontainers"),
    own("create", CORE, "pods").sub("eviction").full(),
    own("create", CORE, "pods").sub("binding").full(),
    own("delete", CORE, "pods").full(),
    own("get", CORE, "services").sub("proxy").full(),
    cluster("get", CORE, "nodes").sub("proxy").full(),
];

const IDENTITIES: &[Access] = &[
    own("create", CORE, "serviceaccounts").sub("token").named(names::COLLECTOR),
    Access::new(Scope::System, "create", CORE, "serviceaccounts").sub("token").named(names::OPERATOR).full(),
    cluster("impersonate", CORE, "users"),
    cluster("impersonate", CORE, "groups").full(),
    own("impersonate", CORE, "serviceaccounts").full(),
    cluster("create", CERTIFICATES, "certificatesigningrequests").full(),
];

const STATUS: &[Access] = &[
    cluster("patch", OURS, "tenants").sub("status").of(Name::Tenant),
    own("patch", OURS, "devices").sub("status"),
    own("update", OURS, "devices").sub("finalizers"),
    own("patch", OURS, "sites").sub("status").full(),
    own("update", OURS, "sites").sub("finalizers").full(),
    cluster("update", OURS, "tenants").sub("finalizers").of(Name::Tenant).full(),
    cluster("update", CORE, "namespaces").sub("finalize").of(Name::Namespace).full(),
    cluster("patch", CORE, "namespaces").sub("status").of(Name::Namespace).full(),
];

const FUNCTIONS: &[Access] = &[
    cluster("reveal", STAFF, "snapshots"),
    cluster("erase", STAFF, "groups"),
    cluster("get", STAFF, "snapshots").full(),
    cluster("list", STAFF, "groups").full(),
    cluster("update", STAFF, "hostkeys").full(),
];

const WORKLOADS: &[Access] = &[
    own("create", BATCH, "jobs"),
    own("create", BATCH, "cronjobs"),
    own("create", APPS, "deployments"),
    own("create", APPS, "replicasets").full(),
    own("create", APPS, "statefulsets").full(),
    own("create", APPS, "daemonsets").full(),
    own("create", CORE, "replicationcontrollers").full(),
    own("patch", BATCH, "jobs").full(),
    own("delete", BATCH, "jobs").full(),
];

pub const CHECKS: &[Check] = &[
    Check {
        id: "TSJ-OPS-1",
        title: Text {
            en: "An owner manages the group's Sites, Devices and credentials",
            ja: "オーナーは自グループの Site・Device・認証情報を管理できる",
        },
        basis: Basis::Granted(GRANTED),
    },
    Check {
        id: "TSJ-TI-1",
        title: Text {
            en: "An owner cannot update, patch or add to what isolates the group",
            ja: "オーナーは隔離のためのオブジェクトを更新・パッチ・追加できない",
        },
        basis: Basis::Denied(CHANGES),
    },
    Check {
        id: "TSJ-TI-2",
        title: Text {
            en: "An owner cannot list or watch across groups", ja: "オーナーはグループをまたいで一覧・監視できない"
        },
        basis: Basis::Denied(ACROSS),
    },
    Check {
        id: "TSJ-TI-3",
        title: Text {
            en: "No other RoleBinding in the namespace gives rights to an owner, another group or everybody",
            ja: "名前空間の他の RoleBinding はオーナー・他グループ・全員に権限を与えていない",
        },
        basis: Basis::Live(LiveRule::Bindings),
    },
    Check {
        id: "TSJ-DI-1",
        title: Text { en: "An owner reads no Secret", ja: "オーナーは Secret を読めない" },
        basis: Basis::Denied(SECRETS),
    },
    Check {
        id: "TSJ-DI-2",
        title: Text { en: "Deleting a Secret does not show it", ja: "Secret の削除でその内容は見えない" },
        basis: Basis::Refused(&[Probe::ForegroundDeletion, Probe::OrphaningDeletion]),
    },
    Check {
        id: "TSJ-DI-3",
        title: Text {
            en: "An owner makes no Secret but a device's credentials", ja: "オーナーは装置の認証情報以外の Secret を作れない"
        },
        basis: Basis::Refused(&[Probe::TokenSecret, Probe::OpaqueSecret, Probe::GeneratedSecret]),
    },
    Check {
        id: "TSJ-CPI-1",
        title: Text {
            en: "An owner cannot enter, read or move a pod (exec, attach, port-forward, log, proxy, debug)",
            ja: "オーナーは Pod に入れず、ログも読めない(exec・attach・port-forward・log・proxy・debug)",
        },
        basis: Basis::Denied(PODS),
    },
    Check {
        id: "TSJ-CPI-2",
        title: Text { en: "An owner cannot take another identity", ja: "オーナーは他の身元を得られない" },
        basis: Basis::Denied(IDENTITIES),
    },
    Check {
        id: "TSJ-CPI-3",
        title: Text {
            en: "An owner cannot write status or skip finalizers", ja: "オーナーは status を書けず、finalizer を飛ばせない"
        },
        basis: Basis::Denied(STATUS),
    },
    Check {
        id: "TSJ-CPI-4",
        title: Text {
            en: "An owner has no function of staff at the services", ja: "オーナーは運用担当者のサービス機能を持たない"
        },
        basis: Basis::Denied(FUNCTIONS),
    },
    Check {
        id: "TSJ-CPI-5",
        title: Text {
            en: "An owner runs nothing by way of another kind", ja: "オーナーは他の種類のオブジェクト経由でも何も動かせない"
        },
        basis: Basis::Denied(WORKLOADS),
    },
    Check {
        id: "TSJ-HI-1",
        title: Text {
            en: "The namespace enforces the restricted level of Pod Security",
            ja: "名前空間は Pod Security の restricted を強制している",
        },
        basis: Basis::Live(LiveRule::PodSecurity),
    },
    Check {
        id: "TSJ-FNS-1",
        title: Text { en: "Containers that ask for nothing are bounded", ja: "何も要求しないコンテナにも上限がある" },
        basis: Basis::Live(LiveRule::Limits),
    },
    Check {
        id: "TSJ-NI-1",
        title: Text { en: "All traffic is denied unless it is let through", ja: "通信は許可がない限りすべて拒否される" },
        basis: Basis::Live(LiveRule::DefaultDeny),
    },
    Check {
        id: "TSJ-NI-2",
        title: Text {
            en: "Only DNS, and for the collector the apiserver, the backup service and the devices, are let through",
            ja: "許可されるのは DNS と、収集 Pod から apiserver・バックアップ・装置への通信だけ",
        },
        basis: Basis::Live(LiveRule::NothingElseOpen),
    },
];
