//! A real S3 storage: versitygw on the loopback interface, with folders of its own, gone when it is dropped.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tsujiban_backup::store::{Objects, S3, S3Settings, StoreError, list_all};
use tsujiban_service::testing::{Ca, SERVER_NAME};

use crate::stage::REGION;

const ACCESS: &str = "an-access-key";
const SECRET: &str = "a-secret-key";
/// It is there within a second; a busy machine may take longer.
const PATIENCE: Duration = Duration::from_secs(30);

pub struct Gateway {
    process: Child,
    endpoint: String,
    _dir: TempDir,
}

impl Gateway {
    pub async fn start() -> Self {
        Self::start_with(None).await
    }

    /// Over https with a certificate of this authority.
    pub async fn start_with_tls(ca: &Ca) -> Self {
        Self::start_with(Some(ca)).await
    }

    async fn start_with(ca: Option<&Ca>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["objects", "versions"] {
            std::fs::create_dir(dir.path().join(folder)).unwrap();
        }
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let mut command = Command::new(binary());
        if let Some(ca) = ca {
            ca.issue_into(dir.path());
            command.arg("--cert").arg(dir.path().join("tls.crt")).arg("--key").arg(dir.path().join("tls.key"));
        }
        let process = command
            .args(["--access", ACCESS, "--secret", SECRET, "--region", REGION, "--port", &format!("127.0.0.1:{port}"), "--quiet"])
            .arg("posix")
            .arg("--versioning-dir")
            .arg(dir.path().join("versions"))
            .arg(dir.path().join("objects"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let endpoint = if ca.is_some() { format!("https://{SERVER_NAME}:{port}") } else { format!("http://127.0.0.1:{port}") };
        let gateway = Self { process, endpoint, _dir: dir };
        let deadline = std::time::Instant::now() + PATIENCE;
        while tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_err() {
            assert!(std::time::Instant::now() < deadline, "versitygw does not answer on port {port}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        gateway
    }

    /// A new bucket, and the store of it.
    pub async fn bucket(&self, name: &str, object_lock: bool) -> S3 {
        self.client().create_bucket().bucket(name).object_lock_enabled_for_bucket(object_lock).send().await.unwrap();
        self.store(name, SECRET)
    }

    /// Somebody else who has the credentials.
    fn client(&self) -> aws_sdk_s3::Client {
        let credentials = aws_sdk_s3::config::Credentials::new(ACCESS, SECRET, None, None, "test");
        let http = aws_smithy_http_client::Builder::new().build_http();
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(aws_sdk_s3::config::BehaviorVersion::latest())
            .http_client(http)
            .region(aws_sdk_s3::config::Region::new(REGION))
            .endpoint_url(&self.endpoint)
            .force_path_style(true)
            .credentials_provider(credentials)
            .build();
        aws_sdk_s3::Client::from_conf(config)
    }

    pub fn store(&self, bucket: &str, secret: &str) -> S3 {
        self.store_trusting(bucket, secret, None)
    }

    pub fn store_trusting(&self, bucket: &str, secret: &str, ca: Option<Vec<u8>>) -> S3 {
        let settings =
            S3Settings { endpoint: Some(self.endpoint.clone()), region: REGION.into(), bucket: bucket.into(), path_style: true, ca };
        S3::new(settings, ACCESS, secret).unwrap()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("TSUJIBAN_VERSITYGW") {
        return PathBuf::from(path);
    }
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map_or_else(|| Path::new(&std::env::var_os("HOME").unwrap_or_default()).join(".cache"), PathBuf::from);
    let clusters = std::fs::read_dir(cache.join("tsujiban")).into_iter().flatten().flatten();
    let found = clusters.map(|cluster| cluster.path().join("bin/versitygw")).filter(|path| path.is_file()).max();
    found.expect("versitygw is missing; build it with: e2e/cluster/build versitygw (or name it in TSUJIBAN_VERSITYGW)")
}

#[tokio::test]
async fn facts_of_buckets() {
    let gateway = Gateway::start().await;
    let locked = gateway.bucket("locked", true).await.facts().await.unwrap();
    assert_eq!((locked.region.as_str(), locked.object_lock), (REGION, true));
    assert!(!gateway.bucket("plain", false).await.facts().await.unwrap().object_lock);
    let refused = gateway.store("locked", "wrong").facts().await.unwrap_err().to_string();
    assert!(refused.contains("refused") && !refused.contains(SECRET), "{refused}");
}

/// C23: somebody who deletes without naming a version hides an object and deletes nothing; the marker is found and goes.
#[tokio::test]
async fn delete_markers_are_seen_and_taken_away() {
    let gateway = Gateway::start().await;
    let store = gateway.bucket("hidden", true).await;
    let version = store.put("v1/a", "kept".into(), None).await.unwrap();
    gateway.client().delete_object().bucket("hidden").key("v1/a").send().await.unwrap();
    assert!(matches!(store.get("v1/a", None).await, Err(StoreError::NotFound { .. })));
    let entries = list_all(&store, "v1/").await.unwrap();
    let (markers, versions): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| entry.delete_marker);
    assert_eq!((markers.len(), versions.len()), (1, 1));
    store.delete("v1/a", &markers[0].version).await.unwrap();
    assert_eq!(store.get("v1/a", None).await.unwrap(), "kept");
    assert_eq!(versions[0].version, version);
}

/// C22: what is sent is encrypted, and only to a storage whose certificate is of the given authority.
#[tokio::test]
async fn only_a_storage_of_the_given_authority_is_trusted() {
    let ca = Ca::new();
    let gateway = Gateway::start_with_tls(&ca).await;
    let trusting = gateway.store_trusting("nothing", SECRET, Some(ca.pem().into_bytes()));
    assert!(matches!(trusting.facts().await, Err(StoreError::NotFound { .. })), "it is spoken to, and has no such bucket");
    for other in [Some(Ca::new().pem().into_bytes()), None] {
        let refused = gateway.store_trusting("nothing", SECRET, other).facts().await.unwrap_err();
        assert!(matches!(refused, StoreError::Unreachable { .. }) && refused.to_string().contains("certificate"), "{refused}");
    }
}
