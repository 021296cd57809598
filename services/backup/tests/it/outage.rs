//! PostgreSQL goes away and comes back: whoever calls is told to try again, and nothing has to be started anew.

use std::net::Ipv4Addr;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OnceCell, watch};
use tonic::Code;
use tsujiban_backup::catalogue::SCHEMA;
use tsujiban_database::testing::Postgres;

use crate::stage::{Disk, World, config};

/// A way to PostgreSQL that can be cut.
struct Way {
    port: u16,
    open: watch::Sender<bool>,
}

impl Way {
    async fn to(port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let (open, seen) = watch::channel(true);
        tokio::spawn(async move {
            while let Ok((mut here, _)) = listener.accept().await {
                let mut seen = seen.clone();
                tokio::spawn(async move {
                    let pass = async {
                        let mut there = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
                        tokio::io::copy_bidirectional(&mut here, &mut there).await
                    };
                    tokio::select! {
                        _ = seen.wait_for(|open| !open) => {}
                        _ = pass => {}
                    }
                });
            }
        });
        Self { port: own, open }
    }
}

#[tokio::test]
async fn a_database_that_is_away_is_worth_another_try() {
    let mut tables = Postgres::shared().with_tables(&SCHEMA).await;
    let port = Postgres::shared().port();
    let way = Way::to(port).await;
    tables.service.url = tables.service.url.replace(&format!(":{port}/"), &format!(":{}/", way.port));
    let mut world = World::new();
    world.disk = Disk::Postgres(OnceCell::new_with(Some(tables)));
    let stage = world.start().await;
    stage.prepare("acme").await.unwrap();
    stage.put("acme", "SN1", &config("one")).await.unwrap();

    way.open.send(false).unwrap();
    let refused = stage.put("acme", "SN1", &config("two")).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    assert!(refused.message().contains("try again later"), "{refused}");
    way.open.send(true).unwrap();
    assert!(stage.put("acme", "SN1", &config("two")).await.unwrap().changed);
    assert_eq!(stage.list("acme", "SN1").await.unwrap().len(), 2);
}
