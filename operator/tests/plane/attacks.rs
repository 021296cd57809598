//! Attacks that other tenancy systems fell to, replayed against ours, in every way that the apiserver offers. docs/attacks.md lists them.

mod devices;
mod groups;
mod namespaces;
mod owners;
mod secrets;
mod stage;

use std::sync::Arc;

use crate::attempt::{Attacks, start};
use stage::Stage;
pub use stage::control;

/// One after the other.
macro_rules! one_by_one {
    ($attacks:expr, $stage:expr, $($attack:path),+ $(,)?) => {
        $($attacks.note(start(stringify!($attack), $attack(Arc::clone(&$stage)))).await;)+
    };
}

/// Side by side: those that mostly wait, and do not disturb each other.
macro_rules! together {
    ($attacks:expr, $stage:expr, $($attack:path),+ $(,)?) => {
        for running in [$(start(stringify!($attack), $attack(Arc::clone(&$stage)))),+] {
            $attacks.note(running).await;
        }
    };
}

#[tokio::test(flavor = "multi_thread")]
async fn known_attacks_are_held_off() {
    let stage = Arc::new(Stage::new().await.unwrap());
    let mut attacks = Attacks::new();
    one_by_one!(
        attacks,
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
    );
    together!(
        attacks,
        stage,
        devices::serial_number_squatted,
        groups::erased_group_claimed_again,
        groups::group_named_like_anothers_namespace,
        groups::group_that_its_owner_keeps_from_being_erased,
    );
    one_by_one!(attacks, stage, owners::operator_wrote_nowhere_else); // what it wrote during all the others
    attacks.end();
}
