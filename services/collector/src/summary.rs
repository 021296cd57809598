//! The summary of a run, for people.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use tsujiban_core::id::GroupId;

use crate::outcome::{Finished, Outcome};

/// Of larger groups only the devices that were not backed up are listed, and of those this many.
const LINES: usize = 200;
/// What Kubernetes keeps of a termination message.
pub const TERMINATION_BYTES: usize = 4096;

/// The result of a run.
#[derive(Debug)]
pub struct Summary<'a> {
    pub group: &'a GroupId,
    pub finished: &'a [Finished],
    pub took: Duration,
}

impl Summary<'_> {
    /// A line a device, then the totals.
    pub fn text(&self) -> String {
        let all = self.finished.len() <= LINES;
        let shown: Vec<&Finished> = self.finished.iter().filter(|device| all || !is_well(device)).collect();
        let mut text = String::new();
        for line in lines(&shown).take(LINES) {
            let _ = writeln!(text, "{line}");
        }
        if shown.len() > LINES {
            let _ = writeln!(text, "... and {} more that were not backed up", shown.len() - LINES);
        }
        text + &self.totals() + "\n"
    }

    /// The same in as many bytes as Kubernetes keeps: the totals, then the devices, those first that were not backed up.
    pub fn termination(&self) -> String {
        let mut shown: Vec<&Finished> = self.finished.iter().collect();
        shown.sort_by_key(|device| is_well(device));
        let mut text = self.totals() + "\n";
        for line in lines(&shown) {
            if text.len() + line.len() >= TERMINATION_BYTES {
                break;
            }
            text += &line;
            text.push('\n');
        }
        text
    }

    /// One line such as `acme: 3 devices in 21.3 s: 1 changed, 1 unchanged, 1 Timeout`.
    pub fn totals(&self) -> String {
        let mut counts: BTreeMap<(u8, &str), usize> = BTreeMap::from([((0, "changed"), 0), ((1, "unchanged"), 0)]);
        for device in self.finished {
            *counts.entry((rank(device), word(device))).or_default() += 1;
        }
        let counts: Vec<String> = counts.into_iter().map(|((_, word), count)| format!("{count} {word}")).collect();
        let number = self.finished.len();
        let devices = if number == 1 { "device" } else { "devices" };
        let mut text = format!("{}: {number} {devices} in {}: {}", self.group, seconds(self.took), counts.join(", "));
        let unrecorded = self.finished.iter().filter(|device| !device.recorded && device.outcome != Outcome::Interrupted).count();
        if unrecorded > 0 {
            let _ = write!(text, "; the backup service could not be told about {unrecorded} of them");
        }
        text
    }

    /// Whether devices had their turn and the backup service could record none of their attempts.
    pub fn nothing_recorded(&self) -> bool {
        let mut tried = self.finished.iter().filter(|device| device.outcome != Outcome::Interrupted).peekable();
        tried.peek().is_some() && tried.all(|device| !device.recorded)
    }

    /// Whether the collection was stopped before all devices had their turn.
    pub fn interrupted(&self) -> bool {
        self.finished.iter().any(|device| device.outcome == Outcome::Interrupted)
    }
}

/// Aligned lines such as `tokyo-1  changed  12.3 KiB  0.8 s`.
fn lines<'a>(devices: &'a [&'a Finished]) -> impl Iterator<Item = String> + 'a {
    let name = devices.iter().map(|device| device.device.as_str().len()).max().unwrap_or_default();
    let result = devices.iter().map(|device| word(device).len()).max().unwrap_or_default();
    devices.iter().map(move |device| format!("{:name$}  {:result$}  {}", device.device.as_str(), word(device), detail(device)))
}

fn detail(device: &Finished) -> String {
    match &device.outcome {
        Outcome::Changed { bytes } | Outcome::Unchanged { bytes } => format!("{:>10}  {:>6}", size(*bytes), seconds(device.took)),
        Outcome::Failed(failure) if device.recorded => failure.message.clone(),
        Outcome::Failed(failure) => format!("{} (not recorded)", failure.message),
        Outcome::Erased => "deleted in the meantime; nothing of it is stored".to_owned(),
        Outcome::Interrupted => "told to stop; the next run tries again".to_owned(),
    }
}

fn word(device: &Finished) -> &'static str {
    match &device.outcome {
        Outcome::Changed { .. } => "changed",
        Outcome::Unchanged { .. } => "unchanged",
        Outcome::Failed(failure) => failure.reason.as_str(),
        Outcome::Erased => "erased",
        Outcome::Interrupted => "interrupted",
    }
}

fn rank(device: &Finished) -> u8 {
    match &device.outcome {
        Outcome::Changed { .. } => 0,
        Outcome::Unchanged { .. } => 1,
        Outcome::Erased => 2,
        Outcome::Failed(_) => 3,
        Outcome::Interrupted => 4,
    }
}

/// Whether the device is backed up, or was erased and needs no backup.
fn is_well(device: &Finished) -> bool {
    rank(device) < 3
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f32())
}

fn size(bytes: u64) -> String {
    let (unit, name) = match bytes {
        0..1024 => return format!("{bytes} B"),
        1024..0x10_0000 => (1024, "KiB"),
        _ => (0x10_0000, "MiB"),
    };
    let tenths = bytes.saturating_mul(10) / unit;
    format!("{}.{} {name}", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use tsujiban_core::outcome::Reason;

    use super::*;
    use crate::outcome::Failure;

    fn finished(name: &str, outcome: Outcome) -> Finished {
        Finished { device: name.parse().unwrap(), outcome, took: Duration::from_millis(812), recorded: true }
    }

    fn timeout(name: &str) -> Finished {
        finished(name, Outcome::Failed(Failure::new(Reason::Timeout, "no answer from 172.20.1.12:22 within 20 s; check power and network")))
    }

    fn summary<'a>(group: &'a GroupId, finished: &'a [Finished]) -> Summary<'a> {
        Summary { group, finished, took: Duration::from_secs(21) }
    }

    #[test]
    fn a_person_can_read_it() {
        let group = "acme".parse().unwrap();
        let devices = [
            finished("nagoya-core-1", Outcome::Unchanged { bytes: 153_000 }),
            timeout("osaka-1"),
            finished("tokyo-1", Outcome::Changed { bytes: 12_600 }),
        ];
        let text = "\
nagoya-core-1  unchanged   149.4 KiB   0.8 s
osaka-1        Timeout    no answer from 172.20.1.12:22 within 20 s; check power and network
tokyo-1        changed      12.3 KiB   0.8 s
acme: 3 devices in 21.0 s: 1 changed, 1 unchanged, 1 Timeout
";
        assert_eq!(summary(&group, &devices).text(), text);
        assert!(
            summary(&group, &devices).termination().starts_with("acme: 3 devices in 21.0 s: 1 changed, 1 unchanged, 1 Timeout\nosaka-1 ")
        );
    }

    #[test]
    fn a_large_group_fits_and_its_failures_come_first() {
        let group = "acme".parse().unwrap();
        let mut devices: Vec<Finished> = (0..900).map(|i| finished(&format!("good-{i}"), Outcome::Unchanged { bytes: 5 << 20 })).collect();
        devices.extend((0..300).map(|i| timeout(&format!("dead-{i}"))));
        let summary = summary(&group, &devices);
        let termination = summary.termination();
        assert!(termination.len() <= TERMINATION_BYTES && termination.len() > 3900);
        assert!(termination.starts_with("acme: 1200 devices in 21.0 s: 0 changed, 900 unchanged, 300 Timeout\ndead-0"));
        let text = summary.text();
        assert!(!text.contains("good-") && text.contains("... and 100 more that were not backed up\nacme: 1200 devices"));
    }

    #[test]
    fn an_erased_device_is_no_failure() {
        let group = "acme".parse().unwrap();
        let mut devices: Vec<Finished> = (0..LINES).map(|i| timeout(&format!("dead-{i}"))).collect();
        devices.push(finished("gone-1", Outcome::Erased));
        assert!(!summary(&group, &devices).text().contains("gone-1"), "only failures are listed of a large group");
        let summary = summary(&group, &devices[LINES - 1..]);
        assert!(summary.text().contains("gone-1    erased   deleted in the meantime; nothing of it is stored\n"), "{}", summary.text());
        assert_eq!(summary.totals(), "acme: 2 devices in 21.0 s: 0 changed, 0 unchanged, 1 erased, 1 Timeout");
        assert!(!summary.nothing_recorded() && !summary.interrupted());
    }

    #[test]
    fn what_could_not_be_recorded_is_said() {
        let group = "acme".parse().unwrap();
        let mut devices = [timeout("osaka-1"), finished("tokyo-1", Outcome::Interrupted)];
        assert!(!summary(&group, &devices).nothing_recorded());
        devices[0].recorded = false;
        let summary = summary(&group, &devices);
        assert!(summary.nothing_recorded() && summary.interrupted());
        assert!(
            summary.totals().ends_with("1 Timeout, 1 interrupted; the backup service could not be told about 1 of them"),
            "{}",
            summary.totals()
        );
    }
}
