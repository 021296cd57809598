//! Where a call comes from, and what it is part of.

use crate::stage::{Options, Stage, message};

const LIST: &str = "/tsujiban.backup.v1.BackupService/ListSnapshots";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

#[tokio::test]
async fn the_history_says_from_where_and_as_part_of_what() {
    let parent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let metadata = [
        ("authorization", "Bearer hanako"),
        ("x-forwarded-for", "198.51.100.7"),
        ("x-request-id", "order-66"),
        ("traceparent", parent.as_str()),
    ];
    let unbelieved = Stage::new().await;
    unbelieved.send(LIST, message(LIST, "acme"), &metadata).await.unwrap();
    let believed = Stage::with(Options { guard: |guard| guard.proxies.push("127.0.0.0/8".parse().unwrap()), ..Options::default() }).await;
    believed.send(LIST, message(LIST, "acme"), &metadata).await.unwrap();
    for (stage, from) in [(unbelieved, "127.0.0.1"), (believed, "198.51.100.7")] {
        let (_, operation) = stage.outcomes().await.remove(0);
        assert_eq!((operation.from.as_str(), operation.request_id.as_str()), (from, "order-66"));
        assert_eq!(operation.trace_id, TRACE);
    }
}
