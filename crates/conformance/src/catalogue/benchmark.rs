//! The 19 checks of the multi-tenancy benchmark (kubernetes-sigs/multi-tenancy, benchmarks/kubectl-mtb, archived): its ids, our words.

use tsujiban_api::names;

use super::{Basis, Check, LiveRule, Text};
use crate::access::{APPS, Access, BATCH, CORE, NETWORKING, Name, OURS, RBAC, Scope};
use crate::pods::PodTrait;

pub const CREATE_POD: Access = Access::new(Scope::Own, "create", CORE, "pods");
pub const CREATE_SERVICE: Access = Access::new(Scope::Own, "create", CORE, "services");

const ADMISSION: crate::access::Api = ("admissionregistration.k8s.io", "v1");
const CRDS: crate::access::Api = ("apiextensions.k8s.io", "v1");
const STORAGE: crate::access::Api = ("storage.k8s.io", "v1");

const fn cluster(verb: &'static str, api: crate::access::Api, resource: &'static str) -> Access {
    Access::new(Scope::Cluster, verb, api, resource)
}

const fn own(verb: &'static str, api: crate::access::Api, resource: &'static str) -> Access {
    Access::new(Scope::Own, verb, api, resource)
}

const fn other(verb: &'static str, api: crate::access::Api, resource: &'static str) -> Access {
    Access::new(Scope::Other, verb, api, resource)
}

const CLUSTER: &[Access] = &[
    cluster("list", CORE, "nodes"),
    cluster("get", CORE, "nodes").full(),
    cluster("patch", CORE, "nodes").full(),
    cluster("delete", CORE, "nodes").full(),
    cluster("list", CORE, "namespaces"),
    cluster("create", CORE, "namespaces"),
    cluster("get", CORE, "namespaces").of(Name::Namespace).full(),
    cluster("update", CORE, "namespaces").of(Name::Namespace).full(),
    cluster("patch", CORE, "namespaces").of(Name::Namespace).full(),
    cluster("delete", CORE, "namespaces").of(Name::Namespace).full(),
    cluster("watch", CORE, "namespaces").full(),
    cluster("list", CORE, "persistentvolumes").full(),
    cluster("create", CORE, "persistentvolumes").full(),
    cluster("list", STORAGE, "storageclasses").full(),
    cluster("create", RBAC, "clusterrolebindings"),
    cluster("list", RBAC, "clusterroles").full(),
    cluster("patch", RBAC, "clusterroles").named(names::ROLE_OWNER),
    cluster("list", OURS, "tenants"),
    cluster("watch", OURS, "tenants").full(),
    cluster("create", OURS, "tenants").full(),
    cluster("update", OURS, "tenants").of(Name::Tenant).full(),
    cluster("patch", OURS, "tenants").of(Name::Tenant),
    cluster("delete", OURS, "tenants").of(Name::Tenant).full(),
    cluster("patch", CRDS, "customresourcedefinitions").named("devices.tsujiban.dev"),
    cluster("delete", ADMISSION, "validatingadmissionpolicybindings").named("tsujiban-generated"),
    cluster("create", ADMISSION, "validatingwebhookconfigurations").full(),
];

const GENERATED: &[Access] = &[
    own("delete", NETWORKING, "networkpolicies").named(names::POLICY_DENY_ALL),
    own("delete", RBAC, "rolebindings").named(names::ROLE_OWNER),
    own("delete", BATCH, "cronjobs").named(names::CRONJOB),
    own("delete", CORE, "limitranges").named(names::LIMITS).full(),
    own("delete", CORE, "serviceaccounts").named(names::COLLECTOR).full(),
    own("delete", CORE, "configmaps").named(names::CA_CONFIGMAP).full(),
];

const QUOTAS: &[Access] = &[
    own("create", CORE, "resourcequotas"),
    own("update", CORE, "resourcequotas").named(names::QUOTA).full(),
    own("patch", CORE, "resourcequotas").named(names::QUOTA),
    own("delete", CORE, "resourcequotas").named(names::QUOTA),
    own("deletecollection", CORE, "resourcequotas").full(),
];

const OTHERS: &[Access] = &[
    other("list", OURS, "devices"),
    other("get", OURS, "devices").full(),
    other("watch", OURS, "devices").full(),
    other("create", OURS, "devices").full(),
    other("update", OURS, "devices").full(),
    other("patch", OURS, "devices"),
    other("delete", OURS, "devices").full(),
    other("list", OURS, "sites").full(),
    other("create", OURS, "sites").full(),
    other("get", CORE, "secrets"),
    other("list", CORE, "secrets").full(),
    other("create", CORE, "secrets"),
    other("update", CORE, "secrets").full(),
    other("delete", CORE, "secrets").full(),
    other("list", CORE, "pods").full(),
    other("create", BATCH, "jobs").full(),
    other("list", BATCH, "jobs").full(),
    other("list", APPS, "deployments").full(),
];

const ESCALATION: &[Access] = &[
    own("escalate", RBAC, "roles"),
    own("bind", RBAC, "clusterroles").named("cluster-admin"),
    own("create", RBAC, "rolebindings"),
    own("create", RBAC, "roles").full(),
    cluster("escalate", RBAC, "clusterroles").full(),
];

pub const CHECKS: &[Check] = &[
    Check {
        id: "MTB-PL1-CC-CPI-1",
        title: Text {
            en: "Objects of the cluster are out of an owner's reach",
            ja: "オーナーはクラスター全体のオブジェクトを操作できない",
        },
        basis: Basis::Denied(CLUSTER),
    },
    Check {
        id: "MTB-PL1-BC-CPI-2",
        title: Text {
            en: "An owner cannot delete what isolates the group", ja: "オーナーはグループを隔離するオブジェクトを削除できない"
        },
        basis: Basis::Denied(GENERATED),
    },
    Check {
        id: "MTB-PL1-BC-CPI-3",
        title: Text { en: "No pod with added capabilities", ja: "ケイパビリティを追加した Pod は動かせない" },
        basis: Basis::Pods(&[PodTrait::AddsCapability]),
    },
    Check {
        id: "MTB-PL1-BC-CPI-4",
        title: Text { en: "No pod that runs as root", ja: "root で動く Pod は動かせない" },
        basis: Basis::Pods(&[PodTrait::MayBeRoot, PodTrait::IsRoot]),
    },
    Check {
        id: "MTB-PL1-BC-CPI-5",
        title: Text { en: "No privileged container", ja: "特権コンテナは動かせない" },
        basis: Basis::Pods(&[PodTrait::Privileged]),
    },
    Check {
        id: "MTB-PL1-BC-CPI-6",
        title: Text { en: "No container that gains privileges", ja: "権限を昇格するコンテナは動かせない" },
        basis: Basis::Pods(&[PodTrait::EscalatesPrivileges]),
    },
    Check {
        id: "MTB-PL1-CC-DI-1",
        title: Text {
            en: "Images are always pulled, so that a node's copy of another's image is nobody's",
            ja: "イメージは常に取得し直され、ノードに残る他者のイメージは使えない",
        },
        basis: Basis::Pods(&[PodTrait::KeepsImages]),
    },
    Check {
        id: "MTB-PL1-CC-FNS-1",
        title: Text { en: "A quota bounds CPU, memory and storage", ja: "CPU・メモリ・ストレージの上限がある" },
        basis: Basis::Live(LiveRule::ResourceQuotas),
    },
    Check {
        id: "MTB-PL1-CC-FNS-2",
        title: Text { en: "A quota bounds the number of objects", ja: "オブジェクト数の上限がある" },
        basis: Basis::Live(LiveRule::ObjectQuotas),
    },
    Check {
        id: "MTB-PL1-BC-HI-1.hostpath",
        title: Text { en: "No pod mounts a path of the host", ja: "ホストのパスはマウントできない" },
        basis: Basis::Pods(&[PodTrait::HostPath]),
    },
    Check {
        id: "MTB-PL1-BC-HI-1.nodeport",
        title: Text { en: "No Service takes a port of the nodes", ja: "NodePort の Service は作れない" },
        basis: Basis::NodePort,
    },
    Check {
        id: "MTB-PL1-BC-HI-3",
        title: Text { en: "No pod uses the host's network or ports", ja: "ホストのネットワークとポートは使えない" },
        basis: Basis::Pods(&[PodTrait::HostNetwork, PodTrait::HostPort]),
    },
    Check {
        id: "MTB-PL1-BC-HI-4",
        title: Text { en: "No pod sees the host's processes", ja: "ホストのプロセスは見えない" },
        basis: Basis::Pods(&[PodTrait::HostPid]),
    },
    Check {
        id: "MTB-PL1-BC-HI-5",
        title: Text { en: "No pod shares the host's IPC", ja: "ホストの IPC は共有できない" },
        basis: Basis::Pods(&[PodTrait::HostIpc]),
    },
    Check {
        id: "MTB-PL1-CC-TI-1",
        title: Text { en: "An owner cannot change the quota", ja: "オーナーはクォータを変更できない" },
        basis: Basis::Denied(QUOTAS),
    },
    Check {
        id: "MTB-PL1-CC-TI-2",
        title: Text {
            en: "Another group's objects are out of an owner's reach", ja: "オーナーは他グループのオブジェクトを操作できない"
        },
        basis: Basis::Denied(OTHERS),
    },
    Check {
        id: "MTB-PL2-CC-TI-1",
        title: Text { en: "An owner cannot gain rights by roles", ja: "オーナーはロールで権限を広げられない" },
        basis: Basis::Denied(ESCALATION),
    },
    Check {
        id: "MTB-PL2-BC-OPS-3",
        title: Text {
            en: "Owners manage roles and bindings themselves", ja: "オーナーがロールとバインディングを自分で管理する"
        },
        basis: Basis::NotApplicable(Text {
            en: "an owner is named in the Tenant by platform staff; whoever could bind roles could undo the isolation",
            ja: "オーナーは運用担当者が Tenant に記す。ロールを束ねられる者は隔離を解けてしまう",
        }),
    },
    Check {
        id: "MTB-PL2-BC-OPS-4",
        title: Text {
            en: "Owners manage network policies themselves", ja: "オーナーがネットワークポリシーを自分で管理する"
        },
        basis: Basis::NotApplicable(Text {
            en: "owners run no workloads: the only pods are the collector's, and their policies follow from the Tenant's network",
            ja: "オーナーはワークロードを動かさない。動くのは収集 Pod だけで、そのポリシーは Tenant の network から決まる",
        }),
    },
];
