//! Every check, red once, by the way in which it can go wrong.

use super::*;
use crate::access::Depth;
use crate::catalogue::{LiveRule, accesses};
use crate::summary::Summary;

fn scopes() -> ScopeNames {
    ScopeNames::new("acme", "tn-acme", Some("tn-globex"), "tsujiban-system")
}

/// An owner as ClusterRole tsujiban-tenant-owner makes them, asked by whoever asks `depth`.
fn owner(depth: Depth) -> OwnerAnswers {
    let granted: Vec<Access> = all()
        .filter_map(|check| match check.basis {
            Basis::Granted(list) => Some(list.to_vec()),
            _ => None,
        })
        .flatten()
        .collect();
    let answer = |access: &Access| {
        if granted.contains(access) { Answer::Allowed { because: String::new() } } else { Answer::denied() }
    };
    let answers = accesses(depth).into_iter().map(|access| (Asked::Access(access), answer(&access))).collect();
    OwnerAnswers { owner: "User yamada".to_owned(), answers, ..OwnerAnswers::default() }
}

/// The same, by somebody who tries everything.
fn tried() -> OwnerAnswers {
    let mut owner = owner(Depth::Full);
    for wrong in PodTrait::ALL {
        owner.answers.insert(Asked::Pod(wrong), Answer::denied());
    }
    owner.answers.insert(Asked::NodePort, Answer::denied());
    for check in all() {
        if let Basis::Refused(probes) = check.basis {
            for probe in probes {
                owner.answers.insert(Asked::Probe(*probe), Answer::Refused { by: Guard::Policy, message: "no".to_owned() });
            }
        }
    }
    owner
}

fn judged(owner: OwnerAnswers, live: &Live) -> Vec<Judged> {
    let (scopes, wanted, owners) = (scopes(), good::wanted(), vec![owner]);
    judge_all(&Evidence { scopes: &scopes, owners: &owners, live, wanted: &wanted })
}

fn verdict(judged: &[Judged], id: &str) -> Verdict {
    judged.iter().find(|judged| judged.check.id == id).unwrap_or_else(|| panic!("{id}")).verdict.clone()
}

fn allowed() -> Answer {
    Answer::Allowed { because: "RBAC: allowed by ClusterRoleBinding \"strong\"".to_owned() }
}

#[test]
fn a_good_group_conforms_whoever_asks() {
    let live = good::live(|_| ());
    let everything = judged(tried(), &live);
    assert_eq!(everything.len(), all().count());
    let asked = judged(owner(Depth::Core), &live);
    // what only trying shows is not judged by who only asks
    assert_eq!(asked.len(), all().filter(|check| !matches!(check.basis, Basis::Refused(_))).count());
    for judged in [everything, asked] {
        let summary = Summary::of(&judged);
        assert!(summary.conforms(), "{summary:#?}");
        assert_eq!((summary.denied_by_rbac, summary.by_rbac_alone.as_slice()), (10, &["MTB-PL1-CC-DI-1"][..]));
        assert_eq!(summary.not_applicable, ["MTB-PL2-BC-OPS-3", "MTB-PL2-BC-OPS-4"]);
        assert_eq!(verdict(&judged, "MTB-PL1-BC-HI-4"), Verdict::DeniedByRbac { also: Some(Guard::PodSecurity) });
        assert_eq!(verdict(&judged, "MTB-PL1-BC-HI-1.nodeport"), Verdict::DeniedByRbac { also: Some(Guard::Quota) });
    }
}

/// Every check but those that are not applicable, one after the other.
#[test]
fn every_check_can_fail_and_fails_alone() {
    let mut red = 0;
    for check in all() {
        let mut owner = tried();
        let mut live = good::live(|_| ());
        match check.basis {
            Basis::NotApplicable(_) => continue,
            Basis::Denied(list) => drop(owner.answers.insert(Asked::Access(list[list.len() - 1]), allowed())),
            Basis::Granted(list) => drop(owner.answers.insert(Asked::Access(list[0]), Answer::denied())),
            Basis::Pods(traits) => drop(owner.answers.insert(Asked::Pod(traits[traits.len() - 1]), allowed())),
            Basis::NodePort => drop(owner.answers.insert(Asked::NodePort, allowed())),
            Basis::Refused(probes) => drop(owner.answers.insert(Asked::Probe(probes[0]), allowed())),
            Basis::Live(rule) => live = broken(rule),
        }
        let summary = Summary::of(&judged(owner, &live));
        let failing: Vec<&str> = summary.fails.iter().map(|(id, _)| *id).collect();
        assert_eq!(failing, [check.id]);
        let message = summary.message("acme");
        assert!(message.starts_with(check.id) && message.ends_with("tsujiban conformance acme"), "{message}");
        red += 1;
    }
    assert_eq!(red, all().count() - 2);
}

fn broken(rule: LiveRule) -> Live {
    good::live(|live| match rule {
        LiveRule::ResourceQuotas => drop(live["resourceQuotas"][0]["spec"]["hard"].as_object_mut().unwrap().remove("limits.cpu")),
        LiveRule::ObjectQuotas => drop(live["resourceQuotas"][0]["spec"]["hard"].as_object_mut().unwrap().remove("secrets")),
        LiveRule::Limits => live["limitRanges"] = serde_json::json!([]),
        LiveRule::PodSecurity => {
            live["namespace"]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] = serde_json::json!("privileged");
        }
        LiveRule::DefaultDeny => live["networkPolicies"][0]["spec"]["policyTypes"] = serde_json::json!(["Egress"]),
        LiveRule::NothingElseOpen => live["networkPolicies"][1]["spec"]["egress"] = serde_json::json!([{}]),
        LiveRule::Bindings => live["roleBindings"][2]["subjects"][0]["name"] = serde_json::json!("mallory"),
    })
}

/// An owner who may create pods is one step from the node: then only Pod Security stands there, and it is said so.
#[test]
fn the_label_denied_by_rbac_is_honest() {
    let may_create = || {
        let mut owner = owner(Depth::Core);
        owner.answers.insert(Asked::Access(CREATE_POD), allowed());
        owner
    };
    let restricted = judged(may_create(), &good::live(|_| ()));
    assert!(matches!(verdict(&restricted, "MTB-PL1-BC-CPI-5"), Verdict::Holds { by } if by.contains("Pod Security")));
    // Pod Security looks at no image
    assert!(verdict(&restricted, "MTB-PL1-CC-DI-1").fails());
    let open = judged(may_create(), &broken(LiveRule::PodSecurity));
    assert!(verdict(&open, "MTB-PL1-BC-CPI-5").fails());
    // by RBAC alone, once Pod Security is gone
    let alone = judged(owner(Depth::Core), &broken(LiveRule::PodSecurity));
    assert_eq!(verdict(&alone, "MTB-PL1-BC-CPI-5"), Verdict::DeniedByRbac { also: None });
    // tried, not asked: what came of it counts, whatever the labels say
    let mut refused = tried();
    refused.answers.insert(Asked::Pod(PodTrait::Privileged), Answer::Refused { by: Guard::PodSecurity, message: String::new() });
    assert_eq!(
        verdict(&judged(refused, &good::live(|_| ())), "MTB-PL1-BC-CPI-5"),
        Verdict::Holds { by: "refused by Pod Security".to_owned() }
    );
}

#[test]
fn the_binding_that_gives_too_much_is_named() {
    let mut owner = owner(Depth::Core);
    for access in accesses(Depth::Core) {
        owner.answers.insert(Asked::Access(access), allowed());
    }
    let summary = Summary::of(&judged(owner, &good::live(|_| ())));
    let message = summary.message("acme");
    assert!(message.contains("MTB-PL1-CC-CPI-1: User yamada may list nodes (RBAC: allowed by ClusterRoleBinding \"strong\")"), "{message}");
    assert!(message.contains("and 6 more") && message.contains("Also: "), "{message}");
    assert!(message.len() < 8000, "{}", message.len());
}

#[test]
fn what_was_found_beyond_the_catalogue_counts() {
    let mut owner = tried();
    owner.breadth.insert("MTB-PL1-CC-CPI-1", (300, vec!["delete runtimeclasses".to_owned()]));
    let summary = Summary::of(&judged(owner, &good::live(|_| ())));
    assert_eq!(summary.fails, [("MTB-PL1-CC-CPI-1", "User yamada may delete runtimeclasses".to_owned())]);
}

#[test]
fn a_group_without_owners_is_judged_by_its_objects() {
    let (scopes, wanted, live) = (scopes(), good::wanted(), broken(LiveRule::Limits));
    let judged = judge_all(&Evidence { scopes: &scopes, owners: &[], live: &live, wanted: &wanted });
    let summary = Summary::of(&judged);
    assert_eq!(summary.fails.iter().map(|(id, _)| *id).collect::<Vec<_>>(), ["TSJ-FNS-1"]);
    assert_eq!(summary.denied_by_rbac, 0, "nobody was denied anything");
}
