//! Attacks that other tenancy systems fell to, replayed against ours, in every way that the apiserver offers. docs/attacks.md lists them.

mod devices;
mod groups;
mod namespaces;
mod owners;
mod secrets;
mod stage;

use std::sync::Arc;

use crate::attempt::Attacks;
use stage::Stage;

macro_rules! attacks {
    ($stage:expr, $($attack:path),+ $(,)?) => {{
        let mut attacks = Attacks::new();
        $(attacks.run(stringify!($attack), $attack(Arc::clone(&$stage))).await;)+
        attacks.end();
    }};
}

#[tokio::test(flavor = "multi_thread")]
async fn known_attacks_are_held_off() {
    let stage = Arc::new(Stage::new().await.unwrap());
    attacks!(
        stage,
        namespaces::namespace_taken_over_by_name,
        namespaces::owner_reference_or_label_removed,
        namespaces::label_injected,
        owners::operator_as_deputy_in_another_namespace,
        owners::same_service_account_name_in_two_namespaces,
        owners::owner_whom_no_policy_judges,
        owners::owner_with_more_rights_than_meant,
        secrets::token_secret_created_by_an_owner,
        secrets::secret_read_through_an_answer,
        secrets::generated_name_squatted,
        secrets::secret_that_pretends_to_be_generated,
        devices::device_that_names_another_groups_secret,
        devices::device_at_an_address_of_the_cluster_or_another_group,
        devices::status_written_by_an_owner,
        devices::finalizer_that_keeps_or_skips_erasure,
        devices::serial_number_squatted,
        groups::erased_group_claimed_again,
        groups::group_named_like_anothers_namespace,
        groups::group_that_its_owner_keeps_from_being_erased,
        // last: it looks back at all the others
        owners::operator_wrote_nowhere_else,
    );
}
