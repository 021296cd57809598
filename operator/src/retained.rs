//! Groups that a service holds and that have no Tenant. The service is told that they are retained. When staff have erased one, its
//! namespace is deleted, and then its data in the other services.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client};
use tokio::sync::watch;
use tsujiban_api::Tenant;
use tsujiban_core::error::chain;
use tsujiban_core::id::{GroupId, IncarnationId};
use tsujiban_core::workload::Service;
use tsujiban_proto::lifecycle::v1::GroupState;

use crate::apply::{ApplyError, delete, failed};
use crate::cache::Cache;
use crate::controllers::site;
use crate::namespace::{self, belongs_to_group, live_namespace};
use crate::services::Services;
use crate::services::client::{CallError, ServiceClient};
use crate::state::reports::Reports;

/// What could not be settled.
#[derive(Debug, thiserror::Error)]
enum SettleError {
    #[error(transparent)]
    Apply(#[from] ApplyError),
    #[error("the group could not be noted as retained")]
    Detach(#[source] CallError),
    #[error("what is left of the group could not be erased")]
    Erase(#[source] CallError),
}

/// What is known of one incarnation of a group that has no Tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// The service that reported.
    pub service: Service,
    pub state: GroupState,
    /// What the first service reports about the same incarnation: staff erase groups there.
    pub first: Option<GroupState>,
    /// Whether our namespace of the group names this incarnation.
    pub is_annotated: bool,
}

/// What to do about a group that has no Tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settlement {
    Nothing,
    /// The service does not know yet that the Tenant is gone.
    Detach,
    /// The first service has erased the group's data: the namespace is deleted next.
    DeleteNamespace,
    /// The group was erased in the first service, where staff erase groups, and its namespace is gone: this service has to erase it, too.
    Erase,
}

/// Decides.
pub fn settlement(standing: Standing) -> Settlement {
    let was_erased = standing.service != Service::FIRST && standing.first == Some(GroupState::Erased);
    match standing.state {
        GroupState::Living | GroupState::Retained if was_erased && standing.is_annotated => Settlement::Nothing, // the namespace goes first
        GroupState::Living | GroupState::Retained if was_erased => Settlement::Erase,
        GroupState::Living => Settlement::Detach,
        GroupState::Erased if standing.service == Service::FIRST && standing.is_annotated => Settlement::DeleteNamespace,
        GroupState::Erased | GroupState::Retained | GroupState::Unspecified => Settlement::Nothing,
    }
}

/// Settles the groups that have no Tenant.
pub struct RetainedGroups {
    pub client: Client,
    pub services: Arc<Services>,
    pub reports: watch::Receiver<Reports>,
    pub tenants: Cache<Tenant>,
    /// Whether there is an operation history.
    pub is_history_kept: bool,
}

impl RetainedGroups {
    /// Settles every group of a service's report. What fails is tried again with the next report.
    pub async fn settle(&self, service: Service) {
        let reports = self.reports.borrow().clone();
        let Some(facts) = reports.of(service).cloned() else { return };
        let Some(client) = self.services.find(service) else { return };
        for ((group, incarnation), state) in &facts.groups {
            let first = reports.state(Service::FIRST, group, incarnation);
            let standing = Standing { service, state: *state, first, is_annotated: false };
            if settlement(standing) == Settlement::Nothing && settlement(Standing { is_annotated: true, ..standing }) == Settlement::Nothing
                || self.tenants.list().iter().any(|tenant| tenant.metadata.name.as_deref() == Some(group.as_str()))
            {
                continue; // the cache is enough to know that there is a Tenant; that there is none is read live
            }
            if let Err(error) = self.settle_one(client, group, incarnation, standing).await {
                tracing::warn!(group = %group, error = chain(&error), "a group without a Tenant could not be settled; trying again in 30 s");
            }
        }
    }

    async fn settle_one(
        &self,
        client: &ServiceClient,
        group: &GroupId,
        incarnation: &IncarnationId,
        standing: Standing,
    ) -> Result<(), SettleError> {
        let namespace = live_namespace(&self.client, group).await?.filter(|namespace| belongs_to_group(namespace, group));
        let is_annotated = namespace.as_ref().and_then(namespace::incarnation).as_ref() == Some(incarnation);
        let settlement = settlement(Standing { is_annotated, ..standing });
        if settlement == Settlement::Nothing || has_tenant(&self.client, group).await? {
            return Ok(());
        }
        match (settlement, namespace) {
            (Settlement::Detach, _) => client.detach(group, incarnation).await.map_err(SettleError::Detach),
            (Settlement::Erase, _) => {
                tracing::info!(group = %group, incarnation = %incarnation, "the group was erased by staff; erasing it in the {}", client.service);
                client.erase_group(group, incarnation).await.map_err(SettleError::Erase)
            }
            (Settlement::DeleteNamespace, Some(namespace)) if namespace.metadata.deletion_timestamp.is_none() => {
                if !site::namespace_is_deletable(&self.client, self.is_history_kept, &namespace).await? {
                    return Ok(()); // tried again with the next report
                }
                tracing::info!(group = %group, incarnation = %incarnation, "the group was erased by staff; deleting its namespace");
                Ok(delete(&Api::<Namespace>::all(self.client.clone()), &namespace).await?)
            }
            _ => Ok(()),
        }
    }
}

async fn has_tenant(client: &Client, group: &GroupId) -> Result<bool, ApplyError> {
    let api: Api<Tenant> = Api::all(client.clone());
    let found = api.get_opt(group.as_str()).await.map_err(failed::<Tenant>("read", None, group.as_str()))?;
    Ok(found.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use GroupState::{Erased, Living, Retained};

    fn decided(service: Service, state: GroupState, first: Option<GroupState>, is_annotated: bool) -> Settlement {
        settlement(Standing { service, state, first, is_annotated })
    }

    /// C25: what staff erased leaves no namespace behind, and a namespace of a newer life is not touched.
    #[test]
    fn only_the_erased_incarnation_loses_its_namespace() {
        let by_backup = |state, is_annotated| decided(Service::Backup, state, Some(state), is_annotated);
        assert_eq!(by_backup(Erased, true), Settlement::DeleteNamespace);
        assert_eq!(by_backup(Erased, false), Settlement::Nothing);
        assert_eq!(by_backup(Retained, true), Settlement::Nothing);
        assert_eq!(by_backup(Living, true), Settlement::Detach);
    }

    /// C25: what staff erased in the one service is erased in all, and nothing is that they did not erase.
    #[test]
    fn an_erased_group_is_erased_everywhere_once_its_namespace_has_gone() {
        let by_audit = |state, first, is_annotated| decided(Service::Audit, state, first, is_annotated);
        for state in [Living, Retained] {
            assert_eq!(by_audit(state, Some(Erased), false), Settlement::Erase);
            assert_eq!(by_audit(state, Some(Erased), true), Settlement::Nothing, "the namespace goes first");
        }
        assert_eq!(by_audit(Erased, Some(Erased), true), Settlement::Nothing, "the namespace is not audit's business");
        for first in [None, Some(Living), Some(Retained)] {
            for is_annotated in [false, true] {
                assert_eq!(by_audit(Living, first, is_annotated), Settlement::Detach);
                assert_eq!(by_audit(Retained, first, is_annotated), Settlement::Nothing);
                assert_eq!(by_audit(Erased, first, is_annotated), Settlement::Nothing);
            }
        }
    }
}
