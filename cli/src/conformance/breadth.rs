//! Every kind that the cluster has, beyond those that the catalogue names: the authorizer is asked about each verb on each of them.

use std::collections::BTreeMap;

use futures::StreamExt;
use kube::discovery::{ApiGroup, Discovery, Scope};
use tsujiban_conformance::{Answer, ScopeNames};

use super::ConformanceError;
use super::owner::{AT_ONCE, AsOwner, Question};
use crate::cluster::{Cluster, Right, ask as asking};

/// The checks that cover every kind.
const OF_CLUSTER: &str = "MTB-PL1-CC-CPI-1";
const OF_OTHERS: &str = "MTB-PL1-CC-TI-2";
const READING: [&str; 3] = ["get", "list", "watch"];

/// One kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kind {
    pub group: String,
    pub version: String,
    pub resource: String,
    pub is_namespaced: bool,
    pub verbs: Vec<String>,
}

/// All kinds of the cluster.
pub async fn resources(cluster: &Cluster) -> Result<Vec<Kind>, ConformanceError> {
    let found = asking(Right::new("list", "API resources", ""), Discovery::new(cluster.client.clone()).run()).await?;
    let all = found.groups().flat_map(ApiGroup::recommended_resources);
    Ok(all
        .map(|(resource, capabilities)| Kind {
            group: resource.group,
            version: resource.version,
            resource: resource.plural,
            is_namespaced: capabilities.scope == Scope::Namespaced,
            verbs: capabilities.operations,
        })
        .collect())
}

/// How many questions each check has, and what an owner should not have been granted.
pub async fn ask(
    acting: &AsOwner<'_>,
    kinds: &[Kind],
    scopes: &ScopeNames,
) -> Result<BTreeMap<&'static str, (usize, Vec<String>)>, ConformanceError> {
    let mut questions = Vec::new();
    for kind in kinds {
        for verb in kind.verbs.iter().filter(|verb| !is_everybodys(kind, verb)) {
            questions.push(about(acting, kind, verb, scopes));
        }
    }
    let mut found: BTreeMap<&'static str, (usize, Vec<String>)> = BTreeMap::new();
    let mut answers = futures::stream::iter(questions).buffer_unordered(AT_ONCE);
    while let Some(answer) = answers.next().await {
        let (check, granted) = answer?;
        let (asked, wrong) = found.entry(check).or_default();
        *asked += 1;
        wrong.extend(granted);
    }
    for (_, wrong) in found.values_mut() {
        wrong.sort();
    }
    Ok(found)
}

async fn about(
    acting: &AsOwner<'_>,
    kind: &Kind,
    verb: &str,
    scopes: &ScopeNames,
) -> Result<(&'static str, Option<String>), ConformanceError> {
    let namespace = if kind.is_namespaced { scopes.other.as_str() } else { "" };
    let question =
        Question { namespace, verb, group: &kind.group, version: &kind.version, resource: &kind.resource, subresource: "", name: "" };
    let check = if kind.is_namespaced { OF_OTHERS } else { OF_CLUSTER };
    let scope = if kind.is_namespaced { format!(" in namespace {namespace}") } else { String::new() };
    Ok((
        check,
        match acting.may(question).await? {
            Answer::Allowed { because } => Some(format!("{verb} {}{scope}: {because}", kind.resource)),
            Answer::Refused { .. } => None,
        },
    ))
}

/// What Kubernetes grants to every account: to ask for its own name and rights, and to read the cluster's public certificates.
fn is_everybodys(kind: &Kind, verb: &str) -> bool {
    let about_oneself = kind.resource.starts_with("selfsubject") && verb == "create";
    let certificates = kind.group == "certificates.k8s.io" && kind.resource == "clustertrustbundles" && READING.contains(&verb);
    about_oneself || certificates
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_everybody_may_is_not_asked() {
        let kind = |group: &str, resource: &str| Kind {
            group: group.to_owned(),
            version: "v1".to_owned(),
            resource: resource.to_owned(),
            is_namespaced: false,
            verbs: Vec::new(),
        };
        assert!(is_everybodys(&kind("authorization.k8s.io", "selfsubjectaccessreviews"), "create"));
        assert!(is_everybodys(&kind("certificates.k8s.io", "clustertrustbundles"), "list"));
        assert!(!is_everybodys(&kind("certificates.k8s.io", "clustertrustbundles"), "create"));
        assert!(!is_everybodys(&kind("authorization.k8s.io", "subjectaccessreviews"), "create"));
        assert!(!is_everybodys(&kind("", "nodes"), "list"));
    }
}
