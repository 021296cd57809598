//! Spans of time, as people write them.

use std::str::FromStr;

use jiff::Timestamp;
use tsujiban_history::Day;

use crate::exit::ExitCode;

/// A text that is neither a day nor a time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("write a day in Japan such as 2026-11-26, or a time such as 2026-11-26T09:30:00+09:00")]
pub struct InvalidTime;

/// A span that contains no time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("nothing lies between --since and --until; the first has to be the earlier one")]
pub struct EmptySpan;

impl ExitCode for EmptySpan {}

/// The first moment of a span: a time, or 00:00 JST of a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Since(Timestamp);

/// The first moment after a span: a time, or the end of a day in JST, so that the span includes the day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Until(Timestamp);

/// From a moment to before another one; `None` where it has no end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Span {
    pub from: Option<Timestamp>,
    pub to: Option<Timestamp>,
}

impl Span {
    pub fn new(since: Option<Since>, until: Option<Until>) -> Result<Self, EmptySpan> {
        let (from, to) = (since.map(|since| since.0), until.map(|until| until.0));
        if from.zip(to).is_some_and(|(from, to)| from >= to) { Err(EmptySpan) } else { Ok(Self { from, to }) }
    }
}

impl FromStr for Since {
    type Err = InvalidTime;

    fn from_str(text: &str) -> Result<Self, InvalidTime> {
        text.parse::<Day>().map(Day::starts).or_else(|_| text.parse()).map(Self).map_err(|_| InvalidTime)
    }
}

impl FromStr for Until {
    type Err = InvalidTime;

    fn from_str(text: &str) -> Result<Self, InvalidTime> {
        text.parse::<Day>().map(|day| day.plus(1).starts()).or_else(|_| text.parse()).map(Self).map_err(|_| InvalidTime)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(since: &str, until: &str) -> Result<Span, EmptySpan> {
        Span::new(Some(since.parse().unwrap()), Some(until.parse().unwrap()))
    }

    #[test]
    fn a_day_is_a_day_in_japan_and_all_of_it() {
        let day = span("2026-11-26", "2026-11-26").unwrap();
        assert_eq!(day.from, Some("2026-11-25T15:00:00Z".parse().unwrap()));
        assert_eq!(day.to, Some("2026-11-26T15:00:00Z".parse().unwrap()));
    }

    #[test]
    fn a_time_says_where_it_is_a_time() {
        let hour = span("2026-11-26T09:00:00+09:00", "2026-11-26T01:00:00Z").unwrap();
        assert_eq!(hour.from, Some("2026-11-26T00:00:00Z".parse().unwrap()));
        assert_eq!(hour.to, Some("2026-11-26T01:00:00Z".parse().unwrap()));
        for bad in ["", "yesterday", "2026-11-26T09:00:00", "2026-13-01", "26-11-2026", "1764119400"] {
            assert!(bad.parse::<Since>().is_err() && bad.parse::<Until>().is_err(), "{bad}");
        }
    }

    #[test]
    fn nothing_lies_in_a_span_that_ends_before_it_begins() {
        assert_eq!(span("2026-11-27", "2026-11-26"), Err(EmptySpan));
        assert_eq!(span("2026-11-26T09:00:00+09:00", "2026-11-26T00:00:00Z"), Err(EmptySpan));
    }
}
