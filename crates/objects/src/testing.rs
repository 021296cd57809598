//! A real S3 storage for tests: versitygw on the loopback interface, with folders of its own. It is removed when it is dropped.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::missing_panics_doc)] // compiled for tests only, where a set-up that fails is a failed test

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::{S3, S3Settings};

pub const REGION: &str = "ap-northeast-1";
const ACCESS: &str = "an-access-key";
pub const SECRET: &str = "a-secret-key";
/// It is there within a second; a busy machine may take longer.
const PATIENCE: Duration = Duration::from_secs(30);

pub struct Gateway {
    process: Child,
    endpoint: String,
    dir: TempDir,
}

impl Gateway {
    pub async fn start() -> Self {
        Self::start_with(None).await
    }

    /// Over https with the certificate for `localhost` and the key in `tls.crt` and `tls.key` of this folder.
    pub async fn start_with_tls(certificate: &Path) -> Self {
        Self::start_with(Some(certificate)).await
    }

    async fn start_with(certificate: Option<&Path>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["objects", "versions"] {
            std::fs::create_dir(dir.path().join(folder)).unwrap();
        }
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let mut command = Command::new(binary());
        if let Some(dir) = certificate {
            command.arg("--cert").arg(dir.join("tls.crt")).arg("--key").arg(dir.join("tls.key"));
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
        let endpoint = if certificate.is_some() { format!("https://localhost:{port}") } else { format!("http://127.0.0.1:{port}") };
        let gateway = Self { process, endpoint, dir };
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

    /// A client of somebody else who has the credentials.
    pub fn client(&self) -> aws_sdk_s3::Client {
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

    /// The file in which the gateway keeps the newest version of an object.
    pub fn file(&self, bucket: &str, key: &str) -> PathBuf {
        self.dir.path().join("objects").join(bucket).join(key)
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
