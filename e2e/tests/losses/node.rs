//! The node of our cluster: volumes, processes and metrics, past Kubernetes.

use std::fs::{self, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use tsujiban_core::workload::{Service, Workload};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tsujiban_api::names::SYSTEM_NAMESPACE;
use tsujiban_e2e::inside::Inside;
use tsujiban_e2e::stage::Stage;

/// Runs a script of the shell on the node.
pub fn shell(stage: &Stage, script: &str) -> Result<String> {
    let output = Inside::enter(stage).args(["sh", "-euc", script]).output().context("enter")?;
    ensure!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Where a service's volume lies.
pub async fn volume(stage: &Stage, service: Service) -> Result<PathBuf> {
    let claim = format!("data-{}-0", service.row().host);
    let claim = stage.kubectl(&["get", "persistentvolumeclaim", &claim, "-n", SYSTEM_NAMESPACE, "-o", "json"]).await?.ok()?.json()?;
    Ok(stage.state.join("volumes").join(claim["spec"]["volumeName"].as_str().context("the claim has no volume")?))
}

/// Changes how many pods a service has. Waits until none is left, never until one is ready: that is what is looked at.
pub async fn scale(stage: &Stage, service: Service, replicas: u32) -> Result<()> {
    let (set, wanted) = (format!("statefulset/{}", service.row().host), format!("--replicas={replicas}"));
    stage.kubectl(&["scale", &set, "-n", SYSTEM_NAMESPACE, &wanted]).await?.ok()?;
    let reached = format!("--for=jsonpath={{.status.replicas}}={replicas}");
    stage.kubectl(&["wait", &set, "-n", SYSTEM_NAMESPACE, &reached, "--timeout=120s"]).await?.ok()?;
    Ok(())
}

/// The newest pod of a workload of ours; `None` when there is none.
pub async fn pod(stage: &Stage, workload: Workload) -> Result<Option<Value>> {
    let selector = format!("app.kubernetes.io/part-of=tsujiban,app.kubernetes.io/component={}", workload.name());
    let listed = stage.kubectl(&["get", "pods", "-n", SYSTEM_NAMESPACE, "-l", &selector, "-o", "json"]).await?.ok()?.json()?;
    let mut pods = listed["items"].as_array().cloned().unwrap_or_default();
    pods.sort_by_key(|pod| pod["metadata"]["creationTimestamp"].as_str().map(str::to_owned));
    Ok(pods.pop())
}

/// Ends the processes of a workload's container by signal 9, found by the container's own id.
pub async fn kill(stage: &Stage, workload: Workload) -> Result<()> {
    let pod = pod(stage, workload).await?.with_context(|| format!("{workload:?} has no pod"))?;
    let id = pod["status"]["containerStatuses"][0]["containerID"].as_str().and_then(|id| id.rsplit_once("//")).map(|(_, id)| id);
    let id = id.with_context(|| format!("{workload:?} runs in no container"))?;
    ensure!(id.len() > 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id:?} is no id of a container");
    let script =
        format!("for process in /proc/[0-9]*; do if grep -qs {id} $process/cgroup; then kill -9 ${{process#/proc/}} || true; fi; done");
    shell(stage, &script)?;
    Ok(())
}

/// The metrics that a workload exports now.
pub async fn metrics(stage: &Stage, workload: Workload) -> Result<String> {
    let pod = pod(stage, workload).await?.with_context(|| format!("{workload:?} has no pod"))?;
    let ip = pod["status"]["podIP"].as_str().with_context(|| format!("{workload:?} has no address"))?;
    shell(stage, &format!("curl -fsS -m 5 http://{ip}:9090/metrics"))
}

/// The sum over the labels of a metric; `None` when it is not exported.
pub fn sum(metrics: &str, name: &str) -> Option<f64> {
    let values = metrics.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        if !rest.starts_with([' ', '{']) {
            return None;
        }
        rest.rsplit_once(' ')?.1.parse::<f64>().ok()
    });
    values.fold(None, |sum, value| Some(sum.unwrap_or_default() + value))
}

/// What a workload logged since a time, also before its container was started again.
pub async fn logs(stage: &Stage, workload: Workload, since: &str) -> Result<String> {
    let Some(pod) = pod(stage, workload).await? else { return Ok(String::new()) };
    let (name, since) = (pod["metadata"]["name"].as_str().unwrap_or_default().to_owned(), format!("--since-time={since}"));
    let now = stage.kubectl(&["logs", &name, "-n", SYSTEM_NAMESPACE, &since]).await?;
    let before = stage.kubectl(&["logs", &name, "-n", SYSTEM_NAMESPACE, &since, "--previous"]).await?;
    Ok(format!("{}{}", before.out, now.out))
}

/// Changes one bit in the middle of a file, in place, so that its attributes stay.
pub fn flip(path: &Path) -> Result<()> {
    let mut file = OpenOptions::new().read(true).write(true).open(path).with_context(|| path.display().to_string())?;
    let middle = file.metadata()?.len() / 2;
    let mut byte = [0];
    file.seek(SeekFrom::Start(middle))?;
    file.read_exact(&mut byte)?;
    file.seek(SeekFrom::Start(middle))?;
    file.write_all(&byte.map(|byte| byte ^ 1))?;
    Ok(file.sync_all()?)
}

/// Gives two files each other's contents, in place.
pub fn swap_contents(one: &Path, other: &Path) -> Result<()> {
    let (first, second) = (fs::read(one)?, fs::read(other)?);
    for (path, contents) in [(one, second), (other, first)] {
        let mut file = OpenOptions::new().write(true).truncate(true).open(path)?;
        file.write_all(&contents)?;
    }
    Ok(())
}

/// Gives two files each other's names.
pub fn swap_files(one: &Path, other: &Path) -> Result<()> {
    let aside = one.with_extension("aside");
    fs::rename(one, &aside)?;
    fs::rename(other, one)?;
    Ok(fs::rename(aside, other)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_summed_over_its_labels_and_never_another_one() {
        let text = "# TYPE a gauge\na{x=\"1\"} 2\na{x=\"2\"} 3\nab 7\nb 0\n";
        assert_eq!((sum(text, "a"), sum(text, "b"), sum(text, "c")), (Some(5.0), Some(0.0), None));
    }

    #[test]
    fn files_are_changed_in_place() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (folder.path().join("one"), folder.path().join("other"));
        fs::write(&one, b"abc").unwrap();
        fs::write(&other, b"0123456").unwrap();
        flip(&one).unwrap();
        assert_eq!(fs::read(&one).unwrap(), b"acc");
        swap_contents(&one, &other).unwrap();
        assert_eq!((fs::read(&one).unwrap().as_slice(), fs::read(&other).unwrap().as_slice()), (&b"0123456"[..], &b"acc"[..]));
        swap_files(&one, &other).unwrap();
        assert_eq!(fs::read(&one).unwrap(), b"acc");
    }
}
