//! One figure, its baseline, and the target that was set for it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What is measured together, since it shares a set-up.
pub struct Suite {
    /// The names of the figures, as they are asked for.
    pub figures: &'static [&'static str],
    /// Measures those of its figures that are wanted. An error means that it could not be measured, and says what to do.
    pub measure: fn(wanted: &[&str]) -> anyhow::Result<Vec<Measured>>,
}

/// A figure as it is written down.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    pub name: String,
    pub value: f64,
    pub unit: String,
    /// The same quantity of what it is compared with, measured in the same run on the same machine.
    pub baseline: f64,
    /// `value / baseline`; none when the baseline is zero.
    pub ratio: Option<f64>,
    /// What was measured, how, and when.
    pub note: String,
}

impl Figure {
    pub fn new(name: &str, value: f64, unit: &str, baseline: f64, note: String) -> Self {
        let ratio = (baseline != 0.0).then(|| value / baseline);
        Self { name: name.to_owned(), value, unit: unit.to_owned(), baseline, ratio, note }
    }
}

/// What a figure should reach.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Target {
    /// At least so many times the baseline.
    RatioAtLeast(f64),
    /// At most so many times the baseline.
    RatioAtMost(f64),
    /// At least this, whatever the baseline.
    ValueAtLeast(f64),
    /// At most this, whatever the baseline.
    ValueAtMost(f64),
}

impl Target {
    pub fn is_met_by(self, figure: &Figure) -> bool {
        match self {
            Self::RatioAtLeast(least) => figure.ratio.is_some_and(|ratio| ratio >= least),
            Self::RatioAtMost(most) => figure.ratio.is_some_and(|ratio| ratio <= most),
            Self::ValueAtLeast(least) => figure.value >= least,
            Self::ValueAtMost(most) => figure.value <= most,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RatioAtLeast(least) => write!(f, "ratio >= {least}"),
            Self::RatioAtMost(most) => write!(f, "ratio <= {most}"),
            Self::ValueAtLeast(least) => write!(f, "value >= {least}"),
            Self::ValueAtMost(most) => write!(f, "value <= {most}"),
        }
    }
}

/// A figure of this run with its target.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    pub figure: Figure,
    pub target: Target,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_that_of_value_and_baseline() {
        let figure = |value, baseline| Figure::new("rate", value, "1/min", baseline, String::new());
        assert_eq!(figure(10.0, 2.0).ratio, Some(5.0));
        assert_eq!(figure(10.0, 0.0).ratio, None);
        let five = Target::RatioAtLeast(5.0);
        assert!(five.is_met_by(&figure(10.0, 2.0)) && !five.is_met_by(&figure(9.9, 2.0)) && !five.is_met_by(&figure(10.0, 0.0)));
        let (least, most) = (Target::ValueAtLeast(10.0), Target::ValueAtMost(10.0));
        assert_eq!([9.9, 10.0, 10.1].map(|value| least.is_met_by(&figure(value, 0.0))), [false, true, true]);
        assert_eq!([9.9, 10.0, 10.1].map(|value| most.is_met_by(&figure(value, 0.0))), [true, true, false]);
    }
}
