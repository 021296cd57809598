//! What people declare: the kinds of group `tsujiban.dev`, and the names, labels and roles that everything agrees on.
//!
//! No client lives here. The CRD files under `crds/` are printed from these types by `cargo run -p tsujiban-api --bin crds`.

pub mod device;
pub mod names;
pub mod site;
pub mod tenant;

pub use device::{Device, DeviceSpec, DeviceStatus};
pub use site::{Site, SiteSpec};
pub use tenant::{Tenant, TenantSpec, TenantStatus};

use kube::CustomResourceExt;

/// The CRDs, by file name.
pub fn crds() -> [(&'static str, k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition); 3] {
    [("tenants.yaml", Tenant::crd()), ("sites.yaml", Site::crd()), ("devices.yaml", Device::crd())]
}
