//! From answers and live objects to verdicts.

use std::collections::{BTreeMap, BTreeSet};

use crate::access::{Access, ScopeNames};
use crate::answer::{Answer, Guard};
use crate::catalogue::{Basis, CREATE_POD, CREATE_SERVICE, Check, Text, all};
use crate::live::{self, Live, Wanted};
use crate::pods::PodTrait;
use crate::probes::Probe;

/// How many sentences a verdict has at most.
const SENTENCES: usize = 3;

/// The result of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It holds. Says by what.
    Holds {
        by: String,
    },
    /// It holds since RBAC lets owners create no pods. `also` is what else would refuse such a pod; `None`, if only RBAC does.
    DeniedByRbac {
        also: Option<Guard>,
    },
    Fails {
        why: String,
    },
    NotApplicable {
        reason: Text,
    },
}

impl Verdict {
    pub fn fails(&self) -> bool {
        matches!(self, Self::Fails { .. })
    }
}

/// One thing that was asked or tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Asked {
    Access(Access),
    Pod(PodTrait),
    /// A Service of type NodePort, tried.
    NodePort,
    Probe(Probe),
}

impl Asked {
    fn describe(self, scopes: &ScopeNames) -> String {
        match self {
            Self::Access(access) => access.describe(scopes),
            Self::Pod(wrong) => format!("create a pod that {}", wrong.describe()),
            Self::NodePort => "create a Service of type NodePort".to_owned(),
            Self::Probe(probe) => probe.describe().to_owned(),
        }
    }
}

/// What was answered about one owner.
#[derive(Debug, Clone, Default)]
pub struct OwnerAnswers {
    /// `User yamada@example.co.jp`.
    pub owner: String,
    pub answers: BTreeMap<Asked, Answer>,
    /// What was asked beyond the catalogue, by check: how many questions, and which of them an owner should not have been granted.
    pub breadth: BTreeMap<&'static str, (usize, Vec<String>)>,
}

/// All that is known about a group.
#[derive(Debug, Clone)]
pub struct Evidence<'a> {
    pub scopes: &'a ScopeNames,
    pub owners: &'a [OwnerAnswers],
    pub live: &'a Live,
    pub wanted: &'a Wanted,
}

/// A check and its result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged {
    pub check: &'static Check,
    pub verdict: Verdict,
}

/// The verdict of every check that the evidence covers.
pub fn judge_all(evidence: &Evidence<'_>) -> Vec<Judged> {
    all().filter_map(|check| judge(check, evidence).map(|verdict| Judged { check, verdict })).collect()
}

/// The verdict of one check, or `None` when nothing that it needs was asked.
pub fn judge(check: &'static Check, evidence: &Evidence<'_>) -> Option<Verdict> {
    match check.basis {
        Basis::NotApplicable(reason) => Some(Verdict::NotApplicable { reason }),
        Basis::Live(rule) => Some(match live::judge(rule, evidence.live, evidence.wanted) {
            Ok(by) => Verdict::Holds { by },
            Err(wrong) => Verdict::Fails { why: sentences(wrong) },
        }),
        _ if evidence.owners.is_empty() => Some(Verdict::Holds { by: "the group has no owners".to_owned() }),
        Basis::Denied(list) => denied(check, list, evidence),
        Basis::Granted(list) => granted(list, evidence),
        Basis::Pods(traits) => pods(traits, evidence),
        Basis::NodePort => node_port(evidence),
        Basis::Refused(probes) => refused(probes, evidence),
    }
}

fn denied(check: &'static Check, list: &[Access], evidence: &Evidence<'_>) -> Option<Verdict> {
    let (mut asked, mut wrong, mut guards) = (0, Vec::new(), BTreeSet::new());
    for owner in evidence.owners {
        for access in list {
            match owner.answers.get(&Asked::Access(*access)) {
                Some(Answer::Allowed { because }) => wrong.push(may(owner, &access.describe(evidence.scopes), because)),
                Some(Answer::Refused { by, .. }) => drop(guards.insert(*by)),
                None => continue,
            }
            asked += 1;
        }
        if let Some((questions, allowed)) = owner.breadth.get(check.id) {
            asked += questions;
            wrong.extend(allowed.iter().map(|what| may(owner, what, "")));
        }
    }
    if asked == 0 {
        return None;
    }
    if !wrong.is_empty() {
        return Some(Verdict::Fails { why: sentences(wrong) });
    }
    let guards = guards.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ");
    Some(Verdict::Holds { by: format!("{asked} times refused by {guards}") })
}

fn granted(list: &[Access], evidence: &Evidence<'_>) -> Option<Verdict> {
    let (mut asked, mut wrong) = (0, Vec::new());
    for owner in evidence.owners {
        for access in list {
            match owner.answers.get(&Asked::Access(*access)) {
                Some(Answer::Refused { by, message }) => {
                    let what = access.describe(evidence.scopes);
                    wrong.push(format!("{} may not {what}: refused by {by}{}", owner.owner, in_brackets(message)));
                }
                Some(Answer::Allowed { .. }) => {}
                None => continue,
            }
            asked += 1;
        }
    }
    match asked {
        0 => None,
        _ if !wrong.is_empty() => Some(Verdict::Fails { why: sentences(wrong) }),
        _ => Some(Verdict::Holds { by: format!("{asked} times granted by ClusterRole tsujiban-tenant-owner") }),
    }
}

/// A refusal by RBAC says nothing about the pod itself, so the verdict also names what else would refuse the pod.
fn pods(traits: &[PodTrait], evidence: &Evidence<'_>) -> Option<Verdict> {
    let (mut asked, mut wrong, mut by_rbac, mut guards) = (0, Vec::new(), false, BTreeSet::new());
    let restricted = live::is_restricted(evidence.live);
    for owner in evidence.owners {
        for wrong_thing in traits {
            let tried = owner.answers.get(&Asked::Pod(*wrong_thing));
            let backed = restricted && wrong_thing.is_refused_by_restricted();
            match tried.or_else(|| owner.answers.get(&Asked::Access(CREATE_POD))) {
                Some(Answer::Refused { by: Guard::Rbac, .. }) => by_rbac = true,
                Some(Answer::Refused { by, .. }) => drop(guards.insert(*by)),
                // only asked, not tried: Pod Security comes after authorization
                Some(Answer::Allowed { .. }) if tried.is_none() && backed => drop(guards.insert(Guard::PodSecurity)),
                Some(Answer::Allowed { because }) => {
                    wrong.push(may(owner, &Asked::Pod(*wrong_thing).describe(evidence.scopes), because));
                }
                None => continue,
            }
            asked += 1;
        }
    }
    let also = (restricted && traits.iter().all(|wrong_thing| wrong_thing.is_refused_by_restricted())).then_some(Guard::PodSecurity);
    match asked {
        0 => None,
        _ if !wrong.is_empty() => Some(Verdict::Fails { why: sentences(wrong) }),
        _ if by_rbac => Some(Verdict::DeniedByRbac { also }),
        _ => {
            Some(Verdict::Holds { by: format!("refused by {}", guards.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")) })
        }
    }
}

fn node_port(evidence: &Evidence<'_>) -> Option<Verdict> {
    let also = live::forbids_node_ports(evidence.live).then_some(Guard::Quota);
    let (mut asked, mut wrong, mut by_rbac) = (0, Vec::new(), false);
    for owner in evidence.owners {
        let tried = owner.answers.get(&Asked::NodePort);
        match tried.or_else(|| owner.answers.get(&Asked::Access(CREATE_SERVICE))) {
            Some(Answer::Refused { by: Guard::Rbac, .. }) => by_rbac = true,
            // only asked, not tried: the quota comes after authorization
            Some(Answer::Allowed { .. }) if tried.is_none() && also.is_some() => {}
            Some(Answer::Refused { .. }) => {}
            Some(Answer::Allowed { because }) => wrong.push(may(owner, &Asked::NodePort.describe(evidence.scopes), because)),
            None => continue,
        }
        asked += 1;
    }
    match asked {
        0 => None,
        _ if !wrong.is_empty() => Some(Verdict::Fails { why: sentences(wrong) }),
        _ if by_rbac => Some(Verdict::DeniedByRbac { also }),
        _ => Some(Verdict::Holds { by: "refused by the quota".to_owned() }),
    }
}

fn refused(probes: &[Probe], evidence: &Evidence<'_>) -> Option<Verdict> {
    let (mut asked, mut wrong) = (0, Vec::new());
    for owner in evidence.owners {
        for probe in probes {
            match owner.answers.get(&Asked::Probe(*probe)) {
                Some(Answer::Allowed { because }) => wrong.push(may(owner, probe.describe(), because)),
                Some(Answer::Refused { .. }) => {}
                None => continue,
            }
            asked += 1;
        }
    }
    match asked {
        0 => None,
        _ if !wrong.is_empty() => Some(Verdict::Fails { why: sentences(wrong) }),
        _ => Some(Verdict::Holds { by: format!("{asked} times refused by admission") }),
    }
}

fn may(owner: &OwnerAnswers, what: &str, because: &str) -> String {
    format!("{} may {what}{}", owner.owner, in_brackets(because))
}

fn in_brackets(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(" ({text})") }
}

/// The first few, and how many more there are.
fn sentences(mut all: Vec<String>) -> String {
    let more = all.len().saturating_sub(SENTENCES);
    all.truncate(SENTENCES);
    let text = all.join("; ");
    if more == 0 { text } else { format!("{text}; and {more} more") }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)] // a test's fixture
pub(crate) mod good;
#[cfg(test)]
mod tests;
