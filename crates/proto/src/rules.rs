//! What each method needs of its caller, and what is remembered of its calls: read from the contracts.

use std::collections::BTreeMap;

use prost_reflect::DescriptorPool;

use crate::DESCRIPTORS;
use crate::access::v1::{History, Operation, Rule, Workload};

/// The verbs on which staff can have a right by a method's rule.
const STAFF_VERBS: [&str; 5] = ["list", "get", "verify", "update", "erase"];

/// Contracts that cannot be served, since they do not say who may call a method or what is remembered of it.
#[derive(Debug, thiserror::Error)]
pub enum InvalidContract {
    #[error("the embedded contracts cannot be read")]
    Unreadable(#[source] prost_reflect::DescriptorError),
    #[error("method {0} has no option (tsujiban.access.v1.rule); add one to its contract")]
    NoRule(String),
    #[error("the rule of method {path} {fault}")]
    BadRule { path: String, fault: &'static str },
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
                if let Some(fault) = fault(&rule) {
                    return Err(InvalidContract::BadRule { path, fault });
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

/// What is wrong with a rule; `None` when it says all that it has to.
fn fault(rule: &Rule) -> Option<&'static str> {
    let known = |workload: &i32| Workload::try_from(*workload).is_ok_and(|workload| workload != Workload::Unspecified);
    let is_word = !rule.function.is_empty() && rule.function.bytes().all(|byte| byte.is_ascii_lowercase());
    match rule {
        _ if !is_word => Some("names no function; write one word in small letters"),
        _ if rule.operation() == Operation::Unspecified => Some("names no operation"),
        _ if rule.history() == History::Unspecified => Some("does not say how its calls come into the history"),
        _ if !rule.workloads.iter().all(known) => Some("names an unknown workload"),
        _ if rule.staff_verb().is_some_and(|verb| !STAFF_VERBS.contains(&verb)) => Some("names a verb that staff cannot have"),
        _ => None,
    }
}

impl Rule {
    /// The Kubernetes verb on which staff need a right; `None` when staff never call.
    pub fn staff_verb(&self) -> Option<&str> {
        Some(self.staff_verb.as_str()).filter(|verb| !verb.is_empty())
    }
}

impl Operation {
    /// The word in the history, in roles and for people.
    pub fn word(self) -> &'static str {
        match self {
            Self::Unspecified => "",
            Self::View => "view",
            Self::Create => "create",
            Self::Operate => "operate",
            Self::Delete => "delete",
            Self::Administer => "administer",
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
        assert_eq!((erase.function.as_str(), erase.staff_verb(), erase.operation()), ("groups", Some("erase"), Operation::Delete));
        let put = rules.of("/tsujiban.backup.v1.BackupService/PutSnapshot").unwrap();
        assert_eq!((put.staff_verb(), put.workloads().collect::<Vec<_>>()), (None, vec![Workload::Collector]));
        assert!(rules.of("/tsujiban.backup.v1.BackupService/Nothing").is_none());
    }

    /// C5: erasing never happens unless the history holds the intent; taking a backup goes on in an outage; the history does not feed
    /// itself.
    #[test]
    fn every_method_says_how_its_calls_come_into_the_history() {
        let rules = Rules::load().unwrap();
        let of = |path: &str| rules.of(path).unwrap().history();
        assert_eq!(of("/tsujiban.lifecycle.v1.LifecycleService/Erase"), History::Strict);
        assert_eq!(of("/tsujiban.backup.v1.BackupService/PutSnapshot"), History::Spooled);
        assert_eq!(of("/tsujiban.backup.v1.BackupService/GetSnapshot"), History::Read);
        let unrecorded: Vec<_> = rules.iter().filter(|(_, rule)| rule.history() == History::None).map(|(path, _)| path).collect();
        assert_eq!(unrecorded, ["/tsujiban.audit.v1.AuditService/Append", "/tsujiban.audit.v1.AuditService/Covered"]);
    }

    /// A method that only looks is a read and a method that writes is not, or somebody mixed them up.
    #[test]
    fn reads_are_reads() {
        for (path, rule) in Rules::load().unwrap().iter().filter(|(_, rule)| rule.history() != History::None) {
            assert_eq!(rule.history() == History::Read, rule.operation() == Operation::View, "{path}");
        }
    }

    #[test]
    fn an_incomplete_rule_is_refused() {
        let good = || Rule {
            function: "snapshots".into(),
            operation: Operation::View.into(),
            workloads: vec![Workload::Backup.into()],
            staff_verb: "get".into(),
            history: History::Read.into(),
        };
        assert_eq!(fault(&good()), None);
        for bad in [
            Rule { function: String::new(), ..good() },
            Rule { function: "Snap-shots".into(), ..good() },
            Rule { operation: 0, ..good() },
            Rule { operation: 77, ..good() },
            Rule { workloads: vec![0], ..good() },
            Rule { workloads: vec![77], ..good() },
            Rule { staff_verb: "destroy".into(), ..good() },
            Rule { history: 0, ..good() },
        ] {
            assert!(fault(&bad).is_some(), "{bad:?}");
        }
    }
}
