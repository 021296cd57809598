//! Values for what a schema says in CEL, or does not say at all: networks, schedules, quantities, addresses.

use serde_json::{Value, json};

use super::rng::Rng;
use super::schema::text;

/// What is known about one path of a spec.
pub struct Source {
    pub path: &'static str,
    /// How many rules in CEL stand there. When one is added, a value that it refuses belongs here too.
    pub rules: usize,
    /// A good value; `None` when what the schema says of the field and its parts makes one.
    pub valid: Option<fn(&mut Rng) -> Value>,
    /// What a rule or a policy refuses.
    pub refused: fn() -> Vec<Value>,
    /// What the apiserver takes, and the operator finds wrong.
    pub rejected: fn() -> Vec<Value>,
}

const fn ruled(path: &'static str, rules: usize, valid: Option<fn(&mut Rng) -> Value>, refused: fn() -> Vec<Value>) -> Source {
    Source { path, rules, valid, refused, rejected: Vec::new }
}

fn all(texts: &[&str]) -> Vec<Value> {
    texts.iter().map(|text| json!(text)).collect()
}

fn one_of(rng: &mut Rng, texts: &[&str]) -> Value {
    json!(rng.pick(texts))
}

fn spaces() -> Vec<Value> {
    all(&[" x", "x ", " "])
}

fn quantities() -> Vec<Value> {
    all(&["lots", "1 Gi"])
}

pub const TENANT: &[Source] = &[
    ruled("displayName", 1, None, spaces),
    ruled("contact.email", 1, Some(|rng| one_of(rng, &["a@b.c", "admin@example.co.jp", "総務@例え.jp"])), || {
        all(&["a b@c.d", "a@b", "@b.c", "a@b@c.d"])
    }),
    Source {
        path: "backup.schedule",
        rules: 1,
        valid: Some(|rng| one_of(rng, &SCHEDULES)),
        refused: || all(&["@hourly-x", "0 2 * * * *", "0 2  * * *", "TZ=UTC 0 2 * * *", "0 2 * *x?"]),
        // the last ones are understood by others, and not by Kubernetes
        rejected: || all(&["61 2 * * *", "0 24 * * *", "0 2 32 * *", "0 2 * 13 *", "5-1 2 * * *", "0 2 L * *", "0 2 15W * *", "0 2 * * 7"]),
    },
    Source {
        path: "backup.timeZone",
        rules: 1,
        valid: Some(|rng| one_of(rng, &["Asia/Tokyo", "UTC", "America/Argentina/Ushuaia", "Etc/GMT+9", "EST5EDT", "Pacific/Chatham"])),
        refused: || all(&["Local", "Asia/", "a b", "/etc/localtime", "../UTC"]),
        // Kubernetes looks at upper and lower case
        rejected: || all(&["Asia/Edo", "JST", "asia/tokyo", "utc"]),
    },
    ruled("network.deviceCIDRs", 4, Some(networks), || {
        vec![
            json!(["192.0.2.0"]),
            json!(["192.0.2.0/24", "x"]),
            json!(["192.0.2.1/24"]),
            json!(["64.0.0.0/7"]),
            json!(["2000::/15"]),
            json!(["169.254.0.0/16"]),
            // the cluster's own, and around it: policy tsujiban-tenants
            json!(["192.0.2.0/24", "10.244.3.0/24"]),
            json!(["10.0.0.0/8"]),
            json!(["fe80::/64"]),
        ]
    }),
    Source {
        path: "owners[]",
        rules: 3,
        valid: Some(owner),
        refused: || {
            vec![
                json!({"kind": "ServiceAccount", "name": "deployer"}),
                json!({"kind": "User", "name": "jane", "namespace": "default"}),
                json!({"kind": "Group", "name": "system:masters"}),
            ]
        },
        rejected: || vec![json!({"kind": "ServiceAccount", "name": "Deployer 本", "namespace": "default"})],
    },
    Source {
        path: "quota.cpu",
        rules: 1,
        valid: Some(|rng| one_of(rng, &["50m", "0.05", "1", "1500m", "2e0", "1k", "100000000n", "+3", "1.5", "0.1"])),
        refused: quantities,
        rejected: || all(&["49m", "1u", "2000E"]),
    },
    Source {
        path: "quota.memory",
        rules: 1,
        valid: Some(|rng| one_of(rng, &["256Mi", "268435456", "0.5Gi", "1Gi", "1e9", "1.5G", "1024Mi", "300000Ki", "1Ti"])),
        refused: quantities,
        rejected: || all(&["2000E"]),
    },
    Source {
        path: "quota.ephemeralStorage",
        rules: 1,
        valid: Some(|rng| one_of(rng, &["64Mi", "67108864", "1Gi", "2.5Gi", "1e8", "128M", "1000Gi"])),
        refused: quantities,
        rejected: || all(&["63Mi", "1", "2000E", "-", "Gi"]),
    },
    // two are always there. Were there room for no third, a request that was cut off would hold back the CA's until the quota is reckoned anew
    ruled("quota.configmaps", 0, Some(|rng| json!(rng.pick(&[3, 10, 1000]))), Vec::new),
    ruled("quota", 2, None, || vec![json!({"cpu": "0"}), json!({"memory": "255Mi"})]),
];

pub const SITE: &[Source] = &[ruled("displayName", 1, None, spaces)];

pub const DEVICE: &[Source] = &[
    // made to fit the group afterwards, as the Site, the port and the Secret are; it cannot be changed either
    ruled("serialNumber", 2, Some(|rng| json!(format!("X{}", rng.between(0, 9)))), || all(&["a b", "a/b", "シリアル", ""])),
    ruled("connection.host", 3, Some(|rng| one_of(rng, &HOSTS)), || {
        all(&[
            "-r1",
            "r1:22",
            "tsujiban@r1",
            "ssh://r1",
            "300.1.1.1",
            "1.2.3",
            "127.0.0.1",
            "169.254.169.254",
            "::",
            "fe80::1",
            "10.244.0.9",
        ])
    }),
    ruled("connection.username", 1, Some(|rng| one_of(rng, &["tsujiban", "a", "net.ops_1-x"])), || all(&["a b", "root;", "管理"])),
    ruled("connection.hostKey", 1, Some(|rng| one_of(rng, &HOST_KEYS)), || {
        all(&["ssh-ed25519  AAAAC3NzaC1lZDI1NTE5", "r1 ssh-ed25519 AAAAC3NzaC1lZDI1NTE5", "ssh-dss AAAAB3NzaC1kc3MAAACB"])
    }),
    ruled("siteRef.name", 1, Some(|_| json!("hq")), || all(&["Tokyo", "a b", "本社"])),
    ruled("connection.credentialsSecretRef.name", 1, Some(|_| json!("creds")), || all(&["Creds", "a b", "a/b"])),
    ruled("connection.credentialsSecretRef", 0, None, || vec![json!({"name": "device-r9-ssh"})]),
];

pub const HOSTS: [&str; 3] = ["r1.example.co.jp", "R-9", "a.b"];
const HOST_KEYS: [&str; 2] = [
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJjH6GxpNcRQ2cVYZmlPmSAKTdGRSHxyvS9kqYkQvZ3w",
    "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBA==",
];
const SCHEDULES: [&str; 10] = [
    "0 2 * * *",
    "59 23 * * 1",
    "30 0 1 1 *",
    "*/5 * * * *",
    "15,45 3 * * MON-FRI",
    "7 1-5/2 1,15 JAN,JUL *",
    "0 0 29 2 *",
    "1-10 4 * * 0",
    "00 02 * * SUN",
    "* 12 * * *",
];

/// One to all that the list takes, of both families, of every width, the same one twice as well.
fn networks(rng: &mut Rng) -> Value {
    const SOME: [&str; 9] = [
        "172.20.1.0/24",
        "192.168.0.0/16",
        "11.0.0.0/8",
        "198.51.100.7/32",
        "100.64.0.0/10",
        "2001:db8:7::/48",
        "2400::/16",
        "2001:DB8:A::/64",
        "fd12:3456:789a::1/128",
    ];
    let mut chosen: Vec<String> = (0..rng.between(1, 4)).map(|_| (*rng.pick(&SOME)).to_owned()).collect();
    if rng.percent(5) {
        chosen.extend((chosen.len()..64).map(|at| format!("192.0.2.{at}/32")));
    }
    json!(chosen)
}

fn owner(rng: &mut Rng) -> Value {
    let name = text([1, 12, 253][rng.between(0, 2)], rng);
    match rng.between(0, 2) {
        0 => json!({"kind": "User", "name": name}),
        1 => json!({"kind": "Group", "name": name}),
        _ => {
            let name = *rng.pick(&["deployer", "ci.example", "a"]);
            json!({"kind": "ServiceAccount", "name": name, "namespace": rng.pick(&["default", "ci", "tn-none"])})
        }
    }
}
