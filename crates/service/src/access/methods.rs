//! The methods that can be called.

use std::collections::BTreeMap;

use prost_reflect::DescriptorPool;
use tsujiban_proto::DESCRIPTORS;
use tsujiban_proto::access::v1::Rule;
use tsujiban_proto::fields::Fields;
use tsujiban_proto::rules::{InvalidContract, Rules};

/// A method: how it is named in metrics and logs, who may call it, what its requests name, and whether it streams.
#[derive(Debug, Clone)]
pub(super) struct Method {
    pub service: String,
    pub name: String,
    pub rule: Rule,
    pub fields: Fields,
    pub streams: bool,
}

/// The methods of the services that are served, by path.
#[derive(Debug)]
pub(super) struct Methods(BTreeMap<String, Method>);

impl Methods {
    /// Reads the contracts. Fails when a served method has no rule that says who may call it. `served` names the services; empty: all.
    pub(super) fn load(served: &[&str]) -> Result<Self, InvalidContract> {
        let rules = Rules::load()?;
        let pool = DescriptorPool::decode(DESCRIPTORS).map_err(InvalidContract::Unreadable)?;
        let mut methods = BTreeMap::new();
        for method in pool.services().flat_map(|service| service.methods().collect::<Vec<_>>()) {
            let service = method.parent_service().full_name().to_owned();
            if !served.is_empty() && !served.contains(&service.as_str()) {
                continue;
            }
            let path = format!("/{service}/{}", method.name());
            let rule = rules.of(&path).ok_or_else(|| InvalidContract::NoRule(path.clone()))?.clone();
            let fields = rules.fields_of(&path).cloned().unwrap_or_default();
            let streams = method.is_client_streaming() || method.is_server_streaming();
            methods.insert(path, Method { service, name: method.name().to_owned(), rule, fields, streams });
        }
        Ok(Self(methods))
    }

    /// The method at a path; `None` when there is none.
    pub(super) fn of(&self, path: &str) -> Option<&Method> {
        self.0.get(path)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Method> {
        self.0.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_know_their_rule_and_whether_they_stream() {
        let methods = Methods::load(&["tsujiban.backup.v1.BackupService"]).unwrap();
        let streams = |name: &str| methods.of(&format!("/tsujiban.backup.v1.BackupService/{name}")).map(|method| method.streams);
        assert_eq!(streams("PutSnapshot"), Some(true));
        assert_eq!(streams("GetSnapshot"), Some(true));
        assert_eq!(streams("ListSnapshots"), Some(false));
        assert_eq!(streams("Nothing"), None);
        assert!(methods.of("/tsujiban.audit.v1.AuditService/Append").is_none(), "another server's");
        assert!(Methods::load(&[]).unwrap().of("/tsujiban.audit.v1.AuditService/Append").is_some());
    }
}
