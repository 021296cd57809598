//! The checks, as data.

mod benchmark;
mod own;

use crate::access::{Access, Depth};
use crate::pods::PodTrait;
use crate::probes::Probe;

/// The language that people read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Language {
    #[default]
    En,
    Ja,
}

/// A text in both languages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Text {
    pub en: &'static str,
    pub ja: &'static str,
}

impl Text {
    pub const fn in_language(self, language: Language) -> &'static str {
        match language {
            Language::En => self.en,
            Language::Ja => self.ja,
        }
    }
}

/// What a check rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    /// No owner may do any of it.
    Denied(&'static [Access]),
    /// Every owner may do all of it. Without this, all other checks would hold for an owner who may do nothing at all.
    Granted(&'static [Access]),
    /// No owner can run such a pod.
    Pods(&'static [PodTrait]),
    /// No owner can create a Service that takes a port of the nodes.
    NodePort,
    /// An admission policy refuses what an owner's rights allow. Only a tried request shows this.
    Refused(&'static [Probe]),
    /// The live objects of the namespace are as they must be.
    Live(LiveRule),
    /// It asks for what a group must not have here. Says why.
    NotApplicable(Text),
}

/// What live objects have to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LiveRule {
    ResourceQuotas,
    ObjectQuotas,
    Limits,
    PodSecurity,
    DefaultDeny,
    NothingElseOpen,
    Bindings,
}

/// One check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Check {
    /// `MTB-...`: the benchmark's own id, with a word behind a dot where the benchmark uses one id twice. `TSJ-...`: ours.
    pub id: &'static str,
    pub title: Text,
    pub basis: Basis,
}

/// All checks: those of the benchmark, then ours.
pub const CHECKS: &[&[Check]] = &[benchmark::CHECKS, own::CHECKS];

/// Every check in order.
pub fn all() -> impl Iterator<Item = &'static Check> {
    CHECKS.iter().flat_map(|part| part.iter())
}

/// The access that creating a pod needs, and the one that creating a Service needs.
pub const CREATE_POD: Access = benchmark::CREATE_POD;
pub const CREATE_SERVICE: Access = benchmark::CREATE_SERVICE;

/// Every request that has to be tried, since no authorizer knows its answer.
pub fn probes() -> Vec<Probe> {
    all()
        .flat_map(|check| match check.basis {
            Basis::Refused(list) => list.to_vec(),
            _ => Vec::new(),
        })
        .collect()
}

/// Whether owners should be able to do it.
pub fn is_granted(access: &Access) -> bool {
    all().any(|check| matches!(check.basis, Basis::Granted(list) if list.contains(access)))
}

/// Every access that is asked about, each once.
pub fn accesses(depth: Depth) -> Vec<Access> {
    let mut all: Vec<Access> = all()
        .flat_map(|check| match check.basis {
            Basis::Denied(list) | Basis::Granted(list) => list.to_vec(),
            Basis::Pods(_) => vec![CREATE_POD],
            Basis::NodePort => vec![CREATE_SERVICE],
            Basis::Refused(_) | Basis::Live(_) | Basis::NotApplicable(_) => Vec::new(),
        })
        .filter(|access| depth == Depth::Full || access.depth == Depth::Core)
        .collect();
    all.sort();
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The benchmark's checks at its last commit, and how often it uses each id.
    const BENCHMARK: [(&str, usize); 18] = [
        ("MTB-PL1-BC-CPI-2", 1),
        ("MTB-PL1-BC-CPI-3", 1),
        ("MTB-PL1-BC-CPI-4", 1),
        ("MTB-PL1-BC-CPI-5", 1),
        ("MTB-PL1-BC-CPI-6", 1),
        ("MTB-PL1-BC-HI-1", 2),
        ("MTB-PL1-BC-HI-3", 1),
        ("MTB-PL1-BC-HI-4", 1),
        ("MTB-PL1-BC-HI-5", 1),
        ("MTB-PL1-CC-CPI-1", 1),
        ("MTB-PL1-CC-DI-1", 1),
        ("MTB-PL1-CC-FNS-1", 1),
        ("MTB-PL1-CC-FNS-2", 1),
        ("MTB-PL1-CC-TI-1", 1),
        ("MTB-PL1-CC-TI-2", 1),
        ("MTB-PL2-BC-OPS-3", 1),
        ("MTB-PL2-BC-OPS-4", 1),
        ("MTB-PL2-CC-TI-1", 1),
    ];

    #[test]
    fn all_of_the_benchmark_is_there() {
        assert_eq!(benchmark::CHECKS.len(), 19);
        for (id, times) in BENCHMARK {
            let found = benchmark::CHECKS.iter().filter(|check| check.id.split('.').next() == Some(id)).count();
            assert_eq!(found, times, "{id}");
        }
    }

    #[test]
    fn ids_are_unique_and_every_text_is_in_both_languages() {
        let ids: BTreeSet<_> = all().map(|check| check.id).collect();
        assert_eq!(ids.len(), all().count());
        for check in all() {
            assert!(!check.title.en.is_empty() && check.title.en.is_ascii(), "{}", check.id);
            assert!(!check.title.ja.is_empty() && !check.title.ja.is_ascii(), "{}", check.id);
            if let Basis::NotApplicable(reason) = check.basis {
                assert!(reason.en.is_ascii() && !reason.ja.is_ascii(), "{}", check.id);
            }
        }
        assert!(own::CHECKS.iter().all(|check| check.id.starts_with("TSJ-")));
    }

    /// The operator asks this for every owner of a thousand groups.
    #[test]
    fn the_operator_asks_few_questions_and_some_of_every_check() {
        let core = accesses(Depth::Core);
        assert!(core.len() <= 55, "{}", core.len());
        assert!(accesses(Depth::Full).len() > core.len());
        for check in all() {
            if let Basis::Denied(list) | Basis::Granted(list) = check.basis {
                assert!(list.iter().any(|access| access.depth == Depth::Core), "{}", check.id);
            }
        }
    }
}
