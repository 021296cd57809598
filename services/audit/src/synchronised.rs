//! Whether the clock follows a precise source (C20), as the kernel reports it. The history's times are only as precise as the clock. The
//! state is a metric, and is reported to the operator, which makes it a condition of Tenants. It is no reason to refuse calls: operations
//! must be recorded even with an imprecise clock.

use jiff::SignedDuration;
use rtime_clock::adjtime::{Timex, adjtimex};

use crate::metrics::Metrics;

/// The kernel's state of a clock that is not synchronised, and the bits of its status (`linux/timex.h`).
const TIME_ERROR: i32 = 5;
const STA_UNSYNC: i32 = 0x0040;
const STA_NANO: i32 = 0x2000;

/// The state of the clock in the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Synchronisation {
    pub synchronised: bool,
    /// The offset of the clock from its source.
    pub offset: SignedDuration,
    /// The maximum error of the clock.
    pub max_error: SignedDuration,
}

impl Synchronisation {
    /// Reads the state from the kernel, and changes nothing.
    pub fn read() -> std::io::Result<Self> {
        let mut timex = Timex::new();
        let state = adjtimex(&mut timex)?;
        Ok(Self::of(state, timex.0.status, timex.0.offset, timex.0.maxerror))
    }

    fn of(state: i32, status: i32, offset: i64, max_error_us: i64) -> Self {
        let nanos = status & STA_NANO != 0;
        Self {
            synchronised: state != TIME_ERROR && status & STA_UNSYNC == 0,
            offset: if nanos { SignedDuration::from_nanos(offset) } else { SignedDuration::from_micros(offset) },
            max_error: SignedDuration::from_micros(max_error_us),
        }
    }

    pub fn show(self, metrics: &Metrics) {
        metrics.clock_synchronised.set(i64::from(self.synchronised));
        metrics.clock_offset.set(self.offset.as_secs_f64());
        metrics.clock_error.set(self.max_error.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_says_is_understood() {
        let good = Synchronisation::of(0, STA_NANO | 1, -1500, 20_000);
        assert!(good.synchronised);
        assert_eq!((good.offset.as_nanos(), good.max_error.as_millis()), (-1500, 20));
        assert_eq!(Synchronisation::of(0, 1, -1500, 0).offset.as_micros(), -1500);
        assert!(!Synchronisation::of(TIME_ERROR, 0, 0, 0).synchronised);
        assert!(!Synchronisation::of(0, STA_UNSYNC, 0, 16_000_000).synchronised);
    }

    #[test]
    fn the_kernel_answers() {
        Synchronisation::read().unwrap();
    }
}
