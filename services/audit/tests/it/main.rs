//! The service over real TLS, with a real SQLite and a real PostgreSQL: what is written for one runs on both.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::missing_panics_doc
)]

mod append;
mod bucket;
mod covered;
mod damage;
mod damaged;
mod declared;
mod figures;
mod fsck;
mod lives;
mod lost;
mod migrate;
mod origin;
mod rebuild;
mod refused;
mod retention;
mod roots;
mod scrub;
mod signing;
mod stage;
mod writing;

/// Tests that run on both databases.
macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name($crate::stage::World::sqlite()).await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name($crate::stage::World::postgres().await).await;
            })*
        }
    };
}
pub(crate) use on_both;
