//! Decides which fault comes when. Pure: the same seed, request and count give the same fault, in whatever order requests come.

use std::time::Duration;

use http::Method;

use super::Call;

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    None,
    /// It arrives late.
    Late(Duration),
    /// It is answered with this code, and not done.
    Refused(u16),
    /// It is lost with its connection.
    Lost,
    /// It is done, and the answer is lost with the connection.
    AnswerLost,
    /// Nothing happens, for ever.
    Hangs,
    /// It gets an earlier answer to the same request; the number selects which.
    Stale(u64),
}

/// What becomes of an event of a watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventFault {
    None,
    Dropped,
    /// It arrives late, and all of its kind behind it: so that kinds come in another order.
    Late(Duration),
    Twice,
    /// The watch ends, since its resource version is too old.
    Expired,
    /// The connection breaks.
    Cut,
    /// Nothing more comes, and the connection stays.
    Silent,
}

/// A seed, and how often what happens, in a thousand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    seed: u64,
}

impl Plan {
    pub const fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// What becomes of the request when it is asked for the `nth` time.
    pub fn on_request(&self, call: &Call, nth: u64) -> Fault {
        let dice = self.dice(&format!("{} {}", call.method, call.path), nth);
        let later = dice / 1000;
        let (read, write) = (call.is_read(), call.is_write());
        match dice % 1000 {
            0..60 => Fault::Late(Duration::from_millis(later % 700)),
            60..75 => Fault::Refused(429),
            75..90 => Fault::Refused(500),
            90..110 => Fault::Refused(503),
            110..130 => Fault::Lost,
            130..135 => Fault::Hangs,
            135..165 if write => Fault::AnswerLost,
            165..195 if write && call.method != Method::POST => Fault::Refused(409),
            135..145 if call.is_watch() => Fault::Refused(410),
            135..235 if read => Fault::Stale(later),
            _ => Fault::None,
        }
    }

    /// What becomes of the `nth` event about an object.
    pub fn on_event(&self, resource: &str, object: &str, nth: u64) -> EventFault {
        let dice = self.dice(&format!("{resource} {object}"), nth);
        match dice % 1000 {
            0..80 => EventFault::Dropped,
            80..180 => EventFault::Late(Duration::from_millis(dice / 1000 % 1500)),
            180..260 => EventFault::Twice,
            260..275 => EventFault::Expired,
            275..295 => EventFault::Cut,
            295..300 => EventFault::Silent,
            _ => EventFault::None,
        }
    }

    fn dice(self, what: &str, nth: u64) -> u64 {
        let hash = what.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        mixed(mixed(self.seed ^ hash).wrapping_add(nth))
    }
}

/// The finalizer of splitmix64 (Steele, Lea, Flood 2014).
fn mixed(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Fault {
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Late(_) => "request late",
            Self::Refused(409) => "409",
            Self::Refused(410) => "410",
            Self::Refused(429) => "429",
            Self::Refused(_) => "5xx",
            Self::Lost => "request lost",
            Self::AnswerLost => "answer lost",
            Self::Hangs => "request hangs",
            Self::Stale(_) => "stale read",
        }
    }
}

impl EventFault {
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Dropped => "event dropped",
            Self::Late(_) => "event late",
            Self::Twice => "event twice",
            Self::Expired => "watch expired",
            Self::Cut => "watch cut",
            Self::Silent => "watch silent",
        }
    }

    /// Whether the watch itself continues as before.
    pub const fn is_about_one_event(self) -> bool {
        matches!(self, Self::Dropped | Self::Late(_) | Self::Twice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::collections::BTreeMap;

    fn call(method: &Method, uri: &str) -> Call {
        Call::new(method, &uri.parse().unwrap(), &Value::Null)
    }

    #[test]
    fn a_seed_decides_everything() {
        let get = call(&Method::GET, "/api/v1/namespaces/tn-acme");
        let all = |seed: u64| (0..200).map(|nth| Plan::new(seed).on_request(&get, nth)).collect::<Vec<_>>();
        assert_eq!(all(1), all(1));
        assert_ne!(all(1), all(2));
    }

    #[test]
    fn every_fault_comes_where_it_can() {
        let counted = |method: &Method, uri: &str| {
            let call = call(method, uri);
            let faults = (0..20_000).map(|nth| Plan::new(7).on_request(&call, nth).name());
            faults.fold(BTreeMap::new(), |mut counts: BTreeMap<_, u32>, name| {
                *counts.entry(name).or_default() += 1;
                counts
            })
        };
        let read = counted(&Method::GET, "/api/v1/namespaces/tn-acme");
        assert!((1500..2500).contains(&read["stale read"]) && !read.contains_key("answer lost") && !read.contains_key("409"), "{read:?}");
        let write = counted(&Method::PATCH, "/api/v1/namespaces/tn-acme");
        assert!((400..800).contains(&write["answer lost"]) && (400..800).contains(&write["409"]), "{write:?}");
        assert!(!write.contains_key("stale read"), "{write:?}");
        let watch = counted(&Method::GET, "/api/v1/namespaces?watch=true");
        assert!((100..300).contains(&watch["410"]) && !watch.contains_key("stale read"), "{watch:?}");
        for counts in [read, write, watch] {
            assert!(["request late", "429", "5xx", "request lost", "request hangs"].iter().all(|name| counts.contains_key(name)));
        }
        let events: Vec<&str> = (0..20_000).map(|nth| Plan::new(7).on_event("tenants", "acme", nth).name()).collect();
        for name in ["event dropped", "event late", "event twice", "watch expired", "watch cut", "watch silent"] {
            assert!(events.contains(&name), "{name}");
        }
    }
}
