//! What each method needs of its caller, read from the contracts.

use std::collections::BTreeMap;

use prost_reflect::DescriptorPool;

use crate::DESCRIPTORS;
use crate::access::v1::{Operation, Rule, Workload};

/// Contracts that cannot be served, since they do not say who may call a method.
#[derive(Debug, thiserror::Error)]
pub enum InvalidContract {
    #[error("the embedded contracts cannot be read")]
    Unreadable(#[source] prost_reflect::DescriptorError),
    #[error("method {0} has no option (tsujiban.access.v1.rule); add one to its contract")]
    NoRule(String),
    #[error("method {0} has a rule that names no function, or no operation, or an unknown workload")]
    BadRule(String),
}

/// Who may call what, by the path of the method (`/package.Service/Method`).
#[derive(Debug, Clone)]
pub struct Rules(BTreeMap<String, Rule>);

impl Rules {
    /// Reads the rules of every method of every contract. Fails when one has none.
    pub fn load() -> Result<Self, InvalidContract> {
        let pool = DescriptorPool::decode(DESCRIPTORS).map_err(InvalidContract::Unreadable)?;
        let option = pool.get_extension_by_name("tsujiban.access.v1.rule");
        let mut rules = BTreeMap::new();
        for service in pool.services() {
            for method in service.methods() {
                let path = format!("/{}/{}", service.full_name(), method.name());
                let options = method.options();
                let rule = option
                    .as_ref()
                    .filter(|option| options.has_extension(option))
                    .and_then(|option| options.get_extension(option).as_message().and_then(|message| message.transcode_to::<Rule>().ok()));
                let rule = rule.ok_or_else(|| InvalidContract::NoRule(path.clone()))?;
                let known = rule.workloads.iter().all(|w| Workload::try_from(*w).is_ok_and(|w| w != Workload::Unspecified));
                if rule.function.is_empty() || rule.operation() == Operation::Unspecified || !known {
                    return Err(InvalidContract::BadRule(path));
                }
                rules.insert(path, rule);
            }
        }
        Ok(Self(rules))
    }

    /// The rule of a method; `None` for a path that is no method.
    pub fn of(&self, path: &str) -> Option<&Rule> {
        self.0.get(path)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &Rule)> {
        self.0.iter().map(|(path, rule)| (path.as_str(), rule))
    }
}

impl Operation {
    /// The Kubernetes verb on which staff need a right; `None` when staff never call.
    pub fn verb(self) -> Option<&'static str> {
        match self {
            Self::Unspecified | Self::None => None,
            Self::List => Some("list"),
            Self::Get => Some("get"),
            Self::Verify => Some("verify"),
            Self::Update => Some("update"),
            Self::Erase => Some("erase"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_says_who_may_call_it() {
        let rules = Rules::load().unwrap();
        let erase = rules.of("/tsujiban.lifecycle.v1.LifecycleService/Erase").unwrap();
        assert_eq!((erase.function.as_str(), erase.operation().verb()), ("groups", Some("erase")));
        let put = rules.of("/tsujiban.backup.v1.BackupService/PutSnapshot").unwrap();
        assert_eq!((put.operation().verb(), put.workloads().collect::<Vec<_>>()), (None, vec![Workload::Collector]));
        assert!(rules.of("/tsujiban.backup.v1.BackupService/Nothing").is_none());
    }
}
