//! Parses values from the wire into valid types.

use jiff::Timestamp;
use tsujiban_proto::time::from_wire;

use crate::error::{Error, Result};
use crate::owner::Owner;

/// The longest filter in bytes.
const MAX_FILTER: usize = 64 * 1024;
const MAX_REASON: usize = 1000;

pub fn owner(group: &str) -> Result<Owner> {
    Owner::parse(group).map_err(|error| Error::invalid(format!("{error}; name an existing group, or none for the platform")))
}

pub fn id(bytes: &[u8], what: &str) -> Result<[u8; 16]> {
    bytes.try_into().map_err(|_| Error::invalid(format!("the {what} has {} bytes and must have 16", bytes.len())))
}

pub fn time(time: Option<&prost_types::Timestamp>) -> Result<Option<Timestamp>> {
    let wrong = || Error::invalid("a time is out of range; send one between the years 1 and 9999");
    time.map(|time| from_wire(time).ok_or_else(wrong)).transpose()
}

/// A filter; empty for none.
pub fn filter(text: String) -> Result<Option<String>> {
    if text.len() > MAX_FILTER {
        return Err(Error::invalid("a filter is longer than anything that can be there; shorten it"));
    }
    Ok(Some(text).filter(|text| !text.is_empty()))
}

/// How many entries to return: 0 stands for the default.
pub fn page_size(asked: u32) -> Result<usize> {
    match asked {
        0 => Ok(100),
        1..=500 => Ok(usize::try_from(asked).unwrap_or(500)),
        _ => Err(Error::invalid("a page has at most 500 entries; ask for the rest with the token of the answer")),
    }
}

/// The entry before which a page continues.
pub fn page_token(token: &str) -> Result<Option<u64>> {
    if token.is_empty() {
        return Ok(None);
    }
    let wrong = || Error::invalid("the page token is not one of ours; send next_page_token as it was answered");
    token.strip_prefix("before-").and_then(|number| number.parse().ok()).map(Some).ok_or_else(wrong)
}

pub fn reason(text: &str) -> Result<&str> {
    match text.trim().chars().count() {
        1..=MAX_REASON => Ok(text.trim()),
        _ => Err(Error::invalid("say in 1 to 1,000 characters what happened; whoever reads the history later will want to know")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_tokens_and_sizes() {
        assert_eq!(page_token("").unwrap(), None);
        assert_eq!(page_token("before-17").unwrap(), Some(17));
        for bad in ["17", "before-", "before--1", "before-x"] {
            assert!(page_token(bad).is_err(), "{bad}");
        }
        assert_eq!((page_size(0).unwrap(), page_size(500).unwrap()), (100, 500));
        assert!(page_size(501).is_err());
    }

    #[test]
    fn a_reason_is_given() {
        assert_eq!(reason(" the disk died \n").unwrap(), "the disk died");
        assert!(reason(" ").is_err());
        assert!(reason(&"x".repeat(1001)).is_err());
    }
}
