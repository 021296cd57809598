//! Points in time on the wire.

use jiff::Timestamp;

/// To the wire. Exact to the nanosecond.
pub fn to_wire(time: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: time.as_second(), nanos: time.subsec_nanosecond() }
}

/// From the wire. `None` when it is out of range.
pub fn from_wire(time: &prost_types::Timestamp) -> Option<Timestamp> {
    Timestamp::new(time.seconds, time.nanos).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let time: Timestamp = "2026-11-23T02:00:00.123456789Z".parse().unwrap();
        assert_eq!(from_wire(&to_wire(time)), Some(time));
        assert_eq!(from_wire(&prost_types::Timestamp { seconds: i64::MAX, nanos: 0 }), None);
    }
}
