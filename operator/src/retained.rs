//! Groups that the backup service holds and that have no Tenant: retained ones are noted as such, and when staff have erased
//! one, its namespace goes too.

use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use tsujiban_api::Tenant;
use tsujiban_core::id::{GroupId, IncarnationId};
use tsujiban_proto::lifecycle::v1::GroupState;

use crate::apply::{ApplyError, delete, failed};
use crate::context::Context;
use crate::errors::chain;
use crate::report::Facts;
use crate::tenant::{belongs_to_group, dereference::live_namespace, incarnation};

/// What to do about a group that has no Tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settlement {
    Nothing,
    /// The service still believes that the Tenant lives.
    Detach,
    /// The group's data is erased, and the namespace is the last that is left of it.
    DeleteNamespace,
}

/// Decides. `annotated` is the incarnation that our namespace of the group names.
pub fn settlement(state: GroupState, incarnation: &IncarnationId, annotated: Option<&IncarnationId>) -> Settlement {
    match state {
        GroupState::Living => Settlement::Detach,
        GroupState::Erased if annotated == Some(incarnation) => Settlement::DeleteNamespace,
        GroupState::Erased | GroupState::Retained | GroupState::Unspecified => Settlement::Nothing,
    }
}

/// Settles every group of a report. What fails is tried again with the next one.
pub async fn settle(context: &Context, facts: &Facts) {
    for ((group, incarnation), state) in &facts.groups {
        if *state == GroupState::Retained
            || context.tenants.state().iter().any(|tenant| tenant.metadata.name.as_deref() == Some(group.as_str()))
        {
            continue; // the cache says that there is a Tenant; whether there is none is read live
        }
        if let Err(error) = settle_one(context, group, incarnation, *state).await {
            tracing::warn!(group = %group, error = chain(&error), "a group without a Tenant could not be settled; trying again in 30 s");
        }
    }
}

async fn settle_one(context: &Context, group: &GroupId, incarnation: &IncarnationId, state: GroupState) -> Result<(), ApplyError> {
    let namespace = live_namespace(&context.client, group).await?.filter(|namespace| belongs_to_group(namespace, group));
    let annotated = namespace.as_ref().and_then(self::incarnation);
    let settlement = settlement(state, incarnation, annotated.as_ref());
    if settlement == Settlement::Nothing || has_tenant(context, group).await? {
        return Ok(());
    }
    match (settlement, namespace) {
        (Settlement::Detach, _) => {
            if let Err(error) = context.backup.detach(group, incarnation).await {
                tracing::warn!(group = %group, error = chain(&error), "a retained group could not be noted as such");
            }
            Ok(())
        }
        (Settlement::DeleteNamespace, Some(namespace)) if namespace.metadata.deletion_timestamp.is_none() => {
            tracing::info!(group = %group, incarnation = %incarnation, "the group was erased by staff; deleting its namespace");
            delete(&Api::<Namespace>::all(context.client.clone()), &namespace).await
        }
        _ => Ok(()),
    }
}

async fn has_tenant(context: &Context, group: &GroupId) -> Result<bool, ApplyError> {
    let api: Api<Tenant> = Api::all(context.client.clone());
    let found = api.get_opt(group.as_str()).await.map_err(failed::<Tenant>("read", None, group.as_str()))?;
    Ok(found.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// C25: what staff erased leaves no namespace behind, and a namespace of a newer life is not touched.
    #[test]
    fn only_the_erased_incarnation_loses_its_namespace() {
        let [old, new]: [IncarnationId; 2] = ["0", "1"].map(|digit| digit.repeat(32).parse().unwrap());
        assert_eq!(settlement(GroupState::Erased, &old, Some(&old)), Settlement::DeleteNamespace);
        assert_eq!(settlement(GroupState::Erased, &old, Some(&new)), Settlement::Nothing);
        assert_eq!(settlement(GroupState::Erased, &old, None), Settlement::Nothing);
        assert_eq!(settlement(GroupState::Retained, &old, Some(&old)), Settlement::Nothing);
        assert_eq!(settlement(GroupState::Living, &old, Some(&old)), Settlement::Detach);
    }
}
