//! What happens to volumes, and the ways back that a test needs for itself.

use std::fs;
use std::path::Path;
use tsujiban_core::workload::Service;

use anyhow::{Context, Result};
use tsujiban_e2e::stage::Stage;

use crate::node::{flip, scale, shell, volume};
use crate::row::VolumeLoss;

/// The user of the services' processes.
const OWNER: &str = "65532:65532";

/// How much room the storage has on a disk that is filled up.
const STORAGE_ROOM_KIB: u64 = 65_536;

/// The ending of the files of a spool that hold records.
const SEGMENT: &str = "spool";

/// The volumes that are not as the cluster made them.
#[derive(Debug, Default)]
pub struct Volumes {
    small: Vec<Service>,
    is_storage_small: bool,
}

impl Volumes {
    pub async fn lose(&mut self, stage: &Stage, service: Service, loss: VolumeLoss) -> Result<()> {
        let path = volume(stage, service).await?;
        let (at, database) = (path.display(), path.join(service.row().database));
        let database = database.display();
        let script = match loss {
            VolumeLoss::Unlinked => return running(stage, &format!("rm -f {database} {database}-wal {database}-shm")),
            VolumeLoss::Replaced => return running(stage, &format!("cp -a {database} {database}.copy; mv {database}.copy {database}")),
            VolumeLoss::Filled => {
                // to the last byte: a file system keeps some for small writes
                let fill = format!(
                    "dd if=/dev/zero of={at}/filler bs=64K 2>/dev/null || true; dd if=/dev/zero bs=512 2>/dev/null >>{at}/filler || true"
                );
                return running(stage, &fill);
            }
            VolumeLoss::Emptied => return running(stage, &format!("rm -f {at}/filler")),
            VolumeLoss::Small(mebibytes) => {
                self.small.push(service);
                format!(
                    "rm -rf {at}.whole; mkdir {at}.whole; cp -a {at}/. {at}.whole/; mount -t tmpfs -o size=$(($(du -sm {at}.whole | cut -f1) + {mebibytes}))M tmpfs {at}; cp -a {at}.whole/. {at}/"
                )
            }
            VolumeLoss::Keep => format!("rm -rf {at}.kept; cp -a {at} {at}.kept"),
            VolumeLoss::Older => format!("find {at} -mindepth 1 -delete; cp -a {at}.kept/. {at}/"),
            VolumeLoss::Lost => format!("find {at} -mindepth 1 -delete"),
            VolumeLoss::Database => format!("rm -f {database} {database}-wal {database}-shm"),
            VolumeLoss::Wal => format!("rm -f {database}-wal {database}-shm"),
            VolumeLoss::Page => format!(
                "sqlite3 {database} 'PRAGMA wal_checkpoint(TRUNCATE)' >/dev/null; chown {OWNER} {database}*; \
                dd if=/dev/urandom of={database} bs=4096 count=1 conv=notrunc seek=$(($(stat -c %s {database}) / 8192)) 2>/dev/null"
            ),
            VolumeLoss::IndexPage(index) => format!(
                "sqlite3 {database} 'PRAGMA wal_checkpoint(TRUNCATE)' >/dev/null; chown {OWNER} {database}*; \
                page=$(sqlite3 {database} \"SELECT rootpage FROM sqlite_master WHERE name = '{index}'\"); [ -n \"$page\" ]; \
                dd if=/dev/urandom of={database} bs=$(sqlite3 {database} 'PRAGMA page_size') count=1 conv=notrunc seek=$((page - 1)) 2>/dev/null"
            ),
            VolumeLoss::Spool => format!("rm -rf {at}/spool"),
            VolumeLoss::SpoolByte => {
                scale(stage, service, 0).await?;
                flip(&newest_segment(&path.join("spool"))?)?;
                return scale(stage, service, 1).await;
            }
        };
        stopped(stage, service, &script).await
    }

    /// Leaves the storage a disk with some room, of which nothing is left.
    pub async fn fill_storage(&mut self, stage: &Stage) -> Result<()> {
        let at = stage.state.join("s3");
        let at = at.display();
        stage.component("stop", "s3").await?;
        self.is_storage_small = true;
        let done = shell(
            stage,
            &format!(
                "rm -rf {at}.whole; cp -a {at} {at}.whole; mount -t tmpfs -o size=$(($(du -sk {at} | cut -f 1) + {STORAGE_ROOM_KIB}))k tmpfs {at}; \
                cp -a {at}.whole/. {at}/; dd if=/dev/zero of={at}/filler bs=4K 2>/dev/null || true"
            ),
        );
        stage.component("start", "s3").await?;
        done.map(drop)
    }

    /// Frees the storage's disk.
    pub fn empty_storage(stage: &Stage) -> Result<()> {
        running(stage, &format!("rm -f {}/filler", stage.state.join("s3").display()))
    }

    /// Gives small volumes their size back, with what is on them now.
    pub async fn release(&mut self, stage: &Stage) -> Result<()> {
        if std::mem::take(&mut self.is_storage_small) {
            let at = stage.state.join("s3");
            let at = at.display();
            stage.component("stop", "s3").await?;
            let script = format!(
                "rm -rf {at}.whole; cp -a {at} {at}.whole; umount {at}; find {at} -mindepth 1 -delete; cp -a {at}.whole/. {at}/; \
                rm -rf {at}.whole {at}/filler"
            );
            let done = shell(stage, &script);
            stage.component("start", "s3").await?;
            done?;
        }
        for service in std::mem::take(&mut self.small) {
            let path = volume(stage, service).await?;
            let at = path.display();
            let script = format!(
                "rm -f {at}/filler; rm -rf {at}.whole; mkdir {at}.whole; cp -a {at}/. {at}.whole/; umount {at}; \
                find {at} -mindepth 1 -delete; cp -a {at}.whole/. {at}/; rm -rf {at}.whole"
            );
            stopped(stage, service, &script).await?;
        }
        Ok(())
    }
}

/// Whether nothing of a service's database lies in its log file.
pub async fn is_checkpointed(stage: &Stage, service: Service) -> Result<bool> {
    let log = volume(stage, service).await?.join(format!("{}-wal", service.row().database));
    Ok(shell(stage, &format!("if [ -s {} ]; then echo more; fi", log.display()))?.is_empty())
}

/// Changes rows of a service's database while nobody uses it.
pub async fn rows(stage: &Stage, service: Service, sql: &str) -> Result<()> {
    let database = volume(stage, service).await?.join(service.row().database);
    let database = database.display();
    let script = format!("sqlite3 -bail {database} <<'SQL'\n{sql};\nSQL\nchown {OWNER} {database}*");
    stopped(stage, service, &script).await
}

/// Runs a script while the service goes on.
fn running(stage: &Stage, script: &str) -> Result<()> {
    shell(stage, script).map(drop)
}

/// Runs a script while a service is stopped.
async fn stopped(stage: &Stage, service: Service, script: &str) -> Result<()> {
    scale(stage, service, 0).await?;
    let done = shell(stage, script);
    scale(stage, service, 1).await?;
    done.map(drop)
}

/// The newest file of a spool that holds records.
fn newest_segment(spool: &Path) -> Result<std::path::PathBuf> {
    let mut segments = Vec::new();
    for entry in fs::read_dir(spool).with_context(|| spool.display().to_string())? {
        let entry = entry?;
        let is_segment = entry.path().extension().is_some_and(|ending| ending == SEGMENT) && entry.metadata()?.len() > 0;
        if is_segment {
            segments.push(entry.path());
        }
    }
    segments.sort();
    segments.pop().context("the spool holds nothing")
}
