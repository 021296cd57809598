//! The files of the S3 gateway: what nobody but a broken disk or an intruder touches.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Command;
use tsujiban_core::workload::Service;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tsujiban_e2e::stage::Stage;

use crate::node::{flip, swap_contents, swap_files};
use crate::row::{Damage, Pick, bucket};

/// What a cut takes from the end, in bytes.
const CUT: u64 = 100;

/// Damages the objects that are picked. `snapshots` are those of the group, newest first.
pub fn damage(stage: &Stage, pick: Pick, damage: Damage, snapshots: &[Value]) -> Result<()> {
    let files = picked(stage, pick, snapshots)?;
    if let (Damage::SwapContents | Damage::SwapFiles, [one, other]) = (damage, files.as_slice()) {
        return if matches!(damage, Damage::SwapFiles) { swap_files(one, other) } else { swap_contents(one, other) };
    }
    for file in &files {
        match damage {
            Damage::Flip => flip(file)?,
            Damage::FlipUnsummed => {
                flip(file)?;
                forget_checksum(file)?;
            }
            Damage::Cut => {
                let opened = OpenOptions::new().write(true).open(file)?;
                opened.set_len(opened.metadata()?.len().saturating_sub(CUT))?;
            }
            Damage::Empty => OpenOptions::new().write(true).open(file)?.set_len(0)?,
            Damage::Remove => fs::remove_file(file)?,
            Damage::Keep => copy(file, &kept(stage, file)?)?,
            Damage::Older => copy(&kept(stage, file)?, file)?,
            Damage::CopyAhead(by) => copy_ahead(file, by)?,
            Damage::SwapContents | Damage::SwapFiles => anyhow::bail!("{} objects cannot be swapped", files.len()),
        }
    }
    Ok(())
}

fn picked(stage: &Stage, pick: Pick, snapshots: &[Value]) -> Result<Vec<PathBuf>> {
    let bucket = |service: Service| stage.state.join("s3/objects").join(bucket(service));
    let of_device: Vec<&str> = snapshots.iter().filter(|s| s["device"] == "core-1").filter_map(|s| s["id"].as_str()).collect();
    let object = |id: Option<&&str>| -> Result<PathBuf> {
        let id = id.context("the device has too few snapshots")?;
        let all = files(&bucket(Service::Backup))?;
        all.into_iter().find(|path| path.file_name().is_some_and(|name| name == *id)).with_context(|| format!("no object of snapshot {id}"))
    };
    Ok(match pick {
        Pick::Newest => vec![object(of_device.first())?],
        Pick::Oldest => vec![object(of_device.last())?],
        Pick::Both => vec![object(of_device.get(1))?, object(of_device.first())?],
        Pick::All => files(&bucket(Service::Backup))?,
        Pick::KeyTable => vec![bucket(Service::Backup).join("key-table")],
        Pick::RootList => lists(&bucket(Service::Audit))?.pop().into_iter().collect(),
        Pick::RootLists => lists(&bucket(Service::Audit))?,
    })
}

/// The root lists, oldest first.
fn lists(bucket: &Path) -> Result<Vec<PathBuf>> {
    let mut lists = files(&bucket.join("roots"))?;
    lists.sort();
    ensure!(!lists.is_empty(), "there is no root list yet");
    Ok(lists)
}

/// All files below a folder, but not the gateway's own.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        if entry.file_type()?.is_dir() { found.extend(files(&entry.path())?) } else { found.push(entry.path()) }
    }
    Ok(found)
}

/// Takes the checksum of an object's contents away, which the gateway keeps as an attribute of the file.
fn forget_checksum(file: &Path) -> Result<()> {
    let attributes =
        Command::new("getfattr").args(["--absolute-names", "--match", "[Cc]hecksum"]).arg(file).output().context("getfattr")?;
    ensure!(attributes.status.success(), "getfattr {}: {}", file.display(), String::from_utf8_lossy(&attributes.stderr));
    let names = String::from_utf8_lossy(&attributes.stdout).into_owned();
    let names: Vec<_> = names.lines().filter(|line| line.starts_with("user.")).collect();
    ensure!(!names.is_empty(), "{} has no checksum", file.display());
    for name in names {
        let removed = Command::new("setfattr").args(["--remove", name]).arg(file).status()?;
        ensure!(removed.success(), "setfattr --remove {name} {}: {removed}", file.display());
    }
    Ok(())
}

/// Copies a numbered object, with its attributes, to a number that is so much higher.
fn copy_ahead(file: &Path, by: u64) -> Result<()> {
    let name = file.file_name().and_then(|name| name.to_str()).context("no name")?;
    let number: u64 = name.parse().with_context(|| format!("{name} is no number"))?;
    copy(file, &file.with_file_name(format!("{:0width$}", number + by, width = name.len())))
}

/// Where a copy of an object is kept: outside the bucket.
fn kept(stage: &Stage, file: &Path) -> Result<PathBuf> {
    Ok(stage.state.join("s3").join(format!("{}.kept", file.file_name().and_then(|name| name.to_str()).context("no name")?)))
}

/// Copies a file with its attributes, over what is there.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let copied = Command::new("cp").arg("--archive").args([from, to]).status()?;
    ensure!(copied.success(), "cp {}: {copied}", to.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_copied_to_a_later_number() {
        let folder = tempfile::tempdir().unwrap();
        let list = folder.path().join("000000000009");
        fs::write(&list, b"x").unwrap();
        copy_ahead(&list, 1).unwrap();
        assert!(folder.path().join("000000000010").exists());
        fs::create_dir(folder.path().join(".sgwtmp")).unwrap();
        assert_eq!(files(folder.path()).unwrap().len(), 2);
    }
}
