//! Volumes and buckets as they were before the first row: a row that ends badly must not spoil the ones after it.

use anyhow::Result;
use tsujiban_core::workload::Service;
use tsujiban_e2e::stage::Stage;

use crate::node::{scale, shell, volume};

const SERVICES: [Service; 2] = [Service::Backup, Service::Audit];

/// A copy of everything that the services keep.
pub struct Baseline {
    stage: &'static Stage,
}

impl Baseline {
    /// Takes the copy. The services stop for that.
    pub async fn take(stage: &'static Stage) -> Result<Self> {
        let baseline = Self { stage };
        let folder = baseline.folder();
        let s3 = baseline.s3();
        let mut script = vec![format!("rm -rf {folder}; mkdir {folder}; cp -a {s3}/objects {s3}/versions {folder}/")];
        for service in SERVICES {
            script.push(format!("cp -a {} {folder}/{}", volume(stage, service).await?.display(), service.row().host));
        }
        baseline.stopped(&script.join("; ")).await?;
        Ok(baseline)
    }

    /// Puts the copy in the place of what is there.
    pub async fn put_back(&self) -> Result<()> {
        let (folder, s3) = (self.folder(), self.s3());
        let mut script = vec![format!("rm -rf {s3}/objects {s3}/versions; cp -a {folder}/objects {folder}/versions {s3}/")];
        for service in SERVICES {
            let (at, name) = (volume(self.stage, service).await?, service.row().host);
            let at = at.display();
            script.push(format!("umount {at} 2>/dev/null || true; find {at} -mindepth 1 -delete; cp -a {folder}/{name}/. {at}/"));
        }
        self.stopped(&script.join("; ")).await?;
        for service in SERVICES {
            self.stage.rolled_out(&format!("statefulset/{}", service.row().host)).await?;
        }
        Ok(())
    }

    /// Runs a script while neither the services nor the storage run.
    async fn stopped(&self, script: &str) -> Result<()> {
        for service in SERVICES {
            scale(self.stage, service, 0).await?;
        }
        self.stage.component("stop", "s3").await?;
        let done = shell(self.stage, script);
        self.stage.component("start", "s3").await?;
        for service in SERVICES {
            scale(self.stage, service, 1).await?;
        }
        done.map(drop)
    }

    fn folder(&self) -> String {
        self.stage.state.join("baseline").display().to_string()
    }

    fn s3(&self) -> String {
        self.stage.state.join("s3").display().to_string()
    }
}
