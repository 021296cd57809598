//! Each bad manifest is refused by the apiserver with a sentence that says what to change.

use std::fs;

use anyhow::{Context, Result, ensure};
use tsujiban_e2e::manifests::Group;
use tsujiban_e2e::stage::Stage;

#[tokio::test(flavor = "multi_thread")]
async fn each_is_refused_with_what_to_change() -> Result<()> {
    let stage = Stage::find().await?;
    let _together = Stage::together().await;
    let group = Group::create(&stage, "manifests", 61).await?;
    let folder = stage.checkout.join("e2e/testdata/bad-manifests");
    let mut files: Vec<_> = fs::read_dir(&folder)?.map(|entry| entry.map(|e| e.path())).collect::<Result<_, _>>()?;
    files.sort();
    ensure!(files.len() >= 30, "only {} manifests in {}", files.len(), folder.display());
    let mut wrong = Vec::new();
    for file in &files {
        let text = fs::read_to_string(file)?;
        let comment = |key: &str| text.lines().find_map(|line| line.strip_prefix("# ")?.strip_prefix(key)?.strip_prefix(": "));
        let expected = comment("expect").with_context(|| format!("{} has no `# expect: ` line", file.display()))?;
        let path = file.to_string_lossy();
        let mut arguments = vec!["apply", "--dry-run=server", "-f", &path];
        if let Some(user) = comment("as") {
            arguments.extend(["--as", user]);
        }
        let answer = stage.kubectl(&arguments).await?;
        if answer.code == 0 || !answer.err.contains(expected) {
            wrong.push(format!("{}: expected {expected:?}, got {}{}", file.display(), answer.out, answer.err));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    group.erase().await
}
