//! Kubernetes quantities, written as the apiserver writes them, so that what is wanted and what is stored compare as text.
//!
//! After k8s.io/apimachinery/pkg/api/resource: the largest unit that needs no fraction; binary units only from 1024 on.

use std::cmp::Ordering;
use std::fmt;

use k8s_openapi::apimachinery::pkg::api::resource;

const NANO: i128 = 1_000_000_000;
/// The largest amount: far above any cluster, and small enough that nothing overflows.
const MOST: i128 = NANO * 1_000_000_000_000_000_000;

/// A text that is no quantity, or one out of range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a quantity between 0 and 1E; write for example 500m, 2 or 1Gi")]
pub struct InvalidQuantity(String);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Units {
    Binary,
    Decimal,
    Exponent,
}

/// An amount that is not negative, exact to the billionth.
#[derive(Debug, Clone, Copy)]
pub struct Quantity {
    nanos: i128,
    units: Units,
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl Quantity {
    pub fn parse(text: &str) -> Result<Self, InvalidQuantity> {
        read(text).filter(|quantity| (0..=MOST).contains(&quantity.nanos)).ok_or_else(|| InvalidQuantity(text.to_owned()))
    }

    /// Thousandths of a core or byte.
    pub const fn milli(milli: u32) -> Self {
        Self { nanos: widen(milli) * (NANO / 1000), units: Units::Decimal }
    }

    /// Mebibytes.
    pub const fn mebi(mebi: u32) -> Self {
        Self { nanos: widen(mebi) * 1024 * 1024 * NANO, units: Units::Binary }
    }

    /// A number of objects.
    pub const fn count(count: u32) -> Self {
        Self { nanos: widen(count) * NANO, units: Units::Decimal }
    }
}

#[allow(clippy::as_conversions, clippy::cast_lossless)] // lossless; `From` cannot be called in a const
const fn widen(number: u32) -> i128 {
    number as i128
}

impl From<Quantity> for resource::Quantity {
    fn from(quantity: Quantity) -> Self {
        Self(quantity.to_string())
    }
}

fn read(text: &str) -> Option<Quantity> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '+').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let number = number.strip_prefix('+').unwrap_or(number);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() || digits.len() > 30 || digits.contains(['.', '+']) {
        return None;
    }
    let mantissa: i128 = digits.parse().ok()?;
    let (factor, divisor, units) = unit(suffix)?;
    let scale = 10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?.checked_mul(divisor)?;
    let scaled = mantissa.checked_mul(factor)?.checked_mul(NANO)?;
    // what is finer than a billionth is rounded up, as the apiserver does
    let nanos = scaled.checked_add(scale - 1)?.checked_div(scale)?;
    Some(Quantity { nanos, units })
}

/// The factor and divisor of a unit, and the family in which it is written back.
fn unit(suffix: &str) -> Option<(i128, i128, Units)> {
    let binary = |power: u32| Some((1024_i128.checked_pow(power)?, 1, Units::Binary));
    let decimal = |power: u32| Some((1000_i128.checked_pow(power)?, 1, Units::Decimal));
    let small = |power: u32| Some((1, 1000_i128.checked_pow(power)?, Units::Decimal));
    match suffix {
        "" => decimal(0),
        "k" => decimal(1),
        "M" => decimal(2),
        "G" => decimal(3),
        "T" => decimal(4),
        "P" => decimal(5),
        "E" => decimal(6),
        "m" => small(1),
        "u" => small(2),
        "n" => small(3),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            let power = 10_i128.checked_pow(exponent.unsigned_abs())?;
            Some(if exponent < 0 { (1, power, Units::Exponent) } else { (power, 1, Units::Exponent) })
        }
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let binary = self.units == Units::Binary && self.nanos >= 1024 * NANO && self.nanos % NANO == 0;
        if binary {
            let mut number = self.nanos / NANO;
            let mut suffix = "";
            for next in ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"] {
                if number % 1024 != 0 {
                    break;
                }
                number /= 1024;
                suffix = next;
            }
            return write!(f, "{number}{suffix}");
        }
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let mut number = self.nanos;
        let mut thousands: i32 = -3;
        while number % 1000 == 0 && thousands < 6 {
            number /= 1000;
            thousands += 1;
        }
        match (self.units, thousands) {
            (_, 0) => write!(f, "{number}"),
            (Units::Exponent, _) => write!(f, "{number}e{}", thousands * 3),
            _ => {
                let suffix = match thousands {
                    -3 => "n",
                    -2 => "u",
                    -1 => "m",
                    1 => "k",
                    2 => "M",
                    3 => "G",
                    4 => "T",
                    5 => "P",
                    _ => "E",
                };
                write!(f, "{number}{suffix}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_as_the_apiserver_writes_them() {
        for (given, stored) in [
            ("2", "2"),
            ("1000m", "1"),
            ("0.5", "500m"),
            ("1.25", "1250m"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("1000Ki", "1000Ki"),
            ("1000", "1k"),
            ("1073741824", "1073741824"),
            ("0.5Ki", "512"),
            ("0.3Gi", "322122547200m"),
            ("1e3", "1e3"),
            ("1E", "1E"),
            ("0", "0"),
            ("+3", "3"),
            ("100M", "100M"),
        ] {
            assert_eq!(Quantity::parse(given).unwrap().to_string(), stored, "{given}");
        }
    }

    #[test]
    fn what_is_none_is_refused() {
        for bad in ["", "Gi", "-1", "1 Gi", "1gi", "1.2.3", "one", "1e", "9999999999999999E", "1e99"] {
            assert!(Quantity::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn amounts_compare_across_units() {
        assert!(Quantity::parse("1Gi").unwrap() > Quantity::mebi(256));
        assert_eq!(Quantity::parse("1").unwrap(), Quantity::milli(1000));
        assert_eq!(Quantity::count(10).to_string(), "10");
    }
}
