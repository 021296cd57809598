//! Records that a user put missing entries back into Secret `tsujiban-epoch-keys`. A policy admits that only with an annotation that says
//! who and why; the annotation is removed once it is in the operation history.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::api::PostParams;
use kube::{Api, Client, ResourceExt};
use tokio::sync::watch;
use tokio::time::sleep;
use tsujiban_api::names::{ANNOTATION_RESTORE_KEYS, FIELD_MANAGER, SECRET_EPOCH_KEYS};
use tsujiban_core::clock::Clock;
use tsujiban_core::error::chain;
use tsujiban_proto::access::v1::Operation as Verb;

use crate::apply::{ApplyError, failed};
use crate::history::{PlatformEvent, PlatformLog};
use crate::installation::Installation;
use crate::services::client::CallError;

const EVERY: Duration = Duration::from_secs(30);

/// Why the restored entries could not be recorded yet.
#[derive(Debug, thiserror::Error)]
pub enum RestoredError {
    #[error(transparent)]
    Apply(#[from] ApplyError),
    #[error("the history did not take it")]
    Record(#[from] CallError),
}

/// Who put entries back, and why: `<user>: <reason>`, as the policy requires it. The policy refuses users whose name has a colon and a
/// space in it.
fn parse(annotation: &str) -> (Option<&str>, &str) {
    annotation.split_once(": ").map_or((None, annotation), |(user, reason)| (Some(user), reason))
}

/// Checks for the annotation.
pub struct RestoredKeys {
    pub client: Client,
    /// The system namespace.
    pub namespace: String,
    pub installation: watch::Receiver<Installation>,
    pub log: PlatformLog,
    pub clock: Arc<dyn Clock>,
}

impl RestoredKeys {
    /// Checks for ever.
    pub async fn run(self) {
        loop {
            if let Err(error) = self.settle().await {
                tracing::warn!(error = chain(&error), "that epoch keys were put back could not be recorded yet; trying again in 30 s");
            }
            sleep(EVERY).await;
        }
    }

    /// Records what the Secret's annotation says, and then removes it.
    pub async fn settle(&self) -> Result<(), RestoredError> {
        let namespace = &self.namespace;
        let api: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        let read = || failed::<Secret>("read", Some(namespace), SECRET_EPOCH_KEYS);
        let is_told = |annotated: Option<&String>| annotated.is_some_and(|text| !text.is_empty());
        let found = api.get_metadata_opt(SECRET_EPOCH_KEYS).await.map_err(read())?;
        if !found.is_some_and(|found| is_told(found.annotations().get(ANNOTATION_RESTORE_KEYS))) {
            return Ok(());
        }
        let Some(mut secret) = api.get_opt(SECRET_EPOCH_KEYS).await.map_err(read())? else { return Ok(()) };
        let Some(annotation) = secret.annotations_mut().remove(ANNOTATION_RESTORE_KEYS) else { return Ok(()) };
        let (user, reason) = parse(&annotation);
        let entries: Vec<_> = secret.data.iter().flatten().map(|(id, _)| id.as_str()).collect();
        let changed = secret.managed_fields().iter().filter_map(|entry| Some(entry.time.as_ref()?.0)).max();
        let is_checked = self.installation.borrow().policies_are_in_force();
        let event = PlatformEvent {
            function: "keys",
            verb: Verb::Operate,
            kind: "Secret",
            target: SECRET_EPOCH_KEYS.to_owned(),
            // the same at each try, so that retries make one entry
            seen: changed.unwrap_or_else(|| self.clock.now()),
            user: user.filter(|_| is_checked).map(str::to_owned),
            detail: [
                ("restored".to_owned(), annotation.clone()),
                ("reason".to_owned(), reason.to_owned()),
                ("entries".to_owned(), entries.join(", ")),
                ("uid".to_owned(), secret.uid().unwrap_or_default()),
            ]
            .into(),
        };
        tracing::warn!(restored = annotation, "entries were put back into Secret tsujiban-epoch-keys");
        self.log.record(&event).await?;
        let parameters = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let replaced = api.replace(SECRET_EPOCH_KEYS, &parameters, &secret).await;
        replaced.map(|_| ()).map_err(failed::<Secret>("replace", Some(namespace), SECRET_EPOCH_KEYS)).map_err(RestoredError::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_and_why() {
        assert_eq!(parse("hanako@example.co.jp: disk lost"), (Some("hanako@example.co.jp"), "disk lost"));
        assert_eq!(parse("oidc:hanako: lost: a disk"), (Some("oidc:hanako"), "lost: a disk"));
        assert_eq!(parse("disk lost"), (None, "disk lost"));
    }
}
