//! What each method requires of its caller, and how its calls are recorded: read from the contracts.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use prost_reflect::{DescriptorPool, MethodDescriptor};
use tsujiban_core::workload::{Service, Workload};

use crate::DESCRIPTORS;
use crate::access;
use crate::access::v1::{History, Operation, Rule};
use crate::fields::{BadField, Fields, Markers};

/// The verbs on which staff can have a right by a method's rule.
pub(crate) const STAFF_VERBS: [&str; 5] = ["list", "get", "verify", "update", "erase"];

/// Contracts that cannot be served, since they do not say who may call a method or how its calls are recorded.
#[derive(Debug, thiserror::Error)]
pub enum InvalidContract {
    #[error("the embedded contracts cannot be read")]
    Unreadable(#[source] prost_reflect::DescriptorError),
    #[error("method {0} has no option (tsujiban.access.v1.rule); add one to its contract")]
    NoRule(String),
    #[error("the rule of method {path} {fault}")]
    BadRule { path: String, fault: &'static str },
    #[error("the contracts do not define the options subject and reveals of tsujiban.access.v1")]
    NoMarkers,
    #[error("{name} {fault}; correct its options in the contract")]
    BadField { name: String, fault: &'static str },
}

impl From<BadField> for InvalidContract {
    fn from(BadField { name, fault }: BadField) -> Self {
        Self::BadField { name, fault }
    }
}

/// Who may call what, by the path of the method (`/package.Service/Method`).
#[derive(Debug, Clone)]
pub struct Rules(BTreeMap<String, Described>);

/// What the contracts say of a method.
#[derive(Debug, Clone)]
struct Described {
    rule: Rule,
    fields: Fields,
}

impl Rules {
    /// Reads the rules of every method of every contract. Fails when a method has no rule, or one that is not valid.
    pub fn load() -> Result<Self, InvalidContract> {
        Self::read(&DescriptorPool::decode(DESCRIPTORS).map_err(InvalidContract::Unreadable)?)
    }

    fn read(pool: &DescriptorPool) -> Result<Self, InvalidContract> {
        let markers = Markers::of(pool).ok_or(InvalidContract::NoMarkers)?;
        let (mut rules, mut reached) = (BTreeMap::new(), BTreeSet::new());
        for method in pool.services().flat_map(|service| service.methods().collect::<Vec<_>>()) {
            let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
            let rule = rule(pool, &method).ok_or_else(|| InvalidContract::NoRule(path.clone()))?;
            let fields = Fields::of(&method.input(), &markers, &mut reached)?;
            let takes_many = method.is_client_streaming();
            if let Some(fault) = fault(&rule).or_else(|| revealing_fault(&rule, &fields, takes_many)) {
                return Err(InvalidContract::BadRule { path, fault });
            }
            rules.insert(path, Described { rule, fields });
        }
        // a marked field that no request holds is a mistake: the access layer never reads it
        if let Some(name) = markers.revealing(pool)?.difference(&reached).next() {
            return Err(BadField { name: name.clone(), fault: "reveals and is in no request" }.into());
        }
        Ok(Self(rules))
    }

    /// The rule of a method; `None` for a path that is no method.
    pub fn of(&self, path: &str) -> Option<&Rule> {
        self.0.get(path).map(|described| &described.rule)
    }

    /// The marked fields of a method's requests; `None` for a path that is no method.
    pub fn fields_of(&self, path: &str) -> Option<&Fields> {
        self.0.get(path).map(|described| &described.fields)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &Rule)> {
        self.0.iter().map(|(path, described)| (path.as_str(), &described.rule))
    }
}

fn rule(pool: &DescriptorPool, method: &MethodDescriptor) -> Option<Rule> {
    let (option, options) = (pool.get_extension_by_name("tsujiban.access.v1.rule")?, method.options());
    if !options.has_extension(&option) {
        return None;
    }
    options.get_extension(&option).as_message()?.transcode_to().ok()
}

/// Why a method's calls would not be recorded before they reveal something; `None` where they are, or never reveal.
fn revealing_fault(rule: &Rule, fields: &Fields, takes_many: bool) -> Option<&'static str> {
    fields.revealing()?;
    if takes_many {
        // only the first message is read before the handler runs
        Some("reveals and takes a stream of messages; take one message")
    } else if rule.history() == History::None {
        Some("reveals and its calls are not recorded; give it a history")
    } else if !(fields.name_a_group() && fields.name_a_target()) {
        Some("reveals and its request does not name of what; mark its group and its target")
    } else {
        None
    }
}

/// What is wrong with a rule; `None` when it says all that it has to.
fn fault(rule: &Rule) -> Option<&'static str> {
    let known = |named: &i32| access::v1::Workload::try_from(*named).is_ok_and(|named| !workloads(named).is_empty());
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

/// The programs that a value of the contracts' enum names; empty if it names none. The name of a program is the word after `WORKLOAD_`.
pub fn workloads(named: access::v1::Workload) -> Vec<Workload> {
    if named == access::v1::Workload::Service {
        return Service::ALL.iter().copied().filter(|service| service.has_spool()).map(Workload::Service).collect();
    }
    let word = named.as_str_name().strip_prefix("WORKLOAD_").unwrap_or_default();
    Workload::of_name(&word.to_ascii_lowercase()).into_iter().collect()
}

impl Rule {
    /// Whether the method may be called by this program of ours.
    pub fn lets(&self, caller: Workload) -> bool {
        self.workloads().any(|named| workloads(named).contains(&caller))
    }

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
