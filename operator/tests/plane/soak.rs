//! Generated histories of a group: whatever happened to it, in the end it looks like a group that was declared so from the start.
//!
//! `make soak N=10000 [SEED=1] [FROM=0]`; one again, with the operator's log: `make soak SEED=1 ONLY=17`. See docs/soak.md.

mod declared;
mod drift;
mod generator;
mod oracle;
mod player;
mod rng;
mod schema;
mod sources;
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use similar::TextDiff;
use tokio::sync::OnceCell;
use tokio::time::sleep;

use self::declared::{Declared, Group};
use self::generator::{Generator, SAME_END, Sequence};
use self::oracle::{Picture, picture, says_it_is_settled};
use self::player::{LIMIT, Player, Stage};

/// How many sequences are played in `make test`.
const COUNT: u64 = 200;
/// How many are played at the same time on one control plane, and how many until it is replaced by a new one.
const SIDE_BY_SIDE: usize = 24;
const A_PLANE: usize = 400;
/// How often a group is looked at, at first, and later. It must look the same twice.
const LOOK: [Duration; 2] = [Duration::from_millis(600), Duration::from_secs(4)];
/// A difference that stays for so long is one.
const PATIENCE: Duration = Duration::from_mins(3);
/// More failures tell nothing new.
const ENOUGH: usize = 10;

/// What is played.
struct Order {
    seed: u64,
    numbers: Vec<u64>,
}

impl Order {
    fn from_environment() -> Self {
        let variable = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
        let number = |name: &str| variable(name).map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")));
        let seed = number("SOAK_SEED").unwrap_or(1);
        let numbers = if let Some(list) = variable("SOAK_ONLY") {
            list.split(',').map(|text| text.trim().parse().expect("SOAK_ONLY is numbers with commas")).collect()
        } else {
            let from = number("SOAK_FROM").unwrap_or(0);
            (from..from + number("SOAK_N").unwrap_or(COUNT)).collect()
        };
        Self { seed, numbers }
    }
}

/// What has come of it so far.
#[derive(Default)]
struct Tally {
    done: usize,
    failures: Vec<String>,
    slowest: Vec<(Duration, u64)>,
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_happened_a_group_ends_as_it_was_declared_last() {
    let Order { seed, numbers } = Order::from_environment();
    let (start, total) = (Instant::now(), numbers.len());
    let generator = Arc::new(Generator::new(seed));
    let tally = Arc::new(Mutex::new(Tally::default()));
    let first = numbers.first().copied().unwrap_or_default();
    eprintln!("soak: seed {seed}, {total} sequences from number {first}");
    for chunk in numbers.chunks(A_PLANE) {
        play_all(&generator, chunk, chunk.first() == numbers.first(), &tally, total).await.unwrap();
        if tally.lock().unwrap().failures.len() >= ENOUGH {
            break;
        }
    }
    let mut tally = tally.lock().unwrap();
    tally.slowest.sort_unstable_by(|a, b| b.cmp(a));
    let slowest: Vec<String> = tally.slowest.iter().take(5).map(|(took, number)| format!("{number} in {} s", took.as_secs())).collect();
    eprintln!("soak: the last declaration took longest in {}", slowest.join(", "));
    let verdict = format!(
        "seed {seed}, {} sequences from number {first} in {} s, {} failed",
        tally.done,
        start.elapsed().as_secs(),
        tally.failures.len()
    );
    eprintln!("soak: {verdict}");
    assert!(tally.failures.is_empty(), "{verdict}\n{}", tally.failures.join("\n"));
    assert_eq!(tally.done, total, "not everything was played");
}

/// Plays sequences side by side on one control plane.
async fn play_all(generator: &Arc<Generator>, numbers: &[u64], is_first: bool, tally: &Arc<Mutex<Tally>>, total: usize) -> Result<()> {
    let start = Instant::now();
    let stage = Stage::new().await?;
    if is_first {
        tests::the_apiserver_agrees_about_what_is_good(&stage, generator).await;
    }
    let ends: Arc<Mutex<HashMap<u64, Arc<OnceCell<String>>>>> = Arc::default();
    futures::stream::iter(numbers.iter().copied())
        .for_each_concurrent(SIDE_BY_SIDE, |number| {
            let (stage, generator, tally, ends) = (Arc::clone(&stage), Arc::clone(generator), Arc::clone(tally), Arc::clone(&ends));
            async move {
                if tally.lock().unwrap().failures.len() >= ENOUGH {
                    return;
                }
                let end = Arc::clone(ends.lock().unwrap().entry(number / SAME_END).or_default());
                let sequence = generator.sequence(number);
                let played = tokio::spawn(async move {
                    let played = play(&stage, &sequence, &end).await;
                    played.map_err(|error| report(&sequence, &error))
                });
                let played = played.await.unwrap_or_else(|panic| Err(format!("sequence {number}: {panic}")));
                note(&tally, number, played, (total, start));
            }
        })
        .await;
    Ok(())
}

fn note(tally: &Mutex<Tally>, number: u64, played: Result<Duration, String>, (total, start): (usize, Instant)) {
    let mut tally = tally.lock().unwrap();
    tally.done += 1;
    match played {
        Ok(took) => tally.slowest.push((took, number)),
        Err(failure) => {
            eprintln!("{failure}");
            tally.failures.push(failure);
        }
    }
    if tally.done.is_multiple_of(10) || tally.done == total {
        let seconds = start.elapsed().as_secs();
        eprintln!("soak: {}/{total}, {} failed, this control plane stands for {seconds} s", tally.done, tally.failures.len());
    }
}

/// Plays one sequence. Answers how long it took after the last step until the group looked as it must.
async fn play(stage: &Stage, sequence: &Sequence, end: &OnceCell<String>) -> Result<Duration> {
    let fresh = Group::fresh(sequence.number / SAME_END);
    let group = Group::of_sequence(sequence.number, &fresh, &sequence.end);
    let mut player = Player::new(stage, &group);
    player.play(sequence).await?;
    let start = Instant::now();
    let wanted = end.get_or_try_init(|| look_fresh(stage, &fresh, &sequence.end)).await?;
    let found = settled(stage, &group, &sequence.end, |picture| picture.text == *wanted).await?;
    if found.text != *wanted {
        let diff = TextDiff::from_lines(wanted.as_str(), &found.text);
        let diff = diff.unified_diff().context_radius(6).header("declared afresh", "after the sequence").to_string();
        bail!("{PATIENCE:?} after the last step the group is not what it would be afresh:\n{diff}\nnot settled: {:?}", found.unsettled);
    }
    player.leave().await?;
    Ok(start.elapsed())
}

/// What a group looks like that is declared so from the start.
async fn look_fresh(stage: &Stage, fresh: &Group, end: &Declared) -> Result<String> {
    let mut player = Player::new(stage, fresh);
    player.declare(end).await.context("the fresh group")?;
    let found = settled(stage, fresh, end, |_| true).await?;
    if !found.unsettled.is_empty() {
        bail!("a group declared afresh is not settled: {:?}", found.unsettled);
    }
    player.leave().await?;
    Ok(found.text)
}

/// Looks at a group until it is settled, is as wanted, and has looked the same twice; or until patience ends.
async fn settled(stage: &Stage, group: &Group, declared: &Declared, is_wanted: impl Fn(&Picture) -> bool) -> Result<Picture> {
    let start = Instant::now();
    let [mut pause, longest] = LOOK;
    let mut before: Option<Picture> = None;
    loop {
        let is_over = start.elapsed() > PATIENCE;
        let is_worth_it = is_over || says_it_is_settled(stage.admin(), group, declared).await.unwrap_or(false);
        let now = if is_worth_it { Some(picture(stage.admin(), &stage.world.backup, group, declared).await) } else { None };
        match now {
            Some(Ok(now)) => {
                let is_good = now.unsettled.is_empty() && is_wanted(&now);
                if is_over || (is_good && before.as_ref() == Some(&now)) {
                    return Ok(now);
                }
                before = is_good.then_some(now);
            }
            Some(Err(error)) if is_over => return Err(error.context("the group cannot be looked at")),
            Some(Err(_)) | None => before = None, // the namespace may not be there yet
        }
        sleep(pause).await;
        pause = (pause * 5 / 4).min(longest);
    }
}

/// Writes the whole sequence into a file, and answers what is wrong with it.
fn report(sequence: &Sequence, error: &anyhow::Error) -> String {
    let Sequence { seed, number, .. } = sequence;
    let file = std::env::temp_dir().join(format!("tsujiban-soak-{seed}-{number}.yaml"));
    let story = serde_saphyr::to_string(sequence).unwrap();
    let written = match std::fs::write(&file, &story) {
        Ok(()) => format!("all of it is in {}", file.display()),
        Err(_) => story,
    };
    format!("sequence {number} of seed {seed} failed (again: make soak SEED={seed} ONLY={number}; {written}): {error:#}")
}

/// `LIMIT` bounds a step, `PATIENCE` what comes after the last one.
const _: () = assert!(LIMIT.as_secs() >= PATIENCE.as_secs());
