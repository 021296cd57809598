//! The defaults of a container that requests nothing; without them the quota would refuse its pod.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{LimitRange, LimitRangeItem, LimitRangeSpec};
use k8s_openapi::apimachinery::pkg::api::resource;
use tsujiban_api::names::LIMITS;

use super::labels;
use crate::controllers::tenant::quantity::Quantity;
use crate::controllers::tenant::validate::Identity;

pub fn limit_range(id: &Identity) -> LimitRange {
    let container = LimitRangeItem {
        type_: "Container".to_owned(),
        default: Some(amounts(Quantity::milli(250), Quantity::mebi(128), Quantity::mebi(64))),
        default_request: Some(amounts(Quantity::milli(25), Quantity::mebi(32), Quantity::mebi(16))),
        ..LimitRangeItem::default()
    };
    LimitRange { metadata: labels::object(id, LIMITS), spec: Some(LimitRangeSpec { limits: vec![container] }) }
}

/// Amounts of the three resources that a container is given.
pub fn amounts(cpu: Quantity, memory: Quantity, storage: Quantity) -> BTreeMap<String, resource::Quantity> {
    [("cpu", cpu), ("memory", memory), ("ephemeral-storage", storage)].map(|(name, amount)| (name.to_owned(), amount.into())).into()
}
