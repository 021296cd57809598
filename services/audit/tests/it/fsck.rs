//! What we serve is a log as others know logs: Tessera's `fsck` reads all of it and agrees, and disagrees when a bit is another one.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use futures::future::join_all;
use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tsujiban_audit::engine::Addition;
use tsujiban_audit::owner::Owner;
use tsujiban_audit::reading::Log;
use tsujiban_audit::{rpc, tiles};
use tsujiban_history::tile::{Path as Stored, WIDTH, all_tiles};
use tsujiban_service::testing::SERVER_NAME;

use crate::stage::{Stage, World, entry};

crate::on_both!(what_is_served_over_tls_is_accepted, a_flipped_bit_is_refused_wherever_it_is);

async fn what_is_served_over_tls_is_accepted(world: World) {
    let stage = world.start().await;
    let mut tls = (*stage.server.certificate.server_config().unwrap()).clone();
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let stop = CancellationToken::new();
    let _stop = stop.clone().drop_guard();
    tokio::spawn(tiles::serve(Arc::clone(&stage.audit), listener, TlsAcceptor::from(Arc::new(tls)), stop));
    let folder = TempDir::new().unwrap();
    let authority = folder.path().join("ca.crt");
    fs::write(&authority, &stage.server.ca_pem).unwrap();

    // one entry; one tile that is just full; whole tiles, a part of one, and a level above
    for (more, size) in [(1, 1), (255, 256), (444, 700)] {
        let log = grow(&stage, &world, more).await;
        assert_eq!(log.size(), size);
        let url = format!("https://{SERVER_NAME}:{port}/{}/", log.id);
        let said = fsck(&stage, &log, &url, &authority).await;
        assert!(said.status.success(), "{}", text(&said));
        assert!(text(&said).contains(&format!("size {size} and root {}", log.head().root)), "{}", text(&said));
    }
}

async fn a_flipped_bit_is_refused_wherever_it_is(world: World) {
    let stage = world.start().await;
    let log = grow(&stage, &world, 700).await;
    let folder = TempDir::new().unwrap();
    let files = save(&stage, &log, folder.path()).await;
    let url = format!("file://{}/", folder.path().display());
    let whole = fsck(&stage, &log, &url, Path::new("")).await;
    assert!(whole.status.success(), "{}", text(&whole));

    // of 700 entries there are three bundles, the tiles over them, one above and the checkpoint
    assert_eq!(files.len(), 8, "{files:?}");
    for file in files {
        let path = folder.path().join(&file);
        let sound = fs::read(&path).unwrap();
        let mut other = sound.clone();
        let middle = other.len() / 2;
        other[middle] ^= 1;
        fs::write(&path, other).unwrap();
        let said = fsck(&stage, &log, &url, Path::new("")).await;
        assert!(!said.status.success(), "a bit of {file} is another one, and nobody says so: {}", text(&said));
        fs::write(&path, sound).unwrap();
    }
}

/// Adds entries to the history of a group.
async fn grow(stage: &Stage, world: &World, more: usize) -> Log {
    let additions: Vec<Addition> = (0..more).map(|n| rpc::addition(entry(world, "acme", &n.to_string())).unwrap()).collect();
    for added in join_all(additions.chunks(100).map(|some| stage.audit.engine.append(some.to_vec()))).await {
        added.unwrap();
    }
    // what is shown ends with the newest root list
    stage.audit.follow_roots().await.unwrap();
    stage.audit.some_log_of(&Owner::parse("acme").unwrap()).await.unwrap()
}

/// Writes everything that is served of a log into a folder. Answers the names of the files.
async fn save(stage: &Stage, log: &Log, folder: &Path) -> Vec<String> {
    let tiles: Vec<_> = all_tiles(log.size()).collect();
    let bundles = tiles.iter().filter(|tile| tile.level == 0).map(|tile| Stored::Entries { index: tile.index, width: tile.width });
    assert_eq!(u64::try_from(bundles.clone().count()).unwrap(), log.size().div_ceil(u64::from(WIDTH)));
    let paths = bundles.chain(tiles.iter().map(|tile| tile.path())).chain([Stored::Checkpoint]).map(|path| path.to_string());
    let paths: Vec<String> = paths.collect();
    for path in &paths {
        let answer = tiles::answer(&stage.audit, &Method::GET, &format!("/{}/{path}", log.id)).await;
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        let file = folder.join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, answer.into_body().collect().await.unwrap().to_bytes()).unwrap();
    }
    paths
}

/// Runs Tessera's check. `authority` is whom it trusts with certificates.
async fn fsck(stage: &Stage, log: &Log, url: &str, authority: &Path) -> Output {
    let origin = stage.audit.origin(log.id).to_string();
    let key = stage.audit.verifier().for_origin(&origin).unwrap().to_string();
    let mut command = Command::new(binary());
    command.env("SSL_CERT_FILE", authority).args(["-logtostderr", url, &key]);
    tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap()
}

fn binary() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../e2e/cluster/path");
    let answer = Command::new(path).arg("tessera-fsck").output().unwrap();
    let binary = PathBuf::from(String::from_utf8(answer.stdout).unwrap().trim());
    assert!(binary.is_file(), "tessera-fsck is missing; build it with: e2e/cluster/build tessera");
    binary
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
