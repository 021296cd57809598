//! The throw-away server itself.

use tsujiban_database::testing::Postgres;

#[tokio::test]
async fn databases_are_apart_and_the_server_is_one() {
    let (one, two) = (Postgres::shared().fresh().await, Postgres::shared().fresh().await);
    assert_ne!(one.name, two.name);
    let port = |url: &str| url.split(['/', ':']).nth(4).map(str::to_owned);
    assert_eq!(port(&one.url), port(&two.url));
}
