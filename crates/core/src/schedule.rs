//! When a group's backup runs, and when it is late.

use std::time::Duration;

use croner::Cron;
use croner::parser::CronParser;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// A backup plan that cannot be kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSchedule {
    #[error("schedule {0:?} is not five cron fields as a CronJob takes them; write for example \"0 2 * * *\"")]
    Cron(String),
    #[error("time zone {0:?} is unknown; write an IANA name such as \"Asia/Tokyo\"")]
    TimeZone(String),
}

/// A checked plan: a cron expression in a time zone, and how long the window is that it opens.
#[derive(Debug, Clone)]
pub struct Plan {
    fields: [String; 5],
    cron: Cron,
    zone: TimeZone,
    zone_name: String,
    window: Duration,
}

impl Plan {
    pub fn new(schedule: &str, time_zone: &str, window_minutes: u32) -> Result<Self, InvalidSchedule> {
        let invalid = || InvalidSchedule::Cron(schedule.to_owned());
        let fields: Vec<String> = schedule.split_whitespace().map(str::to_owned).collect();
        let fields: [String; 5] = fields.try_into().map_err(|_| invalid())?;
        if !fields.iter().zip(FIELDS).all(|(text, field)| field.takes(text)) {
            return Err(invalid());
        }
        let cron = CronParser::builder().build().parse(schedule).map_err(|_| invalid())?;
        // Kubernetes distinguishes upper and lower case in the names of zones
        let zone = TimeZone::get(time_zone).ok().filter(|zone| zone.iana_name() == Some(time_zone) && !zone.is_unknown());
        let zone = zone.ok_or_else(|| InvalidSchedule::TimeZone(time_zone.to_owned()))?;
        let window = Duration::from_secs(u64::from(window_minutes) * 60);
        Ok(Self { fields, cron, zone, zone_name: time_zone.to_owned(), window })
    }

    pub fn time_zone(&self) -> &str {
        &self.zone_name
    }

    /// The group's own schedule: the plan's, moved by a number of minutes that is derived from the group's name, so that a thousand groups
    /// with the same plan do not start in the same minute. Stays in the first half of the window and in the same hour. Returned with the
    /// minutes that remain of the window.
    pub fn own(&self, group: &str) -> (String, u32) {
        let window = u32::try_from(self.window.as_secs() / 60).unwrap_or(u32::MAX);
        let [minute, rest @ ..] = &self.fields;
        let offset = match minute.parse::<u32>() {
            Ok(start) if start < 60 => spread(group, (window / 2).min(59 - start)),
            _ => 0, // "*" or "*/5": there is no single minute to move
        };
        let own = match minute.parse::<u32>() {
            Ok(start) => format!("{} {}", start + offset, rest.join(" ")),
            Err(_) => self.fields.join(" "),
        };
        (own, window.saturating_sub(offset))
    }

    /// The start of the newest window that has passed as a whole, with `grace`, at `now`.
    /// `None` when no such moment is found in the past year.
    pub fn last_closed(&self, now: Timestamp, grace: Duration) -> Option<Timestamp> {
        let margin = SignedDuration::try_from(self.window + grace).ok()?;
        let latest = now.checked_sub(margin).ok()?.to_zoned(self.zone.clone());
        self.cron.find_previous_occurrence(&latest, true).ok().map(|z| z.timestamp())
    }

    /// Whether a device last backed up at `last` has missed no window. A device younger than the newest closed window has missed none.
    pub fn is_fresh(&self, last: Option<Timestamp>, created: Timestamp, now: Timestamp, grace: Duration) -> bool {
        match self.last_closed(now, grace) {
            None => true,
            Some(due) => created > due || last.is_some_and(|at| at >= due),
        }
    }
}

/// What a field of a CronJob's schedule may name. Kubernetes accepts neither 7 for Sunday nor L, W and #, which other programs do.
#[derive(Debug, Clone, Copy)]
struct Field {
    least: usize,
    most: usize,
    /// The names of the numbers from `least` on.
    names: &'static [&'static str],
}

const FIELDS: [Field; 5] = [
    Field { least: 0, most: 59, names: &[] },
    Field { least: 0, most: 23, names: &[] },
    Field { least: 1, most: 31, names: &[] },
    Field { least: 1, most: 12, names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"] },
    Field { least: 0, most: 6, names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"] },
];

impl Field {
    /// Lists of numbers, names, ranges and `*`, each with a step or without.
    fn takes(self, text: &str) -> bool {
        text.split(',').all(|part| {
            let (range, step) = part.split_once('/').unwrap_or((part, "1"));
            let is_range = match range.split_once('-') {
                Some((from, to)) => matches!((self.number(from), self.number(to)), (Some(from), Some(to)) if from <= to),
                None => range == "*" || self.number(range).is_some(),
            };
            is_range && step.parse::<u32>().is_ok_and(|step| step > 0)
        })
    }

    fn number(self, text: &str) -> Option<usize> {
        let named = self.names.iter().position(|name| text.eq_ignore_ascii_case(name)).map(|at| at + self.least);
        named.or_else(|| text.parse().ok()).filter(|number| (self.least..=self.most).contains(number))
    }
}

/// A number from 0 to `most`, the same for the same name for ever (FNV-1a with the finaliser of MurmurHash3, 64 bits).
fn spread(name: &str, most: u32) -> u32 {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    let mixed = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    u32::try_from((mixed >> 33) % (u64::from(most) + 1)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: &str) -> Timestamp {
        s.parse().unwrap()
    }

    #[test]
    fn groups_spread_over_the_first_half_of_the_window() {
        let plan = Plan::new("0 2 * * *", "Asia/Tokyo", 30).unwrap();
        let minutes: std::collections::BTreeSet<u32> = (0..200)
            .map(|i| {
                let (own, left) = plan.own(&format!("group-{i}"));
                let minute: u32 = own.split(' ').next().unwrap().parse().unwrap();
                assert!(own.ends_with(" 2 * * *"), "{own}");
                assert_eq!(minute + left, 30);
                minute
            })
            .collect();
        assert_eq!((minutes.first(), minutes.last(), minutes.len()), (Some(&0), Some(&15), 16));
    }

    #[test]
    fn the_last_minutes_of_an_hour_do_not_spill_over() {
        let (own, _) = Plan::new("59 23 * * 1", "UTC", 60).unwrap().own("acme");
        assert_eq!(own, "59 23 * * 1");
        let (own, left) = Plan::new("*/5 * * * *", "UTC", 5).unwrap().own("acme");
        assert_eq!((own.as_str(), left), ("*/5 * * * *", 5));
    }

    #[test]
    fn freshness_follows_the_window_in_its_time_zone() {
        let plan = Plan::new("0 2 * * *", "Asia/Tokyo", 30).unwrap();
        let grace = Duration::from_mins(15);
        let old = at("2026-01-01T00:00:00Z");
        // 02:00 JST of the 11th is 17:00Z of the 10th; with window and grace it is closed at 17:45Z.
        let yesterday = Some(at("2026-02-09T17:10:00Z"));
        assert!(plan.is_fresh(yesterday, old, at("2026-02-10T17:44:59Z"), grace));
        assert!(!plan.is_fresh(yesterday, old, at("2026-02-10T17:45:00Z"), grace));
        assert!(plan.is_fresh(Some(at("2026-02-10T17:01:00Z")), old, at("2026-02-10T17:45:00Z"), grace));
        assert!(plan.is_fresh(None, at("2026-02-10T17:30:00Z"), at("2026-02-10T18:00:00Z"), grace));
        assert!(!plan.is_fresh(None, old, at("2026-02-10T18:00:00Z"), grace));
    }

    #[test]
    fn bad_plans_say_what_to_write() {
        for bad in ["", "0 2 * *", "0 2 * * * *", "61 2 * * *", "@daily", "a b c d e"] {
            assert!(matches!(Plan::new(bad, "UTC", 30), Err(InvalidSchedule::Cron(_))), "{bad}");
        }
        assert!(matches!(Plan::new("0 2 * * *", "Asia/Edo", 30), Err(InvalidSchedule::TimeZone(_))));
    }

    /// A CronJob that the apiserver refuses would keep the group half built.
    #[test]
    fn what_kubernetes_does_not_understand_is_refused() {
        for bad in [
            "0 2 L * *",
            "0 2 15W * *",
            "0 2 * * 7",
            "0 2 * * 5#1",
            "5-1 2 * * *",
            "*/0 2 * * *",
            "0 2 0 * *",
            "0 2 * * SUN-",
            "0,,1 2 * * *",
        ] {
            assert!(matches!(Plan::new(bad, "UTC", 30), Err(InvalidSchedule::Cron(_))), "{bad}");
        }
        for good in ["00 02 * * sun", "*/5 1-5/2 1,15 JAN,jul MON-FRI"] {
            assert!(Plan::new(good, "UTC", 30).is_ok(), "{good}");
        }
        for bad in ["asia/tokyo", "utc", "Etc/Unknown", "JST"] {
            assert!(matches!(Plan::new("0 2 * * *", bad, 30), Err(InvalidSchedule::TimeZone(_))), "{bad}");
        }
        for good in ["Asia/Tokyo", "UTC", "Etc/GMT+9", "EST5EDT", "America/Argentina/Ushuaia"] {
            assert!(Plan::new("0 2 * * *", good, 30).is_ok(), "{good}");
        }
    }
}
