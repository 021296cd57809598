//! Decimal numbers in their one canonical form.

/// A decimal number without sign and without leading zeros.
pub fn parse(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_one_text() {
        assert_eq!(["0", "7", "10", "18446744073709551615"].map(parse), [Some(0), Some(7), Some(10), Some(u64::MAX)]);
        for bad in ["", "00", "01", "+1", "-1", " 1", "1 ", "1_0", "0x1", "18446744073709551616", "１"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
