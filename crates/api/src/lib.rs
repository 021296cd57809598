//! What people declare: the kinds of group `tsujiban.dev`, and the names, labels and roles that everything agrees on.
//!
//! No client lives here. The CRD files under `crds/` are printed from these types by `cargo run -p tsujiban-api --bin crds`.

mod decoded;
pub mod device;
mod history;
pub mod names;
pub mod site;
pub mod tenant;

pub use decoded::{Decoded, Unreadable};
pub use device::{Device, DeviceSpec, DeviceStatus};
pub use history::Recorded;
pub use site::{Site, SiteSpec, SiteStatus};
pub use tenant::{Tenant, TenantSpec, TenantStatus};

use kube::CustomResourceExt;
use serde_json::Value;

/// The CRDs, by file name, as they are installed.
pub fn crds() -> Result<[(&'static str, Value); 3], serde_json::Error> {
    let installed = |crd| serde_json::to_value(crd).map(without_rust_formats);
    Ok([("tenants.yaml", installed(Tenant::crd())?), ("sites.yaml", installed(Site::crd())?), ("devices.yaml", installed(Device::crd())?)])
}

/// Drops the formats that only Rust knows: the apiserver warns whoever applies a schema with one of them.
fn without_rust_formats(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let rust = |key: &str, value: &Value| key == "format" && value.as_str().is_some_and(|format| format.starts_with("uint"));
            fields.into_iter().filter(|(key, value)| !rust(key, value)).map(|(key, value)| (key, without_rust_formats(value))).collect()
        }
        Value::Array(items) => items.into_iter().map(without_rust_formats).collect(),
        other => other,
    }
}
