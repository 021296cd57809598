//! Requests made as an owner. Every request that would change something is a dry run.

use futures::StreamExt;
use http::Request;
use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::{Value, json};
use tsujiban_conformance::access::{CORE, OURS, PROBE};
use tsujiban_conformance::{Access, Answer, Asked, Depth, OwnerAnswers, PodTrait, Probe, ScopeNames, Subject, Trouble, answer, catalogue};

use super::ConformanceError;
use super::reading::GroupFacts;
use crate::cluster::{Cluster, Right, ask};

/// How many requests are under way at once.
pub const AT_ONCE: usize = 8;
const WHO_AM_I: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
const MAY_I: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";

/// The cluster, accessed as an owner.
pub struct AsOwner<'a> {
    pub cluster: &'a Cluster,
    pub subject: &'a Subject,
}

/// What is asked of an authorizer.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    pub namespace: &'a str,
    pub verb: &'a str,
    pub group: &'a str,
    pub version: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    pub name: &'a str,
}

impl AsOwner<'_> {
    /// Makes sure that the apiserver identifies us as the owner: a check made as another user proves nothing.
    pub async fn who_am_i(&self) -> Result<(), ConformanceError> {
        let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
        let (code, body) = self.send("POST", WHO_AM_I, None, Some(&review)).await?;
        self.read(code, &body)?;
        let found = body.pointer("/status/userInfo/username").and_then(Value::as_str).unwrap_or_default();
        let groups = body.pointer("/status/userInfo/groups").and_then(Value::as_array).cloned().unwrap_or_default();
        let is_member = self.subject.groups.iter().all(|group| groups.iter().any(|found| found == group.as_str()));
        if found == self.subject.user && is_member {
            return Ok(());
        }
        Err(ConformanceError::NotActingAs { owner: self.subject.label.clone(), found: found.to_owned() })
    }

    /// Asks the authorizer whether the owner may, and by which binding.
    pub async fn may(&self, question: Question<'_>) -> Result<Answer, ConformanceError> {
        let attributes = json!({
            "namespace": question.namespace, "verb": question.verb, "group": question.group, "version": question.version,
            "resource": question.resource, "subresource": question.subresource, "name": question.name,
        });
        let review =
            json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": {"resourceAttributes": attributes}});
        let (code, body) = self.send("POST", MAY_I, None, Some(&review)).await?;
        if !self.read(code, &body)?.is_allowed() {
            return Err(ConformanceError::CannotAsk { owner: self.subject.label.clone() });
        }
        let status = body.get("status").cloned().unwrap_or_default();
        if status.get("allowed") == Some(&Value::Bool(true)) {
            let because = status.get("reason").and_then(Value::as_str).unwrap_or_default().to_owned();
            return Ok(Answer::Allowed { because });
        }
        Ok(Answer::denied())
    }

    async fn send(&self, method: &str, uri: &str, media: Option<&str>, body: Option<&Value>) -> Result<(u16, Value), ConformanceError> {
        let mut request = Request::builder().method(method).uri(uri).header("impersonate-user", &self.subject.user);
        for group in &self.subject.groups {
            request = request.header("impersonate-group", group);
        }
        if body.is_some() {
            request = request.header("content-type", media.unwrap_or("application/json"));
        }
        let bytes = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
        let request = request.body(Body::from(bytes)).map_err(|error| self.trouble(&error))?;
        let is_watch = uri.contains("watch=true");
        let answered = async {
            let response = self.cluster.client.send(request).await?;
            let code = response.status().as_u16();
            if is_watch && response.status().is_success() {
                return Ok((code, Value::Null)); // that it began is the answer
            }
            let body = response.into_body().collect().await?.to_bytes();
            let text = || Value::String(String::from_utf8_lossy(&body).into_owned());
            Ok((code, serde_json::from_slice(&body).unwrap_or_else(|_| text())))
        };
        Ok(ask(Right::new("impersonate", "users", ""), answered).await?)
    }

    /// What an answer means for the owner.
    fn read(&self, code: u16, body: &Value) -> Result<Answer, ConformanceError> {
        let message = body.get("message").or(Some(body)).and_then(Value::as_str).unwrap_or_default();
        answer::of_response(code, message).map_err(|trouble| match trouble {
            Trouble::MayNotImpersonate(_) => {
                ConformanceError::MayNotImpersonate { owner: self.subject.label.clone(), right: needed(self.subject) }
            }
            other => self.trouble(&other),
        })
    }

    fn trouble(&self, trouble: &dyn std::error::Error) -> ConformanceError {
        ConformanceError::Trouble { owner: self.subject.label.clone(), trouble: trouble.to_string() }
    }

    async fn try_access(&self, access: Access, facts: &GroupFacts) -> Result<(Asked, Answer), ConformanceError> {
        let scopes = &facts.scopes;
        let question = Question {
            namespace: access.namespace(scopes),
            verb: access.verb,
            group: access.api.0,
            version: access.api.1,
            resource: access.resource,
            subresource: access.subresource,
            name: access.object(scopes),
        };
        if !access.can_be_tried() {
            return Ok((Asked::Access(access), self.may(question).await?));
        }
        let (method, query, media) = how(&access);
        let body = body(&access, facts);
        let uri = format!("{}?{query}", access.path(scopes));
        let (code, answered) = self.send(method, &uri, media, body.as_ref()).await?;
        let mut answer = self.read(code, &answered)?;
        if let (Answer::Allowed { because }, false) = (&mut answer, catalogue::is_granted(&access))
            && let Answer::Allowed { because: binding } = self.may(question).await?
        {
            *because = if binding.is_empty() { because.clone() } else { format!("{because}; {binding}") };
        }
        Ok((Asked::Access(access), answer))
    }

    async fn try_pod(&self, wrong: PodTrait, scopes: &ScopeNames) -> Result<(Asked, Answer), ConformanceError> {
        let uri = format!("/api/v1/namespaces/{}/pods?dryRun=All", scopes.own);
        let (code, body) = self.send("POST", &uri, None, Some(&wrong.manifest())).await?;
        let mut answer = self.read(code, &body)?;
        if answer.is_allowed() && wrong.was_put_right(&body) {
            answer = Answer::Refused { by: tsujiban_conformance::Guard::Admission, message: "the image is always pulled".to_owned() };
        }
        Ok((Asked::Pod(wrong), answer))
    }

    async fn try_probe(&self, probe: Probe, facts: &GroupFacts, secret: &str) -> Result<Option<(Asked, Answer)>, ConformanceError> {
        let sent = probe.request(&facts.scopes, secret);
        let (code, body) = self.send(sent.method, &format!("{}?{}", sent.path, sent.query), None, sent.body.as_ref()).await?;
        if probe.needs_secret() && code == 404 {
            return Ok(None);
        }
        Ok(Some((Asked::Probe(probe), self.read(code, &body)?)))
    }

    /// A Secret that the owners made: one that a Device names.
    async fn a_secret(&self, scopes: &ScopeNames) -> Result<Option<String>, ConformanceError> {
        let uri = format!("/apis/{}/{}/namespaces/{}/devices?limit=200", OURS.0, OURS.1, scopes.own);
        let (_, body) = self.send("GET", &uri, None, None).await?;
        let items = body.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
        let named =
            items.iter().find_map(|device| device.pointer("/spec/connection/credentialsSecretRef/name")?.as_str().map(str::to_owned));
        Ok(named)
    }
}

/// Everything that can be answered about one owner.
pub async fn answers(acting: &AsOwner<'_>, facts: &GroupFacts) -> Result<OwnerAnswers, ConformanceError> {
    let by_pod = [catalogue::CREATE_POD, catalogue::CREATE_SERVICE]; // tried with real ones below
    let all: Vec<_> = catalogue::accesses(Depth::Full)
        .into_iter()
        .filter(|access| !by_pod.contains(access))
        .map(|access| acting.try_access(access, facts))
        .collect();
    let mut answers = OwnerAnswers { owner: acting.subject.label.clone(), ..OwnerAnswers::default() };
    let mut tried = futures::stream::iter(all).buffer_unordered(AT_ONCE);
    while let Some(found) = tried.next().await {
        answers.answers.extend([found?]);
    }
    for wrong in PodTrait::ALL {
        answers.answers.extend([acting.try_pod(wrong, &facts.scopes).await?]);
    }
    let (_, answer) = acting.try_access(catalogue::CREATE_SERVICE, facts).await?;
    answers.answers.insert(Asked::NodePort, answer);
    let secret = acting.a_secret(&facts.scopes).await?;
    for probe in catalogue::probes() {
        let name = match (&secret, probe.needs_secret()) {
            (None, true) => continue,
            (Some(name), true) => name.as_str(),
            (_, false) => PROBE,
        };
        answers.answers.extend(acting.try_probe(probe, facts, name).await?);
    }
    Ok(answers)
}

/// Method, query and media type of a request.
fn how(access: &Access) -> (&'static str, &'static str, Option<&'static str>) {
    const DRY: &str = "dryRun=All";
    let post = match access.subresource {
        // names a pod that does not exist, so that nothing runs in any pod
        "exec" | "attach" => "command=true&stdout=true",
        "portforward" => "ports=8080",
        _ => DRY,
    };
    match access.verb {
        "create" => ("POST", post, None),
        "update" => ("PUT", DRY, None),
        "patch" => ("PATCH", DRY, Some("application/merge-patch+json")),
        "delete" => ("DELETE", DRY, None),
        // a dry run, of objects with a label that no object has
        "deletecollection" => ("DELETE", "dryRun=All&labelSelector=tsujiban.dev%2Fconformance%3Dnothing", None),
        "watch" => ("GET", "watch=true&timeoutSeconds=1", None),
        "list" => ("GET", "limit=1", None),
        _ if access.subresource == "exec" => ("GET", post, None),
        _ => ("GET", "", None),
    }
}

/// The body of a request. An existing object is sent unchanged but for a mark, so that the request gets as far as admission.
fn body(access: &Access, facts: &GroupFacts) -> Option<Value> {
    let mark = json!({"metadata": {"annotations": {PROBE: "tried"}}});
    match access.verb {
        "create" => Some(access.body()),
        "patch" => Some(mark),
        "update" => {
            let name = access.object(&facts.scopes);
            let mut object = live_object(access, facts, name).unwrap_or_else(|| access.body());
            if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata.insert("annotations".to_owned(), json!({PROBE: "tried"}));
                metadata.insert("name".to_owned(), json!(if name.is_empty() { PROBE } else { name }));
            }
            Some(object)
        }
        _ => None,
    }
}

fn live_object(access: &Access, facts: &GroupFacts, name: &str) -> Option<Value> {
    fn named<K: serde::Serialize + kube::ResourceExt>(list: &[K], name: &str) -> Option<Value> {
        serde_json::to_value(list.iter().find(|object| object.name_any() == name)?).ok()
    }
    let live = &facts.live;
    if !access.subresource.is_empty() {
        return None;
    }
    match (access.api == CORE, access.resource) {
        (_, "networkpolicies") => named(&live.network_policies, name),
        (_, "rolebindings") => named(&live.role_bindings, name),
        (true, "resourcequotas") => named(&live.resource_quotas, name),
        (true, "limitranges") => named(&live.limit_ranges, name),
        (true, "namespaces") => serde_json::to_value(live.namespace.as_ref()?).ok(),
        _ => None,
    }
}

/// The right that impersonating the subject needs.
fn needed(subject: &Subject) -> String {
    let user = match subject.user.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':')) {
        Some((namespace, name)) => format!("serviceaccounts (core) named {name} in namespace {namespace}"),
        None => format!("users (core) named {}", subject.user),
    };
    if subject.groups.is_empty() { user } else { format!("{user}, and on groups (core) named {}", subject.groups.join(", ")) }
}
