//! Asks the authorizer about owners: when something changed, or when the last answers are old.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::api::PostParams;
use kube::{Api, Client};
use tsujiban_conformance::{Access, Answer, Depth, ScopeNames, Subject, catalogue};

use crate::apply::{ApplyError, failed};
use crate::controllers::tenant::context::TenantContext;
use crate::fingerprint::fingerprint;
use crate::state::conformance::Deviation;

/// How many questions are under way at once.
const AT_ONCE: usize = 4;
/// All questions about one group together. The reconcile itself has a minute.
const DEADLINE: Duration = Duration::from_secs(15);
/// How long the apiserver may take to know of a binding that was just made.
const RIGHTS: (u32, Duration) = (20, Duration::from_millis(100));

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error(transparent)]
    Api(#[from] ApplyError),
    #[error("the questions took longer than 15 s")]
    Slow,
}

/// The answer that the catalogue expects of the authorizer.
pub fn expected(access: &Access) -> Answer {
    if catalogue::is_granted(access) { Answer::Allowed { because: String::new() } } else { Answer::denied() }
}

/// Waiting changes come first; after them, all groups are checked at a steady pace.
pub fn may_ask(context: &TenantContext, now: Timestamp) -> bool {
    !context.shared.metrics.watchdog.is_busy() && context.access_reviews.has_budget(now)
}

/// The deviations of a group's owners, asked now if it is the group's turn. `None` when it is not and nothing is known.
pub async fn deviations(
    context: &TenantContext,
    group: &str,
    key: u64,
    subjects: &[Subject],
    scopes: &ScopeNames,
) -> Result<Option<Vec<Deviation>>, AskError> {
    let questions = catalogue::accesses(Depth::Core);
    let (whose, now) = (fingerprint(subjects), context.shared.clock.now());
    if !may_ask(context, now) || !context.access_reviews.take_turn(group, key, now, questions.len() * subjects.len()) {
        return Ok(context.access_reviews.known(group, whose));
    }
    let asked =
        tokio::time::timeout(DEADLINE, ask_all(&context.shared.client, &questions, subjects, scopes)).await.map_err(|_| AskError::Slow)?;
    let deviations = asked?;
    context.access_reviews.learn(group, key, whose, now, deviations.clone());
    Ok(Some(deviations))
}

async fn ask_all(client: &Client, questions: &[Access], subjects: &[Subject], scopes: &ScopeNames) -> Result<Vec<Deviation>, ApplyError> {
    let mut all = Vec::with_capacity(questions.len() * subjects.len());
    for (owner, subject) in subjects.iter().enumerate() {
        all.extend(questions.iter().map(|access| deviation(client, owner, subject, *access, scopes)));
    }
    let found: Vec<Option<Deviation>> = futures::stream::iter(all).buffer_unordered(AT_ONCE).try_collect().await?;
    let mut deviations: Vec<Deviation> = found.into_iter().flatten().collect();
    deviations.sort_by_key(|deviation| (deviation.owner, deviation.access));
    Ok(deviations)
}

async fn deviation(
    client: &Client,
    owner: usize,
    subject: &Subject,
    access: Access,
    scopes: &ScopeNames,
) -> Result<Option<Deviation>, ApplyError> {
    let answer = answer(client, subject, &access, scopes).await?;
    let deviates = answer.is_allowed() != expected(&access).is_allowed();
    Ok(deviates.then_some(Deviation { owner, access, answer }))
}

/// One answer. A right that an owner should have is asked about again for a moment, since the binding may be new.
async fn answer(client: &Client, subject: &Subject, access: &Access, scopes: &ScopeNames) -> Result<Answer, ApplyError> {
    let (tries, pause) = if catalogue::is_granted(access) { RIGHTS } else { (1, Duration::ZERO) };
    let mut answer = review(client, subject, access, scopes).await?;
    for _ in 1..tries {
        if answer.is_allowed() {
            break;
        }
        tokio::time::sleep(pause).await;
        answer = review(client, subject, access, scopes).await?;
    }
    Ok(answer)
}

async fn review(client: &Client, subject: &Subject, access: &Access, scopes: &ScopeNames) -> Result<Answer, ApplyError> {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let attributes = ResourceAttributes {
        namespace: some(access.namespace(scopes)),
        verb: some(access.verb),
        group: some(access.api.0),
        version: some(access.api.1),
        resource: some(access.resource),
        subresource: some(access.subresource),
        name: some(access.object(scopes)),
        ..ResourceAttributes::default()
    };
    let spec = SubjectAccessReviewSpec {
        user: Some(subject.user.clone()),
        groups: Some(subject.all_groups()),
        resource_attributes: Some(attributes),
        ..SubjectAccessReviewSpec::default()
    };
    let question = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
    let api: Api<SubjectAccessReview> = Api::all(client.clone());
    let answer = api.create(&PostParams::default(), &question).await.map_err(failed::<SubjectAccessReview>("ask", None, &subject.label))?;
    // only an explicit `allowed` counts
    let status = answer.status.unwrap_or_default();
    Ok(if status.allowed { Answer::Allowed { because: status.reason.unwrap_or_default() } } else { Answer::denied() })
}
