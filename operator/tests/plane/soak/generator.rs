//! What people do to a group, one thing after the other: made of a seed and a number, and of nothing else.

use ipnet::IpNet;
use serde::Serialize;
use serde_json::{Value, json};

use super::declared::{Declared, SERIAL};
use super::drift::{self, Drift};
use super::rng::Rng;
use super::schema::{Broken, Schema};
use super::sources::{DEVICE, HOSTS, SITE, TENANT};

/// How many sequences lead to the same end. Their histories have nothing in common.
pub const SAME_END: u64 = 4;
const SITES: [&str; 3] = ["hq", "s", "osaka-branch-0123456789-0123456789-0123456789-01234"];
const SECRETS: [&str; 2] = ["creds", "creds.old-2"];
const DEVICES: [&str; 4] = ["r1", "r2", "9", "edge-router-0123456789-0123456789-0123456789-012345"];

/// One thing that is done.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub enum Step {
    /// Applies the Tenant.
    Tenant(Value),
    /// Applies a Tenant that the apiserver takes and the operator does not build; waits until it says so.
    Rejected(Value),
    /// Applies what the apiserver must refuse; what was declared before must stay.
    Refused {
        kind: &'static str,
        name: String,
        spec: Value,
        because: String,
    },
    Site(String, Value),
    DeleteSite(String),
    Secret(String, &'static str),
    DeleteSecret(String),
    /// Applies a Device, and waits until its condition Ready gives this reason.
    Device(String, Value, Option<&'static str>),
    DeleteDevice(String),
    Drift(Drift),
    /// The operator ends as in a power cut, and another one starts.
    Restart,
    /// The Tenant goes, its group is retained, and the Tenant comes back.
    Relink(Value),
    /// The Tenant goes with everything, its id is free again, and another Tenant takes it.
    Erase(Value),
    /// Somebody deletes the namespace, and the operator makes it again.
    DeleteNamespace,
    /// Waits until the Tenant is ready.
    Settle,
}

/// A history of one group.
#[derive(Debug, PartialEq, Serialize)]
pub struct Sequence {
    pub seed: u64,
    pub number: u64,
    pub steps: Vec<Step>,
    pub end: Declared,
}

pub struct Generator {
    pub tenants: Schema,
    pub sites: Schema,
    pub devices: Schema,
    pub seed: u64,
}

impl Generator {
    pub fn new(seed: u64) -> Self {
        let [(_, tenants), (_, sites), (_, devices)] = tsujiban_api::crds().unwrap();
        Self {
            tenants: Schema::new("Tenant", &tenants, TENANT),
            sites: Schema::new("Site", &sites, SITE),
            devices: Schema::new("Device", &devices, DEVICE),
            seed,
        }
    }

    /// What is declared in the end, the same for `SAME_END` sequences.
    pub fn end(&self, end: u64) -> Declared {
        self.declared(&mut Rng::new(self.seed, "end", end), 'e')
    }

    pub fn sequence(&self, number: u64) -> Sequence {
        let mut rng = Rng::new(self.seed, "sequence", number);
        let end = self.end(number / SAME_END);
        let mut start = if rng.percent(40) { self.declared(&mut rng, 'a') } else { end.clone() };
        self.alter(&mut rng, &mut start.tenant);
        let mut story = Story { made_by: self, rng, steps: Vec::new(), now: start.clone(), is_built: true, devices_made: 0 };
        story.begin(&start);
        for _ in 0..story.rng.between(1, 6) {
            story.act();
        }
        story.finish(&end);
        Sequence { seed: self.seed, number, steps: story.steps, end }
    }

    fn declared(&self, rng: &mut Rng, mark: char) -> Declared {
        let mut tenant = self.tenants.value(rng);
        let count = if rng.percent(20) { 0 } else { rng.between(1, DEVICES.len()) };
        if count > 0 {
            fit_quota(rng, &mut tenant);
        }
        let sites = SITES[..rng.between(usize::from(count > 0), SITES.len())].iter();
        let sites = sites.map(|name| ((*name).to_owned(), self.sites.value(rng))).collect();
        let secrets = SECRETS.iter().take(if count > 0 { rng.between(0, 2) } else { 0 });
        let secrets = secrets.map(|name| ((*name).to_owned(), *rng.pick(&["password", "ssh-privatekey"]))).collect();
        let mut declared = Declared { tenant, sites, secrets, devices: [].into() };
        for (at, name) in DEVICES.iter().take(count).enumerate() {
            let device = self.device(rng, &declared, &format!("{mark}{at}"));
            declared.devices.insert((*name).to_owned(), device);
        }
        declared
    }

    /// A Device that fits its group.
    fn device(&self, rng: &mut Rng, group: &Declared, serial: &str) -> Value {
        let mut device = self.devices.value(rng);
        let filler = "0123456789".repeat(6);
        device["serialNumber"] = json!(format!("{SERIAL}.{serial}{}", &filler[..[0, 1, 20, 54][rng.between(0, 3)]]));
        Self::fit(rng, group, &mut device);
        device
    }

    /// Makes a Device refer to what is there.
    fn fit(rng: &mut Rng, group: &Declared, device: &mut Value) {
        let sites: Vec<&String> = group.sites.keys().collect();
        device["siteRef"]["name"] = json!(rng.pick(&sites));
        let connection = &mut device["connection"];
        connection["host"] = json!(host(rng, &group.tenant));
        let ports = group.tenant["network"]["devicePorts"].as_array().cloned().unwrap_or_else(|| vec![json!(22)]);
        if connection.get("port").is_some() || !ports.contains(&json!(22)) {
            connection["port"] = rng.pick(&ports).clone();
        }
        let secrets: Vec<&String> = group.secrets.keys().collect();
        if connection["credentialsSecretRef"].is_object() {
            connection["credentialsSecretRef"] = if secrets.is_empty() { Value::Null } else { json!({"name": rng.pick(&secrets)}) };
        }
    }

    /// Changes a Tenant whose group may have Devices.
    fn alter(&self, rng: &mut Rng, tenant: &mut Value) {
        self.tenants.change(rng, tenant);
        fit_quota(rng, tenant);
    }
}

/// A group with Devices needs room for their Secrets: what the quota refuses is tried again after minutes, by design.
fn fit_quota(rng: &mut Rng, tenant: &mut Value) {
    if tenant["quota"]["secrets"].is_number() {
        tenant["quota"]["secrets"] = json!(rng.pick(&[10, 1000, 20_000]));
    }
}

/// A name, or an address in one of the networks, its first and last among them.
fn host(rng: &mut Rng, tenant: &Value) -> String {
    let networks = tenant["network"]["deviceCIDRs"].as_array().expect("networks");
    let network: IpNet = rng.pick(networks).as_str().and_then(|text| text.parse().ok()).expect("a network");
    match rng.between(0, 3) {
        0 => (*rng.pick(&HOSTS)).to_owned(),
        1 => network.network().to_string(),
        2 => network.broadcast().to_string().to_uppercase(),
        _ => network.hosts().nth(rng.between(0, 200)).unwrap_or(network.addr()).to_string(),
    }
}

/// A sequence while it is made up.
struct Story<'a> {
    made_by: &'a Generator,
    rng: Rng,
    steps: Vec<Step>,
    /// What is declared now.
    now: Declared,
    /// Whether the operator builds the Tenant as it is now.
    is_built: bool,
    devices_made: u32,
}

impl Story<'_> {
    fn begin(&mut self, start: &Declared) {
        if self.rng.percent(8) {
            self.reject();
        }
        self.tenant(start.tenant.clone());
        let mut steps: Vec<Step> = start.sites.iter().map(|(name, spec)| Step::Site(name.clone(), spec.clone())).collect();
        steps.extend(start.secrets.iter().map(|(name, key)| Step::Secret(name.clone(), key)));
        steps.extend(start.devices.iter().map(|(name, spec)| Step::Device(name.clone(), spec.clone(), None)));
        self.rng.shuffle(&mut steps);
        self.steps.extend(steps);
    }

    fn tenant(&mut self, spec: Value) {
        self.now.tenant.clone_from(&spec);
        self.is_built = true;
        self.steps.push(Step::Tenant(spec));
    }

    fn act(&mut self) {
        match self.rng.between(0, 99) {
            0..20 => self.alter(),
            20..28 => {
                let mut spec = self.now.tenant.clone();
                spec["suspended"] = json!(spec["suspended"] != true);
                if self.is_built {
                    self.tenant(spec);
                }
            }
            28..40 => self.refuse(),
            40..48 => self.reject(),
            48..56 => self.change_site(),
            56..68 => self.change_device(),
            68..75 => self.bad_device(),
            75..87 if self.is_built => self.drift(),
            87..90 => self.steps.push(Step::Restart),
            90..94 if self.is_built => {
                self.now.tenant["deletionPolicy"] = json!("Retain");
                self.steps.push(Step::Relink(self.now.tenant.clone()));
            }
            94 if self.is_built => {
                self.now.tenant["deletionPolicy"] = json!("Erase");
                self.steps.push(Step::Erase(self.now.tenant.clone()));
                self.nothing_is_left();
            }
            95 if self.is_built => {
                self.steps.push(Step::DeleteNamespace);
                self.nothing_is_left();
            }
            _ if self.is_built => self.steps.push(Step::Settle),
            _ => self.alter(),
        }
    }

    fn nothing_is_left(&mut self) {
        self.now.sites.clear();
        self.now.secrets.clear();
        self.now.devices.clear();
    }

    fn alter(&mut self) {
        let mut spec = if self.is_built { self.now.tenant.clone() } else { self.made_by.tenants.value(&mut self.rng) };
        self.made_by.alter(&mut self.rng, &mut spec);
        self.tenant(spec);
    }

    fn refuse(&mut self) {
        let (schema, name, spec) = match self.rng.between(0, 9) {
            0..6 => (&self.made_by.tenants, String::new(), self.now.tenant.clone()),
            6 => (&self.made_by.sites, "hq".to_owned(), self.made_by.sites.value(&mut self.rng)),
            _ => match self.now.devices.iter().next() {
                // a serial number that would change is refused, too
                Some((name, spec)) if self.rng.percent(30) => {
                    let mut spec = spec.clone();
                    spec["serialNumber"] = json!("another");
                    let because = "serialNumber: cannot be changed".to_owned();
                    return self.steps.push(Step::Refused { kind: "Device", name: name.clone(), spec, because });
                }
                Some((name, spec)) => (&self.made_by.devices, name.clone(), spec.clone()),
                None => return self.alter(),
            },
        };
        let broken = schema.broken();
        let broken: &Broken = self.rng.pick(&broken);
        if schema.is_void(&spec, broken) {
            return self.alter();
        }
        let because = format!("{}: {}", broken.path, broken.value.as_ref().map_or("missing".to_owned(), ToString::to_string));
        self.steps.push(Step::Refused { kind: schema.kind, name, spec: schema.spoil(&spec, broken), because });
    }

    fn reject(&mut self) {
        let with: Vec<_> = TENANT.iter().filter(|source| !(source.rejected)().is_empty()).collect();
        let source = *self.rng.pick(&with);
        let value = self.rng.pick(&(source.rejected)()).clone();
        let broken = Broken { path: source.path.to_owned(), value: Some(value) };
        self.now.tenant = self.made_by.tenants.spoil(&self.now.tenant, &broken);
        self.is_built = false;
        self.steps.push(Step::Rejected(self.now.tenant.clone()));
    }

    fn change_site(&mut self) {
        let name = (*self.rng.pick(&SITES)).to_owned();
        if self.now.sites.contains_key(&name) && self.rng.percent(40) {
            self.now.sites.remove(&name);
            self.steps.push(Step::DeleteSite(name));
        } else {
            let spec = self.made_by.sites.value(&mut self.rng);
            self.now.sites.insert(name.clone(), spec.clone());
            self.steps.push(Step::Site(name, spec));
        }
    }

    fn change_device(&mut self) {
        let name = (*self.rng.pick(&DEVICES)).to_owned();
        let known = self.now.devices.get(&name).map(|device| device["serialNumber"].clone());
        if known.is_some() && self.rng.percent(35) {
            return self.delete_device(&name);
        }
        if self.now.sites.is_empty() || !self.is_built {
            return self.change_site();
        }
        self.devices_made += 1;
        let mut spec = self.made_by.device(&mut self.rng, &self.now, &format!("n{}", self.devices_made));
        if let Some(serial) = known {
            spec["serialNumber"] = serial;
        }
        self.device(name, spec, None);
    }

    fn device(&mut self, name: String, spec: Value, reason: Option<&'static str>) {
        self.now.devices.insert(name.clone(), spec.clone());
        self.steps.push(Step::Device(name, spec, reason));
    }

    fn delete_device(&mut self, name: &str) {
        self.now.devices.remove(name);
        self.steps.push(Step::DeleteDevice(name.to_owned()));
    }

    /// A Device with one thing wrong, which the operator has to say.
    fn bad_device(&mut self) {
        let free: Vec<&str> = DEVICES.into_iter().filter(|name| !self.now.devices.contains_key(*name)).collect();
        if free.is_empty() || self.now.sites.is_empty() || !self.is_built {
            return self.change_device();
        }
        let name = (*self.rng.pick(&free)).to_owned();
        self.devices_made += 1;
        let mut spec = self.made_by.device(&mut self.rng, &self.now, &format!("b{}", self.devices_made));
        let taken: Vec<Value> = self.now.devices.values().map(|device| device["serialNumber"].clone()).collect();
        let reason = match self.rng.between(0, 4) {
            0 => {
                spec["siteRef"]["name"] = json!("nowhere");
                "SiteMissing"
            }
            1 => {
                spec["connection"]["host"] = json!("203.0.113.9");
                "AddressNotAllowed"
            }
            2 => {
                spec["connection"]["credentialsSecretRef"] = json!({"name": "nothing"});
                "SecretMissing"
            }
            3 if !taken.is_empty() => {
                spec["serialNumber"] = self.rng.pick(&taken).clone();
                "SerialNumberConflict"
            }
            _ => {
                spec["connection"]["port"] = json!(65_000);
                let ports = self.now.tenant["network"]["devicePorts"].as_array();
                if ports.is_some_and(|ports| ports.contains(&json!(65_000))) {
                    return;
                }
                "PortNotAllowed"
            }
        };
        let waits = self.rng.percent(50);
        self.device(name, spec, waits.then_some(reason));
    }

    fn drift(&mut self) {
        let drift = drift::any(&mut self.rng);
        let is_seen_late = drift.is_seen_late();
        self.steps.push(Step::Drift(drift));
        if is_seen_late {
            self.alter(); // nobody watches it: the next change of the Tenant brings it back
        }
    }

    /// What is left to do until what is declared is the end.
    fn finish(&mut self, end: &Declared) {
        let mut steps: Vec<Vec<Step>> = Vec::new();
        if !self.is_built || self.now.tenant != end.tenant {
            steps.push(vec![Step::Tenant(end.tenant.clone())]);
        }
        for (name, key) in &end.secrets {
            if self.now.secrets.get(name) != Some(key) {
                steps.push(vec![Step::Secret(name.clone(), key)]);
            }
        }
        for (name, spec) in &end.sites {
            if self.now.sites.get(name) != Some(spec) {
                steps.push(vec![Step::Site(name.clone(), spec.clone())]);
            }
        }
        let gone = self.now.sites.keys().filter(|name| !end.sites.contains_key(*name));
        steps.extend(gone.map(|name| vec![Step::DeleteSite(name.clone())]));
        for (name, spec) in &end.devices {
            let apply = Step::Device(name.clone(), spec.clone(), None);
            match self.now.devices.get(name) {
                Some(now) if now == spec => {}
                Some(now) if now["serialNumber"] != spec["serialNumber"] => steps.push(vec![Step::DeleteDevice(name.clone()), apply]),
                _ => steps.push(vec![apply]),
            }
        }
        let gone = self.now.devices.keys().filter(|name| !end.devices.contains_key(*name));
        steps.extend(gone.map(|name| vec![Step::DeleteDevice(name.clone())]));
        let gone = self.now.secrets.keys().filter(|name| !end.secrets.contains_key(*name));
        steps.extend(gone.map(|name| vec![Step::DeleteSecret(name.clone())]));
        self.rng.shuffle(&mut steps);
        self.steps.extend(steps.into_iter().flatten());
        match self.rng.between(0, 19) {
            0..5 => self.steps.push(Step::Drift(drift::seen_at_once(&mut self.rng))),
            5 => self.steps.push(Step::Restart),
            _ => {}
        }
    }
}
