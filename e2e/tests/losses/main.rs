//! Losses, damage and clumsy hands on a running cluster: each has to be seen, and healed, within its time. Run by `make test-losses`, which
//! takes the short ones with `ROWS=short`.
//!
//! `LOSSES` says which rows: `short`, `all`, or their names. `LOSSES_DOCUMENT` names the file that gets the table of what came of them.
//! Random combinations under load are made up from `RANDOM_SEED`, for `RANDOM_MINUTES`.

#![allow(clippy::indexing_slicing)] // of JSON: what is not there is null

mod baseline;
mod bucket;
mod load;
mod node;
mod oracle;
mod outcome;
mod random;
mod row;
mod rows;
mod scene;
mod sign;
mod volume;

use std::env;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tsujiban_api::names::SYSTEM_NAMESPACE;
use tsujiban_e2e::stage::Stage;

use crate::baseline::Baseline;
use crate::outcome::Outcome;
use crate::row::{Row, Sign};
use crate::scene::Scene;

/// The first network of a row's group; the networks of other tests are below.
const FIRST_NET: usize = 150;
/// How often it is looked.
const LOOK: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread")]
async fn every_loss_is_seen_and_healed() -> Result<()> {
    let which = env::var("LOSSES").context("LOSSES is not set; run `make test-losses`, or LOSSES=\"NAME ...\" e2e/losses")?;
    // as long as the process
    let stage: &'static Stage = Box::leak(Box::new(Stage::find().await?));
    let wanted = rows::wanted(&which)?;
    let baseline = Baseline::take(stage).await?;
    // the id of a group that was erased is not free again for a long time
    let run = std::process::id() % 10_000;
    let mut outcomes = Vec::new();
    for row in wanted {
        let net = FIRST_NET + rows::all().iter().position(|known| known.id == row.id).unwrap_or_default();
        println!("     {}: {}", row.id, row.input);
        let outcome = try_row(stage, row, &format!("loss{run}-{}", row.id), u8::try_from(net)?).await;
        if !outcome.is_green() {
            print_logs(stage).await?;
            baseline.put_back().await.with_context(|| format!("after row {}", row.id))?;
        }
        println!("{} {}: seen {:?}, healed {:?}", if outcome.is_green() { "ok " } else { "RED" }, row.id, outcome.seen, outcome.healed);
        outcomes.push(outcome);
        if let Ok(path) = env::var("LOSSES_DOCUMENT") {
            outcome::write(Path::new(&path), &outcomes)?;
        }
    }
    let red: Vec<&str> = outcomes.iter().filter(|outcome| !outcome.is_green()).map(|outcome| outcome.id).collect();
    ensure!(red.is_empty(), "{} of {} rows are red: {}", red.len(), outcomes.len(), red.join(" "));
    Ok(())
}

/// What the programs have logged last, and what the Tenants say: with the row's end that is gone.
async fn print_logs(stage: &Stage) -> Result<()> {
    for workload in ["statefulset/tsujiban-audit", "statefulset/tsujiban-backup", "deployment/tsujiban-operator"] {
        let answer = stage.kubectl(&["logs", workload, "-n", SYSTEM_NAMESPACE, "--tail=60"]).await?;
        println!("---- {workload}\n{}{}", answer.out, answer.err);
    }
    let path = "jsonpath={range .items[*].status.conditions[?(@.status!=\"True\")]}{.type} {.reason}: {.message}{\"\\n\"}{end}";
    println!("---- Tenants\n{}", stage.kubectl(&["get", "tenants", "-o", path]).await?.out);
    Ok(())
}

/// One row from beginning to end. What it leaves behind is put right.
async fn try_row(stage: &'static Stage, row: &'static Row, group: &str, net: u8) -> Outcome {
    let mut scene = match Scene::begin(stage, group, net).await {
        Ok(scene) => scene,
        Err(error) => return Outcome::of(row, Err(format!("the row could not begin: {error:#}")), None),
    };
    let seen = see(&mut scene, row).await;
    let healed = heal(&mut scene, row).await;
    let outcome = Outcome::of(row, seen, Some(healed));
    match scene.end().await {
        Ok(()) => outcome,
        Err(error) => Outcome { healed: Some(Err(format!("nothing works afterwards: {error:#}"))), ..outcome },
    }
}

async fn see(scene: &mut Scene, row: &Row) -> Result<u64, String> {
    let since = scene::now(scene.stage).map_err(|error| format!("{error:#}"))?;
    for step in row.steps {
        scene.act(*step).await.map_err(|error| format!("{step:?} could not be done: {error:#}"))?;
    }
    all(scene, row.seen, &since, Duration::from_secs(row.seen_within_s)).await
}

async fn heal(scene: &mut Scene, row: &Row) -> Result<u64, String> {
    let since = scene::now(scene.stage).map_err(|error| format!("{error:#}"))?;
    for step in row.remedy {
        scene.act(*step).await.map_err(|error| format!("{step:?} could not be done: {error:#}"))?;
    }
    let limit = Duration::from_secs(row.healed_within_s);
    let begin = Instant::now();
    let seconds = all(scene, row.healed, &since, limit).await?;
    loop {
        let wrong = match scene.found().await {
            Ok(found) => scene.oracle.wrong(&found, row.loses),
            Err(error) => vec![format!("it cannot be read: {error:#}")],
        };
        if wrong.is_empty() {
            return Ok(seconds.max(begin.elapsed().as_secs()));
        }
        if begin.elapsed() > limit {
            return Err(wrong.join("; "));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Waits until every sign was there once, whatever order they come in. Answers after how many seconds.
async fn all(scene: &mut Scene, signs: &[Sign], since: &str, limit: Duration) -> Result<u64, String> {
    let begin = Instant::now();
    let mut open: Vec<Sign> = signs.to_vec();
    loop {
        let mut why = Vec::new();
        let mut still = Vec::new();
        for sign in open {
            if let Err(error) = sign::look(scene, sign, since).await {
                why.push(format!("{error:#}"));
                still.push(sign);
            }
        }
        open = still;
        if open.is_empty() {
            return Ok(begin.elapsed().as_secs());
        }
        if begin.elapsed() > limit {
            return Err(why.join("; "));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Random combinations of the inputs, under load.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_whatever_comes_together() -> Result<()> {
    let minutes = env::var("RANDOM_MINUTES").context("RANDOM_MINUTES is not set; run `make losses-random`")?;
    let seed: u64 = env::var("RANDOM_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let stage: &'static Stage = Box::leak(Box::new(Stage::find().await?));
    random::run(stage, seed, Duration::from_secs(60 * minutes.parse::<u64>().context("RANDOM_MINUTES")?)).await
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_row_has_a_name_of_its_own_and_something_to_heal() {
        let rows = rows::all();
        let ids: BTreeSet<_> = rows.iter().map(|row| row.id).collect();
        assert_eq!(ids.len(), rows.len());
        for row in &rows {
            assert!(row.id.len() <= 30 && row.id.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'), "{}", row.id);
            assert!(!row.steps.is_empty() && !row.healed.is_empty(), "{}", row.id);
            assert!(row.seen.is_empty() || row.seen_within_s > 0, "{}", row.id);
        }
        assert!(FIRST_NET + rows.len() < 256);
        assert!(rows.iter().any(|row| row.is_short) && rows.iter().any(|row| !row.is_short));
    }

    #[test]
    fn rows_are_chosen_by_name() {
        assert_eq!(rows::wanted("all").unwrap().len(), rows::all().len());
        assert_eq!(rows::wanted("object-flipped spool-byte").unwrap().len(), 2);
        assert!(rows::wanted("short").unwrap().len() < rows::all().len());
        assert!(rows::wanted("nothing-like-that").unwrap_err().to_string().contains("object-flipped"));
    }
}
