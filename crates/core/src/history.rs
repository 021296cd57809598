//! Days of the operation history, which are days in Japan, and how long the entries of a day can be read (C5).

use std::fmt;
use std::str::FromStr;

use jiff::civil::{Date, Time};
use jiff::tz::Offset;
use jiff::{SignedDuration, Span, Timestamp};
use serde::{Deserialize, Serialize};

use crate::commitments::HISTORY;

/// Japan Standard Time, which has no daylight saving time.
pub const JST: Offset = Offset::constant(9);

/// A time in JST for people to read, as RFC 3339 to the second.
pub fn shown(time: Timestamp) -> String {
    format!("{:.0}+09:00", JST.to_datetime(time))
}

/// C5: how long objects of the history are locked in its bucket: longer than any entry can be read, and a month to put them once more.
pub const BUCKET_LOCK: SignedDuration = SignedDuration::from_hours(400 * 24);

/// A JST day. The first one of the Unix epoch has number 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Day(Date);

impl Day {
    /// The day in which a moment lies.
    pub fn of(time: Timestamp) -> Self {
        Self(JST.to_datetime(time).date())
    }

    /// The day with this number of days since 1970-01-01.
    pub fn from_number(number: i64) -> Option<Self> {
        EPOCH.checked_add(Span::new().try_days(number).ok()?).ok().map(Self)
    }

    /// Days since 1970-01-01: what a database stores.
    pub fn number(self) -> i64 {
        self.0.since(EPOCH).map_or(0, |span| i64::from(span.get_days()))
    }

    /// 00:00 JST of this day, which is 15:00 UTC of the day before.
    pub fn starts(self) -> Timestamp {
        JST.to_timestamp(self.0.to_datetime(Time::midnight())).unwrap_or(if self.0 < EPOCH { Timestamp::MIN } else { Timestamp::MAX })
    }

    /// The day `days` later; the last day of the calendar when there is none.
    #[must_use]
    pub fn plus(self, days: i64) -> Self {
        self.number().checked_add(days).and_then(Self::from_number).unwrap_or(Self(Date::MAX))
    }

    /// C5: entries of day D can be read through the end of day D+365, and no longer from this moment, 00:00 JST of D+366.
    pub fn expires_at(self) -> Timestamp {
        const KEPT: u64 = HISTORY.as_secs() / (24 * 60 * 60);
        self.plus(i64::try_from(KEPT).unwrap_or(i64::MAX).saturating_add(1)).starts()
    }

    pub fn is_expired(self, now: Timestamp) -> bool {
        now >= self.expires_at()
    }

    /// The newest day that is expired at `now`; all days before it are expired, too.
    pub fn newest_expired(now: Timestamp) -> Self {
        const GONE: u64 = HISTORY.as_secs() / (24 * 60 * 60) + 1;
        let today = Self::of(now).number();
        today.checked_sub(i64::try_from(GONE).unwrap_or(i64::MAX)).and_then(Self::from_number).unwrap_or(Self(Date::MIN))
    }
}

const EPOCH: Date = Date::constant(1970, 1, 1);

/// `2026-11-26`
impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl From<Day> for String {
    fn from(day: Day) -> Self {
        day.to_string()
    }
}

/// Why a text is not a day or a time of the history.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTime {
    #[error("{0:?} is not a day such as 2026-11-26")]
    Day(String),
    #[error("{0:?} is not a time in JST such as 2026-11-26T09:30:00.000000+09:00")]
    Time(String),
}

impl FromStr for Day {
    type Err = InvalidTime;
    fn from_str(text: &str) -> Result<Self, InvalidTime> {
        let day = text.parse().map(Self).ok();
        day.filter(|day: &Self| day.to_string() == text).ok_or_else(|| InvalidTime::Day(text.chars().take(40).collect()))
    }
}

impl TryFrom<String> for Day {
    type Error = InvalidTime;
    fn try_from(text: String) -> Result<Self, InvalidTime> {
        text.parse()
    }
}

/// A time as the history writes it: RFC 3339 with `+09:00` and microseconds. There is one text for each time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct JstTime(Timestamp);

impl JstTime {
    /// Truncates to microseconds.
    pub fn new(time: Timestamp) -> Self {
        Self(Timestamp::from_microsecond(time.as_microsecond()).unwrap_or(time))
    }

    pub fn timestamp(self) -> Timestamp {
        self.0
    }

    pub fn day(self) -> Day {
        Day::of(self.0)
    }
}

impl From<Timestamp> for JstTime {
    fn from(time: Timestamp) -> Self {
        Self::new(time)
    }
}

impl fmt::Display for JstTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.6}+09:00", JST.to_datetime(self.0))
    }
}

impl From<JstTime> for String {
    fn from(time: JstTime) -> Self {
        time.to_string()
    }
}

impl FromStr for JstTime {
    type Err = InvalidTime;
    fn from_str(text: &str) -> Result<Self, InvalidTime> {
        let time = text.parse::<Timestamp>().map(Self).ok();
        time.filter(|time| time.to_string() == text).ok_or_else(|| InvalidTime::Time(text.chars().take(40).collect()))
    }
}

impl TryFrom<String> for JstTime {
    type Error = InvalidTime;
    fn try_from(text: String) -> Result<Self, InvalidTime> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use jiff::{SignedDuration, ToSpan};

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn day(text: &str) -> Day {
        text.parse().unwrap()
    }

    #[test]
    fn a_day_begins_at_fifteen_utc() {
        assert_eq!(Day::of(at("2026-11-25T14:59:59.999999Z")), day("2026-11-25"));
        assert_eq!(Day::of(at("2026-11-25T15:00:00Z")), day("2026-11-26"));
        assert_eq!(day("2026-11-26").starts(), at("2026-11-25T15:00:00Z"));
    }

    /// C5: readable through the end of D+365, unreadable from 00:00 JST of D+366.
    #[test]
    fn a_day_is_readable_through_day_365_and_not_after() {
        for (done, gone) in
            [("2026-11-26", "2027-11-27"), ("2023-03-01", "2024-03-01"), ("2024-02-29", "2025-03-01"), ("2024-02-28", "2025-02-28")]
        {
            let (done, gone) = (day(done), day(gone));
            assert_eq!(done.plus(366), gone);
            assert_eq!(done.expires_at(), gone.starts());
            assert!(!done.is_expired(gone.starts() - SignedDuration::from_nanos(1)));
            assert!(done.is_expired(gone.starts()));
            assert_eq!(Day::newest_expired(gone.starts()), done);
            assert_eq!(Day::newest_expired(gone.starts() - SignedDuration::from_nanos(1)).plus(1), done);
        }
        assert_eq!(HISTORY.as_secs(), 365 * 24 * 60 * 60);
    }

    #[test]
    fn days_are_numbered_from_the_epoch() {
        assert_eq!((day("1970-01-01").number(), day("2026-11-26").number(), day("1969-12-31").number()), (0, 20_783, -1));
        assert_eq!(Day::from_number(20_783), Some(day("2026-11-26")));
        assert_eq!((Day::from_number(i64::MAX), Day::from_number(i64::MIN)), (None, None));
    }

    #[test]
    fn the_ends_of_time_are_days_too() {
        assert_eq!(day("9999-12-31").expires_at(), day("9999-12-31").starts());
        assert!(!Day::of(Timestamp::MAX).is_expired(at("2026-01-01T00:00:00Z")));
        assert!(Day::of(Timestamp::MIN).is_expired(at("2026-01-01T00:00:00Z")));
        assert!(Day::newest_expired(Timestamp::MIN) <= Day::of(Timestamp::MIN));
    }

    #[test]
    fn a_time_has_one_text() {
        let text = "2026-11-26T00:00:00.000001+09:00";
        assert_eq!(JstTime::new(at("2026-11-25T15:00:00.000001999Z")).to_string(), text);
        assert_eq!(text.parse::<JstTime>().unwrap().timestamp(), at("2026-11-25T15:00:00.000001Z"));
        assert_eq!(text.parse::<JstTime>().unwrap().day(), day("2026-11-26"));
        for other in [
            "2026-11-25T15:00:00.000001Z",
            "2026-11-26T00:00:00+09:00",
            "2026-11-26t00:00:00.000001+09:00",
            "2026-11-26T00:00:00.0000010+09:00",
        ] {
            assert!(other.parse::<JstTime>().is_err(), "{other}");
        }
        for other in ["2026-11-26 ", "20261126", "2026-11-31", "+002026-11-26", ""] {
            assert!(other.parse::<Day>().is_err(), "{other}");
        }
    }

    #[test]
    fn every_hour_of_ten_years_lies_in_its_day() {
        let mut time = at("2023-01-01T00:00:00Z");
        while time < at("2033-01-01T00:00:00Z") {
            let day = Day::of(time);
            assert!(day.starts() <= time && time < day.plus(1).starts());
            assert_eq!(Day::from_number(day.number()), Some(day));
            time = time.checked_add(1.hour()).unwrap();
        }
    }
}
