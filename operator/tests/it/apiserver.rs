//! As much of an apiserver as the operator's reconciles talk to: objects in memory, and a list of what was written.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

/// When every object of a test was created.
pub const CREATED: &str = "2026-01-01T00:00:00Z";

#[derive(Default)]
pub struct Apiserver {
    objects: Mutex<BTreeMap<String, Value>>,
    writes: Mutex<Vec<String>>,
    counter: AtomicU64,
    /// Who may do what besides what the role of owners gives: user or group, verb, resource, namespace (`*`: any).
    grants: Mutex<Vec<[String; 4]>>,
    reviews: AtomicU64,
    /// While set, nothing is answered.
    pub is_cut_off: AtomicBool,
}

impl Apiserver {
    pub fn client(self: &Arc<Self>) -> Client {
        let server = Arc::clone(self);
        let service = tower::service_fn(move |request: Request<Body>| {
            let server = Arc::clone(&server);
            async move {
                if server.is_cut_off.load(Ordering::SeqCst) {
                    std::future::pending::<()>().await;
                }
                let (parts, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
                let metadata_only =
                    parts.headers.get("accept").is_some_and(|accept| accept.to_str().unwrap().contains("PartialObjectMetadata"));
                let media = parts.headers.get("content-type").map(|media| media.to_str().unwrap().to_owned()).unwrap_or_default();
                let (status, answer) = server.answer(&parts.method, parts.uri.path(), parts.uri.query().unwrap_or_default(), &media, body);
                let answer = if metadata_only && status == StatusCode::OK { without_contents(&answer) } else { answer };
                let response = Response::builder().status(status).body(Body::from(serde_json::to_vec(&answer).unwrap())).unwrap();
                Ok::<_, Infallible>(response)
            }
        });
        Client::new(service, "default")
    }

    /// Puts an object there, as somebody else would.
    pub fn put(&self, path: &str, mut object: Value) {
        self.complete(path, &mut object);
        self.objects.lock().unwrap().insert(path.to_owned(), object);
    }

    pub fn get(&self, path: &str) -> Option<Value> {
        self.objects.lock().unwrap().get(path).cloned()
    }

    /// The objects of a collection.
    pub fn under(&self, collection: &str) -> Vec<Value> {
        let objects = self.objects.lock().unwrap();
        let inside = objects.iter().filter(|(path, _)| path.rsplit_once('/').is_some_and(|(parent, _)| parent == collection));
        inside.map(|(_, object)| object.clone()).collect()
    }

    pub fn remove(&self, path: &str) {
        self.objects.lock().unwrap().remove(path);
    }

    /// Changes an object, as somebody else would. It gets a new version unless it is brought back to an old one.
    pub fn edit(&self, path: &str, change: impl FnOnce(&mut Value)) {
        let before = self.get(path).unwrap();
        let mut object = before.clone();
        change(&mut object);
        let is_a_copy = object["metadata"]["resourceVersion"] != before["metadata"]["resourceVersion"];
        if is_a_copy {
            self.objects.lock().unwrap().insert(path.to_owned(), object);
        } else {
            self.put(path, object);
        }
    }

    /// The writes since this was asked last.
    pub fn writes(&self) -> Vec<String> {
        std::mem::take(&mut *self.writes.lock().unwrap())
    }

    /// Gives somebody a right, as a binding that the apiserver knows of would.
    pub fn grant(&self, subject: &str, verb: &str, resource: &str, namespace: &str) {
        self.grants.lock().unwrap().push([subject, verb, resource, namespace].map(str::to_owned));
    }

    pub fn revoke_all(&self) {
        self.grants.lock().unwrap().clear();
    }

    /// The SubjectAccessReviews since this was asked last.
    pub fn reviews(&self) -> u64 {
        self.reviews.swap(0, Ordering::SeqCst)
    }

    /// Answers a SubjectAccessReview: what the chart's role of owners gives to whom it is bound, and what was granted besides.
    fn review(&self, mut body: Value) -> (StatusCode, Value) {
        self.reviews.fetch_add(1, Ordering::SeqCst);
        let attributes = body["spec"]["resourceAttributes"].clone();
        let text = |key: &str| attributes[key].as_str().unwrap_or_default().to_owned();
        let (verb, namespace) = (text("verb"), text("namespace"));
        let resource =
            if text("subresource").is_empty() { text("resource") } else { format!("{}/{}", text("resource"), text("subresource")) };
        let groups = body["spec"]["groups"].as_array().cloned().unwrap_or_default();
        let is_asked = |name: &str| body["spec"]["user"] == json!(name) || groups.contains(&json!(name));
        let owners = format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/rolebindings/tsujiban-tenant-owner");
        let is_owner = self.get(&owners).is_some_and(|binding| {
            binding["subjects"].as_array().unwrap().iter().any(|subject| is_asked(subject["name"].as_str().unwrap()))
        });
        let role = [
            ("devices", "get list watch create update patch delete"),
            ("sites", "get list watch create update patch delete"),
            ("secrets", "create update delete"),
            ("jobs", "get list watch"),
        ];
        let by_role = is_owner && role.iter().any(|(kind, verbs)| *kind == resource && verbs.split(' ').any(|known| known == verb));
        let fits = |known: &str, asked: &str| known == "*" || known == asked;
        let granted = self.grants.lock().unwrap().iter().any(|[subject, known, kind, place]| {
            is_asked(subject) && fits(known, &verb) && fits(kind, &resource) && fits(place, &namespace)
        });
        body["status"] = json!({"allowed": by_role || granted});
        if granted {
            body["status"]["reason"] = json!("RBAC: allowed by ClusterRoleBinding \"strong\" of ClusterRole \"cluster-admin\"");
        }
        (StatusCode::CREATED, body)
    }

    fn complete(&self, path: &str, object: &mut Value) {
        let number = self.counter.fetch_add(1, Ordering::SeqCst);
        let metadata = &mut object["metadata"];
        for (key, value) in [("uid", format!("uid-{number}")), ("creationTimestamp", CREATED.to_owned())] {
            if metadata[key].is_null() {
                metadata[key] = json!(value);
            }
        }
        metadata["resourceVersion"] = json!(number.to_string());
        metadata["name"] = json!(path.rsplit('/').next().unwrap());
    }

    fn answer(&self, method: &Method, path: &str, query: &str, media: &str, body: Value) -> (StatusCode, Value) {
        if path.ends_with("/subjectaccessreviews") {
            return self.review(body); // a question, not a write
        }
        let (path, is_status) = path.strip_suffix("/status").map_or((path, false), |path| (path, true));
        let is_write = *method != Method::GET && !is_question(&body, media);
        if is_write && !path.contains("/events") {
            self.writes.lock().unwrap().push(format!("{method} {path}{}", if is_status { "/status" } else { "" }));
        }
        let there = self.get(path);
        match *method {
            Method::GET if is_collection(path) => (StatusCode::OK, self.list(path, query)),
            Method::GET => there.map_or_else(not_found, |object| (StatusCode::OK, object)),
            Method::POST => self.create(path, body),
            Method::PATCH => self.patch(path, media, there, &body),
            Method::PUT => match there {
                None => not_found(),
                Some(there) if there["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"] => {
                    failure(StatusCode::CONFLICT, "Conflict")
                }
                Some(_) => self.store(path, body),
            },
            Method::DELETE => self.delete(path, there, &body),
            _ => failure(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"),
        }
    }

    fn list(&self, path: &str, query: &str) -> Value {
        let selector = |kind: &str| {
            let pair = query.split('&').find_map(|pair| pair.strip_prefix(kind)).unwrap_or_default();
            pair.replace("%3D", "=").replace("%2C", ",").replace("%2F", "/")
        };
        let labels = selector("labelSelector=");
        let fields = selector("fieldSelector=");
        let matches = |object: &Value| {
            let has_labels = labels.split(',').filter(|part| !part.is_empty()).all(|part| {
                let (key, value) = part.split_once('=').unwrap();
                object["metadata"]["labels"][key] == json!(value)
            });
            let has_fields = fields.strip_prefix("spec.serialNumber=").is_none_or(|serial| object["spec"]["serialNumber"] == json!(serial));
            has_labels && has_fields
        };
        let objects = self.objects.lock().unwrap();
        let inside = objects.iter().filter(|(key, _)| key.rsplit_once('/').is_some_and(|(parent, _)| parent == path));
        let items: Vec<Value> = inside.map(|(_, object)| object.clone()).filter(matches).collect();
        json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": items})
    }

    fn create(&self, path: &str, mut body: Value) -> (StatusCode, Value) {
        let path = format!("{path}/{}", body["metadata"]["name"].as_str().unwrap());
        if self.get(&path).is_some() {
            return failure(StatusCode::CONFLICT, "AlreadyExists");
        }
        self.complete(&path, &mut body);
        self.objects.lock().unwrap().insert(path, body.clone());
        (StatusCode::CREATED, body)
    }

    fn patch(&self, path: &str, media: &str, there: Option<Value>, body: &Value) -> (StatusCode, Value) {
        let is_apply = media.contains("apply-patch");
        let Some(mut object) = there.or_else(|| is_apply.then(|| json!({}))) else { return not_found() };
        for guard in ["uid", "resourceVersion"] {
            let (wanted, found) = (&body["metadata"][guard], &object["metadata"][guard]);
            if !wanted.is_null() && wanted != found {
                return failure(StatusCode::CONFLICT, "Conflict");
            }
        }
        if is_question(body, media) {
            return (StatusCode::OK, object); // what changes nothing makes no new version
        }
        merge(&mut object, body, is_apply);
        let released = object["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty);
        if released && !object["metadata"]["deletionTimestamp"].is_null() {
            self.remove(path);
            return (StatusCode::OK, object);
        }
        self.store(path, object)
    }

    fn store(&self, path: &str, mut object: Value) -> (StatusCode, Value) {
        self.complete(path, &mut object);
        self.objects.lock().unwrap().insert(path.to_owned(), object.clone());
        (StatusCode::OK, object)
    }

    fn delete(&self, path: &str, there: Option<Value>, body: &Value) -> (StatusCode, Value) {
        let Some(object) = there else { return not_found() };
        let wanted = &body["preconditions"]["uid"];
        if !wanted.is_null() && *wanted != object["metadata"]["uid"] {
            return failure(StatusCode::CONFLICT, "Conflict");
        }
        self.remove(path);
        (StatusCode::OK, json!({"kind": "Status", "apiVersion": "v1", "status": "Success"}))
    }
}

/// `/api/v1/namespaces`, `/apis/group/v1/things`, `/.../namespaces/x/things`.
fn is_collection(path: &str) -> bool {
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let rest = if parts[0] == "api" { &parts[2..] } else { &parts[3..] };
    matches!(rest, [_] | ["namespaces", _, _])
}

/// Whether a merge patch says nothing but of which object, in which version.
fn is_question(body: &Value, media: &str) -> bool {
    let guards = |metadata: &Value| metadata.as_object().is_some_and(|it| it.keys().all(|key| key == "uid" || key == "resourceVersion"));
    media.contains("merge-patch") && body.as_object().is_some_and(|it| it.iter().all(|(key, value)| key == "metadata" && guards(value)))
}

/// A merge patch, or an apply as far as it differs from one: selectors are replaced as a whole, and elements that others added to
/// a list with keys, such as the environment of a container, stay.
fn merge(object: &mut Value, patch: &Value, is_apply: bool) {
    match (object, patch) {
        (Value::Object(object), Value::Object(patch)) => {
            for (key, value) in patch {
                if value.is_null() {
                    object.remove(key);
                } else if is_apply && key == "podSelector" {
                    object.insert(key.clone(), value.clone());
                } else {
                    merge(object.entry(key.clone()).or_insert(Value::Null), value, is_apply);
                }
            }
        }
        (Value::Array(object), Value::Array(patch))
            if is_apply && object.len() > patch.len() && patch.iter().any(|item| item["name"] == "collector") =>
        {
            for (item, applied) in object.iter_mut().zip(patch) {
                merge(item, applied, is_apply);
            }
        }
        (object, patch) => *object = patch.clone(),
    }
}

fn without_contents(answer: &Value) -> Value {
    let strip = |object: &Value| json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]});
    match answer["items"].as_array() {
        Some(items) => json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": answer["metadata"],
            "items": items.iter().map(strip).collect::<Vec<_>>()}),
        None => strip(answer),
    }
}

fn not_found() -> (StatusCode, Value) {
    failure(StatusCode::NOT_FOUND, "NotFound")
}

fn failure(status: StatusCode, reason: &str) -> (StatusCode, Value) {
    let body = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": reason, "message": reason, "code": status.as_u16()});
    (status, body)
}
