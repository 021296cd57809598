//! Objects of our kinds as they came. One that a newer version wrote, with a value or a shape that this version does not know, stops neither the
//! list nor the watch in which it is: it is decoded alone, and what cannot be read is told apart by its type.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// An object that this version reads, or one that it does not.
#[derive(Debug, Clone)]
pub enum Decoded<K> {
    Read(Box<K>),
    Unreadable(Box<Unreadable>),
}

/// An object that this version does not read. Nothing is concluded from it: it is neither reconciled nor erased, and keeps its finalizer.
#[derive(Debug, Clone, PartialEq)]
pub struct Unreadable {
    pub metadata: ObjectMeta,
    /// The spec as it came.
    pub spec: Value,
    /// What this version does not understand.
    pub why: String,
}

impl<K> Decoded<K> {
    pub fn read(self) -> Result<K, Box<Unreadable>> {
        match self {
            Self::Read(object) => Ok(*object),
            Self::Unreadable(unreadable) => Err(unreadable),
        }
    }
}

impl<'de, K: DeserializeOwned> Deserialize<'de> for Decoded<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // one copy of one object at a time, and nothing of one that is read is cloned
        let value = Value::deserialize(deserializer)?;
        match K::deserialize(&value) {
            Ok(object) => Ok(Self::Read(Box::new(object))),
            Err(why) => {
                let metadata = value.get("metadata").map(ObjectMeta::deserialize).transpose().map_err(D::Error::custom)?;
                let spec = value.get("spec").cloned().unwrap_or_default();
                Ok(Self::Unreadable(Box::new(Unreadable { metadata: metadata.unwrap_or_default(), spec, why: why.to_string() })))
            }
        }
    }
}

impl<K: Resource<DynamicType = ()>> Resource for Decoded<K> {
    type DynamicType = ();
    type Scope = K::Scope;

    fn kind(dt: &()) -> Cow<'_, str> {
        K::kind(dt)
    }

    fn group(dt: &()) -> Cow<'_, str> {
        K::group(dt)
    }

    fn version(dt: &()) -> Cow<'_, str> {
        K::version(dt)
    }

    fn plural(dt: &()) -> Cow<'_, str> {
        K::plural(dt)
    }

    fn meta(&self) -> &ObjectMeta {
        match self {
            Self::Read(object) => object.meta(),
            Self::Unreadable(unreadable) => &unreadable.metadata,
        }
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        match self {
            Self::Read(object) => object.meta_mut(),
            Self::Unreadable(unreadable) => &mut unreadable.metadata,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Device;
    use kube::core::ObjectList;
    use serde_json::json;

    fn device(name: &str, driver: &str) -> Value {
        json!({
            "apiVersion": "tsujiban.dev/v1alpha1",
            "kind": "Device",
            "metadata": {"name": name, "namespace": "tn-acme", "finalizers": ["tsujiban.dev/operator"]},
            "spec": {"siteRef": {"name": "tokyo"}, "serialNumber": "SN1", "driver": driver, "connection": {"host": "192.0.2.1"}},
        })
    }

    /// After a rollback a driver of the newer version is one object's fault, and nobody else's.
    #[test]
    fn one_object_of_a_newer_version_stops_no_list() {
        let items = [device("old", "Frr"), device("new", "OfNextYear"), device("other", "Frr")];
        let list = json!({"apiVersion": "tsujiban.dev/v1alpha1", "kind": "DeviceList", "metadata": {}, "items": items});
        let list: ObjectList<Decoded<Device>> = serde_json::from_value(list).unwrap();
        let (read, unread): (Vec<_>, Vec<_>) = list.items.into_iter().map(Decoded::read).partition(Result::is_ok);
        assert_eq!(read.len(), 2);
        let [Err(unreadable)] = unread.as_slice() else { panic!("{unread:?}") };
        assert_eq!(unreadable.metadata.name.as_deref(), Some("new"));
        assert!(unreadable.metadata.finalizers.is_some() && unreadable.why.contains("OfNextYear"), "{unreadable:?}");
    }

    #[test]
    fn what_is_no_object_is_an_error() {
        assert!(serde_json::from_value::<Decoded<Device>>(json!({"metadata": 7})).is_err());
    }
}
